"""The audit log of publishing: what was asked for, decided and done, one line of JSON each, beside the exports.

`.hf_synth/publishing.jsonl` (0600) is only ever appended to. It holds times, names, verdicts, counts, digests and
attestations, never text of a row and never a token. Each line carries the digest of the line before, so that a line
that was changed or taken out shows.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hf_synth.errors import OutputError
from hf_synth.task.folders import WORK, clear_disk_errors, private_folder

LOG = "publishing.jsonl"
_LAST = 1 << 16  # bytes at the end in which the last line is looked for at first


def record(beside: Path, action: str, **facts: Any) -> dict[str, Any]:
    """Append one entry to the log beside a folder of exports, and give it.

    Args:
        action: "refused", "export", "push", "push failed", "withdraw", "withdraw failed".
        facts: plain values.

    Raises:
        OutputError: it cannot be written.
    """
    path = private_folder(beside / WORK) / LOG
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "action": action, **facts}
    with clear_disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "r+b") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            entry["before"] = _digest(_last_line(log))
            log.write(json.dumps(entry).encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())
    return entry


def entries(beside: Path) -> list[dict[str, Any]]:
    """Read the log beside a folder of exports, oldest first; none where there is no log.

    Raises:
        OutputError: a line was changed, taken out or torn.
    """
    path = beside / WORK / LOG
    if not path.is_file():
        return []
    found, before = [], b""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or entry.get("before") != _digest(before):
            raise OutputError(f"{path}, line {number}: the log was changed there; keep it and start another folder")
        found.append(entry)
        before = line
    return found


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16] if line else ""


def _last_line(log: Any) -> bytes:
    size = log.seek(0, os.SEEK_END)
    reach = _LAST
    while True:
        log.seek(max(0, size - reach))
        tail = log.read().rstrip(b"\n")
        if b"\n" in tail or reach >= size:
            return bytes(tail.rpartition(b"\n")[2])
        reach *= 4
