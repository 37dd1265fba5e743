"""HTTP calls of OpenAI's Batch API with retries, and the notes on disk of the batches sent.

Of the responses only ids, statuses and codes are kept, never messages.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import uuid
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from hf_synth.errors import HfSynthError, JournalError, LLMError
from hf_synth.llm.endpoints import MAX_BODY, Line
from hf_synth.llm.llm import LLM, Wire
from hf_synth.task.folders import clear_disk_errors, private_folder

# seconds of retries: before the first response, of a request, of a status request
_FIRST_PATIENCE, _PATIENCE, _OUTAGE = 5.0, 120.0, 3600.0
_BACKOFF = 0.25  # seconds before the second attempt, doubled up to the time between two status requests
_DRAFT_SECONDS = 60.0  # age from which a draft of a note is a leftover
AGAIN = frozenset({408, 409, 429})  # statuses worth a retry, and every 5xx
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")

T = TypeVar("T")


class Fault(Exception):
    """A failed request; like errors of openai's client it has a status where there was a response."""

    def __init__(self, code: str, status: int | None = None) -> None:
        super().__init__(code)
        self.code, self.status_code = code, status


class Provider:
    """Files and batches of the endpoint over the guarded client of `LLM`; temporary faults are retried."""

    def __init__(self, llm: LLM, pause: float) -> None:
        self._wire = Wire(llm, "open", {})
        self._client, self._origin, self._pause, self._timeout = self._wire.client, llm.origin, pause, llm.timeout
        self._line = _Download(llm.origin, None, connections=4, connect_timeout=min(10.0, llm.timeout))
        self._reached = False

    async def close(self) -> None:
        """Close every connection."""
        await self._line.close()
        await self._client.close()

    async def upload(self, data: bytes) -> str:
        """Upload a file of questions and return its id; it stays in memory, so that no prompt is written to disk."""

        async def once(_: int) -> str:
            raw = self._client.files.with_raw_response
            return _id(await raw.create(file=("questions.jsonl", BytesIO(data)), purpose="batch"))

        return await self.call(None, once)

    async def start(self, note: Note, digest: str) -> str:
        """Start a batch and return its id; after a fault search for it first, since it may have started."""

        async def once(attempt: int) -> str:
            if attempt:
                await asyncio.sleep(self._pause)  # a list of batches may lag behind
                if batch := await self._search(note.mark):
                    return batch
            response = await self._client.batches.with_raw_response.create(
                input_file_id=note.file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"hf_synth_keys": digest, "hf_synth_mark": note.mark},
            )
            return _id(response)

        return await self.call(None, once)

    async def find(self, note: Note) -> str | None:
        """Find the id of the batch with the mark of a note; None where none was started."""
        return await self.call(note, lambda _: self._search(note.mark))

    async def _search(self, mark: str) -> str | None:
        after: dict[str, str] = {}
        while True:
            page = _facts(await self._client.batches.with_raw_response.list(limit=100, **after))
            batches = [one for one in page.get("data") or [] if isinstance(one, dict)]
            for one in batches:
                metadata = one.get("metadata")
                if isinstance(metadata, dict) and metadata.get("hf_synth_mark") == mark:
                    return _check_id(one.get("id"))
            last = _check_id(batches[-1].get("id")) if batches and page.get("has_more") else None
            if last is None or last == after.get("after"):
                return None
            after = {"after": last}

    async def look_at(self, note: Note) -> dict[str, Any]:
        """Return the state of a batch; retry for an hour of outage."""

        async def once(_: int) -> dict[str, Any]:
            return _facts(await self._client.batches.with_raw_response.retrieve(note.batch))

        return await self.call(note, once, _OUTAGE)

    async def lines(self, file: str) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a file of any size."""
        url = f"{self._origin.url}/files/{quote(_check_id(file), safe='')}/content"
        async with aclosing(self._line.lines(url, self._wire._headers, self._timeout)) as lines:
            async for line in lines:
                if line.strip():
                    yield line

    async def call(self, note: Note | None, once: Callable[[int], Awaitable[T]], patience: float | None = None) -> T:
        """Send a request, and retry it after temporary faults.

        Args:
            note: of the batch, if there is one.
            once: one attempt; gets the number of attempts before.
            patience: seconds for all attempts.

        Raises:
            LLMError: the request failed for good.
        """
        began, attempt = time.monotonic(), 0
        while True:
            try:
                result = await once(attempt)
            except HfSynthError:
                raise
            except Exception as error:  # openai is imported in llm.py alone; the message may contain text
                code = self._temporary_code(error, note)
            else:
                self._reached = True
                return result
            self._reached |= code != "connection"
            limit = min(patience or _PATIENCE, _OUTAGE if self._reached else _FIRST_PATIENCE)
            if time.monotonic() - began > limit:
                raise LLMError(
                    f"cannot reach {self._origin} ({code}); check that it is running, then run again to go on"
                ) from None
            await asyncio.sleep(min(self._pause, _BACKOFF * 2.0 ** min(attempt, 10)))
            attempt += 1

    def _temporary_code(self, error: Exception, note: Note | None) -> str:
        """Return the code of a temporary fault.

        Raises:
            LLMError: the fault is permanent.
        """
        status = getattr(error, "status_code", None)
        if not isinstance(status, int):
            if isinstance(error, Fault):
                return error.code
            if isinstance(error, OSError) or type(error).__module__.startswith(("openai", "httpx2", "aiohttp")):
                return "connection"
            raise LLMError(f"a batch at {self._origin} failed: {type(error).__name__}") from None  # a bug of ours
        quota = status == 429 and getattr(error, "code", None) == "insufficient_quota"
        if (status in AGAIN or status >= 500) and not quota:
            return f"http_{status}"
        gone = f"has no such batch, or it is another key's (404); delete {note and note.path} to send it again"
        problem = {
            401: "refuses the key (401); check api_key, or OPENAI_API_KEY with OPENAI_BASE_URL beside it",
            403: "does not allow batches (403); check the key's rights",
            404: gone if note else "has no Batch API at base_url's path (404); use LLM without it",
            429: "says that the account's quota is spent (429); raise it or use another key",
        }.get(status, f"refuses a batch ({status})")
        raise LLMError(f"{self._origin} {problem}") from None


class _Download(Line):
    """A line for files of any size; `Line.send` cuts a response at the size of one answer."""

    async def lines(self, url: str, headers: Mapping[str, str], read_timeout: float) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a file as they arrive; a line longer than any answer is yielded as a broken one.

        Raises:
            Fault: the connection breaks off, or the status is not 200.
        """
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout, sock_read=read_timeout)
        rest, skip = b"", False
        try:
            async with self._open().get(url, headers=headers, allow_redirects=False, timeout=limits) as reply:
                if reply.status != 200:
                    raise Fault("status", reply.status)
                packed = reply.headers.get("Content-Encoding", "identity").lower() != "identity"
                unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32) if packed else None
                async for chunk in reply.content.iter_any():
                    *whole, rest = (rest + (unpack.decompress(chunk) if unpack else chunk)).split(b"\n")
                    for line in whole:
                        yield b"{" if skip else line
                        skip = False
                    if len(rest) > MAX_BODY:
                        rest, skip = b"", True
        except (aiohttp.ClientError, zlib.error):
            raise Fault("connection") from None
        yield b"{" if skip else rest


def _facts(response: Any) -> dict[str, Any]:
    """Parse a raw response of openai's client."""
    try:
        facts = json.loads(response.content)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise Fault("malformed") from None
    return facts


def _id(response: Any) -> str:
    return _check_id(_facts(response).get("id"))


def _check_id(id: Any) -> str:
    """Return an id of an endpoint after checking its form."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise Fault("malformed")
    return id


@dataclass(frozen=True)
class Note:
    """State of one batch on disk: ids, keys, a status; no text.

    Args:
        path: the file, named after a hash of the endpoint and the keys.
        mark: a mark in the metadata of the batch, by which it is found where its id is unknown.
        file: id of the uploaded file, empty before.
        batch: id of the batch, empty before.
    """

    path: Path
    endpoint: str
    keys: tuple[str, ...]
    mark: str
    file: str = ""
    batch: str = ""
    status: str = "new"

    def keep(self, **facts: str) -> Note:
        """Write the note with other facts to disk and return it."""
        note = replace(self, **facts)  # type: ignore[arg-type]
        draft = self.path.with_suffix(f".{uuid.uuid4().hex[:8]}.draft")
        with clear_disk_errors(private_folder(self.path.parent)):
            try:
                with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as out:
                    json.dump({k: v for k, v in asdict(note).items() if k != "path"}, out)
                    out.flush()
                    os.fsync(out.fileno())
                os.replace(draft, self.path)
            finally:
                draft.unlink(missing_ok=True)
        return note

    def forget(self) -> None:
        """Delete the file."""
        with clear_disk_errors(self.path):
            self.path.unlink(missing_ok=True)


def notes_in(folder: Path) -> Iterator[Note]:
    """Read the notes in a folder, and delete leftover drafts."""
    for draft in folder.glob("*.draft"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:  # its process was killed
                draft.unlink()
    for path in sorted(folder.glob("*.json")):
        try:
            facts = json.loads(path.read_text(encoding="ascii"))
            yield Note(path, **{**facts, "keys": tuple(facts["keys"])})
        except FileNotFoundError:  # another process has finished its batch
            continue
        except (OSError, ValueError, TypeError, KeyError):
            raise JournalError(f"{path} is broken; delete it, and run again to ask its questions again") from None
