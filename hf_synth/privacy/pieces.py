"""Gold that is cut into pieces over many short rows: the share of a text of gold that all rows together contain.

A piece of a few words is too short to be a copy of its own. Where short rows that are mostly pieces of one text of gold
contain most of it together, they are a copy in pieces. Set phrases do not count: windows that three groups share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from hf_synth.privacy.folding import Hashes, Row
from hf_synth.privacy.short_texts import FEWEST, LONGEST, SHARED_GROUPS, Words, count_groups, place_of, ranges
from hf_synth.task.labels import Ints

_WINDOW = 4  # words; also the shortest piece
_LEAST = 24  # words of the shortest text of gold that can be in pieces
# Limits (`benchmarks/audit.py` measures them): windows of a row that occur in the text, words of the text in such rows.
_PIECE, _COVERED = 0.5, 0.6
_MOST_ROWS = 8  # a window that more texts of rows contain is a phrase of the generator
_SLICE = 200_000  # matches in memory at once
_BATCH = 1_000  # texts of gold read at once


class _Matches(NamedTuple):
    """Windows of gold that occur in rows: the text of gold, its group, the place in the text, the window."""

    gold: Ints
    group: Ints
    place: Ints
    window: Ints


class Pieces:
    """Short texts of rows, added in batches and searched for pieces of gold at the end."""

    def __init__(self) -> None:
        self._words: list[Words] = []
        self._rows: list[Ints] = []

    def add(self, words: Words, rows: Ints) -> None:
        """Add the words of short texts, with the number of the row of each."""
        self._words.append(words)
        self._rows.append(rows)

    def columns(self, n: int) -> dict[str, Any]:
        """Return the words of the short texts of each of n rows as Arrow columns."""
        import pyarrow as pa

        words = Words.joined(self._words)
        rows = np.concatenate([np.zeros(0, np.int64), *self._rows])
        begins = pa.array(np.searchsorted(rows, np.arange(n + 1)).astype(np.int32))
        tokens = pa.LargeListArray.from_arrays(pa.array(words.starts), pa.array(words.tokens))
        return {
            "short_words": pa.ListArray.from_arrays(begins, tokens),
            "short_keys": pa.ListArray.from_arrays(begins, pa.array(words.keys)),
        }

    def take_over(self, block: Any, first: int) -> None:
        """Add short texts from the columns of another process.

        Args:
            block: an Arrow table.
            first: the number of its first row.
        """
        texts, keys = block["short_words"].combine_chunks(), block["short_keys"].combine_chunks()
        tokens = texts.flatten()
        counts = np.asarray(tokens.value_lengths(), np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        words = Words(np.asarray(tokens.flatten()), starts, np.asarray(keys.flatten()))
        self.add(words, first + np.repeat(np.arange(len(block)), np.asarray(texts.value_lengths(), np.int64)))

    def find(self, gold: Iterable[tuple[str, Row]]) -> set[int]:
        """Return the numbers of the rows that contain much of a text of gold together.

        Args:
            gold: its rows as (group, texts); they are only read when there are short rows.
        """
        words = Words.joined(self._words)
        length = words.lengths()
        number, rows = np.arange(len(length)), np.concatenate([np.zeros(0, np.int64), *self._rows])
        kept = (length >= FEWEST) & (length <= LONGEST)
        number, rows = number[kept], rows[kept]
        if len(number) < 2:
            return set()
        _, first, which = np.unique(words.keys[number], return_index=True, return_inverse=True)
        texts = words.of_texts(number[first])  # equal texts of many rows count once
        owner, _, hashes = _windows(texts)
        windows, window = np.unique(hashes, return_inverse=True)
        pair = np.unique(window * len(first) + owner)
        window, owner = pair // len(first), pair % len(first)
        begins = np.searchsorted(window, np.arange(len(windows) + 1))
        matches, sizes = self._match(gold, windows)
        common = (count_groups(matches.window, matches.group, len(windows)) >= SHARED_GROUPS) | (
            np.diff(begins) > _MOST_ROWS
        )
        own = np.bincount(owner[~common[window]], minlength=len(first))
        matches = _Matches(*(part[~common[matches.window]] for part in matches))
        found = np.zeros(len(first), bool)
        for part in _slices(matches):
            which_match, at = ranges(begins[part.window], np.diff(begins)[part.window])
            found[_covered_texts(part, which_match, owner[at], own, sizes)] = True
        return set(rows[found[which]].tolist())

    def _match(self, gold: Iterable[tuple[str, Row]], windows: Hashes) -> tuple[_Matches, Ints]:
        """Find the windows in the texts of gold; also return the number of words of each text."""
        groups: dict[str, int] = {}
        parts: list[_Matches] = []
        sizes: list[Ints] = []
        before = 0
        for batch in _batches(gold):
            words = Words.of([text for _, text in batch])
            numbers = np.array([groups.setdefault(group, len(groups)) for group, _ in batch])
            text, place, hashes = _windows(words)
            window = place_of(windows, hashes)
            hit = (window >= 0) & (words.lengths()[text] >= _LEAST)
            parts.append(_Matches(text[hit] + before, numbers[text[hit]], place[hit], window[hit]))
            sizes.append(words.lengths())
            before += len(batch)
        none = np.zeros(0, np.int64)
        return _Matches(*(np.concatenate([none, *p]) for p in zip(*parts, strict=True))), np.concatenate([none, *sizes])


def _covered_texts(matches: _Matches, match: Ints, owner: Ints, own: Ints, sizes: Ints) -> Ints:
    """Return the texts of rows that are pieces of one text of gold and cover it together.

    Args:
        matches: windows of some whole texts of gold.
        match: which of these windows a text of rows contains.
        owner: that text.
        own: the number of windows of each text of rows.
        sizes: the number of words of each text of gold.
    """
    pairs, which = np.unique(matches.gold[match] * len(own) + owner, return_inverse=True)
    distinct = np.unique(which * (int(matches.window.max(initial=0)) + 1) + matches.window[match])
    shared = np.bincount(distinct // (int(matches.window.max(initial=0)) + 1), minlength=len(pairs))
    piece = shared >= np.maximum(1, _PIECE * own[pairs % len(own)])
    inside = piece[which]
    longest = int(sizes.max(initial=0)) + _WINDOW
    words = np.unique(
        (matches.gold[match[inside]] * longest + matches.place[match[inside]])[:, None] + np.arange(_WINDOW)
    )
    covered = np.bincount(words // longest, minlength=len(sizes))
    several = np.bincount(pairs[piece] // len(own), minlength=len(sizes)) > 1
    whole = (covered >= _COVERED * sizes) & several
    found: Ints = (pairs % len(own))[piece & whole[pairs // len(own)]]
    return found


def _windows(words: Words) -> tuple[Ints, Ints, Hashes]:
    """Return each window of words inside a text as (text, place, hash)."""
    text = np.repeat(np.arange(len(words.keys)), words.lengths())
    n = max(0, len(text) - _WINDOW + 1)
    inside = text[:n] == text[_WINDOW - 1 :]
    hashes = words.windows(_WINDOW)[inside]
    return text[:n][inside], (np.arange(n) - words.starts[text[:n]])[inside], hashes


def _slices(matches: _Matches) -> Iterator[_Matches]:
    """Cut matches into parts of whole texts of gold."""
    begin = 0
    while begin < len(matches.gold):
        end = min(begin + _SLICE, len(matches.gold))
        if end < len(matches.gold):
            end = int(np.searchsorted(matches.gold, matches.gold[end - 1], "right"))
        yield _Matches(*(part[begin:end] for part in matches))
        begin = end


def _batches(gold: Iterable[tuple[str, Row]]) -> Iterator[list[tuple[str, str]]]:
    """List the texts of gold with their groups, some at a time."""
    batch: list[tuple[str, str]] = []
    for group, row in gold:
        batch += [(group, text) for text in row if text]
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
