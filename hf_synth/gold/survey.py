"""Read a user's table once before it becomes a task: its labels, all that is wrong with its rows, what is doubtful."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_synth.errors import TaskError, line_of
from hf_synth.gold.faults import Batch, Faults
from hf_synth.gold.readers import File
from hf_synth.gold.sources import as_source
from hf_synth.gold.spelling import (
    LONGEST_LABEL,
    Ids,
    LabelNames,
    Patients,
    Spellings,
    cell_text,
    label_problem,
    split_labels,
)
from hf_synth.gold.tables import check_needed, is_missing, read_batches
from hf_synth.task.columns import ACCESSES, JUDGED, Kind
from hf_synth.task.task import Task

_MOST_LABELS = 100  # different values of a label column
_LOG = logging.getLogger(__name__)


# --- the rows of a batch --------------------------------------------------------------------------------------------
Find = Callable[[Any, int, str], tuple[Any, str]]  # (value, row number, text) -> (label, or None; what is wrong)


def needed_columns(task: Task) -> list[str]:
    """Return the names of the columns that a task is read from."""
    return [*task.text_columns, task.label_column, *([task.group_column] if task.group_column else [])]


def usable_rows(
    task: Task, batch: Batch, faults: Faults, find: Find, left_out: Counter[str] | None
) -> tuple[list[int], list[Any]]:
    """Return the places of the rows with texts and a label, and their labels; other rows become faults.

    Args:
        find: finds the label of a cell.
        left_out: counts rows that are left out since their text or label is empty; None makes them faults.
    """
    texts = [batch.column(c) for c in task.text_columns]
    values = batch.column(task.label_column)
    wrong = _text_faults(task, texts)
    places: list[int] = []
    labels: list[Any] = []
    for i, value in enumerate(values):
        problem, empty = wrong.get(i, ("", False))
        label: Any = None
        if not problem:
            label, problem, empty = _label_of(task, value, batch.numbers[i], find, texts[0][i])
        if not problem:
            places.append(i)
            labels.append(label)
        elif empty and left_out is not None:
            left_out[f"have no {'text' if i in wrong else 'label'}"] += 1
        else:
            faults.add(batch.numbers[i], problem, empty=empty)
    return places, labels


def _text_faults(task: Task, texts: Sequence[Sequence[Any]]) -> dict[int, tuple[str, bool]]:
    """Return what is wrong with the texts of a batch, by place, and whether they are empty."""
    wrong: dict[int, tuple[str, bool]] = {}
    for column, values in zip(task.text_columns, texts, strict=True):
        for i, value in enumerate(values):
            if not isinstance(value, str):
                empty = is_missing(value)
                wrong.setdefault(
                    i, (f"column {column!r} is empty" if empty else f"column {column!r} is no text", empty)
                )
            elif not value or value.isspace():
                wrong.setdefault(i, (f"column {column!r} is empty", True))
    return wrong


def _label_of(task: Task, value: Any, number: int, find: Find, text: str) -> tuple[Any, str, bool]:
    """Return the label of a cell, what is wrong with it, and whether it is empty."""
    column = task.label_column
    if task.kind == "multi_label":
        found = [find(v, number, text) for v in split_labels(value)]
        problem = next((problem for _, problem in found if problem), "")
        return list(dict.fromkeys(label for label, _ in found)), problem, False
    if is_missing(value) or _is_invisible(value):
        return None, f"column {column!r} is empty", True
    if task.kind == "text2text":
        return value, "" if isinstance(value, str) else f"column {column!r} is no text", False
    return *find(value, number, text), False


def _is_invisible(value: Any) -> bool:
    """Return whether a cell holds invisible characters alone."""
    return isinstance(value, str) and not value.isascii() and len(value) <= LONGEST_LABEL and cell_text(value) is None


# --- a table as a whole ---------------------------------------------------------------------------------------------
class Survey:
    """What the tables of a task hold: their labels, and all that is wrong or doubtful."""

    def __init__(self, task: Task, names: LabelNames | None) -> None:
        self._task, self._names = task, names
        self.spelled, self.patients = Spellings(), Patients()
        self.rows, self.judged = 0, False
        self._file, self._files = "", 0
        self.left_out: Counter[str] = Counter()

    def read(self, file: File, skip_empty: bool, whole: bool) -> None:
        """Read one table.

        Raises:
            RowError: rows are wrong; all of them are reported together.
            TaskError: the label column has too many values to be labels.
        """
        task, name = self._task, as_source(file).name
        self._file, self._files = name, self._files + 1
        faults, ids, groups, accesses = Faults(name), Ids("row"), Patients(), Counter[str]()
        columns: dict[str, None] = {}
        others = 0
        for batch in read_batches(file, faults, needed=needed_columns(task)):
            if not columns:  # later rows of JSONL may lack what is empty in them
                check_needed(file, batch, needed_columns(task))
            columns |= dict.fromkeys(batch.columns)
            places, _ = usable_rows(task, batch, faults, self._count, self.left_out if skip_empty else None)
            self.rows += len(places)
            if JUDGED in batch.columns and task.kind == "multi_label":
                self.judged = True
                for i in places:  # a judged label may be present in no row
                    if batch.columns[JUDGED][i] is not None:
                        for value in split_labels(batch.columns[JUDGED][i]):
                            self._count(value, batch.numbers[i], "")
            for i in places if "id" in batch.columns and task.group_column != "id" else ():
                ids.new(batch.columns["id"][i], batch.numbers[i])
            for value in batch.columns.get(task.group_column or "group", ()):
                self.patients.name(value)
                groups.name(value)
            if "access" in batch.columns:
                accesses.update({str(value) for value in batch.columns["access"]})
            others += sum(value is not None for value in batch.column("split")) if not whole else 0
            self._check_number(name)
        faults.check()
        self._report(name, columns, ids, groups, accesses, others)

    def _count(self, value: Any, number: int, text: str) -> tuple[Any, str]:
        column = self._task.label_column
        if self._names is not None:
            found = self._names.find(value)
            return found, "" if found else label_problem(self._names, column, value, text)
        if self.spelled.add(value, number, self._file):
            return value, ""
        if not isinstance(value, str):
            return None, f"column {column!r} holds no label"
        return (
            None,
            f"column {column!r} holds more than {LONGEST_LABEL} characters: a text, no label (--kind text2text)",
        )

    def _check_number(self, name: str) -> None:
        if len(self.spelled.rows) > _MOST_LABELS:
            raise TaskError(
                f"column {self._task.label_column!r} of {name} has more than {_MOST_LABELS} different values: list the "
                "labels with --labels, or use --kind text2text if it holds texts"
            )

    def _report(
        self, name: str, columns: Mapping[str, None], ids: Ids, groups: Patients, accesses: Counter[str], others: int
    ) -> None:
        """Log how the table's own columns are used."""
        task = self._task
        if ids.repeated:
            _LOG.warning(
                "%s: column 'id' repeats in %s rows: rows with one id stay in one split, their row number is added; "
                "if it names the patient, say --group-column id", name, f"{ids.repeated:,}",
            )  # fmt: skip
        if task.group_column is None and "group" in columns and len(groups):
            _LOG.warning(
                "%s: column 'group' is taken as the patient (%s groups); if it is something else, rename it, or name "
                "the patient with --group-column", name, f"{len(groups):,}",
            )  # fmt: skip
        if unknown := sum(value not in ACCESSES for value in accesses):
            _LOG.warning(
                "%s: column 'access' holds %d values that are none of %s: their rows count as credentialed; rename the "
                "column if it is something else", name, unknown, ", ".join(ACCESSES),
            )  # fmt: skip
        if others:
            _LOG.warning("%s: column 'split' is not used: the file is a split by its name", name)

    def report_labels(self, kind: Kind) -> None:
        """Log which spellings are one label or patient, and which labels are doubtful."""
        for line in self.spelled.merged() if kind != "text2text" else ():
            _LOG.warning("labels: %s", line)
        for label, (file, number), why in self.spelled.doubtful():
            word, at = line_of(file, number)
            where = f"{word} {at}{f' of {file}' if self._files > 1 else ''}"
            _LOG.warning("label %r (first in %s) %s: correct the table if it is wrong", label, where, why)
        column = self._task.group_column or "group"
        if count := len(self.patients.respelled):
            _LOG.warning(
                "column %r: %s patients are spelled in several ways; each is one patient", column, f"{count:,}"
            )
        if self.patients.nobody:
            words = ", ".join(
                f"{repr(w) if w else 'empty cells'} ({n:,})" for w, n in self.patients.nobody.most_common(4)
            )
            _LOG.warning("column %r: %s name no patient; these rows stand alone", column, words)
