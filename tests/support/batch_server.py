"""A small Batch API on loopback for tests: it takes files and batches, ends them as the test says, and counts calls."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from hashlib import sha256
from typing import Any

from support.raw_server import listening, serve_until_closed

Request = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of an output file, or of an error file."""

    data: bytes
    error: bool = False


def content(request: Request) -> str:
    """Return what the user said in a line of an input file."""
    return str(request["body"]["messages"][-1]["content"])


def echo(request: Request, usage: bool = True, **more: Any) -> Line:
    """Answer with what the user said."""
    body: dict[str, Any] = {
        "id": "1", "object": "chat.completion", "model": f"{request['body']['model']}-served",
        "choices": [{"index": 0, "message": {"content": f"echo {content(request)}"}, "finish_reason": "stop"}],
    }  # fmt: skip
    if usage:
        body["usage"] = {"prompt_tokens": 10, "completion_tokens": 20}
    response = {"status_code": 200, "request_id": "r", "body": body}
    said = {"id": "line", "custom_id": request["custom_id"], "response": response, "error": None, **more}
    return Line(json.dumps(said).encode())


def status(request: Request, code: int, error: str | None = None) -> Line:
    """Refuse with a status and the code of an error, and repeat the prompt."""
    response = {"status_code": code, "request_id": "r", "body": {"error": {"message": content(request), "code": error}}}
    said = {"id": "line", "custom_id": request["custom_id"], "response": response, "error": None}
    return Line(json.dumps(said).encode(), error=True)


def unanswered(request: Request, code: str) -> Line:
    """Answer that a question was never asked."""
    said = {"custom_id": request["custom_id"], "response": None, "error": {"code": code, "message": content(request)}}
    return Line(json.dumps(said).encode(), error=True)


@dataclass(frozen=True)
class Plan:
    """How a batch goes.

    Args:
        answer: gives the line of a request, None for no line at all.
        status: how it ends.
        looks: how often it is looked at before.
        code: of a failed one.
    """

    answer: Callable[[Request], Line | None] = echo
    status: str = "completed"
    looks: int = 1
    code: str = "invalid_json_line"


class BatchServer:
    """The endpoint's state.

    `plans` are for the batches in the order of their creation, the last one for all others. `hold` is what is never
    answered for now: "create" (though the batch is made), "look" (it stays in progress) or "content" (after half of
    it); `held` is set when that happens. `fault` may give a status, or 0 for a broken connection, to answer instead.
    """

    def __init__(self, *plans: Plan) -> None:
        self.plans = plans or (Plan(),)
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.asked: list[list[Request]] = []  # the requests of each batch
        self.headers: list[bytes] = []
        self.hold = ""
        self.held = threading.Event()
        self.fault: Callable[[str, int], int | None] = lambda call, number: None
        self.chat: Callable[[dict[str, Any]], bytes] | None = None
        self.port = self.connections = 0
        self._looks: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def count(self, call: str) -> int:
        return sum(bool(re.fullmatch(call, one)) for one in self.calls)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await serve_until_closed(self._exchange, reader, writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: *(\d+)", head)
        data = await reader.readexactly(int(size[1])) if size else b""
        method, path = head.split(b" ", 2)[:2]
        call = f"{method.decode()} {path.decode().removeprefix('/v1')}"
        self.calls.append(call)
        self.headers.append(head)
        code = self.fault(call, self.count(re.escape(call)) - 1)
        if code == 0:
            return False
        body = (
            self._answer(call, head, data)
            if code is None
            else b'{"error": {"message": "%s"}}' % data[-800:].hex().encode()
        )
        kind = "create" if call == "POST /batches" else "content" if call.endswith("/content") else ""
        length = len(body)
        if self.hold and self.hold == kind:
            body = body[: len(body) // 2] if kind == "content" else b""
        if body:
            writer.write(f"HTTP/1.1 {code or 200} X\r\nContent-Length: {length}\r\n\r\n".encode() + body)
            await writer.drain()
        if len(body) < length:
            self.held.set()
            await asyncio.sleep(3600)
        return True

    def _answer(self, call: str, head: bytes, data: bytes) -> bytes:
        method, path = call.split(" ")
        if path == "/chat/completions":
            assert self.chat is not None
            return self.chat(json.loads(data))
        if path == "/files":
            return json.dumps(self._uploaded(head, data)).encode()
        if path.startswith("/files/"):
            return self.files[path.split("/")[2]]
        if path == "/batches" and method == "POST":
            return json.dumps(self._created(json.loads(data))).encode()
        if path.startswith("/batches?"):
            return json.dumps(self._page(path)).encode()
        return json.dumps(self._looked_at(path.split("/")[2])).encode()

    def _uploaded(self, head: bytes, data: bytes) -> dict[str, Any]:
        kind = re.search(rb"(?i)content-type: *([^\r]*)", head)
        assert kind
        form = message_from_bytes(b"Content-Type: " + kind[1] + b"\r\n\r\n" + data, policy=HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert parts["purpose"].get_payload(decode=True) == b"batch"
        id = f"file-{len(self.files)}"
        self.files[id] = parts["file"].get_payload(decode=True)
        return {"id": id, "object": "file", "purpose": "batch", "bytes": len(self.files[id])}

    def _created(self, said: dict[str, Any]) -> dict[str, Any]:
        assert said["endpoint"] == "/v1/chat/completions"
        assert said["completion_window"] == "24h"
        id = f"batch_{len(self.batches)}"
        self.asked.append([json.loads(line) for line in self.files[said["input_file_id"]].splitlines()])
        self.batches[id] = {"id": id, "object": "batch", "status": "validating", **said}
        return self.batches[id]

    def _page(self, path: str) -> dict[str, Any]:
        newest = [*reversed(self.batches)]
        after = re.search(r"after=([^&]*)", path)
        start = newest.index(after[1]) + 1 if after else 0
        page = newest[start : start + 2]  # small pages, whatever the limit
        return {"object": "list", "data": [self.batches[i] for i in page], "has_more": start + 2 < len(newest)}

    def _looked_at(self, id: str) -> dict[str, Any]:
        number = list(self.batches).index(id)
        plan, batch = self.plans[min(number, len(self.plans) - 1)], self.batches[id]
        self._looks[id] = self._looks.get(id, 0) + 1
        if self.hold == "look":
            self.held.set()
        if self.hold == "look" or self._looks[id] <= plan.looks:
            batch["status"] = "in_progress"
        elif batch["status"] not in ("completed", "expired", "cancelled", "failed"):
            self._end(batch, plan, self.asked[number])
        return batch

    def _end(self, batch: dict[str, Any], plan: Plan, requests: list[Request]) -> None:
        batch["status"] = plan.status
        if plan.status == "failed":
            said = content(requests[0])
            batch["errors"] = {"object": "list", "data": [{"code": plan.code, "message": said, "line": 1}]}
            return
        lines = [line for line in map(plan.answer, requests) if line is not None]
        lines.sort(key=lambda line: sha256(line.data).digest())  # any order but that of the requests
        for name, error in (("output_file_id", False), ("error_file_id", True)):
            if data := b"\n".join(line.data for line in lines if line.error is error):
                batch[name] = f"file-{len(self.files)}"
                self.files[batch[name]] = data + b"\n"


@contextmanager
def serving(*plans: Plan) -> Iterator[BatchServer]:
    """Run an endpoint for the length of a block."""
    server = BatchServer(*plans)
    with listening(server):
        yield server
