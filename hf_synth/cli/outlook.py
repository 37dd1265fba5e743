"""What `train`, `correct` and `run` would read, train, ask and write (--dry-run), and about how long it would take."""

from __future__ import annotations

import contextlib
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth.cli import llms, options
from hf_synth.cli.checks import needs_base_model
from hf_synth.cli.options import Result

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.generation.generation import Estimate
    from hf_synth.models.pace import Pace
    from hf_synth.task.task import Task

Seconds = tuple[float, float]  # from and to


def train_outlook(task: Task, args: Namespace, rows: Dataset, validation: Dataset | None) -> Result:
    """Print and return what `train` would take."""
    from hf_synth.task.labels import usable_rows

    n, scored = len(usable_rows(rows)), 0 if validation is None else len(validation)
    with _measured(task, args, rows, [rows]) as pace:
        steps, epochs = pace.plan(n, validated=scored > 0)
        seconds = pace.training(n, scored)
    early, model = ", or fewer if it stops early" if scored else "", options.base_model_name(task, args)
    print(f"would train 1 model of {model} on {n:,} rows: {steps:,} steps in {epochs:,} epochs{early}")
    if scored:
        print(f"would score {scored:,} validation rows after each epoch")
    return _print_outlook(args, pace, seconds, {"rows": n, "validation_rows": scored, "steps": steps, "epochs": epochs})


def correct_outlook(task: Task, args: Namespace, rows: Dataset, gold: Dataset) -> Result:
    """Print and return what `correct` would take."""
    from hf_synth.correction.outlook import estimate_head_seconds, trainings_of
    from hf_synth.task.columns import LLM_LABEL

    usable = _not_rejected(rows)
    facts: Result = {"rows": len(usable), "gold_rows": len(gold), "method": args.method}
    print(f"would correct {len(usable):,} rows by {args.method}, measured on {len(gold):,} gold rows")
    if args.judge:
        votes = args.votes * (len(usable) + len(gold))
        print(f"would ask {args.judge} {votes:,} times at most; answers in the journal are not asked for again")
        return _print_outlook(args, None, None, facts | {"calls": votes, "trainings": [0, 0]})
    heads, spent = estimate_head_seconds(task, gold, usable, args.method)
    args.started += spent
    seconds = heads / 2, heads * 2
    if args.corrector or not needs_base_model(args):
        print("would train no model" + (f"; {args.corrector} reads all rows" if args.corrector else ""))
        return _print_outlook(args, None, None if args.corrector else seconds, facts | {"trainings": [0, 0]})
    planned = trainings_of(task, args.method, gold=len(gold), rows=len(usable), measured=LLM_LABEL in gold.column_names)
    with _measured(task, args, gold, [gold, usable]) as pace:
        one = pace.training(planned.rows)
        read = planned.read * pace.read
        seconds = _sum(seconds, (planned.least * (one[0] + read / 2), planned.most * (one[1] + 2 * read)))
    models = f"{_count(planned.least, planned.most)} of {options.base_model_name(task, args)}"
    print(f"would train {models}, on {planned.rows:,} rows at most")
    return _print_outlook(args, pace, seconds, facts | {"trainings": [planned.least, planned.most]})


def run_outlook(task: Task, args: Namespace, rows: Dataset | None, splits: DatasetDict) -> Result:
    """Print and return what `run` would take."""
    from hf_synth.correction.outlook import estimate_head_seconds, trainings_of
    from hf_synth.experiments.journey import ARMS

    gold = options.training_gold(task, args, splits)
    facts: Result = {"gold_rows": len(gold), "method": args.method, "test_rows": len(splits["test"])}
    if rows is None:
        guess = _generation_estimate(task, args, gold)
        n, like = sum(guess.rows.values()), gold
        facts |= {"calls": guess.calls}
    else:
        n, like = len(like := _not_rejected(rows)), like
    planned = trainings_of(task, args.method, gold=len(gold), rows=n)
    print(f"would correct {n:,} rows by {args.method} with {len(gold):,} gold rows")
    heads, spent = (0.0, 0.0) if rows is None else estimate_head_seconds(task, gold, like, args.method)
    args.started += spent
    with _measured(task, args, gold, [gold, *([] if rows is None else [rows])]) as pace:
        one, read = pace.training(planned.rows), planned.read * pace.read
        seconds = _sum(
            (heads / 2, heads * 2), (planned.least * (one[0] + read / 2), planned.most * (one[1] + 2 * read))
        )
        for arm in ARMS:
            size = len(gold) * ("gold" in arm) + n * ("synthetic" in arm or "plus" in arm)
            scoring = len(splits["test"]) * pace.read
            seconds = _sum(seconds, _sum(pace.training(size), (scoring / 2, scoring * 2)))
    few, many = planned.least + len(ARMS), planned.most + len(ARMS)
    models = f"{_count(few, many)} of {options.base_model_name(task, args)}"
    correctors = f"{planned.least} to {planned.most} correctors"
    print(f"would train {models}: {correctors}, and one model on each of {len(ARMS)} mixtures")
    print(f"would score each mixture's model on {len(splits['test']):,} test rows")
    if rows is None:
        print("  the time of the LLM is not known before it is asked, and is not among the seconds")
    return _print_outlook(args, pace, seconds, facts | {"rows": n, "trainings": [few, many]})


def _generation_estimate(task: Task, args: Namespace, gold: Dataset) -> Estimate:
    """Print and return what a generation would take."""
    from hf_synth.generation.generation import estimate

    exemplars, how = llms.exemplars_of(task, gold, args), llms.generation_options(gold, args)
    guess = estimate(task, exemplars, price=llms.price_of(args), **how)
    cost = "" if guess.cost_usd is None else f", about ${guess.cost_usd:,.2f}"
    print(f"would ask {args.llm} for {sum(guess.rows.values()):,} notes in {guess.calls:,} calls{cost}")
    return guess


@contextlib.contextmanager
def _measured(task: Task, args: Namespace, rows: Dataset, parts: Sequence[Dataset]) -> Iterator[Pace]:
    """Measure the pace of the base model; a "tiny" one is made in a folder that is removed."""
    from hf_synth.models.pace import measure_pace

    with tempfile.TemporaryDirectory(prefix="hf_synth-") as folder:
        elsewhere = Namespace(**{**vars(args), "out": Path(folder) / "out"})
        keywords = options.training_options(task, args) | {"cache_dir": None}
        yield measure_pace(
            task, rows, base_model=options.base_model(task, elsewhere, *parts), seed=args.seed, **keywords
        )


def _print_outlook(args: Namespace, pace: Pace | None, seconds: Seconds | None, facts: Result) -> Result:
    """Print the time, its basis and where the output would go; return all of it."""
    if seconds is not None:
        before = time.monotonic() - float(args.started) - (0.0 if pace is None else pace.spent)
        seconds = _sum(seconds, (before, before))  # what came so far, without what was measured, comes again
        basis = "" if pace is None else (
            f" on {pace.device}: {pace.steps} training steps, measured just now, took {pace.step:.2g} s each; "
            "a busy machine takes longer"
        )  # fmt: skip
        print(f"about {_duration(seconds)}{basis}")
        facts["seconds"] = [round(second, 1) for second in seconds]
    there = " (in place of what is there)" if args.out.exists() and args.verb != "run" else ""
    print(f"would write {args.out}{there}; nothing was written, and no LLM was asked")
    return {"dry_run": True, **facts}


def _not_rejected(rows: Dataset) -> Dataset:
    """Return the rows that are corrected."""
    if "label_status" not in rows.column_names:
        return rows
    return rows.select([i for i, status in enumerate(rows["label_status"][:]) if status != "rejected"])


def _sum(a: Seconds, b: Seconds) -> Seconds:
    return a[0] + b[0], a[1] + b[1]


def _count(least: int, most: int) -> str:
    return f"{most:,} models" if least == most else f"{least:,} to {most:,} models"


def _duration(seconds: Seconds) -> str:
    """Return a range of seconds as words, in the unit of its end."""
    unit, name = next((u, n) for u, n in ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))
                      if seconds[1] >= 2 * u or u == 1)  # fmt: skip
    low, high = seconds[0] / unit, max(1.0, seconds[1] / unit)
    digits = 0 if high >= 10 else 1 if unit > 1 else 0
    return f"{low:,.{digits}f} to {high:,.{digits}f} {name}"
