"""Concurrent LLM requests: retries with backoff, hedging, budget, circuit breaker, group commits to the journal.

A `Run` knows no protocol: its `Asker` sends one question and returns a `Reply` or a `Failure`. The event loop runs in a
thread of its own; the caller's thread submits a bounded number of questions ahead. A key is leased before its question
enters the queue, so that one of several processes pays. An answer is committed before the caller gets it; answers that
arrive during a commit go together into the next one. A run that is stopped sends nothing more, and waits a bounded time
for the answers that are under way: the server writes them anyway, and they are paid for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hf_synth.errors import HfSynthError, LLMError
from hf_synth.llm import pacing
from hf_synth.llm.commits import LAST_ANSWERS, Commits, await_last, close_at_exit, current_task
from hf_synth.llm.identity import Server
from hf_synth.llm.journal import Entry, Journal, mark_unanswered
from hf_synth.llm.leases import Leases
from hf_synth.llm.ledger import ROUNDING, Ledger
from hf_synth.llm.pacing import Pace
from hf_synth.llm.questions import Messages
from hf_synth.llm.replies import CAUSES, UNREACHED, Asker, Failure, Reply, advice_on, why_unreached

_LOG = logging.getLogger(__name__)
_BACKOFF, _LONGEST_BACKOFF = 0.25, 8.0  # seconds before the second attempt, doubled up to the longest
_SLOW = 3.0  # times the usual duration after which a hedged question is asked again
_TRIES_AT_FIRST = 3  # retries before the first connection: most likely nothing listens there
_INTRODUCTION_SECONDS = 0.5  # for what a server says of itself, after its last answer
_NAMES = 20  # names of the model, and fingerprints, that are noted of a server
_GIVE_UP = 16  # questions in a row that fail for good
_LOADING_MINUTES = 10.0  # how long a server may take to load its model
_LOADING_PAUSE = 1.0, 10.0  # seconds between two questions to a server that is loading: at first, and at most
_HUNG = 8  # questions that timed out to the last try, before any answer: the others would, too
_PAGES = 4  # questions answered by a web page, before any answer: there is no LLM
_DOUBTS = 2  # questions that fail with a schema and not without it: the endpoint takes no schema
_USUAL_WRITTEN = 512  # tokens of an answer, before the first one
_DROPPED = 1.0  # seconds in which a run ends that waits for nothing


@dataclass(frozen=True)
class Unanswered:
    """A question that failed for good, with its code."""

    key: str
    code: str


Outcome = Entry | Unanswered


class Run:
    """One run over many questions.

    Args:
        asker: sends the questions; it is closed at the end.
        where: name of the endpoint in errors.
        model: name of the model, for what is kept of a refusal.
        max_tokens: the limit of an answer's tokens, if there is one.
    """

    def __init__(
        self,
        asker: Asker,
        *,
        where: str,
        model: str,
        timeout: float,
        max_retries: int,
        max_tokens: int | None,
        schema: Mapping[str, Any] | None,
        ledger: Ledger,
        journal: Journal,
        pace: Pace,
        hedge: bool = False,
    ) -> None:
        self._asker, self._where, self._model = asker, where, model
        self._timeout, self._max_retries = timeout, max_retries
        self._max_tokens, self._schema, self._ledger, self._journal = max_tokens, schema, ledger, journal
        self._fatal: HfSynthError | None = None
        self._reached = self._answered = False  # whether there was any connection, any answer
        self._failed = 0  # questions in a row that failed for good
        self._pace, self._hedge = pace, hedge
        self._failures: Counter[str] = Counter()  # of questions, by kind or code
        self._server = Server()
        self._introduction: Callable[[], Awaitable[tuple[dict[str, str], int | None]]] | None = None
        self._introduced = threading.Event()
        self._introduced.set()
        self._loading, self._loading_since = False, 0.0
        self._long_pause = False  # whether a pause longer than the longest was said
        self.timeouts = 0  # attempts that got no answer in time
        self._written = float(max_tokens or _USUAL_WRITTEN)  # tokens of an answer, smoothed
        self._commits = Commits(journal)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sent: set[asyncio.Task[Any]] = set()  # those whose request is at the endpoint
        self._spare, self._patience = False, timeout  # whether and how long they are awaited when the run ends
        self._room, self._open = threading.Condition(), 0  # questions in flight, and as many ready behind them
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True, name="hf_synth-llm")
        self._thread.start()
        self._ready.wait()
        close_at_exit(self)

    # --- in the caller's thread ---------------------------------------------------------------------------------

    def submit(self, key: str, messages: Messages) -> concurrent.futures.Future[Outcome]:
        """Submit a question; waits while too many are open.

        Raises:
            HfSynthError: the run has failed.
        """
        with self._room:
            self._room.wait_for(lambda: self._open < 2 * self._pace.wanted)
            self._open += 1
        if self._fatal is not None:
            raise self._fatal from None
        future = asyncio.run_coroutine_threadsafe(self._answer(key, messages), self._loop)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: object) -> None:
        with self._room:
            self._open -= 1
            self._room.notify_all()

    def result(self, future: concurrent.futures.Future[Outcome]) -> Outcome:
        """Wait for the outcome of a question.

        Raises:
            HfSynthError: the run has failed.
        """
        try:
            return future.result()
        except (concurrent.futures.CancelledError, HfSynthError):
            raise self._fatal or LLMError("the run was stopped; run again to go on") from None

    @property
    def cause_of_all(self) -> str | None:
        """A sentence on the endpoint's failures, when it answered nothing; None where questions alone were at fault."""
        if self._answered or not self._failures:
            return None
        name, _ = self._failures.most_common(1)[0]
        if name not in CAUSES and not Failure(name).outage:
            return None
        return f"{self._where} answered no question ({name}){_because(name)}"

    def introduce(self, ask: Callable[[], Awaitable[tuple[dict[str, str], int | None]]]) -> None:
        """Let `ask` ask the server about itself (`identity.introduce`), once it has answered a question."""
        self._introduction, self._introduced = ask, threading.Event()

    def know(self, server: Server) -> None:
        """Take what the server said of itself in an earlier run."""
        self._server.says, self._server.slots = server.says, server.slots
        if server.slots:
            self._loop.call_soon_threadsafe(self._pace.fits, server.slots)

    def _meet(self, reply: Reply) -> None:
        """Note what an answer says of its server; the first one starts the introduction."""
        for names, name in ((self._server.served, reply.model), (self._server.fingerprints, reply.fingerprint)):
            if len(names) < _NAMES:
                names[name] = None
        if self._introduction is None:
            return
        ask, self._introduction = self._introduction, None

        async def introduced() -> None:
            try:
                self._server.says, self._server.slots = await ask()
                if self._server.slots:
                    self._pace.fits(self._server.slots)
            except Exception:  # what a server does not say of itself is no fault
                _LOG.debug("%s says nothing of itself", self._where)
            finally:
                self._introduced.set()

        task = self._loop.create_task(introduced())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def about(self) -> Server:
        """What is known of the server."""
        if self._answered:
            self._introduced.wait(_INTRODUCTION_SECONDS)
        return self._server

    def halt(self) -> None:
        """Send nothing more: the next outcome is an error. `close` waits for what is under way."""
        self._call(self._halt)

    def close(self) -> None:
        """Stop: nothing more is sent, and answers that come in time go to the journal. Ctrl-C drops the rest."""
        self._call(self._closing.set)
        try:
            self._thread.join()
        except BaseException:
            self._call(self._cancel)
            self._thread.join(_DROPPED)
            raise

    def _call(self, what: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what)

    # --- in the loop --------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop, self._closing, self._door = asyncio.get_running_loop(), asyncio.Event(), asyncio.Lock()
        self._leases = Leases(self._journal)
        self._ready.set()
        await self._closing.wait()
        self._halt()
        await await_last(self._tasks & self._sent if self._spare else set(), self._patience)
        self._cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._commits.close()
        await self._leases.close()
        await self._asker.close()

    def _halt(self) -> None:
        """Send nothing more."""
        if self._fatal is None:
            self._spare, self._patience = True, min(self._timeout, LAST_ANSWERS)
        self._stop(LLMError("the run was stopped; run again to go on"))
        self._asker.halt()

    def _cancel(self) -> None:
        """Drop what is under way."""
        for task in list(self._tasks):
            task.cancel()

    def _stop(self, error: HfSynthError) -> None:
        """End the run; the first reason counts."""
        if self._fatal is None:
            self._fatal = error
            for task in self._tasks - {asyncio.current_task()} - (self._sent if self._spare else set()):
                task.cancel()

    async def _answer(self, key: str, messages: Messages) -> Outcome:
        self._tasks.add(task := current_task())
        try:
            if self._fatal is not None:
                raise self._fatal
            if (shared := await self._leases.take(key)) is not None:
                return shared
            await self._pace.enter()  # the place is held through retries
            try:
                outcome = await self._ask_within_budget(key, messages)
            finally:
                self._pace.leave()
            if isinstance(outcome, Entry):
                await self._commits.write(outcome)  # which ends the lease, too
                return outcome
            self._leases.give_back(key)
            return Unanswered(key, outcome.code)
        except HfSynthError as error:
            self._stop(error)
            raise
        except Exception as error:  # a bug of ours; its message may contain text
            fault = LLMError(f"asking {self._where} failed: {type(error).__name__}")
            self._spare = True
            self._stop(fault)
            raise fault from None
        finally:
            self._tasks.discard(task)

    async def _ask_within_budget(self, key: str, messages: Messages) -> Entry | Failure:
        """Ask within the budget."""
        ledger = self._ledger
        amount = ledger.worst_case(messages, self._max_tokens, None if ledger.plain else self._schema)
        while not ledger.reserve(amount):
            if ledger.reserved < ROUNDING:
                return Failure("budget")
            await asyncio.sleep(0.02)  # a part of what is reserved for questions in flight may come back
        cost: float | None = None
        try:
            reply = await self._ask_with_retries(key, messages)
            if isinstance(reply, Failure):
                if reply.kind == "refusal":  # an answer like any other: it is not asked for again
                    return Entry(key, "", "refusal", reply.code, 0, 0, None, self._model, time.time())
                return reply
            counted = None not in (reply.prompt_tokens, reply.completion_tokens)
            counts = reply.prompt_tokens or 0, reply.completion_tokens or 0
            ledger.longest = max(ledger.longest, counts[1])
            cost = ledger.cost(*counts) if counted or ledger.budget is None else amount
            return mark_unanswered(reply.entry(key, cost), bounded=self._max_tokens is not None)
        finally:
            ledger.settle(amount, cost)

    async def _ask_with_retries(self, key: str, messages: Messages) -> Reply | Failure:
        """Ask until there is an answer, or until a retry is useless."""
        schema = None if self._ledger.plain else self._schema
        tried = limited = refused = 0
        while True:
            outcome = await self._attempt(key, messages, schema)
            while isinstance(outcome, Failure) and outcome.kind == "loading":
                outcome = await self._until_loaded(key, messages, schema)
            if isinstance(outcome, Reply):
                self._reached = self._answered = True
                self._failed = 0
                self._meet(outcome)
                if self._schema is not None and not self._ledger.plain:
                    self._judge_schema(schema)
                return outcome
            self._reached |= outcome.code not in UNREACHED
            if outcome.kind == "refusal":
                self._answered = True  # the endpoint works
                return outcome
            if self._fatal is not None:
                raise self._fatal
            if outcome.fatal:
                self._spare = True  # what was sent may have been paid for: its answers are kept
                raise LLMError(outcome.fatal)
            if schema is not None and outcome.code in ("http_400", "http_422"):
                refused += 1
                if refused > 1:  # the first refusal may have been of the moment
                    schema = None  # the endpoint may not support the schema
                continue
            limited += outcome.code == "http_429"
            tried += outcome.code != "http_429"
            if not outcome.again or tried > self._tries(outcome) or limited > 4 * self._max_retries:
                return self._give_up(outcome)
            if outcome.after is not None and outcome.after >= _BACKOFF:
                if not outcome.overload:  # after an overload the pace pauses all requests
                    await asyncio.sleep(min(pacing.LONGEST_PAUSE, outcome.after))
            else:
                backoff = min(_LONGEST_BACKOFF, _BACKOFF * 2.0 ** min(tried + limited - 1, 10))
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))

    def _tries(self, outcome: Failure) -> int:
        hopeful = self._reached and (self._answered or (outcome.kind or outcome.code) not in ("page", "timeout"))
        return self._max_retries if hopeful else min(_TRIES_AT_FIRST, self._max_retries)

    def _judge_schema(self, schema: Mapping[str, Any] | None) -> None:
        """Count a question that got its answer with the schema, or only without it: one may be an accident."""
        self._ledger.doubts = self._ledger.doubts + 1 if schema is None else 0
        if self._ledger.doubts >= _DOUBTS:
            self._ledger.plain = True
            _LOG.info("%s does not accept a JSON schema; its answers are parsed without one", self._where)

    async def _until_loaded(self, key: str, messages: Messages, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Wait while the server loads its model: one question asks from time to time, the others wait for it.

        Raises:
            LLMError: it takes too long.
        """
        if not self._loading_since:
            _LOG.warning("%s is loading its model: waiting for up to %g minutes", self._where, _LOADING_MINUTES)
            self._loading_since = self._loop.time()
        self._loading = True
        async with self._door:
            pause, longest = _LOADING_PAUSE
            while self._loading:
                await asyncio.sleep(pause)
                pause = min(longest, 1.5 * pause)
                outcome = await self._attempt(key, messages, schema)
                self._loading = isinstance(outcome, Failure) and outcome.kind == "loading"
                if not self._loading:
                    self._loading_since = 0.0
                    return outcome
                if self._loop.time() - self._loading_since > 60 * _LOADING_MINUTES:
                    raise LLMError(
                        f"{self._where} gave no answer for {_LOADING_MINUTES:g} minutes{_because('loading')}"
                    )
        return await self._attempt(key, messages, schema)

    async def _attempt(self, key: str, messages: Messages, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Ask once at the pace; with `hedge` a second time when the answer is slow."""
        first = self._ask_once(key, messages, schema)
        if (usual := self._pace.usual if self._hedge else None) is None:
            return await first
        tasks = {asyncio.ensure_future(first)}
        self._sent.add(whole := current_task())  # which waits for them
        try:
            finished, _ = await asyncio.wait(tasks, timeout=_SLOW * usual)
            if not finished:
                tasks.add(asyncio.ensure_future(self._ask_once(key, messages, schema)))
            while True:
                finished, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                outcomes = [task.result() for task in finished]
                if not pending or any(isinstance(outcome, Reply) for outcome in outcomes):
                    return next((o for o in outcomes if isinstance(o, Reply)), outcomes[0])
                tasks = pending
        finally:
            self._sent.discard(whole)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_once(self, key: str, messages: Messages, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Ask once within the time of one attempt, and report the outcome to the pace."""
        pace, expected = self._pace, self._expected(messages)
        await pace.start(expected)
        began = self._loop.time()
        outcome: Reply | Failure
        self._sent.add(task := current_task())
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await self._asker.ask(key, messages, schema)
        except TimeoutError:
            outcome = Failure("timeout", again=True)
        finally:
            self._sent.discard(task)
        if isinstance(outcome, Failure) and outcome.code == "timeout":
            self.timeouts += 1
            if self.timeouts == 1:
                _LOG.warning("%s gave no answer within %g s; %s", self._where, self._timeout, CAUSES["timeout"])
        if isinstance(outcome, Reply):
            used = (outcome.prompt_tokens or 0) + (outcome.completion_tokens or 0)
            self._written += (float(outcome.completion_tokens or self._written) - self._written) / 32
            pace.correct(expected, used or expected)
            pace.accepted(self._loop.time() - began, outcome.limits)
        elif outcome.overload and outcome.kind != "loading":
            if (outcome.after or 0.0) > pacing.LONGEST_PAUSE and not self._long_pause:
                self._long_pause = True
                wait, pause = min(outcome.after or 0.0, 1e9) / 60, pacing.LONGEST_PAUSE
                _LOG.warning("%s asks to wait %.0f minutes; it is asked again every %g s", self._where, wait, pause)
            pace.refused(outcome.after, outcome.limits)
        return outcome

    def _expected(self, messages: Messages) -> float:
        """Estimate the tokens of a question and its answer, four characters each."""
        return sum(len(m["content"]) for m in messages) / 4 + self._written

    def _give_up(self, failure: Failure) -> Failure:
        """Count a question that failed for good.

        Raises:
            LLMError: the endpoint fails, so that the run cannot go on.
        """
        if failure.code in UNREACHED and not self._reached:
            raise LLMError(f"cannot reach {self._where}: {why_unreached(failure.code, self._where)}")
        name = failure.kind or failure.code
        self._failures[name] += 1
        if self._failures["timeout"] >= _HUNG and not self._answered:
            raise LLMError(f"{self._where} answered no question within {self._timeout:g} s{_because(name)}")
        if self._failures["page"] >= _PAGES and not self._answered:
            raise LLMError(f"{self._where} is no LLM endpoint ({failure.code}){_because(name)}")
        if failure.outage or not self._answered:
            self._failed += 1
        if self._failed >= _GIVE_UP:
            self._spare, self._patience = self._answered, min(self._timeout, LAST_ANSWERS)
            raise LLMError(
                f"{self._where} left {self._failed} questions in a row without an answer ({failure.code})"
                f"{_because(name)}; the answers so far are in the journal: run again to go on"
            )
        return failure


def _because(name: str) -> str:
    return f": {advice}" if (advice := advice_on(name)) else ""
