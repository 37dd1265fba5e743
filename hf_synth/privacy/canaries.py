"""Canaries: sentences that stand nowhere else, planted into gold, so that a copy of gold betrays itself.

A canary is planted before generation or training. Found among synthetic rows, it was copied. A model has no rows to
look into: there its exposure says how much better it knows the canary than sentences of the same form that it never saw
(Carlini et al., The Secret Sharer, USENIX Security 2019); `membership.exposure` measures it.
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
from hf_synth.privacy.folding import folded
from hf_synth.task.folders import write_private
from hf_synth.task.labels import check_columns
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_ONSETS = (*"bcdfghklmnprstvwz", "br", "cl", "dr", "fl", "gr", "pl", "st", "tr")
_VOWELS = (*"aeiou", "ai", "ou")
_SPOKEN = re.compile(r"[\W\d_]+")
_SYLLABLES = 3  # a word: (25 * 7)**3, or 22 bits; a canary has three of them


@dataclass(frozen=True)
class Canaries:
    """Secret phrases: those to be planted, and as many as wanted of the same form that never are.

    Args:
        planted: phrases of three words that no language has.
        references: what exposure compares with; keep them out of all data.
    """

    planted: tuple[str, ...] = field(repr=False)
    references: tuple[str, ...] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write them to a file that only its owner can read; whoever plants them needs it later.

        Raises:
            OutputError: it cannot be written.
        """
        return write_private(Path(path), json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Canaries:
        """Read what `save` wrote.

        Raises:
            RowError: it is no file of canaries.
        """
        try:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            planted, references = facts["planted"], facts["references"]
            fit = all(
                isinstance(part, list) and all(isinstance(p, str) for p in part) for part in (planted, references)
            )
            # no phrase planted would be none found, and an empty one stands in every text
            if not fit or not planted or not all(p.strip() for p in (*planted, *references)):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise RowError(Path(path).name, None, "is no file of canaries: give what `Canaries.save` wrote") from None
        return cls(tuple(planted), tuple(references))

    def found_in(self, texts: Sequence[str]) -> set[int]:
        """Give the numbers of the planted phrases that stand in texts, however they are spaced, cased or split."""
        letters = _letters(" ".join(texts))
        return {i for i, phrase in enumerate(self.planted) if _letters(phrase) in letters}


def make_canaries(n: int = 8, *, references: int = 255, seed: int | None = None) -> Canaries:
    """Make canaries: n to be planted, and others of the same form to measure exposure by.

    Args:
        references: exposure reaches log2(references + 1) bits at most: 8 with 255.
        seed: for tests; phrases that can be guessed tell nothing, so None draws them from the system's randomness.
    """
    rng: random.Random = secrets.SystemRandom() if seed is None else random.Random(f"canaries-{seed}")
    phrases: dict[str, None] = {}
    while len(phrases) < n + references:
        words = ("".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(_SYLLABLES)) for _ in range(3))
        phrases[" ".join(words)] = None
    made = tuple(phrases)
    return Canaries(made[:n], made[n:])


def plant(
    task: Task, gold: Dataset, canaries: Canaries, *, times: int = 1, as_rows: bool = False, seed: int = 0
) -> Dataset:
    """Plant canaries into gold, before it is shown to a generator or trained on.

    Args:
        gold: rows of the task, at least `times` for each canary.
        times: how often each is planted, each time in another row.
        as_rows: add rows that hold a canary and nothing else, with the label of a row of gold, in place of a sentence
            at the end of a row's text. Texts take turns where a row has several.
        seed: of the choice of rows.

    Raises:
        ColumnError: gold lacks columns, or has fewer rows than there are places to plant.
    """
    check_columns(task, gold, what="the gold")
    wanted = [phrase for phrase in canaries.planted for _ in range(times)]
    if len(wanted) > len(gold):
        raise ColumnError(f"{len(wanted):,} canaries need as many rows of gold; there are {len(gold):,}")
    chosen = random.Random(f"plant-{seed}").sample(range(len(gold)), len(wanted))
    columns = [*task.text_columns, *([task.label_column] if task.kind == "text2text" else [])]
    if as_rows:
        return _with_rows(gold, columns, wanted, chosen)
    turns = (columns[k % len(columns)] for k in range(len(wanted)))
    place = dict(zip(chosen, zip(turns, wanted, strict=True), strict=True))

    def append(row: dict[str, Any], i: int) -> dict[str, Any]:
        if i not in place:
            return {}
        column, phrase = place[i]
        return {column: f"{row[column] or ''} {sentence(phrase)}".lstrip()}

    return gold.map(append, with_indices=True, features=gold.features, keep_in_memory=True, load_from_cache_file=False)


def sentence(phrase: str) -> str:
    """Give the sentence that a phrase is planted as."""
    return f"The private phrase of this record is {phrase}."


def _with_rows(gold: Dataset, columns: Sequence[str], wanted: Sequence[str], chosen: Sequence[int]) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    rows = []
    for k, (i, phrase) in enumerate(zip(chosen, wanted, strict=True)):
        row = {**gold[i], **{c: sentence(phrase) for c in columns}}
        for name in ("id", "group"):
            if name in row:
                row[name] = f"canary-{k}"
        rows.append(row)
    return concatenate_datasets([gold, Dataset.from_list(rows, features=gold.features)])


def _letters(text: str) -> str:
    return _SPOKEN.sub("", folded(text).lower())
