"""Client for OpenAI-compatible chat completion endpoints: concurrent, cached in the journal, within a budget.

This is the only module that imports openai. An answer is returned only when the journal has it on disk, so that nothing
is paid for twice. The event loop runs in a thread of its own, so that it works in a notebook too.

Messages of an endpoint are never logged or put into an error, since they may repeat the prompt: only the status and a
short code are.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from hf_synth import __version__
from hf_synth.errors import LLMError
from hf_synth.llm import endpoints
from hf_synth.llm.calls import Outcome, Run
from hf_synth.llm.commits import take_back
from hf_synth.llm.connections import UNASKED
from hf_synth.llm.gguf_files import Weights
from hf_synth.llm.identity import Server, introduce, note_server
from hf_synth.llm.journal import Entry, Journal, default_journal
from hf_synth.llm.learning import MOST
from hf_synth.llm.ledger import PRICES, Ledger, Price
from hf_synth.llm.local_server import LlamaServer, connections, local_server
from hf_synth.llm.manners import MOST_RULES, FirstQuestion, Manners, Refusal, changes_as_json, provided_limit, request
from hf_synth.llm.providers import Provider, chat_url, key_headers, key_of, plain_key, provider_of
from hf_synth.llm.questions import Answer, Messages, Question, asked_of, check_sampling, seed_of, with_keys
from hf_synth.llm.refused import Rules
from hf_synth.llm.replies import Failure, Reply, read_limits, read_reply
from hf_synth.llm.statuses import read_failure
from hf_synth.llm.stream import Stream, Tally
from hf_synth.reports.progress import mention, shown
from hf_synth.task.columns import Access

_AGENT = f"hf_synth/{__version__}"
_AHEAD = 1_024
_PATIENCE = 5.0  # seconds for what a server says of itself


@dataclass(frozen=True, eq=False)
class LLM:
    """A chat endpoint with OpenAI's protocol. Creating an LLM opens no connection.

    Args:
        model: the model's name at the endpoint.
        base_url: e.g. "http://127.0.0.1:8000/v1"; OPENAI_BASE_URL, or else OpenAI's own, when None.
        api_key: when None, OPENAI_API_KEY for OpenAI's hosts and for OPENAI_BASE_URL, a known provider's own variable
            for its hosts (`providers.py`, e.g. HF_TOKEN), and no key for other endpoints.
        concurrency: most requests in flight of one `chat`; None to learn how many the server works on at once, from
            what it says or from how long its answers take.
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
        sampling: sampling parameters of every question, in the place of those that the question asks for; None leaves
            one out. What the endpoint refuses of the sampling is left out anyway (`manners.py`).

    Raises:
        LLMError: an argument makes no sense.

    Example:
        >>> llm = LLM("my-model", base_url="http://127.0.0.1:8000/v1", journal="work/journal.sqlite")
        >>> llm.model
        'my-model'
    """

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int | None = None
    journal: str | Path | None = None
    budget_usd: float | None = None
    price: Price | None = None
    timeout: float = 120.0
    max_retries: int = 6
    attestation: endpoints.Attestation | None = None
    rpm: float | None = None
    tpm: float | None = None
    hedge: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    _manners: Manners | None = field(init=False, repr=False, default=None)
    _ledger: Ledger = field(init=False, repr=False)
    _opened: Journal | None = field(init=False, repr=False, default=None)
    _server: LlamaServer | None = field(init=False, repr=False, default=None)
    _access: Access = field(init=False, repr=False, default="open")  # of a server of this process, also in a pickle
    _runs: weakref.WeakSet[Run] = field(init=False, repr=False, default_factory=weakref.WeakSet)
    _about: Server | None = field(init=False, repr=False, default=None)  # what it says of itself, asked once

    def __post_init__(self) -> None:
        if (
            not self.model
            or (self.concurrency is not None and self.concurrency < 1)
            or self.timeout <= 0
            or self.max_retries < 0
        ):
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
        check_sampling(self.sampling)
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
            access = server.weights.access
            llm = cls(server.weights.name, server.url, server.key, **how)
        except BaseException:
            server.close()
            raise
        object.__setattr__(llm, "_server", server)
        object.__setattr__(llm, "_access", access)
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
    def access(self) -> Access:
        """The access that is recorded of the file that `local_gguf` serves (`LocalLLM.access`); open for any other."""
        return self._access

    @property
    def weights(self) -> Weights | None:
        """The file that answers, where `local_gguf` made this LLM."""
        return None if self._server is None else self._server.weights

    def __reduce__(self) -> tuple[Any, ...]:
        return LLM, tuple(getattr(self, f.name) for f in fields(self) if f.init), {"_access": self._access}

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
    def provider(self) -> Provider:
        """What is known of the endpoint beforehand (`providers.PROVIDERS`)."""
        return provider_of(self.origin, self.model)

    @property
    def manners(self) -> Manners:
        """What the endpoint takes of a request, known or learnt."""
        if self._manners is None:
            folder = self.open_journal().path.parent / "endpoints"
            stated = {name for name, value in self.sampling.items() if value is not None}
            known = {name: rule for name, rule in self.provider.rules.items() if name not in stated}
            url = self.origin.url if self._server is None else "llama.cpp on this machine"  # its port changes
            manners = Manners(self._where, url, self.model, known, folder)
            object.__setattr__(self, "_manners", manners)
        assert self._manners is not None
        return self._manners

    @property
    def spent_usd(self) -> float:
        """What this LLM has spent in this process, in US dollars, as far as prices are known."""
        return self._ledger.spent

    @property
    def ahead(self) -> int:
        """How far a plan may run ahead of the oldest open question."""
        return _AHEAD

    def with_journal(self, path: str | Path | None, ledger: Ledger | None = None) -> LLM:
        """Return a copy with another journal; it continues the same budget, or that of a ledger."""
        other = replace(self, journal=path)
        object.__setattr__(other, "_ledger", ledger or self._ledger)
        object.__setattr__(other, "_server", self._server)
        object.__setattr__(other, "_access", self._access)
        return other

    def halt(self) -> None:
        """Send nothing more in the streams that are open, from any thread: each ends with an error."""
        for run in list(self._runs):
            run.halt()

    def keep(self, keys: Sequence[str]) -> None:
        """Keep answers that were cut by the server after all, since something came of them."""
        self.open_journal().accept(keys)

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
            progress: show the progress, with failures and time-outs.
            sampling: sampling parameters of the endpoint. Each question has its own `seed` (from its key) unless one
                is given here; `seed=None` sends none.

        Returns:
            An answer for each question. One that failed for good has status "error"; it is asked again next time. Where
            the call is interrupted, answers under way are awaited for `timeout`, at most 25 s, and kept in the journal;
            a second interrupt drops them.

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
        sampling = asked_of(self, sampling)
        check_sampling(sampling)
        total = len(list_of_messages) if isinstance(list_of_messages, Sequence) else None
        with ExitStack() as stack:
            stack.enter_context(shown(progress))
            mention(f"asking {self.model}" if self._server else f"asking {self.model} at {self._where}")
            asking = _Asking(self, access, schema, sampling, stack)
            questions = with_keys(list_of_messages, samples, self.key_facts(sampling, schema, scope))
            stream = Stream(
                asking, asking.journal, ahead=ahead, total=total, progress=progress, local=self._server is not None
            )
            yield from stream.answers(questions)
            asking.finish(stream.tally)
        if asking.wire is not None and asking.wire.unasked:
            raise LLMError(UNASKED.format(self._where))

    def key_facts(self, sampling: Mapping[str, Any], schema: Mapping[str, Any] | None, scope: str) -> list[Any]:
        """Return what is a part of every key beside the messages (`questions.with_keys`)."""
        return [self.model, asked_of(self, sampling), schema, scope]

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


class _Asking:
    """Asks what the journal lacks in one call of `stream`; the first question starts the requests."""

    eager = True

    def __init__(
        self, llm: LLM, access: str | None, schema: Mapping[str, Any] | None, sampling: dict[str, Any], stack: ExitStack
    ) -> None:
        self._llm, self._access, self._schema, self._sampling, self._stack = llm, access, schema, sampling, stack
        self.journal = llm.open_journal()
        self._run: Run | None = None
        self.wire: Wire | None = None

    def submit(self, key: str, messages: Messages) -> Future[Outcome]:
        return self._start().submit(key, messages)

    def is_full(self) -> bool:
        return False  # `submit` waits

    def is_done(self, ticket: Future[Outcome]) -> bool:
        return ticket.done()

    def outcome(self, ticket: Future[Outcome]) -> Entry | Answer:
        assert self._run is not None
        outcome = self._run.result(ticket)
        if isinstance(outcome, Entry):
            return outcome
        return Answer("", "error", outcome.code, model=self._llm.model, journal_key=outcome.key)

    def finish(self, tally: Tally) -> None:
        """Note what the server says of itself; raise when it answered no question."""
        url, about = self._llm.origin.url, self._run.about if self._run else Server()
        if self._run is not None and about.served:
            object.__setattr__(self._llm, "_about", Server(about.says, about.slots))
        note_server(self.journal, self._llm.model, url, about, cached=tally.cached)
        codes = set(tally.failures or ())
        if self._run is None or not codes or tally.failures.total() < tally.answers:  # type: ignore[union-attr]
            return
        if codes <= {"unreachable", "connection"}:
            raise LLMError(f"cannot reach {self._llm._where}: connections break off; check that the server is running")
        if cause := self._run.cause_of_all:
            raise LLMError(cause)

    def _start(self) -> Run:
        if self._run is None:
            llm, wire = self._llm, Wire(self._llm, self._access, self._sampling)
            self.wire = wire
            self._run = Run(
                wire,
                where=llm._where,
                model=llm.model,
                timeout=llm.timeout,
                max_retries=llm.max_retries,
                max_tokens=provided_limit(self._sampling),
                schema=self._schema,
                ledger=llm._ledger,
                journal=self.journal,
                pace=llm._ledger.pace(llm.concurrency, rpm=llm.rpm, tpm=llm.tpm, timeout=llm.timeout),
                hedge=llm.hedge,
            )
            llm._runs.add(self._run)
            self._stack.callback(self._run.close)
            if llm._about is not None:
                self._run.know(llm._about)
            elif wire.is_local:
                self._run.introduce(lambda: introduce(wire.get, llm.model))
        return self._run


class Wire:
    """Chat requests over the guarded line, and openai's client over the same line."""

    def __init__(self, llm: LLM, access: str | None, sampling: dict[str, Any]) -> None:
        origin = llm.origin
        addresses = endpoints.check_endpoint(origin, access, llm.attestation)
        ours = endpoints.may_see_settings(origin)
        provider = llm.provider
        key = llm.api_key or (os.environ.get("OPENAI_API_KEY") if ours else None) or key_of(provider, origin)
        if key is None and provider.key_variables:
            variables = " or ".join(provider.key_variables)
            raise LLMError(f"there is no API key for {provider.name}; set {variables}, or pass LLM(api_key=...)")
        patience = min(10.0, llm.timeout)
        most, reuse = llm.concurrency or MOST, llm.manners.reuse
        line = endpoints.Line(origin, addresses, connections=most, connect_timeout=patience, reuse=reuse)
        self._key, self._ours = plain_key(key or "") or "none", ours
        self._llm, self._origin, self._line = llm, origin, line
        self.is_local = endpoints.is_local_host(origin.host) or (
            bool(addresses) and all(map(endpoints.is_local, addresses or ()))
        )
        self._url = chat_url(provider, origin, llm.model)
        own = {**key_headers(provider, self._key), "Accept-Encoding": "identity"}
        self._headers = {**own, **endpoints.settings_headers()} if ours else own
        self._headers |= {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": _AGENT}
        self._seeded = "seed" not in sampling
        self._sampling = {name: value for name, value in sampling.items() if value is not None}
        self._provider = provider
        self._first = FirstQuestion(llm.timeout, near=origin.host in ("localhost", "127.0.0.1", "::1"))

    @cached_property
    def client(self) -> Any:
        """openai's client over the same line, for the Batch API; importing it takes longer than all the rest."""
        import httpx2
        import openai

        transport = endpoints.guarded_transport(self._line)
        timeout = self._llm.timeout
        http = httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=timeout)
        client = openai.AsyncOpenAI(
            api_key=self._key, base_url=self._origin.url, max_retries=0, timeout=timeout, http_client=http
        )
        if not self._ours:  # OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_ADMIN_KEY and OPENAI_CUSTOM_HEADERS
            client.organization = client.project = client.admin_api_key = None
            client._custom_headers = {}
        return client

    def halt(self) -> None:
        """Send nothing more."""
        self._line.halt()

    async def close(self) -> None:
        """Close every connection; take answers back that may be to other questions."""
        await self._line.close()
        if self.unasked:
            self._llm.manners.isolate()
            take_back(self._llm.open_journal(), self.unasked)

    @property
    def unasked(self) -> list[str]:
        """The keys of questions whose answers may be to other questions."""
        return self._line.unasked

    async def get(self, path: str) -> Any:
        """Return the JSON at a path beside base_url, or beside its "/v1" when it begins with a slash; else None."""
        try:
            status, content = await self.fetch(path)
            return json.loads(content) if status == 200 else None
        except (endpoints.LineError, ValueError, RecursionError):
            return None

    async def fetch(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a path, as for `get`.

        Raises:
            LineError: there is no response.
        """
        url = f"{self._origin.url.removesuffix('/v1')}{path}" if path[0] == "/" else f"{self._origin.url}/{path}"
        status, _, content = await self._line.send("GET", url, self._headers, None, _PATIENCE)
        return status, content

    async def ask(self, key: str, messages: Any, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Send one question once; what the endpoint refuses of its fields is learnt, and the question sent again."""
        manners = self._llm.manners
        sampling = {**self._sampling, "seed": seed_of(key)} if self._seeded else self._sampling
        alone: Rules = {}
        self._line.open()
        first = await self._first.enter(manners)
        try:
            failure = Failure("http_400")
            for _ in range(MOST_RULES):
                rules = {**manners.rules, **alone}
                body = {"model": self._llm.model, **request(rules, messages, sampling, schema)}
                outcome = await self._send(key, body)
                if isinstance(outcome, Reply):
                    manners.accept(body)
                    return replace(outcome, sent=changes_as_json(rules, sampling, schema))
                if not isinstance(outcome, Refusal):
                    return outcome
                failure = outcome.failure
                if (learnt := manners.learn(outcome.rules, body, alone, sure=outcome.sure)) is None:
                    break
                alone = learnt
                if first:
                    self._first.sent()
            return failure
        finally:
            if first:
                self._first.leave()

    async def _send(self, key: str, body: Mapping[str, Any]) -> Reply | Failure | Refusal:
        """Send one request."""
        try:
            # not through openai's client: its CPU time would be four times the rest
            data = json.dumps(body, ensure_ascii=False).encode()
            status, raw, content = await self._line.send("POST", self._url, self._headers, data, self._llm.timeout, key)
        except endpoints.LineError as error:
            fatal = UNASKED.format(self._llm._where) if error.code == "unasked" else None
            return Failure(error.code, again=True, fatal=fatal)
        except UnicodeError:
            return Failure("not_text")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
        plain = endpoints.decompress(content, headers.get("content-encoding", "").strip().lower())
        if 200 <= status < 300:
            reply = Failure("malformed", again=True) if plain is None else read_reply(plain, self._llm.model)
            if isinstance(reply, Reply) or not reply.code.startswith("http_"):
                return replace(reply, limits=limits) if (limits := read_limits(headers)) else reply
            status = int(reply.code.removeprefix("http_"))  # a gateway's error, which came with status 200
        failure = read_failure(self._origin, self._provider, status, headers, plain or b"", body)
        return failure if failure.kind else self._llm.manners.suspect(failure, status, plain or b"", body)
