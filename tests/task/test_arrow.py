"""Columns are written beside those that stay where they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.task.arrow import arrow_array, arrow_batches, arrow_table, replace_values, rewrite_columns

NUMBERS = Features({"text": Value("string"), "n": Value("int64")})


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 4))
def test_values_come_to_their_places(taken: list[bool], pieces: int) -> None:
    before = pa.chunked_array([p.tolist() for p in np.array_split(np.arange(len(taken)), pieces)], pa.int64())
    at = np.flatnonzero(taken)
    expected = np.where(taken, -1 - np.arange(len(taken)), np.arange(len(taken))).tolist()
    assert replace_values(-1 - at, at, before).to_pylist() == expected
    assert replace_values((-1 - at).tolist(), at, before).to_pylist() == expected


@given(st.lists(st.integers(0, 29), max_size=40), st.integers(1, 7), st.integers(1, 9))
def test_selected_rows_are_gathered_in_their_order(places: list[int], pieces: int, size: int) -> None:
    texts = pa.chunked_array([p.tolist() for p in np.array_split(np.array([f"text {i}" for i in range(30)]), pieces)])
    numbers = pa.chunked_array([p.tolist() for p in np.array_split(np.arange(30), 4)], pa.int64())
    rows = Dataset(pa.table({"text": texts, "n": numbers})).select(places)
    gathered = list(arrow_batches(rows, size))
    assert [batch.num_rows for batch in gathered[:-1]] == [size] * (len(gathered) - 1)
    assert [n for batch in gathered for n in batch["n"].to_pylist()] == places
    whole = arrow_table(rows)
    assert whole["text"].to_pylist() == [f"text {i}" for i in places]
    assert whole.schema == rows.data.table.schema


def test_shuffled_rows_are_gathered_in_few_pieces() -> None:
    rows = Dataset.from_dict({"n": list(range(5_000))}).shuffle(seed=1)
    [batch] = arrow_batches(rows, 5_000)
    assert batch["n"].num_chunks == 1  # one slice a row would be as many pieces, which are slow to write


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
