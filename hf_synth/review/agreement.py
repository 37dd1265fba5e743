"""How far two reviewers agree: Cohen's kappa with a 95% interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hf_synth.evaluation.statistics import wilson_bounds
from hf_synth.review.decisions import LABEL, REJECT, Decisions


@dataclass(frozen=True)
class Agreement:
    """The agreement of two reviewers.

    Args:
        reviewers: their names.
        notes: notes that both gave a label to, or rejected.
        agreed: notes on which they gave the same answer.
        kappa: Cohen's kappa; None where both gave one and the same answer to all notes, and without a note.
        low, high: bounds of its 95% interval; None with it.
    """

    reviewers: tuple[str, str]
    notes: int
    agreed: int
    kappa: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        pair = f"{self.reviewers[0]} and {self.reviewers[1]} agree on {self.agreed:,} of {self.notes:,} notes"
        if self.kappa is None or self.low is None or self.high is None:
            return f"{pair}; kappa is not defined for these answers" if self.notes else f"{pair} so far"
        return f"{pair}; kappa {self.kappa:.2f} (95% interval {self.low:.2f} to {self.high:.2f})"


def agreements(reviewers: Mapping[str, Decisions]) -> list[Agreement]:
    """Return the agreement of each pair of reviewers, in order of their names.

    Notes of which one was unsure are left out. To reject a note is an answer like a label.
    """
    names = sorted(reviewers)
    return [_agreement(a, b, reviewers) for i, a in enumerate(names) for b in names[i + 1 :]]


def _agreement(a: str, b: str, reviewers: Mapping[str, Decisions]) -> Agreement:
    one, other = ({r: x.choice for r, x in reviewers[n].answers.items() if x.do in (LABEL, REJECT)} for n in (a, b))
    both = [(one[row], other[row]) for row in one if row in other]
    agreed = sum(x == y for x, y in both)
    value, low, high = cohen_kappa([x for x, _ in both], [y for _, y in both])
    return Agreement((a, b), len(both), agreed, value, low, high)


def cohen_kappa(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> tuple[float | None, float | None, float | None]:
    """Compute Cohen's kappa of two lists of answers, and the bounds of its 95% interval.

    The interval is Wilson's of the share of equal answers, with the agreement by chance taken as known. The usual one
    (Fleiss, Cohen and Everitt, 1969) has no width where all answers are equal. `tests/review/test_agreement.py`
    measures the coverage.

    Args:
        one, other: the answers of the two reviewers to the same notes, (n,) each.

    Returns:
        Kappa and its bounds; three times None where it is not defined.
    """
    n = len(one)
    names = {name: i for i, name in enumerate(dict.fromkeys([*one, *other]))}
    table = np.zeros((len(names), len(names)))
    np.add.at(table, ([names[x] for x in one], [names[y] for y in other]), 1.0)
    chance = float(table.sum(0) @ table.sum(1)) / n**2 if n else 1.0
    if chance >= 1:
        return None, None, None
    agreed = int(np.trace(table))
    low, high = wilson_bounds(agreed, n)
    value, lower, upper = ((float(share) - chance) / (1 - chance) for share in (agreed / n, low, high))
    return max(-1.0, value), max(-1.0, lower), min(1.0, max(value, upper))
