"""Gold equivalence, the number of gold rows alone that score as much as a mixture, and its costs and savings.

A score is read off the learning curve of gold alone, inside the sizes measured. Two things vary: the test rows
(patients), and the runs (gold subset, generation, correction and training of a seed). The interval is a bootstrap over
both at once; it holds for one base model and one way to make synthetic rows, on patients and gold like these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hf_synth.errors import HfSynthError
from hf_synth.task.labels import Floats

Metric = Callable[[Floats], Floats]  # sums (B, C) -> scores (B,)
MIN_RUNS = 5  # fewer runs of a point show too little of how runs vary for an interval
_CHUNK = 500  # draws of patients at a time


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        score: on all test rows.
        seed: runs of one seed share their gold: a small subset is part of a large one.
        sums: counts of each group of test rows that the metric is computed from, (G, C); None if only the score is
            known: then test rows are not resampled.
    """

    score: float
    seed: int = 0
    sums: Floats | None = None


@dataclass(frozen=True)
class Equivalence:
    """The number of gold rows alone that score as much as a mixture.

    Args:
        rows: the estimate; the largest size measured if `beyond`, the smallest if `below`.
        low: lower end of the 95% interval, clipped to the sizes measured; None with fewer than MIN_RUNS runs.
        high: upper end; None likewise.
        beyond: the score is above that of the largest size: the answer is "at least".
        below: the score is below that of the smallest size: the answer is "at most".
        sizes: smallest and largest size measured.
        power_law: the estimate by a fitted power law, for comparison; None if the law does not fit, or the estimate is
            outside the sizes measured.
        runs: fewest runs of any point.
        patients: whether groups of test rows were resampled as well.
    """

    rows: float
    low: float | None
    high: float | None
    beyond: bool
    below: bool
    sizes: tuple[int, int]
    power_law: float | None = None
    runs: int = 0
    patients: bool = False

    def __str__(self) -> str:
        if self.beyond:
            return f"at least {self.sizes[1]:,} gold rows, the most that were measured{self._from('; 95% CI from {}')}"
        if self.below:
            return f"at most {self.sizes[0]:,} gold rows, the fewest that were measured"
        return f"{self.rows:,.0f} gold rows ({self.interval()})"

    def interval(self) -> str:
        """Write the interval; an end at the smallest or largest size measured is "at most" or "at least"."""
        if self.low is None or self.high is None:
            return f"{self.runs} runs: no interval"
        low = f"at most {self.low:,.0f}" if self.low <= self.sizes[0] else f"{self.low:,.0f}"
        high = f"at least {self.high:,.0f}" if self.high >= self.sizes[1] else f"{self.high:,.0f}"
        return f"95% CI {low} to {high}" if " " in low + high else f"95% CI {low}-{high}"

    def _from(self, sentence: str) -> str:
        """Write the lower end of an estimate beyond the sizes measured; "" where it is at the largest size."""
        if self.low is None:
            return sentence.split("95%")[0] + f"{self.runs} runs: no interval" + sentence.split("{}")[1]
        return sentence.format(f"{self.low:,.0f}") if self.low < self.sizes[1] else ""

    def sentence(self, gold: int, synthetic: int, base_model: str, *, simulated: bool = False) -> str:
        """Write the equivalence in one sentence, with the base model, since each has its own curve.

        Args:
            gold: gold rows of the mixture.
            synthetic: synthetic rows of the mixture.
        """
        about = f"{'simulated: ' if simulated else ''}{gold:,} gold + {synthetic:,} synthetic"
        if self.beyond:
            low = self._from(" (95% CI from {})")
            return f"{about} is worth >= {self.sizes[1]:,} gold notes{low} for {base_model}; no more were measured"
        if self.below:
            return f"{about} is worth <= {self.sizes[0]:,} gold notes for {base_model}; no fewer were measured"
        return f"{about} is worth {self.rows:,.0f} gold notes ({self.interval()}) for {base_model}"


def gold_equivalence(
    curve: Mapping[int, Sequence[float | Run]],
    scores: Sequence[float | Run],
    *,
    metric: Metric | None = None,
    n_bootstrap: int = 2_000,
    seed: int = 0,
) -> Equivalence:
    """Estimate how many gold rows alone reach the scores of a mixture.

    The curve is the isotonic fit of the mean score over the logarithm of the number of rows. Each draw of the
    hierarchical bootstrap resamples groups of test rows, the same for every run, and seeds: one fewer than there are,
    since n of n would make the spread of a mean of few runs too small. Points that share seeds share their draw. The
    chance of the test rows that differs from run to run is in both draws, so it is taken out of the second. The
    percentiles are widened by Student's t for the few runs, as far as runs make the spread. There is an interval from
    MIN_RUNS runs of every point on; it is for gold drawn from the same pool.
    tests/experiments/test_equivalence.py measures the coverage.

    Args:
        curve: number of gold rows -> its runs, or their scores; two sizes and two runs at least.
        scores: runs of the mixture; two at least.
        metric: computes scores from summed counts, for runs that have them.
        n_bootstrap: draws.
        seed: of the draws.

    Raises:
        HfSynthError: there are fewer than two sizes or two runs of a point, or runs have different test rows.
    """
    sizes = sorted(curve)
    if len(sizes) < 2 or min(map(len, curve.values())) < 2 or len(scores) < 2:
        raise HfSynthError("gold equivalence needs two gold sizes and two runs of everything at least")
    points = [_runs(curve[n]) for n in sizes] + [_runs(scores)]
    log_sizes, weights = np.log(sizes), np.array([len(p) for p in points[:-1]], float)
    means = np.array([np.mean([r.score for r in p]) for p in points])
    estimate = float(log_size_for_score(log_sizes, means[None, :-1], weights, means[-1:])[0])
    low: float | None = None
    high: float | None = None
    runs = min(map(len, points))
    if runs >= MIN_RUNS:
        by_patients, by_seeds = _drawn_parts(points, metric, n_bootstrap, seed)
        drawn = by_patients + by_seeds
        draws = log_size_for_score(log_sizes, drawn[:, :-1], weights, drawn[:, -1])
        below = 100 * _lower_percentile(by_seeds, drawn, runs)
        ends = np.exp(np.percentile(np.clip(draws, log_sizes[0], log_sizes[-1]), [below, 100 - below]))
        low, high = (_round_to_end(float(np.clip(end, sizes[0], sizes[-1])), sizes) for end in ends)
    return Equivalence(
        rows=math.exp(float(np.clip(estimate, log_sizes[0], log_sizes[-1]))),
        low=low,
        high=high,
        beyond=estimate == math.inf,
        below=estimate == -math.inf,
        sizes=(sizes[0], sizes[-1]),
        power_law=_power_law(np.array(sizes, float), means[:-1], float(means[-1])),
        runs=runs,
        patients=metric is not None and all(r.sums is not None for p in points for r in p),
    )


def _lower_percentile(by_seeds: Floats, drawn: Floats, runs: int) -> float:
    """Return the lower percentile, as a share: that of Student's t with the degrees of freedom of the whole spread.

    Satterthwaite's degrees of freedom, at the point where runs make most of the spread; patients count as many.
    """
    from scipy.special import ndtr, stdtrit

    spread = drawn.var(0)
    share = float(np.max(by_seeds.var(0) / np.where(spread > 0, spread, np.inf)))
    free = (runs - 1) / max(1e-3, min(1.0, share)) ** 2
    return float(ndtr(stdtrit(free, 0.025)))


def _round_to_end(end: float, sizes: Sequence[int]) -> float:
    """Return the smallest or largest size for an end that differs from it by rounding alone."""
    return next((float(n) for n in (sizes[0], sizes[-1]) if math.isclose(end, n, rel_tol=1e-9)), end)


def _runs(scores: Sequence[float | Run]) -> list[Run]:
    return [r if isinstance(r, Run) else Run(float(r), seed=-1) for r in scores]  # -1: shares no seed with other points


def drawn_means(
    points: Sequence[Sequence[Run]], metric: Metric | None, *, n_bootstrap: int = 2_000, seed: int = 0
) -> Floats:
    """Resample patients and seeds; return the mean score of each point in each draw, (n_bootstrap, P).

    Args:
        points: runs of each point. Points whose runs have the same seeds share the seeds drawn.
        metric: computes scores from summed counts; without it, or for runs without sums, only seeds are drawn.

    Raises:
        HfSynthError: runs have different test rows.
    """
    by_patients, by_seeds = _drawn_parts(points, metric, n_bootstrap, seed)
    return by_patients + by_seeds


def _drawn_parts(
    points: Sequence[Sequence[Run]], metric: Metric | None, n_bootstrap: int, seed: int
) -> tuple[Floats, Floats]:
    """Return the mean score of each point when patients are drawn, and what drawing seeds adds to it; (B, P) each."""
    groups = {len(r.sums) for p in points for r in p if r.sums is not None}
    if len(groups) > 1:
        raise HfSynthError("the runs were scored on different test rows; score all on the same test rows")
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
    by_patients, by_seeds = np.empty((2, n_bootstrap, len(points)))
    for i, (column, runs) in enumerate(zip(scores, points, strict=True)):
        n, key = len(runs), tuple(r.seed for r in runs)
        if len(set(key)) < n or key not in shared:
            # (draws, n): how often each run counts; n - 1 of n runs
            shared[key] = rng.multinomial(max(1, n - 1), np.full(n, 1 / n), n_bootstrap) / max(1, n - 1)
        by_patients[:, i] = column.mean(1)
        gaps = np.array([r.score for r in runs]) - np.mean([r.score for r in runs])
        spread = float(gaps @ gaps) / max(1, n - 1)
        by_rows = float((column - column.mean(1, keepdims=True)).var(0).sum()) / max(1, n - 1)
        left = math.sqrt(max(0.0, 1 - by_rows / spread)) if spread > 0 else 0.0  # without the chance of test rows
        by_seeds[:, i] = left * (shared[key] @ gaps)
    return by_patients, by_seeds


def log_size_for_score(log_sizes: Floats, means: Floats, weights: Floats, scores: Floats) -> Floats:
    """Return the log of the fewest rows whose fitted score reaches a score, (B,); -inf or inf outside the curve.

    Args:
        log_sizes: (P,) ascending.
        means: mean scores by size, (B, P); each row is fitted by itself.
        weights: of the sizes, (P,).
        scores: scores to reach, (B,).
    """
    fitted = monotone(means, weights)
    score = scores[:, None]
    after = (fitted < score - 1e-12).sum(1)  # the first size that reaches the score
    right = np.minimum(after, len(log_sizes) - 1)
    left = np.maximum(right - 1, 0)
    rows = np.arange(len(scores))
    rise = fitted[rows, right] - fitted[rows, left]
    share = np.where(rise > 0, (scores - fitted[rows, left]) / np.where(rise > 0, rise, 1.0), 1.0)
    log_rows = log_sizes[left] + np.clip(share, 0, 1) * (log_sizes[right] - log_sizes[left])
    log_rows = np.where(after == 0, log_sizes[0], log_rows)
    log_rows = np.where(scores < fitted[:, 0] - 1e-12, -math.inf, log_rows)
    return np.asarray(np.where(scores > fitted[:, -1] + 1e-12, math.inf, log_rows))


def monotone(values: Floats, weights: Floats) -> Floats:
    """Fit isotonic regression to each row (B, P), by its min-max formula.

    The fit at i is the largest, over starts up to i, of the smallest weighted mean from there to an end at i or later.
    Fits thousands of short rows at once, where a library fits one by one.
    """
    n = len(weights)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values * weights, axis=1)], axis=1)
    fitted = np.full(values.shape, -math.inf)
    for start in range(n):
        ends = np.arange(start + 1, n + 1)
        means = (sums[:, ends] - sums[:, [start]]) / (total[ends] - total[start])
        lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]  # over ends from each place on
        fitted[:, start:] = np.maximum(fitted[:, start:], lowest)
    return fitted


def _power_law(sizes: Floats, means: Floats, score: float) -> float | None:
    """Return n where score = a - b * n**-c, fitted by least squares to four sizes or more; None if it does not fit."""
    from scipy.optimize import least_squares

    if len(sizes) < 4:
        return None

    def residuals(law: Floats) -> Floats:
        a, b, c = law
        return np.asarray(a - b * sizes**-c - means)

    spread = max(float(means.max() - means.min()), 1e-3)
    start = [float(means.max()) + spread / 4, spread * sizes[0] ** 0.5, 0.5]
    fitted = least_squares(residuals, start, bounds=([-2, 0, 0.01], [2, np.inf, 3]))
    a, b, c = fitted.x
    if not fitted.success or score >= a or b <= 0:
        return None
    rows = ((a - score) / b) ** (-1 / c)
    return float(rows) if sizes[0] <= rows <= sizes[-1] else None


@dataclass(frozen=True)
class Rates:
    """Prices of working time and computing; the defaults are assumptions.

    Args:
        minutes_per_note: minutes a person takes to label one note.
        hourly_usd: pay of that person, dollars an hour.
        compute_usd: price of one core, dollars an hour.
        gpu_usd: price of one GPU, dollars an hour.
        given: whether these are the user's own numbers.
    """

    minutes_per_note: float = 3.0
    hourly_usd: float = 60.0
    compute_usd: float = 0.05
    gpu_usd: float = 2.0
    given: bool = False

    def __post_init__(self) -> None:
        if min(self.minutes_per_note, self.hourly_usd, self.compute_usd, self.gpu_usd) < 0:
            raise HfSynthError("a rate is negative; give minutes and dollars of 0 or more")


@dataclass(frozen=True)
class Spent:
    """Cost of generating and using synthetic rows.

    Args:
        calls: LLM calls.
        prompt_tokens: tokens of prompts.
        completion_tokens: tokens of answers.
        usd: their price; None if it is not known.
        cpu_hours: CPU time of correction and training.
        gpu_hours: wall time of correction and training on a GPU.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0


@dataclass(frozen=True)
class CostBenefit:
    """Labelling saved by synthetic rows, and their costs.

    Args:
        notes: gold notes that need no labelling: the equivalence minus the gold used; below 0 a loss.
        notes_ci95: its interval; None where the equivalence has none.
        at_least: the equivalence is beyond the sizes measured: `notes` is a lower bound.
        at_most: it is below the sizes measured: `notes` is an upper bound.
        minutes: minutes of labelling saved.
        saved_usd: their price.
        spent_usd: price of LLM calls and computing; None if that of the calls is not known.
        spent: the costs in detail.
        rates: prices of working time and computing.
    """

    notes: float
    notes_ci95: tuple[float, float] | None
    at_least: bool
    at_most: bool
    minutes: float
    saved_usd: float
    spent_usd: float | None
    spent: Spent
    rates: Rates


def cost_benefit(equivalence: Equivalence, gold_size: int, spent: Spent, rates: Rates | None = None) -> CostBenefit:
    """Compute the labelling that synthetic rows save, and their costs.

    Args:
        equivalence: of the mixture.
        gold_size: gold rows of the mixture.
    """
    rates = rates or Rates()
    notes = equivalence.rows - gold_size
    minutes = notes * rates.minutes_per_note
    computing = spent.cpu_hours * rates.compute_usd + spent.gpu_hours * rates.gpu_usd
    low, high = equivalence.low, equivalence.high
    return CostBenefit(
        notes=notes,
        notes_ci95=None if low is None or high is None else (low - gold_size, high - gold_size),
        at_least=equivalence.beyond,
        at_most=equivalence.below,
        minutes=minutes,
        saved_usd=minutes / 60 * rates.hourly_usd,
        spent_usd=None if spent.usd is None else spent.usd + computing,
        spent=spent,
        rates=rates,
    )
