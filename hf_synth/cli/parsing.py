"""The parser of one verb: help in two lengths, errors with "did you mean", defaults from a configuration.

argparse reads the options. Arguments without a name (TASK, DATA) are assigned here, so that they may come between
options, and so that a configuration may give them.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import textwrap
from argparse import SUPPRESS, Action, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hf_synth.errors import did_you_mean

_FEW = 12  # a verb with no more options of its own shows all of them under --help
_SHARED = ("help", "help_all", "config", "no_config", "json", "quiet")  # options of every verb, by destination


# The least value of options that count something; other whole numbers may be 0. No number may be infinite or none.
_LEAST = {
    **dict.fromkeys(("--n", "--votes", "--slots", "--context", "--threads", "--max-tokens", "--max-calls"), 1),
    **dict.fromkeys(("--concurrency", "--per-label", "--workers", "--rounds"), 1),
}


def is_in_range(action: Action, value: Any) -> bool:
    """Return whether a number is finite and not below the least value of its option; other values always are."""
    if isinstance(value, float):
        return math.isfinite(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return not whole or not action.option_strings or value >= _least(action)


def value_kind(action: Action) -> str:
    """Return in words which values an option or argument takes, e.g. "a whole number from 1"."""
    if action.nargs == 0:
        return "true or false"
    if action.choices is not None:
        return f"one of {', '.join(map(str, action.choices))}"
    if action.type is int:
        return f"a whole number from {_least(action)}" if action.option_strings else "a whole number"
    return "a number" if action.type is float else "a path" if action.type is Path else "text"


def _least(action: Action) -> int:
    return max((_LEAST.get(name, 0) for name in action.option_strings), default=0)


class Parser(argparse.ArgumentParser):
    """A parser with `--help` for the common options and `--help-all` for every one.

    Args:
        common: the options that --help shows, in this order; by default all of a verb with few options.
    """

    examples: Sequence[str] = ()  # examples at the end of the help
    places: Sequence[Action] = ()  # arguments without a name
    must: Sequence[Action] = ()  # options that must be given

    def __init__(self, *args: Any, common: Sequence[str] = (), **keywords: Any) -> None:
        super().__init__(*args, **{**keywords, "add_help": False, "allow_abbrev": False})
        self.common = tuple(common)
        shared = self.add_argument_group("options of every verb")
        shared.add_argument("-h", "--help", action="help", default=SUPPRESS, help="show the common options")
        shared.add_argument("--help-all", action=_HelpAll, nargs=0, default=SUPPRESS, help="show every option")
        self._shared = shared

    def add_shared(self, *, json: bool = True) -> None:
        """Add the options that every verb has."""
        add = self._shared.add_argument
        text = "take options from this file (default: hf_synth.toml in the current folder, if there is one)"
        add("--config", metavar="FILE.toml", help=text)
        add("--no-config", action="store_true", help="take no options from hf_synth.toml")
        if json:
            add("--json", action="store_true", help="print the result as one JSON object on the last line of stdout")
        else:
            self.set_defaults(json=False)
        add("-q", "--quiet", action="store_true", help="print no progress, only results and errors")

    def finish(self) -> None:
        """Keep the arguments without a name, and the check of what must be given, from argparse."""
        self.places = [a for a in self._actions if not a.option_strings and a.nargs != argparse.PARSER]
        self._actions = [action for action in self._actions if action not in self.places]
        self.must = [action for action in options_of(self) if action.required]
        for action in options_of(self):
            action.help = _with_default(action)
        for action in self.must:
            action.required = False
        for parser in verbs_of(self).values():
            parser.finish()

    def short_options(self) -> list[Action]:
        """Return the options that --help shows."""
        own = [action for action in options_of(self) if action.dest not in _SHARED]
        if self.common:
            by_name = {name: action for action in own for name in action.option_strings}
            return [by_name[name] for name in self.common if name in by_name]
        return own if len(own) <= _FEW else own[: _FEW - 2]

    def format_usage(self) -> str:
        """Return one line: the arguments, the options that must be given, and "[options]"."""
        words = ["usage:", self.prog]
        if verbs_of(self):
            words.append("VERB")
        words += [f"[{_metavar(a)}]" if a.nargs == "?" else _metavar(a) for a in self.places]
        words += [f"{action.option_strings[0]} {_metavar(action)}" for action in self.must]
        return " ".join([*words, "[options]"]) + "\n"

    def format_help(self) -> str:
        """Return the short help: arguments, common options, how many more there are, examples."""
        common = self.short_options()
        more = [a for a in options_of(self) if a not in common and a.dest not in _SHARED]
        shared = [a for a in options_of(self) if a.dest in _SHARED and a.dest not in ("help", "no_config")]
        sections = [("common options" if more else "options", common)]
        if not verbs_of(self):
            sections.append(("options of every verb", shared))
        note = f"\n{len(more)} more options: {self.prog} --help-all\n" if more else ""
        return self._help(sections, note)

    def format_long_help(self) -> str:
        """Return the help with every option, by group."""
        groups = [*(group for group in self._action_groups if group is not self._shared), self._shared]
        return self._help([(str(g.title), [a for a in g._group_actions if a.option_strings]) for g in groups], "")

    def _get_value(self, action: Action, arg_string: str) -> Any:
        if not arg_string.strip():
            raise argparse.ArgumentError(action, f"takes {value_kind(action)}, and its value is empty")
        try:
            value = super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            value = math.nan
        if not is_in_range(action, value):
            raise argparse.ArgumentError(action, f"takes {value_kind(action)}, not {arg_string!r}")
        return value

    def error(self, message: str) -> NoReturn:
        """Print the usage of the verb and what is wrong, and exit with 2."""
        sys.stderr.write(self.format_usage())
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` shows what it takes)\n")

    def _help(self, sections: Sequence[tuple[str, Sequence[Action]]], note: str) -> str:
        formatter = _Formatter(prog=self.prog, max_help_position=30, width=_width())
        verbs = [
            line
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for line in action._choices_actions
        ]
        for title, actions in (("arguments", self.places), ("verbs", verbs), *sections):
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        about = f"\n{textwrap.fill(self.description, _width())}\n" if self.description else ""
        examples = "".join(f"  {line}\n" for line in self.examples)
        ending = f"\nexamples:\n{examples}" if examples else ""
        return f"{self.format_usage()}{about}\n{formatter.format_help()}{note}{ending}"

    def _check_value(self, action: Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), names)
            raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(names)}{hint}")


class _HelpAll(Action):
    """`--help-all`: print every option and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        assert isinstance(parser, Parser)
        sys.stdout.write(parser.format_long_help())
        parser.exit()


class _Formatter(argparse.HelpFormatter):
    """Adds the choices to the help of an option where its metavar does not hold them."""

    def _get_help_string(self, action: Action) -> str | None:
        text = action.help or ""
        if action.choices is not None and _is_long(action):
            text += f"; one of {', '.join(map(str, action.choices))}"
        return text

    def _metavar_formatter(self, action: Action, default_metavar: str) -> Callable[[int], tuple[str, ...]]:
        if action.metavar is None and _is_long(action):
            return lambda size: (default_metavar,) * size
        return super()._metavar_formatter(action, default_metavar)


def _with_default(action: Action) -> str | None:
    """Return the help of an option with its default, where it has one and does not say it.

    The help is printed while options are read, when `read_options` has taken their defaults away.
    """
    text, default = action.help, action.default
    silent = default is None or default is SUPPRESS or isinstance(default, bool) or default in ("", [])
    if text is None or silent or "default" in text:
        return text
    said = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    return f"{text} (default: {said.replace('%', '%%')})"


def options_of(parser: argparse.ArgumentParser) -> list[Action]:
    """Return the options of a parser."""
    return [action for action in parser._actions if action.option_strings]


def verbs_of(parser: argparse.ArgumentParser) -> Mapping[str, Parser]:
    """Return the parsers of the verbs below a parser, e.g. `serve` of `hub`."""
    return next((action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)), {})


def exclude(parser: argparse.ArgumentParser, *names: str) -> None:
    """Declare options of a parser that exclude each other; one option may be in several such groups.

    Of such options the command line decides before the table of a configuration, and the table before its top.
    """
    by_name = {name: action for action in options_of(parser) for name in action.option_strings}
    parser.add_mutually_exclusive_group()._group_actions.extend(by_name[name] for name in names)


def excluded_by(parser: argparse.ArgumentParser, action: Action) -> list[Action]:
    """Return the options that an option excludes."""
    groups = [group._group_actions for group in parser._mutually_exclusive_groups if action in group._group_actions]
    return [other for group in groups for other in group if other is not action]


def without_excluded(
    parser: argparse.ArgumentParser, given: Mapping[str, Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return values of a configuration without those that exclude an option that the command line names."""
    actions = [a for a in options_of(parser) if a.dest in named and (a.nargs != 0 or named[a.dest] != a.default)]
    others = {other.dest for action in actions for other in excluded_by(parser, action)}
    return {name: value for name, value in given.items() if name not in others}


def verb_below(parser: Parser, words: Sequence[str]) -> tuple[Parser, list[str]]:
    """Return the parser of the verb that the words name, e.g. `hub token list`, and the words after it."""
    rest = list(words)
    while verbs := verbs_of(parser):
        if not rest or rest[0].startswith("-"):
            if rest and rest[0] in ("-h", "--help", "--help-all"):
                sys.stdout.write(parser.format_help())
                parser.exit()
            parser.error(f"name a verb: {', '.join(verbs)}")
        if rest[0] not in verbs:
            hint = did_you_mean(rest[0], verbs) or f"; there are {', '.join(verbs)}"
            parser.error(f"there is no verb {rest[0]!r}{hint}")
        parser = verbs[rest.pop(0)]
    return parser, rest


def read_options(parser: Parser, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the options that a command line names, by destination, and its other words.

    `--no-FLAG` undoes a flag that a configuration sets. A wrong option ends the process with exit code 2.
    """
    options = options_of(parser)
    before = [(action, action.default) for action in options]
    head, tail = _split_at(list(words), "--")
    for action in options:
        action.default = SUPPRESS  # what the command line does not name is not in the namespace
    try:
        namespace, loose = parser.parse_known_args(head)
    finally:
        for action, default in before:
            action.default = default
    flags = {name: action for action in options for name in action.option_strings if action.nargs == 0}
    undone = set[str]()
    for word in list(loose):
        flag = flags.get(f"--{word.removeprefix('--no-')}") if word.startswith("--no-") else None
        if flag is not None and flag.default != SUPPRESS:  # a flag such as --help does something at once
            if hasattr(namespace, flag.dest) and flag.dest not in undone:
                parser.error(f"{flag.option_strings[-1]} and {word} exclude each other")
            undone.add(flag.dest)
            setattr(namespace, flag.dest, flag.default)
            loose.remove(word)
        elif word.startswith("-") and word != "-" and not _is_number(word):
            name = word.partition("=")[0]
            hint = did_you_mean(name, [name for action in options for name in action.option_strings])
            parser.error(f"there is no option {name}{hint}")
    return {n: value for n, value in vars(namespace).items() if n not in parser._defaults}, [*loose, *tail]


def complete(parser: Parser, named: Mapping[str, Any], words: Sequence[str], given: Mapping[str, Any]) -> Namespace:
    """Return the options of a verb: the command line first, then a configuration, then the defaults.

    What is missing ends the process with exit code 2.

    Args:
        named, words: from `read_options`.
        given: values of a configuration, by destination.
    """
    given = without_excluded(parser, given, named)
    named = {**given, **_assign_places(parser, words, given), **named}
    for action in parser.must:
        if action.dest not in named:
            parser.error(f"{action.option_strings[0]} {_metavar(action)} is missing: {action.help}")
    defaults = {a.dest: a.default for a in (*parser.places, *parser._actions) if a.default is not SUPPRESS}
    return Namespace(**{**defaults, **parser._defaults, **named})


def _assign_places(parser: Parser, words: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by destination: words go first to those that must be named.

    Words that are left go to the optional arguments of the verb, then to those that a configuration gives, from the
    right: a task is changed less often than what it is applied to.
    """
    arguments = parser.places
    must = [a for a in arguments if a.nargs != "?" and a.dest not in given]
    may = [a for a in arguments if a.nargs == "?" and a.dest not in given]
    over = [a for a in reversed(arguments) if a.dest in given]
    many: dict[str, Any] = {}
    if must and must[-1].nargs == "+" and len(words) >= len(arguments):
        last, first = must.pop(), len(arguments) - 1
        many = {last.dest: [_value(parser, last, word) for word in words[first:]]}
        words, arguments = words[:first], [a for a in arguments if a is not last]
    if len(words) > len(arguments):
        takes = " ".join(map(_metavar, arguments)) or "options only"
        parser.error(f"there is no place for {words[len(arguments)]!r}: the verb takes {takes}")
    if len(words) < len(must):
        parser.error(f"{_metavar(must[len(words)])} is missing: {must[len(words)].help}")
    taken = [*must, *may, *over][: len(words)]
    return many | {
        action.dest: _value(parser, action, word)
        for action, word in zip((a for a in arguments if a in taken), words, strict=True)
    }


def _value(parser: Parser, action: Action, word: str) -> Any:
    try:
        value = parser._get_value(action, word)
        parser._check_value(action, value)
    except argparse.ArgumentError as error:
        parser.error(f"{_metavar(action)}: {error.message}")
    return value


def _split_at(words: list[str], mark: str) -> tuple[list[str], list[str]]:
    at = words.index(mark) if mark in words else len(words)
    return words[:at], words[at + 1 :]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_long(action: Action) -> bool:
    return action.choices is not None and len(", ".join(map(str, action.choices))) > 40


def _metavar(action: Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar is None and action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _width() -> int:
    return max(60, min(110, shutil.get_terminal_size().columns - 2))
