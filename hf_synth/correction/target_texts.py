"""Correction of target texts: a corrector writes a target of its own for each input, and the generator's is held to it.

There is no noise matrix for texts. What can be measured is how near the corrector comes to the targets of gold that it
did not see (ROUGE-L). A generator's target that is farther from the corrector's than nine in ten of gold's are is held
for wrong. Two things are no opinion: a target that the task does not allow, and one that is not found in the text where
gold's targets always are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.augmentation import augment
from hf_synth.correction.choice import choose
from hf_synth.correction.crossfit import folds
from hf_synth.correction.policy import OF_TEXTS, Policy
from hf_synth.errors import ColumnError
from hf_synth.models.text2text import generate_text, input_texts, text_scores
from hf_synth.task.labels import groups_of, target_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Write = Callable[["Dataset"], Sequence[str]]
Fit = Callable[["Dataset"], Write]
METHODS = ("none", *OF_TEXTS)
FOLDS = 2  # of gold: each is a training of a sequence-to-sequence model
_TAIL = 0.1  # share of gold targets that lie farther from the corrector's text than the threshold
_EXTRACTIVE = 0.98  # share of gold targets found in their text, from which on synthetic ones must be, too
_FEW = 20  # gold rows, below which nothing is concluded from where gold's targets are found
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Rules:
    """What a target is held to.

    Args:
        threshold: ROUGE-L to the corrector's text, below which a target is held for wrong.
        extractive: whether a target must be found in its text.
        stronger: whether the corrector's text may stand in the place of a target that is held for wrong.
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
        method: "none"; "drop" what is held for wrong; "replace" it by the corrector's text, where the corrector is the
            stronger one; "auto": "drop" with a trained model; with `fit_rows` what models that learn from the corrected
            rows write best with on held-out gold, and "none" unless another is clearly better.
        corrector: folder or repo id of a sequence-to-sequence model.
        fit_rows: without `corrector`: `fit(rows) -> write`, `write(rows)` a text a row; gold is cross-fitted.

    Returns:
        For each row the columns that correction decides; the policy.

    Raises:
        ColumnError: a text or target is missing, or gold is too small.
    """
    meant = target_texts(task, rows.remove_columns(task.label_column).rename_column("llm_label", task.label_column))
    if method == "none":
        return [_told(task, text, "kept", "as_generated") for text in meant], Policy(method, 0)
    if len(gold) < 2:
        raise ColumnError("correction needs gold rows to measure the corrector on")
    told: dict[str, Any] = {}
    if method == "auto" and fit_rows is None:
        method = "drop"
        told = {"auto_why": "a trained model alone tells nothing of training on the rows: what it contradicts leaves"}
    elif method == "auto":
        assert fit_rows is not None
        method, told = _choose(task, rows, gold, meant, fit_rows, seed)
    if method == "none":
        return [_told(task, text, "kept", "abstained") for text in meant], Policy(method, 0, figures=told)
    if fit_rows is None:
        assert corrector is not None
        of_gold, said = generate_text(task, corrector, gold), generate_text(task, corrector, rows)
    else:
        of_gold, said = _cross_written(task, rows, gold, fit_rows, seed)
    rules, figures, warnings = measure(task, gold, of_gold, rows, meant, said)
    decided = decide_targets(task, method, rules, input_texts(task, rows), meant, said)
    return decided, Policy(method, 0, threshold=rules.threshold, figures={**figures, **told}, warnings=warnings)


# --- deciding -------------------------------------------------------------------------------------------------------
def measure(
    task: Task, gold: Dataset, of_gold: Sequence[str], rows: Dataset, meant: Sequence[str], said: Sequence[str]
) -> tuple[Rules, dict[str, Any], tuple[str, ...]]:
    """Measure a corrector on gold that it did not see, and reckon the generator by it.

    How near the generator's targets are to the truth is not measured: it is estimated as the agreement of both on the
    synthetic rows over the corrector's score on gold, on the assumption that they err independently of each other.

    Args:
        of_gold: what the corrector writes for gold, M texts.
        meant: targets of the generator, N texts.
        said: what the corrector writes for the same rows.

    Returns:
        The rules, figures, and what a reader must know.
    """
    truth = target_texts(task, gold)
    scores = text_scores(of_gold, truth)
    on_gold, together = scores["rougeL"], text_scores(said, meant)["rougeL"]
    corrector = float(on_gold.mean())
    generator = min(1.0, float(together.mean()) / corrector) if corrector > 0 else 1.0
    inside = float(np.mean([found_in(t, text) for t, text in zip(truth, input_texts(task, gold), strict=True)]))
    extractive = not task.targets and len(gold) >= _FEW and inside >= _EXTRACTIVE
    rules = Rules(float(np.quantile(on_gold, _TAIL)), extractive, corrector > generator)
    figures = {
        "gold_rows": len(gold), "synthetic_rows": len(rows),
        "corrector_rougeL_on_held_out_gold": round(corrector, 4),
        "corrector_exact_match_on_held_out_gold": round(float(scores["exact_match"].mean()), 4),
        "rougeL_of_both_on_synthetic_rows": round(float(together.mean()), 4),
        "generator_rougeL_estimated": round(generator, 4),
        "generator_rougeL_assumes": "corrector and generator err independently given the truth",
        "gold_targets_found_in_text": round(inside, 4),
        "targets_must_be_in_text": rules.extractive,
        "threshold_rougeL": round(rules.threshold, 4),
    }  # fmt: skip
    warnings = []
    if not rules.stronger:
        warnings.append("the corrector looks weaker than the generator: its texts replace nothing, rows are dropped")
    if rules.threshold == 0:
        warnings.append("the corrector misses a tenth of gold altogether: no row is dropped for disagreeing with it")
    if len(gold) < 100:
        warnings.append(f"{len(gold)} gold rows are few: the threshold is rough")
    return rules, figures, tuple(warnings)


def decide_targets(
    task: Task, method: str, rules: Rules, inputs: Sequence[str], meant: Sequence[str], said: Sequence[str]
) -> list[dict[str, Any]]:
    """Decide on each target: the columns that correction writes.

    Args:
        method: "drop" or "replace".
        inputs: what each target was written for, N texts.
        meant: targets of the generator.
        said: targets of the corrector.
    """
    agree = text_scores(said, meant)["rougeL"]
    decided = []
    for text, target, other, score in zip(inputs, meant, said, agree.tolist(), strict=True):
        fault = _fault(task, rules, text, target) or ("disagrees" if score < rules.threshold else "")
        if not fault:
            decided.append(_told(task, target, "kept", "agrees" if rules.threshold > 0 else "abstained", score))
        elif method == "replace" and rules.stronger and other.strip() and not _fault(task, rules, text, other):
            decided.append(_told(task, other, "relabelled", "rewritten", score))
        else:
            decided.append(_told(task, target, "dropped", fault, score))
    return decided


def _fault(task: Task, rules: Rules, text: str, target: str) -> str:
    """Say what is wrong with a target whatever anybody thinks; "" where nothing is."""
    if task.targets:
        return "" if target in task.targets else "unknown_target"
    return "not_in_text" if rules.extractive and not found_in(target, text) else ""


def found_in(target: str, text: str) -> bool:
    """Tell whether a target's words stand in a text, in their order and side by side, whatever their case."""
    words = _WORDS.findall(target.lower())
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(_WORDS.findall(text.lower()))} "


def _told(task: Task, target: str, status: str, reason: str, score: float | None = None) -> dict[str, Any]:
    """Give the columns of a decision; `label_confidence` is the ROUGE-L of corrector and generator."""
    return {
        task.label_column: target, "label_status": status, "reason": reason, "label_probs": None,
        "label_confidence": score, "weight": float(status != "dropped"),
    }  # fmt: skip


# --- models ---------------------------------------------------------------------------------------------------------
def _cross_written(task: Task, rows: Dataset, gold: Dataset, fit_rows: Fit, seed: int) -> tuple[list[str], list[str]]:
    """Let models write for gold that they did not see, and one of all gold for the synthetic rows."""
    of_gold = [""] * len(gold)
    fold = _folds(gold, FOLDS, seed)
    for k in range(int(fold.max()) + 1):
        held = np.flatnonzero(fold == k)
        said = _written(task, fit_rows(gold.select(np.flatnonzero(fold != k))), gold.select(held))
        for i, text in zip(held.tolist(), said, strict=True):
            of_gold[i] = text
    return of_gold, _written(task, fit_rows(gold), rows)


def _choose(
    task: Task, rows: Dataset, gold: Dataset, meant: Sequence[str], fit_rows: Fit, seed: int
) -> tuple[str, dict[str, Any]]:
    """Choose a method by what models write for half of gold that learnt from the other half and the corrected rows."""
    half = _folds(gold, 2, seed)
    worth = {m: np.zeros(len(gold)) for m in METHODS}
    for k in range(int(half.max()) + 1):
        held = np.flatnonzero(half == k)
        inside, outside = gold.select(np.flatnonzero(half != k)), gold.select(held)
        of_gold, said = _cross_written(task, rows, inside, fit_rows, seed)
        rules, _, _ = measure(task, inside, of_gold, rows, meant, said)
        truth = target_texts(task, outside)
        for method in METHODS:
            if method == "none":
                decided = [_told(task, text, "kept", "as_generated") for text in meant]
            else:
                decided = decide_targets(task, method, rules, input_texts(task, rows), meant, said)
            lessons = augment(task, _lessons(task, rows, decided), gold=inside, seed=seed)
            worth[method][held] = text_scores(_written(task, fit_rows(lessons), outside), truth)["rougeL"]
    choice = choose(worth, np.zeros(len(gold), dtype=np.int64), prefer=METHODS, groups=groups_of(gold))
    behind = {m: list(b) for m, b in choice.behind.items()}
    return choice.method, {"auto_scores": dict(choice.scores), "auto_behind": behind, "auto_why": choice.why}


def _folds(gold: Dataset, k: int, seed: int) -> Ints:
    return folds(np.zeros(len(gold), dtype=np.int64), groups_of(gold), k, seed)


def _lessons(task: Task, rows: Dataset, decided: Sequence[Mapping[str, Any]]) -> Dataset:
    """Give rows to be trained on, with what was decided of their targets."""
    from datasets import Dataset, Features

    wanted = task.corrected_features()
    columns = {c: list(rows[c]) for c in ("id", *task.text_columns, "source", "seed_ids", "access")}
    columns |= {c: [told[c] for told in decided] for c in (task.label_column, "label_status", "weight")}
    return Dataset.from_dict(columns, features=Features({c: wanted[c] for c in columns}))


def _written(task: Task, write: Write, rows: Dataset) -> list[str]:
    said = list(write(rows))
    if len(said) != len(rows) or not all(isinstance(text, str) for text in said):
        raise ColumnError(f"a corrector of {task.full_name!r} writes one text for each row")
    return said
