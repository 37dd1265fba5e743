"""Scores: equal to scikit-learn, intervals over groups, paired comparison, nothing lost in JSON."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import Scores, score
from hf_synth.evaluation.metric_modules import METRICS, metric
from hf_synth.evaluation.metrics import rank_values
from hf_synth.evaluation.scoring import prepare
from hf_synth.evaluation.statistics import wilson
from hf_synth.models.text2text import TEXT_METRICS
from hf_synth.task.task import Task

TASK = Task.from_columns("toy", text_columns="text", label_column="label", labels=list("abcd"), access="open")


def random_rows(n: int, seed: int, skill: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, size=n, p=[0.6, 0.2, 0.15, 0.05])
    probs = rng.dirichlet(np.ones(4), size=n) * (1 - skill) + skill * np.eye(4)[truth]
    return truth, probs.astype(np.float32)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_equal_to_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, said = np.array(pairs).T
    values = score(TASK, said, truth, n_bootstrap=0).values
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, said, average="macro", zero_division=0)
    expected = {
        "accuracy": sk.accuracy_score(truth, said),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "micro_f1": sk.f1_score(truth, said, average="micro", zero_division=0),
        "weighted_f1": sk.f1_score(truth, said, average="weighted", zero_division=0),
        "mcc": sk.matthews_corrcoef(truth, said),
    }
    often = [label for label in range(4) if (truth == label).sum() >= 10]
    if often:
        expected["macro_f1_min10"] = sk.f1_score(truth, said, labels=often, average="macro", zero_division=0)
    assert values == pytest.approx(expected, abs=1e-12)


# probabilities of few different values: many ties; some labels absent
few_values = st.integers(0, 5)
ranked_rows = st.lists(st.tuples(st.integers(0, 3), *[few_values] * 4), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(ranked_rows)
def test_ranks_equal_scikit_learn_with_ties_and_absent_labels(rows: list[tuple[int, ...]]) -> None:
    table = np.array(rows)
    truth, probs = table[:, 0], (table[:, 1:] + 0.5) / (table[:, 1:] + 0.5).sum(1, keepdims=True)
    scores = score(TASK, probs, truth, n_bootstrap=0)
    aucs, precisions = [], []
    for label in range(4):
        has = truth == label
        if has.any():
            precisions.append(sk.average_precision_score(has, probs[:, label]))
        if has.any() and not has.all():
            aucs.append(sk.roc_auc_score(has, probs[:, label]))
            told = scores.per_class[TASK.labels[label]]
            assert (told["auroc"], told["auprc"]) == pytest.approx((aucs[-1], precisions[-1]))
    assert scores.values["auprc"] == pytest.approx(np.mean(precisions))
    assert scores.values.get("auroc", -1) == pytest.approx(np.mean(aucs) if aucs else -1)
    if len(set(truth)) == 4:
        assert scores.values["auroc"] == pytest.approx(sk.roc_auc_score(truth, probs, multi_class="ovr"))


def test_two_labels_are_ranked_by_the_second() -> None:
    task = Task.from_columns("two", text_columns="text", label_column="label", labels=["no", "yes"], access="open")
    rng = np.random.default_rng(0)
    truth, p = rng.integers(2, size=200), rng.random(200).round(1)
    values = score(task, np.column_stack([1 - p, p]), truth, n_bootstrap=0).values
    expected = (sk.roc_auc_score(truth, p), sk.average_precision_score(truth, p))
    assert (values["auroc"], values["auprc"]) == pytest.approx(expected)


@pytest.mark.parametrize("digits", [1, 8])
def test_effects_of_rows_on_ranks_are_derivatives_by_their_weights(digits: int) -> None:
    """With one digit there are many ties."""
    rng = np.random.default_rng(11)
    scores, positive = rng.random(50).round(digits), rng.random(50) < 0.4
    ranks = rank_values(scores, positive)
    assert (ranks.auroc_effects.sum(), ranks.auprc_effects.sum()) == pytest.approx((0, 0), abs=1e-12)
    for row in range(10):
        weights = np.ones(50)
        weights[row] += 1e-5
        auroc = sk.roc_auc_score(positive, scores, sample_weight=weights)
        auprc = sk.average_precision_score(positive, scores, sample_weight=weights)
        assert (auroc - ranks.auroc) / 1e-5 == pytest.approx(ranks.auroc_effects[row], abs=1e-5)
        assert (auprc - ranks.auprc) / 1e-5 == pytest.approx(ranks.auprc_effects[row], abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.tuples(st.booleans(), st.integers(0, 4), st.booleans())] * 3), min_size=2, max_size=25
    ).filter(lambda rows: any(known for row in rows for _, _, known in row))
)
def test_sets_of_labels_leave_out_what_nobody_judged(rows: list[Any]) -> None:
    """Each label's scores are scikit-learn's on the rows that were judged; scores of other labels do not matter."""
    task = Task.from_columns(
        "sets", text_columns="text", label_column="labels", labels=list("xyz"), kind="multi_label", access="open"
    )
    table = np.array(rows, dtype=float)
    judged = table[:, :, 2] > 0
    truth, probs = (table[:, :, 0] > 0) & judged, table[:, :, 1] / 4 + 0.01
    scores = score(task, probs, truth, judged=judged, n_bootstrap=20)
    f1s = []
    for i, label in enumerate(task.labels):
        known, told = judged[:, i], scores.per_class[label]
        assert (told["support"], told["judged"]) == (truth[known, i].sum(), known.sum())
        if known.any():
            f1s.append(sk.f1_score(truth[known, i], probs[known, i] > 0.5, zero_division=0))
            assert told["f1"] == pytest.approx(f1s[-1])
        if 0 < truth[known, i].sum() < known.sum():
            assert told["auroc"] == pytest.approx(sk.roc_auc_score(truth[known, i], probs[known, i]))
    assert scores.values["macro_f1"] == pytest.approx(np.mean(f1s))
    exact = [(t[j] == (p[j] > 0.5)).all() for t, p, j in zip(truth, probs, judged, strict=True) if j.any()]
    assert scores.values["accuracy"] == pytest.approx(np.mean(exact))
    probs[~judged] = 0.9 if probs[judged].min() < 0.5 else 0.1
    other = score(task, probs, truth, judged=judged, n_bootstrap=0).values
    assert other == pytest.approx(scores.values)
    with pytest.raises(ColumnError, match="was judged"):
        score(task, probs, truth, judged=np.zeros_like(judged))


def test_a_patient_has_the_worst_grade_of_their_notes() -> None:
    task = replace(TASK, metrics=("macro_f1", "patient_macro_f1"))
    rng = np.random.default_rng(5)
    truth, said, patients = (
        rng.integers(4, size=240),
        rng.integers(4, size=240),
        rng.integers(150, size=240).astype(str),
    )
    scores = score(task, said, truth, list(patients))
    worst = [(truth[patients == p].max(), said[patients == p].max()) for p in sorted(set(patients))]
    expected = sk.f1_score(*np.array(worst).T, average="macro", zero_division=0)
    assert scores.values["patient_macro_f1"] == pytest.approx(expected)
    assert scores.values["patient_accuracy"] == pytest.approx(np.mean([t == s for t, s in worst]))
    low, high = scores.ci95["patient_macro_f1"]
    assert low < expected < high
    assert "patient_macro_f1" not in score(task, said, truth).values  # nothing says who is whose
    assert "patient_macro_f1" not in score(TASK, said, truth, list(patients)).values  # labels of no order
    better = score(task, truth, truth, list(patients))
    assert compare(better, scores, "patient_macro_f1").ci95[0] > 0


def simulated_patients(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two labels, the same for the 4 notes of a patient; some patients are harder than others."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(2, size=patients), 4)
    lean = np.repeat(rng.normal(0, 1.2, size=patients), 4) + rng.normal(0, 0.4, size=4 * patients)
    p = 1 / (1 + np.exp(-(lean + 2 * truth - 1)))
    return truth, np.column_stack([1 - p, p])


def test_intervals_of_clustered_rows_cover_at_their_rate() -> None:
    """300 simulated test sets of 40 patients whose 4 notes are alike: 95% intervals over patients hold the truth.

    3 standard errors of the simulation are 3.8 points around .95 to .96. Intervals over rows, which take them for
    independent, fail, as 75 of the sets show.
    """
    task = Task.from_columns("two", text_columns="text", label_column="label", labels=["no", "yes"], access="open")
    truth, probs = simulated_patients(100_000, 999)
    worth = score(task, probs, truth, n_bootstrap=0).values
    names = ("accuracy", "macro_f1", "mcc", "weighted_f1", "auroc", "auprc")
    inside = {what: dict.fromkeys(names, 0) for what in ("patients", "rows")}
    for i in range(300):
        truth, probs = simulated_patients(40, i)
        for what, groups in (("patients", list(np.arange(160) // 4)), ("rows", None))[: 2 if i < 75 else 1]:
            limits = prepare(task, probs, truth, groups).ci95
            for name in names:
                inside[what][name] += limits[name][0] < worth[name] < limits[name][1]
    for name in names:
        assert 0.915 <= inside["patients"][name] / 300 <= 0.99, (name, inside)
        assert inside["rows"][name] / 75 < 0.85, (name, inside)


def right_rows(n: int, hits: int) -> Scores:
    truth = np.arange(n) % 4
    return score(TASK, np.where(np.arange(n) < hits, truth, (truth + 1) % 4), truth)


def test_the_interval_of_accuracy_covers_from_20_rows_on() -> None:
    """By the binomial distribution, without simulation: from .93 to .985 at every accuracy from .55 to .98."""
    shares = np.arange(55, 99)[:, None] / 100
    for n in (20, 30, 50, 100):
        hits = np.arange(n + 1)
        low, high = np.transpose([right_rows(n, h).ci95["accuracy"] for h in hits])
        often = np.array([[comb(n, h) * p**h * (1 - p) ** (n - h) for h in hits] for p in shares[:, 0]])
        coverage = (often * ((low <= shares) & (shares <= high))).sum(1)
        assert coverage.min() >= 0.93, (n, shares[coverage.argmin()])
        assert coverage.max() <= 0.985, (n, shares[coverage.argmax()])
        plain = np.transpose([wilson(int(h), n) for h in hits])
        of_wilson = often @ (plain[1] - plain[0])
        if n in (20, 50):
            assert (often * ((plain[0] <= shares) & (shares <= plain[1]))).sum(1).min() < 0.93
        assert ((often @ (high - low)) / of_wilson).max() <= 1.15


MATRICES = {
    "two labels, good": [[0.475, 0.025], [0.025, 0.475]],
    "skewed": [[0.55, 0.03, 0.02], [0.05, 0.2, 0.05], [0.03, 0.01, 0.06]],
    "five labels": (0.7 * np.eye(5) / 5 + 0.3 * (1 - np.eye(5)) / 20).tolist(),
}


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("name", MATRICES)
def test_the_interval_of_macro_f1_covers(name: str, n: int) -> None:
    """300 test sets of a known population; 3 standard errors around .93 and .985 are .885 and 1.006, so 2 are taken."""
    joint = np.array(MATRICES[name])
    k, rng = len(joint), np.random.default_rng(5)
    task = Task.from_columns("k", text_columns="text", label_column="label", labels=list("abcde")[:k], access="open")
    worth = np.mean(2 * np.diag(joint) / (joint.sum(0) + joint.sum(1)))
    inside, printed = 0, 0
    for _ in range(300):
        at = rng.choice(k * k, n, p=joint.ravel())
        limits = prepare(task, at % k, at // k).ci95.get("macro_f1")
        if limits is not None:
            printed += 1
            inside += limits[0] <= worth <= limits[1]
    assert printed >= 150
    assert 0.93 - 2 * 0.0147 <= inside / printed <= 0.985 + 2 * 0.007, inside / printed


def test_a_rare_class_has_no_interval_and_the_others_have_theirs() -> None:
    """One severe row, missed: draws without it would average over two labels, and the interval would reach .98."""
    truth = np.array([0] * 30 + [1] * 29 + [2])
    said = np.array([0] * 28 + [1] * 2 + [1] * 27 + [0] * 2 + [0])
    three = Task.from_columns("three", text_columns="t", label_column="l", labels=["no", "mild", "severe"])
    scores = score(three, said, truth)
    assert scores.no_interval["macro_f1"] == "too few rows of 'severe': 1, and 5 are needed"
    assert {"macro_f1", "macro_recall", "macro_precision"} <= set(scores.no_interval)
    assert not set(scores.no_interval) & set(scores.ci95)
    assert {"accuracy", "macro_f1_min10", "weighted_f1", "mcc"} <= set(scores.ci95)
    assert set(scores.class_ci95) == {"no", "mild"}
    low, high = scores.class_ci95["no"]["recall"]
    assert low < 28 / 30 < high
    better = score(three, truth, truth)
    assert compare(better, scores, "macro_f1").ci95 is None
    assert "severe" in compare(better, scores, "macro_f1").no_interval
    assert compare(better, scores, "accuracy").ci95 is not None


def test_rows_that_are_all_right_are_not_certain() -> None:
    """The percentile bootstrap said 1.000 to 1.000 for 20 of 20; Wilson says from .839."""
    scores = right_rows(20, 20)
    assert 0.80 <= scores.ci95["accuracy"][0] <= 0.84
    assert 0.75 <= scores.ci95["macro_f1"][0] <= 0.84
    assert scores.ci95["accuracy"][1] == scores.ci95["macro_f1"][1] == 1
    few = score(TASK, np.arange(20) % 4, np.arange(20) % 4, [f"p{i // 4}" for i in range(20)])
    assert few.ci95["accuracy"][0] < scores.ci95["accuracy"][0] - 0.1  # five patients tell less than 20


def test_intervals_of_labels_are_wilson_s_at_the_rows_that_are_counted() -> None:
    scores = right_rows(40, 33)
    recall, precision, f1 = (scores.class_ci95["a"][kind] for kind in ("recall", "precision", "f1"))
    n, q = 10, 2.06
    assert scores.per_class["a"]["recall"] == 0.9
    middle = (0.9 + q * q / n / 2) / (1 + q * q / n)
    half = q * (0.9 * 0.1 / n + (q / n) ** 2 / 4) ** 0.5 / (1 + q * q / n)
    assert recall == pytest.approx((middle - half, middle + half))
    assert precision[0] < scores.per_class["a"]["precision"] < precision[1]
    assert f1[0] < scores.per_class["a"]["f1"] < f1[1]


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


def test_intervals_are_fast_and_hold_the_value() -> None:
    truth, probs = random_rows(1000, 3)
    started = time.process_time()
    scores = score(TASK, probs, truth)
    assert time.process_time() - started < 1
    assert scores == score(TASK, probs, truth, n_bootstrap=5, seed=1)
    assert set(scores.values) == set(scores.ci95) | {"ece"}
    assert set(scores.no_interval) == {"ece"}
    for name, (low, high) in scores.ci95.items():
        assert low < scores.values[name] < high
    half_width = (scores.ci95["accuracy"][1] - scores.ci95["accuracy"][0]) / 2
    p = scores.values["accuracy"]
    assert half_width == pytest.approx(2.06 * (p * (1 - p) / 1000) ** 0.5, rel=0.01)
    bare = score(TASK, probs, truth, n_bootstrap=0)
    assert (bare.ci95, bare.class_ci95, bare.values) == ({}, {}, scores.values)


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
    low, high = compare(a, a, "accuracy").ci95
    assert -low == high == pytest.approx(1.96 * 1.6**0.5 / 601.6, rel=0.01)  # other rows may tell them apart


def test_the_interval_of_a_difference_is_bonett_and_price_s() -> None:
    """12 rows that only the first has right, 3 that only the second has, of 100; .8 of a row is added to each."""
    truth = np.arange(100) % 4
    wrong = (truth + 1) % 4
    first, second = np.where(np.arange(100) < 3, wrong, truth), np.where(np.arange(100) >= 88, wrong, truth)
    low, high = compare(score(TASK, first, truth), score(TASK, second, truth), "accuracy").ci95
    b, c, n = 12.8 / 101.6, 3.8 / 101.6, 101.6
    half = 1.96 * ((b + c - (b - c) ** 2) / n) ** 0.5
    assert (low, high) == pytest.approx((b - c - half, b - c + half), abs=5e-4)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.15, 0.15), (0.2, 0.1)])
def test_the_interval_of_a_difference_covers(only_a: float, only_b: float) -> None:
    """400 test sets of 50 rows, on which two models differ in 30% of the rows."""
    rng, inside = np.random.default_rng(8), dict.fromkeys(("accuracy", "macro_f1"), 0)
    two = Task.from_columns("two", text_columns="text", label_column="label", labels=["no", "yes"], access="open")
    for _ in range(400):
        truth, where = rng.integers(2, size=50), rng.random(50)
        first = np.where((where >= only_a) & (where < only_a + only_b), 1 - truth, truth)
        second = np.where(where < only_a, 1 - truth, truth)
        a, b = (score(two, said, truth, n_bootstrap=0) for said in (first, second))
        for name in inside:
            low, high = compare(a, b, name).ci95
            inside[name] += low <= only_a - only_b <= high
    for count in inside.values():
        assert 0.92 <= count / 400 <= 0.985


SETS = Task.from_columns("sets", text_columns="text", label_column="label", labels=["a", "b", "c"], kind="multi_label")


def two_models(kind: str, n: int = 300) -> tuple[Scores, Scores]:
    """Score a model and a better one on the same rows, three of a patient."""
    rng = np.random.default_rng(3)
    groups = [f"p{i // 3}" for i in range(n)]
    if kind == "labels":
        truth, probs = random_rows(n, 5)
        better = 0.7 * probs + 0.3 * np.eye(probs.shape[1])[truth]
        return (score(TASK, better, truth, groups, n_bootstrap=20), score(TASK, probs, truth, groups, n_bootstrap=20))
    sets = (rng.random((n, 3)) < 0.4).astype(int)
    judged = (rng.random((n, 3)) < 0.8).astype(int)
    probs = 0.6 * rng.random((n, 3)) + 0.4 * np.where(rng.random((n, 3)) < 0.7, sets, 1 - sets)
    better = 0.8 * probs + 0.2 * sets
    return (
        score(SETS, better, sets, groups, judged=judged, n_bootstrap=20),
        score(SETS, probs, sets, groups, judged=judged, n_bootstrap=20),
    )


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("labels", "auroc"), ("labels", "auprc"), ("labels", "ece"), ("labels", "mcc"), ("sets", "auroc"),
     ("sets", "auprc"), ("sets", "macro_f1"), ("sets", "accuracy")],
)  # fmt: skip
def test_every_metric_is_compared_in_pairs_of_patients(kind: str, metric: str) -> None:
    better, worse = two_models(kind)
    found = compare(better, worse, metric, n_bootstrap=300)
    assert found.value == better.values[metric] - worse.values[metric]
    same = compare(better, better, metric)
    if metric == "ece":
        assert (found.ci95, same.ci95) == (None, None)
        assert "calibration error" in found.no_interval
    else:
        low, high = found.ci95
        assert 0 < low < found.value < high
        assert compare(worse, better, metric).ci95 == pytest.approx((-high, -low))
        assert (same.value, same.no_interval) == (0, "")
        assert same.ci95[0] == pytest.approx(-same.ci95[1])
        assert 0 < same.ci95[1] < high - low
    read = [Scores.from_json(json.loads(json.dumps(s.to_json(rows=True)))) for s in (better, worse)]
    assert compare(*read, metric, n_bootstrap=300) == found
    assert found.p_mcnemar < 0.05


def test_a_metric_that_does_not_apply_is_one_sentence() -> None:
    truth, probs = random_rows(60, 6)
    from_labels, from_probs = score(TASK, probs.argmax(1), truth), score(TASK, probs, truth)
    with pytest.raises(HfSynthError, match="labels alone; score both from probabilities"):
        compare(from_labels, from_probs, "auroc")
    assert compare(from_labels, from_probs, "accuracy").value == 0
    better, _ = two_models("sets")
    with pytest.raises(HfSynthError, match="cannot compare by 'ece'"):
        compare(better, better, "ece")
    with pytest.raises(HfSynthError, match="choose one of accuracy"):
        compare(better, better, "mcc")
    with pytest.raises(HfSynthError, match="without their rows"):
        compare(better, Scores.from_json(better.to_json()), "auroc")


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
    assert (bare.class_ci95, bare.no_interval) == (scores.class_ci95, scores.no_interval)
    assert scores.class_ci95
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


def test_calibration_is_told_label_by_label() -> None:
    truth, probs = random_rows(200, 4)
    made = score(TASK, probs, truth)
    by = made.calibration["by_label"]
    assert sum(of["rows"] for of in by.values()) == 200
    assert sum(of["rows"] * of["accuracy"] for of in by.values()) / 200 == pytest.approx(made.values["accuracy"])
    rows = probs.argmax(1) == 0
    assert by[TASK.labels[0]]["confidence"] == pytest.approx(probs[rows, 0].mean())
    of_first = score(TASK, probs[rows], np.array(truth)[rows]).values["ece"]
    assert by[TASK.labels[0]]["ece"] == pytest.approx(of_first)  # one number of bins
    assert json.loads(json.dumps(made.to_json()))["calibration"]["by_label"] == by


def test_scores_of_an_earlier_version_are_read() -> None:
    truth, probs = random_rows(30, 9)
    old = score(TASK, probs, truth).to_json()
    for name in (
        "calibration",
        "labels",
        "predictions",
        "groups",
        "excluded",
        "bootstrap",
        "no_interval",
        "class_ci95",
    ):
        del old[name]
    read = Scores.from_json(old)
    assert read.values["accuracy"] == old["values"]["accuracy"]
    assert (read.calibration, read.excluded) == ({}, None)


def test_evaluate_metrics_work_offline_and_agree() -> None:
    import evaluate

    truth, probs = random_rows(120, 8)
    patients = [f"p{i // 4}" for i in range(120)]
    task = replace(TASK, metrics=("patient_macro_f1",))
    scores = score(task, probs, truth, patients, n_bootstrap=0)
    expected = scores.values | {"f1_per_class": [scores.per_class[label]["f1"] for label in TASK.labels]}
    of_labels = [name for name in METRICS if name not in TEXT_METRICS]
    assert set(of_labels) == set(expected)
    for name in of_labels:
        module = metric(name)
        assert isinstance(module, evaluate.EvaluationModule)
        given = {"predictions": probs, "references": truth}
        given |= {"groups": patients} if name.startswith("patient") else {}
        assert module.compute(**given)[name] == pytest.approx(expected[name], abs=1e-6)
    some = evaluate.combine([metric("accuracy"), metric("macro_f1"), metric("f1_per_class")])
    found = some.compute(predictions=probs.argmax(1), references=truth)
    assert found == {name: pytest.approx(expected[name]) for name in ("accuracy", "macro_f1", "f1_per_class")}
    everything = evaluate.combine([metric(name) for name in of_labels])  # of one table of probabilities
    found = everything.compute(predictions=probs, references=truth, groups=patients)
    assert found == {name: pytest.approx(value, abs=1e-6) for name, value in expected.items()}
    with pytest.raises(HfSynthError, match="no metric"):
        metric("bleu")


def test_evaluate_metrics_of_texts_agree_with_rouge_score() -> None:
    import evaluate
    from rouge_score.rouge_scorer import RougeScorer

    said = ["The patient is sore.", "no cough at all", ""]
    true = ["Patient is sore when swallowing", "No cough", "fever"]
    module = evaluate.combine([metric(name) for name in TEXT_METRICS])
    found = module.compute(predictions=said, references=true)
    for ending, stems in (("", False), ("_stemmed", True)):
        scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stems)
        for name in ("rouge1", "rouge2", "rougeL"):
            assert found[name + ending] == pytest.approx(
                np.mean([scorer.score(t, s)[name].fmeasure for s, t in zip(said, true, strict=True)])
            )
    assert found["exact_match"] == 0
    assert found["token_f1"] == pytest.approx((2 * 3 / (3 + 5) + 2 * 2 / (4 + 2)) / 3)


def test_a_metric_that_is_undefined_is_nan() -> None:
    assert np.isnan(metric("auroc").compute(predictions=[[0.2, 0.8]], references=[1])["auroc"])
    assert np.isnan(metric("macro_f1_min10").compute(predictions=[1], references=[1])["macro_f1_min10"])


def test_one_patient_tells_nothing_of_others() -> None:
    truth, said = np.arange(40) % 3, (np.arange(40) // 2) % 3
    one = score(TASK, said, truth, ["p1"] * 40)
    assert one.ci95 == {}
    assert set(one.no_interval) == set(one.values)
    assert "one group" in one.no_interval["accuracy"]
    found = compare(one, score(TASK, truth, truth, ["p1"] * 40), "accuracy")
    assert found.ci95 is None
    assert "one group" in found.no_interval
    two = score(TASK, said, truth, ["p1"] * 20 + ["p2"] * 20)
    assert two.ci95["accuracy"][1] - two.ci95["accuracy"][0] > 0.5


def test_rows_without_a_group_are_one_each() -> None:
    truth, probs = random_rows(40, 3)
    alone = score(TASK, probs, truth, [None] * 40)
    assert len(set(alone.groups)) == 40
    assert alone.ci95 == score(TASK, probs, truth).ci95
