"""The next command where the journey leaves its usual order."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from support.kinds import generated
from support.tiny import toy_rows, toy_task

from hf_synth.cli import main
from hf_synth.cli.ways import best_model
from hf_synth.publishing.release import record
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import write_stage

TASK = toy_task()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_stage(TASK, DatasetDict(train=toy_rows(12, 1), test=toy_rows(6, 2)), tmp_path / "w" / "gold", stage="gold")
    return Path("w")


def proposed(capsys: pytest.CaptureFixture[str], work: Path) -> str:
    """Return what `status` proposes."""
    assert main(["status", str(work)]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def rows_with(status: str) -> Dataset:
    rows = generated(TASK, toy_rows(6, 3))
    feature = rows.features["label_status"]
    return rows.remove_columns("label_status").add_column("label_status", [status] * len(rows), feature=feature)


def test_after_a_run_its_best_model_is_published(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = work / "run"
    for name in ("gold_12", "gold_12_plus_corrected"):
        (run / "models" / name).mkdir(parents=True)
    scores = {"gold_12": {"values": {"macro_f1": 0.4}}, "gold_12_plus_corrected": {"values": {"macro_f1": 0.6}}}
    (run / "scores.json").write_text(json.dumps(scores | {"../../gold": {"values": {"macro_f1": 0.9}}}))
    (run / "report.html").write_text("")
    write_stage(TASK, rows_with("kept"), run / "corrected", stage="correct")
    assert best_model(run) == run / "models" / "gold_12_plus_corrected"
    assert proposed(capsys, work).startswith("next: hf-synth publish w/gold w/run/models/gold_12_plus_corrected --repo")
    many = {"gold_12": {"values": {"accuracy": 0.9, "macro_f1": 0.2}},
            "gold_12_plus_corrected": {"values": {"accuracy": 0.8, "macro_f1": 0.6}}}  # fmt: skip
    (run / "scores.json").write_text(json.dumps(many))
    assert best_model(run) == run / "models" / "gold_12_plus_corrected", "by macro-F1"
    assert best_model(run, ("accuracy",)) == run / "models" / "gold_12", "by the main metric of the task"
    (run / "scores.json").write_text("[]")
    assert best_model(run) is None


def test_a_model_that_misses_a_label_is_not_proposed_silently(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def of(value: float, found: int) -> dict[str, object]:
        per_class = {"fall": {"support": 4, "recall": 1.0}, "fever": {"support": 4, "recall": found / 4}}
        return {"values": {"macro_f1": value, "accuracy": (4 + found) / 8}, "per_class": per_class, "confusion": [[1]]}

    run = work / "run"
    for name in ("gold_12", "gold_12_plus_corrected"):
        (run / "models" / name).mkdir(parents=True)
    write_stage(TASK, rows_with("kept"), run / "corrected", stage="correct")
    (run / "report.html").write_text("")
    (run / "scores.json").write_text(json.dumps({"gold_12": of(0.57, 1), "gold_12_plus_corrected": of(0.6, 0)}))
    assert " w/run/models/gold_12 " in proposed(capsys, work), "its score is about as good, and it finds every label"
    (run / "scores.json").write_text(json.dumps({"gold_12": of(0.4, 1), "gold_12_plus_corrected": of(0.6, 0)}))
    assert main(["status", str(work)]) == 0
    *_, weak, line = capsys.readouterr().out.splitlines()
    assert " w/run/models/gold_12_plus_corrected " in line
    assert weak.startswith("weak model: gold_12_plus_corrected never finds fever (0 of 4) on the test rows")
    assert "label more gold of fever" in weak


def test_a_release_of_a_run_is_pushed_from_the_folder_of_the_run(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, export = work / "run", work / "export"
    (run / "models" / "gold_12").mkdir(parents=True)
    (run / "scores.json").write_text(json.dumps({"gold_12": {"values": {"macro_f1": 0.4}}}))
    (run / "report.html").write_text("")
    write_stage(TASK, rows_with("kept"), run / "corrected", stage="correct")
    for kind, folder in (("dataset", "w/run/corrected"), ("model", "w/run/models/gold_12")):
        (export / kind).mkdir(parents=True)
        facts = {"task": TASK.full_name, "kind": kind, "repo_id": f"ward/{kind}", "task_version": TASK.version}
        (export / kind / "release.json").write_text(json.dumps(facts))
        end = f"--repo-id ward/{kind} --out w/export/{kind} --push"
        assert proposed(capsys, work) == f"next: hf-synth publish w/gold {folder} {end}"
    shutil.copytree(run, work / "later")
    for path in (work / "later").rglob("*.json"):
        os.utime(path, (path.stat().st_mtime + 60,) * 2)
    assert proposed(capsys, work).startswith("next: hf-synth publish w/gold w/later/"), "a run that nobody published"
    os.utime(export / "model" / "release.json", ((work / "later" / "scores.json").stat().st_mtime + 60,) * 2)
    shutil.rmtree(work / "later")
    shutil.rmtree(run / "models")
    assert " w/run/corrected " in proposed(capsys, work), "the other release was not pushed, either"
    shutil.rmtree(run / "corrected")
    assert proposed(capsys, work) == "nothing is left to do", "what the releases were made of is not here"


def test_an_earlier_release_that_was_not_pushed_is_not_forgotten(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stage(TASK, rows_with("kept"), work / "corrected", stage="correct")
    (work / "model").mkdir()
    (work / "model" / "hf_synth.json").write_text(json.dumps({"stage": "train", "task": TASK.full_name}))
    for place, kind in enumerate(("model", "dataset")):
        (work / "export" / kind).mkdir(parents=True)
        file = work / "export" / kind / "release.json"
        file.write_text(json.dumps({"task": TASK.full_name, "kind": kind, "repo_id": f"ward/{kind}"}))
        os.utime(file, (file.stat().st_mtime + 60 + place,) * 2)
    record(work / "export", "push", kind="dataset", repo_id="ward/dataset", tag="v1", url="http://hub/ward/dataset")
    end = "--repo-id ward/model --out w/export/model --push"
    assert proposed(capsys, work) == f"next: hf-synth publish w/gold w/model {end}"


def test_where_no_row_is_used_a_model_of_gold_alone_is_trained(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stage(TASK, rows_with("dropped"), work / "corrected", stage="correct", policy={"method": "gold_only"})
    assert proposed(capsys, work).startswith("next: hf-synth train w/gold w/gold --base-model ")
    write_stage(TASK, rows_with("kept"), work / "corrected", stage="correct")
    assert proposed(capsys, work).startswith("next: hf-synth augment w/gold w/corrected ")


def test_after_a_release_of_notes_the_model_is_still_to_be_made_and_published(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stage(TASK, rows_with("kept"), work / "corrected", stage="correct")
    release = work / "export" / "notes"
    release.mkdir(parents=True)
    facts = {"kind": "dataset", "repo_id": "org/notes"}
    (release / "release.json").write_text(json.dumps({**facts, "task": TASK.full_name}))
    pushed = "pushed to http://hub/org/notes as v1"
    for action, tag, said in (
        ("push", "v1", f"; {pushed}"),
        ("withdraw", "v0", f"; {pushed}"),
        ("withdraw", None, f"; withdrawn; it was {pushed}"),
        ("push", "v1", f"; {pushed}"),
        ("withdraw", "v1", f"; withdrawn; it was {pushed}"),
    ):
        record(work / "export", action, **facts, tag=tag, url="http://hub/org/notes")
        assert main(["status", str(work)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("release") and line.endswith(said) for line in lines), (action, tag)
        assert lines[-1].startswith("next: hf-synth augment w/gold w/corrected ")
    scores = {"task": TASK.full_name, "n": 6, "values": {"macro_f1": 0.5}, "per_class": {}}
    (work / "scores.json").write_text(json.dumps(scores))
    assert proposed(capsys, work).startswith("next: hf-synth publish w/gold w/model --scores w/scores.json ")
    model = {"kind": "model", "repo_id": "org/model"}
    (work / "export" / "model").mkdir()
    (work / "export" / "model" / "release.json").write_text(json.dumps({**model, "task": TASK.full_name}))
    record(work / "export", "push", **model, tag="v1", url="http://hub/org/model")
    assert proposed(capsys, work) == "nothing is left to do"


def test_an_audit_of_earlier_notes_is_out_of_date(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, name in (("generate", "synthetic"), ("correct", "corrected")):
        write_stage(TASK, rows_with("kept"), work / name, stage=stage)
    (work / "audit").mkdir()
    (work / "audit" / "audit.json").write_text('{"synthetic": "w/corrected"}')
    (work / "audit" / MANIFEST).write_text(json.dumps({"stage": "audit", "task": TASK.full_name}))
    now = (work / "audit" / MANIFEST).stat().st_mtime

    def said(seconds: float) -> str:
        os.utime(work / "audit" / MANIFEST, (now + seconds, now + seconds))
        assert main(["status", str(work)]) == 0
        return capsys.readouterr().out

    assert "older than" not in said(60)
    assert "out of date: it is older than gold and corrected\n" in said(-600)


def test_a_sample_of_corrected_notes_does_not_lead_to_a_command_that_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stage(TASK, rows_with("kept"), work / "corrected", stage="correct")
    assert main(["sample", "w/gold", "w/corrected", "--n", "4", "--by"]) == 0
    *said, line = capsys.readouterr().out.splitlines()
    assert line.startswith("next: hf-synth correct w/gold w/corrected --base-model ")
    assert line.endswith(" --out w/corrected_audited --audited w/corrected/.hf_synth/audit_sample.csv")
    assert not any("hf-synth correct" in one for one in said), "one command is enough"


def test_the_gold_of_a_run_lies_one_folder_up(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The task of a table has no name that a command knows: its folder of gold is named."""
    write_stage(TASK, rows_with("kept"), work / "run" / "corrected", stage="correct")
    assert proposed(capsys, work / "run").startswith("next: hf-synth augment w/gold w/run/corrected ")
    (work / "gold").rename("other")
    Path("hf_synth.toml").write_text('task = "other"\n', encoding="utf-8")
    assert proposed(capsys, work / "run").startswith("next: hf-synth augment other w/run/corrected ")


def test_without_gold_a_person_comes_first(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.rename(work / "gold", work.parent / "gold")
    notes = work / "synthetic"
    write_stage(TASK, rows_with("kept"), notes, stage="generate", no_gold=True)
    assert proposed(capsys, work) == "next: hf-synth review w/synthetic --n 50"
    answers = notes / ".hf_synth" / "review" / "labels"
    answers.mkdir(parents=True)
    (answers / "me.jsonl").write_text("{}\n")
    assert proposed(capsys, work).startswith("next: hf-synth gold ")


def test_gold_leads_to_run_where_run_can_score(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert proposed(capsys, work).startswith("next: hf-synth run w/gold --llm ")
    named = 'task = "w/gold"\nllm = "m"\nbase-model = "minilm"\n[run]\nout = "w/all"\n'
    Path("hf_synth.toml").write_text(named, encoding="utf-8")
    assert proposed(capsys, work) == "next: hf-synth run"
    Path("hf_synth.toml").unlink()
    write_stage(TASK, DatasetDict(train=toy_rows(12, 1)), work / "gold", stage="gold")
    assert proposed(capsys, work).startswith("next: hf-synth generate w/gold --llm "), "no row to score on"


def test_gold_says_where_texts_come_several_times(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = [
        f"P{i // 2},note number {i // 2 if i < 4 else i} of the ward,{('low', 'high')[i % 4 > 1]}\n" for i in range(40)
    ]
    Path("t.csv").write_text("who,note,label\n" + "".join(notes), encoding="utf-8")
    table = ["gold", "t.csv", "--text-column", "note", "--label-column", "label", "--out", "g"]
    assert main(table) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("some texts come several times: "))
    found = [(int(rows), int(texts)) for rows, texts in re.findall(r"(\d+) gold rows \((\d+) different texts\)", line)]
    assert sum(rows - texts for rows, texts in found) == 2
    assert "different labels" not in said
    assert "is 'label' the label?" not in said
    assert main([*table[:5], "who", "--out", "wrong"]) == 0
    assert "20 of 20 labels have fewer than 5 rows: is 'who' the label?" in capsys.readouterr().out
    notes[3] = notes[3].replace("high", "low")
    Path("t.csv").write_text("who,note,label\n" + "".join(notes), encoding="utf-8")
    assert main(table) == 0
    assert "1 of these texts has different labels" in capsys.readouterr().out
    Path("t.csv").write_text("who,note,label\n" + "".join(notes[4:]), encoding="utf-8")
    assert main([*table, "--group-column", "none"]) == 0, "as `init` takes it"
    assert "several times" not in capsys.readouterr().out
