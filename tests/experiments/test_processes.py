"""Jobs in processes: one that kills its process stops no other, is tried again alone, and then has failed."""

from __future__ import annotations

import operator
import os
import pickle
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.steps import count_slowly
from support.tiny import TINY_ARGS, tiny_base
from support.toy_experiment import run

from hf_synth.errors import RowError
from hf_synth.experiments import experiment, processes
from hf_synth.experiments.grid import Grid, with_fields
from hf_synth.experiments.processes import run_all


def die() -> Any:
    """Make a job that kills its own process; a partial of `os.abort` is pickled by name."""
    return partial(os._exit, 3)


def outcomes(jobs: list[Any], n: int) -> list[tuple[Any, Any]]:
    return list(run_all(operator.call, jobs, n))


def test_a_job_that_kills_its_process_stops_no_other() -> None:
    jobs = [partial(os.getpid) for _ in range(12)]
    done = outcomes([*jobs[:3], die(), *jobs[3:]], 2)
    pids = [result for _, result in done if isinstance(result, int)]
    assert len(pids) == 12
    assert len(set(pids)) <= 3, "two processes, and the one that replaces a dead one"
    [(job, error)] = [(j, r) for j, r in done if not isinstance(r, int)]
    assert job.func is os._exit
    assert isinstance(error, BrokenProcessPool)
    assert done[-1] == (job, error), "tried again after all others"


def test_a_victim_is_tried_again_alone(tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    once = partial(
        exec, f"import os, pathlib; p = pathlib.Path({str(mark)!r}); p.exists() or p.touch() or os._exit(9)", {}
    )
    done = outcomes([partial(abs, -1), once, partial(abs, -2)], 2)
    assert sorted(r for _, r in done if r is not None) == [1, 2]
    assert done[-1] == (once, None)


def test_errors_and_what_cannot_be_sent_are_results() -> None:
    jobs = [
        partial(operator.truediv, 1, 0),
        partial(RowError, "f", 1, "is broken"),  # an error of ours, as a value
        partial(eval, "lambda: 0"),
        partial(abs, -7),
    ]
    done = [result for _, result in run_all(operator.call, jobs, 1)]
    assert isinstance(done[0], ZeroDivisionError)
    assert "is broken" in str(done[1])
    assert isinstance(done[2], Exception)
    assert done[3] == 7
    [(_, error)] = run_all(operator.call, [lambda: 0], 1)
    assert isinstance(error, Exception)


@pytest.mark.slow
def test_many_crashes_are_bounded() -> None:
    began = time.monotonic()
    done = outcomes([die() for _ in range(8)], 2)
    assert [type(r) for _, r in done] == [BrokenProcessPool] * 8
    assert time.monotonic() - began < 120


def test_processes_that_cannot_start_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_answer_jobs", os._exit)
    done = outcomes([partial(abs, -1) for _ in range(5)], 2)
    assert [type(r) for _, r in done] == [BrokenProcessPool] * 5


def test_what_is_left_early_ends_its_processes() -> None:
    results = run_all(operator.call, [partial(os.getpid), partial(time.sleep, 60)], 2)
    _, pid = next(results)
    results.close()  # type: ignore[attr-defined]
    assert isinstance(pid, int)
    assert not Path(f"/proc/{pid}").exists()


def test_each_process_sees_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7")
    seen = partial(os.getenv, "CUDA_VISIBLE_DEVICES")
    done = [result for _, result in run_all(operator.call, [seen] * 3, 3, ["3", "GPU-7"])]
    assert sorted(done) == ["3", "3", "GPU-7"]  # the third shares a device
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-7"


def test_cells_are_placed_on_the_devices_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[Any] = []
    monkeypatch.setattr(experiment, "cuda_devices", lambda: ["0", "1"])
    monkeypatch.setattr(experiment, "run_all", lambda _call, _jobs, *how: placed.append(how) or [])
    study: Any = None
    job: Any = None
    assert list(experiment._run_jobs(study, [job], 2)) == []
    assert list(experiment._run_jobs(study, [job], 0)) == []
    assert placed == [(2, ["0", "1"]), (0, [])]


def test_progress_of_a_process_is_shown_by_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(processes, "is_shown", lambda: True)
    monkeypatch.setattr(processes, "show_after_stage", told.append)
    assert [result for _, result in run_all(count_slowly, [15, 12], 1)] == [15, 12]
    assert any(line.startswith(("15/15 steps", "12/12 steps")) for line in told)
    assert told[-1] == "", "nothing is left of it"


def test_without_progress_nothing_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(processes, "show_after_stage", told.append)
    assert [result for _, result in run_all(count_slowly, [12], 1)] == [12]
    assert set(told) == {""}


# --- experiments -----------------------------------------------------------------------------------------------------
SLOW = pytest.mark.slow


def through_pickles(call: Any, jobs: Any, *_: Any) -> Any:
    """Work on jobs as `run_all` does with processes, but in this one."""
    for job in jobs:
        call_there, job_there = pickle.loads(pickle.dumps((call, job)))
        yield job, pickle.loads(pickle.dumps(call_there(job_there)))


@pytest.mark.parametrize(("base", "processes"), [("linear", 2), *(pytest.param("tiny", n, marks=SLOW) for n in (1, 2))])
def test_processes_change_no_figure(tmp_path: Path, base: str, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = base if base == "linear" else str(tiny_base(tmp_path / "base"))
    arms = ("gold", "augment raw", "augment argmax")
    grid = Grid(sizes=(20,), arms=arms, ratios=(1.0,), seeds=(0,), base_models=(model,))
    here = run(tmp_path / "a", grid, args=TINY_ARGS)
    told = ("macro_f1", "macro_f1_low", "confusion", "weights_sha256", "gold_sha256", "n_train")

    def figures(made: Any) -> dict[str, list[Any]]:
        return {r["arm"]: [r[t] for t in told] for r in made.rows}

    assert len(figures(here)) == 3
    with monkeypatch.context() as patch:  # a correction, too: a process for it alone takes seconds
        patch.setattr("hf_synth.experiments.experiment.run_all", through_pickles)
        assert figures(run(tmp_path / "c", grid, args=TINY_ARGS)) == figures(here)
    if base == "linear":
        grid = with_fields(grid, {"arms": arms[:2]})
    there = figures(run(tmp_path / "b", grid, args=TINY_ARGS, processes=processes))
    assert there == {arm: figures(here)[arm] for arm in grid.arms}
    assert all(r["weights_sha256"] for r in here.rows if base != "linear")
