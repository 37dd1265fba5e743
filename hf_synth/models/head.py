"""A linear head on frozen features of texts, in the shape of any other model: `fit(rows) -> predict(rows)`.

Experiments run on it where an encoder would take hours, and `assess` plans with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import TaskError
from hf_synth.models.linear import feature_map, linear_learner
from hf_synth.task.labels import soft_labels, usable_rows
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Predict = Callable[["Dataset"], Floats]


def joined_texts(task: Task, rows: Dataset) -> list[str]:
    """Give one text for each row: its text columns, a line each."""
    return ["\n".join(map(str, row)) for row in zip(*(rows[c][:] for c in task.text_columns), strict=True)]


def linear_fit(task: Task, *read: Dataset, seed: int = 0) -> Callable[[Dataset], Predict]:
    """Give a `fit` that trains a linear head: a corrector that can be cross-fitted, or a downstream model.

    Of a multi_label task each label has a head of its own, which learns from the rows that were judged for it.

    Args:
        read: rows whose texts the features are learnt from; their labels are not looked at.
        seed: of the features.

    Raises:
        TaskError: the task is text2text.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text: a linear head chooses among labels, it writes no texts")
    learnt = [text for rows in read for text in joined_texts(task, rows)]
    features = feature_map(learnt, seed=seed)
    place: dict[str, int] = {}
    table: list[Floats] = []

    def look(rows: Dataset) -> Ints:
        """Give where each row's features stand; each text's are computed once, since folds ask again and again."""
        texts = joined_texts(task, rows)
        new = list(dict.fromkeys(t for t in texts if t not in place))
        if new:
            table[:] = [np.concatenate([*table, features(new)])]
            place.update(zip(new, range(len(place), len(place) + len(new)), strict=True))
        return np.array([place[t] for t in texts], dtype=np.int64)

    def fit(rows: Dataset) -> Predict:
        used = usable_rows(rows)
        targets, at = np.asarray(soft_labels(task, used), dtype=np.float64), look(used)
        k = len(task.labels)
        # of each head: targets and how many labels it tells apart; of sets, absence and presence of each label
        heads = [(targets, k)] if task.kind == "single_label" else [(targets[:, [k + j, j]], 2) for j in range(k)]
        trained: dict[int, Any] = {}

        def predict(asked: Dataset) -> Floats:
            held = look(asked)
            x = table[-1]
            if len(x) not in trained:  # what was read since then is not known to the learner
                none, nobody = np.arange(0), np.zeros(0, np.int64)
                trained[len(x)] = [linear_learner(x[:0], x, nobody, n)(none, at, wanted) for wanted, n in heads]
            said = [np.asarray(head(np.arange(0), held)[1], dtype=np.float64) for head in trained[len(x)]]
            return said[0] if task.kind == "single_label" else np.column_stack([one[:, 1] for one in said])

        return predict

    return fit
