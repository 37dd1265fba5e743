"""Chat endpoint for benchmarks of clients: fixed latency, simulated faults, and counts of requests.

There is no model. The answer to a prompt of hf_synth has the requested form, with notes of random words; the answer to
any other prompt is one such note. Faults are drawn from a seeded generator. `GET /stats` returns the counts as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

WORDS = [a + b + c for a in "badeficogulamenoprita"[::2] for b in "aeiou" for c in ("n", "r", "st", "lm", "ck", "x")]
ASKED = re.compile(r"Write (\d+) new entr(?:y|ies)(?: for each of these labels: ([^\n]*))?\.")
FORM = re.compile(r'\{"entries": \[(\{.*?\}), \.\.\.\]\}')


class Counts:
    """Counts of requests and answers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        self.n: Counter[str] = Counter()
        self.good: Counter[bytes] = Counter()
        self.in_flight = self.working = 0
        self.queue: deque[Callable[[], None]] = deque()  # requests that wait for one of the slots
        self.first = self.last = 0.0
        self.bucket, self.filled = options.rpm / 60, time.monotonic()

    def stats(self) -> dict[str, Any]:
        return {
            **self.n, "distinct": len(self.good), "paid_again": sum(c - 1 for c in self.good.values()),
            "first": self.first, "last": self.last,
        }  # fmt: skip

    def fate(self) -> str:
        """Draw the outcome of a request: its status, or "bad" or "slow"."""
        o = self.options
        if o.rpm:
            now = time.monotonic()
            self.bucket = min(o.rpm / 60, self.bucket + (now - self.filled) * o.rpm / 60)
            self.filled = now
            if self.bucket < 1:
                return "429"
            self.bucket -= 1
        drawn = self.rng.random()
        for name, share in (("429", o.p429), ("500", o.p500), ("bad", o.bad), ("slow", o.slow)):
            if drawn < share:
                return name
            drawn -= share
        return "200"


def note(rng: random.Random, words: int = 60) -> str:
    """Write a note of random words; no two notes are equal."""
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."


def answer(request: dict[str, Any]) -> str:
    """Answer a request in the form that its prompt describes."""
    prompt = request["messages"][-1]["content"]
    rng = random.Random(f"{request.get('seed')}{prompt}")
    asked, form = ASKED.search(prompt), FORM.search(prompt)
    if not asked or not form:
        return json.dumps({"note": note(rng), "label": "x"})
    columns = list(json.loads(form[1]))
    labels = asked[2].split(", ") if asked[2] else [""]
    rows = [
        {**{c: note(rng) for c in columns[:-1]}, columns[-1]: x or note(rng)}
        for _ in range(int(asked[1]))
        for x in labels
    ]
    return json.dumps({"entries": rows})


def response(status: int, body: bytes, more: str = "") -> bytes:
    """Return the bytes of a response."""
    lines = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return lines.encode() + body


class Connection(asyncio.Protocol):
    """One connection, whose requests come one after the other."""

    counts: Counts

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end]
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        size = end + 4 + (int(length[1]) if length else 0)
        if len(self.buffer) < size:
            return
        body, self.buffer = self.buffer[end + 4 : size], self.buffer[size:]
        if head.startswith(b"GET /stats"):
            self.transport.write(response(200, json.dumps(self.counts.stats()).encode()))
        elif head.startswith(b"GET "):
            self.transport.write(response(404, b"{}"))
        else:
            self._chat(json.loads(body))

    def _chat(self, request: dict[str, Any]) -> None:
        c = self.counts
        c.first = c.first or time.time()
        c.n["requests"] += 1
        fate = c.fate()
        key = blake2b(json.dumps([request["messages"], request.get("seed")]).encode(), digest_size=12).digest()
        if fate in ("429", "500"):
            after = c.options.retry_after
            more = f"Retry-After: {after:g}\r\n" if fate == "429" and after >= 0 else ""
            self._later(0.005, response(int(fate), b'{"error": {"message": "no", "code": "x"}}', more), fate, None)
            return
        text = answer(request)
        reply = {
            "id": "x", "object": "chat.completion", "created": 1, "model": "benchmark",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text[:40] if fate == "bad" else text},
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 120, "completion_tokens": 150, "total_tokens": 270},
        }  # fmt: skip
        seconds = c.options.latency * (10 if fate == "slow" else 1)
        data = response(200, json.dumps(reply).encode())
        if not c.options.slots:
            self._later(seconds, data, fate, key)
            return
        c.queue.append(lambda: self._work(seconds, data, fate, key))
        if c.working < c.options.slots:
            c.queue.popleft()()

    def _work(self, seconds: float, data: bytes, fate: str, key: bytes) -> None:
        """Work on a request in one of the slots; the next one that waits gets it."""
        c = self.counts
        c.working += 1
        longer = 1 + c.options.batching * c.working / c.options.slots

        def done() -> None:
            c.working -= 1
            if c.queue:
                c.queue.popleft()()

        asyncio.get_running_loop().call_later(seconds * longer, done)
        self._later(seconds * longer, data, fate, key)

    def _later(self, seconds: float, data: bytes, fate: str, key: bytes | None) -> None:
        c = self.counts
        c.in_flight += 1
        c.n["peak"] = max(c.n["peak"], c.in_flight)

        def send() -> None:
            c.in_flight -= 1
            c.n[fate] += 1
            if not self.transport.is_closing():
                self.transport.write(data)
                c.last = time.time()
                if key is not None:
                    c.good[key] += 1

        asyncio.get_running_loop().call_later(seconds, send)


async def serve(options: argparse.Namespace) -> None:
    """Serve until interrupted; print the address first."""
    Connection.counts = Counts(options)
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", options.port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.Event().wait()


def options(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds before a good answer")
    for name, what in (("p429", "of 429"), ("p500", "of 500"), ("bad", "of broken JSON"), ("slow", "ten times slower")):
        parser.add_argument(f"--{name}", type=float, default=0.0, help=f"share {what}")
    parser.add_argument("--slots", type=int, default=0, help="requests worked on at once; the others wait (0: all)")
    parser.add_argument("--batching", type=float, default=0.0, help="how much longer an answer takes in full slots")
    parser.add_argument("--rpm", type=float, default=0.0, help="requests a minute, over which it answers 429")
    parser.add_argument("--retry-after", type=float, default=-1.0, help="seconds; none when negative")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    with contextlib.suppress(KeyboardInterrupt):
        run(serve(options()))
