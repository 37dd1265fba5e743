"""Report of an experiment: a verdict, scores by training mix and gold equivalence; curves and costs are folded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hf_synth.experiments import diagnostics
from hf_synth.experiments.equivalence import MIN_RUNS, CostBenefit
from hf_synth.experiments.grid import MIXTURES
from hf_synth.experiments.groups import (
    MIN_SEEDS,
    Group,
    Row,
    grouped,
    interval_text,
    mean_of,
    naming,
    over_seeds,
    short_name,
    too_few,
)
from hf_synth.experiments.names import metric_name, mix_name, sized_name
from hf_synth.experiments.results import Results, Worth
from hf_synth.experiments.study_verdict import REPAIR, study_lead, worth_in_words
from hf_synth.models.base_models import TOY_NOTE
from hf_synth.reports.page import Section, Table, lead_markdown, markdown_table, write_report
from hf_synth.reports.plots import Interval, Reference, Series, bar_plot, curve_plot, interval_plot
from hf_synth.task.task import Task

SIMULATED = "artificial notes or a simulated LLM: no clinical benefit is shown"
_CORRECTED = "corrected for the gold that seeds share, with the chance of the test rows"
_NAN = float("nan")
_MAX_CURVES = 8  # curves in one picture
_MAX_INTERVALS = 30  # intervals in one picture


def write_study_report(task: Task, results: Results, *, repair: tuple[str, str] = REPAIR) -> Path:
    """Write report.html and report.md into the folder of an experiment; return the path of the page.

    Args:
        repair: how to repair failed runs, and the command.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = results.main
    facts: list[tuple[str, object]] = [
        ("task", task.full_name),
        ("runs", f"{len(rows)} done, {len(results.failed)} failed"),
        ("scored on", f"{rows[0]['n_test']:,} rows of split {rows[0]['split']}"),
        ("compared by", metric_name(results.metric)),
        ("base models", ", ".join(sorted({short_name(r["base_model"]) for r in rows if r["base_model"]}))),
        ("generators", ", ".join(_generators(results)) or "none"),
        ("hf_synth", rows[0]["hf_synth"]),
    ]
    if any(Path(r["base_model"]).name.startswith("tiny-") for r in rows):
        facts.append(("base model tiny", TOY_NOTE))
    title, mark = f"Experiment on {task.full_name}", SIMULATED if results.simulated else ""
    lead, sections = study_lead(results, repair=repair), report_sections(task, results)
    return write_report(results.out, title, sections, simulated=mark, facts=facts, lead=lead)


def _generators(results: Results) -> list[str]:
    """Name the generators of the rows, and the sources of which no run came to an end."""
    names = {r["generated_by"] or r["generator"] for r in results.main if r["generator"]}
    used = {r["generator"] for r in results.main}
    lost = {f["generator"] for f in results.failed if f.get("generator")} - used
    return [*sorted(names), *(f"{name} (all of its runs failed)" for name in sorted(lost))]


def study_summary(task: Task, results: Results, *, repair: tuple[str, str] = REPAIR) -> str:
    """Return the verdict and the table of scores as Markdown, for a terminal."""
    table = arm_section(results.main, results.metric, "", results.gold_pool).tables[0]
    note = f"Simulated: {SIMULATED}." if results.simulated else ""
    lines = markdown_table(table.header, table.cells(), align=table.alignment())
    return "\n\n".join(filter(None, [lead_markdown(study_lead(results, repair=repair)), note, lines]))


def report_sections(task: Task, results: Results) -> list[Section]:
    """Return the sections of the report for which there are figures; the first ones are open on the page."""
    rows, metric, mark = results.main, results.metric, SIMULATED if results.simulated else ""
    single = task.kind == "single_label"
    first = (arm_section(rows, metric, mark, results.gold_pool), worth_section(results.worths))
    folded = (
        failed_section(results.failed),
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
    shown = [section for section in first if section is not None]
    return shown + [replace(section, folded=True) for section in folded if section is not None]


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
    lines, laws = [], [w.equivalence.power_law for w in worths]
    many, fitted = len({w.base_model for w in worths}) > 1, any(law is not None for law in laws)
    for w, law in zip(worths, laws, strict=True):
        words = [worth_in_words(w), *([w.base_model] if many else []), f"{w.synthetic:,}", str(w.equivalence)]
        lines.append([*words, *(["" if law is None else f"{law:,.0f}"] if fitted else []), w.equivalence.runs])
    head = ["training mix", *(["base model"] if many else []), "synthetic notes", "does as well as"]
    head += [*(["by a power law"] if fitted else []), "runs"]
    return Section("Gold equivalence", text, tables=[Table(head, lines)])


def arm_section(rows: Sequence[Row], metric: str, mark: str, pool: int | None = None) -> Section:
    """Show the score of every training mix, the best first within a base model and size; `pool` as in `Results`."""
    groups, name = grouped(rows), naming(rows)
    lines, intervals = [], []
    many = len({g.base_model for g in groups}) > 1
    for group in sorted(groups, key=lambda g: (g.base_model, g.gold_size, -mean_of(groups[g], metric))):
        cells, size, base = groups[group], f"{group.gold_size:,}", short_name(group.base_model)
        mean, low, high = over_seeds(cells, metric, pool)
        ece = [r["ece"] for r in cells if r.get("ece") is not None]
        scores = [len(cells), mean, interval_text(low, high, len(cells)), f"{np.mean(ece):.3f}" if ece else ""]
        counts = [f"{mean_of(cells, column):,.0f}" for column in ("gold_budget", "n_train")]
        lines.append([name(cells[0]), size, *([base] if many else []), *scores, *counts])
        label = sized_name(group.gold_size, name(cells[0])) + (f" ({base})" if many else "")
        ends = (_NAN, _NAN) if low is None or high is None else (low, high)
        intervals.append(Interval(label, mean, *ends))
    few = max(len(cells) for cells in groups.values())
    axis = f"{metric_name(metric)}, mean over seeds ({too_few(few) or '95% CI'})"
    plot = interval_plot(intervals[:_MAX_INTERVALS], title="Score by training mix", axis=axis, simulated=mark)
    head = ["trained on", "gold", *(["base model"] if many else []), "seeds", metric_name(metric)]
    head += ["95% CI over seeds", "ECE"]
    head += ["gold budget", "rows trained on"]
    text = (
        "Each line is one training mix, the mean of its runs (seeds). The gold "
        "budget counts every human label that a run used, in whatever stage; rows of the same text count once. "
        f"Intervals by Student's t, {_CORRECTED}; none with fewer than {MIN_SEEDS} seeds, and none where every seed "
        "has all the gold there is."
    )
    return Section("Score by training mix", text, plots=[plot], tables=[Table(head, lines)])


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
        label = sized_name(best.gold_size, name(mixtures[best][0]))
        lines.append(Reference(label, mean_of(mixtures[best], metric)))
    series = [Series(f"gold alone, {short_name(base)}", points, emphasis=True) for base, points in curves.items()]
    title, x_axis = "Learning curve of gold alone, and the best mixture", "gold rows (log scale)"
    y_axis = metric_name(metric)
    plot = curve_plot(series, title=title, x_axis=x_axis, y_axis=y_axis, log_x=True, lines=lines, simulated=mark)
    rows_of = [
        [short_name(base), f"{size:,.0f}", mean, interval_text(ends[0], ends[1]) if ends else "no interval"]
        for base, points in curves.items()
        for size, mean, *ends in points
    ]
    table = Table(["base model", "gold rows", metric_name(metric), "95% CI over seeds"], rows_of)
    return Section("Learning curve", plots=[plot], note=_same_gold_note(groups), tables=[table])


def _point(x: float, cells: Sequence[Row], metric: str, pool: int | None) -> tuple[float, ...]:
    mean, low, high = over_seeds(cells, metric, pool)
    return (x, mean) if low is None or high is None else (x, mean, low, high)


def _same_gold_note(groups: Mapping[Group, Sequence[Row]]) -> str:
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
        if gold[base, size] and mixture.startswith("gold"):
            by_ratio[0.0] = gold[base, size]
    series = [
        Series(sized_name(size, mixture), [_point(r, cells, metric, pool) for r, cells in sorted(by_ratio.items())])
        for (_, size, mixture), by_ratio in list(values.items())[:_MAX_CURVES]
    ]
    title, x_axis = "Score by number of synthetic rows", "synthetic rows for each gold row"
    plot = curve_plot(series, title=title, x_axis=x_axis, y_axis=metric_name(metric), simulated=mark)
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
        lines.append([c.kind, _comparison_name(c.what), c.where, c.seeds, f"{c.difference:+.3f}", interval, p])
    head = ["question", "what", "where", "seeds", "difference", "95% CI", "p (Holm)"]
    text = (
        f"Paired over seeds, on the same test rows; intervals by Student's t, {_CORRECTED}; p by Holm over "
        f"{len(lines)} comparisons. "
        "Baseline degradation: raw rows minus gold alone of the same size. Correction gain: corrected minus raw rows."
    )
    return Section("Differences", text, tables=[Table(head, lines)])


def _comparison_name(what: str) -> str:
    """Write the two sides of a comparison by the names of their training mixes."""
    arm, colon, rest = what.partition(": ")
    if colon:  # generators or correctors of one mix
        return f"{mix_name(arm)}: {rest.replace(' - ', ' minus ')}"
    return " minus ".join(mix_name(side) for side in what.split(" - "))


def failed_section(failed: Sequence[Row]) -> Section | None:
    """List the failed runs with their errors."""
    if not failed:
        return None
    head = ["strategy", "labels", "gold", "seed", "error", "message"]
    lines = [[f[c] for c in ("strategy", "labels", "gold_size", "seed", "error", "message")] for f in failed]
    return Section("Runs that failed", "The same command tries these runs again.", tables=[Table(head, lines)])


def cost_section(worths: Sequence[Worth], mark: str) -> Section | None:
    """Show the labelling that each mixture saves, and its costs."""
    if not worths:
        return None
    lines, intervals, on_gpus = [], [], any(w.costs.spent.gpu_hours for w in worths)
    for w in worths:
        c = w.costs
        ends = c.notes_ci95
        sign, bound = ("≥ ", ", at least") if c.at_least else ("≤ ", ", at most") if c.at_most else ("", "")
        lines.append(
            [
                worth_in_words(w),
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
        intervals.append(Interval(worth_in_words(w) + bound, c.notes, *(ends or (_NAN, _NAN))))
    head = ["training mix", "notes saved (95% CI)", "hours saved", "$ saved", "calls", "tokens of prompts + answers"]
    head += ["CPU hours", *(["GPU hours"] if on_gpus else []), "$ spent"]
    names, spent = [worth_in_words(w) for w in worths], [w.costs.spent for w in worths]
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
