"""Runs of a benchmark, kept as lines of a file: a second call continues where the first was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Run = tuple[Any, ...]  # what tells one run from another: its cell and its seed
Result = dict[str, Any]  # JSON; under `run` stands the Run it belongs to


def read_runs(file: Path) -> dict[Run, Result]:
    """Return the finished runs of a file; {} where there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {tuple(result["run"]): result for result in map(json.loads, lines)}


def keep_run(file: Path, result: Result) -> None:
    """Add a finished run to the file."""
    with file.open("a") as out:
        out.write(json.dumps(result) + "\n")


def run_missing(one: Callable[..., Result], wanted: Iterable[Run], file: Path, processes: int) -> list[Result]:
    """Run what the file does not hold, in several processes; return the results of all wanted runs, in their order.

    Args:
        one: does the run of these values; it can be pickled, as `functools.partial` of a function of a module.
    """
    wanted = list(wanted)
    results = read_runs(file)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(one, *run) for run in wanted if run not in results]):
            result = job.result()
            keep_run(file, result)
            results[tuple(result["run"])] = result
    return [results[run] for run in wanted]
