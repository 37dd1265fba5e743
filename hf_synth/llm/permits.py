"""Limits that hold over many processes: calls in flight, requests and tokens a minute, dollars.

One `Permits` counts for all of them, in the event loop of a process of its own. Each process that asks has a
`SharedPace` and a `SharedLedger`, which keep its own pace and ask the `Permits`, too. How a call reaches the `Permits`
is left to the caller (`Call`): this module knows no engine.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hf_synth.llm.ledger import ROUNDING, Ledger
from hf_synth.llm.pacing import Pace

Call = Callable[..., "concurrent.futures.Future[Any]"]  # (name of a method of Permits, its arguments) -> its result
_NO_LIMIT = 1_000_000  # calls in flight
_PAUSE = 0.2  # seconds until a process asks again for dollars that it was refused


@dataclass(frozen=True)
class Limits:
    """Limits of all processes together; None for no limit.

    Args:
        concurrency: calls in flight.
        rpm: requests a minute.
        tpm: tokens a minute, read and written.
        budget_usd: US dollars.
        price: US dollars for 1 million tokens (read, written).
    """

    concurrency: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    budget_usd: float | None = None
    price: tuple[float, float] | None = None


class Permits:
    """Counts what all processes have in flight and have spent.

    A process has a name, which its next life has again after it was killed, and each life has an id (`owner`). Permits
    of an earlier life come back when the next one begins. Its calls in flight may have been paid for: the dollars that
    were reserved for them count as spent.
    """

    def __init__(self, limits: Limits) -> None:
        self._pace = Pace(limits.concurrency or _NO_LIMIT, rpm=limits.rpm, tpm=limits.tpm)
        self._ledger = Ledger(limits.budget_usd, limits.price)
        self._owners: dict[str, str] = {}
        self._in_flight, self._reserved = Counter[str](), dict[str, float]()  # by owner
        self._ended: set[str] = set()

    async def begin(self, name: str, owner: str) -> None:
        """Begin a life of a process, and take back what its earlier life held."""
        before = self._owners.get(name)
        self._owners[name] = owner
        if before is None or before == owner:
            return
        self._ended.add(before)
        for _ in range(self._in_flight.pop(before, 0)):
            self._pace.leave()
        reserved = self._reserved.pop(before, 0.0)
        self._ledger.settle(reserved, reserved)

    async def enter(self, owner: str) -> None:
        """Wait for a place among the calls in flight."""
        await self._pace.enter()
        if owner in self._ended:
            self._pace.leave()
        else:
            self._in_flight[owner] += 1

    async def leave(self, owner: str) -> None:
        """Free a place."""
        if self._in_flight[owner] > 0:
            self._in_flight[owner] -= 1
            self._pace.leave()

    async def start(self, tokens: float) -> None:
        """Wait until a request of so many tokens may start."""
        await self._pace.start(tokens)

    async def correct(self, expected: float, used: float) -> None:
        """Correct the expected tokens of a request by those it used."""
        self._pace.correct(expected, used)

    async def reserve(self, owner: str, amount: float) -> tuple[bool, float, float]:
        """Reserve dollars; return whether there were enough, and what all processes have reserved and spent."""
        granted = owner not in self._ended and self._ledger.reserve(amount)
        if granted:
            self._reserved[owner] = self._reserved.get(owner, 0.0) + amount
        return granted, self._ledger.reserved, self._ledger.spent

    async def settle(self, owner: str, reserved: float, spent: float | None) -> None:
        """Replace reserved dollars by those spent."""
        if owner in self._ended:
            return
        self._reserved[owner] = max(0.0, self._reserved.get(owner, 0.0) - reserved)
        self._ledger.settle(reserved, spent)

    async def counts(self) -> dict[str, float]:
        """Return calls in flight, and dollars reserved and spent."""
        in_flight = sum(self._in_flight.values())
        return {"in_flight": in_flight, "reserved": self._ledger.reserved, "spent": self._ledger.spent}


class SharedPace(Pace):
    """The pace of one process, within the limits of all."""

    def __init__(self, call: Call, owner: str, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._call, self._owner = call, owner

    async def enter(self) -> None:
        """Wait for a place among the requests of this process, and among those of all."""
        await super().enter()
        place = self._call("enter", self._owner)
        try:
            await asyncio.shield(asyncio.wrap_future(place))
        except BaseException:
            place.add_done_callback(lambda _: self._call("leave", self._owner))
            super().leave()
            raise

    def leave(self) -> None:
        """Free the place for the next request."""
        self._call("leave", self._owner)
        super().leave()

    async def start(self, tokens: float = 0.0) -> None:
        """Wait until a request of so many tokens may start, by the pace of this process and by that of all."""
        await super().start(tokens)
        await asyncio.wrap_future(self._call("start", tokens))

    def correct(self, expected: float, used: float) -> None:
        """Correct the expected tokens of a request by those it used."""
        super().correct(expected, used)
        self._call("correct", expected, used)


class SharedLedger(Ledger):
    """The money of all processes, as one of them sees it."""

    def __init__(self, call: Call, owner: str, budget: float | None, price: tuple[float, float] | None) -> None:
        super().__init__(budget, price)
        self._call, self._owner, self._refused_at = call, owner, float("-inf")

    def pace(self, *given: Any, **more: Any) -> Pace:
        """Return a pace within the limits of all processes."""
        return SharedPace(self._call, self._owner, *given, **more)

    def reserve(self, amount: float) -> bool:
        """Reserve an amount; return False where the budget of all is too small for now."""
        if self.budget is None:
            return True
        if time.monotonic() - self._refused_at < _PAUSE:
            return False
        granted, self.reserved, self.spent = self._call("reserve", self._owner, amount).result()
        if not granted:
            self._refused_at = time.monotonic()
            self.short |= self.reserved < ROUNDING
        return bool(granted)

    def settle(self, reserved: float, spent: float | None) -> None:
        """Replace a reserved amount by the amount spent."""
        if self.budget is not None:
            self._call("settle", self._owner, reserved, spent)
        self._refused_at = float("-inf")


def limits_of(llm: Any) -> Limits | None:
    """Return the limits of an `LLM`; None for another LLM, and where it has none."""
    from hf_synth.llm.llm import LLM

    if not isinstance(llm, LLM):
        return None
    limits = Limits(llm.concurrency, llm.rpm, llm.tpm, llm.budget_usd, llm._ledger.price)
    return None if limits == Limits(price=limits.price) else limits


def sharing(llm: Any, call: Call, owner: str) -> Any:
    """Return a copy of an `LLM` that keeps the limits of all processes; another LLM as it is."""
    from hf_synth.llm.llm import LLM

    if not isinstance(llm, LLM):
        return llm
    return llm.with_journal(llm.journal, SharedLedger(call, owner, llm.budget_usd, llm._ledger.price))


def add_spent(llm: Any, dollars: float) -> None:
    """Count what other processes have spent with copies of an `LLM`, which leaves less of its budget here."""
    from hf_synth.llm.llm import LLM

    if isinstance(llm, LLM):
        llm._ledger.settle(0.0, dollars)
