"""What a difference between models is worth: exact tests, several of them, nested bootstraps, gold rows as the unit.

Pure functions of numbers; scipy does the tests and scikit-learn the monotone fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def mcnemar(a_right: npt.ArrayLike, b_right: npt.ArrayLike) -> float:
    """Test whether two models are right equally often on the same rows (exact McNemar test, two-sided).

    Rows of one patient are not independent: where they come in groups, `evaluation.compare`'s interval over groups is
    what counts.

    Args:
        a_right: (N,) whether the first model is right.
        b_right: (N,) whether the second one is.

    Returns:
        The p-value; 1 when they never differ.

    Raises:
        HfSynthError: they are not of the same rows.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(a_right, bool), np.asarray(b_right, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise HfSynthError(f"two models are compared on the same rows; got {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values of several tests so that one of them is wrong with at most the level asked (Holm 1979).

    Args:
        p_values: (M,) between 0 and 1, in any order.

    Returns:
        (M,) adjusted values, in the same order.

    Raises:
        HfSynthError: a value is no probability.
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise HfSynthError("p-values are numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    found = np.empty_like(p)
    found[order] = adjusted
    return found


def interval(drawn: npt.ArrayLike, n_groups: int | None = None) -> tuple[float, float]:
    """Give the 95% interval of bootstrap draws, by percentiles; undefined draws (nan) are left out.

    Args:
        drawn: (B,) draws of one statistic.
        n_groups: how many independent groups were drawn from. Percentiles of few groups lie too close together; they
            are then taken further out, as far as Student's t lies beyond the normal distribution and n - 1 is below n
            (Hesterberg 2015, "expanded percentile interval"): of 20 groups at 1.6% and 98.4%.
    """
    below = 0.025
    if n_groups is not None and n_groups > 1:
        from scipy.special import ndtr, stdtrit

        below = float(ndtr(math.sqrt(n_groups / (n_groups - 1)) * stdtrit(n_groups - 1, below)))
    low, high = np.nanpercentile(np.asarray(drawn, float), [100 * below, 100 * (1 - below)])
    return float(low), float(high)


def nested_counts(levels: Sequence[Sequence[Any]], n_bootstrap: int = 2_000, seed: int = 0) -> Counts:
    """Draw rows that lie in nested groups, level by level, and count how often each row was drawn.

    Groups of the first level are drawn with replacement; in each group drawn, as many of its groups of the next level
    as it has; and so on to the rows. A group drawn twice has its inside drawn twice, each time anew. That is how runs
    within gold subsets vary: two training seeds on one subset say less than one seed on each of two.

    Args:
        levels: names of the groups that each row is in, outermost first, each (N,): e.g. gold subset, generation seed,
            training seed. A name counts within its parent: seed 0 of one subset is not seed 0 of another.
        n_bootstrap: draws, B.
        seed: of the draws.

    Returns:
        (B, N) counts. A statistic of rows that are weighted by a line of it is one draw of that statistic, so that
        several quantities of the same rows are drawn in pairs.

    Raises:
        HfSynthError: there is no level or no row, or levels are of different rows.
    """
    n = len(levels[0]) if levels else 0
    if not n or any(len(level) != n for level in levels):
        raise HfSynthError("a hierarchical bootstrap needs the group of each row at each level, and at least one row")
    rng, counts = np.random.default_rng(seed), np.zeros((n_bootstrap, n), dtype=np.int64)

    def draw(rows: list[int], depth: int, times: Counts) -> None:
        inside: dict[Any, list[int]] = {}
        for row in rows:
            inside.setdefault(levels[depth][row] if depth < len(levels) else row, []).append(row)
        m = len(inside)
        # `times` draws of m among m, all at once: the sum of independent multinomials is one
        drawn = rng.multinomial(times * m, np.full(m, 1 / m)) if m > 1 else times[:, None]
        for part, its_times in zip(inside.values(), drawn.T, strict=True):
            if depth < len(levels):
                draw(part, depth + 1, its_times)
            else:
                counts[:, part[0]] = its_times

    draw(list(range(n)), 0, np.ones(n_bootstrap, dtype=np.int64))
    return counts


def hierarchical_bootstrap(
    values: npt.ArrayLike, levels: Sequence[Sequence[Any]], n_bootstrap: int = 2_000, seed: int = 0
) -> Floats:
    """Draw the mean of values that lie in nested groups (see `nested_counts`).

    `interval` of the draws, told how many groups the outermost level has, is that of the mean over other such groups.

    Args:
        values: (N,) one value a row, or (N, C) several whose draws stay paired, e.g. one a strategy.
        levels: the groups of each row, outermost first, each (N,).

    Returns:
        (B,) or (B, C) draws of the mean.

    Raises:
        HfSynthError: values and levels are of different rows, or a value is no number.
    """
    table = np.asarray(values, float)
    if table.ndim not in (1, 2) or not np.isfinite(table).all():
        raise HfSynthError("a hierarchical bootstrap needs numbers, one or several a row")
    if levels and len(levels[0]) != len(table):
        raise HfSynthError(f"there are {len(table)} rows of values, and groups of {len(levels[0])}")
    counts = nested_counts(levels, n_bootstrap, seed)
    total = counts.sum(1) if table.ndim == 1 else counts.sum(1)[:, None]
    return np.asarray(counts @ table / total)


@dataclass(frozen=True)
class Equivalence:
    """How many gold rows alone score as much as a mixture of gold and synthetic rows.

    Args:
        rows: the estimate; the largest size measured when `beyond`, the smallest when `below`.
        low: lower end of the 95% interval, cut to the sizes measured.
        high: upper end.
        beyond: the score lies above what the most gold rows measured reach: the answer is "at least".
        below: it lies below what the fewest reach: the answer is "at most".
        sizes: smallest and largest size measured.
    """

    rows: float
    low: float
    high: float
    beyond: bool
    below: bool
    sizes: tuple[int, int]

    def __str__(self) -> str:
        if self.beyond:
            return f"at least {self.sizes[1]:,} gold rows, the most that were measured"
        if self.below:
            return f"at most {self.sizes[0]:,} gold rows, the fewest that were measured"
        return f"{self.rows:,.0f} gold rows (95% CI {self.low:,.0f}-{self.high:,.0f})"


def gold_equivalence(
    curve: Mapping[int, Sequence[float]], scores: Sequence[float], *, n_bootstrap: int = 2_000, seed: int = 0
) -> Equivalence:
    """Say where scores land on the measured curve of gold alone.

    The curve is the monotone fit (isotonic) of score over the logarithm of the number of rows, read off between the
    sizes measured and never beyond them. The interval is the bootstrap over runs, each with its own gold, generation
    and training seeds, of the curve and of the scores: a bootstrap of one run's test rows would understate it.

    Args:
        curve: number of gold rows -> the score of each run with so many; two sizes and two runs at least.
        scores: of the runs of the mixture; two at least.
        n_bootstrap: draws.
        seed: of the draws.

    Raises:
        HfSynthError: there are too few sizes or runs for an interval.
    """
    sizes = sorted(curve)
    if len(sizes) < 2 or min(map(len, curve.values())) < 2 or len(scores) < 2:
        raise HfSynthError("gold equivalence needs two gold sizes and two runs of everything at least")
    rng = np.random.default_rng(seed)
    runs = [np.asarray(curve[n], float) for n in sizes]
    mixture = np.asarray(scores, float)

    def drawn(values: Floats) -> float:
        return float(values[rng.integers(0, len(values), len(values))].mean())

    log_sizes = np.log(sizes)
    weights = np.array([len(r) for r in runs], float)
    estimate = _read_off(log_sizes, np.array([r.mean() for r in runs]), weights, float(mixture.mean()))
    draws = [
        _read_off(log_sizes, np.array([drawn(r) for r in runs]), weights, drawn(mixture)) for _ in range(n_bootstrap)
    ]
    low, high = np.exp(np.percentile(np.clip(draws, log_sizes[0], log_sizes[-1]), [2.5, 97.5]))
    rows = math.exp(float(np.clip(estimate, log_sizes[0], log_sizes[-1])))
    return Equivalence(
        rows, float(low), float(high), estimate == math.inf, estimate == -math.inf, (sizes[0], sizes[-1])
    )


def _read_off(log_sizes: Floats, means: Floats, weights: Floats, score: float) -> float:
    """Give the log of the fewest rows whose fitted score is reached; -inf and inf outside what was measured."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression().fit(log_sizes, means, sample_weight=weights).predict(log_sizes)
    if score > fitted[-1] + 1e-12:
        return math.inf
    if score < fitted[0] - 1e-12:
        return -math.inf
    after = int(np.searchsorted(fitted, score - 1e-12, "left"))
    if after == 0 or fitted[after] - score < 1e-12:
        return float(log_sizes[after])
    share = (score - fitted[after - 1]) / (fitted[after] - fitted[after - 1])
    return float(log_sizes[after - 1] + share * (log_sizes[after] - log_sizes[after - 1]))
