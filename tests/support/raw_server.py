"""Servers on raw sockets, which may break any rule of HTTP."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol


class RawServer(Protocol):
    """What handles the connections of a server; its port is set once it listens."""

    port: int

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""


async def serve_until_closed(
    exchange: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Answer the requests of one connection until `exchange` returns False or the client closes it."""
    with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        while await exchange(reader, writer):
            pass
    writer.transport.abort()


@contextmanager
def listening(server: RawServer, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    """Run a server on loopback, in a thread, for the length of a block."""
    ready, over, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def main() -> None:
        sockets = await asyncio.start_server(server.connected, "127.0.0.1", 0, backlog=1024, ssl=tls)
        server.port = sockets.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        sockets.close()
        open_ones = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        await asyncio.sleep(0.01)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
