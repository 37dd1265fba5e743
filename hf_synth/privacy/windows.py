"""Windows of gold (word n-grams, character n-grams, skip-grams) by hash, with the owners of the rare ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hf_synth.privacy.folding import Bools, Hashes, Numbers
from hf_synth.privacy.short_texts import SHARED_GROUPS, changes
from hf_synth.task.labels import Ints

# A window that three patients share is boilerplate.
BOILERPLATE_GROUPS = SHARED_GROUPS


class Windows:
    """Windows of gold by hash, with the owners of the rare ones; windows of many groups are boilerplate.

    The sorted hashes are spread evenly: their first bits lead to a bucket, so that a search takes a step or two. The
    table is built in SLICES of the hashes, of which one at a time is sorted: sorting all at once would take three times
    the memory of the table.
    """

    SLICES = 16  # a power of 2

    def __init__(self, windows: list[tuple[Hashes, Numbers]], group_of: Ints | None = None) -> None:
        """Build the table from hashes and owners of windows in any order; the list is emptied meanwhile.

        Args:
            group_of: the group of each owner, ascending; None where the owners are groups.
        """
        place = np.uint64(64 - (self.SLICES - 1).bit_length())
        slices = [(hashes >> place).astype(np.uint8) for hashes, _ in windows]
        hashes, owners, self.boilerplate = [], [], 0
        for k in range(self.SLICES):
            parts = [(h[at == k], o[at == k]) for (h, o), at in zip(windows, slices, strict=True)]
            found, owner, shared = _owned(
                np.concatenate([h for h, _ in parts]), np.concatenate([o for _, o in parts]), group_of
            )
            hashes.append(found)
            owners.append(owner)
            self.boilerplate += shared
        windows.clear()
        self._hashes = np.concatenate(hashes)
        hashes.clear()
        self._owners = np.concatenate([*owners, np.full((1, BOILERPLATE_GROUPS - 1), -1, np.int32)])
        owners.clear()
        bits = max(4, (2 * len(self._hashes)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._starts = self._bucket_starts(1 << bits)

    def _bucket_starts(self, n: int) -> Numbers:
        """Return where each of n buckets begins among the sorted hashes, (n + 1,)."""
        starts = np.zeros(n + 1, np.int32)
        size = n // self.SLICES
        firsts = np.arange(self.SLICES, dtype=np.uint64) * np.uint64(size) << self._shift
        begins = [*np.searchsorted(self._hashes, firsts).tolist(), len(self._hashes)]
        for k, (begin, end) in enumerate(pairwise(begins)):
            bucket = (self._hashes[begin:end] >> self._shift).astype(np.int64) - k * size
            counts = np.bincount(bucket, minlength=size)
            starts[1 + k * size : 1 + (k + 1) * size] = begin + np.cumsum(counts)
        return starts

    def find(self, hashes: Hashes, valid: Bools) -> tuple[Bools, Bools, Ints]:
        """Return masks of the rare windows and of boilerplate, (W,), and the owners of the rare ones, (R, 2)."""
        bucket = hashes >> self._shift
        place, end = self._starts[bucket], self._starts[bucket + np.uint64(1)]
        entries = np.full(len(hashes), -1, np.int32)
        left = np.flatnonzero(valid & (place < end))
        while len(left):
            current = place[left]
            hit = self._hashes[current] == hashes[left]
            entries[left[hit]] = current[hit]
            left = left[~hit]
            place[left] += 1
            left = left[place[left] < end[left]]
        owners = self._owners[entries]
        rare = (entries >= 0) & (owners[:, 0] >= 0)
        return rare, (entries >= 0) & ~rare, owners[rare].astype(np.int64)


def most_owned(place: Ints | Numbers, owners: Ints, n: int, size: int) -> tuple[Ints, Ints]:
    """Count windows by place (a text, a run) and owner; return the largest count and its owner for n places.

    Args:
        place: (R,) of each window.
        owners: (R, K) of each window; -1 for none.
        size: number of owners.
    """
    size = max(1, size)
    keys, counts = np.unique((place.astype(np.int64)[:, None] * size + owners)[owners >= 0], return_counts=True)
    order = np.lexsort((counts, keys // size))
    most, owner = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    most[keys[order] // size], owner[keys[order] // size] = counts[order], keys[order] % size  # the last one counts
    return most, owner


def _owned(hashes: Hashes, owners: Numbers, group_of: Ints | None) -> tuple[Hashes, Numbers, int]:
    """Return the N distinct hashes, ascending; two owners of each, (N, 2); and the number that many groups share.

    The owners are -1 where there are none, as of boilerplate.
    """
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    new = changes(hashes)
    once = new | changes(owners)  # each owner counts once
    hashes, owners, new = hashes[once], owners[once], new[once]
    first = np.flatnonzero(new)
    counts = np.diff(first, append=len(hashes))
    groups = counts
    if group_of is not None and len(first):
        groups = np.add.reduceat((new | changes(group_of[owners])).astype(np.int64), first)
    found = np.full((len(first), BOILERPLATE_GROUPS - 1), -1, np.int32)
    for k in range(BOILERPLATE_GROUPS - 1):
        has = (counts > k) & (groups < BOILERPLATE_GROUPS)
        found[has, k] = owners[first[has] + k]
    return hashes[first], found, int((groups >= BOILERPLATE_GROUPS).sum())
