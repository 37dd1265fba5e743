"""The verb `correct`: correct labels, and promise how many are wrong at most. `regenerate` shares its options."""

from __future__ import annotations

import contextlib
import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hf_synth
from hf_synth.cli import cluster, llms, options
from hf_synth.cli.checks import check_verb, needs_base_model
from hf_synth.cli.options import Result, count_text
from hf_synth.cli.outlook import correct_outlook
from hf_synth.cli.parsing import exclude
from hf_synth.cli.stopping import keeping_answers
from hf_synth.errors import ColumnError, OutputError

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.correction.methods import CorrectionOptions
    from hf_synth.correction.policy import Policy
    from hf_synth.correction.promise import Promise
    from hf_synth.task.task import Task

_PROMISE = "promise.json"  # in .hf_synth of a corrected folder: the sample of a promise under way
_REWRITTEN = ("stage", "task", "task_version", "access", "definition", "rows", "policy", "sample")  # of a manifest


def add_correct_options(parser: ArgumentParser) -> None:
    """Add the options of `correct`."""
    options.add_task(parser)
    parser.add_argument("synthetic", type=Path, metavar="SYNTHETIC", help="folder of `generate`, or a table of rows")
    options.add_gold(parser)
    options.add_columns(parser)
    options.add_model(parser)
    add_method(parser)
    options.add_out(parser, "folder for the corrected notes")
    options.add_dry_run(parser)
    options.add_seed(parser)
    _add_promise(parser)
    cluster.add_machines(parser, " (with --corrector or --judge)")
    options.add_endpoint(parser)


def add_method(parser: ArgumentParser) -> None:
    """Add the corrector or judge, the method and the audited rows."""
    add = parser.add_argument
    text = "a trained model that corrects, instead of training one; it must not have seen the gold split of --split"
    add("--corrector", metavar="MODEL", help=text)
    options.add_method(parser, "llm_judge")
    text = "with --corrector: gold split that it never saw (default: validation, else test)"
    add("--split", default=None, metavar="SPLIT", help=text)
    text = "labels that a person gave: the file that `sample` wrote, or a table with columns id and label"
    add("--audited", type=Path, metavar="FILE", help=text)
    text = "a share, e.g. 0.9: keep the LLM's label where the conformal set of this coverage has not exactly one label"
    add("--coverage", type=float, metavar="C", help=text)
    add("--coverage-by-class", action="store_true", help="with --coverage: reach C in each class, not only overall")
    add("--judge", metavar="MODEL", help="an LLM that labels gold and notes, instead of a corrector")
    exclude(parser, "--corrector", "--judge")
    options.add_votes(parser, "with --judge: ")


def _add_promise(parser: ArgumentParser) -> None:
    """Add the promise about wrong labels."""
    group = parser.add_argument_group("how many labels may be wrong")
    text = (
        "promise that at most this share of all labels is wrong, e.g. 0.05; DIR then also holds a file of notes for a "
        "person to label, and the same command with --audited FILE goes on"
    )
    group.add_argument("--error", type=float, metavar="E", help=text)
    text = "with --error: confidence of that promise (default: 0.95)"
    group.add_argument("--confidence", type=float, default=0.95, metavar="P", help=text)


def correct(args: Namespace) -> Result:
    """Correct the labels of synthetic notes; with --error promise how many of them are wrong."""
    import dataclasses

    from hf_synth.correction.advice import advise_metric
    from hf_synth.correction.audited import powered_accuracy
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.correction.description import describe
    from hf_synth.correction.promise import check_goal
    from hf_synth.generation.claims import CORRECTED_CLAIM, UNCORRECTED_CLAIM, is_synthetic_gold
    from hf_synth.task.folders import write_stage
    from hf_synth.task.labels import MARKS, column_of, gold_marks

    check_one_opinion(args)
    spread = cluster.check_machines(args, error=args.error is not None, dry_run=args.dry_run)
    task = hf_synth.load_task(args.task)
    if args.error is not None:
        check_goal(task, args.error, args.confidence)
        if (state := _read_open_promise(args)) is not None and not args.dry_run:  # nothing is trained or asked
            check_verb(task, args, out="own")
            return _continue_promise(task, args, state)
    check_options(task, args)
    rows = options.synthetic_rows(task, args)
    if args.dry_run:
        return correct_outlook(task, args, rows, corrector_gold(task, args))
    how, opinions = method_options(task, args, rows), None
    with contextlib.ExitStack() as stack:
        if args.judge:
            beside = options.gold_path(args) or args.out.parent
            stack.enter_context(keeping_answers(args, beside, "; labels are corrected again"))
        gold, corrector = corrector_of(task, rows, args, stack)
        if spread:
            from hf_synth.cluster.stages import opinion_work

            folder = cluster.blocks_of(args)
            shared = opinion_work(task, rows, corrector, gold=gold, folder=folder, options=how)
            if (part := cluster.computed(args, shared.work)) is not None:
                return part
            opinions = shared.opinions()
        corrected, policy = correct_with_policy(task, rows, corrector, gold=gold, options=how, opinions=opinions)
    if how.audited:
        more = powered_accuracy(task, corrected, how.audited, gold)
        policy = dataclasses.replace(policy, figures={**policy.figures, **more})
    if args.error is not None:
        return _begin_promise(task, args, corrected, policy, gold, corrector_facts(args, corrector))
    facts = {"policy": policy.to_json(), "seed": args.seed, "gold_rows": len(gold), MARKS: gold_marks(task, gold)}
    report = describe(corrected, policy)
    write_stage(
        task, corrected, args.out, stage="correct", report=str(report), **facts, **corrector_facts(args, corrector)
    )
    if spread:
        cluster.clear(args, shared.work)
    statuses = dict(report.statuses)
    print(f"{report}\n\nby {policy.method}: {count_text(statuses)} -> {args.out}")
    if (advice := advise_metric(task, gold, policy)) is not None:
        print(advice)
    if is_synthetic_gold(column_of(gold, "source", "gold")):
        print(f"what may be claimed: {UNCORRECTED_CLAIM if policy.method == 'none' else CORRECTED_CLAIM}")
    return {"out": str(args.out), "statuses": statuses, "policy": policy.method, "figures": dict(policy.figures)}


def _begin_promise(
    task: Task, args: Namespace, corrected: Dataset, policy: Policy, gold: Dataset, corrector_facts: Result
) -> Result:
    """Write the corrected rows, the sample of the promise and the file of rows to look at, in this order."""
    import dataclasses

    from hf_synth.correction import promise as promises
    from hf_synth.correction.description import describe
    from hf_synth.task.folders import WORK, work_folder, write_private, write_stage
    from hf_synth.task.labels import MARKS, gold_marks

    sure = promises.label_certainties(task, corrected, gold)
    sample = promises.draw_sample(
        task, corrected, error=args.error, confidence=args.confidence, sure=sure.tolist(), seed=args.seed
    )
    promised = promises.promise(task, corrected, sample)
    policy = dataclasses.replace(policy, figures={**policy.figures, **promised.figures})
    facts = {"policy": policy.to_json(), "seed": args.seed, "gold_rows": len(gold), MARKS: gold_marks(task, gold)}
    report = describe(corrected, policy)
    (args.out / WORK / _PROMISE).unlink(missing_ok=True)  # of an earlier promise about other labels
    write_stage(task, corrected, args.out, stage="correct", report=str(report), **facts, **corrector_facts)
    plain = promises.sample_to_json(task, corrected, sample)
    write_private(work_folder(args.out) / _PROMISE, json.dumps(plain) + "\n")
    print(report)
    return _print_promise(task, args, promised, policy.to_json(), dict(report.statuses))


def _read_open_promise(args: Namespace) -> Result | None:
    """Return the manifest of a folder that holds a promise, with its sample under "sample"; None for any other."""
    from hf_synth.task.folders import WORK, read_manifest

    manifest = read_manifest(args.out) if args.out.is_dir() else None
    file = args.out / WORK / _PROMISE
    if not manifest or "promise" not in ((manifest.get("policy") or {}).get("figures") or {}) or not file.is_file():
        return None
    try:
        sample = json.loads(file.read_text(encoding="utf-8"))
        before = sample["error"], sample["confidence"]
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{file} is broken: correct the notes again into a new folder") from None
    if before != (args.error, args.confidence):
        raise OutputError(
            f"{args.out} holds a promise of --error {before[0]} --confidence {before[1]}, which cannot change after "
            "its sample was drawn: give the same, or another folder with --out"
        )
    return manifest | {"sample": sample}


def _continue_promise(task: Task, args: Namespace, state: Result) -> Result:
    """Read the labels that people gave, and print which rows come next; at the end write the labels into the folder."""
    from hf_synth.correction import promise as promises
    from hf_synth.correction.audited import check_ids, read_labels, read_rejected
    from hf_synth.correction.description import describe
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import write_stage

    if state.get("task") != task.full_name:
        raise OutputError(f"{args.out} holds rows of task {state.get('task')}: give another folder with --out")
    rows, policy = read_dataset(args.out), dict(state["policy"])
    statuses = dict(describe(rows).statuses)
    if policy["figures"]["promise"] == "holds":
        print(f"{describe(rows, policy)}\n\nthe promise of {args.out} holds already; its figures are above")
        return {"out": str(args.out), "statuses": statuses, "policy": policy["method"], "figures": policy["figures"]}
    labels = read_labels(args.audited, task) if args.audited else {}
    rejected = read_rejected(args.audited) if args.audited else frozenset()
    if args.audited:
        check_ids(args.audited, rows["id"][:], str(args.out))
    promised = promises.promise(task, rows, promises.sample_from_json(task, rows, state["sample"]), labels, rejected)
    if promised.holds:
        rows = promises.with_labels(task, rows, labels, rejected)
        policy["figures"] = {**policy["figures"], **promised.figures}
        report = describe(rows, policy)
        statuses = dict(report.statuses)
        facts = {name: value for name, value in state.items() if name not in _REWRITTEN} | {"policy": policy}
        write_stage(task, rows, args.out, stage="correct", report=str(report), **facts)
        print(report)
    return _print_promise(task, args, promised, policy, statuses)


def _print_promise(task: Task, args: Namespace, promised: Promise, policy: Result, statuses: Result) -> Result:
    """Print what is promised and what comes next, and write the rows to look at; return the result of the verb."""
    result: Result = {"out": str(args.out), "statuses": statuses, "policy": policy["method"]}
    result |= {"figures": policy["figures"] | promised.figures, "to_look_at": len(promised.plan.look), "file": None}
    print(f"\n{promised}")
    if promised.holds:
        print(f"\nby {policy['method']}: {count_text(statuses)} -> {args.out}")
        return result
    path = _file_to_look_at(args, promised.look)
    print(f"fill in the column label of {path}, one of: {', '.join(task.labels)}")
    print(f"then run the same command again with --audited {path}; {args.out} stays as it is until the promise holds")
    return result | {"file": str(path)}


def _file_to_look_at(args: Namespace, look: Dataset) -> Path:
    """Return the file with exactly these rows, which a person may have begun to label; else write a new one."""
    from hf_synth.correction.audited import read_ids
    from hf_synth.task.folders import work_folder

    ids, number = set(look["id"][:]), 1
    if args.audited and args.audited.is_file() and set(read_ids(args.audited)) == ids:
        return Path(args.audited)
    while (path := work_folder(args.out) / f"look_at_{number}.csv").exists():
        if set(read_ids(path)) == ids:
            return path
        number += 1
    return write_table(look, path)


def method_options(task: Task, args: Namespace, rows: Dataset) -> CorrectionOptions:
    """Return the options that `correct` and `regenerate` share.

    Raises:
        RowError: the table of --audited is wrong, or has a row that is none of these rows.
    """
    from hf_synth.correction.audited import check_ids, read_audited
    from hf_synth.correction.methods import CorrectionOptions

    audited = read_audited(args.audited, task) if args.audited else None
    if args.audited:
        check_ids(args.audited, rows["id"][:] if "id" in rows.column_names else ())
    return CorrectionOptions(args.method, audited, args.coverage, args.coverage_by_class, args.seed, args.auto_metric)


def check_options(task: Task, args: Namespace) -> None:
    """Check the options of `correct` and `regenerate`."""
    from hf_synth.correction.methods import check_method

    options.correction_options(task, args)
    if args.method != "llm_judge":
        check_method(task.kind, args.method)
    models = [args.corrector] if args.corrector and args.method != "none" else []
    trains = needs_base_model(args) and not getattr(args, "dry_run", False)
    check_verb(task, args, trains=trains, models=models)


def check_one_opinion(args: Namespace) -> None:
    """Check that --judge and --corrector are not given together."""
    if args.judge and args.corrector:
        raise ColumnError("--judge and --corrector exclude each other: one opinion is joined with the generator's")


def corrector_gold(task: Task, args: Namespace) -> Dataset:
    """Return the gold that a corrector is measured on: rows that a trained one never saw, else those to train on."""
    if not args.corrector:
        return options.training_gold(task, args)
    splits = options.gold_of(task, args)
    return options.split_of(splits, args.split or ("validation" if "validation" in splits else "test"))


def corrector_of(task: Task, rows: Dataset, args: Namespace, stack: contextlib.ExitStack) -> tuple[Dataset, Any]:
    """Return the gold that a corrector is measured on, and the corrector: a judge, a model, or a trainer."""
    gold = corrector_gold(task, args)
    if args.corrector:
        return gold, args.corrector
    if args.judge:
        beside = options.gold_path(args) or args.out.parent
        return gold, stack.enter_context(llms.judge_of(task, args, args.judge, beside))
    if not needs_base_model(args):
        return gold, _refuse_to_train
    from hf_synth.models.training import trainer_fit
    from hf_synth.task.folders import work_folder

    base = options.base_model(task, args, gold, rows)
    folds = work_folder(args.out.parent if args.out.parent.exists() else Path()) / "folds"
    keywords = options.training_options(task, args)
    return gold, trainer_fit(task, base_model=base, work_dir=folds, seed=args.seed, **keywords)


def _refuse_to_train(_rows: Dataset) -> Any:
    raise AssertionError("no corrector is trained")


def corrector_facts(args: Namespace, corrector: Any) -> Result:
    """Return facts of the input for the manifest: the digest of the corrector or judge, and rows that a person edited.

    The input's own facts about the model file that wrote it, and about earlier edits, are passed on.
    """
    from hf_synth.models.record import weights_sha256
    from hf_synth.task.folders import FOLLOWS, edited_digests, read_manifest

    before = (read_manifest(args.synthetic) if args.synthetic.is_dir() else None) or {}
    facts: Result = {name: before[name] for name in ("weights", FOLLOWS) if before.get(name)}
    facts |= llms.weights_facts(getattr(corrector, "llm", None), "judge_weights")
    facts |= {"corrector": weights_sha256(args.corrector)} if args.corrector else {}
    if edited := edited_digests(args.synthetic):
        options.progress_of(args)(f"{args.synthetic} was edited by hand ({', '.join(edited)}): taken as approved")
        facts[FOLLOWS] = {**facts.get(FOLLOWS, {}), **edited}
    return facts


def write_table(rows: Dataset, path: Path) -> Path:
    """Write rows as a .csv that only its owner can read, for a person's spreadsheet."""
    from hf_synth.correction.audited import sample_csv
    from hf_synth.task.folders import write_private

    return write_private(path, sample_csv(rows))
