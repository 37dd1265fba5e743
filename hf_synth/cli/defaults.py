"""Options from a configuration file, and the options of a run written down.

The command line has priority over the table of the verb, the table over the keys at the top, these over the defaults.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from argparse import Action, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth import __version__
from hf_synth.cli.config import CONFIG, Values, as_toml, is_secret, place, read_config, write_config
from hf_synth.cli.parsing import Parser, excluded_by, is_in_range, options_of, value_kind, verbs_of, without_excluded
from hf_synth.errors import HfSynthError, UsageError, did_you_mean
from hf_synth.task.columns import RUN_CONFIG

# Options that send data, or agree to it, must be on each command line.
_COMMAND_LINE_ONLY = ("push", "public", "yes", "squash", "attestation")
_NEVER_FROM_FOUND_FILE = ("endpoint",)  # not of a file that lies in the current folder and that nobody named
_NO_KEYS = (*_COMMAND_LINE_ONLY, "config", "no-config", "help", "help-all", "token", "show")
_DISPLAY_OPTIONS = ("json", "quiet")  # not written down
# Verbs that take only their own table: keys at the top are for the journey, and these verbs are not part of it.
_OWN_TABLE_ONLY = (
    *("completion", "demo", "doctor", "hub", "init", "journal", "merge", "new-task", "status", "tasks", "withdraw"),
)
_WITHOUT_CONFIG = ("completion", "init")  # `completion` runs in every shell, `init` writes the file
# Verbs whose --out is a folder that another verb may read. `publish` is not one of them: its folder is published.
RECORDED = (
    "gold",
    "generate",
    "correct",
    "regenerate",
    "label",
    "augment",
    "train",
    "run",
    "experiment",
    "audit",
    "demo",
)

# Options whose value is a path, and options whose value may be one; the others of a recorded verb are no paths.
_PATHS = ("audited", "cache", "canaries", "data", "gold", "journal", "notes", "out", "path", "synthetic")
_PATHS_OR_NAMES = ("base-model", "corrector", "grid", "judge", "llm", "model", "task")

Parsers = Callable[[str], Parser]  # from the name of a verb to its parser


_PROGS_WITHOUT_CONFIG = (
    "hf-synth init",
    "hf-synth completion",
)  # verbs that read no configuration: one of them writes it


def config_for(parser: Parser, named: Mapping[str, Any], verbs: Iterable[str], parsers: Parsers) -> dict[str, Any]:
    """Return what a configuration gives the options of a verb, by destination, and print which file that is.

    Args:
        named: what the command line names.
        verbs: the names of all verbs.

    Raises:
        UsageError: the file cannot be used, or a key or value in it is wrong.
    """
    if parser.prog in _PROGS_WITHOUT_CONFIG:
        return {}
    if named.get("no_config") and named.get("config"):
        raise UsageError("--config and --no-config exclude each other")
    if parser.prog.split()[1] in _WITHOUT_CONFIG and not named.get("config"):
        return {}
    path = Path(named.get("config") or CONFIG)
    if named.get("no_config") or (not named.get("config") and not path.is_file()):
        return {}
    if not named.get("config"):
        _check_owner(path)
    values, names = read_config(path), list(verbs)
    warnings: dict[str, None] = {}
    given, used = _read_values(path, values, parser, names, parsers, warnings)
    _check_other_tables(path, values, parser, names, parsers, warnings)
    for warning in warnings:
        print(f"hf-synth: {warning} (a warning: `{parser.prog}` does not use it)", file=sys.stderr)
    given = without_excluded(parser, given, named)
    told = [key for key, dest in used.items() if dest in given and dest not in named]
    if told and not named.get("quiet", given.get("quiet")):
        print(f"hf-synth: {path} gives {', '.join(told)}", file=sys.stderr)
    return given


def _check_other_tables(
    path: Path, values: Values, own: Parser, verbs: list[str], parsers: Parsers, warnings: dict[str, None]
) -> None:
    """Add to the warnings what is wrong in the tables of other verbs: it would stop those, and does not stop this."""
    for name in [name for name in verbs if isinstance(values.get(name), Mapping)]:
        for leaf in _leaves(parsers(name)):
            if leaf.prog != own.prog:
                try:
                    _read_values(path, {name: values[name]}, leaf, verbs, parsers, warnings)
                except UsageError as error:
                    warnings[str(error)] = None


def _check_owner(path: Path) -> None:
    """Check that a configuration that was not named belongs to the user or to the folder's owner: /tmp is shared."""
    if hasattr(os, "getuid") and path.stat().st_uid not in (os.getuid(), 0, Path().stat().st_uid):
        raise UsageError(f"{path} belongs to another user: name it with --config, or leave it out with --no-config")


def _read_values(
    path: Path, values: Values, parser: Parser, verbs: list[str], parsers: Parsers, warnings: dict[str, None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values by destination, and the destination of each key that gave one.

    Args:
        warnings: gets the faults of keys and tables that this verb does not use.

    Raises:
        UsageError: a key or value that the verb uses is wrong, or no verb has such a key.
    """
    words = parser.prog.split()[1:]
    given: dict[str, Any] = {}
    used: dict[str, str] = {}
    own = keys_of(parser)
    layers: list[tuple[tuple[str, ...], Values]] = [((), values)]
    table: Any = values
    for depth, word in enumerate(words, 1):
        table = table.get(word) if isinstance(table, Mapping) else None
        if isinstance(table, Mapping):
            layers.append((tuple(words[:depth]), dict(table)))
    for above, layer in layers:
        top = not above
        here: dict[str, Action] = {}
        for written, content in layer.items():
            if isinstance(content, Mapping):
                _check_table(path, (*above, written), words, verbs, parsers, warnings)
                continue
            if top and words[0] in _OWN_TABLE_ONLY:
                continue
            key, value = _without_negation(written, content, own)
            where = _where(path, above, written)
            if top and key == "out":
                cure = "put it into the table of its verb, e.g. [generate]"
                raise UsageError(f"{where}: each verb would replace the folder of the one before: {cure}")
            if key in _NEVER_FROM_FOUND_FILE and path == Path(CONFIG):
                why = "it decides where a token goes: name it on the command line, or name the file with --config"
                raise UsageError(f"{where}: {why}")
            if key in _COMMAND_LINE_ONLY:
                raise UsageError(f"{where}: --{key} is taken from the command line alone")
            action = own.get(key)
            if action is None:
                if not _known(written, content, above, verbs, parsers):
                    raise UsageError(f"{where}: {_unknown(written, above, verbs, parsers)}")
                if problem := _misfit_everywhere(written, content, above, verbs, parsers):
                    warnings[f"{where}: {problem}"] = None
                continue
            try:
                converted = _convert(action, key, value)
            except UsageError as error:
                others = [name for name in verbs if name != words[0]]
                elsewhere = top and _known(written, content, (), others, parsers)
                if elsewhere and not _misfit_everywhere(written, content, (), others, parsers):
                    continue
                raise UsageError(f"{where}: {error}") from None
            given.pop(action.dest, None) if converted is None else given.update({action.dest: converted})
            used[written] = action.dest
            here[key] = action
        _drop_excluded(path, above, parser, here, given)
    return given, {key: dest for key, dest in used.items() if dest in given}


def _where(path: Path, table: Sequence[str], key: str) -> str:
    """Return where a key stands, e.g. "hf_synth.toml, line 4, [generate]"."""
    return place(path, (*table, key)) + (f", [{'.'.join(table)}]" if table else "")


def _drop_excluded(
    path: Path, above: tuple[str, ...], parser: Parser, here: Mapping[str, Action], given: dict[str, Any]
) -> None:
    """Leave out what an upper table gives options that those of a table exclude.

    Raises:
        UsageError: two options of one table exclude each other. One with its default excludes nothing: a run that is
            written down has the defaults too.
    """
    meant = {key: action for key, action in here.items() if action.dest in given}
    weak = {key for key, action in meant.items() if given[action.dest] == action.default}
    for key, action in meant.items():
        others = excluded_by(parser, action)
        beside = {name for name, other in meant.items() if other in others}
        if key not in weak and (both := sorted(beside - weak)):
            raise UsageError(f"{_where(path, above, key)}: {key} and {both[0]} exclude each other")
        leave = [action] if key in weak and beside - weak else [o for o in others if o not in meant.values()]
        for one in leave:
            given.pop(one.dest, None)


def keys_of(parser: Parser) -> dict[str, Action]:
    """Return the options and arguments of a verb by their key in a configuration."""
    keys = {action.dest.replace("_", "-"): action for action in parser.places}
    for action in options_of(parser):
        long = next((name for name in action.option_strings if name.startswith("--")), None)
        if long is not None and long[2:] not in _NO_KEYS:
            keys[long[2:]] = action
    return keys


def _leaves(parser: Parser) -> list[Parser]:
    below = verbs_of(parser)
    return [leaf for verb in below.values() for leaf in _leaves(verb)] if below else [parser]


def _without_negation(key: str, value: Any, keys: Mapping[str, Action]) -> tuple[str, Any]:
    """Return the key of a flag that a file names by its negation, with the opposite value; else both as they are.

    `membership = false` is `no-membership = true`, and the reverse holds for every flag.
    """
    other = key.removeprefix("no-") if key.startswith("no-") else f"no-{key}"
    if key not in keys and isinstance(value, bool) and other in keys and keys[other].nargs == 0:
        return other, not value
    return key, value


def _known(key: str, value: Any, above: tuple[str, ...], verbs: list[str], parsers: Parsers) -> bool:
    return any(_without_negation(key, value, keys)[0] in keys for keys in _all_keys(above, verbs, parsers))


def _all_keys(above: tuple[str, ...], verbs: list[str], parsers: Parsers) -> Iterator[dict[str, Action]]:
    """Yield the keys of each verb that a table is for; of every verb where there is no table."""
    prog = " ".join(["hf-synth", *above])
    for name in verbs if not above else [above[0]]:
        for leaf in _leaves(parsers(name)):
            if not above or f"{leaf.prog} ".startswith(f"{prog} "):
                yield keys_of(leaf)


def _unknown(key: str, above: tuple[str, ...], verbs: list[str], parsers: Parsers) -> str:
    if not above and key in verbs:
        return f"{key} is a verb: its options belong in a table [{key}]"
    names = {name for keys in _all_keys(above, verbs, parsers) for name in keys}
    whose = f"`hf-synth {' '.join(above)}` has" if above else "no verb has"
    return f"{whose} {'no' if above else 'an'} option --{key}{did_you_mean(key, names)}"


def _check_table(
    path: Path,
    keys: tuple[str, ...],
    words: list[str],
    verbs: list[str],
    parsers: Parsers,
    warnings: dict[str, None],
) -> None:
    """Check that a table is of a verb; one that is not is a warning, where it may not be meant for the verb that runs.

    Raises:
        UsageError: its name is almost that of the verb that runs, or it lies in the table of that verb.
    """
    below: Iterable[str] = verbs
    if len(keys) > 1:
        parser = parsers(keys[0])
        for word in keys[1:-1]:
            parser = verbs_of(parser)[word]
        below = list(verbs_of(parser))
    if keys[-1] in below:
        return
    hint = did_you_mean(keys[-1], below)
    fault = f"{place(path, keys)}: there is no verb {' '.join(keys)!r}{hint}"
    above = list(keys[:-1])
    if above == words or (above == words[: len(above)] and repr(words[len(above)]) in hint):
        raise UsageError(fault)
    warnings[fault] = None


def _misfit_everywhere(key: str, value: Any, above: tuple[str, ...], verbs: list[str], parsers: Parsers) -> str:
    """Return why no verb that has an option takes this value of it; "" where one does, e.g. the `gold` of `train`."""
    problem = ""
    for keys in _all_keys(above, verbs, parsers):
        name, turned = _without_negation(key, value, keys)
        if name in keys:
            try:
                _convert(keys[name], name, turned)
            except UsageError as error:
                problem = problem or str(error)
            else:
                return ""
    return problem


def _convert(action: Action, key: str, value: Any) -> Any:
    """Return the value of an option as argparse would read it from a command line; None where it stays as it is.

    Raises:
        UsageError: it does not fit the option.
    """
    if action.nargs == 0:  # a flag
        if not isinstance(value, bool):
            raise _misfit(key, value_kind(action), value)
        return action.const if value else None
    if action.nargs == "?" and action.const is not None and isinstance(value, bool):
        return action.const if value else None
    kind = value_kind(action)
    many = isinstance(action, argparse._AppendAction) or action.nargs in ("+", "*") or isinstance(action.nargs, int)
    if isinstance(action.nargs, int) and not (isinstance(value, list) and len(value) == action.nargs):
        raise _misfit(key, f"a list of {action.nargs} values ({kind} each)", value)
    if isinstance(value, list) and not many:
        raise _misfit(key, f"{kind}, one value alone", value)
    if action.nargs == "+" and value == []:
        raise _misfit(key, f"at least one value ({kind})", value)
    parts = [_convert_one(action, key, part) for part in (value if isinstance(value, list) else [value])]
    return parts if many else parts[0]


def _convert_one(action: Action, key: str, value: Any) -> Any:
    kind = action.type
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise _misfit(key, value_kind(action), value)
    if not str(value).strip() and value != action.default:  # earlier versions wrote empty defaults down
        raise _misfit(key, value_kind(action), value)
    try:
        part = kind(str(value)) if callable(kind) else str(value)
    except (ValueError, TypeError):
        raise _misfit(key, value_kind(action), value) from None
    if not is_in_range(action, part) or (action.choices is not None and part not in action.choices):
        hint = did_you_mean(str(part), map(str, action.choices)) if action.choices is not None else ""
        raise _misfit(key, value_kind(action), value, hint)
    return part


def _misfit(key: str, kind: str, value: Any, hint: str = "") -> UsageError:
    return UsageError(f"{key} takes {kind}, not {as_toml(value)}{hint}")


# --- writing down ---------------------------------------------------------------------------------------------------
def values_of(parser: Parser, args: Namespace) -> tuple[Values, list[str]]:
    """Return the options of a run by key, and the keys that are left out since they hold a secret."""
    values: Values = {}
    secret = []
    for key, action in keys_of(parser).items():
        value = getattr(args, action.dest, None)
        if key in _DISPLAY_OPTIONS or value is None or value == []:
            continue
        if action.nargs == 0:
            if value == action.const and value != action.default:
                values[key] = True
            continue
        if is_secret(key, value):
            secret.append(key)
            continue
        values[key] = [_plain(part) for part in value] if isinstance(value, (list, tuple)) else _plain(value)
    return values, secret


def write_run(verb: str, values: Values, secret: Iterable[str], out: Path) -> None:
    """Write the options of a run into its output folder; a failure is printed, since the run itself is done."""
    file = out.absolute() / RUN_CONFIG
    lines = [
        f"The options of `hf-synth {verb}` (hf_synth {__version__}) that made this folder; its paths are absolute.",
        f"Run it again, from any folder: hf-synth {verb} --config {shlex.quote(str(file))}",
        *_environment(values),
        *(f"--{key} held a secret and is left out." for key in secret),
    ]
    try:
        write_config(file, {verb: _with_absolute_paths(values)}, comment="\n".join(lines))
    except HfSynthError as error:
        print(f"hf-synth: the options of this run are not written down: {error}", file=sys.stderr)


def _with_absolute_paths(values: Values) -> Values:
    """Return the options of a run with absolute paths, so that they name the same files from every folder."""
    found = {}
    for key, value in values.items():
        if key in _PATHS or key in _PATHS_OR_NAMES:
            parts = [_absolute(part, key) for part in (value if isinstance(value, list) else [value])]
            found[key] = parts if isinstance(value, list) else parts[0]
        else:
            found[key] = value
    return found


def _absolute(text: Any, key: str) -> Any:
    """Return a path as an absolute one; a name, such as that of a task or of a model on the Hub, stays as it is."""
    from hf_synth.task.scripts import task_names

    if not isinstance(text, str) or not text:
        return text
    if key in _PATHS:
        return str(Path(text).absolute())
    script, colon, config = text.partition(":")
    for path, rest in ((text, ""), (script, colon + config)):
        written_as_path = os.sep in path or Path(path).suffix != "" or key == "task"
        if written_as_path and Path(path).exists() and not (key == "task" and path in task_names()):
            return f"{Path(path).absolute()}{rest}"
    return text


def _environment(values: Values) -> list[str]:
    """Return the address of an LLM that the environment gave, for the comment of a run."""
    url = os.environ.get("OPENAI_BASE_URL", "")
    asked = {"llm", "judge"} & set(values) and "base-url" not in values
    return [f"OPENAI_BASE_URL was {url}"] if url and asked and not is_secret("base-url", url) else []


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
