"""The choice of a method: gains over gold only, their errors and the guarantee, on held-out rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.corrections import problem

from hf_synth.correction.choice import NOTHING, choose, choose_method
from hf_synth.correction.crossfit import Rows, decide
from hf_synth.models.linear import linear_learner, text_features


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
    choice = choose_method(replace(few, audited={i: int(truth[i]) for i in range(240)}), learn, methods=("none",))
    assert choice.scores["none"] > 0.75  # rows that no fold holds out would count as missed: two in five
