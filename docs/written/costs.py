"""What each stage costs for a million notes and for a hundred million, computed from the measured results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from written import DOCS

SIZES = {"10^6 notes": 1e6, "10^8 notes": 1e8}
BEGIN, END = "<!-- costs: begin -->\n", "\n<!-- costs: end -->"
_KILOBYTE_NOTES = 1e3  # notes in a megabyte: those of the benchmarks have 1,000 characters
_STAGES = {  # of results/scaling.md, in the order of a journey
    "adopt": "Adopt rows from elsewhere",
    "correct": "Correct by `argmax`, probabilities given",
    "auto": "Correct by `auto`, probabilities given",
    "augment": "Augment",
    "audit": "Audit",
    "export": "Export",
    "evaluate": "Evaluate, probabilities given",
}


class Table(NamedTuple):
    """A table of a page: the heading above it, its head, and its rows."""

    heading: str
    head: list[str]
    rows: list[list[str]]


class Cost(NamedTuple):
    """CPU seconds that a note takes: of which stage, as measured in words, and on which page."""

    stage: str
    measured: str
    seconds: float
    page: str


def tables(text: str) -> list[Table]:
    """Read the tables of a page."""
    found: list[Table] = []
    heading, inside = "", False
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif not inside:
            found.append(Table(heading, cells, []))
            inside = True
        elif not set("".join(cells)) <= set("-: "):
            found[-1].rows.append(cells)
    return found


def _number(cell: str) -> float:
    return float(cell.replace(",", ""))


def costs(pages: Mapping[str, str]) -> list[Cost]:
    """Return the costs that the pages of results tell, by the largest size that each has measured.

    Args:
        pages: text of each page by its name; stages whose page is missing are left out.
    """
    found: list[Cost] = []
    if text := pages.get("reading"):
        [speed] = [row[2] for table in tables(text)[:1] for row in table.rows if row[:2] == ["load_gold", "csv"]]
        found.append(
            Cost("Read gold", f"{speed} MB of CSV a CPU second", 1 / _number(speed) / _KILOBYTE_NOTES, "reading")
        )
    if text := pages.get("throughput"):
        asked = [t for t in tables(text) if t.heading.startswith("generate and chat")]
        rows = [(_number(r[1]), r[1], r[t.head.index("CPU s")]) for t in asked for r in t.rows if r[0] == "generate"]
        n, shown, spent = max(rows, key=lambda row: row[0])
        stage = "Generate, the LLM not counted"
        found.append(Cost(stage, f"{shown} notes in {spent} CPU s", _number(spent) / n, "throughput"))
    if text := pages.get("prediction"):
        for name, stage in (("predict_proba", "Predict"), ("predict_proba, bfloat16", "Predict in bfloat16")):
            [speed] = [row[1] for table in tables(text) for row in table.rows if row[0] == name]
            tokens = re.search(r"Tokens of the texts: \S+ (\d+) on average", text)
            stage += ", an encoder of 6 layers of 384" + (f", {tokens[1]} tokens a note" if tokens else "")
            found.append(Cost(stage, f"{speed} notes a CPU second", 1 / _number(speed), "prediction"))
    stages = _of_scaling(pages["scaling"]) if "scaling" in pages else {}
    if text := pages.get("audit"):
        table = tables(text)[0]
        row = max(table.rows, key=lambda row: _number(row[0]))
        each = row[table.head.index("CPU µs a row")]
        audit = Cost(_STAGES["audit"], f"{each} µs a note, {row[0]} rows", _number(each) / 1e6, "audit")
        stages["audit"] = max(stages.get("audit", audit), audit, key=_rows_of)
    return found + [stages[name] for name in _STAGES if name in stages]


def _rows_of(cost: Cost) -> float:
    """Return the number of rows that a cost was measured with."""
    return _number(cost.measured.split(", ")[1].removesuffix(" rows"))


def _of_scaling(text: str) -> dict[str, Cost]:
    """Return the costs of the stages at the largest size that each was measured with."""
    table = next(t for t in tables(text) if t.heading.startswith("CPU microseconds a row"))
    found = {}
    for name, *cells in table.rows:
        measured = [(size, cell) for size, cell in zip(table.head[1:], cells, strict=True) if cell]
        if name in _STAGES and measured:
            size, each = measured[-1]
            found[name] = Cost(_STAGES[name], f"{each} µs a note, {size}", _number(each) / 1e6, "scaling")
    return found


def duration(seconds: float) -> str:
    """Return a time in words, two digits of it."""
    for name, size, most in (("s", 1, 100), ("minutes", 60, 100), ("hours", 3_600, 72), ("days", 86_400, float("inf"))):
        if seconds / size < most:
            value = float(f"{seconds / size:.2g}")
            return f"{value:,.0f} {name}" if value >= 10 else f"{value:g} {name}"
    raise AssertionError


def costs_table(found: list[Cost]) -> str:
    """Return the table of costs in Markdown."""
    lines = [f"| stage | measured | {' | '.join(SIZES)} | page |", "|---" * (3 + len(SIZES)) + "|"]
    for one in found:
        times = " | ".join(duration(one.seconds * n) for n in SIZES.values())
        lines.append(f"| {one.stage} | {one.measured} | {times} | [{one.page}](results/{one.page}.md) |")
    return "\n".join(lines)


def scale_page(folder: Path = DOCS / "results") -> str:
    """Return the page about scale, with the table of costs as the results have it."""
    text = (DOCS / "scale.md").read_text(encoding="utf-8")
    pages = {page.stem: page.read_text(encoding="utf-8") for page in folder.glob("*.md")}
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + costs_table(costs(pages)) + END + rest.partition(END)[2]
