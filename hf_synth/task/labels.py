"""Rows as arrays: labels to training targets, tokens to batches that waste little.

What inference, training and evaluation share; numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.task.task import JUDGED, Task, check_columns, label_names

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


# --- tokens and batches ---------------------------------------------------------------------------------------------


def token_limit(tokenizer: Any, config: Any) -> int:
    """Give how many tokens a model takes: the smaller of what its tokenizer and its positions allow."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet"):
        positions -= (config.pad_token_id or 0) + 1  # these count positions from the padding index
    return min(int(positions), int(min(tokenizer.model_max_length, 1 << 20)))


def pad(tokenizer: Any, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, npt.NDArray[np.int64]]:
    """Pad rows of tokens on the right to the longest of them; each array has shape (rows, tokens)."""
    width = max(len(row["input_ids"]) for row in rows)
    batch = {"attention_mask": np.zeros((len(rows), width), dtype=np.int64)}
    for key in rows[0]:
        batch[key] = np.full((len(rows), width), tokenizer.pad_token_id if key == "input_ids" else 0, dtype=np.int64)
    for i, row in enumerate(rows):
        batch["attention_mask"][i, : len(row["input_ids"])] = 1
        for key, values in row.items():
            batch[key][i, : len(values)] = values
    return batch


def batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group rows of like length so that rows x longest stays within a budget; the longest come first.

    Memory is then asked for once at the start, and little of a batch is padding. A row beyond the budget goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for i in order:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= tokens_per_batch:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
