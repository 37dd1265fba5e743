"""Cross-fitting: folds, halves, and how often which model is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.corrections import annotated, problem

from hf_synth.correction import crossfit
from hf_synth.correction.crossfit import Rows, decide, folds, halved_by_lineage, part_of_rows
from hf_synth.correction.lineage import lineage
from hf_synth.evaluation.calibration import conformal_sets
from hf_synth.models.linear import linear_learner


def test_folds_keep_groups_whole_and_spread_rare_labels() -> None:
    labels = np.array([0] * 40 + [1] * 5 + [2] * 5)
    groups = [i // 2 for i in range(50)]
    fold = folds(labels, groups, 5, seed=0)
    assert all(len({fold[i] for i in range(50) if groups[i] == g}) == 1 for g in set(groups))
    assert len(set(folds(labels, None, 5, seed=0)[labels == 1])) == 5


@pytest.mark.parametrize("method", ["posterior", "ensemble", "weight", "clean_drop", "blend"])
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


def test_gold_only_trains_no_slow_model_and_uses_no_row() -> None:
    _, rows, learn = problem()

    def never(gold, at, targets):  # type: ignore[no-untyped-def]
        raise AssertionError

    policy, done = decide(rows, never, "gold_only", head=learn)
    assert (done.weight == 0).all()
    assert set(done.reason) == {"unused"}
    assert policy.figures["corrector_accuracy_on_held_out_gold"] > 0.5


def test_some_rows_are_the_rows_that_their_positions_name() -> None:
    truth, rows, _ = problem(n=30, m=12)
    told = annotated({"llm_label": rows.meant, "pred_probs": np.ones((30, 3)) / 3, "gold_label": rows.truth})
    marked = replace(rows, annotations=told, audited={3: int(truth[3]), 20: int(truth[20])}, row_groups=list(range(30)))
    keep = np.array([1, 3, 8, 20])
    seen: list[list[int]] = []

    def watching(gold, at, targets):  # type: ignore[no-untyped-def]
        seen.append(at.tolist())
        return lambda gold, at: seen.append(at.tolist())

    part, learn_part = part_of_rows(marked, watching, keep)
    assert part.meant.tolist() == rows.meant[keep].tolist()
    assert dict(part.audited) == {1: int(truth[3]), 3: int(truth[20])}
    assert part.row_groups == [1, 3, 8, 20]
    assert part.annotations is not None
    assert part.annotations[1].labels[:, 0].tolist() == rows.meant[keep].tolist()
    learn_part(np.arange(12), np.array([0, 3]), np.ones((2, 3)))(np.arange(0), np.array([1]))
    assert seen == [[1, 20], [3]]


def test_halves_by_lineage_hold_every_label() -> None:
    """Prompts of one label each link all notes of a label: a half made of whole units would lack the other labels."""
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 2
    meant = np.where(rng.random(200) < 0.8, np.arange(200) % 2, 1 - np.arange(200) % 2)
    seeds = [[f"g{(2 * rng.integers(0, 30)) + i % 2}" for _ in range(3)] for i in range(200)]
    traced = lineage([f"g{i}" for i in range(60)], None, truth, seeds)
    assert len(np.unique(traced.gold_unit)) <= 4
    centres = rng.normal(size=(2, 8))
    x_gold, x_rows = centres[truth] + rng.normal(size=(60, 8)), centres[np.arange(200) % 2] + rng.normal(size=(200, 8))
    rows = Rows(meant, truth, None, 2, {}, lineage=traced)
    assert not halved_by_lineage(rows, 0)
    corrected = decide(rows, linear_learner(x_gold, x_rows, truth, 2), "posterior")[1]
    assert np.mean(corrected.label == np.arange(200) % 2) > 0.85  # .2 with halves of one label
