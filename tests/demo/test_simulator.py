"""The simulator answers our real prompts, errs in the writing, and can be read back."""

from __future__ import annotations

import json
import random

import pytest

from hf_synth.demo.simulator import Faults, answer, true_label, write
from hf_synth.generation.answers import parse
from hf_synth.generation.prompts import render
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

CLINIC = load_task("clinic")
CALM = Faults(refusal=0, broken=0, chatter=0, duplicate=0)


def ask(task: Task, labels: list[str], rows: int = 2) -> list[dict[str, str]]:
    words = {c: f"A made-up {c}. It has two sentences." for c in task.text_columns}
    shown = [words | {task.label_column: label} for label in (task.labels or ("A made-up target.",))]
    return render(task, task.prompt, shown, labels, rows)


def test_it_is_seeded() -> None:
    messages = ask(CLINIC, list(CLINIC.labels))
    assert answer(messages, seed=1) == answer(messages, seed=1)
    assert answer(messages, seed=1) != answer(messages, seed=2)


def test_what_was_written_is_read_back_exactly() -> None:
    rng = random.Random(0)
    for i in range(800):
        text, grade = write(rng, i % 4)
        assert true_label(text) == grade


@pytest.mark.parametrize(("slips", "low", "high"), [(0.0, 1.0, 1.0), (1.0, 0.62, 0.78)])
def test_wrong_labels_arise_in_the_writing(slips: float, low: float, high: float) -> None:
    rng = random.Random(1)
    right = [write(rng, i % 4, slips=slips)[1] == i % 4 for i in range(2_000)]
    assert low <= sum(right) / len(right) <= high


@pytest.mark.parametrize("name", ["clinic", "esophagitis:presence", "esophagitis:severe", "esophagitis:three"])
def test_it_answers_in_the_labels_of_the_task(name: str) -> None:
    task = load_task(name)
    entries = parse(task, answer(ask(task, list(task.labels)), faults=CALM), task.labels)
    assert [e.row[task.label_column] for e in entries if e.row] == list(task.labels) * 2


def test_any_other_task_is_recombined_from_its_exemplars() -> None:
    pair = Task.from_columns(
        "nli", text_columns=["premise", "hypothesis"], label_column="label", labels=["yes", "no"], access="open"
    )
    entries = parse(pair, answer(ask(pair, ["yes"]), faults=CALM), ["yes"])
    assert [e.row["label"] for e in entries if e.row] == ["yes", "yes"]
    summary = Task.from_columns(
        "sums", text_columns="document", label_column="summary", kind="text2text", access="open"
    )
    entries = parse(summary, answer(ask(summary, []), faults=CALM))
    assert all(e.row and e.row["summary"] for e in entries)


def test_it_misbehaves_on_demand() -> None:
    messages = ask(CLINIC, list(CLINIC.labels))
    assert "entries" not in answer(messages, faults=Faults(refusal=1))
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer(messages, faults=Faults(refusal=0, broken=1)))
