"""`hf-synth publish` and `hf-synth withdraw`: what leaves, and what is taken back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.options import finder_of
from hf_synth.errors import MissingGoldError, PublishError, RowError, TaskError
from hf_synth.gold.adoption import read_dataset
from hf_synth.task.folders import read_manifest
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.evaluation.evaluation import Scores
    from hf_synth.publishing.gate import Verdict


def publish(args: argparse.Namespace) -> int:
    """Check, describe and publish; refused, or not confirmed: 1."""
    from hf_synth.privacy.canaries import Canaries
    from hf_synth.publishing.publishing import publish_dataset, publish_model

    task = load_task(args.task)
    shared: dict[str, Any] = {
        "gold": _gold(task, args), "private": True if args.private else False if args.public else None,
        "gated": True if args.gated else None, "push": args.push, "export_dir": args.out, "token": args.token,
        "endpoint": args.endpoint, "attestation": args.attestation, "tag": args.tag, "dry_run": args.dry_run,
        "confirm": lambda verdict: _confirmed(verdict, args),
        "canaries": Canaries.load(args.canaries) if args.canaries else None,
        "find_identifiers": finder_of(args.find_identifiers) if args.find_identifiers else None,
    }  # fmt: skip
    if (args.folder / "config.json").is_file():
        rows = read_dataset(args.examples) if args.examples else None
        verdict = publish_model(
            task, args.folder, _scores(args.scores), args.repo_id, examples=rows, membership=args.membership, **shared
        )
    else:
        manifest = read_manifest(args.folder) if args.folder.is_dir() else None
        rows = read_dataset(args.folder)
        scores = _scores(args.scores)
        verdict = publish_dataset(
            task, rows, args.repo_id, scores=scores, manifest=manifest,
            augmented=args.augmented, **shared,
        )  # fmt: skip
    print(verdict)
    if args.dry_run:
        print("  nothing was written and nothing sent (--dry-run)")
    if args.json:
        print(json.dumps(verdict.to_json()))
    return 0 if verdict.allowed and (args.dry_run or verdict.pushed or not args.push) else 1


def withdraw(args: argparse.Namespace) -> dict[str, Any] | int:
    """Take a release back, and list what derives from it; not confirmed: 1."""
    from hf_synth.publishing.withdrawal import withdraw as take_back

    told = {"kind": args.kind, "tag": args.tag, "records": args.records, "endpoint": args.endpoint, "token": args.token}
    if not args.yes:
        print(take_back(args.repo_id, dry_run=True, **told))
        if args.dry_run:
            return 0
        if not sys.stdin.isatty():
            raise PublishError("nothing was withdrawn: say --yes")
        if not _yes("Withdraw it? [y/N] "):
            print("nothing was withdrawn")
            return 1
    done = take_back(args.repo_id, dry_run=args.dry_run, **told)
    print(done)
    return done.to_json()


def _gold(task: Task, args: argparse.Namespace) -> Dataset | DatasetDict | None:
    """Read all gold, every split: of a task that needs no files, as it makes it."""
    from hf_synth.gold.gold import load_gold

    path = args.gold or (Path(args.task) if Path(args.task).is_dir() else None)
    if path is None and task.files:
        return None
    return load_gold(task, path, seed=args.seed)


def _scores(path: Path | None) -> Scores | None:
    from hf_synth.evaluation.evaluation import Scores

    if path is None:
        return None
    if not path.is_file():
        raise MissingGoldError(f"{path} is no file: `hf-synth evaluate --out FILE` writes one")
    try:
        return Scores.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, TaskError):
        raise RowError(str(path), None, "holds no scores; write it with `hf-synth evaluate --out FILE`") from None


def _confirmed(verdict: Verdict, args: argparse.Namespace) -> bool:
    """Ask before anything is sent: on a terminal always, elsewhere a public repository needs --yes."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        if not verdict.private:
            print("hf-synth: a public repository needs --yes where nobody can be asked", file=sys.stderr)
        return verdict.private
    print(verdict)
    seen = "private" if verdict.private else "PUBLIC"
    return _yes(f"Push {verdict.repo_id} ({seen}) to {args.endpoint or 'the Hub'}? [y/N] ")


def _yes(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
