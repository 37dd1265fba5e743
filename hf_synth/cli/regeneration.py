"""The verb `regenerate`: ask again for notes that correction dropped."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

import hf_synth
from hf_synth.cli import llms, options
from hf_synth.cli.correction import (
    add_method,
    check_one_opinion,
    check_options,
    corrector_facts,
    corrector_of,
    method_options,
)
from hf_synth.cli.options import Result, count_text
from hf_synth.cli.stopping import keeping_answers
from hf_synth.errors import OutputError


def add_regenerate_options(parser: ArgumentParser) -> None:
    """Add the options of `regenerate`."""
    options.add_task(parser)
    add = parser.add_argument
    add("synthetic", type=Path, metavar="CORRECTED", help="folder of `correct`, with its dropped notes")
    options.add_gold(parser)
    options.add_model(parser)
    add_method(parser)
    add("--rounds", type=int, default=2, metavar="N", help="ask again at most N times (default: 2)")
    add("--llm", required=True, metavar="MODEL", help="as for `generate`; its answers are reused at no cost")
    options.add_exemplars(parser.add_argument_group("notes and prompt, as for `generate`"))
    options.add_endpoint(parser)
    options.add_out(parser, "folder for all notes, old and new; --dry-run needs none", required=False)
    add("--dry-run", action="store_true", help="estimate the first round; ask nothing")
    options.add_seed(parser)


def regenerate(args: Namespace) -> Result:
    """Ask again for notes that correction dropped, and correct all of them; with --dry-run estimate what it takes."""
    from hf_synth.correction.description import describe
    from hf_synth.correction.regeneration import estimate_again, regenerate_with_policy
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import read_manifest, write_stage
    from hf_synth.task.labels import MARKS, gold_marks

    check_one_opinion(args)
    task = hf_synth.load_task(args.task)
    check_options(task, args)
    rows = read_dataset(args.synthetic)
    manifest = (read_manifest(args.synthetic) if args.synthetic.is_dir() else None) or {}
    gold = options.training_gold(task, args)
    exemplars = llms.exemplars_of(task, gold, args)
    if args.dry_run:
        price = llms.price_of(args)
        guess = estimate_again(task, rows, exemplars, price=price, prompt=args.prompt, seed=args.seed)
        return llms.print_estimate(guess, args)
    if args.out is None:
        raise OutputError("name the folder for the notes: --out DIR (or --dry-run for an estimate)")
    how = method_options(task, args, rows)
    beside = options.gold_path(args) or args.out.parent
    with contextlib.ExitStack() as stack:
        stack.enter_context(keeping_answers(args, beside, "; corrections are made again"))
        llm = stack.enter_context(llms.llm_of(args, beside))
        measured, corrector = corrector_of(task, rows, args, stack)
        all_rows, policy = regenerate_with_policy(
            task,
            rows,
            corrector,
            llm,
            gold=measured,
            exemplars=exemplars,
            rounds=args.rounds,
            prompt=args.prompt,
            options=how,
        )
    marks = sorted({*(manifest.get(MARKS) or ()), *gold_marks(task, gold, measured)})
    facts = {"policy": policy.to_json() if policy else manifest.get("policy"), "seed": args.seed, MARKS: marks}
    facts |= {"generator": args.llm, "gold_rows": len(measured), **corrector_facts(args, corrector)}
    facts |= llms.weights_facts(llm)
    report = str(describe(all_rows, policy)) if policy else ""
    write_stage(task, all_rows, args.out, stage="correct", report=report, **facts)
    before, after = Counter(rows["label_status"][:]), Counter(all_rows["label_status"][:])
    new = len(all_rows) - len(rows)
    print(f"{report}\n" if policy else "no new note was written")
    print(f"before: {count_text(before)}\nnow: {count_text(after)}; {new:,} new rows -> {args.out}")
    return {"out": str(args.out), "statuses": dict(after), "new_rows": new}
