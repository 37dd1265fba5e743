"""GenerateAndCorrect: generation and correction as one function for `Dataset.map`.

    synthetic = gold.map(generate_and_correct, **generate_and_correct.map_kwargs)    # 1 -> n rows
    paired = gold.map(generate_and_correct)                                          # 1 -> 1, no gold text survives

What `datasets` hashes of it (its pickled state) is what decides the output and nothing else: task, prompt, model id,
sampling, exemplars, policy, the corrector's weights. Endpoint, concurrency and journal may change freely; with the same
fingerprint a second run makes no call. It is synchronous on purpose: the LLM runs its own event loop in a thread, so
this works in a notebook, in streaming and inside a running loop.
"""

from __future__ import annotations

import hashlib
import json
import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.policy import Policy, apply
from hf_synth.errors import ColumnError, TaskError
from hf_synth.generation.gates import Gates
from hf_synth.generation.generation import rows_from_answer, usage_of
from hf_synth.generation.plan import Pool, plan_for_row
from hf_synth.generation.prompts import answer_schema
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import weights_sha256
from hf_synth.privacy.repetition import Seen
from hf_synth.task.columns import strictest
from hf_synth.task.labels import check_columns
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset, Features

    from hf_synth.correction.judging import LLMJudge
    from hf_synth.llm.llm import LLM

_LOG = logging.getLogger(__name__)
_VERSION = 2  # bumped when the same state would give other rows
_BATCH = 256  # gold rows whose answers are waited for together
# Pickled as its fingerprint, a transform is found again here: by `datasets` when it hashes, by forked workers.
_LIVE: weakref.WeakValueDictionary[str, GenerateAndCorrect] = weakref.WeakValueDictionary()


class GenerateAndCorrect:
    """Turn gold rows into synthetic, label-corrected rows; made for `Dataset.map` and `IterableDataset.map`.

    Args:
        task: what the rows are.
        llm: the endpoint that writes.
        corrector: folder or repo id of a trained model; needed with a policy.
        exemplars: gold rows that may be shown beside the row itself.
        policy: from `fit_policy`; without it the label is the generator's.
        judge: in the place of a corrector: an LLM that labels each new row, with the policy that was fitted with it
            (`fit_policy(task, pilot, judge, gold=gold, method="llm_judge")`).
        n: rows asked for each gold row.
        prompt: the task's default when None.
        seed: of the choice of exemplars.

    Raises:
        TaskError: a policy without a corrector or judge, a judge without a policy or of another task.
        ColumnError: the exemplars lack columns.
    """

    def __init__(
        self,
        task: Task,
        llm: LLM,
        corrector: str | Path | None = None,
        *,
        exemplars: Dataset,
        policy: Policy | None = None,
        judge: LLMJudge | None = None,
        n: int = 1,
        prompt: Prompt | None = None,
        seed: int = 0,
    ) -> None:
        check_columns(task, exemplars, what="the exemplars")
        if policy is not None and corrector is None and judge is None and policy.method != "none":
            raise TaskError(f"policy {policy.method!r} needs the corrector or judge it was fitted with")
        if judge is not None:
            _check_judge(task, judge, corrector, policy)
        self._task, self._policy, self._n, self._seed = task, policy, n, seed
        self._prompt = prompt or task.prompt
        self._state = {
            "version": _VERSION,
            "task": task.fingerprint(),
            "prompt": repr(self._prompt),
            "model": llm.model,
            "exemplars": _digest_rows(task, exemplars),
            "policy": policy.fingerprint() if policy else None,
            "corrector": weights_sha256(corrector) if corrector and policy else None,
            "n": n,
            "seed": seed,
        }
        if judge is not None:
            self._state["judge"] = _decides(judge)
        self._llm, self._corrector, self._judge, self._exemplars = llm, corrector, judge, exemplars
        self._pool = Pool(task, exemplars, seed=seed)
        self._access, self._gates = self._pool.access, Gates(task, self._pool)
        _LIVE[self.fingerprint] = self

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the output (hex sha256); equal in every process."""
        return hashlib.sha256(json.dumps(self._state, sort_keys=True).encode()).hexdigest()

    def features(self) -> Features:
        """Give the features of the rows that come out."""
        return self._task.corrected_features()

    @property
    def map_kwargs(self) -> dict[str, Any]:
        """What `map` needs for 1 -> n rows: batches, the columns that leave, the features that come."""
        columns = self._exemplars.column_names
        return {"batched": True, "batch_size": _BATCH, "remove_columns": columns, "features": self.features()}

    def __reduce__(self) -> tuple[Any, ...]:
        # a client or a path in the pickle would make the hash differ from run to run
        return (_revive, (self.fingerprint,))

    # --- rows in, rows out ------------------------------------------------------------------------------------------

    def __call__(self, rows: Mapping[str, Any]) -> Any:
        """Make synthetic rows of one gold row, or of a batch of them.

        Returns:
            For a batch a dict of columns; for one row of a `Dataset` a table of one row, which replaces the gold row
            whole; for one row of an `IterableDataset` a dict in which every column of the gold row is overwritten.
        """
        columns = list(rows.keys())
        missing = [c for c in (*self._task.text_columns, self._task.label_column) if c not in columns]
        if missing:
            raise ColumnError(f"the rows to map lack columns {missing} of task {self._task.full_name!r}")
        features = self.features()
        if isinstance(rows[self._task.text_columns[0]], list):
            count = len(rows[self._task.text_columns[0]])
            made = self._make([{c: rows[c][i] for c in columns} for i in range(count)])
            return {name: [row.get(name) for row in made] for name in features}
        if self._n != 1:
            raise TaskError("one row becomes one row here; for n rows each use map(..., **transform.map_kwargs)")
        row = self._make([{c: rows[c] for c in columns}])[0]
        if isinstance(rows, dict):  # streaming
            return dict.fromkeys(columns) | {name: row.get(name) for name in features}
        import pyarrow as pa

        return pa.Table.from_pylist([{name: row.get(name) for name in features}], schema=features.arrow_schema)

    def _make(self, gold: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make the rows of some gold rows: n or more for each, rejects among them; exactly one for each when n is 1."""
        if not gold:
            return []
        task, pool = self._task, self._pool
        calls = [plan_for_row(task, self._prompt, row, pool, self._n, self._seed) for row in gold]
        access = strictest(self._access, *(row.get("access") for row in gold))
        sampling: dict[str, Any] = dict(self._prompt.sampling)
        answers = self._llm.chat(
            [call.messages for call in calls],
            access=access,
            schema=answer_schema(task) if task.parse is None else None,
            samples=[call.index for call in calls],
            scope=task.fingerprint(),
            **sampling,
        )
        made: list[dict[str, Any]] = []
        for row, call, answer in zip(gold, calls, answers, strict=True):
            seen = Seen()  # of its own: one row's answer must not decide over another's
            seen.repeat(tuple(row[c] for c in task.text_columns))
            rows = rows_from_answer(task, call, answer, access, self._gates, seen, json.dumps(sampling, sort_keys=True))
            kept = [r for r in rows if r["label_status"] == "kept"][: self._n]
            rejected = [r for r in rows if r["label_status"] == "rejected"]
            chosen = (kept or rejected)[:1] if self._n == 1 else kept + rejected
            chosen[0] |= usage_of(answer)
            made += chosen
        if failed := sum(answer.status == "error" for answer in answers):
            _LOG.warning(
                "%d of %d questions got no answer; `datasets` caches the rejects: map(..., load_from_cache_file=False) "
                "asks them again, and only them", failed, len(answers),
            )  # fmt: skip
        return self._corrected(made)

    def _corrected(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Apply the policy to the rows that came out whole; without one the generator's label stands."""
        from datasets import Dataset

        whole = [row for row in rows if row["label_status"] == "kept"]
        for row in rows:
            row |= {"label_probs": None, "label_confidence": None, "weight": float(row["label_status"] == "kept")}
        if self._policy is None or (self._corrector is None and self._judge is None) or not whole:
            return rows
        written = Dataset.from_list(whole, features=self.features())
        probs = self._opinion(written)
        done = apply(self._policy, np.array([row["llm_label"] for row in whole]), probs)
        for k, row in enumerate(whole):
            row |= {
                self._task.label_column: int(done.label[k]),
                "label_probs": done.probs[k].tolist(),
                "label_confidence": float(done.confidence[k]),
                "weight": float(done.weight[k]),
                "label_status": str(done.status[k]),
                "reason": str(done.reason[k]),
            }
        return rows

    def _opinion(self, rows: Dataset) -> npt.NDArray[np.floating[Any]]:
        if self._judge is not None:
            return self._judge.predict(rows)
        assert self._corrector is not None
        return predict_proba(self._task, self._corrector, rows)


def _check_judge(task: Task, judge: LLMJudge, corrector: str | Path | None, policy: Policy | None) -> None:
    if corrector is not None:
        raise TaskError("a judge and a corrector exclude each other: one opinion is joined with the generator's")
    if policy is None:
        raise TaskError(
            "a judge is never believed as such: give the policy that was fitted with it, "
            'fit_policy(task, pilot, judge, gold=gold, method="llm_judge")'
        )
    if judge.task.fingerprint() != task.fingerprint():
        raise TaskError(f"the judge is one of task {judge.task.full_name!r}, the rows are of {task.full_name!r}")


def _decides(judge: LLMJudge) -> dict[str, Any]:
    """Give what decides a judge's opinion; where it is asked may change."""
    names = ("votes", "logprobs", "prior_free", "seed")
    return {name: getattr(judge, name) for name in names} | {
        "model": judge.llm.model, "kind": type(judge.llm).__name__, "sampling": sorted(judge.sampling.items()),
    }  # fmt: skip


def _revive(fingerprint: str) -> GenerateAndCorrect:
    """Find a transform of this process, or of the process this one was forked from."""
    try:
        return _LIVE[fingerprint]
    except KeyError:
        raise TaskError("GenerateAndCorrect cannot travel to a process that never made it; make it there") from None


def _digest_rows(task: Task, rows: Dataset) -> str:
    """Digest ids, texts and labels of rows: equal for equal rows, wherever they are cached."""
    total = hashlib.sha256()
    names = [c for c in ("id", *task.text_columns, task.label_column) if c in rows.column_names]
    for row in zip(*(rows[c] for c in names), strict=True):
        total.update(json.dumps(row).encode())
    return total.hexdigest()
