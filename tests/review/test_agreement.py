"""Cohen's kappa: by hand, against scikit-learn, and how often its interval holds what is true."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from hf_synth.review.agreement import agreements, cohen_kappa
from hf_synth.review.decisions import Decisions


def answers(words: list[str]) -> list[tuple[str, str]]:
    return [("label", word) for word in words]


def reviewer(*pairs: tuple[str, str]) -> Decisions:
    """Return a reviewer with a label for each row; "reject" and "unsure" are no labels."""
    events = [
        {"do": a, "row": row} if a in ("reject", "unsure") else {"do": "label", "row": row, "label": a}
        for row, a in pairs
    ]
    return Decisions(events)


def test_kappa_by_hand() -> None:
    """Of 50 notes both say yes to 20 and no to 15; 35 agree, by chance 25 would: kappa = (.7 - .5) / .5."""
    one = answers(["yes"] * 25 + ["no"] * 25)
    other = answers(["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15)
    value, low, high = cohen_kappa(one, other)
    assert value == pytest.approx(0.4)
    assert (low, high) == (pytest.approx(0.125, abs=0.002), pytest.approx(0.618, abs=0.002))  # Wilson's of 35 / 50


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for k in (2, 3, 7):
        one, other = rng.integers(0, k, 60), rng.integers(0, k, 60)
        other[:30] = one[:30]
        value, low, high = cohen_kappa(answers(list(map(str, one))), answers(list(map(str, other))))
        assert value is not None
        assert value == pytest.approx(cohen_kappa_score(one, other))
        assert low is not None
        assert high is not None
        assert -1 <= low < value < high <= 1


def test_equal_answers_prove_no_perfect_agreement() -> None:
    value, low, high = cohen_kappa(answers(["a", "b"] * 5), answers(["a", "b"] * 5))
    assert value == 1
    assert high == 1
    assert low == pytest.approx(2 * 10 / (10 + 1.96**2) - 1, abs=1e-3)  # Wilson's lower bound of 10 of 10


@pytest.mark.parametrize("words", [[], ["a"] * 5])
def test_kappa_is_not_defined_where_nobody_could_differ(words: list[str]) -> None:
    assert cohen_kappa(answers(words), answers(words)) == (None, None, None)


@pytest.mark.parametrize(("k", "right", "skew"), [(2, 0.9, 1.0), (4, 0.95, 0.4), (3, 0.8, 0.15)])
def test_the_interval_holds_the_truth(k: int, right: float, skew: float) -> None:
    """Two reviewers who err independently, on 40 notes, 800 times."""
    rng = np.random.default_rng(k)
    prior = skew ** np.arange(k)
    prior /= prior.sum()
    says = np.full((k, k), (1 - right) / (k - 1)) + np.eye(k) * (right - (1 - right) / (k - 1))
    both = np.einsum("t,ti,tj->ij", prior, says, says)
    chance = float(both.sum(0) @ both.sum(1))
    true = (np.trace(both) - chance) / (1 - chance)
    held = []
    for _ in range(800):
        cells = rng.choice(k * k, 40, p=both.ravel())
        _, low, high = cohen_kappa(answers([str(c // k) for c in cells]), answers([str(c % k) for c in cells]))
        if low is not None and high is not None:
            held.append(low <= true <= high)
    assert 0.92 <= np.mean(held) <= 0.995


def test_pairs_count_labels_and_rejections_and_leave_out_who_was_unsure() -> None:
    reviewers = {
        "Cem": reviewer(("s9", "mild")),
        "Ben": reviewer(("s1", "mild"), ("s2", "reject"), ("s3", "unsure"), ("s4", "none"), ("s5", "none")),
        "Anna": reviewer(("s1", "mild"), ("s2", "reject"), ("s3", "mild"), ("s4", "mild")),
    }
    anna_ben, anna_cem, ben_cem = agreements(reviewers)
    assert (anna_ben.reviewers, anna_ben.notes, anna_ben.agreed) == (("Anna", "Ben"), 3, 2)
    assert anna_ben.kappa == pytest.approx((2 / 3 - 3 / 9) / (1 - 3 / 9))
    assert str(anna_ben).startswith("Anna and Ben agree on 2 of 3 notes; kappa 0.50 (95% interval ")
    assert (anna_cem.notes, anna_cem.kappa) == (0, None)
    assert str(anna_cem) == "Anna and Cem agree on 0 of 0 notes so far"
    assert ben_cem.notes == 0
