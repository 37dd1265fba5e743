"""Questions of several threads in one stream: answers in order, calls that stay under way, errors for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import Said, serving

from hf_synth.errors import LLMError
from hf_synth.llm.feed import Feed
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Answer, Question


def question(word: str) -> Question:
    return Question([{"role": "user", "content": word}])


def words_of(answers: Iterable[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def echo(request: dict[str, Any], _: int) -> Said:
    return Said(request["messages"][-1]["content"].upper(), delay=0.05)


def test_groups_of_several_threads_share_one_stream(tmp_path: Path) -> None:
    groups = [[f"{group}-{i}" for i in range(6)] for group in range(5)]
    with serving(echo) as server:
        llm = LLM("m", base_url=server.url, concurrency=8, journal=tmp_path / "j.sqlite")
        feed = Feed(llm, {"access": "open"})
        with ThreadPoolExecutor(5) as threads:
            found = list(threads.map(lambda group: words_of(feed.ask([question(word) for word in group])[0]), groups))
        feed.close()
        assert found == [[word.upper() for word in group] for group in groups]
        assert server.peak > 6, "calls of several groups are under way together"
        again = feed.ask([question("5-0")])  # another stream begins
        feed.close()
    assert words_of(again[0]) == ["5-0"]
    assert feed._thread is None, "no thread is left"


def test_a_slow_answer_keeps_no_later_question_waiting(tmp_path: Path) -> None:
    begun, later = threading.Event(), threading.Event()

    def slowly(request: dict[str, Any], number: int) -> Said:
        slow = request["messages"][-1]["content"] == "slow"
        (begun if slow else later).set()
        return Said("slow" if slow else "later", delay=0.6 if slow else 0.0)

    with serving(slowly) as server:
        llm = LLM("m", base_url=server.url, concurrency=8, journal=tmp_path / "j.sqlite")
        llm.chat([question("first")], access="open")  # it is alone: the endpoint is not known yet
        later.clear()
        feed = Feed(llm, {"access": "open"})
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(feed.ask, [question("slow")])
            assert begun.wait(10)
            then = threads.submit(feed.ask, [question("a"), question("b")])
            assert later.wait(10)
            assert not first.done(), "later questions are asked while the oldest one is open"
            assert [words_of(one.result()[0]) for one in (first, then)] == [["slow"], ["later", "later"]]
        feed.close()


class Broken:
    """An LLM that answers some questions, and fails."""

    def __init__(self, good: int) -> None:
        self.good, self.streams = good, 0

    def stream(self, questions: Iterable[Any], **_: Any) -> Iterator[Answer]:
        self.streams += 1
        for question in questions:
            if question is None:
                continue
            if self.good == 0:
                raise LLMError("the endpoint is gone")
            self.good -= 1
            yield Answer(question.messages[0]["content"], "ok")


def test_an_error_reaches_every_question_that_is_open_and_the_next_group_begins_another_stream() -> None:
    llm = Broken(2)
    feed = Feed(llm, {})  # type: ignore[arg-type]
    answers, error = feed.ask([question(word) for word in "abcd"])
    assert words_of(answers) == ["a", "b"], "what was answered before it is handed on"
    assert isinstance(error, LLMError)
    assert "is gone" in str(error)
    llm.good = 9
    assert feed.ask([question("e")]) == ([Answer("e", "ok")], None)
    assert llm.streams == 2
    feed.close()
    feed.close()  # nothing is open


def test_what_was_asked_when_a_feed_closes_is_answered_and_what_waits_has_an_error(tmp_path: Path) -> None:
    begun = threading.Event()

    def slowly(request: dict[str, Any], number: int) -> Said:
        begun.set()
        return Said("yes", delay=0.4)

    with serving(slowly) as server:
        llm = LLM("m", base_url=server.url, concurrency=1, journal=tmp_path / "j.sqlite")
        feed = Feed(llm, {"access": "open"})
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(feed.ask, [question(str(i)) for i in range(40)])
            assert begun.wait(10)
            feed.close()
            answers, error = waiting.result()
        assert "closed; run again" in str(error)
        asked = len(server.requests)
        assert len(answers) == asked, "what was asked is answered"
        assert 1 <= asked <= 8, "what the stream had read"
        keys = llm.chat([question(str(i)) for i in range(asked)], access="open")
    assert all(answer.cached for answer in keys), "what was asked is kept"


def test_an_endpoint_that_answers_nothing_is_said_when_the_feed_closes(tmp_path: Path) -> None:
    with serving(lambda *_: Said(status=500)) as server:
        feed = Feed(LLM("m", base_url=server.url, journal=tmp_path / "j.sqlite", max_retries=0), {"access": "open"})
        assert [answer.status for answer in feed.ask([question("a")])[0]] == ["error"]
        with pytest.raises(LLMError, match="answered no question"):
            feed.close()
