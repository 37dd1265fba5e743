"""Rows that correction dropped are asked for again: the plan goes on where it ended, and nothing is paid for twice."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from hf_synth.errors import TaskError
from hf_synth.generation import generate
from hf_synth.pipeline import Corrector, correct
from hf_synth.questions import Chat
from hf_synth.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
ROUNDS = 2


def regenerate(
    task: Task,
    corrected: Dataset,
    exemplars: Dataset,
    llm: Chat,
    corrector: Corrector,
    *,
    gold: Dataset,
    method: str = "auto",
    rounds: int = ROUNDS,
    prompt: Prompt | str | None = None,
    seed: int = 0,
) -> Dataset:
    """Ask for as many rows as correction dropped, and correct them all together, some times over.

    With the exemplars, prompt and seed of the first `generate` its answers come from the journal, and only what goes
    beyond them is asked.

    Args:
        corrected: rows of `correct`, dropped ones among them.
        exemplars, llm, prompt, seed: as for `generate`.
        corrector, gold, method: as for `correct`.
        rounds: at most; fewer when nothing is dropped any more, or nothing new comes.

    Returns:
        All rows as `correct` gives them, dropped ones too: they tell what was left out.

    Raises:
        TaskError: rounds is below 1.
        HfSynthError: as `generate` and `correct` have it.
    """
    from datasets import concatenate_datasets

    if rounds < 1:
        raise TaskError("rows are asked for again in at least one round")
    rows, wanted = corrected, _counts(task, corrected, ("kept", "relabelled", "dropped"))
    for number in range(1, rounds + 1):
        missing = wanted - _counts(task, rows, ("kept", "relabelled"))
        if not missing:
            break
        asked = _counts(task, rows, ("kept", "relabelled", "dropped")) + missing
        n: Any = {label: asked[label] for label in task.labels} if task.kind == "single_label" else asked[""]
        made = generate(task, exemplars, llm, n, prompt=prompt, seed=seed)
        fresh = made.select(_unknown(task, rows, made, missing))
        if "kept" not in set(fresh["label_status"]):
            _LOG.warning("%d rows are missing, and the generator gave no new one for them", missing.total())
            break
        known = rows.select_columns(list(made.column_names)).cast(made.features)
        rows = correct(task, concatenate_datasets([known, fresh]), corrector, gold=gold, method=method, seed=seed)
        _LOG.info("round %d: %d rows were missing, %d came", number, missing.total(), len(fresh))
    return rows


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
