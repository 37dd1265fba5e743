"""The report of an experiment: what it found, as sections of text, pictures and tables."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.evaluation.demographics import UNKNOWN
from hf_synth.experiments.diagnostics import (
    calibration_section,
    cost_section,
    gate_section,
    grouped,
    mean_of,
    naming,
    with_interval,
)
from hf_synth.experiments.grid import MIXTURES
from hf_synth.experiments.results import Results, Row, short_name
from hf_synth.reports.axes import Reference
from hf_synth.reports.page import Section, Table, matrix_table, write_report
from hf_synth.reports.plots import Interval, Series, curve_plot, interval_plot, matrix_plot
from hf_synth.task.task import Task

SIMULATED = "artificial notes or a simulated LLM: no clinical benefit is shown"
_MOST_LINES = 8  # curves or mixtures in one picture
_FEW_RUNS = 5
_FLIPS = ("relabelled", "dropped")


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


def _class_section(task: Task, rows: Sequence[Row], mark: str) -> Section:
    """Show F1 of each label, from rare to frequent in the test rows, and who is taken for whom by gold and the best."""
    support = {label: told["support"] for label, told in json.loads(rows[0]["per_class"]).items()}
    order = sorted(support, key=lambda label: support[label])
    named, groups = naming(rows), grouped(rows)
    lines = []
    for group, cells in sorted(groups.items()):
        told = [json.loads(r["per_class"]) for r in cells]
        lines.append([named(cells[0]), f"{group[1]:,}", *(f"{np.mean([t[x]['f1'] for t in told]):.3f}" for x in order)])
    plots, tables = [], []
    sizes = {g[1] for g in groups if g[2] in MIXTURES}
    size = min(sizes or {g[1] for g in groups if g[1]} or {0})
    at = [g for g in groups if g[1] == size]
    for wanted in ("gold", "mixture"):
        some = [g for g in at if g[2] in (("gold",) if wanted == "gold" else MIXTURES)]
        if some and len(task.labels) <= 12:
            best = max(some, key=lambda g: mean_of(groups[g], "accuracy"))
            counts = np.sum([json.loads(r["confusion"]) for r in groups[best]], axis=0)
            title = f"Confusion: {size:,} gold, {named(groups[best][0])}"
            plots.append(matrix_plot(counts.tolist(), task.labels, task.labels, title=title, row_axis="true label",
                                     column_axis="predicted, all seeds", simulated=mark))  # fmt: skip
            tables.append(matrix_table(counts.tolist(), task.labels, task.labels, corner="true label / predicted",
                                       caption=title))  # fmt: skip
    head = ["trained on", "gold", *(f"{x} ({support[x]} rows)" for x in order)]
    return Section("Rare classes", "Mean F1 of each label over seeds, the rarest first.", plots=plots,
                   tables=[Table(head, lines), *tables])  # fmt: skip


def _noise_section(task: Task, rows: Sequence[Row], mark: str) -> Section | None:
    """Show the generator's confusion as the policies estimate it, and where correction moved labels."""
    kept = {r["corrected_key"]: r for r in rows if r["corrected_key"] and r["policy"] != "none"}
    if not kept or len(task.labels) > 12:
        return None
    noise = [json.loads(r["noise"]) for r in kept.values() if r["labels"] == "auto"] or [
        json.loads(r["noise"]) for r in kept.values()
    ]
    noise = [n for n in noise if n]
    after = [json.loads(r["noise_after"]) for r in kept.values() if r["labels"] == "auto" and r["noise_after"] != "[]"]
    plots, tables = [], []
    for name, found in (("before", noise), ("after", after)):
        if found:
            mean = np.mean(found, axis=0)
            title = f"Labels {name} correction, by what is held for true (estimated)"
            plots.append(matrix_plot(mean.tolist(), task.labels, task.labels, title=title, row_axis="held for true",
                                     column_axis="label", simulated=mark))  # fmt: skip
            tables.append(matrix_table(mean.tolist(), task.labels, task.labels, corner="held for true / label",
                                       caption=title))  # fmt: skip
    note = (
        "Estimates: they assume that corrector and generator err independently given the truth. After correction the "
        "truth is taken from the policy's own belief, so that this matrix says how sure it is, not how right."
    )
    return Section("Noise before and after", plots=plots, tables=tables, note=note) if plots else None


def _subgroup_section(rows: Sequence[Row], metric: str) -> Section | None:
    """Show scores by subgroup of gold alone and of each mixture, at the size of the mixtures."""
    named, groups = naming(rows), grouped(rows)
    sizes = {g[1] for g in groups if g[2] in MIXTURES}
    lines = []
    for group, cells in sorted(groups.items()):
        if sizes and group[1] not in {0, *sizes}:
            continue
        found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for row in cells:
            for one in json.loads(row.get("subgroups", "[]")):
                found[one["attribute"], one["name"]].append(one)
        for (attribute, name), ones in sorted(found.items()):
            behind = [one["behind"][metric][0] for one in ones if metric in one["behind"]]
            values = [one["values"][metric] for one in ones if metric in one["values"]]
            if len(found) > 1 and values and name != UNKNOWN:
                gap = f"{np.mean(behind):+.3f}" if behind else "too few"
                lines.append([named(cells[0]), f"{group[1]:,}", attribute, name, ones[0]["n"], ones[0]["patients"],
                              f"{np.mean(values):.3f}", gap])  # fmt: skip
    if not lines:
        return None
    head = ["trained on", "gold", "attribute", "subgroup", "test rows", "patients", metric, "less all others"]
    text = "Means over seeds. Sex, age and race are read from columns of that name, else from the notes' own words."
    return Section("Subgroups", text, tables=[Table(head, lines)])


def _flip_section(rows: Sequence[Row]) -> Section | None:
    """Show of whose notes correction changed or dropped the label."""
    kept = {r["corrected_key"]: r for r in rows if r["corrected_key"] and r["policy"] != "none"}
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in kept.values():
        for one in json.loads(row.get("flips", "[]")):
            if one["name"] != UNKNOWN:
                found[row["labels"], one["attribute"], one["name"]].append(one)
    lines = [
        [*names, sum(one["n"] for one in ones), *(f"{np.mean([one['values'][w] for one in ones]):.3f}" for w in _FLIPS)]
        for names, ones in sorted(found.items())
    ]
    if not lines:
        return None
    head = ["labels by", "attribute", "subgroup", "synthetic rows", *_FLIPS]
    text = "Shares of synthetic rows, means over runs."
    return Section("Whose labels were changed", text, tables=[Table(head, lines)])


def _policy_section(rows: Sequence[Row]) -> Section | None:
    corrected = [r for r in rows if r["corrected_key"]]
    if not corrected:
        return None
    named = naming(corrected)
    by_arm: dict[tuple[int, str], dict[str, Row]] = defaultdict(dict)
    for row in corrected:
        by_arm[row["gold_size"], named({**row, "arm": row["labels"]})][row["corrected_key"]] = row
    lines, warnings = [], Counter[str]()
    for (size, labels), by_key in sorted(by_arm.items()):
        cells = list(by_key.values())
        chosen = Counter(r["policy"] for r in cells)
        # where nothing was corrected no opinion was asked for, and estimates from it mean nothing
        figures = [json.loads(r["policy_figures"]) for r in cells if r["policy"] != "none"]
        warnings.update(w for r in cells for w in json.loads(r["policy_warnings"]))
        counts = (f"{mean_of(cells, f'n_{s}'):,.0f}" for s in ("kept", "relabelled", "dropped"))
        told = ", ".join(f"{m} {n}" if len(chosen) > 1 else m for m, n in chosen.most_common())
        names = ("corrector_accuracy_on_held_out_gold", "generator_accuracy_estimated", "generator_accuracy_audited",
                 "corrector_ece_on_held_out_gold", "corrector_ece_after_temperature")  # fmt: skip
        lines.append([labels, f"{size:,}", told, *counts, *(_figure(figures, n) for n in names)])
    head = ["labels by", "gold", "policy (runs)", "kept", "relabelled", "dropped", "corrector right on held-out gold",
            "generator right, estimated", "generator right, audited", "its ECE", "after temperature"]  # fmt: skip
    said = "\n".join(f"- {w} ({n} runs)" for w, n in warnings.most_common(5))
    text = "Means over runs. Which labels are right is only known where a person has checked rows (audited)."
    return Section("What correction did", f"{text}\n\n{said}" if said else text, tables=[Table(head, lines)])


def _figure(figures: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [f[name] for f in figures if f.get(name) is not None]
    return f"{np.mean(values):.3f}" if values else ""


def _failed_section(made: Results) -> Section | None:
    if not made.failed:
        return None
    lines = [[f["strategy"], f["labels"], f["gold_size"], f["seed"], f["error"], f["message"]] for f in made.failed]
    head = ["strategy", "labels", "gold", "seed", "error", "what"]
    return Section("Failed", "The same command tries them again.", tables=[Table(head, lines)])


def _swap_section(rows: Sequence[Row]) -> Section | None:
    """Show how often predictions change when only the patient is another."""
    named, lines = naming(rows), []
    for group, cells in sorted(grouped(rows).items()):
        found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in cells:
            for one in json.loads(row.get("swaps") or "[]"):
                if one["name"] == "all":
                    found[one["attribute"]].append(one)
        for attribute, ones in sorted(found.items()):
            mean, low, high = with_interval([one["values"]["flipped"] for one in ones])
            between = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            moved = [one["values"]["moved"] for one in ones if "moved" in one["values"]]
            lines.append([named(cells[0]), f"{group[1]:,}", short_name(group[0]), attribute, f"{ones[0]['n']:,}",
                          f"{mean:.3f}", between, f"{np.mean(moved):.3f}" if moved else ""])  # fmt: skip
    if not lines:
        return None
    head = ["trained on", "gold", "base model", "swapped", "test notes", "predictions that flip", "95% CI over seeds",
            "probability moves by"]  # fmt: skip
    text = (
        "Test notes that name the patient's sex, age or race, with only these words swapped. The labels do not depend "
        "on them, so that each flip is one too many; what is said in other words stays and may contradict the swap."
    )
    return Section("The same note of another patient", text, tables=[Table(head, lines)])
