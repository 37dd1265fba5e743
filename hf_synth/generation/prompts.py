"""Prompt templates and the JSON schema of an answer: the messages of each call of the generator.

`render` turns task, prompt, exemplar rows and the labels asked for into two messages. The system message and the
instruction with the label definitions come first and never change, so that a server can cache them:

    system: {prompt.system}
    user:   {prompt.instruction}

            Labels:
            - grade_0: no esophagitis ...
            - grade_1: ...

            Examples:
            {"text": "...", "label": "grade_0"}
            {"text": "...", "label": "grade_1"}

            Write 5 new entries for each of these labels: grade_0, grade_1, grade_2, grade_3.
            Answer with one JSON object and nothing else: {"entries": [{"text": "...", "label": "grade_0"}, ...]}

The keys are the task's column names. An exemplar is one line of JSON. A text2text task has no "Labels:" block and asks
for "Write 2 new entries." Attributes and facts stand, a line each, in a block "Every entry fulfils this:" before the
request. `answer_schema` constrains the answer where an endpoint supports `response_format=json_schema`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_synth.errors import TaskError
from hf_synth.task.task import Prompt, Task

Messages = list[dict[str, str]]
Row = dict[str, Any]

STATES = "it states, in its own words:"  # begins the condition of a fact
_LONGEST_TEXT = 8_000  # characters of one text, for endpoints that support a schema
_BREAKS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}  # line breaks that JSON does not escape
# Attributes of notes for any task; a task's own prompt named "attributes" is better.
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


def prompt_for(task: Task, shape: str = "examples") -> Prompt:
    """Return a task's prompt by name, or derive it from the default one.

    Args:
        shape: "examples" (the paper's: new rows like the exemplars); "attributes" (no exemplars; each call draws
            setting, style, ... as in AttrPrompt, arXiv 2306.15895, and ClinGen, arXiv 2311.00287); "facts" (no
            exemplars; facts that lead to the label by rule are drawn, and the answer is checked by that rule);
            "rewrite" (one gold row is paraphrased with its label); or the name of a prompt of the task.

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
            raise TaskError(f"task {task.full_name!r} has no facts that lead to its labels; choose another prompt")
        return replace(own, **alone, rows=1, attributes=ATTRIBUTES[:3], facts=True)
    if shape == "rewrite":
        ask = "Tell the example anew as a different patient's: other words, order, numbers and circumstances, and the "
        instruction = f"{own.instruction} {ask}{'same label' if task.labels else 'same kind of content'}."
        one: Any = {"name": shape, "asks_for": "one_label", "exemplars": "same_label", "n_exemplars": 1, "rows": 1}
        return replace(own, **one, instruction=instruction)
    known = ", ".join(dict.fromkeys([*(p.name for p in task.prompts), "attributes", "facts", "rewrite"]))
    raise TaskError(f"task {task.full_name!r} has no prompt {shape!r}; there are {known}")


def render(
    task: Task,
    prompt: Prompt,
    exemplars: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    rows: int | None = None,
    conditions: Sequence[str] = (),
) -> Messages:
    """Write the two messages of one call.

    Args:
        exemplars: rows with the task's columns; labels are names or indices.
        labels: labels to ask for; none for a text2text task.
        rows: how many rows of each label; the prompt's own number when None.
        conditions: conditions for every row, a line each.
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
    """Return the name of a label that is an index, or the names of several; a text stays unchanged."""
    if isinstance(value, list):
        return [_label_name(task, v) for v in value]
    return task.labels[value] if isinstance(value, int) and task.labels else value


def _form(task: Task, labels: Sequence[str]) -> Any:
    if not task.labels:
        return "..."
    label = (labels or task.labels)[0]
    return [label] if task.kind == "multi_label" else label


def json_line(value: Mapping[str, Any]) -> str:
    """Write a row as one line of JSON; no character of a text can end the line or the value."""
    line = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    return re.sub("[\u2028\u2029\x85]", lambda m: _BREAKS[m[0]], line)


def answer_schema(task: Task, most: int | None = None) -> dict[str, Any]:
    """Return the JSON schema of an answer.

    Args:
        most: number of entries, at most; at least one is then asked for. Any number when None: some endpoints refuse a
            schema that limits it.
    """
    text = {"type": "string", "maxLength": _LONGEST_TEXT}
    known = task.labels or task.targets
    label: dict[str, Any] = {"type": "string", "enum": list(known)} if known else text
    if task.kind == "multi_label":
        label = {"type": "array", "items": label}
    columns = dict.fromkeys(task.text_columns, text) | {task.label_column: label}
    entry = {"type": "object", "properties": columns, "required": list(columns), "additionalProperties": False}
    limits = {} if most is None else {"minItems": 1, "maxItems": most}
    entries = {"entries": {"type": "array", "items": entry} | limits}
    return {"type": "object", "properties": entries, "required": ["entries"], "additionalProperties": False}
