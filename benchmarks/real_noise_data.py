"""Texts with labels by people and labels by real LLMs, as sets for benchmarks; no error in them is simulated.

    from real_noise_data import read_folder, read_mts_dialog

A folder holds one CSV file a set. Its columns are `text`, `label` (what people decided), one column for each LLM or
prompt (what it answered; empty where it gave no usable answer), and where an LLM told how sure it was,
`<column>_confidence`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hf_synth.privacy.folding import digest
from hf_synth.task.labels import Floats, Ints

ANSWERS = 1_800  # usable answers that a column needs
SHARE = 0.6  # of the rows, where that is fewer
SECTIONS = 8  # of MTS-Dialog, the commonest ones
_CONFIDENCE = "_confidence"


@dataclass(frozen=True)
class Set:
    """One set of N texts, each text once.

    Args:
        name: the name of its file.
        texts: N texts; no two are equal after folding case, space and punctuation.
        labels: indices of people's labels into `names`, (N,).
        names: the labels, sorted, in the spelling that comes first.
        llm: by column, the index of the LLM's label for each text, -1 where it gave no usable answer, (N,).
        confidence: by the same columns, how sure the LLM said it was, NaN where it did not say, (N,); only of LLMs that
            were asked.
    """

    name: str
    texts: tuple[str, ...]
    labels: Ints
    names: tuple[str, ...]
    llm: Mapping[str, Ints] = field(default_factory=dict)
    confidence: Mapping[str, Floats] = field(default_factory=dict)


def read_folder(folder: Path) -> list[Set]:
    """Read every CSV file of a folder as a set, in the order of their names.

    Raises:
        ValueError: the folder holds no CSV file, or one without text and label.
    """
    files = sorted(Path(folder).glob("*.csv"))
    if not files:
        raise ValueError(f"{folder} holds no CSV file: give the folder of the sets")
    return [read_set(file) for file in files]


def read_set(file: Path) -> Set:
    """Read one set; of equal texts the first row counts, whatever the labels of the others.

    Labels and answers are compared without case and surrounding space, and "1.0" is "1". An answer that is none of the
    labels is not usable. A column is left out if it holds fewer usable answers than ANSWERS, or than SHARE of the rows
    where that is less.

    Raises:
        ValueError: a column is missing, or a row has no text or no label.
    """
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"text", "label"} <= rows[0].keys():
        raise ValueError(f"{file.name} needs the columns text and label, and a row")
    for number, row in enumerate(rows, 1):
        if not (row["text"] or "").strip() or not (row["label"] or "").strip():
            raise ValueError(f"{file.name}, row {number}: has no text or no label; remove it")
    rows = [rows[i] for i in first_of_equal([row["text"] for row in rows])]
    spelled: dict[str, str] = {}
    for row in rows:
        spelled.setdefault(_plain(row["label"]), row["label"].strip())
    places = {plain: i for i, plain in enumerate(sorted(spelled))}
    columns = [c for c in rows[0] if c not in ("text", "label") and not _rates(c, rows[0])]
    answers = {c: _indices([row[c] for row in rows], places) for c in columns}
    enough = min(ANSWERS, SHARE * len(rows))
    llm = {c: given for c, given in answers.items() if (given >= 0).sum() >= enough}
    said = {c: [row[c + _CONFIDENCE] for row in rows] for c in llm if c + _CONFIDENCE in rows[0]}
    return Set(
        name=file.stem,
        texts=tuple(row["text"] for row in rows),
        labels=_indices([row["label"] for row in rows], places),
        names=tuple(spelled[plain] for plain in places),
        llm=llm,
        confidence={c: np.array([float(v) if v else np.nan for v in values]) for c, values in said.items()},
    )


def read_mts_dialog(folder: Path, sections: int = SECTIONS) -> Set:
    """Read MTS-Dialog's commonest sections (counted over all rows), each text once; no LLM labelled them.

    Args:
        folder: its `Main-Dataset`.
        sections: how many.
    """
    from hf_synth.gold.gold import load_gold
    from hf_synth.task.scripts import load_task

    task = load_task("mts_dialog")
    gold = load_gold(task, folder).values()
    texts = [text for rows in gold for text in rows["text"]]
    labels = [task.labels[y] for rows in gold for y in rows["label"]]
    names = tuple(sorted(name for name, _ in Counter(labels).most_common(sections)))
    kept = [i for i in first_of_equal(texts) if labels[i] in names]
    indices = np.array([names.index(labels[i]) for i in kept], dtype=np.int64)
    return Set("mts_dialog", tuple(texts[i] for i in kept), indices, names)


def first_of_equal(texts: Sequence[str]) -> list[int]:
    """Return the places of the texts that equal none before them, after folding case, space and punctuation."""
    first: dict[bytes, int] = {}
    nothing = digest(("",))
    for i, text in enumerate(texts):
        key = digest((text,))
        first.setdefault(text.encode("utf-8", "surrogatepass") if key == nothing else key, i)
    return list(first.values())


def _rates(column: str, row: Mapping[str, str]) -> bool:
    """Return whether a column says how sure another one is."""
    return column.endswith(_CONFIDENCE) and column.removesuffix(_CONFIDENCE) in row


def _plain(label: str | None) -> str:
    return (label or "").strip().casefold().removesuffix(".0")


def _indices(values: Sequence[str | None], places: Mapping[str, int]) -> Ints:
    return np.array([places.get(_plain(value), -1) for value in values], dtype=np.int64)
