"""Rate limiting and adaptive concurrency (multiplicative decrease) of requests to an endpoint.

Three things decide when a request starts. The number in flight: a place is held through retries; 429, 503 and timeouts
count as overload, and above 30% of recent outcomes the number falls by 30%, at most once a round trip, and grows back
step by step. The rate: configured (`rpm`, `tpm`), read from `x-ratelimit-*` headers, or learnt from the requests
accepted between two refusals with Retry-After. And a pause of all requests while Retry-After asks for one. A `Pace`
belongs to one event loop; times are seconds of its clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from hf_synth.llm.learning import MOST, Learning
from hf_synth.llm.replies import Limit

LONGEST_PAUSE = 60.0  # seconds of a Retry-After that are obeyed
_OVERLOADED = 0.3  # share of refusals among recent outcomes that counts as overload
_MEMORY = 32  # outcomes that this share covers, roughly
_CUT, _STEPS = 0.7, 32  # in flight: the factor at an overload, and the round trips to grow back
_ENOUGH = 20  # accepted requests needed to learn a rate
_GROWTH, _SEARCH = 0.05 / 30, 0.05  # a learnt rate grows by 5% in 30 seconds; in one second at first
_TOO_FAST = 0.9  # factor of a rate that was refused
_LATE = 0.05  # seconds of a late start that the next start makes up for
_AHEAD = 2.0  # seconds of tokens that may be used at once, since corrections of the expected number come late
_WINDOW = 128  # durations from which the usual one is taken


class Pace:
    """The pace of one run.

    Args:
        concurrency: most requests in flight; None to learn how many the server works on (`learning`).
        timeout: seconds after which an answer comes too late; for what is learnt.
        rpm: most requests a minute; None for no known limit.
        tpm: most tokens a minute, read and written.
    """

    def __init__(
        self,
        concurrency: int | None,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        timeout: float = 120.0,
    ) -> None:
        self._learning = Learning(timeout) if concurrency is None else None
        self.most = concurrency or MOST
        self._target = float(self.most if self._learning is None else self._learning.limit)  # without overload
        self._limit = self._target
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._queue = asyncio.Lock()
        self._configured = rpm / 60 if rpm else None
        self._rate = self._configured  # requests a second
        self._per_token = 60 / tpm if tpm else 0.0  # seconds
        self._next = self._next_tokens = 0.0  # the next start, by requests and by tokens
        self._paused_until = 0.0
        self._spacing, self._spaced_until = 0.0, 0.0  # seconds between starts, while little of a quota is left
        self._refused = 0.0  # share, smoothed
        self._no_cut_before = 0.0
        self._confirmed = False  # whether a learnt rate has been refused once
        self._accepted, self._last_refusal = 0, None if self._configured else 0.0
        self._durations: deque[float] = deque(maxlen=_WINDOW)

    @property
    def in_flight_at_most(self) -> int:
        """The number of requests that may be in flight now."""
        return max(1, int(self._limit))

    @property
    def wanted(self) -> int:
        """The number of requests in flight without overload."""
        return int(self._target)

    # --- in flight ----------------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Wait for a place among the requests in flight."""
        if self._in_flight < self.in_flight_at_most and not self._waiting:
            self._in_flight += 1
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
        """Free the place for the next request."""
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self.in_flight_at_most:
            place = self._waiting.popleft()
            if not place.done():
                self._in_flight += 1
                place.set_result(None)

    # --- when to start ------------------------------------------------------------------------------------------

    async def start(self, tokens: float = 0.0) -> None:
        """Wait until a request of so many tokens may start."""
        loop = asyncio.get_running_loop()
        if self._rate is None and not self._per_token and not self._spaced_until and loop.time() >= self._paused_until:
            return
        async with self._queue:  # one by one, so that outcomes in the meantime count for the requests behind
            while (now := loop.time()) < (at := max(self._paused_until, self._next, self._next_tokens)):
                await asyncio.sleep(at - now)
            spacing = max(1 / self._rate if self._rate else 0.0, self._spacing if now < self._spaced_until else 0.0)
            # a sleep that ended late is made up for, so that the average rate is kept
            self._next = max(self._next, now - _LATE) + spacing if spacing else now
            self._next_tokens = max(self._next_tokens, now - _AHEAD) + tokens * self._per_token

    def correct(self, expected: float, used: float) -> None:
        """Correct the expected tokens of a request by those it used."""
        self._next_tokens += (used - expected) * self._per_token

    # --- outcomes -----------------------------------------------------------------------------------------------

    def accepted(self, seconds: float, limits: Sequence[Limit] = ()) -> None:
        """Count an answer that took so many seconds."""
        self._durations.append(seconds)
        self._accepted += 1
        self._refused += (0.0 - self._refused) / _MEMORY
        if self._learning is not None:
            busy = bool(self._waiting) or self._in_flight >= self.in_flight_at_most
            self._learning.answered(asyncio.get_running_loop().time(), seconds, busy=busy)
            self._follow(self._learning)
        if self._limit < self._target:
            self._limit = min(self._target, self._limit + max(1.0, self._target / _STEPS) / self._limit)
            self._admit()
        if self._rate is not None and self._configured is None:
            self._rate *= 1 + (_GROWTH if self._confirmed else _SEARCH) / self._rate
        self.heed(limits)

    def refused(self, after: float | None, limits: Sequence[Limit] = ()) -> None:
        """Count a refusal for load (429, 503, a timeout), and pause for the seconds of its Retry-After."""
        now = asyncio.get_running_loop().time()
        if self._learning is not None:
            self._learning.refused()
            self._follow(self._learning)
        self._refused += (1.0 - self._refused) / _MEMORY
        if after is not None:
            self._learn(now)
            self._paused_until = max(self._paused_until, now + min(LONGEST_PAUSE, after))
        elif self._refused > _OVERLOADED and now >= self._no_cut_before:
            self._limit = max(1.0, self._limit * _CUT)
            self._no_cut_before = now + max(0.1, self.usual or 0.5)  # one cut for all requests in flight
        self.heed(limits)

    def fits(self, slots: int) -> None:
        """Take the number of requests that the server says it works on at once, where none was given."""
        if self._learning is not None:
            self._learning.fits(slots)
            self._follow(self._learning)

    def _follow(self, learning: Learning) -> None:
        """Take over the learnt number; after an overload the number in flight grows back to it step by step."""
        if learning.limit == self._target:
            return
        whole = self._limit >= self._target
        self._target = float(learning.limit)
        self._limit = self._target if whole else min(self._limit, self._target)
        self._admit()

    def _learn(self, now: float) -> None:
        """Learn the rate from the requests accepted between two refusals: the quota was empty at both."""
        if self._last_refusal is None or now < self._paused_until:  # a configured rate, or the same wave of refusals
            return
        if self._last_refusal and self._accepted >= _ENOUGH:
            # too low where a small quota was full before the end of a long pause: the rate is then searched from below
            lowest = self._accepted / (now - self._last_refusal)
            self._confirmed = self._rate is not None
            self._rate = max(lowest, _TOO_FAST * self._rate if self._rate else 0.0)
        self._last_refusal, self._accepted = now, 0

    def heed(self, limits: Sequence[Limit]) -> None:
        """Slow down when little is left of a quota."""
        if not limits:
            return
        now = asyncio.get_running_loop().time()
        for limit in limits:
            reset = min(LONGEST_PAUSE, limit.reset)
            # the requests that come back one by one until the reset; the remaining ones where the quota is unknown
            back = limit.most - limit.remaining if limit.most is not None else limit.remaining
            if limit.remaining <= 0:
                self._paused_until = max(self._paused_until, now + (reset / back if back > 0 else reset))
            elif limit.requests and limit.remaining < self.most and back > 0:
                self._spacing, self._spaced_until = reset / back, now + reset

    @property
    def usual(self) -> float | None:
        """The 95th percentile of the seconds of an answer; None while there are too few."""
        if len(self._durations) < _ENOUGH:
            return None
        return sorted(self._durations)[int(0.95 * len(self._durations))]
