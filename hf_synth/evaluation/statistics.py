"""What a difference between models is worth: exact tests, several of them, nested bootstraps.

Pure functions of numbers; scipy does the tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
_Z = 1.959964  # 97.5% quantile of the normal distribution


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


def design_share(
    right: npt.ArrayLike, weights: npt.ArrayLike, strata: Sequence[Any] | None = None
) -> tuple[float, float, float]:
    """Estimate a share of all rows from a sample that was drawn with unequal chances, with its 95% interval.

    The share is Hajek's, the weighted mean. The interval is Wilson's for as many rows of a simple random sample as
    would have the variance of the design, by the degrees of freedom that it leaves (Korn and Graubard, 1998; Franco et
    al., 2019). By strata (each W of all rows, n of its N drawn, x of them right) the variance is the sum of
    W^2 (1 - n / N) p (1 - p) / n (Cochran, 1977, chapter 5) at p = (x + 1) / (n + 2): a few rows that are all right do
    not tell that all of their stratum are. Without strata it is linearised as for draws with replacement, and the rows
    are no more than Kish's (1965) effective number.

    Args:
        right: (n,) whether a row counts.
        weights: (n,) 1 / its chance of being drawn.
        strata: (n,) its stratum, where rows were drawn by strata.

    Returns:
        The share, and the bounds of the interval.
    """
    from scipy.special import stdtrit

    hit, weight = np.asarray(right, float), np.asarray(weights, float)
    total, n = float(weight.sum()), len(hit)
    share = float(hit @ weight / total)
    if strata is None:
        rows, free = total**2 / float((weight**2).sum()), n - 1
        if 0 < share < 1:
            variance = n / max(1, n - 1) * float((weight**2 * (hit - share) ** 2).sum()) / total**2
            rows = min(rows, share * (1 - share) / variance)
    else:
        codes = np.unique(np.asarray(strata, dtype=object), return_inverse=True)[1]
        size, part, squares = (np.bincount(codes, w) for w in (weight, weight * hit, weight**2))
        drawn, free = size**2 / squares, n - int(codes.max()) - 1
        held = (part / size * drawn + 1) / (drawn + 2)
        left = np.maximum(0.0, 1 - drawn / size)
        variance = float(((size / total) ** 2 * left * held * (1 - held) / drawn).sum())
        if variance == 0:  # all rows were looked at
            return share, share, share
        middle = float(size @ held) / total
        rows = middle * (1 - middle) / variance
    z = _Z
    rows *= (z / float(stdtrit(max(1, free), 0.975))) ** 2
    middle, half = share + z * z / rows / 2, z * math.sqrt(share * (1 - share) / rows + (z / rows) ** 2 / 4)
    scaled = 1 + z * z / rows
    return share, max(0.0, (middle - half) / scaled), min(1.0, (middle + half) / scaled)


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


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Compute the 95% interval of a share (Wilson, 1927); (0, 1) of no row."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, n).proportion_ci(method="wilson") if n else (0.0, 1.0)
    return float(low), float(high)


def wilson_bounds(hits: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Compute the `wilson` intervals of many shares at once: their lower and upper bounds, (K,) each."""
    rows = np.maximum(n, 1)
    share, part = np.asarray(hits) / rows, _Z * _Z / rows
    middle, half = share + part / 2, _Z * np.sqrt(share * (1 - share) / rows + part / (4 * rows))
    low, high = np.maximum(0.0, (middle - half) / (1 + part)), np.minimum(1.0, (middle + half) / (1 + part))
    return np.where(n, low, 0.0), np.where(n, high, 1.0)
