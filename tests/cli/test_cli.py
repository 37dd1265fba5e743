"""The command line: verbs read each other's folders; a wrong input is one sentence and exit code 1."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.command import run
from support.gguf_model import write_gguf
from support.gold_files import CANARY, mts_folder
from support.tiny import tiny_base

import hf_synth.publishing.model_checks  # noqa: F401  # conftest then loads models back in this process
from hf_synth.cli import cli, main
from hf_synth.cli.task_table import task_facts, task_table
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.columns import RUN_CONFIG
from hf_synth.task.folders import read_manifest
from hf_synth.task.scripts import list_tasks

SMALL = ["--set", "max_steps=3", "--set", "per_device_train_batch_size=8"]


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a small gold of the artificial clinic."""
    out = tmp_path_factory.mktemp("clinic") / "gold"
    sizes = [f"--option=n_{split}={n}" for split, n in (("train", 150), ("validation", 40), ("test", 60))]
    assert main(["gold", "clinic", *sizes, "--out", str(out), "-q"]) == 0
    return out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gold", "nothing", "x", "--out", "o"], "there is no task 'nothing'"),
        (["gold", "mts_dialog", "/nowhere", "--out", "o"], "is no folder or file"),
        (["gold", "mts_dialog", "--out", "o"], "needs the folder of its files"),
        (["evaluate", "clinic", "/nowhere"], "no model folder"),
        (["generate", "clinic", "--llm", "m", "--out", "o"], "give the endpoint with --base-url"),
        (["generate", "clinic", "--llm", "m", "--base-url", "http://127.0.0.1:9/v1", "--out", "o", "--n", "1"],
         "127.0.0.1:9"),
        (["generate", "clinic", "--llm", "no.gguf", "--out", "o"], "there is no file no.gguf"),
        (["generate", "clinic", "--llm", "no.gguf", "--batch", "--out", "o"], "leave out --batch"),
        (["generate", "esophagitis", "--gold", "/nowhere", "--llm", "m", "--base-url",
          "https://api.openai.com/v1", "--out", "o"], "/nowhere"),
        (["correct", "clinic", "/nowhere", "--out", "o"], "/nowhere"),
        (["run", "clinic", "--out", "o"], "give the synthetic rows"),
        (["train", "clinic", "/nowhere", "--out", "o"], "/nowhere"),
        (["publish", "clinic", "/nowhere", "--repo-id", "a/b"], "/nowhere"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *words)
    assert code == 1
    lines = [line for line in error.splitlines() if line.startswith("hf-synth:")]
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in error


def test_only_a_process_of_our_own_collects_less(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli, "_collect_less", lambda: seen.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["hf-synth", "--version"])
    assert run(capsys, "--version")[0] == 0
    assert not seen
    assert cli.main() == 0
    assert seen == [["hf-synth", "--version"]]


def test_a_wrong_row_is_named_and_its_text_is_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = mts_folder(tmp_path / "mts")
    with (folder / "MTS-Dialog-TrainingSet.csv").open("a") as file:
        file.write(f"9,HISTORY,{CANARY},x\r\n")
    code, out, error = run(capsys, "gold", "mts_dialog", folder, "--out", tmp_path / "out")
    assert code == 1
    assert "row 5" in error
    assert CANARY not in out + error


def test_an_output_that_is_not_ours_is_left_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    code, _, error = run(capsys, "gold", "mts_dialog", mts_folder(tmp_path / "mts"), "--out", tmp_path / "thesis")
    assert code == 1
    assert "choose another folder" in error
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"


def test_tasks_say_what_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "tasks", "--json", "--gold", mts_folder(tmp_path / "mts"))
    tasks = {t["task"]: t for t in json.loads(out.splitlines()[-1])["tasks"]}
    assert code == 0
    assert tasks["mts_dialog:section"]["found"]
    assert not tasks["esophagitis:grade"]["found"]
    assert "mts_dialog:section" in run(capsys, "tasks")[1]


def test_each_verb_reads_the_folder_of_the_one_before(
    capsys: pytest.CaptureFixture[str], gold: Path, tmp_path: Path
) -> None:
    base, some = tiny_base(tmp_path / "base"), ["--gold-size", "40"]
    model = ["--base-model", base, *SMALL]
    export = tmp_path / "export"
    steps: list[list[str | Path]] = [
        ["generate", "clinic", "--gold", gold, *some, "--llm", "simulator", "--n", "40", "--out", tmp_path / "syn"],
        ["correct", "clinic", tmp_path / "syn", "--gold", gold, *some, *model, "--method", "posterior",
         "--out", tmp_path / "corrected"],
        ["augment", "clinic", tmp_path / "corrected", "--gold", gold, *some, "--out", tmp_path / "training"],
        ["train", "clinic", tmp_path / "training", *model, "--out", tmp_path / "model"],
        ["evaluate", "clinic", tmp_path / "model", "--gold", gold, "--subgroups", "--out", tmp_path / "scores.json"],
        ["publish", "clinic", tmp_path / "corrected", "--gold", gold, "--repo-id", "org/x", "--out", export],
        ["publish", "clinic", tmp_path / "model", "--gold", gold, "--repo-id", "org/m", "--scores",
         tmp_path / "scores.json", "--out", tmp_path / "export-model"],
    ]  # fmt: skip
    for step in steps:
        code, out, error = run(capsys, *step)
        assert code == 0, (step[0], error)
        assert out.strip()
    facts = json.loads((tmp_path / "scores.json").read_text())
    assert {s["attribute"] for s in facts["subgroups"] if s["what"] == "scores"} == {"sex", "age", "race"}
    assert "How like gold the texts are" in (export / "README.md").read_text()
    assert (read_manifest(tmp_path / "syn") or {})["likeness"]
    assert (tmp_path / "export-model" / "model.safetensors").is_file()
    assert not (tmp_path / "export-model" / "training_args.bin").exists()
    for folder in ("syn", "corrected", "training", "model"):
        assert (tmp_path / folder / RUN_CONFIG).stat().st_mode & 0o777 == 0o600
    assert not [file for folder in ("export", "export-model") for file in (tmp_path / folder).rglob(RUN_CONFIG)]
    again = run(capsys, *steps[0])  # nothing is asked again, and the same rows come out
    assert again[0] == 0
    assert len(read_dataset(tmp_path / "syn")) >= 40


def test_a_gguf_file_writes_notes(capsys: pytest.CaptureFixture[str], gold: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs xllamacpp (PyPI): llama.cpp's server")
    model, out = write_gguf(tmp_path / "tiny.gguf"), tmp_path / "out"
    words = ["generate", gold, "--llm", model, "--slots", "2", "--context", "4096", "--n", "4", "--max-calls", "8"]
    code, _, error = run(capsys, *words, "--out", out, "--journal", tmp_path / "journal.sqlite", "-q")
    if code:  # random weights may write no text at all, which is an error with its cause
        assert "no note was made: the text is empty" in error
        return
    weights = read_manifest(out)["weights"]  # type: ignore[index]
    assert weights["sha256"] == sha256(model.read_bytes()).hexdigest()
    assert set(read_dataset(out)["generator"]) == {weights["name"]}


def test_run_takes_rows_made_elsewhere(capsys: pytest.CaptureFixture[str], gold: Path, tmp_path: Path) -> None:
    pool = read_dataset(gold, split="validation")
    rows = [{"body": t, "asked": f"grade_{g}"} for t, g in zip(pool["text"], pool["label"], strict=True)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    code, out, error = run(
        capsys, "run", "clinic", "--gold", gold, "--gold-size", "40", "--synthetic", tmp_path / "pool.jsonl",
        "--text-column", "body", "--llm-label-column", "asked", "--base-model", tiny_base(tmp_path / "base"), *SMALL,
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert code == 0, error
    facts = json.loads(out.splitlines()[-1])
    assert set(facts["scores"]) == {
        "gold_40",
        "synthetic_raw",
        "synthetic_corrected",
        "gold_40_plus_raw",
        "gold_40_plus_corrected",
    }
    assert (tmp_path / "run" / "scores.svg").read_text().startswith("<svg")
    assert "Simulated: The gold is an artificial clinic" in (tmp_path / "run" / "report.html").read_text()
    assert "40 gold + corrected" in (tmp_path / "run" / "report.md").read_text()


def test_models_are_listed_and_one_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", "clinic", "--no-mimic", "--json")
    assert code == 0
    facts = json.loads(out.splitlines()[-1])
    assert facts["suggested"] == "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext"
    assert "emilyalsentzer/Bio_ClinicalBERT" in out
    code, _, error = run(capsys, "models", "--gold", "x")
    assert code == 1
    assert "name the task" in error


def test_train_takes_what_training_can(capsys: pytest.CaptureFixture[str], gold: Path, tmp_path: Path) -> None:
    from hf_synth.models.record import model_facts

    base = tiny_base(tmp_path / "base")
    options = ["--class-weights", "--long-notes", "windows_mean", "--resume", "--cache", tmp_path / "cache"]
    code, _, error = run(
        capsys, "train", "clinic", gold, "--base-model", base, "--out", tmp_path / "m", *options, *SMALL
    )
    assert code == 0, error
    facts = model_facts(tmp_path / "m")
    assert (facts["class_weights"], facts["long_notes"]["how"], facts["lora"]) == (True, "windows_mean", False)
    assert list((tmp_path / "cache").glob("tokens-*/*.arrow"))
    assert not list(tmp_path.glob(".hf_synth/training"))


@pytest.mark.parametrize(
    ("words", "says", "module"),
    [
        (["generate", "--help"], "--preview", "hf_synth.cli.generation"),
        (["tasks"], "mts_dialog", "hf_synth.cli.gold"),
        (["tasks", "--json"], '"labels": ["entailment"', "hf_synth.cli.gold"),
        ([], "hf-synth --help", "hf_synth.cli.cli"),
    ],
)
def test_help_and_tasks_import_nothing_heavy(words: list[str], says: str, module: str) -> None:
    """In a process of its own, as `python -m` runs it: only the module of the verb that was asked for is imported."""
    code = (
        f"import runpy, sys\nsys.argv[1:] = {words}\n"
        "try:\n    runpy.run_module('hf_synth.cli', run_name='__main__')\nexcept SystemExit:\n    print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert says in done.stdout
    modules = set(done.stdout.splitlines()[-1].split())
    assert module in modules
    heavy = {"numpy", "pyarrow", "pandas", "datasets", "torch", "openai", "huggingface_hub", "hf_synth.dataset_scripts"}
    assert not modules & (heavy | {"hf_synth.task.folders", "hf_synth.cli.training"})


def test_the_table_of_tasks_is_that_of_the_scripts() -> None:
    found = [json.loads(json.dumps(task_facts(task))) for task in list_tasks()]
    assert task_table() == found, "write it anew: python -m hf_synth.cli.task_table"
