"""Scores of a model on rows with true labels: metrics with 95% intervals, calibration.

An interval is for the score in the population that the rows were drawn from, group by group (a patient, an admission).
The metrics are computed in `metrics`, the intervals in `intervals`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.calibration import calibration_by, calibration_facts
from hf_synth.evaluation.metrics import group_codes
from hf_synth.evaluation.scoring import prepare
from hf_synth.models.base_models import is_toy
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import model_facts, weights_sha256
from hf_synth.models.text2text import generate_text
from hf_synth.task.columns import access_of
from hf_synth.task.display import Displayed, listed
from hf_synth.task.labels import groups_of, judged_mask, label_indices, label_matrix, right_texts, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset


_FIRST = ("macro_f1", "accuracy", "rouge_l", "token_f1", "exact_match")  # scores that are shown before others


@dataclass(frozen=True, repr=False)
class Scores(Displayed):
    """Scores of one model on one set of rows.

    Args:
        task: full name of the task.
        n: number of rows.
        values: each metric's value, by the names in `metrics`. `macro_f1_min10` only if a class has 10 rows; `ece`,
            `auroc` and `auprc` only from probabilities; `patient_*` (each group's largest label against its largest
            prediction) where the task names one among its metrics and rows come in groups. Of a multi_label task
            accuracy is exact set match; labels that were not judged count nowhere.
        ci95: the 95% interval of each metric that has one, (low, high). The calibration error has none: chance raises
            it in few rows. Rows of a single group have none.
        no_interval: why each other metric has none, e.g. "too few rows of 'severe': 2, and 5 are needed". A macro score
            and AUROC need 5 rows of each label of the task, AUPRC 10 of each label that occurs; macro precision needs 5
            predictions of each label, and MCC 5 rows and 5 predictions of two labels.
        per_class: precision, recall, f1 and support of each label, and its auroc and auprc against the rest where they
            are defined; empty for text2text.
        class_ci95: the 95% intervals of precision, recall and f1 of each label with 5 rows.
        confusion: rows by true label (first index) and predicted label, K x K; of single_label tasks only.
        model: the model's name, base model, access, rows it was trained on, sha256 of its weights; `toy` where the base
            model is a tiny one made on the spot, whose scores mean nothing.
        dataset: the dataset's rows, groups, access, a digest of texts and labels, and how many rows were `seen` (the
            model was trained on them, or they stand in `exclude`).
        bootstrap: resamples and seed, of scores that an earlier version wrote.
        excluded: scores without the rows that were seen; None when no row was, or all were.
        calibration: of a single_label task scored from probabilities, the figures of `calibration.calibration_facts`
            (temperature, bins of the reliability diagram before and after); `by_label` breaks accuracy, confidence and
            ece down by predicted label.
        labels, predictions, groups: for each row of a single_label task, for paired comparison; in `to_json` only on
            request.
        row_values: more values by row for that, likewise: `said`, the predicted probabilities or sets, (N, K); of a
            multi_label task also `sets` and `judged` (N, K), `groups` (N,).
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
    calibration: dict[str, Any] = field(default_factory=dict)
    labels: tuple[int, ...] = field(default=(), repr=False)
    predictions: tuple[int, ...] = field(default=(), repr=False)
    groups: tuple[int, ...] = field(default=(), repr=False)
    row_values: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    no_interval: dict[str, str] = field(default_factory=dict)
    class_ci95: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return task and rows; the first scores with their intervals, the recall by label, and what was trained."""
        patients = int(self.dataset.get("groups") or 0)
        rows = f"{self.n:,} rows" + (f" of {patients:,} patients or notes" if 0 < patients < self.n else "")
        scores = []
        for name in [*(n for n in _FIRST if n in self.values), *(n for n in self.values if n not in _FIRST)][:3]:
            limits = self.ci95.get(name)
            scores.append(
                f"{name} {self.values[name]:.3f}" + (f" ({limits[0]:.3f} to {limits[1]:.3f})" if limits else "")
            )
        found = (
            f"{label} {round(of['recall'] * of['support']):,} of {int(of['support']):,}"
            for label, of in self.per_class.items()
        )
        trained = self.model.get("rows")
        model = f"{self.model.get('base_model') or 'unknown base model'}, trained on {trained or 'unknown'} rows"
        lines = [("scores (95% CI)", " | ".join(scores)), ("found", listed(found))]
        lines += [("never found", listed(self.never_found)), ("model", model if self.model else "")]
        return f"{self.task}, {rows}", lines

    @property
    def never_found(self) -> dict[str, int]:
        """The labels that the model never finds, with the number of rows that have them: those with most rows first."""
        counts = {label: int(of["support"]) for label, of in self.per_class.items() if not of["recall"]}
        return dict(sorted(((a, n) for a, n in counts.items() if n), key=lambda item: (-item[1], item[0])))

    def to_json(self, *, rows: bool = False) -> dict[str, Any]:
        """Return plain values for `json.dump`.

        Args:
            rows: whether to include the values of each row, which `compare` needs and which are never published.
        """
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["ci95"] = {name: list(pair) for name, pair in self.ci95.items()}
        plain["class_ci95"] = {
            label: {kind: list(pair) for kind, pair in pairs.items()} for label, pairs in self.class_ci95.items()
        }
        plain["never_found"] = self.never_found
        plain["excluded"] = self.excluded.to_json(rows=rows) if self.excluded else None
        for name in ("labels", "predictions", "groups"):
            plain[name] = list(plain[name]) if rows else []
        plain["row_values"] = {name: np.asarray(v).tolist() for name, v in self.row_values.items()} if rows else {}
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Scores:
        """Read the values of `to_json`, of this version or of an earlier one with fewer fields.

        Raises:
            HfSynthError: the values are not those of scores.
        """
        try:
            needed = {f.name for f in fields(cls) if f.default is f.default_factory is MISSING}
            values = {f.name: plain[f.name] for f in fields(cls) if f.name in needed or f.name in plain}
            if not all(isinstance(values.get(name) or {}, Mapping) for name in ("model", "dataset", "values")):
                raise TypeError
            values["ci95"] = _pairs(plain["ci95"])
            values["class_ci95"] = {label: _pairs(of) for label, of in plain.get("class_ci95", {}).items()}
            values["excluded"] = cls.from_json(plain["excluded"]) if plain.get("excluded") else None
            for name in ("labels", "predictions", "groups"):
                values[name] = tuple(int(v) for v in plain.get(name, ()))
            values["row_values"] = {name: np.asarray(v) for name, v in plain.get("row_values", {}).items()}
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise HfSynthError("the JSON holds no scores: write it with `hf-synth evaluate --out`") from None
        return cls(**values)


def evaluate(
    task: Task,
    model: str | Path,
    dataset: Dataset,
    *,
    exclude: Dataset | None = None,
    predicted: Any = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: bool = False,
    cache_dir: str | Path | None = None,
) -> Scores:
    """Score a model on rows with true labels.

    Args:
        model: folder or repo id of a trained classifier, or of a sequence-to-sequence model for a text2text task.
        exclude: rows to leave out by their texts (training rows); scores without them, and without any row that the
            model's facts say it saw, are in `.excluded`.
        predicted: the result of `predict` for these rows, where there is one already.
        n_bootstrap, seed: see `score`.
        cache_dir: a private folder that keeps the tokens of texts, as for `predict_proba`.

    Raises:
        ModelError: the model cannot be loaded or is not of this task.
        ColumnError: a text or label is missing, or there is no row.

    Example:
        >>> scores = evaluate(task, model, gold["test"])
        >>> 0 <= scores.values["macro_f1"] <= 1
        True
    """
    labels = truth(task, dataset)
    if not len(labels):
        raise ColumnError("there is no row to score a model on")
    if predicted is None:
        predicted = predict(task, model, dataset, progress=progress, cache_dir=cache_dir)
    judged = judged_mask(task, dataset) if task.kind == "multi_label" else None
    groups = groups_of(dataset)
    facts = model_facts(model)
    digests = row_digests(task, dataset.select_columns(list(task.text_columns)))
    about_model = {
        "name": Path(model).name if Path(model).is_dir() else str(model),
        **{key: facts.get(key) for key in ("access", "task", "base_model", "base_revision", "rows")},
        "weights_sha256": weights_sha256(model),
    }
    if is_toy(facts):
        about_model["toy"] = True
    about_rows = {
        "n": len(labels),
        "groups": int(group_codes(groups, len(labels)).max()) + 1,
        "access": access_of(dataset),
        "sha256": _digest(digests, labels),
    }
    seen = set(facts["row_digests"])
    if exclude is not None:
        seen |= set(row_digests(task, exclude.select_columns(list(task.text_columns))))
    new = np.array([d not in seen for d in digests])
    scores = score(task, predicted, labels, groups, judged=judged, n_bootstrap=n_bootstrap, seed=seed)
    scores = replace(scores, model=about_model, dataset=about_rows | {"seen": int((~new).sum())})
    if new.all() or not new.any():
        return scores
    kept = np.flatnonzero(new)
    some = [None if v is None else [v[i] for i in kept] for v in (predicted, labels, groups, judged)]
    return replace(scores, excluded=score(task, *some[:3], judged=some[3], n_bootstrap=n_bootstrap, seed=seed))


def predict(
    task: Task, model: str | Path, dataset: Dataset, *, progress: bool = False, cache_dir: str | Path | None = None
) -> Any:
    """Predict with a model: probabilities (N, K), or for a text2text task N texts.

    Args:
        cache_dir: a private folder that keeps the tokens of texts; unused for text2text tasks.

    Raises:
        ModelError: the model cannot be loaded or is not of this task.
        ColumnError: a text is missing.
    """
    if task.kind == "text2text":
        return generate_text(task, model, dataset, progress=progress)
    return predict_proba(task, model, dataset, progress=progress, cache_dir=cache_dir)


def truth(task: Task, dataset: Dataset) -> Any:
    """Read the true labels: indices (N,), 0 and 1 for each label of a multi_label task (N, K), or target texts.

    Target texts are N texts, or N lists of right ones where the rows have the column `other_targets`.

    Raises:
        ColumnError: a label is missing or not the task's.
    """
    if task.kind == "text2text":
        return right_texts(task, dataset)
    return label_matrix(task, dataset) if task.kind == "multi_label" else label_indices(task, dataset)


def score(
    task: Task,
    predicted: Any,
    labels: Any,
    groups: Sequence[Any] | None = None,
    *,
    judged: Any = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score predictions against true labels.

    Args:
        predicted: probabilities (N, K) or label indices (N,); multi_label: probabilities, of which those above 0.5 are
            labels, or 0 and 1 (N, K); text2text: N texts.
        labels: true label indices, (N,); multi_label: 0 and 1 (N, K); text2text: N texts, or N lists of right ones,
            of which the best one counts.
        groups: names of the groups that are drawn whole, (N,); each row by itself when None.
        judged: of a multi_label task, 1 for each judged label, else 0, (N, K); all are judged when None.
        n_bootstrap: 0 leaves the intervals out. Any other number gives the same intervals, which are formulas; earlier
            versions drew as many resamples.
        seed: without effect since no resamples are drawn.

    Raises:
        ColumnError: shapes do not fit, an index is not one of the task's labels, or no label was judged.
    """
    prepared = prepare(task, predicted, labels, groups, judged=judged, limits=n_bootstrap > 0)
    of_probabilities = task.kind == "single_label" and np.ndim(predicted) == 2
    return Scores(
        task=task.full_name,
        n=len(labels),
        values=prepared.values,
        ci95=prepared.ci95,
        no_interval=prepared.no_interval,
        row_values=_row_values(task, predicted, labels, groups, judged),
        calibration=_calibration(task, labels, predicted, prepared.more["groups"]) if of_probabilities else {},
        **prepared.more,
    )


def _pairs(plain: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {name: (float(pair[0]), float(pair[1])) for name, pair in plain.items()}


def _calibration(task: Task, labels: Any, predicted: Any, groups: Any) -> dict[str, Any]:
    names = [task.labels[k] for k in np.argmax(predicted, axis=1)]
    return calibration_facts(labels, predicted, groups) | {"by_label": calibration_by(labels, predicted, names)}


def _row_values(task: Task, predicted: Any, labels: Any, groups: Sequence[Any] | None, judged: Any) -> dict[str, Any]:
    """Return the values of each row that `compare` needs beside labels and predictions."""
    if task.kind == "text2text" or np.ndim(predicted) != 2:
        return {}
    probs = {"said": np.asarray(predicted)}
    if task.kind == "single_label":
        return probs
    known = np.ones(np.shape(labels)) if judged is None else np.asarray(judged)
    sets = {"sets": (np.asarray(labels) > 0.5).astype(np.int8), "judged": (known > 0.5).astype(np.int8)}
    return probs | sets | {"groups": group_codes(groups, len(labels))}


def _digest(digests: Sequence[str], labels: Any) -> str:
    values = labels if isinstance(labels, list) else labels.tolist()
    pairs = "\n".join(f"{d} {label}" for d, label in zip(digests, values, strict=True))
    return hashlib.sha256(pairs.encode()).hexdigest()
