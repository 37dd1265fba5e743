"""A local Hub that unmodified `datasets`, `transformers` and `huggingface_hub` push to and pull from.

    with running_hub(folder) as hub, connected(hub):
        dataset.push_to_hub("org/name", token=hub.token)

It knows nothing of our stages. Nothing heavy is imported until it is used.

    names      what may be called what, how a refusal is said      asking        one request: who, what, strict readers
    disk       writing that a kill cannot tear; locks              repositories  routes about repositories as wholes
    tree       repositories, commits, trees as values (pure)       reading       routes that read files and trees
    store      repositories, refs, commits, content                pushing       routes that write: commits, large files
    users      tokens, and whose a namespace is                    gating        routes of gated repositories
    access     who asked to see what is gated                      pages, cards  pages for people; the YAML of cards
    sweeping   removing what nothing names; checking what is       app           the table of routes, and the guard
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import OutputError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from hf_synth.hub.asking import Limits as Limits
    from hf_synth.hub.store import Store

__all__ = ["Limits", "RunningHub", "client_environment", "connected", "create_app", "running_hub", "serve"]


def __getattr__(name: str) -> Any:
    if name == "Limits":
        from hf_synth.hub.asking import Limits

        return Limits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class RunningHub:
    """A Hub that is being served.

    Args:
        url: its endpoint, for HF_ENDPOINT.
        token: of its first user.
    """

    url: str
    token: str = field(repr=False)


def create_app(root: str | Path, *, tokens: Mapping[str, str] | None = None, limits: Limits | None = None) -> Starlette:
    """Make the app of a Hub whose repositories lie in a folder, which it keeps for itself while it lives.

    Args:
        tokens: users, {name: token}; each is let in with this token and no earlier one given so. A Hub without any
            users gets one called "local", whose token is in ROOT/token. Users of earlier starts stay.
        limits: how much one request may bring.

    Raises:
        OutputError: the folder cannot be written, or another server has it; a user or token cannot be one.
    """
    return _make(Path(root), tokens, limits)[0]


def _make(
    root: Path,
    tokens: Mapping[str, str] | None,
    limits: Limits | None = None,
    *,
    url: str = "",
    members_only: bool = False,
) -> tuple[Starlette, Store, str]:
    """Make the app, the store to close after it, and the token of the first user ("" when it is theirs alone)."""
    from hf_synth.hub.app import make_app
    from hf_synth.hub.asking import Hub, Limits
    from hf_synth.hub.disk import kept_secret
    from hf_synth.hub.store import Store
    from hf_synth.hub.users import Users

    store = None
    try:
        store = Store(root, serve=True)
        users = Users(root)
        for name, token in (tokens or {}).items():
            users.admit(name, token)
        first = next(iter(tokens.values())) if tokens else users.default_token()
        hub = Hub(store, users, limits or Limits(), url.rstrip("/"), members_only, kept_secret(root))
        return make_app(hub), store, first or ""
    except BlockingIOError:
        raise OutputError(f"{root}: another Hub serves this folder; stop it or choose another folder") from None
    except (OSError, ValueError) as error:
        if store is not None:
            store.close()
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"{root}: a Hub cannot be kept there ({said})") from None


def serve(
    root: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tokens: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    url: str = "",
    members_only: bool = False,
) -> None:
    """Serve a Hub until interrupted, and print how to use it; the token only on a terminal, so that no log has it.

    Args:
        host: address to listen on; any but loopback sends tokens and content unencrypted, and a warning is printed.
        port: 0 for any that is free.
        url: the address under which clients reach it, where a proxy stands before it.
        members_only: show nothing at all to who is not signed in, be it public or not.

    Raises:
        OutputError: the folder cannot be written or is served already, or the port is taken.
    """
    import uvicorn

    root = Path(root)
    listener = _listen(host, port)
    try:
        app, store, first = _make(root, tokens, limits, url=url, members_only=members_only)
    except BaseException:
        listener.close()
        raise
    url = url.rstrip("/") or _url(host, listener)
    if not _is_loopback(host):
        print(f"warning: {host} is not loopback, and tokens and files travel unencrypted", file=sys.stderr)
    local = bool(first) and not tokens
    token = f'"$(cat {shlex.quote(str((root / "token").absolute()))})"' if local else "A_TOKEN"
    if local and sys.stdout.isatty():
        token = first
    # the address ends the first line: scripts read it there
    print(f"serving {root} at {url}\n  export HF_ENDPOINT={url} HF_HUB_DISABLE_XET=1 HF_TOKEN={token}", flush=True)
    server = uvicorn.Server(_config(app, "warning"))
    try:
        with contextlib.suppress(KeyboardInterrupt):  # being interrupted is how it ends
            server.run(sockets=[listener])
    finally:
        store.close()


@contextlib.contextmanager
def running_hub(
    root: str | Path, *, port: int = 0, tokens: Mapping[str, str] | None = None, limits: Limits | None = None
) -> Iterator[RunningHub]:
    """Serve a Hub on loopback in a thread, for as long as the block lasts.

    Raises:
        OutputError: the folder cannot be written or is served already, the port is taken, or the server does not start.
    """
    import uvicorn

    listener = _listen("127.0.0.1", port)
    with contextlib.closing(listener):
        app, store, token = _make(Path(root), tokens, limits)
        with contextlib.closing(store):
            server = uvicorn.Server(_config(app, "critical"))
            thread = threading.Thread(target=server.run, args=([listener],), name="hf_synth-hub", daemon=True)
            thread.start()
            try:
                while not server.started and thread.is_alive():
                    time.sleep(0.01)
                if not server.started:
                    raise OutputError(f"{root}: the Hub did not start")
                yield RunningHub(_url("127.0.0.1", listener), token)
            finally:
                server.should_exit = True
                thread.join(10)


def _config(app: Starlette, level: str) -> Any:
    import uvicorn

    # no access log: addresses of uploads hold their signatures
    return uvicorn.Config(
        # uvicorn's own log_config would close every handler of the process it is started in
        app, log_config=None, log_level=level, access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # a long queue: whoever comes before the server is up waits instead of being refused
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or "not a port"
        raise OutputError(f"{host}:{port} cannot be listened on ({said}); choose another port") from None


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_environment(hub: RunningHub) -> dict[str, str]:
    """Give the environment in which another process's clients use this Hub, whatever the user's own settings are."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        **_past_proxies(),
    }


def _past_proxies() -> dict[str, str]:
    """Keep what goes to this machine from going through a proxy that the user has set."""
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(dict.fromkeys([*filter(None, before.split(",")), "127.0.0.1", "localhost"]))
    return {"NO_PROXY": hosts, "no_proxy": hosts}


@contextlib.contextmanager
def connected(hub: RunningHub) -> Iterator[None]:
    """Point this process's Hugging Face libraries, imported already or not, at a Hub for as long as the block lasts.

    Inside, calls that name no token are anonymous: a token that the user has for another Hub is not sent to this one.
    Not for several threads at once, since it changes settings of the whole process.
    """
    import datasets.config
    from huggingface_hub import constants, hf_api

    wanted: list[tuple[Any, str, Any]] = [
        (constants, "ENDPOINT", hub.url),
        (constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
        (constants, "HF_HUB_DISABLE_XET", True),
        (constants, "HF_HUB_DISABLE_TELEMETRY", True),
        (constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True),
        (constants, "HF_HUB_OFFLINE", False),
        (hf_api.api, "endpoint", hub.url),
        (datasets.config, "HF_ENDPOINT", hub.url),
        (datasets.config, "HUB_DATASETS_URL", hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}"),
        (datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
        (datasets.config, "HF_HUB_OFFLINE", False),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in wanted]
    variables = {name: os.environ.get(name) for name in _past_proxies()}
    try:
        os.environ.update(_past_proxies())
        for place, name, value in wanted:
            setattr(place, name, value)
        _forget_clients()
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
        for name, was in variables.items():
            if was is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = was
        _forget_clients()


def _forget_clients() -> None:
    """Have clients made anew that the libraries keep: they were made under other settings."""
    from huggingface_hub import HfFileSystem, close_session

    close_session()
    HfFileSystem.clear_instance_cache()  # which datasets uses
    if kept := sys.modules.get("transformers.utils.hub"):
        kept._hf_api = None  # type: ignore[attr-defined]
