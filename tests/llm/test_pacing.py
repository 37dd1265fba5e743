"""The pace: what is in flight, when the next request starts, what refusals change; by the clock of a fast loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.llm import pacing
from hf_synth.llm.pacing import Pace
from hf_synth.llm.replies import Limit, read_limits


class FastLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time() - 1000.0


async def served(
    pace: Pace, n: int, answer: Callable[[float], float | Limit | None], latency: float = 0.2
) -> list[float]:
    """Ask n questions of an endpoint; `answer` gives None, or the Retry-After of a refusal. When each was accepted."""
    accepted: list[float] = []

    async def one() -> None:
        await pace.enter()
        try:
            while True:
                await pace.start()
                after = answer(now())
                await asyncio.sleep(latency if after is None else 0.005)
                if after is None:
                    pace.accepted(latency)
                    accepted.append(now())
                    return
                assert isinstance(after, float)
                pace.refused(after if after >= 0 else None)
                if after < 0:
                    await asyncio.sleep(0.25)
        finally:
            pace.leave()

    await asyncio.gather(*(one() for _ in range(n)))
    return accepted


class Bucket:
    """An endpoint that lets `rate` requests a second pass, as many at once as one second brings."""

    def __init__(self, rate: float, after: float) -> None:
        self.rate, self.after, self.left, self.at, self.refusals = rate, after, rate, 0.0, 0

    def __call__(self, moment: float) -> float | None:
        self.left = min(self.rate, self.left + (moment - self.at) * self.rate)
        self.at = moment
        if self.left < 1:
            self.refusals += 1
            return self.after
        self.left -= 1
        return None


def test_without_limits_nobody_waits() -> None:
    async def main() -> None:
        accepted = await served(Pace(10), 100, lambda _: None)
        assert len(accepted) == 100
        assert now() == pytest.approx(2.0)

    run(main)


def test_a_told_rate_is_kept_without_a_refusal() -> None:
    async def main() -> None:
        bucket = Bucket(100, 1.0)
        await served(Pace(64, rpm=6_000), 2_000, bucket)
        assert bucket.refusals == 0
        assert now() == pytest.approx(20.2, abs=0.1)

    run(main)


@pytest.mark.parametrize(("after", "seconds"), [(0.5, 21), (1.0, 21), (5.0, 45)])
def test_an_untold_rate_is_learnt_from_the_first_refusals(after: float, seconds: float) -> None:
    async def main() -> None:
        bucket = Bucket(100, after)
        await served(Pace(64), 2_000, bucket)
        assert bucket.refusals < 80
        assert now() < seconds  # 20 at best; a pause of 5 seconds wastes what it lets run over

    run(main)


def test_chance_refusals_slow_nobody_down() -> None:
    async def main() -> None:
        pace, count = Pace(64), iter(range(10**6))
        await served(pace, 2_000, lambda _: -1.0 if next(count) % 10 == 3 else None)
        assert pace.in_flight_at_most == 64
        assert now() < 1.4 * 2_000 * 0.2 / 64

    run(main)


def test_an_overloaded_endpoint_gets_fewer_at_once_and_more_again() -> None:
    async def main() -> None:
        pace, flying, refused = Pace(64), 0, 0

        async def one(room: int) -> None:
            nonlocal flying, refused
            await pace.enter()
            try:
                while True:
                    await pace.start()
                    if flying >= room:
                        refused += 1
                        await asyncio.sleep(0.005)
                        pace.refused(None)
                        await asyncio.sleep(0.1)
                        continue
                    flying += 1
                    await asyncio.sleep(0.2)
                    flying -= 1
                    return pace.accepted(0.2)
            finally:
                pace.leave()

        await asyncio.gather(*(one(8) for _ in range(400)))
        assert pace.in_flight_at_most < 24
        assert refused < 1_200  # at 64 all the time it would be some ten times as many
        await asyncio.gather(*(one(64) for _ in range(3_000)))
        assert pace.in_flight_at_most > 48

    run(main)


def test_tokens_a_minute_are_kept() -> None:
    async def main() -> None:
        pace = Pace(64, tpm=60_000)  # 1,000 a second

        async def one() -> None:
            await pace.enter()
            await pace.start(500)
            await asyncio.sleep(0.1)
            pace.correct(500, 250)
            pace.leave()

        await asyncio.gather(*(one() for _ in range(40)))
        assert 7 < now() < 14  # 40 x 250 tokens; each was expected to be 500

    run(main)


def test_a_pause_that_is_asked_for_holds_everybody() -> None:
    async def main() -> None:
        pace = Pace(4)
        pace.refused(7.0)
        await pace.start()
        assert 7 <= now() < 7.2
        pace.refused(10**9)
        await pace.start()
        assert now() < 7.2 + pacing.LONGEST_PAUSE + 0.2

    run(main)


def test_what_is_left_of_a_quota_is_spread() -> None:
    async def main() -> None:
        pace = Pace(64)
        pace.accepted(0.1, [Limit(True, 10, 5.0)])
        for _ in range(11):
            await pace.start()
        assert now() == pytest.approx(5.0, abs=0.1)
        pace.accepted(0.1, [Limit(False, 0, 3.0)])
        await pace.start()
        assert now() == pytest.approx(8.1, abs=0.15)

    run(main)


def test_a_cancelled_wait_gives_its_place_away() -> None:
    async def main() -> None:
        pace = Pace(1)
        await pace.enter()
        waiting = [asyncio.ensure_future(pace.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        pace.leave()
        waiting[1].cancel()  # has its place already, and has not run since
        await asyncio.gather(*waiting, return_exceptions=True)
        assert [w.cancelled() for w in waiting] == [True, True, False]
        pace.leave()
        await asyncio.wait_for(pace.enter(), 1)

    run(main)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s"}, [Limit(True, 59, 1)]),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, [Limit(False, 0, 360)]),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "20ms"}, [Limit(True, 1, 0.02)]),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "1h2m3.5s"}, [Limit(True, 1, 3723.5)]),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "4.5",
          "x-ratelimit-limit-requests": "60"}, [Limit(True, 1, 4.5, 60)]),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "soon"}, []),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"}, []),
        ({"x-ratelimit-remaining-requests": "1"}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_headers_of_quotas_are_read(headers: dict[str, str], found: list[Limit]) -> None:
    assert list(read_limits(headers)) == found


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_strange_headers_are_left_out(remaining: str, reset: str, most: str) -> None:
    headers = {
        f"x-ratelimit-{k}-requests": v
        for k, v in zip(("remaining", "reset", "limit"), (remaining, reset, most), strict=True)
    }
    for limit in read_limits(headers):
        assert limit.remaining >= 0 <= limit.reset < 1e12
