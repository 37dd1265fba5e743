"""Strict readers that the builders share: what a file says is what a row gets, or one clear error.

A note that reads "NA" stays "NA"; a row with too many or too few fields is an error, not a shifted column; numbers of
rows are counted from 1 after the header. No error holds text of a row.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.errors import MissingGoldError, RowError, TaskError
from hf_synth.task import Task

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
WHOLE = "rows"  # the split of a source that has none ("all" is a reserved word of datasets)
_LONGEST_FIELD = 50_000_000  # characters; csv refuses fields over 131,072 by default, long notes pass that

Row = dict[str, Any]


def read_table(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a .csv, .tsv, .jsonl or .parquet file.

    Raises:
        RowError: the file is not what its name says, or one row of it is malformed.
    """
    readers = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise RowError(path.name, None, f"unknown kind of file; give one of {', '.join(TABLE_SUFFIXES)}")
    return reader(path)


def read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a .csv (or tab-separated .tsv) file in UTF-8, with or without a byte-order mark; all strings.

    Raises:
        RowError: a row has more or fewer fields than the header, quoting is broken, or bytes are not UTF-8.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    number = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(rows, None)
            if not header:
                raise RowError(path.name, None, "the file is empty; it needs a header row")
            _check_header(path, header)
            for fields in rows:
                if not fields:  # a blank line between rows
                    continue
                number += 1
                if len(fields) != len(header):
                    raise RowError(path.name, number, f"has {len(fields)} fields where the header has {len(header)}")
                yield number, dict(zip(header, fields, strict=True))
        except csv.Error:
            raise RowError(path.name, number + 1, "the quoting is broken; check the quotes of this row") from None
        except UnicodeDecodeError:
            raise RowError(path.name, number + 1, "is not UTF-8 text; convert the file to UTF-8") from None


def read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the objects of a file with one JSON object a line.

    Raises:
        RowError: a line is not a JSON object, or bytes are not UTF-8.
    """
    number = 0
    with path.open("rb") as file:
        for line in file:
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
                raise RowError(path.name, number, "is not a line of JSON in UTF-8") from None
            if not isinstance(row, dict):
                raise RowError(path.name, number, "is not a JSON object ({...})")
            yield number, row
    if number == 0:
        raise RowError(path.name, None, "the file is empty")


def read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a parquet file, batch by batch.

    Raises:
        RowError: the file is not parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError):
        raise RowError(path.name, number or None, "cannot be read as parquet") from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise RowError(path.name, None, f"the header names columns twice: {', '.join(map(repr, twice))}")


# --- fields of a row ------------------------------------------------------------------------------------------------


def pick_column(path: Path, row: Mapping[str, Any], *names: str, required: bool = True) -> str | None:
    """Give the first of several names that the file uses for a column.

    Raises:
        RowError: a required column is not there under any of the names.
    """
    found = next((n for n in names if n in row), None)
    if found is None and required:
        has = ", ".join(map(repr, list(row)[:12]))
        raise RowError(path.name, None, f"has no column {' or '.join(map(repr, names))}; it has {has}")
    return found


def text_field(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    """Give a text that must be there.

    Raises:
        RowError: the value is missing, empty or no string.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise RowError(path.name, number, f"column {column!r} is empty or no text; remove the row or fill it")
    return value


def label_field(path: Path, number: int, row: Mapping[str, Any], column: str, names: Mapping[str, str]) -> str:
    """Give the label of a row: the value of `column` looked up in `names` (as the file spells it -> the task's name).

    Whole numbers are looked up as they print: 2, "2" and 2.0 are one label.

    Raises:
        RowError: the value is none of the names. The value itself is not shown: a shifted column would show text.
    """
    value = row.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if key not in names:
        key = key.removesuffix(".0")
    if key not in names:
        known = ", ".join(names) if len(names) <= 24 else f"{len(names)} known labels"
        raise RowError(path.name, number, f"column {column!r} holds no known label; expected one of {known}")
    return names[key]


# --- finding files --------------------------------------------------------------------------------------------------


def find_files(task: Task, path: Path) -> dict[str, Path]:
    """Find the file of each split of a task in a folder; a single file is one split, "rows", yet to be split.

    Raises:
        MissingGoldError: required files are missing; all of them are named, with the folder and the source's page.
        TaskError: the task names no files.
    """
    if not task.files:
        raise TaskError(f"task {task.full_name!r} names no files that could be found in a folder")
    if path.is_file():
        return {WHOLE: path}
    found: dict[str, Path] = {}
    missing: list[str] = []
    for split, names in task.files.items():
        match = next((path / n for n in names if (path / n).is_file()), None)
        if match is not None:
            found[split] = match
        elif split not in task.optional_splits:
            missing.append(f"{split} ({' or '.join(names)})")
    if missing:
        where = f"; get them at {task.source_url}" if task.source_url else ""
        what = "is no folder or file" if not path.exists() else f"lacks the files of task {task.full_name!r}"
        raise MissingGoldError(f"{path} {what}: {', '.join(missing)}{where}")
    return found


def digest_files(*parts: Path | str) -> str:
    """Digest the content of files and of strings (hex sha256): the name of a cache that must never be stale."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            total.update(part.encode())
        else:
            with part.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
