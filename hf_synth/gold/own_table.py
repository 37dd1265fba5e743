"""A task of one's own without a script: two columns of a table are enough.

    hf-synth gold notes.csv --text-column note --label-column urgency --out work/gold

The labels are read from the table, the rows through the same builder as any other task's. The exported folder carries
the task, so that every later verb takes the folder for it. A table of sets of labels may have a column `judged`: the
labels that somebody judged in a row, where that was not all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_synth.errors import RowError, TaskError
from hf_synth.gold.builder import GoldBuilder, Parts
from hf_synth.gold.readers import File, label_field, pick_column, read_table, text_field
from hf_synth.gold.sources import ROWS, all_files, find_files
from hf_synth.task.columns import JUDGED, Access, Kind, strictest
from hf_synth.task.task import TABLES, Task

_MOST_LABELS = 100  # different values that a column of labels may have
_LONGEST_LABEL = 100  # characters


def columns_builder(task: Task) -> type[GoldBuilder]:
    """Give the builder of a task made from columns: train / validation / test tables in a folder, or one table."""

    class Columns(GoldBuilder):
        """Read a user's own tables."""

        TASKS = {task.config: _with_files(task)}  # noqa: RUF012

        def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
            return table_rows(task, split, files[ROWS][0])

    return Columns


def _with_files(task: Task) -> Task:
    return task if task.files else replace(task, files=TABLES, optional_files=("validation", "test"))


def table_rows(task: Task, split: str, file: File) -> Iterator[dict[str, Any]]:
    """Read the rows of a table whose columns have the task's own names.

    Raises:
        RowError: a column is missing, or a text or label is.
    """
    names = {n: n for n in task.labels}
    for number, row in read_table(file):
        for column in (*task.text_columns, task.label_column):
            pick_column(file, row, column)
        texts = [text_field(file, number, row, c) for c in task.text_columns]
        if task.kind == "text2text":
            label: Any = text_field(file, number, row, task.label_column)
        elif task.kind == "multi_label":
            said = split_labels(row[task.label_column])
            label = [label_field(file, number, {task.label_column: one}, task.label_column, names) for one in said]
        else:
            label = label_field(file, number, row, task.label_column, names)
        id = str(row["id"]) if row.get("id") not in (None, "") else f"{split}-{number}"
        group = row.get(task.group_column) if task.group_column else row.get("group")
        made = task.gold_row(id, None if group in (None, "") else str(group), label, *texts)
        if task.partly_judged:
            made[JUDGED] = _judged(file, number, row, label, names)
        yield made | {"access": strictest(task.access, row["access"]) if "access" in row else task.access}


def _judged(
    file: File, number: int, row: Mapping[str, Any], there: Sequence[Any], names: Mapping[str, str]
) -> list[str] | None:
    """Give the labels that somebody judged in a row; None, for all of them, where the cell is null or not there.

    An empty cell says that none was judged.
    """
    if row.get(JUDGED) is None:
        return None
    said = [label_field(file, number, {JUDGED: one}, JUDGED, names) for one in split_labels(row[JUDGED])]
    if missing := set(there) - set(said):
        raise RowError(file.name, number, f"has {len(missing)} labels that column {JUDGED!r} does not name; name them")
    return said


def split_labels(value: Any) -> list[Any]:
    """Give the labels in a cell: a list as it is, a text at its semicolons, bars or commas; an empty cell has none."""
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
    """Make a task from a table: its labels are the values that the label column has, in order.

    Args:
        path: a table, or a folder or archive with train, validation and test tables.
        name: of the task; the file's name when None.
        labels: the labels in the order wanted; none to read them from the table.
        group_column: what must not straddle a split, e.g. "patient_id".

    Raises:
        MissingGoldError: there is no table.
        RowError: a column is missing.
        TaskError: the column has too many values to be labels.
    """
    name = name or re.sub(r"\W+", "_", path.name.split(".")[0].lower()).strip("_")
    name = name if re.match(r"[a-z]", name) else f"task_{name}".rstrip("_")
    task = Task.from_columns(
        name, text_columns=text_columns, label_column=label_column, labels=labels or _NO_LABELS[kind], kind=kind,
        access=access, group_column=group_column,
    )  # fmt: skip
    found: dict[str, None] = {}
    judged = False
    for file in all_files(find_files(_with_files(task), path)):
        for number, row in read_table(file):
            for column in (*task.text_columns, label_column, *([group_column] if group_column else [])):
                pick_column(file, row, column)
            judged |= kind == "multi_label" and JUDGED in row
            if kind == "text2text" or labels:
                break  # only the columns are looked at
            found |= dict.fromkeys(_labels_of(file, number, row, label_column, kind))
            if judged and row.get(JUDGED) is not None:  # a label may be judged and never be there
                found |= dict.fromkeys(_labels_of(file, number, row, JUDGED, kind))
            if len(found) > _MOST_LABELS:
                raise TaskError(
                    f"column {label_column!r} of {file.name} has more than {_MOST_LABELS} different values: name the "
                    "labels with --labels, or say --kind text2text if it holds texts"
                )
    task = replace(task, partly_judged=judged)
    return task if kind == "text2text" or labels else replace(task, labels=tuple(sorted(found)))


_NO_LABELS: Mapping[str, tuple[str, ...]] = {  # until the table was read
    "single_label": ("?", "??"), "multi_label": ("?", "??"), "text2text": (),
}  # fmt: skip


def _labels_of(file: File, number: int, row: Mapping[str, Any], column: str, kind: Kind) -> list[str]:
    values = split_labels(row[column]) if kind == "multi_label" else [row[column]]
    said = []
    for value in values:
        plain = int(value) if isinstance(value, float) and value.is_integer() else value
        text = str(plain).strip() if isinstance(plain, str | int) and not isinstance(plain, bool) else ""
        if not text or len(text) > _LONGEST_LABEL:
            raise RowError(
                file.name, number, f"column {column!r} is empty or holds no label; fill it or remove the row"
            )
        said.append(text)
    return said
