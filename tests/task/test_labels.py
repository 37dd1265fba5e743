"""Columns as lists: the same values however the rows are stored."""

from __future__ import annotations

import datetime

import pytest
from datasets import ClassLabel, Dataset, Features, Json, List, Value
from support.tiny import toy_task

from hf_synth.task.labels import column_of, groups_of, texts_of

FEATURES = Features(
    {
        "text": Value("string"),
        "group": Value("string"),
        "label": ClassLabel(names=["a", "b"]),
        "label_probs": List(Value("float64")),
        "seen": Value("timestamp[s]"),
        "said": Json(),
    }
)
ROWS = Dataset.from_list(
    [
        {"text": f"note {i}", "group": None if i == 3 else f"p{i}", "label": i % 2,
         "label_probs": None if i == 2 else [i / 10, 1 - i / 10], "seen": datetime.datetime(2020, 1, 1 + i),
         "said": {"n": i} if i else ["none"]}
        for i in range(6)
    ],
    features=FEATURES,
)  # fmt: skip
STORED = {
    "whole": ROWS,
    "in another order": ROWS.select([4, 0, 3, 3, 2]),
    "a part": ROWS.select(range(2, 5)),
    "none": ROWS.select([]),
    "shouted": ROWS.with_transform(lambda batch: batch | {"text": [text.upper() for text in batch["text"]]}),
}


@pytest.mark.parametrize("rows", STORED.values(), ids=STORED)
def test_a_column_has_the_values_of_its_rows(rows: Dataset) -> None:
    for name in rows.column_names:
        found = column_of(rows, name)
        assert type(found) is list
        assert found == [row[name] for row in rows], name
    assert column_of(rows, "weight", 1.0) == [1.0] * len(rows)
    assert texts_of(toy_task(), rows) == [row["text"] for row in rows]
    assert groups_of(rows) == [row["group"] for row in rows]
    assert groups_of(rows.select_columns(["text"])) is None
