"""What an experiment found: a results Dataset, differences between kinds of cells, and what mixtures are worth.

One row a cell and test split, with every figure and what it follows from. Differences are paired over seeds, since
cells of one seed share their gold, their synthetic rows and the test rows.
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

from hf_synth.errors import HfSynthError, MissingGoldError
from hf_synth.evaluation.statistics import holm
from hf_synth.experiments.equivalence import CostBenefit, Equivalence, Rates, Run, Spent, cost_benefit, gold_equivalence
from hf_synth.experiments.grid import ALONE, Cell
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.folders import write_stage
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
GROUP = ("base_model", "gold_size", "strategy", "labels", "ratio", "generator", "corrector")
_NO_SPREAD = 1e-12  # of scores: rounding
_OPTIONAL = {"cost_usd": float, "judge_cost_usd": float, "test_groups": int}  # columns that may be null in every row


@dataclass(frozen=True)
class Comparison:
    """The difference between two kinds of cells, paired over seeds.

    Args:
        kind: "baseline degradation", "correction gain", "generator", "corrector".
        what: which is compared with which.
        where: base model, gold size, ratio.
        seeds: pairs.
        difference: mean of the first minus the second.
        ci95: by Student's t over the pairs; None for one pair, and for pairs whose differences are all the same.
        p_holm: of the two-sided t test, adjusted for all comparisons of the experiment; None where there is no `ci95`.
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
        out: its folder, with results/, report.html and report.md.
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
    def main(self) -> list[Row]:
        """Give the rows of the first split."""
        return [r for r in self.rows if r["split"] == self.rows[0]["split"]]

    @property
    def simulated(self) -> bool:
        """Tell whether notes or generator are artificial."""
        return any(r["simulated"] for r in self.rows)

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
    task: Task, out: Path, planned: Sequence[tuple[Cell, str]], *, rates: Rates | None = None, **facts: Any
) -> Results:
    """Write results/ of the cells that are done; `facts` are told with them.

    Raises:
        MissingGoldError: no cell is done.
    """
    rows, failed = read_cells(out, planned)
    if not rows:
        why = sorted({f"{f['error']}: {f['message']}" for f in failed})
        raise MissingGoldError(f"no cell of the experiment came to an end ({'; '.join(why) or 'none was run'})")
    _count_golds(rows)
    metric = main_metric(task, rows)
    first = [r for r in rows if r["split"] == rows[0]["split"]]
    made = Results(out, rows, failed, metric, comparisons(first, metric), equivalences(out, first, metric, rates))
    write_stage(
        task, _dataset(rows), out / "results", stage="experiment", metric=metric, failed=len(failed),
        comparisons=[vars(c) for c in made.comparisons], equivalence=[str(w) for w in made.worths],
        **facts,
    )  # fmt: skip
    return made


def _count_golds(rows: Sequence[Row]) -> None:
    """Tell with each row how many different golds the seeds of its kind of cell have: of all the gold there is one."""
    found: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in rows:
        found[tuple(row[name] for name in GROUP)].add(row["gold_sha256"])
    for row in rows:
        row["gold_distinct"] = len(found[tuple(row[name] for name in GROUP)])


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
        where = f"{short_name(base)}, {size:,} gold" + (f", ratio {ratio:g}" if ratio else "")
        arm = f"{strategy} {labels}"
        if strategy in ALONE:
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
                    names = f"{short_name(corrector)} - {short_name(other[6])}"
                    _compare(raws, "corrector", f"{arm}: {names}", where, mine, theirs)
    return _tested(raws)


def _by_group(rows: Sequence[Row], metric: str) -> dict[tuple[Any, ...], dict[int, float]]:
    runs: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    for row in rows:
        runs[tuple(row[name] for name in GROUP)][row["seed"]] = float(row[metric])
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
        error = float(gaps.std(ddof=1)) / np.sqrt(n) if n > 1 else 0.0
        if error > _NO_SPREAD:  # pairs that are all alike are one run made again: they tell nothing of chance
            half = float(t.ppf(0.975, n - 1)) * error
            ends = (comparison.difference - half, comparison.difference + half)
            p_values.append(float(2 * t.sf(abs(comparison.difference) / error, n - 1)))
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
        by_group[tuple(row[name] for name in GROUP)].append(row)
    score = metric_of_counts(metric)
    curves: dict[str, dict[int, list[Run]]] = defaultdict(dict)
    for group, cells in by_group.items():
        if group[2] == "gold" and len(cells) > 1:
            curves[group[0]][group[1]] = [_run(out, row, metric) for row in cells]
    found = []
    for group, cells in by_group.items():
        curve = curves.get(group[0], {})
        if group[2] in ALONE or len(curve) < 2 or len(cells) < 2:
            continue
        worth = gold_equivalence(curve, [_run(out, row, metric) for row in cells], metric=score)
        n = round(float(np.mean([row["n_synthetic"] for row in cells])))
        simulated = any(row["simulated"] for row in cells)
        gold = round(float(np.mean([row["gold_budget"] for row in cells])))
        names = [f"labels by {group[6]}" if group[6] not in ("", group[0]) else "", group[5]]
        arm = ", ".join(filter(None, [cells[0]["arm"], f"ratio {group[4]:g}", *map(short_name, names)]))
        found.append(
            Worth(arm, gold, n, short_name(group[0]), worth, cost_benefit(worth, gold, _spent(cells), rates), simulated)
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
    costs = [
        row["cost_usd"] + (row.get("judge_cost_usd") or 0.0) for row in cells
        if row["cost_usd"] is not None and (row.get("judge_cost_usd") is not None or not row.get("judge_calls"))
    ]  # fmt: skip
    cpu = [(row["cpu_seconds"] + row["cpu_seconds_correct"]) / 3600 for row in cells]
    gpu = [(row.get("gpu_seconds", 0.0) + row.get("gpu_seconds_correct", 0.0)) / 3600 for row in cells]
    calls, read, said = (
        round(float(np.mean([row[c] + row.get(f"judge_{c}", 0) for row in cells])))
        for c in ("calls", "prompt_tokens", "completion_tokens")
    )
    return Spent(calls, read, said, float(np.mean(costs)) if costs else None, float(np.mean(cpu)),
                 float(np.mean(gpu)))  # fmt: skip


def short_name(name: str) -> str:
    """Name a model in a table: a folder by its last part."""
    return Path(name).name if name.startswith(("/", ".")) else name


# --- how cells are grouped and named ----------------------------------------------------------------------------------
def grouped(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Put cells that differ in their seed alone together."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in GROUP)].append(row)
    return dict(found)


def naming(rows: Sequence[Row], *, ratio: bool = True) -> Callable[[Row], str]:
    """Give what names a row's mixture: its arm, and what else differs among the mixtures."""
    told = [n for n in ("ratio", "generator", "corrector") if n != "ratio" or ratio]
    differ = [n for n in told if len({r[n] for r in rows if r[n]}) > 1]

    def name(row: Row) -> str:
        more = [f"ratio {row[n]:g}" if n == "ratio" else f"{n} {short_name(row[n])}" for n in differ if row[n]]
        return ", ".join([row["arm"], *more])

    return name


def mean_of(rows: Sequence[Row], column: str) -> float:
    """Give the mean of a column."""
    return float(np.mean([row[column] for row in rows]))


def with_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Give the mean and its 95% interval by Student's t; none for a single value."""
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, None, None
    half = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / float(np.sqrt(n))
    return mean, max(0.0, mean - half), min(1.0, mean + half)  # the scores compared lie between 0 and 1
