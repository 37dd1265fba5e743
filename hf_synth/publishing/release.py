"""Provenance of releases: release.json, salted fingerprints, local map of ids, and the publishing log.

`release.json` is part of an export: digests of its files, and salted fingerprints, useless without the salt. The salt
(0600), maps from exported to local ids, and the publishing log (publishing.jsonl: every attempt to publish or withdraw,
without text; each entry has a digest of the one before, so that changes are noticed) stay beside the exports in
`.hf_synth/`. Maps and log show which models were trained on which published rows.
"""

from __future__ import annotations

import contextlib
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
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import WORK, clear_disk_errors, locked_file, private_folder, write_private
from hf_synth.task.labels import column_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

RELEASE = "release.json"
LOG = "publishing.jsonl"
CROISSANT = "croissant.json"  # metadata of the rows, which is described in `croissant`
DONE = ("export", "push")  # actions of the publishing log after which others may hold what was published

_LOCAL = ("id", "group", "seed_ids", "prompt_sha256", "journal_key")
_LAST = 1 << 16  # bytes at the end of the log that are searched for its last line at first


# --- salt and fingerprints ------------------------------------------------------------------------------------------
def salt_of(beside: Path) -> bytes:
    """Read the salt beside a folder of exports; the first call makes it (0600).

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
        raise OutputError(f"{path} is broken: exported ids cannot be made; restore it from a backup")
    return bytes.fromhex(text)


def salted_digest(salt: bytes, *texts: str) -> str:
    """Digest texts so that nobody without the salt can test a guess (32 hex digits)."""
    return hmac.new(salt, "\x1f".join(texts).encode(), hashlib.sha256).hexdigest()[:32]


def public_ids(task: Task, dataset: Dataset, salt: bytes) -> list[str]:
    """Return the ids of exported rows: the same in every release of one site, and unrelated to local ids."""
    seen: Counter[str] = Counter()
    ids = []
    for number, id in enumerate(column_of(dataset, "id")):
        name = f"{task.name}-{salted_digest(salt, 'row', str(number if id is None else id))[:16]}"
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def gold_fingerprint(task: Task, gold: Sequence[Dataset], salt: bytes) -> dict[str, Any] | None:
    """Return number of rows and salted digest of gold's texts; None without gold."""
    if not gold:
        return None
    digests = sorted(d for part in gold for d in row_digests(task, part.select_columns(list(task.text_columns))))
    return {"rows": len(digests), "fingerprint": salted_digest(salt, "gold", *digests)}


# --- release.json ---------------------------------------------------------------------------------------------------
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
    """Return the content of `release.json` but for the digests of files, which the export adds.

    Args:
        gold: `gold_fingerprint`.
        policy: method and fingerprint of the correction policy.
        corrector: a salted digest of the corrector.
        derives_from: releases it was made from (`parents_of`).
    """
    from hf_synth import __version__

    return {
        "format": 1, "kind": kind, "repo_id": repo_id, "task": task.full_name, "task_version": task.version,
        "access": access, "hf_synth": __version__, "gold": gold, "corrector": corrector, "policy": policy,
        "derives_from": [dict(p) for p in derives_from],
    }  # fmt: skip


def content_digest(files: Mapping[str, str]) -> str:
    """Digest the content files of an export: rows, weights and tokenizer, without cards and manifests."""
    content = {
        n: d for n, d in files.items() if not n.endswith((".md", ".yaml")) and n not in (RELEASE, MANIFEST, CROISSANT)
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- local map ------------------------------------------------------------------------------------------------------
def write_map(task: Task, dataset: Dataset, ids: Sequence[str], export: Path, content: str, salt: bytes) -> Path:
    """Write the map from exported rows to local ids (0600), a file for each content: earlier maps stay.

    Raises:
        OutputError: it cannot be written.
    """
    kept = [c for c in _LOCAL if c in dataset.column_names]
    columns = [column_of(dataset, c) for c in kept]
    digests = row_digests(task, dataset.select_columns(list(task.text_columns)))
    lines = [
        json.dumps(
            {"exported": id, **dict(zip(kept, values, strict=True)), "text": salted_digest(salt, "text", digest)}
        )
        for id, digest, *values in zip(ids, digests, *columns, strict=True)
    ]
    folder = private_folder(export.parent / WORK / "maps")
    return write_private(folder / f"{export.name}-{content[:12]}.jsonl", "\n".join(lines) + "\n")


def _mapped_texts(path: Path) -> set[str]:
    """Read the salted digests of the texts in a map; none if the map is gone."""
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8") as lines:
        return {json.loads(line)["text"] for line in lines if line.strip()}


# --- lineage --------------------------------------------------------------------------------------------------------
def parents_of(
    facts: Mapping[str, Any], log: Iterable[Mapping[str, Any]], beside: Path, salt: bytes
) -> list[dict[str, Any]]:
    """Find the releases a model was made from: datasets with rows it was trained on, models it started from.

    Args:
        facts: of the model: digests of its training rows and of the weights it started from.
        log: entries of the publishing log, oldest first.
        beside: the folder of exports.
    """
    seen = {salted_digest(salt, "text", digest) for digest in facts.get("row_digests") or ()}
    started_from = set(facts.get("parents") or ())
    parents: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in log:
        if entry["action"] not in DONE:
            continue
        parent = {k: entry[k] for k in ("kind", "repo_id", "content")}
        if entry.get("weights") in started_from:
            parents[entry["repo_id"], entry["content"]] = parent
        elif entry.get("map") and (rows := len(seen & _mapped_texts(beside / WORK / "maps" / entry["map"]))):
            parents[entry["repo_id"], entry["content"]] = parent | {"rows": rows}
    return list(parents.values())


def derived_releases(log: Sequence[Mapping[str, Any]], repo_id: str, kind: str = "dataset") -> list[dict[str, Any]]:
    """List the releases that derive from a repository, directly or through others, by the publishing log.

    Args:
        kind: of the repository: a dataset and a model may have the same name.
    """
    reached = {(kind, repo_id)}
    releases: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in log:  # at most one step a release
        new = {}
        for entry in log:
            if entry["action"] in DONE and any(
                (p["kind"], p["repo_id"]) in reached for p in entry.get("derives_from", ())
            ):
                new[entry["kind"], entry["repo_id"]] = {k: entry.get(k) for k in ("kind", "repo_id", "tag", "url")}
        if len(new) == len(releases):
            break
        releases = new
        reached |= set(new)
    return [release for key, release in sorted(releases.items()) if key != (kind, repo_id)]


def names_release(log: Sequence[Mapping[str, Any]], repo_id: str, kind: str | None = None) -> bool:
    """Return whether a publishing log names a release of a repository; of one kind where it is given."""
    return any(e.get("action") in DONE and e.get("repo_id") == repo_id and kind in (None, e.get("kind")) for e in log)


# --- publishing log -------------------------------------------------------------------------------------------------
def record(beside: Path, action: str, **facts: Any) -> dict[str, Any]:
    """Append an entry to the publishing log beside a folder of exports, and return it.

    Args:
        action: "refused", "export", "push", "push failed", "withdraw", "withdraw failed".
        facts: plain values.

    Raises:
        OutputError: it cannot be written.
    """
    path = private_folder(beside / WORK) / LOG
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "action": action, **facts}
    with clear_disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(handle, "r+b") as log, locked_file(path, log):
            entry["before"] = _digest(_last_line(log))
            log.write(json.dumps(entry).encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())
    return entry


def entries(beside: Path) -> list[dict[str, Any]]:
    """Read the publishing log beside a folder of exports, oldest entry first; none without a log.

    Raises:
        OutputError: a line was changed, removed or cut.
    """
    path = beside / WORK / LOG
    if not path.is_file():
        return []
    log, before = [], b""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or entry.get("before") != _digest(before):
            raise OutputError(f"{path}, line {number}: the log was changed here; keep it, and export to another folder")
        log.append(entry)
        before = line
    return log


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
