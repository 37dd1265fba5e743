"""Results of an experiment: a results Dataset, comparisons paired over seeds, and the gold equivalence of mixtures.

One row for each cell and test split, with all figures and their provenance. Comparisons are paired over seeds, since
cells of one seed share their gold, their synthetic rows and the test rows. Seeds draw their gold from one pool and are
scored on the same test rows, so they are not independent: intervals correct for both.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hf_synth.errors import HfSynthError, MissingGoldError
from hf_synth.evaluation.intervals import linearise
from hf_synth.evaluation.statistics import error_over_seeds, holm, interval_over_seeds
from hf_synth.experiments.equivalence import CostBenefit, Equivalence, Rates, Run, Spent, cost_benefit, gold_equivalence
from hf_synth.experiments.grid import ALONE, Cell
from hf_synth.experiments.groups import Group, Row, grouped, mean_of, overlap, short_name, too_few
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.folders import read_export, write_stage
from hf_synth.task.labels import Floats
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_NO_SPREAD = 1e-12  # standard error of rounding alone
_OPTIONAL = {"cost_usd": float, "judge_cost_usd": float, "test_groups": int}  # columns that may be null in every row


@dataclass(frozen=True)
class Comparison:
    """The difference between two kinds of cells, paired over seeds.

    Args:
        kind: "baseline degradation", "correction gain", "generator", "corrector".
        what: the two arms, generators or correctors.
        where: base model, gold size, ratio.
        seeds: number of pairs.
        difference: mean of the first minus the second.
        ci95: by Student's t over the pairs, corrected for the gold that seeds share (`error_over_seeds`) and with the
            chance of the test rows; None where `no_interval` says why.
        p_holm: of the two-sided t test, adjusted for all comparisons of the experiment; None without `ci95`.
        no_interval: "2 seeds: no interval", "no spread", or "the same gold" where each seed has all the gold there is.
    """

    kind: str
    what: str
    where: str
    seeds: int
    difference: float
    ci95: tuple[float, float] | None
    p_holm: float | None
    no_interval: str = ""


@dataclass(frozen=True)
class Worth:
    """The gold equivalence of a mixture.

    Args:
        arm: the mixture.
        gold: its gold budget: every different gold text, and every other label that a person gave.
        synthetic: its synthetic rows, the mean over runs.
        base_model: whose learning curve of gold alone was used.
        equivalence: number of gold rows alone with the same score.
        costs: costs, and labelling saved.
        simulated: whether notes or generator are artificial.
        size: its gold rows, by which it is named; 0 where only the budget is known.
        score: the mean over runs.
    """

    arm: str
    gold: int
    synthetic: int
    base_model: str
    equivalence: Equivalence
    costs: CostBenefit
    simulated: bool
    size: int = 0
    score: float = 0.0

    def __str__(self) -> str:
        sentence = self.equivalence.sentence(
            self.size or self.gold, self.synthetic, self.base_model, simulated=self.simulated
        )
        return f"{sentence} [{self.arm}]"


@dataclass(frozen=True)
class Results:
    """Results of an experiment.

    Args:
        out: its folder, with results/, report.html and report.md.
        rows: one for each cell and split; as a Dataset in results/.
        failed: failed cells, with the class and message of the error.
        metric: the score that cells are compared by.
        comparisons: differences over seeds.
        worths: gold equivalence of each mixture.
        gold_pool: gold rows that the seeds draw from; None if that is not known.
    """

    out: Path
    rows: list[Row]
    failed: list[Row]
    metric: str
    comparisons: list[Comparison]
    worths: list[Worth]
    gold_pool: int | None = None

    @property
    def main(self) -> list[Row]:
        """The rows of the first split."""
        return [r for r in self.rows if r["split"] == self.rows[0]["split"]]

    @property
    def simulated(self) -> bool:
        """Whether notes or generator are artificial."""
        return any(r["simulated"] for r in self.rows)

    @property
    def dataset(self) -> Dataset:
        """Read the results Dataset."""
        return read_dataset(self.out / "results")


def read_cells(out: Path, planned: Iterable[tuple[Cell, str]]) -> tuple[list[Row], list[Row]]:
    """Read the rows of finished cells and the failures of others, in the order of the plan."""
    done: list[Row] = []
    failed: list[Row] = []
    for cell, key in planned:
        for path, rows in ((out / "cells" / f"{key}.json", done), (out / "cells" / f"{key}.failed.json", failed)):
            if path.is_file():
                try:
                    content = json.loads(path.read_text(encoding="utf-8"))
                except ValueError:
                    raise HfSynthError(f"{path} is broken; remove it and run the experiment again") from None
                # names of models may have changed under the same key: those of the plan count
                rows += [{**row, **cell.to_json()} for row in ([content] if isinstance(content, dict) else content)]
                break
    return done, failed


def write_results(
    task: Task, out: Path, planned: Sequence[tuple[Cell, str]], *, rates: Rates | None = None, **facts: Any
) -> Results:
    """Write results/ of the finished cells, with `facts` in its manifest.

    Raises:
        MissingGoldError: no cell is finished.
    """
    rows, failed = read_cells(out, planned)
    if not rows:
        why = sorted({f"{f['error']}: {f['message']}" for f in failed})
        raise MissingGoldError(f"no cell of the experiment came to an end ({'; '.join(why) or 'none was run'})")
    for cells in grouped(rows).values():
        golds = {row["gold_sha256"] for row in cells}
        for row in cells:
            row["gold_distinct"] = len(golds)  # 1 for several seeds of all the gold there is
    metric = main_metric(task, rows)
    first = [r for r in rows if r["split"] == rows[0]["split"]]
    pool = len(read_export(out / "gold")["train"]) if (out / "gold").is_dir() else None
    compared = comparisons(first, metric, pool=pool, out=out)
    results = Results(out, rows, failed, metric, compared, equivalences(out, first, metric, rates), pool)
    tables = {"comparisons": [vars(c) for c in results.comparisons], "equivalence": [str(w) for w in results.worths]}
    facts = {"metric": metric, "failed": len(failed), **tables, **facts}
    write_stage(task, _dataset(rows), out / "results", stage="experiment", **facts)
    return results


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
    """Return the metric that cells are compared by: macro-F1 where there is one, else the task's first metric."""
    return next((m for m in ("macro_f1", *task.metrics, "rougeL", "accuracy") if m in rows[0]), "accuracy")


# --- differences over seeds -------------------------------------------------------------------------------------------
def comparisons(
    rows: Sequence[Row], metric: str, *, pool: int | None = None, out: Path | None = None
) -> list[Comparison]:
    """Compare kinds of cells over the seeds they share, with Holm's correction over all comparisons.

    Baseline degradation: raw rows minus gold alone of the same size. Correction gain: corrected minus raw rows of the
    same strategy. Generators are compared with each other, and so are correctors.

    Args:
        pool: gold rows that the seeds draw from; None: their gold counts as independent.
        out: folder of the experiment, with the predictions of each cell; without it the chance of the test rows is not
            in the intervals.
    """
    runs = {group: {row["seed"]: row for row in cells} for group, cells in grouped(rows).items()}
    pairs: list[tuple[Comparison, _Gaps]] = []
    for group, mine in runs.items():
        if group.strategy in ALONE:
            continue
        where = f"{short_name(group.base_model)}, {group.gold_size:,} gold"
        where += f", ratio {group.ratio:g}" if group.ratio else ""
        arm = f"{group.strategy} {group.labels}"
        raw = group._replace(labels="raw", corrector="")
        if group == raw:
            gold = Group(group.base_model, group.gold_size, "gold", "", 0.0, "", "")
            kind, what, theirs = "baseline degradation", f"{arm} - gold", runs.get(gold, {})
        else:
            kind, what, theirs = "correction gain", f"{arm} - {group.strategy} raw", runs.get(raw, {})
        found = [(kind, what, f"{where}, {group.generator}", theirs)]
        for other, theirs in runs.items():
            if other > group and other[:5] == group[:5]:
                if other.corrector == group.corrector and other.generator != group.generator:
                    names = f"{group.generator} - {other.generator}"
                    found.append(("generator", f"{arm}: {names}", where, theirs))
                if other.generator == group.generator and other.corrector != group.corrector:
                    names = f"{short_name(group.corrector)} - {short_name(other.corrector)}"
                    found.append(("corrector", f"{arm}: {names}", where, theirs))
        for kind, what, where, theirs in found:
            seeds = sorted(set(mine) & set(theirs))
            if seeds:
                gaps = _gaps(metric, [mine[s] for s in seeds], [theirs[s] for s in seeds], pool, out)
                pairs.append((Comparison(kind, what, where, len(seeds), float(gaps.values.mean()), None, None), gaps))
    return _with_tests(pairs)


class _Gaps(NamedTuple):
    """Differences of paired cells, (seeds,), the share of the pool each has, and the variance by test rows."""

    values: Floats
    shared: float
    test_variance: float


def _gaps(metric: str, mine: Sequence[Row], theirs: Sequence[Row], pool: int | None, out: Path | None) -> _Gaps:
    values = np.array([float(a[metric]) - float(b[metric]) for a, b in zip(mine, theirs, strict=True)])
    effects = [_test_effects(out, row, metric) for row in (*mine, *theirs)] if out is not None else [None]
    variance = 0.0
    known = [e for e in effects if e is not None]
    if len(known) == len(effects) and len({len(e) for e in known}) == 1 and len(known[0]) > 1:
        first, second = np.split(np.array(known), 2)
        difference, groups = (first - second).mean(0), len(known[0])
        variance = groups / (groups - 1) * float(difference @ difference)
    return _Gaps(values, overlap(mine[0]["gold_size"], pool), variance)


def _test_effects(out: Path, row: Row, metric: str) -> Floats | None:
    """Return what each group of test rows adds to a cell's score, (G,); None where that is not known."""
    score = metric_of_counts(metric)
    counts = group_counts(out, row["cell_key"], row["split"]) if score is not None and "cell_key" in row else None
    if score is None or counts is None:
        return None
    _, gradient = linearise(counts.sum(0), lambda sums: {metric: score(sums)}, [metric])
    return np.asarray(counts @ gradient[:, 0])


def _with_tests(pairs: Sequence[tuple[Comparison, _Gaps]]) -> list[Comparison]:
    """Add intervals and adjusted p-values."""
    from scipy.special import stdtr

    p_values, tested = [], []
    for comparison, (values, shared, test_variance) in pairs:
        why = too_few(len(values)) or ("the same gold" if shared >= 1 else "")
        if not why and float(values.std(ddof=1)) <= _NO_SPREAD:
            why = "no spread"  # equal differences are one run made again, and show nothing of chance
        ends = None if why else interval_over_seeds(values, overlap=shared, test_variance=test_variance)
        if ends is not None:
            error, free = error_over_seeds(values, overlap=shared, test_variance=test_variance)
            p_values.append(2 * float(stdtr(free, -abs(comparison.difference) / error)))
        tested.append(replace(comparison, ci95=ends, no_interval=why))
    adjusted = iter(holm(p_values))
    return [c if c.ci95 is None else replace(c, p_holm=float(next(adjusted))) for c in tested]


# --- gold equivalence -------------------------------------------------------------------------------------------------
def equivalences(out: Path, rows: Sequence[Row], metric: str, rates: Rates | None = None) -> list[Worth]:
    """Read the gold equivalence of every mixture off the curve of gold alone of the same base model.

    Needs two gold sizes and two seeds of everything; returns nothing for mixtures with fewer. There is an interval from
    `equivalence.MIN_RUNS` seeds on.
    """
    groups, score = grouped(rows), metric_of_counts(metric)
    curves: dict[str, dict[int, list[Run]]] = defaultdict(dict)
    for group, cells in groups.items():
        if group.strategy == "gold" and len(cells) > 1:
            curves[group.base_model][group.gold_size] = [_run(out, row, metric) for row in cells]
    worths = []
    for group, cells in groups.items():
        curve = curves.get(group.base_model, {})
        if group.strategy in ALONE or len(curve) < 2 or len(cells) < 2:
            continue
        equivalence = gold_equivalence(curve, [_run(out, row, metric) for row in cells], metric=score)
        gold = round(mean_of(cells, "gold_budget"))
        corrector = f"labels by {group.corrector}" if group.corrector not in ("", group.base_model) else ""
        names = [cells[0]["arm"], f"ratio {group.ratio:g}", short_name(corrector), short_name(group.generator)]
        worths.append(
            Worth(
                arm=", ".join(filter(None, names)),
                gold=gold,
                synthetic=round(mean_of(cells, "n_synthetic")),
                base_model=short_name(group.base_model),
                equivalence=equivalence,
                costs=cost_benefit(equivalence, gold, _spent(cells), rates),
                simulated=any(row["simulated"] for row in cells),
                size=group.gold_size,
                score=mean_of(cells, metric),
            )
        )
    return worths


def _run(out: Path, row: Row, metric: str) -> Run:
    return Run(float(row[metric]), row["seed"], group_counts(out, row["cell_key"], row["split"]))


def group_counts(out: Path, key: str, split: str) -> Floats | None:
    """Return the confusion counts of each group of test rows, (G, K*K); None for a cell without labels by row."""
    path = out / "cells" / f"{key}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        truth, predicted, groups = (arrays[f"{split}_{name}"] for name in ("labels", "predictions", "groups"))
    if not len(truth):
        return None
    rows = json.loads((out / "cells" / f"{key}.json").read_text(encoding="utf-8"))
    n_counts = sum(len(line) for row in rows if row["split"] == split for line in json.loads(row["confusion"]))
    k = max(int(truth.max()) + 1, int(predicted.max()) + 1, int(np.sqrt(n_counts)))  # not every label need occur
    sums = np.zeros((int(groups.max()) + 1, k * k))
    np.add.at(sums, (groups, truth * k + predicted), 1.0)
    return sums


def metric_of_counts(metric: str) -> Callable[[Floats], Floats] | None:
    """Return macro-F1 or accuracy as a function of confusion counts (B, K*K) -> (B,); None for another metric.

    Macro-F1 is over the labels that occur in truth or predictions, as in scikit-learn and `evaluate`.
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
    """Return the cost of one run, the mean over runs: a user makes a single one."""
    costs = [
        row["cost_usd"] + (row.get("judge_cost_usd") or 0.0)
        for row in cells
        if row["cost_usd"] is not None and (row.get("judge_cost_usd") is not None or not row.get("judge_calls"))
    ]
    cpu = [(row["cpu_seconds"] + row["cpu_seconds_correct"]) / 3600 for row in cells]
    gpu = [(row.get("gpu_seconds", 0.0) + row.get("gpu_seconds_correct", 0.0)) / 3600 for row in cells]
    calls, prompt_tokens, completion_tokens = (
        round(float(np.mean([row[c] + row.get(f"judge_{c}", 0) for row in cells])))
        for c in ("calls", "prompt_tokens", "completion_tokens")
    )
    usd = float(np.mean(costs)) if costs else None
    return Spent(calls, prompt_tokens, completion_tokens, usd, float(np.mean(cpu)), float(np.mean(gpu)))
