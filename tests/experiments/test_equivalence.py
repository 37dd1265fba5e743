"""Gold equivalence: read off the curve and never beyond it, with an interval over patients and runs that covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.errors import HfSynthError
from hf_synth.experiments.equivalence import Rates, Run, Spent, cost_benefit, drawn_means, gold_equivalence, monotone
from hf_synth.experiments.results import metric_of_counts

CURVE = {100: [0.5, 0.52], 200: [0.6, 0.62], 400: [0.7, 0.72], 800: [0.8, 0.82]}


def test_a_score_is_read_off_the_curve() -> None:
    found = gold_equivalence(CURVE, [0.71, 0.71])
    assert found.rows == pytest.approx(400)
    halfway = gold_equivalence(CURVE, [0.66, 0.66])
    assert halfway.rows == pytest.approx(200 * 2**0.5, rel=1e-6)


def test_fewer_than_five_runs_have_no_interval() -> None:
    """Two runs show nothing of how runs vary: their intervals covered 74% to 87%."""
    two = gold_equivalence(CURVE, [0.66, 0.66])
    assert (two.low, two.high, two.runs) == (None, None, 2)
    assert str(two) == "283 gold rows (2 runs: no interval)"
    assert two.sentence(100, 400, "tiny").endswith("is worth 283 gold notes (2 runs: no interval) for tiny")
    assert "(2 runs: no interval)" in gold_equivalence(CURVE, [0.9, 0.95]).sentence(100, 400, "tiny")
    assert cost_benefit(two, 100, Spent()).notes_ci95 is None
    four, five = ({n: np.linspace(*ends, runs).tolist() for n, ends in CURVE.items()} for runs in (4, 5))
    assert gold_equivalence(four, [0.71] * 4).low is None
    found = gold_equivalence(five, np.linspace(0.7, 0.72, 5).tolist())
    assert found.low < 400 < found.high
    assert "gold rows (95% CI" in str(found)
    assert cost_benefit(found, 100, Spent()).notes_ci95 == (found.low - 100, found.high - 100)


def test_beyond_what_was_measured_nothing_is_claimed() -> None:
    above, under = gold_equivalence(CURVE, [0.9, 0.95]), gold_equivalence(CURVE, [0.1, 0.2])
    assert (above.beyond, above.rows, above.high) == (True, pytest.approx(800), None)
    assert str(above) == "at least 800 gold rows, the most that were measured; 2 runs: no interval"
    assert under.below
    assert str(under) == "at most 100 gold rows, the fewest that were measured"
    assert above.power_law is None
    assert ">= 800 gold notes" in above.sentence(200, 2000, "tiny")
    assert "<= 100 gold notes" in under.sentence(200, 2000, "tiny")


def test_the_sentence_names_everything() -> None:
    rng = np.random.default_rng(0)
    sizes = (100, 200, 400, 800, 1600)
    curve = {n: (0.1 * np.log2(n) + rng.normal(0, 0.002, 5)).tolist() for n in sizes}
    found = gold_equivalence(curve, (0.1 * np.log2(500) + rng.normal(0, 0.002, 5)).tolist())
    said = found.sentence(200, 2000, "Bio_ClinicalBERT", simulated=True)
    assert said.startswith("simulated: 200 gold + 2,000 synthetic is worth ")
    assert "gold notes (95% CI " in said
    assert said.endswith("for Bio_ClinicalBERT")
    assert found.power_law == pytest.approx(500, rel=0.15)


def test_an_interval_that_reaches_the_end_says_so() -> None:
    curve = {n: np.linspace(*ends, 5).tolist() for n, ends in CURVE.items()}
    found = gold_equivalence(curve, np.linspace(0.795, 0.83, 5).tolist())
    assert found.high == 800
    assert "at least 800" in str(found)


def test_a_curve_that_dips_is_made_monotone() -> None:
    found = gold_equivalence({100: [0.5, 0.5], 200: [0.7, 0.7], 400: [0.6, 0.6], 800: [0.8, 0.8]}, [0.65, 0.65])
    assert found.rows == pytest.approx(200)


def test_too_little_is_refused() -> None:
    for curve, scores in (({100: [0.5, 0.6]}, [0.5, 0.5]), ({100: [0.5], 200: [0.6]}, [0.5, 0.5]), (CURVE, [0.7])):
        with pytest.raises(HfSynthError, match="two gold sizes and two runs"):
            gold_equivalence(curve, scores)
    short = [Run(0.5, s, np.ones((3, 4))) for s in (0, 1)], [Run(0.5, s, np.ones((2, 4))) for s in (0, 1)]
    with pytest.raises(HfSynthError, match="same test rows"):
        drawn_means(short, lambda sums: sums[:, 0])


def test_patients_are_drawn_the_same_for_all_runs() -> None:
    """Two points with the same answers keep a difference of exactly 0 in every draw, however few the patients."""
    rng = np.random.default_rng(0)
    sums = [rng.random((7, 4)) for _ in range(3)]
    accuracy = metric_of_counts("accuracy")
    assert accuracy is not None
    runs = [Run(float(accuracy(s.sum(0)[None])[0]), seed, s) for seed, s in enumerate(sums)]
    drawn = drawn_means([runs, runs], accuracy, n_bootstrap=300)
    assert np.array_equal(drawn[:, 0], drawn[:, 1])
    assert drawn[:, 0].std() > 0


@given(st.integers(2, 5), st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_metrics_of_counts_are_scikit_learns(k: int, seed: int) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    truth, said = rng.integers(0, k, n), rng.integers(0, k, n)
    sums = np.bincount(truth * k + said, minlength=k * k)[None].astype(float)
    found = {name: metric_of_counts(name) for name in ("macro_f1", "accuracy")}
    macro = f1_score(truth, said, average="macro", zero_division=0)
    assert float(found["macro_f1"](sums)[0]) == pytest.approx(macro)  # type: ignore[misc]
    assert float(found["accuracy"](sums)[0]) == pytest.approx(accuracy_score(truth, said))  # type: ignore[misc]
    assert metric_of_counts("rougeL") is None


@given(st.integers(1, 7), st.integers(0, 10_000))
@settings(deadline=None, max_examples=50)
def test_the_monotone_fit_is_scikit_learns(n: int, seed: int) -> None:
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(seed)
    values, weights = rng.random((3, n)).round(1), rng.integers(1, 6, n).astype(float)
    expected = [IsotonicRegression().fit(range(n), row, sample_weight=weights).predict(range(n)) for row in values]
    assert monotone(values, weights) == pytest.approx(np.array(expected))


def study(seed: int, n_runs: int, spread: float, truth: int = 400) -> tuple[dict[int, list[Run]], list[Run]]:
    """Draw a study whose mixture is worth exactly `truth` rows: 150 patients of 4 rows, some harder than others.

    Args:
        spread: standard deviation of runs, half of its variance shared by the runs of a seed, as log odds.
    """
    rng = np.random.default_rng(seed)
    hard, shared = rng.normal(0, 0.8, 150), rng.normal(0, spread / 2**0.5, n_runs)

    def run(rows: float, at: int) -> Run:
        level = 0.55 * np.log(rows / 100) + shared[at] + rng.normal(0, spread / 2**0.5)
        right = (rng.random((150, 4)) < 1 / (1 + np.exp(-(level + hard)))[:, None]).sum(1)
        sums = np.stack([right, 4 - right, 0 * right, 0 * right], 1).astype(float)
        return Run(float(right.sum() / 600), at, sums)

    curve = {n: [run(n, s) for s in range(n_runs)] for n in (100, 200, 400, 800, 1600)}
    return curve, [run(truth, s) for s in range(n_runs)]


def coverage(n_runs: int, spread: float, studies: int) -> float:
    def share_right(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / sums.sum(1)

    hits = 0
    for seed in range(studies):
        found = gold_equivalence(*study(seed, n_runs, spread), metric=share_right, n_bootstrap=300, seed=seed)
        hits += found.low <= 400 <= found.high
    return hits / studies


def test_the_interval_covers_what_is_true() -> None:
    """Five runs that differ as little as fine-tunings do, and five that differ far more than patients make them.

    Two standard errors of 150 studies are 3.6 points around .95.
    """
    assert 0.914 <= coverage(5, 0.08, 150) < 1
    assert 0.914 <= coverage(5, 0.5, 150) < 1


@pytest.mark.slow
@pytest.mark.parametrize("n_runs", [5, 10])
@pytest.mark.parametrize("spread", [0.08, 0.3, 0.5])
def test_the_interval_covers_at_its_rate(n_runs: int, spread: float) -> None:
    assert 0.93 - 0.02 <= coverage(n_runs, spread, 400) <= 0.985 + 0.01


def test_costs_add_up() -> None:
    found = gold_equivalence(CURVE, [0.71, 0.71])
    made = cost_benefit(found, 100, Spent(10, 1_000, 500, 2.0, 4.0), Rates(3, 60, 0.5, given=True))
    assert made.notes == pytest.approx(300)
    assert made.minutes == pytest.approx(900)
    assert made.saved_usd == pytest.approx(900)
    assert made.spent_usd == pytest.approx(4.0)
    on_one = cost_benefit(found, 100, Spent(10, 1_000, 500, 2.0, 4.0, 1.5), Rates(3, 60, 0.5, 2.0, given=True))
    assert on_one.spent_usd == pytest.approx(7.0)
    assert cost_benefit(found, 100, Spent()).spent_usd is None
    assert cost_benefit(found, 500, Spent()).notes < 0
    with pytest.raises(HfSynthError):
        Rates(minutes_per_note=-1)
