"""What a configuration gives to the commands that are proposed: they do not repeat it."""

from __future__ import annotations

import tomllib
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.cli.config import CONFIG
from hf_synth.cli.options import Result
from hf_synth.cli.repeated import split_options

# The arguments of a command without dashes, as a configuration names them.
_ARGUMENTS = {
    "generate": ("task",), "correct": ("task", "synthetic"), "augment": ("task", "synthetic"),
    "train": ("task", "data"), "evaluate": ("task", "model"), "publish": ("task", "folder"), "run": ("task",),
}  # fmt: skip


def configuration(args: Namespace) -> tuple[Result, list[str]]:
    """Return the values of the configuration that a command line reads, and the words that name its file.

    It is that of --config, or hf_synth.toml in the current folder. One that cannot be read counts as empty.
    """
    if not hasattr(args, "no_config") or args.no_config:
        return {}, []
    named = getattr(args, "config", None)
    try:
        values = tomllib.loads(Path(named or CONFIG).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}, []
    values = {name.replace("_", "-"): value for name, value in values.items()}
    if named and "task" not in values:  # of one run, which other verbs cannot use
        return {}, []
    return values, ["--config", str(named)] if named else []


def configured_value(configured: Mapping[str, Any], verb: str, key: str) -> Any:
    """Return what a configuration gives an option of a verb; None for nothing."""
    table = configured.get(verb)
    own = table.get(key) if isinstance(table, Mapping) else None
    found = configured.get(key) if own is None else own
    return None if isinstance(found, Mapping) else found


def without_configured(words: Sequence[str], configured: Mapping[str, Any]) -> list[str]:
    """Return the words of a command without those that the configuration gives anyway.

    Args:
        words: "hf-synth", a verb, its arguments, then options: flags, and options with one value each.
        configured: values by key; a table for each verb.
    """
    if words[1] not in _ARGUMENTS:  # `review`, and `gold` of a review: a configuration gives them nothing
        return list(words)
    verb, places = words[1], _ARGUMENTS[words[1]]
    arguments, rest = list(words[2 : 2 + len(places)]), list(words[2 + len(places) :])
    if all(str(configured_value(configured, verb, name)) == word for name, word in zip(places, arguments, strict=True)):
        arguments = []
    groups: dict[str, list[list[str]]] = {}
    for option in split_options(rest):
        groups.setdefault(option[0], []).append(option)
    options: list[str] = []
    for name, several in groups.items():
        given = configured_value(configured, verb, name.removeprefix("--"))
        values = [word for option in several for word in option[1:]]
        same = values == list(map(str, given)) if isinstance(given, list) else [given] == values
        number = isinstance(given, int | float) and not isinstance(given, bool) and [str(given)] == values
        if not (same or number or (given is True and not values)):
            options += [word for option in several for word in option]
    return [*words[:2], *arguments, *options]
