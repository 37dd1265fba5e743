"""TF-IDF and SVD features of texts (latent semantic analysis), and softmax regression on them: the linear head.

It is trained in a fraction of a second: correction's `auto` chooses a method with it, `assess` measures with it, and an
experiment can use it as a downstream model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
LEARNT_ON = 5_000  # texts that features are fitted to, where many rows need features only so that a method is chosen
COMPARED = 1_000  # gold rows and synthetic rows whose texts are compared, where nothing else needs features of all
_SAMPLE = 20_000  # texts that the vocabulary and the SVD are fitted to, at most
_BLOCK = 10_000  # texts whose words are counted at once
_FEW = 20  # up to so many texts a word needs to occur in one only
_LIKELY = 0.03  # smaller probabilities of a soft target are left out
_STRENGTH = 20.0  # inverse of the L2 penalty
_STEPS = 60  # of L-BFGS, at most
_TOLERANCE = 1e-3  # of L-BFGS: the largest component of the gradient


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


def text_features(*texts: Sequence[str], width: int = WIDTH, seed: int = 0, most: int | None = None) -> list[Floats]:
    """Return features of several lists of texts: for each list (N, D) float32.

    Args:
        most: texts of each list that the features are fitted to, drawn by seed; all when None.
    """
    every = [t for part in texts for t in part]
    fitted = [part if most is None else [part[i] for i in draw_positions(len(part), most, seed)] for part in texts]
    features = feature_map([t for part in fitted for t in part], width=width, seed=seed)
    table = np.concatenate([features(every[i : i + _BLOCK]) for i in range(0, max(1, len(every)), _BLOCK)])
    ends = np.cumsum([0, *(len(part) for part in texts)])
    return [table[a:b] for a, b in pairwise(ends)]


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


def text_shift(task: Task, gold: Dataset, rows: Dataset, *, most: int = COMPARED, seed: int = 0) -> float:
    """Compute `shift` of gold and synthetic rows from features of at most `most` rows of each, drawn by seed."""
    some = (part.select(draw_positions(len(part), most, seed)) for part in (gold, rows))
    of_gold, of_rows = text_features(*(texts_of(task, part) for part in some))
    return shift(of_gold, of_rows, seed)


def draw_positions(count: int, most: int, seed: int, always: Iterable[int] = ()) -> Ints:
    """Return at most `most` of `count` positions, ascending, drawn by seed, and those of `always` among them."""
    if count <= most:
        return np.arange(count)
    some = np.random.default_rng(seed).permutation(count)[:most]
    return np.union1d(some, np.fromiter(always, dtype=np.int64))


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


def _fit_soft(x: Floats, targets: Floats) -> Callable[[Floats], Any]:
    """Fit softmax regression to soft targets (N, K); return a function from N rows to probabilities of the K labels."""
    table = fit_softmax(x, targets, penalty=1 / _STRENGTH)

    def proba(x: Floats) -> Any:
        exponentials = np.exp(_logits(table, x))
        return exponentials / exponentials.sum(1, keepdims=True)

    return proba


def fit_softmax(x: Floats, targets: Floats, *, penalty: float) -> Floats:
    """Fit softmax regression to soft targets by L-BFGS, in x's precision.

    Every fit starts from zero: the weights of an earlier fit would carry over rows that this model must not have seen.

    Args:
        x: features, (N, D).
        targets: (N, K), K above 1; the sum of a row is its weight.
        penalty: L2 penalty of the coefficients, beside the sum of the rows' losses; intercepts are free.

    Returns:
        Coefficients, (D + 1, K), the intercepts last.
    """
    from scipy.optimize import minimize

    k, d, weight = targets.shape[1], x.shape[1], targets.sum(1)
    target, row_weight = targets.astype(x.dtype), weight[:, None].astype(x.dtype)
    total = float(weight.sum())
    shrink, first = penalty / total, 1 if k == 2 else 0  # of two labels only the second has coefficients

    def spread(flat: Floats) -> Floats:
        table = np.zeros((d + 1, k))
        table[:, first:] = flat.reshape(d + 1, k - first)
        return table

    def loss(flat: Floats) -> tuple[float, Floats]:
        table = spread(flat)
        logits = _logits(table, x)
        probs = np.exp(logits)
        sums = probs.sum(1, keepdims=True)
        entropy = float(weight @ np.log(sums[:, 0].astype(np.float64))) - float(np.vdot(target, logits))
        probs *= row_weight / sums
        probs -= target
        gradient = np.vstack([x.T @ probs, probs.sum(0)]).astype(np.float64)[:, first:] / total
        gradient[:d] += shrink * table[:d, first:]
        return entropy / total + shrink / 2 * float((table[:d] ** 2).sum()), gradient.ravel()

    options = {"maxiter": _STEPS, "maxls": 50, "gtol": _TOLERANCE, "ftol": 64 * np.finfo(float).eps}
    start = np.zeros((d + 1) * (k - first))
    return spread(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)


def _logits(table: Floats, x: Floats) -> Any:
    """Return the logits of N rows less their maximum, in x's precision."""
    logits = x @ table[:-1].astype(x.dtype)
    logits += table[-1].astype(x.dtype)
    logits -= logits.max(1, keepdims=True)
    return logits
