"""Notes for a person cover what was asked for, and the estimate from them is that of all notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from support.review_rows import review_task, synthetic

from hf_synth.errors import ColumnError
from hf_synth.generation.generation import no_gold
from hf_synth.generation.plan import Plan, Pool
from hf_synth.generation.prompts import prompt_for
from hf_synth.generation.stated import stated_of
from hf_synth.review.decisions import Decisions
from hf_synth.review.spread import COVER, cover, draw_spread, values_of

TASK = review_task()
MANIFEST = {"prompt": "attributes", "seed": 3}


def written(n: int) -> Dataset:
    """Return rows with the hash of the prompt that a run without gold would have shown for each."""
    rows, _ = synthetic(n)
    plan = Plan(TASK, prompt_for(TASK, "attributes"), Pool(TASK, no_gold(TASK), seed=3, needed=False), 2, seed=3)
    hashes, turns = [], Counter[int]()
    for label in rows["llm_label"][:]:
        hashes.append(plan.call([TASK.labels[label]], turns[label] // 2).prompt_sha256)
        turns[label] += 1
    return rows.remove_columns("prompt_sha256").add_column("prompt_sha256", hashes)


def test_each_label_and_each_attribute_is_among_the_notes() -> None:
    rows = written(240)
    values = values_of(TASK, rows, MANIFEST)
    every = set().union(*values)
    assert len([v for v in every if v.startswith("attribute ")]) == sum(
        len(kinds) for _, kinds in prompt_for(TASK, "attributes").attributes
    )
    sheet = draw_spread(TASK, rows, 50, MANIFEST)
    place = {id: i for i, id in enumerate(rows["id"][:])}
    assert set().union(*(values[place[id]] for id in sheet.items)) == every
    assert sheet.settings["covered"] == sheet.settings["to_cover"] == len(every)
    assert len(sheet.items) == 50
    chosen = {item.id for item in sheet.items.values() if item.stratum == COVER}
    assert 5 < len(chosen) <= 25
    again = draw_spread(TASK, rows, 50, MANIFEST)
    assert set(again.items) == set(sheet.items)
    assert {item.probability for item in sheet.items.values() if item.id in chosen} == {1.0}
    total = sum(1 / item.probability for item in sheet.items.values())
    assert abs(total - 240) < 1e-6, "the notes stand for all"


def test_more_notes_than_there_are_is_one_sentence() -> None:
    with pytest.raises(ColumnError, match="there are 30 rows to draw from: ask for 1 to 30, not 40"):
        draw_spread(TASK, written(30), 40, MANIFEST)


def test_rows_of_a_task_that_has_changed_are_spread_by_label_alone() -> None:
    rows = written(60)
    other = replace(TASK, label_meanings=("a", "b", "c"))
    assert stated_of(other, rows, "attributes", 3) == {}
    assert stated_of(TASK, rows, "attributes", 4) == {}
    assert stated_of(TASK, rows, "no such prompt", 3) == {}
    assert {v for own in values_of(other, rows, MANIFEST) for v in own} == {
        *(f"label {name}" for name in TASK.labels), "prompt attributes"
    }  # fmt: skip


def test_the_greedy_cover_takes_the_note_with_most_new_values_and_stops_when_all_are_covered() -> None:
    values = [frozenset(v) for v in ({"label a", "x"}, {"label a", "x", "y"}, {"label b", "z"}, {"label b"})]
    assert cover(values, list("pqrs"), 4) == [1, 2]
    assert cover(values, list("pqrs"), 1) == [1]
    assert cover(values, list("pqrs"), 0) == []


def test_the_estimate_is_not_biased_by_the_choice() -> None:
    """Labels are wrong where one attribute stands, of which the cover has more notes than its share."""
    rows = written(240)
    values = values_of(TASK, rows, MANIFEST)
    rare = "attribute setting: nursing home"
    wrong = {id for id, own in zip(rows["id"][:], values, strict=True) if rare in own}
    truth = len(wrong) / 240
    shares = []
    for seed in range(30):
        sheet = draw_spread(TASK, rows, 50, MANIFEST, seed=seed)
        noise = sheet.progress(_answers([(i.id, i.label, i.id in wrong) for i in sheet.items.values()])).noise
        assert noise is not None
        shares.append(noise.share)
    assert abs(float(np.mean(shares)) - truth) < 0.03


def _answers(notes: Sequence[tuple[str, str, bool]]) -> Decisions:
    other = {name: TASK.labels[(i + 1) % len(TASK.labels)] for i, name in enumerate(TASK.labels)}
    return Decisions({"do": "label", "row": id, "label": other[label] if bad else label} for id, label, bad in notes)
