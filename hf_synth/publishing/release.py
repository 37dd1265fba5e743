"""Releases: what ties gold, corrector, policy, dataset and model together, and what of it stays here.

`release.json` travels with an export: digests of the files in it, and salted fingerprints, which mean something only to
who has the salt. The salt (0600), a map from exported ids to this site's own, and the audit log stay beside the exports
in `.hf_synth/`. From the map and the log it is known which models were trained on which published rows.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import OutputError
from hf_synth.task.folders import WORK, clear_disk_errors, private_folder, write_private
from hf_synth.task.labels import column_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

RELEASE = "release.json"
_LOCAL = ("id", "group", "seed_ids", "prompt_sha256", "journal_key")
DONE = ("export", "push")  # actions of the audit log after which somebody may hold what was published


# --- the salt -------------------------------------------------------------------------------------------------------
def salt_of(beside: Path) -> bytes:
    """Read the salt beside a folder of exports, made at the first call (0600).

    Raises:
        OutputError: it cannot be written, or is broken.
    """
    path = private_folder(beside / WORK) / "salt"
    with clear_disk_errors(path):
        if not path.is_file():
            draft = path.with_name(f".salt-{secrets.token_hex(4)}")
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as out:
                out.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # the first of several processes wins
            draft.unlink()
        text = path.read_text(encoding="ascii").strip()
    if len(text) != 64:
        raise OutputError(f"{path} is broken: exported ids cannot be made; put back the one that was there")
    return bytes.fromhex(text)


def salted(salt: bytes, *texts: str) -> str:
    """Digest texts so that nobody without the salt can test a guess (32 hex digits)."""
    return hmac.new(salt, "\x1f".join(texts).encode(), hashlib.sha256).hexdigest()[:32]


def public_ids(task: Task, dataset: Dataset, salt: bytes) -> list[str]:
    """Give the ids under which rows leave: the same in every release of one site, and no trace of its own ids."""
    local = column_of(dataset, "id")
    seen: Counter[str] = Counter()
    ids = []
    for number, id in enumerate(local):
        name = f"{task.name}-{salted(salt, 'row', str(number if id is None else id))[:16]}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def gold_fingerprint(task: Task, gold: Sequence[Dataset], salt: bytes) -> dict[str, Any] | None:
    """Name gold by a salted digest over its texts; None without gold."""
    if not gold:
        return None
    digests = sorted(d for part in gold for d in row_digests(task, part.select_columns(list(task.text_columns))))
    return {"rows": len(digests), "fingerprint": salted(salt, "gold", *digests)}


# --- the map --------------------------------------------------------------------------------------------------------
def write_map(task: Task, dataset: Dataset, ids: Sequence[str], export: Path, content: str, salt: bytes) -> Path:
    """Write what links exported rows to this site's ids (0600), one file a content, so that earlier ones stay.

    Raises:
        OutputError: it cannot be written.
    """
    kept = [c for c in _LOCAL if c in dataset.column_names]
    columns = [list(dataset[c]) for c in kept]
    digests = row_digests(task, dataset.select_columns(list(task.text_columns)))
    lines = [
        json.dumps({"exported": id, **dict(zip(kept, values, strict=True)), "text": salted(salt, "text", digest)})
        for id, digest, *values in zip(ids, digests, *columns, strict=True)
    ]
    folder = private_folder(export.parent / WORK / "maps")
    return write_private(folder / f"{export.name}-{content[:12]}.jsonl", "\n".join(lines) + "\n")


def _mapped(path: Path) -> set[str]:
    """Read the salted digests of the texts in a map; none where the map is gone."""
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8") as lines:
        return {json.loads(line)["text"] for line in lines if line.strip()}


# --- what derives from what ------------------------------------------------------------------------------------------
def parents_of(
    facts: Mapping[str, Any], log: Iterable[Mapping[str, Any]], beside: Path, salt: bytes
) -> list[dict[str, Any]]:
    """Find the releases that a model comes from: datasets whose rows it was trained on, models that it started from.

    Args:
        facts: of the model: digests of the rows it saw, of the weights it started from.
        log: entries of the audit log, oldest first.
        beside: the folder of exports.
    """
    seen = {salted(salt, "text", digest) for digest in facts.get("row_digests") or ()}
    started = set(facts.get("parents") or ())
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in log:
        if entry["action"] not in DONE:
            continue
        told = {k: entry[k] for k in ("kind", "repo_id", "content")}
        if entry.get("weights") in started:
            found[entry["repo_id"], entry["content"]] = told
        elif entry.get("map") and (rows := len(seen & _mapped(beside / WORK / "maps" / entry["map"]))):
            found[entry["repo_id"], entry["content"]] = told | {"rows": rows}
    return list(found.values())


def derived(log: Sequence[Mapping[str, Any]], repo_id: str, kind: str = "dataset") -> list[dict[str, Any]]:
    """List the releases that derive from a repository, directly or through others, from the audit log.

    Args:
        kind: of the repository: a dataset and a model may have one name.
    """
    reached = {(kind, repo_id)}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in log:  # at most one step a release
        new = {}
        for entry in log:
            if entry["action"] in DONE and any(
                (p["kind"], p["repo_id"]) in reached for p in entry.get("derives_from", ())
            ):
                new[entry["kind"], entry["repo_id"]] = {k: entry.get(k) for k in ("kind", "repo_id", "tag", "url")}
        if len(new) == len(found):
            break
        found = new
        reached |= set(new)
    return [told for key, told in sorted(found.items()) if key != (kind, repo_id)]


# --- the manifest ---------------------------------------------------------------------------------------------------
def release_facts(
    task: Task,
    *,
    kind: str,
    repo_id: str,
    access: str,
    gold: dict[str, Any] | None,
    policy: Mapping[str, Any] | None = None,
    corrector: str | None = None,
    derives_from: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Give what `release.json` says beside the digests of files, which the export adds.

    Args:
        gold: `gold_fingerprint`.
        policy: method and fingerprint of the policy of correction.
        corrector: a salted digest of the corrector.
        derives_from: releases it comes from (`parents_of`).
    """
    from hf_synth import __version__

    return {
        "format": 1, "kind": kind, "repo_id": repo_id, "task": task.full_name, "task_version": task.version,
        "access": access, "hf_synth": __version__, "gold": gold, "corrector": corrector, "policy": policy,
        "derives_from": [dict(p) for p in derives_from],
    }  # fmt: skip


def content_digest(files: Mapping[str, str]) -> str:
    """Digest the files of an export that are content: rows, weights, tokenizer; not what is told of them."""
    said = {n: d for n, d in files.items() if not n.endswith((".md", ".yaml")) and n not in (RELEASE, "hf_synth.json")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
