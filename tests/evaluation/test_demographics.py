"""Words for sex, age and race in a note, and the note with others of them. All sentences are made up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.evaluation.demographics import ATTRIBUTES, read_attribute, swap_attribute


@pytest.mark.parametrize(
    ("text", "sex", "age", "race"),
    [
        ("72-year-old woman with cough.", "female", "65+", "unknown"),
        ("This is a 45 y/o right-handed African-American male here for follow-up.", "male", "45-64", "black"),
        ("68 yo AA F with reflux", "female", "65+", "black"),
        ("S: Woman, 66, stage IIIA; man, 3.5 cm away.", "female", "65+", "unknown"),
        ("54M w/ dysphagia. Temp 99F with chills.", "male", "45-64", "unknown"),
        ("101F overnight. 99F with chills.", "unknown", "unknown", "unknown"),
        ("Pt is a pleasant Hispanic lady. Age: 31.", "female", "18-44", "hispanic"),
        ("Sex: M. Ethnicity: Hispanic. Aged 17.", "male", "0-17", "hispanic"),
        ("8-month-old boy with fever", "male", "0-17", "unknown"),
        ("White blood cells 11, black stools for 3 days old.", "unknown", "unknown", "unknown"),
        ("Her 45-year-old son drove her in. She feels well.", "female", "unknown", "unknown"),
        ("He lives with his 80-year-old mother; his wife died at 62 years old.", "male", "unknown", "unknown"),
        ("Fell. Called by 51-year-old son.", "unknown", "unknown", "unknown"),
        ("Her husband says he snores.", "unknown", "unknown", "unknown"),
        ("No change in what he or she can eat.", "unknown", "unknown", "unknown"),
        ("Mr. Stone returns. Wife has questions and she asks them.", "male", "unknown", "unknown"),
        ("60-year-old white male, formerly described as a 60-year-old white female.", "unknown", "45-64", "white"),
        ("A non-Hispanic Asian man and a Korean War veteran.", "unknown", "unknown", "asian"),
        ("Treated to 45 Gy in 25 fractions, films of 3 years ago, 130-year-old building.", *["unknown"] * 3),
        ("Dysphagia since age 50.", "unknown", "unknown", "unknown"),
        ("", "unknown", "unknown", "unknown"),
    ],
)
def test_a_note_says_who_its_patient_is(text: str, sex: str, age: str, race: str) -> None:
    found = {attribute: read_attribute(text, attribute) for attribute in ATTRIBUTES}
    assert found == {"sex": sex, "age": age, "race": race}


@pytest.mark.parametrize(
    ("text", "attribute", "swapped"),
    [
        (
            "72-year-old woman. She hurt her arm; we told her to rest. HER pain is hers.",
            "sex",
            "72-year-old man. He hurt his arm; we told him to rest. HIS pain is his.",
        ),
        (
            "This gentleman said his wife, a nurse, brought him. She waited.",
            "sex",
            "This lady said her wife, a nurse, brought her. She waited.",
        ),
        ("68 yo AA F with reflux. T 98 F.", "sex", "68 yo AA M with reflux. T 98 F."),
        ("54M with cough. Sex: M", "sex", "54F with cough. Sex: F"),
        ("Pregnant woman, she feels well.", "sex", "Pregnant woman, she feels well."),
        ("Mrs. Hill is 50 years old.", "sex", "Mr. Hill is 50 years old."),
        ("An elderly 81-year-old man took 81 mg.", "age", "A young 40-year-old man took 81 mg."),
        ("Age: 31, seen with her 60-year-old mother.", "age", "Age: 80, seen with her 60-year-old mother."),
        ("9-year-old boy", "age", "9-year-old boy"),
        (
            "White count fine in this 50 yo white woman",
            "race",
            "White count fine in this 50 yo black woman",
        ),
        ("Caucasian male. Race: Caucasian", "race", "African-American male. Race: African-American"),
        ("68 yo AA F; Hispanic daughter", "race", "68 yo white F; Hispanic daughter"),
        ("Asian man", "race", "White man"),
        ("Man, 57, sore.", "age", "Man, 80, sore."),
        ("Nothing is said.", "sex", "Nothing is said."),
    ],
)
def test_a_note_is_told_of_another_patient(text: str, attribute: str, swapped: str) -> None:
    found = swap_attribute(text, attribute, read_attribute(text, attribute))
    assert found.replace("An young", "A young") == swapped
    if found != text:
        assert read_attribute(found, attribute) not in (read_attribute(text, attribute), "unknown")


WORDS = "she he her his him woman man 72-year-old 45 yo F M white black AA Hispanic male , . with and Age: Mr. Mrs. son"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=25), st.sampled_from(ATTRIBUTES))
def test_any_words_are_read_and_swapped_without_an_error(parts: list[str], attribute: str) -> None:
    text = " ".join(parts)
    group = read_attribute(text, attribute)
    swapped = swap_attribute(text, attribute, group)
    if group == "unknown":
        assert swapped == text
    assert len(swapped.split()) <= len(text.split()) + 1
