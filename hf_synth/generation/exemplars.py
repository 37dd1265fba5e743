"""Which gold rows may be shown to the generator: a Dataset in, a smaller Dataset out.

What is shown is what synthetic rows can resemble, so how it is chosen matters as much as the prompt. Four ways:
`first` (the paper's: the first fifth of train as it stands), `random`, `balanced` (as many of each label as there are),
`diverse` (rows that together cover the most of what gold's texts say, by their n-grams: no embedding is needed).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Literal

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
_MOST_GRAMS = 400  # of one row: a note of 200,000 characters is not worth more than others for being long


def choose_exemplars(task: Task, gold: Dataset, how: Choice, *, share: float = 0.2, seed: int = 0) -> Dataset:
    """Choose the gold rows that may be shown.

    Args:
        gold: rows to choose from; those without text or label are left out.
        how: "first", "random", "balanced" or "diverse".
        share: of the rows, above 0 and at most 1; at least one row of each label there is, as far as they reach.
        seed: of "random" and "balanced".

    Returns:
        Some of the rows of `gold`, in its order; the paper's choice is "first" with a share of .2.

    Raises:
        ColumnError: `how` or `share` is none of these, or no row can be shown.
    """
    if how not in CHOICES or not 0 < share <= 1:
        raise ColumnError(f"exemplars are chosen {', '.join(CHOICES)}, with a share above 0 and at most 1")
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
        chosen = usable[:count]
    elif how == "random":
        chosen = random.Random(seed).sample(usable, count)
    elif how == "balanced":
        chosen = _balanced(names, count, seed)
    else:
        chosen = _diverse({i: texts[i] for i in usable}, count)
    return gold.select(sorted(chosen))


def _balanced(names: dict[int, str], count: int, seed: int) -> list[int]:
    """Take one row of each label in turn; labels that run out leave their share to the others."""
    order = random.Random(seed).sample(list(names), len(names))
    turn: Counter[str] = Counter()
    places = []
    for i in order:
        places.append((turn[names[i]], names[i], i))
        turn[names[i]] += 1
    return [i for *_, i in sorted(places)[:count]]


def _diverse(texts: dict[int, tuple[str, ...]], count: int) -> list[int]:
    """Take, again and again, the row that adds most n-grams, each worth how many rows have it (greedy, lazily).

    What a row adds only shrinks while others are taken, so the best of the heap is looked at again until it stays the
    best: near-linear in practice, and within 63% of the best choice there is (Nemhauser et al. 1978).
    """
    grams = {i: _grams(row) for i, row in texts.items()}
    worth = Counter(gram for own in grams.values() for gram in own)
    weights = {i: np.array([worth[g] for g in own], float) for i, own in grams.items()}
    heap = [(-float(weights[i].sum()), i) for i in grams]
    heapify(heap)
    covered: set[int] = set()
    chosen: list[int] = []
    while len(chosen) < count:
        _, best = heap[0]
        adds: float = sum(worth[g] for g in grams[best] if g not in covered)
        runner_up = min(heap[1:3], default=(1.0, -1))
        if (-adds, best) <= runner_up:
            chosen.append(best)
            covered |= grams[best]
            adds = -math.inf
        heapreplace(heap, (-adds, best))
    return chosen


def _grams(row: tuple[str, ...]) -> set[int]:
    words = words_of(" ".join(row))
    shorter = max(1, len(words) - _GRAM + 1)
    step = max(1, shorter // _MOST_GRAMS)
    # numbers of words, not hash(str): the same in every process
    return {_number(words[k : k + _GRAM]) for k in range(0, shorter, step)}


def _number(words: list[str]) -> int:
    from zlib import crc32

    return crc32("\x1f".join(words).encode())
