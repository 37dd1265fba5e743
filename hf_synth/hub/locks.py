"""A lock on a file between threads and processes: flock, or what filelock has where there is none, as on Windows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_POLL = 0.005  # seconds between two attempts of filelock


def take(path: Path, *, wait: bool = True) -> Callable[[], None]:
    """Lock a file (0600), which is created if it is missing, and return what unlocks it.

    Raises:
        BlockingIOError: another holder has it, and `wait` is False.
        OSError: it cannot be written.
    """
    if fcntl is None:
        return _take_portable(path, wait)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        raise

    def unlock() -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)  # before closing: a forked child may hold it, too
        os.close(handle)

    return unlock


def _take_portable(path: Path, wait: bool) -> Callable[[], None]:
    import filelock

    # a name of its own: where not even Windows' locks exist, the file's existence is the lock
    lock = filelock.FileLock(path.with_name(f"{path.name}.taken"), mode=0o600, thread_local=False)
    try:
        lock.acquire(blocking=wait, poll_interval=_POLL)
    except filelock.Timeout:
        raise BlockingIOError(f"{path.name} is locked") from None
    return lock.release
