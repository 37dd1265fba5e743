"""What a difference between models is worth: exact tests, and several of them at once.

Pure functions of numbers; scipy does the tests.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError

Floats = npt.NDArray[np.float64]


def mcnemar(a_right: npt.ArrayLike, b_right: npt.ArrayLike) -> float:
    """Test whether two models are right equally often on the same rows (exact McNemar test, two-sided).

    Rows of one patient are not independent: where they come in groups, `evaluation.compare`'s interval over groups is
    what counts.

    Args:
        a_right: (N,) whether the first model is right.
        b_right: (N,) whether the second one is.

    Returns:
        The p-value; 1 when they never differ.

    Raises:
        HfSynthError: they are not of the same rows.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(a_right, bool), np.asarray(b_right, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise HfSynthError(f"two models are compared on the same rows; got {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjust p-values of several tests so that one of them is wrong with at most the level asked (Holm 1979).

    Args:
        p_values: (M,) between 0 and 1, in any order.

    Returns:
        (M,) adjusted values, in the same order.

    Raises:
        HfSynthError: a value is no probability.
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise HfSynthError("p-values are numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    found = np.empty_like(p)
    found[order] = adjusted
    return found
