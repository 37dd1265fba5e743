"""Repositories, commits and their trees as values: what a commit changes, and what clients are shown of it. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from hf_synth.hub.names import HubError

LARGE = 10 * 2**20  # bytes from which a file is large whatever its name
_LARGE_SUFFIXES = (
    *(".parquet", ".arrow", ".safetensors", ".bin", ".pt", ".pth", ".onnx", ".gguf", ".h5", ".model"),
    *(".npy", ".npz", ".pkl", ".gz", ".zip", ".tar", ".zst"),
)


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
class File:
    """One file: hash of its content, git's id of what git would hold, bytes, and whether it is large (LFS)."""

    sha256: str
    oid: str
    size: int
    lfs: bool

    @property
    def etag(self) -> str:
        """Give what clients name it by in their caches."""
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """One commit: a whole tree."""

    oid: str
    parent: str | None
    author: str
    message: str
    created: float
    files: dict[str, File]


@dataclass
class Change:
    """What a commit does to a tree."""

    added: dict[str, File] = field(default_factory=dict)
    deleted_files: list[str] = field(default_factory=list)
    deleted_folders: list[str] = field(default_factory=list)


def git_oid(data: bytes) -> str:
    """Give the id under which git would store content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(path: str, size: int) -> bool:
    """Tell whether a file travels as a large one; an empty one never does."""
    return size > LARGE or (size > 0 and path.lower().endswith(_LARGE_SUFFIXES))


def changed(files: dict[str, File], change: Change) -> dict[str, File]:
    """Apply a change to a tree.

    Raises:
        HubError: 404, what it deletes is not there; 400, something would be both a file and a folder.
    """
    gone = set(change.deleted_files)
    if emptied := set(change.deleted_folders):
        inside = {path: emptied.intersection(parents(path)) for path in files}
        gone |= {path for path, folders in inside.items() if folders}
        gone |= emptied.difference(*inside.values())  # nothing lies in these: missing
    if missing := gone - files.keys():
        raise HubError(404, f"{min(missing)} does not exist on this revision", "EntryNotFound")
    made = {p: f for p, f in files.items() if p not in gone} | change.added
    folders = {parent for path in made for parent in parents(path)}
    if clash := folders & made.keys():
        raise HubError(400, f"{min(clash)} cannot be both a file and a folder")
    return made


def parents(path: str) -> list[str]:
    """Give the folders a path lies in, outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def file_entry(path: str, file: File) -> dict[str, Any]:
    """Show a file as the tree and paths-info routes do."""
    large = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"type": "file", "path": path, "oid": file.oid, "size": file.size, **large}


def folder_entry(path: str) -> dict[str, Any]:
    """Show a folder as the tree and paths-info routes do."""
    oid = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "path": path, "oid": oid, "size": 0}


def sibling(path: str, file: File, *, blobs: bool) -> dict[str, Any]:
    """Show a file as the info of a repository does."""
    large = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"rfilename": path} | ({"size": file.size, "blobId": file.oid, **large} if blobs else {})


def entries(files: dict[str, File], inside: str, *, deep: bool) -> list[dict[str, Any]]:
    """List what lies in a folder ("" for the top); with all below it when deep.

    Raises:
        HubError: 404, there is no such folder.
    """
    prefix = f"{inside}/" if inside else ""
    found: dict[str, dict[str, Any]] = {}
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        below = [p for p in parents(path) if p.startswith(prefix) and p != inside]
        for folder in below if deep else below[:1]:
            found.setdefault(folder, folder_entry(folder))
        if deep or not below:
            found[path] = file_entry(path, file)
    if inside and not found:
        raise HubError(404, f"{inside} does not exist on this revision", "EntryNotFound")
    return list(found.values())
