"""`--dry-run` of `train`, `correct` and `run`: it writes and asks nothing, and estimates the time about right."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from hf_synth.cli import main
from hf_synth.correction.outlook import Trainings, trainings_of
from hf_synth.task.folders import WORK
from hf_synth.task.task import Task


def files(folder: Path) -> dict[str, int]:
    """Return the files of the user with their times; what `datasets` keeps beside the data it has read is none."""
    found = (path for path in folder.rglob("*") if path.is_file() and WORK not in path.parts)
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    sizes = [f"--option=n_{split}={n}" for split, n in (("train", 100), ("validation", 30), ("test", 40))]
    assert main(["gold", "clinic", *sizes, "--out", str(folder / "gold"), "-q"]) == 0
    words = ["generate", "clinic", "--gold", folder / "gold", "--llm", "simulator", "--n", "60", "-q"]
    assert main([str(word) for word in [*words, "--out", folder / "synthetic"]]) == 0
    return folder


WORDS = {
    "train": ["train", "clinic", "gold", "--base-model", "tiny", "--out", "model"],
    "correct": ["correct", "clinic", "synthetic", "--gold", "gold", "--method", "posterior", "--out", "corrected"],
    "run": ["run", "clinic", "--gold", "gold", "--synthetic", "synthetic", "--method", "posterior", "--out", "journey"],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", WORDS)
def test_an_estimate_is_within_a_factor_of_two_of_the_run(
    verb: str, clinic: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clinic)
    before = files(clinic)
    assert main([*WORDS[verb], "--dry-run", "--json", "-q"]) == 0
    assert files(clinic) == before, "nothing is written"
    out = capsys.readouterr().out
    assert "would train" in out
    assert "nothing was written, and no LLM was asked" in out
    facts: dict[str, Any] = json.loads(out.splitlines()[-1])
    began = time.monotonic()
    assert main([*WORDS[verb], "-q"]) == 0
    took = time.monotonic() - began
    low, high = facts["seconds"]
    assert low <= high <= 6 * low
    assert low / 2 <= took <= high * 2
    assert 0.5 <= took / (low * high) ** 0.5 <= 2


@pytest.mark.parametrize(
    ("kind", "method", "trainings"),
    [
        ("single_label", "none", Trainings(0, 0, 0, 0)),
        ("single_label", "gold_only", Trainings(0, 0, 0, 0)),
        ("single_label", "posterior", Trainings(2, 2, 80, 80)),
        ("single_label", "argmax", Trainings(5, 5, 80, 80)),
        ("single_label", "auto", Trainings(0, 2, 80, 80)),
        ("multi_label", "posterior", Trainings(2, 2, 80, 80)),
        ("multi_label", "agree", Trainings(5, 5, 80, 80)),
        ("text2text", "drop", Trainings(6, 6, 100, 60)),
    ],
)
def test_trainings_are_those_of_the_method(kind: Any, method: str, trainings: Trainings) -> None:
    labels = ("a", "b") if kind != "text2text" else ()
    task = Task.from_columns("t", text_columns="text", label_column="label", labels=labels, kind=kind)
    assert trainings_of(task, method, gold=100, rows=60) == trainings
