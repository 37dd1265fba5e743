"""The verb `init`: look at a table, ask what cannot be known, and write a configuration that later verbs read.

Without a terminal, or with --yes, guesses are used and printed. Where a guess would not be safe, nothing is written,
and one sentence names the options to give.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.config import CONFIG, write_config
from hf_synth.cli.options import ACCESSES, LLM_HELP, SIMULATOR, Result
from hf_synth.cli.terminal import plain
from hf_synth.errors import ColumnError, HfSynthError, LLMError, OutputError, did_you_mean

if TYPE_CHECKING:
    from hf_synth.gold.first_look import FirstLook
    from hf_synth.gold.overview import Column
    from hf_synth.task.task import Task

_ABOUT = """\
Written by `hf-synth init`. Verbs read this file from the current folder. The command line replaces its values.
Paths are relative to the current folder. The table of a verb replaces values above the tables."""
_KINDS = ("single_label", "multi_label", "text2text")
_ENOUGH = 100  # from so many rows on, a tenth is held back for validation
_FEW = 20  # with fewer rows of a label, a model learns little of it, and less can be measured


def add_init_options(parser: ArgumentParser) -> None:
    """Add the options of `init`."""
    add = parser.add_argument
    add("path", metavar="PATH", help="a table, a folder of tables, a folder that `gold` wrote, or `clinic`")
    add("--out", type=Path, default=Path(CONFIG), metavar="FILE", help=f"the file to write (default: {CONFIG})")
    add("--work", type=Path, default=Path("work"), metavar="DIR", help="where later verbs write (default: work)")
    add("--yes", action="store_true", help="ask nothing, and use what was guessed")
    add("--text-column", action="append", metavar="NAME", help="column of the text; twice for a pair")
    add("--label-column", metavar="NAME", help="column of the label, or of the target text")
    add("--group-column", metavar="NAME", help='column that names the patient; "none": there is no such column')
    add("--kind", choices=_KINDS, default="single_label", help="what the label is (default: single_label)")
    add("--name", metavar="NAME", help="name of the task, as the LLM sees it (default: the file's)")
    text = "what a label means, as the LLM sees it; may be repeated"
    add("--meaning", action="append", default=[], metavar="LABEL=TEXT", help=text)
    add("--access", choices=ACCESSES, help="access of the notes (default: restricted, or what the files state)")
    add("--llm", metavar="MODEL", help=LLM_HELP)
    add("--base-url", metavar="URL", help="address of the LLM's server, e.g. http://127.0.0.1:8000/v1")
    add("--base-model", metavar="MODEL", help="encoder that is fine-tuned (default: one that is here)")


def init(args: Namespace) -> Result | tuple[None, int]:
    """Look at a table, ask what is needed, and write the configuration; stopped with Ctrl-C or Ctrl-D is code 130."""
    try:
        return _init(args)
    except KeyboardInterrupt:
        print(f"\nhf-synth: stopped; {args.out} was not written", file=sys.stderr)
        return None, 130


def _init(args: Namespace) -> Result:
    from hf_synth.cli.checks import check_not_read
    from hf_synth.task.folders import check_output

    check_not_read(args.out, [Path(args.path)] if args.path else [])
    asked = not args.yes and at_terminal()
    ask: Ask = _ask_in_terminal if asked else _take_default
    if args.out.exists() and not (asked and _confirm(f"{args.out} is there already. Replace it?", default=False)):
        raise OutputError(f"{args.out} is there already: name another file with --out, or remove it")
    check_output(args.out, "file")
    look = _read_existing_task(args) or _read_own_table(args, ask)
    values, remarks = _make_configuration(args, ask, look)
    write_config(args.out, values, comment=_ABOUT)
    print(f"\n-> {args.out}" + ("" if asked else " (nothing was asked: check the file, above all the meanings)"))
    for remark in remarks:
        print(f"   {remark}")
    verb = "generate" if look.exported else "gold"
    elsewhere = [] if args.out == Path(CONFIG) else ["--config", str(args.out)]
    command = shlex.join(["hf-synth", verb, *elsewhere])
    if not args.quiet and not args.json:
        print(f"next: {command}")
    return {"out": str(args.out), "configuration": values, "next": command}


def at_terminal() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


# --- questions ------------------------------------------------------------------------------------------------------
Ask = Callable[[str, str], str]  # (question, default) -> answer


def _take_default(_question: str, default: str) -> str:
    """Take the default: nobody can be asked."""
    return default


def _ask_in_terminal(question: str, default: str) -> str:
    """Ask in the terminal; an empty line takes the default, the end of input stops."""
    try:
        answer = input(plain(f"{question}{f' [{default}]' if default else ''}: ")).strip()
    except EOFError:
        print()
        raise KeyboardInterrupt from None
    return answer or default


def _confirm(question: str, *, default: bool) -> bool:
    answer = _ask_in_terminal(f"{question} {'[Y/n]' if default else '[y/N]'}", "")
    return default if not answer else answer.lower() in ("y", "yes")


def _ask_choice(ask: Ask, question: str, default: str, choices: Sequence[str], *, needed: bool = True) -> str:
    """Ask until the answer is one of some names, in whatever capitals, or the number of one.

    Args:
        needed: an empty answer is asked again.
    """
    by_name = {name.casefold(): name for name in choices}
    while True:
        answer = ask(question, default)
        if answer in choices or (not answer and not needed):
            return answer
        if answer.casefold() in by_name:
            return by_name[answer.casefold()]
        if answer.isdecimal() and 1 <= int(answer) <= len(choices):
            return choices[int(answer) - 1]
        print(f"  one of: {', '.join(choices)}")


# --- the table and the task -----------------------------------------------------------------------------------------
class _Source:
    """What the configuration is made of.

    Args:
        task: the task.
        gold: options of `gold`; empty for gold that is exported already.
        rows: number of gold rows, 0 where they were not read.
        exported: the folder of gold, where it is there already.
    """

    def __init__(self, task: Task, gold: Mapping[str, Any], rows: int, exported: Path | None = None) -> None:
        self.task, self.gold, self.rows, self.exported = task, dict(gold), rows, exported


def _read_existing_task(args: Namespace) -> _Source | None:
    """Return what a folder of gold or a built-in task without files needs; None for anything else.

    Raises:
        ColumnError: the built-in task needs files.
    """
    from hf_synth.task.folders import read_manifest
    from hf_synth.task.scripts import load_task

    path = Path(args.path)
    if path.is_dir() and (read_manifest(path) or {}).get("stage") == "gold":
        manifest = read_manifest(path) or {}
        rows = manifest.get("rows") or {}
        print(
            f"{path}: gold of task {manifest.get('task')}, {', '.join(f'{n:,} {split}' for split, n in rows.items())}"
        )
        return _Source(load_task(path), {}, sum(rows.values()), path)
    if path.exists():
        return None
    try:
        task = load_task(args.path)
    except HfSynthError:
        return None
    if task.files:
        raise ColumnError(
            f"task {task.full_name!r} is read from its source: hf-synth gold {task.full_name} PATH --out "
            f"{args.work / 'gold'}, then hf-synth init {args.work / 'gold'}"
        )
    print(f"{task.full_name}: {task.description}")
    return _Source(task, {"task": task.full_name, "out": str(args.work / "gold")}, 0)


def _read_own_table(args: Namespace, ask: Ask) -> _Source:
    """Look at a table, print what is in it, and return the options of `gold` that read it.

    Raises:
        ColumnError: which column is the text or the label cannot be guessed, or there is no such column.
    """
    from hf_synth.gold.first_look import check_columns_named, find_table, first_look, warnings_collected
    from hf_synth.gold.overview import overview, overview_lines

    path = find_table(Path(args.path))
    with warnings_collected() as odd:
        columns, rows = overview(path)
    print(*overview_lines(path, columns, rows)[:-1], sep="\n")
    check_columns_named(path, columns)
    chosen = _choose_columns(args, ask, path, columns)
    name = args.name or (None if ask is _take_default else ask("name of the task", path.stem))
    access = {} if args.access is None else {"access": args.access}
    while True:  # until a person is content with the table; the answers so far stay
        look = first_look(path, **chosen, kind=args.kind, name=name, **access)
        _print_first_look(look, [*odd, *look.odd])
        if ask is _take_default or not _is_corrected(path, look):
            break
    meanings = _choose_meanings(args, ask, look.task)
    access_of = args.access or _ask_choice(ask, "access of the notes", "restricted", ACCESSES)
    gold: Result = {"task": str(path), "text-column": list(chosen["text_columns"])}
    gold |= {"label-column": chosen["label_column"], "group-column": chosen["group_column"], "name": look.task.name}
    gold |= {"kind": args.kind if args.kind != "single_label" else None, "skip-empty": bool(look.left_out) or None}
    gold |= {"meaning": [f"{label}={text}" for label, text in meanings.items()] or None}
    gold |= {"access": access_of if args.access or access_of != "restricted" else None}
    cut = look.splits and "validation" not in look.splits and look.rows >= _ENOUGH  # a single table is split anyway
    gold |= {"validation": 0.1 if cut else None}
    gold["out"] = str(args.work / "gold")
    return _Source(look.task, gold, look.rows)


def _is_corrected(path: Path, look: FirstLook) -> bool:
    """Ask whether the faults of a table are corrected now, and wait until it is saved; return whether to look again."""
    fill = bool(look.left_out) and not _confirm("Leave these rows out?", default=True)
    if fill or (look.doubtful and _confirm("Correct the labels in the table first?", default=True)):
        what = "Fill in the empty cells of" if fill else "Correct the labels of"
        before = path.stat().st_mtime_ns
        _ask_in_terminal(f"{what} {path.name}, save it, and press Enter to look at it again (Ctrl-C stops)", "")
        return path.stat().st_mtime_ns != before or not _confirm(
            f"{path.name} has not changed. Go on with it as it is?", default=True
        )
    return False


def _choose_columns(args: Namespace, ask: Ask, path: Path, columns: Sequence[Column]) -> Result:
    """Return text_columns, label_column and group_column: as named, as asked, or as guessed."""
    from hf_synth.gold.overview import guess_columns
    from hf_synth.task.columns import names_shown

    names = [column.name for column in columns]
    guess = guess_columns(columns)
    lacking = {"text": not args.text_column, "label": not args.label_column}
    doubts = {what: why for what, why in guess.doubts.items() if lacking[what]}
    if doubts and ask is _take_default:
        needed = " and ".join(f"--{what}-column" for what in doubts)
        twice = " (twice for a pair)" if "text" in doubts else ""
        raise ColumnError(
            f"{path.name}: {'; '.join(doubts.values())}: name it with {needed}{twice}; it has {names_shown(names)}"
        )
    for what, why in doubts.items():
        print(f"{what}: {why}")
    given = [*(args.text_column or ()), *filter(None, (args.label_column, args.group_column))]
    known = {name.strip().casefold(): name for name in names}
    unknown = [name for name in given if name.strip().casefold() not in known and name.lower() != "none"]
    if unknown:
        shown = names_shown(names)
        near = did_you_mean(unknown[0], [name for name in names if name in shown])
        raise ColumnError(f"{path.name} has no column {unknown[0]!r}; it has {shown}{near}")
    text = [known[name.strip().casefold()] for name in args.text_column or ()]
    text = text or [_ask_choice(ask, "column of the text", guess.text, names)]
    label = known.get((args.label_column or "").strip().casefold()) or _ask_choice(
        ask, "column of the label", "" if guess.label in text else guess.label, names
    )
    group = args.group_column
    if group is None:
        question = "column that names the patient (none: no such column)"
        group = _ask_choice(ask, question, guess.patient, [*names, "none"], needed=False)
    group = known.get(group.strip().casefold()) if group and group.lower() != "none" else None
    if label in text or group in (label, *text):
        raise ColumnError(
            "text, label and patient must be different columns: name them with --text-column, "
            "--label-column and --group-column"
        )
    words = [f"text {' and '.join(text)}", f"label {label}", f"patient {group}" if group else "no column of patients"]
    print(f"taken: {', '.join(words)}")
    return {"text_columns": text, "label_column": label, "group_column": group}


def _print_first_look(look: FirstLook, odd: Sequence[str]) -> None:
    """Print the rows of each label and what is odd."""
    from hf_synth.gold.spelling import show_label

    print(f"\n{look.rows:,} rows with a text and a label" + (f", {look.patients:,} patients" if look.patients else ""))
    width = max((len(show_label(label)) for label in look.labels), default=0)
    for label, count in look.labels.items():
        few = "  few: a model learns little of it, and less can be measured" if count < _FEW else ""
        print(f"  {show_label(label).ljust(width)}  {count:>7,}{few}")
    if look.most_rows > 1:
        print(f"  one patient has up to {look.most_rows:,} rows: all rows of a patient go to one split")
    if not look.patients:
        print("  no column names the patient: notes of one patient may be on both sides of a split (--group-column)")
    for why, count in look.left_out.items():
        rows, lack = "row" if count == 1 else "rows", why.replace("have no", "without a")
        print(f"  {count:,} {rows} {lack}: left out (--skip-empty)")
    for line in dict.fromkeys(odd):
        print(f"  odd: {line}")


def _choose_meanings(args: Namespace, ask: Ask, task: Task) -> dict[str, str]:
    """Return what the labels mean: as given, else as asked.

    Raises:
        ColumnError: a --meaning is not LABEL=TEXT, or of no label.
    """
    from hf_synth.gold.spelling import LabelNames

    names, given = LabelNames(task.labels), {}
    for text in args.meaning:
        label, equals, meaning = text.partition("=")
        found = names.find(label.strip())
        if not equals or not meaning.strip():
            raise ColumnError(f"--meaning takes LABEL=TEXT, with a label of {', '.join(task.labels) or 'the table'}")
        if found is None:
            known, near = ", ".join(task.labels) or "no labels", did_you_mean(label.strip(), task.labels)
            raise ColumnError(f"--meaning: {label.strip()!r} is no label of the table; it has {known}{near}")
        given[found] = meaning.strip()
    if ask is _ask_in_terminal and task.labels:
        print("\nWhat does each label mean? The LLM sees the meaning; an empty line leaves it out.")
    # LABEL=TEXT cannot name a label with "=" in it
    asked = {label: given.get(label) or ask(f"  {label}", "") for label in task.labels if "=" not in label}
    return {label: meaning for label, meaning in asked.items() if meaning}


# --- the configuration ----------------------------------------------------------------------------------------------
def _make_configuration(args: Namespace, ask: Ask, look: _Source) -> tuple[Result, list[str]]:
    """Return the values of the configuration, and remarks about them."""
    work, remarks = args.work, []
    gold = look.exported or work / "gold"
    llm, url, remark = _choose_llm(args, ask, look.task)
    base, base_remark = _choose_base_model(args, ask, look.task)
    remarks += [*remark, *base_remark]
    if look.task.labels and not any(look.task.label_meanings) and not look.gold.get("meaning") and look.gold:
        remarks.append("no label has a meaning: the LLM sees the names only (meaning = [...] in [gold])")
    name = look.task.name
    values: Result = {"task": str(gold), "llm": llm, "base-url": url, "base-model": base}
    values |= {"gold": look.gold} if look.gold else {}
    values["generate"] = {"out": str(work / "synthetic")}
    values["correct"] = {"synthetic": str(work / "synthetic"), "out": str(work / "corrected")}
    values["sample"] = {"synthetic": str(work / "corrected")}
    values["augment"] = {"synthetic": str(work / "corrected"), "out": str(work / "training")}
    values["train"] = {"data": str(work / "training"), "gold": str(gold), "out": str(work / "model")}
    values["evaluate"] = {"model": str(work / "model"), "out": str(work / "scores.json")}
    values["audit"] = {"synthetic": str(work / "corrected"), "out": str(work / "audit")}
    export = str(work / "export" / f"{name}-model")
    values["publish"] = {"folder": str(work / "model"), "scores": str(work / "scores.json")}
    values["publish"] |= {"repo-id": f"my-org/{name}-model", "out": export}
    values["run"] = {"out": str(work / "run")}
    values["status"] = {"folder": str(work)}
    values["doctor"] = {"llm": llm, "base-url": url, "work": str(work)}
    return values, remarks


def _choose_llm(args: Namespace, ask: Ask, task: Task) -> tuple[str, str | None, list[str]]:
    """Return the LLM, its endpoint, and a remark.

    Raises:
        LLMError: an endpoint without a model, whose models cannot be listed.
        EndpointError: the notes may not be sent to the endpoint.
    """
    from hf_synth.cli.journey import STAND_IN
    from hf_synth.cli.machine import installed_llm
    from hf_synth.llm.endpoints import check_endpoint, parse_origin
    from hf_synth.llm.gguf_files import is_gguf

    llm, url = args.llm, args.base_url
    if llm is None and url:
        raise LLMError("--base-url without --llm: name the model that the endpoint serves (hf-synth doctor lists them)")
    if llm is None:
        here = installed_llm()
        if ask is _ask_in_terminal:
            small = "smollm2 (small, runs here), " if here else ""
            print(f"\nThe LLM: {small}{SIMULATOR} (a stand-in), a .gguf file, or a model of an endpoint.")
        llm = ask("LLM", here or SIMULATOR)
        if ask is _ask_in_terminal and llm != SIMULATOR and not is_gguf(llm):
            url = ask("its endpoint", "http://127.0.0.1:8000/v1")
    access = args.access or task.access
    while url:
        try:
            check_endpoint(parse_origin(url), access)
            break
        except HfSynthError as error:
            if ask is _take_default or args.base_url:
                raise
            print(f"  {error}")
            url = ask("its endpoint", "http://127.0.0.1:8000/v1")
    if llm == SIMULATOR and not url:
        from hf_synth.task.scripts import is_artificial

        return llm, None, [] if is_artificial(task) else [f"llm = {SIMULATOR}: {STAND_IN}"]
    return llm, url, []


def _choose_base_model(args: Namespace, ask: Ask, task: Task) -> tuple[str | None, list[str]]:
    """Return the base model; None for the tiny one of the artificial clinic."""
    from hf_synth.cli.machine import installed_base_model
    from hf_synth.models.readiness import installed_models
    from hf_synth.task.scripts import is_artificial

    if args.base_model:
        return str(args.base_model), []
    if is_artificial(task):
        return None, []
    guess = installed_base_model(task)
    here = installed_models(task.kind)
    if ask is _ask_in_terminal:
        print(f"\nThe base model that is fine-tuned. Here without a network: {', '.join(here) or 'none yet'}.")
    model = ask("base model", guess)
    if model in here or Path(model).is_dir():
        return model, []
    return model, [f"base-model = {model} is not on this machine: it is fetched from the Hub (hf-synth models)"]
