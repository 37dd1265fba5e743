"""The one path of a question, for every LLM: key -> journal -> ask for what it lacks -> commit -> answers in order.

An LLM brings an `Asking`: it leases the key, asks and commits. What an LLM says to the user about its answers is said
here, so that it is the same for all of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hf_synth.errors import JournalError
from hf_synth.llm.journal import Entry, Journal, Shared
from hf_synth.llm.leases import claim, new_owner, release, renew
from hf_synth.llm.questions import Answer, Keyed, Look, Messages, answer_of, chunks
from hf_synth.reports.progress import Stage, shown, stage

_LOG = logging.getLogger(__name__)
_LEASE_SECONDS = 60.0
_LOOK_UP_FIRST, _LOOK_UP = 8, 256  # questions looked up in the journal at once: at first, and at most

T = TypeVar("T")


class Asking(Protocol[T]):
    """What asks the questions that the journal lacks, in one call of `stream`.

    `submit` takes a question and returns a ticket for it; `is_done` tells without waiting whether the outcome is there;
    `outcome` waits for it. An outcome is an entry that is in the journal, or an answer with status "error". With
    `eager` answers are taken as soon as they are there; without it a pause takes one answer only, so that the questions
    that follow from it join the batch of the others.
    """

    eager: bool

    def submit(self, key: str, messages: Messages) -> T:
        """Take a question that the journal lacks."""

    def is_full(self) -> bool:
        """Check whether an answer must be taken before more questions are read."""

    def is_done(self, ticket: T) -> bool:
        """Check whether the outcome of a question is there."""

    def outcome(self, ticket: T) -> Entry | Answer:
        """Wait for the outcome of a question."""


@dataclass
class _Asked(Generic[T]):
    """A question that is asked, once for all of its places in the stream."""

    key: str
    ticket: T
    times: int = 0
    answer: Answer | None = None


@dataclass
class Tally:
    """Counts of the answers of one call: all, those from the journal, and the failures by code."""

    answers: int = 0
    cached: int = 0
    failures: Counter[str] | None = None

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.answers += 1
        self.cached += answer.cached
        if answer.status == "error":
            self.failures = self.failures or Counter()
            self.failures[answer.code] += 1

    @property
    def failed(self) -> str:
        """The failures as words: "3 failed, 2 timed out"; "" where there are none."""
        counts = self.failures or Counter()
        late = counts["timeout"]
        words = {"failed": counts.total() - late, "timed out": late}
        return ", ".join(f"{count:,} {word}" for word, count in words.items() if count)


class Stream(Generic[T]):
    """One call of `stream`.

    Args:
        asking: asks what the journal lacks.
        journal: looked up before anything is asked.
        ahead: how many questions may follow the oldest open one; None for no bound.
        first: questions in the first look-up, which grow up to `_LOOK_UP`.
        total: how many questions there are; None where that is not known.
        progress: show the progress; it is shown anyway within `progress.shown`.
        local: whether this machine answers; the progress then says how many tokens a second come.
    """

    def __init__(
        self,
        asking: Asking[T],
        journal: Journal,
        *,
        ahead: int | None,
        total: int | None = None,
        progress: bool = False,
        local: bool = False,
        first: int = _LOOK_UP_FIRST,
    ) -> None:
        self.tally = Tally()
        self._asking, self._journal, self._ahead, self._first = asking, journal, ahead, first
        self._total, self._progress, self._local = total, progress, local
        self._written, self._begun = 0, 0.0  # tokens that were written since the first question was asked
        self._bar = Stage()
        self._waiting: deque[Answer | _Asked[T]] = deque()
        self._open: dict[str, _Asked[T]] = {}  # questions whose outcome was not yet taken

    def answers(self, questions: Iterator[Keyed | Look | None]) -> Iterator[Answer]:
        """Yield the answers in order; a None among the questions is a pause, which takes the oldest answer.

        A `Look` takes the answers that are there; without `eager` it is a pause.
        """
        waiting, asking = self._waiting, self._asking
        counted = self._total is not None
        with shown(self._progress), stage(total=self._total, unit="answers" if counted else "") as bar:
            self._bar = bar

            def take() -> Answer:
                answer = self._take()
                self.tally.add(answer)
                self._count(answer)
                return answer

            for chunk, then in chunks(questions, self._first, _LOOK_UP):
                pause = then == "pause" or (then == "look" and not asking.eager)
                for position in self._look_up(chunk):
                    waiting.append(position)
                    while waiting and (
                        (self._is_done() and (asking.eager or not pause))
                        or asking.is_full()
                        or (self._ahead is not None and len(waiting) >= self._ahead)
                    ):
                        yield take()
                if pause and waiting:
                    yield take()
                while asking.eager and waiting and self._is_done():  # what is there is handed on together
                    yield take()
            while waiting:
                yield take()
        if self.tally.cached:
            _LOG.info("%d of %d answers came from the journal", self.tally.cached, self.tally.answers)

    def _count(self, answer: Answer) -> None:
        """Count an answer in the progress."""
        self._bar.advance()
        if answer.cached:
            self._bar.restart()
        else:
            self._written += answer.completion_tokens or 0
        self._say()

    def _say(self) -> None:
        """Show in the progress what is under way and what failed."""
        words = [f"{len(self._open):,} calls under way"] if self._open else []
        words += [self.tally.failed] if self.tally.failed else []
        passed = time.monotonic() - self._begun
        if self._local and self._begun and passed > 1 and self._written:
            words.append(f"{self._written / passed:,.0f} tokens/s")
        self._bar.words = " | ".join(words)

    def _look_up(self, chunk: list[Keyed]) -> Iterator[Answer | _Asked[T]]:
        entries = self._journal.get_many(key for key, _ in chunk if key not in self._open)
        for key, messages in chunk:
            if key in entries:
                yield answer_of(entries[key], cached=True)
                continue
            if key not in self._open:
                self._begun = self._begun or time.monotonic()
                self._open[key] = _Asked(key, self._asking.submit(key, messages))
                self._say()
            self._open[key].times += 1
            yield self._open[key]

    def _is_done(self) -> bool:
        first = self._waiting[0]
        return isinstance(first, Answer) or first.answer is not None or self._asking.is_done(first.ticket)

    def _take(self) -> Answer:
        first = self._waiting.popleft()
        if isinstance(first, Answer):
            return first
        answer = first.answer
        if answer is None:
            outcome = self._asking.outcome(first.ticket)
            shared = isinstance(outcome, Shared)
            answer = outcome if isinstance(outcome, Answer) else answer_of(outcome, cached=shared)
            first.answer = answer
        first.times -= 1
        if not first.times:
            del self._open[first.key]
        return answer


@contextmanager
def leased(journal: Journal, keys: Sequence[str]) -> Iterator[tuple[set[str], dict[str, Entry]]]:
    """Lease questions within a block, for an LLM that answers in the caller's thread.

    Yields:
        The keys that are leased, and the answers that the journal has by now. Another owner answers all others.
    """
    owner, over = new_owner(), threading.Event()

    def beat() -> None:
        while not over.wait(_LEASE_SECONDS / 4):
            with suppress(JournalError):
                renew(journal, owner, _LEASE_SECONDS)

    granted, answers = claim(journal, keys, owner, _LEASE_SECONDS)
    thread = threading.Thread(target=beat, daemon=True, name="hf_synth-leases")
    thread.start()
    try:
        yield granted, answers
    finally:
        over.set()
        thread.join()
        with suppress(JournalError):  # if the journal cannot be written, the end of this process ends them
            release(journal, owner)
