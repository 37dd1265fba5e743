"""`GoldBuilder`, the base class of every task's dataset builder (`datasets.ArrowBasedBuilder`).

A task's script turns the files of one split into rows; everything else is here: finding the files in a folder or
archive, features, a cache beside the files that is never stale, a check of ids, and a log of the rows left out. Rows
reach `datasets` as Arrow tables: it would encode each row by itself otherwise, which takes longer than the reading. One
class for all scripts is the one place where we inherit from a class of Hugging Face.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import datasets

from hf_synth.errors import GoldError, HfSynthError, MissingGoldError, OutputError
from hf_synth.gold import readers, sheets, sources, spelling, survey, tables
from hf_synth.gold.sources import Files, SourceFile, all_files, digest_files, find_files
from hf_synth.task.folders import cache_folder
from hf_synth.task.labels import label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    import pyarrow as pa

Parts = Mapping[str, tuple[SourceFile, ...]]  # the files of one split, by part

_BATCH_ROWS, _BATCH_CHARACTERS = 1_000, 8 << 20  # of a table
_LOG = logging.getLogger(__name__)
_NO_TASKS: Mapping[str, Task] = MappingProxyType({})


class GoldBuilder(datasets.ArrowBasedBuilder):  # type: ignore[misc]  # datasets is untyped
    """Read the files of a task from the user's folder, file or archive.

    A subclass sets `TASKS` and implements `rows`. It is used by `load_gold`, and as any builder of `datasets`:
    `Mednli(data_dir="/secure/mednli").as_streaming_dataset()`. The cache lies in `<data_dir>/.hf_synth`, or in
    `cache_dir`.

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
        self._uncacheable = self.NEEDS_FILES and cache_dir is None
        super().__init__(cache_dir=cache_dir, hash=self._digest(task), **more)
        self.left_out: Counter[str] = Counter()
        self.left_out_of: dict[str, dict[str, None]] = {}

    def _digest(self, task: Task) -> str:
        """Return the name of the cache, from all that decides its rows: the task, the reading code, the files."""
        fields = [task.fingerprint(), task.access, task.group_column, {k: list(v) for k, v in task.files.items()}]
        code = [
            inspect.getsourcefile(m)
            for m in (type(self), readers, tables, sheets, spelling, survey, sources, GoldBuilder)
        ]
        return digest_files(json.dumps(fields), *(Path(c) for c in code if c), *all_files(self.files))[:32]

    def download_and_prepare(self, output_dir: str | None = None, *args: Any, **more: Any) -> None:
        """Write the rows to the cache in the data folder.

        Raises:
            OutputError: the data folder cannot be written, and no `cache_dir` was given.
        """
        if self._uncacheable and output_dir is None:
            raise OutputError(
                "the data folder cannot be written, and notes are cached nowhere else: pass cache_dir=..., or use "
                "load_gold, which then holds the rows in memory"
            )
        super().download_and_prepare(output_dir, *args, **more)

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

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(s, gen_kwargs={"split": s, "files": dict(p)}) for s, p in self.files.items()]

    def tables(self, split: str, files: Parts) -> Iterator[pa.Table]:
        """Yield the rows of one split as Arrow tables with the task's features.

        Raises:
            HfSynthError: a row is malformed, or has the id of an earlier one.
        """
        features = self.task.gold_features()
        rows: list[dict[str, Any]] = []
        size = 0
        for row in self._with_ids(split, files):
            rows.append(row)
            size += sum([len(value) for value in row.values() if isinstance(value, str)])
            if len(rows) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
                yield as_table({name: [row.get(name) for row in rows] for name in features}, features)
                rows, size = [], 0
        if rows:
            yield as_table({name: [row.get(name) for row in rows] for name in features}, features)

    def _generate_tables(self, split: str, files: Parts) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        self.left_out.clear()
        self.left_out_of.clear()
        for place, table in enumerate(self.tables(split, files)):
            yield (0, place), table
        for why, count in self.left_out.items():
            names = list(self.left_out_of[why])
            where = names[0] if len(names) == 1 else f"{len(names):,} files"
            _LOG.warning("%s, split %s: rows left out, since they %s: %s", where, split, why, f"{count:,}")

    def _with_ids(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Yield the rows, with ids that differ."""
        marks: set[int] = set()
        for number, row in enumerate(self._checked(split, files), 1):
            if not self.IDS_BY_PLACE:
                mark = int.from_bytes(blake2b(row["id"].encode(), digest_size=8).digest(), "big")
                if mark in marks:
                    raise GoldError(
                        f"split {split!r} ({file_names(files)}): row {number:,} has the id of an earlier row; ids must "
                        "differ"
                    )
                marks.add(mark)
            yield row

    def _checked(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Yield the rows; any failure of a script becomes an error of one sentence, without text of a row."""
        number = 0
        try:
            for row in self.rows(split, files):
                number += 1
                "".join(v for v in row.values() if isinstance(v, str)).encode()
                yield row
        except UnicodeEncodeError:
            raise GoldError(
                f"split {split!r} ({file_names(files)}): row {number:,} holds half of a character (a lone surrogate); "
                "remove it, or the row"
            ) from None
        except HfSynthError:
            raise
        except Exception as error:
            raise GoldError(
                f"split {split!r} ({file_names(files)}): the script failed after row {number:,} "
                f"({type(error).__name__}); check that the files have the layout that it expects"
            ) from None


def as_table(columns: Mapping[str, Any], features: datasets.Features) -> pa.Table:
    """Return columns as an Arrow table with some features; labels are names or indices.

    Raises:
        GoldError: a label is none of the feature's names.
    """
    import pyarrow as pa

    encoded = {name: _encoded(columns[name], feature) for name, feature in features.items()}
    return pa.Table.from_pydict(encoded, schema=features.arrow_schema)


def _encoded(values: Any, feature: Any) -> Any:
    """Return the values of a column with indices in the place of labels' names."""
    names = label_names(feature)
    if names is None:
        return values
    index: dict[Any, int | None] = {name: i for i, name in enumerate(names)}
    index |= {i: i for i in range(-1, len(names))} | {None: None}
    try:
        if isinstance(feature, datasets.ClassLabel):
            return [index[value] for value in values]
        return [value if value is None else [index[v] for v in value] for value in values]
    except (KeyError, TypeError):
        raise GoldError(f"a label is none of {len(names)} labels of the task") from None


def file_names(files: Parts) -> str:
    """Return the names of a split's files for a message: the first ones."""
    names = [file.name for many in files.values() for file in many]
    more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
    return (", ".join(names[:2]) or "no file") + more
