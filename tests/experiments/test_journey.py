"""A run that is paused, edited by a person and resumed: edited stages are approved, later ones are made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from hf_synth.correction.policy import Policy
from hf_synth.errors import LLMError, OutputError
from hf_synth.experiments import journey
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.folders import APPROVED, edited_files, read_manifest
from hf_synth.task.task import Task

TASK = Task.from_columns("notes", text_columns="text", label_column="label", labels=["calm", "urgent"], access="open")


def gold() -> DatasetDict:
    rows = [TASK.gold_row(f"g{i}", None, i % 2, f"Gold note {i}.") for i in range(8)]
    split = Dataset.from_list(rows, features=TASK.gold_features())
    return DatasetDict(train=split, test=split)


def synthetic(n: int = 6, status: str = "kept") -> Dataset:
    features = TASK.synthetic_features()
    rows: list[dict[str, Any]] = []
    for i in range(n):
        row = dict.fromkeys(features) | TASK.gold_row(f"s{i}", None, i % 2, f"Synthetic note {i}.")
        rows.append({**row, "source": "synthetic", "llm_label": i % 2, "label_status": status, "reason": "unparsable"})
    return Dataset.from_list([{name: row[name] for name in features} for row in rows], features=features)


class Stages:
    """Stands in for the stages of a run, and counts how often each was made."""

    def __init__(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out, self.made, self.lines = out, dict.fromkeys(("generate", "correct", "train"), 0), [""]
        self.trained_on: list[str] = []
        for name in ("correct_with_policy", "train", "evaluate", "write_scores", "trainer_fit"):
            monkeypatch.setattr(journey, name, getattr(self, f"_{name}"))

    def _generate(self, _: Dataset) -> Dataset:
        self.made["generate"] += 1
        return synthetic()

    def _correct_with_policy(self, task: Task, rows: Dataset, *_: Any, **__: Any) -> tuple[Dataset, Policy]:
        self.made["correct"] += 1
        features = TASK.corrected_features()
        more = {"label_probs": [0.5, 0.5], "label_confidence": 0.5, "weight": 1.0}
        return Dataset.from_list([{**row, **more} for row in rows], features=features), Policy("none", 2)

    def _train(self, task: Task, rows: Dataset, *, output_dir: Path, **_: Any) -> Path:
        self.made["train"] += 1
        self.trained_on = sorted(rows["text"])
        return output_dir

    def _evaluate(self, *_: Any, **__: Any) -> Any:
        return None

    def _write_scores(self, made: journey.Journey) -> None:
        self.journey = made

    def _trainer_fit(self, *_: Any, **__: Any) -> Any:
        return None

    def run(self) -> journey.Journey:
        self.lines = []
        how: dict[str, Any] = {"gold": gold(), "base_model": "tiny", "out": self.out, "say": self.lines.append}
        return journey.run(TASK, self._generate, arms=["synthetic_corrected"], **how)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(tmp_path / "run", monkeypatch)


def edit(folder: Path, drop: int) -> None:
    """Take the first rows out of a stage's file, as a person would with datasets."""
    rows = read_dataset(folder)
    texts = rows.select(range(drop, len(rows)))
    texts = Dataset.from_dict(texts.to_dict(), features=rows.features)
    texts.to_parquet(folder / "train.parquet")


def test_unedited_stages_are_made_again(stages: Stages) -> None:
    for times in (1, 2):
        assert stages.run().approved == ()
        assert stages.made == {"generate": times, "correct": times, "train": times}
    assert edited_files(stages.out / "synthetic") == []


def test_edited_synthetic_rows_are_approved(stages: Stages) -> None:
    stages.run()
    edit(stages.out / "synthetic", 2)
    for times in (2, 3):
        made = stages.run()
        assert stages.made == {"generate": 1, "correct": times, "train": times}
        assert stages.trained_on == [f"Synthetic note {i}." for i in range(2, 6)]
        assert made.approved == ("synthetic",)
        assert "edited by hand (train.parquet)" in stages.lines[0]
    approved = (read_manifest(stages.out / "synthetic") or {})[APPROVED]
    assert list(approved) == ["train.parquet"]
    assert (read_manifest(stages.out / "corrected") or {})["follows_from_edited"] == {"synthetic": approved}


def test_edited_corrected_rows_are_approved_and_nothing_before_is_made(stages: Stages) -> None:
    stages.run()
    edit(stages.out / "corrected", 1)
    for times in (2, 3):
        made = stages.run()
        assert stages.made == {"generate": 1, "correct": 1, "train": times}
        assert stages.trained_on == [f"Synthetic note {i}." for i in range(1, 6)]
        assert (made.approved, made.policy.method) == (("corrected",), "none")


def test_both_may_be_edited_one_after_the_other_but_not_apart(stages: Stages) -> None:
    stages.run()
    edit(stages.out / "synthetic", 1)
    stages.run()
    edit(stages.out / "corrected", 1)
    for _ in range(2):
        assert stages.run().approved == ("synthetic", "corrected")
        assert stages.trained_on == [f"Synthetic note {i}." for i in range(2, 6)]
    edit(stages.out / "synthetic", 1)  # the corrected rows follow from other ones now
    with pytest.raises(OutputError, match="both synthetic/ and corrected/ were edited"):
        stages.run()


def test_a_file_that_was_removed_is_named(stages: Stages) -> None:
    stages.run()
    (stages.out / "synthetic" / "train.parquet").unlink()
    with pytest.raises(OutputError, match=r"lacks train\.parquet"):
        stages.run()


def test_a_run_without_a_note_is_an_error(stages: Stages) -> None:
    stages._generate = lambda _: synthetic(status="rejected")  # type: ignore[method-assign]
    with pytest.raises(LLMError, match="no note was made"):
        stages.run()
    assert stages.made["correct"] == 0


@pytest.mark.parametrize("arms", [journey.ARMS, ("synthetic_corrected",), ("gold_plus_corrected", 4)])
def test_no_second_model_is_trained_of_gold_where_no_row_is_used(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, arms: tuple[str | int, ...]
) -> None:
    def unused(task: Task, rows: Dataset, *_: Any, **__: Any) -> tuple[Dataset, Policy]:
        more = {"label_probs": [0.5, 0.5], "label_confidence": 0.5, "weight": 0.0, "label_status": "dropped"}
        done = Dataset.from_list([{**row, **more} for row in rows], features=TASK.corrected_features())
        return done, Policy("gold_only", 2)

    monkeypatch.setattr(journey, "correct_with_policy", unused)
    how: dict[str, Any] = {"gold": gold(), "base_model": "tiny", "out": stages.out, "say": stages.lines.append}
    made = journey.run(TASK, stages._generate, arms=arms, **how)
    assert "gold_8" in made.models
    assert not [name for name in made.models if name.endswith("corrected")]
