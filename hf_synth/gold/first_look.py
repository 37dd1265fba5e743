"""A first look at a user's whole table, before anything is written: labels, rows of a patient, and what is odd."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_synth.errors import MissingGoldError
from hf_synth.gold.faults import Faults
from hf_synth.gold.overview import Column, is_own_table
from hf_synth.gold.own_table import task_from_table
from hf_synth.gold.sources import WHOLE, all_files, as_source, find_files
from hf_synth.gold.spelling import Patients, spelling_key
from hf_synth.gold.survey import Survey
from hf_synth.gold.tables import TABLE_SUFFIXES, read_batches
from hf_synth.task.columns import Kind, names_shown
from hf_synth.task.task import TABLES, Task

_MOST_WORDS = 4  # of the name of a column
_LOG = logging.getLogger("hf_synth.gold")
_NO_LABELS: dict[str, tuple[str, ...]] = {"text2text": ()}  # of other kinds: placeholders until the table is read


@dataclass(frozen=True)
class FirstLook:
    """What a table holds, as a person should know it before it becomes gold.

    Args:
        task: the task that the table defines.
        labels: rows of each label; empty for a text2text task.
        rows: rows with a text and a label.
        left_out: rows without one, by what they lack.
        patients: number of patients, or 0 where no column names them.
        most_rows: rows of the patient with the most.
        odd: what is odd about the files, the labels and the patients, a sentence each.
        doubtful: labels that may be a misspelling of another, or name nothing.
        splits: names of the splits that the files have; empty for a single table.
    """

    task: Task
    labels: dict[str, int]
    rows: int
    left_out: dict[str, int]
    patients: int
    most_rows: int
    odd: tuple[str, ...]
    doubtful: tuple[str, ...]
    splits: tuple[str, ...]


def find_table(path: Path) -> Path:
    """Return the table that a path means: a table, a folder with train, validation and test tables, or its only table.

    Raises:
        MissingGoldError: there is no table, or several of which none is the one of a split.
    """
    if not path.exists():
        raise MissingGoldError(f"{path} is no file or folder")
    if is_own_table(path) or not path.is_dir():
        if path.is_file() and not is_own_table(path):
            raise MissingGoldError(f"{path.name} is no table: give one of {', '.join(TABLE_SUFFIXES)}")
        return path
    tables = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in TABLE_SUFFIXES)
    if len(tables) == 1:
        return tables[0]
    if not tables:
        raise MissingGoldError(f"{path} holds no table ({', '.join(TABLE_SUFFIXES)}): give the path of one")
    listed = ", ".join(str(p) for p in tables[:5]) + (f" and {len(tables) - 5} more" if len(tables) > 5 else "")
    raise MissingGoldError(
        f"{path} holds several tables: give the path of one ({listed}), or name them train, validation and test"
    )


def first_look(
    path: Path,
    *,
    text_columns: Sequence[str],
    label_column: str,
    group_column: str | None = None,
    kind: Kind = "single_label",
    **more: Any,
) -> FirstLook:
    """Read a whole table as a task would be read from it, and return what is in it.

    Args:
        more: further arguments of `task_from_table`: name, labels, meanings, access.

    Raises:
        RowError: a column is missing, or rows are wrong in another way than being empty.
        TaskError: the column of the label holds no labels.
    """
    columns: dict[str, Any] = {"text_columns": text_columns, "label_column": label_column, "group_column": group_column}
    with warnings_collected() as odd:
        task = task_from_table(path, kind=kind, skip_empty=True, **columns, **more)
    columns |= {"files": TABLES, "optional_files": ("validation", "test")}
    placeholder = Task.from_columns("table", labels=_NO_LABELS.get(kind, ("?", "??")), kind=kind, **columns)
    files = find_files(placeholder, path)
    survey = Survey(placeholder, None)
    with warnings_collected():  # they were collected above
        for file in all_files(files):
            survey.read(file, True, WHOLE in files)
    counted = survey.spelled.counts() if kind != "text2text" else {}
    labels = {label: counted.get(label, 0) for label in task.labels}
    patients = _patients([as_source(file) for file in all_files(files)], group_column)
    doubtful = tuple(label for label, *_ in survey.spelled.doubtful()) if kind != "text2text" else ()
    splits = () if WHOLE in files else tuple(files)
    return FirstLook(
        task, labels, survey.rows, dict(survey.left_out), len(patients), max(patients.values(), default=0),
        tuple(dict.fromkeys(odd)), doubtful, splits,
    )  # fmt: skip


def check_columns_named(path: Path, columns: Sequence[Column]) -> None:
    """Check that a table has rows, and that its first line names the columns and is no row.

    Where `names_shown` is in doubt, the names must be short beside the texts, and none may be a value of its column.

    Raises:
        MissingGoldError: it has no rows, or its first line seems to be one.
    """
    if not any(column.filled for column in columns):
        raise MissingGoldError(f"{path.name} has no rows below its first line")
    if "does its first line name" not in names_shown([c.name for c in columns]):
        return
    longest = max(column.length for column in columns)
    long = any(len(c.name.split()) > _MOST_WORDS or len(c.name) > longest / 2 for c in columns)
    if long or any(spelling_key(c.name) in c.labels or not re.search(r"[^\W\d_]{2}", c.name) for c in columns):
        raise MissingGoldError(
            f"the first line of {path.name} does not seem to name the columns: add a line with their names above it"
        )


def _patients(files: Sequence[Any], column: str | None) -> Counter[str]:
    """Return the rows of each patient; none where no column names them."""
    names, counts = Patients(), Counter[str]()
    for file in files if column else ():
        for batch in read_batches(file, Faults(file.name), needed=()):
            counts.update(name for value in batch.column(str(column)) if (name := names.name(value)) is not None)
    return counts


@contextlib.contextmanager
def warnings_collected() -> Iterator[list[str]]:
    """Collect what is logged while gold is read, instead of printing it."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    collect, before = Collect(logging.INFO), (_LOG.propagate, _LOG.level)
    _LOG.addHandler(collect)
    _LOG.propagate = False
    _LOG.setLevel(logging.INFO)
    try:
        yield said
    finally:
        _LOG.removeHandler(collect)
        _LOG.propagate = before[0]
        _LOG.setLevel(before[1])
