"""Reports as HTML and Markdown: a verdict, then sections of text, pictures and tables; no JavaScript, no network.

The HTML file (template: `page.html`) holds everything: its style, its pictures (`plots.py`), the tables beneath them.
Its content security policy lets nothing in or out. All text is escaped; `code` between backticks is the only mark.
On a phone pictures are drawn again and wide tables become lists, so that nothing scrolls sideways.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from hf_synth.task.folders import write_private

_NUMERIC = re.compile(
    r"[-+±$€<>≥≤~≈]*\s*(\d[\d,.]*(e[-+]?\d+)?|nan)\s*(%|pp|s|ms|h|min|k|M|GB|MB)?\s*([(/x±].*)?|[–-]|n/a|nan|∞|",
    re.DOTALL,
)
_HIDDEN = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")  # marks that turn the order of text
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CODE = re.compile("`([^`\n]+)`")
_PHONE, _LETTER, _ROOM = 350, 8.2, 18  # pixels of a table on a phone, of a letter, and between columns
_LONG = 40  # letters of a cell that would be a tall column on a phone

State = Literal["good", "bad", "unsure", ""]


@dataclass(frozen=True)
class Table:
    """Figures in rows.

    Args:
        header: name of each column.
        rows: cells; floats are written with `digits` decimals. The first cell names the row.
        caption: what the table shows.
        align: "l" or "r" for each column; columns of numbers are right-aligned when it is empty.
        digits: decimals of floats.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    align: str = ""
    digits: int = 3

    def cells(self) -> list[list[str]]:
        """Return every cell as text."""
        return [[cell_text(c, self.digits) for c in row] for row in self.rows]

    def alignment(self) -> str:
        """Return "l" or "r" for each column."""
        if self.align:
            return self.align
        cells = self.cells()
        columns = range(len(self.header))
        numeric = [bool(cells) and all(_NUMERIC.fullmatch(row[i]) for row in cells) for i in columns]
        return "".join("r" if i and yes else "l" for i, yes in enumerate(numeric))

    def is_wide(self) -> bool:
        """Return whether the table does not fit on a phone; its rows become lists there."""

        def words(column: int, right: bool) -> float:
            texts = [str(self.header[column]), *(row[column] for row in cells)]
            pieces = texts[1:] if right else []
            return max((len(piece) for piece in [*pieces, *" ".join(texts).split()]), default=0)

        cells, align = self.cells(), self.alignment()
        widths = [_ROOM + _LETTER * words(i, align[i] == "r") for i in range(len(self.header))]
        return sum(widths) > _PHONE or any(len(cell) > _LONG for row in cells for cell in row[1:])


def matrix_table(
    values: Sequence[Sequence[object]], row_names: Sequence[str], column_names: Sequence[str], *, corner: str = "",
    caption: str = "", digits: int = 3,
) -> Table:  # fmt: skip
    """Return the numbers of a matrix as a table.

    Args:
        corner: what rows and columns are, e.g. "true label / label given".
    """
    rows = [[name, *row] for name, row in zip(row_names, values, strict=True)]
    return Table([corner, *column_names], rows, caption, digits=digits)


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Args:
        title: its heading.
        text: paragraphs, an empty line between them; a paragraph of lines that begin with "- " is a list.
        plots: pictures as SVG, of `plots.py`.
        tables: the figures, beneath the pictures.
        note: a caveat, set apart.
        folded: whether the page shows the heading alone until a reader opens it.
        private: whether the section holds texts of notes, which are on the page alone and not in Markdown.
    """

    title: str
    text: str = ""
    plots: Sequence[str] = ()
    tables: Sequence[Table] = ()
    note: str = ""
    folded: bool = False
    private: bool = False


@dataclass(frozen=True)
class Tile:
    """One number that a report is about.

    Args:
        value: the number, as text.
        name: what it is.
        note: its interval, or what it was counted from.
        state: whether it is good or bad; "" where it is neither.
    """

    value: str
    name: str
    note: str = ""
    state: State = ""


@dataclass(frozen=True)
class Lead:
    """What a report says first.

    Args:
        verdict: the result in one or two sentences; the first text after the title.
        state: whether the result is good, bad or not clear; "" where it is none of these.
        alarm: what failed, and how to repair it: a title, a text and a command; empty for nothing.
        tiles: the numbers that matter most.
        points: what else a reader must know, a sentence each.
        steps: what to do next: a sentence and a command each.
    """

    verdict: str
    state: State = ""
    alarm: tuple[str, str, str] | tuple[()] = ()
    tiles: Sequence[Tile] = ()
    points: Sequence[str] = ()
    steps: Sequence[tuple[str, str]] = ()


def cell_text(value: object, digits: int = 3) -> str:
    """Write the value of a cell: floats with fixed decimals, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, bool | Integral) or not isinstance(value, Real):
        return str(value)
    return number(float(value), digits)


def number(value: float, digits: int = 3) -> str:
    """Write a number for a reader: fixed decimals, powers of ten where they are too small, a dash for nan."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}" if abs(value) < 1e9 else f"{value:.3e}"


def clean(text: object) -> str:
    """Return text that is valid in XML and on one line: marks that turn its order and control characters become �."""
    return _NOT_XML.sub("\ufffd", _HIDDEN.sub("\ufffd", str(text)))


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, digits: int = 3, align: str = "") -> str:
    """Return a Markdown table with padded columns, which reads well in a terminal too.

    Args:
        align: "l" or "r" for each column; to the left when it is empty.
    """
    cells = [[_md_cell(c, digits) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [align[i : i + 1] == "r" for i in range(len(header))]
    lines = [
        "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) + " |"
        for row in cells
    ]
    rules = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([lines[0], f"|{rules}|", *lines[1:]])


def _md_cell(value: object, digits: int) -> str:
    return md_escaped(cell_text(value, digits)).replace("|", "\\|")


def md_escaped(text: str) -> str:
    """Escape text for Markdown: no HTML, no link, no picture, no emphasis; `code` stays."""
    pieces = _CODE.split(" ".join(clean(text).split()))
    return "".join(f"`{piece}`" if i % 2 else _md_plain(piece) for i, piece in enumerate(pieces))


def _md_plain(text: str) -> str:
    text = re.sub(r"([\\`*])", r"\\\1", text)
    text = re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)  # where a tag or an address begins; "< 0.001" stays
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # "gold_200" stays
    text = re.sub(r"&(?=#?\w+;)", r"\\&", text)
    return text.replace("](", "]\\(").replace("][", "]\\[")


def _md_block(text: str) -> str:
    """Escape a line so that it begins no heading, list, quote, fence, rule, table or definition."""
    return re.sub(r"^(\s*)([-+=~>|:#]|\[)", r"\1\\\2", re.sub(r"^(\s*\d+)([.)])", r"\1\\\2", md_escaped(text)))


def markdown(
    title: str,
    sections: Sequence[Section],
    *,
    simulated: str = "",
    facts: Sequence[tuple[str, object]] = (),
    lead: Lead | None = None,
) -> str:
    """Return a report as Markdown: the text and the tables of its sections, without those that are private.

    Args:
        simulated: why its figures are no clinical ones.
        facts: names and values that say what was measured, and how.
        lead: what it says first.
    """
    blocks = [f"# {_md_block(title)}", *(_lead_blocks(lead) if lead else [])]
    if simulated:
        blocks.append(f"> **Simulated:** {md_escaped(simulated)}")
    if facts:
        blocks.append("\n".join(f"- {_md_block(str(name))}: {md_escaped(cell_text(value))}" for name, value in facts))
    for section in sections:
        if section.private:
            continue
        blocks.append(f"## {_md_block(section.title)}")
        for paragraph in _paragraphs(section.text):
            items = _items(paragraph)
            blocks.append("\n".join(f"- {_md_block(i)}" for i in items) if items else _md_block(paragraph))
        if section.note:
            blocks.append(f"> {_md_block(section.note)}")
        for table in section.tables:
            if table.caption:
                blocks.append(_md_block(table.caption))
            blocks.append(markdown_table(table.header, table.cells(), align=table.alignment()))
    return "\n\n".join(blocks) + "\n"


def lead_markdown(lead: Lead) -> str:
    """Return what a report says first as Markdown, for a terminal."""
    return "\n\n".join(_lead_blocks(lead))


def _md_code(text: str) -> str:
    """Return a text as code on one line, whatever backticks it has."""
    line = clean(text).replace("\n", " ")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}{line}{' ' if line.endswith('`') else ''}{fence}"


def _lead_blocks(lead: Lead) -> list[str]:
    blocks = [_md_block(lead.verdict)]
    if lead.alarm:
        title, text, command = lead.alarm
        lines = [f"**{md_escaped(title)}**", md_escaped(text), _md_code(command) if command else ""]
        blocks.append("\n>\n".join(f"> {line}" for line in lines if line))
    tiles = [f"- {_md_block(t.name)}: {md_escaped(f'{t.value} ({t.note})' if t.note else t.value)}" for t in lead.tiles]
    points = [f"- {_md_block(point)}" for point in lead.points]
    steps = [f"- {_md_block(text)}: {_md_code(command)}" for text, command in lead.steps]
    if steps:
        steps = ["What to do next:", "", *steps]
    return blocks + ["\n".join(lines) for lines in (tiles, points, steps) if lines]


def _paragraphs(text: str) -> list[str]:
    return [p.strip() for p in re.split(r"\n\s*\n", text) if p.strip()]


def _items(paragraph: str) -> list[str]:
    """Return the items of a paragraph that is a list, else none."""
    lines = paragraph.splitlines()
    return [line[2:] for line in lines] if all(line.startswith("- ") for line in lines) else []


# --- HTML -----------------------------------------------------------------------------------------------------------
def page(
    title: str,
    sections: Sequence[Section],
    *,
    simulated: str = "",
    facts: Sequence[tuple[str, object]] = (),
    lead: Lead | None = None,
) -> str:
    """Return a report as one HTML page that needs nothing else.

    Args:
        simulated: why its figures are no clinical ones; a banner says so. Plots have their own argument for it.
        facts: names and values that say what was measured, and how; folded at the end where there is a lead.
        lead: what it says first. With it there is no list of contents: the headings of folded sections are one.
    """
    return str(_template().render(title=title, sections=sections, simulated=simulated, facts=facts, lead=lead))


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def inline(text: object) -> Markup:
        """Escape a text; text between backticks becomes code."""
        pieces = _CODE.split(clean(text))
        return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(pieces))

    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    env.filters |= {"clean": clean, "inline": inline, "cell": cell_text, "paragraphs": _paragraphs, "items": _items}
    env.filters["narrow"] = lambda plot: getattr(plot, "narrow", "")  # a plain SVG has one form alone
    return env.from_string(resources.files("hf_synth.reports").joinpath("page.html").read_text(encoding="utf-8"))


# --- files ----------------------------------------------------------------------------------------------------------


def write_report(
    folder: str | Path,
    title: str,
    sections: Sequence[Section],
    *,
    simulated: str = "",
    facts: Sequence[tuple[str, object]] = (),
    lead: Lead | None = None,
) -> Path:
    """Write report.html and report.md, readable by their owner alone; return the path of the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    page_file = Path(folder) / "report.html"
    write_private(page_file, page(title, sections, simulated=simulated, facts=facts, lead=lead))
    text = markdown(title, sections, simulated=simulated, facts=facts, lead=lead)
    write_private(page_file.with_suffix(".md"), text)
    return page_file
