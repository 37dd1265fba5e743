"""Distance to the closest record of gold, and the AUC (Mann-Whitney) that compares it with held-out gold.

Two texts on the same subject are near without being copies. The distance of synthetic rows to their closest row of gold
therefore means little alone; the question is whether they lie nearer than held-out gold does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.privacy.folding import Units
from hf_synth.task.labels import Floats, Ints, column_of

if TYPE_CHECKING:
    from datasets import Dataset

_Z = 1.959964  # of a 95% interval
_COLUMNS = 1 << 22  # features are hashed into so many columns
_COMMON = 0.05  # features of more than this share of gold rows are left out: they distinguish little and cost most
_BLOCK = 128  # rows multiplied at once
_BATCH = 2_000  # texts in memory at once


@dataclass(frozen=True)
class Auc:
    """The chance that a draw of one sample lies above a draw of another (ties count half).

    Args:
        value: .5 when neither tends to lie above.
        low: lower end of the 95% interval.
        high: upper end.
        sizes: the numbers of independent draws that the interval assumes.
    """

    value: float
    low: float
    high: float
    sizes: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.value:.3f} (95% CI {self.low:.3f}-{self.high:.3f})"


def auc(above: npt.ArrayLike, below: npt.ArrayLike, *, sizes: tuple[int, int] | None = None) -> Auc:
    """Estimate the chance that a draw of the first sample lies above one of the second.

    The interval is the score-type one of Newcombe (Statistics in Medicine 2006, 25:559-573, method 5). It has a width
    even where the samples do not overlap.

    Args:
        above: (M,) finite numbers.
        below: (N,) finite numbers.
        sizes: numbers of independent draws in each sample, e.g. patients rather than rows; (M, N) when None.

    Returns:
        .5 with the interval (0, 1) when a sample is empty.
    """
    a, b = np.asarray(above, float), np.sort(np.asarray(below, float))
    m, n = sizes or (len(a), len(b))
    if not len(a) or not len(b):
        return Auc(0.5, 0.0, 1.0, (m, n))
    wins = np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")
    value = float(wins.mean()) / 2 / len(b)

    def outside(x: float) -> bool:
        spread = x * (1 - x) / (m * n) * (1 + ((m + n) / 2 - 1) * ((1 - x) / (2 - x) + x / (1 + x)))
        return abs(x - value) > _Z * math.sqrt(spread)

    return Auc(value, _interval_end(outside, 0.0, value), _interval_end(outside, 1.0, value), (m, n))


def _interval_end(outside: Callable[[float], bool], far: float, near: float) -> float:
    """Find the end of an interval between a value outside and one inside by bisection."""
    for _ in range(50):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return near


def closest(rows: Iterable[str], gold: Iterable[str], *, groups: tuple[Ints, Ints] | None = None) -> Floats:
    """Return the distance of each text to the closest of gold, (N,): 1 minus the cosine of word and bigram weights.

    Features are weighted by their rarity in gold (TF-IDF); a text that shares none is at distance 1. The time grows
    with the number of rows times the texts that contain a feature: pass a sample of rows.

    Args:
        groups: of the rows, (N,), and of gold, (M,), where the rows are gold themselves: a text is not compared with
            those of its own group.
    """
    from scipy.sparse import csr_matrix

    known, queries = (_counts(texts, csr_matrix) for texts in (gold, rows))
    if not known.shape[0]:
        return np.ones(queries.shape[0])
    known, queries = _without_empty_columns(known, queries, csr_matrix)
    spread = np.bincount(known.indices, minlength=known.shape[1])
    weight = np.log((1 + known.shape[0]) / (1 + spread)) + 1e-9
    weight[spread > max(50, _COMMON * known.shape[0])] = 0
    known, queries = (_unit_length(m, weight) for m in (known, queries))
    transposed = known.T.tocsr()
    cosines = []
    for i in range(0, queries.shape[0], _BLOCK):
        block = (queries[i : i + _BLOCK] @ transposed).tocoo()
        if groups is not None:
            block.data[groups[0][i + block.row] == groups[1][block.col]] = 0
        cosines.append(np.asarray(block.tocsr().max(1).todense()).ravel())
    distances: Floats = np.clip(1 - np.concatenate([np.zeros(0), *cosines]), 0, 1)
    return distances


def sample_rows(rows: Dataset, most: int, seed: int) -> Dataset:
    """Draw at most so many rows, in their order."""
    if len(rows) <= most:
        return rows
    return rows.select(np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False)))


def count_groups(rows: Dataset) -> int:
    """Count the independent groups (patients, notes) of rows; a row without a group is one of its own."""
    groups = column_of(rows, "group")
    return len(set(groups) - {None}) + groups.count(None)


def _counts(texts: Iterable[str], csr_matrix: Any) -> Any:
    """Count words and bigrams of texts in a sparse matrix, a row for each text; few texts are in memory at a time."""
    parts, n, rest = [], 0, iter(texts)
    while batch := list(islice(rest, _BATCH)):
        units = Units.of(batch)
        for size in (1, 2):
            hashes, valid = units.windows(size)
            columns = (hashes[valid] % np.uint64(_COLUMNS)).astype(np.int32)
            parts.append((columns, units.word_unit[: len(valid)][valid] + np.int32(n)))
        n += len(batch)
    none = np.zeros(0, np.int32)
    columns, rows = (np.concatenate([none, *found]) for found in zip((none, none), *parts, strict=True))
    counts = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, _COLUMNS))
    counts.sum_duplicates()
    return counts


def _without_empty_columns(known: Any, queries: Any, csr_matrix: Any) -> list[Any]:
    """Number the columns that occur anew, in their order: a few texts need no arrays of four million columns."""
    occurring = np.unique(np.concatenate([known.indices, queries.indices]))
    number = np.empty(_COLUMNS, np.int32)
    number[occurring] = np.arange(len(occurring), dtype=np.int32)
    shapes = ((counts, (counts.shape[0], len(occurring))) for counts in (known, queries))
    return [csr_matrix((counts.data, number[counts.indices], counts.indptr), shape=shape) for counts, shape in shapes]


def _unit_length(counts: Any, weight: Floats) -> Any:
    """Weight counts (damped by the logarithm) and scale each row to length 1."""
    counts.data = ((1 + np.log(counts.data)) * weight[counts.indices]).astype(np.float32)
    length = np.sqrt(np.asarray(counts.multiply(counts).sum(1)).ravel())
    counts.data /= np.repeat(np.maximum(length, 1e-12), np.diff(counts.indptr)).astype(np.float32)
    counts.eliminate_zeros()
    return counts
