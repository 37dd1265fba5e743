"""The linear head: many rows are trained on in another way, with the same result."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hf_synth.models import linear as frozen
from hf_synth.models.linear import linear_learner


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
def test_many_rows_give_the_same_model(k: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    gold, x_gold, x_rows, targets = rows(800, k, dtype)
    said = []
    for many in (10_000, 0):
        monkeypatch.setattr(frozen, "_MANY", many)
        predict = linear_learner(x_gold, x_rows, gold, k)(np.arange(60), np.arange(800), targets)
        said.append(np.concatenate(predict(np.arange(60), np.arange(800))))
    assert np.allclose(said[1].sum(1), 1)
    assert np.abs(said[0] - said[1]).max() < 0.002
    assert np.mean(said[0].argmax(1) == said[1].argmax(1)) > 0.99


def test_labels_that_nobody_has_stay_unlikely(monkeypatch: pytest.MonkeyPatch) -> None:
    gold, x_gold, x_rows, targets = rows(200, 4)
    gold = gold % 2
    targets[:, 2:] = 0
    for many in (10_000, 0):
        monkeypatch.setattr(frozen, "_MANY", many)
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
