"""Lineage: which gold rows each synthetic row was written from, so that held-out gold is held out with its rows.

A row written from a gold note carries the note's words and its label. A model that learns from the row has seen the
note. Rows of `generate` record the fold of gold that their exemplars are of; a fold that is held out then costs its own
rows, about a fifth. Rows of earlier versions record ids of exemplars alone: such a row belongs to every fold that one
of its exemplars lies in.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.task.columns import UNLABELLED
from hf_synth.task.folds import FOLDS, deal
from hf_synth.task.labels import Floats32, Ints, column_of, groups_of, label_indices, label_matrix, text_id, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Mask = npt.NDArray[np.bool_]
LEAST_SHARE = 0.5  # of the synthetic rows that must remain when a fold of gold is held out

_FEWEST_PARTS = 5  # unconnected parts of gold from which folds are made of whole parts
_WIDEST = 3  # rows that equal texts may join: this part of all, if no single group is larger
_LARGEST = 2.0  # size of a fold that is made of whole parts, as a multiple of an even share


@dataclass(frozen=True)
class Lineage:
    """The folds of gold and what each synthetic row showed of them; F folds, M gold rows, N synthetic rows.

    Args:
        fold: the fold of each gold row, (M,), from 0 to F - 1; rows of a group are of one fold, and no fold is empty.
        shows: whether the prompt of a row showed gold of a fold, (N, F).
        gold_unit: the unit of each gold row, (M,): groups that one prompt showed together are a unit, with all rows
            that were written from them.
        row_unit: the unit of each synthetic row, (N,); a row that showed none of the gold is a unit by itself.
        known: whether the exemplars of a row are recorded, (N,). A row that showed none, or other gold than this, is
            known. A row made elsewhere is not: nothing can be said of the gold that it resembles.
    """

    fold: Ints
    shows: Mask
    gold_unit: Ints
    row_unit: Ints
    known: Mask

    @property
    def folds(self) -> int:
        """The number of folds, F."""
        return int(self.shows.shape[1])

    def without(self, k: int) -> Ints:
        """Return the positions of the synthetic rows that showed no gold of fold k; rows not `known` are among them."""
        return np.flatnonzero(~self.shows[:, k])

    def of_rows(self, keep: Ints) -> Lineage:
        """Return the lineage of some synthetic rows, by their positions."""
        return replace(self, shows=self.shows[keep], row_unit=self.row_unit[keep], known=self.known[keep])

    @property
    def measurable(self) -> bool:
        """Whether a fold can be held out: half of the rows, and of the gold, remain."""
        sizes = np.bincount(self.fold)
        return len(sizes) > 1 and int(sizes.max()) <= len(self.fold) / 2 and self.least_share() >= LEAST_SHARE

    def least_share(self) -> float:
        """Return the smallest share of synthetic rows that remains when a fold is held out; 1 without rows."""
        return float(1 - self.shows.mean(axis=0).max()) if self.shows.size else 1.0


def lineage_of(task: Task, gold: Dataset, rows: Dataset, *, folds: int = FOLDS, seed: int = 0) -> Lineage:
    """Trace synthetic rows to gold by their columns, as `lineage` does.

    Args:
        gold: rows with the task's columns.
        rows: synthetic rows, of any version; without a column `seed_ids` none is known.

    Raises:
        ColumnError: a label of gold is missing or not the task's.
    """
    texts = gold.select_columns([c for c in ("id", *task.text_columns) if c in gold.column_names])
    ids = [text_id(task, row) if row.get("id") is None else str(row["id"]) for row in texts]
    labels: Ints | Floats32 = np.zeros(len(gold), dtype=np.int64)
    if task.kind != "text2text":
        labels = label_matrix(task, gold) if task.kind == "multi_label" else label_indices(task, gold)
    columns = (column_of(rows, name) for name in ("seed_ids", "prompt_sha256", "source"))
    seed_ids = [
        # rows made elsewhere had an empty list in earlier versions; a prompt without exemplars still has its hash
        None if seeds is None or not (seeds or prompt or source == UNLABELLED) else seeds
        for seeds, prompt, source in zip(*columns, strict=True)
    ]
    return lineage(ids, fold_groups(task, gold), labels, seed_ids, column_of(rows, "fold"), folds=folds, seed=seed)


def fold_groups(task: Task, gold: Dataset) -> list[Any] | None:
    """Return the group of each gold row, (M,), for folds: groups that share a text are one, as in the splits of gold.

    A text that stands in two folds is not held out. Case and blanks are no difference. Where texts such as "no change"
    would join groups of more than a third of the rows, the groups stay as they are.
    """
    groups = groups_of(gold)
    names = [f"row {i}" if g is None else f"group {g}" for i, g in enumerate(groups or [None] * len(gold))]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    texts = [" ".join(text.casefold().split()) for text in texts_of(task, gold)]
    holders: dict[str, list[int]] = {}
    for text, name in zip(texts, names, strict=True):
        holders.setdefault(text, []).append(number[name])
    units = np.array(_units(len(number), holders.values()), dtype=np.int64)
    codes = np.array([number[name] for name in names], dtype=np.int64)
    joined = np.bincount(units)[units] > 1  # of each group
    if not joined.any() or np.bincount(units[codes]).max() > max(np.bincount(codes).max(), len(gold) / _WIDEST):
        return groups
    first: dict[int, str] = {}
    for code, text in zip(codes.tolist(), texts, strict=True):  # a name that does not depend on the order of the rows
        unit = int(units[code])
        first[unit] = min(first.get(unit, text), text)
    of_text = {
        unit: f"text {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}" for unit, text in first.items()
    }
    own = groups or [None] * len(gold)
    return [
        of_text[int(units[code])] if joined[code] else group for code, group in zip(codes.tolist(), own, strict=True)
    ]


def lineage(
    ids: Sequence[str],
    groups: Sequence[Any] | None,
    labels: Ints | Floats32,
    seed_ids: Sequence[Sequence[str] | None],
    row_folds: Sequence[int | None] | None = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Lineage:
    """Trace synthetic rows to gold, and choose the folds of gold.

    A group whose rows were shown by rows with a recorded fold lies in that fold; with several recorded folds, in the
    most frequent one, and rows of the others count for both. The other groups are dealt so that labels are spread
    evenly. Where no row has a recorded fold, folds are made of whole units if that leaves more rows when a fold is held
    out.

    Args:
        ids, groups: of the gold rows, (M,); a row without a group is one by itself.
        labels: of the gold rows, (M,), or as 0 and 1, (M, K).
        seed_ids: ids of the exemplars of each synthetic row, (N,): empty where its prompt showed none, None where
            nothing is recorded.
        row_folds: the recorded folds, (N,), or None where no row has one; taken modulo `folds`.
        folds: number of folds; fewer where gold has fewer groups.
        seed: of the groups whose fold is not recorded.

    Raises:
        ColumnError: there is no gold row, columns differ in length, or a recorded fold is negative.
    """
    row_folds = [None] * len(seed_ids) if row_folds is None else row_folds
    groups = [None] * len(ids) if groups is None else groups
    _check(ids, groups, labels, seed_ids, row_folds)
    # as for folds in generation, the names do not depend on the order of the rows
    names = [f"row {i}" if g is None else f"group {g}" for i, g in zip(ids, groups, strict=True)]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    codes = np.array([number[name] for name in names], dtype=np.int64)
    shown = _groups_shown(ids, codes.tolist(), seed_ids)
    units = _units(len(number), shown)
    recorded = _recorded(shown, row_folds, folds)
    members = list(zip(names, _label_sets(labels), strict=True))
    fixed = {name: recorded[code] for name, code in number.items() if code in recorded}
    dealt = deal(members, folds, seed=seed, fixed=fixed)
    fold, shows = _show(codes, shown, [dealt[name] for name in number])
    if not recorded and len(set(units)) >= _FEWEST_PARTS:
        part_of = dict(zip(number, _unit_names(list(number), units), strict=True))
        dealt = deal(((part_of[name], labels) for name, labels in members), folds, seed=seed)
        whole = _show(codes, shown, [dealt[part_of[name]] for name in number])
        even = np.bincount(whole[0]).max() <= _LARGEST * len(ids) / whole[1].shape[1]
        if even and whole[1].sum(axis=0).max() < shows.sum(axis=0).max():
            fold, shows = whole
    alone = iter(range(len(number), len(number) + len(shown)))
    row_units = np.array([units[at[0]] if at else next(alone) for at in shown], dtype=np.int64)
    compact: Ints = np.unique([*np.array(units)[codes], *row_units], return_inverse=True)[1].astype(np.int64)
    known = np.array([seeds is not None for seeds in seed_ids], dtype=bool)
    return Lineage(fold, shows, compact[: len(ids)], compact[len(ids) :], known)


def _check(
    ids: Sequence[str],
    groups: Sequence[Any],
    labels: Ints | Floats32,
    seed_ids: Sequence[Any],
    row_folds: Sequence[int | None],
) -> None:
    if not len(ids):
        raise ColumnError("there is no gold row to trace synthetic rows to: give gold with at least one row")
    if len(labels) != len(ids) or len(groups) != len(ids):
        raise ColumnError(f"ids, groups and labels of gold differ in length: give one of each for the {len(ids)} rows")
    if len(row_folds) != len(seed_ids):
        raise ColumnError(f"seed_ids and folds differ in length: {len(seed_ids)} and {len(row_folds)}")
    if (at := next((i for i, fold in enumerate(row_folds) if fold is not None and fold < 0), None)) is not None:
        raise ColumnError(f"row {at}: column 'fold' is {row_folds[at]}; a fold is a number from 0, or null")


def _groups_shown(
    ids: Sequence[str], codes: Sequence[int], seed_ids: Sequence[Sequence[str] | None]
) -> list[list[int]]:
    """Return the groups that each synthetic row showed; ids that are not among the gold count for nothing."""
    groups_with: dict[str, set[int]] = {}  # an id that occurs twice stands for the groups of both rows
    for id, code in zip(ids, codes, strict=True):
        groups_with.setdefault(id, set()).add(code)
    return [sorted({code for seed in seeds or () for code in groups_with.get(seed, ())}) for seeds in seed_ids]


def _recorded(shown: Sequence[Sequence[int]], row_folds: Sequence[int | None], folds: int) -> dict[int, int]:
    """Return the most frequently recorded fold of each group that has one; the lowest of equally frequent ones."""
    votes: dict[int, Counter[int]] = {}
    for codes, fold in zip(shown, row_folds, strict=True):
        for code in codes if fold is not None else ():
            votes.setdefault(code, Counter())[int(fold) % folds] += 1  # type: ignore[arg-type]
    return {code: min(counts, key=lambda f: (-counts[f], f)) for code, counts in votes.items()}


def _units(n_groups: int, shown: Iterable[Sequence[int]]) -> list[int]:
    """Return the unit of each group, as the number of one of its groups (union-find)."""
    above = list(range(n_groups))

    def top(code: int) -> int:
        while above[code] != code:
            above[code] = above[above[code]]
            code = above[code]
        return code

    for codes in shown:
        for code in codes[1:]:
            above[top(code)] = top(codes[0])
    return [top(code) for code in range(n_groups)]


def _unit_names(names: Sequence[str], units: Sequence[int]) -> list[str]:
    """Return the name of each group's unit: the first in the alphabet of the names of its groups."""
    first: dict[int, str] = {}
    for name, unit in zip(names, units, strict=True):
        first[unit] = min(first.get(unit, name), name)
    return [first[unit] for unit in units]


def _label_sets(labels: Ints | Floats32) -> list[Collection[int]]:
    """Return the labels of each gold row."""
    if labels.ndim == 1:
        return [(label,) for label in labels.tolist()]
    return [np.flatnonzero(row).tolist() for row in labels]


def _show(codes: Ints, shown: Sequence[Sequence[int]], fold_of: Sequence[int]) -> tuple[Ints, Mask]:
    """Return the fold of each gold row, without empty folds, and which folds each synthetic row showed."""
    used, fold = np.unique(np.array(fold_of)[codes], return_inverse=True)
    place = {f: i for i, f in enumerate(used.tolist())}
    shows = np.zeros((len(shown), len(used)), dtype=bool)
    at = [(i, place[fold_of[code]]) for i, row in enumerate(shown) for code in row]
    if at:
        shows[tuple(np.array(at).T)] = True
    return fold.astype(np.int64), shows
