"""Fitting of correction policies: matrices, temperatures and cuts from gold, and the figures that say what is measured.

The corrector is measured on gold. An LLM is measured where it also labelled gold rows, or on audited rows. Where
neither exists the generator's accuracy is estimated, by counting its labels over the beliefs of models that saw neither
the row nor its label, on the assumption that both err independently given the truth. Labels of real LLMs break that
assumption, so the estimate is printed only beside a narrow range, and no decision rests on it alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import design
from hf_synth.correction.noise import (
    accuracy_bounds,
    choose_annotators,
    count_noise,
    em_noise,
    estimate_noise,
    issue_margins,
)
from hf_synth.correction.policy import (
    ABSTAIN,
    GENERATOR,
    MEASURED,
    OF_BOTH,
    Annotations,
    Matrix,
    Policy,
    joint_belief,
    stack_features,
)
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation import calibration
from hf_synth.evaluation.calibration import temperature
from hf_synth.evaluation.statistics import design_share, wilson
from hf_synth.models.linear import fit_softmax
from hf_synth.task.labels import Floats, Ints

_EVERY = 1e-12  # level that every label reaches: gold is too small for the coverage, and all rows stay as generated
_PENALTY = 1.0  # L2 penalty of "stack"
WIDE = 0.3  # width of the range of the generator's accuracy above which no estimate is printed


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
    annotations: tuple[Annotations, Annotations] | None = None,
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
        annotations: labels that the same LLMs gave to the gold rows and to the synthetic rows. GENERATOR is among them
            where the generator labels notes, and not where it writes notes for a label.

    Raises:
        ColumnError: shapes or values do not fit.
        TaskError: unknown method, or the method needs labels that an LLM gave to gold.
    """
    meant, probs = calibration.check_probabilities(llm_label, pred_probs, "synthetic")
    truth, held_out = calibration.check_probabilities(gold_label, gold_probs, "gold")
    k = probs.shape[1]
    if held_out.shape[1] != k or not len(truth):
        raise ColumnError(f"gold needs rows with probabilities over the same {k} labels")
    if method in MEASURED and annotations is None:
        raise TaskError(
            f"method {method!r} counts an LLM's errors on gold, and gold holds no labels of an LLM: "
            "let the LLM label it too (`hf-synth label TASK GOLD --gold`)"
        )
    counts = np.bincount(truth[truth >= 0], minlength=k)
    unseen = tuple(int(i) for i in np.flatnonzero(counts == 0))
    heat = temperature(truth, held_out) if calibrate else 1.0
    calm, calm_rows = calibration.apply_temperature(held_out, heat), calibration.apply_temperature(probs, heat)
    noise = (em_noise if calibrate else estimate_noise)(meant, calm_rows, audited)
    of_gold = None if annotations is None else annotations[0]
    own = _own_labels(of_gold)
    if method == "measured" and own is not None:
        noise = count_noise(own, truth, k)
    policy = Policy(method, k, heat, _matrix(noise), _matrix(_confusion(truth, held_out)), unseen)
    if method in MEASURED and of_gold is not None:
        policy = _with_annotators(policy, truth, calm, of_gold)
    if method == "clean_drop":
        margins = issue_margins(np.where(meant >= 0, meant, joint_belief(calm_rows, noise, meant).argmax(1)), probs)
        policy = dataclasses.replace(policy, margins=tuple(map(tuple, margins.tolist())))
    if method in OF_BOTH and unseen:
        belief = joint_belief(calm_rows, np.array(policy.noise), meant)
        policy = dataclasses.replace(
            policy, stays=tuple(_top_fifth_belief(belief[meant == label, label]) for label in unseen)
        )
    figures = _figures(meant, truth, held_out, joint_belief(calm_rows, noise, meant), audited)
    if own is not None:
        figures |= _measured_figures(own, truth)
    if method == "loss_rank":
        precision = _precision(meant, calm_rows, noise, own, truth)
        policy = dataclasses.replace(policy, floors=_least_probabilities(meant, calm_rows, precision))
    if bounds:
        figures |= _bounds(meant, probs.argmax(1), truth, held_out.argmax(1), k)
    level: float | tuple[float, ...] = 0.0
    warnings = _warnings(figures, () if method == "gold_only" else unseen)
    if coverage is not None:
        level, about_sets, more = _conformal_levels(method, truth, calm, calm_rows, coverage, coverage_by_class)
        figures, warnings = figures | about_sets, warnings + more
    threshold = _threshold(truth, calm, own, generator_accuracy(figures))
    figures = _without_wide_estimate(figures)
    return dataclasses.replace(policy, threshold=threshold, level=level, figures=figures, warnings=warnings)


def measured_share(figures: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return the generator's measured accuracy with its 95% interval, from audited rows or from gold; None without."""
    for name in ("generator_accuracy_audited", "generator_accuracy_on_gold"):
        if name in figures:
            low, high = map(float, figures[f"{name}_ci95"])
            return float(figures[name]), low, high
    return None


def generator_accuracy(figures: Mapping[str, Any]) -> float:
    """Return the generator's accuracy by a policy's figures: measured if it was, else estimated; nan without either."""
    measured = measured_share(figures)
    return float(figures.get("generator_accuracy_estimated", np.nan)) if measured is None else measured[0]


def is_weaker(figures: Mapping[str, Any]) -> bool:
    """Check whether the corrector is measurably weaker than the generator: its 95% interval lies below.

    Both are accuracies over all rows. A generator that was not measured proves nothing.
    """
    measured = measured_share(figures)
    if measured is None or not figures.get("gold_rows"):
        return False
    n = int(figures["gold_rows"])
    return wilson(round(figures["corrector_accuracy_on_held_out_gold"] * n), n)[1] < measured[1]


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


# --- parts of a policy ----------------------------------------------------------------------------------------------
def _own_labels(of_gold: Annotations | None) -> Ints | None:
    """Return the generator's labels of gold rows, (M,), if it labelled them."""
    if of_gold is None or GENERATOR not in of_gold.names:
        return None
    return of_gold.labels[:, of_gold.names.index(GENERATOR)]


def _with_annotators(policy: Policy, truth: Ints, calm: Floats, of_gold: Annotations) -> Policy:
    """Add what "measured" or "stack" learn from gold rows that LLMs labelled."""
    if policy.method == "stack":
        rows = truth >= 0
        features = stack_features(calm[rows], of_gold.of_rows(np.flatnonzero(rows)))
        table = fit_softmax(features, np.eye(policy.n_labels)[truth[rows]], penalty=_PENALTY)
        return dataclasses.replace(policy, annotators=of_gold.names, stack=_matrix(table))
    generator = of_gold.names.index(GENERATOR) if GENERATOR in of_gold.names else None
    chosen, power = choose_annotators(truth, calm, of_gold.labels, always=generator)
    confusions = tuple(_matrix(count_noise(of_gold.labels[:, a], truth, policy.n_labels)) for a in chosen)
    names = tuple(of_gold.names[a] for a in chosen)
    return dataclasses.replace(policy, annotators=names, confusions=confusions, power=power)


def _precision(meant: Ints, calm_rows: Floats, noise: Floats, own: Ints | None, truth: Ints) -> Floats:
    """Return the share of right labels among the rows of each label, (K,): counted on gold, else by belief."""
    k = len(noise)
    if own is not None:
        given = np.bincount(own[own >= 0], minlength=k)
        right = np.bincount(own[(own >= 0) & (own == truth)], minlength=k)
        return np.asarray((right + 0.5) / (given + 1))
    belief = joint_belief(calm_rows, noise, meant)
    rows = np.flatnonzero(meant >= 0)
    sums = np.bincount(meant[rows], belief[rows, meant[rows]], minlength=k)
    return np.asarray((sums + 0.5) / (np.bincount(meant[rows], minlength=k) + 1))


def _least_probabilities(meant: Ints, calm_rows: Floats, precision: Floats) -> tuple[float, ...]:
    """Return the least probability of its own label with which the best rows of a label stay, by its precision."""
    floors = [0.0] * len(precision)
    for c in np.unique(meant[meant >= 0]).tolist():
        own = np.sort(calm_rows[meant == c, c])[::-1]
        floors[c] = float(own[max(1, min(len(own), int(np.ceil(precision[c] * len(own))))) - 1])
    return tuple(floors)


def _top_fifth_belief(belief: Floats) -> float:
    """Return the belief that the fifth of the rows with the highest one reach; 0 without rows."""
    return float(np.sort(belief)[::-1][-(-len(belief) // 5) - 1]) if len(belief) else 0.0


def _threshold(truth: Ints, calm: Floats, own: Ints | None, generator: float) -> float:
    """Find the confidence from which taking the corrector's label gains most on gold over the generator's label.

    Args:
        own: the generator's labels of gold rows, (M,); else its accuracy stands for each row.

    Returns:
        The least confidence at which the label is taken; above 1 where no row gains.
    """
    known = np.flatnonzero(truth >= 0)
    confidence = calm[known].max(1)
    theirs = np.full(len(known), generator) if own is None else (own[known] == truth[known]).astype(float)
    gain = (calm[known].argmax(1) == truth[known]) - theirs
    order = np.argsort(-confidence, kind="stable")
    total = np.cumsum(gain[order])
    last = np.r_[np.diff(confidence[order]) < 0, True]  # a cut between equal confidences cannot be made
    at = np.flatnonzero(last)
    best = int(at[total[at].argmax()]) if len(at) else -1
    return round(float(confidence[order][best]) - 5e-7, 6) if best >= 0 and total[best] > 0 else 2.0


# --- figures and warnings -------------------------------------------------------------------------------------------
def _figures(
    meant: Ints, truth: Ints, held_out: Floats, belief: Floats, audited: Mapping[int, int] | None
) -> dict[str, Any]:
    known = truth >= 0
    right = held_out[known].argmax(1) == truth[known]
    rows = np.flatnonzero(meant >= 0)
    estimated = float(belief[rows, meant[rows]].mean()) if len(rows) else float("nan")
    heat = temperature(truth, held_out)
    balanced, low, high, counts = _balanced_accuracy(truth[known], right)
    figures: dict[str, Any] = {
        "gold_rows": int(known.sum()),
        "corrector_accuracy_on_held_out_gold": round(float(right.mean()), 4),
        "corrector_balanced_accuracy_on_held_out_gold": round(balanced, 4),
        "corrector_balanced_accuracy_on_held_out_gold_ci95": [round(low, 4), round(high, 4)],
        "corrector_found_on_held_out_gold": counts,
        "corrector_ece_on_held_out_gold": round(calibration.calibration_error(truth, held_out), 4),
        "corrector_temperature": round(heat, 4),
        "corrector_ece_after_temperature": round(
            calibration.calibration_error(truth, calibration.apply_temperature(held_out, heat)), 4
        ),
        "generator_accuracy_estimated": round(estimated, 4),
        "generator_accuracy_assumes": "corrector and generator err independently given the truth",
        "synthetic_rows": len(meant),
    }
    return figures | (audited_figures(meant, audited) if audited else {})


def _balanced_accuracy(truth: Ints, right: npt.NDArray[np.bool_]) -> tuple[float, float, float, dict[str, list[int]]]:
    """Return the mean recall of the labels of gold, its 95% interval, and for each label the rows found and all rows.

    The interval is normal. The variance of a recall is that of a binomial share with half a row added to either side,
    so that a label with one row, right or wrong, has a variance.
    """
    counts = {str(c): [int(right[truth == c].sum()), int((truth == c).sum())] for c in np.unique(truth).tolist()}
    found, rows = np.array(list(counts.values()), float).reshape(-1, 2).T
    if not len(rows):
        return float("nan"), 0.0, 1.0, {}
    share = (found + 0.5) / (rows + 1)
    balanced = float((found / rows).mean())
    half = 1.96 * float(np.sqrt((share * (1 - share) / rows).sum())) / len(rows)
    return balanced, max(0.0, balanced - half), min(1.0, balanced + half), counts


def _measured_figures(own: Ints, truth: Ints) -> dict[str, Any]:
    """Compute the accuracy of the LLM's labels on gold rows, with its 95% interval."""
    rows = (own >= 0) & (truth >= 0)
    right, n = int((own == truth)[rows].sum()), int(rows.sum())
    low, high = wilson(right, n)
    return {
        "generator_accuracy_on_gold": round(right / n, 4) if n else float("nan"),
        "generator_accuracy_on_gold_ci95": [round(low, 4), round(high, 4)],
        "generator_labelled_gold_rows": n,
    }


def _without_wide_estimate(figures: dict[str, Any]) -> dict[str, Any]:
    """Leave out the estimate of the generator's accuracy where its range is wide, or where it was counted on gold."""
    low, high = figures.get("generator_accuracy_bounds", (0.0, 1.0))
    narrow = "corrector_agrees_with_generator" not in figures or high - low <= WIDE
    if narrow and "generator_accuracy_on_gold" not in figures:
        return figures
    return {k: v for k, v in figures.items() if k not in ("generator_accuracy_estimated", "generator_accuracy_assumes")}


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


def _conformal_levels(
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


def _warnings(figures: Mapping[str, Any], unseen: Sequence[int]) -> tuple[str, ...]:
    lines, gold_rows = [], figures["gold_rows"]
    if is_weaker(figures):
        lines.append("the corrector is weaker than the generator: replacing labels by its own would make them worse")
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
