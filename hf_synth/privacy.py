"""Audit of synthetic rows before they leave: what they share with gold, identifiers in them, labels they give away.

Three questions, each answered in time linear in the text:

- *Is gold in it?* Every 8-word window of gold goes into an index (`overlap`); a synthetic text is held against it.
  Windows that stand in three or more distinct groups of gold (patients, notes) are boilerplate and do not count.
- *Does it name someone?* Patterns (`identifiers`) find what has a form. They do not find names or places: a clean audit
  is not de-identification.
- *Does it repeat itself, or give its label away?* Counted, not refused.

What rows of gold that the generator never saw (`held_out`) reach against gold is the control for the first question.
`Findings` hold counts and row numbers, never text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.identifiers import DATES_AND_AGES, IDENTIFIERS, identifiers_in
from hf_synth.overlap import WINDOW, Bools, Index, Reach, Row, digest, repeats
from hf_synth.task import UNLABELLED, Task, access_of, check_columns, strictest

if TYPE_CHECKING:
    from datasets import Dataset

# Longest run: set phrases joined by accident reach 21 words in clean notes of the artificial clinic; copied spans of 40
# words of it count 29 or more, and 26 where every second sentence is a set phrase.
MAX_RUN = 24
# Near-copies: with 6% of its words changed, .94**8 = 61% of a note's windows survive; ordinary notes share few.
MAX_CONTAINMENT = 0.30
# ... but the joint of two set phrases is 7 windows, and may be all that a short note has of its own.
MIN_MATCHES = 8
# Rows that hold gold are withheld; where more than one in a hundred do, the generator is copying, and what the scan
# did not see cannot be trusted either.
MAX_COPIED_SHARE = 0.01

COPIED = ("gold_row", "copy_of_gold", "copied_span", "near_copy")
FLAGS: dict[str, str] = {
    "gold_row": "the row calls itself gold",
    "copy_of_gold": "its text is a text of gold",
    "copied_span": f"{MAX_RUN} words or more in a row stand in gold of one patient or note",
    "near_copy": f"more than {MAX_CONTAINMENT:.0%} of its {WINDOW}-word windows stand in gold of one patient or note",
    "identifier": "it holds what looks like an identifier of a person",
    "date_or_age": "it holds a full date, an age over 89 or a ZIP code",
    "label_leak": "it names its own label",
    "duplicate": "the same text came before among the synthetic rows",
    "near_duplicate": "almost the same text came before among the synthetic rows",
}


@dataclass(frozen=True)
class Findings:
    """What an audit found, without any text.

    Args:
        figures: counts and shares by name, as a card prints them.
        row_flags: for each row of the synthetic dataset the flags (FLAGS) that were raised, in that order.
        refused: the flags that refuse a row, by row number; such a row must not leave.
        compared: whether there was gold to compare with.
        access: the strictest access of task, synthetic rows and gold, which decided what refuses a row.
    """

    figures: Mapping[str, int | float]
    row_flags: tuple[tuple[str, ...], ...]
    refused: Mapping[int, tuple[str, ...]]
    compared: bool
    access: str

    @property
    def verdict(self) -> str:
        """Give "ok", or "refuse" when more than `MAX_COPIED_SHARE` of the rows hold gold."""
        return "refuse" if self.figures["copied_share"] > MAX_COPIED_SHARE else "ok"

    def to_json(self) -> dict[str, Any]:
        """Give plain values: verdict, figures, refused rows by number."""
        refused = {str(i): list(flags) for i, flags in self.refused.items()}
        return {"verdict": self.verdict, "compared": self.compared, "figures": dict(self.figures), "refused": refused}

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:g}" for name, value in self.figures.items())
        return f"audit {self.verdict}: {figures}"


def audit(task: Task, synthetic: Dataset, gold: Dataset | None, *, held_out: Dataset | None = None) -> Findings:
    """Hold synthetic rows against gold and look for identifiers, leaked labels and repetition.

    Dates, ages over 89 and ZIP codes refuse a row only where task, rows or gold are not open: invented notes are full
    of them.

    Args:
        synthetic: rows with the task's columns; rows without text (rejected ones) are passed over.
        gold: every gold row the generator or a corrector may have seen; None when there is none to compare with.
        held_out: gold that neither saw. It is the control: what gold reaches by being about the same things. Its
            texts must not leave either, so synthetic rows are held against it too.

    Raises:
        ColumnError: a dataset lacks columns of the task.
    """
    check_columns(task, synthetic, what="the synthetic dataset")
    parts = [p for p in (gold, held_out) if p is not None]
    for part in parts:
        check_columns(task, part, what="the gold")
    access = strictest(task.access, access_of(synthetic), *(access_of(p) for p in parts))
    rows = texts_of(task, synthetic)
    flags: list[set[str]] = [set() for _ in rows]
    figures: dict[str, int | float] = {"rows": sum(map(any, rows)), "gold_rows": sum(map(len, parts))}
    if "source" in synthetic.column_names:
        _raise(flags, "gold_row", (i for i, s in enumerate(synthetic["source"]) if s in ("gold", UNLABELLED)))
    if parts:
        figures |= _overlap(task, rows, parts, flags)
    if gold is not None and held_out is not None:
        figures |= _control(rows, texts_of(task, held_out), index_gold(task, gold))
    figures |= _identifiers(rows, flags)
    leaks = [re.compile(p) for p in task.leaks]
    told = (i for i, row in enumerate(rows) if any(p.search(t) for p in leaks for t in row[: len(task.text_columns)]))
    figures["label_leaks"] = _raise(flags, "label_leak", told)
    exact, near = repeats(rows)
    figures["duplicates"] = _raise(flags, "duplicate", exact)
    figures["near_duplicates"] = _raise(flags, "near_duplicate", near)

    refusing = {*COPIED, "identifier"} | (set() if access == "open" else {"date_or_age"})
    row_flags = tuple(tuple(f for f in FLAGS if f in found) for found in flags)
    refused = {i: hit for i, fs in enumerate(row_flags) if (hit := tuple(f for f in fs if f in refusing))}
    n = max(1, int(figures["rows"]))
    figures["copied_rows"] = sum(any(f in COPIED for f in fs) for fs in row_flags)
    figures["copied_share"] = round(figures["copied_rows"] / n, 4)
    figures["refused_rows"] = len(refused)
    figures["refused_share"] = round(len(refused) / n, 4)
    return Findings(MappingProxyType(figures), row_flags, MappingProxyType(refused), bool(parts), access)


def texts_of(task: Task, dataset: Dataset) -> list[Row]:
    """Give each row's texts; for text2text the target is text of a note too."""
    columns = [*task.text_columns, *([task.label_column] if task.kind == "text2text" else [])]
    return [tuple(str(t or "") for t in row) for row in zip(*(dataset[c] for c in columns), strict=True)]


def index_gold(task: Task, *gold: Dataset) -> Index:
    """Index the texts of gold by group (`group`; a row without one is a group of its own)."""
    rows: list[tuple[str, Row]] = []
    for p, part in enumerate(gold):
        groups = part["group"] if "group" in part.column_names else [None] * len(part)
        named = (f"row {p} {i}" if g is None else f"group {g}" for i, g in enumerate(groups))
        rows.extend(zip(named, texts_of(task, part), strict=True))
    return Index.of(rows)


def refusals(findings: Findings, rows: Iterable[int]) -> dict[str, int]:
    """Count the refusing flags over some rows, in the order of FLAGS."""
    counts = Counter(flag for i in rows for flag in findings.refused.get(i, ()))
    return {flag: counts[flag] for flag in FLAGS if counts[flag]}


def _raise(flags: list[set[str]], flag: str, rows: Iterable[int]) -> int:
    """Raise a flag on rows; give how many."""
    numbers = [int(i) for i in rows]
    for i in numbers:
        flags[i].add(flag)
    return len(numbers)


def _overlap(task: Task, rows: list[Row], parts: Sequence[Dataset], flags: list[set[str]]) -> dict[str, int | float]:
    known = {digest(row) for part in parts for row in texts_of(task, part) if any(row)}
    index = index_gold(task, *parts)
    reach = index.reach(rows)
    return {
        "boilerplate_windows": len(index.boilerplate),
        "copies_of_gold": _raise(
            flags, "copy_of_gold", (i for i, r in enumerate(rows) if any(r) and digest(r) in known)
        ),
        "copied_spans": _raise(flags, "copied_span", np.flatnonzero(reach.runs >= MAX_RUN)),
        "near_copies": _raise(flags, "near_copy", np.flatnonzero(_near(reach))),
        **_spread("", rows, reach),
    }


def _near(reach: Reach) -> Bools:
    near: Bools = (reach.share > MAX_CONTAINMENT) & (reach.matches >= MIN_MATCHES)
    return near


def _control(rows: list[Row], held_out: list[Row], index: Index) -> dict[str, int | float]:
    """Compare how near synthetic rows and held-out gold come to gold.

    `closeness_auc` is the chance that a synthetic row shares more of its windows with gold than a held-out row does
    (ties count half): .5 when neither comes nearer.
    """
    reach = index.reach(held_out)
    mine = index.reach([r for r in rows if any(r)]).share
    theirs = np.sort(reach.share)
    auc = 0.5
    if len(mine) and len(theirs):
        wins = np.searchsorted(theirs, mine, "left") + np.searchsorted(theirs, mine, "right")
        auc = float(wins.mean()) / 2 / len(theirs)
    return {
        "held_out_rows": len(held_out),
        "held_out_over_limit": int(((reach.runs >= MAX_RUN) | _near(reach)).sum()),
        **_spread("held_out_", held_out, reach),
        "closeness_auc": round(auc, 4),
    }


def _spread(prefix: str, rows: list[Row], reach: Reach) -> dict[str, int | float]:
    used = np.array([any(r) for r in rows], bool)
    runs, share = (reach.runs[used], reach.share[used]) if used.any() else (np.zeros(1, np.int64), np.zeros(1))
    return {
        f"{prefix}longest_run_words": int(runs.max()),
        f"{prefix}containment_mean": round(float(share.mean()), 4),
        f"{prefix}containment_p95": round(float(np.quantile(share, 0.95)), 4),
    }


def _identifiers(rows: list[Row], flags: list[set[str]]) -> dict[str, int | float]:
    kinds: Counter[str] = Counter()
    for row, found in zip(rows, flags, strict=True):
        seen = {kind for text in row for kind in identifiers_in(text)}
        kinds.update(seen)
        if seen & set(DATES_AND_AGES):
            found.add("date_or_age")
        if seen - set(DATES_AND_AGES):
            found.add("identifier")
    return {f"with_{kind}": kinds[kind] for kind in IDENTIFIERS if kinds[kind]}
