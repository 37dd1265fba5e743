"""The report of an experiment: what it found, as sections of text, pictures and tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.experiments.diagnostics import (
    _class_section,
    _flip_section,
    _noise_section,
    _policy_section,
    _subgroup_section,
    _swap_section,
    calibration_section,
    gate_section,
)
from hf_synth.experiments.equivalence import CostBenefit
from hf_synth.experiments.grid import MIXTURES
from hf_synth.experiments.results import Results, Row, Worth, grouped, mean_of, naming, short_name, with_interval
from hf_synth.reports.page import Section, Table, write_report
from hf_synth.reports.plots import Interval, Reference, Series, bar_plot, curve_plot, interval_plot
from hf_synth.task.task import Task

SIMULATED = "artificial notes or a simulated LLM: no clinical benefit is shown"
_MOST_LINES = 8  # curves or mixtures in one picture
_FEW_RUNS = 5


def write_study_report(task: Task, made: Results) -> Path:
    """Write report.html and report.md into the folder of an experiment; give the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = made.main
    facts: list[tuple[str, object]] = [
        ("task", task.full_name), ("cells", len(rows)), ("cells failed", len(made.failed)),
        ("scored on", f"{rows[0]['n_test']:,} rows of split {rows[0]['split']}"), ("compared by", made.metric),
        ("base models", ", ".join(sorted({short_name(r["base_model"]) for r in rows if r["base_model"]}))),
        ("generators", ", ".join(sorted({r["generated_by"] for r in rows if r["generated_by"]})) or "none"),
        ("hf_synth", rows[0]["hf_synth"]),
    ]  # fmt: skip
    title = f"Experiment on {task.full_name}"
    mark = SIMULATED if made.simulated else ""
    return write_report(made.out, title, report_sections(task, made), simulated=mark, facts=facts)


def report_sections(task: Task, made: Results) -> list[Section]:
    """Give every part of the report that the experiment has figures for."""
    rows, mark = made.main, SIMULATED if made.simulated else ""
    metric = made.metric
    parts = [_worth_section(made), _arm_section(rows, metric, mark), _curve_section(made, mark),
             _ratio_section(rows, metric, mark), _difference_section(made),
             cost_section(made.worths, mark)]  # fmt: skip
    if task.kind == "single_label":
        parts += [_class_section(task, rows, mark), calibration_section(rows, metric, mark),
                  _noise_section(task, rows, mark)]  # fmt: skip
    parts += [
        _subgroup_section(rows, metric),
        _flip_section(rows),
        _policy_section(rows),
        gate_section(rows, mark),
        _failed_section(made),
        _swap_section(rows),
    ]
    return [part for part in parts if part is not None]


def _worth_section(made: Results) -> Section | None:
    if not made.worths:
        return None
    one = made.worths[0].found
    drawn = "patients of the test rows and runs (gold subset, generation, training)" if one.patients else "runs alone"
    few = f" {one.runs} runs are few: such intervals are too short." if one.runs < _FEW_RUNS else ""
    text = (
        "How many gold rows alone score as much: read off the monotone curve of gold alone, for the base model named "
        f"and no other. Intervals: a hierarchical bootstrap over {drawn}.{few}"
    )
    lines = [[w.arm, w.found.sentence(w.gold, w.synthetic, w.base_model, simulated=w.simulated),
              "" if w.found.power_law is None else f"{w.found.power_law:,.0f}", w.found.runs]
             for w in made.worths]  # fmt: skip
    return Section("Gold equivalence", text, tables=[Table(["mixture", "worth", "by a power law", "runs"], lines)])


def _arm_section(rows: Sequence[Row], metric: str, mark: str) -> Section:
    """Show all kinds of cells, best first within a base model and size."""
    groups, name = grouped(rows), naming(rows)
    order = sorted(groups, key=lambda g: (g[0], g[1], -mean_of(groups[g], metric)))
    lines, shown = [], []
    many = len({g[0] for g in groups}) > 1
    for group in order:
        cells = groups[group]
        mean, low, high = with_interval([r[metric] for r in cells])
        ece = [r["ece"] for r in cells if r.get("ece") is not None]
        between = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        lines.append([f"{name(cells[0])}", f"{group[1]:,}", *([short_name(group[0])] if many else []), len(cells), mean,
                      between, f"{np.mean(ece):.3f}" if ece else "", f"{mean_of(cells, 'gold_budget'):,.0f}",
                      f"{mean_of(cells, 'n_train'):,.0f}"])  # fmt: skip
        told = f"{group[1]:,} gold: {name(cells[0])}" + (f" ({short_name(group[0])})" if many else "")
        shown.append(Interval(told, mean, *((low, high) if low is not None and high is not None else (mean, mean)),
                              group[2] == "gold"))  # fmt: skip
    plot = interval_plot(shown[:30], title="What was trained on, by score", axis=f"{metric}, mean over seeds (95% CI, "
                         "Student's t)", simulated=mark)  # fmt: skip
    head = ["trained on", "gold", *(["base model"] if many else []), "seeds", metric, "95% CI over seeds", "ECE",
            "gold budget", "rows trained on"]  # fmt: skip
    text = "The gold budget counts every label that a person gave and that the cell touched, by whatever stage."
    return Section("Order of the arms", text, plots=[plot], tables=[Table(head, lines)])


def _curve_section(made: Results, mark: str) -> Section | None:
    groups, metric = grouped(made.main), made.metric
    curves: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for group, cells in sorted(groups.items()):
        if group[2] == "gold":
            mean, low, high = with_interval([r[metric] for r in cells])
            curves[group[0]].append((group[1], mean) if low is None or high is None else (group[1], mean, low, high))
    if max(map(len, curves.values()), default=0) < 2:
        return None
    name, lines = naming(made.main), []
    mixtures = {g: c for g, c in groups.items() if g[2] in MIXTURES}
    for group in sorted(mixtures, key=lambda g: -mean_of(mixtures[g], metric))[:1]:
        told = f"{group[1]:,} gold: {name(mixtures[group][0])}"
        lines.append(Reference(told, mean_of(mixtures[group], metric)))
    plot = curve_plot(
        [Series(f"gold alone, {short_name(base)}", points, emphasis=True) for base, points in curves.items()],
        title="Learning curve of gold alone, and what the best mixture reaches", x_axis="gold rows (log scale)",
        y_axis=metric, log_x=True, lines=lines, simulated=mark,
    )  # fmt: skip
    rows = [[short_name(base), f"{p[0]:,.0f}", p[1], f"{p[2]:.3f} to {p[3]:.3f}" if len(p) > 2 else ""]
            for base, points in curves.items() for p in points]  # fmt: skip
    return Section("Learning curve", plots=[plot], note=_one_gold(groups),
                   tables=[Table(["base model", "gold rows", metric, "95% CI over seeds"], rows)])  # fmt: skip


def _one_gold(groups: Mapping[tuple[Any, ...], Sequence[Row]]) -> str:
    """Say at which sizes all runs have the same gold, so that their interval is not one over draws of gold."""
    same = sorted(
        {g[1] for g, cells in groups.items() if g[2] == "gold" and len(cells) > cells[0]["gold_distinct"] == 1}
    )
    if not same:
        return ""
    return (
        f"At {' and '.join(f'{n:,}' for n in same)} gold rows, which is all there is, every run has one and the same "
        "gold: its interval tells how trainings vary, not how another sample of patients would score. Draws of large "
        "sizes overlap, too."
    )


def _ratio_section(rows: Sequence[Row], metric: str, mark: str) -> Section | None:
    """Show mean scores by ratio; ratio 0 is gold alone."""
    named = naming(rows, ratio=False)
    values: dict[tuple[Any, ...], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["strategy"] in MIXTURES:
            values[short_name(row["base_model"]), row["gold_size"], named(row)][row["ratio"]].append(row[metric])
    ratios = sorted({r for by in values.values() for r in by})
    if len(ratios) < 2:
        return None
    for base, size, name in list(values):
        alone = [r[metric] for r in rows if (short_name(r["base_model"]), r["gold_size"]) == (base, size)
                 and r["strategy"] == "gold"]  # fmt: skip
        if alone and not name.startswith("synthetic"):
            values[base, size, name][0.0] = alone
    ratios = sorted({0.0, *ratios})
    series = []
    for (_base, size, name), by in list(values.items())[:_MOST_LINES]:
        points = []
        for r, found in sorted(by.items()):
            mean, low, high = with_interval(found)
            points.append((r, mean) if low is None or high is None else (r, mean, low, high))
        series.append(Series(f"{size:,} gold: {name}", points))
    plot = curve_plot(series, title="Score by number of synthetic rows", x_axis="synthetic rows for each gold row",
                      y_axis=metric, simulated=mark)  # fmt: skip
    lines = [[base, f"{size:,}", name, *(f"{np.mean(by[r]):.3f}" if by.get(r) else "" for r in ratios)]
             for (base, size, name), by in values.items()]  # fmt: skip
    head = ["base model", "gold", "trained on", *(f"{r:g}" for r in ratios)]
    return Section("Ratio curve", "Each ratio is corrected by itself.", plots=[plot], tables=[Table(head, lines)])


def _difference_section(made: Results) -> Section | None:
    if not made.comparisons:
        return None
    lines = [[c.kind, c.what, c.where, c.seeds, f"{c.difference:+.3f}",
              f"{c.ci95[0]:+.3f} to {c.ci95[1]:+.3f}" if c.ci95 else "one seed" if c.seeds == 1 else "no spread",
              "" if c.p_holm is None else f"{c.p_holm:.3f}"] for c in made.comparisons]  # fmt: skip
    head = ["question", "what", "where", "seeds", "difference", "95% CI", "p (Holm)"]
    text = (
        f"Paired over seeds, on the same test rows; intervals by Student's t; p by Holm over {len(lines)} comparisons. "
        "They tell how runs vary, not how other patients would. "
        "Baseline degradation asks how raw rows compare with gold alone of the same size, correction gain how "
        "corrected rows compare with raw ones."
    )
    return Section("Differences", text, tables=[Table(head, lines)])


def _failed_section(made: Results) -> Section | None:
    if not made.failed:
        return None
    lines = [[f["strategy"], f["labels"], f["gold_size"], f["seed"], f["error"], f["message"]] for f in made.failed]
    head = ["strategy", "labels", "gold", "seed", "error", "what"]
    return Section("Failed", "The same command tries them again.", tables=[Table(head, lines)])


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
