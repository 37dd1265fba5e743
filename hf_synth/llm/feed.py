"""One stream of an LLM into which several threads put questions, so that calls stay in flight between their groups."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from hf_synth.errors import HfSynthError, LLMError
from hf_synth.llm.questions import LOOK, Answer, Chat, Question

_Waiting = tuple[Question, "Future[Answer]"]
_CLOSED = "the stream of answers was closed; run again to go on"
_PAUSE = 0.01  # seconds between two looks at the answers, while there is no further question


class Feed:
    """Asks groups of questions of several threads in one call of `llm.stream`.

    Args:
        llm: it is asked in a thread of its own.
        settings: keywords of `stream`, the same for all questions.

    Example:
        >>> feed = Feed(llm, {"access": "open"})
        >>> answers, _ = feed.ask([Question([{"role": "user", "content": "a note"}])])  # doctest: +SKIP
        >>> feed.close()
    """

    def __init__(self, llm: Chat, settings: Mapping[str, Any]) -> None:
        self._llm, self._settings = llm, dict(settings)
        self._new: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()  # None wakes the stream up
        self._read: deque[_Waiting] = deque()  # of a group whose questions the stream reads
        self._open: deque[Future[Answer]] = deque()  # of the questions that the stream has read
        self._answered = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None  # with which the last stream ended
        self._closing = self._now = False

    def ask(self, questions: Sequence[Question]) -> tuple[list[Answer], HfSynthError | None]:
        """Ask questions; return their answers in order once all are there, and None.

        Where `stream` ends with an error of ours, or the feed is closed, return the answers before that, and the error.
        Any other exception of `stream` is raised.
        """
        group: list[_Waiting] = [(question, Future()) for question in questions]
        with self._lock:
            self._new.put(group)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="hf_synth-feed")
                self._thread.start()
        answers = []
        try:
            for _, future in group:
                answers.append(future.result())
        except HfSynthError as error:
            return answers, error
        return answers, None

    def close(self, *, now: bool = False) -> None:
        """End the stream: what was asked is answered, what it has not read has an error. The next group begins another.

        Args:
            now: send nothing more, as after Ctrl-C: answers under way go to the journal, as far as they come in time.

        Raises:
            HfSynthError: `stream` ended with it, e.g. since the endpoint answered no question.
        """
        with self._lock:
            if (thread := self._thread) is None:
                return
            self._closing, self._now = True, now
            self._new.put(None)
        if now and (halt := getattr(self._llm, "halt", None)) is not None:
            halt()
        thread.join()
        if self._error is not None and not now:
            raise self._error

    def _questions(self) -> Iterator[Any]:
        looked = -1  # answers that had come when the stream looked last
        while not self._closing:
            if self._read:
                question, future = self._read.popleft()
                self._open.append(future)
                yield question
                continue
            try:
                if not self._open:
                    group = self._new.get()
                elif looked == self._answered:
                    group = self._new.get(timeout=_PAUSE)
                else:
                    group = self._new.get_nowait()
            except queue.Empty:
                looked = self._answered
                yield LOOK
            else:
                self._read.extend(group or ())
        if self._now:
            raise LLMError(_CLOSED)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for answer in self._llm.stream(self._questions(), **self._settings):
                self._answered += 1
                self._open.popleft().set_result(answer)
        except BaseException as caught:  # each thread that waits raises it
            error = caught
        with self._lock:  # what was put by now has the same end; the next group begins another stream
            while not self._new.empty():
                self._read.extend(self._new.get() or ())
            for future in (*self._open, *(future for _, future in self._read)):
                future.set_exception(error or LLMError(_CLOSED))
            self._open.clear()
            self._read.clear()
            self._error, self._thread, self._closing = error, None, False
            self._now = False
