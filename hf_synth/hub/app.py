"""The table of routes that Hugging Face clients use, and what stands around each. What is not known answers 404."""

from __future__ import annotations

import logging
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from typing import IO
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hf_synth.hub import pages, pushing, reading, repositories
from hf_synth.hub.asking import Ask, Hub, Limits
from hf_synth.hub.names import HubError
from hf_synth.hub.store import Store
from hf_synth.hub.users import Users

_LOG = logging.getLogger("hf_synth.hub")
_SPOOL = 2**20  # bytes of a body that are held in memory; more go to a nameless file under ROOT/tmp
_REPO = "/api/{type}/{org}/{name}"

TABLE: list[tuple[str, str, Callable[[Ask], Response]]] = [
    ("GET", "/api/whoami-v2", repositories.whoami),
    ("POST", "/api/repos/create", repositories.create),
    ("DELETE", "/api/repos/delete", repositories.delete),
    ("POST", "/api/validate-yaml", pushing.validate),
    ("GET", "/api/{type}", repositories.listing),
    ("GET", _REPO, repositories.info),
    ("GET", _REPO + "/revision/{revision}", repositories.info),
    ("PUT", _REPO + "/settings", repositories.settings),
    ("GET", _REPO + "/auth-check", repositories.auth_check),
    ("GET", _REPO + "/auth-check/write", repositories.auth_check),
    ("GET", _REPO + "/refs", repositories.refs),
    ("GET", _REPO + "/commits/{revision}", repositories.commits),
    ("POST", _REPO + "/tag/{revision}", repositories.tag),
    ("DELETE", _REPO + "/tag/{revision}", repositories.tag),
    ("POST", _REPO + "/branch/{revision}", repositories.branch),
    ("DELETE", _REPO + "/branch/{revision}", repositories.branch),
    ("GET", _REPO + "/tree/{revision}", reading.tree),
    ("GET", _REPO + "/tree/{revision}/{path:path}", reading.tree),
    ("POST", _REPO + "/paths-info/{revision}", reading.paths_info),
    ("POST", _REPO + "/preupload/{revision}", pushing.preupload),
    ("POST", _REPO + "/commit/{revision}", pushing.commit),
    ("POST", "/{org}/{name}.git/info/lfs/objects/batch", pushing.lfs_batch),
    ("POST", "/datasets/{org}/{name}.git/info/lfs/objects/batch", pushing.lfs_batch),
    ("POST", "/lfs/{type}/{org}/{name}/{sha}/verify", pushing.lfs_verify),
    ("GET", "/datasets/{org}/{name}/resolve/{revision}/{path:path}", reading.resolve),
    ("GET", "/{org}/{name}/resolve/{revision}/{path:path}", reading.resolve),
    ("GET", "/", pages.home),
    ("GET", "/datasets/{org}/{name}", pages.page),
    ("GET", "/{org}/{name}", pages.page),
]


def make_app(store: Store, users: Users, limits: Limits) -> Starlette:
    """Make the app of a Hub."""
    hub = Hub(store, users, limits, secrets.token_bytes(32))

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
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user = hub.users.of_token(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL, dir=str(hub.store.tmp)) as body:
            await _receive(request, body, hub.limits.json if user is None else hub.limits.commit)
            ask = Ask(
                hub, request.method, request.url, _path(request), request.query_params, user,
                str(request.base_url).rstrip("/"), request.headers.get("content-type", ""), body,
            )  # fmt: skip
            return await run_in_threadpool(run, ask)

    return answer


async def _receive(request: Request, body: IO[bytes], limit: int) -> None:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HubError(413, "The request is too large")
        body.write(chunk)
    body.seek(0)


def _path(request: Request) -> dict[str, str]:
    """Give the parts of the path, unquoted only now: a branch may be called a/b."""
    try:
        path = {name: unquote(value, errors="strict") for name, value in request.path_params.items()}
    except UnicodeDecodeError:
        raise HubError(400, "The address is not UTF-8") from None
    kind = path.setdefault("type", "datasets" if request.url.path.startswith("/datasets/") else "models")
    if kind not in ("models", "datasets"):
        raise HubError(404, "Not found")
    return path


def _guarded(run: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn every refusal into the answer that clients understand; log nothing that a request held."""

    async def guarded(request: Request) -> Response:
        try:
            return await run(request)
        except HubError as error:
            return _refuse(error)
        except ClientDisconnect:
            return JSONResponse({"error": "The client went away"}, 400)
        except FileNotFoundError:  # the repository was deleted while it was read
            return _refuse(HubError(404, "Repository not found", "RepoNotFound"))
        except Exception as error:  # its message might hold content: only its class is told
            full = isinstance(error, OSError)
            _LOG.error("%s in %s %s", type(error).__name__, request.method, request.scope["route"].path)
            said, status = ("The disk cannot be written", 507) if full else ("Internal error", 500)
            return JSONResponse({"error": said}, status)

    return guarded


def _refuse(error: HubError) -> Response:
    said = re.sub(r"[^ -~]", "?", error.message)  # a path may hold what a header must not
    headers = {"X-Error-Message": said} | ({"X-Error-Code": error.code} if error.code else {})
    return JSONResponse({"error": error.message}, error.status, headers=headers)


async def _unknown(request: Request, error: Exception) -> Response:
    api = request.url.path.startswith("/api/")  # clients try routes that only newer Hubs have, and expect 404
    return JSONResponse({"error": "Not found"}, 404 if api else getattr(error, "status_code", 404))


def _keep_quoted(app: ASGIApp) -> ASGIApp:
    """Let routes see the path as it was sent, so that %2F inside a branch's name is not a slash between parts."""

    async def keep(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path") or quote(scope["path"]).encode()
            scope = dict(scope, path=raw.split(b"?")[0].decode("latin-1"))
        await app(scope, receive, send)

    return keep
