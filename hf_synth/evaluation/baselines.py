"""What needs no training: labels by how often they occur, or by an LLM that was shown no gold.

A model that does not beat the first has learnt nothing; one that does not beat the second was not worth its labels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.evaluation import Scores, score, truth
from hf_synth.task.labels import groups_of, judged_mask
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

STRATEGIES = ("prior", "sampled")


class Judge(Protocol):
    """What gives the probability of each label for each row, such as an `LLMJudge`."""

    def predict(self, rows: Dataset) -> Any:
        """Label rows, (N, K)."""


def frequency_baseline(
    task: Task, train: Dataset, test: Dataset, *, strategy: str = "prior", n_bootstrap: int = 1000, seed: int = 0
) -> Scores:
    """Score what how often labels occur in training rows says of test rows, without a look at their texts.

    Args:
        train: gold rows whose labels are counted.
        test: gold rows that are scored.
        strategy: "prior": each row has the shares of the labels as its probabilities, hence the most frequent label
            (multi_label: labels of more than half of the rows; text2text: the most frequent target).
            "sampled": each row has a label drawn by these shares (text2text: the target of a training row).

    Raises:
        ColumnError: a label is missing, or there is no training row.
        HfSynthError: there is no such strategy.
    """
    if strategy not in STRATEGIES:
        raise HfSynthError(f"there is no frequency baseline {strategy!r}; there are {', '.join(STRATEGIES)}")
    known, true = truth(task, train), truth(task, test)
    if not len(known):
        raise ColumnError("there is no training row whose label could be counted")
    rng, n = np.random.default_rng(seed), len(true)
    said: Any
    if task.kind == "text2text":
        most = Counter(known).most_common(1)[0][0]
        said = [most] * n if strategy == "prior" else [known[i] for i in rng.integers(len(known), size=n)]
    elif task.kind == "multi_label":
        seen = judged_mask(task, train)
        shares = known.sum(0) / np.maximum(seen.sum(0), 1)
        said = np.tile(shares, (n, 1)) if strategy == "prior" else (rng.random((n, len(shares))) < shares).astype(float)
    else:
        shares = np.bincount(known, minlength=len(task.labels)) / len(known)
        said = np.tile(shares, (n, 1)) if strategy == "prior" else rng.choice(len(shares), size=n, p=shares)
    judged = judged_mask(task, test) if task.kind == "multi_label" else None
    scores = score(task, said, true, groups_of(test), judged=judged, n_bootstrap=n_bootstrap, seed=seed)
    return replace(scores, model={"name": f"frequency ({strategy})", "rows": {"gold": len(known)}})


def zero_shot_baseline(
    task: Task, test: Dataset, judge: Judge, *, n_bootstrap: int = 1000, seed: int = 0, name: str = "zero-shot"
) -> Scores:
    """Score what an LLM says of test rows that was shown no gold.

    Args:
        test: gold rows that are scored.
        judge: an `LLMJudge`. A row that it cast no vote on has all labels equally likely and counts as the first one.

    Raises:
        ColumnError: a label is missing.
        HfSynthError: the task is text2text: there are no labels to choose among.
    """
    if task.kind == "text2text":
        raise HfSynthError(f"task {task.full_name!r} is text2text: zero-shot chooses among labels, it has none")
    judged = judged_mask(task, test) if task.kind == "multi_label" else None
    said = np.asarray(judge.predict(test), dtype=np.float64)
    scores = score(task, said, truth(task, test), groups_of(test), judged=judged, n_bootstrap=n_bootstrap, seed=seed)
    return replace(scores, model={"name": name, "rows": {"gold": 0}})
