"""How many requests may be under way, and when the next one may start.

Three things decide. A number in flight that falls by 30% when the endpoint is overloaded (many refusals or stuck
requests together, not a chance one) and grows again step by step. A rate: told (`rpm`, `tpm`), read from
`x-ratelimit-*` headers, or learnt from what was accepted between two refusals that carried Retry-After. And a pause
for everybody when the endpoint asks for one. Lives in one event loop; times are seconds of its clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from hf_synth.llm.replies import Limit

LONGEST_PAUSE = 60.0  # seconds of a Retry-After that are obeyed
_OVERLOADED = 0.3  # share of refusals among the last outcomes from which on they are no chance
_MEMORY = 32  # outcomes that this share looks back on, roughly
_CUT, _STEPS = 0.7, 32  # in flight: times this when overloaded; back to all in so many round trips
_ENOUGH = 20  # accepted requests from which a rate is learnt
_GROWTH, _SEARCH = 0.05 / 30, 0.05  # a learnt rate is tried 5% higher every 30 seconds; every second at first
_TOO_FAST = 0.9  # times a rate that was refused
_LATE = 0.05  # seconds of a late start that are made up for
_AHEAD = 2.0  # seconds of tokens that may be used at once: what was expected too high comes back late
_WINDOW = 128  # durations that the usual one is taken from


class Pace:
    """The pace of one run.

    Args:
        concurrency: requests under way at most.
        rpm: requests a minute at most; None for no limit that is known.
        tpm: tokens a minute at most, read and written.
    """

    def __init__(self, concurrency: int, *, rpm: float | None = None, tpm: float | None = None) -> None:
        self._most, self._limit = concurrency, float(concurrency)
        self._flying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._queue = asyncio.Lock()
        self._told = rpm / 60 if rpm else None
        self._rate = self._told  # requests a second
        self._per_token = 60 / tpm if tpm else 0.0  # seconds
        self._next = self._next_tokens = 0.0  # the next start, by requests and by tokens
        self._held = 0.0  # nobody starts before
        self._tight, self._tight_until = 0.0, 0.0  # seconds between starts, while little of a quota is left
        self._refused = 0.0  # share, smoothed
        self._cut_at = 0.0
        self._known = False  # whether a learnt rate has been refused once
        self._accepted, self._event = 0, None if self._told else 0.0
        self._durations: deque[float] = deque(maxlen=_WINDOW)

    @property
    def in_flight_at_most(self) -> int:
        """How many requests may be under way now."""
        return max(1, int(self._limit))

    # --- in flight ----------------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Wait for a place among the requests under way."""
        if self._flying < self.in_flight_at_most and not self._waiting:
            self._flying += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next one."""
        self._flying -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._flying < self.in_flight_at_most:
            place = self._waiting.popleft()
            if not place.done():
                self._flying += 1
                place.set_result(None)

    # --- when to start ------------------------------------------------------------------------------------------

    async def start(self, tokens: float = 0.0) -> None:
        """Wait for the moment at which a request of so many tokens may start."""
        loop = asyncio.get_running_loop()
        if self._rate is None and not self._per_token and not self._tight_until and loop.time() >= self._held:
            return
        async with self._queue:  # one after the other, so that what comes back meanwhile counts for those behind
            while (now := loop.time()) < (at := max(self._held, self._next, self._next_tokens)):
                await asyncio.sleep(at - now)
            spacing = max(1 / self._rate if self._rate else 0.0, self._tight if now < self._tight_until else 0.0)
            # a sleep that ended late is made up for, so that the rate is kept on the whole
            self._next = max(self._next, now - _LATE) + spacing if spacing else now
            self._next_tokens = max(self._next_tokens, now - _AHEAD) + tokens * self._per_token

    def correct(self, expected: float, used: float) -> None:
        """Take back, or add, the tokens that a request used otherwise than expected."""
        self._next_tokens += (used - expected) * self._per_token

    # --- what the endpoint says ---------------------------------------------------------------------------------

    def accepted(self, seconds: float, limits: Sequence[Limit] = ()) -> None:
        """Note an answer and how long it took."""
        self._durations.append(seconds)
        self._accepted += 1
        self._refused += (0.0 - self._refused) / _MEMORY
        if self._limit < self._most:
            self._limit = min(self._most, self._limit + max(1.0, self._most / _STEPS) / self._limit)
            self._admit()
        if self._rate is not None and self._told is None:
            self._rate *= 1 + (_GROWTH if self._known else _SEARCH) / self._rate
        self.heed(limits)

    def refused(self, after: float | None, limits: Sequence[Limit] = ()) -> None:
        """Note a refusal for load (429, 503, no answer in time), and how long the endpoint wants to be left alone."""
        now = asyncio.get_running_loop().time()
        self._refused += (1.0 - self._refused) / _MEMORY
        if after is not None:
            self._learn(now)
            self._held = max(self._held, now + min(LONGEST_PAUSE, after))
        elif self._refused > _OVERLOADED and now >= self._cut_at:
            self._limit = max(1.0, self._limit * _CUT)
            self._cut_at = now + max(0.1, self.usual or 0.5)  # one cut for all that was under way
        self.heed(limits)

    def _learn(self, now: float) -> None:
        """Take what was accepted between two refusals for the rate that is allowed: the quota was empty at both."""
        if self._event is None or now < self._held:  # told, or one more of the same wave
            return
        if self._event and self._accepted >= _ENOUGH:
            # too low where a long pause has filled a small quota to the brim: then the rate is searched from below
            lowest = self._accepted / (now - self._event)
            self._known = self._rate is not None
            self._rate = max(lowest, _TOO_FAST * self._rate if self._rate else 0.0)
        self._event, self._accepted = now, 0

    def heed(self, limits: Sequence[Limit]) -> None:
        """Slow down in time when little is left of a quota."""
        if not limits:
            return
        now = asyncio.get_running_loop().time()
        for limit in limits:
            reset = min(LONGEST_PAUSE, limit.reset)
            # until it is whole again so many come back, one after the other; where the whole is not said: what is left
            back = limit.most - limit.remaining if limit.most is not None else limit.remaining
            if limit.remaining <= 0:
                self._held = max(self._held, now + (reset / back if back > 0 else reset))
            elif limit.requests and limit.remaining < self._most and back > 0:
                self._tight, self._tight_until = reset / back, now + reset

    @property
    def usual(self) -> float | None:
        """Give the seconds in which 95 of 100 answers come; None while too few have."""
        if len(self._durations) < _ENOUGH:
            return None
        return sorted(self._durations)[int(0.95 * len(self._durations))]
