"""The options that a proposed command repeats, so that it makes again what was made before.

They are those of the earlier output of the same verb, as its folder records them, where they change the result and are
not the default. A folder may come from somebody else: neither an address nor a path to write to is taken from it.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.correction.methods import DESCRIBED
from hf_synth.task.columns import MANIFEST, RUN_CONFIG

MACHINES = ("shard", "engine", "address", "workers", "gpus-per-worker")  # options that spread a verb over machines
_NOTES: Mapping[str, Any] = {
    "n": 600, "ratio": None, "balance": "equal", "prompt": "examples", "choose": None, "share": 0.2, "max-tokens": None,
    "sampling": [],
}  # fmt: skip
_TRAINING: Mapping[str, Any] = {"set": [], "long-notes": "auto", "class-weights": False, "lora": False}
REPEATED: Mapping[str, Mapping[str, Any]] = {  # verb: option: its default
    "generate": {**_NOTES, "fact-rounds": 2, "check-facts": "rules"},
    "correct": {
        "corrector": None, "judge": None, "votes": 5, "logprobs": False, "method": "auto", "split": None,
        "coverage": None, "coverage-by-class": False, "auto-metric": "accuracy", **_TRAINING,
    },
    "augment": {"strategy": "augment", "ratio": None},
    "train": _TRAINING,
    "evaluate": {"split": "test", "subgroups": False, "subgroup-column": None},
    "run": {**_NOTES, "method": "auto", "auto-metric": "accuracy", **_TRAINING},
}  # fmt: skip


def repeated_options(verb: str, stages: Mapping[str, Path]) -> list[str]:
    """Return the options of a command that were given when its output was made the last time.

    Without an earlier correction, reviewed notes of which few labels were wrong are not corrected: "--method none".

    Args:
        stages: the newest output of each verb.
    """
    if verb not in REPEATED:
        return []
    earlier = stages.get(verb)
    given = {} if earlier is None else _recorded(verb, earlier)
    if verb == "correct" and earlier is None and "gold" in stages and _few_wrong(stages["gold"]):
        given = {"method": "none"}
    words: list[str] = []
    for option, default in REPEATED[verb].items():
        value = given.get(option)
        if value is None or value == default:
            continue
        if isinstance(default, bool):
            words += [f"--{option}"] if value is True else []
        else:
            for part in value if isinstance(value, list) else [value]:
                plain = isinstance(part, str | int | float) and not isinstance(part, bool)
                words += [f"--{option}", str(part)] if plain and not str(part).startswith("-") else []
    return words


def split_options(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield each option of a command with its value; a flag has none."""
    option: list[str] = []
    for word in words:
        if word.startswith("--") and option:
            yield option
            option = []
        option.append(word)
    if option:
        yield option


def words_on_one_machine(words: Sequence[str]) -> list[str]:
    """Return the words of a command as one machine would be given them."""
    kept, skip = list[str](), False
    for word in words:
        name, mark, _ = word.partition("=")
        is_ours = name.startswith("--") and name.removeprefix("--") in MACHINES
        kept += [] if is_ours or skip else [word]
        skip = is_ours and not mark
    return kept


def without_options(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the options of a command without those that others name, whatever their values."""
    named = {option[0] for option in split_options(others)}
    return [word for option in split_options(words) if option[0] not in named for word in option]


def _recorded(verb: str, path: Path) -> dict[str, Any]:
    """Return the options with which a folder was made; of one that does not say, the method of its policy."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        tables = tomllib.loads((path / RUN_CONFIG).read_text(encoding="utf-8"))
        table = tables.get(verb, tables.get("regenerate") if verb == "correct" else None)
        if isinstance(table, dict):
            return table
    policy = _manifest(path).get("policy") if verb == "correct" else None
    if not isinstance(policy, dict) or any(str(name).startswith("auto_") for name in policy.get("figures") or ()):
        return {}  # auto chose the method
    return {"method": method} if (method := policy.get("method")) in DESCRIBED else {}


def _few_wrong(gold: Path) -> bool:
    found = _manifest(gold).get("from_review")
    return isinstance(found, dict) and found.get("few_wrong") is True


def _manifest(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        facts = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) else {}
    return {}
