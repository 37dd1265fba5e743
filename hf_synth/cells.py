"""The stages of an experiment, each kept in its folder under the hash of what it follows from, and never made twice.

    gold/   synthetic/<key>/   corrected/<key>/   cells/<key>.json + .npz (or .failed.json)

Synthetic rows are made once for a gold subset and a generator, corrected once for a method and a corrector; a cell
trains one model on its mixture and scores it. Everything is written whole or not at all, so that an experiment goes on
after a kill. `run_job` is what a process of the pool runs.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.apart import check_gold, check_model, check_synthetic, copies, gold_budget, without
from hf_synth.augmentation import augment, trainable
from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.evaluation import Scores, evaluate, score
from hf_synth.folders import clear_disk_errors, read_dataset, read_export, read_manifest, write_stage
from hf_synth.gold import adopt, subset
from hf_synth.grid import LINEAR, Cell
from hf_synth.head import linear_fit
from hf_synth.modeling import model_facts, model_revision, weights_sha256
from hf_synth.pipeline import correct_with_policy
from hf_synth.rows import label_indices
from hf_synth.task import USAGE_COLUMNS, Task, access_of, row_digests, strictest
from hf_synth.training import train, trainer_fit

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Maker = Callable[["Dataset", int, int], "Dataset"]  # (gold of its own, rows wanted, seed) -> synthetic rows


@dataclass(frozen=True)
class Study:
    """What all cells of an experiment share; plain values, so that it travels to other processes.

    Args:
        task: of the gold.
        out: the experiment's folder.
        splits: of gold that are scored, e.g. ("test",).
        args: fields of `TrainingArguments` for every model.
        generators: what tells each generator from another one, by name.
        audited: true labels of synthetic rows that a person checked, by row id.
        validation: share of a cell's own gold that is held back to stop training early; part of its budget.
        drop_seen: leave rows out that stand on both sides of the evaluation, instead of refusing them.
        n_bootstrap: of the intervals of single scores.
    """

    task: Task
    out: Path
    splits: tuple[str, ...] = ("test",)
    args: Mapping[str, Any] | None = None
    generators: Mapping[str, str] = field(default_factory=dict)
    audited: Mapping[str, int | str] = field(default_factory=dict)
    validation: float = 0.0
    drop_seen: bool = False
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
    """

    kind: str
    cell: Cell
    pool: str
    corrected: str
    key: str
    rows: int = 0


def key_of(*parts: Any) -> str:
    """Name a stage by all that it follows from (16 hex digits)."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


# --- gold and synthetic rows ------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def gold_of(study_out: Path) -> DatasetDict:
    """Read the gold of an experiment, once in a process."""
    return read_export(study_out / "gold")


def own_gold(study: Study, cell: Cell) -> Dataset:
    """Give the gold rows that a cell may use: its subset of the training split."""
    return subset(study.task, gold_of(study.out)["train"], cell.gold_size, seed=cell.seed)


def held_out(study: Study) -> dict[str, Dataset]:
    """Give the rows that are scored; with `drop_seen` without those that stand in the gold for training."""
    gold = gold_of(study.out)
    held = {split: gold[split] for split in study.splits}
    if study.drop_seen:
        held = {s: without(rows, copies(study.task, rows, gold["train"])) for s, rows in held.items()}
        empty = [split for split, rows in held.items() if not len(rows)]
        if empty:
            raise ColumnError(f"every row of split {empty[0]!r} stands in the gold for training: nothing can be scored")
    return held


def gold_digest(study: Study, cell: Cell) -> str:
    """Digest a cell's gold: texts and labels."""
    rows = own_gold(study, cell)
    names = row_digests(study.task, rows.select_columns(list(study.task.text_columns)))
    return key_of([[n, label] for n, label in zip(names, rows[study.task.label_column], strict=True)])


def make_pool(study: Study, cell: Cell, n: int, key: str, maker: Maker) -> None:
    """Have synthetic rows made from a cell's own gold, check them, and write their folder."""
    started = time.perf_counter()
    own, held = own_gold(study, cell), held_out(study)
    rows = maker(own, n, cell.seed)
    if not {"label_status", "llm_label", "seed_ids", "id"} <= set(rows.column_names):
        rows = adopt(study.task, rows, generator=cell.generator)
    left_out = [i for split in held.values() for i in copies(study.task, rows, split)] if study.drop_seen else []
    rows = without(rows, left_out)
    check_synthetic(study.task, rows, own, held)
    seconds = round(time.perf_counter() - started, 2)
    write_stage(
        study.task, rows, study.out / "synthetic" / key, stage="generate", generator=cell.generator, seed=cell.seed,
        gold_rows=len(own), asked_for=n, left_out=len(set(left_out)), seconds=seconds,
    )  # fmt: skip


def pool_rows(study: Study, job: Job) -> Dataset:
    """Give a cell's synthetic rows before correction: its share of those that are good, labels in proportion; nested.

    Only these are corrected: a cell of few rows must not learn from the many that another cell has.
    """
    rows = read_dataset(study.out / "synthetic" / job.pool)
    good = rows.select([i for i, status in enumerate(rows["label_status"]) if status != "rejected"])
    wanted = min(len(good), round(job.cell.ratio * job.cell.gold_size))
    if not wanted:
        raise ColumnError("no synthetic row is good enough to train on: all were rejected")
    return subset(study.task, good, wanted, seed=job.cell.seed)


# --- correction -------------------------------------------------------------------------------------------------------


def _correct(study: Study, job: Job) -> None:
    cell, started, cpu = job.cell, time.perf_counter(), time.process_time()
    own, rows = own_gold(study, cell), pool_rows(study, job)
    if cell.corrector == LINEAR:
        fit: Any = linear_fit(study.task, own, rows, seed=cell.seed)
    else:
        check_model(study.task, model_facts(cell.corrector), own, gold_of(study.out)["train"], held_out(study))
        folds = study.out / "work" / f"folds-{job.key}"
        fit = trainer_fit(study.task, base_model=cell.corrector, args=study.args, work_dir=folds, seed=cell.seed)
    there = set(rows["id"])
    audited = {id: label for id, label in study.audited.items() if id in there}
    done, policy = correct_with_policy(
        study.task, rows, fit, gold=own, method=cell.labels, audited=audited or None, seed=cell.seed
    )
    write_stage(
        study.task, done, study.out / "corrected" / job.key, stage="correct", policy=policy.to_json(),
        gold_rows=len(own), seed=cell.seed, seconds=round(time.perf_counter() - started, 2),
        cpu_seconds=round(time.process_time() - cpu, 2),
    )  # fmt: skip


# --- a cell -----------------------------------------------------------------------------------------------------------


def _cell(study: Study, job: Job) -> None:
    task, cell = study.task, job.cell
    started, cpu = time.perf_counter(), time.process_time()
    own, held = own_gold(study, cell), held_out(study)
    check_gold(task, own, held)
    raw = pool_rows(study, job) if job.pool else None
    rows = read_dataset(study.out / "corrected" / job.corrected) if job.corrected else raw
    stop = subset(task, own, max(1, round(study.validation * len(own))), seed=cell.seed) if study.validation else None
    known = own if stop is None else _others(own, stop)
    if rows is None:
        data = known
    else:
        check_synthetic(task, rows, own, held)
        if cell.strategy == "replace" and not any(rows["seed_ids"]):
            raise ColumnError(
                "strategy replace needs to know which gold rows were shown; these synthetic rows do not say"
            )
        data = augment(known, rows, strategy=cell.strategy, seed=cell.seed)  # type: ignore[arg-type]
    audited = None if raw is None else raw.select([i for i, id in enumerate(raw["id"]) if id in study.audited])
    facts: dict[str, Any] = {
        **cell.to_json(), "arm": cell.arm, "task": task.full_name, "task_version": task.version,
        "gold_budget": gold_budget(task, own, stop, audited), "validation_rows": 0 if stop is None else len(stop),
        "audited_rows": 0 if audited is None else len(audited),
        **_sources(data, rows), **_making(study, job, raw), **_correction(study, job, rows),
    }  # fmt: skip
    if facts["gold_budget"] > len(own) + facts["audited_rows"]:
        raise HfSynthError("a cell touched more labels than its gold and the audited rows hold")
    prepared = time.perf_counter()
    scores, about = (_linear_scores if cell.base_model == LINEAR else _model_scores)(study, job, data, stop, own, held)
    facts |= about | {
        "seconds_train": round(time.perf_counter() - prepared, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "access": strictest(task.access, access_of(data), *(access_of(r) for r in held.values())),
        "gold_sha256": gold_digest(study, cell), "pool_key": job.pool, "corrected_key": job.corrected,
        "cell_key": job.key, **_versions(),
    }  # fmt: skip
    _write_cell(study, job, [{**facts, "split": split, **_figures(s)} for split, s in scores.items()], scores)


def _others(own: Dataset, stop: Dataset) -> Dataset:
    held = set(stop["id"])
    return own.select([i for i, id in enumerate(own["id"]) if id not in held])


Scored = tuple[dict[str, Scores], dict[str, Any]]


def _linear_scores(
    study: Study, job: Job, data: Dataset, _stop: Dataset | None, _own: Dataset, held: Mapping[str, Dataset]
) -> Scored:
    predict = linear_fit(study.task, data, seed=job.cell.seed)(data)
    scores = {}
    for split, rows in held.items():
        groups = list(rows["group"]) if "group" in rows.column_names else None
        truth = label_indices(study.task, rows)
        scores[split] = score(
            study.task, predict(rows), truth, groups, n_bootstrap=study.n_bootstrap, seed=job.cell.seed
        )
    return scores, {"weights_sha256": "", "base_revision": "", "base_sha256": ""}


def _model_scores(
    study: Study, job: Job, data: Dataset, stop: Dataset | None, own: Dataset, held: Mapping[str, Dataset]
) -> Scored:
    task, base, train_split = study.task, job.cell.base_model, gold_of(study.out)["train"]
    check_model(task, model_facts(base), own, train_split, held)
    (study.out / "work").mkdir(exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="model-", dir=study.out / "work") as work:
        model = train(
            task, data, stop, base_model=base, output_dir=Path(work) / "model", args=study.args, seed=job.cell.seed
        )
        check_model(task, model_facts(model), own, train_split, held)
        scores = {
            split: evaluate(task, model, rows, n_bootstrap=study.n_bootstrap, seed=job.cell.seed)
            for split, rows in held.items()
        }
        weights = weights_sha256(model)
    return scores, {
        "weights_sha256": weights,
        "base_revision": model_revision(base) or "",
        "base_sha256": _base_sha(base),
    }


def _base_sha(base: str) -> str:
    try:
        return weights_sha256(base)
    except HfSynthError:  # a base without weights starts from its seed
        return ""


def base_identity(base: str) -> str:
    """Tell one base model from another: a folder by its weights, whatever its path."""
    if not base or base == LINEAR:
        return base
    return _base_sha(base) or base


# --- what a cell's row says -------------------------------------------------------------------------------------------


def _sources(data: Dataset, rows: Dataset | None) -> dict[str, Any]:
    sources = Counter(data["source"])
    status = Counter() if rows is None else Counter(rows["label_status"])
    return {
        "n_train": len(data), "n_gold": sources["gold"], "n_synthetic": sources["synthetic"],
        "n_kept": status["kept"], "n_relabelled": status["relabelled"], "n_dropped": status["dropped"],
        "n_usable": 0 if rows is None else len(trainable(rows)),
    }  # fmt: skip


def _making(study: Study, job: Job, raw: Dataset | None) -> dict[str, Any]:
    """Say what a cell's share of its synthetic rows took."""
    none = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": None, "seconds_generate": 0.0,
            "simulated": study.task.name == "clinic", "generated_by": "", "gates": "{}"}  # fmt: skip
    if raw is None:
        return none
    folder = study.out / "synthetic" / job.pool
    every, facts = read_dataset(folder), read_manifest(folder) or {}
    good = max(1, sum(status != "rejected" for status in every["label_status"]))
    share = len(raw) / good
    sums = {c: [v for v in every[c] if v is not None] if c in every.column_names else [] for c in USAGE_COLUMNS}
    gates = zip(every["label_status"], every["reason"], strict=True)
    writers = sorted({str(g) for g in raw["generator"]})
    return {
        "calls": round(share * len({k for k in every["journal_key"] if k})),
        "prompt_tokens": round(share * sum(sums["prompt_tokens"])),
        "completion_tokens": round(share * sum(sums["completion_tokens"])),
        "cost_usd": share * sum(sums["cost_usd"]) if sums["cost_usd"] else None,
        "seconds_generate": round(share * float(facts.get("seconds", 0)), 2),
        "simulated": none["simulated"] or any("simulator" in w for w in writers),
        "generated_by": ", ".join(writers),
        "gates": json.dumps(Counter("good" if s != "rejected" else r for s, r in gates)),
    }  # fmt: skip


def _correction(study: Study, job: Job, rows: Dataset | None) -> dict[str, Any]:
    facts = (read_manifest(study.out / "corrected" / job.corrected) or {}) if job.corrected else {}
    policy = facts.get("policy", {})
    return {
        "policy": policy.get("method", "none" if job.pool else ""),
        "policy_figures": json.dumps(policy.get("figures", {})),
        "policy_warnings": json.dumps(policy.get("warnings", [])),
        "noise": json.dumps(policy.get("noise", [])),
        "noise_after": json.dumps(_believed(study.task, rows) if policy and rows is not None else []),
        "corrector_confusion": json.dumps(policy.get("confusion", [])),
        "seconds_correct": float(facts.get("seconds", 0.0)),
        "cpu_seconds_correct": float(facts.get("cpu_seconds", 0.0)),
    }


def _believed(task: Task, rows: Dataset) -> list[list[float]]:
    """Count labels after correction over what the policy believes, (K, K), a row a label held for true."""
    if task.kind != "single_label":
        return []
    used = rows.select(trainable(rows))
    belief, k = np.asarray(used["label_probs"], dtype=np.float64), len(task.labels)
    given = np.eye(k)[label_indices(task, used)] * np.asarray(used["weight"], dtype=np.float64)[:, None]
    counts = belief.reshape(-1, k).T @ given
    return np.round(counts / np.maximum(counts.sum(1, keepdims=True), 1e-12), 6).tolist()  # type: ignore[no-any-return]


def _figures(scores: Scores) -> dict[str, Any]:
    plain: dict[str, Any] = {"n_test": scores.n, "test_groups": len(set(scores.groups)) or None}
    for name, value in scores.values.items():
        low, high = scores.ci95.get(name, (None, None))
        plain |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return plain | {"per_class": json.dumps(scores.per_class), "confusion": json.dumps(scores.confusion)}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from hf_synth import __version__

    names = ("torch", "transformers", "datasets", "scikit-learn", "numpy")
    return {"hf_synth": __version__, "versions": json.dumps({n: version(n) for n in names})}


def _write_cell(study: Study, job: Job, rows: list[dict[str, Any]], scores: Mapping[str, Scores]) -> None:
    """Write what each test row was taken for, numbers only, then the cell's row, which says that it is done."""
    folder = study.out / "cells"
    arrays: dict[str, Any] = {
        f"{split}_{name}": np.array(getattr(s, name), np.int32)
        for split, s in scores.items() for name in ("labels", "predictions", "groups")
    }  # fmt: skip
    with written(folder / f"{job.key}.npz") as draft, draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    with written(folder / f"{job.key}.json") as draft:
        draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Write a file as a whole or not at all: fill the yielded one, it is then renamed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with clear_disk_errors(path):
        try:
            yield draft
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


# --- in a process of the pool -----------------------------------------------------------------------------------------


def run_job(study: Study, job: Job) -> dict[str, str] | None:
    """Run one stage; give None, or what went wrong: the error's class, and its sentence where it is one of ours."""
    try:
        {"correct": _correct, "cell": _cell}[job.kind](study, job)
    except Exception as error:  # a failed cell must not stop the others; other errors' messages might show a text
        return failure(error)
    return None


def failure(error: BaseException) -> dict[str, str]:
    """Say what went wrong without any text of rows."""
    said = str(error) if isinstance(error, HfSynthError) else ""
    return {"error": type(error).__name__, "message": said}
