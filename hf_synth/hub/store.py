"""The Hub on disk: blobs by their hash, commits as snapshots, branches and tags as one small file each.

    ROOT/users.json                          hashes of tokens, 0600
    ROOT/blobs/ab/abcd...                    content by sha256, written once
    ROOT/repos/{models,datasets}/ORG/NAME/
        repo.json                            owner, private, gated, created
        commits/OID.json                     {parent, message, created, files: {path: [sha256, git oid, size, lfs]}}
        refs/heads/BRANCH   refs/tags/TAG    a commit's OID

Everything is written to a temporary file, synced and renamed; a branch moves last. A kill at any moment leaves either
the old commit or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

RepoType = Literal["models", "datasets"]
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")
_LFS_SUFFIXES = (
    ".parquet",
    ".safetensors",
    ".bin",
    ".arrow",
    ".pt",
    ".gz",
    ".zip",
    ".h5",
    ".onnx",
    ".model",
    ".npy",
    ".npz",
    ".pkl",
)
LFS_SIZE = 10 * 2**20  # bytes from which a file is large whatever its name


class HubError(Exception):
    """A request that cannot be done: HTTP status, the Hub's error code, and a sentence.

    Args:
        status: HTTP status.
        code: value of X-Error-Code, or "".
        message: what is wrong.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code
        super().__init__(message)


@dataclass(frozen=True)
class File:
    """One file of a commit: hash of its content, git's own id of it, bytes, and whether it is large (LFS)."""

    sha256: str
    oid: str
    size: int
    lfs: bool


@dataclass(frozen=True)
class Repo:
    """One repository: where it is, whose it is, and who may see it."""

    type: RepoType
    id: str
    owner: str
    private: bool
    gated: str | bool
    created: float


@dataclass(frozen=True)
class Commit:
    """One commit: a whole tree."""

    oid: str
    parent: str | None
    message: str
    created: float
    files: dict[str, File]


class Store:
    """All repositories under one folder; safe for the threads of one server."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        for folder in (self.root, self.root / "blobs", self.root / "repos", self.root / "tmp"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in (self.root / "tmp").iterdir():  # uploads that a kill cut short
            left.unlink(missing_ok=True)
        self._lock = threading.RLock()

    # --- users --------------------------------------------------------------------------------------------------

    def default_token(self) -> str:
        """Give the token of the first user, "local", made when the Hub is first served (ROOT/token, 0600)."""
        file = self.root / "token"
        if not file.is_file():
            _write(self.root, file, f"hf_{secrets.token_hex(16)}".encode())
        token = file.read_text(encoding="ascii").strip()
        self.add_user("local", token)
        return token

    def add_user(self, name: str, token: str) -> None:
        """Let a user in with a token; only its hash is kept."""
        _check_name(name)
        with self._lock:
            users = self._users()
            users[hashlib.sha256(token.encode()).hexdigest()] = name
            _write(self.root, self.root / "users.json", json.dumps(users, indent=1).encode())

    def user_of(self, token: str | None) -> str | None:
        """Give the user of a token; None for no token.

        Raises:
            HubError: 401, nobody has this token.
        """
        if not token:
            return None
        name = self._users().get(hashlib.sha256(token.encode()).hexdigest())
        if name is None:
            raise HubError(401, "Invalid user token.")
        return name

    def _users(self) -> dict[str, str]:
        file = self.root / "users.json"
        users: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return users

    # --- repositories -------------------------------------------------------------------------------------------

    def repos(self) -> Iterator[Repo]:
        """Give every repository, by type and name."""
        for file in sorted((self.root / "repos").glob("*/*/*/repo.json")):
            yield _repo(file)

    def repo(self, type: RepoType, id: str) -> Repo | None:
        """Give a repository, whoever may see it."""
        try:
            return _repo(self._folder(type, id) / "repo.json")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, type: RepoType, id: str, owner: str, *, private: bool) -> Repo:
        """Make a repository with an empty first commit.

        Raises:
            HubError: 409, it exists; 403, the namespace is another user's.
        """
        folder = self._folder(type, id)
        namespace = id.split("/")[0]
        with self._lock:
            if self.repo(type, id) is not None:
                raise HubError(409, "You already created this repo")
            if any(r.owner != owner for r in self.repos() if r.id.split("/")[0] == namespace):
                raise HubError(403, "You have no right to create a repository in this namespace")
            repo = Repo(type, id, owner, private, False, time.time())
            (folder / "commits").mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / "refs" / "heads").mkdir(parents=True, exist_ok=True)
            (folder / "refs" / "tags").mkdir(parents=True, exist_ok=True)
            first = self._new_commit(folder, None, "initial commit", {})
            _write(self.root, folder / "refs" / "heads" / "main", first.oid.encode())
            self._save(repo)
            return repo

    def update(self, repo: Repo, *, private: bool | None = None, gated: str | bool | None = None) -> None:
        """Change who may see a repository."""
        settings = asdict(repo) | {k: v for k, v in (("private", private), ("gated", gated)) if v is not None}
        with self._lock:
            self._save(Repo(**settings))

    def delete(self, repo: Repo) -> None:
        """Delete a repository; it is gone at once and whole."""
        with self._lock:
            grave = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
            os.rename(self._folder(repo.type, repo.id), grave / "repo")
            shutil.rmtree(grave, ignore_errors=True)

    def _save(self, repo: Repo) -> None:
        _write(self.root, self._folder(repo.type, repo.id) / "repo.json", json.dumps(asdict(repo)).encode())

    def _folder(self, type: RepoType, id: str) -> Path:
        parts = id.split("/")
        if type not in ("models", "datasets") or len(parts) != 2:
            raise HubError(404, "Repository not found", "RepoNotFound")
        for part in parts:
            _check_name(part)
        return self.root / "repos" / type / parts[0] / parts[1]

    # --- revisions ----------------------------------------------------------------------------------------------

    def refs(self, repo: Repo) -> dict[str, dict[str, str]]:
        """Give branches and tags: {"heads": {name: oid}, "tags": {...}}."""
        folder = self._folder(repo.type, repo.id) / "refs"
        return {
            kind: {
                f.relative_to(folder / kind).as_posix(): f.read_text(encoding="ascii")
                for f in sorted((folder / kind).rglob("*"))
                if f.is_file()
            }
            for kind in ("heads", "tags")
        }

    def commit(self, repo: Repo, revision: str) -> Commit:
        """Give the commit of a branch, tag or OID.

        Raises:
            HubError: 404, there is none.
        """
        folder = self._folder(repo.type, repo.id)
        oid = revision
        if _REVISION.fullmatch(revision) and ".." not in revision:
            for kind in ("heads", "tags"):
                file = folder / "refs" / kind / revision.removeprefix("refs/heads/")
                if file.is_file():
                    oid = file.read_text(encoding="ascii")
        if re.fullmatch(r"[0-9a-f]{40}", oid):
            file = folder / "commits" / f"{oid}.json"
            if file.is_file():
                return _commit(file)
        raise HubError(404, "Invalid rev id", "RevisionNotFound")

    def history(self, repo: Repo, revision: str) -> Iterator[Commit]:
        """Give a revision's commit and those before it."""
        commit: Commit | None = self.commit(repo, revision)
        while commit is not None:
            yield commit
            commit = self.commit(repo, commit.parent) if commit.parent else None

    def push(
        self, repo: Repo, branch: str, parent: str | None, message: str, files: dict[str, File], deleted: list[str]
    ) -> Commit:
        """Add a commit to a branch, as a whole or not at all.

        Args:
            parent: the commit that the writer saw; None for whatever is there.

        Raises:
            HubError: 412, the branch has moved since; 404, there is no such branch.
        """
        folder = self._folder(repo.type, repo.id)
        with self._lock:
            head = self.commit(repo, branch)
            if branch not in self.refs(repo)["heads"]:
                raise HubError(404, "Invalid rev id", "RevisionNotFound")
            if parent is not None and parent != head.oid:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            tree = {
                p: f
                for p, f in head.files.items()
                if not any(p == d or p.startswith(d.rstrip("/") + "/") for d in deleted)
            }
            made = self._new_commit(folder, head.oid, message, tree | files)
            _write(self.root, folder / "refs" / "heads" / branch, made.oid.encode())
            return made

    def set_ref(self, repo: Repo, kind: str, name: str, oid: str | None) -> None:
        """Make a branch or tag, or delete it (oid None).

        Raises:
            HubError: 409, it exists; 404, it does not; 400, its name is not valid.
        """
        if not _REVISION.fullmatch(name) or ".." in name or name.endswith((".lock", "/")):
            raise HubError(400, "Invalid reference name")
        file = self._folder(repo.type, repo.id) / "refs" / kind / name
        with self._lock:
            if oid is None:
                if not file.is_file():
                    raise HubError(404, "Reference not found", "RevisionNotFound")
                file.unlink()
                return
            if file.exists():
                raise HubError(409, "Reference already exists")
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(self.root, file, oid.encode())

    def _new_commit(self, folder: Path, parent: str | None, message: str, files: dict[str, File]) -> Commit:
        body = {
            "parent": parent,
            "message": message,
            "created": time.time(),
            "files": {p: list(asdict(f).values()) for p, f in sorted(files.items())},
        }
        data = json.dumps(body).encode()
        oid = hashlib.sha1(data + secrets.token_bytes(8), usedforsecurity=False).hexdigest()
        _write(self.root, folder / "commits" / f"{oid}.json", data)
        return Commit(oid, parent, message, body["created"], files)  # type: ignore[arg-type]

    # --- content ------------------------------------------------------------------------------------------------

    def blob(self, sha256: str) -> Path:
        """Give where content is, or would be."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise HubError(400, "Not a sha256")
        return self.root / "blobs" / sha256[:2] / sha256

    def add_small(self, data: bytes) -> File:
        """Store the content of a small file."""
        sha = hashlib.sha256(data).hexdigest()
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if not self.blob(sha).is_file():
            _write(self.root, self.blob(sha), data)
        return File(sha, oid, len(data), lfs=False)

    def large(self, sha256: str, size: int) -> File:
        """Give a large file whose content was uploaded before.

        Raises:
            HubError: 400, it was not, or has another size.
        """
        blob = self.blob(sha256)
        if not blob.is_file() or blob.stat().st_size != size:
            raise HubError(400, "An LFS object that the commit names was never uploaded")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
        return File(sha256, oid, size, lfs=True)

    def accept(self, sha256: str, draft: Path, found: str) -> None:
        """Take an uploaded temporary file in as a blob.

        Raises:
            HubError: 400, its hash is not what was promised.
        """
        blob = self.blob(sha256)
        if found != sha256:
            draft.unlink(missing_ok=True)
            raise HubError(400, "The content does not have the hash that was promised")
        blob.parent.mkdir(exist_ok=True)
        os.replace(draft, blob)
        _sync(blob.parent)


def is_large(path: str, size: int) -> bool:
    """Tell whether a file goes through LFS."""
    return size > LFS_SIZE or path.endswith(_LFS_SUFFIXES)


def check_path(path: str) -> str:
    """Check the path of a file in a repository.

    Raises:
        HubError: 400, it would leave the repository or is not valid.
    """
    parts = path.split("/")
    if not path or len(path) > 1024 or "\\" in path or "\0" in path or any(p in ("", ".", "..", ".git") for p in parts):
        raise HubError(400, "Not a valid path of a file")
    return path


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".ipynb")):
        raise HubError(404, "Repository not found", "RepoNotFound")


def _repo(file: Path) -> Repo:
    return Repo(**json.loads(file.read_text(encoding="utf-8")))


def _commit(file: Path) -> Commit:
    body: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    files = {path: File(*values) for path, values in body["files"].items()}
    return Commit(file.stem, body["parent"], body["message"], body["created"], files)


def _write(root: Path, path: Path, data: bytes) -> None:
    """Write a file as a whole: to a temporary one, synced, then renamed."""
    handle, draft = tempfile.mkstemp(dir=root / "tmp")
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(draft, path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
