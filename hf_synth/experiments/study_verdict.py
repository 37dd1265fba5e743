"""The first part of an experiment's report: whether synthetic notes are worth it, and which runs failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from hf_synth.evaluation.weakness import weakness_text
from hf_synth.experiments.grid import MIXTURES
from hf_synth.experiments.groups import Group, Row, grouped, interval_text, mean_of, naming, over_seeds
from hf_synth.experiments.names import metric_name, mix_name, sized_name
from hf_synth.experiments.results import Results, Worth
from hf_synth.reports.page import Lead, State, Tile

REPAIR = ("Repair the cause and run the experiment again: finished runs are kept, and these are tried again", "")
_MOST_REASONS = 3
_UNCLEAR = "It is not clear whether synthetic notes are worth it"


def mix_in_words(arm: str) -> str:
    """Return the name of a mix as in `Worth.arm`, whose first part is the arm."""
    first, comma, rest = arm.partition(", ")
    return mix_name(first) + comma + rest


def worth_in_words(worth: Worth) -> str:
    """Return the name of a mix with its gold rows: "40 gold + corrected (posterior), ratio 1, simulator"."""
    return sized_name(worth.size or worth.gold, mix_in_words(worth.arm))


def study_lead(results: Results, *, repair: tuple[str, str] = REPAIR) -> Lead:
    """Return what the report of an experiment says first.

    Args:
        repair: how to repair failed runs, and the command.
    """
    failed, done = len(results.failed), len(results.main)
    alarm: tuple[str, str, str] | tuple[()] = ()
    if failed:
        alarm = (
            f"{failed} of {failed + done} runs failed",
            f"{_failure_reasons(results.failed)} {repair[0]}.",
            repair[1],
        )
    verdict, state, points = _worth_verdict(results.worths) if results.worths else _score_verdict(results)
    points = [*points, *_weak_points(results)]
    count = Tile(f"{done} of {failed + done}", "runs are done", f"{failed or 'none'} failed", "bad" if failed else "")
    return Lead(verdict, state, alarm, [*_worth_tiles(results.worths), _score_tile(results), count], points)


def _failure_reasons(failed: Sequence[Row]) -> str:
    """Write why runs failed, the most frequent reasons first."""
    counts = Counter(": ".join(filter(None, (f["error"], f["message"]))) for f in failed).most_common()
    shown = [f"{n} because of {reason.rstrip('.')}." for reason, n in counts[:_MOST_REASONS]]
    return " ".join(shown + ([f"{len(counts) - _MOST_REASONS} more reasons."] if len(counts) > _MOST_REASONS else []))


# --- by gold equivalence ----------------------------------------------------------------------------------------------
def best_worth(worths: Sequence[Worth]) -> Worth:
    """Return the mix that is worth most for its gold, by the estimate; of several that are equal the best score."""
    return max(worths, key=lambda w: (w.equivalence.rows / max(1, w.gold), w.score))


def judge_mix(worth: Worth) -> tuple[str, State]:
    """Judge a mix by its interval: it is worth it where all of the interval is above the gold that it used."""
    low, high = worth.equivalence.low, worth.equivalence.high
    if low is not None and low > worth.gold:
        return "Synthetic notes are worth it", "good"
    if high is not None and high <= worth.gold:
        return "Synthetic notes are not worth it", "bad"
    return _UNCLEAR, "unsure"


def _worth_verdict(worths: Sequence[Worth]) -> tuple[str, State, list[str]]:
    best = best_worth(worths)
    e, (head, state) = best.equivalence, judge_mix(best)
    size = best.size or best.gold
    as_well = f"do as well as {e}"
    if e.below:
        as_well = f"score below {e.sizes[0]:,} gold rows alone, the fewest that were measured"
    about = f"{size:,} gold + {best.synthetic:,} synthetic notes {as_well}"
    if best.arm.startswith("synthetic"):
        about = f"{best.synthetic:,} synthetic notes alone, made with {size:,} gold, {as_well}"
    points = [f"This mix is {mix_in_words(best.arm)}, for the base model {best.base_model}."]
    if len(worths) > 1:
        points.append(f"It is the best of {len(worths)} mixes by their estimates, so its own is probably too high.")
    if best.gold < size:
        points.append(f"The {size:,} gold rows hold {best.gold:,} different texts, which the gold budget counts.")
    if e.low is None:
        points.append(f"{e.runs} runs of each mix are too few for an interval: the difference may be chance.")
    return f"{head}: {about}.", state, points


def _worth_tiles(worths: Sequence[Worth]) -> list[Tile]:
    if not worths:
        return []
    best = best_worth(worths)
    e, state = best.equivalence, judge_mix(best)[1]
    bound = "≥ " if e.beyond else "≤ " if e.below else ""
    about = f"gold notes alone score as {best.size or best.gold:,} gold + {best.synthetic:,} synthetic"
    return [Tile(f"{bound}{e.rows:,.0f}", about, e.interval(), "" if state == "unsure" else state)]


# --- by scores --------------------------------------------------------------------------------------------------------
def _score_verdict(results: Results) -> tuple[str, State, list[str]]:
    """Write the verdict where no mix has a gold equivalence: too few sizes of gold or seeds, or no mix at all."""
    groups, name, metric = grouped(results.main), naming(results.main), results.metric
    mixes = {g: rows for g, rows in groups.items() if g.strategy in MIXTURES}
    if not mixes:
        if lost := sum(f["strategy"] in MIXTURES for f in results.failed):
            return f"Nothing is known about synthetic notes: all {lost} runs with them failed.", "bad", []
        mean, low, high = over_seeds(groups[best := _best(groups, metric)], metric, results.gold_pool)
        limits = interval_text(low, high, len(groups[best]))
        what = f"{metric_name(metric)} {mean:.3f} ({limits}) by {sized_name(best.gold_size, name(groups[best][0]))}"
        return f"No mix with synthetic notes was planned; the best score is {what}.", "", []
    best = _best(mixes, metric)
    text = f"{sized_name(best.gold_size, name(mixes[best][0]))}: {_written(mixes[best], results)}"
    same = (rows for g, rows in groups.items() if g.strategy == "gold" and g[:2] == best[:2])  # base model and size
    gold = next(same, None)
    against = f"; gold alone: {_written(gold, results)}" if gold else ""
    points = ["Gold equivalence needs two sizes of gold alone (`--curve`) and two seeds of everything."]
    if len(mixes) > 1:
        points.append(f"It is the best of {len(mixes)} mixes, so its score is probably too high.")
    return f"{_UNCLEAR}. {text}{against}.", "unsure", points


def _weak_points(results: Results) -> list[str]:
    """Return what is wrong with the models of the best mix, means over their runs; [] for nothing."""
    every = grouped(results.main)
    groups = {g: rows for g, rows in every.items() if g.strategy in MIXTURES} or every
    rows = groups[_best(groups, results.metric)]
    if not rows[0].get("per_class") or not all(name in row for row in rows for name in ("accuracy", "macro_f1")):
        return []
    runs = [json.loads(row["per_class"]) for row in rows]
    found = {
        label: {"support": of["support"], "recall": max(run[label]["recall"] for run in runs)}
        for label, of in runs[0].items()
    }
    mean, low, high = over_seeds(rows, "macro_f1", results.gold_pool)
    limits = {} if low is None else {"macro_f1": (low, high)}
    values = {"accuracy": mean_of(rows, "accuracy"), "macro_f1": mean}
    confusion = json.loads(rows[0].get("confusion") or "[]")
    scores = {"values": values, "ci95": limits, "per_class": found, "confusion": confusion}
    text = weakness_text("A model of the best mix", scores)
    return [f"{text}."] if text else []


def _best(groups: dict[Group, list[Row]], metric: str) -> Group:
    return max(groups, key=lambda g: mean_of(groups[g], metric))


def _written(rows: Sequence[Row], results: Results) -> str:
    mean, low, high = over_seeds(rows, results.metric, results.gold_pool)
    return f"{metric_name(results.metric)} {mean:.3f} ({interval_text(low, high, len(rows))})"


def _score_tile(results: Results) -> Tile:
    groups, name = grouped(results.main), naming(results.main)
    best = _best(groups, results.metric)
    mean, low, high = over_seeds(groups[best], results.metric, results.gold_pool)
    limits = interval_text(low, high, len(groups[best]))
    what = sized_name(best.gold_size, name(groups[best][0]))
    return Tile(f"{mean:.3f}", f"best {metric_name(results.metric)}", f"{what}; {limits}")
