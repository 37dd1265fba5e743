"""What is asked: exemplars chosen by a seeded plan, and the messages of each call.

Call j for some labels follows from the task, the prompt, the seed and the exemplars alone: it is the same whatever the
number of rows wanted, so that a larger run asks only what was never answered.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, TaskError
from hf_synth.privacy.overlap import digest
from hf_synth.task.task import Facts, Prompt, Task, access_of, check_columns, label_names, strictest

if TYPE_CHECKING:
    from datasets import Dataset

_LONGEST_TEXT = 8_000  # characters of one text, for endpoints that write by a schema
_BREAKS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}  # line breaks that JSON leaves as they are

_ROWS_AT_HAND = 2_048  # gold rows kept as Python objects
_MOST_DRAWS = 200_000  # combinations of facts that are looked through for those of a label

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


# --- the plan -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One call: what is shown and what is asked for.

    Args:
        index: its number in the plan; equal messages with another index are another question.
        messages: as the endpoint takes them.
        labels: asked for; none for text2text.
        rows: how many of each label.
        seed_ids: of the rows that are shown.
        facts: whether the answer is to be checked by the task's facts.
    """

    index: int
    messages: Messages
    labels: tuple[str, ...]
    rows: int
    seed_ids: tuple[str, ...]
    facts: bool = False

    @property
    def prompt_sha256(self) -> str:
        """Hash of the messages."""
        return sha256(json.dumps(self.messages).encode()).hexdigest()


class Pool:
    """The gold rows that may be shown, by label, in a seeded order that shows each once before any comes again.

    Args:
        seed: of that order.

    Raises:
        ColumnError: there is no usable row, or a column is missing.
    """

    def __init__(self, task: Task, exemplars: Dataset, *, seed: int = 0) -> None:
        check_columns(task, exemplars, what="the exemplars")
        self.task, self.access = task, strictest(task.access, access_of(exemplars))
        self._seed = f"{task.fingerprint()}:{seed}"
        columns = [c for c in ("id", "group", *task.text_columns, task.label_column) if c in exemplars.column_names]
        self._rows = exemplars.select_columns(columns).with_format(None)
        self._names = label_names(exemplars.features[task.label_column])
        self._orders: dict[tuple[str, int], list[int]] = {}
        self._row = lru_cache(_ROWS_AT_HAND)(lambda position: self.named(self._rows[position], position))
        self.by_label: dict[str, list[int]] = {}
        texts = zip(*(self._rows[c] for c in task.text_columns), strict=True)
        for i, (shown, label) in enumerate(zip(texts, self._rows[task.label_column], strict=True)):
            if label is None or not all(isinstance(t, str) and t.strip() for t in shown):
                continue
            self.by_label.setdefault("", []).append(i)
            for name in self._label(label) if task.kind == "multi_label" else [self._label(label)] * bool(task.labels):
                self.by_label.setdefault(name, []).append(i)
        if not self.by_label:
            raise ColumnError(f"there is no gold row with text and label to show for task {task.full_name!r}")

    def _label(self, value: Any) -> Any:
        """Give the name of a label, or the names of several."""
        if isinstance(value, list):
            return [self._label(v) for v in value]
        if self.task.labels and isinstance(value, int):
            names = self._names or self.task.labels
            if not 0 <= value < len(names):
                raise ColumnError(f"the exemplars hold label {value}, which task {self.task.full_name!r} does not have")
            return names[value]
        if self.task.labels and value not in self.task.labels:
            raise ColumnError(f"the exemplars hold a label that task {self.task.full_name!r} does not have")
        return value

    def named(self, row: Mapping[str, Any], position: int | None = None) -> Row:
        """Give a gold row with its label as a name, and an id in any case."""
        named = {c: row[c] for c in self.task.text_columns}
        named[self.task.label_column] = self._label(row[self.task.label_column])
        named["id"] = str(row["id"]) if row.get("id") is not None else f"row-{position}"
        return named

    def row(self, position: int) -> Row:
        """Give the row at a position, as `named` has it."""
        return dict(self._row(position))

    def turn(self, label: str, start: int, count: int) -> list[int]:
        """Give positions of `count` different rows of a label ("" for any), from a place of the endless order on."""
        rows = self.by_label.get(label, [])
        chosen: dict[int, None] = {}
        place = start
        while len(chosen) < min(count, len(rows)):
            lap = place // len(rows)
            if (order := self._orders.get((label, lap))) is None:
                order = random.Random(f"{self._seed}:{label}:{lap}").sample(rows, len(rows))
                self._orders[label, lap] = order
            chosen[order[place % len(rows)]] = None
            place += 1
        return list(chosen)

    def texts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Give group and texts of every gold row that has text."""
        columns = (self._rows[c] for c in self.task.text_columns)
        groups = self._rows["group"] if "group" in self._rows.column_names else range(len(self._rows))
        for i, (group, *row) in enumerate(zip(groups, *columns, strict=True)):
            if all(isinstance(t, str) for t in row):
                yield str(group if group is not None else i), tuple(row)

    @cached_property
    def digests(self) -> set[bytes]:
        """Digests of all gold texts: an answer that repeats one of them is a duplicate."""
        return {digest(row) for _, row in self.texts()}


class Plan:
    """The calls of one prompt: for some labels the first one, the second one, ... without end.

    Args:
        rows: how many rows a call asks for, of each label.
        seed: of what is drawn (attributes, facts).
    """

    def __init__(self, task: Task, prompt: Prompt, pool: Pool, rows: int, *, seed: int = 0) -> None:
        self._task, self._prompt, self._pool, self._rows, self._seed = task, prompt, pool, rows, seed
        self._drawn: dict[str, list[tuple[str, ...]]] = {}

    def call(self, labels: Sequence[str], j: int) -> Call:
        """Give call j for some labels (none for a text2text task)."""
        task, prompt = self._task, self._prompt
        shown = [self._pool.row(p) for p in dict.fromkeys(self._places(labels, j))]
        messages = render(task, prompt, shown, labels, self._rows, self.draw(labels, f"{','.join(labels)}:{j}"))
        return Call(j, messages, tuple(labels), self._rows, tuple(row["id"] for row in shown), prompt.facts)

    def draw(self, labels: Sequence[str], place: str) -> list[str]:
        """Draw attributes and facts for a place of the plan, as the conditions of a call."""
        rng = random.Random(f"{self._task.fingerprint()}:{self._seed}:{place}")
        conditions = [f"{name}: {rng.choice(values)}" for name, values in self._prompt.attributes]
        if self._prompt.facts:
            conditions += rng.choice(self._facts(labels[0]))
        return conditions

    def _places(self, labels: Sequence[str], j: int) -> list[int]:
        task, prompt, pool, count = self._task, self._prompt, self._pool, self._prompt.n_exemplars
        if prompt.exemplars == "none":
            return []
        if prompt.exemplars == "one_per_label" and task.labels:
            return [p for name in task.labels for p in pool.turn(name, j * count, count)]
        if prompt.exemplars == "same_label" and len(labels) == 1:
            return pool.turn(labels[0], j * count, count)
        return pool.turn("", j * count, count)

    def _facts(self, label: str) -> list[tuple[str, ...]]:
        """Give all combinations of facts that lead to a label, as statements."""
        if label not in self._drawn:
            self._drawn[label] = _combinations(self._task, label)
        return self._drawn[label]


def _combinations(task: Task, label: str) -> list[tuple[str, ...]]:
    facts = task.facts or Facts((), "sum", ())
    if prod(len(item.values) for item in facts.items) > _MOST_DRAWS:
        raise TaskError(f"task {task.full_name!r}: its facts have more than {_MOST_DRAWS:,} combinations")
    wanted = task.labels.index(label)
    found = [
        tuple(
            f"it states, in its own words: {item.name}: {said}"
            for item, (said, *_) in zip(facts.items, chosen, strict=True)
        )
        for chosen in product(*(item.values for item in facts.items))
        if facts.label([worth for _, worth, _ in chosen]) == wanted
    ]
    if not found:
        raise TaskError(f"task {task.full_name!r}: no facts lead to the label {label!r}")
    return found


def plan_for_row(
    task: Task, prompt: Prompt, row: Mapping[str, Any], exemplars: Dataset | Pool, n: int = 1, seed: int = 0
) -> Call:
    """Plan the call that makes n rows like one gold row: it is shown as the exemplar of its label.

    Args:
        row: a gold row; its label a name or an index.
        exemplars: rows shown beside it; a `Pool` made once is faster than a Dataset.

    Raises:
        ColumnError: the row has no text or no label.
    """
    pool = exemplars if isinstance(exemplars, Pool) else Pool(task, exemplars, seed=seed)
    if row.get(task.label_column) is None or any(not isinstance(row.get(c), str) for c in task.text_columns):
        raise ColumnError(f"a row to make others from has no text or no label of task {task.full_name!r}")
    own = pool.named(row)
    if row.get("id") is None:
        own["id"] = "row-" + sha256("\x1f".join(own[c] for c in task.text_columns).encode()).hexdigest()[:16]
    label = own[task.label_column]
    labels = () if not task.labels else tuple(label) if task.kind == "multi_label" else (label,)
    start = random.Random(f"{seed}:{own['id']}").randrange(1 << 30)
    texts = [own[c] for c in task.text_columns]

    def others(name: str, count: int) -> list[Row]:
        turn = (pool.row(p) for p in pool.turn(name, start, count + 1))
        return [r for r in turn if [r[c] for c in task.text_columns] != texts][: max(0, count)]

    count = prompt.n_exemplars
    if prompt.exemplars == "none":
        shown = []
    elif prompt.exemplars == "one_per_label" and task.kind == "single_label":
        shown = [r for x in task.labels for r in ([own, *others(x, count - 1)] if x == label else others(x, count))]
    elif prompt.exemplars == "same_label" and task.kind == "single_label":
        shown = [own, *others(label, count - 1)]
    else:
        shown = [own, *others("", count - 1)]
    conditions = Plan(task, prompt, pool, n, seed=seed).draw(labels, own["id"])
    messages = render(task, prompt, shown, labels, n, conditions)
    return Call(start, messages, labels, n, tuple(r["id"] for r in shown), prompt.facts)
