"""Columns as lists: the same values however the rows are stored."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Json, List, Value
from support.tiny import toy_task

from hf_synth.errors import ColumnError
from hf_synth.task.labels import (
    audited_labels,
    column_of,
    groups_of,
    id_places,
    label_index,
    label_indices,
    texts_of,
)

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


def test_labels_mean_what_their_names_say() -> None:
    """A code of another order, a boolean and a number that is a name are no positions among the task's labels."""
    task = toy_task(labels=("True", "False"))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [True, False]})
    assert label_indices(task, rows).tolist() == [0, 1]
    assert audited_labels(task, {3: True, 4: np.bool_(False), 5: "False"}) == {3: 0, 4: 1, 5: 1}
    turned = Dataset.from_dict({"asked": [0, 1]}, features=Features({"asked": ClassLabel(names=["False", "True"])}))
    assert [label_index(task, turned.features["asked"])(v) for v in turned["asked"]] == [1, 0]
    triage = toy_task(labels=("1", "2", "3"))
    assert [label_index(triage, Value("float64"))(v) for v in (1.0, 3.0, None, 1.5, 4)] == [0, 2, -1, -1, -1]
    with pytest.raises(ColumnError, match="none of the task's labels"):
        label_indices(toy_task(), rows)  # "none", "mild", "severe": a boolean is none of them


@pytest.mark.parametrize("label", [1.7, float("nan"), None, "banana", True, 3, -1])
def test_what_is_no_label_is_no_audited_label(label: object) -> None:
    with pytest.raises(ColumnError, match="an audited label is not one"):
        audited_labels(toy_task(), {0: label})  # type: ignore[dict-item]


def test_a_label_of_an_id_that_several_rows_have_is_of_none_of_them() -> None:
    ids = ["a", "b", "a", "c"]
    assert id_places(ids, ["b", "c"], "the rows")["c"] == 3
    with pytest.raises(ColumnError, match="1 audited ids stand for several rows of the rows"):
        id_places(ids, ["a", "b"], "the rows")
    with pytest.raises(ColumnError, match="1 audited ids are not among the rows"):
        id_places(ids, ["d", "b"], "the rows")
