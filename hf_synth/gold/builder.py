"""`GoldBuilder`, the base class of every task's dataset builder (`datasets.ArrowBasedBuilder`).

A task's script turns the files of one split into rows, or into tables of many rows; everything else is here: finding
the files in a folder or archive, features, a cache beside the files that is never stale, a check of ids, and notes on
the rows left out. One class for all scripts is the one place where we inherit from a class of Hugging Face.

The notes are lines of `DatasetInfo.description`, so that they stay with the cache and with each Dataset that is made
from it (`task.folders.notes_of`).
"""

from __future__ import annotations

import inspect
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError
from datasets.iterable_dataset import ExamplesIterable

from hf_synth.errors import GoldError, HfSynthError, MissingGoldError, OutputError, RowError
from hf_synth.gold import archives, json_values, markup, readers, sheets, sources, spelling, survey, tables
from hf_synth.gold.sources import WHOLE, Files, SourceFile, all_files, digest_files, find_files
from hf_synth.task.folders import cache_folder, notes_of, with_notes
from hf_synth.task.task import Task

Parts = Mapping[str, tuple[SourceFile, ...]]  # the files of one split, by part

_ROWS, _CHARACTERS = 1_000, 4_000_000  # of one table, whichever is reached first
_LOG = logging.getLogger(__name__)
_NO_TASKS: Mapping[str, Task] = MappingProxyType({})


class GoldBuilder(datasets.ArrowBasedBuilder):  # type: ignore[misc]  # datasets is untyped
    """Read the files of a task from the user's folder, file or archive.

    A subclass sets `TASKS` and implements `rows`, or `tables` where it has columns of many rows at hand. It is used by
    `load_gold`, and as any builder of `datasets`: `Mednli(data_dir="/secure/mednli").as_streaming_dataset()`. The cache
    lies in `<data_dir>/.hf_synth`, or in `cache_dir`.

    Attributes:
        TASKS: the tasks of the script by config.
        NEEDS_FILES: False where rows are made without files.
        IDS_BY_PLACE: whether ids are unique by construction, so that millions of them need not be compared.
    """

    TASKS: ClassVar[Mapping[str, Task]] = _NO_TASKS
    NEEDS_FILES: ClassVar[bool] = True
    IDS_BY_PLACE: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.BUILDER_CONFIGS = [
            cls.BUILDER_CONFIG_CLASS(name=c, version=t.version, description=t.description) for c, t in cls.TASKS.items()
        ]
        cls.DEFAULT_CONFIG_NAME = next(iter(cls.TASKS), None)

    def __init__(self, cache_dir: str | None = None, *, data_dir: str | None = None, **more: Any) -> None:
        # datasets guesses data_files from the folder, and takes the hash from its registration; both are set here
        more = {k: v for k, v in more.items() if k not in ("data_files", "hash", "dataset_name")}
        name = more.get("config_name") or next(iter(self.TASKS))
        if name not in self.TASKS:
            raise ValueError(f"BuilderConfig {name!r} not found. Available: {list(self.TASKS)}")
        task = self.TASKS[name]
        self.files: Files = {}
        if self.NEEDS_FILES:
            if data_dir is None:
                source = f"; get them at {task.source_url}" if task.source_url else ""
                names = ", ".join(n[0] for n in task.files.values())
                raise MissingGoldError(f"task {task.full_name!r} needs the folder of its files: {names}{source}")
            self.files = find_files(task, Path(data_dir))
            cache_dir = cache_dir or (str(c) if (c := cache_folder(Path(data_dir))) else None)
        self._mark_as_local()
        self._uncacheable = self.NEEDS_FILES and cache_dir is None
        super().__init__(cache_dir=cache_dir, hash=self._digest(task), **more)
        self.left_out: Counter[str] = Counter()
        self.left_out_of: dict[str, dict[str, None]] = {}
        self._noted = False

    def _mark_as_local(self) -> None:
        """Mark the modules of the class as ready for streaming, since they read local files or none.

        Otherwise datasets replaces `open` and `Path` in them by those for remote files, and imports scipy to do so.
        """
        for kind in type(self).__mro__:
            if issubclass(kind, GoldBuilder):
                vars(sys.modules[kind.__module__]).setdefault("_patched_for_streaming", True)

    def _digest(self, task: Task) -> str:
        """Return the name of the cache, from all that decides its rows: the task, the reading code, the files."""
        fields = [task.fingerprint(), task.access, task.group_column, {k: list(v) for k, v in task.files.items()}]
        reading = (archives, json_values, markup, readers, sheets, sources, spelling, survey, tables)
        code = [inspect.getsourcefile(part) for part in (type(self), *reading, GoldBuilder)]
        return digest_files(json.dumps(fields), *(Path(c) for c in code if c), *all_files(self.files))[:32]

    def download_and_prepare(self, output_dir: str | None = None, *args: Any, **more: Any) -> None:
        """Write the rows to the cache in the data folder.

        Raises:
            OutputError: the data folder cannot be written, and no `cache_dir` was given.
            GoldError: a file or a row is wrong; names it.
        """
        if self._uncacheable and output_dir is None:
            raise OutputError(
                "the data folder cannot be written, and notes are cached nowhere else: pass cache_dir=..., or use "
                "load_gold, which then holds the rows in memory"
            )
        self._noted = False
        try:
            super().download_and_prepare(output_dir, *args, **more)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, HfSynthError):
                raise error.__cause__ from None
            raise
        for note in () if self._noted else notes_of(self):  # the cache was used: what was said then is said again
            _LOG.warning("%s", note)

    @property
    def task(self) -> Task:
        """The task of this builder's config."""
        return self.TASKS[self.config.name]

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Yield the rows of one split, each made by `task.gold_row`.

        Args:
            files: the split's files by part; a split with one file has the part "rows".

        Raises:
            RowError: a row or a file is malformed.
        """
        raise NotImplementedError

    def leave_out(self, file: SourceFile, why: str) -> None:
        """Count a row that the source leaves without a label or text; the count is logged at the split's end.

        Args:
            why: completes "rows left out, since they ...".
        """
        self.left_out[why] += 1
        self.left_out_of.setdefault(why, {})[file.name] = None

    def _info(self) -> datasets.DatasetInfo:
        task = self.task
        terms = {"license": task.license, "citation": task.citation, "homepage": task.source_url}
        return datasets.DatasetInfo(description=task.description, features=task.gold_features(), **terms)

    def unusable(self, split: str, files: Parts) -> str:
        """Return why an optional split cannot be used, such as a test file without labels; "" where it can.

        Args:
            files: as for `rows`.
        """
        return ""

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        generators = []
        for split, files in self.files.items():
            why = self.unusable(split, files) if split in self.task.optional_files else ""
            if why:
                self._keep_notes([f"split {split} left out: {why}"], say=True)
            else:
                generators.append(datasets.SplitGenerator(split, gen_kwargs={"split": split, "files": dict(files)}))
        return generators

    def tables(self, split: str, files: Parts) -> Iterator[pa.Table]:
        """Yield the rows of one split as tables with the columns and types of `task.gold_features()`.

        This makes them from `rows`. A subclass that has columns at hand yields them itself, which is faster.

        Args:
            files: as for `rows`.

        Raises:
            RowError: a row or a file is malformed.
        """
        features = self.task.gold_features()
        rows: list[dict[str, Any]] = []
        ids: set[int] = set()
        characters = 0
        for row in self.rows(split, files):
            try:
                self._check_id(split, row["id"], ids)
                characters += sum(len(v.encode()) for v in row.values() if isinstance(v, str))
            except UnicodeEncodeError:
                raise _row_error(split, "holds half of a character (a lone surrogate); remove it, or the row") from None
            rows.append(row)
            if len(rows) == _ROWS or characters > _CHARACTERS:
                yield as_table(_columns(features, rows), features)
                rows, characters = [], 0
        if rows:
            yield as_table(_columns(features, rows), features)

    def _generate_tables(self, split: str, files: Parts) -> Iterator[tuple[int, pa.Table]]:
        yield from enumerate(self._checked(split, files))

    def _get_examples_iterable_for_split(self, split_generator: Any) -> Any:
        """Return what a stream reads: rows with the features' types, so that `datasets` does not cast them again."""
        return _TypedRows(self._stream, split_generator.gen_kwargs, self.task.gold_features())

    def _stream(self, split: str, files: Parts) -> Iterator[tuple[str, dict[str, Any]]]:
        for table in self._checked(split, files):
            columns = table.to_pydict()
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                yield row["id"], row

    def _checked(self, split: str, files: Parts) -> Iterator[pa.Table]:
        """Yield the tables; any failure of a script becomes an error of one sentence, without text of a row."""
        ids: set[int] = set()
        self.left_out.clear()
        self.left_out_of.clear()
        readers.forget_place()
        count = 0
        try:
            for table in self.tables(split, files):
                if type(self).tables is not GoldBuilder.tables and not self.IDS_BY_PLACE:
                    for id in table["id"].to_pylist():
                        self._check_id(split, id, ids)
                count += len(table)
                yield table
        except HfSynthError:
            raise
        except UnicodeEncodeError:
            raise GoldError(
                f"split {split!r}: a text {_where()} holds half of a character (a lone surrogate); remove it"
            ) from None
        except Exception as error:
            raise GoldError(
                f"split {split!r}: the task's script failed {_where()} ({type(error).__name__}); check that the files "
                "have the layout that it expects"
            ) from None
        self._note(split, files, count)

    def _check_id(self, split: str, id: str, ids: set[int]) -> None:
        """Raise where an earlier row of the split has this id; add it to those seen."""
        if self.IDS_BY_PLACE:
            return
        mark = int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "big")
        if mark in ids:
            raise _row_error(split, "has the id of an earlier row; ids must differ")
        ids.add(mark)

    def _note(self, split: str, files: Parts, count: int) -> None:
        """Log what was left out of a split, and keep it with the rows.

        Raises:
            GoldError: no row is left.
        """
        read = [file for part in files.values() for file in part]
        found = [note for file in read if (note := readers.ENCODING_NOTES.get(file))]  # logged when they were read
        for why, left_out in self.left_out.items():
            names = list(self.left_out_of[why])
            where = names[0] if len(names) == 1 else f"{len(names):,} files"
            where += "" if split == WHOLE else f", split {split}"
            found.append(f"{where}: rows left out, since they {why}: {left_out:,}")
            _LOG.warning("%s", found[-1])
        if not count and self.NEEDS_FILES:
            why = "; ".join(f"{n:,} left out, since they {why}" for why, n in self.left_out.items())
            raise GoldError(
                f"{file_names(files)}: split {split!r} of task {self.task.full_name!r} holds no row"
                f"{f' ({why})' if why else '; is it the right file?'}"
            )
        self._keep_notes(found)

    def _keep_notes(self, notes: Sequence[str], *, say: bool = False) -> None:
        """Keep notes with the rows of every split; log those that were not logged yet."""
        self._noted = True
        for note in notes if say else ():
            _LOG.warning("%s", note)
        plain = [" ".join(note.split()) for note in notes]  # one line each, whatever the name of a file holds
        self.info.description = with_notes(self.info.description, plain)


class _TypedRows(ExamplesIterable):  # type: ignore[misc]
    """Rows of a stream that have the types of their features already."""

    def __init__(self, generate: Any, kwargs: dict[str, Any], features: datasets.Features) -> None:
        super().__init__(generate, kwargs)
        self._features = features

    @property
    def is_typed(self) -> bool:
        return True

    @property
    def features(self) -> datasets.Features:
        return self._features


def _where() -> str:
    """Return where the reader of a table stands, for a message."""
    place = readers.place()
    return "before the first row" if place is None else f"at or after {place[0]}, row {place[1]:,}"


def _row_error(split: str, problem: str) -> GoldError:
    """Return the error of the row that was read last, with the name of its file where a reader knows it."""
    place = readers.place()
    return GoldError(f"split {split!r}: a row {problem}") if place is None else RowError(*place, problem)


def file_names(files: Parts) -> str:
    """Return the names of a split's files for a message: the first one, and how many more there are."""
    names = [file.name for part in files.values() for file in part]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more files" if names else "no file"


def _columns(features: datasets.Features, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows by column.

    Raises:
        KeyError: a row lacks a column, or has one more.
    """
    names = set(features)
    if any(row.keys() != names for row in rows):
        raise KeyError("a row has other columns than the task")
    return {name: [row[name] for row in rows] for name in features}


def as_table(columns: Mapping[str, Any], features: datasets.Features) -> pa.Table:
    """Return columns as an Arrow table with these features; a label may be its name or its number.

    Args:
        columns: lists, or Arrow columns of texts.

    Raises:
        GoldError: a label is none of the features'.
    """
    schema = features.arrow_schema
    try:
        encoded = {name: _encoded(feature, columns[name]) for name, feature in features.items()}
    except (ValueError, TypeError):
        raise GoldError(f"a label is none of the task's {_where()}") from None
    return pa.Table.from_pydict(encoded, schema=schema)


def _encoded(feature: Any, values: Any) -> Any:
    """Return values as they are stored: texts, numbers of labels, lists of these."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(feature, datasets.ClassLabel):
        number = {value: feature.encode_example(value) for value in {*values} - {None}}
        return [None if value is None else number[value] for value in values]
    if isinstance(feature, datasets.List):
        return [None if value is None else _encoded(feature.feature, value) for value in values]
    if getattr(feature, "dtype", "") == "string":
        return [value if value is None or isinstance(value, str) else str(value) for value in values]
    return values
