from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.correction.augmentation import augment
from hf_synth.errors import ColumnError, OverlapError, TaskError
from hf_synth.gold.adoption import adopt
from hf_synth.task.columns import access_of
from hf_synth.task.task import Task

TASK = Task.from_columns("triage", text_columns="note", label_column="urgency", labels=["low", "high"], access="open")


def gold_rows(n: int = 10, *, word: str = "gold") -> Dataset:
    rows = [TASK.gold_row(f"g{i}", None, i % 2, f"Made-up {word} {i}.") for i in range(n)]
    return Dataset.from_list(rows, features=TASK.gold_features())


def synthetic_rows(statuses: list[str], *, shown: str = "g0") -> Dataset:
    made = adopt(
        TASK,
        Dataset.from_dict(
            {"note": [f"Made-up synthetic {i}." for i in range(len(statuses))], "llm_label": ["low"] * len(statuses)}
        ),
        access="open",
    )
    made = made.remove_columns(["label_status", "seed_ids"]).add_column("label_status", statuses)
    return made.add_column("seed_ids", [[shown]] * len(statuses))


def test_augment_joins_only_what_may_be_trained_on() -> None:
    joined = augment(TASK, synthetic_rows(["kept", "dropped", "relabelled", "rejected"]), gold=gold_rows())
    assert sorted(joined["source"]) == ["gold"] * 10 + ["synthetic"] * 2
    assert isinstance(joined.features["urgency"], ClassLabel)
    assert set(joined["weight"]) == {1.0}
    assert access_of(joined) == "open"


@pytest.mark.parametrize(
    ("strategy", "gold", "synthetic"), [("gold", 10, 0), ("synthetic", 0, 3), ("replace", 9, 3), ("augment", 10, 3)]
)
def test_each_strategy(strategy: str, gold: int, synthetic: int) -> None:
    joined = augment(TASK, synthetic_rows(["kept"] * 3), gold=gold_rows(), strategy=strategy)  # type: ignore[arg-type]
    sources = list(joined["source"])
    assert (sources.count("gold"), sources.count("synthetic")) == (gold, synthetic)


@settings(deadline=None, max_examples=20)
@given(ratio=st.floats(0, 3), seed=st.integers(0, 3))
def test_ratio_bounds_the_synthetic_rows_and_seeds_repeat(ratio: float, seed: int) -> None:
    gold, synthetic = gold_rows(), synthetic_rows(["kept"] * 25)
    joined = augment(TASK, synthetic, gold=gold, ratio=ratio, seed=seed)
    assert list(joined["source"]).count("synthetic") == min(25, round(ratio * 10))
    assert joined["id"] == augment(TASK, synthetic, gold=gold, ratio=ratio, seed=seed)["id"]


def test_the_strictest_access_is_on_every_row() -> None:
    strict = synthetic_rows(["kept"]).remove_columns("access")
    assert access_of(augment(TASK, strict, gold=gold_rows())) == "credentialed"
    assert set(augment(TASK, strict, gold=gold_rows())["access"]) == {"credentialed"}


def test_rows_for_evaluation_are_kept_out() -> None:
    synthetic = synthetic_rows(["kept"])
    augment(TASK, synthetic, gold=gold_rows(), evaluation=gold_rows(word="other").rename_column("id", "note_id"))
    with pytest.raises(OverlapError, match="10 gold rows"):
        augment(TASK, synthetic, gold=gold_rows(), evaluation=gold_rows())
    with pytest.raises(OverlapError, match="written from rows of the evaluation split"):
        augment(TASK, synthetic, gold=gold_rows(word="mine"), evaluation=gold_rows())


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(TaskError, match="unknown strategy 'mix'"):
        augment(TASK, synthetic_rows(["kept"]), gold=gold_rows(), strategy="mix")  # type: ignore[arg-type]
    with pytest.raises(ColumnError, match="nothing is left"):
        augment(TASK, synthetic_rows(["dropped"]), gold=gold_rows(), strategy="synthetic")
    with pytest.raises(ColumnError, match="'label_status'"):
        augment(TASK, synthetic_rows(["kept"]).remove_columns("label_status"), gold=gold_rows())
    with pytest.raises(ColumnError, match="no column 'note', 'urgency'"):
        augment(
            TASK, synthetic_rows(["kept"]).rename_column("note", "x").rename_column("urgency", "y"), gold=gold_rows()
        )
    other = synthetic_rows(["kept"]).cast_column("urgency", ClassLabel(names=["high", "low"]))
    with pytest.raises(ColumnError, match="has labels"):
        augment(TASK, other, gold=gold_rows())
