"""What the report of an experiment says first follows from intervals, and failures are not hidden."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hf_synth.experiments.equivalence import Equivalence, Spent, cost_benefit
from hf_synth.experiments.groups import interval_text, over_seeds, too_few
from hf_synth.experiments.names import mix_name, sized_name
from hf_synth.experiments.report import cost_section, worth_section
from hf_synth.experiments.results import Results, Worth
from hf_synth.experiments.study_verdict import study_lead, worth_in_words
from hf_synth.reports.page import page


def row(strategy: str, labels: str = "", *, size: int = 100, seed: int = 0, score: float = 0.6) -> dict[str, Any]:
    mixed = strategy not in ("gold", "frequency")
    return {
        "base_model": "linear", "gold_size": size, "strategy": strategy, "labels": labels, "ratio": 2.0 * mixed,
        "generator": "pool" if mixed else "", "corrector": "", "seed": seed, "macro_f1": score, "split": "test",
        "arm": f"{strategy} {labels}".strip(), "simulated": False,
    }  # fmt: skip


def worth(rows: float, low: float | None, high: float | None, *, arm: str = "augment argmax, ratio 2") -> Worth:
    equal = Equivalence(rows, low, high, False, False, (50, 800), runs=5 if low is not None else 2)
    return Worth(arm, 100, 200, "linear", equal, cost_benefit(equal, 100, Spent()), False)


def results(rows: list[dict[str, Any]], *, failed: int = 0, worths: list[Worth] | None = None) -> Results:
    one = row("augment", "argmax") | {"error": "OverlapError", "message": "<b>rows</b> of other gold."}
    return Results(Path("out"), rows, [one] * failed, "macro_f1", [], worths or [], 800)


SCORED = [row(s, m, seed=seed, score=v + 0.01 * seed)
          for s, m, v in (("gold", "", 0.6), ("augment", "argmax", 0.7)) for seed in range(2)]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "head", "state"),
    [
        (120.0, 230.0, "Synthetic notes are worth it: 100 gold + 200 synthetic notes do as well as 180 gold", "good"),
        (60.0, 90.0, "Synthetic notes are not worth it: ", "bad"),
        (90.0, 230.0, "It is not clear whether synthetic notes are worth it: ", "unsure"),
        (None, None, "It is not clear whether synthetic notes are worth it: ", "unsure"),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_interval(low: float | None, high: float | None, head: str, state: str) -> None:
    lead = study_lead(results(SCORED, worths=[worth(180.0, low, high)]))
    assert lead.verdict.startswith(head)
    assert (lead.state, lead.tiles[0].state) == (state, "" if state == "unsure" else state)
    assert lead.tiles[0].value == "180"
    assert ("2 runs: no interval" in lead.verdict) is (low is None)
    assert not lead.alarm


def test_labels_that_no_run_of_the_best_mix_finds_are_said() -> None:
    def scored(one: dict[str, Any], found: float) -> dict[str, Any]:
        labels = {"mild": {"support": 8, "recall": 0.9}, "severe": {"support": 4, "recall": found}}
        return one | {"accuracy": 0.7, "per_class": json.dumps(labels), "confusion": "[[1]]"}

    never = study_lead(results([scored(one, 0.0) for one in SCORED])).points
    assert any(point.startswith("A model of the best mix never finds severe (0 of 4)") for point in never)
    once = study_lead(results([scored(one, 0.25 * (one["seed"] == 1)) for one in SCORED])).points
    assert not any("never finds" in point for point in once)


def test_the_best_of_several_is_said_to_be_that() -> None:
    lead = study_lead(results(SCORED, worths=[worth(180.0, 120.0, 230.0), worth(90.0, 60.0, 120.0)]))
    assert "do as well as 180 gold rows" in lead.verdict
    assert any("best of 2 mixes" in point for point in lead.points)
    alone = study_lead(results(SCORED, worths=[worth(90.0, 60.0, 99.0, arm="synthetic raw, ratio 2")]))
    assert "200 synthetic notes alone, made with 100 gold, do as well as 90" in alone.verdict


def test_a_mix_has_the_name_of_its_rows_and_not_of_its_budget() -> None:
    below = Equivalence(50.0, None, None, False, True, (50, 800), runs=3)
    low, high = (
        dataclasses.replace(worth(50.0, None, None, arm=f"augment {labels}, ratio 2"), equivalence=below, size=100,
                            gold=99, score=score)
        for labels, score in (("argmax", 0.4), ("raw", 0.5))
    )  # fmt: skip
    lead = study_lead(results(SCORED, worths=[low, high]))
    assert lead.verdict.endswith(
        "100 gold + 200 synthetic notes score below 50 gold rows alone, the fewest that were measured."
    )
    assert lead.points[0].startswith("This mix is gold + uncorrected, ratio 2"), "of equal ones the best score"
    assert "The 100 gold rows hold 99 different texts, which the gold budget counts." in lead.points
    assert "3 runs of each mix are too few for an interval: the difference may be chance." in lead.points
    assert lead.tiles[0].name == "gold notes alone score as 100 gold + 200 synthetic"
    section = worth_section([low, high])
    assert section is not None
    (table,) = section.tables
    assert list(table.header) == ["training mix", "synthetic notes", "does as well as", "runs"]
    assert table.cells()[0] == [
        "100 gold + corrected (argmax), ratio 2", "200", "at most 50 gold rows, the fewest that were measured", "3",
    ]  # fmt: skip
    cost = cost_section([low, high], "")
    assert cost is not None
    assert [row[0] for row in cost.tables[0].cells()] == [worth_in_words(low), worth_in_words(high)]
    assert str(low).startswith("100 gold + 200 synthetic is worth <= 50 gold notes")


def test_two_seeds_have_no_interval() -> None:
    lead = study_lead(results(SCORED))
    assert "100 gold + corrected (argmax): macro-F1 0.705 (2 seeds: no interval)" in lead.verdict
    assert "gold alone: macro-F1 0.605 (2 seeds: no interval)" in lead.verdict
    assert lead.state == "unsure"
    assert over_seeds(SCORED[:2], "macro_f1", None)[1:] == (None, None)
    three = [*SCORED[:2], row("gold", seed=2, score=0.65)]
    mean, low, high = over_seeds(three, "macro_f1", None)
    assert low is not None and high is not None  # noqa: PT018
    assert low < mean < high
    assert [too_few(n) for n in (1, 2, 3)] == ["1 seed: no interval", "2 seeds: no interval", ""]
    assert interval_text(None, None, 5) == "no interval"
    assert (interval_text(None, None), interval_text(0.1, 0.2, 2)) == ("", "0.100 to 0.200")


def test_failures_are_a_red_box_with_the_command() -> None:
    gold = [one for one in SCORED if one["strategy"] == "gold"]
    lead = study_lead(results(gold, failed=16), repair=("Give another pool", "hf-synth experiment 'a b' --synthetic x"))
    assert lead.verdict == "Nothing is known about synthetic notes: all 16 runs with them failed."
    assert lead.state == "bad"
    assert lead.alarm == (
        "16 of 18 runs failed", "16 because of OverlapError: <b>rows</b> of other gold. Give another pool.",
        "hf-synth experiment 'a b' --synthetic x",
    )  # fmt: skip
    text = page("t", [], lead=lead)
    assert text.index("Nothing is known") < text.index('class="alarm"') < text.index("&lt;b&gt;rows")
    assert "<pre><code>hf-synth experiment &#39;a b&#39; --synthetic x</code></pre>" in text
    many = dataclasses.replace(results(gold), failed=[
        row("augment", "raw") | {"error": f"E{i}", "message": ""} for i in range(5)])  # fmt: skip
    assert "1 because of E0. 1 because of E1. 1 because of E2. 2 more reasons." in study_lead(many).alarm[1]


def test_gold_alone_is_no_verdict_on_notes() -> None:
    lead = study_lead(results([one for one in SCORED if one["strategy"] == "gold"]))
    assert lead.verdict.startswith("No mix with synthetic notes was planned; the best score is macro-F1 0.605")
    assert lead.state == ""


def test_mixes_have_names_that_people_say() -> None:
    names = {"gold": "gold alone", "augment raw": "gold + uncorrected", "augment auto": "gold + corrected (auto)",
             "synthetic raw": "uncorrected notes alone",
             "replace argmax": "gold that was not shown + corrected (argmax)",
             "augment llm_judge": "gold + corrected (llm judge)", "frequency": "most frequent label",
             "zero-shot": "zero-shot", "raw": "raw", "argmax": "argmax"}  # fmt: skip
    assert {arm: mix_name(arm) for arm in names} == names
    assert [sized_name(20, names[arm]) for arm in ("gold", "augment raw", "synthetic raw")] == [
        "20 gold alone", "20 gold + uncorrected", "uncorrected notes alone (20 gold)",
    ]  # fmt: skip
    assert sized_name(0, "zero-shot") == "zero-shot"
