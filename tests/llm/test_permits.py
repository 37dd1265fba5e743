"""Limits over several processes: places in flight, dollars, and what a process that is killed gives back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import Said, serving

from hf_synth.llm.llm import LLM
from hf_synth.llm.permits import Limits, Permits, SharedLedger, limits_of, sharing


class Counting:
    """Permits in a thread with an event loop of its own, as an engine runs them in a process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.permits: Any = None
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def open(self, limits: Limits) -> None:
        async def made() -> Permits:
            return Permits(limits)

        self.permits = asyncio.run_coroutine_threadsafe(made(), self.loop).result()

    def call(self, name: str, *given: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(getattr(self.permits, name)(*given), self.loop)

    def counts(self) -> dict[str, float]:
        found: dict[str, float] = self.call("counts").result()
        return found


@pytest.fixture
def counting() -> Iterator[Counting]:
    one = Counting()
    yield one
    one.loop.call_soon_threadsafe(one.loop.stop)
    one.thread.join()
    one.loop.close()


def test_two_processes_share_the_calls_in_flight_and_the_budget(counting: Counting, tmp_path: Path) -> None:
    with serving(lambda request, _: Said("yes", delay=0.02)) as server:
        given: dict[str, Any] = {"concurrency": 3, "budget_usd": 1.0, "price": (0.0, 1_000.0)}
        own = [LLM("m", base_url=server.url, journal=tmp_path / f"{i}.sqlite", **given) for i in range(2)]
        limits = limits_of(own[0])
        assert limits == Limits(3, None, None, 1.0, (0.0, 1_000.0))
        counting.open(limits)
        llms = [sharing(llm, counting.call, f"life {i}") for i, llm in enumerate(own)]
        answers: list[Any] = []

        def ask(i: int) -> None:
            questions = [[{"role": "user", "content": f"{i} {n}"}] for n in range(20)]
            answers.extend(llms[i].chat(questions, access="open", max_tokens=100))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {answer.status for answer in answers} == {"ok"}
    counts = counting.counts()
    assert counts["in_flight"] == 0
    assert counts["reserved"] == pytest.approx(0)
    assert counts["spent"] == pytest.approx(sum(answer.cost for answer in answers))
    assert server.peak == 3, "not 3 of each process"


def test_a_budget_holds_over_processes(counting: Counting) -> None:
    counting.open(Limits(budget_usd=1.0, price=(1.0, 1.0)))
    one, other = (SharedLedger(counting.call, name, 1.0, (1.0, 1.0)) for name in ("a", "b"))
    assert one.reserve(0.6)
    assert not other.reserve(0.6)
    assert other.reserved == pytest.approx(0.6)
    one.settle(0.6, 0.1)
    time.sleep(0.25)
    assert other.reserve(0.6)


def test_a_killed_process_gives_its_permits_back(counting: Counting) -> None:
    counting.open(Limits(concurrency=2, budget_usd=1.0, price=(1.0, 1.0)))
    counting.call("begin", "worker 0", "first life").result()
    counting.call("enter", "first life").result()
    counting.call("enter", "first life").result()
    assert counting.call("reserve", "first life", 0.3).result()[0]
    late = counting.call("enter", "first life")  # it waits when its process dies
    other = counting.call("enter", "worker 1")
    time.sleep(0.05)
    assert not other.done()
    counting.call("begin", "worker 0", "second life").result()
    other.result(timeout=2)
    late.result(timeout=2)
    counts = counting.counts()
    assert counts["in_flight"] == 1, "the dead process holds no place"
    assert counts["spent"] == pytest.approx(0.3), "its answers may have been paid for"
    assert not counting.call("reserve", "first life", 0.1).result()[0]


def test_an_llm_without_limits_needs_no_permits() -> None:
    assert limits_of(LLM("m", base_url="http://127.0.0.1:9/v1")) is None
    assert limits_of(object()) is None
    assert sharing("a model", lambda *_: Future(), "x") == "a model"
