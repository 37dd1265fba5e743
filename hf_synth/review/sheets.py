"""Sheets: the notes that a review asks for, in an order that reveals nothing. This module has the stratified sample.

Other sheets are the rows of a promise (`promise_sheet.py`) and the realism sheet (`realism.py`). The order is random,
and it is kept in the file of the sheet: ids, strata, labels and the order in the folder cannot be read from it.
Decisions are kept by row id, so that they outlive the sheet for which they were made.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.correction.audited import PROBABILITY, STRATUM, audit_sample
from hf_synth.errors import ColumnError, OutputError
from hf_synth.evaluation.statistics import design_share, wilson
from hf_synth.review.decisions import RATE, REJECT, UNSURE, Decisions
from hf_synth.task.folders import write_private
from hf_synth.task.labels import Floats, Ints, label_names, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

USED = ("kept", "relabelled")
_MARK = 16  # hex digits of a text's digest
_BLANK, _RIGHT, _WRONG, _REJECTED, _UNSURE = range(5)  # what an answer says of a label
_OTHERS = {REJECT: _REJECTED, UNSURE: _UNSURE, RATE: _UNSURE}
FORMAT = 1  # of the files; changes with their layout


@dataclass(frozen=True)
class Item:
    """One note of a sheet.

    Args:
        id: of the row.
        texts: its text columns.
        label: the label that it has in the folder; empty on a realism sheet.
        llm_label: the label that the generator meant.
        used: whether the label is part of the result: kept or relabelled.
        probability, stratum: of the sample.
        source: "real" or "synthetic", on a realism sheet.
    """

    id: str
    texts: tuple[str, ...]
    label: str = ""
    llm_label: str = ""
    used: bool = True
    probability: float = 1.0
    stratum: str = "all"
    source: str = ""


@dataclass(frozen=True)
class Noise:
    """How many labels are wrong, by the answers so far.

    Args:
        share, low, high: share of wrong labels, and its 95% interval.
        looked_at: labels that were compared.
        wrong: wrong ones among them.
        of: what the share is of.
    """

    share: float
    low: float
    high: float
    looked_at: int
    wrong: int
    of: str

    def __str__(self) -> str:
        found = f"{self.wrong:,} of {self.looked_at:,} labels that were looked at were wrong"
        return f"{found}; of {self.of} about {self.share:.1%} (95% interval {self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True)
class Progress:
    """How far a review has come.

    Args:
        order: ids of the notes to show, in their order.
        noise: how many labels are wrong; None while it cannot be estimated.
        so_far: a sentence on what would hold without a further answer; empty without one.
        may_stop: a sentence that says why no more answers are needed; empty where they are.
        ahead: a sentence on how many notes may follow those of the order; empty where none can.
    """

    order: Sequence[str]
    noise: Noise | None = None
    so_far: str = ""
    may_stop: str = ""
    ahead: str = ""


@dataclass(frozen=True)
class SampleSheet:
    """A stratified sample of the rows of a folder.

    Args:
        items: the notes by row id, in the order in which they are shown.
        of: rows that the sample was drawn from.
        settings: how it was drawn.
    """

    items: Mapping[str, Item]
    of: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def progress(self, own: Decisions) -> Progress:
        """Return which notes are shown, and what is known after the answers of one reviewer."""
        return Progress(list(self.items), self._noise(own))

    def _noise(self, own: Decisions) -> Noise | None:
        """Estimate the share of wrong labels in the folder; None while a stratum has no answer.

        Notes with an answer represent the others of their stratum, as `audited.read_audited` weighs them.
        """
        labels, codes, size = self._used
        answer = own.answers.get
        states = [
            _BLANK if (a := answer(id)) is None else _OTHERS.get(a.do) or (_RIGHT if a.label == label else _WRONG)
            for id, label in labels
        ]
        state = np.array(states, dtype=np.int64)
        labelled = (state == _RIGHT) | (state == _WRONG)
        looked = np.bincount(codes, (labelled | (state == _REJECTED)) * size)
        n = int(labelled.sum())
        if n < 2 or (looked == 0).any():
            return None
        weights = ((np.bincount(codes, size) / looked)[codes] * size)[labelled]
        wrong, strata = (state == _WRONG)[labelled], codes[labelled]
        if np.ptp(weights) < 1e-9 and np.ptp(strata) == 0:
            share, (low, high) = float(wrong.mean()), wilson(int(wrong.sum()), n)
        else:
            share, low, high = design_share(wrong, weights, strata)
        return Noise(share, low, high, n, int(wrong.sum()), _population(self.settings))

    @cached_property
    def _used(self) -> tuple[list[tuple[str, str]], Ints, Floats]:
        """The ids and labels of the notes whose label is used, their strata, and how many rows each represents."""
        used = [item for item in self.items.values() if item.used]
        names = {name: code for code, name in enumerate(dict.fromkeys(item.stratum for item in used))}
        codes = np.array([names[item.stratum] for item in used], dtype=np.int64)
        return [(item.id, item.label) for item in used], codes, np.array([1 / item.probability for item in used])


def _population(settings: Mapping[str, Any]) -> str:
    """Return what a sample was drawn from, in words."""
    return "all labels that the audit does not withhold" if "audit" in settings else "all labels in the folder"


def shuffled(ids: Iterable[str]) -> list[str]:
    """Return ids in a random order that nobody can compute: no seed leads to it."""
    order = list(ids)
    secrets.SystemRandom().shuffle(order)
    return order


def ordered_by_text(items: Iterable[Item]) -> list[str]:
    """Return the ids of notes in the order of a digest of their texts, which says nothing that the texts do not say."""
    digests = {item.id: hashlib.sha256(repr(item.texts).encode("utf-8", "backslashreplace")).digest() for item in items}
    return sorted(digests, key=digests.__getitem__)


# --- samples --------------------------------------------------------------------------------------------------------
def draw_sheet(task: Task, rows: Dataset, n: int, *, by: Sequence[str] = ("label",), seed: int = 0) -> SampleSheet:
    """Draw a stratified sample as `audit_sample` does, and put it in a random order.

    Args:
        seed: of the sample; the order does not depend on it.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: columns are missing, or n does not fit the rows.
    """
    drawn = audit_sample(task, rows, n, by=by, seed=seed)
    designs = {r["id"]: (r[PROBABILITY], r[STRATUM]) for r in drawn.select_columns(["id", PROBABILITY, STRATUM])}
    settings = {"n": n, "by": sorted(by), "seed": seed}
    return SampleSheet(items_of(task, rows, shuffled(designs), designs), drawable(rows), settings)


def sizes_per_label(task: Task, rows: Dataset, each: int) -> int:
    """Return the size of a sample by label that holds so many notes of each label, or all of a label with fewer.

    Raises:
        ColumnError: fewer than 2 are asked for.
    """
    if each < 2:
        raise ColumnError(f"ask for 2 notes of each label or more, not {each}: one has no variance")
    names = label_names(rows.features["llm_label"])
    counts: dict[Any, int] = {}
    for status, label in zip(rows["label_status"][:], rows["llm_label"][:], strict=True):
        if status != "rejected":
            name = label if isinstance(label, str) else (names or task.labels)[label]
            counts[name] = counts.get(name, 0) + 1
    return sum(min(each, count) for count in counts.values())


def save_sheet(task: Task, sheet: SampleSheet, file: Path) -> Path:
    """Write which rows a sample holds, without their texts (0600).

    Raises:
        OutputError: it cannot be written.
    """
    marks = text_digests(task, sheet.items.values())
    rows = [
        [item.id, mark, item.probability, item.stratum] for item, mark in zip(sheet.items.values(), marks, strict=True)
    ]
    facts = {"review": FORMAT, "task": task.full_name, "of": sheet.of, **sheet.settings, "rows": rows}
    return write_private(file, json.dumps(facts) + "\n")


def load_sheet(task: Task, rows: Dataset, file: Path) -> SampleSheet:
    """Read a sample that `save_sheet` wrote.

    Args:
        rows: of the folder that it was drawn from; labels may have changed since, texts may not.

    Raises:
        OutputError: the file is broken, or the rows are others.
    """
    facts = read_sheet(task, file)
    try:
        designs = {str(id): (float(p), str(stratum)) for id, _, p, stratum in facts["rows"]}
        marks = [mark for _, mark, *_ in facts["rows"]]
        settings = {name: facts[name] for name in ("n", "by", "seed")}
        settings |= {"audit": str(facts["audit"])} if "audit" in facts else {}
        of = int(facts["of"])
    except (KeyError, TypeError, ValueError):
        raise unreadable_sheet_error(file) from None
    known = set(rows["id"][:])
    same = designs.keys() <= known and of == drawable(rows)
    items = items_of(task, rows, list(designs), designs) if same else {}
    if not same or marks != text_digests(task, items.values()):
        raise OutputError(
            f"the folder holds other notes than when the review began: review them in a new folder, or move "
            f"{file.parent} away to start again"
        )
    return SampleSheet(items, of, settings)


# --- parts ----------------------------------------------------------------------------------------------------------
def items_of(
    task: Task, rows: Dataset, ids: Sequence[str], designs: Mapping[str, tuple[float, str]]
) -> dict[str, Item]:
    """Return notes by id, in the order of the ids."""
    place = {str(id): i for i, id in enumerate(rows["id"][:])}
    part = rows.select([place[id] for id in ids])
    texts = zip(*(part[c][:] for c in task.text_columns), strict=True)
    labels, meant = _names(task, part, task.label_column), _names(task, part, "llm_label")
    facts = zip(ids, texts, labels, meant, part["label_status"][:], strict=True)
    return {
        id: Item(id, tuple(map(str, text)), label, llm_label, status in USED, *designs.get(id, (1.0, "all")))
        for id, text, label, llm_label, status in facts
    }


def _names(task: Task, rows: Dataset, column: str) -> list[str]:
    names = label_names(rows.features[column]) or list(task.labels)
    return ["" if v is None else v if isinstance(v, str) else names[v] for v in rows[column][:]]


def drawable(rows: Dataset) -> int:
    """Return the number of rows with a text."""
    return sum(status != "rejected" for status in rows["label_status"][:])


def text_digests(task: Task, items: Iterable[Item]) -> list[str]:
    """Return 16 hex digits of a digest of each note's texts."""
    rows = (dict(zip(task.text_columns, item.texts, strict=True)) for item in items)
    return [digest[:_MARK] for digest in row_digests(task, rows)]


def read_sheet(task: Task, file: Path) -> dict[str, Any]:
    """Read the file of a sheet of a task.

    Raises:
        OutputError: it is broken, or of another task or version.
    """
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["review"] != FORMAT:
            raise OutputError(f"{file} was written by another version of hf_synth")
        of = str(facts["task"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise unreadable_sheet_error(file) from None
    if of != task.full_name:
        raise OutputError(f"{file} is of task {of!r}, not {task.full_name!r}")
    return dict(facts)


def unreadable_sheet_error(file: Path) -> OutputError:
    """Return the error for a file of a sheet that cannot be read."""
    return OutputError(f"{file} is broken: move it away to draw the notes again; decisions are kept by row id")
