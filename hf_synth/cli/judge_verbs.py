"""The verb of the judge: an LLM labels real notes that nobody labelled."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from hf_synth.cli.options import judge_of
from hf_synth.errors import ColumnError
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.folders import write_stage
from hf_synth.task.scripts import load_task


def label(args: argparse.Namespace) -> dict[str, Any]:
    """Label notes."""
    from hf_synth.correction.judging import labelled

    task = load_task(args.task)
    notes = read_dataset(args.notes)
    given = tuple(args.text_column or task.text_columns)
    if len(given) != len(task.text_columns) or not set(given) <= set(notes.column_names):
        raise ColumnError(
            f"task {task.full_name!r} has text columns {list(task.text_columns)}, the notes {notes.column_names}: name "
            "them in that order with --text-column"
        )
    renamed = {old: new for old, new in zip(given, task.text_columns, strict=True) if old != new}
    notes = notes.remove_columns([n for n in renamed.values() if n in notes.column_names]).rename_columns(renamed)
    beside = args.notes if args.notes.is_dir() else Path(args.notes).parent
    with judge_of(task, args, args.llm, beside) as judge:
        rows = labelled(judge, notes, access=args.access)
        figures = judge.figures
    write_stage(task, rows, args.out, stage="label", seed=args.seed, **figures)
    statuses = Counter(rows["label_status"])
    print(f"{statuses['kept']:,} notes labelled, {statuses['dropped']:,} without a vote -> {args.out}")
    print("real notes with an LLM's labels: they never leave, and nothing can be measured on them")
    return {"out": str(args.out), "rows": statuses["kept"], "without_vote": statuses["dropped"], **figures}
