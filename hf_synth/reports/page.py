"""Reports as HTML and Markdown: sections of text, pictures and tables; no JavaScript, no network.

The HTML file (template: `page.html`) holds everything: its style, its pictures (`plots.py`), the tables beneath them.
Its content security policy lets nothing in or out. All text is escaped; `code` between backticks is the only mark.
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
from typing import Any

from hf_synth.task.folders import write_private

_NUMERIC = re.compile(
    r"[-+±$€<>≥≤~≈]*\s*(\d[\d,.]*(e[-+]?\d+)?|nan)\s*(%|pp|s|ms|h|min|k|M|GB|MB)?\s*([(/x±].*)?|[–-]|n/a|nan|∞|",
    re.DOTALL,
)
_HIDDEN = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")  # marks that turn the order of text
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CODE = re.compile("`([^`\n]+)`")


@dataclass(frozen=True)
class Table:
    """Figures in rows.

    Args:
        header: name of each column.
        rows: cells; floats are written with `digits` decimals. The first cell names the row.
        caption: what the table shows.
        align: "l" or "r" for each column; columns of numbers stand to the right when it is empty.
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
    """

    title: str
    text: str = ""
    plots: Sequence[str] = ()
    tables: Sequence[Table] = ()
    note: str = ""


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
    """Return text that may stand in XML and in a line: marks that turn its order and control characters become �."""
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
    title: str, sections: Sequence[Section], *, simulated: str = "", facts: Sequence[tuple[str, object]] = ()
) -> str:
    """Return a report as Markdown: the text and the tables of its sections.

    Args:
        simulated: why its figures are no clinical ones.
        facts: names and values that say what was measured, and how.
    """
    blocks = [f"# {_md_block(title)}"]
    if simulated:
        blocks.append(f"> **Simulated:** {md_escaped(simulated)}")
    if facts:
        blocks.append("\n".join(f"- {_md_block(str(name))}: {md_escaped(cell_text(value))}" for name, value in facts))
    for section in sections:
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


def _paragraphs(text: str) -> list[str]:
    return [p.strip() for p in re.split(r"\n\s*\n", text) if p.strip()]


def _items(paragraph: str) -> list[str]:
    """Return the items of a paragraph that is a list, else none."""
    lines = paragraph.splitlines()
    return [line[2:] for line in lines] if all(line.startswith("- ") for line in lines) else []


# --- HTML -----------------------------------------------------------------------------------------------------------
def page(
    title: str, sections: Sequence[Section], *, simulated: str = "", facts: Sequence[tuple[str, object]] = ()
) -> str:
    """Return a report as one HTML page that needs nothing else.

    Args:
        simulated: why its figures are no clinical ones; a banner says so. Plots have their own argument for it.
        facts: names and values that say what was measured, and how.
    """
    return str(_template().render(title=title, sections=sections, simulated=simulated, facts=facts))


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def inline(text: object) -> Markup:
        """Escape a text; what stands between backticks becomes code."""
        pieces = _CODE.split(clean(text))
        return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(pieces))

    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    env.filters |= {"clean": clean, "inline": inline, "cell": cell_text, "paragraphs": _paragraphs, "items": _items}
    return env.from_string(resources.files("hf_synth.reports").joinpath("page.html").read_text(encoding="utf-8"))


# --- files ----------------------------------------------------------------------------------------------------------


def write_report(
    folder: str | Path,
    title: str,
    sections: Sequence[Section],
    *,
    simulated: str = "",
    facts: Sequence[tuple[str, object]] = (),
) -> Path:
    """Write report.html and report.md, readable by their owner alone; return the path of the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    page_file = Path(folder) / "report.html"
    write_private(page_file, page(title, sections, simulated=simulated, facts=facts))
    write_private(page_file.with_suffix(".md"), markdown(title, sections, simulated=simulated, facts=facts))
    return page_file
