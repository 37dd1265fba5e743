"""Correction of sets of labels: each label of a multi_label task is a yes or no, corrected like a label of two values.

What correction.py does with K labels is done here with two, once for each label: a pair of error rates of the generator
(said where it does not hold, left out where it does), the corrector's temperature, a threshold. Gold in which a label
was not judged says nothing of that label; a label of which judged gold knows only one side is left alone. What is done
to a row is what was done to its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.augmentation import augment
from hf_synth.correction.choice import Choice, choose
from hf_synth.correction.crossfit import FOLDS, Learn, Predict, Rows, folds, of_both, of_gold
from hf_synth.correction.noise import confident_noise, denoise
from hf_synth.correction.policy import RELABELS, Policy, apply, fit, weaker
from hf_synth.errors import ColumnError
from hf_synth.models.linear import linear_learner, shift, text_features
from hf_synth.task.labels import groups_of, judged_mask, label_matrix, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Fit = Callable[["Dataset"], Callable[["Dataset"], npt.ArrayLike]]
METHODS = ("none", "argmax", "threshold", "agree", "posterior")
_PREFER = ("posterior", "threshold", "agree", "none", "argmax")  # most robust first
_SPLITS = 2  # ways to cut gold and rows in halves, whose opinions are averaged
_AGREES = {"none": "as_generated", "posterior": "posterior_agrees"}  # why a row stays; "agrees" for the others


@dataclass(frozen=True)
class Sets:
    """What is known of the rows, without their texts.

    Args:
        meant: which labels the generator meant, 0 or 1, (N, K).
        truth: which labels of gold hold, 0 or 1, and -1 where nobody judged, (M, K).
        groups: patients of gold rows, (M,), or None.
    """

    meant: Ints
    truth: Ints
    groups: Sequence[Any] | None = None

    def crossed(self) -> Rows:
        """Give them as rows that can be cross-fitted: gold is spread over folds by its rarest label."""
        there = self.truth == 1
        order = np.argsort(there.sum(0), kind="stable")  # rarest first
        rarest = np.where(there.any(1), order[there[:, order].argmax(1)] + 1, 0)
        return Rows(np.zeros(len(self.meant), dtype=np.int64), rarest, self.groups, self.truth.shape[1], {})

    def judged_both_ways(self, gold: Ints) -> list[int]:
        """Give the labels that some of these gold rows have and some have not."""
        truth = self.truth[gold]
        return np.flatnonzero((truth == 1).any(0) & (truth == 0).any(0)).tolist()


@dataclass(frozen=True)
class CorrectedSets:
    """The decision for each of N rows.

    Args:
        there: whether a label holds, (N, K).
        probs: how probable it is that a label holds, (N, K).
        weight: training weight, 0 for a dropped row, (N,).
        status, reason: of the row as a whole, (N,).
        labels: the policy of each label that was not left alone.
    """

    there: npt.NDArray[np.bool_]
    probs: Floats
    weight: Floats
    status: npt.NDArray[np.str_]
    reason: npt.NDArray[np.str_]
    labels: Mapping[int, Policy]


def correct_sets(
    task: Task,
    rows: Dataset,
    gold: Dataset,
    method: str,
    *,
    opinions: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    fit_rows: Fit | None = None,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], Policy]:
    """Correct the sets of labels of synthetic rows.

    Args:
        rows: synthetic rows, none of them rejected.
        gold: rows with the true labels; where it has `judged`, what was not judged is left out of account.
        method: one of METHODS, or "auto": what a linear head on frozen features that learns from the corrected rows
            scores best with on held-out gold.
        opinions: of one corrector that saw none of the gold: on gold, (M, K), and on the rows, (N, K).
        fit_rows: without `opinions`: trains models, so that each opinion comes from one that did not see the row.

    Returns:
        For each row the columns that correction decides; the policy.

    Raises:
        ColumnError: labels are missing, or opinions are no probabilities.
    """
    truth = np.where(judged_mask(task, gold) > 0, label_matrix(task, gold), -1).astype(np.int64)
    groups = groups_of(gold)
    sets = Sets(label_matrix(task, rows, "llm_label").astype(np.int64), truth, groups)
    known = None
    if opinions is not None:
        known = _checked(task, opinions[0], len(gold)), _checked(task, opinions[1], len(rows))
    x_gold, x_rows = text_features(texts_of(task, gold), texts_of(task, rows))
    heads = linear_heads(x_gold, x_rows, sets)
    told: dict[str, Any] = {"gold_against_synthetic_auc": shift(x_gold, x_rows, seed)}
    if method == "auto":
        choice = choose_for_sets(sets, heads, opinions=known, seed=seed)
        behind = {m: list(b) for m, b in choice.behind.items()}
        told |= {"auto_scores": dict(choice.scores), "auto_behind": behind, "auto_why": choice.why}
        method = choice.method
    learn = None if fit_rows is None or known is not None else _fit_learner(task, gold, rows, fit_rows, seed)
    done = decide_sets(sets, method, learn=learn, head=heads, opinions=known, seed=seed)
    decided = [
        {
            task.label_column: np.flatnonzero(done.there[i]).tolist(), "label_probs": done.probs[i].tolist(),
            "label_status": str(done.status[i]), "reason": str(done.reason[i]),
            "label_confidence": float(np.maximum(done.probs[i], 1 - done.probs[i]).min()),
            "weight": float(done.weight[i]),
        }
        for i in range(len(rows))
    ]  # fmt: skip
    return decided, _policy(task, sets, method, done, told)


# --- deciding -------------------------------------------------------------------------------------------------------
def decide_sets(
    sets: Sets,
    method: str,
    *,
    learn: Learn | None = None,
    head: Learn | None = None,
    opinions: tuple[Floats, Floats] | None = None,
    inside: Ints | None = None,
    seed: int = 0,
    known: dict[bool, tuple[Floats, Floats]] | None = None,
) -> CorrectedSets:
    """Correct sets of labels by a method.

    Args:
        learn: trains a model on gold and rows; targets are how probable each label's presence is, (n, K).
        head: a fast learner that takes the noise out of the labels, so that `learn` trains only two models on them.
        opinions: of one corrector on all gold and on the rows, in the place of models trained by `learn`.
        inside: positions of the gold that may be used; all when None.
        known: keeps opinions that several methods share, for calls with the same gold.
    """
    gold = np.arange(len(sets.truth)) if inside is None else inside
    there, probs = sets.meant.astype(bool), sets.meant.astype(np.float64)
    dropped, policies = np.zeros(len(there), bool), {}
    if method != "none" and (active := sets.judged_both_ways(gold)):
        held, said = _opinions(sets, method, learn, head, opinions, gold, seed, {} if known is None else known)
        for j in active:
            policies[j] = fit(
                method, llm_label=sets.meant[:, j], pred_probs=_two(said[:, j]), gold_label=sets.truth[gold, j],
                gold_probs=_two(held[:, j]), calibrate=opinions is not None or method != "posterior",
                bounds=False,
            )  # fmt: skip
            done = apply(policies[j], sets.meant[:, j], _two(said[:, j]))
            there[:, j], probs[:, j] = done.label == 1, done.probs[:, 1]
            dropped |= done.weight == 0
    same = (there == (sets.meant == 1)).all(1)
    stays = _AGREES.get(method, "agrees") if policies or method == "none" else "abstained"
    changed = "argmax" if method in RELABELS else "posterior"
    status = np.where(dropped, "dropped", np.where(same, "kept", "relabelled"))
    reason = np.where(dropped, "disagrees", np.where(same, stays, changed))
    return CorrectedSets(there, probs, 1.0 - dropped, status, reason, policies)


def _opinions(
    sets: Sets,
    method: str,
    learn: Learn | None,
    head: Learn | None,
    opinions: tuple[Floats, Floats] | None,
    gold: Ints,
    seed: int,
    known: dict[bool, tuple[Floats, Floats]],
) -> tuple[Floats, Floats]:
    """Give opinions on gold and rows of models that did not see the row; "posterior" learns from the rows as well."""
    if opinions is not None:
        return opinions[0][gold], opinions[1]
    assert learn is not None
    both = method == "posterior"
    if both not in known:
        known[both] = _refitted(sets, learn, head, gold, seed) if both else of_gold(sets.crossed(), learn, gold, seed)
    return known[both]


def _refitted(sets: Sets, learn: Learn, head: Learn | None, gold: Ints, seed: int) -> tuple[Floats, Floats]:
    """Train on half of gold and rows as they are, take the noise out of each label, and train again on the beliefs."""
    crossed = sets.crossed()
    _, first = of_both(crossed, head or learn, gold, sets.meant.astype(np.float64), seed, _SPLITS)
    beliefs = np.empty_like(first)
    for j in range(first.shape[1]):
        meant, probs = sets.meant[:, j], _two(first[:, j])
        noise = confident_noise(meant, probs)
        belief = denoise(probs, noise) * noise[:, meant].T
        beliefs[:, j] = (belief / np.maximum(belief.sum(1, keepdims=True), 1e-300))[:, 1]
    return of_both(crossed, learn, gold, beliefs, seed + 1, _SPLITS if head is None else 1)


def _two(presence: Floats) -> Floats:
    """Give the probabilities of absence and presence, (N, 2)."""
    return np.stack([1 - presence, presence], axis=1)


def choose_for_sets(
    sets: Sets, learn: Learn, *, opinions: tuple[Floats, Floats] | None = None, seed: int = 0
) -> Choice:
    """Choose a method by what heads that learn from its rows score on gold that had no part in any of it.

    The score is the mean of two shares of judged labels that are right: over all of them, and over each label's
    presences and absences alike. "argmax" is no candidate where the corrector is weaker for most labels.

    Args:
        learn: fast heads, one a label.
        opinions: of one trained corrector on gold and rows, which then decides on labels in the place of `learn`.
    """
    crossed = sets.crossed()
    fold = folds(crossed.truth, sets.groups, FOLDS, seed)
    cell_weight = _cell_weights(sets.truth)
    worth = {m: np.zeros(len(sets.truth)) for m in METHODS}
    weak: list[bool] = []
    for k in range(int(fold.max()) + 1):
        inside, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        known: dict[bool, tuple[Floats, Floats]] = {}
        for method in METHODS:
            done = decide_sets(sets, method, learn=learn, opinions=opinions, inside=inside, seed=seed, known=known)
            if method == "argmax":
                weak += [weaker(policy.figures) for policy in done.labels.values()]
            used = np.flatnonzero(done.weight > 0)
            said, _ = learn(inside, used, done.probs[used])(held, np.arange(0))
            hits = (said > 0.5) == (sets.truth[held] == 1)
            worth[method][held] = (hits * cell_weight[held]).sum(1)
    if weak and np.mean(weak) >= 0.5:
        del worth["argmax"]
    return choose(worth, np.zeros(len(sets.truth), dtype=np.int64), prefer=_PREFER, groups=sets.groups)


def _cell_weights(truth: Ints) -> Floats:
    """Weigh judged labels so that the mean over rows of their weighted hits is the score of `choose_for_sets`."""
    weight = np.zeros(truth.shape)
    sides = [(truth[:, j] == value, j) for j in range(truth.shape[1]) for value in (0, 1)]
    seen = [(rows, j) for rows, j in sides if rows.any()]
    for rows, j in seen:
        weight[rows, j] = 0.5 / (truth >= 0).sum() + 0.5 / (len(seen) * rows.sum())
    return weight * len(truth)


# --- models ---------------------------------------------------------------------------------------------------------
def linear_heads(features_gold: Floats, features_rows: Floats, sets: Sets) -> Learn:
    """Give a `crossfit.Learn` of one logistic regression a label; gold that was not judged for a label has no part."""
    heads = [
        linear_learner(features_gold, features_rows, np.maximum(sets.truth[:, j], 0), 2)
        for j in range(sets.truth.shape[1])
    ]

    def learn(gold: Ints, rows: Ints, targets: Floats) -> Predict:
        predicts = [
            head(gold[sets.truth[gold, j] >= 0], rows, _two(targets[:, j])) if _any(sets, gold, rows, j) else None
            for j, head in enumerate(heads)
        ]

        def predict(gold: Ints, rows: Ints) -> tuple[Floats, Floats]:
            held, said = np.full((len(gold), len(heads)), 0.5), np.full((len(rows), len(heads)), 0.5)
            for j, one in enumerate(predicts):
                if one is not None:
                    first, second = one(gold, rows)
                    held[:, j], said[:, j] = first[:, 1], second[:, 1]
            return held, said

        return predict

    return learn


def _any(sets: Sets, gold: Ints, rows: Ints, j: int) -> bool:
    return len(rows) > 0 or bool((sets.truth[gold, j] >= 0).any())


def _fit_learner(task: Task, gold: Dataset, rows: Dataset, fit_rows: Fit, seed: int) -> Learn:
    """Give a `Learn` that trains by a user's `fit` on gold rows and synthetic rows with probabilities of presence."""

    def learn(gold_at: Ints, rows_at: Ints, targets: Floats) -> Predict:
        data = gold.select(gold_at)
        if len(rows_at):
            data = augment(task, _believed(task, rows.select(rows_at), targets), gold=data, seed=seed)
        predict = fit_rows(data)

        def said(dataset: Dataset, at: Ints) -> Floats:
            if not len(at):
                return np.zeros((0, len(task.labels)))
            return _checked(task, predict(dataset.select(at)), len(at))

        return lambda gold_at, rows_at: (said(gold, gold_at), said(rows, rows_at))

    return learn


def _believed(task: Task, rows: Dataset, probs: Floats) -> Dataset:
    """Give rows to be trained on, with what is believed of their labels."""
    from datasets import Dataset, Features

    wanted, n = task.corrected_features(), len(rows)
    columns = {c: list(rows[c][:]) for c in ("id", *task.text_columns, "source", "seed_ids", "access")}
    columns[task.label_column] = [np.flatnonzero(p > 0.5).tolist() for p in probs]
    columns |= {"label_status": ["kept"] * n, "label_probs": probs.tolist(), "weight": [1.0] * n}
    return Dataset.from_dict(columns, features=Features({c: wanted[c] for c in columns}))


def _checked(task: Task, said: npt.ArrayLike, n: int) -> Floats:
    probs = np.asarray(said, dtype=np.float64)
    if probs.shape != (n, len(task.labels)) or not np.isfinite(probs).all() or (probs < 0).any() or (probs > 1).any():
        raise ColumnError(f"a corrector of {task.full_name!r} gives {len(task.labels)} numbers between 0 and 1 a row")
    return probs


# --- what is told ---------------------------------------------------------------------------------------------------
def _policy(task: Task, sets: Sets, method: str, done: CorrectedSets, told: Mapping[str, Any]) -> Policy:
    """Sum up the policies of the labels."""
    names = ("corrector_accuracy_on_held_out_gold", "corrector_balanced_accuracy_on_held_out_gold",
             "corrector_temperature", "generator_accuracy_estimated")  # fmt: skip
    labels = {}
    for j, policy in done.labels.items():
        noise = policy.noise
        labels[task.labels[j]] = {
            "gold_judged": int((sets.truth[:, j] >= 0).sum()),
            **{name: policy.figures[name] for name in names},
            "said_wrongly_estimated": noise[0][1],
            "left_out_estimated": noise[1][0],
            "threshold": policy.threshold,
        }
    alone = [j for j in range(len(task.labels)) if j not in done.labels] if method != "none" else []
    weak = [task.labels[j] for j, policy in done.labels.items() if weaker(policy.figures)]
    warnings = []
    if weak:
        warnings.append(f"for {len(weak)} of {len(labels)} labels the corrector looks weaker than the generator")
    if alone:
        warnings.append(f"{len(alone)} labels are left alone: judged gold does not know them both there and not there")
    figures = {
        "gold_rows": len(sets.truth), "synthetic_rows": len(sets.meant), "labels": labels,
        "labels_left_alone": [task.labels[j] for j in alone], "corrector_weaker_for": weak, **told,
    }  # fmt: skip
    return Policy(method, len(task.labels), unseen=tuple(alone), figures=figures, warnings=tuple(warnings))
