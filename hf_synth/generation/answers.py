"""Parsing of LLM answers into rows: tolerant of broken JSON, strict about labels and texts.

Models wrap JSON in chatter and fences, truncate it, forget a comma, or answer in lines. Entries that can be read
without guessing become rows; the others become rejects with a reason. No text of an answer raises an error.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_synth.generation.label_words import normalize_label
from hf_synth.llm.thoughts import THINKING, Said, without_tags, without_thoughts
from hf_synth.task.labels import match_target
from hf_synth.task.task import Task

_LONGEST = 200_000  # characters that the slower parsers read
_LONGEST_RAW = 5 * _LONGEST  # characters that are read at all, thoughts among them
_TRIES = 300  # positions tried as the start of an object
_MOST = 500  # entries of one answer
_FEWEST = 3  # letters or digits of a text
_DECODER = json.JSONDecoder(strict=False)  # allows line breaks inside strings

_REFUSAL = re.compile(
    r"\W*(?:i(?:['’]m| am) (?:very |so )?sorry|sorry,|as an ai\b|unfortunately,? i (?:can|am|do)|"
    r"i (?:cannot|can['’]?t|can not|will not|won['’]t|am (?:unable|not able|not permitted) to|['’]?m unable to|"
    r"must decline to) (?:assist|help|provide|generate|create|write|comply|fulfil|produce|continue|share|answer))",
    re.IGNORECASE,
)
_JSON_TEXT = re.compile(r"\s*(?:```(?:json)?\s*)?[\[{]", re.IGNORECASE)
_ESCAPED = re.compile(r"\s*[\[{\s]{1,20}\\\"")
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL | re.IGNORECASE)
_THOUGHT_FIELDS = re.compile(
    "think(ing)?|thoughts?|thoughtprocess|(reasoning|thinking|analysis)(content|process|steps?|trace)?|scratch(pad)?|"
    "rationale|(self)?reflections?|cot|chainofthought|(first|initial|old|rejected)?(drafts?|attempts?|versions?)(entries)?|"
    "drafts?\\w*|(first|initial|old|rejected|previous|discarded)(entries|notes|rows)?|(inner|internal)?monologue|(self)?critique|"
    "brainstorm(ing)?|notestoself|stepbystep|deliberation|considerations|explanation|plan(ning)?|gedanken|überlegung(en)?|"
    "raisonnement|réflexions?|razonamiento|pensamientos?"
)
_ANSWER_FIELD = "entries"  # of the schema that is asked for
_BETWEEN = re.compile(r"[^\W\d_]{3,}")  # words between two answers


@dataclass(frozen=True)
class Parsed:
    """One entry of an answer: a row, or a reject with its reason.

    Args:
        row: the task's text columns, and its label column as a name (multi_label: a list of names); None for a reject.
        reason: a key of `task.REASONS`; None for a row.
    """

    row: dict[str, Any] | None = None
    reason: str | None = None


def parse(task: Task, text: str, labels: Sequence[str] = (), *, whole: bool = True) -> list[Parsed]:
    """Parse the entries of one answer, in its order.

    Args:
        labels: labels asked for; if there is one, entries without a label get it.
        whole: False for an answer truncated at the token limit, of which only complete entries count.

    Returns:
        At least one element: an answer without any entry is one reject.
    """
    said = without_thoughts(text[:_LONGEST_RAW], whole=whole)
    text = said.text
    if said.unfinished or (said.thoughts and not whole and not text.strip()):
        return [Parsed(reason=THINKING)]
    if not text.strip():
        return [Parsed(reason="empty" if whole else "truncated")]
    entries = _parse_by_task(task, text) if task.parse else _entries(task, text, whole, labels)
    if entries is None:
        return [Parsed(reason="unparsable")]
    if not entries:
        return [Parsed(reason="truncated" if not whole else "refusal" if _REFUSAL.match(text) else "unparsable")]
    parsed = [_check(task, entry, labels) for entry in entries[:_MOST]]
    return parsed if whole else [*parsed, Parsed(reason="truncated")]


def parse_label(task: Task, text: str, *, whole: bool = True) -> str | list[str] | None:
    """Parse the answer of a judge: a JSON object with the label, or the label alone.

    Strict, unlike `parse`: a vote is cheap, and a label in the middle of chatter may be a quote of the judged text.

    Args:
        whole: False for an answer that was cut, which counts as a whole JSON object alone: words may deny the label.

    Returns:
        The label's name; a list of names for a multi_label task, whose answer must be a JSON object or list; None for
        any other answer.
    """
    plain = _FENCE.sub(r"\1", without_thoughts(text[:_LONGEST_RAW], whole=whole).text[:_LONGEST].strip())
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        value = plain
    is_json = isinstance(value, Mapping | list)
    if not whole and not is_json:
        return None
    if isinstance(value, Mapping):
        fields = {_squeeze(key): item for key, item in value.items()}
        value = next((fields[n] for n in (_squeeze(task.label_column), "label", "labels") if n in fields), None)
    if task.kind == "multi_label":
        return _labels(task, value) if is_json else None
    return normalize_label(task, value)


def _parse_by_task(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Parse an answer by the task's own parser."""
    assert task.parse is not None
    try:
        return [row for row in task.parse(text) if isinstance(row, Mapping)]
    except Exception:  # an answer on which the parser fails is unparsable
        return []


def _check(task: Task, entry: Mapping[str, Any], labels: Sequence[str]) -> Parsed:
    """Check an entry and return it as a row or as a reject."""
    fields = {_squeeze(key): value for key, value in entry.items()}
    row: dict[str, Any] = {}
    for column in task.text_columns:
        value = fields.get(_squeeze(column))
        said = without_tags(value) if isinstance(value, str) else Said("")
        if said.unfinished:
            return Parsed(reason=THINKING)
        if len(re.findall(r"\w", said.text[:1000])) < _FEWEST:
            return Parsed(reason="empty")
        row[column] = _clean(said.text)
    if any(_REFUSAL.match(row[column]) for column in task.text_columns):
        return Parsed(reason="refusal")
    value = fields.get(_squeeze(task.label_column))
    if task.kind == "text2text":
        said = without_tags(value) if isinstance(value, str) else Said("")
        target = said.text
        if not target.strip():
            return Parsed(reason=THINKING if said.unfinished else "empty")
        if task.targets:
            target = match_target(task, target) or ""
        if not target:
            return Parsed(reason="unknown_label")
        return Parsed({**row, task.label_column: _clean(target)})
    if value is None and len(labels) == 1:
        value = [labels[0]] if task.kind == "multi_label" else labels[0]
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
    names = [normalize_label(task, part) for part in parts if not (isinstance(part, str) and not part.strip())]
    return None if None in names else [label for label in task.labels if label in names]


def _entries(task: Task, text: str, whole: bool, labels: Sequence[str]) -> list[Mapping[str, Any]] | None:
    """Find the entries of an answer in JSON, in broken JSON, in blocks of lines, or in lines.

    Returns:
        None where there are several answers with words between them, so that some are drafts.
    """
    if _ESCAPED.match(text):  # a JSON string without its quotes
        text = text.strip().replace('\\"', '"').replace("\\\\", "\\")
    try:
        entries = list(_unwrap(task, json.loads(text, strict=False)))
    except (ValueError, RecursionError):
        values = list(_salvage(text))
        if _has_drafts(task, text, values, labels):
            return None
        entries = [entry for _, value, _ in values for entry in _unwrap(task, value)]
    if entries or not whole:
        return entries
    text = text[:_LONGEST]
    complete = text.rstrip("`\n\r\t ").endswith(("}", "]"))
    return (complete and _repair(task, text)) or _blocks(task, text) or _lines(task, text)


def _unwrap(task: Task, value: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the entries in a JSON value: the value itself, those of a list, of its lists, or of JSON in a string."""
    if depth > 4:
        return
    if isinstance(value, str):
        if _JSON_TEXT.match(value):
            try:
                yield from _unwrap(task, json.loads(_FENCE.sub(r"\1", value.strip()), strict=False), depth + 1)
            except (ValueError, RecursionError):
                return
    elif isinstance(value, list):
        for item in value:
            yield from _unwrap(task, item, depth + 1)
    elif isinstance(value, Mapping):
        names = {_squeeze(key) for key in value}
        if any(_squeeze(column) in names for column in task.text_columns):
            yield value
            return
        whole = [item for key, item in value.items() if _squeeze(key) == _ANSWER_FIELD]
        if whole and (entries := [*_unwrap(task, whole, depth + 1)]):  # what stands beside it is no answer
            yield from entries
            return
        for key, item in value.items():
            if _THOUGHT_FIELDS.fullmatch(_squeeze(key)) and _squeeze(key) not in map(_squeeze, task.labels):
                continue
            label = normalize_label(task, key) if task.labels else None
            if label and isinstance(item, list) and len(task.text_columns) == 1:  # {"grade_0": ["...", "..."]}
                for text in item:
                    entry = text if isinstance(text, Mapping) else {task.text_columns[0]: text}
                    yield {**entry, task.label_column: label}
            elif isinstance(item, list | Mapping | str):
                yield from _unwrap(task, item, depth + 1)


def _has_drafts(task: Task, text: str, values: Sequence[tuple[int, object, int]], labels: Sequence[str]) -> bool:
    """Check whether whole answers have words between them, unless each is of other labels that were asked for."""
    whole = [
        one for one in values if isinstance(one[1], Mapping) and _ANSWER_FIELD in {_squeeze(key) for key in one[1]}
    ]
    if not any(_BETWEEN.search(text[a[2] : b[0]]) for a, b in itertools.pairwise(whole)):
        return False
    seen: set[str] = set()
    for _, value, _ in whole:
        found = {str(entry.get(task.label_column)) for entry in _unwrap(task, value)}
        if found & seen or not found <= set(labels):
            return True
        seen |= found
    return False


def _salvage(text: str) -> Iterator[tuple[int, object, int]]:
    """Yield the complete JSON values in a text with their start and end, whatever surrounds them."""
    start, failed = 0, 0
    while failed < _TRIES:
        starts = [i for i in (text.find("{", start), text.find("[", start)) if i >= 0]
        if not starts:
            return
        start = min(starts)
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            failed, start = failed + 1, start + 1
            continue
        yield start, value, end
        start = end


def _repair(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Parse malformed JSON: single quotes, missing commas, comments."""
    import json_repair

    start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
    if start < 0:
        return []
    try:
        return list(_unwrap(task, json_repair.loads(text[start:], skip_json_loads=True)))
    except Exception:  # a library that guesses may fail in any way
        return []


def _blocks(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Parse blocks of "Note: ... / Label: ..." lines; a column's name, or a usual word for it, begins a part."""
    names = {_squeeze(column): column for column in (*task.text_columns, task.label_column)}
    if len(task.text_columns) == 1:
        names = {"note": task.text_columns[0], "text": task.text_columns[0]} | names
    if task.kind != "text2text":
        names = {"label": task.label_column, "grade": task.label_column} | names
    entries: list[dict[str, str]] = []
    entry: dict[str, str] = {}
    part: str | None = None
    for line in text.splitlines():
        head = re.match(r"[\W\d_]{0,12}([A-Za-z][\w ]{0,40}?)[\s*_]{0,4}\d{0,3}[\s*_]{0,4}:[\s*_]{0,4}(.*)", line)
        column = names.get(_squeeze(head[1])) if head else None
        if column and head:
            if column in entry:
                entries.append(entry)
                entry = {}
            part, entry[column] = column, head[2]
        elif part == task.label_column and task.kind != "text2text":
            part = None  # a label is one line; the lines after it are ignored
        elif part:
            entry[part] += "\n" + line
    entries.append(entry)
    return [e for e in entries if set(e) == {*task.text_columns, task.label_column}]


def _lines(task: Task, text: str) -> list[Mapping[str, Any]]:
    """Parse lines of "text | label"; lines without a label of the task are ignored."""
    if task.kind != "single_label":
        return []
    entries: list[Mapping[str, Any]] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == len(task.text_columns) + 1 and normalize_label(task, cells[-1]):
            entries.append(dict(zip((*task.text_columns, task.label_column), cells, strict=True)))
    return entries
