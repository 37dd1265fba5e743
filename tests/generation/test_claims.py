"""Claims about a model name what it was measured on, and without a measurement there is no claim."""

from __future__ import annotations

from hf_synth.generation.claims import model_claim


def test_a_model_that_nothing_scored_claims_nothing() -> None:
    assert model_claim(["gold", "synthetic"], None) == (
        "nothing about how good this model is, since no labelled row has scored it. `hf-synth evaluate` scores it on "
        "rows that it never saw."
    )
    assert model_claim(["gold"], []) == model_claim(["gold"], None), "an empty split measures nothing"


def test_validation_rows_are_counted_and_named() -> None:
    said = model_claim(["gold"], ["gold"] * 1200)
    assert said.startswith("it was scored on 1,200 validation rows (gold), by which its epoch was chosen")
    assert "(notes that an LLM wrote and people labelled)" in model_claim(["synthetic"], ["synthetic"] * 5)


def test_no_real_note_is_said_only_where_it_is_known() -> None:
    assert model_claim(["synthetic"], None).endswith("No row of this training set is a real note.")
    for sources in (["gold", "synthetic"], [None, "synthetic"], ["unlabelled", "synthetic"]):
        assert "real note" not in model_claim(sources, None)
