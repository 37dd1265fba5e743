"""Nothing that a cell learnt from may be in what it is scored on, and every label it used is counted.

Rows are known by their words, whatever their ids: a copy under another id is the same row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import OverlapError
from hf_synth.privacy.folding import Row, digest
from hf_synth.privacy.overlap import Index
from hf_synth.task.labels import column_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

ALMOST = 0.8  # of a text's 8-word windows, the share in one patient's test notes from which it counts as a copy of one
FEWEST = 8  # windows that make such a share mean something


def text_rows(task: Task, rows: Dataset) -> list[Row]:
    """Give the texts of each row; empty for one without."""
    return list(zip(*([t or "" for t in rows[c]] for c in task.text_columns), strict=True))


def copies(task: Task, rows: Dataset, held: Dataset) -> list[int]:
    """Give the positions of rows that are held-out rows again, in the same words or almost.

    Args:
        rows: any rows with the task's texts.
        held: rows to evaluate on.
    """
    texts, others = text_rows(task, rows), text_rows(task, held)
    known = {digest(row) for row in others}
    groups = column_of(held, "group")
    named = (
        (str(g) if g is not None else f"row {i}", row) for i, (g, row) in enumerate(zip(groups, others, strict=True))
    )
    reach = Index.of(named).reach(texts)
    near = (reach.share >= ALMOST) & (reach.matches >= FEWEST)
    return [i for i, row in enumerate(texts) if near[i] or (any(row) and digest(row) in known)]


def check_gold(task: Task, gold: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that no gold row that is used stands in a split that is evaluated on.

    Raises:
        OverlapError: some do.
    """
    mine = {digest(row) for row in text_rows(task, gold)}
    for split, rows in held.items():
        both = sum(digest(row) in mine for row in text_rows(task, rows))
        if both:
            raise OverlapError(
                f"{both} rows of split {split!r} stand in the gold for training too; leave them out of the scores "
                "(drop_seen, --drop-seen) or take them out of the gold"
            )


def group_names(rows: Dataset) -> list[str]:
    """Name the group of each row; empty where it has none."""
    names = column_of(rows, "group")
    return ["" if name is None else str(name).strip() for name in names]


def shared_groups(rows: Dataset, others: Dataset) -> list[int]:
    """Give the positions of rows whose group (patient, admission) is one of the other rows, too; None is no group."""
    known = {name for name in group_names(others) if name}
    return [i for i, name in enumerate(group_names(rows)) if name in known]


def check_groups(gold: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that nobody whose rows are for training stands in a split that is evaluated on, whoever made the splits.

    Raises:
        OverlapError: some do.
    """
    for split, rows in held.items():
        both = shared_groups(rows, gold)
        if both:
            raise OverlapError(
                f"{len(both)} rows of split {split!r} are of groups (patients) that stand in the gold for training; "
                "leave them out of the scores (drop_seen, --drop-seen) or split by patient"
            )


def check_synthetic(task: Task, synthetic: Dataset, own: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that synthetic rows were written from a cell's own gold, and that none is a held-out row again.

    Raises:
        OverlapError: other rows were shown as exemplars, or held-out rows stand among them.
    """
    check_exemplars(synthetic, own, held)
    check_copies(task, synthetic, held)


def check_exemplars(synthetic: Dataset, own: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that synthetic rows were written from a cell's own gold.

    Raises:
        OverlapError: other rows were shown as exemplars.
    """
    mine = set(own["id"])
    shown = {id for ids in column_of(synthetic, "seed_ids") for id in ids or ()}
    foreign = shown - mine
    tested = {id for rows in held.values() for id in rows["id"]} if foreign else set()
    if foreign & tested:
        raise OverlapError(
            f"synthetic rows were written from {len(foreign & tested)} rows that are evaluated on; generate from the "
            "gold for training"
        )
    if foreign:
        raise OverlapError(
            f"synthetic rows were written from {len(foreign)} gold rows outside the {len(mine)} of this cell: they "
            "would count labels that it does not own; generate for each gold subset anew"
        )


def check_copies(task: Task, synthetic: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that no synthetic row is a held-out row again.

    Raises:
        OverlapError: some are.
    """
    for split, rows in held.items():
        found = len(copies(task, synthetic, rows))
        if found:
            raise OverlapError(
                f"{found} synthetic rows are rows of split {split!r}, in the same words or almost; leave them out "
                "(drop_seen, --drop-seen) or generate from the gold for training"
            )


def check_model(
    task: Task, facts: Mapping[str, Any], own: Dataset, train: Dataset, held: Mapping[str, Dataset]
) -> None:
    """Check that a model, or one that it was made from, saw neither held-out rows nor gold beyond the cell's own.

    Args:
        facts: of the model (`model_facts`); one of which nothing is known passes.
        own: gold rows of the cell.
        train: all gold rows for training.

    Raises:
        OverlapError: it did.
    """
    seen = set(facts.get("row_digests", ()))
    if not seen:
        return
    for split, rows in held.items():
        both = len(seen & set(_named(task, rows)))
        if both:
            raise OverlapError(f"a model was trained on {both} rows of split {split!r}, which it is to be scored on")
    beyond = len(seen & (set(_named(task, train)) - set(_named(task, own))))
    if beyond:
        raise OverlapError(f"a model was trained on {beyond} gold rows beyond the {len(own)} of this cell")


def gold_budget(task: Task, *labelled: Dataset | None) -> int:
    """Count the human labels a cell touched, each row once: training, validation, correction, exemplars, audited."""
    names = [digest(row) for rows in labelled if rows is not None for row in text_rows(task, rows)]
    return len(set(names))


def without(rows: Dataset, positions: Sequence[int]) -> Dataset:
    """Leave rows out."""
    keep = np.setdiff1d(np.arange(len(rows)), positions)
    return rows if len(keep) == len(rows) else rows.select(keep)


def _named(task: Task, rows: Dataset) -> list[str]:
    return row_digests(task, rows.select_columns(list(task.text_columns)))
