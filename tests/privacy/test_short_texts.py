"""Short texts of gold are found word for word and nearly so; commonplace texts and set phrases are not copies."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from support.audit_texts import DISGUISES, PAIR, TASK, WORDS, copied, pairs_of, rows_of

from hf_synth.privacy.audit import audit
from hf_synth.privacy.findings import FLAGS
from hf_synth.privacy.overlap import Index
from hf_synth.privacy.short_texts import LONGEST, ShortTexts, Words

GREETINGS = ["hello", "good morning", "dear doctor", "hi there nurse", "good afternoon to you", "thank you"]


def texts_of(size: int, n: int, seed: int) -> list[str]:
    rng = random.Random(f"{size}-{seed}")
    return [" ".join(rng.choices(WORDS, k=size)) for _ in range(n)]


def near(gold: list[str], texts: list[str], groups: list[int] | None = None) -> list[bool]:
    index = ShortTexts.of(Words.of(gold), np.array(groups or range(len(gold)), np.int64))
    words = Words.of(texts)
    return (index.same(words) | index.near(words)).tolist()


def changes(text: str, rng: random.Random) -> dict[str, str]:
    """Return a text in each of the ways that the issue of short texts names."""
    words = text.split()
    other = f"new{rng.randrange(99)}"
    return {
        "first word changed": " ".join([other, *words[1:]]),
        "last word changed": " ".join([*words[:-1], other]),
        "first word dropped": " ".join(words[1:]),
        "last word dropped": " ".join(words[:-1]),
        "a greeting before": f"{rng.choice(GREETINGS)} {text}",
        "a word after": f"{text} {other}",
    }


# --- word for word --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 40])
def test_a_text_word_for_word_is_found_at_any_length(size: int) -> None:
    gold = list(dict.fromkeys(texts_of(size, 40, 1)))
    other = [f"clean{i} " + " ".join(f"x{i}{k}" for k in range(size)) for i in range(40)]
    found = audit(TASK, rows_of(TASK, [*gold, *other], "synthetic"), gold=rows_of(TASK, gold))
    assert copied(found) == [True] * len(gold) + [False] * 40
    assert all("copy_of_gold" in flags for flags in found.row_flags[: len(gold)])


@pytest.mark.parametrize("how", ["case", "punctuation", "whitespace", "zero width", "look-alikes", "no whitespace"])
@pytest.mark.parametrize("size", [4, 8, 12])
def test_a_disguised_short_text_is_found(size: int, how: str) -> None:
    gold = texts_of(size, 30, 2)
    rows = [DISGUISES[how](random.Random(0), text) for text in gold]
    assert all(copied(audit(TASK, rows_of(TASK, rows, "synthetic"), gold=rows_of(TASK, gold))))


@pytest.mark.parametrize("size", [2, 4, 7, 11, 14, 23])
def test_a_text_of_a_pair_counts_beside_a_new_one(size: int) -> None:
    gold = pairs_of(texts_of(size, 40, 3), texts_of(6, 40, 4))
    new = [" ".join(f"h{i}{k}" for k in range(6)) for i in range(40)]
    swapped = pairs_of(new, gold["premise"][:], "synthetic")
    found = audit(PAIR, pairs_of(gold["premise"][:], new, "synthetic"), gold=gold)
    assert all("copy_of_gold" in flags for flags in found.row_flags)
    assert all(copied(audit(PAIR, swapped, gold=gold)))
    assert not any(copied(audit(PAIR, pairs_of(new, new[::-1], "synthetic"), gold=gold)))


@pytest.mark.parametrize(("sharing", "expected"), [(1, True), (2, True), (3, False), (5, False)])
@pytest.mark.parametrize("text", ["no acute distress", "denies chest pain and shortness of breath at rest today"])
def test_a_text_that_three_groups_share_is_a_set_phrase(text: str, sharing: int, *, expected: bool) -> None:
    gold = rows_of(TASK, [text] * sharing + texts_of(9, 60, 5))
    assert copied(audit(TASK, rows_of(TASK, [text.upper()], "synthetic"), gold=gold)) == [expected]


def test_three_notes_of_one_patient_are_one_group() -> None:
    gold = rows_of(TASK, ["denies any chest pain", "denies any chest pain", "Denies any chest pain."])
    same = gold.remove_columns("group").add_column("group", ["p1"] * 3)
    rows = rows_of(TASK, ["denies any chest pain"], "synthetic")
    assert copied(audit(TASK, rows, gold=same)) == [True]
    assert copied(audit(TASK, rows, gold=gold)) == [False]


def test_a_set_phrase_in_a_pair_does_not_refuse_a_row_but_the_pair_itself_does() -> None:
    phrases = ["the patient has a cough", "the patient has a fever"]
    gold = pairs_of([phrases[0]] * 4 + [phrases[1]] * 4 + texts_of(9, 9, 6), texts_of(7, 17, 7))
    new = [" ".join(f"n{i}{k}" for k in range(7)) for i in range(2)]
    assert copied(audit(PAIR, pairs_of(phrases, new, "synthetic"), gold=gold)) == [False, False]
    assert copied(audit(PAIR, pairs_of(phrases[:1], gold["hypothesis"][:1], "synthetic"), gold=gold)) == [True]


def test_one_space_more_or_less_is_another_text_and_none_at_all_a_disguise() -> None:
    gold = ["the patient is a nonsmoker", *texts_of(9, 20, 8)]
    rows = ["the patient is a non-smoker", "thepatientisanonsmoker", "t-he pa-tient is a non-smoker"]
    assert near(gold, rows) == [False, True, True]


def test_long_texts_keep_their_rule_whoever_shares_them() -> None:
    """A whole note that stands under three patients is a copy of a note, not a phrase."""
    text = texts_of(60, 1, 9)[0]
    gold = rows_of(TASK, [text] * 4 + texts_of(60, 10, 10))
    assert copied(audit(TASK, rows_of(TASK, [text], "synthetic"), gold=gold)) == [True]


# --- nearly ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "least"), [(8, 0.8), (10, 0.8), (12, 0.95), (16, 0.95), (24, 0.95), (30, 0.95)])
def test_near_copies_of_short_texts_are_found(size: int, least: float) -> None:
    rng = random.Random(size)
    gold = texts_of(size, 100, 11)
    planted: dict[str, list[str]] = {}
    for text in gold:
        for how, copy in changes(text, rng).items():
            planted.setdefault(how, []).append(copy)
    for how, rows in planted.items():
        found = audit(TASK, rows_of(TASK, rows, "synthetic"), gold=rows_of(TASK, gold))
        assert np.mean(copied(found)) >= least, how
    clean = audit(TASK, rows_of(TASK, texts_of(size, 200, 12), "synthetic"), gold=rows_of(TASK, gold))
    assert not any(copied(clean))


@pytest.mark.parametrize("size", [16, 24, 30])
def test_a_word_changed_anywhere_after_a_greeting(size: int) -> None:
    rng = random.Random(size)
    gold, rows = texts_of(size, 60, 13), []
    for text in gold:
        words = text.split()
        words[rng.randrange(size)] = "other"
        rows.append(" ".join([rng.choice(GREETINGS), *words]))
    assert np.mean(near(gold, rows)) >= 0.95


def test_numbers_in_words_and_signs_are_the_same_words() -> None:
    gold = [
        "fever & chills for 26 days since may", "twenty-two of one hundred and five tablets left",
        *texts_of(8, 40, 14),
    ]  # fmt: skip
    rows = [
        "fever and chills for twenty six days since may", "22 of 105 tablets left",
        "chills and fever for seven days since april",
    ]  # fmt: skip
    assert near(gold, rows) == [True, True, False]


def test_a_form_with_other_numbers_is_no_copy() -> None:
    gold = ["pain 3 of 10 today", *texts_of(8, 60, 15)]
    assert near(gold, ["pain 5 of 10 today"]) == [False]


def test_what_is_as_near_to_another_patient_is_commonplace() -> None:
    base = "she does not smoke or drink any alcohol"  # 8 words
    gold = [base, base.replace("she", "he"), base.replace("alcohol", "beer"), *texts_of(8, 80, 16)]
    row = base.replace("does not", "never")
    assert near(gold, [row]) == [False]
    assert near([base, *gold[3:]], [base.replace("any", "much")]) == [True]
    assert near(gold[:3], [base.replace("any", "much")], [0, 0, 0]) == [True]  # all of them are one patient's


def test_generation_rejects_what_the_audit_would_refuse() -> None:
    """The gates use `spans` and `near`."""
    gold = texts_of(12, 30, 17)
    index = Index.of((str(i), (text,)) for i, text in enumerate(gold))
    reach = index.reach([(gold[0] + " today",), (" ".join(f"q{k}" for k in range(13)),)])
    assert (reach.near() | reach.spans()).tolist() == [True, False]


def test_a_sentence_that_lies_in_a_longer_note_is_found() -> None:
    note = texts_of(70, 1, 18)[0]
    gold = rows_of(TASK, [note, *texts_of(70, 5, 19)])
    words = note.split()
    rows = rows_of(TASK, [" ".join(words[30:43]), " ".join([*words[30:43], "today"])], "synthetic")
    assert copied(audit(TASK, rows, gold=gold)) == [True, True]


# --- findings and time -----------------------------------------------------------------------------------------------


def test_rows_of_under_four_words_are_counted_as_too_short() -> None:
    gold = rows_of(TASK, ["no acute distress", *texts_of(9, 20, 20)])
    texts = ["No acute distress!", "all is well", "one", "...", "", "these are four words", "gastro-oesophageal reflux"]
    found = audit(TASK, rows_of(TASK, texts, "synthetic"), gold=gold)
    assert found.figures["too_short"] == 5  # the empty row is none, and a hyphen parts two words
    assert found.row_flags[0] == ("copy_of_gold",)
    assert not any(found.row_flags[1:5])
    assert audit(TASK, rows_of(TASK, texts, "synthetic"), gold=None).figures["too_short"] == 5
    pair = pairs_of(["no", "a cough"], ["yes", "is a symptom"], "synthetic")
    assert audit(PAIR, pair, gold=None).figures["too_short"] == 1  # words of the whole row
    assert "too_short" not in FLAGS


def test_without_short_texts_in_gold_nothing_is_near() -> None:
    empty = ShortTexts.of(Words.of([]), np.zeros(0, np.int64))
    words = Words.of(["a few words of text", "", "x"])
    assert not empty.near(words).any()
    assert not empty.same(words).any()
    longest = " ".join(f"w{i}" for i in range(LONGEST + 1))
    assert near([longest], [longest, "w1 w2 w3 w4"]) == [True, False]


def test_ten_times_the_rows_take_about_ten_times_as_long() -> None:
    """Texts that share their wording lead to bounded numbers of candidates."""
    rng = random.Random(21)
    phrases = [" ".join(rng.choices(WORDS, k=3)) for _ in range(30)]

    def message() -> str:
        return " ".join([*rng.choices(phrases, k=3), *rng.choices(WORDS, k=2)])

    def seconds(n: int) -> float:
        gold, rows = [message() for _ in range(n)], [message() for _ in range(n)]
        index = Index.of((str(i), (text,)) for i, text in enumerate(gold))
        start = time.process_time()
        index.reach([(text,) for text in rows])
        return time.process_time() - start

    seconds(500)
    small = seconds(1_000)
    assert seconds(10_000) < 30 * small
