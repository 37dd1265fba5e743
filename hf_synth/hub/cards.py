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
_LIMIT = 256 * 1024  # characters of a header
_DEPTH = 50  # levels of nesting; the time of YAML's scanner grows with their square


def split_card(card: str) -> tuple[str, str]:
    """Split a card into its YAML header ("" if it has none) and its text."""
    match = _HEAD.match(card)
    return (match[1] or "", card[match.end() :]) if match else ("", card)


def parse_head(head: str) -> dict[str, Any]:
    """Parse the YAML header of a card.

    Raises:
        ValueError: it is too long, not YAML, not a mapping, nested too deep, uses aliases (a few lines of which can
            expand to gigabytes), or holds values that JSON cannot represent.
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
        # dates become text; only JSON values are left
        data = json.loads(json.dumps({} if data is None else data, default=str, allow_nan=False, skipkeys=True))
        json.dumps(data, ensure_ascii=False).encode()
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError):  # the last two: `!!bool x`, `!!timestamp x`
        raise ValueError("The metadata is not valid YAML") from None
    if not isinstance(data, dict):
        raise ValueError("The metadata is not a mapping")
    return data


class Heads:
    """A cache of parsed card headers by the hash of the card, since lists of repositories need them often."""

    def __init__(self, most: int = 2_000, longest: int = 8_192) -> None:
        self._most, self._longest = most, longest
        self._cache: dict[str, dict[str, Any]] = {}  # the oldest is dropped first
        self._lock = threading.Lock()

    def of(self, sha256: str, file: Path) -> dict[str, Any]:
        """Return a stored card's metadata; {} if it cannot be parsed."""
        with self._lock:
            data = self._cache.get(sha256)
        if data is None:
            data = card_data(file)
            if len(json.dumps(data)) <= self._longest:
                with self._lock:
                    while len(self._cache) >= self._most:
                        del self._cache[next(iter(self._cache))]
                    self._cache[sha256] = data
        return copy.deepcopy(data)


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
