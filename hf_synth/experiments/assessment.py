"""Decide before a study whether to generate synthetic notes or to label more notes.

Everything is measured on the gold itself, out of fold, with a linear head on frozen features: a learning curve on
nested subsets, and the gain of corrected pilot rows. A fold is held out with the pilot rows that were written from it.
Without pilot rows, or where most of them were written from most of the gold, the answer is "cannot_tell". The head
stands in for the encoder that will be trained: it shows the direction of its gain, not the size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from hf_synth.correction.annotations import annotations_of, with_task_codes
from hf_synth.correction.audited import rekey
from hf_synth.correction.crossfit import FOLDS, Learn, Rows, check_parts, decide, folds, part_of_rows
from hf_synth.correction.fitting import audited_figures
from hf_synth.correction.lineage import fold_groups, lineage_of
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.metrics import group_codes
from hf_synth.gold.adoption import adopt
from hf_synth.models.linear import linear_learner, text_features
from hf_synth.task.labels import Floats, Ints, audited_labels, check_columns, id_places, label_indices, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Decision = Literal["generate", "label", "cannot_tell"]
SURE = 0.9  # share of draws that a decision needs
WORTH = 0.01  # least gain that is worth generating for; smaller ones cannot be told from chance on few rows
METHOD = "blend"  # corrects the pilot rows: it loses least where the LLM is often wrong
MIN_GOLD, MIN_PILOT = 20, 30  # fewest rows for an assessment
_PARTS = (0.25, 0.5, 1.0)  # shares of the gold inside the folds: the learning curve
_PILOTS = (0.5, 1.0)  # shares of the pilot rows
_ENOUGH = 0.9  # share of the best measured gain; the fewest rows that reach it are recommended
_FLAT = 0.005  # largest gain that counts as none
_UNTRACEABLE = (
    "cannot be measured, since only {:.0%} of the pilot rows were written without a given fifth of the gold; generate "
    "them again with `hf-synth generate` (its rows are each of one fold), or hold gold back with --choose"
)


@dataclass(frozen=True)
class Assessment:
    """The decision whether to generate or to label, with its figures.

    Args:
        decision: "generate", "label" or "cannot_tell".
        certainty: share of bootstrap draws that agree with the decision; for "cannot_tell" the larger share of the two
            others.
        why: one sentence.
        rows: synthetic rows to generate, for "generate": the fewest measured that bring most of the gain.
        rising: whether the gain was still growing at the largest pilot measured: more rows may bring more.
        gold_rows: number of gold rows.
        pilot_rows: number of good pilot rows.
        curve: gold rows trained on -> score out of fold (mean of accuracy and balanced accuracy of a linear head).
        pilot: synthetic rows added to the gold -> gain in score with its 95% interval.
        labelling: expected gain of `more` labelled notes, extrapolated from the curve, with its 95% interval.
        more: number of notes that could be labelled instead.
        generator_right: the generator's accuracy on audited rows, with its 95% interval; None without them.
        budget: human labels used: gold and audited rows.
    """

    decision: Decision
    certainty: float
    why: str
    rows: int | None
    rising: bool
    gold_rows: int
    pilot_rows: int
    curve: Mapping[int, float]
    pilot: Mapping[int, tuple[float, float, float]]
    labelling: tuple[float, float, float]
    more: int
    generator_right: tuple[float, float, float] | None
    budget: int

    def __str__(self) -> str:
        heads = {
            "generate": f"generating is worth it: {'at least' if self.rising else 'about'} {self.rows or 0:,} rows",
            "label": f"label {self.more:,} more notes instead",
            "cannot_tell": "no decision",
        }
        lines = [f"{heads[self.decision]} (certainty {self.certainty:.0%}): {self.why}"]
        curve = ", ".join(f"{score:.3f} with {n:,}" for n, score in self.curve.items())
        lines.append(f"gold alone, out of fold, linear head: {curve} rows")
        last = max(self.curve)
        beyond = f"extrapolated from {last:,} to {last + self.more:,} rows"
        lines.append(f"{self.more:,} more labelled notes: {_gain(self.labelling)}, {beyond}")
        lines += [f"{n:,} synthetic rows, corrected: {_gain(gain)}" for n, gain in self.pilot.items()]
        if self.generator_right:
            share, low, high = self.generator_right
            lines.append(f"the generator's labels: {share:.0%} right on audited rows (95% CI {low:.0%}-{high:.0%})")
        return "\n".join(lines)


def _gain(gain: tuple[float, float, float]) -> str:
    return f"{100 * gain[0]:+.1f} points (95% CI {100 * gain[1]:+.1f} to {100 * gain[2]:+.1f})"


def assess(
    task: Task,
    synthetic: Dataset | None = None,
    *,
    gold: Dataset,
    audited: Mapping[str, int | str] | None = None,
    more: int = 50,
    repeats: int = 3,
    n_bootstrap: int = 2_000,
    seed: int = 0,
) -> Assessment:
    """Decide whether to generate synthetic notes or to label more notes.

    The learning curve is extrapolated by an error that falls to 0 as a power of the rows. Where some error can never be
    removed, this favours labelling, so that "generate" is a cautious answer. Intervals are over groups of gold rows and
    over ways to cut the folds; they cover the choice of the gold only in part.

    Args:
        synthetic: some hundred pilot rows as generated; without them the answer is "cannot_tell".
        gold: all gold rows but test rows.
        audited: audited labels of some pilot rows, by row id, or an `Audited` with their weights.
        more: notes that could be labelled instead.
        repeats: ways to cut the folds.
        n_bootstrap: bootstrap draws.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: there are too few rows, or audited ids are not among the pilot rows.

    Example:
        >>> assessment = assess(task, rows, gold=gold["train"], repeats=1, n_bootstrap=100)
        >>> assessment.decision in ("generate", "label", "cannot_tell")
        True
    """
    if task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: assess serves single_label tasks only")
    check_columns(task, gold, what="gold")
    if len(gold) < MIN_GOLD:
        raise ColumnError(f"{len(gold)} gold rows are too few for an assessment: label {MIN_GOLD} or more")
    if audited and synthetic is None:
        raise ColumnError("audited labels are of synthetic rows: give those rows, too")
    rows = None if synthetic is None else _pilot_rows(task, synthetic)
    known = _label_rows(task, gold, rows, audited, seed)
    check_parts(known.groups)
    measurable = known.lineage is None or known.lineage.measurable
    hits, sizes, pilots = _predict_out_of_fold(task, gold, rows if measurable else None, known, repeats, seed)
    draws = _bootstrap_scores(hits, known, n_bootstrap, seed)
    means = np.mean([[_row_weights(known) @ h / len(known.truth) for h in one] for one in hits], axis=0)
    of_labels = _gain_of_labels(sizes, draws[:, : len(sizes)], more)
    labelling = (float(_gain_of_labels(sizes, means[None, : len(sizes)], more)[0]), *_interval(of_labels))
    gains = draws[:, len(sizes) :] - draws[:, [len(sizes) - 1]]
    pilot = {
        n: (float(means[len(sizes) + i] - means[len(sizes) - 1]), *_interval(gains[:, i])) for i, n in enumerate(pilots)
    }
    decision, certainty, why = _decide(gains, of_labels, labelling, pilot, len(rows or ()), sizes[-1], more)
    if not measurable and known.lineage is not None:
        decision, certainty, why = "cannot_tell", 0.0, _UNTRACEABLE.format(known.lineage.least_share())
    best = max((g[0] for g in pilot.values()), default=0.0)
    enough = next((n for n in sorted(pilot) if pilot[n][0] >= _ENOUGH * best), None)
    rising = len(pilots) > 1 and enough == max(pilots) and float((gains[:, -1] > gains[:, -2]).mean()) >= SURE
    accuracy = None
    if known.audited:
        figures = audited_figures(known.meant, known.audited)
        accuracy = (figures["generator_accuracy_audited"], *figures["generator_accuracy_audited_ci95"])
    return Assessment(
        decision=decision,
        certainty=round(certainty, 3),
        why=why,
        rows=enough if decision == "generate" else None,
        rising=rising,
        gold_rows=len(gold),
        pilot_rows=len(rows or ()),
        curve=dict(zip(sizes, means[: len(sizes)].round(4).tolist(), strict=True)),
        pilot=pilot,
        labelling=labelling,
        more=more,
        generator_right=accuracy,
        budget=len(gold) + len(known.audited),
    )


def _pilot_rows(task: Task, synthetic: Dataset) -> Dataset:
    ours = {"label_status", "llm_label", "seed_ids", "id"} <= set(synthetic.column_names)
    rows = with_task_codes(task, synthetic) if ours else adopt(task, synthetic)
    rows = rows.select([i for i, status in enumerate(rows["label_status"]) if status != "rejected"])
    if len(rows) < MIN_PILOT:
        raise ColumnError(f"{len(rows)} good pilot rows are too few for an assessment: give {MIN_PILOT} or more")
    return rows


def _label_rows(
    task: Task, gold: Dataset, rows: Dataset | None, audited: Mapping[str, int | str] | None, seed: int
) -> Rows:
    place = id_places([] if rows is None else rows["id"][:], audited or (), "the pilot rows")
    checked = audited_labels(task, {place[id]: label for id, label in (audited or {}).items()})
    meant = np.zeros(0, np.int64) if rows is None else label_indices(task, rows, "llm_label")
    lineage = None if rows is None else lineage_of(task, gold, rows, seed=seed)
    return Rows(
        meant,
        label_indices(task, gold),
        fold_groups(task, gold),
        len(task.labels),
        rekey(audited or {}, checked, place),
        annotations=None if rows is None else annotations_of(task, gold, rows),
        lineage=lineage if lineage is not None and lineage.shows.any() else None,
    )


def _predict_out_of_fold(
    task: Task, gold: Dataset, rows: Dataset | None, known: Rows, repeats: int, seed: int
) -> tuple[list[list[Floats]], list[int], list[int]]:
    """Predict gold rows out of fold, for each way to cut the folds and each training set.

    Folds of a lineage are fixed: the ways to cut them then differ in the halves and parts that are drawn.

    Returns:
        Hits, 1 or 0, (M,) over gold rows, of parts of the gold alone, then of all gold with parts of the pilot; the
        gold sizes; the pilot sizes, as they are when a fold is held out.
    """
    texts = [] if rows is None else texts_of(task, rows)
    x_gold, x_rows = text_features(texts_of(task, gold), texts)
    learn = linear_learner(x_gold, x_rows, known.truth, known.n_labels)
    lineage = known.lineage if texts else None
    none, flat, every = np.arange(0), np.zeros((0, known.n_labels)), np.arange(len(texts))
    parts = _PILOTS if texts else ()
    hits, left = [], []
    for repeat in range(repeats):
        fold = folds(known.truth, known.groups, FOLDS, seed + repeat) if lineage is None else lineage.fold
        one = [np.zeros(len(known.truth)) for _ in (*_PARTS, *parts)]
        for k in range(int(fold.max()) + 1):
            inside, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            for i, part in enumerate(_PARTS):
                some = _part_of_gold(known.truth, inside, part, seed + repeat)
                one[i][held] = _predict_held_out(learn, known, held, some, none, flat)
            keep = every if lineage is None else lineage.without(k)
            left.append(len(keep))
            for i, part in enumerate(parts, len(_PARTS)):
                drawn = np.random.default_rng(seed + repeat).permutation(len(keep))[: round(part * len(keep))]
                used, targets = _correct_pilot(learn, known, inside, keep[np.sort(drawn)], seed + 7 * repeat + k)
                one[i][held] = _predict_held_out(learn, known, held, inside, used, targets)
        hits.append(one)
    n_inside = len(known.truth) * (FOLDS - 1) / FOLDS
    pilots = [round(part * float(np.mean(left))) for part in parts]
    return hits, [round(part * n_inside) for part in _PARTS], pilots


def _predict_held_out(
    learn: Learn, known: Rows, held: Ints, gold: Ints, rows: Ints, targets: Floats
) -> npt.NDArray[np.bool_]:
    """Train on gold and synthetic rows; return which held-out gold rows are predicted right."""
    probs = learn(gold, rows, targets)(held, np.arange(0))[0]
    return np.asarray(probs.argmax(1) == known.truth[held])


def _correct_pilot(learn: Learn, known: Rows, inside: Ints, some: Ints, seed: int) -> tuple[Ints, Floats]:
    """Correct some of the pilot rows by gold inside the fold; return the rows used and their targets."""
    part, learn_part = part_of_rows(known, learn, some)
    corrected = decide(part, learn_part, METHOD, inside=inside, seed=seed, bounds=False)[1]
    used = np.flatnonzero(corrected.weight > 0)
    return some[used], corrected.probs[used] * corrected.weight[used, None]


def _part_of_gold(truth: Ints, inside: Ints, part: float, seed: int) -> Ints:
    """Return a part of the rows inside a fold, labels in proportion; smaller parts are parts of larger ones."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(inside))
    for label in np.unique(truth[inside]):
        rows = np.flatnonzero(truth[inside] == label)
        place[rows[rng.permutation(len(rows))]] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.sort(inside[np.argsort(place, kind="stable")[: max(2, round(part * len(inside)))]])


def _row_weights(known: Rows) -> Floats:
    """Return weights of gold rows with which mean hits are the mean of accuracy and balanced accuracy, (M,)."""
    counts = np.bincount(known.truth)
    return np.asarray(0.5 + 0.5 * len(known.truth) / ((counts > 0).sum() * counts[known.truth]))


def _bootstrap_scores(hits: Sequence[Sequence[Floats]], known: Rows, n_bootstrap: int, seed: int) -> Floats:
    """Resample groups of gold rows and ways to cut the folds; return scores, (n_bootstrap, training sets)."""
    codes = group_codes(known.groups, len(known.truth))
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_bootstrap).astype(float)
    rows = times @ np.bincount(codes, minlength=n_groups)
    weight = _row_weights(known)
    cuts = rng.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), n_bootstrap) / len(hits)
    scores = np.zeros((n_bootstrap, len(hits[0])))
    for repeat, one in enumerate(hits):
        sums = np.stack([np.bincount(codes, weights=h * weight, minlength=n_groups) for h in one], axis=1)
        scores += cuts[:, [repeat]] * (times @ sums) / rows[:, None]
    return scores


def _gain_of_labels(sizes: Sequence[int], scores: Floats, more: int) -> Floats:
    """Extrapolate each row of scores (B, P) by `more` labelled rows beyond the last size; return the gains, (B,).

    The error falls to 0 as a power of the rows: no gain exceeds the error at the last size.
    """
    x = np.log(sizes) - np.log(sizes).mean()
    errors = np.maximum(1 - scores, 1e-3)
    power = np.log(errors) @ x / (x @ x)  # below 0 where the error falls
    return np.asarray(errors[:, -1] * (1 - ((sizes[-1] + more) / sizes[-1]) ** power))


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _decide(
    gains: Floats,
    of_labels: Floats,
    labelling: tuple[float, float, float],
    pilot: Mapping[int, tuple[float, float, float]],
    n_pilot: int,
    n_gold: int,
    more: int,
) -> tuple[Decision, float, str]:
    """Decide by the share of draws in which generating or labelling is better; return decision, share and sentence.

    Args:
        n_gold: gold rows at the end of the learning curve, where extrapolation begins.
    """
    beyond = f"extrapolated from {n_gold:,} to {n_gold + more:,} rows"
    if not n_pilot and labelling[2] < _FLAT:
        why = f"the learning curve of a linear head, {beyond}, is flat, so that more rows of either kind may bring "
        return "cannot_tell", 0.0, why + "little; generate some hundred synthetic rows as a pilot to measure it"
    if not n_pilot:
        why = "without synthetic rows only labelling can be assessed: generate some hundred as a pilot, and have a "
        return "cannot_tell", 0.0, why + "person check 50 of them"
    gain = gains[:, -1]  # of all pilot rows: to choose their best part would be biased
    generating = float((gain > np.maximum(WORTH, of_labels)).mean())
    labels = float(((of_labels > gain) & (of_labels > 0)).mean())
    why = (
        f"{n_pilot:,} corrected pilot rows bring a linear head {_gain(pilot[max(pilot)])}, {more:,} more labels "
        f"{_gain(labelling)}, {beyond}"
    )
    if generating >= SURE:
        return "generate", generating, why
    if labels >= SURE:
        return "label", labels, why
    return "cannot_tell", max(generating, labels), f"{why}: too close for the {SURE:.0%} that a decision needs"
