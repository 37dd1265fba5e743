"""`generate` on Ray: this process goes through the plan as without Ray, and workers ask its questions.

The workers also say which notes are copies of gold, which takes most of the time of the gates. Calls stay under way
from the first to the last. An answer is in the journal of the machine whose worker asked, and in that of this process
once it has come here: the same command then asks nobody for it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cluster.on_ray import Share, permits_of, running
from hf_synth.errors import HfSynthError
from hf_synth.generation.asking import CallAsker
from hf_synth.generation.blocks import Order
from hf_synth.generation.generation import generate_with_figures
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.llm.local import LocalLLM
from hf_synth.llm.questions import Answer, Messages, Question, access_of_llm, entry_of, with_keys
from hf_synth.llm.stream import Stream
from hf_synth.models.loading import cores
from hf_synth.reports.progress import mention
from hf_synth.task.columns import Access

if TYPE_CHECKING:
    from datasets import Dataset

_GROUP = 32  # questions of a group, at most
_AT_ONCE = 32  # groups of a worker
_OPEN = 256  # questions of a worker, where the LLM does not say how many calls it takes at once
_TIMES = 8  # questions of all workers, as a multiple of the calls that the LLM takes at once
_PAUSE = 0.005  # seconds between two looks at what has come


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
    with _Workers(order, folder, workers or cores(), address, gpus) as spread:
        return generate_with_figures(
            order.task, order.exemplars, SpreadLLM(order.llm, spread), order.n, prompt=order.prompt,
            balance=order.balance, max_calls=order.max_calls, seed=order.seed, fact_rounds=order.fact_rounds,
            copies=spread.copies,
        )  # fmt: skip


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
            for pair in with_keys(questions(), None, facts):
                question = read.popleft()
                yield pair and (pair[0], question)  # a worker needs the number of a question beside its messages

        mention(f"asking {self.model} from {self._workers.most} workers")
        asking = _Asking(self._workers, self._workers.asker_for(self._llm, settings))
        stream = Stream(asking, self._llm.open_journal(), ahead=None)  # the plan says how far it runs ahead
        yield from stream.answers(keyed())
        failures = stream.tally.failures
        if failures is not None and failures.total() == stream.tally.answers:
            self._workers.end()  # says why there is no answer


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


class _CallWorker:
    """A process of Ray that asks questions."""

    def __init__(self, name: str, permits: str | None) -> None:
        os.umask(0o077)
        self._share = Share(name, permits)
        self._askers: dict[int, CallAsker] = {}

    def ask(
        self, place: int, asker: Sequence[Any], questions: Sequence[Question]
    ) -> tuple[list[Answer], dict[bytes, bool]] | HfSynthError:
        """Return what `CallAsker.ask` does, or the error of ours that it raised.

        Args:
            place: number of the function.
            asker: as for `Share.function`.
        """
        return self._share.result(lambda: self._asker(place, asker).ask(questions))

    def _asker(self, place: int, asker: Sequence[Any]) -> CallAsker:
        with self._share.lock:
            if place not in self._askers:
                self._askers[place] = self._share.function(asker)
            return self._askers[place]

    def end(self) -> HfSynthError | None:
        """End the streams; return an error with which one ended."""
        for asker in list(self._askers.values()):
            if isinstance(error := self._share.result(asker.close), HfSynthError):
                return error
        return None


class _Workers:
    """The workers of a run; Ray is started with the first question.

    Args:
        order: the run.
        folder, address, gpus: as for `generate_on_ray`.
        most: workers.
    """

    def __init__(self, order: Order, folder: Path, most: int, address: str | None, gpus: float) -> None:
        self._order, self._folder, self._address, self._gpus, self.most = order, folder, address, gpus, most
        self._stack = contextlib.ExitStack()
        self._askers: list[tuple[CallAsker, Journal]] = []
        self._stored: dict[int, Any] = {}  # functions in Ray's store
        self._new: deque[_Ticket] = deque()
        self._running: dict[Any, tuple[list[_Ticket], int]] = {}  # by what Ray returns: tickets, number of the worker
        self._open, self._groups = [0] * most, [0] * most  # questions and groups of each worker
        self._looked = 0.0
        calls = getattr(order.llm, "concurrency", None)
        wanted = _OPEN if calls is None else -(-_TIMES * calls // most)
        self._room = max(1, min(wanted, order.llm.ahead // most))
        self._size = max(1, min(_GROUP, self._room // 4))
        self.copies: dict[bytes, bool] = {}

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Exception):  # Ctrl-C waits for no answer
                with contextlib.suppress(HfSynthError):
                    self.end()
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
        if len(self._new) >= self._size:
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
            self._take(wait=True)
        return ticket.answer

    def end(self) -> None:
        """End the streams of all workers; what they have asked is answered and kept.

        Raises:
            HfSynthError: one of them ended with it.
        """
        if not self._stored:
            return
        ray, workers = self._ray_and_workers
        try:
            errors = [error for error in ray.get([worker.end.remote() for worker in workers]) if error is not None]
        except ray.exceptions.RayError:
            return  # a worker is gone, and its stream with it
        if errors:
            raise errors[0]

    @cached_property
    def _ray_and_workers(self) -> tuple[Any, list[Any]]:
        ray = self._stack.enter_context(running(self._folder, self._address, self.most))
        self._permits, name = permits_of(ray, [self._order.llm])
        options = {"num_cpus": 0 if self._gpus else 1, "num_gpus": self._gpus, "max_concurrency": _AT_ONCE + 2}
        actor = ray.remote(_CallWorker).options(**options, max_restarts=-1, max_task_retries=-1)
        return ray, [actor.remote(str(number), name) for number in range(self.most)]

    def _give(self, *, whole: bool) -> None:
        """Hand groups of questions to workers that have room.

        Args:
            whole: whether groups that are not full wait for more questions.
        """
        while len(self._new) >= (self._size if whole else 1):
            worker = min(range(self.most), key=self._open.__getitem__)
            place = self._new[0].asker
            group = [self._new.popleft() for _ in range(min(self._size, len(self._new)))]
            while group and group[-1].asker != place:
                self._new.appendleft(group.pop())
            if self._open[worker] + len(group) > self._room or self._groups[worker] >= _AT_ONCE:
                self._new.extendleft(reversed(group))
                return
            ray, workers = self._ray_and_workers
            if place not in self._stored:
                self._stored[place] = ray.put(self._askers[place][0])
            given = place, [self._stored[place]], [ticket.question for ticket in group]
            self._running[workers[worker].ask.remote(*given)] = group, worker
            self._open[worker] += len(group)
            self._groups[worker] += 1

    def _take(self, *, wait: bool) -> None:
        """Take the groups that are answered.

        Args:
            wait: whether to wait for one.
        """
        ray, _ = self._ray_and_workers
        waited, given = list(self._running), {} if wait else {"timeout": 0}
        ready, _ = ray.wait(waited, num_returns=1 if wait else len(waited), **given)
        self._looked = time.monotonic()
        for one in ready:
            group, worker = self._running.pop(one)
            self._open[worker] -= len(group)
            self._groups[worker] -= 1
            try:
                result = ray.get(one)
            except ray.exceptions.RayError as error:
                reason = type(error).__name__
                raise HfSynthError(f"Ray failed with {reason}; answers that came are kept") from None
            if isinstance(result, HfSynthError):
                raise result
            answers, copies = result
            self.copies |= copies
            self._keep(self._askers[group[0].asker][1], answers)
            for ticket, answer in zip(group, answers, strict=True):
                ticket.answer = answer

    def _keep(self, journal: Journal, answers: Sequence[Answer]) -> None:
        """Keep answers that another machine has in its journal in that of this process, too."""
        new = [answer for answer in answers if answer.status != "error"]
        known = journal.get_many(answer.journal_key for answer in new)
        lacking = [entry_of(answer) for answer in new if answer.journal_key not in known]
        if lacking:
            journal.put_many(lacking)
