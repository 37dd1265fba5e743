"""Scores of target texts: closed sets of targets, targets that are tables, several right ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from support.tiny import toy_task

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.baselines import frequency_baseline
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import score, truth
from hf_synth.task.task import Task

RELATION = Task(name="r", kind="text2text", text_columns=("input",), label_column="target", labels=(),
                targets=("direct", "not relevant", "neither"))  # fmt: skip


def test_targets_of_a_closed_set_have_one_spelling_and_a_macro_f1() -> None:
    true = ["not relevant", "not_relevant", "direct", "direct"]
    said = ["Not Relevant", "not_relevant.", "Direct", "a long story"]
    scores = score(RELATION, said, true, n_bootstrap=0)
    assert scores.values["exact_match"] == 3 / 4
    assert scores.values["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)  # "neither" neither occurs nor is said
    many = score(RELATION, said * 10, true * 10, [f"p{i}" for i in range(40)])
    assert "macro_f1" not in score(replace(RELATION, metrics=("exact_match",)), said, true).values
    assert many.no_interval["macro_f1"] == "too few rows of 'neither': 0, and 5 are needed"
    true, said = [*true, "neither"] * 10, [*said, "neither"] * 10
    whole = score(RELATION, said, true, [f"p{i}" for i in range(50)])
    low, high = whole.ci95["macro_f1"]
    assert whole.values["macro_f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert 0.7 < low < whole.values["macro_f1"] < high < 1
    with pytest.raises(HfSynthError, match="are of texts"):
        compare(whole, whole)


def test_targets_that_fold_alike_are_told_apart() -> None:
    task = replace(RELATION, targets=("+", "-"))
    assert score(task, ["+", "-"], ["+", "+"], n_bootstrap=0).values["macro_f1"] == pytest.approx(1 / 3)


def test_fields_of_entries_have_the_challenges_f_measures() -> None:
    task = replace(RELATION, targets=(), target_fields=("m", "do", "f"))
    true = ["aspirin | 81 mg | daily\ntea | nm | nm", "milk | nm | daily"]
    said = ["Aspirin | 81  mg | nm\ncoffee | 81 mg | daily", ""]
    scores = score(task, said, true, n_bootstrap=10)
    assert scores.values["vertical_phrase_f1_m"] == pytest.approx(2 * 1 / (3 + 2))
    assert scores.values["vertical_phrase_f1_do"] == pytest.approx(2 * 1 / (1 + 2))
    assert scores.values["vertical_phrase_f1_f"] == pytest.approx(2 * 1 / (2 + 1))
    # "daily" is right by itself, not in the entry of coffee
    assert scores.values["horizontal_phrase_f1"] == pytest.approx(2 * 2 / (6 + 5))
    assert "not measured" in scores.no_interval["horizontal_phrase_f1"]
    assert score(task, true, true, n_bootstrap=0).values["horizontal_phrase_f1"] == 1


def test_the_best_of_several_right_targets_counts() -> None:
    task = replace(RELATION, targets=(), several_targets=True)
    rows = Dataset.from_dict({"input": ["a", "b"], "target": ["81 mg", "tea"], "other_targets": [["81 mg daily"], []]})
    assert truth(task, rows) == [["81 mg", "81 mg daily"], ["tea"]]
    assert score(task, ["81 mg daily", "milk"], truth(task, rows), n_bootstrap=0).values["exact_match"] == 1 / 2
    assert truth(task, rows.remove_columns("other_targets")) == ["81 mg", "tea"]
    assert frequency_baseline(task, rows, rows, n_bootstrap=0).values["exact_match"] == 1 / 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_of_a_model_that_diverged_have_no_score(bad: float) -> None:
    probs = np.full((6, 3), 1 / 3)
    probs[2, 1] = bad
    with pytest.raises(ColumnError, match="1 of 6 rows have a prediction that is no finite number"):
        score(toy_task(), probs, np.arange(6) % 3)
