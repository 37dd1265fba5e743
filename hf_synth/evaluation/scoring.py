"""Predictions and true labels prepared for scores: metrics, their 95% intervals, and why a metric has none.

`evaluation.score` reads one `Prepared`; subgroups compare several. The intervals are computed in `intervals`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.evaluation import intervals, metrics
from hf_synth.evaluation.intervals import Limits, Sample
from hf_synth.models.text2text import text_scores
from hf_synth.task.labels import match_target
from hf_synth.task.task import Task

Array = npt.NDArray[Any]
ONE_GROUP = "all rows are of one group (patient), which does not show how groups differ"
NO_ECE = "chance alone makes the calibration error of few rows too high, and resampling raises it again"
MIN_RANKED = {"auroc": intervals.MIN_CLASS, "auprc": metrics.MIN_ROWS}  # rows of each label in the mean


@dataclass(frozen=True)
class Prepared:
    """The scores of one set of predictions.

    Args:
        sample: the rows as sums.
        of_sums: metrics as a function of sums, (B, C) -> (B,) each.
        values: each metric that is defined.
        ci95: the interval of each metric that has one.
        no_interval: why each other metric has none.
        more: other fields of Scores.
    """

    sample: Sample
    of_sums: Callable[[Array], metrics.Values]
    values: dict[str, float]
    ci95: dict[str, Limits] = field(default_factory=dict)
    no_interval: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def effects(self, metric: str) -> Array | None:
        """Return what each group adds to a metric of sums, (G,); None for another metric."""
        if metric not in self.of_sums(self.sample.totals[None]):
            return None
        _, gradient = intervals.linearise(self.sample.totals, self.of_sums, [metric])
        return np.asarray(self.sample.sums @ gradient[:, 0])


def prepare(
    task: Task,
    predicted: Any,
    labels: Any,
    groups: Sequence[Any] | None = None,
    *,
    judged: Any = None,
    limits: bool = True,
    ranks: bool = True,
) -> Prepared:
    """Compute the metrics of predictions against true labels; arguments and errors are those of `evaluation.score`.

    Args:
        limits: whether to compute intervals.
        ranks: whether to compute AUROC and AUPRC from probabilities.
    """
    n = len(labels)
    if not n or len(predicted) != n or (groups is not None and len(groups) != n):
        raise ColumnError("scores need a prediction, and a group where there are groups, for each label; at least one")
    codes = metrics.group_codes(groups, n)
    if task.kind != "text2text" and (
        wrong := int((~np.isfinite(np.asarray(predicted, float)).reshape(n, -1).all(1)).sum())
    ):
        raise ColumnError(
            f"{wrong} of {n} rows have a prediction that is no finite number: if a model gave it, its training "
            "diverged (train it again with a lower learning rate)"
        )
    if task.kind == "text2text":
        return _prepare_texts(task, predicted, labels, codes, limits)
    if task.kind == "multi_label":
        return _prepare_sets(task, predicted, labels, judged, codes, limits=limits, ranks=ranks)
    graded = groups is not None and any(g is not None for g in groups)
    graded &= bool(set(metrics.PATIENT_METRICS) & set(task.metrics))
    return _prepare_labels(task, predicted, labels, codes, graded=graded, limits=limits, ranks=ranks)


# --- one label a row --------------------------------------------------------------------------------------------------
def _prepare_labels(
    task: Task, predicted: Any, labels: Any, codes: Array, *, graded: bool, limits: bool, ranks: bool
) -> Prepared:
    k, true, predicted = len(task.labels), np.asarray(labels, dtype=np.int64), np.asarray(predicted)
    probs = predicted if predicted.ndim == 2 else None
    guess = predicted.argmax(1) if probs is not None else predicted.astype(np.int64)
    if probs is not None and probs.shape[1] != k:
        raise ColumnError(f"scores need probabilities over the {k} labels of task {task.full_name!r}")
    if min(true.min(), guess.min()) < 0 or max(true.max(), guess.max()) >= k:
        raise ColumnError(f"a label or prediction is not an index into the {k} labels of task {task.full_name!r}")
    has = np.bincount(true, minlength=k)
    often = has >= metrics.MIN_ROWS
    sample = intervals.label_sample(true, guess, k, codes)
    values = _first(metrics.label_values(sample.sums.sum(0)[None], often))
    worst = None
    if graded:
        worst = metrics.worst_of_groups(true, codes), metrics.worst_of_groups(guess, codes)
        values |= _first(metrics.patient_values(metrics.label_sums(*worst, k, np.zeros(len(worst[0]), int))))
    one_hot = np.eye(k, dtype=bool)[true]
    ranked: dict[int, metrics.Ranks] = {}
    if probs is not None:
        values["ece"] = float(np.abs(metrics.gap_sums(true, probs, np.zeros(len(true), int))).sum() / len(true))
        ranked = metrics.label_ranks(probs, one_hot, np.ones_like(one_hot)) if ranks else {}
        values |= metrics.rank_means(ranked)
    rows = {"labels": true, "predictions": guess, "groups": codes}
    more: dict[str, Any] = {name: tuple(found.tolist()) for name, found in rows.items()}
    more["confusion"] = np.bincount(true * k + guess, minlength=k * k).reshape(k, k).tolist()
    more["per_class"] = _per_class(task, sample.sums.sum(0), probs, one_hot, np.ones_like(one_hot))

    def of_sums(sums: Array) -> metrics.Values:
        return metrics.label_values(sums, often, has > 0)

    if not limits:
        return Prepared(sample, of_sums, values, more=more)
    no_interval = label_refusals(task.labels, sample)
    ci95 = label_intervals(sample, no_interval)
    if worst is not None:
        patients = intervals.label_sample(*worst, k, np.arange(len(worst[0])))
        missing = label_refusals(task.labels, patients)
        found = label_intervals(patients, missing)
        ci95 |= {f"patient_{m}": found[m] for m in ("accuracy", "macro_f1") if m in found}
        no_interval |= {f"patient_{m}": why for m, why in missing.items()}
    found, missing = _rank_intervals(task.labels, ranked, one_hot, np.ones_like(one_hot), codes)
    ci95, no_interval = ci95 | found, no_interval | missing
    if "ece" in values:
        no_interval["ece"] = NO_ECE
    more["class_ci95"] = class_intervals(task.labels, sample)
    return Prepared(sample, of_sums, values, *_without_undefined(values, ci95, no_interval, codes), more)


def label_refusals(labels: Sequence[str], sample: Sample) -> dict[str, str]:
    """Return why some of LABEL_METRICS have no interval.

    Macro scores have one where each label has MIN_CLASS rows, of several groups, and for macro precision also as many
    predictions; MCC where two labels have as many rows and predictions.
    """
    k, total = sample.k, sample.sums.sum(0)
    true, guess, every = total[k : 2 * k], total[2 * k : 3 * k], np.ones(sample.k, bool)
    few, often = _label_with_few_rows(labels, true), true >= metrics.MIN_ROWS
    found = {f"macro_{kind}": few or _one_sided_label(labels, sample, kind, every) for kind in intervals.KINDS}
    found["macro_precision"] = few or _label_with_few_rows(labels, guess, "predictions") or found["macro_precision"]
    found["macro_f1_min10"] = _one_sided_label(labels, sample, "f1", often)
    if (np.minimum(true, guess) >= intervals.MIN_CLASS).sum() < 2:
        found["mcc"] = few or _label_with_few_rows(labels, guess, "predictions")
    return {metric: why for metric, why in found.items() if why}


def label_intervals(sample: Sample, refused: Mapping[str, str]) -> dict[str, Limits]:
    """Compute the intervals of LABEL_METRICS without those that are refused."""
    often = sample.sums[:, sample.k : 2 * sample.k].sum(0) >= metrics.MIN_ROWS
    share = _share(sample.sums[:, : sample.k].sum(1), sample.rows)
    ci95 = {"accuracy": share, "micro_f1": share}
    macro = {f"macro_{kind}": (kind, np.ones(sample.k, bool)) for kind in intervals.KINDS}
    macro |= {"macro_f1_min10": ("f1", often)} if often.any() else {}
    ci95 |= {name: intervals.macro_limits(sample, *how) for name, how in macro.items() if name not in refused}
    smooth = [name for name in ("weighted_f1", "mcc") if name not in refused]
    return ci95 | intervals.smooth_limits(sample, metrics.label_values, smooth)


def _share(hits: Array, rows: Array) -> Limits:
    """Return the interval of one share of rows, from the hits and rows of each group, (G,) each."""
    low, high = intervals.share_limits(hits[:, None], rows[:, None].astype(float))
    return float(low[0]), float(high[0])


def class_intervals(labels: Sequence[str], sample: Sample) -> dict[str, dict[str, Limits]]:
    """Return the intervals of recall, precision and F1 of each label that has MIN_CLASS rows."""
    has, limits = sample.sums[:, sample.k : 2 * sample.k].sum(0), sample.label_limits
    return {
        label: {kind: (float(low[i]), float(high[i])) for kind, (low, high) in limits.items() if not np.isnan(low[i])}
        for i, label in enumerate(labels)
        if has[i] >= intervals.MIN_CLASS
    }


def _label_with_few_rows(labels: Sequence[str], counts: Array, what: str = "rows") -> str:
    """Return which label has the fewest rows, where that is fewer than MIN_CLASS; "" where each label has as many."""
    i, least = int(np.argmin(counts)), intervals.MIN_CLASS
    return f"too few {what} of {labels[i]!r}: {int(counts[i])}, and {least} are needed" if counts[i] < least else ""


def _one_sided_label(labels: Sequence[str], sample: Sample, kind: str, among: Array) -> str:
    """Return which of the labels in `among` (k,) has rows of one group alone; "" where none has."""
    alone = among & np.isnan(sample.label_limits[kind][0])
    return f"all rows of {labels[int(np.argmax(alone))]!r} are of one group" if alone.any() else ""


def rank_refusal(labels: Sequence[str], has: Array, judged: Array, metric: str) -> str:
    """Return why the mean AUROC or AUPRC over labels has no interval; "" where it has one.

    Args:
        labels: names of the K labels.
        has: (N, K) mask of true labels.
        judged: (N, K) mask of judged labels.
        metric: "auroc" or "auprc".
    """
    least, (with_it, without) = MIN_RANKED[metric], ((rows & judged).sum(0) for rows in (has, ~has))
    for i in metrics.ranked_labels(has, judged):
        if judged[:, i].any() and with_it[i] < least:
            return f"too few rows of {labels[i]!r}: {int(with_it[i])}, and {least} are needed"
        if judged[:, i].any() and without[i] < least:
            return f"too few rows without {labels[i]!r}: {int(without[i])}, and {least} are needed"
    return ""


def _rank_intervals(
    labels: Sequence[str], ranked: Mapping[int, metrics.Ranks], has: Array, judged: Array, codes: Array
) -> tuple[dict[str, Limits], dict[str, str]]:
    """Compute the intervals of the mean AUROC and AUPRC, and say why one has none."""
    refused = {metric: rank_refusal(labels, has, judged, metric) for metric in MIN_RANKED} if ranked else {}
    ci95 = {
        metric: intervals.rank_limits(value, list(ranked.values()), metric, codes)
        for metric, value in metrics.rank_means(ranked).items()
        if not refused[metric]
    }
    return ci95, {metric: why for metric, why in refused.items() if why}


def _without_undefined(
    values: Mapping[str, float], ci95: dict[str, Limits], no_interval: dict[str, str], codes: Array
) -> tuple[dict[str, Limits], dict[str, str]]:
    """Leave out undefined metrics, and all intervals where the rows are of a single group."""
    if not codes.any():
        return {}, dict.fromkeys(values, ONE_GROUP)
    return {m: ci95[m] for m in values if m in ci95}, {m: no_interval[m] for m in values if m in no_interval}


def _first(values: metrics.Values) -> dict[str, float]:
    return {name: float(found[0]) for name, found in values.items()}


# --- sets of labels, texts --------------------------------------------------------------------------------------------
def _prepare_sets(
    task: Task, predicted: Any, labels: Any, judged: Any, codes: Array, *, limits: bool, ranks: bool
) -> Prepared:
    k, true, predicted = len(task.labels), np.asarray(labels) > 0.5, np.asarray(predicted)
    known = np.ones_like(true) if judged is None else np.asarray(judged) > 0.5
    if true.shape != predicted.shape or true.ndim != 2 or true.shape[1] != k or known.shape != true.shape:
        raise ColumnError(f"scores need a value for each of the {k} labels of task {task.full_name!r} in every row")
    if not known.any():
        raise ColumnError(f"no label of task {task.full_name!r} was judged in these rows: there is nothing to score")
    some = np.asarray(known.any(0))
    sample = intervals.set_sample(true, predicted > 0.5, known, codes)
    values = _first(metrics.set_values(sample.sums.sum(0)[None], some))
    probs, ranked = None, {}
    if not np.isin(predicted, (0, 1)).all():
        probs = predicted
        ranked = metrics.label_ranks(predicted, true, known) if ranks else {}
        values |= metrics.rank_means(ranked)
    per_class = _per_class(task, sample.sums.sum(0)[:-2], probs, true, known)
    for label, judgments in zip(task.labels, known.sum(0), strict=True):
        per_class[label]["judged"] = int(judgments)
    more: dict[str, Any] = {"per_class": per_class, "confusion": []}

    def of_sums(sums: Array) -> metrics.Values:
        return metrics.set_values(sums, some)

    if not limits:
        return Prepared(sample, of_sums, values, more=more)
    no_interval = set_refusals(task.labels, sample, some)
    ci95 = set_intervals(sample, some, no_interval)
    found, missing = _rank_intervals(task.labels, ranked, true, known, codes)
    ci95, no_interval = ci95 | found, no_interval | missing
    more["class_ci95"] = class_intervals(task.labels, sample)
    return Prepared(sample, of_sums, values, *_without_undefined(values, ci95, no_interval, codes), more)


def set_refusals(labels: Sequence[str], sample: Sample, some: Array) -> dict[str, str]:
    """Return why some metrics of sets of labels have no interval.

    Args:
        labels: all labels of the task.
        some: (k,) mask of the judged ones, which macro scores average over.
    """
    k, total = sample.k, sample.sums.sum(0)
    true, guess = total[k : 2 * k], total[2 * k : 3 * k]
    names = [label for label, s in zip(labels, some, strict=True) if s]
    few = _label_with_few_rows(names, true[some])
    found = {f"macro_{kind}": few or _one_sided_label(labels, sample, kind, some) for kind in intervals.KINDS}
    found["macro_precision"] = (
        few or _label_with_few_rows(names, guess[some], "predictions") or found["macro_precision"]
    )
    if true.sum() < intervals.MIN_CLASS:
        found |= dict.fromkeys(("micro_f1", "weighted_f1"), few)
    return {metric: why for metric, why in found.items() if why}


def set_intervals(sample: Sample, some: Array, refused: Mapping[str, str]) -> dict[str, Limits]:
    """Compute the intervals of the metrics of sets of labels without those that are refused."""
    ci95 = {"accuracy": _share(sample.sums[:, -2], sample.sums[:, -1])}
    kinds = [kind for kind in intervals.KINDS if f"macro_{kind}" not in refused]
    ci95 |= {f"macro_{kind}": intervals.macro_limits(sample, kind, some) for kind in kinds}
    smooth = [name for name in ("micro_f1", "weighted_f1") if name not in refused]
    return ci95 | intervals.smooth_limits(sample, lambda sums: metrics.set_values(sums, some), smooth)


def _prepare_texts(task: Task, predicted: Any, labels: Any, codes: Array, limits: bool) -> Prepared:
    if task.targets:  # one spelling of each
        predicted = [match_target(task, text) or text for text in predicted]
        labels = [match_target(task, text) or text if isinstance(text, str) else text for text in labels]
    found = text_scores(predicted, labels)
    rows = np.column_stack([*found.values(), np.ones(len(codes))])
    none = np.zeros((0, rows.shape[1]))
    sums = metrics.group_sums(rows, codes)
    sample = Sample(sums, rows, np.ones(len(rows)), none, np.zeros(0), np.bincount(codes), 0)

    def of_sums(sums: Array) -> metrics.Values:
        return {name: sums[:, i] / sums[:, -1] for i, name in enumerate(found)}

    values = _first(of_sums(sums.sum(0)[None]))
    more: dict[str, Any] = {"per_class": {}, "confusion": []}
    ci95 = {name: intervals.mean_limits(each, codes) for name, each in found.items()} if limits else {}
    no_interval: dict[str, str] = {}
    if "macro_f1" in task.metrics and task.targets and all(text in task.targets for text in labels):
        values["macro_f1"], ci95, no_interval = _macro_of_targets(task, predicted, labels, codes, ci95)
    if task.target_fields:
        firsts = [text if isinstance(text, str) else text[0] for text in labels]
        of_fields = metrics.field_sums(firsts, predicted, task.target_fields).sum(0)[None]
        of_fields = _first(metrics.field_values(of_fields, task.target_fields))
        values |= of_fields
        no_interval |= dict.fromkeys(of_fields, "how often an interval of it holds the truth was not measured")
    return Prepared(
        sample, of_sums, values, *(_without_undefined(values, ci95, no_interval, codes) if limits else ({}, {})), more
    )


def _macro_of_targets(
    task: Task, predicted: Sequence[str], labels: Sequence[str], codes: Array, ci95: dict[str, Limits]
) -> tuple[float, dict[str, Limits], dict[str, str]]:
    """Compute macro-F1 over the targets that occur in truth or predictions, as labels; any other text is none of them.

    Returns:
        The score, `ci95` with its interval, and why it has none.
    """
    place, k = {target: i for i, target in enumerate(task.targets)}, len(task.targets)
    true, guess = (np.array([place.get(text, k) for text in texts]) for texts in (labels, predicted))
    sample = intervals.label_sample(true, guess, k + 1, codes)
    _, of_true, of_guess = np.split(sample.sums.sum(0), 3)
    among = (of_true + of_guess > 0) & (np.arange(k + 1) < k)
    f1 = 2 * sample.sums.sum(0)[: k + 1] / np.maximum(of_true + of_guess, 1)
    names = [*task.targets, "another text"]
    why = _label_with_few_rows(task.targets, of_true[:k]) or _one_sided_label(names, sample, "f1", among)
    found = ci95 if why or not ci95 else ci95 | {"macro_f1": intervals.macro_limits(sample, "f1", among)}
    return float(f1[among].mean()), found, {"macro_f1": why} if why else {}


def _per_class(task: Task, sums: Array, probs: Array | None, has: Array, judged: Array) -> dict[str, dict[str, float]]:
    hit, true, guess = np.split(sums, 3)
    scores: dict[str, dict[str, float]] = {}
    for i, label in enumerate(task.labels):
        scores[label] = {
            "precision": float(hit[i] / max(1, guess[i])),
            "recall": float(hit[i] / max(1, true[i])),
            "f1": float(2 * hit[i] / max(1, true[i] + guess[i])),
            "support": int(true[i]),
        }
        rows = judged[:, i]
        if probs is not None and 0 < has[rows, i].sum() < rows.sum():
            ranks = metrics.rank_values(probs[rows, i], has[rows, i])
            scores[label] |= {"auroc": ranks.auroc, "auprc": ranks.auprc}
    return scores
