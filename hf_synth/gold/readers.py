"""Strict readers of text, CSV, TSV, JSONL and parquet files; fields of a row.

A note that reads "NA" stays "NA"; a row with too many or too few fields is an error, not a shifted column; rows are
numbered from 1 after the header. No error holds text of a row. Every reader takes a file on disk or a member of an
archive, and holds one row in memory.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from hf_synth.errors import RowError
from hf_synth.gold.sources import SourceFile, as_source
from hf_synth.task.columns import names_shown
from hf_synth.task.folders import unpacked_size

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_RATIO, _SMALL = 200, 100 << 20  # a parquet that unpacks beyond this ratio is refused
_BATCH_BYTES = 256 << 20  # of one column of a batch of parquet, at worst
_LONGEST_FIELD = 50_000_000  # characters; the default of csv, 131,072, is too short for long notes
_LONGEST_TEXT = 50 << 20  # bytes of one note in a file of its own
_CHUNK = 1 << 20
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # bytes that no text in an 8-bit encoding has
_LOG = logging.getLogger(__name__)
_PLACE = threading.local()  # file and number of the row whose fields were read last
ENCODING_NOTES: dict[SourceFile, str] = {}  # what was said of the encoding of a file
File = SourceFile | Path
Row = dict[str, Any]


# --- text -----------------------------------------------------------------------------------------------------------
def open_text(file: File) -> io.TextIOWrapper:
    """Open a file as text with its line ends: UTF-8 with or without a byte-order mark, or UTF-16 with one.

    Any other file is read as Windows-1252 (latin-1 and its quotes), with a warning.

    Raises:
        RowError: it is no text.
    """
    source = as_source(file)
    return io.TextIOWrapper(source.open(), encoding=_encoding(source), newline="")


def _encoding(source: SourceFile) -> str:
    """Detect the encoding by reading the whole file, in constant memory."""
    with source.open() as stream:
        if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    ENCODING_NOTES.pop(source, None)
    if _decodes(source, "utf-8-sig"):
        return "utf-8-sig"
    if _decodes(source, "cp1252"):
        ENCODING_NOTES[source] = f"{source.name} is not UTF-8: read as Windows-1252 (latin-1); check its accents"
        _LOG.warning("%s", ENCODING_NOTES[source])
        return "cp1252"
    raise RowError(source.name, None, "is no text in UTF-8, UTF-16 or Windows-1252; is it the right file?")


def _decodes(source: SourceFile, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with source.open() as stream:
        try:
            while chunk := stream.read(_CHUNK):
                if b"\x00" in chunk or (encoding == "cp1252" and _CONTROL.search(chunk)):
                    return False
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def read_text(file: File) -> str:
    """Read a whole note from a file of its own.

    Raises:
        RowError: it is no text, or far too long for a note.
    """
    source = as_source(file)
    with open_text(source) as stream:
        try:
            text = stream.read(_LONGEST_TEXT + 1)
        except UnicodeError:  # `_encoding` does not decode UTF-16
            raise RowError(source.name, None, "is no text in UTF-16; convert it to UTF-8") from None
    if len(text) > _LONGEST_TEXT:
        raise RowError(source.name, None, "is far too long for one note; is it the right file?")
    return text


# --- tables ---------------------------------------------------------------------------------------------------------
def read_table(file: File) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a .csv, .tsv, .jsonl or .parquet file.

    Raises:
        RowError: the file is not what its name says, or one row of it is malformed.
    """
    source = as_source(file)
    readers = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
    reader = readers.get(source.suffix)
    if reader is None:
        raise RowError(source.name, None, f"is of an unknown kind; use one of {', '.join(TABLE_SUFFIXES)}")
    return reader(source)


def read_csv(file: File) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a .csv or .tsv file, all strings; semicolon or tab separates where the header has no comma.

    Raises:
        RowError: a row has more or fewer fields than the header, quoting is broken, or the file is no text.
    """
    source = as_source(file)
    csv.field_size_limit(_LONGEST_FIELD)
    number = 0
    with open_text(source) as stream:
        try:
            rows = csv.reader(stream, delimiter=_delimiter(source), strict=True)
            header = [name.strip() for name in next(rows, [])]
            if not any(header):
                raise RowError(source.name, None, "is empty; it needs a header row")
            _check_header(source, header)
            for fields in rows:
                if not fields:  # a blank line between rows
                    continue
                number += 1
                if len(fields) != len(header):
                    raise RowError(source.name, number, f"has {len(fields)} fields where the header has {len(header)}")
                yield number, dict(zip(header, fields, strict=True))
        except csv.Error:
            raise RowError(source.name, number + 1, "the quoting is broken; check the quotes of this row") from None
        except UnicodeError:
            raise RowError(source.name, number + 1, "is not UTF-8 text; convert the file to UTF-8") from None


def _delimiter(source: SourceFile) -> str:
    if source.suffix == ".tsv":
        return "\t"
    with open_text(source) as stream:
        try:
            header = stream.readline(100_000)
        except UnicodeError:
            return ","
    return next((d for d in (",", ";", "\t") if d in header), ",")


def _check_header(source: SourceFile, header: Sequence[str]) -> None:
    repeated = sum(count > 1 for count in Counter(header).values())
    if repeated:
        raise RowError(source.name, None, f"the header names {repeated} columns more than once; rename them")


def read_jsonl(file: File) -> Iterator[tuple[int, Row]]:
    """Yield the objects of a file with one JSON object a line, in UTF-8.

    Raises:
        RowError: a line is not a JSON object.
    """
    source = as_source(file)
    number = 0
    with source.open() as stream:
        while line := stream.readline(_LONGEST_FIELD):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
                raise RowError(source.name, number, "is not a line of JSON in UTF-8") from None
            if not isinstance(row, dict):
                raise RowError(source.name, number, "is not a JSON object ({...})")
            yield number, row
    if number == 0:
        raise RowError(source.name, None, "is empty; it needs a JSON object in each line")


def read_parquet(file: File) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a parquet file, batch by batch; one inside an archive is read into memory.

    Raises:
        RowError: the file is not parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = as_source(file)
    if source.packed:  # what its metadata record of its access is read from the file itself
        raise RowError(source.name, None, "is a parquet file packed by gzip; unpack it")
    number = 0
    try:
        with source.open() as stream, pq.ParquetFile(_seekable(source, stream)) as table:
            # a dictionary page may repeat one long text in every row: limit the rows of a batch by the worst case
            groups = [table.metadata.row_group(i) for i in range(table.metadata.num_row_groups)]
            longest = max(
                (g.column(c).total_uncompressed_size for g in groups for c in range(g.num_columns)), default=0
            )
            packed = sum(g.column(c).total_compressed_size for g in groups for c in range(g.num_columns))
            unpacked = 0
            for batch in table.iter_batches(batch_size=max(1, min(1_000, _BATCH_BYTES // max(1, longest)))):
                unpacked += sum(map(unpacked_size, batch.columns))
                if unpacked > max(_SMALL, _RATIO * packed):
                    raise RowError(
                        source.name, number, f"unpacks to more than {_RATIO} times its size by texts that it repeats"
                    )
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, ValueError):
        raise RowError(source.name, number or None, "cannot be read as parquet") from None


def _seekable(source: SourceFile, stream: IO[bytes]) -> Any:
    return str(source.path) if source.member is None else io.BytesIO(stream.read())


# --- fields of a row ------------------------------------------------------------------------------------------------
def place() -> tuple[str, int] | None:
    """Return name of file and number of the row whose fields were read last in this thread; None where none was."""
    return getattr(_PLACE, "row", None)


def note_place(file: File, number: int) -> None:
    """Note which row of which file is read now, for the messages of errors that are found later."""
    _PLACE.row = file.name, number


def forget_place() -> None:
    """Forget the row whose fields were read last."""
    _PLACE.row = None


def pick_column(file: File, row: Mapping[str, Any], *names: str, required: bool = True) -> str | None:
    """Return the name that the file uses for a column, out of several; None where it has none of them.

    Raises:
        RowError: a required column is missing under all of the names.
    """
    column = next((n for n in names if n in row), None)
    if column is None and required:
        folded = {str(name).strip().casefold() for name in row}
        near = next((name for name in names if name.casefold() in folded), None)
        hint = f"; {near!r} differs from one of them in capitals or spaces only" if near else ""
        raise RowError(
            file.name, None, f"has no column {' or '.join(map(repr, names))}; it has {names_shown(row, *names)}{hint}"
        )
    return column


def text_field(file: File, number: int, row: Mapping[str, Any], column: str) -> str:
    """Return a text that must not be empty.

    Raises:
        RowError: the value is missing, empty or no string.
    """
    note_place(file, number)
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise RowError(file.name, number, f"column {column!r} is empty or no text; remove the row or fill it")
    return value


def label_field(file: File, number: int | None, row: Mapping[str, Any], column: str, names: Mapping[str, str]) -> str:
    """Return the label of a row: the value of `column` looked up in `names` (spelling in the file -> the task's name).

    Whole numbers are looked up as they print: 2, "2" and 2.0 are one label.

    Raises:
        RowError: the value is none of the names. The message leaves it out: in a shifted column it would be text.
    """
    if number is not None:
        note_place(file, number)
    value = row.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if key not in names:
        key = key.removesuffix(".0")
    if key not in names:
        known = ", ".join(names) if len(names) <= 24 else f"{len(names)} known labels"
        raise RowError(file.name, number, f"column {column!r} holds no known label; expected one of {known}")
    return names[key]
