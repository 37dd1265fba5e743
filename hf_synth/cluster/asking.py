"""`generate` on Ray: this process goes through the plan as without Ray, and workers ask its questions.

The workers also say which notes are copies of gold, which takes most of the time of the gates. Calls stay under way
from the first to the last. An answer is in the journal of the machine whose worker asked, and in that of this process
once it has come here: the same command then asks nobody for it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cluster.on_ray import Worker, permits_of, places_of, running, workers_of
from hf_synth.errors import HfSynthError
from hf_synth.generation.asking import Asked, CallAsker
from hf_synth.generation.blocks import Order
from hf_synth.llm.commits import LAST_ANSWERS
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.llm.local import LocalLLM
from hf_synth.llm.permits import add_spent
from hf_synth.llm.questions import Answer, Messages, Question, access_of_llm, entry_of, with_keys
from hf_synth.llm.stream import Stream
from hf_synth.models.loading import cores
from hf_synth.reports.progress import mention
from hf_synth.task.columns import Access

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
_GROUP = 32  # questions of a group, at most
_AT_ONCE = 32  # groups of a worker, at most
_GROUPS = 16  # groups of a worker: those behind a slow answer are asked meanwhile
_CALLS = 16  # calls that a worker makes at once, where the LLM does not say how many it takes
_PAUSE = 0.005  # seconds between two looks at what has come
_TIMEOUT = 600.0  # seconds of a batch of a LocalLLM
_SOON = 10.0  # seconds in which workers end that have nothing under way


def generate_on_ray(
    order: Order, *, folder: Path, workers: int | None = None, address: str | None = None, gpus: float = 0
) -> tuple[Dataset, dict[str, Any]]:
    """Generate as `generate_with_figures` does; workers of Ray ask the questions that the journal lacks.

    Args:
        folder: for the files of Ray; private.
        workers, address, gpus: as for `on_ray.run_on_ray`.

    Raises:
        HfSynthError: the LLM is neither an `LLM` nor a `LocalLLM`; Ray is not installed, cannot be started or fails.
        ColumnError, LLMError, TaskError: as for `generate`.
    """
    if not isinstance(order.llm, LLM | LocalLLM):
        raise HfSynthError("on Ray an LLM or a LocalLLM is asked; leave engine out for another one, such as a BatchLLM")
    with _Workers(order, folder, workers, address, gpus) as spread:
        return order.generate(SpreadLLM(order.llm, spread), spread.copies)


class SpreadLLM:
    """An LLM whose questions are asked by workers.

    Args:
        llm: the LLM that it stands for.
        workers: they ask.
    """

    def __init__(self, llm: LLM | LocalLLM, workers: _Workers) -> None:
        self._llm, self._workers = llm, workers
        self.model, self.journal, self.ahead = llm.model, llm.journal, llm.ahead
        self.sampling, self.weights = llm.sampling, llm.weights

    @property
    def access(self) -> Access:
        """The access of the LLM."""
        return access_of_llm(self._llm)

    def with_journal(self, path: str | Path) -> SpreadLLM:
        """Return a copy with another journal."""
        return SpreadLLM(self._llm.with_journal(path), self._workers)

    def keep(self, keys: Sequence[str]) -> None:
        """Keep answers that were cut by the server after all, in the journal of this process."""
        self._llm.keep(keys)

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Return the answers in order."""
        return list(self.stream(list_of_messages, **options))

    def stream(self, list_of_messages: Iterable[Messages | Question | None], **settings: Any) -> Iterator[Answer]:
        """Yield the answers in order as they arrive.

        Args:
            list_of_messages: as for `LLM.stream`; each has a number.
            settings: `access`, `schema`, `scope` and sampling, as for `LLM.stream`.
        """
        sampling = {name: value for name, value in settings.items() if name not in ("access", "schema", "scope")}
        facts = self._llm.key_facts(sampling, settings.get("schema"), settings.get("scope", ""))
        read = deque[Any]()  # questions of which the key is made

        def questions() -> Iterator[Any]:
            for question in list_of_messages:
                read.append(question)
                yield question

        def keyed() -> Iterator[Any]:
            pair: Any
            for pair in with_keys(questions(), None, facts):
                question = read.popleft()
                yield pair and (pair[0], question)  # a worker needs the number of a question beside its messages

        asking = _Asking(self._workers, self._workers.asker_for(self._llm, settings))
        stream = Stream(asking, self._llm.open_journal(), ahead=None)  # the plan says how far it runs ahead
        yield from stream.answers(keyed())
        failures = stream.tally.failures
        if failures is not None and failures.total() == stream.tally.answers:
            self._workers.explain()


class _Asking:
    """Hands on what the journal lacks in one call of `stream`."""

    eager = True

    def __init__(self, workers: _Workers, asker: int) -> None:
        self._workers, self._asker = workers, asker

    def submit(self, key: str, question: Any) -> _Ticket:
        return self._workers.put(_Ticket(self._asker, question))

    def is_full(self) -> bool:
        return False

    def is_done(self, ticket: _Ticket) -> bool:
        return self._workers.is_done(ticket)

    def outcome(self, ticket: _Ticket) -> Answer:
        return self._workers.wait(ticket)


@dataclass(eq=False)
class _Ticket:
    """A question, the number of the function that asks it, and its answer once it is there."""

    asker: int
    question: Question
    answer: Answer | None = None


class _CallWorker(Worker):
    """A process of Ray that asks questions."""

    def ask(self, place: int, asker: Sequence[Any], questions: Sequence[Question]) -> Asked | HfSynthError:
        """Return what `CallAsker.ask` does, or the error of ours that it raised; arguments as for `Share.function`."""
        return self.share.result(lambda: self.share.function(place, asker).ask(questions))

    def end(self, now: bool) -> HfSynthError | None:
        """End the streams, `now` as for `Feed.close`; return an error with which one ended."""
        ended = [self.share.result(partial(one.close, now=now)) for one in self.share.functions()]
        return next((error for error in ended if isinstance(error, HfSynthError)), None)


class _Workers:
    """The workers of a run; Ray is started with the first question.

    Args:
        order: the run.
        folder, workers, address, gpus: as for `generate_on_ray`.
    """

    def __init__(self, order: Order, folder: Path, workers: int | None, address: str | None, gpus: float) -> None:
        self._order, self._folder, self._wanted, self._address, self._gpus = order, folder, workers, address, gpus
        self._stack = contextlib.ExitStack()
        self._askers: list[tuple[CallAsker, Journal]] = []
        self._stored: dict[int, Any] = {}  # functions in Ray's store
        self._new: deque[_Ticket] = deque()
        # By what Ray returns: tickets (none for the begin of a worker), and the number of the worker.
        self._running: dict[Any, tuple[list[_Ticket], int]] = {}
        self._begun: dict[int, Any] = {}  # workers by number
        self._looked = 0.0
        self.copies: dict[bytes, bool] = {}

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with contextlib.suppress(HfSynthError):
                self._finish(failed=kind is not None, now=kind is not None and not issubclass(kind, Exception))
        finally:
            self._stack.close()

    def asker_for(self, llm: LLM | LocalLLM, settings: Mapping[str, Any]) -> int:
        """Return the number of the function that asks questions with these settings."""
        for number, (asker, _) in enumerate(self._askers):
            if asker.llm is llm and asker.settings == settings:
                return number
        self._askers.append((CallAsker(replace(self._order, llm=llm), dict(settings)), llm.open_journal()))
        return len(self._askers) - 1

    def put(self, ticket: _Ticket) -> _Ticket:
        """Take a question."""
        self._new.append(ticket)
        self._give(whole=True)
        return ticket

    def is_done(self, ticket: _Ticket) -> bool:
        """Return whether the answer to a question is there."""
        if ticket.answer is None and self._running and time.monotonic() - self._looked > _PAUSE:
            self._take(wait=False)
        return ticket.answer is not None

    def wait(self, ticket: _Ticket) -> Answer:
        """Wait for the answer to a question.

        Raises:
            HfSynthError: a worker failed; what others had asked is answered and kept.
        """
        while ticket.answer is None:
            self._give(whole=False)
            if ticket.answer is None:
                self._take(wait=True)
        return ticket.answer

    def explain(self) -> None:
        """Raise the reason why a stream got no answer, unless questions of another stream are under way.

        Raises:
            HfSynthError: a worker knows why.
        """
        if not self._new and not any(group for group, _ in self._running.values()):
            self._end(_SOON)

    def _finish(self, *, failed: bool, now: bool = False) -> None:
        """End the streams of all workers; where the run failed, what they have asked is answered and kept.

        Args:
            now: Ctrl-C stops the run: workers send nothing more, and have `LAST_ANSWERS` for the answers under way.
        """
        if not self._begun:
            return
        patience = getattr(self._order.llm, "timeout", _TIMEOUT) if failed else _SOON
        if now:
            patience = min(patience, LAST_ANSWERS)
            _LOG.warning("stopping: waiting up to %.3g s for answers of workers (Ctrl-C again drops them)", patience)
        with contextlib.suppress(HfSynthError):
            self._end(patience, now=now)
        while asked := [one for one, (group, _) in self._running.items() if group]:
            ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=_SOON if failed else 0)
            for one in ready:
                self._taken(one)
            if len(ready) < len(asked):
                break

    def _end(self, seconds: float, *, now: bool = False) -> None:
        """End the streams of the workers that have begun, which takes so many seconds at most.

        Args:
            now: as for `Feed.close`.

        Raises:
            HfSynthError: one of them ended with it.
        """
        ends = [worker.end.remote(now) for worker in self._begun.values()]
        ready, _ = self._ray.wait(ends, num_returns=len(ends), timeout=seconds) if ends else ([], [])
        for one in ready:
            with contextlib.suppress(self._ray.exceptions.RayError):  # a worker is gone, and its stream with it
                if (error := self._ray.get(one)) is not None:
                    raise error

    @cached_property
    def _ray(self) -> Any:
        """The module; its first use starts the workers."""
        ray = self._stack.enter_context(running(self._folder, self._address, self._wanted or cores()))
        most = places_of(ray, self._wanted, self._gpus, self._address)
        llm = self._order.llm
        self._permits, name = permits_of(ray, [llm])
        mention(f"asking {llm.model} from {most:,} {'worker' if most == 1 else 'workers'}")
        self._workers = workers_of(ray, _CallWorker, most, self._gpus, name, at_once=_AT_ONCE + 2)
        self._running = {worker.begin.remote(): ([], number) for number, worker in enumerate(self._workers)}
        self._measure(most)
        return ray

    def _measure(self, most: int) -> None:
        """Decide how many questions a group and a worker may have."""
        calls = getattr(self._order.llm, "concurrency", None)
        own = _CALLS if calls is None else -(-calls // most)
        self._room = max(1, min(2 * own * _GROUPS, self._order.llm.ahead // most))
        self._size = max(1, min(_GROUP, 2 * own, self._room // 4))
        self._open, self._groups = [0] * most, [0] * most  # questions and groups of each worker

    def _give(self, *, whole: bool) -> None:
        """Hand groups of questions to workers that have begun and have room.

        Args:
            whole: whether groups that are not full wait for more questions.
        """
        ray = self._ray
        while self._begun and len(self._new) >= (self._size if whole else 1):
            worker = min(self._begun, key=self._open.__getitem__)
            place = self._new[0].asker
            group = [self._new.popleft() for _ in range(min(self._size, len(self._new)))]
            while group[-1].asker != place:
                self._new.appendleft(group.pop())
            if self._open[worker] + len(group) > self._room or self._groups[worker] >= _AT_ONCE:
                self._new.extendleft(reversed(group))
                return
            if place not in self._stored:
                self._stored[place] = ray.put(self._askers[place][0])
            given = place, [self._stored[place]], [ticket.question for ticket in group]
            self._running[self._begun[worker].ask.remote(*given)] = group, worker
            self._open[worker] += len(group)
            self._groups[worker] += 1

    def _take(self, *, wait: bool) -> None:
        """Take the groups that are answered.

        Args:
            wait: whether to wait for one.

        Raises:
            HfSynthError: a worker failed.
        """
        waited, given = list(self._running), {} if wait else {"timeout": 0}
        ready, _ = self._ray.wait(waited, num_returns=1 if wait else len(waited), **given)
        self._looked = time.monotonic()
        errors = [error for one in ready if (error := self._taken(one)) is not None]
        if errors:
            raise errors[0]

    def _taken(self, one: Any) -> HfSynthError | None:
        """Take what a call of a worker returned: keep the answers, and return the error."""
        group, worker = self._running.pop(one)
        if group:
            self._open[worker] -= len(group)
            self._groups[worker] -= 1
        try:
            result = self._ray.get(one)
        except self._ray.exceptions.RayError as error:
            return HfSynthError(f"Ray failed with {type(error).__name__}; answers that came are kept")
        if not group:
            self._begun[worker] = self._workers[worker]
            return None
        if isinstance(result, HfSynthError):
            return result
        asked: Asked = result
        answers, copies, failed = asked
        self.copies |= copies
        self._keep(self._askers[group[0].asker][1], answers)
        add_spent(self._order.llm, sum(answer.cost or 0.0 for answer in answers if not answer.cached))
        for ticket, answer in zip(group, answers, strict=failed is None):
            ticket.answer = answer
        return failed

    def _keep(self, journal: Journal, answers: Sequence[Answer]) -> None:
        """Keep answers that another machine has in its journal in that of this process, too."""
        new = [answer for answer in answers if answer.status != "error"]
        known = journal.get_many(answer.journal_key for answer in new)
        lacking = [entry_of(answer) for answer in new if answer.journal_key not in known]
        if lacking:
            journal.put_many(lacking)
