"""Notes that lack facts are asked for again: how often, at what cost, and never twice for money."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, content, serving

from hf_synth.errors import ColumnError
from hf_synth.generation.generation import generate, generate_with_figures, no_gold
from hf_synth.llm.llm import LLM
from hf_synth.task.facts import Fact, Facts
from hf_synth.task.task import Task

FACTS = Facts((Fact("pain", (("no pain", 0, ""), ("pain of the chest", 1, "pain"))),), "max", (1,))
TASK = Task.from_columns(
    "pain",
    text_columns="text",
    label_column="label",
    labels=("no", "yes"),
    label_meanings=("no pain", "pain"),
    access="open",
    facts=FACTS,
)
AGAIN = "It does not state everything"


def writing(rounds_needed: int) -> Any:
    """Return a server that states the fact only when it was asked for again so often; each answer is another text."""

    def says(request: dict[str, Any], number: int) -> Said:
        prompt = content(request)
        label = re.findall(r"labels: (.*)\.\n", prompt)[0]
        earlier = re.findall(r"version (\d)", prompt)
        version = int(earlier[-1]) + 1 if AGAIN in prompt else 0
        said = "Pain of the chest" if label == "yes" and version >= rounds_needed else "Feels well"
        text = f"{said}, visit {request['seed']}, version {version}."
        return Said(json.dumps({"entries": [{"text": text, "label": label}]}))

    return says


def make(server: LLMServer, folder: Path) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "journal.sqlite")


@pytest.mark.parametrize(("needed", "rounds", "kept"), [(0, 0, 4), (1, 1, 4), (1, 0, 0), (2, 1, 0)])
def test_the_rounds_are_bounded(needed: int, rounds: int, kept: int, tmp_path: Path) -> None:
    with serving(writing(needed)) as server:
        how: Any = {"prompt": "facts", "fact_rounds": rounds, "max_calls": 4}
        rows, run = generate_with_figures(TASK, no_gold(TASK), make(server, tmp_path), {"yes": 4}, **how)
        asked = server.asked()
    assert Counter(rows["label_status"])["kept"] == kept
    assert {r for r, s in zip(rows["reason"], rows["label_status"], strict=True) if s == "rejected"} == (
        set() if kept else {"facts_missing"}
    )
    again = sum(AGAIN in prompt for prompt in asked)
    checked = run["facts_checked"]
    assert (checked["checked"], checked["asked_again"], checked["in_the_end"]) == (4, again, kept)
    assert again == (4 * min(needed, rounds) if needed else 0)
    assert checked["at_first"] == (4 if needed == 0 else 0)
    assert run["prompt_tokens"] == sum(v or 0 for v in rows["prompt_tokens"])  # every version is paid for once


def test_the_request_names_what_is_missing_and_is_not_paid_for_twice(tmp_path: Path) -> None:
    how: Any = {"prompt": "facts", "fact_rounds": 2, "max_calls": 3}
    with serving(writing(2)) as server:
        first = generate(TASK, no_gold(TASK), make(server, tmp_path), {"yes": 3}, **how)
        prompts = server.asked()
        second = generate(TASK, no_gold(TASK), make(server, tmp_path), {"yes": 3}, **how)
        assert len(server.asked()) == len(prompts) == 9
    assert first["text"][:] == second["text"][:]
    asked = [prompt for prompt in prompts if AGAIN in prompt]
    assert all("- pain: pain of the chest (is not stated)" in prompt for prompt in asked)
    assert all("Feels well, visit" in prompt for prompt in asked)


def test_a_note_of_another_label_is_rejected(tmp_path: Path) -> None:
    def says(request: dict[str, Any], number: int) -> Said:
        return Said(json.dumps({"entries": [{"text": f"Pain of the chest, visit {number}.", "label": "no"}]}))

    with serving(says) as server:
        rows = generate(TASK, no_gold(TASK), make(server, tmp_path), {"yes": 1}, prompt="facts", max_calls=2)
    assert set(rows["reason"][:]) == {"facts_differ"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("grade_0", "label_leak"), ("Grade_0: seen today in clinic, well.", "label_leak"), ("Seen, well.", "empty")],
)
def test_a_note_that_says_nothing_states_no_fact(text: str, reason: str, tmp_path: Path) -> None:
    """A small LLM answered with the name of the label: nothing else was stated, so that every default held."""
    task = dataclasses.replace(TASK, labels=("grade_0", "grade_1"))

    def says(request: dict[str, Any], number: int) -> Said:
        return Said(json.dumps({"entries": [{"text": text, "label": "grade_0"}]}))

    with serving(says) as server:
        rows = generate(task, no_gold(task), make(server, tmp_path), {"grade_0": 1}, prompt="facts", max_calls=1)
    assert rows["reason"][:] == [reason]


def test_gold_is_needed_where_a_prompt_shows_it(tmp_path: Path) -> None:
    with serving() as server:
        with pytest.raises(ColumnError, match="no gold row with text and label to show"):
            generate(TASK, no_gold(TASK), make(server, tmp_path), 2, prompt="examples")
        with pytest.raises(ColumnError, match="0 times or more often, not -1"):
            generate(TASK, no_gold(TASK), make(server, tmp_path), 2, prompt="facts", fact_rounds=-1)


def test_attributes_need_no_gold(tmp_path: Path) -> None:
    def says(request: dict[str, Any], number: int) -> Said:
        label = re.findall(r"labels: (.*)\.\n", content(request))[0]
        entries = [{"text": f"Seen at home, visit {request['seed']} {i}.", "label": label} for i in range(2)]
        return Said(json.dumps({"entries": entries}))

    with serving(says) as server:
        rows = generate(TASK, no_gold(TASK), make(server, tmp_path), 6, prompt="attributes")
    assert set(rows["label_status"][:]) == {"kept"}
    assert set(rows["fold"][:]) == {None}
    assert set(rows["access"][:]) == {"open"}
