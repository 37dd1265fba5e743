"""Benchmarks: what they count is right, a stopped one goes on, and those that need a GPU or hours run with toys."""

from __future__ import annotations

import json
import os
import resource
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.blocks import ROOT

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import scaling  # type: ignore[import-not-found]

    module: ModuleType = scaling
    return module


@pytest.fixture
def random_models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import random_models  # type: ignore[import-not-found]

    module: ModuleType = random_models
    return module


def finished(stage: str, rows: int, cpu: float) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "cpu": cpu,
        "wall": cpu,
        "before": 90.0,
        "peak": 200.0,
        "disk": 3.0,
        "date": "2026-01-02",
    }
    return {"stage": stage, "rows": rows, **figures}


def test_stages_that_are_measured_are_not_run_again(
    scaling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def in_process(work: Path, stage: str, n: int) -> dict[str, Any]:
        (work / str(n) / stage).mkdir()
        ran.append(stage)
        return finished(stage, n, 1.0)

    monkeypatch.setattr(scaling, "in_process", in_process)
    monkeypatch.setattr(scaling, "write_pool", lambda folder, _n: (folder / "pool").mkdir(parents=True))
    monkeypatch.setattr(scaling, "DISK_A_ROW", 1)
    kept = json.dumps(finished("adopt", 10, 2.0)) + "\n" + json.dumps(finished("correct", 10, 2.0))
    (tmp_path / "runs.jsonl").write_text(kept[:-9])  # the second line was cut by a kill
    scaling.run_size(tmp_path, 10, ["adopt", "correct", "audit"], keep=False)
    assert ran == ["adopt", "correct", "audit"]  # the folder that the first one had written is gone
    assert [(r["stage"], r["cpu"]) for r in scaling.runs_of(tmp_path)] == [
        ("adopt", 2.0), ("correct", 1.0), ("audit", 1.0),
    ]  # fmt: skip
    assert not (tmp_path / "10").exists()
    scaling.run_size(tmp_path, 10, ["adopt", "correct", "audit"], keep=False)
    assert len(ran) == 3
    monkeypatch.setattr(scaling, "DISK_A_ROW", 10**18)
    with pytest.raises(SystemExit, match="of disk"):
        scaling.run_size(tmp_path, 20, ["adopt"], keep=False)


def test_the_page_of_scaling_has_slopes_and_plots(scaling: ModuleType) -> None:
    text, plots = scaling.page([finished("adopt", 10, 1.0), finished("adopt", 100, 10.0), finished("audit", 10, 5.0)])
    assert "| adopt | 1.00" in text
    assert "100,000" in text.partition("## CPU microseconds")[2]
    assert set(plots) == {"scaling_time.svg", "scaling_memory.svg"}
    assert all("<svg" in svg and f"]({name})" in text for name, svg in plots.items())


@pytest.mark.parametrize("reach", [1, 4, 9, 64])
def test_pairs_that_attention_computes_are_counted(random_models: ModuleType, reach: int) -> None:
    for length in (1, 4, 5, 9, 10, 30):
        pairs = sum(abs(i - j) <= reach for i in range(length) for j in range(length))
        assert random_models._pairs(np.array([float(length)]), reach) == pairs
    assert random_models._pairs(np.array([3.0, 4.0]), None) == 25


@pytest.mark.slow  # it imports torch and transformers
def test_operations_of_a_model_are_counted(random_models: ModuleType) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3}
    network = BertForSequenceClassification(BertConfig(num_attention_heads=2, max_position_embeddings=16, **sizes))
    weights = 3 * (4 * 8 * 8 + 2 * 8 * 16)  # query, key, value and output; two of the feed-forward part
    assert random_models.forward_flops(network, [5, 7]) == 2 * weights * 12 + 4 * 8 * 3 * (25 + 49)


@pytest.mark.parametrize("name", ["auto_choice", "prediction", "real_llm", "scaling", "gpu/measure"])
def test_options_are_read(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # some set it themselves: it is as before after this test
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "options:" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", [
    ["gpu/measure.py", "--tiny"],
    ["prediction.py", "--tiny", "--rows", "24", "--rounds", "1"],
    ["scaling.py", "--sizes", "300", "600", "--work", "work"],
], ids=lambda command: command[0])  # fmt: skip
def test_a_small_run_writes_its_page(command: list[str], tmp_path: Path) -> None:
    page = "--page" if command[0] == "scaling.py" else "--out"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(FOLDER / command[0]), *command[1:], page, "page.md"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime < 60  # CPU seconds on any machine
    assert (tmp_path / "page.md").read_text().startswith("# ")


def test_runs_that_a_file_holds_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(tmp_path))
    from runs import keep_run, read_runs, run_missing  # type: ignore[import-not-found]

    (tmp_path / "toy_runs.py").write_text(
        "def one(path, cell, seed):\n"
        "    open(path, 'a').write(cell)\n"
        "    return {'run': [cell, seed], 'score': seed + 1}\n"
    )
    from toy_runs import one  # type: ignore[import-not-found]

    file, log = tmp_path / "runs.jsonl", tmp_path / "log"
    assert read_runs(file) == {}
    keep_run(file, {"run": ["a", 0], "score": 7})
    done = run_missing(partial(one, log), [("b", 3), ("a", 0)], file, 1)
    assert done == [{"run": ["b", 3], "score": 4}, {"run": ["a", 0], "score": 7}]
    assert log.read_text() == "b"
    assert read_runs(file) == {("a", 0): done[1], ("b", 3): done[0]}
