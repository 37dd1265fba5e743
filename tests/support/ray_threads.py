"""What tests need of Ray, in threads of this process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Method:
    """A method of a worker."""

    def __init__(self, threads: ThreadPoolExecutor, function: Callable[..., Any]) -> None:
        self._threads, self._function = threads, function

    def remote(self, *given: Any) -> Future[Any]:
        return self._threads.submit(self._function, *given)


class Threads:
    """What is needed of Ray, in threads; each worker has nothing but a pickle and a journal, as on another machine.

    Args:
        folder: for the journals of the workers.
        never: workers for which there is no room.
    """

    exceptions = SimpleNamespace(RayError=ConnectionError)

    def __init__(self, folder: Path, never: Sequence[int] = ()) -> None:
        self.folder, self.never, self.threads, self.groups = folder, never, ThreadPoolExecutor(80), list[int]()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def put(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def get(self, one: Future[Any]) -> Any:
        return one.result()

    def wait(self, waited: list[Any], num_returns: int, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        done, _ = futures.wait(waited, timeout, futures.FIRST_COMPLETED if num_returns == 1 else futures.ALL_COMPLETED)
        return list(done)[:num_returns], []
