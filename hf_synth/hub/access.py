"""Access requests of a gated repository, and their answers: access.json in its folder."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hf_synth.hub.disk import write_atomic
from hf_synth.hub.names import HubError
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Repo

STATUSES = ("pending", "accepted", "rejected")


@dataclass(frozen=True)
class AccessRequest:
    """One user's request for access; `fields` are their answers to its form."""

    id: str
    status: str
    asked: float
    fields: dict[str, str] = field(default_factory=dict)
    reason: str = ""


_Change = Callable[[AccessRequest | None], AccessRequest]


def requests(store: Store, repo: Repo) -> dict[str, AccessRequest]:
    """Return the requests of a repository by user, oldest first."""
    try:
        body = json.loads(_file(store, repo).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {user: AccessRequest(**values) for user, values in body.items()}


def has_access(store: Store, repo: Repo, user: str | None) -> bool:
    """Return whether a user's request was accepted."""
    request = None if user is None else requests(store, repo).get(user)
    return request is not None and request.status == "accepted"


def request_access(store: Store, repo: Repo, user: str, fields: dict[str, str]) -> AccessRequest:
    """Request access; an earlier request stays as it is. With automatic gating it is accepted at once."""
    status = "accepted" if repo.gated == "auto" else "pending"

    def change(before: AccessRequest | None) -> AccessRequest:
        return before or AccessRequest(secrets.token_hex(12), status, time.time(), fields)

    return _change(store, repo, user, change)


def answer_request(store: Store, repo: Repo, user: str, status: str, reason: str) -> AccessRequest:
    """Accept or reject a request, or make it pending again.

    Raises:
        HubError: 404, there is no such request.
    """

    def change(before: AccessRequest | None) -> AccessRequest:
        if before is None:
            raise HubError(404, "This user has no request for access to this repository")
        return replace(before, status=status, reason=reason)

    return _change(store, repo, user, change)


def grant_access(store: Store, repo: Repo, user: str) -> AccessRequest:
    """Grant a user access, with or without a request.

    Raises:
        HubError: 400, the user has access.
    """

    def change(before: AccessRequest | None) -> AccessRequest:
        if before is not None and before.status == "accepted":
            raise HubError(400, "This user has access to this repository already")
        return replace(before or AccessRequest(secrets.token_hex(12), "", time.time()), status="accepted", reason="")

    return _change(store, repo, user, change)


def _change(store: Store, repo: Repo, user: str, change: _Change) -> AccessRequest:
    with store.lock(repo):
        by_user = requests(store, repo)
        by_user[user] = change(by_user.get(user))
        body = json.dumps({name: asdict(request) for name, request in by_user.items()})
        write_atomic(store.tmp, _file(store, repo), body.encode())
        return by_user[user]


def _file(store: Store, repo: Repo) -> Path:
    return store.folder(repo.type, repo.id) / "access.json"
