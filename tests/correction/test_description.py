"""`describe` agrees with the columns."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from datasets import Dataset

from hf_synth import Task
from hf_synth.correction.description import describe
from hf_synth.correction.fitting import fit
from hf_synth.correction.policy import Policy
from hf_synth.errors import ColumnError

TASK = Task.from_columns("triage", text_columns="text", label_column="urgency", labels=["low", "mid", "high"])


def rows(meant: list[int], now: list[int | None], status: list[str], weight: list[float]) -> Dataset:
    kept = {"kept": "agrees", "relabelled": "posterior", "dropped": "label_issue", "rejected": "refusal"}
    columns = {
        "id": [str(i) for i in range(len(meant))], "text": ["CANARY-7731 note"] * len(meant), "llm_label": meant,
        "urgency": now, "label_status": status, "reason": [kept[s] for s in status], "weight": weight,
        "label_confidence": [0.75] * len(meant),
    }  # fmt: skip
    features = {k: v for k, v in TASK.corrected_features().items() if k in columns}
    from datasets import Features

    return Dataset.from_dict(columns, features=Features(features))


def test_counts_follow_from_the_columns() -> None:
    data = rows(
        [0, 0, 1, 2, 2, 0], [0, 1, 1, 2, 0, None],
        ["kept", "relabelled", "kept", "dropped", "relabelled", "rejected"], [1, 0.5, 1, 0, 1, 0],
    )  # fmt: skip
    told = describe(data)
    assert told.statuses == {"kept": 2, "relabelled": 2, "dropped": 1, "rejected": 1}
    assert told.labels["low"] == {"meant": 2, "kept": 1, "relabelled": 1, "dropped": 0, "came": 1, "now": 2}
    assert told.labels["high"] == {"meant": 2, "kept": 0, "relabelled": 1, "dropped": 1, "came": 0, "now": 0}
    assert told.moved == ((1, 1, 0), (0, 1, 0), (1, 0, 0))
    assert told.lost == ("high",)
    assert told.weight == 3.5
    assert told.confidence == 0.75
    assert "no row is left of these labels that the generator wrote: high: label more gold" in str(told)
    assert "CANARY" not in str(told) + json.dumps(told.to_json())


def test_a_policy_is_told_with_its_figures() -> None:
    figures = {"gold_rows": 40, "generator_accuracy_bounds": [0.5, 0.9], "auto_scores": {"none": 1}}
    policy = Policy("posterior", 3, figures=figures, warnings=("40 gold rows are few",))
    told = describe(rows([0], [0], ["kept"], [1.0]), policy)
    assert told.policy == policy.to_json() == describe(rows([0], [0], ["kept"], [1.0]), policy.to_json()).policy
    assert "gold rows" in str(told)
    assert "0.5 to 0.9" in str(told)
    assert "auto scores" not in str(told)
    assert told.warnings == ("40 gold rows are few",)


def test_gold_cannot_be_described() -> None:
    with pytest.raises(ColumnError, match="label_status"):
        describe(Dataset.from_dict({"text": ["x"], "urgency": [0]}))


def test_many_rows_are_described_in_little_time() -> None:
    n = 20_000
    many = rows([0, 1] * (n // 2), [0, 1] * (n // 2), ["kept"] * n, [1.0] * n)
    started = time.process_time()
    assert describe(many).weight == n
    assert time.process_time() - started < 5  # a look into the dataset for each row takes twenty


def test_a_corrector_that_guesses_is_said_first() -> None:
    truth = np.array([0, 1, 2] * 10)
    guessing = np.tile([0.4, 0.35, 0.25], (30, 1))  # always the first label
    policy = fit("argmax", pred_probs=guessing, gold_probs=guessing, llm_label=truth, gold_label=truth)
    low, high = policy.figures["corrector_balanced_accuracy_on_held_out_gold_ci95"]
    assert low < 1 / 3 < high
    found = describe(rows([0, 1, 2], [0, 0, 0], ["kept", "relabelled", "relabelled"], [1, 1, 1]), policy.to_json())
    guess, never, lost = found.doubts
    assert guess.startswith(
        "the corrector cannot be told from guessing on held-out gold: balanced accuracy 0.33 (95% CI"
    )
    assert never == "the corrector finds no held-out gold row of mid (0 of 10), high (0 of 10): label more gold of it"
    assert "no row is left of these labels that the generator wrote: mid, high" in lost
    assert found.warnings[-3:] == found.doubts
    right = np.eye(3)[truth] * 0.85 + 0.05
    good = fit("argmax", pred_probs=right, gold_probs=right, llm_label=truth, gold_label=truth)
    assert describe(rows([0, 1, 2], [0, 1, 2], ["kept"] * 3, [1.0] * 3), good).doubts == ()
    kept = fit("none", pred_probs=guessing, gold_probs=guessing, llm_label=truth, gold_label=truth)
    all_labels = rows([0, 1, 2], [0, 1, 2], ["kept"] * 3, [1.0] * 3)
    assert describe(all_labels, kept).doubts == (), "the corrector plays no part"


def test_each_label_of_a_set_has_a_corrector_that_may_guess() -> None:
    name = "corrector_balanced_accuracy_on_held_out_gold"
    good = {name: 0.9, f"{name}_ci95": [0.8, 1.0], "corrector_found_on_held_out_gold": {"0": [9, 9], "1": [8, 9]}}
    weak = {name: 0.5, f"{name}_ci95": [0.4, 0.6], "corrector_found_on_held_out_gold": {"0": [9, 9], "1": [0, 3]}}
    plain = {"method": "posterior", "figures": {"labels": {"low": good, "mid": weak}}, "corrector": "judge m"}
    guess, never = describe(rows([0], [0], ["kept"], [1.0]), plain).doubts
    assert guess == (
        "the corrector cannot be told from guessing on held-out gold for mid: label more gold, or ask another judge "
        "(--judge)"
    )
    assert never == "the corrector finds no held-out gold row of mid (0 of 3): label more gold of it"


def test_a_label_of_gold_that_nobody_wrote_is_named() -> None:
    plain = {"method": "agree", "figures": {"corrector_found_on_held_out_gold": {"0": [3, 4], "2": [4, 5]}}}
    (doubt,) = describe(rows([0], [0], ["kept"], [1.0]), plain).doubts
    assert doubt == "gold has these labels and no synthetic row does: high: generate notes of them"
    assert describe(rows([0, 2], [0, 2], ["kept", "kept"], [1.0, 1.0]), plain).doubts == ()


@pytest.mark.parametrize("figures", [
    None, [], {"labels": ["x"]}, {"labels": {"low": 3}},
    {"corrector_found_on_held_out_gold": {"9": [0, 4], "x": [1], "0": "ab", "1": [None, 2], "2": [0, math.nan]}},
    {"corrector_found_on_held_out_gold": [1], "corrector_balanced_accuracy_on_held_out_gold": "high"},
])  # fmt: skip
def test_figures_of_another_form_are_not_there(figures: object) -> None:
    found = describe(rows([0], [0], ["kept"], [1.0]), {"method": "posterior", "figures": figures, "corrector": 3})
    assert found.doubts == ()


def test_a_rule_has_no_mean_confidence() -> None:
    sure = rows([0], [0], ["kept"], [1.0]).map(lambda _: {"label_confidence": 1.0})
    assert describe(sure).confidence is None


@pytest.mark.parametrize("policy", [
    {"figures": {}}, {"method": None}, {"method": "auto", "warnings": None, "figures": {}},
    {"method": "posterior", "warnings": [3]},
])  # fmt: skip
def test_a_policy_of_another_form_counts_as_not_known(policy: dict[str, object]) -> None:
    assert "Note: 3" not in str(describe(rows([0], [0], ["kept"], [1.0]), policy))


def test_a_method_in_use_is_not_advised_and_no_label_is_none() -> None:
    lost = rows([0, 1], [0, 0], ["kept", "relabelled"], [1.0, 1.0])
    assert "method none" not in describe(lost, {"method": "none"}).doubts[0]
    assert "method none" in describe(lost, {"method": "argmax"}).doubts[0]
    unlabelled = rows([0, -1], [0, -1], ["kept", "kept"], [1.0, 1.0])
    assert describe(unlabelled).labels["high"]["meant"] == 0
