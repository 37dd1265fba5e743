"""Diagnostic sections of an experiment's report: classes, noise, calibration, policies, gates, subgroups, swaps."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_synth.correction.choice import PROMISED_LOSS
from hf_synth.evaluation.calibration import reliability_bins
from hf_synth.evaluation.demographics import UNKNOWN
from hf_synth.experiments.grid import AUTO, AUTO_MACRO_F1, MIXTURES
from hf_synth.experiments.groups import Group, Row, grouped, interval_text, mean_of, naming, short_name, with_interval
from hf_synth.experiments.names import labels_name, metric_name, sized_name
from hf_synth.reports.page import Section, Table, matrix_table
from hf_synth.reports.plots import Bin, bar_plot, matrix_plot, reliability_plot
from hf_synth.task.columns import REASONS
from hf_synth.task.task import Task

_MAX_CURVES = 3  # models in one reliability diagram
_MAX_LABELS = 12  # labels of a matrix that is drawn
_FLIPS = ("relabelled", "dropped")


# --- labels -----------------------------------------------------------------------------------------------------------
def class_section(task: Task, rows: Sequence[Row], mark: str) -> Section:
    """Show F1 of each label, the rarest in the test rows first, and confusion of gold alone and the best mixture."""
    support = {label: scores["support"] for label, scores in json.loads(rows[0]["per_class"]).items()}
    order = sorted(support, key=lambda label: support[label])
    name, groups = naming(rows), grouped(rows)
    lines, finders = [], Counter[str]()
    for group, cells in sorted(groups.items()):
        runs = [json.loads(r["per_class"]) for r in cells]
        f1 = (f"{np.mean([run[label]['f1'] for run in runs]):.3f}" for label in order)
        lines.append([name(cells[0]), f"{group.gold_size:,}", *f1])
        finders.update(label for label in order if any(run[label]["recall"] for run in runs))
    missed = [label for label in order if support[label] and finders[label] < len(groups)]
    plots, tables = [], []
    if missed:
        counts_of = [[label, support[label], f"{finders[label]} of {len(groups)}"] for label in missed]
        caption = "Labels that a training mix never finds, in no run and no test row"
        tables.append(Table(["label", "test rows", "found by training mixes"], counts_of, caption=caption))
    sizes = {g.gold_size for g in groups if g.strategy in MIXTURES} or {g.gold_size for g in groups if g.gold_size}
    size = min(sizes or {0})
    for strategies in (("gold",), MIXTURES):
        some = [g for g in groups if g.gold_size == size and g.strategy in strategies]
        if some and len(task.labels) <= _MAX_LABELS:
            best = groups[max(some, key=lambda g: mean_of(groups[g], "accuracy"))]
            counts = np.sum([json.loads(r["confusion"]) for r in best], axis=0).tolist()
            title = f"Confusion of {sized_name(size, name(best[0]))}"
            axes: dict[str, Any] = {"row_axis": "true label", "column_axis": "predicted, all seeds"}
            plots.append(matrix_plot(counts, task.labels, task.labels, title=title, simulated=mark, **axes))
            corner = "true label / predicted"
            tables.append(matrix_table(counts, task.labels, task.labels, corner=corner, caption=title))
    head = ["trained on", "gold", *(f"{label} ({support[label]} rows)" for label in order)]
    text = "Mean F1 of each label over seeds, the rarest first."
    counted = "1 label is" if len(missed) == 1 else f"{len(missed)} labels are"
    note = f"{counted} never found by at least one training mix. The table shows how many mixes do." if missed else ""
    return Section("Rare classes", text, plots=plots, tables=[Table(head, lines), *tables], note=note)


def noise_section(task: Task, rows: Sequence[Row], mark: str) -> Section | None:
    """Show the estimated noise of the labels before and after correction."""
    corrected = _corrections(rows)
    if not corrected or len(task.labels) > _MAX_LABELS:
        return None
    chosen = next(filter(None, ([r for r in corrected if r["labels"] == a] for a in (AUTO, AUTO_MACRO_F1))), [])
    before = [noise for r in chosen or corrected if (noise := json.loads(r["noise"]))]
    after = [json.loads(r["noise_after"]) for r in chosen if r["noise_after"] != "[]"]
    plots, tables = [], []
    for name, matrices in (("before", before), ("after", after)):
        if matrices:
            mean = np.mean(matrices, axis=0).tolist()
            title = f"Labels {name} correction, by true label (estimated)"
            axes: dict[str, Any] = {"row_axis": "true label (estimated)", "column_axis": "label"}
            plots.append(matrix_plot(mean, task.labels, task.labels, title=title, simulated=mark, **axes))
            corner = "true label (estimated) / label"
            tables.append(matrix_table(mean, task.labels, task.labels, corner=corner, caption=title))
    note = "These are estimates: they assume that corrector and generator err independently given the true label."
    if after:
        note += (
            " After correction the true label is estimated by the policy itself: that matrix shows how certain it is, "
            "not how often it is right."
        )
    title = "Noise before and after" if after else "Noise before correction"
    return Section(title, plots=plots, tables=tables, note=note) if plots else None


def _corrections(rows: Sequence[Row]) -> list[Row]:
    """Return one row for each correction that changed labels; cells share corrections."""
    return list({r["corrected_key"]: r for r in rows if r["corrected_key"] and r["policy"] != "none"}.values())


# --- calibration ------------------------------------------------------------------------------------------------------
def calibration_section(rows: Sequence[Row], metric: str, mark: str) -> Section | None:
    """Show the calibration of each kind of cell, before and after temperature scaling."""
    name, lines, bin_lines = naming(rows), [], []
    figures: dict[Group, list[Mapping[str, Any]]] = {}
    names = {}
    for group, cells in sorted(grouped(rows).items()):
        if runs := [run for run in (json.loads(r.get("calibration") or "{}") for r in cells) if run]:
            figures[group], names[group] = runs, sized_name(group.gold_size, name(cells[0]))
            scaled = [run["ece_tempered"] for run in runs if "ece_tempered" in run]
            means = [f"{np.mean([run['temperature'] for run in runs]):.2f}"]
            means += [f"{np.mean(values):.3f}" if values else "" for values in ([run["ece"] for run in runs], scaled)]
            lines.append([name(cells[0]), f"{group.gold_size:,}", *means])
    if not figures:
        return None
    drawn, plots = _drawn_groups(rows, figures, metric), []
    for which, title in (("bins", "Calibration on the test rows"), ("bins_tempered", "After temperature scaling")):
        curves = {names[group]: _pooled([run[which] for run in figures[group] if which in run]) for group in drawn}
        bin_lines += [[title, label, b.confidence, b.accuracy, b.n] for label, bins in curves.items() for b in bins]
        if any(curves.values()):
            plots.append(reliability_plot(curves, title=title, width=460, simulated=mark))
    text = (
        "Means over seeds. Each temperature is fitted on the test rows of other patients than those it is scored on. "
        "Intervals in the pictures are for the rows of one run, since all runs are scored on the same rows."
    )
    columns = (("rows", ".0f"), ("confidence", ".3f"), ("accuracy", ".3f"), ("ece", ".3f"))
    by_label = [
        [names[group], label, *(f"{np.mean([run[c] for run in runs]):{form}}" for c, form in columns)]
        for group in drawn
        for label, runs in _by_label(figures[group]).items()
    ]
    tables = [
        Table(["trained on", "gold", "temperature", "ECE", "ECE after scaling"], lines),
        Table(["trained on", "predicted label", "rows per run", "mean probability", "accuracy", "ECE"], by_label),
        Table(["picture", "trained on", "mean probability", "accuracy", "rows per run"], bin_lines),
    ]
    return Section("Calibration", text, plots=plots, tables=tables)


def _by_label(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, float]]]:
    """Return the figures of each predicted label, one for each run that predicted it."""
    by_label: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for run in runs:
        for label, figures in run.get("by_label", {}).items():
            by_label[label].append(figures)
    return by_label


def _drawn_groups(rows: Sequence[Row], figures: Mapping[Group, Any], metric: str) -> list[Group]:
    """Choose gold alone, the best raw and the best corrected mixture, at the smallest size with a mixture."""
    groups = {g: cells for g, cells in grouped(rows).items() if g in figures}
    sizes = [g.gold_size for g in groups if g.strategy in MIXTURES] or [g.gold_size for g in groups]
    kinds: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if group.gold_size == min(sizes) and group.strategy in ("gold", *MIXTURES):
            kinds["gold" if group.strategy == "gold" else "raw" if group.labels == "raw" else "corrected"].append(group)
    best = [max(some, key=lambda g: mean_of(groups[g], metric)) for some in kinds.values()]
    return sorted(best, key=lambda g: (g.strategy != "gold", g.labels != "raw"))[:_MAX_CURVES]


def _pooled(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[Bin]:
    """Pool the bins of runs on the same test rows; a bin counts the mean number of rows of a run."""
    edges: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for bins in runs:
        for one in bins:
            edges[round(float(one["low"]), 6)].append(one)
    pooled = []
    for _, same in sorted(edges.items()):
        n = np.array([one["rows"] for one in same], float)
        weighted = {k: float(np.average([one[k] for one in same], weights=n)) for k in ("confidence", "accuracy")}
        pooled.append({**weighted, "rows": max(1, round(float(n.sum()) / len(runs)))})
    return reliability_bins(pooled)


# --- correction and generation ----------------------------------------------------------------------------------------
def policy_section(rows: Sequence[Row]) -> Section | None:
    """Show which policies corrected labels, what they changed, and their accuracy figures."""
    corrected = [r for r in rows if r["corrected_key"]]
    if not corrected:
        return None
    name = naming(corrected)
    by_arm: dict[tuple[int, str], dict[str, Row]] = defaultdict(dict)
    for row in corrected:
        by_arm[row["gold_size"], name({**row, "arm": labels_name(row["labels"])})][row["corrected_key"]] = row
    lines, warnings = [], Counter[str]()
    columns = {
        "corrector_accuracy_on_held_out_gold": "corrector accuracy on held-out gold",
        "generator_accuracy_estimated": "generator accuracy, estimated",
        "generator_accuracy_audited": "generator accuracy, audited",
        "corrector_ece_on_held_out_gold": "corrector ECE",
        "corrector_ece_after_temperature": "corrector ECE after scaling",
    }
    for (size, labels), by_key in sorted(by_arm.items()):
        cells = list(by_key.values())
        policies = Counter(r["policy"] for r in cells)
        # without correction no corrector was trained, and figures from it mean nothing
        figures = [json.loads(r["policy_figures"]) for r in cells if r["policy"] != "none"]
        warnings.update(w for r in cells for w in json.loads(r["policy_warnings"]))
        counts = (f"{mean_of(cells, f'n_{s}'):,.0f}" for s in ("kept", "relabelled", "dropped"))
        policy = ", ".join(f"{m} {n}" if len(policies) > 1 else m for m, n in policies.most_common())
        lines.append([labels, f"{size:,}", policy, *counts, *(_mean_figure(figures, column) for column in columns)])
    head = ["labels by", "gold", "policy (runs)", "kept", "relabelled", "dropped", *columns.values()]
    text = "Means over runs. Only audited figures compare labels with those of a person."
    listed = "\n".join(f"- {w} ({n} runs)" for w, n in warnings.most_common(5))
    tables = [Table(head, lines), *_promise_table(by_arm)]
    return Section("What correction did", f"{text}\n\n{listed}" if listed else text, tables=tables)


def _promise_table(by_arm: Mapping[tuple[int, str], Mapping[str, Row]]) -> list[Table]:
    """Show what `auto` promised, in which metric; nothing where no arm is chosen by it."""
    lines: list[list[object]] = []
    for (size, labels), by_key in sorted(by_arm.items()):
        policies = [json.loads(r["policy_figures"]) for r in by_key.values()]
        measured = [f["auto_measured"] for f in policies if "auto_measured" in f]
        if not measured:
            continue
        metric = next((f["auto_metric"] for f in policies if "auto_metric" in f), "accuracy")
        losses = [f[name] for f in policies for name in PROMISED_LOSS.values() if name in f]
        points = f"{100 * np.mean(losses):.1f}" if losses else ""
        lines.append([labels, f"{size:,}", metric_name(metric), points, len(losses), len(measured) - len(losses)])
    caption = "What auto promised, with probability 90% for each run: the score is not further below gold only than X"
    head = ["labels by", "gold", "metric", "X in points, mean", "runs", "runs without a promise"]
    return [Table(head, lines, caption=caption)] if lines else []


def _mean_figure(figures: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [f[name] for f in figures if f.get(name) is not None]
    return f"{np.mean(values):.3f}" if values else ""


def gate_section(rows: Sequence[Row], mark: str) -> Section | None:
    """Show how many of the generators' answers each gate rejected."""
    pools = {r["pool_key"]: r for r in rows if r["pool_key"]}
    if not pools:
        return None
    by_name: dict[str, Counter[str]] = defaultdict(Counter)
    for row in pools.values():
        by_name[row["generator"]].update(json.loads(row["gates"]))
    reasons = ["good", *sorted({reason for counts in by_name.values() for reason in counts} - {"good"})]
    titles = {r: "good rows" if r == "good" else REASONS.get(r, r) for r in reasons}
    parts = {title: [counts[r] for counts in by_name.values()] for r, title in titles.items()}
    title, axis = "Answers of the generators by gate", "rows of all generations"
    plot = bar_plot(list(by_name), parts, title=title, axis=axis, simulated=mark)
    lines = [[name, *(f"{counts[r]:,}" for r in reasons)] for name, counts in by_name.items()]
    text = "Rows of all generations, and the reasons for which answers were rejected."
    return Section("Rejected answers", text, plots=[plot], tables=[Table(["generator", *titles.values()], lines)])


# --- subgroups of patients --------------------------------------------------------------------------------------------
def subgroup_section(rows: Sequence[Row], metric: str) -> Section | None:
    """Show scores by subgroup of gold alone and of each mixture, at the sizes of the mixtures."""
    name, groups = naming(rows), grouped(rows)
    sizes = {g.gold_size for g in groups if g.strategy in MIXTURES}
    lines = []
    for group, cells in sorted(groups.items()):
        if sizes and group.gold_size not in {0, *sizes}:
            continue
        by_subgroup: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for row in cells:
            for one in json.loads(row.get("subgroups", "[]")):
                by_subgroup[one["attribute"], one["name"]].append(one)
        for (attribute, subgroup), runs in sorted(by_subgroup.items()):
            gaps = [run["behind"][metric][0] for run in runs if metric in run["behind"]]
            values = [run["values"][metric] for run in runs if metric in run["values"]]
            if len(by_subgroup) > 1 and values and subgroup != UNKNOWN:
                means = [f"{np.mean(values):.3f}", f"{np.mean(gaps):+.3f}" if gaps else "too few rows"]
                sizes_of = [runs[0]["n"], runs[0]["patients"]]
                lines.append([name(cells[0]), f"{group.gold_size:,}", attribute, subgroup, *sizes_of, *means])
    if not lines:
        return None
    head = [
        "trained on",
        "gold",
        "attribute",
        "subgroup",
        "test rows",
        "patients",
        metric_name(metric),
        "minus all others",
    ]
    text = "Means over seeds. Sex, age and race are read from columns of that name, else from the words of the notes."
    return Section("Subgroups", text, tables=[Table(head, lines)])


def flip_section(rows: Sequence[Row]) -> Section | None:
    """Show how often correction changed or dropped labels, by subgroup."""
    by_subgroup: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in _corrections(rows):
        for one in json.loads(row.get("flips", "[]")):
            if one["name"] != UNKNOWN:
                by_subgroup[labels_name(row["labels"]), one["attribute"], one["name"]].append(one)
    lines = [
        [*names, sum(run["n"] for run in runs), *(f"{np.mean([run['values'][w] for run in runs]):.3f}" for w in _FLIPS)]
        for names, runs in sorted(by_subgroup.items())
    ]
    if not lines:
        return None
    head = ["labels by", "attribute", "subgroup", "synthetic rows", *_FLIPS]
    text = "Shares of synthetic rows whose label correction changed or dropped, means over runs."
    return Section("Changed labels by subgroup", text, tables=[Table(head, lines)])


def swap_section(rows: Sequence[Row]) -> Section | None:
    """Show how often predictions change when only the patient's sex, age or race words are swapped."""
    name, lines = naming(rows), []
    for group, cells in sorted(grouped(rows).items()):
        by_attribute: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in cells:
            for one in json.loads(row.get("swaps") or "[]"):
                if one["name"] == "all":
                    by_attribute[one["attribute"]].append(one)
        for attribute, runs in sorted(by_attribute.items()):
            mean, low, high = with_interval([run["values"]["flipped"] for run in runs])
            moved = [run["values"]["moved"] for run in runs if "moved" in run["values"]]
            cell = [name(cells[0]), f"{group.gold_size:,}", short_name(group.base_model)]
            change = f"{np.mean(moved):.3f}" if moved else ""
            limits = interval_text(low, high, len(runs))
            lines.append([*cell, attribute, f"{runs[0]['n']:,}", f"{mean:.3f}", limits, change])
    if not lines:
        return None
    head = ["trained on", "gold", "base model", "swapped", "test notes", "share of changed predictions"]
    head += ["95% CI over seeds", "mean change of probability"]
    text = (
        "Test notes that name the patient's sex, age or race, with only these words swapped. The true labels do not "
        "depend on them: each changed prediction is an error before or after the swap. Other words of a note may "
        "contradict the swap."
    )
    return Section("Swapped sex, age and race", text, tables=[Table(head, lines)])
