"""95% intervals of scores and of differences of scores, for the population that the test rows were drawn from.

A share (accuracy, recall or precision of a label; its F1, which is a function of the share of right rows among those
that have or are given the label) has Wilson's interval at the effective number of rows: the rows that are counted,
divided by the design effect of patients with several rows. Other scores have the same form, with the number of rows
that a share of the same variance would have. That variance is linearised (the sum of squared influences of rows or of
patients) after half a wrong and half a right pseudo-row are added to the counts, spread over the labels so that rare
ones get most of them: rows that are all right are not taken for certain. Where one label is much rarer than the others,
the interval of a macro average is widened towards the one joined from the intervals of its labels (Zou and Donner,
2008).

A paired difference has the interval of Bonett and Price (2012): pseudo-rows that only one of two models has right are
added, so that two models with equal predictions have an interval that is not a point.

The quantile of a single score is 2.06 and not 1.96: at 1.96 coverage falls to .92 for some shares of 20 to 50 rows.
`benchmarks/intervals.py` measures the coverage of all of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hf_synth.evaluation import metrics
from hf_synth.evaluation.metrics import Array, Values

Limits = tuple[float, float]
MIN_CLASS = 5  # a label with fewer test rows has no interval, nor has an average over it
KINDS = ("recall", "precision", "f1")
_Z, _Z_PAIRED = 2.06, 1.959964
_ERRORS, _RIGHT = 0.5, 0.5  # pseudo-rows that are wrong, and that are right
_SWAPS = 0.8  # pseudo-rows that only the first model has right, and as many that only the second has right


@dataclass(frozen=True)
class Sample:
    """Test rows as sums that metrics are computed from; the first 3k columns are those of `metrics.label_sums`.

    Args:
        sums: of each group, (G, C).
        kinds: of each kind of row that occurs, (U, C).
        times: number of rows of each kind, (U,).
        pseudo: sums of pseudo-rows, (P, C).
        mass: how many there are of each, (P,); they need not be whole.
        rows: rows of each group, (G,).
        k: number of labels.
    """

    sums: Array
    kinds: Array
    times: Array
    pseudo: Array
    mass: Array
    rows: Array
    k: int

    @cached_property
    def size(self) -> float:
        """The mean number of rows in the group of a row; 1 where each row is by itself."""
        return float((self.rows**2).sum() / max(1.0, self.rows.sum()))

    @cached_property
    def totals(self) -> Array:
        """The sums of all rows and pseudo-rows, (C,)."""
        return np.asarray(self.sums.sum(0) + self.mass @ self.pseudo)

    @cached_property
    def label_limits(self) -> dict[str, tuple[Array, Array]]:
        """The intervals of recall, precision and F1 of each label, (k,) each; nan where `share_limits` is nan."""
        found = {}
        for kind, shares in label_shares(self.sums, self.k).items():
            low, high = share_limits(*shares)
            found[kind] = f1_of_share(kind, low), f1_of_share(kind, high)
        return found

    def variance(self, gradient: Array) -> Array:
        """Return the variance of scores from their gradients by the totals, (C, M) -> (M,).

        It is at least that of independent rows. Pseudo-rows count as if half of the variance were between groups,
        since nothing tells how they would be spread over groups.
        """
        spread = self.times @ (self.kinds @ gradient) ** 2
        groups = len(self.sums)
        if self.size > 1 and groups > 1:
            spread = np.maximum(spread, groups / (groups - 1) * ((self.sums @ gradient) ** 2).sum(0))
        return np.asarray(spread + (1 + self.size) / 2 * (self.mass @ (self.pseudo @ gradient) ** 2))

    def covariance(self, gradient: Array) -> Array:
        """Return the covariance of scores from their gradients by the totals, (C, M) -> (M, M)."""
        rows, weights = (self.sums, np.ones(len(self.sums))) if self.size > 1 else (self.kinds, self.times)
        effects, pseudo = rows @ gradient, self.pseudo @ gradient
        return np.asarray((effects * weights[:, None]).T @ effects + (pseudo * self.mass[:, None]).T @ pseudo)


def label_sample(true: Array, guess: Array, k: int, codes: Array) -> Sample:
    """Return the sample of rows with one label each: true and predicted labels (N,) below k, group numbers (N,)."""
    pairs, times = np.unique(true * k + guess, return_counts=True)
    kinds = metrics.label_sums(pairs // k, pairs % k, k, np.arange(len(pairs)))
    sums = metrics.label_sums(true, guess, k, codes)
    has = np.bincount(true, minlength=k)
    wrong = _confused(has)
    pseudo = np.vstack([np.hstack([np.zeros((k, k)), np.eye(k), wrong]), np.hstack([np.eye(k)] * 3)])
    mass = np.hstack([_ERRORS * _pseudo_row_shares(has), _RIGHT * _pseudo_row_shares(has)])
    return Sample(sums, kinds, times, pseudo, mass, np.bincount(codes), k)


def set_sample(true: Array, guess: Array, judged: Array, codes: Array) -> Sample:
    """Return the sample of rows with sets of labels, (N, k) masks each, as `metrics.set_sums` adds them up."""
    k, n = true.shape[1], len(true)
    kinds = metrics.set_sums(true, guess, judged, np.arange(n))
    sums, has = metrics.set_sums(true, guess, judged, codes), (true & judged).sum(0)
    label, none = np.eye(k), np.zeros((k, k))
    missed = np.hstack([none, label, none, np.zeros((k, 1)), np.ones((k, 1))])
    added = np.hstack([none, none, label, np.zeros((k, 1)), np.ones((k, 1))])
    right = np.hstack([label, label, label, np.zeros((k, 1)), np.ones((k, 1))])
    mass = np.hstack(
        [_ERRORS * _pseudo_row_shares(has), _ERRORS * _pseudo_row_shares(has), _RIGHT * _pseudo_row_shares(has)]
    )
    return Sample(sums, kinds, np.ones(n), np.vstack([missed, added, right]), mass, np.bincount(codes), k)


def _pseudo_row_shares(has: Array) -> Array:
    """Share out pseudo-rows over labels with `has` rows each, (k,): a rare label has most of the variance."""
    share = np.where(has > 0, 1 / np.maximum(has, 1), 0.0)
    return np.asarray(share / max(1e-12, share.sum()))


def _confused(has: Array) -> Array:
    """Return how likely each other label is predicted for a label in a pseudo-row, (k, k): in proportion to rarity."""
    k = len(has)
    table = np.tile(_pseudo_row_shares(has), (k, 1)) * (1 - np.eye(k))
    return np.asarray(table / np.maximum(1e-12, table.sum(1, keepdims=True)))


# --- single scores ----------------------------------------------------------------------------------------------------
def wilson_at(share: Array, n: Array, quantile: Array | float) -> tuple[Array, Array]:
    """Return Wilson's interval of shares at numbers of rows that need not be whole."""
    part = quantile**2 / np.maximum(n, 1e-9)
    middle, half = share + part / 2, np.sqrt(part) * np.sqrt(share * (1 - share) + part / 4)
    return np.maximum(0.0, (middle - half) / (1 + part)), np.minimum(1.0, (middle + half) / (1 + part))


def half_width_error(low: float, high: float) -> float:
    """Return the standard error that an interval of a single score stands for."""
    return (high - low) / (2 * _Z)


def quantile_of(groups: Array | float, size: Array | float, base: float = _Z) -> Array:
    """Return the quantile of an interval: between `base` for independent rows and Student's t for groups of many."""
    from scipy.special import stdtrit

    t = stdtrit(np.maximum(1, np.asarray(groups) - 1), 0.975)
    return np.asarray(base + (1 - 1 / np.maximum(size, 1)) * np.maximum(0, t - base))


def share_limits(hits: Array, rows: Array) -> tuple[Array, Array]:
    """Compute the intervals of K shares of rows, each (K,).

    Args:
        hits: rows of each group that count, (G, K).
        rows: rows of each group among which they are counted, (G, K).

    Returns:
        Lower and upper bounds; nan for a share of no row, and for one whose rows, several, are of a single group.
    """
    total, n_groups = rows.sum(0), (rows > 0).sum(0)
    n = np.maximum(total, 1)
    share, size = hits.sum(0) / n, (rows**2).sum(0) / n
    plain = share * (1 - share) / n
    groups = ((hits - share * rows) ** 2).sum(0) / n**2 * n_groups / np.maximum(1, n_groups - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = np.where(size > 1, np.where(plain > 0, np.maximum(1, groups / plain), (1 + size) / 2), 1.0)
    low, high = wilson_at(share, n / effect, quantile_of(n_groups, size))
    known = (total > 0) & ((n_groups > 1) | (size <= 1))
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def mean_limits(values: Array, codes: Array) -> Limits:
    """Compute the interval of the mean of values between 0 and 1, (N,), that come in groups; nan for a single group."""
    sums, rows = (np.bincount(codes, weights) for weights in (values.astype(float), np.ones(len(codes))))
    if np.isin(values, (0, 1)).all():
        low, high = share_limits(sums[:, None], rows[:, None])
        return float(low[0]), float(high[0])
    n, groups, mean = len(values), len(rows), float(values.mean())
    if groups < 2:
        return math.nan, math.nan
    spread = max(float(((sums - mean * rows) ** 2).sum()), float(((values - mean) ** 2).sum())) / n**2
    n_effective = mean * (1 - mean) / (spread * groups / (groups - 1)) if spread else float(groups)
    limits = wilson_at(np.array(mean), np.array(n_effective), max(_Z, float(quantile_of(groups, np.inf))))
    return float(limits[0]), float(limits[1])


def label_shares(sums: Array, k: int) -> dict[str, tuple[Array, Array]]:
    """Return for each of KINDS what is counted, and among what, from sums whose first 3k columns are `label_sums`.

    The share of f1 is that of right rows among those that have the label or are given it; see `f1_of_share`.
    """
    hit, true, guess = np.split(sums[:, : 3 * k], 3, axis=1)
    return {"recall": (hit, true), "precision": (hit, guess), "f1": (hit, true + guess - hit)}


def f1_of_share(kind: str, share: Array) -> Array:
    """Turn the share of `label_shares` into the score of that kind."""
    return 2 * share / (1 + share) if kind == "f1" else share


def macro_limits(sample: Sample, kind: str, labels: Array) -> Limits:
    """Compute the interval of the mean of a kind of score over labels, (k,) mask."""
    k, at = sample.k, np.flatnonzero(labels)
    hits, rows = (part.sum(0)[at] for part in label_shares(sample.sums, k)[kind])
    score = f1_of_share(kind, hits / np.maximum(rows, 1))
    gradient = _label_gradients(sample, kind)[:, at]
    hits, rows = (part[0][at] for part in label_shares(sample.totals[None], k)[kind])
    center = float(f1_of_share(kind, hits / np.maximum(rows, 1e-9)).mean())
    value, quantile = float(score.mean()), quantile_of(len(sample.sums), sample.size)
    n = center * (1 - center) / max(1e-12, float(sample.variance(gradient.mean(1, keepdims=True))[0]))
    low, high = (float(limit) for limit in wilson_at(np.array(value), np.array(n), quantile))
    covariance = sample.covariance(gradient)
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-24))
    correlation = covariance / np.outer(spread, spread)
    lows, highs = (limit[at] for limit in sample.label_limits[kind])
    below, above = (score - lows) / len(at), (highs - score) / len(at)
    joined = (value - math.sqrt(below @ correlation @ below), value + math.sqrt(above @ correlation @ above))
    alone = float(
        (_pseudo_row_shares(sample.sums[:, k : 2 * k].sum(0)[at]) ** 2).sum()
    )  # 1 if one label is much rarer than all
    low -= alone * max(0.0, low - joined[0])
    high += alone * max(0.0, joined[1] - high)
    return max(0.0, low), min(1.0, high)


def _label_gradients(sample: Sample, kind: str) -> Array:
    """Return the gradient of each label's score of a kind by the totals, (C, k)."""
    k, totals = sample.k, sample.totals
    hits, rows = (part[0] for part in label_shares(totals[None], k)[kind])
    share, rows, one = hits / np.maximum(rows, 1e-9), np.maximum(rows, 1e-9), np.eye(k)
    gradient = np.zeros((len(totals), k))
    counted, among = (np.zeros((3, 1, 1)) for _ in range(2))
    counted[0] = 1
    among[{"recall": [1], "precision": [2], "f1": [1, 2]}[kind]] = 1
    if kind == "f1":
        among[0] = -1
    slope = (2 / (1 + share) ** 2 if kind == "f1" else np.ones(k)) / rows
    gradient[: 3 * k] = ((counted - share * among) * slope * one).reshape(3 * k, k)
    return gradient


def smooth_limits(sample: Sample, of_sums: Callable[[Array], Values], names: Sequence[str]) -> dict[str, Limits]:
    """Compute the intervals of metrics that are smooth functions of the totals, by their linearised variance."""
    found: dict[str, Limits] = {}
    if not names:
        return found
    values, (centers, gradients) = of_sums(sample.sums.sum(0)[None]), linearise(sample.totals, of_sums, names)
    quantile = quantile_of(len(sample.sums), sample.size)
    for i, name in enumerate(names):
        least, width = (-1.0, 2.0) if name == "mcc" else (0.0, 1.0)
        center, value = (float(np.clip((v - least) / width, 0, 1)) for v in (centers[i], values[name][0]))
        n = center * (1 - center) / max(1e-12, float(sample.variance(gradients[:, [i]] / width)[0]))
        low, high = wilson_at(np.array(value), np.array(n), quantile)
        found[name] = (least + width * float(low), least + width * float(high))
    return found


def linearise(totals: Array, of_sums: Callable[[Array], Values], names: Sequence[str]) -> tuple[Array, Array]:
    """Return the values of metrics at the sums of all rows (C,), and their gradients there: (M,) and (C, M).

    The metrics do not depend on the number of rows, so the product of a row of sums and the gradient is its influence.
    """
    step = 1e-4 * max(1.0, float(totals.max()))
    moved = np.vstack([totals, totals + step * np.eye(len(totals)), totals - step * np.eye(len(totals))])
    values = of_sums(moved)
    table = np.column_stack([values[name] for name in names])
    up, down = np.split(table[1:], 2)
    return table[0], (up - down) / (2 * step)


def rank_limits(value: float, ranks: Sequence[metrics.Ranks], metric: str, codes: Array) -> Limits:
    """Compute the interval of the mean AUROC or AUPRC over labels.

    The variance is that of the influences of rows or groups (DeLong, 1988; the infinitesimal jackknife), which is 0
    where all ranks are right; where it is less than the variance of a model, the mean of both is taken. The model is
    Hanley and McNeil's (1982) for AUROC, and for AUPRC that of a share of the positive rows (Boyd, 2013).

    Args:
        value: the mean.
        ranks: of each label in the mean.
        codes: group number of each row, (N,).
    """
    effects = np.mean([getattr(r, f"{metric}_effects") for r in ranks], axis=0)
    rows, groups = np.bincount(codes), int(codes.max()) + 1
    size = float((rows**2).sum() / rows.sum())
    plain = float((effects**2).sum())
    clustered = float((np.bincount(codes, effects) ** 2).sum()) * groups / max(1, groups - 1)
    design = max(1.0, clustered / plain) if size > 1 and plain > 0 else (1 + size) / 2 if size > 1 else 1.0
    modelled, centers = 0.0, []
    for r in ranks:
        few = min(r.positives, r.negatives) if metric == "auroc" else r.positives
        center = (getattr(r, metric) * few + 0.5) / (few + 1)
        n = float(r.positives)
        if metric == "auroc":
            per_row = (1 - center) / (2 - center) + center / (1 + center)
            n = r.positives * r.negatives / (1 + ((r.positives + r.negatives) / 2 - 1) * per_row)
        modelled += center * (1 - center) / n / len(ranks) ** 2
        centers.append(center)
    middle = float(np.mean(centers))
    n = middle * (1 - middle) / (design * max(plain, (plain + modelled) / 2))
    low, high = wilson_at(np.array(value), np.array(n), quantile_of(groups, size))
    return float(low), float(high)


# --- differences ------------------------------------------------------------------------------------------------------
def paired_samples(true: Array, guesses: tuple[Array, Array], k: int, codes: Array) -> tuple[Sample, Sample]:
    """Return the samples of two models on the same rows with one label each; their kinds and pseudo-rows are paired."""
    joint, times = np.unique((true * k + guesses[0]) * k + guesses[1], return_counts=True)
    places, has = np.arange(len(joint)), np.bincount(true, minlength=k)
    right = np.hstack([np.eye(k)] * 3)
    wrong = np.hstack([np.zeros((k, k)), np.eye(k), _confused(has)])
    mass = _SWAPS * np.tile(_pseudo_row_shares(has), 2)
    first, second = (
        Sample(
            metrics.label_sums(true, guess, k, codes),
            metrics.label_sums(joint // k**2, kind, k, places),
            times,
            np.vstack(pseudo),
            mass,
            np.bincount(codes),
            k,
        )
        for guess, kind, pseudo in zip(
            guesses, (joint // k % k, joint % k), ((right, wrong), (wrong, right)), strict=True
        )
    )
    return first, second


def paired_set_samples(true: Array, guesses: tuple[Array, Array], judged: Array, codes: Array) -> tuple[Sample, Sample]:
    """Return the samples of two models on the same rows with sets of labels, (N, k) masks each."""
    k, has = true.shape[1], (true & judged).sum(0)
    label, none, one = np.eye(k), np.zeros((k, k)), np.ones((k, 1))
    right, missed = np.hstack([label, label, label, one, one]), np.hstack([none, label, none, 0 * one, one])
    mass = _SWAPS * np.tile(_pseudo_row_shares(has), 2)
    first, second = (
        Sample(
            metrics.set_sums(true, guess, judged, codes),
            metrics.set_sums(true, guess, judged, np.arange(len(true))),
            np.ones(len(true)),
            np.vstack(pseudo),
            mass,
            np.bincount(codes),
            k,
        )
        for guess, pseudo in zip(guesses, ((right, missed), (missed, right)), strict=True)
    )
    return first, second


def paired_limits(value: float, a: Sample, b: Sample, of_sums: Callable[[Array], Values], metric: str) -> Limits:
    """Compute the interval of a difference of two models on the same rows: a metric of the first minus the second.

    Args:
        value: the difference, which the interval holds.
        a, b: samples of `paired_samples` or `paired_set_samples`.
        of_sums: metrics as a function of sums.
    """
    (of_a, by_a), (of_b, by_b) = (linearise(sample.totals, of_sums, [metric]) for sample in (a, b))
    both = Sample(
        np.hstack([a.sums, b.sums]), np.hstack([a.kinds, b.kinds]), a.times, np.hstack([a.pseudo, b.pseudo]), a.mass,
        a.rows, a.k,
    )  # fmt: skip
    spread = math.sqrt(float(both.variance(np.vstack([by_a, -by_b]))[0]))
    return _around(value, float(of_a[0] - of_b[0]), spread, len(a.sums), a.size)


def paired_rank_limits(
    value: float, a: Sequence[metrics.Ranks], b: Sequence[metrics.Ranks], metric: str, codes: Array
) -> Limits:
    """Compute the interval of a difference of mean AUROC or AUPRC of two models on the same rows.

    A pseudo-row that one of two models ranks first and the other amid the rows without the label is added each way.
    """
    name = f"{metric}_effects"
    effects = np.mean([getattr(x, name) - getattr(y, name) for x, y in zip(a, b, strict=True)], axis=0)
    rows, groups = np.bincount(codes), int(codes.max()) + 1
    size = float((rows**2).sum() / rows.sum())
    spread = float((effects**2).sum())
    if size > 1 and groups > 1:
        spread = max(spread, groups / (groups - 1) * float((np.bincount(codes, effects) ** 2).sum()))
    fewest = np.array([min(r.positives, r.negatives) if metric == "auroc" else r.positives for r in a], float)
    swapped = _SWAPS * _pseudo_row_shares(fewest) @ (0.5 / fewest / len(a)) ** 2
    return _around(value, value, math.sqrt(spread + (1 + size) * float(swapped)), groups, size)


def unpaired_limits(value: float, a: Limits, b: Limits, correlation: float = 0.0) -> Limits:
    """Join the intervals of two scores into that of their difference (Newcombe, 1998; Zou and Donner, 2008).

    Args:
        value: the first score minus the second.
        a, b: their intervals, each moved so that the score is at 0: (low - score, high - score).
        correlation: of the two scores; 0 where they are of different patients.
    """
    down = a[0] ** 2 + b[1] ** 2 + 2 * correlation * a[0] * b[1]  # a[0] and b[0] are at most 0
    up = a[1] ** 2 + b[0] ** 2 + 2 * correlation * a[1] * b[0]
    return value - math.sqrt(max(0.0, down)), value + math.sqrt(max(0.0, up))


def _around(value: float, middle: float, spread: float, groups: int, size: float) -> Limits:
    half = float(quantile_of(groups, size, _Z_PAIRED)) * spread
    return min(value, middle - half), max(value, middle + half)
