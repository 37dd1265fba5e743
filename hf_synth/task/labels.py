"""Rows as arrays: labels to training targets, tokens to batches that waste little.

What inference, training and evaluation share; numpy only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.task.columns import JUDGED
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Floats = npt.NDArray[np.float32]
_USED = ("kept", "relabelled")


# --- labels ---------------------------------------------------------------------------------------------------------
def label_indices(task: Task, dataset: Dataset, column: str | None = None) -> npt.NDArray[np.int64]:
    """Read the labels of a dataset as indices into `task.labels`, shape (N,); names and numbers are understood.

    Raises:
        ColumnError: a label is missing or not the task's; the message names the row, not its text.
    """
    column = column or task.label_column
    check_columns(task, dataset, column)
    names = {name: i for i, name in enumerate(task.labels)}
    typed = label_names(dataset.features[column]) is not None
    indices = np.empty(len(dataset), dtype=np.int64)
    for row, value in enumerate(dataset[column][:]):  # [:]: at once, not row by row
        index = names.get(value, -1) if isinstance(value, str) and not typed else value
        if not isinstance(index, int) or not 0 <= index < len(task.labels):
            problem = "is empty" if value is None else "is none of the task's labels"
            raise ColumnError(f"row {row}: column {column!r} {problem} {list(task.labels)}")
        indices[row] = index
    return indices


def audited_labels(task: Task, told: Mapping[int, int | str]) -> dict[int, int]:
    """Give labels that a person gave to rows, by position, as indices; names and numbers are understood.

    Raises:
        ColumnError: one is none of the task's.
    """
    names = {name: i for i, name in enumerate(task.labels)}
    found = {at: names.get(label, -1) if isinstance(label, str) else int(label) for at, label in told.items()}
    if not all(0 <= index < len(names) for index in found.values()):
        raise ColumnError(f"an audited label is none of the task's: {', '.join(task.labels)}")
    return found


def label_matrix(task: Task, dataset: Dataset, column: str | None = None) -> Floats:
    """Read the labels of a multi_label dataset as 0 and 1, shape (N, K); a row may have no label at all.

    Raises:
        ColumnError: a row holds no list, or a label that is not the task's; the message names the row, not its text.
    """
    column = column or task.label_column
    check_columns(task, dataset, column)
    names = {name: i for i, name in enumerate(task.labels)}
    typed = label_names(dataset.features[column]) is not None
    matrix = np.zeros((len(dataset), len(task.labels)), dtype=np.float32)
    for row, values in enumerate(dataset[column][:]):
        if not isinstance(values, list):
            raise ColumnError(f"row {row}: column {column!r} holds no list of labels (an empty list is no label)")
        for value in values:
            index = names.get(value, -1) if isinstance(value, str) and not typed else value
            if not isinstance(index, int) or not 0 <= index < len(task.labels):
                raise ColumnError(f"row {row}: column {column!r} is none of the task's labels {list(task.labels)}")
            matrix[row, index] = 1
    return matrix


def judged_mask(task: Task, dataset: Dataset) -> Floats:
    """Tell which labels of a multi_label dataset somebody judged, 1 or 0, shape (N, K): all where `judged` is not told.

    Raises:
        ColumnError: a judged label is not the task's, or a label is present that was not judged; names the row.
    """
    mask = np.ones((len(dataset), len(task.labels)), dtype=np.float32)
    if JUDGED not in dataset.column_names:
        return mask
    names = {name: i for i, name in enumerate(task.labels)}
    typed = label_names(dataset.features[JUDGED]) is not None
    there = label_matrix(task, dataset)
    for row, values in enumerate(dataset[JUDGED][:]):
        if values is None:
            continue
        at = [names.get(v, -1) if isinstance(v, str) and not typed else v for v in values]
        if not all(isinstance(i, int) and 0 <= i < len(task.labels) for i in at):
            raise ColumnError(f"row {row}: column {JUDGED!r} is none of the task's labels {list(task.labels)}")
        mask[row] = 0
        mask[row, at] = 1
        if (there[row] > mask[row]).any():
            raise ColumnError(f"row {row}: a label is present that column {JUDGED!r} does not name")
    return mask


def target_texts(task: Task, dataset: Dataset) -> list[str]:
    """Read the target texts of a text2text dataset.

    Raises:
        ColumnError: a target is missing or no text.
    """
    check_columns(task, dataset)
    texts = list(dataset[task.label_column][:])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ColumnError(f"row {row}: column {task.label_column!r} holds no text; leave out rejected rows first")
    return texts


def usable_rows(dataset: Dataset) -> Dataset:
    """Leave out rows that were dropped or rejected, or have weight 0. Gold rows stay.

    Raises:
        ColumnError: no row is left.
    """
    n = len(dataset)
    empty: list[Any] = [None] * n
    found = {c: dataset[c][:] if c in dataset.column_names else empty for c in ("source", "label_status", "weight")}
    used = [
        i
        for i, (source, status, weight) in enumerate(zip(*found.values(), strict=True))
        if source == "gold" or (status in (None, *_USED) and (weight is None or weight > 0))
    ]
    if not used:
        raise ColumnError(f"none of {n} rows can be trained on: all were dropped or rejected, or there is none")
    return dataset if len(used) == n else dataset.select(used)


def soft_labels(task: Task, rows: Dataset) -> Floats:
    """Give what each row is trained on, shape (N, K): probabilities over the labels times the row's weight.

    For a multi_label task shape is (N, 2K): the weight of each label's presence, then of each label's absence; both are
    0 for a label that nobody judged.
    A gold row, and a row without `label_probs` or without a status, is as certain as its labels.

    Raises:
        ColumnError: a label is not the task's, a weight is no positive number, or `label_probs` are no probabilities.
    """
    n, k = len(rows), len(task.labels)
    several = task.kind == "multi_label"
    targets = label_matrix(task, rows) if several else np.eye(k, dtype=np.float32)[label_indices(task, rows)]
    columns = ("source", "label_status", "label_probs")
    found = zip(*(rows[c][:] if c in rows.column_names else [None] * n for c in columns), strict=True)
    for i, (source, status, probs) in enumerate(found):
        if source == "gold" or not probs or status not in _USED:
            continue
        p = np.asarray(probs, dtype=np.float64)
        wrong = p.shape != (k,) or not np.isfinite(p).all() or (p < 0).any()
        if wrong or (several and p.max() > 1) or (not several and abs(p.sum() - 1) > 0.01):
            raise ColumnError(f"row {i}: 'label_probs' are not {k} probabilities{'' if several else ' that sum to 1'}")
        targets[i] = p if several else p / p.sum()
    if several:
        targets = np.hstack([targets, 1 - targets]) * np.tile(judged_mask(task, rows), 2)
    return targets * row_weights(rows)[:, None]


def row_weights(rows: Dataset) -> Floats:
    """Give the weight of each row, shape (N,): 1 for gold rows and for rows that carry none.

    Raises:
        ColumnError: a weight is no positive number.
    """
    weights = np.ones(len(rows), dtype=np.float32)
    if "weight" not in rows.column_names:
        return weights
    sources = rows["source"][:] if "source" in rows.column_names else [None] * len(rows)
    for i, (source, weight) in enumerate(zip(sources, rows["weight"][:], strict=True)):
        if source == "gold" or weight is None:
            continue
        if not (np.isfinite(weight) and weight > 0):
            raise ColumnError(f"row {i}: 'weight' is not a positive number")
        weights[i] = weight
    return weights


MARKS = "gold_marks"  # in a manifest
_MARK = 16  # hex digits of a digest


def gold_marks(task: Task, *gold: Dataset) -> list[str]:
    """Mark gold rows by their text (16 hex digits each, sorted), for the manifest of what is made from them."""
    found = {d[:_MARK] for part in gold for d in row_digests(task, part.select_columns(list(task.text_columns)))}
    return sorted(found)


# --- checking datasets against the contract -------------------------------------------------------------------------
def texts_of(task: Task, rows: Dataset) -> list[str]:
    """Return one text for each row, (N,): its text columns, a line each."""
    return ["\n".join(map(str, row)) for row in zip(*(rows[c][:] for c in task.text_columns), strict=True)]


def groups_of(rows: Dataset) -> list[Any] | None:
    """Return the group (patient) of each row, (N,); None where the rows have no such column."""
    return list(rows["group"][:]) if "group" in rows.column_names else None


def column_of(rows: Dataset, name: str, default: Any = None) -> list[Any]:
    """Return a column as a list, (N,); where the rows lack it, the default for each row."""
    return list(rows[name][:]) if name in rows.column_names else [default] * len(rows)


def check_columns(task: Task, dataset: Dataset, *more: str, what: str = "the dataset") -> None:
    """Check that a dataset has the task's columns, with its labels, and some more.

    Raises:
        ColumnError: a column is missing, or the label column holds other labels than the task's.
    """
    missing = [c for c in (*task.text_columns, task.label_column, *more) if c not in dataset.column_names]
    if missing:
        raise ColumnError(
            f"{what} has no column {', '.join(map(repr, missing))} for task {task.full_name!r}; "
            f"it has {', '.join(map(repr, dataset.column_names))}"
        )
    names = label_names(dataset.features[task.label_column])
    if task.kind != "text2text" and names is not None and tuple(names) != task.labels:
        raise ColumnError(
            f"{what} has labels {list(names)} in column {task.label_column!r}, "
            f"task {task.full_name!r} has {list(task.labels)}"
        )


def label_names(feature: Any) -> list[str] | None:
    """Give the names of a ClassLabel, or of a list of them; None for any other feature."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if names is not None else None


def row_digests(task: Task, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Digest each row's text (hex sha256 over the task's text columns): the name a row keeps when ids change."""
    return [hashlib.sha256("\x1f".join(str(row[c]) for c in task.text_columns).encode()).hexdigest() for row in rows]
