"""Storage of the local Hub: repositories, commits, refs and content on disk, one folder a repository.

    ROOT/repos/{models,datasets}/ORG/NAME/
        repo.json                    private, gated, created
        access.json                  access requests, if gated (access.py)
        blobs/ab/abcd...             content by sha256, written once
        commits/OID.json             parent, author, message, created, files {path: [sha256, git oid, size, lfs]}
        refs/heads/BRANCH  refs/tags/TAG    the OID of a commit

Blobs are written first, then the commit, then the branch, each synced and renamed into place: a kill leaves the old
commit or the new one, and at most unreferenced files (`sweeping` removes them). A commit that no branch or tag leads to
is not served, whoever knows its id: history that was squashed is gone at once. Repositories share no content, so
deleting one deletes its content, and knowing the hash of another's file is of no use.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from hf_synth.hub.disk import lock_root, locked, make_folder, make_root, sync_folder, write_atomic
from hf_synth.hub.names import HubError, check_name, check_ref, check_sha256, is_oid, is_revision
from hf_synth.hub.tree import Change, Commit, File, Repo, changed, git_oid


class Store:
    """All repositories in a folder; safe for threads and processes, one of which may serve it.

    Args:
        serve: lock the folder as its server.

    Raises:
        BlockingIOError: another server has this folder.
        ValueError: it holds something else.
        OSError: it cannot be written.
    """

    def __init__(self, root: Path, *, serve: bool) -> None:
        self.root, self.tmp = root, root / "tmp"
        make_root(root)
        self._reached = _Reached()
        unlock = lock_root(root) if serve else None
        # unlocks the folder; at the latest when the store is garbage-collected
        self.close: Callable[[], object] = (lambda: None) if unlock is None else weakref.finalize(self, unlock)

    # --- repositories -------------------------------------------------------------------------------------------

    def repos(self, type: str) -> Iterator[Repo]:
        """Iterate over the repositories of a type, by name."""
        for file in sorted((self.root / "repos" / type).glob("*/*/repo.json")):
            try:
                yield _repo(file.parent)
            except FileNotFoundError:  # deleted meanwhile
                continue

    def repo(self, type: str, id: str) -> Repo | None:
        """Return a repository, whoever may see it, or None."""
        try:
            return _repo(self.folder(type, id))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, type: str, id: str, author: str, *, private: bool) -> Repo:
        """Create a repository with an empty first commit, atomically.

        Raises:
            HubError: 409, it exists.
        """
        folder = self.folder(type, id)
        repo = Repo(type, id, private, False, time.time())
        draft = Path(tempfile.mkdtemp(dir=self.tmp))
        for part in ("blobs", "commits", "refs", "refs/heads", "refs/tags"):
            make_folder(draft / part)
        first = self._add_commit(draft, None, author, "initial commit", {})
        write_atomic(self.tmp, draft / "refs" / "heads" / "main", first.oid.encode())
        self._write_repo(draft, repo)
        with self.lock(repo):
            try:
                self._rename(draft, folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        return repo

    def _rename(self, source: Path, folder: Path) -> None:
        for parent in reversed(folder.parents[:2]):
            make_folder(parent)
        try:
            os.rename(source, folder)  # fails on a folder that is not empty
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise HubError(409, "You already created this repo") from None
        sync_folder(folder.parent)

    def _write_repo(self, folder: Path, repo: Repo) -> None:
        body = {"private": repo.private, "gated": repo.gated, "created": repo.created}
        write_atomic(self.tmp, folder / "repo.json", json.dumps(body).encode())

    def update(self, repo: Repo, *, private: bool | None, gated: str | bool | None) -> Repo:
        """Change visibility and gating of a repository; None leaves a setting as it is."""
        with self.lock(repo):
            now = _repo(folder := self.folder(repo.type, repo.id))
            new = replace(
                now, private=now.private if private is None else private, gated=now.gated if gated is None else gated
            )
            self._write_repo(folder, new)
            return new

    def move(self, repo: Repo, id: str) -> Repo:
        """Rename a repository atomically, with all its content; the old name becomes free.

        Raises:
            HubError: 409, there is one of this name.
        """
        new = replace(repo, id=id)
        with self.lock(repo, new):
            source = self.folder(repo.type, repo.id)
            self._rename(source, self.folder(new.type, new.id))
            sync_folder(source.parent)
        return new

    def delete(self, repo: Repo) -> None:
        """Delete a repository and its content; it disappears atomically."""
        with self.lock(repo):
            grave = Path(tempfile.mkdtemp(dir=self.tmp))
            folder = self.folder(repo.type, repo.id)
            os.rename(folder, grave / "repo")
            sync_folder(folder.parent)
        shutil.rmtree(grave, ignore_errors=True)  # the next start removes what is left

    def folder(self, type: str, id: str) -> Path:
        """Return the folder of a repository, existing or not.

        Raises:
            HubError: 404, the name is not valid.
        """
        parts = id.split("/")
        if type not in ("models", "datasets") or len(parts) != 2:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self.root / "repos" / type / check_name(parts[0]) / check_name(parts[1])

    def lock(self, *repos: Repo) -> AbstractContextManager[None]:
        """Lock repositories against other writers; some share a lock, so never nest the calls."""
        keys = (hashlib.sha256(f"{r.type}/{r.id}".encode()).hexdigest()[:2] for r in repos)
        return locked(self.root, *keys)

    # --- revisions ----------------------------------------------------------------------------------------------

    def refs(self, repo: Repo, kind: str) -> dict[str, str]:
        """Return branches (kind heads) or tags with the ids of their commits."""
        return _refs(self.folder(repo.type, repo.id) / "refs" / kind)

    def commit(self, repo: Repo, revision: str) -> Commit:
        """Return the commit of a branch, a tag or a commit id, looked up in this order.

        Raises:
            HubError: 404, there is none, or no branch and no tag leads to it.
        """
        folder = self.folder(repo.type, repo.id)
        oid = None
        if is_revision(revision):
            names = [f"heads/{revision}", f"tags/{revision}"]
            if revision.startswith(("refs/heads/", "refs/tags/")):
                names = [revision.removeprefix("refs/")]
            oid = next((target for ref in names if (target := _read_ref(folder / "refs" / ref))), None)
        try:
            if oid is None and is_oid(revision) and self._reached.has(folder, revision):
                oid = revision
            if oid is not None:
                return read_commit(folder, oid)
        except FileNotFoundError:
            pass
        raise HubError(404, "Invalid rev id", "RevisionNotFound")

    def parent(self, repo: Repo, commit: Commit) -> Commit | None:
        """Return the commit before one; None for the first."""
        return read_commit(self.folder(repo.type, repo.id), commit.parent) if commit.parent else None

    def push(self, repo: Repo, branch: str, parent: str | None, author: str, message: str, change: Change) -> Commit:
        """Add a commit to a branch atomically.

        Args:
            parent: the head that the writer knows; None is any.

        Raises:
            HubError: 412, the branch has moved on; 404, no such branch or file; 400, the tree would not be valid.
        """
        folder = self.folder(repo.type, repo.id)
        with self.lock(repo):
            ref, oid = _head(folder, branch)
            if parent is not None and parent != oid:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            if not all(self.blob(repo, f.sha256).is_file() for f in change.added.values()):
                raise HubError(400, "The content of a file of this commit was not uploaded")
            files = changed(read_commit(folder, oid).files, change)
            commit = self._add_commit(folder, oid, author, message, files)
            write_atomic(self.tmp, ref, commit.oid.encode())
            return commit

    def squash(self, repo: Repo, branch: str, author: str, message: str) -> Commit:
        """Replace the history of a branch by one commit with the same files.

        Raises:
            HubError: 404, no such branch.
        """
        folder = self.folder(repo.type, repo.id)
        with self.lock(repo):
            ref, oid = _head(folder, branch)
            commit = self._add_commit(folder, None, author, message, read_commit(folder, oid).files)
            write_atomic(self.tmp, ref, commit.oid.encode())
            return commit

    def add_ref(self, repo: Repo, kind: str, name: str, oid: str) -> None:
        """Create a branch (kind heads) or tag.

        Raises:
            HubError: 409, it exists, or its path and an existing one exclude each other; 400, the name is not valid.
        """
        folder = self.folder(repo.type, repo.id) / "refs" / kind
        file = folder / check_ref(name)
        with self.lock(repo):
            if file.exists() or any(p.is_file() for p in file.parents if p != folder and folder in p.parents):
                raise HubError(409, "Reference already exists")
            for parent in reversed(file.parents):
                if folder in parent.parents:
                    make_folder(parent)
            write_atomic(self.tmp, file, oid.encode())

    def delete_ref(self, repo: Repo, kind: str, name: str) -> None:
        """Delete a branch (kind heads) or tag.

        Raises:
            HubError: 404, there is none; 403, it is the branch main.
        """
        folder = self.folder(repo.type, repo.id) / "refs" / kind
        file = folder / name
        with self.lock(repo):
            if not is_revision(name) or not file.is_file():
                raise HubError(404, "Reference not found", "RevisionNotFound")
            if kind == "heads" and name == "main":
                raise HubError(403, "The branch main cannot be deleted")
            file.unlink()
            sync_folder(file.parent)
            for parent in file.parents:  # an empty folder would block a ref of its name
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
        write_atomic(self.tmp, folder / "commits" / f"{oid}.json", json.dumps(body).encode())
        return Commit(oid, parent, author, message, created, files)

    # --- content ------------------------------------------------------------------------------------------------

    def blob(self, repo: Repo, sha256: str) -> Path:
        """Return the path of content of a repository, existing or not."""
        return self.folder(repo.type, repo.id) / "blobs" / check_sha256(sha256)[:2] / sha256

    def add_small(self, repo: Repo, data: bytes) -> File:
        """Store the content of a small file."""
        file = File(hashlib.sha256(data).hexdigest(), git_oid(data), len(data), lfs=False)
        blob = self.blob(repo, file.sha256)
        if not self.has(repo, file.sha256):
            make_folder(blob.parent)
            write_atomic(self.tmp, blob, data)
        return file

    def has(self, repo: Repo, sha256: str) -> bool:
        """Return whether content exists, and protect it from sweeping until a commit names it."""
        try:
            os.utime(self.blob(repo, sha256))
        except FileNotFoundError:
            return False
        return True

    def add_upload(self, repo: Repo, sha256: str, draft: Path) -> None:
        """Store an uploaded file, already synced and verified."""
        blob = self.blob(repo, sha256)
        make_folder(blob.parent)
        os.replace(draft, blob)
        sync_folder(blob.parent)

    def large(self, repo: Repo, sha256: str, size: int | None) -> File:
        """Return a large file whose content was uploaded to this repository before.

        Raises:
            HubError: 400, it was not, or has another size.
        """
        try:
            stored = self.blob(repo, sha256).stat().st_size
        except FileNotFoundError:
            stored = -1
        if stored < 0 or size not in (None, stored):
            raise HubError(400, "A large file that the commit names was never uploaded to this repository")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {stored}\n"
        return File(sha256, git_oid(pointer.encode()), stored, lfs=True)


class _Reached:
    """The ids of the commits that branches and tags lead to, remembered for the repositories that were asked for last.

    Branches and tags are read anew each time, and only commits that they did not lead to before are read.
    """

    _MOST = 256  # repositories

    def __init__(self) -> None:
        self._known: dict[Path, tuple[frozenset[str], set[str]]] = {}
        self._lock = threading.Lock()

    def has(self, folder: Path, oid: str) -> bool:
        """Return whether a branch or a tag of a repository leads to a commit.

        Raises:
            FileNotFoundError: the repository, or a commit of it, was removed meanwhile.
        """
        if _read_ref(folder / "refs" / "heads" / "main") == oid:  # what most clients ask for
            return True
        heads = frozenset(_refs(folder / "refs").values())
        if oid in heads:
            return True
        with self._lock:
            before, known = self._known.get(folder, (frozenset[str](), set[str]()))
        if before != heads:
            # what led to a commit may be gone, unless the earlier heads are all reached still
            new = reached(folder, heads, stop=known)
            known = new | known if before <= new else reached(folder, heads)
            with self._lock:
                self._known.pop(folder, None)
                self._known[folder] = heads, known
                if len(self._known) > self._MOST:
                    del self._known[next(iter(self._known))]
        return oid in known


def reached(folder: Path, heads: Iterable[str], stop: Container[str] = ()) -> set[str]:
    """Return the ids of the commits that some commits lead to, they among them.

    Args:
        stop: commits whose parents are not looked up.

    Raises:
        FileNotFoundError: a commit is missing.
    """
    waiting, found = list(heads), set[str]()
    while waiting:
        oid = waiting.pop()
        if oid not in found:
            found.add(oid)
            parent = None if oid in stop else read_commit(folder, oid).parent
            waiting += [parent] if parent else []
    return found


def _refs(folder: Path) -> dict[str, str]:
    """Return the refs below a folder with the ids of their commits, by name."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    found = ((f.relative_to(folder).as_posix(), _read_ref(f)) for f in files)
    return {name: oid for name, oid in found if oid is not None}  # None: deleted meanwhile


def _head(folder: Path, branch: str) -> tuple[Path, str]:
    """Return the ref of a branch and the id of its commit."""
    ref = folder / "refs" / "heads" / branch
    if not is_revision(branch) or (oid := _read_ref(ref)) is None:
        raise HubError(404, "Invalid rev id", "RevisionNotFound")
    return ref, oid


def _read_ref(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _repo(folder: Path) -> Repo:
    kind, namespace, name = folder.parts[-3:]  # named by its path: a move is one rename
    return Repo(kind, f"{namespace}/{name}", **json.loads((folder / "repo.json").read_text(encoding="utf-8")))


def read_commit(folder: Path, oid: str) -> Commit:
    """Read a commit from the folder of a repository."""
    body: dict[str, Any] = json.loads((folder / "commits" / f"{oid}.json").read_text(encoding="utf-8"))
    files = {path: File(*values) for path, values in body.pop("files").items()}
    return Commit(oid=oid, files=files, **body)
