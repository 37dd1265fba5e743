"""The verbs `tasks`, `gold` and `new-task`: list tasks, read gold rows, start a task of your own."""

from __future__ import annotations

import contextlib
import re
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hf_synth
from hf_synth.cli import options
from hf_synth.cli.options import ACCESSES, Result, add_task, check_access, count_text, name_value
from hf_synth.cli.task_table import task_facts, task_table
from hf_synth.errors import ColumnError, GoldError, MissingGoldError, OutputError, TaskError, did_you_mean

if TYPE_CHECKING:
    from hf_synth.task.task import Task

_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
_TOLERABLE_ERRORS = 0.05  # share of wrong labels up to which correction is advised against
_MANY_LABELS, _FEW_ROWS = 10, 5  # so many labels, most of them with fewer rows: perhaps another column was named
KINDS = ("single_label", "multi_label", "text2text")


def add_tasks_options(parser: ArgumentParser) -> None:
    """Add the options of `tasks`."""
    text = "folder or archive: show which tasks find their files in it"
    parser.add_argument("--gold", type=Path, metavar="PATH", help=text)


def tasks(args: Namespace) -> Result | None:
    """List the tasks."""
    rows = task_table() if args.gold is None else _facts_with_found(args.gold)
    if args.json:
        return {"tasks": rows}
    for name in dict.fromkeys(row["name"] for row in rows):
        _print_task([row for row in rows if row["name"] == name], args.gold is not None)
    print("own notes: hf-synth gold NOTES.csv --text-column NAME --label-column NAME --out DIR, or hf-synth new-task")
    return None


def _print_task(configs: list[Result], searched: bool) -> None:
    first = configs[0]
    print(f"{first['name']}  ({', '.join(first['suites'])}; {first['access']}; {first['license']})")
    print(f"    {first['description']}")
    by_kind: dict[str, list[str]] = {}
    for row in configs:
        by_kind.setdefault(row["kind"], []).append(row["task"])
    print("    configs  " + "; ".join(f"{', '.join(names)} ({kind})" for kind, names in by_kind.items()))
    if searched:
        present = [row["task"] for row in configs if row["found"]]
        print(f"    found    {'yes' if len(present) == len(configs) else ', '.join(present) or 'no'}")
    files = dict.fromkeys(_short_name(row, key) for row in configs for key in row["files"])
    print(f"    files    {', '.join(files) or 'none needed'}")
    if first["source_url"]:
        print(f"    from     {first['source_url']}")
    if first["unverified"]:
        print(f"    note     not verified: {first['unverified']}")
    print()


def _short_name(facts: Result, key: str) -> str:
    """Return the first of the names that a file may have."""
    names = facts["files"][key]
    first = names[0] if len(names) == 1 else f"{names[0]} (or {names[1]}{', ...' if len(names) > 2 else ''})"
    return f"[{first}]" if {key, key.split("/")[0]} & set(facts["optional"]) else first


def _facts_with_found(path: Path) -> list[Result]:
    """Return the facts of every task, with "found": whether its files are there."""
    from hf_synth.gold.sources import all_files, check_readable, find_files

    check_readable(path)
    if not path.exists():
        raise MissingGoldError(f"{path} is no folder or file")
    rows = []
    for task in hf_synth.list_tasks():
        found = not task.files
        with contextlib.suppress(GoldError):
            found = found or any(True for _ in all_files(find_files(task, path)))
        rows.append({**task_facts(task), "found": found})
    return rows


def add_gold_options(parser: ArgumentParser) -> None:
    """Add the options of `gold`."""
    add_task(parser)
    add = parser.add_argument
    add("path", type=Path, nargs="?", metavar="PATH", help="folder, archive or file of the source (`clinic` has none)")
    options.add_out(parser, "folder to write; without it the columns of a table are shown", required=False)
    text = "share of train, e.g. 0.1, that becomes the validation split; a group is never divided"
    add("--validation", type=float, metavar="SHARE", help=text)
    text = 'remove phrases from the texts that give the label away, e.g. "grade 2"'
    add("--mask-leaks", action="store_true", help=text)
    text = "an option of the task, e.g. n_train=100; may be repeated"
    add("--option", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = (
        "TASK (or PATH) is a folder of `generate` that was reviewed: notes that people labelled become gold, though "
        "they are synthetic; notes that nobody looked at go to OUT_rest"
    )
    add("--from-review", action="store_true", help=text)
    options.add_seed(parser)
    add = parser.add_argument_group("your own table: TASK is its path, or a name").add_argument
    add("--text-column", action="append", metavar="NAME", help="column of the text; give it twice for a pair of texts")
    add("--label-column", metavar="NAME", help="column of the label, or of the target text")
    add("--kind", choices=KINDS, default="single_label", help="what a label is: one, several, or a text")
    add("--labels", default="", metavar="A,B,...", help="the labels in their order (default: those of the table)")
    text = 'column whose rows stay in one split, e.g. patient_id; "none": there is no such column'
    add("--group-column", metavar="NAME", help=text)
    add("--skip-empty", action="store_true", help="leave out rows without text or label, instead of refusing the table")
    add("--name", metavar="NAME", help="name of the task, as the LLM sees it (default: that of the file)")
    add(
        "--meaning", action="append", default=[], metavar="LABEL=TEXT",
        help="what a label means, as the LLM sees it; may be repeated",
    )  # fmt: skip
    add("--language", metavar="CODE", help="language of the notes, an ISO 639 code such as en, for the cards")
    add("--access", choices=ACCESSES, help="access of the notes (default: restricted, or what the files state)")


def gold(args: Namespace) -> Result | tuple[Result, int]:
    """Read gold and write it as an exported folder; of a table whose columns are not named, show them."""
    from hf_synth.cli.checks import check_not_read
    from hf_synth.gold.gold import label_counts
    from hf_synth.gold.overview import is_own_table
    from hf_synth.task.columns import access_of, strictest
    from hf_synth.task.folders import check_output, write_stage
    from hf_synth.task.labels import gold_marks, rows_and_texts, texts_with_several_labels

    if args.from_review:
        return _from_review(args)
    table = args.path or Path(args.task)
    named = args.text_column or args.label_column
    if (
        (named or args.path is None)
        and not (table.is_dir() and _is_task(args.task))
        and is_own_table(table)
        and not (args.text_column and args.label_column and args.out)
    ):
        return _overview(args, table)
    if table.suffix.lower() in _TABLES and not table.exists():
        near = did_you_mean(table.name, [file.name for file in table.parent.glob("*.*")])
        raise MissingGoldError(f"{table} is no file{near}")
    if args.out is None:
        raise OutputError("name the folder to write: --out DIR")
    check_output(args.out)
    check_not_read(args.out, [table])
    task, path = _own_task(args) if args.label_column else (_task(args), args.path)
    fields = dict(map(name_value, args.option)) | ({"skip_empty": True} if args.skip_empty else {})
    how = {"seed": args.seed, "mask_leaks": args.mask_leaks, "validation": args.validation}
    splits = hf_synth.load_gold(task, path, **how, **fields)
    for part in splits.values():
        check_access(args.access, part, path or Path(args.task))
    task = replace(task, access=strictest(task.access, *map(access_of, splits.values()))) if args.label_column else task
    facts = {} if args.validation is None else {"validation_share": args.validation}
    write_stage(task, splits, args.out, stage="gold", seed=args.seed, **facts)
    rows = {split: len(part) for split, part in splits.items()}
    counts = label_counts(task, splits)
    _print_labels(task, counts, list(rows))
    print(f"{task.full_name}: {count_text(rows)} -> {args.out} (access: {task.access})")
    texts = {split: len(gold_marks(task, part)) for split, part in splits.items()}
    if repeats := [f"{split} {rows_and_texts(rows[split], n)}" for split, n in texts.items() if n != rows[split]]:
        print(f"some texts come several times: {'; '.join(repeats)}")
        if task.kind == "single_label" and (n := texts_with_several_labels(task, splits.values())):
            have = "has" if n == 1 else "have"
            print(f"{n:,} of these texts {have} different labels in different rows: decide on one label in the table")
    return {"task": task.full_name, "rows": rows, "labels": counts, "out": str(args.out), "access": task.access}


def _from_review(args: Namespace) -> Result:
    """Write the notes that people labelled as gold, and the others beside them."""
    from hf_synth.cli.checks import check_not_read
    from hf_synth.generation.claims import REVIEWED_CLAIM
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.gold.gold import label_counts
    from hf_synth.review.reviewed import reviewed_gold
    from hf_synth.task.folders import check_output, read_manifest, write_stage

    folder = args.path or Path(args.task)
    if not folder.is_dir() or read_manifest(folder) is None:
        raise MissingGoldError(f"{folder} is no folder that `generate` wrote: name the one that was reviewed")
    if others := [name for name in ("label_column", "text_column", "validation") if getattr(args, name)]:
        raise ColumnError(f"--from-review reads a folder of `generate`: leave out {others[0].replace('_', '-')}")
    if args.out is None:
        raise OutputError("name the folder to write: --out DIR")
    rest = args.out.with_name(f"{args.out.name}_rest")
    for out in (args.out, rest):
        check_output(out)
        check_not_read(out, [folder])
        if folder.resolve() in out.resolve().parents:
            raise OutputError(f"--out {args.out} lies in {folder}, which is read here: name another one")
    task, facts = hf_synth.load_task(args.task), read_manifest(folder) or {}
    if facts.get("task") != task.full_name:
        raise TaskError(f"{folder} is of task {facts.get('task')!r}, not {task.full_name!r}: name that task")
    found = reviewed_gold(task, folder, read_dataset(folder), seed=args.seed)
    check_access(args.access, found.gold["train"], folder)
    kept = {name: facts[name] for name in ("generator", "prompt", "no_gold", "seed") if name in facts}
    write_stage(task, found.rest, rest, stage="generate", without_reviewed=True, **kept)
    rows = {split: len(part) for split, part in found.gold.items()}
    few = found.wrong <= _TOLERABLE_ERRORS * sum(rows.values())
    figures = {"wrong": found.wrong, "rejected": found.rejected, "open": found.open, "few_wrong": few}
    write_stage(task, found.gold, args.out, stage="gold", seed=args.seed, from_review={**figures, **kept})
    counts = label_counts(task, found.gold)
    _print_labels(task, counts, list(rows))
    outside = {"rejected": found.rejected, "without an agreed label": found.open, "not in the folder": found.unknown}
    left = ", ".join(f"{n:,} {words}" for words, n in outside.items() if n)
    print(
        f"{task.full_name}: {count_text(rows)} of notes that people labelled -> {args.out}; {found.wrong:,} of "
        f"{sum(rows.values()):,} labels were not those that the LLM was asked for{left and '; left out: ' + left}"
    )
    print(f"{len(found.rest):,} rows that nobody looked at -> {rest}")
    if few:
        print("few labels are wrong: a corrector trained on so few notes can do more harm than good (--method none)")
    print(f"what may be claimed: {REVIEWED_CLAIM}")
    return {
        "task": task.full_name,
        "rows": rows,
        "labels": counts,
        "out": str(args.out),
        "rest": str(rest),
        **figures,
    }


def _is_task(name: str) -> bool:
    try:
        return bool(hf_synth.load_task(name))
    except TaskError:
        return False


def _task(args: Namespace) -> Task:
    """Load the task that is named."""
    if args.name or args.meaning or args.skip_empty or args.language:
        raise ColumnError(
            "--name, --meaning, --language and --skip-empty are for a table of your own: name its --label-column too"
        )
    return hf_synth.load_task(args.task)


def _overview(args: Namespace, path: Path) -> tuple[Result, int]:
    """Print the columns of a table and the command that reads it."""
    from hf_synth.gold.overview import command, overview, overview_lines

    columns, rows = overview(path)
    lacking = [
        f"--{name.replace('_', '-')}" for name in ("text_column", "label_column", "out") if not getattr(args, name)
    ]
    print(*overview_lines(path, columns, rows), sep="\n")
    print(f"hf-synth: {path.name} is a table: name {' and '.join(lacking)}", file=sys.stderr)
    facts = [{"name": c.name, "filled": c.filled, "values": c.values, "guess": c.guess} for c in columns]
    return {"columns": facts, "rows": rows, "command": command(path, columns)}, 1


def _print_labels(task: Task, counts: dict[str, dict[str, int]], splits: list[str]) -> None:
    """Print a table label x split; a label that train lacks is reported."""
    if not task.labels:
        return
    table = [("label", *splits), *((label, *(f"{n:,}" for n in row.values())) for label, row in counts.items())]
    widths = [max(len(line[i]) for line in table) for i in range(len(splits) + 1)]
    for label, *numbers in table:
        cells = [label.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True))]
        print("  " + "  ".join(cells))
    few = sum(sum(row.values()) < _FEW_ROWS for row in counts.values())
    if task.kind == "single_label" and len(counts) >= _MANY_LABELS and few > len(counts) / 2:
        print(f"{few} of {len(counts)} labels have fewer than {_FEW_ROWS} rows: is {task.label_column!r} the label?")
    absent = [label for label, row in counts.items() if "train" in row and not row["train"]]
    if absent:
        print(f"no row of train has the label {', '.join(absent)}: a model cannot learn it")


def _own_task(args: Namespace) -> tuple[Task, Path]:
    """Make a task from the columns of a table: `gold TABLE --text-column ... --label-column ...`."""
    from hf_synth.gold.own_table import task_from_table
    from hf_synth.task.task import LANGUAGE

    path = args.path or Path(args.task)
    if not args.text_column:
        raise ColumnError("name the column of the text too: --text-column NAME (twice for a pair)")
    if not path.exists():
        raise MissingGoldError(f"{path} is no folder or file")
    fields: Result = {name: getattr(args, name) for name in ("label_column", "group_column", "kind")}
    if (args.group_column or "").lower() == "none":  # as of `init`
        fields["group_column"] = None
    fields["access"] = args.access or "restricted"
    fields |= {"labels": [label.strip() for label in args.labels.split(",") if label.strip()]}
    fields |= {"meanings": dict(map(_meaning, args.meaning)), "skip_empty": args.skip_empty}
    name = args.name or (args.task if args.path else None)
    if args.language and not LANGUAGE.fullmatch(args.language):
        raise TaskError(
            f"--language takes an ISO 639 code of two or three small letters, such as en; got {args.language!r}"
        )
    task = task_from_table(path, name=name, text_columns=args.text_column, **fields)
    return replace(task, language=args.language or ""), path


def _meaning(text: str) -> tuple[str, str]:
    label, equals, meaning = text.partition("=")
    if not (label.strip() and equals and meaning.strip()):
        raise ColumnError("--meaning takes LABEL=TEXT, for example --meaning 'urgent=a nurse must call back today'")
    return label.strip(), meaning.strip()


def add_new_task_options(parser: ArgumentParser) -> None:
    """Add the options of `new-task`."""
    parser.add_argument("name", metavar="NAME", help="name of the task: lower case letters, digits and _")
    text = "folder for the two files (default: the current one)"
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help=text)


def new_task(args: Namespace) -> Result:
    """Write a commented task script to fill in, and its test."""
    from hf_synth.gold.new_task import starter_files
    from hf_synth.task.folders import clear_disk_errors

    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        raise TaskError(f"{args.name!r} is no name for a task: lower case letters, digits and _, a letter first")
    files = {args.out / name: text for name, text in starter_files(args.name).items()}
    for path in files:
        if path.exists():
            raise OutputError(f"{path} is there already; choose another name, or --out DIR")
    with clear_disk_errors(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    script, test = map(str, files)
    print(f"{script}: fill it in; hf-synth gold {script} NOTES.csv --out DIR reads your notes with it")
    print(f"{test}: its test; run it with pytest")
    return {"script": script, "test": test}
