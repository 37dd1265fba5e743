"""Read tables (.csv, .tsv, .jsonl, .parquet, .xlsx) in batches of columns, as spreadsheets and data tools write them.

A cell that reads "NA" stays "NA", and a row with too many or too few fields is an error, not a shifted column. Columns
without a name, rows without content and repeated header lines hold no data and are left out. Rows are numbered so that
row n stands in line n + 1 of a spreadsheet. No error holds text of a row. A batch of rows is in memory at a time.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import logging
import math
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import IO, Any

from hf_synth.errors import MissingExtraError, RowError, line_of
from hf_synth.gold.readers import File, Row, open_text
from hf_synth.gold.sources import SourceFile, as_source
from hf_synth.task.columns import names_shown
from hf_synth.task.folders import plain_features, unpacked_size
from hf_synth.task.labels import label_names

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
_RATIO, _SMALL = 200, 100 << 20  # a parquet or spreadsheet that unpacks beyond this ratio is refused
_BATCH_BYTES = 256 << 20  # of one column of a batch of parquet, at worst
_BATCH_ROWS, _BATCH_CHARACTERS = 1_000, 4 << 20
_LONGEST_FIELD = 50_000_000  # characters; the default of csv, 131,072, is too short for long notes
_SAMPLE, _SAMPLED_ROWS = 1 << 18, 50  # what the delimiter is found from
_DELIMITERS = (",", ";", "\t", "|")
_MARK = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)  # the first line of some files for Excel
_MOST_FAULTS, _MOST_LINES = 8, 8  # kinds of faults in a message, and lines of each
_LONGEST_NAME = 64  # characters of a column's name
_LOG = logging.getLogger(__name__)


# --- faults ---------------------------------------------------------------------------------------------------------
class Faults:
    """Collect what is wrong with the rows of a file, to report all of it in one error.

    Args:
        file: the file's name.
        at_once: raise the first fault where it is found.
    """

    def __init__(self, file: str, *, at_once: bool = False) -> None:
        self.file, self.at_once = file, at_once
        self.count = 0
        self.skippable = 0
        self._numbers: dict[str, list[int]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, number: int, problem: str, *, empty: bool = False) -> None:
        """Add a fault of a row.

        Args:
            empty: the row may be left out, since its text or its label is empty.

        Raises:
            RowError: faults are raised at once.
        """
        if self.at_once:
            raise RowError(self.file, number, problem)
        self.count += 1
        self.skippable += empty
        if problem not in self._numbers and len(self._numbers) >= _MOST_FAULTS:
            return
        numbers = self._numbers.setdefault(problem, [])
        self._counts[problem] += 1
        if len(numbers) < _MOST_LINES:
            numbers.append(number)

    def check(self) -> None:
        """Raise what was collected as one error.

        Raises:
            RowError: a fault was added.
        """
        if not self.count:
            return
        skip = "; --skip-empty leaves rows without text or label out" if self.skippable else ""
        if self.count == 1:
            [(problem, [number])] = self._numbers.items()
            raise RowError(self.file, number, problem + skip)
        parts = [f"{self._lines(problem)}: {problem}" for problem in self._numbers]
        more = self.count - sum(self._counts.values())
        others = f"; {more:,} more rows" if more else ""
        raise RowError(self.file, None, f"{self.count:,} rows cannot be read: {'; '.join(parts)}{others}{skip}")

    def _lines(self, problem: str) -> str:
        numbers, count = self._numbers[problem], self._counts[problem]
        what, first = line_of(self.file, numbers[0])
        lines = [f"{line_of(self.file, n)[1]:,}" for n in numbers]
        more = f" and {count - len(numbers):,} more" if count > len(numbers) else ""
        return f"{what}{'s' if count > 1 else ''} {', '.join(lines)}{more}" if count > 1 else f"{what} {first:,}"


@dataclass(frozen=True)
class Batch:
    """Some rows of a table, by column.

    Args:
        numbers: the number of each row.
        columns: the values of each column, as long as `numbers`.
    """

    numbers: Sequence[int]
    columns: Mapping[str, Sequence[Any]]

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column; nulls where the table lacks it."""
        return self.columns[name] if name in self.columns else [None] * len(self.numbers)


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
    return _rows(_csv_batches(source, Faults(source.name, at_once=True), None))


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
        return _csv_batches(source, faults, needed)
    if source.suffix == ".xlsx":
        return _excel_batches(source, faults, needed)
    if source.suffix == ".jsonl":
        return _json_batches(source, faults)
    if source.suffix == ".parquet":
        return _parquet_batches(source)
    hint = "; save it as .xlsx or .csv" if source.suffix in (".xls", ".xlsm", ".ods", ".numbers") else ""
    raise RowError(source.name, None, f"is of an unknown kind; use one of {', '.join(TABLE_SUFFIXES)}{hint}")


def _rows(batches: Iterator[Batch]) -> Iterator[tuple[int, Row]]:
    for batch in batches:
        names = list(batch.columns)
        for number, values in zip(batch.numbers, zip(*batch.columns.values(), strict=True), strict=True):
            yield number, dict(zip(names, values, strict=True))


# --- CSV ------------------------------------------------------------------------------------------------------------
def _csv_batches(source: SourceFile, faults: Faults, needed: Collection[str] | None) -> Iterator[Batch]:
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter, marked = _delimiter(source)
    with open_text(source) as stream:
        if marked:
            stream.readline()
        yield from _sheet_batches(source, csv.reader(stream, delimiter=delimiter, strict=True), faults, needed)


def _delimiter(source: SourceFile) -> tuple[str, bool]:
    """Return the delimiter of a file, and whether its first line names it ("sep=;")."""
    try:
        with open_text(source) as stream:
            sample = stream.read(_SAMPLE)
    except UnicodeError:
        sample = ""
    if mark := _MARK.match(sample):
        return mark[1], True
    if source.suffix == ".tsv":
        return "\t", False
    return max(_DELIMITERS, key=lambda d: (*_fit(sample, d), -_DELIMITERS.index(d))), False


def _fit(sample: str, delimiter: str) -> tuple[bool, float, int]:
    """Return how well a delimiter fits: whether the header has fields, the share of rows with as many, their number.

    Where the header has one field, as below a title, the share is that of rows with several.
    """
    widths = []
    try:
        for row in itertools.islice(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter), _SAMPLED_ROWS):
            if row:
                widths.append(len(row))
    except csv.Error:
        pass
    if len(sample) == _SAMPLE and len(widths) > 2:
        widths.pop()  # it may be cut
    if not widths:
        return False, 0.0, 0
    rows, several = widths[1:] or widths, widths[0] > 1
    return several, sum(width == widths[0] if several else width > 1 for width in rows) / len(rows), widths[0]


def _sheet_batches(
    source: SourceFile, records: Iterator[Sequence[Any]], faults: Faults, needed: Collection[str] | None
) -> Iterator[Batch]:
    """Yield the rows below the header of a sheet; `records` are the rows of the sheet, the header among them."""
    sheet = _Sheet(source, needed)
    try:
        for sheet.number, first in enumerate(records):
            if not _is_blank(first):
                break
        else:
            raise RowError(source.name, None, "is empty; it needs a header row")
        sheet.name_columns([_name(cell) for cell in first])
        yield from sheet.batches(records, faults)
    except csv.Error as error:
        faults.add(sheet.number + 1, _quoting(error))
    except UnicodeError:
        faults.add(sheet.number + 1, "is no text in the encoding of the file's start; convert the file to UTF-8")


@functools.lru_cache(maxsize=256)  # a table is read several times in one command
def _warn_of_repeats(source: SourceFile, repeats: int) -> None:
    _LOG.warning("%s repeats its header in %d lines: these are left out (were files joined?)", source.name, repeats)


def _quoting(error: csv.Error) -> str:
    said = str(error)
    if "end of data" in said:
        cause = "a quote opens a field of this row and nothing closes it; the rows below went into that field"
    elif "expected after" in said:
        cause = 'a field in quotes holds a quote that is not doubled; write "" for a quote inside'
    elif "limit" in said:
        cause = f"a field is longer than {_LONGEST_FIELD:,} characters; a quote is not closed?"
    else:
        cause = "check the quotes of this row"
    return f"the quoting is broken: {cause}"


def _name(cell: Any) -> str:
    return "" if cell is None else str(cell).strip("\ufeff\u200b \t\r\n\xa0")


def _is_blank(cells: Sequence[Any]) -> bool:
    return all(cell is None or (isinstance(cell, str) and (not cell or cell.isspace())) for cell in cells)


class _Sheet:
    """The rows of a CSV file or a spreadsheet, below its header."""

    def __init__(self, source: SourceFile, needed: Collection[str] | None) -> None:
        self.source, self.needed = source, needed
        self.number = 0  # of the row that was read last: its line in a spreadsheet minus 1
        self.repeats = 0  # lines that repeat the header

    def name_columns(self, header: list[str]) -> None:
        """Take the names of the header; columns without a name are left out.

        Raises:
            RowError: two columns have one name.
        """
        named = list(filter(None, header))
        repeated = {name for name, count in Counter(named).items() if count > 1}
        if repeated and (self.needed is None or repeated & set(self.needed)):
            raise RowError(
                self.source.name, None, f"the header names {len(repeated)} columns more than once; rename them"
            )
        self.header, self.width = header, len(header)
        self.places = {name: header.index(name) for name in dict.fromkeys(named)}
        must = [i for name, i in self.places.items() if self.needed is None or name in self.needed]
        self.least = max(must, default=-1) + 1  # cells of a row that has every needed column
        self.longest = max(map(len, header), default=0) + 4
        # the first row of a table without a header may come again as well: it is no header if it holds a text
        self.folded = [name.casefold() for name in header] if self.longest <= _LONGEST_NAME else []
        self.names = set(filter(None, self.folded))

    def batches(self, records: Iterator[Sequence[Any]], faults: Faults) -> Iterator[Batch]:
        """Yield the rows below the header in batches."""
        rows: list[Sequence[Any]] = []
        numbers: list[int] = []
        size, first = 0, True
        for row in records:
            self.number += 1
            if first and not _is_blank(row):
                self._check_title(row)
                first = False
            cells: Sequence[Any] | None = row
            if len(row) != self.width:
                cells = self._mended(row, faults)
            elif len(start := row[0] if isinstance(row[0], str) else "") <= self.longest or start.isspace():
                cells = self._with_content(row, start.strip().casefold(), faults)
            if cells is None:
                continue
            rows.append(cells)
            numbers.append(self.number)
            size += sum([len(cell) for cell in cells if isinstance(cell, str)])
            if len(rows) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
                yield self._batch(rows, numbers)
                rows, numbers, size = [], [], 0
        if rows:
            yield self._batch(rows, numbers)
        if self.repeats:
            _warn_of_repeats(self.source, self.repeats)

    def _batch(self, rows: list[Sequence[Any]], numbers: list[int]) -> Batch:
        columns = list(zip(*rows, strict=True))
        return Batch(numbers, {name: columns[i] for name, i in self.places.items()})

    def _with_content(self, row: Sequence[Any], start: str, faults: Faults) -> Sequence[Any] | None:
        """Return a row, or None if it is blank or a header; the names in another order are a fault."""
        if start in self.names:
            cells = ["" if cell is None else str(cell).strip().casefold() for cell in row]
            if cells == self.folded:
                self.repeats += 1
                return None
            if len(self.names) > 1 and self.names <= set(cells):
                faults.add(
                    self.number, "names the columns again in another order; the rows below it are of another table"
                )
                return None
        return None if not start and _is_blank(row) else row

    def _mended(self, row: Sequence[Any], faults: Faults) -> Sequence[Any] | None:
        """Return a row with as many cells as the header; None, and a fault, if it has other cells than the header."""
        cells = list(row)
        if _is_blank(cells):
            return None
        if len(cells) > 1 and [str(c).strip().casefold() for c in cells] == self.folded[: len(cells)]:
            self.repeats += 1
            return None
        if len(cells) > self.width and _is_blank(cells[self.width :]):
            return cells[: self.width]
        if self.least <= len(cells) < self.width:
            return cells + [None] * (self.width - len(cells))
        hint = "a separator" if len(cells) > self.width else "a line break"
        cause = f"is there {hint} in a text without quotes around it?"
        if any(isinstance(c, str) and c[:1] == " " and c.lstrip()[:1] == '"' for c in cells):
            cause = "a blank stands before a quote, so the quote does not count: remove the blank"
        faults.add(self.number, f"has {len(cells)} fields where the header has {self.width}; {cause}")
        return None

    def _check_title(self, row: Sequence[Any]) -> None:
        """Check that the header is not the title of the sheet: one cell above rows of several.

        Raises:
            RowError: it is.
        """
        filled = sum(not _is_blank([cell]) for cell in row)
        if self.header[0] and not any(self.header[1:]) and filled > 1:
            raise RowError(
                self.source.name,
                None,
                f"has one name in its first line and {filled} cells below it; if that line is a title, remove it, so "
                "that the first line names the columns; a text with a separator needs quotes",
            )


# --- Excel ----------------------------------------------------------------------------------------------------------
def _excel_batches(source: SourceFile, faults: Faults, needed: Collection[str] | None) -> Iterator[Batch]:
    try:
        import openpyxl
    except ImportError:
        raise MissingExtraError("openpyxl", "excel") from None
    with source.open() as packed:
        content = io.BytesIO(packed.read())
    try:
        with zipfile.ZipFile(content) as parts:
            unpacked, size = sum(i.file_size for i in parts.infolist()), len(content.getbuffer())
        if unpacked > max(_SMALL, _RATIO * size):
            raise RowError(source.name, None, f"unpacks to {unpacked >> 20:,} MB: not read")
        book = openpyxl.load_workbook(content, read_only=True, data_only=True)
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
        sheet = sheets[0]
        if len(sheets) > 1:
            _LOG.warning("%s has %d sheets: its first one is read", source.name, len(sheets))
        sheet.reset_dimensions()  # some tools record a wrong size
        records = ([_excel_value(cell) for cell in row] for row in sheet.iter_rows(values_only=True))
        yield from _sheet_batches(source, _same_width(records), faults, needed)
    except RowError:
        raise
    except Exception as error:  # openpyxl raises what its parsers raise: KeyError, ParseError, BadZipFile, ValueError
        raise RowError(
            source.name, None, f"cannot be read as an Excel sheet ({type(error).__name__}); save it as .csv"
        ) from None


def _same_width(records: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """Cut the empty cells at the end of rows; the header decides how many there are."""
    width = 0
    for row in records:
        while len(row) > max(width, 1) and row[-1] is None:
            row.pop()
        if not width and not _is_blank(row):
            width = len(row)
        yield row + [None] * (width - len(row))


def _excel_value(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.isoformat() if isinstance(value, date | time) else value


# --- JSONL ----------------------------------------------------------------------------------------------------------
def _json_batches(source: SourceFile, faults: Faults) -> Iterator[Batch]:
    rows: list[Row] = []
    numbers: list[int] = []
    size = 0
    for number, row in _json_rows(source, faults):
        rows.append(row)
        numbers.append(number)
        size += sum([len(value) for value in row.values() if isinstance(value, str)])
        if len(rows) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
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
            while line := stream.readline(_LONGEST_FIELD):
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
                    faults.add(number, "is not a JSON object ({...})")
        except UnicodeError:
            faults.add(number + 1, "is no text in the encoding of the file's start; convert the file to UTF-8")
    if number == 0:
        raise RowError(source.name, None, "is empty; it needs a JSON object in each line")


# --- parquet --------------------------------------------------------------------------------------------------------
def _parquet_batches(source: SourceFile) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with source.open() as stream, pq.ParquetFile(_seekable(source, stream)) as table:
            # a dictionary page may repeat one long text in every row: limit the rows of a batch by the worst case
            groups = [table.metadata.row_group(i) for i in range(table.metadata.num_row_groups)]
            longest = max(
                (g.column(c).total_uncompressed_size for g in groups for c in range(g.num_columns)), default=0
            )
            packed = sum(g.column(c).total_compressed_size for g in groups for c in range(g.num_columns))
            typed = {name: names for name, f in plain_features(table.schema_arrow).items() if (names := label_names(f))}
            unpacked = 0
            for batch in table.iter_batches(batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, longest)))):
                unpacked += sum(map(unpacked_size, batch.columns))
                if unpacked > max(_SMALL, _RATIO * packed):
                    raise RowError(
                        source.name, number, f"unpacks to more than {_RATIO} times its size by texts that it repeats"
                    )
                columns = batch.to_pydict()
                for name, names in typed.items():  # a label of a Dataset is an index into its names
                    columns[name] = [_named(value, names) for value in columns[name]]
                yield Batch(range(number + 1, number + 1 + len(batch)), columns)
                number += len(batch)
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
            hint = f"; the file spells it {near!r}" if near else ""
            shown = names_shown(batch.columns, *needed)
            raise RowError(as_source(file).name, None, f"has no column {name!r}; it has {shown}{hint}")


def is_missing(value: Any) -> bool:
    """Return whether a cell holds nothing: null, not-a-number, no character or blanks alone."""
    if value is None:
        return True
    return (not value or value.isspace()) if isinstance(value, str) else isinstance(value, float) and math.isnan(value)
