"""What texts share with gold, exactly and in linear time: windows of words and of letters in a sorted index.

Windows of WINDOW words give what a person can check: the longest run of gold's words, and how many of a text's windows
stand in gold (containment). Windows of LETTERS letters, without the spaces, signs and digits between them, see through
hyphens, other numbers, and words glued together or torn apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from hf_synth.privacy.folding import Bools, Floats, Hashes, Ints, Numbers, Row, Units, mix

# Eight words in a row seldom come together twice by chance outside set phrases; shorter windows flag plain phrasing.
WINDOW = 8
# About five words: short sentences that change places still hold some.
LETTERS = 24
# A window that three patients share is a phrase of the house, not of a person.
BOILERPLATE_GROUPS = 3

# What counts as copied. Each figure was read off clean texts and copies of the artificial clinic, of texts of nonsense
# words between set phrases, and of MTS-Dialog (`benchmarks/audit.py` measures them again).
# Longest run: set phrases joined by accident reach 17 to 21 words and 98 letters in clean notes; copied spans of 40
# words count 24 or more, and 26 where every second sentence is a set phrase.
MAX_RUN, MAX_LETTER_RUN = 24, 110
# Near-copies: with 6% of its words changed, .94**8 = 61% of a note's windows survive; ordinary notes share few.
MAX_CONTAINMENT = 0.30
# ... but the joint of two set phrases is 7 windows of words, and may be all that a short note has of its own.
MIN_MATCHES, MIN_LETTERS = 8, 40
# Pieces of one note all over a row; clean rows share up to 75 windows of letters with one note.
MAX_LETTERS, MAX_LETTER_SHARE = 100, 0.10
# ... but with few notes of gold it is not known which phrases are boilerplate.
FEW_GROUPS = 50
# A text of fewer words is not called a copy for having the same words in another order.
FEW_WORDS = 24

_CHUNK, _CHUNK_CHARACTERS = 2_000, 2_000_000  # rows at a time: bounds memory
_Item = TypeVar("_Item")


class Reach(NamedTuple):
    """How far each of N rows reaches into the texts of one group (a patient, a note), the one it reaches furthest into.

    One group, since ordinary notes are mosaics of phrases of many others, while a copy holds one of them. Of a row with
    several texts each text counts, and all of them as one; the furthest one is given.

    Args:
        runs: (N,) longest run in words, boilerplate windows left out.
        share: (N,) containment: of a text's windows that are not boilerplate, the share that stands in the group.
        matches: (N,) how many windows do.
        letter_runs: (N,) as `runs`, in letters.
        letter_share: (N,) as `share`, of windows of letters.
        letters: (N,) as `matches`, of windows of letters.
        pieces: (N,) much of one group's wording stands in it, though it is not most of it.
        group: (N,) number of the group (`Index.groups`) that `letters` tells of; -1 where there is none.
        same: (N,) the row's words, or those of a longer text in it, are those of a text of gold, in whatever order.
    """

    runs: Ints
    share: Floats
    matches: Ints
    letter_runs: Ints
    letter_share: Floats
    letters: Ints
    pieces: Bools
    group: Ints
    same: Bools

    def spans(self) -> Bools:
        """Tell which rows hold a long run of one group's words or letters."""
        long: Bools = (self.runs >= MAX_RUN) | (self.letter_runs >= MAX_LETTER_RUN)
        return long

    def near(self) -> Bools:
        """Tell which rows consist of one group's wording, or hold much of it in pieces."""
        words = (self.share > MAX_CONTAINMENT) & (self.matches >= MIN_MATCHES)
        letters = (self.letter_share > MAX_CONTAINMENT) & (self.letters >= MIN_LETTERS)
        near: Bools = words | letters | self.pieces
        return near


class _Table:
    """Windows of gold by hash, with the groups of each that few groups have; the others are boilerplate.

    The hashes are sorted, and spread evenly: their first bits say where to look, so that a search takes a step or two.
    """

    def __init__(self, hashes: Hashes, groups: Numbers) -> None:
        order = np.lexsort((groups, hashes))
        hashes, groups = hashes[order], groups[order]
        new = np.ones(len(hashes), bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (groups[1:] != groups[:-1])  # each group counts once
        self._hashes, first, counts = np.unique(hashes[new], return_index=True, return_counts=True)
        groups = groups[new]
        self._owners = np.full((len(first) + 1, BOILERPLATE_GROUPS - 1), -1, np.int32)  # boilerplate has none
        for k in range(BOILERPLATE_GROUPS - 1):
            has = (counts > k) & (counts < BOILERPLATE_GROUPS)
            self._owners[:-1][has, k] = groups[first[has] + k]
        self.boilerplate = int((counts >= BOILERPLATE_GROUPS).sum())
        bits = max(4, (2 * len(first)).bit_length())
        self._shift = np.uint64(64 - bits)
        buckets = np.bincount((self._hashes >> self._shift).astype(np.int64), minlength=1 << bits)
        self._starts = np.concatenate(([0], np.cumsum(buckets))).astype(np.int32)

    def find(self, hashes: Hashes, valid: Bools) -> tuple[Bools, Bools, Ints]:
        """Tell which windows are rare, which are boilerplate, and the groups of the rare ones, (R, 2)."""
        bucket = hashes >> self._shift
        place, end = self._starts[bucket], self._starts[bucket + np.uint64(1)]
        found = np.full(len(hashes), -1, np.int32)
        at = np.flatnonzero(valid & (place < end))
        while len(at):
            here = place[at]
            hit = self._hashes[here] == hashes[at]
            found[at[hit]] = here[hit]
            at = at[~hit]
            place[at] += 1
            at = at[place[at] < end[at]]
        owners = self._owners[found]
        rare = (found >= 0) & (owners[:, 0] >= 0)
        return rare, (found >= 0) & ~rare, owners[rare].astype(np.int64)


@dataclass(frozen=True)
class Index:
    """Texts of gold, ready to be compared with.

    Args:
        groups: number of each group.
        copies: (C,) hashes of whole texts, ascending.
        words: windows of words.
        letters: windows of letters.
    """

    groups: dict[str, int] = field(repr=False)
    copies: Hashes = field(repr=False)
    words: _Table = field(repr=False)
    letters: _Table = field(repr=False)

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Row]]) -> Index:
        """Index rows given as (group, texts); equal texts once, so that copies of one note are no boilerplate."""
        groups: dict[str, int] = {}
        seen: set[int] = set()
        copies: list[Hashes] = []
        none = np.zeros(0, np.uint64), np.zeros(0, np.int32)
        gathered: tuple[list[Any], ...] = tuple([n] for n in (*none, *none))
        for chunk in _chunks(rows, lambda item: item[1]):
            texts, owner = _texts([row for _, row in chunk])
            numbers = np.array([groups.setdefault(group, len(groups)) for group, _ in chunk], np.int64)[owner]
            units = Units.of(texts)
            keys = _copy_keys(units)
            copies += keys
            fresh = np.zeros(len(texts), bool)
            for i, key in enumerate(keys[0].tolist()):
                if key not in seen:
                    seen.add(key)
                    fresh[i] = True
            for part, more in zip(gathered, _gold_windows(units, numbers, fresh), strict=True):
                part.append(more)
        words, word_groups, letters, letter_groups = map(np.concatenate, gathered)
        known = np.unique(np.concatenate([np.zeros(0, np.uint64), *copies]))
        tables = _Table(words, word_groups), _Table(letters, letter_groups)
        return cls(groups, known[known > 0], *tables)

    @property
    def boilerplate(self) -> int:
        """Give the number of windows of words that stand in too many groups to tell of one."""
        return self.words.boilerplate

    def reach(self, rows: Sequence[Row]) -> Reach:
        """Hold rows against the index.

        A run is a stretch of words each of whose windows stands in the index. Windows of boilerplate, or of another
        group, join a run without adding to its length.
        """
        parts = [self._reach(*_texts(chunk), len(chunk)) for chunk in _chunks(rows, lambda row: row)]
        return Reach(*map(np.concatenate, zip(*parts, strict=True))) if parts else self._reach([], np.zeros(0, int), 0)

    def _reach(self, texts: Sequence[str], owner: Ints, n: int) -> Reach:
        units = Units.of(texts)
        words = self._measure(self.words, *units.windows(WINDOW), units.word_unit, units.n, WINDOW)
        letters = self._measure(self.letters, *units.letter_windows(LETTERS), units.letter_unit, units.n, LETTERS)
        whole, longer = np.zeros(len(texts), bool), units.lengths() >= FEW_WORDS
        whole[np.flatnonzero(np.diff(owner, append=n))] = True  # the last text of a row is all of it
        exact, unnumbered = _copy_keys(units)
        same = (_find(self.copies, exact)[1] & (whole | longer)) | (_find(self.copies, unnumbered)[1] & longer)
        pieces = (letters[2] >= MAX_LETTERS) & (letters[1] > MAX_LETTER_SHARE) & (len(self.groups) >= FEW_GROUPS)
        measured = [*words[:3], *letters[:3], pieces, np.full(len(texts), -1), same]
        found = Reach(*(np.zeros(n, m.dtype) for m in measured))._replace(group=np.full(n, -1))
        for out, values in zip(found, measured, strict=True):
            np.maximum.at(out, owner, values)
        best = letters[2] == found.letters[owner]
        found.group[owner[best]] = letters[3][best]
        return found

    def _measure(
        self, table: _Table, hashes: Hashes, valid: Bools, unit: Numbers, n: int, size: int
    ) -> tuple[Ints, Floats, Ints, Ints]:
        """Give for each of n texts the longest run, the share and number of its windows, and the group of most."""
        rare, set_phrase, groups = table.find(hashes, valid)
        units = unit[: len(hashes)].astype(np.int64)
        matches, group = self._most(units[rare], groups, n)
        own = np.bincount(units[valid & ~set_phrase], minlength=n)
        inside = rare | set_phrase
        begins = inside.copy()
        begins[1:] &= ~inside[:-1]
        counted, _ = self._most((np.cumsum(begins) - 1)[rare], groups, int(begins.sum()))
        runs = np.zeros(n, np.int64)
        np.maximum.at(runs, units[begins], np.where(counted > 0, counted + size - 1, 0))
        return runs, matches / np.maximum(1, own), matches, group

    def _most(self, place: Ints, groups: Ints, n: int) -> tuple[Ints, Ints]:
        """Count windows by place (a text, a run) and group; give the most that one group has at each of n places."""
        size = max(1, len(self.groups))
        keys, counts = np.unique((place.astype(np.int64)[:, None] * size + groups)[groups >= 0], return_counts=True)
        order = np.lexsort((counts, keys // size))
        most, group = np.zeros(n, np.int64), np.full(n, -1, np.int64)
        most[keys[order] // size], group[keys[order] // size] = counts[order], keys[order] % size  # the last one stays
        return most, group


def _chunks(rows: Iterable[_Item], row_of: Callable[[_Item], Row]) -> Iterator[list[_Item]]:
    """Give rows some at a time, by their number and by the length of their texts."""
    chunk: list[_Item] = []
    size = 0
    for item in rows:
        chunk.append(item)
        size += sum(map(len, row_of(item)))
        if len(chunk) == _CHUNK or size > _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _texts(rows: Sequence[Row]) -> tuple[list[str], Ints]:
    """Give the texts of rows, and of a row with several texts all of them as one, last; and the row of each."""
    texts: list[str] = []
    owner: list[int] = []
    for i, row in enumerate(rows):
        mine = row if sum(map(bool, row)) < 2 else (*row, " ".join(row))
        texts += mine
        owner += [i] * len(mine)
    return texts, np.array(owner, np.int64)


def _copy_keys(units: Units) -> tuple[Hashes, Hashes]:
    """Hash texts in whatever order of words: with all words, and without numbers (0: too short, or no words)."""
    unnumbered = units.in_any_order(numbers=False)
    unnumbered[np.bincount(units.word_unit[~units.numbers], minlength=units.n) < FEW_WORDS] = 0
    return units.in_any_order(numbers=True), np.where(unnumbered > 0, mix(unnumbered), unnumbered)


def _gold_windows(units: Units, numbers: Ints, fresh: Bools) -> tuple[Any, ...]:
    found: list[Any] = []
    for (hashes, valid), unit in (
        (units.windows(WINDOW), units.word_unit),
        (units.letter_windows(LETTERS), units.letter_unit),
    ):
        kept = valid & fresh[unit[: len(hashes)]]
        found += [hashes[kept], numbers[unit[: len(hashes)][kept]].astype(np.int32)]
    return tuple(found)


def _find(known: Hashes, hashes: Hashes) -> tuple[Ints, Bools]:
    """Give where each hash would stand among sorted ones, and whether it does."""
    if not len(known):
        return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
    place = np.searchsorted(known, hashes)
    place[place == len(known)] = 0
    return place, known[place] == hashes
