"""The artificial clinic: seeded, graded by its facts, and never printing the grade."""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hf_synth.demo.clinic import Facts, grade_of, write_notes
from hf_synth.task.scripts import load_task

NOTES = write_notes(1_500, seed=7)


def test_same_seed_same_notes_and_longer_calls_begin_alike() -> None:
    assert write_notes(300, seed=7) == NOTES[:300]
    assert write_notes(300, seed=8) != NOTES[:300]


def test_the_grade_follows_from_the_facts_and_is_never_printed() -> None:
    leaks = load_task("clinic").leaks
    for note in NOTES:
        assert note.grade == grade_of(note.facts)
        assert not any(re.search(p, note.text) for p in leaks)


def test_most_notes_are_grade_0_and_every_grade_occurs() -> None:
    counts = Counter(note.grade for note in NOTES)
    assert counts[0] > len(NOTES) / 2
    assert all(counts[g] > 30 for g in (1, 2, 3))


def test_patients_have_courses_and_texts_hardly_repeat() -> None:
    visits = Counter(note.patient_id for note in NOTES)
    assert max(visits.values()) >= 5
    assert len({note.text for note in NOTES}) == len(NOTES)
    assert len({note.id for note in NOTES}) == len(NOTES)


@given(st.builds(Facts, *[st.booleans()] * 7))
def test_the_rule_takes_the_gravest_fact(facts: Facts) -> None:
    grade = grade_of(facts)
    if facts.fluids or facts.tube or facts.admitted:
        assert grade == 3
    elif facts.changed or facts.supplements:
        assert grade == 2
    else:
        assert grade == int(facts.felt or facts.finding)
