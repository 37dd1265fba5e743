"""Text normalisation (Unicode folding, look-alikes) and rolling hashes of words and n-grams in numpy.

Folding removes what a reader does not see or does not mind: case, accents, punctuation, invisible characters, escapes,
and letters of other alphabets that look like Latin ones. The texts of a batch are concatenated as bytes. Words and
windows get 64-bit hashes from running sums, so the time is linear in the bytes and does not depend on the window. The
hashes are the same in every process.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from html.entities import html5
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from hf_synth.task.labels import Ints

Row = tuple[str, ...]  # the texts of one row
Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]

_WORD = re.compile(r"[^\W_]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_CUT = re.compile(r"(?<=[A-Za-z])-\s+(?=[A-Za-z])")  # the hyphen at the end of a line

# Letters that look like Latin ones (after the shapes in Unicode's confusables, the ones met in running text).
_LOOK_ALIKE = str.maketrans(
    "АВЕКМНОРСТУХІЈЅԌԚԜҺ" + "авекмнорстухіјѕԍԛԝһӏѵєҽ"
    + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹ" + "αβεικμνορτυχωϲϳγ" + "ıłøđħƒɡɑʏɪɴʀʙʜʟᴀᴄᴅᴇᴊᴋᴍᴏᴘᴛᴜᴠᴡᴢꜱ" + "օսոհցզ",
    "abekmhopctyxijsgqwh" + "abekmhopctyxijsgqwhlvee"
    + "abezhikmnoptyxc" + "abeikuvoptuxwcjy" + "ilodhfgayinrbhlacdejkmoptuvwzs" + "ounhgq",
)  # fmt: skip
_FORMS = (  # HTML's
    "a|b|i|u|s|q|p|br|wbr|hr|em|strong|span|div|font|small|sup|sub|code|pre|del|ins|mark|h[1-6]|li|ul|ol|table|tr|td|th"
)
_ATTRIBUTE = r"\s+[\w-]+=(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s<>\"']+)"
# What a program resolves or leaves out before anybody reads the text: tags and escapes of HTML, escapes of addresses,
# of JSON and Python; each with the sign that it begins with. A sign may be escaped itself, any number of times.
_ESCAPES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (
        "<",
        re.compile(rf"<(?:!--.{{0,200}}?--|/?(?:{_FORMS})(?:{_ATTRIBUTE}){{0,20}}\s?/?)>", re.IGNORECASE | re.DOTALL),
        lambda _: " ",
    ),
    (
        "&",
        re.compile(r"&(?:(?:amp|#38|#[xX]26);)*(#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"),
        lambda match: _of_html(match),
    ),
    (
        "%",
        re.compile(r"%(?:25)*[0-9A-Fa-f]{2}(?:%(?:25)*[0-9A-Fa-f]{2})*"),
        lambda match: unquote(re.sub("%(?:25)*(?=[0-9A-Fa-f]{2})", "%", match[0]), errors="replace"),
    ),
    ("\\", re.compile(r"(?<!\\)\\+(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|[nrt])"), lambda match: _of_json(match)),
)
_HIDDEN = re.compile(r"<!--(.*)-->\Z|=(\"[^\"]*\"|'[^']*'|[^\s>\"']+)", re.DOTALL)  # in a tag of HTML
_TIMES = 3  # escapes of one kind may be escaped as another
_TAGS = {0xE0000 + c: c for c in range(0x20, 0x7F)}  # invisible letters, which stand for ASCII
_HYPHENS = "\u2010\u2011\u2012\u2043\u2212"
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5")  # letters by name that are invisible


def fold(text: str) -> str:
    """Replace look-alikes, accents, wide and invisible characters by plain ones, and resolve escapes.

    The case of ASCII stays.
    """
    for _ in range(2):  # a wide "&" may begin an escape
        text = resolve_escapes(text)
        if text.isascii() or text == (plain := _NOT_ASCII.sub(lambda match: _plain(match[0]), text)):
            break
        text = plain
    return text


def resolve_escapes(text: str) -> str:
    """Take out tags of HTML, and resolve escapes (`&nbsp;`, `\\u00e4`, `%20`) and invisible letters.

    What tags and comments of HTML hold comes at the end, where it parts no words and is compared like other text.
    """
    for _ in range(_TIMES):
        before = text
        for sign, pattern, plain in _ESCAPES:
            if sign in text:
                hidden = _hidden_in(pattern, text) if sign == "<" else ""
                text = pattern.sub(plain, text) + hidden
        if text == before:
            break
    return text if text.isascii() else text.translate(_TAGS)


def _hidden_in(tags: re.Pattern[str], text: str) -> str:
    """Return what tags hold that a browser does not show: comments, and the values of attributes."""
    found = (part for tag in tags.findall(text) for hidden in _HIDDEN.findall(tag) for part in hidden if part)
    return "".join(f" {part}" for part in found)


def _of_html(match: re.Match[str]) -> str:
    """Return what an entity of HTML stands for; an unknown one stays."""
    name = match[1]
    return html.unescape(f"&{name};") if name[0] == "#" else html5.get(f"{name};", match[0])


def _of_json(match: re.Match[str]) -> str:
    """Return what an escape of JSON or Python stands for."""
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else " "


@functools.lru_cache(maxsize=1 << 16)
def _plain(character: str) -> str:
    """Return one character in plain ones: a space where there are none, "" where it is invisible."""
    plain = []
    for c in unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", character).translate(_LOOK_ALIKE).casefold()):
        if c in _HYPHENS:
            plain.append("-")
        if c in _HYPHENS or c in _BLANK or unicodedata.category(c) in ("Mn", "Me", "Cf"):
            continue
        c = c.translate(_LOOK_ALIKE)
        digit = unicodedata.decimal(c, None)
        plain.append(str(digit) if digit is not None else c if c.isalnum() or c.isascii() else " ")
    return "".join(plain)


def words_of(text: str) -> list[str]:
    """Split a text into words of its own alphabet: lower case, no punctuation, no invisible characters."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return _WORD.findall(text.lower())


def digest(row: Row) -> bytes:
    """Digest the folded words of a row (16 bytes): equal for texts that differ in case, space or punctuation alone."""
    plain = ("\x1f".join(" ".join(_WORD.findall(fold(t).lower())) for t in row)).encode("utf-8", "surrogatepass")
    return blake2b(plain, digest_size=16).digest()


def scramble(x: Hashes) -> Hashes:
    """Scramble 64-bit numbers (the finaliser of the splitmix64 generator)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# The code of each byte: 0 ends a word; ASCII letters in lower case, digits, and the bytes of other letters as they are.
_CODES = np.array(
    [ord(chr(b).lower()) if b < 128 and chr(b).isalnum() else b if b >= 128 else 0 for b in range(256)], np.uint8
)
_BYTE = scramble(np.arange(1, 257, dtype=np.uint64))  # a hash of each byte
_DIGIT = np.array([48 <= b <= 57 for b in range(256)])
_STEP = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64


@functools.lru_cache(maxsize=4)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Return the powers of `_STEP` and of its inverse modulo 2**64."""
    up, down = np.full(size, _STEP, np.uint64), np.full(size, pow(_STEP, -1, 1 << 64), np.uint64)
    up[0] = down[0] = 1
    return np.cumprod(up, dtype=np.uint64), np.cumprod(down, dtype=np.uint64)


def _spans(values: Hashes, begin: Ints | slice, end: Ints | slice) -> Hashes:
    """Hash spans of numbers from one running sum; equal spans have equal hashes wherever they begin."""
    size = 1 << max(10, len(values).bit_length())
    up, down = _powers(size)
    total = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * up[: len(values)], out=total[1:])
    return scramble((total[end] - total[begin]) * down[: len(values) + 1][begin])


@dataclass(frozen=True)
class Units:
    """N concatenated texts.

    Args:
        n: number of texts.
        words: (W,) a hash of each word.
        word_unit: (W,) the number of its text, ascending.
        numbers: (W,) whether it consists of digits.
        letters: (L,) a hash of each byte of a letter; no digits, spaces or signs.
        letter_unit: (L,) the number of its text, ascending.
    """

    n: int
    words: Hashes
    word_unit: Numbers
    numbers: Bools
    letters: Hashes
    letter_unit: Numbers

    @classmethod
    def of(cls, texts: Sequence[str]) -> Units:
        """Concatenate texts; pass some megabytes at a time to keep the arrays small."""
        parts = [_uncut(fold(t)).encode("utf-8", "surrogatepass") for t in texts]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts)) + 1
        codes = _CODES[np.frombuffer(b"\0".join([*parts, b""]), np.uint8)]
        unit = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
        inside, digit = codes > 0, _DIGIT[codes]
        edges = np.diff(inside.astype(np.int8), prepend=np.int8(0), append=np.int8(0))
        begin, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        count = np.concatenate(([0], np.cumsum(digit)))
        letter = inside & ~digit
        return cls(
            n=len(parts),
            words=_spans(_BYTE[codes], begin, end),
            word_unit=unit[begin],
            numbers=count[end] - count[begin] == end - begin,
            letters=_BYTE[codes[letter]],
            letter_unit=unit[letter],
        )

    def windows(self, size: int) -> tuple[Hashes, Bools]:
        """Hash each window of so many words; return the hashes, and a mask of the windows inside one text."""
        return _windows(self.words, self.word_unit, size)

    def letter_windows(self, size: int) -> tuple[Hashes, Bools]:
        """Hash each window of so many letters, like `windows`."""
        return _windows(self.letters, self.letter_unit, size)

    def lengths(self) -> Ints:
        """Return the number of words of each text, (N,)."""
        return np.bincount(self.word_unit, minlength=self.n).astype(np.int64)

    def in_order(self) -> Hashes:
        """Hash the words of each text in their order, (N,); 0 for one without words."""
        place = np.searchsorted(self.word_unit, np.arange(self.n + 1))
        hashes = _spans(self.words, place[:-1], place[1:])
        hashes[place[:-1] == place[1:]] = 0
        return hashes

    def in_any_order(self, *, numbers: bool) -> Hashes:
        """Hash the words of each text whatever their order, (N,); 0 for one without words.

        Args:
            numbers: whether words that consist of digits count.
        """
        values = scramble(self.words)
        if not numbers:
            values[self.numbers] = 0
        total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)))
        place = np.searchsorted(self.word_unit, np.arange(self.n + 1))
        return total[place[1:]] - total[place[:-1]]


def _uncut(text: str) -> str:
    """Join words that a hyphen at the end of a line cuts."""
    return _CUT.sub("", text) if "-" in text else text


def _windows(values: Hashes, unit: Numbers, size: int) -> tuple[Hashes, Bools]:
    n = max(0, len(values) - size + 1)
    if not n:
        return np.zeros(0, np.uint64), np.zeros(0, bool)
    return _spans(values, slice(0, n), slice(size, size + n)), unit[:n] == unit[size - 1 :]
