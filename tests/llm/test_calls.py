"""What a run says of an endpoint that makes it wait."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.llm_server import Said, content, serving

from hf_synth.llm.llm import LLM


def test_a_long_retry_after_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hf_synth.llm.pacing.LONGEST_PAUSE", 0.1)
    caplog.set_level(logging.WARNING, logger="hf_synth")
    late = Said(status=429, headers={"Retry-After": "1000000000"})
    with serving(lambda request, number: late if number < 4 else Said(content(request))) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "j.sqlite", concurrency=2)
        answers = llm.chat([[{"role": "user", "content": f"q {i}"}] for i in range(3)], access="open")
    assert [a.text for a in answers] == ["q 0", "q 1", "q 2"]
    assert caplog.text.count("asks to wait 16666667 minutes") == 1
