"""Garbage collection of the local Hub: remove unreferenced commits and content; check referenced ones.

Both may run while the Hub is served: each repository is locked for a moment, and young files are kept, since a commit
in progress may be about to name them.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hf_synth.hub.disk import clear_drafts
from hf_synth.hub.store import Store, reached, read_commit
from hf_synth.hub.tree import Repo

KINDS = ("models", "datasets")


@dataclass
class Swept:
    """Numbers of removed files, commits and drafts, and their bytes."""

    files: int = 0
    commits: int = 0
    drafts: int = 0
    bytes: int = 0


@dataclass
class Checked:
    """Result of checking one repository."""

    repo: Repo
    commits: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


def sweep(store: Store, *, age: float, dry_run: bool = False) -> Swept:
    """Remove commits that no branch or tag leads to, content that no commit names, and unfinished files.

    Args:
        age: minimum age of a removed file, in seconds.
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
            named |= {entry.sha256 for entry in read_commit(folder, file.stem).files.values()}
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
    """Return the ids of the commits that branches and tags lead to."""
    return reached(folder, (ref.read_text(encoding="ascii") for ref in (folder / "refs").rglob("*") if ref.is_file()))


def check(store: Store) -> Iterator[Checked]:
    """Check hash and size of all content that branches and tags lead to."""
    for kind in KINDS:
        for repo in store.repos(kind):
            checked, folder = Checked(repo), store.folder(repo.type, repo.id)
            try:
                _check_repo(folder, checked)
            except (OSError, ValueError, KeyError, TypeError):
                checked.problems.append("a branch, a tag or a commit cannot be read")
            yield checked


def _check_repo(folder: Path, checked: Checked) -> None:
    seen: set[str] = set()
    for oid in sorted(_reached(folder)):
        checked.commits += 1
        for entry in read_commit(folder, oid).files.values():
            if entry.sha256 in seen:
                continue
            seen.add(entry.sha256)
            blob = folder / "blobs" / entry.sha256[:2] / entry.sha256
            if not blob.is_file():
                checked.problems.append(f"content {entry.sha256[:12]} is missing")
                continue
            checked.bytes += blob.stat().st_size
            with blob.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if (blob.stat().st_size, digest) != (entry.size, entry.sha256):
                    checked.problems.append(f"content {entry.sha256[:12]} is damaged")
