"""Show what the columns of a table hold, and the command that reads it: the answer to `hf-synth gold notes.csv`."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_synth.gold.faults import Faults
from hf_synth.gold.readers import File
from hf_synth.gold.sources import all_files, as_source, find_files
from hf_synth.gold.spelling import cell_text, shown, spelling_key
from hf_synth.gold.tables import TABLE_SUFFIXES, read_batches
from hf_synth.task.columns import MANIFEST, names_shown
from hf_synth.task.task import TABLES, Task

_ROWS = 5_000  # of a table that are looked at
_MOST_LABELS, _LONGEST_LABEL = 20, 40  # of a column that may be the label
_LABEL = re.compile(r"label|class|categor|target|outcome|grade|urgen|triage|severity|diagnos|status|gold|score", re.I)
_PATIENT = re.compile(r"patient|subject|person|\bpid\b|mrn|hadm|admission|case|fall_?nr|encounter", re.I)


@dataclass(frozen=True)
class Column:
    """What a column holds in the first rows of a table.

    Args:
        name: its name.
        filled: rows that are not empty.
        values: different values.
        length: characters of a value, on average.
        guess: "text", "label", "patient" or "".
        labels: the values of a column that may be the label; else empty.
    """

    name: str
    filled: int
    values: int
    length: float
    guess: str = ""
    labels: tuple[str, ...] = ()


def is_own_table(path: Path) -> bool:
    """Return whether a path is a table, or a folder with a table of a split ("train.csv") that carries no task."""
    if path.is_dir():
        return not (path / MANIFEST).is_file() and any((path / name).is_file() for name in TABLES["train"])
    return path.is_file() and path.suffix.lower() in (*TABLE_SUFFIXES, ".xls", ".ods")


def overview(path: Path) -> tuple[list[Column], int]:
    """Return what the columns of a table hold, with a guess of what each is, and the number of rows looked at.

    Raises:
        MissingGoldError: there is no table.
        RowError: it cannot be read.
    """
    columns: dict[str, Any] = {"text_columns": "?text", "label_column": "?label", "labels": ("?", "??")}
    task = Task.from_columns("table", **columns, files=TABLES, optional_files=("validation", "test"))
    file = next(all_files(find_files(task, path)))
    cells, rows = _cells(file)
    return _guessed([_column(name, values) for name, values in cells.items()], rows), rows


def _cells(file: File) -> tuple[dict[str, list[str]], int]:
    """Return the values of each column that are not empty, as text, and the number of rows."""
    cells: dict[str, list[str]] = {}
    rows = 0
    for batch in read_batches(file, Faults(as_source(file).name), needed=()):
        for name, values in batch.columns.items():
            cells.setdefault(name, []).extend(t for v in values if (t := _text(v)) is not None)
        rows += len(batch.numbers)
        if rows >= _ROWS:
            break
    return cells, rows


def _text(value: Any) -> str | None:
    return "; ".join(map(str, value)) if isinstance(value, list) and value else cell_text(value)


def _column(name: str, values: Sequence[str]) -> Column:
    counts = Counter(spelling_key(v) if len(v) <= _LONGEST_LABEL else v for v in values)
    length = sum(map(len, values)) / len(values) if values else 0.0
    short = bool(values) and max(map(len, values)) <= _LONGEST_LABEL
    repeats = 2 <= len(counts) <= min(_MOST_LABELS, max(2, len(values) // 3))
    labels = tuple(sorted(counts)) if short and repeats else ()
    return Column(name, len(values), len(counts), length, labels=labels)


def _guessed(columns: list[Column], rows: int) -> list[Column]:
    texts = [c for c in columns if c.length >= 15 and c.values > max(1, c.filled // 2) and not c.labels]
    text = max(texts, key=lambda c: c.length, default=None)
    labels = [c for c in columns if c.labels and c is not text]
    label = max(labels, key=lambda c: (bool(_LABEL.search(c.name)), not _PATIENT.search(c.name)), default=None)
    others = [c for c in columns if c not in (text, label)]
    patient = next((c for c in others if _PATIENT.search(c.name) and c.values > 1), None)
    guesses = {id(text): "text", id(label): "label", id(patient): "patient"}
    return [Column(c.name, c.filled, c.values, c.length, guesses.get(id(c), ""), c.labels) for c in columns]


def overview_lines(path: Path, columns: Sequence[Column], rows: int) -> list[str]:
    """Return the overview as lines of text; names of a table without a header, and long values, are not shown."""
    hidden = "does its first line name" in names_shown([c.name for c in columns])
    table = [("column", "filled", "different", "characters", "is perhaps")]
    for place, column in enumerate(columns, 1):
        name = f"column {place}" if hidden else column.name
        guess = {"text": "the text", "label": "the label", "patient": "the patient"}.get(column.guess, "")
        if column.guess == "label" and not hidden:
            guess += f": {', '.join(map(shown, column.labels))}"
        table.append((name, f"{column.filled:,}", f"{column.values:,}", f"{column.length:.0f}", guess))
    widths = [max(len(line[i]) for line in table) for i in range(4)]
    first = f"{path.name}: {rows:,}{' or more' if rows >= _ROWS else ''} rows"
    lines = [first + ("; does its first line name its columns?" if hidden else "")]
    for name, *numbers, guess in table:
        cells = [name.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)), guess]
        lines.append("  " + "  ".join(cells).rstrip())
    return [*lines, f"type: {command(path, columns, hidden)}"]


def command(path: Path, columns: Sequence[Column], hidden: bool = False) -> str:
    """Return the command that reads a table, with NAME where no column is a good guess."""
    named = {c.guess: shlex.quote(c.name) for c in columns if c.guess and not hidden}
    words = f"hf-synth gold {shlex.quote(str(path))} --text-column {named.get('text', 'NAME')}"
    words += f" --label-column {named.get('label', 'NAME')}"
    patient = f" --group-column {named['patient']}" if "patient" in named else ""
    return f"{words}{patient} --out DIR"
