"""Labels in words; test_generation.py has those of answers that ask for notes."""

from __future__ import annotations

import pytest

from hf_synth.generation.answers import parse_label
from hf_synth.generation.label_words import normalize_label
from hf_synth.task.task import Task

TASK = Task.from_columns("t", text_columns="text", label_column="label", labels=["fracture", "normal"])


@pytest.mark.parametrize(
    ("said", "whole", "cut"),
    [
        ("fracture", "fracture", None),  # "fracture not seen" may have been cut
        ('{"label": "fracture"}', "fracture", "fracture"),
        ('```json\n{"label": "fracture"}\n```', "fracture", "fracture"),
        ('{"label": "fracture", "because": "the', "fracture", None),
        ("Okay, I see a fracture", None, None),
    ],
)
def test_a_vote_that_was_cut_counts_as_whole_json_alone(said: str, whole: str | None, cut: str | None) -> None:
    assert parse_label(TASK, said) == whole
    assert parse_label(TASK, said, whole=False) == cut


def test_a_label_after_its_own_name_is_one() -> None:
    assert normalize_label(TASK, "Label: Fracture.") == "fracture"
