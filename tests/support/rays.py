"""What tests on Ray share: a world of its own for a command, in which all that leaves the work folder is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.cluster_rows import OWN

KEY_CANARY = f"sk-canary-{OWN}"
# Python runs it first in every process, Ray's among them: only loopback can be reached, and any other try is written.
_GUARD = """
import os, socket, sys
def _refuse(event, given):
    if event == "socket.connect" and isinstance(given[1], tuple):
        host = str(given[1][0])
    elif event == "socket.getaddrinfo":
        host = str(given[0])
    else:
        return
    if host not in ("localhost", "127.0.0.1", "::1", "None", socket.gethostname()):
        with open({tried!r}, "a") as out:
            out.write(host + chr(10))
        raise OSError("only loopback may be reached")
sys.addaudithook(_refuse)
"""
_SYSTEM = ("/tmp", "/dev/shm")


@dataclass
class World:
    """Where a command runs on Ray.

    Args:
        home, scratch: empty folders that serve as HOME and TMPDIR.
        tried: a file with the hosts beyond loopback that a process tried to reach.
        environment: of the command.
        hub: the requests that a Hub got.
        before: what was in the folders of the system.
    """

    home: Path
    scratch: Path
    tried: Path
    environment: dict[str, str]
    hub: list[str] = field(default_factory=list)
    before: set[str] = field(default_factory=set)

    def start(self, *words: str, **constants: int) -> subprocess.Popen[str]:
        """Start `hf-synth` with these words.

        Args:
            constants: "module.NAME" of hf_synth, and the value that it has in the process.
        """
        parts = [(*name.rpartition(".")[::2], value) for name, value in constants.items()]
        lines = [f"import hf_synth.{module} as m; m.{constant} = {value}" for module, constant, value in parts]
        code = "\n".join(["import sys", *lines, "from hf_synth.cli.cli import main", "sys.exit(main(sys.argv[1:]))"])
        command = [sys.executable, "-c", code, *words]
        return subprocess.Popen(command, env=self.environment, text=True, stderr=subprocess.PIPE)

    def check_nothing_left(self, *canaries: str) -> None:
        """Check that nothing lies in HOME or TMPDIR, no canary in /tmp, and that no Hub and no other host was asked."""
        left = [file for folder in (self.home, self.scratch) for file in folder.rglob("*") if not file.is_dir()]
        assert left == [], f"left in the home folder or the temporary one: {left}"
        assert not self.tried.exists(), self.tried.read_text()
        assert self.hub == [], "the Hub was asked"
        new = [Path(name) for name in _listed() - self.before if Path(name) not in (self.home, self.scratch)]
        sought = [canary.encode() for canary in canaries]
        for place in new:
            for file in [place, *place.rglob("*")] if place.is_dir() else [place]:
                held = _bytes(file)
                assert not any(canary in held for canary in sought), f"{file} holds a canary"


def _listed() -> set[str]:
    return {os.path.join(folder, name) for folder in _SYSTEM if os.path.isdir(folder) for name in os.listdir(folder)}


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes() if file.is_file() and file.stat().st_size < 300 << 20 else b""
    except OSError:  # it belongs to another program, which has deleted it
        return b""


@contextmanager
def world(work: Path, scratch: Path) -> Iterator[World]:
    """Make a world beside a work folder.

    Args:
        work: everything that a command writes may lie in it.
        scratch: a short empty folder.
    """
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    (home := work / "home").mkdir()
    (guard := work / "guard").mkdir()
    (guard / "sitecustomize.py").write_text(_GUARD.format(tried=str(work / "tried.txt")))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HOME", "HF_HUB_OFFLINE")}
    paths = os.pathsep.join(filter(None, [str(guard), os.environ.get("PYTHONPATH")]))
    own = {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONPATH": paths, "OPENAI_API_KEY": KEY_CANARY}
    own["RAY_worker_niceness"] = "0"  # Ray's workers wait for every other program otherwise
    environment = {**kept, **own, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"}
    try:
        yield World(home, scratch, work / "tried.txt", environment, asked, _listed())
    finally:
        server.shutdown()
        server.server_close()


def below(process: int) -> dict[int, str]:
    """Return the processes that descend from one, and their command lines."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in lines}
    found = {}
    for pid, _, words in lines:
        above = int(pid)
        while above in parents and above != process:
            above = parents[above]
        if above == process:
            found[int(pid)] = words
    return found


def worker_of(process: int) -> int | None:
    """Return a process of Ray that descends from one and holds our code."""
    own = "ray::_Worker", "ray::_CallWorker"
    return next((pid for pid, words in below(process).items() if words.startswith(own)), None)


def heard_at(process: int) -> set[str]:
    """Return the addresses at which the processes below one listen; those of this machine alone are "loopback"."""
    own = set()
    for pid in below(process):
        with suppress(OSError):
            own |= {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in own:
                address = local.split(":")[0]
                found.add("loopback" if address[-8:] == "0100007F" or address == "0" * 24 + "01000000" else address)
    return found


def kill_a_worker(process: subprocess.Popen[str], out: Path, blocks: int, ready: Any = lambda: True) -> bool:
    """Kill a worker once some blocks of an output are there, and `ready` says so; return whether one was killed."""
    while process.poll() is None:
        if len(list((out / ".hf_synth" / "blocks").glob("*/*.parquet"))) >= blocks:
            pid = worker_of(process.pid)
            if pid is not None and ready():
                os.kill(pid, signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False
