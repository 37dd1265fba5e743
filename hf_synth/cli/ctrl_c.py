"""Ctrl-C is answered at once: a line is printed, whatever the main thread is busy with. A second one ends the process.

Python runs the handler of a signal only between two instructions of the main thread, which may come seconds later, in
the middle of a training step for example. The system writes the signal to a socket at once (`signal.set_wakeup_fd`),
and a thread reads it there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

STOPPING = "hf-synth: stopping ... (Ctrl-C again ends at once)"
_TWICE = (
    0.5  # seconds in which a second signal counts as the first one: some programs pass on what a terminal sent, too
)
_LONGEST_PRINT = 2.0  # seconds that the end waits for the line
_INTERRUPTED = 130


@contextlib.contextmanager
def answered_at_once(active: bool = True) -> Iterator[None]:
    """Print a line at the first Ctrl-C within the context, and end this process at the second one.

    The first one raises KeyboardInterrupt in the main thread, as always: what was begun ends in order. The second one
    ends nothing in order; answers of LLMs are in the journal before they are used, and child processes end with this
    one.

    Args:
        active: False leaves Ctrl-C as it is.
    """
    main = threading.current_thread() is threading.main_thread()
    if not active or not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    heard = _Heard()
    thread = threading.Thread(target=heard.listen, args=(ours,), daemon=True, name="hf_synth-ctrl-c")
    thread.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, heard.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join(_LONGEST_PRINT)
        ours.close()


def _forget() -> None:
    """Leave Ctrl-C as it is in a forked process: what it hears is not for the thread of its parent."""
    if isinstance(getattr(signal.getsignal(signal.SIGINT), "__self__", None), _Heard):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Heard:
    """What was heard of Ctrl-C."""

    def __init__(self) -> None:
        self._first = 0.0
        self._said: dict[str, object] = {}  # filled by `setdefault`, which no other thread interrupts

    def listen(self, stream: socket.socket) -> None:
        """Answer each signal until the stream is closed."""
        while signals := stream.recv(64):
            for number in signals:
                if number != signal.SIGINT:
                    continue
                now = time.monotonic()
                self._say()
                if self._first and now - self._first > _TWICE:
                    _write("hf-synth: stopped")
                    os._exit(_INTERRUPTED)
                self._first = self._first or now

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt in the main thread."""
        self._say()
        signal.default_int_handler(number, frame)

    def _say(self) -> None:
        mine = object()
        if self._said.setdefault("by", mine) is mine:
            _write(STOPPING)


def _write(line: str) -> None:
    """Write a line to stderr, also where a write of the main thread to it was interrupted."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (RuntimeError, OSError, ValueError):
        with contextlib.suppress(OSError):
            os.write(2, f"{line}\n".encode())
