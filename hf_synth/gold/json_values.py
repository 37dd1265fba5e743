"""Read a JSON file of any size value by value, with one value in memory.

`JsonValues` walks through objects and arrays; what it stands at is decoded in C (`json.JSONDecoder`), or passed over:

    with JsonValues(file) as values:
        for key in values.keys():
            number = values.value() if key == "number" else sum(1 for _ in values.items() if values.value())

After each key or item its value must be consumed, by `value`, `keys` or `items`, before the loop goes on.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from hf_synth.errors import RowError
from hf_synth.gold.readers import File
from hf_synth.gold.sources import as_source

_CHUNK = 4 << 20  # bytes read at a time, at least
_LONGEST = 256 << 20  # characters of one value
_DEEPEST = 64  # levels of objects and arrays around a value
_GOES_ON = ("", *"0123456789.eE+-")  # what may follow a number that was read in part
_BLANK = re.compile(r"[ \t\n\r]*")


class JsonValues:
    """The values of a JSON file in their order.

    Args:
        file: in UTF-8, with or without a byte-order mark.

    Raises:
        RowError: at any step: it is not JSON in UTF-8, or a value is far too long.
    """

    def __init__(self, file: File) -> None:
        source = as_source(file)
        self._name, self._stream = source.name, source.open()
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode = json.JSONDecoder(parse_constant=_refuse).raw_decode
        self._text, self._at, self._passed = "", 0, 0  # passed: characters before the text
        self._ended = False
        self._depth = 0

    def keys(self) -> Iterator[str]:
        """Yield the keys of the object that comes next.

        Raises:
            RowError: what comes next is no object.
        """
        self._open("{")
        while self._next() != "}":
            key = self.value()
            if not isinstance(key, str) or self._next() != ":":
                self._fail()
            self._at += 1
            yield key
            self._comma("}")
        self._close()

    def items(self) -> Iterator[int]:
        """Yield the number, from 0, of each item of the array that comes next.

        Raises:
            RowError: what comes next is no array.
        """
        self._open("[")
        number = 0
        while self._next() != "]":
            yield number
            number += 1
            self._comma("]")
        self._close()

    def starts(self) -> str:
        """Return the first character of what comes next: "{" of an object, "[" of an array; "" at the end."""
        return self._next()

    def value(self) -> Any:
        """Return what comes next, decoded as a whole."""
        self._next()
        while True:
            try:
                with _no_collection():
                    value, end = self._decode(self._text, self._at)
            except RecursionError:
                raise RowError(self._name, None, "is nested too deep; is it the right file?") from None
            except ValueError as error:
                if not self._cut(error):
                    self._fail()
            else:
                # a number that the end of the text cuts off may go on: "0" and "0." of "0.5"
                if self._ended or self._text[end : end + 1] not in _GOES_ON or isinstance(value, str | list | dict):
                    self._at = end
                    return value
            self._fill()

    def finish(self) -> None:
        """Check that nothing comes after the outermost value."""
        if self._next():
            self._fail()

    def __enter__(self) -> JsonValues:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stream.close()

    def _cut(self, error: ValueError) -> bool:
        """Return whether a value may only be cut off by the end of the text that was read."""
        if self._ended:
            return False
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 16

    def _next(self) -> str:
        """Pass blanks over; return the next character, "" at the end of the file."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._fill()

    def _fill(self) -> None:
        """Read on, as much again as is left, so that a long value takes linear time; drop what was passed."""
        rest = self._text[self._at :]
        if len(rest) > _LONGEST:
            raise RowError(self._name, None, f"holds a value of more than {_LONGEST >> 20} MB; is it the right file?")
        data = self._stream.read(max(_CHUNK, len(rest)))
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            self._fail()
        self._passed += self._at
        self._text, self._at, self._ended = rest + more, 0, not data

    def _open(self, mark: str) -> None:
        if self._next() != mark:
            kind = "object ({...})" if mark == "{" else "list ([...])"
            raise RowError(self._name, None, f"has no JSON {kind} {self._place()}; is it the right file?")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RowError(self._name, None, f"is nested deeper than {_DEEPEST} levels; is it the right file?")
        self._at += 1

    def _close(self) -> None:
        self._depth -= 1
        self._at += 1

    def _comma(self, end: str) -> None:
        if self._next() == ",":
            self._at += 1
            if self._next() != end:
                return
        elif self._next() == end:
            return
        self._fail()

    def _place(self) -> str:
        return f"at character {self._passed + self._at + 1:,}"

    def _fail(self) -> NoReturn:
        if self._ended and self._at >= len(self._text):
            raise RowError(self._name, None, "ends in the middle of a JSON value; is the file whole?")
        raise RowError(self._name, None, f"is not JSON in UTF-8 from {self._place().removeprefix('at ')} on")


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector: a decoded value has no cycles, and looking for some takes longer than decoding."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _refuse(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def json_items(file: File, path: str) -> Iterator[Any]:
    """Yield the elements at a path of a JSON file of any size ("data.item.paragraphs.item"), one at a time.

    Raises:
        RowError: it is not JSON in UTF-8; elements before the fault are yielded first.
    """
    with JsonValues(file) as values:
        yield from _at_path(values, path.split("."))
        values.finish()


def _at_path(values: JsonValues, path: list[str]) -> Iterator[Any]:
    if not path:
        yield values.value()
    elif values.starts() == "[" and path[0] == "item":
        for _ in values.items():
            yield from _at_path(values, path[1:])
    elif values.starts() == "{":
        for key in values.keys():  # noqa: SIM118
            if key == path[0]:
                yield from _at_path(values, path[1:])
            else:
                values.value()
    else:
        values.value()
