"""Variables are set for a block alone."""

from __future__ import annotations

import os

import pytest

from hf_synth.task.environment import environment


def test_variables_are_as_before_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SYNTH_KNOWN", "a")
    monkeypatch.delenv("HF_SYNTH_NEW", raising=False)
    with pytest.raises(ZeroDivisionError), environment({"HF_SYNTH_KNOWN": "b", "HF_SYNTH_NEW": "c"}):
        assert (os.environ["HF_SYNTH_KNOWN"], os.environ["HF_SYNTH_NEW"]) == ("b", "c")
        raise ZeroDivisionError
    assert os.environ["HF_SYNTH_KNOWN"] == "a"
    assert "HF_SYNTH_NEW" not in os.environ
