"""One HTTP request to the Hub: user, path, query, permissions, and strict readers of its body within limits."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from starlette.datastructures import QueryParams
from starlette.requests import Request

from hf_synth.hub.access import has_access
from hf_synth.hub.names import HubError
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Repo
from hf_synth.hub.users import Users


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Args:
        json: bytes of a JSON body, and of any body without write permission.
        line: bytes of one line of a commit, that is of one small file in base64.
        commit: bytes of a whole commit without its large files.
        file: bytes of one large file.
        idle: seconds without any byte of a body.
    """

    json: int = 4 * 2**20
    line: int = 32 * 2**20
    commit: int = 2**30
    file: int = 64 * 2**30
    idle: float = 60


@dataclass(frozen=True)
class Hub:
    """State and settings of a Hub, for all routes.

    Args:
        url: the address at which clients reach it through a proxy; "" is the address in their requests.
        members_only: whether nothing is shown without a token.
        hosts: names and addresses under which clients may reach it, beside loopback; "*" is any address, not any name.
        secret: signs the upload URLs of large files.
    """

    store: Store
    users: Users
    limits: Limits
    url: str
    members_only: bool
    hosts: frozenset[str]
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class HubRequest:
    """One request.

    Args:
        user: None without a token.
        writes: whether the token allows writing.
        accept: what the client accepts as an answer.
        origin: the endpoint as the client knows it.
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
    accept: str
    content_type: str
    if_none_match: str
    wants_page: bool
    body: IO[bytes] = field(repr=False)

    @property
    def store(self) -> Store:
        """The repositories."""
        return self.hub.store

    def signed_in(self, *, write: bool = False) -> str:
        """Return the user.

        Raises:
            HubError: 401, there is no token; 403, the token does not allow writing.
        """
        if self.user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        if write and not self.writes:
            raise HubError(403, "This token is for reading; use one with the role write")
        return self.user

    def next_page(self, cursor: object) -> dict[str, str]:
        """Return the Link header to the next page of a list."""
        query = urlencode([*((k, v) for k, v in self.query.multi_items() if k != "cursor"), ("cursor", str(cursor))])
        return {"Link": f'<{self.origin}{quote(self.place, safe="/%")}?{query}>; rel="next"'}

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object; an empty body is {}.

        Raises:
            HubError: 413, it is too large; 400, it is not an object.
        """
        data = self.body.read(self.hub.limits.json + 1)
        if len(data) > self.hub.limits.json:
            raise HubError(413, "The request is too large")
        return parse_object(data or b"{}")

    def lines(self) -> Iterator[dict[str, Any]]:
        """Iterate over a body of one JSON object a line.

        Raises:
            HubError: 413, a line is too long; 400, it is not an object.
        """
        limit = self.hub.limits.line
        while line := self.body.readline(limit + 1):
            if len(line) > limit:
                raise HubError(413, "A file is too large for a commit; send it as a large file (LFS)")
            if line.strip():
                yield parse_object(line)

    def form(self, *names: str) -> dict[str, list[str]]:
        """Read lists of texts by name, all or some, from a body that is either JSON or a form.

        Raises:
            HubError: 413, it is too large; 400, it holds something else.
        """
        fields: dict[str, Any]
        if "json" in self.content_type:
            fields = {name: v if isinstance(v, list) else [v] for name, v in self.json().items()}
        else:
            data = self.body.read(self.hub.limits.json + 1)
            try:
                fields = parse_qs(data.decode(), max_num_fields=100_000, errors="strict")
            except ValueError:
                raise HubError(400, "The form is malformed") from None
        texts = {name: [_text(item) for item in fields.get(name, [])] for name in names or map(_text, fields)}
        if any(len(items) > 100_000 for items in texts.values()):
            raise HubError(400, "The list is too long")
        return texts


def is_own_host(sent: str, hosts: frozenset[str]) -> bool:
    """Return whether the Host header of a request names this Hub: loopback, or one of its hosts; with any port.

    A page of another site whose name was pointed to this machine (DNS rebinding) sends its own name. An address cannot
    be pointed elsewhere.
    """
    try:
        host = urlsplit(f"//{sent}").hostname or ""
        if set(sent) & set("@/?#\\ \t"):
            return False
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in hosts or host == "localhost"
    return address.is_loopback or str(address) in hosts or "*" in hosts


async def chunks(request: Request, idle: float) -> AsyncIterator[bytes]:
    """Iterate over the chunks of a request's body.

    Raises:
        HubError: 408, no chunk came for too long.
    """
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), idle)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HubError(408, "The body of the request timed out") from None


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        HubError: 400, it is not valid; the message does not quote it.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HubError(400, "Not a JSON object")
    return body


def text(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """Return a text of a JSON object; without a default it is required.

    Raises:
        HubError: 400, it is missing, not a text, or holds a surrogate.
    """
    value = body.get(name)
    if value is None:
        value = default
    if not isinstance(value, str) or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise HubError(400, f"{name} must be a text")
    return value


def _text(value: Any) -> str:
    """Return an item of a form as a text: true in JSON is "true" in a form."""
    if isinstance(value, bool):
        return str(value).lower()
    return text({"item": value}, "item")


def byte_count(body: dict[str, Any], name: str) -> int:
    """Return a number of bytes of a JSON object.

    Raises:
        HubError: 400, it is not a whole number from 0 to 2**53.
    """
    value = body.get(name)
    if type(value) is not int or not 0 <= value <= 2**53:
        raise HubError(400, f"{name} must be a whole number")
    return value


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Check that a value inside a JSON object is an object, and return it.

    Raises:
        HubError: 400, it is not.
    """
    if not isinstance(value, dict):
        raise HubError(400, f"{what} must be an object")
    return value


def objects(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects inside a JSON object.

    Raises:
        HubError: 400, it is not such a list.
    """
    value = body.get(name)
    if not isinstance(value, list):
        raise HubError(400, f"{name} must be a list")
    return [mapping(item, name) for item in value]


def find_repo(request: HubRequest, *, write: bool = False, content: bool = False) -> Repo:
    """Return the repository of a request's path, if the user may see it, write to it or read its files (content).

    A private repository does not exist for others.

    Raises:
        HubError: 401, 403 or 404, as the public Hub answers.
    """
    repo = request.store.repo(request.path["type"], f"{request.path['org']}/{request.path['name']}")
    role = None if repo is None else request.hub.users.role(request.user, repo.namespace)
    if repo is None or (repo.private and role is None):
        raise HubError(401 if request.user is None else 404, "Repository not found", "RepoNotFound")
    if write:
        request.signed_in(write=True)
        if role != "write":
            raise HubError(403, "You have no right to write to this repository")
    if content and repo.gated and role is None and not has_access(request.store, repo, request.user):
        message = f"Access to this repository is restricted; ask for it at {request.origin}{address(repo)}"
        raise HubError(401 if request.user is None else 403, message, "GatedRepo")
    return repo


def address(repo: Repo) -> str:
    """Return the path of a repository's page below the endpoint."""
    return f"/datasets/{repo.id}" if repo.type == "datasets" else f"/{repo.id}"


def number(value: str | None, default: int) -> int:
    """Parse a whole number of a query.

    Raises:
        HubError: 400, it is not one.
    """
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise HubError(400, "Not a whole number")
    return int(value)
