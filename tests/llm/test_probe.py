"""A look at an endpoint has a deadline, whatever the server does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.llm_server import Said, serving

from hf_synth.errors import LLMError
from hf_synth.llm.llm import LLM
from hf_synth.llm.probe import call_within, list_models, measure


def test_a_look_ends_in_time() -> None:
    began = time.monotonic()
    assert call_within(0.1, lambda: time.sleep(5)) is None
    assert time.monotonic() - began < 4
    assert call_within(5, lambda: 3) == 3


def test_an_error_of_a_look_is_its_callers() -> None:
    def fail() -> None:
        raise LLMError("no key")

    with pytest.raises(LLMError, match="no key"):
        call_within(5, fail)


def test_a_server_without_a_list_can_be_used() -> None:
    with serving() as server:
        listing = list_models(LLM("m", base_url=server.url))
    assert (listing.models, listing.slots, listing.problem) == ((), None, "")


def test_the_answer_is_measured_and_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(lambda request, _: Said("one", delay=0.2)) as server:
        speed = measure(LLM("m", base_url=server.url))
    assert (speed.problem, speed.tokens, speed.seconds >= 0.2) == ("", 20, True)
    assert not list(tmp_path.iterdir())
