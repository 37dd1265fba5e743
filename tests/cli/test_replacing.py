"""A verb names in one line the output that it replaced."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from support.clinic_rows import clinic_gold

from hf_synth import load_task
from hf_synth.cli import main
from hf_synth.cli.replacing import earlier_output
from hf_synth.errors import HfSynthError
from hf_synth.task.folders import write_stage


def test_an_earlier_output_is_named_with_its_rows_and_its_day(tmp_path: Path) -> None:
    task, out = load_task("clinic"), tmp_path / "synthetic"
    args = Namespace(verb="generate", out=out)
    assert earlier_output(args) is None
    write_stage(task, clinic_gold(task, [0, 1, 2]), out, stage="gold")
    day = time.mktime((2026, 11, 30, 12, 0, 0, 0, 0, -1))
    os.utime(out / "hf_synth.json", (day, day))
    earlier = earlier_output(args)
    assert earlier is not None
    assert earlier.replaced() == "", "it is there as it was"
    write_stage(task, clinic_gold(task, [0, 1]), out, stage="gold")
    assert earlier.replaced() == f"{out}: replaced (3 rows of 2026-11-30)"


@pytest.mark.parametrize(("name", "text"), [("hf_synth.json", "["), ("hf_synth.json", '{"rows": 3}'), ("x.json", "{}")])
def test_a_folder_or_file_without_counts(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    earlier = earlier_output(Namespace(verb="evaluate", out=file.parent if name == "hf_synth.json" else file))
    assert earlier is not None
    file.unlink()
    assert earlier.replaced() == "", "it is gone"
    file.with_suffix(".new").write_text(text + " ", encoding="utf-8")
    file.with_suffix(".new").replace(file)
    assert "replaced (" in earlier.replaced()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"hf_synth.json": {"stage": "train"}, "hf_synth_facts.json": {"rows": {"gold": 60, "relabelled": 1200}}},
            "a model, trained on 1,260 rows on 2026-11-30",
        ),
        ({"hf_synth_facts.json": {"rows": {}}}, "a model of 2026-11-30"),
        ({"hf_synth_facts.json": {"known": False}, "config.json": {}}, "a model of 2026-11-30"),
        ({"hf_synth.json": {"rows": {"rejected": 7}}}, "7 rejected rows of 2026-11-30"),
        ({"hf_synth.json": {"rows": {"train": 7, "rejected": 2}}}, "7 rows of 2026-11-30"),
        ({"hf_synth.json": {"stage": "audit"}}, "a folder of 2026-11-30"),
        ({"hf_synth.json": {"rows": {}}}, "a folder of 2026-11-30"),
    ],
)
def test_the_kind_of_output_is_named(files: dict[str, Any], says: str, tmp_path: Path) -> None:
    day = time.mktime((2026, 11, 30, 12, 0, 0, 0, 0, -1))
    for name, facts in files.items():
        (tmp_path / name).write_text(json.dumps(facts), encoding="utf-8")
        os.utime(tmp_path / name, (day, day))
    earlier = earlier_output(Namespace(verb="train", out=tmp_path))
    assert earlier is not None
    assert earlier.about == says


def test_publish_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export" / "notes").mkdir(parents=True)
    (tmp_path / "export" / "notes" / "hf_synth.json").write_text("{}")
    publish = Namespace(verb="publish", out=None, repo_id="ward/notes")
    earlier = earlier_output(publish)
    assert earlier is not None
    assert earlier.path == Path("export/notes")
    publish.verb = "correct"
    assert earlier_output(publish) is None


def test_a_verb_says_it_and_a_quiet_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["gold", "clinic", *(f"--option=n_{split}=30" for split in ("train", "validation", "test")), "--out", "g"]
    for more, said in (([], False), ([], True), (["-q"], False)):
        assert main([*words, *more]) == 0
        assert ("g: replaced (90 rows of 2" in capsys.readouterr().err) == said


def test_rows_that_a_person_edited_are_not_written_over(tmp_path: Path) -> None:
    task, out = load_task("clinic"), tmp_path / "synthetic"
    write_stage(task, clinic_gold(task, [0, 1, 2]), out, stage="generate")
    other = write_stage(task, clinic_gold(task, [0, 1]), tmp_path / "other", stage="generate")
    (out / "train.parquet").write_bytes((other / "train.parquet").read_bytes())
    for verb in ("generate", "correct", "regenerate", "label", "augment", "gold"):
        with pytest.raises(HfSynthError, match=rf"edited by hand \(train.parquet\), and `{verb}` would write over it"):
            earlier_output(Namespace(verb=verb, out=out))
    for unfit in ({"dry_run": True}, {"preview": 3}):
        assert earlier_output(Namespace(verb="generate", out=out, **unfit)) is not None
    assert earlier_output(Namespace(verb="run", out=out)) is not None
    assert earlier_output(Namespace(verb="generate", out=other)) is not None
    (other / "train.parquet").unlink()
    assert earlier_output(Namespace(verb="generate", out=other)) is not None, "nothing of a person is lost"
