"""The YAML at the head of a card (README.md), read without trusting it."""

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
_LIMIT = 256 * 1024  # characters of a card's head
_DEPTH = 50  # brackets that stand open at once; the time of YAML's scanner grows with their square


def split_card(card: str) -> tuple[str, str]:
    """Split a card into the YAML at its head ("" when it has none) and its text."""
    found = _HEAD.match(card)
    return (found[1] or "", card[found.end() :]) if found else ("", card)


def parse_head(head: str) -> dict[str, Any]:
    """Parse the YAML of a card.

    Raises:
        ValueError: it is too long, not YAML, not a mapping, nested too deep, uses aliases (a few lines of them can
            stand for gigabytes), or holds what JSON cannot.
    """
    if len(head) > _LIMIT:
        raise ValueError("The metadata is too long")
    try:
        depth = 0
        for event in yaml.parse(head):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("YAML aliases are not allowed in the metadata")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise ValueError("The metadata is nested too deep")
        data = yaml.safe_load(head)
        # dates become text, and nothing is left that an answer could not carry
        data = json.loads(json.dumps({} if data is None else data, default=str, allow_nan=False, skipkeys=True))
        json.dumps(data, ensure_ascii=False).encode()
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError):  # the last two: `!!bool x`, `!!timestamp x`
        raise ValueError("The metadata is not valid YAML") from None
    if not isinstance(data, dict):
        raise ValueError("The metadata is not a mapping")
    return data


class Heads:
    """What cards say at their heads, by the hash of the card: parsed once, however often repositories are listed."""

    def __init__(self, most: int = 2_000, longest: int = 8_192) -> None:
        self._most, self._longest = most, longest
        self._kept: dict[str, dict[str, Any]] = {}  # the oldest goes first
        self._lock = threading.Lock()

    def of(self, sha256: str, file: Path) -> dict[str, Any]:
        """Give a stored card's metadata; {} when it cannot be read."""
        with self._lock:
            data = self._kept.get(sha256)
        if data is None:
            data = card_data(file)
            if len(json.dumps(data)) <= self._longest:  # a long one would take memory for all
                with self._lock:
                    while len(self._kept) >= self._most:
                        del self._kept[next(iter(self._kept))]
                    self._kept[sha256] = data
        return copy.deepcopy(data)


def card_data(file: Path) -> dict[str, Any]:
    """Read a stored card's metadata; {} when it cannot be read."""
    with file.open(encoding="utf-8", errors="replace") as card:
        head, _ = split_card(card.read(_LIMIT + 1024))
    try:
        return parse_head(head)
    except ValueError:
        return {}


def card_tags(data: dict[str, Any]) -> list[str]:
    """Give the tags that lists of repositories are searched by, as the Hub makes them of a card's metadata."""
    tags: list[str] = []
    for key, prefix in _TAGS.items():
        values = data.get(key)
        tags += [f"{prefix}{v}" for v in (values if isinstance(values, list) else [values]) if isinstance(v, str)]
    return list(dict.fromkeys(tags))
