"""What each method's head is worth on the same held-out rows, by accuracy or macro-F1, and the error of a difference.

Macro-F1 is no mean over rows, but close to one: each row moves it by its linear influence (the first order of the
delta method). The values of `by_row` have the score as their mean, and the error of a paired difference of them, over
patients, is that of the difference of two scores. The linear error is too small where a label has few rows, since no
drawn row may show what a method loses there. So one row more is allowed for, which gold only finds and the method does
not: a row of any label in the standard error by which methods are compared, and a row of the label where it changes
most in the bound of a loss, as one row is in the bound of a loss of accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hf_synth.evaluation.intervals import wilson_at
from hf_synth.task.labels import Floats, Ints


@dataclass(frozen=True)
class MacroF1:
    """Macro-F1 of one model over the labels that the rows hold, and its parts.

    Args:
        score: macro-F1.
        by_row: of each row, (M,), the score plus the row's linear influence.
        scores: of each label that the rows hold, (L,), its F1.
        sizes: of each label that the rows hold, (L,), the number of its rows plus the number of guesses of it.
        shares: of each such label, (L,), its share of the rows.
    """

    score: float
    by_row: Floats
    scores: Floats
    sizes: Floats
    shares: Floats


def macro_f1(guess: Ints, truth: Ints, weights: npt.ArrayLike | None = None) -> MacroF1:
    """Compute macro-F1 over the labels of `truth`, and its parts.

    Args:
        guess, truth: labels, (M,), M of 1 or more.
        weights: of the rows, (M,), if they were drawn with unequal probabilities.
    """
    n = len(truth)
    weight = np.ones(n) if weights is None else np.asarray(weights, float) / np.mean(np.asarray(weights, float))
    labels = np.unique(truth)
    by_row, scores, sizes, shares = np.zeros(n), np.zeros(len(labels)), np.zeros(len(labels)), np.zeros(len(labels))
    for place, label in enumerate(labels.tolist()):
        own, guessed = (truth == label) * weight, (guess == label) * weight
        found = own * (guess == label)
        sizes[place], shares[place] = own.sum() + guessed.sum(), own.sum() / n
        scores[place] = 2 * found.sum() / sizes[place]
        by_row += (2 * found - scores[place] * (own + guessed)) * n / sizes[place]
    score = float(scores.mean())
    return MacroF1(score, score + by_row / len(labels), scores, sizes, shares)


def lost_row(first: MacroF1, second: MacroF1) -> Floats:
    """Return by how much one row more of each label would lower the first score less the second, (L,).

    The second model finds the row, and the first one gives it a label that no row has.
    """
    found, missed = 2 * (1 - second.scores) / (second.sizes + 2), first.scores / (first.sizes + 1)
    return np.asarray((found + missed) / len(first.sizes))


@dataclass(frozen=True)
class Compared:
    """What each method's head is worth on the same rows.

    Args:
        worth: by method, (M,): its mean is the method's score, its spread the score's error.
        typical_row, largest_row: by method, what one row more could take off its lead over gold only: a row of a label
            drawn at random (root mean square), and a row of the label where it takes most.
        row_of_all: whether all methods could lose that largest row alike, as where no row of a label is held out; it
            then counts once in a bound, and not for each method.
    """

    worth: Mapping[str, Floats]
    typical_row: Mapping[str, float]
    largest_row: Mapping[str, float]
    row_of_all: bool = False

    def loss_bound(self, method: str, base: str, codes: Ints, confidence: float) -> float:
        """Bound the loss of a method against the base by a one-sided interval for all methods at once (Bonferroni).

        Args:
            codes: patients of the rows, (M,), from 0.
        """
        from scipy.special import stdtrit

        lead, row = self.worth[method] - self.worth[base], self.largest_row[method]
        shares = 1 - (1 - confidence) / (len(self.worth) - 1), confidence
        several, one = (float(stdtrit(max(1, int(codes.max())), share)) for share in shares)
        spread = several * clustered_error(lead, codes, 0.0 if self.row_of_all else row)
        if self.row_of_all:
            spread = float(np.hypot(spread, one * row))
        return max(0.0, spread - float(lead.mean()) + row)


def by_hits(hits: Mapping[str, npt.ArrayLike], truth: Ints, drawn: Floats) -> Compared:
    """Compare methods by the mean of accuracy and balanced accuracy."""
    counts = np.bincount(truth)
    row_weight = 0.5 + 0.5 * len(truth) / (int((counts > 0).sum()) * counts[truth])
    row_weight = row_weight * (drawn / drawn.mean())
    one = dict.fromkeys(hits, 1 / len(truth))
    return Compared({m: np.asarray(h, float) * row_weight for m, h in hits.items()}, one, one)


def by_accuracy(hits: Mapping[str, npt.ArrayLike], own: slice) -> Compared:
    """Compare methods by accuracy on gold.

    Where few rows differ the exact bound of a count of them is about one row higher than the normal one.
    """
    worth = {m: np.asarray(h, float)[own] for m, h in hits.items()}
    one = dict.fromkeys(hits, 1 / len(next(iter(worth.values()))))
    return Compared(worth, one, one)


def by_macro_f1(guesses: Mapping[str, Ints], truth: Ints, drawn: Floats, *, base: str) -> Compared:
    """Compare methods by macro-F1 over the labels that the rows hold.

    Args:
        guesses: labels that each method's head gives the rows, (M,).
        truth: labels of the rows, (M,).
        drawn: weights of the rows, (M,).
        base: the method that the others are compared with.
    """
    parts = {m: macro_f1(guess, truth, drawn) for m, guess in guesses.items()}
    rows = {m: lost_row(part, parts[base]) for m, part in parts.items()}
    shares = parts[base].shares
    typical = {m: float(np.sqrt(shares @ row**2)) for m, row in rows.items()}
    return Compared(
        {m: p.by_row for m, p in parts.items()}, typical, {m: float(r.max()) for m, r in rows.items()}, True
    )


def clustered_error(values: Floats, codes: Ints, row: float) -> float:
    """Compute the standard error of a mean over clusters (Liang and Zeger, 1986), by n - 1 of n of them.

    One pseudo-row that changes the mean by `row` keeps it above 0 where no row differs; infinite for one cluster.
    """
    n, clusters = len(values), int(codes.max()) + 1
    if clusters < 2:
        return float("inf")
    sums = np.bincount(codes, values - values.mean())
    return float(np.sqrt(clusters / (clusters - 1) * (sums**2).sum() / n**2 + row**2))


def share_interval(values: Floats, codes: Ints, alpha: float) -> tuple[float, float, float]:
    """Compute a share over clusters with its interval of level 1 - alpha: Wilson's at the effective number of rows.

    Clusters measure their own variance, on as many degrees of freedom as there are clusters less one; one measures
    none. Rows that are right or wrong count for no more than independent ones, however alike clusters are by luck.
    """
    from scipy.special import ndtri, stdtrit

    share, n = float(np.clip(values.mean(), 0.0, 1.0)), len(values)
    rows, clusters = float(n), int(codes.max()) + 1
    if clusters < 2 < n:
        return share, 0.0, 1.0
    z = float(ndtri(1 - alpha / 2) if clusters == n else stdtrit(clusters - 1, 1 - alpha / 2))
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    if 0 < share < 1 and not (binary and clusters == n):
        sums = np.bincount(codes, values - values.mean())
        variance = clusters / max(1, clusters - 1) * float((sums**2).sum()) / n**2
        rows = max(1.0, min(n if binary else 100.0 * n, share * (1 - share) / max(variance, 1e-12)))
    low, high = wilson_at(np.array(share), np.array(rows), z)
    return share, float(low), float(high)
