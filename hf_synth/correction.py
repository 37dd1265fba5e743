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

from hf_synth.errors import ColumnError, TaskError

METHODS = ("none", "argmax", "agree", "clean_drop", "posterior")
_PRIOR_RIGHT = 0.7  # share of right labels expected of a generator before anything is seen
_EM_ROUNDS = 200  # at most
_SHARPER = 2.0  # models trained on half of the rows and soft targets are less sure than they should be
_PRIOR_ROWS = 10.0  # rows a label that this expectation weighs

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Policy:
    """How rows are corrected, and what that rests on; plain values, the same in every process.

    Args:
        method: one of METHODS.
        n_labels: K.
        temperature: the corrector's probabilities are raised to 1 / temperature, as held-out gold suggests.
        noise: estimated P(llm_label | truth), K x K, a row a true label.
        confusion: measured P(corrector's label | truth) on held-out gold, K x K; flat for labels that gold lacks.
        unseen: labels that gold lacks: the corrector has no opinion on them, and they are left alone.
        figures: what was measured or estimated.
        warnings: what a reader must know.
    """

    method: str
    n_labels: int
    temperature: float = 1.0
    noise: Matrix = ()
    confusion: Matrix = ()
    unseen: tuple[int, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
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
) -> Policy:
    """Fit a policy on synthetic rows and held-out gold.

    Args:
        method: one of METHODS.
        llm_label: what the generator meant, (N,).
        pred_probs: the corrector's probabilities for the same rows, (N, K).
        gold_label: labels of gold rows, (M,).
        gold_probs: the corrector's probabilities for them, from models that did not see the row, (M, K).
        audited: true labels of synthetic rows that a person checked, by position.
        calibrate: for the opinion of one model that never saw the rows: bring it to the temperature that held-out gold
            suggests, and estimate the noise by EM. False for cross-fitted models that were trained on such rows.

    Raises:
        ColumnError: shapes or values do not fit.
        TaskError: unknown method.
    """
    meant, probs = _checked(llm_label, pred_probs, "synthetic")
    truth, held_out = _checked(gold_label, gold_probs, "gold")
    k = probs.shape[1]
    if held_out.shape[1] != k or not len(truth):
        raise ColumnError(f"gold needs rows with probabilities over the same {k} labels")
    counts = np.bincount(truth[truth >= 0], minlength=k)
    unseen = tuple(int(i) for i in np.flatnonzero(counts == 0))
    heat = temperature(truth, held_out) if calibrate else 1.0
    estimate = em_noise if calibrate else estimate_noise
    noise = estimate(meant, tempered(probs, heat), audited)
    policy = Policy(method, k, heat, _matrix(noise), _matrix(_confusion(truth, held_out)), unseen)
    belief = _belief(policy, meant, probs)
    figures = _figures(meant, truth, held_out, belief, audited)
    return dataclasses.replace(policy, figures=figures, warnings=_warnings(figures, unseen))


def estimate_noise(llm_label: Ints, probs: Floats, audited: Mapping[int, int] | None = None) -> Floats:
    """Estimate P(llm_label | truth), (K, K): the labels given, counted over what models believe of the rows.

    Args:
        probs: from models that saw neither the row nor its label, (N, K); else the estimate would only repeat itself.
        audited: true labels by position, which stand in the place of beliefs.
    """
    k = probs.shape[1]
    belief = probs.copy()
    for row, label in (audited or {}).items():
        belief[row] = np.eye(k)[label]
    counts = belief.T @ _one_hot(llm_label, k) + _PRIOR_ROWS * _expected(k)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def em_noise(llm_label: Ints, probs: Floats, audited: Mapping[int, int] | None = None) -> Floats:
    """Estimate P(llm_label | truth), (K, K), by EM over calibrated opinions of a model that never saw such rows.

    Both opinions on a row say what the truth may be, and the truths say how the generator errs (Dawid and Skene, 1979).
    """
    k = probs.shape[1]
    given, start = _one_hot(llm_label, k), _expected(k)
    meant, known = np.maximum(llm_label, 0), (llm_label >= 0)[:, None]
    noise = start
    for _ in range(_EM_ROUNDS):
        belief = probs * np.where(known, noise[:, meant].T, 1.0)
        belief /= np.maximum(belief.sum(1, keepdims=True), 1e-300)
        for row, label in (audited or {}).items():
            belief[row] = np.eye(k)[label]
        counts = belief.T @ given + _PRIOR_ROWS * start
        moved = counts / counts.sum(1, keepdims=True)
        change, noise = float(np.abs(moved - noise).max()), moved
        if change < 1e-6:
            break
    return np.asarray(noise)


def confident_noise(llm_label: Ints, probs: Floats) -> Floats:
    """Estimate P(llm_label | truth), (K, K), from models that were themselves trained on the noisy labels.

    Their probabilities are the noisy labels' own; only where one is above its average among the rows given that label
    is it taken for the truth (the confident joint of Northcutt et al., 2021).
    """
    k = probs.shape[1]
    guess = _confident(llm_label, probs)
    counts = _PRIOR_ROWS * _expected(k)
    rows = (guess >= 0) & (llm_label >= 0)
    np.add.at(counts, (guess[rows], llm_label[rows]), 1.0)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def denoise(probs: Floats, noise: Floats, rounds: int = 30) -> Floats:
    """Turn P(llm_label | text) into P(truth | text), (N, K), given P(llm_label | truth).

    The probabilities of the noisy label are a mixture of the noise matrix's rows; the weights are found by
    Richardson-Lucy steps, which keep them positive.
    """
    found = probs.copy()
    for _ in range(rounds):
        found = found * ((probs / np.maximum(found @ noise, 1e-9)) @ noise.T)
        found /= np.maximum(found.sum(1, keepdims=True), 1e-300)
    return found


def _one_hot(labels: Ints, k: int) -> Floats:
    given = np.zeros((len(labels), k))
    known = np.flatnonzero(labels >= 0)
    given[known, labels[known]] = 1.0
    return given


def _expected(k: int) -> Floats:
    return np.asarray(_PRIOR_RIGHT * np.eye(k) + (1 - _PRIOR_RIGHT) / k)


def _confident(given: Ints, probs: Floats) -> Ints:
    """Give each row's label where a model is sure of one, -1 elsewhere, (N,)."""
    k = probs.shape[1]
    thresholds = np.array([probs[given == c, c].mean() if (given == c).any() else np.inf for c in range(k)])
    sure = probs >= thresholds - 1e-9
    return np.where(sure.any(1), np.where(sure, probs, -1.0).argmax(1), -1)


def temperature(labels: npt.ArrayLike, probs: npt.ArrayLike) -> float:
    """Find the one temperature that makes held-out probabilities most likely, drawn towards 1 when rows are few."""
    truth, held_out = _checked(labels, probs, "gold")
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


def _figures(
    meant: Ints, truth: Ints, held_out: Floats, belief: Floats, audited: Mapping[int, int] | None
) -> dict[str, Any]:
    known = truth >= 0
    right = held_out[known].argmax(1) == truth[known]
    said = np.flatnonzero(meant >= 0)
    estimated = float(belief[said, meant[said]].mean()) if len(said) else float("nan")
    figures: dict[str, Any] = {
        "gold_rows": int(known.sum()),
        "corrector_accuracy_on_held_out_gold": round(float(right.mean()), 4),
        "corrector_balanced_accuracy_on_held_out_gold": round(
            float(np.mean([right[truth[known] == c].mean() for c in np.unique(truth[known])])), 4
        ),
        "generator_accuracy_estimated": round(estimated, 4),
        "generator_accuracy_assumes": "corrector and generator err independently given the truth",
        "synthetic_rows": len(meant),
    }
    if audited:
        hits = sum(int(meant[i]) == label for i, label in audited.items())
        low, high = _wilson(hits, len(audited))
        figures |= {"audited_rows": len(audited), "generator_accuracy_audited": round(hits / len(audited), 4),
                    "generator_accuracy_audited_ci95": [round(low, 4), round(high, 4)]}  # fmt: skip
    return figures


def _wilson(hits: int, n: int) -> tuple[float, float]:
    """Give Wilson's 95% interval of a share."""
    z = 1.959964
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * np.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return float(middle - half), float(middle + half)


def _warnings(figures: Mapping[str, Any], unseen: Sequence[int]) -> tuple[str, ...]:
    said = []
    generator = figures.get("generator_accuracy_audited", figures["generator_accuracy_estimated"])
    if figures["corrector_balanced_accuracy_on_held_out_gold"] < generator:
        said.append("the corrector looks weaker than the generator: replacing labels by its own would make them worse")
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
    meant, probs = _checked(llm_label, pred_probs, "synthetic")
    if probs.shape[1] != policy.n_labels:
        raise ColumnError(f"the policy is for {policy.n_labels} labels, the probabilities have {probs.shape[1]}")
    belief = _belief(policy, meant, probs)
    label, dropped, agrees, other = meant.copy(), np.zeros(len(meant), bool), "abstained", "abstained"
    if policy.method == "none":
        agrees = "as_generated"
        belief = np.eye(policy.n_labels)[np.maximum(meant, 0)]
    elif policy.method == "argmax":
        label, agrees, other = probs.argmax(1), "agrees", "argmax"
        belief = probs
    elif policy.method == "agree":
        dropped, agrees, other = probs.argmax(1) != meant, "agrees", "disagrees"
        belief = np.eye(policy.n_labels)[np.maximum(meant, 0)]
    elif policy.method == "clean_drop":
        dropped, agrees, other = label_issues(meant, probs), "abstained", "label_issue"
        belief = np.eye(policy.n_labels)[np.maximum(meant, 0)]
    else:
        label, agrees, other = belief.argmax(1), "posterior_agrees", "posterior"
        belief = belief**_SHARPER
    alone = _protected(policy, meant, belief, (label != meant) | dropped)
    label[alone], dropped[alone] = meant[alone], False
    belief[alone] = np.eye(policy.n_labels)[meant[alone]]
    label = np.where(label < 0, belief.argmax(1), label)
    same = (label == meant) & ~dropped
    status = np.where(dropped, "dropped", np.where(same, "kept", "relabelled"))
    reason = np.where(alone, "abstained", np.where(same, agrees, other))
    belief = belief / belief.sum(1, keepdims=True)
    confidence = belief[np.arange(len(label)), label] if len(label) else np.zeros(0)
    return Corrected(label, belief, confidence, np.where(dropped, 0.0, 1.0), status, reason)


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
        if policy.method in ("posterior", "clean_drop"):
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


def label_issues(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Find labels that are likely wrong by confident learning, pruned by noise rate (Northcutt et al., 2021).

    Args:
        labels: given labels, (N,).
        pred_probs: out-of-sample probabilities, (N, K).

    Returns:
        True where the label is held for wrong, (N,). A label keeps at least one row.
    """
    given, probs = _checked(labels, pred_probs, "synthetic")
    n, k = probs.shape
    issues = np.zeros(n, bool)
    present = [c for c in range(k) if (given == c).any()]
    if not present:
        return issues
    guess = _confident(given, probs)
    for c in present:
        rows = np.flatnonzero(given == c)
        counted = np.bincount(guess[rows][guess[rows] >= 0], minlength=k).astype(float)
        if counted.sum() == 0:
            continue
        wanted = np.round(counted * len(rows) / counted.sum()).astype(int)  # calibrated to the size of the class
        bad: set[int] = set()
        for other in range(k):
            if other != c and wanted[other]:
                margin = probs[rows, other] - probs[rows, c]
                bad |= set(rows[np.argsort(-margin, kind="stable")[: wanted[other]]].tolist())
        if len(bad) == len(rows):
            bad.discard(int(rows[probs[rows, c].argmax()]))
        issues[list(bad)] = True
    return issues


# --- choosing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Which method was chosen, and on what grounds.

    Args:
        method: the chosen one.
        scores: for each method its score on held-out gold: the mean of accuracy and balanced accuracy of a linear head.
        behind: for each method how far it lies behind the chosen one, and the standard error of that difference.
        why: a sentence.
    """

    method: str
    scores: Mapping[str, float]
    behind: Mapping[str, tuple[float, float]]
    why: str


def choose(hits: Mapping[str, npt.ArrayLike], gold_label: npt.ArrayLike, *, prefer: Sequence[str]) -> Choice:
    """Choose a method by how a linear head trained on its rows does on held-out gold.

    The preferred method stands unless another is better by more than one standard error of the paired difference; a
    choice among noise would only add noise.

    Args:
        hits: for each method, whether the head was right on each gold row, (M,), each row held out once or oftener
            (then a mean).
        gold_label: labels of those rows, (M,).
        prefer: methods in order of robustness.
    """
    truth = np.asarray(gold_label)
    counts = np.bincount(truth)
    seen = int((counts > 0).sum())
    row_weight = 0.5 + 0.5 * len(truth) / (seen * counts[truth])
    worth = {m: np.asarray(h, float) * row_weight for m, h in hits.items()}
    scores = {m: float(w.mean()) for m, w in worth.items()}
    order = [m for m in prefer if m in worth]
    chosen = order[0]
    for method in order[1:]:
        gain = worth[method] - worth[chosen]
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            chosen = method
    behind = {}
    for method in order:
        gap = worth[chosen] - worth[method]
        behind[method] = (round(float(gap.mean()), 4), round(float(gap.std(ddof=1) / np.sqrt(len(gap))), 4))
    best = max(scores, key=lambda m: scores[m])
    why = f"{chosen} scores {scores[chosen]:.3f} on {len(truth)} held-out gold rows" + (
        "" if best == chosen else f"; {best} scores {scores[best]:.3f}, not clearly better"
    )
    return Choice(chosen, {m: round(s, 4) for m, s in scores.items()}, behind, why)


# --- checking -------------------------------------------------------------------------------------------------------


def _checked(labels: npt.ArrayLike, probs: npt.ArrayLike, what: str) -> tuple[Ints, Floats]:
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


def _confusion(truth: Ints, probs: Floats) -> Floats:
    k = probs.shape[1]
    counts = np.full((k, k), 1.0 / k)
    np.add.at(counts, (truth[truth >= 0], probs[truth >= 0].argmax(1)), 1.0)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)


def _matrix(values: Floats) -> Matrix:
    return tuple(_tuple(row) for row in values)
