"""Canaries: unique phrases planted in gold that reveal copying and memorisation.

A canary is planted before generation or training. A synthetic row that contains it was copied. For a model, exposure
measures how much better it knows the canary than phrases of the same form that it never saw (`membership.exposure`;
Carlini et al., The Secret Sharer, USENIX Security 2019).
"""

from __future__ import annotations

import json
import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, RowError
from hf_synth.privacy.folding import fold
from hf_synth.task.folders import write_private
from hf_synth.task.labels import check_columns
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_ONSETS = (*"bcdfghklmnprstvwz", "br", "cl", "dr", "fl", "gr", "pl", "st", "tr")
_VOWELS = (*"aeiou", "ai", "ou")
_NO_LETTER = re.compile(r"[\W\d_]+")
_SYLLABLES = 3  # a word: (25 * 7)**3, or 22 bits; a canary has three of them


@dataclass(frozen=True)
class Canaries:
    """Secret phrases to plant, and reference phrases of the same form that are never planted.

    Args:
        planted: phrases of three invented words.
        references: phrases that exposure compares with; keep them out of all data.
    """

    planted: tuple[str, ...] = field(repr=False)
    references: tuple[str, ...] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the phrases to a file that only its owner can read; the audit needs it later.

        Raises:
            OutputError: the file cannot be written.
        """
        return write_private(Path(path), json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Canaries:
        """Read a file that `save` wrote.

        Raises:
            RowError: it is not a file of canaries.
        """
        try:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            planted, references = facts["planted"], facts["references"]
            valid = all(
                isinstance(part, list) and all(isinstance(p, str) for p in part) for part in (planted, references)
            )
            # without phrases nothing would be found, and an empty phrase would match every text
            if not valid or not planted or not all(p.strip() for p in (*planted, *references)):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise RowError(
                Path(path).name, None, "is not a file of canaries; pass a file that `Canaries.save` wrote"
            ) from None
        return cls(tuple(planted), tuple(references))

    def found_in(self, texts: Sequence[str]) -> set[int]:
        """Return the numbers of the planted phrases in texts, whatever their spacing, case or hyphens."""
        letters = _letters(" ".join(texts))
        return {i for i, phrase in enumerate(self.planted) if _letters(phrase) in letters}


def make_canaries(n: int = 8, *, references: int = 255, seed: int | None = None) -> Canaries:
    """Draw n canaries to plant, and references of the same form to measure exposure with.

    Args:
        references: number of references; exposure is at most log2(references + 1) bits, 8 with 255.
        seed: for tests; None draws from the system's randomness, since phrases that can be guessed prove nothing.
    """
    rng: random.Random = secrets.SystemRandom() if seed is None else random.Random(f"canaries-{seed}")
    phrases: dict[str, None] = {}
    while len(phrases) < n + references:
        words = ("".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(_SYLLABLES)) for _ in range(3))
        phrases[" ".join(words)] = None
    drawn = tuple(phrases)
    return Canaries(drawn[:n], drawn[n:])


def plant(
    task: Task, gold: Dataset, canaries: Canaries, *, times: int = 1, as_rows: bool = False, seed: int = 0
) -> Dataset:
    """Plant canaries in gold before it is shown to a generator or trained on.

    Args:
        gold: rows of the task, at least `times` for each canary.
        times: how often each canary is planted, each time in another row.
        as_rows: add rows that contain a canary alone, with the label of a gold row, instead of a sentence at the end
            of a row's text. Where rows have several texts, these take turns.
        seed: of the choice of rows.

    Raises:
        ColumnError: gold lacks columns, or has fewer rows than there are places to plant.
    """
    check_columns(task, gold, what="the gold")
    repeated = [phrase for phrase in canaries.planted for _ in range(times)]
    if len(repeated) > len(gold):
        raise ColumnError(f"{len(repeated):,} canaries need as many rows of gold, but there are {len(gold):,}")
    positions = random.Random(f"plant-{seed}").sample(range(len(gold)), len(repeated))
    columns = note_columns(task)
    if as_rows:
        return _add_rows(gold, columns, repeated, positions)
    turns = (columns[k % len(columns)] for k in range(len(repeated)))
    places = dict(zip(positions, zip(turns, repeated, strict=True), strict=True))

    def append(row: dict[str, Any], i: int) -> dict[str, Any]:
        if i not in places:
            return {}
        column, phrase = places[i]
        return {column: f"{row[column] or ''} {sentence(phrase)}".lstrip()}

    return gold.map(append, with_indices=True, features=gold.features, keep_in_memory=True, load_from_cache_file=False)


def sentence(phrase: str) -> str:
    """Return the sentence that contains a planted phrase."""
    return f"The private phrase of this record is {phrase}."


def note_columns(task: Task) -> list[str]:
    """Return the columns with text of a note: the text columns, and the target of a text2text task."""
    return [*task.text_columns, *([task.label_column] if task.kind == "text2text" else [])]


def _add_rows(gold: Dataset, columns: Sequence[str], phrases: Sequence[str], positions: Sequence[int]) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    rows = []
    for k, (i, phrase) in enumerate(zip(positions, phrases, strict=True)):
        row = {**gold[i], **{c: sentence(phrase) for c in columns}}
        for name in ("id", "group"):
            if name in row:
                row[name] = f"canary-{k}"
        rows.append(row)
    return concatenate_datasets([gold, Dataset.from_list(rows, features=gold.features)])


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", fold(text).lower())
