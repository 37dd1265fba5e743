"""Labels, opinions and annotations for tests of correction, whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.toy_experiment import simulated

from hf_synth.correction.crossfit import Rows
from hf_synth.correction.policy import GENERATOR, Annotations
from hf_synth.models.linear import linear_learner


def problem(seed: int = 0, *, n: int = 240, m: int = 60, k: int = 3, right: float = 0.8):  # type: ignore[no-untyped-def]
    """Make rows whose features say something of the truth, and the fast learner on them."""
    rng = np.random.default_rng(seed)
    truth, gold = rng.integers(0, k, n), np.arange(m) % k
    meant = np.where(rng.random(n) < right, truth, (truth + 1) % k)
    centres = rng.normal(size=(k, 8))
    x_gold = centres[gold] + rng.normal(size=(m, 8))
    x_rows = centres[truth] + rng.normal(size=(n, 8))
    return truth, Rows(meant, gold, None, k, {}), linear_learner(x_gold, x_rows, gold, k)


def blurred(seed: int = 0, m: int = 400):  # type: ignore[no-untyped-def]
    """Make opinions that are more or less sure, so that conformal sets differ in size."""
    truth, given = simulated(seed, right=0.7, corrector=0.6, m=m)
    rng = np.random.default_rng(seed + 1)
    for name in ("pred_probs", "gold_probs"):
        table = 0.6 * given[name] + 0.4 * rng.dirichlet(np.ones(4), len(given[name]))
        given[name] = table / table.sum(1, keepdims=True)
    return truth, given


def annotated(
    given: dict[str, Any], *others: float, right: float = 0.7, seed: int = 0
) -> tuple[Annotations, Annotations]:
    """Label gold as the generator labelled the rows, right at a rate; further annotators are right at theirs.

    Args:
        given: what `fit` takes; its rows are labelled by the generator already.
    """
    rng = np.random.default_rng(seed)
    names = (GENERATOR, *(f"{GENERATOR}_{i}" for i in range(len(others))))
    gold, k = np.asarray(given["gold_label"]), np.asarray(given["pred_probs"]).shape[1]

    def say(truth: np.ndarray, rate: float) -> np.ndarray:
        return np.where(rng.random(len(truth)) < rate, truth, rng.integers(0, k, len(truth)))

    meant = np.asarray(given["llm_label"])
    of_gold = np.stack([say(gold, rate) for rate in (right, *others)], axis=1)
    of_rows = np.stack([meant, *(say(np.maximum(meant, 0), rate) for rate in others)], axis=1)
    return Annotations(names, of_gold), Annotations(names, of_rows)
