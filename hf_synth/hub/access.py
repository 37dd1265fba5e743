"""Who asked to see the files of a gated repository, and what was answered: access.json beside its other files."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hf_synth.hub.disk import write_whole
from hf_synth.hub.names import HubError
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Repo

STATUSES = ("pending", "accepted", "rejected")


@dataclass(frozen=True)
class Request:
    """One user's request for access; `fields` is what they filled in."""

    id: str
    status: str
    asked: float
    fields: dict[str, str] = field(default_factory=dict)
    reason: str = ""


def requests(store: Store, repo: Repo) -> dict[str, Request]:
    """Give the requests of a repository by user, oldest first."""
    try:
        body = json.loads(_file(store, repo).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {user: Request(**values) for user, values in body.items()}


def granted(store: Store, repo: Repo, user: str | None) -> bool:
    """Tell whether a user was let in."""
    return user is not None and (found := requests(store, repo).get(user)) is not None and found.status == "accepted"


def ask_access(store: Store, repo: Repo, user: str, fields: dict[str, str]) -> Request:
    """Ask for access; an earlier request stands. Where access is given to all who ask, it is given."""
    status = "accepted" if repo.gated == "auto" else "pending"

    def change(before: Request | None) -> Request:
        return before or Request(secrets.token_hex(12), status, time.time(), fields)

    return _change(store, repo, user, change)


def answer(store: Store, repo: Repo, user: str, status: str, reason: str) -> Request:
    """Answer a request, or take an answer back (pending).

    Raises:
        HubError: 404, there is none.
    """

    def change(before: Request | None) -> Request:
        if before is None:
            raise HubError(404, "This user has no request for access to this repository")
        return replace(before, status=status, reason=reason)

    return _change(store, repo, user, change)


def grant(store: Store, repo: Repo, user: str) -> Request:
    """Let a user in whether they asked or not.

    Raises:
        HubError: 400, they are in.
    """

    def change(before: Request | None) -> Request:
        if before is not None and before.status == "accepted":
            raise HubError(400, "This user has access to this repository already")
        return replace(before or Request(secrets.token_hex(12), "", time.time()), status="accepted", reason="")

    return _change(store, repo, user, change)


def _change(store: Store, repo: Repo, user: str, change: Callable[[Request | None], Request]) -> Request:
    with store.lock(repo):
        found = requests(store, repo)
        found[user] = change(found.get(user))
        body = json.dumps({name: asdict(request) for name, request in found.items()})
        write_whole(store.tmp, _file(store, repo), body.encode())
        return found[user]


def _file(store: Store, repo: Repo) -> Path:
    return store.folder(repo.type, repo.id) / "access.json"
