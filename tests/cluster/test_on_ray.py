"""Blocks on Ray: the bytes of one process, a killed worker, and no text outside the work folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.cluster_rows import CANARY, files_of, make_journey
from support.llm_server import Said, entries, serving

from hf_synth.cli.cli import main
from hf_synth.generation import blocks
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
def test_notes_from_two_workers_within_the_limits_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("ray", reason="needs hf_synth[ray]")
    monkeypatch.setattr(blocks, "CALLS", 3)
    home = tmp_path / "home"
    home.mkdir()
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # short: sockets lie behind a link in it
    request.addfinalizer(lambda: shutil.rmtree(scratch, ignore_errors=True))
    work = make_journey(tmp_path / "work")

    def answer(asked: dict[str, Any], _: int) -> Said:
        seed = asked["seed"]
        return Said("no" if seed % 5 == 0 else entries({**asked, "seed": seed if seed % 4 else 0}), delay=0.3)

    with serving(answer) as server:
        words = ["generate", str(work / "gold"), "--llm", "m", "--base-url", server.url, "--n", "400"]
        command = [*words, "--concurrency", "3", "--max-tokens", "500"]
        assert main([*command, "--out", str(work / "one"), "--journal", str(work / "one.sqlite")]) == 0
        once = {json.dumps(asked, sort_keys=True) for asked in server.requests}
        server.requests.clear()
        server.peak = 0
        small = "import sys, hf_synth.generation.blocks as blocks; blocks.CALLS = 3"
        code = f"{small}; from hf_synth.cli.cli import main; sys.exit(main(sys.argv[1:]))"
        two = ["--out", str(work / "two"), "--journal", str(work / "two.sqlite"), "--engine", "ray", "--workers", "2"]
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(scratch)}
        process = subprocess.Popen([sys.executable, "-c", code, *command, *two], env=environment)
        killed = _kill_one(process, work / "two")
        assert process.wait(timeout=1_500) == 0
    assert killed
    asked = Counter(json.dumps(asked, sort_keys=True) for asked in server.requests)
    assert set(asked) == once, "the calls of one run"
    assert asked.total() - len(once) <= 3, "at most what was in flight is asked again"
    assert server.peak <= 3 + 3, "the limit holds over both workers; the server may still hold a dead worker's calls"
    rows = [_rows(work / name) for name in ("one", "two")]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 400
    assert [file for folder in (home, scratch) for file in folder.rglob("*")] == []


def _rows(folder: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(folder / name) for name in ("train.parquet", "rejected.parquet")]
    return [row for table in tables for row in table.drop_columns(["created"]).to_pylist()]


def _kill_one(process: subprocess.Popen[bytes], out: Path) -> list[int]:
    """Kill one worker once some blocks are there; return its id."""
    killed: list[int] = []
    while process.poll() is None and not killed:
        begun = len(list((out / ".hf_synth" / "blocks").glob("*/*.parquet"))) >= 3
        if begun and (pid := _worker_of(process.pid)) is not None:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        time.sleep(0.01)
    return killed


@pytest.mark.slow
def test_two_workers_one_of_them_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("ray", reason="needs hf_synth[ray]")
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 40)
    home = tmp_path / "home"
    home.mkdir()
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # short: sockets lie behind a link in it
    request.addfinalizer(lambda: shutil.rmtree(scratch, ignore_errors=True))
    work = make_journey(tmp_path / "work", 2_000)
    words = ["correct", str(work / "gold"), str(work / "synthetic"), "--corrector", str(work / "model")]
    command = [*words, "--split", "validation", "--method", "posterior", "--out", str(work / "corrected")]
    assert main(command) == 0
    whole = files_of(work / "corrected")
    small = "import sys, hf_synth.task.arrow as arrow; arrow.BLOCK_ROWS = 40"
    code = f"{small}; from hf_synth.cli.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(scratch)}
    on_ray = [sys.executable, "-c", code, *command, "--engine", "ray", "--workers", "2"]
    process = subprocess.Popen(on_ray, env=environment)
    killed = _kill_one(process, work / "corrected")
    assert process.wait(timeout=1_500) == 0
    assert killed
    merged = files_of(work / "corrected")
    assert "engine" in merged.pop("hf_synth_run.toml").decode()
    assert merged.items() <= whole.items()
    assert len(merged) == len(whole) - 1
    kept = [file for folder in (home, scratch) for file in folder.rglob("*")]
    assert kept == [], "nothing is left in the home folder or the temporary one"
    assert not Path("/tmp/ray").exists()
    assert any(CANARY.encode() in file.read_bytes() for file in (work / "synthetic").glob("*.parquet"))
