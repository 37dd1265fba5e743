"""Spellings of labels, patients and ids: which cells of a table mean the same.

Cells that differ only in capitals, blanks, invisible characters, Unicode form or the form of a number (1, 1.0, "01";
0,5 and 0.5) mean one label and one patient. 0.50 beside 0.5 is reported and stays apart, since it may be another code.
A label's name is its most frequent spelling. Two patients who are taken for one cost a coarser split; two spellings
that are taken for two patients would put one patient on both sides of a split.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_LABEL = 100  # characters
MISSING_WORDS = frozenset({"nan", "none", "null", "<na>", "n/a", "na", "#n/a", "nat"}) | {
    "#ref!", "#value!", "#div/0!", "#name?", "#num!", "#null!",  # what Excel writes for a formula that fails
}  # fmt: skip
_NOBODY = MISSING_WORDS | {"", "-", "--", "?"}  # in a column of patients
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\ufeff\u00ad\u2060\u180e"))  # removed also within a name
_WHOLE = re.compile(r"(-?)0*(\d+)(?:[.,]0*)?")
_DECIMAL = re.compile(r"-?\d*[.,]\d+")
_RARE, _SHARE = 2, 0.05  # a rare label has at most so many rows, and at most this share of its look-alike's
_SHORTEST = 4  # letters of a label that may be a misspelled one
_ALIKE: dict[int, Any] = {  # letters that look like Latin ones; dashes and quotes as word processors write them
    **str.maketrans("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u03bf\u03b1", "aeopcyxijsoa"),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e"), '"'),
}  # fmt: skip


# --- one cell -------------------------------------------------------------------------------------------------------
def cell_text(value: Any) -> str | None:
    """Return a cell as text without blanks and invisible characters around it; None if it holds nothing.

    A whole number loses its ".0"; a boolean is "true" or "false". Composed and decomposed letters are one.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if value is None or isinstance(value, list | dict):
        return None
    text = str(value)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    return " ".join(text.split()) or None


def spelling_key(text: str) -> str:
    """Return what all spellings of one label or patient have in common."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        text = unicodedata.normalize("NFKC", text.casefold()).translate(_ALIKE)
    text = " ".join(text.casefold().split())
    if _DECIMAL.fullmatch(text):
        text = text.replace(",", ".")
    number = _WHOLE.fullmatch(text)
    return (number[1] if number[2] != "0" else "") + number[2] if number else text


def show_label(value: Any) -> str:
    """Return a label for a message, with invisible characters as escapes."""
    text = str(value)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def split_labels(value: Any) -> list[Any]:
    """Return the labels of a cell: a list as it is, a text split at semicolons, bars or commas; none if it is empty.

    A list that was written as text, such as "['a', 'b']" by pandas, is read as the list.
    """
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return [] if cell_text(value) is None else [value]
    text = value.strip()
    quoted = text[:1] + text[-1:] in ("[]", "()", "{}")
    parts = re.split(r"[;|,]", text[1:-1] if quoted else text)
    return [part for part in (p.strip().strip("'\"" if quoted else "").strip() for p in parts) if part]


# --- labels ---------------------------------------------------------------------------------------------------------
class LabelNames:
    """The names of a task's labels, and the spellings that mean them.

    Args:
        names: the task's labels. A cell that is spelled like one exactly is that one; other spellings are understood
            where they mean one label only.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.numeric = any(_WHOLE.fullmatch(name.strip()) for name in names)  # then a number is a name, no index
        self._found: dict[str, str | None] = {name: name for name in names}
        keys = Counter(map(spelling_key, names))
        self._by_key = {key: name for name in names if keys[key := spelling_key(name)] == 1}

    def find(self, value: Any) -> str | None:
        """Return the name that a cell means; None if it means none of them."""
        if isinstance(value, str):
            if value not in self._found:
                found = self._search(value)
                if len(self._found) > 10_000:
                    return found
                self._found[value] = found
            return self._found[value]
        text = cell_text(value)
        return None if text is None else self.find(text)

    def _search(self, value: str) -> str | None:
        text = cell_text(value)
        if text is None or len(text) > LONGEST_LABEL:
            return None
        return text if text in self.names else self._by_key.get(spelling_key(text))

    def near(self, value: Any) -> str | None:
        """Return the name of which a cell may be a misspelling."""
        text = cell_text(value)
        if text is None or len(text) > LONGEST_LABEL:
            return None
        key = spelling_key(text)
        return next((name for name in self.names if _is_near(key, spelling_key(name))), None)


def label_problem(names: LabelNames, column: str, value: Any, text: str | None) -> str:
    """Return what is wrong with a cell that holds no label.

    The value is in the message only where it is a label and no note: where it resembles a label, or is one word beside
    a text that is longer.

    Args:
        text: of the row; None in a table without texts.
    """
    known = ", ".join(map(show_label, names.names)) if len(names.names) <= 24 else f"{len(names.names)} known labels"
    written = cell_text(value)
    if written is None:
        return f"column {column!r} is empty"
    near = names.near(value)
    word = " " not in written and len(written) <= 20 and (text is None or len(text.split()) > 2)
    what = f" {show_label(written)!r}," if near or word else ""
    hint = f"; is {show_label(near)!r} meant?" if near else ""
    return f"column {column!r} holds{what} no known label; expected one of {known}{hint}"


class Spellings:
    """Count how the labels of a column are spelled, to find their names."""

    def __init__(self) -> None:
        self.rows: dict[str, Counter[str]] = {}  # by key: rows of each spelling
        self.first: dict[str, tuple[str, int]] = {}  # file and number of the first row of each key
        self._key: dict[str, str] = {}

    def add(self, value: Any, number: int, file: str = "") -> bool:
        """Count a cell; return False if it holds no label."""
        written = value if isinstance(value, str) else cell_text(value)
        key = self._key.get(written) if written is not None else None
        if key is None:
            text = cell_text(value)
            if text is None or len(text) > LONGEST_LABEL:
                return False
            key = spelling_key(text)
            if len(self._key) < 10_000:
                self._key[str(written)] = key
        if key not in self.first:
            self.first[key] = (file, number)
        self.rows.setdefault(key, Counter())[str(written)] += 1
        return True

    def names(self) -> list[str]:
        """Return the name of each label, sorted (numbers by value): its most frequent spelling."""
        names = sorted(str(cell_text(_most_frequent(spelled))) for spelled in self.rows.values())
        return (
            sorted(names, key=lambda n: float(n.replace(",", ".")))
            if all(_WHOLE.fullmatch(name) for name in names)
            else names
        )

    def counts(self) -> dict[str, int]:
        """Return the rows of each label, by its name, in the order of `names`."""
        rows = {str(cell_text(_most_frequent(spelled))): spelled.total() for spelled in self.rows.values()}
        return {name: rows[name] for name in self.names()}

    def merged(self) -> list[str]:
        """Return a sentence for each label with several spellings."""
        return [
            f"{', '.join(f'{_show_spelling(s)} ({n:,})' for s, n in spelled.most_common(6))} are one label: "
            f"{show_label(cell_text(_most_frequent(spelled)))!r}"
            for spelled in self.rows.values()
            if len(spelled) > 1
        ]

    def doubtful(self) -> list[tuple[str, tuple[str, int], str]]:
        """Return (label, file and number of its first row, what is doubtful) of look-alikes and names of nothing."""
        count = {key: spelled.total() for key, spelled in self.rows.items()}
        name = {key: show_label(cell_text(_most_frequent(spelled))) for key, spelled in self.rows.items()}
        found = []
        for key in self.rows:
            if key in MISSING_WORDS:
                found.append((name[key], self.first[key], "reads like a missing value and is kept as a label"))
            for other in self.rows:
                if other == key or (count[key], key) > (count[other], other):
                    continue
                if _DECIMAL.fullmatch(key) and _DECIMAL.fullmatch(other) and float(key) == float(other):
                    found.append((name[key], self.first[key], f"is the same number as {name[other]!r}"))
                    continue
                rare = count[key] <= max(1, min(_RARE, _SHARE * count[other]))
                letters, others = (re.sub(r"[\W_]", "", k) for k in (key, other))
                if letters == others and len(letters) >= _SHORTEST and letters.isalpha():
                    found.append((name[key], self.first[key], f"differs from {name[other]!r} in signs only"))
                elif rare and _is_near(key, other):
                    rows = "once" if count[key] == 1 else f"{count[key]} times"
                    found.append((name[key], self.first[key], f"occurs {rows} and looks like {name[other]!r}"))
        return found


def _most_frequent(spelled: Mapping[str, int]) -> str:
    """Return the most frequent spelling; of equally frequent ones the plainest and shortest, in small letters."""
    return max(spelled, key=lambda s: (spelled[s], s.isascii(), -len(s), s))


def _show_spelling(text: str) -> str:
    """Return a spelling for a message; a decomposed letter looks like a composed one and is written as escapes."""
    return ascii(text) if unicodedata.normalize("NFC", text) != text else repr(show_label(text)).replace("\\\\", "\\")


def _is_near(a: str, b: str) -> bool:
    """Return whether two keys differ in one letter, or in the order of two, and in no digit."""
    if min(len(a), len(b)) < _SHORTEST or abs(len(a) - len(b)) > 1 or a == b:
        return False
    if re.sub(r"\D", "", a) != re.sub(r"\D", "", b):
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest, other = a[start:], b[start:]
    if len(a) == len(b):
        return rest[1:] == other[1:] or (rest[1::-1] == other[:2] and rest[2:] == other[2:])
    return rest[1:] == other if len(a) > len(b) else rest == other[1:]


# --- patients and ids -----------------------------------------------------------------------------------------------
class Patients:
    """The patients (groups) of a table, each under its first spelling."""

    def __init__(self) -> None:
        self._name: dict[str, str] = {}  # by key
        self._known: dict[str, str | None] = {}  # by spelling
        self.respelled: set[str] = set()  # patients with several spellings
        self.nobody: Counter[str] = Counter()  # words that name nobody; "" for empty cells

    def __len__(self) -> int:
        return len(self._name)

    def name(self, value: Any) -> str | None:
        """Return the patient that a cell names; None for nobody."""
        if isinstance(value, str) and value in self._known:
            found = self._known[value]
            if found is None:
                self.nobody[value.strip()] += 1
            return found
        text = cell_text(value)
        key = None if text is None else spelling_key(text)
        if text is None or key in _NOBODY:
            self.nobody[text or ("a list" if isinstance(value, list | dict) else "")] += 1
            found = None
        else:
            found = self._name.setdefault(str(key), text)
            if found != text or (isinstance(value, str) and value != found):
                self.respelled.add(found)
        if isinstance(value, str):
            self._known[value] = found
        return found


class Ids:
    """Ids of rows that differ: one that comes again, or is empty, is made from the row's number."""

    def __init__(self, start: str) -> None:
        self.start = start
        self._seen: set[int] = set()  # digests: the texts of millions of ids are not held
        self.repeated = 0

    def new(self, value: Any, number: int) -> str:
        """Return the id of a row."""
        text = cell_text(value)
        id = f"{self.start}-{number}" if text is None else value if isinstance(value, str) else text
        if hash(id) in self._seen:
            self.repeated += text is not None
            id = f"{id}-{number}"
            while hash(id) in self._seen:
                id += "+"
        self._seen.add(hash(id))
        return id
