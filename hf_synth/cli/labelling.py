"""The verbs `sample` and `label`: notes for a person to label, and notes that an LLM labels."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import hf_synth
from hf_synth.cli import cluster, llms, options
from hf_synth.cli.checks import check_verb
from hf_synth.cli.correction import write_table
from hf_synth.cli.options import ACCESSES, Result
from hf_synth.cli.stopping import keeping_answers
from hf_synth.errors import ColumnError, OutputError
from hf_synth.task.columns import names_shown

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.task.task import Task


def add_sample_options(parser: ArgumentParser) -> None:
    """Add the options of `sample`."""
    options.add_task(parser)
    add = parser.add_argument
    add("synthetic", type=Path, metavar="SYNTHETIC", help="folder of `generate` or `correct`, or a file")
    options.add_columns(parser)
    add("--n", type=int, default=100, metavar="N", help="how many notes to draw (default: 100)")
    strata, text = (
        ("label", "confidence"),
        "draw equally many of each label, of each range of confidence, or of both; without a word: of all together",
    )
    add("--by", nargs="*", choices=strata, default=["label"], metavar="WHAT", help=text)
    add("--out", type=Path, metavar="FILE", help="the .csv to write (default: in .hf_synth/ of the folder)")
    add_audit(parser)
    options.add_seed(parser)


def add_audit(parser: ArgumentParser) -> None:
    """Add the audit whose findings count when notes are drawn."""
    text = "folder of `audit --out`: draw no notes that it withholds (default: all notes are drawn from)"
    parser.add_argument("--audit", type=Path, metavar="DIR", help=text)


def without_withheld(rows: Dataset, audit: Path) -> Dataset:
    """Return the notes that an audit does not withhold."""
    from hf_synth.review.known import withheld_ids

    refused = withheld_ids(audit)
    left = [i for i, id in enumerate(rows["id"][:]) if str(id) not in refused]
    if not left:
        raise ColumnError(f"the audit in {audit} withholds every note: leave --audit out to draw from all of them")
    return rows.select(left)


def audit_hint(notes: Path, drawn: Iterable[str], audit: Path | None) -> str:
    """Return that an audit beside the notes withholds some of those that are drawn; "" where none does.

    Args:
        audit: that was used to draw them; None for none.
    """
    from hf_synth.review.known import audit_beside, withheld_ids

    found = None if audit is not None else audit_beside(notes)
    n = len(withheld_ids(found) & set(map(str, drawn))) if found is not None else 0
    return f"{n:,} of them may not leave by the audit in {found}: --audit {found} draws from the others" if n else ""


def sample(args: Namespace) -> Result:
    """Draw synthetic notes for a person to label."""
    from hf_synth.cli.stages import stage_at
    from hf_synth.correction.audited import audit_sample
    from hf_synth.review.known import decided
    from hf_synth.task.folders import work_folder

    task = hf_synth.load_task(args.task)
    check_verb(task, args, out="file")
    beside = args.synthetic if args.synthetic.is_dir() else args.synthetic.parent
    every = options.synthetic_rows(task, args)
    pool = every if args.audit is None else without_withheld(every, args.audit)
    rows = audit_sample(task, pool, args.n, by=args.by, seed=args.seed)
    path = args.out or work_folder(beside) / "audit_sample.csv"
    if path.exists():
        raise OutputError(f"{path} is there already, and may hold labels that a person gave; name another with --out")
    known = decided(task, beside, every, list(rows["id"])) if args.synthetic.is_dir() else {}
    write_table(_with_decisions(rows, known), path)
    strata = Counter(rows["stratum"][:])
    print(f"{len(rows):,} notes of {len(strata)} strata -> {path}")
    if known:
        print(f"{len(known):,} of them have been decided on before, and are filled in")
    if hint := audit_hint(beside, rows["id"], args.audit):
        print(hint)
    print(f"fill in its column label, one of: {', '.join(task.labels)}")
    if stage_at(args.synthetic) is None or args.quiet:  # of a stage the next command is whole
        print(f"then: hf-synth correct {args.task} {args.synthetic} --audited {path} ...")
    return {"out": str(path), "rows": len(rows), "strata": dict(strata), "known": len(known)}


def _with_decisions(rows: Dataset, known: Mapping[str, tuple[str, str]]) -> Dataset:
    """Fill in what people decided before; the design of the sample does not change.

    Args:
        known: (decision, label) by row id.
    """
    from hf_synth.correction.audited import DECISION, UNUSABLE

    if not known:
        return rows
    of = [known.get(str(id), ("", "")) for id in rows["id"]]
    filled = rows.remove_columns("label").add_column("label", [label for _, label in of])
    filled = filled.select_columns(rows.column_names)
    if any(do == UNUSABLE for do, _ in of):
        filled = filled.add_column(DECISION, [do for do, _ in of])
    return filled


def add_label_options(parser: ArgumentParser) -> None:
    """Add the options of `label`."""
    options.add_task(parser)
    add = parser.add_argument
    text = "notes to label: a folder of Datasets or a .parquet, .jsonl or .csv file; with --gold the gold"
    add("notes", type=Path, nargs="?", metavar="NOTES", help=text)
    add("--gold", action="store_true", help="NOTES are gold: keep its labels, and add the LLM's in another column")
    text = "keep the labels that the rows have, and write this LLM's into the column llm_label_NAME"
    add("--as", dest="annotator", default="", metavar="NAME", help=text)
    add("--llm", required=True, metavar="MODEL", help=f"{options.LLM_HELP} (which cannot judge)")
    text = "column of the text, where it has another name than in the task; twice for a pair"
    add("--text-column", action="append", metavar="NAME", help=text)
    add("--access", choices=ACCESSES, help="access of notes that do not state one (default: credentialed)")
    options.add_out(parser, "folder for the labelled notes")
    options.add_seed(parser)
    options.add_votes(parser)
    cluster.add_machines(parser)
    options.add_endpoint(parser)


def label(args: Namespace) -> Result:
    """Label real notes without a label by an LLM, or add an LLM's labels to gold and other rows."""
    from hf_synth.correction.judging import label_with_judge
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import write_stage

    spread = cluster.check_machines(args, gold=args.gold, **{"as": bool(args.annotator)})
    task = hf_synth.load_task(args.task)
    check_verb(task, args)
    if args.gold:
        return _label_gold(task, args)
    if args.notes is None:
        raise ColumnError("name the notes to label: a folder of Datasets, or a .parquet, .jsonl or .csv file")
    if args.annotator:
        return _label_beside(task, args)
    notes = read_dataset(args.notes)
    options.check_access(args.access, notes, args.notes)
    columns = tuple(args.text_column or task.text_columns)
    if len(columns) != len(task.text_columns) or not set(columns) <= set(notes.column_names):
        raise ColumnError(
            f"task {task.full_name!r} has text columns {list(task.text_columns)}, the notes have "
            f"{names_shown(notes.column_names, *task.text_columns)}: name them in that order with --text-column"
        )
    renamed = {old: new for old, new in zip(columns, task.text_columns, strict=True) if old != new}
    notes = notes.remove_columns([n for n in renamed.values() if n in notes.column_names]).rename_columns(renamed)
    beside = args.notes if args.notes.is_dir() else args.notes.parent
    with keeping_answers(args, beside), llms.judge_of(task, args, args.llm, beside) as judge:
        given = None
        if spread:
            from hf_synth.cluster.stages import label_work, votes

            work = label_work(judge, notes, access=args.access, **cluster.how_of(args))
            if (part := cluster.computed(args, work)) is not None:
                return part
            given = votes(judge, work)
        rows = label_with_judge(judge, notes, access=args.access, votes=given)
        figures = judge.figures
    weights = llms.weights_facts(judge.llm)
    write_stage(task, rows, args.out, stage="label", seed=args.seed, **figures, **weights)
    if spread:
        cluster.clear(args, work)
    statuses = Counter(rows["label_status"][:])
    print(f"{statuses['kept']:,} notes labelled, {statuses['dropped']:,} without a vote -> {args.out}")
    print("real notes with an LLM's labels: they are never published, and nothing can be measured on them")
    return {"out": str(args.out), "rows": statuses["kept"], "without_vote": statuses["dropped"], **figures}


def _label_gold(task: Task, args: Namespace) -> Result:
    """Add an LLM's labels to gold, in every split, and write the gold with them."""
    from datasets import DatasetDict

    from hf_synth.correction.annotations import annotate
    from hf_synth.task.folders import read_manifest, write_stage

    exported = (read_manifest(Path(args.task)) or {}).get("stage") == "gold"
    path = Path(args.task) if args.notes is None and exported else args.notes
    splits = hf_synth.load_gold(task, path, seed=args.seed)
    beside = path or args.out.parent
    with keeping_answers(args, beside), llms.judge_of(task, args, args.llm, beside) as judge:
        done = {s: annotate(judge, rows, name=args.annotator, access=args.access) for s, rows in splits.items()}
        figures = judge.figures
    facts = {"seed": args.seed} if path is None else _facts_of(path) or {"seed": args.seed}
    write_stage(task, DatasetDict(done), args.out, stage="gold", **facts)
    right, known = map(
        sum, zip(*(_count_agreements(task, rows, args.annotator) for rows in done.values()), strict=True)
    )
    print(f"{args.llm} labelled {known:,} gold rows, {right:,} of them as gold does -> {args.out}")
    return {"out": str(args.out), "rows": known, "right": right, **figures}


def _label_beside(task: Task, args: Namespace) -> Result:
    """Add the labels of a further LLM to rows, which keep their stage and columns."""
    from hf_synth.correction.annotations import annotate, columns_of
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import read_manifest, write_stage

    folder = args.notes.is_dir()
    stage = ((read_manifest(args.notes) if folder else None) or {}).get("stage", "label")
    if stage == "gold":
        raise ColumnError(f"{args.notes} holds gold: add --gold, so that every split is labelled")
    rows = read_dataset(args.notes)
    beside = args.notes if folder else args.notes.parent
    with keeping_answers(args, beside), llms.judge_of(task, args, args.llm, beside) as judge:
        rows = annotate(judge, rows, name=args.annotator, access=args.access)
        figures = judge.figures
    write_stage(task, rows, args.out, stage=stage, **(_facts_of(args.notes) if folder else {}))
    column = columns_of(args.annotator)[0]
    known = sum(value is not None for value in rows[column][:])
    print(f"{args.llm} labelled {known:,} of {len(rows):,} rows in column {column} -> {args.out}")
    return {"out": str(args.out), "rows": known, **figures}


def _facts_of(folder: Path) -> Result:
    """Return what a folder's manifest says, without the facts that `write_stage` writes again."""
    from hf_synth.task.folders import read_manifest

    anew = ("stage", "task", "task_version", "access", "definition", "rows")
    return {name: fact for name, fact in (read_manifest(folder) or {}).items() if name not in anew}


def _count_agreements(task: Task, rows: Dataset, annotator: str) -> tuple[int, int]:
    """Count the gold rows that an LLM labelled as gold does, and those that it labelled."""
    from hf_synth.correction.annotations import columns_of

    pairs = zip(rows[columns_of(annotator)[0]][:], rows[task.label_column][:], strict=True)
    known = [theirs == own for theirs, own in pairs if theirs is not None]
    return sum(known), len(known)
