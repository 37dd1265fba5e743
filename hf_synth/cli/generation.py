"""The verb `generate`: ask an LLM for synthetic labelled notes."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import hf_synth
from hf_synth.cli import cluster, llms, options
from hf_synth.cli.checks import check_verb
from hf_synth.cli.options import Result
from hf_synth.cli.stopping import keeping_answers
from hf_synth.errors import ColumnError, OutputError, TaskError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.llm.questions import Chat
    from hf_synth.task.task import Task


def add_generate_options(parser: ArgumentParser) -> None:
    """Add the options of `generate`."""
    options.add_task(parser)
    options.add_gold(parser)
    text = "there is no gold: write from the definitions of the task alone (--prompt facts or attributes)"
    parser.add_argument("--no-gold", action="store_true", help=text)
    options.add_llm(parser, required=True)
    text = "with --prompt facts: ask again at most N times for a note that lacks a fact (default: 2)"
    parser.add_argument("--fact-rounds", type=int, default=2, metavar="N", help=text)
    text = "with --prompt facts: what looks for them in a note; llm: rules, and the same LLM, whose answers are counted"
    parser.add_argument("--check-facts", choices=("rules", "llm"), default="rules", help=text + " (default: rules)")
    options.add_out(parser, "folder for the notes; --dry-run and --preview need none", required=False)
    text = "write N notes (default: 5), show them and stop; the same command without --preview goes on from there"
    parser.add_argument("--preview", type=int, nargs="?", const=5, metavar="N", help=text)
    parser.add_argument("--dry-run", action="store_true", help="estimate calls, tokens and dollars; ask nothing")
    options.add_seed(parser)
    cluster.add_machines(parser)


def generate(args: Namespace) -> Result | tuple[Result, int]:
    """Ask the LLM for synthetic notes; with --dry-run estimate what it would take."""
    from hf_synth.generation.attribute_check import attributes_line
    from hf_synth.generation.claims import NOTES_CLAIM, facts_line
    from hf_synth.generation.fact_judge import judged_line
    from hf_synth.generation.generation import check_some, estimate, generate_with_figures, generation_table, no_gold
    from hf_synth.generation.likeness import likeness
    from hf_synth.generation.prompts import prompt_for
    from hf_synth.task.columns import USAGE_COLUMNS
    from hf_synth.task.folders import write_stage
    from hf_synth.task.labels import MARKS, gold_marks

    if args.out is None and not args.dry_run and args.preview is None:
        raise OutputError("name the folder for the notes: --out DIR (or --dry-run for an estimate)")
    unfit = {"dry_run": args.dry_run, "preview": args.preview is not None, "batch": args.batch}
    spread = cluster.check_machines(args, **unfit)
    task = hf_synth.load_task(args.task)
    check_verb(task, args)
    if args.no_gold:
        _check_no_gold(task, args)
        gold = exemplars = no_gold(task)
    else:
        gold = options.training_gold(task, args)
        exemplars = llms.exemplars_of(task, gold, args)
    keywords = llms.generation_options(gold, args)
    if args.check_facts == "llm" and not prompt_for(task, args.prompt).facts:
        raise ColumnError("--check-facts llm needs a prompt of facts without exemplars: give --prompt facts")
    if args.dry_run:
        guess = estimate(task, exemplars, price=llms.price_of(args), **keywords)
        return llms.print_estimate(guess, args)
    if args.preview is not None:
        return _preview(args, task, exemplars, keywords)
    beside = options.gold_path(args) or args.out.parent
    with keeping_answers(args, beside), llms.llm_of(args, beside) as llm:
        how, shared = {"seed": args.seed, "fact_rounds": args.fact_rounds}, None
        if spread:
            from hf_synth.cluster.asking import generate_on_ray
            from hf_synth.cluster.stages import generation_work
            from hf_synth.generation.blocks import Order

            order, place = Order(task, exemplars, llm, **how, **keywords), cluster.how_of(args)
            if args.engine:
                cluster.check_no_answers(args)
                rows, run = generate_on_ray(order, folder=place["folder"], **cluster.ray_of(args))
            else:
                shared = generation_work(order, **place)
                if (part := cluster.computed(args, shared.work)) is not None:
                    return part
                rows, run = shared.rows()
        else:
            rows, run = generate_with_figures(task, exemplars, llm, **how, **keywords)
        judged = _judged_facts(task, rows, llm, args) if args.check_facts == "llm" else {}
    check_some(rows, run)
    counts = Counter(rows["label_status"][:])
    rejects = Counter(r for s, r in zip(rows["label_status"][:], rows["reason"][:], strict=True) if s == "rejected")
    usage = {name: run[name] for name in USAGE_COLUMNS}  # of every answer: one may leave no row
    figures: Result = {"rejected": dict(rejects), **usage, **run}
    facts: Result = {"generator": args.llm, "seed": args.seed, "gold_rows": len(exemplars), "prompt": args.prompt}
    facts |= {"exemplars": args.choose, "share": args.share, "balance": args.balance}
    facts |= {MARKS: gold_marks(task, exemplars), **figures, **llms.weights_facts(llm)}
    followed = _followed(task, rows, args)
    facts |= {"attributes_checked": followed} if followed else {}
    facts |= {"facts_judged": judged} if judged else {}
    alike = likeness(task, rows, gold, seed=args.seed)
    facts["likeness"] = alike.to_json()
    facts |= {"no_gold": True} if args.no_gold else {}
    write_stage(task, rows, args.out, stage="generate", report=generation_table(rows, usage), **facts)
    if spread:
        cluster.clear(args, None if shared is None else shared.work)
    print(f"{counts['kept']:,} notes, {counts['rejected']:,} rejected answers {dict(rejects) or ''} -> {args.out}")
    late, failed = run["failures"].get("timeout", 0), sum(run["failures"].values())
    lost = {"failed": failed - late, "timed out": late, "were refused": run["refused"]}
    if any(lost.values()):
        words = ", ".join(f"{count:,} {word}" for word, count in lost.items() if count)
        print(f"of {run['calls']:,} calls {words}")
    if checked := run.get("facts_checked"):
        print(facts_line(checked))
    if judged:
        print(judged_line(judged))
    if line := attributes_line(followed):
        print(f"attributes {line}")
    if alike.figures or not args.no_gold:
        print(f"likeness to gold (1: like gold; in brackets: halves of gold): {alike}")
    dollars = f", ${usage['cost_usd']:,.2f}" if usage["cost_usd"] else ""
    print(f"{usage['prompt_tokens']:,} tokens read, {usage['completion_tokens']:,} written{dollars}")
    if args.no_gold:
        print(f"what may be claimed: {NOTES_CLAIM}")
    return {"out": str(args.out), "rows": counts["kept"], **figures}


def _judged_facts(task: Task, rows: Dataset, llm: Chat, args: Namespace) -> dict[str, int]:
    """Ask the LLM which facts it finds stated in the notes that were kept, and return the counts."""
    from hf_synth.generation.fact_judge import count_judged, judge_facts
    from hf_synth.generation.stated import stated_of
    from hf_synth.llm.questions import access_of_llm
    from hf_synth.task.columns import access_of, strictest

    asked = stated_of(task, rows, args.prompt, args.seed)
    if not any(kind == "fact" for values in asked.values() for kind, *_ in values):
        raise ColumnError("--check-facts llm needs a prompt of facts without exemplars: give --prompt facts")
    texts = zip(*(rows[c][:] for c in task.text_columns), strict=True)
    columns = zip(rows["prompt_sha256"][:], rows["label_status"][:], texts, strict=True)
    notes = [
        (tuple((name, value) for kind, name, value in asked.get(hash, ()) if kind == "fact"), "\n".join(text))
        for hash, status, text in columns
        if status == "kept"
    ]
    access = strictest(task.access, access_of(rows), access_of_llm(llm))
    return count_judged(judge_facts(task, llm, notes, access=access))


def _followed(task: Task, rows: Dataset, args: Namespace) -> Result:
    """Return how many notes follow the attributes that they were asked for, by attribute, as far as rules can tell."""
    from hf_synth.generation.attribute_check import count_followed
    from hf_synth.generation.stated import stated_of

    asked = stated_of(task, rows, args.prompt, args.seed)
    texts = zip(*(rows[c][:] for c in task.text_columns), strict=True)
    notes = zip(rows["prompt_sha256"][:], rows["label_status"][:], texts, strict=True)
    return count_followed(
        ([(name, value) for kind, name, value in asked.get(hash, ()) if kind == "attribute"], "\n".join(text))
        for hash, status, text in notes
        if status == "kept"
    )


def _check_no_gold(task: Task, args: Namespace) -> None:
    """Check that the options of a start without gold agree; the default prompt becomes facts, or attributes.

    Raises:
        ColumnError: an option needs gold.
        TaskError: the task has no meanings of its labels, and no facts.
    """
    from hf_synth.generation.prompts import prompt_for

    given = {"--gold": args.gold, "--gold-size": args.gold_size, "--ratio": args.ratio, "--choose": args.choose}
    given["--balance"] = args.balance if args.balance != "equal" else None
    if needing := [name for name, value in given.items() if value is not None]:
        raise ColumnError(f"{needing[0]} needs gold, and --no-gold says that there is none: leave one of them out")
    if args.prompt == "examples":
        args.prompt = "attributes" if task.facts is None else "facts"
        options.progress_of(args)(f"prompt: {args.prompt}")
    if prompt_for(task, args.prompt).exemplars != "none":
        raise ColumnError(
            f"--prompt {args.prompt} shows gold notes, and with --no-gold there are none: use "
            "--prompt facts or --prompt attributes"
        )
    if task.facts is None and not any(task.label_meanings) and task.labels:
        raise TaskError(
            f"task {task.full_name!r} says nothing of what its labels mean, and there is no gold to show: define "
            "label_meanings, or facts (docs/zero_gold.md)"
        )


def _preview(args: Namespace, task: Task, exemplars: Dataset, keywords: Result) -> tuple[Result, int]:
    """Make the first calls, and show them in the terminal and as a page; no good row is exit code 1."""
    from hf_synth.generation.preview import preview
    from hf_synth.task.folders import work_folder

    if args.preview < 1:
        raise UsageError("--preview N: give the number of notes to look at, 1 or more")
    beside = options.gold_path(args) or (args.out.parent if args.out else Path())
    args.batch = False  # the answers have the same keys, and a preview does not wait for a day
    with keeping_answers(args, beside), llms.llm_of(args, beside) as llm:
        made = preview(task, exemplars, llm, rows=args.preview, seed=args.seed, **keywords)
    page = made.write(work_folder(beside if beside.exists() else Path()) / "preview")
    if made.access == "open" or sys.stdout.isatty():
        print(made.text())
    else:
        print(f"{made.summary()} The notes are {made.access}: they are shown in a terminal, and on the page.")
    if made.cause:
        print(f"hf-synth: no note was made: {made.cause}", file=sys.stderr)
    onward = (
        "the same command without --preview goes on from here" if made.kept else "prompts and answers are on the page"
    )
    print(f"-> {page}; {onward}")
    return {"preview": str(page), **made.figures()}, int(not made.kept)
