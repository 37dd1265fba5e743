"""Question, Answer and the Chat protocol that LLM, LocalLLM and BatchLLM share; cache keys and seeds of questions.

The key of a question is a hash of everything that decides its answer and of nothing else: model, messages, sampling,
schema, sample and scope.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from hf_synth.errors import LLMError
from hf_synth.llm.journal import NO_ANSWER, Entry
from hf_synth.task.access import held_access
from hf_synth.task.columns import Access

Status = Literal["ok", "refusal", "truncated", "error"]
Messages = Sequence[Mapping[str, str]]
Logprobs = tuple[tuple[str, tuple[tuple[str, float], ...]], ...]  # (token, its alternatives)
Keyed = tuple[str, list[dict[str, str]]]  # (key, messages) of a question

_SEED_BITS = 0x7FFFFFFF  # seeds are 31 bits: some servers read them as a signed int
_RESERVED = ("model", "messages", "stream", "n", "response_format")  # set by the client, or not supported


@dataclass(frozen=True)
class Question:
    """One question.

    Args:
        messages: as {"role": ..., "content": ...}.
        sample: equal messages with different numbers are different questions.
    """

    messages: Messages
    sample: int = 0


@dataclass(frozen=True)
class Answer:
    """One answer.

    Args:
        text: the text that the model wrote; empty for an error.
        status: "ok", "refusal" (the endpoint declined), "truncated" (cut at the token limit) or "error" (no answer).
        code: the endpoint's finish reason, or of an error "timeout", "connection", "http_500", "budget", ...
        prompt_tokens: tokens read, as the endpoint counts them.
        completion_tokens: tokens written.
        cost: US dollars; None where no price is known.
        model: the model as the endpoint names it.
        journal_key: its key in the journal (hex sha256).
        cached: whether it came from the journal, without a call.
        created: time of the answer in seconds since 1970; 0 for an error.
        logprobs: the likeliest alternatives of each of its first tokens as (token, log-probability), as far as
            `logprobs` and `top_logprobs` requested them and the endpoint serves them.
        sent: what was sent otherwise than was asked for, as JSON; "" for nothing. None stands for a field left out.
        again: whether it is no answer (empty, or cut at a limit of the server's own): the next run asks again.
    """

    text: str
    status: Status
    code: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    model: str = ""
    journal_key: str = ""
    cached: bool = False
    created: float = 0.0
    logprobs: Logprobs = ()
    sent: str = ""
    again: bool = False

    @property
    def tokens(self) -> int:
        """The number of tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def may_come_later(self) -> bool:
        """Whether the question got no answer, and may get one when it is asked again without any change."""
        passing = ("http_5", "http_429", "http_408", "http_425")
        return self.status == "error" and (self.code in ("timeout", "connection") or self.code.startswith(passing))


class Look:
    """Stands among the questions of a stream for a look at the answers: those that are there are handed on.

    Nothing waits for an answer, unless the LLM answers in the thread that reads the questions: it answers the oldest.
    A `Feed` needs it, whose questions come while others are open; an `LLM` and a `LocalLLM` know it.
    """


LOOK = Look()


class Chat(Protocol):
    """A language model: an `LLM` behind an endpoint, a `LocalLLM` in this process, or a `BatchLLM`."""

    @property
    def model(self) -> str:
        """The name of the model."""

    @property
    def journal(self) -> str | Path | None:
        """The file that keeps the answers."""

    @property
    def ahead(self) -> int:
        """How far a plan may run ahead of the oldest open question."""

    def with_journal(self, path: str | Path) -> Self:
        """Return a copy with another journal."""

    def keep(self, keys: Sequence[str]) -> None:
        """Keep answers that were cut by the server after all, since something came of them."""

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and return their answers in order."""

    def stream(self, list_of_messages: Iterable[Messages | Question | None], **options: Any) -> Iterator[Answer]:
        """Yield the answers in order as they arrive.

        Args:
            list_of_messages: read ahead of the answers. A None among them is a pause: the answer to the oldest open
                question is yielded before the next question is read.
            options: `access`, `schema`, `samples`, `scope`, `progress`, `ahead` and sampling, as in `LLM.stream`.
        """


@contextlib.contextmanager
def closing(answers: Iterator[Answer]) -> Iterator[Iterator[Answer]]:
    """Close a stream of answers at the end of the block, also when the block is left by an error or by Ctrl-C.

    A stream that is not closed goes on asking for as long as the traceback refers to it.
    """
    try:
        yield answers
    finally:
        if (close := getattr(answers, "close", None)) is not None:
            close()


def access_of_llm(llm: object) -> Access:
    """Return the access that an LLM, or a judge, hands on to what it writes; open for one that says nothing of it.

    A subclass or a wrapper is at least as strict as every LLM that it holds (`held_access`).
    """
    return held_access(llm)


def identity_of(llm: object) -> str | None:
    """Return what decides an LLM's answers beside its name and the question; None for one that says nothing of it."""
    identity = getattr(llm, "identity", None)
    return identity if isinstance(identity, str) else None


def answer_of(entry: Entry, *, cached: bool) -> Answer:
    """Return a journal entry as an answer."""
    facts = vars(entry) | {"logprobs": _logprobs(entry.logprobs), "again": entry.status in NO_ANSWER}
    facts["status"] = {"empty": "ok", "cut": "truncated"}.get(entry.status, entry.status)
    return Answer(journal_key=facts.pop("key"), cached=cached, **facts)


def entry_of(answer: Answer) -> Entry:
    """Return an answer that is no error as a journal entry, without its log-probabilities."""
    status = {"ok": NO_ANSWER[0], "truncated": NO_ANSWER[1]}[answer.status] if answer.again else answer.status
    names = ("text", "code", "prompt_tokens", "completion_tokens", "cost", "model", "created", "sent")
    return Entry(answer.journal_key, status=status, **{name: getattr(answer, name) for name in names})


def _logprobs(text: str) -> Logprobs:
    return tuple((token, tuple((t, p) for t, p in others)) for token, others in json.loads(text)) if text else ()


def check_sampling(sampling: Mapping[str, Any]) -> None:
    """Check that sampling parameters are none of the client's own and can be written as JSON.

    Raises:
        LLMError: one of them is not allowed.
    """
    if wrong := sorted(set(_RESERVED) & set(sampling)):
        raise LLMError(f"{', '.join(wrong)} cannot be passed as a sampling parameter")
    try:
        json.dumps(dict(sampling))
    except (TypeError, ValueError):
        raise LLMError("sampling parameters must be plain numbers, texts and lists") from None


def asked_of(llm: object, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling that an LLM asks for: its own parameters replace those of a question."""
    return {**sampling, **getattr(llm, "sampling", {})}


def with_keys(
    questions: Iterable[Messages | Question | Look | None], samples: Iterable[int] | None, settings: Sequence[Any]
) -> Iterator[Keyed | Look | None]:
    """Yield each question as its key and its messages; a None stays a None, and a `Look` a `Look`.

    Args:
        samples: a number for each question that has none itself; when None, how often the messages occurred before.
        settings: model, sampling, schema and scope, which are a part of every key.

    Raises:
        LLMError: there are fewer samples than questions.
    """
    suffix = json.dumps(list(settings), sort_keys=True)
    counts: dict[bytes, int] = {}
    numbers = None if samples is None else iter(samples)
    for question in questions:
        if question is None or isinstance(question, Look):
            yield question
            continue
        messages = question.messages if isinstance(question, Question) else question
        plain = [dict(m) for m in messages]
        digest = sha256(json.dumps(plain, sort_keys=True).encode()).digest()
        if isinstance(question, Question):
            sample = question.sample
        elif numbers is not None:
            try:
                sample = int(next(numbers))
            except StopIteration:
                raise LLMError("samples must have a number for each question") from None
        else:
            sample = counts.get(digest, 0)
            counts[digest] = sample + 1
        yield sha256(digest + f"|{sample}|{suffix}".encode()).hexdigest(), plain


def chunks(
    questions: Iterator[Keyed | Look | None], first: int, most: int
) -> Iterator[tuple[list[Keyed], Literal["", "pause", "look"]]]:
    """Group questions for one look-up in the journal, with what follows each group: a pause, a look, or more questions.

    Groups grow from `first` to `most` questions, so that the first request starts early.
    """
    chunk: list[Keyed] = []
    size = first
    for question in questions:
        if question is None or isinstance(question, Look):
            yield chunk, "pause" if question is None else "look"
            chunk, size = [], min(most, 2 * size)
            continue
        chunk.append(question)
        if len(chunk) >= size:
            yield chunk, ""
            chunk, size = [], min(most, 2 * size)
    yield chunk, ""


def seed_of(key: str) -> int:
    """Return the sampling seed of a question (31 bits), which is a part of its key."""
    return int(key[:8], 16) & _SEED_BITS
