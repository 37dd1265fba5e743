"""Calibration of probabilities: temperature scaling, expected calibration error, reliability diagram, conformal sets.

Everything is measured on rows with true labels that the model did not see. The conformal sets of correction are of the
corrector's opinion alone, at its temperature, before it is joined with the generator's label: gold, on which they are
calibrated, has no such label. Under `auto` opinions on synthetic rows are averaged over more models than those on gold,
so the sets are calibrated on rougher opinions than they are made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.intervals import mean_limits
from hf_synth.evaluation.metrics import BINS, confidence_bins, gap_sums
from hf_synth.evaluation.statistics import wilson
from hf_synth.reports.plots import Bin
from hf_synth.task.labels import Floats, Ints

_TEMPERATURES = np.geomspace(0.25, 8.0, 61)  # temperatures that are tried


def temperature(labels: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Find the temperature that maximises the likelihood of held-out labels, shrunk towards 1 when rows are few."""
    truth, table = check_probabilities(labels, probs, "gold")
    rows = truth >= 0
    if not rows.any():
        return 1.0
    losses = _temperature_losses(truth[rows], table[rows], np.zeros(int(rows.sum()), dtype=np.int64))
    return _best_temperature(losses[:, 0])


def apply_temperature(probs: Floats, heat: float | Floats) -> Floats:
    """Scale probabilities by a temperature, (N, K): one for all rows, or one a row (N, 1)."""
    logs = np.log(np.maximum(probs, 1e-12)) / heat
    raised = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def calibration_error(labels: npt.ArrayLike, probs: npt.ArrayLike, bins: int = BINS) -> float:
    """Compute the expected calibration error of the top label: |accuracy - confidence| in bins of equal width, by rows.

    Args:
        labels: true labels, (M,); rows with -1 are left out.
        probs: predicted probabilities, (M, K).

    Returns:
        Between 0 and 1; nan without a row.
    """
    truth, table = check_probabilities(labels, probs, "gold")
    rows = truth >= 0
    if not rows.any():
        return float("nan")
    one_group = np.zeros(int(rows.sum()), dtype=np.int64)
    return float(np.abs(gap_sums(truth[rows], table[rows], one_group, bins)).sum() / rows.sum())


def reliability(
    labels: npt.ArrayLike, probs: npt.ArrayLike, bins: int = BINS, groups: npt.ArrayLike | None = None
) -> list[dict[str, float]]:
    """Compute the bins of a reliability diagram: the accuracy of rows whose top label has a like confidence.

    Args:
        labels: true labels, (M,); rows with -1 are left out.
        probs: predicted probabilities, (M, K).
        groups: group number of each row, (M,); without them there are no intervals.

    Returns:
        For each bin that holds a row: its bounds `low` and `high`, mean `confidence`, `accuracy`, and `rows`; with
        groups, and where not all rows are of one, also the 95% interval of the accuracy, `accuracy_low` and
        `accuracy_high`.
    """
    truth, table = check_probabilities(labels, probs, "gold")
    rows = truth >= 0
    confidence, right = table[rows].max(1), table[rows].argmax(1) == truth[rows]
    at = confidence_bins(confidence, bins)
    counts, sums, hits = (np.bincount(at, w, minlength=bins) for w in (None, confidence, right.astype(float)))
    found = []
    for i in np.flatnonzero(counts):
        one = {
            "low": i / bins,
            "high": (i + 1) / bins,
            "confidence": float(sums[i] / counts[i]),
            "accuracy": float(hits[i] / counts[i]),
            "rows": int(counts[i]),
        }
        if groups is not None:
            part = at == i
            limits = mean_limits(right[part], np.unique(np.asarray(groups)[rows][part], return_inverse=True)[1])
            one |= {} if np.isnan(limits[0]) else dict(zip(("accuracy_low", "accuracy_high"), limits, strict=True))
        found.append(one)
    return found


def reliability_bins(bins: Sequence[Mapping[str, float]]) -> list[Bin]:
    """Return the bins of `reliability` as a plot takes them.

    Their 95% intervals are those of the bins; Wilson's, as if rows were independent, where an earlier version wrote the
    bins, where several runs were pooled, and where the rows are of one group.
    """
    return [Bin(b["confidence"], b["accuracy"], int(b["rows"]), *_limits(b)) for b in bins]


def _limits(one: Mapping[str, float]) -> tuple[float, float]:
    if "accuracy_low" in one:
        return one["accuracy_low"], one["accuracy_high"]
    return wilson(round(one["accuracy"] * one["rows"]), int(one["rows"]))


def calibration_facts(
    labels: npt.ArrayLike,
    probs: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    bins: int = BINS,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure calibration before and after temperature scaling, the latter cross-fitted.

    Rows are put into folds by group; each fold is scaled by the temperature of the other folds.

    Args:
        labels: true labels, (M,).
        probs: from models that did not see the row, (M, K).
        groups: group number of each row, (M,); each row by itself when None.
        bins: of confidence.

    Returns:
        `temperature` of all rows (above 1: the model is overconfident), `ece` and `bins` before scaling; with two
        groups or more also `ece_tempered` and `bins_tempered`.
    """
    truth, table = check_probabilities(labels, probs, "gold")
    names = np.arange(len(truth)) if groups is None else np.asarray(groups)
    kept = truth >= 0
    truth, table = truth[kept], table[kept]
    codes = np.unique(names[kept], return_inverse=True)[1]
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    facts: dict[str, Any] = {"temperature": temperature(truth, table), "ece": calibration_error(truth, table, bins)}
    facts["bins"] = reliability(truth, table, bins, codes)
    if n_groups < 2:
        return facts
    fold = (np.random.default_rng(seed).permutation(n_groups) % min(folds, n_groups))[codes]
    losses = _temperature_losses(truth, table, fold)
    heats = np.array([_best_temperature(losses.sum(1) - losses[:, i]) for i in range(losses.shape[1])])
    after = apply_temperature(table, heats[fold][:, None])
    return facts | {
        "ece_tempered": calibration_error(truth, after, bins),
        "bins_tempered": reliability(truth, after, bins, codes),
    }


def calibration_by(
    labels: npt.ArrayLike, probs: npt.ArrayLike, by: Sequence[str], level: float | Floats | None = None
) -> dict[str, dict[str, float]]:
    """Break calibration down by class, subgroup or any other name of rows.

    Args:
        labels: true labels, (M,); rows with -1 are left out.
        probs: predicted probabilities, (M, K).
        by: name of each row, (M,): its true class, its predicted class, its subgroup.
        level: of conformal sets (`conformal_level` or `conformal_levels`), from other rows than these.

    Returns:
        For each name `rows`, `accuracy`, mean `confidence` and `ece`; with a level also `coverage` (share of sets that
        hold the truth) and `abstained` (share of sets that are not of exactly one label).

    Raises:
        ColumnError: there are not as many names as labels.
    """
    truth, table = check_probabilities(labels, probs, "gold")
    if len(by) != len(truth):
        raise ColumnError(f"calibration by name has {len(by)} names for {len(truth)} rows: give one to each")
    names, facts = np.asarray(by, dtype=object), {}
    for name in sorted(set(by)):
        rows = np.flatnonzero((names == name) & (truth >= 0))
        if not len(rows):
            continue
        true, part = truth[rows], table[rows]
        facts[name] = {
            "rows": len(rows),
            "accuracy": float((part.argmax(1) == true).mean()),
            "confidence": float(part.max(1).mean()),
            "ece": calibration_error(true, part),
        }
        if level is not None:
            sets = conformal_sets(part, level)
            facts[name]["coverage"] = float(sets[np.arange(len(true)), true].mean())
            facts[name]["abstained"] = float((sets.sum(1) != 1).mean())
    return facts


def _temperature_losses(truth: Ints, probs: Floats, parts: Ints) -> Floats:
    """Sum -log p of the truth at each temperature over the rows of each part, (heats, parts)."""
    logs = np.log(np.maximum(probs, 1e-12))
    logs -= logs.max(1, keepdims=True)
    of_truth = logs[np.arange(len(logs)), truth]
    losses = [np.bincount(parts, np.log(np.exp(logs / heat).sum(1)) - of_truth / heat) for heat in _TEMPERATURES]
    return np.array(losses)


def _best_temperature(losses: Floats) -> float:
    return float(_TEMPERATURES[int(np.argmin(losses + 2.0 * np.log(_TEMPERATURES) ** 2))])


def conformal_level(labels: npt.ArrayLike, probs: npt.ArrayLike, coverage: float) -> float:
    """Find the least probability of a label in a row's set at which the sets hold the truth with a coverage.

    Split conformal prediction: of M rows that the model did not see, the ceil((M + 1) x coverage)-th largest
    probability of a true label is the level. For rows drawn like those, at least that share of sets holds the truth;
    for synthetic rows this carries over only as far as they are like gold.

    Args:
        labels: true labels, (M,).
        probs: from models that did not see the row, (M, K).
        coverage: between 0 and 1, e.g. 0.9.

    Returns:
        The level; 0 (every label belongs to every set) when the rows are too few for the coverage.

    Raises:
        HfSynthError: coverage is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise HfSynthError(f"coverage is a share between 0 and 1, e.g. 0.9; got {coverage}")
    truth, table = check_probabilities(labels, probs, "gold")
    rows = np.flatnonzero(truth >= 0)
    of_truth = np.sort(table[rows, truth[rows]])[::-1]
    wanted = int(np.ceil((len(rows) + 1) * coverage))
    return float(of_truth[wanted - 1]) if 0 < wanted <= len(rows) else 0.0


def conformal_levels(labels: npt.ArrayLike, probs: npt.ArrayLike, coverage: float) -> Floats:
    """Find a level for each label, (K,), so that the rows of each class are covered (class-conditional sets).

    A class with too few rows gets level 0: its label then belongs to every set. Arguments and errors are those of
    `conformal_level`.
    """
    truth, table = check_probabilities(labels, probs, "gold")
    return np.array([conformal_level(np.where(truth == k, truth, -1), table, coverage) for k in range(table.shape[1])])


def conformal_sets(probs: npt.ArrayLike, level: float | Floats) -> npt.NDArray[np.bool_]:
    """Return each row's set as a mask of labels, (N, K): those at the level or above; other than one label abstains.

    Args:
        level: one for all labels, or one for each (K,).
    """
    return np.asarray(np.asarray(probs, dtype=np.float64) >= level - 1e-12)


def check_probabilities(labels: npt.ArrayLike, probs: npt.ArrayLike, what: str) -> tuple[Ints, Floats]:
    """Return labels (N,) and probabilities (N, K) as arrays after checking that they fit together.

    Raises:
        ColumnError: shapes or values do not fit; the message begins with `what`.
    """
    indices, table = np.asarray(labels), np.asarray(probs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ColumnError(f"{what}: probabilities must have shape (rows, labels), not {table.shape}")
    if indices.shape != (len(table),):
        raise ColumnError(f"{what}: {len(indices)} labels for {len(table)} rows of probabilities")
    if len(indices) and not np.issubdtype(indices.dtype, np.integer):
        raise ColumnError(f"{what}: labels must be indices, -1 where there is none")
    indices = indices.astype(np.int64)
    if len(indices) and (indices.min() < -1 or indices.max() >= table.shape[1]):
        raise ColumnError(f"{what}: a label is outside 0..{table.shape[1] - 1}")
    if not np.isfinite(table).all() or (table < 0).any() or not np.allclose(table.sum(1), 1.0, atol=1e-3):
        raise ColumnError(f"{what}: probabilities of a row must be 0 or more and sum to 1")
    return indices, table
