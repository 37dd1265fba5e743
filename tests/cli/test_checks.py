"""Cheap checks come first: what cannot work is an error before gold is read, an LLM is asked or a model is trained."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from datasets import DatasetDict
from support.kinds import ASKED, asked_gold, generated
from support.tiny import tiny_base, toy_rows, toy_task

import hf_synth.experiments.experiment  # noqa: F401  # its names are bound before `dear` replaces them
from hf_synth import load_task
from hf_synth.cli import main
from hf_synth.cli.checks import _check_apart, check_not_read
from hf_synth.errors import OutputError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.models.base_models import TOY_NOTE
from hf_synth.models.readiness import installed_models
from hf_synth.task.folders import MANIFEST, write_stage

TASK = toy_task(access="credentialed")
FEW = ["--set", "max_steps=2"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write gold and synthetic rows of a credentialed task, rows of another one, an encoder and a model of pictures."""
    place = tmp_path_factory.mktemp("work")
    gold = toy_rows(60, 1, TASK)
    splits = DatasetDict(train=gold, test=toy_rows(20, 2, TASK))
    write_stage(TASK, splits, place / "gold", stage="gold")
    rows = generated(TASK, toy_rows(30, 3, TASK), seed_ids=[[gold["id"][i % 5]] for i in range(30)])
    write_stage(TASK, rows, place / "synthetic", stage="generate", seed=0, gold_rows=60)
    write_stage(ASKED, asked_gold(8), place / "other", stage="generate")
    tiny_base(place / "encoder")
    transformers.CLIPVisionConfig().save_pretrained(place / "vision")
    (place / "thesis").mkdir()
    (place / "thesis" / "chapter.txt").write_text("mine")
    return place


def forbidden(what: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{what} came before the checks")

    return call


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything dear fail: reading gold and rows, asking, training."""
    import hf_synth

    for name in ("load_gold", "generate", "train", "evaluate", "LLM"):
        monkeypatch.setattr(hf_synth, name, forbidden(name), raising=False)
    monkeypatch.setattr("hf_synth.gold.adoption.read_dataset", forbidden("read_dataset"))
    monkeypatch.setattr("hf_synth.demo.encoder.make_encoder", forbidden("make_encoder"))


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """Run a verb that must fail; return its sentence."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-synth:")]
    assert len(lines) == 1
    return lines[0]


def verbs(work: Path, rows: Path | str, gold: Path | str) -> dict[str, list[Any]]:
    task = work / "gold"
    return {
        "train": ["train", task, rows],
        "correct": ["correct", task, rows, "--gold", gold],
        "regenerate": ["regenerate", task, rows, "--gold", gold, "--llm", "simulator"],
        "run": ["run", task, "--synthetic", rows, "--gold", gold],
        "augment": ["augment", task, rows, "--gold", gold],
        "sample": ["sample", task, rows],
        "experiment": ["experiment", task, "--synthetic", rows, "--gold", gold],
        "audit": ["audit", task, rows, "--gold", gold],
    }


TRAINING = ("train", "correct", "regenerate", "run")


@pytest.mark.usefixtures("dear")
@pytest.mark.parametrize("verb", TRAINING)
def test_training_options_are_checked_first(verb: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*verbs(work, work / "synthetic", work / "gold")[verb], "--out", work / "new"]
    model = ["--base-model", work / "encoder"]
    faults = {
        "unexpected keyword argument 'learning_rte'": [*model, "--set", "learning_rte=1"],
        "training arguments": [*model, "--set", "warmup_steps=true", "--set", "eval_strategy=sometimes"],
        "NAME=VALUE": [*model, "--set", "3e-5"],
        "no model folder": ["--base-model", work / "nowhere"],
        "needs an encoder": ["--base-model", work / "vision"],
        "holds no config.json": ["--base-model", work / "gold"],
        "name the base model": [],
        "fp16 has no effect": [*model, "--set", "fp16=true"],
        "chapter.txt is a file": [*model, "--cache", work / "thesis" / "chapter.txt"],
    }
    for problem, options in faults.items():
        assert problem in said(capsys, *words, *options)
    assert not (work / "new").exists()
    text = ["train", work / "other", work / "other", "--out", work / "new", *model]
    assert "needs a sequence-to-sequence model" in said(capsys, *text)


@pytest.mark.usefixtures("dear")
@pytest.mark.parametrize("verb", verbs(Path(), "", ""))
def test_folders_are_checked_first(verb: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--base-model", work / "encoder"] if verb in TRAINING else []
    new = work / ("new.csv" if verb == "sample" else "new")
    of_other = said(capsys, *verbs(work, work / "other", work / "gold")[verb], *model, "--out", new)
    assert f"{work / 'other'} is of task 'drugs', not 'toy'" in of_other
    assert "is no file or folder" in said(
        capsys, *verbs(work, work / "nothing", work / "gold")[verb], *model, "--out", new
    )
    taken = work / "thesis" / ("chapter.txt" if verb in ("run", "experiment") else "" if verb != "sample" else ".")
    problem = {"run": "is a file", "experiment": "is a file", "sample": "is a folder"}.get(
        verb, "not an earlier output"
    )
    words = verbs(work, work / "synthetic", work / "gold")[verb]
    assert problem in said(capsys, *words, *model, "--out", taken)
    blocked = work / "thesis" / "chapter.txt" / "deeper"
    assert "Not a directory" in said(capsys, *words, *model, "--out", blocked)
    assert sorted(p.name for p in (work / "thesis").iterdir()) == ["chapter.txt"]


@pytest.mark.usefixtures("dear")
@pytest.mark.parametrize(
    ("verb", "out"),
    [
        (["generate", "gold", "--llm", "simulator"], "gold"),
        (["generate", "toy", "--gold", "gold", "--llm", "simulator"], "gold"),
        (["correct", "gold", "synthetic", "--method", "none"], "synthetic"),
        (["augment", "gold", "synthetic"], "gold"),
        (["augment", "gold", "synthetic"], "../work/synthetic"),
        (["audit", "gold", "synthetic"], "synthetic"),
        (["audit", "gold", "synthetic", "--model", "encoder"], "encoder"),
        (["train", "gold", "gold", "--base-model", "encoder"], "encoder"),
        (["sample", "gold", "pool.csv", "--n", "4"], "pool.csv"),
    ],
)
@pytest.mark.usefixtures("dear")
def test_no_output_replaces_what_is_read(
    verb: list[str],
    out: str,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "work"
    shutil.copytree(work, place)
    monkeypatch.chdir(place)
    (place / "pool.csv").write_text("text,llm_label\nA note.,mild\n")
    (place / "encoder" / MANIFEST).write_text('{"stage": "encoder"}')
    if verb[1] == "toy":
        monkeypatch.setattr("hf_synth.load_task", lambda name: TASK)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert main([*verb, "--out", out]) == 1
    assert "which is read here: name another one" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_notes_that_may_not_be_sent_are_refused_before_they_are_read(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = ["--base-url", "https://api.openai.com/v1", "--out", work / "new"]
    for words in (
        ["generate", work / "gold", "--llm", "m"],
        ["correct", work / "gold", work / "synthetic", "--judge", "m"],
        ["label", work / "gold", work / "synthetic", "--llm", "m"],
        ["experiment", work / "gold", "--llm", "m"],
    ):
        assert "credentialed notes may not be sent there" in said(capsys, *words, *outside), words
        assert "give the endpoint" in said(capsys, *words, "--out", work / "new"), words


@pytest.mark.usefixtures("dear")
def test_a_trained_model_is_checked_first(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no weights" in said(capsys, "evaluate", work / "gold", work / "encoder", "--gold", work / "gold")
    words = ["correct", work / "gold", work / "synthetic", "--corrector", work / "encoder", "--out", work / "new"]
    assert "holds no weights" in said(capsys, *words)


def test_columns_are_checked_before_a_model_is_made(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_synth.demo.encoder.make_encoder", forbidden("make_encoder"))
    table = tmp_path / "rows.csv"
    table.write_text("message,label\nsore,mild\n")
    words = ["train", work / "gold", table, "--base-model", "tiny", "--out", tmp_path / "m"]
    assert "has no column 'text'" in said(capsys, *words)
    monkeypatch.setattr("hf_synth.cli.training.check_verb", lambda *_, **__: None)
    monkeypatch.setattr("hf_synth.evaluation.evaluation.predict", forbidden("predict"))
    words = ["evaluate", work / "gold", "m", "--gold", work / "gold", "--subgroups", "--subgroup-column", "ward"]
    assert "has no column 'ward'" in said(capsys, *words)


# --- base models ------------------------------------------------------------------------------------------------------
def test_models_at_hand_are_named(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, kind in (("org--encoder", "bert"), ("org--writer", "t5"), ("org--half", "bert")):
        snapshot = tmp_path / f"models--{name}" / "snapshots" / "0"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
        if name != "org--half":
            (snapshot / "model.safetensors").touch()
    (tmp_path / "models--org--broken" / "snapshots" / "0").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("hf_synth.models.readiness.model_folder", lambda name: tmp_path)
    assert installed_models("single_label") == ["minilm", "org/encoder"]
    assert installed_models("text2text") == ["org/writer"]
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sentence = said(capsys, "train", work / "gold", work / "synthetic", "--out", tmp_path / "m")
    assert "org/encoder" in sentence
    assert "org/writer" not in sentence
    assert "'tiny' is made on the spot" in sentence


def test_a_table_of_ones_own_named_clinic_is_not_artificial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_synth.generation.generation import simulated
    from hf_synth.task.scripts import load_task
    from hf_synth.task.task import Task

    own = Task.from_columns("clinic", text_columns="text", label_column="label", labels=("a", "b"))
    write_stage(own, DatasetDict(train=toy_rows(4)), tmp_path / "gold", stage="gold")
    sentence = said(capsys, "train", tmp_path / "gold", tmp_path / "gold", "--out", tmp_path / "m")
    assert "name the base model" in sentence
    assert simulated(own, []) == ""
    assert "artificial clinic" in simulated(load_task("clinic"), [])


@pytest.mark.usefixtures("work")
def test_no_model_is_needed_where_nothing_is_trained(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_synth.demo.encoder.make_encoder", forbidden("make_encoder"))
    words = ["correct", work / "gold", work / "synthetic", "--method", "none", "--out", tmp_path / "corrected"]
    assert main([str(word) for word in words]) == 0
    assert "by none" in capsys.readouterr().out


def test_a_text_task_is_tried_with_a_tiny_model_and_without_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = DatasetDict(train=asked_gold(24), test=asked_gold(6, 1))
    write_stage(ASKED, splits, tmp_path / "gold", stage="gold")
    gold = ["--gold", tmp_path / "gold"]
    words = [
        "train",
        tmp_path / "gold",
        tmp_path / "gold",
        *gold,
        "--base-model",
        "tiny",
        *FEW,
        "--out",
        tmp_path / "m",
    ]
    assert main([str(word) for word in words]) == 0
    out, error = capsys.readouterr()
    assert TOY_NOTE in out
    assert "has no validation split (`hf-synth gold --validation .1` cuts one off)" in error
    words = ["evaluate", tmp_path / "gold", tmp_path / "m", *gold, "--out", tmp_path / "scores.json"]
    assert main([str(word) for word in words]) == 0
    assert TOY_NOTE in capsys.readouterr().out
    assert Scores.from_json(json.loads((tmp_path / "scores.json").read_text())).model["toy"] is True


def test_experiments_say_what_cannot_work_and_how_to_repair_it(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["--strategies", "gold", "augment", "--labels", "raw", "--ratios", "0.2", "--processes", "0"]
    words = ["experiment", work / "gold", "--synthetic", work / "synthetic", "--out", tmp_path / "study", *arms]
    small = [*words, "--sizes", "20", "--seeds", "1"]
    assert main([*map(str, small), "--dry-run"]) == 0
    assert "cannot work, 1 cell: OverlapError" in capsys.readouterr().out
    assert main(list(map(str, small))) == 1
    out, error = capsys.readouterr()
    assert "cannot work, 1 cell: OverlapError: synthetic rows were written from" in error
    assert error.index("cannot work") < error.index("scored")
    assert "1 of 4 cells failed" in out
    repair = out.rstrip().splitlines()[-1].partition(": hf-synth ")[2].split()
    assert repair[-4:] == ["--sizes", "60", "--seeds", "0"]
    assert main(repair) == 0
    assert "failed" not in capsys.readouterr().out.partition("->")[2]


def test_an_experiment_without_one_of_its_models_names_another_way(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment", work / "gold", "--strategies", "gold", "--sizes", "20", "--curve", "20", "--seeds", "0"]
    words += ["--processes", "0", "--out", tmp_path / "study", "--base-model"]
    assert "no model folder" in said(capsys, *words, work / "nowhere")
    assert not (tmp_path / "study").exists()
    assert main(list(map(str, [*words, "linear", work / "nowhere"]))) == 1
    out, error = capsys.readouterr()
    assert "cannot work, 1 cell: ModelError" in error
    assert "1 of 2 cells failed" in out
    assert out.rstrip().endswith("--base-model MODEL")


def test_recall_of_each_label_is_printed(work: Path, tmp_path: Path) -> None:
    from hf_synth.evaluation.evaluation import score
    from hf_synth.evaluation.recall import few_rows_text, never_found_text, recall_table

    truth = [0] * 9 + [1] * 8 + [2] * 3
    scores = score(toy_task(), [0] * 9 + [1] * 6 + [0] * 5, truth)
    assert scores.never_found == {"severe": 3}
    assert never_found_text(scores) == "severe: 0 of 3 found"
    assert scores.to_json()["never_found"] == {"severe": 3}
    assert Scores.from_json(scores.to_json()).never_found == {"severe": 3}
    never = score(toy_task(), [0] * 20, [0] * 9 + [1] * 3 + [2] * 8).never_found
    assert list(never.items()) == [("severe", 8), ("mild", 3)], "the label of most rows first"

    def cells(scores: Scores) -> dict[str, list[str]]:
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in recall_table(scores).splitlines()]
        return {line[0]: line[1:] for line in lines}

    found = cells(scores)
    assert found["mild"][0] == "6 of 8"
    assert found["mild"][1].startswith("0.750 (0.")
    assert found["severe"] == ["0 of 3", "0.000 (fewer than 5 rows)", "0.000"]
    assert few_rows_text(scores).startswith("few rows: none 9, mild 8, severe 3; with fewer than 20 rows of a label")
    assert few_rows_text(score(toy_task(), [0, 1, 2] * 20, [0, 1, 2] * 20)) == ""
    one = score(toy_task(), [0, 1], [0, 1])  # a label without a row is not missed
    assert one.never_found == {}
    assert cells(one)["severe"][:2] == ["0 of 0", "-"]


def test_a_label_that_is_never_found_is_printed(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`evaluate` with a model that knows one label only."""
    import numpy as np

    monkeypatch.setattr("hf_synth.cli.training.check_verb", lambda *_, **__: None)
    monkeypatch.setattr("hf_synth.evaluation.evaluation.predict", lambda task, model, rows: np.eye(3)[[0] * len(rows)])
    monkeypatch.setattr("hf_synth.evaluation.evaluation.weights_sha256", lambda model: "")
    monkeypatch.setattr("hf_synth.evaluation.evaluation.model_facts", lambda model: {"row_digests": []})
    words = ["evaluate", work / "gold", "m", "--gold", work / "gold", "--out", tmp_path / "s.json"]
    assert main(list(map(str, words))) == 0
    severe = sum(label == 2 for label in toy_rows(20, 2, TASK)["label"])
    assert f"severe: 0 of {severe} found" in capsys.readouterr().out
    assert json.loads((tmp_path / "s.json").read_text())["never_found"]["severe"] == severe


def test_rows_of_another_version_of_the_task_are_said(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    shutil.copytree(work / "synthetic", tmp_path / "old")
    manifest = tmp_path / "old" / "hf_synth.json"
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    for version, said in ((facts["task_version"], False), ("0.9.0", True)):
        manifest.write_text(json.dumps(facts | {"task_version": version}), encoding="utf-8")
        words = ["sample", str(work / "gold"), str(tmp_path / "old"), "--n", "6", "--out", str(tmp_path / version)]
        assert main(words) == 0
        assert (f"old is of version {version} of task" in caplog.text) == said


def test_an_output_is_no_input_and_holds_none(tmp_path: Path) -> None:
    read = tmp_path / "in" / "gold"
    read.mkdir(parents=True)
    check_not_read(tmp_path / "in", [read], within=True)
    check_not_read(tmp_path / "in" / "gold2", [read, tmp_path / "absent"])
    for out, within in ((read, True), (read, False), (tmp_path / "in", False), (read / ".." / "gold", True)):
        with pytest.raises(OutputError, match="would replace"):
            check_not_read(out, [read], within=within)
    gold = str(write_stage(toy_task(), toy_rows(6), tmp_path / "g", stage="gold"))
    args = Namespace(task=gold, out=Path(gold))
    with pytest.raises(OutputError, match="would replace"):  # such as `experiment GOLD --out GOLD`
        _check_apart(load_task(gold), args, "within", [])


def test_options_of_an_llm_that_nobody_asks_are_refused_where_they_were_typed(
    work: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["correct", work / "gold", work / "synthetic", "--method", "none", "--out", tmp_path / "c"]
    assert said(capsys, *words, "--slots", "2", "--votes=3") == (
        "hf-synth: no LLM is asked here: leave out --slots, --votes, or name the LLM"
    )
    Path("hf_synth.toml").write_text("slots = 2\n[correct]\nvotes = 3\n", encoding="utf-8")  # for other verbs, too
    assert main([str(word) for word in [*words, "-q"]]) == 0
