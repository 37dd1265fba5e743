"""What each synthetic row was asked to state: its attributes and facts, found again by the plan that drew them.

Rows record a hash of their prompt, not its text. A prompt that shows no gold depends on task, seed, label and the
number of the call alone, so that the plan can be gone through again until each prompt is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.errors import HfSynthError
from hf_synth.generation.generation import no_gold
from hf_synth.generation.plan import Plan, Pool
from hf_synth.generation.prompts import prompt_for
from hf_synth.task.labels import label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Stated = tuple[Literal["attribute", "fact"], str, str]  # kind, name, value
_MOST_CALLS = 20_000  # for one label


def stated_of(task: Task, rows: Dataset, prompt: str | None, seed: int) -> dict[str, tuple[Stated, ...]]:
    """Return the attributes and facts that each prompt of some rows asked for, by the hash of the prompt.

    Args:
        rows: of `generate` without gold.
        prompt: the name of its prompt; the task's default when None.
        seed: of the run.

    Returns:
        Nothing for prompts that cannot be found: they show gold, or the task or this package has changed since.
    """
    wanted: dict[str, set[str]] = {}
    if task.kind != "single_label" or "prompt_sha256" not in rows.column_names:
        return {}
    names = label_names(rows.features["llm_label"]) or list(task.labels)
    for hash, label in zip(rows["prompt_sha256"][:], rows["llm_label"][:], strict=True):
        if hash and label is not None:
            wanted.setdefault(names[label] if isinstance(label, int) else str(label), set()).add(hash)
    try:
        shape = prompt_for(task, prompt) if prompt else task.prompt
        if shape.exemplars != "none" or shape.asks_for != "one_label" or not (shape.attributes or shape.facts):
            return {}
        pool = Pool(task, no_gold(task), seed=seed, needed=False)
        plans = [Plan(task, shape, pool, each, seed=seed) for each in range(shape.rows, 0, -1)]
        found: dict[str, tuple[Stated, ...]] = {}
        for label, hashes in wanted.items():
            for plan in plans:
                found |= _search(plan, shape.attributes, label, hashes - found.keys())
    except HfSynthError:  # the task has changed since: it has no such prompt, or no facts
        return {}
    return found


def _search(plan: Plan, attributes: Sequence[Any], label: str, hashes: set[str]) -> dict[str, tuple[Stated, ...]]:
    """Go through the calls for one label until each prompt is found, or too many in a row are none of them."""
    found: dict[str, tuple[Stated, ...]] = {}
    missed = 0
    for j in range(_MOST_CALLS):
        if len(found) == len(hashes) or missed > 100 + 3 * len(hashes):
            break
        call = plan.call([label], j)
        if (hash := call.prompt_sha256) not in hashes:
            missed += 1
            continue
        missed = 0
        conditions, facts = plan.draw([label], f"{label}:{j}")
        stated: list[Stated] = []
        for (name, _), line in zip(attributes, conditions, strict=False):
            stated.append(("attribute", name, line.removeprefix(f"{name}: ")))
        for name, wording in facts:
            stated.append(("fact", name, wording))
        found[hash] = tuple(stated)
    return found
