"""Valid names of repositories, files, branches and tags, and HubError. No invalid name becomes a path on disk."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}")
_OID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESERVED = frozenset({"api", "datasets", "lfs", "login", "models", "spaces"})  # first parts of URLs


class HubError(Exception):
    """The refusal of a request.

    Args:
        status: HTTP status.
        message: one sentence for the client, without content of files and without tokens.
        code: value of X-Error-Code, or "".
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code
        super().__init__(message)


def check_name(name: str) -> str:
    """Check the name of a repository or namespace.

    Raises:
        HubError: 404, the name is not valid.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".ipynb")):
        raise HubError(404, "Repository not found", "RepoNotFound")
    return name


def check_namespace(name: str) -> str:
    """Check the name of a user or an organisation.

    Raises:
        HubError: 404, the name is not valid.
    """
    if name in _RESERVED:
        raise HubError(404, "Repository not found", "RepoNotFound")
    return check_name(name)


def check_path(path: str) -> str:
    """Check the path of a file in a repository.

    Raises:
        HubError: 400, it would leave the repository, or clients could not write it.
    """
    parts = path.split("/")
    odd = any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in path)
    if odd or not path or "\\" in path or any(p in ("", ".", "..") or p.lower() == ".git" for p in parts):
        raise HubError(400, "Not a valid path of a file")
    if len(path.encode()) > 1024 or any(len(p.encode()) > 255 for p in parts):
        raise HubError(400, "The path of a file is too long")
    return path


def is_revision(name: str) -> bool:
    """Return whether a name may be looked up as a branch or tag."""
    parts = name.split("/")
    return _REVISION.fullmatch(name) is not None and not any(p.startswith(".") or not p for p in parts)


def check_ref(name: str) -> str:
    """Check the name of a new branch or tag; ambiguous names, such as the id of a commit, are refused.

    Raises:
        HubError: 400, it is not valid.
    """
    taken = _OID.fullmatch(name) or name.startswith("refs/") or name == "HEAD"
    if taken or not is_revision(name) or ".." in name or name.endswith((".lock", ".")):
        raise HubError(400, "Not a valid name of a branch or tag")
    return name


def check_sha256(text: str) -> str:
    """Check the sha256 of content.

    Raises:
        HubError: 400, it is not a sha256.
    """
    if not _SHA256.fullmatch(text):
        raise HubError(400, "Not a sha256")
    return text


def is_oid(text: str) -> bool:
    """Return whether a text has the form of a commit id."""
    return _OID.fullmatch(text) is not None
