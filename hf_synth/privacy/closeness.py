"""How near synthetic rows come to gold, beside how near gold comes that the generator never saw.

Two texts about the same things are near without one being taken from the other. So the distance of synthetic rows to
their closest row of gold says little alone; what tells is whether they lie nearer than held-out gold does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.privacy.folding import Floats, Units

_Z = 1.959964  # of a 95% interval
_COLUMNS = 1 << 22  # features are hashed into so many
_COMMON = 0.05  # features of more gold rows than that tell little, and cost most
_BLOCK = 128
_READ = 2_000


@dataclass(frozen=True)
class Auc:
    """The chance that a draw of one sample lies above a draw of another (ties count half).

    Args:
        value: .5 when neither tends to lie above.
        low: lower end of the 95% interval.
        high: upper end.
        sizes: the numbers of independent draws that the interval counts on.
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
    even where the samples do not touch.

    Args:
        above: (M,) finite numbers.
        below: (N,) finite numbers.
        sizes: how many independent draws each sample holds, e.g. patients rather than rows; (M, N) when None.

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

    return Auc(value, _edge(outside, 0.0, value), _edge(outside, 1.0, value), (m, n))


def _edge(outside: Callable[[float], bool], far: float, near: float) -> float:
    """Find by halving where an interval ends between a value outside it and one inside."""
    for _ in range(50):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return near


def closest(rows: Iterable[str], gold: Iterable[str]) -> Floats:
    """Give for each text its distance to the closest of gold, (N,): one less the cosine of words and pairs of words.

    Features are weighted by how rare they are in gold; a text that shares none is at distance 1. The time is that of
    the rows times the texts that a feature stands in: hand over a sample of rows.
    """
    from scipy.sparse import csr_matrix

    known, sought = (_counts(texts, csr_matrix) for texts in (gold, rows))
    if not known.shape[0]:
        return np.ones(sought.shape[0])
    spread = np.bincount(known.indices, minlength=_COLUMNS)
    weight = np.log((1 + known.shape[0]) / (1 + spread)) + 1e-9
    weight[spread > max(50, _COMMON * known.shape[0])] = 0
    known, sought = (_unit_length(m, weight) for m in (known, sought))
    turned = known.T.tocsr()
    found = [
        np.asarray((sought[i : i + _BLOCK] @ turned).max(1).todense()).ravel()
        for i in range(0, sought.shape[0], _BLOCK)
    ]
    distances: Floats = np.clip(1 - np.concatenate([np.zeros(0), *found]), 0, 1)
    return distances


def _counts(texts: Iterable[str], csr_matrix: Any) -> Any:
    """Count words and pairs of words of texts, as a sparse matrix with a row a text; some texts are held at a time."""
    parts, n, waiting = [], 0, iter(texts)
    while some := list(islice(waiting, _READ)):
        units = Units.of(some)
        for size in (1, 2):
            hashes, valid = units.windows(size)
            parts.append((hashes[valid] % np.uint64(_COLUMNS), units.word_unit[: len(valid)][valid] + n))
        n += len(some)
    columns = np.concatenate([np.zeros(0, np.int64), *(c.astype(np.int64) for c, _ in parts)])
    rows = np.concatenate([np.zeros(0, np.int64), *(r.astype(np.int64) for _, r in parts)])
    made = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, _COLUMNS))
    made.sum_duplicates()
    return made


def _unit_length(counts: Any, weight: Floats) -> Any:
    """Weigh counts (damped by the logarithm) and bring each row to length 1."""
    counts.data = ((1 + np.log(counts.data)) * weight[counts.indices]).astype(np.float32)
    length = np.sqrt(np.asarray(counts.multiply(counts).sum(1)).ravel())
    counts.data /= np.repeat(np.maximum(length, 1e-12), np.diff(counts.indptr)).astype(np.float32)
    counts.eliminate_zeros()
    return counts
