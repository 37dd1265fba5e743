"""`auto`: choice of the correction method by the score of a linear head on gold that was held out with its rows.

Each candidate corrects the rows without one fold of gold, and without the rows that were written from that fold. A head
is trained on the result and scored on the fold, and on the audited rows set aside with it. "gold_only", which uses none
of the rows, is a candidate, and every other one is compared with it on the same rows. Few gold rows measure a gain
badly, so each gain is shrunk towards a prior, and the method with the best lower bound is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.crossfit import Learn, Rows
from hf_synth.correction.paired import by_accuracy, by_hits, by_macro_f1, clustered_error, share_interval
from hf_synth.correction.priors import GOLD_ONLY, MACRO_F1_PRIORS, PRIORS, UNKNOWN, Prior
from hf_synth.correction.trial import Trial, try_methods
from hf_synth.evaluation.metrics import group_codes
from hf_synth.task.labels import Floats, Ints

NOTHING = GOLD_ONLY  # the candidate that uses none of the rows
CHOSEN_ON = 100_000  # rows, at most, on which methods are compared where a given model decides: on few of many rows
# the choice may be another one of two close methods than on all of them (docs/results/auto_choice.md)
CONFIDENCE = 0.9  # of the guarantee
CAUTION = 0.3  # standard deviations of the expected gain that are taken off it
_FEW_ROWS = 10  # held-out gold rows of a label below which the sentence names their number

PROMISED_LOSS = {"accuracy": "auto_loss_at_most", "macro_f1": "auto_macro_f1_loss_at_most"}  # figure, by metric

CANDIDATES = (NOTHING, "blend", "posterior")
MEASURED_CANDIDATES = ("measured", "loss_rank")  # where an LLM labelled the gold, too
MACRO_F1_CANDIDATES = ("weight", "clean_drop")  # also where macro-F1 decides: most rows keep the LLM's label, which
# can find a rare label that a corrector overlooks; "none" besides was measured and gains less


@dataclass(frozen=True)
class Gain:
    """Gain of a method over gold only, as shares of 1.

    Args:
        held_out: measured on held-out rows.
        error: its standard error.
        expected: shrunken towards the prior.
        sd: standard deviation of the expected gain.
    """

    held_out: float
    error: float
    expected: float
    sd: float


@dataclass(frozen=True)
class Choice:
    """The chosen method and its grounds.

    Args:
        method: the chosen one.
        scores: each method's score on held-out rows: the mean of accuracy and balanced accuracy of a linear head, or
            its macro-F1.
        gains: each method's gain over gold only.
        behind: each method's distance to the chosen one, and the standard error of that difference.
        guarantee: the largest loss of the metric, against gold only, that a one-sided paired interval does not exclude,
            at CONFIDENCE for all candidates at once (Bonferroni), since the choice is among them; 0 for gold only,
            None where nothing could be measured.
        accuracy: of the chosen method's head on held-out rows, with its 95% interval for all candidates at once
            (Bonferroni), since the luckiest is likelier to be chosen; None where not measured.
        why: a sentence.
        opinions: of the models trained for the choice, on the synthetic rows, by their source (see `decide`).
        metric: what was compared and is promised, one of `methods.METRICS`.
        macro_f1: of the chosen method's head on held-out gold, where it was compared by it.
    """

    method: str
    scores: Mapping[str, float]
    gains: Mapping[str, Gain]
    behind: Mapping[str, tuple[float, float]]
    guarantee: float | None
    accuracy: tuple[float, float, float] | None
    why: str
    opinions: Mapping[str, Sequence[Floats]] = field(default_factory=dict, repr=False, compare=False)
    metric: str = "accuracy"
    macro_f1: float | None = None

    def figures(self) -> dict[str, Any]:
        """Return the grounds as figures of a policy."""
        figures: dict[str, Any] = {"auto_scores": dict(self.scores)}
        figures["auto_behind"] = {method: list(distance) for method, distance in self.behind.items()}
        figures["auto_gains"] = {
            m: [round(v, 4) if np.isfinite(v) else None for v in (g.held_out, g.error, g.expected, g.sd)]
            for m, g in self.gains.items()
        }
        if self.accuracy is not None:
            share, low, high = self.accuracy
            figures["auto_accuracy_on_held_out_gold"] = round(share, 4)
            figures["auto_accuracy_on_held_out_gold_ci95"] = [round(low, 4), round(high, 4)]
        macro = self.metric != "accuracy"
        if macro:
            figures["auto_metric"] = self.metric
            if self.macro_f1 is not None:
                figures["auto_macro_f1_on_held_out_gold"] = round(self.macro_f1, 4)
        if self.guarantee is not None:
            figures[PROMISED_LOSS[self.metric]] = round(self.guarantee, 4)
            figures["auto_loss_confidence"] = CONFIDENCE
        return figures | {"auto_measured": self.guarantee is not None, "auto_why": self.why}


def choose(
    hits: Mapping[str, npt.ArrayLike],
    labels: npt.ArrayLike,
    *,
    groups: Sequence[Any] | None = None,
    weights: npt.ArrayLike | None = None,
    edge: float | None = None,
    priors: Mapping[str, Prior] | None = None,
    n_gold: int | None = None,
    measure: str = "accuracy",
    guesses: Mapping[str, Ints] | None = None,
    n_labels: int | None = None,
) -> Choice:
    """Choose a method by the score on held-out rows of a linear head trained on its rows.

    The gain of each method over gold only is a paired difference on the same rows. It is shrunk towards the method's
    prior by the precision of both (a normal model), and the method with the highest expected gain less CAUTION standard
    deviations is chosen; gold only has gain 0. A method whose measured loss is more than one standard error is no
    choice, whatever its prior. Standard errors are those of a mean of clusters (patients).

    Args:
        hits: for each method, NOTHING among them, whether the head is right on each row, (M,), or a mean over heads.
        labels: of those rows, (M,).
        groups: patients of those rows, (M,); each row by itself when None.
        weights: of those rows, (M,), if they were drawn with unequal probabilities.
        edge: the LLM's measured score on its labels less the score of gold only; None where it was not measured.
        priors: of methods other than NOTHING; UNKNOWN for those that lack one. Those of the metric when None.
        n_gold: how many rows, the first ones, are gold; all when None. The guarantee and the accuracy are of these.
        measure: what a hit is, in words; the accuracy is only given where it is one.
        guesses: for each method, the labels that the head gives those rows, (M,): methods are then compared by
            macro-F1, which is promised in place of accuracy.
        n_labels: of the task; macro-F1 is over those that the rows hold, and the sentence says how many these are.
    """
    truth = np.asarray(labels)
    own, counts_hits = slice(None, n_gold), measure == "accuracy"
    if priors is None:
        priors = PRIORS if guesses is None else MACRO_F1_PRIORS
    drawn = np.ones(len(truth)) if weights is None else np.asarray(weights, float)
    if guesses is None:
        compared, promised = by_hits(hits, truth, drawn), by_accuracy(hits, own)
    else:
        compared = by_macro_f1(guesses, truth, drawn, base=NOTHING)
        promised = by_macro_f1({m: guess[own] for m, guess in guesses.items()}, truth[own], drawn[own], base=NOTHING)
        measure = "macro-F1"
    worth = compared.worth
    codes = group_codes(groups, len(truth))
    own_codes = group_codes(None if groups is None else groups[own], len(truth[own]))
    gains = {NOTHING: Gain(0.0, 0.0, 0.0, 0.0)}
    for method in worth:
        if method == NOTHING:
            continue
        gain = worth[method] - worth[NOTHING]
        mean, sd = priors.get(method, UNKNOWN).expected(edge)
        error = clustered_error(gain, codes, compared.typical_row[method])
        precision = 1 / sd**2 + (1 / error**2 if np.isfinite(error) else 0.0)
        measured = gain.mean() / error**2 if np.isfinite(error) else 0.0
        gains[method] = Gain(float(gain.mean()), error, (mean / sd**2 + measured) / precision, precision**-0.5)
    able = [m for m, gain in gains.items() if gain.held_out >= -gain.error]
    chosen = max(able, key=lambda m: gains[m].expected - CAUTION * gains[m].sd)
    distances = {m: worth[chosen] - w for m, w in worth.items()}
    behind = {
        m: (round(float(g.mean()), 4), round(clustered_error(g, codes, compared.typical_row[m]), 4))
        for m, g in distances.items()
    }
    guarantee = 0.0
    if chosen != NOTHING:
        guarantee = promised.loss_bound(chosen, NOTHING, own_codes, CONFIDENCE)
    accuracy = None
    if counts_hits:
        accuracy = share_interval(np.asarray(hits[chosen], float)[own], own_codes, 0.05 / len(worth))
    scores = {m: round(float(w.mean()), 4) for m, w in worth.items()}
    why = _choice_sentence(chosen, gains[chosen], guarantee, len(truth), int(codes.max()) + 1, measure)
    choice = Choice(chosen, scores, gains, behind, guarantee, accuracy, why)
    if guesses is None:
        return choice
    why += _labels_clause(truth[own], n_labels)
    return replace(choice, why=why, metric="macro_f1", macro_f1=float(promised.worth[chosen].mean()))


def _choice_sentence(chosen: str, gain: Gain, guarantee: float, n: int, n_groups: int, measure: str) -> str:
    """Return the sentence that states the choice and its guarantee."""
    rows = f"{n} held-out rows" + ("" if n_groups == n else f" of {n_groups} groups")
    if chosen == NOTHING:
        return f"{chosen}: on {rows} no method is expected to beat training on gold alone, so none of the rows is used"
    proof = (
        ""
        if gain.held_out > 2 * gain.error
        else "; gold is too small to prove a gain: this choice has the best lower bound"
    )
    return (
        f"{chosen}: {100 * gain.held_out:+.1f} points over gold only on {rows} (standard error "
        f"{100 * gain.error:.1f}), {100 * gain.expected:+.1f} expected{proof}; {measure} not below gold only by more "
        f"than {100 * guarantee:.1f} points with probability {CONFIDENCE:.0%}"
    )


def _labels_clause(truth: Ints, n_labels: int | None) -> str:
    """Return the clause that states over which labels macro-F1 is taken, where some have no row or few."""
    counts = np.bincount(truth)
    with_rows, rarest = int((counts > 0).sum()), int(counts[counts > 0].min())
    known = f" of {n_labels}" if n_labels is not None and with_rows < n_labels else ""
    if not known and rarest >= _FEW_ROWS:
        return ""
    few = f"; the rarest has {rarest} held-out gold row{'' if rarest == 1 else 's'}" if rarest < _FEW_ROWS else ""
    return f"; macro-F1 is over {with_rows}{known} labels" + (", those with held-out gold rows" if known else "") + few


def choose_method(
    rows: Rows,
    learn: Learn,
    *,
    opinions: tuple[Floats, Floats] | None = None,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    coverage: float | None = None,
    coverage_by_class: bool = False,
    metric: str = "accuracy",
) -> Choice:
    """Choose a method by the score of a model trained on its rows, on gold and audited rows that had no part in it.

    Where most rows were written from most of the gold no fold can be held out: the choice is then by priors alone, and
    says so.

    Args:
        learn: a fast learner: it is called some hundred times.
        opinions: of one trained model on gold that it never saw, (M, K), and on the rows, (N, K); it then decides on
            labels in place of models trained by `learn`.
        methods: the candidates; when None CANDIDATES, and MEASURED_CANDIDATES where the generator labelled gold.
        coverage, coverage_by_class: of conformal sets, as for `fitting.fit`.
        metric: what is compared and promised, one of `methods.METRICS`; with "macro_f1" MACRO_F1_CANDIDATES are
            candidates, too.
    """
    methods = candidates_of(rows, metric) if methods is None else methods
    lineage = rows.lineage if rows.lineage is not None and rows.lineage.shows.any() else None
    if lineage is not None and not lineage.measurable:
        priors = PRIORS if metric == "accuracy" else MACRO_F1_PRIORS
        able = {m: priors[m] for m in methods if m in CANDIDATES and m in priors}
        return replace(unmeasured(able, lineage.least_share()), metric=metric)
    sets: Any = {"coverage": coverage, "coverage_by_class": coverage_by_class}
    return choose_from(try_methods(rows, learn, methods, opinions=opinions, seed=seed, **sets), metric)


def choose_from(trial: Trial, metric: str, methods: Sequence[str] | None = None) -> Choice:
    """Choose among the methods of a trial, or some of them, by a metric."""
    guesses = {m: trial.guesses[m] for m in dict.fromkeys((NOTHING, *(trial.guesses if methods is None else methods)))}
    choice = choose(
        {m: guess == trial.truth for m, guess in guesses.items()},
        trial.truth,
        groups=trial.groups,
        weights=trial.weights,
        edge=trial.edge,
        n_gold=trial.n_gold,
        guesses=guesses if metric == "macro_f1" else None,
        n_labels=trial.n_labels,
    )
    return replace(choice, opinions=trial.opinions)


def candidates_of(rows: Rows, metric: str) -> tuple[str, ...]:
    """Return the methods that `auto` compares by a metric."""
    methods = (*CANDIDATES, *(MACRO_F1_CANDIDATES if metric == "macro_f1" else ()))
    if rows.annotations is None:
        return methods
    return (*methods, *(MEASURED_CANDIDATES if rows.measured else ("measured",)))


def unmeasured(priors: Mapping[str, Prior], share: float) -> Choice:
    """Choose by priors alone, where holding out a fold of gold would leave too few rows.

    Args:
        priors: of the candidates.
        share: the least share of rows that would remain.
    """
    expected = {NOTHING: (0.0, 0.0)} | {m: prior.expected(None) for m, prior in priors.items()}
    gains = {m: Gain(float("nan"), float("inf"), mean, sd) for m, (mean, sd) in expected.items()}
    chosen = max(gains, key=lambda m: gains[m].expected - CAUTION * gains[m].sd)
    why = (
        f"{chosen}: cannot be measured, since only {share:.0%} of the rows were written without a given fifth of the "
        "gold, so nothing is promised; run `hf-synth generate` again (its rows are each of one fold) or hold gold back "
        "with --choose"
    )
    return Choice(chosen, {}, gains, {}, None, None, why)
