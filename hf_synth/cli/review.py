"""The verb `review`: people look at synthetic notes in a browser on this machine; or label a realism sheet."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hf_synth
from hf_synth.cli import options
from hf_synth.cli.checks import check_verb
from hf_synth.cli.labelling import add_audit, audit_hint, without_withheld
from hf_synth.cli.options import Result
from hf_synth.cli.parsing import exclude
from hf_synth.errors import ColumnError, MissingGoldError, OutputError, TaskError

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.review.promise_sheet import PromiseSheet
    from hf_synth.review.realism import RealismSheet
    from hf_synth.review.session import Session, Shown
    from hf_synth.review.sheets import SampleSheet
    from hf_synth.task.task import Task

_NOTES_PER_LABEL = 25  # notes of each label where nothing else is asked for
_REALISM_NOTES = 40  # notes of a realism sheet
_SHEET, _REALISM_SHEET = "sheet.json", "realism_sheet.json"


def add_review_options(parser: ArgumentParser) -> None:
    """Add the options of `review`."""
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of `generate` or `correct`; the review is kept in it")
    add("--reviewer", default="reviewer 1", metavar="NAME", help="who decides; each reviewer has a file of their own")
    add("--show-llm", action="store_true", help="show the label that a note has before the answer (default: after it)")
    add("--blind", action="store_true", help="never show the label that a note has")
    add("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: any free one)")
    add("--export", action="store_true", help="only write the table of all decisions so far")
    add("--task", metavar="TASK", help="task of the notes, where the folder does not name it")
    add = parser.add_argument_group("which notes (default: 25 of each label)").add_argument
    add("--per-label", type=int, metavar="N", help="N of each label")
    add("--n", type=int, metavar="N", help="N notes in all, drawn as `sample` draws them")
    text = "strata of --n: label, confidence, both, none (default: label)"
    add("--by", nargs="*", choices=("label", "confidence"), metavar="WHAT", help=text)
    text = "as many as are needed to promise that at most this share of all labels is wrong, as `correct --error` does"
    add("--error", type=float, metavar="E", help=text)
    add("--confidence", type=float, metavar="P", help="with --error: confidence of that promise (default: 0.95)")
    add_audit(parser)
    add = parser.add_argument_group("how real notes look").add_argument
    add("--realism", action="store_true", help="rate synthetic notes mixed with open gold, instead of labelling them")
    add("--gold", type=Path, metavar="PATH", help="raw or exported open gold for --realism (none for `clinic`)")
    options.add_seed(parser)
    exclude(parser, "--show-llm", "--blind")
    exclude(parser, "--per-label", "--n", "--error")  # each says which notes are reviewed
    exclude(parser, "--per-label", "--error", "--realism")  # --n may also be of a realism sheet
    for name in ("--per-label", "--error"):
        exclude(parser, "--by", name)
    for name in ("--n", "--per-label", "--realism"):
        exclude(parser, "--confidence", name)
    for name in ("--error", "--realism"):
        exclude(parser, "--audit", name)


def review(args: Namespace) -> Result:
    """Serve the review page until interrupted; or with --export write the table of what was decided."""
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.review.session import Session, is_begun
    from hf_synth.task.labels import check_columns

    if not args.folder.is_dir():
        raise MissingGoldError(f"{args.folder} is no folder: name one that `generate` or `correct` wrote")
    task = hf_synth.load_task(args.task or args.folder)
    _check(args)
    if task.kind != "single_label" and not args.realism:
        raise TaskError(f"task {task.full_name!r} is {task.kind}: audited labels serve single_label tasks only")
    check_verb(task, args)
    kind = "realism" if args.realism else "labels"
    if args.export and not is_begun(args.folder, kind):
        print(f"no note of {args.folder} was reviewed")
        return {"folder": str(args.folder), "file": None}
    rows = read_dataset(args.folder)
    check_columns(task, rows, "id", "llm_label", "label_status", what=str(args.folder))
    sheet = _realism_sheet(task, rows, args) if args.realism else _label_sheet(task, rows, args)
    shows: Shown = "never" if args.blind else "before" if args.show_llm else "after"
    session = Session(task, args.folder, sheet, args.reviewer, shows, writes=not args.export)
    try:
        return _export(session, args) if args.export else _serve(session, args)
    finally:
        session.close()


def _check(args: Namespace) -> None:
    """Check that the options do not contradict each other."""
    if args.blind and args.show_llm:
        raise ColumnError(
            "--blind and --show-llm exclude each other: the first never shows the LLM's label, "
            "the second shows it before the answer"
        )
    ways = {
        "--per-label": args.per_label is not None,
        "--n": args.n is not None and not args.realism,
        "--error": args.error is not None,
        "--realism": args.realism,
    }
    if len(given := [name for name, is_given in ways.items() if is_given]) > 1:
        raise ColumnError(f"{given[0]} and {given[1]} exclude each other: each says which notes are reviewed")
    if args.by is not None and args.n is None:
        raise ColumnError("--by names the strata of --n: give both, or --per-label")
    if args.audit is not None and (args.error is not None or args.realism):
        raise ColumnError("--audit leaves notes out of a sample of labels, and excludes --error and --realism")
    if args.confidence is not None and args.error is None:
        raise ColumnError("--confidence belongs to --error: give both")


def _label_sheet(task: Task, rows: Dataset, args: Namespace) -> SampleSheet | PromiseSheet:
    """Return the notes to label: those of the promise or the sample under way, or a new one."""
    from hf_synth.review.promise_sheet import begin_promise, load_promise, read_promise
    from hf_synth.review.session import review_folder
    from hf_synth.review.sheets import draw_sheet, drawable, load_sheet, save_sheet
    from hf_synth.review.spread import draw_spread
    from hf_synth.task.folders import read_manifest

    promise = read_promise(args.folder)
    if args.error is not None:
        wanted = args.error, 0.95 if args.confidence is None else args.confidence
        if promise is None:
            begin_promise(task, args.folder, rows, error=wanted[0], confidence=wanted[1], seed=args.seed)
            promise = read_promise(args.folder) or {}
        elif (promise["error"], promise["confidence"]) != wanted:
            raise OutputError(
                f"{args.folder} holds a promise of --error {promise['error']} --confidence {promise['confidence']}, "
                "which cannot change after its sample was drawn: give the same"
            )
    asked = args.n is not None or args.per_label is not None
    if promise is not None and not asked and args.audit is None:
        return load_promise(task, rows, promise)
    file = review_folder(args.folder) / _SHEET
    if file.is_file():
        sheet = load_sheet(task, rows, file)
        if asked and (wanted_n := _wanted(task, rows, args)) != (sheet.settings["n"], sheet.settings["by"]):
            raise OutputError(
                f"{args.folder} holds a sample of {sheet.settings['n']} notes by {_by(sheet.settings['by'])}, not of "
                f"{wanted_n[0]} by {_by(wanted_n[1])}: leave the options out to go on with it, or move {file} away to "
                "draw another one; decisions are kept by row id"
            )
        if args.audit is not None and sheet.settings.get("audit") != str(args.audit):
            raise OutputError(
                f"{args.folder} holds a sample that was drawn without the audit in {args.audit}: leave --audit out to "
                f"go on with it, or move {file} away to draw another one; decisions are kept by row id"
            )
        return sheet
    if args.audit is not None:
        left = without_withheld(rows, args.audit)
        n, by = _wanted(task, left, args)
        drawn = draw_sheet(task, left, n, by=by, seed=args.seed)
        drawn = replace(drawn, of=drawable(rows), settings={**drawn.settings, "audit": str(args.audit)})
        save_sheet(task, drawn, file)
        return drawn
    n, by = _wanted(task, rows, args)
    manifest = read_manifest(args.folder) or {}
    if manifest.get("no_gold") is True and args.n is not None and args.by is None:
        drawn = draw_spread(task, rows, n, manifest, seed=args.seed)
        covered, values = drawn.settings["covered"], drawn.settings["to_cover"]
        options.progress_of(args)(
            f"{n:,} notes: {covered:,} of {values:,} labels, facts, attributes and prompts that were asked for are "
            "among them; the others are drawn at random (docs/zero_gold.md)"
        )
    else:
        drawn = draw_sheet(task, rows, n, by=by, seed=args.seed)
    save_sheet(task, drawn, file)
    if hint := audit_hint(args.folder, drawn.items, None):
        print(hint)
    return drawn


def _wanted(task: Task, rows: Dataset, args: Namespace) -> tuple[int, list[str]]:
    """Return the size of the sample and its strata."""
    from hf_synth.review.sheets import sizes_per_label

    if args.n is not None:
        return args.n, sorted(["label"] if args.by is None else set(args.by))
    return sizes_per_label(task, rows, _NOTES_PER_LABEL if args.per_label is None else args.per_label), ["label"]


def _by(names: list[str]) -> str:
    return " and ".join(names) or "nothing"


def _realism_sheet(task: Task, rows: Dataset, args: Namespace) -> RealismSheet:
    """Return the notes to rate: those of before, or newly drawn ones."""
    from hf_synth.review.realism import draw_realism, load_realism, save_realism
    from hf_synth.review.session import review_folder

    file = review_folder(args.folder) / _REALISM_SHEET
    if file.is_file():
        sheet = load_realism(task, file)
        if args.n is not None and args.n != len(sheet.items):
            raise OutputError(
                f"{args.folder} holds a realism sheet of {len(sheet.items)} notes, not of {args.n}: leave --n out to "
                f"go on with it, or move {file} and the folder realism next to it away to start again"
            )
        return sheet
    args.task = args.task or str(args.folder)
    gold = options.split_of(options.gold_of(task, args), "train")
    sheet = draw_realism(task, rows, gold, args.n or _REALISM_NOTES, seed=args.seed)
    save_realism(task, sheet, file)
    return sheet


def _serve(session: Session, args: Namespace) -> Result:
    """Serve the page until interrupted, then write the table."""
    from hf_synth.review.app import Review, serve

    say = options.progress_of(args)
    if session.repaired:
        say(f"the last line of {session.reviewer}'s decisions was cut off while it was written, and was removed")
    before = session.view()
    say(f"{args.folder} as {session.reviewer}: {before.answered:,} of {before.asked:,} notes answered")
    if before.ahead:
        print(before.ahead)
    import scipy.stats  # noqa: F401 - the first estimate would wait seconds for it

    hint = "this machine only; Ctrl-C ends the review, the same command goes on"
    serve(Review(session, _command(session, args)), port=args.port, say=lambda url: print(f"open ({hint}): {url}"))
    return _export(session, args)


def _export(session: Session, args: Namespace) -> Result:
    """Write the table, and print what was decided and what comes next."""
    if not any(d.answers for d in session.reviewers().values()):
        print(f"no note of {args.folder} was reviewed")
        return {"folder": str(args.folder), "file": None, **session.summary}
    file, facts = session.export(), session.summary
    people = ", ".join(session.reviewers())
    print(f"\n{facts['reviewed']:,} of {facts['asked']:,} notes reviewed by {people} -> {file}")
    if session.kind == "labels":
        for line in session.findings():
            print(line)
        print(f"then: {_command(session, args)}")
    return {"folder": str(args.folder), "file": str(file), **facts}


def _command(session: Session, args: Namespace) -> str:
    """Return the command that takes the labels; empty for a realism sheet."""
    from hf_synth.cli.journey import audited_correction, known_in
    from hf_synth.cli.stages import stage_at
    from hf_synth.cli.ways import gold_of_review, is_without_gold
    from hf_synth.review.promise_sheet import PromiseSheet

    if session.kind == "realism":
        return ""
    task = args.task or (session.task.full_name if session.task.script else str(args.folder))
    folder, file = shlex.quote(str(args.folder)), shlex.quote(str(session.table))
    if isinstance(session.sheet, PromiseSheet):
        sample = session.sheet.sample
        goal = f"--error {sample.error} --confidence {sample.confidence}"
        return f"hf-synth correct {shlex.quote(task)} {folder} --out {folder} {goal} --audited {file}"
    if (stage := stage_at(args.folder)) is not None and is_without_gold(stage):
        return shlex.join(gold_of_review(stage.path, known_in(stage.path.parent, task, [stage])))
    words = audited_correction(task, args.folder, session.table)
    return shlex.join(words) if words else f"hf-synth correct {shlex.quote(task)} {folder} --audited {file}"
