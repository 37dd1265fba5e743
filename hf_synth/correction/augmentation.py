"""Data augmentation: gold and corrected synthetic rows joined to one training set.

Strategies (arXiv 2403.19511): `augment` = gold + synthetic; `replace` = synthetic rows in place of the gold rows that
were their exemplars; `synthetic` = no gold at all; `gold` = gold alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hf_synth.errors import ColumnError, OverlapError, TaskError
from hf_synth.task.arrow import rewrite_columns
from hf_synth.task.columns import (
    CORRECTION_COLUMNS,
    GOLD_COLUMNS,
    JUDGED,
    SYNTHETIC_COLUMNS,
    access_of,
    annotation_columns,
    names_shown,
    strictest,
)
from hf_synth.task.labels import check_columns, column_of, label_names

if TYPE_CHECKING:
    from datasets import Dataset, Features

    from hf_synth.task.task import Task

Strategy = Literal["gold", "synthetic", "replace", "augment"]
STRATEGIES: tuple[Strategy, ...] = ("gold", "synthetic", "replace", "augment")
TRAINABLE = ("kept", "relabelled")  # statuses of rows that may be trained on


def augment(
    task: Task,
    synthetic: Dataset,
    *,
    gold: Dataset,
    strategy: Strategy = "augment",
    ratio: float | None = None,
    evaluation: Dataset | None = None,
    seed: int = 0,
) -> Dataset:
    """Join gold and synthetic rows to one training set, shuffled.

    Args:
        task: the task of the rows.
        synthetic: generated or corrected rows; those kept or relabelled, with a weight above 0, are used.
        gold: gold rows for training.
        ratio: at most this many synthetic rows for each row of `gold`, drawn by seed; all when None.
        evaluation: rows of the evaluation: one of their texts in the result is an error, and so is a synthetic row that
            was written from one of them.
        seed: of the draw and the shuffle.

    Returns:
        Rows with the columns of `synthetic` and `label_probs`, `label_confidence`, `weight`. Gold rows have weight 1
        and no probabilities. The access of every row is the strictest of all. Labels that LLMs gave to gold, and those
        of further LLMs, are left out.

    Raises:
        ColumnError: columns do not match, or nothing is left to train on.
        OverlapError: an evaluation row is in the result or was an exemplar of a synthetic row.

    Example:
        >>> both = augment(task, corrected, gold=gold["train"])
        >>> sorted(set(both["source"]))
        ['gold', 'synthetic']
    """
    from datasets import concatenate_datasets

    if strategy not in STRATEGIES:
        raise TaskError(f"unknown strategy {strategy!r}; give one of {', '.join(STRATEGIES)}")
    gold = gold.remove_columns(annotation_columns(gold.column_names))
    shared = _task_columns(task, gold, synthetic)
    at = np.array(trainable_rows(synthetic) if strategy != "gold" else [], dtype=np.int64)
    if ratio is not None:
        n = min(len(at), round(ratio * len(gold)))
        at = at[np.sort(np.random.default_rng(seed).permutation(len(at))[:n])]
    of_gold = np.arange(0 if strategy == "synthetic" else len(gold))
    if strategy == "replace":
        exemplars = {id for ids in column_of(synthetic.select(at), "seed_ids") for id in ids or ()}
        of_gold = np.array([i for i, id in enumerate(gold["id"][:]) if id not in exemplars], dtype=np.int64)
    if evaluation is not None:
        _check_apart(shared, gold.select(of_gold), synthetic.select(at), evaluation)
    access = strictest(access_of(gold), access_of(synthetic))
    features = _features(shared, gold, synthetic)
    used = ((gold, of_gold), (synthetic, at))  # texts are not gathered: the selection is of positions
    parts = [_align_columns(part, features, access).select(places) for part, places in used if len(places)]
    if not parts:
        raise ColumnError("nothing is left to train on: the strategy takes no gold, no synthetic row is usable")
    return concatenate_datasets(parts).shuffle(seed=seed)


def trainable_rows(synthetic: Dataset) -> list[int]:
    """Return the positions of the rows to train on: kept or relabelled, weight above 0.

    Raises:
        ColumnError: the rows have no `label_status`.
    """
    if "label_status" not in synthetic.column_names:
        raise ColumnError("synthetic rows need a column 'label_status': pass rows made elsewhere through `adopt`")
    rows = zip(synthetic["label_status"][:], column_of(synthetic, "weight"), strict=True)
    return [i for i, (status, weight) in enumerate(rows) if status in TRAINABLE and (weight is None or weight > 0)]


def training_rows(task: Task, rows: Dataset, decisions: Mapping[str, list[Any]]) -> Dataset:
    """Return synthetic rows for `augment` with other values of some corrected columns, such as labels and weights."""
    from datasets import Features

    wanted = task.corrected_features()
    names = dict.fromkeys(("id", *task.text_columns, "source", "seed_ids", "access", *decisions))
    return rewrite_columns(rows, decisions, Features({name: wanted[name] for name in names}))


def _task_columns(task: Task, gold: Dataset, synthetic: Dataset) -> list[str]:
    """Return the columns of the result beside those of the contract; the task's own are among them."""
    check_columns(task, gold, "id", what="the gold")
    check_columns(task, synthetic, what="the synthetic dataset")
    contract = {*SYNTHETIC_COLUMNS, *CORRECTION_COLUMNS, JUDGED}
    shared = [c for c in gold.column_names if c in synthetic.column_names and c not in contract]
    for column in shared:
        names = label_names(gold.features[column]), label_names(synthetic.features[column])
        if names[0] != names[1]:
            in_gold, in_synthetic = (names_shown(n or (), *task.labels, what="label") for n in names)
            where = names_shown([column], *task.text_columns, task.label_column)
            raise ColumnError(f"column {where} has labels {in_gold} in gold and {in_synthetic} in the synthetic rows")
    return shared


def _features(shared: list[str], gold: Dataset, synthetic: Dataset) -> Features:
    from datasets import Features, List, Value

    contract = {c: synthetic.features[c] for c in SYNTHETIC_COLUMNS if c in synthetic.column_names}
    contract |= {c: Value("string") for c in GOLD_COLUMNS}
    number = Value("float32")
    corrected = {"label_probs": List(number), "label_confidence": number, "weight": number}
    judged = {JUDGED: gold.features[JUDGED]} if JUDGED in gold.column_names else {}  # null in synthetic rows: all are
    return Features({"id": gold.features["id"]} | {c: gold.features[c] for c in shared} | judged | contract | corrected)


def _check_apart(columns: list[str], gold: Dataset, synthetic: Dataset, evaluation: Dataset) -> None:
    """Raise if an evaluation row is in the training rows, or was an exemplar of one of them."""
    texts = [c for c in columns if str(getattr(gold.features[c], "dtype", "")) == "string" and c in evaluation.features]
    held = set(_digests(evaluation, texts))
    for source, rows in (("gold", gold), ("synthetic", synthetic)):
        both = sum(d in held for d in _digests(rows, texts))
        if both:
            raise OverlapError(f"{both} {source} rows for training are evaluation rows too: remove them first")
    ids = set(evaluation["id"][:]) if "id" in evaluation.column_names else set()
    if any(id in ids for exemplars in column_of(synthetic, "seed_ids") for id in exemplars or ()):
        raise OverlapError("synthetic rows were written from rows of the evaluation split: generate from training rows")


def _digests(rows: Dataset, columns: list[str]) -> list[bytes]:
    digests: list[bytes] = []
    for batch in rows.select_columns(columns).iter(1_000):
        texts = zip(*(batch[c] for c in columns), strict=True)
        digests += [hashlib.sha256("\x1f".join(map(str, text)).encode()).digest() for text in texts]
    return digests


def _align_columns(rows: Dataset, features: Features, access: str) -> Dataset:
    """Return rows with exactly these columns: missing ones null, the weight of gold 1, access joined."""
    import pyarrow as pa

    n, kinds = len(rows), {field.name: field.type for field in features.arrow_schema}
    columns = {"access": pa.repeat(pa.scalar(access, kinds["access"]), n)}
    if "weight" not in rows.column_names:
        columns["weight"] = pa.repeat(pa.scalar(1.0, kinds["weight"]), n)
    return rewrite_columns(rows, columns, features)
