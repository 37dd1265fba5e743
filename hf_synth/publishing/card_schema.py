"""The schema of an export for its card: features, splits and sizes of each config, read from its parquet files.

The Hub and `datasets` read `dataset_info` of a card's header before any file. An entry that differs from the files
would mislead whoever reads the card alone, so the check compares both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.task.folders import plain_features

if TYPE_CHECKING:
    import pyarrow as pa

SPLIT = "train"  # the one split of every config
_BATCH = 10_000
_LONGEST, _LINE = 40_000, 8  # characters of the features in a header; of a line without its key or value
_INFO = ("config_name", "features", "splits", "download_size", "dataset_size")


def config_files(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files of an export by config: each config has a folder of its name."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*/*.parquet")):
        files.setdefault(file.parent.name, []).append(file)
    return files


def dataset_info(folder: Path, configs: Sequence[str]) -> list[dict[str, Any]]:
    """Return the entry `dataset_info` of a card's header, a mapping for each config, as `datasets` writes it.

    Args:
        folder: the export, its parquet files written.
        configs: names in the order of the card.

    Returns:
        An empty list where thousands of labels would make the header longer than a Hub takes (64 kB): then `datasets`
        reads the schema from the files.
    """
    files = config_files(folder)
    infos = [_info(name, files[name]) for name in configs if name in files]
    features = [feature for info in infos for feature in info["features"]]
    return infos if sum(_LINE + len(line) for f in features for line in _lines(f)) <= _LONGEST else []


def _lines(value: Any) -> Iterator[str]:
    """Yield about the lines that a value takes in YAML."""
    if isinstance(value, Mapping):
        for key, inside in value.items():
            yield str(key)
            yield from _lines(inside)
    else:
        yield str(value)


def _info(name: str, files: Sequence[Path]) -> dict[str, Any]:
    import pyarrow.parquet as pq

    rows = size = 0
    for file in files:
        with pq.ParquetFile(file) as table:
            schema, rows = table.schema_arrow, rows + table.metadata.num_rows
            size += sum(batch.nbytes for batch in table.iter_batches(_BATCH))
    return {
        "config_name": name,
        "features": [{"name": column, **_feature(f)} for column, f in features_of(schema).items()],
        "splits": [{"name": SPLIT, "num_bytes": size, "num_examples": rows}],
        "download_size": sum(file.stat().st_size for file in files),
        "dataset_size": size,
    }


def features_of(schema: pa.Schema) -> Mapping[str, Any]:
    """Return the features that the schema of a parquet file states: labels with their names, and plain values."""
    return dict(plain_features(schema))


def _feature(feature: Any) -> dict[str, Any]:
    """Return a feature as a card has it: `dtype: string`, `dtype: {class_label: ...}`, `list: ...`."""
    from datasets import List

    if isinstance(feature, List):
        inner = _feature(feature.feature)
        return {"list": inner["dtype"]}
    names = getattr(feature, "names", None)
    if names is None:
        return {"dtype": str(feature.dtype)}
    return {"dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(names)}}}}


def schema_problems(header: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield how the header of a card differs from its parquet files; nothing for an export without rows."""
    found = {info["config_name"]: info for info in dataset_info(folder, list(config_files(folder)))}
    entries = header.get("dataset_info") or []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        yield "dataset_info is not a list of configs"
        return
    if not found and not entries:  # no rows, or too many labels
        return
    stated = {str(entry.get("config_name")): entry for entry in entries}
    if list(stated) != [str(c.get("config_name")) for c in header.get("configs") or () if isinstance(c, Mapping)]:
        yield "dataset_info does not describe the configs of the card, in their order"
    for name in [*stated, *(n for n in found if n not in stated)]:
        if name not in stated or name not in found:
            yield f"config {name!r} is " + ("in no file" if name in stated else "not described by dataset_info")
            continue
        keys = dict.fromkeys([*_INFO, *stated[name]])
        if wrong := [key for key in keys if stated[name].get(key) != found[name].get(key)]:
            yield f"{', '.join(wrong)} of config {name!r} differ from its files"
