"""Strict readers of XML files and of brat annotations (.ann).

No error holds text of a note. A mention's text is compared with the note at its offsets, piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_synth.errors import RowError
from hf_synth.gold.readers import File, read_text
from hf_synth.gold.sources import SourceFile, as_source

_SPAN = re.compile(r"(T\w+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?", re.DOTALL)
_EVENT = re.compile(r"(E\w+)\t(\S+?):(T\w+)(?: .*)?")
_ATTRIBUTE = re.compile(r"[AM]\w+\t(\S+) ([TE]\w+)(?: (\S+))?")
_OTHER = ("R", "*", "#", "N")  # lines of brat that are skipped: relations, equivalences, notes, normalisations
_LINE_END = re.compile(r"\r\n|\n|\r")  # not the form feed and the like, which stand inside notes
_LONGEST_LINE = 1 << 20
_BARE = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-fA-F]+);)")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


# --- XML ------------------------------------------------------------------------------------------------------------
def xml_elements(file: File, *tags: str) -> Iterator[tuple[str, Any]]:
    """Yield ("start" or "end", element) of the elements with some tags, in document order, in constant memory.

    An element has its text and children only at its "end", and is emptied when the loop continues.

    Raises:
        RowError: it is not well-formed XML, with the line and the cause; or it holds a DTD or entities.
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
            why = _xml_cause(source, error.code, line)
            raise RowError(source.name, None, f"is not well-formed XML (line {line}): {why}") from None
        except DefusedXmlException:
            raise RowError(source.name, None, "holds a DTD or entities, which are not read; remove them") from None
        except (LookupError, ValueError):
            raise RowError(source.name, None, "names an unknown encoding; convert it to UTF-8") from None


def _xml_cause(source: SourceFile, code: int, number: int) -> str:
    """Return why expat stopped in a line, by its code and what the line holds."""
    with source.open() as stream:
        first = stream.read(200)
    if code == 3 and not first.strip():
        return "the file is empty"
    if code in (3, 5, 13):  # no element, an unclosed token, an unclosed CDATA section
        return "the file ends too early; is it whole?"
    if code == 7:
        return "an element is closed by another's name, or a bare < stands in a text (write &lt;)"
    if code == 9:
        return "something follows the outermost element; are two files joined?"
    if code == 17:
        return "something stands before <?xml ...?>, which must come first; remove it"
    if code == 8:
        return "an attribute stands twice in one element"
    line = _line(source, number)
    if _CONTROL.search(line):
        return "the line holds a control character, which XML does not allow; remove it"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        if b"encoding" not in first.split(b"?>")[0]:
            return "the line is not UTF-8, and the file names no other encoding (Windows-1252?); convert it to UTF-8"
        return "the line is not in the encoding that the file names; convert it to UTF-8"
    if code == 11 or _BARE.search(line):
        return "a bare & stands in the line (write &amp;)"
    if re.search(rb"<!--(?:(?!-->).)*?--[^>]", line):
        return "a comment holds two hyphens (--), which XML does not allow; remove it"
    if re.search(rb"<(?![A-Za-z_/!?])", line):
        return "a bare < stands in the line (write &lt;)"
    return "the markup of the line is broken; compare it with the source's file"


def _line(source: SourceFile, number: int) -> bytes:
    with source.open() as stream:
        line = b""
        for _ in range(number):
            line = stream.readline(_LONGEST_LINE)
        return line


# --- brat -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Span:
    """One text-bound annotation of a brat file.

    Args:
        id: its name in the file, e.g. "T3".
        kind: its type.
        start, end: its offsets in the text, in characters; of several pieces, the outermost ones.
        text: the text that it covers, as the file has it; pieces are joined by a blank.
        pieces: the offsets of each piece of the text that it covers.
    """

    id: str
    kind: str
    start: int
    end: int
    text: str
    pieces: tuple[tuple[int, int], ...] = ()

    def stands_in(self, text: str) -> bool:
        """Return whether a text holds this span's text at its offsets; line ends and blanks do not count."""
        covered = [text[a:b] for a, b in self.pieces or ((self.start, self.end),)]
        words = " ".join(" ".join(covered).split())
        return bool(words) and words == " ".join(self.text.split())


@dataclass(frozen=True)
class Brat:
    """The annotations of one note.

    Args:
        spans: by id.
        events: (id, type, id of the trigger's span), in order of the file.
        attributes: (name, value) of each annotation, by its id.
        lines: the number of the line of each span and event, by id; of each attribute, by the id and its name.
    """

    spans: Mapping[str, Span] = field(default_factory=dict)
    events: tuple[tuple[str, str, str], ...] = ()
    attributes: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    lines: Mapping[str | tuple[str, str], int] = field(default_factory=dict)


def read_brat(file: File) -> Brat:
    """Read a brat standoff file (.ann): spans, events, attributes.

    Raises:
        RowError: a line has not the format of brat; names its number.
    """
    source = as_source(file)
    spans: dict[str, Span] = {}
    events: list[tuple[str, str, str]] = []
    attributes: dict[str, list[tuple[str, str]]] = {}
    lines: dict[str | tuple[str, str], int] = {}
    for number, line in enumerate(_LINE_END.split(read_text(source)), 1):
        if not line.strip() or line.startswith(_OTHER):
            continue
        if match := _SPAN.fullmatch(line):
            ends = [int(n) for n in re.findall(r"\d+", match[3])]
            pieces = tuple(zip(ends[::2], ends[1::2], strict=True))
            spans[match[1]] = Span(match[1], match[2], min(ends), max(ends), match[4] or "", pieces)
            lines[match[1]] = number
        elif match := _EVENT.fullmatch(line.rstrip()):
            events.append((match[1], match[2], match[3]))
            lines[match[1]] = number
        elif match := _ATTRIBUTE.fullmatch(line.rstrip()):
            attributes.setdefault(match[2], []).append((match[1], match[3] or ""))
            lines[match[2], match[1]] = number
        else:
            raise RowError(source.name, number, "is no line of a brat annotation file; is it the right file?")
    return Brat(spans, tuple(events), {k: tuple(v) for k, v in attributes.items()}, lines)


def annotated_text(file: File, text: str, brat: Brat) -> str:
    """Return a note in the form that its annotations count: as it is, or with each line end as one character.

    Args:
        file: of the annotations, for the error.
        text: the note, with its line ends.

    Raises:
        RowError: a mention does not stand where its offsets say, in either form; names the line, and the unit that the
            offsets count where that is bytes or UTF-16.
    """
    forms = dict.fromkeys((text, text.replace("\r\n", "\n")))
    for form in forms:
        wrong = [span for span in brat.spans.values() if not span.stands_in(form)]
        if not wrong:
            return form
    wrong = [span for span in brat.spans.values() if not span.stands_in(text)]
    place = f"{wrong[0].id} does not stand in the note where its offsets say"
    for unit, encoding, size in (("bytes of UTF-8", "utf-8", 1), ("UTF-16 units", "utf-16-le", 2)):
        if any(all(_stands_at(form.encode(encoding, "replace"), encoding, size, s) for s in wrong) for form in forms):
            what = f"they count {unit} instead of characters; convert them"
            raise RowError(file.name, brat.lines.get(wrong[0].id), f"{place}: {what}")
    raise RowError(file.name, brat.lines.get(wrong[0].id), f"{place}; are both of one release?")


def _stands_at(data: bytes, encoding: str, size: int, span: Span) -> bool:
    covered = " ".join(data[a * size : b * size].decode(encoding, "replace") for a, b in span.pieces)
    return bool(covered.strip()) and covered.split() == span.text.split()
