"""llama.cpp's server as a process in the care of this one: a GGUF file answers at an address on this machine.

The server listens on the loopback address, at a port that the system chooses, and answers only who has its key, which
is made anew each time. It ends with `close`, with this process, and when this process is killed. LLMs of the same file,
slots and context share one server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from hf_synth.errors import LLMError
from hf_synth.llm import llama_process
from hf_synth.llm.gguf_files import Weights, find_weights
from hf_synth.models.loading import cores

CONTEXT = 4_096  # tokens of one question and its answer, unless stated
_CONNECTIONS = 4  # at most for each slot
_SLOTS_PER_CORE, _FEWEST_SLOTS, _MOST_SLOTS = 4, 4, 32
_SHARE_OF_MEMORY = 0.25  # of the free memory, for what the slots keep of their conversations
_STARTING = 600.0  # seconds until a server is taken for dead; large weights on a slow disk take minutes
_STOPPING = 5.0
# What llama.cpp writes while it loads a file, and what to do about it. Its messages are not passed on.
_CAUSES = (
    (r"unknown model architecture", "its architecture is not known to it: pip install --upgrade xllamacpp"),
    (r"not within the file bounds|corrupted|incomplete", "the file is incomplete: fetch it again"),
    (r"unable to allocate|failed to allocate|out of memory|bad_alloc", "the memory is too small: use fewer slots, "
                                                                        "a smaller context or a smaller model"),
)  # fmt: skip
_OTHER_CAUSE = "the file may be damaged, or be no language model"


@dataclass(eq=False)
class LlamaServer:
    """A running server, as one of its users holds it; `local_server` makes it.

    Args:
        weights: the file that answers.
        url: base URL of its OpenAI-compatible endpoint.
        key: the key that it asks for.
        slots: answers that it writes at the same time.
        context: tokens of one question and its answer.
    """

    weights: Weights
    url: str
    key: str = field(repr=False)
    slots: int
    context: int
    _process: _Process = field(repr=False)

    def __post_init__(self) -> None:
        self._process.users += 1
        self._end = weakref.finalize(self, _release, self._process, os.getpid())

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process.child.poll() is None

    def close(self) -> None:
        """Leave the server, which stops when its last user has left it; a second call does nothing."""
        self._end()


@dataclass(eq=False)
class _Process:
    """The process of a server, what it was started with, and how many hold it."""

    child: subprocess.Popen[bytes]
    url: str
    key: str
    slots: int
    context: int
    users: int = 0


_RUNNING: dict[tuple[str, int | None, int | None, int | None], _Process] = {}
_LOCK = threading.RLock()  # a garbage collection within it may release another server


def local_server(
    model: str | Path, *, slots: int | None = None, context: int | None = None, threads: int | None = None
) -> LlamaServer:
    """Start the server of a GGUF file, or share one of this process that runs it already.

    Args:
        model: path of the file, or the short name of a packaged one.
        slots: answers written at the same time; 4 for each core, as far as a quarter of the free memory holds what
            they keep, when None.
        context: tokens of one question and its answer; 4,096, or what the model can read where that is less, when None.
        threads: of the server; one for each free core when None (`free_cores`).

    Raises:
        LLMError: a number makes no sense; there is no such file; the package xllamacpp is missing; the server does not
            start.
    """
    if any(n is not None and n < 1 for n in (slots, context, threads)):
        raise LLMError("slots, context and threads of a local model must be at least 1")
    weights = servable(model)
    if context is not None and context > weights.context:
        raise LLMError(f"{weights.name} reads and writes at most {weights.context:,} tokens; use a smaller context")
    known = (weights.sha256, slots, context, threads)
    with _LOCK:
        process = _RUNNING.get(known)
        if process is None or process.child.poll() is not None:
            process = _RUNNING[known] = _start(weights, slots, context, threads or free_cores())
        return LlamaServer(weights, process.url, process.key, process.slots, process.context, process)


def servable(model: str | Path) -> Weights:
    """Find a GGUF file, as `find_weights` does, and check that there is a program to serve it.

    Raises:
        LLMError: there is no such file, or a package is missing.
    """
    if find_spec("xllamacpp") is None:
        raise LLMError("a GGUF file is run by llama.cpp's server: pip install 'hf_synth[local]'")
    return find_weights(model)


def free_cores() -> int:
    """Return how many cores other programs left free in the last minute, at least 1.

    llama.cpp's threads wait for each other by spinning: where two of them share a core with other work, they take many
    times as long as one alone.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(cores(), (os.cpu_count() or 1) - int(load)))


def fitting_slots(weights: Weights, context: int) -> int:
    """Return how many answers to write at the same time: enough for the cores, and what the memory holds."""
    wanted = min(max(_SLOTS_PER_CORE * cores(), _FEWEST_SLOTS), _MOST_SLOTS)
    free = _free_memory()
    if free is None:
        return wanted
    return max(1, min(wanted, int(_SHARE_OF_MEMORY * free / (weights.bytes_per_token * context))))


def connections(slots: int, wanted: int | None = None) -> int:
    """Return how many questions to send at once: as many again as are answered, so that a free slot never waits.

    Args:
        wanted: by the user. More than 4 for each slot would wait for a connection and bring nothing.
    """
    return min(wanted or 2 * slots, _CONNECTIONS * slots)


def _free_memory() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _start(weights: Weights, slots: int | None, context: int | None, threads: int) -> _Process:
    room = context or min(CONTEXT, weights.context)
    places = slots or fitting_slots(weights, room)
    key = secrets.token_urlsafe(24)
    request = {
        "path": sys.path, "parent": os.getpid(), "model": str(weights.path.absolute()), "name": weights.name,
        "key": key, "slots": places, "context": room, "threads": threads, "connections": _CONNECTIONS * places,
    }  # fmt: skip
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", llama_process.__file__],  # -P: this folder is no place for modules
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which then stops the server
        )
        try:
            said = _ask(process, json.dumps(request).encode() + b"\n")
            if "url" not in said:
                log.seek(0)
                cause = _cause(log.read(1 << 20), process.poll(), said.get("error", ""))
                raise LLMError(f"llama.cpp's server does not start with {weights.path}: {cause}")
        except BaseException:
            _stop(process)
            raise
    return _Process(process, f"{said['url']}/v1", key, places, room)


def _ask(process: subprocess.Popen[bytes], request: bytes) -> dict[str, str]:
    """Send the request to the process; return its "url" or "error", or nothing where it ends or says nothing."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request)
        process.stdin.flush()
        deadline = time.monotonic() + _STARTING
        while time.monotonic() < deadline:
            if select.select([process.stdout], [], [], 0.5)[0]:
                line = process.stdout.readline()
                if not line:  # it has ended, and its exit code says how
                    process.wait(_STOPPING)
                return dict(json.loads(line or b"{}"))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    return {}


def _cause(log: bytes, code: int | None, error: str) -> str:
    """Return why a server did not start, and what to do."""
    if code is not None and code < 0:
        return f"signal {-code} ended it" + (", as when the memory is too small" if code == -9 else "")
    if error in ("ImportError", "ModuleNotFoundError", "OSError"):
        return f"xllamacpp cannot be loaded ({error}): pip install --force-reinstall xllamacpp"
    if error == "UnicodeEncodeError":
        return "its path is not text in UTF-8: rename it"
    text = log.decode("utf-8", errors="replace")
    return next((advice for pattern, advice in _CAUSES if re.search(pattern, text, re.IGNORECASE)), _OTHER_CAUSE)


def _release(process: _Process, owner: int) -> None:
    """Count one user less, and stop the server after its last one; a fork of its owner does nothing."""
    if os.getpid() != owner:
        return
    with _LOCK:
        process.users -= 1
        if process.users > 0:
            return
        for known in [known for known, one in _RUNNING.items() if one is process]:
            del _RUNNING[known]
    _stop(process.child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        child.wait(_STOPPING)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
