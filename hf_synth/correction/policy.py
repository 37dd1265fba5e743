"""Correction: the generator's label and the corrector's probabilities become one decision for each row.

numpy only; nothing here knows a model or a dataset. Labels are indices, -1 where there is none.

What can be known: on gold the corrector can be measured. How often the generator is wrong cannot be measured without
rows that a person has checked (`audited`). It is estimated: the labels it gave, counted over what models believe that
saw neither the row nor its label, on the assumption that both err independently given the truth. `Policy.figures` and
`Policy.warnings` say which is which.
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
from hf_synth.evaluation.calibration import (
    calibration_error,
    checked,
    conformal_level,
    conformal_levels,
    conformal_sets,
    temperature,
    tempered,
)
from hf_synth.evaluation.statistics import design_share, wilson

METHODS = ("none", "argmax", "threshold", "agree", "clean_drop", "posterior", "weight", "ensemble")
OF_TEXTS = ("drop", "replace")  # of target texts (target_texts.py)
RELABELS = ("argmax", "threshold")  # by the corrector's word alone
ABSTAIN = (*RELABELS, "agree", "clean_drop", "posterior", "ensemble")  # relabel or drop, and can leave a row alone
OF_BOTH = ("clean_drop", "posterior", "weight", "ensemble")  # by models that learn from synthetic rows as well
_SHARPER = 2.0  # models trained on half of the rows and soft targets are less sure than they should be
_LEAST = 0.01  # weight of a row whose label nobody believes
_EVERY = 1e-12  # a level that every label reaches: gold is too small for the coverage, and all rows are left alone
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Policy:
    """How rows are corrected, and what that rests on; plain values, the same in every process.

    Args:
        method: one of METHODS or OF_TEXTS.
        n_labels: K; 0 of target texts.
        temperature: the corrector's probabilities are raised to 1 / temperature, as held-out gold suggests.
        noise: estimated P(llm_label | truth), K x K, a row a true label.
        confusion: measured P(corrector's label | truth) on held-out gold, K x K; flat for labels that gold lacks.
        unseen: labels that gold lacks: the corrector has no opinion on them, and they are left alone.
        threshold: "threshold" takes the corrector's label from this probability on.
        level: a label belongs to a row's conformal set from this probability on, one for all labels or one for each
            (K,); 0 asks for no set. The methods in ABSTAIN leave a row as generated whose set holds not just one label.
        figures: what was measured or estimated.
        warnings: what a reader must know.
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
        """Give plain values; `from_json` gives the same policy back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Policy:
        """Read what `to_json` gave.

        Raises:
            TaskError: it is not a policy.
        """
        try:
            rows = {n: tuple(tuple(r) for r in plain[n]) for n in ("noise", "confusion")}
            flat = {n: tuple(plain[n]) for n in ("unseen", "warnings")}
            if isinstance(plain.get("level"), list | tuple):
                flat["level"] = tuple(plain["level"])
            return cls(**{**plain, **rows, **flat})
        except (KeyError, TypeError):
            raise TaskError("this is not a policy written by hf_synth") from None

    def fingerprint(self) -> str:
        """Hash of what decides a row's fate (hex sha256); figures and warnings do not."""
        plain = {k: v for k, v in self.to_json().items() if k not in ("figures", "warnings")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Corrected:
    """The decision for each of N rows.

    Args:
        label: index of the label, (N,); of a dropped row the one that was proposed.
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
        """Give the share of rows with a status."""
        return float(np.mean(self.status == status)) if len(self.status) else 0.0


# --- fitting --------------------------------------------------------------------------------------------------------
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

    Conformal sets are of the corrector's opinion alone, at its temperature, since gold, on which they are calibrated,
    has no label of a generator. That opinion is of models that did not see the row, on gold as on synthetic rows; what
    it is joined with afterwards ("posterior", "ensemble") plays no part in a set. Sets hold the truth of rows drawn
    like gold at the rate asked, of synthetic rows as far as these are like gold.

    Args:
        method: one of METHODS.
        llm_label: what the generator meant, (N,).
        pred_probs: the corrector's probabilities for the same rows, (N, K).
        gold_label: labels of gold rows, (M,).
        gold_probs: the corrector's probabilities for them, from models that did not see the row, (M, K).
        audited: true labels of synthetic rows that a person checked, by position; an `Audited` where they were not a
            simple random sample.
        calibrate: for the opinion of one model that never saw the rows: bring it to the temperature that held-out gold
            suggests, and estimate the noise by EM. False for cross-fitted models that were trained on such rows.
        coverage: share of gold rows whose conformal set must hold the truth; the methods in ABSTAIN leave rows as
            generated whose set holds not just one label. None asks for no set.
        coverage_by_class: the rows of each class are to be covered at that rate, not only all together; a label of
            which gold has too few rows for it belongs to every set.
        bounds: also bound the generator's accuracy (`noise.accuracy_bounds`); nothing that is decided rests on it.

    Raises:
        ColumnError: shapes or values do not fit.
        TaskError: unknown method.
    """
    meant, probs = checked(llm_label, pred_probs, "synthetic")
    truth, held_out = checked(gold_label, gold_probs, "gold")
    k = probs.shape[1]
    if held_out.shape[1] != k or not len(truth):
        raise ColumnError(f"gold needs rows with probabilities over the same {k} labels")
    counts = np.bincount(truth[truth >= 0], minlength=k)
    unseen = tuple(int(i) for i in np.flatnonzero(counts == 0))
    heat = temperature(truth, held_out) if calibrate else 1.0
    estimate = em_noise if calibrate else estimate_noise
    noise = estimate(meant, tempered(probs, heat), audited)
    policy = Policy(method, k, heat, _matrix(noise), _matrix(_confusion(truth, held_out)), unseen)
    figures = _figures(meant, truth, held_out, _belief(policy, meant, probs), audited)
    if bounds:
        figures |= _bounds(meant, probs.argmax(1), truth, held_out.argmax(1), k)
    calm = tempered(held_out, heat)
    level: float | tuple[float, ...] = 0.0
    warnings = _warnings(figures, unseen)
    if coverage is not None:
        level, told, more = _level(method, truth, calm, tempered(probs, heat), coverage, coverage_by_class)
        figures, warnings = figures | told, warnings + more
    return dataclasses.replace(
        policy,
        threshold=_threshold(truth, calm, _generator(figures)),
        level=level,
        figures=figures,
        warnings=warnings,
    )


def _bounds(meant: Ints, said: Ints, truth: Ints, guess: Ints, k: int) -> dict[str, Any]:
    """Give how often corrector and generator agree, and the range of the generator's accuracy that fits it."""
    rows = meant >= 0
    agree = float((said == meant)[rows].mean()) if rows.any() else float("nan")
    told: dict[str, Any] = {"corrector_agrees_with_generator": round(agree, 4)}
    found = accuracy_bounds(meant, said, truth, guess, k)
    if found is None:
        return told
    return told | {
        "generator_accuracy_bounds": [round(found[0], 4), round(found[1], 4)],
        "generator_accuracy_bounds_assume": "the corrector is right on rows of each label as often as on gold",
    }


def _level(
    method: str, truth: Ints, held_out: Floats, probs: Floats, coverage: float, by_class: bool
) -> tuple[float | tuple[float, ...], dict[str, Any], tuple[str, ...]]:
    """Give the level of conformal sets, or one a label; figures; and what a reader must know of them."""
    if by_class:
        each = np.maximum(_EVERY, conformal_levels(truth, held_out, coverage))
        level: float | tuple[float, ...] = tuple(each.tolist())
        few = int((each == _EVERY).sum())
        said = f"gold is too small to cover {few} of {len(each)} labels at {coverage:g}: these belong to every set"
    else:
        level = max(_EVERY, conformal_level(truth, held_out, coverage))
        few = int(level == _EVERY)
        said = f"gold is too small for sets that hold the truth at {coverage:g}: every row is left as generated"
    told: dict[str, Any] = {"conformal_coverage_asked": coverage}
    if by_class:
        told["conformal_coverage_by_class"] = True
    if method not in ABSTAIN:
        return level, told, (f"method {method} changes no label and drops no row: the coverage asked plays no part",)
    told["conformal_abstained_share"] = round(float((conformal_sets(probs, _row(level)).sum(1) != 1).mean()), 4)
    return level, told, (said,) if few else ()


def _row(level: float | tuple[float, ...]) -> Any:
    return np.asarray(level) if isinstance(level, tuple) else level


def _threshold(truth: Ints, probs: Floats, generator: float) -> float:
    """Find the least probability from which on the corrector is right on gold at least as often as the generator.

    Above 1 where there is none: then every label stays.
    """
    known = truth >= 0
    sure, right = probs[known].max(1), probs[known].argmax(1) == truth[known]
    order = np.argsort(-sure, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= generator)
    return round(float(sure[order][enough[-1]]), 6) if len(enough) else 2.0


def _figures(
    meant: Ints, truth: Ints, held_out: Floats, belief: Floats, audited: Mapping[int, int] | None
) -> dict[str, Any]:
    known = truth >= 0
    right = held_out[known].argmax(1) == truth[known]
    said = np.flatnonzero(meant >= 0)
    estimated = float(belief[said, meant[said]].mean()) if len(said) else float("nan")
    heat = temperature(truth, held_out)
    figures: dict[str, Any] = {
        "gold_rows": int(known.sum()),
        "corrector_accuracy_on_held_out_gold": round(float(right.mean()), 4),
        "corrector_balanced_accuracy_on_held_out_gold": round(
            float(np.mean([right[truth[known] == c].mean() for c in np.unique(truth[known])])), 4
        ),
        "corrector_ece_on_held_out_gold": round(calibration_error(truth, held_out), 4),
        "corrector_temperature": round(heat, 4),
        "corrector_ece_after_temperature": round(calibration_error(truth, tempered(held_out, heat)), 4),
        "generator_accuracy_estimated": round(estimated, 4),
        "generator_accuracy_assumes": "corrector and generator err independently given the truth",
        "synthetic_rows": len(meant),
    }
    return figures | (audited_figures(meant, audited) if audited else {})


def audited_figures(meant: Ints, audited: Mapping[int, int]) -> dict[str, Any]:
    """Give how often the generator was right as a person found it: of all rows, by the design of the sample.

    Args:
        meant: what the generator meant, (N,).
        audited: true labels by position, one at least; without a design as of a simple random sample.
    """
    right = [int(meant[i]) == label for i, label in audited.items()]
    told: dict[str, Any] = {"audited_rows": len(right)}
    drawn = design(audited)
    if drawn is None:
        share, (low, high) = sum(right) / len(right), wilson(sum(right), len(right))
    else:
        share, low, high = design_share(right, *drawn)
        told["audited_strata"] = len(set(drawn[1] or ("all",)))
    return told | {"generator_accuracy_audited": round(share, 4),
                   "generator_accuracy_audited_ci95": [round(low, 4), round(high, 4)]}  # fmt: skip


def _generator(figures: Mapping[str, Any]) -> float:
    """Give how often the generator is right: as a person found it, else as estimated."""
    return float(figures.get("generator_accuracy_audited", figures["generator_accuracy_estimated"]))


def weaker(figures: Mapping[str, Any]) -> bool:
    """Tell whether the corrector is the weaker one: then its word alone must not replace a label.

    Args:
        figures: of a policy.
    """
    return bool(figures["corrector_balanced_accuracy_on_held_out_gold"] < _generator(figures))


def _warnings(figures: Mapping[str, Any], unseen: Sequence[int]) -> tuple[str, ...]:
    said = []
    if weaker(figures):
        said.append("the corrector looks weaker than the generator: replacing labels by its own would make them worse")
    if "corrector_agrees_with_generator" in figures and "generator_accuracy_bounds" not in figures:
        said.append("the corrector does otherwise on synthetic rows than on gold: what is estimated of the generator "
                    "fits neither")  # fmt: skip
    elif "generator_accuracy_bounds" in figures:
        low, high = figures["generator_accuracy_bounds"]
        least, most = wilson(round(figures["corrector_accuracy_on_held_out_gold"] * figures["gold_rows"]),
                             figures["gold_rows"])  # fmt: skip
        if high - low < (most - least) / 2:  # surer than gold is of the corrector itself: it barely fits together
            said.append("the corrector hardly does on synthetic rows as on gold: neither estimate nor bounds of the "
                        "generator's accuracy can be trusted")  # fmt: skip
        elif not low <= figures["generator_accuracy_estimated"] <= high:
            said.append("the estimated accuracy of the generator lies outside its bounds: the assumption of one of the "
                        "two does not hold")  # fmt: skip
    if figures["gold_rows"] < 100:
        said.append(f"{figures['gold_rows']} gold rows are few: the noise matrix leans on its prior")
    if unseen:
        said.append(f"gold lacks {len(unseen)} of the labels: not all rows meant for them may leave")
    return tuple(said)


# --- applying -------------------------------------------------------------------------------------------------------
def apply(policy: Policy, llm_label: npt.ArrayLike, pred_probs: npt.ArrayLike) -> Corrected:
    """Decide for each row by a policy.

    Args:
        llm_label: what the generator meant, (N,); -1 where it said nothing.
        pred_probs: the corrector's probabilities, (N, K); ignored by "none". For "clean_drop" they must come from
            models that did not see the row.

    Raises:
        ColumnError: shapes or values do not fit.
    """
    meant, probs = checked(llm_label, pred_probs, "synthetic")
    if probs.shape[1] != policy.n_labels:
        raise ColumnError(f"the policy is for {policy.n_labels} labels, the probabilities have {probs.shape[1]}")
    label, targets, agrees, other = _decided(policy, meant, probs)
    leaving = (label != meant) | (targets.sum(1) == 0)
    alone = _protected(policy, meant, _belief(policy, meant, probs), leaving)
    if policy.level and policy.method in ABSTAIN:
        several = conformal_sets(tempered(probs, policy.temperature), _row(policy.level)).sum(1) != 1
        as_given = (targets == np.eye(policy.n_labels)[meant]).all(1)  # nothing to undo: its reason stays
        alone |= several & (meant >= 0) & ~as_given
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


def _decided(policy: Policy, meant: Ints, probs: Floats) -> tuple[Ints, Floats, Any, str]:
    """Give labels (N,), training targets (N, K) whose sum is a row's weight, and why a row stays or not."""
    method, rows = policy.method, np.arange(len(meant))
    belief = _belief(policy, meant, probs)
    given = np.where(meant >= 0, meant, belief.argmax(1))  # a row without a label gets the likeliest one
    as_given = np.eye(policy.n_labels)[given]
    if method == "none":
        return given, as_given, "as_generated", "posterior"
    if method == "argmax":  # the paper's rule: a hard label, however unsure the corrector is
        return probs.argmax(1), np.eye(policy.n_labels)[probs.argmax(1)], "agrees", "argmax"
    if method == "threshold":
        calm = tempered(probs, policy.temperature)
        taken = calm.max(1) >= policy.threshold
        label = np.where(taken, probs.argmax(1), given)
        return label, np.eye(policy.n_labels)[label], np.where(taken, "agrees", "abstained"), "argmax"
    if method == "agree":
        return given, as_given * (probs.argmax(1) == given)[:, None], "agrees", "disagrees"
    if method == "clean_drop":
        issues = label_issues(given, probs) if len(given) else np.zeros(0, bool)
        return given, as_given * ~issues[:, None], "abstained", "label_issue"
    sharp = belief**_SHARPER
    sharp /= sharp.sum(1, keepdims=True)
    weighted = as_given * np.maximum(belief[rows, given], _LEAST)[:, None]
    if method == "weight":
        return given, weighted, "weighted", "posterior"
    if method == "ensemble":
        sharp = (sharp + weighted) / 2
    return sharp.argmax(1), sharp, "posterior_agrees", "posterior"


def settle(done: Corrected, llm_label: npt.ArrayLike, audited: Mapping[int, int]) -> Corrected:
    """Give audited rows the label that a person gave them, with weight 1.

    Args:
        llm_label: what the generator meant, (N,).
        audited: true labels by position.
    """
    if not audited:
        return done
    at, truth = np.array(list(audited), dtype=np.int64), np.array(list(audited.values()), dtype=np.int64)
    label, probs = done.label.copy(), done.probs.copy()
    confidence, weight = done.confidence.copy(), done.weight.copy()
    status, reason = done.status.astype(object), done.reason.astype(object)
    label[at], probs[at], confidence[at], weight[at] = truth, np.eye(probs.shape[1])[truth], 1.0, 1.0
    status[at], reason[at] = np.where(np.asarray(llm_label)[at] == truth, "kept", "relabelled"), "audited"
    return Corrected(label, probs, confidence, weight, status.astype(str), reason.astype(str))


def _protected(policy: Policy, meant: Ints, belief: Floats, leaving: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Find rows that stay as they are so that no label that gold lacks dies out, (N,).

    A corrector of gold alone has no opinion on such a label: all its rows stay. Models that saw the synthetic rows
    have one, but none was measured: at least the fifth of its rows that they believe most stays.
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
    heard = np.where((meant >= 0)[:, None], noise[:, np.maximum(meant, 0)].T, 1.0)
    joined = tempered(probs, policy.temperature) * heard
    return np.asarray(joined / np.maximum(joined.sum(1, keepdims=True), 1e-300))


def _confusion(truth: Ints, probs: Floats) -> Floats:
    k = probs.shape[1]
    counts = np.full((k, k), 1.0 / k)
    np.add.at(counts, (truth[truth >= 0], probs[truth >= 0].argmax(1)), 1.0)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)


def _matrix(values: Floats) -> Matrix:
    return tuple(_tuple(row) for row in values)
