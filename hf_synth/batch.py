"""BatchLLM: the same questions at half the price, answered within a day, through OpenAI's Batch API.

All questions that the journal lacks go up as files; the endpoint answers them within 24 hours and charges `BATCH_PRICE`
of the list price. The answers go into the same journal under the same keys as those of an `LLM`, so that what one has
bought the other never buys again.

A batch under way outlives the process that sent it: a note of it lies beside the journal (ids and keys, no text), is
written before anything is paid for, and leads the next run back to that batch. While a batch is waited for, its
questions are leased: whoever else needs one of these answers, an `LLM` too, waits for it.

The Batch API keeps inputs and outputs at the provider for days, so only open data is asked about, whatever was
attested.

Nothing that an endpoint says is ever logged or put into an error: only the status and a short code.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
import uuid
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import KW_ONLY, asdict, dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from hf_synth.endpoints import MAX_BODY, Line
from hf_synth.errors import EndpointError, HfSynthError, JournalError, LLMError
from hf_synth.folders import clear_disk_errors, private_folder
from hf_synth.journal import Entry
from hf_synth.leases import claim, release, renew
from hf_synth.llm import LLM, _Wire
from hf_synth.machine import process_name
from hf_synth.questions import Answer, Messages, Question, answer_of, check_sampling, deciding, keyed, seed_of
from hf_synth.replies import Failure, Reply, read_reply

BATCH_PRICE = 0.5  # of the list price
MAX_REQUESTS = 50_000  # questions in one file
MAX_BYTES = 200_000_000  # bytes of one file
_ROUNDS = 3  # how often a question is sent before it counts as failed
_GROUP = 500  # answers written to the journal at once
_LEASE_SECONDS = _DRAFT_SECONDS = 60.0
_FIRST_PATIENCE, _PATIENCE, _OUTAGE = 5.0, 120.0, 3600.0  # seconds to try: at first, a request, a look at a batch
_BACKOFF = 0.25  # seconds before the second attempt, doubled up to the time between two looks
_AGAIN = frozenset({408, 409, 429})  # and every 5xx
_ENDED = ("completed", "expired", "cancelled", "failed")
_STATUSES = (*_ENDED, "validating", "in_progress", "finalizing", "cancelling")
_UNANSWERED = {"batch_expired": "batch_expired", "batch_cancelled": "batch_expired", "request_timeout": "timeout"}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_LOG = logging.getLogger(__name__)

T = TypeVar("T")
Keyed = tuple[str, list[dict[str, str]]]


@dataclass(frozen=True, eq=False)
class BatchLLM:
    """An endpoint with OpenAI's Batch API as something that writes. It costs half (`BATCH_PRICE`) and takes hours.

    Args:
        llm: the endpoint; its model, key, journal, price and budget count.
        poll_seconds: between two looks at a batch.
        max_wait_hours: how long one batch is waited for. When it takes longer, a later run goes on waiting.
        folder: where the notes of batches under way lie; `batches` beside the journal when None.

    Raises:
        LLMError: an argument makes no sense.
    """

    llm: LLM
    _: KW_ONLY
    poll_seconds: float = 30.0
    max_wait_hours: float = 26.0
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.poll_seconds > 0 or not self.max_wait_hours > 0:
            raise LLMError("poll_seconds and max_wait_hours are above 0")

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.llm.model

    @property
    def journal(self) -> str | Path | None:
        """The file that keeps the answers."""
        return self.llm.journal

    @property
    def spent_usd(self) -> float:
        """What the LLM has spent in this process, in batches and otherwise, in US dollars."""
        return self.llm.spent_usd

    def with_journal(self, path: str | Path) -> BatchLLM:
        """Give the same with its journal elsewhere; what was spent counts on."""
        return replace(self, llm=self.llm.with_journal(path))

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and give their answers in order; as `stream`."""
        return list(self.stream(list_of_messages, **options))

    def stream(
        self,
        list_of_messages: Iterable[Messages | Question | None],
        *,
        access: str | None = None,
        schema: Mapping[str, Any] | None = None,
        samples: Iterable[int] | None = None,
        scope: str = "",
        progress: bool = False,
        ahead: int | None = None,
        **sampling: Any,
    ) -> Iterator[Answer]:
        """Give the answers in order, once all that were asked together are there.

        Args:
            list_of_messages: read up to a pause (a None) or the end and held in memory: all these questions are asked
                together, in as few files as they fit into, and answered before the next one is read.
            access: of what the messages hold; anything but "open" is refused.
            schema: JSON schema that the answer is to follow, where the endpoint can.
            samples: as `LLM.chat` has it.
            scope: another part of the journal's key, e.g. the fingerprint of a task.
            progress: show a progress bar.
            ahead: the most questions asked together; None for no bound.
            sampling: sampling parameters as the endpoint takes them, as `LLM.chat` has them.

        Returns:
            An answer for each question. One that failed for good has status "error", with code "batch_expired" where
            three batches ended without it, "budget" where the worst case of its cost did not fit; it is asked again
            next time.

        Raises:
            EndpointError: the data is not open; nothing was sent.
            LLMError: the endpoint cannot be used, refuses the batch, or takes too long. What was answered is kept, and
                a batch under way is found again.
            JournalError: the journal cannot be read or written.
            OutputError: the note of a batch cannot be read or written.
        """
        if access != "open":
            raise EndpointError(
                "the Batch API keeps what it is asked at the provider, so only open data may be sent through it, with "
                "or without an attestation; use LLM or LocalLLM for restricted and credentialed data"
            )
        check_sampling(sampling)
        total = len(list_of_messages) if isinstance(list_of_messages, Sequence) else None
        questions = keyed(list_of_messages, samples, deciding(self.model, sampling, schema, scope))
        return self._answers(_groups(questions, ahead), schema, sampling, total, progress)

    def _answers(
        self, groups: Iterator[list[Keyed]], schema: Mapping[str, Any] | None, sampling: dict[str, Any],
        total: int | None, progress: bool,
    ) -> Iterator[Answer]:  # fmt: skip
        from tqdm import tqdm

        journal = self.llm.open_journal()
        with tqdm(total=total, disable=not progress, unit="answer", desc=self.model) as bar:
            for group in groups:
                entries = journal.get_many(key for key, _ in group)
                shared = set(entries)
                failures: dict[str, Failure] = {}
                if lacking := {key: messages for key, messages in group if key not in entries}:
                    asking = _Asking(self, schema, sampling, lacking)
                    _in_a_thread(asking.run())
                    entries |= journal.get_many(lacking)
                    shared |= asking.shared
                    failures = asking.failures
                for key, _ in group:
                    if key in entries:
                        yield answer_of(entries[key], cached=key in shared)
                    else:
                        yield Answer("", "error", failures[key].code, model=self.model, journal_key=key)
                    bar.update()


def _groups(questions: Iterator[Keyed | None], ahead: int | None) -> Iterator[list[Keyed]]:
    """Give the questions that are asked together: up to a pause, or as many as may be ahead."""
    group: list[Keyed] = []
    for question in questions:
        if question is not None:
            group.append(question)
        if group and (question is None or len(group) == ahead):
            yield group
            group = []
    if group:
        yield group


def _in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop and a thread of its own, since a notebook has a loop running; an interrupt ends it."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[T]]] = []

    async def watched() -> T:
        running.append((asyncio.get_running_loop(), asyncio.ensure_future(work)))
        return await running[0][1]

    with ThreadPoolExecutor(1, thread_name_prefix="hf_synth-batch") as pool:
        done = pool.submit(asyncio.run, watched())
        try:
            return done.result()
        except BaseException:
            with suppress(RuntimeError, IndexError):  # it has ended by itself
                loop, task = running[0]
                loop.call_soon_threadsafe(task.cancel)
            raise


# --- the note of a batch --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Note:
    """What is known of one batch, as its file keeps it: ids, keys, a status; no text.

    Args:
        path: the file, named after a hash of the endpoint and the keys.
        mark: what the batch carries in its metadata, so that it is found when its id did not come to be known.
        file: the uploaded file, empty before.
        batch: the batch, empty before.
    """

    path: Path
    endpoint: str
    keys: tuple[str, ...]
    mark: str
    file: str = ""
    batch: str = ""
    status: str = "new"

    def keep(self, **facts: str) -> _Note:
        """Give the note with other facts, once it is on disk."""
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


def _notes(folder: Path) -> Iterator[_Note]:
    for draft in folder.glob("*.draft"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:  # whoever wrote it was killed
                draft.unlink()
    for path in sorted(folder.glob("*.json")):
        try:
            facts = json.loads(path.read_text(encoding="ascii"))
            yield _Note(path, **{**facts, "keys": tuple(facts["keys"])})
        except FileNotFoundError:  # another process is done with it
            continue
        except (OSError, ValueError, TypeError, KeyError):
            raise JournalError(f"{path} is broken; delete it, then what its batch was asked is asked again") from None


# --- one group of questions -----------------------------------------------------------------------------------------


class _Asking:
    """Questions that the journal lacks: waits for batches under way, sends the rest, keeps what comes.

    Args:
        wanted: messages by key.
    """

    def __init__(
        self, of: BatchLLM, schema: Mapping[str, Any] | None, sampling: dict[str, Any],
        wanted: dict[str, list[dict[str, str]]],
    ) -> None:  # fmt: skip
        self.shared: set[str] = set()  # answers that another process or call has paid for
        self.failures: dict[str, Failure] = {}
        self._of, self._llm, self._schema, self._sampling, self._wanted = of, of.llm, schema, sampling, wanted
        self._journal, self._ledger = of.llm.open_journal(), of.llm._ledger
        self._folder = of.folder or self._journal.path.parent / "batches"
        self._answered: set[str] = set()
        self._plain: set[str] = set()  # asked without the schema, which the endpoint has refused
        self._reserved: dict[str, float] = {}
        self._provider: _Provider

    async def run(self) -> None:
        """Ask until each question is answered or has failed for good; a question that others ask is waited for."""
        self._provider = _Provider(self._llm, self._of.poll_seconds)
        owner = f"{process_name()}#{uuid.uuid4().hex[:12]}"
        alive = asyncio.create_task(self._stay_alive(owner))
        left = list(self._wanted)
        try:
            while left:
                granted, found = claim(self._journal, left, owner, _LEASE_SECONDS)
                self.shared |= found.keys()
                if granted:
                    await self._ask([key for key in left if key in granted])
                    release(self._journal, owner)  # of those that failed
                left = [key for key in left if key not in granted and key not in found]
                if left and not granted:
                    await asyncio.sleep(min(1.0, self._of.poll_seconds))
        finally:
            alive.cancel()
            with suppress(JournalError):  # if it cannot be written, the end of this process ends them
                release(self._journal, owner)
            await self._provider.close()

    async def _stay_alive(self, owner: str) -> None:
        while True:
            await asyncio.sleep(_LEASE_SECONDS / 4)
            with suppress(JournalError):
                await asyncio.to_thread(renew, self._journal, owner, _LEASE_SECONDS)

    async def _ask(self, keys: list[str]) -> None:
        url = self._llm.origin.url
        before = [n for n in _notes(self._folder) if n.endpoint == url and not set(keys).isdisjoint(n.keys)]
        if before:
            _LOG.info("%d batches at %s are under way from before; their answers are waited for", len(before), url)
        await self._finish(before)
        for _ in range(_ROUNDS):
            if not (left := [key for key in keys if self._is_open(key)]):
                return
            await self._round(left)

    def _is_open(self, key: str) -> bool:
        return key not in self._answered and (key not in self.failures or self.failures[key].again)

    async def _round(self, keys: list[str]) -> None:
        """Send questions, as far as the budget allows for the worst case, and wait for their answers."""
        notes = []
        try:
            for part, data in self._files([key for key in keys if self._reserve(key)]):
                notes.append(await self._send(part, data))
            await self._finish(notes)
        finally:
            for key in list(self._reserved):
                self._ledger.settle(self._reserved.pop(key), None)

    def _reserve(self, key: str) -> bool:
        """Set aside the most that a question may cost: two bytes a token read, the longest answer written."""
        amount = 0.0
        if self._ledger.budget is not None:
            read = len(json.dumps(self._wanted[key], ensure_ascii=False).encode("utf-8", "replace")) // 2
            bound = self._sampling.get("max_completion_tokens") or self._sampling.get("max_tokens")
            amount = BATCH_PRICE * (self._ledger.cost(read, int(bound or self._ledger.longest)) or 0.0)
        if not self._ledger.reserve(amount):
            self.failures[key] = Failure("budget")
            return False
        self._reserved[key] = amount
        return True

    def _files(self, keys: list[str]) -> Iterator[tuple[list[str], bytes]]:
        """Give the files to upload, each with the keys of its questions; a question that fits into none has failed."""
        part: list[str] = []
        data = bytearray()
        for key in keys:
            try:
                line = json.dumps(self._request(key), ensure_ascii=False).encode() + b"\n"
            except UnicodeError:
                self.failures[key] = Failure("not_text")
                continue
            if len(line) > MAX_BYTES:
                self.failures[key] = Failure("too_large")
                continue
            if part and (len(part) >= MAX_REQUESTS or len(data) + len(line) > MAX_BYTES):
                yield part, bytes(data)
                part, data = [], bytearray()
            part.append(key)
            data += line
        if part:
            yield part, bytes(data)

    def _request(self, key: str) -> dict[str, Any]:
        """Give the line of a question: the same request that `LLM` makes."""
        sampling = {name: value for name, value in self._sampling.items() if value is not None}
        body: dict[str, Any] = {"model": self._llm.model, "messages": self._wanted[key], **sampling}
        if "seed" not in self._sampling:
            body["seed"] = seed_of(key)
        if self._schema is not None and self._ledger.plain:
            self._plain.add(key)
        if self._schema is not None and key not in self._plain:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": self._schema}}
        return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}

    async def _send(self, keys: list[str], data: bytes) -> _Note:
        """Upload a file and start its batch, with a note of each step before the next one."""
        url = self._llm.origin.url
        digest = sha256("\n".join([url, *sorted(keys)]).encode()).hexdigest()
        note = _Note(self._folder / f"{digest}.json", url, tuple(sorted(keys)), uuid.uuid4().hex).keep()
        note = note.keep(file=await self._provider.upload(data))
        note = note.keep(batch=await self._provider.start(note, digest))
        _LOG.info("a batch of %d questions was sent to %s", len(keys), self._llm.origin)
        return note

    # --- what comes back ----------------------------------------------------------------------------------------

    async def _finish(self, notes: list[_Note]) -> None:
        """Wait for batches and keep their answers; one that fails does not keep the others from it."""
        problems = await asyncio.gather(*(self._wait(note) for note in notes), return_exceptions=True)
        for problem in problems:
            if problem is not None:
                raise problem

    async def _wait(self, note: _Note) -> None:
        if not note.batch:  # whoever sent it was killed before its id was known, or before it was sent
            batch = await self._provider.find(note) if note.file else None
            if batch is None:
                return note.forget()
            note = note.keep(batch=batch)
        until = time.monotonic() + 3600 * self._of.max_wait_hours
        while (facts := await self._provider.look_at(note)).get("status") not in _ENDED:
            if (status := facts.get("status")) in _STATUSES and status != note.status:
                note = note.keep(status=str(status))
            if time.monotonic() > until:
                raise LLMError(
                    f"a batch at {self._llm.origin} has not ended after {self._of.max_wait_hours:g} hours of waiting; "
                    "run again to go on waiting: nothing is paid for twice"
                )
            await asyncio.sleep(self._of.poll_seconds)
        if facts["status"] == "failed":
            note.forget()
            raise LLMError(f"{self._llm.origin} refuses a batch as a whole ({_failed_code(facts)}); nothing was paid")
        await self._merge(note, facts)
        return note.forget()

    async def _merge(self, note: _Note, facts: dict[str, Any]) -> None:
        """Keep the answers of a batch that has ended, and say of its other questions why they have none."""
        keys = set(note.keys)
        failures: dict[str, Failure] = {}
        for name in ("output_file_id", "error_file_id"):
            if isinstance(file := facts.get(name), str) and file:
                await self._provider.call(note, lambda _, file=file: self._read(file, keys, failures))  # type: ignore[misc]
        missing = Failure("malformed" if facts["status"] == "completed" else "batch_expired", again=True)
        for key in keys & self._wanted.keys() - self._answered:
            failure = failures.get(key, missing)
            if failure.code in ("http_400", "http_422") and self._schema is not None and key not in self._plain:
                self._plain.add(key)  # perhaps it was the schema that is not understood
                failure = replace(failure, again=True)
            self.failures[key] = failure

    async def _read(self, file: str, keys: set[str], failures: dict[str, Failure]) -> None:
        """Read a file of answers line by line, in whatever order; what has no place in it is left alone."""
        group: dict[str, Reply] = {}
        broken = 0
        async with aclosing(self._provider.lines(file)) as lines:
            async for line in lines:
                if (said := _read_line(line, self._llm.model)) is None:
                    broken += 1
                elif said[0] not in keys or said[0] in group or said[0] in self._answered:
                    continue
                elif isinstance(said[1], Failure):
                    failures.setdefault(said[0], said[1])
                else:
                    group[said[0]] = said[1]
                if len(group) >= _GROUP:
                    self._keep(group)
                    group = {}
        self._keep(group)
        if broken:
            _LOG.warning("%d lines of a batch cannot be read; what has no answer is asked again", broken)

    def _keep(self, group: dict[str, Reply]) -> None:
        """Put answers in the journal, then settle what they cost."""
        if not group:
            return
        known = self._journal.get_many(group)  # by a run that was killed while it read them
        costs = {}
        for key, reply in group.items():
            read, written = reply.prompt_tokens, reply.completion_tokens
            cost = self._ledger.cost(read or 0, written or 0)
            costs[key] = cost if cost is None else BATCH_PRICE * cost
            if None in (read, written) and self._ledger.budget is not None:
                costs[key] = self._reserved.get(key, costs[key])
        now = time.time()
        self._journal.put_many(
            Entry(key, r.text, r.status, r.code, r.prompt_tokens or 0, r.completion_tokens or 0, cost, r.model, now)
            for key, r, cost in ((key, r, costs[key]) for key, r in group.items() if key not in known)
        )
        for key, reply in group.items():
            self._ledger.settle(self._reserved.pop(key, 0.0), None if key in known else costs[key])
            self._ledger.longest = max(self._ledger.longest, reply.completion_tokens or 0)
            self._ledger.plain |= key in self._plain
        self._answered |= group.keys()
        for key in group.keys() & self.failures.keys():
            del self.failures[key]


def _read_line(line: bytes, model: str) -> tuple[str, Reply | Failure] | None:
    """Read one line of an output or error file; None when it is broken."""
    try:
        said = json.loads(line)
        key, response = said["custom_id"], said.get("response")
        if not isinstance(key, str):
            return None
        if response is None:
            return key, Failure(_UNANSWERED.get(str(said["error"]["code"]), "malformed"), again=True)
        status = int(response["status_code"])
        if status == 200:
            return key, read_reply(json.dumps(response["body"]).encode(), model)
        return (key, Failure(f"http_{status}", status in _AGAIN or status >= 500)) if 100 <= status < 600 else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _failed_code(facts: Mapping[str, Any]) -> str:
    """Give the code of a batch's first error, where it looks like one of the protocol's own words."""
    try:
        code = facts["errors"]["data"][0]["code"]
    except (KeyError, IndexError, TypeError):
        code = None
    return code if isinstance(code, str) and re.fullmatch(r"[a-z][a-z_]{1,39}", code) else "no code given"


# --- the endpoint ---------------------------------------------------------------------------------------------------


class _Fault(Exception):
    """No answer this time; it has a status, as errors of openai's client have, where there was a response at all."""

    def __init__(self, code: str, status: int | None = None) -> None:
        super().__init__(code)
        self.code, self.status_code = code, status


class _Provider:
    """Files and batches of the endpoint, over the guarded client of `LLM`; faults that pass are tried again."""

    def __init__(self, llm: LLM, pause: float) -> None:
        self._wire = _Wire(llm, "open", {})
        self._client, self._origin, self._pause, self._timeout = self._wire.client, llm.origin, pause, llm.timeout
        self._line = _Download(llm.origin, None, connections=4, connect_timeout=min(10.0, llm.timeout))
        self._reached = False

    async def close(self) -> None:
        """Close every connection."""
        await self._line.close()
        await self._client.close()

    async def upload(self, data: bytes) -> str:
        """Upload a file of questions and give its id. It is held in memory: no prompt is written to this disk."""

        async def once(_: int) -> str:
            raw = self._client.files.with_raw_response
            return _id(await raw.create(file=("questions.jsonl", BytesIO(data)), purpose="batch"))

        return await self.call(None, once)

    async def start(self, note: _Note, digest: str) -> str:
        """Start a batch and give its id. After a fault it is looked for first: it may have been started."""

        async def once(attempt: int) -> str:
            if attempt:
                await asyncio.sleep(self._pause)  # a list of batches may lag behind
                if found := await self._search(note.mark):
                    return found
            return _id(
                await self._client.batches.with_raw_response.create(
                    input_file_id=note.file, endpoint="/v1/chat/completions", completion_window="24h",
                    metadata={"hf_synth_keys": digest, "hf_synth_mark": note.mark},
                )
            )  # fmt: skip

        return await self.call(None, once)

    async def find(self, note: _Note) -> str | None:
        """Give the id of the batch that carries the mark of a note; None where none was started."""
        return await self.call(note, lambda _: self._search(note.mark))

    async def _search(self, mark: str) -> str | None:
        after: dict[str, str] = {}
        while True:
            page = _facts(await self._client.batches.with_raw_response.list(limit=100, **after))  # type: ignore[arg-type]
            batches = [one for one in page.get("data") or [] if isinstance(one, dict)]
            for one in batches:
                carried = one.get("metadata")
                if isinstance(carried, dict) and carried.get("hf_synth_mark") == mark:
                    return _checked(one.get("id"))
            last = _checked(batches[-1].get("id")) if batches and page.get("has_more") else None
            if last is None or last == after.get("after"):
                return None
            after = {"after": last}

    async def look_at(self, note: _Note) -> dict[str, Any]:
        """Give the facts of a batch; an outage of an hour is waited out."""

        async def once(_: int) -> dict[str, Any]:
            return _facts(await self._client.batches.with_raw_response.retrieve(note.batch))

        return await self.call(note, once, _OUTAGE)

    async def lines(self, file: str) -> AsyncGenerator[bytes, None]:
        """Give the lines of a file, however large."""
        url = f"{self._origin.url}/files/{quote(_checked(file), safe='')}/content"
        async with aclosing(self._line.lines(url, self._wire._headers, self._timeout)) as lines:
            async for line in lines:
                if line.strip():
                    yield line

    async def call(self, note: _Note | None, once: Callable[[int], Awaitable[T]], patience: float | None = None) -> T:
        """Do something with the endpoint, again and again while it fails in a way that may pass.

        Args:
            note: of the batch that it is about, if any.
            once: does it; gets how often it was tried before.
            patience: seconds for all attempts.

        Raises:
            LLMError: it failed for good.
        """
        began, attempt = time.monotonic(), 0
        while True:
            try:
                result = await once(attempt)
            except HfSynthError:
                raise
            except Exception as error:  # openai's, whose only import is llm.py's; its message may hold text
                code = self._passing(error, note)
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

    def _passing(self, error: Exception, note: _Note | None) -> str:
        """Give the code of a fault that may pass.

        Raises:
            LLMError: it will not.
        """
        status = getattr(error, "status_code", None)
        if not isinstance(status, int):
            if isinstance(error, _Fault):
                return error.code
            if isinstance(error, OSError) or type(error).__module__.startswith(("openai", "httpx2", "aiohttp")):
                return "connection"
            raise LLMError(f"a batch at {self._origin} failed: {type(error).__name__}") from None  # a fault of ours
        quota = status == 429 and getattr(error, "code", None) == "insufficient_quota"
        if (status in _AGAIN or status >= 500) and not quota:
            return f"http_{status}"
        gone = f"no longer has a batch, or it is another key's (404); delete {note and note.path} to ask anew"
        sentence = {
            401: "refuses the key (401); check api_key or OPENAI_API_KEY",
            403: "does not allow batches (403); check the key's rights",
            404: gone if note else "has no Batch API at base_url's path (404); use LLM without it",
            429: "says that the account's quota is spent (429)",
        }.get(status, f"refuses a batch ({status})")
        raise LLMError(f"{self._origin} {sentence}") from None


class _Download(Line):
    """A line that brings files of any size, which `Line.send` cuts at the size of one answer."""

    async def lines(self, url: str, headers: Mapping[str, str], read_timeout: float) -> AsyncGenerator[bytes, None]:
        """Give the lines of a file as they come; one that is longer than any answer comes as a broken one.

        Raises:
            _Fault: the connection breaks off, or the response is no 200.
        """
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout, sock_read=read_timeout)
        rest, skip = b"", False
        try:
            async with self._open().get(url, headers=headers, allow_redirects=False, timeout=limits) as reply:
                if reply.status != 200:
                    raise _Fault("status", reply.status)
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
            raise _Fault("connection") from None
        yield b"{" if skip else rest


def _facts(response: Any) -> dict[str, Any]:
    """Read a response of openai's client as it came."""
    try:
        facts = json.loads(response.content)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise _Fault("malformed") from None
    return facts


def _id(response: Any) -> str:
    return _checked(_facts(response).get("id"))


def _checked(id: Any) -> str:
    """Give an id that an endpoint gave, if it looks like one."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise _Fault("malformed")
    return id
