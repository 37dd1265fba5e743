"""From the text of an answer to rows: tolerant of form, strict about content.

Models wrap JSON in chatter and fences, cut it off, forget a comma, or answer in lines. What can be read without
guessing is read; what cannot becomes a reject with its reason. Nothing here raises because of what a text holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_synth.task.task import Task

_LONGEST = 200_000  # characters that the slower ways of reading look at
_TRIES = 300  # places that are tried as the start of an object
_MOST = 500  # entries of one answer
_FEWEST = 3  # letters or digits that make a text
_DECODER = json.JSONDecoder(strict=False)  # line breaks inside strings are forgiven

_REFUSAL = re.compile(
    r"\W*(?:i(?:['’]m| am) (?:very |so )?sorry|sorry,|as an ai\b|unfortunately,? i (?:can|am|do)|"
    r"i (?:cannot|can['’]?t|can not|will not|won['’]t|am (?:unable|not able|not permitted) to|['’]?m unable to|"
    r"must decline to) (?:assist|help|provide|generate|create|write|comply|fulfil|produce|continue|share|answer))",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_TOKEN = re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True)
class Parsed:
    """One entry of an answer: a row, or the reason why it is none.

    Args:
        row: the task's text columns, and its label column as a name (multi_label: a list of names); None for a reject.
        reason: a key of `task.REASONS`; None for a row.
    """

    row: dict[str, Any] | None = None
    reason: str | None = None


def parse(task: Task, text: str, asked: Sequence[str] = (), *, whole: bool = True) -> list[Parsed]:
    """Read the entries of one answer, in its order.

    Args:
        asked: labels that were asked for; an entry without a label has the only one.
        whole: False for an answer cut off at the token limit: only entries that are complete count then.

    Returns:
        At least one element: an answer without any entry is one reject.
    """
    text = _THOUGHT.sub("", text[: 5 * _LONGEST])
    if not text.strip():
        return [Parsed(reason="empty" if whole else "truncated")]
    entries = _own_form(task, text) if task.parse else _entries(task, text, whole)
    if not entries:
        return [Parsed(reason="truncated" if not whole else "refusal" if _REFUSAL.match(text) else "unparsable")]
    found = [_check(task, entry, asked) for entry in entries[:_MOST]]
    return found if whole else [*found, Parsed(reason="truncated")]


def parse_label(task: Task, text: str) -> str | list[str] | None:
    """Read the label of an answer that judges a text: one JSON object that holds it, or the label alone.

    Strict, unlike `parse`: a vote is cheap, and a label found somewhere in chatter may be the judged text's own words.

    Returns:
        The label's name; of a multi_label task a list of names, which only a JSON object or list can say; None where
        the answer is anything else.
    """
    plain = _FENCE.sub(r"\1", _THOUGHT.sub("", text[:_LONGEST]).strip())
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        value = plain
    told = isinstance(value, Mapping | list)
    if isinstance(value, Mapping):
        named = {_squeeze(key): said for key, said in value.items()}
        value = next((named[n] for n in (_squeeze(task.label_column), "label", "labels") if n in named), None)
    if task.kind == "multi_label":
        return _labels(task, value) if told else None
    return normalize_label(task, value)


def _own_form(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Read an answer by the task's own parser."""
    assert task.parse is not None
    try:
        return [row for row in task.parse(text) if isinstance(row, Mapping)]
    except Exception:  # whatever a parser does with a strange answer, it is one answer that cannot be read
        return []


# --- one entry ------------------------------------------------------------------------------------------------------


def _check(task: Task, entry: Mapping[str, Any], asked: Sequence[str]) -> Parsed:
    """Turn an entry into a row, or find out why it is none."""
    named = {_squeeze(key): value for key, value in entry.items()}
    row: dict[str, Any] = {}
    for column in task.text_columns:
        value = named.get(_squeeze(column))
        if not isinstance(value, str) or len(re.findall(r"\w", value[:1000])) < _FEWEST:
            return Parsed(reason="empty")
        row[column] = _clean(value)
    if any(_REFUSAL.match(row[column]) for column in task.text_columns):
        return Parsed(reason="refusal")
    value = named.get(_squeeze(task.label_column))
    if task.kind == "text2text":
        target = value if isinstance(value, str) else ""
        if not target.strip():
            return Parsed(reason="empty")
        if task.targets and target.strip() not in task.targets:
            return Parsed(reason="unknown_label")
        return Parsed({**row, task.label_column: _clean(target)})
    if value is None and len(asked) == 1:
        value = [asked[0]] if task.kind == "multi_label" else asked[0]
    label = _labels(task, value) if task.kind == "multi_label" else normalize_label(task, value)
    if label is None:
        return Parsed(reason="unknown_label")
    return Parsed({**row, task.label_column: label})


def _clean(text: str) -> str:
    return text.strip().replace("\x00", "").encode("utf-8", "replace").decode()


def _squeeze(name: object) -> str:
    return re.sub(r"[\W_]+", "", str(name)).casefold()


def _labels(task: Task, value: object) -> list[str] | None:
    """Read the labels of a multi_label entry, in the task's order; None when one of them is unknown."""
    parts = re.split(r"[;,|]", value) if isinstance(value, str) else value
    if not isinstance(parts, list):
        return None
    found = [normalize_label(task, part) for part in parts if not (isinstance(part, str) and not part.strip())]
    return None if None in found else [label for label in task.labels if label in found]


def normalize_label(task: Task, value: object) -> str | None:
    """Find the task's label that is meant: "Grade 2", " grade-2. ", "2" and 2 are "grade_2" where only one fits.

    Returns:
        The label's name; None when none fits, or more than one.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int) or (isinstance(value, str) and len(value) > 200):
        return None
    said = str(value).strip()
    if said in task.labels:
        return said
    words = _words(said)
    if words[:1] == ["label"] and len(words) > 1:
        words = words[1:]
    known = {label: _words(label) for label in task.labels}
    for fits in (
        [label for label, w in known.items() if w == words],
        [label for label, w in known.items() if words and "".join(w) == "".join(words)],
        [label for label, w in known.items() if words and [t for t in w if t.isdigit()] == words],
    ):
        if fits:
            return fits[0] if len(fits) == 1 else None
    return _first_named(known, words)


def _words(text: str) -> list[str]:
    return _TOKEN.findall(text.casefold())


def _first_named(known: Mapping[str, list[str]], words: list[str]) -> str | None:
    """Find the label that a longer phrase begins with ("grade 2 (symptomatic)"), if it speaks of no other one."""
    fits = [label for label, w in known.items() if w and words[: len(w)] == w]
    best = max(fits, key=lambda label: len(known[label]), default=None)
    if best is None:
        return None
    rest = words[len(known[best]) :]
    numbered = any(t.isdigit() for t in known[best])
    if numbered and any(t.isdigit() for t in rest):
        return None
    others = [w for label, w in known.items() if w and label not in fits]
    named = any(rest[i : i + len(w)] == w for w in others for i in range(len(rest)))
    tied = any(label != best and len(known[label]) == len(known[best]) for label in fits)
    return None if named or tied else best


# --- finding the entries --------------------------------------------------------------------------------------------


def _entries(task: Task, text: str, whole: bool) -> list[Mapping[str, Any]]:
    """Find the entries of an answer in the task's JSON form, or in what models write instead of it."""
    try:
        found = list(_unwrap(task, json.loads(text, strict=False)))
    except (ValueError, RecursionError):
        found = list(_salvage(task, text))
    if found or not whole:
        return found
    text = text[:_LONGEST]
    looks_whole = text.rstrip("`\n\r\t ").endswith(("}", "]"))
    return (looks_whole and _repair(task, text)) or _blocks(task, text) or _lines(task, text)


def _unwrap(task: Task, value: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Give the entries inside a JSON value: itself, those of a list, or those of its lists."""
    if depth > 4:
        return
    if isinstance(value, list):
        for item in value:
            yield from _unwrap(task, item, depth + 1)
    elif isinstance(value, Mapping):
        names = {_squeeze(key) for key in value}
        if any(_squeeze(column) in names for column in task.text_columns):
            yield value
            return
        for key, item in value.items():
            label = normalize_label(task, key) if task.labels else None
            if label and isinstance(item, list) and len(task.text_columns) == 1:  # {"grade_0": ["...", "..."]}
                for text in item:
                    given = {task.label_column: label}
                    yield {**text, **given} if isinstance(text, Mapping) else {task.text_columns[0]: text, **given}
            elif isinstance(item, list | Mapping):
                yield from _unwrap(task, item, depth + 1)


def _salvage(task: Task, text: str) -> Iterator[Mapping[str, Any]]:
    """Give the complete objects in a text, whatever stands around them."""
    at, failed = 0, 0
    while failed < _TRIES:
        starts = [i for i in (text.find("{", at), text.find("[", at)) if i >= 0]
        if not starts:
            return
        at = min(starts)
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            failed, at = failed + 1, at + 1
            continue
        yield from _unwrap(task, value)
        at = end


def _repair(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Read what is almost JSON: single quotes, missing commas, comments."""
    import json_repair

    start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
    if start < 0:
        return []
    try:
        return list(_unwrap(task, json_repair.loads(text[start:], skip_json_loads=True)))
    except Exception:  # a library that guesses may fail in any way
        return []


def _blocks(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Read blocks of "Note: ... / Label: ..." lines; the columns' names, and usual words for them, open a part."""
    names = {_squeeze(column): column for column in (*task.text_columns, task.label_column)}
    if len(task.text_columns) == 1:
        names = {"note": task.text_columns[0], "text": task.text_columns[0]} | names
    if task.kind != "text2text":
        names = {"label": task.label_column, "grade": task.label_column} | names
    found: list[dict[str, str]] = []
    entry: dict[str, str] = {}
    part: str | None = None
    for line in text.splitlines():
        opens = re.match(r"[\W\d_]{0,12}([A-Za-z][\w ]{0,40}?)[\s*_]{0,4}\d{0,3}[\s*_]{0,4}:[\s*_]{0,4}(.*)", line)
        column = names.get(_squeeze(opens[1])) if opens else None
        if column and opens:
            if column in entry:
                found.append(entry)
                entry = {}
            part, entry[column] = column, opens[2]
        elif part == task.label_column and task.kind != "text2text":
            part = None  # a label is one line: what follows belongs to nothing
        elif part:
            entry[part] += "\n" + line
    found.append(entry)
    return [e for e in found if set(e) == {*task.text_columns, task.label_column}]


def _lines(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Read lines of "text | label"; lines without a label of the task are chatter."""
    if task.kind != "single_label":
        return []
    found: list[Mapping[str, Any]] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == len(task.text_columns) + 1 and normalize_label(task, cells[-1]):
            found.append(dict(zip((*task.text_columns, task.label_column), cells, strict=True)))
    return found
