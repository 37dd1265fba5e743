"""Macro-F1 by row, and the promise of a macro-F1 where a label has few rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from hf_synth.correction.choice import NOTHING, choose
from hf_synth.correction.paired import by_macro_f1, clustered_error, lost_row, macro_f1
from hf_synth.correction.priors import Prior

HOPEFUL = {"a": Prior(0.3, 0.02, 0, 0, 0.02)}


def drawn(rng: np.random.Generator, n: int, shares: np.ndarray, *finds: np.ndarray) -> tuple[np.ndarray, ...]:
    """Draw labels, and for each confusion (K, K) guesses of them."""
    truth = rng.choice(len(shares), n, p=shares)
    return truth, *((rng.random(n)[:, None] > find.cumsum(1)[truth]).sum(1).clip(0, len(shares) - 1) for find in finds)


def true_macro_f1(shares: np.ndarray, find: np.ndarray) -> float:
    """Return macro-F1 of a confusion in the population."""
    joint = shares[:, None] * find
    return float(np.mean(2 * joint.diagonal() / (joint.sum(0) + joint.sum(1))))


def test_macro_f1_is_over_the_labels_that_the_rows_hold() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.choice([0, 1, 3], 60), rng.integers(0, 5, 60)
    weights = rng.random(60)
    of = macro_f1(guess, truth)
    assert of.score == pytest.approx(f1_score(truth, guess, labels=[0, 1, 3], average="macro"))
    assert of.by_row.mean() == pytest.approx(of.score)
    weighted = f1_score(truth, guess, labels=[0, 1, 3], average="macro", sample_weight=weights)
    assert macro_f1(guess, truth, weights).score == pytest.approx(weighted)
    assert of.sizes[2] == (truth == 3).sum() + (guess == 3).sum()
    assert of.shares == pytest.approx(np.bincount(truth)[[0, 1, 3]] / 60)


def test_a_row_adds_its_influence() -> None:
    """The influence of a row is the derivative of the score by the row's weight, times the number of rows."""
    rng = np.random.default_rng(1)
    truth, guess = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    of = macro_f1(guess, truth)
    for i in range(40):
        more = np.ones(40)
        more[i] += 1e-6
        assert (macro_f1(guess, truth, more).score - of.score) / 1e-6 * 40 == pytest.approx(
            of.by_row[i] - of.score, abs=1e-4
        )


def test_the_linear_error_is_that_of_many_draws() -> None:
    rng, shares = np.random.default_rng(2), np.array([0.5, 0.3, 0.2])
    finds = np.full((3, 3), 0.15) + 0.55 * np.eye(3), np.full((3, 3), 0.2) + 0.4 * np.eye(3)
    leads, errors = [], []
    for _ in range(300):
        truth, a, b = drawn(rng, 200, shares, *finds)
        first, second = macro_f1(a, truth), macro_f1(b, truth)
        leads.append(first.score - second.score)
        errors.append(clustered_error(first.by_row - second.by_row, np.arange(200), 0.0))
    assert np.mean(errors) == pytest.approx(np.std(leads), rel=0.12)
    assert np.mean(leads) == pytest.approx(true_macro_f1(shares, finds[0]) - true_macro_f1(shares, finds[1]), abs=0.01)


def test_a_lost_row_by_hand() -> None:
    """One row more of each label, which only the second model finds, lowers the difference by just that."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        truth, a, b = rng.integers(0, 3, (3, 20))
        first, second = macro_f1(a, truth), macro_f1(b, truth)
        lost = lost_row(first, second)
        for place, label in enumerate(np.unique(truth).tolist()):
            more = np.append(truth, label)
            lead = macro_f1(np.append(a, 9), more).score - macro_f1(np.append(b, label), more).score
            assert first.score - second.score - lead == pytest.approx(lost[place])
    of = by_macro_f1({"b": b, "a": a}, truth, np.ones(20), base="b")
    assert of.largest_row["a"] == pytest.approx(lost.max())
    assert of.typical_row["a"] == pytest.approx(np.sqrt((lost**2)[truth].mean()))


@pytest.mark.parametrize(
    ("n", "share", "found_alone", "found"), [(100, 0.03, 0.6, 0.2), (200, 0.02, 0.5, 0.0), (50, 0.1, 0.7, 0.3)]
)
def test_the_promised_macro_f1_holds_for_a_rare_label(n: int, share: float, found_alone: float, found: float) -> None:
    """A method is chosen by its prior, and finds fewer rows of a rare label; few draws of gold hold such rows.

    Without the row that is added the promise would be broken in 11 to 20% of the draws.
    """
    rng, shares = np.random.default_rng(0), np.array([1 - share, share])
    finds = [np.array([[0.98, 0.02], [1 - f, f]]) for f in (found_alone, found)]
    gain = true_macro_f1(shares, finds[1]) - true_macro_f1(shares, finds[0])
    broken, bare = [], []
    for _ in range(300):
        truth, alone, a = drawn(rng, n, shares, *finds)
        if truth.min() == truth.max():
            continue
        guesses = {NOTHING: alone, "a": a}
        choice = choose({m: g == truth for m, g in guesses.items()}, truth, guesses=guesses, priors=HOPEFUL)
        broken.append(choice.method == "a" and gain < -choice.guarantee)  # type: ignore[operator]
        first, second = macro_f1(a, truth), macro_f1(alone, truth)
        error = clustered_error(first.by_row - second.by_row, np.arange(n), 0.0)
        bare.append(choice.method == "a" and gain < first.score - second.score - 1.29 * error)
    print(np.mean(broken), np.mean(bare))
    assert np.mean(broken) <= 0.1
    assert np.mean(bare) > 0.11


def test_labels_without_or_with_few_gold_rows_are_named() -> None:
    truth = np.array([0] * 20 + [1] * 15 + [2])
    guesses = {NOTHING: np.zeros(36, dtype=int), "a": truth}
    hits = {m: guess == truth for m, guess in guesses.items()}
    said = choose(hits, truth, guesses=guesses, n_labels=5)
    assert said.why.endswith(
        "macro-F1 is over 3 of 5 labels, those with held-out gold rows; the rarest has 1 held-out gold row"
    )
    assert said.macro_f1 == 1.0
    assert choose(hits, truth, guesses=guesses, n_labels=3).why.endswith(
        "over 3 labels; the rarest has 1 held-out gold row"
    )
    enough = {m: guess[:35] for m, guess in guesses.items()}
    known = choose({m: g == truth[:35] for m, g in enough.items()}, truth[:35], guesses=enough, n_labels=2)
    assert "macro-F1 is over" not in known.why
    assert known.metric == "macro_f1"


def test_a_promise_is_of_gold_and_the_choice_of_audited_rows_too() -> None:
    """Audited rows after the gold move the choice, not the bound."""
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, 120)
    alone = np.where(rng.random(120) < 0.7, truth, 1 - truth)
    better = np.where(rng.random(120) < 0.8, truth, 1 - truth)
    better[60:] = truth[60:]
    guesses = {NOTHING: alone, "a": better}
    gold = {m: guess[:60] for m, guess in guesses.items()}
    both = choose({m: g == truth for m, g in guesses.items()}, truth, guesses=guesses, n_gold=60, priors=HOPEFUL)
    own = choose({m: g == truth[:60] for m, g in gold.items()}, truth[:60], guesses=gold, priors=HOPEFUL)
    assert (both.method, both.guarantee) == (own.method, own.guarantee)
    assert both.macro_f1 == own.macro_f1
    assert both.gains["a"].held_out > own.gains["a"].held_out
