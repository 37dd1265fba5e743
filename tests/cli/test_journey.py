"""Each verb ends with the next command, and `status` shows which outputs are there and which are out of date."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from argparse import Namespace
from pathlib import Path

import pytest
from support.command import run
from support.gold_files import CANARY
from support.tiny import tiny_base

import hf_synth.publishing.model_checks  # noqa: F401  # conftest then loads models back in this process
from hf_synth.cli import main
from hf_synth.cli.configured import without_configured
from hf_synth.cli.journey import Known, after_verb, command_of
from hf_synth.cli.stages import ORDER, add_facts, stages_in
from hf_synth.task.folders import read_manifest

SIZES = [f"--option=n_{split}={n}" for split, n in (("train", 40), ("validation", 8), ("test", 12))]
# what makes each step cheap; the words before are those of the `next:` line
CHEAP = {
    "generate": ["--n", "12"],
    "correct": ["--method", "none"],
    "train": ["--set", "max_steps=1", "--set", "per_device_train_batch_size=4"],
    "publish": ["--no-membership"],
}


def next_of(out: str) -> list[str]:
    """Return the words of the last line, which says what comes next, as a shell would split them."""
    last = out.splitlines()[-1]
    assert last.startswith("next: hf-synth "), last
    return shlex.split(last.removeprefix("next: hf-synth "))


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Go the whole way by typing each `next:` line; the folder has a blank in its name.

    After `gold` the line proposes `run`; here the steps are made one by one.
    """
    work = tmp_path_factory.mktemp("way") / "my work"
    base = tiny_base(work.parent / "base")
    words = ["gold", "clinic", *SIZES, "--out", str(work / "gold")]
    typed = []
    while len(typed) < 8:
        with pytest.MonkeyPatch.context() as patch:
            lines: list[str] = []
            patch.setattr("builtins.print", lambda *parts, lines=lines, **_: lines.append(" ".join(map(str, parts))))
            assert main(words) == 0, words
        verb = words[0]
        typed.append(verb)
        if verb == "publish":
            assert next_of("\n".join(lines)) == [*words, "--push"]
            break
        words = next_of("\n".join(lines))
        if verb == "gold":
            assert words == ["run", str(work / "gold"), "--llm", "simulator", "--out", str(work / "run")]
            words = ["generate", *words[1:-1], str(work / "synthetic")]
        more = CHEAP.get(words[0], [])
        words += more + (["--base-model", str(base)] if words[0] == "train" else [])
    assert tuple(typed) == ORDER
    return work


@pytest.fixture
def work(journey: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder, with its times."""
    return Path(shutil.copytree(journey, tmp_path / "work"))


def stages(folder: Path) -> dict[str, tuple[str, ...]]:
    return {stage.kind: stage.outdated for stage in add_facts(stages_in(folder))}


def test_status_of_the_whole_way(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    code, out, error = run(capsys, "status", work)
    assert code == 0, error
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "40 train, 8 validation, 12 test" in lines["gold"]
    assert "12 kept; by simulator" in lines["synthetic notes"]
    assert "12 kept; by none" in lines["corrected notes"]
    assert "40 gold, 12 synthetic" in lines["training set"]
    assert "40 gold, 12 kept; by base" in lines["model"]
    assert "on 12 rows" in lines["scores"]
    assert "not pushed" in lines["release"]
    assert "out of date" not in out
    words = next_of(out)
    assert words[0] == "publish"
    assert words[-1] == "--push"
    code, out, _ = run(capsys, "status", work, "--json")
    facts = json.loads(out.splitlines()[-1])
    assert [stage["kind"] for stage in facts["stages"]] == list(ORDER)
    assert facts["next"].endswith("--push")


def test_status_looks_one_level_up_and_down(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    for folder in (work / "corrected", work.parent):
        code, out, error = run(capsys, "status", folder)
        assert code == 0, error
        assert f"these lie in {work}" in out
    (work.parent / "empty").mkdir()
    code, _, error = run(capsys, "status", work.parent / "empty")
    assert (code, "holds no stage of a journey" in error) == (1, True)
    assert run(capsys, "status", work / "nothing")[0] == 1


def test_notes_made_anew_put_what_follows_out_of_date(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    asked = ["--llm", "simulator", "--n", "8", "--seed", "3"]
    args = ["generate", work / "gold", *asked, "--out", work / "synthetic", "-q"]
    assert run(capsys, *args)[0] == 0
    found = stages(work)
    assert found["gold"] == found["generate"] == ()
    assert found["correct"] == ("was made of earlier content of synthetic",)
    assert found["augment"] == ("was made of corrected, which is out of date",)
    assert found["train"] == ("was made of training, which is out of date",)
    assert found["evaluate"] == ("was made of model, which is out of date",)
    (work / "corrected" / "hf_synth_run.toml").unlink()  # where it is not recorded how the stage was made
    out = run(capsys, "status", work)[1]
    words = next_of(out)
    assert words[:3] == ["correct", str(work / "gold"), str(work / "synthetic")]
    assert words[-4:] == ["--seed", "3", "--out", str(work / "corrected")]
    run_config = work / "corrected" / "hf_synth_run.toml"  # its own options go before those that can be guessed
    run_config.write_text('[correct]\nmethod = "none"\n', encoding="utf-8")
    assert next_of(run(capsys, "status", work)[1]) == ["correct", "--config", str(run_config)]
    assert run(capsys, *words, *CHEAP["correct"], "-q")[0] == 0
    assert stages(work)["correct"] == ()


def test_the_same_rows_again_leave_all_as_it_is(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    """What a stage was made of is known by its content, not by the time: files that were copied are not out of date."""
    for path in work.rglob("*"):
        os.utime(path, (time.time(), time.time()))
    again = ["augment", work / "gold", work / "corrected", "--out", work / "training", "-q"]
    assert run(capsys, *again)[0] == 0
    assert not any(stages(work).values())


def test_without_notes_of_what_it_was_made_of_the_times_decide(work: Path) -> None:
    """Folders of earlier versions, and of the Python API."""
    for name in ("synthetic", "corrected", "training"):
        file = work / name / "hf_synth.json"
        facts = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({k: v for k, v in facts.items() if k not in ("made_of", "ran_with")}))
    now = time.time()
    for place, name in enumerate(("gold", "synthetic", "corrected", "training", "model")):
        os.utime(work / name / "hf_synth.json", (now - 10_000 + place, now - 10_000 + place))
    os.utime(work / "scores.json", (now, now))
    assert not any(stages(work).values())
    os.utime(work / "synthetic" / "hf_synth.json", (now - 50, now - 50))
    assert stages(work)["correct"] == ("is older than synthetic",)


def test_what_a_person_edited_is_said(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    import datasets

    file = work / "synthetic" / "train.parquet"
    rows = datasets.Dataset.from_parquet(str(file), keep_in_memory=True)
    rows.select(range(6)).to_parquet(file)
    weights = work / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    out = run(capsys, "status", work)[1]
    assert "edited by hand: train.parquet" in out
    assert "edited by hand: its weights" in out
    assert stages(work)["correct"] == ("was made of earlier content of synthetic",)


def test_other_tasks_and_versions_are_said(work: Path) -> None:
    for name, change in (("training", {"task": "other"}), ("synthetic", {"task_version": "0.1.0"})):
        file = work / name / "hf_synth.json"
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change))
    found = stages(work)
    assert found["augment"] == ("is of task other, while the gold here is of clinic",)
    assert found["generate"] == ("is of version 0.1.0 of task clinic, which is now at 1.0.0",)


def test_what_cannot_be_read_is_no_stage(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    for name, text in (
        ("broken", "{"),
        ("list", "[1]"),
        ("deep", "[" * 100_000),
        ("odd", '{"stage": ["x"], "task": 3}'),
    ):
        (work / name).mkdir()
        (work / name / "hf_synth.json").write_text(text)
    (work / "notes.json").write_text(json.dumps({"task": CANARY, "n": [], "values": [], "per_class": 0}))
    (work / "corrected" / "train.parquet").write_bytes(b"no parquet")
    (work / "export" / "file").write_text("x")
    code, out, error = run(capsys, "status", work)
    assert code == 0, error
    assert "rows that cannot be read" in out


def test_a_folder_of_somebody_else_leads_nobody_astray(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A task that is a path would be run as a script, by `status` or by the command that it prints."""
    script = tmp_path / "evil.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nTASKS = {{}}\n")
    folder = tmp_path / "work" / "synthetic"
    folder.mkdir(parents=True)
    ran = {"base_url": "http://notes.example.org/v1", "llm": ["m"], "seed": "$(x)", "base_model": "b; rm -rf ."}
    for task in (str(script), "clinic"):
        facts = {
            "stage": "generate",
            "task": task,
            "task_version": "1.0.0",
            "policy": "x",
            "rows": [1],
            "ran_with": ran,
        }
        (folder / "hf_synth.json").write_text(json.dumps(facts))
        code, out, error = run(capsys, "status", folder.parent)
        assert code == 0, error
        assert "evil.py" not in out
        assert "example.org" not in out
        assert not (tmp_path / "ran").exists()
    assert "--base-model 'b; rm -rf .'" in out
    scores = {"task": "clinic", "n": 1, "values": {"macro_f1": "x"}, "per_class": {}}
    (folder.parent / "scores.json").write_text(json.dumps(scores))
    assert "figures that cannot be read" in run(capsys, "status", folder.parent)[1]


def test_no_next_line_where_none_is_wanted(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    again = ["augment", work / "gold", work / "corrected", "--out", work / "training"]
    assert "next:" in run(capsys, *again)[1]
    assert "next:" not in run(capsys, *again, "-q")[1]
    out = run(capsys, *again, "--json")[1]
    assert "next:" not in out
    assert json.loads(out.splitlines()[-1])["rows"] == {"gold": 40, "synthetic": 12}
    dry = ["generate", work / "gold", "--llm", "simulator", "--dry-run"]
    assert "next:" not in run(capsys, *dry)[1]


def test_a_sample_leads_to_the_correction_with_it(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    code, out, error = run(capsys, "sample", work / "gold", work / "synthetic", "--n", "8")
    assert code == 0, error
    words = next_of(out)
    sample = work / "synthetic" / ".hf_synth" / "audit_sample.csv"
    assert words[:3] == ["correct", str(work / "gold"), str(work / "synthetic")]
    assert words[-2:] == ["--audited", str(sample)]
    assert sample.is_file()


def test_a_folder_that_is_something_else_is_not_proposed(tmp_path: Path) -> None:
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "thesis.txt").write_text("mine")
    known = Known("clinic", tmp_path, {})
    assert command_of("generate", known)[-1] == str(tmp_path / "synthetic_2")
    (tmp_path / "scores.json").write_text("{}")
    assert command_of("evaluate", known)[-1] == str(tmp_path / "scores_2.json")


def test_a_promise_is_gone_on_with_by_its_file() -> None:
    argv = ["correct", "t", "syn", "--error", "0.05", "--audited", "old.csv", "--out", "c"]
    args = Namespace(verb="correct", argv=argv, out=Path("c"))
    assert after_verb(args, {"file": "c/.hf_synth/look_at_2.csv"}) == (
        "hf-synth correct t syn --error 0.05 --out c --audited c/.hf_synth/look_at_2.csv"
    )
    publish = Namespace(verb="publish", argv=["publish", "t", "model", "--repo-id", "a/b"], push=False, out=None)
    assert after_verb(publish, {}) == "hf-synth publish t model --repo-id a/b --push"
    publish.push = True
    assert after_verb(publish, {"url": "http://x"}) is None


def test_a_path_that_looks_like_an_option_is_none() -> None:
    known = Known("-x", Path(), {"generate": Path("-y z")}, given={"base_model": "m"})
    assert command_of("correct", known)[2:4] == ["./-x", "./-y z"]


def test_what_the_configuration_gives_is_left_out() -> None:
    values = {
        "task": "work/gold", "llm": "m", "base-url": "http://127.0.0.1:9/v1", "base-model": "minilm",
        "generate": {"out": "work/synthetic"}, "correct": {"synthetic": "work/synthetic", "out": "work/corrected"},
        "train": {"data": "work/training", "gold": "work/gold", "out": "work/model", "base-model": "tiny"},
        "publish": {"folder": "work/model", "repo-id": "ward/notes", "out": "work/export/notes"},
    }  # fmt: skip
    known = Known("work/gold", Path("work"), {"train": Path("work/model")}, configured=values)
    short = {verb: without_configured(command_of(verb, known), values) for verb in ("generate", "correct", "publish")}
    assert short == {verb: ["hf-synth", verb] for verb in short}
    other = Known("clinic", Path("work"), {}, Path("work/gold"), {"llm": "n", "gold_size": 9}, values)
    assert without_configured(command_of("generate", other), values) == [
        "hf-synth", "generate", "clinic", "--gold", "work/gold", "--gold-size", "9", "--llm", "n",
    ]  # fmt: skip


def test_a_configuration_of_the_folder_makes_the_next_command_short(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work.parent)
    Path("hf_synth.toml").write_text(
        'task = "work/gold"\n[train]\ndata = "work/training"\ngold = "work/gold"\nout = "work/model"\n',
        encoding="utf-8",
    )
    words = {"task": "work/gold", "gold": None, "synthetic": Path("work/corrected"), "out": Path("work/training")}
    args = Namespace(verb="augment", seed=0, config=None, no_config=False, argv=["augment"], **words)
    assert after_verb(args, {}) == "hf-synth train"
    args.no_config = True
    assert after_verb(args, {}) == "hf-synth train work/gold work/training --gold work/gold --out work/model"
    args.no_config, args.config = False, "other.toml"
    shutil.copy("hf_synth.toml", "other.toml")
    assert after_verb(args, {}) == "hf-synth train --config other.toml"


def test_what_is_noted_holds_no_path_and_no_text(work: Path) -> None:
    facts = read_manifest(work / "corrected") or {}
    assert set(facts["made_of"]) == {"gold", "generate"}
    assert all(len(digest) == 32 for digest in facts["made_of"].values())
    assert str(work.parent) not in json.dumps(facts)
    exported = json.loads((work / "export" / "clinic-model" / "hf_synth.json").read_text(encoding="utf-8"))
    assert not {"made_of", "ran_with"} & set(exported)
