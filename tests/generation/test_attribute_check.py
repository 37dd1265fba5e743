"""Attributes of a note are checked where a rule can, and said to be unchecked where none can."""

from __future__ import annotations

import pytest

from hf_synth.generation.attribute_check import attributes_line, count_followed, follows
from hf_synth.generation.prompts import ATTRIBUTES


@pytest.mark.parametrize(("name", "value", "text", "found"), [
    ("length", "two sentences", "Dr. Ode saw him. He eats well.", "yes"),
    ("length", "two sentences", "He eats well.", "no"),
    ("length", "two sentences", "One. Two. Three. Four.", "no"),
    ("length", "a short paragraph", "He eats well. No pain.", "yes"),
    ("length", "a short paragraph", "word " * 200, "no"),
    ("length", "a long paragraph", "He eats well.", "no"),
    ("length", "two paragraphs", "He eats.\n\nPlan: none.", "yes"),
    ("length", "two paragraphs", "He eats. Plan: none.", "no"),
    ("patient", "a young adult", "A 23-year-old man.", "yes"),
    ("patient", "a young adult", "An 83 yo man.", "no"),
    ("patient", "a frail patient of great age", "Woman aged 91.", "yes"),
    ("patient", "an older adult", "He eats well.", "unknown"),
    ("setting", "telephone call", "Seen in clinic today.", "no"),
    ("setting", "telephone call", "By phone he says that he eats.", "yes"),
    ("setting", "home visit", "He eats well.", "unknown"),
    ("style", "a list of problems", "1. Pain\n2. Weight", "yes"),
    ("style", "a list of problems", "Pain and weight.", "no"),
    ("style", "full sentences", "Pain.", "unknown"),
    ("difficulty", "typical and clear", "He eats well.", "unknown"),
    ("made up", "x", "He eats well.", "unknown"),
])  # fmt: skip
def test_a_rule_reads_what_it_can(name: str, value: str, text: str, found: str) -> None:
    assert follows(name, value, text) == found


def test_each_value_of_our_attributes_is_known_to_its_rule() -> None:
    checked = {"length": "One. Two.", "patient": "A 50-year-old.", "setting": "By phone."}
    for name, values in ATTRIBUTES:
        for value in values:
            if name in checked:
                assert follows(name, value, checked[name]) != "unknown", value


def test_the_line_says_what_was_read_and_what_no_rule_checks() -> None:
    counts = count_followed([
        ((("length", "two sentences"), ("difficulty", "typical and clear")), "One. Two."),
        ((("length", "two sentences"), ("difficulty", "typical and clear")), "One."),
    ])  # fmt: skip
    assert counts["length"] == {"yes": 1, "no": 1, "unknown": 0}
    line = attributes_line(counts)
    assert "length 1 of 2 notes of which a rule can tell" in line
    assert "checked by no rule: difficulty" in line
    assert attributes_line({}) == ""
