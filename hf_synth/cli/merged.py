"""What was merged: a shard that is started again afterwards computes nothing, and pays for nothing.

A record lies in the work folder beside the output, so that none of it is in a folder that may be published. It counts
as long as the output is the one that was written then, and no file that the command reads has changed. The blocks alone
do not say so: they follow from texts, and the labels of the same texts may be others.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.cluster.work import Work

_FOLDER = "merged"
_NOT_READ = ("out", "journal")
_OUTPUT = (".parquet",)  # a manifest gets more facts after the merge
_READ = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".xlsx", ".txt", ".ann", ".xml", ".py", ".safetensors", ".bin")


def note_merged(out: Path, work: Work, values: Mapping[str, Any]) -> None:
    """Record that an output was written from these blocks.

    Args:
        values: the options of the command.
    """
    from hf_synth.task.folders import work_folder, write_private

    for earlier in _records(out):
        earlier.unlink(missing_ok=True)
    folder = work_folder(out.absolute().parent) / _FOLDER
    write_private(folder / _name(out, work), json.dumps(_state(out, values)))


def is_merged(out: Path) -> bool:
    """Return whether an output is still as it was written from blocks, whatever has happened to what was read."""
    return any(_read(record).get("output") == _files(out, _OUTPUT) for record in _records(out))


def was_merged(out: Path, work: Work, values: Mapping[str, Any]) -> bool:
    """Return whether an output is still what these blocks and the files that the command reads would make.

    Args:
        values: the options of the command.
    """
    record = next((file for file in _records(out) if file.name == _name(out, work)), None)
    return record is not None and _read(record) == _state(out, values)


def _read(record: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads(record.read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) else {}
    return {}


def _state(out: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an output and all files that the options name look like."""
    read: dict[str, Any] = {}
    for name, value in values.items():
        for word in value if isinstance(value, list) else [value]:
            path = Path(str(word))
            if name not in _NOT_READ and isinstance(word, str) and word and path.exists():
                read[word] = _files(path, _READ)
    return {"output": _files(out, _OUTPUT), "read": read}


def _records(out: Path) -> list[Path]:
    from hf_synth.task.folders import WORK

    folder = out.absolute().parent / WORK / _FOLDER
    return [file for file in sorted(folder.glob("*.json")) if file.name[: -len("-0123456789abcdef.json")] == out.name]


def _name(out: Path, work: Work) -> str:
    return f"{out.name}-{work.mark()[:16]}.json"


def _files(path: Path, kinds: Collection[str]) -> dict[str, Any]:
    """Return size and time of the files of some kinds in a folder, or of the file that a path names."""
    from hf_synth.task.folders import WORK

    found = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if (file == path or file.suffix in kinds) and WORK not in file.relative_to(path).parts:
            facts = file.stat()
            found[name] = [facts.st_size, facts.st_mtime_ns]
    return found
