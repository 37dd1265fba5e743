"""Connections of a `Line` (`endpoints.py`): one host at checked addresses, and no answer left over from before.

A server, or a proxy before it, may send a second response on a connection that is kept open. Taken for the answer to
the next question, it would be a note under another note's label, and every answer after it would be off by one.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any

from hf_synth.errors import EndpointError

_LOG = logging.getLogger(__name__)
_TRIES = 100  # connections with something left over, until one that has nothing


def connector(limit: int, tls: Any, pinned: tuple[str, Sequence[str]] | None) -> Any:
    """Return aiohttp's connector, which reuses no connection on which something came that nobody had asked for.

    After the first such connection none is reused: the next response may come a moment later.

    Args:
        limit: most connections.
        tls: an SSL context; False for http.
        pinned: the host and its only addresses; None for those that a name server returns.
    """
    import aiohttp

    class Careful(aiohttp.TCPConnector):  # type: ignore[misc]
        reuse = True

        async def connect(self, *given: Any, **named: Any) -> Any:
            for _ in range(_TRIES):
                connection = await super().connect(*given, **named)
                if not connection.protocol.should_close:
                    if not self.reuse:
                        connection.protocol.force_close()
                    return connection
                if self.reuse:
                    _LOG.warning(
                        "the server sent a response that nobody had asked for: an answer before it may be to another "
                        "question; check the server, and any proxy before it"
                    )
                self.reuse = False
                connection.close()
            raise aiohttp.ClientConnectionError("the server answers what was not asked")

    return Careful(limit=limit, ssl=tls, resolver=None if pinned is None else pinned_resolver(*pinned))


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
