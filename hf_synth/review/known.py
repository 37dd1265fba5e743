"""What is known of notes before a person is asked about them: an audit's findings, and what people decided before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth.errors import OutputError
from hf_synth.review.decisions import LABEL, REJECT, Decisions, outcomes
from hf_synth.review.log import read_log
from hf_synth.review.sheets import items_of, text_digests
from hf_synth.task.folders import WORK
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

FINDINGS = "findings.parquet"  # in a folder of `audit --out`


def withheld_ids(folder: Path) -> set[str]:
    """Return the ids of the notes that an audit withholds.

    Args:
        folder: that `audit --out` wrote.

    Raises:
        OutputError: it holds no findings.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / FINDINGS, columns=["id", "audit_refused"])
    except (OSError, ValueError, KeyError):
        raise OutputError(
            f"{folder} holds no findings of an audit: `hf-synth audit ... --out DIR` writes them"
        ) from None
    return {str(id) for id, refused in zip(*(table[c].to_pylist() for c in table.column_names), strict=True) if refused}


def audit_beside(notes: Path) -> Path | None:
    """Return the newest audit of the notes of a folder that lies beside it and is not older; None for none."""
    found: list[tuple[float, Path]] = []
    with suppress(OSError):
        written = max((file.stat().st_mtime for file in notes.glob("*.parquet")), default=0.0)
        for file in notes.absolute().parent.glob("*/audit.json"):
            with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
                of = json.loads(file.read_text(encoding="utf-8")).get("synthetic")
                when = file.stat().st_mtime
                if Path(of).name == notes.name and when >= written and (file.parent / FINDINGS).is_file():
                    found.append((when, file.parent))
    return max(found)[1] if found else None


def decided(task: Task, notes: Path, rows: Dataset, drawn: list[str]) -> dict[str, tuple[str, str]]:
    """Return what people decided on notes: (decision, label) by row id, of those with an agreed label or rejection.

    They are the answers of the review page that lie in the folder, about the same texts, and labels of audited rows.

    Args:
        notes: the folder of the notes.
        rows: of the folder.
        drawn: ids of the notes that are asked for.
    """
    items = items_of(task, rows, drawn, {})
    marks = dict(zip(items, text_digests(task, items.values()), strict=True))
    reasons: Mapping[str, str] = {}
    if "reason" in rows.column_names:
        reasons = dict(zip(map(str, rows["id"][:]), rows["reason"][:], strict=True))
    known = {id: (LABEL, item.label) for id, item in items.items() if reasons.get(id) == "audited" and item.label}
    reviewers: dict[str, Decisions] = {}
    for file in sorted((notes / WORK / "review" / "labels").glob("*.jsonl")):
        events = read_log(file)
        same = [e for e in events[1:] if "row" not in e or e.get("text", "") in ("", marks.get(str(e["row"])))]
        if events:
            reviewers[str(events[0].get("reviewer", file.stem))] = Decisions(same)
    for id, outcome in outcomes(reviewers).items():
        if id in items and outcome.do in (LABEL, REJECT):
            known[id] = (outcome.do, outcome.label if outcome.do == LABEL else "")
    return known
