"""Texts that repeat earlier ones: exactly, or almost (MinHash), in constant time a text.

`Seen` takes one row after another, as they are generated; `Repeats` takes whole batches with numpy, as an audit does.
"""

from __future__ import annotations

from array import array
from operator import eq
from typing import Literal

import numpy as np
import numpy.typing as npt

from hf_synth.privacy.folding import Bools, Row, Units, digest, mix, words_of

# Near-duplicates: similarity (Jaccard) of 4-word shingles, estimated from 72 minima in 12 bands of 6, which finds 97%
# of the pairs at similarity .8 and nearly all above .9.
SHINGLE, NEAR_DUPLICATE, BANDS, BAND_ROWS = 4, 0.8, 12, 6


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


class Repeats:
    """Rows of an audit, batch after batch, so that those that repeat an earlier one can be told at the end.

    The same measure as `Seen`, over hashed windows, with 72 small numbers a row in memory.
    """

    def __init__(self) -> None:
        self._exact: list[npt.NDArray[np.uint64]] = []
        self._sketches: list[npt.NDArray[np.uint32]] = []

    def add(self, rows: Units) -> None:
        """Add rows, each as one text."""
        self._exact.append(rows.in_order())
        self._sketches.append(_sketches(rows))

    def found(self) -> tuple[Bools, Bools]:
        """Tell which of N rows repeat an earlier one exactly, and which almost do; rows without text do neither."""
        exact = np.concatenate([np.zeros(0, np.uint64), *self._exact])
        sketches = np.concatenate([np.zeros((0, BANDS * BAND_ROWS), np.uint32), *self._sketches])
        _, first, which = np.unique(exact, return_index=True, return_inverse=True)
        same = (first[which] < np.arange(len(exact))) & (exact != 0)
        places = np.flatnonzero(~same & (sketches != _NONE).any(1))  # a row without a window has no sketch
        near = np.zeros(len(exact), bool)
        for band in range(BANDS):
            part = sketches[places, band * BAND_ROWS : (band + 1) * BAND_ROWS].astype(np.uint64)
            key = np.zeros(len(places), np.uint64)
            for k in range(BAND_ROWS):
                key = mix(key + part[:, k] + np.uint64(1))
            _, first, which = np.unique(key, return_index=True, return_inverse=True)
            before = first[which]
            pairs = np.flatnonzero((before < np.arange(len(places))) & ~near[places])
            if len(pairs):
                alike = (sketches[places[pairs]] == sketches[places[before[pairs]]]).mean(1)
                near[places[pairs[alike >= NEAR_DUPLICATE]]] = True
        return same, near


_NONE = np.uint32(0xFFFFFFFF)
_FACTORS = mix(np.arange(1, BANDS * BAND_ROWS + 1, dtype=np.uint64)) | np.uint64(1)


def _sketches(rows: Units) -> npt.NDArray[np.uint32]:
    """Give the minima of each text's shingles under 72 hashes (multiply and shift); all ones for one without."""
    hashes, valid = rows.windows(SHINGLE)
    hashes, unit = hashes[valid], rows.word_unit[: len(valid)][valid]
    found = np.full((rows.n, len(_FACTORS)), _NONE, np.uint32)
    if len(hashes):
        begin = np.flatnonzero(np.diff(unit, prepend=-1))
        for k, factor in enumerate(_FACTORS):
            found[unit[begin], k] = np.minimum.reduceat(((hashes * factor) >> np.uint64(32)).astype(np.uint32), begin)
    return found
