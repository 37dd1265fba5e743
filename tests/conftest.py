"""Every test runs offline: sockets beyond loopback are refused, and Hugging Face caches lie in a temporary folder."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before any Hugging Face library is imported.
_HOME = tempfile.mkdtemp(prefix="hf_synth-tests-")
os.environ.update(
    HF_HOME=_HOME,
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    SSL_CERT_DIR=_HOME,  # nothing here speaks TLS: no client reads the certificates of this machine, 20 ms each
)
for _name in ("SSL_CERT_FILE", "HF_TOKEN", "OPENAI_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


def _check(address: Any) -> None:
    if isinstance(address, tuple):
        host = address[0]
        if host not in ("localhost", "testserver") and not ipaddress.ip_address(host).is_loopback:
            raise OSError(f"a test tried to reach {host}: only loopback is allowed")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    _check(address)
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    _check(address)
    return _connect_ex(self, address)


@pytest.fixture(autouse=True, scope="session")
def _only_loopback() -> Iterator[None]:
    socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
    socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign]
    yield
    socket.socket.connect = _connect  # type: ignore[method-assign]
    socket.socket.connect_ex = _connect_ex  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _loaded_back_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load exported models back in this process: one of its own takes seconds; `test_model_checks` starts them."""
    if (
        "hf_synth.publishing.model_checks" in sys.modules
        and request.module.__name__.rpartition(".")[2] != "test_model_checks"
    ):
        from hf_synth.publishing.loaded_alone import predictions

        monkeypatch.setattr("hf_synth.publishing.model_checks._predict_alone", lambda request: predictions(**request))


@pytest.fixture(autouse=True, scope="module")
def _small_heap() -> None:
    """Leave what earlier modules imported out of garbage collection: each training walks the heap before it begins."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tiny encoder without weights; nobody writes into its folder."""
    from support.tiny import tiny_base

    return tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Run an empty Hub of our own, which the clients of Hugging Face then reach."""
    from hf_synth.hub import connected, running_hub

    with running_hub(tmp_path_factory.mktemp("hub")) as running, connected(running):
        yield running


@pytest.fixture
def repo_root() -> Path:
    return Path(__file__).resolve().parent.parent
