"""The generator's errors: P(llm_label | truth), estimated from opinions, and which labels are likely wrong.

numpy only. Labels are indices, -1 where there is none; `llm_label` is what the generator meant.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import relative_weights
from hf_synth.evaluation.calibration import checked
from hf_synth.evaluation.statistics import wilson_bounds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_PRIOR_RIGHT = 0.7  # share of right labels expected of a generator before anything is seen
_PRIOR_ROWS = 10.0  # rows a label that this expectation weighs
_EM_ROUNDS = 200  # at most


def estimate_noise(llm_label: Ints, probs: Floats, audited: Mapping[int, int] | None = None) -> Floats:
    """Estimate P(llm_label | truth), (K, K): the labels given, counted over what models believe of the rows.

    Args:
        probs: from models that saw neither the row nor its label, (N, K); else the estimate would only repeat itself.
        audited: true labels by position, which stand in the place of beliefs; of a sample that was drawn with unequal
            chances, each counts for as many rows as it stands for, of the number that were looked at.
    """
    k = probs.shape[1]
    belief = probs.copy()
    _put_right(belief, audited)
    counts = np.maximum(0.0, belief.T @ _one_hot(llm_label, k)) + _PRIOR_ROWS * _expected(k)
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
        _put_right(belief, audited)
        counts = np.maximum(0.0, belief.T @ given) + _PRIOR_ROWS * start
        moved = counts / counts.sum(1, keepdims=True)
        change, noise = float(np.abs(moved - noise).max()), moved
        if change < 1e-6:
            break
    return np.asarray(noise)


def _put_right(belief: Floats, audited: Mapping[int, int] | None) -> None:
    """Move the beliefs of audited rows to what a person said, in place: by the whole way times the row's weight.

    What models got wrong of the sample is thus counted as a difference estimator counts it (Saerndal et al., 1992,
    chapter 6); weights are 1 on average, and exactly 1 without a design.
    """
    k = belief.shape[1]
    for row, weight in relative_weights(audited or {}).items():
        said = np.eye(k)[(audited or {})[row]]
        belief[row] = said if weight == 1 else belief[row] + weight * (said - belief[row])


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


def accuracy_bounds(
    llm_label: npt.ArrayLike, said: npt.ArrayLike, gold_label: npt.ArrayLike, gold_said: npt.ArrayLike, n_labels: int
) -> tuple[float, float] | None:
    """Bound the share of right labels by what is seen, without assuming that generator and corrector err independently.

    Seen are how often both agree, label by label, and of each class how often the corrector is right on gold. All ways
    to fill in the truth of the synthetic rows are gone through (a linear programme) under which the corrector is right
    on their rows of each class as often as on gold of it, within the 95% interval (Wilson) of its gold rows taken as
    independent; a class without gold binds nothing, and the mix of classes may be another. The range is wide, as bounds
    by marginals are (Frechet), and holds where the corrector's accuracy carries over; nothing here tells whether it
    does.

    Args:
        llm_label: what the generator meant, (N,); rows with -1 are left out.
        said: the corrector's label for them, (N,).
        gold_label: of gold, (M,); rows with -1 are left out.
        gold_said: the corrector's label for it, of models that did not see the row, (M,).
        n_labels: K.

    Returns:
        Shares below and above which none fits; None where none does, or there is no row.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    k, (given, theirs, truth, guess) = n_labels, map(np.asarray, (llm_label, said, gold_label, gold_said))
    rows = given >= 0
    if not rows.any():
        return None
    seen = np.bincount(given[rows] * k + theirs[rows], minlength=k * k).reshape(k, k) / rows.sum()
    hits, of_gold = (np.bincount(labels, minlength=k) for labels in (truth[truth == guess], truth[truth >= 0]))
    low, high = wilson_bounds(hits, of_gold)
    # unknown: the truth is the label of both (K), the generator's alone, the corrector's alone (K (K - 1) each, by cell
    # of both labels), or a class that neither names (K, by that class)
    meant, other = np.nonzero(~np.eye(k, dtype=bool))
    cells, every = len(meant), np.arange(k)
    names = np.concatenate([every, meant, other, every])  # the class that is true
    hit = np.r_[np.ones(k), np.zeros(cells), np.ones(cells), np.zeros(k)]  # by the corrector
    right = np.r_[np.ones(k + cells), np.zeros(cells + k)]  # the generator
    of_class = sparse.csr_matrix((np.ones(len(names)), (names, np.arange(len(names)))), (k, len(names)))
    hits = of_class.multiply(hit).tocsr()
    both = sparse.hstack([sparse.csr_matrix((cells, k)), sparse.identity(cells), sparse.identity(cells),
                          sparse.csr_matrix((cells, k))])  # fmt: skip
    most = np.r_[np.diag(seen), np.full(2 * cells, np.inf), 1 - seen.sum(0) - seen.sum(1) + np.diag(seen)]
    limits = [hits - of_class.multiply(high[:, None]), of_class.multiply(low[:, None]) - hits]
    known = [sparse.csr_matrix(np.ones((1, len(names))))]
    between = seen[meant, other]
    bound, equal = np.zeros(2 * k), np.ones(1)
    if k == 2:  # where two labels differ one of them is true
        known, equal = [*known, both], np.r_[equal, between]
    else:
        limits, bound = [*limits, both], np.r_[bound, between]
    ends = [
        linprog(
            sign * right, sparse.vstack(limits), bound, sparse.vstack(known), equal,
            bounds=np.column_stack([np.zeros(len(names)), np.maximum(most, 0.0)]), method="highs",
        )
        for sign in (1, -1)
    ]  # fmt: skip
    if any(end.status != 0 for end in ends):
        return None
    return max(0.0, float(ends[0].fun)), min(1.0, -float(ends[1].fun))


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


def label_issues(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Find labels that are likely wrong by confident learning, pruned by noise rate (Northcutt et al., 2021).

    Args:
        labels: given labels, (N,).
        pred_probs: out-of-sample probabilities, (N, K).

    Returns:
        True where the label is held for wrong, (N,). A label keeps at least one row.
    """
    given, probs = checked(labels, pred_probs, "synthetic")
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
