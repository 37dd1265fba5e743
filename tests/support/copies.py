"""Notes of the simulator that the check for copies would reject."""

from __future__ import annotations

import pytest

from hf_synth.privacy import overlap, skip_grams


def let_disguised_copies_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the check for disguised copies off: the simulator recombines sentences of its exemplars."""
    never = ((0, 1e9, 1.0),)
    monkeypatch.setattr(skip_grams, "SHORT", never)
    monkeypatch.setattr(skip_grams, "LONG", never)
    monkeypatch.setattr(overlap, "ECHO_LINKED", 10**9)
