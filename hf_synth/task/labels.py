"""Labels, weights, texts and digests of a dataset's rows as arrays; checks of its columns. numpy only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.task.columns import JUDGED, OTHER_TARGETS, names_shown
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

MARKS = "gold_marks"  # in a manifest
_MARK = 16  # hex digits of a mark
_USABLE = ("kept", "relabelled")


# --- labels ---------------------------------------------------------------------------------------------------------
def label_indices(task: Task, dataset: Dataset, column: str | None = None) -> npt.NDArray[np.int64]:
    """Return the labels of a dataset as indices into `task.labels`, (N,); names and numbers are understood.

    A number of an untyped column is an index, or a name where labels have numbers as names.

    Raises:
        ColumnError: a label is missing or not the task's; the message names the row, not its text.
    """
    column = column or task.label_column
    check_columns(task, dataset, column)
    index_of = _label_index(task, dataset.features[column])
    indices = np.empty(len(dataset), dtype=np.int64)
    for row, value in enumerate(dataset[column][:]):  # [:]: at once, not row by row
        indices[row] = index_of(value)
        if indices[row] < 0:
            problem = "is empty" if value is None else "is none of the task's labels"
            raise ColumnError(f"row {row}: column {column!r} {problem} {list(task.labels)}")
    return indices


def label_matrix(task: Task, dataset: Dataset, column: str | None = None) -> Floats32:
    """Return the labels of a multi_label dataset as 0 and 1, (N, K); a row may have no label.

    Raises:
        ColumnError: a row holds no list, or a label that is not the task's; the message names the row, not its text.
    """
    column = column or task.label_column
    check_columns(task, dataset, column)
    index_of = _label_index(task, dataset.features[column])
    matrix = np.zeros((len(dataset), len(task.labels)), dtype=np.float32)
    for row, values in enumerate(dataset[column][:]):
        if not isinstance(values, list):
            raise ColumnError(f"row {row}: column {column!r} holds no list of labels (an empty list is no label)")
        matrix[row, _indices(task, values, index_of, row, column)] = 1
    return matrix


def judged_mask(task: Task, dataset: Dataset) -> Floats32:
    """Return a mask of the judged labels of a multi_label dataset, (N, K); without the column all are judged.

    Raises:
        ColumnError: a judged label is not the task's, or a present label was not judged; names the row.
    """
    mask = np.ones((len(dataset), len(task.labels)), dtype=np.float32)
    if JUDGED not in dataset.column_names:
        return mask
    index_of = _label_index(task, dataset.features[JUDGED])
    present = label_matrix(task, dataset)
    for row, values in enumerate(dataset[JUDGED][:]):
        if values is None:
            continue
        judged = _indices(task, values, index_of, row, JUDGED)
        mask[row] = 0
        mask[row, judged] = 1
        if (present[row] > mask[row]).any():
            raise ColumnError(f"row {row}: a label is present that column {JUDGED!r} does not name")
    return mask


def _label_index(task: Task, feature: Any) -> Callable[[Any], int]:
    """Return a function from a label, by name or number, to its index; -1 for none of the task's."""
    places = {name: i for i, name in enumerate(task.labels)}
    names = label_names(feature)
    if names is not None:
        coded = [places.get(name, -1) for name in names]  # the names may stand in another order than the task's
        return lambda value: coded[value] if isinstance(value, int) and 0 <= value < len(coded) else -1
    numbered = has_numeric_names(task)

    def index_of(value: Any) -> int:
        if isinstance(value, bool):  # a name such as "True", never a position
            value = name_of_boolean(task, value)
        if numbered and isinstance(value, int):
            value = str(value)  # a name
        index = places.get(value, -1) if isinstance(value, str) else value
        return index if isinstance(index, int) and 0 <= index < len(places) else -1

    return index_of


def name_of_boolean(task: Task, value: bool) -> str | None:
    """Return the label whose name is "true" or "false", in any case; None where no label is, or several are."""
    found = [name for name in task.labels if name.casefold() == str(value).casefold()]
    return found[0] if len(found) == 1 else None


def has_numeric_names(task: Task) -> bool:
    """Return whether labels have whole numbers as names: then a number is a name, not an index."""
    return any(name.lstrip("-").isdigit() for name in task.labels)


def _indices(task: Task, values: Iterable[Any], index_of: Callable[[Any], int], row: int, column: str) -> list[int]:
    indices = [index_of(value) for value in values]
    if -1 in indices:
        raise ColumnError(f"row {row}: column {column!r} is none of the task's labels {list(task.labels)}")
    return indices


def audited_labels(task: Task, labels: Mapping[int, int | str]) -> dict[int, int]:
    """Return audited labels, by position of their row, as indices; names and numbers are understood.

    Raises:
        ColumnError: one is none of the task's.
    """
    index_of = _label_index(task, None)
    indices = {at: index_of(_as_whole(label)) for at, label in labels.items()}
    if -1 in indices.values():
        raise ColumnError(f"an audited label is not one of the task's labels: {', '.join(task.labels)}")
    return indices


def label_index(task: Task, feature: Any) -> Callable[[Any], int]:
    """Return a function from a value of a label column to the label's index; -1 for none of the task's, and for None.

    Values are understood as in `label_indices`, and whole numbers that became floats beside empty cells, too.
    """
    index_of = _label_index(task, feature)
    return lambda value: index_of(_as_whole(value))


def _as_whole(value: Any) -> Any:
    """Return a number without its type of numpy, and a whole number that became a float as an integer."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def label_names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or of a list of them; None for any other feature."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if names is not None else None


# --- what a row is trained on ---------------------------------------------------------------------------------------
def usable_rows(dataset: Dataset) -> Dataset:
    """Leave out rows that were dropped or rejected, or have weight 0. Gold rows stay.

    Raises:
        ColumnError: no row is left.
    """
    n = len(dataset)
    columns = (column_of(dataset, name) for name in ("source", "label_status", "weight"))
    usable = [
        i
        for i, (source, status, weight) in enumerate(zip(*columns, strict=True))
        if source == "gold" or (status in (None, *_USABLE) and (weight is None or weight > 0))
    ]
    if not usable:
        raise ColumnError(
            f"none of {n} rows can be trained on: all were dropped or rejected, or there is none; "
            "use gold, or correct the notes with another --method"
        )
    return dataset if len(usable) == n else dataset.select(usable)


def soft_labels(task: Task, rows: Dataset) -> Floats32:
    """Return the training targets of rows, (N, K): probabilities over the labels times the row's weight.

    For a multi_label task the shape is (N, 2K): the weight of each label's presence, then of its absence; both are 0
    for a label that was not judged. A gold row, and a row without `label_probs` or without a status, counts as certain.

    Raises:
        ColumnError: a label is not the task's, a weight is no positive number, or `label_probs` are no probabilities.
    """
    k, several = len(task.labels), task.kind == "multi_label"
    targets = label_matrix(task, rows) if several else np.eye(k, dtype=np.float32)[label_indices(task, rows)]
    columns = (column_of(rows, name) for name in ("source", "label_status", "label_probs"))
    for i, (source, status, probs) in enumerate(zip(*columns, strict=True)):
        if source == "gold" or not probs or status not in _USABLE:
            continue
        p = np.asarray(probs, dtype=np.float64)
        wrong = p.shape != (k,) or not np.isfinite(p).all() or (p < 0).any()
        if wrong or (several and p.max() > 1) or (not several and abs(p.sum() - 1) > 0.01):
            raise ColumnError(f"row {i}: 'label_probs' are not {k} probabilities{'' if several else ' that sum to 1'}")
        targets[i] = p if several else p / p.sum()
    if several:
        targets = np.hstack([targets, 1 - targets]) * np.tile(judged_mask(task, rows), 2)
    return targets * row_weights(rows)[:, None]


def row_weights(rows: Dataset) -> Floats32:
    """Return the weight of each row, (N,): 1 for gold rows and for rows without a weight.

    Raises:
        ColumnError: a weight is no positive number.
    """
    weights = np.ones(len(rows), dtype=np.float32)
    for i, (source, weight) in enumerate(zip(column_of(rows, "source"), column_of(rows, "weight"), strict=True)):
        if source == "gold" or weight is None:
            continue
        if not (np.isfinite(weight) and weight > 0):
            raise ColumnError(f"row {i}: 'weight' is not a positive number")
        weights[i] = weight
    return weights


# --- texts and other columns ----------------------------------------------------------------------------------------
def target_texts(task: Task, dataset: Dataset) -> list[str]:
    """Return the target texts of a text2text dataset.

    Raises:
        ColumnError: a target is missing or no text.
    """
    check_columns(task, dataset)
    texts = list(dataset[task.label_column][:])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ColumnError(f"row {row}: column {task.label_column!r} holds no text; leave out rejected rows first")
    return texts


def right_texts(task: Task, dataset: Dataset) -> list[str] | list[list[str]]:
    """Return the target texts of a text2text dataset; where it has the column `other_targets`, all right ones of a row.

    Raises:
        ColumnError: a target is missing or no text.
    """
    targets = target_texts(task, dataset)
    if OTHER_TARGETS not in dataset.column_names:
        return targets
    others = dataset[OTHER_TARGETS][:]
    return [[target, *(more or ())] for target, more in zip(targets, others, strict=True)]


def match_target(task: Task, text: str) -> str | None:
    """Return the one of a task's targets that a text is, whatever its case and punctuation; None where it is none."""
    known = {_fold_case(target): target for target in task.targets}
    if len(known) == len(task.targets) and "" not in known:
        return known.get(_fold_case(text))
    return text.strip() if text.strip() in task.targets else None


def _fold_case(text: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split())


def checked_texts(task: Task, dataset: Dataset) -> list[list[str]]:
    """Return the text columns, (N,) each.

    Raises:
        ColumnError: a text is missing or not a string.
    """
    missing = [c for c in task.text_columns if c not in dataset.column_names]
    if missing:
        own = names_shown(dataset.column_names, *task.text_columns, task.label_column)
        raise ColumnError(f"the dataset has no column {', '.join(map(repr, missing))}; it has {own}")
    columns = [list(dataset[c][:]) for c in task.text_columns]
    for name, texts in zip(task.text_columns, columns, strict=True):
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise ColumnError(f"row {number}: column {name!r} holds no text; leave out rejected rows first")
    return columns


def texts_of(task: Task, rows: Dataset) -> list[str]:
    """Return one text for each row, (N,): its text columns, a line each."""
    return ["\n".join(map(str, row)) for row in zip(*(column_of(rows, c) for c in task.text_columns), strict=True)]


def groups_of(rows: Dataset) -> list[Any] | None:
    """Return the group (patient) of each row, (N,); None where the rows have no such column."""
    return column_of(rows, "group") if "group" in rows.column_names else None


def column_of(rows: Dataset, name: str, default: Any = None) -> list[Any]:
    """Return a column as a list, (N,); where the rows lack it, the default for each row."""
    from datasets import ClassLabel, List, Value

    if name not in rows.column_names:
        return [default] * len(rows)
    plain = rows._indices is None and rows.format["type"] is None
    feature = rows.info.features[name]  # `rows.features` and `rows[name]` copy all features, which takes longer
    stored = feature.feature if isinstance(feature, List) else feature
    if plain and isinstance(stored, Value | ClassLabel):  # others may be stored otherwise, such as JSON
        values: list[Any] = rows.data.column(name).to_pylist()
        return values
    return list(rows[name][:])


def check_columns(task: Task, dataset: Dataset, *more: str, what: str = "the dataset") -> None:
    """Check that a dataset has the task's columns, its labels, and some more columns.

    Raises:
        ColumnError: a column is missing, or the label column holds other labels than the task's.
    """
    missing = [c for c in (*task.text_columns, task.label_column, *more) if c not in dataset.column_names]
    if missing:
        raise ColumnError(
            f"{what} has no column {', '.join(map(repr, missing))} for task {task.full_name!r}; "
            f"it has {names_shown(dataset.column_names, *task.text_columns, task.label_column, *more)}"
        )
    names = label_names(dataset.features[task.label_column])
    if task.kind != "text2text" and names is not None and tuple(names) != task.labels:
        raise ColumnError(
            f"{what} has labels {names_shown(names, *task.labels, what='label')} in column {task.label_column!r}, "
            f"task {task.full_name!r} has {', '.join(map(repr, task.labels))}"
        )


# --- digests --------------------------------------------------------------------------------------------------------
def row_digests(task: Task, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Digest each row's text (hex sha256 over the task's text columns); it identifies the row even if ids change."""
    return [hashlib.sha256("\x1f".join(str(row[c]) for c in task.text_columns).encode()).hexdigest() for row in rows]


def id_places(ids: Iterable[str], wanted: Iterable[str], what: str) -> dict[str, int]:
    """Return the position of each row by its id.

    Args:
        wanted: ids that labels are given for.
        what: what the rows are, for the message.

    Raises:
        ColumnError: an id that is wanted is not among the rows, or several rows have it.
    """
    place: dict[str, int] = {}
    repeated: set[str] = set()
    for i, id in enumerate(ids):
        if place.setdefault(id, i) != i:
            repeated.add(id)
    asked = list(wanted)
    if missing := sum(id not in place for id in asked):
        raise ColumnError(f"{missing} audited ids are not among {what}")
    if several := sum(id in repeated for id in asked):
        raise ColumnError(f"{several} audited ids stand for several rows of {what}: give each row an id of its own")
    return place


def text_id(task: Task, row: Mapping[str, Any]) -> str:
    """Return an id of a row without one: a digest of its texts."""
    return f"row-{row_digests(task, [row])[0][:_MARK]}"


def gold_marks(task: Task, *gold: Dataset) -> list[str]:
    """Return the marks of gold rows for the manifest of what is made from them: 16 hex digits of each text, sorted."""
    return sorted({d[:_MARK] for part in gold for d in row_digests(task, part.select_columns(list(task.text_columns)))})


def texts_with_several_labels(task: Task, gold: Iterable[Dataset]) -> int:
    """Return how many texts of a single_label task have other labels in other rows, of all splits together."""
    labels: dict[str, set[str]] = {}
    for part in gold:
        texts = row_digests(task, part.select_columns(list(task.text_columns)))
        for text, label in zip(texts, part[task.label_column][:], strict=True):
            labels.setdefault(text, set()).add(str(label))
    return sum(len(found) > 1 for found in labels.values())


def rows_and_texts(rows: int, texts: int) -> str:
    """Return numbers of gold rows and of their different texts: "172 gold rows (170 different texts)"."""
    return f"{rows:,} gold rows" + (f" ({texts:,} different texts)" if texts != rows else "")
