"""Regular expressions of a task under a limit of length, size and time: a folder of data may bring its own.

A backtracking expression of a few characters can take years on one note, and one with nested counts can take all memory
before it is used. Python's `re` has no limit of time; `regex` has one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from hf_synth.errors import TaskError

_LONGEST = 1_000  # characters of one expression
_MOST = 200  # expressions of one task
_LARGEST = 20_000  # parts of one expression, with those that are counted written out
_SECONDS = 2.0  # of processor time for one text
_START, _PER_CHARACTER = 10.0, 1e-6  # seconds for all texts together


class BoundedPattern:
    """A compiled regular expression whose searches end.

    Args:
        pattern: in the syntax of Python's `re`.

    Raises:
        TaskError: it is no regular expression, or too long or too large.
    """

    def __init__(self, pattern: str) -> None:
        import regex

        self._shown = repr(pattern[:40])
        if len(pattern) > _LONGEST:
            raise TaskError(f"the regular expression {self._shown}... is longer than {_LONGEST:,} characters")
        try:
            re.compile(pattern)
            if _size(_parser.parse(pattern)) > _LARGEST:
                raise TaskError(f"the regular expression {self._shown} repeats too much inside of repeats; simplify it")
            self._compiled = regex.compile(pattern)
        except (re.error, regex.error, RecursionError, OverflowError, MemoryError, ValueError):
            raise TaskError(f"{self._shown} is no regular expression that can be used; correct it") from None
        self._spent = self._characters = 0.0

    def search(self, text: str) -> bool:
        """Return whether a text contains a match.

        Raises:
            TaskError: it takes too long.
        """
        return self._timed(self._compiled.search, text) is not None

    def sub(self, replacement: str, text: str) -> str:
        """Return a text with its matches replaced.

        Raises:
            TaskError: it takes too long.
        """
        return str(self._timed(self._compiled.sub, replacement, text))

    def _timed(self, function: Any, *words: str) -> Any:
        begun = time.thread_time()
        try:
            found = function(*words, timeout=_SECONDS)
        except TimeoutError:
            found, begun = None, float("-inf")
        self._spent += time.thread_time() - begun
        self._characters += len(words[-1])
        if self._spent > _START + _PER_CHARACTER * self._characters:
            raise TaskError(
                f"the regular expression {self._shown} takes too long on these texts; simplify it in the task's `leaks`"
            )
        return found


@lru_cache(maxsize=_MOST)
def bounded_pattern(pattern: str) -> BoundedPattern:
    """Return a regular expression as a `BoundedPattern`, compiled once in a process.

    Raises:
        TaskError: it cannot be used.
    """
    return BoundedPattern(pattern)


def check_patterns(patterns: Iterable[str]) -> None:
    """Check that the regular expressions of a task can be used.

    Raises:
        TaskError: one cannot be used, or there are too many.
    """
    patterns = list(patterns)
    if len(patterns) > _MOST:
        raise TaskError(f"a task has at most {_MOST} regular expressions; this one has {len(patterns):,}")
    for pattern in patterns:
        bounded_pattern(pattern)


def _size(parsed: Any) -> int:
    """Return the number of parts of a parsed expression, with the least number of each repeat written out."""
    if isinstance(parsed, _parser.SubPattern):
        return sum(_of_part(str(code), value) for code, value in parsed)
    if isinstance(parsed, list | tuple):
        return sum(map(_size, parsed))
    return 0


def _of_part(code: str, value: Any) -> int:
    if code.endswith("REPEAT"):
        least, _, repeated = value
        return (int(least) + 1) * (_size(repeated) + 1)
    return 1 + (len(value) if code == "IN" else _size(value))
