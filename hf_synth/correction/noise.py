"""Label noise of the generator: noise matrix P(llm_label | truth), bounds of its accuracy, confident learning.

Labels are indices, -1 where there is none; `llm_label` is the generator's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import relative_weights
from hf_synth.evaluation.calibration import check_probabilities
from hf_synth.evaluation.statistics import wilson_bounds
from hf_synth.task.labels import Floats, Ints

_PRIOR_RIGHT = 0.7  # prior share of right labels of a generator
_PRIOR_ROWS = 10.0  # weight of this prior, in rows a label
_EM_ROUNDS = 200  # at most
_POWERS = (1.0, 0.75, 0.5, 0.35, 0.25)  # exponents of several annotators' likelihood that are tried
_WORTH = 0.5  # log loss over all gold rows by which one more annotator must pay
_NEVER = 2.0  # a margin that no difference of probabilities reaches


def estimate_noise(llm_label: Ints, probs: Floats, audited: Mapping[int, int] | None = None) -> Floats:
    """Estimate P(llm_label | truth), (K, K), by counting the generator's labels over the beliefs of models.

    Args:
        probs: from models that saw neither the row nor its label, (N, K); else the estimate would confirm itself.
        audited: true labels by position, which replace beliefs; in a sample drawn with unequal probabilities each
            counts by its weight, 1 on average.
    """
    k = probs.shape[1]
    belief = probs.copy()
    _apply_audited(belief, audited)
    counts = np.maximum(0.0, belief.T @ _one_hot(llm_label, k)) + _PRIOR_ROWS * _prior_noise(k)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def em_noise(llm_label: Ints, probs: Floats, audited: Mapping[int, int] | None = None) -> Floats:
    """Estimate P(llm_label | truth), (K, K), by EM over calibrated opinions of a model that never saw such rows.

    The E step joins both opinions on each row, the M step counts the generator's errors (Dawid and Skene, 1979).
    """
    k = probs.shape[1]
    labels, start = _one_hot(llm_label, k), _prior_noise(k)
    meant, known = np.maximum(llm_label, 0), (llm_label >= 0)[:, None]
    noise = start
    for _ in range(_EM_ROUNDS):
        belief = probs * np.where(known, noise[:, meant].T, 1.0)
        belief /= np.maximum(belief.sum(1, keepdims=True), 1e-300)
        _apply_audited(belief, audited)
        counts = np.maximum(0.0, belief.T @ labels) + _PRIOR_ROWS * start
        moved = counts / counts.sum(1, keepdims=True)
        change, noise = float(np.abs(moved - noise).max()), moved
        if change < 1e-6:
            break
    return np.asarray(noise)


def confident_noise(llm_label: Ints, probs: Floats) -> Floats:
    """Estimate P(llm_label | truth), (K, K), from models that were themselves trained on the noisy labels.

    Their probabilities are those of noisy labels: a label counts as the truth only where its probability is above the
    average among the rows that carry it (the confident joint of Northcutt et al., 2021).
    """
    k = probs.shape[1]
    guess = _confident(llm_label, probs)
    counts = _PRIOR_ROWS * _prior_noise(k)
    rows = (guess >= 0) & (llm_label >= 0)
    np.add.at(counts, (guess[rows], llm_label[rows]), 1.0)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def denoise(probs: Floats, noise: Floats, rounds: int = 30) -> Floats:
    """Turn P(llm_label | text) into P(truth | text), (N, K), given P(llm_label | truth).

    The probabilities of the noisy label are a mixture of the noise matrix's rows; Richardson-Lucy steps find the
    weights and keep them positive.
    """
    weights = probs.copy()
    for _ in range(rounds):
        weights = weights * ((probs / np.maximum(weights @ noise, 1e-9)) @ noise.T)
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-300)
    return weights


def accuracy_bounds(
    llm_label: npt.ArrayLike, guess: npt.ArrayLike, gold_label: npt.ArrayLike, gold_guess: npt.ArrayLike, n_labels: int
) -> tuple[float, float] | None:
    """Bound the generator's accuracy without assuming that generator and corrector err independently.

    A linear programme over the unknown truth of the synthetic rows: it fits how often both agree, label by label, and
    the corrector's accuracy on gold of each class, within its 95% Wilson interval for independent rows. A class without
    gold is unbound, and the mix of classes is free. The range is wide, as bounds by marginals are (Frechet). It assumes
    that the corrector's accuracy on gold carries over to synthetic rows of the class, which the AUC of gold against
    synthetic texts makes more or less likely.

    Args:
        llm_label: the generator's labels, (N,); rows with -1 are left out.
        guess: the corrector's labels for them, (N,).
        gold_label: of gold, (M,); rows with -1 are left out.
        gold_guess: the corrector's labels for gold, of models that did not see the row, (M,).
        n_labels: K.

    Returns:
        The least and the largest accuracy that fit; None where none does, or there is no row.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    k, (meant, theirs, truth, of_gold) = n_labels, map(np.asarray, (llm_label, guess, gold_label, gold_guess))
    rows = meant >= 0
    if not rows.any():
        return None
    seen = np.bincount(meant[rows] * k + theirs[rows], minlength=k * k).reshape(k, k) / rows.sum()
    low, high = wilson_bounds(*(np.bincount(v, minlength=k) for v in (truth[truth == of_gold], truth[truth >= 0])))
    # unknowns: the truth is the label of both (K), the generator's alone, the corrector's alone (K (K - 1) each, by
    # cell of both labels), or a class that neither names (K, by that class)
    first, second = np.nonzero(~np.eye(k, dtype=bool))
    cells, every = len(first), np.arange(k)
    names = np.concatenate([every, first, second, every])  # the true class
    hit = np.r_[np.ones(k), np.zeros(cells), np.ones(cells), np.zeros(k)]  # the corrector is right
    right = np.r_[np.ones(k + cells), np.zeros(cells + k)]  # the generator is right
    of_class = sparse.csr_matrix((np.ones(len(names)), (names, np.arange(len(names)))), (k, len(names)))
    hits = of_class.multiply(hit).tocsr()
    none, alone = sparse.csr_matrix((cells, k)), sparse.identity(cells)
    both = sparse.hstack([none, alone, alone, none])
    most = np.r_[np.diag(seen), np.full(2 * cells, np.inf), 1 - seen.sum(0) - seen.sum(1) + np.diag(seen)]
    limits = [hits - of_class.multiply(high[:, None]), of_class.multiply(low[:, None]) - hits]
    known = [sparse.csr_matrix(np.ones((1, len(names))))]
    between = seen[first, second]
    bound, equal = np.zeros(2 * k), np.ones(1)
    if k == 2:  # of two labels that differ one is true
        known, equal = [*known, both], np.r_[equal, between]
    else:
        limits, bound = [*limits, both], np.r_[bound, between]
    constraints = sparse.vstack(limits), bound, sparse.vstack(known), equal
    between_0_and_most = np.column_stack([np.zeros(len(names)), np.maximum(most, 0.0)])
    ends = [linprog(sign * right, *constraints, bounds=between_0_and_most, method="highs") for sign in (1, -1)]
    if any(end.status != 0 for end in ends):
        return None
    return max(0.0, float(ends[0].fun)), min(1.0, -float(ends[1].fun))


def count_noise(llm_label: Ints, truth: Ints, k: int, rows: float = 0.5) -> Floats:
    """Count P(llm_label | truth), (K, K), on rows whose true label is known and that the LLM labelled.

    Args:
        llm_label: what the LLM answered, (M,); rows with -1 are left out.
        truth: (M,); rows with -1 are left out.
        k: number of labels.
        rows: weight of the uniform prior, in rows a cell.
    """
    counts = np.full((k, k), rows)
    known = (llm_label >= 0) & (truth >= 0)
    np.add.at(counts, (truth[known], llm_label[known]), 1.0)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def choose_annotators(
    truth: Ints, probs: Floats, labels: Ints, *, always: int | None = None
) -> tuple[list[int], float]:
    """Choose the annotators that are used, and the exponent of their likelihood, by the log loss on gold.

    No row counts for itself. The best one is used first, and another is added while the loss becomes smaller by _WORTH:
    a copy of one that is used, or one whose labels say nothing, would only add noise.

    Args:
        truth: labels of gold, (M,); rows with -1 are left out.
        probs: a text model's calibrated opinion on gold, (M, K).
        labels: theirs of gold, (M, A), -1 where one gave none.
        always: position of one that is used first whatever it is worth; None where there is none.

    Returns:
        Positions of the annotators, ascending, and the exponent.
    """
    known = np.flatnonzero(truth >= 0)
    k, y, every = probs.shape[1], truth[known], range(labels.shape[1])
    opinion = np.log(np.maximum(probs[known], 1e-12))
    own, logs = np.eye(k)[y], np.zeros((len(every), len(known), k))
    for a in every:
        z = labels[known, a]
        given = np.flatnonzero(z >= 0)
        counts = np.full((k, k), 0.5)
        np.add.at(counts, (y[given], z[given]), 1.0)
        logs[a, given] = np.log((counts[:, z[given]].T - own[given]) / (counts.sum(1) - own[given]))

    def loss(total: Floats) -> tuple[float, float]:
        """Return the least loss of joint likelihoods, (M, K), over the exponents, and the exponent."""
        tables = [opinion + power * total for power in _POWERS]
        peaks = [table.max(1, keepdims=True) for table in tables]
        losses = [
            float((np.log(np.exp(t - p).sum(1)) + p[:, 0] - t[np.arange(len(y)), y]).sum())
            for t, p in zip(tables, peaks, strict=True)
        ]
        best = int(np.argmin(losses))
        return losses[best], _POWERS[best]

    if len(every) == 1:
        return [0], 1.0
    start = min(every, key=lambda a: loss(logs[a])) if always is None else always
    chosen, total = [start], logs[start]
    least, power = loss(total)
    while left := [a for a in every if a not in chosen]:
        found = {a: loss(total + logs[a]) for a in left}
        best = min(left, key=lambda a: found[a])
        if found[best][0] > least - _WORTH:
            break
        chosen, total, (least, power) = [*chosen, best], total + logs[best], found[best]
    return sorted(chosen), power


def label_issues(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Find labels that are likely wrong by confident learning, pruned by noise rate (Northcutt et al., 2021).

    Args:
        labels: noisy labels, (N,).
        pred_probs: out-of-sample probabilities, (N, K).

    Returns:
        Mask of the labels that are likely wrong, (N,). A label keeps at least one row.
    """
    noisy, probs = check_probabilities(labels, pred_probs, "synthetic")
    return above_margins(noisy, probs, issue_margins(noisy, probs))


def issue_margins(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> Floats:
    """Compute the margins from which `label_issues` holds a label for wrong, (K, K).

    A row that carries label c is an issue if p(j) - p(c) reaches entry (c, j) for some other label j. A row is thus
    decided alike by itself and among others. An entry above 1 is never reached.
    """
    noisy, probs = check_probabilities(labels, pred_probs, "synthetic")
    k = probs.shape[1]
    margins = np.full((k, k), _NEVER)
    guess = _confident(noisy, probs)
    for c in np.unique(noisy[noisy >= 0]):
        rows = np.flatnonzero(noisy == c)
        counted = np.bincount(guess[rows][guess[rows] >= 0], minlength=k).astype(float)
        if counted.sum() == 0:
            continue
        wanted = np.round(counted * len(rows) / counted.sum()).astype(int)  # scaled to the size of the class
        gaps = probs[rows] - probs[rows, c][:, None]
        for j in np.flatnonzero(wanted):
            if j != c:
                margins[c, j] = np.sort(gaps[:, j])[-wanted[j]]
        if (gaps >= margins[c]).any(1).all():  # the row that fits the label best stays
            best = gaps[probs[rows, c].argmax()]
            margins[c] = np.where(best >= margins[c], np.nextafter(best, np.inf), margins[c])
    return margins


def above_margins(labels: Ints, probs: Floats, margins: Floats) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows whose margin to another label reaches `issue_margins`, (N,)."""
    known = labels >= 0
    own = np.maximum(labels, 0)
    gaps = probs - probs[np.arange(len(labels)), own][:, None]
    gaps[np.arange(len(labels)), own] = -np.inf
    return np.asarray(known & (gaps >= margins[own]).any(1))


def _apply_audited(belief: Floats, audited: Mapping[int, int] | None) -> None:
    """Move the beliefs of audited rows towards their true labels, in place, by the row's weight.

    The errors of models on the sample thus count as in a difference estimator (Saerndal et al., 1992, chapter 6);
    weights are 1 on average, and exactly 1 without a design.
    """
    audited = audited or {}
    for row, weight in relative_weights(audited).items():
        truth = np.eye(belief.shape[1])[audited[row]]
        belief[row] = truth if weight == 1 else belief[row] + weight * (truth - belief[row])


def _one_hot(labels: Ints, k: int) -> Floats:
    table = np.zeros((len(labels), k))
    known = np.flatnonzero(labels >= 0)
    table[known, labels[known]] = 1.0
    return table


def _prior_noise(k: int) -> Floats:
    return np.asarray(_PRIOR_RIGHT * np.eye(k) + (1 - _PRIOR_RIGHT) / k)


def _confident(labels: Ints, probs: Floats) -> Ints:
    """Return the label that a model is sure of, -1 where there is none, (N,)."""
    k = probs.shape[1]
    thresholds = np.array([probs[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(k)])
    sure = probs >= thresholds - 1e-9
    return np.where(sure.any(1), np.where(sure, probs, -1.0).argmax(1), -1)
