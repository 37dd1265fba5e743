"""Policies: each decision by hand, the promises of all of them, and policies of earlier versions."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.corrections import annotated, blurred
from support.toy_experiment import simulated

from hf_synth.correction.fitting import fit
from hf_synth.correction.policy import (
    ABSTAIN,
    GENERATOR,
    METHODS,
    Annotations,
    Policy,
    apply,
    joint_belief,
    set_audited_labels,
    stack_features,
)
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.calibration import apply_temperature, conformal_sets
from hf_synth.task.columns import REASONS, STATUSES

NOISE = ((0.8, 0.2), (0.2, 0.8))
PROBS = np.array([[0.4, 0.6], [0.9, 0.1]])
"""Beliefs of rows that the generator labelled 0, by hand: .32 and .12 of .44, .72 and .02 of .74."""
STACK = ((1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))  # log-probabilities + 2 for the LLM's label

KEPT, DROPPED, CHANGED = "kept", "dropped", "relabelled"
BY_HAND: list[tuple[str, dict[str, Any], list[tuple[str, str, float, float]]]] = [
    # method, fields of the policy; of each row its status, reason, probability of label 0, weight
    ("none", {}, [(KEPT, "as_generated", 1.0, 1.0)] * 2),
    ("gold_only", {}, [(DROPPED, "unused", 1.0, 0.0)] * 2),
    ("argmax", {}, [(CHANGED, "argmax", 0.0, 1.0), (KEPT, "agrees", 1.0, 1.0)]),
    ("threshold", {"threshold": 0.55}, [(CHANGED, "argmax", 0.0, 1.0), (KEPT, "agrees", 1.0, 1.0)]),
    ("threshold", {"threshold": 0.7}, [(KEPT, "abstained", 1.0, 1.0), (KEPT, "agrees", 1.0, 1.0)]),
    ("agree", {}, [(DROPPED, "disagrees", 1.0, 0.0), (KEPT, "agrees", 1.0, 1.0)]),
    ("clean_drop", {"margins": ((2.0, 0.1), (2.0, 2.0))}, [
        (DROPPED, "label_issue", 1.0, 0.0), (KEPT, "abstained", 1.0, 1.0)]),
    ("clean_drop", {"margins": ((2.0, 0.3), (2.0, 2.0))}, [(KEPT, "abstained", 1.0, 1.0)] * 2),
    ("loss_rank", {"floors": (0.5, 0.0)}, [(DROPPED, "label_issue", 1.0, 0.0), (KEPT, "agrees", 1.0, 1.0)]),
    ("loss_rank", {"floors": (0.4, 0.9)}, [(KEPT, "agrees", 1.0, 1.0)] * 2),
    # beliefs squared: .1024 of .1168, .5184 of .5188
    ("posterior", {}, [(KEPT, "posterior_agrees", 0.876712, 1.0), (KEPT, "posterior_agrees", 0.999229, 1.0)]),
    ("weight", {}, [(KEPT, "weighted", 1.0, 0.727273), (KEPT, "weighted", 1.0, 0.972973)]),
    # halves of both: (.876712 + .727273) / 2 of (1 + .727273) / 2
    ("ensemble", {}, [(KEPT, "posterior_agrees", 0.928623, 0.863636), (KEPT, "posterior_agrees", 0.999609, 0.986486)]),
    # halves of "posterior" and of models that learnt from gold alone: .1 and .9
    ("blend", {}, [(CHANGED, "posterior", 0.488356, 1.0), (KEPT, "posterior_agrees", 0.949615, 1.0)]),
    ("measured", {"annotators": (GENERATOR,), "confusions": (NOISE,)}, [
        (KEPT, "posterior_agrees", 0.727273, 1.0), (KEPT, "posterior_agrees", 0.972973, 1.0)]),
    # the generator is wrong more often than right: .08 and .48 of .56, .18 and .08 of .26
    ("measured", {"annotators": (GENERATOR,), "confusions": (((0.2, 0.8), (0.8, 0.2)),)}, [
        (CHANGED, "posterior", 0.142857, 1.0), (KEPT, "posterior_agrees", 0.692308, 1.0)]),
    # odds .4 / .6 and 9, times e squared
    ("stack", {"annotators": (GENERATOR,), "stack": STACK}, [
        (KEPT, "posterior_agrees", 0.831253, 1.0), (KEPT, "posterior_agrees", 0.985186, 1.0)]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "fields", "expected"), BY_HAND)
def test_each_decision_by_hand(
    method: str, fields: dict[str, Any], expected: list[tuple[str, str, float, float]]
) -> None:
    policy = Policy(method, 2, noise=NOISE, **fields)
    done = apply(policy, [0, 0], PROBS, alone=[[0.1, 0.9], [0.9, 0.1]] if method == "blend" else None)
    rows = list(zip(done.status, done.reason, done.probs[:, 0], done.weight, strict=True))
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    assert np.array([row[2:] for row in rows]) == pytest.approx(np.array([row[2:] for row in expected]), abs=1e-5)
    assert done.confidence == pytest.approx(done.probs[np.arange(2), done.label])


def test_every_method_is_decided_by_hand() -> None:
    assert {method for method, _, _ in BY_HAND} == set(METHODS)


def test_blend_without_models_of_gold_alone_takes_its_own_calm_opinion() -> None:
    done = apply(Policy("blend", 2, noise=NOISE), [0, 0], PROBS)
    assert done.probs[:, 0] == pytest.approx([(0.876712 + 0.4) / 2, (0.999229 + 0.9) / 2], abs=1e-5)


def test_several_llms_are_joined_by_what_each_was_measured_to_be() -> None:
    """By hand: an opinion of .5; the first LLM says 0 and errs in .2, the second says 1 and errs in .4."""
    told = Annotations((GENERATOR, "llm_label_b"), np.array([[0, 1], [0, -1], [-1, 1]]))
    fields: dict[str, Any] = {"noise": NOISE, "annotators": told.names, "confusions": (NOISE, ((0.6, 0.4), (0.4, 0.6)))}
    half = np.full((3, 2), 0.5)
    done = apply(Policy("measured", 2, **fields), [0, 0, -1], half, annotations=told)
    assert done.probs[:, 0] == pytest.approx([8 / 11, 0.8, 0.4])  # .8 x .4 against .2 x .6
    assert done.label.tolist() == [0, 0, 1]
    doubted = apply(Policy("measured", 2, power=0.5, **fields), [0, 0, -1], half, annotations=told)
    odds = np.sqrt([8 / 3, 4, 2 / 3])
    assert doubted.probs[:, 0] == pytest.approx(odds / (1 + odds))
    turned = Annotations(told.names[::-1], told.labels[:, ::-1])  # by name, not by place
    assert (apply(Policy("measured", 2, **fields), [0, 0, -1], half, annotations=turned).probs == done.probs).all()


def test_a_generator_that_did_not_label_gold_counts_by_its_estimated_noise() -> None:
    told = Annotations(("llm_label_b",), np.array([[1]]))
    policy = Policy("measured", 2, noise=NOISE, annotators=told.names, confusions=(((0.6, 0.4), (0.4, 0.6)),))
    done = apply(policy, [0], [[0.5, 0.5]], annotations=told)
    assert done.probs[0, 0] == pytest.approx(0.8 * 0.4 / (0.8 * 0.4 + 0.2 * 0.6))


def test_features_of_stack_by_hand() -> None:
    told = Annotations(("a", "b"), np.array([[1, -1]]), np.array([[0.75, np.nan]]))
    features = stack_features(np.array([[0.8, 0.2]]), told)
    assert features[0] == pytest.approx([np.log(2), -np.log(2), 0, 2, 0, 1.5, 0, 0, 0, 0])
    assert stack_features(np.zeros((0, 2)), Annotations(("a",), np.zeros((0, 1), np.int64))).shape == (0, 4)


def test_labels_of_an_annotator_that_are_missing_are_one_sentence() -> None:
    policy = Policy("stack", 2, annotators=("llm_label_b",), stack=STACK)
    with pytest.raises(ColumnError, match="uses the labels of llm_label_b: the rows lack them"):
        apply(policy, [0, 0], PROBS)
    wide = Policy("stack", 2, annotators=(GENERATOR,), stack=((0.0, 0.0), *STACK[:2], *STACK))
    with pytest.raises(ColumnError, match="the rows have none"):
        apply(wide, [0, 0], PROBS)
    told = Annotations((GENERATOR,), np.zeros((2, 1), np.int64), np.full((2, 1), 0.9))
    plain = Policy("stack", 2, annotators=(GENERATOR,), stack=STACK)
    assert (apply(plain, [0, 0], PROBS, annotations=told).probs == apply(plain, [0, 0], PROBS).probs).all()


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[Annotations, Annotations], np.ndarray]:
    """Draw opinions, generated labels of which some are missing, gold that may lack labels, and annotators."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, m, k = draw(st.integers(1, 30)), draw(st.integers(2, 20)), draw(st.integers(2, 5))
    seen = draw(st.integers(1, k))
    given = {
        "llm_label": rng.integers(-1 if draw(st.booleans()) else 0, k, n), "pred_probs": rng.dirichlet(np.ones(k), n),
        "gold_label": rng.integers(0, seen, m), "gold_probs": rng.dirichlet(np.ones(k), m),
    }  # fmt: skip
    others = rng.random(draw(st.integers(0, 2))).tolist()
    of_gold, of_rows = annotated(given, *others, seed=int(rng.integers(1_000)))
    if draw(st.booleans()):
        sure = [rng.random(part.labels.shape) for part in (of_gold, of_rows)]
        of_gold, of_rows = (dataclasses.replace(p, sure=s) for p, s in zip((of_gold, of_rows), sure, strict=True))
    return given, (of_gold, of_rows), rng.dirichlet(np.ones(k), n)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=12, deadline=None)
@given(problem=problems(), coverage=st.none() | st.just(0.7), calibrate=st.booleans())
def test_a_row_is_decided_alike_alone_and_in_any_batch(
    method: str, problem: Any, coverage: float | None, calibrate: bool
) -> None:
    given, told, alone = problem
    policy = fit(method, **given, annotations=told, coverage=coverage, calibrate=calibrate, bounds=False)
    policy = Policy.from_json(json.loads(json.dumps(policy.to_json())))
    whole = apply(policy, given["llm_label"], given["pred_probs"], annotations=told[1], alone=alone)
    for i in range(len(alone)):
        at = np.array([i])
        one = apply(
            policy, given["llm_label"][at], given["pred_probs"][at], annotations=told[1].of_rows(at), alone=alone[at]
        )
        assert (one.label[0], one.status[0], one.reason[0]) == (whole.label[i], whole.status[i], whole.reason[i])
        assert one.probs[0] == pytest.approx(whole.probs[i])
        assert (one.weight[0], one.confidence[0]) == pytest.approx((whole.weight[i], whole.confidence[i]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), k=st.integers(2, 6), method=st.sampled_from(METHODS))
def test_what_comes_out_keeps_its_promises(seed: int, n: int, k: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    meant, probs = rng.integers(0, k, n), rng.dirichlet(np.ones(k), n)
    gold, held_out = rng.integers(0, k, 20), rng.dirichlet(np.ones(k), 20)
    given = {"llm_label": meant, "pred_probs": probs, "gold_label": gold, "gold_probs": held_out}
    told = annotated(given, 0.5, seed=seed)
    policy = fit(method, **given, annotations=told, bounds=seed % 5 == 0)
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
    done = apply(policy, meant, probs, annotations=told[1])
    assert np.allclose(done.probs.sum(1), 1)
    assert set(done.status) <= set(STATUSES)
    assert set(done.reason) <= set(REASONS)
    assert ((done.weight == 0) == (done.status == "dropped")).all()
    assert (done.label[done.status == "kept"] == meant[done.status == "kept"]).all()
    assert (done.label[done.status == "relabelled"] != meant[done.status == "relabelled"]).all()
    assert np.isclose(sum(done.ratio(s) for s in ("kept", "relabelled", "dropped")), 1)
    spared = set(policy.unseen) & set(meant.tolist()) if method != "gold_only" else set()
    for label in spared:  # nothing that gold lacks dies out
        assert ((done.label == label) & (done.weight > 0)).any()
    order = rng.permutation(n)
    again = apply(policy, meant[order], probs[order], annotations=told[1].of_rows(order))
    assert (again.label == done.label[order]).all()
    assert (again.status == done.status[order]).all()


@pytest.mark.parametrize("method", ["clean_drop", "posterior", "blend"])
def test_of_a_label_that_gold_lacks_a_fifth_stays(method: str) -> None:
    """The models hold each of ten rows of label 2 for another one, the first ones least."""
    pull = np.linspace(0.05, 0.25, 10)
    probs = np.array([*np.eye(3)[[0, 1] * 10] * 0.9 + 1 / 30, *np.c_[1 - pull - 0.02, np.full(10, 0.02), pull]])
    meant = np.array([0, 1] * 10 + [2] * 10)
    gold = np.array([0, 1] * 20)
    policy = fit(
        method, llm_label=meant, pred_probs=probs, gold_label=gold, gold_probs=np.eye(3)[gold] * 0.9 + 1 / 30,
        calibrate=False,
    )  # fmt: skip
    assert policy.unseen == (2,)
    if method == "clean_drop":  # confident learning leaves a label that no row is sure of
        policy = dataclasses.replace(policy, margins=((2.0,) * 3, (2.0,) * 3, (0.1, 2.0, 2.0)))
    done = apply(policy, meant, probs)
    assert np.flatnonzero((done.label == 2) & (done.weight > 0)).tolist() == [28, 29]
    assert done.reason[28:].tolist() == ["abstained"] * 2
    bare = dataclasses.replace(policy, stays=())  # as earlier versions wrote it: a fifth of the rows at hand
    assert np.flatnonzero((apply(bare, meant, probs).label == 2) & (apply(bare, meant, probs).weight > 0)).tolist() == [
        28, 29
    ]  # fmt: skip
    first = np.arange(20, 25)
    assert apply(policy, meant[first], probs[first]).reason.tolist().count("abstained") == 0
    assert apply(bare, meant[first], probs[first]).reason.tolist().count("abstained") == 1


def test_audited_rows_have_their_true_label() -> None:
    done = set_audited_labels(apply(Policy("agree", 2), [0, 0], PROBS), [0, 0], {0: 0, 1: 1})
    assert (done.label.tolist(), done.weight.tolist(), done.status.tolist()) == ([0, 1], [1, 1], [KEPT, CHANGED])
    assert done.reason.tolist() == ["audited"] * 2
    assert done.probs.tolist() == [[1, 0], [0, 1]]


def test_a_belief_by_hand() -> None:
    belief = joint_belief(PROBS, np.array(NOISE), np.array([1, -1]))
    assert belief == pytest.approx(np.array([[0.4 * 0.2 / 0.56, 0.6 * 0.8 / 0.56], [0.9, 0.1]]))


def test_argmax_trains_on_the_label_not_on_the_doubt() -> None:
    _, given = simulated(0, right=0.7, corrector=0.6)
    done = apply(fit("argmax", **given), given["llm_label"], given["pred_probs"])
    assert (done.label == given["pred_probs"].argmax(1)).all()
    assert (done.probs.max(1) == 1).all()


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("method", ABSTAIN)
def test_a_row_whose_set_holds_not_just_one_label_is_left_as_generated(method: str, by_class: bool) -> None:
    _, given = blurred()
    told = annotated(given, 0.5)
    without = apply(
        fit(method, **given, annotations=told), given["llm_label"], given["pred_probs"], annotations=told[1]
    )
    policy = fit(method, **given, annotations=told, coverage=0.8, coverage_by_class=by_class)
    policy = Policy.from_json(json.loads(json.dumps(policy.to_json())))
    assert isinstance(policy.level, tuple) == by_class
    done = apply(policy, given["llm_label"], given["pred_probs"], annotations=told[1])
    sizes = conformal_sets(apply_temperature(given["pred_probs"], policy.temperature), np.asarray(policy.level)).sum(1)
    alone = sizes != 1
    assert 0 < alone.mean() < 1
    assert policy.figures["conformal_coverage_asked"] == 0.8
    assert policy.figures["conformal_abstained_share"] == pytest.approx(alone.mean(), abs=1e-4)
    assert (done.label[alone] == given["llm_label"][alone]).all()
    assert (done.probs[alone] == np.eye(4)[given["llm_label"][alone]]).all()
    assert (done.weight[alone] == 1).all()
    assert (done.label[~alone] == without.label[~alone]).all()
    assert (done.weight[~alone] == without.weight[~alone]).all()
    assert ((done.reason == "abstained") & (without.reason != "abstained")).any()


@pytest.mark.parametrize("method", ["none", "weight", "gold_only"])
def test_where_no_label_changes_and_no_row_leaves_coverage_has_no_part(method: str) -> None:
    _, given = blurred()
    policy = fit(method, **given, coverage=0.8)
    done, without = (apply(p, given["llm_label"], given["pred_probs"]) for p in (policy, fit(method, **given)))
    assert (done.probs == without.probs).all()
    assert (done.weight == without.weight).all()
    assert any("plays no part" in line for line in policy.warnings)


# --- on disk --------------------------------------------------------------------------------------------------------
EARLIER = {  # as version 0.9 wrote it, before there were margins, annotators and the other fields
    "method": "posterior", "n_labels": 3, "temperature": 0.6674199270850172,
    "noise": [[0.729236, 0.196958, 0.073806], [0.195405, 0.60919, 0.195405], [0.073806, 0.196958, 0.729236]],
    "confusion": [[0.777778, 0.111111, 0.111111], [0.111111, 0.777778, 0.111111], [0.111111, 0.111111, 0.777778]],
    "unseen": [], "threshold": 0.918527, "level": 0.0, "figures": {"generator_accuracy_estimated": 0.4133},
    "warnings": ["6 gold rows are few: the noise matrix depends on its prior"],
}  # fmt: skip
EARLIER_PRINTS = {
    "posterior": "dffd373a5d3651dfdb8247de154002cfda02b097bafcf298ce6c7400c3490db5",
    "clean_drop": "3db4a72de64dded972953e09a7f27e1dd9dec9a1d4cade038c91c816160d7330",
}


@pytest.mark.parametrize("method", EARLIER_PRINTS)
def test_a_policy_of_an_earlier_version_is_read_and_keeps_its_fingerprint(method: str) -> None:
    policy = Policy.from_json(EARLIER | {"method": method})
    assert policy.fingerprint() == EARLIER_PRINTS[method]
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
    changed = [
        {"corrector": "model 0"}, {"margins": ((2.0,) * 3,) * 3}, {"floors": (0.5,) * 3}, {"stays": (0.5,)},
        {"annotators": (GENERATOR,)}, {"confusions": (policy.noise,)}, {"power": 0.5}, {"stack": STACK},
        {"temperature": 1.0},
    ]  # fmt: skip
    prints = {dataclasses.replace(policy, **fields).fingerprint() for fields in changed}
    assert len(prints | {policy.fingerprint()}) == 10
    told = dataclasses.replace(policy, figures={"gold_rows": 1}, warnings=())
    assert told.fingerprint() == policy.fingerprint()


def test_clean_drop_of_an_earlier_version_finds_its_issues_in_the_rows_at_hand() -> None:
    policy = Policy.from_json(EARLIER | {"method": "clean_drop"})
    probs = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    assert apply(policy, [0, 0, 0, 1, 2], probs).status.tolist() == [KEPT, KEPT, DROPPED, KEPT, KEPT]


@pytest.mark.parametrize("plain", [{}, {"method": "posterior"}, EARLIER | {"strange": 1}])
def test_what_is_no_policy_is_one_sentence(plain: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match="holds no policy"):
        Policy.from_json(plain)
