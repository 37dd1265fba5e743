"""Report of one run: scores, gains, learning curve, labels, noise, confusion, calibration, gates and cost.

All figures are computed from columns and scores. Whether gold or generator are simulated is, too, and is written in
every picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from hf_synth.correction.description import Description, describe
from hf_synth.correction.policy import GENERATOR, Policy
from hf_synth.evaluation.calibration import reliability_bins
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.recall import never_found_text
from hf_synth.evaluation.statistics import holm
from hf_synth.generation.generation import simulated
from hf_synth.generation.likeness import likeness_line
from hf_synth.models.base_models import TOY_NOTE
from hf_synth.reports.page import Section, Table, matrix_table, write_report
from hf_synth.reports.plots import (
    Interval,
    Reference,
    Series,
    bar_plot,
    curve_plot,
    interval_plot,
    matrix_plot,
    reliability_plot,
)
from hf_synth.task.columns import REASONS, USAGE_COLUMNS, access_of
from hf_synth.task.folders import read_manifest
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_USUAL = ("macro_f1", "accuracy", "rougeL", "token_f1", "exact_match")
_ASSUMPTIONS = (
    "The noise of the generator's labels is estimated, not measured. The estimate assumes that corrector and generator "
    "err independently given the true label, and that the corrector errs on synthetic notes as on gold."
)


class PlotLabels(TypedDict):
    """Title, caption and mark of a picture."""

    title: str
    caption: str
    simulated: str


@dataclass(frozen=True)
class Journey:
    """Results of one run.

    Args:
        task: of the run.
        out: its folder, with synthetic/, corrected/, models/, scores.json, scores.md, scores.svg, report.html,
            report.md.
        corrected: the synthetic rows after correction.
        policy: how they were corrected, with its figures.
        scores: scores of each model by the name of its arm, e.g. "gold_200_plus_corrected".
        models: folders of the models by arm.
        seconds: wall time by stage.
        caption: text under each picture.
        approved: stages whose rows a person edited.
    """

    task: Task
    out: Path
    corrected: Dataset
    policy: Policy
    scores: Mapping[str, Scores]
    models: Mapping[str, Path]
    seconds: Mapping[str, float]
    caption: str = ""
    approved: Sequence[str] = ()

    @cached_property
    def simulated(self) -> str:
        """What is simulated, as text; "" for nothing."""
        return simulated(self.task, [str(name) for name in self.corrected.unique("generator") if name])

    def plot_labels(self, title: str) -> PlotLabels:
        """Return title, caption and mark of a picture."""
        return {"title": title, "caption": self.caption, "simulated": self.simulated}


def write_journey_report(journey: Journey, *, more: Sequence[Section] = ()) -> Path:
    """Write report.html and report.md of a run; return the path of the page.

    Args:
        more: further sections, e.g. a comparison with the true labels of a simulation.

    Raises:
        OutputError: the folder cannot be written.
    """
    scores = list(journey.scores.values())
    bases = sorted({Path(str(s.model["base_model"])).name for s in scores if s.model.get("base_model")})
    toy = any(s.model.get("toy") for s in scores)
    facts: list[tuple[str, Any]] = [
        ("task", journey.task.full_name),
        ("access", access_of(journey.corrected)),
        ("synthetic rows", len(journey.corrected)),
        ("correction", journey.policy.method),
        ("base model", (", ".join(bases) or "unknown") + (" (a tiny one, made on the spot)" if toy else "")),
        ("test rows", next((s.n for s in scores), 0)),
    ]
    manifest = read_manifest(journey.out / "synthetic") or {}
    line = likeness_line(manifest.get("likeness"))
    if line and "synthetic" not in journey.approved:  # figures of the rows before they were edited
        facts.append(("like gold (1 is as gold; in brackets gold's halves)", line))
    if journey.approved:
        facts.append(("edited and approved by hand", ", ".join(journey.approved)))
    sections = [*journey_sections(journey), *more]
    title = f"{journey.task.full_name}: results of a run"
    return write_report(journey.out, title, sections, simulated=journey.simulated, facts=facts)


def journey_sections(journey: Journey) -> list[Section]:
    """Return the sections of the report for which there are figures."""
    description = describe(journey.corrected, journey.policy)
    sections = (
        _score_section(journey),
        _gain_section(journey),
        _curve_section(journey),
        _label_section(journey, description),
        _noise_section(journey, description),
        _confusion_section(journey),
        _calibration_section(journey),
        _gate_section(journey),
        _cost_section(journey),
    )
    return [section for section in sections if section.plots or section.tables]


# --- scores -----------------------------------------------------------------------------------------------------------
def shown_metrics(task: Task, scores: Mapping[str, Scores]) -> list[str]:
    """Return the metrics to show: the computed ones of the task, its main one first, then the usual ones."""
    values = next(iter(scores.values())).values
    return [m for m in dict.fromkeys((*task.metrics, *_USUAL)) if m in values] or list(values)


def score_rows(task: Task, scores: Mapping[str, Scores]) -> tuple[list[str], list[list[str]]]:
    """Return the metrics to show, and the name and scores with 95% intervals of each model."""
    metrics = shown_metrics(task, scores)
    return metrics, [
        [name, *(f"{s.values[m]:.3f} ({s.ci95[m][0]:.3f}-{s.ci95[m][1]:.3f})" if m in s.ci95 else "-" for m in metrics)]
        for name, s in scores.items()
    ]


def score_plot(journey: Journey) -> str:
    """Draw the main score of each model with its interval."""
    main = shown_metrics(journey.task, journey.scores)[0]
    n = next(iter(journey.scores.values())).n
    return interval_plot(
        [
            Interval(name, s.values[main], *s.ci95.get(main, (s.values[main],) * 2), "corrected" in name)
            for name, s in journey.scores.items()
        ],
        axis=f"{main}, 95% interval over groups",
        **journey.plot_labels(f"{journey.task.full_name}: {main} on {n} test rows"),
    )


def _score_section(journey: Journey) -> Section:
    metrics, rows = score_rows(journey.task, journey.scores)
    counts = [sum(_rows_by_source(s).values()) for s in journey.scores.values()]
    rows_with_counts = [[name, n, *cells] for (name, *cells), n in zip(rows, counts, strict=True)]
    table = Table(["trained on", "rows", *metrics], rows_with_counts, "Scores with their 95% intervals")
    text = (
        "Every model is scored on the same test rows. Intervals are over groups of these rows. They do not cover the "
        "variation by seed, by draw of the gold or by generation."
    )
    without = {m: s.no_interval[m] for s in journey.scores.values() for m in metrics if m in s.no_interval}
    text += "".join(f" No interval of {m}: {why}." for m, why in without.items())
    seen = max((int(s.dataset.get("seen", 0)) for s in journey.scores.values()), default=0)
    notes = (
        [f"Up to {seen} test rows are in the training rows too; scores.json has the scores without them."]
        if seen
        else []
    )
    notes += [TOY_NOTE] if any(s.model.get("toy") for s in journey.scores.values()) else []
    return Section("Scores", text, [score_plot(journey)], [table], " ".join(notes))


def _rows_by_source(s: Scores) -> dict[str, int]:
    return {str(source): int(n) for source, n in dict(s.model.get("rows") or {}).items() if n}


def _gain_section(journey: Journey) -> Section:
    """Compare each model with the one of the same gold alone, on the same rows."""
    scores, main = journey.scores, shown_metrics(journey.task, journey.scores)[0]
    alone = next((a for a in scores if any(b.startswith(f"{a}_plus_") for b in scores)), None)
    if alone is None or not scores[alone].labels:
        return Section("")
    gains = {name: compare(scores[name], scores[alone], main) for name in scores if name != alone}
    p_values = holm([d.p_mcnemar for d in gains.values()])
    rows = [
        [name, f"{d.value:+.3f} ({f'{d.ci95[0]:+.3f} to {d.ci95[1]:+.3f}' if d.ci95 else d.no_interval})", float(p)]
        for (name, d), p in zip(gains.items(), p_values, strict=True)
    ]
    plot = interval_plot(
        [Interval(name, d.value, *(d.ci95 or (d.value, d.value)), "corrected" in name) for name, d in gains.items()],
        axis=f"difference of {main}, 95% paired interval over groups",
        **journey.plot_labels(f"{main} of each model minus that of {alone}"),
    )
    header = ["model", f"{main} minus that of {alone} (95% CI)", "p (McNemar, Holm)"]
    return Section(f"Gain over {alone}", "", [plot], [Table(header, rows, "Differences on the same test rows")])


def _curve_section(journey: Journey) -> Section:
    """Draw the learning curve of gold alone from three sizes on, and the other models beside it."""
    scores, main = journey.scores, shown_metrics(journey.task, journey.scores)[0]
    sizes = {name: _rows_by_source(s).get("gold", 0) for name, s in scores.items()}
    pure = [name for name, s in scores.items() if set(_rows_by_source(s)) == {"gold"}]
    if len(pure) < 3:
        return Section("")
    points = {name: (sizes[name], s.values[main], *s.ci95.get(main, ())) for name, s in scores.items()}
    series = [Series("gold alone", [points[name] for name in pure], emphasis=True)]
    series += [Series(name, [points[name]]) for name in scores if name not in pure and sizes[name]]
    lines = [Reference(name, s.values[main]) for name, s in scores.items() if not sizes[name]]
    labels = journey.plot_labels("Learning curve")
    plot = curve_plot(series, x_axis="gold rows", y_axis=main, log_x=True, lines=lines, **labels)
    rows = [(*points[name], "", "")[:4] for name in sorted(pure, key=lambda name: sizes[name])]
    return Section("Learning curve", "", [plot], [Table(["gold rows", main, "low", "high"], rows, "Gold alone")])


# --- labels -----------------------------------------------------------------------------------------------------------
def _label_section(journey: Journey, description: Description) -> Section:
    """Show how correction changed each label."""
    by_label, moved, names = description.labels, description.moved, list(description.labels)
    if not by_label:
        return Section("")
    parts = {part: [by_label[name][part] for name in names] for part in ("kept", "relabelled", "dropped")}
    axis = "rows, by the generator's label"
    plots = [bar_plot(names, parts, axis=axis, **journey.plot_labels("Synthetic rows after correction"))]
    columns = list(next(iter(by_label.values())))
    tables = [
        Table(["label", *columns], [[name, *row.values()] for name, row in by_label.items()], "Rows by label"),
        Table(["status and reason", "rows"], list(description.reasons.items()), "Rows by status and reason"),
    ]
    if moved:
        labels = journey.plot_labels("Labels before and after correction, rows used")
        plots.append(matrix_plot(moved, names, names, row_axis="label before", column_axis="label after", **labels))
        tables.insert(1, matrix_table(moved, names, names, corner="before / after", caption="Rows used"))
    note = " ".join(f"{w[:1].upper()}{w[1:]}." for w in description.warnings)
    return Section("Labels", f"{description.rows:,} rows, corrected by `{journey.policy.method}`.", plots, tables, note)


def _noise_section(journey: Journey, description: Description) -> Section:
    """Show the noise of the generator, the measured confusion of the corrector, and the policy's figures."""
    policy, names = journey.policy, list(journey.task.labels)
    counted = policy.method == "measured" and GENERATOR in policy.annotators
    how, true = ("as counted on gold", "true label") if counted else ("as estimated", "true label (estimated)")
    plots: list[str] = []
    tables: list[Table] = []
    for caption, row_axis, column_axis, matrix in (
        (f"Noise of the generator, {how}", true, "generator's label", policy.noise),
        ("Confusion of the corrector on held-out gold", "true label", "corrector's label", policy.confusion),
    ):
        if matrix:
            labels = journey.plot_labels(caption)
            plots.append(matrix_plot(matrix, names, names, row_axis=row_axis, column_axis=column_axis, **labels))
            corner = f"{row_axis} / {column_axis}"
            tables.append(matrix_table(matrix, names, names, corner=corner, caption=caption))
    every = description.policy.get("figures", {})
    figures = [[name.replace("_", " "), v] for name, v in every.items() if isinstance(v, int | float | str)]
    if not figures and not plots:
        return Section("")
    tables += [Table(["figure", "value"], figures, "Figures of the policy"), *_choice_tables(policy)]
    return Section("Generator and corrector", _ASSUMPTIONS if policy.noise and not counted else "", plots, tables)


def _choice_tables(policy: Policy) -> list[Table]:
    """Return a table of the methods that `auto` compared; none without such a choice."""
    behind = policy.figures.get("auto_behind", {})
    rows = [[method, score, *behind.get(method, ())] for method, score in policy.figures.get("auto_scores", {}).items()]
    rows = sorted((row for row in rows if len(row) == 4), key=lambda row: -row[1])
    header = ["method", "score on held-out gold", "behind the best", "standard error"]
    return [Table(header, rows, "Methods that auto compared")] if rows else []


# --- predictions ------------------------------------------------------------------------------------------------------
def _confusion_section(journey: Journey) -> Section:
    names, plots, counts = list(journey.task.labels), [], []
    for name, s in journey.scores.items():
        if s.confusion:
            labels = journey.plot_labels(f"Confusion of {name}, test rows")
            axes: dict[str, Any] = {"row_axis": "true label", "column_axis": "predicted label"}
            plots.append(matrix_plot(s.confusion, names, names, **axes, **labels))
            counts += [[f"{name}: {label}", *row] for label, row in zip(names, s.confusion, strict=True)]
    tables = [Table(["model: true label", *names], counts, "Test rows by predicted label")] if counts else []
    by_class = {name: s.per_class for name, s in journey.scores.items() if s.per_class}
    if by_class:
        rows: list[list[Any]] = [[name, *(scores[label]["f1"] for label in names)] for name, scores in by_class.items()]
        header = ["trained on", *names]
        if len(by_class) <= len(names):  # the longer list is shown as rows
            support = [int(next(iter(by_class.values()))[label]["support"]) for label in names]
            columns = zip(names, support, *(row[1:] for row in rows), strict=True)
            rows, header = [list(row) for row in columns], ["label", "test rows", *by_class]
        tables.insert(0, Table(header, rows, "F1 of each label"))
    missed = [f"{name}: {never_found_text(s)}" for name, s in journey.scores.items() if s.never_found]
    note = f"Some labels are never found. {'. '.join(missed)}." if missed else ""
    return Section("Each label", "", plots, tables, note)


def _calibration_section(journey: Journey) -> Section:
    """Show the calibration of each model, before and after temperature scaling."""
    plots, rows, by_label, bin_rows = [], [], [], []
    for name, s in journey.scores.items():
        facts = s.calibration
        if not facts:
            continue
        states = {f"unscaled, ECE {facts['ece']:.3f}": facts["bins"]}
        if "bins_tempered" in facts:
            states[f"scaled, ECE {facts['ece_tempered']:.3f}"] = facts["bins_tempered"]
        curves = {state: reliability_bins(bins) for state, bins in states.items()}
        plots.append(reliability_plot(curves, width=420, **journey.plot_labels(f"Calibration of {name}")))
        rows.append([name, facts["temperature"], facts["ece"], facts.get("ece_tempered")])
        for label, of in facts.get("by_label", {}).items():
            by_label.append([name, label, int(of["rows"]), of["confidence"], of["accuracy"], of["ece"]])
        for state, bins in states.items():
            place = f"{name}, {state.split(',')[0]}"
            bin_rows += [[place, b["confidence"], b["accuracy"], int(b["rows"])] for b in bins]
    if not plots:
        return Section("")
    head = ["model", "temperature", "ECE", "ECE after scaling"]
    label_head = ["model", "predicted label", "rows", "mean probability", "accuracy", "ECE"]
    bin_head = ["model", "mean probability", "accuracy", "rows"]
    tables = [
        Table(head, rows, "Calibration on the test rows, in folds by group"),
        Table(label_head, by_label, "Calibration by predicted label"),
        Table(bin_head, bin_rows, "Test rows by probability of the predicted label"),
    ]
    return Section("Calibration", "", plots, tables)


# --- generation -------------------------------------------------------------------------------------------------------
def _gate_section(journey: Journey) -> Section:
    rows = journey.corrected
    rejected = (r for s, r in zip(rows["label_status"], rows["reason"], strict=True) if s == "rejected")
    reasons = Counter(REASONS.get(reason, str(reason)) for reason in rejected).most_common()
    if not reasons:
        return Section("")
    counts = {"rejected": [n for _, n in reasons]}
    plot = bar_plot(
        [name for name, _ in reasons], counts, axis="answers or rows", **journey.plot_labels("Rejected answers")
    )
    return Section("Gates", "", [plot], [Table(["reason", "rows"], reasons, "Rejected")])


def _cost_section(journey: Journey) -> Section:
    rows, seconds = journey.corrected, journey.seconds
    used = [sum(v for v in rows[c] if v) if c in rows.column_names else 0 for c in USAGE_COLUMNS]
    times = {"seconds": list(seconds.values())}
    plots = [
        bar_plot(list(seconds), times, axis="seconds of wall time", digits=1, **journey.plot_labels("Time by stage"))
    ]
    if used[0] or used[1]:
        labels = journey.plot_labels("Tokens of the synthetic rows")
        plots.insert(
            0, bar_plot(["prompts", "answers"], {"tokens": used[:2]}, axis="tokens of the generator", **labels)
        )
    good = sum(s in ("kept", "relabelled") for s in rows["label_status"])
    names = ("tokens of prompts", "tokens of answers", "US dollars", "rows used")
    sums = zip(names, (*used[:2], float(used[2]), good), strict=True)
    tables = [
        Table(["what", "sum"], list(sums), "Generation", digits=2),
        Table(["stage", "seconds"], list(seconds.items()), "Wall time on this machine", digits=1),
    ]
    return Section("Cost", "", plots, tables)
