"""Membership inference by loss (AUC, TPR at 1% FPR), and the exposure of canaries.

A model that memorised its rows is surer of them than of similar ones. Two figures measure what an attacker reaches who
has the model and the notes but no reference models: the chance that a training row has a lower loss than a row outside
(AUC), and the share of training rows identified at 1% false positives (Carlini et al., Membership Inference Attacks
From First Principles, 2022). A stronger attacker may reach more.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, TaskError
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import model_facts, training_row_digests
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.closeness import auc, count_groups, sample_rows
from hf_synth.task.labels import Floats, check_columns, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

# With fewer independent rows on a side the interval is too wide; 1% of fewer than 100 rows is less than one row.
MIN_GROUPS, MIN_FOR_FPR, FPR = 20, 100, 0.01
_SAMPLE = 5_000
MIXED = "its facts do not separate training rows from rows used for early stopping alone; train it again"


@dataclass(frozen=True)
class Membership:
    """Result of a membership inference test by loss; plain values, for a card.

    Args:
        members: number of gold rows that the model was trained on.
        held_out: number of rows that it never saw.
        note: the result in one sentence.
        auc: chance that a member has a lower loss than a row outside; .5 is chance. None: too few rows.
        auc_low: lower end of its 95% interval, which counts patients or notes, not rows.
        auc_high: upper end.
        tpr: share of members identified at 1% false positives. None: fewer than 100 rows outside.
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
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"membership: {self.note}"


def membership(
    task: Task, model: str | Path, *, gold: Dataset, held_out: Dataset, most: int = _SAMPLE, seed: int = 0
) -> Membership:
    """Test whether the losses of a model separate its training rows from others.

    Where its facts do not separate training rows from early stopping rows, the note says that nothing was tested.

    Args:
        model: folder or repo id of a classifier.
        gold: rows that it was trained on. Where the model's facts list the rows it saw, the others are left out, and
            so are those used for early stopping alone.
        held_out: rows of the same kind, of other patients, that it never saw; rows that its facts list are left out.
        most: most rows of each side.
        seed: of the samples.

    Raises:
        TaskError: the task is text2text, which has no class probabilities.
        ColumnError: a dataset lacks columns, or rows have no label.
        ModelError: the model cannot be loaded or is not one of this task.
    """
    facts = model_facts(model)
    seen, trained = set(facts["row_digests"]), training_row_digests(facts)
    if seen and trained is None:
        return Membership(0, 0, f"not tested: {MIXED}")
    if seen and trained is not None:
        gold, held_out = _filter_rows(task, gold, trained, keep=True), _filter_rows(task, held_out, seen, keep=False)
    members, others = (sample_rows(rows, most, seed) for rows in (gold, held_out))
    groups = count_groups(members), count_groups(others)
    return compare_losses(losses(task, model, members), losses(task, model, others), groups=groups)


def losses(task: Task, model: str | Path, rows: Dataset) -> Floats:
    """Compute the loss of each row, (N,): the negative log-probability of its label, or the sum over its label set.

    Raises:
        TaskError: the task is text2text.
        ColumnError: columns or labels are missing.
        ModelError: the model cannot be loaded or is not one of this task.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text; membership can be tested for classifiers only")
    check_columns(task, rows)
    if not len(rows):
        return np.zeros(0)
    probs = np.clip(predict_proba(task, model, rows).astype(float), 1e-12, 1 - 1e-12)
    labels = list(rows[task.label_column][:])
    if any(label is None for label in labels):
        raise ColumnError(f"column {task.label_column!r} has rows without a label; leave them out")
    values: Floats
    if task.kind == "multi_label":
        present = np.zeros(probs.shape, bool)
        for i, names in enumerate(labels):
            present[i, [_label_index(task, name) for name in names]] = True
        values = -np.where(present, np.log(probs), np.log1p(-probs)).sum(1)
    else:
        values = -np.log(probs[np.arange(len(labels)), [_label_index(task, label) for label in labels]])
    return values


def compare_losses(members: Floats, others: Floats, *, groups: tuple[int, int] | None = None) -> Membership:
    """Compare the losses of a model's training rows with those of other rows.

    Args:
        members: (M,) losses.
        others: (N,) losses.
        groups: numbers of independent patients or notes of each; (M, N) when None.
    """
    sizes = groups or (len(members), len(others))
    if min(sizes) < MIN_GROUPS:
        few = f"too few rows to tell: {len(members):,} members and {len(others):,} others"
        note = f"{few} of {sizes[0]:,} and {sizes[1]:,} patients or notes; {MIN_GROUPS} of each are needed"
        return Membership(len(members), len(others), note)
    chance = auc(-members, -others, sizes=sizes)
    note = "its losses do not tell who was in its training set"
    if chance.low > 0.5:
        note = "its losses tell in part who was in its training set"
    elif chance.high < 0.5:
        note = "its training rows have the higher losses: the two sides differ in more than membership"
    figures = {"auc": chance.value, "auc_low": chance.low, "auc_high": chance.high}
    figures |= {"member_loss": float(members.mean()), "held_out_loss": float(others.mean())}
    rate = f"{MIN_FOR_FPR} others are needed for the rate at 1% false positives"
    if len(others) >= MIN_FOR_FPR:
        figures |= dict(zip(("tpr", "tpr_low", "tpr_high"), _true_positive_rate(members, others), strict=True))
        rate = f"{figures['tpr']:.1%} of members are identified at 1% false positives"
    rounded = {name: round(value, 4) for name, value in figures.items()}
    return Membership(len(members), len(others), f"{note}: AUC {chance}; {rate}", **rounded)


def _true_positive_rate(members: Floats, others: Floats) -> tuple[float, float, float]:
    """Return the share of members below the loss that at most 1% of others lie below, with its 95% interval."""
    from scipy.stats import beta

    allowed = math.floor(FPR * len(others))
    hits, n = int((members < np.sort(others)[allowed]).sum()), len(members)
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return hits / n, low, high


def _filter_rows(task: Task, rows: Dataset, digests: set[str], *, keep: bool) -> Dataset:
    """Keep the rows whose text has one of the digests, or leave them out."""
    check_columns(task, rows)
    row_names = row_digests(task, rows.select_columns([*task.text_columns]))
    return rows.select([i for i, name in enumerate(row_names) if (name in digests) == keep])


def _label_index(task: Task, label: int | str) -> int:
    return task.labels.index(label) if isinstance(label, str) else int(label)


@dataclass(frozen=True)
class Exposure:
    """Exposure: how much better a model knows planted canaries than phrases of the same form that it never saw.

    Args:
        bits: for each place of a canary, log2 of the number of phrases minus log2 of its rank by loss.
        most: the maximum.
        expected: the mean of a model that memorised nothing.
        note: a limitation of the places; "" where the model is known to have learnt from each.
    """

    bits: tuple[float, ...]
    most: float
    expected: float
    note: str = ""

    @property
    def mean(self) -> float:
        """The mean over all places."""
        return sum(self.bits) / len(self.bits) if self.bits else 0.0

    @property
    def known(self) -> bool:
        """Whether the canaries are memorised, at a significance level of 1%.

        Under the null hypothesis each rank is equally likely: the bits of a place, times ln 2, are nearly exponential.
        """
        from scipy.stats import gamma

        return bool(self.bits) and float(gamma.sf(sum(self.bits) * math.log(2), len(self.bits))) < 0.01

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        means = {name: round(getattr(self, name), 3) for name in ("mean", "most", "expected")}
        return {**means, "bits": [round(b, 3) for b in self.bits], "note": self.note}

    def __str__(self) -> str:
        text = f"exposure: {self.mean:.2f} bits of at most {self.most:.2f} (expected by chance: {self.expected:.2f})"
        return f"{text}; {self.note}" if self.note else text


def exposure(task: Task, model: str | Path, canaries: Canaries, planted: Dataset, *, most_places: int = 32) -> Exposure:
    """Measure how far a model memorised planted canaries (Carlini et al. 2019).

    At each place of a canary the references are substituted; the rank of its loss among theirs counts (ties half).

    Args:
        model: a classifier that was trained on `planted`.
        planted: the rows that `canaries.plant` returned.
        most_places: most places measured: the first of each canary, then the second of each, and so on.

    Raises:
        ColumnError: the rows contain no canary.
        TaskError: the task is text2text.
        ModelError: the model cannot be loaded or is not one of this task.
    """
    from datasets import Dataset

    places = _places(task, canaries, planted, most_places)
    if not places:
        raise ColumnError("the rows contain no canary; pass the gold that the canaries were planted in")
    rows: list[dict[str, Any]] = []
    for i, phrase in places:
        row = planted[i]
        for other in (phrase, *canaries.references):
            rows.append(row | {c: (row[c] or "").replace(phrase, other) for c in task.text_columns})
    values = losses(task, model, Dataset.from_list(rows, features=planted.features)).reshape(len(places), -1)
    n = values.shape[1]
    below, tied = (values[:, 1:] < values[:, :1]).sum(1), (values[:, 1:] == values[:, :1]).sum(1)
    bits = math.log2(n) - np.log2(1 + below + tied / 2)
    expected = math.log2(n) - sum(math.log2(rank) for rank in range(1, n + 1)) / n
    return Exposure(tuple(float(b) for b in bits), math.log2(n), expected)


def _places(task: Task, canaries: Canaries, planted: Dataset, most: int) -> list[tuple[int, str]]:
    """Return (row, phrase) for at most so many places of canaries."""
    rows_of: dict[str, list[int]] = {phrase: [] for phrase in canaries.planted}
    for start in range(0, len(planted), 1_000):
        columns = planted.select(range(start, min(len(planted), start + 1_000))).select_columns([*task.text_columns])
        for i, row in enumerate(columns, start):
            text = " ".join(str(row[c] or "") for c in task.text_columns)
            for phrase in canaries.planted:
                if phrase in text:
                    rows_of[phrase].append(i)
    # a frequent canary must not crowd out the others, which the model may have memorised
    turns = sorted((turn, n) for n, rows in enumerate(rows_of.values()) for turn in range(len(rows)))
    phrases = list(rows_of)
    return [(rows_of[phrases[n]][turn], phrases[n]) for turn, n in turns[:most]]
