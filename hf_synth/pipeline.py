"""Correction of Datasets: cross-fitting, refits, and the choice of a method; what may be known from which rows.

A corrector is the folder (or repo id) of a trained model, whose facts say which rows it saw, or a function
`fit(rows) -> predict` with `predict(rows) -> (N, K)`, which lets every opinion on a row come from a model that did not
see the row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction import METHODS, Choice, Corrected, Policy, apply, choose, fit
from hf_synth.errors import ColumnError, OverlapError, TaskError
from hf_synth.gold import adopt
from hf_synth.modeling import model_facts, predict_proba
from hf_synth.rows import label_indices
from hf_synth.task import Task, access_of, check_columns, row_digests, strictest

if TYPE_CHECKING:
    from datasets import Dataset

Predict = Callable[["Dataset"], npt.ArrayLike]
Fit = Callable[["Dataset"], Predict]
Floats = npt.NDArray[np.float64]

FOLDS = 5  # of gold, for opinions on rows that a model did not see
ROUNDS = 2  # of refits of the corrector on gold and corrected rows
PREFER = ("posterior", "agree", "clean_drop", "none", "argmax")  # the order of robustness on the real-input benchmark

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Views:
    """Opinions on rows, each from models that did not see the row.

    Args:
        gold: probabilities for the gold rows, (M, K).
        synthetic: probabilities for the synthetic rows, (N, K).
        by_fold: for each fold of gold, probabilities for the synthetic rows from a model that did not see that fold;
            None where one model saw no gold of these.
        fold: fold of each gold row, (M,).
    """

    gold: Floats
    synthetic: Floats
    by_fold: Sequence[Floats] | None
    fold: npt.NDArray[np.int64]


def fit_policy(
    task: Task,
    pilot: Dataset,
    corrector: str | Path | Fit,
    gold: Dataset,
    *,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    seed: int = 0,
) -> Policy:
    """Fit a policy on some synthetic rows and held-out gold, for rows that come later.

    Args:
        pilot: synthetic rows of the same making; some hundred.
        corrector: the model whose opinion will be used.
        gold: rows that the corrector never saw, or with out-of-fold `label_probs`; any gold rows with a `fit`.
        method: one of METHODS, or "auto" (all but cross-fitted refits, which need the rows themselves).
        audited: true labels of some pilot rows that a person checked, by row id.

    Raises:
        OverlapError: the corrector was trained on some of the gold.
        ColumnError: columns are missing.
        TaskError: unknown method, or a task that has no labels.
    """
    rows = _usable(task, _contract(task, pilot))
    views = _views(task, rows, corrector, gold, seed)
    return _policy(task, rows, gold, views, method, _audited(task, rows, audited), seed)[0]


def correct(
    task: Task,
    synthetic: Dataset,
    corrector: str | Path | Fit,
    *,
    gold: Dataset,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    seed: int = 0,
) -> Dataset:
    """Correct the labels of synthetic rows.

    With a `fit` the method "posterior" refits the corrector on gold and corrected rows, twice, each half of the rows
    judged by a model that was trained on the other half.

    Args:
        synthetic: rows of `generate`, or any with the task's text columns and `llm_label`.
        corrector, gold, method, audited: as for `fit_policy`.

    Returns:
        The same rows in the same order with `task.corrected_features()`; rejected rows as they were.

    Raises:
        OverlapError: the corrector was trained on some of the gold.
        ColumnError: columns are missing.
        TaskError: unknown method, or a task that has no labels.
    """
    return correct_with_policy(task, synthetic, corrector, gold=gold, method=method, audited=audited, seed=seed)[0]


def correct_with_policy(
    task: Task,
    synthetic: Dataset,
    corrector: str | Path | Fit,
    *,
    gold: Dataset,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    seed: int = 0,
) -> tuple[Dataset, Policy]:
    """Do what `correct` does, and give the policy as well."""
    everything = _contract(task, synthetic)
    rows = _usable(task, everything)
    views = _views(task, rows, corrector, gold, seed)
    checked = _audited(task, rows, audited)
    policy, probs = _policy(task, rows, gold, views, method, checked, seed)
    if policy.method == "posterior" and callable(corrector):
        policy, probs = _refits(task, rows, gold, corrector, policy, probs, views.gold, checked, seed)
    elif policy.method == "clean_drop" and callable(corrector):
        probs = _union_probs(task, rows, gold, corrector, seed)
    meant = label_indices(task, rows, "llm_label")
    done = apply(policy, meant, probs)
    for line in policy.warnings:
        _LOG.warning("correction: %s", line)
    return _written(task, everything, done, strictest(task.access, access_of(everything), access_of(gold))), policy


# --- opinions -------------------------------------------------------------------------------------------------------


def _views(task: Task, rows: Dataset, corrector: str | Path | Fit, gold: Dataset, seed: int) -> _Views:
    check_columns(task, gold, what="gold")
    if len(gold) < 2:
        raise ColumnError("correction needs gold rows to measure the corrector on")
    fold = folds(label_indices(task, gold), gold["group"] if "group" in gold.column_names else None, FOLDS, seed)
    if callable(corrector):
        return _cross_fitted(task, rows, corrector, gold, fold)
    synthetic = np.asarray(predict_proba(corrector, task, rows), dtype=np.float64)
    if "label_probs" in gold.column_names:
        return _Views(np.asarray(gold["label_probs"], dtype=np.float64), synthetic, None, fold)
    seen = set(model_facts(corrector)["row_digests"])
    both = sum(d in seen for d in row_digests(task, gold.select_columns(list(task.text_columns))))
    if both:
        raise OverlapError(
            f"the corrector was trained on {both} of the {len(gold)} gold rows it is to be judged on; give gold that it "
            "never saw (a validation split), or a fit function instead of a model"
        )
    return _Views(np.asarray(predict_proba(corrector, task, gold), dtype=np.float64), synthetic, None, fold)


def _cross_fitted(task: Task, rows: Dataset, fit_rows: Fit, gold: Dataset, fold: npt.NDArray[np.int64]) -> _Views:
    """Train a corrector without each fold of gold; a synthetic row gets the mean of their opinions."""
    out = np.zeros((len(gold), len(task.labels)))
    by_fold = []
    for k in range(int(fold.max()) + 1):
        predict = fit_rows(gold.select(np.flatnonzero(fold != k)))
        held = np.flatnonzero(fold == k)
        out[held] = np.asarray(predict(gold.select(held)))
        by_fold.append(np.asarray(predict(rows), dtype=np.float64))
    return _Views(out, np.mean(by_fold, axis=0), by_fold, fold)


def folds(labels: npt.NDArray[np.int64], groups: Sequence[Any] | None, k: int, seed: int) -> npt.NDArray[np.int64]:
    """Assign rows to k folds, (N,): groups stay whole, labels are spread evenly, rare ones too."""
    names = [str(g) for g in groups] if groups is not None else [str(i) for i in range(len(labels))]
    rng = np.random.default_rng(seed)
    rarity = np.bincount(labels)
    first: dict[str, int] = {}
    for name, label in zip(names, labels.tolist(), strict=True):  # a group counts by its rarest label
        first[name] = min(first.get(name, label), label, key=lambda c: (rarity[c], c))
    order = sorted(first, key=lambda name: (rarity[first[name]], first[name]))
    shuffled = {name: rng.random() for name in order}
    order.sort(key=lambda name: (rarity[first[name]], first[name], shuffled[name]))
    k = min(k, len(order))
    place = {name: i % k for i, name in enumerate(order)}
    return np.array([place[name] for name in names], dtype=np.int64)


# --- policies -------------------------------------------------------------------------------------------------------


def _policy(
    task: Task, rows: Dataset, gold: Dataset, views: _Views, method: str, audited: Mapping[int, int], seed: int
) -> tuple[Policy, Floats]:
    meant, truth = label_indices(task, rows, "llm_label"), label_indices(task, gold)
    given: dict[str, Any] = {"gold_label": truth, "gold_probs": views.gold, "audited": audited}
    if method != "auto":
        return fit(method, llm_label=meant, pred_probs=views.synthetic, **given), views.synthetic
    choice, shift = _choose(task, rows, gold, views, meant, truth, audited, seed)
    policy = fit(choice.method, llm_label=meant, pred_probs=views.synthetic, **given)
    figures = dict(policy.figures) | {
        "auto_scores": dict(choice.scores), "auto_behind": {m: list(b) for m, b in choice.behind.items()},
        "auto_why": choice.why, "gold_against_synthetic_auc": shift,
    }  # fmt: skip
    return replace(policy, figures=figures), views.synthetic


def _choose(
    task: Task,
    rows: Dataset,
    gold: Dataset,
    views: _Views,
    meant: Any,
    truth: Any,
    audited: Mapping[int, int],
    seed: int,
) -> tuple[Choice, float]:
    """Score each method by a linear head: trained on the other folds of gold and the rows it gives, tested on a fold.

    What a method does to the rows is decided without the fold it is tested on.
    """
    x_gold, x_rows = _features(task, gold, rows)
    hits = {m: np.zeros(len(truth)) for m in METHODS}
    for k in range(int(views.fold.max()) + 1):
        inside, held = np.flatnonzero(views.fold != k), np.flatnonzero(views.fold == k)
        opinions = views.synthetic if views.by_fold is None else views.by_fold[k]
        for method in METHODS:
            policy = fit(
                method, llm_label=meant, pred_probs=opinions, gold_label=truth[inside], gold_probs=views.gold[inside],
                audited=audited,
            )  # fmt: skip
            done = apply(policy, meant, opinions)
            hits[method][held] = _head(x_gold[inside], truth[inside], x_rows, done, x_gold[held], seed) == truth[held]
    return choose(hits, truth, prefer=PREFER), _shift(x_gold, x_rows, seed)


def _features(task: Task, gold: Dataset, rows: Dataset) -> tuple[Any, Any]:
    """Give frozen features of texts: TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    def texts(dataset: Dataset) -> list[str]:
        return ["\n".join(row) for row in zip(*(dataset[c] for c in task.text_columns), strict=True)]

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=50_000)
    both = vectorizer.fit_transform(texts(gold) + texts(rows))
    return both[: len(gold)], both[len(gold) :]


def _head(x_gold: Any, y_gold: Any, x_rows: Any, done: Corrected, x_test: Any, seed: int) -> npt.NDArray[np.int64]:
    from scipy.sparse import vstack
    from sklearn.svm import LinearSVC

    used = np.flatnonzero(done.weight > 0)
    x = vstack([x_gold, x_rows[used]])
    y = np.concatenate([y_gold, done.label[used]])
    weight = np.concatenate([np.ones(len(y_gold)), done.weight[used] * done.confidence[used]])
    if len(np.unique(y)) == 1:
        return np.full(x_test.shape[0], y[0])
    return np.asarray(LinearSVC(C=0.5, random_state=seed).fit(x, y, weight).predict(x_test))


def _shift(x_gold: Any, x_rows: Any, seed: int) -> float:
    """Tell how well gold and synthetic text can be told apart: the AUC of a linear head, .5 not at all, 1 always."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x, y = vstack([x_gold, x_rows]).tocsr(), np.r_[np.zeros(x_gold.shape[0]), np.ones(x_rows.shape[0])]
    half = np.random.default_rng(seed).permutation(len(y)) % 2 == 0
    if len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return float("nan")
    said = (
        LogisticRegression(C=1.0, class_weight="balanced", max_iter=200)
        .fit(x[half], y[half])
        .decision_function(x[~half])
    )
    return round(float(roc_auc_score(y[~half], said)), 4)


# --- refits ---------------------------------------------------------------------------------------------------------


def _refits(
    task: Task, rows: Dataset, gold: Dataset, fit_rows: Fit, policy: Policy, probs: Floats, gold_probs: Floats,
    audited: Mapping[int, int], seed: int,
) -> tuple[Policy, Floats]:  # fmt: skip
    """Refit the corrector on gold and corrected rows, in halves; a round that does worse on held-out gold is not kept."""
    meant, truth = label_indices(task, rows, "llm_label"), label_indices(task, gold)
    figures = dict(policy.figures)
    for number in range(1, ROUNDS + 1):
        done = apply(policy, meant, probs)
        written = _written(task, rows, done, "open")
        new_gold, new_rows = _halves(task, gold, written, fit_rows, seed + number)
        if _log_loss(truth, new_gold, policy) > _log_loss(truth, gold_probs, policy):
            figures[f"refit_{number}"] = "not kept: worse on held-out gold"
            break
        refitted = fit(
            "posterior", llm_label=meant, pred_probs=new_rows, gold_label=truth, gold_probs=new_gold, audited=audited
        )
        figures[f"refit_{number}"] = refitted.figures["corrector_accuracy_on_held_out_gold"]
        policy, probs, gold_probs = refitted, new_rows, new_gold
    merged = figures | {k: v for k, v in policy.figures.items() if k not in ("auto_scores", "auto_behind", "auto_why")}
    return replace(policy, figures=merged), probs


def _log_loss(truth: npt.NDArray[np.int64], probs: Floats, policy: Policy) -> float:
    return float(-np.log(np.maximum(probs[np.arange(len(truth)), truth], 1e-6)).mean())


def _halves(task: Task, gold: Dataset, rows: Dataset, fit_rows: Fit, seed: int) -> tuple[Floats, Floats]:
    """Judge each half of gold and rows by a corrector trained on the other half of both."""
    from hf_synth.augmentation import augment

    side_gold = folds(label_indices(task, gold), gold["group"] if "group" in gold.column_names else None, 2, seed)
    side_rows = np.random.default_rng(seed).permutation(len(rows)) % 2
    k = len(task.labels)
    out_gold, out_rows = np.zeros((len(gold), k)), np.zeros((len(rows), k))
    for side in (0, 1):
        theirs = gold.select(np.flatnonzero(side_gold != side)), rows.select(np.flatnonzero(side_rows != side))
        predict = fit_rows(augment(*theirs, seed=seed))
        mine_gold, mine_rows = np.flatnonzero(side_gold == side), np.flatnonzero(side_rows == side)
        out_gold[mine_gold] = np.asarray(predict(gold.select(mine_gold)))
        out_rows[mine_rows] = np.asarray(predict(rows.select(mine_rows)))
    return out_gold, out_rows


def _union_probs(task: Task, rows: Dataset, gold: Dataset, fit_rows: Fit, seed: int) -> Floats:
    """Judge rows by models trained on the other half of gold and uncorrected rows: what confident learning asks for."""
    n, k = len(rows), len(task.labels)
    meant = label_indices(task, rows, "llm_label")
    raw = apply(Policy("none", k), meant, np.full((n, k), 1.0 / k))
    return _halves(task, gold, _written(task, rows, raw, "open"), fit_rows, seed)[1]


# --- rows -----------------------------------------------------------------------------------------------------------


def _contract(task: Task, synthetic: Dataset) -> Dataset:
    """Give rows in the column contract: ours as they are, rows made elsewhere adopted."""
    if task.kind != "single_label":
        raise TaskError(
            f"task {task.full_name!r} is {task.kind}: only labels of single_label tasks are corrected for now"
        )
    ours = {"label_status", "llm_label", "seed_ids", "id"} <= set(synthetic.column_names)
    return synthetic if ours else adopt(task, synthetic)


def _usable(task: Task, rows: Dataset) -> Dataset:
    check_columns(task, rows, "llm_label", "label_status", what="the synthetic dataset")
    used = [i for i, status in enumerate(rows["label_status"]) if status != "rejected"]
    if not used:
        raise ColumnError("there is no synthetic row to correct: all were rejected")
    return rows if len(used) == len(rows) else rows.select(used)


def _audited(task: Task, rows: Dataset, audited: Mapping[str, int | str] | None) -> dict[int, int]:
    if not audited:
        return {}
    place = {id: i for i, id in enumerate(rows["id"])}
    missing = [id for id in audited if id not in place]
    if missing:
        raise ColumnError(f"{len(missing)} audited ids are not among the synthetic rows")
    names = {name: i for i, name in enumerate(task.labels)}
    try:
        return {place[id]: names[v] if isinstance(v, str) else int(v) for id, v in audited.items()}
    except KeyError:
        raise ColumnError(f"an audited label is none of the task's: {', '.join(task.labels)}") from None


def _written(task: Task, rows: Dataset, done: Corrected, access: str) -> Dataset:
    """Write decisions into the rows that were not rejected, in place and order; other columns stay as they are."""
    import pyarrow as pa
    from datasets import Dataset, Features

    statuses = list(rows["label_status"])
    at = np.flatnonzero([s != "rejected" for s in statuses])
    columns: dict[str, list[Any]] = {
        task.label_column: list(rows[task.label_column]), "label_status": statuses, "reason": list(rows["reason"]),
        "label_probs": [None] * len(rows), "label_confidence": [None] * len(rows), "weight": [0.0] * len(rows),
        "access": [strictest(access, a) for a in rows["access"]],
    }  # fmt: skip
    for k, i in enumerate(at.tolist()):
        columns[task.label_column][i] = int(done.label[k])
        columns["label_status"][i], columns["reason"][i] = str(done.status[k]), str(done.reason[k])
        columns["label_probs"][i] = done.probs[k].tolist()
        columns["label_confidence"][i], columns["weight"][i] = float(done.confidence[k]), float(done.weight[k])
    wanted = dict(task.corrected_features())
    extra = {c: f for c, f in rows.features.items() if c not in wanted}
    features = Features(wanted | extra)
    table = rows.with_format("arrow")[:]
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else table[f.name].cast(f.type)
        for f in features.arrow_schema
    ]
    return Dataset(pa.table(arrays, schema=features.arrow_schema))
