"""Access control of endpoints: which host may receive a note, and an HTTP transport that reaches no other.

Restricted and credentialed notes go to loopback and private addresses only, unless a person attests that an endpoint
retains nothing, trains on nothing and lets no human read the notes. The key and the headers that the environment holds
for OpenAI go to OpenAI's hosts and to OPENAI_BASE_URL only.

The check sits where bytes leave: `Line` reaches one origin, whose addresses are resolved and checked once and then used
as they are, without redirects and without proxies from the environment.

Chat requests go through `Line` directly, which costs a quarter of the CPU time of openai's client. The Batch API uses
openai's client over the same line
(`guarded_transport`).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hf_synth.errors import EndpointError, LLMError
from hf_synth.llm.connections import UnaskedError, connector, unreached

if TYPE_CHECKING:
    import aiohttp
    import httpx2

# Loopback, RFC 1918, unique local IPv6 (RFC 4193), and "this host" as servers print it. Not `is_private`, which in
# Python 3.11 counts every IPv4-mapped IPv6 address as private.
_NETWORKS = "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 0.0.0.0/32 ::1/128 ::/128 fc00::/7"
_LOCAL = tuple(map(ipaddress.ip_network, _NETWORKS.split()))
_VERSION = re.compile(r"(?:api-version=[\w.-]{1,40})?")
MAX_BODY = 16 * 1024 * 1024  # bytes of one response; no answer to one prompt is larger
_FIRST_DAY = datetime.date(2020, 6, 1)  # about when the first endpoint of this protocol opened


@dataclass(frozen=True)
class Attestation:
    """Statement of a person who verified that an endpoint outside the own network may receive the notes.

    Args:
        verified_by: the person's name.
        zero_retention: the host keeps no input and no output.
        no_training: the host trains on neither.
        no_human_review: nobody there reads either.
        date: date of the verification, ISO 8601.
        endpoint: the address that was verified, e.g. "https://notes.openai.azure.com"; it holds for that scheme, host
            and port, whatever the path.

    Raises:
        EndpointError: one of the three is not verified, the name, the date or the endpoint is missing, or the date
            cannot be true.

    Example:
        >>> attestation = Attestation(
        ...     verified_by="name of the officer", zero_retention=True, no_training=True, no_human_review=True,
        ...     date="2026-01-31", endpoint="https://notes.openai.azure.com",
        ... )
        >>> llm = LLM("my-model", base_url="https://notes.openai.azure.com/openai/v1", attestation=attestation)
    """

    verified_by: str
    zero_retention: bool
    no_training: bool
    no_human_review: bool
    date: str
    endpoint: str = ""

    def __post_init__(self) -> None:
        if not (self.zero_retention is True and self.no_training is True and self.no_human_review is True):
            raise EndpointError("an attestation requires zero retention, no training and no human review")
        try:
            date = datetime.date.fromisoformat(self.date)
        except (TypeError, ValueError):
            raise EndpointError("an attestation needs the date of the verification, e.g. 2026-03-01") from None
        if not _FIRST_DAY <= date <= datetime.date.today():
            raise EndpointError(
                f"the date of an attestation is the day of the verification: {date} is in the future or before "
                f"{_FIRST_DAY}"
            )
        if not str(self.verified_by or "").strip():
            raise EndpointError("an attestation needs the name of the person who verified it")
        try:
            parse_origin(self.endpoint)
        except (LLMError, TypeError, AttributeError):
            raise EndpointError(
                "an attestation needs the endpoint that was verified: Attestation(..., endpoint='https://host/v1')"
            ) from None

    def covers(self, origin: Origin) -> bool:
        """Return whether it was made for an endpoint: the same scheme, host and port."""
        return parse_origin(self.endpoint) == origin


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of an endpoint, its path, and an api-version; without user name and password."""

    scheme: str
    host: str
    port: int
    path: str = field(default="", compare=False)
    query: str = field(default="", compare=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address without secrets, as it may be shown."""
        return f"{self.scheme}://{self}{self.path}"


def parse_origin(url: str) -> Origin:
    """Parse the address of an endpoint.

    Raises:
        LLMError: it is not an http or https address, or contains a user name, a password or a query other than Azure's
            api-version.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        if not parts.hostname:
            raise ValueError
    except (ValueError, KeyError):
        raise LLMError("base_url must be an http or https address, e.g. http://127.0.0.1:8000/v1") from None
    if parts.username or parts.password or not _VERSION.fullmatch(parts.query):
        raise LLMError("base_url must not contain a user name, a password or a query; pass the key as api_key")
    return Origin(parts.scheme, parts.hostname.lower(), port, parts.path.rstrip("/"), parts.query)


def is_openai(origin: Origin) -> bool:
    """Check whether an endpoint is OpenAI's own: a host of openai.com, encrypted."""
    return origin.scheme == "https" and f".{origin.host}".endswith(".openai.com")


def may_see_settings(origin: Origin) -> bool:
    """Check whether OPENAI_API_KEY and other settings of the environment for OpenAI's client may go to an endpoint.

    They may go to OpenAI, and to the endpoint that OPENAI_BASE_URL names beside them.
    """
    try:
        return is_openai(origin) or parse_origin(os.environ.get("OPENAI_BASE_URL") or "") == origin
    except LLMError:
        return False


def settings_headers() -> dict[str, str]:
    """Return the headers that the environment asks for, as for openai's client: organization, project, own ones."""
    names = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
    headers = {header: value for header, name in names.items() if (value := os.environ.get(name, "").strip())}
    for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip():
            headers[name.strip()] = value.strip()
    return headers


def is_local(address: str) -> bool:
    """Check whether an IP address is loopback or private; an IPv4-mapped IPv6 address counts as the IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip.version == network.version and ip in network for network in _LOCAL)


def is_local_host(host: str) -> bool:
    """Check whether a host is this machine, or an address of a private network; no name is looked up."""
    try:
        return host == "localhost" or is_local(host)
    except ValueError:
        return False


def check_endpoint(
    origin: Origin, access: str | None, attestation: Attestation | None = None
) -> tuple[str, ...] | None:
    """Check that notes of an access may be sent to an endpoint, before anything is sent.

    Returns:
        The addresses that may be connected to; None for any address of the host.

    Raises:
        EndpointError: the notes may not be sent there; also where a name without an address might be local.
        LLMError: the host of an attested endpoint has no address.
    """
    if access == "open":
        return None
    known = access if access in ("restricted", "credentialed") else "credentialed"
    attested = attestation is not None and attestation.covers(origin)
    addresses: tuple[str, ...] = ()
    if attested or not is_openai(origin):  # no name is looked up for what cannot be allowed
        try:
            addresses = _resolve(origin)
        except LLMError:
            if attested:
                raise
            raise EndpointError(
                f"{origin} is not known to be on a private network, since there is no host of that name, and {known} "
                "notes may not be sent elsewhere; check base_url"
            ) from None
    if addresses and all(map(is_local, addresses)):
        return addresses
    if attestation is not None and not attested:
        raise EndpointError(
            f"the attestation is for {parse_origin(attestation.endpoint)}, and {known} notes may not be sent to "
            f"{origin} by it; verify that endpoint too, or use the one that was verified"
        )
    if attestation is None:
        raise EndpointError(
            f"{origin} is not on this machine or a private network, and {known} notes may not be sent there; use a "
            "local endpoint, or pass LLM(attestation=Attestation(...)) after verifying zero retention, no training "
            "and no human review"
        )
    if origin.scheme != "https":
        raise EndpointError(f"{origin} would receive {known} notes unencrypted; use its https address")
    return addresses


def _resolve(origin: Origin) -> tuple[str, ...]:
    try:
        return (str(ipaddress.ip_address(origin.host)),)
    except ValueError:
        pass
    try:
        infos = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise LLMError(f"cannot reach {origin}: there is no host of that name; check base_url") from None
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in infos))


class LineError(Exception):
    """No response; `code`: "timeout", "connection", "stopped", "unasked" or one of `connections.unreached`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Line:
    """HTTP connections to one origin at checked addresses, and to no other.

    It uses aiohttp, follows no redirects, uses no proxies of the environment and keeps no cookies. A line belongs to
    one event loop.
    """

    def __init__(
        self,
        origin: Origin,
        addresses: Sequence[str] | None,
        *,
        connections: int,
        connect_timeout: float,
        reuse: bool = True,
    ) -> None:
        import aiohttp  # noqa: F401 - it takes long once, before the clock of the first request runs

        self._origin, self._addresses = origin, addresses
        self._connections, self._connect_timeout = connections, connect_timeout
        self._session: aiohttp.ClientSession | None = None
        self._connector: Any = None
        self._halted, self._reuse = False, reuse

    @property
    def unasked(self) -> list[str]:
        """The marks of requests whose responses may be to others: their connections sent more than was asked for."""
        return [] if self._connector is None else self._connector.unasked

    def halt(self) -> None:
        """Send nothing more; what is under way is answered."""
        self._halted = True

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import ssl

            import aiohttp

            tls = ssl.create_default_context() if self._origin.scheme == "https" else False
            pinned = None if self._addresses is None else (self._origin.host, self._addresses)
            self._connector = connector(self._connections, tls, pinned, reuse=self._reuse)
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    def open(self) -> None:
        """Make ready, which takes time once: the first request is then sent at once."""
        self._open()

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        read_timeout: float | None = None,
        mark: str = "",
    ) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
        """Send one request.

        Args:
            mark: what names the request in `unasked`.

        Returns:
            Status, headers, and the undecoded body, cut one byte beyond `MAX_BODY`.

        Raises:
            EndpointError: the request is for another origin; nothing was sent.
            LineError: there is no response.
        """
        import aiohttp
        from yarl import URL

        target = URL(url)
        if target.origin() != URL(self._origin.url).origin():  # both normalised, also IPv6 addresses
            raise EndpointError(f"a request was for another host than {self._origin}; nothing was sent")
        if self._halted:
            raise LineError("stopped")
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout, sock_read=read_timeout)
        try:
            async with self._open().request(
                method, target, headers=headers, data=body, allow_redirects=False, timeout=limits
            ) as reply:
                content = await _read(reply.content)
                if mark:
                    self._connector.mark(mark)
                return reply.status, reply.raw_headers, content
        except UnaskedError:
            raise LineError("unasked") from None
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise LineError(unreached(error)) from None
        except aiohttp.ServerTimeoutError:
            raise LineError("timeout") from None
        except (aiohttp.ClientError, ValueError):  # ValueError: the response is not HTTP
            raise LineError("connection") from None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            self._connector.look_at_all()
            await self._session.close()


def guarded_transport(line: Line) -> httpx2.AsyncBaseTransport:
    """Make a transport for openai's client over a line, so that it cannot send anything elsewhere."""
    import httpx2

    class Guarded(httpx2.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            read = request.extensions.get("timeout", {}).get("read")
            try:
                status, headers, body = await line.send(
                    request.method, str(request.url), request.headers, await request.aread(), read
                )
            except LineError as error:
                kind = {"timeout": httpx2.ReadTimeout, "connection": httpx2.ReadError}.get(error.code)
                raise (kind or httpx2.ConnectError)(error.code, request=request) from None
            return httpx2.Response(status, headers=headers, content=body, request=request)

        async def aclose(self) -> None:
            await line.close()

    return Guarded()


def decompress(body: bytes, encoding: str) -> bytes | None:
    """Decompress a body up to one byte beyond `MAX_BODY`; None for an unknown encoding or a broken body."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    import zlib

    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, MAX_BODY + 1)
    except zlib.error:
        return None


async def _read(stream: Any) -> bytes:
    """Read a response body up to one byte beyond `MAX_BODY`, which marks it as too large."""
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            return bytes(body[: MAX_BODY + 1])
    return bytes(body)
