"""What a run made, as report.html and report.md: scores, labels, noise, confusion, cost.

All of it is computed from columns and scores; that gold or generator are simulated as well, and every picture says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from hf_synth.correction.description import Description, describe
from hf_synth.correction.policy import Policy
from hf_synth.evaluation.calibration import reliability_bins
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.statistics import holm
from hf_synth.generation.generation import simulated
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
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_USUAL = ("macro_f1", "accuracy", "rougeL", "token_f1", "exact_match")
_ASSUMED = (
    "How often the generator is wrong was not measured: it is estimated, on the assumption that corrector and "
    "generator err independently given the truth, and that the corrector errs on synthetic notes as it does on gold."
)


class Drawn(TypedDict):
    """What every picture says of itself."""

    title: str
    caption: str
    simulated: str


@dataclass(frozen=True)
class Told:
    """What a report of a run is made of.

    Args:
        task: of the run.
        corrected: the synthetic rows after correction.
        policy: how they were corrected.
        scores: of each model by the name of its arm.
        seconds: wall time by stage.
        caption: stands in every picture.
    """

    task: Task
    corrected: Dataset
    policy: Policy
    scores: Mapping[str, Scores]
    seconds: Mapping[str, float]
    caption: str = ""

    @cached_property
    def simulated(self) -> str:
        """Say what of it is simulated; "" where nothing is."""
        return simulated(self.task, [str(name) for name in self.corrected.unique("generator") if name])

    def drawn(self, title: str) -> Drawn:
        """Give what every picture says of itself."""
        return {"title": title, "caption": self.caption, "simulated": self.simulated}


def write_journey_report(folder: Path, told: Told, *, more: Sequence[Section] = ()) -> Path:
    """Write report.html and report.md of a run; give the path of the page.

    Args:
        more: sections of a caller who knows more, e.g. what the simulator really wrote.

    Raises:
        OutputError: the folder cannot be written.
    """
    models = [s.model for s in told.scores.values()]
    bases = sorted({Path(str(m["base_model"])).name for m in models if m.get("base_model")})
    facts: list[tuple[str, Any]] = [
        ("task", told.task.full_name),
        ("access", access_of(told.corrected)),
        ("synthetic rows", len(told.corrected)),
        ("correction", told.policy.method),
        ("base model", ", ".join(bases) or "unknown"),
        ("test rows", next((s.n for s in told.scores.values()), 0)),
    ]
    found = [*journey_sections(told), *more]
    title = f"{told.task.full_name}: what a run made"
    return write_report(folder, title, found, simulated=told.simulated, facts=facts)


def journey_sections(told: Told) -> list[Section]:
    """Give the sections of a report, those that have something to show."""
    described = describe(told.corrected, told.policy)
    made = (
        _scores(told),
        _gains(told),
        _curve(told),
        _labels(told, described),
        _noise(told, described),
        _confusion(told),
        _calibration(told),
        _rejects(told),
        _cost(told),
    )
    return [section for section in made if section.plots or section.tables]


def shown_metrics(task: Task, scores: Mapping[str, Scores]) -> list[str]:
    """Give the metrics to show, the task's main one first: its own as far as they were computed, and the usual ones."""
    there = next(iter(scores.values())).values
    return [m for m in dict.fromkeys((*task.metrics, *_USUAL)) if m in there] or list(there)


def score_plot(told: Told) -> str:
    """Draw the main score of each model with its interval."""
    main = shown_metrics(told.task, told.scores)[0]
    n = next(iter(told.scores.values())).n
    return interval_plot(
        [Interval(name, s.values[main], *s.ci95[main], "corrected" in name) for name, s in told.scores.items()],
        axis=f"{main}, 95% bootstrap interval over groups",
        **told.drawn(f"{told.task.full_name}: {main} on {n} test rows"),
    )


# --- the sections ---------------------------------------------------------------------------------------------------
def _scores(told: Told) -> Section:
    metrics = shown_metrics(told.task, told.scores)
    rows = [
        [name, _rows_of(s), *(f"{s.values[m]:.3f} ({s.ci95[m][0]:.3f}-{s.ci95[m][1]:.3f})" for m in metrics)]
        for name, s in told.scores.items()
    ]
    table = Table(["trained on", "rows", *metrics], rows, "Scores with their 95% intervals")
    text = (
        "Every model is scored on the same test rows. Intervals are of these rows alone (a bootstrap over groups): "
        "what another seed, another draw of gold or another set of synthetic notes would change is not in them."
    )
    seen = sorted({n for s in told.scores.values() if (n := int(s.dataset.get("seen", 0)))})
    note = (
        f"Up to {seen[-1]} test rows stand in the training rows too; scores.json has the scores without."
        if seen
        else ""
    )
    return Section("Scores", text, [score_plot(told)], [table], note)


def _rows_of(s: Scores) -> int:
    return sum(_mixture(s).values())


def _mixture(s: Scores) -> dict[str, int]:
    return {str(k): int(n) for k, n in dict(s.model.get("rows") or {}).items() if n}


def _gains(told: Told) -> Section:
    """Hold each model against the one of the same gold alone, on the same rows."""
    alone = next((a for a in told.scores if any(b.startswith(f"{a}_plus_") for b in told.scores)), None)
    main = shown_metrics(told.task, told.scores)[0]
    others = [name for name in told.scores if name != alone]
    if alone is None or not told.scores[alone].labels:
        return Section("")
    found = {name: compare(told.scores[name], told.scores[alone], main) for name in others}
    adjusted = holm([d.p_mcnemar for d in found.values()])
    rows = [[name, f"{d.value:+.3f} ({d.ci95[0]:+.3f} to {d.ci95[1]:+.3f})", float(p)]
            for (name, d), p in zip(found.items(), adjusted, strict=True)]  # fmt: skip
    plot = interval_plot(
        [Interval(name, d.value, *d.ci95, "corrected" in name) for name, d in found.items()],
        axis=f"difference of {main}, 95% paired bootstrap interval over groups",
        **told.drawn(f"{main} of each model minus that of {alone}"),
    )
    header = ["model", f"{main} minus that of {alone} (95% CI)", "p (McNemar, Holm)"]
    return Section(f"Gain over {alone}", "", [plot], [Table(header, rows, "Differences on the same test rows")])


def _curve(told: Told) -> Section:
    """Draw the learning curve of gold alone, where it has three sizes at least, and the other models beside it."""
    main = shown_metrics(told.task, told.scores)[0]
    sizes = {name: _mixture(s).get("gold", 0) for name, s in told.scores.items()}
    pure = [name for name, s in told.scores.items() if set(_mixture(s)) == {"gold"}]
    if len(pure) < 3:
        return Section("")

    def point(name: str) -> tuple[float, ...]:
        s = told.scores[name]
        return sizes[name], s.values[main], *s.ci95[main]

    series = [Series("gold alone", [point(name) for name in pure], emphasis=True)]
    series += [Series(name, [point(name)]) for name in told.scores if name not in pure and sizes[name]]
    lines = [Reference(name, told.scores[name].values[main]) for name in told.scores if not sizes[name]]
    plot = curve_plot(series, x_axis="gold rows", y_axis=main, log_x=True, lines=lines, **told.drawn("Learning curve"))
    rows = [list(point(name)) for name in sorted(pure, key=lambda name: sizes[name])]
    return Section("Learning curve", "", [plot], [Table(["gold rows", main, "low", "high"], rows, "Gold alone")])


def _labels(told: Told, described: Description) -> Section:
    """Show what correction did to each label."""
    if not described.labels:
        return Section("")
    names = list(described.labels)
    parts = {part: [described.labels[n][part] for n in names] for part in ("kept", "relabelled", "dropped")}
    plots = [bar_plot(names, parts, axis="rows, by the label that the generator meant",
                      **told.drawn("What became of the synthetic rows"))]  # fmt: skip
    if described.moved:
        plots.append(matrix_plot(described.moved, names, names, row_axis="label meant", column_axis="label now",
                                 **told.drawn("Labels before and after correction, rows used")))  # fmt: skip
    columns = list(next(iter(described.labels.values())))
    tables = [
        Table(["label", *columns], [[n, *row.values()] for n, row in described.labels.items()], "Rows by label"),
        Table(["what became of it", "rows"], list(described.reasons.items()), "Rows by status and reason"),
    ]
    if described.moved:
        tables.insert(1, matrix_table(described.moved, names, names, corner="meant / now", caption="Rows used"))
    note = " ".join(f"{w[:1].upper()}{w[1:]}." for w in described.warnings)
    return Section("Labels", f"{described.rows:,} rows, corrected by `{told.policy.method}`.", plots, tables, note)


def _noise(told: Told, described: Description) -> Section:
    """Show what is believed of the generator, and what was measured of the corrector."""
    policy, names, plots = told.policy, list(told.task.labels), []
    tables: list[Table] = []
    if policy.noise:
        plots.append(matrix_plot(policy.noise, names, names, row_axis="truth (estimated)", column_axis="label meant",
                                 **told.drawn("Noise of the generator's labels, as estimated")))  # fmt: skip
    if policy.confusion:
        plots.append(matrix_plot(policy.confusion, names, names, row_axis="true label", column_axis="corrector's label",
                                 **told.drawn("Confusion of the corrector on held-out gold")))  # fmt: skip
    for caption, corner, matrix in (
        ("Noise of the generator, as estimated", "truth / meant", policy.noise),
        ("Confusion of the corrector on held-out gold", "truth / corrector", policy.confusion),
    ):
        tables += [matrix_table(matrix, names, names, corner=corner, caption=caption)] if matrix else []
    figures = [[k.replace("_", " "), v] for k, v in described.policy.get("figures", {}).items()
               if isinstance(v, int | float | str)]  # fmt: skip
    if not figures and not plots:
        return Section("")
    tables += [Table(["figure", "value"], figures, "What the policy rests on"), *_choice(policy)]
    return Section("Generator and corrector", _ASSUMED if policy.noise else "", plots, tables)


def _choice(policy: Policy) -> list[Table]:
    """Give what `auto` weighed, where it chose."""
    behind = policy.figures.get("auto_behind", {})
    rows = [[method, score, *behind.get(method, ())] for method, score in policy.figures.get("auto_scores", {}).items()]
    rows = sorted((row for row in rows if len(row) == 4), key=lambda row: -row[1])
    header = ["method", "score on held-out gold", "behind the best", "standard error"]
    return [Table(header, rows, "What auto weighed")] if rows else []


def _confusion(told: Told) -> Section:
    single = {name: s for name, s in told.scores.items() if s.confusion}
    names = list(told.task.labels)
    plots = [matrix_plot(s.confusion, names, names, row_axis="true label", column_axis="label said",
                         **told.drawn(f"Confusion of {name}, test rows"))
             for name, s in single.items()]  # fmt: skip
    counts = [[f"{name}: {label}", *row] for name, s in single.items()
              for label, row in zip(names, s.confusion, strict=True)]  # fmt: skip
    tables = [Table(["model: true label", *names], counts, "Test rows by label said")] if counts else []
    by_class = {name: s for name, s in told.scores.items() if s.per_class}
    if len(by_class) > len(names):  # the longer list stands as rows
        flat = [[name, *(s.per_class[label]["f1"] for label in names)] for name, s in by_class.items()]
        return Section("Each label", "", plots, [Table(["trained on", *names], flat, "F1 of each label"), *tables])
    rows = [[label, int(next(iter(by_class.values())).per_class[label]["support"]),
             *(s.per_class[label]["f1"] for s in by_class.values())] for label in names if by_class]  # fmt: skip
    tables = [Table(["label", "test rows", *by_class], rows, "F1 of each label"), *tables] if rows else tables
    return Section("Each label", "", plots, tables)


def _calibration(told: Told) -> Section:
    """Show how far each model's probabilities can be believed, as they are and tempered on other rows."""
    plots, rows, by_label, beneath = [], [], [], []
    for name, s in told.scores.items():
        facts = s.calibration
        if not facts:
            continue
        states = {f"as it is, ECE {facts['ece']:.3f}": facts["bins"]}
        if "bins_tempered" in facts:
            states[f"tempered, ECE {facts['ece_tempered']:.3f}"] = facts["bins_tempered"]
        plots.append(reliability_plot({state: reliability_bins(bins) for state, bins in states.items()}, width=420,
                                      **told.drawn(f"Calibration of {name}")))  # fmt: skip
        rows.append([name, facts["temperature"], facts["ece"], facts.get("ece_tempered")])
        by_label += [[name, label, int(of["rows"]), of["confidence"], of["accuracy"], of["ece"]]
                     for label, of in facts.get("by_label", {}).items()]  # fmt: skip
        beneath += [[f"{name}, {state.split(',')[0]}", b["confidence"], b["accuracy"], int(b["rows"])]
                    for state, bins in states.items() for b in bins]  # fmt: skip
    if not plots:
        return Section("")
    tables = [
        Table(["model", "temperature", "ECE", "ECE after it"], rows, "Calibration on the test rows, in folds by group"),
        Table(["model", "label said", "rows", "mean probability", "share right", "ECE"], by_label, "Label by label"),
        Table(
            ["model", "mean probability", "share right", "rows"], beneath, "Test rows by probability of the label said"
        ),
    ]
    return Section("Calibration", "", plots, tables)


def _rejects(told: Told) -> Section:
    reasons: dict[str, int] = {}
    for status, reason in zip(told.corrected["label_status"], told.corrected["reason"], strict=True):
        if status == "rejected":
            reasons[REASONS.get(reason, str(reason))] = reasons.get(REASONS.get(reason, str(reason)), 0) + 1
    if not reasons:
        return Section("")
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    plot = bar_plot([name for name, _ in ordered], {"rejected": [n for _, n in ordered]}, axis="answers or rows",
                    **told.drawn("What the gates kept out"))  # fmt: skip
    return Section("Gates", "", [plot], [Table(["why", "rows"], ordered, "Rejected")])


def _cost(told: Told) -> Section:
    rows = told.corrected
    used = [sum(v for v in rows[c] if v) if c in rows.column_names else 0 for c in USAGE_COLUMNS]
    plots = [bar_plot(list(told.seconds), {"seconds": list(told.seconds.values())}, axis="seconds of wall time",
                      digits=1, **told.drawn("Time by stage"))]  # fmt: skip
    if used[0] or used[1]:
        plots.insert(0, bar_plot(["read", "written"], {"tokens": used[:2]}, axis="tokens of the generator",
                                 **told.drawn("What the synthetic rows took")))  # fmt: skip
    good = sum(s in ("kept", "relabelled") for s in rows["label_status"])
    paid = [["tokens read", used[0]], ["tokens written", used[1]], ["US dollars", float(used[2])], ["rows used", good]]
    tables = [Table(["what", "sum"], paid, "Generation", digits=2)]
    tables.append(Table(["stage", "seconds"], list(told.seconds.items()), "Wall time on this machine", digits=1))
    return Section("Cost", "", plots, tables)
