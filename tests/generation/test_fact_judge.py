"""An LLM as a judge of the facts of a note: its verdicts are counted, and nothing else of its answer is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.tiny import toy_task

from hf_synth.demo.clinic_facts import FACTS as CLINIC_FACTS
from hf_synth.demo.simulator import Faults, answer
from hf_synth.generation.fact_judge import ASKS, count_judged, fact_messages, judge_facts, judged_line, read_judged
from hf_synth.llm.questions import Answer, Question
from hf_synth.task.facts import Fact, Facts

TUBE = Fact("tube", (("no tube", 0, ""), ("a feeding tube", 1, "tube")))
FACTS = Facts((TUBE, Fact("fever", (("a fever", 1, "fever"),))), "max", (1, 2))
TASK = replace(toy_task(), facts=FACTS)


class Scripted:
    """A language model with fixed answers, which keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked, self.options = list(answers), [], {}  # type: ignore[var-annotated]

    def stream(self, questions: Iterable[Question], **options: Any) -> Iterator[Answer]:
        self.options = options
        for question in questions:
            self.asked.append(question.messages[-1]["content"])
            yield Answer(self.answers.pop(0), "ok")


def test_each_fact_with_a_pattern_is_one_question() -> None:
    llm = Scripted('{"answer": "stated"}', '{"answer": "negated"}', '{"answer": "missing"}')
    notes = [
        ((("tube", "a feeding tube"), ("fever", "a fever")), "A tube. No fever."),
        ((("tube", "no tube"), ("fever", "a fever")), "Eats well."),
    ]
    found = judge_facts(TASK, llm, notes, access="restricted")  # type: ignore[arg-type]
    assert found == [{"tube": "stated", "fever": "negated"}, {"fever": "missing"}]
    assert [ASKS in asked for asked in llm.asked] == [True] * 3
    assert "Note:\nA tube. No fever.\n\nFact:\nfever: a fever\n" in llm.asked[1]
    assert (llm.options["access"], llm.options["scope"]) == ("restricted", TASK.fingerprint())
    counts = count_judged(found)
    assert counts == {
        "stated": 1,
        "negated": 1,
        "missing": 1,
        "unreadable": 0,
        "unanswered": 0,
        "notes_with_all": 0,
        "notes": 2,
    }
    assert "3 facts of 2 notes" in judged_line(counts)


@pytest.mark.parametrize(("text", "found"), [
    ('{"answer": "Stated"}', "stated"), ("missing.", "missing"), ("Not stated.", "unreadable"),
    ('{"answer": "not stated"}', "unreadable"),
    ("```json\n{\"answer\": \"negated\"}\n```", "negated"), ("stated or missing", "unreadable"),
    ("", "unreadable"), ("yes", "unreadable"),
    ('<think>{"answer": "stated"}? No.</think>{"answer": "negated"}', "negated"), ("<think>stated", "unreadable"),
])  # fmt: skip
def test_an_answer_that_is_none_of_the_three_is_unreadable(text: str, found: str) -> None:
    assert read_judged(Answer(text, "ok")) == found
    assert read_judged(Answer(text, "error")) == "unanswered"


def test_the_simulator_answers_the_question() -> None:
    """By the rules, but for one question in ten: most of its answers are right, over lines of a note, too."""
    item = next(item for item in CLINIC_FACTS.items if item.name == "temperature")
    wording = next(wording for wording, _, pattern in item.values if pattern)
    stated = fact_messages("Seen.\n\nA fever of 38.4 °C today.", item.name, wording)
    silent = fact_messages("Seen.\n\nEats well.", item.name, wording)
    for messages, found in ((stated, "stated"), (silent, "missing")):
        said = [read_judged(Answer(answer(messages, seed=i, faults=Faults(refusal=0)), "ok")) for i in range(20)]
        assert said.count(found) > 14
