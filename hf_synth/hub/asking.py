"""One request as the routes see it: who asks, for what, and a body read within limits by strict readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request

from hf_synth.hub.access import granted
from hf_synth.hub.names import HubError
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Repo
from hf_synth.hub.users import Users


@dataclass(frozen=True)
class Limits:
    """How much one request may bring.

    Args:
        json: bytes of a JSON body, and of any body of somebody who is not signed in.
        line: bytes of one line of a commit, that is of one small file in base64.
        commit: bytes of a whole commit without its large files.
        file: bytes of one large file.
        idle: seconds for which a body may bring nothing.
    """

    json: int = 4 * 2**20
    line: int = 32 * 2**20
    commit: int = 2**30
    file: int = 64 * 2**30
    idle: float = 60


@dataclass(frozen=True)
class Hub:
    """All that the routes stand on.

    Args:
        url: the address under which clients reach it, where that is not the one they name (behind a proxy).
        members_only: whether nothing at all is shown to who is not signed in.
        secret: signs the addresses that large files are put to.
    """

    store: Store
    users: Users
    limits: Limits
    url: str
    members_only: bool
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Ask:
    """One request.

    Args:
        user: who asks; None when nobody is signed in.
        writes: whether their token is one for writing.
        origin: the endpoint as clients name it.
        body: a file at its start.
    """

    hub: Hub
    method: str
    path: dict[str, str]
    query: QueryParams
    user: str | None
    writes: bool
    token_name: str
    origin: str
    place: str
    content_type: str
    if_none_match: str
    wants_page: bool
    body: IO[bytes] = field(repr=False)

    def signed_in(self, *, write: bool = False) -> str:
        """Give the user.

        Raises:
            HubError: 401, nobody is signed in; 403, to write with a token that is for reading.
        """
        if self.user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        if write and not self.writes:
            raise HubError(403, "This token is for reading; use one with the role write")
        return self.user

    def next_page(self, cursor: object) -> dict[str, str]:
        """Give the header that leads to the next page of a list."""
        query = urlencode([*((k, v) for k, v in self.query.multi_items() if k != "cursor"), ("cursor", str(cursor))])
        return {"Link": f'<{self.origin}{quote(self.place, safe="/%")}?{query}>; rel="next"'}

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

    def form(self, *names: str) -> dict[str, list[str]]:
        """Read lists of texts, all or those of some names, from a body that is either JSON or a form.

        Raises:
            HubError: 413, it is too large; 400, it holds something else.
        """
        found: dict[str, Any]
        if "json" in self.content_type:
            found = {name: v if isinstance(v, list) else [v] for name, v in self.json().items()}
        else:
            data = self.body.read(self.hub.limits.json + 1)
            try:
                found = parse_qs(data.decode(), max_num_fields=100_000, errors="strict")
            except ValueError:
                raise HubError(400, "The form is malformed") from None
        texts = {name: [_text(item) for item in found.get(name, [])] for name in names or map(_text, found)}
        if any(len(items) > 100_000 for items in texts.values()):
            raise HubError(400, "The list is too long")
        return texts


async def parts(request: Request, idle: float) -> AsyncIterator[bytes]:
    """Give the body of a request as it comes.

    Raises:
        HubError: 408, nothing came for too long.
    """
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), idle)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HubError(408, "Nothing more of the request came") from None


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


def _text(value: Any) -> str:
    """Give an item of a form as a text; JSON may say true where a form says "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    return text({"item": value}, "item")


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
    role = None if repo is None else ask.hub.users.role(ask.user, repo.namespace)
    if repo is None or (repo.private and role is None):
        raise HubError(401 if ask.user is None else 404, "Repository not found", "RepoNotFound")
    if write:
        ask.signed_in(write=True)
        if role != "write":
            raise HubError(403, "You have no right to write to this repository")
    if content and repo.gated and role is None and not granted(ask.hub.store, repo, ask.user):
        said = f"Access to this repository is restricted; ask for it at {ask.origin}{address(repo)}"
        raise HubError(401 if ask.user is None else 403, said, "GatedRepo")
    return repo


def address(repo: Repo) -> str:
    """Give where a repository's page is, below the endpoint."""
    return f"/datasets/{repo.id}" if repo.type == "datasets" else f"/{repo.id}"


def number(value: str | None, default: int) -> int:
    """Read a whole number of a query.

    Raises:
        HubError: 400, it is none.
    """
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise HubError(400, "Not a whole number")
    return int(value)
