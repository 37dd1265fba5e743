"""Verbs under torchrun: one sentence, before anything is read or paid; of `train` one process prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny import tiny_base, toy_rows, toy_task

from hf_synth.cli.cli import VERBS, main
from hf_synth.cli.many_processes import check_one_process, silence_other_processes
from hf_synth.errors import UsageError
from hf_synth.models.record import model_facts
from hf_synth.models.training import train
from hf_synth.task.processes import Started


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_other_verbs_are_refused(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="each would do all of"):
        check_one_process(verb)
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_one_process(verb)


def test_a_verb_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["generate", "clinic", "--llm", "simulator", "--n", "3", "--out", "nowhere"]) == 2
    assert "2 processes were started" in capsys.readouterr().err


def test_the_second_process_prints_no_result_but_that_of_a_shard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_synth.cli.many_processes.started", Started)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(["tasks"]) == 0
    assert capsys.readouterr().out == ""
    with silence_other_processes(["audit", "--shard=1/2"]):
        print("shard 1/2: done")
    assert "done" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "0")
    assert main(["tasks"]) == 0
    assert "clinic" in capsys.readouterr().out


def test_a_rank_without_a_world_is_no_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`train` ended without an error, without a word, and without a model."""
    monkeypatch.setenv("RANK", "1")
    assert main(["tasks"]) == 0
    assert "clinic" in capsys.readouterr().out
    out = train(
        toy_task(), toy_rows(8), base_model=tiny_base(tmp_path), output_dir=tmp_path / "m", args={"max_steps": 1}
    )
    assert (out / "model.safetensors").is_file()


LAUNCHERS = [
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK")
]  # fmt: skip


@pytest.mark.parametrize(("size", "rank"), [*LAUNCHERS, ("WORLD_SIZE", "RANK")])
def test_a_shard_of_its_own_runs_in_each_process(size: str, rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(size, "2")
    monkeypatch.setenv(rank, "1")
    with pytest.raises(UsageError, match=rf"2 processes were started \({size}\), and each would do all of `correct`"):
        check_one_process("correct")
    for own in ("1/2", "3/4", "2/4"):
        check_one_process("correct", own)
    for other in ("0/2", "0/4", "0/1"):
        with pytest.raises(UsageError, match="not its own: others would compute it, too; give it 1/2"):
            check_one_process("correct", other)


@pytest.mark.parametrize(("size", "rank"), [*LAUNCHERS, ("WORLD_SIZE", "RANK")])
def test_processes_that_do_not_find_each_other_train_nothing(
    size: str, rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv(size, "2")
    with pytest.raises(UsageError, match=rf"2 processes were started \({size}.*each would train alone on all rows"):
        check_one_process("train")
    monkeypatch.setenv(rank, "1")
    with pytest.raises(UsageError, match="each would train alone on all rows"):
        check_one_process("train")
    if size != "WORLD_SIZE":
        monkeypatch.setenv("WORLD_SIZE", "1")  # each has a model of its own
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    check_one_process("train")


def test_a_terminal_within_a_step_of_srun_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    check_one_process("generate")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="4 processes were started"):
        check_one_process("generate")


def test_what_the_environment_has_is_blank_or_a_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.setenv("RANK", " ")
    check_one_process("train")
    check_one_process("generate")
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert main(["train", "clinic", "nowhere", "--out", "nowhere"]) == 2
    assert "WORLD_SIZE='two', which is no number of processes" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UsageError, match="RANK=2 of WORLD_SIZE=2"):
        check_one_process("train")


@pytest.mark.slow
def test_train_with_a_line_of_progress_and_validation_rows_ends(tmp_path: Path) -> None:
    """The first process alone shows progress; a loss that it gathered alone stopped the training or waited for ever."""
    assert main(["gold", "clinic", "--out", str(tmp_path / "gold"), "--quiet"]) == 0
    words = ["train", str(tmp_path / "gold"), str(tmp_path / "gold"), "--gold", str(tmp_path / "gold")]
    words += ["--base-model", str(tiny_base(tmp_path)), "--set", "num_train_epochs=2", "--set", "logging_steps=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "hf_synth.cli"]
    out = tmp_path / "model"
    done = subprocess.run(
        [*launch, *words, "--out", str(out)], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "loss" in done.stderr
    assert model_facts(out)["processes"] == 2
