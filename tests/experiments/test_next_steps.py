"""The commands of a run's report name what is there: the parser of the command line reads each of them."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest
from datasets import Dataset

from hf_synth import Task, load_task
from hf_synth.cli.cli import parse_command
from hf_synth.experiments.next_steps import RunSource, source_of, steps_of_run, steps_without_rows
from hf_synth.task.folders import write_private

TRIAGE = Task.from_columns("triage", text_columns="text", label_column="urgency", labels=["low", "high"])
ANSWERS = Task.from_columns("answers", text_columns="text", label_column="answer", kind="text2text")


def corrected(kept: int, rejected: int = 3) -> Dataset:
    return Dataset.from_dict({"label_status": ["kept"] * kept + ["rejected"] * rejected})


def parsed(steps: list[tuple[str, str]]) -> dict[str, Namespace]:
    """Read each command as the command line would."""
    words = [shlex.split(command) for _, command in steps]
    assert all(w[0] == "hf-synth" for w in words)
    assert not re.search(r"\b(TASK|GOLD|LLM|MODEL|DIR|FILE|PATH)\b", " ".join(c for _, c in steps))
    return {w[1]: parse_command(w[1:])[1] for w in words}


@pytest.mark.parametrize("state", ["good", "unsure", "bad"])
def test_each_command_is_read_by_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.chdir(tmp_path)
    source = RunSource("-work/my gold", None, True, ("--base-model", "tiny", "--gold-size", "30"), 30)
    read = parsed(steps_of_run(TRIAGE, source, corrected(24), Path("my run"), state))  # type: ignore[arg-type]
    assert read["sample"].n == 24, "there are fewer than 100"
    assert read["sample"].task == "./-work/my gold"
    assert read["sample"].synthetic == Path("my run/corrected")
    assert set(read) == ({"assess", "sample"} if state == "bad" else {"sample", "audit"})
    more = parsed(steps_without_rows(TRIAGE, source, "gold_30", Path("my run")))
    assert set(more) == {"assess", "run", "publish", "doctor"}
    assert (more["assess"].gold_size, more["run"].gold_size, more["run"].base_model) == (30, 30, "tiny")
    assert (more["run"].method, more["run"].synthetic) == ("posterior", Path("my run/synthetic"))
    assert more["publish"].folder == Path("my run/models/gold_30")


def test_what_does_not_serve_the_kind_of_task_is_not_proposed() -> None:
    source = RunSource("answers.py", "notes.csv")
    assert set(parsed(steps_of_run(ANSWERS, source, corrected(200), Path("out"), "unsure"))) == {"audit"}
    assert parsed(steps_without_rows(ANSWERS, source, "gold_9", Path("out")))["run"].method == "replace"


def test_a_hundred_notes_are_drawn_of_many() -> None:
    ((text, command), *_) = steps_of_run(TRIAGE, RunSource("t.py", "g"), corrected(300), Path("o"), "good")
    assert text == "Let a person label 100 of the notes: this measures how many labels are right"
    assert command == "hf-synth sample t.py o/corrected"
    ((text, _), *_) = steps_of_run(TRIAGE, RunSource("t.py", "g"), corrected(7), Path("o"), "good")
    assert text.startswith("Let a person label all 7 notes")


def test_a_caller_that_names_nothing_gets_what_is_known(tmp_path: Path) -> None:
    assert source_of(load_task("clinic"), tmp_path) == RunSource("clinic", None, True)
    assert source_of(load_task("esophagitis:presence"), tmp_path) == RunSource("esophagitis:presence", None, False)
    unknown = source_of(TRIAGE, tmp_path)
    assert unknown == RunSource(str(tmp_path / "corrected"), None, False), "its manifest holds the task"
    assert set(parsed(steps_of_run(TRIAGE, unknown, corrected(9), tmp_path, "bad"))) == {"sample"}
    write_private(tmp_path / "gold" / "hf_synth.json", "{}")
    assert source_of(TRIAGE, tmp_path) == RunSource(str(tmp_path / "gold"), None, True)
