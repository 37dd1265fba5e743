"""What a run says of an endpoint that makes it wait."""

from __future__ import annotations

import logging
from pathlib import Path

import aiohttp
import pytest
from support.llm_server import Said, content, serving

from hf_synth.llm.connections import unreached
from hf_synth.llm.llm import LLM
from hf_synth.llm.replies import UNREACHED, Failure, why_unreached


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


def test_a_host_behind_a_firewall_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code = unreached(aiohttp.ConnectionTimeoutError("no"))
    assert "firewall" in UNREACHED[code]
    assert Failure(code).overload  # a server with a full queue of connections looks the same
    assert Failure(code).outage
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    assert "never through the proxy" in why_unreached(code, "api.example.org:443")
    assert "secret" not in why_unreached(code, "api.example.org:443")
    assert "proxy" not in why_unreached("unreachable", "127.0.0.1:8000")
