"""Experiments: run every cell of a grid, with generation, correction and training from the cell's own gold.

    results = experiment(task, gold, llm, grid="clinic", out="study", processes=2)

LLM calls are made in this process, training in others. Each stage is kept in the folder under its key (`planning`), so
the same call continues a killed run, adds seeds and tries failed cells again. Every process has one thread: the number
of processes changes no figure.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.correction.choice import NOTHING
from hf_synth.correction.crossfit import FOLDS
from hf_synth.correction.policy import OF_BOTH
from hf_synth.experiments import planning
from hf_synth.experiments.cells import Maker, failure, make_opinions, make_pool, own_gold, run_job
from hf_synth.experiments.equivalence import Rates
from hf_synth.experiments.foresight import count_reasons, foresee_failures
from hf_synth.experiments.grid import BASELINES, LLM_JUDGE, RAW, ZERO_SHOT, Cell, Grid, Job, ScoringProtocol, Study
from hf_synth.experiments.opinions import AnyJudge
from hf_synth.experiments.processes import run_all
from hf_synth.experiments.report import write_study_report
from hf_synth.experiments.results import Results, read_cells, write_results
from hf_synth.generation.generation import estimate
from hf_synth.gold.adoption import read_dataset
from hf_synth.models.inference import cuda_devices
from hf_synth.reports.progress import stage
from hf_synth.task.folders import atomic_file
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_synth.experiments.planning import Source
_LOG = logging.getLogger(__name__)


def experiment(
    task: Task,
    synthetic: Source | Mapping[str, Source] | None,
    *,
    gold: DatasetDict,
    out: str | Path,
    grid: Grid | str = "paper",
    protocol: ScoringProtocol = planning.DEFAULT_PROTOCOL,
    judges: AnyJudge | Mapping[str, AnyJudge] | None = None,
    args: Mapping[str, Any] | None = None,
    audited: Mapping[str, int | str] | None = None,
    processes: int = 1,
    rates: Rates | None = None,
    say: Callable[[str], None] = _LOG.info,
) -> Results:
    """Run the unfinished cells of a grid; write results/, report.md and report.html.

    With processes, a script must call this under `if __name__ == "__main__":`.

    Args:
        synthetic: source of the synthetic rows: an LLM, a function (own gold, rows wanted, seed) -> rows, or a Dataset;
            several by name; None for gold alone. Rename a function when you change it.
        gold: splits "train" and those that the protocol scores.
        out: the experiment's folder, made private; holds copies of the gold and all synthetic rows.
        grid: a `Grid`, the name of one (grid.GRIDS), or a .json or .toml file.
        protocol: how each cell is trained and scored.
        judges: labellers for arms like "augment llm_judge" and for "zero-shot": an `LLMJudge`, or a function (own gold,
            seed) -> judge for one that shows gold in its prompts; several by name. Rename a judge when its answers
            change under the same class, model and exemplars.
        args: fields of `TrainingArguments` for every model.
        audited: audited labels by row id, or an `Audited` with its sampling design; they count for the gold budget of
            arms whose correction used them.
        processes: trainings at the same time, each on one GPU where there are several; 0 trains in this process.
        rates: prices of working time and computing.
        say: called with each line of progress; no line has text of rows.

    Raises:
        OverlapError: test rows, or rows of their patients, are in the gold for training.
        HfSynthError: the plan or the gold is not usable. The error of a cell is recorded, and the others go on; what
            cannot work is said before the first cell.

    Example:
        >>> grid = Grid(sizes=(60,), arms=("gold", "augment raw"), ratios=(0.5,), seeds=(0, 1))
        >>> results = experiment(task, rows, gold=gold, out="work/experiment", grid=grid, processes=0)
        >>> len(results.rows)
        4
    """
    study, cells, makers = planning.prepare(
        task, synthetic, gold=gold, out=out, grid=grid, protocol=protocol, judges=judges, args=args, audited=audited
    )
    jobs = planning.plan_jobs(study, cells)
    waiting = planning.unfinished(study, jobs)
    say(f"{len(cells)} cells, {len(cells) - len(waiting)} of them done")
    failures = foresee_failures(study, waiting, makers)
    for line in count_reasons(failures.values()):
        say(f"cannot work, {line}")
    possible = [job for job in waiting if job.key not in failures]
    failures |= _make_pools(study, possible, makers, say)
    asked = [job for job in possible if job.pool not in failures]
    failures |= _ask_judges(study, asked, planning.judges_by_name(judges), say)
    corrections = {
        j.corrected: replace(j, kind="correct", key=j.corrected)
        for j in possible
        if j.corrected
        and not {j.pool, j.judged} & set(failures)
        and not planning.stage_exists(study, "corrected", j.corrected)
    }
    with stage(total=len(corrections), unit="corrections") as bar:
        for job, error in _run_jobs(study, list(corrections.values()), processes):
            bar.advance()
            say(_progress(job, error, "corrected"))
            if error:
                failures[job.key] = error
    ready = []
    for job in waiting:
        error = (
            failures.get(job.key) or failures.get(job.pool) or failures.get(job.judged) or failures.get(job.corrected)
        )
        if error:
            _record_failure(study, job, error)
        else:
            ready.append(job)
    with stage(total=len(ready), unit="cells") as bar:
        for number, (job, error) in enumerate(_run_jobs(study, ready, processes), 1):
            _record_failure(study, job, error)
            bar.advance()
            say(f"{number}/{len(ready)} {_progress(job, error, 'scored')}")
    unmatched = _unmatched_audits(study, jobs)
    if unmatched:
        say(f"{unmatched} of {len(study.audited)} audited ids are of no synthetic row of the experiment: not used")
    results = write_results(
        study.task, study.out, [(j.cell, j.key) for j in jobs], rates=rates, audited_unmatched=unmatched
    )
    write_study_report(study.task, results)
    return results


# --- stages that ask an LLM, in this process: its requests already run side by side -----------------------------------
def _make_pools(
    study: Study, waiting: Sequence[Job], makers: Mapping[str, Maker], say: Callable[[str], None]
) -> dict[str, dict[str, str]]:
    """Make the synthetic rows that waiting cells need; return failures by key."""
    failures: dict[str, dict[str, str]] = {}
    for key, job in planning.missing_pools(study, waiting).items():
        cell = job.cell
        about = f"{job.rows:,} synthetic rows from {cell.gold_size:,} gold rows, seed {cell.seed}"
        say(f"{cell.generator}: {'a pool of rows' if cell.generator in study.pools else about}")
        stage = partial(make_pool, study, cell, job.rows, key, makers[cell.generator])
        failures |= _run_here(key, cell.generator, stage, say)
    return failures


def _ask_judges(
    study: Study, waiting: Sequence[Job], judges: Mapping[str, AnyJudge], say: Callable[[str], None]
) -> dict[str, dict[str, str]]:
    """Ask judges for the opinions that waiting cells need; return failures by key."""
    failures: dict[str, dict[str, str]] = {}
    for key, job in planning.missing_opinions(study, waiting).items():
        cell = job.cell
        about = f"{cell.gold_size:,} gold rows and {job.rows:,} synthetic rows, seed {cell.seed}"
        say(f"{cell.judge}: judges {f'{job.rows:,} test rows' if cell.strategy == ZERO_SHOT else about}")
        failures |= _run_here(key, cell.judge, partial(make_opinions, study, job, judges[cell.judge]), say)
    return failures


def _run_here(key: str, name: str, stage: Callable[[], None], say: Callable[[str], None]) -> dict[str, dict[str, str]]:
    """Run one stage; return its failure by key, or nothing."""
    try:
        stage()
    except Exception as error:  # a failed stage must not stop the others
        failed = failure(error)
        say(f"{name}: {_failure_text(failed)}")
        return {key: failed}
    return {}


# --- stages in other processes ----------------------------------------------------------------------------------------
def _run_jobs(study: Study, jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, dict[str, str] | None]]:
    """Run jobs in processes; yield each with its failure or None, as they end."""
    devices = cuda_devices() if jobs and processes > 0 else []
    for job, result in run_all(partial(run_job, study), jobs, processes, devices):
        if isinstance(result, BrokenProcessPool):
            yield job, {"error": type(result).__name__, "message": "its process died; is there enough memory?"}
        else:
            yield job, failure(result) if isinstance(result, BaseException) else result


def _record_failure(study: Study, job: Job, error: Mapping[str, str] | None) -> None:
    """Write the failure of a cell, which the next call tries again; without one remove the old record."""
    path = study.out / "cells" / f"{job.key}.failed.json"
    if error is None:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as draft:
        draft.write_text(json.dumps({"cell": job.cell.to_json(), **error}) + "\n", encoding="utf-8")


def _progress(job: Job, error: Mapping[str, str] | None, stage: str) -> str:
    c = job.cell
    name = f"{c.base_model.rsplit('/', 1)[-1]}, {c.gold_size:,} gold, {c.arm}, seed {c.seed}"
    return f"{name}: {stage if error is None else _failure_text(error)}"


def _failure_text(error: Mapping[str, str]) -> str:
    return f"failed ({error['error']}{': ' + error['message'] if error['message'] else ''})"


def _unmatched_audits(study: Study, jobs: Sequence[Job]) -> int:
    """Count audited ids that are in no pool."""
    unmatched = set(study.audited)
    for key in {job.pool for job in jobs if job.pool} if unmatched else ():
        if planning.stage_exists(study, "synthetic", key):
            unmatched -= set(read_dataset(study.out / "synthetic" / key)["id"])
    return len(unmatched)


# --- what an experiment would take ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Planned:
    """What an experiment would take.

    Args:
        cells: all cells.
        done: number of finished cells.
        pools: generations still to be run, as gold size, seed, generator and rows wanted.
        calls: LLM calls if every answer is usable.
        prompt_tokens: tokens of their prompts.
        completion_tokens: tokens of their answers.
        judged: notes that judges still have to label.
        trainings: models still to be trained for correction and for cells.
        seconds: mean seconds of the finished cells by arm.
        cannot_work: why cells that are still to be run cannot work, with how many they are.
    """

    cells: tuple[Cell, ...]
    done: int
    pools: tuple[tuple[int, int, str, int], ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    judged: int
    trainings: int
    seconds: Mapping[str, float]
    cannot_work: tuple[str, ...] = ()


def outline(task: Task, synthetic: Source | Mapping[str, Source] | None, **options: Any) -> Planned:
    """Return what `experiment` with the same arguments would take; no LLM is asked and nothing is trained.

    Raises:
        HfSynthError: as `experiment`.
    """
    study, cells, makers = planning.prepare(task, synthetic, **options)
    sources, jobs = planning.sources_by_name(synthetic), planning.plan_jobs(study, cells)
    waiting = planning.unfinished(study, jobs)
    pools = list(planning.missing_pools(study, waiting).values())
    estimates = [
        estimate(task, own_gold(study, job.cell), job.rows, seed=job.cell.seed)
        for job in pools
        if hasattr(sources[job.cell.generator], "stream")
    ]
    corrected = {j.corrected: j.cell.labels for j in waiting if j.corrected}
    trainings = sum(
        _trainings(labels) for key, labels in corrected.items() if not planning.stage_exists(study, "corrected", key)
    )
    seconds: dict[str, list[float]] = {}
    for row in read_cells(study.out, [(j.cell, j.key) for j in jobs])[0]:
        seconds.setdefault(row["arm"], []).append(row["seconds"] + row["seconds_correct"])
    return Planned(
        cells=tuple(cells),
        done=len(cells) - len(waiting),
        pools=tuple((j.cell.gold_size, j.cell.seed, j.cell.generator, j.rows) for j in pools),
        calls=sum(e.calls for e in estimates),
        prompt_tokens=sum(e.prompt_tokens for e in estimates),
        completion_tokens=sum(e.completion_tokens for e in estimates),
        judged=sum(j.cell.gold_size + j.rows for j in planning.missing_opinions(study, waiting).values()),
        trainings=sum(j.cell.strategy not in BASELINES for j in waiting) + trainings,
        seconds={arm: round(sum(s) / len(s), 1) for arm, s in seconds.items()},
        cannot_work=tuple(count_reasons(foresee_failures(study, waiting, makers).values())),
    )


def _trainings(labels: str) -> int:
    """Count the models that a correction trains; for "auto" those of its costliest method."""
    return 0 if labels in (RAW, LLM_JUDGE, NOTHING, "") else 2 if labels in OF_BOTH else FOLDS
