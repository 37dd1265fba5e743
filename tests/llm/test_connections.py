"""Connections are reused only where nothing is left on them; what stands in the way of one is named."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.raw_server import listening

from hf_synth.errors import LLMError
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Messages


def http(text: str) -> bytes:
    """Write the response with an answer."""
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    body = json.dumps({"model": "m", "choices": [choice]}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class Twice:
    """A server that answers each question, and "bad" twice: the second response comes a moment later.

    Args:
        tls: with a certificate, for https.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.heads: list[bytes] = []
        self.port = self.connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\n")
                if not head.endswith(b" HTTP/1.1\r\n"):  # e.g. TLS
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
                    break
                head += await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):  # what the server says of itself
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                self.heads.append(head)
                size = re.search(rb"(?i)content-length: *(\d+)", head)
                assert size is not None
                said = json.loads(await reader.readexactly(int(size[1])))["messages"][-1]["content"]
                writer.write(http(f"echo {said}"))
                await writer.drain()
                if said == "bad":
                    await asyncio.sleep(0.03)
                    writer.write(http("for nobody"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


@contextmanager
def serving(server: Twice) -> Iterator[str]:
    """Run a server for the length of a block; yields its address."""
    with listening(server, server.tls):
        yield f"127.0.0.1:{server.port}/v1"


def ask_slowly(url: str, folder: Path) -> list[str]:
    """Ask five questions one after the other, with time for a second response after each."""

    def questions() -> Iterator[Messages | None]:
        for said in ("good 0", "bad", "good 1", "good 2", "good 3"):
            yield [{"role": "user", "content": said}]
            yield None
            time.sleep(0.2)

    llm = LLM("m", base_url=f"http://{url}", journal=folder / "journal.sqlite", concurrency=1)
    return [a.text for a in llm.stream(questions(), access="open", seed=None)]


def kept(folder: Path) -> int:
    with Journal(folder / "journal.sqlite", read_only=True) as journal:
        return len(journal)


def test_a_late_second_response_answers_no_other_question(tmp_path: Path) -> None:
    server = Twice()
    with serving(server) as url:
        with pytest.raises(LLMError, match="nobody had asked for.*run the same command again"):
            ask_slowly(url, tmp_path)
        assert kept(tmp_path) == 1, "any but the first may be to another question"
        before = server.connections
        assert ask_slowly(url, tmp_path) == ["echo good 0", "echo bad", "echo good 1", "echo good 2", "echo good 3"]
        assert server.connections - before >= 5, "one connection for each question"
    assert kept(tmp_path) == 5


@contextmanager
def aborting(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Close a connection at once at the end of the block."""
    try:
        yield
    finally:
        writer.transport.abort()


class Shifted(Twice):
    """A server, or a proxy, that sends the answer to "bad" once more after the next question is there."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        before = ""
        with suppress(asyncio.IncompleteReadError, ConnectionError), aborting(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"(?i)content-length: *(\d+)", head)
                if size is None:
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                said = json.loads(await reader.readexactly(int(size[1])))["messages"][-1]["content"]
                if before == "bad":
                    writer.write(http("echo bad"))
                await asyncio.sleep(0.05)
                writer.write(http(f"echo {said}"))
                before = said


def test_answers_that_are_off_by_one_are_not_kept(tmp_path: Path) -> None:
    """The second response comes after the next question was sent, and cannot be told from the answer to it."""
    words = ["bad", *(f"good {i}" for i in range(9))]

    def questions() -> Iterator[Messages | None]:
        for said in words:
            yield [{"role": "user", "content": said}]
            yield None
        time.sleep(0.2)

    def ask() -> list[str]:
        llm = LLM("m", base_url=f"http://{url}", journal=tmp_path / "journal.sqlite", concurrency=1)
        return [a.text for a in llm.stream(questions(), access="open", seed=None)]

    with serving(Shifted()) as url:
        with pytest.raises(LLMError, match="nobody had asked for"):
            ask()
        assert kept(tmp_path) == 1, "the first over a connection is to the first question"
        assert ask() == [f"echo {said}" for said in words]


def test_a_server_that_says_that_it_closes_an_idle_connection_is_honest(tmp_path: Path) -> None:
    """Some send a 408 over a connection that was not used for a while."""

    class Idle(Twice):
        async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            with suppress(asyncio.IncompleteReadError, ConnectionError), aborting(writer):
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"(?i)content-length: *(\d+)", head)
                if size is not None:
                    said = json.loads(await reader.readexactly(int(size[1])))["messages"][-1]["content"]
                    writer.write(http(f"echo {said}"))
                    await asyncio.sleep(0.03)
                writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await asyncio.sleep(0.3)

    with serving(Idle()) as url:
        assert ask_slowly(url, tmp_path)[1] == "echo bad"
    assert kept(tmp_path) == 5


QUESTION: Messages = [{"role": "user", "content": "good"}]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_what_stands_in_the_way_of_https_is_named(tmp_path: Path) -> None:
    pem = str(tmp_path / "both.pem")
    new = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -days 2 -keyout {pem} -out {pem}"
    subprocess.run(["openssl", *new.split()], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    said = []
    for server in (Twice(tls), Twice()):
        with serving(server) as url:
            llm = LLM("m", base_url=f"https://{url}", journal=tmp_path / "journal.sqlite", max_retries=0, timeout=9)
            with pytest.raises(LLMError) as error:
                llm.chat([QUESTION], access="open")
            said.append(str(error.value))
    assert "SSL_CERT_FILE" in said[0]
    assert "use its http address" in said[1]


@pytest.mark.parametrize("key", ["sk-1\n", " sk-1 ", "sk-1\r\n"])
def test_white_space_around_a_key_is_none_of_it(key: str, tmp_path: Path) -> None:
    server = Twice()
    with serving(server) as url:
        llm = LLM("m", base_url=f"http://{url} ", api_key=key, journal=tmp_path / "journal.sqlite", max_retries=0)
        assert [a.text for a in llm.chat([QUESTION], access="open")] == ["echo good"]
        assert b"Authorization: Bearer sk-1\r\n" in server.heads[0]
        with pytest.raises(LLMError, match="line break") as error:
            LLM("m", base_url=f"http://{url}", api_key="sk-1\nsk-2", journal=tmp_path / "j").chat(
                [QUESTION], access="open"
            )
    assert "sk-" not in str(error.value)
