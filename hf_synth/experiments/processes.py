"""Many calls of one function in processes of one thread each, which nothing that goes wrong in one of them stops."""

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
    """Call a function for each job; give each job with its result, or with what went wrong, as they end.

    A process that dies takes the pool with it, and nobody knows whose fault it was: what was under way is run again,
    one job alone in a pool, and the job that kills that pool has failed.

    Args:
        call: travels to other processes, as jobs and results do.
        processes: at the same time, freshly started; 0 for this one.
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
            except BaseException:  # Ctrl-C: what has not begun must not be waited for
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        alone = alone or bool(broken)
        waiting = broken + rest


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that start now have one thread each for numpy and torch, whatever this one has."""
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
    """End this process when the one that started it is killed: a pool's processes would wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
