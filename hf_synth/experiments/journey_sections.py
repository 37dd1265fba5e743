"""Sections of the report of one run: its scores, the gain over gold alone, the learning curve, and correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from hf_synth.correction.description import Description
from hf_synth.correction.policy import GENERATOR, Policy
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.statistics import holm
from hf_synth.experiments.names import arm_name, metric_name
from hf_synth.experiments.next_steps import RunSource
from hf_synth.experiments.verdict import gain, headline, rows_by_source, shown_metrics
from hf_synth.generation.generation import simulated
from hf_synth.reports.page import Section, Table, matrix_table
from hf_synth.reports.plots import (
    Interval,
    Reference,
    Series,
    bar_plot,
    curve_plot,
    interval_plot,
    matrix_plot,
)
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_NAN = float("nan")
_COUNTED = {"meant": "asked for", "came": "relabelled to it", "now": "has it now"}  # of counts by label
_ASSUMPTIONS = (
    "The noise of the generator's labels is estimated, not measured. The estimate assumes that corrector and generator "
    "err independently given the true label, and that the corrector errs on synthetic notes as on gold."
)


class PlotLabels(TypedDict):
    """Title and mark of a picture."""

    title: str
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
        caption: a sentence about the whole run, at the top of the report and under scores.svg.
        approved: stages whose rows a person edited.
        source: how commands name the task and gold; by the task and folder when None.
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
    source: RunSource | None = None

    @cached_property
    def simulated(self) -> str:
        """What is simulated, as text; "" for nothing."""
        return simulated(self.task, [str(name) for name in self.corrected.unique("generator") if name])

    def plot_labels(self, title: str) -> PlotLabels:
        """Return title and mark of a picture."""
        return {"title": title, "simulated": self.simulated}


# --- scores -----------------------------------------------------------------------------------------------------------
def score_rows(task: Task, scores: Mapping[str, Scores]) -> tuple[list[str], list[list[str]]]:
    """Return the metrics to show, and the name and scores with 95% intervals of each model."""
    metrics = shown_metrics(task, scores)
    return metrics, [[arm_name(name), *(_with_limits(s, metric) for metric in metrics)] for name, s in scores.items()]


def _with_limits(scores: Scores, metric: str) -> str:
    """Write a score with its interval, alone where there is none, and "-" where there is no score."""
    if metric not in scores.values:
        return "-"
    low, high = scores.ci95.get(metric, (None, None))
    return f"{scores.values[metric]:.3f}" + ("" if low is None else f" ({low:.3f}-{high:.3f})")


def score_plot(journey: Journey, *, caption: str = "") -> str:
    """Draw the main score of each model with its interval; the mix that the run is about stands out if it is better."""
    main = shown_metrics(journey.task, journey.scores)[0]
    n = next(iter(journey.scores.values())).n
    (shown, alone), gap = headline(journey.scores), None
    if alone is not None:
        gap = gain(journey.scores, shown, alone, main)
    better = gap is not None and gap.ci95 is not None and gap.ci95[0] > 0  # what may be worse does not stand out
    return interval_plot(
        [
            Interval(arm_name(name), s.values[main], *s.ci95.get(main, (_NAN, _NAN)), name == shown and better)
            for name, s in journey.scores.items()
        ],
        axis=f"{metric_name(main)}, 95% interval over patients",
        caption=caption,
        **journey.plot_labels(f"{metric_name(main)} on {n:,} test rows"),
    )


def score_section(journey: Journey) -> Section:
    """Show the scores of every model."""
    metrics, rows = score_rows(journey.task, journey.scores)
    counts = [sum(rows_by_source(s).values()) for s in journey.scores.values()]
    rows_with_counts = [[name, n, *cells] for (name, *cells), n in zip(rows, counts, strict=True)]
    header = ["trained on", "rows", *map(metric_name, metrics)]
    table = Table(header, rows_with_counts, "Scores with their 95% intervals")
    text = (
        "Every model is scored on the same test rows. Intervals are over the patients of these rows. They do not cover "
        "what another seed, another draw of the gold or another generation would change."
    )
    without = {m: s.no_interval[m] for s in journey.scores.values() for m in metrics if m in s.no_interval}
    text += "".join(f" No interval of {metric_name(m)}: {why}." for m, why in without.items())
    seen = max((int(s.dataset.get("seen", 0)) for s in journey.scores.values()), default=0)
    notes = (
        [f"Up to {seen} test rows are in the training rows too; scores.json has the scores without them."]
        if seen
        else []
    )
    return Section("Scores", text, [score_plot(journey)], [table], " ".join(notes))


def gain_section(journey: Journey) -> Section:
    """Compare each model with the one of the same gold alone, on the same rows."""
    scores, main = journey.scores, shown_metrics(journey.task, journey.scores)[0]
    alone = headline(scores)[1]
    if alone is None:
        return Section("")
    compared = {name: gain(scores, name, alone, main) for name in scores if name != alone}
    gains = {name: d for name, d in compared.items() if d is not None}
    if not gains:
        return Section("")
    p_values = holm([d.p_mcnemar for d in gains.values()])
    rows = [
        [arm_name(name), f"{d.value:+.3f}", f"{d.ci95[0]:+.3f} to {d.ci95[1]:+.3f}" if d.ci95 else d.no_interval, p]
        for (name, d), p in zip(gains.items(), map(float, p_values), strict=True)
    ]
    what = metric_name(main)
    plot = interval_plot(
        [
            Interval(arm_name(name), d.value, *(d.ci95 or (_NAN, _NAN)), d.ci95 is not None and d.ci95[0] > 0)
            for name, d in gains.items()
        ],
        axis=f"difference of {what}, 95% interval over patients",
        **journey.plot_labels(f"{what} of each model minus that of {arm_name(alone)} alone"),
    )
    header = ["trained on", f"difference of {what}", "95% CI", "p (McNemar, Holm)"]
    text = (
        "Paired on the same test rows. p is that of an exact McNemar test, which counts the rows that only one of the "
        f"two models has right; it is adjusted for {len(gains)} comparisons (Holm). Models whose interval "
        "lies above 0 stand out."
    )
    return Section(f"Gain over {arm_name(alone)} alone", text, [plot], [Table(header, rows, "Differences")])


def curve_section(journey: Journey) -> Section:
    """Draw the learning curve of gold alone from three sizes on, and the other models beside it."""
    scores, main = journey.scores, shown_metrics(journey.task, journey.scores)[0]
    sizes = {name: rows_by_source(s).get("gold", 0) for name, s in scores.items()}
    pure = [name for name, s in scores.items() if set(rows_by_source(s)) == {"gold"}]
    if len(pure) < 3:
        return Section("")
    points = {name: (sizes[name], s.values[main], *s.ci95.get(main, ())) for name, s in scores.items()}
    series = [Series("gold alone", [points[name] for name in pure], emphasis=True)]
    series += [Series(arm_name(name), [points[name]]) for name in scores if name not in pure and sizes[name]]
    lines = [Reference(arm_name(name), s.values[main]) for name, s in scores.items() if not sizes[name]]
    labels = journey.plot_labels("More gold, or synthetic notes: the learning curve")
    plot = curve_plot(series, x_axis="gold rows", y_axis=metric_name(main), log_x=True, lines=lines, **labels)
    rows = [(*points[name], "", "")[:4] for name in sorted(pure, key=lambda name: sizes[name])]
    table = Table(["gold rows", metric_name(main), "low", "high"], rows, "Gold alone")
    return Section("Learning curve", "", [plot], [table])


# --- labels -----------------------------------------------------------------------------------------------------------
def correction_section(journey: Journey, description: Description) -> Section:
    """Show how correction changed each label."""
    by_label, moved, names = description.labels, description.moved, list(description.labels)
    if not by_label:
        return Section("")
    parts = {part: [by_label[name][part] for name in names] for part in ("kept", "relabelled", "dropped")}
    axis = "rows, by the label that the LLM was asked for"
    plots = [bar_plot(names, parts, axis=axis, **journey.plot_labels("Synthetic rows after correction"))]
    columns = [_COUNTED.get(name, name) for name in next(iter(by_label.values()))]
    tables = [
        Table(["label", *columns], [[name, *row.values()] for name, row in by_label.items()], "Rows by label"),
        Table(["status and reason", "rows"], list(description.reasons.items()), "Rows by status and reason"),
    ]
    if moved:
        labels = journey.plot_labels("Labels before and after correction, dropped rows left out")
        plots.append(matrix_plot(moved, names, names, row_axis="label before", column_axis="label after", **labels))
        caption = "Rows that are not dropped"
        tables.insert(1, matrix_table(moved, names, names, corner="before / after", caption=caption))
    note = " ".join(f"{w[:1].upper()}{w[1:]}." for w in description.warnings)
    text = f"{description.rows:,} rows, corrected by the policy `{journey.policy.method}`."
    return Section("What correction did", text, plots, tables, note)


def noise_section(journey: Journey, description: Description) -> Section:
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
    score = "macro-F1" if policy.figures.get("auto_metric") == "macro_f1" else "score"
    header = ["method", f"{score} on held-out gold", "behind the best", "standard error"]
    return [Table(header, rows, "Methods that auto compared")] if rows else []
