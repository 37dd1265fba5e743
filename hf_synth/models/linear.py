"""TF-IDF and SVD features of texts (latent semantic analysis), and softmax regression on them: the linear head.

It is trained in a fraction of a second: correction's `auto` chooses a method with it, `assess` measures with it, and an
experiment can use it as a downstream model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, TaskError
from hf_synth.task.labels import Floats, Ints, soft_labels, texts_of, usable_rows
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Predict = Callable[[Ints, Ints], tuple[Floats, Floats]]
PredictRows = Callable[["Dataset"], Floats]

WIDTH = 300  # of features
_SAMPLE = 20_000  # texts that the vocabulary and the SVD are fitted to, at most
_FEW = 20  # up to so many texts a word needs to occur in one only
_LIKELY = 0.03  # smaller probabilities of a soft target are left out
_STRENGTH = 20.0  # inverse of the L2 penalty
_STEPS = 60  # of L-BFGS, at most
_TOLERANCE = 1e-3  # of L-BFGS: the largest component of the gradient
_MANY = 10_000  # training rows from which on a soft target is fitted directly, not as weighted rows of one label


def feature_map(texts: Sequence[str], *, width: int = WIDTH, seed: int = 0) -> Callable[[Sequence[str]], Floats]:
    """Fit latent semantic analysis to texts: TF-IDF of words and word pairs, projected by a truncated SVD.

    Features have length 1 (Deerwester et al., 1990). No labels are used.

    Args:
        texts: at most 20,000 of them are used, drawn by seed.
        width: number of features, at most.

    Returns:
        A function from N texts to features, (N, D) float32.

    Raises:
        ColumnError: no text holds a word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[:_SAMPLE])
    sample = [texts[i] for i in chosen]
    least = 1 if len(texts) <= _FEW else 2
    options = {"ngram_range": (1, 2), "sublinear_tf": True, "max_features": 50_000, "token_pattern": r"(?u)\b\w+\b"}
    words = TfidfVectorizer(min_df=least, dtype=np.float32, **options)
    try:
        table = words.fit_transform(sample)
    except ValueError:  # no word stands in two texts, as where a sentence has no spaces
        try:
            table = words.set_params(min_df=1).fit_transform(sample)
        except ValueError:
            raise ColumnError(f"none of {len(texts)} texts holds a word, so no features can be learnt") from None
    if min(table.shape) <= width:
        return lambda texts: np.asarray(words.transform(texts).toarray(), dtype=np.float32)
    svd = TruncatedSVD(width, random_state=seed).fit(table)
    return lambda texts: np.asarray(normalize(svd.transform(words.transform(texts))), dtype=np.float32)


def text_features(*texts: Sequence[str], width: int = WIDTH, seed: int = 0) -> list[Floats]:
    """Return features of several lists of texts, fitted to all of them: for each list (N, D) float32."""
    every = [t for part in texts for t in part]
    features = feature_map(every, width=width, seed=seed)(every)
    ends = np.cumsum([0, *(len(part) for part in texts)])
    return [features[a:b] for a, b in pairwise(ends)]


def shift(features_gold: Floats, features_rows: Floats, seed: int = 0) -> float:
    """Compute the AUC of a linear classifier of gold against synthetic texts: 0.5 where they are alike."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x = np.concatenate([features_gold, features_rows])
    y = np.r_[np.zeros(len(features_gold)), np.ones(len(features_rows))]
    half = np.random.default_rng(seed).permutation(len(y)) % 2 == 0
    if len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return float("nan")
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=100).fit(x[half], y[half])
    return round(float(roc_auc_score(y[~half], model.decision_function(x[~half]))), 4)


def linear_fit(task: Task, *read: Dataset, seed: int = 0) -> Callable[[Dataset], PredictRows]:
    """Return a `fit(rows)` that trains a linear head: a corrector that can be cross-fitted, or a downstream model.

    For a multi_label task each label has its own binary head, trained on the rows that were judged for it.

    Args:
        read: rows whose texts the features are fitted to; their labels are not used.
        seed: of the features.

    Raises:
        TaskError: the task is text2text.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text: a linear head chooses among labels, it writes no texts")
    features = feature_map([text for rows in read for text in texts_of(task, rows)], seed=seed)
    place: dict[str, int] = {}
    table: list[Floats] = []
    none: Ints = np.zeros(0, dtype=np.int64)

    def places(rows: Dataset) -> Ints:
        """Return the row of the table that holds each text's features; they are computed once for all folds."""
        texts = texts_of(task, rows)
        new = list(dict.fromkeys(t for t in texts if t not in place))
        if new:
            table[:] = [np.concatenate([*table, features(new)])]
            place.update(zip(new, range(len(place), len(place) + len(new)), strict=True))
        return np.array([place[t] for t in texts], dtype=np.int64)

    def fit(rows: Dataset) -> PredictRows:
        usable = usable_rows(rows)
        targets, at = np.asarray(soft_labels(task, usable), dtype=np.float64), places(usable)
        k = len(task.labels)
        # of each head: targets and number of classes; of a multi_label task absence and presence of one label
        heads = [(targets, k)] if task.kind == "single_label" else [(targets[:, [k + j, j]], 2) for j in range(k)]
        trained: dict[int, Any] = {}

        def predict(rows: Dataset) -> Floats:
            wanted = places(rows)
            x = table[-1]
            if len(x) not in trained:  # the learner was made with a smaller table
                trained[len(x)] = [linear_learner(x[:0], x, none, n)(none, at, target) for target, n in heads]
            probs = [np.asarray(head(none, wanted)[1], dtype=np.float64) for head in trained[len(x)]]
            return probs[0] if task.kind == "single_label" else np.column_stack([p[:, 1] for p in probs])

        return predict

    return fit


def linear_learner(
    features_gold: Floats, features_rows: Floats, truth: Ints, n_labels: int
) -> Callable[[Ints, Ints, Floats], Predict]:
    """Return a `crossfit.Learn`: softmax regression on fixed features.

    Args:
        features_gold: of gold, (M, D).
        features_rows: of synthetic rows, (N, D).
        truth: labels of gold, (M,).
        n_labels: K.
    """

    def learn(gold: Ints, rows: Ints, targets: Floats) -> Predict:
        if len(gold) + len(rows) < _MANY:
            at, label = np.nonzero(targets > _LIKELY)  # a soft target becomes a weighted row for each likely label
            x = np.concatenate([features_gold[gold], features_rows[rows[at]]])
            y = np.concatenate([truth[gold], label])
            classes = np.unique(y)
            weight = np.concatenate([np.ones(len(gold)), targets[at, label]])
            proba = _fit_weighted(x, y, weight) if len(classes) > 1 else None
        else:
            soft = np.concatenate([np.eye(n_labels)[truth[gold]], np.where(targets > _LIKELY, targets, 0.0)])
            classes = np.flatnonzero(soft.any(0))
            x = np.concatenate([features_gold[gold], features_rows[rows]])
            proba = _fit_soft(x, soft[:, classes]) if len(classes) > 1 else None

        def predict(gold: Ints, rows: Ints) -> tuple[Floats, Floats]:
            return spread(features_gold[gold]), spread(features_rows[rows])

        def spread(x: Floats) -> Floats:
            probs = np.full((len(x), n_labels), 1e-4)
            if len(x):
                probs[:, classes] += proba(x) if proba is not None else 1.0
            return np.asarray(probs / probs.sum(1, keepdims=True))

        return predict

    return learn


def _fit_weighted(x: Floats, y: Ints, weight: Floats) -> Callable[[Floats], Any]:
    """Fit weighted rows of one label each; return a function from N rows to probabilities of the labels in y."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_STRENGTH, max_iter=_STEPS, tol=_TOLERANCE)
    with warnings.catch_warnings():  # few steps are meant
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y, weight)
    return model.predict_proba  # type: ignore[no-any-return]


def _fit_soft(x: Floats, targets: Floats) -> Callable[[Floats], Any]:
    """Fit soft targets (N, K) with the loss and the optimiser of `_fit_weighted`, each row once, in x's precision.

    In `_fit_weighted` a row with five likely labels is five rows. A borderline row may get another label here
    (docs/results/correction_speed.md). Both start from zero: the weights of an earlier fit would carry over rows that
    this model must not have seen.
    """
    from scipy.optimize import minimize

    k, d, weight = targets.shape[1], x.shape[1], targets.sum(1)
    target, row_weight = targets.astype(x.dtype), weight[:, None].astype(x.dtype)
    total = float(weight.sum())
    penalty, free = 1 / (_STRENGTH * total), 1 if k == 2 else k  # of two labels only the second has coefficients

    def loss(flat: Floats) -> tuple[float, Floats]:
        table = flat.reshape(free, d + 1)
        logits = _logits(table, x)
        probs = np.exp(logits)
        sums = probs.sum(1, keepdims=True)
        entropy = float(weight @ np.log(sums[:, 0].astype(np.float64))) - float(np.vdot(target, logits))
        probs *= row_weight / sums
        probs -= target
        residual = np.ascontiguousarray(probs[:, k - free :])
        gradient = np.column_stack([residual.T @ x, residual.sum(0)]).astype(np.float64) / total
        gradient[:, :d] += penalty * table[:, :d]
        return entropy / total + penalty / 2 * float((table[:, :d] ** 2).sum()), gradient.ravel()

    options = {"maxiter": _STEPS, "maxls": 50, "gtol": _TOLERANCE, "ftol": 64 * np.finfo(float).eps}
    result = minimize(loss, np.zeros(free * (d + 1)), jac=True, method="L-BFGS-B", options=options)
    coefficients = result.x.reshape(free, d + 1)

    def proba(x: Floats) -> Any:
        exponentials = np.exp(_logits(coefficients, x))
        return exponentials / exponentials.sum(1, keepdims=True)

    return proba


def _logits(table: Floats, x: Floats) -> Any:
    """Return the logits of N rows less their maximum, in x's precision; one row of coefficients means two labels."""
    d = x.shape[1]
    logits = x @ np.ascontiguousarray(table[:, :d].T, dtype=x.dtype)
    logits += table[:, d].astype(x.dtype)
    if len(table) == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    logits -= logits.max(1, keepdims=True)
    return logits
