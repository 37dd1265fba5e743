"""The verb `models`: the table of base models, and which of them suits a task and its notes."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hf_synth.errors import TaskError
from hf_synth.models.base_models import BASE_MODELS, pretraining_note, suggest_base_model
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import DatasetDict

Facts = dict[str, Any]
_TOKENS_A_WORD = 1.5  # assumed, on the long side: the model itself is not there to count


def models(args: argparse.Namespace) -> Facts | None:
    """List the table; with a task, say which model suits it."""
    task = load_task(args.task) if args.task else None
    if args.gold is not None and task is None:
        raise TaskError("name the task of the gold, too: hf-synth models TASK --gold PATH")
    for m in BASE_MODELS:
        print(f"{m.repo_id}")
        print(
            f"    {m.millions} M parameters, {m.max_tokens:,} tokens, {m.architecture}; {', '.join(m.kinds)}; "
            f"licence {m.licence or 'not stated'}"
        )
        print(f"    pretrained on {m.pretrained_on}")
        for name, said in (("from", m.source), ("not verified", m.unverified)):
            if said:
                print(f"    {name}: {said}")
    facts: Facts = {"models": [asdict(m) for m in BASE_MODELS]}
    if task is not None:
        lengths = _lengths(task, args)
        found = suggest_base_model(task, lengths, mimic=not args.no_mimic)
        longer = sum(n > found.max_tokens for n in lengths)
        why = f" ({longer:,} of {len(lengths):,} notes may be longer than it reads)" if lengths else ""
        print(f"\nfor {task.full_name}: {found.repo_id}{why}")
        print(pretraining_note(found.repo_id))
        facts["suggested"] = found.repo_id
    return facts


def _lengths(task: Task, args: argparse.Namespace) -> list[int]:
    """Estimate the tokens of each gold note from its words; none without gold."""
    from hf_synth.gold.gold import load_gold

    if args.gold is None and task.files:
        return []
    splits: DatasetDict = load_gold(task, args.gold, seed=args.seed)
    rows = splits["train"] if "train" in splits else next(iter(splits.values()))
    texts = zip(*(rows[c] for c in task.text_columns), strict=True)
    return [round(_TOKENS_A_WORD * sum(len(text.split()) for text in row)) for row in texts]
