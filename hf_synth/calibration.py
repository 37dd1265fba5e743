"""What a model's probabilities are worth: their temperature, their calibration error, and when it should abstain.

numpy only. Everything here is measured on rows with true labels that the model did not see.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, HfSynthError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BINS = 10  # of confidence, in the calibration error of small gold


def temperature(labels: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Find the one temperature that makes held-out probabilities most likely, drawn towards 1 when rows are few."""
    truth, held_out = checked(labels, probs, "gold")
    rows = truth >= 0
    if not rows.any():
        return 1.0
    grid = np.geomspace(0.25, 8.0, 61)
    logs = np.log(np.maximum(held_out[rows], 1e-12))
    loss = []
    for heat in grid:
        scaled = logs / heat
        top = scaled.max(1, keepdims=True)
        normal = top[:, 0] + np.log(np.exp(scaled - top).sum(1))
        said = scaled[np.arange(len(scaled)), truth[rows]]
        loss.append(float((normal - said).sum() + 2.0 * np.log(heat) ** 2))
    return float(grid[int(np.argmin(loss))])


def tempered(probs: Floats, heat: float) -> Floats:
    """Raise probabilities to 1 / temperature, (N, K)."""
    logs = np.log(np.maximum(probs, 1e-12)) / heat
    raised = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def calibration_error(labels: npt.ArrayLike, probs: npt.ArrayLike, bins: int = BINS) -> float:
    """Give the expected calibration error of the top label: bins of equal width, |accuracy - confidence| by rows.

    Args:
        labels: true labels, (M,); rows with -1 are left out.
        probs: probabilities for them, (M, K).

    Returns:
        Between 0 and 1; nan without a row.
    """
    truth, said = checked(labels, probs, "gold")
    rows = truth >= 0
    if not rows.any():
        return float("nan")
    sure, right = said[rows].max(1), said[rows].argmax(1) == truth[rows]
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(place, right.astype(float) - sure, minlength=bins)
    return float(np.abs(gaps).sum() / rows.sum())


def conformal_level(labels: npt.ArrayLike, probs: npt.ArrayLike, coverage: float) -> float:
    """Find the probability from which on a label belongs to a row's set, so that the sets hold the truth at a rate.

    Split conformal prediction: of M rows that the model did not see, the ceil((M + 1) x coverage)-th largest
    probability of a true label is the level. For rows drawn like those, sets hold the truth in at least that share;
    for synthetic rows this carries over only as far as they are like gold.

    Args:
        labels: true labels, (M,).
        probs: from models that did not see the row, (M, K).
        coverage: between 0 and 1, e.g. 0.9.

    Returns:
        The level; 0 (every label belongs to every set) when the rows are too few for the coverage.

    Raises:
        HfSynthError: coverage is no share.
    """
    if not 0 < coverage < 1:
        raise HfSynthError(f"coverage is a share between 0 and 1, e.g. 0.9; got {coverage}")
    truth, said = checked(labels, probs, "gold")
    rows = np.flatnonzero(truth >= 0)
    of_truth = np.sort(said[rows, truth[rows]])[::-1]
    wanted = int(np.ceil((len(rows) + 1) * coverage))
    return float(of_truth[wanted - 1]) if 0 < wanted <= len(rows) else 0.0


def conformal_sets(probs: npt.ArrayLike, level: float) -> npt.NDArray[np.bool_]:
    """Give each row's set of labels, (N, K): those at the level or above; not just one label there is an abstention."""
    return np.asarray(np.asarray(probs, dtype=np.float64) >= level - 1e-12)


def checked(labels: npt.ArrayLike, probs: npt.ArrayLike, what: str) -> tuple[Ints, Floats]:
    """Give labels (N,) and probabilities (N, K) as arrays that fit together.

    Raises:
        ColumnError: shapes or values do not fit; the sentence begins with `what`.
    """
    given, table = np.asarray(labels), np.asarray(probs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ColumnError(f"{what}: probabilities must have shape (rows, labels), not {table.shape}")
    if given.shape != (len(table),):
        raise ColumnError(f"{what}: {len(given)} labels for {len(table)} rows of probabilities")
    if len(given) and not np.issubdtype(given.dtype, np.integer):
        raise ColumnError(f"{what}: labels must be indices, -1 where there is none")
    given = given.astype(np.int64)
    if len(given) and (given.min() < -1 or given.max() >= table.shape[1]):
        raise ColumnError(f"{what}: a label is outside 0..{table.shape[1] - 1}")
    if not np.isfinite(table).all() or (table < 0).any() or not np.allclose(table.sum(1), 1.0, atol=1e-3):
        raise ColumnError(f"{what}: probabilities of a row must be 0 or more and sum to 1")
    return given, table
