"""Cross-fitting: folds, halves, and how often which model is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.corrections import problem

from hf_synth.correction import crossfit
from hf_synth.correction.crossfit import decide, folds
from hf_synth.evaluation.calibration import conformal_sets


def test_folds_keep_groups_whole_and_spread_rare_labels() -> None:
    labels = np.array([0] * 40 + [1] * 5 + [2] * 5)
    groups = [i // 2 for i in range(50)]
    fold = folds(labels, groups, 5, seed=0)
    assert all(len({fold[i] for i in range(50) if groups[i] == g}) == 1 for g in set(groups))
    assert len(set(folds(labels, None, 5, seed=0)[labels == 1])) == 5


@pytest.mark.parametrize("method", ["posterior", "ensemble", "weight", "clean_drop"])
def test_a_slow_model_is_trained_twice_only_where_a_head_does_the_rest(method: str) -> None:
    truth, rows, learn = problem()
    trained: list[int] = []

    def slow(gold, at, targets):  # type: ignore[no-untyped-def]
        trained.append(len(at))
        return learn(gold, at, targets)

    _, done = decide(rows, slow, method, head=learn)
    assert trained == [120, 120]
    used = done.weight > 0
    assert np.mean(done.label[used] == truth[used]) >= np.mean(rows.meant == truth)


def test_a_policy_that_asked_no_model_claims_nothing_of_one() -> None:
    truth, rows, learn = problem()
    policy, done = decide(replace(rows, audited={0: int(truth[0])}), learn, "none")
    assert set(policy.figures) == {
        "gold_rows", "synthetic_rows", "audited_rows", "generator_accuracy_audited", "generator_accuracy_audited_ci95"
    }  # fmt: skip
    assert not policy.warnings
    assert done.label[0] == truth[0]


@pytest.mark.parametrize("method", ["clean_drop", "posterior"])
def test_sets_of_cross_fitted_opinions_hold_the_truth_as_often_as_asked(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gold and synthetic rows drawn alike: the sets of the models that decide hold the truth in four of five rows."""
    monkeypatch.setattr(crossfit, "ROUNDS", 1)
    monkeypatch.setattr(crossfit, "SPLITS", 1)
    held = []
    for seed in range(12):
        truth, rows, learn = problem(seed, n=160, m=80)
        known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        policy, _ = decide(rows, learn, method, seed=seed, coverage=0.8, known=known)
        _, opinions = known["both" if method == "clean_drop" else "refits"]
        held.append(conformal_sets(opinions, policy.level)[np.arange(160), truth].mean())
    assert 0.77 <= np.mean(held) <= 0.85
