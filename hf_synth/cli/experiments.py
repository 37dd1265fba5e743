"""The verbs `run`, `experiment`, `assess` and `demo`: one run of all stages, a grid of runs, an estimate before."""

from __future__ import annotations

import contextlib
import json
import shlex
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hf_synth
from hf_synth.cli import llms, options
from hf_synth.cli.checks import check_some_model, check_verb
from hf_synth.cli.config import without_secrets
from hf_synth.cli.options import TINY, Result, count_text
from hf_synth.cli.outlook import run_outlook
from hf_synth.cli.stopping import keeping_answers, on_stop
from hf_synth.errors import ColumnError, MissingGoldError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.experiments.equivalence import Rates
    from hf_synth.experiments.experiment import Planned
    from hf_synth.experiments.grid import Grid
    from hf_synth.experiments.results import Results
    from hf_synth.task.task import Task

GRIDS = "paper, clinic, ablations, policies, generators, correctors"
_CELL_OPTIONS = (
    ("sizes", int, "numbers of gold rows (0: all)"),
    ("curve", int, "more numbers of gold rows, for training on gold alone"),
    ("ratios", float, "numbers of synthetic rows for each gold row"),
    ("seeds", int, "seeds; each is a repetition"),
    ("strategies", str, "training sets: gold, synthetic, replace, augment; also frequency, zero-shot"),
    ("labels", str, "labels of synthetic rows: raw, auto, auto_macro_f1, llm_judge, or methods of `correct`"),
    ("correctors", str, "base models of correctors (default: the one that is trained)"),
)
_RATE_OPTIONS = (
    ("minutes-per-note", "minutes that a person takes to label a note (default: 3, an assumption)"),
    ("hourly-usd", "dollars an hour of that person (default: 60, an assumption)"),
    ("compute-usd", "dollars an hour of one core (default: 0.05, an assumption)"),
    ("gpu-usd", "dollars an hour of one GPU (default: 2, an assumption)"),
)


# --- run ------------------------------------------------------------------------------------------------------------
def add_run_options(parser: ArgumentParser) -> None:
    """Add the options of `run`."""
    options.add_task(parser)
    options.add_gold(parser)
    options.add_pool(parser)
    options.add_llm(parser, required=False)
    options.add_model(parser)
    options.add_method(parser)
    options.add_out(parser, "folder for the notes, the models, the scores and the report")
    options.add_dry_run(parser)
    options.add_seed(parser)


def run(args: Namespace) -> Result:
    """Correct, train on each mixture and score, all in one call."""
    from hf_synth.evaluation.recall import never_found_text
    from hf_synth.experiments.journey import STEPS, score_table
    from hf_synth.experiments.journey import run as journey
    from hf_synth.experiments.journey_report import journey_lead, write_journey_report
    from hf_synth.reports.page import lead_markdown
    from hf_synth.reports.progress import begin_step

    if not args.synthetic and not args.llm:
        raise ColumnError("give the synthetic rows (--synthetic POOL) or an LLM to write them (--llm MODEL)")
    task = hf_synth.load_task(args.task)
    check_verb(task, args, out="within", trains=True)
    correction = options.correction_options(task, args)
    begin_step("read gold", of=("read gold", "check the LLM", "make the base model", *STEPS))
    rows: Any = options.synthetic_rows(task, args) if args.synthetic else None
    splits = options.gold_of(task, args)
    for name in ("train", "test"):
        options.split_of(splits, name)
    if args.dry_run:
        return run_outlook(task, args, rows, splits)
    with contextlib.ExitStack() as stack:
        if not args.synthetic:
            beside = options.gold_path(args) or args.out
            stack.enter_context(keeping_answers(args, beside, "; corrections and models are made again"))
            begin_step("check the LLM")
            llms.check_llm(llm := stack.enter_context(llms.llm_of(args, beside)))

            def rows(gold: Dataset) -> Dataset:
                exemplars, how = llms.exemplars_of(task, gold, args), llms.generation_options(gold, args)
                return hf_synth.generate(task, exemplars, llm, seed=args.seed, **how)

        begin_step("make the base model")
        parts = [options.training_gold(task, args, splits), *([rows] if args.synthetic else [])]
        keywords: Result = {"base_model": options.base_model(task, args, *parts), "gold_size": args.gold_size}
        keywords |= {"training": options.training_options(task, args), "say": options.progress_of(args)}
        if (args.out / "scores.json").is_file():
            keywords["say"](f"{args.out} holds an earlier run: its notes, models, scores and report are replaced")
        result = journey(task, rows, gold=splits, out=args.out, method=correction, seed=args.seed, **keywords)
    write_journey_report(result := replace(result, source=options.run_source(args)))  # again, with commands to paste
    statuses, policy = Counter(result.corrected["label_status"][:]), result.policy.method
    verdict = lead_markdown(replace(journey_lead(result), steps=()))
    print(f"{verdict}\n\ncorrection by {policy}: {count_text(statuses)}\n\n{score_table(task, result.scores)}")
    print(f"\nall of it: {result.out / 'report.html'}\n-> {args.out}")
    for name, scores in result.scores.items():
        if scores.never_found:
            print(f"{name} never finds some labels: {never_found_text(scores)}")
    options.print_toy_note(task, args)
    facts = {"task": task.full_name, "policy": policy, "statuses": dict(statuses), "out": str(args.out)}
    return {**facts, "scores": {name: s.to_json() for name, s in result.scores.items()}, "seconds": result.seconds}


# --- experiment -----------------------------------------------------------------------------------------------------
def add_experiment_options(parser: ArgumentParser) -> None:
    """Add the options of `experiment`."""
    options.add_task(parser)
    options.add_gold(parser)
    options.add_pool(parser)
    options.add_llm(parser, required=False)
    add = parser.add_argument
    add("--judge", metavar="A,B", help="LLMs that judge, for --labels llm_judge and --strategies zero-shot")
    options.add_votes(parser, "with --judge: ")
    options.add_out(parser, "folder of the experiment; a later run adds the cells that it lacks")
    options.add_seed(parser)
    add("--grid", default="paper", metavar="NAME", help=f"{GRIDS}, or a .json or .toml file (default: paper)")
    add(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="number of trainings at a time, each on one GPU (default: 1)",
    )
    add("--dry-run", action="store_true", help="list the cells and estimate what they take; ask nothing")
    add = parser.add_argument_group("the grid: these replace what --grid names").add_argument
    for name, kind, text in _CELL_OPTIONS:
        add(f"--{name}", type=kind, nargs="+", metavar=name[0].upper(), help=text)
    text = (
        'models to train; "linear": a linear head on frozen features; "tiny": a toy made on the spot (default: linear)'
    )
    add("--base-model", nargs="+", metavar="MODEL", dest="base_models", help=text)
    add = parser.add_argument_group("training, scoring and costs").add_argument
    text = "a field of transformers' TrainingArguments, e.g. learning_rate=3e-5; may be repeated"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = "splits of the gold that are scored (default: test)"
    add("--splits", nargs="+", default=["test"], metavar="SPLIT", help=text)
    text = "share of a cell's gold that stops its training early (default: 0, none)"
    add("--validation", type=float, default=0.0, metavar="SHARE", help=text)
    text = "labels that a person gave to synthetic rows: a table with columns id and label"
    add("--audited", type=Path, metavar="FILE", help=text)
    add("--swaps", action="store_true", help="also score test notes with the patient's sex, age or race words swapped")
    add("--drop-seen", action="store_true", help="leave out test rows that are in train too, instead of refusing")
    for name, text in _RATE_OPTIONS:
        add(f"--{name}", type=float, metavar="N", help=text)


def experiment(args: Namespace) -> tuple[Result, int]:
    """Run the cells of a grid that are not there yet; with --dry-run list them. Failed cells are exit code 1."""
    from hf_synth.correction.audited import read_audited
    from hf_synth.experiments.experiment import outline
    from hf_synth.experiments.foresight import count_reasons
    from hf_synth.experiments.grid import ScoringProtocol
    from hf_synth.experiments.report import study_summary, write_study_report
    from hf_synth.experiments.study_verdict import REPAIR
    from hf_synth.models.base_models import TOY_NOTE
    from hf_synth.models.readiness import check_fields

    task = hf_synth.load_task(args.task)
    check_verb(task, args, out="within")
    check_fields(options.training_fields(args), validated=args.validation > 0, access=task.access)
    check_some_model(task, [*(args.base_models or ()), *(args.correctors or ())])
    pool = options.synthetic_rows(task, args) if args.synthetic else None
    splits = options.gold_of(task, args)
    if args.gold_size:
        splits["train"] = options.training_gold(task, args, splits)
    keywords: Result = {"gold": splits, "grid": _grid(args, task), "out": args.out}
    keywords["args"] = options.training_fields(args, *(args.base_models or ()))
    keywords["audited"] = read_audited(args.audited, task) if args.audited else {}
    keywords["protocol"] = ScoringProtocol(tuple(args.splits), args.validation, args.drop_seen, args.swaps)
    beside = options.gold_path(args) or args.out
    with contextlib.ExitStack() as stack:
        sources = {args.synthetic.stem: pool} if args.synthetic else _sources(task, args, beside, stack) or None
        judges = filter(None, (args.judge or "").split(","))
        keywords["judges"] = {n: stack.enter_context(llms.judge_of(task, args, n, beside)) for n in judges}
        if args.dry_run:
            return _print_plan(outline(task, sources, **keywords), args.processes), 0
        how: Result = {"processes": args.processes, "rates": _rates(args), "say": options.progress_of(args)}
        try:
            with on_stop(lambda: _kept_cells(task, sources, keywords)):
                results = hf_synth.experiment(task, sources, **keywords, **how)
        except MissingGoldError as error:  # no cell came to an end
            raise MissingGoldError(f"{error}; {_repair(task, args, splits, str(error))}") from None
    repair = REPAIR
    if results.failed:
        mended = _repair(task, args, splits, " ".join(count_reasons(results.failed)))
        words, dash, command = mended.partition(": hf-synth ")
        repair = (words[:1].upper() + words[1:], f"hf-synth {command}" if dash else "")
        write_study_report(task, results, repair=repair)  # again, with the command
    print(study_summary(task, results, repair=repair))
    print(f"\nall of it: {results.out / 'report.html'}\n-> {results.out}")
    if any(Path(row["base_model"]).name == f"{TINY}-{task.name}" for row in results.rows):
        print(TOY_NOTE)
    if results.failed:
        lines = count_reasons(results.failed)
        print(
            f"\n{len(results.failed)} of {len(results.failed) + _count_done(results)} cells failed", *lines, sep="\n  "
        )
        print(mended)
    facts = {"out": str(results.out), "cells": len(results.rows), "failed": results.failed, "metric": results.metric}
    comparisons = [asdict(comparison) for comparison in results.comparisons]
    facts |= {"comparisons": comparisons, "equivalence": [str(worth) for worth in results.worths]}
    return facts, int(bool(results.failed))


def _kept_cells(task: Task, sources: Any, keywords: Result) -> str:
    """Return how many cells of a stopped experiment are kept, as a sentence."""
    from hf_synth.experiments import planning

    study, cells, _ = planning.prepare(task, sources, **keywords)
    done = len(cells) - len(planning.unfinished(study, planning.plan_jobs(study, cells)))
    kept = f"{done:,} of {len(cells):,} cells kept, and every finished generation, correction and answer"
    return f"{kept}; run the same command again to go on"


def _count_done(results: Results) -> int:
    return len({row["cell_key"] for row in results.rows})


def _repair(task: Task, args: Namespace, splits: DatasetDict, why: str) -> str:
    """Return what to run after cells failed: another source or model where those cannot work, else the same again."""
    argv = ["hf-synth", *without_secrets(args.argv)]
    if args.synthetic and "outside the" in why:
        fitting = _sizes_of_pool(task, args, splits)
        if fitting:
            return f"the pool fits one gold subset: {shlex.join([*_drop_options(argv, 'sizes', 'seeds'), *fitting])}"
        how = [*_drop_options(argv, "synthetic"), "--llm", "MODEL", "--base-url", "URL"]
        return f"let an LLM write rows for each gold subset: {shlex.join(how)}"
    if "ModelError" in why:
        how = [*_drop_options(argv, "base-model", "correctors"), "--base-model", "MODEL"]
        return f"name models that are here (`hf-synth models` lists some): {shlex.join(how)}"
    return f"repair the cause and run the same command, which tries these cells again: {shlex.join(argv)}"


def _sizes_of_pool(task: Task, args: Namespace, splits: DatasetDict) -> list[str]:
    """Return the options of the gold subset that a folder of `generate` was written from; none where there is none."""
    from hf_synth.task.folders import read_manifest
    from hf_synth.task.labels import column_of

    facts = (read_manifest(args.synthetic) if args.synthetic.is_dir() else None) or {}
    size, seed = facts.get("gold_rows"), facts.get("seed", 0)
    if not isinstance(size, int) or not 0 < size <= len(splits["train"]):
        return []
    own = set(hf_synth.subset(task, splits["train"], size, seed=seed)["id"])
    shown = {id for ids in column_of(options.synthetic_rows(task, args), "seed_ids") for id in ids or ()}
    return ["--sizes", str(size), "--seeds", str(seed)] if shown <= own else []


def _drop_options(argv: list[str], *names: str) -> list[str]:
    """Return a command without some options and their values."""
    kept, skipping = [], False
    for word in argv:
        if word.startswith("--"):
            skipping = word.partition("=")[0].removeprefix("--") in names
        if not skipping:
            kept.append(word)
    return kept


def _print_plan(plan: Planned, processes: int) -> Result:
    for cell in plan.cells:
        ratio = f", ratio {cell.ratio:g}, by {cell.generator}" if cell.generator else ""
        print(f"{cell.base_model}  {cell.gold_size:,} gold  {cell.arm}{ratio}  seed {cell.seed}")
    minutes = sum(plan.seconds.get(cell.arm, 0.0) for cell in plan.cells) / max(1, processes) / 60
    guess = f"; about {minutes:,.0f} minutes in all, by the cells that are done" if plan.seconds else ""
    print(
        f"{len(plan.cells)} cells, {plan.done} of them done; {len(plan.pools)} generations with "
        f"{plan.calls:,} calls, about {plan.prompt_tokens:,} tokens read and {plan.completion_tokens:,} "
        f"written; {plan.judged:,} notes for judges; at most {plan.trainings:,} trainings{guess}; nothing was asked"
    )
    for line in plan.cannot_work:
        print(f"cannot work, {line}")
    return {"dry_run": True, **asdict(plan)}


def _grid(args: Namespace, task: Task) -> Grid:
    """Return the grid of --grid, changed by the options that name cells."""
    from hf_synth.experiments.grid import ALONE, read_grid, with_fields

    grid = read_grid(args.grid)
    fields = {name: getattr(args, name) for name in ("sizes", "curve", "ratios", "seeds", "correctors")}
    fields["base_models"] = [_base_model(name, args, task) for name in args.base_models or grid.base_models]
    if args.strategies or args.labels:
        strategies, labels = args.strategies or ["gold", "augment"], args.labels or ["raw", "auto"]
        fields["arms"] = [arm for s in strategies for arm in ([s] if s in ALONE else [f"{s} {x}" for x in labels])]
    return with_fields(grid, fields)


def _base_model(name: str, args: Namespace, task: Task) -> str:
    """Return a base model; "tiny" is made from artificial notes alone, on which nothing is scored."""
    if name != TINY:
        return name
    from hf_synth.demo.clinic import write_notes
    from hf_synth.demo.encoder import make_encoder, make_seq2seq
    from hf_synth.task.columns import MANIFEST
    from hf_synth.task.folders import private_folder, work_folder

    folder = work_folder(private_folder(args.out)) / f"{TINY}-{task.name}"
    if (folder / MANIFEST).is_file():
        return str(folder)
    texts = [note.text for note in write_notes(3_000, seed=1_000_003)]
    return str(make_seq2seq(texts, folder) if task.kind == "text2text" else make_encoder(texts, folder, seed=0))


def _sources(task: Task, args: Namespace, beside: Path, stack: contextlib.ExitStack) -> Result:
    """Return the writers of synthetic rows by name: LLMs A,B; "A@SHAPE/CHOICE" has its own prompt."""
    if args.ratio is not None:
        raise ColumnError("--ratio is for one generation; an experiment takes --ratios")
    sources: Result = {}
    for name in filter(None, (args.llm or "").split(",")):
        model, _, how = name.partition("@")
        shape, _, choice = how.partition("/")
        prompt, choose = shape or args.prompt, choice or args.choose or ""
        llm = stack.enter_context(llms.llm_of(args, beside, model))
        sampling = llms.sampling_of(args)
        if (prompt, choose, args.balance) == ("examples", "", "equal") and not sampling:
            sources[name] = llm
            continue
        # options that change the rows make another generator, so it gets another name
        full_name = name if how else f"{name}@{args.prompt}/{args.choose or ''}"
        own = Namespace(**{**vars(args), "prompt": prompt, "choose": choose})
        asked = f", {json.dumps(sampling, sort_keys=True)}" if sampling else ""
        sources[name] = _writer(task, own, llm, f"{full_name}, {args.balance}, {args.share:g}{asked}")
    return sources


def _writer(task: Task, args: Namespace, llm: Any, name: str) -> Callable[[Dataset, int, int], Dataset]:
    """Return a function that writes rows by the options, under a name of its own."""

    def write(gold: Dataset, n: int, seed: int) -> Dataset:
        own = Namespace(**{**vars(args), "n": n, "ratio": None, "seed": seed})
        keywords = llms.generation_options(gold, own)
        return hf_synth.generate(task, llms.exemplars_of(task, gold, own), llm, seed=seed, **keywords)

    write.model = name  # type: ignore[attr-defined]
    return write


def _rates(args: Namespace) -> Rates | None:
    from hf_synth.experiments.equivalence import Rates

    names = [name.replace("-", "_") for name, _ in _RATE_OPTIONS]
    rates = {name: value for name in names if (value := getattr(args, name)) is not None}
    return Rates(**rates, given=len(rates) == len(names)) if rates else None


# --- assess and demo ------------------------------------------------------------------------------------------------
def add_assess_options(parser: ArgumentParser) -> None:
    """Add the options of `assess`."""
    options.add_task(parser)
    options.add_gold(parser)
    add = parser.add_argument
    add("--synthetic", type=Path, metavar="PILOT", help="a pilot: some hundred synthetic rows as `generate` wrote them")
    options.add_columns(parser)
    text = "labels that a person gave to some of them: a table with columns id and label"
    add("--audited", type=Path, metavar="FILE", help=text)
    text = "number of notes that could be labelled instead (default: 50)"
    add("--label", type=int, default=50, metavar="N", dest="more", help=text)
    options.add_seed(parser)


def assess(args: Namespace) -> Result:
    """Estimate whether synthetic notes or more labels help more."""
    from hf_synth.correction.audited import check_ids, read_audited

    task = hf_synth.load_task(args.task)
    check_verb(task, args)
    gold = options.training_gold(task, args)
    pilot = options.synthetic_rows(task, args) if args.synthetic else None
    audited = read_audited(args.audited, task) if args.audited else None
    if args.audited and pilot is not None and "id" in pilot.column_names:
        check_ids(args.audited, pilot["id"][:], "the pilot rows")
    assessment = hf_synth.assess(task, pilot, gold=gold, audited=audited, more=args.more, seed=args.seed)
    print(assessment)
    return asdict(assessment)


def add_demo_options(parser: ArgumentParser) -> None:
    """Add the options of `demo`."""
    text = "folder to write (default: demo-out; with --real demo-real-out)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    parser.add_argument("--full", action="store_true", help="run the larger grid: more gold sizes and synthetic notes")
    options.add_seed(parser)
    add = parser.add_argument_group("a real LLM").add_argument
    add("--real", action="store_true", help="SmolLM2 writes and MiniLM learns, on this machine: 15 to 25 minutes")
    text = "with --real: a task of real text, e.g. sdoh_nli:pair (default: clinic)"
    add("--task", default="clinic", metavar="TASK", help=text)
    add("--gold", type=Path, metavar="PATH", help="with --real: the files of TASK")
    text = "with --real: threads of the LLM's server (default: one for each free core)"
    add("--threads", type=int, metavar="N", help=text)


def demo(args: Namespace) -> Result:
    """Show the whole journey on artificial notes, or with --real by a real LLM and a pretrained encoder."""
    say = options.progress_of(args)
    args.out = args.out or Path("demo-real-out" if args.real else "demo-out")
    if args.real:
        if args.gold and args.task == "clinic":
            raise ColumnError("--gold needs --task, the task that its files are of, e.g. --task sdoh_nli:pair")
        from hf_synth.demo.real import FULL, Sizes, demo_real

        sizes = FULL if args.full else Sizes()
        how: Result = {"task": args.task, "gold": args.gold, "threads": args.threads, "sizes": sizes}
        how["progress"] = not args.quiet
        facts = demo_real(args.out, seed=args.seed, say=say, **how)
    else:
        from hf_synth.demo.journey import demo as journey

        if args.gold or args.task != "clinic" or args.threads:
            raise ColumnError("--task, --gold and --threads go with --real; without it the demo has its own notes")
        facts = journey(args.out, seed=args.seed, full=args.full, say=say)
    args.json = True  # the demo always ends with its one JSON object
    return facts
