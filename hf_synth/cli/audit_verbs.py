"""`hf-synth audit`: hold synthetic notes against gold, say what was found, keep it in a private folder.

Nothing that is printed or written holds text of a note: counts, row numbers, and in findings.parquet the ids of rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.options import finder_of
from hf_synth.errors import GoldError
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import new_folder, read_manifest, write_private
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.privacy.findings import Findings

Facts = dict[str, Any]


def audit(args: argparse.Namespace) -> int:
    """Audit synthetic rows; refused: exit code 1.

    Raises:
        GoldError: the gold has no split as asked for, or there is no control for a model.
    """
    from hf_synth.privacy.audit import audit as look
    from hf_synth.privacy.canaries import Canaries
    from hf_synth.privacy.membership import membership

    task = load_task(args.task)
    rows = read_dataset(args.synthetic)
    gold, held_out = _gold(task, args)
    canaries = Canaries.load(args.canaries) if args.canaries else None
    finder = finder_of(args.find_identifiers) if args.find_identifiers else None
    found = look(task, rows, gold=gold, held_out=held_out, canaries=canaries, find_identifiers=finder, seed=args.seed)
    tested = None
    if args.model:
        if gold is None or held_out is None:
            raise GoldError(
                "a model is tested on gold that it saw and on gold that it never saw: give --gold with both"
            )
        tested = membership(task, args.model, gold=gold, held_out=held_out, seed=args.seed)
    facts: Facts = {"task": task.full_name, "synthetic": str(args.synthetic), **found.to_json()}
    if tested is not None:
        facts["membership"] = tested.to_json()
    _say(found, tested)
    if args.out:
        _write(task, rows, found, tested, facts, args)
        print(f"-> {args.out}")
        facts["out"] = str(args.out)
    if args.json:
        print(json.dumps(facts))
    return 0 if found.verdict == "ok" else 1


def _gold(task: Task, args: argparse.Namespace) -> tuple[Dataset | None, Dataset | None]:
    """Give the gold that may have been seen, and the split that was not."""
    from datasets import concatenate_datasets

    from hf_synth.gold.gold import load_gold

    path = args.gold
    if path is None and (read_manifest(Path(args.task)) or {}).get("stage") == "gold":
        path = Path(args.task)
    if path is None and task.files:
        return None, None
    splits = {name: part for name, part in load_gold(task, path, seed=args.seed).items() if len(part)}
    wanted = args.split_held_out or ("test" if "test" in splits else None)
    if wanted and wanted not in splits:
        raise GoldError(f"the gold has no split {wanted!r}; it has {', '.join(splits)}")
    seen = [part for name, part in splits.items() if name != wanted or len(splits) == 1]
    held_out = splits[wanted] if wanted and len(splits) > 1 else None
    return concatenate_datasets(seen), held_out


def _say(found: Findings, tested: Any) -> None:
    from hf_synth.privacy.findings import FLAGS, refusals

    figures = found.figures
    print(f"{found.verdict}: {int(figures['rows']):,} rows, {int(figures['copied_rows']):,} hold gold, "
          f"{int(figures['refused_rows']):,} may not leave (access: {found.access})")  # fmt: skip
    if not found.compared:
        print("  no gold was given: copies were not looked for")
    for flag, count in refusals(found, found.refused).items():
        print(f"  {count:>7,}  {FLAGS[flag]}")
    if "closeness_auc" in figures:
        print("  nearer to gold than held-out gold: AUC {closeness_auc:.3f} ({closeness_auc_low:.3f}-"
              "{closeness_auc_high:.3f})".format(**figures))  # fmt: skip
    if tested is not None:
        print(f"  {tested}")
    print("  patterns do not find names: this is not de-identification")


def _write(task: Task, rows: Dataset, found: Findings, tested: Any, facts: Facts, args: argparse.Namespace) -> None:
    """Write audit.json, audit.md, audit.html and findings.parquet, as one folder or not at all (0700).

    Raises:
        OutputError: the folder cannot be written.
    """
    from hf_synth.privacy.findings import with_findings
    from hf_synth.privacy.report import audit_markdown, audit_page

    listed = [("task", task.full_name), ("access", found.access), ("synthetic rows", len(rows)),
              ("gold rows", int(found.figures["gold_rows"]))]  # fmt: skip
    simulated = "the gold is an artificial clinic's, written by a program." if task.name == "clinic" else ""
    told: Facts = {"membership": tested, "facts": listed, "simulated": simulated}
    ids = rows.select_columns(["id"] if "id" in rows.column_names else [])
    with new_folder(args.out) as draft:
        write_private(draft / "audit.json", json.dumps(facts, indent=1) + "\n")
        write_private(draft / "audit.md", audit_markdown(found, **told))
        write_private(draft / "audit.html", audit_page(found, **told))
        with_findings(ids, found).to_parquet(draft / "findings.parquet")
        write_private(draft / MANIFEST, json.dumps({"stage": "audit", "task": task.full_name}) + "\n")
