"""Removing what nothing names any more, and checking that all that is named is there and whole.

Both may run while the Hub is served: each repository is held for a moment, and what is young is left alone, since a
commit that is under way may be about to name it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hf_synth.hub.disk import clear_drafts
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Repo

KINDS = ("models", "datasets")


@dataclass
class Swept:
    """How many of each were removed, and their bytes."""

    files: int = 0
    commits: int = 0
    drafts: int = 0
    bytes: int = 0


@dataclass
class Found:
    """What a check of one repository saw."""

    repo: Repo
    commits: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


def sweep(store: Store, *, age: float, dry_run: bool = False) -> Swept:
    """Remove commits that no branch or tag leads to, content that no commit names, and what a kill left.

    Args:
        age: seconds for which something must have lain there.
        dry_run: only count.
    """
    swept = Swept()
    for kind in KINDS:
        for repo in store.repos(kind):
            with contextlib.suppress(FileNotFoundError), store.lock(repo):  # deleted meanwhile
                _sweep_repo(store.folder(repo.type, repo.id), age, dry_run, swept)
    swept.drafts, size = clear_drafts(store.tmp, age, dry_run=dry_run)
    swept.bytes += size
    return swept


def _sweep_repo(folder: Path, age: float, dry_run: bool, swept: Swept) -> None:
    kept = _reached(folder)
    named: set[str] = set()
    for file in list((folder / "commits").iterdir()):
        young = time.time() - file.stat().st_mtime < age
        if file.stem in kept or young:
            named |= _content(file)
        else:
            swept.commits += 1
            _remove(file, dry_run, swept)
    for blob in list((folder / "blobs").glob("*/*")):
        if blob.name not in named and time.time() - blob.stat().st_mtime >= age:
            swept.files += 1
            _remove(blob, dry_run, swept)


def _remove(file: Path, dry_run: bool, swept: Swept) -> None:
    swept.bytes += file.stat().st_size
    if not dry_run:
        file.unlink()


def _reached(folder: Path) -> set[str]:
    """Give the commits that branches and tags lead to."""
    waiting = [ref.read_text(encoding="ascii") for ref in (folder / "refs").rglob("*") if ref.is_file()]
    reached: set[str] = set()
    while waiting:
        oid = waiting.pop()
        if oid not in reached:
            reached.add(oid)
            parent = json.loads((folder / "commits" / f"{oid}.json").read_text(encoding="utf-8"))["parent"]
            waiting += [parent] if parent else []
    return reached


def _content(commit: Path) -> set[str]:
    """Give the content that a commit names."""
    return {sha256 for sha256, *_ in json.loads(commit.read_text(encoding="utf-8"))["files"].values()}


def check(store: Store) -> Iterator[Found]:
    """Read all that branches and tags lead to, and compare it with its hash and size."""
    for kind in KINDS:
        for repo in store.repos(kind):
            found, folder = Found(repo), store.folder(repo.type, repo.id)
            try:
                _check_repo(folder, found)
            except (OSError, ValueError, KeyError, TypeError):
                found.problems.append("a branch, a tag or a commit cannot be read")
            yield found


def _check_repo(folder: Path, found: Found) -> None:
    seen: set[str] = set()
    for oid in sorted(_reached(folder)):
        found.commits += 1
        body = json.loads((folder / "commits" / f"{oid}.json").read_text(encoding="utf-8"))
        for sha256, _, size, _ in body["files"].values():
            if sha256 in seen:
                continue
            seen.add(sha256)
            blob = folder / "blobs" / sha256[:2] / sha256
            if not blob.is_file():
                found.problems.append(f"content {sha256[:12]} is missing")
                continue
            found.bytes += blob.stat().st_size
            with blob.open("rb") as file:
                if blob.stat().st_size != size or hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    found.problems.append(f"content {sha256[:12]} is damaged")
