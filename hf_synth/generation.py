"""Gold exemplars to prompts, prompts to answers, answers to synthetic rows; every reject keeps its reason.

The same call has the same journal key in every run: a second run, and a larger n, ask only what was never answered.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.answers import Parsed, normalize_label, parse
from hf_synth.folders import WORK
from hf_synth.journal import default_journal
from hf_synth.llm import LLM, Answer
from hf_synth.prompts import Call, Pool, Row, answer_schema, plan, plan_for_row, render, text_digest
from hf_synth.task import Access, Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "Call", "Parsed", "Pool", "answer_schema", "generate", "normalize_label", "parse", "plan", "plan_for_row", "render",
    "rows_from_answer", "text_digest",
]  # fmt: skip

_LOG = logging.getLogger(__name__)
_MOST_CALLS = 3  # times the calls that would do if every answer were good


# --- the rows -------------------------------------------------------------------------------------------------------


def rows_from_answer(task: Task, call: Call, answer: Answer, access: Access, seen: set[bytes]) -> list[Row]:
    """Make synthetic rows of one answer, rejects included, with the columns of `Task.synthetic_features`.

    Args:
        access: of the task and all that was shown.
        seen: `text_digest` of texts that came before, gold ones among them; grows by the good rows of this answer.

    Returns:
        Rows in the answer's order, labels as indices (text2text: text); at least one, which may be a reject. Good
        rows beyond the number that was asked for of a label are left out.
    """
    if answer.status == "error":
        found = [Parsed(reason="budget" if answer.code == "budget" else "llm_error")]
    elif answer.status == "refusal":
        found = [Parsed(reason="refusal")]
    else:
        found = parse(task, answer.text, call.labels, whole=answer.status != "truncated")
    counts: Counter[str] = Counter()
    rows = []
    for position, entry in enumerate(found):
        reason = entry.reason or _fault(task, entry.row or {}, seen)
        if not reason and entry.row:
            label = str(entry.row[task.label_column]) if task.labels else ""
            counts[label] += 1
            if counts[label] > call.rows:
                continue
            seen.add(text_digest(entry.row[c] for c in task.text_columns))
        id = f"{task.name}-syn-" + sha256(f"{answer.journal_key}:{position}".encode()).hexdigest()[:16]
        rows.append(
            {
                **_content(task, entry.row, reason), "id": id, "group": id, "source": "synthetic",
                "task": task.full_name, "task_version": task.version, "access": access,
                "seed_ids": list(call.seed_ids), "prompt_sha256": call.prompt_sha256, "generator": answer.model,
                "journal_key": answer.journal_key,
            }
        )  # fmt: skip
    return rows


def _fault(task: Task, row: Mapping[str, Any], seen: set[bytes]) -> str | None:
    """Find what is wrong with a row that was read well."""
    texts = [row[c] for c in task.text_columns]
    if any(re.search(pattern, text) for pattern in task.leaks for text in texts):
        return "label_leak"
    return "duplicate" if text_digest(texts) in seen else None


def _content(task: Task, row: Mapping[str, Any] | None, reason: str | None) -> Row:
    """Give texts, labels and status of a row; all null but the reason for a reject."""
    kept = {} if reason or row is None else row
    label = kept.get(task.label_column)
    if label is not None and task.labels:
        label = [task.labels.index(x) for x in label] if isinstance(label, list) else task.labels.index(label)
    return {
        **{c: kept.get(c) for c in task.text_columns}, task.label_column: label, "llm_label": label,
        "label_status": "rejected" if reason else "kept", "reason": reason or "as_generated",
    }  # fmt: skip


def _interleave(task: Task, rows: list[Row]) -> list[Row]:
    """Order the rows of one call so that a cut anywhere leaves the labels balanced: first of each, second of each."""
    seen: Counter[str] = Counter()
    keys = []
    for place, row in enumerate(rows):
        label = str(row["llm_label"]) if task.labels else ""
        keys.append((seen[label], place))
        seen[label] += row["label_status"] == "kept"
    return [row for _, row in sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0])]


def generate(
    task: Task,
    exemplars: Dataset,
    llm: LLM,
    n: int,
    *,
    prompt: Prompt | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Dataset:
    """Make synthetic rows from gold exemplars.

    Calls go on, up to three times as many as good answers would need, until n rows are good. Without a journal of its
    own the LLM keeps its answers beside the gold.

    Args:
        exemplars: gold rows that may be shown.
        n: good rows wanted.
        prompt: how to ask; the task's default when None.
        seed: of the plan; the same seed asks the same questions.
        progress: show a progress bar.

    Returns:
        n good rows (`label_status` "kept"; fewer when the calls did not give them, with a warning), and each reject
        of the calls they came from, in the order of the plan.

    Raises:
        ColumnError: the exemplars are empty or lack columns.
        HfSynthError: as `LLM.chat` has it.
    """
    from datasets import Dataset

    prompt = prompt or task.prompt
    pool = Pool(task, exemplars, seed=seed)
    llm = _beside(llm, exemplars)
    per_label = max(1, len(task.labels)) if prompt.asks_for == "every_label" else 1
    rows_asked = max(1, min(prompt.rows, math.ceil(n / per_label)))
    most = _MOST_CALLS * math.ceil(n / (per_label * rows_asked))
    calls = plan(task, prompt, pool, rows_asked)
    rows: list[Row] = []
    seen = set(pool.digests)
    kept = asked = 0
    stopped = False
    while kept < n and asked < most and not stopped:
        per_call = per_label * rows_asked if not asked else max(kept / asked, 0.2 * per_label * rows_asked)
        wave = [next(calls) for _ in range(min(most - asked, math.ceil((n - kept) / per_call)))]
        answers = _ask(task, llm, wave, prompt, pool.access, progress)
        asked += len(wave)
        stopped = all(a.status == "error" for a in answers) or any(a.code == "budget" for a in answers)
        for call, answer in zip(wave, answers, strict=True):
            if kept >= n:
                break
            for row in _interleave(task, rows_from_answer(task, call, answer, pool.access, seen)):
                good = row["label_status"] == "kept"
                if not good or kept < n:
                    rows.append(row)
                    kept += good
    if kept < n:
        reasons = Counter(row["reason"] for row in rows if row["label_status"] == "rejected")
        _LOG.warning("%d of %d rows came of %d calls; rejected: %s", kept, n, asked, dict(reasons))
    features = task.synthetic_features()
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)


def _ask(task: Task, llm: LLM, wave: Sequence[Call], prompt: Prompt, access: Access, progress: bool) -> list[Answer]:
    """Ask the calls of one wave."""
    return llm.chat(
        [call.messages for call in wave],
        access=access,
        schema=None if task.parse else answer_schema(task),
        samples=[call.index for call in wave],
        scope=task.fingerprint(),
        progress=progress,
        **dict[str, Any](prompt.sampling),
    )


def _beside(llm: LLM, exemplars: Dataset) -> LLM:
    """Put the journal of an LLM that has none beside the gold: into the folder of ours that its cache lies in."""
    if llm.journal is not None:
        return llm
    for file in exemplars.cache_files:
        for folder in Path(file["filename"]).parents:
            if folder.name == WORK:
                return llm.with_journal(folder / "journal.sqlite")
    return llm.with_journal(default_journal())
