"""Client for OpenAI-compatible chat completion endpoints: concurrent, cached in the journal, within a budget.

This is the only module that imports openai. `chat` asks many questions at once and returns the answers in order. It
keeps `concurrency` requests in flight, retries in place, and returns an answer only when the journal has it on disk, so
that nothing is paid for twice. Its event loop runs in a thread of its own, so that it works in a notebook too.

Messages of an endpoint are never logged or put into an error, since they may repeat the prompt: only the status and a
short code are.
"""

from __future__ import annotations

import json
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hf_synth.errors import LLMError
from hf_synth.llm import endpoints
from hf_synth.llm.calls import Ledger, Outcome, Run
from hf_synth.llm.gguf_files import Weights
from hf_synth.llm.journal import Journal, Shared, default_journal
from hf_synth.llm.local_server import LlamaServer, connections, local_server
from hf_synth.llm.pacing import Pace
from hf_synth.llm.questions import Answer, Messages, Question, answer_of, check_sampling, chunks, seed_of, with_keys
from hf_synth.llm.replies import Failure, Reply, error_code, read_limits, read_reply, retry_after

Price = tuple[float, float]
Ticket = Answer | Future[Outcome]


def _known_prices() -> dict[str, Price]:
    prices = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
    return {model: (read, written) for model, (read, written) in prices["usd_per_million_tokens"].items()}


PRICES = _known_prices()  # US dollars for 1 million tokens read and written
_AHEAD = 1_024
_LOOK_UP_FIRST, _LOOK_UP = 8, 256  # questions looked up in the journal at once: at first, and at most


@dataclass(frozen=True, eq=False)
class LLM:
    """A chat endpoint with OpenAI's protocol. Creating an LLM opens no connection.

    Args:
        model: the model's name at the endpoint.
        base_url: e.g. "http://127.0.0.1:8000/v1"; OPENAI_BASE_URL, or else OpenAI's own, when None.
        api_key: when None, OPENAI_API_KEY for OpenAI's hosts and for OPENAI_BASE_URL, and no key for other endpoints.
        concurrency: most requests in flight of one `chat`.
        journal: file that keeps the answers; `.hf_synth/journal.sqlite` in the working folder when None.
        budget_usd: the most that this LLM may spend in this process. It holds to the cent when `max_tokens` is given,
            which bounds the cost of an answer in flight.
        price: US dollars for 1 million tokens (read, written); from `PRICES` when None.
        timeout: seconds for one attempt.
        max_retries: retries of one question after failures; four times as many after rate limits (429).
        attestation: allows notes that are not open at the endpoint that it names, outside the own network.
        rpm: requests a minute that the endpoint allows; learnt from its headers and refusals when None.
        tpm: tokens a minute that it allows, read and written.
        hedge: ask a question again when its answer takes three times as long as usual, and use the first answer. It
            pays twice, so it is allowed only for an endpoint on this machine or with price=(0, 0).

    Raises:
        LLMError: an argument makes no sense.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 64
    journal: str | Path | None = None
    budget_usd: float | None = None
    price: Price | None = None
    timeout: float = 120.0
    max_retries: int = 6
    attestation: endpoints.Attestation | None = None
    rpm: float | None = None
    tpm: float | None = None
    hedge: bool = False
    _ledger: Ledger = field(init=False, repr=False)
    _opened: Journal | None = field(init=False, repr=False, default=None)
    _server: LlamaServer | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if not self.model or self.concurrency < 1 or self.timeout <= 0 or self.max_retries < 0:
            raise LLMError("an LLM needs a model, concurrency of at least 1, a positive timeout and max_retries >= 0")
        if self.budget_usd is not None and self._price is None:
            raise LLMError(
                f"the price of {self.model!r} is unknown; with a budget pass price=(usd per 1M tokens read, written)"
            )
        if any(limit is not None and not limit > 0 for limit in (self.rpm, self.tpm)):
            raise LLMError("rpm and tpm (requests and tokens a minute) must be above 0")
        if self.base_url is not None:
            endpoints.parse_origin(self.base_url)
        if self.hedge and self.price != (0, 0) and self.origin.host not in ("localhost", "127.0.0.1", "::1"):
            raise LLMError("hedge pays twice; use it for an endpoint on this machine, or with price=(0, 0)")
        if self.hedge and self.budget_usd is not None:
            raise LLMError("hedge cannot be combined with a budget, since it pays twice; use one of them")
        object.__setattr__(self, "_ledger", Ledger(self.budget_usd, self._price))

    @classmethod
    def local_gguf(
        cls,
        model: str | Path,
        *,
        slots: int | None = None,
        context: int | None = None,
        threads: int | None = None,
        **options: Any,
    ) -> LLM:
        """Start llama.cpp's server with a GGUF file on this machine, and return an LLM that asks it.

        The server listens on the loopback address and asks for a key of its own. It ends with `close` (or at the end
        of a `with` block), with the LLM, and with this process. Notes of any access may be sent to it. The journal
        knows the answers by the digest of the file, not by its path or the port. A question that states no sampling is
        answered at temperature 0.8 with top_k 40, top_p 0.95 and min_p 0.05; one without max_tokens gets at most 1,024.

        Args:
            model: path of the file, or the short name of one that comes with a package: "smollm2".
            slots: answers written at the same time; 4 for each core, as far as memory allows, when None.
            context: tokens of one question and its answer; 4,096, or what the model can read if that is less, when
                None.
            threads: of the server; one for each core that other programs leave free when None.
            options: journal, timeout (600 seconds unless given), concurrency (2 for each slot unless given, at most 4),
                max_retries and other arguments of an LLM.

        Raises:
            LLMError: there is no such file, a package is missing, or the server does not start.
        """
        server = local_server(model, slots=slots, context=context, threads=threads)
        how = {"timeout": 600.0, "price": (0.0, 0.0), **options}
        how["concurrency"] = connections(server.slots, options.get("concurrency"))
        try:
            llm = cls(server.weights.name, server.url, server.key, **how)
        except BaseException:
            server.close()
            raise
        object.__setattr__(llm, "_server", server)
        return llm

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server that `local_gguf` started; an LLM of another endpoint has nothing to close."""
        if self._server is not None:
            self._server.close()

    @property
    def weights(self) -> Weights | None:
        """The file that answers, where `local_gguf` made this LLM."""
        return None if self._server is None else self._server.weights

    def __reduce__(self) -> tuple[Any, ...]:
        return LLM, tuple(getattr(self, f.name) for f in fields(self) if f.init)

    @property
    def _price(self) -> Price | None:
        return self.price or PRICES.get(self.model)

    @property
    def origin(self) -> endpoints.Origin:
        """Scheme, host, port and path of the endpoint."""
        return endpoints.parse_origin(self.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1")

    @property
    def _where(self) -> str:
        """The endpoint, as messages name it."""
        return str(self.origin) if self._server is None else f"the server of {self.model} that this process started"

    @property
    def spent_usd(self) -> float:
        """What this LLM has spent in this process, in US dollars, as far as prices are known."""
        return self._ledger.spent

    @property
    def ahead(self) -> int:
        """How far a plan may run ahead of the oldest open question."""
        return _AHEAD

    def with_journal(self, path: str | Path) -> LLM:
        """Return a copy with another journal; it continues the same budget."""
        other = replace(self, journal=path)
        object.__setattr__(other, "_ledger", self._ledger)
        object.__setattr__(other, "_server", self._server)
        return other

    # --- questions ----------------------------------------------------------------------------------------------

    def chat(
        self,
        list_of_messages: Iterable[Messages | Question],
        *,
        access: str | None = None,
        schema: Mapping[str, Any] | None = None,
        samples: Iterable[int] | None = None,
        scope: str = "",
        progress: bool = False,
        **sampling: Any,
    ) -> list[Answer]:
        """Ask all questions and return their answers in order.

        Args:
            list_of_messages: the messages of each question, as {"role": ..., "content": ...}.
            access: of the notes in the messages; None counts as credentialed: local endpoints only.
            schema: JSON schema of the answer, where the endpoint supports it.
            samples: a number for each question; equal messages with different numbers are different questions. When
                None, how often the same messages occurred before in this call.
            scope: another part of the journal's key, e.g. the fingerprint of a task.
            progress: show a progress bar.
            sampling: sampling parameters of the endpoint. Each question has its own `seed` (from its key) unless one
                is given here; `seed=None` sends none.

        Returns:
            An answer for each question. One that failed for good has status "error"; it is asked again next time.

        Raises:
            EndpointError: the notes may not be sent to this endpoint; nothing was sent.
            LLMError: the endpoint cannot be used (unreachable, wrong key, unknown model). Earlier answers are kept.
            JournalError: the journal cannot be read or written.
        """
        options: dict[str, Any] = {"access": access, "schema": schema, "samples": samples, "scope": scope}
        return list(self.stream(list_of_messages, progress=progress, ahead=None, **options, **sampling))

    def stream(
        self,
        list_of_messages: Iterable[Messages | Question | None],
        *,
        access: str | None = None,
        schema: Mapping[str, Any] | None = None,
        samples: Iterable[int] | None = None,
        scope: str = "",
        progress: bool = False,
        ahead: int | None = 4096,
        **sampling: Any,
    ) -> Iterator[Answer]:
        """Yield the answers in order as they arrive, in bounded memory; the other arguments are those of `chat`.

        Args:
            list_of_messages: read as far ahead as needed; may be a generator. A None among them is a pause: the oldest
                open question is answered before the next one is read.
            ahead: how many questions may follow the oldest open one; None for no bound.
        """
        check_sampling(sampling)
        from tqdm import tqdm

        waiting: deque[tuple[str, Ticket]] = deque()
        total = len(list_of_messages) if isinstance(list_of_messages, Sequence) else None
        with ExitStack() as stack:
            bar = stack.enter_context(tqdm(total=total, disable=not progress, unit="answer", desc=self.model))
            call = _ChatCall(self, access, schema, sampling, stack)
            questions = with_keys(list_of_messages, samples, [self.model, sampling, schema, scope])
            for chunk, pause in chunks(questions, _LOOK_UP_FIRST, _LOOK_UP):
                for ticket in call.tickets(chunk):
                    waiting.append(ticket)
                    while waiting and (_is_ready(waiting[0][1]) or (ahead is not None and len(waiting) >= ahead)):
                        yield call.answer(*waiting.popleft())
                        bar.update()
                if pause and waiting:
                    yield call.answer(*waiting.popleft())
                    bar.update()
            while waiting:
                yield call.answer(*waiting.popleft())
                bar.update()
            call.check_all_failed()

    def open_journal(self) -> Journal:
        """Open the journal once for this LLM, and record the attestation in it; it is closed with the LLM."""
        journal = self._opened
        if journal is None:
            journal = Journal(self.journal if self.journal is not None else default_journal())
            weakref.finalize(self, journal.close)
            object.__setattr__(self, "_opened", journal)
            if self.attestation is not None and self.attestation.covers(self.origin):
                statement = json.dumps(vars(self.attestation), sort_keys=True)
                journal.record(f"attestation {sha256(statement.encode()).hexdigest()[:12]}", statement)
        return journal


def _is_ready(ticket: Ticket) -> bool:
    return isinstance(ticket, Answer) or ticket.done()


class _ChatCall:
    """One call of `chat`: answers come from the journal; the first question that it lacks starts the requests."""

    def __init__(
        self, llm: LLM, access: str | None, schema: Mapping[str, Any] | None, sampling: dict[str, Any], stack: ExitStack
    ) -> None:
        self._llm, self._access, self._schema, self._sampling, self._stack = llm, access, schema, sampling, stack
        self._journal = llm.open_journal()
        self._run: Run | None = None
        self._futures: dict[str, Future[Outcome]] = {}
        self._codes: set[str] = set()

    def tickets(self, chunk: Sequence[tuple[str, Messages]]) -> Iterator[tuple[str, Ticket]]:
        """Yield the key of each question with its answer, or with the future of one."""
        futures = {key: self._futures[key] for key, _ in chunk if key in self._futures}
        entries = self._journal.get_many(key for key, _ in chunk if key not in futures)
        for key, messages in chunk:
            if key in entries:
                yield key, answer_of(entries[key], cached=True)
                continue
            if key not in futures:
                futures[key] = self._futures[key] = self._start().submit(key, messages)
                futures[key].add_done_callback(lambda _, key=key: self._futures.pop(key, None))  # type: ignore[misc]
            yield key, futures[key]

    def answer(self, key: str, ticket: Ticket) -> Answer:
        """Wait for an answer."""
        if isinstance(ticket, Answer):
            self._codes.add("")
            return ticket
        assert self._run is not None
        outcome = self._run.result(ticket)
        if isinstance(outcome, Failure):
            self._codes.add(outcome.code)
            return Answer("", "error", outcome.code, model=self._llm.model, journal_key=key)
        self._codes.add("")
        return answer_of(outcome, cached=isinstance(outcome, Shared))

    def check_all_failed(self) -> None:
        """Raise when no question reached the endpoint."""
        if self._codes and self._codes <= {"unreachable", "connection"}:
            raise LLMError(f"cannot reach {self._llm._where}: connections break off; check that the server is running")

    def _start(self) -> Run:
        if self._run is None:
            llm, wire = self._llm, Wire(self._llm, self._access, self._sampling)
            bound = self._sampling.get("max_completion_tokens") or self._sampling.get("max_tokens")
            self._run = Run(
                wire.ask,
                wire.client.close,
                where=llm._where,
                concurrency=llm.concurrency,
                timeout=llm.timeout,
                max_retries=llm.max_retries,
                max_tokens=int(bound) if bound else None,
                schema=self._schema,
                ledger=llm._ledger,
                journal=self._journal,
                pace=Pace(llm.concurrency, rpm=llm.rpm, tpm=llm.tpm),
                hedge=llm.hedge,
            )
            self._stack.callback(self._run.close)
        return self._run


class Wire:
    """openai's client over the guarded transport."""

    def __init__(self, llm: LLM, access: str | None, sampling: dict[str, Any]) -> None:
        origin = llm.origin
        addresses = endpoints.check_endpoint(origin, access, llm.attestation)
        ours = endpoints.may_see_settings(origin)
        key = llm.api_key or (os.environ.get("OPENAI_API_KEY") if ours else None)
        if key is None and endpoints.is_openai(origin):
            raise LLMError("there is no API key; set OPENAI_API_KEY or pass LLM(api_key=...)")
        import httpx2
        import openai

        patience = min(10.0, llm.timeout)
        line = endpoints.Line(origin, addresses, connections=llm.concurrency, connect_timeout=patience)
        transport = endpoints.guarded_transport(line)
        http = httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=llm.timeout)
        self.client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=origin.url, max_retries=0, timeout=llm.timeout, http_client=http
        )
        if not ours:  # OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_ADMIN_KEY and OPENAI_CUSTOM_HEADERS
            self.client.organization = self.client.project = self.client.admin_api_key = None
            self.client._custom_headers = {}
        self._llm, self._origin, self._line = llm, origin, line
        self._url = f"{origin.url}/chat/completions"
        headers = {**self.client.default_headers, **self.client.auth_headers, "Accept-Encoding": "identity"}
        self._headers = {name: value for name, value in headers.items() if isinstance(value, str)}
        self._seeded = "seed" not in sampling
        self._sampling = {name: value for name, value in sampling.items() if value is not None}

    async def ask(self, key: str, messages: Any, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Send one question once."""
        body: dict[str, Any] = {"model": self._llm.model, "messages": messages, **self._sampling}
        if self._seeded:
            body["seed"] = seed_of(key)
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        try:
            # not through openai's client, which has made the headers: its CPU time would be four times the rest
            data = json.dumps(body, ensure_ascii=False).encode()
            status, raw, content = await self._line.send("POST", self._url, self._headers, data, self._llm.timeout)
        except endpoints.LineError as error:
            return Failure(error.code, again=True)
        except UnicodeError:
            return Failure("not_text")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
        plain = endpoints.decompress(content, headers.get("content-encoding", "").strip().lower())
        if not 200 <= status < 300:
            return self._failure(status, headers, plain or b"")
        reply = Failure("malformed", again=True) if plain is None else read_reply(plain, self._llm.model)
        return replace(reply, limits=limits) if (limits := read_limits(headers)) else reply

    def _failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """Classify an HTTP status; the message is not read, since it may repeat the prompt."""
        where = self._origin
        messages = {
            401: f"{where} refuses the key (401); check api_key, or OPENAI_API_KEY with OPENAI_BASE_URL beside it",
            403: f"{where} does not allow this (403); check the key's rights and the model",
            404: f"{where} does not know model {self._llm.model!r} or base_url's path (404)",
        }
        fatal = messages.get(status)
        if 300 <= status < 400:
            fatal = f"{where} redirects elsewhere ({status}), which is not followed; check base_url"
        if status == 429 and error_code(body) == "insufficient_quota":
            fatal = f"{where} says that the account's quota is spent (429); raise it or use another key"
        again = status in (408, 409, 429) or status >= 500
        return Failure(f"http_{status}", again, retry_after(headers), fatal, read_limits(headers))
