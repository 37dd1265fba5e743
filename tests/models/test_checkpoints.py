"""A training that is killed goes on where it was, bit by bit; several processes train one model."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import TINY_ARGS, tiny_base, toy_rows, toy_task

from hf_synth.errors import HfSynthError, OutputError
from hf_synth.models.arguments import training_arguments
from hf_synth.models.checkpoints import checkpoint_folder, last_checkpoint
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import model_facts, weights_sha256
from hf_synth.models.training import train

CODE = """
import sys; sys.path.insert(0, sys.argv[1])
import json, logging
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stderr)
from support.tiny import *
from hf_synth.models.training import train
options = json.loads(sys.argv[4])
if die_at := options.pop("die_at", 0):
    import os, signal, torch
    step, steps = torch.optim.AdamW.step, []
    def counted(*args, **more):
        steps.append(1)
        if len(steps) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **more)
    torch.optim.AdamW.step = counted
rows, held = toy_rows(options.pop("rows")), toy_rows(40, seed=6) if options.pop("validated") else None
train(toy_task(), rows, held, base_model=sys.argv[2], output_dir=sys.argv[3], **options)
"""


def dropout_base(folder: Path) -> Path:
    """Make the tiny encoder with dropout, so that random numbers matter in every step."""
    base = tiny_base(folder)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.2}))
    return base


def run(base: Path, out: Path, **options: Any) -> str:
    """Train in a process of its own, which kills itself before step `die_at`; give what it logged."""
    told = json.dumps({"rows": 160, "validated": False, **options})
    command = [sys.executable, "-c", CODE, str(Path(__file__).parent.parent), str(base), str(out), told]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == (-signal.SIGKILL if "die_at" in options else 0), done.stderr
    return done.stderr


@pytest.mark.parametrize("validated", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, validated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    base = dropout_base(tmp_path / "base")
    args = TINY_ARGS | {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 3e-3}
    rows, held, out = toy_rows(160), toy_rows(40, seed=6) if validated else None, tmp_path / "killed" / "m"
    run(base, out, die_at=33, args=args, resume=7, validated=validated, seed=3)  # 20 steps an epoch
    assert not out.exists()
    (work,) = out.parent.glob(".hf_synth/training/m-*")
    assert stat.S_IMODE(work.stat().st_mode) == stat.S_IMODE(work.parent.parent.stat().st_mode) == 0o700
    caplog.set_level("INFO")
    train(toy_task(), rows, held, base_model=base, output_dir=out, args=args, seed=3, resume=7)
    assert "resuming the training from step 28" in caplog.text
    # and neither being stopped nor keeping checkpoints changes anything of what is learnt
    whole = train(toy_task(), rows, held, base_model=base, output_dir=tmp_path / "whole", args=args, seed=3)
    assert weights_sha256(out) == weights_sha256(whole)
    assert model_facts(out)["epochs"] == model_facts(whole)["epochs"]
    assert model_facts(out)["best_validation"] == model_facts(whole)["best_validation"]
    assert [p.name for p in out.parent.iterdir() if not p.name.startswith(".m-")] == ["m"]


def test_another_call_does_not_go_on_from_it(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    args = TINY_ARGS | {"num_train_epochs": 1, "per_device_train_batch_size": 8}
    out = tmp_path / "m"
    step, steps = torch.optim.AdamW.step, iter(range(1, 12))

    def interrupted(*given: Any, **more: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(*given, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        train(toy_task(), toy_rows(160), base_model=base, output_dir=out, args=args, resume=5, seed=1)
    assert len(list(tmp_path.glob(".hf_synth/training/m-*/checkpoint-10"))) == 1
    caplog.set_level("INFO")
    train(toy_task(), toy_rows(160), base_model=base, output_dir=out, args=args, resume=5, seed=2)
    assert "going on" not in caplog.text
    assert not (tmp_path / ".hf_synth").exists()  # what the other call left is gone, too


def test_a_half_written_checkpoint_is_left_out(tmp_path: Path) -> None:
    for name, state in (
        ("checkpoint-5", "{}"),
        ("checkpoint-10", "{}"),
        ("checkpoint-15", '{"ep'),
        ("checkpoint-20", None),
    ):
        (tmp_path / name).mkdir()
        if state is not None:
            (tmp_path / name / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()


def test_two_trainings_of_one_model_do_not_meet(tmp_path: Path) -> None:
    place = (tmp_path / "m", "0" * 16)
    with checkpoint_folder(*place), pytest.raises(OutputError, match="another process"), checkpoint_folder(*place):
        pass


def test_a_call_that_cannot_begin_leaves_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(HfSynthError, match="learning_rat"):
        train(
            toy_task(), toy_rows(4), base_model=base, output_dir=tmp_path / "m", args={"learning_rat": 1}, resume=True
        )
    assert list(tmp_path.iterdir()) == []


def test_own_arguments_are_not_resumed(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    own = TrainingArguments(output_dir=str(tmp_path / "own"), report_to="none")
    with pytest.raises(HfSynthError, match="as a dict"):
        train(toy_task(), toy_rows(4), base_model=tmp_path, output_dir=tmp_path / "m", args=own, resume=True)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(base: Path, tmp_path: Path) -> None:
    """By plain gradients, whose size counts: AdamW would hide a loss that is divided by the wrong number of rows."""
    args = {
        "learning_rate": 0.3, "optim": "sgd", "num_train_epochs": 3, "per_device_train_batch_size": 8,
        "warmup_steps": 0,
        "train_sampling_strategy": "sequential", "dataloader_pin_memory": False,
    }  # fmt: skip
    alone = args | {"per_device_train_batch_size": 16}
    train(toy_task(), toy_rows(64), base_model=base, output_dir=tmp_path / "one", args=alone)
    script = tmp_path / "two.py"
    script.write_text(CODE)
    told = json.dumps({"rows": 64, "validated": False, "args": args})
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(script), str(Path(__file__).parent.parent), str(base), str(tmp_path / "two"), told]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # nothing but what torchrun sets is needed
    environment.pop("ACCELERATE_USE_CPU", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    assert model_facts(tmp_path / "two")["processes"] == 2
    test = toy_rows(30, seed=3)
    one, two = (predict_proba(toy_task(), tmp_path / name, test) for name in ("one", "two"))
    assert one == pytest.approx(two, abs=1e-5)
    assert not np.allclose(one, one[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two", "two.py"]


IN_FOLDS = """
import sys; sys.path.insert(0, sys.argv[1])
import json, os
from pathlib import Path
from support.kinds import ASKED, T5_ARGS, asked_gold, tiny_t5
from support.tiny import TINY_ARGS, tiny_base, toy_rows, toy_task
from hf_synth.models.training import trainer_fit
folder, rank = Path(sys.argv[2]), os.environ.get("RANK", "0")
bert, t5 = tiny_base(folder / f"bert{rank}"), tiny_t5(folder / f"t5{rank}")
said = []
fit = trainer_fit(toy_task(), base_model=bert, args=TINY_ARGS, work_dir=folder / "folds")
said.append(fit(toy_rows(32))(toy_rows(8, seed=3)).tolist())
writer = trainer_fit(ASKED, base_model=t5, args=T5_ARGS | {"num_train_epochs": 1}, work_dir=folder / "folds")
said.append(list(writer(asked_gold(24))(asked_gold(4, seed=2))))
(folder / f"said{rank}.json").write_text(json.dumps(said))
"""


@pytest.mark.slow
def test_two_processes_train_folds_and_answer_alike(tmp_path: Path) -> None:
    script = tmp_path / "folds.py"
    script.write_text(IN_FOLDS)
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(script), str(Path(__file__).parent.parent), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    of_first, of_second = (json.loads((tmp_path / f"said{rank}.json").read_text()) for rank in range(2))
    assert of_first == of_second
    assert len(of_first[0]) == 8
    assert not list((tmp_path / "folds").glob("fold-*"))


def test_processes_that_would_train_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would learn from all rows by itself, and the last one's model would stay."""
    monkeypatch.setattr("hf_synth.models.training.joined_processes", lambda: 2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")  # set by `train`, here for this test alone
    with pytest.raises(HfSynthError, match="2 processes were started, and 1 of them"):
        train(toy_task(), toy_rows(16), base_model=tiny_base(tmp_path / "b"), output_dir=tmp_path / "m", args={})
    assert not (tmp_path / "m").exists()


def test_processes_that_train_together_all_take_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun only the first shows progress; the loss is gathered from all, so that it waited for ever alone."""
    found: list[dict[str, Any]] = []

    class Recorded:
        def __init__(self, **fields: Any) -> None:
            found.append(fields)
            raise ValueError("enough")

    monkeypatch.setattr("transformers.TrainingArguments", Recorded)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    for progress in (True, False):
        with pytest.raises(HfSynthError, match="enough"):
            training_arguments({}, tmp_path, 24, True, 0, progress, processes=2)
    assert found[0] == found[1]
    assert found[0]["logging_strategy"] == "steps"
