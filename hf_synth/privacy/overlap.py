"""Text overlap (plagiarism) detection: word n-grams and character n-grams of gold in a sorted hash index.

Windows of WINDOW words give figures that a person can check: the longest run of gold's words, and the share of a text's
windows that occur in gold (containment). Windows of LETTERS letters, without the spaces, signs and digits between them,
match despite hyphens, other numbers, and words that were joined or split. Overlap is exact, in linear time.
Texts with too few windows are compared as a whole (`short_texts`), disguised copies by skip-grams (`skip_grams`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from hf_synth.privacy.encodings import decoded
from hf_synth.privacy.folding import Bools, Hashes, Numbers, Row, Units, scramble
from hf_synth.privacy.short_texts import LONGEST, ShortTexts, Words, changes
from hf_synth.privacy.skip_grams import SkipGrams
from hf_synth.privacy.windows import BOILERPLATE_GROUPS, Windows, most_owned
from hf_synth.task.labels import Floats, Ints

# Eight words in a row seldom recur by chance outside set phrases; shorter windows flag plain wording.
WINDOW = 8
# About five words, so that short sentences in another order still match.
LETTERS = 24

# Limits for copies. They were measured on clean texts and copies of the artificial clinic, of nonsense words between
# set phrases, and of MTS-Dialog (`benchmarks/audit.py` measures them again).
# Longest run: adjacent set phrases reach 17 to 21 words and 98 letters in clean notes; copied spans of 40 words count
# 24 or more, and 26 where every second sentence is a set phrase.
MAX_RUN, MAX_LETTER_RUN = 24, 110
# Near-copies: with 6% of its words changed, .94**8 = 61% of a note's windows survive; ordinary notes share few.
MAX_CONTAINMENT = 0.30
# Least matches of a near-copy: two adjacent set phrases share 7 windows, and a short note may have no others.
MIN_MATCHES, MIN_LETTERS = 8, 40
# A text of 12 words and more that lies in gold, but for a word at an end.
MIN_INSIDE, MIN_INSIDE_SHARE = 5, 0.75
# Pieces of one note in many places of a row; clean rows share up to 75 windows of letters with one note.
MAX_LETTERS, MAX_LETTER_SHARE = 100, 0.10
# Pieces count only from so many groups of gold on: with fewer it is not known which phrases are boilerplate.
FEW_GROUPS = 50
# A shorter text with the same words in another order is not a copy, nor is a whole row of still fewer words. With so
# few letters, texts that share a form overlap by chance more than other texts do.
FEW_WORDS, FEW_WORDS_OF_ROW = 24, 12
MAX_CONTAINMENT_OF_FEW = 0.70
# Lower limits for the exemplars of a row's own prompt: chance matches with so few notes are rare.
ECHO_RUN, ECHO_SHARE, ECHO_LETTERS = 14, 0.15, 40
ECHO_LINKED, ECHO_LINKED_SHARE = 5, 0.35

_CHUNK, _CHUNK_CHARACTERS = 2_000, 2_000_000  # rows in memory at once
_Item = TypeVar("_Item")


class Reach(NamedTuple):
    """Overlap of each of N rows with the one group of gold (a patient, a note) that it overlaps most.

    One group, since ordinary notes combine phrases of many others, while a copy contains one of them. In a row with
    several texts, each text and all of them joined are compared, and the largest overlap counts.

    Args:
        runs: (N,) longest run in words, boilerplate windows left out.
        share: (N,) containment: the share of a text's windows, boilerplate left out, that occur in the group.
        matches: (N,) number of these windows.
        letter_runs: (N,) like `runs`, in letters.
        letter_share: (N,) like `share`, of windows of letters.
        letters: (N,) like `matches`, of windows of letters.
        pieces: (N,) whether the row contains many pieces of one group, though they are not most of it.
        group: (N,) number (`Index.groups`) of the group that `letters` counts; -1 for none.
        same: (N,) whether the row, or a text in it, has the words of a text of gold. Short texts that three groups
            share do not count; in longer ones the order of the words does not, and neither do numbers, unless three
            groups have notes of this form with different numbers.
        alike: (N,) whether a text of the row is nearly a short text of gold, or lies in one of gold.
        linked: (N,) number of words that are linked to one row of gold (`skip_grams`).
        linked_share: (N,) their share of the words that could be.
        linked_group: (N,) number of the group of that row; -1 for none.
        disguised: (N,) whether most of the row, or much of a longer one, is linked to one row of gold.
        words: (N,) number of words.
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
    alike: Bools
    linked: Ints
    linked_share: Floats
    linked_group: Ints
    disguised: Bools
    words: Ints

    def spans(self) -> Bools:
        """Return a mask of the rows with a long run of one group's words or letters, (N,)."""
        long: Bools = (self.runs >= MAX_RUN) | (self.letter_runs >= MAX_LETTER_RUN)
        return long

    def near(self) -> Bools:
        """Return a mask of the rows that consist of one group's wording or contain much of it in pieces, (N,)."""
        words = (self.share > MAX_CONTAINMENT) & (self.matches >= MIN_MATCHES)
        limit = np.where(self.words < FEW_WORDS, MAX_CONTAINMENT_OF_FEW, MAX_CONTAINMENT)
        letters = (self.letter_share > limit) & (self.letters >= MIN_LETTERS)
        near: Bools = words | letters | self.pieces | self.alike | self.disguised
        return near

    def echoed(self) -> Ints:
        """Return the groups of gold that a row echoes if they were in its prompt, (N, 2); -1 for none."""
        letters = (self.letter_share > ECHO_SHARE) & (self.letters >= ECHO_LETTERS)
        close = (self.runs >= ECHO_RUN) | letters
        linked = (self.linked >= ECHO_LINKED) & (self.linked_share >= ECHO_LINKED_SHARE)
        groups = np.where(close, self.group, -1), np.where(linked, self.linked_group, -1)
        return np.stack(groups, 1)


@dataclass(frozen=True)
class Index:
    """Index of the texts of gold.

    Args:
        groups: number of each group.
        copies: (C,) hashes of whole texts, ascending.
        shared: (S,) those that three groups share, ascending. Hashes without numbers count where the texts differ in
            their numbers: they are reports of one form.
        words: windows of words.
        letters: windows of letters.
        short: short texts.
        skip_grams: skip-grams of the rarer words.
    """

    groups: dict[str, int] = field(repr=False)
    copies: Hashes = field(repr=False)
    shared: Hashes = field(repr=False)
    words: Windows = field(repr=False)
    letters: Windows = field(repr=False)
    short: ShortTexts = field(repr=False)
    skip_grams: SkipGrams = field(repr=False)

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Row]]) -> Index:
        """Index rows as (group, texts); equal texts count once, so that copies of one note are not boilerplate."""
        groups: dict[str, int] = {}
        seen: set[int] = set()
        copies: list[Hashes] = [np.zeros(0, np.uint64)]
        owners: list[Ints] = [np.zeros(0, np.int64)]
        short: list[Words] = []
        short_groups: list[Ints] = [np.zeros(0, np.int64)]
        none = np.zeros(0, np.uint64), np.zeros(0, np.int32)
        words, letters = [none], [none]
        plain: list[tuple[Hashes, Numbers]] = []
        row_of: list[Ints] = [np.zeros(0, np.int64)]
        group_of_row: list[Ints] = [np.zeros(0, np.int64)]
        texts_before = rows_before = 0
        for chunk in _chunks(rows, lambda item: item[1]):
            texts, owner = _texts([row for _, row in chunk])
            numbers = np.array([groups.setdefault(group, len(groups)) for group, _ in chunk], np.int64)[owner]
            units = Units.of(texts)
            keys = _copy_keys(units)
            few = np.flatnonzero(units.lengths() <= LONGEST)
            short.append(Words.of([texts[i] for i in few.tolist()]))
            short_groups.append(numbers[few])
            fresh = np.zeros(len(texts), bool)
            for i, key in enumerate(keys[0].tolist()):
                if key not in seen:
                    seen.add(key)
                    fresh[i] = True
            copies += [keys[0], np.where(fresh, keys[1], np.uint64(0))]
            owners += [numbers, numbers]
            single = fresh[units.word_unit] & ~units.numbers
            plain.append((units.words[single], units.word_unit[single] + np.int32(texts_before)))
            row_of.append(owner + rows_before)
            group_of_row.append(np.array([groups[group] for group, _ in chunk], np.int64))
            texts_before, rows_before = texts_before + len(texts), rows_before + len(chunk)
            words.append(_gold_windows(*units.windows(WINDOW), units.word_unit, numbers, fresh))
            letters.append(_gold_windows(*units.letter_windows(LETTERS), units.letter_unit, numbers, fresh))
        known = _known(np.concatenate(copies), np.concatenate(owners))
        short_texts = ShortTexts.of(Words.joined(short), np.concatenate(short_groups))
        word_windows, letter_windows = Windows(words), Windows(letters)
        skip_grams = SkipGrams.of(plain, np.concatenate(row_of), np.concatenate(group_of_row))
        return cls(groups, *known, word_windows, letter_windows, short_texts, skip_grams)

    @property
    def boilerplate(self) -> int:
        """The number of windows of words that are boilerplate."""
        return self.words.boilerplate

    def reach(self, rows: Sequence[Row]) -> Reach:
        """Compare rows with the index.

        A run is a stretch of words whose windows all occur in the index. Windows of boilerplate, or of another group,
        continue a run without adding to its length.
        """
        parts = [self._reach(*_texts(chunk), len(chunk)) for chunk in _chunks(rows, lambda row: row)]
        return Reach(*map(np.concatenate, zip(*parts, strict=True))) if parts else self._reach([], np.zeros(0, int), 0)

    def _reach(self, texts: Sequence[str], owner: Ints, n: int) -> Reach:
        units = Units.of(texts)
        words = self._measure(self.words, *units.windows(WINDOW), units.word_unit, units.n, WINDOW)
        letters = self._measure(self.letters, *units.letter_windows(LETTERS), units.letter_unit, units.n, LETTERS)
        lengths = units.lengths()
        whole, longer = np.zeros(len(texts), bool), lengths >= FEW_WORDS
        whole[np.flatnonzero(np.diff(owner, append=n))] = True  # the last text of a row is all of it
        whole &= lengths >= FEW_WORDS_OF_ROW
        exact, unnumbered = _copy_keys(units)
        whole[whole] = ~_contains(self.shared, exact[whole])
        form = _contains(self.shared, unnumbered)
        same = (_contains(self.copies, exact) & (whole | longer)) | (
            _contains(self.copies, unnumbered) & longer & ~form
        )
        alike = (words[1] >= MIN_INSIDE_SHARE) & (words[2] >= MIN_INSIDE)
        few = np.flatnonzero(lengths <= LONGEST)
        if len(few):
            short = Words.of([texts[i] for i in few.tolist()])
            same[few] |= self.short.same(short)
            alike[few] |= self.short.near(short)
        links = self.skip_grams.links(units)
        linked_share = links.linked / np.maximum(1, links.kept)
        disguised = links.many & (lengths >= FEW_WORDS_OF_ROW)
        pieces = (letters[2] >= MAX_LETTERS) & (letters[1] > MAX_LETTER_SHARE) & (len(self.groups) >= FEW_GROUPS)
        of_texts = [*words[:3], *letters[:3], pieces, np.full(len(texts), -1), same, alike,
                    links.linked, linked_share, np.full(len(texts), -1), disguised, lengths]  # fmt: skip
        of_rows = Reach(*(np.zeros(n, values.dtype) for values in of_texts))
        of_rows = of_rows._replace(group=np.full(n, -1), linked_group=np.full(n, -1))
        for out, values in zip(of_rows, of_texts, strict=True):
            np.maximum.at(out, owner, values)
        best = letters[2] == of_rows.letters[owner]
        of_rows.group[owner[best]] = letters[3][best]
        best = (links.linked == of_rows.linked[owner]) & (links.row >= 0)
        of_rows.linked_group[owner[best]] = self.skip_grams.group_of[links.row[best]]
        return of_rows

    def _measure(
        self, table: Windows, hashes: Hashes, valid: Bools, unit: Numbers, n: int, size: int
    ) -> tuple[Ints, Floats, Ints, Ints]:
        """Return for each of n texts the longest run, share and number of windows, and the group with most."""
        rare, set_phrase, groups = table.find(hashes, valid)
        units = unit[: len(hashes)].astype(np.int64)
        matches, group = most_owned(units[rare], groups, n, len(self.groups))
        own = np.bincount(units[valid & ~set_phrase], minlength=n)
        inside = rare | set_phrase
        begins = inside.copy()
        begins[1:] &= ~inside[:-1]
        place = (np.cumsum(begins) - 1)[rare]
        lengths, _ = most_owned(place, groups, int(begins.sum()), len(self.groups))
        runs = np.zeros(n, np.int64)
        np.maximum.at(runs, units[begins], np.where(lengths > 0, lengths + size - 1, 0))
        return runs, matches / np.maximum(1, own), matches, group


def _chunks(rows: Iterable[_Item], row_of: Callable[[_Item], Row]) -> Iterator[list[_Item]]:
    """Cut rows into chunks of bounded number and length of texts."""
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
    """List the texts of rows, and the row of each text.

    What is encoded in a row comes first, and all texts joined come last where a row has several.
    """
    texts: list[str] = []
    owner: list[int] = []
    for i, row in enumerate(rows):
        parts = row if sum(map(bool, row)) < 2 else (*row, " ".join(row))
        if hidden := decoded(" ".join(row)):
            parts = (hidden, *parts)
        texts += parts
        owner += [i] * len(parts)
    return texts, np.array(owner, np.int64)


def _copy_keys(units: Units) -> tuple[Hashes, Hashes]:
    """Hash texts whatever the order of words: with all words, and without numbers (0: too short, or no words)."""
    unnumbered = units.in_any_order(numbers=False)
    unnumbered[np.bincount(units.word_unit[~units.numbers], minlength=units.n) < FEW_WORDS] = 0
    return units.in_any_order(numbers=True), np.where(unnumbered > 0, scramble(unnumbered), unnumbered)


def _known(keys: Hashes, groups: Ints) -> tuple[Hashes, Hashes]:
    """Return the distinct keys, and those that BOILERPLATE_GROUPS groups share, both ascending."""
    order = np.lexsort((groups, keys))
    keys, groups = keys[order], groups[order]
    new = changes(keys) | changes(groups)
    known, counts = np.unique(keys[new & (keys > 0)], return_counts=True)
    return known, known[counts >= BOILERPLATE_GROUPS]


def _gold_windows(hashes: Hashes, valid: Bools, unit: Numbers, numbers: Ints, fresh: Bools) -> tuple[Hashes, Numbers]:
    """Return hashes and groups of the windows of the fresh texts."""
    unit = unit[: len(hashes)]
    kept = valid & fresh[unit]
    return hashes[kept], numbers[unit[kept]].astype(np.int32)


def _contains(known: Hashes, hashes: Hashes) -> Bools:
    """Return a mask of the hashes that are among the sorted known ones."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    place = np.searchsorted(known, hashes)
    place[place == len(known)] = 0
    mask: Bools = known[place] == hashes
    return mask
