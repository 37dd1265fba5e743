"""Tests of differences, against hand-made numbers and other implementations' definitions."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.errors import HfSynthError
from hf_synth.statistics import holm, mcnemar


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
