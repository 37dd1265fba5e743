"""Reports as text: one HTML file and one Markdown file of the same sections; pure, no JavaScript, no network.

The HTML file holds everything: its style, its pictures (`plots.py`), the data tables beneath them. Its content security
policy lets nothing in or out. All text from outside is escaped; `code` between backticks is the only mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path

from hf_synth.reports.drawing import DARK, LIGHT, clean, escaped, number
from hf_synth.task.folders import write_private

_NUMERIC = re.compile(
    r"[-+±$€<>≥≤~≈]*\s*(\d[\d,.]*(e[-+]?\d+)?|nan)\s*(%|pp|s|ms|h|min|k|M|GB|MB)?\s*([(/x±].*)?|[–-]|n/a|nan|∞|",
    re.DOTALL,
)
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
        """Give every cell as text."""
        return [[cell_text(c, self.digits) for c in row] for row in self.rows]

    def alignment(self) -> str:
        """Give "l" or "r" for each column."""
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
    """Give the numbers of a matrix as a table.

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
        plots: SVG texts, as `plots.py` gives them.
        tables: the figures, beneath the pictures.
        note: what a reader must know, set apart.
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


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, digits: int = 3, align: str = "") -> str:
    """Give a Markdown table with columns padded, so that it reads well in a terminal too; floats with 3 decimals.

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
    """Give text for Markdown that reads as it was: no HTML, no link, no picture, no emphasis; `code` stays."""
    pieces = _CODE.split(" ".join(clean(text).split()))
    return "".join(f"`{piece}`" if i % 2 else _md_plain(piece) for i, piece in enumerate(pieces))


def _md_plain(text: str) -> str:
    text = re.sub(r"([\\`*])", r"\\\1", text)
    text = re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)  # where a tag or an address begins; "< 0.001" stays
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    text = re.sub(r"&(?=#?\w+;)", r"\\&", text)
    return text.replace("](", "]\\(").replace("][", "]\\[")


def _md_block(text: str) -> str:
    """Give a line that begins no heading, list, quote, fence, rule, table or definition."""
    return re.sub(r"^(\s*)([-+=~>|:#]|\[)", r"\1\\\2", re.sub(r"^(\s*\d+)([.)])", r"\1\\\2", md_escaped(text)))


def markdown(
    title: str, sections: Sequence[Section], *, simulated: str = "", facts: Sequence[tuple[str, object]] = ()
) -> str:
    """Give a report as Markdown: the text and the tables of its sections.

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
    """Give the items of a paragraph that is a list, else none."""
    lines = paragraph.splitlines()
    return [line[2:] for line in lines] if all(line.startswith("- ") for line in lines) else []


# --- HTML -----------------------------------------------------------------------------------------------------------

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_SHAPE = """
*{box-sizing:border-box}
body{margin:0;font:16px/1.55 system-ui,sans-serif;overflow-wrap:break-word}
main,header,nav{max-width:900px;margin:0 auto;padding:0 20px}
h1{font-size:1.8em;line-height:1.2;margin:1.2em 0 .4em}
h2{font-size:1.3em;line-height:1.3;margin:2.4em 0 .5em;padding-top:.7em;border-top:1px solid}
p,ul{margin:.7em 0;max-width:72ch}
a{text-underline-offset:2px}
nav ol{columns:2;column-gap:32px;margin:.3em 0 0;padding-left:1.4em}
.banner{margin:1.2em 0;padding:.7em 1em;border-radius:4px;font-weight:600}
.note{padding:.1em 0 .1em 1em;border-left:4px solid}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15em 1.2em;margin:1em 0}
dd{margin:0}
.figures{display:flex;flex-wrap:wrap;gap:1.4em 16px;margin:1.4em 0}
figure{margin:0;max-width:100%;overflow-x:auto}
svg.plot{display:block;max-width:100%;height:auto}
.wide{overflow-x:auto;margin:1em 0}
table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.3em 0;font-weight:600}
th,td{padding:.3em 1.1em .3em 0;text-align:left;vertical-align:top;unicode-bidi:isolate;border-bottom:1px solid}
th{font-weight:600}
td:not(.r){min-width:8em}
tbody th{font-weight:400}
.r{text-align:right;white-space:nowrap}
code{font:.92em ui-monospace,monospace;padding:.05em .3em;border-radius:3px}
main{padding-bottom:3em}
@media screen and (max-width:600px){
svg.plot{max-width:none}nav ol{columns:1}dl{display:block}dt{margin-top:.4em}main,header,nav{padding:0 14px}}
@media print{
body{font-size:10.5pt}main,header,nav{max-width:none;padding:0}nav{display:none}.wide,figure{overflow:visible}.r{white-space:normal}td:not(.r){min-width:0}.figures{display:block}
figure{margin:1em 0}figure,.wide,tr,.banner,.note{break-inside:avoid}h1,h2,caption{break-after:avoid}
thead{display:table-header-group}.banner{print-color-adjust:exact;-webkit-print-color-adjust:exact}
svg.plot{max-height:22cm;max-width:100%}table{font-size:9pt}a{color:inherit;text-decoration:none}
@page{margin:16mm}}
"""


def _colours(c: dict[str, str]) -> str:
    return (
        f"body{{color:{c['ink']};background:{c['paper']}}}h2,th,td{{border-color:{c['grid']}}}a{{color:{c['s0']}}}"
        f".banner{{background:{c['soft']};border:1px solid {c['edge']}}}.note{{border-color:{c['s1']}}}"
        f"code{{background:{c['grid']}}}dt,caption{{color:{c['muted']}}}"
    )


_CSS = (
    f":root{{color-scheme:light dark}}{_SHAPE}{_colours(LIGHT)}"
    f"@media (prefers-color-scheme:dark){{{_colours(DARK)}}}"
    f"@media print{{:root{{color-scheme:light}}{_colours(LIGHT)}}}"
)


def page(
    title: str, sections: Sequence[Section], *, simulated: str = "", facts: Sequence[tuple[str, object]] = ()
) -> str:
    """Give a report as one HTML page that needs nothing else.

    Args:
        simulated: why its figures are no clinical ones; a banner says so. The plots say it themselves, if told.
        facts: names and values that say what was measured, and how.
    """
    banner = f'<p class="banner" role="note">Simulated: {_inline(simulated)}</p>' if simulated else ""
    listed = "".join(f"<dt>{_inline(n)}</dt><dd>{_inline(cell_text(v))}</dd>" for n, v in facts)
    entries = "".join(f'<li><a href="#s{i}">{_inline(s.title)}</a></li>' for i, s in enumerate(sections, 1))
    contents = f'<nav aria-label="Contents"><ol>{entries}</ol></nav>' if len(sections) > 1 else ""
    body = "\n".join(_section(i, s) for i, s in enumerate(sections, 1))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"<header><h1>{_inline(title)}</h1>{banner}{f'<dl>{listed}</dl>' if listed else ''}</header>\n"
        f"{contents}\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(i: int, section: Section) -> str:
    parts = [f'<section aria-labelledby="s{i}"><h2 id="s{i}">{_inline(section.title)}</h2>']
    for paragraph in _paragraphs(section.text):
        items = _items(paragraph)
        listed = "".join(f"<li>{_inline(item)}</li>" for item in items)
        parts.append(f"<ul>{listed}</ul>" if items else f"<p>{_inline(paragraph)}</p>")
    if section.note:
        parts.append(f'<p class="note" role="note">{_inline(section.note)}</p>')
    figures = "\n".join(f"<figure>{plot}</figure>" for plot in section.plots)
    parts += [f'<div class="figures">{figures}</div>'] if figures else []
    parts += [_table(table) for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    classes = [' class="r"' if a == "r" else "" for a in table.alignment()]
    caption = f"<caption>{_inline(table.caption)}</caption>" if table.caption else ""
    head = "".join(f'<th scope="col"{c}>{_inline(h)}</th>' for h, c in zip(table.header, classes, strict=True))
    rows = []
    for cells in table.cells():
        first = f'<th scope="row"{classes[0]}>{_inline(cells[0])}</th>'
        rest = "".join(f"<td{c}>{_inline(v)}</td>" for v, c in zip(cells[1:], classes[1:], strict=True))
        rows.append(f"<tr>{first}{rest}</tr>")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(table.caption or "table")}"><table>'
        f"{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _inline(text: object) -> str:
    """Escape a text; what stands between backticks becomes code."""
    pieces = _CODE.split(clean(text))
    return "".join(f"<code>{escape(p)}</code>" if i % 2 else escape(p) for i, p in enumerate(pieces))


# --- files ----------------------------------------------------------------------------------------------------------


def write_report(
    folder: str | Path,
    title: str,
    sections: Sequence[Section],
    *,
    simulated: str = "",
    facts: Sequence[tuple[str, object]] = (),
) -> Path:
    """Write report.html and report.md into a folder, each as a whole, readable by its owner alone; give the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    page_file = Path(folder) / "report.html"
    write_private(page_file, page(title, sections, simulated=simulated, facts=facts))
    write_private(page_file.with_suffix(".md"), markdown(title, sections, simulated=simulated, facts=facts))
    return page_file
