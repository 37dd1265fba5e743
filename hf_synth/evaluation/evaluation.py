"""Scores of a model on rows with true labels, with intervals, and paired comparison of two models.

What is computed from which sums is in `metrics`. Rows of one group (a patient, an admission) are drawn together in
every interval.
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
from hf_synth.evaluation.scoring import RANKED, drawn_values, judge, values_of
from hf_synth.evaluation.statistics import interval
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import model_facts, weights_sha256
from hf_synth.models.text2text import generate_text
from hf_synth.task.columns import access_of
from hf_synth.task.labels import groups_of, judged_mask, label_indices, label_matrix, row_digests, target_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one set of rows.

    Args:
        task: full name of the task.
        n: number of rows.
        values: each metric's value, by the names in `metrics`. `macro_f1_min10` only if a class has 10 rows; `ece`,
            `auroc` and `auprc` only from probabilities; `patient_*` (each group's largest label against its largest
            prediction) where the task names one among its metrics and rows come in groups. Of a multi_label task
            accuracy is exact set match; what nobody judged counts nowhere.
        ci95: each metric's 95% bootstrap interval over groups, (low, high); of a single group all values that the
            metric can have.
        per_class: precision, recall, f1 and support of each label, and its auroc and auprc against the rest where they
            are defined; empty for text2text.
        confusion: rows by true label (first index) and predicted label, K x K; of single_label tasks only.
        model: what was scored: its name, base model, access, rows it was trained on, sha256 of its weights.
        dataset: what it was scored on: rows, groups, access, a digest of texts and labels, and how many rows were
            `seen` (the model was trained on them, or they stand in `exclude`).
        bootstrap: how many resamples, and the seed; `n_ranks` where auroc and auprc were drawn less often.
        excluded: scores without the rows that were seen; None when no row was, or all were.
        calibration: of a single_label task scored by probabilities, what `calibration.calibration_facts` gives: the
            temperature, and the bins of the reliability picture before and after; `by_label` breaks accuracy,
            confidence and ece down by the label that was said.
        labels, predictions, groups: for each row of a single_label task, for paired comparison; not in `to_json`
            unless asked for.
        row_values: more of each row for that, likewise: `said`, the probabilities of a single_label task or what was
            said of each label of a multi_label task, (N, K); of the latter also `sets` and `judged` (N, K), `groups`
            (N,).
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

    def to_json(self, *, rows: bool = False) -> dict[str, Any]:
        """Give plain values for `json.dump`.

        Args:
            rows: also what is told of each row, which `compare` needs and nobody publishes.
        """
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["ci95"] = {name: list(pair) for name, pair in self.ci95.items()}
        plain["excluded"] = self.excluded.to_json(rows=rows) if self.excluded else None
        for name in ("labels", "predictions", "groups"):
            plain[name] = list(plain[name]) if rows else []
        plain["row_values"] = {name: np.asarray(v).tolist() for name, v in self.row_values.items()} if rows else {}
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Scores:
        """Make Scores of what `to_json` gave, of this version or an earlier one, which told less.

        Raises:
            HfSynthError: it is something else.
        """
        try:
            needed = {f.name for f in fields(cls) if f.default is f.default_factory is MISSING}
            told = {f.name: plain[f.name] for f in fields(cls) if f.name in needed or f.name in plain}
            told["ci95"] = {name: (float(pair[0]), float(pair[1])) for name, pair in plain["ci95"].items()}
            told["excluded"] = cls.from_json(plain["excluded"]) if plain.get("excluded") else None
            for name in ("labels", "predictions", "groups"):
                told[name] = tuple(int(v) for v in plain.get(name, ()))
            told["row_values"] = {name: np.asarray(v) for name, v in plain.get("row_values", {}).items()}
        except (KeyError, TypeError, AttributeError, ValueError):
            raise HfSynthError("this JSON holds no scores: write it with `hf-synth evaluate --out`") from None
        return cls(**told)


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
        exclude: rows that it should not be judged on, by text (training rows); scores without them, and without any row
            that the model's facts say it saw, are in `.excluded`.
        predicted: what `predict` gave for these rows, where it is known already.
        cache_dir: a private folder of the user's that keeps the tokens of texts, as for `predict_proba`.

    Raises:
        ModelError: the model cannot be loaded or is not of this task.
        ColumnError: a text or label is missing, or there is no row.
    """
    labels = truth(task, dataset)
    if not len(labels):
        raise ColumnError("there is no row to score a model on")
    asked = predicted is None
    said = predict(task, model, dataset, progress=progress, cache_dir=cache_dir) if asked else predicted
    judged = judged_mask(task, dataset) if task.kind == "multi_label" else None
    groups = groups_of(dataset)
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
    made = score(task, said, labels, groups, judged=judged, n_bootstrap=n_bootstrap, seed=seed)
    made = replace(made, model=about_model, dataset=about_rows | {"seen": int((~new).sum())})
    if new.all() or not new.any():
        return made
    some = [None if v is None else [v[i] for i in np.flatnonzero(new)] for v in (said, labels, groups, judged)]
    rest = score(task, *some[:3], judged=some[3], n_bootstrap=n_bootstrap, seed=seed)
    return replace(made, excluded=rest)


def predict(
    task: Task, model: str | Path, dataset: Dataset, *, progress: bool = False, cache_dir: str | Path | None = None
) -> Any:
    """Ask a model about each row: probabilities (N, K), or for a text2text task N texts.

    Args:
        cache_dir: a private folder of the user's that keeps the tokens of texts; unused for text2text tasks.

    Raises:
        ModelError: the model cannot be loaded or is not of this task.
        ColumnError: a text is missing.
    """
    if task.kind == "text2text":
        return generate_text(task, model, dataset, progress=progress)
    return predict_proba(task, model, dataset, progress=progress, cache_dir=cache_dir)


def truth(task: Task, dataset: Dataset) -> Any:
    """Read what is true of each row: label indices (N,), 0 and 1 for each label (N, K), or target texts.

    Raises:
        ColumnError: a label is missing or not the task's.
    """
    if task.kind == "text2text":
        return target_texts(task, dataset)
    return label_matrix(task, dataset) if task.kind == "multi_label" else label_indices(task, dataset)


# --- scores of predictions ------------------------------------------------------------------------------------------
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
        labels: true label indices, (N,); multi_label: 0 and 1 (N, K); text2text: N texts.
        groups: what rows are drawn together by, (N,); each row by itself when None.
        judged: of a multi_label task, which labels somebody judged, 1 or 0 (N, K); all when None.

    Raises:
        ColumnError: shapes do not fit, an index is not one of the task's labels, or nobody judged anything.
    """
    found = judge(task, predicted, labels, groups, judged=judged)
    values = values_of(found, np.ones((1, len(found.sums))))
    n_ranks = min(n_bootstrap, max(200, RANKED // max(1, found.ranked)))
    drawn = drawn_values(found, n_bootstrap, seed, n_ranks=n_ranks)
    of_probabilities = task.kind == "single_label" and np.ndim(predicted) == 2
    fewer = {"n_ranks": n_ranks} if n_ranks < n_bootstrap and found.ranked else {}
    return Scores(
        task=task.full_name,
        n=len(labels),
        values={name: float(value[0]) for name, value in values.items()},
        ci95={name: _drawn_interval(name, many, len(found.sums)) for name, many in drawn.items()},
        row_values=_row_values(task, predicted, labels, groups, judged),
        bootstrap={"n": n_bootstrap, "seed": seed, **fewer},
        calibration=_calibration(task, labels, predicted, found.more["groups"]) if of_probabilities else {},
        **found.more,
    )


def _calibration(task: Task, labels: Any, predicted: Any, groups: Any) -> dict[str, Any]:
    said = [task.labels[k] for k in np.argmax(predicted, axis=1)]
    facts = calibration_facts(labels, predicted, groups)
    return facts | {"by_label": calibration_by(labels, predicted, said)}


def _row_values(task: Task, predicted: Any, labels: Any, groups: Sequence[Any] | None, judged: Any) -> dict[str, Any]:
    """Give what `compare` needs of each row beside labels and predictions."""
    if task.kind == "text2text" or np.ndim(predicted) != 2:
        return {}
    said = {"said": np.asarray(predicted)}
    if task.kind == "single_label":
        return said
    known = np.ones(np.shape(labels)) if judged is None else np.asarray(judged)
    return said | {
        "sets": (np.asarray(labels) > 0.5).astype(np.int8), "judged": (known > 0.5).astype(np.int8),
        "groups": group_codes(groups, len(labels)),
    }  # fmt: skip


def _drawn_interval(metric: str, drawn: Any, n_groups: int, *, difference: bool = False) -> tuple[float, float]:
    """Give the interval of draws; of one group, which tells nothing of others, all values that the metric can have."""
    if n_groups > 1:
        return interval(drawn, n_groups)
    low, high = -1.0 if metric == "mcc" else 0.0, 1.0
    return (low - high, high - low) if difference else (low, high)


def _digest(digests: Sequence[str], labels: Any) -> str:
    told = labels if isinstance(labels, list) else labels.tolist()
    pairs = "\n".join(f"{d} {label}" for d, label in zip(digests, told, strict=True))
    return hashlib.sha256(pairs.encode()).hexdigest()
