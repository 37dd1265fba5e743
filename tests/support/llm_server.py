"""A small chat endpoint on loopback for tests: it gives the answers and faults of the test, and counts requests."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from support.raw_server import listening, serve_until_closed


@dataclass(frozen=True)
class Said:
    """One response: HTTP, after a delay; `hang` never answers, `drop` closes the connection."""

    text: str = "fine"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    finish: str = "stop"
    hang: bool = False
    drop: bool = False
    usage: bool = True
    logprobs: Mapping[str, Any] | None = None


def content(request: Mapping[str, Any]) -> str:
    """Return what the user said in a request."""
    return str(request["messages"][-1]["content"])


def entries(request: Mapping[str, Any]) -> str:
    """Answer a prompt of `generation.render` as asked: new texts for each label, the same ones for the same seed."""
    said = content(request)
    found = re.search(r"Write (\d+) new entr(?:y|ies)(?: for each of these labels: (.*))?\.\n", said)
    assert found, "not a prompt of ours"
    labels = found[2].split(", ") if found[2] else ["a summary"]
    seed = request.get("seed", 0)
    rows = [
        {"text": f"Invented note {_words(seed, i, k)} number {i} about matter {k}.", "label": label}
        for k, label in enumerate(labels)
        for i in range(int(found[1]))
    ]
    return json.dumps({"entries": rows})


def _words(*of: int) -> str:
    """Return eight words that no other note has."""
    return " ".join(re.findall("." * 8, sha256(str(of).encode()).hexdigest()))


class LLMServer:
    """The endpoint's state: `answer(request, number)` decides; requests are kept in order of arrival."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Said]) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.headers: list[bytes] = []
        self.asked_gets: list[str] = []
        self.gets: dict[str, Any] = {}  # JSON by path of GET, which is not counted among the requests
        self.connections = self.in_flight = self.peak = self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self) -> list[str]:
        return [content(r) for r in self.requests]

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await serve_until_closed(self._exchange, reader, writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET "):
            self.asked_gets.append(head.split()[1].decode())
            body = json.dumps(self.gets.get(self.asked_gets[-1], {})).encode()
            writer.write(f"HTTP/1.1 200 X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            return True
        size = re.search(rb"(?i)content-length: *(\d+)", head)
        request = json.loads(await reader.readexactly(int(size[1]))) if size else {}
        self.headers.append(head)
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            said = self.answer(request, len(self.requests) - 1)
            await asyncio.sleep(3600 if said.hang else said.delay)
        finally:
            self.in_flight -= 1
        if said.drop:
            return False
        body = said.body if said.body is not None else _completion(request, said)
        lines = {"Content-Length": str(len(body)), "Content-Type": "application/json", **said.headers}
        fields = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        writer.write(f"HTTP/1.1 {said.status} X\r\n{fields}\r\n".encode() + body)
        await writer.drain()
        return True


def _completion(request: Mapping[str, Any], said: Said) -> bytes:
    if said.status != 200:
        return json.dumps({"error": {"message": f"no: {content(request)}", "code": "x"}}).encode()
    message = {"role": "assistant", "content": said.text}
    reply: dict[str, Any] = {
        "id": "1", "object": "chat.completion", "created": 1, "model": f"{request['model']}-served",
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
    }  # fmt: skip
    if said.logprobs is not None:
        reply["choices"][0]["logprobs"] = said.logprobs
    if said.usage:
        reply["usage"] = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return json.dumps(reply).encode()


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Said] | None = None) -> Iterator[LLMServer]:
    """Run an endpoint for the length of a block; without `answer` it repeats what the user said."""
    server = LLMServer(answer or (lambda request, _: Said(f"echo {content(request)}")))
    with listening(server):
        yield server
