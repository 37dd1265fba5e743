"""What a difference between models is worth: exact tests, several of them at once, and gold rows as the unit.

Pure functions of numbers; scipy does the tests and scikit-learn the monotone fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError

Floats = npt.NDArray[np.float64]


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
