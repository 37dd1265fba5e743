"""Parts of the report of an experiment: what it cost, how far its models can be believed, what the gates kept out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_synth.experiments.costs import CostBenefit
from hf_synth.experiments.grid import MIXTURES
from hf_synth.experiments.results import GROUP, Row, Worth, short_name
from hf_synth.reports.page import Section, Table
from hf_synth.reports.plots import Bin, Interval, bar_plot, interval_plot, reliability_bins, reliability_plot
from hf_synth.task.task import REASONS

_MOST_STATES = 3  # models in one reliability picture

# --- how cells are grouped and named ----------------------------------------------------------------------------------


def grouped(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Put cells that differ in their seed alone together."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in GROUP)].append(row)
    return dict(found)


def naming(rows: Sequence[Row], *, ratio: bool = True) -> Callable[[Row], str]:
    """Give what names a row's mixture: its arm, and what else differs among the mixtures."""
    told = [n for n in ("ratio", "generator", "corrector") if n != "ratio" or ratio]
    differ = [n for n in told if len({r[n] for r in rows if r[n]}) > 1]

    def name(row: Row) -> str:
        more = [f"ratio {row[n]:g}" if n == "ratio" else f"{n} {short_name(row[n])}" for n in differ if row[n]]
        return ", ".join([row["arm"], *more])

    return name


def mean_of(rows: Sequence[Row], column: str) -> float:
    """Give the mean of a column."""
    return float(np.mean([row[column] for row in rows]))


def with_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Give the mean and its 95% interval by Student's t; none for a single value."""
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, None, None
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / float(np.sqrt(n))
    return mean, max(0.0, mean - half), min(1.0, mean + half)  # the scores compared lie between 0 and 1


# --- cost -------------------------------------------------------------------------------------------------------------


def cost_section(worths: Sequence[Worth], mark: str) -> Section | None:
    """Show the labelling that each mixture saves, and what it took."""
    if not worths:
        return None
    lines, shown, on_gpus = [], [], any(w.costs.spent.gpu_hours for w in worths)
    for w in worths:
        c = w.costs
        least, said = (">= ", ", at least") if c.at_least else ("<= ", ", at most") if c.at_most else ("", "")
        dollars = "not known" if c.spent_usd is None else f"{c.spent_usd:,.2f}"
        lines.append([
            w.arm, f"{least}{c.notes:,.0f} ({c.notes_ci95[0]:,.0f} to {c.notes_ci95[1]:,.0f})",
            f"{c.minutes / 60:,.1f}", f"{c.saved_usd:,.0f}", f"{c.spent.calls:,}",
            f"{c.spent.prompt_tokens:,} + {c.spent.completion_tokens:,}", f"{c.spent.cpu_hours:,.3f}",
            *([f"{c.spent.gpu_hours:,.3f}"] if on_gpus else []), dollars,
        ])  # fmt: skip
        shown.append(Interval(w.arm + said, c.notes, *c.notes_ci95))
    head = ["mixture", "notes saved (95% CI)", "hours saved", "$ saved", "calls", "tokens read + written",
            "CPU hours", *(["GPU hours"] if on_gpus else []), "$ spent"]  # fmt: skip
    names, spent = [w.arm for w in worths], [w.costs.spent for w in worths]
    tokens = {"read": [s.prompt_tokens for s in spent], "written": [s.completion_tokens for s in spent]}
    minutes = {"of cores": [60 * s.cpu_hours for s in spent], "of GPUs": [60 * s.gpu_hours for s in spent]}
    plots = [
        interval_plot(shown, title="Notes that need no labelling", axis="gold notes, 95% CI; below 0 a loss",
                      digits=0, simulated=mark),
        bar_plot(names, tokens, title="Tokens of the generator", axis="tokens a run", simulated=mark),
        bar_plot(names, minutes, title="Computing of correction and training", axis="minutes a run", digits=2,
                 simulated=mark),
    ]  # fmt: skip
    return Section("Cost against labelling", _cost_text(worths[0].costs), plots=plots, tables=[Table(head, lines)])


def _cost_text(costs: CostBenefit) -> str:
    rates = costs.rates
    whose = "as given" if rates.given else "assumptions of ours, not measured: give your own"
    return (
        f"A note takes {rates.minutes_per_note:g} minutes to label at ${rates.hourly_usd:g} an hour; an hour of a core "
        f"costs ${rates.compute_usd:g}, of a GPU ${rates.gpu_usd:g} ({whose}). Labelling saved is the equivalence less "
        "the gold budget; below 0 the mixture is worth less than its gold alone."
    )


# --- calibration ------------------------------------------------------------------------------------------------------


def calibration_section(rows: Sequence[Row], metric: str, mark: str) -> Section | None:
    """Show how far the probabilities of each kind of cell can be believed, as they are and tempered on other rows."""
    name, lines, beneath = naming(rows), [], []
    found = {
        group: told
        for group, cells in sorted(grouped(rows).items())
        if (told := [f for f in (json.loads(r.get("calibration") or "{}") for r in cells) if f])
    }
    if not found:
        return None
    firsts = {group: cells[0] for group, cells in grouped(rows).items()}
    for group, told in found.items():
        after = [f["ece_tempered"] for f in told if "ece_tempered" in f]
        lines.append([
            name(firsts[group]), f"{group[1]:,}", f"{np.mean([f['temperature'] for f in told]):.2f}",
            f"{np.mean([f['ece'] for f in told]):.3f}", f"{np.mean(after):.3f}" if after else "",
        ])  # fmt: skip
    shown = _shown(rows, found, metric)
    plots = []
    for which, title in (("bins", "Calibration on the test rows"), ("bins_tempered", "The same, tempered")):
        states = {}
        for group in shown:
            bins = _pooled([f[which] for f in found[group] if which in f])
            states[f"{group[1]:,} gold: {name(firsts[group])}"] = bins
            beneath += [[title, f"{group[1]:,} gold: {name(firsts[group])}", b.confidence, b.accuracy, b.n]
                        for b in bins]  # fmt: skip
        if any(states.values()):
            plots.append(reliability_plot(states, title=title, width=460, simulated=mark))
    text = (
        "Means over seeds. A temperature is found on the test rows of other patients than those it is judged on. "
        "Intervals in the pictures are for one run's rows, since all runs are scored on the same ones."
    )
    by_label = [
        [f"{group[1]:,} gold: {name(firsts[group])}", label, *(f"{np.mean([of[k] for of in ofs]):{form}}" for k, form in
          (("rows", ".0f"), ("confidence", ".3f"), ("accuracy", ".3f"), ("ece", ".3f")))]
        for group in shown for label, ofs in _by_label(found[group]).items()
    ]  # fmt: skip
    tables = [
        Table(["trained on", "gold", "temperature", "ECE", "ECE after it"], lines),
        Table(["trained on", "label said", "rows a run", "mean probability", "share right", "ECE"], by_label),
        Table(["picture", "trained on", "mean probability", "share right", "rows a run"], beneath),
    ]
    return Section("Calibration", text, plots=plots, tables=tables)


def _by_label(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, float]]]:
    """Give what runs tell of each label; a run that never said a label tells nothing of it."""
    found: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for run in runs:
        for label, of in run.get("by_label", {}).items():
            found[label].append(of)
    return found


def _shown(rows: Sequence[Row], found: Mapping[tuple[Any, ...], Any], metric: str) -> list[tuple[Any, ...]]:
    """Choose what is drawn: of the smallest size with a mixture gold alone, the best raw and the best corrected one."""
    groups = {g: cells for g, cells in grouped(rows).items() if g in found}
    size = min((g[1] for g in groups if g[2] in MIXTURES), default=min(g[1] for g in groups))
    kinds: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for group in groups:
        if group[1] == size and group[2] in ("gold", *MIXTURES):
            kinds[group[2] if group[2] == "gold" else "raw" if group[3] == "raw" else "corrected"].append(group)
    best = [max(some, key=lambda g: mean_of(groups[g], metric)) for some in kinds.values()]
    return sorted(best, key=lambda g: (g[2] != "gold", g[3] != "raw"))[:_MOST_STATES]


def _pooled(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[Bin]:
    """Join the bins of runs on the same test rows; a bin counts the rows of one run in the mean."""
    edges: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for bins in runs:
        for one in bins:
            edges[round(float(one["low"]), 6)].append(one)
    joined = []
    for _, same in sorted(edges.items()):
        n = np.array([one["rows"] for one in same], float)
        weighted = {k: float(np.average([one[k] for one in same], weights=n)) for k in ("confidence", "accuracy")}
        joined.append({**weighted, "rows": max(1, round(float(n.sum()) / len(runs)))})
    return reliability_bins(joined)


# --- gates ------------------------------------------------------------------------------------------------------------


def gate_section(rows: Sequence[Row], mark: str) -> Section | None:
    """Show what became of the generators' answers."""
    pools = {r["pool_key"]: r for r in rows if r["pool_key"]}
    if not pools:
        return None
    by_name: dict[str, Counter[str]] = defaultdict(Counter)
    for row in pools.values():
        by_name[row["generator"]].update(json.loads(row["gates"]))
    reasons = sorted({reason for found in by_name.values() for reason in found} - {"good"})
    lines = [[name, f"{found['good']:,}", *(f"{found[r]:,}" for r in reasons)] for name, found in by_name.items()]
    told = {r: REASONS.get(r, r) for r in ("good", *reasons)} | {"good": "good rows"}
    plot = bar_plot(list(by_name), {told[r]: [found[r] for found in by_name.values()] for r in told},
                    title="What became of the generators' answers", axis="rows of all generations",
                    simulated=mark)  # fmt: skip
    text = "Rows of all generations, and why answers were left out."
    return Section("Gates", text, plots=[plot], tables=[Table(["generator", *told.values()], lines)])
