"""GenerateAndCorrect: generation and correction as one function for `Dataset.map`.

    kwargs = generate_and_correct.map_kwargs_for(gold)
    synthetic = gold.map(generate_and_correct, **kwargs)    # 1 -> n rows
    paired = gold.map(generate_and_correct)                 # 1 -> 1, no gold text survives

Its fingerprint, all that `datasets` hashes of it, covers what decides the output and nothing else: the task with its
access and parser, the prompt, the identity of the LLM, the exemplars with their groups and access, the policy, and the
content of the corrector or the judge (`identity.py`). Endpoint, concurrency and journal may change; with the same
fingerprint a second run makes no call. A pickle carries the whole state, so that it works in any process, however that
was started. It is synchronous: the LLM runs its own event loop in a thread, so that it works in a notebook, in
streaming and inside a running loop.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.identity import (
    Stamp,
    check_bound,
    check_judge,
    gold_digest,
    judge_identity,
    llm_identity,
    model_digest,
    model_stamp,
    parser_digest,
)
from hf_synth.correction.mapped import GOLD, USE, Mapped, label_by_name, label_names_in, may_misread_codes, read_mapped
from hf_synth.correction.policy import Policy, apply
from hf_synth.errors import ColumnError, ModelError, TaskError
from hf_synth.generation.gates import Gates
from hf_synth.generation.plan import Pool, plan_for_row
from hf_synth.generation.prompts import answer_schema
from hf_synth.generation.rows import rows_from_answer, usage_of
from hf_synth.llm.questions import access_of_llm, asked_of
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import ModelAt
from hf_synth.privacy.repetition import Seen
from hf_synth.task.access import overall_access
from hf_synth.task.columns import LLM_LABEL, Access, strictest
from hf_synth.task.display import Displayed
from hf_synth.task.labels import check_columns
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features, IterableDataset

    from hf_synth.correction.judging import LLMJudge
    from hf_synth.llm.questions import Chat

_LOG = logging.getLogger(__name__)
_VERSION = 4  # raised when the same state would give other rows
_BATCH = 256  # gold rows whose answers are awaited together


class GenerateAndCorrect(Displayed):
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

    Example:
        >>> generate_and_correct = GenerateAndCorrect(task, llm, exemplars=gold["train"])
        >>> paired = gold["train"].select(range(4)).map(generate_and_correct)  # no gold text survives
        >>> set(paired["source"])
        {'synthetic'}
    """

    def __init__(
        self,
        task: Task,
        llm: Chat,
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
            check_judge(task, judge, corrector, policy)
        if policy is not None and (corrector is not None or judge is not None):
            check_bound(policy, judge if corrector is None else corrector)
        self._task, self._policy, self._n, self._seed = task, policy, n, seed
        self._prompt = prompt or task.prompt
        self._llm, self._judge = llm, judge
        self._corrector = corrector if policy is not None else None
        if self._corrector is not None and Path(self._corrector).is_dir():
            self._corrector = Path(self._corrector).resolve()  # the same one from any working folder
        columns = [c for c in (*GOLD, *task.text_columns, task.label_column) if c in exemplars.column_names]
        self._exemplars = exemplars.with_format(None).select_columns(columns)
        self._access = strictest(self._pool.access)
        self._of_model = self._access_of_corrector()
        self._stamp: Stamp = model_stamp(self._corrector) if self._corrector is not None else ()
        self._digest = model_digest(self._corrector) if self._corrector is not None else None
        self._state = _state_of(self)
        _hash_by_fingerprint()

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return task and rows for each row; the LLM, the corrector or judge, the policy, and the exemplars."""
        corrector = str(self._corrector or ("a judge" if self._judge is not None else "none: labels stay"))
        lines = [("LLM", self._llm.model), ("corrector", corrector)]
        lines += [("policy", "none" if self._policy is None else self._policy.method)]
        lines += [("exemplars", f"{len(self._exemplars):,} gold rows, {self._access}")]
        return f"{self._task.full_name}, {self._n} for each row", lines

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the output (hex sha256); equal in every process."""
        state = self._state | {"llm": llm_identity(self._llm)}
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def features(self) -> Features:
        """Return the features of the output rows."""
        return self._task.corrected_features()

    @property
    def map_kwargs(self) -> dict[str, Any]:
        """Keywords of `map` for 1 -> n rows of any dataset: batches, and features of the output.

        A row with a format ("torch", "pandas", ...) and one of an IterableDataset do not carry the names of their
        labels: prefer `map_kwargs_for` there.
        """
        return {"batched": True, "batch_size": _BATCH, "features": self.features()}

    def map_kwargs_for(self, rows: Dataset | IterableDataset | DatasetDict) -> dict[str, Any]:
        """Return the keywords of `map` for 1 -> n rows of a dataset: also its columns to remove and its label names.

        They are for the transform itself, not for a function around it, which would have to pass `fn_kwargs` on.

        Raises:
            ColumnError: it lacks columns or has labels that are not the task's, or its splits differ from each other.
        """
        parts: list[Any] = list(rows.values()) if isinstance(rows, Mapping) else [rows]
        kwargs: dict[str, Any] = self.map_kwargs | {"fn_kwargs": {"typed": True}}
        columns, features = parts[0].column_names, parts[0].features
        if any(part.column_names != columns or part.features != features for part in parts):
            raise ColumnError("the splits have different columns: map each split by itself")
        if columns is not None:
            missing = [c for c in (*self._task.text_columns, self._task.label_column) if c not in columns]
            if missing:
                raise ColumnError(f"the rows to map lack columns {missing} of task {self._task.full_name!r}")
            foreign = [c for c in columns if c not in kwargs["features"]]  # the others are overwritten
            kwargs |= {"remove_columns": foreign, "fn_kwargs": kwargs["fn_kwargs"] | {"removed": True}}
        names = label_names_in(features, self._task.label_column) if self._task.labels else None
        label_by_name(self._task, names, names, typed=True)  # checks them
        if features is not None:
            kwargs["fn_kwargs"] |= {"label_names": names, "known": True}
        return kwargs

    def __reduce__(self) -> tuple[Any, ...]:
        derived = ("_pool", "_gates", "_names_by_text")
        return _revived, (type(self), {k: v for k, v in self.__dict__.items() if k not in derived})

    def __call__(
        self,
        rows: Any,
        *_: Any,
        typed: bool = False,
        label_names: list[str] | None = None,
        known: bool = False,
        removed: bool = False,
    ) -> Any:
        """Generate and correct synthetic rows from one gold row, or from a batch, in any format of `datasets`.

        Args:
            rows: what `map` hands over; indices and ranks after it are ignored.
            typed: whether `map` was given `features`; set by `map_kwargs_for`.
            label_names: what numbers in the label column mean; set by `map_kwargs_for`.
            known: whether the feature of the label is known, with or without names; set by `map_kwargs_for`.
            removed: whether `map` removes the columns that the output does not have; set by `map_kwargs_for`.

        Returns:
            A table for rows of a Dataset, which replaces the gold rows. A dict for rows of an IterableDataset and for
            arrays and tensors, in which every column of the gold rows is overwritten.

        Raises:
            ColumnError: the rows lack columns, or have a label that is not the task's.
            TaskError: one row is to become several outside a batch.
        """
        mapped = read_mapped(self._task, rows)
        if mapped.single and self._n != 1:
            raise TaskError(f"one gold row becomes one row here: for n rows each use {USE}")
        typed_label = known or mapped.features is not None
        names = label_names if known else label_names_in(mapped.features, self._task.label_column)
        if not typed_label:
            self._check_numbers(mapped)
        label = self._task.label_column
        gold = [r | {label: label_by_name(self._task, r[label], names, typed=typed_label)} for r in mapped.rows]
        return self._returned(mapped, self._generate(gold), typed=typed, removed=removed)

    def _returned(self, mapped: Mapped, synthetic: list[dict[str, Any]], *, typed: bool, removed: bool) -> Any:
        """Return rows in the form that `map` takes."""
        from datasets import Features, List, Value

        features = dict(self.features())
        columns = {name: [row.get(name) for row in synthetic] for name in features}
        if self._task.labels and not typed:
            for name in (self._task.label_column, LLM_LABEL):
                if may_misread_codes(mapped, name, features[name]):
                    columns[name] = [self._name_of(value) for value in columns[name]]
                    features[name] = List(Value("string")) if self._task.kind == "multi_label" else Value("string")
        foreign = [c for c in mapped.columns if c not in columns and not removed]
        if not mapped.merged or (mapped.formatted and foreign and not mapped.single):
            import pyarrow as pa

            return pa.Table.from_pydict(columns, schema=Features(features).arrow_schema)
        if mapped.single:
            return dict.fromkeys(foreign) | {name: values[0] for name, values in columns.items()}
        return {name: [None] * len(synthetic) for name in foreign} | columns

    def _name_of(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._name_of(v) for v in value]
        return None if value is None else self._task.labels[value]

    def _check_numbers(self, mapped: Mapped) -> None:
        """Check labels that came as numbers without names against the exemplars of the same text.

        Raises:
            ColumnError: they mean other labels there.
        """
        label, labels = self._task.label_column, self._task.labels
        confirmed = True
        for row in mapped.rows if labels else ():
            value = row[label]
            numbers = value if isinstance(value, list) else [value]
            if not numbers or not all(isinstance(v, int | float) for v in numbers):
                continue
            theirs = self._names_by_text.get(_text_key([row[c] for c in self._task.text_columns]))
            ours = sorted(labels[int(v)] if 0 <= v < len(labels) else "" for v in numbers)
            if theirs is not None and ours not in theirs:
                raise ColumnError(
                    "the labels of the rows to map are numbers, and an exemplar of the same text has another label: "
                    f"name them with {USE}"
                )
            confirmed &= theirs is not None
        if not confirmed and not self.__dict__.setdefault("_warned", False):
            self._warned = True
            _LOG.warning(
                "the labels of the rows to map are numbers without names, read in the order of task %s; %s names them",
                self._task.full_name,
                USE,
            )

    @cached_property
    def _pool(self) -> Pool:
        return Pool(self._task, self._exemplars, seed=self._seed)

    @cached_property
    def _gates(self) -> Gates:
        return Gates(self._task, self._pool)

    @cached_property
    def _names_by_text(self) -> dict[bytes, list[list[str]]]:
        """The labels of each exemplar's text."""
        task, names = self._task, label_names_in(self._exemplars.features, self._task.label_column)
        columns = [self._exemplars[c] for c in (task.label_column, *task.text_columns)]
        known: dict[bytes, list[list[str]]] = {}
        for value, *texts in zip(*columns, strict=True):
            if value is not None:
                name = label_by_name(task, value, names, typed=True)
                known.setdefault(_text_key(texts), []).append(sorted(name if isinstance(name, list) else [name]))
        return known

    def _generate(self, gold: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Generate and correct n rows or more, with rejected ones, for each gold row; exactly one when n is 1."""
        if not gold:
            return []
        task, pool = self._task, self._pool
        calls = [plan_for_row(task, self._prompt, row, pool, self._n, self._seed) for row in gold]
        access = strictest(self._access, *(row.get("access") for row in gold))
        writers = [access_of_llm(one) for one in (self._llm, self._judge) if one is not None]  # found when first asked
        marked = strictest(access, self._of_model, *writers)  # what models learnt is in their texts and labels
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
            rows = rows_from_answer(task, call, answer, marked, self._gates, seen, asked)
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
        for name, values in corrected.columns(self._task.label_column).items():
            for row, value in zip(kept, values.tolist(), strict=True):
                row[name] = value
        return rows

    def _access_of_corrector(self) -> Access:
        used = [ModelAt(self._corrector)] if self._corrector is not None else []
        return overall_access(*used, also=["open"])

    def _probs(self, rows: Dataset) -> npt.NDArray[np.floating[Any]]:
        if self._judge is not None:
            return self._judge.predict(rows)
        assert self._corrector is not None
        if (stamp := model_stamp(self._corrector)) != self._stamp:
            if model_digest(self._corrector) != self._digest or self._access_of_corrector() != self._of_model:
                raise ModelError(f"corrector {str(self._corrector)!r} has changed: create the GenerateAndCorrect again")
            self._stamp = stamp
        return predict_proba(self._task, self._corrector, rows)


def _state_of(transform: GenerateAndCorrect) -> dict[str, Any]:
    """Return what decides the output, but for the LLM: its files may be found only when it is first asked."""
    from hf_synth import __version__

    task, policy, judge = transform._task, transform._policy, transform._judge
    return {
        "version": [_VERSION, __version__],
        "task": [task.fingerprint(), task.full_name, task.access, parser_digest(task.parse)],
        "prompt": repr(transform._prompt),
        "exemplars": gold_digest(task, transform._exemplars),
        "policy": policy.fingerprint() if policy else None,
        "corrector": [transform._digest, transform._of_model],
        "judge": judge_identity(judge) if judge is not None else None,
        "sampling": sorted(asked_of(transform._llm, {}).items()),
        "n": transform._n,
        "seed": transform._seed,
    }


def _text_key(texts: list[Any]) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, texts)).encode("utf-8", "surrogatepass")).digest()


def _revived(kind: type[GenerateAndCorrect], state: dict[str, Any]) -> GenerateAndCorrect:
    """Make a transform of the state in a pickle; what is derived from it is computed when it is first needed."""
    transform = kind.__new__(kind)
    transform.__dict__.update(state)
    _hash_by_fingerprint()
    return transform


def _by_fingerprint(fingerprint: str) -> None:
    """Stand for a transform in what `datasets` hashes; it is never called."""


def _hash_by_fingerprint() -> None:
    """Let `datasets` hash a transform by its fingerprint: its pickle holds an endpoint and paths, which decide nothing.

    Without this the hash would still cover all that decides, but change from run to run. A subclass is hashed so, since
    its own code decides too.
    """
    try:
        from datasets.utils._dill import pklregister
    except ImportError:  # a later version of datasets
        return

    @pklregister(GenerateAndCorrect)  # type: ignore[untyped-decorator]
    def save(pickler: Any, transform: GenerateAndCorrect) -> None:
        pickler.save_reduce(_by_fingerprint, (transform.fingerprint,), obj=transform)
