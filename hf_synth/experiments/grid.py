"""The plan of an experiment: which cells there are. A cell is one model, trained on one mixture and scored.

Pure values: nothing here reads a row. `plan` makes the cells of a `Grid`, each once: gold alone depends on no ratio and
no generator, raw labels on no corrector.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hf_synth.correction.augmentation import STRATEGIES
from hf_synth.correction.policy import METHODS, OF_TEXTS
from hf_synth.errors import TaskError
from hf_synth.task.task import Task

LINEAR = "linear"  # a linear head on frozen features, in the place of a base model
RAW = "raw"  # labels as the generator meant them
ALL = 0  # a gold size: every row there is
MIXTURES = STRATEGIES[1:]  # of gold and synthetic rows
FREQUENCY, ZERO_SHOT = BASELINES = ("frequency", "zero-shot")  # arms that train nothing (baselines.py)
ALONE = (STRATEGIES[0], *BASELINES)  # arms without synthetic rows
LLM_JUDGE = "llm_judge"  # labels by an LLM that reads the notes, joined with the generator's
_OF_LABELS = (RAW, "auto", *METHODS[1:])  # "none" is "raw"
_LABELS = (*_OF_LABELS, *OF_TEXTS, LLM_JUDGE)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Cell:
    """One model of an experiment. What does not bear on it is empty.

    Args:
        base_model: "linear", or folder or repo id of an encoder; of "zero-shot" the judge's name, of "frequency" "".
        gold_size: gold rows of its own: shown to the generator, given to the corrector, trained on; 0 of "zero-shot".
        strategy: of `augment`: "gold", "synthetic", "replace" or "augment"; or one of BASELINES.
        labels: "raw", "auto" or a method of correction; "" for gold alone and baselines.
        ratio: synthetic rows for each gold row, before correction; 0 for gold alone.
        generator: name of who wrote the synthetic rows.
        corrector: base model of the corrector, or the judge's name; "" where nothing is corrected.
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
        """Name what is trained on, whatever size, seed and model: "gold", "augment raw", "replace auto"."""
        return self.strategy if self.strategy in ALONE else f"{self.strategy} {self.labels}"

    @property
    def judge(self) -> str:
        """Name the judge that is asked; "" where none is."""
        return self.base_model if self.strategy == ZERO_SHOT else self.corrector if self.labels == LLM_JUDGE else ""

    @property
    def group(self) -> tuple[Any, ...]:
        """Give what its seeds share."""
        return dataclasses.astuple(self)[:-1]

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Grid:
    """Which cells an experiment has: every arm at every size, ratio, generator, corrector, base model and seed.

    Args:
        sizes: gold sizes of the arms; 0 is all there is.
        arms: "gold", or strategy and labels: "augment raw", "replace auto"; "frequency", the most frequent label of
            each gold subset; "zero-shot", once for all seeds: what a judge says of the test rows without any gold.
        ratios: synthetic rows for each gold row.
        seeds: each with a gold subset, generation, correction and training of its own.
        curve: further sizes of gold alone, to read equivalence off.
        base_models: "linear", or folders or repo ids of encoders.
        generators: names; none for all that the experiment was given.
        correctors: base models of correctors; none for the cell's own.
        judges: names, for arms that ask a judge ("augment llm_judge"); none for all that the experiment was given.
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
class Protocol:
    """How each cell of an experiment is trained and scored.

    Args:
        splits: of gold that every model is scored on.
        validation: share of each cell's own gold held back to stop its training early, whole groups (patients) of it.
        drop_seen: leave out test rows that stand in the training split, or whose group (patient) does, and synthetic
            rows that are test rows, instead of refusing them.
        swaps: also ask each model about the test notes that name the patient's sex, age or race, with only these words
            swapped: up to three more predictions a note.
        n_bootstrap: draws of the intervals of single scores.
    """

    splits: tuple[str, ...] = ("test",)
    validation: float = 0.0
    drop_seen: bool = False
    swaps: bool = False
    n_bootstrap: int = 1000


_EVERY = ("gold", "synthetic raw", "synthetic auto", "replace raw", "replace auto", "augment raw", "augment auto")
GRIDS: Mapping[str, Grid] = {
    # the three first experiments: how far raw rows fall behind gold, what correction gains, how much is enough
    "paper": Grid(
        sizes=(200,), curve=(50, 100, 400, 800, ALL), ratios=(1.0, 2.0, 4.0, 8.0),
        arms=("gold", "synthetic raw", "synthetic argmax", "augment raw", "augment argmax", "augment auto"),
    ),
    # 60 cells: the order of the arms, and gold equivalence
    "clinic": Grid(sizes=(200,), curve=(100, 400, 800, ALL), arms=(*_EVERY, "augment argmax")),
    "ablations": Grid(sizes=(100, 400), arms=("gold", *(f"{s} {m}" for s in STRATEGIES[1:] for m in (RAW, "argmax", "auto")))),  # noqa: E501
    "policies": Grid(sizes=(50, 200), arms=("gold", *(f"augment {m}" for m in _OF_LABELS))),
    "generators": Grid(sizes=(200,), arms=("gold", "synthetic raw", "augment raw", "augment auto")),
    "correctors": Grid(sizes=(200,), arms=("gold", "augment raw", "augment argmax", "augment auto")),
}  # fmt: skip


def read_grid(name_or_file: str) -> Grid:
    """Give a grid by name (GRIDS), or from a .json or .toml file with the fields of `Grid`.

    Raises:
        TaskError: there is no such grid or file, or a field is wrong.
    """
    if name_or_file in GRIDS:
        return GRIDS[name_or_file]
    path = Path(name_or_file)
    if path.suffix.lower() not in (".json", ".toml") or not path.is_file():
        raise TaskError(f"there is no grid {name_or_file!r}; give {', '.join(GRIDS)}, or a .json or .toml file")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            fields = json.loads(text)
        else:
            import tomllib

            fields = tomllib.loads(text)
        return with_fields(Grid(), fields)
    except (ValueError, TypeError, AttributeError):
        known = ", ".join(f.name for f in dataclasses.fields(Grid))
        raise TaskError(f"{path.name} is no grid: give lists named {known}") from None


def with_fields(grid: Grid, fields: Mapping[str, Iterable[Any] | None]) -> Grid:
    """Give a grid with some fields replaced; those that are None stay."""
    return replace(grid, **{name: tuple(values) for name, values in fields.items() if values is not None})


def plan(grid: Grid, available: int, generators: Iterable[str], judges: Iterable[str] = ()) -> list[Cell]:
    """Make the cells of a grid, each once, gold alone first.

    Args:
        available: gold rows for training; a larger size is taken for all there is, which is said.
        generators: names of those there are.
        judges: names of those there are.

    Raises:
        TaskError: the grid names a generator or judge that is not there, or there is none for an arm that needs one,
            or no arm asks the judges that there are.
    """
    chosen = _chosen("generator", grid.generators, tuple(generators))
    asked = _chosen("judge", grid.judges, tuple(judges))
    if not asked and any(arm == ZERO_SHOT or arm.endswith(LLM_JUDGE) for arm in grid.arms):
        raise TaskError(
            f"arms of {LLM_JUDGE!r} or {ZERO_SHOT!r} need who judges: give judges=LLMJudge(task, llm), or --judge"
        )
    if asked and not any(arm == ZERO_SHOT or arm.endswith(LLM_JUDGE) for arm in grid.arms):
        raise TaskError(f"no arm asks judge {asked[0]!r}: add 'augment {LLM_JUDGE}' or {ZERO_SHOT!r}, or give no judge")
    mixtures = [arm.split(" ") for arm in grid.arms if arm not in ALONE]
    if mixtures and not chosen:
        raise TaskError("arms with synthetic rows need who writes them: an LLM, a pool of rows or a function")
    too_large = sorted({n for n in (*grid.sizes, *grid.curve) if n > available})
    if too_large:
        _LOG.warning("gold has %d rows for training: sizes %s are taken for all of them", available, too_large)

    def sized(sizes: Iterable[int]) -> list[int]:
        return sorted({available if n == ALL else min(n, available) for n in sizes})

    alone = sized((*grid.curve, *(grid.sizes if "gold" in grid.arms else ())))
    cells: dict[Cell, None] = {}
    if ZERO_SHOT in grid.arms:  # no seed bears on it: several cells would look like several runs
        cells |= {Cell(judge, 0, ZERO_SHOT, "", 0.0, "", "", grid.seeds[0]): None for judge in asked}
    for seed in grid.seeds:
        if FREQUENCY in grid.arms:
            cells |= {Cell("", size, FREQUENCY, "", 0.0, "", "", seed): None for size in sized(grid.sizes)}
        for base in grid.base_models:
            cells |= {Cell(base, size, "gold", "", 0.0, "", "", seed): None for size in alone}
            for size in sized(grid.sizes):
                for strategy, labels in mixtures:
                    by = {RAW: ("",), LLM_JUDGE: asked}.get(labels, grid.correctors or (base,))
                    for ratio in grid.ratios:
                        for generator in chosen:
                            for corrector in by:
                                made = Cell(base, size, strategy, labels, float(ratio), generator, corrector, seed)
                                cells[made] = None
    return sorted(cells, key=lambda c: (c.strategy != "gold", c.seed, c))


def _chosen(what: str, named: tuple[str, ...], there: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in named if name not in there]
    if unknown:
        raise TaskError(f"the grid asks for {what} {unknown[0]!r}; there are {', '.join(there) or 'none'}")
    return named or there


# --- what processes are told ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """What all cells of an experiment share; plain values, so that it travels to other processes.

    Args:
        task: of the gold.
        out: the experiment's folder.
        splits: of gold that are scored, e.g. ("test",).
        args: fields of `TrainingArguments` for every model.
        generators: what tells each generator from another one, by name.
        pools: names of generators that are rows made elsewhere: kept once, whatever the cell.
        judges: what tells each judge from another one, by name.
        audited: true labels of synthetic rows that a person checked, by row id.
        validation: share of a cell's own gold that is held back to stop training early; part of its budget.
        drop_seen: leave rows out that stand on both sides of the evaluation, instead of refusing them.
        swaps: ask each model about the test notes once more as notes of another patient.
        n_bootstrap: of the intervals of single scores.
    """

    task: Task
    out: Path
    splits: tuple[str, ...] = ("test",)
    args: Mapping[str, Any] | None = None
    generators: Mapping[str, str] = field(default_factory=dict)
    pools: tuple[str, ...] = ()
    judges: Mapping[str, str] = field(default_factory=dict)
    audited: Mapping[str, int | str] = field(default_factory=dict)
    validation: float = 0.0
    drop_seen: bool = False
    swaps: bool = False
    n_bootstrap: int = 1000


@dataclass(frozen=True)
class Job:
    """One stage to be run: of a cell, the correction ("correct") or the training and scoring ("cell").

    Args:
        kind: "correct" or "cell".
        cell: what it is for.
        pool: key of its synthetic rows; "" for gold alone.
        corrected: key of its corrected rows; "" where nothing is corrected.
        key: its own.
        rows: synthetic rows that are wanted of its generation: what the largest ratio asks for.
        judged: key of what a judge says of its rows; "" where none is asked.
    """

    kind: str
    cell: Cell
    pool: str
    corrected: str
    key: str
    rows: int = 0
    judged: str = ""


def key_of(*parts: Any) -> str:
    """Name a stage by all that it follows from (16 hex digits)."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
