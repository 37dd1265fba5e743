"""The client of a Hub: its settings for one Hub at a time, the guard of the institution's own, and its errors."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from hf_synth.errors import PublishError
from hf_synth.publishing.gate import is_institution

_LOCK = threading.RLock()
_STATUS = {
    401: "the token is missing or wrong",
    403: "the token has no right to write there",
    404: "there is no such repository, or the token may not see it",
    409: "it already exists in another form",
    412: "somebody else changed the repository meanwhile; nothing was published: publish again",
    413: "a file is too large for the Hub",
    429: "the Hub limits the rate of requests; publish again later",
}


def endpoint_of(endpoint: str | None) -> str:
    """Return the URL of a Hub: the argument, HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return (endpoint or str(constants.ENDPOINT)).rstrip("/")


@contextlib.contextmanager
def client(endpoint: str) -> Iterator[None]:
    """Configure huggingface_hub's client for one Hub within the block.

    Only the public Hub supports Xet. Requests to the institution's own Hub bypass proxies and may go to no other host,
    wherever a redirect or an upload address points, since credentialed data may go only there. The process has one
    client, so threads take turns: one must not remove the guard of another.
    """
    import httpx2
    from huggingface_hub.utils import _http

    def check_host(request: Any) -> None:
        if request.url.netloc.decode() != urlsplit(endpoint).netloc and not is_institution(str(request.url)):
            raise PublishError("the Hub redirected data to another host; nothing was sent there")

    def direct_client() -> Any:
        hooks = {"request": [_http.hf_request_event_hook, check_host]}
        how: dict[str, Any] = {"follow_redirects": True, "timeout": None, "trust_env": False}
        return httpx2.Client(event_hooks=hooks, verify=_certificates(), **how)

    with _LOCK:
        yield from _configured(endpoint, direct_client if is_institution(endpoint) else None)


@cache
def _certificates() -> Any:
    """Read the certificates to check servers by once; a client that makes its own context reads them again."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


def _configured(endpoint: str, make: Callable[[], Any] | None) -> Iterator[None]:
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    before = constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY, _http._GLOBAL_CLIENT_FACTORY
    host = urlsplit(endpoint).hostname or ""
    constants.HF_HUB_DISABLE_XET = before[0] or not (host == "huggingface.co" or host.endswith(".huggingface.co"))
    constants.HF_HUB_DISABLE_TELEMETRY = True
    if make is not None:
        set_client_factory(make)
    try:
        with warnings.catch_warnings():  # huggingface_hub 2.4 uploads in a way that httpx2 deprecates
            warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
            yield
    finally:
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY = before[:2]
        set_client_factory(before[2])


def _hub_of(error: BaseException) -> str:
    """Return the Hub that a failed request went to, as scheme, host and port; "the Hub" where that is not known."""
    try:
        url = error.request.url  # type: ignore[attr-defined]
        return f"the Hub at {url.scheme}://{url.netloc.decode('ascii')}"
    except (AttributeError, RuntimeError, UnicodeDecodeError):
        return "the Hub"


@contextlib.contextmanager
def clear_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn errors of a Hub or its client into one sentence; their own messages may repeat what we sent."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except PublishError:
        raise
    except HFValidationError:
        raise PublishError(
            "the repository's name is not valid: use ORG/NAME with letters, digits, '-', '_', '.'"
        ) from None
    except Exception as error:
        cause = error if isinstance(error, HfHubHTTPError) else error.__cause__  # an upload wraps its error
        if isinstance(cause, PublishError):
            raise cause from None
        if not isinstance(cause, HfHubHTTPError):
            hub = _hub_of(error)
            raise PublishError(
                f"{repo_id}, {doing}: {hub} cannot be reached ({type(error).__name__}): name another with --endpoint "
                "or HF_ENDPOINT; `hf-synth hub serve --root DIR` starts one of your own"
            ) from None
        status = getattr(cause.response, "status_code", None)
        raise PublishError(
            f"{repo_id}, {doing}: {_STATUS.get(status or 0, 'the Hub failed')} (status {status})"
        ) from None
