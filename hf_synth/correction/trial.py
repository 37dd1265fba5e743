"""Trial of methods: what a head trained on the rows of each method guesses on gold that was held out with its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import relative_weights, select_audited
from hf_synth.correction.crossfit import FOLDS, Learn, Rows, decide, folds, part_of_rows
from hf_synth.correction.fitting import fit
from hf_synth.correction.lineage import Lineage
from hf_synth.correction.policy import GENERATOR, apply, set_audited_labels
from hf_synth.correction.priors import GOLD_ONLY
from hf_synth.reports.progress import counted
from hf_synth.task.labels import Floats, Ints

_FEWEST_AUDITED = 20  # audited rows that measure the LLM's lead


@dataclass(frozen=True)
class Trial:
    """What the heads of some methods guess on rows that had no part in their training.

    Args:
        guesses: by method, (M,), for gold and then for audited rows.
        truth: labels of those rows, (M,).
        groups, weights: of those rows, (M,), as for `choice.choose`.
        n_gold, n_labels: number of gold rows among them, and K.
        edge: the LLM's measured lead over gold only; None where it was not measured.
        opinions: of the models trained for it, on the synthetic rows, by their source (see `decide`).
    """

    guesses: Mapping[str, Ints]
    truth: Ints
    groups: Sequence[Any]
    weights: Floats
    n_gold: int
    n_labels: int
    edge: float | None
    opinions: Mapping[str, Sequence[Floats]]


def try_methods(
    rows: Rows,
    learn: Learn,
    methods: Sequence[str],
    *,
    opinions: tuple[Floats, Floats] | None = None,
    seed: int = 0,
    coverage: float | None = None,
    coverage_by_class: bool = False,
) -> Trial:
    """Hold out each fold of gold and its rows, correct the others by each method, and let its head guess the fold.

    Args:
        rows: rows from whose lineage folds can be held out, or without one.
        learn, opinions, coverage, coverage_by_class: as for `choice.choose_method`.
    """
    methods = tuple(dict.fromkeys((GOLD_ONLY, *methods)))
    lineage = rows.lineage if rows.lineage is not None and rows.lineage.shows.any() else None
    fold = folds(rows.truth, rows.groups, FOLDS, seed) if lineage is None else lineage.fold
    audited = _scored(rows, lineage)
    theirs = [None if rows.row_groups is None else rows.row_groups[i] for i in audited]
    groups = [*(rows.groups or [None] * len(fold)), *theirs]
    audited_fold = _audited_folds(fold, groups, seed)
    if lineage is not None:  # an audited row is held out with the gold that it was written from
        shown = lineage.shows[audited]
        audited_fold = np.where(shown.any(1), shown.argmax(1), audited_fold)
    truth = np.concatenate([rows.truth, np.array([rows.audited[i] for i in audited.tolist()], dtype=np.int64)])
    guesses = {m: np.zeros(len(truth), dtype=np.int64) for m in methods}
    options: Any = {"coverage": coverage, "coverage_by_class": coverage_by_class, "bounds": False}
    by_source: dict[str, list[Floats]] = {}
    for k in counted("trial of all methods on held-out gold", range(int(fold.max()) + 1)):
        inside, held, aside = np.flatnonzero(fold != k), np.flatnonzero(fold == k), audited[audited_fold == k]
        at = np.concatenate([held, len(fold) + np.flatnonzero(audited_fold == k)])
        keep = np.arange(len(rows.meant)) if lineage is None else lineage.without(k)
        left = replace(rows, audited=select_audited(rows.audited, sorted(set(rows.audited) - set(aside.tolist()))))
        part, learn_part = part_of_rows(left, learn, keep)
        known: dict[str, Any] = {}
        for method in methods:
            if opinions is None:  # other halves in each fold, so that averaged opinions differ
                _, corrected = decide(
                    part, learn_part, method, inside=inside, seed=seed + 104729 * (k + 1), known=known, **options
                )
            else:
                given = (opinions[0][inside], opinions[1][keep])
                corrected = _correct_by_opinions(part, method, inside, given, options)
            used = keep[np.flatnonzero(corrected.weight > 0)]
            targets = (corrected.probs * corrected.weight[:, None])[corrected.weight > 0]
            free = ~np.isin(used, aside)
            probs = learn(inside, used[free], targets[free])(held, aside)
            guesses[method][at] = np.concatenate(probs).argmax(1)
        for source, (_, of_rows) in known.items():
            every = np.full((len(rows.meant), rows.n_labels), np.nan)
            every[keep] = of_rows
            by_source.setdefault(source, []).append(every)
    gold_hits = (guesses[GOLD_ONLY] == truth)[: len(fold)].astype(float)
    relative = relative_weights(rows.audited)
    weights = np.concatenate([np.ones(len(fold)), np.array([relative[i] for i in audited.tolist()], dtype=float)])
    edge = _lead_over_gold(rows, gold_hits)
    return Trial(guesses, truth, groups, weights, len(fold), rows.n_labels, edge, by_source)


def _scored(rows: Rows, lineage: Lineage | None) -> Ints:
    """Return the audited rows that can be held out, ascending: those that showed at most one fold of gold."""
    audited = np.array(sorted(rows.audited), dtype=np.int64)
    return audited if lineage is None else audited[lineage.shows[audited].sum(1) <= 1]


def _correct_by_opinions(rows: Rows, method: str, inside: Ints, opinions: tuple[Floats, Floats], options: Any) -> Any:
    """Correct rows by one trained model's opinions on the gold inside a fold and on the rows."""
    labels: Any = {"llm_label": rows.meant, "gold_label": rows.truth[inside], "audited": rows.audited}
    given: Any = {}
    if rows.annotations is not None:
        labels["annotations"] = rows.annotations[0].of_rows(inside), rows.annotations[1]
        given["annotations"] = rows.annotations[1]
    policy = fit(method, pred_probs=opinions[1], gold_probs=opinions[0], **labels, **options)
    return set_audited_labels(apply(policy, rows.meant, opinions[1], **given), rows.meant, rows.audited)


def _lead_over_gold(rows: Rows, gold_hits: Floats) -> float | None:
    """Return the score of the LLM's labels less that of gold only, both on gold; None where it was not measured."""
    truth = rows.truth
    if rows.measured and rows.annotations is not None:
        of_gold = rows.annotations[0]
        own = of_gold.labels[:, of_gold.names.index(GENERATOR)]
        known = own >= 0
        if not known.any():
            return None
        return _score((own == truth)[known], truth[known]) - _score(gold_hits[known], truth[known])
    if len(rows.audited) >= _FEWEST_AUDITED:
        weight = relative_weights(rows.audited)
        right = [(rows.meant[i] == label) * weight[i] for i, label in rows.audited.items()]
        return float(np.mean(right)) - float(gold_hits.mean())
    return None


def _score(hits: npt.ArrayLike, truth: Ints) -> float:
    """Compute the mean of accuracy and balanced accuracy."""
    right = np.asarray(hits, float)
    return float(right.mean() + np.mean([right[truth == c].mean() for c in np.unique(truth)])) / 2


def _audited_folds(fold: Ints, groups: Sequence[Any], seed: int) -> Ints:
    """Assign audited rows to the folds of gold, (A,): all of a patient to the fold of the patient's gold, or to one.

    Args:
        fold: of gold rows, (M,).
        groups: of gold rows and then of audited rows, (M + A,).
    """
    place: dict[Any, int] = {}
    at = [place.setdefault(("row", i) if g is None else g, len(place)) for i, g in enumerate(groups[len(fold) :])]
    drawn = np.random.default_rng(seed).permutation(len(place)) % (int(fold.max()) + 1)
    of_gold = {g: int(f) for g, f in zip(groups, fold, strict=False) if g is not None}
    theirs = zip(groups[len(fold) :], drawn[at], strict=True)
    return np.array([of_gold.get(g, int(f)) for g, f in theirs], dtype=np.int64)
