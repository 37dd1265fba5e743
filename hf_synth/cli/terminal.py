"""Text for the terminal: control characters are printed as escapes such as \\x1b, wherever the text came from.

Names of files, labels, models and repositories are foreign text. A terminal obeys some of their characters: it clears
the screen, renames its window, or shows a line from right to left.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from hf_synth.reports.progress import make_room

if TYPE_CHECKING:
    from typing import TextIO

# C0 without tab and line feed, C1, marks of direction, separators of lines, characters without an encoding
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_PROGRESS = re.compile("\r?(?:\x1b\\[A)*")  # how tqdm returns to the start of its line, and to the line above


def plain(text: str) -> str:
    """Return a text with its control characters, except tab and line feed, as visible escapes."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """Return foreign text for a cell of a line: line feeds and tabs are escapes too, so that it forges no line."""
    return plain(text).replace("\n", "\\n").replace("\t", "\\t")


class PlainStream:
    """A text stream that writes everything through `plain`.

    Args:
        stream: the terminal, or a stream used instead of it.
        progress: let the first characters of a write return to the start of a line, as progress bars do.
    """

    def __init__(self, stream: TextIO, *, progress: bool = False) -> None:
        self._stream, self._progress = stream, progress

    def write(self, text: str) -> int:
        """Write a text; return its length, as the caller knows it."""
        make_room(text, result=not self._progress)
        start = cast("re.Match[str]", _PROGRESS.match(text))[0] if self._progress else ""
        self._stream.write(start + plain(text[len(start) :]))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def plain_streams() -> Iterator[None]:
    """Let stdout and stderr, and what is logged to them, be `PlainStream` within the block."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast("TextIO", PlainStream(sys.stdout))
    sys.stderr = cast("TextIO", PlainStream(sys.stderr, progress=True))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
