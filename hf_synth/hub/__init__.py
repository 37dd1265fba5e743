"""A local Hugging Face Hub for unmodified `datasets`, `transformers` and `huggingface_hub` clients.

    with running_hub(folder) as hub, connected(hub):
        dataset.push_to_hub("org/name", token=hub.token)

It imports nothing from the other rooms, and heavy packages only on first use.

    names      valid names; HubError                               request       one request: user, query, body
    disk       atomic writes and locks                             repositories  routes of repositories, branches, tags
    tree       repositories, commits, trees as values (pure)       reading       routes that read files and trees
    store      repositories, refs, commits, content                pushing       routes that write: commits, large files
    users      users, tokens, organisations                        gating        routes of gated repositories
    access     access requests of gated repositories               pages, cards  HTML pages; the YAML of cards
    sweeping   garbage collection and integrity checks             app           table of routes, authentication, errors
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
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import lazy_loader

from hf_synth.errors import OutputError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from hf_synth.hub.request import Limits as Limits
    from hf_synth.hub.store import Store

__all__ = ["Limits", "RunningHub", "client_environment", "connected", "create_app", "running_hub", "serve"]


__getattr__, *_ = lazy_loader.attach(__name__, submod_attrs={"request": ["Limits"]})


@dataclass(frozen=True)
class RunningHub:
    """A running Hub.

    Args:
        url: its endpoint, for HF_ENDPOINT.
        token: of the first user.
    """

    url: str
    token: str = field(repr=False)


def create_app(
    root: str | Path,
    *,
    tokens: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    url: str = "",
    hosts: Collection[str] = (),
) -> Starlette:
    """Create the ASGI app of a Hub that keeps its repositories in a folder, locked while the app exists.

    Args:
        tokens: users, {name: token}; a token replaces the one of an earlier start. A Hub without users gets one called
            "local", whose token is in ROOT/token. Users of earlier starts stay.
        limits: on the size of a request.
        url: the address at which clients reach it, where it is another than the one in their requests.
        hosts: more names and addresses under which clients reach it; loopback is always one, "*" is any IP address.

    Raises:
        OutputError: the folder cannot be written, or another server has it; a user's name or a token is not valid.
    """
    return _create(Path(root), tokens, limits, url=url, hosts=hosts)[0]


def _create(
    root: Path,
    tokens: Mapping[str, str] | None,
    limits: Limits | None = None,
    *,
    url: str = "",
    members_only: bool = False,
    hosts: Collection[str] = (),
) -> tuple[Starlette, Store, str]:
    """Return the app, the store to close after it, and the token of the first user ("" if unknown)."""
    from hf_synth.hub.app import make_app
    from hf_synth.hub.disk import read_secret
    from hf_synth.hub.request import Hub, Limits
    from hf_synth.hub.store import Store
    from hf_synth.hub.users import Users

    store = None
    try:
        store = Store(root, serve=True)
        users = Users(root)
        for name, token in (tokens or {}).items():
            users.admit(name, token)
        first = next(iter(tokens.values())) if tokens else users.default_token()
        names = {urlsplit(url).hostname or "", *map(str.lower, hosts)} - {""}
        hub = Hub(store, users, limits or Limits(), url.rstrip("/"), members_only, frozenset(names), read_secret(root))
        return make_app(hub), store, first or ""
    except BlockingIOError:
        raise OutputError(f"{root}: another Hub serves this folder; stop it or choose another folder") from None
    except (OSError, ValueError) as error:
        if store is not None:
            store.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"{root}: a Hub cannot be kept there ({reason})") from None


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
        host: address to listen on; a warning is printed for any but loopback, since traffic is not encrypted.
        port: 0 is any free port.
        url: the address at which clients reach it through a proxy, or by a name. Without it, requests to another
            name than the host's are refused: a page of another site may have pointed its own name here.
        members_only: show nothing, not even public repositories, without a token.

    Raises:
        OutputError: the folder cannot be written or is served already, or the port is taken.
    """
    import uvicorn

    root = Path(root)
    listener = _listen(host, port)
    try:
        hosts = _names_of(host)
        app, store, first = _create(root, tokens, limits, url=url, members_only=members_only, hosts=hosts)
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
    # scripts read the address at the end of the first line
    print(f"serving {root} at {url}\n  export HF_ENDPOINT={url} HF_HUB_DISABLE_XET=1 HF_TOKEN={token}", flush=True)
    server = uvicorn.Server(_config(app, "warning"))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        store.close()


@contextlib.contextmanager
def running_hub(
    root: str | Path, *, port: int = 0, tokens: Mapping[str, str] | None = None, limits: Limits | None = None
) -> Iterator[RunningHub]:
    """Serve a Hub on loopback in a thread within the block.

    Raises:
        OutputError: the folder cannot be written or is served already, the port is taken, or the server does not start.
    """
    import uvicorn

    listener = _listen("127.0.0.1", port)
    with contextlib.closing(listener):
        app, store, token = _create(Path(root), tokens, limits)
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

    # no access log: upload URLs hold signatures
    return uvicorn.Config(
        # uvicorn's log_config would close all log handlers of the process
        app, log_config=None, log_level=level, access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # a long queue: clients wait for the server to start instead of being refused
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        raise OutputError(f"{host}:{port} cannot be listened on ({reason}); choose another port") from None


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _names_of(host: str) -> tuple[str, ...]:
    """Return the names that clients may use for an address that is listened on."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:  # every address of this machine, and its own name
            return "*", socket.gethostname(), socket.getfqdn()
        return (str(ipaddress.ip_address(host)),)
    return (host,)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_environment(hub: RunningHub) -> dict[str, str]:
    """Return environment variables that make clients of another process use this Hub, whatever the user's settings."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        **_no_proxy(),
    }


def _no_proxy() -> dict[str, str]:
    """Return environment variables that exempt this machine from the user's proxy."""
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(dict.fromkeys([*filter(None, before.split(",")), "127.0.0.1", "localhost"]))
    return {"NO_PROXY": hosts, "no_proxy": hosts}


@contextlib.contextmanager
def connected(hub: RunningHub) -> Iterator[None]:
    """Point this process's Hugging Face libraries, imported already or not, at a Hub within the block.

    Calls without a token are anonymous there: the user's token for another Hub is not sent to this one. Not
    thread-safe, since it changes settings of the whole process.
    """
    import datasets.config
    from huggingface_hub import constants, hf_api

    settings: list[tuple[Any, str, Any]] = [
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
    before = [(module, name, getattr(module, name)) for module, name, _ in settings]
    variables = {name: os.environ.get(name) for name in _no_proxy()}
    try:
        os.environ.update(_no_proxy())
        for module, name, value in settings:
            setattr(module, name, value)
        _drop_clients()
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        for name, old in variables.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old
        _drop_clients()


def _drop_clients() -> None:
    """Drop the clients that the libraries cache: they were made with other settings."""
    from huggingface_hub import HfFileSystem, close_session

    close_session()
    HfFileSystem.clear_instance_cache()  # used by datasets
    if module := sys.modules.get("transformers.utils.hub"):
        module._hf_api = None  # type: ignore[attr-defined]
