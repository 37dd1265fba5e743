"""Report of an experiment: report.html and report.md with gold equivalence, scores, learning curves and costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hf_synth.experiments import diagnostics
from hf_synth.experiments.equivalence import MIN_RUNS, CostBenefit
from hf_synth.experiments.grid import MIXTURES
from hf_synth.experiments.results import (
    Group,
    Results,
    Row,
    Worth,
    grouped,
    interval_text,
    mean_of,
    naming,
    over_seeds,
    short_name,
)
from hf_synth.models.base_models import TOY_NOTE
from hf_synth.reports.page import Section, Table, write_report
from hf_synth.reports.plots import Interval, Reference, Series, bar_plot, curve_plot, interval_plot
from hf_synth.task.task import Task

SIMULATED = "artificial notes or a simulated LLM: no clinical benefit is shown"
_CORRECTED = "corrected for the gold that seeds share, with the chance of the test rows"
_MAX_CURVES = 8  # curves in one picture
_MAX_INTERVALS = 30  # intervals in one picture


def write_study_report(task: Task, results: Results) -> Path:
    """Write report.html and report.md into the folder of an experiment; return the path of the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = results.main
    facts: list[tuple[str, object]] = [
        ("task", task.full_name),
        ("cells", len(rows)),
        ("cells failed", len(results.failed)),
        ("scored on", f"{rows[0]['n_test']:,} rows of split {rows[0]['split']}"),
        ("compared by", results.metric),
        ("base models", ", ".join(sorted({short_name(r["base_model"]) for r in rows if r["base_model"]}))),
        ("generators", ", ".join(sorted({r["generated_by"] for r in rows if r["generated_by"]})) or "none"),
        ("hf_synth", rows[0]["hf_synth"]),
    ]
    if any(Path(r["base_model"]).name.startswith("tiny-") for r in rows):
        facts.append(("base model tiny", TOY_NOTE))
    title, mark = f"Experiment on {task.full_name}", SIMULATED if results.simulated else ""
    return write_report(results.out, title, report_sections(task, results), simulated=mark, facts=facts)


def report_sections(task: Task, results: Results) -> list[Section]:
    """Return the sections of the report for which there are figures."""
    rows, metric, mark = results.main, results.metric, SIMULATED if results.simulated else ""
    single = task.kind == "single_label"
    sections = (
        failed_section(results.failed),
        worth_section(results.worths),
        arm_section(rows, metric, mark, results.gold_pool),
        curve_section(rows, metric, mark, results.gold_pool),
        ratio_section(rows, metric, mark, results.gold_pool),
        difference_section(results),
        cost_section(results.worths, mark),
        diagnostics.class_section(task, rows, mark) if single else None,
        diagnostics.calibration_section(rows, metric, mark) if single else None,
        diagnostics.noise_section(task, rows, mark) if single else None,
        diagnostics.subgroup_section(rows, metric),
        diagnostics.flip_section(rows),
        diagnostics.policy_section(rows),
        diagnostics.gate_section(rows, mark),
        diagnostics.swap_section(rows),
    )
    return [section for section in sections if section is not None]


def worth_section(worths: Sequence[Worth]) -> Section | None:
    """Show the gold equivalence of each mixture."""
    if not worths:
        return None
    first = worths[0].equivalence
    drawn = "patients of the test rows and runs (gold subset, generation, training)" if first.patients else "runs alone"
    few = f" There is an interval from {MIN_RUNS} runs on." if first.runs < MIN_RUNS else ""
    text = (
        "The number of gold rows alone with the same score, read off the isotonic curve of gold alone of the same base "
        f"model. Intervals: a hierarchical bootstrap over {drawn}, for gold drawn from the same pool.{few}"
    )
    lines = []
    for w in worths:
        sentence = w.equivalence.sentence(w.gold, w.synthetic, w.base_model, simulated=w.simulated)
        power_law = "" if w.equivalence.power_law is None else f"{w.equivalence.power_law:,.0f}"
        lines.append([w.arm, sentence, power_law, w.equivalence.runs])
    return Section("Gold equivalence", text, tables=[Table(["mixture", "worth", "by a power law", "runs"], lines)])


def arm_section(rows: Sequence[Row], metric: str, mark: str, pool: int | None = None) -> Section:
    """Show the score of every kind of cell, the best first within a base model and size; `pool` as in `Results`."""
    groups, name = grouped(rows), naming(rows)
    lines, intervals = [], []
    many = len({g.base_model for g in groups}) > 1
    for group in sorted(groups, key=lambda g: (g.base_model, g.gold_size, -mean_of(groups[g], metric))):
        cells, size, base = groups[group], f"{group.gold_size:,}", short_name(group.base_model)
        mean, low, high = over_seeds(cells, metric, pool)
        ece = [r["ece"] for r in cells if r.get("ece") is not None]
        scores = [len(cells), mean, interval_text(low, high), f"{np.mean(ece):.3f}" if ece else ""]
        counts = [f"{mean_of(cells, column):,.0f}" for column in ("gold_budget", "n_train")]
        lines.append([name(cells[0]), size, *([base] if many else []), *scores, *counts])
        label = f"{size} gold: {name(cells[0])}" + (f" ({base})" if many else "")
        ends = (mean, mean) if low is None or high is None else (low, high)
        intervals.append(Interval(label, mean, *ends, group.strategy == "gold"))
    axis = f"{metric}, mean over seeds (95% CI)"
    plot = interval_plot(intervals[:_MAX_INTERVALS], title="Score by training data", axis=axis, simulated=mark)
    head = ["trained on", "gold", *(["base model"] if many else []), "seeds", metric, "95% CI over seeds", "ECE"]
    head += ["gold budget", "rows trained on"]
    text = (
        "The gold budget counts every human label that a cell used, in whatever stage. Intervals by Student's t, "
        f"{_CORRECTED}; none where every seed has all the gold there is."
    )
    return Section("Order of the arms", text, plots=[plot], tables=[Table(head, lines)])


def curve_section(rows: Sequence[Row], metric: str, mark: str, pool: int | None = None) -> Section | None:
    """Show the learning curve of gold alone, and the score of the best mixture; `pool` as in `Results`."""
    groups, name = grouped(rows), naming(rows)
    curves: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for group, cells in sorted(groups.items()):
        if group.strategy == "gold":
            curves[group.base_model].append(_point(group.gold_size, cells, metric, pool))
    if max(map(len, curves.values()), default=0) < 2:
        return None
    mixtures = {g: cells for g, cells in groups.items() if g.strategy in MIXTURES}
    lines = []
    if mixtures:
        best = max(mixtures, key=lambda g: mean_of(mixtures[g], metric))
        label = f"{best.gold_size:,} gold: {name(mixtures[best][0])}"
        lines.append(Reference(label, mean_of(mixtures[best], metric)))
    series = [Series(f"gold alone, {short_name(base)}", points, emphasis=True) for base, points in curves.items()]
    title, x_axis = "Learning curve of gold alone, and the best mixture", "gold rows (log scale)"
    plot = curve_plot(series, title=title, x_axis=x_axis, y_axis=metric, log_x=True, lines=lines, simulated=mark)
    rows_of = [
        [short_name(base), f"{size:,.0f}", mean, interval_text(*ends) if ends else ""]
        for base, points in curves.items()
        for size, mean, *ends in points
    ]
    table = Table(["base model", "gold rows", metric, "95% CI over seeds"], rows_of)
    return Section("Learning curve", plots=[plot], note=_one_gold(groups), tables=[table])


def _point(x: float, cells: Sequence[Row], metric: str, pool: int | None) -> tuple[float, ...]:
    mean, low, high = over_seeds(cells, metric, pool)
    return (x, mean) if low is None or high is None else (x, mean, low, high)


def _one_gold(groups: Mapping[Group, Sequence[Row]]) -> str:
    """Return a note on the sizes at which all runs have the same gold."""
    same = sorted(
        {
            g.gold_size
            for g, rows in groups.items()
            if g.strategy == "gold" and len(rows) > rows[0]["gold_distinct"] == 1
        }
    )
    if not same:
        return ""
    return (
        f"At {' and '.join(f'{n:,}' for n in same)} gold rows, which is all there is, every run has one and the same "
        "gold: their spread shows how trainings vary, not how the score varies with other samples of patients."
    )


def ratio_section(rows: Sequence[Row], metric: str, mark: str, pool: int | None = None) -> Section | None:
    """Show mean scores by ratio; ratio 0 is gold alone; `pool` as in `Results`."""
    name = naming(rows, ratio=False)
    values: dict[tuple[str, int, str], dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    gold: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        place = short_name(row["base_model"]), row["gold_size"]
        if row["strategy"] in MIXTURES:
            values[*place, name(row)][row["ratio"]].append(row)
        elif row["strategy"] == "gold":
            gold[place].append(row)
    ratios = sorted({r for by_ratio in values.values() for r in by_ratio})
    if len(ratios) < 2:
        return None
    for (base, size, mixture), by_ratio in values.items():
        if gold[base, size] and not mixture.startswith("synthetic"):
            by_ratio[0.0] = gold[base, size]
    series = [
        Series(f"{size:,} gold: {mixture}", [_point(r, cells, metric, pool) for r, cells in sorted(by_ratio.items())])
        for (_, size, mixture), by_ratio in list(values.items())[:_MAX_CURVES]
    ]
    title, x_axis = "Score by number of synthetic rows", "synthetic rows for each gold row"
    plot = curve_plot(series, title=title, x_axis=x_axis, y_axis=metric, simulated=mark)
    ratios = [0.0, *ratios]
    lines = [
        [
            base,
            f"{size:,}",
            mixture,
            *(f"{mean_of(by_ratio[r], metric):.3f}" if by_ratio.get(r) else "" for r in ratios),
        ]
        for (base, size, mixture), by_ratio in values.items()
    ]
    head = ["base model", "gold", "trained on", *(f"{r:g}" for r in ratios)]
    text = "Labels are corrected separately for each ratio."
    return Section("Ratio curve", text, plots=[plot], tables=[Table(head, lines)])


def difference_section(results: Results) -> Section | None:
    """Show the comparisons over seeds."""
    if not results.comparisons:
        return None
    lines = []
    for c in results.comparisons:
        interval = f"{c.ci95[0]:+.3f} to {c.ci95[1]:+.3f}" if c.ci95 else c.no_interval
        p = "" if c.p_holm is None else f"{c.p_holm:.3f}"
        lines.append([c.kind, c.what, c.where, c.seeds, f"{c.difference:+.3f}", interval, p])
    head = ["question", "what", "where", "seeds", "difference", "95% CI", "p (Holm)"]
    text = (
        f"Paired over seeds, on the same test rows; intervals by Student's t, {_CORRECTED}; p by Holm over "
        f"{len(lines)} comparisons. "
        "Baseline degradation: raw rows minus gold alone of the same size. Correction gain: corrected minus raw rows."
    )
    return Section("Differences", text, tables=[Table(head, lines)])


def failed_section(failed: Sequence[Row]) -> Section | None:
    """List the failed cells with their errors."""
    if not failed:
        return None
    head = ["strategy", "labels", "gold", "seed", "error", "message"]
    lines = [[f[c] for c in ("strategy", "labels", "gold_size", "seed", "error", "message")] for f in failed]
    return Section("Failed", "Run the same command to try these cells again.", tables=[Table(head, lines)])


def cost_section(worths: Sequence[Worth], mark: str) -> Section | None:
    """Show the labelling that each mixture saves, and its costs."""
    if not worths:
        return None
    lines, intervals, on_gpus = [], [], any(w.costs.spent.gpu_hours for w in worths)
    for w in worths:
        c = w.costs
        ends = c.notes_ci95
        sign, bound = (">= ", ", at least") if c.at_least else ("<= ", ", at most") if c.at_most else ("", "")
        lines.append(
            [
                w.arm,
                f"{sign}{c.notes:,.0f} ({f'{ends[0]:,.0f} to {ends[1]:,.0f}' if ends else 'no interval'})",
                f"{c.minutes / 60:,.1f}",
                f"{c.saved_usd:,.0f}",
                f"{c.spent.calls:,}",
                f"{c.spent.prompt_tokens:,} + {c.spent.completion_tokens:,}",
                f"{c.spent.cpu_hours:,.3f}",
                *([f"{c.spent.gpu_hours:,.3f}"] if on_gpus else []),
                "not known" if c.spent_usd is None else f"{c.spent_usd:,.2f}",
            ]
        )
        intervals.append(Interval(w.arm + bound, c.notes, *(ends or (c.notes, c.notes))))
    head = ["mixture", "notes saved (95% CI)", "hours saved", "$ saved", "calls", "tokens of prompts + answers"]
    head += ["CPU hours", *(["GPU hours"] if on_gpus else []), "$ spent"]
    names, spent = [w.arm for w in worths], [w.costs.spent for w in worths]
    tokens = {"prompts": [s.prompt_tokens for s in spent], "answers": [s.completion_tokens for s in spent]}
    minutes = {"of cores": [60 * s.cpu_hours for s in spent], "of GPUs": [60 * s.gpu_hours for s in spent]}
    notes, time = "gold notes, 95% CI; below 0 a loss", "Computing time of correction and training"
    plots = [
        interval_plot(intervals, title="Notes that need no labelling", axis=notes, digits=0, simulated=mark),
        bar_plot(names, tokens, title="Tokens of the generator", axis="tokens a run", simulated=mark),
        bar_plot(names, minutes, title=time, axis="minutes a run", digits=2, simulated=mark),
    ]
    return Section("Cost against labelling", _cost_text(worths[0].costs), plots=plots, tables=[Table(head, lines)])


def _cost_text(costs: CostBenefit) -> str:
    rates = costs.rates
    source = "as given" if rates.given else "assumptions: give your own rates"
    return (
        f"A note takes {rates.minutes_per_note:g} minutes to label at ${rates.hourly_usd:g} an hour; an hour of a core "
        f"costs ${rates.compute_usd:g}, of a GPU ${rates.gpu_usd:g} ({source}). Labelling saved is the equivalence "
        "minus the gold budget; below 0 the mixture is worth less than its gold alone."
    )
