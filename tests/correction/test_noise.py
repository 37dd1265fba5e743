"""Noise matrices, bounds and margins: against numbers by hand and against cleanlab."""

from __future__ import annotations

import numpy as np
import pytest
from support.toy_experiment import simulated

from hf_synth.correction.noise import accuracy_bounds, count_noise, denoise, issue_margins, label_issues


def test_confident_learning_agrees_with_cleanlab() -> None:
    cleanlab = pytest.importorskip("cleanlab.filter")
    _, given = simulated(0, right=0.8, corrector=0.85)
    rng = np.random.default_rng(0)
    probs = given["pred_probs"] * rng.uniform(0.8, 1.2, given["pred_probs"].shape)
    probs /= probs.sum(1, keepdims=True)
    theirs = cleanlab.find_label_issues(given["llm_label"], probs, filter_by="prune_by_noise_rate", n_jobs=1)
    ours = label_issues(given["llm_label"], probs)
    assert np.mean(ours == theirs) > 0.98


def test_noise_is_taken_out_of_probabilities() -> None:
    noise = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.3, 0.6]])
    truth = np.eye(3)
    assert (denoise(truth @ noise, noise, 500) > 0.9).sum() == 3
    # by hand: 0.5 * 0.8 + 0.5 * 0.3 = 0.55 and 0.2 * 0.8 + 0.8 * 0.3 = 0.4 are heard of the first label
    noisy, noise = np.array([[0.55, 0.45], [0.4, 0.6]]), np.array([[0.8, 0.2], [0.3, 0.7]])
    assert denoise(noisy, noise, 500) == pytest.approx(np.array([[0.5, 0.5], [0.2, 0.8]]), abs=0.01)


def test_bounds_by_hand() -> None:
    """Of two labels, where each class is said right at a rate c: from |a + c - 1| to 1 - |a - c|, a the agreement."""
    truth = np.tile([0, 1], 50_000)
    said = np.where(np.arange(100_000) % 10 < 8, truth, 1 - truth)  # right in 8 of 10, of each class
    for agree, low, high in ((0.7, 0.5, 0.9), (0.5, 0.3, 0.7), (0.1, 0.1, 0.3)):
        meant = np.where(np.arange(100_000) % 100 < 100 * agree, said, 1 - said)
        found = accuracy_bounds(meant, said, truth, said, 2)
        assert found == pytest.approx((low, high), abs=0.02)
    one = accuracy_bounds(truth, truth, np.array([0]), np.array([0]), 2)  # a single row of gold tells nearly nothing
    assert one is not None
    assert one[0] < 0.3
    assert accuracy_bounds([-1], [0], [0, 1], [0, 1], 2) is None


def test_a_confusion_is_counted_with_half_a_row_a_cell() -> None:
    said, truth = np.array([0, 0, 1, 1, -1, 0]), np.array([0, 0, 0, 1, 1, -1])
    assert count_noise(said, truth, 2) == pytest.approx(np.array([[2.5, 1.5], [0.5, 1.5]]) / [[4], [2]])
    assert count_noise(said, truth, 2, rows=0) == pytest.approx(np.array([[2, 1], [0, 1]]) / [[3], [1]])


def test_margins_by_hand() -> None:
    """Of label 0 the model is sure of 0 in two rows and of 1 in one: one row in three leaves, by the largest margin."""
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
    labels = np.array([0, 0, 0, 1, 1])
    margins = issue_margins(labels, probs)
    assert margins[0, 1] == pytest.approx(0.8)
    assert (margins[[0, 1, 1], [0, 0, 1]] > 1).all()
    assert label_issues(labels, probs).tolist() == [False, False, True, False, False]


def test_a_label_keeps_the_row_that_fits_it_best() -> None:
    """The model holds every row of label 0 for a 1."""
    probs = np.array([[0.3, 0.7], [0.2, 0.8], [0.4, 0.6], [0.4, 0.6]])
    assert label_issues(np.array([0, 0, 1, 1]), probs).tolist() == [False, True, False, False]
