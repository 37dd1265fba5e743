"""Columns are written beside those that stay where they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.task import arrow
from hf_synth.task.arrow import arrow_array, arrow_table, replace_values, rewrite_columns, row_blocks

NUMBERS = Features({"text": Value("string"), "n": Value("int64")})


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 4))
def test_values_come_to_their_places(taken: list[bool], pieces: int) -> None:
    before = pa.chunked_array([p.tolist() for p in np.array_split(np.arange(len(taken)), pieces)], pa.int64())
    at = np.flatnonzero(taken)
    expected = np.where(taken, -1 - np.arange(len(taken)), np.arange(len(taken))).tolist()
    assert replace_values(-1 - at, at, before).to_pylist() == expected
    assert replace_values((-1 - at).tolist(), at, before).to_pylist() == expected


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_rows_of_any_selection_come_in_blocks_of_their_order(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    n = sum(sizes)
    texts = [None if i % 5 == 3 else f"text {i}" for i in range(n)]
    columns = {"text": texts, "n": list(range(n)), "lists": [[i, i + 1][: i % 3] for i in range(n)]}
    features = Features({"text": Value("string"), "n": Value("int64"), "lists": List(Value("int64"))})
    whole = pa.table(columns, schema=features.arrow_schema)
    begins = np.cumsum([0, *sizes])
    parts = [whole.slice(int(a), size) for a, size in zip(begins, sizes, strict=False)]
    rows = Dataset(pa.concat_tables(parts))
    if data.draw(st.booleans()) and n:
        rows = rows.select(data.draw(st.lists(st.integers(0, n - 1), max_size=20)))
    size = data.draw(st.integers(1, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "_GATHERED", data.draw(st.sampled_from([1, 200, 64 << 20])))
        found = list(row_blocks(rows, size))
    assert [len(block) for block in found] == [min(size, len(rows) - i) for i in range(0, len(rows), size)]
    assert [row for block in found for row in block.to_pylist()] == list(rows)


def test_a_shuffled_block_is_not_a_chunk_for_each_row() -> None:
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(200)]}).shuffle(seed=0)
    [block] = row_blocks(rows, 200)
    assert block["text"].num_chunks == 1
    assert block["text"].to_pylist() == rows["text"][:]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([[0.25, 0.75], [1, 0]]), pa.list_(pa.float32()), [[0.25, 0.75], [1.0, 0.0]]),
        (np.zeros((0, 3)), pa.list_(pa.float32()), []),
        (np.array(["kept", "dropped"]), pa.string(), ["kept", "dropped"]),
        (np.array([0.5]), pa.float32(), [0.5]),
        ([None, [1, 2]], pa.list_(pa.int64()), [None, [1, 2]]),
    ],
)
def test_arrays_have_the_type_of_their_column(values: Any, kind: Any, expected: list[Any]) -> None:
    array = arrow_array(values, kind)
    assert array.type == kind
    assert array.to_pylist() == expected


def test_texts_stay_mapped_where_they_are_stored(tmp_path: Path) -> None:
    Dataset.from_dict({"text": ["x" * 1_000] * 2_000, "n": range(2_000)}).save_to_disk(str(tmp_path / "d"))
    rows = Dataset.load_from_disk(str(tmp_path / "d"))
    before = pa.total_allocated_bytes()
    new = rewrite_columns(rows, {"n": np.arange(2_000)[::-1]}, rows.features)
    assert pa.total_allocated_bytes() - before < 200_000  # the texts are 2 MB
    assert new["n"][:3] == [1_999, 1_998, 1_997]
    assert new["text"][:] == rows["text"][:]


def test_rows_in_another_order_stay_in_it() -> None:
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "n": [0, 1, 2]}, features=NUMBERS).select([2, 0])
    assert arrow_table(rows)["text"].to_pylist() == ["c", "a"]
    new = rewrite_columns(rows, {"n": [7, 8]}, Features({**NUMBERS, "more": List(Value("string"))}))
    assert new.to_dict() == {"text": ["c", "a"], "n": [7, 8], "more": [None, None]}


def test_the_fingerprint_follows_from_rows_and_columns() -> None:
    def made(texts: list[str], numbers: list[int]) -> str:
        rows = Dataset.from_dict({"text": texts, "n": [0, 0]}, features=NUMBERS)
        return str(rewrite_columns(rows, {"n": numbers}, NUMBERS)._fingerprint)

    assert made(["a", "b"], [1, 2]) == made(["a", "b"], [1, 2])
    assert len({made(["a", "b"], [1, 2]), made(["a", "b"], [1, 3]), made(["a", "c"], [1, 2])}) == 3
