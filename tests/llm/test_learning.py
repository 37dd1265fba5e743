"""The number of requests in flight that is learnt from a server with a queue, in simulated time."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest

from hf_synth.llm.learning import FIRST, MOST, Learning


def served(
    learning: Learning | int, n: int, slots: int, seconds: float = 0.2, spread: float = 0.0, batching: float = 0.0
) -> float:
    """Serve n requests in so many slots, the others wait; return the seconds (simulated) until all are answered.

    Args:
        learning: or a fixed number in flight.
        spread: of the logarithm of the time of an answer.
        batching: how much longer an answer takes when all slots are busy.
    """
    rng, now, free = random.Random(0), 0.0, slots
    waiting: deque[float] = deque()
    working: list[tuple[float, float]] = []
    flying = sent = answered = 0
    while answered < n:
        most = learning if isinstance(learning, int) else learning.limit
        while flying < most and sent < n:
            flying, sent = flying + 1, sent + 1
            waiting.append(now)
        while waiting and free:
            free -= 1
            longer = 1 + batching * (slots - free) / slots
            heapq.heappush(working, (now + seconds * longer * rng.lognormvariate(0, spread), waiting.popleft()))
        now, began = heapq.heappop(working)
        if not isinstance(learning, int):
            learning.answered(now, now - began, busy=sent < n and flying >= most)
        free, answered, flying = free + 1, answered + 1, flying - 1
    return now


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("batching", [0.0, 1.0])
@pytest.mark.parametrize("slots", [1, 4, 16, 64, 90])
def test_as_many_answers_come_as_with_the_best_number(slots: int, batching: float, spread: float) -> None:
    n = 60 * slots
    how = {"n": n, "slots": slots, "spread": spread, "batching": batching}
    best = min(served(most, **how) for most in (16, 32, 64, 128, 256))  # type: ignore[arg-type]
    learning = Learning()
    assert served(learning, **how) <= best / 0.95  # type: ignore[arg-type]
    assert slots <= learning.limit <= max(2 * FIRST, 5 * slots)


def test_a_server_without_a_queue_gets_all_there_may_be() -> None:
    learning = Learning()
    served(learning, 6_000, 10_000)
    assert learning.limit == MOST


def test_answers_that_may_come_too_late_lower_the_number() -> None:
    """Two slots of 20 seconds: 16 at once would wait for 160 of the 120 seconds that they have."""
    learning = Learning(timeout=120)
    served(learning, 200, 2, seconds=20.0)
    assert 1 <= learning.limit * 20 / 2 <= 60  # seconds of an answer


def test_slow_answers_alone_lower_nothing() -> None:
    learning = Learning(timeout=120)
    served(learning, 2_000, 10_000, seconds=50.0)
    assert learning.limit >= 64


def test_what_a_server_says_or_refuses_is_a_bound() -> None:
    learning = Learning()
    learning.fits(4)
    served(learning, 500, 4)
    assert learning.limit == 5
    learning.refused()
    served(learning, 500, 4)
    assert learning.limit == 5
    refusing = Learning()
    refusing.refused()
    served(refusing, 5_000, 10_000)
    assert refusing.limit == 64
