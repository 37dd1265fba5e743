"""The page of an audit says at a glance what may leave, what may not, and what was not checked."""

from __future__ import annotations

import re

import pytest
from datasets import Dataset
from support.audit_texts import TASK, notes, rows_of

from hf_synth.privacy.audit import audit
from hf_synth.privacy.canaries import make_canaries
from hf_synth.privacy.findings import Findings
from hf_synth.privacy.report import audit_lead, audit_markdown, audit_page

GOLD, CLEAN = notes(120, 1), notes(100, 2)
PHONE = " call (617) 555-0199"


@pytest.fixture(scope="module")
def gold() -> Dataset:
    return rows_of(TASK, GOLD)


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return rows_of(TASK, notes(40, 3))


def glance(found: Findings) -> dict[str, list[list[str]]]:
    """Return the rows of the first table by their first cell."""
    rows: dict[str, list[list[str]]] = {}
    for line in audit_markdown(found).split("## What may leave, and what not")[1].split("## ")[0].splitlines():
        if line.startswith("|") and not line.startswith("|-"):
            first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.setdefault(first.lstrip("✓✗?! "), []).append(cells)
    return rows


def verdict(found: Findings) -> str:
    """Return the first text after the title."""
    return audit_markdown(found).split("\n\n")[1]


def test_rows_that_are_withheld_stand_in_the_verdict(gold: Dataset, held_out: Dataset) -> None:
    texts = [text + PHONE if i < 71 else text for i, text in enumerate(CLEAN)]
    found = audit(TASK, rows_of(TASK, [*texts, "too short"], "synthetic"), gold=gold, held_out=held_out)
    assert found.verdict == "ok"
    assert verdict(found) == "30 of 101 rows may leave; 71 are withheld. Names were not checked."
    rows = glance(found)
    assert rows["may leave"] == [["30", "29.7%", "nothing was found in them"]]
    assert rows["must not leave"] == [["71", "70.3%", "71 `identifier`"]]
    assert rows["not checked"][0][0] == "1"
    assert "fewer than 4 words" in rows["not checked"][0][2]
    assert "Passed" not in audit_page(found)


def test_rows_nearer_to_gold_than_other_notes_are_not_just_let_go(gold: Dataset, held_out: Dataset) -> None:
    begins = [" ".join(text.split()[:14]) for text in GOLD]  # too few words of one note to be a copy
    pieces = [" ".join(begins[i::40]) for i in range(40)]
    found = audit(TASK, rows_of(TASK, pieces, "synthetic"), gold=gold, held_out=held_out)
    assert found.verdict == "ok"
    assert found.figures["closeness_auc_low"] > 0.5
    assert verdict(found) == (
        "40 of 40 rows may leave once a person has looked at them; 0 are withheld. Names were not checked."
    )
    assert (
        "- The synthetic rows lie nearer to gold than held-out gold: in all pairs of a synthetic and a"
        in audit_markdown(found)
    )
    same = audit(TASK, rows_of(TASK, CLEAN, "synthetic"), gold=gold, held_out=held_out)
    assert verdict(same) == "100 of 100 rows may leave; 0 are withheld. Names were not checked."
    assert "rows lie nearer" not in audit_markdown(same)


FORM = (
    "Examination of the left ankle in two planes. No acute fracture and no dislocation is seen, the mortise is "
    "congruent, soft tissue is unremarkable. Bone density is appropriate for {} years of age. No bony injury."
)


def test_reports_of_one_form_are_withheld_until_three_notes_of_gold_have_it(gold: Dataset) -> None:
    said = "gold with three notes of that form mends it"
    cases = (
        ("one note", [30], 61, True),
        ("three notes", [30, 31, 32], 61, False),
        ("one note three times, as in an export", [30, 30, 30], 61, True),
        ("a copy with its number", [30, 31, 32], 31, True),
    )
    for case, ages, age, withheld in cases:
        texts = [*GOLD, *map(FORM.format, ages)]
        found = audit(TASK, rows_of(TASK, [*CLEAN, FORM.format(age)], "synthetic"), gold=rows_of(TASK, texts))
        assert bool(found.refused) == withheld, case
        assert (said in audit_markdown(found)) == withheld, case


def test_a_generator_that_copies_leaves_nothing(gold: Dataset) -> None:
    found = audit(TASK, rows_of(TASK, [*CLEAN[:90], *GOLD[:10]], "synthetic"), gold=gold)
    assert found.verdict == "refuse"
    assert verdict(found) == "No row may leave: 10 of 100 rows contain gold."
    rows = glance(found)
    assert rows["may leave"] == [["0", "0.0%", "–"]]
    assert rows["must not leave"][0][0] == "100"
    assert rows["must not leave"][0][2].startswith("all rows, since too many copy gold: 10 ")
    assert "10 of them contain gold (10.00%)" in audit_markdown(found)
    may, must, _ = audit_lead(found).tiles
    assert may.note == "of 100", "nothing may leave, whatever was found"
    assert must.note.startswith("all rows, since too many copy gold: 10 copy of gold, 10 copied span")


def test_without_gold_it_is_not_known_what_may_leave() -> None:
    found = audit(TASK, rows_of(TASK, [*CLEAN[:9], CLEAN[9] + PHONE], "synthetic"), gold=None)
    assert verdict(found) == (
        "It is not known what may leave: 10 rows were not compared with gold. 1 is withheld. Names were not checked."
    )
    rows = glance(found)
    assert "may leave" not in rows
    assert rows["not known"][0][0] == "9"
    assert rows["must not leave"] == [["1", "10.0%", "1 `identifier`"]]
    assert any("no gold was given" in cells[2] for cells in rows["not checked"])


def test_what_was_checked_is_not_among_what_was_not(gold: Dataset, held_out: Dataset) -> None:
    rows = rows_of(TASK, CLEAN[:20], "synthetic")
    canaries = make_canaries(2, references=3, seed=1)
    plain = [cells[2] for cells in glance(audit(TASK, rows, gold=gold))["not checked"]]
    found = audit(TASK, rows, gold=gold, held_out=held_out, canaries=canaries)
    more = [cells[2] for cells in glance(found)["not checked"]]
    for word in ("held-out", "canaries"):
        assert any(word in line for line in plain)
        assert not any(word in line for line in more)
    assert any("names" in line for line in more)


def test_an_audit_of_no_rows_has_a_page(gold: Dataset) -> None:
    found = audit(TASK, rows_of(TASK, [""], "synthetic"), gold=gold)
    assert verdict(found) == "No row may leave: there is none."
    assert re.search(r'<p class="verdict bad">.*No row may leave: there is none.', audit_page(found))


def test_flags_are_in_the_order_of_their_rows(gold: Dataset) -> None:
    texts = [*CLEAN[:9], CLEAN[9] + PHONE, CLEAN[10] + PHONE, CLEAN[0]]
    text = audit_markdown(audit(TASK, rows_of(TASK, texts, "synthetic"), gold=gold))
    raised, silent = text.split("## Flags")[1].split("## Looked for and not found")
    assert re.findall(r"\| `(\w+)` +\| +(\d+)", raised) == [("identifier", "2"), ("duplicate", "1")]
    assert "Rows, counted from 0: 9, 10. " in raised
    flags = re.findall(r"\| `(\w+)` +\| +(\d+)", silent)
    assert {n for _, n in flags} == {"0"}
    assert {"copied_span", "near_copy"} <= {flag for flag, _ in flags}
    assert "canary" not in {flag for flag, _ in flags}, "none was named"
    alone = audit_markdown(audit(TASK, rows_of(TASK, texts, "synthetic"), gold=None))
    assert "`copied_span`" not in alone.split("## Looked for and not found")[1].split("## ")[0], "not looked for"


def test_states_have_a_sign_and_not_colour_alone(gold: Dataset, held_out: Dataset) -> None:
    page = audit_page(audit(TASK, rows_of(TASK, CLEAN, "synthetic"), gold=gold, held_out=held_out))
    assert re.search(r'<p class="verdict good"><span class="icon" aria-hidden="true">✓</span>', page)
    for sign in ("✓ may leave", "✗ must not leave", "! not checked"):
        assert sign in page
