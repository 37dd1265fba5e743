"""GenerateAndCorrect: generation and correction as one function for `Dataset.map`.

    synthetic = gold.map(generate_and_correct, **generate_and_correct.map_kwargs)    # 1 -> n rows
    paired = gold.map(generate_and_correct)                                          # 1 -> 1, no gold text survives

Its fingerprint, the state that `datasets` hashes, holds what decides the output and nothing else: task, prompt, model
id, sampling, exemplars, policy, the corrector's weights. Endpoint, concurrency and journal may change; with the same
fingerprint a second run makes no call. It is synchronous: the LLM runs its own event loop in a thread, so that it works
in a notebook, in streaming and inside a running loop.
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

from hf_synth.correction.correction import CROSS_FITTED, corrector_identity
from hf_synth.correction.policy import Policy, apply
from hf_synth.errors import ColumnError, TaskError
from hf_synth.generation.gates import Gates
from hf_synth.generation.plan import Pool, plan_for_row
from hf_synth.generation.prompts import answer_schema
from hf_synth.generation.rows import rows_from_answer, usage_of
from hf_synth.llm.questions import asked_of
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
_VERSION = 3  # raised when the same state would give other rows
_BATCH = 256  # gold rows whose answers are awaited together
# A transform is pickled as its fingerprint and looked up here, by `datasets` when it hashes and by forked workers.
_LIVE: weakref.WeakValueDictionary[str, GenerateAndCorrect] = weakref.WeakValueDictionary()


class GenerateAndCorrect:
    """Turn gold rows into synthetic, label-corrected rows, in `Dataset.map` or `IterableDataset.map`.

    Args:
        task: the task of the rows.
        llm: the generator.
        corrector: folder or repo id of a trained model; needed with a policy.
        exemplars: gold rows that may be shown beside the row itself.
        policy: from `fit_policy`; without it the label is the generator's.
        judge: in place of a corrector: an LLM that labels each new row, with the policy that was fitted with it
            (`fit_policy(task, pilot, judge, gold=gold, method="llm_judge")`).
        n: rows to generate for each gold row.
        prompt: the task's default when None.
        seed: of the choice of exemplars.

    Raises:
        TaskError: a policy without a corrector or judge, or fitted for another one; a judge without a policy or of
            another task.
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
            raise TaskError(f"policy {policy.method!r} needs the corrector or judge that it was fitted with")
        if judge is not None:
            _check_judge(task, judge, corrector, policy)
        if policy is not None and (corrector is not None or judge is not None):
            _check_bound(policy, judge if corrector is None else corrector)
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
        if own := asked_of(llm, {}):
            self._state["sampling"] = sorted(own.items())
        if judge is not None:
            self._state["judge"] = judge.identity
        self._llm, self._corrector, self._judge, self._exemplars = llm, corrector, judge, exemplars
        self._pool = Pool(task, exemplars, seed=seed)
        self._access, self._gates = self._pool.access, Gates(task, self._pool)
        _LIVE[self.fingerprint] = self

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the output (hex sha256); equal in every process."""
        return hashlib.sha256(json.dumps(self._state, sort_keys=True).encode()).hexdigest()

    def features(self) -> Features:
        """Return the features of the output rows."""
        return self._task.corrected_features()

    @property
    def map_kwargs(self) -> dict[str, Any]:
        """Keywords of `map` for 1 -> n rows: batches, columns to remove, features of the output."""
        columns = self._exemplars.column_names
        return {"batched": True, "batch_size": _BATCH, "remove_columns": columns, "features": self.features()}

    def __reduce__(self) -> tuple[Any, ...]:
        # a client or a path in the pickle would change the hash from run to run
        return (_revive, (self.fingerprint,))

    def __call__(self, rows: Mapping[str, Any]) -> Any:
        """Generate and correct synthetic rows from one gold row, or from a batch.

        Returns:
            For a batch a dict of columns; for one row of a `Dataset` a table of one row, which replaces the gold row;
            for one row of an `IterableDataset` a dict in which every column of the gold row is overwritten.
        """
        columns = list(rows.keys())
        missing = [c for c in (*self._task.text_columns, self._task.label_column) if c not in columns]
        if missing:
            raise ColumnError(f"the rows to map lack columns {missing} of task {self._task.full_name!r}")
        features = self.features()
        if isinstance(rows[self._task.text_columns[0]], list):
            count = len(rows[self._task.text_columns[0]])
            synthetic = self._generate([{c: rows[c][i] for c in columns} for i in range(count)])
            return {name: [row.get(name) for row in synthetic] for name in features}
        if self._n != 1:
            raise TaskError("one gold row becomes one row here: for n rows each use map(..., **transform.map_kwargs)")
        row = self._generate([{c: rows[c] for c in columns}])[0]
        if isinstance(rows, dict):  # streaming
            return dict.fromkeys(columns) | {name: row.get(name) for name in features}
        import pyarrow as pa

        return pa.Table.from_pylist([{name: row.get(name) for name in features}], schema=features.arrow_schema)

    def _generate(self, gold: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Generate and correct n rows or more, with rejected ones, for each gold row; exactly one when n is 1."""
        if not gold:
            return []
        task, pool = self._task, self._pool
        calls = [plan_for_row(task, self._prompt, row, pool, self._n, self._seed) for row in gold]
        access = strictest(self._access, *(row.get("access") for row in gold))
        sampling: dict[str, Any] = dict(self._prompt.sampling)
        asked = json.dumps(asked_of(self._llm, sampling), sort_keys=True)
        answers = self._llm.chat(
            [call.messages for call in calls],
            access=access,
            schema=answer_schema(task) if task.parse is None else None,
            samples=[call.index for call in calls],
            scope=task.fingerprint(),
            **sampling,
        )
        synthetic: list[dict[str, Any]] = []
        for row, call, answer in zip(gold, calls, answers, strict=True):
            seen = Seen()  # one for each row: its answer must not depend on those of other rows
            seen.repeat(tuple(row[c] for c in task.text_columns))
            rows = rows_from_answer(task, call, answer, access, self._gates, seen, asked)
            kept = [r for r in rows if r["label_status"] == "kept"][: self._n]
            rejected = [r for r in rows if r["label_status"] == "rejected"]
            chosen = (kept or rejected)[:1] if self._n == 1 else kept + rejected
            chosen[0] |= usage_of(answer)
            synthetic += chosen
        if failed := sum(answer.status == "error" for answer in answers):
            _LOG.warning(
                "%d of %d questions got no answer: map(..., load_from_cache_file=False) asks these again",
                failed,
                len(answers),
            )
        return self._corrected(synthetic)

    def _corrected(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Apply the policy to the rows that were not rejected; without one the generator's label stays."""
        from datasets import Dataset

        kept = [row for row in rows if row["label_status"] == "kept"]
        for row in rows:
            row |= {"label_probs": None, "label_confidence": None, "weight": float(row["label_status"] == "kept")}
        if self._policy is None or (self._corrector is None and self._judge is None) or not kept:
            return rows
        probs = self._probs(Dataset.from_list(kept, features=self.features()))
        corrected = apply(self._policy, np.array([row["llm_label"] for row in kept]), probs)
        for row, columns in zip(kept, corrected.columns(self._task.label_column), strict=True):
            row |= columns
        return rows

    def _probs(self, rows: Dataset) -> npt.NDArray[np.floating[Any]]:
        if self._judge is not None:
            return self._judge.predict(rows)
        assert self._corrector is not None
        return predict_proba(self._task, self._corrector, rows)


def _check_judge(task: Task, judge: LLMJudge, corrector: str | Path | None, policy: Policy | None) -> None:
    if corrector is not None:
        raise TaskError("a judge and a corrector exclude each other: give one of them")
    if policy is None:
        raise TaskError(
            "a judge needs a policy: give the policy that was fitted with it, "
            'fit_policy(task, pilot, judge, gold=gold, method="llm_judge")'
        )
    if judge.task.fingerprint() != task.fingerprint():
        raise TaskError(f"the judge is one of task {judge.task.full_name!r}, the rows are of {task.full_name!r}")


def _check_bound(policy: Policy, corrector: Any) -> None:
    """Check that a policy was fitted for a corrector: its matrices and cuts are of that one's probabilities.

    Raises:
        TaskError: it was fitted for another one, or needs labels of LLMs that new rows do not have.
    """
    if policy.method in ("none", "gold_only"):
        return
    if policy.method == "gold_only":
        raise TaskError("policy 'gold_only' drops every row: nothing is generated for it; train on the gold alone")
    if policy.annotators:
        raise TaskError(
            f"policy {policy.method!r} joins labels of LLMs that new rows do not have: fit one by another method"
        )
    if policy.corrector and policy.corrector != corrector_identity(corrector):
        made = "models that were trained in folds" if policy.corrector == CROSS_FITTED else "another corrector"
        raise TaskError(
            f"the policy was fitted for {made}: fit one for this corrector, "
            "fit_policy(task, pilot, corrector, gold=gold)"
        )


def _revive(fingerprint: str) -> GenerateAndCorrect:
    """Look up a transform of this process, or of the process that it was forked from."""
    try:
        return _LIVE[fingerprint]
    except KeyError:
        raise TaskError("this process has no such GenerateAndCorrect: construct it in this process") from None


def _digest_rows(task: Task, rows: Dataset) -> str:
    """Hash ids, texts and labels of rows: equal for equal rows, wherever they are cached."""
    total = hashlib.sha256()
    names = [c for c in ("id", *task.text_columns, task.label_column) if c in rows.column_names]
    for row in zip(*(rows[c] for c in names), strict=True):
        total.update(json.dumps(row).encode())
    return total.hexdigest()
