"""Groups of runs that differ in their seed alone: their names, mean scores and intervals over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hf_synth.evaluation.intervals import half_width_error
from hf_synth.evaluation.statistics import interval_over_seeds
from hf_synth.experiments.names import mix_name

Row = dict[str, Any]
MIN_SEEDS = 3  # fewer runs do not show how much runs vary


class Group(NamedTuple):
    """The fields that cells share when they differ in their seed alone; as in `Cell`."""

    base_model: str
    gold_size: int
    strategy: str
    labels: str
    ratio: float
    generator: str
    corrector: str


def grouped(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Group rows of cells that differ in their seed alone."""
    groups: dict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        groups[Group(*(row[name] for name in Group._fields))].append(row)
    return dict(groups)


def naming(rows: Sequence[Row], *, ratio: bool = True) -> Callable[[Row], str]:
    """Return a function that names a row's training mix, with the fields in which the mixes differ."""
    fields = ("ratio", "generator", "corrector") if ratio else ("generator", "corrector")
    differ = [n for n in fields if len({r[n] for r in rows if r[n]}) > 1]

    def name(row: Row) -> str:
        more = [f"ratio {row[n]:g}" if n == "ratio" else f"{n} {short_name(row[n])}" for n in differ if row[n]]
        return ", ".join([mix_name(row["arm"]), *more])

    return name


def short_name(name: str) -> str:
    """Shorten the name of a model for a table: a folder to its last part."""
    return Path(name).name if name.startswith(("/", ".")) else name


def mean_of(rows: Sequence[Row], column: str) -> float:
    """Return the mean of a column."""
    return float(np.mean([row[column] for row in rows]))


def overlap(gold_size: int, pool: int | None) -> float:
    """Return the share of the pool of gold that each seed has; 0 where the pool is not known."""
    return min(1.0, gold_size / pool) if pool else 0.0


def with_interval(
    values: Sequence[float], shared: float = 0.0, test_variance: float = 0.0
) -> tuple[float, float | None, float | None]:
    """Return the mean of scores over seeds and its 95% interval; no interval for fewer than MIN_SEEDS values.

    Args:
        shared: share of the pool of gold that each seed has (`overlap`).
        test_variance: variance of the mean by the choice of test rows.
    """
    mean = float(np.mean(values))
    limits = interval_over_seeds(values, overlap=shared, test_variance=test_variance)
    if limits is None or too_few(len(values)):
        return mean, None, None
    return mean, max(0.0, limits[0]), min(1.0, limits[1])  # the scores compared lie between 0 and 1


def over_seeds(cells: Sequence[Row], metric: str, pool: int | None) -> tuple[float, float | None, float | None]:
    """Return the mean score of cells that differ in their seed alone, and its 95% interval.

    The chance of the test rows, the same for all seeds, is read from the intervals of the cells' scores.
    """
    ends = [(row.get(f"{metric}_low"), row.get(f"{metric}_high")) for row in cells]
    by_test = [half_width_error(low, high) ** 2 for low, high in ends if low is not None and high is not None]
    shared = overlap(cells[0]["gold_size"], pool)
    return with_interval([row[metric] for row in cells], shared, float(np.mean(by_test)) if by_test else 0.0)


def too_few(seeds: int) -> str:
    """Return "2 seeds: no interval" where there are too few seeds for one; else ""."""
    return f"{seeds} {'seed' if seeds == 1 else 'seeds'}: no interval" if seeds < MIN_SEEDS else ""


def interval_text(low: float | None, high: float | None, seeds: int = 0) -> str:
    """Write an interval of scores; why there is none where the number of seeds is given, else ""."""
    if low is None or high is None:
        return too_few(seeds) or "no interval" if seeds else ""
    return f"{low:.3f} to {high:.3f}"
