"""Correction of target texts (text2text): the generator's target is compared by ROUGE-L with one of the corrector.

There is no noise matrix for texts. The corrector is measured by ROUGE-L on gold that it did not see. A target of the
generator with a lower ROUGE-L than nine in ten of gold's counts as wrong: it is dropped, or replaced where the
corrector is estimated to be the stronger one. A target outside `Task.targets`, or not found in its text where gold's
almost always are, is wrong whatever the corrector writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.correction.augmentation import augment, training_rows
from hf_synth.correction.choice import NOTHING, Choice, choose, unmeasured
from hf_synth.correction.crossfit import folds
from hf_synth.correction.lineage import LEAST_SHARE, fold_groups, lineage_of
from hf_synth.correction.methods import methods_of
from hf_synth.correction.policy import Policy
from hf_synth.correction.priors import Prior
from hf_synth.errors import ColumnError
from hf_synth.models.text2text import generate_text, input_texts, text_scores
from hf_synth.reports.progress import counted
from hf_synth.task.labels import Ints, target_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Write = Callable[["Dataset"], Sequence[str]]
Fit = Callable[["Dataset"], Write]

METHODS = methods_of("text2text")
PRIORS = {  # of gains of ROUGE-L over gold only
    "drop": Prior(0.015, 0.04, 0.0, 0.0, 0.04),
    "replace": Prior(0.01, 0.05, 0.0, 0.0, 0.05),
    "none": Prior(0.005, 0.05, 0.0, 0.0, 0.05),
}
FOLDS = 2  # of gold: each is a training of a sequence-to-sequence model
_TAIL = 0.1  # share of gold targets whose ROUGE-L with the corrector's text is below the threshold
_EXTRACTIVE = 0.98  # share of gold targets found in their text from which on synthetic ones must be, too
_FEW = 20  # least gold rows to conclude that targets are extractive
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Rules:
    """Criteria of a right target.

    Args:
        threshold: least ROUGE-L with the corrector's text.
        extractive: whether a target must be found in its text.
        stronger: whether the corrector's text may replace a wrong target.
    """

    threshold: float
    extractive: bool
    stronger: bool


def correct_targets(
    task: Task,
    rows: Dataset,
    gold: Dataset,
    method: str,
    *,
    corrector: str | None = None,
    fit_rows: Fit | None = None,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], Policy]:
    """Correct the target texts of synthetic rows.

    Args:
        rows: synthetic rows, none of them rejected.
        gold: rows with true targets that the corrector never saw.
        method: "none"; "drop" wrong targets; "replace" them by the corrector's text where the corrector is the stronger
            one; "gold_only", which drops all; "auto": "drop" with a trained model; with `fit_rows` the method whose
            rows train the best models by held-out gold (see `choice.choose`).
        corrector: folder or repo id of a sequence-to-sequence model.
        fit_rows: without `corrector`: `fit(rows) -> write`, `write(rows)` a text a row; gold is cross-fitted.

    Returns:
        For each row the corrected columns; the policy.

    Raises:
        ColumnError: a text or target is missing, or gold is too small.
    """
    meant = target_texts(task, rows.remove_columns(task.label_column).rename_column("llm_label", task.label_column))
    if method == "none":
        return [_decision(task, text, "kept", "as_generated") for text in meant], Policy(method, 0)
    if len(gold) < 2:
        raise ColumnError("correction needs gold rows to measure the corrector on")
    grounds: dict[str, Any] = {}
    if method == "auto" and fit_rows is None:
        method = "drop"
        grounds = {"auto_why": "a trained model cannot be scored by training on the rows: targets it contradicts leave"}
    elif method == "auto":
        assert fit_rows is not None
        choice = _choose(task, rows, gold, meant, fit_rows, seed)
        method, grounds = choice.method, choice.figures()
    if method in ("none", NOTHING):
        status, reason = ("kept", "abstained") if method == "none" else ("dropped", "unused")
        return [_decision(task, text, status, reason) for text in meant], Policy(method, 0, figures=grounds)
    if fit_rows is None:
        assert corrector is not None
        of_gold, of_rows = generate_text(task, corrector, gold), generate_text(task, corrector, rows)
    else:
        of_gold, of_rows = _cross_written(task, rows, gold, fit_rows, seed)
    rules, figures, warnings = measure(task, gold, of_gold, rows, meant, of_rows)
    decisions = decide_targets(task, method, rules, input_texts(task, rows), meant, of_rows)
    return decisions, Policy(method, 0, threshold=rules.threshold, figures={**figures, **grounds}, warnings=warnings)


def measure(
    task: Task, gold: Dataset, of_gold: Sequence[str], rows: Dataset, meant: Sequence[str], of_rows: Sequence[str]
) -> tuple[Rules, dict[str, Any], tuple[str, ...]]:
    """Measure a corrector on gold that it did not see, and estimate the generator by it.

    The generator's ROUGE-L is estimated as the agreement of both on the synthetic rows over the corrector's score on
    gold, on the assumption that they err independently of each other.

    Args:
        of_gold: the corrector's targets of gold, M texts.
        meant: the generator's targets of the synthetic rows, N texts.
        of_rows: the corrector's targets of the same rows.

    Returns:
        The rules, figures, and warnings.
    """
    truth = target_texts(task, gold)
    scores = text_scores(of_gold, truth)
    on_gold, together = scores["rougeL"], text_scores(of_rows, meant)["rougeL"]
    corrector = float(on_gold.mean())
    generator = min(1.0, float(together.mean()) / corrector) if corrector > 0 else 1.0
    inside = float(np.mean([found_in(t, text) for t, text in zip(truth, input_texts(task, gold), strict=True)]))
    extractive = not task.targets and len(gold) >= _FEW and inside >= _EXTRACTIVE
    rules = Rules(float(np.quantile(on_gold, _TAIL)), extractive, corrector > generator)
    figures = {
        "gold_rows": len(gold),
        "synthetic_rows": len(rows),
        "corrector_rougeL_on_held_out_gold": round(corrector, 4),
        "corrector_exact_match_on_held_out_gold": round(float(scores["exact_match"].mean()), 4),
        "rougeL_of_both_on_synthetic_rows": round(float(together.mean()), 4),
        "generator_rougeL_estimated": round(generator, 4),
        "generator_rougeL_assumes": "corrector and generator err independently given the truth",
        "gold_targets_found_in_text": round(inside, 4),
        "targets_must_be_in_text": rules.extractive,
        "threshold_rougeL": round(rules.threshold, 4),
    }
    warnings = []
    if not rules.stronger:
        warnings.append("the corrector looks weaker than the generator: rows are dropped, no text is replaced")
    if rules.threshold == 0:
        warnings.append("the corrector scores 0 on a tenth of gold: no row is dropped for disagreeing with it")
    if len(gold) < 100:
        warnings.append(f"{len(gold)} gold rows are few: the threshold is rough")
    return rules, figures, tuple(warnings)


def decide_targets(
    task: Task, method: str, rules: Rules, inputs: Sequence[str], meant: Sequence[str], of_rows: Sequence[str]
) -> list[dict[str, Any]]:
    """Decide on each target; return the corrected columns of each row.

    Args:
        method: "drop" or "replace".
        inputs: input of each target, N texts.
        meant: the generator's targets.
        of_rows: the corrector's targets.
    """
    agreement = text_scores(of_rows, meant)["rougeL"]
    decisions = []
    for text, target, other, score in zip(inputs, meant, of_rows, agreement.tolist(), strict=True):
        fault = _wrong_target_reason(task, rules, text, target) or ("disagrees" if score < rules.threshold else "")
        if not fault:
            decisions.append(_decision(task, target, "kept", "agrees" if rules.threshold > 0 else "abstained", score))
        elif (
            method == "replace"
            and rules.stronger
            and other.strip()
            and not _wrong_target_reason(task, rules, text, other)
        ):
            decisions.append(_decision(task, other, "relabelled", "rewritten", score))
        else:
            decisions.append(_decision(task, target, "dropped", fault, score))
    return decisions


def _wrong_target_reason(task: Task, rules: Rules, text: str, target: str) -> str:
    """Return the reason why a target is wrong whatever the corrector writes, or ""."""
    if task.targets:
        return "" if target in task.targets else "unknown_target"
    return "not_in_text" if rules.extractive and not found_in(target, text) else ""


def found_in(target: str, text: str) -> bool:
    """Check whether a target's words occur in a text side by side and in order, whatever their case."""
    words = _WORDS.findall(target.lower())
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(_WORDS.findall(text.lower()))} "


def _decision(task: Task, target: str, status: str, reason: str, score: float | None = None) -> dict[str, Any]:
    """Return the columns of a decision; `label_confidence` is the ROUGE-L of corrector and generator."""
    columns = {task.label_column: target, "label_status": status, "reason": reason}
    return columns | {"label_probs": None, "label_confidence": score, "weight": float(status != "dropped")}


def _cross_written(task: Task, rows: Dataset, gold: Dataset, fit_rows: Fit, seed: int) -> tuple[list[str], list[str]]:
    """Write targets for gold by models that did not see it, and for the synthetic rows by one of all gold."""
    of_gold = [""] * len(gold)
    fold = _folds(task, gold, FOLDS, seed)
    for k in counted("fold", range(int(fold.max()) + 1)):
        held = np.flatnonzero(fold == k)
        targets = _write_targets(task, fit_rows(gold.select(np.flatnonzero(fold != k))), gold.select(held))
        for i, target in zip(held.tolist(), targets, strict=True):
            of_gold[i] = target
    return of_gold, _write_targets(task, fit_rows(gold), rows)


def _choose(task: Task, rows: Dataset, gold: Dataset, meant: Sequence[str], fit_rows: Fit, seed: int) -> Choice:
    """Choose a method by the score on half of gold of models trained on the other half and the corrected rows."""
    lineage = lineage_of(task, gold, rows, folds=FOLDS, seed=seed)
    if lineage.shows.any() and lineage.least_share() < LEAST_SHARE / 2:  # a half costs half of the rows at best
        return unmeasured(PRIORS, lineage.least_share())
    half = lineage.fold if lineage.shows.any() else _folds(task, gold, FOLDS, seed)
    worth = {m: np.zeros(len(gold)) for m in METHODS}
    for k in counted("trial of all methods on held-out gold", range(int(half.max()) + 1)):
        held, keep = np.flatnonzero(half == k), lineage.without(k) if lineage.shows.any() else np.arange(len(rows))
        inside, outside = gold.select(np.flatnonzero(half != k)), gold.select(held)
        some, theirs = rows.select(keep), [meant[i] for i in keep]
        of_gold, of_rows = _cross_written(task, some, inside, fit_rows, seed)
        rules, _, _ = measure(task, inside, of_gold, some, theirs, of_rows)
        truth, inputs = target_texts(task, outside), input_texts(task, some)
        for method in METHODS:
            if method == NOTHING:
                mixture = inside
            else:
                decisions = (
                    [_decision(task, text, "kept", "as_generated") for text in theirs]
                    if method == "none"
                    else decide_targets(task, method, rules, inputs, theirs, of_rows)
                )
                columns = {c: [d[c] for d in decisions] for c in (task.label_column, "label_status", "weight")}
                mixture = augment(task, training_rows(task, some, columns), gold=inside, seed=seed)
            worth[method][held] = text_scores(_write_targets(task, fit_rows(mixture), outside), truth)["rougeL"]
    return choose(
        worth, np.zeros(len(gold), dtype=np.int64), groups=fold_groups(task, gold), priors=PRIORS, measure="ROUGE-L"
    )


def _folds(task: Task, gold: Dataset, k: int, seed: int) -> Ints:
    return folds(np.zeros(len(gold), dtype=np.int64), fold_groups(task, gold), k, seed)


def _write_targets(task: Task, write: Write, rows: Dataset) -> list[str]:
    targets = list(write(rows))
    if len(targets) != len(rows) or not all(isinstance(target, str) for target in targets):
        raise ColumnError(f"a corrector of {task.full_name!r} must write one text for each row")
    return targets
