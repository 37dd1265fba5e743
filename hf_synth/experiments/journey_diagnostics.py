"""Sections of the report of one run for a second look: predictions, calibration, rejected answers, cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hf_synth.evaluation.calibration import reliability_bins
from hf_synth.evaluation.recall import never_found_text
from hf_synth.experiments.names import arm_name
from hf_synth.experiments.verdict import headline
from hf_synth.reports.page import Section, Table
from hf_synth.reports.plots import (
    bar_plot,
    matrix_plot,
    reliability_plot,
)
from hf_synth.task.columns import REASONS, USAGE_COLUMNS

if TYPE_CHECKING:
    pass

from hf_synth.experiments.journey_sections import Journey


# --- predictions ------------------------------------------------------------------------------------------------------
def _compared(journey: Journey) -> list[str]:
    """Return the models that are drawn: gold alone and the mixture that the run is about."""
    name, alone = headline(journey.scores)
    return [name] if alone is None else [alone, name]


def confusion_section(journey: Journey) -> Section:
    """Show F1 of each label of every model, and the confusion of the models that are drawn."""
    names, plots, counts = list(journey.task.labels), [], []
    for name, s in journey.scores.items():
        if s.confusion:
            labels = journey.plot_labels(f"Confusion of {arm_name(name)}, test rows")
            axes: dict[str, Any] = {"row_axis": "true label", "column_axis": "predicted label"}
            if name in _compared(journey):
                plots.append(matrix_plot(s.confusion, names, names, **axes, **labels))
            counts += [[f"{arm_name(name)}: {label}", *row] for label, row in zip(names, s.confusion, strict=True)]
    tables = [Table(["model: true label", *names], counts, "Test rows by predicted label")] if counts else []
    by_class = {arm_name(name): s.per_class for name, s in journey.scores.items() if s.per_class}
    if by_class:
        rows: list[list[Any]] = [[name, *(scores[label]["f1"] for label in names)] for name, scores in by_class.items()]
        header = ["trained on", *names]
        if len(by_class) <= len(names):  # the longer list is shown as rows
            support = [int(next(iter(by_class.values()))[label]["support"]) for label in names]
            columns = zip(names, support, *(row[1:] for row in rows), strict=True)
            rows, header = [list(row) for row in columns], ["label", "test rows", *by_class]
        tables.insert(0, Table(header, rows, "F1 of each label"))
    missed = [f"{arm_name(name)}: {never_found_text(s)}" for name, s in journey.scores.items() if s.never_found]
    note = f"Some labels are never found. {'. '.join(missed)}." if missed else ""
    return Section("Every model by label", "", plots, tables, note)


def calibration_section(journey: Journey) -> Section:
    """Show the calibration of each model, before and after temperature scaling."""
    plots, rows, by_label, bin_rows = [], [], [], []
    for name, s in journey.scores.items():
        facts = s.calibration
        if not facts:
            continue
        states = {f"unscaled, ECE {facts['ece']:.3f}": facts["bins"]}
        if "bins_tempered" in facts:
            states[f"scaled, ECE {facts['ece_tempered']:.3f}"] = facts["bins_tempered"]
        drawn, shown = name in _compared(journey), arm_name(name)
        if drawn:
            curves = {state: reliability_bins(bins) for state, bins in states.items()}
            plots.append(reliability_plot(curves, width=420, **journey.plot_labels(f"Calibration of {shown}")))
        rows.append([shown, facts["temperature"], facts["ece"], facts.get("ece_tempered")])
        for label, of in facts.get("by_label", {}).items():
            by_label.append([shown, label, int(of["rows"]), of["confidence"], of["accuracy"], of["ece"]])
        for state, bins in states.items() if drawn else ():
            place = f"{shown}, {state.split(',')[0]}"
            bin_rows += [[place, b["confidence"], b["accuracy"], int(b["rows"])] for b in bins]
    if not rows:
        return Section("")
    head = ["model", "temperature", "ECE", "ECE after scaling"]
    label_head = ["model", "predicted label", "rows", "mean probability", "accuracy", "ECE"]
    bin_head = ["model", "mean probability", "accuracy", "rows"]
    tables = [
        Table(head, rows, "Calibration on the test rows, in folds by group"),
        Table(label_head, by_label, "Calibration by predicted label"),
        Table(bin_head, bin_rows, "Test rows by probability of the predicted label"),
    ]
    text = (
        "Whether a probability of 0.8 is right in 8 of 10 rows. ECE is the mean gap between the two; temperature "
        "scaling divides all logits of a model by one number."
    )
    return Section("Calibration", text, plots, tables)


# --- generation -------------------------------------------------------------------------------------------------------
def gate_section(journey: Journey) -> Section:
    """Show why answers were rejected."""
    rows = journey.corrected
    rejected = (r for s, r in zip(rows["label_status"], rows["reason"], strict=True) if s == "rejected")
    reasons = Counter(REASONS.get(reason, str(reason)) for reason in rejected).most_common()
    if not reasons:
        return Section("")
    counts = {"rejected": [n for _, n in reasons]}
    plot = bar_plot(
        [name for name, _ in reasons], counts, axis="answers or rows", **journey.plot_labels("Rejected answers")
    )
    return Section("Rejected answers", "", [plot], [Table(["reason", "rows"], reasons, "Rejected")])


def cost_section(journey: Journey) -> Section:
    """Show tokens, dollars and time."""
    rows, seconds = journey.corrected, journey.seconds
    used = [sum(v for v in rows[c][:] if v) if c in rows.column_names else 0 for c in USAGE_COLUMNS]
    times = {"seconds": list(seconds.values())}
    stages = [arm_name(stage) for stage in seconds]
    plots = [bar_plot(stages, times, axis="seconds of wall time", digits=1, **journey.plot_labels("Time by stage"))]
    if used[0] or used[1]:
        labels = journey.plot_labels("Tokens of the synthetic rows")
        plots.insert(
            0, bar_plot(["prompts", "answers"], {"tokens": used[:2]}, axis="tokens of the generator", **labels)
        )
    good = sum(s in ("kept", "relabelled") for s in rows["label_status"][:])
    names = ("tokens of prompts", "tokens of answers", "US dollars", "rows used")
    lines = list(zip(stages, seconds.values(), strict=True))
    sums = zip(names, (*used[:2], float(used[2]), good), strict=True)
    tables = [
        Table(["what", "sum"], list(sums), "Generation", digits=2),
        Table(["stage", "seconds"], lines, "Wall time on this machine", digits=1),
    ]
    return Section("Cost", "", plots, tables)
