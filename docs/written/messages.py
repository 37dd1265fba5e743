"""`docs/messages.md`: every error message that the code states, with what to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from written import NOTE, ROOT

ERRORS = ROOT / "hf_synth" / "errors.py"
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
    "cluster": "Many machines",
    "review": "Review by people",
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
    "that arrived are kept, and the same command goes on.",
    "MissingExtraError": "Install the package that the message names.",
    "MissingGoldError": "Give the folder or archive as it was downloaded: `hf-synth tasks --gold PATH` shows what is "
    "found there.",
    "ModelError": "Check that the folder holds a whole model of the right kind, or choose one that "
    "`hf-synth models TASK` lists.",
    "OutputError": "Choose another `--out`, or free the folder. Nothing that was there was changed.",
    "OverlapError": "Use gold that the model or the notes were not made from, or make them again from the part that "
    "training may see.",
    "PublishError": "Nothing was made public. Run `hf-synth publish ... --dry-run` for the whole verdict; "
    "[publishing](publishing.md) explains it.",
    "RowError": "Open the file at the line that the message names and correct it, or leave the row out (`--skip-empty` "
    "for rows without text or label).",
    "TaskError": "Check the task's name and its script; `hf-synth tasks` lists those that are known.",
    "UsageError": "Correct the option that the message names, on the command line or in `hf_synth.toml`.",
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
NAMED = {"fatal", "messages", "CAUSES", "UNREACHED"}  # variables that hold messages


def messages_page() -> str:
    """Return the page of all messages, by stage and class."""
    found = sorted(messages())
    lines = [NOTE, "", "# Messages", ""]
    lines += [
        "The command line prints each error as one sentence after `hf-synth:` and exits with 1, or with 2 for a",
        "UsageError. In Python it is an",
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
    """Return the names of the errors in `hf_synth/errors.py`, and the Hub's own."""
    tree = ast.parse(ERRORS.read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name for name in classes if name.endswith("Error")} | {"HubError"}


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
