"""The questions of `generate` as another process asks them: answers, and which of their notes are copies of gold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import RLock
from typing import Any

from hf_synth.errors import HfSynthError
from hf_synth.generation.blocks import Order
from hf_synth.generation.gates import Gates
from hf_synth.generation.rows import entries_of
from hf_synth.llm.feed import Feed
from hf_synth.llm.questions import Answer, Chat, Question

# The answers to a group of questions, or to the first of them; whether notes are copies of gold; why there are no more.
Asked = tuple[list[Answer], dict[bytes, bool], HfSynthError | None]
_LOCK = RLock()  # threads of a process compare one after the other: gold is indexed once, in the memory of one index


@dataclass(frozen=True)
class CallAsker:
    """Asks questions of a run in groups; several threads may ask at once.

    Args:
        order: the run; its LLM checks in each process where gold of its access may go.
        settings: keywords of `llm.stream`.
    """

    order: Order
    settings: Mapping[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        return {"order": self.order, "settings": self.settings}

    @property
    def llm(self) -> Chat:
        """The LLM that is asked."""
        return self.order.llm

    def with_llm(self, llm: Chat) -> CallAsker:
        """Return the same function with another LLM."""
        return CallAsker(replace(self.order, llm=llm), self.settings)

    def ask(self, questions: Sequence[Question]) -> Asked:
        """Return the answers, and whether their notes are copies of gold, as `Gates.copies_of` does.

        Where `llm.stream` ends with an error of ours, return the answers before that, and the error.
        """
        with _LOCK:
            feed, gates = self._begun
        answers, error = feed.ask(questions)
        task = self.order.task
        asked = task.labels[:1]  # the texts of an answer do not depend on the labels that it was asked for
        notes = [entry.row for answer in answers for entry in entries_of(task, asked, answer) if entry.row]
        with _LOCK:
            return answers, gates.copies_of(notes), error

    def close(self, *, now: bool = False) -> None:
        """End the stream of the LLM; what was asked is answered.

        Args:
            now: as for `Feed.close`.

        Raises:
            HfSynthError: an error of `llm.stream`.
        """
        if "_begun" in vars(self):
            self._begun[0].close(now=now)

    @cached_property
    def _begun(self) -> tuple[Feed, Gates]:
        pool, _, _ = self.order.prepared()
        return Feed(self.llm, self.settings), Gates(self.order.task, pool)
