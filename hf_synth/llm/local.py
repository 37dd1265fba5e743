"""LocalLLM: a causal language model in this process, as a value; nothing of it leaves the machine.

`chat` writes the answers of many questions in batches of like length, and hands an answer on only once the journal has
it on disk. What a question is answered follows from its own key: each row of a batch draws its luck from a generator of
its own. Rounding still depends on the shape of a batch (most of all in bfloat16), so that one answer in many may come
out otherwise among other questions; once it is in the journal it stays.

What the libraries say is never logged or put into an error, since they may quote the prompt: only the kind of error.
"""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hf_synth.errors import LLMError
from hf_synth.llm.decoding import Checkpoint, Loaded, Row, Sampling, checked_sampling, free_memory, is_out_of_memory
from hf_synth.llm.journal import Entry, Journal, default_journal
from hf_synth.llm.questions import Answer, Messages, Question, answer_of, check_sampling, deciding, keyed, seed_of
from hf_synth.models.tokens import batches

_LOG = logging.getLogger(__name__)
_LOOK_AHEAD = 256  # questions looked up at once, and sorted by length


@dataclass(frozen=True, eq=False)
class LocalLLM:
    """A causal language model that runs in this process. Making one is cheap; it is loaded for the first new question.

    Answers are keyed by the model's files, the messages and the sampling, not by device, dtype or batch size. The
    sampling defaults of a model's own generation config are not used: temperature 1 and no bounds, unless given.

    Args:
        model: a folder, or the id of a Hub repository (found in the cache alone where HF_HUB_OFFLINE is set).
        journal: file that keeps the answers; `.hf_synth/journal.sqlite` in the working folder when None.
        revision: of a repository: branch, tag or commit.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" for all there are; CUDA where there is one when None.
        dtype: of the weights, e.g. "float16"; bfloat16 on CUDA and float32 on a CPU when None.
        batch_tokens: tokens of one batch, read and written; 65,536 on CUDA and 8,192 on a CPU when None. A batch that
            does not fit into a GPU's memory is halved.
        max_new_tokens: the most tokens of an answer where no `max_tokens` is given.

    Raises:
        LLMError: an argument makes no sense.
    """

    model: str
    journal: str | Path | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    max_new_tokens: int = 1024
    _opened: Journal | None = field(init=False, repr=False, default=None)
    _checkpoint: Checkpoint = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not str(self.model) or self.max_new_tokens < 1 or (self.batch_tokens is not None and self.batch_tokens < 1):
            raise LLMError("a LocalLLM needs a model, and max_new_tokens and batch_tokens of at least 1")
        if isinstance(self.model, Path):  # one that is missing must not pass for the id of a repository
            object.__setattr__(self, "model", os.path.join(".", self.model))
        object.__setattr__(self, "_checkpoint", Checkpoint(self.model, self.revision, self.device, self.dtype))

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalLLM, tuple(getattr(self, f.name) for f in fields(self) if f.init)

    @property
    def ahead(self) -> int:
        """Questions that a plan may put before an answer that could change it."""
        return _LOOK_AHEAD * 4

    @property
    def loaded(self) -> Loaded:
        """The model in memory, which is loaded when it is first asked for.

        Raises:
            ModelError: it cannot be found or loaded.
        """
        return self._checkpoint.loaded

    def with_journal(self, path: str | Path) -> LocalLLM:
        """Give the same LocalLLM with its journal elsewhere; the model stays in memory once."""
        other = replace(self, journal=path)
        object.__setattr__(other, "_checkpoint", self._checkpoint)
        return other

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and give their answers in order.

        Args:
            list_of_messages: for each question its messages, as {"role": ..., "content": ...}.
            options: as for `stream`.
        """
        return list(self.stream(list_of_messages, **{"ahead": None, **options}))

    def stream(
        self,
        list_of_messages: Iterable[Messages | Question | None],
        *,
        access: str | None = None,
        schema: Mapping[str, Any] | None = None,
        samples: Iterable[int] | None = None,
        scope: str = "",
        progress: bool = False,
        ahead: int | None = 4096,
        **sampling: Any,
    ) -> Iterator[Answer]:
        """Give the answers in order as they come, in bounded memory.

        Args:
            list_of_messages: read some hundred ahead, so that questions of like length meet; may be a generator. A None
                among them is a pause: the oldest question under way is answered before the next one is read.
            access: of what the messages hold; nothing leaves the machine, so anything may be asked.
            schema: not enforced, and no part of the key: answers are to be parsed tolerantly.
            samples: a number for each question; equal messages with another number are another question. When None,
                how often the same messages came before in this call.
            scope: another part of the journal's key, e.g. the fingerprint of a task.
            progress: show a progress bar.
            ahead: how many questions may be ahead of the oldest one without an answer; None for no bound.
            sampling: temperature (0 takes the likeliest token), top_p, top_k, repetition_penalty, max_tokens or
                max_completion_tokens, stop (a string or several, left out of the answer), seed. A seed is a part of the
                key, which the luck of each question follows from: equal questions of other samples differ under it.

        Yields:
            An answer for each question, "truncated" with code "length" where it ended at a limit. One that cannot be
            answered has status "error" with code "too_long" (the prompt fills the model's context) or "out_of_memory".

        Raises:
            LLMError: a sampling parameter is unknown or wrong, or the model fails. What was answered is kept.
            ModelError: the model cannot be found or loaded.
            JournalError: the journal cannot be read or written.
        """
        check_sampling(sampling)
        how = checked_sampling(sampling, self.max_new_tokens)
        from tqdm import tqdm

        waiting: deque[_Ticket] = deque()
        most_waiting = math.inf if ahead is None else ahead
        total = len(list_of_messages) if isinstance(list_of_messages, Sequence) else None
        with tqdm(total=total, disable=not progress, unit="answer", desc=self.model) as bar:
            asking = _Asking(self, how)
            questions = keyed(list_of_messages, samples, deciding(self._checkpoint.digest, asdict(how), None, scope))
            for chunk, pause in _chunks(questions):
                waiting.extend(asking.tickets(chunk))
                while waiting and (
                    # a pause takes one of the answers that are there, so that the others have company to come
                    (waiting[0].answer and not pause)
                    or len(asking.unanswered) >= _LOOK_AHEAD
                    or len(waiting) >= most_waiting
                ):
                    yield asking.answer(waiting.popleft())
                    bar.update()
                if pause and waiting:
                    yield asking.answer(waiting.popleft())
                    bar.update()
            while waiting:
                yield asking.answer(waiting.popleft())
                bar.update()

    def open_journal(self) -> Journal:
        """Give the journal, opened once for this LocalLLM and closed with it."""
        journal = self._opened
        if journal is None:
            journal = Journal(self.journal if self.journal is not None else default_journal())
            weakref.finalize(self, journal.close)
            object.__setattr__(self, "_opened", journal)
        return journal


Keyed = tuple[str, list[dict[str, str]]]


def _chunks(questions: Iterator[Keyed | None]) -> Iterator[tuple[list[Keyed], bool]]:
    """Group questions for looking up, and say whether a pause follows the group."""
    chunk: list[Keyed] = []
    for question in questions:
        if question is not None:
            chunk.append(question)
        if question is None or len(chunk) >= _LOOK_AHEAD:
            yield chunk, question is None
            chunk = []
    yield chunk, False


# --- one call of chat -----------------------------------------------------------------------------------------------
@dataclass(eq=False)
class _Ticket:
    """One question: what it reads, and its answer once there is one."""

    key: str
    prompt: Sequence[int] = ()
    answer: Answer | None = None


class _Asking:
    """One call of `chat`: what the journal has comes from there; the first question it has not loads the model."""

    def __init__(self, llm: LocalLLM, how: Sampling) -> None:
        self._model = llm._checkpoint
        self.unanswered: dict[str, _Ticket] = {}
        self._how, self._journal = how, llm.open_journal()
        self._batch_tokens = llm.batch_tokens
        self._name = f"{llm.model}@{self._model.digest[:12]}"

    def tickets(self, chunk: list[Keyed]) -> Iterator[_Ticket]:
        """Give for each question its ticket, with the answer where it is known."""
        known = self._journal.get_many(key for key, _ in chunk)
        for key, messages in chunk:
            if key in known:
                yield _Ticket(key, answer=answer_of(known[key], cached=True))
            elif key in self.unanswered:
                yield self.unanswered[key]
            else:
                ticket = _Ticket(key, self._model.loaded.prompt(messages))
                if self._room(ticket) < 1:
                    self._fail(ticket, "too_long")
                else:
                    self.unanswered[key] = ticket
                yield ticket

    def answer(self, ticket: _Ticket) -> Answer:
        """Write batches until this question has its answer."""
        while ticket.answer is None:
            # cut anew each time: what was read meanwhile fills the batch up
            under_way = list(self.unanswered.values())
            lengths = [len(one.prompt) + self._room(one) for one in under_way]
            most = self._batch_tokens or self._model.loaded.batch_tokens
            groups = ([under_way[i] for i in group] for group in batches(lengths, most))
            self._write(next(group for group in groups if ticket in group))
        return ticket.answer

    def _room(self, ticket: _Ticket) -> int:
        return min(self._how.max_tokens, self._model.loaded.limit - len(ticket.prompt))

    def _fail(self, ticket: _Ticket, code: str) -> None:
        read = len(ticket.prompt)
        ticket.answer = Answer("", "error", code, prompt_tokens=read, model=self._name, journal_key=ticket.key)
        self.unanswered.pop(ticket.key, None)

    def _write(self, group: list[_Ticket]) -> None:
        """Answer a batch; where memory is too small for it, make it and all later ones half as large instead."""
        rows = [Row(ticket.prompt, self._room(ticket), seed_of(ticket.key)) for ticket in group]
        fits = True
        try:
            self._model.loaded.write(rows, self._how)
        except LLMError:
            raise
        except Exception as error:
            fits = not is_out_of_memory(error)
            if fits:
                said = f"{self._name} fails on a batch of {len(rows)} questions ({type(error).__name__})"
                raise LLMError(said) from None
        if not fits:  # only here is the memory of the attempt free again
            free_memory()
            if len(group) == 1:
                self._fail(group[0], "out_of_memory")
            self._batch_tokens = max(len(row.prompt) + row.room for row in rows) * max(1, len(group) // 2)
            return
        now = time.time()
        self._journal.put_many(
            Entry(
                ticket.key, row.text, "ok" if row.code == "stop" else "truncated", row.code, len(row.prompt),
                len(row.written), 0.0, self._name, now,
            )
            for ticket, row in zip(group, rows, strict=True)
        )  # fmt: skip
        kept = self._journal.get_many(ticket.key for ticket in group)  # of two processes the first one's answer counts
        for ticket in group:
            ticket.answer = answer_of(kept[ticket.key], cached=False)
            del self.unanswered[ticket.key]
