"""The verbs of the command line: each reads folders, calls one stage, writes a folder, and says what came of it.

A verb takes the parsed arguments and returns the facts that --json prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, GoldError, LLMError, MissingGoldError, OutputError
from hf_synth.folders import clear_disk_errors, read_dataset, read_manifest, work_folder, write_stage
from hf_synth.task import Task, access_of, list_tasks, load_task, strictest

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.llm import LLM

Facts = dict[str, Any]
TINY = "tiny"  # the encoder that is made on the spot


def tasks(args: argparse.Namespace) -> Facts | None:
    """List the tasks."""
    rows = [_task_facts(task, args.gold) for task in list_tasks()]
    if args.json:
        return {"tasks": rows}
    from hf_synth.report import markdown_table

    found = ["found"] if args.gold else []
    header = ["task", "kind", "access", "licence", "labels", *found, "files"]
    print(
        markdown_table(
            header,
            [
                [r["task"], r["kind"], r["access"], r["license"], len(r["labels"])]
                + [["no", "yes"][r["found"]] for _ in found]
                + ["; ".join(f[0] for f in r["files"].values()) or "none needed"]
                for r in rows
            ],
        )
    )
    return None


def _task_facts(task: Task, gold: Path | None) -> Facts:
    from hf_synth.reading import find_files

    names = ("name", "config", "version", "kind", "access", "license", "source_url", "description")
    facts: Facts = {"task": task.full_name, **{n: getattr(task, n) for n in names}, "labels": list(task.labels)}
    facts["files"] = {split: list(files) for split, files in task.files.items()}
    if gold is not None:
        try:
            facts["found"] = not task.files or bool(find_files(task, gold))
        except MissingGoldError:
            facts["found"] = False
    return facts


def gold(args: argparse.Namespace) -> Facts:
    """Read gold and write it as an exported folder."""
    from hf_synth.gold import load_gold

    task = load_task(args.task)
    splits = load_gold(task, args.path, seed=args.seed, mask_leaks=args.mask_leaks)
    write_stage(task, splits, args.out, stage="gold", seed=args.seed)
    rows = {split: len(part) for split, part in splits.items()}
    print(f"{task.full_name}: {_counts(rows)} -> {args.out} (access: {task.access})")
    return {"task": task.full_name, "rows": rows, "out": str(args.out), "access": task.access}


def generate(args: argparse.Namespace) -> Facts:
    """Ask the LLM for synthetic notes."""
    from hf_synth.generation import generate as make

    task = load_task(args.task)
    shown = _gold_rows(task, args)
    with _llm(args, args.gold or args.out.parent) as llm:
        rows = make(task, shown, llm, args.n, seed=args.seed, progress=not args.quiet)
    write_stage(task, rows, args.out, stage="generate", generator=args.llm, seed=args.seed, gold_rows=len(shown))
    counts = Counter(rows["label_status"])
    rejects = Counter(r for s, r in zip(rows["label_status"], rows["reason"], strict=True) if s == "rejected")
    print(f"{counts['kept']:,} notes, {counts['rejected']:,} rejected answers {dict(rejects) or ''} -> {args.out}")
    return {"out": str(args.out), "rows": counts["kept"], "rejected": dict(rejects)}


def correct(args: argparse.Namespace) -> Facts:
    """Correct the labels of synthetic notes."""
    from hf_synth.gold import load_gold
    from hf_synth.pipeline import correct_with_policy
    from hf_synth.training import trainer_fit

    task = load_task(args.task)
    rows = _synthetic_rows(task, args)
    if args.corrector:
        splits = load_gold(task, args.gold, seed=args.seed)
        split = args.split or ("validation" if "validation" in splits else "test")
        known = _split(splits, split)
        corrector: Any = args.corrector
    else:
        known = _gold_rows(task, args)
        base = _base_model(task, args, known, rows)
        folds = work_folder(args.out.parent if args.out.parent.exists() else Path()) / "folds"
        corrector = trainer_fit(task, base_model=base, args=_training_args(args), work_dir=folds, seed=args.seed)
    done, policy = correct_with_policy(task, rows, corrector, gold=known, method=args.method, seed=args.seed)
    facts = {"policy": policy.to_json(), "seed": args.seed, "gold_rows": len(known)}
    write_stage(task, done, args.out, stage="correct", **facts)
    counts = Counter(done["label_status"])
    print(f"by {policy.method}: {_counts(counts)} -> {args.out}")
    return {"out": str(args.out), "statuses": dict(counts), "policy": policy.method, "figures": dict(policy.figures)}


def augment(args: argparse.Namespace) -> Facts:
    """Join gold and corrected notes."""
    from hf_synth.augmentation import augment as join

    task = load_task(args.task)
    known = _gold_rows(task, args)
    rows = read_dataset(args.synthetic)
    joined = join(known, rows, strategy=args.strategy, ratio=args.ratio, seed=args.seed)
    write_stage(task, joined, args.out, stage="augment", strategy=args.strategy, ratio=args.ratio, seed=args.seed)
    counts = Counter(joined["source"])
    print(f"{_counts(counts)} -> {args.out}")
    return {"out": str(args.out), "rows": dict(counts)}


def train(args: argparse.Namespace) -> Facts:
    """Fine-tune an encoder."""
    from hf_synth.gold import load_gold
    from hf_synth.training import train as fit

    task = load_task(args.task)
    rows = read_dataset(args.data)
    validation = _split(load_gold(task, args.gold, seed=args.seed), "validation") if args.gold else None
    base = _base_model(task, args, rows, None)
    path = fit(task, rows, validation, base_model=base, output_dir=args.out, args=_training_args(args), seed=args.seed)
    print(f"{len(rows):,} rows -> {path}")
    return {"out": str(path), "rows": len(rows)}


def evaluate(args: argparse.Namespace) -> Facts:
    """Score a model on gold."""
    from hf_synth.evaluation import evaluate as score
    from hf_synth.gold import load_gold
    from hf_synth.journey import score_table

    task = load_task(args.task)
    splits = load_gold(task, args.gold, seed=args.seed)
    scores = score(task, args.model, _split(splits, args.split), exclude=splits.get("train"), seed=args.seed)
    print(score_table(task, {Path(args.model).name: scores}))
    facts: Facts = json.loads(json.dumps(scores.to_json()))
    if args.out:
        with clear_disk_errors(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def publish(args: argparse.Namespace) -> Facts | int:
    """Check, describe and publish."""
    from hf_synth.evaluation import Scores
    from hf_synth.gold import load_gold
    from hf_synth.publishing import publish_dataset, publish_model

    task = load_task(args.task)
    known = load_gold(task, args.gold, seed=args.seed)["train"] if args.gold or not task.files else None
    shared: Facts = {
        "gold": known,
        "private": True if args.private else False if args.public else None,
        "gated": True if args.gated else None,
        "push": args.push,
        "export_dir": args.out,
        "token": args.token,
        "endpoint": args.endpoint,
    }
    if (args.folder / "config.json").is_file():
        scores = Scores.from_json(json.loads(args.scores.read_text(encoding="utf-8"))) if args.scores else None
        verdict = publish_model(task, args.folder, scores, args.repo_id, **shared)
    else:
        verdict = publish_dataset(task, read_dataset(args.folder), args.repo_id, **shared)
    print(verdict)
    if args.json:
        print(json.dumps({"allowed": verdict.allowed, "reasons": list(verdict.reasons), "repo_id": args.repo_id}))
    return 0 if verdict.allowed else 1


def run(args: argparse.Namespace) -> Facts:
    """Make the whole journey."""
    from hf_synth.generation import generate as make
    from hf_synth.gold import load_gold, subset
    from hf_synth.journey import run as travel
    from hf_synth.journey import score_table

    if not args.synthetic and not args.llm:
        raise ColumnError("give the synthetic rows (--synthetic POOL) or an LLM to write them (--llm MODEL)")
    task = load_task(args.task)
    splits = load_gold(task, args.gold, seed=args.seed)
    rows: Any
    with contextlib.ExitStack() as stack:
        if args.synthetic:
            rows = _synthetic_rows(task, args)
        else:
            llm = stack.enter_context(_llm(args, args.gold or args.out))

            def rows(shown: Dataset) -> Dataset:
                return make(task, shown, llm, args.n, seed=args.seed, progress=not args.quiet)

        shown = subset(task, splits["train"], args.gold_size, seed=args.seed) if args.gold_size else splits["train"]
        base = _base_model(task, args, shown, rows if args.synthetic else None)
        made = travel(
            task, splits, rows, base_model=base, out=args.out, gold_size=args.gold_size, method=args.method,
            args=_training_args(args), seed=args.seed, say=_say(args),
        )  # fmt: skip
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


def hub_serve(args: argparse.Namespace) -> Facts | None:
    """Serve the local Hub."""
    from hf_synth.hub import serve

    serve(args.root, host=args.host, port=args.port)
    return None


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
    from hf_synth.gold import load_gold, subset

    rows = _split(load_gold(task, args.gold, seed=args.seed), "train")
    return subset(task, rows, args.gold_size, seed=args.seed) if args.gold_size else rows


def _synthetic_rows(task: Task, args: argparse.Namespace) -> Dataset:
    """Give synthetic rows: of our own stage as they are, rows made elsewhere brought into the column contract."""
    from hf_synth.gold import adopt

    rows = read_dataset(args.synthetic)
    manifest = read_manifest(args.synthetic) if args.synthetic.is_dir() else None
    if manifest is not None and "label_status" in rows.column_names:
        return rows
    return adopt(
        task, rows, text_columns=args.text_column, llm_label_column=args.llm_label_column, access=args.access,
        generator=args.synthetic.stem,
    )  # fmt: skip


@contextlib.contextmanager
def _llm(args: argparse.Namespace, beside: Path) -> Iterator[LLM]:
    """Give the LLM of the options; "simulator" starts the offline simulator for as long as it is needed."""
    from hf_synth.llm import LLM

    journal = args.journal or work_folder(beside if beside.exists() else Path()) / "journal.sqlite"
    options: Facts = {
        "concurrency": args.concurrency,
        "journal": journal,
        "budget_usd": args.budget_usd,
        "price": tuple(args.price) if args.price else None,
    }
    if args.llm == "simulator" and not args.base_url:
        from hf_synth.demo.simulator import running_simulator

        with running_simulator(seed=args.seed) as url:
            yield LLM("simulator", base_url=url, **options)
        return
    if not args.base_url and not os.environ.get("OPENAI_BASE_URL"):
        raise LLMError("give the endpoint with --base-url, e.g. http://127.0.0.1:8000/v1 (or set OPENAI_BASE_URL)")
    yield LLM(args.llm, base_url=args.base_url or os.environ["OPENAI_BASE_URL"], **options)


def _training_args(args: argparse.Namespace) -> Facts | None:
    """Read --set NAME=VALUE; the tiny encoder brings its own settings."""
    fields: Facts = {}
    if args.base_model == TINY:
        from hf_synth.demo.encoder import DEMO_ARGS

        fields |= DEMO_ARGS
    for pair in args.set:
        name, mark, value = pair.partition("=")
        if not mark or not name.isidentifier():
            raise ColumnError(f"--set takes NAME=VALUE, a field of TrainingArguments; got {pair!r}")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields or None


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
