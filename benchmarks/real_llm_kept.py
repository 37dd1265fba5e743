"""Kept results of real_llm.py: the studies of its folders, and differences between kinds of their runs.

A study is one part of one task and generator in one folder (FOLDER/<task>/<part>): its runs differ in training mix,
ratio and seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.evaluation.intervals import linearise
from hf_synth.evaluation.statistics import error_over_seeds, interval_over_seeds
from hf_synth.experiments.cells import gold_of
from hf_synth.experiments.grid import Cell
from hf_synth.experiments.groups import overlap, short_name
from hf_synth.experiments.results import Results, comparisons, equivalences, metric_of_counts, read_cells
from hf_synth.gold.adoption import read_dataset

PARTS = {"linear": "linear head", "encoder": "fine-tuned MiniLM", "judge": "linear head, SmolLM2 as the judge"}
TASKS = {"sdoh_nli:pair": "SDOH-NLI", "mts_dialog:section": "MTS-Dialog sections"}
GENERATORS = {"smollm2": "SmolLM2 135M", "gemma3-270m": "Gemma 3 270M"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """The kept results of one study.

    Args:
        part: "linear", "encoder" or "judge".
        results: as `experiment` returned them.
        first: whether no study before it has the same task, part and generator.
    """

    part: str
    results: Results
    first: bool = True

    @property
    def task(self) -> str:
        """The full name of the task."""
        return str(self.results.rows[0]["task"])

    @property
    def generator(self) -> str:
        """The generator's name in the grid."""
        return next(str(r["generator"]) for r in self.results.rows if r["generator"])

    @property
    def title(self) -> str:
        """What was run, in words."""
        writer = GENERATORS.get(self.generator, self.generator)
        more = "" if self.first else f", {max(self.ratios) * self.gold:,.0f} wanted"
        return f"{TASKS.get(self.task, self.task)}, {PARTS[self.part]}; notes by {writer}{more}"

    @property
    def gold(self) -> int:
        """The gold size of the mixtures."""
        return max(int(r["gold_size"]) for r in self.results.main if r["generator"])

    def runs(self, arm: str, ratio: float) -> dict[int, Row]:
        """Return the runs of a training mix by seed, at the gold size of the mixtures."""
        same = [r for r in self.results.main if r["arm"] == arm and r["gold_size"] == self.gold]
        return {r["seed"]: r for r in same if r["ratio"] == (0.0 if arm == "gold" else ratio)}

    @property
    def ratios(self) -> list[float]:
        """The ratios of the mixtures, ascending."""
        return sorted({r["ratio"] for r in self.results.main if r["generator"]})


def read_kept(folders: Iterable[Path]) -> list[Kept]:
    """Read the studies of folders of real_llm.py that have results."""
    found: list[Kept] = []
    for folder in folders:
        for part in PARTS:
            found += [Kept(part, results_of(p.parent.parent)) for p in sorted(folder.glob(f"*/{part}/results/*.json"))]
    kept, seen = [], set()
    for k in (k for k in found if any(r["generator"] for r in k.results.rows)):  # gold alone is no study of notes
        name = k.task, k.part, k.generator
        kept.append(replace(k, first=name not in seen))
        seen.add(name)
    known = [*TASKS, *sorted({k.task for k in kept} - set(TASKS))]
    return sorted(kept, key=lambda k: (known.index(k.task), k.generator != "smollm2", not k.first))


def results_of(out: Path) -> Results:
    """Read the results of an experiment's folder again, with the failed runs and all comparisons."""
    stored = list(read_dataset(out / "results"))
    planned = [(Cell(**{name: r[name] for name in Cell.__dataclass_fields__}), r["cell_key"]) for r in stored]
    rows, _ = read_cells(out, planned)
    rows = [{**row, "gold_distinct": before["gold_distinct"]} for row, before in zip(rows, stored, strict=True)]
    failed = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("cells/*.failed.json"))]
    failed, pool = [{**f, **f["cell"]} for f in failed], len(gold_of(out)["train"])
    compared = comparisons(rows, "macro_f1", pool=pool, out=out)
    return Results(out, rows, failed, "macro_f1", compared, equivalences(out, rows, "macro_f1"), pool)


# --- differences of two training mixes --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Difference:
    """The mean difference of macro-F1 of two kinds of runs over the seeds of both.

    Args:
        seeds: number of pairs.
        mean: of the first minus the second.
        ci95: None with fewer than three pairs, or where all pairs have the same difference.
        p: of the two-sided t test, unadjusted; None without `ci95`.
    """

    seeds: int
    mean: float
    ci95: tuple[float, float] | None
    p: float | None


def predictions_of(kept: Kept, row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, predictions and groups of the test rows of a run."""
    with np.load(kept.results.out / "cells" / f"{row['cell_key']}.npz", allow_pickle=False) as arrays:
        truth, predicted, groups = (arrays[f"{row['split']}_{n}"] for n in ("labels", "predictions", "groups"))
    return truth, predicted, groups


def effects_of(kept: Kept, row: Row, mask: np.ndarray | None) -> tuple[float, np.ndarray]:
    """Return macro-F1 of a run, and what each group of test rows adds to it; only rows of the mask count."""
    truth, predicted, groups = predictions_of(kept, row)
    k = len(json.loads(row["per_class"]))
    chosen = np.ones(len(truth), bool) if mask is None else mask
    sums = np.zeros((int(groups.max()) + 1, k * k))
    np.add.at(sums, (groups[chosen], (truth * k + predicted)[chosen]), 1.0)
    score = metric_of_counts("macro_f1")
    assert score is not None
    value, gradient = linearise(sums.sum(0), lambda counts: {"macro_f1": score(counts)}, ["macro_f1"])
    return float(value[0]), np.asarray(sums @ gradient[:, 0])


def difference(
    mine: tuple[Kept, dict[int, Row]], theirs: tuple[Kept, dict[int, Row]], mask: np.ndarray | None = None
) -> Difference:
    """Compare two kinds of runs on the same test rows, as `experiment` does."""
    from scipy.special import stdtr

    seeds = sorted(set(mine[1]) & set(theirs[1]))
    pairs = [(effects_of(mine[0], mine[1][s], mask), effects_of(theirs[0], theirs[1][s], mask)) for s in seeds]
    values = np.array([a[0] - b[0] for a, b in pairs])
    mean = float(values.mean()) if seeds else float("nan")
    if len(seeds) < 3 or values.std(ddof=1) <= 1e-12:
        return Difference(len(seeds), mean, None, None)
    by_group = np.mean([a[1] - b[1] for a, b in pairs], axis=0)
    groups = len(by_group)
    variance = groups / (groups - 1) * float(by_group @ by_group)
    shared = overlap(next(iter(mine[1].values()))["gold_size"], mine[0].results.gold_pool)
    ends = interval_over_seeds(values, overlap=shared, test_variance=variance)
    error, free = error_over_seeds(values, overlap=shared, test_variance=variance)
    return Difference(len(seeds), mean, ends, 2 * float(stdtr(free, -abs(mean) / error)) if ends else None)


# --- one line a run -------------------------------------------------------------------------------------------------
_FIELDS = (
    "task", "base_model", "generated_by", "corrector", "gold_size", "arm", "ratio", "seed", "macro_f1", "accuracy",
    "ece", "n_train", "n_synthetic", "policy", "calls", "prompt_tokens", "completion_tokens", "seconds_generate",
    "seconds_correct", "seconds", "pool_key", "cell_key",
)  # fmt: skip


def run_lines(folders: Sequence[Path]) -> str:
    """Return one JSON line for each run: what it was trained on, its score, and what it cost."""
    lines = []
    for k in read_kept(folders):
        for row in k.results.rows:
            line = {name: round(v, 4) if isinstance(v := row[name], float) else v for name in _FIELDS}
            line |= {name: short_name(row[name]) for name in ("base_model", "corrector")}
            lines.append(json.dumps({"part": k.part, **line}) + "\n")
    return "".join(lines)
