"""Gold equivalence: how many gold rows alone score as much as a mixture of gold and synthetic rows.

A score is read off the measured curve of gold alone, and never beyond it. Two things vary: the test rows (patients), and
the runs (gold subset, generation, correction and training, all drawn anew by a seed). The interval comes from a
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

FEW_SEEDS = 4  # with fewer runs than this the interval is too short, and that is said
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
    together for all points that share them. With five runs the interval still holds the truth somewhat less often than
    it says (tests/test_equivalence.py measures how often).

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
    estimate = read_off(log_sizes, means[:-1], weights, float(means[-1]))
    drawn = drawn_means(points, metric, n_bootstrap=n_bootstrap, seed=seed)
    draws = [read_off(log_sizes, row[:-1], weights, float(row[-1])) for row in drawn]
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


def read_off(log_sizes: Floats, means: Floats, weights: Floats, score: float) -> float:
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


def _power_law(sizes: Floats, means: Floats, score: float) -> float | None:
    """Read rows off score = a - b * n**-c, fitted by least squares; None where that cannot be done."""
    from scipy.optimize import curve_fit

    if len(sizes) < 3:
        return None

    def law(n: Floats, a: float, b: float, c: float) -> Floats:
        return np.asarray(a - b * n**-c)

    spread = max(float(means.max() - means.min()), 1e-3)
    try:
        start = (float(means.max()) + spread / 4, spread * sizes[0] ** 0.5, 0.5)
        (a, b, c), _ = curve_fit(law, sizes, means, p0=start, bounds=([-2, 0, 0.01], [2, np.inf, 3]), maxfev=5_000)
    except (RuntimeError, ValueError):
        return None
    if score >= a or b <= 0:
        return None
    rows = ((a - score) / b) ** (-1 / c)
    return float(rows) if sizes[0] <= rows <= sizes[-1] else None
