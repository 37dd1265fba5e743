"""Copies and near-copies of short texts of gold: messages, turns of a dialogue, impressions, premises.

A text of a few words has hardly any window of eight words, and commonplace texts of this length differ in one word by
chance. Short texts are therefore compared as a whole. Pairs of adjacent words lead to the texts of gold that share
most with a text, and the edit distance in words decides. A near-copy counts only when it is nearer to one text of gold
than to those of any other group, and more so when its words are rare in gold.

The words are canonical: numbers in words become digits, the sign "&" becomes "and", and an apostrophe parts no word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hf_synth.privacy.folding import Bools, Hashes, Numbers, Units, fold, resolve_escapes, scramble
from hf_synth.task.labels import Floats, Ints

# Words of the longest text that is compared as a whole, and of the longest text of gold: longer ones have windows.
LONGEST, LONGEST_GOLD = 60, 40
# A row of fewer words says too little to be compared with anything but whole texts.
FEWEST = 4
# A text that three groups share is a set phrase.
SHARED_GROUPS = 3

# Limits for near-copies (`benchmarks/audit.py` measures them). The evidence is the number of word pairs that a text
# shares with one text of gold beyond those that it shares with any other group, and a quarter of the words of gold
# that it has, each weighted by its rarity from 0 to 1. At 9 words and more, copies have so much more of it than other
# texts that a higher limit costs nothing; below 8 words nearly all of the words must be rare.
_SIZES = (7, 8, 11)
_EVIDENCE = (3.1, 2.25, 3.0, 2.5)  # for texts of gold of up to 7, of 8, of 9 to 11, and of more words
_RARITY = 0.25
# From so many words on the rare word pairs count as evidence too, though two groups share them.
_ENOUGH = 12
# Words that differ: one in 8, at least one; and around a copy with other words before or after it, one in 12.
_CHANGED, _CHANGED_INSIDE = 8, 12
# Two more where the evidence is overwhelming: what a person calls one word may be three, "tobacco/alcohol/drugs".
_MUCH = 6
# Words before and after a copy: up to three of a copy of under 8 words, and up to six, or half of its length.
_AROUND, _AROUND_SHARE = (3, 6), 0.5
# Word pairs that more texts of gold contain do not lead to candidates, so that the time is linear.
_MOST_TEXTS = 64
_CANDIDATES = 8  # texts of gold that are compared with one text

_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    "zero": 0, "a": 1, **{word: i for i, word in enumerate((*_ONES, *_TEENS), 1)},
    **{word: 10 * i for i, word in enumerate(_TENS, 2)},
}  # fmt: skip
_BELOW_100 = f"(?:{'|'.join(_TENS)})(?:[ -]+(?:{'|'.join(_ONES)}))?|zero|{'|'.join(_TEENS)}|{'|'.join(_ONES)}"
_SPOKEN = re.compile(
    rf"\b(?:(?P<hundreds>a|{'|'.join(_ONES)})[ -]+hundred(?:(?: +and)? +(?P<rest>{_BELOW_100}))?"
    rf"|(?P<small>{_BELOW_100}))\b"
)
_APOSTROPHE = re.compile(r"(?<=[a-z])'(?=[a-z])")
_NO_WORD = re.compile(r"[\W_]+")


class Words(NamedTuple):
    """The canonical words of N short texts.

    Args:
        tokens: (W,) a hash of each word.
        starts: (N + 1,) where the words of each text begin.
        keys: (N,) a hash of each whole text without its spaces; 0 for one without words.
    """

    tokens: Hashes
    starts: Ints
    keys: Hashes

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        """Read the words of texts."""
        canonical = [_canonical(text) for text in texts]
        units = Units.of(canonical)
        starts = np.searchsorted(units.word_unit, np.arange(units.n + 1)).astype(np.int64)
        return cls(units.words, starts, Units.of([_NO_WORD.sub("", text) for text in canonical]).in_order())

    @classmethod
    def joined(cls, parts: Sequence[Words]) -> Words:
        """Join the words of several lists of texts."""
        lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(p.starts) for p in parts)])
        none = np.zeros(0, np.uint64)
        return cls(
            np.concatenate([none, *(p.tokens for p in parts)]),
            np.cumsum(lengths),
            np.concatenate([none, *(p.keys for p in parts)]),
        )

    def lengths(self) -> Ints:
        """Return the number of words of each text, (N,)."""
        return np.diff(self.starts)

    def of_texts(self, texts: Ints) -> Words:
        """Select texts by number."""
        lengths = self.lengths()[texts]
        _, place = ranges(self.starts[texts], lengths)
        return Words(self.tokens[place], np.concatenate([[0], np.cumsum(lengths)]), self.keys[texts])

    def pairs(self) -> tuple[Ints, Hashes]:
        """Return the distinct pairs of adjacent words as (text, hash), in order."""
        text = np.repeat(np.arange(len(self.keys)), self.lengths())
        inside = text[1:] == text[:-1]
        text, hashes = text[:-1][inside], self.windows(2)[inside]
        order = np.lexsort((hashes, text))
        text, hashes = text[order], hashes[order]
        new = changes(text) | changes(hashes)
        return text[new], hashes[new]

    def windows(self, size: int) -> Hashes:
        """Hash each window of so many words of all texts, those across two texts too."""
        n = max(0, len(self.tokens) - size + 1)
        hashes = np.zeros(n, np.uint64)
        for k in range(size):
            hashes = scramble(hashes) + self.tokens[k : k + n]
        return hashes

    def padded(self, texts: Ints, size: int, values: Any = None) -> Any:
        """Return the words of some texts, or values of each word, as rows of so many columns; the rest is 0."""
        values = self.tokens if values is None else values
        rows = np.zeros((len(texts), size), values.dtype)
        which, place = ranges(self.starts[texts], self.lengths()[texts])
        rows[which, place - self.starts[texts][which]] = values[place]
        return rows


def _canonical(text: str) -> str:
    """Return a text in plain lower case, with its numbers in digits."""
    plain = fold(resolve_escapes(text).replace("\u2019", "'")).lower().replace("&", " and ")
    return _SPOKEN.sub(_digits, _APOSTROPHE.sub("", plain))


def _digits(match: re.Match[str]) -> str:
    small = sum(_VALUES[word] for word in re.findall("[a-z]+", match["small"] or match["rest"] or ""))
    return str(100 * _VALUES[match["hundreds"]] + small) if match["hundreds"] else str(small)


@dataclass(frozen=True)
class ShortTexts:
    """Index of the short texts of gold; texts that SHARED_GROUPS groups share are set phrases.

    Args:
        keys: (K,) hashes of whole texts that are no set phrases, ascending.
        lengths: (K,) their numbers of words.
        words: the words of the T distinct texts of FEWEST to LONGEST_GOLD words.
        owners: (T, 2) the groups of each text; one group stands twice, and a set phrase has none (-1).
        rarity: (W,) of each word, from 0 (in all groups) to 1 (in one).
        pairs: (P,) hashes of word pairs, ascending.
        rare: (P,) whether fewer than SHARED_GROUPS groups have the pair.
        places: (P + 1,) where the texts of each pair begin in `texts`.
        texts: the texts of each pair.
        contents: the pairs of each text, as text * P + pair, ascending.
        sizes: (T,) the number of pairs of each text.
    """

    keys: Hashes
    lengths: Ints
    words: Words
    owners: Ints
    rarity: Floats
    pairs: Hashes
    rare: Bools
    places: Ints
    texts: Ints
    contents: Ints
    sizes: Ints

    @classmethod
    def of(cls, words: Words, groups: Ints) -> ShortTexts:
        """Index texts, each with the number of its group."""
        order = np.lexsort((groups, words.keys))
        keys, owner = words.keys[order], groups[order]
        new = changes(keys)
        once = new | changes(owner)  # a text counts once in a group
        order, keys, owner, new = order[once], keys[once], owner[once], new[once]
        first = np.flatnonzero(new)
        counts = np.diff(np.append(first, len(keys)))
        length = words.lengths()[order]
        own = (counts < SHARED_GROUPS) & (keys[first] > 0)
        kept = (length >= FEWEST) & (length <= LONGEST_GOLD)
        owners = np.stack([owner, owner[np.minimum(np.arange(len(owner)) + 1, max(0, len(owner) - 1))]], 1)
        owners[np.repeat(counts == 1, counts), 1] = owner[np.repeat(counts == 1, counts)]
        owners[np.repeat(counts >= SHARED_GROUPS, counts)] = -1
        owners, owner, new = owners[kept], owner[kept], new[kept]  # a text of several groups is here once for each
        found = words.of_texts(order[kept])
        text, hashes = found.pairs()
        pairs, pair = np.unique(hashes, return_inverse=True)
        tokens, token = np.unique(found.tokens, return_inverse=True)
        groups_of_word = count_groups(token, np.repeat(owner, found.lengths()), len(tokens))
        n = len(np.unique(owner)) + 1
        rarity = np.log(n / np.maximum(1, groups_of_word)) / np.log(max(2, n))
        rare = count_groups(pair, owner[text], len(pairs)) < SHARED_GROUPS
        once = new[text]
        text, pair = (np.cumsum(new) - 1)[text[once]], pair[once]
        by_pair = np.argsort(pair, kind="stable")
        return cls(
            keys=keys[first][own], lengths=length[first][own],
            words=found.of_texts(np.flatnonzero(new)), owners=owners[new],
            rarity=rarity[token][np.repeat(new, found.lengths())], pairs=pairs, rare=rare,
            places=np.searchsorted(pair[by_pair], np.arange(len(pairs) + 1)), texts=text[by_pair],
            contents=text * len(pairs) + pair, sizes=np.bincount(text, minlength=int(new.sum())),
        )  # fmt: skip

    def same(self, words: Words) -> Bools:
        """Return a mask of the texts that are a text of gold, (N,).

        Spaces do not count where there are too few or too many of them; one alone tells "nonsmoker" from "non-smoker".
        """
        place = place_of(self.keys, words.keys)
        apart = np.abs(self.lengths[place] - words.lengths()) if len(self.keys) else np.zeros(len(place))
        same: Bools = (place >= 0) & (apart != 1)
        return same

    def near(self, words: Words) -> Bools:
        """Return a mask of the texts that are nearly a text of gold, (N,)."""
        near = np.zeros(len(words.keys), bool)
        text, gold, lost, evidence = self._candidates(words)
        if not len(text):
            return near
        length, size = words.lengths()[text], self.words.lengths()[gold]
        limit = np.array(_EVIDENCE)[np.searchsorted(_SIZES, size)]
        # a changed word takes two pairs with it
        likely = (lost <= 2 * np.maximum(1, size // _CHANGED) + 2) & (evidence + _RARITY * size >= limit)
        likely &= (length >= FEWEST) & (length - size <= np.maximum(np.where(size < 8, *_AROUND), _AROUND_SHARE * size))
        likely &= size - length <= np.maximum(1, size // _CHANGED) + 2
        text, gold, size, limit, evidence = (part[likely] for part in (text, gold, size, limit, evidence))
        mine, theirs = words.padded(text, LONGEST), self.words.padded(gold, LONGEST_GOLD)
        has = (theirs[:, :, None] == mine[:, None, :]).any(2) if len(text) else np.zeros((0, LONGEST_GOLD), bool)
        rarity = self.words.padded(gold, LONGEST_GOLD, self.rarity)
        enough = evidence + _RARITY * (has * rarity).sum(1) >= limit
        text, size, evidence, mine, theirs = (part[enough] for part in (text, size, evidence, mine, theirs))
        whole, inside = _edits(mine, theirs, words.lengths()[text], size)
        more = np.where((size >= _ENOUGH) & (evidence >= _MUCH), 2, 0)
        changed = np.maximum(1, size // _CHANGED) + more
        near[text[(whole <= changed) | (inside <= size // _CHANGED_INSIDE + more)]] = True
        return near

    def _candidates(self, words: Words) -> tuple[Ints, Ints, Ints, Ints]:
        """Return the texts of gold that share most word pairs with each text.

        Returns:
            the text, the text of gold, the number of pairs that the one with fewer pairs does not share, and the
            evidence in pairs.
        """
        text, hashes = words.pairs()
        pairs_of_text = np.bincount(text, minlength=len(words.keys))
        pair = place_of(self.pairs, hashes)
        text, pair = text[pair >= 0], pair[pair >= 0]
        spread = self.places[pair + 1] - self.places[pair]
        leads = spread <= _MOST_TEXTS
        which, place = ranges(self.places[pair[leads]], spread[leads])
        n = max(1, len(self.owners))
        found, common = np.unique(text[leads][which] * n + self.texts[place], return_counts=True)
        rank = _ranks(found // n, common)
        found = found[rank < _CANDIDATES]
        owner, gold = found // n, found % n
        # All pairs of the candidates count, also those that do not lead to any.
        begins = np.searchsorted(text, np.arange(len(words.keys) + 1))
        which, place = ranges(begins[owner], np.diff(begins)[owner])
        has = place_of(self.contents, gold[which] * max(1, len(self.pairs)) + pair[place]) >= 0
        common = np.bincount(which[has], minlength=len(found))
        rare = np.bincount(which[has & self.rare[pair[place]]], minlength=len(found))
        rank = _ranks(owner, common)
        table = np.zeros((len(words.keys), _CANDIDATES), np.int64)
        groups = np.full((len(words.keys), _CANDIDATES, 2), -1)
        table[owner, rank], groups[owner, rank] = common, self.owners[gold]
        other = ~(self.owners[gold][:, None, :, None] == groups[owner][:, :, None, :]).any((2, 3))
        margin = common - np.where(other, table[owner], 0).max(1, initial=0)
        evidence = np.where(self.words.lengths()[gold] >= _ENOUGH, np.maximum(margin, rare), margin)
        lost = np.minimum(pairs_of_text[owner], self.sizes[gold]) - common
        own = self.owners[gold, 0] >= 0
        return owner[own], gold[own], lost[own], evidence[own]


def _edits(mine: Hashes, theirs: Hashes, lengths: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Count the words that differ between M texts of at most LONGEST words and M of at most LONGEST_GOLD.

    Returns:
        (M,) the edit distance; and (M,) the least one of any part of the first text.
    """
    n = len(lengths)
    column = np.arange(theirs.shape[1] + 1)
    rows = np.arange(n)
    whole, inside = np.full(n, LONGEST), sizes.copy()
    ends, parts = np.tile(column, (n, 1)), np.tile(column, (n, 1))
    for i in range(1, int(lengths.max(initial=0)) + 1):
        differ = theirs != mine[:, i - 1, None]
        for table, begin in ((ends, i), (parts, 0)):
            step = np.minimum(table[:, 1:] + 1, table[:, :-1] + differ)
            table[:, 0], table[:, 1:] = begin, step
            table[:] = np.minimum.accumulate(table - column, axis=1) + column
        current = i <= lengths
        inside = np.where(current, np.minimum(inside, parts[rows, sizes]), inside)
        whole = np.where(i == lengths, ends[rows, sizes], whole)
    return whole, inside


def changes(values: Hashes | Ints | Numbers) -> Bools:
    """Return a mask of the values that differ from the one before."""
    mask = np.ones(len(values), bool)
    mask[1:] = values[1:] != values[:-1]
    return mask


def count_groups(item: Ints, group: Ints, n: int) -> Ints:
    """Count the groups of each of n items."""
    most = int(group.max(initial=0)) + 1
    return np.bincount(np.unique(item.astype(np.int64) * most + group) // most, minlength=n)


def place_of(known: Hashes | Ints, values: Hashes | Ints) -> Ints:
    """Find values among sorted known ones, (N,); -1 for none."""
    if not len(known):
        return np.full(len(values), -1)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[place] == values, place, -1)


def ranges(begins: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """List the numbers of ranges one after the other, and the range of each."""
    which = np.repeat(np.arange(len(begins)), lengths)
    return which, np.arange(len(which)) + (begins - np.cumsum(lengths) + lengths)[which]


def _ranks(owner: Ints, value: Ints) -> Ints:
    """Rank the values of each owner from the largest, which is 0."""
    order = np.lexsort((-value, owner))
    sorted_owner = owner[order]
    ranks = np.empty(len(owner), np.int64)
    ranks[order] = np.arange(len(owner)) - np.searchsorted(sorted_owner, sorted_owner)
    return ranks
