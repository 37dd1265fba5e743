"""What needs no model: labels by how often they occur. A model that does not beat this has learnt nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation import Scores, groups_of, score, truth
from hf_synth.rows import judged_mask
from hf_synth.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

STRATEGIES = ("prior", "sampled")


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
