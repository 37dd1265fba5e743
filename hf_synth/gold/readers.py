"""Strict readers of text, JSON, XML and brat files; fields of a row. Tables are read by `tables.py`.

No error holds text of a row. Every reader takes a file on disk or a member of an archive, and holds one element of XML
and JSON in memory.
"""

from __future__ import annotations

import codecs
import functools
import io
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hf_synth.errors import RowError
from hf_synth.gold.sources import SourceFile, as_source
from hf_synth.task.columns import names_shown

_LONGEST_TEXT = 50 << 20  # bytes of one note in a file of its own
_CHUNK = 1 << 20
_DEEPEST = 64  # levels of JSON
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # bytes that no text in an 8-bit encoding has
_SPAN = re.compile(r"(T\w+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?")
_EVENT = re.compile(r"(E\w+)\t(\S+?):(T\w+)(?: .*)?")
_ATTRIBUTE = re.compile(r"[AM]\w+\t(\S+) ([TE]\w+)(?: (\S+))?")
_OTHER = ("R", "*", "#", "N")  # lines of brat that are skipped: relations, equivalences, notes, normalisations
_LOG = logging.getLogger(__name__)
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
    if _decodes(source, "utf-8-sig"):
        return "utf-8-sig"
    if _decodes(source, "cp1252"):
        _LOG.warning("%s is not UTF-8: read as Windows-1252 (latin-1); check its accents", source.name)
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


# --- JSON, XML, brat ------------------------------------------------------------------------------------------------
def json_items(file: File, path: str) -> Iterator[Any]:
    """Yield the elements at a path of a JSON file of any size ("data.item.paragraphs.item"), one at a time.

    Raises:
        RowError: it is not JSON in UTF-8; elements before the fault are yielded first.
    """
    import ijson

    yield from _json_stream(as_source(file), lambda stream: ijson.items(stream, path, use_float=True))


def json_events(file: File) -> Iterator[tuple[int, str, Any]]:
    """Yield (depth, event, value) for everything in a JSON file of any size, with the events of `ijson.basic_parse`.

    Depth 0 is the outermost value. Read the events of an untrusted file before its elements: this checks that all of it
    is JSON, and not too deep, before a row is made.

    Raises:
        RowError: it is not JSON in UTF-8, or nested too deep.
    """
    import ijson

    source, depth = as_source(file), 0
    for event, value in _json_stream(source, lambda stream: ijson.basic_parse(stream, use_float=True)):
        if event in ("end_map", "end_array"):
            depth -= 1
        yield depth, event, value
        if event in ("start_map", "start_array"):
            depth += 1
            if depth > _DEEPEST:  # paths grow with the depth: the time for the elements grows with its square
                raise RowError(source.name, None, f"is nested deeper than {_DEEPEST} levels; is it the right file?")


def _json_stream(source: SourceFile, read: Any) -> Iterator[Any]:
    import ijson

    number = 0
    with source.open() as stream:
        try:
            for number, element in enumerate(read(_WithoutMark(stream)), 1):  # noqa: B007
                yield element
        except (ijson.JSONError, UnicodeDecodeError, RecursionError, ValueError):
            raise RowError(
                source.name, None, f"is not JSON in UTF-8 after its element {number:,}; download it again"
            ) from None


class _WithoutMark:
    """A stream without its byte-order mark."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._first: bytes | None = stream.read(3)
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self._first is not None and size != 0:
            first, self._first = self._first.removeprefix(codecs.BOM_UTF8), None
            return first or self._stream.read(size)
        return self._stream.read(size)


def xml_elements(file: File, *tags: str) -> Iterator[tuple[str, Any]]:
    """Yield ("start" or "end", element) of the elements with some tags, in document order, in constant memory.

    An element has its text and children only at its "end", and is emptied when the loop continues.

    Raises:
        RowError: it is not well-formed XML, or holds a DTD or entities.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    source = as_source(file)
    with source.open() as stream:
        try:
            for event, element in iterparse(stream, events=("start", "end"), forbid_dtd=True):
                if element.tag in tags:
                    yield event, element
                if event == "end" and element.tag in tags:
                    element.clear()
        except ParseError as error:
            line = error.position[0]
            raise RowError(source.name, None, f"is not well-formed XML (line {line}); download it again") from None
        except DefusedXmlException:
            raise RowError(source.name, None, "holds a DTD or entities, which are not read; remove them") from None
        except (LookupError, ValueError):
            raise RowError(source.name, None, "names an unknown encoding; convert it to UTF-8") from None


@dataclass(frozen=True)
class Span:
    """One text-bound annotation of a brat file.

    Args:
        id: its name in the file, e.g. "T3".
        kind: its type.
        start, end: its offsets in the text, in characters; of several pieces, the outermost ones.
        text: the text that it covers, as the file has it.
        pieces: how many pieces of the text it covers.
    """

    id: str
    kind: str
    start: int
    end: int
    text: str
    pieces: int = 1


@dataclass(frozen=True)
class Brat:
    """The annotations of one note.

    Args:
        spans: by id.
        events: (id, type, id of the trigger's span), in order of the file.
        attributes: (name, value) of each annotation, by its id.
    """

    spans: Mapping[str, Span] = field(default_factory=dict)
    events: tuple[tuple[str, str, str], ...] = ()
    attributes: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


def read_brat(file: File) -> Brat:
    """Read a brat standoff file (.ann): spans, events, attributes.

    Raises:
        RowError: a line has not the format of brat; names its number.
    """
    source = as_source(file)
    spans: dict[str, Span] = {}
    events: list[tuple[str, str, str]] = []
    attributes: dict[str, list[tuple[str, str]]] = {}
    for number, line in enumerate(read_text(source).splitlines(), 1):
        if not line.strip() or line.startswith(_OTHER):
            continue
        if match := _SPAN.fullmatch(line):
            ends = [int(n) for n in re.findall(r"\d+", match[3])]
            spans[match[1]] = Span(match[1], match[2], min(ends), max(ends), match[4] or "", len(ends) // 2)
        elif match := _EVENT.fullmatch(line.rstrip()):
            events.append((match[1], match[2], match[3]))
        elif match := _ATTRIBUTE.fullmatch(line.rstrip()):
            attributes.setdefault(match[2], []).append((match[1], match[3] or ""))
        else:
            raise RowError(source.name, number, "is no line of a brat annotation file; is it the right file?")
    return Brat(spans, tuple(events), {k: tuple(v) for k, v in attributes.items()})


# --- fields of a row ------------------------------------------------------------------------------------------------
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
