"""Connections of a `Line` (`endpoints.py`): one host at checked addresses, and no answer left over from before.

A server, or a proxy before it, may send a second response on a connection that is kept open. Taken for the answer to
the next question, it would be a note under another note's label, and every answer after it would be off by one. One
that comes before the next question is sent is no answer to it. One that comes later is found when the connection has
nothing to answer: the answers that came over it are then taken back (`endpoints.Line.unasked`).
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from hf_synth.errors import EndpointError

_LOG = logging.getLogger(__name__)
_TRIES = 100  # connections with something left over, until one that has nothing
_MARKS = 10_000  # of a connection
_PROTOCOL: ContextVar[Any] = ContextVar("protocol")  # of the connection that a request got


UNASKED = (
    "{} sent a response that nobody had asked for, so answers before it may be to other questions; they were taken out "
    "of the journal: run the same command again, which gives each question a connection of its own, and check the "
    "server and any proxy before it"
)


class UnaskedError(Exception):
    """A response came that nobody had asked for, over a connection that had answered questions."""


def connector(limit: int, tls: Any, pinned: tuple[str, Sequence[str]] | None, *, reuse: bool = True) -> Any:
    """Return aiohttp's connector, which reuses no connection on which something came that nobody had asked for.

    It has the marks of the questions that such connections answered (`unasked`), and `mark`, which notes one for the
    connection of the request that was sent last in a task. After the first such connection none is reused.

    Args:
        limit: most connections.
        tls: an SSL context; False for http.
        pinned: the host and its only addresses; None for those that a name server returns.
        reuse: False for one question a connection.
    """
    import aiohttp

    class Careful(aiohttp.TCPConnector):  # type: ignore[misc]
        def __init__(self, **how: Any) -> None:
            super().__init__(**how)
            self.reuse, self.unasked = reuse, list[str]()

        async def connect(self, *given: Any, **named: Any) -> Any:
            for _ in range(_TRIES):
                connection = await super().connect(*given, **named)
                if not connection.protocol.should_close:
                    if not self.reuse:
                        connection.protocol.force_close()
                    _PROTOCOL.set(connection.protocol)
                    return connection
                self.look(connection.protocol)
                connection.close()
                if self.unasked:
                    raise UnaskedError
                if self.reuse:
                    _LOG.warning(
                        "the server sent something that nobody had asked for; check it, and any proxy before it"
                    )
                self.reuse = False
            raise aiohttp.ClientConnectionError("the server answers what was not asked")

        def _release(self, key: Any, protocol: Any, **how: Any) -> None:
            if not how.get("should_close"):  # else its own response may lie there, unread
                self.look(protocol)
            super()._release(key, protocol, **how)

        def look(self, protocol: Any) -> None:
            """Note what a connection answered on which a further response lies; a server may say that it closes it."""
            if any(200 <= status < 300 for status in _statuses(protocol)):
                # the first response over a connection is to the first question
                self.unasked += list(protocol.__dict__.pop("marks", ()))[1:]

        def look_at_all(self) -> None:
            """Look at the connections that wait for a question."""
            for waiting in list(self._conns.values()):
                for protocol, *_ in waiting:
                    self.look(protocol)

        def mark(self, mark: str) -> None:
            protocol = _PROTOCOL.get(None)
            if protocol is not None and self.reuse:
                protocol.__dict__.setdefault("marks", deque(maxlen=_MARKS)).append(mark)

    return Careful(limit=limit, ssl=tls, resolver=None if pinned is None else pinned_resolver(*pinned))


def _statuses(protocol: Any) -> Iterator[int]:
    """Yield the statuses of responses that were not read; how deep aiohttp packs a response depends on its version."""
    for one in getattr(protocol, "_buffer", ()):
        while isinstance(one, tuple) and not hasattr(one, "code"):
            one = one[0]
        yield getattr(one, "code", 0)


def unreached(error: Exception) -> str:
    """Return why there is no connection, a key of `replies.UNREACHED`."""
    import aiohttp

    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "connect_timeout"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "certificate"
    return "no_tls" if isinstance(error, aiohttp.ClientSSLError) else "unreachable"


def pinned_resolver(name: str, addresses: Sequence[str]) -> Any:
    """Make a resolver that knows one host at its checked addresses, whatever a name server returns later."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):  # type: ignore[misc]
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            if host != name:
                raise EndpointError(f"a request was for another host than {name}; nothing was sent")
            pairs = [(a, socket.AF_INET6 if ":" in a else socket.AF_INET) for a in addresses]
            return [
                ResolveResult(hostname=host, host=a, port=port, family=f, proto=0, flags=socket.AI_NUMERICHOST)
                for a, f in pairs
                if family in (socket.AF_UNSPEC, f)
            ]

        async def close(self) -> None:
            """Close nothing: there is no connection."""

    return Pinned()
