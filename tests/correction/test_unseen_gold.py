"""A trained corrector is not measured on gold that it saw; the error says how it saw it, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import concatenate_datasets
from support.tiny import toy_rows, toy_task

from hf_synth.correction import correction
from hf_synth.errors import OverlapError
from hf_synth.task.labels import row_digests

TASK = toy_task()


@pytest.mark.parametrize(
    ("trained", "stopped", "how"),
    [
        ([1], [], "was trained on 12 of the 24 gold rows"),
        ([], [2], "was stopped early by 12 of the 24 gold rows"),
        ([1], [2], "was trained on, or stopped early by, 24 of the 24 gold rows"),
    ],
)
def test_the_error_says_how_gold_was_seen(
    trained: list[int], stopped: list[int], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digests(seeds: list[int]) -> list[str]:
        return [d for seed in seeds for d in row_digests(TASK, toy_rows(12, seed).select_columns(["text"]))]

    facts = {"row_digests": digests(trained + stopped), "validation_digests": digests(stopped)}
    monkeypatch.setattr(correction, "model_facts", lambda _: facts)
    gold = concatenate_datasets([toy_rows(12, 1), toy_rows(12, 2)])
    with pytest.raises(OverlapError) as caught:
        correction._check_unseen(TASK, Path("model"), gold)
    assert str(caught.value).startswith(f"the corrector {how}")
    assert "--split test" in str(caught.value)
    assert "trainer_fit(task, base_model=" in str(caught.value)
