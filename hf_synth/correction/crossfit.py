"""Cross-fitting of label correction: each row's opinion comes from models that saw neither the row nor its label.

A `Learn` trains a model on some gold rows and some synthetic rows with soft targets; the encoder and the fast linear
head of `auto` both go through `decide`. For "posterior" models trained on half of gold and of the uncorrected rows
judge the other half; the noise is taken out of their probabilities (confident joint, then Richardson-Lucy), the noise
matrix turns these into beliefs, and models are refitted on gold and beliefs. The matrix is counted from opinions only:
counted from beliefs, which hold the label, it would confirm itself. No training starts from the weights of another
model, which have seen rows that it must not see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_synth.correction.noise import confident_noise, denoise, estimate_noise
from hf_synth.correction.policy import OF_BOTH, Corrected, Policy, apply, fit, settle
from hf_synth.errors import ColumnError
from hf_synth.evaluation.metrics import group_codes
from hf_synth.task.labels import Floats, Ints

# predict(gold positions, synthetic positions) -> probabilities of each
Predict = Callable[[Ints, Ints], tuple[Floats, Floats]]
# learn(gold positions, synthetic positions, soft targets of the latter (n, K)) -> predict
Learn = Callable[[Ints, Ints, Floats], Predict]

FOLDS = 5  # of gold
ROUNDS = 3  # of refits on gold and corrected rows
SPLITS = 2  # random halvings of gold and rows, whose opinions are averaged
FIGURES_WITHOUT_CORRECTOR = (
    "gold_rows", "synthetic_rows", "audited_rows", "audited_strata", "generator_accuracy_audited",
    "generator_accuracy_audited_ci95",
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Labels and groups of gold and synthetic rows, without their texts.

    Args:
        meant: the generator's labels, (N,).
        truth: labels of gold, (M,).
        groups: patients of gold rows, (M,), or None.
        n_labels: K.
        audited: true labels of audited synthetic rows, by position; an `Audited` has their weights.
        row_groups: patients of synthetic rows, (N,), or None; used for audited rows only.
    """

    meant: Ints
    truth: Ints
    groups: Sequence[Any] | None
    n_labels: int
    audited: Mapping[int, int]
    row_groups: Sequence[Any] | None = None


def decide(
    rows: Rows,
    learn: Learn,
    method: str,
    *,
    inside: Ints | None = None,
    seed: int = 0,
    coverage: float | None = None,
    coverage_by_class: bool = False,
    bounds: bool = True,
    head: Learn | None = None,
    also: Mapping[str, Sequence[Floats]] | None = None,
    known: dict[str, Any] | None = None,
) -> tuple[Policy, Corrected]:
    """Correct rows by a method, with models trained by `learn`.

    Args:
        method: one of METHODS.
        inside: positions of the gold that may be used; all when None.
        coverage, coverage_by_class, bounds: as for `policy.fit`.
        head: a fast learner for all rounds but the last, in which `learn` trains on one halving: two trainings of a
            slow model instead of 2 x SPLITS x (1 + ROUNDS).
        also: further opinions on the synthetic rows by their source ("gold", "both", "refits"), of models that did not
            see the row either; they are averaged with those computed here.
        known: cache of the opinions that several methods share, for calls with the same gold.

    Returns:
        The policy, and the decision for each synthetic row.
    """
    gold = np.arange(len(rows.truth)) if inside is None else inside
    known = {} if known is None else known
    out, opinions = _opinions(rows, learn, method, gold, seed, head, also or {}, known)
    labels: Any = {"llm_label": rows.meant, "gold_label": rows.truth[gold], "audited": rows.audited}
    options: Any = {"coverage": coverage, "coverage_by_class": coverage_by_class, "bounds": bounds and method != "none"}
    calibrate = method not in OF_BOTH and method != "none"
    policy = fit(method, pred_probs=opinions, gold_probs=out, calibrate=calibrate, **labels, **options)
    corrected = settle(apply(policy, rows.meant, opinions), rows.meant, rows.audited)
    if method == "none":  # without a corrector nothing is measured or estimated
        figures = {name: policy.figures[name] for name in FIGURES_WITHOUT_CORRECTOR if name in policy.figures}
        policy = replace(policy, noise=(), confusion=(), figures=figures, warnings=())
    return policy, corrected


def of_gold(rows: Rows, learn: Learn, gold: Ints, seed: int) -> tuple[Floats, Floats]:
    """Train on gold without each fold; a synthetic row gets the mean of the opinions (the paper's corrector)."""
    fold = folds(rows.truth[gold], _groups(rows, gold), FOLDS, seed)
    every, none = np.arange(len(rows.meant)), np.arange(0)
    out = np.zeros((len(gold), rows.n_labels))
    opinions = []
    for k in range(int(fold.max()) + 1):
        predict = learn(gold[fold != k], none, np.zeros((0, rows.n_labels)))
        out[fold == k], probs = predict(gold[fold == k], every)
        opinions.append(probs)
    return out, np.asarray(np.mean(opinions, axis=0))


def of_both(rows: Rows, learn: Learn, gold: Ints, targets: Floats, seed: int, splits: int) -> tuple[Floats, Floats]:
    """Train on half of gold and of the synthetic rows with their current targets; judge the other half of both.

    With several splits each opinion is the mean over them, since one halving of few gold rows depends much on chance.
    """
    out, opinions = np.zeros((len(gold), rows.n_labels)), np.zeros((len(rows.meant), rows.n_labels))
    for split in range(splits):
        side_gold = folds(rows.truth[gold], _groups(rows, gold), 2, seed + 7919 * split)
        side_rows = np.random.default_rng(seed + 7919 * split).permutation(len(rows.meant)) % 2
        for side in (0, 1):
            theirs, mine = np.flatnonzero(side_rows != side), np.flatnonzero(side_rows == side)
            predict = learn(gold[side_gold != side], theirs, targets[theirs])
            of_held, of_mine = predict(gold[side_gold == side], mine)
            out[side_gold == side] += of_held / splits
            opinions[mine] += of_mine / splits
    return out, opinions


def folds(labels: Ints, groups: Sequence[Any] | None, k: int, seed: int) -> Ints:
    """Assign rows to k folds, (N,): groups stay whole, labels are spread evenly, rare ones too.

    A row without a group is one by itself.
    """
    names = group_codes(groups or None, len(labels)).tolist()
    rng = np.random.default_rng(seed)
    rarity = np.bincount(labels)
    rarest: dict[int, int] = {}
    for name, label in zip(names, labels.tolist(), strict=True):  # a group counts by its rarest label
        rarest[name] = min(rarest.get(name, label), label, key=lambda c: (rarity[c], c))
    drawn = {name: rng.random() for name in rarest}
    order = sorted(rarest, key=lambda name: (rarity[rarest[name]], rarest[name], drawn[name]))
    place = {name: i % min(k, len(order)) for i, name in enumerate(order)}
    return np.array([place[name] for name in names], dtype=np.int64)


def check_parts(groups: Sequence[Any] | None) -> None:
    """Check that some gold can be held out while models learn from the rest.

    Raises:
        ColumnError: all gold rows are of one group.
    """
    if groups and len(groups) > 1 and None not in groups and len(set(groups)) < 2:
        raise ColumnError(
            f"all {len(groups)} gold rows are of one group (patient), so none can be held out: give gold of more "
            "patients, or a group of its own for each row"
        )


def _opinions(
    rows: Rows,
    learn: Learn,
    method: str,
    gold: Ints,
    seed: int,
    head: Learn | None,
    also: Mapping[str, Sequence[Floats]],
    known: dict[str, Any],
) -> tuple[Floats, Floats]:
    """Return the opinions that a method rests on, of models that did not see the row: on gold, on synthetic rows."""
    k = rows.n_labels

    def shared(name: str, make: Callable[[], tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        if name not in known:
            out, opinions = make()
            known[name] = out, np.mean([opinions, *also.get(name, ())], axis=0)
        return known[name]  # type: ignore[no-any-return]

    if method == "none":
        return np.full((len(gold), k), 1.0 / k), np.full((len(rows.meant), k), 1.0 / k)
    if method not in OF_BOTH:
        return shared("gold", lambda: of_gold(rows, learn, gold, seed))
    as_meant, fast = np.eye(k)[rows.meant], head or learn
    first = shared("both", lambda: of_both(rows, fast, gold, as_meant, seed, SPLITS))
    if method == "clean_drop":
        return first if head is None else shared("last of both", lambda: of_both(rows, learn, gold, as_meant, seed, 1))
    out, opinions = shared("refits", lambda: _refits(rows, fast, gold, first[1], seed))
    if head is None:
        return out, opinions
    belief = _belief(rows, opinions, estimate_noise(rows.meant, opinions, rows.audited))
    return shared("last of refits", lambda: of_both(rows, learn, gold, belief, seed, 1))


def _refits(rows: Rows, learn: Learn, gold: Ints, opinions: Floats, seed: int) -> tuple[Floats, Floats]:
    """Refit on gold and current beliefs; each row is judged by a model that saw neither it nor its label.

    Args:
        opinions: of models trained on the uncorrected labels; their noise is taken out first.
    """
    noise = confident_noise(rows.meant, opinions)
    opinions = denoise(opinions, noise)
    out = np.zeros((len(gold), rows.n_labels))
    for number in range(1, ROUNDS + 1):
        out, opinions = of_both(rows, learn, gold, _belief(rows, opinions, noise), seed + number, SPLITS)
        noise = estimate_noise(rows.meant, opinions, rows.audited)
    return out, opinions


def _belief(rows: Rows, opinions: Floats, noise: Floats) -> Floats:
    """Join opinions with the generator's labels through the noise matrix, (N, K); audited rows are certain."""
    belief = opinions * noise[:, rows.meant].T
    belief /= np.maximum(belief.sum(1, keepdims=True), 1e-300)
    for row, label in rows.audited.items():
        belief[row] = np.eye(rows.n_labels)[label]
    return belief


def _groups(rows: Rows, gold: Ints) -> list[Any] | None:
    return None if rows.groups is None else [rows.groups[i] for i in gold]
