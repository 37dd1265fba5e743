"""Blocks on Ray: the bytes of one process, a killed worker, and no text outside the work folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support.cluster_rows import CANARY, files_of, make_journey

from hf_synth.cli.cli import main
from hf_synth.task import arrow


def test_without_ray_the_pip_line_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    work = make_journey(tmp_path)
    words = ["audit", str(work / "gold"), str(work / "synthetic"), "--out", str(work / "audited"), "--engine", "ray"]
    assert main(words) == 1
    assert "pip install 'hf_synth[ray]'" in capsys.readouterr().err


def _worker_of(process: int) -> int | None:
    """Return a process of Ray that descends from one and holds our code."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in lines}
    for pid, _, words in lines:
        above = int(pid)
        while above in parents and above != process:
            above = parents[above]
        if above == process and words.startswith("ray::_Worker"):
            return int(pid)
    return None


@pytest.mark.slow
def test_two_workers_one_of_them_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("ray", reason="needs hf_synth[ray]")
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 5)
    home = tmp_path / "home"
    home.mkdir()
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # short: sockets lie behind a link in it
    request.addfinalizer(lambda: shutil.rmtree(scratch, ignore_errors=True))
    work = make_journey(tmp_path / "work", 300)
    words = ["correct", str(work / "gold"), str(work / "synthetic"), "--corrector", str(work / "model")]
    command = [*words, "--split", "validation", "--method", "posterior", "--out", str(work / "corrected")]
    assert main(command) == 0
    whole = files_of(work / "corrected")
    small = "import sys, hf_synth.task.arrow as arrow; arrow.BLOCK_ROWS = 5"
    code = f"{small}; from hf_synth.cli.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(scratch)}
    on_ray = [sys.executable, "-c", code, *command, "--engine", "ray", "--workers", "2"]
    process = subprocess.Popen(on_ray, env=environment)
    killed: list[int] = []

    def kill_one() -> None:
        blocks = work / "corrected" / ".hf_synth" / "blocks"
        while process.poll() is None and not killed:
            if len(list(blocks.glob("*/*.parquet"))) >= 3 and (pid := _worker_of(process.pid)) is not None:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill_one)
    thread.start()
    assert process.wait(timeout=1_500) == 0
    thread.join()
    assert killed
    merged = files_of(work / "corrected")
    assert "engine" in merged.pop("hf_synth_run.toml").decode()
    assert merged.items() <= whole.items()
    assert len(merged) == len(whole) - 1
    kept = [file for folder in (home, scratch) for file in folder.rglob("*")]
    assert kept == [], "nothing is left in the home folder or the temporary one"
    assert not Path("/tmp/ray").exists()
    assert any(CANARY.encode() in file.read_bytes() for file in (work / "synthetic").glob("*.parquet"))
