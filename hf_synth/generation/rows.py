"""Synthetic rows from the answers of an LLM: parsed, held against the gates, with their provenance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from hf_synth.generation.answers import Parsed, parse
from hf_synth.generation.gates import Gates
from hf_synth.generation.plan import Call
from hf_synth.generation.prompts import Row
from hf_synth.llm.questions import Answer
from hf_synth.llm.thoughts import THINKING
from hf_synth.privacy.repetition import Seen
from hf_synth.task.columns import USAGE_COLUMNS, Access
from hf_synth.task.task import Task


def rows_from_answer(
    task: Task, call: Call, answer: Answer, access: Access, gates: Gates, seen: Seen, sampling: str = ""
) -> list[Row]:
    """Make the synthetic rows of one answer, rejects included, with the columns of `Task.synthetic_features`.

    Args:
        access: of the task, the exemplars and the LLM.
        seen: earlier rows; the good rows of this answer are added.
        sampling: the sampling parameters, as JSON.

    Returns:
        Rows in the answer's order, labels as indices (text2text: text); at least one, which may be a reject. Good
        rows of a label beyond the number asked for are left out.
    """
    return next(rows_from_answers(task, [(call, answer)], access, gates, seen, sampling))


def rows_from_answers(
    task: Task,
    answers: Sequence[tuple[Call, Answer]],
    access: Access,
    gates: Gates,
    seen: Seen,
    sampling: str = "",
) -> Iterator[list[Row]]:
    """Yield the rows of each of several answers, as `rows_from_answer` returns them one by one.

    The gates look at all of them at once, which is cheaper; repeats are found in the order of the answers.
    """
    parsed = [entries_of(task, call.labels, answer) for call, answer in answers]
    flat = [(entry.row, call) for (call, _), own in zip(answers, parsed, strict=True) for entry in own if entry.row]
    faults = iter(gates.faults([row for row, _ in flat], [call for _, call in flat]))
    for (call, answer), entries in zip(answers, parsed, strict=True):
        yield _rows(task, call, answer, entries, faults, access, seen, sampling)


def entries_of(task: Task, labels: Sequence[str], answer: Answer) -> list[Parsed]:
    """Return the entries of an answer to a call for some labels, which may be one reject."""
    if answer.status == "error":
        return [Parsed(reason="budget" if answer.code == "budget" else "llm_error")]
    if answer.status == "refusal":
        return [Parsed(reason="refusal")]
    if answer.code == THINKING and not answer.text.strip():
        return [Parsed(reason=THINKING)]
    return parse(task, answer.text, labels, whole=answer.status != "truncated")


def _sampling(asked: str, answer: Answer) -> str:
    """Return the sampling that was asked for, with what was sent otherwise."""
    if not answer.sent:
        return asked
    return json.dumps({**json.loads(asked or "{}"), "sent_otherwise": json.loads(answer.sent)}, sort_keys=True)


def _rows(
    task: Task,
    call: Call,
    answer: Answer,
    entries: Sequence[Parsed],
    faults: Iterator[str | None],
    access: Access,
    seen: Seen,
    sampling: str,
) -> list[Row]:
    created = datetime.fromtimestamp(answer.created, UTC).isoformat(timespec="seconds") if answer.created else ""
    counts: Counter[str] = Counter()
    shared = {
        "source": "synthetic",
        "task": task.full_name,
        "task_version": task.version,
        "access": access,
        "seed_ids": list(call.seed_ids),
        "fold": call.fold,
        "prompt_sha256": call.prompt_sha256,
        "generator": answer.model,
        "journal_key": answer.journal_key,
        "answer_code": answer.code,
        "sampling": _sampling(sampling, answer),
        "created": created,
        **dict.fromkeys(USAGE_COLUMNS),
    }
    rows = []
    for position, entry in enumerate(entries):
        reason = entry.reason
        if entry.row:
            reason = next(faults) or seen.repeat(tuple(entry.row[c] for c in task.text_columns))
        if not reason and entry.row:
            label = str(entry.row[task.label_column]) if task.labels else ""
            counts[label] += 1
            if counts[label] > call.rows:
                continue
        id = f"{task.name}-syn-" + sha256(f"{answer.journal_key}:{position}".encode()).hexdigest()[:16]
        rows.append({**_content(task, entry.row, reason), "id": id, "group": id, **shared})
    return rows


def usage_of(answer: Answer) -> Row:
    """Return the tokens and the cost of an answer, as columns of the first of its rows."""
    if answer.status == "error":
        return {}
    return dict(zip(USAGE_COLUMNS, (answer.prompt_tokens, answer.completion_tokens, answer.cost), strict=True))


def _content(task: Task, row: Mapping[str, Any] | None, reason: str | None) -> Row:
    """Return texts, labels, status and reason of a row; a reject has null texts and labels."""
    kept = {} if reason or row is None else row
    label = kept.get(task.label_column)
    if label is not None and task.labels:
        label = [task.labels.index(x) for x in label] if isinstance(label, list) else task.labels.index(label)
    texts = {c: kept.get(c) for c in task.text_columns}
    status = {"label_status": "rejected" if reason else "kept", "reason": reason or "as_generated"}
    return {**texts, task.label_column: label, "llm_label": label, **status}
