"""The Hub on disk. Each repository is one folder that holds all that is its own, so deleting it deletes its content.

    ROOT/repos/{models,datasets}/ORG/NAME/
        repo.json                    type, id, private, gated, created
        blobs/ab/abcd...             content by its sha256, written once
        commits/OID.json             parent, author, message, created, files {path: [sha256, git oid, size, lfs]}
        refs/heads/BRANCH  refs/tags/TAG    the OID of a commit

Blobs come first, then the commit, then the branch, each synced and renamed into place: a kill at any moment leaves
the old commit or the new one. Repositories share no content: who knows the hash of another's file gets nothing by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from hf_synth.hub.disk import leave_folder, make_folder, sync_folder, take_folder, write_whole
from hf_synth.hub.names import HubError, check_name, check_ref, check_sha256, is_oid, is_revision
from hf_synth.hub.tree import Change, File, changed, git_oid


@dataclass(frozen=True)
class Repo:
    """One repository and who may see it; `type` is models or datasets, `gated` is auto, manual or False."""

    type: str
    id: str
    private: bool
    gated: str | bool
    created: float

    @property
    def namespace(self) -> str:
        """Give the user or organisation whose it is."""
        return self.id.split("/")[0]


@dataclass(frozen=True)
class Commit:
    """One commit: a whole tree."""

    oid: str
    parent: str | None
    author: str
    message: str
    created: float
    files: dict[str, File]


class Store:
    """All repositories under one folder; safe for the threads of one server, and one server has the folder.

    Raises:
        BlockingIOError: another server has this folder.
        OSError: it cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.tmp = root, root / "tmp"
        self.close = weakref.finalize(self, leave_folder, take_folder(root))  # gives the folder up; at the latest here
        self._locks: dict[str, threading.RLock] = {}

    # --- repositories -------------------------------------------------------------------------------------------

    def repos(self, type: str) -> Iterator[Repo]:
        """Give every repository of a type, by name."""
        for file in sorted((self.root / "repos" / type).glob("*/*/repo.json")):
            try:
                yield _repo(file)
            except FileNotFoundError:  # deleted meanwhile
                continue

    def repo(self, type: str, id: str) -> Repo | None:
        """Give a repository, whoever may see it."""
        try:
            return _repo(self._folder(type, id) / "repo.json")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, type: str, id: str, author: str, *, private: bool) -> Repo:
        """Make a repository with an empty first commit; it appears as a whole.

        Raises:
            HubError: 409, it exists.
        """
        folder = self._folder(type, id)
        repo = Repo(type, id, private, False, time.time())
        draft = Path(tempfile.mkdtemp(dir=self.tmp))
        for part in ("blobs", "commits", "refs", "refs/heads", "refs/tags"):
            make_folder(draft / part)
        first = self._add_commit(draft, None, author, "initial commit", {})
        write_whole(self.tmp, draft / "refs" / "heads" / "main", first.oid.encode())
        write_whole(self.tmp, draft / "repo.json", json.dumps(asdict(repo)).encode())
        with self._lock(repo):
            for parent in reversed(folder.parents[:2]):
                make_folder(parent)
            try:
                os.rename(draft, folder)  # fails on a folder that is not empty
            except OSError:
                shutil.rmtree(draft)
                raise HubError(409, "You already created this repo") from None
            sync_folder(folder.parent)
        return repo

    def update(self, repo: Repo, *, private: bool | None, gated: str | bool | None) -> Repo:
        """Change who may see a repository; None leaves a setting as it is."""
        with self._lock(repo):
            file = self._folder(repo.type, repo.id) / "repo.json"
            now = _repo(file)
            new = replace(
                now, private=now.private if private is None else private, gated=now.gated if gated is None else gated
            )
            write_whole(self.tmp, file, json.dumps(asdict(new)).encode())
            return new

    def delete(self, repo: Repo) -> None:
        """Delete a repository and its content; it is gone at once and whole."""
        with self._lock(repo):
            grave = Path(tempfile.mkdtemp(dir=self.tmp))
            folder = self._folder(repo.type, repo.id)
            os.rename(folder, grave / "repo")
            sync_folder(folder.parent)
        shutil.rmtree(grave, ignore_errors=True)  # what stays is cleared at the next start

    def _folder(self, type: str, id: str) -> Path:
        parts = id.split("/")
        if type not in ("models", "datasets") or len(parts) != 2:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self.root / "repos" / type / check_name(parts[0]) / check_name(parts[1])

    def _lock(self, repo: Repo) -> threading.RLock:
        return self._locks.setdefault(f"{repo.type}/{repo.id}", threading.RLock())

    # --- revisions ----------------------------------------------------------------------------------------------

    def refs(self, repo: Repo, kind: str) -> dict[str, str]:
        """Give branches (kind heads) or tags with the commits they name."""
        folder = self._folder(repo.type, repo.id) / "refs" / kind
        files = sorted(f for f in folder.rglob("*") if f.is_file())
        return {f.relative_to(folder).as_posix(): f.read_text(encoding="ascii") for f in files}

    def commit(self, repo: Repo, revision: str) -> Commit:
        """Give the commit of a branch, a tag or an OID, sought in this order.

        Raises:
            HubError: 404, there is none.
        """
        folder = self._folder(repo.type, repo.id)
        oid = None
        if is_revision(revision):
            sought = [f"heads/{revision}", f"tags/{revision}"]
            if revision.startswith(("refs/heads/", "refs/tags/")):
                sought = [revision.removeprefix("refs/")]
            oid = next((found for ref in sought if (found := _read_ref(folder / "refs" / ref))), None)
        oid = oid or (revision if is_oid(revision) else None)
        if oid is not None:
            try:
                return _commit(folder / "commits" / f"{oid}.json")
            except FileNotFoundError:
                pass
        raise HubError(404, "Invalid rev id", "RevisionNotFound")

    def push(self, repo: Repo, branch: str, parent: str | None, author: str, message: str, change: Change) -> Commit:
        """Add a commit to a branch, as a whole or not at all.

        Args:
            parent: the commit that the writer saw; None for whatever is there.

        Raises:
            HubError: 412, the branch has moved since; 404, no such branch or file; 400, no such tree can be.
        """
        folder = self._folder(repo.type, repo.id)
        with self._lock(repo):
            ref = folder / "refs" / "heads" / branch
            if not is_revision(branch) or (oid := _read_ref(ref)) is None:
                raise HubError(404, "Invalid rev id", "RevisionNotFound")
            if parent is not None and parent != oid:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            if not all(self.blob(repo, f.sha256).is_file() for f in change.added.values()):
                raise HubError(400, "The content of a file of this commit is not here")
            files = changed(_commit(folder / "commits" / f"{oid}.json").files, change)
            made = self._add_commit(folder, oid, author, message, files)
            write_whole(self.tmp, ref, made.oid.encode())
            return made

    def add_ref(self, repo: Repo, kind: str, name: str, oid: str) -> None:
        """Make a branch (kind heads) or tag.

        Raises:
            HubError: 409, it exists, or lies in or under one that does; 400, it cannot have this name.
        """
        folder = self._folder(repo.type, repo.id) / "refs" / kind
        file = folder / check_ref(name)
        with self._lock(repo):
            if file.exists() or any(p.is_file() for p in file.parents if p != folder and folder in p.parents):
                raise HubError(409, "Reference already exists")
            for parent in reversed(file.parents):
                if folder in parent.parents:
                    make_folder(parent)
            write_whole(self.tmp, file, oid.encode())

    def delete_ref(self, repo: Repo, kind: str, name: str) -> None:
        """Delete a branch (kind heads) or tag.

        Raises:
            HubError: 404, there is none; 403, it is the branch main, which every repository has.
        """
        folder = self._folder(repo.type, repo.id) / "refs" / kind
        file = folder / name
        with self._lock(repo):
            if not is_revision(name) or not file.is_file():
                raise HubError(404, "Reference not found", "RevisionNotFound")
            if kind == "heads" and name == "main":
                raise HubError(403, "The branch main cannot be deleted")
            file.unlink()
            sync_folder(file.parent)
            for parent in file.parents:  # an empty folder would be in the way of a ref of its name
                if parent == folder or any(parent.iterdir()):
                    break
                parent.rmdir()

    def _add_commit(
        self, folder: Path, parent: str | None, author: str, message: str, files: dict[str, File]
    ) -> Commit:
        created = time.time()
        tree = {path: astuple(file) for path, file in sorted(files.items())}
        body = {"parent": parent, "author": author, "message": message, "created": created, "files": tree}
        oid = secrets.token_hex(20)
        write_whole(self.tmp, folder / "commits" / f"{oid}.json", json.dumps(body).encode())
        return Commit(oid, parent, author, message, created, files)

    # --- content ------------------------------------------------------------------------------------------------

    def blob(self, repo: Repo, sha256: str) -> Path:
        """Give where content of a repository is, or would be."""
        return self._folder(repo.type, repo.id) / "blobs" / check_sha256(sha256)[:2] / sha256

    def add_small(self, repo: Repo, data: bytes) -> File:
        """Store the content of a small file."""
        file = File(hashlib.sha256(data).hexdigest(), git_oid(data), len(data), lfs=False)
        blob = self.blob(repo, file.sha256)
        if not blob.is_file():
            make_folder(blob.parent)
            write_whole(self.tmp, blob, data)
        return file

    def take_upload(self, repo: Repo, sha256: str, draft: Path) -> None:
        """Take in a file that was uploaded, synced and found to have its promised hash."""
        blob = self.blob(repo, sha256)
        make_folder(blob.parent)
        os.replace(draft, blob)
        sync_folder(blob.parent)

    def large(self, repo: Repo, sha256: str, size: int | None) -> File:
        """Give a large file whose content was uploaded to this repository before.

        Raises:
            HubError: 400, it was not, or has another size.
        """
        try:
            found = self.blob(repo, sha256).stat().st_size
        except FileNotFoundError:
            found = -1
        if found < 0 or size not in (None, found):
            raise HubError(400, "A large file that the commit names was never uploaded to this repository")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {found}\n"
        return File(sha256, git_oid(pointer.encode()), found, lfs=True)


def _read_ref(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _repo(file: Path) -> Repo:
    return Repo(**json.loads(file.read_text(encoding="utf-8")))


def _commit(file: Path) -> Commit:
    body: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    files = {path: File(*values) for path, values in body.pop("files").items()}
    return Commit(oid=file.stem, files=files, **body)
