"""What a verb replaced: the output that was there before it, in one line."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

_MANIFESTS = ("hf_synth.json", "hf_synth_facts.json")  # of a folder that hf_synth wrote


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
    """Return the output of an earlier run where a verb writes its own; None where there is none."""
    out = getattr(args, "out", None)
    if out is None and args.verb == "publish":
        out = Path("export") / args.repo_id.split("/")[-1]
    if not isinstance(out, Path):
        return None
    written = next((file for name in _MANIFESTS if (file := out / name).is_file()), out if out.is_file() else None)
    mark = None if written is None else _mark(written)
    if written is None or mark is None:
        return None
    day = time.strftime("%Y-%m-%d", time.localtime(written.stat().st_mtime))
    rows = _rows(written)
    what = "model" if (out / "config.json").is_file() else "file" if out.is_file() else "output"
    return Earlier(out, written, mark, f"{what if rows is None else f'{rows:,} rows'} of {day}")


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _rows(manifest: Path) -> int | None:
    """Return how many rows a manifest counts; None where it counts none."""
    try:
        rows = json.loads(manifest.read_text(encoding="utf-8")).get("rows")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(rows, dict):
        return None
    return sum(int(count) for split, count in rows.items() if split != "rejected" and isinstance(count, int))
