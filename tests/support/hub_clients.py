"""What the Hub's tests share: plain HTTP without any client library, a served process, and a look at a Hub's disk."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_synth.cli import main

Answer = tuple[int, bytes, dict[str, str]]
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(method: str, url: str, token: str | None = None, body: bytes | None = None, **headers: str) -> Answer:
    """Return status, body and headers (names in lower case) of one request; an error status is an answer like any."""
    sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, body, sent, method=method)
    try:
        answer = _DIRECT.open(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()}


def commit_body(files: dict[str, bytes], *more: dict[str, Any], **header: str) -> bytes:
    """Write the body of a commit: a header, small files, and further lines as they are."""
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "x"} | header}]
    for path, data in files.items():
        value = {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}
        lines.append({"key": "file", "value": value})
    return "\n".join(json.dumps(line) for line in [*lines, *more]).encode()


def verb(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `hf-synth hub ...` in this process; return its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(["hub", *map(str, args)])
        except SystemExit as end:  # a wrong option
            status = int(end.code or 0)
    return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())


def hub_verb(*args: str | Path) -> dict[str, Any]:
    """Run `hf-synth hub ... --json` and return the facts that it prints."""
    done = verb(*args, "--json")
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


@contextlib.contextmanager
def served_by_verb(root: Path, *args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a Hub by `hf-synth hub serve` in a process of its own; give it and its address. Its log is ROOT/../log."""
    command = [sys.executable, "-m", "hf_synth.cli", "hub", "serve", "--root", str(root), "--port", "0", *args]
    log = root.with_name(root.name + ".log")
    with log.open("a") as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as server:
        try:
            assert server.stdout is not None
            yield server, server.stdout.readline().split()[-1]
        finally:
            server.kill()


@contextlib.contextmanager
def served(root: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Serve a Hub in a process of its own; give it, its address and its token. It never outlives the block."""
    code = f"from hf_synth.hub import serve; serve({str(root)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server, server.stdout.readline().split()[-1], (root / "token").read_text(encoding="ascii")
        finally:
            server.kill()


def check_disk(root: Path) -> dict[str, list[str]]:
    """Return the messages of each repository's branch main, newest first, once all that it stands on was found."""
    histories = {}
    for repo in sorted((root / "repos").glob("*/*/*")):
        commits = {f.stem: json.loads(f.read_text()) for f in (repo / "commits").iterdir()}
        for ref in (f for f in (repo / "refs").rglob("*") if f.is_file()):
            assert ref.read_text() in commits
        for commit in commits.values():
            assert commit["parent"] is None or commit["parent"] in commits
            for sha256, _, size, _ in commit["files"].values():
                data = (repo / "blobs" / sha256[:2] / sha256).read_bytes()
                assert (hashlib.sha256(data).hexdigest(), len(data)) == (sha256, size)
        oid, said = (repo / "refs" / "heads" / "main").read_text(), []
        while oid is not None:
            said.append(commits[oid]["message"])
            oid = commits[oid]["parent"]
        histories["/".join(repo.parts[-2:])] = said
    return histories
