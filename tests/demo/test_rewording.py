"""The simulator says in other words what an exemplar says, by a table of phrases."""

from __future__ import annotations

import random

import pytest

from hf_synth.demo import rewording
from hf_synth.demo.rewording import reword, sentences_of, with_fillers


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
    import re

    monkeypatch.setattr(rewording, "_USED", 1.0)
    for seed in range(6):
        assert re.fullmatch(new, reword(random.Random(seed), text)[0])


def test_the_share_of_replaced_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewording, "_USED", 1.0)
    assert reword(random.Random(0), "Can I have tablets today, doctor?")[1] == pytest.approx(3 / 6)
    assert reword(random.Random(0), "")[1] == 0
    monkeypatch.setattr(rewording, "_USED", 0.0)
    assert reword(random.Random(0), "Can I have tablets?") == ("Can I have tablets?", 0.0)


def test_fillers_part_the_words_outside_a_span() -> None:
    text = "one two three four five six seven eight nine ten"
    new = with_fillers(random.Random(1), text)
    assert [w for w in new.split() if w not in rewording._FILLERS] == text.split()
    assert len(new.split()) > len(text.split())
    assert "four five six seven" in with_fillers(random.Random(1), text, "four five six seven")
    assert with_fillers(random.Random(1), "a short text") == "a short text"


def test_sentences() -> None:
    assert sentences_of("First. Second?\nthird line; fourth\n\n") == ["First.", "Second?", "third line;", "fourth"]
