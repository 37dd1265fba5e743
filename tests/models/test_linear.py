"""The linear head: softmax regression on soft targets, against scikit-learn's, and features of any text."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hf_synth.errors import ColumnError
from hf_synth.models import linear
from hf_synth.models.linear import draw_positions, feature_map, fit_softmax, linear_learner, text_features


def rows(n: int, k: int, dtype: type = np.float32):  # type: ignore[no-untyped-def]
    """Make features of some gold and n rows, with soft targets that hold several labels likely."""
    rng = np.random.default_rng(k)
    truth, gold = rng.integers(0, k, n), rng.integers(0, k, 60)
    centres = rng.normal(size=(k, 20)) * 0.4
    x_gold, x_rows = (
        (centres[labels] + rng.normal(size=(len(labels), 20)) * 0.5).astype(dtype) for labels in (gold, truth)
    )
    targets = np.exp(rng.normal(size=(n, k)) + 2 * np.eye(k)[truth])
    targets *= rng.uniform(0.2, 1, (n, 1)) / targets.sum(1, keepdims=True)
    return gold, x_gold, x_rows, targets


@pytest.mark.parametrize("k", [2, 3, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_head_is_the_softmax_regression_of_scikit_learn(
    k: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row with a soft target is as many weighted rows as it has likely labels."""
    gold, x_gold, x_rows, targets = rows(800, k, dtype)
    said = []
    for tolerance, steps in ((linear._TOLERANCE, linear._STEPS), (1e-7, 2_000)):
        monkeypatch.setattr(linear, "_TOLERANCE", tolerance)
        monkeypatch.setattr(linear, "_STEPS", steps)
        predict = linear_learner(x_gold, x_rows, gold, k)(np.arange(60), np.arange(800), targets)
        said.append(np.concatenate(predict(np.arange(60), np.arange(800))))
    at, labels = np.nonzero(targets > 0.03)
    x = np.concatenate([x_gold, x_rows[at]]).astype(np.float64)
    weight = np.r_[np.ones(60), targets[at, labels]]
    model = LogisticRegression(C=20.0, max_iter=2_000, tol=1e-8).fit(x, np.r_[gold, labels], sample_weight=weight)
    theirs = model.predict_proba(np.concatenate([x_gold, x_rows]).astype(np.float64))
    early, exact = said
    assert np.allclose(exact.sum(1), 1)
    assert np.abs(exact - theirs).max() < 0.002
    assert np.mean(exact.argmax(1) == theirs.argmax(1)) > 0.99
    assert np.abs(early - theirs).mean() < 0.005, "it stops a little before the minimum"
    assert np.mean(early.argmax(1) == theirs.argmax(1)) > 0.98


@pytest.mark.parametrize("k", [2, 3])
def test_at_the_fit_nothing_is_left_to_gain(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss, written out here: entropy by weight, and half of the penalty times the squared coefficients."""
    monkeypatch.setattr(linear, "_STEPS", 1_000)
    monkeypatch.setattr(linear, "_TOLERANCE", 1e-9)
    _, _, x, targets = rows(120, k, np.float64)
    table = fit_softmax(x, targets, penalty=0.5)
    assert table.shape == (21, k)

    def loss(table: np.ndarray) -> float:
        logits = x @ table[:-1] + table[-1]
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return float(0.25 * (table[:-1] ** 2).sum() - (targets * logs).sum())

    rng, best = np.random.default_rng(0), loss(table)
    for size in (1e-3, 1e-2, 0.1):
        step = rng.normal(size=table.shape) * size
        if k == 2:
            step[:, 0] = 0  # of two labels only the second has coefficients
        assert loss(table + step) > best


def test_a_target_counts_by_its_sum() -> None:
    """A row with weight 3 is three rows."""
    _, _, x, targets = rows(60, 3, np.float64)
    repeated = fit_softmax(
        np.concatenate([x, x[:20], x[:20]]), np.concatenate([targets, targets[:20], targets[:20]]), penalty=1.0
    )
    weighted = fit_softmax(x, targets * np.where(np.arange(60) < 20, 3, 1)[:, None], penalty=1.0)
    assert np.abs(repeated - weighted).max() < 0.02


def test_labels_that_nobody_has_stay_unlikely() -> None:
    gold, x_gold, x_rows, targets = rows(200, 4)
    gold = gold % 2
    targets[:, 2:] = 0
    predict = linear_learner(x_gold, x_rows, gold, 4)(np.arange(60), np.arange(200), targets)
    assert predict(np.arange(60), np.arange(200))[1][:, 2:].max() < 0.001
    alone = linear_learner(x_gold, x_rows, gold * 0, 4)(np.arange(60), np.arange(0), np.zeros((0, 4)))
    assert (alone(np.arange(0), np.arange(200))[1][:, 0] > 0.99).all()


def test_soft_targets_of_many_rows_cost_no_more_than_hard_ones() -> None:
    gold, x_gold, x_rows, targets = rows(12_000, 8)
    learn = linear_learner(x_gold, x_rows, gold, 8)
    spent = []
    for wanted in (np.eye(8)[targets.argmax(1)], targets):
        best = np.inf
        for _ in range(3):
            began = time.process_time()
            learn(np.arange(60), np.arange(12_000), wanted)
            best = min(best, time.process_time() - began)
        spent.append(best)
    assert spent[1] < 3 * spent[0]  # as weighted rows of one label each, they cost six times as much


def test_features_fitted_to_some_texts_are_those_of_a_map_fitted_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word{i % 7} word{i % 11} same" for i in range(60)]
    kept = draw_positions(60, 30, 0)
    wanted = feature_map([*texts[:20], *(texts[i] for i in kept)])(texts)
    monkeypatch.setattr(linear, "_BLOCK", 25)
    few, all_ = text_features(texts[:20], texts, most=30)
    assert np.array_equal(all_, wanted)
    assert np.array_equal(few, wanted[:20])
    assert text_features(texts)[0].tolist() == feature_map(texts)(texts).tolist()


def test_texts_without_spaces_and_without_words() -> None:
    assert feature_map([f"\u53d1\u70e7{i}" for i in range(40)])(["\u53d1\u70e71"]).any()
    with pytest.raises(ColumnError, match="holds a word"):
        feature_map(["..."] * 30)
