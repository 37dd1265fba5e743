"""Bring rows made elsewhere into a task's columns; read a Dataset from a folder, an export, or a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, MissingGoldError, RowError
from hf_synth.gold.readers import read_table
from hf_synth.task.access import known_accesses
from hf_synth.task.columns import LLM_CONFIDENCE, USAGE_COLUMNS, access_of, names_shown, strictest
from hf_synth.task.folders import as_recorded, map_parquet, plain_features, read_export, recorded_access
from hf_synth.task.labels import column_of, label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset


def adopt(
    task: Task,
    dataset: Dataset,
    *,
    text_columns: Sequence[str] | None = None,
    llm_label_column: str = "llm_label",
    access: str | None = None,
    generator: str = "unknown",
) -> Dataset:
    """Convert synthetic rows made elsewhere to the task's columns and features.

    A column `seed_ids`, with the ids of the gold rows that a row was written from, is kept. Without it nothing is known
    of these gold rows, and held-out gold cannot be held out together with what was written from it.

    Args:
        text_columns: their names for the task's text columns, in order; the task's own when None.
        llm_label_column: their name for the label that the generator was to write; names or indices of labels.
        access: the access of the gold behind them, when the rows carry none; absent counts as credentialed. It cannot
            loosen the access of a task that they name.
        generator: the name of the model or tool that made them.

    Returns:
        Rows with `task.synthetic_features()`, and the columns `llm_label_<name>` and `llm_confidence...` of other LLMs.

    Raises:
        ColumnError: a column is missing.
        RowError: a text is empty or a label is none of the task's.
    """
    from datasets import Dataset

    columns = tuple(text_columns or task.text_columns)
    missing = [c for c in (*columns, llm_label_column) if c not in dataset.column_names]
    if missing or len(columns) != len(task.text_columns):
        raise ColumnError(
            f"synthetic rows need text columns {list(columns)} and {llm_label_column!r}; "
            f"they have {names_shown(dataset.column_names, *columns, llm_label_column)}"
        )
    known = known_accesses(task, column_of(dataset, "task"))
    access = strictest(task.access, access_of(dataset) if "access" in dataset.column_names else access, *known)
    names = label_names(dataset.features[llm_label_column])
    texts = zip(*(dataset[c] for c in columns), strict=True)
    count = len(dataset)
    ids = dataset["id"] if "id" in dataset.column_names else [f"{task.name}-adopted-{i}" for i in range(count)]
    seeds = column_of(dataset, "seed_ids")
    unused: dict[str, Any] = dict.fromkeys(("prompt_sha256", "journal_key", "answer_code", "sampling", "created"), "")
    unused |= dict.fromkeys(("fold", *USAGE_COLUMNS))
    rows = []
    for i, (id, text, value) in enumerate(zip(ids, texts, dataset[llm_label_column], strict=True)):
        if any(not isinstance(t, str) or not t.strip() for t in text):
            raise RowError("synthetic rows", i + 1, "a text is empty; remove the row")
        label = _label_value(task, names, value, i + 1)
        rows.append(
            task.gold_row(id, id, label, *text)
            | {"source": "synthetic", "access": access, "seed_ids": seeds[i]}
            | unused
            | {"generator": generator, "llm_label": label, "label_status": "kept", "reason": "as_generated"}
        )
    adopted = Dataset.from_list(rows, features=task.synthetic_features())
    for column in dataset.column_names:  # labels of other LLMs
        if column.startswith(("llm_label_", LLM_CONFIDENCE)) and column != llm_label_column:
            adopted = adopted.add_column(column, dataset[column][:], feature=dataset.features[column])
    return adopted


def _label_value(task: Task, names: list[str] | None, value: Any, row: int) -> Any:
    """Return a label as the task's feature takes it: an index, a list of them, or a text."""
    if task.kind == "text2text":
        if not isinstance(value, str) or not value.strip():
            raise RowError("synthetic rows", row, "holds a target that is empty or no text; remove the row")
        return value
    if task.kind == "multi_label":
        if not isinstance(value, list):
            raise RowError("synthetic rows", row, "holds no list of labels (an empty list is no label)")
        return [_label_index(task, names, v, row) for v in value]
    return _label_index(task, names, value, row)


def _label_index(task: Task, names: list[str] | None, value: Any, row: int) -> int:
    if isinstance(value, bool):  # a reader of CSV files made the labels "True" and "False" into booleans
        value = str(value)
    numeric = isinstance(value, int)
    if numeric and names is not None:
        value = names[value] if 0 <= value < len(names) else None  # -1 marks a row without a label
    elif numeric and 0 <= value < len(task.labels):
        return int(value)
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    raise RowError("synthetic rows", row, f"holds no label of task {task.full_name!r}: {', '.join(task.labels)}")


def read_dataset(path: Path, *, split: str | None = None) -> Dataset:
    """Read one Dataset from an exported folder, a `save_to_disk` folder, or a .parquet / .jsonl / .csv file.

    Its rows are at least as strict as what the files record of themselves (`recorded_access`).

    Args:
        split: which split of a folder with several; "train", or else the first, when None.

    Raises:
        MissingGoldError: the path does not exist, or the folder holds no data.
        RowError: the file is malformed.
        ColumnError: the folder has no such split.
    """
    from datasets import Dataset, load_from_disk

    path = Path(path)
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return as_recorded(map_parquet(path, path), recorded_access(path))
        return as_recorded(Dataset.from_list([row for _, row in read_table(path)]), recorded_access(path))
    if not path.is_dir():
        raise MissingGoldError(f"{path} is no file or folder")
    on_disk = (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()
    if not on_disk:
        splits = read_export(path)
    else:
        try:
            splits = load_from_disk(str(path))
        except (ValueError, TypeError, KeyError, OSError):  # their messages may quote rows
            raise RowError(path.name, None, "is no dataset that `save_to_disk` wrote; save it again") from None
        if isinstance(splits, Dataset):
            return as_recorded(_plain(splits), recorded_access(path))
    split = split or ("train" if "train" in splits else next(iter(splits)))
    if split not in splits:
        raise ColumnError(f"{path} has no split {split!r}; it has {', '.join(splits)}")
    rows = _plain(splits[split])
    return as_recorded(rows, recorded_access(path)) if on_disk else rows


def _plain(dataset: Dataset) -> Dataset:
    """Return a dataset without features that would be fetched or decoded, such as images; in memory if it has any."""
    from datasets import Dataset

    plain = plain_features(dataset.data.schema, dataset.features.to_dict())
    if dataset.features == plain:
        return dataset
    table = dataset.with_format("arrow")[:]  # the values as they are stored, in the order of the rows
    return Dataset(table.replace_schema_metadata(plain.arrow_schema.metadata))
