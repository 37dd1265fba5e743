"""Prediction-powered means: by hand, their coverage, their width without useful predictions, and the published code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.prediction_powered import prediction_powered
from hf_synth.evaluation.statistics import design_share

T_8 = 2.306004135  # 97.5% quantile of Student's distribution with 8 degrees of freedom


def test_a_mean_by_hand() -> None:
    """The values are no shares: the interval is Student's, and the estimate that of a regression."""
    y = np.array([1.0, 2.0, 4.0, 5.0, 7.0, 8.0, 8.5, 9.5, 11.0, 12.0])
    f = np.array([1.0, 3.0, 3.5, 5.5, 6.0, 9.0, 8.0, 10.5, 10.0, 13.0])
    g = np.linspace(0, 20, 101)
    found = prediction_powered(y, f, g)
    far = g.var(ddof=1) / 101
    both, alone, own = np.cov(y, f)[0, 1] / 10, f.var(ddof=1) / 10, y.var(ddof=1) / 10
    assert found.factor == pytest.approx(both / (alone + far))
    assert 0 < found.factor < 1
    assert found.mean == pytest.approx(y.mean() + found.factor * (10 - f.mean()))
    prior = 2 * y.var() / 9 / 10  # two rows as far from the mean as the others are
    left = own - both**2 / (alone + far) + prior
    assert found.narrower == pytest.approx(left / (own + prior) * 9 / 8)
    half = T_8 * math.sqrt(left * 9 / 8)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))


def test_predictions_of_all_rows_leave_no_variance_but_the_errors() -> None:
    """In a census the predictions are known for all rows; right ones narrow the interval more than elsewhere."""
    rng = np.random.default_rng(0)
    chance = rng.random(400)
    right = (rng.random(400) < chance).astype(float)
    inside = prediction_powered(right[:100], chance[:100], chance, census=True)
    outside = prediction_powered(right[:100], chance[:100], chance)
    assert inside.narrower < outside.narrower < 1
    assert inside.high - inside.low < outside.high - outside.low
    assert prediction_powered(right, chance, chance, census=True).mean == pytest.approx(right.mean())
    every = prediction_powered(right, chance, chance, census=True)
    assert (every.low, every.high) == (every.mean, every.mean), "all rows were looked at"


@pytest.mark.parametrize("wrong_way", [False, True])
def test_predictions_that_say_nothing_count_for_nothing(wrong_way: bool) -> None:
    rng = np.random.default_rng(1)
    right = (rng.random(60) < 0.8).astype(float)
    f = 1 - right if wrong_way else np.full(60, 0.5)
    found = prediction_powered(right, f, np.r_[f, rng.random(500)])
    assert (found.factor, found.narrower) == (0, 1)
    assert found.mean == pytest.approx(right.mean())
    weights, strata = np.full(60, 10.0), np.arange(60) % 2
    alone = prediction_powered(right, f, rng.random(600), weights=weights, strata=strata, census=True)
    assert (alone.mean, alone.low, alone.high) == pytest.approx(design_share(right, weights, strata), rel=0.005)


def test_rows_that_are_all_right_do_not_say_that_the_predictions_are() -> None:
    right, sure = np.ones(30), np.linspace(0.9, 1.0, 30)
    found = prediction_powered(right, sure, np.linspace(0.9, 1.0, 1_000), census=True)
    assert found.factor == 0
    assert found.low < 0.93
    assert found.high == 1


def test_one_large_stratum_of_few_rows_has_few_degrees_of_freedom() -> None:
    """Of 60 rows six stand for nine tenths of all: the interval is that of six rows, nearly."""
    rng, widths, covered = np.random.default_rng(2), [], []
    codes = np.r_[np.zeros(1_800, int), rng.integers(1, 10, 200)]
    right = (rng.random(2_000) < 0.6).astype(float)
    for _ in range(300):
        at = np.concatenate([rng.permutation(np.flatnonzero(codes == h))[:6] for h in range(10)])
        weights = (np.bincount(codes) / 6)[codes[at]]
        found = prediction_powered(
            right[at], np.full(60, 0.6), np.full(2_000, 0.6), weights=weights, strata=codes[at].tolist(), census=True
        )
        covered.append(found.low <= right.mean() <= found.high)
        widths.append(found.high - found.low)
    assert np.mean(covered) >= 0.93
    assert np.mean(widths) > 0.55


def population(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities, whether rows are right, and strata."""
    chance = rng.beta(6, 1.5, n)
    shown = {
        "calibrated": chance,
        "overconfident": chance**0.3,
        "unrelated": rng.permutation(chance),
        "rarely wrong": 1 - (1 - chance) / 6,
    }[kind]
    truth = 1 - (1 - chance) / 6 if kind == "rarely wrong" else chance
    return shown, (rng.random(n) < truth).astype(float), (chance < 0.7).astype(int)


@pytest.mark.parametrize("kind", ["calibrated", "overconfident", "unrelated", "rarely wrong"])
@pytest.mark.parametrize("drawn", ["random", "strata", "new rows"])
def test_intervals_cover(kind: str, drawn: str) -> None:
    rng = np.random.default_rng(7)
    chance, right, codes = population(kind, 3_000, rng)
    covered, widths, alone, narrower = [], [], [], []
    for _ in range(400):
        if drawn == "strata":
            at = np.concatenate([rng.permutation(np.flatnonzero(codes == h))[:30] for h in (0, 1)])
            weights: Any = np.bincount(codes)[codes[at]] / 30
            found = prediction_powered(
                right[at], chance[at], chance, weights=weights, strata=codes[at].tolist(), census=True
            )
            _, low, high = design_share(right[at], weights, codes[at].tolist())
        else:
            at = rng.integers(0, 3_000, 60) if drawn == "new rows" else rng.permutation(3_000)[:60]
            every = chance[rng.integers(0, 3_000, 800)] if drawn == "new rows" else chance
            found = prediction_powered(right[at], chance[at], every, census=drawn == "random")
            same = np.full(60, 50.0)
            _, low, high = design_share(right[at], same, np.zeros(60))
        covered.append(found.low <= right.mean() <= found.high)
        widths.append(found.high - found.low)
        alone.append(high - low)
        bounds = (found.low, found.high) if widths[-1] < alone[-1] else (low, high)  # as `powered_accuracy` prints it
        narrower.append(bounds[0] <= right.mean() <= bounds[1])
    assert np.mean(narrower) >= 0.92
    assert 0.925 <= np.mean(covered) <= 0.995
    assert np.mean(widths) <= 1.03 * np.mean(alone)
    if kind == "calibrated" and drawn != "strata":  # strata by confidence leave the predictions little to say
        assert np.mean(widths) < 0.99 * np.mean(alone)


@pytest.mark.parametrize(
    ("given", "more", "says"),
    [
        (([1.0], [0.5], [0.5]), {}, "two labelled rows or more"),
        (([1.0, 0.0], [0.5], [0.5]), {}, "two labelled rows or more"),
        (([1.0, 0.0], [0.5, 0.5], []), {}, "two labelled rows or more"),
        (([1.0, 0.0], [0.5, np.nan], [0.5]), {}, "finite values and predictions"),
        (([1.0, 0.0], [0.5, 0.5], [0.5]), {"weights": [1.0, 0.0]}, "weights above 0"),
        (([1.0, 0.0], [0.5, 0.5], [0.5]), {"weights": [1.0]}, "two labelled rows or more"),
    ],
)
def test_what_has_no_mean_is_one_sentence(given: Any, more: Any, says: str) -> None:
    with pytest.raises(HfSynthError, match=says):
        prediction_powered(*given, **more)


@pytest.mark.slow
def test_the_published_code_agrees() -> None:
    """On many rows the normal interval of ppi-python and Student's are the same."""
    ppi = pytest.importorskip("ppi_py", reason="pip install ppi-python==0.2.3")
    rng = np.random.default_rng(3)
    for noise in (0.3, 1.0, 3.0):
        x = rng.normal(size=24_000)
        y, f = x + rng.normal(size=24_000), x + noise * rng.normal(size=24_000)
        found = prediction_powered(y[:4_000], f[:4_000], f[4_000:])
        mean = ppi.ppi_mean_pointestimate(y[:4_000], f[:4_000], f[4_000:]).item()
        low, high = (v.item() for v in ppi.ppi_mean_ci(y[:4_000], f[:4_000], f[4_000:], alpha=0.05))
        width = high - low
        assert found.mean == pytest.approx(mean, abs=0.01 * width)
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.015 * width)


@pytest.mark.parametrize("census", [True, False])
def test_one_wrong_row_does_not_show_that_predictions_find_wrong_rows(census: bool) -> None:
    """19 of 20 rows are right, and the predictions see nine wrong rows of ten: coverage was .89 to .91."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        right = (rng.random(1_000) < 0.95).astype(float)
        shown = 0.1 + 0.8 * np.where(rng.random(1_000) < 0.9, right, 1 - right)
        found = prediction_powered(right[:20], shown[:20], shown if census else shown[20:], census=census)
        covered.append(found.low <= (right.mean() if census else 0.95) <= found.high)
    assert np.mean(covered) >= 0.93
