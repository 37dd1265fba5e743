"""Client for OpenAI's Batch API: half the price, answers within 24 hours, resumable, cached in the journal.

The questions that the journal lacks are uploaded as files; the endpoint charges `BATCH_PRICE` of the list price. The
answers go into the same journal under the same keys as those of an `LLM`, so that neither pays for the other's.

A batch outlives the process that sent it: a note of it (ids and keys, no text) is written beside the journal before
anything is paid for, and the next run finds the batch by it. While a run waits for a batch its questions are leased, so
that other processes wait for the same answers.

The Batch API keeps inputs and outputs at the provider for days. Only open data may be sent, with or without an
attestation. Messages of an endpoint are never logged or put into an error: only the status and a short code are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import KW_ONLY, astuple, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from hf_synth.errors import EndpointError, JournalError, LLMError
from hf_synth.llm.batch_api import AGAIN, Note, Provider, notes_in
from hf_synth.llm.journal import NO_ANSWER, Entry, Shared, mark_unanswered
from hf_synth.llm.leases import claim, keep_renewing, new_owner, release
from hf_synth.llm.llm import LLM
from hf_synth.llm.manners import changes_as_json, provided_limit, request
from hf_synth.llm.questions import Answer, Messages, Question, asked_of, check_sampling, seed_of, with_keys
from hf_synth.llm.replies import Failure, Reply, error_code, failure_kind, read_reply
from hf_synth.llm.stream import Stream

BATCH_PRICE = 0.5  # of the list price
MAX_REQUESTS = 50_000  # questions in one file
MAX_BYTES = 200_000_000  # bytes of one file
_ROUNDS = 3  # attempts of a question before it has failed for good
_GROUP = 500  # answers written to the journal at once
_LEASE_SECONDS = 60.0
_ENDED = ("completed", "expired", "cancelled", "failed")
_STATUSES = (*_ENDED, "validating", "in_progress", "finalizing", "cancelling")
_UNANSWERED = {"batch_expired": "batch_expired", "batch_cancelled": "batch_expired", "request_timeout": "timeout"}

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class BatchLLM:
    """A language model behind OpenAI's Batch API. It costs half (`BATCH_PRICE`) and takes hours.

    Args:
        llm: the endpoint, with its model, key, journal, price and budget.
        poll_seconds: seconds between two requests for the status of a batch.
        max_wait_hours: hours to wait for one batch. When it takes longer, a later run can go on waiting.
        folder: folder of the notes of open batches; `batches` beside the journal when None.

    Raises:
        LLMError: an argument makes no sense.

    Example:
        >>> batch = BatchLLM(LLM("gpt-5-mini", api_key="my-key", price=(0.25, 2.0)), max_wait_hours=26)
        >>> batch.model
        'gpt-5-mini'
    """

    llm: LLM
    _: KW_ONLY
    poll_seconds: float = 30.0
    max_wait_hours: float = 26.0
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.poll_seconds > 0 or not self.max_wait_hours > 0:
            raise LLMError("poll_seconds and max_wait_hours must be above 0")

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

    @property
    def ahead(self) -> int:
        """How far a plan may run ahead of the oldest open question: a whole file."""
        return MAX_REQUESTS

    def with_journal(self, path: str | Path) -> BatchLLM:
        """Return a copy with another journal; it continues the same budget."""
        return replace(self, llm=self.llm.with_journal(path))

    def keep(self, keys: Sequence[str]) -> None:
        """Keep answers that were cut by the server after all, since something came of them."""
        self.llm.keep(keys)

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and return their answers in order; the options are those of `stream`."""
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
        """Yield the answers in order, once all questions that were sent together are answered.

        Args:
            list_of_messages: read up to a pause (a None) or the end into memory: these questions are sent together in
                as few files as possible, and answered before the next one is read.
            access: of the data in the messages; anything but "open" is refused.
            schema: JSON schema of the answer, where the endpoint supports it.
            samples, scope, progress, sampling: as in `LLM.chat`.
            ahead: the most questions sent together; None for no bound.

        Returns:
            An answer for each question. One that failed for good has status "error", with code "batch_expired" where
            three batches ended without it, "budget" where the worst case of its cost did not fit; it is asked again
            next time.

        Raises:
            EndpointError: the data is not open; nothing was sent.
            LLMError: the endpoint cannot be used, refuses the batch, or takes too long. Earlier answers are kept, and
                an open batch is found again.
            JournalError: the journal cannot be read or written.
            OutputError: the note of a batch cannot be read or written.
        """
        if access != "open":
            raise EndpointError(
                "the Batch API keeps the questions at the provider, so only open data may be sent through it, with or "
                "without an attestation; use LLM or LocalLLM for restricted and credentialed data"
            )
        sampling = asked_of(self.llm, sampling)
        check_sampling(sampling)
        total = len(list_of_messages) if isinstance(list_of_messages, Sequence) else None
        questions = with_keys(list_of_messages, samples, self.llm.key_facts(sampling, schema, scope))
        asking = _Asking(self, schema, sampling)
        return Stream(asking, self.llm.open_journal(), ahead=ahead, total=total, progress=progress).answers(questions)


class _Asking:
    """Collects what the journal lacks in one call of `stream`; the first answer that is needed sends all of it."""

    eager = False  # a pause takes one answer, so that later questions join the next batch

    def __init__(self, batch: BatchLLM, schema: Mapping[str, Any] | None, sampling: dict[str, Any]) -> None:
        self._batch, self._schema, self._sampling = batch, schema, sampling
        self._lacking: dict[str, Messages] = {}
        self._outcomes: dict[str, Entry | Answer] = {}

    def submit(self, key: str, messages: Messages) -> str:
        self._lacking[key] = messages
        return key

    def is_full(self) -> bool:
        return False

    def is_done(self, ticket: str) -> bool:
        return ticket in self._outcomes

    def outcome(self, ticket: str) -> Entry | Answer:
        if ticket not in self._outcomes:
            lacking, self._lacking = self._lacking, {}
            submission = _Submission(self._batch, self._schema, self._sampling, lacking)
            _run_in_thread(submission.run())
            entries = submission.none | self._batch.llm.open_journal().get_many(lacking)
            for key in lacking:
                if key in entries:
                    entry = entries[key]
                    self._outcomes[key] = Shared(*astuple(entry)) if key in submission.shared else entry
                else:
                    code = submission.failures[key].code
                    self._outcomes[key] = Answer("", "error", code, model=self._batch.model, journal_key=key)
        return self._outcomes.pop(ticket)


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop and a thread of its own, since a notebook has a running loop; an interrupt ends it."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[T]]] = []

    async def watched() -> T:
        running.append((asyncio.get_running_loop(), asyncio.ensure_future(work)))
        return await running[0][1]

    with ThreadPoolExecutor(1, thread_name_prefix="hf_synth-batch") as pool:
        future = pool.submit(asyncio.run, watched())
        try:
            return future.result()
        except BaseException:
            with suppress(RuntimeError, IndexError):  # the coroutine has ended by itself
                loop, task = running[0]
                loop.call_soon_threadsafe(task.cancel)
            raise


class _Submission:
    """Questions that the journal lacks: waits for open batches, sends the rest, and keeps the answers.

    Args:
        questions: messages by key.
    """

    def __init__(
        self, batch: BatchLLM, schema: Mapping[str, Any] | None, sampling: dict[str, Any], questions: dict[str, Any]
    ) -> None:
        self.shared: set[str] = set()  # answers that another process or call has paid for
        self.failures: dict[str, Failure] = {}
        self.none: dict[str, Entry] = {}  # answers that are none, which the journal does not hand on
        self._batch, self._llm, self._schema, self._sampling = batch, batch.llm, schema, sampling
        self._questions, self._journal, self._ledger = questions, batch.llm.open_journal(), batch.llm._ledger
        self._folder = batch.folder or self._journal.path.parent / "batches"
        self._answered: set[str] = set()
        self._plain: set[str] = set()  # questions without the schema, which the endpoint has refused
        self._reserved: dict[str, float] = {}
        self._provider: Provider

    async def run(self) -> None:
        """Ask until each question is answered or has failed for good; wait for questions leased by other owners."""
        self._provider = Provider(self._llm, self._batch.poll_seconds)
        owner = new_owner()
        heartbeat = asyncio.create_task(keep_renewing(self._journal, owner, _LEASE_SECONDS))
        left = list(self._questions)
        try:
            while left:
                granted, answers = claim(self._journal, left, owner, _LEASE_SECONDS)
                self.shared |= answers.keys()
                if granted:
                    await self._ask([key for key in left if key in granted])
                    release(self._journal, owner)  # those of questions that failed
                left = [key for key in left if key not in granted and key not in answers]
                if left and not granted:
                    await asyncio.sleep(min(1.0, self._batch.poll_seconds))
        finally:
            heartbeat.cancel()
            with suppress(JournalError):  # if the journal cannot be written, the end of this process ends them
                release(self._journal, owner)
            await self._provider.close()

    async def _ask(self, keys: list[str]) -> None:
        url = self._llm.origin.url
        before = [n for n in notes_in(self._folder) if n.endpoint == url and not set(keys).isdisjoint(n.keys)]
        if before:
            _LOG.info("%d batches of an earlier run are open at %s; waiting for their answers", len(before), url)
        await self._finish(before)
        for _ in range(_ROUNDS):
            if not (left := [key for key in keys if self._is_open(key)]):
                return
            await self._round(left)

    def _is_open(self, key: str) -> bool:
        return key not in self._answered and (key not in self.failures or self.failures[key].again)

    async def _round(self, keys: list[str]) -> None:
        """Send the questions whose worst case fits the budget, and wait for their answers."""
        notes = []
        try:
            for part, data in self._files([key for key in keys if self._reserve(key)]):
                notes.append(await self._send(part, data))
            await self._finish(notes)
        finally:
            for key in list(self._reserved):
                self._ledger.settle(self._reserved.pop(key), None)

    def _reserve(self, key: str) -> bool:
        """Reserve the most that a question may cost; return False where the budget is too small."""
        bound = provided_limit(self._sampling)
        amount = BATCH_PRICE * self._ledger.worst_case(
            self._questions[key], bound, None if key in self._plain else self._schema
        )
        if not self._ledger.reserve(amount):
            self.failures[key] = Failure("budget")
            return False
        self._reserved[key] = amount
        return True

    def _files(self, keys: list[str]) -> Iterator[tuple[list[str], bytes]]:
        """Yield the files to upload, each with the keys of its questions; a question too large for any has failed."""
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
        """Return the line of a question in a file: the request that `LLM` would send."""
        if self._schema is not None and self._ledger.plain:
            self._plain.add(key)
        rules = self._llm.manners.rules  # what the provider is known to take, or was learnt by an LLM
        schema = None if key in self._plain else self._schema
        body = {"model": self._llm.model, **request(rules, self._questions[key], self._asked(key), schema)}
        return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}

    def _asked(self, key: str) -> dict[str, Any]:
        """Return the sampling of a question."""
        sampling = {name: value for name, value in self._sampling.items() if value is not None}
        return sampling if "seed" in self._sampling else {**sampling, "seed": seed_of(key)}

    def _sent(self, key: str) -> str:
        """Return what was sent otherwise than the key of a question says."""
        return changes_as_json(self._llm.manners.rules, self._asked(key), self._schema)

    async def _send(self, keys: list[str], data: bytes) -> Note:
        """Upload a file and start its batch; each step is noted on disk before the next one."""
        url = self._llm.origin.url
        digest = sha256("\n".join([url, *sorted(keys)]).encode()).hexdigest()
        note = Note(self._folder / f"{digest}.json", url, tuple(sorted(keys)), uuid.uuid4().hex).keep()
        note = note.keep(file=await self._provider.upload(data))
        note = note.keep(batch=await self._provider.start(note, digest))
        _LOG.info("a batch of %d questions was sent to %s", len(keys), self._llm.origin)
        return note

    # --- answers ------------------------------------------------------------------------------------------------

    async def _finish(self, notes: list[Note]) -> None:
        """Wait for batches and keep their answers; a batch that fails does not stop the others."""
        errors = await asyncio.gather(*(self._wait(note) for note in notes), return_exceptions=True)
        for error in errors:
            if error is not None:
                raise error

    async def _wait(self, note: Note) -> None:
        if not note.batch:  # the process was killed before it sent the batch or knew its id
            batch = await self._provider.find(note) if note.file else None
            if batch is None:
                return note.forget()
            note = note.keep(batch=batch)
        until = time.monotonic() + 3600 * self._batch.max_wait_hours
        while (facts := await self._provider.look_at(note)).get("status") not in _ENDED:
            if (status := facts.get("status")) in _STATUSES and status != note.status:
                note = note.keep(status=str(status))
            if time.monotonic() > until:
                raise LLMError(
                    f"a batch at {self._llm.origin} has not ended after {self._batch.max_wait_hours:g} hours; "
                    "run again to go on waiting: nothing is paid for twice"
                )
            await asyncio.sleep(self._batch.poll_seconds)
        if facts["status"] == "failed":
            note.forget()
            raise LLMError(f"{self._llm.origin} refuses a batch as a whole ({_error_code(facts)}); nothing was paid")
        await self._merge(note, facts)
        return note.forget()

    async def _merge(self, note: Note, facts: dict[str, Any]) -> None:
        """Keep the answers of a batch that has ended, and the failures of its other questions."""
        keys = set(note.keys)
        failures: dict[str, Failure] = {}
        for name in ("output_file_id", "error_file_id"):
            if isinstance(file := facts.get(name), str) and file:
                await self._provider.call(note, lambda _, file=file: self._read(file, keys, failures))  # type: ignore[misc]
        missing = Failure("malformed" if facts["status"] == "completed" else "batch_expired", again=True)
        for key in keys & self._questions.keys() - self._answered:
            failure = failures.get(key, missing)
            if failure.code in ("http_400", "http_422") and self._schema is not None and key not in self._plain:
                self._plain.add(key)  # the endpoint may not support the schema
                failure = replace(failure, again=True)
            self.failures[key] = failure

    async def _read(self, file: str, keys: set[str], failures: dict[str, Failure]) -> None:
        """Read a file of answers line by line, in any order; lines of other or answered questions are skipped."""
        group: dict[str, Reply] = {}
        broken = 0
        async with aclosing(self._provider.lines(file)) as lines:
            async for line in lines:
                if (pair := _read_line(line, self._llm.model)) is None:
                    broken += 1
                elif (key := pair[0]) not in keys or key in group or key in self._answered:
                    continue
                elif isinstance(pair[1], Failure):
                    failures.setdefault(key, pair[1])
                else:
                    group[key] = pair[1]
                if len(group) >= _GROUP:
                    self._keep(group)
                    group = {}
        self._keep(group)
        if broken:
            _LOG.warning("%d lines of a batch cannot be read; questions without an answer are asked again", broken)

    def _keep(self, group: dict[str, Reply]) -> None:
        """Write answers to the journal, then settle their costs."""
        if not group:
            return
        known = self._journal.get_many(group)  # from a run that was killed while it read them
        costs = {}
        for key, reply in group.items():
            read, written = reply.prompt_tokens, reply.completion_tokens
            cost = self._ledger.cost(read or 0, written or 0)
            costs[key] = cost if cost is None else BATCH_PRICE * cost
            if None in (read, written) and self._ledger.budget is not None:
                costs[key] = self._reserved.get(key, costs[key])
        bounded = provided_limit(self._sampling) is not None
        new = {key: replace(r, sent=self._sent(key)) for key, r in group.items() if key not in known}
        entries = [mark_unanswered(reply.entry(key, costs[key]), bounded=bounded) for key, reply in new.items()]
        self._journal.put_many(entries)
        self.none |= {entry.key: entry for entry in entries if entry.status in NO_ANSWER}
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
        facts = json.loads(line)
        key, response = facts["custom_id"], facts.get("response")
        if not isinstance(key, str):
            return None
        if response is None:
            return key, Failure(_UNANSWERED.get(str(facts["error"]["code"]), "malformed"), again=True)
        status = int(response["status_code"])
        body = json.dumps(response.get("body")).encode()
        if status == 200:
            reply = read_reply(body, model)
        elif 100 <= status < 600:  # of the error its code alone is read, since the message may repeat the prompt
            kind = failure_kind(status, (error_code(body) or "").encode())
            reply = Failure(f"http_{status}", status in AGAIN or status >= 500, kind=kind)
        else:
            return None
        declined = isinstance(reply, Failure) and reply.kind == "refusal"  # an answer like any other: it is kept
        return key, Reply("", "refusal", reply.code, 0, 0, model) if declined else reply
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _error_code(facts: Mapping[str, Any]) -> str:
    """Return the code of a batch's first error, where it looks like a word of the protocol."""
    try:
        code = facts["errors"]["data"][0]["code"]
    except (KeyError, IndexError, TypeError):
        code = None
    return code if isinstance(code, str) and re.fullmatch(r"[a-z][a-z_]{1,39}", code) else "no code given"
