"""What an experiment found: a results Dataset, and its tables and sentences.

One row a cell and test split, with every figure and what it follows from. Differences are paired over seeds, since cells
of one seed share their gold, their synthetic rows and the test rows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.costs import CostBenefit, Rates, Spent, cost_benefit
from hf_synth.equivalence import Equivalence, Run, gold_equivalence
from hf_synth.errors import HfSynthError, MissingGoldError
from hf_synth.folders import clear_disk_errors, read_dataset, write_stage
from hf_synth.grid import Cell
from hf_synth.report import markdown_table
from hf_synth.statistics import holm
from hf_synth.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_GROUP = ("base_model", "gold_size", "strategy", "labels", "ratio", "generator", "corrector")
_OPTIONAL = {"cost_usd": float, "test_groups": int}  # columns that may be null in every row
FEW_RUNS = 5  # with fewer, an interval says little


@dataclass(frozen=True)
class Comparison:
    """The difference between two kinds of cells, paired over seeds.

    Args:
        kind: "baseline degradation", "correction gain", "generator", "corrector".
        what: which is compared with which.
        where: base model, gold size, ratio.
        seeds: pairs.
        difference: mean of the first minus the second.
        ci95: by Student's t over the pairs; None for one pair.
        p_holm: of the two-sided t test, adjusted for all comparisons of the experiment; None for one pair.
    """

    kind: str
    what: str
    where: str
    seeds: int
    difference: float
    ci95: tuple[float, float] | None
    p_holm: float | None


@dataclass(frozen=True)
class Worth:
    """What a mixture is worth in gold rows.

    Args:
        arm: what was mixed.
        gold: gold rows of it.
        synthetic: synthetic rows of it, the mean over runs.
        base_model: which curve it is read off.
        found: the equivalence.
        costs: what it cost against what it saves.
        simulated: whether notes or generator are artificial.
    """

    arm: str
    gold: int
    synthetic: int
    base_model: str
    found: Equivalence
    costs: CostBenefit
    simulated: bool

    def __str__(self) -> str:
        said = self.found.sentence(self.gold, self.synthetic, self.base_model, simulated=self.simulated)
        return f"{said} [{self.arm}]"


@dataclass(frozen=True)
class Results:
    """What an experiment made.

    Args:
        out: its folder, with results/, report.md.
        rows: one for each cell and split; as a Dataset in results/.
        failed: cells that failed, with the class of the error.
        metric: what is compared.
        comparisons: differences over seeds.
        worths: gold equivalence of each mixture.
    """

    out: Path
    rows: list[Row]
    failed: list[Row]
    metric: str
    comparisons: list[Comparison]
    worths: list[Worth]

    @property
    def dataset(self) -> Dataset:
        """Read the results Dataset."""
        return read_dataset(self.out / "results")


def read_cells(out: Path, planned: Iterable[tuple[Cell, str]]) -> tuple[list[Row], list[Row]]:
    """Read the rows of the cells that are done, in the order of the plan, and what failed."""
    done: list[Row] = []
    failed: list[Row] = []
    for cell, key in planned:
        for path, kept in ((out / "cells" / f"{key}.json", done), (out / "cells" / f"{key}.failed.json", failed)):
            if path.is_file():
                try:
                    found = json.loads(path.read_text(encoding="utf-8"))
                except ValueError:
                    raise HfSynthError(f"{path} is broken; remove it and run the experiment again") from None
                # a cell is known by what its stages are; names of models may have changed since
                told = [found] if isinstance(found, dict) else found
                kept += [{**row, **cell.to_json()} for row in told]
                break
    return done, failed


def write_results(
    task: Task, out: Path, planned: Sequence[tuple[Cell, str]], *, rates: Rates | None = None
) -> Results:
    """Write results/ and report.md of the cells that are done.

    Raises:
        MissingGoldError: no cell is done.
    """
    rows, failed = read_cells(out, planned)
    if not rows:
        why = sorted({f"{f['error']}: {f['message']}" for f in failed})
        raise MissingGoldError(f"no cell of the experiment came to an end ({'; '.join(why) or 'none was run'})")
    metric = main_metric(task, rows)
    first = [r for r in rows if r["split"] == rows[0]["split"]]
    made = Results(out, rows, failed, metric, comparisons(first, metric), equivalences(out, first, metric, rates))
    write_stage(
        task, _dataset(rows), out / "results", stage="experiment", metric=metric, failed=len(failed),
        comparisons=[vars(c) for c in made.comparisons], equivalence=[str(w) for w in made.worths],
        report=report_text(task, made),
    )  # fmt: skip
    with clear_disk_errors(out):
        (out / "report.md").write_text(report_text(task, made) + "\n", encoding="utf-8")
    return made


def _dataset(rows: Sequence[Row]) -> Dataset:
    from datasets import Dataset, Features, Value

    names = list(dict.fromkeys(name for row in rows for name in row))
    kinds = {}
    for name in names:
        values = [row.get(name) for row in rows if row.get(name) is not None]
        kind = _OPTIONAL.get(name) or next((type(v) for v in values), float)
        if kind is int and any(isinstance(v, float) for v in values):
            kind = float
        kinds[name] = Value({bool: "bool", int: "int64", float: "float64"}.get(kind, "string"))
    return Dataset.from_list([{n: row.get(n) for n in names} for row in rows], features=Features(kinds))


def main_metric(task: Task, rows: Sequence[Row]) -> str:
    """Give what cells are compared by: macro-F1 where there is one, else the task's first metric."""
    return next((m for m in ("macro_f1", *task.metrics, "rougeL", "accuracy") if m in rows[0]), "accuracy")


# --- differences over seeds -------------------------------------------------------------------------------------------


def comparisons(rows: Sequence[Row], metric: str) -> list[Comparison]:
    """Compare what the experiment was made to compare, Holm over all of it.

    Baseline degradation: raw rows against gold alone of the same size. Correction gain: corrected against raw rows of
    the same strategy. Generators with each other on raw rows and corrected ones, correctors with each other.
    """
    runs = _by_group(rows, metric)
    raws: list[tuple[Comparison, Floats]] = []
    for group, mine in runs.items():
        base, size, strategy, labels, ratio, generator, corrector = group
        where = f"{_short(base)}, {size:,} gold" + (f", ratio {ratio:g}" if ratio else "")
        arm = f"{strategy} {labels}"
        if strategy == "gold":
            continue
        if labels == "raw":
            pair = ("baseline degradation", f"{arm} - gold", (base, size, "gold", "", 0.0, "", ""))
        else:
            pair = ("correction gain", f"{arm} - {strategy} raw", (base, size, strategy, "raw", ratio, generator, ""))
        _compare(raws, *pair[:2], f"{where}, {generator}", mine, runs.get(pair[2]))
        for other, theirs in runs.items():
            if other > group and other[:5] == group[:5]:
                if other[6] == corrector and other[5] != generator:
                    _compare(raws, "generator", f"{arm}: {generator} - {other[5]}", where, mine, theirs)
                if other[5] == generator and other[6] != corrector:
                    names = f"{_short(corrector)} - {_short(other[6])}"
                    _compare(raws, "corrector", f"{arm}: {names}", where, mine, theirs)
    return _tested(raws)


def _by_group(rows: Sequence[Row], metric: str) -> dict[tuple[Any, ...], dict[int, float]]:
    runs: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    for row in rows:
        runs[tuple(row[name] for name in _GROUP)][row["seed"]] = float(row[metric])
    return dict(runs)


def _compare(
    found: list[tuple[Comparison, Floats]], kind: str, what: str, where: str,
    mine: Mapping[int, float], theirs: Mapping[int, float] | None,
) -> None:  # fmt: skip
    seeds = sorted(set(mine) & set(theirs or ()))
    if theirs is None or not seeds:
        return
    gaps = np.array([mine[s] - theirs[s] for s in seeds])
    found.append((Comparison(kind, what, where, len(seeds), float(gaps.mean()), None, None), gaps))


def _tested(found: Sequence[tuple[Comparison, Floats]]) -> list[Comparison]:
    from scipy.stats import t

    p_values, made = [], []
    for comparison, gaps in found:
        n = len(gaps)
        if n > 1:
            error = float(gaps.std(ddof=1)) / np.sqrt(n)
            half = float(t.ppf(0.975, n - 1)) * error
            ends = (comparison.difference - half, comparison.difference + half)
            same = 1.0 if comparison.difference == 0 else 0.0
            p_values.append(float(2 * t.sf(abs(comparison.difference) / error, n - 1)) if error else same)
            made.append(replace(comparison, ci95=ends))
        else:
            made.append(comparison)
    adjusted = iter(holm(p_values))
    return [c if c.ci95 is None else replace(c, p_holm=float(next(adjusted))) for c in made]


# --- gold equivalence -------------------------------------------------------------------------------------------------


def equivalences(out: Path, rows: Sequence[Row], metric: str, rates: Rates | None = None) -> list[Worth]:
    """Read every mixture of gold and synthetic rows off the curve of gold alone of the same base model.

    Needs two gold sizes and two seeds of everything; there is none where there are fewer.
    """
    by_group: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by_group[tuple(row[name] for name in _GROUP)].append(row)
    score = metric_of_counts(metric)
    curves: dict[str, dict[int, list[Run]]] = defaultdict(dict)
    for group, cells in by_group.items():
        if group[2] == "gold" and len(cells) > 1:
            curves[group[0]][group[1]] = [_run(out, row, metric) for row in cells]
    found = []
    for group, cells in by_group.items():
        curve = curves.get(group[0], {})
        if group[2] == "gold" or len(curve) < 2 or len(cells) < 2:
            continue
        worth = gold_equivalence(curve, [_run(out, row, metric) for row in cells], metric=score)
        n = round(float(np.mean([row["n_synthetic"] for row in cells])))
        simulated = any(row["simulated"] for row in cells)
        gold = round(float(np.mean([row["gold_budget"] for row in cells])))
        names = [f"labels by {group[6]}" if group[6] not in ("", group[0]) else "", group[5]]
        arm = ", ".join(filter(None, [cells[0]["arm"], f"ratio {group[4]:g}", *map(_short, names)]))
        found.append(
            Worth(arm, gold, n, _short(group[0]), worth, cost_benefit(worth, gold, _spent(cells), rates), simulated)
        )
    return found


def _run(out: Path, row: Row, metric: str) -> Run:
    return Run(float(row[metric]), row["seed"], group_counts(out, row["cell_key"], row["split"]))


def group_counts(out: Path, key: str, split: str) -> Floats | None:
    """Give the confusion counts of each group of test rows, (G, K*K); None where a cell has no labels by row."""
    path = out / "cells" / f"{key}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as kept:
        truth, said, groups = (kept[f"{split}_{name}"] for name in ("labels", "predictions", "groups"))
    if not len(truth):
        return None
    k = int(max(truth.max(), said.max())) + 1
    k = max(k, int(np.sqrt(_side(out, key, split))))
    sums = np.zeros((int(groups.max()) + 1, k * k))
    np.add.at(sums, (groups, truth * k + said), 1.0)
    return sums


def _side(out: Path, key: str, split: str) -> int:
    """Give how many counts the confusion of a cell has: a label may be neither true nor predicted in its test rows."""
    rows = json.loads((out / "cells" / f"{key}.json").read_text(encoding="utf-8"))
    return sum(len(line) for row in rows if row["split"] == split for line in json.loads(row["confusion"]))


def metric_of_counts(metric: str) -> Callable[[Floats], Floats] | None:
    """Give macro-F1 or accuracy as a function of confusion counts (B, K*K) -> (B,); None for another metric.

    Macro-F1 is over the labels that occur in truth or predictions, as scikit-learn and `evaluate` have it.
    """

    def counts(sums: Floats) -> tuple[Floats, Floats]:
        k = round(float(np.sqrt(sums.shape[1])))
        table = sums.reshape(-1, k, k)
        return table, np.einsum("bkk->bk", table)

    def macro_f1(sums: Floats) -> Floats:
        table, hit = counts(sums)
        both = table.sum(1) + table.sum(2)
        return np.asarray((2 * hit / np.maximum(both, 1)).sum(1) / np.maximum((both > 0).sum(1), 1))

    def accuracy(sums: Floats) -> Floats:
        return np.asarray(counts(sums)[1].sum(1) / np.maximum(sums.sum(1), 1))

    return {"macro_f1": macro_f1, "accuracy": accuracy, "micro_f1": accuracy}.get(metric)


def _spent(cells: Sequence[Row]) -> Spent:
    """Add up what one run took, the mean over runs: a user makes it once."""
    costs = [row["cost_usd"] for row in cells if row["cost_usd"] is not None]
    hours = [(row["cpu_seconds"] + row["cpu_seconds_correct"]) / 3600 for row in cells]
    calls, read, said = (
        round(float(np.mean([row[c] for row in cells]))) for c in ("calls", "prompt_tokens", "completion_tokens")
    )
    return Spent(calls, read, said, float(np.mean(costs)) if costs else None, float(np.mean(hours)))


# --- as text ----------------------------------------------------------------------------------------------------------


def report_text(task: Task, made: Results) -> str:
    """Give the report as Markdown: order of the arms, ratios, differences, equivalence, cost, rare classes."""
    rows = [r for r in made.rows if r["split"] == made.rows[0]["split"]]
    simulated = any(r["simulated"] for r in rows)
    parts = [f"# {task.full_name}: {len(made.rows)} cells, by {made.metric} on {rows[0]['n_test']:,} rows"]
    if simulated:
        parts.append("**Simulated**: notes or generator are artificial. This says nothing of a clinical benefit.")
    for title, note, table in sections(task, made):
        parts += [f"## {title}", note, table] if note else [f"## {title}", table]
    if made.failed:
        lines = [[f["gold_size"], f["strategy"], f["labels"], f["seed"], f["error"], f["message"]] for f in made.failed]
        parts += ["## Failed", "They are tried again by the same command.",
                  markdown_table(["gold", "strategy", "labels", "seed", "error", "what"], lines)]  # fmt: skip
    return "\n\n".join(parts)


def sections(task: Task, made: Results) -> list[tuple[str, str, str]]:
    """Give title, note and table of every part that the experiment has figures for."""
    rows = [r for r in made.rows if r["split"] == made.rows[0]["split"]]
    found = [("Order of the arms", "Mean over seeds, lowest and highest seed.", arm_table(rows, made.metric))]
    ratios = {r["ratio"] for r in rows if r["ratio"]}
    if len(ratios) > 1:
        found.append(("Ratio curve", f"Mean {made.metric} by synthetic rows a gold row.", ratio_table(rows, made.metric)))
    if made.comparisons:
        lines = [
            [c.kind, c.what, c.where, c.seeds, f"{c.difference:+.3f}",
             f"{c.ci95[0]:+.3f} to {c.ci95[1]:+.3f}" if c.ci95 else "one seed",
             "" if c.p_holm is None else f"{c.p_holm:.3f}"]
            for c in made.comparisons
        ]  # fmt: skip
        note = f"Paired over seeds, on the same test rows; intervals by Student's t; p by Holm over {len(lines)}."
        found.append(("Differences", note, markdown_table(
            ["question", "what", "where", "seeds", "difference", "95% CI", "p (Holm)"], lines)))  # fmt: skip
    if made.worths:
        found.append(("Gold equivalence", _equivalence_note(made), _equivalence_table(made.worths)))
        found.append(("Cost against labelling", _cost_note(made.worths[0].costs), _cost_table(made.worths)))
    if task.kind == "single_label":
        found.append(("Rare classes", "Mean F1 of each label over seeds, rarest first.", class_table(rows)))
    policies = policy_table(rows)
    if policies:
        found.append(("Policies", "What correction did; figures are each run's own estimates, averaged.", policies))
    return found


def _equivalence_note(made: Results) -> str:
    one = made.worths[0].found
    drawn = "test patients and runs (gold subset, generation, training)" if one.patients else "runs alone"
    few = f" {one.runs} runs are few: the intervals are too short." if one.runs < FEW_RUNS else ""
    return f"Read off the monotone curve of gold alone; intervals by a hierarchical bootstrap over {drawn}.{few}"


def _equivalence_table(worths: Sequence[Worth]) -> str:
    lines = [
        [w.arm, w.base_model, w.found.sentence(w.gold, w.synthetic, w.base_model, simulated=w.simulated),
         "" if w.found.power_law is None else f"{w.found.power_law:,.0f}", w.found.runs]
        for w in worths
    ]  # fmt: skip
    return markdown_table(["mixture", "base model", "worth", "by a power law", "runs"], lines)


def _cost_note(costs: CostBenefit) -> str:
    rates = costs.rates
    whose = "as given" if rates.given else "assumptions of ours: give your own"
    return (
        f"A note takes {rates.minutes_per_note:g} minutes to label at ${rates.hourly_usd:g} an hour, computing costs "
        f"${rates.compute_usd:g} an hour ({whose}). Labelling saved is the equivalence less the gold that was used."
    )


def _cost_table(worths: Sequence[Worth]) -> str:
    lines = []
    for w in worths:
        c, least = w.costs, ">= " if w.costs.at_least else ""
        dollars = "not known" if c.spent_usd is None else f"{c.spent_usd:,.2f}"
        lines.append([
            w.arm, f"{least}{c.notes:,.0f} ({c.notes_ci95[0]:,.0f} to {c.notes_ci95[1]:,.0f})", f"{c.minutes / 60:,.1f}",
            f"{c.saved_usd:,.0f}", f"{c.spent.calls:,}", f"{c.spent.prompt_tokens:,} + {c.spent.completion_tokens:,}",
            f"{c.spent.compute_hours:,.3f}", dollars,
        ])  # fmt: skip
    head = ["mixture", "notes saved (95% CI)", "hours saved", "$ saved", "calls", "tokens read + written",
            "hours of computing", "$ spent"]  # fmt: skip
    return markdown_table(head, lines)


def arm_table(rows: Sequence[Row], metric: str) -> str:
    """Give a table of all kinds of cells, best first within a base model and size."""
    by_group: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by_group[tuple(row[name] for name in _GROUP)].append(row)
    extra = [n for n in ("base_model", "ratio", "generator", "corrector") if len({r[n] for r in rows if r[n]}) > 1]
    mean = {g: float(np.mean([r[metric] for r in cells])) for g, cells in by_group.items()}
    lines = []
    for group in sorted(by_group, key=lambda g: (g[0], g[1], -mean[g])):
        cells = by_group[group]
        values = [r[metric] for r in cells]
        budget = round(float(np.mean([r["gold_budget"] for r in cells])))
        lines.append([cells[0]["arm"], f"{group[1]:,}", *(_value(cells[0][n]) for n in extra), len(cells), mean[group],
                      f"{min(values):.3f}-{max(values):.3f}", f"{budget:,}",
                      round(float(np.mean([r["n_train"] for r in cells])))])  # fmt: skip
    return markdown_table(
        ["trained on", "gold", *extra, "seeds", metric, "lowest-highest", "gold budget", "rows trained on"], lines
    )


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else _short(value)


def _names(rows: Sequence[Row], *, ratio: bool = True) -> Callable[[Row], str]:
    """Give what names a row's mixture: its arm, and what else differs among the mixtures."""
    told = [n for n in ("ratio", "generator", "corrector") if n != "ratio" or ratio]
    differ = [n for n in told if len({r[n] for r in rows if r[n]}) > 1]

    def name(row: Row) -> str:
        more = [f"ratio {row[n]:g}" if n == "ratio" else f"{n} {_short(row[n])}" for n in differ if row[n]]
        return ", ".join([row["arm"], *more])

    return name


def ratio_table(rows: Sequence[Row], metric: str) -> str:
    """Give mean scores by ratio, a column each; ratio 0 is gold alone."""
    values: dict[tuple[Any, ...], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    named = _names(rows, ratio=False)
    for row in rows:
        if row["strategy"] != "gold":
            values[_short(row["base_model"]), row["gold_size"], named(row)][row["ratio"]].append(row[metric])
    for name, size, arm in list(values):
        alone = [r[metric] for r in rows
                 if r["strategy"] == "gold" and r["gold_size"] == size and _short(r["base_model"]) == name]  # fmt: skip
        if alone and not arm.startswith("synthetic"):
            values[name, size, arm][0.0] = alone
    ratios = sorted({r for by in values.values() for r in by})
    lines = [
        [name, f"{size:,}", arm, *(f"{np.mean(by[r]):.3f}" if by.get(r) else "" for r in ratios)]
        for (name, size, arm), by in values.items()
    ]  # fmt: skip
    return markdown_table(["base model", "gold", "trained on", *(f"{r:g}" for r in ratios)], lines)


def class_table(rows: Sequence[Row]) -> str:
    """Give F1 of each label by arm, labels from rare to frequent in the test rows."""
    per_class = [json.loads(row["per_class"]) for row in rows]
    support = {label: told["support"] for label, told in per_class[0].items()}
    order = sorted(support, key=lambda label: support[label])
    named = _names(rows)
    by_arm: dict[tuple[str, int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row, told in zip(rows, per_class, strict=True):
        by_arm[_short(row["base_model"]), row["gold_size"], named(row)].append(told)
    lines = [
        [name, f"{size:,}", arm, *(f"{np.mean([t[label]['f1'] for t in told]):.3f}" for label in order)]
        for (name, size, arm), told in sorted(by_arm.items())
    ]
    return markdown_table(["base model", "gold", "trained on", *(f"{x} ({support[x]} rows)" for x in order)], lines)


def policy_table(rows: Sequence[Row]) -> str:
    """Give what correction did, by gold size and method; empty where nothing was corrected."""
    named = _names([r for r in rows if r["corrected_key"]])
    by_arm: dict[tuple[int, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["corrected_key"]:
            how = named({**row, "arm": row["labels"]})
            by_arm[row["gold_size"], how][row["corrected_key"]] = row
    lines = []
    for (size, labels), by_key in sorted(by_arm.items()):
        cells = list(by_key.values())
        figures = [json.loads(row["policy_figures"]) for row in cells]
        chosen = sorted({row["policy"] for row in cells})

        def mean(name: str, figures: Sequence[Row] = figures) -> str:
            values = [f[name] for f in figures if f.get(name) is not None]
            return f"{np.mean(values):.3f}" if values else ""

        counts = [round(float(np.mean([r[f"n_{s}"] for r in cells]))) for s in ("kept", "relabelled", "dropped")]
        lines.append([f"{size:,}", labels, ", ".join(chosen), *counts,
                      mean("corrector_accuracy_on_held_out_gold"), mean("generator_accuracy_estimated")])  # fmt: skip
    head = ["gold", "labels", "policy", "kept", "relabelled", "dropped", "corrector right on held-out gold",
            "generator right (estimated)"]  # fmt: skip
    return markdown_table(head, lines) if lines else ""


def _short(name: str) -> str:
    """Name a model in a table: a folder by its last part."""
    return Path(name).name if name.startswith(("/", ".")) else name
