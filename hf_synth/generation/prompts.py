"""What is asked: exemplars chosen by a seeded plan, and the messages of each call.

Call j for some labels follows from the task, the prompt, the seed and the exemplars alone: it is the same whatever the
number of rows wanted, so that a larger run asks only what was never answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_synth.errors import TaskError
from hf_synth.task.task import Prompt, Task

_LONGEST_TEXT = 8_000  # characters of one text, for endpoints that write by a schema
_BREAKS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}  # line breaks that JSON leaves as they are
Messages = list[dict[str, str]]
Row = dict[str, Any]
# What notes differ in, for any task; a task's own prompt named "attributes" says it better.
ATTRIBUTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("setting", ("outpatient clinic", "emergency department", "inpatient ward", "intensive care unit", "telephone call",
                 "home visit", "nursing home")),
    ("part of the note", ("history of present illness", "interval history", "assessment and plan", "hospital course",
                          "nursing note", "discharge instructions", "consultation")),
    ("style", ("terse, with abbreviations", "full sentences", "dictated, with run-on sentences", "a list of problems",
               "copied forward and amended")),
    ("length", ("two sentences", "a short paragraph", "a long paragraph", "two paragraphs")),
    ("patient", ("a young adult", "a middle-aged adult", "an older adult", "a frail patient of great age")),
    ("difficulty", ("typical and clear", "what matters stands among unrelated findings", "mild and easily missed",
                    "stated indirectly, by what was done")),
)  # fmt: skip


# --- the shapes -----------------------------------------------------------------------------------------------------
def prompt_for(task: Task, shape: str = "examples") -> Prompt:
    """Give a task's prompt by name, or make it of the default one.

    Args:
        shape: "examples" (the paper's: shown gold, new rows like it); "attributes" (no gold is shown; each call draws
            setting, style, ... as in AttrPrompt, arXiv 2306.15895, and ClinGen, arXiv 2311.00287); "facts" (no gold is
            shown; facts that lead to the label by rule are drawn, and the answer is checked by that rule); "rewrite"
            (one gold row is told anew with its label); or the name of a prompt of the task.

    Raises:
        TaskError: the task has no such prompt, or no facts.
    """
    for prompt in task.prompts:
        if prompt.name == shape:
            return prompt
    own = task.prompt
    alone: Any = {"name": shape, "asks_for": "one_label", "exemplars": "none", "n_exemplars": 0}
    if shape == "attributes":
        return replace(own, **alone, rows=min(2, own.rows), attributes=ATTRIBUTES)
    if shape == "facts":
        if task.facts is None:
            raise TaskError(f"task {task.full_name!r} has no facts that its labels follow from; choose another prompt")
        return replace(own, **alone, rows=1, attributes=ATTRIBUTES[:3], facts=True)
    if shape == "rewrite":
        told = "Tell the example anew as a different patient's: other words, order, numbers and circumstances, and the "
        instruction = f"{own.instruction} {told}{'same label' if task.labels else 'same kind of content'}."
        one: Any = {"name": shape, "asks_for": "one_label", "exemplars": "same_label", "n_exemplars": 1, "rows": 1}
        return replace(own, **one, instruction=instruction)
    known = ", ".join(dict.fromkeys([*(p.name for p in task.prompts), "attributes", "facts", "rewrite"]))
    raise TaskError(f"task {task.full_name!r} has no prompt {shape!r}; there are {known}")


# --- the question ---------------------------------------------------------------------------------------------------
def render(
    task: Task,
    prompt: Prompt,
    exemplars: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    rows: int | None = None,
    conditions: Sequence[str] = (),
) -> Messages:
    """Write the two messages of one call (docs/design.md shows them). What never changes comes first.

    Args:
        exemplars: rows with the task's columns, the label as a name or an index.
        labels: labels to ask for; none for a text2text task.
        rows: how many rows of each label; the prompt's own number when None.
        conditions: what every row is to fulfil, a line each.
    """
    columns = (*task.text_columns, task.label_column)
    parts = [prompt.instruction]
    if task.labels:
        meanings = task.label_meanings or ("",) * len(task.labels)
        lines = [f"- {x}: {meaning}" if meaning else f"- {x}" for x, meaning in zip(task.labels, meanings, strict=True)]
        parts.append("Labels:\n" + "\n".join(lines))
    if exemplars:
        lines = [json_line({c: _label_name(task, row[c]) for c in columns}) for row in exemplars]
        parts.append("Examples:\n" + "\n".join(lines))
    if conditions:
        parts.append("Every entry fulfils this:\n" + "\n".join(f"- {line}" for line in conditions))
    count = rows or prompt.rows
    of_each = f" for each of these labels: {', '.join(labels)}" if labels else ""
    form = json_line({"entries": [dict.fromkeys(task.text_columns, "...") | {task.label_column: _form(task, labels)}]})
    parts.append(
        f"Write {count} new {'entry' if count == 1 else 'entries'}{of_each}.\n"
        f"Answer with one JSON object and nothing else: {form.removesuffix(']}')}, ...]}}"
    )
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": "\n\n".join(parts)}]


def _label_name(task: Task, value: Any) -> Any:
    """Give the name of a label that is an index, the names of several; a text stays as it is."""
    if isinstance(value, list):
        return [_label_name(task, v) for v in value]
    return task.labels[value] if isinstance(value, int) and task.labels else value


def _form(task: Task, labels: Sequence[str]) -> Any:
    if not task.labels:
        return "..."
    label = (labels or task.labels)[0]
    return [label] if task.kind == "multi_label" else label


def json_line(value: Mapping[str, Any]) -> str:
    """Write a row as one line of JSON: nothing that a text holds ends the line or the value."""
    line = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    return re.sub("[\u2028\u2029\x85]", lambda m: _BREAKS[m[0]], line)


def answer_schema(task: Task) -> dict[str, Any]:
    """Give the JSON schema of an answer, for endpoints that can write by one."""
    text = {"type": "string", "maxLength": _LONGEST_TEXT}
    known = task.labels or task.targets
    label: dict[str, Any] = {"type": "string", "enum": list(known)} if known else text
    if task.kind == "multi_label":
        label = {"type": "array", "items": label}
    columns = dict.fromkeys(task.text_columns, text) | {task.label_column: label}
    entry = {"type": "object", "properties": columns, "required": list(columns), "additionalProperties": False}
    entries = {"type": "array", "items": entry}
    return {
        "type": "object", "properties": {"entries": entries}, "required": ["entries"], "additionalProperties": False,
    }  # fmt: skip
