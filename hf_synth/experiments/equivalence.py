"""Gold equivalence: how many gold rows alone score as much as a mixture of gold and synthetic rows.

A score is read off the measured curve of gold alone, and never beyond it. Two things vary: the test rows (patients),
and the runs (gold subset, generation, correction and training, all drawn anew by a seed). The interval comes from a
bootstrap over both at once, so it holds for one base model and one making of synthetic rows, on patients and gold like
these. Pure functions of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError

Floats = npt.NDArray[np.float64]
Metric = Callable[[Floats], Floats]  # sums (B, C) -> scores (B,)
_CHUNK = 500  # draws of patients at a time


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        score: on all test rows.
        seed: runs of one seed share their gold: the subset of a small size is a part of that of a large one.
        sums: what each group of test rows adds to the counts that the metric is a function of, (G, C); None where only
            the score is known: then test rows are not drawn anew.
    """

    score: float
    seed: int = 0
    sums: Floats | None = None


@dataclass(frozen=True)
class Equivalence:
    """How many gold rows alone score as much as a mixture.

    Args:
        rows: the estimate; the largest size measured when `beyond`, the smallest when `below`.
        low: lower end of the 95% interval, cut to the sizes measured.
        high: upper end.
        beyond: the score lies above what the most gold rows measured reach: the answer is "at least".
        below: it lies below what the fewest reach: the answer is "at most".
        sizes: smallest and largest size measured.
        power_law: the same read off a fitted power law, inside the sizes measured; None where it does not fit, or where
            the answer would lie beyond them. For comparison only.
        runs: fewest runs of any point.
        patients: whether groups of test rows were drawn anew as well.
    """

    rows: float
    low: float
    high: float
    beyond: bool
    below: bool
    sizes: tuple[int, int]
    power_law: float | None = None
    runs: int = 0
    patients: bool = False

    def __str__(self) -> str:
        if self.beyond:
            least = f"; 95% CI from {self.low:,.0f}" if self.low < self.sizes[1] else ""
            return f"at least {self.sizes[1]:,} gold rows, the most that were measured{least}"
        if self.below:
            return f"at most {self.sizes[0]:,} gold rows, the fewest that were measured"
        return f"{self.rows:,.0f} gold rows (95% CI {self.interval()})"

    def interval(self) -> str:
        """Give the interval as text; an end that lies at an end of what was measured is said to."""
        low = f"at most {self.low:,.0f}" if self.low <= self.sizes[0] else f"{self.low:,.0f}"
        high = f"at least {self.high:,.0f}" if self.high >= self.sizes[1] else f"{self.high:,.0f}"
        return f"{low} to {high}" if " " in low + high else f"{low}-{high}"

    def sentence(self, gold: int, synthetic: int, base_model: str, *, simulated: bool = False) -> str:
        """Say it in one sentence, with the base model, since another one has another curve.

        Args:
            gold: gold rows of the mixture.
            synthetic: synthetic rows of the mixture.
        """
        mark = "simulated: " if simulated else ""
        about = f"{mark}{gold:,} gold + {synthetic:,} synthetic"
        if self.beyond:
            low = f" (95% CI from {self.low:,.0f})" if self.low < self.sizes[1] else ""
            return f"{about} is worth >= {self.sizes[1]:,} gold notes{low} for {base_model}; no more were measured"
        if self.below:
            return f"{about} is worth <= {self.sizes[0]:,} gold notes for {base_model}; no fewer were measured"
        return f"{about} is worth {self.rows:,.0f} gold notes (95% CI {self.interval()}) for {base_model}"


def gold_equivalence(
    curve: Mapping[int, Sequence[float | Run]],
    scores: Sequence[float | Run],
    *,
    metric: Metric | None = None,
    n_bootstrap: int = 2_000,
    seed: int = 0,
) -> Equivalence:
    """Say where scores land on the measured curve of gold alone.

    The curve is the monotone fit (isotonic) of mean score over the logarithm of the number of rows. In each draw of the
    hierarchical bootstrap groups of test rows are drawn with replacement, the same ones for every run, and seeds: one
    fewer than there are, since drawing n of n would make the spread of a mean of few runs too small. Seeds are drawn
    together for all points that share them. What chance does on the test rows is in both draws, so where it is most of
    the spread the interval is too long; where runs differ much more than patients, and are few, it is too short.
    tests/test_equivalence.py measures it: with five runs it held the truth in 99% of 300 studies whose runs differed
    little, in 92% where they differed far more than patients make them; with three runs in 99% and 84%.

    Args:
        curve: number of gold rows -> its runs, or their scores; two sizes and two runs at least.
        scores: runs of the mixture; two at least.
        metric: makes scores of summed counts, for runs that have them.
        n_bootstrap: draws.
        seed: of the draws.

    Raises:
        HfSynthError: there are too few sizes or runs for an interval, or runs are of different test rows.
    """
    sizes = sorted(curve)
    if len(sizes) < 2 or min(map(len, curve.values())) < 2 or len(scores) < 2:
        raise HfSynthError("gold equivalence needs two gold sizes and two runs of everything at least")
    points = [_runs(curve[n]) for n in sizes] + [_runs(scores)]
    log_sizes, weights = np.log(sizes), np.array([len(p) for p in points[:-1]], float)
    means = np.array([np.mean([r.score for r in p]) for p in points])
    estimate = float(read_off(log_sizes, means[None, :-1], weights, means[-1:])[0])
    drawn = drawn_means(points, metric, n_bootstrap=n_bootstrap, seed=seed)
    draws = read_off(log_sizes, drawn[:, :-1], weights, drawn[:, -1])
    ends = np.exp(np.percentile(np.clip(draws, log_sizes[0], log_sizes[-1]), [2.5, 97.5]))
    low, high = (float(np.clip(end, sizes[0], sizes[-1])) for end in ends)
    return Equivalence(
        math.exp(float(np.clip(estimate, log_sizes[0], log_sizes[-1]))),
        _whole(low, sizes), _whole(high, sizes), estimate == math.inf, estimate == -math.inf, (sizes[0], sizes[-1]),
        _power_law(np.array(sizes, float), means[:-1], float(means[-1])), min(map(len, points)),
        metric is not None and all(r.sums is not None for p in points for r in p),
    )  # fmt: skip


def _whole(end: float, sizes: Sequence[int]) -> float:
    """Take an end that is a measured end but for rounding for that end."""
    return next((float(n) for n in (sizes[0], sizes[-1]) if math.isclose(end, n, rel_tol=1e-9)), end)


def _runs(given: Sequence[float | Run]) -> list[Run]:
    # scores without seeds are runs of their own: none shares a seed with another point
    return [r if isinstance(r, Run) else Run(float(r), seed=-1) for r in given]


def drawn_means(
    points: Sequence[Sequence[Run]], metric: Metric | None, *, n_bootstrap: int = 2_000, seed: int = 0
) -> Floats:
    """Draw patients and seeds; give the mean score of each point in each draw, (n_bootstrap, P).

    Args:
        points: runs of each point. Points whose runs have the same seeds share the seeds drawn.
        metric: makes scores of summed counts; without it, or for runs without sums, only seeds are drawn.

    Raises:
        HfSynthError: runs are of different test rows.
    """
    groups = {len(r.sums) for p in points for r in p if r.sums is not None}
    if len(groups) > 1:
        raise HfSynthError("runs that are compared must have been scored on the same test rows")
    rng = np.random.default_rng(seed)
    scores = [np.tile([r.score for r in p], (n_bootstrap, 1)) for p in points]
    if metric is not None and groups:
        n_groups = groups.pop()
        for start in range(0, n_bootstrap, _CHUNK):
            part = slice(start, min(start + _CHUNK, n_bootstrap))
            times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), part.stop - start).astype(float)
            for column, runs in zip(scores, points, strict=True):
                for k, run in enumerate(runs):
                    if run.sums is not None:
                        column[part, k] = metric(times @ run.sums)
    shared: dict[tuple[int, ...], Floats] = {}
    means = np.empty((n_bootstrap, len(points)))
    for i, (column, runs) in enumerate(zip(scores, points, strict=True)):
        n, key = len(runs), tuple(r.seed for r in runs)
        if len(set(key)) < n or key not in shared:
            # (draws, n): how often each run counts; n - 1 of n runs
            shared[key] = rng.multinomial(max(1, n - 1), np.full(n, 1 / n), n_bootstrap) / max(1, n - 1)
        means[:, i] = (column * shared[key]).sum(1)
    return means


def read_off(log_sizes: Floats, means: Floats, weights: Floats, scores: Floats) -> Floats:
    """Give the log of the fewest rows whose fitted score is reached, (B,); -inf and inf outside what was measured.

    Args:
        log_sizes: (P,) in order.
        means: of scores by size, (B, P); each row is fitted monotonely by itself.
        weights: of the sizes, (P,).
        scores: to be read off, (B,).
    """
    fitted = monotone(means, weights)
    score = scores[:, None]
    after = (fitted < score - 1e-12).sum(1)  # the first size that reaches the score
    right = np.minimum(after, len(log_sizes) - 1)
    left = np.maximum(right - 1, 0)
    rows = np.arange(len(scores))
    rise = fitted[rows, right] - fitted[rows, left]
    share = np.where(rise > 0, (scores - fitted[rows, left]) / np.where(rise > 0, rise, 1.0), 1.0)
    found = log_sizes[left] + np.clip(share, 0, 1) * (log_sizes[right] - log_sizes[left])
    found = np.where(after == 0, log_sizes[0], found)
    found = np.where(scores < fitted[:, 0] - 1e-12, -math.inf, found)
    return np.asarray(np.where(scores > fitted[:, -1] + 1e-12, math.inf, found))


def monotone(values: Floats, weights: Floats) -> Floats:
    """Fit each row (B, P) by values that never fall, by least squares: isotonic regression.

    By its min-max formula: the fit at i is the largest, over starts up to i, of the smallest weighted mean from there
    to an end at i or later. Thousands of rows of a few sizes at once, where a library would fit one by one.
    """
    n = len(weights)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values * weights, axis=1)], axis=1)
    fitted = np.full(values.shape, -math.inf)
    for start in range(n):
        ends = np.arange(start + 1, n + 1)
        means = (sums[:, ends] - sums[:, [start]]) / (total[ends] - total[start])
        lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]  # of ends from each place on
        fitted[:, start:] = np.maximum(fitted[:, start:], lowest)
    return fitted


def _power_law(sizes: Floats, means: Floats, score: float) -> float | None:
    """Read rows off score = a - b * n**-c, fitted by least squares to four sizes or more; None where there is none."""
    from scipy.optimize import least_squares

    if len(sizes) < 4:
        return None

    def miss(law: Floats) -> Floats:
        a, b, c = law
        return np.asarray(a - b * sizes**-c - means)

    spread = max(float(means.max() - means.min()), 1e-3)
    start = [float(means.max()) + spread / 4, spread * sizes[0] ** 0.5, 0.5]
    fitted = least_squares(miss, start, bounds=([-2, 0, 0.01], [2, np.inf, 3]))
    a, b, c = fitted.x
    if not fitted.success or score >= a or b <= 0:
        return None
    rows = ((a - score) / b) ** (-1 / c)
    return float(rows) if sizes[0] <= rows <= sizes[-1] else None


@dataclass(frozen=True)
class Rates:
    """What time costs.

    Args:
        minutes_per_note: of a person who labels one note; 3 is an assumption.
        hourly_usd: of that person; 60 is an assumption.
        compute_usd: of an hour of one core; 0.05 is an assumption.
        gpu_usd: of an hour of one GPU, where models are trained on one; 2 is an assumption.
        given: whether these are the user's own numbers.
    """

    minutes_per_note: float = 3.0
    hourly_usd: float = 60.0
    compute_usd: float = 0.05
    gpu_usd: float = 2.0
    given: bool = False

    def __post_init__(self) -> None:
        if min(self.minutes_per_note, self.hourly_usd, self.compute_usd, self.gpu_usd) < 0:
            raise HfSynthError("minutes and dollars are 0 or more")


@dataclass(frozen=True)
class Spent:
    """What making and using synthetic rows took.

    Args:
        calls: to the generator.
        prompt_tokens: read by it.
        completion_tokens: written by it.
        usd: paid for them; None where no price is known.
        cpu_hours: of correction and training.
        gpu_hours: of correction and training, by the clock.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0


@dataclass(frozen=True)
class CostBenefit:
    """What was saved, and at what cost.

    Args:
        notes: gold notes that need no labelling: the equivalence less the gold that was used; below 0 a loss.
        notes_ci95: its interval.
        at_least: the score lies beyond what was measured: `notes` is a lower bound.
        at_most: it lies below what was measured: an upper bound.
        minutes: of labelling saved.
        saved_usd: what they are worth.
        spent_usd: on the generator and on computing; None where the generator's price is not known.
        spent: in detail.
        rates: what time costs.
    """

    notes: float
    notes_ci95: tuple[float, float]
    at_least: bool
    at_most: bool
    minutes: float
    saved_usd: float
    spent_usd: float | None
    spent: Spent
    rates: Rates


def cost_benefit(found: Equivalence, gold_size: int, spent: Spent, rates: Rates | None = None) -> CostBenefit:
    """Hold what synthetic rows cost against the labelling they save.

    Args:
        found: how many gold rows the mixture is worth.
        gold_size: gold rows of the mixture.
    """
    rates = rates or Rates()
    notes = found.rows - gold_size
    minutes = notes * rates.minutes_per_note
    computing = spent.cpu_hours * rates.compute_usd + spent.gpu_hours * rates.gpu_usd
    return CostBenefit(
        notes, (found.low - gold_size, found.high - gold_size), found.beyond, found.below, minutes,
        minutes / 60 * rates.hourly_usd, None if spent.usd is None else spent.usd + computing, spent, rates,
    )  # fmt: skip
