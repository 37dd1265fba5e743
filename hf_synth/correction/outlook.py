"""What a correction would take: how many models it trains on how many rows, and the seconds of its linear heads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_synth.correction.crossfit import FOLDS, ROUNDS, SPLITS
from hf_synth.correction.policy import OF_BOTH
from hf_synth.models.linear import linear_learner, text_features
from hf_synth.reports.progress import stage
from hf_synth.task.labels import label_indices, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_TEXT_METHODS = 4  # trainings on mixtures in each fold of the choice of a method for target texts


@dataclass(frozen=True)
class Trainings:
    """The trainings of one correction, with a cross-fitted corrector.

    Args:
        least, most: how many models are trained; `auto` chooses a method on the way.
        rows: of the largest of them.
        read: rows that each model predicts.
    """

    least: int
    most: int
    rows: int
    read: int


def trainings_of(task: Task, method: str, *, gold: int, rows: int, measured: bool = False) -> Trainings:
    """Return the trainings of a correction.

    Args:
        gold: number of gold rows.
        rows: number of synthetic rows that are corrected.
        measured: whether gold has labels of the LLM, so that `auto` has more candidates.
    """
    on_both = Trainings(2, 2, (gold + rows + 1) // 2, (gold + rows + 1) // 2)
    on_gold = Trainings(FOLDS, FOLDS, gold - gold // FOLDS, gold // FOLDS + rows)
    nothing = Trainings(0, 0, 0, 0)
    if method in ("none", "gold_only"):
        return nothing
    if task.kind == "text2text":
        whole = FOLDS + 1
        if method == "auto":
            return Trainings(
                FOLDS * (whole + _TEXT_METHODS), FOLDS * (whole + _TEXT_METHODS) + whole, gold + rows, rows
            )
        return Trainings(whole, whole, gold, rows)
    both = method in OF_BOTH if task.kind == "single_label" else method == "posterior"
    if method != "auto":
        return on_both if both else on_gold
    if task.kind == "single_label" and not measured:
        return Trainings(0, 2, on_both.rows, on_both.read)
    return Trainings(0, FOLDS, max(on_both.rows, on_gold.rows), max(on_both.read, on_gold.read))


def estimate_head_seconds(task: Task, gold: Dataset, rows: Dataset, method: str) -> tuple[float, float]:
    """Estimate the seconds of the linear heads that take the noise out of labels and choose a method.

    Returns:
        The seconds, and those that the measurement took.

    The features of all texts are made, and one head is fitted on gold: the other ones are as large or smaller.
    """
    if task.kind != "single_label" or method == "none":
        return 0.0, 0.0
    with stage("measuring a linear head"):
        began = time.perf_counter()
        x_gold, x_rows = text_features(texts_of(task, gold), texts_of(task, rows))
        featured = time.perf_counter()
        truth, meant = label_indices(task, gold), label_indices(task, rows, "llm_label")
        learn = linear_learner(x_gold, x_rows, truth, len(task.labels))
        half = np.arange(0, len(gold), 2), np.arange(0, len(rows), 2)
        learn(*half, np.eye(len(task.labels))[meant[half[1]]])(*half)
        fitted = time.perf_counter()
    refits = 2 * SPLITS * (1 + ROUNDS)
    fits = refits + (FOLDS * (refits + FOLDS + 3) if method == "auto" else 0)
    return featured - began + fits * (fitted - featured), fitted - began
