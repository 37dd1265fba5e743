"""The end of a question: its answer is committed to the journal, also when the run is stopped while it is under way."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - see below
import logging
import threading
import weakref
from collections.abc import Sequence, Set
from typing import Any, Protocol

from hf_synth.llm.journal import Entry, Journal

_LOG = logging.getLogger(__name__)
LAST_ANSWERS = 25.0  # seconds for answers under way when a run is stopped; schedulers kill 30 s after SIGTERM
_AT_ONCE = 0.1  # seconds for what ends by itself


class Closable(Protocol):
    """Something that ends in order."""

    def close(self) -> None:
        """End."""


_OPEN: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(one: Closable) -> None:
    """Close something that is still open when this process ends, before its threads do."""
    _OPEN.add(one)


def _close_all() -> None:
    for one in list(_OPEN):
        one.close()


# `atexit` would be too late: no thread may start any more then. What is registered last is called first: the import of
# concurrent.futures.thread registers the end of its threads, which a commit needs.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


class Commits:
    """Writes answers to a journal; those that arrive during a commit go together into the next one."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, entry: Entry) -> None:
        """Wait until an answer is on disk; it is written also when the caller is cancelled.

        Raises:
            JournalError: the journal cannot be written.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._waiting.append((entry, written))
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._commit())
        await written

    async def close(self) -> None:
        """Wait until everything is on disk."""
        if self._writer is not None:
            await self._writer

    async def _commit(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            failure: Exception | None = None
            try:
                await asyncio.to_thread(self._journal.put_many, [entry for entry, _ in group])
            except Exception as error:
                failure = error
            for _, written in group:
                if not written.done():
                    written.set_exception(failure) if failure else written.set_result(None)


def take_back(journal: Journal, keys: Sequence[str]) -> None:
    """Delete answers that may be to other questions.

    Raises:
        JournalError: the journal cannot be written.
    """
    with journal.transaction() as database:
        database.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in keys])


async def await_last(tasks: Set[asyncio.Task[Any]], seconds: float) -> None:
    """Wait so many seconds at most for the answers that are under way when a run is stopped."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=min(_AT_ONCE, seconds))
    if late:
        answers = "1 answer" if len(late) == 1 else f"{len(late):,} answers"
        _LOG.warning("stopping: waiting up to %.3g s for %s (Ctrl-C again drops them)", seconds, answers)
        await asyncio.wait(late, timeout=seconds)


def current_task() -> asyncio.Task[Any]:
    """Return the task that runs."""
    task = asyncio.current_task()
    assert task is not None
    return task
