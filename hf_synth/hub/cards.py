"""Safe parsing of the YAML header of a card (README.md), and the Hub's tags of it."""

from __future__ import annotations

import copy
import json
import re
import threading
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

_HEAD = re.compile(r"\A\s*---[ \t]*\r?\n(.*?\r?\n)??---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TAGS = {"tags": "", "pipeline_tag": "", "library_name": "", "datasets": "dataset:"} | {
    key: f"{key}:" for key in ("task_categories", "language", "license", "size_categories", "base_model")
}
_LIMIT = 64 * 1024  # characters of a header
_DEPTH = 50  # levels of nesting; the time of YAML's scanner grows with their square
_LONGEST = 4_000  # characters of a number or a date: to read one takes time that grows with their square
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML has it, takes a tenth of the time


def split_card(card: str) -> tuple[str, str]:
    """Split a card into its YAML header ("" if it has none) and its text."""
    match = _HEAD.match(card)
    return (match[1] or "", card[match.end() :]) if match else ("", card)


def parse_head(head: str) -> dict[str, Any]:
    """Parse the YAML header of a card.

    Raises:
        ValueError: it is too long, not YAML, not a mapping, nested too deep, uses aliases (a few lines of which can
            expand to gigabytes), or holds values that JSON cannot represent. No other error leaves this function,
            whatever a stranger's card holds: lists of repositories read all cards.
    """
    if len(head) > _LIMIT:
        raise ValueError(f"The metadata is longer than {_LIMIT // 1024} KB")
    try:
        problem = _problem(head)
        data = {} if problem else yaml.load(head, _LOADER)  # a safe loader
        # dates become text; only JSON values are left
        data = json.loads(json.dumps({} if data is None else data, default=str, allow_nan=False, skipkeys=True))
        json.dumps(data, ensure_ascii=False).encode()
    except Exception:  # not only YAMLError: PyYAML raises many others, e.g. OverflowError for the number 1:00:...:00.0
        raise ValueError("The metadata is not valid YAML") from None
    if problem or not isinstance(data, dict):
        raise ValueError(problem or "The metadata is not a mapping")
    return data


def _problem(head: str) -> str:
    """Return what is wrong with YAML that would take long to load; "" if nothing is."""
    depth = 0
    for event in yaml.parse(head, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            return "YAML aliases are not allowed in the metadata"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            return "The metadata is nested too deep"
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST and not re.search("[g-z ]", event.value):
            return "The metadata holds a number that is too long"
    return ""


class Heads:
    """A cache of parsed card headers by the hash of the card, since lists of repositories need them often."""

    def __init__(self, most: int = 2_000, longest: int = 8_192) -> None:
        self._most, self._longest = most, longest
        self._cache: dict[str, tuple[dict[str, Any], bool]] = {}  # the oldest is dropped first
        self._lock = threading.Lock()

    def of(self, sha256: str, file: Path, *, whole: bool) -> dict[str, Any]:
        """Return a stored card's metadata; {} if it cannot be parsed.

        Args:
            whole: whether metadata that is too long for the cache is read again; else only what tags are made of is
                returned of it, so that a list takes no longer for the cards of a stranger.
        """
        with self._lock:
            data, complete = self._cache.get(sha256, (None, False))
        if data is None or (whole and not complete):
            data = card_data(file)
            kept = data if len(json.dumps(data)) <= self._longest else _of_tags(data, self._longest)
            with self._lock:
                while len(self._cache) >= self._most:
                    del self._cache[next(iter(self._cache))]
                self._cache[sha256] = kept, kept is data
            data = data if whole else kept
        return copy.deepcopy(data)


def _of_tags(data: dict[str, Any], longest: int) -> dict[str, Any]:
    """Return the metadata that tags are made of, as far as it is short."""
    short = {key: data[key] for key in _TAGS if key in data and len(json.dumps(data[key])) <= longest // len(_TAGS)}
    return copy.deepcopy(short)


def card_data(file: Path) -> dict[str, Any]:
    """Read a stored card's metadata; {} if it cannot be parsed."""
    with file.open(encoding="utf-8", errors="replace") as card:
        head, _ = split_card(card.read(_LIMIT + 1024))
    try:
        return parse_head(head)
    except ValueError:
        return {}


def card_tags(data: dict[str, Any]) -> list[str]:
    """Return the tags for filtering lists of repositories, as the Hub derives them from a card's metadata."""
    tags: list[str] = []
    for key, prefix in _TAGS.items():
        values = data.get(key)
        tags += [f"{prefix}{v}" for v in (values if isinstance(values, list) else [values]) if isinstance(v, str)]
    return list(dict.fromkeys(tags))
