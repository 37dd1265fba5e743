"""Read .csv, .tsv and .xlsx: sheets with a header, as spreadsheets write them and people change them.

Columns without a name, rows without content and repeated header lines hold no data and are left out. A row with too
many or too few fields is a fault, not a shifted column. Rows are numbered so that row n stands in line n + 1 of a
spreadsheet, which counts blank lines and takes a cell with line breaks for one line. Where the row begins on another
line of a CSV file, as an editor shows it, its number knows that line too (`RowOnLine`).
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date, time
from typing import Any

from hf_synth.errors import MissingExtraError, RowError, RowOnLine
from hf_synth.gold.faults import Batch, Faults
from hf_synth.gold.readers import open_text
from hf_synth.gold.sources import SourceFile

BATCH_ROWS, BATCH_CHARACTERS = 1_000, 4 << 20
LONGEST_FIELD = 50_000_000  # characters; the default of csv, 131,072, is too short for long notes
_RATIO, _SMALL = 200, 100 << 20  # a spreadsheet that unpacks beyond this ratio is refused
_SAMPLE, _SAMPLED_ROWS = 1 << 18, 50  # what the delimiter is found from
_DELIMITERS = (",", ";", "\t", "|")
_MARK = re.compile(r'"?sep=(.)"?[ \t,;]*\r?\n?', re.IGNORECASE)  # the first line of some files for Excel
_LONGEST_NAME = 64  # characters of a column's name
_LOG = logging.getLogger(__name__)


# --- CSV ------------------------------------------------------------------------------------------------------------
def csv_batches(source: SourceFile, faults: Faults, needed: Collection[str] | None) -> Iterator[Batch]:
    """Yield the rows of a .csv or .tsv file, all strings; the delimiter is found from the first rows.

    Args:
        needed: columns that each row must have; None means all.

    Raises:
        RowError: the file is no text, or its header is wrong.
    """
    csv.field_size_limit(LONGEST_FIELD)
    delimiter, marked = _delimiter(source)
    with open_text(source) as stream:
        if marked:
            stream.readline()
        records = csv.reader(stream, delimiter=delimiter, strict=True)
        yield from _sheet_batches(source, records, faults, needed, lambda: records.line_num + marked)


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
    source: SourceFile,
    records: Iterator[Sequence[Any]],
    faults: Faults,
    needed: Collection[str] | None,
    line: Callable[[], int] | None = None,
) -> Iterator[Batch]:
    """Yield the rows below the header of a sheet.

    Args:
        records: the rows of the sheet, the header among them.
        line: returns the line of the file on which the last row ended; None where a file has no lines.
    """
    sheet = _Sheet(source, needed, line)
    try:
        for number, first in enumerate(records):
            sheet.number = number
            if not _is_blank(first):
                break
        else:
            raise RowError(source.name, None, "is empty; it needs a header row")
        sheet.name_columns([_name(cell) for cell in first])
        yield from sheet.batches(records, faults)
    except csv.Error as error:
        faults.add(sheet.next_number(), _quoting(error))
    except UnicodeError:
        faults.add(sheet.next_number(), "is no text in the encoding of the file's start; convert the file to UTF-8")


@functools.lru_cache(maxsize=256)  # a table is read several times in one command
def _warn_of_repeats(source: SourceFile, repeats: int) -> None:
    _LOG.warning("%s repeats its header in %d lines: these are left out (were files joined?)", source.name, repeats)


@functools.lru_cache(maxsize=256)
def _warn_of_sheets(source: SourceFile, count: int) -> None:
    _LOG.warning("%s has %d sheets: its first one is read", source.name, count)


def _quoting(error: csv.Error) -> str:
    said = str(error)
    if "end of data" in said:
        cause = "a quote opens a field of this row and nothing closes it; the rows below went into that field"
    elif "expected after" in said:
        cause = 'a field in quotes holds a quote that is not doubled; write "" for a quote inside'
    elif "limit" in said:
        cause = f"a field is longer than {LONGEST_FIELD:,} characters; a quote is not closed?"
    else:
        cause = "check the quotes of this row"
    return f"the quoting is broken: {cause}"


def _name(cell: Any) -> str:
    return "" if cell is None else str(cell).strip("\ufeff\u200b \t\r\n\xa0")


def _is_blank(cells: Sequence[Any]) -> bool:
    return all(cell is None or (isinstance(cell, str) and (not cell or cell.isspace())) for cell in cells)


class _Sheet:
    """The rows of a CSV file or a spreadsheet, below its header."""

    def __init__(
        self, source: SourceFile, needed: Collection[str] | None, line: Callable[[], int] | None = None
    ) -> None:
        self.source, self.needed, self._line = source, needed, line
        self.number = 0  # of the row that was read last: its line in a spreadsheet minus 1
        self._ended = 0  # line of the file on which the row before it ended
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
        self.places: dict[str, int] = {}
        for i, name in enumerate(header):
            if name:
                self.places.setdefault(name, i)  # the first of a name
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
        self._ended = 0 if self._line is None else self._line()
        for row in records:
            self.number = self.next_number()
            if self._line is not None:
                self._ended = self._line()
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
            if len(rows) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield self._batch(rows, numbers)
                rows, numbers, size = [], [], 0
        if rows:
            yield self._batch(rows, numbers)
        if self.repeats:
            _warn_of_repeats(self.source, self.repeats)

    def next_number(self) -> int:
        """Return the number of the row after the one that was read last."""
        number = int(self.number) + 1
        same = self._line is None or self._ended == number
        return number if same else RowOnLine(number, self._ended + 1)

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
        """Check that the header is not the title of the sheet: one cell above rows of several, or a few above many.

        Raises:
            RowError: it is.
        """
        filled, named = sum(not _is_blank([cell]) for cell in row), sum(map(bool, self.header))
        several = named > 1 and len(row) == self.width and 2 * named < filled  # a longer row lacks quotes
        if several or (self.header[0] and named == 1 and filled > 1):
            names = "one name" if named == 1 else f"{named} names"
            quotes = "" if self._line is None else "; a text with a separator needs quotes"
            raise RowError(
                self.source.name,
                None,
                f"has {names} in its first line and {filled} cells below it; if that line is a title, remove it, so "
                f"that the first line names the columns{quotes}",
            )


# --- Excel ----------------------------------------------------------------------------------------------------------
def excel_batches(source: SourceFile, faults: Faults, needed: Collection[str] | None) -> Iterator[Batch]:
    """Yield the rows of the first visible sheet of an .xlsx file; dates are text, whole numbers are integers.

    Args:
        needed: columns that each row must have; None means all.

    Raises:
        MissingExtraError: openpyxl is not installed.
        RowError: the file is no Excel file, or its header is wrong.
    """
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
            _warn_of_sheets(source, len(sheets))
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
    """Bring all rows to the width of the header: cells to its right are in no column, as remarks beside a table are."""
    width = 0
    for row in records:
        if not width and not _is_blank(row):
            width = max(i for i, cell in enumerate(row) if not _is_blank([cell])) + 1
            row = row[:width]
        # beside a single name, which may be a title, nothing is cut off: `_check_title` asks for the rows below it
        yield row if width < 2 else (row + [None] * (width - len(row)))[:width]


def _excel_value(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.isoformat() if isinstance(value, date | time) else value
