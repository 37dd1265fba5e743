"""What was merged: a shard that is started again afterwards computes nothing, and pays for nothing.

A record lies in the work folder beside the output, so that none of it is in a folder that may be published. It counts
as long as the output is the one that was written then.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.cluster.work import Work

_FOLDER = "merged"


def note_merged(out: Path, work: Work) -> None:
    """Record that an output was written from these blocks."""
    from hf_synth.task.folders import work_folder, write_private

    for earlier in _records(out):
        earlier.unlink(missing_ok=True)
    folder = work_folder(out.absolute().parent) / _FOLDER
    write_private(folder / _name(out, work), json.dumps({"files": _files(out)}))


def was_merged(out: Path, work: Work | None = None) -> bool:
    """Return whether an output is still as it was written from blocks.

    Args:
        work: the blocks; any when None.
    """
    for record in _records(out):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if work is None or record.name == _name(out, work):
                return bool(json.loads(record.read_text(encoding="utf-8")).get("files") == _files(out))
    return False


def _records(out: Path) -> list[Path]:
    from hf_synth.task.folders import WORK

    folder = out.absolute().parent / WORK / _FOLDER
    return [file for file in sorted(folder.glob("*.json")) if file.name[: -len("-0123456789abcdef.json")] == out.name]


def _name(out: Path, work: Work) -> str:
    return f"{out.name}-{work.mark()[:16]}.json"


def _files(out: Path) -> dict[str, Any]:
    """Return size and time of each file of rows of an output."""
    from hf_synth.task.folders import WORK

    found = {}
    for file in sorted(out.rglob("*.parquet")):
        name = file.relative_to(out)
        if WORK not in name.parts:
            facts = file.stat()
            found[name.as_posix()] = [facts.st_size, facts.st_mtime_ns]
    return found
