"""The ASGI app of a review, and the server on this machine's loopback address.

The page shows notes that may not leave this machine, so that every request must come from it and from its own page:

- The server listens on 127.0.0.1 alone, and answers to no name but loopback's, so that no name of another site can be
  pointed here (DNS rebinding).
- A page needs the key of the address that the command prints. The browser keeps it in a cookie that is sent to no page
  of another site. Another user of this machine does not know it.
- A decision needs the origin of the page in addition to the cookie.
- The content security policy lets nothing be loaded from or sent elsewhere, and nothing is stored by the browser.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from hf_synth.errors import HfSynthError, OutputError
from hf_synth.review import pages
from hf_synth.review.session import Session, WrongDecision
from hf_synth.review.view import OPEN, QUEUES

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_LOG = logging.getLogger("hf_synth.review")
_LARGEST = 64 << 10  # bytes of a form
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STRANGER = (
    "This page opens by the address that `hf-synth review` printed, with its key. The command prints a new one each "
    "time that it starts."
)


@dataclass(frozen=True)
class Review:
    """A session that is served.

    Args:
        command: what comes next, shown when no note is left.
        key: opens the page.
    """

    session: Session
    command: str = ""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)


def make_app(review: Review) -> Starlette:
    """Create the app of a review."""
    from starlette.applications import Starlette
    from starlette.responses import RedirectResponse
    from starlette.routing import Route

    async def home(request: Request) -> Response:
        if "key" in request.query_params:  # it leaves the address bar, and with it the browser's history
            return _open_with_key(review, request)
        if not _has_key(review, request):
            return _plain(_STRANGER, 403)
        return _queue_page(review, request.query_params.get("queue", OPEN), whole=True)

    async def decide(request: Request) -> Response:
        if not _has_key(review, request) or not _own_page(request):
            return _plain(_STRANGER, 403)
        form = await _form(request)
        if form is None:
            return _plain("The form is too large or malformed. Nothing was saved.", 413)
        do, _, value = form.pop("answer", "").partition(":")
        form |= {"do": do, "taken_for" if do == "rate" else "label": value}
        whole, queue = request.headers.get("x-fragment") != "1", form.get("queue", OPEN)
        try:
            alert = review.session.decide(form)
        except OutputError as error:  # the disk is full: the event was not written
            _LOG.error("%s", error)
            return _plain(f"{error}. Nothing was saved.", 507)
        except WrongDecision:
            return _plain("This is no answer to this note. Nothing was saved: reload the page.", 422)
        if whole and not alert:  # a form without the script: a reload must not send it again
            return RedirectResponse(f"/?queue={queue}" if queue in QUEUES else "/", 303, headers=_HEADERS)
        return _queue_page(review, queue, whole=whole, alert=alert)

    async def file(request: Request) -> Response:
        path = request.url.path
        return _plain(pages.file(path), 200, pages.FILES[path])

    routes = [Route("/", _guarded(home)), Route("/decide", _guarded(decide), methods=["POST"])]
    routes += [Route(path, _guarded(file)) for path in pages.FILES]
    return Starlette(routes=routes, exception_handlers={404: _missing, 405: _missing})


def _queue_page(review: Review, queue: str, *, whole: bool, alert: str = "") -> Response:
    """Return the page of a queue; when no note is left, the table is written first."""
    session = review.session
    view = session.view(queue if queue in QUEUES else OPEN)
    if view.item is None:
        try:
            session.export()
        except OutputError as error:  # each answer is on disk by now
            _LOG.error("%s", error)
            alert = alert or f"Your answers are saved; the table could not be written: {error}."
    html = (pages.page if whole else pages.card)(session, view, review.command, alert)
    return _plain(html, 200, "text/html")


def _open_with_key(review: Review, request: Request) -> Response:
    """Keep the key in a cookie and open the page, if the key is right."""
    from starlette.responses import RedirectResponse

    if not _equal(request.query_params["key"], review.key):
        return _plain(_STRANGER, 403)
    answer = RedirectResponse("/", 303, headers=_HEADERS)
    answer.set_cookie(_cookie(request), review.key, httponly=True, samesite="strict", path="/")
    return answer


def _has_key(review: Review, request: Request) -> bool:
    return _equal(request.cookies.get(_cookie(request), ""), review.key)


def _equal(given: str, key: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), key.encode())


def _cookie(request: Request) -> str:
    """Return the name of the cookie; it has the port in it, since browsers send cookies to all ports of a host."""
    return f"review_{request.url.port or 80}"


def _own_page(request: Request) -> bool:
    """Return whether a form was sent by a page of this server."""
    sent, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    return sent == f"http://{request.headers.get('host')}" and site == "same-origin"


async def _form(request: Request) -> dict[str, str] | None:
    """Read a form; None of one that is too large or malformed."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            return None
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20))
    except ValueError:
        return None


def _guarded(run: Callable[[Request], object]) -> Callable[[Request], object]:
    """Wrap a route: refuse other hosts, and turn errors into sentences; no content is logged."""

    async def guarded(request: Request) -> Response:
        from starlette.requests import ClientDisconnect

        if not is_loopback_host(request.headers.getlist("host")):
            return _plain("This address is not that of the review.", 421)
        try:
            answer: Response = await run(request)  # type: ignore[misc]
        except ClientDisconnect:
            answer = _plain("The request ended early. Nothing was saved.", 400)
        except HfSynthError as error:  # the disk is full, or a file is damaged
            _LOG.error("%s", error)
            answer = _plain(f"{error}. The answers so far are saved; reload the page.", 507)
        except Exception as error:  # its message might hold text of a note: only its class is logged
            _LOG.error("%s in %s %s", type(error).__name__, request.method, request.url.path)
            answer = _plain("Something went wrong, and the answer may not be saved. Reload the page.", 500)
        return answer

    return guarded


def is_loopback_host(sent: list[str]) -> bool:
    """Return whether the Host header of a request names loopback, with any port: a tunnel may have another one."""
    if len(sent) != 1 or set(sent[0]) & set("@/?#\\ \t"):
        return False
    try:
        name = urlsplit(f"//{sent[0]}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _missing(request: Request, error: Exception) -> Response:
    return _plain("Not found", getattr(error, "status_code", 404))


def _plain(text: str, status: int, kind: str = "text/plain") -> Response:
    from starlette.responses import Response

    return Response(text, status, headers=_HEADERS, media_type=kind)


def serve(review: Review, *, port: int = 0, say: Callable[[str], object] = print) -> None:
    """Serve a review on 127.0.0.1 until interrupted.

    Args:
        port: 0 is any free port.
        say: takes the address with its key, once the page can be opened.

    Raises:
        OutputError: the port is taken.
    """
    import uvicorn

    if not 0 <= port < 2**16:
        raise OutputError(f"127.0.0.1:{port} cannot be listened on (not a port); choose another --port")
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError as error:
        raise OutputError(f"127.0.0.1:{port} cannot be listened on ({error.strerror}); choose another --port") from None
    config = uvicorn.Config(
        make_app(review), log_config=None, log_level="warning", access_log=False, lifespan="off",
        server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    say(f"http://127.0.0.1:{listener.getsockname()[1]}/?key={review.key}")
    sys.stdout.flush()
    with contextlib.closing(listener), contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
