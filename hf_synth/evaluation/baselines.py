"""Baselines without training: label frequencies, and zero-shot labels of an LLM that was shown no gold.

A model that does not beat the first has learnt nothing; one that does not beat the second was not worth its labels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.evaluation import Scores, score, truth
from hf_synth.task.labels import groups_of, judged_mask, target_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

STRATEGIES = ("prior", "sampled")


class Judge(Protocol):
    """A judge that labels rows and was trained on none of them, such as an `LLMJudge`."""

    def predict(self, rows: Dataset) -> Any:
        """Return the probability of each label for each row, (N, K)."""


def frequency_baseline(
    task: Task, train: Dataset, test: Dataset, *, strategy: str = "prior", n_bootstrap: int = 1000, seed: int = 0
) -> Scores:
    """Score predictions by the frequency of labels in training rows, which ignore the texts of test rows.

    Args:
        train: gold rows whose labels are counted.
        test: gold rows that are scored.
        strategy: "prior": each row has the shares of the labels as its probabilities, hence the most frequent label
            (multi_label: labels of more than half of the rows; text2text: the most frequent target).
            "sampled": each row has a label drawn by these shares (text2text: the target of a training row).

    Raises:
        ColumnError: a label is missing, or there is no training row.
        HfSynthError: unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise HfSynthError(f"there is no frequency baseline {strategy!r}: give {' or '.join(STRATEGIES)}")
    labels: Any = target_texts(task, train) if task.kind == "text2text" else truth(task, train)
    true = truth(task, test)
    if not len(labels):
        raise ColumnError("the frequency baseline has no training row: give gold rows to count labels in")
    rng, n, prior = np.random.default_rng(seed), len(true), strategy == "prior"
    predicted: Any
    if task.kind == "text2text":
        most = Counter(labels).most_common(1)[0][0]
        predicted = [most] * n if prior else [labels[i] for i in rng.integers(len(labels), size=n)]
    elif task.kind == "multi_label":
        shares = labels.sum(0) / np.maximum(judged_mask(task, train).sum(0), 1)
        predicted = np.tile(shares, (n, 1)) if prior else (rng.random((n, len(shares))) < shares).astype(float)
    else:
        shares = np.bincount(labels, minlength=len(task.labels)) / len(labels)
        predicted = np.tile(shares, (n, 1)) if prior else rng.choice(len(shares), size=n, p=shares)
    judged = judged_mask(task, test) if task.kind == "multi_label" else None
    scores = score(task, predicted, true, groups_of(test), judged=judged, n_bootstrap=n_bootstrap, seed=seed)
    return replace(scores, model={"name": f"frequency ({strategy})", "rows": {"gold": len(labels)}})


def zero_shot_baseline(
    task: Task, test: Dataset, judge: Judge, *, n_bootstrap: int = 1000, seed: int = 0, name: str = "zero-shot"
) -> Scores:
    """Score the labels that an LLM gives to test rows without having been shown gold.

    Args:
        test: gold rows that are scored.
        judge: an `LLMJudge`. A row without a vote has all labels equally likely and counts as the first one.

    Raises:
        ColumnError: a label is missing.
        HfSynthError: the task is text2text and has no labels to choose among.
    """
    if task.kind == "text2text":
        raise HfSynthError(f"task {task.full_name!r} is text2text: the zero-shot baseline needs a task with labels")
    judged = judged_mask(task, test) if task.kind == "multi_label" else None
    probs = np.asarray(judge.predict(test), dtype=np.float64)
    scores = score(task, probs, truth(task, test), groups_of(test), judged=judged, n_bootstrap=n_bootstrap, seed=seed)
    return replace(scores, model={"name": name, "rows": {"gold": 0}})
