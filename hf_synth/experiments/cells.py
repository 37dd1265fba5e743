"""Stages of an experiment: generate, ask judges, correct, train and score; each is stored under its key.

    gold/   synthetic/<key>/   judged/<key>/   corrected/<key>/   cells/<key>.json + .npz (or .failed.json)

Synthetic rows are generated once for a gold subset and a generator, and corrected once for a method and a corrector; a
cell trains one model on its mixture and scores it. Every file is written whole or not at all, so that a killed
experiment can continue. `run_job` is what other processes call.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.correction.audited import select_audited
from hf_synth.correction.augmentation import augment
from hf_synth.correction.correction import correct_with_policy
from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation.baselines import frequency_baseline, zero_shot_baseline
from hf_synth.evaluation.evaluation import Scores, evaluate, predict, score, truth
from hf_synth.experiments import leakage
from hf_synth.experiments.cell_figures import (
    correction_of,
    figures_of,
    flips_of,
    generation_figures,
    gpu_seconds,
    sources_of,
    subgroups_of,
    swaps_of,
    versions,
    write_cell,
)
from hf_synth.experiments.grid import (
    BASELINES,
    FREQUENCY,
    LINEAR,
    ZERO_SHOT,
    Cell,
    Job,
    Study,
    correction_options,
    key_of,
)
from hf_synth.experiments.opinions import AnyJudge, ask, read_opinions, usage_of
from hf_synth.generation.generation import check_some
from hf_synth.gold.adoption import adopt, read_dataset
from hf_synth.gold.gold import subset
from hf_synth.models.linear import linear_fit
from hf_synth.models.loading import model_folder, model_revision
from hf_synth.models.record import model_facts, weights_sha256
from hf_synth.models.training import train, trainer_fit
from hf_synth.task.columns import JUDGED, access_of, annotation_columns, strictest
from hf_synth.task.folders import read_export, write_stage
from hf_synth.task.labels import column_of, groups_of, judged_mask
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Maker = Callable[["Dataset", int, int], "Dataset"]  # (own gold, rows wanted, seed) -> synthetic rows


# --- gold and synthetic rows ------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=2)
def gold_of(study_out: Path) -> DatasetDict:
    """Read the gold of an experiment, once per process."""
    return read_export(study_out / "gold")


_HELD_OUT: dict[tuple[Path, str, str], Dataset] = {}  # by experiment, split and task: an index of all gold is dear


def forget_gold() -> None:
    """Forget the gold that was read, before an experiment whose folder may hold other gold than it did."""
    gold_of.cache_clear()
    _HELD_OUT.clear()


def own_gold(study: Study, cell: Cell) -> Dataset:
    """Return the gold rows that a cell may use: its subset of the training split."""
    if cell.strategy == ZERO_SHOT:
        return gold_of(study.out)["train"].select([])
    return subset(study.task, gold_of(study.out)["train"], cell.gold_size, seed=cell.seed)


def held_out(study: Study) -> dict[str, Dataset]:
    """Return the rows that are scored; with `drop_seen` without copies of training rows and rows of their groups."""
    gold = gold_of(study.out)
    held = {split: gold[split] for split in study.splits}
    if study.drop_seen:
        for split, rows in held.items():
            place = (study.out, split, study.task.fingerprint())
            if place not in _HELD_OUT:
                _HELD_OUT[place] = _drop_seen_rows(study.task, rows, gold["train"], split)
            held[split] = _HELD_OUT[place]
    return held


def _drop_seen_rows(task: Task, rows: Dataset, train: Dataset, split: str) -> Dataset:
    seen = [*leakage.copies(task, rows, train), *leakage.shared_groups(rows, train)]
    unseen = leakage.without(rows, seen)
    if not len(unseen):
        raise ColumnError(
            f"every row of split {split!r}, or its group, is in the gold for training: nothing can be scored; "
            "choose another split"
        )
    return unseen


def hold_back(task: Task, gold: Dataset, share: float, *, seed: int = 0) -> list[int]:
    """Choose the gold rows for early stopping: whole groups, labels in proportion as far as groups allow.

    Args:
        share: wanted share of the rows; at least one group is chosen.

    Returns:
        Positions in ascending order.

    Raises:
        ColumnError: all rows are of one group.
    """
    wanted = max(1, round(share * len(gold)))
    members: dict[str, list[int]] = {}
    for i, name in enumerate(leakage.group_names(gold)):
        members.setdefault(f"group {name}" if name else f"row {i}", []).append(i)
    if len(members) < 2:
        raise ColumnError(
            f"all {len(gold)} gold rows of a cell are of one patient: none can be held back; set validation to 0"
        )
    group_of = {i: name for name, rows in members.items() for i in rows}
    first, ids = set(subset(task, gold, wanted, seed=seed)["id"][:]), gold["id"][:]  # labels in proportion
    order = sorted(np.random.default_rng(seed).permutation(len(gold)).tolist(), key=lambda i: ids[i] not in first)
    chosen: list[int] = []
    for name in dict.fromkeys(group_of[i] for i in order):
        if len(chosen) + len(members[name]) <= wanted:
            chosen += members[name]
    return sorted(chosen) or min(members.values(), key=lambda rows: (len(rows), rows))


def gold_digest(study: Study, cell: Cell) -> str:
    """Return a digest of a cell's gold: texts, labels, the mask of judged labels, and labels that LLMs gave."""
    rows = own_gold(study, cell)
    pairs = zip(leakage.text_digests(study.task, rows), rows[study.task.label_column], strict=True)
    return key_of([list(pair) for pair in pairs], *judged_columns(rows))


def judged_columns(rows: Dataset) -> list[Any]:
    """Return the column of judged labels and those of LLMs' labels, if there are any: they are in the gold's digest."""
    names = [JUDGED, *annotation_columns(rows.column_names)]
    return [list(rows[name][:]) for name in names if name in rows.column_names]


def make_pool(study: Study, cell: Cell, n: int, key: str, maker: Maker) -> None:
    """Generate synthetic rows from a cell's own gold, check them, and write their folder."""
    started = time.perf_counter()
    own, held = own_gold(study, cell), held_out(study)
    fixed = cell.generator in study.pools
    if not fixed:
        leakage.check_gold(study.task, own, held)
    rows = maker(own, n, cell.seed)
    if not {"label_status", "llm_label", "seed_ids", "id"} <= set(rows.column_names):
        rows = adopt(study.task, rows, generator=cell.generator)
    check_some(rows)  # a stage without a note would stand for good
    left_out = (
        [i for split in held.values() for i in leakage.copies(study.task, rows, split)] if study.drop_seen else []
    )
    rows = leakage.without(rows, left_out)
    facts: dict[str, Any] = {"generator": cell.generator, "left_out": len(set(left_out))}
    if fixed:  # shared by cells of any gold: each cell checks the exemplars of its rows (`_share`)
        leakage.check_copies(study.task, rows, held)
    else:
        leakage.check_synthetic(study.task, rows, own, held)
        facts |= {"seed": cell.seed, "gold_rows": len(own), "asked_for": n}
    facts["seconds"] = round(time.perf_counter() - started, 2)
    write_stage(study.task, rows, study.out / "synthetic" / key, stage="generate", **facts)


def pool_rows(study: Study, job: Job) -> Dataset:
    """Return a cell's synthetic rows before correction: a nested share of the good ones, labels in proportion.

    Correction sees only these: a cell of few rows must not learn from the rows of another cell.
    """
    return _share(study, job, round(job.cell.ratio * job.cell.gold_size))


def _share(study: Study, job: Job, n: int) -> Dataset:
    rows = share_of(study, job, read_dataset(study.out / "synthetic" / job.pool), n)
    if job.cell.generator in study.pools:
        leakage.check_exemplars(rows, own_gold(study, job.cell), held_out(study))
    return rows


def share_of(study: Study, job: Job, rows: Dataset, n: int) -> Dataset:
    """Return n of the good rows of a pool, drawn by the cell's seed with labels in proportion.

    Raises:
        ColumnError: all rows were rejected.
    """
    good = rows.select([i for i, status in enumerate(rows["label_status"]) if status != "rejected"])
    wanted = min(len(good), n)
    if not wanted:
        raise ColumnError("no synthetic row can be trained on: all were rejected; see the Gates of the report")
    return subset(study.task, good, wanted, seed=job.cell.seed)


def make_opinions(study: Study, job: Job, judge: AnyJudge) -> None:
    """Ask a judge about a cell's own gold and the synthetic rows of its largest ratio, and store its opinions.

    For "zero-shot" ask about the scored rows, without any gold.
    """
    cell, folder = job.cell, study.out / "judged" / job.judged
    own, held = own_gold(study, cell), held_out(study)
    leakage.check_gold(study.task, own, held)
    rows = list(held.values()) if cell.strategy == ZERO_SHOT else [_share(study, job, job.rows)]
    ask(study.task, judge, own, *rows, seed=cell.seed, folder=folder, name=cell.judge)


# --- correction -------------------------------------------------------------------------------------------------------
def _correct_rows(study: Study, job: Job) -> None:
    cell, started, cpu = job.cell, time.perf_counter(), time.process_time()
    own, rows = own_gold(study, cell), pool_rows(study, job)
    if job.judged:
        fit: Any = read_opinions(study.task, study.out / "judged" / job.judged)
        own = fit.known(own)
    elif cell.corrector == LINEAR:
        fit = linear_fit(study.task, own, rows, seed=cell.seed)
    else:
        leakage.check_model(study.task, model_facts(cell.corrector), own, gold_of(study.out)["train"], held_out(study))
        work = study.out / "work"
        how: dict[str, Any] = {"work_dir": work / f"folds-{job.key}", "cache_dir": work, "seed": cell.seed}
        fit = trainer_fit(study.task, base_model=cell.corrector, args=study.args, **how)
    audited = select_audited(study.audited, rows["id"])
    options = correction_options(cell.labels, audited=audited or None, seed=cell.seed)
    corrected, policy = correct_with_policy(study.task, rows, fit, gold=own, options=options)
    facts: dict[str, Any] = {
        "policy": policy.to_json(),
        "gold_rows": len(own),
        "seed": cell.seed,
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "gpu_seconds": 0.0 if job.judged else gpu_seconds(cell.corrector, time.perf_counter() - started),
    }
    write_stage(study.task, corrected, study.out / "corrected" / job.key, stage="correct", **facts)


# --- a cell -----------------------------------------------------------------------------------------------------------
def _train_and_score(study: Study, job: Job) -> None:
    task, cell = study.task, job.cell
    started, cpu = time.perf_counter(), time.process_time()
    own, held = own_gold(study, cell), held_out(study)
    leakage.check_gold(task, own, held)
    raw = pool_rows(study, job) if job.pool else None
    rows = read_dataset(study.out / "corrected" / job.corrected) if job.corrected else raw
    stops = study.validation and cell.strategy not in BASELINES
    back = hold_back(task, own, study.validation, seed=cell.seed) if stops else []
    stop, known = (own.select(back) if back else None), leakage.without(own, back)
    if rows is None:
        data = known
    else:
        leakage.check_synthetic(task, rows, own, held)
        if cell.strategy == "replace" and not any(rows["seed_ids"]):
            raise ColumnError(
                "strategy replace needs the gold rows that were shown; column 'seed_ids' of the synthetic rows is empty"
            )
        data = augment(study.task, rows, gold=known, strategy=cell.strategy, seed=cell.seed)  # type: ignore[arg-type]
    used = [] if raw is None or not job.corrected else [i for i, id in enumerate(raw["id"]) if id in study.audited]
    audited = raw.select(used) if raw is not None and used else None  # labels without use in correction cost nothing
    judged = study.out / "judged" / job.judged if job.judged else None
    facts: dict[str, Any] = {
        **cell.to_json(), "arm": cell.arm, "task": task.full_name, "task_version": task.version,
        "gold_budget": leakage.gold_budget(task, own, stop, audited),
        "validation_rows": 0 if stop is None else len(stop), "audited_rows": 0 if audited is None else len(audited),
        **sources_of(data, rows), **generation_figures(study, job, raw), **correction_of(study, job, rows),
        **usage_of(judged, len(own) + (sum(map(len, held.values())) if raw is None else len(raw))),
    }  # fmt: skip
    if facts["gold_budget"] > len(own) + facts["audited_rows"]:
        raise HfSynthError("a cell used more labels than its gold and the audited rows hold")
    prepared = time.perf_counter()
    baseline = {FREQUENCY: _frequency_scores, ZERO_SHOT: _zero_shot_scores}.get(cell.strategy)
    scorer = baseline or (_linear_scores if cell.base_model == LINEAR else _model_scores)
    scores, about, swaps = scorer(study, job, data, stop, own, held)
    facts |= about | {
        "gpu_seconds": 0.0 if baseline else gpu_seconds(cell.base_model, time.perf_counter() - prepared),
        "seconds_train": round(time.perf_counter() - prepared, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "access": strictest(task.access, access_of(data), *(access_of(r) for r in held.values())),
        "gold_sha256": gold_digest(study, cell), "pool_key": job.pool, "corrected_key": job.corrected,
        "cell_key": job.key, **versions(),
    }  # fmt: skip
    facts["flips"] = flips_of(study, job, rows)
    by_split = [
        facts
        | {"split": split, **figures_of(s), "subgroups": subgroups_of(study, job, held[split], s)}
        | {"swaps": swaps.get(split, "[]")}
        for split, s in scores.items()
    ]
    write_cell(study, job, by_split, scores)


Scored = tuple[dict[str, Scores], dict[str, Any], dict[str, str]]  # scores by split, facts, swaps by split
_NO_WEIGHTS: Mapping[str, Any] = {"weights_sha256": "", "base_revision": "", "base_sha256": ""}


def _frequency_scores(
    study: Study, job: Job, data: Dataset, _stop: Dataset | None, _own: Dataset, held: Mapping[str, Dataset]
) -> Scored:
    how: dict[str, Any] = {"n_bootstrap": study.n_bootstrap, "seed": job.cell.seed}
    scores = {split: frequency_baseline(study.task, data, rows, **how) for split, rows in held.items()}
    return scores, dict(_NO_WEIGHTS), {}


def _zero_shot_scores(
    study: Study, job: Job, _data: Dataset, _stop: Dataset | None, _own: Dataset, held: Mapping[str, Dataset]
) -> Scored:
    opinions = read_opinions(study.task, study.out / "judged" / job.judged)
    scores = {
        split: zero_shot_baseline(study.task, rows, opinions, n_bootstrap=study.n_bootstrap)
        for split, rows in held.items()
    }
    return scores, {**_NO_WEIGHTS, "policy_figures": json.dumps(dict(opinions.figures))}, {}


def _linear_scores(
    study: Study, job: Job, data: Dataset, _stop: Dataset | None, _own: Dataset, held: Mapping[str, Dataset]
) -> Scored:
    predict_probs = linear_fit(study.task, data, seed=job.cell.seed)(data)
    scores, swaps = {}, {}
    for split, rows in held.items():
        probs = predict_probs(rows)
        judged = judged_mask(study.task, rows) if study.task.kind == "multi_label" else None
        how: dict[str, Any] = {"judged": judged, "n_bootstrap": study.n_bootstrap, "seed": job.cell.seed}
        scores[split] = score(study.task, probs, truth(study.task, rows), groups_of(rows), **how)
        if study.swaps:
            swaps[split] = swaps_of(study, job, rows, probs, predict_probs)
    return scores, dict(_NO_WEIGHTS), swaps


def _model_scores(
    study: Study, job: Job, data: Dataset, stop: Dataset | None, own: Dataset, held: Mapping[str, Dataset]
) -> Scored:
    task, base, train_split = study.task, job.cell.base_model, gold_of(study.out)["train"]
    leakage.check_model(task, model_facts(base), own, train_split, held)
    with tempfile.TemporaryDirectory(prefix="model-", dir=study.out / "work") as work:
        training: dict[str, Any] = {"args": study.args, "seed": job.cell.seed, "cache_dir": study.out / "work"}
        model = train(task, data, stop, base_model=base, output_dir=Path(work) / "model", **training)
        sources = column_of(data, "source", "gold")
        written = data.select([i for i, source in enumerate(sources) if source == "synthetic"])
        leakage.check_model(task, model_facts(model), own, train_split, held, written)
        how: dict[str, Any] = {"n_bootstrap": study.n_bootstrap, "seed": job.cell.seed}
        scores, swaps = {}, {}
        for split, rows in held.items():
            predicted = predict(task, model, rows)
            scores[split] = evaluate(task, model, rows, predicted=predicted, **how)
            if study.swaps:
                swaps[split] = swaps_of(study, job, rows, predicted, functools.partial(predict, task, model))
        weights = weights_sha256(model)
    revision = model_revision(model_folder(base)) or ""
    return scores, {"weights_sha256": weights, "base_revision": revision, "base_sha256": _weights_of(base)}, swaps


def _weights_of(base: str) -> str:
    try:
        return weights_sha256(base)
    except HfSynthError:  # a base without weights is initialised by the seed
        return ""


def model_identity(base: str) -> str:
    """Return what distinguishes a base model: the digest of its weights, whatever its path; else its name."""
    if not base or base == LINEAR:
        return base
    return _weights_of(base) or base


# --- called in other processes ----------------------------------------------------------------------------------------
def run_job(study: Study, job: Job) -> dict[str, str] | None:
    """Run one stage; return None, or its failure."""
    try:
        {"correct": _correct_rows, "cell": _train_and_score}[job.kind](study, job)
    except Exception as error:  # a failed cell must not stop the others
        return failure(error)
    return None


def failure(error: BaseException) -> dict[str, str]:
    """Return the class of an error, with its message only if it is an HfSynthError: others might show a row's text."""
    return {"error": type(error).__name__, "message": str(error) if isinstance(error, HfSynthError) else ""}
