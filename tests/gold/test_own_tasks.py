"""Ways into gold: plain `load_dataset`, the verb `gold`, a table of one's own, a script of one's own."""

from __future__ import annotations

import csv
import json
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, List, Value, load_dataset
from support.command import run
from support.gold_files import CANARY, WRITERS, note, write_csv, write_gold

import hf_synth
from hf_synth.correction.audited import read_audited
from hf_synth.errors import GoldError, RowError, TaskError
from hf_synth.gold.adoption import read_dataset
from hf_synth.gold.gold import load_gold
from hf_synth.task.scripts import load_task

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def own_table(tmp_path: Path) -> Path:
    rows = [[f"p{n // 2}", note(n, f"urgency {n % 3}"), ("now", "soon", "later")[n % 3]] for n in range(60)]
    return write_csv(tmp_path / "notes" / "triage.csv", ["patient", "body", "urgency"], rows)


# --- load_dataset ---------------------------------------------------------------------------------------------------
def test_registered_tasks_load_by_load_dataset(tmp_path: Path) -> None:
    assert "hf_synth/mednli" in hf_synth.register()
    folder = WRITERS["mednli"](tmp_path / "mednli")
    rows = load_dataset("hf_synth/mednli", data_dir=str(folder))
    assert rows["train"].to_list() == load_gold(load_task("mednli"), folder)["train"].to_list()
    assert all(Path(f["filename"]).is_relative_to(folder) for f in rows["train"].cache_files)
    (folder / "mli_dev_v1.jsonl").write_text((folder / "mli_dev_v1.jsonl").read_text().replace("Person", "Nobody"))
    again = load_dataset("hf_synth/mednli", data_dir=str(folder))
    assert "Nobody" in again["validation"][0]["premise"]  # a changed file is seen
    other = load_dataset("hf_synth/mednli", "text2text", data_dir=str(folder), split="test")
    assert other.features["target"] == Value("string")
    stream = load_dataset(
        "hf_synth/obesity", "intuitive", data_dir=str(WRITERS["obesity"](tmp_path / "o")), streaming=True
    )
    assert next(iter(stream["train"]))["task"] == "obesity:intuitive"


def test_the_verb_gold_reads_a_script_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = WRITERS["mednli"](tmp_path / "mednli")
    script = ROOT / "dataset_scripts" / "mednli.py"
    code, said, error = run(capsys, "gold", f"{script}:text2text", folder, "--out", tmp_path / "out")
    assert code == 0, error
    assert "mednli:text2text: 120 train" in said
    rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"), split="train")
    assert rows[0]["input"].startswith("premise: ")
    assert rows[0]["target"] in ("entailment", "contradiction", "neutral")


# --- a table of one's own -------------------------------------------------------------------------------------------
def test_two_columns_are_enough(capsys: pytest.CaptureFixture[str], own_table: Path, tmp_path: Path) -> None:
    out = tmp_path / "gold"
    code, said, error = run(
        capsys, "gold", own_table, "--text-column", "body", "--label-column", "urgency", "--group-column", "patient",
        "--out", out, "--json",
    )  # fmt: skip
    assert code == 0, error
    assert json.loads(said.splitlines()[-1])["access"] == "restricted"
    task = load_task(out)  # the folder carries the task
    assert (task.name, task.labels, task.text_columns) == ("triage", ("later", "now", "soon"), ("body",))
    gold = load_gold(task, out)
    assert isinstance(gold["train"].features["urgency"], ClassLabel)
    assert not set(gold["train"]["group"]) & set(gold["test"]["group"])
    assert load_dataset(str(out), cache_dir=str(tmp_path / "c"))["train"].features == gold["train"].features
    code, _, error = run(
        capsys, "generate", out, "--llm", "simulator", "--n", "6", "--out", tmp_path / "synthetic"
    )  # no --gold: the task's own folder is it
    assert code == 0, error
    rows = read_dataset(tmp_path / "synthetic")
    assert sum(s == "kept" for s in rows["label_status"]) == 6
    assert set(rows["access"]) == {"restricted"}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".zip"])
def test_other_tables_do_as_well(
    own_table: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with own_table.open() as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / f"own{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    elif suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        with zipfile.ZipFile(path, "w") as packed:
            packed.write(own_table, "deep/train.csv")
    words = ["--text-column", "body", "--label-column", "urgency", "--labels", "now,soon,later", "--access", "open"]
    code, _, error = run(capsys, "gold", path, *words, "--out", tmp_path / "gold")
    assert code == 0, error
    gold = load_gold(load_task(tmp_path / "gold"), tmp_path / "gold")
    assert gold["train"].features["urgency"].names == ["now", "soon", "later"]
    assert sum(map(len, gold.values())) == 60


def test_pairs_lists_of_labels_and_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[note(n), note(n + 1), "a; b" if n % 2 else ("" if n % 4 else "c"), f"sum {n}"] for n in range(40)]
    table = write_csv(tmp_path / "own.csv", ["one", "two", "findings", "summary"], rows)
    code, _, error = run(
        capsys, "gold", "findings", table, "--text-column", "one", "--text-column", "two", "--label-column", "findings",
        "--kind", "multi_label", "--out", tmp_path / "multi",
    )  # fmt: skip
    assert code == 0, error
    gold = load_gold(load_task(tmp_path / "multi"), tmp_path / "multi")
    assert gold["train"].features["findings"] == List(ClassLabel(names=["a", "b", "c"]))
    assert [] in list(gold["train"]["findings"])
    assert load_task(tmp_path / "multi").name == "findings"
    words = ["--text-column", "one", "--label-column", "summary", "--kind", "text2text"]
    code, _, error = run(capsys, "gold", table, *words, "--out", tmp_path / "text")
    assert code == 0, error
    assert load_gold(load_task(tmp_path / "text"), tmp_path / "text")["train"].features["summary"] == Value("string")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--text-column", "body", "--label-column", "nothing"], "no column 'nothing'; it has 'patient'"),
        (["--text-column", "nothing", "--label-column", "urgency"], "no column 'nothing'"),
        (["--label-column", "urgency"], "is a table: name --text-column$"),
        (
            ["--text-column", "patient", "--label-column", "body"],
            "60 rows cannot be read: lines 2, 3, .* 'body' holds more than 100",
        ),
        (
            ["--text-column", "body", "--label-column", "urgency", "--labels", "now,soon"],
            "lines 4, 7, .*holds 'later', no known label; expected one of now, soon",
        ),
    ],
)
def test_a_wrong_table_is_one_sentence(
    capsys: pytest.CaptureFixture[str], own_table: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    import re

    code, out, error = run(capsys, "gold", own_table, *words, "--out", tmp_path / "gold")
    assert code == 1
    assert re.search(says, error)
    assert "Person" not in out + error


def test_too_many_labels_are_texts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = write_csv(tmp_path / "x.csv", ["t", "y"], [[note(n), f"{CANARY} {n}"] for n in range(200)])
    code, _, error = run(capsys, "gold", table, "--text-column", "t", "--label-column", "y", "--out", tmp_path / "o")
    assert code == 1
    assert "--kind text2text" in error
    assert CANARY not in error


def test_a_manifest_that_names_no_task_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}", '{"definition": {"name": "x"}}', '{"task": "no such task"}'):
        (tmp_path / "hf_synth.json").write_text(text)
        with pytest.raises(TaskError):
            load_task(tmp_path)


# --- a script of one's own ------------------------------------------------------------------------------------------
def test_a_new_task_passes_its_own_test(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "new-task", "triage_notes", "--out", tmp_path)
    assert code == 0
    assert "triage_notes.py" in out
    names = runpy.run_path(str(tmp_path / "test_triage_notes.py"))
    tests = {name: test for name, test in names.items() if name.startswith("test_")}
    assert len(tests) == 2
    for name, test in tests.items():
        (tmp_path / name).mkdir()
        test(tmp_path / name)
    check = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", str(tmp_path)], capture_output=True)
    assert check.returncode == 0, check.stdout
    code, _, error = run(capsys, "new-task", "triage_notes", "--out", tmp_path)
    assert code == 1
    assert "is there already" in error
    code, _, error = run(capsys, "new-task", "Triage Notes", "--out", tmp_path)
    assert code == 1
    assert "no name for a task" in error


def test_a_script_of_ones_own_is_used_by_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "new-task", "triage", "--out", tmp_path)[0] == 0
    rows = [[note(n), ("low", "high")[n % 2], f"p{n // 2}"] for n in range(60)]
    table = write_csv(tmp_path / "notes.csv", ["text", "label", "patient_id"], rows)
    code, _, error = run(capsys, "gold", tmp_path / "triage.py", table, "--out", tmp_path / "gold")
    assert code == 0, error
    assert load_task(f"{tmp_path / 'triage.py'}:default").name == "triage"
    with pytest.raises(TaskError, match="no config 'other'"):
        load_task(f"{tmp_path / 'triage.py'}:other")


@pytest.mark.parametrize("named", ["shared/notes.py", "{folder}/notes.py", "notes.py", "shared", "{folder}", "../x"])
def test_a_folder_of_data_runs_no_code(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a manifest names is a task of ours, never a path: nobody but the user names a script."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "notes.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nTASKS = {{}}\n")
    (folder / "hf_synth.json").write_text(json.dumps({"stage": "gold", "task": named.format(folder=folder)}))
    for name in ("shared", str(folder)):
        with pytest.raises(TaskError):
            load_task(name)
    assert not (tmp_path / "ran").exists()


def test_a_folder_cannot_stand_in_for_the_task_that_a_manifest_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mednli", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hf_synth.json").write_text(json.dumps({"stage": "gold", "task": "mednli"}))
    assert load_task("notes").name == "mednli"


# --- the verbs ------------------------------------------------------------------------------------------------------
def test_gold_takes_options_and_archives(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = WRITERS["emrqa"](tmp_path / "emrqa")
    with zipfile.ZipFile(tmp_path / "emrqa.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(folder / "data.json", "emrQA/output/data.json")
    words = ["--option", "context_lines=2", "--option", "wordings=all"]
    code, out, error = run(capsys, "gold", "emrqa:risk", tmp_path / "emrqa.zip", *words, "--out", tmp_path / "out")
    assert code == 0, error
    assert "emrqa:risk" in out
    assert sum(len(r) for r in load_gold(load_task("emrqa:risk"), tmp_path / "out").values()) == 72
    code, _, error = run(capsys, "gold", "emrqa:risk", tmp_path / "emrqa.zip", "--option", "x", "--out", tmp_path / "o")
    assert code == 1
    assert "NAME=VALUE" in error


def test_tasks_tell_all_that_a_user_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("mednli", "obesity", "emrqa"):
        WRITERS[name](tmp_path / name)
    code, out, _ = run(capsys, "tasks", "--gold", tmp_path, "--json")
    assert code == 0
    tasks = {t["task"]: t for t in json.loads(out.splitlines()[-1])["tasks"]}
    assert {n.split(":")[0] for n, t in tasks.items() if t["found"]} == {"mednli", "obesity", "emrqa", "clinic"}
    assert set(tasks["mednli:pair"]) >= {"name", "kind", "access", "license", "config", "files", "source_url", "suites"}
    said = run(capsys, "tasks", "--gold", tmp_path)[1]
    assert "not verified: the names of files and columns" in said
    assert "https://physionet.org/content/mednli/1.0.0/" in said
    assert "found    yes" in said
    assert run(capsys, "tasks", "--gold", tmp_path / "nowhere")[0] == 1


def test_gold_of_another_task_is_refused(tmp_path: Path) -> None:
    from hf_synth.task.folders import write_stage

    task = load_task("mednli")
    out = write_stage(task, load_gold(task, write_gold(task, tmp_path / "m")), tmp_path / "out", stage="gold")
    with pytest.raises(GoldError, match="holds task 'mednli:pair', not 'medqa:five'"):
        load_gold(load_task("medqa"), out)


def test_audited_labels_are_read_and_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    table = tmp_path / "checked.csv"
    table.write_text("id,label\na,low\nb,\nc,high\n", encoding="utf-8")
    assert dict(read_audited(table)) == {"a": "low", "c": "high"}
    for text, says in (
        ("id,label\na,low\na,high\n", "row 2: column 'id' holds the id of an earlier row"),
        ("id,grade\na,low\n", "has no column 'label'; it has 'id', 'grade'"),
        ("id,label\na,\n", "holds no audited row"),
    ):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(RowError, match=says):
            read_audited(table)
