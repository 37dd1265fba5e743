"""A local Hub that unmodified `datasets`, `transformers` and `huggingface_hub` push to and pull from.

    with running_hub(folder) as hub, connected(hub):
        dataset.push_to_hub("org/name", token=hub.token)

It knows nothing of our stages. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import OutputError

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["RunningHub", "client_environment", "connected", "create_app", "running_hub", "serve"]


@dataclass(frozen=True)
class RunningHub:
    """A Hub that is being served.

    Args:
        url: its endpoint, for HF_ENDPOINT.
        token: of its first user.
    """

    url: str
    token: str = field(repr=False)


def create_app(root: Path, *, tokens: dict[str, str] | None = None) -> Starlette:
    """Make the app of a Hub whose repositories lie in a folder; `tokens` are further users, {name: token}."""
    from hf_synth.hub.app import create_app as make

    return make(Path(root), tokens=tokens)


def serve(root: str | Path, *, host: str = "127.0.0.1", port: int = 8090, tokens: dict[str, str] | None = None) -> None:
    """Serve a Hub until interrupted, and print how to use it.

    Raises:
        OutputError: the folder cannot be written, or the port is taken.
    """
    import uvicorn

    root = Path(root)
    app = _make(root, tokens)
    listener = _listen(host, port)
    url = f"http://{host}:{listener.getsockname()[1]}"
    print(f"serving {root} at {url}\n  export HF_ENDPOINT={url} HF_HUB_DISABLE_XET=1 HF_TOKEN=$(cat {root / 'token'})")
    sys.stdout.flush()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    server.run(sockets=[listener])


@contextlib.contextmanager
def running_hub(root: str | Path, *, port: int = 0, tokens: dict[str, str] | None = None) -> Iterator[RunningHub]:
    """Serve a Hub on loopback in a thread, for as long as the block lasts.

    Raises:
        OutputError: the folder cannot be written, or the port is taken.
    """
    import uvicorn

    root = Path(root)
    app = _make(root, tokens)
    listener = _listen("127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), name="hf_synth-hub", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        token = (root / "token").read_text(encoding="ascii").strip()
        yield RunningHub(f"http://127.0.0.1:{listener.getsockname()[1]}", token)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def _make(root: Path, tokens: dict[str, str] | None) -> Starlette:
    try:
        return create_app(root, tokens=tokens)
    except OSError as error:
        raise OutputError(f"{root}: a Hub cannot be kept there ({error.strerror}); choose another folder") from None


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # whoever comes before the server is up waits instead of being refused
    except OSError as error:
        listener.close()
        raise OutputError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another port") from None
    return listener


def client_environment(hub: RunningHub) -> dict[str, str]:
    """Give the environment in which another process's clients use this Hub."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }


@contextlib.contextmanager
def connected(hub: RunningHub) -> Iterator[None]:
    """Point this process's Hugging Face libraries, imported already or not, at a Hub for as long as the block lasts."""
    import datasets.config
    from huggingface_hub import constants, hf_api

    wanted: list[tuple[Any, str, Any]] = [
        (constants, "ENDPOINT", hub.url),
        (constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"),
        (constants, "HF_HUB_DISABLE_XET", True),
        (constants, "HF_HUB_DISABLE_TELEMETRY", True),
        (hf_api.api, "endpoint", hub.url),
        (datasets.config, "HF_ENDPOINT", hub.url),
        (datasets.config, "HUB_DATASETS_URL", hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}"),
        (datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in wanted]
    try:
        for place, name, value in wanted:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
