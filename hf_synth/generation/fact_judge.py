"""An LLM that reads notes and says of each fact whether the note states it, denies it, or leaves it out.

The rules of `fact_check` decide which notes are kept. A judge is a second opinion on the kept notes: it counts, and
rejects nothing. Its own errors are unknown until people have looked at notes that it judged.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from hf_synth.generation.fact_check import Asked
from hf_synth.generation.prompts import Messages
from hf_synth.llm.questions import Answer, Chat, Question, closing
from hf_synth.llm.thoughts import without_thoughts
from hf_synth.task.columns import Access
from hf_synth.task.task import Task

Judged = Literal["stated", "negated", "missing", "unreadable", "unanswered"]
ASKS = "Does the note state this as a fact of this patient at this visit?"
_SYSTEM = "You read clinical notes and answer questions about them."
_ANSWERS = get_args(Judged)[:3]


def judge_facts(
    task: Task, llm: Chat, notes: Sequence[tuple[Asked, str]], *, access: Access, **sampling: Any
) -> list[dict[str, Judged]]:
    """Ask an LLM about each fact of each note, one question a fact; answers are in its journal.

    A value without a pattern ("no fever") is not asked for: it holds where a note is silent.

    Args:
        notes: the facts that each note was asked for, as (name, wording), and its text.
        access: of the notes; the endpoint must be allowed to see them.

    Returns:
        For each note what was found by the name of the fact; see `read_judged`.

    Raises:
        HfSynthError: an error of `LLM.chat`.
    """
    items = task.facts.items if task.facts else ()
    silent = {(item.name, wording) for item in items for wording, _, pattern in item.values if not pattern}
    places = [
        (i, name, wording)
        for i, (asked, _) in enumerate(notes)
        for name, wording in asked
        if (name, wording) not in silent
    ]
    schema = {
        "type": "object", "properties": {"answer": {"type": "string", "enum": list(_ANSWERS)}},
        "required": ["answer"], "additionalProperties": False,
    }  # fmt: skip
    questions = (Question(fact_messages(notes[i][1], name, wording), 0) for i, name, wording in places)
    how = {"access": access, "schema": schema, "scope": task.fingerprint(), "temperature": 0.0, **sampling}
    found: list[dict[str, Judged]] = [{} for _ in notes]
    with closing(llm.stream(questions, **how)) as answers:
        for (i, name, _), answer in zip(places, answers, strict=True):
            found[i][name] = read_judged(answer)
    return found


def fact_messages(text: str, name: str, wording: str) -> Messages:
    """Return the messages of one question; note and fact stand in lines of their own."""
    return [
        {"role": "system", "content": _SYSTEM},
        {
            "role": "user",
            "content": f"Note:\n{text}\n\nFact:\n{name}: {wording}\n\n{ASKS} Answer with one JSON object and nothing "
            'else: {"answer": "stated"} where it does, in any words; {"answer": "negated"} where it denies it, or says '
            'it of another time, of a possibility or of another person alone; {"answer": "missing"} otherwise.',
        },
    ]


def read_judged(answer: Answer) -> Judged:
    """Return what an answer says; "unreadable" where it is none of the three words, "unanswered" where there is none.

    The word stands alone or as "answer" of a JSON object: a longer text may deny the word that it holds.
    """
    if answer.status != "ok":
        return "unanswered"
    text = re.sub(r"^```(?:json)?\s*|\s*```$", "", without_thoughts(answer.text).text.strip())
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    value = value.get("answer") if isinstance(value, dict) else value
    word = value.strip().rstrip(".").lower() if isinstance(value, str) else ""
    return next((known for known in _ANSWERS if known == word), "unreadable")


def count_judged(found: Sequence[Mapping[str, Judged]]) -> dict[str, int]:
    """Return how many facts were found stated, negated, missing or unreadable, and how many `notes` state all."""
    counts = Counter(value for note in found for value in note.values())
    whole = sum(bool(note) and set(note.values()) == {"stated"} for note in found)
    return {
        **{name: counts[name] for name in get_args(Judged)},
        "notes_with_all": whole,
        "notes": sum(map(bool, found)),
    }


def judged_line(counts: Mapping[str, int]) -> str:
    """Return these counts as a sentence."""
    asked = sum(counts[name] for name in get_args(Judged))
    return (
        f"an LLM was asked about {asked:,} facts of {counts['notes']:,} notes that the rules let pass: "
        f"{counts['stated']:,} stated, {counts['negated']:,} negated, {counts['missing']:,} missing, "
        f"{counts['unreadable']:,} answers unreadable, {counts['unanswered']:,} without an answer; nothing was "
        "rejected for it, and an LLM errs, too"
    )
