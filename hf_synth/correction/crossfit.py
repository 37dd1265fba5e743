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

from hf_synth.correction.audited import rekey, select_audited
from hf_synth.correction.fitting import fit
from hf_synth.correction.lineage import Lineage
from hf_synth.correction.noise import confident_noise, denoise, estimate_noise
from hf_synth.correction.policy import GENERATOR, OF_BOTH, Annotations, Corrected, Policy, apply, set_audited_labels
from hf_synth.errors import ColumnError
from hf_synth.evaluation.calibration import apply_temperature, temperature
from hf_synth.evaluation.metrics import group_codes
from hf_synth.reports.progress import counted
from hf_synth.task.labels import Floats, Ints

# predict(gold positions, synthetic positions) -> probabilities of each
Predict = Callable[[Ints, Ints], tuple[Floats, Floats]]
# learn(gold positions, synthetic positions, soft targets of the latter (n, K)) -> predict
Learn = Callable[[Ints, Ints, Floats], Predict]

FOLDS = 5  # of gold
ROUNDS = 3  # of refits on gold and corrected rows
SPLITS = 2  # random halvings of gold and rows, whose opinions are averaged
FEW = 5  # rows of a label from which on both halves must hold it
SMALLEST_HALF = 0.2  # least share of a half that is made of whole units
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
        annotations: labels that the same LLMs gave to gold rows and to synthetic rows, if they did.
        lineage: the gold that each synthetic row was written from; None where no row was written from this gold.
    """

    meant: Ints
    truth: Ints
    groups: Sequence[Any] | None
    n_labels: int
    audited: Mapping[int, int]
    row_groups: Sequence[Any] | None = None
    annotations: tuple[Annotations, Annotations] | None = None
    lineage: Lineage | None = None

    @property
    def measured(self) -> bool:
        """Whether the generator labelled the gold rows, too."""
        return self.annotations is not None and GENERATOR in self.annotations[0].names


def part_of_rows(rows: Rows, learn: Learn, keep: Ints) -> tuple[Rows, Learn]:
    """Return some of the synthetic rows, and a learner that takes their positions among these.

    Args:
        keep: positions of the synthetic rows, ascending, (n,).
    """
    if len(keep) == len(rows.meant):
        return rows, learn
    place = {int(row): i for i, row in enumerate(keep)}
    audited = select_audited(rows.audited, [row for row in rows.audited if row in place])
    audited = rekey(audited, {place[row]: label for row, label in audited.items()}, place)
    some = replace(
        rows,
        meant=rows.meant[keep],
        audited=audited,
        row_groups=None if rows.row_groups is None else [rows.row_groups[i] for i in keep],
        annotations=None if rows.annotations is None else (rows.annotations[0], rows.annotations[1].of_rows(keep)),
        lineage=None if rows.lineage is None else rows.lineage.of_rows(keep),
    )
    return some, learner_of_part(learn, keep)


def learner_of_part(learn: Learn, keep: Ints) -> Learn:
    """Return a learner that takes positions among some of the synthetic rows, `keep`."""

    def learn_part(gold: Ints, at: Ints, targets: Floats) -> Predict:
        predict = learn(gold, keep[at], targets)
        return lambda gold, at: predict(gold, keep[at])

    return learn_part


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
        coverage, coverage_by_class, bounds: as for `fitting.fit`.
        head: a fast learner for all rounds but the last, in which `learn` trains on one halving: two trainings of a
            slow model instead of 2 x SPLITS x (1 + ROUNDS).
        also: further opinions on the synthetic rows by their source ("gold", "both", "refits"), of models that did not
            see the row either, nan where there is none; they are averaged with those computed here.
        known: cache of the opinions that several methods share, for calls with the same gold and rows.

    Returns:
        The policy, and the decision for each synthetic row.
    """
    gold = np.arange(len(rows.truth)) if inside is None else inside
    known = {} if known is None else known
    out, opinions = _opinions(rows, learn, method, gold, seed, head, also or {}, known)
    labels: Any = {"llm_label": rows.meant, "gold_label": rows.truth[gold], "audited": rows.audited}
    if rows.annotations is not None:
        labels["annotations"] = rows.annotations[0].of_rows(gold), rows.annotations[1]
    options: Any = {"coverage": coverage, "coverage_by_class": coverage_by_class}
    options["bounds"] = bounds and method not in ("none", "gold_only")
    calibrate = method not in OF_BOTH and method != "none"
    policy = fit(method, pred_probs=opinions, gold_probs=out, calibrate=calibrate, **labels, **options)
    given: Any = {"annotations": None if rows.annotations is None else rows.annotations[1]}
    if method == "blend":
        of_gold_out, alone = _opinions(rows, learn, "gold_only", gold, seed, head, also or {}, known)
        given["alone"] = apply_temperature(alone, temperature(rows.truth[gold], of_gold_out))
    corrected = set_audited_labels(apply(policy, rows.meant, opinions, **given), rows.meant, rows.audited)
    if method == "none":  # without a corrector nothing is measured or estimated
        figures = {name: policy.figures[name] for name in FIGURES_WITHOUT_CORRECTOR if name in policy.figures}
        policy = replace(policy, noise=(), confusion=(), figures=figures, warnings=())
    return policy, corrected


def opinions_from_gold(rows: Rows, learn: Learn, gold: Ints, seed: int) -> tuple[Floats, Floats]:
    """Train on gold without each fold; a synthetic row gets the mean of the opinions (the paper's corrector)."""
    fold = folds(rows.truth[gold], _groups(rows, gold), FOLDS, seed)
    every, none = np.arange(len(rows.meant)), np.arange(0)
    out = np.zeros((len(gold), rows.n_labels))
    opinions = []
    for k in counted("fold", range(int(fold.max()) + 1)):
        predict = learn(gold[fold != k], none, np.zeros((0, rows.n_labels)))
        out[fold == k], probs = predict(gold[fold == k], every)
        opinions.append(probs)
    return out, np.asarray(np.mean(opinions, axis=0))


def opinions_from_halves(
    rows: Rows, learn: Learn, gold: Ints, targets: Floats, seed: int, splits: int
) -> tuple[Floats, Floats]:
    """Train on half of gold and of the synthetic rows with their current targets; judge the other half of both.

    With several splits each opinion is the mean over them, since one halving of few gold rows depends much on chance.
    A synthetic row is judged with the gold that it was written from, so that neither speaks for the other.
    """
    out, opinions = np.zeros((len(gold), rows.n_labels)), np.zeros((len(rows.meant), rows.n_labels))
    for split, side in counted("fold", [(split, side) for split in range(splits) for side in (0, 1)]):
        side_gold, side_rows, _ = _halve(rows, gold, seed + 7919 * split)
        inside, mine = gold[side_gold != side], np.flatnonzero(side_rows == side)
        other = np.flatnonzero(side_rows != side)
        predict = learn(inside, other, targets[other])
        of_held, of_mine = predict(gold[side_gold == side], mine)
        out[side_gold == side] += of_held / splits
        opinions[mine] += of_mine / splits
    return out, opinions


def _halve(rows: Rows, gold: Ints, seed: int) -> tuple[Ints, Ints, bool]:
    """Halve gold rows and synthetic rows, (M,) and (N,): 0 or 1; return also whether units of the lineage stay whole.

    Where one unit holds most rows, as where each prompt showed most of gold, or where a half would lack a label, rows
    are halved at random.
    """
    rng = np.random.default_rng(seed)
    random = folds(rows.truth[gold], _groups(rows, gold), 2, seed), rng.permutation(len(rows.meant)) % 2, False
    if rows.lineage is None or not rows.lineage.shows.any():
        return random
    units = rows.lineage.gold_unit[gold]
    side_gold = folds(rows.truth[gold], units.tolist(), 2, seed)
    sides = rng.permutation(int(max(units.max(), rows.lineage.row_unit.max(initial=0))) + 1) % 2
    sides[units] = side_gold
    side_rows = sides[rows.lineage.row_unit]
    least = min(float(np.minimum(s.mean(), 1 - s.mean())) for s in (side_gold, side_rows) if len(s))
    mixed = _occurs_on_both_sides(rows.truth[gold], side_gold) and _occurs_on_both_sides(rows.meant, side_rows)
    return (side_gold, side_rows, True) if least >= SMALLEST_HALF and mixed else random


def _occurs_on_both_sides(labels: Ints, sides: Ints) -> bool:
    """Return whether each label of FEW rows or more stands on both sides: a half without it could not learn it."""
    often = np.flatnonzero(np.bincount(labels[labels >= 0]) >= FEW)
    return all(len(np.unique(sides[labels == label])) == 2 for label in often)


def halved_by_lineage(rows: Rows, seed: int) -> bool:
    """Return whether synthetic rows are halved with the gold that they were written from; True where none was."""
    return rows.lineage is None or not rows.lineage.shows.any() or _halve(rows, np.arange(len(rows.truth)), seed)[2]


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
            known[name] = out, np.nanmean([opinions, *also.get(name, ())], axis=0)
        return known[name]  # type: ignore[no-any-return]

    if method == "none":
        return np.full((len(gold), k), 1.0 / k), np.full((len(rows.meant), k), 1.0 / k)
    fast = head or learn
    if method == "gold_only":
        return shared("gold", lambda: opinions_from_gold(rows, fast, gold, seed))
    if method not in OF_BOTH:
        name = "gold" if head is None else "last of gold"
        return shared(name, lambda: opinions_from_gold(rows, learn, gold, seed))
    as_meant = np.eye(k)[rows.meant]
    first = shared("both", lambda: opinions_from_halves(rows, fast, gold, as_meant, seed, SPLITS))
    if method == "clean_drop":
        return (
            first
            if head is None
            else shared("last of both", lambda: opinions_from_halves(rows, learn, gold, as_meant, seed, 1))
        )
    out, opinions = shared("refits", lambda: _refits(rows, fast, gold, first[1], seed))
    if head is None:
        return out, opinions
    belief = _join_with_generator(rows, opinions, estimate_noise(rows.meant, opinions, rows.audited))
    return shared("last of refits", lambda: opinions_from_halves(rows, learn, gold, belief, seed, 1))


def _refits(rows: Rows, learn: Learn, gold: Ints, opinions: Floats, seed: int) -> tuple[Floats, Floats]:
    """Refit on gold and current beliefs; each row is judged by a model that saw neither it nor its label.

    Args:
        opinions: of models trained on the uncorrected labels; their noise is taken out first.
    """
    noise = confident_noise(rows.meant, opinions)
    opinions = denoise(opinions, noise)
    out = np.zeros((len(gold), rows.n_labels))
    for number in range(1, ROUNDS + 1):
        out, opinions = opinions_from_halves(
            rows, learn, gold, _join_with_generator(rows, opinions, noise), seed + number, SPLITS
        )
        noise = estimate_noise(rows.meant, opinions, rows.audited)
    return out, opinions


def _join_with_generator(rows: Rows, opinions: Floats, noise: Floats) -> Floats:
    """Join opinions with the generator's labels through the noise matrix, (N, K); audited rows are certain."""
    belief = opinions * noise[:, rows.meant].T
    belief /= np.maximum(belief.sum(1, keepdims=True), 1e-300)
    for row, label in rows.audited.items():
        belief[row] = np.eye(rows.n_labels)[label]
    return belief


def _groups(rows: Rows, gold: Ints) -> list[Any] | None:
    return None if rows.groups is None else [rows.groups[i] for i in gold]
