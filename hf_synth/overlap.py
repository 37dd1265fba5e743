"""What texts share with other texts, exactly and in linear time: word windows in a sorted index, MinHash for the rest.

A text is taken as its words (`words_of`). Every window of WINDOW words of the indexed texts is hashed to 64 bits; a
text is held against them window by window, and windows that follow each other form a run. numpy does the work; of the
MinHash, rensa.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import eq
from typing import Literal

import numpy as np
import numpy.typing as npt

# Eight words in a row seldom come together twice by chance outside set phrases; shorter windows flag plain phrasing.
WINDOW = 8
# A window that three patients share is a phrase of the house, not of a person.
BOILERPLATE_GROUPS = 3
# Near-duplicates: similarity (Jaccard) of 4-word shingles, estimated from 72 minima in 12 bands of 6, which finds 97%
# of the pairs at similarity .8 and nearly all above .9.
SHINGLE, NEAR_DUPLICATE, BANDS, BAND_ROWS = 4, 0.8, 12, 6

_WORD = re.compile(r"[^\W_]+")
_CHUNK = 4_000  # rows at a time: bounds memory

Row = tuple[str, ...]  # the texts of one row
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]


def words_of(text: str) -> list[str]:
    """Give the words of a text as they are compared: lower case, no punctuation, no invisible characters."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return _WORD.findall(text.lower())


def digest(row: Row) -> bytes:
    """Digest the words of a row (16 bytes): equal for texts that differ in case, space or punctuation alone."""
    return blake2b("\x1f".join(" ".join(words_of(t)) for t in row).encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Reach:
    """How far each of N rows reaches into the texts of one group (a patient, a note), the one it reaches furthest into.

    One group, since ordinary notes are mosaics of phrases of many others, while a copy holds one of them. Of several
    texts in a row the furthest counts.

    Args:
        runs: (N,) longest run in words, boilerplate windows left out.
        share: (N,) containment: of a text's windows that are not boilerplate, the share that stands in the group.
        matches: (N,) how many windows do.
    """

    runs: Ints
    share: Floats
    matches: Ints


@dataclass(frozen=True)
class Index:
    """Windows of texts as sorted hashes.

    Args:
        rare: (R,) windows of fewer than BOILERPLATE_GROUPS groups.
        owners: (R, BOILERPLATE_GROUPS - 1) the groups of each, -1 where there are fewer.
        boilerplate: windows of more groups.
        n_groups: number of groups.
        vocabulary: number of each word seen so far.
    """

    rare: Hashes
    owners: Ints
    boilerplate: Hashes
    n_groups: int
    vocabulary: dict[str, int] = field(repr=False)

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Row]]) -> Index:
        """Index rows given as (group, texts); equal texts once, so that copies of one note are no boilerplate."""
        texts: dict[str, int] = {}
        groups: dict[str, int] = {}
        for group, row in rows:
            number = groups.setdefault(group, len(groups))
            for text in row:
                texts.setdefault(" ".join(words_of(text)), number)
        vocabulary: dict[str, int] = {}
        stream, units = _stream([text.split() for text in texts], vocabulary)
        hashes, valid = _windows(stream, WINDOW)
        hashes, group_of = hashes[valid], np.array([*texts.values()], np.int64)[units[: len(hashes)][valid]]
        order = np.lexsort((group_of, hashes))
        hashes, group_of = hashes[order], group_of[order]
        new = np.ones(len(hashes), bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (group_of[1:] != group_of[:-1])  # each group counts once
        distinct, first, counts = np.unique(hashes[new], return_index=True, return_counts=True)
        known = counts >= BOILERPLATE_GROUPS
        group_of, first, few = group_of[new], first[~known], counts[~known]
        owners = np.full((len(first), BOILERPLATE_GROUPS - 1), -1, np.int64)
        for k in range(BOILERPLATE_GROUPS - 1):
            owners[few > k, k] = group_of[first[few > k] + k]
        return cls(distinct[~known], owners, distinct[known], len(groups), vocabulary)

    def reach(self, rows: Sequence[Row]) -> Reach:
        """Hold rows against the index.

        A run is a stretch of words each of whose windows stands in the index. Windows of boilerplate, or of another
        group, join a run without adding to its length.
        """
        runs, share, matches = np.zeros(len(rows), np.int64), np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), _CHUNK):
            texts = [(start + i, words_of(t)) for i, row in enumerate(rows[start : start + _CHUNK]) for t in row]
            owner = np.array([i for i, _ in texts], np.int64)
            stream, units = _stream([w for _, w in texts], self.vocabulary)
            hashes, valid = _windows(stream, WINDOW)
            place, rare = _find(self.rare, hashes)
            rare &= valid
            if not rare.any():
                continue
            set_phrase = valid & _find(self.boilerplate, hashes)[1]
            inside = rare | set_phrase
            unit, groups = units[: len(hashes)], self.owners[place[rare]]
            matched = self._most(unit[rare], groups, len(texts))
            own = np.bincount(unit[valid & ~set_phrase], minlength=len(texts))
            np.maximum.at(share, owner, matched / np.maximum(1, own))
            np.maximum.at(matches, owner, matched)
            begins = inside.copy()
            begins[1:] &= ~inside[:-1]
            counted = self._most((np.cumsum(begins) - 1)[rare], groups, int(begins.sum()))
            np.maximum.at(runs, owner[unit[begins]], np.where(counted > 0, counted + WINDOW - 1, 0))
        return Reach(runs, share, matches)

    def _most(self, place: Ints, groups: Ints, n: int) -> Ints:
        """Count windows by place (a text, a run) and group; give for each of n places the most that one group has."""
        most = np.zeros(n, np.int64)
        keys = (place[:, None] * max(1, self.n_groups) + groups)[groups >= 0]
        found, counts = np.unique(keys, return_counts=True)
        np.maximum.at(most, found // max(1, self.n_groups), counts)
        return most


class Seen:
    """Texts that came before, so that one that repeats them is known, exactly or almost, in constant time each.

    Almost: a MinHash estimate of NEAR_DUPLICATE or more, against the first text of each bucket.
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self._buckets = _Places()
        self._sketches: list[array[int]] = []  # minima only: rensa's own objects take five times as much

    def repeat(self, row: Row) -> Literal["duplicate", "near_duplicate"] | None:
        """Tell whether a row repeats an earlier one; one that does not is remembered. One without text never does."""
        if not any(row):
            return None
        name = digest(row)
        if name in self._digests:
            return "duplicate"
        if minima := _sketch(row):
            # hashes of numbers alone: the same in every process
            places = [hash((b, *minima[b * BAND_ROWS : (b + 1) * BAND_ROWS])) for b in range(BANDS)]
            found = {self._buckets.get(place) for place in places}
            for other in (number for number in found if number is not None):
                if sum(map(eq, minima, self._sketches[other])) >= NEAR_DUPLICATE * len(minima):
                    return "near_duplicate"
            for place in places:
                self._buckets.add(place, len(self._sketches))
            self._sketches.append(minima)
        self._digests.add(name)
        return None


class _Places:
    """A dict from hashes to small numbers in a sixth of a dict's memory: open addressing in two arrays."""

    def __init__(self) -> None:
        self._count = 0
        self._keys, self._values = array("Q", bytes(8 << 10)), array("I", bytes(4 << 10))  # key 0: a free slot

    def get(self, place: int) -> int | None:
        """Give the number of a hash; None for one that never came."""
        at = self._slot(place & 0xFFFFFFFFFFFFFFFF or 1)
        return self._values[at] if self._keys[at] else None

    def add(self, place: int, number: int) -> None:
        """Give a hash its number; the first one stays."""
        key = place & 0xFFFFFFFFFFFFFFFF or 1
        at = self._slot(key)
        if self._keys[at]:
            return
        self._keys[at], self._values[at] = key, number
        self._count += 1
        if 3 * self._count > 2 * len(self._keys):
            self._grow()

    def _slot(self, key: int) -> int:
        mask = len(self._keys) - 1
        at = key & mask
        while self._keys[at] not in (0, key):
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._keys, self._values = array("Q", bytes(16 * len(keys))), array("I", bytes(8 * len(keys)))
        for key, value in zip(keys, values, strict=True):
            if key:
                at = self._slot(key)
                self._keys[at], self._values[at] = key, value


def _sketch(row: Row) -> array[int] | None:
    """Give the minima of a row's shingles under BANDS x BAND_ROWS hashes; None for a row too short to have one."""
    from rensa import RMinHash

    words = words_of(" ".join(row))
    if len(words) < SHINGLE:
        return None
    sketch = RMinHash(num_perm=BANDS * BAND_ROWS, seed=0)
    sketch.update([" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)])
    return array("I", sketch.digest())


def repeats(rows: Sequence[Row]) -> tuple[Ints, Ints]:
    """Give the numbers of rows that repeat an earlier one exactly, and of those that almost do (none without text)."""
    seen = Seen()
    found = [seen.repeat(row) for row in rows]
    exact, near = (
        np.array([i for i, repeat in enumerate(found) if repeat == kind], np.int64)
        for kind in ("duplicate", "near_duplicate")
    )
    return exact, near


def _stream(texts: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> tuple[Ints, Ints]:
    """Give the word numbers of all texts, each followed by a 0, and the number of the text at each place."""
    flat: list[int] = []
    for words in texts:
        flat.extend([vocabulary.setdefault(w, len(vocabulary) + 1) for w in words])
        flat.append(0)
    lengths = np.array([len(words) + 1 for words in texts], np.int64)
    return np.array(flat, np.int64), np.repeat(np.arange(len(texts)), lengths)


def _windows(stream: Ints, size: int) -> tuple[Hashes, Bools]:
    """Hash each window of words; a window that reaches over the end of a text is not valid."""
    n = max(0, len(stream) - size + 1)
    mixed = _mix(stream.astype(np.uint64))
    hashes, valid = np.zeros(n, np.uint64), np.ones(n, bool)
    for k in range(size):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + mixed[k : k + n]
        valid &= stream[k : k + n] > 0
    return _mix(hashes), valid


def _mix(x: Hashes) -> Hashes:
    """Scatter 64-bit numbers (the finaliser of the splitmix64 generator)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _find(known: Hashes, hashes: Hashes) -> tuple[Ints, Bools]:
    """Give where each hash would stand among sorted ones, and whether it does."""
    if not len(known):
        return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
    place = np.searchsorted(known, hashes)
    place[place == len(known)] = 0
    return place, known[place] == hashes
