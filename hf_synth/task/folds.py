"""Folds of gold: groups stay whole, labels are spread evenly, and the order of the rows does not matter. No numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from hashlib import sha256

FOLDS = 5  # of gold, in generation and in correction


def deal(
    rows: Iterable[tuple[str, Collection[Hashable]]],
    folds: int = FOLDS,
    *,
    seed: int = 0,
    fixed: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Deal groups of rows into folds.

    Groups with a rare label are dealt first, of these the largest, of equally large ones by a seeded digest of their
    name. Each goes to the fold that has least of its labels, and of several such folds to the one with fewest rows.

    Args:
        rows: group and labels of each row, in any order; a row without labels counts as of one more label.
        folds: number of folds; fewer where there are fewer groups.
        seed: of the digest.
        fixed: folds of groups that are not dealt; the others are balanced against them.

    Returns:
        The fold of each group, from 0. Where none is fixed, no fold is empty.
    """
    fixed = fixed or {}
    labels_of: dict[str, dict[Hashable, int]] = {}
    totals: Counter[Hashable] = Counter()
    for group, labels in rows:
        counts = labels_of.setdefault(group, {})
        for label in labels or ("",):
            counts[label] = counts.get(label, 0) + 1
            totals[label] += 1
    rank = {x: i for i, x in enumerate(sorted(totals, key=lambda x: (totals[x], str(x))))}  # rarest first
    number = max(1, min(folds, len(labels_of)), *(fold + 1 for fold in fixed.values()))
    have = [[0] * number for _ in rank]  # rows of each label in each fold
    size = [0] * number
    place: dict[str, int] = {}

    def put(group: str, fold: int) -> None:
        place[group] = fold
        for label, count in labels_of[group].items():
            have[rank[label]][fold] += count
            size[fold] += count

    for group in labels_of.keys() & fixed.keys():
        put(group, fixed[group])
    free = [
        (min(map(rank.__getitem__, counts)), -sum(counts.values()), sha256(f"{seed}:{group}".encode()).digest(), group)
        for group, counts in labels_of.items()
        if group not in fixed
    ]
    for *_, group in sorted(free):
        least = [0.0] * number
        for label, count in sorted(labels_of[group].items(), key=lambda item: rank[item[0]]):
            share = count / totals[label]
            least = [a + share * b for a, b in zip(least, have[rank[label]], strict=True)]
        put(group, min(zip(least, size, range(number), strict=True))[2])
    return place
