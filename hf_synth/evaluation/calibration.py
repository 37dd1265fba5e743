"""What a model's probabilities are worth: their temperature, their calibration error, and when it should abstain.

numpy only. Everything here is measured on rows with true labels that the model did not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.metrics import BINS, confidence_bins, gap_sums
from hf_synth.evaluation.statistics import wilson
from hf_synth.reports.plots import Bin

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def temperature(labels: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Find the one temperature that makes held-out probabilities most likely, drawn towards 1 when rows are few."""
    truth, held_out = checked(labels, probs, "gold")
    rows = truth >= 0
    if not rows.any():
        return 1.0
    losses = _heat_losses(truth[rows], held_out[rows], np.zeros(int(rows.sum()), dtype=np.int64))
    return _best_heat(losses[:, 0])


_HEATS = np.geomspace(0.25, 8.0, 61)


def _heat_losses(truth: Ints, probs: Floats, parts: Ints) -> Floats:
    """Sum -log p of the truth at each temperature over the rows of each part, (heats, parts)."""
    logs = np.log(np.maximum(probs, 1e-12))
    logs -= logs.max(1, keepdims=True)
    of_truth = logs[np.arange(len(logs)), truth]
    losses = [np.bincount(parts, np.log(np.exp(logs / heat).sum(1)) - of_truth / heat) for heat in _HEATS]
    return np.array(losses)


def _best_heat(losses: Floats) -> float:
    return float(_HEATS[int(np.argmin(losses + 2.0 * np.log(_HEATS) ** 2))])


def tempered(probs: Floats, heat: float | Floats) -> Floats:
    """Raise probabilities to 1 / temperature, (N, K); one temperature, or one a row (N, 1)."""
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
    one_group = np.zeros(int(rows.sum()), dtype=np.int64)
    return float(np.abs(gap_sums(truth[rows], said[rows], one_group, bins)).sum() / rows.sum())


def reliability(labels: npt.ArrayLike, probs: npt.ArrayLike, bins: int = BINS) -> list[dict[str, float]]:
    """Give the bins of a reliability picture: of the rows whose top label is about as sure, how many are right.

    Args:
        labels: true labels, (M,); rows with -1 are left out.
        probs: probabilities for them, (M, K).

    Returns:
        Of each bin that holds a row: its bounds `low` and `high`, mean `confidence`, `accuracy`, and `rows`.
    """
    truth, said = checked(labels, probs, "gold")
    rows = truth >= 0
    sure, right = said[rows].max(1), said[rows].argmax(1) == truth[rows]
    place = confidence_bins(sure, bins)
    counts, sums, hits = (np.bincount(place, w, minlength=bins) for w in (None, sure, right.astype(float)))
    return [
        {
            "low": i / bins, "high": (i + 1) / bins, "confidence": float(sums[i] / counts[i]),
            "accuracy": float(hits[i] / counts[i]), "rows": int(counts[i]),
        }
        for i in np.flatnonzero(counts)
    ]  # fmt: skip


def calibration_facts(
    labels: npt.ArrayLike,
    probs: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    bins: int = BINS,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Tell what a temperature would do to probabilities, without judging it on the rows it was found on.

    Rows are put into folds by group; those of each fold are tempered by the temperature of the other folds.

    Args:
        labels: true labels, (M,).
        probs: from models that did not see the row, (M, K).
        groups: group number of each row, (M,); each row by itself when None.
        bins: of confidence.

    Returns:
        `temperature` of all rows (above 1: the model is too sure), `ece` and `bins` as the model is; and where there
        are two groups at least, `ece_tempered` and `bins_tempered`.
    """
    truth, said = checked(labels, probs, "gold")
    names = np.arange(len(truth)) if groups is None else np.asarray(groups)
    kept = truth >= 0
    truth, said = truth[kept], said[kept]
    codes = np.unique(names[kept], return_inverse=True)[1]
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    found: dict[str, Any] = {"temperature": temperature(truth, said), "ece": calibration_error(truth, said, bins)}
    found["bins"] = reliability(truth, said, bins)
    if n_groups < 2:
        return found
    fold = (np.random.default_rng(seed).permutation(n_groups) % min(folds, n_groups))[codes]
    losses = _heat_losses(truth, said, fold)
    heats = np.array([_best_heat(losses.sum(1) - losses[:, i]) for i in range(losses.shape[1])])
    after = tempered(said, heats[fold][:, None])
    return found | {
        "ece_tempered": calibration_error(truth, after, bins),
        "bins_tempered": reliability(truth, after, bins),
    }


def calibration_by(
    labels: npt.ArrayLike, probs: npt.ArrayLike, by: Sequence[str], level: float | Floats | None = None
) -> dict[str, dict[str, float]]:
    """Break calibration down by class, subgroup or whatever names rows.

    Args:
        labels: true labels, (M,); rows with -1 are left out.
        probs: probabilities for them, (M, K).
        by: a name of each row, (M,): of its true class, its predicted class, its subgroup.
        level: of conformal sets (`conformal_level` or `conformal_levels`), from other rows than these.

    Returns:
        Of each name: `rows`, `accuracy`, mean `confidence` and `ece`; with a level also `coverage` (sets that hold the
        truth) and `abstained` (sets that are not just one label).

    Raises:
        ColumnError: there are not as many names as labels.
    """
    truth, said = checked(labels, probs, "gold")
    if len(by) != len(truth):
        raise ColumnError(f"there are {len(by)} names for {len(truth)} rows")
    names, found = np.asarray(by, dtype=object), {}
    for name in sorted(set(by)):
        rows = np.flatnonzero((names == name) & (truth >= 0))
        if not len(rows):
            continue
        of, table = truth[rows], said[rows]
        one = {
            "rows": len(rows),
            "accuracy": float((table.argmax(1) == of).mean()),
            "confidence": float(table.max(1).mean()),
            "ece": calibration_error(of, table),
        }
        if level is not None:
            sets = conformal_sets(table, level)
            one["coverage"] = float(sets[np.arange(len(of)), of].mean())
            one["abstained"] = float((sets.sum(1) != 1).mean())
        found[name] = one
    return found


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


def conformal_levels(labels: npt.ArrayLike, probs: npt.ArrayLike, coverage: float) -> Floats:
    """Find a level for each label, (K,), so that rows of each class are covered at the rate (class-conditional sets).

    A class with few rows gets level 0: its label then belongs to every set, which is what so few rows can promise.
    Arguments and errors are those of `conformal_level`.
    """
    truth, said = checked(labels, probs, "gold")
    return np.array([conformal_level(np.where(truth == k, truth, -1), said, coverage) for k in range(said.shape[1])])


def conformal_sets(probs: npt.ArrayLike, level: float | Floats) -> npt.NDArray[np.bool_]:
    """Give each row's set of labels, (N, K): those at the level or above; not just one label there is an abstention.

    Args:
        level: one for all labels, or one for each (K,).
    """
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


# --- calibration ----------------------------------------------------------------------------------------------------
def reliability_bins(found: Sequence[Mapping[str, float]]) -> list[Bin]:
    """Give the bins that `calibration.reliability` found, with 95% Wilson intervals."""
    return [
        Bin(b["confidence"], b["accuracy"], int(b["rows"]), *wilson(round(b["accuracy"] * b["rows"]), int(b["rows"])))
        for b in found
    ]
