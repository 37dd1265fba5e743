"""The verb `withdraw`: withdraw a release, and list what derives from it."""

from __future__ import annotations

import contextlib
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import hf_synth
from hf_synth.cli.options import Result
from hf_synth.cli.publishing import add_hub, says_yes
from hf_synth.cli.stopping import on_stop
from hf_synth.errors import OutputError, PublishError


def add_withdraw_options(parser: ArgumentParser) -> None:
    """Add the options of `withdraw`."""
    add = parser.add_argument
    add("repo_id", metavar="ORG/NAME", help="repository on the Hub")
    add("--tag", metavar="NAME", help="withdraw one release (default: the whole repository, which becomes private)")
    text = "whether it is a dataset or a model (default: as the records or the Hub know it)"
    add("--kind", choices=("dataset", "model"), help=text)
    text = "the export that it came from, or the folder of exports (default: where a publishing log here names it)"
    add("--records", type=Path, metavar="DIR", help=text)
    add("--yes", action="store_true", help="withdraw without asking; needed where stdin is no terminal")
    add("--dry-run", action="store_true", help="list what would be done, and what derives from it; change nothing")
    add_hub(parser)


def withdraw(args: Namespace) -> tuple[Result | None, int]:
    """Withdraw a release, and list what derives from it; not confirmed is exit code 1."""
    release = {name: getattr(args, name) for name in ("kind", "tag", "endpoint", "token")}
    release["records"] = args.records or _find_records(args.repo_id)
    if not args.yes:
        planned = hf_synth.withdraw(args.repo_id, dry_run=True, **release)
        print(planned)
        if args.dry_run:
            return planned.to_json(), 0
        if not sys.stdin.isatty():
            raise PublishError("nothing was withdrawn: add --yes")
        if not says_yes(f"Withdraw {planned.kind} {args.repo_id} from {planned.endpoint}? [y/N] "):
            print("nothing was withdrawn")
            return None, 1
    with on_stop(lambda: "the release may be withdrawn in part; run the same command again, which withdraws the rest"):
        withdrawal = hf_synth.withdraw(args.repo_id, dry_run=args.dry_run, **release)
    print(withdrawal)
    return withdrawal.to_json(), 0


def _find_records(repo_id: str) -> Path:
    """Return the folder, here or up to three levels below, whose publishing log names a repository; else `export`.

    Raises:
        PublishError: several do.
    """
    from hf_synth.publishing.release import LOG, entries, names_release
    from hf_synth.task.folders import WORK

    logs: list[Path] = []
    with contextlib.suppress(OSError):  # a folder may go while it is looked through
        for above in ("", "*/", "*/*/", "*/*/*/"):
            logs += Path().glob(f"{above}{WORK}/{LOG}")
    found = []
    for folder in sorted(log.parent.parent for log in logs):
        with contextlib.suppress(OSError, OutputError):  # a log that cannot be read does not name it
            found += [folder] if names_release(entries(folder), repo_id) else []
    if len(found) > 1:
        raise PublishError(
            f"the publishing logs of {' and '.join(map(str, found))} name {repo_id}: withdraw it once for each, with "
            "--records DIR"
        )
    return found[0] if found else Path("export")
