"""Strict readers of text, and of the fields of a row. Tables are read by `tables.py`, JSON, XML and brat beside it.

No error holds text of a row. Every reader takes a file on disk or a member of an archive.
"""

from __future__ import annotations

import codecs
import functools
import io
import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_synth.errors import RowError
from hf_synth.gold.sources import SourceFile, as_source
from hf_synth.task.columns import names_shown

_LONGEST_TEXT = 50 << 20  # bytes of one note in a file of its own
_CHUNK = 1 << 20
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # bytes that no text in an 8-bit encoding has
_LOG = logging.getLogger(__name__)
_PLACE = threading.local()  # file and number of the row whose fields were read last
ENCODING_NOTES: dict[SourceFile, str] = {}  # what was said of the encoding of a file
File = SourceFile | Path
Row = dict[str, Any]


# --- text -----------------------------------------------------------------------------------------------------------
def open_text(file: File, *, newline: str = "") -> io.TextIOWrapper:
    """Open a file as text with its line ends: UTF-8 with or without a byte-order mark, or UTF-16 with one.

    Any other file is read as Windows-1252 (latin-1 and its quotes), with a warning.

    Args:
        newline: what ends a line, as for `open`.

    Raises:
        RowError: it is no text.
    """
    source = as_source(file)
    return io.TextIOWrapper(source.open(), encoding=encoding_of(source), newline=newline)


def encoding_of(file: File) -> str:
    """Detect the encoding of a file; a file that did not change is read once for it, and one warning is logged.

    Raises:
        RowError: it is no text.
    """
    source = as_source(file)
    try:
        stats = source.path.stat()
    except OSError:
        return _encoding(source)
    return _known_encoding(source, stats.st_mtime_ns, stats.st_size)


@functools.lru_cache(maxsize=64)
def _known_encoding(source: SourceFile, changed: int, size: int) -> str:
    return _encoding(source)


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
