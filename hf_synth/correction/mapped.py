"""What `map` hands to a function, as plain rows: one row or a batch, in any format of `datasets`.

A row of a Dataset without a format knows its features, and so the names of its labels. Rows of other formats, and those
of an IterableDataset, come as bare values: a label is then a number whose meaning only the caller can state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, TaskError
from hf_synth.task.labels import label_names, name_of_boolean
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Features

GOLD = ("id", "group", "access")  # columns of gold that decide, beside the task's own
_PLAIN = (str, int, float, bool, type(None))
USE = "map(transform, **transform.map_kwargs_for(rows))"


@dataclass(frozen=True)
class Mapped:
    """The rows of one call of a mapped function.

    Args:
        rows: plain values of the columns that are read; a missing value is None.
        columns: the columns that they came with.
        single: whether they are one row outside a batch; always False for a table, which may be either.
        features: of the dataset; None where the rows do not carry them.
        merged: whether `map` merges what the function returns into its input, as it does with a dict.
        formatted: whether the values came as arrays or tensors, or in a table of another library.
    """

    rows: list[dict[str, Any]]
    columns: list[str]
    single: bool
    features: Features | None
    merged: bool
    formatted: bool


def read_mapped(task: Task, given: Any) -> Mapped:
    """Read what `map` hands over.

    Raises:
        TaskError: it is a column, as with `input_columns`.
        ColumnError: the task's columns are missing.
    """
    columns = _columns_of(given)
    missing = [c for c in (*task.text_columns, task.label_column) if c not in columns]
    if missing:
        raise ColumnError(f"the rows to map lack columns {missing} of task {task.full_name!r}")
    mapping = isinstance(given, Mapping)
    read = (*GOLD, *task.text_columns, task.label_column)  # others may be pictures: they are not decoded
    raw = {c: given[c] for c in columns if c in read}
    values = {c: _as_python(value) for c, value in raw.items()}
    single = not isinstance(values[task.text_columns[0]], list)
    count = 1 if single else len(values[task.text_columns[0]])
    rows = [{c: v if single else v[i] for c, v in values.items()} for i in range(count)]
    lazy = mapping and hasattr(given, "pa_table")  # a row or batch of a Dataset without a format
    return Mapped(
        rows=rows,
        columns=columns,
        single=single,
        features=_features_of(given),
        merged=mapping and not lazy,
        formatted=not lazy and (not mapping or any(not _is_plain(value) for value in raw.values())),
    )


def label_by_name(task: Task, value: Any, names: Sequence[str] | None, *, typed: bool) -> Any:
    """Return the name of a label, or the names of several; None and target texts stay as they are.

    Args:
        value: a name or a number.
        names: what the numbers mean; None for numbers of a plain integer column.
        typed: whether the feature of the label is known, so that a plain number is no code of a ClassLabel.

    Raises:
        ColumnError: it is none of the task's, or may be read in two ways.
    """
    if not task.labels or value is None:
        return value
    if isinstance(value, list | tuple):
        return [label_by_name(task, v, names, typed=typed) for v in value]
    if isinstance(value, float) and value.is_integer():  # pandas has no missing integer
        value = int(value)
    if isinstance(value, bool):
        name: Any = name_of_boolean(task, value)
    elif isinstance(value, int):
        known = task.labels if names is None else names
        name = known[value] if 0 <= value < len(known) else None
        if names is None and str(int(value)) in task.labels and str(int(value)) != name:
            if not typed:
                raise ColumnError(
                    f"labels of task {task.full_name!r} are numbers, and the rows to map do not show whether theirs "
                    f"are names or positions: use {USE}"
                )
            name = str(int(value))
    else:
        name = value
    if name not in task.labels:
        raise ColumnError(
            f"the rows to map have a label that task {task.full_name!r} does not have; "
            f"its labels are {', '.join(map(repr, task.labels))}"
        )
    return name


def may_misread_codes(mapped: Mapped, column: str, feature: Any) -> bool:
    """Check whether `map` without `features=` could give codes of a label the names of the input's feature.

    It keeps the feature of a column that comes back with the same type of value. Names are safe: they are coded by
    whatever feature the column gets.
    """
    if column not in mapped.columns:
        return mapped.merged and mapped.formatted  # a dict of a Dataset carries no features
    if mapped.features is not None:
        from datasets import Features

        before = mapped.features[column]
        types = (Features({column: f}).arrow_schema.field(column).type for f in (before, feature))
        return bool(before != feature and len(set(types)) == 1)
    return mapped.formatted or isinstance(mapped.rows[0].get(column) if mapped.rows else None, str)


def label_names_in(features: Features | None, column: str) -> list[str] | None:
    """Return the names of a column's labels; None where they are unknown or the column has none."""
    return None if features is None or column not in features else label_names(features[column])


def _columns_of(given: Any) -> list[str]:
    if isinstance(given, Mapping):
        return list(given)
    columns = getattr(given, "column_names", None)  # pyarrow
    if columns is None:
        columns = getattr(given, "columns", None)  # pandas, polars
    if columns is None or isinstance(given, str | list):
        raise TaskError("the transform reads whole rows: leave `input_columns` out of map")
    return [str(c) for c in columns]


def _features_of(given: Any) -> Features | None:
    """Return the features that rows of a Dataset without a format, or an arrow table, carry."""
    formatter = getattr(given, "formatter", None)
    if formatter is not None:
        features: Features | None = getattr(formatter, "features", None)
        return features
    schema: Any = getattr(given, "schema", None)
    if b"huggingface" in (getattr(schema, "metadata", None) or {}):
        from datasets import Features

        stored = Features.from_arrow_schema(schema)
        return stored if set(stored) == set(schema.names) else None  # a table whose columns were changed since
    return None


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (isinstance(value, list | tuple) and all(map(_is_plain, value[:1])))


def _as_python(value: Any) -> Any:
    """Return a value of any array or table library as Python's own."""
    if type(value) in _PLAIN:
        return None if value != value else value  # NaN: pandas' missing value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {k: _as_python(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_python(v) for v in value]
    for name in ("to_pylist", "as_py", "to_list", "tolist"):
        if hasattr(value, name):
            return _elements_as_python(getattr(value, name)())
    if hasattr(value, "numpy"):
        return _elements_as_python(value.numpy().tolist())
    if hasattr(value, "__array__"):
        import numpy as np

        return _elements_as_python(np.asarray(value).tolist())
    return _as_python(list(value)) if isinstance(value, Iterable) else value


def _elements_as_python(value: Any) -> Any:
    """Return a value that a library made plain, with the elements of its lists made plain, too."""
    return _as_python(value) if isinstance(value, list) or type(value) in (*_PLAIN, bytes) else value
