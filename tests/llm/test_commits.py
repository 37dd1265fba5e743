"""A run that is stopped sends nothing more, and keeps the answers that are under way: they are paid for."""

from __future__ import annotations

import concurrent.futures.thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, content, serving

from hf_synth.errors import LLMError
from hf_synth.llm import commits
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Messages


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Take SIGINT as an interrupt, also where a shell has its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def questions(n: int) -> list[Messages]:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(n)]


def press(ready: Callable[[], bool], *after: float) -> threading.Thread:
    """Send SIGINT to this process when it is ready, and again after so many seconds."""

    def send() -> None:
        while not ready():
            time.sleep(0.005)
        for seconds in (0.0, *after):
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def make(server: LLMServer, folder: Path, **how: Any) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "j.sqlite", **{"concurrency": 4, **how})


def kept(folder: Path) -> int:
    with Journal(folder / "j.sqlite", read_only=True) as journal:
        return len(journal)


def test_what_the_server_has_begun_is_kept_and_not_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(lambda *_: Said("yes", delay=0.3)) as server:
        llm = make(server, tmp_path)
        llm.chat([[{"role": "user", "content": "before"}]], access="open")
        pressed = press(lambda: len(server.requests) >= 5)
        with pytest.raises(KeyboardInterrupt):
            llm.chat(questions(40), access="open")
        pressed.join()
        assert len(server.requests) == 5, "nothing more is sent"
        assert kept(tmp_path) == 5
        assert "stopping: waiting up to 25 s for 4 answers (Ctrl-C again drops them)" in caplog.messages
        answers = make(server, tmp_path).chat(questions(8), access="open")
        assert sum(answer.cached for answer in answers) == 4
        assert len(server.requests) == 9


def test_a_second_interrupt_drops_them_at_once_and_keeps_what_has_come(tmp_path: Path) -> None:
    with serving(lambda _, number: Said("yes", delay=0.05 if number < 5 else 30)) as server:
        pressed = press(lambda: len(server.requests) >= 9, 0.3)
        with pytest.raises(KeyboardInterrupt):
            make(server, tmp_path).chat(questions(40), access="open")
        pressed.join()
        ended = time.monotonic()
        assert kept(tmp_path) == 5
        assert not any(thread.name == "hf_synth-llm" and thread.is_alive() for thread in threading.enumerate())
        assert time.monotonic() - ended < 1


@pytest.mark.parametrize("timeout", [0.3, 60], ids=["by the timeout", "by the bound"])
def test_a_server_that_hangs_is_not_waited_for_without_end(
    timeout: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_synth.llm.calls.LAST_ANSWERS", 0.3)
    with serving(lambda *_: Said(hang=True)) as server:
        press(lambda: len(server.requests) >= 1)
        with pytest.raises(KeyboardInterrupt):
            make(server, tmp_path, timeout=timeout).chat(questions(9), access="open")
        assert len(server.requests) <= 4, "what timed out is not asked again"
    assert kept(tmp_path) == 0


def test_a_stream_that_is_left_keeps_what_is_under_way(tmp_path: Path) -> None:
    with serving(lambda *_: Said("yes", delay=0.1)) as server:
        answers = make(server, tmp_path).stream(iter(questions(40)), access="open")
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        assert kept(tmp_path) == len(server.requests) < 40


def test_a_stream_that_is_open_when_the_process_ends_keeps_what_is_under_way(tmp_path: Path) -> None:
    calls = [getattr(call, "func", None) for call in threading._threading_atexits]  # type: ignore[attr-defined]
    assert calls.index(commits._close_all) > calls.index(concurrent.futures.thread._python_exit), "called before it"
    with serving(lambda *_: Said("yes", delay=0.1)) as server:
        answers = make(server, tmp_path).stream(iter(questions(40)), access="open")
        next(answers)
        commits._close_all()
        assert kept(tmp_path) == len(server.requests) < 40
        answers.close()  # type: ignore[attr-defined]


def test_a_call_that_was_asked_twice_is_kept_too(tmp_path: Path) -> None:
    with serving(lambda _, number: Said("yes", delay=0.5 if number >= 24 else 0.0)) as server:
        llm = make(server, tmp_path, hedge=True)
        llm.chat(questions(24), access="open")  # the usual time is known from now on
        press(lambda: len(server.requests) >= 25)
        with pytest.raises(KeyboardInterrupt):
            llm.chat([[{"role": "user", "content": "late"}]], access="open")
    assert kept(tmp_path) == 25


def test_a_refusal_under_way_is_not_sent_again_in_other_words(tmp_path: Path) -> None:
    """What an endpoint refuses of a request is learnt, and the question sent once more; not when the run is stopped."""
    no = b'{"error": {"message": "Unsupported parameter: temperature", "param": "temperature"}}'
    with serving(lambda *_: Said(status=400, body=no, delay=0.3)) as server:
        press(lambda: len(server.requests) >= 1)
        with pytest.raises(KeyboardInterrupt):
            make(server, tmp_path).chat(questions(3), access="open", temperature=1.0)
        assert len(server.requests) == 1


def test_answers_under_way_are_kept_when_a_run_gives_up(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], number: int) -> Said:
        slow = content(request) in ("question 1", "question 2")
        return Said("yes", delay=0.5) if slow else Said("yes") if number == 0 else Said(status=500)

    with serving(answer) as server:
        llm = make(server, tmp_path, concurrency=24, max_retries=0)
        with pytest.raises(LLMError, match="questions in a row"):
            llm.chat(questions(60), access="open")
    assert kept(tmp_path) == 3
