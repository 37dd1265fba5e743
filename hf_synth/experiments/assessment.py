"""Before a study: is generating worth it for the gold at hand, or do labels of some more notes bring more?

Everything is measured on the gold itself, out of fold, with a linear head on frozen features: a learning curve on
nested subsets, and what corrected pilot rows add to it. What was not measured is not told: without pilot rows the
answer is that it cannot be told. The head stands in for the encoder that will be trained; it shows the direction, not
the size, of what that will gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import part_of, rekeyed
from hf_synth.correction.crossfit import FOLDS, Learn, Rows, check_parts, decide, folds
from hf_synth.correction.policy import audited_figures
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.metrics import group_codes
from hf_synth.gold.adoption import adopt
from hf_synth.models.linear import linear_learner, text_features
from hf_synth.task.labels import audited_labels, check_columns, groups_of, label_indices, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Decision = Literal["generate", "label", "cannot_tell"]
SURE = 0.8  # share of draws from which on a decision is made
METHOD = "posterior"  # pilot rows are corrected by it
LEAST_GOLD, LEAST_PILOT = 20, 30  # rows below which nothing can be told
_PARTS = (0.25, 0.5, 1.0)  # of the gold inside the folds: the learning curve
_PILOTS = (0.5, 1.0)  # of the pilot rows
_ENOUGH = 0.9  # of the best gain that was measured: the fewest rows that reach it are "about N"
_FLAT = 0.005  # a gain that nobody would notice


@dataclass(frozen=True)
class Assessment:
    """What the gold at hand says of generating.

    Args:
        decision: "generate", "label" or "cannot_tell".
        certainty: share of bootstrap draws in which the decision is the right one; of "cannot_tell" the larger share
            of the two that were not enough.
        why: one sentence.
        rows: about how many synthetic rows, for "generate"; the fewest measured that bring most of the gain.
        rising: the gain was still growing at the largest pilot measured: more rows may bring more.
        gold_rows: how many there are.
        pilot_rows: synthetic rows that were given.
        curve: gold rows trained on -> score out of fold (mean of accuracy and balanced accuracy of a linear head).
        pilot: synthetic rows beside the gold -> gain in score, its 95% interval.
        labelling: gain expected of `more` labelled notes, extrapolated from the curve, with its 95% interval.
        more: how many.
        generator_right: share of rows whose label is right as audited ones tell, with its 95% interval; None without.
        budget: labels by people that were touched: gold and audited rows.
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
            "cannot_tell": "cannot be told",
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
    """Say whether to generate or to label.

    The learning curve is extrapolated by an error that falls as a power of the rows, towards none: where some error is
    left for ever, labelling looks better than it is, and "generate" is said with that in hand. Intervals are over
    groups of gold rows and over ways to cut the folds; that other gold might have been labelled they cover in part.

    Args:
        synthetic: pilot rows as generated, some hundred; without them generating cannot be judged.
        gold: all gold rows at hand that are no test rows.
        audited: true labels of some pilot rows that a person checked, by row id; an `Audited` tells their weights.
        more: notes that could be labelled instead.
        repeats: ways to cut the folds.
        n_bootstrap: draws.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: there are too few rows, or audited ids are not among the pilot rows.
    """
    if task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: assess serves single_label tasks only")
    check_columns(task, gold, what="gold")
    if len(gold) < LEAST_GOLD:
        raise ColumnError(f"{len(gold)} gold rows are too few to tell anything: label {LEAST_GOLD} first")
    if audited and synthetic is None:
        raise ColumnError("audited labels are of synthetic rows: give those rows, too")
    rows = None if synthetic is None else _pilot(task, synthetic)
    known = _known(task, gold, rows, audited)
    check_parts(known.groups)
    hits, sizes, pilots = _measured(task, gold, rows, known, repeats, seed)
    draws = _draws(hits, known, n_bootstrap, seed)
    means = np.mean([[_worth(known) @ h / len(known.truth) for h in one] for one in hits], axis=0)
    of_labels = _gain_of_labels(sizes, draws[:, : len(sizes)], more)
    labelling = (float(_gain_of_labels(sizes, means[None, : len(sizes)], more)[0]), *_interval(of_labels))
    gains = draws[:, len(sizes) :] - draws[:, [len(sizes) - 1]]
    pilot = {n: (float(means[len(sizes) + i] - means[len(sizes) - 1]), *_interval(gains[:, i]))
             for i, n in enumerate(pilots)}  # fmt: skip
    decision, certainty, why = _decision(gains, of_labels, labelling, pilot, len(rows or ()), sizes[-1], more)
    best = max((g[0] for g in pilot.values()), default=0.0)
    enough = next((n for n in sorted(pilot) if pilot[n][0] >= _ENOUGH * best), None)
    rising = len(pilots) > 1 and enough == max(pilots) and float((gains[:, -1] > gains[:, -2]).mean()) >= SURE
    right = None
    if known.audited:
        told = audited_figures(known.meant, known.audited)
        right = (told["generator_accuracy_audited"], *told["generator_accuracy_audited_ci95"])
    return Assessment(
        decision, round(certainty, 3), why, enough if decision == "generate" else None, rising, len(gold),
        len(rows or ()), dict(zip(sizes, means[: len(sizes)].round(4).tolist(), strict=True)), pilot, labelling, more,
        right, len(gold) + len(known.audited),
    )  # fmt: skip


def _pilot(task: Task, synthetic: Dataset) -> Dataset:
    ours = {"label_status", "llm_label", "seed_ids", "id"} <= set(synthetic.column_names)
    rows = synthetic if ours else adopt(task, synthetic)
    rows = rows.select([i for i, status in enumerate(rows["label_status"]) if status != "rejected"])
    if len(rows) < LEAST_PILOT:
        raise ColumnError(f"{len(rows)} good pilot rows are too few to tell anything: give {LEAST_PILOT} or more")
    return rows


def _known(task: Task, gold: Dataset, rows: Dataset | None, audited: Mapping[str, int | str] | None) -> Rows:
    place = {} if rows is None else {id: i for i, id in enumerate(rows["id"])}
    missing = [id for id in audited or () if id not in place]
    if missing:
        raise ColumnError(f"{len(missing)} audited ids are not among the pilot rows")
    checked = audited_labels(task, {place[id]: label for id, label in (audited or {}).items()})
    meant = np.zeros(0, np.int64) if rows is None else label_indices(task, rows, "llm_label")
    groups = groups_of(gold)
    return Rows(meant, label_indices(task, gold), groups, len(task.labels), rekeyed(audited or {}, checked, place))


# --- measuring --------------------------------------------------------------------------------------------------------
def _measured(
    task: Task, gold: Dataset, rows: Dataset | None, known: Rows, repeats: int, seed: int
) -> tuple[list[list[Floats]], list[int], list[int]]:
    """Give who was right: for each way to cut the folds, and for each training set, (M,) over gold rows.

    Returns:
        The hits: parts of the gold alone, then all of it with parts of the pilot; the gold sizes; the pilot sizes.
    """
    texts = [] if rows is None else texts_of(task, rows)
    x_gold, x_rows = text_features(texts_of(task, gold), texts)
    learn = linear_learner(x_gold, x_rows, known.truth, known.n_labels)
    pilots = [round(part * len(texts)) for part in _PILOTS] if texts else []
    none, flat = np.arange(0), np.zeros((0, known.n_labels))
    hits = []
    for repeat in range(repeats):
        fold = folds(known.truth, known.groups, FOLDS, seed + repeat)
        found = [np.zeros(len(known.truth)) for _ in (*_PARTS, *pilots)]
        for k in range(int(fold.max()) + 1):
            inside, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            right = _scored(learn, known, held)
            for i, part in enumerate(_PARTS):
                some = _part(known.truth, inside, part, seed + repeat)
                found[i][held] = right(some, none, flat)
            for i, n in enumerate(pilots, len(_PARTS)):
                used, targets = _corrected(learn, known, inside, n, seed + repeat)
                found[i][held] = right(inside, used, targets)
        hits.append(found)
    inside_all = len(known.truth) * (FOLDS - 1) / FOLDS
    return hits, [round(part * inside_all) for part in _PARTS], pilots


def _scored(learn: Learn, known: Rows, held: Ints) -> Callable[[Ints, Ints, Floats], npt.NDArray[np.bool_]]:
    def right(gold: Ints, used: Ints, targets: Floats) -> npt.NDArray[np.bool_]:
        said = learn(gold, used, targets)(held, np.arange(0))[0]
        return np.asarray(said.argmax(1) == known.truth[held])

    return right


def _corrected(learn: Learn, known: Rows, inside: Ints, n: int, seed: int) -> tuple[Ints, Floats]:
    """Correct n of the pilot rows by gold inside the fold; give the rows used and their targets."""
    some = np.sort(np.random.default_rng(seed).permutation(len(known.meant))[:n])
    at = {int(row): i for i, row in enumerate(some)}
    inside_it = part_of(known.audited, [row for row in known.audited if row in at])
    audited = rekeyed(inside_it, {at[row]: label for row, label in inside_it.items()}, at)
    part = Rows(known.meant[some], known.truth, known.groups, known.n_labels, audited)

    def learn_part(gold: Ints, rows: Ints, targets: Floats) -> Any:
        predict = learn(gold, some[rows], targets)
        return lambda asked_gold, asked_rows: predict(asked_gold, some[asked_rows])

    done = decide(part, learn_part, METHOD, inside=inside, seed=seed, bounds=False)[1]
    used = np.flatnonzero(done.weight > 0)
    return some[used], done.probs[used] * done.weight[used, None]


def _part(truth: Ints, inside: Ints, part: float, seed: int) -> Ints:
    """Take a part of the rows with labels in proportion; nested."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(inside))
    for label in np.unique(truth[inside]):
        rows = np.flatnonzero(truth[inside] == label)
        place[rows[rng.permutation(len(rows))]] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.sort(inside[np.argsort(place, kind="stable")[: max(2, round(part * len(inside)))]])


def _worth(known: Rows) -> Floats:
    """Weigh gold rows so that a mean over them is the mean of accuracy and balanced accuracy, (M,)."""
    counts = np.bincount(known.truth)
    return np.asarray(0.5 + 0.5 * len(known.truth) / ((counts > 0).sum() * counts[known.truth]))


def _draws(hits: Sequence[Sequence[Floats]], known: Rows, n_bootstrap: int, seed: int) -> Floats:
    """Draw groups of gold rows and ways to cut the folds; give scores, (n_bootstrap, training sets)."""
    codes = group_codes(known.groups, len(known.truth))
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_bootstrap).astype(float)
    rows = times @ np.bincount(codes, minlength=n_groups)
    weight = _worth(known)
    cuts = rng.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), n_bootstrap) / len(hits)
    scores = np.zeros((n_bootstrap, len(hits[0])))
    for repeat, found in enumerate(hits):
        sums = np.stack([np.bincount(codes, weights=h * weight, minlength=n_groups) for h in found], axis=1)
        scores += cuts[:, [repeat]] * (times @ sums) / rows[:, None]
    return scores


def _gain_of_labels(sizes: Sequence[int], scores: Floats, more: int) -> Floats:
    """Extrapolate each row of scores (B, P) by so many more labelled rows than the last size; give the gains, (B,).

    The error is taken to fall as a power of the rows, towards none: no gain can be more than what is left of it.
    """
    x = np.log(sizes) - np.log(sizes).mean()
    errors = np.maximum(1 - scores, 1e-3)
    power = np.log(errors) @ x / (x @ x)  # below 0 where the error falls
    return np.asarray(errors[:, -1] * (1 - ((sizes[-1] + more) / sizes[-1]) ** power))


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


# --- deciding ---------------------------------------------------------------------------------------------------------
def _decision(
    gains: Floats, of_labels: Floats, labelling: tuple[float, float, float],
    pilot: Mapping[int, tuple[float, float, float]], n_pilot: int, n_gold: int, more: int,
) -> tuple[Decision, float, str]:  # fmt: skip
    """Decide between both by how often each is the better one over the draws.

    Args:
        n_gold: gold rows at the end of the learning curve, from where on it is extrapolated.
    """
    beyond = f"extrapolated from {n_gold:,} to {n_gold + more:,} rows"
    if not n_pilot:
        if labelling[2] < _FLAT:
            return "cannot_tell", 0.0, (
                f"the learning curve of a linear head, {beyond}, is flat, so that more rows of either kind may bring "
                "little; a pilot of some hundred synthetic rows would show it"
            )  # fmt: skip
        return "cannot_tell", 0.0, (
            "without synthetic rows only labelling can be judged: generate some hundred as a pilot, and have a person "
            "check 50 of them"
        )  # fmt: skip
    best = gains[:, -1]  # of all pilot rows: to pick the better part of them would flatter
    generating = float((best > np.maximum(0.0, of_labels)).mean())
    labels = float(((of_labels > best) & (of_labels > 0)).mean())
    said = (
        f"{n_pilot:,} corrected pilot rows bring a linear head {_gain(pilot[max(pilot)])}, {more:,} more labels "
        f"{_gain(labelling)}, {beyond}"
    )
    if generating >= SURE:
        return "generate", generating, said
    if labels >= SURE:
        return "label", labels, said
    return "cannot_tell", max(generating, labels), f"{said}: too close for the {SURE:.0%} that a decision needs"
