"""Correction of sets of labels: each label of a multi_label task is corrected like a task of two labels.

Each label has its own error rates of the generator, temperature of the corrector and threshold, from the functions of
`policy` with K = 2. Gold in which a label was not judged is left out for that label; a label that judged gold has only
present or only absent is left alone. A row is dropped ("agree") where any of its labels is contradicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.augmentation import augment, training_rows
from hf_synth.correction.choice import CHOSEN_ON, NOTHING, Choice, choose, unmeasured
from hf_synth.correction.crossfit import (
    FOLDS,
    Learn,
    Predict,
    Rows,
    folds,
    learner_of_part,
    opinions_from_gold,
    opinions_from_halves,
)
from hf_synth.correction.fitting import fit
from hf_synth.correction.lineage import Lineage, fold_groups, lineage_of
from hf_synth.correction.methods import methods_of
from hf_synth.correction.noise import confident_noise, denoise
from hf_synth.correction.policy import RELABELS, Policy, apply
from hf_synth.correction.priors import Prior
from hf_synth.errors import ColumnError
from hf_synth.models.linear import LEARNT_ON, draw_positions, linear_learner, shift, text_features, text_shift
from hf_synth.reports.progress import counted
from hf_synth.task.labels import Floats, Ints, judged_mask, label_matrix, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Fit = Callable[["Dataset"], Callable[["Dataset"], npt.ArrayLike]]

METHODS = methods_of("multi_label")
PRIORS = {  # of gains over gold only; the LLM is not measured label by label
    "posterior": Prior(0.015, 0.06, 0.0, 0.0, 0.06),
    "threshold": Prior(0.01, 0.05, 0.0, 0.0, 0.05),
    "agree": Prior(0.005, 0.03, 0.0, 0.0, 0.03),
    "none": Prior(-0.01, 0.06, 0.0, 0.0, 0.06),
    "argmax": Prior(0.0, 0.04, 0.0, 0.0, 0.04),
}
_SPLITS = 2  # random halvings of gold and rows, whose opinions are averaged
_FIGURES = (
    "corrector_accuracy_on_held_out_gold", "corrector_balanced_accuracy_on_held_out_gold", "corrector_temperature",
    "corrector_balanced_accuracy_on_held_out_gold_ci95", "corrector_found_on_held_out_gold",
    "generator_accuracy_estimated",
)  # of each label  # fmt: skip
_AGREES = {"none": "as_generated", "posterior": "posterior_agrees"}  # reason of a kept row; else "agrees"


@dataclass(frozen=True)
class Sets:
    """Sets of labels of gold and synthetic rows, without their texts.

    Args:
        meant: the generator's labels, 0 or 1, (N, K).
        truth: labels of gold, 0 or 1, and -1 where a label was not judged, (M, K).
        groups: patients of gold rows, (M,), or None.
        lineage: the gold that each synthetic row was written from, or None.
    """

    meant: Ints
    truth: Ints
    groups: Sequence[Any] | None = None
    lineage: Lineage | None = None

    def crossed(self) -> Rows:
        """Return rows for cross-fitting, in which gold is spread over folds by its rarest label."""
        present = self.truth == 1
        order = np.argsort(present.sum(0), kind="stable")  # rarest first
        rarest = np.where(present.any(1), order[present[:, order].argmax(1)] + 1, 0)
        meant = np.zeros(len(self.meant), dtype=np.int64)
        return Rows(meant, rarest, self.groups, self.truth.shape[1], {}, lineage=self.lineage)

    def of_rows(self, keep: Ints) -> Sets:
        """Return the sets of all gold and of some synthetic rows, by their positions."""
        lineage = None if self.lineage is None else self.lineage.of_rows(keep)
        return Sets(self.meant[keep], self.truth, self.groups, lineage)

    def judged_both_ways(self, gold: Ints) -> list[int]:
        """Return the labels that are present in some of these gold rows and absent in others."""
        truth = self.truth[gold]
        return np.flatnonzero((truth == 1).any(0) & (truth == 0).any(0)).tolist()


@dataclass(frozen=True)
class CorrectedSets:
    """The decision for each of N rows.

    Args:
        present: mask of the corrected labels, (N, K).
        probs: probability that a label is present, (N, K).
        weight: training weight, 0 for a dropped row, (N,).
        status, reason: of the row as a whole, (N,).
        labels: the policy of each label that was not left alone.
    """

    present: npt.NDArray[np.bool_]
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
        gold: rows with the true labels; with a column `judged`, labels that were not judged are left out.
        method: one of METHODS, or "auto": the one with which a linear head on frozen features, trained on the corrected
            rows, scores best on held-out gold.
        opinions: of one corrector that saw none of the gold: on gold, (M, K), and on the rows, (N, K).
        fit_rows: without `opinions`: trains models, which are cross-fitted.

    Returns:
        For each row the corrected columns; the policy.

    Raises:
        ColumnError: labels are missing, or opinions are not probabilities.
    """
    truth = np.where(judged_mask(task, gold) > 0, label_matrix(task, gold), -1).astype(np.int64)
    groups = fold_groups(task, gold)
    meant = label_matrix(task, rows, "llm_label").astype(np.int64)
    sets = Sets(meant, truth, groups, lineage_of(task, gold, rows, seed=seed))
    known = None
    if opinions is not None:
        known = _checked(task, opinions[0], len(gold)), _checked(task, opinions[1], len(rows))
    heads, figures = None, dict[str, Any]()
    if method == "auto" or (known is None and fit_rows is not None):
        most = max(LEARNT_ON, CHOSEN_ON // len(task.labels))  # a head is trained for each label
        keep = np.arange(len(rows)) if known is None else draw_positions(len(rows), most, seed)
        some = sets if len(keep) == len(rows) else sets.of_rows(keep)
        fitted = LEARNT_ON if known is not None and len(keep) > LEARNT_ON else None
        x_gold, x_rows = text_features(texts_of(task, gold), texts_of(task, rows.select(keep)), most=fitted)
        compared = x_rows if fitted is None else x_rows[draw_positions(len(keep), fitted, seed)]
        heads, difference = linear_heads(x_gold, x_rows, some), shift(x_gold, compared, seed)
        if method == "auto":
            given = None if known is None else (known[0], known[1][keep])
            choice = choose_for_sets(some, heads, opinions=given, seed=seed)
            method, figures = choice.method, choice.figures()
    else:
        difference = text_shift(task, gold, rows, seed=seed)
    figures["gold_against_synthetic_auc"] = difference
    learn = None if fit_rows is None or known is not None else _fit_learner(task, gold, rows, fit_rows, seed)
    corrected = decide_sets(sets, method, learn=learn, head=heads, opinions=known, seed=seed)
    decisions = [
        {
            task.label_column: np.flatnonzero(corrected.present[i]).tolist(),
            "label_probs": probs.tolist(),
            "label_status": str(corrected.status[i]),
            "reason": str(corrected.reason[i]),
            "label_confidence": float(np.maximum(probs, 1 - probs).min()),
            "weight": float(corrected.weight[i]),
        }
        for i, probs in enumerate(corrected.probs)
    ]
    return decisions, _joint_policy(task, sets, method, corrected, figures)


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
        learn: trains a model on gold and rows; targets are the probability of each label, (n, K).
        head: a fast learner that takes the noise out of the labels, so that `learn` trains only two models on them.
        opinions: of one corrector on all gold and on the rows, in place of models trained by `learn`.
        inside: positions of the gold that may be used; all when None.
        known: cache of the opinions that several methods share, for calls with the same gold.
    """
    gold = np.arange(len(sets.truth)) if inside is None else inside
    present, probs = sets.meant.astype(bool), sets.meant.astype(np.float64)
    dropped, policies = np.full(len(present), method == NOTHING), {}
    if method not in ("none", NOTHING) and (active := sets.judged_both_ways(gold)):
        known, calibrate = {} if known is None else known, opinions is not None or method != "posterior"
        on_gold, on_rows = _opinions(sets, method, learn, head, opinions, gold, seed, known)
        for j in active:
            meant, pred_probs = sets.meant[:, j], _absent_and_present(on_rows[:, j])
            labels: Any = {
                "llm_label": meant,
                "gold_label": sets.truth[gold, j],
                "gold_probs": _absent_and_present(on_gold[:, j]),
            }
            policies[j] = fit(method, pred_probs=pred_probs, calibrate=calibrate, bounds=False, **labels)
            corrected = apply(policies[j], meant, pred_probs)
            present[:, j], probs[:, j] = corrected.label == 1, corrected.probs[:, 1]
            dropped |= corrected.weight == 0
    same = (present == (sets.meant == 1)).all(1)
    stays = _AGREES.get(method, "agrees") if policies or method == "none" else "abstained"
    changed = "argmax" if method in RELABELS else "posterior"
    status = np.where(dropped, "dropped", np.where(same, "kept", "relabelled"))
    reason = np.where(dropped, "unused" if method == NOTHING else "disagrees", np.where(same, stays, changed))
    return CorrectedSets(present, probs, 1.0 - dropped, status, reason, policies)


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
    """Return opinions on gold and rows, of models that did not see the row; "posterior" also learns from the rows."""
    if opinions is not None:
        return opinions[0][gold], opinions[1]
    assert learn is not None
    both = method == "posterior"
    if both not in known:
        known[both] = (
            _refits(sets, learn, head, gold, seed) if both else opinions_from_gold(sets.crossed(), learn, gold, seed)
        )
    return known[both]


def _refits(sets: Sets, learn: Learn, head: Learn | None, gold: Ints, seed: int) -> tuple[Floats, Floats]:
    """Train on half of gold and uncorrected rows, take the noise out of each label, and train again on the beliefs."""
    crossed = sets.crossed()
    _, first = opinions_from_halves(crossed, head or learn, gold, sets.meant.astype(np.float64), seed, _SPLITS)
    beliefs = np.empty_like(first)
    for j in range(first.shape[1]):
        meant, probs = sets.meant[:, j], _absent_and_present(first[:, j])
        noise = confident_noise(meant, probs)
        belief = denoise(probs, noise) * noise[:, meant].T
        beliefs[:, j] = (belief / np.maximum(belief.sum(1, keepdims=True), 1e-300))[:, 1]
    return opinions_from_halves(crossed, learn, gold, beliefs, seed + 1, _SPLITS if head is None else 1)


def _absent_and_present(presence: Floats) -> Floats:
    """Return the probabilities of absence and presence, (N, 2)."""
    return np.stack([1 - presence, presence], axis=1)


def choose_for_sets(
    sets: Sets, learn: Learn, *, opinions: tuple[Floats, Floats] | None = None, seed: int = 0
) -> Choice:
    """Choose a method by the score of heads trained on its rows, on gold that had no part in it.

    The score is the mean of accuracy and balanced accuracy over judged labels. Rows that were written from the held-out
    gold have no part in the training.

    Args:
        learn: fast heads, one a label.
        opinions: of one trained corrector on gold and rows, which then decides on labels in place of `learn`.
    """
    crossed = sets.crossed()
    lineage = sets.lineage if sets.lineage is not None and sets.lineage.shows.any() else None
    if lineage is not None and not lineage.measurable:
        return unmeasured(PRIORS, lineage.least_share())
    fold = folds(crossed.truth, sets.groups, FOLDS, seed) if lineage is None else lineage.fold
    cell_weight = _cell_weights(sets.truth)
    worth = {m: np.zeros(len(sets.truth)) for m in METHODS}
    for k in counted("trial of all methods on held-out gold", range(int(fold.max()) + 1)):
        inside, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        keep = np.arange(len(sets.meant)) if lineage is None else lineage.without(k)
        part = Sets(sets.meant[keep], sets.truth, sets.groups, None if lineage is None else lineage.of_rows(keep))
        learn_part = learner_of_part(learn, keep)
        given = None if opinions is None else (opinions[0], opinions[1][keep])
        known: dict[bool, tuple[Floats, Floats]] = {}
        for method in METHODS:
            corrected = decide_sets(
                part, method, learn=learn_part, opinions=given, inside=inside, seed=seed, known=known
            )
            used = np.flatnonzero(corrected.weight > 0)
            probs, _ = learn_part(inside, used, corrected.probs[used])(held, np.arange(0))
            hits = (probs > 0.5) == (sets.truth[held] == 1)
            worth[method][held] = (hits * cell_weight[held]).sum(1)
    return choose(worth, np.zeros(len(sets.truth), dtype=np.int64), groups=sets.groups, priors=PRIORS, measure="score")


def _cell_weights(truth: Ints) -> Floats:
    """Compute weights of judged labels by which the mean hits of rows are the score of `choose_for_sets`, (M, K)."""
    weight = np.zeros(truth.shape)
    sides = [(truth[:, j] == value, j) for j in range(truth.shape[1]) for value in (0, 1)]
    sides = [(rows, j) for rows, j in sides if rows.any()]
    for rows, j in sides:
        weight[rows, j] = 0.5 / (truth >= 0).sum() + 0.5 / (len(sides) * rows.sum())
    return weight * len(truth)


def linear_heads(features_gold: Floats, features_rows: Floats, sets: Sets) -> Learn:
    """Return a `crossfit.Learn` of one logistic regression a label, on the gold that was judged for the label."""
    heads = [
        linear_learner(features_gold, features_rows, np.maximum(sets.truth[:, j], 0), 2)
        for j in range(sets.truth.shape[1])
    ]

    def learn(gold: Ints, rows: Ints, targets: Floats) -> Predict:
        judged = [gold[sets.truth[gold, j] >= 0] for j in range(len(heads))]
        fitted = [
            head(part, rows, _absent_and_present(targets[:, j])) if len(part) or len(rows) else None
            for j, (head, part) in enumerate(zip(heads, judged, strict=True))
        ]

        def predict(gold: Ints, rows: Ints) -> tuple[Floats, Floats]:
            gold_probs, row_probs = (np.full((len(at), len(heads)), 0.5) for at in (gold, rows))
            for j, head in enumerate(fitted):
                if head is not None:
                    first, second = head(gold, rows)
                    gold_probs[:, j], row_probs[:, j] = first[:, 1], second[:, 1]
            return gold_probs, row_probs

        return predict

    return learn


def _fit_learner(task: Task, gold: Dataset, rows: Dataset, fit_rows: Fit, seed: int) -> Learn:
    """Return a `Learn` that trains by a user's `fit` on gold rows and synthetic rows with probabilities of labels."""

    def learn(gold_at: Ints, rows_at: Ints, targets: Floats) -> Predict:
        data = gold.select(gold_at)
        if len(rows_at):
            n = len(rows_at)
            beliefs = {
                task.label_column: [np.flatnonzero(p > 0.5).tolist() for p in targets],
                "label_status": ["kept"] * n,
                "label_probs": targets.tolist(),
                "weight": [1.0] * n,
            }
            data = augment(task, training_rows(task, rows.select(rows_at), beliefs), gold=data, seed=seed)
        predict = fit_rows(data)

        def probs_at(dataset: Dataset, at: Ints) -> Floats:
            none = np.zeros((0, len(task.labels)))
            return _checked(task, predict(dataset.select(at)), len(at)) if len(at) else none

        return lambda gold_at, rows_at: (probs_at(gold, gold_at), probs_at(rows, rows_at))

    return learn


def _checked(task: Task, opinions: npt.ArrayLike, n: int) -> Floats:
    probs = np.asarray(opinions, dtype=np.float64)
    if probs.shape != (n, len(task.labels)) or not np.isfinite(probs).all() or (probs < 0).any() or (probs > 1).any():
        raise ColumnError(f"a corrector of {task.full_name!r} gives {len(task.labels)} numbers between 0 and 1 a row")
    return probs


def _joint_policy(task: Task, sets: Sets, method: str, corrected: CorrectedSets, more: Mapping[str, Any]) -> Policy:
    """Summarise the policies of the labels as one."""
    labels = {}
    for j, policy in corrected.labels.items():
        noise = policy.noise
        labels[task.labels[j]] = {
            "gold_judged": int((sets.truth[:, j] >= 0).sum()),
            **{name: policy.figures[name] for name in _FIGURES},
            "said_wrongly_estimated": noise[0][1],
            "left_out_estimated": noise[1][0],
            "threshold": policy.threshold,
        }
    alone = [j for j in range(len(task.labels)) if j not in corrected.labels]
    alone = [] if method in ("none", NOTHING) else alone
    warnings = []
    if alone:
        warnings.append(f"{len(alone)} labels are left alone: judged gold lacks rows with or without them")
    figures = {"gold_rows": len(sets.truth), "synthetic_rows": len(sets.meant), "labels": labels}
    figures |= {"labels_left_alone": [task.labels[j] for j in alone], **more}
    return Policy(method, len(task.labels), unseen=tuple(alone), figures=figures, warnings=tuple(warnings))
