"""Local text generation with a causal language model of transformers, in this process, cached in the journal.

`chat` answers many questions in batches of similar length, and returns an answer only when the journal has it on disk.
The random numbers of an answer depend on its key alone: each row of a batch has a generator of its own. Rounding still
depends on the shape of a batch (most of all in bfloat16), so that an occasional answer may differ among other
questions; once it is in the journal it stays.

Messages of the libraries are never logged or put into an error, since they may quote the prompt: only the type is.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hf_synth.errors import LLMError
from hf_synth.llm.decoding import Checkpoint, Loaded, Row, Sampling, free_memory, is_out_of_memory, read_sampling
from hf_synth.llm.gguf_files import Weights
from hf_synth.llm.journal import Entry, Journal, Shared, default_journal, mark_unanswered
from hf_synth.llm.questions import Answer, Messages, Question, asked_of, check_sampling, seed_of, with_keys
from hf_synth.llm.stream import Stream, leased
from hf_synth.models.tokens import batches
from hf_synth.task.columns import Access

_LOOK_AHEAD = 256  # questions looked up in the journal and sorted by length at once
_SHARED_PAUSE = 0.2  # seconds between two looks at questions that another process answers


@dataclass(frozen=True, eq=False)
class LocalLLM:
    """A causal language model that runs in this process; it is loaded for the first new question.

    Answers are keyed by the model's files, the messages and the sampling, not by device, dtype or batch size. The
    sampling defaults of a model's generation config are not used: temperature 1 and no bounds, unless given.

    Args:
        model: a folder, or the id of a Hub repository (found in the cache alone where HF_HUB_OFFLINE is set); or a GGUF
            file (by its path, or "smollm2"), whose weights are expanded to `dtype` (needs hf_synth[local]).
        journal: file that keeps the answers; `.hf_synth/journal.sqlite` in the working folder when None.
        revision: branch, tag or commit of a repository.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" for all devices; CUDA where available when None.
        dtype: of the weights, e.g. "float16"; bfloat16 on CUDA and float32 on a CPU when None.
        batch_tokens: tokens of one batch, read and written; 65,536 on CUDA and 8,192 on a CPU when None. A batch that
            does not fit into a GPU's memory is halved.
        max_new_tokens: the most tokens of an answer without `max_tokens`.
        sampling: sampling parameters of every question, in the place of those that the question asks for; None leaves
            one out.

    Raises:
        LLMError: an argument makes no sense.

    Example:
        >>> llm = LocalLLM("models/my-llama", journal="work/journal.sqlite")  # loaded with the first question
        >>> llm.model
        'models/my-llama'
    """

    model: str
    journal: str | Path | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    max_new_tokens: int = 1024
    sampling: Mapping[str, Any] = field(default_factory=dict)
    _opened: Journal | None = field(init=False, repr=False, default=None)
    _checkpoint: Checkpoint = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not str(self.model) or self.max_new_tokens < 1 or (self.batch_tokens is not None and self.batch_tokens < 1):
            raise LLMError("a LocalLLM needs a model, and max_new_tokens and batch_tokens of at least 1")
        if isinstance(self.model, Path):  # a missing folder must not be taken for the id of a repository
            object.__setattr__(self, "model", os.path.join(".", self.model))
        object.__setattr__(self, "_checkpoint", Checkpoint(self.model, self.revision, self.device, self.dtype))

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalLLM, tuple(getattr(self, f.name) for f in fields(self) if f.init)

    @property
    def access(self) -> Access:
        """The access that the model's folder records, for a GGUF file the folder in which it lies.

        What it writes may repeat the notes that it learnt from. It is open where nothing is recorded.

        Raises:
            ModelError: the model cannot be found, or its facts are broken.
        """
        return self._checkpoint.access

    @property
    def identity(self) -> str:
        """What decides the answers besides the question: the digest of the model's files and the length of an answer.

        Raises:
            ModelError: the model cannot be found.
        """
        return f"{self._checkpoint.digest} {self.max_new_tokens}"

    @property
    def ahead(self) -> int:
        """How far a plan may run ahead of the oldest open question."""
        return _LOOK_AHEAD * 4

    @property
    def weights(self) -> Weights | None:
        """The GGUF file that answers; None for a folder or a repository."""
        return self._checkpoint.weights

    @property
    def loaded(self) -> Loaded:
        """The model in memory, loaded on first use.

        Raises:
            ModelError: it cannot be found or loaded.
        """
        return self._checkpoint.loaded

    def with_journal(self, path: str | Path) -> LocalLLM:
        """Return a copy with another journal; both share the model in memory."""
        other = replace(self, journal=path)
        object.__setattr__(other, "_checkpoint", self._checkpoint)
        return other

    def keep(self, keys: Sequence[str]) -> None:
        """Keep answers that were cut by the server after all, since something came of them."""
        self.open_journal().accept(keys)

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and return their answers in order.

        Args:
            list_of_messages: the messages of each question, as {"role": ..., "content": ...}.
            options: those of `stream`.
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
        """Yield the answers in order as they arrive, in bounded memory.

        Args:
            list_of_messages: read some hundred ahead to group questions of similar length; may be a generator. A None
                among them is a pause: the oldest open question is answered before the next one is read.
            access: of the notes in the messages; any access is allowed, since nothing leaves the machine.
            schema: not enforced, and no part of the key; parse the answers tolerantly.
            samples, scope, progress, ahead: as in `LLM.stream`.
            sampling: temperature (0 is greedy), top_p, top_k, repetition_penalty, max_tokens or max_completion_tokens,
                stop (one or several strings, left out of the answer), seed. A seed is a part of the key, from which
                the random numbers of a question follow: equal questions of other samples differ under one seed.

        Yields:
            An answer for each question, "truncated" with code "length" where it ended at a limit. One that cannot be
            answered has status "error" with code "too_long" (the prompt fills the model's context) or "out_of_memory".

        Raises:
            LLMError: a sampling parameter is unknown or wrong, or the model fails. Earlier answers are kept.
            ModelError: the model cannot be found or loaded.
            JournalError: the journal cannot be read or written.
        """
        how = self._read(sampling)
        total = len(list_of_messages) if isinstance(list_of_messages, Sequence) else None
        asking = _Asking(self, how)
        questions = with_keys(list_of_messages, samples, self.key_facts(sampling, schema, scope))
        yield from Stream(
            asking, asking.journal, ahead=ahead, total=total, progress=progress, local=True, first=_LOOK_AHEAD
        ).answers(questions)

    def key_facts(self, sampling: Mapping[str, Any], schema: Mapping[str, Any] | None, scope: str) -> list[Any]:
        """Return what is a part of every key beside the messages: a schema is none, since it is not enforced."""
        return [self._checkpoint.digest, asdict(self._read(sampling)), None, scope]

    def _read(self, sampling: Mapping[str, Any]) -> Sampling:
        """Read the sampling of a question.

        Raises:
            LLMError: a parameter is unknown or wrong.
        """
        stated = {name: value for name, value in asked_of(self, sampling).items() if value is not None}
        check_sampling(stated)
        return read_sampling(stated, self.max_new_tokens)

    def open_journal(self) -> Journal:
        """Open the journal once for this LocalLLM; it is closed with it."""
        journal = self._opened
        if journal is None:
            journal = Journal(self.journal if self.journal is not None else default_journal())
            weakref.finalize(self, journal.close)
            object.__setattr__(self, "_opened", journal)
        return journal


@dataclass(eq=False)
class _Ticket:
    """One question: the tokens of its prompt, and its outcome once there is one."""

    key: str
    prompt: Sequence[int] = ()
    outcome: Entry | Answer | None = None


class _Asking:
    """Answers what the journal lacks in one call of `stream`; the first question loads the model."""

    eager = False  # a pause takes one answer, so that later questions join the batch of the others

    def __init__(self, llm: LocalLLM, how: Sampling) -> None:
        self._model = llm._checkpoint
        self.unanswered: dict[str, _Ticket] = {}
        self._how, self.journal = how, llm.open_journal()
        self._batch_tokens = llm.batch_tokens
        self._name = self._model.name

    def submit(self, key: str, messages: Messages) -> _Ticket:
        ticket = _Ticket(key, self._model.loaded.prompt([dict(m) for m in messages]))
        if self._room(ticket) < 1:
            self._fail(ticket, "too_long")
        else:
            self.unanswered[key] = ticket
        return ticket

    def is_full(self) -> bool:
        return len(self.unanswered) >= _LOOK_AHEAD

    def is_done(self, ticket: _Ticket) -> bool:
        return ticket.outcome is not None

    def outcome(self, ticket: _Ticket) -> Entry | Answer:
        """Write batches until this question has its answer."""
        while ticket.outcome is None:
            # grouped anew each time, so that questions read in the meantime fill the batch
            tickets = list(self.unanswered.values())
            lengths = [len(one.prompt) + self._room(one) for one in tickets]
            most = self._batch_tokens or self._model.loaded.batch_tokens
            groups = ([tickets[i] for i in group] for group in batches(lengths, most))
            group = next(group for group in groups if ticket in group)
            with leased(self.journal, [one.key for one in group]) as (granted, answers):
                for one in group:
                    if one.key in answers:  # another process has answered it
                        self._settle(one, Shared(*astuple(answers[one.key])))
                if granted:
                    self._write([one for one in group if one.key in granted])
            if not granted and not answers:
                time.sleep(_SHARED_PAUSE)  # another process is writing all of them
        return ticket.outcome

    def _settle(self, ticket: _Ticket, outcome: Entry | Answer) -> None:
        ticket.outcome = outcome
        self.unanswered.pop(ticket.key, None)

    def _room(self, ticket: _Ticket) -> int:
        return min(self._how.max_tokens, self._model.loaded.limit - len(ticket.prompt))

    def _fail(self, ticket: _Ticket, code: str) -> None:
        read = len(ticket.prompt)
        self._settle(ticket, Answer("", "error", code, prompt_tokens=read, model=self._name, journal_key=ticket.key))

    def _write(self, group: list[_Ticket]) -> None:
        """Answer a batch; where memory is too small, halve the size of this batch and all later ones instead."""
        rows = [Row(ticket.prompt, self._room(ticket), seed_of(ticket.key)) for ticket in group]
        fits = True
        try:
            self._model.loaded.write(rows, self._how)
        except LLMError:
            raise
        except Exception as error:
            fits = not is_out_of_memory(error)
            if fits:
                raise LLMError(
                    f"{self._name} fails on a batch of {len(rows)} questions ({type(error).__name__})"
                ) from None
        if not fits:  # the memory of the attempt is free only outside the except block
            free_memory()
            if len(group) == 1:
                self._fail(group[0], "out_of_memory")
            self._batch_tokens = max(len(row.prompt) + row.room for row in rows) * max(1, len(group) // 2)
            return
        now = time.time()
        entries = []
        for ticket, row in zip(group, rows, strict=True):
            status, counts = "ok" if row.code == "stop" else "truncated", (len(row.prompt), len(row.written))
            entry = Entry(ticket.key, row.text, status, row.code, *counts, 0.0, self._name, now)
            entries.append(mark_unanswered(entry, bounded=True))
        self.journal.put_many(entries)
        for ticket, entry in zip(group, entries, strict=True):
            self._settle(ticket, entry)
