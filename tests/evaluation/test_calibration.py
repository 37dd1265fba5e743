"""Calibration: bins by hand, temperatures judged on other rows, sets that hold the truth as often as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.errors import ColumnError
from hf_synth.evaluation.calibration import (
    apply_temperature,
    calibration_by,
    calibration_error,
    calibration_facts,
    conformal_level,
    conformal_levels,
    conformal_sets,
    reliability,
    reliability_bins,
    temperature,
)
from hf_synth.evaluation.statistics import wilson

SHARES = np.array([0.7, 0.2, 0.1])


def rows(n: int, seed: int, heat: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from calibrated probabilities, which are then told as if they were surer by `heat`."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(3 * SHARES, size=n)
    truth = (rng.random((n, 1)) > probs.cumsum(1)).sum(1).clip(max=2)
    return truth, apply_temperature(probs, 1 / heat)


def test_bins_by_hand() -> None:
    probs = np.array([[0.95, 0.05], [0.92, 0.08], [0.4, 0.6], [0.3, 0.7]])
    low, high = reliability([0, 1, 1, -1], probs, bins=4)
    assert low == pytest.approx({"low": 0.5, "high": 0.75, "confidence": 0.6, "accuracy": 1, "rows": 1})
    assert high == pytest.approx({"low": 0.75, "high": 1, "confidence": 0.935, "accuracy": 0.5, "rows": 2})
    assert calibration_error([0, 1, 1, -1], probs, bins=4) == pytest.approx((0.4 + 2 * 0.435) / 3)
    assert reliability([-1], [[0.5, 0.5]]) == []


def test_bins_have_intervals_over_patients() -> None:
    """Twenty rows right in 15: of twenty patients, and of five with four rows each, all right or all wrong but one."""
    labels, probs = [0] * 15 + [1] * 5, np.tile([0.9, 0.1], (20, 1))
    (alone,) = reliability(labels, probs, 1, np.arange(20))
    (together,) = reliability(labels, probs, 1, np.arange(20) // 4)
    (unknown,) = reliability(labels, probs, 1, np.zeros(20))
    assert 0.51 < alone["accuracy_low"] < 0.53  # Wilson's at 1.96: .531
    assert 0.88 < alone["accuracy_high"] < 0.9
    assert together["accuracy_low"] < 0.3
    assert "accuracy_low" not in unknown  # one patient
    plot = reliability_bins([alone, unknown])
    assert plot[0][3:] == (alone["accuracy_low"], alone["accuracy_high"])
    assert plot[1][3:] == wilson(15, 20)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(1, 20))
def test_bins_add_up_to_the_error(seed: int, n: int, bins: int) -> None:
    truth, probs = rows(n, seed)
    found = reliability(truth, probs, bins)
    assert sum(b["rows"] for b in found) == n
    gaps = sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in found) / n
    assert gaps == pytest.approx(calibration_error(truth, probs, bins))


def test_a_temperature_mends_what_is_too_sure_on_rows_it_did_not_see() -> None:
    truth, probs = rows(3_000, 0, heat=3)
    found = calibration_facts(truth, probs, np.arange(3_000) // 3, bins=15)
    assert found["temperature"] == pytest.approx(3, rel=0.15)
    assert found["temperature"] == temperature(truth, probs)
    assert found["ece"] == pytest.approx(calibration_error(truth, probs, 15))
    assert found["ece_tempered"] < found["ece"] / 3
    assert sum(b["rows"] for b in found["bins_tempered"]) == 3_000
    assert found == calibration_facts(truth, probs, np.arange(3_000) // 3, bins=15)
    alone = calibration_facts(truth[:5], probs[:5], np.zeros(5), bins=15)
    assert "ece_tempered" not in alone  # one patient cannot judge their own temperature


def test_a_group_never_judges_its_own_temperature() -> None:
    (one, its_probs), (two, their_probs) = rows(200, 1, heat=4), rows(200, 2, heat=0.5)
    found = calibration_facts(np.r_[one, two], np.r_[its_probs, their_probs], np.repeat([0, 1], 200))
    by_the_other = [
        apply_temperature(its_probs, temperature(two, their_probs)),
        apply_temperature(their_probs, temperature(one, its_probs)),
    ]
    sure = sum(b["confidence"] * b["rows"] for b in found["bins_tempered"])
    assert sure == pytest.approx(np.vstack(by_the_other).max(1).sum())
    with pytest.raises(ColumnError):
        calibration_facts([0, 5], its_probs[:2])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.8, 0.9]), st.floats(0.3, 3))
def test_sets_hold_the_truth_as_often_as_asked(seed: int, coverage: float, heat: float) -> None:
    """Of 60 tries with new rows each, however wrong the probabilities are: mean coverage is at the rate or above."""
    held = []
    for i in range(60):
        truth, probs = rows(300, 1_000 * seed + i, heat)
        sets = conformal_sets(probs[150:], conformal_level(truth[:150], probs[:150], coverage))
        held.append(sets[np.arange(150), truth[150:]].mean())
    assert coverage - 0.02 <= np.mean(held) <= coverage + 0.03


def test_levels_of_their_own_cover_rare_classes_too() -> None:
    truth, probs = rows(6_000, 3)
    learnt, new = slice(0, 3_000), slice(3_000, 6_000)
    one = conformal_level(truth[learnt], probs[learnt], 0.9)
    each = conformal_levels(truth[learnt], probs[learnt], 0.9)
    names = [f"class {t}" for t in truth[new]]
    together = calibration_by(truth[new], probs[new], names, one)
    apart = calibration_by(truth[new], probs[new], names, each)
    assert together["class 2"]["coverage"] < 0.8  # covered by the others' ease
    assert [apart[name]["coverage"] for name in sorted(apart)] == pytest.approx([0.9] * 3, abs=0.05)
    assert conformal_levels([0] * 30, probs[:30], 0.9).tolist()[1:] == [0, 0]  # nothing is promised unseen
    assert conformal_sets(probs[:5], np.array([1.1, 0, 0])).sum(1).tolist() == [2] * 5


def test_breakdown_by_name() -> None:
    truth, probs = rows(200, 4)
    truth[:3] = -1
    names = ["never"] * 3 + ["a", "b"] * 98 + ["b"]
    found = calibration_by(truth, probs, names)
    assert set(found) == {"a", "b"}
    assert found["a"]["rows"] == 98
    of_a = np.array(names) == "a"
    assert found["a"]["ece"] == pytest.approx(calibration_error(truth[of_a], probs[of_a]))
    with pytest.raises(ColumnError, match="names"):
        calibration_by(truth, probs, ["a"])


def test_temperature_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3_000, 3)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=p) for p in probs])
    sharp = probs**3 / (probs**3).sum(1, keepdims=True)
    assert temperature(labels, sharp) == pytest.approx(3, rel=0.15)
    assert temperature(labels, probs) == pytest.approx(1, rel=0.15)
