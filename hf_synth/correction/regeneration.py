"""Regeneration of rows that correction dropped: the generation plan continues, and no answer is paid for twice."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from hf_synth.correction.correction import (
    Corrector,
    audited_labels_by_position,
    check_correction,
    correct_with_policy,
)
from hf_synth.correction.methods import DEFAULTS, CorrectionOptions
from hf_synth.correction.policy import Policy
from hf_synth.errors import ColumnError, TaskError
from hf_synth.generation.generation import Estimate, estimate, generate
from hf_synth.llm.questions import Chat
from hf_synth.reports.progress import shown
from hf_synth.task.arrow import rewrite_columns
from hf_synth.task.columns import annotation_columns
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset, Features

_LOG = logging.getLogger(__name__)
ROUNDS = 2
_GOOD = ("kept", "relabelled")
_COUNTED = (*_GOOD, "dropped")


class Correction(TypedDict, total=False):
    """Keywords of `regenerate` that say how rows are corrected, as in `correct`."""

    method: str
    audited: Mapping[str, int | str] | None
    coverage: float | None
    coverage_by_class: bool
    auto_metric: str


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
    **correction: Unpack[Correction],
) -> Dataset:
    """Generate as many rows as correction dropped, and correct all rows together, in rounds.

    With the exemplars, prompt and seed of the first `generate` its answers come from the journal, and only further
    questions are asked.

    Args:
        corrected: rows of `correct`, dropped ones among them.
        corrector, gold: as for `correct`.
        llm, exemplars, prompt, seed: as for `generate`.
        rounds: at most; fewer when no row is dropped any more, or no new row comes.
        correction: `method`, `audited`, `coverage`, `coverage_by_class` and `auto_metric` of `correct`, checked before
            any question is asked; audited rows are those of `corrected`, from any round.

    Returns:
        All rows of `correct`, dropped ones too.

    Raises:
        TaskError: rounds is below 1.
        ColumnError: the rows were not generated and corrected.
        HfSynthError: as for `generate` and `correct`.

    Example:
        >>> more = regenerate(
        ...     task, corrected, corrector, llm, gold=gold["train"], exemplars=gold["train"], rounds=1, method="agree"
        ... )
        >>> more.num_rows >= corrected.num_rows
        True
    """
    how: Any = {"gold": gold, "exemplars": exemplars, "rounds": rounds, "prompt": prompt}
    options = CorrectionOptions(**correction, seed=seed)
    return regenerate_with_policy(task, corrected, corrector, llm, **how, options=options)[0]


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
    progress: bool = False,
    options: CorrectionOptions = DEFAULTS,
) -> tuple[Dataset, Policy | None]:
    """Regenerate rows as `regenerate` does; return them and the policy of the last round, None without new rows."""
    from datasets import concatenate_datasets

    if rounds < 1:
        raise TaskError("regeneration needs at least one round: give rounds of 1 or more")
    _check_generated(corrected)
    policy: Policy | None = None
    rows, wanted = corrected, _counts(task, corrected, _COUNTED)
    if wanted - _counts(task, rows, _GOOD):
        check_correction(task, corrector, gold=gold, options=options)  # before any question is paid for
        if task.kind == "single_label":
            usable = [i for i, status in enumerate(rows["label_status"]) if status in _COUNTED]
            audited_labels_by_position(task, rows.select(usable), options.audited)
    for number in range(1, rounds + 1):
        missing = wanted - _counts(task, rows, _GOOD)
        if not missing:
            break
        if "unused" in set(rows["reason"]):
            _LOG.warning("correction uses none of the rows (gold_only): more of them are not asked for")
            break
        n = _plan(task, _counts(task, rows, _COUNTED) + missing)
        generated = generate(task, exemplars, llm, n, prompt=prompt, seed=options.seed, progress=progress)
        fresh = generated.select(_new_rows(task, rows, generated, missing))
        if "kept" not in set(fresh["label_status"]):
            _LOG.warning("%d rows are missing, and the generator gave no new one for them", missing.total())
            break
        features = _features_of_all(rows, generated.features)
        both = concatenate_datasets([rewrite_columns(part, {}, features) for part in (rows, fresh)])
        with shown(progress):
            rows, policy = correct_with_policy(task, both, corrector, gold=gold, options=options)
        _LOG.info("round %d: %d rows were missing, %d came", number, missing.total(), len(fresh))
    return rows, policy


def estimate_again(task: Task, corrected: Dataset, exemplars: Dataset, **how: Any) -> Estimate:
    """Estimate the questions of the first round of `regenerate` beyond those already answered, without asking any.

    Args:
        how: `prompt`, `seed` and `price`, as for `estimate`.

    Raises:
        ColumnError: the rows were not generated and corrected.
        HfSynthError: as for `estimate`.
    """
    _check_generated(corrected)
    present, missing = _counts(task, corrected, _COUNTED), _counts(task, corrected, ("dropped",))
    rows = {label: missing[label] for label in (task.labels if task.kind == "single_label" else ("",))}
    if not missing:
        return Estimate(rows, 0, 0, 0, 0, None if how.get("price") is None else 0.0)
    total, paid = (estimate(task, exemplars, _plan(task, c), **how) for c in (present + missing, present))
    cost = None if total.cost_usd is None or paid.cost_usd is None else total.cost_usd - paid.cost_usd
    tokens = total.prompt_tokens - paid.prompt_tokens, total.completion_tokens - paid.completion_tokens
    return Estimate(rows, total.calls - paid.calls, *tokens, total.most_calls - paid.calls, cost)


def _features_of_all(rows: Dataset, generated: Features) -> Features:
    """Return the features of generated rows and the labels that other LLMs gave to the rows so far."""
    from datasets import Features

    others = [c for c in annotation_columns(rows.column_names) if c not in generated]
    return Features({**generated, **{c: rows.features[c] for c in others}})


def _check_generated(rows: Dataset) -> None:
    lacking = [c for c in ("id", "llm_label", "label_status", "prompt_sha256") if c not in rows.column_names]
    if lacking or not any(rows["prompt_sha256"]):
        fault = f"lack columns {lacking}" if lacking else "were written elsewhere"
        raise ColumnError(f"the rows {fault}: only rows of `generate` can be regenerated")


def _plan(task: Task, counts: Counter[str]) -> Any:
    return {label: counts[label] for label in task.labels} if task.kind == "single_label" else counts[""]


def _label_of(task: Task, value: Any) -> str:
    """Return the label that a row counts for; rows of tasks without single labels are counted together."""
    return task.labels[value] if task.kind == "single_label" and value is not None else ""


def _counts(task: Task, rows: Dataset, statuses: tuple[str, ...]) -> Counter[str]:
    """Count rows of some statuses by the generator's label."""
    pairs = zip(rows["llm_label"], rows["label_status"], strict=True)
    return Counter(_label_of(task, label) for label, status in pairs if status in statuses)


def _new_rows(task: Task, rows: Dataset, generated: Dataset, missing: Counter[str]) -> list[int]:
    """Return the positions of new rows: rejected ones, and as many kept ones of each label as are missing."""
    ids, left, new = set(rows["id"]), missing.copy(), []
    known = set(zip(*(rows[c] for c in task.text_columns), strict=True))
    texts = zip(*(generated[c] for c in task.text_columns), strict=True)
    columns = zip(generated["id"], generated["label_status"], generated["llm_label"], texts, strict=True)
    for i, (id, status, value, text) in enumerate(columns):
        label = _label_of(task, value)
        if id in ids or (status == "kept" and (text in known or left[label] < 1)):
            continue
        left[label] -= status == "kept"
        new.append(i)
    return new
