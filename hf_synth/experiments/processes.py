"""Parallel calls of one function in single-threaded processes; a failed call or a killed process stops no other."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_all(
    call: Callable[[Job], Result], jobs: Sequence[Job], processes: int
) -> Iterator[tuple[Job, Result | BaseException]]:
    """Call a function for each job; yield each job with its result or error, as they end.

    A process that dies breaks the pool, and its job is unknown: unfinished jobs then run again one at a time, and the
    job that breaks its pool has failed.

    Args:
        call: is pickled, as are jobs and results.
        processes: number of new processes at the same time; 0 for this one.
    """
    if processes < 1:
        for job in jobs:
            try:
                result: Result | BaseException = call(job)
            except Exception as error:
                result = error
            yield job, result
        return
    waiting, alone = list(jobs), False
    while waiting:
        batch, rest = (waiting[:1], waiting[1:]) if alone else (waiting, [])
        broken: list[Job] = []
        with (
            _one_thread(),
            ProcessPoolExecutor(
                min(processes, len(batch)), multiprocessing.get_context("spawn"), initializer=_watch_parent
            ) as pool,
        ):
            futures = {pool.submit(call, job): job for job in batch}
            try:
                for future in as_completed(futures):
                    try:
                        yield futures[future], future.result()
                    except BrokenProcessPool as error:
                        if alone:
                            yield futures[future], error
                        else:
                            broken.append(futures[future])
                    except Exception as error:
                        yield futures[future], error
            except BaseException:  # Ctrl-C: do not wait for jobs that have not begun
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        alone = alone or bool(broken)
        waiting = broken + rest


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit numpy and torch to one thread in each process that starts in this block."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _watch_parent() -> None:
    """End this process when its parent is killed: a pool's processes would wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
