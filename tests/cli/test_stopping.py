"""Ctrl-C, a real SIGINT to a child process: exit code 130, and a message that says what is kept and how to go on."""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import types
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.llm_server import Said, entries, serving

import hf_synth
import hf_synth.cli
from hf_synth.cli import main
from hf_synth.cli.cli import VERBS, verb_parser
from hf_synth.cli.config import is_secret, without_secrets
from hf_synth.cli.ctrl_c import STOPPING, answered_at_once
from hf_synth.cli.journey import after_verb
from hf_synth.cli.parsing import Parser, options_of, verbs_of
from hf_synth.cli.stopping import command
from hf_synth.llm.journal import Journal

ROWS = ["--n", "400", "--gold-size", "20", "--concurrency", "1"]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear SIGINT, which a shell has its background jobs ignore; children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def child(folder: Path, *words: str | Path) -> subprocess.Popen[str]:
    """Start a verb in a folder, in a session of its own as a shell would."""
    argv = [sys.executable, "-m", "hf_synth.cli", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    how: dict[str, Any] = {"cwd": folder, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "start_new_session": True}
    return subprocess.Popen(argv, **how, **pipes)


def stop(process: subprocess.Popen[str], ready: Callable[[], bool], seconds: float = 240) -> str:
    """Send SIGINT to all processes of a child, as a terminal does, once it is ready; return the last line it wrote."""
    end = time.monotonic() + seconds
    try:
        while not ready():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "it never came so far"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    return told.strip().splitlines()[-1]


def some_then_late(some: int) -> Callable[[dict[str, Any], int], Said]:
    """Answer the first requests, and the others a second later."""
    return lambda sent, number: Said(entries(sent), delay=0.0 if number < some else 1.0)


def answers(journal: Path) -> int:
    with Journal(journal, read_only=True) as opened:
        return len(opened)


def test_generate_keeps_its_answers_and_goes_on(tmp_path: Path) -> None:
    with serving(some_then_late(5)) as server:
        words = ["generate", "clinic", "--llm", "m", "--base-url", server.url, *ROWS, "--out", "o"]
        told = stop(child(tmp_path, *words), lambda: len(server.requests) > 5)
    journal = Path(".hf_synth") / "journal.sqlite"
    assert answers(tmp_path / journal) == len(server.requests) == 6, "what was under way is kept"
    assert told == f"hf-synth: stopped; 6 answers kept in {journal}; run the same command again to go on"
    assert not (tmp_path / "o").exists()


# --- the same in this process: the signal is real, the verb is cheap -------------------------------------------------
def interrupted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a function of hf_synth be stopped by Ctrl-C."""

    def press(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(hf_synth, name, press)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_label_says_how_many_new_answers_are_kept(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    number_of = getattr(signal, name)
    if name != "SIGINT":
        request.addfinalizer(partial(signal.signal, number_of, signal.getsignal(number_of)))
        signal.signal(number_of, signal.SIG_DFL)  # a test run under nohup ignores SIGHUP, and so do its commands
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.csv").write_text(
        "text\n" + "".join(f"note {i} says little\n" for i in range(9)), encoding="utf-8"
    )

    def answer(_: dict[str, Any], number: int) -> Said:
        if number == 3 and not went_on:
            os.kill(os.getpid(), number_of)
            return Said('{"label": "grade_0"}', delay=0.4)
        return Said('{"label": "grade_0"}')

    went_on: list[bool] = []
    with serving(answer) as server:
        words = ["label", "clinic", "notes.csv", "--llm", "m", "--base-url", server.url, "--votes", "1"]
        words += ["--concurrency", "1", "--access", "open", "--out", "o"]
        assert main(words) == 128 + number_of
        last = capsys.readouterr().err.strip().splitlines()[-1]
        kept = answers(tmp_path / ".hf_synth" / "journal.sqlite")
        assert kept == 4, "the answer that was under way, too"
        assert last.startswith("hf-synth: stopped; 4 answers kept in ")
        assert last.endswith("journal.sqlite; run the same command again to go on")
        went_on.append(True)
        asked = len(server.requests)
        assert main([*words, "-q"]) == 0
        assert len(server.requests) - asked == 9 - kept, "the same command asks only for the others"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_train_says_that_nothing_was_kept_and_how_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], open_rows: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupted(monkeypatch, "train")
    for name in ("options.base_model", "training.check_verb"):
        monkeypatch.setattr(f"hf_synth.cli.{name}", lambda *_, **__: "")
    words = ["train", "clinic", str(open_rows), "--base-model", "tiny", "--out", "my model"]
    assert main([*words, "-q"]) == 130
    told = capsys.readouterr().err
    assert "nothing was kept; with --resume a training keeps checkpoints: hf-synth train clinic" in told
    assert told.rstrip().endswith("--out 'my model' -q --resume")
    assert main([*words, "--resume", "-q"]) == 130
    assert "nothing was kept, since the first checkpoint comes after 500 steps" in capsys.readouterr().err
    state = tmp_path / ".hf_synth" / "training" / f"my model-{'a' * 16}" / "checkpoint-1500" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}", encoding="utf-8")
    assert main([*words, "--resume", "-q"]) == 130
    assert "the checkpoint of step 1,500 is kept; run the same command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["audit", "evaluate"])
def test_a_verb_that_keeps_nothing_says_so(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], open_rows: Path
) -> None:
    monkeypatch.setattr(hf_synth, "load_task", lambda _: signal.raise_signal(signal.SIGINT))
    assert main([verb, "clinic", str(open_rows), "-q"]) == 130
    assert capsys.readouterr().err == f"{STOPPING}\nhf-synth: stopped; nothing was kept; run the same command again\n"


def test_publish_says_whether_anything_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], open_rows: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["publish", "clinic", str(open_rows), "--repo-id", "ward/notes", "--push", "--yes", "-q"]
    interrupted(monkeypatch, "publish_dataset")
    assert main(words) == 130
    assert capsys.readouterr().err == f"{STOPPING}\nhf-synth: stopped; nothing was sent; run the same command again\n"

    def push(*_: object, **how: Any) -> None:
        assert how["confirm"](SimpleNamespace(changes=""))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(hf_synth, "publish_dataset", push)
    assert main(words) == 130
    assert "ward/notes may hold the files already, without a tag" in capsys.readouterr().err


@pytest.fixture(scope="module")
def open_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of a few rows of the artificial clinic."""
    from support.clinic_rows import clinic_gold

    from hf_synth.task.folders import write_stage

    task = hf_synth.load_task("clinic")
    return write_stage(task, clinic_gold(task, [0, 1, 2] * 4), tmp_path_factory.mktemp("rows") / "gold", stage="gold")


def test_a_token_is_no_part_of_the_command_that_goes_on() -> None:
    argv = ["publish", "clinic", "a b", "--token", "hf_secret", "--yes", "--token=hf_secret"]
    assert command(Namespace(argv=argv), "--resume") == "hf-synth publish clinic 'a b' --yes --resume"


def leaves(parser: Parser) -> Iterator[Parser]:
    below = verbs_of(parser)
    for verb in below.values():
        yield from leaves(verb)
    if not below:
        yield parser


def test_no_printed_command_repeats_a_secret_of_any_verb() -> None:
    secrets = 0
    for name in VERBS:
        for parser in leaves(verb_parser(name)):
            for action in options_of(parser):
                if action.nargs == 0 or action.choices is not None:
                    continue
                option = next(o for o in action.option_strings if o.startswith("--"))
                for value in ("http://u:geheim@h/v1", "hf_geheimgeheimgeheimgeheim", "sk-geheimgeheimgeheim", "geheim"):
                    secret = is_secret(option[2:], value)
                    secrets += secret and value == "geheim"
                    for typed in ([option, value], [f"{option}={value}"]):
                        kept = without_secrets(["verb", "a b", *typed, "--quiet", "rest"])
                        assert kept == ["verb", "a b", *([] if secret else typed), "--quiet", "rest"], typed
    assert secrets >= 2, "publish and withdraw have --token"


def test_next_lines_leave_secrets_out() -> None:
    argv = ["publish", "clinic", "notes", "--token", "hf_secret", "--repo-id", "a/b"]
    args = Namespace(argv=argv, verb="publish", push=False)
    assert after_verb(args, {"url": None}) == "hf-synth publish clinic notes --repo-id a/b --push"
    argv = ["correct", "clinic", "n", "--base-url=http://u:secret@h/v1", "--audited", "old", "--error", ".1"]
    done = after_verb(Namespace(argv=argv, verb="correct"), {"file": "f.csv"})
    assert done == "hf-synth correct clinic n --error .1 --audited f.csv"


def test_the_line_comes_while_the_main_thread_is_busy(capsys: pytest.CaptureFixture[str]) -> None:
    """A handler in Python would wait for the end of a long computation outside of Python; the line does not."""
    seen: list[str] = []
    ended: list[float] = []

    def press() -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        seen.append(capsys.readouterr().err)
        ended.append(time.monotonic())

    presser = threading.Thread(target=press)
    with pytest.raises(KeyboardInterrupt), answered_at_once():
        presser.start()
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 4_000_000)  # one call, which lets other threads run
    stopped = time.monotonic()
    presser.join()
    assert ended[0] < stopped, "the call must outlast the look at the line"
    assert seen == [f"{STOPPING}\n"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with answered_at_once(False):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_the_usual_ctrl_c() -> None:
    with answered_at_once():
        if (child := os.fork()) == 0:
            usual = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
            os._exit(usual == (signal.default_int_handler, signal.SIG_DFL, -1))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_a_second_ctrl_c_ends_at_once_and_a_repeated_signal_is_none() -> None:
    program = (
        "import os, signal, time\n"
        "from hf_synth.cli.ctrl_c import answered_at_once\n"
        "with answered_at_once():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(20)\n"
        "    except KeyboardInterrupt:\n"
        "        print('cleaning up', flush=True)\n"
        "        for wait, again in ((0.05, signal.SIGINT), (0.8, signal.SIGTERM), (0.1, signal.SIGINT)):\n"
        "            time.sleep(wait)\n"
        "            print('still', flush=True)\n"
        "            os.kill(os.getpid(), again)\n"
        "        time.sleep(20)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr == f"{STOPPING}\nhf-synth: stopped\n"
    assert done.stdout == "cleaning up\nstill\nstill\nstill\n"
    assert time.monotonic() - began < 19


# --- heavier verbs, in a child process -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    sizes = [f"--option=n_{split}={n}" for split, n in (("train", 60), ("validation", 20), ("test", 30))]
    assert main(["gold", "clinic", *sizes, "--out", str(folder / "gold"), "-q"]) == 0
    words = ["generate", "clinic", "--gold", folder / "gold", "--llm", "simulator", "--n", "30", "-q"]
    assert main([str(word) for word in [*words, "--out", folder / "synthetic"]]) == 0
    return folder


@pytest.mark.slow
def test_train_correct_and_run_stop_at_once(clinic: Path) -> None:
    long = ["--base-model", "tiny", "--set", "num_train_epochs=5000"]

    def seconds_after(sign: str) -> Callable[[], bool]:
        return lambda: any(clinic.glob(sign)) and time.sleep(8) is None

    for folder in ("one", "two"):
        (clinic / folder).mkdir()
    train = child(clinic, "train", "clinic", "gold", *long, "--out", "one/model")
    assert "nothing was kept; with --resume" in stop(train, seconds_after("one/.hf_synth/tiny-*/config.json"))
    correct = child(clinic, "correct", "clinic", "synthetic", "--gold", "gold", *long, "--out", "two/corrected")
    assert "nothing was kept" in stop(correct, seconds_after("two/.hf_synth/tiny-*/config.json"))
    words = ["run", "clinic", "--gold", "gold", "--synthetic", "synthetic", *long, "--out", "three"]
    assert "nothing was kept" in stop(child(clinic, *words), seconds_after("three/synthetic/hf_synth.json"))


@pytest.mark.slow
def test_a_resumable_training_names_its_checkpoint_and_goes_on(clinic: Path) -> None:
    words = ["train", "clinic", "gold", "--base-model", "tiny", "--set", "max_steps=1200", "--resume"]
    words += ["--set", "per_device_train_batch_size=2", "--out", "four/model"]
    (clinic / "four").mkdir()
    home = clinic / "four" / ".hf_synth" / "training"
    told = stop(child(clinic, *words), lambda: any(home.glob("*/checkpoint-500/trainer_state.json")))
    assert "the checkpoint of step 500 is kept; run the same command again to go on" in told
    process = child(clinic, *words)
    assert "resuming the training from step 500" in process.communicate(timeout=300)[1]
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "1", "2"])
def test_an_experiment_counts_its_cells(processes: str, clinic: Path) -> None:
    words = ["experiment", "clinic", "--gold", "gold", "--sizes", "20", "40", "--seeds", "0", "1", "2", "3"]
    words += ["--strategies", "gold", "--curve", "30", "--processes", processes, "--out", f"experiment-{processes}"]
    cells = clinic / f"experiment-{processes}" / "cells"

    def scored() -> list[Path]:
        return [file for file in cells.glob("*.json") if not file.name.endswith(".failed.json")]

    told = stop(child(clinic, *words), lambda: len(scored()) >= 2)
    assert f"stopped; {len(scored())} of 12 cells kept" in told


def test_ctrl_c_before_a_verb_runs_prints_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_synth.cli.cli.parse_command", stopped)
    assert main(["tasks"]) == 130
    assert capsys.readouterr().err == "hf-synth: stopped\n"

    class Stopped(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "hf_synth.cli.cli", Stopped("hf_synth.cli.cli"))
    with pytest.raises(SystemExit) as ended:
        importlib.reload(hf_synth.cli)
    assert ended.value.code == 130
