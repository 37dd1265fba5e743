"""Cross-fitting: every opinion on a row comes from a model that did not see the row; and the choice of a method.

Knows no model: a `Learn` trains one on some gold rows and some synthetic rows with soft targets. The encoder and the
fast linear head that `auto` chooses with both go through here, so that what is chosen is what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction import (
    METHODS,
    Choice,
    Corrected,
    Policy,
    apply,
    choose,
    confident_noise,
    denoise,
    estimate_noise,
    fit,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Predict = Callable[[Ints, Ints], tuple[Floats, Floats]]
Learn = Callable[[Ints, Ints, Floats], Predict]
# learn(gold positions, synthetic positions, soft targets of those (n, K)) -> predict
# predict(gold positions, synthetic positions) -> probabilities of each

FOLDS = 5  # of gold
ROUNDS = 1  # of refits on gold and corrected rows; a second one gained nothing on real text
PREFER = ("posterior", "clean_drop", "agree", "none", "argmax")  # from the most to the least robust


@dataclass(frozen=True)
class Rows:
    """What is known of the rows, without their texts.

    Args:
        meant: what the generator meant, (N,).
        truth: labels of gold, (M,).
        groups: patients of gold rows, (M,), or None.
        n_labels: K.
        audited: true labels of synthetic rows that a person checked, by position.
    """

    meant: Ints
    truth: Ints
    groups: Sequence[Any] | None
    n_labels: int
    audited: Mapping[int, int]


def folds(labels: Ints, groups: Sequence[Any] | None, k: int, seed: int) -> Ints:
    """Assign rows to k folds, (N,): groups stay whole, labels are spread evenly, rare ones too."""
    names = [str(g) for g in groups] if groups is not None else [str(i) for i in range(len(labels))]
    rng = np.random.default_rng(seed)
    rarity = np.bincount(labels)
    rarest: dict[str, int] = {}
    for name, label in zip(names, labels.tolist(), strict=True):  # a group counts by its rarest label
        rarest[name] = min(rarest.get(name, label), label, key=lambda c: (rarity[c], c))
    drawn = {name: rng.random() for name in rarest}
    order = sorted(rarest, key=lambda name: (rarity[rarest[name]], rarest[name], drawn[name]))
    place = {name: i % min(k, len(order)) for i, name in enumerate(order)}
    return np.array([place[name] for name in names], dtype=np.int64)


def decide(
    rows: Rows,
    learn: Learn,
    method: str,
    *,
    inside: Ints | None = None,
    seed: int = 0,
    known: dict[str, Any] | None = None,
) -> tuple[Policy, Corrected]:
    """Correct rows by a method, with models trained by `learn`.

    Args:
        method: one of METHODS.
        inside: positions of the gold that may be used; all when None.
        known: keeps opinions that several methods share, for calls with the same gold.

    Returns:
        The policy, and the decision for each synthetic row.
    """
    gold = np.arange(len(rows.truth)) if inside is None else inside
    known = {} if known is None else known
    k = rows.n_labels
    if method == "none":
        out, opinions = np.full((len(gold), k), 1.0 / k), np.full((len(rows.meant), k), 1.0 / k)
    elif method in ("argmax", "agree"):
        out, opinions = known.setdefault("gold", None) or _of_gold(rows, learn, gold, seed)
        known["gold"] = out, opinions
    else:
        out, opinions = known.setdefault("both", None) or _of_both(rows, learn, gold, np.eye(k)[rows.meant], seed)
        known["both"] = out, opinions
    if method == "posterior":
        out, opinions = _refits(rows, learn, gold, opinions, seed)
    policy = fit(
        method, llm_label=rows.meant, pred_probs=opinions, gold_label=rows.truth[gold], gold_probs=out,
        audited=rows.audited, calibrate=False,
    )  # fmt: skip
    return policy, apply(policy, rows.meant, opinions)


def _of_gold(rows: Rows, learn: Learn, gold: Ints, seed: int) -> tuple[Floats, Floats]:
    """Train on gold alone, without each fold; a synthetic row gets the mean of the opinions. The paper's corrector."""
    fold = folds(rows.truth[gold], _groups(rows, gold), FOLDS, seed)
    every, none = np.arange(len(rows.meant)), np.arange(0)
    out = np.zeros((len(gold), rows.n_labels))
    opinions = []
    for k in range(int(fold.max()) + 1):
        predict = learn(gold[fold != k], none, np.zeros((0, rows.n_labels)))
        out[fold == k], said = predict(gold[fold == k], every)
        opinions.append(said)
    return out, np.asarray(np.mean(opinions, axis=0))


def _of_both(rows: Rows, learn: Learn, gold: Ints, targets: Floats, seed: int) -> tuple[Floats, Floats]:
    """Train on half of gold and of the synthetic rows with their present targets; judge the other half of both."""
    side_gold = folds(rows.truth[gold], _groups(rows, gold), 2, seed)
    side_rows = np.random.default_rng(seed).permutation(len(rows.meant)) % 2
    out, opinions = np.zeros((len(gold), rows.n_labels)), np.zeros((len(rows.meant), rows.n_labels))
    for side in (0, 1):
        theirs = np.flatnonzero(side_rows != side)
        mine = np.flatnonzero(side_rows == side)
        predict = learn(gold[side_gold != side], theirs, targets[theirs])
        out[side_gold == side], opinions[mine] = predict(gold[side_gold == side], mine)
    return out, opinions


def _groups(rows: Rows, gold: Ints) -> list[Any] | None:
    return None if rows.groups is None else [rows.groups[i] for i in gold]


def _refits(rows: Rows, learn: Learn, gold: Ints, opinions: Floats, seed: int) -> tuple[Floats, Floats]:
    """Refit on gold and present beliefs; each row is judged by a model that saw neither it nor its label.

    Args:
        opinions: of models trained on the uncorrected labels: the noise in them is taken out first.
    """
    noise = confident_noise(rows.meant, opinions)
    opinions = denoise(opinions, noise)
    out = np.zeros((len(gold), rows.n_labels))
    for number in range(1, ROUNDS + 1):
        belief = opinions * noise[:, rows.meant].T
        belief /= np.maximum(belief.sum(1, keepdims=True), 1e-300)
        for row, label in rows.audited.items():
            belief[row] = np.eye(rows.n_labels)[label]
        out, opinions = _of_both(rows, learn, gold, belief, seed + number)
        noise = estimate_noise(rows.meant, opinions, rows.audited)
    return out, opinions


def choose_method(
    rows: Rows,
    learn: Learn,
    *,
    opinions: tuple[Floats, Floats] | None = None,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
) -> Choice:
    """Choose a method by what a model trained on its rows scores on gold that had no part in any of it.

    Args:
        learn: should be fast: it is called some dozen times for each fold.
        opinions: of one trained model on gold that it never saw, (M, K), and on the rows, (N, K); it is used in the
            place of models trained by `learn` to decide on labels.
    """
    fold = folds(rows.truth, rows.groups, FOLDS, seed)
    every = np.arange(len(rows.meant))
    hits = {m: np.zeros(len(rows.truth)) for m in methods}
    for k in range(int(fold.max()) + 1):
        inside, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        known: dict[str, Any] = {}
        for method in methods:
            if opinions is None:
                done = decide(rows, learn, method, inside=inside, seed=seed, known=known)[1]
            else:
                policy = fit(
                    method, llm_label=rows.meant, pred_probs=opinions[1], gold_label=rows.truth[inside],
                    gold_probs=opinions[0][inside], audited=rows.audited,
                )  # fmt: skip
                done = apply(policy, rows.meant, opinions[1])
            used = every[done.weight > 0]
            said, _ = learn(inside, used, done.probs[used])(held, np.arange(0))
            hits[method][held] = said.argmax(1) == rows.truth[held]
    return choose(hits, rows.truth, prefer=PREFER)


def linear_learner(features_gold: Any, features_rows: Any, truth: Ints, n_labels: int) -> Learn:
    """Give a `Learn` of softmax regression on frozen features, which takes a fraction of a second.

    Args:
        features_gold: dense features of gold, (M, D).
        features_rows: of synthetic rows, (N, D).
    """
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    def learn(gold: Ints, rows: Ints, targets: Floats) -> Predict:
        at, label = np.nonzero(targets > 0.05)  # a soft target becomes a weighted row for each label it holds likely
        x = vstack([features_gold[gold], features_rows[rows[at]]])
        y = np.concatenate([truth[gold], label])
        weight = np.concatenate([np.ones(len(gold)), targets[at, label]])
        seen = np.unique(y)
        model = LogisticRegression(C=10.0, max_iter=60, tol=1e-3).fit(x, y, weight) if len(seen) > 1 else None

        def predict(gold: Ints, rows: Ints) -> tuple[Floats, Floats]:
            return spread(features_gold[gold]), spread(features_rows[rows])

        def spread(x: Any) -> Floats:
            probs = np.full((x.shape[0], n_labels), 1e-4)
            if x.shape[0]:
                probs[:, seen] += model.predict_proba(x) if model is not None else 1.0
            return np.asarray(probs / probs.sum(1, keepdims=True))

        return predict

    return learn


def text_features(*texts: Sequence[str]) -> list[Any]:
    """Give frozen features of texts, fitted on all of them without labels: TF-IDF of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    both = [t for part in texts for t in part]
    table = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=50_000).fit_transform(both)
    ends = np.cumsum([0, *(len(part) for part in texts)])
    return [table[a:b] for a, b in pairwise(ends)]


def shift(features_gold: Floats, features_rows: Floats, seed: int = 0) -> float:
    """Tell how well gold and synthetic texts can be told apart: the AUC of a linear head, .5 not at all, 1 always."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x = vstack([features_gold, features_rows]).tocsr()
    y = np.r_[np.zeros(features_gold.shape[0]), np.ones(features_rows.shape[0])]
    half = np.random.default_rng(seed).permutation(len(y)) % 2 == 0
    if len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return float("nan")
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=100).fit(x[half], y[half])
    return round(float(roc_auc_score(y[~half], model.decision_function(x[~half]))), 4)
