"""Whether a note states a fact: mentions that are denied, of another time, possible only, or of another person."""

from __future__ import annotations

import re
import time
from itertools import product

import pytest

from hf_synth.generation.fact_check import Lack, check_facts, context_of, status
from hf_synth.task.facts import Fact, Facts, quantity
from hf_synth.task.scripts import load_task

DIET = "soft diet"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She is on a soft diet.", "stated"),
        ("Appetite is fair.", "missing"),
        ("No soft diet.", "negated"),
        ("Denies pain, nausea, soft diet.", "negated"),
        ("No nausea, vomiting or soft diet.", "negated"),
        ("No nausea, soft diet since Monday.", "stated"),
        ("Does not need a soft diet.", "negated"),
        ("She hasn't needed a soft diet.", "negated"),
        ("Not only a soft diet, supplements too.", "stated"),
        ("Soft diet: none.", "negated"),
        ("Seen w/o soft diet.", "negated"),
        ("\u00d8 soft diet.", "negated"),
        ("Will continue soft diet.", "stated"),
        ("Soft diet was not needed.", "negated"),
        ("A soft diet was offered, which he declined.", "possible"),
        ("No fever but a soft diet.", "stated"),
        ("No fever. Soft diet.", "stated"),
        ("Weight 61.5 kg, no change; soft diet.", "stated"),
        ("History of soft diet.", "past"),
        ("Was on a soft diet last month.", "past"),
        ("On a soft diet since last month.", "stated"),
        ("The soft diet was stopped.", "past"),
        ("Had a soft diet, since then back on normal food.", "past"),
        ("If swallowing hurts, soft diet.", "possible"),
        ("A soft diet may be needed.", "possible"),
        ("Eats as if on a soft diet.", "stated"),
        ("We discussed a soft diet.", "possible"),
        ("His mother is on a soft diet.", "other_person"),
        ("Family history of soft diet.", "other_person"),
        ("Wife reports that he is on a soft diet.", "stated"),
        ("Wife is well, patient on a soft diet.", "stated"),
        ("Lives with his wife. On a soft diet.", "stated"),
        ("Denied a soft diet in May. Now on a soft diet.", "stated"),
        ("no soft diet\nSOFT DIET today", "stated"),
    ],
)
def test_the_context_of_a_mention(text: str, found: str) -> None:
    assert status(DIET, text, DIET) == found


@pytest.mark.parametrize(
    ("wording", "text"),
    [
        ("a fall in the last three months", "Prior fall at home."),
        ("a soft diet was considered", "A soft diet was considered."),
        ("the mother had a stroke", "Her mother had a stroke."),
        ("walks without an aid", "No aid."),
    ],
)
def test_a_context_that_is_meant_is_no_objection(wording: str, text: str) -> None:
    pattern = r"fall|soft diet|stroke|\baid\b"
    assert status(pattern, text, wording) == "stated"
    assert status(pattern, text, "something else") != "stated"


@pytest.mark.parametrize(
    ("number", "unit", "right", "wrong"),
    [
        (3, "kg", ("3 kg", "3kg", "3.0 kg", "3,0 kilos", "three kilograms"), ("13 kg", "3.5 kg", "3 km", "3")),
        (38.4, "°C", ("38.4 °C", "38,4°C", "38.40 C"), ("138.4 °C", "38.45 °C", "38 °C")),
        (38.4, "", ("38.4", "38.4."), ("38.41", "138.4", "38.4.1")),
        (120, "mmHg", ("120 mmHg", "120 mm Hg"), ("1120 mmHg", "120")),
        (1_000_000, "", ("1000000",), ("1000", "1")),
        (2, "tablets", ("2 tablets", "two tablets"), ("2 tables", "12 tablets")),
    ],
)  # fmt: skip
def test_quantities(number: float, unit: str, right: tuple[str, ...], wrong: tuple[str, ...]) -> None:
    pattern = quantity(number, unit)
    assert [text for text in right if not re.search(pattern, f"lost {text} now", re.IGNORECASE)] == []
    assert [text for text in wrong if re.search(pattern, f"lost {text} now", re.IGNORECASE)] == []


PAIN = Fact("pain", (("no pain", 0, ""), ("mild pain", 1, "mild pain"), ("severe pain", 2, "severe pain")))
COUGH = Fact("cough", (("no cough", 0, ""), ("a cough", 0, "cough")))
FACTS = Facts((PAIN, COUGH), "max", (1, 2))


@pytest.mark.parametrize(
    ("pain", "cough", "text", "lacks"),
    [
        ("mild pain", "a cough", "Mild pain and a cough.", []),
        ("mild pain", "a cough", "Mild pain.", [("cough", "missing")]),
        ("severe pain", "no cough", "Mild pain, then severe pain.", []),
        ("mild pain", "no cough", "Mild pain, later severe pain.", [("pain", "differs")]),
        ("no pain", "no cough", "Comfortable.", []),
        ("no pain", "no cough", "Mild pain. Cough.", [("pain", "differs"), ("cough", "differs")]),
        ("no pain", "no cough", "Denies mild pain, cough.", []),
    ],
)
def test_what_a_note_lacks(pain: str, cough: str, text: str, lacks: list[tuple[str, str]]) -> None:
    found = check_facts(FACTS, (("pain", pain), ("cough", cough)), text)
    assert [(lack.fact, lack.found) for lack in found] == lacks
    assert {lack.reason for lack in found} <= {"facts_missing", "facts_differ"}


def test_a_lack_says_what_is_wrong() -> None:
    assert str(Lack("pain", "mild pain", "negated")) == "pain: mild pain (is denied)"
    assert Lack("pain", "mild pain", "negated").reason == "facts_missing"
    assert Lack("pain", "mild pain", "differs").reason == "facts_differ"


@pytest.mark.parametrize("name", ["clinic:facts", "esophagitis:grade", "fall_risk:morse"])
def test_every_wording_states_itself(name: str) -> None:
    """A note made of the wordings themselves lacks nothing, for every combination."""
    facts = load_task(name).facts
    assert facts is not None
    for values in product(*(item.values for item in facts.items)):
        asked = tuple((item.name, wording) for item, (wording, *_) in zip(facts.items, values, strict=True))
        assert check_facts(facts, asked, ". ".join(wording for _, wording in asked) + ".") == []


def test_long_texts_cost_linear_time() -> None:
    text = "no pain, if his mother had soft diet, " * 4_000
    start = time.process_time()
    assert status(DIET, text) != "stated"
    assert context_of(text, 80_000, 80_009) is not None
    assert time.process_time() - start < 4
