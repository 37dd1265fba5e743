"""One line of progress, in one style for every stage.

Code that takes long opens a `stage` and counts in it. Nothing is shown unless a caller asked for it by `shown`, so that
stages take no option for it. Stages that are open at the same time share the line, the outermost one first:
`fold 3/5 | epoch 2/3 | loss 0.41 | ETA 2:05`. On a terminal the line is rewritten; elsewhere a plain line comes every
ten seconds at most, and one when an outermost stage ends. A line holds counts and names, no text of a note.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from hf_synth.reports.libraries import library_under_way
from hf_synth.reports.time_left import Estimate, TimeLeft

if TYPE_CHECKING:
    from typing import TextIO

T = TypeVar("T")

REDRAW = 0.5  # seconds between two draws on a terminal
PLAIN = 10.0  # seconds between two plain lines
_BRIEF = 1.0  # an outermost stage that took less than these seconds leaves no line
_IDLE = 1.5  # seconds without a stage after which the name of the verb is shown
_EARLY = 2.0  # seconds after which the time is shown
_OVERDUE = 0.5  # seconds left below which the time so far is shown: more is done than was expected


class Stage:
    """One thing that takes long, while it is done.

    Args:
        name: what is done. With a total, the line says which of them is under way: "fold 3/5".
        total: how many there are; None where that is not known.
        unit: what is counted. The line then says how many are done: "120/300 notes".
    """

    def __init__(self, name: str = "", total: float | None = None, unit: str = "") -> None:
        self.name, self.total, self.unit = name, total, unit
        self._done, self._since = 0.0, time.monotonic()
        self._time_left = TimeLeft(0.0, self._since)
        self.label = ""  # shown instead of the count
        self.words = ""  # what follows it
        self.leaves = bool(unit)  # whether its last state stays on the screen, where it is an outermost stage
        self.outermost = False

    @property
    def done(self) -> float:
        """How many are done."""
        return self._done

    @done.setter
    def done(self, count: float) -> None:
        self._done = count
        self._time_left.step(count, time.monotonic())

    def advance(self, count: float = 1) -> None:
        """Count what is done."""
        self.done += count

    def restart(self) -> None:
        """Estimate the time left from now on: what was done so far, such as answers of a journal, took no time."""
        self._since = time.monotonic()
        self._time_left.restart(self.done, self._since)

    def keep(self, line: str) -> None:
        """Keep a line on the screen, if this stage is the outermost one and no line was kept lately."""
        if self.outermost and _line is not None and _line.is_due():
            _line.leave(line)

    @property
    def text(self) -> str:
        """The part of the line that is this stage's own."""
        if self.label:
            parts = [self.label]
        elif self.unit:
            count = f"{int(self.done):,}" + (f"/{int(self.total):,}" if self.total is not None else "")
            parts = [f"{self.name} {count}".strip() + f" {self.unit}"]
        elif self.total is not None:
            parts = [f"{self.name} {min(int(self.done) + 1, int(self.total)):,}/{int(self.total):,}"]
        else:
            parts = [self.name]
        return " | ".join(part for part in (*parts, self.words) if part)

    def left(self, inside: Estimate | None, now: float) -> Estimate | None:
        """Estimate what is left; None where it cannot be estimated.

        Args:
            inside: what is left of the stages inside this one.
        """
        return self._time_left.estimate(self.total, now, inside) if self.total else None

    def passed(self, now: float) -> float:
        """Return the seconds since the stage began, or since `restart`."""
        return now - self._since


class _Line:
    """The line of all open stages on one stream."""

    def __init__(self, stream: TextIO, idle: str = "", every: float | None = None) -> None:
        self.stages: list[Stage] = []
        self._idle, self._idle_since = idle, time.monotonic()
        self._steps: Sequence[str] = ()
        self._step = ""  # "3/7 correct"
        self._stream = stream
        self._terminal = stream.isatty()
        self._lock = threading.RLock()
        self._drawn = ""  # the line on the terminal
        self._own = self._broken = False  # whether this class is writing; whether nobody reads it
        self._half = False  # whether a line of other code has not ended yet
        self._said: set[str] = set()
        self._every = PLAIN if every is None else every
        self._last, self._next = "", time.monotonic() + self._every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True, name="hf_synth-progress")
        self._thread.start()

    def _tick(self) -> None:
        while not self._over.wait(REDRAW):
            self.draw()

    def text(self) -> str:
        """Return the line."""
        stages, now = list(self.stages), time.monotonic()
        if not stages:
            return " | ".join(filter(None, (self._idle, library_under_way(), clock(now - self._idle_since))))
        left = None
        for one in reversed(stages):
            left = one.left(left, now) or left
        parts = [text for text in (self._step, *(one.text for one in stages), library_under_way()) if text]
        if left is not None and left.seconds >= _OVERDUE:
            parts.append(f"ETA {clock(left.seconds)}")
        elif stages and stages[0].passed(now) >= _EARLY:
            parts.append(clock(stages[0].passed(now)))
        line = " | ".join(parts)
        return "".join(c if c.isprintable() else "?" for c in line)

    def begin_step(self, name: str, of: Sequence[str]) -> None:
        """Show a step before all stages, and where no stage is open."""
        with self._lock:
            self._steps = of or self._steps
            place = f"{self._steps.index(name) + 1}/{len(self._steps)} " if name in self._steps else ""
            self._step = self._idle = f"{place}{name}"
            self._idle_since = time.monotonic()

    def draw(self) -> None:
        """Write the line where it is due."""
        with self._lock:
            idle = self._idle and time.monotonic() - self._idle_since >= _IDLE
            if self._half or not (self.stages or idle):
                return
            if self._terminal:
                width = max(20, shutil.get_terminal_size().columns) - 1
                text = self.text()[:width]
                if text != self._drawn:
                    self._write("\r" + text.ljust(len(self._drawn)))
                    self._drawn = text
            elif self.is_due() and (text := self.text()) != self._last:
                self._write(text + "\n")
                self._last, self._next = text, time.monotonic() + self._every

    def is_due(self) -> bool:
        """Return whether the last line that stays was written long enough ago."""
        return time.monotonic() >= self._next

    def clear(self) -> None:
        """Remove the line from the terminal, so that other code can write."""
        with self._lock:
            if self._drawn:
                self._write("\r" + " " * len(self._drawn))
                self._write("\r")
                self._drawn = ""

    def leave(self, text: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self.clear()
            self._write("".join(c if c.isprintable() else "?" for c in text) + "\n")
            self._last, self._next = text, time.monotonic() + self._every

    def mention(self, text: str) -> None:
        """Write a line that stays, once."""
        if text not in self._said:
            self._said.add(text)
            self.leave(text)

    def make_room(self, text: str, *, result: bool = False) -> None:
        """Remove the line for a text of other code; after a result nothing is shown outside of stages."""
        with self._lock:
            if not self._own and text:
                self._idle = "" if result else self._idle
                self.clear()
                self._half = not text.endswith("\n")

    def pause(self, paused: bool) -> None:
        """Write nothing until the pause is over."""
        with self._lock:
            self.clear()
            self._half = paused

    def enter(self, one: Stage) -> None:
        """Add a stage to the line."""
        with self._lock:
            one.outermost = not self.stages
            self.stages.append(one)
            if self._terminal:
                self.draw()

    def leave_stage(self, one: Stage, whole: bool) -> None:
        """Take a stage out of the line; the outermost one leaves its last state where it ended well."""
        with self._lock:
            if one not in self.stages:
                return
            del self.stages[self.stages.index(one) :]  # those inside it have ended, too
            if self.stages:
                return
            self._idle_since = time.monotonic()
            passed = one.passed(time.monotonic())
            if whole and passed >= _BRIEF and one.leaves:
                self.leave(f"{one.text} | {clock(passed)}")
            else:
                self.clear()

    def close(self) -> None:
        """End the line."""
        self._over.set()
        self._thread.join()
        self.clear()

    def _write(self, text: str) -> None:
        if self._broken:
            return
        self._own = True
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads the stream any more; the work goes on
            self._broken = True
        finally:
            self._own = False


_line: _Line | None = None


def clock(seconds: float) -> str:
    """Return a time as "1:10", or "2:01:10" from an hour on."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def shown(active: bool = True, idle: str = "") -> Iterator[None]:
    """Show the progress of all stages within the context on stderr; a further `shown` inside changes nothing.

    Args:
        active: False leaves it as it is.
        idle: what is shown while no stage is open, until something is written to stdout; "" shows nothing.
    """
    global _line
    if not active or _line is not None or not _is_open(sys.stderr):
        yield
        return
    line = _line = _Line(sys.stderr, idle)
    try:
        yield
    finally:
        _line = None
        line.close()


def _is_open(stream: TextIO | None) -> bool:
    """Return whether a stream can be written to: a program can be started without stderr."""
    try:
        return stream is not None and stream.isatty() in (True, False)
    except (AttributeError, OSError, ValueError):
        return False


def is_shown() -> bool:
    """Return whether progress is shown."""
    return _line is not None


@contextlib.contextmanager
def forward_progress(write: Callable[[str], None], every: float = 2.0) -> Iterator[None]:
    """Pass each line of progress to a function instead, as a process without a terminal does.

    Args:
        write: takes a line.
        every: seconds between two lines at least.
    """
    global _line
    line = _line = _Line(_Lines(write), "", every)  # type: ignore[arg-type]
    try:
        yield
    finally:
        _line = None
        line.close()


class _Lines:
    """A stream that passes its lines to a function."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._hand_on = write

    def write(self, text: str) -> None:
        self._hand_on(text.rstrip("\n"))

    def flush(self) -> None:
        """Do nothing: every line is passed on at once."""

    def isatty(self) -> bool:
        return False


def show_after_stage(words: str) -> None:
    """Show words after the innermost stage, such as the progress of another process."""
    if _line is not None and _line.stages:
        _line.stages[-1].words = words


def begin_step(name: str, of: Sequence[str] = ()) -> None:
    """Show which step of a verb is under way: "3/7 correct | fold 2/5 | 0:41"; `of`, in the first call, names all."""
    if _line is not None:
        _line.begin_step(name, of)


@contextlib.contextmanager
def stage(name: str = "", total: float | None = None, unit: str = "") -> Iterator[Stage]:
    """Open a stage; the arguments are those of `Stage`."""
    one, line, whole = Stage(name, total, unit), _line, False
    if line is not None:
        line.enter(one)
    try:
        yield one
        whole = True
    finally:
        if line is not None:
            line.leave_stage(one, whole)


def counted(name: str, items: Sequence[T]) -> Iterator[T]:
    """Yield the items in a stage that counts them: "fold 3/5"."""
    with stage(name, len(items)) as one:
        for item in items:
            yield item
            one.advance()


def mention(text: str) -> None:
    """Write a line that stays, once for each `shown`; nothing where progress is not shown."""
    if _line is not None:
        _line.mention(text)


def make_room(text: str, *, result: bool = False) -> None:
    """Remove the line from the terminal before other code writes a text there.

    Args:
        result: whether the text is a result, on stdout.
    """
    if _line is not None:
        _line.make_room(text, result=result)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Show nothing within the context, while a person is asked."""
    global _line
    line, _line = _line, None
    if line is not None:
        line.pause(True)
    try:
        yield
    finally:
        _line = line
        if line is not None:
            line.pause(False)


def _forget() -> None:
    """Show nothing in a forked process: the thread and the lock of its parent's line do not work there."""
    global _line
    _line = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
