"""Bootstrap intervals, exact McNemar test, Holm correction, Wilson intervals, shares of weighted samples.

Pure functions of numbers; scipy, imported on first use, does the tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.intervals import wilson_at
from hf_synth.task.labels import Floats

Counts = npt.NDArray[np.int64]
_Z = 1.959964  # 97.5% quantile of the normal distribution


def mcnemar(a_right: npt.ArrayLike, b_right: npt.ArrayLike) -> float:
    """Test whether two models are right equally often on the same rows (exact McNemar test, two-sided).

    Rows of one patient are not independent: where rows come in groups, read the interval of `comparison.compare`.

    Args:
        a_right: (N,) whether the first model is right.
        b_right: (N,) whether the second model is right.

    Returns:
        The p-value; 1 when they never differ.

    Raises:
        HfSynthError: shapes differ.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(a_right, bool), np.asarray(b_right, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise HfSynthError(f"the McNemar test needs both models on the same rows; got shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values for multiple testing: control the family-wise error rate (Holm, 1979).

    Args:
        p_values: (M,) between 0 and 1, in any order.

    Returns:
        (M,) adjusted values, in the same order.

    Raises:
        HfSynthError: a value is not between 0 and 1.
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise HfSynthError("a p-value is not between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    in_order = np.empty_like(p)
    in_order[order] = adjusted
    return in_order


def interval(drawn: npt.ArrayLike, n_groups: int | None = None) -> tuple[float, float]:
    """Return the 95% percentile interval of bootstrap draws; undefined draws (nan) are left out.

    Args:
        drawn: (B,) draws of one statistic.
        n_groups: number of independent groups that were drawn from. The percentiles of few groups lie too close
            together; they are then expanded by Student's t and n / (n - 1) (Hesterberg, 2015, "expanded percentile
            interval"): for 20 groups to 1.6% and 98.4%.
    """
    below = 0.025
    if n_groups is not None and n_groups > 1:
        from scipy.special import ndtr, stdtrit

        below = float(ndtr(math.sqrt(n_groups / (n_groups - 1)) * stdtrit(n_groups - 1, below)))
    low, high = np.nanpercentile(np.asarray(drawn, float), [100 * below, 100 * (1 - below)])
    return float(low), float(high)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Compute the 95% interval of a share (Wilson, 1927); (0, 1) of no row."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, n).proportion_ci(method="wilson") if n else (0.0, 1.0)
    return float(low), float(high)


def wilson_bounds(hits: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Compute the `wilson` intervals of many shares at once: their lower and upper bounds, (K,) each."""
    rows = np.maximum(n, 1)
    low, high = wilson_at(np.asarray(hits) / rows, rows, _Z)
    return np.where(n, low, 0.0), np.where(n, high, 1.0)


def design_share(
    right: npt.ArrayLike, weights: npt.ArrayLike, strata: Sequence[Any] | npt.NDArray[Any] | None = None
) -> tuple[float, float, float]:
    """Estimate a share of all rows from a sample drawn with unequal probabilities, with its 95% interval.

    The share is the weighted mean (Hajek). The interval is Wilson's at the effective sample size, the simple random
    sample that has the variance of the design, corrected by its degrees of freedom (Korn and Graubard, 1998; Franco et
    al., 2019). With strata (each W of all rows, n of its N drawn, x of them right) the variance is the sum of
    W^2 (1 - n / N) p (1 - p) / n (Cochran, 1977, chapter 5) at p = (x + 1) / (n + 2), since a few rows that are all
    right do not prove that the whole stratum is. Without strata it is linearised as for draws with replacement, and the
    sample size is at most Kish's (1965).

    Args:
        right: (n,) whether a row counts.
        weights: (n,) 1 / inclusion probability.
        strata: (n,) stratum of each row, of a stratified sample.

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
        names = strata if isinstance(strata, np.ndarray) else np.asarray(strata, dtype=object)
        codes = np.unique(names, return_inverse=True)[1]
        size, part, squares = (np.bincount(codes, w) for w in (weight, weight * hit, weight**2))
        drawn, free = size**2 / squares, n - int(codes.max()) - 1
        held = (part / size * drawn + 1) / (drawn + 2)
        left = np.maximum(0.0, 1 - drawn / size)
        variance = float(((size / total) ** 2 * left * held * (1 - held) / drawn).sum())
        if variance == 0:  # every row was drawn
            return share, share, share
        middle = float(size @ held) / total
        rows = middle * (1 - middle) / variance
    z = _Z
    rows *= (z / float(stdtrit(max(1, free), 0.975))) ** 2
    middle, half = share + z * z / rows / 2, z * math.sqrt(share * (1 - share) / rows + (z / rows) ** 2 / 4)
    scaled = 1 + z * z / rows
    return share, max(0.0, (middle - half) / scaled), min(1.0, (middle + half) / scaled)


def error_over_seeds(values: npt.ArrayLike, *, overlap: float = 0.0, test_variance: float = 0.0) -> tuple[float, float]:
    """Return the standard error of the mean over seeds, and its degrees of freedom.

    Seeds whose gold is drawn from one pool share a part of it, so that their spread is too small: a share f of the pool
    in each draw adds f / (1 - f) of the variance to 1 / n of it, as Nadeau and Bengio (2003) correct resampled training
    sets. The chance of the test rows, the same for all seeds, is in no spread and is added. Degrees of freedom are
    Satterthwaite's; the variance of the test rows counts as known.

    Args:
        values: one of each seed, (n,).
        overlap: f, between 0 and 1; at 1 every seed has the whole pool.
        test_variance: variance of the mean by the choice of test rows.

    Returns:
        Standard error and degrees of freedom; infinite error where nothing tells it: of one seed, or at overlap 1.
    """
    table = np.asarray(values, float)
    n = len(table)
    if n < 2 or overlap >= 1:
        return math.inf, 1.0
    runs = float(table.var(ddof=1)) * (1 / n + overlap / (1 - overlap))
    total = runs + test_variance
    return math.sqrt(total), (n - 1) * (total / runs) ** 2 if runs > 0 else 1e9


def interval_over_seeds(
    values: npt.ArrayLike, *, overlap: float = 0.0, test_variance: float = 0.0
) -> tuple[float, float] | None:
    """Return the 95% interval of the mean over seeds by Student's t; None where `error_over_seeds` is infinite or 0."""
    from scipy.special import stdtrit

    error, free = error_over_seeds(values, overlap=overlap, test_variance=test_variance)
    if not 0 < error < math.inf:
        return None
    mean, half = float(np.mean(np.asarray(values, float))), float(stdtrit(free, 0.975)) * error
    return mean - half, mean + half


def nested_counts(levels: Sequence[Sequence[Any]], n_bootstrap: int = 2_000, seed: int = 0) -> Counts:
    """Draw rows in nested groups, level by level, and count how often each row was drawn.

    Groups of the first level are drawn with replacement; within each draw of a group, as many of its groups of the next
    level as it has, drawn anew; and so on to the rows. So two training seeds on one gold subset count for less than one
    seed on each of two subsets.

    Args:
        levels: names of the groups of each row, outermost first, each (N,): e.g. gold subset, generation seed, training
            seed. A name counts within its parent: seed 0 of one subset is not seed 0 of another.
        n_bootstrap: draws, B.
        seed: of the draws.

    Returns:
        (B, N) counts. A statistic of the rows weighted by one line of counts is one draw; several statistics of the
        same rows are thus drawn in pairs.

    Raises:
        HfSynthError: there is no level or no row, or the levels differ in length.
    """
    n = len(levels[0]) if levels else 0
    if not n or any(len(level) != n for level in levels):
        raise HfSynthError("a hierarchical bootstrap needs at least one row, and a group for each row at each level")
    rng, counts = np.random.default_rng(seed), np.zeros((n_bootstrap, n), dtype=np.int64)

    def draw(rows: list[int], depth: int, times: Counts) -> None:
        groups: dict[Any, list[int]] = {}
        for row in rows:
            groups.setdefault(levels[depth][row] if depth < len(levels) else row, []).append(row)
        m = len(groups)
        # `times` draws of m among m, all at once: the sum of independent multinomials is one
        drawn = rng.multinomial(times * m, np.full(m, 1 / m)) if m > 1 else times[:, None]
        for group, its_times in zip(groups.values(), drawn.T, strict=True):
            if depth < len(levels):
                draw(group, depth + 1, its_times)
            else:
                counts[:, group[0]] = its_times

    draw(list(range(n)), 0, np.ones(n_bootstrap, dtype=np.int64))
    return counts


def hierarchical_bootstrap(
    values: npt.ArrayLike, levels: Sequence[Sequence[Any]], n_bootstrap: int = 2_000, seed: int = 0
) -> Floats:
    """Draw the mean of values in nested groups (see `nested_counts`).

    `interval` of the draws, with the number of groups of the outermost level, holds the mean over other such groups.

    Args:
        values: (N,) one value a row, or (N, C) several whose draws stay paired, e.g. one for each strategy.
        levels: names of the groups of each row, outermost first, each (N,).

    Returns:
        (B,) or (B, C) draws of the mean.

    Raises:
        HfSynthError: values and levels differ in length, or a value is not a finite number.
    """
    table = np.asarray(values, float)
    if table.ndim not in (1, 2) or not np.isfinite(table).all():
        raise HfSynthError("a hierarchical bootstrap needs finite numbers, of shape (rows,) or (rows, values)")
    if levels and len(levels[0]) != len(table):
        raise HfSynthError(
            f"a hierarchical bootstrap has {len(table)} rows of values, but groups of {len(levels[0])} rows"
        )
    counts = nested_counts(levels, n_bootstrap, seed)
    total = counts.sum(1) if table.ndim == 1 else counts.sum(1)[:, None]
    return np.asarray(counts @ table / total)
