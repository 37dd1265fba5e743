"""What is asked: exemplars chosen by a seeded plan, and the messages of each call.

The plan (which exemplars, which labels) follows from the task, the seed and the exemplars alone: call c is the same
whatever the number of rows wanted.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError
from hf_synth.task import Prompt, Task, access_of, check_columns, label_names, strictest

if TYPE_CHECKING:
    from datasets import Dataset

_LONGEST_TEXT = 8_000  # characters of one text, for endpoints that write by a schema
_BREAKS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}  # line breaks that JSON leaves as they are

Messages = list[dict[str, str]]
Row = dict[str, Any]


# --- the question ---------------------------------------------------------------------------------------------------


def render(
    task: Task, prompt: Prompt, exemplars: Sequence[Mapping[str, Any]], labels: Sequence[str], rows: int | None = None
) -> Messages:
    """Write the two messages of one call (docs/design.md shows them). What never changes comes first.

    Args:
        exemplars: rows with the task's columns, the label as a name or an index.
        labels: labels to ask for; none for a text2text task.
        rows: how many rows of each label; the prompt's own number when None.
    """
    columns = (*task.text_columns, task.label_column)
    parts = [prompt.instruction]
    if task.labels:
        meanings = task.label_meanings or ("",) * len(task.labels)
        lines = [f"- {x}: {meaning}" if meaning else f"- {x}" for x, meaning in zip(task.labels, meanings, strict=True)]
        parts.append("Labels:\n" + "\n".join(lines))
    if exemplars:
        lines = [_json_line({c: _label_name(task, row[c]) for c in columns}) for row in exemplars]
        parts.append("Examples:\n" + "\n".join(lines))
    count = rows or prompt.rows
    of_each = f" for each of these labels: {', '.join(labels)}" if labels else ""
    form = _json_line({"entries": [dict.fromkeys(task.text_columns, "...") | {task.label_column: _form(task, labels)}]})
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


def _json_line(value: Mapping[str, Any]) -> str:
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
    """

    index: int
    messages: Messages
    labels: tuple[str, ...]
    rows: int
    seed_ids: tuple[str, ...]

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
        columns = [c for c in ("id", *task.text_columns, task.label_column) if c in exemplars.column_names]
        self._rows = exemplars.select_columns(columns).with_format(None)
        self._names = label_names(exemplars.features[task.label_column])
        self._orders: dict[tuple[str, int], list[int]] = {}
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
        return self.named(self._rows[position], position)

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

    @cached_property
    def digests(self) -> set[bytes]:
        """Digests of all gold texts: an answer that repeats one of them is a duplicate."""
        texts = zip(*(self._rows[c] for c in self.task.text_columns), strict=True)
        return {text_digest(shown) for shown in texts if None not in shown}


def text_digest(texts: Iterable[str]) -> bytes:
    """Digest texts without regard to case, spaces and punctuation."""
    plain = "\x1f".join(" ".join(re.findall(r"\w+", text.casefold())) for text in texts)
    return blake2b(plain.encode("utf-8", "replace"), digest_size=16).digest()


def plan(task: Task, prompt: Prompt, pool: Pool, rows: int) -> Iterator[Call]:
    """Give call after call without end; call c is the same whatever n is."""
    k, shown = max(1, len(task.labels)), prompt.n_exemplars
    number = 0
    while True:
        lap, label = divmod(number, k)
        one = task.labels[label] if task.labels else ""
        if prompt.exemplars == "one_per_label" and task.labels:
            turns = [p for name in task.labels for p in pool.turn(name, number * shown, shown)]
        elif prompt.exemplars == "same_label" and task.labels:
            turns = pool.turn(one, lap * shown, shown)
        else:
            turns = pool.turn("", number * shown, shown)
        asked = task.labels if prompt.asks_for == "every_label" else (one,) if one else ()
        exemplars = [pool.row(p) for p in dict.fromkeys(turns)]
        messages = render(task, prompt, exemplars, asked, rows)
        yield Call(number, messages, tuple(asked), rows, tuple(row["id"] for row in exemplars))
        number += 1


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
    if prompt.exemplars == "one_per_label" and task.kind == "single_label":
        shown = [r for x in task.labels for r in ([own, *others(x, count - 1)] if x == label else others(x, count))]
    elif prompt.exemplars == "same_label" and task.kind == "single_label":
        shown = [own, *others(label, count - 1)]
    else:
        shown = [own, *others("", count - 1)]
    return Call(start, render(task, prompt, shown, labels, n), labels, n, tuple(r["id"] for r in shown))
