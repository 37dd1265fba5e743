"""Correction policies: LLM labels and a corrector's probabilities become one decision for each row.

numpy only; no model and no dataset is needed. Labels are indices, -1 where there is none. A policy is fitted by
`fitting.fit`; `apply` decides on rows by it, each row by itself, so that a row is decided alike alone and in any batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.methods import methods_of
from hf_synth.correction.noise import above_margins, issue_margins
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation import calibration
from hf_synth.task.display import Displayed, listed
from hf_synth.task.labels import Floats, Ints

Matrix = tuple[tuple[float, ...], ...]

METHODS = methods_of("single_label")
OF_TEXTS = ("drop", "replace")  # for target texts (target_texts.py)
RELABELS = ("argmax", "threshold")  # by the corrector alone
ABSTAIN = (*RELABELS, "agree", "clean_drop", "loss_rank", "posterior", "blend", "ensemble", "measured", "stack")
"""Methods that relabel or drop, and can leave a row as it is."""
OF_BOTH = ("clean_drop", "posterior", "blend", "weight", "ensemble")  # by models that also learn from synthetic rows
MEASURED = ("measured", "stack")  # need labels that an LLM gave to gold rows too
GENERATOR = "llm_label"  # the name of the generator's own labels among annotations
_SHARPER = 2.0  # exponent of beliefs: models trained on half of the rows and soft targets are underconfident
_LEAST = 0.01  # least weight of a row
_ADDED = (
    "corrector", "margins", "floors", "stays", "annotators", "confusions", "power", "stack",
)  # since policies have fingerprints  # fmt: skip


@dataclass(frozen=True, repr=False)
class Policy(Displayed):
    """A fitted correction method with its figures; plain values, the same in every process.

    Args:
        method: one of METHODS or OF_TEXTS.
        n_labels: K; 0 for target texts.
        temperature: of the corrector's probabilities, fitted on held-out gold.
        noise: P(llm_label | truth), K x K, a row a true label: counted on gold for "measured" where the generator
            labelled it, estimated otherwise.
        confusion: measured P(corrector's label | truth) on held-out gold, K x K; flat for labels that gold lacks.
        unseen: labels that gold lacks: the corrector has no opinion on them, and their rows stay as they are.
        threshold: least probability at which "threshold" takes the corrector's label.
        level: least probability of a label in a row's conformal set, one for all labels or one for each (K,); 0 for no
            sets. The methods in ABSTAIN leave a row as generated if its set does not hold exactly one label.
        figures: measured and estimated figures.
        warnings: sentences for whoever trains on the rows.
        corrector: identity of the corrector that the policy was fitted for; "" where it is not recorded.
        margins: of "clean_drop" (`noise.issue_margins`), K x K.
        floors: of "loss_rank": the least probability of its own label with which a row of each label stays, (K,).
        stays: of the methods in OF_BOTH: for each label of `unseen`, the least belief in the generator's label with
            which a row stays as generated, so that a fifth of the rows of the label stays.
        annotators: names of the LLM labels that "measured" and "stack" use, for "measured" those that help on gold.
        confusions: of "measured": counted P(label | truth) of each annotator, K x K each.
        power: of "measured": exponent of the annotators' joint likelihood, 1 for one annotator. Below 1 where several
            LLMs make the same errors.
        stack: of "stack": coefficients of a softmax regression on the corrector's log-probabilities and the annotators'
            labels, a row a feature and the intercepts last, F x K.
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
    corrector: str = ""
    margins: Matrix = ()
    floors: tuple[float, ...] = ()
    stays: tuple[float, ...] = ()
    annotators: tuple[str, ...] = ()
    confusions: tuple[Matrix, ...] = ()
    power: float = 1.0
    stack: Matrix = ()

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return the method; what was measured on gold, how `auto` chose it, and the warnings."""
        shares = {"corrector": "corrector_accuracy_on_held_out_gold", "LLM": "generator_accuracy_on_gold"}
        said = (f"{who} right in {self.figures[f]:.1%}" for who, f in shares.items() if f in self.figures)
        of_gold, of_rows = (self.figures.get(name, "unknown") for name in ("gold_rows", "synthetic_rows"))
        rows = f"{of_gold} gold rows, {of_rows} synthetic rows"
        lines = [("fitted on", rows), ("on held-out gold", listed(said))]
        lines += [("chosen", str(self.figures.get("auto_why", ""))), ("warnings", "; ".join(self.warnings))]
        return f"{self.method}, {self.n_labels or 'no'} labels", lines

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, *OF_TEXTS):
            raise TaskError(f"unknown method of correction {self.method!r}; give one of {', '.join(METHODS)} or auto")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, which `from_json` reads."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Policy:
        """Read the values of `to_json`, of this version or an earlier one.

        Raises:
            TaskError: the values are not those of a policy.
        """
        try:
            given = {**plain, **{name: plain[name] for name in ("noise", "confusion", "unseen", "warnings")}}
            return cls(**{name: value if name == "figures" else _tuples(value) for name, value in given.items()})
        except (KeyError, TypeError):
            raise TaskError("the JSON holds no policy: give one that `correct` or `fit_policy` wrote") from None

    def fingerprint(self) -> str:
        """Hash everything that decides on rows (hex sha256); figures and warnings do not.

        Fields that an earlier version lacked count only where they are set, so that its policies keep their hash.
        """
        unset = Policy("none", 0).to_json()
        plain = {
            k: v
            for k, v in self.to_json().items()
            if k not in ("figures", "warnings") and not (k in _ADDED and v == unset[k])
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Annotations:
    """Labels that LLMs gave to rows.

    Args:
        names: of the annotators, (A,); GENERATOR for the labels of the LLM that wrote or labelled the rows.
        labels: (N, A), -1 where an annotator gave no usable answer.
        sure: the stated confidence of each label, (N, A), nan where none was stated; None where nobody stated any.
    """

    names: tuple[str, ...]
    labels: Ints
    sure: Floats | None = None

    def of_rows(self, keep: Ints) -> Annotations:
        """Return the annotations of some rows."""
        return Annotations(self.names, self.labels[keep], None if self.sure is None else self.sure[keep])


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

    def columns(self, label_column: str) -> dict[str, npt.NDArray[Any]]:
        """Return the corrected columns by name, (N,), and `label_probs`, (N, K)."""
        names = (label_column, "label_probs", "label_confidence", "weight", "label_status", "reason")
        values = (self.label, self.probs, self.confidence, self.weight, self.status, self.reason)
        return dict(zip(names, values, strict=True))


# --- applying -------------------------------------------------------------------------------------------------------
def apply(
    policy: Policy,
    llm_label: npt.ArrayLike,
    pred_probs: npt.ArrayLike,
    *,
    annotations: Annotations | None = None,
    alone: npt.ArrayLike | None = None,
) -> Corrected:
    """Decide on each row by a policy.

    Args:
        llm_label: the generator's labels, (N,); -1 where there is none.
        pred_probs: the corrector's probabilities, (N, K); ignored by "none". For "clean_drop" they must come from
            models that did not see the row.
        annotations: labels of the policy's annotators; the generator's own are `llm_label` where None.
        alone: for "blend": calibrated probabilities of models that learnt from gold alone, (N, K); the tempered
            `pred_probs` where None.

    Raises:
        ColumnError: shapes or values do not fit, or labels of an annotator are missing.
    """
    meant, probs = calibration.check_probabilities(llm_label, pred_probs, "synthetic")
    if probs.shape[1] != policy.n_labels:
        raise ColumnError(f"the policy is for {policy.n_labels} labels, the probabilities have {probs.shape[1]}")
    named = _annotations_of_policy(policy, meant, annotations)
    belief = _belief(policy, meant, probs, named)
    label, targets, agrees, other = _decisions(policy, meant, probs, belief, named, alone)
    leaving = (label != meant) | (targets.sum(1) == 0)
    stays = _protected(policy, meant, belief, leaving)
    if policy.level and policy.method in ABSTAIN:
        calm = calibration.apply_temperature(probs, policy.temperature)
        unsure = calibration.conformal_sets(calm, np.asarray(policy.level)).sum(1) != 1
        as_meant = (targets == np.eye(policy.n_labels)[meant]).all(1)  # nothing to undo: its reason stays
        stays |= unsure & (meant >= 0) & ~as_meant
    label[stays] = meant[stays]
    targets[stays] = np.eye(policy.n_labels)[meant[stays]]
    weight = targets.sum(1)
    dropped = weight == 0
    same = (label == meant) & ~dropped
    status = np.where(dropped, "dropped", np.where(same, "kept", "relabelled"))
    reason = np.where(stays, "abstained", np.where(same, agrees, other))
    targets[dropped] = np.eye(policy.n_labels)[label[dropped]]
    belief = targets / targets.sum(1, keepdims=True)
    confidence = belief[np.arange(len(label)), label] if len(label) else np.zeros(0)
    return Corrected(label, belief, confidence, weight, status, reason)


def set_audited_labels(corrected: Corrected, llm_label: npt.ArrayLike, audited: Mapping[int, int]) -> Corrected:
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


def drop_unusable(corrected: Corrected, rows: Sequence[int]) -> Corrected:
    """Drop rows that a person found unusable.

    Args:
        rows: their positions.
    """
    if not rows:
        return corrected
    status, reason, weight = corrected.status.astype(object), corrected.reason.astype(object), corrected.weight.copy()
    at = np.array(rows, dtype=np.int64)
    status[at], reason[at], weight[at] = "dropped", "unusable", 0.0
    return replace(corrected, weight=weight, status=status.astype(str), reason=reason.astype(str))


def joint_belief(
    probs: Floats, noise: Floats, llm_label: Ints, confusions: Sequence[Floats] = (), labels: Ints | None = None
) -> Floats:
    """Join a text model's opinion with LLM labels through matrices P(label | truth): P(truth | all of them), (N, K).

    Args:
        probs: of the text model, (N, K).
        noise: of the generator, (K, K).
        llm_label: the generator's labels, (N,); a row with -1 keeps the opinion.
        confusions: of the annotators, (K, K) each.
        labels: theirs, (N, A).
    """
    joined = probs * np.where((llm_label >= 0)[:, None], noise[:, np.maximum(llm_label, 0)].T, 1.0)
    for a, matrix in enumerate(confusions):
        given = labels[:, a]  # type: ignore[index]
        joined *= np.where((given >= 0)[:, None], matrix[:, np.maximum(given, 0)].T, 1.0)
    return np.asarray(joined / np.maximum(joined.sum(1, keepdims=True), 1e-300))


def stack_features(probs: Floats, annotations: Annotations) -> Floats:
    """Return the features of "stack", (N, K + A K), or (N, K + 2 A K) with confidences.

    They are centred log-probabilities of the text model, and for each annotator twice its label as an indicator, and
    the same times the stated confidence.
    """
    n, k = probs.shape
    logs = np.log(np.maximum(probs, 1e-3))
    parts = [logs - logs.mean(1, keepdims=True)]
    for a in range(annotations.labels.shape[1]):
        given = annotations.labels[:, a]
        indicator = 2.0 * np.eye(k)[np.maximum(given, 0)] * (given >= 0)[:, None]
        parts.append(indicator)
        if annotations.sure is not None:
            parts.append(indicator * np.nan_to_num(annotations.sure[:, a])[:, None])
    return np.hstack(parts) if n else np.zeros((0, sum(part.shape[1] for part in parts)))


# --- decisions ------------------------------------------------------------------------------------------------------
def _annotations_of_policy(policy: Policy, meant: Ints, annotations: Annotations | None) -> Annotations:
    """Return the annotations that a policy uses, in its order."""
    given = annotations or Annotations((GENERATOR,), meant[:, None])
    if missing := [name for name in policy.annotators if name not in given.names]:
        raise ColumnError(f"the policy uses the labels of {', '.join(missing)}: the rows lack them")
    at = [given.names.index(name) for name in policy.annotators]
    return Annotations(policy.annotators, given.labels[:, at], None if given.sure is None else given.sure[:, at])


def _decisions(
    policy: Policy, meant: Ints, probs: Floats, belief: Floats, named: Annotations, alone: npt.ArrayLike | None
) -> tuple[Ints, Floats, Any, str]:
    """Return labels (N,), training targets (N, K) whose sum is a row's weight, and reasons of kept and other rows."""
    method, rows, k = policy.method, np.arange(len(meant)), policy.n_labels
    generated = np.where(meant >= 0, meant, belief.argmax(1))  # a row without a label gets the likeliest one
    one_hot = np.eye(k)[generated]
    if method == "none":
        return generated, one_hot, "as_generated", "posterior"
    if method == "gold_only":
        return generated, np.zeros_like(one_hot), "abstained", "unused"
    if method == "argmax":  # the paper's rule: a hard label, however unsure the corrector is
        return probs.argmax(1), np.eye(k)[probs.argmax(1)], "agrees", "argmax"
    if method == "threshold":
        taken = calibration.apply_temperature(probs, policy.temperature).max(1) >= policy.threshold
        label = np.where(taken, probs.argmax(1), generated)
        return label, np.eye(k)[label], np.where(taken, "agrees", "abstained"), "argmax"
    if method == "agree":
        return generated, one_hot * (probs.argmax(1) == generated)[:, None], "agrees", "disagrees"
    if method == "clean_drop":
        margins = np.array(policy.margins or issue_margins(generated, probs))  # earlier versions kept no margins
        return generated, one_hot * ~above_margins(generated, probs, margins)[:, None], "abstained", "label_issue"
    if method == "loss_rank":
        own = calibration.apply_temperature(probs, policy.temperature)[rows, generated]
        return generated, one_hot * (own >= np.array(policy.floors)[generated])[:, None], "agrees", "label_issue"
    if method == "measured":
        return belief.argmax(1), belief.copy(), "posterior_agrees", "posterior"
    if method == "stack":
        logits = _stack_logits(policy, probs, named)
        return logits.argmax(1), logits, "posterior_agrees", "posterior"
    sharp = belief**_SHARPER
    sharp /= sharp.sum(1, keepdims=True)
    weighted = one_hot * np.maximum(belief[rows, generated], _LEAST)[:, None]
    if method == "weight":
        return generated, weighted, "weighted", "posterior"
    if method == "ensemble":
        sharp = (sharp + weighted) / 2
    if method == "blend":
        calm = calibration.apply_temperature(probs, policy.temperature) if alone is None else np.asarray(alone, float)
        sharp = (sharp + calm) / 2
    return sharp.argmax(1), sharp, "posterior_agrees", "posterior"


def _stack_logits(policy: Policy, probs: Floats, named: Annotations) -> Floats:
    """Return the probabilities of "stack", (N, K)."""
    table, k = np.array(policy.stack), policy.n_labels
    if len(table) - 1 == k + k * len(policy.annotators):  # fitted without stated confidences
        named = Annotations(named.names, named.labels)
    features = stack_features(calibration.apply_temperature(probs, policy.temperature), named)
    if features.shape[1] != len(table) - 1:
        raise ColumnError(
            "the policy was fitted with stated confidences of the LLM, and the rows have none: give rows with a column "
            "llm_confidence, or fit a policy without it"
        )
    logits = features @ table[:-1] + table[-1]
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def _protected(policy: Policy, meant: Ints, belief: Floats, leaving: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Find rows that stay as generated so that no label that gold lacks dies out, (N,).

    A corrector trained on gold alone has no opinion on such a label: all its rows stay. Models that saw the synthetic
    rows have one, which was not measured: the fifth of its rows with the highest belief stays.
    """
    alone = np.zeros(len(meant), bool)
    if policy.method in ("none", "gold_only"):
        return alone
    for place, label in enumerate(policy.unseen):
        rows = np.flatnonzero(meant == label)
        if policy.method in OF_BOTH and policy.stays:
            rows = rows[leaving[rows] & (belief[rows, label] >= policy.stays[place])]
        elif policy.method in OF_BOTH:  # earlier versions kept no cut: the fifth is one of these rows
            needed = -(-len(rows) // 5) - int((~leaving[rows]).sum())
            rows = rows[leaving[rows]]
            rows = rows[np.argsort(-belief[rows, label], kind="stable")[: max(0, needed)]]
        alone[rows] = True
    return alone


def _belief(policy: Policy, meant: Ints, probs: Floats, named: Annotations) -> Floats:
    """Join all opinions on the truth, (N, K)."""
    if not policy.noise:
        return probs
    calm = calibration.apply_temperature(probs, policy.temperature)
    if policy.method != "measured":
        return joint_belief(calm, np.array(policy.noise), meant)
    confusions = [np.array(matrix) ** policy.power for matrix in policy.confusions]
    generator = (
        np.ones((policy.n_labels, policy.n_labels)) if GENERATOR in policy.annotators else np.array(policy.noise)
    )
    return joint_belief(calm, generator, meant, confusions, named.labels)
