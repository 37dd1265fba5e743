"""Rows that correction dropped are asked for again: the plan goes on where it ended, and nothing is paid for twice."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Unpack

from hf_synth.correction.correction import (
    CorrectionOptions,
    Corrector,
    audited_places,
    check_correction,
    correct_with_policy,
)
from hf_synth.correction.policy import Policy
from hf_synth.errors import ColumnError, TaskError
from hf_synth.generation.generation import Estimate, estimate, generate
from hf_synth.llm.questions import Chat
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
ROUNDS = 2


def regenerate(
    task: Task,
    corrected: Dataset,
    corrector: Corrector,
    llm: Chat,
    *,
    gold: Dataset,
    exemplars: Dataset,
    rounds: int = ROUNDS,
    prompt: Prompt | str | None = None,
    seed: int = 0,
    **correction: Unpack[CorrectionOptions],
) -> Dataset:
    """Ask for as many rows as correction dropped, and correct them all together, some times over.

    With the exemplars, prompt and seed of the first `generate` its answers come from the journal, and only what goes
    beyond them is asked.

    Args:
        corrected: rows of `correct`, dropped ones among them.
        corrector, gold: as for `correct`.
        llm, exemplars, prompt, seed: as for `generate`.
        rounds: at most; fewer when nothing is dropped any more, or nothing new comes.
        correction: `method`, `audited`, `coverage` and `coverage_by_class` of `correct`, checked before anything is
            asked; audited are rows of `corrected`, of whatever round.

    Returns:
        All rows as `correct` gives them, dropped ones too: they tell what was left out.

    Raises:
        TaskError: rounds is below 1.
        ColumnError: the rows are none that were generated and corrected.
        HfSynthError: as `generate` and `correct` have it.
    """
    return regenerate_with_policy(
        task,
        corrected,
        corrector,
        llm,
        gold=gold,
        exemplars=exemplars,
        rounds=rounds,
        prompt=prompt,
        seed=seed,
        **correction,
    )[0]


def regenerate_with_policy(
    task: Task,
    corrected: Dataset,
    corrector: Corrector,
    llm: Chat,
    *,
    gold: Dataset,
    exemplars: Dataset,
    rounds: int = ROUNDS,
    prompt: Prompt | str | None = None,
    seed: int = 0,
    progress: bool = False,
    **correction: Unpack[CorrectionOptions],
) -> tuple[Dataset, Policy | None]:
    """Do what `regenerate` does, and give the policy of the last round as well: None where nothing came."""
    from datasets import concatenate_datasets

    if rounds < 1:
        raise TaskError("rows are asked for again in at least one round")
    _check_generated(corrected)
    policy: Policy | None = None
    rows, wanted = corrected, _counts(task, corrected, _COUNTED)
    if wanted - _counts(task, rows, _GOOD):
        check_correction(task, corrector, gold=gold, **correction)  # before anything is paid for
        if task.kind == "single_label":
            there = [i for i, status in enumerate(rows["label_status"]) if status in _COUNTED]
            audited_places(task, rows.select(there), correction.get("audited"))
    for number in range(1, rounds + 1):
        missing = wanted - _counts(task, rows, _GOOD)
        if not missing:
            break
        n = _plan(task, _counts(task, rows, _COUNTED) + missing)
        made = generate(task, exemplars, llm, n, prompt=prompt, seed=seed, progress=progress)
        fresh = made.select(_unknown(task, rows, made, missing))
        if "kept" not in set(fresh["label_status"]):
            _LOG.warning("%d rows are missing, and the generator gave no new one for them", missing.total())
            break
        known = rows.select_columns(list(made.column_names)).cast(made.features)
        rows, policy = correct_with_policy(
            task, concatenate_datasets([known, fresh]), corrector, gold=gold, seed=seed, **correction
        )
        _LOG.info("round %d: %d rows were missing, %d came", number, missing.total(), len(fresh))
    return rows, policy


def estimate_again(task: Task, corrected: Dataset, exemplars: Dataset, **how: Any) -> Estimate:
    """Reckon what the first round of `regenerate` would ask beyond the answers that its rows came of; nothing is asked.

    Args:
        how: `prompt`, `seed` and `price`, as for `estimate`.

    Raises:
        ColumnError: the rows are none that were generated and corrected.
        HfSynthError: as `estimate` has it.
    """
    _check_generated(corrected)
    there, missing = _counts(task, corrected, _COUNTED), _counts(task, corrected, ("dropped",))
    rows = {label: missing[label] for label in (task.labels if task.kind == "single_label" else ("",))}
    if not missing:
        return Estimate(rows, 0, 0, 0, 0, None if how.get("price") is None else 0.0)
    all_of_it, paid = (estimate(task, exemplars, _plan(task, c), **how) for c in (there + missing, there))
    cost = None if all_of_it.cost_usd is None or paid.cost_usd is None else all_of_it.cost_usd - paid.cost_usd
    return Estimate(
        rows, all_of_it.calls - paid.calls, all_of_it.prompt_tokens - paid.prompt_tokens,
        all_of_it.completion_tokens - paid.completion_tokens, all_of_it.most_calls - paid.calls, cost,
    )  # fmt: skip


_GOOD = ("kept", "relabelled")
_COUNTED = (*_GOOD, "dropped")


def _check_generated(rows: Dataset) -> None:
    lacking = [c for c in ("id", "llm_label", "label_status", "prompt_sha256") if c not in rows.column_names]
    if lacking or not any(rows["prompt_sha256"]):
        what = f"lack columns {lacking}" if lacking else "were written elsewhere"
        raise ColumnError(f"the rows {what}: only what `generate` asked for can be asked for again")


def _plan(task: Task, counts: Counter[str]) -> Any:
    return {label: counts[label] for label in task.labels} if task.kind == "single_label" else counts[""]


def _label_of(task: Task, value: Any) -> str:
    """Give the label that a row counts for; tasks without single labels are counted together."""
    return task.labels[value] if task.kind == "single_label" and value is not None else ""


def _counts(task: Task, rows: Dataset, statuses: tuple[str, ...]) -> Counter[str]:
    """Count rows of some statuses by the label that was asked for."""
    told = zip(rows["llm_label"], rows["label_status"], strict=True)
    return Counter(_label_of(task, label) for label, status in told if status in statuses)


def _unknown(task: Task, rows: Dataset, made: Dataset, missing: Counter[str]) -> list[int]:
    """Find rows that were not there before: rejects, and as many good ones of each label as are missing."""
    ids, left, found = set(rows["id"]), missing.copy(), []
    texts = set(zip(*(rows[c] for c in task.text_columns), strict=True))
    made_texts = zip(*(made[c] for c in task.text_columns), strict=True)
    columns = zip(made["id"], made["label_status"], made["llm_label"], made_texts, strict=True)
    for i, (id, status, value, text) in enumerate(columns):
        label = _label_of(task, value)
        if id in ids or (status == "kept" and (text in texts or left[label] < 1)):
            continue
        left[label] -= status == "kept"
        found.append(i)
    return found
