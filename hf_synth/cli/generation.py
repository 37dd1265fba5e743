"""The verb `generate`: ask an LLM for synthetic labelled notes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

import hf_synth
from hf_synth.cli import options
from hf_synth.cli.checks import check_verb
from hf_synth.cli.options import Result
from hf_synth.errors import OutputError


def add_generate_options(parser: ArgumentParser) -> None:
    """Add the options of `generate`."""
    options.add_task(parser)
    options.add_gold(parser)
    options.add_llm(parser, required=True)
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="say how many calls, tokens and dollars; ask nothing")


def generate(args: Namespace) -> Result:
    """Ask the LLM for synthetic notes; with --dry-run estimate what it would take."""
    from hf_synth.generation.generation import estimate, generation_table
    from hf_synth.task.columns import USAGE_COLUMNS
    from hf_synth.task.folders import write_stage
    from hf_synth.task.labels import MARKS, gold_marks

    if args.out is None and not args.dry_run:
        raise OutputError("say where the notes go: --out DIR (or --dry-run to see what they would take)")
    task = hf_synth.load_task(args.task)
    check_verb(task, args)
    gold = options.training_gold(task, args)
    exemplars, keywords = options.exemplars_of(task, gold, args), options.generation_options(gold, args)
    if args.dry_run:
        guess = estimate(task, exemplars, price=options.price_of(args), **keywords)
        return options.print_estimate(guess, args)
    with options.llm_of(args, options.gold_path(args) or args.out.parent) as llm:
        rows = hf_synth.generate(task, exemplars, llm, seed=args.seed, progress=not args.quiet, **keywords)
    counts = Counter(rows["label_status"])
    rejects = Counter(r for s, r in zip(rows["label_status"], rows["reason"], strict=True) if s == "rejected")
    usage = {name: sum(value for value in rows[name] if value is not None) for name in USAGE_COLUMNS}
    figures: Result = {"rejected": dict(rejects), **usage}
    facts: Result = {"generator": args.llm, "seed": args.seed, "gold_rows": len(exemplars), "prompt": args.prompt}
    facts |= {"exemplars": args.choose, "share": args.share, "balance": args.balance}
    facts |= {MARKS: gold_marks(task, exemplars), **figures}
    write_stage(task, rows, args.out, stage="generate", report=generation_table(rows), **facts)
    print(f"{counts['kept']:,} notes, {counts['rejected']:,} rejected answers {dict(rejects) or ''} -> {args.out}")
    dollars = f", ${usage['cost_usd']:,.2f}" if usage["cost_usd"] else ""
    print(f"{usage['prompt_tokens']:,} tokens read, {usage['completion_tokens']:,} written{dollars}")
    return {"out": str(args.out), "rows": counts["kept"], **figures}
