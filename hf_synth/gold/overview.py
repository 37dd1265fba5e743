"""Show what the columns of a table hold, and the command that reads it: the answer to `hf-synth gold notes.csv`."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_synth.gold.faults import Faults
from hf_synth.gold.readers import File
from hf_synth.gold.sources import all_files, as_source, find_files
from hf_synth.gold.spelling import cell_text, show_label, spelling_key
from hf_synth.gold.tables import TABLE_SUFFIXES, read_batches
from hf_synth.task.columns import MANIFEST, names_shown
from hf_synth.task.task import TABLES, Task

_ROWS = 5_000  # of a table that are looked at
_MOST_LABELS, _LONGEST_LABEL = 20, 40  # of a column that may be the label
_LABEL = re.compile(
    r"label|class|categor|target|outcome|grade|urgen|triage|severity|diagnos|status|gold|score|klasse|kategorie|dringl|"
    r"etiqueta|étiquette|clase\b|gravedad|gravité",
    re.IGNORECASE,
)
_PATIENT = re.compile(  # "Pat.-ID", "PatNr", "Versichertennummer", "NHC", "IPP"
    r"patient|subject|person|mrn|versicherte|paciente|paziente|historia[ ._-]*cl[ií]nica|prontu[aá]rio|"
    r"(?<![a-z])(?:pat(?:[ ._-]*(?:id|nr|no|num|nummer|number))?|pid|piz|nhc|ipp)(?![a-z])",
    re.IGNORECASE,
)
_CASE = re.compile(  # a stay of a patient, who may have several
    r"hadm|admission|case|encounter|(?:(?<![a-z])fall|aufnahme)[ ._-]*(?:id|nr|no|num|nummer)(?![a-z])|"
    r"episodio|épisode|séjour|ricovero",
    re.IGNORECASE,
)
_TEXT = re.compile(
    r"text|note|message|report|body|narrative|summary|befund|bericht|nachricht|content|\bnota|mensaje|informe|"
    r"compte[ -]rendu|referto",
    re.IGNORECASE,
)
_LESS = re.compile(r"status|score|outcome|gold|diagnos|target", re.IGNORECASE)  # of _LABEL: may well be something else
_ABOUT = re.compile(  # columns that describe a row or its patient
    r"sex|gender|\bage\b|race|ethnic|site|ward|clinic|author|depart|provider|language|date|time|year|geschlecht|alter|datum|"
    r"sexo\b|sexe\b|edad\b|\bâge\b|fecha|m[eé]dico|m[eé]decin|servicio|data\b",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([t ].*)?|\d\d?[./-]\d\d?[./-]\d{2,4}", re.IGNORECASE)


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
        prose: whether its values are several words, or of a script without blanks between words.
    """

    name: str
    filled: int
    values: int
    length: float
    guess: str = ""
    labels: tuple[str, ...] = ()
    prose: bool = False


@dataclass(frozen=True)
class Guess:
    """Which columns of a table are the text, the label and the patient.

    Args:
        text, label, patient: names of columns; "" where none is a good guess.
        doubts: why a person must name a column, by "text" and "label"; empty where the guess is safe.
    """

    text: str
    label: str
    patient: str
    doubts: Mapping[str, str]


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
    return _guessed([_column(name, values) for name, values in cells.items()]), rows


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
    words = sum(len(value.split()) for value in values) / len(values) if values else 0.0
    letters = "".join(values[:50])
    prose = words >= 2.5 or sum(not c.isascii() for c in letters) > len(letters) // 2
    return Column(name, len(values), len(counts), length, labels=labels, prose=prose)


def _texts(columns: Sequence[Column]) -> list[Column]:
    """Return the columns that may be the text, the best guess first."""
    texts = [c for c in columns if c.prose and c.length >= 15 and c.values > max(1, c.filled // 2) and not c.labels]
    return sorted(texts, key=lambda c: -c.length)


def _labels(columns: Sequence[Column]) -> list[Column]:
    """Return the columns that may be the label, the best guess first: its name decides."""
    labels = [
        c for c in columns if c.labels and not sum(bool(_DATE.fullmatch(v)) for v in c.labels) > len(c.labels) / 2
    ]
    return sorted(labels, key=lambda c: -_label_rank(c.name))


def _label_rank(name: str) -> int:
    """Return how well a name suits the column of the label: 3 well, 2 perhaps, 1 not at all, 0 something else."""
    if _PATIENT.search(name) or _CASE.search(name) or (_ABOUT.search(name) and not _LABEL.search(name)):
        return 0
    return 1 if not _LABEL.search(name) else 2 if _LESS.search(name) else 3


def guess_columns(columns: Sequence[Column]) -> Guess:
    """Return which columns are the text, the label and the patient, and where that is doubtful."""
    texts, labels = _texts(columns), _labels(columns)
    doubts: dict[str, str] = {}
    if not texts:
        doubts["text"] = "no column looks like the text: its cells would be several words, and differ from row to row"
    elif len(texts) > 1 and texts[0].length < 2 * texts[1].length and not _only(_TEXT, texts):
        doubts["text"] = f"several columns may be the text ({names_shown([c.name for c in texts])})"
    ranked = [(_label_rank(c.name), c) for c in labels]
    best = [c for rank, c in ranked if rank == ranked[0][0]]
    alone = next((c.name for c in columns if c.filled and c.values == 1 and _label_rank(c.name) == 3), None)
    if alone is not None and not any(rank == 3 for rank, _ in ranked):
        doubts["label"] = f"column {alone!r} has one value in all rows, and a task needs at least two labels"
    elif not labels or ranked[0][0] == 0:
        doubts["label"] = "no column looks like the label: it would have few values, each in several rows"
    elif len(best) > 1:
        doubts["label"] = f"several columns may be the label ({names_shown([c.name for c in best])})"
    named = {c.guess: c.name for c in columns if c.guess}
    if "text" in doubts or not texts:
        text = named.get("text", "")
    else:
        text = next((c.name for c in texts if _only(_TEXT, texts) and _TEXT.search(c.name)), texts[0].name)
    return Guess(text, named.get("label", ""), named.get("patient", ""), doubts)


def _only(words: re.Pattern[str], columns: Sequence[Column]) -> bool:
    return sum(bool(words.search(c.name)) for c in columns) == 1


def _guessed(columns: list[Column]) -> list[Column]:
    text = next(iter(_texts(columns)), None)
    label = next((c for c in _labels(columns) if c is not text), None)
    others = [c for c in columns if c not in (text, label)]
    named = (c for words in (_PATIENT, _CASE) for c in others if words.search(c.name) and c.values > 1)
    patient = next(named, None)
    guesses = {id(text): "text", id(label): "label", id(patient): "patient"}
    return [replace(c, guess=guesses.get(id(c), "")) for c in columns]


def overview_lines(path: Path, columns: Sequence[Column], rows: int) -> list[str]:
    """Return the overview as lines of text; names of a table without a header, and long values, are not shown."""
    hidden = "does its first line name" in names_shown([c.name for c in columns])
    table = [("column", "filled", "different", "characters", "is perhaps")]
    for place, column in enumerate(columns, 1):
        name = f"column {place}" if hidden else column.name
        guess = {"text": "the text", "label": "the label", "patient": "the patient"}.get(column.guess, "")
        if column.guess == "label" and not hidden:
            guess += f": {', '.join(map(show_label, column.labels))}"
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
