"""Exemplar selection: which gold rows the prompts may show (first, random, balanced, or diverse by n-gram coverage).

Synthetic rows resemble the exemplars, so their choice matters as much as the prompt. Four ways: `first` (the paper's:
the first fifth of train), `random`, `balanced` (equal numbers of each label, as far as there are), `diverse` (rows that
together cover the most n-grams of gold; no embedding is needed).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Literal
from zlib import crc32

import numpy as np

from hf_synth.errors import ColumnError
from hf_synth.privacy.folding import words_of
from hf_synth.task.labels import check_columns
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Choice = Literal["random", "balanced", "diverse", "first"]
CHOICES: tuple[Choice, ...] = ("random", "balanced", "diverse", "first")
_GRAM = 3  # words of an n-gram
_MOST_GRAMS = 400  # n-grams of one row, so that very long notes are not preferred


def choose_exemplars(task: Task, gold: Dataset, how: Choice, *, share: float = 0.2, seed: int = 0) -> Dataset:
    """Choose the gold rows that prompts may show.

    Args:
        gold: rows to choose from; those without text or label are left out.
        how: "first", "random", "balanced" or "diverse".
        share: share of the rows, above 0 and at most 1; at least as many rows as there are labels.
        seed: of "random" and "balanced".

    Returns:
        Some of the rows of `gold`, in its order; the paper's choice is "first" with a share of .2.

    Raises:
        ColumnError: `how` or `share` is invalid, or no row has text and label.
    """
    if how not in CHOICES or not 0 < share <= 1:
        raise ColumnError(f"exemplars are chosen by {', '.join(CHOICES)}, with a share above 0 and at most 1")
    check_columns(task, gold, what="the gold to choose from")
    labels = gold[task.label_column]
    texts = list(zip(*(gold[c] for c in task.text_columns), strict=True))
    usable = [
        i
        for i, (row, label) in enumerate(zip(texts, labels, strict=True))
        if label is not None and all(isinstance(t, str) and t.strip() for t in row)
    ]
    if not usable:
        raise ColumnError(f"there is no gold row with text and label to show for task {task.full_name!r}")
    names = {i: str(labels[i]) if task.kind == "single_label" else "" for i in usable}
    count = min(len(usable), max(len(set(names.values())), math.ceil(share * len(usable))))
    if how == "first":
        positions = usable[:count]
    elif how == "random":
        positions = random.Random(seed).sample(usable, count)
    elif how == "balanced":
        positions = _balanced(names, count, seed)
    else:
        positions = _diverse({i: texts[i] for i in usable}, count)
    return gold.select(sorted(positions))


def _balanced(names: dict[int, str], count: int, seed: int) -> list[int]:
    """Choose one row of each label in turn; labels that run out leave their share to the others."""
    order = random.Random(seed).sample(list(names), len(names))
    turn: Counter[str] = Counter()
    places = []
    for i in order:
        places.append((turn[names[i]], names[i], i))
        turn[names[i]] += 1
    return [i for *_, i in sorted(places)[:count]]


def _diverse(texts: dict[int, tuple[str, ...]], count: int) -> list[int]:
    """Choose the row that adds most new n-grams, weighted by the rows that have them, again and again (lazy greedy).

    The gain of a row only shrinks while others are chosen, so the top of the heap is computed again until it stays on
    top: near-linear in practice, and at least 63% of the optimum (Nemhauser et al. 1978).
    """
    grams = {i: _grams(row) for i, row in texts.items()}
    worth = Counter(gram for own in grams.values() for gram in own)
    weights = {i: np.array([worth[g] for g in own], float) for i, own in grams.items()}
    heap = [(-float(weights[i].sum()), i) for i in grams]
    heapify(heap)
    covered: set[int] = set()
    positions: list[int] = []
    while len(positions) < count:
        _, best = heap[0]
        gain: float = sum(worth[g] for g in grams[best] if g not in covered)
        runner_up = min(heap[1:3], default=(1.0, -1))
        if (-gain, best) <= runner_up:
            positions.append(best)
            covered |= grams[best]
            gain = -math.inf
        heapreplace(heap, (-gain, best))
    return positions


def _grams(row: tuple[str, ...]) -> set[int]:
    words = words_of(" ".join(row))
    n = max(1, len(words) - _GRAM + 1)
    # crc32, not hash(str), which differs between processes
    return {crc32("\x1f".join(words[k : k + _GRAM]).encode()) for k in range(0, n, max(1, n // _MOST_GRAMS))}
