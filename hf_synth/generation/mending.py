"""Notes asked for again where they do not state the facts that were asked for, in a bounded number of rounds.

A request for more shows the note and what it lacks. It depends on the call and on the answers before it alone, so that
the same run asks the same again, and the journal has its answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hf_synth.errors import ColumnError
from hf_synth.generation.fact_check import Lack, check_facts
from hf_synth.generation.plan import Call
from hf_synth.generation.prompts import Messages, json_line
from hf_synth.generation.rows import entries_of
from hf_synth.llm.questions import Answer, Chat, Question, closing
from hf_synth.task.task import Task

FACT_ROUNDS = 2
_APART = 1_000_000  # sample numbers between rounds


class Mending:
    """The rounds of one run of `generate`.

    Args:
        settings: keywords of `llm.stream`, as for the first question.
        rounds: most rounds; 0 asks for nothing again.

    Raises:
        ColumnError: rounds is below 0.
    """

    def __init__(self, task: Task, llm: Chat, settings: Mapping[str, Any], rounds: int = FACT_ROUNDS) -> None:
        if rounds < 0:
            raise ColumnError(f"a note is asked for again 0 times or more often, not {rounds} times")
        self._task, self._llm, self._settings, self._rounds = task, llm, dict(settings), rounds
        self.counts = dict.fromkeys(("checked", "at_first", "in_the_end", "asked_again"), 0)

    def mend(self, answers: Sequence[tuple[Call, Answer]]) -> list[tuple[Call, Answer]]:
        """Return each answer, or of its later versions the one that lacks the fewest facts.

        An answer without a row is returned as it came. Tokens and cost are of all versions together.
        """
        best = [(answer, *self._read(call, answer)) for call, answer in answers]
        spent = [[answer] for _, answer in answers]
        self.counts["checked"] += sum(row is not None for _, row, _ in best)
        self.counts["at_first"] += sum(row is not None and not lacks for _, row, lacks in best)
        for number in range(1, self._rounds + 1):
            short = [i for i, (_, row, lacks) in enumerate(best) if row is not None and lacks]
            if not short:
                break
            self.counts["asked_again"] += len(short)
            questions = [self._question(answers[i][0], best[i][1] or {}, best[i][2], number) for i in short]
            with closing(self._llm.stream(iter(questions), **self._settings)) as answered:
                for i, answer in zip(short, answered, strict=True):
                    spent[i].append(answer)
                    row, lacks = self._read(answers[i][0], answer)
                    if row is not None and len(lacks) < len(best[i][2]):
                        best[i] = (answer, row, lacks)
        self.counts["in_the_end"] += sum(row is not None and not lacks for _, row, lacks in best)
        return [
            (call, _with_usage(version, versions))
            for (call, _), (version, *_), versions in zip(answers, best, spent, strict=True)
        ]

    def _read(self, call: Call, answer: Answer) -> tuple[dict[str, Any] | None, list[Lack]]:
        """Return the row of an answer that lacks the fewest facts, and what it lacks; None where there is no row."""
        assert self._task.facts is not None
        rows = [entry.row for entry in entries_of(self._task, call.labels, answer)[: call.rows] if entry.row]
        read = [
            (check_facts(self._task.facts, call.facts, "\n".join(str(row[c]) for c in self._task.text_columns)), row)
            for row in rows
        ]
        lacks, row = min(read, key=lambda pair: len(pair[0]), default=([], None))
        return row, lacks

    def _question(self, call: Call, row: Mapping[str, Any], lacks: Sequence[Lack], number: int) -> Question:
        """Return the request for a note again; that of another round is another question."""
        return Question(ask_again(call.messages, row, lacks), call.index + number * _APART)


def ask_again(messages: Messages, row: Mapping[str, Any], lacks: Sequence[Lack]) -> Messages:
    """Return the messages of a call with the note that came of it, and what it does not state."""
    lines = "\n".join(f"- {lack}" for lack in lacks)
    more = (
        f"This entry was written for that:\n{json_line(row)}\n\n"
        f"It does not state everything that it must:\n{lines}\n\n"
        "Write it again. State each of these as a fact of this patient at this visit, in words of your own, beside all "
        "else that was asked for. Answer in the same form."
    )
    *before, last = messages
    return [*before, {**last, "content": f"{last['content']}\n\n{more}"}]


def _with_usage(answer: Answer, versions: Sequence[Answer]) -> Answer:
    """Return an answer with the tokens and the cost of all its versions; an error costs nothing."""
    if len(versions) == 1:
        return answer
    counted = [version for version in versions if version.status != "error"]
    costs = [version.cost for version in counted if version.cost is not None]
    return dataclasses.replace(
        answer,
        prompt_tokens=sum(version.prompt_tokens for version in counted),
        completion_tokens=sum(version.completion_tokens for version in counted),
        cost=sum(costs) if costs else None,
    )
