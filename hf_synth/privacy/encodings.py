"""Text that is written as base64, hexadecimal or decimal codes: what it stands for, so that it can be compared."""

from __future__ import annotations

import base64
import re

_FEWEST = 16  # characters that are worth comparing
_PLAIN, _LETTERS = 0.9, 0.6  # least shares of characters that can be read, and of letters, in what counts as text

# Lines of base64, also in the alphabet for addresses. The last line may be short: what is lost is under 15 characters.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}(?:\s{1,4}[A-Za-z0-9+/_-]{20,})*")
_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{2}(?:[\s:,-]{0,2}[0-9A-Fa-f]{2}){15,}")
_DECIMAL = re.compile(r"(?<!\d)\d{2,3}(?:[\s,;]{1,2}\d{2,3}){15,}")
_ADDRESS = str.maketrans("-_", "+/")


def decoded(text: str) -> str:
    """Return what runs of base64, hexadecimal or decimal codes in a text stand for, joined; "" where there are none.

    Runs of other letters and numbers decode to characters that no text has, and are left out. Time is linear.
    """
    found = [_decode_run(run) for run in _BASE64.findall(text)]
    found += [bytes.fromhex(re.sub(r"[^0-9A-Fa-f]", "", run)).decode("utf-8", "replace") for run in _HEX.findall(text)]
    found += ["".join(chr(int(code)) for code in re.findall(r"\d+", run)) for run in _DECIMAL.findall(text)]
    return " ".join(part for part in found if _is_text(part))


def _decode_run(run: str) -> str:
    letters = re.sub(r"\s+", "", run).translate(_ADDRESS)
    return base64.b64decode(letters[: len(letters) // 4 * 4]).decode("utf-8", "replace")


def _is_text(part: str) -> bool:
    """Return whether most characters are those of a text."""
    plain = sum(c.isprintable() or c in "\t\n\r" for c in part if c != "\ufffd")
    letters = sum(map(str.isalpha, part))
    return len(part) >= _FEWEST and plain >= _PLAIN * len(part) and letters >= _LETTERS * len(part)
