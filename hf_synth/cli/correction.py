"""The verbs `correct`, `regenerate`, `sample` and `label`: correct labels, replace what was dropped."""

from __future__ import annotations

import contextlib
import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hf_synth
from hf_synth.cli import llms, options
from hf_synth.cli.checks import check_verb, needs_base_model
from hf_synth.cli.options import ACCESSES, METHODS, Result, count_text
from hf_synth.errors import ColumnError, OutputError
from hf_synth.task.columns import names_shown

if TYPE_CHECKING:
    from datasets import Dataset

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
    _add_method(parser)
    options.add_out(parser, "folder for the corrected notes")
    options.add_seed(parser)
    _add_promise(parser)
    options.add_endpoint(parser)


def _add_method(parser: ArgumentParser) -> None:
    """Add the corrector or judge, the method and the audited rows."""
    add = parser.add_argument
    text = "a trained model that corrects, instead of training one; it must not have seen the gold split of --split"
    add("--corrector", metavar="MODEL", help=text)
    text = "how labels are corrected; auto chooses by the gold (default: auto)"
    add("--method", choices=(*METHODS, "llm_judge"), default="auto", help=text)
    text = "with --corrector: gold split that it never saw (default: validation, else test)"
    add("--split", default=None, metavar="SPLIT", help=text)
    text = "labels that a person gave: the file that `sample` wrote, or a table with columns id and label"
    add("--audited", type=Path, metavar="FILE", help=text)
    text = "keep the LLM's label where the conformal set at coverage C has not exactly one label"
    add("--coverage", type=float, metavar="C", help=text)
    add("--coverage-by-class", action="store_true", help="with --coverage: reach C in each class, not only overall")
    add("--judge", metavar="MODEL", help="an LLM that labels gold and notes anew, instead of a corrector")
    options.add_votes(parser)


def _add_promise(parser: ArgumentParser) -> None:
    """Add the promise about wrong labels."""
    group = parser.add_argument_group("how many labels may be wrong")
    text = (
        "promise that at most this share of all labels is wrong, e.g. 0.05; DIR then also holds a file of notes for a "
        "person to label, and the same command with --audited FILE goes on"
    )
    group.add_argument("--error", type=float, metavar="E", help=text)
    group.add_argument(
        "--confidence", type=float, default=0.95, metavar="P", help="confidence of that promise (default: 0.95)"
    )


def correct(args: Namespace) -> Result:
    """Correct the labels of synthetic notes; with --error promise how many of them are wrong."""
    import dataclasses

    from hf_synth.correction.audited import powered_accuracy
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.correction.description import describe
    from hf_synth.correction.promise import check_goal
    from hf_synth.task.folders import write_stage
    from hf_synth.task.labels import MARKS, gold_marks

    _check_one_opinion(args)
    task = hf_synth.load_task(args.task)
    _check(task, args)
    if args.error is not None:
        check_goal(task, args.error, args.confidence)
        if (state := _promise_under_way(args)) is not None:
            return _go_on(task, args, state)
    rows = options.synthetic_rows(task, args)
    how = _method(task, args)
    with contextlib.ExitStack() as stack:
        gold, corrector = _corrector(task, rows, args, stack)
        corrected, policy = correct_with_policy(task, rows, corrector, gold=gold, **how)
    if how["audited"]:
        more = powered_accuracy(task, corrected, how["audited"], gold)
        policy = dataclasses.replace(policy, figures={**policy.figures, **more})
    if args.error is not None:
        return _begin_promise(task, args, corrected, policy, gold, _corrector_facts(args, corrector))
    facts = {"policy": policy.to_json(), "seed": args.seed, "gold_rows": len(gold), MARKS: gold_marks(task, gold)}
    report = describe(corrected, policy)
    write_stage(
        task, corrected, args.out, stage="correct", report=str(report), **facts, **_corrector_facts(args, corrector)
    )
    statuses = dict(report.statuses)
    print(f"{report}\n\nby {policy.method}: {count_text(statuses)} -> {args.out}")
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

    sure = promises.sureness(task, corrected, gold)
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


def _promise_under_way(args: Namespace) -> Result | None:
    """Return the manifest of a folder that holds a promise, with its sample under "sample"; None of any other."""
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


def _go_on(task: Task, args: Namespace, state: Result) -> Result:
    """Take the labels that people gave, and say which rows come next; write them into the folder in the end."""
    from hf_synth.correction import promise as promises
    from hf_synth.correction.audited import read_labels
    from hf_synth.correction.description import describe
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import write_stage

    if state.get("task") != task.full_name:
        raise OutputError(f"{args.out} holds rows of task {state.get('task')}: give another folder with --out")
    rows, policy = read_dataset(args.out), dict(state["policy"])
    statuses = dict(describe(rows).statuses)
    if policy["figures"]["promise"] == "holds":
        print(f"{describe(rows, policy)}\n\nthe promise of {args.out} holds already: its figures stand above")
        return {"out": str(args.out), "statuses": statuses, "policy": policy["method"], "figures": policy["figures"]}
    labels = read_labels(args.audited, task) if args.audited else {}
    promised = promises.promise(task, rows, promises.sample_from_json(task, rows, state["sample"]), labels)
    if promised.holds:
        rows = promises.with_labels(task, rows, labels)
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
    return _write_table(look, path)


def _method(task: Task, args: Namespace) -> Result:
    """Return the keywords that `correct` and `regenerate` share."""
    from hf_synth.correction.audited import read_audited

    names = ("method", "coverage", "coverage_by_class", "seed")
    audited = read_audited(args.audited, task) if args.audited else None
    return {**{name: getattr(args, name) for name in names}, "audited": audited}


def _check(task: Task, args: Namespace) -> None:
    """Check the options of `correct` and `regenerate`."""
    from hf_synth.correction.methods import check_method

    if args.method != "llm_judge":
        check_method(task.kind, args.method)
    models = [args.corrector] if args.corrector and args.method != "none" else []
    trains = needs_base_model(args) and not getattr(args, "dry_run", False)
    check_verb(task, args, trains=trains, models=models)


def _check_one_opinion(args: Namespace) -> None:
    if args.judge and args.corrector:
        raise ColumnError("--judge and --corrector exclude each other: one opinion is joined with the generator's")


def _corrector(task: Task, rows: Dataset, args: Namespace, stack: contextlib.ExitStack) -> tuple[Dataset, Any]:
    """Return the gold that a corrector is measured on, and the corrector: a judge, a model, or a trainer."""
    if args.corrector:
        splits = options.gold_of(task, args)
        unseen = args.split or ("validation" if "validation" in splits else "test")
        return options.split_of(splits, unseen), args.corrector
    gold = options.training_gold(task, args)
    if args.judge:
        beside = options.gold_path(args) or args.out.parent
        return gold, stack.enter_context(llms.judge_of(task, args, args.judge, beside))
    if not needs_base_model(args):
        return gold, _untrained
    from hf_synth.models.training import trainer_fit
    from hf_synth.task.folders import work_folder

    base = options.base_model(task, args, gold, rows)
    folds = work_folder(args.out.parent if args.out.parent.exists() else Path()) / "folds"
    keywords = options.training_options(task, args)
    return gold, trainer_fit(task, base_model=base, work_dir=folds, seed=args.seed, **keywords)


def _untrained(_rows: Dataset) -> Any:
    raise AssertionError("no corrector is trained")


def _corrector_facts(args: Namespace, corrector: Any) -> Result:
    """Return what a manifest says of the input: the digest of the corrector or judge, and rows that a person edited."""
    from hf_synth.models.record import weights_sha256
    from hf_synth.task.folders import FOLLOWS, edited_digests

    facts = llms.weights_facts(getattr(corrector, "llm", None), "judge_weights")
    facts |= {"corrector": weights_sha256(args.corrector)} if args.corrector else {}
    if edited := edited_digests(args.synthetic):
        options.progress_of(args)(f"{args.synthetic} was edited by hand ({', '.join(edited)}): taken as approved")
        facts[FOLLOWS] = edited
    return facts


def add_regenerate_options(parser: ArgumentParser) -> None:
    """Add the options of `regenerate`."""
    options.add_task(parser)
    add = parser.add_argument
    add("synthetic", type=Path, metavar="CORRECTED", help="folder of `correct`, with its dropped notes")
    options.add_gold(parser)
    options.add_model(parser)
    _add_method(parser)
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

    _check_one_opinion(args)
    task = hf_synth.load_task(args.task)
    _check(task, args)
    rows = read_dataset(args.synthetic)
    manifest = (read_manifest(args.synthetic) if args.synthetic.is_dir() else None) or {}
    gold = options.training_gold(task, args)
    exemplars = llms.exemplars_of(task, gold, args)
    if args.dry_run:
        price = llms.price_of(args)
        guess = estimate_again(task, rows, exemplars, price=price, prompt=args.prompt, seed=args.seed)
        return llms.print_estimate(guess, args)
    if args.out is None:
        raise OutputError("say where the notes go: --out DIR (or --dry-run to see what they would take)")
    keywords = {"rounds": args.rounds, "prompt": args.prompt, "progress": not args.quiet, **_method(task, args)}
    with contextlib.ExitStack() as stack:
        llm = stack.enter_context(llms.llm_of(args, options.gold_path(args) or args.out.parent))
        measured, corrector = _corrector(task, rows, args, stack)
        all_rows, policy = regenerate_with_policy(
            task, rows, corrector, llm, exemplars=exemplars, gold=measured, **keywords
        )
    marks = sorted({*(manifest.get(MARKS) or ()), *gold_marks(task, gold, measured)})
    facts = {"policy": policy.to_json() if policy else manifest.get("policy"), "seed": args.seed, MARKS: marks}
    facts |= {"generator": args.llm, "gold_rows": len(measured), **_corrector_facts(args, corrector)}
    facts |= llms.weights_facts(llm)
    report = str(describe(all_rows, policy)) if policy else ""
    write_stage(task, all_rows, args.out, stage="correct", report=report, **facts)
    before, after = Counter(rows["label_status"]), Counter(all_rows["label_status"])
    new = len(all_rows) - len(rows)
    print(f"{report}\n" if policy else "no new note came")
    print(f"before: {count_text(before)}\nnow: {count_text(after)}; {new:,} rows came -> {args.out}")
    return {"out": str(args.out), "statuses": dict(after), "new_rows": new}


def add_sample_options(parser: ArgumentParser) -> None:
    """Add the options of `sample`."""
    options.add_task(parser)
    add = parser.add_argument
    add("synthetic", type=Path, metavar="SYNTHETIC", help="folder of `generate` or `correct`, or a file")
    options.add_columns(parser)
    add("--n", type=int, default=100, metavar="N", help="how many notes to draw (default: 100)")
    strata, text = (
        ("label", "confidence"),
        "draw equally many of each label, of each range of confidence, or of both; without a word: of all together",
    )
    add("--by", nargs="*", choices=strata, default=["label"], metavar="WHAT", help=text)
    add("--out", type=Path, metavar="FILE", help="the .csv to write (default: in .hf_synth/ of the folder)")
    options.add_seed(parser)


def sample(args: Namespace) -> Result:
    """Draw synthetic notes for a person to label."""
    from hf_synth.correction.audited import audit_sample
    from hf_synth.task.folders import work_folder

    task = hf_synth.load_task(args.task)
    check_verb(task, args, out="file")
    beside = args.synthetic if args.synthetic.is_dir() else args.synthetic.parent
    rows = audit_sample(task, options.synthetic_rows(task, args), args.n, by=args.by, seed=args.seed)
    path = args.out or work_folder(beside) / "audit_sample.csv"
    if path.exists():
        raise OutputError(f"{path} is there already, and may hold labels that a person gave; name another with --out")
    _write_table(rows, path)
    strata = Counter(rows["stratum"])
    print(f"{len(rows):,} notes of {len(strata)} strata -> {path}")
    print(f"fill in its column label, one of: {', '.join(task.labels)}")
    print(f"then: hf-synth correct {args.task} {args.synthetic} --audited {path} ...")
    return {"out": str(path), "rows": len(rows), "strata": dict(strata)}


def _write_table(rows: Dataset, path: Path) -> Path:
    """Write rows as a .csv that only its owner can read, for a person's spreadsheet."""
    from hf_synth.correction.audited import sample_csv
    from hf_synth.task.folders import write_private

    return write_private(path, sample_csv(rows))


def add_label_options(parser: ArgumentParser) -> None:
    """Add the options of `label`."""
    options.add_task(parser)
    add = parser.add_argument
    text = "notes to label: a folder of Datasets or a .parquet, .jsonl or .csv file; with --gold the gold"
    add("notes", type=Path, nargs="?", metavar="NOTES", help=text)
    add("--gold", action="store_true", help="NOTES are gold: keep its labels and put the LLM's beside them")
    text = "keep the labels that the rows have, and write this LLM's into the column llm_label_NAME"
    add("--as", dest="annotator", default="", metavar="NAME", help=text)
    add("--llm", required=True, metavar="MODEL", help=f"{options.LLM_HELP} (which cannot judge)")
    text = "column of the text, where it has another name than in the task; twice for a pair"
    add("--text-column", action="append", metavar="NAME", help=text)
    add("--access", choices=ACCESSES, help="access of notes that do not state one (default: credentialed)")
    options.add_out(parser, "folder for the labelled notes")
    options.add_seed(parser)
    options.add_votes(parser)
    options.add_endpoint(parser)


def label(args: Namespace) -> Result:
    """Label real notes that nobody labelled, by an LLM; or put an LLM's labels beside those of gold and other rows."""
    from hf_synth.correction.judging import labelled
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import write_stage

    task = hf_synth.load_task(args.task)
    check_verb(task, args)
    if args.gold:
        return _label_gold(task, args)
    if args.notes is None:
        raise ColumnError("name the notes to label: a folder of Datasets, or a .parquet, .jsonl or .csv file")
    if args.annotator:
        return _label_beside(task, args)
    notes = read_dataset(args.notes)
    options.check_access(args.access, notes, args.notes)
    columns = tuple(args.text_column or task.text_columns)
    if len(columns) != len(task.text_columns) or not set(columns) <= set(notes.column_names):
        raise ColumnError(
            f"task {task.full_name!r} has text columns {list(task.text_columns)}, the notes have "
            f"{names_shown(notes.column_names, *task.text_columns)}: name them in that order with --text-column"
        )
    renamed = {old: new for old, new in zip(columns, task.text_columns, strict=True) if old != new}
    notes = notes.remove_columns([n for n in renamed.values() if n in notes.column_names]).rename_columns(renamed)
    beside = args.notes if args.notes.is_dir() else args.notes.parent
    with llms.judge_of(task, args, args.llm, beside) as judge:
        rows = labelled(judge, notes, access=args.access)
        figures = judge.figures
    weights = llms.weights_facts(judge.llm)
    write_stage(task, rows, args.out, stage="label", seed=args.seed, **figures, **weights)
    statuses = Counter(rows["label_status"])
    print(f"{statuses['kept']:,} notes labelled, {statuses['dropped']:,} without a vote -> {args.out}")
    print("real notes with an LLM's labels: they never leave, and nothing can be measured on them")
    return {"out": str(args.out), "rows": statuses["kept"], "without_vote": statuses["dropped"], **figures}


def _label_gold(task: Task, args: Namespace) -> Result:
    """Put an LLM's labels beside those of gold, in every split, and write the gold with them."""
    from datasets import DatasetDict

    from hf_synth.correction.annotations import annotate
    from hf_synth.task.folders import read_manifest, write_stage

    exported = (read_manifest(Path(args.task)) or {}).get("stage") == "gold"
    path = Path(args.task) if args.notes is None and exported else args.notes
    splits = hf_synth.load_gold(task, path, seed=args.seed)
    with llms.judge_of(task, args, args.llm, path or args.out.parent) as judge:
        done = {s: annotate(judge, rows, name=args.annotator, access=args.access) for s, rows in splits.items()}
        figures = judge.figures
    facts = {"seed": args.seed} if path is None else _facts_of(path) or {"seed": args.seed}
    write_stage(task, DatasetDict(done), args.out, stage="gold", **facts)
    right, known = map(sum, zip(*(_right(task, rows, args.annotator) for rows in done.values()), strict=True))
    print(f"{args.llm} labelled {known:,} gold rows, {right:,} of them as gold does -> {args.out}")
    return {"out": str(args.out), "rows": known, "right": right, **figures}


def _label_beside(task: Task, args: Namespace) -> Result:
    """Put the labels of a further LLM beside those of rows, which keep their stage and columns."""
    from hf_synth.correction.annotations import annotate, columns_of
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import read_manifest, write_stage

    folder = args.notes.is_dir()
    stage = ((read_manifest(args.notes) if folder else None) or {}).get("stage", "label")
    if stage == "gold":
        raise ColumnError(f"{args.notes} holds gold: add --gold, so that every split is labelled")
    rows = read_dataset(args.notes)
    with llms.judge_of(task, args, args.llm, args.notes if folder else args.notes.parent) as judge:
        rows = annotate(judge, rows, name=args.annotator, access=args.access)
        figures = judge.figures
    write_stage(task, rows, args.out, stage=stage, **(_facts_of(args.notes) if folder else {}))
    column = columns_of(args.annotator)[0]
    known = sum(value is not None for value in rows[column][:])
    print(f"{args.llm} labelled {known:,} of {len(rows):,} rows in column {column} -> {args.out}")
    return {"out": str(args.out), "rows": known, **figures}


def _facts_of(folder: Path) -> Result:
    """Return what a folder's manifest says beside the facts that `write_stage` writes anew."""
    from hf_synth.task.folders import read_manifest

    anew = ("stage", "task", "task_version", "access", "definition", "rows")
    return {name: fact for name, fact in (read_manifest(folder) or {}).items() if name not in anew}


def _right(task: Task, rows: Dataset, annotator: str) -> tuple[int, int]:
    """Count the gold rows that an LLM labelled as gold does, and those that it labelled."""
    from hf_synth.correction.annotations import columns_of

    pairs = zip(rows[columns_of(annotator)[0]][:], rows[task.label_column][:], strict=True)
    known = [theirs == own for theirs, own in pairs if theirs is not None]
    return sum(known), len(known)
