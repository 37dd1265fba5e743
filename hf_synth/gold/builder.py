"""What the builders of all tasks share: a `datasets.GeneratorBasedBuilder` over the files that a user holds.

A task's script says how the files of one split become rows; everything else is here: finding the files in a folder or
archive, features, a cache that lies beside the files and is never stale, ids that are unique, and what was left out.
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
from typing import Any, ClassVar

import datasets

from hf_synth.errors import GoldError, HfSynthError, MissingGoldError, OutputError
from hf_synth.gold import readers as reading
from hf_synth.gold import sources
from hf_synth.gold.sources import Files, SourceFile, all_files, digest_files, find_files
from hf_synth.task.folders import cache_folder
from hf_synth.task.task import Task

Parts = Mapping[str, tuple[SourceFile, ...]]  # the files of one split, by part

_LOG = logging.getLogger(__name__)
_NO_TASKS: Mapping[str, Task] = MappingProxyType({})


class GoldBuilder(datasets.GeneratorBasedBuilder):  # type: ignore[misc]  # datasets is untyped
    """Read the files of a task from the folder, file or archive that a user holds.

    A script's class names its `TASKS` and writes `rows`. It is used by `load_gold`, and as any builder of `datasets`:
    `Mednli(data_dir="/secure/mednli").as_streaming_dataset()`. The cache lies in `<data_dir>/.hf_synth` unless
    `cache_dir` says otherwise.

    Attributes:
        TASKS: the tasks of the script by config.
        NEEDS_FILES: False where rows are made without any.
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
        # data_files come from datasets' own guess at a folder, the hash from its registration: ours know the task
        more = {k: v for k, v in more.items() if k not in ("data_files", "hash", "dataset_name")}
        name = more.get("config_name") or next(iter(self.TASKS))
        if name not in self.TASKS:
            raise ValueError(f"BuilderConfig {name!r} not found. Available: {list(self.TASKS)}")
        task = self.TASKS[name]
        self.files: Files = {}
        if self.NEEDS_FILES:
            if data_dir is None:
                where = f"; get them at {task.source_url}" if task.source_url else ""
                names = ", ".join(n[0] for n in task.files.values())
                raise MissingGoldError(f"task {task.full_name!r} needs the folder of its files: {names}{where}")
            self.files = find_files(task, Path(data_dir))
            cache_dir = cache_dir or (str(c) if (c := cache_folder(Path(data_dir))) else None)
        self._homeless = self.NEEDS_FILES and cache_dir is None
        super().__init__(cache_dir=cache_dir, hash=self._digest(task), **more)
        self.left_out: Counter[str] = Counter()
        self.left_out_of: dict[str, dict[str, None]] = {}

    def _digest(self, task: Task) -> str:
        """Name the cache by all that decides its rows: the task, the code that reads, the files."""
        shaping = [task.fingerprint(), task.access, task.group_column, {k: list(v) for k, v in task.files.items()}]
        code = [inspect.getsourcefile(m) for m in (type(self), reading, sources, GoldBuilder)]
        return digest_files(json.dumps(shaping), *(Path(c) for c in code if c), *all_files(self.files))[:32]

    def download_and_prepare(self, output_dir: str | None = None, *args: Any, **more: Any) -> None:
        """Write the rows to the cache, which lies in the data's own folder.

        Raises:
            OutputError: that folder cannot be written: notes are cached nowhere else unless a place is named.
        """
        if self._homeless and output_dir is None:
            raise OutputError(
                "the folder of the data cannot be written, and notes are cached nowhere else; name a "
                "place with cache_dir=..., or read them with load_gold, which then holds them in memory"
            )
        super().download_and_prepare(output_dir, *args, **more)

    @property
    def task(self) -> Task:
        """The task of this builder's config."""
        return self.TASKS[self.config.name]

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the rows of one split; `task.gold_row` makes one.

        Args:
            files: the split's files by part; a split with one file has the part "rows".

        Raises:
            RowError: a row or a file is malformed.
        """
        raise NotImplementedError

    def leave_out(self, file: SourceFile, why: str) -> None:
        """Count a row that the source itself leaves without a label or text; it is told of at the split's end.

        Args:
            why: goes on after "rows left out, since they".
        """
        self.left_out[why] += 1
        self.left_out_of.setdefault(why, {})[file.name] = None

    def _info(self) -> datasets.DatasetInfo:
        task = self.task
        return datasets.DatasetInfo(
            description=task.description, features=task.gold_features(), license=task.license, citation=task.citation,
            homepage=task.source_url,
        )  # fmt: skip

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(s, gen_kwargs={"split": s, "files": dict(p)}) for s, p in self.files.items()]

    def _generate_examples(self, split: str, files: Parts) -> Iterator[tuple[str, dict[str, Any]]]:
        seen: set[int] = set()
        self.left_out.clear()
        self.left_out_of.clear()
        for number, row in enumerate(self._checked(split, files), 1):
            if not self.IDS_BY_PLACE:
                mark = int.from_bytes(blake2b(row["id"].encode(), digest_size=8).digest(), "big")
                if mark in seen:
                    raise GoldError(f"split {split!r}: row {number:,} has the id of an earlier row; ids must differ")
                seen.add(mark)
            yield row["id"], row
        for why, count in self.left_out.items():
            names = list(self.left_out_of[why])
            where = names[0] if len(names) == 1 else f"{len(names):,} files"
            _LOG.warning("%s, split %s: rows left out, since they %s: %s", where, split, why, f"{count:,}")

    def _checked(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Give the rows; whatever a script stumbles over is one sentence, without a text."""
        number = 0
        try:
            for row in self.rows(split, files):
                number += 1
                "".join(v for v in row.values() if isinstance(v, str)).encode()
                yield row
        except UnicodeEncodeError:
            raise GoldError(
                f"split {split!r}: row {number:,} holds half of a character (a lone surrogate); remove it or the row"
            ) from None
        except HfSynthError:
            raise
        except Exception as error:
            where = f"split {split!r}: its script failed after row {number:,}"
            raise GoldError(f"{where} ({type(error).__name__}); a file is not as it expects") from None
