"""One request as the routes see it: who asks, for what, and a body read within limits by strict readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import parse_qs

from starlette.datastructures import QueryParams

from hf_synth.hub.names import HubError
from hf_synth.hub.store import Repo, Store
from hf_synth.hub.users import Users


@dataclass(frozen=True)
class Limits:
    """How much one request may bring.

    Args:
        json: bytes of a JSON body, and of any body of somebody who is not signed in.
        line: bytes of one line of a commit, that is of one small file in base64.
        commit: bytes of a whole commit without its large files.
        file: bytes of one large file.
    """

    json: int = 4 * 2**20
    line: int = 32 * 2**20
    commit: int = 2**30
    file: int = 64 * 2**30


@dataclass(frozen=True)
class Hub:
    """All that the routes stand on; `secret` signs the addresses that large files are put to."""

    store: Store
    users: Users
    limits: Limits
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Ask:
    """One request; `origin` is the endpoint as the client names it, `body` a file at its start."""

    hub: Hub
    method: str
    url: Any
    path: dict[str, str]
    query: QueryParams
    user: str | None
    origin: str
    content_type: str
    body: IO[bytes] = field(repr=False)

    def signed_in(self) -> str:
        """Give the user.

        Raises:
            HubError: 401, nobody is signed in.
        """
        if self.user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.user

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object; an empty one is {}.

        Raises:
            HubError: 413, it is too large; 400, it is not an object.
        """
        data = self.body.read(self.hub.limits.json + 1)
        if len(data) > self.hub.limits.json:
            raise HubError(413, "The request is too large")
        return parse_object(data or b"{}")

    def lines(self) -> Iterator[dict[str, Any]]:
        """Read the body as one JSON object a line, one line in memory at a time.

        Raises:
            HubError: 413, a line is too long; 400, it is not an object.
        """
        limit = self.hub.limits.line
        while line := self.body.readline(limit + 1):
            if len(line) > limit:
                raise HubError(413, "A file of the commit is too large for it; send it as a large file (LFS)")
            if line.strip():
                yield parse_object(line)

    def form(self, name: str) -> list[str]:
        """Read a list of texts from a body that is either JSON or a form."""
        if "json" in self.content_type:
            found = self.json().get(name, [])
            found = found if isinstance(found, list) else [found]
        else:
            data = self.body.read(self.hub.limits.json + 1)
            try:
                found = parse_qs(data.decode(), max_num_fields=100_000, errors="strict").get(name, [])
            except ValueError:
                raise HubError(400, "The form is malformed") from None
        if len(found) > 100_000 or not all(isinstance(item, str) for item in found):
            raise HubError(400, f"{name} must be a list of texts")
        return [str(item) for item in found]


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        HubError: 400, it is none; the message repeats nothing of it.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HubError(400, "Not a JSON object")
    return body


def text(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """Give a text of a JSON object; without a default it must be there.

    Raises:
        HubError: 400, it is not there, not a text, or holds half a character.
    """
    value = body.get(name)
    if value is None:
        value = default
    if not isinstance(value, str) or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise HubError(400, f"{name} must be a text")
    return value


def whole(body: dict[str, Any], name: str) -> int:
    """Give a number of bytes of a JSON object.

    Raises:
        HubError: 400, it is not a whole number from 0 to 2**53.
    """
    value = body.get(name)
    if type(value) is not int or not 0 <= value <= 2**53:
        raise HubError(400, f"{name} must be a whole number")
    return value


def inner(value: Any, what: str) -> dict[str, Any]:
    """Give an object inside a JSON object.

    Raises:
        HubError: 400, it is none.
    """
    if not isinstance(value, dict):
        raise HubError(400, f"{what} must be an object")
    return value


def objects(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Give a list of objects inside a JSON object.

    Raises:
        HubError: 400, it is none.
    """
    value = body.get(name)
    if not isinstance(value, list):
        raise HubError(400, f"{name} must be a list")
    return [inner(item, name) for item in value]


def asked_repo(ask: Ask, *, write: bool = False, content: bool = False) -> Repo:
    """Give the repository of a request's path, if who asks may do this with it.

    A private one is, for others, as if it were not there.

    Raises:
        HubError: 401, 403 or 404 as the Hub answers them.
    """
    repo = ask.hub.store.repo(ask.path["type"], f"{ask.path['org']}/{ask.path['name']}")
    member = repo is not None and ask.hub.users.is_member(ask.user, repo.namespace)
    if repo is None or (repo.private and not member):
        raise HubError(401 if ask.user is None else 404, "Repository not found", "RepoNotFound")
    if write and not member:
        ask.signed_in()
        raise HubError(403, "You have no right to write to this repository")
    if content and repo.gated and not member:
        raise HubError(401 if ask.user is None else 403, "Access to this repository is restricted", "GatedRepo")
    return repo
