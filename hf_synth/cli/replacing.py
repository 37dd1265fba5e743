"""What a verb replaced: the output that was there before it, in one line."""

from __future__ import annotations

import contextlib
import json
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from hf_synth.errors import HfSynthError, RowError

_STAGES = ("generate", "correct", "regenerate", "label", "augment", "gold")  # verbs that write rows
_MANIFESTS = ("hf_synth.json", "hf_synth_facts.json")  # in a folder that hf_synth wrote; the first one found counts


@dataclass(frozen=True)
class Earlier:
    """An output as it was before a verb.

    Args:
        path: of the folder or file.
        written: the file that says when it was written.
        mark: of that file; it differs when the file was written again.
        about: what it was, in words.
    """

    path: Path
    written: Path
    mark: tuple[int, int]
    about: str

    def replaced(self) -> str:
        """Return what was replaced, e.g. "work/synthetic: replaced (300 rows of 2026-11-30)"; "" where it was not."""
        return f"{self.path}: replaced ({self.about})" if _mark(self.written) not in (None, self.mark) else ""


def earlier_output(args: Namespace) -> Earlier | None:
    """Return the output of an earlier run where a verb writes its own; None where there is none.

    Raises:
        HfSynthError: a person edited the rows there, and the verb would write over them.
    """
    out = getattr(args, "out", None)
    if args.verb in _STAGES and isinstance(out, Path) and (out / _MANIFESTS[0]).is_file():
        _check_edits(args, out)
    if out is None and args.verb == "publish":
        out = Path("export") / args.repo_id.split("/")[-1]
    if not isinstance(out, Path):
        return None
    written = next((file for name in _MANIFESTS if (file := out / name).is_file()), out if out.is_file() else None)
    mark = None if written is None else _mark(written)
    if written is None or mark is None:
        return None
    return Earlier(out, written, mark, _description(out, written))


def _check_edits(args: Namespace, out: Path) -> None:
    """Check that no rows in a folder were edited by hand, unless nothing is written; `run` takes them as approved."""
    if getattr(args, "dry_run", False) or getattr(args, "preview", None) is not None:
        return
    from hf_synth.task.folders import edited_digests

    with contextlib.suppress(RowError):  # a manifest that is broken says nothing
        if edited := edited_digests(out):
            raise HfSynthError(
                f"{out} was edited by hand ({', '.join(edited)}), and `{args.verb}` would write over it: give another "
                "--out, or move the folder away"
            )


def _description(out: Path, written: Path) -> str:
    """Return what an output was and when it was written, e.g. "300 rows of 2026-11-30"."""
    day = time.strftime("%Y-%m-%d", time.localtime(written.stat().st_mtime))
    if out.is_file():
        return f"a file of {day}"
    if (facts := out / "hf_synth_facts.json").is_file() or (out / "config.json").is_file():
        rows = sum(_counts(facts).values())
        return f"a model, trained on {rows:,} rows on {day}" if rows else f"a model of {day}"
    counts = _counts(written)
    rejected = counts.pop("rejected", 0)
    if rejected and not sum(counts.values()):
        return f"{rejected:,} rejected rows of {day}"
    return f"{sum(counts.values()):,} rows of {day}" if counts else f"a folder of {day}"


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _counts(manifest: Path) -> dict[str, int]:
    """Return the rows by split that a manifest counts, or those that a model was trained on; empty where it has none.

    A manifest that cannot be read has none: what is said of an earlier output must not stop the verb that replaces it.
    """
    try:
        rows = json.loads(manifest.read_text(encoding="utf-8")).get("rows")
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    counts = rows.items() if isinstance(rows, dict) else ()
    return {split: n for split, n in counts if isinstance(n, int) and not isinstance(n, bool)}
