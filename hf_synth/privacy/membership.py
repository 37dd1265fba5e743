"""Whether a published model tells which notes it was trained on: losses of gold rows beside losses of held-out ones.

A model that has learnt its rows by heart is surer of them than of others like them. The chance that a row of its
training set has a lower loss than a row outside (AUC), and how many such rows can be named while one in a hundred
others is accused (Carlini et al., Membership Inference Attacks From First Principles, 2022), are what an attacker
reaches who has the model and the notes but no model of their own. A stronger attacker may reach more.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, TaskError
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import model_facts, trained_on
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.closeness import auc
from hf_synth.privacy.folding import Floats
from hf_synth.task.labels import check_columns, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

# Fewer independent rows of a side give an interval too wide to say anything; 1% of fewer than 100 is not a row.
MIN_GROUPS, MIN_FOR_FPR, FPR = 20, 100, 0.01
_SAMPLE = 5_000
MIXED = "its facts do not tell rows that it learnt from and rows that only stopped its training apart: train it again"


@dataclass(frozen=True)
class Membership:
    """What losses tell of who was in a training set; plain values, for a card.

    Args:
        members: number of gold rows that the model was trained on.
        held_out: number of rows that it never saw.
        note: one sentence for a reader.
        auc: chance that a member has a lower loss than a row outside; .5 tells nothing. None: too few rows.
        auc_low: lower end of its 95% interval, which counts patients or notes, not rows.
        auc_high: upper end.
        tpr: share of members that are named where 1% of the others are. None: fewer than 100 rows outside.
        tpr_low: lower end of its 95% interval (Clopper-Pearson).
        tpr_high: upper end.
        member_loss: mean loss of members.
        held_out_loss: mean loss of the others.
    """

    members: int
    held_out: int
    note: str
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    tpr: float | None = None
    tpr_low: float | None = None
    tpr_high: float | None = None
    member_loss: float | None = None
    held_out_loss: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"membership: {self.note}"


def membership(
    task: Task, model: str | Path, *, gold: Dataset, held_out: Dataset, most: int = _SAMPLE, seed: int = 0
) -> Membership:
    """Test whether the losses of a model tell its training rows from others.

    Where its facts do not say which rows those are, the note says that nothing was tested.

    Args:
        model: folder or repo id of a classifier.
        gold: rows that it was trained on. Where the model's facts name what it saw, the others are left out, and so are
            those that served early stopping alone: no weight came of them.
        held_out: rows of the same kind that it never saw, of other patients; what its facts name is left out too.
        most: rows of each side that are taken at most.
        seed: of the samples.

    Raises:
        TaskError: the task is text2text, which has no probabilities to go by.
        ColumnError: a dataset lacks columns, or rows have no label.
        ModelError: the model cannot be loaded or is not one of this task.
    """
    facts = model_facts(model)
    seen, learnt = set(facts["row_digests"]), trained_on(facts)
    if seen and learnt is None:
        return Membership(0, 0, f"not tested: {MIXED}")
    if seen and learnt is not None:
        gold, held_out = _among(task, gold, learnt, there=True), _among(task, held_out, seen, there=False)
    sides = [_sampled(part, most, seed) for part in (gold, held_out)]
    return compare_losses(
        losses(task, model, sides[0]), losses(task, model, sides[1]), groups=(_groups(sides[0]), _groups(sides[1]))
    )


def losses(task: Task, model: str | Path, rows: Dataset) -> Floats:
    """Give each row's loss, (N,): the negative logarithm of the probability of its label (summed over a set of labels).

    Raises:
        TaskError: the task is text2text.
        ColumnError: columns or labels are missing.
        ModelError: the model cannot be loaded or is not one of this task.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text: membership is tested for classifiers only")
    check_columns(task, rows)
    if not len(rows):
        return np.zeros(0)
    probs = np.clip(predict_proba(task, model, rows).astype(float), 1e-12, 1 - 1e-12)
    given = list(rows[task.label_column])
    if any(label is None for label in given):
        raise ColumnError(f"column {task.label_column!r} holds rows without a label: leave them out")
    if task.kind == "multi_label":
        there = np.zeros(probs.shape, bool)
        for i, labels in enumerate(given):
            there[i, [_number(task, label) for label in labels]] = True
        found: Floats = -np.where(there, np.log(probs), np.log1p(-probs)).sum(1)
        return found
    chosen: Floats = -np.log(probs[np.arange(len(given)), [_number(task, label) for label in given]])
    return chosen


def compare_losses(members: Floats, others: Floats, *, groups: tuple[int, int] | None = None) -> Membership:
    """Compare the losses of rows that a model saw with those of rows that it did not.

    Args:
        members: (M,) losses.
        others: (N,) losses.
        groups: numbers of independent patients or notes behind them; (M, N) when None.
    """
    sizes = groups or (len(members), len(others))
    if min(sizes) < MIN_GROUPS:
        few = f"too few rows to tell: {len(members):,} members and {len(others):,} others"
        note = f"{few} of {sizes[0]:,} and {sizes[1]:,} patients or notes; {MIN_GROUPS} of each are needed"
        return Membership(len(members), len(others), note)
    found = auc(-members, -others, sizes=sizes)
    said = "its losses do not tell who was in its training set"
    if found.low > 0.5:
        said = "its losses tell in part who was in its training set"
    elif found.high < 0.5:
        said = "its training rows have the higher losses: the two sides differ in more than membership"
    told = {"auc": found.value, "auc_low": found.low, "auc_high": found.high,
            "member_loss": float(members.mean()), "held_out_loss": float(others.mean())}  # fmt: skip
    at = f"; {MIN_FOR_FPR} others are needed for the rate at 1% false positives"
    if len(others) >= MIN_FOR_FPR:
        told |= dict(zip(("tpr", "tpr_low", "tpr_high"), _rate(members, others), strict=True))
        at = f"; {told['tpr']:.1%} of members are named where 1% of others are"
    rounded = {name: round(value, 4) for name, value in told.items()}
    return Membership(len(members), len(others), f"{said}: AUC {found}{at}", **rounded)


def _rate(members: Floats, others: Floats) -> tuple[float, float, float]:
    """Give the share of members below the loss that at most 1% of others lie below, with its interval."""
    from scipy.stats import beta

    allowed = math.floor(FPR * len(others))
    hits, n = int((members < np.sort(others)[allowed]).sum()), len(members)
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return hits / n, low, high


# --- canaries -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Exposure:
    """How much better a model knows planted canaries than phrases of the same form that it never saw.

    Args:
        bits: for each place where a canary was planted: log2 of the number of phrases, less log2 of its rank by loss.
        most: what could be reached at most.
        expected: the mean where the model knows nothing of them.
        note: what is to be known of the places; "" where the model is known to have learnt from each.
    """

    bits: tuple[float, ...]
    most: float
    expected: float
    note: str = ""

    @property
    def mean(self) -> float:
        """Give the mean over all places."""
        return sum(self.bits) / len(self.bits) if self.bits else 0.0

    @property
    def known(self) -> bool:
        """Tell whether canaries are known better than chance has it once in a hundred times.

        Of what is not known each rank is as likely: the bits of a place, times ln 2, are then nearly exponential.
        """
        from scipy.stats import gamma

        return bool(self.bits) and float(gamma.sf(sum(self.bits) * math.log(2), len(self.bits))) < 0.01

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return {"mean": round(self.mean, 3), "most": round(self.most, 3), "expected": round(self.expected, 3),
                "bits": [round(b, 3) for b in self.bits], "note": self.note}  # fmt: skip

    def __str__(self) -> str:
        said = f"exposure: {self.mean:.2f} bits of {self.most:.2f} at most ({self.expected:.2f} if it knew nothing)"
        return f"{said}; {self.note}" if self.note else said


def exposure(task: Task, model: str | Path, canaries: Canaries, planted: Dataset, *, most_places: int = 32) -> Exposure:
    """Measure how far a model has learnt planted canaries by heart (Carlini et al. 2019).

    At each place where a canary stands, the others of its form are put instead; the rank of its loss among theirs is
    what counts (ties count half).

    Args:
        model: a classifier that was trained on `planted`.
        planted: what `canaries.plant` gave.
        most_places: how many places are measured: the first of each canary, then the second of each, and so on.

    Raises:
        ColumnError: no canary stands in the rows.
        TaskError: the task is text2text.
        ModelError: the model cannot be loaded or is not one of this task.
    """
    from datasets import Dataset

    places = _places(task, canaries, planted, most_places)
    if not places:
        raise ColumnError("no canary stands in these rows: give the gold that they were planted into")
    rows: list[dict[str, Any]] = []
    for i, phrase in places:
        row = planted[i]
        for other in (phrase, *canaries.references):
            rows.append(row | {c: (row[c] or "").replace(phrase, other) for c in task.text_columns})
    found = losses(task, model, Dataset.from_list(rows, features=planted.features)).reshape(len(places), -1)
    n = found.shape[1]
    below, tied = (found[:, 1:] < found[:, :1]).sum(1), (found[:, 1:] == found[:, :1]).sum(1)
    bits = math.log2(n) - np.log2(1 + below + tied / 2)
    expected = math.log2(n) - sum(math.log2(rank) for rank in range(1, n + 1)) / n
    return Exposure(tuple(float(b) for b in bits), math.log2(n), expected)


def _places(task: Task, canaries: Canaries, planted: Dataset, most: int) -> list[tuple[int, str]]:
    found: dict[str, list[int]] = {phrase: [] for phrase in canaries.planted}
    for start in range(0, len(planted), 1_000):
        columns = planted.select(range(start, min(len(planted), start + 1_000))).select_columns([*task.text_columns])
        for i, row in enumerate(columns, start):
            text = " ".join(str(row[c] or "") for c in task.text_columns)
            for phrase in canaries.planted:
                if phrase in text:
                    found[phrase].append(i)
    # one that stands often must not crowd out the others: the model may know just these
    turns = sorted((turn, n) for n, places in enumerate(found.values()) for turn in range(len(places)))
    phrases = list(found)
    return [(found[phrases[n]][turn], phrases[n]) for turn, n in turns[:most]]


def _among(task: Task, rows: Dataset, seen: set[str], *, there: bool) -> Dataset:
    """Give the rows whose text a model says it saw, or the others."""
    check_columns(task, rows)
    digests = row_digests(task, rows.select_columns([*task.text_columns]))
    return rows.select([i for i, digest in enumerate(digests) if (digest in seen) == there])


def _number(task: Task, label: int | str) -> int:
    return task.labels.index(label) if isinstance(label, str) else int(label)


def _groups(rows: Dataset) -> int:
    if "group" not in rows.column_names:
        return len(rows)
    groups = list(rows["group"])
    return len({g for g in groups if g is not None}) + groups.count(None)


def _sampled(rows: Dataset, most: int, seed: int) -> Dataset:
    if len(rows) <= most:
        return rows
    return rows.select(np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False)))
