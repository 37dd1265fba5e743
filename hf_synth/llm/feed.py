"""One stream of an LLM into which several threads put questions, so that calls stay in flight between their groups."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from hf_synth.errors import LLMError
from hf_synth.llm.questions import Answer, Chat, Question

_Waiting = tuple[Question, "Future[Answer]"]


class Feed:
    """Asks groups of questions of several threads in one call of `llm.stream`.

    Args:
        llm: it is asked in a thread of its own.
        settings: keywords of `stream`, the same for all questions.

    Example:
        >>> feed = Feed(llm, {"access": "open"})
        >>> answers = feed.ask([Question([{"role": "user", "content": "a note"}])])  # doctest: +SKIP
        >>> feed.close()
    """

    def __init__(self, llm: Chat, settings: Mapping[str, Any]) -> None:
        self._llm, self._settings = llm, dict(settings)
        self._new: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()  # None wakes it up
        self._open: deque[Future[Answer]] = deque()  # of the questions that the stream has read
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None  # with which the last stream ended
        self._closing = False

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask questions; return their answers in order once all are there.

        Raises:
            HfSynthError: an error of `stream`; all questions that are open then have it.
        """
        waiting: list[Future[Answer]] = [Future() for _ in questions]
        with self._lock:
            for pair in zip(questions, waiting, strict=True):
                self._new.put(pair)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="hf_synth-feed")
                self._thread.start()
        return [future.result() for future in waiting]

    def close(self) -> None:
        """End the stream: what was asked is answered, what it has not read has an error. The next group begins another.

        Raises:
            HfSynthError: `stream` ended with it, e.g. since the endpoint answered no question.
        """
        with self._lock:
            if (thread := self._thread) is None:
                return
            self._closing = True
            self._new.put(None)
        thread.join()
        if self._error is not None:
            raise self._error

    def _questions(self) -> Iterator[Question | None]:
        while True:
            try:
                waiting = self._new.get_nowait()
            except queue.Empty:
                if self._open:
                    yield None  # there is no more to read for now: the stream takes the oldest answer
                    continue
                waiting = self._new.get()
            if waiting is None or self._closing:
                if waiting is not None:
                    waiting[1].set_exception(_closed())
                return
            self._open.append(waiting[1])
            yield waiting[0]

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for answer in self._llm.stream(self._questions(), **self._settings):
                self._open.popleft().set_result(answer)
        except BaseException as caught:  # each thread that waits raises it
            error = caught
        with self._lock:  # what was put by now has the same end; the next group begins another stream
            while not self._new.empty():
                if (waiting := self._new.get()) is not None:
                    self._open.append(waiting[1])
            while self._open:
                self._open.popleft().set_exception(error or _closed())
            self._error, self._thread, self._closing = error, None, False


def _closed() -> LLMError:
    return LLMError("the stream of answers was closed; run again to go on")
