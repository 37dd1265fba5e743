"""Bound the share of wrong labels in a result of which people look at only some rows.

The promise: with probability 1 - alpha at most a share epsilon of ALL labels is wrong, where labels that people gave
count as right ("probably approximately correct labels", Candes, Ilyas and Zrnic, 2025, arXiv 2506.10908). People label
a random sample of the rows, then every row that is less sure than a threshold. The rule here is another one than the
published rule, needs fewer rows, and is exact:

    Order the rows from the most to the least sure. Draw n of the N rows at random, and let people label them. Walk
    down the order, and stop at the r-th drawn row whose label is wrong. People look at that row and all rows after it.

    The promise fails only if at least c + 1 of the first c + r wrong rows of the order were not drawn, where c labels
    may be wrong. These c + r rows are the same in every draw, so that their number in the sample is hypergeometric.
    n and r are chosen such that P(Hypergeometric(N, c + r, n) <= r - 1) <= 0.8 alpha. The other fifth of alpha serves
    a second statement: how many labels are wrong at most if nobody looks at more than the sample.

The argument holds for any order and any errors. It needs no correction for the many thresholds that the walk passes,
since one event covers them all. Both statements hold together with probability 1 - alpha. Wrong labels that the sample
found are mended, so that they do not count. How sure the rows are decides only how many rows people must look at.

Nothing here needs a dataset; scipy is imported on first use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.task.labels import Floats, Ints

Bools = npt.NDArray[np.bool_]
Stage = Literal["sample", "rest", "done"]

_STEP = 1.25  # ratio of neighbouring numbers of wrong rows that are tried
_RESERVE = 0.2  # share of alpha for the statement about the labels as they are after the sample
_MOST = 0.9  # a sample of more than this share of the rows saves nothing
_MORE = 2.0  # errors are expected to be so many times as frequent as the confidences say: models are overconfident
_TINY = 1e-9  # keeps a product such as 0.29 * 100 from being rounded down to 28, and 1 - 0.8 from lying below 0.2


@dataclass(frozen=True)
class Sample:
    """A random sample of rows for people to label, and the rule that was fixed before it was drawn.

    Args:
        order: positions of the open rows, whose label no person gave yet, the most sure first, (N,).
        drawn: positions of the sample in the order of the draw, (n,); empty where people look at all rows or at none.
        rows: all labels of the result, those of people included.
        allowed: c, the number of labels that may be wrong.
        stop: r, the number of wrong drawn rows at which the walk ends; 0 where no sample is drawn.
        error: epsilon, the share of labels that may be wrong.
        confidence: 1 - alpha, the probability of the promise.
    """

    order: Ints
    drawn: Ints
    rows: int
    allowed: int
    stop: int
    error: float
    confidence: float


@dataclass(frozen=True)
class Plan:
    """What people must look at next, and what holds then.

    Args:
        stage: "sample" while sampled rows have no label; "rest" while rows beyond the threshold have none; "done" when
            the promise holds.
        look: positions of the rows to look at next, (k,): the sample in random order, the rest from the least sure.
        looked: open rows that people have looked at.
        unseen: open rows that nobody will have looked at when the promise holds; None in stage "sample".
        found: wrong labels among the drawn rows that have a label.
        keep: rows of the order before the threshold; None in stage "sample".
        sure: drawn rows before the threshold; None in stage "sample".
        sure_found: wrong labels among these.
        bound: labels that are wrong at most when the promise holds; None in stage "sample".
        now: labels that are wrong at most if nobody looks at more than the sample; None without a labelled sample.
    """

    stage: Stage
    look: Ints
    looked: int
    unseen: int | None
    found: int
    keep: int | None = None
    sure: int | None = None
    sure_found: int | None = None
    bound: int | None = None
    now: int | None = None


def draw(
    sure: npt.ArrayLike, *, error: float, confidence: float = 0.95, known: npt.ArrayLike | None = None, seed: int = 0
) -> Sample:
    """Fix the rule and draw the sample of rows that people label first.

    The size of the sample is chosen to make the expected number of rows that people look at small. Errors are expected
    to be twice as frequent as `sure` says, at least half as frequent as `error`. A wrong expectation costs rows; the
    promise holds all the same.

    Args:
        sure: how sure each label is, (N,), in any unit that orders the rows; best a probability of being right. Rows
            that are equally sure keep their order. It must not depend on labels that people will give to these rows.
        error: share of all labels that may be wrong.
        confidence: probability with which at most that share is wrong.
        known: whether a person gave the label before, (N,); these rows count as right and are not drawn.
        seed: of the draw. Draw once: a second draw after a look at the labels of the first breaks the promise.

    Raises:
        ColumnError: a value of `sure` is not finite, shapes differ, or a share is out of range.
    """
    values = np.asarray(sure, dtype=np.float64)
    given = np.zeros(len(values), bool) if known is None else np.asarray(known, bool)
    if values.ndim != 1 or given.shape != values.shape or not np.isfinite(values).all():
        raise ColumnError("a promise needs one finite number for each row that says how sure its label is")
    check_shares(error, confidence)
    allowed = math.floor(error * len(values) + _TINY)
    open_rows = np.flatnonzero(~given)
    order = open_rows[np.argsort(-values[open_rows], kind="stable")]
    n, stop = _size(values[order], allowed, error, _promise_probability(confidence))
    drawn = np.random.default_rng(seed).permutation(open_rows)[:n]
    return Sample(order, drawn, len(values), allowed, stop, error, confidence)


def plan(sample: Sample, label: npt.ArrayLike, audited: Mapping[int, int]) -> Plan:
    """Return which rows people must look at next, and what holds when they have.

    Call it again with the same sample whenever labels have come. The threshold is fixed once the whole sample has
    labels, so that it does not matter how often, or in which order, people label rows.

    Args:
        sample: of `draw`.
        label: the labels of the result that people did not look at, (N,), the same in every call.
        audited: labels that people gave, by position. Labels of rows that were not asked for count as right, too.

    Raises:
        ColumnError: a position is not one of the rows.
    """
    labels, n = np.asarray(label, dtype=np.int64), sample.rows
    if labels.shape != (n,) or any(not 0 <= at < n for at in audited):
        raise ColumnError(f"the sample was drawn of {n} rows: give one label for each, and audited labels of these")
    looked = np.zeros(n, bool)
    looked[list(audited)] = True
    wrong = np.zeros(n, bool)
    wrong[[at for at, truth in audited.items() if labels[at] != truth]] = True
    order, drawn = sample.order, np.zeros(n, bool)
    drawn[sample.drawn] = True
    found, so_far = int((wrong & drawn).sum()), int(looked[order].sum())
    if len(blank := sample.drawn[~looked[sample.drawn]]):
        return Plan("sample", blank, so_far, None, found)
    keep = _threshold(sample, (wrong & drawn)[order])
    sure, rest = order[:keep], order[keep:]
    unseen = int((~looked[sure]).sum())
    bound, now = sample.allowed, None
    if sample.stop:
        now = _upper_bound_of_wrong(sample, found, 1 - _RESERVE * (1 - sample.confidence))
        if keep == len(order):  # the walk passed all rows: this bound fails only together with c
            bound = min(bound, _upper_bound_of_wrong(sample, found, _promise_probability(sample.confidence)))
    look = rest[::-1][~looked[rest[::-1]]]
    share = int(drawn[sure].sum()), int((wrong & drawn)[sure].sum())
    return Plan("rest" if len(look) else "done", look, so_far, unseen, found, keep, *share, min(bound, unseen), now)


def expected_rows(sample: Sample, share: float) -> int:
    """Return how many open rows people look at in all, as expected, if this share of the labels is wrong.

    Wrong labels are taken to lie evenly in the order. Where the least sure rows have most of them, fewer rows follow.

    Args:
        sample: of `draw`.
        share: of the open rows' labels, from 0 to 1.
    """
    rows, n = len(sample.order), len(sample.drawn)
    if not sample.stop:
        return rows if sample.allowed < rows else 0
    keep = rows if share * n <= 0 else min(rows, sample.stop * rows / (n * share))
    return min(rows, math.ceil(n + (rows - keep) * (1 - n / rows) - _TINY))


def check_shares(error: float, confidence: float) -> None:
    """Check the share of labels that may be wrong, and the probability of the promise.

    Raises:
        ColumnError: one is out of range.
    """
    if not 0 <= error <= 1:
        raise ColumnError(f"the share of labels that may be wrong lies between 0 and 1, e.g. 0.05; got {error}")
    if not 0 < confidence < 1:
        raise ColumnError(f"the confidence of a promise lies between 0 and 1, e.g. 0.95; got {confidence}")


@lru_cache(maxsize=10_000)  # benchmarks and experiments ask for the same sizes again
def sample_size(rows: int, allowed: int, stop: int, confidence: float) -> int | None:
    """Return the smallest n with P(Hypergeometric(rows, allowed + stop, n) <= stop - 1) <= 1 - confidence.

    Args:
        rows: N, of which n are drawn.
        allowed: c, wrong rows that may stay.
        stop: r, wrong drawn rows at which the walk ends; 1 or more.

    Returns:
        n; None where there are fewer than c + r rows.
    """
    if allowed + stop > rows:
        return None
    low, high = stop, rows
    while low < high:
        middle = (low + high) // 2
        if _probability_of_few(rows, allowed + stop, middle, stop - 1) <= 1 - confidence + _TINY:
            high = middle
        else:
            low = middle + 1
    return low


def _probability_of_few(rows: int, wrong: int, drawn: int, most: int) -> float:
    """Compute the probability that a sample holds at most `most` of the wrong rows."""
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(most, rows, wrong, drawn))


def _size(sure: Floats, allowed: int, error: float, confidence: float) -> tuple[int, int]:
    """Choose n and r by the rows that people are expected to look at; 0, 0 where no sample is needed or helps.

    Args:
        sure: of the open rows, descending, (N,).
    """
    rows = len(sure)
    if allowed == 0 or allowed >= rows:
        return 0, 0
    wrong = np.cumsum(np.clip(_MORE * (1 - sure), error / 2, 1.0))  # expected so far
    best, chosen, stop = math.inf, (0, 0), 1
    while (n := sample_size(rows, allowed, stop, confidence)) is not None and n <= _MOST * rows:
        keep = int(np.searchsorted(wrong, stop * rows / n))
        expected = rows - keep * (1 - n / rows)
        if expected < best:
            best, chosen = expected, (n, stop)
        stop = max(stop + 1, round(stop * _STEP))
    return chosen


def _threshold(sample: Sample, found: Bools) -> int:
    """Return how many rows of the order stay unseen but for the drawn ones."""
    if not sample.stop:
        return len(sample.order) if sample.allowed >= len(sample.order) else 0
    hits = np.flatnonzero(found)
    return int(hits[sample.stop - 1]) if len(hits) >= sample.stop else len(sample.order)


def _upper_bound_of_wrong(sample: Sample, found: int, level: float) -> int:
    """Return how many labels of rows outside the sample are wrong at most, with probability `level` (exact)."""
    rows, n = len(sample.order), len(sample.drawn)
    low, high = found, rows - n + found  # wrong rows that the sample does not rule out
    while low < high:
        middle = (low + high + 1) // 2
        if _probability_of_few(rows, middle, n, found) > 1 - level:
            low = middle
        else:
            high = middle - 1
    return low - found


def _promise_probability(confidence: float) -> float:
    """Return the probability of the promise alone."""
    return 1 - (1 - _RESERVE) * (1 - confidence)
