"""The first rows of a parquet file, read by a process of its own with limits: a stranger wrote the file.

    echo '{"file": ..., "column": "label", "value": "none"}' | python preview.py

A broken file may crash its reader, and a small one may unpack to more than the memory of the machine. This file is run
by its path and imports nothing of hf_synth.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

ROWS = 50  # shown
_LOOKED_AT, _SECONDS = 20_000, 3.0  # rows and time of one search for a label
_BATCH = 128
_MEMORY, _CPU = 3 << 30, 10  # bytes of address space, seconds
_COLUMNS, _TEXT = 50, 2_000  # of a row, and characters of a cell
_VALUES, _VALUE = 50, 60  # of a column of labels, and characters of each


def first_rows(file: str, column: str = "", value: str = "") -> dict[str, Any]:
    """Read the first rows, or the first ones that have a label.

    Args:
        column: a column of labels; another one is not searched.
        value: the label's name.

    Returns:
        `columns`; `rows`, lists of texts; `numbers` of the rows, from 1; `labels`, the values of each column of labels;
        `looked_at` and `total`, numbers of rows.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        leaves = [opened.schema.column(i) for i in range(len(opened.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        names = opened.schema_arrow.names[:_COLUMNS]
        labels = {name: told for name, told in _label_names(opened.schema_arrow).items() if name in names}
        total = opened.metadata.num_rows
    rows: list[list[str]] = []
    numbers: list[int] = []
    looked_at, until = 0, time.monotonic() + _SECONDS
    # a text that is repeated stays once in memory
    with pq.ParquetFile(file, read_dictionary=texts) as opened:
        for batch in opened.iter_batches(batch_size=_BATCH, columns=names):
            wanted = list(range(batch.num_rows))
            if column in labels:
                cells = batch.column(names.index(column)).to_pylist()
                wanted = [i for i, cell in enumerate(cells) if value in _values(cell, labels.get(column))]
            for i in wanted[: ROWS - len(rows)]:
                (row,) = batch.slice(i, 1).to_pylist()
                rows.append([_shown(row[name], labels.get(name)) for name in names])
                numbers.append(looked_at + i + 1)
            looked_at += batch.num_rows
            if len(rows) >= ROWS or looked_at >= _LOOKED_AT or time.monotonic() > until:
                break
    short = {name: [told[:_VALUE] for told in told_names[:_VALUES]] for name, told_names in labels.items()}
    return {"columns": names, "rows": rows, "numbers": numbers, "labels": short, "looked_at": looked_at, "total": total}


def _label_names(schema: Any) -> dict[str, list[str]]:
    """Return the names of the labels of each column that has some, as the metadata of the file tells them."""
    found: dict[str, list[str]] = {}
    with contextlib.suppress(KeyError, ValueError, TypeError, AttributeError, RecursionError):
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for name, feature in told.items():
            inner = feature.get("feature", feature) if feature.get("_type") in ("List", "Sequence") else feature
            names = inner.get("names") if inner.get("_type") == "ClassLabel" else None
            if isinstance(names, list) and all(isinstance(n, str) for n in names):
                found[str(name)] = names
    return found


def _values(cell: Any, names: list[str] | None) -> list[str]:
    """Return the labels of a cell."""
    return [_label(item, names)[:_VALUE] for item in (cell if isinstance(cell, list) else [cell])]


def _label(item: Any, names: list[str] | None) -> str:
    known = names is not None and isinstance(item, int) and 0 <= item < len(names)
    return names[item] if known and names is not None else str(item)


def _shown(cell: Any, names: list[str] | None) -> str:
    """Return a cell as a short text."""
    if cell is None:
        return ""
    if isinstance(cell, bytes):
        return f"{len(cell):,} bytes"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if isinstance(cell, list) and not any(isinstance(item, dict | list) for item in cell):
        text = ", ".join(_shown(item, names)[:_TEXT] for item in cell[:_TEXT])
    elif isinstance(cell, dict | list):
        text = json.dumps(cell, default=str, ensure_ascii=False)
    else:
        text = _label(cell, names)
    return text if len(text) <= _TEXT else text[:_TEXT] + "…"


def main() -> None:
    """Answer one question on stdin, within limits of memory and time."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(first_rows(**json.load(sys.stdin))))


if __name__ == "__main__":
    main()
