"""Load gold data as a `DatasetDict`; split by patient; take nested subsets; stream; register with `load_dataset`.

The builder of a task (a `GoldBuilder` in its script) reads the user's files. Its cache lies beside them, in `<gold
folder>/.hf_synth/cache`, and nowhere else. It is named by a digest of builder code, task and source files, so that a
changed file or changed code never uses an old cache.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, GoldError, HfSynthError, TaskError
from hf_synth.gold.sources import WHOLE, check_readable
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import cache_folder, read_export, read_manifest
from hf_synth.task.labels import check_columns, column_of
from hf_synth.task.patterns import bounded_pattern
from hf_synth.task.scripts import list_tasks, task_script
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDatasetDict

SPLIT_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of the groups, where the source has no splits
_END = 6  # words
_LOG = logging.getLogger(__name__)


def load_gold(
    task: Task,
    path: str | Path | None = None,
    *,
    seed: int = 0,
    mask_leaks: bool = False,
    validation: float | None = None,
    **options: Any,
) -> DatasetDict:
    """Load gold rows as a `DatasetDict` with the task's features.

    Official splits stay as they are; a warning names those that share groups. A source without splits is split by group
    (patient, admission) into train / validation / test, with equal texts always in one split.

    Args:
        path: the source's folder, archive (.zip, .tar.gz) or file, or a folder exported by `hf-synth gold`; None for
            tasks without files.
        seed: of the split by groups.
        mask_leaks: remove the task's label leaks ("grade 2", a "Toxicity Grading" section) from the texts.
        validation: share of the groups of train that becomes the split "validation", of a source that has none.
        options: fields of the builder's own config, e.g. `n_train=400` for the clinic, or `skip_empty=True` for a
            task made from columns.

    Raises:
        MissingGoldError: files are missing.
        RowError: a row is malformed; names file and row.
        GoldError: a split holds no row, the folder was exported from another task, or no validation split can be cut.
        TaskError: the task has no such option.

    Example:
        >>> notes = load_gold(load_task("clinic"), n_train=30, n_validation=10, n_test=10)
        >>> notes["train"].num_rows
        30
    """
    folder = None if path is None else Path(path)
    if folder is not None:
        check_readable(folder)
    if folder is not None and (folder / MANIFEST).is_file():
        gold = _from_export(task, folder)
    else:
        gold = _from_builder(task, folder, options)
    _check_not_empty(task, {split: len(rows) for split, rows in gold.items()}, folder)
    if set(gold) == {WHOLE}:
        gold = split_by_group(task, gold[WHOLE], seed=seed)
    else:
        _warn_of_shared_groups(gold)
    if validation is not None:
        gold = cut_validation(task, gold, validation, seed=seed)
    return gold.map(_mask_texts, fn_kwargs={"columns": task.text_columns, "leaks": task.leaks}) if mask_leaks else gold


def as_streaming_dataset(
    task: Task, path: str | Path | None = None, *, mask_leaks: bool = False, **options: Any
) -> IterableDatasetDict:
    """Read gold rows as a stream, without a cache: the source's splits, or one split "rows" where it has none.

    Args:
        path, mask_leaks, options: as for `load_gold`.

    Raises:
        HfSynthError: as `load_gold`; for a wrong row, when the stream reaches it.
    """
    from datasets import IterableDatasetDict

    stream = _builder(task, None if path is None else Path(path), options).as_streaming_dataset()
    if not mask_leaks:
        return stream
    how = {"fn_kwargs": {"columns": task.text_columns, "leaks": task.leaks}, "features": task.gold_features()}
    return IterableDatasetDict({split: rows.map(_mask_texts, **how) for split, rows in stream.items()})


def register() -> list[str]:
    """Register every built-in task in this process, so that `load_dataset("hf_synth/mednli", data_dir=...)` works.

    `data_dir` is what `load_gold` takes: a folder, an archive or a single file. The cache lies in the data folder. A
    source without splits has one split "rows"; only `load_gold` splits by group. This adds to a private table of
    `datasets`, which has no entry points for builders, and to the function that looks a builder up there.

    Returns:
        The names.

    Raises:
        HfSynthError: this version of `datasets` has no such table.

    Example:
        >>> "hf_synth/clinic" in register()
        True
        >>> from datasets import load_dataset
        >>> notes = load_dataset("hf_synth/clinic", split="test", cache_dir="work/cache")
    """
    from datasets import load, packaged_modules

    table = getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", None)
    module_of = getattr(getattr(load, "PackagedDatasetModuleFactory", None), "get_module", None)
    if not isinstance(table, dict) or module_of is None:
        raise HfSynthError("this version of datasets has no table of builders; use load_gold")
    builders = {f"hf_synth/{t.name}": (task_script(t.name).__name__, "0") for t in list_tasks()}
    table.update(builders)

    def get_module(wanted: Any) -> Any:
        """Return the builder without a list of data files: it finds its files itself, also in an archive."""
        if wanted.name not in builders:
            return module_of(wanted)
        path = wanted.data_dir or wanted.data_files
        return load.DatasetModule(
            *builders[wanted.name], {"data_files": {}, "data_dir": path, "dataset_name": wanted.name}
        )

    if not hasattr(module_of, "of_hf_synth"):
        get_module.of_hf_synth = True  # type: ignore[attr-defined]
        load.PackagedDatasetModuleFactory.get_module = get_module
    return list(builders)


def _check_not_empty(task: Task, counts: Mapping[str, int], folder: Path | None, files: Any = None) -> None:
    from hf_synth.gold.builder import file_names

    for split, count in counts.items():
        if count == 0:
            where = file_names(files[split]) if files and split in files else f"its file in {folder}"
            raise GoldError(f"split {split!r} of task {task.full_name!r} holds no row; check {where}")


def _warn_of_shared_groups(gold: DatasetDict) -> None:
    """Warn where the source's own splits share patients, admissions or notes."""
    groups = {split: set(_values(rows, "group")) for split, rows in gold.items()}
    for split, own in groups.items():
        shared = len(own & groups["train"]) if "train" in groups and split != "train" else 0
        if shared:
            _LOG.warning("split %s of the source shares %s of its %s groups with train", split, shared, len(own))


def _values(rows: Dataset, column: str) -> Iterator[Any]:
    """Yield the values of a column, with one batch of rows in memory at a time."""
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


def task_builder(task: Task) -> type[Any]:
    """Return the builder class of a task: its script's, or for a task made from columns one that reads its tables.

    Raises:
        TaskError: the script defines none.
    """
    from datasets import DatasetBuilder

    if task.script is None:
        from hf_synth.gold.own_table import columns_builder

        return columns_builder(task)
    module = task_script(task.script)
    for value in vars(module).values():
        own = inspect.isclass(value) and value.__module__ == module.__name__
        if own and issubclass(value, DatasetBuilder):
            return value  # type: ignore[no-any-return]
    raise TaskError(f"{module.__name__} defines no builder: add a subclass of hf_synth.gold.GoldBuilder")


def _builder(task: Task, folder: Path | None, options: Mapping[str, Any]) -> Any:
    source = {} if folder is None else {"data_dir": str(folder)}
    try:
        return task_builder(task)(config_name=task.config, **source, **options)
    except (ValueError, TypeError, AttributeError):
        names = ", ".join(options) or "none"
        raise TaskError(f"task {task.full_name!r} cannot be read with these options ({names})") from None


def _from_builder(task: Task, folder: Path | None, options: Mapping[str, Any]) -> DatasetDict:
    from datasets import Dataset, DatasetDict
    from datasets.exceptions import DatasetGenerationError

    builder = _builder(task, folder, options)
    try:
        if folder is None or cache_folder(folder) is None:  # no cache can be written: hold the rows in memory
            stream, features = builder.as_streaming_dataset(), task.gold_features()
            gold = DatasetDict({s: Dataset.from_list(list(rows), features=features) for s, rows in stream.items()})
            for rows in gold.values():
                rows.info.description = builder.info.description
            return gold
        builder.download_and_prepare()
        _check_not_empty(task, {s: info.num_examples for s, info in builder.info.splits.items()}, folder, builder.files)
        return builder.as_dataset()
    except DatasetGenerationError as error:
        cause = error.__cause__
        if isinstance(cause, HfSynthError):
            raise cause from None
        problem = type(cause).__name__ if cause else "unknown reason"
        raise GoldError(
            f"task {task.full_name!r}: its builder failed ({problem}); check the files in {folder}"
        ) from None


def split_by_group(task: Task, dataset: Dataset, *, seed: int = 0) -> DatasetDict:
    """Split rows by group into train / validation / test (SPLIT_SHARES of the groups); equal texts stay together.

    Raises:
        GoldError: there are too few groups for three splits.
    """
    from datasets import DatasetDict

    units = _units(task, dataset)
    names = sorted(set(units))
    if len(names) < 10:
        patients = repr(task.group_column) if task.group_column else "'group'"
        raise GoldError(
            f"{len(names)} groups are too few to split {len(dataset):,} rows into train, validation and test: give "
            f"a file for each split, or a column 'split'; if column {patients} is not the patient, rename it, or name "
            "the patient with --group-column"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.cumsum([round(share * len(names)) for share in SPLIT_SHARES.values()][:-1])
    split_of = {}
    for split, members in zip(SPLIT_SHARES, np.split(order, ends), strict=True):
        split_of.update({names[i]: split for i in members})
    chosen = np.array([split_of[u] for u in units])
    return DatasetDict({s: _named_split(dataset.select(np.flatnonzero(chosen == s)), s) for s in SPLIT_SHARES})


def cut_validation(task: Task, gold: DatasetDict, share: float, *, seed: int = 0) -> DatasetDict:
    """Cut a validation split off train, by group; equal texts stay together.

    Args:
        share: of the groups of train, above 0 and at most 0.5.

    Raises:
        GoldError: there is a validation split already, no train split, or train has too few groups.
    """
    from datasets import DatasetDict

    if not 0 < share <= 0.5:
        raise GoldError(f"a validation split of {share:g} of train cannot be cut: name a share above 0, at most 0.5")
    if "validation" in gold or "train" not in gold:
        problem = "has a validation split already" if "validation" in gold else "has no train split to cut one from"
        raise GoldError(f"the gold of task {task.full_name!r} {problem}: leave the share of validation out")
    units = _units(task, gold["train"])
    names = sorted(set(units))
    count = round(share * len(names))
    if not 0 < count < len(names):
        raise GoldError(f"{share:g} of the {len(names)} groups of train are less than one group: give a larger share")
    cut = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count]}
    apart = np.array([unit in cut for unit in units])
    parts = {"train": gold["train"].select(np.flatnonzero(~apart))}
    parts["validation"] = gold["train"].select(np.flatnonzero(apart))
    named = {split: _named_split(rows, split) for split, rows in parts.items()}
    return DatasetDict(named | {split: rows for split, rows in gold.items() if split not in parts})


def _named_split(rows: Dataset, name: str) -> Dataset:
    from datasets import NamedSplit

    rows._split = NamedSplit(name)  # else `push_to_hub` would use the name of the whole
    return rows


def label_counts(task: Task, splits: Mapping[str, Dataset]) -> dict[str, dict[str, int]]:
    """Count the rows of each label in each split; a row of a multi_label task counts for each of its labels."""
    counts: dict[str, dict[str, int]] = {label: dict.fromkeys(splits, 0) for label in task.labels}
    for split, rows in splits.items():
        for value in _values(rows, task.label_column) if task.labels else ():
            for index in value if isinstance(value, list) else [value]:
                counts[task.labels[index]][split] += 1
    return counts


def _units(task: Task, dataset: Dataset) -> list[str]:
    """Return the unit of each row that must not straddle a split: groups that share a text are one unit."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    # only rows that begin and end alike can have one text: to bring all texts into one form takes longer than to read
    groups = [str(group) for group in _values(dataset, "group")]
    ends = np.fromiter(
        (hash(e) for e in _texts(task, dataset, _first_and_last_words)), dtype=np.int64, count=len(dataset)
    )
    _, code, count = np.unique(ends, return_inverse=True, return_counts=True)
    at = np.flatnonzero(count[code] > 1)
    first_group: dict[bytes, str] = {}
    for place, words in zip(at, _texts(task, dataset.select(at), _words), strict=True):
        group = groups[place]
        first = first_group.setdefault(hashlib.sha256(words.encode("utf-8", "replace")).digest(), group)
        a, b = sorted((root(first), root(group)))
        parent[b] = a
    return [root(g) for g in groups]


def _texts(task: Task, dataset: Dataset, form: Callable[[Sequence[str]], Any]) -> Iterator[Any]:
    """Yield the texts of each row in another form."""
    columns = list(task.text_columns)
    for batch in dataset.select_columns(columns).with_format("arrow").iter(batch_size=1_000):
        yield from map(form, zip(*(batch[c].to_pylist() for c in columns), strict=True))


def _words(texts: Sequence[str]) -> str:
    return " ".join(" ".join(str(t).lower().split()) for t in texts)


def _first_and_last_words(texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the first and last words of texts. Texts that differ only in case and blanks have the same words."""
    return tuple(
        tuple(word.lower() for word in [*str(t).split(None, _END)[:_END], *str(t).rsplit(None, _END)[-_END:]])
        for t in texts
    )


def subset(task: Task, dataset: Dataset, n: int, *, seed: int = 0) -> Dataset:
    """Draw n rows with the labels in proportion; nested: with one seed, the 200 are among the 400.

    Rows keep their order in the dataset.

    Raises:
        ColumnError: n is not between 1 and the number of rows.

    Example:
        >>> subset(task, gold["train"], 12).num_rows
        12
    """
    if not 1 <= n <= len(dataset):
        raise ColumnError(f"cannot take {n} rows of {len(dataset)}; n must be between 1 and {len(dataset)}")
    rng = np.random.default_rng(seed)
    labels = column_of(dataset, task.label_column) if task.kind == "single_label" else [0] * len(dataset)
    place, each = np.empty(len(dataset)), np.asarray(labels)
    for label in sorted(set(labels)):
        rows = np.flatnonzero(each == label)
        # the k-th of c rows of a label gets the rank (k + u) / c: any prefix holds the labels in proportion
        place[rows[rng.permutation(len(rows))]] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return dataset.select(np.sort(np.argsort(place, kind="stable")[:n]))


def _mask_texts(row: dict[str, Any], columns: Sequence[str], leaks: Sequence[str]) -> dict[str, Any]:
    return {c: mask(row[c], leaks) for c in columns}


def mask(text: str, leaks: Sequence[str]) -> str:
    """Replace every match of a task's `leaks` in a text by a space."""
    for pattern in leaks:
        text = bounded_pattern(pattern).sub(" ", text)
    return text
