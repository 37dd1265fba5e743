"""The verbs `experiment` and `assess`: what a study would take, what it found, and whether to begin one."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.options import gold_path, judge_of, name_value, writer_of
from hf_synth.correction.audited import read_audited
from hf_synth.errors import ColumnError, TaskError
from hf_synth.experiments.equivalence import Rates
from hf_synth.experiments.grid import ALONE, Grid, Protocol, read_grid, with_fields
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.folders import read_manifest, work_folder
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Facts = dict[str, Any]


def experiment(args: argparse.Namespace) -> Facts:
    """Run the cells of a grid that are not there yet, or with --dry-run list them."""
    from hf_synth.experiments.experiment import experiment as run
    from hf_synth.experiments.experiment import outline
    from hf_synth.gold.gold import load_gold, subset

    task = load_task(args.task)
    path = gold_path(args)
    splits = load_gold(task, path, seed=args.seed)
    if args.gold_size:
        splits["train"] = subset(task, splits["train"], args.gold_size, seed=args.seed)
    grid = _grid(args, task)
    shared: Facts = {
        "grid": grid, "out": args.out, "args": _training_args(args),
        "audited": read_audited(args.audited) if args.audited else {},
        "protocol": Protocol(tuple(args.splits), args.validation, args.drop_seen, args.swaps),
    }  # fmt: skip
    with _writers(args, task, path) as sources, contextlib.ExitStack() as stack:
        beside = path or args.out
        names = filter(None, (args.judge or "").split(","))
        shared["judges"] = {name: stack.enter_context(judge_of(task, args, name, beside)) for name in names}
        if args.dry_run:
            planned = outline(task, sources or None, gold=splits, **shared)
            return _tell_plan(planned, args)
        made = run(
            task, sources or None, gold=splits, processes=args.processes, rates=_rates(args), say=_say(args), **shared
        )
    print((made.out / "report.md").read_text(encoding="utf-8"))
    print(f"-> {made.out}")
    return {
        "out": str(made.out), "cells": len(made.rows), "failed": made.failed, "metric": made.metric,
        "comparisons": [dataclasses.asdict(c) for c in made.comparisons],
        "equivalence": [str(w) for w in made.worths],
    }  # fmt: skip


def _tell_plan(planned: Any, args: argparse.Namespace) -> Facts:
    for cell in planned.cells:
        ratio = f", ratio {cell.ratio:g}, by {cell.generator}" if cell.generator else ""
        print(f"{cell.base_model}  {cell.gold_size:,} gold  {cell.arm}{ratio}  seed {cell.seed}")
    known = sum(planned.seconds.get(c.arm, 0.0) for c in planned.cells)
    guess = f"; about {known / max(1, args.processes) / 60:,.0f} minutes in all, by the cells that are done"
    print(
        f"{len(planned.cells)} cells, {planned.done} of them done; {len(planned.pools)} generations with "
        f"{planned.calls:,} calls, about {planned.prompt_tokens:,} tokens read and {planned.completion_tokens:,} "
        f"written; {planned.judged:,} notes for judges; at most {planned.trainings:,} trainings"
        f"{guess if planned.seconds else ''}; nothing was asked"
    )
    return {"dry_run": True, **dataclasses.asdict(planned)}


def _grid(args: argparse.Namespace, task: Task) -> Grid:
    grid = read_grid(args.grid)
    fields = {name: getattr(args, name) for name in ("sizes", "curve", "ratios", "seeds", "correctors")}
    fields["base_models"] = [_base_model(name, args, task) for name in args.base_models or grid.base_models]
    if args.strategies or args.labels:
        strategies = args.strategies or ["gold", "augment"]
        labels = args.labels or ["raw", "auto"]
        fields["arms"] = [arm for s in strategies for arm in ([s] if s in ALONE else [f"{s} {x}" for x in labels])]
    return with_fields(grid, fields)


def _base_model(name: str, args: argparse.Namespace, task: Task) -> str:
    """Give a base model of the options; "tiny" is made from artificial notes alone, on which nothing is scored."""
    if name != "tiny":
        return name
    if task.kind == "text2text":
        raise TaskError(
            f"task {task.full_name!r} is text2text: 'tiny' is an encoder; name a sequence-to-sequence model"
        )
    from hf_synth.demo.clinic import write_notes
    from hf_synth.demo.encoder import make_encoder
    from hf_synth.task.columns import MANIFEST
    from hf_synth.task.folders import private_folder

    folder = work_folder(private_folder(args.out)) / f"tiny-{task.name}"
    if (folder / MANIFEST).is_file():
        return str(folder)
    return str(make_encoder([note.text for note in write_notes(3_000, seed=1_000_003)], folder, seed=0))


@contextlib.contextmanager
def _writers(args: argparse.Namespace, task: Task, gold: Path | None) -> Iterator[Facts]:
    """Give who writes the synthetic rows, by name: the pool, or LLMs of --llm A,B; "A@SHAPE/CHOICE" is A asked so."""
    from hf_synth.generation.exemplars import choose_exemplars
    from hf_synth.generation.generation import generate

    if args.synthetic:
        yield {args.synthetic.stem: _pool(args, task)}
        return
    if args.ratio is not None:
        raise ColumnError("--ratio is for one generation; an experiment takes --ratios")
    sources: Facts = {}
    with contextlib.ExitStack() as stack:
        for name in filter(None, (args.llm or "").split(",")):
            model, _, how = name.partition("@")
            shape, _, choice = how.partition("/")
            own = argparse.Namespace(**{**vars(args), "llm": model})
            llm = stack.enter_context(writer_of(own, gold or args.out))

            def make(
                rows: Dataset, n: int, seed: int, llm: Any = llm, shape: str = shape or args.prompt,
                choice: str = choice or args.choose or "",
            ) -> Dataset:  # fmt: skip
                shown = choose_exemplars(task, rows, choice, share=args.share, seed=seed) if choice else rows  # type: ignore[arg-type]
                return generate(task, shown, llm, n, prompt=shape, balance=args.balance, max_calls=args.max_calls,
                                seed=seed)  # fmt: skip

            plain = (shape or args.prompt, choice or args.choose or "") == ("examples", "") and args.balance == "equal"
            # what was asked differently is another generator: its name tells it apart
            told = f"{name}@{args.prompt}/{args.choose or ''}" if not how and not plain else name
            sources[name] = llm if plain else _call(make, f"{told}, {args.balance}, {args.share:g}")
        yield sources


def _call(make: Any, model: str) -> Any:
    make.model = model
    return make


def _pool(args: argparse.Namespace, task: Task) -> Dataset:
    from hf_synth.gold.adoption import adopt

    rows = read_dataset(args.synthetic)
    ours = args.synthetic.is_dir() and read_manifest(args.synthetic) is not None
    if ours and "label_status" in rows.column_names:
        return rows
    return adopt(
        task, rows, text_columns=args.text_column, llm_label_column=args.llm_label_column, access=args.access,
        generator=args.synthetic.stem,
    )  # fmt: skip


def _rates(args: argparse.Namespace) -> Rates | None:
    named = {n: getattr(args, n) for n in ("minutes_per_note", "hourly_usd", "compute_usd", "gpu_usd")}
    told = {n: v for n, v in named.items() if v is not None}
    return Rates(**told, given=len(told) == len(named)) if told else None


def _training_args(args: argparse.Namespace) -> Facts | None:
    fields = dict(map(name_value, args.set))
    if "tiny" in (args.base_models or ()):
        from hf_synth.demo.encoder import DEMO_ARGS

        fields = DEMO_ARGS | fields
    return fields or None


def assess(args: argparse.Namespace) -> Facts:
    """Say whether to generate or to label."""
    from hf_synth.experiments.assessment import assess as judge
    from hf_synth.gold.gold import load_gold, subset

    task = load_task(args.task)
    rows = load_gold(task, gold_path(args), seed=args.seed)["train"]
    if args.gold_size:
        rows = subset(task, rows, args.gold_size, seed=args.seed)
    pilot = _pool(args, task) if args.synthetic else None
    made = judge(
        task,
        pilot,
        gold=rows,
        audited=read_audited(args.audited) if args.audited else None,
        more=args.more,
        seed=args.seed,
    )
    print(made)
    return dataclasses.asdict(made)


def _say(args: argparse.Namespace) -> Callable[[str], None]:
    return (lambda line: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
