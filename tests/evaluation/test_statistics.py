"""Tests of differences, against hand-made numbers and other implementations' definitions."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.statistics import (
    error_over_seeds,
    hierarchical_bootstrap,
    holm,
    interval,
    interval_over_seeds,
    mcnemar,
    nested_counts,
    wilson,
    wilson_bounds,
)


def test_mcnemar_counts_only_rows_that_differ() -> None:
    a = [1] * 10 + [0] * 2 + [1] * 50 + [0] * 30
    b = [0] * 10 + [1] * 2 + [1] * 50 + [0] * 30
    expected = 2 * sum(comb(12, k) for k in range(3)) / 2**12
    assert mcnemar(a, b) == pytest.approx(expected) == mcnemar(b, a)
    assert mcnemar(a, a) == 1.0
    with pytest.raises(HfSynthError, match="same rows"):
        mcnemar([1, 0], [1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []
    with pytest.raises(HfSynthError):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_and_keeps_the_order(p: list[float]) -> None:
    found = holm(p)
    assert np.all(found >= np.array(p))
    assert np.all(found <= np.minimum(1, len(p) * np.array(p)))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(found[order]) >= 0)


def test_many_wilson_intervals_are_those_of_scipy() -> None:
    hits, n = [0, 0, 3, 50, 199], [0, 7, 10, 50, 400]
    expected = [wilson(h, m) for h, m in zip(hits, n, strict=True)]
    assert np.transpose(wilson_bounds(hits, n)) == pytest.approx(np.array(expected), abs=1e-6)
    assert expected[0] == (0, 1)
    assert expected[2] == pytest.approx((0.1078, 0.6032), abs=1e-4)


def test_a_group_drawn_twice_has_its_inside_drawn_twice() -> None:
    levels = [["a", "a", "b", "b", "b", "b"], [0, 1, 0, 0, 1, 1]]
    counts = nested_counts(levels, 4_000, seed=1)
    assert counts.shape == (4_000, 6)
    of_a, of_b = counts[:, :2].sum(1), counts[:, 2:].sum(1)
    assert set(np.unique(of_a)) == {0, 2, 4}  # a is drawn 0, 1 or 2 times, and holds 2 groups of one row
    assert np.array_equal(of_a // 2 + of_b // 4, np.full(4_000, 2))
    assert counts.mean(0) == pytest.approx(np.ones(6), abs=0.1)
    assert np.array_equal(counts, nested_counts(levels, 4_000, seed=1))


def test_the_outer_level_is_what_spreads() -> None:
    """Variance of the mean: of 4 subsets whose seeds all agree it is that of 4 values, not of 40."""
    subset, run = np.repeat(np.arange(4), 10), np.tile(np.arange(10), 4)
    values = np.array([0.0, 1.0, 2.0, 3.0])[subset]
    nested = hierarchical_bootstrap(values, [subset, run], 4_000)
    flat = hierarchical_bootstrap(values, [np.arange(40)], 4_000)
    assert nested.var() == pytest.approx(values.var() / 4, rel=0.1)
    assert flat.var() == pytest.approx(values.var() / 40, rel=0.1)


def test_columns_are_drawn_in_pairs() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=30)
    levels = [np.arange(30) // 3, np.arange(30) % 3]
    draws = hierarchical_bootstrap(np.column_stack([one, one + 1]), levels, 200)
    assert draws.shape == (200, 2)
    assert draws[:, 1] - draws[:, 0] == pytest.approx(np.ones(200))
    assert draws[:, 0] == pytest.approx(hierarchical_bootstrap(one, levels, 200))


def test_nested_intervals_cover_the_mean_of_all_subsets() -> None:
    """Subsets vary with sd 1, runs within them with sd 1: of 300 simulations the interval holds 0 in about 95%."""
    rng, subset, run = np.random.default_rng(3), np.repeat(np.arange(20), 3), np.tile(np.arange(3), 20)
    inside = 0
    for i in range(300):
        values = rng.normal(size=20)[subset] + rng.normal(size=60)
        low, high = interval(hierarchical_bootstrap(values, [subset, run], 400, seed=i), 20)
        inside += low < 0 < high
    assert 0.912 <= inside / 300 <= 0.988  # 3 standard errors of the simulation


def test_the_error_over_seeds_by_hand() -> None:
    """Variance 1 over three seeds: 1 / 3 of it if they are independent, f / (1 - f) = 1 more at half of the pool."""
    assert error_over_seeds([1, 2, 3]) == pytest.approx(((1 / 3) ** 0.5, 2))
    assert error_over_seeds([1, 2, 3], overlap=0.5) == pytest.approx(((4 / 3) ** 0.5, 2))
    error, free = error_over_seeds([1, 2, 3], test_variance=1)
    assert (error, free) == pytest.approx(((4 / 3) ** 0.5, 2 * 4**2))
    low, high = interval_over_seeds([1, 2, 3])
    assert (low, high) == pytest.approx((2 - 4.3027 * 3**-0.5, 2 + 4.3027 * 3**-0.5), abs=1e-3)
    for values, overlap in (([1], 0), ([1, 2], 1), ([1, 1], 0)):
        assert interval_over_seeds(values, overlap=overlap) is None


@pytest.mark.parametrize(("pool", "gold"), [(400, 100), (400, 260)])
def test_intervals_over_seeds_that_share_a_pool_cover(pool: int, gold: int) -> None:
    """500 simulated pools, five seeds each; without the correction coverage falls below .85."""
    rng, inside = np.random.default_rng(4), {"shared": 0, "independent": 0}
    for _ in range(500):
        worth = rng.normal(size=pool)
        gaps = [worth[rng.permutation(pool)[:gold]].mean() for _ in range(5)]
        for name, overlap in (("shared", gold / pool), ("independent", 0.0)):
            low, high = interval_over_seeds(gaps, overlap=overlap)
            inside[name] += low < 0 < high
    assert 0.93 - 0.01 <= inside["shared"] / 500 <= 0.985
    assert inside["independent"] / 500 < 0.88


def test_intervals_of_few_groups_reach_further() -> None:
    draws = np.random.default_rng(0).normal(size=100_000)
    assert interval(draws) == pytest.approx((-1.96, 1.96), abs=0.05)
    assert interval(draws, 10_000) == pytest.approx((-1.96, 1.96), abs=0.05)
    assert interval(draws, 5)[1] == pytest.approx(2.776 * (5 / 4) ** 0.5, abs=0.15)  # t of 4 degrees of freedom
    assert interval([1.0, float("nan"), 1.0], 2) == (1, 1)


def test_a_hierarchy_that_does_not_fit_is_refused() -> None:
    for values, levels in (
        ([1.0, 2.0], [[0]]),
        ([1.0], []),
        ([], [[]]),
        ([float("nan")], [[0]]),
        ([1, 2], [[0, 1], [0]]),
    ):
        with pytest.raises(HfSynthError):
            hierarchical_bootstrap(values, levels, 10)
