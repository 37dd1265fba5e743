"""Grids of an experiment and their cells. A cell is one model, trained on one mixture and scored.

Plain values: nothing here reads a row. `plan` lists the cells of a `Grid`, each once: gold alone depends on no ratio
and no generator, raw labels on no corrector.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hf_synth.correction.augmentation import STRATEGIES
from hf_synth.correction.methods import DESCRIBED, CorrectionOptions
from hf_synth.correction.policy import MEASURED, METHODS
from hf_synth.errors import TaskError
from hf_synth.task.task import Task

LINEAR = "linear"  # a linear head on frozen features, instead of a base model
RAW = "raw"  # the generator's labels, uncorrected
ALL = 0  # as a gold size: all rows
MIXTURES = STRATEGIES[1:]  # of gold and synthetic rows
FREQUENCY, ZERO_SHOT = BASELINES = ("frequency", "zero-shot")  # arms without training (baselines.py)
ALONE = (STRATEGIES[0], *BASELINES)  # arms without synthetic rows
LLM_JUDGE = "llm_judge"  # labels by an LLM judge, combined with the generator's
AUTO, AUTO_MACRO_F1 = "auto", "auto_macro_f1"  # the method that `auto` chooses by accuracy, and by macro-F1
_LABELS = (RAW, AUTO, AUTO_MACRO_F1, *(name for name in DESCRIBED if name != "none"), LLM_JUDGE)  # "none" is "raw"
_OF_ANY_GOLD = (RAW, AUTO, *(m for m in METHODS if m not in ("none", "gold_only", *MEASURED)))

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Cell:
    """One model of an experiment. Fields that do not apply are empty.

    Args:
        base_model: "linear", or folder or repo id of an encoder; the judge's name for "zero-shot", "" for "frequency".
        gold_size: its own gold rows, for generator, corrector and training; 0 for "zero-shot".
        strategy: of `augment`: "gold", "synthetic", "replace" or "augment"; or one of BASELINES.
        labels: "raw", "auto", "auto_macro_f1" (`auto` by macro-F1) or a method of correction; "" for gold alone and
            baselines.
        ratio: synthetic rows for each gold row, before correction; 0 for gold alone.
        generator: name of the generator of the synthetic rows.
        corrector: base model of the corrector, or the judge's name; "" without correction.
        seed: of the gold subset, the generation, the correction and the training.
    """

    base_model: str
    gold_size: int
    strategy: str
    labels: str
    ratio: float
    generator: str
    corrector: str
    seed: int

    @property
    def arm(self) -> str:
        """The mixture, whatever size, seed and model: "gold", "augment raw", "replace auto"."""
        return self.strategy if self.strategy in ALONE else f"{self.strategy} {self.labels}"

    @property
    def judge(self) -> str:
        """The name of the judge; "" without one."""
        return self.base_model if self.strategy == ZERO_SHOT else self.corrector if self.labels == LLM_JUDGE else ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Grid:
    """The cells of an experiment: every arm at every size, ratio, generator, corrector, base model and seed.

    Args:
        sizes: gold sizes of the arms; 0 for all rows.
        arms: "gold", or strategy and labels: "augment raw", "replace auto"; "frequency", the most frequent label of
            each gold subset; "zero-shot", the labels of a judge that sees no gold, once for all seeds.
        ratios: synthetic rows for each gold row.
        seeds: each with its own gold subset, generation, correction and training.
        curve: further sizes of gold alone, for the learning curve that equivalence is read off.
        base_models: "linear", or folders or repo ids of encoders.
        generators: names; empty for all generators of the experiment.
        correctors: base models of correctors; empty for that of the cell.
        judges: names, for arms with a judge ("augment llm_judge"); empty for all judges of the experiment.

    Example:
        >>> Grid(sizes=(100, 200), arms=("gold", "augment auto"), ratios=(2.0,), seeds=(0, 1, 2)).sizes
        (100, 200)
    """

    sizes: tuple[int, ...] = (200,)
    arms: tuple[str, ...] = ("gold", "augment raw", "augment auto")
    ratios: tuple[float, ...] = (4.0,)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    curve: tuple[int, ...] = ()
    base_models: tuple[str, ...] = (LINEAR,)
    generators: tuple[str, ...] = ()
    correctors: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for arm in self.arms:
            strategy, _, labels = arm.partition(" ")
            if arm not in ALONE and (strategy not in MIXTURES or labels not in _LABELS):
                raise TaskError(
                    f"unknown arm {arm!r}: give {', '.join(ALONE)}, or one of {', '.join(MIXTURES)} and one of "
                    f"{', '.join(_LABELS)}, e.g. 'augment auto'"
                )
        if min((*self.sizes, *self.curve), default=0) < 0 or min(self.ratios, default=1) <= 0:
            raise TaskError("gold sizes are numbers of rows (0: all), ratios are above 0")


@dataclass(frozen=True)
class ScoringProtocol:
    """How each cell of an experiment is trained and scored.

    Args:
        splits: splits of the gold that every model is scored on.
        validation: share of each cell's own gold held back for early stopping, in whole groups (patients).
        drop_seen: leave out test rows that are in the training split, or whose group (patient) is, and synthetic rows
            that copy test rows, instead of an error.
        swaps: also predict test notes that name the patient's sex, age or race with only these words swapped: up to
            three more predictions a note.
        n_bootstrap: 0 leaves the intervals of scores out; they are formulas, any other number gives the same.
    """

    splits: tuple[str, ...] = ("test",)
    validation: float = 0.0
    drop_seen: bool = False
    swaps: bool = False
    n_bootstrap: int = 1000


_EVERY = ("gold", "synthetic raw", "synthetic auto", "replace raw", "replace auto", "augment raw", "augment auto")
GRIDS: Mapping[str, Grid] = {
    # three experiments in one: how far raw rows fall behind gold, what correction gains, how many rows are enough
    "paper": Grid(
        sizes=(200,), curve=(50, 100, 400, 800, ALL), ratios=(1.0, 2.0, 4.0, 8.0),
        arms=("gold", "synthetic raw", "synthetic argmax", "augment raw", "augment argmax", "augment auto"),
    ),
    # 60 cells: the order of the arms, and gold equivalence
    "clinic": Grid(sizes=(200,), curve=(100, 400, 800, ALL), arms=(*_EVERY, "augment argmax")),
    "ablations": Grid(sizes=(100, 400), arms=("gold", *(f"{s} {m}" for s in STRATEGIES[1:] for m in (RAW, "argmax", "auto")))),  # noqa: E501
    "policies": Grid(sizes=(50, 200), arms=("gold", *(f"augment {m}" for m in _OF_ANY_GOLD))),
    "generators": Grid(sizes=(200,), arms=("gold", "synthetic raw", "augment raw", "augment auto")),
    "correctors": Grid(sizes=(200,), arms=("gold", "augment raw", "augment argmax", "augment auto")),
}  # fmt: skip


def read_grid(name_or_file: str) -> Grid:
    """Return a grid by name (GRIDS), or from a .json or .toml file with the fields of `Grid`.

    Raises:
        TaskError: there is no such grid or file, or a field is wrong.
    """
    if name_or_file in GRIDS:
        return GRIDS[name_or_file]
    path = Path(name_or_file)
    if path.suffix.lower() not in (".json", ".toml") or not path.is_file():
        raise TaskError(f"there is no grid {name_or_file!r}; give {', '.join(GRIDS)}, or a .json or .toml file")
    try:
        read = json.loads if path.suffix.lower() == ".json" else tomllib.loads
        return with_fields(Grid(), read(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError):
        known = ", ".join(f.name for f in dataclasses.fields(Grid))
        raise TaskError(f"{path.name} holds no grid: give lists named {known}") from None


def with_fields(grid: Grid, fields: Mapping[str, Iterable[Any] | None]) -> Grid:
    """Return a grid with some fields replaced; fields that are None stay."""
    return replace(grid, **{name: tuple(values) for name, values in fields.items() if values is not None})


def plan(grid: Grid, available: int, generators: Iterable[str], judges: Iterable[str] = ()) -> list[Cell]:
    """List the cells of a grid, each once, gold alone first.

    Args:
        available: gold rows for training; a larger size is replaced by it, with a warning.
        generators: names of the experiment's generators.
        judges: names of the experiment's judges.

    Raises:
        TaskError: the grid names an unknown generator or judge, an arm needs one and there is none, or no arm uses the
            judges.
    """
    writers = _selected("generator", grid.generators, tuple(generators))
    judging = _selected("judge", grid.judges, tuple(judges))
    uses_judge = any(arm == ZERO_SHOT or arm.endswith(LLM_JUDGE) for arm in grid.arms)
    if uses_judge and not judging:
        raise TaskError(
            f"arms of {LLM_JUDGE!r} or {ZERO_SHOT!r} need a judge: give judges=LLMJudge(task, llm), or --judge"
        )
    if judging and not uses_judge:
        raise TaskError(
            f"no arm asks judge {judging[0]!r}: add 'augment {LLM_JUDGE}' or {ZERO_SHOT!r}, or give no judge"
        )
    mixtures = [arm.split(" ") for arm in grid.arms if arm not in ALONE]
    if mixtures and not writers:
        raise TaskError("arms with synthetic rows need a generator: give an LLM, a pool of rows or a function")
    too_large = sorted({n for n in (*grid.sizes, *grid.curve) if n > available})
    if too_large:
        _LOG.warning("gold has %d rows for training: sizes %s are replaced by it", available, too_large)

    def sized(sizes: Iterable[int]) -> list[int]:
        return sorted({available if n == ALL else min(n, available) for n in sizes})

    alone = sized((*grid.curve, *(grid.sizes if "gold" in grid.arms else ())))
    cells: dict[Cell, None] = {}
    if ZERO_SHOT in grid.arms:  # depends on no seed: several cells would look like several runs
        cells |= {Cell(judge, 0, ZERO_SHOT, "", 0.0, "", "", grid.seeds[0]): None for judge in judging}
    for seed in grid.seeds:
        if FREQUENCY in grid.arms:
            cells |= {Cell("", size, FREQUENCY, "", 0.0, "", "", seed): None for size in sized(grid.sizes)}
        for base in grid.base_models:
            cells |= {Cell(base, size, "gold", "", 0.0, "", "", seed): None for size in alone}
            for size, (strategy, labels) in itertools.product(sized(grid.sizes), mixtures):
                by = {RAW: ("",), LLM_JUDGE: judging}.get(labels, grid.correctors or (base,))
                cells |= {
                    Cell(base, size, strategy, labels, float(ratio), generator, corrector, seed): None
                    for ratio, generator, corrector in itertools.product(grid.ratios, writers, by)
                }
    return sorted(cells, key=lambda c: (c.strategy != "gold", c.seed, c))


def _selected(what: str, names: tuple[str, ...], available: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in available]
    if unknown:
        raise TaskError(f"the grid names {what} {unknown[0]!r}; there are {', '.join(available) or 'none'}")
    return names or available


@dataclass(frozen=True, kw_only=True)
class Study(ScoringProtocol):
    """The protocol of an experiment and what its cells share. Plain values, so that other processes can receive it.

    Args:
        task: of the gold.
        out: the experiment's folder.
        args: fields of `TrainingArguments` for every model.
        generators: identities of the generators, by name.
        pools: names of generators that are Datasets: stored once, whatever the cell.
        judges: identities of the judges, by name.
        audited: audited labels of synthetic rows, by row id.
    """

    task: Task
    out: Path
    args: Mapping[str, Any] | None = None
    generators: Mapping[str, str] = field(default_factory=dict)
    pools: tuple[str, ...] = ()
    judges: Mapping[str, str] = field(default_factory=dict)
    audited: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One stage of a cell: its correction ("correct"), or its training and scoring ("cell").

    Args:
        kind: "correct" or "cell".
        cell: the cell.
        pool: key of its synthetic rows; "" for gold alone.
        corrected: key of its corrected rows; "" without correction.
        key: key of this stage.
        rows: synthetic rows wanted of its generation, for the largest ratio.
        judged: key of a judge's opinions of its rows; "" without a judge.
    """

    kind: str
    cell: Cell
    pool: str
    corrected: str
    key: str
    rows: int = 0
    judged: str = ""


def correction_options(labels: str, **options: Any) -> CorrectionOptions:
    """Return how the labels of an arm are corrected: its method, with the metric that `auto` chooses by."""
    if labels == AUTO_MACRO_F1:
        return CorrectionOptions(AUTO, auto_metric="macro_f1", **options)
    return CorrectionOptions(labels, **options)


def key_of(*parts: Any) -> str:
    """Return the key of a stage: a hash of everything it depends on, 16 hex digits."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
