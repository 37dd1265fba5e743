"""A promise about the labels of a corrected dataset: at most a share of all labels is wrong (see `label_error.py`).

`draw_sample` draws the rows that a person labels first, and `promise` says which rows come next and what holds then.
The corrected rows stay as they are until the promise holds: `with_labels` then writes the labels that people gave.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.correction import label_error
from hf_synth.correction.audited import DECISION, PROBABILITY, STRATUM, UNUSABLE
from hf_synth.correction.label_error import Plan, Sample
from hf_synth.errors import ColumnError, TaskError
from hf_synth.models.linear import linear_fit
from hf_synth.task.arrow import rewrite_columns
from hf_synth.task.labels import (
    Floats,
    Ints,
    audited_labels,
    check_columns,
    column_of,
    id_places,
    label_indices,
    label_names,
)
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_WORSE = 2.0  # times the share that may be wrong: labels "worse than hoped for", of which the first line tells
_USED = ("kept", "relabelled")
_ROWS = "the used rows of the corrected dataset"
_NO_LABEL = -1  # of a row that a person found unusable: it differs from every label
_CERTAIN = 1 - 1e-9  # a confidence above it is that of a hard decision, not a measure of how sure the label is
_STATES = {"sample": "not yet: a sample needs labels", "rest": "not yet: more rows need labels", "done": "holds"}
_RULE = ("rows", "allowed", "stop", "error", "confidence")
_REWRITTEN = ("label_status", "reason", "label_probs", "label_confidence", "weight")


@dataclass(frozen=True)
class Promise:
    """What can be promised of a corrected dataset, and what people must look at for it.

    Args:
        sample: the sample and the rule that was fixed before it was drawn.
        plan: the state of the promise; its positions count the used rows of the dataset.
        look: rows to look at, as `audit_sample` returns them: those that were asked for before, with the labels that
            came, and the next ones with an empty `label`.
        rejected: rows that people found unusable. Their labels count as wrong ones that were found, and they are
            dropped when the promise holds.
    """

    sample: Sample
    plan: Plan
    look: Dataset
    rejected: int = 0

    @property
    def holds(self) -> bool:
        """Whether nobody needs to look at another row."""
        return self.plan.stage == "done"

    @property
    def figures(self) -> dict[str, Any]:
        """Return the figures of the promise for a policy and a manifest, plain values."""
        sample, plan = self.sample, self.plan
        figures: dict[str, Any] = {
            "promise": _STATES[plan.stage],
            "promise_error": sample.error,
            "promise_confidence": sample.confidence,
            "promise_labels": sample.rows,
            "promise_looked_at": plan.looked + sample.rows - len(sample.order),
        }
        if self.holds and plan.unseen is not None and plan.bound is not None:
            figures["promise_wrong_at_most"] = _round_up(plan.bound, sample.rows - self.rejected)
            figures["promise_unseen"] = plan.unseen
            figures["promise_unseen_wrong_at_most"] = _round_up(plan.bound, plan.unseen)
            if plan.sure:
                figures["promise_unseen_wrong_estimated"] = round((plan.sure_found or 0) / plan.sure, 4)
        return figures | ({"promise_rejected": self.rejected} if self.rejected else {})

    def __str__(self) -> str:
        sample, plan, k = self.sample, self.plan, len(self.plan.look)
        goal = (
            f"at most {percent(sample.error)} of all {sample.rows:,} labels are wrong with probability "
            f"{percent(sample.confidence)}, labels that people gave counting as right"
        )
        if self.holds:
            stay = f" {self._of_those_that_stay()}" if self.rejected else ""
            return f"The promise holds: {goal}.{stay} {self._unseen()}"
        if plan.stage == "sample":
            n = len(sample.drawn)
            return (
                f"Nothing is promised yet. The promise that {goal}, starts with a random sample of {n:,} rows: label "
                f"the {k:,} of them that have no label. The sample then shows how many of the least sure rows follow: "
                f"{self.range}"
            )
        if not plan.unseen:
            return (
                f"{self._now()}For the promise that {goal}, a sample saves nothing: label all {k:,} rows that are left."
            )
        return f"{self._now()}For the promise that {goal}, label the {k:,} least sure rows. {self._unseen()}"

    @property
    def range(self) -> str:
        """A sentence on how many rows people look at in all; empty where the sample has all its labels."""
        return range_line(self.sample) if self.plan.stage == "sample" else ""

    def _of_those_that_stay(self) -> str:
        """Describe what holds of the labels that are left when rejected rows were dropped: a larger share of fewer."""
        sample, stay = self.sample, self.sample.rows - self.rejected
        share = _round_up(self.plan.bound or 0, stay)
        more = f", more than the {percent(sample.error)} of all" if share > sample.error else ""
        dropped = "1 rejected row was" if self.rejected == 1 else f"{self.rejected:,} rejected rows were"
        return f"{dropped} dropped: of the {stay:,} labels that stay at most {percent(share)} are wrong{more}."

    def _now(self) -> str:
        """Describe what holds if nobody looks at more rows than the sample."""
        sample, plan = self.sample, self.plan
        if plan.now is None:
            return ""
        return (
            f"{plan.found:,} of the {len(sample.drawn):,} sampled rows had a wrong label. If nobody looks at more, "
            f"at most {percent(_round_up(plan.now, sample.rows))} of all labels are wrong. "
        )

    def _unseen(self) -> str:
        """Describe what holds of the rows that nobody looks at."""
        plan = self.plan
        if not plan.unseen or plan.bound is None:
            return "No row stays without a person's look."
        share = f"at most {percent(_round_up(plan.bound, plan.unseen))} are then wrong"
        if plan.sure:
            share += f", about {percent((plan.sure_found or 0) / plan.sure)} by the sample"
        return f"{plan.unseen:,} rows stay that nobody looks at; of these {share}."


def range_line(sample: Sample) -> str:
    """Return how many rows people look at now, and how many that can become, as a sentence; empty without a sample."""
    n, rows = len(sample.drawn), len(sample.order)
    if not sample.stop:
        return ""
    worse = min(1.0, _WORSE * sample.error)
    few = "none" if sample.stop == 1 else f"fewer than {sample.stop:,}"
    return (
        f"{n:,} rows now, and no more if {few} of their labels are wrong. The worse they are, the more follow: about "
        f"{label_error.expected_rows(sample, worse):,} in all if {percent(worse)} of the labels are wrong, and at most "
        f"all {rows:,}."
    )


def check_goal(task: Task, error: float, confidence: float) -> None:
    """Check what is to be promised.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: a share is out of range.
    """
    if task.kind != "single_label":
        raise TaskError(
            f"task {task.full_name!r} is {task.kind}: a promise about labels serves single_label tasks only"
        )
    label_error.check_shares(error, confidence)


def draw_sample(
    task: Task,
    corrected: Dataset,
    *,
    error: float,
    confidence: float = 0.95,
    sure: Sequence[float] | None = None,
    seed: int = 0,
) -> Sample:
    """Draw the rows that a person labels first, so that at most a share of all labels is wrong in the end.

    Args:
        corrected: rows of `correct`. Dropped and rejected rows are no part of the result; rows that a person audited
            before count as right.
        error: share of the labels that may be wrong, e.g. 0.05.
        confidence: probability of the promise.
        sure: how sure each label is, (N,); `label_confidence` when None.
        seed: of the draw. Draw once: see `label_error.draw`.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: columns are missing, no row is used, or a share is out of range.
    """
    check_goal(task, error, confidence)
    used = _used_positions(task, corrected)
    values = list(column_of(corrected, "label_confidence") if sure is None else sure)
    if len(values) != len(corrected) or any(values[i] is None for i in used):
        raise ColumnError("a promise needs corrected rows: some of these have no label_confidence")
    reason = column_of(corrected, "reason")
    known = [reason[i] == "audited" for i in used]
    return label_error.draw([values[i] for i in used], error=error, confidence=confidence, known=known, seed=seed)


def promise(
    task: Task,
    corrected: Dataset,
    sample: Sample,
    audited: Mapping[str, int | str] | None = None,
    rejected: Collection[str] = (),
) -> Promise:
    """Determine which rows people must look at next, and what holds then.

    Args:
        corrected: the rows that the sample was drawn of, with the labels that they had then.
        sample: of `draw_sample`.
        audited: labels that people gave since, by row id.
        rejected: ids of the rows that people found unusable since.

    Raises:
        ColumnError: an id is not among the used rows, or a label is none of the task's.
    """
    used = _used_positions(task, corrected)
    if len(used) != sample.rows:
        raise ColumnError(f"the sample was drawn of {sample.rows} used rows, the dataset has {len(used)}")
    ids = list(corrected["id"][:])
    place = id_places((ids[i] for i in used), (*(audited or ()), *rejected), _ROWS)
    given = audited_labels(task, {place[id]: label for id, label in (audited or {}).items()})
    given |= {place[id]: _NO_LABEL for id in rejected}
    labels = label_indices(task, corrected.select(used))
    plan = label_error.plan(sample, labels, given)
    return Promise(sample, plan, _rows_to_label(task, corrected, used, sample, plan, given), len(rejected))


def label_certainties(task: Task, corrected: Dataset, gold: Dataset) -> Floats:
    """Return how sure the label of each row is, (N,): `label_confidence`, or a linear head's probability of the label.

    Methods that decide hard (as "agree" does) state a confidence of 1. There the probability comes from a linear head
    on frozen features, trained on gold. Rows that are not used get 0.

    Args:
        gold: any gold rows.
    """
    used = _used_positions(task, corrected)
    values, reason = column_of(corrected, "label_confidence"), column_of(corrected, "reason")
    sure = np.array([0.0 if v is None else v for v in values], dtype=np.float64)
    hard = np.array([i for i in used if sure[i] > _CERTAIN and reason[i] != "audited"], dtype=np.int64)
    if len(hard):
        rows = corrected.select(hard)
        probs = linear_fit(task, gold, rows)(gold)(rows)
        sure[hard] = probs[np.arange(len(hard)), label_indices(task, rows)]
    return sure


def with_labels(
    task: Task, corrected: Dataset, audited: Mapping[str, int | str], rejected: Collection[str] = ()
) -> Dataset:
    """Return the rows with the labels that people gave, as audited rows: certain, with weight 1.

    Args:
        audited: labels by row id.
        rejected: ids of unusable rows, which are dropped.

    Raises:
        ColumnError: an id is not among the used rows, or a label is none of the task's.
    """
    used = _used_positions(task, corrected)
    ids = list(corrected["id"][:])
    place = {id: used[at] for id, at in id_places((ids[i] for i in used), (*audited, *rejected), _ROWS).items()}
    given = audited_labels(task, {place[id]: label for id, label in audited.items()})
    meant = label_indices(task, corrected.select(list(given)), "llm_label") if given else np.zeros(0, dtype=np.int64)
    columns = {name: list(corrected[name][:]) for name in (task.label_column, *_REWRITTEN)}
    typed = label_names(corrected.features[task.label_column]) is not None
    for (at, label), llm_label in zip(given.items(), meant.tolist(), strict=True):
        columns[task.label_column][at] = label if typed else task.labels[label]
        columns["label_status"][at], columns["reason"][at] = "kept" if llm_label == label else "relabelled", "audited"
        columns["label_probs"][at] = [float(i == label) for i in range(len(task.labels))]
        columns["label_confidence"][at] = columns["weight"][at] = 1.0
    for at in map(place.__getitem__, rejected):
        columns["label_status"][at], columns["reason"][at], columns["weight"][at] = "dropped", "unusable", 0.0
    return rewrite_columns(corrected, columns, corrected.features)


def sample_to_json(task: Task, corrected: Dataset, sample: Sample) -> dict[str, Any]:
    """Return plain values of a sample, which `sample_from_json` reads: the rule, ids, and the labels of the rows."""
    used = _used_positions(task, corrected)
    ids = corrected.select(used)["id"][:]
    labels = label_indices(task, corrected.select(used))
    plain = {name: getattr(sample, name) for name in _RULE}
    plain["order"] = [[ids[i], task.labels[labels[i]]] for i in sample.order]
    return plain | {"drawn": [ids[i] for i in sample.drawn]}


def sample_from_json(task: Task, corrected: Dataset, plain: Mapping[str, Any]) -> Sample:
    """Read the values of `sample_to_json`.

    Raises:
        ColumnError: the rows are not those that the sample was drawn of, or their labels have changed since.
    """
    used = _used_positions(task, corrected)
    rows = corrected.select(used)
    place = {id: at for at, id in enumerate(rows["id"][:])}
    labels = label_indices(task, rows)
    try:
        order = np.array([place[id] for id, _ in plain["order"]], dtype=np.int64)
        drawn = np.array([place[id] for id in plain["drawn"]], dtype=np.int64)
        same = [task.labels[labels[i]] for i in order] == [label for _, label in plain["order"]]
        sample = Sample(order, drawn, **{name: plain[name] for name in _RULE})
    except (KeyError, TypeError, ValueError):
        same = False
    if not same or sample.rows != len(used):
        raise ColumnError(
            "the corrected rows are not those that the sample of the promise was drawn of: correct them again into a "
            "new folder"
        )
    return sample


def _used_positions(task: Task, corrected: Dataset) -> list[int]:
    """Return the positions of the rows of the result."""
    if task.kind != "single_label":
        raise TaskError(
            f"task {task.full_name!r} is {task.kind}: a promise about labels serves single_label tasks only"
        )
    check_columns(task, corrected, "id", "llm_label", "label_status", "reason", what="the corrected dataset")
    used = [i for i, status in enumerate(corrected["label_status"][:]) if status in _USED]
    if not used:
        raise ColumnError("no row of the corrected dataset is kept or relabelled: there is no label to promise")
    return used


def _rows_to_label(
    task: Task, corrected: Dataset, used: list[int], sample: Sample, plan: Plan, given: Mapping[int, int]
) -> Dataset:
    """Return the rows that people were asked for or are asked for next, with the labels that came."""
    from datasets import Dataset, Features, Value

    drawn, beyond, still_open = (np.zeros(sample.rows, bool) for _ in range(3))
    drawn[sample.drawn], still_open[sample.order] = True, True
    if plan.keep is not None:
        beyond[sample.order[plan.keep :]] = True
    earlier: Ints = np.array([at for at in given if still_open[at]], dtype=np.int64)
    at = np.concatenate([earlier, plan.look]).astype(np.int64)
    rows = corrected.select([used[i] for i in at])
    names = label_names(rows.features["llm_label"]) or list(task.labels)
    share = len(sample.drawn) / max(1, len(sample.order))
    columns: dict[str, Any] = {"id": list(rows["id"][:])}
    columns["llm_label"] = [v if isinstance(v, str) else names[v] for v in rows["llm_label"][:]]
    columns |= {c: list(rows[c][:]) for c in task.text_columns}
    columns["label"] = ["" if given.get(i, _NO_LABEL) == _NO_LABEL else task.labels[given[i]] for i in at.tolist()]
    if any(label == _NO_LABEL for label in given.values()):
        columns[DECISION] = [UNUSABLE if given.get(i) == _NO_LABEL else "" for i in at.tolist()]
    columns[PROBABILITY] = [1.0 if beyond[i] or not drawn[i] else share for i in at]
    columns[STRATUM] = ["all" if plan.stage == "sample" else "least sure" if beyond[i] else "surer" for i in at]
    return Dataset.from_dict(
        columns, features=Features({c: Value("float64" if c == PROBABILITY else "string") for c in columns})
    )


def _round_up(part: int, whole: int) -> float:
    """Return a share rounded up to four digits: a bound must not become smaller."""
    return math.ceil(10_000 * part / whole - 1e-9) / 10_000 if whole else 0.0


def percent(share: float) -> str:
    """Return a share as a percentage, with up to four digits."""
    return f"{100 * share:.4g}%"
