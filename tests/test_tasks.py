"""One contract over every task and config."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from datasets import ClassLabel, DatasetDict, load_dataset
from test_gold import ESO, eso_rows, mts_folder, write_csv

from hf_synth.folders import read_export, write_stage
from hf_synth.generation import parse, render
from hf_synth.gold import load_gold, task_builder
from hf_synth.task import KINDS, Prompt, Task, access_of, list_tasks

TASKS = {task.full_name: task for task in list_tasks()}


def fixture_gold(task: Task, folder: Path) -> DatasetDict:
    """Load miniature gold, written by hand in the true layout."""
    if task.name == "clinic":
        return load_gold(task, folder, n_train=60, n_validation=20, n_test=40)
    if task.name == "mts_dialog":
        return load_gold(task, mts_folder(folder / "mts"))
    if task.name == ESO.name:
        write_csv(folder / "notes.csv", ["patient_id", "text", "grade"], eso_rows())
        return load_gold(task, folder / "notes.csv")
    raise AssertionError(f"write a miniature of the files of {task.name}")


@pytest.mark.parametrize("name", TASKS)
def test_header_facts(name: str) -> None:
    task = TASKS[name]
    assert task.kind in KINDS
    assert task.description.endswith(".")
    assert task.license
    assert task.metrics
    assert re.fullmatch(r"\d+\.\d+\.\d+", task.version)
    assert len(task.label_meanings) == len(task.labels)
    assert isinstance(task.prompt, Prompt)
    assert task.access == "open" or task.name == "esophagitis"
    assert task_builder(task).__doc__
    assert {f.name for f in fields(task)} >= {"citation", "source_url", "leaks"}


@pytest.mark.parametrize("name", TASKS)
def test_gold_keeps_the_contract(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    gold = fixture_gold(task, tmp_path)
    ids: set[str] = set()
    groups: dict[str, set[str]] = {}
    for split, rows in gold.items():
        assert rows.features == task.gold_features()
        assert isinstance(rows.features[task.label_column], ClassLabel)
        assert set(rows["source"]) == {"gold"}
        assert access_of(rows) == task.access
        assert not ids & set(rows["id"])
        assert len(set(rows["id"])) == len(rows)
        ids |= set(rows["id"])
        groups[split] = set(rows["group"])
        for file in rows.cache_files:
            assert Path(file["filename"]).is_relative_to(tmp_path)
    splits = list(groups)
    assert not any(groups[a] & groups[b] for i, a in enumerate(splits) for b in splits[i + 1 :])
    again = fixture_gold(task, tmp_path / "again") if (tmp_path / "again").mkdir() is None else gold
    assert {s: list(r["id"]) for s, r in again.items()} == {s: list(r["id"]) for s, r in gold.items()}


@pytest.mark.parametrize("name", TASKS)
def test_streaming_equals_not_streaming(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    gold = fixture_gold(task, tmp_path)
    if task.name == "esophagitis":
        return  # split by group after reading
    options = {"n_train": 60, "n_validation": 20, "n_test": 40} if task.name == "clinic" else {}
    files = {s: str(next((tmp_path / "mts").glob(f[0]))) for s, f in task.files.items() if s in gold}
    stream = task_builder(task)(config_name=task.config, data_files=files or None, **options).as_streaming_dataset()
    assert list(stream["train"]) == gold["train"].to_list()


@pytest.mark.parametrize("name", TASKS)
def test_the_prompt_asks_and_a_sample_answer_parses(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    rows = fixture_gold(task, tmp_path)["train"]
    shown, hidden = rows.select([0]).to_list(), rows[1]
    asked = list(task.labels[:2])
    messages = render(task, task.prompt, shown, asked, 2)
    text = "\n".join(m["content"] for m in messages)
    assert all(label in text for label in asked)
    assert json.dumps(shown[0][task.text_columns[0]], ensure_ascii=False)[1:-1] in text
    assert json.dumps(hidden[task.text_columns[0]], ensure_ascii=False) not in text
    sample = {c: f"A made-up {c} that is long enough to be a passage of a note." for c in task.text_columns}
    answer = json.dumps({"entries": [sample | {task.label_column: asked[0]}]})
    parsed = parse(task, answer, asked)
    assert len(parsed) == 1


@pytest.mark.parametrize("name", TASKS)
def test_the_round_trip_through_parquet_keeps_types(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    gold = fixture_gold(task, tmp_path)
    out = write_stage(task, gold, tmp_path / "out", stage="gold")
    assert read_export(out)["train"].to_list() == gold["train"].to_list()
    plain = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert plain["train"].features == gold["train"].features
