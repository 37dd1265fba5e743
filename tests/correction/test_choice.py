"""The choice of a method: gains over gold only, their errors and the guarantee, on held-out rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from support.corrections import annotated, problem

from hf_synth.correction.choice import NOTHING, choose, choose_method, unmeasured
from hf_synth.correction.crossfit import Rows, decide
from hf_synth.correction.lineage import lineage
from hf_synth.correction.policy import Annotations
from hf_synth.correction.priors import Prior
from hf_synth.correction.trial import _lead_over_gold
from hf_synth.models.linear import linear_learner, text_features

FLAT = Prior(0.0, 0.04, 0.0, 0.0, 0.04)  # nothing is known beforehand


def first(n: int, right: int) -> np.ndarray:
    """Return hits on n rows of which the first are right."""
    return np.arange(n) < right


def test_a_gain_is_shrunk_by_hand() -> None:
    """Ten of 100 rows are gained: the squares about .1 sum to 9, and one row is added to them."""
    choice = choose({NOTHING: first(100, 60), "a": first(100, 70)}, np.zeros(100, int), priors={"a": FLAT})
    error = np.sqrt(100 / 99 * 9 / 100**2 + 1 / 100**2)
    gain = choice.gains["a"]
    assert (gain.held_out, gain.error) == pytest.approx((0.1, error))
    precision = 1 / 0.04**2 + 1 / error**2
    assert (gain.expected, gain.sd) == pytest.approx((0.1 / error**2 / precision, precision**-0.5))
    assert choice.gains[NOTHING].expected == 0
    assert choice.scores == {NOTHING: 0.6, "a": 0.7}
    assert choice.behind[NOTHING] == (0.1, round(error, 4))
    assert choice.method == "a"
    assert choice.guarantee == 0, "1.29 standard errors are less than the gain"
    share, low, high = choice.accuracy  # type: ignore[misc]
    assert share == 0.7
    z = 2.241403  # of 97.5%, since two candidates share the 5%
    middle, half = 0.7 + z**2 / 200, z * np.sqrt(0.7 * 0.3 / 100 + z**2 / 200**2)  # Wilson's of 70 in 100
    assert (low, high) == pytest.approx(((middle - half) / (1 + z**2 / 100), (middle + half) / (1 + z**2 / 100)))
    figures = choice.figures()
    assert figures["auto_gains"]["a"] == [0.1, round(error, 4), round(gain.expected, 4), round(gain.sd, 4)]
    assert figures["auto_accuracy_on_held_out_gold_ci95"] == [0.5898, 0.7911]
    assert (figures["auto_loss_at_most"], figures["auto_loss_confidence"], figures["auto_measured"]) == (0, 0.9, True)


def test_the_guarantee_by_hand() -> None:
    """Of 50 rows one is gained: t(49) of .9 is 1.2991; one row of 50 is added."""
    prior = {"a": Prior(0.05, 0.02, 0, 0, 0.02)}
    choice = choose({NOTHING: first(50, 30), "a": first(50, 31)}, np.zeros(50, int), priors=prior)
    error = np.sqrt(50 / 49 * (0.98**2 + 49 * 0.02**2) / 50**2 + 1 / 50**2)
    assert choice.method == "a"
    assert choice.guarantee == pytest.approx(1.2991 * error - 0.02 + 0.02, abs=1e-5)
    assert f"by more than {100 * choice.guarantee:.1f} points with probability 90%" in choice.why
    assert "gold is too small to prove a gain: this choice has the best lower bound" in choice.why
    more = {NOTHING: first(50, 30), "a": first(50, 31), "b": first(50, 29)}
    three = choose(more, np.zeros(50, int), priors=prior | {"b": Prior(0, 0.02, 0, 0, 0.02)})
    assert three.method == "a"
    assert three.guarantee == pytest.approx(1.6766 * error - 0.02 + 0.02, abs=1e-5)  # two share the 10%: t(49) of .95


def test_a_method_that_loses_by_more_than_its_error_is_no_choice_whatever_its_prior() -> None:
    hopeful = {"a": Prior(0.5, 0.001, 0, 0, 0.001)}
    lost = choose({NOTHING: first(100, 70), "a": first(100, 60)}, np.zeros(100, int), priors=hopeful)
    assert lost.gains["a"].expected > 0.4
    assert (lost.method, lost.guarantee) == (NOTHING, 0.0)
    assert "none of the rows is used" in lost.why
    even = choose({NOTHING: first(100, 70), "a": first(100, 69)}, np.zeros(100, int), priors=hopeful)
    assert even.method == "a"


def test_nothing_is_chosen_where_no_gain_is_expected() -> None:
    labels = np.zeros(100, int)
    assert choose({NOTHING: first(100, 70), "a": first(100, 70)}, labels, priors={"a": FLAT}).method == NOTHING
    likely = {"a": Prior(0.02, 0.03, 0, 0, 0.03)}
    assert choose({NOTHING: first(100, 70), "a": first(100, 70)}, labels, priors=likely).method == NOTHING
    assert choose({NOTHING: first(10, 7), "a": first(10, 7)}, labels[:10], priors=likely).method == "a", (
        "the prior's word"
    )


def test_where_the_llm_was_measured_its_lead_moves_the_expectation() -> None:
    prior = Prior(0.01, 0.05, 0.02, 0.5, 0.03)
    assert prior.expected(None) == (0.01, 0.05)
    assert prior.expected(-0.2) == pytest.approx((-0.08, 0.03))
    assert prior.expected(0.4) == prior.expected(0.1) == pytest.approx((0.07, 0.03))
    hits, labels = {NOTHING: first(100, 70), "a": first(100, 70)}, np.zeros(100, int)
    chosen = [choose(hits, labels, edge=edge, priors={"a": prior}).method for edge in (-0.2, 0.1)]
    assert chosen == [NOTHING, "a"]


def test_rows_of_one_patient_are_no_further_evidence() -> None:
    """Twenty patients decide nothing, however often each of their notes stands there again."""
    gold = np.arange(20) % 2
    hits = {NOTHING: first(20, 12), "a": first(20, 9) | ~first(20, 14)}  # 12 and 15 right
    once = choose(hits, gold, priors={"a": FLAT}).gains["a"]
    many = {m: np.repeat(h, 50) for m, h in hits.items()}
    patients = [f"p{i}" for i in np.repeat(np.arange(20), 50)]
    again = choose(many, np.repeat(gold, 50), groups=patients, priors={"a": FLAT})
    assert "1000 held-out rows of 20 groups" in again.why
    gain = again.gains["a"]
    assert gain.held_out == pytest.approx(once.held_out)
    assert gain.error**2 - 1 / 1_000**2 == pytest.approx(once.error**2 - 1 / 20**2)  # but for the added row
    rows = choose(many, np.repeat(gold, 50), priors={"a": FLAT}).gains["a"]
    assert rows.error < gain.error / 5, "what taking rows for patients would do"
    one = choose(many, np.repeat(gold, 50), groups=["p"] * 1000, priors={"a": FLAT}).gains["a"]
    assert (one.expected, one.sd) == pytest.approx((0, 0.04)), "one patient moves no expectation"


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_few_patients_have_a_wide_interval_however_alike_their_scores(patients: int) -> None:
    """Patients with equal shares of right rows look as if nothing varied; so few of them cannot tell."""
    right = np.tile([True, True, True, False], 30)
    groups = [f"p{i % patients}" for i in range(120)]
    share, low, high = choose({NOTHING: right}, np.zeros(120, int), groups=groups).accuracy  # type: ignore[misc]
    rows = choose({NOTHING: right}, np.zeros(120, int)).accuracy
    assert share == 0.75
    assert rows is not None
    assert (high - low) > (rows[2] - rows[1]), "no narrower than of as many rows of their own"
    assert (low, high) == (0, 1) or patients > 1, "one patient measures nothing"


@pytest.mark.parametrize("patients", [2, 3, 5])
def test_the_interval_of_few_patients_covers(patients: int) -> None:
    """Patients differ in their share of right rows, .7 on average; each has 20 rows."""
    rng, held = np.random.default_rng(0), 0
    groups = np.repeat([f"p{i}" for i in range(patients)], 20).tolist()
    for _ in range(200):
        right = rng.random((patients, 20)) < rng.beta(7, 3, patients)[:, None]
        accuracy = choose({NOTHING: right.ravel()}, np.zeros(20 * patients, int), groups=groups).accuracy
        held += accuracy[1] <= 0.7 <= accuracy[2]  # type: ignore[index]
    assert held >= 187, "95% less two standard errors, of 200"


def test_singletons_have_the_error_of_independent_rows() -> None:
    rng = np.random.default_rng(0)
    gold = np.zeros(90, dtype=int)
    hits = {NOTHING: rng.random(90) < 0.7, "a": rng.random(90) < 0.8}
    gain = hits["a"].astype(float) - hits[NOTHING]
    expected = np.sqrt(gain.var(ddof=1) / 90 + 1 / 90**2)
    for groups in (None, [None] * 90, [str(i) for i in range(90)]):
        assert choose(hits, gold, groups=groups, priors={"a": FLAT}).gains["a"].error == pytest.approx(expected)


def test_the_guarantee_holds_where_few_rows_are_lost() -> None:
    """Exact: each row is lost with a small probability and none is gained, so that often no loss is seen at all.

    Without the row that is added the guarantee would be broken with probability 27%.
    """
    n, hopeful = 200, {"a": Prior(0.2, 0.02, 0, 0, 0.02)}
    seen = [
        choose({NOTHING: first(n, 150), "a": first(n, 150 - lost)}, np.zeros(n, int), priors=hopeful)
        for lost in range(12)
    ]
    promised = np.array([1.0 if choice.method == NOTHING else choice.guarantee for choice in seen])
    assert promised[0] < 0.012
    true_loss = np.linspace(0.0005, 0.05, 400)[:, None]
    broken = (binom.pmf(np.arange(12), n, true_loss) * (true_loss > promised)).sum(axis=1)
    assert 0.05 < broken.max() <= 0.105


@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_the_guarantee_holds(loss: float) -> None:
    """A method that gains in a tenth of rows and loses in a tenth and more is chosen by its prior, and may be worse."""
    rng, broken, widths = np.random.default_rng(0), [], []
    for _ in range(400):
        luck, base = rng.random(80), rng.random(80) < 0.7
        hits = np.where(luck < 0.1, True, np.where(luck > 0.9 - 1.4 * loss, False, base))  # .03 + .7 x .04 lost
        choice = choose({NOTHING: base, "a": hits}, np.zeros(80, int), priors={"a": Prior(0.2, 0.02, 0, 0, 0.02)})
        true_gain = 0.1 * 0.3 - (0.1 + 1.4 * loss) * 0.7
        if choice.method == "a":
            widths.append(choice.guarantee)
        broken.append(choice.method == "a" and true_gain < -choice.guarantee)  # type: ignore[operator]
    assert np.mean(broken) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)
    assert len(widths) > 50
    assert 0.03 < np.mean(widths) < 0.12


def test_where_nothing_could_be_held_out_priors_decide_and_say_so() -> None:
    choice = unmeasured({"a": Prior(0.02, 0.03, 0, 0, 0.03), "b": Prior(0.02, 0.09, 0, 0, 0.09)}, 0.3)
    assert choice.method == "a", "the surer one of two that promise the same"
    assert choice.guarantee is None
    assert choice.accuracy is None
    assert "only 30% of the rows" in choice.why
    assert "hf-synth generate" in choice.why
    assert choice.figures()["auto_measured"] is False
    assert "auto_loss_at_most" not in choice.figures()
    assert json.loads(json.dumps(choice.figures()))["auto_gains"]["a"][:2] == [None, None]
    assert unmeasured({"a": Prior(0.01, 0.06, 0, 0, 0.06)}, 0.3).method == NOTHING


def test_candidates_need_what_they_rest_on() -> None:
    _, rows, learn = problem(n=90, m=30)
    assert set(choose_method(rows, learn).scores) == {NOTHING, "blend", "posterior"}
    given = {"llm_label": rows.meant, "pred_probs": np.full((90, 3), 1 / 3), "gold_label": rows.truth}
    told = annotated(given, 0.6)
    measured = choose_method(replace(rows, annotations=told), learn)
    assert set(measured.scores) == {NOTHING, "blend", "posterior", "measured", "loss_rank"}
    other = [Annotations(a.names[1:], a.labels[:, 1:]) for a in told]  # of an LLM that did not write the rows
    assert set(choose_method(replace(rows, annotations=(other[0], other[1])), learn).scores) == {
        NOTHING, "blend", "posterior", "measured"
    }  # fmt: skip


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
    choice = choose_method(marked, watching, methods=())
    assert "120 held-out rows of 25 groups" in choice.why
    assert len(seen) == 5
    assert not any(trained & held for trained, held in seen)
    held = [patient for _, those in seen for patient in those]
    assert len(held) == len(set(held))


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
    assert NOTHING in choice.scores
    right = {m: float(np.mean(decide(rows, learn, m)[1].label == truth)) for m in ("argmax", choice.method)}
    assert right["argmax"] < 0.85
    assert right[choice.method] >= 0.89


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


def test_audited_rows_are_all_held_out_where_gold_has_few_groups() -> None:
    truth, rows, learn = problem()
    few = replace(rows, groups=[str(i // 3 % 3) for i in range(len(rows.truth))])
    choice = choose_method(replace(few, audited={i: int(truth[i]) for i in range(240)}), learn, methods=("posterior",))
    assert choice.scores["posterior"] > 0.75  # rows that no fold holds out would count as missed: two in five


def written_from(gold: np.ndarray, seed: int, each: int, k: int) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Return features of gold that tell nothing of its label, features of rows like it, and their exemplars."""
    rng = np.random.default_rng(seed)
    x_gold = rng.normal(size=(len(gold), 40))
    source = np.repeat(np.arange(len(gold)), each)
    return x_gold, x_gold[source] + 0.3 * rng.normal(size=(len(source), 40)), [[f"g{i}"] for i in source]


def test_audited_rows_are_held_out_with_the_gold_that_they_were_written_from() -> None:
    """Labels are coin flips; an audited row says what its exemplar and siblings say: these must not train with it."""
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 3, 60)
        x_gold, x_rows, seeds = written_from(truth, seed, 5, 3)
        meant = np.repeat(truth, 5)
        ids = [f"g{i}" for i in range(60)]
        traced = lineage(ids, None, truth, seeds)
        audited = {int(i): int(meant[i]) for i in rng.permutation(300)[:120]}
        rows = Rows(meant, truth, None, 3, audited, lineage=traced)
        choice = choose_method(rows, linear_learner(x_gold, x_rows, truth, 3), methods=("none",), seed=seed)
        assert choice.accuracy is not None
        shares += [choice.accuracy[0], choice.scores["none"]]
    assert np.mean(shares) < 0.43  # .67 with siblings in training


def test_a_recorded_fold_that_holds_all_gold_measures_nothing() -> None:
    _, rows, learn = problem(0, n=40, m=20)
    one = lineage([f"g{i}" for i in range(20)], None, rows.truth, [[f"g{i % 20}"] for i in range(40)], [2] * 40)
    assert one.folds == 1
    choice = choose_method(replace(rows, lineage=one), learn)
    assert choice.guarantee is None
    assert "cannot be measured" in choice.why


def test_llm_and_gold_only_are_compared_on_the_rows_that_the_llm_answered() -> None:
    rows = problem(0, n=90, m=60)[1]
    own = np.where(np.arange(60) < 20, rows.truth, -1)  # always right, on a third of gold
    both = Annotations(("llm_label",), own[:, None]), Annotations(("llm_label",), rows.meant[:, None])
    hits = np.where(np.arange(60) < 20, 1.0, 0.0)
    assert _lead_over_gold(replace(rows, annotations=both), hits) == pytest.approx(0.0)
