"""Plan of an experiment: checks of its arguments, its folder, and the keys of its stages.

A key is the hash of everything that a stage depends on. What the folder holds under a key is not made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from hf_synth.correction.annotations import check_labelled
from hf_synth.correction.audited import Audited
from hf_synth.correction.methods import methods_of
from hf_synth.errors import ColumnError, OutputError, TaskError
from hf_synth.experiments import grid as grids
from hf_synth.experiments.cells import (
    Maker,
    forget_gold,
    gold_digest,
    gold_of,
    held_out,
    judged_columns,
    model_identity,
)
from hf_synth.experiments.leakage import check_groups, text_digests
from hf_synth.experiments.opinions import AnyJudge, judge_identity
from hf_synth.generation.generation import generate
from hf_synth.gold.adoption import adopt
from hf_synth.models.readiness import check_fields
from hf_synth.task.columns import JUDGED, annotation_columns
from hf_synth.task.folders import private_folder, read_manifest, write_stage
from hf_synth.task.labels import audited_labels, groups_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.llm.questions import Chat

    Source: TypeAlias = Chat | Dataset | Maker
DEFAULT_PROTOCOL = grids.ScoringProtocol()
_RULES = 3  # version of the keys; raised when the same plan would give other figures, except for paid answers


def prepare(
    task: Task,
    synthetic: Source | Mapping[str, Source] | None,
    *,
    gold: DatasetDict,
    out: str | Path,
    grid: grids.Grid | str,
    protocol: grids.ScoringProtocol = DEFAULT_PROTOCOL,
    judges: AnyJudge | Mapping[str, AnyJudge] | None = None,
    args: Mapping[str, Any] | None = None,
    audited: Mapping[str, int | str] | None = None,
) -> tuple[grids.Study, list[grids.Cell], dict[str, Maker]]:
    """Check the arguments of `experiment` and create its folder; return the study, its cells and its generators."""
    missing = [s for s in ("train", *protocol.splits) if s not in gold]
    if missing:
        raise ColumnError(f"the gold has no split {missing[0]!r}; it has {', '.join(gold)}")
    sources, by_name = sources_by_name(synthetic), judges_by_name(judges)
    cells = grids.plan(grids.read_grid(grid) if isinstance(grid, str) else grid, len(gold["train"]), sources, by_name)
    check_kind(task, cells)
    check_fields(args, validated=protocol.validation > 0, access=task.access)
    for labels in dict.fromkeys(cell.labels for cell in cells):
        check_labelled(labels, gold["train"])
    audited = audited or {}
    check_audited(task, audited, sources)
    if not protocol.drop_seen:
        check_groups(gold["train"], {split: gold[split] for split in protocol.splits})
    if protocol.swaps and task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text: swaps are counted for labels only; leave swaps out")
    folder = private_folder(Path(out)).resolve()
    for name in ("synthetic", "judged", "corrected", "cells", "work"):
        private_folder(folder / name)
    study = grids.Study(
        **{**vars(protocol), "splits": tuple(protocol.splits)},
        task=task,
        out=folder,
        generators={name: _generator_identity(name, source) for name, source in sources.items()},
        args=args,
        audited=audited if isinstance(audited, Audited) else dict(audited),
        pools=tuple(name for name, source in sources.items() if hasattr(source, "column_names")),
        judges={name: grids.key_of(judge_identity(task, name, judge)) for name, judge in by_name.items()},
    )
    _store_gold(study, gold)
    return study, cells, {name: _as_maker(task, source) for name, source in sources.items()}


def check_kind(task: Task, cells: Sequence[grids.Cell]) -> None:
    """Check that the arms and models of a plan fit the kind of the task.

    Raises:
        TaskError: one does not.
    """
    about = f"task {task.full_name!r} is {task.kind}"
    methods = (grids.RAW, grids.AUTO, *(name for name in methods_of(task.kind) if name != "none"))
    methods += (grids.AUTO_MACRO_F1,) if task.kind == "single_label" else ()
    methods += () if task.kind == "text2text" else (grids.LLM_JUDGE,)
    for cell in cells:
        if cell.strategy in grids.MIXTURES and cell.labels not in methods:
            raise TaskError(
                f"{about}: arm {cell.arm!r} does not fit it; name arms whose labels are {', '.join(methods)} "
                "(arms of a Grid, --strategies with --labels)"
            )
        if task.kind == "text2text" and cell.strategy == grids.ZERO_SHOT:
            raise TaskError(f"{about}: {grids.ZERO_SHOT!r} chooses among labels, and it has none; leave that arm out")
        if task.kind == "text2text" and grids.LINEAR in (cell.base_model, cell.corrector):
            raise TaskError(
                f"{about}: a linear head chooses among labels and writes no texts; name a sequence-to-sequence model "
                "(base_models of a Grid, --base-model)"
            )


def check_audited(task: Task, audited: Mapping[str, int | str], sources: Mapping[str, Source]) -> None:
    """Check audited labels; row ids are checked only where every source is a Dataset.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: a label is not one of the task's, or an id is in no Dataset.
    """
    if audited and task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: audited labels serve single_label tasks only")
    audited_labels(task, dict(enumerate(audited.values())))
    if audited and all(hasattr(source, "column_names") for source in sources.values()):
        pools = [cast("Dataset", source) for source in sources.values()]
        pools = [rows if "id" in rows.column_names else adopt(task, rows) for rows in pools]
        unmatched = len(set(audited) - {id for rows in pools for id in rows["id"][:]})
        if unmatched:
            raise ColumnError(
                f"{unmatched} of {len(audited)} audited ids are in no synthetic pool; give ids of its column 'id'"
            )


def sources_by_name(synthetic: Source | Mapping[str, Source] | None) -> dict[str, Source]:
    """Return the sources of synthetic rows by name."""
    if synthetic is None or isinstance(synthetic, Mapping):
        return dict(synthetic or {})
    if hasattr(synthetic, "stream"):
        return {str(cast("Chat", synthetic).model): synthetic}
    return {"pool" if hasattr(synthetic, "column_names") else getattr(synthetic, "__name__", "function"): synthetic}


def judges_by_name(judges: AnyJudge | Mapping[str, AnyJudge] | None) -> dict[str, AnyJudge]:
    """Return judges by name; a single one is named after its model."""
    if judges is None or isinstance(judges, Mapping):
        return dict(judges or {})
    model = getattr(getattr(judges, "llm", judges), "model", None)
    return {str(model or getattr(judges, "__name__", "judge")): judges}


def _generator_identity(name: str, source: Source) -> str:
    """Return what distinguishes a generator: the rows of a Dataset, else name and model."""
    if hasattr(source, "column_names"):
        rows = cast("Dataset", source)
        known = ("id", "llm_label", "label_status", JUDGED, *annotation_columns(rows.column_names))
        columns = [c for c, kind in rows.features.items() if c in known or str(getattr(kind, "dtype", "")) == "string"]
        return grids.key_of([rows[c] for c in columns])
    return grids.key_of(name, str(getattr(source, "model", "")))


def _as_maker(task: Task, source: Source) -> Maker:
    if hasattr(source, "stream"):
        return lambda own, n, seed: generate(task, own, cast("Chat", source), n, seed=seed)
    if hasattr(source, "column_names"):
        return lambda own, n, seed: cast("Dataset", source)
    return cast(Maker, source)


def _store_gold(study: grids.Study, gold: DatasetDict) -> None:
    """Write the splits in use to the experiment's folder, where every process reads them."""
    from datasets import DatasetDict

    task, used = study.task, DatasetDict({s: gold[s] for s in ("train", *study.splits)})
    digest = grids.key_of(
        {s: [text_digests(task, r), r[task.label_column], *judged_columns(r)] for s, r in used.items()}
    )
    stored = (read_manifest(study.out / "gold") or {}).get("gold_sha256")
    if stored not in (None, digest):
        raise OutputError(f"{study.out} holds an experiment on other gold; choose another folder")
    if stored is None:
        write_stage(task, used, study.out / "gold", stage="gold", gold_sha256=digest)
    forget_gold()
    before = gold_of(study.out)
    if any(groups_of(before[split]) != groups_of(rows) for split, rows in used.items()):  # intervals depend on them
        raise OutputError(f"{study.out} holds an experiment on the same gold in other groups; choose another folder")


def plan_jobs(study: grids.Study, cells: Sequence[grids.Cell]) -> list[grids.Job]:
    """Return a job for each cell, with the keys of the cell and of the stages before it."""
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
        if c.strategy == grids.ZERO_SHOT:
            judged = grids.key_of("judged", shared, study.judges[c.judge], study.splits)
            key = grids.key_of("cell", _RULES, shared, judged, study.n_bootstrap)
            jobs.append(grids.Job("cell", c, "", "", key, sum(map(len, held_out(study).values())), judged))
            continue
        own = c.gold_size, c.seed
        digests[own] = digests.get(own) or gold_digest(study, c)
        pool = corrected = judged = ""
        gold: list[Any] = []  # what the key of the pool leaves out
        if c.generator in study.pools:  # a Dataset is one pool, whatever the gold
            gold = [digests[own], most[(*own, c.generator)]]
            pool = grids.key_of("pool", shared, study.generators[c.generator])
        elif c.generator:
            generator, n = study.generators[c.generator], most[(*own, c.generator)]
            pool = grids.key_of("pool", shared, digests[own], c.seed, generator, n)
        if c.labels == grids.LLM_JUDGE:
            judged = grids.key_of("judged", pool, study.judges[c.corrector], *gold, *([c.seed] if gold else []))
        if c.corrector:
            by = judged or identity(c.corrector)
            how = [c.labels, by, study.args, sorted(study.audited.items()), *_design(study.audited)]
            corrected = grids.key_of("corrected", _RULES, pool, c.ratio, c.seed, how, *gold[:1])
        settings: list[Any] = [study.splits, study.args, study.validation, study.n_bootstrap]
        settings += [sorted(study.audited) if corrected else []]
        settings += ["swaps"] if study.swaps and c.strategy != grids.FREQUENCY else []
        what = [c.strategy, c.labels, c.ratio, c.seed, identity(c.base_model)]
        key = grids.key_of("cell", _RULES, shared, digests[own], pool, corrected, what, settings)
        jobs.append(grids.Job("cell", c, pool, corrected, key, most.get((*own, c.generator), 0), judged))
    return jobs


def _design(audited: Mapping[str, int | str]) -> list[Any]:
    """Return the weights and strata of an audited sample; nothing for plain labels."""
    return [sorted(audited.weights.items()), sorted(audited.strata.items())] if isinstance(audited, Audited) else []


def stage_exists(study: grids.Study, kind: str, key: str) -> bool:
    """Check whether the folder holds a stage."""
    return read_manifest(study.out / kind / key) is not None


def unfinished(study: grids.Study, jobs: Sequence[grids.Job]) -> list[grids.Job]:
    """Return the jobs whose cells have no scores yet."""
    return [job for job in jobs if not (study.out / "cells" / f"{job.key}.json").is_file()]


def missing_pools(study: grids.Study, waiting: Sequence[grids.Job]) -> dict[str, grids.Job]:
    """Return the pools that waiting cells lack, by key, each with one of those cells."""
    return {job.pool: job for job in waiting if job.pool and not stage_exists(study, "synthetic", job.pool)}


def missing_opinions(study: grids.Study, waiting: Sequence[grids.Job]) -> dict[str, grids.Job]:
    """Return the judges' opinions that waiting cells lack, by key, each with one of those cells."""
    open_jobs = [j for j in waiting if j.judged and not (j.corrected and stage_exists(study, "corrected", j.corrected))]
    return {j.judged: j for j in open_jobs if not stage_exists(study, "judged", j.judged)}
