"""Bring rows made elsewhere into a task's columns; read a Dataset from a folder, an export, or a table."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, MissingGoldError, RowError
from hf_synth.gold.faults import Faults
from hf_synth.gold.spelling import Ids, LabelNames, cell_text, label_problem, split_labels
from hf_synth.gold.tables import TABLE_SUFFIXES, read_batches
from hf_synth.task.access import known_accesses
from hf_synth.task.arrow import arrow_table
from hf_synth.task.columns import ACCESSES, LLM_CONFIDENCE, USAGE_COLUMNS, access_of, names_shown, strictest
from hf_synth.task.folders import (
    REJECTED,
    map_parquet,
    plain_features,
    read_export,
    read_manifest,
    recorded_access,
    with_recorded_access,
)
from hf_synth.task.labels import column_of, label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)


def adopt(
    task: Task,
    dataset: Dataset,
    *,
    text_columns: Sequence[str] | None = None,
    llm_label_column: str = "llm_label",
    access: str | None = None,
    generator: str = "unknown",
    file: Path | None = None,
) -> Dataset:
    """Convert synthetic rows made elsewhere to the task's columns and features.

    A column `seed_ids`, with the ids of the gold rows that a row was written from (a list, or a text such as "a; b" in
    a table), is kept. Without it nothing is known of these gold rows, and held-out gold cannot be held out together
    with what was written from it.

    Args:
        text_columns: their names for the task's text columns, in order; the task's own when None.
        llm_label_column: their name for the label that the generator was to write: names of labels, spelled as gold may
            spell them. Whole numbers are names where a label of the task is a number, else indices.
        access: the access of the gold behind them, when the rows carry none; absent counts as credentialed. It cannot
            loosen the access of a task that they name.
        generator: the name of the model or tool that made them.
        file: the table that they were read from: errors name its lines.

    Returns:
        Rows with `task.synthetic_features()`, and the columns `llm_label_<name>` and `llm_confidence...` of other LLMs.

    Raises:
        ColumnError: a column is missing.
        RowError: a text is empty or a label is none of the task's.

    Example:
        >>> from datasets import Dataset
        >>> own = Dataset.from_dict({"text": ["Eats everything."], "llm_label": ["grade_0"]})
        >>> adopt(task, own, access="open")["label_status"][:]
        ['kept']
    """
    import pyarrow as pa
    from datasets import Dataset

    from hf_synth.gold.builder import as_table

    columns = tuple(text_columns or task.text_columns)
    missing = [c for c in (*columns, llm_label_column) if c not in dataset.column_names]
    if missing or len(columns) != len(task.text_columns):
        raise ColumnError(
            f"synthetic rows need text columns {list(columns)} and {llm_label_column!r}; "
            f"they have {names_shown(dataset.column_names, *columns, llm_label_column)}"
        )
    count = len(dataset)
    known = known_accesses(task, column_of(dataset, "task"))
    stated = access_of(dataset) if "access" in dataset.column_names else access
    access = strictest(task.access, stated, *known)
    _warn_of_accesses(dataset)
    texts = {own: _texts(dataset, c) for own, c in zip(task.text_columns, columns, strict=True)}
    labels = _labels(task, dataset, llm_label_column, texts, file)
    ids = Ids(f"{task.name}-adopted")
    own_ids = [ids.new(value, i) for i, value in enumerate(column_of(dataset, "id"))]
    if ids.repeated:
        _LOG.warning("column 'id' repeats in %s synthetic rows: their row number is added", f"{ids.repeated:,}")
    constants: dict[str, Any] = dict.fromkeys(
        ("prompt_sha256", "journal_key", "answer_code", "sampling", "created"), ""
    )
    constants |= dict.fromkeys(("fold", *USAGE_COLUMNS)) | {"source": "synthetic", "access": access}
    constants |= {"task": task.full_name, "task_version": task.version, "generator": generator}
    constants |= {"label_status": "kept", "reason": "as_generated"}
    features = task.synthetic_features()
    types = {field.name: field.type for field in features.arrow_schema}
    made: dict[str, Any] = {c: pa.repeat(pa.scalar(value, types[c]), count) for c, value in constants.items()}
    made |= texts | {"id": own_ids, "group": own_ids, "seed_ids": _seed_ids(dataset)}
    made |= {task.label_column: labels, "llm_label": labels}
    # hashed from the rows' own fingerprint: `datasets` would read every text for it
    way = [dataset._fingerprint, task.fingerprint(), task.access, columns, llm_label_column, access, generator]
    name = hashlib.sha256(json.dumps(way).encode()).hexdigest()[:16]
    adopted = Dataset(as_table(made, features), fingerprint=name)
    for column in dataset.column_names:  # labels of other LLMs
        if column.startswith(("llm_label_", LLM_CONFIDENCE)) and column != llm_label_column:
            adopted = adopted.add_column(column, dataset[column][:], feature=dataset.features[column])
    return adopted


def _texts(dataset: Dataset, name: str) -> Any:
    """Return a column as an Arrow array, of strings if it holds texts: they are not copied row by row."""
    import pyarrow as pa

    column = arrow_table(dataset.select_columns([name]))[name]
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _values(column: Any) -> Iterator[Any]:
    for start in range(0, len(column), 1_000):
        yield from column.slice(start, 1_000).to_pylist()


def _warn_of_accesses(dataset: Dataset) -> None:
    """Log that a column `access` holds other things, for which the rows count as credentialed."""
    if "access" in dataset.column_names and (unknown := set(dataset["access"][:]) - set(ACCESSES)):
        _LOG.warning(
            "column 'access' of the synthetic rows holds %d values that are none of %s: the rows count as "
            "credentialed; rename the column if it is something else", len(unknown), ", ".join(ACCESSES),
        )  # fmt: skip


def _labels(task: Task, dataset: Dataset, column: str, texts: Mapping[str, Any], file: Path | None) -> list[Any]:
    """Return the label of each row as gold reads it: an index, a list of them, or a text.

    Raises:
        RowError: texts are empty, or labels are none of the task's; all such rows are in one error.
    """
    names, typed = LabelNames(task.labels), label_names(dataset.features[column])
    labels: list[Any] = []
    wrong: dict[int, str] = {}
    for place, (value, *row) in enumerate(zip(dataset[column][:], *map(_values, texts.values()), strict=True)):
        label: Any = value
        if any(not isinstance(t, str) or not t or t.isspace() for t in row):
            wrong[place] = "a text is empty; remove the row"
        elif task.kind == "text2text":
            if not isinstance(value, str) or not value.strip():
                wrong[place] = "holds a target that is empty or no text; remove the row"
        elif task.kind == "multi_label":
            label = [_index(names, typed, v) for v in split_labels(value)]
            if None in label:
                wrong[place] = _no_label(task, names, column, None, "")
        else:
            label = _index(names, typed, value)
            if label is None:
                wrong[place] = _no_label(task, names, column, None if typed else value, row[0])
        labels.append(label)
    if wrong:
        table = file is not None and file.suffix.lower() in TABLE_SUFFIXES
        numbers = [n for batch in read_batches(file, needed=()) for n in batch.numbers] if file and table else []
        faults = Faults(file.name if file and len(numbers) == len(labels) else "synthetic rows")
        for place, problem in wrong.items():
            faults.add(numbers[place] if len(numbers) == len(labels) else place + 1, problem)
        faults.check()
    return labels


def _seed_ids(dataset: Dataset) -> list[list[str] | None]:
    """Return the ids of the gold rows behind each row, of a list or a text "a; b"; None where none is known."""
    made: list[list[str] | None] = []
    for value in column_of(dataset, "seed_ids"):
        ids = [part if isinstance(part, str) else cell_text(part) for part in split_labels(value)]
        made.append([i for i in ids if i] if ids or isinstance(value, list) else None)
    return made


def _index(names: LabelNames, typed: list[str] | None, value: Any) -> int | None:
    """Return the index of a label. A number is a name where a label of the task is one, else an index."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if typed is not None:
        value = typed[value] if number and 0 <= value < len(typed) else None  # -1 marks a row without a label
    elif number and not names.numeric:
        return int(value) if 0 <= value < len(names.names) else None
    found = names.find(value)
    return None if found is None else names.names.index(found)


def _no_label(task: Task, names: LabelNames, column: str, value: Any, text: str) -> str:
    problem = label_problem(names, column, value, text)
    what = problem.split(" holds", 1)[1].split(" no known")[0] if " holds" in problem else ""
    return f"column {column!r} holds{what} no label of task {task.full_name!r}: {', '.join(task.labels)}"


def read_dataset(path: Path, *, split: str | None = None) -> Dataset:
    """Read one Dataset from an exported folder, a `save_to_disk` folder, or a table (.parquet, .jsonl, .csv, .xlsx).

    Its rows are at least as strict as what the files record of themselves (`recorded_access`).

    Args:
        split: which split of a folder with several. When None: "train", with the split of rejected rows after it where
            a stage wrote one; or else the first.

    Raises:
        MissingGoldError: the path does not exist, or the folder holds no data.
        RowError: the file is malformed.
        ColumnError: the folder has no such split.
    """
    from datasets import Dataset, concatenate_datasets, load_from_disk

    path = Path(path)
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return with_recorded_access(map_parquet(path, path), recorded_access(path))
        return with_recorded_access(_from_table(path), recorded_access(path))
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
            return with_recorded_access(_plain(splits), recorded_access(path))
    if split is None and {"train", REJECTED} <= set(splits) and read_manifest(path) is not None:
        return concatenate_datasets([splits["train"], splits[REJECTED]])
    split = split or ("train" if "train" in splits else next(iter(splits)))
    if split not in splits:
        raise ColumnError(f"{path} has no split {split!r}; it has {', '.join(splits)}")
    rows = _plain(splits[split])
    return with_recorded_access(rows, recorded_access(path)) if on_disk else rows


def _from_table(path: Path) -> Dataset:
    """Read a table as strings, numbers and lists; a column of mixed types becomes text."""
    import pyarrow as pa
    from datasets import Dataset

    faults = Faults(path.name)
    tables = []
    for batch in read_batches(path, faults, needed=()):
        tables.append(pa.table({name: _as_array(list(values)) for name, values in batch.columns.items()}))
    faults.check()
    try:
        table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException:  # a column has other types in other batches
        names = dict.fromkeys(name for table in tables for name in table.column_names)
        table = pa.table({name: _joined(tables, name) for name in names})
    nulls = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
    return Dataset(table.cast(pa.schema(nulls)))


def _joined(tables: list[Any], name: str) -> Any:
    """Return a column of several tables; as text where their types differ."""
    values = [v for t in tables for v in (t[name].to_pylist() if name in t.column_names else [None] * len(t))]
    return _as_array(values)


def _as_array(values: list[Any]) -> Any:
    """Return values as an Arrow array; as text where their types differ."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
        texts = [json.dumps(value) if isinstance(value, list | dict) else cell_text(value) for value in values]
        plain = [v if isinstance(v, str) else text for v, text in zip(values, texts, strict=True)]
        return pa.array([v if v is None else v.encode("utf-8", "replace").decode() for v in plain], pa.string())


def _plain(dataset: Dataset) -> Dataset:
    """Return a dataset without features that would be fetched or decoded, such as images; in memory if it has any."""
    from datasets import Dataset

    plain = plain_features(dataset.data.schema, dataset.features.to_dict())
    if dataset.features == plain:
        return dataset
    table = arrow_table(dataset)  # the values as they are stored, in the order of the rows
    return Dataset(table.replace_schema_metadata(plain.arrow_schema.metadata))
