"""A question, its key, and its answer: what every way of asking shares (over HTTP, in this process, in a batch).

The key is a hash of all that decides an answer and of nothing else: model, messages, sampling, schema, sample, scope.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol, Self, cast

from hf_synth.errors import LLMError
from hf_synth.llm.journal import Entry

Status = Literal["ok", "refusal", "truncated", "error"]
Messages = Sequence[Mapping[str, str]]
Logprobs = tuple[tuple[str, tuple[tuple[str, float], ...]], ...]  # (token, its alternatives)
_SEED_BITS = 0x7FFFFFFF  # seeds are 31 bits: some servers read them as a signed int
_OWN = ("model", "messages", "stream", "n", "response_format")  # set by whoever asks, or not understood


@dataclass(frozen=True)
class Question:
    """One question.

    Args:
        messages: as {"role": ..., "content": ...}.
        sample: equal messages with another number are another question.
    """

    messages: Messages
    sample: int = 0


@dataclass(frozen=True)
class Answer:
    """One answer.

    Args:
        text: what the model wrote; empty for an error.
        status: "ok", "refusal" (the endpoint declined), "truncated" (cut at the token limit) or "error" (no answer).
        code: the endpoint's finish reason, or of an error "timeout", "connection", "http_500", "budget", ...
        prompt_tokens: tokens read, as the endpoint counts them.
        completion_tokens: tokens written.
        cost: US dollars; None where no price is known.
        model: the model as the endpoint names it.
        journal_key: where the journal keeps it (hex sha256).
        cached: whether it came from the journal, without a call.
        created: when it was answered, in seconds since 1970; 0 for an error.
        logprobs: of each of its first tokens the likeliest alternatives as (token, log-probability), as far as
            `logprobs` and `top_logprobs` asked for them and the endpoint serves them.
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

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens


class Chat(Protocol):
    """What writes: an `LLM` behind an endpoint, a `LocalLLM` in this process, a `BatchLLM` that takes its time."""

    @property
    def model(self) -> str:
        """Give the name of the model."""

    @property
    def journal(self) -> str | Path | None:
        """Give the file that keeps the answers."""

    @property
    def ahead(self) -> int:
        """Give how many questions a plan may put before an answer that could change it."""

    def with_journal(self, path: str | Path) -> Self:
        """Give the same with its journal elsewhere."""

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and give their answers in order."""

    def stream(self, list_of_messages: Iterable[Messages | Question | None], **options: Any) -> Iterator[Answer]:
        """Give the answers in order as they come.

        Args:
            list_of_messages: read ahead of the answers. A None among them says "nothing to ask before the next answer
                is given": the oldest one under way is given before the next question is read.
            options: `access`, `schema`, `samples`, `scope`, `progress`, `ahead` and sampling, as `LLM.stream` has them.
        """


def answer_of(entry: Entry, *, cached: bool) -> Answer:
    """Give the answer that the journal keeps."""
    return Answer(
        entry.text, cast(Status, entry.status), entry.code, entry.prompt_tokens, entry.completion_tokens, entry.cost,
        entry.model, entry.key, cached, entry.created, _logprobs(entry.logprobs),
    )  # fmt: skip


def _logprobs(kept: str) -> Logprobs:
    return tuple((token, tuple((t, p) for t, p in others)) for token, others in json.loads(kept)) if kept else ()


def check_sampling(sampling: Mapping[str, Any]) -> None:
    """Refuse what is no sampling parameter.

    Raises:
        LLMError: one of them is not.
    """
    if wrong := sorted(set(_OWN) & set(sampling)):
        raise LLMError(f"{', '.join(wrong)} cannot be given as a sampling parameter")
    try:
        json.dumps(dict(sampling))
    except (TypeError, ValueError):
        raise LLMError("sampling parameters are plain numbers, texts and lists") from None


def deciding(model: str, sampling: Mapping[str, Any], schema: Mapping[str, Any] | None, scope: str) -> str:
    """Write down what decides the answers of a run beside the questions themselves."""
    return json.dumps([model, dict(sampling), schema, scope], sort_keys=True)


def keyed(
    questions: Iterable[Messages | Question | None], samples: Iterable[int] | None, decides: str
) -> Iterator[tuple[str, list[dict[str, str]]] | None]:
    """Give each question as its key and its messages; a None stays one.

    Args:
        samples: a number for each question that carries none itself; when None, how often the same messages came
            before.
        decides: from `deciding`.

    Raises:
        LLMError: there are fewer samples than questions.
    """
    before: dict[bytes, int] = {}
    numbers = None if samples is None else iter(samples)
    for question in questions:
        if question is None:
            yield None
            continue
        messages = question.messages if isinstance(question, Question) else question
        plain = [dict(m) for m in messages]
        asked = sha256(json.dumps(plain, sort_keys=True).encode()).digest()
        if isinstance(question, Question):
            sample = question.sample
        elif numbers is not None:
            try:
                sample = int(next(numbers))
            except StopIteration:
                raise LLMError("samples must hold a number for each question") from None
        else:
            sample = before.get(asked, 0)
            before[asked] = sample + 1
        yield sha256(asked + f"|{sample}|{decides}".encode()).hexdigest(), plain


def seed_of(key: str) -> int:
    """Give the sampling seed of a question (31 bits), which follows from its key."""
    return int(key[:8], 16) & _SEED_BITS
