"""A stage cut into blocks of rows: each is computed once, kept in a file, and read again in order.

A block is a pure function of its rows. Its file is named by its number and by a digest of all that it follows from: the
rows, the task, the model or judge, the version. A run that starts again computes what is missing, and only that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth import __version__
from hf_synth.errors import HfSynthError, OutputError, UsageError
from hf_synth.reports.progress import stage
from hf_synth.task import arrow
from hf_synth.task.folders import WORK, atomic_file, private_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

BLOCKS = "blocks"  # in the work folder of an output
_DIGEST = b"hf_synth_block"  # in the metadata of a file
Block = Callable[["pa.Table"], "pa.Table"]


@dataclass(frozen=True)
class Part:
    """Rows that a stage reads, e.g. the synthetic rows, or the gold.

    Args:
        name: of the part.
        rows: with the columns that a block reads, and no other.
        block: the function of a block; it can be pickled.
        identity: everything beside the rows that decides what the function returns.
        size: rows of a block; BLOCK_ROWS when None.
    """

    name: str
    rows: Dataset
    block: Block
    identity: str
    size: int | None = None

    def places(self) -> list[tuple[int, int]]:
        """Return first and last row (exclusive) of each block."""
        return arrow.blocks(len(self.rows), self.size)


@dataclass(frozen=True)
class Work:
    """The blocks of a stage.

    Args:
        folder: where their files lie.
        parts: the rows, part by part.
        follow: where the results of all parts decide what is computed next: returns the next part, or None for none.
    """

    folder: Path
    parts: list[Part]
    follow: Callable[[Work], Part | None] | None = None

    @cached_property
    def places(self) -> list[tuple[Part, int, int]]:
        """Part, first and last row (exclusive) of each block, by its number."""
        return [(part, *place) for part in self.parts for place in part.places()]

    def grow(self) -> bool:
        """Add the part that follows from the results, once they are all there; return whether there is one."""
        if self.follow is None or self.missing(range(len(self.places))):
            return False
        if (part := self.follow(self)) is None:
            return False
        self.parts.append(part)
        self.__dict__.pop("places")
        return True

    def mark(self) -> str:
        """Return a digest of the blocks that are there before any result (hex sha256)."""
        first = self.parts if self.follow is None else self.parts[:1]
        digest = hashlib.sha256(str(self.folder.name).encode())
        for number, (part, *_) in enumerate(self.places):
            if any(part is one for one in first):
                digest.update(self.file(number, self.table(number)).name.encode())
        return digest.hexdigest()

    def check_begun(self) -> None:
        """Check that all blocks of the first part are there.

        Raises:
            OutputError: one is missing.
        """
        first = [number for number, (part, *_) in enumerate(self.places) if part is self.parts[0]]
        if self.missing(first):
            raise self._incomplete()

    def shard(self, number: int, of: int) -> list[int]:
        """Return the numbers of the blocks of a shard: every `of`-th one, from `number` on.

        Raises:
            UsageError: there is no such shard.
        """
        if not 0 <= number < of:
            raise UsageError(f"there is no shard {number}/{of}: shards are numbered from 0/{of} to {of - 1}/{of}")
        return list(range(number, len(self.places), of))

    def table(self, number: int) -> pa.Table:
        """Return the rows of a block."""
        part, begin, end = self.places[number]
        return arrow.arrow_table(part.rows.select(range(begin, end))).slice(0, end - begin).combine_chunks()

    def file(self, number: int, table: pa.Table) -> Path:
        """Return the file of a block."""
        return self.folder / f"{number:06d}-{self._digest(number, table)[:24]}.parquet"

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Return the blocks of these that have no file yet."""
        return [number for number in numbers if not self.file(number, self.table(number)).is_file()]

    def write(self, number: int, table: pa.Table, result: pa.Table) -> Path:
        """Write the result of a block, whole or not at all, readable by its owner alone."""
        import pyarrow.parquet as pq

        file = self.file(number, table)
        digest = {**(result.schema.metadata or {}), _DIGEST: self._digest(number, table).encode()}
        private_folder(self.folder)
        with atomic_file(file) as draft:
            pq.write_table(result.replace_schema_metadata(digest), draft)
        return file

    def results(self, part: Part) -> Iterator[pa.Table]:
        """Yield the results of the blocks of a part, in the order of its rows.

        Raises:
            OutputError: a block is missing or broken.
        """
        for number, (other, *_) in enumerate(self.places):
            if other is part:
                yield self.result(number)

    def result(self, number: int) -> pa.Table:
        """Return the result of a block.

        Raises:
            OutputError: the block is missing or broken.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        _, begin, end = self.places[number]
        table = self.table(number)
        file = self.file(number, table)
        if not file.is_file():
            raise self._incomplete()
        try:
            result = pq.read_table(file)
        except (pa.ArrowException, OSError):
            result = None
        named = None if result is None else (result.schema.metadata or {}).get(_DIGEST)
        if result is None or len(result) != end - begin or named != self._digest(number, table).encode():
            raise OutputError(f"{file} is broken: delete it and run its shard again")
        return result

    def _incomplete(self) -> OutputError:
        lacking = self.missing(range(len(self.places)))
        others = sum(any(self.folder.glob(f"{number:06d}-*.parquet")) for number in lacking)
        why = (
            f"; {others:,} of them are there as made of other rows, of another model or by another version of hf_synth "
            f"(this is {__version__})"
            if others
            else ""
        )
        return OutputError(
            f"{len(lacking):,} of the {len(self.places):,} blocks of {self.folder.parent.parent.parent} are not there "
            f"yet{why}: run their shards (again), then merge"
        )

    def _digest(self, number: int, table: pa.Table) -> str:
        import pyarrow as pa

        part, begin, end = self.places[number]
        facts = [__version__, part.name, part.identity, number, begin, end, part.size or arrow.BLOCK_ROWS]
        digest = hashlib.sha256(json.dumps(facts).encode())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
            stream.write_table(table.replace_schema_metadata(None))
        digest.update(memoryview(sink.getvalue()))
        return digest.hexdigest()


def blocks_folder(out: Path, command: str) -> Path:
    """Return the folder of the blocks of an output, by a digest of the command that makes it."""
    return out / WORK / BLOCKS / hashlib.sha256(command.encode()).hexdigest()[:16]


def run_here(work: Work, numbers: Sequence[int]) -> tuple[int, int]:
    """Compute blocks one after the other in this process; return how many were computed and how many stood already."""
    done = 0
    with stage(total=len(numbers), unit="blocks") as bar:
        for number in numbers:
            table = work.table(number)
            if not work.file(number, table).is_file():
                part = work.places[number][0]
                work.write(number, table, part.block(table))
                done += 1
            bar.advance(1)
    return done, len(numbers) - done


def run_to_the_end(work: Work) -> None:
    """Compute in this process what is missing, and the parts that follow from it."""
    run_here(work, range(len(work.places)))
    while work.grow():
        run_here(work, range(len(work.places)))


def parse_shard(text: str) -> tuple[int, int]:
    """Read "I/N".

    Raises:
        UsageError: it is something else.
    """
    with contextlib.suppress(ValueError):
        number, of = map(int, text.split("/"))
        if 0 <= number < of:
            return number, of
    raise UsageError(f"--shard takes I/N with I from 0 to N - 1, e.g. 0/3; not {text!r}")


def check_kind(kind: str) -> None:
    """Check that the labels of a kind of task can be computed in blocks.

    Raises:
        HfSynthError: they cannot.
    """
    if kind == "text2text":
        raise HfSynthError("target texts are corrected on one machine: leave --shard and --engine out")
