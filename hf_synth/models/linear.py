"""Frozen features of texts and a linear head on them: a model that is trained in a fraction of a second.

`auto` chooses with it, `assess` plans with it, and the benchmarks' grids run on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, TaskError
from hf_synth.task.labels import soft_labels, texts_of, usable_rows
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Predict = Callable[[Ints, Ints], tuple[Floats, Floats]]
WIDTH = 300  # of features
_READ = 20_000  # texts that words and directions are learnt from
_FEW = 20  # texts, of which each word counts
_LIKELY = 0.03  # a soft target counts for a label from here on
_STRENGTH = 20.0  # inverse of regularisation
_STEPS = 60  # of the optimiser, at most
_TOLERANCE = 1e-3  # of the optimiser: the largest slope that is left
_MANY = 10_000  # rows trained on, from which on each is read once, whatever its target


def linear_learner(
    features_gold: Floats, features_rows: Floats, truth: Ints, n_labels: int
) -> Callable[[Ints, Ints, Floats], Predict]:
    """Give a `crossfit.Learn` of softmax regression on frozen features.

    Args:
        features_gold: of gold, (M, D).
        features_rows: of synthetic rows, (N, D).
        truth: labels of gold, (M,).
        n_labels: K.
    """

    def learn(gold: Ints, rows: Ints, targets: Floats) -> Predict:
        if len(gold) + len(rows) < _MANY:
            at, label = np.nonzero(targets > _LIKELY)  # a soft target becomes a weighted row for each label it is for
            x = np.concatenate([features_gold[gold], features_rows[rows[at]]])
            y = np.concatenate([truth[gold], label])
            seen = np.unique(y)
            weight = np.concatenate([np.ones(len(gold)), targets[at, label]])
            proba = _by_labels(x, y, weight) if len(seen) > 1 else None
        else:
            wanted = np.concatenate([np.eye(n_labels)[truth[gold]], np.where(targets > _LIKELY, targets, 0.0)])
            seen = np.flatnonzero(wanted.any(0))
            x = np.concatenate([features_gold[gold], features_rows[rows]])
            proba = _by_targets(x, wanted[:, seen]) if len(seen) > 1 else None

        def predict(gold: Ints, rows: Ints) -> tuple[Floats, Floats]:
            return spread(features_gold[gold]), spread(features_rows[rows])

        def spread(x: Floats) -> Floats:
            probs = np.full((len(x), n_labels), 1e-4)
            if len(x):
                probs[:, seen] += proba(x) if proba is not None else 1.0
            return np.asarray(probs / probs.sum(1, keepdims=True))

        return predict

    return learn


def _by_labels(x: Floats, y: Ints, weight: Floats) -> Callable[[Floats], Any]:
    """Train on weighted rows with one label each; give the function of N rows to probabilities of the labels in y."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_STRENGTH, max_iter=_STEPS, tol=_TOLERANCE)
    with warnings.catch_warnings():  # that the optimum is not reached to the last digit is meant
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y, weight)
    return model.predict_proba  # type: ignore[no-any-return]


def _by_targets(x: Floats, targets: Floats) -> Callable[[Floats], Any]:
    """Do what `_by_labels` does of soft targets (N, K), each row once: the same loss by the same optimiser, in float32.

    A row with five likely labels is five rows there. It starts from nothing as there: weights of an earlier training
    would bring in rows that this model must not have seen.
    """
    from scipy.optimize import minimize

    k, d, weight = targets.shape[1], x.shape[1], targets.sum(1)
    wanted, of_row = targets.astype(x.dtype), weight[:, None].astype(x.dtype)
    total = float(weight.sum())
    strength, free = 1 / (_STRENGTH * total), 1 if k == 2 else k  # of two labels only the second has weights, as there

    def loss(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(free, d + 1)
        raw = _raw(table, x)
        probs = np.exp(raw)
        sums = probs.sum(1, keepdims=True)
        lost = float(weight @ np.log(sums[:, 0].astype(np.float64))) - float(np.vdot(wanted, raw))
        probs *= of_row / sums
        probs -= wanted
        pull = np.ascontiguousarray(probs[:, k - free :])
        slope = np.column_stack([pull.T @ x, pull.sum(0)]).astype(np.float64) / total
        slope[:, :d] += strength * table[:, :d]
        return lost / total + strength / 2 * float((table[:, :d] ** 2).sum()), slope.ravel()

    how = {"maxiter": _STEPS, "maxls": 50, "gtol": _TOLERANCE, "ftol": 64 * np.finfo(float).eps}
    found = minimize(loss, np.zeros(free * (d + 1)), jac=True, method="L-BFGS-B", options=how).x.reshape(free, d + 1)

    def proba(asked: Floats) -> Any:
        raised = np.exp(_raw(found, asked))
        return raised / raised.sum(1, keepdims=True)

    return proba


def _raw(table: Floats, x: Floats) -> Any:
    """Give the logits of N rows, 0 at most, in the features' precision; one row of weights is that of two labels."""
    d = x.shape[1]
    raw = x @ np.ascontiguousarray(table[:, :d].T, dtype=x.dtype)
    raw += table[:, d].astype(x.dtype)
    if len(table) == 1:
        raw = np.concatenate([np.zeros_like(raw), raw], axis=1)
    raw -= raw.max(1, keepdims=True)
    return raw


def feature_map(texts: Sequence[str], *, width: int = WIDTH, seed: int = 0) -> Callable[[Sequence[str]], Floats]:
    """Learn features from texts without labels, and give the function that reads any text: latent semantic analysis.

    TF-IDF of words and word pairs, projected on its first directions (Deerwester et al., 1990) and scaled to length 1:
    some hundred dense numbers a text, on which a head is trained in a fraction of a second.

    Args:
        texts: what is learnt from; at most 20,000 of them, drawn by seed.
        width: directions, at most.

    Returns:
        A function of N texts to (N, D) float32.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    read = np.sort(np.random.default_rng(seed).permutation(len(texts))[:_READ])
    words = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=1 if len(texts) <= _FEW else 2, max_features=50_000,
        token_pattern=r"(?u)\b\w+\b", dtype=np.float32,
    )  # fmt: skip
    try:
        table = words.fit_transform([texts[i] for i in read])
    except ValueError:  # no word stands in two texts, as where a sentence has no spaces
        try:
            table = words.set_params(min_df=1).fit_transform([texts[i] for i in read])
        except ValueError:
            raise ColumnError(f"none of {len(texts)} texts holds a word: there is nothing to learn from") from None
    if min(table.shape) <= width:
        return lambda asked: np.asarray(words.transform(asked).toarray(), dtype=np.float32)
    directions = TruncatedSVD(width, random_state=seed).fit(table)
    return lambda asked: np.asarray(normalize(directions.transform(words.transform(asked))), dtype=np.float32)


def text_features(*texts: Sequence[str], width: int = WIDTH, seed: int = 0) -> list[Floats]:
    """Give features of several lists of texts, learnt from all of them: for each list (N, D) float32."""
    every = [t for part in texts for t in part]
    dense = feature_map(every, width=width, seed=seed)(every)
    ends = np.cumsum([0, *(len(part) for part in texts)])
    return [dense[a:b] for a, b in pairwise(ends)]


def shift(features_gold: Floats, features_rows: Floats, seed: int = 0) -> float:
    """Tell how well gold and synthetic texts can be told apart: the AUC of a linear head, .5 not at all, 1 always."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x = np.concatenate([features_gold, features_rows])
    y = np.r_[np.zeros(len(features_gold)), np.ones(len(features_rows))]
    half = np.random.default_rng(seed).permutation(len(y)) % 2 == 0
    if len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return float("nan")
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=100).fit(x[half], y[half])
    return round(float(roc_auc_score(y[~half], model.decision_function(x[~half]))), 4)


PredictRows = Callable[["Dataset"], Floats]


def linear_fit(task: Task, *read: Dataset, seed: int = 0) -> Callable[[Dataset], PredictRows]:
    """Give a `fit` that trains a linear head: a corrector that can be cross-fitted, or a downstream model.

    Of a multi_label task each label has a head of its own, which learns from the rows that were judged for it.

    Args:
        read: rows whose texts the features are learnt from; their labels are not looked at.
        seed: of the features.

    Raises:
        TaskError: the task is text2text.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text: a linear head chooses among labels, it writes no texts")
    learnt = [text for rows in read for text in texts_of(task, rows)]
    features = feature_map(learnt, seed=seed)
    place: dict[str, int] = {}
    table: list[Floats] = []

    def look(rows: Dataset) -> Ints:
        """Give where each row's features stand; each text's are computed once, since folds ask again and again."""
        texts = texts_of(task, rows)
        new = list(dict.fromkeys(t for t in texts if t not in place))
        if new:
            table[:] = [np.concatenate([*table, features(new)])]
            place.update(zip(new, range(len(place), len(place) + len(new)), strict=True))
        return np.array([place[t] for t in texts], dtype=np.int64)

    def fit(rows: Dataset) -> PredictRows:
        used = usable_rows(rows)
        targets, at = np.asarray(soft_labels(task, used), dtype=np.float64), look(used)
        k = len(task.labels)
        # of each head: targets and how many labels it tells apart; of sets, absence and presence of each label
        heads = [(targets, k)] if task.kind == "single_label" else [(targets[:, [k + j, j]], 2) for j in range(k)]
        trained: dict[int, Any] = {}

        def predict(asked: Dataset) -> Floats:
            held = look(asked)
            x = table[-1]
            if len(x) not in trained:  # what was read since then is not known to the learner
                none, nobody = np.arange(0), np.zeros(0, np.int64)
                trained[len(x)] = [linear_learner(x[:0], x, nobody, n)(none, at, wanted) for wanted, n in heads]
            said = [np.asarray(head(np.arange(0), held)[1], dtype=np.float64) for head in trained[len(x)]]
            return said[0] if task.kind == "single_label" else np.column_stack([one[:, 1] for one in said])

        return predict

    return fit
