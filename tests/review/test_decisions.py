"""What several reviewers agree on, and who settles what."""

from __future__ import annotations

from typing import Any

from hf_synth.review.decisions import Decisions, Outcome, choices, disagreements, outcomes


def label(row: str, name: str, **more: Any) -> dict[str, Any]:
    return {"do": "label", "row": row, "label": name, **more}


def test_one_reviewer_is_the_outcome() -> None:
    anna = Decisions(
        [label("s1", "mild", comment="a \u00e4"), {"do": "reject", "row": "s2"}, {"do": "unsure", "row": "s3"}]
    )
    assert outcomes({"Anna": anna}) == {
        "s1": Outcome("label", "mild", ("Anna",), "a \u00e4"),
        "s2": Outcome("reject", "", ("Anna",), ""),
        "s3": Outcome("unsure", "", ("Anna",), ""),
    }
    assert disagreements({"Anna": anna}) == []


def test_reviewers_differ_until_somebody_settles_it() -> None:
    anna = Decisions(
        [label("s1", "mild", comment="sore"), label("s2", "mild"), label("s3", "none"), label("s4", "none")]
    )
    ben = Decisions([label("s1", "severe", comment="tube"), {"do": "unsure", "row": "s2"}, label("s3", "none")])
    both = {"Ben": ben, "Anna": anna}
    assert disagreements(both) == ["s1", "s2"], "a label beside an unsure is one, too"
    assert choices("s1", both) == [("label", "mild"), ("label", "severe")]
    assert outcomes(both)["s1"] == Outcome("differ", "", ("Anna", "Ben"), "Anna: sore; Ben: tube")
    assert outcomes(both)["s3"] == Outcome("label", "none", ("Anna", "Ben"), "")
    assert outcomes(both)["s4"] == Outcome("label", "none", ("Anna",), "")

    cem = Decisions([label("s1", "severe", final=True, at="2026-01-02"), {"do": "reject", "row": "s2", "final": True}])
    all_three = both | {"Cem": cem}
    assert disagreements(all_three) == []
    assert outcomes(all_three)["s1"] == Outcome("label", "severe", ("Anna", "Ben", "Cem"), "Anna: sore; Ben: tube")
    assert outcomes(all_three)["s2"].do == "reject"
    cem.take({"do": "undo"})
    assert disagreements(all_three) == ["s2"]
    ben.take(label("s1", "none", final=True, at="2026-01-03"))
    assert outcomes(all_three)["s1"].label == "none", "the later one counts"
    assert outcomes(all_three)["s1"].reviewers == ("Anna", "Ben")


def test_a_settled_note_on_which_all_agree_later_is_what_they_agree_on() -> None:
    anna = Decisions([label("s1", "mild")])
    ben = Decisions([label("s1", "severe"), label("s1", "severe", final=True, at="1"), label("s1", "mild")])
    assert outcomes({"Anna": anna, "Ben": ben})["s1"] == Outcome("label", "mild", ("Anna", "Ben"), "")


def test_a_comment_holds_no_control_character_and_no_formula() -> None:
    """Nor does one of an old file: `correct --audited` could not read the table."""
    events = [{"do": "label", "row": "a", "label": "mild", "comment": "=1+1\x00\u202e\r\n  =2"}]
    decisions = Decisions(events)
    assert decisions.comments == {"a": "=1+1\n  =2"}
    assert outcomes({"Ann": decisions, "Ben": Decisions()})["a"].comment == "Ann: '=1+1\n'  =2"
