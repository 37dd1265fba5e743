"""Write the pages that follow from the code: `python docs/pages.py`; with --check, name those that are out of date.

- `docs/messages.md`: every error message, with what to do
- `docs/api.md`: every public name, from its docstring
- `docs/recipes.md`: the table of providers in it
- `SKILL.md`: the command line for agents, from the parser
- `llms.txt`: the index of the pages

The code is read, and of it only the parser is run: no other module of hf_synth is imported.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTE = "<!-- written by `python docs/pages.py`: change the code, not this page -->"
ERRORS = ROOT / "hf_synth" / "errors.py"

# --- messages --------------------------------------------------------------------------------------------------------
STAGES = {  # room: heading of the page, in the order of the journey
    "cli": "The command line",
    "task": "Tasks and folders",
    "gold": "Reading gold and tables",
    "dataset_scripts": "The files of single tasks",
    "llm": "Asking an LLM",
    "generation": "Generating",
    "correction": "Correcting",
    "models": "Base models and training",
    "evaluation": "Scores",
    "experiments": "Experiments",
    "privacy": "Audit",
    "publishing": "Publishing",
    "hub": "A Hub of your own",
    "reports": "Reports",
    "demo": "The demo",
}
CURES = {  # what to do where a message does not say it
    "AccessError": "Ask a server on this machine or in your private network, or read [the data's rules](rules.md).",
    "BudgetError": "Raise `--budget-usd`, or take what is there: every answer is kept.",
    "ColumnError": "Compare the columns of your table or Dataset with those that the message names. The folder "
    "that the verb before wrote has them.",
    "EndpointError": "Check `--base-url`. Notes that are not open may go to this machine and private networks only; "
    "see [the data's rules](rules.md).",
    "GoldError": "Check that the path is the one of this task's files, and that they are as downloaded: "
    "`hf-synth tasks --gold PATH` lists them.",
    "HfSynthError": "Correct the option or argument that the message names; `hf-synth VERB --help` shows its values.",
    "HubError": "The client shows this sentence with an HTTP status. Check the name, the token and your role; "
    "[a Hub of your own](air_gapped.md) explains them.",
    "JournalError": "Check the path and free space; `hf-synth journal verify PATH` checks the file. Every other file "
    "stays usable.",
    "LLMError": "Check model, address and key with one small run: `hf-synth generate ... --preview 1`. Answers "
    "that came are kept, and the same command goes on.",
    "MissingExtraError": "Install the package that the message names.",
    "MissingGoldError": "Give the folder or archive as it was downloaded: `hf-synth tasks --gold PATH` shows what is "
    "found there.",
    "ModelError": "Check that the folder holds a whole model of the right kind, or choose one that "
    "`hf-synth models TASK` lists.",
    "OutputError": "Choose another `--out`, or free the folder. Nothing that was there was changed.",
    "OverlapError": "Use gold that the model or the notes were not made from, or make them anew from the part that "
    "training may see.",
    "PublishError": "Nothing was made public. Run `hf-synth publish ... --dry-run` for the whole verdict; "
    "[publishing](publishing.md) explains it.",
    "RowError": "Open the file at the line that the message names and correct it, or leave the row out (`--skip-empty` "
    "for rows without text or label).",
    "TaskError": "Check the task's name and its script; `hf-synth tasks` lists those that are known.",
}
_OPTION = "Correct the option or path that the message names; `hf-synth VERB --help` shows its values."
CURES_OF = {  # the same for a room whose errors of this class have a cure of their own
    **{
        ("cli", kind): _OPTION
        for kind in ("ColumnError", "HfSynthError", "MissingGoldError", "OutputError", "TaskError")
    },
    (
        "correction",
        "ColumnError",
    ): "Pass the rows and the gold that the policy, the sample or the audited table was made "
    "from: they belong together.",
    (
        "correction",
        "RowError",
    ): "Correct the table of labels: a column `id` with each id once, and a column `label`, as "
    "`hf-synth sample` writes them.",
    (
        "correction",
        "TaskError",
    ): "Fit the policy again for this task, corrector and judge, or choose another `--method`.",
    (
        "dataset_scripts",
        "RowError",
    ): "Check that all files are of one release and whole: download them again. In a table of yours, correct the line.",
    ("evaluation", "ColumnError"): "Pass predictions and rows of one dataset, in one order.",
    ("evaluation", "HfSynthError"): "Score both models on the same rows, and keep their probabilities: "
    "`scores.to_json(rows=True)`.",
    (
        "experiments",
        "MissingGoldError",
    ): "Look at the failed cells of the report: each names its error. The same command runs them again.",
    ("experiments", "ColumnError"): "Look at the gates of the report: they say why answers were rejected.",
    ("generation", "LLMError"): "Look at the reasons of the split `rejected`, or at the prompt: `--preview 1`.",
    (
        "llm",
        "JournalError",
    ): "Name another file by `--journal`, or move the broken one away: a new one is made, and its "
    "answers are asked for again. `hf-synth journal verify` says what is wrong.",
    ("models", "HfSynthError"): "Correct the `--set` field: it takes the names and values of transformers' "
    "`TrainingArguments`.",
    (
        "models",
        "TaskError",
    ): "Choose a base model of the task's kind: an encoder for labels, a sequence-to-sequence model "
    "for texts. `hf-synth models TASK` lists some.",
    ("privacy", "ColumnError"): "Run the audit on the dataset that you pass on.",
    (
        "task",
        "ColumnError",
    ): "The table was not written for this task, or was edited: run the verb before again, or convert "
    "the table with `adopt`.",
    ("task", "TaskError"): "Correct the task's script, or the manifest of its folder (`hf-synth gold` writes it anew).",
}
BUILT = {"why_broken"}  # functions that return the second half of a message
NAMED = {"fatal", "messages", "CAUSES"}  # variables that hold messages


def messages_page() -> str:
    """Return the page of all messages, by stage and class."""
    found = sorted(messages())
    lines = [NOTE, "", "# Messages", ""]
    lines += [
        "The command line prints each error as one sentence after `hf-synth:` and exits with 1. In Python it is an",
        "exception of `hf_synth.errors`. This page lists the sentences as they stand in the code: a word in",
        "`<angle brackets>` is filled in, and `…` is a part that varies. Most sentences say what to do. Where one does",
        "not, the line above its list does. No message holds text of a note.",
        "",
    ]
    for room, heading in STAGES.items():
        here = [(kind, text) for stage, kind, text in found if stage == room]
        if not here:
            continue
        lines += [f"## {heading}", ""]
        for kind in sorted({kind for kind, _ in here}):
            lines += [f"### {heading}: {kind}", "", CURES_OF.get((room, kind), CURES[kind]), ""]
            for text in (text for one, text in here if one == kind):
                tick, pad = ("``", " ") if "`" in text else ("`", "")
                lines += [f"- {tick}{pad}{text}{pad}{tick}"]
            lines += [""]
    return "\n".join(lines)


@cache
def messages() -> frozenset[tuple[str, str, str]]:
    """Return the room, class and template of every message that the code states as a literal."""
    return frozenset(_messages())


def _messages() -> Iterator[tuple[str, str, str]]:
    files = [*(ROOT / "hf_synth").rglob("*.py"), *(ROOT / "dataset_scripts").glob("*.py")]
    for file in sorted(files):
        room = file.relative_to(ROOT).parts[-2] if file.parent.name != "hf_synth" else "task"
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for kind, value in _stated(tree, room):
            for text in _templates(value):
                if len(text.split()) > 2:
                    yield room, kind, text


def error_classes() -> set[str]:
    """Return the names of the classes in `hf_synth/errors.py`, and the Hub's own."""
    tree = ast.parse(ERRORS.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)} | {"HubError"}


def _stated(tree: ast.Module, room: str) -> Iterator[tuple[str, ast.expr]]:
    classes, own = error_classes(), "LLMError" if room == "llm" else "RowError"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in classes and node.args:
                yield name, node.args[1 if name == "HubError" and len(node.args) > 1 else -1]
            elif name == "add" and len(node.args) > 1 and ast.unparse(node.func) == "faults.add":
                yield "RowError", node.args[1]
        elif isinstance(node, ast.FunctionDef) and node.name in BUILT:
            yield from ((own, part.value) for part in ast.walk(node) if isinstance(part, ast.Return) and part.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in NAMED:
            values = node.value.values if isinstance(node.value, ast.Dict) else [node.value]
            yield from ((own, value) for value in values)


def _templates(value: ast.expr) -> Iterator[str]:
    """Yield the sentences that an expression can be; none where no part of it is a literal."""
    if isinstance(value, ast.IfExp):
        yield from _templates(value.body)
        yield from _templates(value.orelse)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield " ".join(value.value.split())
    elif isinstance(value, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else _place(p) for p in value.values)  # type: ignore[arg-type]
        yield " ".join("".join(map(str, parts)).split())
    elif isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        left, right = ([*_templates(side)] or ["…"] for side in (value.left, value.right))
        if (left[0], right[0]) != ("…", "…"):
            yield f"{left[0]}{right[0]}"


def _place(part: ast.FormattedValue) -> str:
    """Return what stands for a value that is filled in."""
    quote = "'" if part.conversion == ord("r") else ""
    value: ast.AST = part.value
    if isinstance(value, ast.Subscript):
        value = value.value
    name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
    return f"{quote}<{name.strip('_')}>{quote}" if name else "…"


# --- the public names ------------------------------------------------------------------------------------------------
def api_page() -> str:
    """Return the page of the public names, from signatures and docstrings."""
    stub = ast.parse((ROOT / "hf_synth" / "__init__.pyi").read_text(encoding="utf-8"))
    names = [(node.module or "", node.names[0].name) for node in stub.body if isinstance(node, ast.ImportFrom)]
    lines = [
        NOTE,
        "",
        "# API",
        "",
        "The public names of `hf_synth`, from their docstrings: `from hf_synth import load_task, generate`.",
        "",
    ]
    lines += ["| name | |", "|---|---|"]
    nodes = {name: (module, _definition(module, name)) for module, name in sorted(names, key=lambda m: m[1].lower())}
    for name, (_, node) in nodes.items():
        lines += [f"| [`{name}`](#{name.lower()}) | {_first_sentence(node)} |"]
    for name, (module, node) in nodes.items():
        lines += ["", f"## {name}", "", f"`hf_synth.{module}`", ""]
        lines += _signature(node, name)
        lines += _docstring(node)
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    is_property = any(
                        getattr(d, "id", "") in ("property", "cached_property") for d in method.decorator_list
                    )
                    lines += ["", f"### {name}.{method.name}", ""]
                    lines += ([] if is_property else _signature(method, method.name)) + _docstring(method)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines) + "\n")


def _definition(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    file = ROOT / "hf_synth" / (module.replace(".", "/") + ".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise SystemExit(f"hf_synth/__init__.pyi names {name}, which {file.name} does not define")


def _first_sentence(node: ast.ClassDef | ast.FunctionDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()).replace("|", "\\|")


def _signature(node: ast.ClassDef | ast.FunctionDef, name: str) -> list[str]:
    if isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if init is None:
            fields = [
                ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign) and "init=False" not in ast.unparse(n)
            ]
            parts = [field for field in fields if not field.startswith("_")]
            returns = ""
        else:
            parts, returns = _parameters(init), ""
    else:
        parts, returns = _parameters(node), f" -> {ast.unparse(node.returns)}" if node.returns else ""
    one = f"{name}({', '.join(parts)}){returns}"
    text = one if len(one) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returns}"])
    return ["```text", text, "```", ""]


def _parameters(node: ast.FunctionDef) -> list[str]:
    spec = node.args
    parts, positional = [], [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    for arg, default in zip(positional, defaults, strict=True):
        if arg.arg not in ("self", "cls"):
            parts.append(_parameter(arg, default))
    if spec.vararg:
        parts.append(f"*{_parameter(spec.vararg, None)}")
    elif spec.kwonlyargs:
        parts.append("*")
    parts += [_parameter(arg, default) for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    return [*parts, *([f"**{_parameter(spec.kwarg, None)}"] if spec.kwarg else [])]


def _parameter(arg: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
    equals = " = " if kind else "="
    return f"{arg.arg}{kind}" + (f"{equals}{ast.unparse(default)}" if default is not None else "")


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """Return a docstring as Markdown: its sections as lists, its examples as code."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(ast.get_docstring(node) or "").splitlines():
        heading = re.fullmatch(r"(Args|Returns|Yields|Raises|Attributes|Examples?|Note|Notes|Source|Sources):", line)
        if heading:
            section = heading[1]
            lines += ["", f"**{section}**", ""] + (["```pycon"] if section.startswith("Example") else [])
        elif section.startswith("Example") and line and not line.startswith(" "):
            lines += ["```", "", line]
            section = ""
        elif section.startswith("Example"):
            lines += [line.removeprefix("    ")]
        elif section in ("Args", "Raises", "Attributes") and (
            item := re.match(r" {4}([*\w][\w., *]*):(?: (.*))?$", line)
        ):
            lines += [f"- `{item[1]}`: {item[2] or ''}".rstrip()]
        elif section and line.strip():
            lines += [("  " if section in ("Args", "Raises", "Attributes") else "") + line.strip()]
        else:
            section = "" if line and not line.startswith(" ") else section
            lines += [line]
    while lines and not lines[-1].strip():
        lines.pop()
    return [*lines, "```"] if section.startswith("Example") else lines


# --- providers -------------------------------------------------------------------------------------------------------
def recipes_page() -> str:
    """Return the recipes with the table of providers as the code has it."""
    from hf_synth.llm.providers import PROVIDERS

    rows = ["| provider | address | environment variable of the key | note |", "|---|---|---|---|"]
    for one in PROVIDERS:
        address = ", ".join(f"`{host}`" for host in one.hosts) if one.hosts else f"port {one.port} of any host"
        keys = " or ".join(f"`{name}`" for name in one.key_variables)
        rows.append(f"| {one.name} | {address} | {keys} | {one.note} |")
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    begin, end = "<!-- providers: begin -->\n", "\n<!-- providers: end -->"
    before, _, rest = text.partition(begin)
    return before + begin + "\n".join(rows) + end + rest.partition(end)[2]


# --- the command line ------------------------------------------------------------------------------------------------
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

1. `hf-synth gold TABLE` shows the columns of a table and the command to type. `hf-synth tasks` lists known tasks.
2. The folder that `gold` wrote is the TASK of all later verbs. Each verb reads the folder of the verb before:
   gold -> generate -> correct -> augment -> train -> evaluate -> publish. `run` does generate to evaluate at once
   and writes `report.html`.
3. Add `--json` and read the last line of stdout; `-q` silences progress. A stopped command goes on when it is run
   again.
4. An error is one sentence on stderr. [docs/messages.md](docs/messages.md) lists all of them.

Exit codes: 0 done; 1 refused or failed, with one sentence; 2 wrong command line; 130 interrupted.

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
        lines += [f"- `{_usage(a)}`{' (required)' if a.required else ''}: {_help(a)}" for a in own]
        joint = [a for a in _options(parser) if (_names(a), a.help) in shared]
        if joint:
            lines += [
                "- shared: " + ", ".join(f"`{_names(a)[-1]}`" + (" (required)" if a.required else "") for a in joint)
            ]
        lines += [""]
    lines += ["## Shared options", ""]
    done: set[tuple[tuple[str, ...], str | None]] = set()
    for action in (a for _, _, p in verbs for a in _options(p)):
        key = (_names(action), action.help)
        if key in shared and key not in done:
            done.add(key)
            lines += [f"- `{_usage(action)}`: {_help(action)}"]
    return "\n".join(lines) + "\n"


def _verbs() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield each verb, its line and its parser; verbs of verbs ("hub serve") as verbs of their own."""
    from hf_synth.cli import cli

    for name, row in cli.VERBS.items():
        whole = cli._parser(name)
        parser = _subparsers(whole)[name]
        yield from _below(name, row[-1] if isinstance(row, tuple) else parser.description or "", parser)


def _below(name: str, line: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    below = _subparsers(parser)
    if not below:
        yield name, line.rstrip("."), parser
    for verb, sub in below.items():
        yield from _below(f"{name} {verb}", sub.description or verb, sub)


def _subparsers(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices  # type: ignore[return-value]
    return {}


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if a.option_strings and not isinstance(a, argparse._HelpAction)]


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not a.option_strings and not isinstance(a, argparse._SubParsersAction)]


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


# --- the index -------------------------------------------------------------------------------------------------------
def llms_page() -> str:
    """Return llms.txt: every page with its first sentence."""
    lines = ["# hf_synth", "", f"> {ABOUT}", "", "## Pages", ""]
    lines += [_entry(page) for page in sorted(DOCS.glob("*.md")) if page.name != "index.md"]
    lines += ["", "## Measured results", ""]
    lines += [_entry(page) for page in sorted((DOCS / "results").glob("*.md"))]
    return "\n".join(lines) + "\n"


def _entry(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    plain = re.sub(r"^```.*?^```$", "", text.replace(NOTE, ""), flags=re.DOTALL | re.MULTILINE)
    prose = (p for p in re.split(r"\n\s*\n", plain) if re.match(r"[A-Za-z`*\[]", p))
    about = re.split(r"(?<=[.:])\s", " ".join(next(prose, "").split()))[0].rstrip(":")
    name = title[1] if title else page.stem.replace("_", " ")
    return f"- [{name.replace('`', '')}](docs/{page.relative_to(DOCS).as_posix()})" + (f": {about}" if about else "")


PAGES = {
    "docs/messages.md": messages_page,
    "docs/api.md": api_page,
    "docs/recipes.md": recipes_page,
    "SKILL.md": skill_page,
    "llms.txt": llms_page,  # last: it reads the others
}


def main() -> int:
    """Write the pages, or with --check name those that are out of date."""
    check, stale = "--check" in sys.argv[1:], []
    for name, page in PAGES.items():
        file, text = ROOT / name, page().rstrip("\n") + "\n"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                file.write_text(text, encoding="utf-8")
    if stale:
        print(("out of date: " if check else "written: ") + ", ".join(stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
