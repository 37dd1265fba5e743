"""`SKILL.md`: the command line for agents, from the parser."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

from hf_synth.cli.parsing import Parser, verbs_of
from written import NOTE

SKILL_HEAD = """---
name: hf-synth
description: {about}
---

# hf-synth

{note}

## Rules

- Never print, copy or send text of the user's notes. Messages of hf-synth hold none; keep it so.
- Data of the user are `restricted`: ask LLMs on this machine or in a private network only. Do not pass
  `--access open` or `--attestation` unless the user states it.
- `--push`, `--public`, `--yes` and `withdraw` change what others see: ask the user first. `--dry-run` shows the
  verdict.
- `--llm simulator` and `--base-model tiny` show that the software runs. Never report their scores as results.
- Report a score with its interval, and the labels that the model never finds.

## How to work

1. `hf-synth init TABLE` looks at a table and writes `hf_synth.toml`, from which later verbs take their options.
   `hf-synth gold TABLE` shows the columns alone. `hf-synth tasks` lists known tasks, `hf-synth status DIR` the stages
   of a folder and the next command, `hf-synth doctor` what would stop a journey.
2. The folder that `gold` wrote is the TASK of all later verbs. Each verb reads the folder of the verb before:
   gold -> generate -> correct -> augment -> train -> evaluate -> publish. `run` does generate to evaluate at once
   and writes `report.html`.
3. Add `--json` and read the last line of stdout; `-q` silences progress. A stopped command goes on when it is run
   again.
4. An error is one sentence on stderr. [docs/messages.md](docs/messages.md) lists all of them.

Exit codes: 0 done; 1 refused or failed, with one sentence; 2 wrong command line; 130 interrupted; 143 ended by SIGTERM.

More: [start](docs/start.md), [recipes for LLM servers](docs/recipes.md), [the data's rules](docs/rules.md),
[all pages](llms.txt).

## Verbs
"""
ABOUT = (
    "Make synthetic labelled clinical notes from a few gold ones with an LLM, correct their labels, train and score a "
    "classifier, audit and publish notes or model to a Hugging Face Hub. Use it when a user has a table of labelled "
    "notes or messages and wants more training data, wants to know whether synthetic notes are worth making, or wants "
    "to publish such notes safely."
)


def skill_page() -> str:
    """Return SKILL.md: each verb with its options, shared options once."""
    verbs = [*_verbs()]
    counts = Counter((_names(a), a.help) for _, _, p in verbs for a in _options(p))
    shared = {key for key, n in counts.items() if n > 3}
    lines = [SKILL_HEAD.format(note=NOTE, about=ABOUT)]
    for name, line, parser in verbs:
        places = _positionals(parser)
        lines += [
            f"### hf-synth {' '.join([name, *(_metavar(a) for a in places)])}",
            "",
            f"{line[0].upper()}{line[1:]}.",
            "",
        ]
        lines += [f"- `{_metavar(a)}`: {_help(a)}" for a in places]
        own = [a for a in _options(parser) if (_names(a), a.help) not in shared]
        lines += [f"- `{_usage(a)}`{' (required)' if a in parser.must else ''}: {_help(a)}" for a in own]
        joint = [a for a in _options(parser) if (_names(a), a.help) in shared]
        if joint:
            lines += [
                "- shared: "
                + ", ".join(f"`{_names(a)[-1]}`" + (" (required)" if a in parser.must else "") for a in joint)
            ]
        lines += [f"- example: `{example}`" for example in getattr(parser, "examples", ())]
        lines += [""]
    lines += ["## Shared options", ""]
    done: set[tuple[tuple[str, ...], str | None]] = set()
    for action in (a for _, _, p in verbs for a in _options(p)):
        key = (_names(action), action.help)
        if key in shared and key not in done:
            done.add(key)
            lines += [f"- `{_usage(action)}`: {_help(action)}"]
    return "\n".join(lines) + "\n"


def _verbs() -> Iterator[tuple[str, str, Parser]]:
    """Yield each verb by group, its line and its parser; verbs of verbs ("hub serve") as verbs of their own."""
    from hf_synth.cli import cli
    from hf_synth.cli.help import GROUPS

    for name in (name for names in GROUPS.values() for name in names):
        row = cli.VERBS[name]
        parser = cli.verb_parser(name)
        yield from _below(name, row[-1] if isinstance(row, tuple) else parser.description or "", parser)


def _below(name: str, line: str, parser: Parser) -> Iterator[tuple[str, str, Parser]]:
    below = verbs_of(parser)
    if not below:
        yield name, line.rstrip("."), parser
    for verb, sub in below.items():
        yield from _below(f"{name} {verb}", sub.description or verb, sub)


def _options(parser: Parser) -> list[argparse.Action]:
    return [a for a in parser._actions if a.option_strings and not isinstance(a, argparse._HelpAction)]


def _positionals(parser: Parser) -> list[argparse.Action]:
    return list(getattr(parser, "places", ()))


def _names(action: argparse.Action) -> tuple[str, ...]:
    return tuple(action.option_strings)


def _metavar(action: argparse.Action) -> str:
    name = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    text = " ".join(name) if isinstance(name, tuple) else str(name)
    return f"[{text}]" if action.nargs in ("?", "*") and not action.option_strings else text


def _usage(action: argparse.Action) -> str:
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {_metavar(action)}")


def _help(action: argparse.Action) -> str:
    text = "" if action.help in (None, argparse.SUPPRESS) else " ".join(str(action.help).split())
    return text.replace("%%", "%") or "(no description)"
