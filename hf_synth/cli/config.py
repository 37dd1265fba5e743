"""Configuration files: options of the command line, written down once in TOML.

    task = "work/gold"
    gold = "work/gold"
    llm = "simulator"

    [train]
    base-model = "minilm"

A key is the name of a long option without its dashes, or of an argument (`task`). Top-level keys are for every verb
that knows them, a table is for one verb (`[train]`, `[hub.serve]`). A flag takes true or false; an option that may be
repeated takes a list. Paths are relative to the current folder, as on the command line.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from hf_synth.cli.terminal import plain
from hf_synth.errors import UsageError

CONFIG = "hf_synth.toml"  # taken from the current folder when --config names no other

Values = dict[str, Any]

_MOST_BYTES = 1 << 20
_MOST_SHOWN = 60  # characters of a value in a message
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""  # of a key, which may have several: hub.serve
_LINE_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_LINE_TABLE = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_NAMED_VALUES = ("sampling", "set", "option")  # options that take NAME=VALUE
_SECRET_KEY = re.compile(r"(^|-)(token|key|secret|password|passwd|apikey|credentials?)$")
# tokens of Hugging Face, OpenAI and similar providers, GitHub; a URL with a password or a key in it
_SECRET_VALUE = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|://[^/\s@]*:[^/\s@]*@"
    r"|[?&][\w-]*(?:key|token|secret|password|sig|signature)=",
    re.IGNORECASE,
)


def read_config(path: Path) -> Values:
    """Read a configuration file: values by key, tables as a dict each; "_" in a key counts as "-".

    Raises:
        UsageError: the file cannot be read, is no TOML, or holds a secret.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"{path} is no configuration: it is larger than 1 MB")
        values = _normal(tomllib.loads(content.decode("utf-8-sig")))
    except FileNotFoundError:
        raise UsageError(f"there is no configuration file {path}; `hf-synth init` writes one") from None
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be read ({(error.strerror or 'no file').lower()})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8: save it as UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except RecursionError:
        raise UsageError(f"{path} is no configuration: its values are nested too deeply") from None
    for keys, value in _leaves(values):
        if is_secret(keys[-1], value):
            raise UsageError(
                f"{place(path, keys)}: {'.'.join(keys)} would put a secret into a file: "
                "set HF_TOKEN or OPENAI_API_KEY in the environment instead"
            )
    return values


def write_config(path: Path, values: Mapping[str, Any], *, comment: str = "") -> Path:
    """Write a configuration file that only its owner can read (0600), as a whole or not at all.

    Args:
        values: by key; a dict is a table, None is left out, a Path is written as its text.
        comment: lines above them.

    Raises:
        UsageError: a value cannot be written as TOML, or is a secret.
        OutputError: the file cannot be written.
    """
    from hf_synth.task.folders import write_private

    text = "".join(f"# {plain(line)}".rstrip() + "\n" for line in comment.splitlines())
    return write_private(path, text + "".join(_lines(_normal(values), ())))


def is_secret(key: str, value: Any) -> bool:
    """Return whether a key names a secret, or a value looks like one."""
    if isinstance(value, (list, tuple)):
        return any(is_secret(key, part) for part in value)
    if isinstance(value, bool) or value is None:
        return False
    names = [key, str(value).partition("=")[0]] if key in _NAMED_VALUES else [key]
    named = any(_SECRET_KEY.search(name.strip().lower().replace("_", "-")) for name in names)
    return named or bool(_SECRET_VALUE.search(str(value)))


def without_secrets(words: Iterable[str]) -> list[str]:
    """Return the words of a command line without the options whose name or value is a secret, such as --token."""
    kept: list[str] = []
    option = ""  # the option that the next word may be the value of
    for word in map(str, words):
        name, mark, value = word.partition("=")
        if not word.startswith("--"):
            if option and is_secret(option, word):
                if kept[-1:] == [f"--{option}"]:
                    kept.pop()
            elif not is_secret("", word):
                kept.append(word)
            option = ""
        elif mark:
            option = ""
            kept += [] if is_secret(name[2:], value) else [word]
        else:
            option = name[2:]
            kept.append(word)
    return kept


def place(path: Path, keys: Sequence[str]) -> str:
    """Return where a key stands, e.g. "hf_synth.toml, line 3"; of a key in an inline table, where the table stands."""
    table: tuple[str, ...] = ()
    found: dict[tuple[str, ...], int] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for number, line in enumerate(lines, 1):
        if header := _LINE_TABLE.match(line):
            table = _parts(header[1])
            found.setdefault(table, number)
        elif named := _LINE_KEY.match(line):
            found.setdefault((*table, *_parts(named[1])), number)
    for length in range(len(keys), 0, -1):
        if (at := found.get(tuple(keys[:length]))) is not None:
            return f"{path}, line {at}"
    return str(path)


def as_toml(value: Any) -> str:
    """Return a value as it may stand in a file, shortened, for a message."""
    try:
        text = _toml(value, "")
    except UsageError:
        text = "a table"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _parts(name: str) -> tuple[str, ...]:
    return tuple(_key(part.strip("\"'")) for part in re.findall(_PART, name))


def _key(name: str) -> str:
    return name.replace("_", "-")


def _normal(values: Mapping[str, Any]) -> Values:
    """Return values with "-" in the keys, without those that are None."""
    return {
        _key(name): _normal(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _lines(values: Mapping[str, Any], table: tuple[str, ...]) -> Iterator[str]:
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    if table and (plain or not values):
        yield f"\n[{'.'.join(map(_toml_key, table))}]\n"
    for name, value in plain.items():
        if is_secret(name, value):
            raise UsageError(f"{name} holds a secret: leave it out, and set it in the environment instead")
        yield f"{_toml_key(name)} = {_toml(value, name)}\n"
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _lines(value, (*table, name))


def _toml_key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _toml(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(part, name) for part in value)}]"
    if isinstance(value, (str, Path)):
        text = str(value)
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise UsageError(f"{name} holds a name that is not UTF-8, which TOML cannot hold")
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise UsageError(f"{name}: a configuration file holds no {type(value).__name__}")
