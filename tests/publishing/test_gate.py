"""What a verdict says: where a release goes, or that nothing was sent and what sends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.publishing_rows import OPEN, gold_rows, synthetic_rows

from hf_synth.publishing.gate import Verdict, origin_of_model
from hf_synth.publishing.publishing import publish_dataset
from hf_synth.task.labels import row_digests

HUB = "http://127.0.0.1:8090"
VERDICT = Verdict("dataset", "org/name", "open", True, ("a remark",), counts={"rows": 4}, hub=HUB, push=False)
PUSHED = replace(VERDICT, push=True, commit="abc", tag="v1", url=f"{HUB}/datasets/org/name")


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (VERDICT, f"  nothing was sent to {HUB}; --push (push=True) sends it"),
        (replace(VERDICT, allowed=False), f"  nothing was sent to {HUB}"),
        (replace(VERDICT, push=True), f"  to: {HUB} (private)"),
        (replace(VERDICT, push=True, private=False, gated="manual"), f"  to: {HUB} (public, gated (manual))"),
        (replace(VERDICT, hub=None), None),
        (PUSHED, None),
    ],
)
def test_where_a_release_goes_is_the_second_line(verdict: Verdict, line: str | None) -> None:
    said = str(verdict).splitlines()
    decision = "allowed" if verdict.allowed else "refused"
    assert said == [
        f"{decision}: dataset org/name, access open",
        *([] if line is None else [line]),
        "  - a remark",
        "  4 rows",
        *([f"  published: {HUB}/datasets/org/name (private), commit abc, tag v1"] if verdict.pushed else []),
    ]


def test_reasons_stand_in_brackets_after_their_sum() -> None:
    """`2 withheld, 2 withheld: identifier` reads like four rows."""
    counts = {
        "rows of raw": 1500,
        "withheld": 2,
        "withheld: identifier": 2,
        "withheld: near_copy": 1,
        "rows with ward": 0,
    }
    words = "1,500 rows of raw, 2 withheld (identifier 2, near_copy 1), 0 rows with ward"
    shown = replace(VERDICT, counts=counts)
    assert str(shown).splitlines()[-1] == f"  {words}"
    assert ("counts", words) in shown.summary()[1]
    one = replace(VERDICT, counts={"withheld": 2, "withheld: identifier": 2})
    assert str(one).endswith("  2 withheld (identifier)")
    alone = replace(VERDICT, counts={"withheld: identifier": 2})
    assert str(alone).endswith("  2 withheld: identifier"), "nothing is left out"


def test_publishing_without_a_push_says_that_nothing_was_sent(tmp_path: Path) -> None:
    rows, gold = synthetic_rows(OPEN), gold_rows(OPEN)
    verdict = publish_dataset(OPEN, rows, "o/x", gold=gold, push=False, export_dir=tmp_path / "x", endpoint=HUB)
    assert (verdict.allowed, verdict.pushed, verdict.hub) == (True, False, f"{HUB}/datasets/o/x")
    assert str(verdict).splitlines()[1] == f"  nothing was sent to {HUB}/datasets/o/x; --push (push=True) sends it"
    assert verdict.summary()[1][0] == ("repository", "not pushed (private)")


def test_gold_that_lacks_texts_of_a_models_training_is_named_with_their_number() -> None:
    gold = gold_rows(OPEN, 4)
    digests = row_digests(OPEN, gold.select_columns(["text"]))
    facts = {"rows": {"gold": 4}, "row_digests": digests, "gold_texts": 4}
    whole, part = (origin_of_model(OPEN, facts, [rows]) for rows in (gold, gold.select(range(3))))
    assert (whole.problems, whole.known) == ((), True)
    assert part.problems[0].startswith("the gold lacks 1 of the ")
    assert part.problems[0].endswith(" that the model was trained on: give all of it")
