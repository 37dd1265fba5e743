"""Define a task by the columns of the user's own table, without a script.

    hf-synth gold notes.csv --text-column note --label-column urgency --out work/gold

The labels are the values of the label column; the rows go through the same builder as those of any other task. The
exported folder carries the task, so that later verbs take the folder in place of a name. A multi_label table may have a
column `judged` with the labels that were judged in a row, where not all were.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_synth.errors import RowError, TaskError
from hf_synth.gold.builder import GoldBuilder, Parts
from hf_synth.gold.readers import File, label_field, pick_column, read_table, text_field
from hf_synth.gold.sources import ROWS, SourceFile, all_files, as_source, find_files
from hf_synth.task.access import MOST_TASKS, known_accesses
from hf_synth.task.columns import JUDGED, Access, Kind, strictest
from hf_synth.task.folders import parquet_access, recorded_access
from hf_synth.task.task import TABLES, Task

_MOST_LABELS = 100  # different values of a label column
_LONGEST_LABEL = 100  # characters
_NO_LABELS: Mapping[str, tuple[str, ...]] = {  # placeholders until the table is read
    "single_label": ("?", "??"),
    "multi_label": ("?", "??"),
    "text2text": (),
}


def columns_builder(task: Task) -> type[GoldBuilder]:
    """Return the builder of a task made from columns: train / validation / test tables in a folder, or one table."""

    class Columns(GoldBuilder):
        """Read a user's own tables."""

        TASKS = {task.config: _with_files(task)}  # noqa: RUF012

        def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
            return table_rows(task, split, files[ROWS][0])

    return Columns


def _with_files(task: Task) -> Task:
    return task if task.files else replace(task, files=TABLES, optional_files=("validation", "test"))


def table_rows(task: Task, split: str, file: File) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table whose columns have the task's own names.

    Raises:
        RowError: a column, a text or a label is missing.
    """
    names = {n: n for n in task.labels}
    access = strictest(task.access, *filter(None, _recorded(as_source(file))))
    tasks: dict[str, list[Access]] = {}
    for number, row in read_table(file):
        for column in (*task.text_columns, task.label_column):
            pick_column(file, row, column)
        texts = [text_field(file, number, row, c) for c in task.text_columns]
        if task.kind == "text2text":
            label: Any = text_field(file, number, row, task.label_column)
        elif task.kind == "multi_label":
            label = _label_fields(file, number, row, task.label_column, names)
        else:
            label = label_field(file, number, row, task.label_column, names)
        id = str(row["id"]) if row.get("id") not in (None, "") else f"{split}-{number}"
        group = row.get(task.group_column) if task.group_column else row.get("group")
        gold = task.gold_row(id, None if group in (None, "") else str(group), label, *texts)
        if task.partly_judged:
            gold[JUDGED] = _judged(file, number, row, label, names)
        named = str(row.get("task"))
        if named not in tasks and len(tasks) < MOST_TASKS:
            tasks[named] = known_accesses(task, [named])
        yield gold | {"access": strictest(access, *tasks.get(named, []), *([row["access"]] if "access" in row else []))}


def _recorded(file: SourceFile) -> list[Access | None]:
    """Return what a table, and the folder that it or its archive lies in, record of its access."""
    found = [recorded_access(file.path)]
    if file.member is not None and file.suffix == ".parquet":
        with file.open() as stream:
            found.append(parquet_access(io.BytesIO(stream.read()), file.name))
    return found


def _label_fields(file: File, number: int, row: Mapping[str, Any], column: str, names: Mapping[str, str]) -> list[str]:
    return [label_field(file, number, {column: value}, column, names) for value in split_labels(row[column])]


def _judged(
    file: File, number: int, row: Mapping[str, Any], present: Sequence[str], names: Mapping[str, str]
) -> list[str] | None:
    """Return the judged labels of a row; None, for all of them, where the cell is null or missing.

    An empty cell means that none was judged.
    """
    if row.get(JUDGED) is None:
        return None
    judged = _label_fields(file, number, row, JUDGED, names)
    if missing := set(present) - set(judged):
        raise RowError(file.name, number, f"has {len(missing)} labels that column {JUDGED!r} does not name; add them")
    return judged


def split_labels(value: Any) -> list[Any]:
    """Return the labels of a cell: a list as it is, a text split at semicolons, bars or commas; none if it is empty."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return [] if value is None else [value]
    return [part.strip() for part in re.split(r"[;|,]", value) if part.strip()]


def task_from_table(
    path: Path,
    *,
    text_columns: Sequence[str],
    label_column: str,
    name: str | None = None,
    kind: Kind = "single_label",
    labels: Sequence[str] = (),
    access: Access = "restricted",
    group_column: str | None = None,
) -> Task:
    """Define a task by a table: its labels are the values of the label column, sorted.

    Args:
        path: a table, or a folder or archive with train, validation and test tables.
        name: of the task; the file's name when None.
        labels: the labels in order; read from the table when empty.
        group_column: what must not straddle a split, e.g. "patient_id".

    Raises:
        MissingGoldError: there is no table.
        RowError: a column is missing.
        TaskError: the column has too many values to be labels.
    """
    name = name or re.sub(r"\W+", "_", path.name.split(".")[0].lower()).strip("_")
    name = name if re.match(r"[a-z]", name) else f"task_{name}".rstrip("_")
    columns: dict[str, Any] = {"text_columns": text_columns, "label_column": label_column, "group_column": group_column}
    task = Task.from_columns(name, labels=labels or _NO_LABELS[kind], kind=kind, access=access, **columns)
    values: set[str] = set()
    judged = False
    for file in all_files(find_files(_with_files(task), path)):
        for number, row in read_table(file):
            for column in (*task.text_columns, label_column, *([group_column] if group_column else [])):
                pick_column(file, row, column)
            judged |= kind == "multi_label" and JUDGED in row
            if kind == "text2text" or labels:
                break  # only the columns are needed
            values.update(_labels_of(file, number, row, label_column, kind))
            if judged and row.get(JUDGED) is not None:  # a judged label may be present in no row
                values.update(_labels_of(file, number, row, JUDGED, kind))
            if len(values) > _MOST_LABELS:
                raise TaskError(
                    f"column {label_column!r} of {file.name} has more than {_MOST_LABELS} different values: list the "
                    "labels with --labels, or use --kind text2text if it holds texts"
                )
    task = replace(task, partly_judged=judged)
    return task if kind == "text2text" or labels else replace(task, labels=tuple(sorted(values)))


def _labels_of(file: File, number: int, row: Mapping[str, Any], column: str, kind: Kind) -> list[str]:
    """Return the labels of a row as text; a whole number loses its ".0".

    Raises:
        RowError: one is empty, too long, or no text or whole number.
    """
    labels = []
    for value in split_labels(row[column]) if kind == "multi_label" else [row[column]]:
        plain = int(value) if isinstance(value, float) and value.is_integer() else value
        text = str(plain).strip() if isinstance(plain, str | int) and not isinstance(plain, bool) else ""
        if not text or len(text) > _LONGEST_LABEL:
            raise RowError(
                file.name, number, f"column {column!r} is empty or holds no label; fill it or remove the row"
            )
        labels.append(text)
    return labels
