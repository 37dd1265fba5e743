"""Gold: the raw files a user holds become a typed `DatasetDict`, split by patient, cached nowhere but beside them.

The builder of a task (a `GoldBuilder` in its script) reads the files. Its cache lies in `<gold
folder>/.hf_synth/cache`, named by a digest of builder code, task and source files, so that neither a changed file nor
changed code ever meets an old cache.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, GoldError, HfSynthError, TaskError
from hf_synth.gold.sources import WHOLE
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import cache_folder, read_export, read_manifest
from hf_synth.task.labels import check_columns
from hf_synth.task.scripts import list_tasks, task_script
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDatasetDict

SPLIT_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of the groups, where the source has no splits
_LOG = logging.getLogger(__name__)


def load_gold(
    task: Task, path: str | Path | None = None, *, seed: int = 0, mask_leaks: bool = False, **options: Any
) -> DatasetDict:
    """Load gold rows as a `DatasetDict` with the task's features.

    Official splits stay as they are; where groups stand in two of them, that is said. Where the source has no splits,
    it is split by group (patient, admission) into train / validation / test, with equal texts never on both sides.

    Args:
        path: the source's folder, archive (.zip, .tar.gz) or file, or a folder exported by `hf-synth gold`; None for
            tasks without files.
        seed: of the split by groups.
        mask_leaks: take the task's label leaks ("grade 2", a "Toxicity Grading" section) out of the texts.
        options: fields of the builder's own config, e.g. `n_train=400` for the clinic.

    Raises:
        MissingGoldError: files are not there.
        RowError: a row is malformed; names file and row.
        GoldError: a split holds no row, or the folder was exported from another task.
        TaskError: an option is not one of this task.
    """
    folder = None if path is None else Path(path)
    if folder is not None and (folder / MANIFEST).is_file():
        gold = _from_export(task, folder)
    else:
        gold = _from_builder(task, folder, options)
    _check_not_empty(task, {split: len(rows) for split, rows in gold.items()})
    if set(gold) == {WHOLE}:
        gold = split_by_group(task, gold[WHOLE], seed=seed)
    else:
        _say_shared_groups(gold)
    return gold.map(_mask_texts, fn_kwargs={"columns": task.text_columns, "leaks": task.leaks}) if mask_leaks else gold


def as_streaming_dataset(
    task: Task, path: str | Path | None = None, *, mask_leaks: bool = False, **options: Any
) -> IterableDatasetDict:
    """Read gold rows as a stream that writes nothing: the splits of the source, or one split "rows" where it has none.

    Args:
        path, mask_leaks, options: as for `load_gold`.

    Raises:
        HfSynthError: as `load_gold`; for a wrong row, when the stream comes to it.
    """
    stream = _builder(task, None if path is None else Path(path), options).as_streaming_dataset()
    how = {"columns": task.text_columns, "leaks": task.leaks}
    return stream.map(_mask_texts, fn_kwargs=how, features=task.gold_features()) if mask_leaks else stream


def register() -> list[str]:
    """Make `load_dataset("hf_synth/mednli", data_dir=...)` work in this process, for every task of ours.

    The cache lies in the data folder. What has no splits comes as one split "rows": `load_gold` splits by group. This
    leans on a private table of `datasets`, since it has no entry points for builders.

    Returns:
        The names.

    Raises:
        HfSynthError: this version of `datasets` has no such table.
    """
    from datasets import packaged_modules

    table = getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", None)
    if not isinstance(table, dict):
        raise HfSynthError("this version of datasets has no table of builders; use load_gold")
    made = {f"hf_synth/{t.name}": (task_script(t.name).__name__, "0") for t in list_tasks()}
    table.update(made)
    return list(made)


def _check_not_empty(task: Task, counts: Mapping[str, int]) -> None:
    for split, count in counts.items():
        if count == 0:
            raise GoldError(f"split {split!r} of task {task.full_name!r} holds no row; check its file")


def _say_shared_groups(gold: DatasetDict) -> None:
    """Warn where the source's own splits share patients, admissions or notes."""
    groups = {split: set(_values(rows, "group")) for split, rows in gold.items()}
    for split, own in groups.items():
        shared = len(own & groups["train"]) if "train" in groups and split != "train" else 0
        if shared:
            _LOG.warning(
                "split %s shares %s of its %s groups with train, as the source has it", split, shared, len(own)
            )


def _values(rows: Dataset, column: str) -> Iterator[Any]:
    """Give the values of a column, a batch of rows in memory at a time."""
    for batch in rows.select_columns([column]).with_format("arrow").iter(batch_size=10_000):
        yield from batch[column].to_pylist()


def _from_export(task: Task, folder: Path) -> DatasetDict:
    facts = read_manifest(folder) or {}
    if facts.get("task") != task.full_name:
        raise GoldError(f"{folder} holds task {facts.get('task')!r}, not {task.full_name!r}; name that task")
    gold = read_export(folder)
    for split, rows in gold.items():
        check_columns(task, rows, "id", what=f"split {split!r} of {folder}")
    return gold


# --- through a task's own builder -----------------------------------------------------------------------------------
def task_builder(task: Task) -> type[Any]:
    """Give the builder class that a task's script defines; of a task without script, the one that reads its columns.

    Raises:
        TaskError: the script has none.
    """
    from datasets import GeneratorBasedBuilder

    if task.script is None:
        from hf_synth.gold.own_table import columns_builder

        return columns_builder(task)
    module = task_script(task.script)
    for value in vars(module).values():
        own = inspect.isclass(value) and value.__module__ == module.__name__
        if own and issubclass(value, GeneratorBasedBuilder):
            found: type[Any] = value
            return found
    raise TaskError(f"{module.__name__} defines no builder (a class of hf_synth.building.GoldBuilder)")


def _builder(task: Task, folder: Path | None, options: Mapping[str, Any]) -> Any:
    where = {} if folder is None else {"data_dir": str(folder)}
    try:
        return task_builder(task)(config_name=task.config, **where, **options)
    except (ValueError, TypeError, AttributeError):
        given = ", ".join(options) or "none"
        raise TaskError(f"task {task.full_name!r} cannot be read with these options ({given})") from None


def _from_builder(task: Task, folder: Path | None, options: Mapping[str, Any]) -> DatasetDict:
    from datasets import Dataset, DatasetDict
    from datasets.exceptions import DatasetGenerationError

    made = _builder(task, folder, options)
    try:
        if folder is None or cache_folder(folder) is None:  # nothing may be written beside the files: hold the rows
            stream, features = made.as_streaming_dataset(), task.gold_features()
            return DatasetDict({s: Dataset.from_list(list(rows), features=features) for s, rows in stream.items()})
        made.download_and_prepare()
        _check_not_empty(task, {s: info.num_examples for s, info in made.info.splits.items()})
        return made.as_dataset()
    except DatasetGenerationError as error:
        cause = error.__cause__
        if isinstance(cause, HfSynthError):
            raise cause from None
        problem = type(cause).__name__ if cause else "unknown reason"
        raise GoldError(
            f"task {task.full_name!r}: its builder failed ({problem}); check the files in {folder}"
        ) from None


# --- splits and subsets ---------------------------------------------------------------------------------------------
def split_by_group(task: Task, dataset: Dataset, *, seed: int = 0) -> DatasetDict:
    """Split rows into train / validation / test (SPLIT_SHARES of the groups), equal texts kept together.

    Raises:
        GoldError: there are too few groups for three splits.
    """
    from datasets import DatasetDict, NamedSplit

    units = _units(task, dataset)
    names = sorted(set(units))
    if len(names) < 10:
        raise GoldError(f"{len(names)} groups are too few to split into train, validation and test; give the splits")
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.cumsum([round(share * len(names)) for share in SPLIT_SHARES.values()][:-1])
    split_of = {}
    for split, members in zip(SPLIT_SHARES, np.split(order, ends), strict=True):
        split_of.update({names[i]: split for i in members})
    chosen = np.array([split_of[u] for u in units])
    splits = {s: dataset.select(np.flatnonzero(chosen == s)) for s in SPLIT_SHARES}
    for name, rows in splits.items():
        rows._split = NamedSplit(name)  # a part still says "rows", and `push_to_hub` would call it so
    return DatasetDict(splits)


def _units(task: Task, dataset: Dataset) -> list[str]:
    """Join groups that share a text: the unit that must not straddle a split, one name a row."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first_group: dict[bytes, str] = {}
    groups: list[str] = []
    columns = ["group", *task.text_columns]
    for batch in dataset.select_columns(columns).with_format("arrow").iter(batch_size=1_000):
        for group, *texts in zip(*(batch[c].to_pylist() for c in columns), strict=True):
            words = " ".join(" ".join(str(t).lower().split()) for t in texts)
            seen = first_group.setdefault(hashlib.sha256(words.encode("utf-8", "replace")).digest(), str(group))
            a, b = sorted((root(seen), root(str(group))))
            parent[b] = a
            groups.append(str(group))
    return [root(g) for g in groups]


def subset(task: Task, dataset: Dataset, n: int, *, seed: int = 0) -> Dataset:
    """Take n rows with the labels in proportion; nested: with one seed, the 200 are among the 400.

    Rows keep their order in the dataset.

    Raises:
        ColumnError: n is not between 1 and the number of rows.
    """
    if not 1 <= n <= len(dataset):
        raise ColumnError(f"cannot take {n} rows of {len(dataset)}; ask for between 1 and {len(dataset)}")
    rng = np.random.default_rng(seed)
    labels: Sequence[Any] = dataset[task.label_column] if task.kind == "single_label" else [0] * len(dataset)
    place = np.empty(len(dataset))
    for label in sorted(set(labels)):
        rows = np.flatnonzero(np.asarray(labels) == label)
        # the k-th of c rows of a label stands at (k + u) / c of the way: any prefix holds the labels in proportion
        place[rows[rng.permutation(len(rows))]] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return dataset.select(np.sort(np.argsort(place, kind="stable")[:n]))


def _mask_texts(row: dict[str, Any], columns: Sequence[str], leaks: Sequence[str]) -> dict[str, Any]:
    return {c: mask(row[c], leaks) for c in columns}


def mask(text: str, leaks: Sequence[str]) -> str:
    """Take everything that the patterns of a task's `leaks` match out of a text."""
    for pattern in leaks:
        text = re.sub(pattern, " ", text)
    return text
