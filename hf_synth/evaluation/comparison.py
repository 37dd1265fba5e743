"""Paired comparison of two models on the same rows: difference, interval over groups, McNemar test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_synth.errors import HfSynthError
from hf_synth.evaluation import intervals, metrics, scoring
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.intervals import Limits
from hf_synth.evaluation.statistics import mcnemar
from hf_synth.models.text2text import TEXT_METRICS


@dataclass(frozen=True)
class Difference:
    """Score of one model minus that of another on the same rows.

    Args:
        metric: name of the score.
        value: a's minus b's.
        ci95: its 95% interval (`intervals.paired_limits`); None where the score of a single model has none.
        n: number of rows.
        p_mcnemar: p-value of the exact McNemar test of the rows that each model has right (sets: in all judged labels),
            whatever the metric; it treats rows as independent.
        no_interval: why there is no interval; "" where there is one.
    """

    metric: str
    value: float
    ci95: Limits | None
    n: int
    p_mcnemar: float
    no_interval: str = ""


def compare(a: Scores, b: Scores, metric: str = "macro_f1", *, n_bootstrap: int = 1000, seed: int = 0) -> Difference:
    """Compare two models on the same rows: the difference a - b with its 95% interval over groups.

    Two models with equal predictions have an interval around 0: on other rows they may differ.

    Args:
        metric: one that both have; auroc, auprc and ece need scores from probabilities.
        n_bootstrap, seed: without effect: the interval is a formula; earlier versions drew resamples.

    Raises:
        HfSynthError: the scores are of texts, of different rows, or lack their rows or the metric.

    Example:
        >>> compare(scores, scores).value
        0.0
    """
    if any(set(s.values) & set(TEXT_METRICS) for s in (a, b)):
        raise HfSynthError(
            f"scores of task {a.task!r} are of texts: only single_label and multi_label tasks can be compared"
        )
    if not all(s.labels or "sets" in s.row_values for s in (a, b)):
        raise HfSynthError("scores without their rows cannot be compared: write them with to_json(rows=True)")
    if not _same_rows(a, b):
        raise HfSynthError("the scores are of different rows: score both models on the same rows")
    if metric in metrics.PROBABILITY_METRICS and not all(metric in s.values and "said" in s.row_values for s in (a, b)):
        raise HfSynthError(
            f"cannot compare by {metric!r}: it is undefined here, or a model was scored from its labels alone; score "
            "both from probabilities"
        )
    known = [name for name in a.values if name in b.values]
    if metric not in known:
        raise HfSynthError(f"cannot compare by {metric!r}; choose one of {', '.join(known)}")
    value = a.values[metric] - b.values[metric]
    ci95, why = (_label_difference if a.labels else _set_difference)(a, b, metric, value)
    return Difference(metric, value, ci95, a.n, mcnemar(_correct_rows(a), _correct_rows(b)), why)


def _same_rows(a: Scores, b: Scores) -> bool:
    if (a.labels, a.groups) != (b.labels, b.groups) or a.dataset.get("sha256") != b.dataset.get("sha256"):
        return False
    names = ("sets", "judged", "groups")
    return all(np.array_equal(a.row_values.get(n, ()), b.row_values.get(n, ())) for n in names)


def _label_difference(a: Scores, b: Scores, metric: str, value: float) -> tuple[Limits | None, str]:
    """Return the interval of a difference of single labels, or None and why there is none."""
    k, codes = len(a.confusion), np.array(a.groups)
    true, first, second = (np.array(labels) for labels in (a.labels, a.predictions, b.predictions))
    if metric in metrics.PATIENT_METRICS:
        true, first, second = (metrics.worst_of_groups(labels, codes) for labels in (true, first, second))
        codes, metric = np.arange(len(true)), metric.removeprefix("patient_")
    names = list(a.per_class) or [str(i) for i in range(k)]
    if metric == "ece":
        return None, scoring.NO_ECE
    if not codes.any():
        return None, scoring.ONE_GROUP
    has = np.bincount(true, minlength=k)
    if metric in metrics.PROBABILITY_METRICS:
        one_hot = np.eye(k, dtype=bool)[true]
        return _rank_difference((a, b), metric, value, names, (one_hot, np.ones_like(one_hot), codes))
    samples = intervals.paired_samples(true, (first, second), k, codes)
    for sample in samples:
        if why := scoring.label_refusals(names, sample).get(metric):
            return None, why
    often = has >= metrics.MIN_ROWS
    return intervals.paired_limits(value, *samples, lambda s: metrics.label_values(s, often, has > 0), metric), ""


def _set_difference(a: Scores, b: Scores, metric: str, value: float) -> tuple[Limits | None, str]:
    """Return the interval of a difference of sets of labels, or None and why there is none."""
    true, judged, codes = (np.asarray(a.row_values[name]) for name in ("sets", "judged", "groups"))
    true, judged, names = true > 0, judged > 0, list(a.per_class)
    first, second = (np.asarray(s.row_values["said"]) > 0.5 for s in (a, b))
    some: Any = judged.any(0)
    if not codes.any():
        return None, scoring.ONE_GROUP
    if metric in metrics.PROBABILITY_METRICS:
        return _rank_difference((a, b), metric, value, names, (true, judged, codes))
    samples = intervals.paired_set_samples(true, (first, second), judged, codes)
    for sample in samples:
        if why := scoring.set_refusals(names, sample, some).get(metric):
            return None, why
    return intervals.paired_limits(value, *samples, lambda s: metrics.set_values(s, some), metric), ""


def _rank_difference(
    pair: tuple[Scores, Scores], metric: str, value: float, names: list[str], rows: tuple[Any, Any, Any]
) -> tuple[Limits | None, str]:
    """Return the interval of a difference of AUROC or AUPRC, or None and why there is none.

    Args:
        rows: masks of true and of judged labels, (N, K) each, and group numbers (N,).
    """
    has, judged, codes = rows
    if why := scoring.rank_refusal(names, has, judged, metric):
        return None, why
    ranks = [list(metrics.label_ranks(np.asarray(s.row_values["said"]), has, judged).values()) for s in pair]
    return intervals.paired_rank_limits(value, ranks[0], ranks[1], metric, codes), ""


def _correct_rows(scores: Scores) -> Any:
    """Return a mask of the rows that a model predicts right.

    A set of labels is right when all its judged labels are. Rows without a judged label are left out.
    """
    if scores.labels:
        return np.array(scores.labels) == np.array(scores.predictions)
    guess, true, judged = (np.asarray(scores.row_values[name]) > 0.5 for name in ("said", "sets", "judged"))
    return ((guess == true) | ~judged).all(1)[judged.any(1)]
