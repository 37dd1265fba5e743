"""The verbs `audit` and `publish`: check notes and models, and publish them.

Nothing that is printed or written holds text of a note: counts, row numbers, and in findings.parquet the ids of rows.
The one exception is `audit --show`, which prints words of refused rows in a terminal.
"""

from __future__ import annotations

import importlib
import json
import re
import runpy
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hf_synth
from hf_synth.cli import cluster, options
from hf_synth.cli.checks import check_verb
from hf_synth.cli.options import Result
from hf_synth.cli.scores import scores_of_model, scores_of_rows
from hf_synth.cli.stopping import on_stop
from hf_synth.cli.terminal import plain
from hf_synth.errors import GoldError, HfSynthError, TaskError, UsageError
from hf_synth.reports.progress import paused

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.privacy.findings import Findings
    from hf_synth.publishing.gate import Verdict
    from hf_synth.reports.page import Section
    from hf_synth.task.task import Task


def add_audit_options(parser: ArgumentParser) -> None:
    """Add the options of `audit`."""
    options.add_task(parser)
    add = parser.add_argument
    add("synthetic", type=Path, metavar="SYNTHETIC", help="folder of `generate` or `correct`, or a file")
    text = "the gold to compare with; without it no copy is found (default: TASK, where it holds gold)"
    add("--gold", type=Path, metavar="PATH", help=text)
    text = "gold split that neither LLM nor model saw, as the control (default: test)"
    add("--split-held-out", metavar="SPLIT", help=text)
    add("--model", metavar="MODEL", help="also test whether this model reveals the gold rows that it was trained on")
    _add_detectors(parser)
    options.add_seed(parser)
    text = "show the words of refused rows; works in a terminal only, and writes them to no file"
    add("--show", action="store_true", help=text)
    text = "folder for audit.json, .md, .html and findings.parquet (default: nothing is written)"
    add("--out", type=Path, metavar="DIR", help=text)
    cluster.add_machines(parser)


def _add_detectors(parser: ArgumentParser) -> None:
    """Add planted phrases and a finder of identifiers of the user's own."""
    text = "phrases that were planted in the gold before it was used: a file that `Canaries.save` wrote"
    parser.add_argument("--canaries", type=Path, metavar="FILE", help=text)
    text = "a function of yours that finds identifiers: it takes a text and returns the kinds found in it"
    parser.add_argument("--find-identifiers", metavar="FILE.py:FUNCTION", help=text)


def audit(args: Namespace) -> tuple[Result, int]:
    """Audit synthetic rows; refused rows are exit code 1.

    Raises:
        GoldError: the gold has no such split, or there is no control for a model.
        HfSynthError: words of rows are to be shown where stdout is no terminal.
    """
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.privacy.membership import membership
    from hf_synth.publishing.export import with_exported_target
    from hf_synth.publishing.looking import why_nothing_is_left
    from hf_synth.reports.realism import read_realism, realism_section
    from hf_synth.task.folders import read_manifest
    from hf_synth.task.labels import column_of

    if args.show and not sys.stdout.isatty():
        raise HfSynthError(
            "--show prints words of notes and works in a terminal only; without it, counts and row numbers are printed"
        )
    spread = cluster.check_machines(args, show=args.show)
    task = hf_synth.load_task(args.task)
    check_verb(task, args, models=[args.model] if args.model else [])
    rows = with_exported_target(task, read_dataset(args.synthetic))
    thought = realism_section(read_realism(args.synthetic)) if args.synthetic.is_dir() else None
    judged = [thought] if thought is not None else []
    gold, held_out = _seen_and_held_out(task, args)
    sides: Result = {"gold": gold, "held_out": held_out, **_detectors(args)}
    if spread:
        from hf_synth.cluster.stages import audit_work
        from hf_synth.privacy.audit import audit_of_blocks

        work = audit_work(task, rows, **sides, folder=cluster.blocks_of(args))
        if (part := cluster.computed(args, work)) is not None:
            return part, 0
        findings = audit_of_blocks(task, rows, work.results(work.parts[0]), **sides, seed=args.seed)
    else:
        findings = hf_synth.audit(task, rows, **sides, seed=args.seed)
    facts: Result = {"task": task.full_name, "synthetic": str(args.synthetic), **findings.to_json()}
    tested = None
    if args.model:
        if gold is None or held_out is None:
            raise GoldError(
                "the test of a model needs gold that it saw and gold that it never saw: name both by --gold"
            )
        tested = membership(task, args.model, gold=gold, held_out=held_out, seed=args.seed)
        facts["membership"] = tested.to_json()
    _print_findings(findings, tested)
    used = [i for i, s in enumerate(column_of(rows, "label_status")) if s not in ("dropped", "rejected")]
    facts |= {"rows_used": len(used), "rows_to_publish": len(set(used) - set(findings.refused))}
    if not facts["rows_to_publish"]:
        policy = (read_manifest(args.synthetic) or {}).get("policy") if args.synthetic.is_dir() else None
        print(f"  {why_nothing_is_left(rows, findings, policy)}")
    if args.show:
        _show_rows(task, rows, findings)
    if args.out:
        _write_audit(task, rows, findings, tested, facts, judged, args.out)
        if spread:
            cluster.clear(args, work)
        print(f"-> {args.out}")
        facts["out"] = str(args.out)
    return facts, 0 if findings.verdict == "ok" else 1


def _seen_and_held_out(task: Task, args: Namespace) -> tuple[Dataset | None, Dataset | None]:
    """Return the gold that may have been seen, and the split that was not."""
    from datasets import concatenate_datasets

    splits = {name: part for name, part in options.gold_of(task, args, optional=True).items() if len(part)}
    if not splits:
        return None, None
    control = args.split_held_out or ("test" if "test" in splits else None)
    if control and control not in splits:
        raise GoldError(f"the gold has no split {control!r}; it has {', '.join(splits)}")
    seen = [part for name, part in splits.items() if name != control or len(splits) == 1]
    return concatenate_datasets(seen), splits[control] if control and len(splits) > 1 else None


def _detectors(args: Namespace) -> Result:
    """Return the keywords of an audit for canaries and a finder of the user's own."""
    from hf_synth.privacy.canaries import Canaries

    canaries = Canaries.load(args.canaries) if args.canaries else None
    return {
        "canaries": canaries,
        "find_identifiers": _load_finder(args.find_identifiers) if args.find_identifiers else None,
    }


def _load_finder(name: str) -> Callable[[str], Iterable[str]]:
    """Import a finder of identifiers, FILE.py:FUNCTION or MODULE:FUNCTION: from a text to the kinds in it.

    Raises:
        HfSynthError: there is no such function, or its file cannot be imported.
    """
    where, mark, function = name.rpartition(":")
    if not mark or not where or not function.isidentifier():
        raise HfSynthError(f"--find-identifiers takes FILE.py:FUNCTION or MODULE:FUNCTION; got {name!r}")
    try:
        names = runpy.run_path(where) if where.endswith(".py") else vars(importlib.import_module(where))
    except Exception as error:  # the user's own code may raise anything
        raise HfSynthError(f"--find-identifiers: {where} cannot be imported ({type(error).__name__})") from None
    if not callable(names.get(function)):
        raise HfSynthError(f"--find-identifiers: {where} has no function {function!r}")
    finder: Callable[[str], Iterable[str]] = names[function]
    return finder


def _print_findings(findings: Findings, tested: Any) -> None:
    from hf_synth.privacy.findings import FLAGS, refusals
    from hf_synth.privacy.report import nearness, set_phrase_hint

    figures = findings.figures
    print(
        f"{findings.verdict}: {int(figures['rows']):,} rows, {int(figures['copied_rows']):,} hold gold, "
        f"{int(figures['refused_rows']):,} may not leave (access: {findings.access})"
    )
    if not findings.compared:
        print("  no gold was given: copies were not looked for")
    if short := figures.get("too_short"):
        print(f"  {int(short):>7,}  rows have too few words for near-copies to be found in them")
    flags = [f"{count:>7,}  {FLAGS[flag]}" for flag, count in refusals(findings, findings.refused).items()]
    for line in [*flags, *set_phrase_hint(findings)]:
        print(f"  {line}")
    if "closeness_auc" in figures:
        print(f"  {nearness(findings)}")
        if figures["closeness_auc_low"] > 0.5:
            print("  read some of them beside the gold before they leave: the audit does not find gold in other words")
    if tested is not None:
        print(f"  {tested}")
    print("  patterns do not find names: this is not de-identification")


_SHOWN, _SHOWN_LETTERS = 20, 300  # rows, and characters of each of their texts


def _show_rows(task: Task, rows: Dataset, findings: Findings) -> None:
    """Print the words of the first refused rows: lines with an identifier where that is all, else the beginning."""
    from hf_synth.privacy.canaries import note_columns
    from hf_synth.privacy.findings import COPIED
    from hf_synth.privacy.identifiers import identifiers_in

    for i in list(findings.refused)[:_SHOWN]:
        flags = findings.refused[i]
        print(f"  row {i}: {', '.join(flags)}")
        row = rows[i]
        for column in note_columns(task):
            text = str(row[column] or "")
            lines = [line for line in re.split(r"(?<=[.!?;])\s+|\n+", text) if identifiers_in(line)]
            shown = text if set(flags) & {*COPIED, "exemplar_echo"} or not lines else " ... ".join(lines)
            plain = " ".join("".join(c if c.isprintable() else " " for c in shown).split())
            if plain:
                print(f"    {plain[:_SHOWN_LETTERS]}{'...' if len(plain) > _SHOWN_LETTERS else ''}")
    if len(findings.refused) > _SHOWN:
        print(f"  and {len(findings.refused) - _SHOWN:,} rows more; their numbers are in findings.parquet of --out")


def _write_audit(
    task: Task, rows: Dataset, findings: Findings, tested: Any, facts: Result, more: list[Section], out: Path
) -> None:
    """Write audit.json, audit.md, audit.html and findings.parquet, as one folder or not at all (0700).

    Raises:
        OutputError: the folder cannot be written.
    """
    from hf_synth.privacy.findings import with_findings
    from hf_synth.privacy.report import audit_markdown, audit_page
    from hf_synth.task.columns import MANIFEST
    from hf_synth.task.folders import new_folder, write_private
    from hf_synth.task.scripts import is_artificial

    listed = [("task", task.full_name), ("access", findings.access), ("synthetic rows", len(rows))]
    listed.append(("gold rows", int(findings.figures["gold_rows"])))
    simulated = "the gold is an artificial clinic's, written by a program." if is_artificial(task) else ""
    about: Result = {"membership": tested, "facts": listed, "simulated": simulated, "more": more}
    ids = (rows if "id" in rows.column_names else rows.add_column("id", [*range(len(rows))])).select_columns("id")
    with new_folder(out) as draft:
        write_private(draft / "audit.json", json.dumps(facts, indent=1) + "\n")
        write_private(draft / "audit.md", audit_markdown(findings, **about))
        write_private(draft / "audit.html", audit_page(findings, **about))
        with_findings(ids, findings).to_parquet(draft / "findings.parquet")
        write_private(draft / MANIFEST, json.dumps({"stage": "audit", "task": task.full_name}) + "\n")


def add_publish_options(parser: ArgumentParser) -> None:
    """Add the options of `publish`."""
    options.add_task(parser)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="what to publish: a folder of `correct`, `generate` or `train`")
    add("--repo-id", required=True, metavar="ORG/NAME", help="repository on the Hub")
    text = "the gold that the notes or the model came from, to check against; needed unless access is open"
    add("--gold", type=Path, metavar="PATH", help=text)
    text = "scores that `evaluate --out` or `run` wrote, for the card (default: found beside FOLDER)"
    add("--scores", type=Path, metavar="FILE", help=text)
    text = "synthetic notes to show on the page of a model; open ones only"
    add("--examples", type=Path, metavar="FOLDER", help=text)
    add("--augmented", action="store_true", help="add a config of gold and notes together; only where all is open")
    text = "push to the Hub; without it the folder, the card and the verdict are written"
    add("--push", action="store_true", help=text)
    visible = parser.add_mutually_exclusive_group()
    visible.add_argument("--public", action="store_true", help="make the repository public (default: private)")
    text = "make the repository private (without it, an open repository that is public stays so)"
    visible.add_argument("--private", action="store_true", help=text)
    text = "readers ask the owner for access (default: only where access is not open)"
    add("--gated", action="store_true", help=text)
    _add_detectors(parser)
    text = "of a model: do not test whether it reveals the rows that it was trained on"
    add("--no-membership", dest="membership", action="store_false", help=text)
    add("--attestation", metavar="TEXT", help="with --public and restricted data: who allows it, and when")
    text = "language of the notes, where the task states none: an ISO 639 code such as en"
    add("--language", metavar="CODE", help=text)
    add("--contact", metavar="TEXT", help="whom to ask for access, for the card: an address or a page")
    add("--tag", metavar="NAME", help="name of the release (default: the next of v1, v2, ...)")
    add("--squash", action="store_true", help="replace everything in the repository, its history included")
    add("--yes", action="store_true", help="push without asking; needed where stdin is no terminal")
    add(
        "--dry-run",
        action="store_true",
        help="print the verdict, and with --push what would change there; send nothing",
    )
    options.add_out(parser, "the export folder (default: export/NAME)", required=False)
    options.add_seed(parser)
    cluster.add_machines(parser, " (of notes, without --push)")
    add_hub(parser)


def add_hub(parser: ArgumentParser) -> None:
    """Add the Hub and its token."""
    text = "address of the Hub (default: HF_ENDPOINT, else huggingface.co)"
    parser.add_argument("--endpoint", metavar="URL", help=text)
    text = "token of the Hub; HF_TOKEN is safer, since others may see a command line"
    parser.add_argument("--token", metavar="TOKEN", help=text)


def publish(args: Namespace) -> tuple[Result, int]:
    """Check, describe and publish; refused or not confirmed is exit code 1."""
    unfit = {name: bool(getattr(args, name)) for name in ("push", "public", "attestation", "squash", "dry_run")}
    spread = cluster.check_machines(args, **unfit)
    if spread:  # blocks and export lie in one folder
        args.out = _export_folder(args)
    task = _in_language(hf_synth.load_task(args.task), args.language)
    check_verb(task, args, out="within")
    names = ("push", "token", "endpoint", "attestation", "tag", "dry_run", "squash", "contact")
    shared = {**{name: getattr(args, name) for name in names}, **_detectors(args), "export_dir": _export_folder(args)}
    shared |= {"gold": options.gold_of(task, args, optional=True) or None, "gated": args.gated or None}
    shared |= {"private": True if args.private else False if args.public else None}
    pushing: list[bool] = []

    def confirm(verdict: Verdict) -> bool:
        pushing.append(_ask_to_publish(verdict, args))
        return pushing[-1]

    shared["confirm"] = confirm
    with on_stop(lambda: _describe_stop(args, any(pushing))):
        verdict = _publish(task, args, shared, spread=spread)
    if isinstance(verdict, dict):
        return verdict, 0
    print(verdict)
    if args.dry_run:
        print("  nothing was written and nothing sent (--dry-run)")
    return verdict.to_json(), 0 if verdict.allowed and (args.dry_run or verdict.pushed or not args.push) else 1


def _export_folder(args: Namespace) -> Path | None:
    """Return --out; where the configuration names it, which is for one release, the folder of this one beside it."""
    out: Path | None = args.out
    if out is None or cluster.is_merging(args) or any(word.partition("=")[0] == "--out" for word in args.argv):
        return out
    return out.parent / (args.repo_id.split("/")[-1] or out.name)


def _publish(task: Task, args: Namespace, shared: Result, *, spread: bool) -> Verdict | Result:
    """Publish a folder of rows or of a model; return the result of a shard where only that was computed."""
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.reports.realism import read_realism
    from hf_synth.task.folders import APPROVED, edited_digests, read_manifest

    is_model = (args.folder / "config.json").is_file()
    if is_model:
        if spread:
            raise UsageError("a model is exported on one machine: leave --shard and --engine out")
        scores = scores_of_model(args)
        examples = read_dataset(args.examples) if args.examples else None
        shared |= {"examples": examples, "membership": args.membership}
        return hf_synth.publish_model(task, args.folder, scores, args.repo_id, **shared)
    manifest = read_manifest(args.folder) if args.folder.is_dir() else None
    if edited := edited_digests(args.folder):
        print(f"{args.folder} was edited by hand ({', '.join(edited)}): its rows are published as edited")
        manifest = {**(manifest or {}), APPROVED: edited}
    if realism := read_realism(args.folder):
        manifest = {**(manifest or {}), "realism": realism}
    shared |= {"manifest": manifest, "scores": scores_of_rows(args, bool(edited))}
    rows, shared = read_dataset(args.folder), shared | {"augmented": args.augmented}
    if spread:
        return _exported(task, rows, args, shared)
    return hf_synth.publish_dataset(task, rows, args.repo_id, **shared)


def _exported(task: Task, rows: Dataset, args: Namespace, shared: Result) -> Verdict | Result:
    """Audit rows in blocks and export them; return the result of a shard where only that was computed."""
    from hf_synth.cluster.stages import export_work
    from hf_synth.publishing.publishing import export_scanned

    sides = {name: shared[name] for name in ("gold", "canaries", "find_identifiers")}
    work = export_work(task, rows, **sides, folder=cluster.blocks_of(args))
    if (part := cluster.computed(args, work)) is not None:
        return part
    left = {name: value for name, value in shared.items() if name not in ("push", "dry_run", "confirm", "squash")}
    verdict = export_scanned(task, rows, args.repo_id, work.results(work.parts[0]), **left)
    if verdict.allowed:  # the folder is written
        cluster.clear(args, work)
    return verdict


def _describe_stop(args: Namespace, pushing: bool) -> str:
    """Return what a stopped publication leaves, as a sentence."""
    if not pushing:
        return "nothing was sent; run the same command again"
    return (
        f"{args.repo_id} may hold the files already, without a tag and as private as it was before; run the same "
        "command again, which sends what is missing"
    )


def _in_language(task: Task, language: str | None) -> Task:
    """Return the task with the language of its notes.

    Raises:
        TaskError: it states another one, or there is no such code.
    """
    if language and task.language and language != task.language:
        raise TaskError(f"task {task.full_name!r} states language {task.language!r}: leave out --language")
    return replace(task, language=language) if language else task


def _ask_to_publish(verdict: Verdict, args: Namespace) -> bool:
    """Ask before anything is sent; where nobody can be asked, --yes is needed."""
    if args.yes:
        print(verdict.changes)
        return True
    if not sys.stdin.isatty():
        print(f"hf-synth: to push to {verdict.hub} where nobody can be asked, add --yes", file=sys.stderr)
        return False
    print(verdict)
    visible = "private" if verdict.private else "PUBLIC"
    instead = ", in place of all that it holds" if args.squash else ""
    return says_yes(f"Push {verdict.kind} {verdict.repo_id} ({visible}) to {verdict.hub}{instead}? [y/N] ")


def says_yes(question: str) -> bool:
    """Ask a person a question; return whether the answer is yes."""
    try:
        with paused():
            return input(plain(question)).strip().lower() in ("y", "yes")
    except EOFError:
        return False
