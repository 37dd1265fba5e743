"""Labels of LLMs beside the rows: columns `llm_label`, `llm_label_NAME` and stated confidences, on gold and on rows.

An LLM's errors can be counted where it labelled rows whose truth is known. `annotate` asks an LLM about gold or about
any other rows, and `annotations_of` pairs the columns that gold and synthetic rows share. `llm_label` of a row that an
LLM *wrote for a label* is no answer to a question about its text, so it is not paired with gold's.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.policy import GENERATOR, MEASURED, Annotations
from hf_synth.errors import ColumnError, TaskError
from hf_synth.gold.spelling import LabelNames, cell_text
from hf_synth.task.columns import LLM_CONFIDENCE, UNLABELLED, access_of, strictest
from hf_synth.task.folders import with_recorded_access
from hf_synth.task.labels import Floats, Ints, column_of, label_index, label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.correction.judging import LLMJudge

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")


def annotate(judge: LLMJudge, rows: Dataset, *, name: str = "", access: str | None = None) -> Dataset:
    """Add an LLM's labels of rows as columns: `llm_label` and `llm_confidence`, or both with `_NAME`.

    Args:
        judge: the LLM, as a judge of a single_label task.
        rows: gold, synthetic rows, or any others with the task's text columns.
        name: of the annotator, where several LLMs label the same rows; lower-case letters, digits and "_".
        access: of rows without a column `access`; credentialed when None.

    Returns:
        The rows with both columns; null in rejected rows, and where the LLM gave no usable answer. Their access is at
        least that of the LLM (`LocalLLM.access`).

    Raises:
        TaskError: the task is not single_label, or the name is not one.
        ColumnError: the rows have such a column already, or a text is missing.

    Example:
        >>> gold = annotate(LLMJudge(task, llm, votes=1), gold)  # doctest: +SKIP
    """
    import pyarrow as pa
    from datasets import Value

    from hf_synth.correction.judging import judged_texts

    task = judge.task
    if task.kind != "single_label":
        raise TaskError(
            f"task {task.full_name!r} is {task.kind}: labels of LLMs are counted for single_label tasks only"
        )
    if name and not _NAME.fullmatch(name):
        raise TaskError(f"{name!r} is no name of an annotator: use lower-case letters, digits and _")
    label, confidence = columns_of(name)
    if taken := [column for column in (label, confidence) if column in rows.column_names]:
        raise ColumnError(
            f"the rows have a column {taken[0]!r} already: choose another name for the annotator (--as NAME)"
        )
    carried = strictest(task.access, access_of(rows) if "access" in rows.column_names else access)
    asked = [i for i, status in enumerate(column_of(rows, "label_status")) if status != "rejected"]
    probs, cast = judge.votes_of(judged_texts(task, rows.select(asked)), carried)
    labels: list[int | None] = [None] * len(rows)
    sure: list[float | None] = [None] * len(rows)
    for i, p, votes in zip(asked, probs, cast, strict=True):
        if votes:
            labels[i], sure[i] = int(p.argmax()), float(p.max())
    features = {label: task.label_feature(), confidence: Value("float32")}
    values = {label: pa.array(labels, pa.int64()), confidence: pa.array(sure, pa.float32())}
    for column, feature in features.items():
        rows = rows.add_column(column, values[column], feature=feature)
    return with_recorded_access(rows, judge.access)


def columns_of(name: str) -> tuple[str, str]:
    """Return the columns of an annotator's labels and confidences; "" is the generator."""
    return (f"{GENERATOR}_{name}", f"{LLM_CONFIDENCE}_{name}") if name else (GENERATOR, LLM_CONFIDENCE)


def annotations_of(task: Task, gold: Dataset, rows: Dataset) -> tuple[Annotations, Annotations] | None:
    """Pair the LLM labels that gold and synthetic rows share; None where they share none.

    Args:
        gold: rows with true labels.
        rows: synthetic rows, none of them rejected, in the column contract.

    Raises:
        ColumnError: a column holds values that are no label of the task in every row.
    """
    names = [c for c in rows.column_names if c.startswith(f"{GENERATOR}_") and c in gold.column_names]
    if GENERATOR in gold.column_names and not is_written(rows).any():
        names.insert(0, GENERATOR)
    if not names:
        return None
    parts = []
    for dataset in (gold, rows):
        labels = np.stack([_label_values(task, dataset, name) for name in names], axis=1)
        sure = np.stack([_confidences(dataset, name.replace(GENERATOR, LLM_CONFIDENCE, 1)) for name in names], axis=1)
        parts.append((labels, sure))
    stated = all(np.isfinite(sure).any() for _, sure in parts)
    of_gold, of_rows = (Annotations(tuple(names), labels, sure if stated else None) for labels, sure in parts)
    return of_gold, of_rows


def with_task_codes(task: Task, rows: Dataset) -> Dataset:
    """Return rows whose `llm_label` is coded as the task codes labels, where it is a name or coded in another order.

    Raises:
        ColumnError: a row that is not rejected has a label that is none of the task's.
    """
    if task.kind == "text2text" or rows.features[GENERATOR] == task.label_feature():
        return rows
    index_of, typed = label_index(task, rows.features[GENERATOR]), label_names(rows.features[GENERATOR])
    codes: list[Any] = []
    for i, (value, status) in enumerate(zip(rows[GENERATOR][:], rows["label_status"][:], strict=True)):
        coded = [index_of(v) for v in value] if isinstance(value, list) else None if value is None else index_of(value)
        empty = value is None or (typed and value == -1)
        if status != "rejected" and not empty and -1 in (coded if isinstance(coded, list) else [coded]):
            raise ColumnError(f"row {i}: column {GENERATOR!r} is none of the task's labels {list(task.labels)}")
        codes.append(None if status == "rejected" and coded == -1 else coded)
    return rows.remove_columns(GENERATOR).add_column(GENERATOR, codes, feature=task.label_feature())


def check_labelled(method: str, gold: Dataset) -> None:
    """Check that gold holds labels of an LLM where a method counts an LLM's errors on gold.

    Raises:
        TaskError: it holds none.
    """
    if method in MEASURED and not any(c == GENERATOR or c.startswith(f"{GENERATOR}_") for c in gold.column_names):
        raise TaskError(
            f"method {method!r} counts an LLM's errors on gold, and gold holds no labels of an LLM: "
            "let the LLM label it too (`hf-synth label TASK GOLD --gold`)"
        )


def is_written(rows: Dataset) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows that an LLM wrote by a recorded prompt, (N,): their `llm_label` was asked for."""
    columns = (column_of(rows, name) for name in ("source", "prompt_sha256", "seed_ids"))
    return np.array(
        [s != UNLABELLED and bool(prompt or seeds) for s, prompt, seeds in zip(*columns, strict=True)], bool
    )


def _label_values(task: Task, dataset: Dataset, column: str) -> Ints:
    """Return an LLM's labels as indices, (N,), -1 where a row has none or another answer."""
    index_of, names = label_index(task, dataset.features[column]), LabelNames(task.labels)

    def found(value: Any) -> int:
        name = names.find(value) if isinstance(value, str) else None  # spelled as gold may spell it
        return index_of(value if name is None else name)

    values = dataset[column][:]
    labels = np.array([found(value) for value in values], dtype=np.int64)
    if len(labels) and (labels < 0).all():
        raise ColumnError(f"column {column!r} holds no label of task {task.full_name!r}: {', '.join(task.labels)}")
    unknown = sum(label < 0 and cell_text(v) not in (None, "-1") for v, label in zip(values, labels, strict=True))
    if unknown:
        _LOG.warning(
            "column %r: %d of %d rows hold no label of the task; they count as unanswered", column, unknown, len(labels)
        )
    return labels


def _confidences(dataset: Dataset, column: str) -> Floats:
    """Return stated confidences between 0 and 1, (N,), nan where none is stated."""
    if column not in dataset.column_names:
        return np.full(len(dataset), np.nan)
    values = np.array([np.nan if v is None else v for v in dataset[column][:]], dtype=np.float64)
    if (wrong := np.flatnonzero((values < 0) | (values > 1))).size:
        raise ColumnError(f"row {wrong[0]}: column {column!r} is no confidence between 0 and 1")
    return values
