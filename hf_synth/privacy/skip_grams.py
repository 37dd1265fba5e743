"""Disguised copies: gold with other words put in, left out or replaced, found by skip-grams of its rarer words.

A word put in at every third place leaves no window of eight words. What stays are rarer words that follow each other
with a few others between: skip-grams. Words that many groups of gold have are left out first, as are words that gold
does not have and numbers, so that filler words and other numbers part nothing. A word is *linked* to a row of gold
where it begins a skip-gram of that row. In an honest note few words are linked to any one row; in a copy most are.
Skip-grams that three groups share are set phrases and link nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hf_synth.privacy.folding import Bools, Hashes, Numbers, Units, scramble
from hf_synth.privacy.short_texts import changes
from hf_synth.privacy.windows import Windows, most_owned
from hf_synth.task.labels import Ints

# Words that a larger share of the groups has tell little; a word of three groups is kept however few groups there are.
COMMON, COMMON_GROUPS = 0.15, 3
# How far apart two words may stand in gold and in a row, in words that are kept.
GAP_OF_GOLD, GAP = 3, 4

# Limits of the number of linked words, as a number and a share of the words that could be. `benchmarks/copies.py`
# measures them: at most 1% of honest rows reach one. In little gold it is not known which phrases are set phrases; in
# much gold, one row in many resembles a short text by chance.
SHORT = (
    (0, 4, 0.7),
    (10, 2.5, 0.5),
    (150, 3, 0.55),
    (600, 3.5, 0.65),
)  # from so many groups on: for texts of few words
# For longer texts, in which a copy may be a part.
LONG = ((0, 12, 0.6), (10, 12, 0.4), (30, 12, 0.25), (75, 12, 0.15), (150, 11, 0.15))


class Links(NamedTuple):
    """Words of each of N texts that are linked to gold.

    Args:
        linked: (N,) the largest number of words that are linked to one row of gold.
        kept: (N,) number of words that could be: rarer words of gold outside set phrases.
        row: (N,) number of the row of gold; -1 for none.
        many: (N,) whether the text is a disguised copy.
    """

    linked: Ints
    kept: Ints
    row: Ints
    many: Bools


@dataclass(frozen=True)
class SkipGrams:
    """Skip-grams of the rarer words of gold.

    Args:
        words: the rarer words.
        pairs: skip-grams, with the rows of gold that have them.
        group_of: (R,) the group of each row of gold, ascending.
        groups: number of groups.
    """

    words: Windows = field(repr=False)
    pairs: Windows = field(repr=False)
    group_of: Ints = field(repr=False)
    groups: int

    @classmethod
    def of(cls, parts: list[tuple[Hashes, Numbers]], row_of: Ints, groups: Ints) -> SkipGrams:
        """Index words of gold; the list is emptied.

        Args:
            parts: words, with the number of the text of each, ascending.
            row_of: (T,) the row of each text.
            groups: (R,) the group of each row.
        """
        order = np.argsort(groups, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        group_of, row_of = groups[order], place[row_of]
        n = len(np.unique(groups))
        rarer = _rarer(parts, group_of[row_of], n)
        words = Windows([(rarer, np.zeros(len(rarer), np.int32))])
        pairs = [(np.zeros(0, np.uint64), np.zeros(0, np.int32))]
        while parts:
            hashes, text = parts.pop()
            hashes, text = _kept(words, hashes, text)
            for gap in range(1, GAP_OF_GOLD + 1):
                found, valid = _pairs(hashes, text, gap)
                pairs.append((found[valid], row_of[text[: len(found)][valid]].astype(np.int32)))
        return cls(words, Windows(pairs, group_of), group_of, n)

    def links(self, units: Units) -> Links:
        """Count the words of texts that are linked to gold."""
        words, unit = _kept(self.words, units.words[~units.numbers], units.word_unit[~units.numbers])
        size = len(self.group_of)
        gaps = [_pairs(words, unit, gap) for gap in range(1, GAP + 1)]
        rare, set_phrase, rows = self.pairs.find(*(np.concatenate(part) for part in zip(*gaps, strict=True)))
        own = np.ones(len(words), bool)
        own[: len(gaps[0][0])] &= ~set_phrase[: len(gaps[0][0])]
        word = np.concatenate([np.arange(len(hashes)) for hashes, _ in gaps])[rare]
        linked = np.unique((word[:, None] * size + rows)[rows >= 0])  # a word counts once for a row
        place, row = linked // max(1, size), linked % max(1, size)
        most, best = most_owned(unit[place], row[:, None], units.n, size)
        kept = np.bincount(unit[own], minlength=units.n)
        limits = (next(limit for limit in reversed(table) if limit[0] <= self.groups) for table in (SHORT, LONG))
        many = np.any([most >= least + share * kept for _, least, share in limits], axis=0)
        return Links(most, kept, best, many)


def _rarer(parts: list[tuple[Hashes, Numbers]], group_of_text: Ints, n: int) -> Hashes:
    """Return the words that few of n groups have, ascending."""
    found = [np.zeros(0, np.uint64)]
    for k in range(Windows.SLICES):  # a part of the words at a time, to take less memory
        chosen = [(h[at], group_of_text[text[at]]) for h, text in parts for at in [(h >> np.uint64(60)) == k]]
        if not chosen:
            continue
        words, groups = (np.concatenate(part) for part in zip(*chosen, strict=True))
        order = np.lexsort((groups, words))
        words, groups = words[order], groups[order]
        once = changes(words) | changes(groups)
        words, counts = np.unique(words[once], return_counts=True)
        found.append(words[counts <= max(COMMON_GROUPS, COMMON * n)])
    return np.concatenate(found)


def _kept(words: Windows, hashes: Hashes, text: Numbers) -> tuple[Hashes, Numbers]:
    """Return the words that are known and rarer ones, with their texts."""
    kept, *_ = words.find(hashes, np.ones(len(hashes), bool))
    return hashes[kept], text[kept]


def _pairs(hashes: Hashes, text: Numbers, gap: int) -> tuple[Hashes, Bools]:
    """Hash each word with the one so many places on; return the hashes, and a mask of those inside one text."""
    return scramble(hashes[:-gap]) + hashes[gap:], text[:-gap] == text[gap:]
