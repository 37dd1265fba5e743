"""Repositories, commits and file trees as plain values, changes to a tree, and their JSON for clients. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from hf_synth.hub.names import HubError

LARGE = 10 * 2**20  # bytes; a larger file is large (LFS) whatever its name
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
        """The user or organisation that it belongs to."""
        return self.id.split("/")[0]


@dataclass(frozen=True)
class File:
    """One file: sha256 of its content, git's blob id, size in bytes, and whether it is large (LFS)."""

    sha256: str
    oid: str
    size: int
    lfs: bool

    @property
    def etag(self) -> str:
        """The id that clients cache it by."""
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
    """Changes of a commit to a tree."""

    added: dict[str, File] = field(default_factory=dict)
    deleted_files: list[str] = field(default_factory=list)
    deleted_folders: list[str] = field(default_factory=list)


def git_oid(data: bytes) -> str:
    """Return git's blob id of content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(path: str, size: int) -> bool:
    """Return whether a file is large (LFS); an empty file never is."""
    return size > LARGE or (size > 0 and path.lower().endswith(_LARGE_SUFFIXES))


def changed(files: dict[str, File], change: Change) -> dict[str, File]:
    """Apply a change to a tree.

    Raises:
        HubError: 404, a deleted path does not exist; 400, a path would be both a file and a folder.
    """
    removed = set(change.deleted_files)
    if emptied := set(change.deleted_folders):
        inside = {path: emptied.intersection(parents(path)) for path in files}
        removed |= {path for path, folders in inside.items() if folders}
        removed |= emptied.difference(*inside.values())  # missing or empty folders
    if missing := removed - files.keys():
        raise HubError(404, f"{min(missing)} does not exist on this revision", "EntryNotFound")
    new = {p: f for p, f in files.items() if p not in removed} | change.added
    folders = {parent for path in new for parent in parents(path)}
    if clash := folders & new.keys():
        raise HubError(400, f"{min(clash)} cannot be both a file and a folder")
    return new


def parents(path: str) -> list[str]:
    """Return the folders that a path is in, outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def file_entry(path: str, file: File) -> dict[str, Any]:
    """Return a file as the tree and paths-info routes show it."""
    large = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"type": "file", "path": path, "oid": file.oid, "size": file.size, **large}


def folder_entry(path: str) -> dict[str, Any]:
    """Return a folder as the tree and paths-info routes show it."""
    oid = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "path": path, "oid": oid, "size": 0}


def sibling(path: str, file: File, *, blobs: bool) -> dict[str, Any]:
    """Return a file as the information on a repository shows it."""
    large = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"rfilename": path} | ({"size": file.size, "blobId": file.oid, **large} if blobs else {})


def entries(files: dict[str, File], inside: str, *, deep: bool) -> list[dict[str, Any]]:
    """List a folder ("" is the top), recursively if deep.

    Raises:
        HubError: 404, there is no such folder.
    """
    prefix = f"{inside}/" if inside else ""
    listed: dict[str, dict[str, Any]] = {}
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        below = [p for p in parents(path) if p.startswith(prefix) and p != inside]
        for folder in below if deep else below[:1]:
            listed.setdefault(folder, folder_entry(folder))
        if deep or not below:
            listed[path] = file_entry(path, file)
    if inside and not listed:
        raise HubError(404, f"{inside} does not exist on this revision", "EntryNotFound")
    return list(listed.values())
