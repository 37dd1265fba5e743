"""The file of one reviewer's decisions: one JSON object a line, only appended to, each line on disk before it counts.

A process that is killed while it writes leaves at most a torn last line, which was never confirmed. `Log` cuts it
off when it opens the file. A file is open in one process at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import filelock

from hf_synth.errors import OutputError
from hf_synth.task.folders import clear_disk_errors, private_folder

Event = dict[str, Any]


class Log:
    """One reviewer's decisions, open for writing.

    Args:
        path: the file (0600); it is created with its folder if it is missing.
        head: the first line, which says what the file is. That of an existing file must be the same.

    Attributes:
        events: the lines after the first.
        repaired: bytes of a torn last line that were cut off.

    Raises:
        OutputError: another process has the file open, it cannot be written, is damaged, or holds something else.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        private_folder(path.parent)
        self._lock = filelock.FileLock(f"{path}.lock", mode=0o600, thread_local=False)
        with clear_disk_errors(path):
            try:
                self._lock.acquire(blocking=False)
            except filelock.Timeout:  # an OSError, too
                raise OutputError(
                    f"{unquote(path.stem)}: a review with this name is open in another process; stop it, or give "
                    "another --reviewer"
                ) from None
        try:
            with clear_disk_errors(path):
                self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OutputError:
            self._lock.release()
            raise
        try:
            self.events, self._size, self.repaired = self._opened(dict(head))
        except BaseException:
            self.close()
            raise

    def _opened(self, head: Event) -> tuple[list[Event], int, int]:
        data = self.path.read_bytes()
        lines, size = parse(data, self.path)
        torn = len(data) - size
        with clear_disk_errors(self.path):
            if torn:
                os.ftruncate(self._handle, size)
                os.fsync(self._handle)
            if not lines:
                self._size = 0
                self._write(head)
                _sync_folder(self.path.parent)
                return [], self._size, torn
        if lines[0] != head:
            raise OutputError(f"{self.path} holds other decisions: {_differs(lines[0], head)}; give another --reviewer")
        return lines[1:], size, torn

    def append(self, event: Mapping[str, Any]) -> None:
        """Write a line, and return when it is on disk.

        Raises:
            OutputError: it cannot be written; the file is then as it was.
        """
        with clear_disk_errors(self.path):
            self._write(dict(event))
        self.events.append(dict(event))

    def _write(self, event: Event) -> None:
        data = memoryview(json.dumps(event, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
        size = len(data)
        try:
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)
        except OSError:
            with contextlib.suppress(OSError):  # half a line must not come before the next one
                os.ftruncate(self._handle, self._size)
                os.fsync(self._handle)
            raise
        self._size += size

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        with contextlib.suppress(OSError):
            os.close(self._handle)
        self._lock.release()


def parse(data: bytes, path: Path) -> tuple[list[Event], int]:
    """Return the whole lines of a file of decisions, and how many bytes they take; a torn last line is left out.

    Args:
        path: of the file, for the error.

    Raises:
        OutputError: a line before the last one is damaged.
    """
    events: list[Event] = []
    size = 0
    lines = data.split(b"\n")  # the last piece is empty, or a torn line
    for number, line in enumerate(lines[:-1], 1):
        event = _object(line)
        if event is None:
            if number == len(lines) - 1 and not lines[-1]:
                break  # a crash of the machine may leave a last line of other bytes
            raise OutputError(f"{path}: line {number} is damaged; take the file from a backup, or move it away")
        events.append(event)
        size += len(line) + 1
    return events, size


def _object(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def read_log(path: Path) -> list[Event]:
    """Read a file of decisions that another process may be writing to; its first line is the first of the events.

    Raises:
        OutputError: it cannot be read, or is damaged.
    """
    with clear_disk_errors(path):
        data = path.read_bytes()
    return parse(data, path)[0]


def _differs(found: Event, wanted: Event) -> str:
    names = [name for name in wanted if found.get(name) != wanted[name]]
    return ", ".join(f"{name} is {str(found.get(name))[:60]!r}, not {str(wanted[name])[:60]!r}" for name in names)


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, as far as the system can."""
    if os.name == "nt":  # Windows opens no folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
