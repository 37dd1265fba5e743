"""A note that is cut into pieces over many rows is found, though each piece alone is too short."""

from __future__ import annotations

import random

import numpy as np
import pytest
from support.audit_texts import PAIR, TASK, WORDS, notes, pairs_of, rows_of

from hf_synth.privacy.audit import audit
from hf_synth.privacy.findings import COPIED, refusing
from hf_synth.privacy.pieces import Pieces
from hf_synth.privacy.short_texts import Words


def cut(text: str, size: int) -> list[str]:
    words = text.split()
    return [" ".join(words[i : i + size]) for i in range(0, len(words), size)]


def long_texts(n: int, seed: int, size: int = 70) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=size)) for _ in range(n)]


def found_in(rows: list[str], gold: list[str], groups: list[str] | None = None) -> set[int]:
    pieces = Pieces()
    pieces.add(Words.of(rows), np.arange(len(rows)))
    return pieces.find(zip(groups or map(str, range(len(gold))), ((text,) for text in gold), strict=True))


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 9, 11, 13, 20])
def test_notes_cut_into_rows_are_found(size: int) -> None:
    gold = long_texts(60, 1)
    planted = [piece for text in gold[:20] for piece in cut(text, size) if len(piece.split()) >= 4]
    clean = [piece for text in long_texts(20, 2) for piece in cut(text, size)]
    rows = [*planted, *clean]
    order = random.Random(3).sample(range(len(rows)), len(rows))  # the pieces of a note are not neighbours
    findings = audit(TASK, rows_of(TASK, [rows[i] for i in order], "synthetic"), gold=rows_of(TASK, gold))
    copied = {order[k] for k, flags in enumerate(findings.row_flags) if set(flags) & set(COPIED)}
    assert copied >= set(range(len(planted)))
    assert len(copied - set(range(len(planted)))) <= 0.01 * len(clean)
    assert findings.verdict == "refuse"


def test_pieces_with_a_few_words_of_their_own_and_over_two_columns() -> None:
    gold = long_texts(60, 4)
    pieces = [f"note says {piece} today" for text in gold[:10] for piece in cut(text, 10)]
    one = audit(TASK, rows_of(TASK, pieces, "synthetic"), gold=rows_of(TASK, gold))
    assert all("piece_of_gold" in flags for flags in one.row_flags)
    assert one.figures["pieces_of_gold"] == len(pieces)
    halves = [piece for text in gold[:10] for piece in cut(text, 5)]
    two = audit(PAIR, pairs_of(halves[::2], halves[1::2], "synthetic"), gold=pairs_of(gold, [""] * 60))
    assert all(set(flags) & set(COPIED) for flags in two.row_flags)


def test_one_piece_of_a_note_and_a_third_of_it_are_not_all_of_it() -> None:
    gold = long_texts(30, 5)
    assert found_in(cut(gold[0], 7)[:3], gold) == set()
    assert found_in(cut(gold[0], 7)[:1] * 9, gold) == set()
    assert found_in(cut(gold[0], 7)[:7], gold) == set(range(7))


def test_set_phrases_that_three_patients_share_are_no_pieces() -> None:
    shared, own = long_texts(2, 6, size=40)
    gold = [shared, shared + " one", shared + " two", own]
    rows = [*cut(shared, 8), *cut(own, 8)]
    assert found_in(rows, gold) == set(range(5, 10))
    assert found_in(rows, gold, ["p1", "p1", "p1", "p2"]) == set(range(10))


def test_a_phrase_of_the_generator_is_no_piece() -> None:
    gold = long_texts(10, 7, size=30)
    phrase = " ".join(gold[0].split()[:20])
    rows = [f"{phrase} w{i}" for i in range(30)]
    assert found_in(rows, gold) == set()


def test_equal_pieces_are_all_flagged() -> None:
    gold = long_texts(10, 8)
    rows = cut(gold[0], 7) * 3
    assert found_in(rows, gold) == set(range(len(rows)))


def test_gold_is_read_again_only_for_short_rows() -> None:
    def unread():
        raise AssertionError("read")
        yield

    pieces = Pieces()
    pieces.add(Words.of([" ".join(["w"] * 100)]), np.array([0]))
    assert pieces.find(unread()) == set()
    assert Pieces().find(unread()) == set()


def test_the_flag_refuses_and_long_clean_notes_have_none() -> None:
    assert "piece_of_gold" in refusing("open")
    found = audit(TASK, rows_of(TASK, notes(50, 1), "synthetic"), gold=rows_of(TASK, notes(60, 2)))
    assert found.figures["pieces_of_gold"] == 0
