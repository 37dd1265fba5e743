"""Intervals of a mean from few rows with labels by people and predictions on many rows (prediction-powered inference).

The mean of the predictions on all rows is corrected by the mean error of the predictions on the labelled rows
(Angelopoulos et al., 2023). The predictions count by a factor between 0 and 1 that is estimated from the labelled rows,
so that poor predictions do no harm (Angelopoulos, Duchi and Zrnic, 2023, "PPI++"). Predictions may be wrong in any way;
they must not depend on the labels of these rows. numpy alone; scipy is imported on first use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.intervals import wilson_at
from hf_synth.task.labels import Floats

_PRIOR = 2.0  # rows by which the variance is drawn towards that of a sample without predictions
_FEW = 2.0  # rows of the rarer value, 0 or 1, by which the gain of a share's interval is drawn towards none


@dataclass(frozen=True)
class Powered:
    """An estimate of a mean with its 95% interval.

    Args:
        mean: the estimate.
        low, high: bounds of the interval; those of shares lie between 0 and 1.
        factor: how much the predictions count, from 0 to 1; at 0 the estimate is that of the labelled rows alone.
        narrower: estimated variance, as a share of the variance without predictions.
    """

    mean: float
    low: float
    high: float
    factor: float
    narrower: float


def prediction_powered(
    values: npt.ArrayLike,
    predicted: npt.ArrayLike,
    every: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    strata: Sequence[Any] | None = None,
    census: bool = False,
) -> Powered:
    """Estimate a mean from few labelled rows and predictions on many rows.

    The interval of a share (values 0 and 1) is Wilson's at the effective sample size, as `statistics.design_share`
    has it: the variance with predictions is a fraction of the variance without. The fraction is drawn towards 1 by two
    rows, since a few rows that are all right do not prove that the predictions are, and by two rows of the rarer value,
    since one or two wrong rows do not show how well predictions find wrong rows. The interval of any other mean is
    Student's.

    Args:
        values: (n,) what people found, e.g. 1 where a label is right and 0 where it is wrong; two rows or more.
        predicted: (n,) what a model predicts of these values, e.g. its probability that the label is right.
        every: (N,) the same predictions for the many rows.
        weights: (n,) 1 / inclusion probability of a row; equal when None.
        strata: (n,) stratum of each row, of a stratified sample with `weights`.
        census: the mean of the N rows is asked for, of which the n rows are a random part (an audited share). Else that
            of the population that both come from, where the N rows have no labels (a model's accuracy).

    Raises:
        HfSynthError: shapes differ, a number is not finite, or there are too few rows.
    """
    y, f, g = (np.asarray(v, dtype=np.float64) for v in (values, predicted, every))
    n, many = len(y), len(g)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    names = np.zeros(n) if strata is None else np.asarray(strata, dtype=object)
    if not (y.ndim == g.ndim == 1 and y.shape == f.shape == w.shape == names.shape) or n < 2 or many < 1:
        raise HfSynthError(
            f"a prediction-powered mean needs two labelled rows or more, each with a prediction, and predictions on "
            f"many rows; got shapes {y.shape}, {f.shape} and {g.shape}"
        )
    if not all(np.isfinite(v).all() for v in (y, f, g, w)) or (w <= 0).any():
        raise HfSynthError("a prediction-powered mean needs finite values and predictions, and weights above 0")
    codes = np.unique(names, return_inverse=True)[1]
    total = float(w.sum())
    cost = _cost(w, codes, many if census and weights is None else None, census)
    y_off, f_off = y - _stratum_means(y, w, codes), f - _stratum_means(f, w, codes)
    y_alone, both, f_alone = (float(cost @ v) for v in (y_off * y_off, y_off * f_off, f_off * f_off))
    far = 0.0 if census or many < 2 else float(g.var(ddof=1)) / many * total**2
    share = bool(np.isin(y, (0, 1)).all())
    likely = (float(w @ y) / total * n + 1) / (n + 2)
    prior = _PRIOR * float(cost.mean()) * (likely * (1 - likely) if share else float(y.var()))
    factor = min(1.0, max(0.0, both / (f_alone + far))) if f_alone + far > 0 else 0.0
    left = y_alone - 2 * factor * both + factor**2 * (f_alone + far) + prior
    free = _degrees_of_freedom(y, w, codes, cost, share)
    fraction = left / (y_alone + prior) * free / (free - 1) if free > 1 and y_alone + prior > 0 else 1.0
    if fraction >= 1:
        factor, fraction = 0.0, 1.0
    mean = factor * float(g.mean()) + float(w @ (y - factor * f)) / total
    free -= factor > 0
    if not share:
        half = _student(free) * math.sqrt(fraction * (y_alone + prior)) / total
        return Powered(mean, mean - half, mean + half, factor, fraction)
    rare = min(float(y.sum()), n - float(y.sum()))  # few wrong rows do not show how well predictions see wrong rows
    fraction = (rare * fraction + _FEW) / (rare + _FEW)
    rows = _effective(y, w, codes, cost) / fraction
    low, high = _wilson(min(1.0, max(0.0, mean)), rows, free)
    return Powered(min(1.0, max(0.0, mean)), low, high, factor, fraction)


def _cost(w: Floats, codes: npt.NDArray[np.int64], rows: int | None, census: bool) -> Floats:
    """Return what each row's squared deviation adds to the variance of a weighted total, (n,).

    Args:
        rows: of the population, of a simple random sample without weights.
        census: whether the sample is a part of a finite population.
    """
    drawn = np.bincount(codes)
    size = np.bincount(codes, w) if rows is None else np.array([float(rows)])
    unseen = np.maximum(0.0, 1 - drawn / size) if census else np.ones(len(drawn))
    return np.asarray(w**2 * (unseen * drawn / np.maximum(1, drawn - 1))[codes])


def _stratum_means(values: Floats, w: Floats, codes: npt.NDArray[np.int64]) -> Floats:
    """Return the weighted mean of each row's stratum, (n,)."""
    return np.asarray((np.bincount(codes, w * values) / np.bincount(codes, w))[codes])


def _stratum_variances(y: Floats, w: Floats, codes: npt.NDArray[np.int64], cost: Floats, share: bool) -> Floats:
    """Return what each stratum adds to the variance of the weighted total, (H,); of shares as in `design_share`."""
    if not share:
        return np.asarray(np.bincount(codes, cost * (y - _stratum_means(y, w, codes)) ** 2))
    drawn = np.bincount(codes)
    held = (np.bincount(codes, w * y) / np.bincount(codes, w) * drawn + 1) / (drawn + 2)  # none is all right
    return np.asarray(np.bincount(codes, cost) * held * (1 - held) * (drawn - 1).clip(1) / drawn)


def _degrees_of_freedom(y: Floats, w: Floats, codes: npt.NDArray[np.int64], cost: Floats, share: bool) -> float:
    """Return the degrees of freedom of the variance (Satterthwaite, 1946): few where one stratum rules."""
    parts, drawn = _stratum_variances(y, w, codes, cost, share), np.bincount(codes)
    squares = float((parts**2 / np.maximum(1, drawn - 1)).sum())
    return float(parts.sum()) ** 2 / squares if squares > 0 else float(len(y) - len(drawn))


def _effective(y: Floats, w: Floats, codes: npt.NDArray[np.int64], cost: Floats) -> float:
    """Return the simple random sample that has the variance of the design; infinite where every row was drawn."""
    total, drawn, size, hits = float(w.sum()), np.bincount(codes), np.bincount(codes, w), np.bincount(codes, w * y)
    variance = float(_stratum_variances(y, w, codes, cost, True).sum()) / total**2
    middle = float(size @ ((hits / size * drawn + 1) / (drawn + 2))) / total
    return middle * (1 - middle) / variance if variance > 0 else math.inf


def _wilson(share: float, rows: float, free: float) -> tuple[float, float]:
    """Return Wilson's interval of a share with Student's quantile."""
    if math.isinf(rows):
        return share, share
    low, high = wilson_at(np.array(share), np.array(rows), _student(free))
    return float(low), float(high)


def _student(free: float) -> float:
    """Return the 97.5% quantile of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, free), 0.975))
