"""The verb `completion`: a script that completes the command line in bash, zsh or fish.

The script is made from the parsers and holds every verb, option and choice, so that pressing Tab starts no Python.
Where a path may be given, files are completed; TASK is completed with the names of tasks too.
"""

from __future__ import annotations

import argparse
from argparse import Action, Namespace
from collections.abc import Iterator
from dataclasses import dataclass

from hf_synth.cli.options import PACKAGED_LLMS, SIMULATOR, TINY, Result
from hf_synth.cli.parsing import Parser, options_of, verbs_of

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Line:
    """What may follow a verb.

    Args:
        words: the verb, e.g. ("hub", "serve").
        about: its line of help.
        verbs: names of verbs below it.
        options: its options: names, help, whether a value follows, the values that are known, whether only these may.
        places: the known words of each argument without a name.
        free: whether an argument without a name may be a path.
    """

    words: tuple[str, ...]
    about: str
    verbs: tuple[str, ...]
    options: tuple[tuple[tuple[str, ...], str, bool, tuple[str, ...], bool], ...]
    places: tuple[tuple[str, ...], ...]
    free: bool


def add_completion_options(parser: Parser) -> None:
    """Add the options of `completion`."""
    text = "the shell: bash, zsh or fish"
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=text)


def completion(args: Namespace) -> Result:
    """Print the script of a shell."""
    from hf_synth.cli.cli import VERBS, verb_parser

    lines = [line for name in VERBS for line in lines_of(verb_parser(name))]
    about = {name: text for name, (_, text) in VERBS.items()}
    script = _fish(lines, about) if args.shell == "fish" else _bash(lines, zsh=args.shell == "zsh")
    print(script, end="")
    return {"shell": args.shell}


def lines_of(parser: Parser) -> Iterator[Line]:
    """Yield what may follow a verb and each verb below it."""
    below = verbs_of(parser)
    options = tuple(
        (tuple(a.option_strings), a.help or "", a.nargs != 0, _known(a), a.choices is not None)
        for a in options_of(parser)
    )
    words = tuple(parser.prog.split()[1:])
    free = any(place.choices is None for place in parser.places)
    yield Line(words, parser.description or "", tuple(below), options, tuple(map(_known, parser.places)), free)
    for verb in below.values():
        yield from lines_of(verb)


def _known(action: Action) -> tuple[str, ...]:
    """Return the values of an option or argument that are known in advance."""
    if action.choices is not None:
        return tuple(map(str, action.choices))
    if isinstance(action, argparse._AppendAction):
        return ()
    if action.dest in ("llm", "judge"):
        return (SIMULATOR, *PACKAGED_LLMS)
    if action.dest in ("base_model", "base_models"):
        from hf_synth.models.base_models import BASE_MODELS

        return (TINY, *(model.name for model in BASE_MODELS if model.name))
    if action.dest == "task":
        from hf_synth.cli.task_table import task_table

        names = [str(row["task"]) for row in task_table()]
        return tuple(dict.fromkeys(word for name in names for word in (name.partition(":")[0], name)))
    return ()


# --- bash and zsh ---------------------------------------------------------------------------------------------------
_BASH = """\
# Completion of hf-synth, made by `hf-synth completion {shell}`; make it again after an update.
{zsh}_hf_synth() {{
    local IFS=$' \t\n' at=$COMP_CWORD cur="${{COMP_WORDS[COMP_CWORD]}}" head="" glue="" prev
    # bash divides a word at = and at :, e.g. --task=mednli:pair; `head` is what stands before the last colon
    if [[ "$cur" == "=" || "$cur" == ":" ]]; then cur=""; at=$((at + 1)); fi
    if [[ "${{COMP_WORDS[at-1]}}" == ":" ]]; then head="${{COMP_WORDS[at-2]}}:"; at=$((at - 2)); fi
    if [[ "${{COMP_WORDS[at-1]}}" == "=" ]]; then at=$((at - 1)); fi
    prev="${{COMP_WORDS[at-1]}}"
    # zsh divides it at neither: `glue` is what stands before the value
    if [[ "$cur" == --*=* ]]; then prev="${{cur%%=*}}"; glue="$prev="; cur="${{cur#*=}}"; fi
    case "$cur" in \\"*|\\'*) cur="${{cur:1}}" ;; esac  # a name with spaces, without its quotes
    cur="${{cur//\\\\/}}"
    local verb="" word options="" verbs="" words="" files="" places="" free="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        case "$verb $word" in
{verbs}        esac
    done
    case "$verb" in
{lines}    esac
    case "$verb $prev" in
{values}    esac
    if [[ -n "$words$files" ]]; then :
    elif [[ "$cur" == -* ]]; then words="$options"
    elif [[ -n "$verbs" ]]; then words="$verbs"
    else words="$places"; files="$free"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$head$cur"))
    if [[ -n "$files" ]]; then
        while IFS= read -r word; do COMPREPLY+=("$word"); done < <(
            PREFIX="$head$cur" IPREFIX=""  # where zsh looks
            compgen -f -- "$head$cur"
        )
    fi
    if [[ -n "$head" ]]; then COMPREPLY=("${{COMPREPLY[@]#"$head"}}"); fi
    if [[ -n "$glue" ]]; then
        for ((i = 0; i < ${{#COMPREPLY[@]}}; i++)); do COMPREPLY[i]="$glue${{COMPREPLY[i]}}"; done
    fi
}}
complete -o filenames -o bashdefault -F _hf_synth hf-synth
"""
_ZSH = """\
autoload -Uz compinit bashcompinit
(( $+functions[compdef] )) || compinit
bashcompinit
"""


def _bash(lines: list[Line], *, zsh: bool) -> str:
    top = " ".join(line.words[0] for line in lines if len(line.words) == 1)
    verbs, cases, values = [], [f'        "") verbs="{top}"; options="--help --version" ;;\n'], []
    for line in lines:
        verb, above = " ".join(line.words), " ".join(line.words[:-1])
        verbs.append(f'            "{above} {line.words[-1]}") verb="{verb}" ;;\n')
        names = " ".join(name for option in line.options for name in option[0])
        places = " ".join(dict.fromkeys(word for place in line.places for word in place))
        free = "yes" if line.free else ""
        below = f'verbs="{" ".join(line.verbs)}"; places="{places}"; free="{free}"'
        cases.append(f'        "{verb}") options="{names}"; {below} ;;\n')
        for option, _, valued, known, closed in line.options:
            if valued:
                patterns = "|".join(f'"{verb} {name}"' for name in option)
                files = "" if closed else "yes"
                values.append(f'        {patterns}) words="{" ".join(known)}"; files="{files}" ;;\n')
    parts = {"verbs": "".join(verbs), "lines": "".join(cases), "values": "".join(values)}
    return _BASH.format(shell="zsh" if zsh else "bash", zsh=_ZSH if zsh else "", **parts)


# --- fish -----------------------------------------------------------------------------------------------------------
_FISH = """\
# Completion of hf-synth, made by `hf-synth completion fish`; make it again after an update.
# a verb is the first word, and not a file of that name further on
function __hf_synth_verb
    set -l words (commandline -opc)
    set -e words[1]
    set -l first $words[1..(count $argv)]
    test "$first" = "$argv"
end
# the verb below it, at a place among the words
function __hf_synth_below
    set -l words (commandline -opc)
    set -l place $argv[1]
    contains -- "$words[$place]" $argv[2..-1]
end
"""


def _fish(lines: list[Line], about: dict[str, str]) -> str:
    out = [_FISH]
    for name, text in about.items():
        out.append(f"complete -c hf-synth -n __fish_use_subcommand -f -a {name} -d {_quoted(text)}\n")
    for name, text in (("help", "show the verbs"), ("version", "show the version")):
        out.append(f"complete -c hf-synth -n __fish_use_subcommand -l {name} -d {_quoted(text)}\n")
    for line in lines:
        seen = f"__hf_synth_verb {' '.join(line.words)}"
        if line.verbs:
            none = f"{seen}; and not __hf_synth_below {len(line.words) + 2} {' '.join(line.verbs)}"
            out.append(f"complete -c hf-synth -n {_quoted(none)} -f -a {_quoted(' '.join(line.verbs))}\n")
        elif not line.free:
            out.append(f"complete -c hf-synth -n {_quoted(seen)} -f\n")
        for place in line.places:
            if place:
                out.append(f"complete -c hf-synth -n {_quoted(seen)} -a {_quoted(' '.join(place))}\n")
        for option, text, valued, known, closed in line.options:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option)
            value = ((" -x" if closed else " -r") if valued else "") + (
                f" -a {_quoted(' '.join(known))}" if known else ""
            )
            out.append(f"complete -c hf-synth -n {_quoted(seen)} {names}{value} -d {_quoted(text)}\n")
    return "".join(out)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") + "'"
