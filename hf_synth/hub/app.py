"""The table of routes that Hugging Face clients use, and what stands around each. What is not known answers 404."""

from __future__ import annotations

import base64
import contextlib
import datetime
import logging
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, unquote, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hf_synth.hub import gating, pages, pushing, reading, repositories
from hf_synth.hub.asking import Ask, Hub, asked_repo, parts
from hf_synth.hub.names import HubError

_LOG = logging.getLogger("hf_synth.hub")
_SPOOL = 2**20  # bytes of a body that are held in memory; more go to a nameless file under ROOT/tmp
_REPO = "/api/{type}/{org}/{name}"

_Route = tuple[str, str, Callable[[Ask], Response]]
_PLACES = ("/datasets/{org}/{name}", "/{org}/{name}")  # of a dataset, of a model

TABLE: list[_Route] = [
    ("GET", "/api/whoami-v2", repositories.whoami),
    ("GET", "/api/organizations/{org}/members", repositories.members),
    ("GET", "/api/organizations/{org}/settings/repositories", repositories.owned),
    ("GET", "/api/settings/repositories", repositories.owned),
    ("POST", "/api/repos/create", repositories.create),
    ("DELETE", "/api/repos/delete", repositories.delete),
    ("POST", "/api/repos/move", repositories.move),
    ("POST", "/api/validate-yaml", pushing.validate),
    ("GET", "/api/{type}", repositories.listing),
    ("GET", _REPO, repositories.info),
    ("GET", _REPO + "/revision/{revision}", repositories.info),
    ("PUT", _REPO + "/settings", repositories.settings),
    ("GET", _REPO + "/auth-check", repositories.auth_check),
    ("GET", _REPO + "/auth-check/write", repositories.auth_check_write),
    ("GET", _REPO + "/user-access-request/{status}", gating.listing),
    ("POST", _REPO + "/user-access-request/handle", gating.handle),
    ("POST", _REPO + "/user-access-request/grant", gating.give),
    ("GET", _REPO + "/refs", repositories.refs),
    ("GET", _REPO + "/commits/{revision}", repositories.commits),
    ("POST", _REPO + "/tag/{revision}", repositories.tag),
    ("DELETE", _REPO + "/tag/{revision}", repositories.tag),
    ("POST", _REPO + "/branch/{revision}", repositories.branch),
    ("DELETE", _REPO + "/branch/{revision}", repositories.branch),
    ("POST", _REPO + "/super-squash/{revision}", repositories.squash),
    ("GET", _REPO + "/tree/{revision}", reading.tree),
    ("GET", _REPO + "/tree/{revision}/{path:path}", reading.tree),
    ("POST", _REPO + "/paths-info/{revision}", reading.paths_info),
    ("POST", _REPO + "/preupload/{revision}", pushing.preupload),
    ("POST", _REPO + "/commit/{revision}", pushing.commit),
    ("POST", "/lfs/{type}/{org}/{name}/{sha}/verify", pushing.lfs_verify),
    ("GET", "/", pages.home),
    ("GET", "/login", pages.login),
    *(("POST", place + ".git/info/lfs/objects/batch", pushing.lfs_batch) for place in _PLACES),
    *(("GET", place + "/resolve/{revision}/{path:path}", reading.resolve) for place in _PLACES),
    *(("POST", place + "/ask-access", gating.ask) for place in _PLACES),
    *(("GET", place, pages.page) for place in _PLACES),
    *(("GET", place + "/tree/{revision}", pages.page) for place in _PLACES),
    *(("GET", place + "/commit/{revision}", pages.page) for place in _PLACES),
]
# clients check a card's metadata without their token
_FOR_ALL = (pushing.validate,)


def make_app(hub: Hub) -> Starlette:
    """Make the app of a Hub."""

    async def put(request: Request) -> Response:
        return await pushing.lfs_put(hub, _path(request), request)

    routes = [Route(path, _guarded(_read_first(hub, run)), methods=[method]) for method, path, run in TABLE]
    routes.insert(0, Route("/lfs/{type}/{org}/{name}/{sha}/{size}", _guarded(put), methods=["PUT"]))
    app = Starlette(routes=routes, middleware=[Middleware(_keep_quoted)])
    app.router.redirect_slashes = False
    app.add_exception_handler(HTTPException, _unknown)
    return app


def _read_first(hub: Hub, run: Callable[[Ask], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Know who asks, read the body within what they may send, then run the route off the event loop."""

    async def answer(request: Request) -> Response:
        token = _token(request, hub.url if run is gating.ask else None)
        found = hub.users.of_token(token) if token else None
        if found is None and hub.members_only and run not in _FOR_ALL:
            raise HubError(401, "Sign in: this Hub shows nothing to others", "RepoNotFound")
        request.state.user = None if found is None else found.user
        headers = request.headers
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=str(hub.store.tmp)) as body:
            ask = Ask(
                hub=hub, method=request.method, path=_path(request), query=request.query_params,
                user=request.state.user, writes=found is not None and found.role == "write",
                token_name="" if found is None else found.name,
                origin=hub.url or _origin(request), place=request.scope["path"],
                content_type=headers.get("content-type", ""), if_none_match=headers.get("if-none-match", ""),
                wants_page=_wants_page(request), body=body,
            )  # fmt: skip
            limit = hub.limits.json
            if run is pushing.commit:  # only who may write may send much
                await run_in_threadpool(asked_repo, ask, write=True)
                limit = hub.limits.commit
            size = 0
            async for chunk in parts(request, hub.limits.idle):
                size += len(chunk)
                if size > limit:
                    raise HubError(413, "The request is too large")
                body.write(chunk)
            body.seek(0)
            return await run_in_threadpool(run, ask)

    return answer


def _token(request: Request, own: str | None) -> str:
    """Give the token of a request: a bearer, or what a person typed into the browser as the password of any user.

    A browser sends the latter by itself, so with it one may read, and ask for access on a page of this Hub; a page of
    another site can change nothing.

    Args:
        own: this Hub's address, "" when it knows none, for a route that its pages may post to; None for others.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    with contextlib.suppress(ValueError):
        origin = urlsplit(request.headers.get("origin", "")).netloc
        here = own is not None and origin != "" and origin in (request.headers.get("host"), urlsplit(own).netloc)
        if scheme.lower() == "basic" and (here or request.method in ("GET", "HEAD")):
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2].strip()
    return ""


def _origin(request: Request) -> str:
    try:
        return str(request.base_url).rstrip("/")
    except ValueError:
        raise HubError(400, "The request names no valid host") from None


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.scope["path"].startswith("/api/")


def _path(request: Request) -> dict[str, str]:
    """Give the parts of the path, unquoted only now: a branch may be called a/b."""
    try:
        path = {name: unquote(value, errors="strict") for name, value in request.path_params.items()}
    except UnicodeDecodeError:
        raise HubError(400, "The address is not UTF-8") from None
    kind = path.setdefault("type", "datasets" if request.scope["path"].startswith("/datasets/") else "models")
    if kind not in ("models", "datasets"):
        raise HubError(404, "Not found")
    return path


def _guarded(run: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn every refusal into the answer that clients understand; log nothing that a request held."""

    async def guarded(request: Request) -> Response:
        start = time.monotonic()
        try:
            answer = await run(request)
        except HubError as error:
            answer = _refuse(error, page=_wants_page(request))
        except ClientDisconnect:
            answer = JSONResponse({"error": "The client went away"}, 400)
        except FileNotFoundError:  # the repository was deleted while it was read
            answer = _refuse(HubError(404, "Repository not found", "RepoNotFound"), page=_wants_page(request))
        except Exception as error:  # its message might hold content: only its class is told
            full = isinstance(error, OSError)
            _LOG.error("%s in %s %s", type(error).__name__, request.method, request.scope["route"].path)
            said, status = ("The disk cannot be written", 507) if full else ("Internal error", 500)
            answer = JSONResponse({"error": said}, status)
        if _LOG.isEnabledFor(logging.INFO):
            _LOG.info(_line(request, answer.status_code, time.monotonic() - start))
        return answer

    return guarded


def _line(request: Request, status: int, seconds: float) -> str:
    """Write the line of a log: who, what, with which repository, how it ended. A name is told only when it is one."""
    place: str = request.scope["route"].path
    if status < 400:
        for part in ("type", "org", "name"):
            place = place.replace("{" + part + "}", request.path_params.get(part, ""))
    user = getattr(request.state, "user", None) or "-"
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{when} {user} {request.method} {place} {status} {seconds * 1000:.0f} ms"


def _refuse(error: HubError, *, page: bool) -> Response:
    if page:
        return pages.refusal(error)
    said = re.sub(r"[^ -~]", "?", error.message)  # a path may hold what a header must not
    headers = {"X-Error-Message": said} | ({"X-Error-Code": error.code} if error.code else {})
    return JSONResponse({"error": error.message}, error.status, headers=headers)


async def _unknown(request: Request, error: Exception) -> Response:
    api = request.scope["path"].startswith("/api/")  # clients try routes that only newer Hubs have, and expect 404
    return JSONResponse({"error": "Not found"}, 404 if api else getattr(error, "status_code", 404))


def _keep_quoted(app: ASGIApp) -> ASGIApp:
    """Let routes see the path as it was sent, so that %2F inside a branch's name is not a slash between parts."""

    async def keep(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path") or quote(scope["path"]).encode()
            scope = dict(scope, path=raw.split(b"?")[0].decode("latin-1"))
        try:
            await app(scope, receive, send)
        except Exception as error:  # amid an answer: the server ends the connection, and no traceback is written
            _LOG.error("%s amid an answer", type(error).__name__)

    return keep
