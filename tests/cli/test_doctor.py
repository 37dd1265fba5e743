"""`doctor`: a line for each thing, with its remedy, and exit code 1 for what would stop a journey."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import Said, content, serving

from hf_synth.cli import machine, main
from hf_synth.cli.doctor import _who_check
from hf_synth.hub import running_hub
from hf_synth.llm.llm import LLM
from hf_synth.llm.probe import QUESTION, list_models


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, dict[str, str]], str]:
    """Return the exit code, each check by its name, and all that was printed."""
    code = main(["doctor", *(str(w) for w in words), "--json"])
    captured = capsys.readouterr()
    facts = json.loads(captured.out.splitlines()[-1])
    assert facts["ok"] == (code == 0), "what would stop a journey is exit code 1"
    return code, {check["name"]: check for check in facts["checks"]}, captured.out + captured.err


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own, beside no Hub and no endpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server on loopback that does to each connection what `answer` does."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        over.set()
        listening.close()


def saying(status: str, body: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return answer


def dripping(connection: socket.socket) -> None:
    """Send a byte now and then, for ever: no single read ever takes long."""
    with connection:
        try:
            connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n{")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            return


def test_a_machine_without_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, checks, out = run(capsys)
    assert code == 0, out
    assert set(checks) == {
        "Python", "packages", "extras", "disk", "memory", "cores", "GPU", "base models", "LLMs here", "privacy",
        "journal", "LLM", "Hub's access", "Hub",
    }  # fmt: skip
    assert checks["LLM"]["mark"] == "warning"
    assert "HF_HUB_OFFLINE" in checks["Hub"]["text"]
    assert "no credentialed data" in checks["Hub's access"]["text"]
    assert f"torch {importlib.metadata.version('torch')}" in checks["packages"]["text"]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    assert all(check["cure"] for check in checks.values() if check["mark"] != "ok")


def test_one_line_for_each_thing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line[0] for line in lines[:-2]} <= {"\u2713", "!"}
    assert lines[-1].startswith("nothing would stop a journey")


def test_an_endpoint_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda request, _: Said("one, two, three")) as server:
        server.gets = {"/v1/models": {"data": [{"id": "served", "owned_by": "llamacpp"}]}, "/props": {"total_slots": 4}}
        code, checks, out = run(capsys, "--base-url", server.url, "--llm", "served")
        assert code == 0, out
        assert server.asked() == [QUESTION], "the only question is ours"
        assert "restricted and credentialed notes may be sent" in checks["LLM's access"]["text"]
        assert "serves served" in checks["LLM"]["text"]
        assert "20 tokens in" in checks["LLM's speed"]["text"]
        assert "4 slots" in checks["LLM's speed"]["text"]
        code, checks, _ = run(capsys, "--base-url", server.url, "--llm", "servde")
        assert code == 1
        assert "has no model 'servde'; it serves served" in checks["LLM"]["text"]
        assert checks["LLM"]["cure"] == "--llm served"
        code, checks, _ = run(capsys, "--base-url", server.url)
        assert (code, "serves: served" in checks["LLM"]["text"]) == (0, True)
        assert len(server.requests) == 1


def test_a_slow_llm_gets_advice(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda request, _: Said("one", delay=1.0)) as server:
        server.gets = {"/v1/models": {"data": [{"id": "m"}]}}
        code, checks, _ = run(capsys, "--base-url", server.url, "--llm", "m")
        assert code == 0
        advice = re.search(r"--timeout (\d+): 1,000 tokens take", checks["LLM's speed"]["text"])
        assert advice is not None, "20 tokens a second at most"
        assert int(advice[1]) >= 240
        code, checks, _ = run(capsys, "--base-url", server.url, "--llm", "m", "--wait", "0.3")
        assert code == 1
        assert "within 0.3 s" in checks["LLM's speed"]["text"]
        assert "--wait 300" in checks["LLM's speed"]["cure"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (saying("200 OK", b"<html>log in</html>"), "answers with a web page"),
        (saying("401 No", b"{}"), "refuses the key (401)"),
        (saying("503 Wait", b'{"error": "Loading model"}'), "still loading its model"),
        (saying("302 Moved", b""), "redirects elsewhere"),
        (saying("200 OK", b"fine"), "no JSON"),
        (saying("500 Oh", b"<html>"), "fails (500)"),
        (lambda connection: connection.close(), "breaks the connection off"),
    ],
)  # fmt: skip
def test_an_endpoint_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], answer: Callable[[socket.socket], None], says: str
) -> None:
    with raw_server(answer) as url:
        code, checks, out = run(capsys, "--base-url", url, "--llm", "m")
    assert code == 1
    assert says in f"{checks['LLM']['text']}: {checks['LLM']['cure']}", out
    assert checks["LLM"]["cure"]


def test_a_server_that_never_ends_is_left_after_a_deadline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_synth.cli.doctor._SECONDS", 0.4)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    began = time.monotonic()
    with raw_server(dripping) as url:
        hub = url.removesuffix("/v1")
        code, checks, _ = run(capsys, "--base-url", url, "--llm", "m", "--endpoint", hub)
    assert code == 1
    assert "does not answer within" in checks["LLM"]["text"]
    assert "does not answer within" in checks["Hub"]["text"]
    assert checks["Hub"]["mark"] == "warning", "only publishing needs it"
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            saying("200 OK", b"<html>log in</html>"),
            "is no Hub: asked who you are, it answers with something that is not",
        ),
        (saying("200 OK", b"[]"), "is no Hub"),
        (saying("404 No", b"{}"), "is no Hub: asked who you are, it answers with HTTP 404"),
        (saying("500 Oh", b"<html>"), "has an error of its own (HTTP 500); only publishing needs it"),
        (saying("429 Wait", b"{}"), "is busy (HTTP 429)"),
        (lambda connection: connection.close(), "cannot be reached; only publishing"),
    ],
)
def test_a_hub_that_cannot_be_used(
    answer: Callable[[socket.socket], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with raw_server(answer) as url:
        check = _who_check(url.removesuffix("/v1"), True, url.removesuffix("/v1"))
    assert says in check.text
    assert "-1" not in check.text
    assert (check.mark, bool(check.cure)) == ("warning", True)


@pytest.mark.parametrize(
    ("proxy", "says"),
    [
        ("http://me:secret@127.0.0.1:9", "cannot be reached through the proxy 127.0.0.1:9"),
        ("nonsense", "through the proxy nonsense"),
        ("foo://x:1", "through the proxy x:1"),
        ("SERVER", "asks for a login"),
    ],
)
def test_a_proxy_that_does_not_work(proxy: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with raw_server(saying("407 Login", b"")) as url:
        monkeypatch.setenv("HTTPS_PROXY", proxy.replace("SERVER", url.removesuffix("/v1")))
        check = _who_check("https://hub.example.org", False, "https://hub.example.org")
    assert says in check.text
    assert "secret" not in check.text + check.cure
    assert "HTTPS_PROXY" in check.cure


def test_a_server_that_lists_its_models_and_never_its_slots() -> None:
    models = b'{"data": [{"id": "m", "owned_by": "llamacpp"}]}'

    def answer(connection: socket.socket) -> None:
        with connection:
            if b"/models" in connection.recv(65536):
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(models)}\r\n\r\n"
                connection.sendall(head.encode() + models)
            else:
                connection.recv(1)  # waits until the client gives up

    with raw_server(answer) as url:
        listing = list_models(LLM("m", base_url=url), 1.0)
    assert (listing.models, listing.slots, listing.problem) == (("m",), None, "")


def test_models_with_hostile_names(capsys: pytest.CaptureFixture[str]) -> None:
    names: list[Any] = ["\x1b[2Jclear", "a" * 10_000, 3, None, {"id": []}, "m"]
    with serving() as server:
        server.gets = {"/v1/models": {"data": [{"id": name} for name in names] + [[], "x"]}}
        code = main(["doctor", "--base-url", server.url])
    out = capsys.readouterr().out
    assert code == 0
    assert "\x1b" not in out
    assert "a" * 200 not in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--llm", "m"], "none is named"),
        (["--base-url", "ftp://x", "--llm", "m"], "http or https"),
        (["--base-url", "http://me:secret@127.0.0.1:9/v1", "--llm", "m"], "must not contain a user name"),
        (["--base-url", "http://127.0.0.1:9/v1", "--llm", "m"], "cannot be reached"),
        (["--llm", "no.gguf"], "there is no file no.gguf"),
    ],
)
def test_an_llm_that_is_not_there(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    code, checks, out = run(capsys, *words)
    assert (code, checks["LLM"]["mark"]) == (1, "failed")
    assert says in checks["LLM"]["text"]
    assert "secret" not in out


def test_a_local_hub_knows_me(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with running_hub(tmp_path / "hub") as hub:
        code, checks, _ = run(capsys, "--endpoint", hub.url, "--work", "w")
        assert code == 0
        assert "without a token" in checks["Hub"]["text"]
        assert "your institution's own" in checks["Hub's access"]["text"]
        monkeypatch.setenv("HF_TOKEN", hub.token)
        code, checks, out = run(capsys, "--endpoint", hub.url, "--work", "w")
        assert f"{hub.url}, as " in checks["Hub"]["text"]
        assert hub.token not in out
    code, checks, _ = run(capsys, "--endpoint", hub.url, "--work", "w")
    assert (code, checks["Hub"]["mark"]) == (0, "warning")
    assert "hf-synth hub serve" in checks["Hub"]["cure"]


def test_no_token_goes_to_a_hub_without_encryption(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    _, checks, out = run(capsys, "--endpoint", "http://hub.example.org")
    assert "no token is sent there" in checks["Hub"]["text"]
    assert "hf_secret" not in out


def test_packages_are_compared_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [
        "numpy>=2",
        "datasets>=99,<100",
        "no-such-package>=1",
        "peft>=0.21; extra == 'lora'",
        "not a requirement =",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: needs)
    check = machine.packages_check()
    assert check.mark == "failed"
    version = importlib.metadata.version("datasets")
    assert f"datasets {version} (needed: <100,>=99)" in check.text
    assert "no-such-package is missing" in check.text
    assert "peft" not in check.text
    assert check.cure == "pip install 'datasets<100,>=99' 'no-such-package>=1'"


def test_little_disk_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = type("Usage", (), {"free": 1 << 28})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert machine.disk_check(tmp_path / "not" / "there").mark == "failed"
    monkeypatch.setattr(machine, "memory", lambda: (1 << 28, 1 << 34))
    assert machine.memory_check().mark == "warning"


def test_nvidia_smi_that_hangs_or_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setattr("shutil.which", lambda _: str(program))
    monkeypatch.setattr(machine, "_GPU_SECONDS", 0.3)
    for text, mark in (
        ("exec sleep 30", "warning"),
        ("exit 9", "warning"),
        ("echo 'NVIDIA H200, 100 MiB, 90 MiB'", "ok"),
    ):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setattr(machine, "_installed", lambda name: "2.13.0")
        assert machine.gpu_check().mark == mark, text
    monkeypatch.setattr(machine, "_installed", lambda name: "2.13.0+cpu")
    assert "built without CUDA" in machine.gpu_check().text


@pytest.mark.skipif(os.name == "nt" or (os.geteuid() == 0 and False), reason="modes of POSIX")
def test_a_folder_that_others_may_read(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "gold").mkdir(parents=True)
    for mode, inner, mark in (
        (0o700, 0o755, "ok"),
        (0o755, 0o700, "ok"),
        (0o755, 0o755, "warning"),
        (0o750, 0o750, "warning"),
    ):
        (work / "gold").chmod(inner)
        work.chmod(mode)
        check = machine.modes_check(work)
        assert check.mark == mark, oct(mode)
    assert check.cure == f"chmod 700 {work}"
    assert "your group may read gold" in check.text


def test_a_journal_that_cannot_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hf_synth.llm.journal.remote_file_system", lambda _: "nfs4")
    assert machine.journal_check(tmp_path).mark == "failed"
    monkeypatch.undo()
    assert machine.journal_check(tmp_path).mark == "ok"
    folder = tmp_path / ".hf_synth"
    folder.mkdir()
    (folder / "journal.sqlite").write_text("no journal, but a text of some length, so that it is no SQLite file" * 9)
    check = machine.journal_check(tmp_path)
    assert (check.mark, bool(check.cure)) == ("failed", True)
    (folder / "journal.sqlite").unlink()
    file = tmp_path / "file"
    file.write_text("x")
    assert machine.journal_check(file / "below").mark == "failed"


def test_what_the_server_was_asked_holds_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        server.gets = {"/v1/models": {"data": [{"id": "m"}]}}
        run(capsys, "--base-url", server.url, "--llm", "m")
        assert [content(request) for request in server.requests] == [QUESTION]
