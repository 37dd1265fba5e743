"""Spellings that mean one label or one patient, and those that may."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hf_synth.gold.spelling import Ids, LabelNames, Patients, Spellings, label_problem, split_labels


def counted(*values: Any) -> Spellings:
    spelled = Spellings()
    assert all(spelled.add(value, number) for number, value in enumerate(values, 1))
    return spelled


@pytest.mark.parametrize(
    "values",
    [
        ["low", "Low", "LOW"], ["low", "low ", " low", "low\xa0", "\ufefflow", "lo\u200bw", "l\u00adow"],
        ["caf\u00e9", "cafe\u0301"], ["\uff4c\uff4f\uff57", "low"], ["1", "1.0", 1, 1.0, "01", "1,0"],
        [True, "TRUE", "True", "true"], ["not  seen", "not seen", "not\tseen"], ["non\u2013urgent", "non-urgent"],
        ["can\u2019t", "can't"], ["hi\u0261h", "hi\u0261h "], ["l\u043ew", "low"],
        ["stra\u00dfe", "STRASSE"], [0, "-0", "0.0"], ["0,5", "0.5", 0.5], ["-2,25", "-2.25"],
    ],
)  # fmt: skip
def test_look_alikes_are_one_label(values: list[Any]) -> None:
    spelled = counted(*values, "other")
    assert len(spelled.names()) == 2
    assert len(spelled.merged()) == 1
    found = LabelNames(spelled.names())
    assert len({found.find(value) for value in values}) == 1
    assert None not in {found.find(value) for value in values}


@pytest.mark.parametrize(
    "values",
    [["1", "10"], ["grade 1", "grade 2"], ["+", "-"], ["1", "-1"], ["<5", ">5"], ["1+", "1"], ["a", "\u00e4"],
     ["no", "none"]],
)  # fmt: skip
def test_other_labels_stay_apart(values: list[Any]) -> None:
    spelled = counted(*values)
    assert len(spelled.names()) == 2
    assert spelled.merged() == []


def test_the_name_is_the_most_frequent_spelling() -> None:
    assert counted("HIGH", "high", "Low", "Low", "low ").names() == ["Low", "high"]
    assert counted("1.0", "1", "2.0", "2").names() == ["1", "2"]
    assert counted(*range(11)).names() == [str(n) for n in range(11)]
    said = counted("low\u200b", "low", "low").merged()
    assert said == ["'low' (2), 'low\\u200b' (1) are one label: 'low'"]


def test_rare_look_alikes_are_named_with_their_row() -> None:
    spelled = counted(*["urgent"] * 30, *["routine"] * 9, "urgnet", "nan", *["grade 1"] * 30, "grade 2", "u-rgent")
    found = {label: (row, why) for label, (_, row), why in spelled.doubtful()}
    assert found["urgnet"] == (40, "occurs once and looks like 'urgent'")
    assert found["nan"][0] == 41
    assert found["u-rgent"][1] == "differs from 'urgent' in signs only"
    assert set(found) == {"urgnet", "nan", "u-rgent"}


def test_one_number_with_more_zeros_is_doubtful() -> None:
    spelled = counted("0.5", "0.5", "0.50", "250.1", "250.10", "0.05")
    assert len(spelled.names()) == 5, "250.1 and 250.10 are two codes of ICD-9"
    found = {label: (row, why) for label, (_, row), why in spelled.doubtful()}
    assert found.pop("0.50") == (3, "is the same number as '0.5'")
    assert [why for _, why in found.values()] == ["is the same number as '250.10'"]


def test_what_excel_writes_for_a_failed_formula_is_nobody_and_a_doubtful_label() -> None:
    assert Patients().name("#REF!") is None
    assert [label for label, _, _ in counted("low", "#VALUE!", "high").doubtful()] == ["#VALUE!"]


def test_a_list_of_labels_decides() -> None:
    names = LabelNames(["A", "a", "b"])
    assert (names.find("A"), names.find("a"), names.find("B ")) == ("A", "a", "b")
    assert names.find("A ") == "A"
    assert names.find(" \uff21") is None, "it may be either"
    assert not names.numeric
    assert LabelNames(["1", "2"]).numeric


def test_the_value_is_shown_where_it_is_a_label_and_no_note() -> None:
    names, text = LabelNames(["urgent", "routine"]), "a note of some words"
    assert "is 'urgent' meant?" in label_problem(names, "y", "urgnet", text)
    assert "'maybe'" in label_problem(names, "y", "maybe", text)
    for value, note in (("maybe", "x"), ("denies chest pain", text), ("x" * 30, text)):
        assert value not in label_problem(names, "y", value, note)


def test_one_patient_in_several_spellings_is_one() -> None:
    patients = Patients()
    assert {patients.name(v) for v in ("P1", "P1 ", "p1", "\ufeffP1")} == {"P1"}
    assert {patients.name(v) for v in ("12", 12, 12.0, "12.0", "00012", "12 ")} == {"12"}
    assert {patients.name(v) for v in (None, "", " ", math.nan, "nan", "NaN", "None", "null", "N/A")} == {None}
    assert [patients.name(v) for v in ("0", "P2", "2")] == ["0", "P2", "2"]
    assert (patients.respelled, len(patients)) == ({"P1", "12"}, 5)
    assert patients.nobody["nan"] == 1


def test_ids_differ_whatever_the_column_holds() -> None:
    ids = Ids("train")
    made = [ids.new(v, n) for n, v in enumerate(["a", "a", None, "a-2", "", 3.0, "train-3"], 1)]
    assert made == ["a", "a-2", "train-3", "a-2-4", "train-5", "3", "train-3-7"]
    assert ids.repeated == 3


def test_sets_are_split_as_they_were_written() -> None:
    for cell in ("a; b", "a|b", "a,b", ["a", "b"], "['a', 'b']", '["a", "b"]', "{a, b}"):
        assert split_labels(cell) == ["a", "b"], cell
    assert split_labels("") == split_labels(None) == split_labels(math.nan) == split_labels("[]") == []
