"""The deal of gold into folds."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.task.folds import deal

ROWS = st.lists(st.tuples(st.integers(0, 30), st.sets(st.integers(0, 3), max_size=3)), min_size=1, max_size=80)


def rows_of(drawn: list[tuple[int, set[int]]]) -> list[tuple[str, Any]]:
    return [(f"p{group}", sorted(labels)) for group, labels in drawn]


@settings(deadline=None)
@given(ROWS, st.integers(1, 6), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter_and_no_fold_is_empty(
    drawn: list[tuple[int, set[int]]], folds: int, seed: int, rng: random.Random
) -> None:
    rows = rows_of(drawn)
    dealt = deal(rows, folds, seed=seed)
    assert deal(rng.sample(rows, len(rows)), folds, seed=seed) == dealt
    assert set(dealt) == {group for group, _ in rows}
    assert set(dealt.values()) == set(range(min(folds, len(dealt))))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=90), st.integers(2, 5))
def test_labels_of_single_rows_are_spread_to_within_one(labels: list[int], folds: int) -> None:
    dealt = deal(((f"p{i}", (label,)) for i, label in enumerate(labels)), folds)
    for label in {*labels, None}:  # None: of any label
        counts = Counter(dealt[f"p{i}"] for i, x in enumerate(labels) if label in (x, None))
        assert max(counts.values()) - min(counts[f] for f in range(1 + max(dealt.values()))) <= 1


def test_uneven_groups_are_balanced_by_their_rows() -> None:
    rows = [("large", ("a",))] * 6 + [(f"p{i}", ("a",)) for i in range(6)]
    dealt = deal(rows, 2)
    assert {group for group, fold in dealt.items() if fold == dealt["large"]} == {"large"}


def test_fixed_folds_stay_and_the_others_are_balanced_against_them() -> None:
    rows = [(f"p{i}", ("rare" if i % 5 == 0 else "often",)) for i in range(50)]
    fixed = {f"p{i}": 0 for i in range(0, 20, 5)} | {"absent": 1}  # four of the ten rare ones
    dealt = deal(rows, 4, fixed=fixed)
    assert {dealt[f"p{i}"] for i in range(0, 20, 5)} == {0}
    assert "absent" not in dealt
    assert Counter(dealt[f"p{i}"] for i in range(0, 50, 5)) == {0: 4, 1: 2, 2: 2, 3: 2}
    assert max(Counter(dealt.values()).values()) <= 14


def test_the_seed_decides_and_the_deal_is_pinned() -> None:
    rows = [(f"p{i}", (i % 2,)) for i in range(20)]
    assert deal(rows, seed=1) != deal(rows, seed=0)
    dealt = deal([(f"p{i}", ()) for i in range(6)], 3)
    assert [dealt[f"p{i}"] for i in range(6)] == [0, 2, 0, 1, 1, 2], "with another deal the same plan would ask anew"
