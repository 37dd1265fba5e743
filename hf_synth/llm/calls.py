"""Concurrent LLM requests: retries with backoff, hedging, budget, circuit breaker, group commits to the journal.

A `Run` knows no protocol: its `ask` sends one question and returns a `Reply` or a `Failure`. The event loop runs in a
thread of its own; the caller's thread submits a bounded number of questions ahead. A key is leased before its question
enters the queue, so that one of several processes pays. An answer is committed before the caller gets it; answers that
arrive during a commit go together into the next one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hf_synth.errors import HfSynthError, LLMError
from hf_synth.llm import pacing
from hf_synth.llm.journal import Entry, Journal
from hf_synth.llm.leases import Leases
from hf_synth.llm.pacing import Pace
from hf_synth.llm.questions import Messages
from hf_synth.llm.replies import Failure, Reply

_LOG = logging.getLogger(__name__)
_BACKOFF, _LONGEST_BACKOFF = 0.25, 8.0  # seconds before the second attempt, doubled up to the longest
_SLOW = 3.0  # times the usual duration after which a hedged question is asked again
_TRIES_AT_FIRST = 3  # retries before the first connection: most likely nothing listens there
_GIVE_UP = 16  # questions in a row that fail for good
_ROUNDING = 1e-9  # dollars: sums of reserved and settled amounts return to zero only approximately
_USUAL_WRITTEN = 512  # tokens of an answer, before the first one
_USUAL_ANSWER = 2_048  # tokens reserved for an answer of unbounded length

Ask = Callable[[str, Messages, Mapping[str, Any] | None], Awaitable[Reply | Failure]]
Outcome = Entry | Failure


class Ledger:
    """Money spent, and reserved for questions in flight, in US dollars; shared by threads."""

    def __init__(self, budget: float | None, price: tuple[float, float] | None) -> None:
        self.budget, self.price = budget, price
        self.spent = self.reserved = 0.0
        self.longest = _USUAL_ANSWER
        self.plain = False  # whether the endpoint has refused a schema
        self._lock = threading.Lock()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Compute the price of so many tokens; None where it is unknown."""
        if self.price is None:
            return None
        return (prompt_tokens * self.price[0] + completion_tokens * self.price[1]) / 1e6

    def reserve(self, amount: float) -> bool:
        """Reserve an amount; return False where the budget is too small."""
        with self._lock:
            if self.budget is not None and self.spent + self.reserved + amount > self.budget:
                return False
            self.reserved += amount
            return True

    def worst_case(self, messages: Messages, max_tokens: int | None) -> float:
        """Estimate the most that a question may cost: two bytes for each token read, the longest answer written."""
        if self.budget is None:
            return 0.0
        read = len(json.dumps(messages, ensure_ascii=False).encode("utf-8", "replace")) // 2
        return self.cost(read, max_tokens or self.longest) or 0.0

    def settle(self, reserved: float, spent: float | None) -> None:
        """Replace a reserved amount by the amount spent."""
        with self._lock:
            self.reserved = max(0.0, self.reserved - reserved)
            self.spent += spent or 0.0


class Run:
    """One run over many questions.

    Args:
        ask: sends one question (key, messages, schema) and never raises for a fault of the endpoint.
        shut: closes the connections of `ask`; awaited at the end, in the loop.
        where: name of the endpoint in errors.
        max_tokens: the limit of an answer's tokens, if there is one.
    """

    def __init__(
        self,
        ask: Ask,
        shut: Callable[[], Awaitable[None]],
        *,
        where: str,
        concurrency: int,
        timeout: float,
        max_retries: int,
        max_tokens: int | None,
        schema: Mapping[str, Any] | None,
        ledger: Ledger,
        journal: Journal,
        pace: Pace,
        hedge: bool = False,
    ) -> None:
        self._ask, self._shut, self._where = ask, shut, where
        self._timeout, self._max_retries = timeout, max_retries
        self._max_tokens, self._schema, self._ledger, self._journal = max_tokens, schema, ledger, journal
        self._fatal: HfSynthError | None = None
        self._reached = self._answered = False  # whether there was any connection, any answer
        self._failed = 0  # questions in a row that failed for good
        self._pace, self._hedge = pace, hedge
        self._written = float(max_tokens or _USUAL_WRITTEN)  # tokens of an answer, smoothed
        self._uncommitted: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._slots = threading.Semaphore(2 * concurrency)  # in flight, and as many ready behind them
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True, name="hf_synth-llm")
        self._thread.start()
        self._ready.wait()

    # --- in the caller's thread ---------------------------------------------------------------------------------

    def submit(self, key: str, messages: Messages) -> concurrent.futures.Future[Outcome]:
        """Submit a question; waits while too many are open.

        Raises:
            HfSynthError: the run has failed.
        """
        self._slots.acquire()
        if self._fatal is not None:
            raise self._fatal from None
        future = asyncio.run_coroutine_threadsafe(self._answer(key, messages), self._loop)
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def result(self, future: concurrent.futures.Future[Outcome]) -> Outcome:
        """Wait for the outcome of a question.

        Raises:
            HfSynthError: the run has failed.
        """
        try:
            return future.result()
        except (concurrent.futures.CancelledError, HfSynthError):
            raise self._fatal or LLMError("the run was stopped; run again to go on") from None

    def close(self) -> None:
        """Stop: answers that have arrived are written to the journal, requests in flight are cancelled."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    # --- in the loop --------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._leases = Leases(self._journal)
        self._ready.set()
        await self._closing.wait()
        self._stop(LLMError("the run was stopped; run again to go on"))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            await self._writer
        await self._leases.close()
        await self._shut()

    def _stop(self, error: HfSynthError) -> None:
        """End the run; the first reason counts."""
        if self._fatal is None:
            self._fatal = error
            for task in self._tasks - {asyncio.current_task()}:
                task.cancel()

    async def _answer(self, key: str, messages: Messages) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._fatal is not None:
                raise self._fatal
            if (shared := await self._leases.take(key)) is not None:
                return shared
            await self._pace.enter()
            try:
                outcome = await self._ask_within_budget(key, messages)
            finally:
                self._pace.leave()
            if isinstance(outcome, Entry):
                await self._write(outcome)  # which ends the lease, too
            else:
                self._leases.give_back(key)
            return outcome
        except HfSynthError as error:
            self._stop(error)
            raise
        except Exception as error:  # a bug of ours; its message may contain text
            fault = LLMError(f"asking {self._where} failed: {type(error).__name__}")
            self._stop(fault)
            raise fault from None
        finally:
            self._tasks.discard(task)

    async def _ask_within_budget(self, key: str, messages: Messages) -> Outcome:
        """Ask within the budget."""
        ledger = self._ledger
        amount = ledger.worst_case(messages, self._max_tokens)
        while not ledger.reserve(amount):
            if ledger.reserved < _ROUNDING:
                return Failure("budget")
            await asyncio.sleep(0.02)  # a part of what is reserved for questions in flight may come back
        cost: float | None = None
        try:
            reply = await self._ask_with_retries(key, messages)
            if isinstance(reply, Failure):
                return reply
            counted = None not in (reply.prompt_tokens, reply.completion_tokens)
            counts = reply.prompt_tokens or 0, reply.completion_tokens or 0
            ledger.longest = max(ledger.longest, counts[1])
            cost = ledger.cost(*counts) if counted or ledger.budget is None else amount
            return reply.entry(key, cost)
        finally:
            ledger.settle(amount, cost)

    async def _ask_with_retries(self, key: str, messages: Messages) -> Reply | Failure:
        """Ask until there is an answer, or until a retry is useless."""
        schema = None if self._ledger.plain else self._schema
        tried = limited = refused = 0
        while True:
            outcome = await self._attempt(key, messages, schema)
            if isinstance(outcome, Reply):
                self._reached = self._answered = True
                self._failed = 0
                if schema is None and self._schema is not None and not self._ledger.plain:
                    self._ledger.plain = True
                    _LOG.info("%s does not accept a JSON schema; its answers are parsed without one", self._where)
                return outcome
            self._reached |= outcome.code != "unreachable"
            if outcome.fatal:
                raise LLMError(outcome.fatal)
            if schema is not None and outcome.code in ("http_400", "http_422"):
                refused += 1
                if refused > 1:  # the first refusal may have been of the moment
                    schema = None  # the endpoint may not support the schema
                continue
            limited += outcome.code == "http_429"
            tried += outcome.code != "http_429"
            if not outcome.again or tried > self._tries() or limited > 4 * self._max_retries:
                return self._give_up(outcome)
            if outcome.after is not None and outcome.after >= _BACKOFF:
                if not outcome.overload:  # after an overload the pace pauses all requests
                    await asyncio.sleep(min(pacing.LONGEST_PAUSE, outcome.after))
            else:
                backoff = min(_LONGEST_BACKOFF, _BACKOFF * 2.0 ** min(tried + limited - 1, 10))
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))

    def _tries(self) -> int:
        return self._max_retries if self._reached else min(_TRIES_AT_FIRST, self._max_retries)

    async def _attempt(self, key: str, messages: Messages, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Ask once at the pace; with `hedge` a second time when the answer is slow."""
        usual = self._pace.usual if self._hedge else None
        first = self._ask_once(key, messages, schema)
        if usual is None:
            return await first
        tasks = {asyncio.ensure_future(first)}
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
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_once(self, key: str, messages: Messages, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Ask once within the time of one attempt, and report the outcome to the pace."""
        pace, expected = self._pace, self._expected(messages)
        await pace.start(expected)
        began = self._loop.time()
        outcome: Reply | Failure
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await self._ask(key, messages, schema)
        except TimeoutError:
            outcome = Failure("timeout", again=True)
        if isinstance(outcome, Reply):
            used = (outcome.prompt_tokens or 0) + (outcome.completion_tokens or 0)
            self._written += (float(outcome.completion_tokens or self._written) - self._written) / 32
            pace.correct(expected, used or expected)
            pace.accepted(self._loop.time() - began, outcome.limits)
        elif outcome.overload:
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
        if failure.code == "unreachable" and not self._reached:
            raise LLMError(f"cannot reach {self._where}: nothing answers there; start the server or check base_url")
        if failure.outage or not self._answered:
            self._failed += 1
        if self._failed >= _GIVE_UP:
            raise LLMError(
                f"{self._where} left {self._failed} questions in a row without an answer ({failure.code}); "
                "the answers so far are in the journal: run again to go on"
            )
        return failure

    # --- the journal --------------------------------------------------------------------------------------------

    async def _write(self, entry: Entry) -> None:
        """Wait until an answer is on disk; answers that arrive during a commit go together into the next one."""
        written: asyncio.Future[None] = self._loop.create_future()
        self._uncommitted.append((entry, written))
        if self._writer is None or self._writer.done():
            self._writer = self._loop.create_task(self._commit())
        await written

    async def _commit(self) -> None:
        while self._uncommitted:
            group, self._uncommitted = self._uncommitted, []
            failure: Exception | None = None
            try:
                await asyncio.to_thread(self._journal.put_many, [entry for entry, _ in group])
            except Exception as error:
                failure = error
            for _, written in group:
                if not written.done():
                    written.set_exception(failure) if failure else written.set_result(None)
