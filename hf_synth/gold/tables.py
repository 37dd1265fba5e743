"""Read tables (.csv, .tsv, .jsonl, .parquet, .xlsx) in batches of columns.

A cell that reads "NA" stays "NA". No error holds text of a row. A batch of rows is in memory at a time.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any

from hf_synth.errors import RowError, did_you_mean
from hf_synth.gold.faults import Batch, Faults
from hf_synth.gold.readers import File, Row, open_text
from hf_synth.gold.sheets import BATCH_CHARACTERS, BATCH_ROWS, LONGEST_FIELD, csv_batches, excel_batches
from hf_synth.gold.sources import SourceFile, as_source
from hf_synth.task.columns import names_shown
from hf_synth.task.folders import plain_features, unpacked_size
from hf_synth.task.labels import label_names

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
_RATIO, _SMALL = 200, 100 << 20  # a parquet that unpacks beyond this ratio is refused
_BATCH_BYTES = 256 << 20  # of one column of a batch of parquet, at worst


# --- reading --------------------------------------------------------------------------------------------------------
def read_table(file: File) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a .csv, .tsv, .jsonl, .parquet or .xlsx file.

    Raises:
        RowError: the file is not what its name says, or one row of it is malformed.
        MissingExtraError: a spreadsheet is read without openpyxl.
    """
    return _rows(read_batches(file))


def read_csv(file: File) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a .csv or .tsv file, all strings; the delimiter is found from the first rows.

    Raises:
        RowError: a row has more or fewer fields than the header, quoting is broken, or the file is no text.
    """
    source = as_source(file)
    return _rows(csv_batches(source, Faults(source.name, at_once=True), None))


def read_jsonl(file: File) -> Iterator[tuple[int, Row]]:
    """Yield the objects of a file with one JSON object a line.

    Raises:
        RowError: a line is not a JSON object.
    """
    source = as_source(file)
    return _json_rows(source, Faults(source.name, at_once=True))


def read_parquet(file: File) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a parquet file, batch by batch; one inside an archive is read into memory.

    Raises:
        RowError: the file is not parquet.
    """
    return _rows(_parquet_batches(as_source(file)))


def read_batches(file: File, faults: Faults | None = None, *, needed: Collection[str] | None = None) -> Iterator[Batch]:
    """Yield a table in batches of at most 1,000 rows.

    Args:
        faults: collects wrong rows, which are left out; the first is raised when None.
        needed: columns that each row must have. A shorter row of a CSV file ends with empty cells, which Excel leaves
            out; it is wrong where it lacks a needed column. None means all columns.

    Raises:
        RowError: the file is not what its name says, or a row is malformed and `faults` is None.
        MissingExtraError: a spreadsheet is read without openpyxl.
    """
    source = as_source(file)
    faults = faults or Faults(source.name, at_once=True)
    if source.suffix in (".csv", ".tsv"):
        return csv_batches(source, faults, needed)
    if source.suffix == ".xlsx":
        return excel_batches(source, faults, needed)
    if source.suffix == ".jsonl":
        return _json_batches(source, faults)
    if source.suffix == ".parquet":
        return _parquet_batches(source)
    hint = "; save it as .xlsx or .csv" if source.suffix in (".xls", ".xlsm", ".ods", ".numbers") else ""
    raise RowError(source.name, None, f"is of an unknown kind; use one of {', '.join(TABLE_SUFFIXES)}{hint}")


def _rows(batches: Iterator[Batch]) -> Iterator[tuple[int, Row]]:
    for batch in batches:
        names = list(batch.columns)
        rows = zip(*batch.columns.values(), strict=True) if names else ((),) * len(batch.numbers)  # "{}" has no column
        for number, values in zip(batch.numbers, rows, strict=True):
            yield number, dict(zip(names, values, strict=True))


# --- JSONL ----------------------------------------------------------------------------------------------------------
def _json_batches(source: SourceFile, faults: Faults) -> Iterator[Batch]:
    rows: list[Row] = []
    numbers: list[int] = []
    size = 0
    for number, row in _json_rows(source, faults):
        rows.append(row)
        numbers.append(number)
        size += sum([len(value) for value in row.values() if isinstance(value, str)])
        if len(rows) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
            yield _by_column(rows, numbers)
            rows, numbers, size = [], [], 0
    if rows:
        yield _by_column(rows, numbers)


def _by_column(rows: list[Row], numbers: list[int]) -> Batch:
    names = dict.fromkeys(name for row in rows for name in row)
    return Batch(numbers, {name: [row.get(name) for row in rows] for name in names})


def _json_rows(source: SourceFile, faults: Faults) -> Iterator[tuple[int, Row]]:
    number = 0
    with open_text(source, newline="\n") as stream:
        try:
            while line := stream.readline(LONGEST_FIELD):
                number += 1
                if not line or line.isspace():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    whole = line.lstrip()[:1] == "[" or line.strip() == "{"
                    hint = "; the file must have one object {...} in each line" if whole and number == 1 else ""
                    faults.add(number, f"is not a line of JSON{hint}")
                    if hint:
                        return
                    continue
                if isinstance(row, dict):
                    yield number, row
                else:
                    hint = "; the file must have one object {...} in each line" if isinstance(row, list) else ""
                    faults.add(number, f"is not a JSON object ({{...}}){hint}")
        except UnicodeError:
            faults.add(number + 1, "is no text in the encoding of the file's start; convert the file to UTF-8")
    if number == 0:
        raise RowError(source.name, None, "is empty; it needs a JSON object in each line")


# --- parquet --------------------------------------------------------------------------------------------------------
def _parquet_batches(source: SourceFile) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.packed:  # what its metadata record of its access is read from the file itself
        raise RowError(source.name, None, "is a parquet file packed by gzip; unpack it")
    number = size = unpacked = 0
    columns: dict[str, list[Any]] = {}
    try:
        with source.open() as stream, pq.ParquetFile(_seekable(source, stream)) as table:
            # a dictionary page may repeat one long text in every row: limit the rows of a piece by the worst case
            groups = [table.metadata.row_group(i) for i in range(table.metadata.num_row_groups)]
            longest = max(
                (g.column(c).total_uncompressed_size for g in groups for c in range(g.num_columns)), default=0
            )
            packed = sum(g.column(c).total_compressed_size for g in groups for c in range(g.num_columns))
            typed = {name: names for name, f in plain_features(table.schema_arrow).items() if (names := label_names(f))}
            for piece in table.iter_batches(batch_size=max(1, min(BATCH_ROWS, _BATCH_BYTES // max(1, longest)))):
                bytes_ = sum(map(unpacked_size, piece.columns))
                size, unpacked = size + bytes_, unpacked + bytes_
                if unpacked > max(_SMALL, _RATIO * packed):
                    what = f"unpacks to more than {_RATIO} times its size by texts that it repeats"
                    raise RowError(source.name, number, what)
                for name, values in piece.to_pydict().items():
                    if name in typed:  # a label of a Dataset is an index into its names
                        values = [_named(value, typed[name]) for value in values]
                    columns.setdefault(name, []).extend(values)
                count = len(next(iter(columns.values()), ()))
                if count >= BATCH_ROWS or size >= BATCH_CHARACTERS:  # pieces of a few rows are joined
                    yield Batch(range(number + 1, number + 1 + count), columns)
                    number, size, columns = number + count, 0, {}
            if columns:
                yield Batch(range(number + 1, number + 1 + len(next(iter(columns.values())))), columns)
    except (pa.ArrowException, OSError, ValueError):
        raise RowError(source.name, number or None, "cannot be read as parquet") from None


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(v, names) for v in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _seekable(source: SourceFile, stream: IO[bytes]) -> Any:
    return str(source.path) if source.member is None else io.BytesIO(stream.read())


# --- what a table has -----------------------------------------------------------------------------------------------
def table_columns(file: File) -> list[str]:
    """Return the names of a table's columns; of JSONL those of its first rows.

    Raises:
        RowError: the table cannot be read, or has no row.
    """
    batch = next(read_batches(file, Faults(as_source(file).name), needed=()), None)
    return [] if batch is None else list(batch.columns)


def check_needed(file: File, batch: Batch, needed: Collection[str]) -> None:
    """Check that a table has some columns.

    Raises:
        RowError: it lacks one; the message shows the names that it has.
    """
    for name in needed:
        if name not in batch.columns:
            folded = {str(own).strip().casefold(): own for own in batch.columns}
            near = folded.get(name.strip().casefold())
            shown = names_shown(batch.columns, *needed)
            likely = did_you_mean(name, [own for own in map(str, batch.columns) if own in shown])
            hint = f"; the file spells it {near!r}" if near else likely
            raise RowError(as_source(file).name, None, f"has no column {name!r}; it has {shown}{hint}")


def is_missing(value: Any) -> bool:
    """Return whether a cell holds nothing: null, not-a-number, no character or blanks alone."""
    if value is None:
        return True
    return (not value or value.isspace()) if isinstance(value, str) else isinstance(value, float) and math.isnan(value)
