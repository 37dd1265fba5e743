"""Generation in blocks of calls: answers are asked for anywhere, and one process goes through the plan with them.

Call j for some labels is the same call wherever it is planned (`plan.py`). The calls of a run are found in rounds. The
first round holds those that suffice if every answer is good. They are asked in blocks, and the plan is gone through
with their answers: gates, repeats, replacements of rejected rows. The calls that it then lacks are the next round. When
it lacks none, its rows are those of a run in one process.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from hf_synth.errors import LLMError, OutputError
from hf_synth.generation.gates import Gates
from hf_synth.generation.generation import Making, generate_with_figures, prepare, settings_of
from hf_synth.generation.mending import FACT_ROUNDS, Mending
from hf_synth.generation.plan import Balance, Call, Pool, Schedule
from hf_synth.generation.prompts import prompt_for
from hf_synth.generation.rows import entries_of
from hf_synth.llm.questions import Answer, Chat, Messages, Question, access_of_llm, asked_of, closing, identity_of
from hf_synth.task.columns import strictest
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

CALLS = 256  # calls of a block


@dataclass(frozen=True)
class Order:
    """What `generate` is asked for; the arguments are its own.

    Args:
        llm: it can be pickled, so that a block can be asked in another process.
    """

    task: Task
    exemplars: Dataset = field(repr=False)
    llm: Chat
    n: int | Mapping[str, int]
    prompt: Prompt | str | None = None
    balance: Balance = "equal"
    max_calls: int | None = None
    seed: int = 0
    fact_rounds: int = FACT_ROUNDS

    @property
    def shape(self) -> Prompt:
        """The prompt."""
        if isinstance(self.prompt, str):
            return prompt_for(self.task, self.prompt)
        return self.prompt or self.task.prompt

    def prepared(self) -> tuple[Pool, dict[str, int], Schedule]:
        """Return pool, quotas and schedule, as `generation.prepare` does."""
        given = self.n, self.shape, self.balance, self.max_calls, self.seed
        return prepare(self.task, self.exemplars, *given, self.llm.ahead)

    def generate(self, llm: Chat, copies: dict[bytes, bool]) -> tuple[Dataset, dict[str, Any]]:
        """Generate with an LLM that stands for that of the order, as `generate_with_figures` does.

        Args:
            copies: what is known of texts that are copies of gold, as for `Gates`.
        """
        return generate_with_figures(
            self.task, self.exemplars, llm, self.n, prompt=self.prompt, balance=self.balance, max_calls=self.max_calls,
            seed=self.seed, fact_rounds=self.fact_rounds, copies=copies,
        )  # fmt: skip

    def identity(self) -> list[Any]:
        """Return what decides an answer beside the gold and the call."""
        _, _, schedule = self.prepared()
        sampling = asked_of(self.llm, dict(self.shape.sampling))
        weights = getattr(self.llm, "weights", None)
        facts = [self.task.fingerprint(), repr(self.shape), self.llm.model, sampling, schedule.plan.rows, self.seed]
        return [*facts, self.fact_rounds, None if weights is None else weights.facts, identity_of(self.llm)]


@dataclass(frozen=True)
class CallAnswers:
    """The calls of a plan as a function of a block.

    Args:
        order: the run that the plan is of; its LLM checks in each process where gold of its access may go.
        accept_failed: whether calls that got no answer are replaced, as in one process.
    """

    order: Order
    accept_failed: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {"order": self.order, "accept_failed": self.accept_failed}

    def __call__(self, table: pa.Table) -> pa.Table:
        """Ask the calls of a table of `calls_table`; return their answers as a column "answers", a list for each call.

        Where notes are asked for again because they lack facts, the answers to that stand in the first list, too.
        The first list of column "copies" says of all their notes whether they are copies of gold, as `Gates.copies_of`
        does, so that the process that goes through the plan need not compare them again.

        Raises:
            LLMError: the budget is spent, or questions got no answer: a block that stands is never asked again. The
                answers so far are in the journal.
        """
        import pyarrow as pa

        order, (schedule, llm_of_process, settings, gates) = self.order, self._begun
        rows = zip(table["labels"].to_pylist(), table["index"].to_pylist(), strict=True)
        calls = [schedule.plan.call(tuple(labels), j) for labels, j in rows]
        llm = _Recorder(llm_of_process)
        answers = list(llm.stream([Question(call.messages, call.index) for call in calls], **settings))
        if order.shape.facts:
            mending = Mending(order.task, llm, settings, order.fact_rounds)  # type: ignore[arg-type]
            mending.mend(list(zip(calls, answers, strict=True)))
        if any(answer.code == "budget" for _, answer in llm.found):
            raise LLMError("the budget is spent; every answer is kept: raise it, and run the same command again")
        failed = sum(answer.may_come_later for _, answer in llm.found)
        if failed and not self.accept_failed:
            raise LLMError(
                f"{failed:,} of {len(llm.found):,} questions of a block got no answer; every answer is kept: run the "
                "same command again; --accept-failed goes on without those that never get one"
            )
        written = [json.dumps([mark, vars(answer) | {"logprobs": ()}]) for mark, answer in llm.found]
        lists = [[one] for one in written[: len(calls)]]
        if lists:
            lists[0] += written[len(calls) :]
        entries = (
            entry
            for call, answer in zip(calls, answers, strict=True)
            for entry in entries_of(order.task, call.labels, answer)
        )
        known = gates.copies_of([entry.row for entry in entries if entry.row])
        flags = [[f"{key.hex()} {int(copy)}" for key, copy in known.items()], *([] for _ in calls[1:])][: len(calls)]
        kinds = pa.list_(pa.large_string()), pa.list_(pa.string())
        columns = {"answers": pa.array(lists, kinds[0]), "copies": pa.array(flags, kinds[1])}
        return pa.table(columns)

    @cached_property
    def _begun(self) -> tuple[Schedule, Chat, dict[str, Any], Gates]:
        """The plan, the LLM with its journal, the keywords of `stream` and the gates; made once a process."""
        order = self.order
        pool, _, schedule = order.prepared()
        llm, settings = settings_of(order.task, order.exemplars, order.llm, order.shape, pool, schedule)
        return schedule, llm, settings, Gates(order.task, pool)


def calls_table(calls: Sequence[Call]) -> Dataset:
    """Return calls as rows: their labels, and their number among the calls for these labels."""
    from datasets import Dataset, Features, List, Value

    features = Features({"labels": List(Value("string")), "index": Value("int64")})
    columns = {"labels": [list(call.labels) for call in calls], "index": [call.index for call in calls]}
    return Dataset.from_dict(columns, features=features)


class Answers:
    """The answers of the blocks so far, by their questions.

    Args:
        read: reads the block of a number, which stays in its file; the last few are kept in memory.
    """

    def __init__(self, read: Callable[[int], pa.Table]) -> None:
        self._read, self._places = read, dict[str, tuple[int, int, int]]()
        self._kept: dict[int, list[list[str]]] = {}
        self.copies: dict[bytes, bool] = {}

    def add(self, number: int) -> None:
        """Add the answers of a block, and what it says of copies."""
        table = self._read(number)
        for flags in table["copies"].to_pylist() if "copies" in table.column_names else ():
            self.copies |= {bytes.fromhex(key): flag == "1" for key, flag in map(str.split, flags)}
        for row, answers in enumerate(self._keep(number, table)):
            for place, text in enumerate(answers):
                self._places.setdefault(json.loads(text)[0], (number, row, place))

    def get(self, question: Question) -> Answer | None:
        """Return the answer to a question; None for one that was not asked."""
        if (place := self._places.get(_mark(question))) is None:
            return None
        number, row, position = place
        facts = json.loads(self._block(number)[row][position])[1]
        return Answer(**{**facts, "logprobs": ()})

    def _block(self, number: int) -> list[list[str]]:
        return self._kept[number] if number in self._kept else self._keep(number, self._read(number))

    def _keep(self, number: int, table: pa.Table) -> list[list[str]]:
        """Keep the answers of a block in memory in the place of those that were kept first."""
        while len(self._kept) >= 8:
            del self._kept[next(iter(self._kept))]
        self._kept[number] = table["answers"].to_pylist()
        return self._kept[number]


def open_calls(order: Order, answers: Answers) -> list[Call]:
    """Go through the plan with the answers so far; return the calls that it lacks, in its order.

    Where an answer is lacking, the plan goes on as if it were good. Where `max_calls` do not suffice, a few of these
    calls may not be among those of a run in one process.
    """
    task, shape = order.task, order.shape
    pool, quotas, schedule = order.prepared()
    known = _Answered(order.llm, answers)
    access = strictest(pool.access, access_of_llm(order.llm))
    mending = Mending(task, known, {}, order.fact_rounds) if shape.facts else None
    making = Making(task, access, quotas, schedule, {}, Gates(task, pool, answers.copies), mending)
    lacking: list[Call] = []
    for question in schedule.questions():
        assert question is not None  # each call is answered before the next one is planned
        if (answer := answers.get(question)) is not None:
            making.take(answer)
            continue
        making.check()
        call = schedule.open_calls.popleft()
        lacking.append(call)
        schedule.record(call, schedule.rows_of(call))
    return lacking


def rows_of_answers(order: Order, answers: Answers) -> tuple[Dataset, dict[str, Any]]:
    """Go through the plan with all answers; return rows and figures, as `generate_with_figures` does.

    Raises:
        OutputError: an answer is lacking (`open_calls`).
    """
    return order.generate(_Answered(order.llm, answers), answers.copies)


class _Recorder:
    """An LLM that keeps each question that it is asked, with the answer."""

    def __init__(self, llm: Chat) -> None:
        self._llm = llm
        self.found: list[tuple[str, Answer]] = []

    def stream(self, list_of_messages: Iterable[Messages | Question | None], **options: Any) -> Iterator[Answer]:
        """Yield the answers of the LLM."""
        asked: deque[str] = deque()

        def noted() -> Iterator[Messages | Question | None]:
            for question in list_of_messages:
                if isinstance(question, Question):
                    asked.append(_mark(question))
                yield question

        with closing(self._llm.stream(noted(), **options)) as answers:
            for answer in answers:
                self.found.append((asked.popleft(), answer))
                yield answer


class _Answered:
    """An LLM that has answered: it stands for `llm`, and asks nothing."""

    def __init__(self, llm: Chat, answers: Answers) -> None:
        self._llm, self._answers = llm, answers
        self.model, self.journal, self.ahead = llm.model, llm.journal, llm.ahead
        self.sampling = getattr(llm, "sampling", {})
        self.access = access_of_llm(llm)
        self.weights = getattr(llm, "weights", None)

    def with_journal(self, path: Any) -> _Answered:
        """Return itself: nothing is written."""
        return self

    def keep(self, keys: Sequence[str]) -> None:
        """Keep answers that the server cut in the journal of this process, as far as it has them."""
        self._llm.keep(keys)

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Return the answers in order."""
        return list(self.stream(list_of_messages, **options))

    def stream(self, list_of_messages: Iterable[Messages | Question | None], **options: Any) -> Iterator[Answer]:
        """Yield the answers in order."""
        for question in list_of_messages:
            if question is None:
                continue
            answer = self._answers.get(question) if isinstance(question, Question) else None
            if answer is None:
                raise OutputError("a block lacks an answer: delete the blocks, and run the shards again")
            yield answer


def _mark(question: Question) -> str:
    """Return a digest of a question."""
    plain = [dict(message) for message in question.messages]
    return sha256(json.dumps([plain, question.sample], sort_keys=True).encode()).hexdigest()[:32]
