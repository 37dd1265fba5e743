"""Leakage checks: no training row among the scored rows, and a count of every human label that a cell used.

Rows are compared by their words: a copy under another id is the same row.
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

NEAR_COPY = 0.8  # share of a text's 8-word windows in one patient's test notes, from which on it counts as a copy
MIN_WINDOWS = 8  # fewest windows for such a share


def text_rows(task: Task, rows: Dataset) -> list[Row]:
    """Return the texts of each row; a missing text is empty."""
    return list(zip(*([t or "" for t in rows[c]] for c in task.text_columns), strict=True))


def text_digests(task: Task, rows: Dataset) -> list[str]:
    """Return the digest of each row's texts, whatever its label."""
    return row_digests(task, rows.select_columns(list(task.text_columns)))


def copies(task: Task, rows: Dataset, held: Dataset) -> list[int]:
    """Return the positions of rows that copy a held-out row, in the same words or almost.

    Args:
        rows: any rows with the task's texts.
        held: rows to evaluate on.
    """
    texts, others = text_rows(task, rows), text_rows(task, held)
    known = {digest(row) for row in others}
    groups = column_of(held, "group")
    by_group = (
        (str(g) if g is not None else f"row {i}", row) for i, (g, row) in enumerate(zip(groups, others, strict=True))
    )
    reach = Index.of(by_group).reach(texts)
    near = (reach.share >= NEAR_COPY) & (reach.matches >= MIN_WINDOWS)
    return [i for i, row in enumerate(texts) if near[i] or (any(row) and digest(row) in known)]


def check_gold(task: Task, gold: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that no gold row of a cell is in a split that is scored.

    Raises:
        OverlapError: some are.
    """
    mine = {digest(row) for row in text_rows(task, gold)}
    for split, rows in held.items():
        both = sum(digest(row) in mine for row in text_rows(task, rows))
        if both:
            raise OverlapError(
                f"{both} rows of split {split!r} are in the gold for training too; leave them out of the scores "
                "(drop_seen, --drop-seen) or take them out of the gold"
            )


def group_names(rows: Dataset) -> list[str]:
    """Return the group name of each row; "" for a row without one."""
    names = column_of(rows, "group")
    return ["" if name is None else str(name).strip() for name in names]


def shared_groups(rows: Dataset, others: Dataset) -> list[int]:
    """Return the positions of rows whose group (patient, admission) occurs in other rows; None is no group."""
    known = {name for name in group_names(others) if name}
    return [i for i, name in enumerate(group_names(rows)) if name in known]


def check_groups(gold: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that no group (patient) is in both the training split and a split that is scored.

    Raises:
        OverlapError: some are.
    """
    for split, rows in held.items():
        both = shared_groups(rows, gold)
        if both:
            raise OverlapError(
                f"{len(both)} rows of split {split!r} are of groups (patients) in the gold for training; leave them "
                "out of the scores (drop_seen, --drop-seen) or split by patient"
            )


def check_synthetic(task: Task, synthetic: Dataset, own: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that synthetic rows were written from a cell's own gold, and that none copies a held-out row.

    Raises:
        OverlapError: other rows were shown as exemplars, or there are copies of held-out rows.
    """
    check_exemplars(synthetic, own, held)
    check_copies(task, synthetic, held)


def check_exemplars(synthetic: Dataset, own: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that synthetic rows were written from a cell's own gold.

    Raises:
        OverlapError: other rows were shown as exemplars.
    """
    mine = set(own["id"][:])
    shown = {id for ids in column_of(synthetic, "seed_ids") for id in ids or ()}
    foreign = shown - mine
    tested = {id for rows in held.values() for id in rows["id"][:]} if foreign else set()
    if foreign & tested:
        raise OverlapError(
            f"synthetic rows were written from {len(foreign & tested)} rows that are scored; generate from the gold "
            "for training"
        )
    if foreign:
        raise OverlapError(
            f"synthetic rows were written from {len(foreign)} gold rows outside the {len(mine)} of this cell, whose "
            "labels its budget does not count; generate for each gold subset anew"
        )


def check_copies(task: Task, synthetic: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that no synthetic row copies a held-out row.

    Raises:
        OverlapError: some do.
    """
    for split, rows in held.items():
        n = len(copies(task, synthetic, rows))
        if n:
            raise OverlapError(
                f"{n} synthetic rows copy rows of split {split!r}, in the same words or almost; leave them out "
                "(drop_seen, --drop-seen) or generate from the gold for training"
            )


def check_model(
    task: Task,
    facts: Mapping[str, Any],
    own: Dataset,
    train: Dataset,
    held: Mapping[str, Dataset],
    synthetic: Dataset | None = None,
) -> None:
    """Check that neither a model nor its base was trained on held-out rows or on gold beyond the cell's own.

    Args:
        facts: training record of the model (`model_facts`); a model without one passes.
        own: gold rows of the cell.
        train: all gold rows for training.
        synthetic: synthetic rows that the model was trained on. A short note of an LLM may have the words of a gold row
            that nobody showed to it; its label is the LLM's, so that this is no use of that gold row.

    Raises:
        OverlapError: it was.
    """
    seen = set(facts.get("row_digests", ()))
    if not seen:
        return
    for split, rows in held.items():
        both = len(seen & set(text_digests(task, rows)))
        if both:
            raise OverlapError(
                f"a model was trained on {both} rows of split {split!r}, which it is scored on; choose another model"
            )
    foreign = set(text_digests(task, train)) - set(text_digests(task, own))
    if synthetic is not None:
        foreign -= set(text_digests(task, synthetic))
    beyond = len(seen & foreign)
    if beyond:
        raise OverlapError(
            f"a model was trained on {beyond} gold rows beyond the {len(own)} of this cell; choose another model"
        )


def gold_budget(task: Task, *labelled: Dataset | None) -> int:
    """Count the human labels of a cell, each row once: training, validation, correction, exemplars, audited."""
    return len({digest(row) for rows in labelled if rows is not None for row in text_rows(task, rows)})


def without(rows: Dataset, positions: Sequence[int]) -> Dataset:
    """Return the rows but those at some positions."""
    keep = np.setdiff1d(np.arange(len(rows)), positions)
    return rows if len(keep) == len(rows) else rows.select(keep)
