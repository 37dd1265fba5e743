"""Policies: the core's shapes and promises, and the decisions they make where the truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kinds import SETS, generated, sets_gold
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic, simulated

from hf_synth.cli.cli import main
from hf_synth.correction import crossfit
from hf_synth.correction import policy as correction
from hf_synth.correction.choice import choose, choose_method
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.crossfit import Rows, decide, folds
from hf_synth.correction.fitting import fit
from hf_synth.correction.noise import accuracy_bounds, denoise, label_issues
from hf_synth.correction.policy import ABSTAIN, METHODS, Policy, apply
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.calibration import conformal_sets, temper, temperature
from hf_synth.models.linear import feature_map, linear_fit, linear_learner, text_features
from hf_synth.task.columns import REASONS, STATUSES
from hf_synth.task.folders import write_stage


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("corrector", "right"), [(0.85, 0.8), (0.6, 0.8), (0.85, 0.95), (0.5, 0.7), (0.9, 0.6), (0.4, 0.9)]
)
def test_posterior_never_makes_labels_worse_and_argmax_does(corrector: float, right: float, seed: int) -> None:
    truth, given = simulated(seed, right=right, corrector=corrector)
    labels = {}
    for method in ("none", "argmax", "posterior"):
        done = apply(fit(method, **given), given["llm_label"], given["pred_probs"])
        labels[method] = float(np.mean(done.label == truth))
    assert labels["posterior"] >= labels["none"] - 0.01
    if corrector < right - 0.05:
        assert labels["argmax"] < labels["none"] - 0.03
        assert any("weaker" in w for w in fit("argmax", **given).warnings)
    if corrector > right + 0.05:
        assert labels["posterior"] > labels["none"] + 0.05


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), k=st.integers(2, 6), method=st.sampled_from(METHODS))
def test_what_comes_out_keeps_its_promises(seed: int, n: int, k: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    meant, probs = rng.integers(0, k, n), rng.dirichlet(np.ones(k), n)
    gold, held_out = rng.integers(0, k, 20), rng.dirichlet(np.ones(k), 20)
    policy = fit(method, llm_label=meant, pred_probs=probs, gold_label=gold, gold_probs=held_out)
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
    done = apply(policy, meant, probs)
    assert np.allclose(done.probs.sum(1), 1)
    assert set(done.status) <= set(STATUSES)
    assert set(done.reason) <= set(REASONS)
    assert ((done.weight == 0) == (done.status == "dropped")).all()
    assert (done.label[done.status == "kept"] == meant[done.status == "kept"]).all()
    assert (done.label[done.status == "relabelled"] != meant[done.status == "relabelled"]).all()
    assert np.isclose(sum(done.ratio(s) for s in ("kept", "relabelled", "dropped")), 1)
    for label in set(policy.unseen) & set(meant.tolist()):  # nothing that gold lacks dies out
        assert ((done.label == label) & (done.weight > 0)).any()
    order = rng.permutation(n)
    again = apply(policy, meant[order], probs[order])
    assert (again.label == done.label[order]).all()
    assert (again.status == done.status[order]).all()


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


def test_temperature_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3_000, 3)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=p) for p in probs])
    sharp = probs**3 / (probs**3).sum(1, keepdims=True)
    assert temperature(labels, sharp) == pytest.approx(3, rel=0.15)
    assert temperature(labels, probs) == pytest.approx(1, rel=0.15)


def test_audited_rows_are_counted_with_their_interval() -> None:
    truth, given = simulated(0, right=0.7, corrector=0.6)
    figures = fit("posterior", **given, audited={i: int(truth[i]) for i in range(50)}).figures
    low, high = figures["generator_accuracy_audited_ci95"]
    assert low < figures["generator_accuracy_audited"] < high
    assert low < 0.7 < high


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pred_probs": np.ones((3, 2))}, "sum to 1"),
        ({"llm_label": [0, 1]}, "2 labels for 3 rows"),
        ({"llm_label": [0, 1, 7]}, "outside"),
        ({"llm_label": [0.5, 1, 1]}, "indices"),
        ({"pred_probs": np.ones(3)}, "shape"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, object], says: str) -> None:
    half = np.full((3, 2), 0.5)
    given = {"llm_label": [0, 1, 1], "pred_probs": half, "gold_label": [0, 1, 1], "gold_probs": half}
    with pytest.raises(ColumnError, match=says):
        fit("posterior", **(given | change))  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="unknown method"):
        fit("magic", **given)  # type: ignore[arg-type]


def test_the_preferred_method_stands_within_noise() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 200)
    hits = rng.random(200) < 0.8
    even = {"posterior": hits, "none": np.where(np.arange(200) == 3, True, hits)}  # one row better, if that
    assert choose(even, gold, prefer=("posterior", "none")).method == "posterior"
    clear = {"posterior": rng.random(200) < 0.5, "none": rng.random(200) < 0.9}
    assert choose(clear, gold, prefer=("posterior", "none")).method == "none"


def test_rows_of_one_patient_are_no_further_evidence() -> None:
    """Twenty patients decide nothing, however often each of their notes stands there again."""
    gold, prefer = np.arange(20) % 2, ("posterior", "none")
    hits = {"posterior": np.arange(20) < 12, "none": (np.arange(20) < 9) | (np.arange(20) > 13)}  # 12 and 15 right
    once = choose(hits, gold, prefer=prefer)
    assert once.scores["none"] > once.scores["posterior"]
    assert once.method == "posterior"
    many = {m: np.repeat(h, 50) for m, h in hits.items()}
    patients = [f"p{i}" for i in np.repeat(np.arange(20), 50)]
    again = choose(many, np.repeat(gold, 50), prefer=prefer, groups=patients)
    assert (again.method, again.behind) == (once.method, once.behind)
    assert "1000 held-out rows of 20 groups" in again.why
    assert choose(many, np.repeat(gold, 50), prefer=prefer).method == "none"  # what taking rows for patients would do
    assert choose(many, np.repeat(gold, 50), prefer=prefer, groups=["p"] * 1000).method == "posterior"


def test_singletons_have_the_error_of_independent_rows() -> None:
    rng = np.random.default_rng(0)
    gold = np.zeros(90, dtype=int)
    hits = {"posterior": rng.random(90) < 0.7, "none": rng.random(90) < 0.8}
    gain = hits["posterior"].astype(float) - hits["none"]
    expected = round(float(gain.std(ddof=1) / np.sqrt(90)), 4)
    for groups in (None, [None] * 90, [str(i) for i in range(90)]):
        assert choose(hits, gold, prefer=("posterior", "none"), groups=groups).behind["none"][1] == expected


def test_audited_rows_of_a_patient_are_held_out_together() -> None:
    truth, rows, learn = problem()
    patients = [f"p{i % 20}" for i in range(60)]
    theirs = [f"p{i % 30}" for i in range(240)]  # some of gold's patients, some of their own
    seen: list[tuple[set[str], set[str]]] = []

    def watching(gold, at, targets):  # type: ignore[no-untyped-def]
        predict = learn(gold, at, targets)

        def asked(gold_at, rows_at):  # type: ignore[no-untyped-def]
            if 0 < len(rows_at) < 30:  # what is scored, not what is given an opinion on
                seen.append(({patients[i] for i in gold}, {theirs[i] for i in rows_at}))
            return predict(gold_at, rows_at)

        return asked

    marked = replace(rows, groups=patients, row_groups=theirs, audited={i: int(truth[i]) for i in range(0, 240, 4)})
    choice = choose_method(marked, watching, methods=("none",))
    assert "120 held-out rows of 25 groups" in choice.why
    assert len(seen) == 5
    assert not any(trained & held for trained, held in seen)
    held = [patient for _, those in seen for patient in those]
    assert len(held) == len(set(held))


def test_folds_keep_groups_whole_and_spread_rare_labels() -> None:
    labels = np.array([0] * 40 + [1] * 5 + [2] * 5)
    groups = [i // 2 for i in range(50)]
    fold = folds(labels, groups, 5, seed=0)
    assert all(len({fold[i] for i in range(50) if groups[i] == g}) == 1 for g in set(groups))
    assert len(set(folds(labels, None, 5, seed=0)[labels == 1])) == 5


def test_auto_does_not_harm_where_argmax_does() -> None:
    """With 10% noise and 50 gold rows the corrector is worse than the prompt: a test of the decision."""
    rng = np.random.default_rng(0)
    words = [[f"w{c}x{i}" for i in range(60)] for c in range(4)]

    def text(label: int) -> str:
        return " ".join([*rng.choice(words[label], 3), *rng.choice([w for some in words for w in some], 5)])

    truth = rng.integers(0, 4, 500)
    meant = np.where(rng.random(500) < 0.9, truth, (truth + 1) % 4)
    gold = np.arange(50) % 4
    x_gold, x_rows = text_features([text(c) for c in gold], [text(c) for c in truth])
    learn = linear_learner(x_gold, x_rows, gold, 4)
    rows = Rows(meant, gold, None, 4, {})
    choice = choose_method(rows, learn)
    assert choice.method != "argmax"
    right = {m: float(np.mean(decide(rows, learn, m)[1].label == truth)) for m in ("argmax", choice.method)}
    assert right["argmax"] < 0.85
    assert right[choice.method] >= 0.89


def problem(seed: int = 0, *, n: int = 240, m: int = 60, k: int = 3, right: float = 0.8):  # type: ignore[no-untyped-def]
    """Make rows whose features say something of the truth, and the fast learner on them."""
    rng = np.random.default_rng(seed)
    truth, gold = rng.integers(0, k, n), np.arange(m) % k
    meant = np.where(rng.random(n) < right, truth, (truth + 1) % k)
    centres = rng.normal(size=(k, 8))
    x_gold = centres[gold] + rng.normal(size=(m, 8))
    x_rows = centres[truth] + rng.normal(size=(n, 8))
    return truth, Rows(meant, gold, None, k, {}), linear_learner(x_gold, x_rows, gold, k)


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


def test_opinions_paid_for_while_choosing_are_used() -> None:
    _, rows, learn = problem()
    choice = choose_method(rows, learn)
    assert set(choice.opinions) == {"gold", "both", "refits"}
    assert all(len(found) == 5 for found in choice.opinions.values())
    certain = np.eye(3)[rows.meant]
    alone, with_them = (
        decide(rows, learn, "posterior", also=also)[1].probs.max(1).mean() for also in ({}, {"refits": [certain] * 50})
    )
    assert with_them > alone
    again = choose_method(rows, learn)
    assert again == choice
    assert all(np.array_equal(a, b) for a, b in zip(again.opinions["refits"], choice.opinions["refits"], strict=True))


def test_audited_rows_are_held_out_too_and_settle_their_label() -> None:
    truth, rows, learn = problem(right=0.6)
    audited = {i: int(truth[i]) for i in range(0, 80, 2)}
    choice = choose_method(replace(rows, audited=audited), learn)
    assert f"on {60 + 40} held-out rows" in choice.why
    policy, done = decide(replace(rows, audited=audited), learn, choice.method, also=choice.opinions)
    assert all(done.label[i] == label and done.reason[i] == "audited" for i, label in audited.items())
    assert policy.figures["audited_rows"] == 40


def test_a_policy_that_asked_no_model_claims_nothing_of_one() -> None:
    truth, rows, learn = problem()
    policy, done = decide(replace(rows, audited={0: int(truth[0])}), learn, "none")
    assert set(policy.figures) == {
        "gold_rows", "synthetic_rows", "audited_rows", "generator_accuracy_audited", "generator_accuracy_audited_ci95"
    }  # fmt: skip
    assert not policy.warnings
    assert done.label[0] == truth[0]


def test_argmax_trains_on_the_label_not_on_the_doubt() -> None:
    _, given = simulated(0, right=0.7, corrector=0.6)
    done = apply(fit("argmax", **given), given["llm_label"], given["pred_probs"])
    assert (done.label == given["pred_probs"].argmax(1)).all()
    assert (done.probs.max(1) == 1).all()


def blurred(seed: int = 0, m: int = 400):  # type: ignore[no-untyped-def]
    """Make opinions that are more or less sure, so that conformal sets differ in size."""
    truth, given = simulated(seed, right=0.7, corrector=0.6, m=m)
    rng = np.random.default_rng(seed + 1)
    for name in ("pred_probs", "gold_probs"):
        table = 0.6 * given[name] + 0.4 * rng.dirichlet(np.ones(4), len(given[name]))
        given[name] = table / table.sum(1, keepdims=True)
    return truth, given


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("method", ABSTAIN)
def test_a_row_whose_set_holds_not_just_one_label_is_left_as_generated(method: str, by_class: bool) -> None:
    _, given = blurred()
    without = apply(fit(method, **given), given["llm_label"], given["pred_probs"])
    policy = fit(method, **given, coverage=0.8, coverage_by_class=by_class)
    policy = Policy.from_json(json.loads(json.dumps(policy.to_json())))
    assert isinstance(policy.level, tuple) == by_class
    done = apply(policy, given["llm_label"], given["pred_probs"])
    sizes = conformal_sets(temper(given["pred_probs"], policy.temperature), np.asarray(policy.level)).sum(1)
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


def both_err(seed: int, *, together: float, n: int = 1_500, m: int = 300, k: int = 4):  # type: ignore[no-untyped-def]
    """Make rows of which some are hard for generator and corrector alike; give their truth and what `fit` takes.

    Args:
        together: share of hard rows on which both name the same wrong label.
    """
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(k) * 3)  # the mix of labels is another one than gold's
    truth, gold = rng.choice(k, n, p=shares), rng.integers(0, k, m)

    def say(labels: np.ndarray, hard: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        return np.where(hard & (rng.random(len(labels)) < 0.8), wrong, labels)

    hard, of_gold = rng.random(n) < 0.35, rng.random(m) < 0.35
    wrong = (truth + rng.integers(1, k, n)) % k
    same = np.where(rng.random(n) < together, wrong, (truth + rng.integers(1, k, n)) % k)
    meant, said = say(truth, hard, wrong), say(truth, hard, same)
    guess = say(gold, of_gold, (gold + rng.integers(1, k, m)) % k)
    probs, held = (0.6 * np.eye(k)[labels] + 0.1 for labels in (said, guess))
    return truth, {"llm_label": meant, "pred_probs": probs, "gold_label": gold, "gold_probs": held}


@pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
def test_bounds_hold_where_errors_go_together_and_the_estimate_does_not(together: float) -> None:
    inside, beyond = [], []
    for seed in range(60):
        truth, given = both_err(seed, together=together)
        figures = fit("posterior", **given).figures
        low, high = figures["generator_accuracy_bounds"]
        right = float(np.mean(given["llm_label"] == truth))
        inside.append(low <= right <= high)
        beyond.append(figures["generator_accuracy_estimated"] - right)
    assert np.mean(inside) >= 0.95
    if together == 1:
        assert np.mean(beyond) > 0.1  # what bounds are for: the estimate takes shared errors for agreement on the truth


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


def test_where_nothing_fits_no_bounds_are_told() -> None:
    """On gold the corrector always says the first label; on synthetic rows it never does."""
    gold = np.tile([0, 1], 200)
    first, second = np.tile([0.9, 0.1], (400, 1)), np.tile([0.1, 0.9], (400, 1))
    policy = fit("posterior", llm_label=gold, pred_probs=second, gold_label=gold, gold_probs=first)
    assert "generator_accuracy_bounds" not in policy.figures
    assert any("no accuracy of the generator fits" in line for line in policy.warnings)


@pytest.mark.parametrize(
    ("bounds", "estimated", "said"),
    [((0.25, 0.25), 0.49, "cannot be trusted"), ((0.0, 0.61), 0.7, "of one of the two"), ((0.4, 0.8), 0.7, "")],
)
def test_bounds_are_a_check_of_the_estimate_and_not_more(
    bounds: tuple[float, float], estimated: float, said: str
) -> None:
    """A range narrower than gold's own interval means that what was seen barely fits together."""
    figures = fit("posterior", **blurred()[1]).figures | {
        "gold_rows": 200, "corrector_accuracy_on_held_out_gold": 0.6, "corrector_balanced_accuracy_on_held_out_gold": 1,
        "generator_accuracy_bounds": bounds, "generator_accuracy_estimated": estimated,
    }  # fmt: skip
    told = correction._warnings(figures, ())
    assert [said in line for line in told] == [True] if said else told == ()


@pytest.mark.parametrize("method", ["none", "weight"])
def test_where_no_label_changes_and_no_row_leaves_coverage_has_no_part(method: str) -> None:
    _, given = blurred()
    policy = fit(method, **given, coverage=0.8)
    done, without = (apply(p, given["llm_label"], given["pred_probs"]) for p in (policy, fit(method, **given)))
    assert (done.probs == without.probs).all()
    assert (done.weight == without.weight).all()
    assert any("plays no part" in line for line in policy.warnings)


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


def test_classes_are_covered_one_by_one_where_that_is_asked() -> None:
    """The corrector is bad at one class of four: sets of one level miss it, sets of its own level do not."""
    covered: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, gold = rng.integers(0, 4, 1_000), rng.integers(0, 4, 400)

        def opinions(labels: np.ndarray, rng: np.random.Generator = rng) -> np.ndarray:
            pull = np.where(labels == 3, 0.3, 3.0)[:, None] * np.eye(4)[labels]
            raised = np.exp(pull + rng.normal(size=(len(labels), 4)))
            return raised / raised.sum(1, keepdims=True)

        given = {"llm_label": truth, "pred_probs": opinions(truth), "gold_label": gold, "gold_probs": opinions(gold)}
        for by_class, found in covered.items():
            policy = fit("posterior", **given, coverage=0.9, coverage_by_class=by_class)
            sets = conformal_sets(temper(given["pred_probs"], policy.temperature), np.asarray(policy.level))
            found.append(sets[truth == 3, 3].mean())
    assert np.mean(covered[False]) < 0.75
    assert 0.88 <= np.mean(covered[True]) <= 0.93


def corrected(groups: list[str | None], method: str, **more):  # type: ignore[no-untyped-def]
    """Correct 40 toy rows by a linear head and gold whose rows are of these groups."""
    gold = toy_rows(len(groups), 1)
    gold = gold.remove_columns([c for c in ("group",) if c in gold.column_names]).add_column("group", groups)
    rows = as_synthetic([{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(40, 2))])
    return correct_with_policy(TASK, rows, linear_fit(TASK, gold, rows), gold=gold, method=method, **more)


def test_rows_without_a_group_are_groups_by_themselves() -> None:
    labels = np.arange(20) % 2
    alone = folds(labels, None, 5, seed=0).tolist()
    assert folds(labels, [None] * 20, 5, seed=0).tolist() == alone
    done, policy = corrected([None] * 30, "auto")
    named, same = corrected([f"g{i}" for i in range(30)], "auto")
    assert (list(done["label"]), policy) == (list(named["label"]), same)
    assert policy.figures["corrector_accuracy_on_held_out_gold"] > 0.5


@pytest.mark.parametrize("method", ["auto", "argmax", "posterior"])
def test_gold_of_one_patient_measures_nothing(method: str) -> None:
    with pytest.raises(ColumnError, match="of one group"):
        corrected(["p1"] * 30, method)
    assert corrected(["p1"] * 30, "none")[1].method == "none"


def test_where_no_corrector_was_asked_nothing_is_said_of_one() -> None:
    _, policy = corrected([f"g{i}" for i in range(30)], "none", audited={"s0": 0})
    assert set(policy.figures) == {
        "gold_rows", "synthetic_rows", "audited_rows", "generator_accuracy_audited", "generator_accuracy_audited_ci95",
        "gold_against_synthetic_auc",
    }  # fmt: skip
    assert (policy.noise, policy.confusion, policy.warnings) == ((), (), ())


@pytest.mark.parametrize("label", [-1, 3, 99, "no such label"])
def test_an_audited_label_is_one_of_the_tasks(label: int | str) -> None:
    with pytest.raises(ColumnError, match="audited label"):
        corrected([f"g{i}" for i in range(30)], "posterior", audited={"s0": label})


def test_audited_rows_are_all_held_out_where_gold_has_few_groups() -> None:
    truth, rows, learn = problem()
    few = replace(rows, groups=[str(i // 3 % 3) for i in range(len(rows.truth))])
    choice = choose_method(replace(few, audited={i: int(truth[i]) for i in range(240)}), learn, methods=("none",))
    assert choice.scores["none"] > 0.75  # rows that no fold holds out would count as missed: two in five


def test_texts_without_spaces_and_without_words() -> None:
    assert feature_map([f"\u53d1\u70e7{i}" for i in range(40)])(["\u53d1\u70e71"]).any()
    with pytest.raises(ColumnError, match="holds a word"):
        feature_map(["..."] * 30)


def test_gold_too_small_for_a_coverage_leaves_every_row_alone() -> None:
    _, given = simulated(0, right=0.7, corrector=0.6, m=40)
    policy = fit("argmax", **given, coverage=0.99)  # 41 rows would have to hold the truth, of 40
    done = apply(Policy.from_json(policy.to_json()), given["llm_label"], given["pred_probs"])
    assert (done.label == given["llm_label"]).all()
    assert done.ratio("relabelled") == 0
    assert any("gold is too small for sets" in line for line in policy.warnings)
    by_class = fit("argmax", **given, coverage=0.95, coverage_by_class=True)  # some ten rows a class
    assert any("too small to cover 4 of 4 labels" in line for line in by_class.warnings)
    assert apply(by_class, given["llm_label"], given["pred_probs"]).ratio("relabelled") == 0


def test_the_verb_asks_for_coverage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gold, rows = (
        toy_rows(60, 1),
        [{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(40, 2))],
    )
    write_stage(TASK, gold, tmp_path / "gold", stage="gold")
    write_stage(TASK, as_synthetic(rows), tmp_path / "rows", stage="generate")
    monkeypatch.setattr("hf_synth.models.training.trainer_fit", lambda task, **_: linear_fit(task, gold))
    line = ["correct", str(tmp_path / "gold"), str(tmp_path / "rows"), "--gold", str(tmp_path / "gold"), "-q", "--json"]
    line += ["--out", str(tmp_path / "out"), "--method", "argmax", "--coverage-by-class"]
    assert main([*line, "--coverage", "0.9"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert figures["conformal_coverage_by_class"] is True
    assert figures["conformal_coverage_asked"] == 0.9
    assert main(line) == 1
    assert "needs a coverage: give one too" in capsys.readouterr().err
    with pytest.raises(TaskError, match="coverage.*single_label"):
        correct_with_policy(
            SETS, generated(SETS, sets_gold(8)), linear_fit(TASK, gold), gold=sets_gold(20), coverage=0.9
        )
