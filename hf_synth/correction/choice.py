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

from hf_synth.correction.audited import relative_weights, select_audited
from hf_synth.correction.crossfit import FOLDS, Learn, Rows, decide, folds, part_of_rows
from hf_synth.correction.fitting import fit
from hf_synth.correction.lineage import Lineage
from hf_synth.correction.policy import GENERATOR, apply, set_audited_labels
from hf_synth.evaluation.intervals import wilson_at
from hf_synth.evaluation.metrics import group_codes
from hf_synth.reports.progress import counted
from hf_synth.task.labels import Floats, Ints

NOTHING = "gold_only"  # the candidate that uses none of the rows
CHOSEN_ON = 100_000  # rows, at most, on which methods are compared where a given model decides: on few of many rows
# the choice may be another one of two close methods than on all of them (docs/results/auto_choice.md)
CONFIDENCE = 0.9  # of the guarantee
CAUTION = 0.3  # standard deviations of the expected gain that are taken off it
_MOST_EDGE = 0.1  # measured lead of the LLM over gold only beyond which it promises no more
_FEWEST_AUDITED = 20  # audited rows that measure the LLM's lead


@dataclass(frozen=True)
class Prior:
    """What a method gains over gold only, before any gold row is asked, in points of score as shares of 1.

    Args:
        mean: expected gain where nothing is known of the LLM.
        sd: standard deviation of the gains.
        level, slope, spread: where the LLM's labels were measured: the expected gain is `level` + `slope` times the
            lead of its score over that of gold only (at most _MOST_EDGE), with standard deviation `spread`.
    """

    mean: float
    sd: float
    level: float
    slope: float
    spread: float

    def expected(self, edge: float | None) -> tuple[float, float]:
        """Return mean and standard deviation of the gain, given the LLM's measured lead over gold only or None."""
        if edge is None:
            return self.mean, self.sd
        return self.level + self.slope * min(edge, _MOST_EDGE), self.spread


# Rounded from `benchmarks/real_noise.py --fit` on half of its sets, no spread below .02; its page reports each half.
PRIORS: Mapping[str, Prior] = {
    "blend": Prior(0.025, 0.035, 0.025, 0.25, 0.025),
    "posterior": Prior(0.02, 0.055, 0.015, 0.35, 0.04),
    "loss_rank": Prior(0.03, 0.03, 0.03, 0.15, 0.03),
    "measured": Prior(0.025, 0.025, 0.025, 0.2, 0.02),
}
UNKNOWN = Prior(0.0, 0.06, 0.0, 0.3, 0.06)  # of a method whose prior was not fitted
CANDIDATES = (NOTHING, "blend", "posterior")
MEASURED_CANDIDATES = ("measured", "loss_rank")  # where an LLM labelled the gold, too


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
        scores: each method's score on held-out rows: the mean of accuracy and balanced accuracy of a linear head.
        gains: each method's gain over gold only.
        behind: each method's distance to the chosen one, and the standard error of that difference.
        guarantee: the largest loss of accuracy against gold only that a one-sided paired interval does not exclude, at
            CONFIDENCE for all candidates at once (Bonferroni), since the choice is among them; 0 for gold only, None
            where nothing could be measured.
        accuracy: of the chosen method's head on held-out rows, with its 95% interval for all candidates at once
            (Bonferroni), since the luckiest is likelier to be chosen; None where not measured.
        why: a sentence.
        opinions: of the models trained for the choice, on the synthetic rows, by their source (see `decide`).
    """

    method: str
    scores: Mapping[str, float]
    gains: Mapping[str, Gain]
    behind: Mapping[str, tuple[float, float]]
    guarantee: float | None
    accuracy: tuple[float, float, float] | None
    why: str
    opinions: Mapping[str, Sequence[Floats]] = field(default_factory=dict, repr=False, compare=False)

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
        if self.guarantee is not None:
            figures["auto_loss_at_most"] = round(self.guarantee, 4)
            figures["auto_loss_confidence"] = CONFIDENCE
        return figures | {"auto_measured": self.guarantee is not None, "auto_why": self.why}


def choose(
    hits: Mapping[str, npt.ArrayLike],
    labels: npt.ArrayLike,
    *,
    groups: Sequence[Any] | None = None,
    weights: npt.ArrayLike | None = None,
    edge: float | None = None,
    priors: Mapping[str, Prior] = PRIORS,
    n_gold: int | None = None,
    measure: str = "accuracy",
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
        priors: of methods other than NOTHING; UNKNOWN for those that lack one.
        n_gold: how many rows, the first ones, are gold; all when None. The guarantee and the accuracy are of these.
        measure: what a hit is, in words; the accuracy is only given where it is one.
    """
    from scipy.special import stdtrit

    truth = np.asarray(labels)
    counts = np.bincount(truth)
    drawn = np.ones(len(truth)) if weights is None else np.asarray(weights, float) / np.mean(np.asarray(weights, float))
    row_weight = (0.5 + 0.5 * len(truth) / (int((counts > 0).sum()) * counts[truth])) * drawn
    worth = {m: np.asarray(h, float) * row_weight for m, h in hits.items()}
    scores = {m: float(w.mean()) for m, w in worth.items()}
    codes = group_codes(groups, len(truth))
    n_groups = int(codes.max()) + 1
    gains = {NOTHING: Gain(0.0, 0.0, 0.0, 0.0)}
    for method in worth:
        if method == NOTHING:
            continue
        gain = worth[method] - worth[NOTHING]
        mean, sd = priors.get(method, UNKNOWN).expected(edge)
        error = _error(gain, codes)
        precision = 1 / sd**2 + (1 / error**2 if np.isfinite(error) else 0.0)
        measured = gain.mean() / error**2 if np.isfinite(error) else 0.0
        gains[method] = Gain(float(gain.mean()), error, (mean / sd**2 + measured) / precision, precision**-0.5)
    able = [m for m, gain in gains.items() if gain.held_out >= -gain.error]
    chosen = max(able, key=lambda m: gains[m].expected - CAUTION * gains[m].sd)
    distances = {m: worth[chosen] - w for m, w in worth.items()}
    behind = {m: (round(float(g.mean()), 4), round(_error(g, codes), 4)) for m, g in distances.items()}
    own_codes = group_codes(None if groups is None else groups[:n_gold], len(truth[:n_gold]))
    guarantee = 0.0
    if chosen != NOTHING:
        own_groups = int(own_codes.max()) + 1
        quantile = float(stdtrit(max(1, own_groups - 1), 1 - (1 - CONFIDENCE) / (len(worth) - 1)))
        lead = np.asarray(hits[chosen], float)[:n_gold] - np.asarray(hits[NOTHING], float)[:n_gold]
        # Where few rows differ the exact bound of a count of them is about one row higher than the normal one
        guarantee = max(0.0, quantile * _error(lead, own_codes) - float(lead.mean()) + 1 / len(lead))
    accuracy = None
    if measure == "accuracy":
        accuracy = _share_interval(np.asarray(hits[chosen], float)[:n_gold], own_codes, 0.05 / len(worth))
    why = _choice_sentence(chosen, gains[chosen], guarantee, len(truth), n_groups, measure)
    return Choice(chosen, {m: round(s, 4) for m, s in scores.items()}, gains, behind, guarantee, accuracy, why)


def _error(values: Floats, codes: Ints) -> float:
    """Compute the standard error of a mean over clusters (Liang and Zeger, 1986), by n - 1 of n of them.

    One pseudo-row that differs by 1 keeps it above 0 where no row differs; infinite for one cluster.
    """
    n, clusters = len(values), int(codes.max()) + 1
    if clusters < 2:
        return float("inf")
    sums = np.bincount(codes, values - values.mean())
    return float(np.sqrt(clusters / (clusters - 1) * (sums**2).sum() / n**2 + 1 / n**2))


def _share_interval(values: Floats, codes: Ints, alpha: float) -> tuple[float, float, float]:
    """Compute a share over clusters with its interval of level 1 - alpha: Wilson's at the effective number of rows.

    Clusters measure their own variance, on as many degrees of freedom as there are clusters less one; one measures
    none. Rows that are right or wrong count for no more than independent ones, however alike clusters are by luck.
    """
    from scipy.special import ndtri, stdtrit

    share, n = float(np.clip(values.mean(), 0.0, 1.0)), len(values)
    rows, clusters = float(n), int(codes.max()) + 1
    if clusters < 2 < n:
        return share, 0.0, 1.0
    z = float(ndtri(1 - alpha / 2) if clusters == n else stdtrit(clusters - 1, 1 - alpha / 2))
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    if 0 < share < 1 and not (binary and clusters == n):
        sums = np.bincount(codes, values - values.mean())
        variance = clusters / max(1, clusters - 1) * float((sums**2).sum()) / n**2
        rows = max(1.0, min(n if binary else 100.0 * n, share * (1 - share) / max(variance, 1e-12)))
    low, high = wilson_at(np.array(share), np.array(rows), z)
    return share, float(low), float(high)


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


def choose_method(
    rows: Rows,
    learn: Learn,
    *,
    opinions: tuple[Floats, Floats] | None = None,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    coverage: float | None = None,
    coverage_by_class: bool = False,
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
    """
    if methods is None:
        methods = CANDIDATES
        methods += () if rows.annotations is None else MEASURED_CANDIDATES if rows.measured else ("measured",)
    methods = tuple(dict.fromkeys((NOTHING, *methods)))
    lineage = rows.lineage if rows.lineage is not None and rows.lineage.shows.any() else None
    if lineage is not None and not lineage.measurable:
        able = {m: PRIORS[m] for m in methods if m in CANDIDATES and m in PRIORS}
        return unmeasured(able, lineage.least_share())
    fold = folds(rows.truth, rows.groups, FOLDS, seed) if lineage is None else lineage.fold
    audited = _scored(rows, lineage)
    theirs = [None if rows.row_groups is None else rows.row_groups[i] for i in audited]
    groups = [*(rows.groups or [None] * len(fold)), *theirs]
    audited_fold = _audited_folds(fold, groups, seed)
    if lineage is not None:  # an audited row is held out with the gold that it was written from
        shown = lineage.shows[audited]
        audited_fold = np.where(shown.any(1), shown.argmax(1), audited_fold)
    truth = np.concatenate([rows.truth, np.array([rows.audited[i] for i in audited.tolist()], dtype=np.int64)])
    hits = {m: np.zeros(len(truth)) for m in methods}
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
            hits[method][at] = np.concatenate(probs).argmax(1) == truth[at]
        for source, (_, of_rows) in known.items():
            every = np.full((len(rows.meant), rows.n_labels), np.nan)
            every[keep] = of_rows
            by_source.setdefault(source, []).append(every)
    relative = relative_weights(rows.audited)
    weights = [*np.ones(len(fold)), *(relative[i] for i in audited.tolist())]
    edge = _lead_over_gold(rows, hits[NOTHING][: len(fold)])
    choice = choose(hits, truth, groups=groups, weights=weights, edge=edge, n_gold=len(fold))
    return replace(choice, opinions=by_source)


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
