"""Scores: equal to scikit-learn, intervals over groups, paired comparison, nothing lost in JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation import METRICS, Scores, compare, metric, score
from hf_synth.task import Task

TASK = Task.from_columns("toy", text_columns="text", label_column="label", labels=list("abcd"), access="open")


def random_rows(n: int, seed: int, skill: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, size=n, p=[0.6, 0.2, 0.15, 0.05])
    probs = rng.dirichlet(np.ones(4), size=n) * (1 - skill) + skill * np.eye(4)[truth]
    return truth, probs.astype(np.float32)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_equal_to_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, said = np.array(pairs).T
    values = score(TASK, said, truth, n_bootstrap=0).values
    expected = {
        "accuracy": sk.accuracy_score(truth, said),
        "macro_f1": sk.f1_score(truth, said, average="macro", zero_division=0),
        "micro_f1": sk.f1_score(truth, said, average="micro", zero_division=0),
        "weighted_f1": sk.f1_score(truth, said, average="weighted", zero_division=0),
        "mcc": sk.matthews_corrcoef(truth, said),
    }
    often = [label for label in range(4) if (truth == label).sum() >= 10]
    if often:
        expected["macro_f1_min10"] = sk.f1_score(truth, said, labels=often, average="macro", zero_division=0)
    assert values == pytest.approx(expected, abs=1e-12)


def test_per_class_and_confusion_equal_scikit_learn() -> None:
    truth, probs = random_rows(300, 1)
    scores = score(TASK, probs, truth, n_bootstrap=0)
    report = sk.classification_report(truth, probs.argmax(1), target_names=TASK.labels, output_dict=True)
    assert scores.confusion == sk.confusion_matrix(truth, probs.argmax(1)).tolist()
    for label in TASK.labels:
        found = scores.per_class[label]
        told = report[label]
        assert [found["precision"], found["recall"], found["f1"], found["support"]] == pytest.approx(
            [told["precision"], told["recall"], told["f1-score"], told["support"]]
        )


def test_ece_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    truth, probs = random_rows(500, 2)
    confidence, right = probs.max(1).astype(float), probs.argmax(1) == truth
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert score(TASK, probs, truth, n_bootstrap=0).values["ece"] == pytest.approx(expected, abs=1e-3)
    sure = np.eye(4, dtype=np.float32)[truth]
    assert score(TASK, sure, truth, n_bootstrap=0).values["ece"] == 0


def test_bootstrap_is_fast_seeded_and_covers_the_value() -> None:
    truth, probs = random_rows(1000, 3)
    started = time.perf_counter()
    scores = score(TASK, probs, truth)
    assert time.perf_counter() - started < 1
    assert scores == score(TASK, probs, truth)
    assert scores.ci95 != score(TASK, probs, truth, seed=1).ci95
    for name in set(scores.values) - {"ece"}:  # resampling adds noise to every bin: its interval lies higher
        low, high = scores.ci95[name]
        assert low < scores.values[name] < high
    half_width = (scores.ci95["accuracy"][1] - scores.ci95["accuracy"][0]) / 2
    p = scores.values["accuracy"]
    assert half_width == pytest.approx(1.96 * (p * (1 - p) / 1000) ** 0.5, rel=0.1)


def test_intervals_are_wider_when_rows_come_in_groups() -> None:
    truth, probs = random_rows(200, 4)
    truth, probs = np.repeat(truth, 5), np.repeat(probs, 5, axis=0)
    groups = [f"patient {i // 5}" for i in range(1000)]
    alone, together = score(TASK, probs, truth), score(TASK, probs, truth, groups)
    width = {name: s.ci95["accuracy"][1] - s.ci95["accuracy"][0] for name, s in (("a", alone), ("t", together))}
    assert width["t"] == pytest.approx(width["a"] * 5**0.5, rel=0.15)
    assert alone.values == together.values


def test_paired_comparison_sees_what_single_intervals_hide() -> None:
    truth, probs = random_rows(600, 5)
    better = probs.argmax(1)
    wrong = np.flatnonzero(better != truth)[:25]
    better[wrong] = truth[wrong]
    a, b = score(TASK, better, truth), score(TASK, probs, truth)
    difference = compare(a, b, "accuracy")
    assert 0 <= difference.p_mcnemar <= 1
    assert difference.value == pytest.approx(25 / 600)
    assert difference.ci95[0] > 0
    assert a.ci95["accuracy"][0] < b.ci95["accuracy"][1]  # the single intervals overlap
    assert compare(a, a).value == 0
    assert compare(a, a).p_mcnemar == 1
    assert compare(a, a).ci95 == (0, 0)


def test_comparison_refuses_other_rows() -> None:
    truth, probs = random_rows(50, 6)
    a = score(TASK, probs, truth)
    with pytest.raises(HfSynthError, match="same rows"):
        compare(a, score(TASK, probs[::-1], truth[::-1]))
    with pytest.raises(HfSynthError, match="without their rows"):
        compare(a, Scores.from_json(a.to_json()))
    with pytest.raises(HfSynthError, match="choose one of"):
        compare(a, a, "bleu")


def test_json_round_trip() -> None:
    truth, probs = random_rows(80, 7)
    scores = score(TASK, probs, truth, [i // 2 for i in range(80)])
    assert Scores.from_json(json.loads(json.dumps(scores.to_json(rows=True)))) == scores
    bare = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert (bare.values, bare.ci95, bare.per_class) == (scores.values, scores.ci95, scores.per_class)
    assert bare.predictions == ()
    with pytest.raises(HfSynthError, match="no scores"):
        Scores.from_json({"n": 3})


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [([0, 1], [0]), ([], []), ([0, 4], [0, 1]), ([0, -1], [0, 1]), (np.ones((2, 3)) / 3, [0, 1])],
)
def test_shapes_that_do_not_fit_are_one_sentence(predicted: Any, labels: list[int]) -> None:
    with pytest.raises(ColumnError):
        score(TASK, np.array(predicted), labels)


def test_evaluate_metrics_work_offline_and_agree() -> None:
    import evaluate

    truth, probs = random_rows(120, 8)
    values = score(TASK, probs, truth, n_bootstrap=0).values
    for name in METRICS:
        module = metric(name)
        assert isinstance(module, evaluate.EvaluationModule)
        said = probs if name == "ece" else probs.argmax(1)
        assert module.compute(predictions=said, references=truth)[name] == pytest.approx(values[name], abs=1e-6)
    both = evaluate.combine([metric("accuracy"), metric("macro_f1")])
    found = both.compute(predictions=probs.argmax(1), references=truth)
    assert found == pytest.approx({name: values[name] for name in ("accuracy", "macro_f1")})
    with pytest.raises(HfSynthError, match="no metric"):
        metric("bleu")
