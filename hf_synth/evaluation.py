"""Scores of a model on rows with true labels: metrics that need no network, with intervals, and paired comparison.

Every metric here is a function of sums over rows (the confusion counts, and for calibration the sums in each bin; the
counts of each label of a multi_label task; the scores of texts), so that a bootstrap is one matrix product. Rows of one
group (a patient, an admission) are drawn together.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.modeling import model_facts, predict_proba, weights_sha256
from hf_synth.rows import label_indices, label_matrix, target_texts
from hf_synth.statistics import mcnemar
from hf_synth.task import Task, access_of, row_digests
from hf_synth.text2text import generate_text, text_scores

if TYPE_CHECKING:
    from datasets import Dataset

Array = npt.NDArray[Any]

MIN_ROWS = 10  # macro_f1_min10 leaves out classes with fewer test rows
BINS = 15  # of confidence, for the calibration error
METRICS = ("accuracy", "macro_f1", "micro_f1", "weighted_f1", "macro_f1_min10", "mcc", "ece")


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one set of rows.

    Args:
        task: full name of the task.
        n: number of rows.
        values: each metric's value; `macro_f1_min10` only if a class has 10 rows, `ece` only from probabilities. Of a
            multi_label task accuracy (exact set match) and the three F1, of a text2text task `text2text.TEXT_METRICS`.
        ci95: each metric's 95% bootstrap interval over groups, (low, high).
        per_class: precision, recall, f1 and support of each label; empty for text2text.
        confusion: rows by true label (first index) and predicted label, K x K; of single_label tasks only.
        model: what was scored: its name, base model, access, rows it was trained on, sha256 of its weights.
        dataset: what it was scored on: rows, groups, access, a digest of texts and labels, and how many rows were
            `seen` (the model was trained on them, or they stand in `exclude`).
        bootstrap: how many resamples, and the seed.
        excluded: scores without the rows that were seen; None when no row was, or all were.
        labels, predictions, groups: for each row of a single_label task, for paired comparison; not in `to_json`
            unless asked for.
    """

    task: str
    n: int
    values: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]
    model: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    bootstrap: dict[str, int] = field(default_factory=dict)
    excluded: Scores | None = None
    labels: tuple[int, ...] = field(default=(), repr=False)
    predictions: tuple[int, ...] = field(default=(), repr=False)
    groups: tuple[int, ...] = field(default=(), repr=False)

    def to_json(self, *, rows: bool = False) -> dict[str, Any]:
        """Give plain values for `json.dump`.

        Args:
            rows: also the label, prediction and group number of each row, which `compare` needs and nobody publishes.
        """
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["ci95"] = {name: list(pair) for name, pair in self.ci95.items()}
        plain["excluded"] = self.excluded.to_json(rows=rows) if self.excluded else None
        for name in ("labels", "predictions", "groups"):
            plain[name] = list(plain[name]) if rows else []
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Scores:
        """Make Scores of what `to_json` gave.

        Raises:
            HfSynthError: it is something else.
        """
        try:
            told = {name: plain[name] for name in cls.__dataclass_fields__}
            told["ci95"] = {name: (float(pair[0]), float(pair[1])) for name, pair in plain["ci95"].items()}
            told["excluded"] = cls.from_json(plain["excluded"]) if plain["excluded"] else None
            for name in ("labels", "predictions", "groups"):
                told[name] = tuple(int(v) for v in plain[name])
        except (KeyError, TypeError, AttributeError, ValueError):
            raise HfSynthError("this JSON holds no scores: write it with `hf-synth evaluate --out`") from None
        return cls(**told)


@dataclass(frozen=True)
class Difference:
    """Score of one model minus that of another on the same rows.

    Args:
        metric: which score.
        value: a's minus b's.
        ci95: 95% interval of the paired bootstrap over groups.
        n: number of rows.
        p_mcnemar: p-value of the exact McNemar test of who is right on which row; it takes rows for independent.
    """

    metric: str
    value: float
    ci95: tuple[float, float]
    n: int
    p_mcnemar: float


def evaluate(
    task: Task,
    model: str | Path,
    dataset: Dataset,
    *,
    exclude: Dataset | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: bool = False,
    cache_dir: str | Path | None = None,
) -> Scores:
    """Score a model on rows with true labels.

    Args:
        model: folder or repo id of a trained classifier, or of a sequence-to-sequence model for a text2text task.
        exclude: rows that it should not be judged on, by text (training rows); scores without them, and without any row
            that the model's facts say it saw, are in `.excluded`.
        cache_dir: a private folder of the user's that keeps the tokens of texts, as for `predict_proba`.

    Raises:
        ModelError: the model cannot be loaded or is not of this task.
        ColumnError: a text or label is missing, or there is no row.
    """
    labels = _truth(task, dataset)
    if not len(labels):
        raise ColumnError("there is no row to score a model on")
    predict: Callable[..., Any] = generate_text if task.kind == "text2text" else predict_proba
    kept = {} if task.kind == "text2text" else {"cache_dir": cache_dir}
    said = predict(model, task, dataset, progress=progress, **kept)
    groups = list(dataset["group"]) if "group" in dataset.column_names else None
    facts = model_facts(model)
    digests = row_digests(task, dataset.select_columns(list(task.text_columns)))
    about_model = {
        "name": Path(model).name if Path(model).is_dir() else str(model),
        **{key: facts.get(key) for key in ("access", "task", "base_model", "base_revision", "rows")},
        "weights_sha256": weights_sha256(model),
    }
    about_rows = {
        "n": len(labels),
        "groups": len(set(groups)) if groups else len(labels),
        "access": access_of(dataset),
        "sha256": _digest(digests, labels),
    }
    seen = set(facts["row_digests"])
    if exclude is not None:
        seen |= set(row_digests(task, exclude.select_columns(list(task.text_columns))))
    new = np.array([d not in seen for d in digests])
    made = score(task, said, labels, groups, n_bootstrap=n_bootstrap, seed=seed)
    made = replace(made, model=about_model, dataset=about_rows | {"seen": int((~new).sum())})
    if new.all() or not new.any():
        return made
    unseen = [None if v is None else [v[i] for i in np.flatnonzero(new)] for v in (said, labels, groups)]
    rest = score(task, *unseen, n_bootstrap=n_bootstrap, seed=seed)
    return replace(made, excluded=rest)


def _truth(task: Task, dataset: Dataset) -> Any:
    """Read what is true of each row: label indices (N,), 0 and 1 for each label (N, K), or target texts."""
    if task.kind == "text2text":
        return target_texts(task, dataset)
    return label_matrix(task, dataset) if task.kind == "multi_label" else label_indices(task, dataset)


def score(
    task: Task,
    predicted: Any,
    labels: Any,
    groups: Sequence[Any] | None = None,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score predictions against true labels.

    Args:
        predicted: probabilities (N, K) or label indices (N,); multi_label: probabilities, of which those above 0.5 are
            labels, or 0 and 1 (N, K); text2text: N texts.
        labels: true label indices, (N,); multi_label: 0 and 1 (N, K); text2text: N texts.
        groups: what rows are drawn together by, (N,); each row by itself when None.

    Raises:
        ColumnError: shapes do not fit, or an index is not one of the task's labels.
    """
    n = len(labels)
    if not n or len(predicted) != n or (groups is not None and len(groups) != n):
        raise ColumnError("scores need as many predictions as labels, and groups where given, at least one")
    codes = _group_codes(groups, n)
    judge = {"single_label": _score_labels, "multi_label": _score_sets, "text2text": _score_texts}[task.kind]
    sums, values_of, more = judge(task, predicted, labels, codes)
    drawn = values_of(_resampled(sums, n_bootstrap, seed)) if n_bootstrap else {}
    return Scores(
        task=task.full_name,
        n=n,
        values={name: float(value[0]) for name, value in values_of(sums.sum(0)[None]).items()},
        ci95={name: _interval(many) for name, many in drawn.items()},
        bootstrap={"n": n_bootstrap, "seed": seed},
        **more,
    )


# What scores need of one kind of task: sums of each group (G, C), metrics as a function of sums, other fields.
_Judged = tuple[Array, Callable[[Array], dict[str, Array]], dict[str, Any]]


def _score_labels(task: Task, predicted: Any, labels: Any, codes: Array) -> _Judged:
    k, truth, predicted = len(task.labels), np.asarray(labels, dtype=np.int64), np.asarray(predicted)
    probs = predicted if predicted.ndim == 2 else None
    guess = predicted.argmax(1) if predicted.ndim == 2 else predicted.astype(np.int64)
    if probs is not None and probs.shape[1] != k:
        raise ColumnError(f"scores need probabilities over the {k} labels of task {task.full_name!r}")
    if min(truth.min(), guess.min()) < 0 or max(truth.max(), guess.max()) >= k:
        raise ColumnError(f"a label or prediction is not an index into the {k} labels of task {task.full_name!r}")
    often = np.bincount(truth, minlength=k) >= MIN_ROWS
    confusion = np.bincount(truth * k + guess, minlength=k * k).reshape(k, k)
    hit, true, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    rows = {"labels": truth, "predictions": guess, "groups": codes}
    more = {"per_class": _per_class(task, hit, true, said), "confusion": confusion.tolist()}
    more |= {name: tuple(values.tolist()) for name, values in rows.items()}
    return _sums(truth, guess, probs, k, codes), lambda sums: _values(sums, k, often), more


def _score_sets(task: Task, predicted: Any, labels: Any, codes: Array) -> _Judged:
    k, truth, guess = len(task.labels), np.asarray(labels) > 0.5, np.asarray(predicted) > 0.5
    if truth.shape != guess.shape or truth.ndim != 2 or truth.shape[1] != k:
        raise ColumnError(f"scores need a value for each of the {k} labels of task {task.full_name!r} in every row")
    exact = (truth == guess).all(1, keepdims=True)
    sums = _group_sums(np.hstack([truth & guess, truth, guess, exact, np.ones_like(exact)]), codes)
    hit, true, said = sums[:, : 3 * k].sum(0).reshape(3, k)
    return sums, lambda sums: _set_values(sums, k), {"per_class": _per_class(task, hit, true, said), "confusion": []}


def _score_texts(task: Task, predicted: Any, labels: Any, codes: Array) -> _Judged:
    found = text_scores(predicted, labels)
    sums = _group_sums(np.column_stack([*found.values(), np.ones(len(codes))]), codes)

    def values_of(sums: Array) -> dict[str, Array]:
        return {name: sums[:, i] / sums[:, -1] for i, name in enumerate(found)}

    return sums, values_of, {"per_class": {}, "confusion": []}


def compare(a: Scores, b: Scores, metric: str = "macro_f1", *, n_bootstrap: int = 1000, seed: int = 0) -> Difference:
    """Compare two models on the same rows: the difference a - b with its paired bootstrap interval over groups.

    Raises:
        HfSynthError: the scores are not of the same rows, or lack the rows' predictions, or the metric, or are of a
            task that is not single_label.
    """
    if a.values and not a.confusion:
        raise HfSynthError(f"scores of task {a.task!r} cannot be compared row by row: only those of single_label tasks")
    if not a.labels or not b.labels:
        raise HfSynthError("scores without their rows cannot be compared: write them with to_json(rows=True)")
    if (a.labels, a.groups) != (b.labels, b.groups) or a.dataset.get("sha256") != b.dataset.get("sha256"):
        raise HfSynthError("scores are compared on the same rows only, and these are of different rows")
    known = [name for name in a.values if name != "ece"]
    if metric not in known:
        raise HfSynthError(f"cannot compare by {metric!r}; choose one of {', '.join(known)}")
    k, truth, codes = len(a.confusion), np.array(a.labels), np.array(a.groups)
    often = np.bincount(truth, minlength=k) >= MIN_ROWS
    both = [_sums(truth, np.array(s.predictions), None, k, codes) for s in (a, b)]
    drawn_a, drawn_b = (
        _values(part, k, often)[metric] for part in np.hsplit(_resampled(np.hstack(both), n_bootstrap, seed), 2)
    )
    right = (truth == np.array(s.predictions) for s in (a, b))
    return Difference(metric, a.values[metric] - b.values[metric], _interval(drawn_a - drawn_b), a.n, mcnemar(*right))


# --- sums, and metrics as functions of them -------------------------------------------------------------------------


def _group_codes(groups: Sequence[Any] | None, n: int) -> Array:
    """Number the groups from 0, shape (N,); a row without a group is one by itself."""
    if groups is None:
        return np.arange(n)
    names = [f"row {i}" if g is None else f"group {g}" for i, g in enumerate(groups)]
    codes: Array = np.unique(names, return_inverse=True)[1]
    return codes


def _sums(truth: Array, guess: Array, probs: Array | None, k: int, codes: Array) -> Array:
    """Sum over each group's rows: the confusion counts (K*K) and, from probabilities, each bin's calibration gap."""
    n_groups = int(codes.max()) + 1
    cell = codes * (k * k) + truth * k + guess
    counts = np.bincount(cell, minlength=n_groups * k * k).reshape(n_groups, k * k).astype(np.float64)
    if probs is None:
        return counts
    confidence = probs.max(1).astype(np.float64)
    bins = codes * BINS + np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, weights=confidence - (truth == guess), minlength=n_groups * BINS)
    return np.hstack([counts, gap.reshape(n_groups, BINS)])


def _group_sums(rows: Array, codes: Array) -> Array:
    """Add up the rows of each group: (N, C) -> (G, C)."""
    sums = np.zeros((int(codes.max()) + 1, rows.shape[1]))
    np.add.at(sums, codes, rows)
    return sums


def _resampled(sums: Array, n_bootstrap: int, seed: int) -> Array:
    """Draw groups with replacement and add up their sums, shape (n_bootstrap, sums.shape[1])."""
    rng, n_groups = np.random.default_rng(seed), len(sums)
    found = np.empty((n_bootstrap, sums.shape[1]))
    chunk = max(1, 4_000_000 // n_groups)  # holds at most 32 MB of counts
    for begin in range(0, n_bootstrap, chunk):
        end = min(begin + chunk, n_bootstrap)
        times = [np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups) for _ in range(begin, end)]
        found[begin:end] = np.array(times, dtype=np.float64) @ sums
    return found


def _values(sums: Array, k: int, often: Array) -> dict[str, Array]:
    """Compute every metric for each of B rows of sums, as scikit-learn defines them; each of shape (B,).

    Macro scores average over the labels that occur in truth or predictions; a label never predicted rightly has f1 0.
    """
    counts = sums[:, : k * k].reshape(-1, k, k)
    n = counts.sum((1, 2))
    hit, true, said = np.einsum("bkk->bk", counts), counts.sum(2), counts.sum(1)
    f1 = 2 * hit / np.maximum(true + said, 1)
    seen = (true + said > 0).sum(1)
    accuracy = hit.sum(1) / n
    found = {
        "accuracy": accuracy,
        "macro_f1": f1.sum(1) / seen,
        "micro_f1": accuracy,  # the same where every row has exactly one label
        "weighted_f1": (f1 * true).sum(1) / n,
    }
    if often.any():
        found["macro_f1_min10"] = f1[:, often].mean(1)
    spread = np.sqrt((n**2 - (said**2).sum(1)) * (n**2 - (true**2).sum(1)))
    excess = hit.sum(1) * n - (true * said).sum(1)
    found["mcc"] = np.where(spread > 0, excess / np.maximum(spread, 1e-12), 0.0)
    if sums.shape[1] > k * k:
        found["ece"] = np.abs(sums[:, k * k :]).sum(1) / n
    return found


def _set_values(sums: Array, k: int) -> dict[str, Array]:
    """Compute the metrics of a multi_label task for each of B rows of sums, as scikit-learn defines them; (B,) each.

    Every label counts in macro-F1; one that neither occurs nor is predicted has f1 0.
    """
    hit, true, said = (sums[:, i * k : (i + 1) * k] for i in range(3))
    f1 = 2 * hit / np.maximum(true + said, 1)
    return {
        "accuracy": sums[:, 3 * k] / sums[:, 3 * k + 1],
        "macro_f1": f1.mean(1),
        "micro_f1": 2 * hit.sum(1) / np.maximum((true + said).sum(1), 1),
        "weighted_f1": (f1 * true).sum(1) / np.maximum(true.sum(1), 1),
    }


def _interval(drawn: Array) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _per_class(task: Task, hit: Array, true: Array, said: Array) -> dict[str, dict[str, float]]:
    return {
        label: {
            "precision": float(hit[i] / max(1, said[i])),
            "recall": float(hit[i] / max(1, true[i])),
            "f1": float(2 * hit[i] / max(1, true[i] + said[i])),
            "support": int(true[i]),
        }
        for i, label in enumerate(task.labels)
    }


def _digest(digests: Sequence[str], labels: Any) -> str:
    told = labels if isinstance(labels, list) else labels.tolist()
    pairs = "\n".join(f"{d} {label}" for d, label in zip(digests, told, strict=True))
    return hashlib.sha256(pairs.encode()).hexdigest()


# --- the same metrics for users of `evaluate` -----------------------------------------------------------------------


def _sklearn_scores() -> dict[str, Callable[[Array, Array], float]]:
    from sklearn import metrics

    def f1(average: str) -> Callable[[Array, Array], float]:
        return lambda truth, said: float(metrics.f1_score(truth, said, average=average, zero_division=0))

    def macro_f1_min10(truth: Array, said: Array) -> float:
        often = [int(label) for label in np.unique(truth) if (truth == label).sum() >= MIN_ROWS]
        if not often:
            return float("nan")
        return float(metrics.f1_score(truth, said, labels=often, average="macro", zero_division=0))

    def ece(truth: Array, probs: Array) -> float:
        k = probs.shape[1]
        sums = _sums(truth, probs.argmax(1), probs, k, np.arange(len(truth)))
        return float(_values(sums.sum(0)[None], k, np.ones(k, dtype=bool))["ece"][0])

    return {
        "accuracy": lambda truth, said: float(metrics.accuracy_score(truth, said)),
        "macro_f1": f1("macro"), "micro_f1": f1("micro"), "weighted_f1": f1("weighted"),
        "macro_f1_min10": macro_f1_min10, "mcc": lambda truth, said: float(metrics.matthews_corrcoef(truth, said)),
        "ece": ece,
    }  # fmt: skip


def metric(name: str) -> Any:
    """Give a metric as an `evaluate.Metric` that needs no network: `.compute(predictions=..., references=...)`.

    Args:
        name: one of METRICS. Predictions are label indices, for "ece" rows of probabilities.

    Raises:
        HfSynthError: there is no such metric.
    """
    if name not in METRICS:
        raise HfSynthError(f"there is no metric {name!r}; there are {', '.join(METRICS)}")
    return _metric_class()(config_name=name, keep_in_memory=True)


@functools.cache
def _metric_class() -> Any:
    import datasets
    import evaluate as hf_evaluate  # takes seconds to import, hence here

    class SynthMetric(hf_evaluate.Metric):  # type: ignore[misc]
        """One of our metrics; its config is the metric's name."""

        def _info(self) -> Any:
            said = datasets.List(datasets.Value("float32")) if self.config_name == "ece" else datasets.Value("int64")
            features = datasets.Features({"predictions": said, "references": datasets.Value("int64")})
            return hf_evaluate.MetricInfo(
                description=f"{self.config_name} of hf_synth.evaluation, by scikit-learn's definition",
                citation="", inputs_description="predictions, references", features=features,
            )  # fmt: skip

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            found = _sklearn_scores()[self.config_name](np.asarray(references), np.asarray(predictions))
            return {self.config_name: found}

    return SynthMetric
