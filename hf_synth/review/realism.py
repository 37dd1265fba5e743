"""The realism sheet: synthetic notes among open gold; how plausible they are, and how often they are taken for real."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import AccessError, ColumnError
from hf_synth.evaluation.intervals import wilson_at
from hf_synth.review.decisions import RATE, REAL, SYNTHETIC, Decisions
from hf_synth.review.sheets import (
    FORMAT,
    USED,
    Item,
    Progress,
    ordered_by_text,
    read_sheet,
    shuffled,
    unreadable_sheet_error,
)
from hf_synth.task.access import overall_access
from hf_synth.task.columns import names_shown
from hf_synth.task.folders import write_private
from hf_synth.task.labels import column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_NAMED = re.compile(r"(?:real|synthetic)-\d+")
_LOWEST, _HIGHEST = 1, 5  # plausibility
_Z = 1.959964  # 97.5% quantile of the normal distribution


@dataclass(frozen=True)
class RealismSheet:
    """Synthetic notes among gold notes; a reviewer says how plausible each is, and which it is.

    Args:
        items: the notes by id, in the order in which they are shown.
    """

    items: Mapping[str, Item]

    def progress(self, own: Decisions) -> Progress:
        """Return which notes are shown."""
        return Progress(list(self.items))


def draw_realism(task: Task, rows: Dataset, gold: Dataset, n: int, *, seed: int = 0) -> RealismSheet:
    """Draw n notes, one half synthetic and one half gold, mixed.

    Ids and order are random: nothing that a page shows or sends says which half a note is from.

    Args:
        rows: synthetic rows; those that are kept or relabelled are drawn from.
        seed: of the choice of notes; ids and order do not depend on it.

    Raises:
        AccessError: gold, task or rows are not open.
        ColumnError: there are too few rows, or a column is missing.
    """
    if (access := overall_access(task, rows, gold)) != "open":
        raise AccessError(
            f"a realism sheet mixes gold notes among synthetic ones, so it serves open gold only; these are {access}"
        )
    if lacking := [c for c in task.text_columns if c not in gold.column_names]:
        raise ColumnError(f"gold has no column {lacking[0]!r}; it has {names_shown(gold.column_names, *lacking)}")
    rng, half, items = np.random.default_rng(seed), n // 2, {}
    statuses = column_of(rows, "label_status", "kept")
    used = [i for i, status in enumerate(statuses) if status in USED]
    parts = ((SYNTHETIC, rows, used, n - half), (REAL, gold, list(range(len(gold))), half))
    for source, part, places, count in parts:
        if not 2 <= count <= len(places):
            raise ColumnError(
                f"a realism sheet of {n} notes needs {count} {'gold' if source == REAL else 'synthetic'} notes and at "
                f"least 2; there are {len(places)}: give another --n"
            )
        chosen = part.select(rng.permutation(places)[:count])
        columns = [chosen[c][:] for c in task.text_columns]
        for texts in zip(*columns, strict=True):
            id = secrets.token_hex(16)
            items[id] = Item(id, tuple(map(str, texts)), source=source)
    return RealismSheet({id: items[id] for id in shuffled(items)})


def save_realism(task: Task, sheet: RealismSheet, file: Path) -> Path:
    """Write a realism sheet with its texts, which are open (0600).

    Raises:
        OutputError: it cannot be written.
    """
    notes = [[item.id, item.source, list(item.texts)] for item in sheet.items.values()]
    return write_private(file, json.dumps({"review": FORMAT, "task": task.full_name, "notes": notes}) + "\n")


def load_realism(task: Task, file: Path) -> RealismSheet:
    """Read a realism sheet.

    Raises:
        OutputError: the file is broken.
    """
    try:
        notes = [
            Item(str(id), tuple(map(str, texts)), source=str(s)) for id, s, texts in read_sheet(task, file)["notes"]
        ]
    except (KeyError, TypeError, ValueError):
        raise unreadable_sheet_error(file) from None
    items = {item.id: item for item in notes}
    # An earlier version named the half in the id, and the order followed from the ids.
    named = all(_NAMED.fullmatch(id) for id in items)
    return RealismSheet({id: items[id] for id in ordered_by_text(notes)} if named else items)


def realism_summary(sheet: RealismSheet, reviewers: Mapping[str, Decisions]) -> dict[str, Any]:
    """Return the figures of a realism sheet, plain values, as FOLDER/realism.json holds them.

    Where several reviewers rated a note, it counts once, with their mean. The intervals are over notes: they say
    nothing of how other reviewers would answer.

    Returns:
        `n` synthetic notes with an answer; `plausibility_mean` and `plausibility_ci95` of these, from 1 to 5;
        `taken_for_real` and `taken_for_real_ci95`, the share of them taken for real; `real_taken_for_real`, the share
        of gold notes taken for real; `told_apart` and `told_apart_ci95`, the share of all these notes of which it was
        told rightly whether they are real; `reviewers`. A figure is None where too few notes have an answer.
    """
    plausible: dict[bool, list[float]] = {True: [], False: []}  # by whether the note is gold
    real: dict[bool, list[float]] = {True: [], False: []}
    for id, item in sheet.items.items():
        answers = [d.answers[id] for d in reviewers.values() if id in d.answers and d.answers[id].do == RATE]
        if answers:
            plausible[item.source == REAL].append(float(np.mean([a.plausibility for a in answers])))
            real[item.source == REAL].append(float(np.mean([a.taken_for == REAL for a in answers])))
    n = len(real[False])
    right = [*(1 - share for share in real[False]), *real[True]]
    return {
        "n": n,
        "plausibility_mean": round(float(np.mean(plausible[False])), 4) if n else None,
        "plausibility_ci95": _interval(plausible[False], _LOWEST, _HIGHEST),
        "taken_for_real": round(float(np.mean(real[False])), 4) if n else None,
        "taken_for_real_ci95": _interval(real[False], 0, 1),
        "real_taken_for_real": round(float(np.mean(real[True])), 4) if real[True] else None,
        "told_apart": round(float(np.mean(right)), 4) if n and real[True] else None,
        "told_apart_ci95": _interval(right, 0, 1) if n and real[True] else None,
        "reviewers": sum(any(a.do == RATE for a in d.answers.values()) for d in reviewers.values()),
    }


def _interval(values: list[float], low: float, high: float) -> list[float] | None:
    """Return the 95% interval of the mean of values within bounds; None of fewer than two notes.

    It is Wilson's at the number of notes that a share of the same variance would have. Half a note at either bound is
    added for the variance: a few notes with one and the same value do not prove that all have it.
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return None
    shares = (np.asarray(values) - low) / (high - low)
    mean = (shares.sum() + 0.5) / (n + 1)
    variance = (((shares - mean) ** 2).sum() + 0.5 * mean**2 + 0.5 * (1 - mean) ** 2) / (n + 1)
    effective = n * mean * (1 - mean) / variance * (_Z / float(stdtrit(n - 1, 0.975))) ** 2
    bounds = wilson_at(np.asarray(shares.mean()), np.asarray(effective), _Z)
    return [round(low + (high - low) * float(bound), 4) for bound in bounds]
