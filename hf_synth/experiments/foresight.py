"""What of an experiment cannot work, found before its first cell by the checks that its stages would make later.

A cell that cannot work is recorded as failed and costs nothing; the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from hf_synth.correction.correction import check_correction
from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.experiments import leakage
from hf_synth.experiments.cells import Maker, failure, gold_of, held_out, hold_back, own_gold, share_of
from hf_synth.experiments.grid import BASELINES, LINEAR, LLM_JUDGE, RAW, Cell, Job, Study, correction_options
from hf_synth.gold.adoption import adopt
from hf_synth.models.readiness import check_base_model
from hf_synth.models.record import model_facts

if TYPE_CHECKING:
    from datasets import Dataset

Failure = dict[str, str]


def foresee_failures(study: Study, jobs: Sequence[Job], makers: Mapping[str, Maker]) -> dict[str, Failure]:
    """Return the failure of each job that cannot work, by the key of the job."""
    pools: dict[str, Dataset] = {}
    held, train = held_out(study), gold_of(study.out)["train"]

    @cache
    def usable(base_model: str) -> None:
        check_base_model(study.task, base_model)

    def check(job: Job) -> None:
        cell = job.cell
        if cell.strategy in BASELINES:
            return
        own = own_gold(study, cell)
        corrector = cell.corrector if cell.labels not in ("", RAW, LLM_JUDGE) else LINEAR
        for model in {cell.base_model, corrector} - {LINEAR}:
            usable(model)
            leakage.check_model(study.task, model_facts(model), own, train, held)
        if study.validation:
            hold_back(study.task, own, study.validation, seed=cell.seed)
        if cell.labels not in ("", RAW, LLM_JUDGE):
            check_correction(study.task, _no_fit, gold=own, options=correction_options(cell.labels))
        if cell.generator in study.pools:
            if cell.generator not in pools:
                pools[cell.generator] = _rows_of(study, cell, makers[cell.generator])
            _check_pool(study, job, pools[cell.generator], own, held)

    found = {}
    for job in jobs:
        try:
            check(job)
        except HfSynthError as error:
            found[job.key] = failure(error)
    return found


def _no_fit(_rows: Any) -> Any:
    raise NotImplementedError  # stands for a corrector that is trained; nothing is


def _rows_of(study: Study, cell: Cell, maker: Maker) -> Dataset:
    """Return the rows of a pool, in the column contract."""
    rows = maker(gold_of(study.out)["train"], 0, 0)
    if {"label_status", "llm_label", "seed_ids", "id"} <= set(rows.column_names):
        return rows
    return adopt(study.task, rows, generator=cell.generator)


def _check_pool(study: Study, job: Job, rows: Dataset, own: Dataset, held: Mapping[str, Dataset]) -> None:
    """Check that a cell may use its share of a pool; with `drop_seen` the share is not known yet."""
    if job.cell.strategy == "replace" and not any(rows["seed_ids"][:]):
        raise ColumnError(
            "strategy replace needs the gold rows that were shown; column 'seed_ids' of the synthetic rows is empty"
        )
    if not study.drop_seen:
        leakage.check_exemplars(share_of(study, job, rows, round(job.cell.ratio * job.cell.gold_size)), own, held)


def count_reasons(failures: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the reasons of failures with how many cells have each, the most frequent first."""
    counts = Counter(": ".join(filter(None, (f["error"], f["message"]))) for f in failures)
    return [f"{n:,} {'cell' if n == 1 else 'cells'}: {reason}" for reason, n in counts.most_common()]
