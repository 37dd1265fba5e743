"""Define a task by the columns of the user's own table, without a script.

    hf-synth gold notes.csv --text-column note --label-column urgency --out work/gold

The labels are the values of the label column, whatever their spelling (`spelling.py`); the rows go through the same
builder as those of any other task. The exported folder carries the task, so that later verbs take the folder in place
of a name. A table's own columns `id`, `split`, `group` and `access` are used as what they are named, or reported. A
multi_label table may have a column `judged` with the labels that were judged in a row, where not all were.
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from hf_synth.errors import GoldError, TaskError, did_you_mean
from hf_synth.gold.builder import GoldBuilder, Parts, as_table, file_names
from hf_synth.gold.faults import Batch, Faults
from hf_synth.gold.readers import File
from hf_synth.gold.sources import ROWS, WHOLE, SourceFile, all_files, as_source, find_files
from hf_synth.gold.spelling import Ids, LabelNames, Patients, cell_text, label_problem, split_labels
from hf_synth.gold.survey import Survey, needed_columns, usable_rows
from hf_synth.gold.tables import check_needed, read_batches
from hf_synth.task.access import MOST_TASKS, known_accesses
from hf_synth.task.columns import JUDGED, Access, Kind, strictest
from hf_synth.task.folders import parquet_access, recorded_access
from hf_synth.task.task import TABLES, Task

if TYPE_CHECKING:
    import pyarrow as pa

_FEW_ROWS, _TEXT_SHARE = 10, 0.5  # a column with more different values than this share of its rows holds texts
_NO_LABELS: Mapping[str, tuple[str, ...]] = {  # placeholders until the table is read
    "single_label": ("?", "??"),
    "multi_label": ("?", "??"),
    "text2text": (),
}
SPLIT_WORDS = {  # how a column `split` names the splits
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "development": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_LOG = logging.getLogger(__name__)


# --- the builder ----------------------------------------------------------------------------------------------------
@dataclass
class ColumnsConfig(datasets.BuilderConfig):  # type: ignore[misc]  # datasets is untyped
    """Options of a task made from columns.

    Args:
        skip_empty: leave out rows whose text or label is empty, instead of refusing the table.
    """

    skip_empty: bool = False


def columns_builder(task: Task) -> type[GoldBuilder]:
    """Return the builder of a task made from columns: train / validation / test tables in a folder, or one table."""

    class Columns(GoldBuilder):
        """Read a user's own tables."""

        TASKS = {task.config: _with_files(task)}  # noqa: RUF012
        BUILDER_CONFIG_CLASS = ColumnsConfig

        def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
            self.patients = Patients()  # of all splits
            splits = None
            if set(self.files) == {WHOLE}:
                splits = own_splits(task, self.files[WHOLE][ROWS][0])
            if splits is None:
                return super()._split_generators(dl_manager)
            files = dict(self.files[WHOLE])
            return [datasets.SplitGenerator(s, gen_kwargs={"split": s, "files": files}) for s in splits]

        def tables(self, split: str, files: Parts) -> Iterator[pa.Table]:
            """Yield the rows of a table."""
            file = files[ROWS][0]
            only = split if set(self.files) == {WHOLE} and split != WHOLE else None
            rows = _Rows(task, split, self.patients)
            try:
                yield from rows.tables(file, only=only, skip_empty=self.config.skip_empty)
            except UnicodeEncodeError:
                raise GoldError(
                    f"split {split!r} ({file_names(files)}) holds half of a character (a lone surrogate); remove it"
                ) from None
            for why, count in rows.left_out.items():
                self.left_out[why] += count
                self.left_out_of.setdefault(why, {})[file.name] = None

    return Columns


def _with_files(task: Task) -> Task:
    return task if task.files else replace(task, files=TABLES, optional_files=("validation", "test"))


class _Rows:
    """Rows of a user's table in the task's columns."""

    def __init__(self, task: Task, split: str, patients: Patients) -> None:
        self._task, self._patients = task, patients
        self._names = LabelNames(task.labels)
        self._ids = Ids(split)
        self._tasks: dict[str, list[Access]] = {}
        self.left_out: Counter[str] = Counter()

    def tables(self, file: File, *, only: str | None, skip_empty: bool) -> Iterator[pa.Table]:
        """Yield the rows as Arrow tables; the wrong rows are reported together at the end.

        Args:
            only: the split whose rows are read, of a table with a column `split`.
        """
        task, faults = self._task, Faults(as_source(file).name)
        features = task.gold_features()
        access = strictest(task.access, *filter(None, _recorded_access(as_source(file))))
        has_ids, first = False, True
        for batch in read_batches(file, faults, needed=needed_columns(task)):
            if first:  # later rows of JSONL may lack what is empty in them
                check_needed(file, batch, needed_columns(task))
                first = False
            if only is not None:
                batch = _of_split(batch, only)
            has_ids |= "id" in batch.columns and task.group_column != "id"
            places, labels = usable_rows(task, batch, faults, self._find, self.left_out if skip_empty else None)
            if not places:
                continue
            numbers = [batch.numbers[i] for i in places]
            ids = [f"{self._ids.start}-{n}" for n in numbers]
            own_ids = _at(batch.column("id"), places)
            if has_ids:
                ids = [self._ids.new(v, n) for v, n in zip(own_ids, numbers, strict=True)]
            groups = [self._patients.name(value) for value in _at(batch.column(task.group_column or "group"), places)]
            if has_ids and task.group_column is None and "group" not in batch.columns:
                groups = [cell_text(value) for value in own_ids]  # rows of one id stay in one split
            columns: dict[str, list[Any]] = {"id": ids}
            columns["group"] = [id if group is None else group for id, group in zip(ids, groups, strict=True)]
            columns |= {c: _at(batch.column(c), places) for c in task.text_columns}
            columns[task.label_column] = labels
            if task.partly_judged:
                columns[JUDGED] = self._judged(batch, places, labels, faults)
            for name, value in (("source", "gold"), ("task", task.full_name), ("task_version", task.version)):
                columns[name] = [value] * len(places)
            columns["access"] = self._accesses(batch, places, access)
            yield as_table(columns, features)
        faults.check()

    def _find(self, value: Any, number: int, text: str) -> tuple[str | None, str]:
        found = self._names.find(value)
        return found, "" if found is not None else label_problem(self._names, self._task.label_column, value, text)

    def _judged(self, batch: Batch, places: list[int], labels: list[Any], faults: Faults) -> list[list[str] | None]:
        """Return the judged labels of rows; None, for all of them, where the cell is null or missing.

        An empty cell means that none was judged.
        """
        judged: list[list[str] | None] = []
        for place, cell, present in zip(places, _at(batch.column(JUDGED), places), labels, strict=True):
            if cell is None:
                judged.append(None)
                continue
            found = [self._names.find(value) for value in split_labels(cell)]
            if None in found:
                faults.add(batch.numbers[place], label_problem(self._names, JUDGED, "?", ""))
            elif missing := set(present) - set(found):
                faults.add(
                    batch.numbers[place], f"has {len(missing)} labels that column {JUDGED!r} does not name; add them"
                )
            judged.append([name for name in dict.fromkeys(found) if name is not None])
        return judged

    def _accesses(self, batch: Batch, places: list[int], access: Access) -> list[Access]:
        own = _at(batch.column("access"), places) if "access" in batch.columns else None
        known: dict[tuple[str, Any], Access] = {}
        accesses = []
        for i, name in enumerate(_at(batch.column("task"), places)):
            key = (str(name), own[i] if own and isinstance(own[i], str) else None)
            if key not in known:
                if key[0] not in self._tasks and len(self._tasks) < MOST_TASKS:
                    self._tasks[key[0]] = known_accesses(self._task, [key[0]])
                stated = [] if own is None else [key[1]]
                known[key] = strictest(access, *self._tasks.get(key[0], []), *stated)
            accesses.append(known[key])
        return accesses


def _at(values: Sequence[Any], places: list[int]) -> list[Any]:
    return list(values) if len(places) == len(values) else [values[i] for i in places]


def _recorded_access(file: SourceFile) -> list[Access | None]:
    """Return what a table, and the folder that it or its archive lies in, record of its access."""
    found = [recorded_access(file.path)]
    if file.member is not None and file.suffix == ".parquet":
        with file.open() as stream:
            found.append(parquet_access(io.BytesIO(stream.read()), file.name))
    return found


# --- columns of the user's own --------------------------------------------------------------------------------------
def own_splits(task: Task, file: File) -> list[str] | None:
    """Return the splits that a column `split` names; None where the table has none, or it names other things.

    Raises:
        RowError: some rows name a split and others do not.
    """
    if "split" in needed_columns(task):
        return None
    faults, named = Faults(as_source(file).name), Counter[str]()
    empty: list[int] = []
    for batch in read_batches(file, Faults(as_source(file).name), needed=()):
        if "split" not in batch.columns and not named:
            return None  # a column of the first rows
        for number, value in zip(batch.numbers, batch.column("split"), strict=True):
            text = cell_text(value)
            named[str(text).casefold()] += text is not None
            if text is None:
                empty.append(number)
    words = {word for word, count in named.items() if count}
    splits: list[str] = [s for s in ("train", "validation", "test") if s in {SPLIT_WORDS.get(word) for word in words}]
    if not words <= set(SPLIT_WORDS) or len(splits) < 2 or "train" not in splits:
        if words:
            why = "is the same in all rows" if len(words) == 1 else "names other things than train, validation and test"
            _LOG.warning("%s: column 'split' %s: it is not used, the rows are split by group", faults.file, why)
        return None
    for number in empty:
        faults.add(number, "column 'split' is empty; name train, validation or test")
    faults.check()
    _LOG.warning("%s: the splits are those of its column 'split'; rename it to have the rows split anew", faults.file)
    return splits


def _of_split(batch: Batch, split: str) -> Batch:
    named = batch.column("split")
    places = [i for i, value in enumerate(named) if SPLIT_WORDS.get(str(cell_text(value)).casefold()) == split]
    columns = {name: _at(values, places) for name, values in batch.columns.items()}
    return Batch([batch.numbers[i] for i in places], columns)


# --- the task -------------------------------------------------------------------------------------------------------
def task_from_table(
    path: Path,
    *,
    text_columns: Sequence[str],
    label_column: str,
    name: str | None = None,
    kind: Kind = "single_label",
    labels: Sequence[str] = (),
    meanings: Mapping[str, str] | None = None,
    access: Access = "restricted",
    group_column: str | None = None,
    skip_empty: bool = False,
) -> Task:
    """Define a task by a table: its labels are the values of the label column, sorted.

    All rows are read, and all that is wrong with them is in one error. Spellings that are taken for one label, rare
    labels that look like another, and columns `id`, `split`, `group` and `access` are reported as warnings.

    Args:
        path: a table, or a folder or archive with train, validation and test tables.
        name: of the task, in small letters, with "_" for what is no letter or digit; the file's name when None.
        labels: the labels in order; read from the table when empty.
        meanings: what labels mean, by label; the LLM is told.
        group_column: what must not straddle a split, e.g. "patient_id".
        skip_empty: rows without text or label are left out (`load_gold(..., skip_empty=True)`), not wrong.

    Raises:
        MissingGoldError: there is no table.
        RowError: a column is missing, or rows are wrong.
        TaskError: the column has too many values to be labels, or a meaning is of another label.
    """
    name = re.sub(r"[^a-z0-9_]+", "_", (name or path.name.split(".")[0]).lower()).strip("_")
    name = name if re.match(r"[a-z]", name) else f"task_{name}".rstrip("_")
    columns: dict[str, Any] = {"text_columns": text_columns, "label_column": label_column, "group_column": group_column}
    task = Task.from_columns(name, labels=labels or _NO_LABELS[kind], kind=kind, access=access, **columns)
    survey = Survey(task, LabelNames(labels) if labels else None)
    files = find_files(_with_files(task), path)
    for file in all_files(files):
        survey.read(file, skip_empty, WHOLE in files)
    survey.report_labels(kind)
    task = replace(task, partly_judged=survey.judged)
    if kind != "text2text" and not labels:
        task = replace(task, labels=_labels_found(survey, path, label_column))
    return replace(task, label_meanings=_meanings(task, meanings or {}))


def _labels_found(survey: Survey, path: Path, column: str) -> tuple[str, ...]:
    names = survey.spelled.names()
    if len(names) > max(_FEW_ROWS, _TEXT_SHARE * survey.rows):
        raise TaskError(
            f"column {column!r} of {path.name} has {len(names)} different values in {survey.rows} rows: is it "
            "the text? List the labels with --labels, or use --kind text2text if it holds texts"
        )
    if len(names) < 2:
        found = f"has one label in all of its {survey.rows:,} rows" if names else "has no row with a label"
        raise TaskError(f"column {column!r} of {path.name} {found}; a task needs at least two labels")
    return tuple(names)


def _meanings(task: Task, meanings: Mapping[str, str]) -> tuple[str, ...]:
    """Return the meanings in the order of the labels; empty where none was named."""
    names = LabelNames(task.labels)
    found = {names.find(label): meaning for label, meaning in meanings.items()}
    if None in found:
        label, known = next(label for label in meanings if names.find(label) is None), ", ".join(task.labels)
        raise TaskError(
            f"task {task.name!r}: a meaning is given for {label!r}, which is no label of it; it has "
            f"{known or 'no labels'}{did_you_mean(label, task.labels)}"
        )
    return tuple(found.get(label, "") for label in task.labels) if found else ()
