"""An experiment: many cells, each with exemplars, generation, corrector and policy from its own gold only.

    made = experiment(task, gold, llm, grid="clinic", out="study", processes=2)

What asks somebody, a generator or a judge, happens in this process, what computes in others. Stages are kept in the
folder (`cells`), so the same call goes on where the last one ended: after a kill, with more seeds, or with a failed
cell, which is tried again. How many processes there are changes nothing in the figures: each has one thread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from hf_synth.correction.audited import Audited
from hf_synth.correction.crossfit import FOLDS
from hf_synth.correction.label_sets import METHODS as SET_METHODS
from hf_synth.correction.policy import METHODS, OF_BOTH
from hf_synth.correction.target_texts import METHODS as TEXT_METHODS
from hf_synth.errors import ColumnError, OutputError, TaskError
from hf_synth.experiments.cells import (
    Maker,
    failure,
    gold_digest,
    gold_of,
    held_out,
    judged_of,
    make_opinions,
    make_pool,
    model_identity,
    own_gold,
    run_job,
)
from hf_synth.experiments.equivalence import Rates
from hf_synth.experiments.grid import (
    BASELINES,
    FREQUENCY,
    LINEAR,
    LLM_JUDGE,
    MIXTURES,
    RAW,
    ZERO_SHOT,
    Cell,
    Grid,
    Job,
    Protocol,
    Study,
    key_of,
    plan,
    read_grid,
)
from hf_synth.experiments.leakage import check_groups
from hf_synth.experiments.opinions import AnyJudge, judge_identity
from hf_synth.experiments.processes import run_all
from hf_synth.experiments.report import write_study_report
from hf_synth.experiments.results import Results, read_cells, write_results
from hf_synth.generation.generation import Estimate, estimate, generate
from hf_synth.gold.adoption import adopt, read_dataset
from hf_synth.task.columns import JUDGED
from hf_synth.task.folders import private_folder, read_manifest, write_stage, written
from hf_synth.task.labels import audited_labels, groups_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.llm.questions import Chat

    Source: TypeAlias = Chat | Dataset | Maker
_LOG = logging.getLogger(__name__)
DEFAULT_PROTOCOL = Protocol()
_RULES = 2  # bumped when the same plan would give other figures; what was paid for stays
_METHODS = {
    "single_label": (RAW, "auto", *METHODS[1:], LLM_JUDGE), "multi_label": (RAW, "auto", *SET_METHODS[1:], LLM_JUDGE),
    "text2text": (RAW, "auto", *TEXT_METHODS[1:]),
}  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """What an experiment would take.

    Args:
        cells: all of it.
        done: how many of them are there.
        pools: generations that are still to be made, as gold size, seed, generator and rows wanted.
        calls: questions to LLMs if every answer were good.
        prompt_tokens: tokens read by them.
        completion_tokens: tokens written.
        judged: notes that judges are still to be asked about.
        trainings: models still to be trained for correction and for cells.
        seconds: of the cells that are there, by arm, the mean; empty at first.
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


def experiment(
    task: Task,
    synthetic: Source | Mapping[str, Source] | None,
    *,
    gold: DatasetDict,
    out: str | Path,
    grid: Grid | str = "paper",
    protocol: Protocol = DEFAULT_PROTOCOL,
    judges: AnyJudge | Mapping[str, AnyJudge] | None = None,
    args: Mapping[str, Any] | None = None,
    audited: Mapping[str, int | str] | None = None,
    processes: int = 1,
    rates: Rates | None = None,
    say: Callable[[str], None] = _LOG.info,
) -> Results:
    """Run the cells of a grid that are not there yet; write results/, report.md and report.html.

    With processes, a script must call this under `if __name__ == "__main__":`.

    Args:
        synthetic: who writes the synthetic rows: an LLM, a function (own gold, rows wanted, seed) -> rows, or a Dataset
            of rows made elsewhere; several by name; None for gold alone. A function that changes needs another name.
        gold: splits "train" and those that the protocol scores.
        out: the experiment's folder, made private; holds copies of the gold and all synthetic rows.
        grid: a `Grid`, the name of one (grid.GRIDS), or a .json or .toml file.
        protocol: how each cell is trained and scored.
        judges: who labels for arms like "augment llm_judge", and for "zero-shot": an `LLMJudge`, or a function (own
            gold, seed) -> judge for one that shows gold in its prompts; several by name. One that changes what it says
            under the same class, model and exemplars needs another name.
        args: fields of `TrainingArguments` for every model.
        audited: true labels of synthetic rows that a person checked, by row id, with the design of the sample where it
            is an `Audited`; they count for the gold budget of the arms whose correction used them.
        processes: that train at the same time; 0 for this one.
        rates: what time costs.
        say: told of each stage, without any text of rows.

    Raises:
        OverlapError: rows that are evaluated on, or their patients, stand in the gold for training.
        HfSynthError: the plan or the gold is not usable. What fails in a cell is recorded and stops no other.
    """
    study, cells, makers = prepare(
        task, synthetic, gold=gold, out=out, grid=grid, protocol=protocol, judges=judges, args=args, audited=audited
    )
    jobs = _jobs(study, cells)
    waiting = [job for job in jobs if not _done(study, job)]
    say(f"{len(cells)} cells, {len(cells) - len(waiting)} of them done")
    failed = _make_pools(study, waiting, makers, say)
    failed |= _ask_judges(study, [j for j in waiting if j.pool not in failed], _judges(judges), say)
    corrections = {j.corrected: j for j in waiting if j.corrected and not {j.pool, j.judged} & set(failed)}
    correcting = [
        replace(j, kind="correct", key=j.corrected)
        for j in corrections.values() if not _there(study, "corrected", j.corrected)
    ]  # fmt: skip
    for job, wrong in _run(study, correcting, processes):
        say(_told(job, wrong, "corrected"))
        if wrong:
            failed[job.key] = wrong
    ready = []
    for job in waiting:
        wrong = failed.get(job.pool) or failed.get(job.judged) or failed.get(job.corrected)
        if wrong:
            _note(study, job, wrong)
        else:
            ready.append(job)
    for number, (job, wrong) in enumerate(_run(study, ready, processes), 1):
        _note(study, job, wrong)
        say(f"{number}/{len(ready)} {_told(job, wrong, 'scored')}")
    lost = _lost_audits(study, jobs)
    if lost:
        say(
            f"{lost} of {len(study.audited)} audited ids are of no synthetic row of the experiment: they change nothing"
        )
    made = write_results(study.task, study.out, [(j.cell, j.key) for j in jobs], rates=rates, audited_unmatched=lost)
    write_study_report(study.task, made)
    return made


def prepare(
    task: Task, synthetic: Source | Mapping[str, Source] | None, *, gold: DatasetDict, out: str | Path,
    grid: Grid | str, protocol: Protocol = DEFAULT_PROTOCOL,
    judges: AnyJudge | Mapping[str, AnyJudge] | None = None, args: Mapping[str, Any] | None = None,
    audited: Mapping[str, int | str] | None = None,
) -> tuple[Study, list[Cell], dict[str, Maker]]:  # fmt: skip
    """Make plan and folder of an experiment: what its cells share, the cells, and who writes synthetic rows.

    Raises:
        HfSynthError: as `experiment`.
    """
    missing = [s for s in ("train", *protocol.splits) if s not in gold]
    if missing:
        raise ColumnError(f"the gold has no split {missing[0]!r}; it has {', '.join(gold)}")
    sources = {} if synthetic is None else dict(synthetic) if isinstance(synthetic, Mapping) else _named(synthetic)
    asked = _judges(judges)
    cells = plan(read_grid(grid) if isinstance(grid, str) else grid, len(gold["train"]), sources, asked)
    check_kind(task, cells)
    audited = audited or {}
    check_audited(task, audited, sources)
    if not protocol.drop_seen:
        check_groups(gold["train"], {split: gold[split] for split in protocol.splits})
    if protocol.swaps and task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} writes texts: swaps are counted for labels only")
    folder = private_folder(Path(out)).resolve()
    for name in ("synthetic", "judged", "corrected", "cells", "work"):
        private_folder(folder / name)
    identities = {name: _identity(name, source) for name, source in sources.items()}
    study = Study(
        task, folder, **{**vars(protocol), "splits": tuple(protocol.splits)}, generators=identities, args=args,
        audited=audited if isinstance(audited, Audited) else dict(audited),
        pools=tuple(name for name, source in sources.items() if hasattr(source, "column_names")),
        judges={name: key_of(judge_identity(task, name, judge)) for name, judge in asked.items()},
    )  # fmt: skip
    _keep_gold(study, gold)
    return study, cells, {name: _maker(task, source) for name, source in sources.items()}


def check_kind(task: Task, cells: Sequence[Cell]) -> None:
    """Check that the arms and models of a plan make sense for the kind of a task, before anything is paid for.

    Raises:
        TaskError: one does not.
    """
    about, methods = f"task {task.full_name!r} is {task.kind}", _METHODS[task.kind]
    for cell in cells:
        if cell.strategy in MIXTURES and cell.labels not in methods:
            raise TaskError(
                f"{about}: arm {cell.arm!r} makes no sense for it; name arms whose labels are {', '.join(methods)} "
                "(arms of a Grid, --strategies with --labels)"
            )
        if task.kind == "text2text" and cell.strategy == ZERO_SHOT:
            raise TaskError(f"{about}: {ZERO_SHOT!r} chooses among labels, it has none; leave that arm out")
        if task.kind == "text2text" and LINEAR in (cell.base_model, cell.corrector):
            raise TaskError(
                f"{about}: a linear head chooses among labels, it writes no texts; name a sequence-to-sequence model "
                "(base_models of a Grid, --base-model)"
            )


def check_audited(task: Task, audited: Mapping[str, int | str], sources: Mapping[str, Source]) -> None:
    """Check audited labels before anything is paid for; ids that an LLM's rows will have nobody knows yet.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: a label is none of the task's, or an id is of no row although every pool is there.
    """
    if audited and task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: audited labels serve single_label tasks only")
    audited_labels(task, dict(enumerate(audited.values())))
    if audited and all(hasattr(source, "column_names") for source in sources.values()):
        pools = [cast("Dataset", source) for source in sources.values()]
        pools = [rows if "id" in rows.column_names else adopt(task, rows) for rows in pools]
        lost = len(set(audited) - {id for rows in pools for id in rows["id"]})
        if lost:
            raise ColumnError(
                f"{lost} of {len(audited)} audited ids are of no row of the synthetic pools; give ids as they stand in "
                "their column 'id'"
            )


def _named(source: Source) -> dict[str, Source]:
    if hasattr(source, "stream"):
        return {str(cast("Chat", source).model): source}
    return {"pool" if hasattr(source, "column_names") else getattr(source, "__name__", "function"): source}


def _judges(given: AnyJudge | Mapping[str, AnyJudge] | None) -> dict[str, AnyJudge]:
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    model = getattr(getattr(given, "llm", given), "model", None)
    return {str(model or getattr(given, "__name__", "judge")): given}


def _identity(name: str, source: Source) -> str:
    """Tell one generator from another: a pool by its rows, others by their names."""
    if hasattr(source, "column_names"):
        rows = cast("Dataset", source)
        known = ("id", "llm_label", "label_status", JUDGED)
        columns = [c for c in rows.column_names if c in known or _is_text(rows, c)]
        return key_of([rows[c] for c in columns])
    return key_of(name, str(getattr(source, "model", "")))


def _is_text(rows: Dataset, column: str) -> bool:
    return str(getattr(rows.features[column], "dtype", "")) == "string"


def _maker(task: Task, source: Source) -> Maker:
    if hasattr(source, "stream"):
        return lambda own, n, seed: generate(task, own, cast("Chat", source), n, seed=seed)
    if hasattr(source, "column_names"):
        return lambda own, n, seed: cast("Dataset", source)
    return cast(Maker, source)


def _keep_gold(study: Study, gold: DatasetDict) -> None:
    """Write the splits that are used into the experiment's folder, where every process reads them."""
    from datasets import DatasetDict

    used = DatasetDict({s: gold[s] for s in ("train", *study.splits)})
    texts = list(study.task.text_columns)
    digest = key_of({s: [row_digests(study.task, r.select_columns(texts)), r[study.task.label_column], *judged_of(r)]
                     for s, r in used.items()})  # fmt: skip
    before = (read_manifest(study.out / "gold") or {}).get("gold_sha256")
    if before not in (None, digest):
        raise OutputError(f"{study.out} holds an experiment on other gold; choose another folder")
    if before is None:
        write_stage(study.task, used, study.out / "gold", stage="gold", gold_sha256=digest)
    gold_of.cache_clear()
    kept = gold_of(study.out)
    if any(
        groups_of(kept[split]) != groups_of(rows) for split, rows in used.items()
    ):  # every interval is drawn over them
        raise OutputError(f"{study.out} holds an experiment on the same gold in other groups; choose another folder")


# --- what follows from what -------------------------------------------------------------------------------------------
def _jobs(study: Study, cells: Sequence[Cell]) -> list[Job]:
    """Give each cell its key and those of the stages before it: hashes of all that they follow from."""
    most: dict[tuple[int, int, str], int] = {}
    for c in cells:
        if c.generator:
            place = c.gold_size, c.seed, c.generator
            most[place] = max(most.get(place, 0), round(c.ratio * c.gold_size))
    digests: dict[tuple[int, int], str] = {}
    identity = cache(model_identity)
    shared = [study.task.fingerprint(), study.drop_seen]
    jobs = []
    for c in cells:
        if c.strategy == ZERO_SHOT:
            judged = key_of("judged", shared, study.judges[c.judge], study.splits)
            key = key_of("cell", _RULES, shared, judged, study.n_bootstrap)
            jobs.append(Job("cell", c, "", "", key, sum(map(len, held_out(study).values())), judged))
            continue
        own = c.gold_size, c.seed
        digests[own] = digests.get(own) or gold_digest(study, c)
        pool = corrected = judged = ""
        gold: list[Any] = []  # that is not in the key of the pool
        if c.generator in study.pools:  # rows made elsewhere are one pool, whatever the gold
            gold = [digests[own], most[(*own, c.generator)]]
            pool = key_of("pool", shared, study.generators[c.generator])
        elif c.generator:
            pool = key_of("pool", shared, digests[own], c.seed, study.generators[c.generator],
                          most[(*own, c.generator)])  # fmt: skip
        if c.labels == LLM_JUDGE:
            judged = key_of("judged", pool, study.judges[c.corrector], *gold, *([c.seed] if gold else []))
        if c.corrector:
            by = judged or identity(c.corrector)
            how = [c.labels, by, study.args, sorted(study.audited.items()), *_design(study.audited)]
            corrected = key_of("corrected", _RULES, pool, c.ratio, c.seed, how, *gold[:1])
        settings: list[Any] = [study.splits, study.args, study.validation, study.n_bootstrap]
        settings += [sorted(study.audited) if corrected else []]
        settings += ["swaps"] if study.swaps and c.strategy != FREQUENCY else []
        what = [c.strategy, c.labels, c.ratio, c.seed, identity(c.base_model)]
        key = key_of("cell", _RULES, shared, digests[own], pool, corrected, what, settings)
        jobs.append(Job("cell", c, pool, corrected, key, most.get((*own, c.generator), 0), judged))
    return jobs


def _design(audited: Mapping[str, int | str]) -> list[Any]:
    """Give what else than labels decides of audited rows; nothing for those without a design."""
    return [sorted(audited.weights.items()), sorted(audited.strata.items())] if isinstance(audited, Audited) else []


def _there(study: Study, kind: str, key: str) -> bool:
    return read_manifest(study.out / kind / key) is not None


def _done(study: Study, job: Job) -> bool:
    return (study.out / "cells" / f"{job.key}.json").is_file()


def _lacking(study: Study, waiting: Sequence[Job]) -> dict[str, Job]:
    """Give generations that cells wait for, by key, with one of those cells."""
    return {job.pool: job for job in waiting if job.pool and not _there(study, "synthetic", job.pool)}


def _make_pools(
    study: Study, waiting: Sequence[Job], makers: Mapping[str, Maker], say: Callable[[str], None]
) -> dict[str, dict[str, str]]:
    """Have the synthetic rows made that waiting cells need, here: an LLM's requests run side by side as it is."""
    failed: dict[str, dict[str, str]] = {}
    for key, job in _lacking(study, waiting).items():
        cell = job.cell
        about = f"{job.rows:,} synthetic rows from {cell.gold_size:,} gold rows, seed {cell.seed}"
        say(f"{cell.generator}: {'a pool of rows' if cell.generator in study.pools else about}")
        make = partial(make_pool, study, cell, job.rows, key, makers[cell.generator])
        failed |= _tried(key, cell.generator, make, say)
    return failed


def _tried(key: str, who: str, make: Callable[[], None], say: Callable[[str], None]) -> dict[str, dict[str, str]]:
    """Make one stage here; give what went wrong, by key, or nothing: what fails must not stop the others."""
    try:
        make()
    except Exception as error:
        wrong = failure(error)
        say(f"{who}: {_sentence(wrong)}")
        return {key: wrong}
    return {}


def _unasked(study: Study, waiting: Sequence[Job]) -> dict[str, Job]:
    """Give what judges are to be asked for waiting cells, by key, with one of those cells."""
    lacking = [j for j in waiting if j.judged and not (j.corrected and _there(study, "corrected", j.corrected))]
    return {j.judged: j for j in lacking if not _there(study, "judged", j.judged)}


def _ask_judges(
    study: Study, waiting: Sequence[Job], judges: Mapping[str, AnyJudge], say: Callable[[str], None]
) -> dict[str, dict[str, str]]:
    """Have judges asked what waiting cells need, here: an LLM's requests run side by side as it is."""
    failed: dict[str, dict[str, str]] = {}
    for key, job in _unasked(study, waiting).items():
        cell = job.cell
        about = f"{cell.gold_size:,} gold rows and {job.rows:,} written from them, seed {cell.seed}"
        say(f"{cell.judge}: judges {f'{job.rows:,} rows to be scored' if cell.strategy == ZERO_SHOT else about}")
        failed |= _tried(key, cell.judge, partial(make_opinions, study, job, judges[cell.judge]), say)
    return failed


def _lost_audits(study: Study, jobs: Sequence[Job]) -> int:
    """Count audited ids that are of no row of any pool."""
    lost = set(study.audited)
    for key in {job.pool for job in jobs if job.pool} if lost else ():
        if _there(study, "synthetic", key):
            lost -= set(read_dataset(study.out / "synthetic" / key)["id"])
    return len(lost)


def _note(study: Study, job: Job, wrong: Mapping[str, str] | None) -> None:
    """Keep what went wrong with a cell; it is tried again next time."""
    path = study.out / "cells" / f"{job.key}.failed.json"
    if wrong is None:
        path.unlink(missing_ok=True)
        return
    with written(path) as draft:
        draft.write_text(json.dumps({"cell": job.cell.to_json(), **wrong}) + "\n", encoding="utf-8")


def _told(job: Job, wrong: Mapping[str, str] | None, what: str) -> str:
    c = job.cell
    name = f"{c.base_model.rsplit('/', 1)[-1]}, {c.gold_size:,} gold, {c.arm}, seed {c.seed}"
    return f"{name}: {what if wrong is None else _sentence(wrong)}"


def _sentence(wrong: Mapping[str, str]) -> str:
    return f"failed ({wrong['error']}{': ' + wrong['message'] if wrong['message'] else ''})"


def _run(study: Study, jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, dict[str, str] | None]]:
    """Run jobs in processes; give each with what went wrong, as they end."""
    for job, found in run_all(partial(run_job, study), jobs, processes):
        if isinstance(found, BrokenProcessPool):
            yield job, {"error": type(found).__name__, "message": "its process died; is there enough memory?"}
        else:
            yield job, failure(found) if isinstance(found, BaseException) else found


# --- what it would take -----------------------------------------------------------------------------------------------
def outline(task: Task, synthetic: Source | Mapping[str, Source] | None, **options: Any) -> Planned:
    """Say what `experiment` with the same arguments would take; nothing is asked or trained.

    Raises:
        HfSynthError: as `experiment`.
    """
    study, cells, _ = prepare(task, synthetic, **options)
    sources = {} if synthetic is None else dict(synthetic) if isinstance(synthetic, Mapping) else _named(synthetic)
    jobs = _jobs(study, cells)
    waiting = [job for job in jobs if not _done(study, job)]
    pools = list(_lacking(study, waiting).values())
    guesses: list[Estimate] = []
    for job in pools:
        if hasattr(sources[job.cell.generator], "stream"):
            guesses.append(estimate(task, own_gold(study, job.cell), job.rows, seed=job.cell.seed))
    corrected = {j.corrected: j.cell.labels for j in waiting if j.corrected}
    trainings = sum(_trainings(labels) for key, labels in corrected.items() if not _there(study, "corrected", key))
    seconds: dict[str, list[float]] = {}
    for row in read_cells(study.out, [(j.cell, j.key) for j in jobs])[0]:
        seconds.setdefault(row["arm"], []).append(row["seconds"] + row["seconds_correct"])
    return Planned(
        tuple(cells), len(cells) - len(waiting),
        tuple((j.cell.gold_size, j.cell.seed, j.cell.generator, j.rows) for j in pools),
        sum(g.calls for g in guesses), sum(g.prompt_tokens for g in guesses), sum(g.completion_tokens for g in guesses),
        sum(j.cell.gold_size + j.rows for j in _unasked(study, waiting).values()),
        sum(j.cell.strategy not in BASELINES for j in waiting) + trainings,
        {arm: round(sum(s) / len(s), 1) for arm, s in seconds.items()},
    )  # fmt: skip


def _trainings(labels: str) -> int:
    """Say how many models of the corrector's kind a correction trains; "auto" as many as its dearest choice."""
    return 0 if labels in (RAW, LLM_JUDGE, "") else 2 if labels in OF_BOTH else FOLDS
