"""A folder without rows is named by its kind, with the folders that hold rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_synth.cli import main
from hf_synth.errors import MissingGoldError
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folder_kinds import folder_kind, folders_of_rows
from hf_synth.task.folders import read_export


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a folder of stages, a run and a model; no rows are read."""
    monkeypatch.chdir(tmp_path)
    for name, stage in (("gold", "gold"), ("run/corrected", "correct"), ("run/synthetic", "generate")):
        (folder := Path("work") / name).mkdir(parents=True)
        (folder / MANIFEST).write_text(json.dumps({"stage": stage}))
        pq.write_table(pa.table({"text": ["a"]}), folder / "train.parquet")
    for name in ("scores.json", "report.html"):
        (Path("work") / "run" / name).write_text("")
    (model := Path("work") / "run" / "models" / "gold_12").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    return Path("work")


def test_kinds(work: Path, tmp_path: Path) -> None:
    assert folder_kind(work) == "a folder of other folders"
    assert folder_kind(work / "run") == "the folder of a run"
    assert folder_kind(work / "run" / "models" / "gold_12") == "a model"
    assert folder_kind(work / "gold") == "a folder of gold"
    (tmp_path / "empty").mkdir()
    assert folder_kind(tmp_path / "empty") == ""
    (work / "gold" / MANIFEST).write_text("[1]")
    assert folder_kind(work / "gold") == ""


def test_rows_are_looked_for_below_and_beside(work: Path) -> None:
    assert folders_of_rows(work) == [work / "gold"]
    assert folders_of_rows(work / "run") == [work / "run" / "corrected", work / "run" / "synthetic"]
    assert folders_of_rows(work / "run" / "models") == [work / "run" / "corrected", work / "run" / "synthetic"]


def test_the_error_says_kind_need_and_place(work: Path) -> None:
    with pytest.raises(MissingGoldError, match="work/run is the folder of a run, without rows of its own") as e:
        read_export(work / "run")
    assert str(e.value).endswith("rows lie in work/run/corrected, work/run/synthetic")


@pytest.mark.parametrize("verb", ["publish", "audit"])
def test_verbs_say_it(verb: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--repo-id", "me/notes"] if verb == "publish" else []
    assert main([verb, "clinic", "work/run", *more]) == 1
    assert "work/run is the folder of a run" in capsys.readouterr().err
