"""Ctrl-C is answered at once: a line is printed, whatever the main thread is busy with. A second one ends the process.

SIGTERM, which schedulers send before they kill a process, and SIGHUP, which a closed terminal sends, stop a verb as the
first Ctrl-C does: answers of an LLM that are under way are awaited and kept. Neither counts as a second Ctrl-C.

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
from typing import Any

STOPPING = "hf-synth: stopping ... (Ctrl-C again ends at once)"
_TWICE = (
    0.5  # seconds in which a second signal counts as the first one: some programs pass on what a terminal sent, too
)
_LONGEST_PRINT = 2.0  # seconds that the end waits for the line
_BASE = 128  # the exit code of a process that a signal stopped, less the signal
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal stopped a verb.

    Args:
        code: the exit code.
        words: what is kept, if it was said.
    """

    def __init__(self, code: int, *words: object) -> None:
        super().__init__(*words)
        self.code = code


@contextlib.contextmanager
def answered_at_once(active: bool = True) -> Iterator[None]:
    """Print a line at the first Ctrl-C within the context, and end this process at the second one.

    The first one raises KeyboardInterrupt in the main thread, as always: what was begun ends in order. The second one
    ends nothing in order; answers of LLMs are in the journal before they are used, and child processes end with this
    one. SIGTERM and SIGHUP stop as the first one does, unless this process ignores or handles them already, or is one
    of several that torchrun started: a process that waits for another one would hear them too late.

    Args:
        active: False leaves Ctrl-C as it is.

    Raises:
        Stopped: a signal came; it has the exit code, and the words of the KeyboardInterrupt that left the context.
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
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    if os.environ.get("WORLD_SIZE", "1") in ("", "0", "1"):
        usual |= {number: signal.SIG_DFL for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL}
    for number in usual:
        signal.signal(number, heard.interrupt)
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Stopped(_BASE + heard.first, *stop.args) from None
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join(_LONGEST_PRINT)
        ours.close()


def _forget() -> None:
    """Leave signals as they are in a forked process: what it hears is not for the thread of its parent."""
    for number in _SIGNALS:
        if isinstance(getattr(signal.getsignal(number), "__self__", None), _Heard):
            signal.set_wakeup_fd(-1)
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Heard:
    """What was heard of Ctrl-C and its like."""

    def __init__(self) -> None:
        self.first = int(signal.SIGINT)  # the signal that stopped the verb
        self._raised = False
        self._at = 0.0  # of the first Ctrl-C
        self._said: dict[str, object] = {}  # filled by `setdefault`, which no other thread interrupts

    def listen(self, stream: socket.socket) -> None:
        """Answer each signal until the stream is closed."""
        while signals := stream.recv(64):
            for number in signals:
                if number not in _SIGNALS:
                    continue
                now = time.monotonic()
                self._say()
                if number != signal.SIGINT:
                    continue
                if self._at and now - self._at > _TWICE:
                    _write("hf-synth: stopped")
                    os._exit(_BASE + signal.SIGINT)
                self._at = self._at or now

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt in the main thread, once: a repeated signal must not break off what ends in order."""
        self._say()
        if not self._raised:
            self._raised, self.first = True, number
            raise KeyboardInterrupt

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
