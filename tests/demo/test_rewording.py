"""The simulator says in other words what an exemplar says, by a table of phrases."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from hf_synth.demo import rewording
from hf_synth.demo.rewording import fillers_of, in_fragments, reword, sentences_of, with_fillers


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("Can I renew the prescription?", r"(Could I|May I|Am I allowed to) refill the script\?"),
        ("I’m dizzy, but I can’t come.", "I am (light-headed|giddy), yet I (cannot|can not) come."),
        ("The renewal is on my list.", "The renewal is on my list."),  # part of a word is no phrase
        ("", ""),
        ("Çok kötüyüm.", "Çok kötüyüm."),
        ("İ AM here", "İ AM here"),  # a letter that folds to two
    ],
)
def test_phrases_are_replaced_and_other_words_stay(text: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewording, "_USED", 1.0)
    for seed in range(6):
        assert re.fullmatch(new, reword(random.Random(seed), text))


LONG = (
    "Varón de 71 años con tos y fiebre; crepitantes en base derecha según la doctora Ibáñez. Vive solo desde marzo, "
    "camina con bastón y toma aspirina. La radiografía muestra una condensación lobar, se pauta amoxicilina oral."
)


def test_a_note_of_keywords_is_in_the_language_of_its_text_and_far_from_it() -> None:
    own = re.findall(r"[^\W\d]+", LONG.casefold())
    for seed in range(20):
        note = in_fragments(random.Random(seed), [LONG], [LONG, LONG])
        words = re.findall(r"[^\W\d]+", note.casefold())
        assert set(words) <= set(own), "no filler of another language"
        assert len(words) > 8
        assert "ibáñez" not in words, "what may be a name"
        assert not any(c.isdigit() for c in note)
        follow = sum((a, b) in set(pairwise(own)) for a, b in pairwise(words))
        assert follow <= 0.3 * len(own), "few words follow each other as in the text"
        assert not any(LONG.casefold().find(" ".join(words[i : i + 4])) >= 0 for i in range(len(words) - 3))


def test_nouns_with_capital_letters_stay() -> None:
    german = "Der Patient klagt über Husten und Fieber. Die Lunge zeigt ein Rasseln, er bekommt ein Antibiotikum."
    note = in_fragments(random.Random(1), [german], [german])
    assert {"Husten", "Fieber", "Lunge", "Rasseln", "Antibiotikum"} & set(re.findall(r"\w+", note))


def test_texts_without_words_stay_as_they_are() -> None:
    assert in_fragments(random.Random(1), ["120/80  37.2"], []) == "120/80 37.2"
    assert in_fragments(random.Random(1), ["胸の痛み"], ["胸の痛み"]).rstrip(".").endswith("胸の痛み")


def test_fillers_are_short_words_that_several_texts_have() -> None:
    assert fillers_of(["er kam mit dem Rad", "er ging mit dem Hund", "Ruhe"]) == ("dem", "er", "mit")
    assert fillers_of(["er kam"]) == ("er", "kam")
    assert fillers_of([]) == rewording._FILLERS


def test_fillers_part_the_words_outside_a_span() -> None:
    text = "one two three four five six seven eight nine ten"
    new = with_fillers(random.Random(1), text)
    assert [w for w in new.split() if w not in rewording._FILLERS] == text.split()
    assert len(new.split()) > len(text.split())
    assert "four five six seven" in with_fillers(random.Random(1), text, "four five six seven")
    assert with_fillers(random.Random(1), "a short text") == "a short text"


def test_sentences() -> None:
    assert sentences_of("First. Second?\nthird line; fourth\n\n") == ["First.", "Second?", "third line;", "fourth"]
