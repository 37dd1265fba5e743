"""The verbs of the command line: each reads folders, calls one stage, writes a folder, and says what came of it.

A verb takes the parsed arguments and returns the facts that --json prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.options import gold_path, judge_of, name_value, writer_of
from hf_synth.errors import ColumnError, GoldError, MissingGoldError, OutputError, TaskError
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.columns import USAGE_COLUMNS, access_of, strictest
from hf_synth.task.folders import clear_disk_errors, read_manifest, work_folder, write_private, write_stage
from hf_synth.task.labels import MARKS, gold_marks
from hf_synth.task.scripts import list_tasks, load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.generation.generation import Estimate

Facts = dict[str, Any]
TINY = "tiny"  # the encoder that is made on the spot


def tasks(args: argparse.Namespace) -> Facts | None:
    """List the tasks."""
    rows = [_task_facts(task, args.gold) for task in list_tasks()]
    if args.json:
        return {"tasks": rows}
    for name in dict.fromkeys(r["name"] for r in rows):
        configs = [r for r in rows if r["name"] == name]
        first = configs[0]
        print(f"{name}  ({', '.join(first['suites'])}; {first['access']}; {first['license']})")
        print(f"    {first['description']}")
        kinds = dict.fromkeys(r["kind"] for r in configs)
        by_kind = {kind: ", ".join(r["task"] for r in configs if r["kind"] == kind) for kind in kinds}
        print("    configs  " + "; ".join(f"{names} ({kind})" for kind, names in by_kind.items()))
        if args.gold:
            found = [r["task"] for r in configs if r["found"]]
            print(
                f"    found    {', '.join(found) if len(found) < len(configs) else 'yes'}"
                if found
                else "    found    no"
            )
        files = dict.fromkeys(_shown(r, key) for r in configs for key in r["files"])
        print(f"    files    {', '.join(files) or 'none needed'}")
        if first["source_url"]:
            print(f"    from     {first['source_url']}")
        if first["unverified"]:
            print(f"    note     not verified: {first['unverified']}")
        print()
    print("own notes: hf-synth gold NOTES.csv --text-column NAME --label-column NAME --out DIR, or hf-synth new-task")
    return None


def _shown(facts: Facts, key: str) -> str:
    """Give the names of one file in short."""
    names = facts["files"][key]
    first = names[0] if len(names) == 1 else f"{names[0]} (or {names[1]}{', ...' if len(names) > 2 else ''})"
    return f"[{first}]" if {key, key.split("/")[0]} & set(facts["optional"]) else first


def _task_facts(task: Task, gold: Path | None) -> Facts:
    from hf_synth.gold.sources import all_files, find_files

    names = (
        "name",
        "config",
        "version",
        "kind",
        "access",
        "license",
        "suites",
        "source_url",
        "unverified",
        "description",
    )
    facts: Facts = {"task": task.full_name, **{n: getattr(task, n) for n in names}, "labels": list(task.labels)}
    facts["suites"] = list(task.suites)
    facts["optional"] = list(task.optional_files)
    facts["files"] = {key: list(files) for key, files in task.files.items()}
    if gold is not None:
        if not gold.exists():
            raise MissingGoldError(f"{gold} is no folder or file")
        facts["found"] = not task.files
        with contextlib.suppress(GoldError):
            facts["found"] = not task.files or any(True for _ in all_files(find_files(task, gold)))
    return facts


def gold(args: argparse.Namespace) -> Facts:
    """Read gold and write it as an exported folder."""
    from hf_synth.gold.gold import load_gold

    task, path = _own_task(args) if args.label_column else (load_task(args.task), args.path)
    options = dict(map(name_value, args.option))
    splits = load_gold(task, path, seed=args.seed, mask_leaks=args.mask_leaks, **options)
    write_stage(task, splits, args.out, stage="gold", seed=args.seed)
    rows = {split: len(part) for split, part in splits.items()}
    print(f"{task.full_name}: {_counts(rows)} -> {args.out} (access: {task.access})")
    return {"task": task.full_name, "rows": rows, "out": str(args.out), "access": task.access}


def _own_task(args: argparse.Namespace) -> tuple[Task, Path]:
    """Make a task from the columns of a table: `gold TABLE --text-column ... --label-column ...`."""
    from hf_synth.gold.own_table import task_from_table

    path = args.path or Path(args.task)
    if not args.text_column:
        raise ColumnError("name the column of the text too: --text-column NAME (twice for a pair)")
    task = task_from_table(
        path, text_columns=args.text_column, label_column=args.label_column, kind=args.kind,
        name=args.task if args.path else None, labels=[x.strip() for x in args.labels.split(",") if x.strip()],
        access=args.access, group_column=args.group_column,
    )  # fmt: skip
    return task, path


def new_task(args: argparse.Namespace) -> Facts:
    """Write a commented task script to fill in, and its test."""
    from hf_synth.gold.new_task import starter_files

    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        raise TaskError(f"{args.name!r} is no name for a task: lower case letters, digits and _, a letter first")
    files = {args.out / name: text for name, text in starter_files(args.name).items()}
    there = [path for path in files if path.exists()]
    if there:
        raise OutputError(f"{there[0]} is there already; choose another name, or --out DIR")
    with clear_disk_errors(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    script, test = map(str, files)
    print(f"{script}: fill it in; hf-synth gold {script} NOTES.csv --out DIR reads your notes with it")
    print(f"{test}: its test; run it with pytest")
    return {"script": script, "test": test}


def generate(args: argparse.Namespace) -> Facts:
    """Ask the LLM for synthetic notes, or with --dry-run say what it would take."""
    from hf_synth.generation.generation import estimate, generation_table
    from hf_synth.generation.generation import generate as make

    task = load_task(args.task)
    shown, how = _exemplars(task, args)
    if args.dry_run:
        return _say_estimate(estimate(task, shown, price=_price(args), **how), args)
    if args.out is None:
        raise OutputError("say where the notes go: --out DIR (or --dry-run to see what they would take)")
    with writer_of(args, gold_path(args) or args.out.parent) as llm:
        rows = make(task, shown, llm, seed=args.seed, progress=not args.quiet, **how)
    counts = Counter(rows["label_status"])
    rejects = Counter(r for s, r in zip(rows["label_status"], rows["reason"], strict=True) if s == "rejected")
    usage = {c: sum(v for v in rows[c] if v is not None) for c in USAGE_COLUMNS}
    facts = {"rejected": dict(rejects), **usage}
    write_stage(
        task, rows, args.out, stage="generate", generator=args.llm, seed=args.seed, gold_rows=len(shown),
        report=generation_table(rows), prompt=args.prompt, exemplars=args.choose, share=args.share,
        balance=args.balance, gold_marks=gold_marks(task, shown), **facts,
    )  # fmt: skip
    print(f"{counts['kept']:,} notes, {counts['rejected']:,} rejected answers {dict(rejects) or ''} -> {args.out}")
    dollars = f", ${usage['cost_usd']:,.2f}" if usage["cost_usd"] else ""
    print(f"{usage['prompt_tokens']:,} tokens read, {usage['completion_tokens']:,} written{dollars}")
    return {"out": str(args.out), "rows": counts["kept"], **facts}


def _price(args: argparse.Namespace) -> tuple[float, float] | None:
    from hf_synth.llm.llm import PRICES

    return tuple(args.price) if args.price else PRICES.get(args.llm)


def _say_estimate(guess: Estimate, args: argparse.Namespace) -> Facts:
    half = guess.cost_usd / 2 if guess.cost_usd is not None and args.batch else guess.cost_usd
    cost = "its price is not known: give --price" if half is None else f"about ${half:,.2f}"
    print(
        f"{sum(guess.rows.values()):,} notes in {guess.calls:,} calls (at most {guess.most_calls:,}), about "
        f"{guess.prompt_tokens:,} tokens read and {guess.completion_tokens:,} written; {cost}; nothing was asked"
    )
    return {"dry_run": True, **vars(guess), "cost_usd": half}


def correct(args: argparse.Namespace) -> Facts:
    """Correct the labels of synthetic notes."""
    from hf_synth.correction.audited import read_audited
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.correction.description import describe
    from hf_synth.models.record import weights_sha256

    task = load_task(args.task)
    rows = _synthetic_rows(task, args)
    _check_one_opinion(args)
    with contextlib.ExitStack() as stack:
        known, corrector = _corrector(task, rows, args, stack)
        done, policy = correct_with_policy(
            task, rows, corrector, gold=known, method=args.method, coverage=args.coverage, seed=args.seed,
            coverage_by_class=args.coverage_by_class,
            audited=read_audited(args.audited) if args.audited else None,
        )  # fmt: skip
    facts = {"policy": policy.to_json(), "seed": args.seed, "gold_rows": len(known), MARKS: gold_marks(task, known)}
    if args.corrector:
        facts["corrector"] = weights_sha256(args.corrector)
    told = describe(done, policy)
    write_stage(task, done, args.out, stage="correct", report=str(told), **facts)
    print(f"{told}\n\nby {policy.method}: {_counts(dict(told.statuses))} -> {args.out}")
    figures = dict(policy.figures)
    return {"out": str(args.out), "statuses": dict(told.statuses), "policy": policy.method, "figures": figures}


def regenerate(args: argparse.Namespace) -> Facts:
    """Ask again for notes that correction dropped, and correct all of them; with --dry-run only reckon."""
    from hf_synth.correction.audited import read_audited
    from hf_synth.correction.description import describe
    from hf_synth.correction.regeneration import estimate_again, regenerate_with_policy
    from hf_synth.models.record import weights_sha256

    task = load_task(args.task)
    rows = read_dataset(args.synthetic)
    manifest = (read_manifest(args.synthetic) if args.synthetic.is_dir() else None) or {}
    known = _gold_rows(task, args)
    shown = _shown_gold(task, known, args)
    if args.dry_run:
        guess = estimate_again(task, rows, shown, price=_price(args), prompt=args.prompt, seed=args.seed)
        return _say_estimate(guess, args)
    if args.out is None:
        raise OutputError("say where the notes go: --out DIR (or --dry-run to see what they would take)")
    _check_one_opinion(args)
    with contextlib.ExitStack() as stack:
        llm = stack.enter_context(writer_of(args, gold_path(args) or args.out.parent))
        measured, corrector = _corrector(task, rows, args, stack)
        done, policy = regenerate_with_policy(
            task,
            rows,
            corrector,
            llm,
            exemplars=shown,
            gold=measured,
            method=args.method,
            coverage=args.coverage,
            coverage_by_class=args.coverage_by_class,
            audited=read_audited(args.audited) if args.audited else None,
            rounds=args.rounds,
            prompt=args.prompt,
            seed=args.seed,
            progress=not args.quiet,
        )
    marks = sorted({*(manifest.get(MARKS) or ()), *gold_marks(task, known, measured)})
    facts = {"policy": policy.to_json() if policy else manifest.get("policy"), "seed": args.seed, MARKS: marks}
    facts |= {"generator": args.llm, "gold_rows": len(measured)}
    if args.corrector:
        facts["corrector"] = weights_sha256(args.corrector)
    told = describe(done, policy) if policy else None
    write_stage(task, done, args.out, stage="correct", report=str(told or ""), **facts)
    before, after = Counter(rows["label_status"]), Counter(done["label_status"])
    came = len(done) - len(rows)
    print(f"{told}\n" if told else "no new note came")
    print(f"before: {_counts(before)}\nnow: {_counts(after)}; {came:,} rows came -> {args.out}")
    return {"out": str(args.out), "statuses": dict(after), "new_rows": came}


def _check_one_opinion(args: argparse.Namespace) -> None:
    if args.judge and args.corrector:
        raise ColumnError("--judge and --corrector exclude each other: one opinion is joined with the generator's")


def sample(args: argparse.Namespace) -> Facts:
    """Draw synthetic notes for a person to label."""
    import csv
    import io

    from hf_synth.correction.audited import audit_sample

    task = load_task(args.task)
    beside = args.synthetic if args.synthetic.is_dir() else args.synthetic.parent
    rows = audit_sample(task, _synthetic_rows(task, args), args.n, by=args.by, seed=args.seed)
    path = args.out or work_folder(beside) / "audit_sample.csv"
    if path.exists():
        raise OutputError(f"{path} is there already, and may hold labels that a person gave; name another with --out")
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(rows.column_names)
    writer.writerows(row.values() for row in rows)
    write_private(path, table.getvalue())
    strata = Counter(rows["stratum"])
    print(f"{len(rows):,} notes of {len(strata)} strata -> {path}")
    print(f"fill in its column label, one of: {', '.join(task.labels)}")
    print(f"then: hf-synth correct {args.task} {args.synthetic} --audited {path} ...")
    return {"out": str(path), "rows": len(rows), "strata": dict(strata)}


def _corrector(task: Task, rows: Dataset, args: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[Dataset, Any]:
    """Give the gold that a corrector is measured on, and the corrector: a judge, a model, or what trains one."""
    from hf_synth.gold.gold import load_gold
    from hf_synth.models.training import trainer_fit

    if args.judge:
        return _gold_rows(task, args), stack.enter_context(
            judge_of(task, args, args.judge, gold_path(args) or args.out.parent)
        )
    if args.corrector:
        splits = load_gold(task, gold_path(args), seed=args.seed)
        return _split(splits, args.split or ("validation" if "validation" in splits else "test")), args.corrector
    known = _gold_rows(task, args)
    base = _base_model(task, args, known, rows)
    folds = work_folder(args.out.parent if args.out.parent.exists() else Path()) / "folds"
    return known, trainer_fit(
        task, base_model=base, args=_training_args(args), work_dir=folds, seed=args.seed, **_training_options(args)
    )


def augment(args: argparse.Namespace) -> Facts:
    """Join gold and corrected notes."""
    from hf_synth.correction.augmentation import augment as join

    task = load_task(args.task)
    known = _gold_rows(task, args)
    rows = read_dataset(args.synthetic)
    joined = join(task, rows, gold=known, strategy=args.strategy, ratio=args.ratio, seed=args.seed)
    write_stage(task, joined, args.out, stage="augment", strategy=args.strategy, ratio=args.ratio, seed=args.seed)
    counts = Counter(joined["source"])
    print(f"{_counts(counts)} -> {args.out}")
    return {"out": str(args.out), "rows": dict(counts)}


def train(args: argparse.Namespace) -> Facts:
    """Fine-tune an encoder."""
    from hf_synth.gold.gold import load_gold
    from hf_synth.models.training import train as fit

    task = load_task(args.task)
    rows = read_dataset(args.data)
    validation = _split(load_gold(task, gold_path(args), seed=args.seed), "validation") if args.gold else None
    base = _base_model(task, args, rows, None)
    path = fit(
        task, rows, validation, base_model=base, output_dir=args.out, args=_training_args(args), seed=args.seed,
        resume=args.resume, **_training_options(args),
    )  # fmt: skip
    print(f"{len(rows):,} rows -> {path}")
    return {"out": str(path), "rows": len(rows)}


def evaluate(args: argparse.Namespace) -> Facts:
    """Score a model on gold."""
    from hf_synth.evaluation.baselines import frequency_baseline
    from hf_synth.evaluation.evaluation import evaluate as score
    from hf_synth.evaluation.evaluation import predict
    from hf_synth.experiments.journey import score_table
    from hf_synth.gold.gold import load_gold

    task = load_task(args.task)
    splits = load_gold(task, gold_path(args), seed=args.seed)
    rows, known = _split(splits, args.split), splits.get("train") if args.split != "train" else None
    said = predict(task, args.model, rows)
    scores = score(task, args.model, rows, predicted=said, exclude=known, seed=args.seed)
    lines = {Path(args.model).name: scores}
    if scores.excluded:
        lines[f"without {scores.n - scores.excluded.n:,} rows that stand in train too"] = scores.excluded
    if known is not None and len(known):
        lines["most frequent in train"] = frequency_baseline(task, known, rows, seed=args.seed)
    print(score_table(task, lines))
    facts: Facts = json.loads(json.dumps(scores.to_json()))
    if args.subgroups:
        facts["subgroups"] = _subgroups(task, args, rows, said, scores.values)
    if args.out:
        with clear_disk_errors(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _subgroups(task: Task, args: argparse.Namespace, rows: Dataset, said: Any, values: Facts) -> list[Facts]:
    """Print subgroups, and what is said when only the patient is another; give both as facts."""
    from hf_synth.evaluation.demographics import ATTRIBUTES
    from hf_synth.evaluation.subgroups import score_subgroups, subgroup_table, swap_counterfactual

    made = score_subgroups(task, rows, said, columns=args.subgroup_column or None, seed=args.seed)
    shown = [m for m in (*task.metrics, "macro_f1", "accuracy") if m in values]
    print("\n" + subgroup_table(made, list(dict.fromkeys(shown))[:2]))
    swapped = []
    if task.kind != "text2text":
        for attribute in ATTRIBUTES:
            swapped += swap_counterfactual(task, args.model, rows, attribute, seed=args.seed)
        if swapped:
            print("\nPredictions when only the patient's words are swapped:\n\n" + subgroup_table(swapped))
        else:
            print("\nNo note says who its patient is: nothing can be swapped.")
    return [vars(s) | {"what": what} for what, some in (("scores", made), ("swapped", swapped)) for s in some]


def run(args: argparse.Namespace) -> Facts:
    """Make the whole journey."""
    from hf_synth.experiments.journey import run as travel
    from hf_synth.experiments.journey import score_table
    from hf_synth.generation.generation import generate as make
    from hf_synth.gold.gold import load_gold, subset

    if not args.synthetic and not args.llm:
        raise ColumnError("give the synthetic rows (--synthetic POOL) or an LLM to write them (--llm MODEL)")
    task = load_task(args.task)
    splits = load_gold(task, gold_path(args), seed=args.seed)
    rows: Any
    with contextlib.ExitStack() as stack:
        if args.synthetic:
            rows = _synthetic_rows(task, args)
        else:
            llm = stack.enter_context(writer_of(args, gold_path(args) or args.out))

            def rows(shown: Dataset) -> Dataset:
                pool, how = _chosen(task, shown, args)
                return make(task, pool, llm, seed=args.seed, progress=not args.quiet, **how)

        shown = subset(task, splits["train"], args.gold_size, seed=args.seed) if args.gold_size else splits["train"]
        base = _base_model(task, args, shown, rows if args.synthetic else None)
        made = travel(
            task,
            rows,
            gold=splits,
            base_model=base,
            out=args.out,
            gold_size=args.gold_size,
            method=args.method,
            training={"args": _training_args(args), **_training_options(args)},
            seed=args.seed,
            say=_say(args),
        )
    statuses = Counter(made.corrected["label_status"])
    print(
        f"correction by {made.policy.method}: {_counts(statuses)}\n\n{score_table(task, made.scores)}\n\n-> {args.out}"
    )
    return {
        "task": task.full_name, "policy": made.policy.method, "statuses": dict(statuses), "out": str(args.out),
        "scores": {n: s.to_json() for n, s in made.scores.items()}, "seconds": made.seconds,
    }  # fmt: skip


def demo(args: argparse.Namespace) -> Facts:
    """Show the whole journey on artificial notes."""
    from hf_synth.demo.journey import demo as show

    facts = show(args.out, seed=args.seed, full=args.full, say=_say(args))
    args.json = True  # the demo always ends with its one JSON object
    return facts


# --- what the verbs share -------------------------------------------------------------------------------------------
def _say(args: argparse.Namespace) -> Any:
    return (lambda line: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))


def _counts(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def _split(splits: DatasetDict, name: str) -> Dataset:
    if name not in splits:
        raise GoldError(f"the gold has no split {name!r}; it has {', '.join(splits)}")
    return splits[name]


def _gold_rows(task: Task, args: argparse.Namespace) -> Dataset:
    """Give the gold rows for training that a verb may use."""
    from hf_synth.gold.gold import load_gold, subset

    rows = _split(load_gold(task, gold_path(args), seed=args.seed), "train")
    return subset(task, rows, args.gold_size, seed=args.seed) if args.gold_size else rows


def _exemplars(task: Task, args: argparse.Namespace) -> tuple[Dataset, Facts]:
    """Give the gold rows that may be shown, and the other arguments of `generate`."""
    return _chosen(task, _gold_rows(task, args), args)


def _shown_gold(task: Task, gold: Dataset, args: argparse.Namespace) -> Dataset:
    from hf_synth.generation.exemplars import choose_exemplars

    return choose_exemplars(task, gold, args.choose, share=args.share, seed=args.seed) if args.choose else gold


def _chosen(task: Task, gold: Dataset, args: argparse.Namespace) -> tuple[Dataset, Facts]:
    n = args.n if args.ratio is None else round(args.ratio * len(gold))
    return _shown_gold(task, gold, args), {
        "n": n,
        "prompt": args.prompt,
        "balance": args.balance,
        "max_calls": args.max_calls,
    }


def _synthetic_rows(task: Task, args: argparse.Namespace) -> Dataset:
    """Give synthetic rows: of our own stage as they are, rows made elsewhere brought into the column contract."""
    from hf_synth.gold.adoption import adopt

    rows = read_dataset(args.synthetic)
    manifest = read_manifest(args.synthetic) if args.synthetic.is_dir() else None
    if manifest is not None and "label_status" in rows.column_names:
        return rows
    return adopt(
        task, rows, text_columns=args.text_column, llm_label_column=args.llm_label_column, access=args.access,
        generator=args.synthetic.stem,
    )  # fmt: skip


def _training_args(args: argparse.Namespace) -> Facts | None:
    """Read --set NAME=VALUE; the tiny encoder brings its own settings."""
    fields: Facts = {}
    if args.base_model == TINY:
        from hf_synth.demo.encoder import DEMO_ARGS

        fields |= DEMO_ARGS
    fields |= dict(map(name_value, args.set))
    return fields or None


def _training_options(args: argparse.Namespace) -> Facts:
    """Give the options of `train` but for its arguments."""
    names = {"revision": args.base_revision, "long_notes": args.long_notes, "lora": args.lora, "cache_dir": args.cache}
    return {**names, "class_weights": args.class_weights}


def _base_model(task: Task, args: argparse.Namespace, gold: Dataset, more: Dataset | None) -> str | Path:
    """Give the base model of the options; "tiny" is made from open texts only: a vocabulary holds names."""
    if args.base_model != TINY:
        return str(args.base_model)
    from hf_synth.demo.clinic import write_notes
    from hf_synth.demo.encoder import make_encoder

    parts = [gold] if more is None else [gold, more]
    if strictest(task.access, *(access_of(part) for part in parts)) == "open":
        texts = [t for part in parts for c in task.text_columns for t in part[c] if t]
    else:
        texts = [note.text for note in write_notes(3_000, seed=args.seed)]
    out = args.out if args.out.suffix == "" else args.out.parent
    folder = work_folder(out.parent if not out.exists() else out) / f"tiny-{task.name}-{args.seed}"
    try:
        return make_encoder(texts, folder, seed=args.seed)
    except OSError:
        raise OutputError(f"{folder}: cannot be written; choose another --out") from None
