"""Correction policies: the generator's label and the corrector's probabilities become one decision for each row.

numpy only; no model and no dataset is needed. Labels are indices, -1 where there is none.

The corrector is measured on gold. The generator's accuracy can only be measured on audited rows; else it is estimated,
by counting its labels over the beliefs of models that saw neither the row nor its label, on the assumption that both
err independently given the truth. `Policy.figures` and `Policy.warnings` say what is measured and what is estimated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import design
from hf_synth.correction.noise import accuracy_bounds, em_noise, estimate_noise, label_issues
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation import calibration
from hf_synth.evaluation.calibration import temperature
from hf_synth.evaluation.statistics import design_share, wilson
from hf_synth.task.labels import Floats, Ints

Matrix = tuple[tuple[float, ...], ...]

METHODS = ("none", "argmax", "threshold", "agree", "clean_drop", "posterior", "weight", "ensemble")
OF_TEXTS = ("drop", "replace")  # for target texts (target_texts.py)
RELABELS = ("argmax", "threshold")  # by the corrector alone
ABSTAIN = (*RELABELS, "agree", "clean_drop", "posterior", "ensemble")  # relabel or drop, and can leave a row as it is
OF_BOTH = ("clean_drop", "posterior", "weight", "ensemble")  # by models that also learn from synthetic rows
_SHARPER = 2.0  # exponent of beliefs: models trained on half of the rows and soft targets are underconfident
_LEAST = 0.01  # least weight of a row
_EVERY = 1e-12  # level that every label reaches: gold is too small for the coverage, and all rows stay as generated


@dataclass(frozen=True)
class Policy:
    """A fitted correction method with its figures; plain values, the same in every process.

    Args:
        method: one of METHODS or OF_TEXTS.
        n_labels: K; 0 for target texts.
        temperature: of the corrector's probabilities, fitted on held-out gold.
        noise: estimated P(llm_label | truth), K x K, a row a true label.
        confusion: measured P(corrector's label | truth) on held-out gold, K x K; flat for labels that gold lacks.
        unseen: labels that gold lacks: the corrector has no opinion on them, and their rows stay as they are.
        threshold: least probability at which "threshold" takes the corrector's label.
        level: least probability of a label in a row's conformal set, one for all labels or one for each (K,); 0 for no
            sets. The methods in ABSTAIN leave a row as generated if its set does not hold exactly one label.
        figures: measured and estimated figures.
        warnings: sentences for whoever trains on the rows.
    """

    method: str
    n_labels: int
    temperature: float = 1.0
    noise: Matrix = ()
    confusion: Matrix = ()
    unseen: tuple[int, ...] = ()
    threshold: float = 0.0
    level: float | tuple[float, ...] = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, *OF_TEXTS):
            raise TaskError(f"unknown method of correction {self.method!r}; give one of {', '.join(METHODS)} or auto")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, which `from_json` reads."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Policy:
        """Read the values of `to_json`.

        Raises:
            TaskError: the values are not those of a policy.
        """
        try:
            rows = {n: tuple(tuple(r) for r in plain[n]) for n in ("noise", "confusion")}
            flat = {n: tuple(plain[n]) for n in ("unseen", "warnings")}
            if isinstance(plain.get("level"), list | tuple):
                flat["level"] = tuple(plain["level"])
            return cls(**{**plain, **rows, **flat})
        except (KeyError, TypeError):
            raise TaskError("the JSON holds no policy: give one that `correct` or `fit_policy` wrote") from None

    def fingerprint(self) -> str:
        """Hash everything that decides on rows (hex sha256); figures and warnings do not."""
        plain = {k: v for k, v in self.to_json().items() if k not in ("figures", "warnings")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Corrected:
    """The decision for each of N rows.

    Args:
        label: index of the label, (N,); of a dropped row the proposed one.
        probs: posterior over the labels, (N, K).
        confidence: its value at `label`, (N,).
        weight: training weight, 0 for a dropped row, (N,).
        status: "kept", "relabelled" or "dropped", (N,).
        reason: why (task.REASONS), (N,).
    """

    label: Ints
    probs: Floats
    confidence: Floats
    weight: Floats
    status: npt.NDArray[np.str_]
    reason: npt.NDArray[np.str_]

    def ratio(self, status: str) -> float:
        """Return the share of rows with a status."""
        return float(np.mean(self.status == status)) if len(self.status) else 0.0

    def columns(self, label_column: str) -> list[dict[str, Any]]:
        """Return the corrected columns of each row as plain values, N dicts."""
        names = (label_column, "label_probs", "label_confidence", "weight", "label_status", "reason")
        values = (self.label, self.probs, self.confidence, self.weight, self.status, self.reason)
        rows = zip(*(column.tolist() for column in values), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]


# --- fitting and applying -------------------------------------------------------------------------------------------
def fit(
    method: str,
    *,
    llm_label: npt.ArrayLike,
    pred_probs: npt.ArrayLike,
    gold_label: npt.ArrayLike,
    gold_probs: npt.ArrayLike,
    audited: Mapping[int, int] | None = None,
    calibrate: bool = True,
    coverage: float | None = None,
    coverage_by_class: bool = False,
    bounds: bool = True,
) -> Policy:
    """Fit a policy on synthetic rows and held-out gold.

    Conformal sets are of the corrector's opinion alone (see `evaluation.calibration`), from models that did not see the
    row, on gold as on synthetic rows.

    Args:
        method: one of METHODS.
        llm_label: the generator's labels, (N,).
        pred_probs: the corrector's probabilities for the same rows, (N, K).
        gold_label: labels of gold rows, (M,).
        gold_probs: the corrector's probabilities for them, from models that did not see the row, (M, K).
        audited: true labels of audited synthetic rows, by position; an `Audited` if they are not a simple random
            sample.
        calibrate: fit a temperature on held-out gold and estimate the noise by EM, for one model that never saw the
            rows. False for cross-fitted models that were trained on such rows.
        coverage: share of gold rows whose conformal set must hold the truth; the methods in ABSTAIN leave a row as
            generated if its set does not hold exactly one label. No sets when None.
        coverage_by_class: cover the rows of each class at that rate; a label with too few gold rows belongs to every
            set.
        bounds: also bound the generator's accuracy (`noise.accuracy_bounds`); no decision rests on it.

    Raises:
        ColumnError: shapes or values do not fit.
        TaskError: unknown method.
    """
    meant, probs = calibration.checked(llm_label, pred_probs, "synthetic")
    truth, held_out = calibration.checked(gold_label, gold_probs, "gold")
    k = probs.shape[1]
    if held_out.shape[1] != k or not len(truth):
        raise ColumnError(f"gold needs rows with probabilities over the same {k} labels")
    counts = np.bincount(truth[truth >= 0], minlength=k)
    unseen = tuple(int(i) for i in np.flatnonzero(counts == 0))
    heat = temperature(truth, held_out) if calibrate else 1.0
    estimate = em_noise if calibrate else estimate_noise
    noise = estimate(meant, calibration.temper(probs, heat), audited)
    policy = Policy(method, k, heat, _matrix(noise), _matrix(_confusion(truth, held_out)), unseen)
    figures = _figures(meant, truth, held_out, _belief(policy, meant, probs), audited)
    if bounds:
        figures |= _bounds(meant, probs.argmax(1), truth, held_out.argmax(1), k)
    calm = calibration.temper(held_out, heat)
    level: float | tuple[float, ...] = 0.0
    warnings = _warnings(figures, unseen)
    if coverage is not None:
        level, about_sets, more = _level(
            method, truth, calm, calibration.temper(probs, heat), coverage, coverage_by_class
        )
        figures, warnings = figures | about_sets, warnings + more
    return dataclasses.replace(
        policy,
        threshold=_threshold(truth, calm, _generator_accuracy(figures)),
        level=level,
        figures=figures,
        warnings=warnings,
    )


def apply(policy: Policy, llm_label: npt.ArrayLike, pred_probs: npt.ArrayLike) -> Corrected:
    """Decide on each row by a policy.

    Args:
        llm_label: the generator's labels, (N,); -1 where there is none.
        pred_probs: the corrector's probabilities, (N, K); ignored by "none". For "clean_drop" they must come from
            models that did not see the row.

    Raises:
        ColumnError: shapes or values do not fit.
    """
    meant, probs = calibration.checked(llm_label, pred_probs, "synthetic")
    if probs.shape[1] != policy.n_labels:
        raise ColumnError(f"the policy is for {policy.n_labels} labels, the probabilities have {probs.shape[1]}")
    label, targets, agrees, other = _decisions(policy, meant, probs)
    leaving = (label != meant) | (targets.sum(1) == 0)
    alone = _protected(policy, meant, _belief(policy, meant, probs), leaving)
    if policy.level and policy.method in ABSTAIN:
        unsure = (
            calibration.conformal_sets(calibration.temper(probs, policy.temperature), np.asarray(policy.level)).sum(1)
            != 1
        )
        as_meant = (targets == np.eye(policy.n_labels)[meant]).all(1)  # nothing to undo: its reason stays
        alone |= unsure & (meant >= 0) & ~as_meant
    label[alone] = meant[alone]
    targets[alone] = np.eye(policy.n_labels)[meant[alone]]
    weight = targets.sum(1)
    dropped = weight == 0
    same = (label == meant) & ~dropped
    status = np.where(dropped, "dropped", np.where(same, "kept", "relabelled"))
    reason = np.where(alone, "abstained", np.where(same, agrees, other))
    targets[dropped] = np.eye(policy.n_labels)[label[dropped]]
    belief = targets / targets.sum(1, keepdims=True)
    confidence = belief[np.arange(len(label)), label] if len(label) else np.zeros(0)
    return Corrected(label, belief, confidence, weight, status, reason)


def settle(corrected: Corrected, llm_label: npt.ArrayLike, audited: Mapping[int, int]) -> Corrected:
    """Set audited rows to their true labels, with weight 1.

    Args:
        llm_label: the generator's labels, (N,).
        audited: true labels by position.
    """
    if not audited:
        return corrected
    at, truth = np.array(list(audited), dtype=np.int64), np.array(list(audited.values()), dtype=np.int64)
    label, probs = corrected.label.copy(), corrected.probs.copy()
    confidence, weight = corrected.confidence.copy(), corrected.weight.copy()
    status, reason = corrected.status.astype(object), corrected.reason.astype(object)
    label[at], probs[at], confidence[at], weight[at] = truth, np.eye(probs.shape[1])[truth], 1.0, 1.0
    status[at], reason[at] = np.where(np.asarray(llm_label)[at] == truth, "kept", "relabelled"), "audited"
    return Corrected(label, probs, confidence, weight, status.astype(str), reason.astype(str))


def weaker(figures: Mapping[str, Any]) -> bool:
    """Check whether the corrector is weaker than the generator, by a policy's figures: it then replaces no label."""
    return bool(figures["corrector_balanced_accuracy_on_held_out_gold"] < _generator_accuracy(figures))


def audited_figures(meant: Ints, audited: Mapping[int, int]) -> dict[str, Any]:
    """Compute the generator's accuracy on audited rows, by the design of the sample, with its 95% interval.

    Args:
        meant: the generator's labels, (N,).
        audited: true labels by position, one at least; without a design a simple random sample.
    """
    right = [int(meant[i]) == label for i, label in audited.items()]
    figures: dict[str, Any] = {"audited_rows": len(right)}
    weighted = design(audited)
    if weighted is None:
        share, (low, high) = sum(right) / len(right), wilson(sum(right), len(right))
    else:
        share, low, high = design_share(right, *weighted)
        figures["audited_strata"] = len(set(weighted[1] or ("all",)))
    figures["generator_accuracy_audited"] = round(share, 4)
    return figures | {"generator_accuracy_audited_ci95": [round(low, 4), round(high, 4)]}


# --- figures and warnings -------------------------------------------------------------------------------------------
def _figures(
    meant: Ints, truth: Ints, held_out: Floats, belief: Floats, audited: Mapping[int, int] | None
) -> dict[str, Any]:
    known = truth >= 0
    right = held_out[known].argmax(1) == truth[known]
    rows = np.flatnonzero(meant >= 0)
    estimated = float(belief[rows, meant[rows]].mean()) if len(rows) else float("nan")
    heat = temperature(truth, held_out)
    figures: dict[str, Any] = {
        "gold_rows": int(known.sum()),
        "corrector_accuracy_on_held_out_gold": round(float(right.mean()), 4),
        "corrector_balanced_accuracy_on_held_out_gold": round(
            float(np.mean([right[truth[known] == c].mean() for c in np.unique(truth[known])])), 4
        ),
        "corrector_ece_on_held_out_gold": round(calibration.calibration_error(truth, held_out), 4),
        "corrector_temperature": round(heat, 4),
        "corrector_ece_after_temperature": round(
            calibration.calibration_error(truth, calibration.temper(held_out, heat)), 4
        ),
        "generator_accuracy_estimated": round(estimated, 4),
        "generator_accuracy_assumes": "corrector and generator err independently given the truth",
        "synthetic_rows": len(meant),
    }
    return figures | (audited_figures(meant, audited) if audited else {})


def _generator_accuracy(figures: Mapping[str, Any]) -> float:
    return float(figures.get("generator_accuracy_audited", figures["generator_accuracy_estimated"]))


def _bounds(meant: Ints, guess: Ints, truth: Ints, gold_guess: Ints, k: int) -> dict[str, Any]:
    """Compute the share of rows on which corrector and generator agree, and bounds of the generator's accuracy."""
    rows = meant >= 0
    agree = float((guess == meant)[rows].mean()) if rows.any() else float("nan")
    figures: dict[str, Any] = {"corrector_agrees_with_generator": round(agree, 4)}
    bounds = accuracy_bounds(meant, guess, truth, gold_guess, k)
    if bounds is None:
        return figures
    return figures | {
        "generator_accuracy_bounds": [round(bounds[0], 4), round(bounds[1], 4)],
        "generator_accuracy_bounds_assume": "the corrector is right on rows of each label as often as on gold",
    }


def _level(
    method: str, truth: Ints, held_out: Floats, probs: Floats, coverage: float, by_class: bool
) -> tuple[float | tuple[float, ...], dict[str, Any], tuple[str, ...]]:
    """Return the level of conformal sets, or one a label; figures; and warnings."""
    if by_class:
        each = np.maximum(_EVERY, calibration.conformal_levels(truth, held_out, coverage))
        level: float | tuple[float, ...] = tuple(each.tolist())
        few = int((each == _EVERY).sum())
        warning = f"gold is too small to cover {few} of {len(each)} labels at {coverage:g}: these belong to every set"
    else:
        level = max(_EVERY, calibration.conformal_level(truth, held_out, coverage))
        few = int(level == _EVERY)
        warning = f"gold is too small for sets that hold the truth at {coverage:g}: every row is left as generated"
    figures: dict[str, Any] = {"conformal_coverage_asked": coverage}
    if by_class:
        figures["conformal_coverage_by_class"] = True
    if method not in ABSTAIN:
        return level, figures, (f"method {method} changes no label and drops no row: the coverage plays no part",)
    abstained = calibration.conformal_sets(probs, np.asarray(level)).sum(1) != 1
    figures["conformal_abstained_share"] = round(float(abstained.mean()), 4)
    return level, figures, (warning,) if few else ()


def _threshold(truth: Ints, probs: Floats, generator: float) -> float:
    """Find the least confidence above which the corrector is right on gold at least as often as the generator.

    Above 1 where there is none: then every label stays.
    """
    known = truth >= 0
    confidence, right = probs[known].max(1), probs[known].argmax(1) == truth[known]
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= generator)
    return round(float(confidence[order][enough[-1]]), 6) if len(enough) else 2.0


def _warnings(figures: Mapping[str, Any], unseen: Sequence[int]) -> tuple[str, ...]:
    lines, gold_rows = [], figures["gold_rows"]
    if weaker(figures):
        lines.append("the corrector looks weaker than the generator: replacing labels by its own would make them worse")
    if "generator_accuracy_bounds" in figures:
        low, high = figures["generator_accuracy_bounds"]
        least, most = wilson(round(figures["corrector_accuracy_on_held_out_gold"] * gold_rows), gold_rows)
        estimate = "the generator's estimated accuracy"
        if high - low < (most - least) / 2:  # narrower than gold's own interval: hardly any accuracy fits
            lines.append(f"hardly any accuracy fits the synthetic rows: {estimate} and its bounds cannot be trusted")
        elif not low <= figures["generator_accuracy_estimated"] <= high:
            lines.append(f"{estimate} lies outside its bounds: the assumption of one of the two does not hold")
    elif "corrector_agrees_with_generator" in figures:
        lines.append("no accuracy of the generator fits: the corrector's accuracy on gold does not carry over")
    if gold_rows < 100:
        lines.append(f"{gold_rows} gold rows are few: the noise matrix depends on its prior")
    if unseen:
        lines.append(f"gold lacks {len(unseen)} of the labels: some rows of each stay as generated")
    return tuple(lines)


def _confusion(truth: Ints, probs: Floats) -> Floats:
    k = probs.shape[1]
    counts = np.full((k, k), 1.0 / k)
    np.add.at(counts, (truth[truth >= 0], probs[truth >= 0].argmax(1)), 1.0)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def _matrix(values: Floats) -> Matrix:
    return tuple(tuple(round(float(v), 6) for v in row) for row in values)


# --- decisions ------------------------------------------------------------------------------------------------------
def _decisions(policy: Policy, meant: Ints, probs: Floats) -> tuple[Ints, Floats, Any, str]:
    """Return labels (N,), training targets (N, K) whose sum is a row's weight, and reasons of kept and other rows."""
    method, rows = policy.method, np.arange(len(meant))
    belief = _belief(policy, meant, probs)
    generated = np.where(meant >= 0, meant, belief.argmax(1))  # a row without a label gets the likeliest one
    one_hot = np.eye(policy.n_labels)[generated]
    if method == "none":
        return generated, one_hot, "as_generated", "posterior"
    if method == "argmax":  # the paper's rule: a hard label, however unsure the corrector is
        return probs.argmax(1), np.eye(policy.n_labels)[probs.argmax(1)], "agrees", "argmax"
    if method == "threshold":
        calm = calibration.temper(probs, policy.temperature)
        taken = calm.max(1) >= policy.threshold
        label = np.where(taken, probs.argmax(1), generated)
        return label, np.eye(policy.n_labels)[label], np.where(taken, "agrees", "abstained"), "argmax"
    if method == "agree":
        return generated, one_hot * (probs.argmax(1) == generated)[:, None], "agrees", "disagrees"
    if method == "clean_drop":
        issues = label_issues(generated, probs) if len(generated) else np.zeros(0, bool)
        return generated, one_hot * ~issues[:, None], "abstained", "label_issue"
    sharp = belief**_SHARPER
    sharp /= sharp.sum(1, keepdims=True)
    weighted = one_hot * np.maximum(belief[rows, generated], _LEAST)[:, None]
    if method == "weight":
        return generated, weighted, "weighted", "posterior"
    if method == "ensemble":
        sharp = (sharp + weighted) / 2
    return sharp.argmax(1), sharp, "posterior_agrees", "posterior"


def _protected(policy: Policy, meant: Ints, belief: Floats, leaving: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Find rows that stay as generated so that no label that gold lacks dies out, (N,).

    A corrector trained on gold alone has no opinion on such a label: all its rows stay. Models that saw the synthetic
    rows have one, which was not measured: at least the fifth of its rows with the highest belief stays.
    """
    alone = np.zeros(len(meant), bool)
    if policy.method == "none":
        return alone
    for label in policy.unseen:
        rows = np.flatnonzero(meant == label)
        if policy.method in OF_BOTH:
            needed = -(-len(rows) // 5) - int((~leaving[rows]).sum())
            rows = rows[leaving[rows]]
            rows = rows[np.argsort(-belief[rows, label], kind="stable")[: max(0, needed)]]
        alone[rows] = True
    return alone


def _belief(policy: Policy, meant: Ints, probs: Floats) -> Floats:
    """Join both opinions: P(truth | text, llm_label), (N, K)."""
    if not policy.noise:
        return probs
    noise = np.asarray(policy.noise)
    likelihood = np.where((meant >= 0)[:, None], noise[:, np.maximum(meant, 0)].T, 1.0)
    joined = calibration.temper(probs, policy.temperature) * likelihood
    return np.asarray(joined / np.maximum(joined.sum(1, keepdims=True), 1e-300))
