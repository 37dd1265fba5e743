"""Scores: equal to scikit-learn, intervals over groups, paired comparison, nothing lost in JSON."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.comparison import _label_metric, _set_metric, compare
from hf_synth.evaluation.evaluation import Scores, score
from hf_synth.evaluation.metric_modules import METRICS, metric
from hf_synth.evaluation.metrics import draws, label_ranks
from hf_synth.evaluation.scoring import drawn_values, prepare, values_of
from hf_synth.evaluation.statistics import interval
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


def test_rank_intervals_are_those_of_rows_drawn_one_by_one() -> None:
    """A draw by weights is the metric of the rows drawn, patients together, with rows repeated."""
    truth, probs = random_rows(60, 11)
    codes = np.arange(60) // 3
    counts = next(draws(20, 5, seed=2))
    values = label_ranks(probs, np.eye(4, dtype=bool)[truth], np.ones((60, 4), bool), codes)(counts)
    for i, times in enumerate(counts):
        rows = np.repeat(np.arange(60), times[codes].astype(int))
        expected = score(TASK, probs[rows], truth[rows], n_bootstrap=0).values
        assert (values["auroc"][i], values["auprc"][i]) == pytest.approx((expected["auroc"], expected["auprc"]))


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
    truth, said, patients = rng.integers(4, size=90), rng.integers(4, size=90), rng.integers(30, size=90).astype(str)
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


def test_intervals_of_clustered_rows_cover_at_their_rate() -> None:
    """300 simulated test sets of 80 patients whose 4 rows are alike: 95% intervals over patients hold the truth.

    3 standard errors of the simulation are 3.8 points, and percentiles of 80 patients fall short by about a point more;
    intervals over rows, which take them for independent, fail.
    """

    def simulated(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        truth = np.repeat(rng.integers(2, size=patients), 4)
        lean = np.repeat(rng.normal(0, 1.2, size=patients), 4) + rng.normal(0, 0.4, size=4 * patients)
        p = 1 / (1 + np.exp(-(lean + 2 * truth - 1)))
        return truth, np.column_stack([1 - p, p])

    task = Task.from_columns("two", text_columns="text", label_column="label", labels=["no", "yes"], access="open")
    truth, probs = simulated(100_000, 999)
    worth = score(task, probs, truth, n_bootstrap=0).values
    names = ("accuracy", "macro_f1", "mcc", "auroc", "auprc")
    inside = {what: dict.fromkeys(names, 0) for what in ("patients", "rows")}
    for i in range(300):
        truth, probs = simulated(80, i)
        for what, groups in (("patients", np.arange(320) // 4), ("rows", None)):
            prepared = prepare(task, probs, truth, groups)
            drawn = drawn_values(prepared, 200, seed=i)
            for name in names:
                low, high = interval(drawn[name], len(prepared.sums))
                inside[what][name] += low < worth[name] < high
    for name in names:
        assert 0.9 <= inside["patients"][name] / 300 <= 0.988, (name, inside)
        assert inside["rows"][name] / 300 < 0.85, (name, inside)


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
    started = time.process_time()
    scores = score(TASK, probs, truth)
    assert time.process_time() - started < 3  # a loop over the samples takes ten
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
    low, high = found.ci95
    assert low < found.value < high
    if metric != "ece":
        assert low > 0
    back = compare(worse, better, metric, n_bootstrap=300)
    assert back.ci95 == pytest.approx((-high, -low))
    assert (compare(better, better, metric).value, compare(better, better, metric).ci95) == (0, (0, 0))
    read = [Scores.from_json(json.loads(json.dumps(s.to_json(rows=True)))) for s in (better, worse)]
    assert compare(*read, metric, n_bootstrap=300) == found
    assert found.p_mcnemar < 0.05


@pytest.mark.parametrize("kind", ["labels", "sets"])
def test_drawn_differences_are_those_of_scores_on_the_rows_drawn(kind: str) -> None:
    """A draw by hand: the rows of the patients drawn, each as often as drawn, scored as rows of their own."""
    better, worse = two_models(kind, 60)
    counts = next(iter(draws(20, 1, 7)))
    codes = np.asarray(better.groups if kind == "labels" else better.row_values["groups"])
    rows = np.concatenate([np.flatnonzero(codes == c) for c in range(20) for _ in range(int(counts[0, c]))])
    for name in ("auroc", "auprc", "macro_f1", *(["ece"] if kind == "labels" else [])):
        for scores in (better, worse):
            said = np.asarray(scores.row_values["said"])
            if kind == "labels":
                again = score(TASK, said[rows], np.array(scores.labels)[rows], n_bootstrap=1)
                prepared = _label_metric(scores, name)
            else:
                sets, judged = (np.asarray(scores.row_values[n])[rows] for n in ("sets", "judged"))
                again = score(SETS, said[rows], sets, judged=judged, n_bootstrap=1)
                prepared = _set_metric(scores, name)
            assert values_of(prepared, counts)[name] == pytest.approx([again.values[name]])


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
    for name in ("calibration", "labels", "predictions", "groups", "excluded", "bootstrap"):
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
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found[name] == pytest.approx(
            np.mean([scorer.score(t, s)[name].fmeasure for s, t in zip(said, true, strict=True)])
        )
    assert found["exact_match"] == 0
    assert found["token_f1"] == pytest.approx((2 * 3 / (3 + 5) + 2 * 2 / (4 + 2)) / 3)


def test_a_metric_that_is_undefined_is_nan() -> None:
    assert np.isnan(metric("auroc").compute(predictions=[[0.2, 0.8]], references=[1])["auroc"])
    assert np.isnan(metric("macro_f1_min10").compute(predictions=[1], references=[1])["macro_f1_min10"])


def test_one_patient_tells_nothing_of_others() -> None:
    truth, said = np.arange(40) % 3, (np.arange(40) // 2) % 3
    one = score(TASK, said, truth, ["p1"] * 40, n_bootstrap=50)
    assert one.ci95["accuracy"] == one.ci95["macro_f1"] == (0, 1)
    assert one.ci95["mcc"] == (-1, 1)
    assert compare(one, score(TASK, truth, truth, ["p1"] * 40, n_bootstrap=50), "accuracy").ci95 == (-1, 1)
