"""Duplicate and near-duplicate detection (MinHash with locality-sensitive hashing), in constant time for each text.

`Seen` takes rows one by one during generation; `Repeats` takes batches in numpy for an audit.
"""

from __future__ import annotations

from array import array
from operator import eq
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hf_synth.privacy.folding import Bools, Row, Units, digest, scramble, words_of

# Near-duplicates: similarity (Jaccard) of 4-word shingles, estimated from 72 minima in 12 bands of 6, which finds 97%
# of the pairs at similarity .8 and nearly all above .9.
SHINGLE, NEAR_DUPLICATE, BANDS, BAND_ROWS = 4, 0.8, 12, 6
_NONE = np.uint32(0xFFFFFFFF)  # the minimum of no hash
_FACTORS = scramble(np.arange(1, BANDS * BAND_ROWS + 1, dtype=np.uint64)) | np.uint64(1)


class Seen:
    """Index of earlier texts that recognises exact and near duplicates.

    A near duplicate has an estimated similarity of at least NEAR_DUPLICATE to the first text of a bucket.
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self._buckets = _Buckets()
        self._sketches: list[array[int]] = []  # minima alone; rensa's objects take five times the memory

    def repeat(self, row: Row) -> Literal["duplicate", "near_duplicate"] | None:
        """Return how a row repeats an earlier one; None for a new row, which is added, and for a row without text."""
        if not any(row):
            return None
        name = digest(row)
        if name in self._digests:
            return "duplicate"
        if minima := _sketch(row):
            # hashes of tuples of numbers are the same in every process
            buckets = [hash((b, *minima[b * BAND_ROWS : (b + 1) * BAND_ROWS])) for b in range(BANDS)]
            candidates = {self._buckets.get(bucket) for bucket in buckets}
            for other in (number for number in candidates if number is not None):
                if sum(map(eq, minima, self._sketches[other])) >= NEAR_DUPLICATE * len(minima):
                    return "near_duplicate"
            for bucket in buckets:
                self._buckets.add(bucket, len(self._sketches))
            self._sketches.append(minima)
        self._digests.add(name)
        return None


class Repeats:
    """Rows of an audit, added in batches and searched for duplicates at the end.

    The measure is that of `Seen` over hashed windows; a row takes 72 small numbers of memory.
    """

    def __init__(self) -> None:
        self._exact: list[npt.NDArray[np.uint64]] = []
        self._sketches: list[npt.NDArray[np.uint32]] = []

    def add(self, rows: Units) -> None:
        """Add rows, each as one text."""
        self._exact.append(rows.in_order())
        self._sketches.append(_sketches(rows))

    def columns(self) -> dict[str, Any]:
        """Return what is kept of the rows as Arrow columns."""
        import pyarrow as pa

        sketches = np.concatenate([np.zeros((0, BANDS * BAND_ROWS), np.uint32), *self._sketches])
        flat = pa.array(sketches.reshape(-1))
        return {
            "exact": pa.array(np.concatenate([np.zeros(0, np.uint64), *self._exact])),
            "sketch": pa.FixedSizeListArray.from_arrays(flat, BANDS * BAND_ROWS),
        }

    def take_over(self, block: Any) -> None:
        """Add rows from the columns of another process, an Arrow table."""
        self._exact.append(np.asarray(block["exact"]))
        sketches = np.asarray(block["sketch"].combine_chunks().flatten())
        self._sketches.append(sketches.reshape(-1, BANDS * BAND_ROWS))

    def find(self) -> tuple[Bools, Bools]:
        """Return masks of the exact and of the near duplicates of earlier rows, (N,); rows without text are neither."""
        exact = np.concatenate([np.zeros(0, np.uint64), *self._exact])
        sketches = np.concatenate([np.zeros((0, BANDS * BAND_ROWS), np.uint32), *self._sketches])
        _, first, which = np.unique(exact, return_index=True, return_inverse=True)
        same = (first[which] < np.arange(len(exact))) & (exact != 0)
        rows = np.flatnonzero(~same & (sketches != _NONE).any(1))  # a row without a window has no sketch
        near = np.zeros(len(exact), bool)
        for band in range(BANDS):
            part = sketches[rows, band * BAND_ROWS : (band + 1) * BAND_ROWS].astype(np.uint64)
            key = np.zeros(len(rows), np.uint64)
            for k in range(BAND_ROWS):
                key = scramble(key + part[:, k] + np.uint64(1))
            _, first, which = np.unique(key, return_index=True, return_inverse=True)
            before = first[which]
            pairs = np.flatnonzero((before < np.arange(len(rows))) & ~near[rows])
            if len(pairs):
                similarity = (sketches[rows[pairs]] == sketches[rows[before[pairs]]]).mean(1)
                near[rows[pairs[similarity >= NEAR_DUPLICATE]]] = True
        return same, near


class _Buckets:
    """A map from hashes to small numbers in a sixth of a dict's memory: open addressing in two arrays."""

    def __init__(self) -> None:
        self._count = 0
        self._keys, self._values = array("Q", bytes(8 << 10)), array("I", bytes(4 << 10))  # key 0: a free slot

    def get(self, hash: int) -> int | None:
        """Return the number of a hash; None for an unknown one."""
        slot = self._slot(hash & 0xFFFFFFFFFFFFFFFF or 1)
        return self._values[slot] if self._keys[slot] else None

    def add(self, hash: int, number: int) -> None:
        """Set the number of a hash; the first one stays."""
        key = hash & 0xFFFFFFFFFFFFFFFF or 1
        slot = self._slot(key)
        if self._keys[slot]:
            return
        self._keys[slot], self._values[slot] = key, number
        self._count += 1
        if 3 * self._count > 2 * len(self._keys):
            self._grow()

    def _slot(self, key: int) -> int:
        mask = len(self._keys) - 1
        slot = key & mask
        while self._keys[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._keys, self._values = array("Q", bytes(16 * len(keys))), array("I", bytes(8 * len(keys)))
        for key, value in zip(keys, values, strict=True):
            if key:
                slot = self._slot(key)
                self._keys[slot], self._values[slot] = key, value


def _sketch(row: Row) -> array[int] | None:
    """Return the minima of a row's shingles under BANDS x BAND_ROWS hashes; None for a row without a shingle."""
    from rensa import RMinHash

    words = words_of(" ".join(row))
    if len(words) < SHINGLE:
        return None
    sketch = RMinHash(num_perm=BANDS * BAND_ROWS, seed=0)
    sketch.update(list(map(" ".join, zip(*(words[i:] for i in range(SHINGLE)), strict=False))))
    return array("I", sketch.digest())


def _sketches(rows: Units) -> npt.NDArray[np.uint32]:
    """Return the minima of each text's shingles under 72 hashes (multiply and shift), (N, 72); `_NONE` without any."""
    hashes, valid = rows.windows(SHINGLE)
    hashes, unit = hashes[valid], rows.word_unit[: len(valid)][valid]
    minima = np.full((rows.n, len(_FACTORS)), _NONE, np.uint32)
    if len(hashes):
        begin = np.flatnonzero(np.diff(unit, prepend=-1))
        for k, factor in enumerate(_FACTORS):
            minima[unit[begin], k] = np.minimum.reduceat(((hashes * factor) >> np.uint64(32)).astype(np.uint32), begin)
    return minima
