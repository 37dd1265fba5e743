"""The ASGI app of the local Hub: table of routes, authentication, body limits, errors. Unknown routes answer 404."""

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
from hf_synth.hub.names import HubError
from hf_synth.hub.request import Hub, HubRequest, chunks, find_repo, is_own_host

_LOG = logging.getLogger("hf_synth.hub")
_SPOOL = 2**20  # bytes of a body in memory; larger ones go to an unnamed file under ROOT/tmp
_REPO = "/api/{type}/{org}/{name}"

_Route = tuple[str, str, Callable[[HubRequest], Response]]
_PLACES = ("/datasets/{org}/{name}", "/{org}/{name}")  # of a dataset, of a model

TABLE: list[_Route] = [
    ("GET", "/api/whoami-v2", repositories.whoami),
    ("GET", "/api/organizations/{org}/members", repositories.members),
    ("GET", "/api/organizations/{org}/settings/repositories", repositories.list_owned),
    ("GET", "/api/settings/repositories", repositories.list_owned),
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
    ("POST", _REPO + "/user-access-request/grant", gating.grant_access),
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
    *(("POST", place + "/ask-access", gating.request_access) for place in _PLACES),
    *(("GET", place, pages.page) for place in _PLACES),
    *(("GET", place + "/tree/{revision}", pages.page) for place in _PLACES),
    *(("GET", place + "/commit/{revision}", pages.page) for place in _PLACES),
    ("GET", "/datasets/{org}/{name}/viewer/{revision}", pages.rows),
]
# clients check a card's metadata without their token
_FOR_ALL = (pushing.validate,)


def make_app(hub: Hub) -> Starlette:
    """Create the app of a Hub."""

    async def put(request: Request) -> Response:
        return await pushing.lfs_put(hub, _path(request), request)

    routes = [Route(path, _guarded(_authenticated(hub, run)), methods=[method]) for method, path, run in TABLE]
    routes.insert(0, Route("/lfs/{type}/{org}/{name}/{sha}/{size}", _guarded(put), methods=["PUT"]))
    app = Starlette(routes=routes, middleware=[Middleware(_own_hosts, hosts=hub.hosts), Middleware(_keep_quoted)])
    app.router.redirect_slashes = False
    app.add_exception_handler(HTTPException, _unknown)
    return app


def _authenticated(hub: Hub, run: Callable[[HubRequest], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route: look up the user, read the body within its limit, run the route in a thread."""

    async def answer(request: Request) -> Response:
        token = _token(request, hub.url if run is gating.request_access else None)
        record = hub.users.of_token(token) if token else None
        if record is None and hub.members_only and run not in _FOR_ALL:
            raise HubError(401, "Sign in: this Hub is for members only", "RepoNotFound")
        request.state.user = None if record is None else record.user
        headers = request.headers
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=str(hub.store.tmp)) as body:
            hub_request = HubRequest(
                hub=hub, method=request.method, path=_path(request), query=request.query_params,
                user=request.state.user, writes=record is not None and record.role == "write",
                token_name="" if record is None else record.name,
                origin=hub.url or _origin(request), place=request.scope["path"],
                accept=headers.get("accept", ""), content_type=headers.get("content-type", ""),
                if_none_match=headers.get("if-none-match", ""),
                wants_page=_wants_page(request), body=body,
            )  # fmt: skip
            limit = hub.limits.json
            if run is pushing.commit:  # large bodies only with write permission
                await run_in_threadpool(find_repo, hub_request, write=True)
                limit = hub.limits.commit
            size = 0
            async for chunk in chunks(request, hub.limits.idle):
                size += len(chunk)
                if size > limit:
                    raise HubError(413, "The request is too large")
                body.write(chunk)
            body.seek(0)
            return await run_in_threadpool(run, hub_request)

    return answer


def _token(request: Request, own: str | None) -> str:
    """Return the token of a request: a bearer, or the password of basic authentication in a browser.

    Browsers send passwords on their own, so a password only allows reading, and requests for access from a page of this
    Hub: a page of another site can change nothing.

    Args:
        own: this Hub's URL ("" if unknown) for a route that its pages post to; None for other routes.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    with contextlib.suppress(ValueError):
        origin = urlsplit(request.headers.get("origin", "")).netloc
        same_site = own is not None and origin != "" and origin in (request.headers.get("host"), urlsplit(own).netloc)
        if scheme.lower() == "basic" and (same_site or request.method in ("GET", "HEAD")):
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
    """Return the unquoted parts of the path; a part may contain a slash, as in branch a/b."""
    try:
        path = {name: unquote(value, errors="strict") for name, value in request.path_params.items()}
    except UnicodeDecodeError:
        raise HubError(400, "The URL is not UTF-8") from None
    kind = path.setdefault("type", "datasets" if request.scope["path"].startswith("/datasets/") else "models")
    if kind not in ("models", "datasets"):
        raise HubError(404, "Not found")
    return path


def _guarded(run: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a route: turn errors into answers for clients, and log without content of the request."""

    async def guarded(request: Request) -> Response:
        start = time.monotonic()
        try:
            answer = await run(request)
        except HubError as error:
            answer = _refuse(error, page=_wants_page(request))
        except ClientDisconnect:
            answer = JSONResponse({"error": "The client disconnected"}, 400)
        except FileNotFoundError:  # the repository was deleted meanwhile
            answer = _refuse(HubError(404, "Repository not found", "RepoNotFound"), page=_wants_page(request))
        except Exception as error:  # its message might hold content: only its class is logged
            _LOG.error("%s in %s %s", type(error).__name__, request.method, request.scope["route"].path)
            message, status = (
                ("The disk cannot be written", 507) if isinstance(error, OSError) else ("Internal error", 500)
            )
            answer = JSONResponse({"error": message}, status)
        if _LOG.isEnabledFor(logging.INFO):
            _LOG.info(_log_line(request, answer.status_code, time.monotonic() - start))
        return answer

    return guarded


def _log_line(request: Request, status: int, seconds: float) -> str:
    """Return a log line: time, user, method, route, status, duration; the repository only if it was successful."""
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
    message = re.sub(r"[^ -~]", "?", error.message)  # a path may hold characters that a header may not
    headers = {"X-Error-Message": message} | ({"X-Error-Code": error.code} if error.code else {})
    return JSONResponse({"error": error.message}, error.status, headers=headers)


async def _unknown(request: Request, error: Exception) -> Response:
    api = request.scope["path"].startswith("/api/")  # clients try newer routes, and expect 404
    return JSONResponse({"error": "Not found"}, 404 if api else getattr(error, "status_code", 404))


def _own_hosts(app: ASGIApp, hosts: frozenset[str]) -> ASGIApp:
    """Wrap the app: refuse a request that calls the Hub by another name than its own."""

    async def own(scope: Scope, receive: Receive, send: Send) -> None:
        sent = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] == "http" and not (len(sent) == 1 and is_own_host(sent[0], hosts)):
            problem = "This Hub does not go by that name: start it with --url and the address that clients use"
            await JSONResponse({"error": problem}, 421, headers={"X-Error-Message": problem})(scope, receive, send)
            return
        await app(scope, receive, send)

    return own


def _keep_quoted(app: ASGIApp) -> ASGIApp:
    """Wrap the app: match routes against the quoted path, so that %2F in a branch's name does not separate parts."""

    async def keep(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path") or quote(scope["path"]).encode()
            scope = dict(scope, path=raw.split(b"?")[0].decode("latin-1"))
        try:
            await app(scope, receive, send)
        except Exception as error:  # within an answer: the server closes the connection; no traceback is logged
            _LOG.error("%s within an answer", type(error).__name__)

    return keep
