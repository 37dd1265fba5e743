"""Rows as Arrow tables: other columns beside those that stay where they are stored.

The texts of a folder are mapped into memory, not read. They stay so through a stage that writes new labels: only the
new columns are made.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

    from hf_synth.task.labels import Ints


_BLOCK = 10_000  # rows of a block that is gathered
_GATHERED = 64 << 20  # bytes of rows that are gathered at once
BLOCK_ROWS = 2_000  # of a block: what one process works on at a time, on one machine or on many


def blocks(n: int, size: int | None = None) -> list[tuple[int, int]]:
    """Return where each block of n rows begins and ends; a block has `size` rows, or BLOCK_ROWS."""
    size = size or BLOCK_ROWS
    return [(begin, min(begin + size, n)) for begin in range(0, n, size)]


def arrow_table(rows: Dataset) -> pa.Table:
    """Return the rows of a Dataset as an Arrow table, in their order; they are copied only if stored in another one."""
    if rows._indices is None:
        return rows.data.table
    import pyarrow as pa

    return pa.concat_tables(list(row_blocks(rows, _BLOCK))) if len(rows) else rows.data.table.slice(0, 0)


def row_blocks(rows: Dataset, size: int) -> Iterator[pa.Table]:
    """Yield the rows of a Dataset in blocks of `size`, in their order.

    Rows that were shuffled or selected are gathered from each chunk at once. datasets makes a chunk of each row, and
    such chunks are slow to write.
    """
    import pyarrow as pa

    if rows._indices is None:
        yield from rows.with_format("arrow").iter(size)
        return
    table = rows.data.table
    batches = table.to_batches()
    starts = np.cumsum([0, *map(len, batches)])[:-1]
    places = np.concatenate([chunk.to_numpy() for chunk in rows._indices.column(0).chunks]).astype(np.int64)
    piece = max(1, min(size, _GATHERED * len(table) // max(1, table.nbytes)))
    for begin, end in blocks(len(places), size):
        at = (places[begin + a : min(end, begin + b)] for a, b in blocks(end - begin, piece))
        yield pa.concat_tables([_gather(batches, starts, some) for some in at])


def _gather(batches: Sequence[pa.RecordBatch], starts: Ints, places: Ints) -> pa.Table:
    """Return the rows at some places of a table, as one chunk.

    Args:
        starts: place of the first row of each batch.
        places: in any order, (n,), n above 0.
    """
    import pyarrow as pa

    order = np.argsort(places, kind="stable")
    ascending = places[order]
    batch = np.searchsorted(starts, ascending, side="right") - 1
    ends = [*(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(places)]
    parts = [
        batches[batch[a]].take(pa.array(ascending[a:b] - starts[batch[a]])) for a, b in itertools.pairwise([0, *ends])
    ]
    back = np.empty(len(places), dtype=np.int64)
    back[order] = np.arange(len(places))
    return pa.Table.from_batches(parts).combine_chunks().take(pa.array(back))


def arrow_array(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values as an Arrow array of a type: a sequence, or a numpy array of one or two dimensions."""
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim == 2:
        n, width = values.shape
        if n * width < 2**31:
            flat = pa.array(values.reshape(-1)).cast(kind.value_type)
            return pa.ListArray.from_arrays(np.arange(0, n * width + 1, width, dtype=np.int32), flat).cast(kind)
        values = list(values)
    return pa.array(values).cast(kind) if isinstance(values, np.ndarray) else pa.array(values, kind)


def replace_values(values: Any, at: Ints, before: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with new values at some positions.

    Args:
        values: as for `arrow_array`, (n,) or (n, K).
        at: their positions, ascending, (n,).
        before: the column so far, (N,); it keeps its values elsewhere.
    """
    import pyarrow as pa

    new = arrow_array(values, before.type)
    if len(at) == len(before):
        return pa.chunked_array([new])
    order = len(new) + np.arange(len(before))
    order[at] = np.arange(len(new))
    return pa.chunked_array([new, *before.chunks], before.type).take(pa.array(order))


def rewrite_columns(rows: Dataset, columns: Mapping[str, Any], features: Features) -> Dataset:
    """Return rows with exactly these features: some columns new, the others as they are, null where rows lack them.

    The result's fingerprint follows from that of the rows and the new columns.

    Args:
        columns: new columns by name, as for `arrow_array`, or Arrow arrays of the right type.
    """
    import pyarrow as pa
    from datasets import Dataset

    table, schema = arrow_table(rows), features.arrow_schema
    digest = hashlib.sha256(f"{rows._fingerprint}\n{sorted(features.to_dict().items())}".encode())
    arrays: list[Any] = []
    for field in schema:
        if field.name in columns:
            values = columns[field.name]
            ready = isinstance(values, pa.Array | pa.ChunkedArray)
            array = values if ready else arrow_array(values, field.type)
            for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
                _update(digest, chunk)
            arrays.append(array)
        elif field.name in table.column_names:
            arrays.append(table[field.name].cast(field.type))
        else:
            arrays.append(pa.nulls(len(rows), field.type))
    return Dataset(pa.table(arrays, schema=schema), fingerprint=digest.hexdigest()[:16])


def _update(digest: Any, array: pa.Array) -> None:
    """Add an array's values to a digest."""
    digest.update(f"{array.type} {len(array)} {array.offset}".encode())
    for buffer in array.buffers():
        digest.update(b"-" if buffer is None else memoryview(buffer))


def text_column_of_codes(values: Sequence[str], codes: Any, kind: pa.DataType) -> pa.Array:
    """Return a text column of few different values by their codes, (N,)."""
    import pyarrow as pa

    return pa.array(values, kind).take(pa.array(codes))
