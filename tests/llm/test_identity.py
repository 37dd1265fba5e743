"""What a server states about its model is recorded with the journal, and a change under the same name is reported."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, content, serving

from hf_synth.llm.identity import Server, introduce, note_server
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM

LLAMA = {"id": "default", "owned_by": "llamacpp", "created": 1, "meta": {"n_params": 7, "n_vocab": 3}}


def ask(server: LLMServer, folder: Path, n: int) -> list[str]:
    llm = LLM("default", base_url=server.url, journal=folder / "j.sqlite", concurrency=2)
    return [a.text for a in llm.chat([[{"role": "user", "content": f"q {i}"}] for i in range(n)])]


def served_as(name: str, **more: Any) -> Any:
    def answer(request: dict[str, Any], _: int) -> Said:
        message = {"role": "assistant", "content": f"{name} {content(request)}"}
        body = {"model": name, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more}
        return Said(body=json.dumps(body).encode())

    return answer


def test_another_model_under_the_same_name_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hf_synth")
    with serving(served_as("small")) as a, serving(served_as("large")) as b:
        ask(a, tmp_path, 3)
        ask(a, tmp_path, 4)
        assert "journal of its own" not in caplog.text
        ask(b, tmp_path, 4)  # all from the journal
        (line,) = (r.getMessage() for r in caplog.records if "journal of its own" in r.getMessage())
        assert line.startswith("4 answers of model 'default' came from the journal")
        assert a.url in line
        assert b.url in line
        caplog.clear()
        ask(b, tmp_path, 5)
        (line,) = (r.getMessage() for r in caplog.records if "journal of its own" in r.getMessage())
        assert "small -> large" in line


def test_a_model_that_changes_in_the_middle_of_a_run_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, large = served_as("small"), served_as("large")
    with serving(lambda request, i: (small if i % 2 else large)(request, i)) as server:
        ask(server, tmp_path, 4)
        (line,) = (r.getMessage() for r in caplog.records if "several models" in r.getMessage())
        assert "small" in line
        assert "large" in line
        ask(server, tmp_path, 8)
    assert caplog.text.count("several models") == 1


def test_weights_swapped_behind_one_name_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(served_as("default", system_fingerprint="b1")) as server:
        server.gets["/v1/models"] = {"data": [LLAMA]}
        server.gets["/props"] = {"total_slots": 3}
        ask(server, tmp_path, 1)
        server.gets["/v1/models"] = {"data": [LLAMA | {"created": 2, "meta": {"n_params": 70, "n_vocab": 3}}]}
        ask(server, tmp_path, 2)
        (line,) = (r.getMessage() for r in caplog.records if "something else" in r.getMessage())
        assert "(n_params: 7 -> 70)" in line
    (note,) = (v for k, v in Journal(tmp_path / "j.sqlite").recorded().items() if k == "server default")
    assert json.loads(note)["says"]["n_params"] == "70"
    assert json.loads(note)["fingerprints"] == ["b1"]


def test_a_new_fingerprint_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hf_synth")
    journal = Journal(tmp_path / "j.sqlite")
    for name in ("fp1", "fp2", "fp1", "fp2"):
        note_server(journal, "m", "http://x/v1", Server(served={"m": None}, fingerprints={name: None}))
    said = [r.getMessage() for r in caplog.records if "system_fingerprint" in r.getMessage()]
    assert said == ["http://x/v1: model 'm' has a new system_fingerprint: fp2"]


@pytest.mark.parametrize(("model", "said"), [("smol@0123456789ab", False), ("smol", True)])
def test_a_file_on_another_port_is_no_other_model(
    model: str, said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    note_server(journal, model, "http://127.0.0.1:1/v1", Server(served={model: None}))
    note_server(journal, model, "http://127.0.0.1:2/v1", Server(), cached=3)
    assert ("journal of its own" in caplog.text) is said


@pytest.mark.parametrize(
    ("models", "props", "says", "slots"),
    [
        ({"data": [LLAMA]}, {"total_slots": 4}, {"id": "default", "owned_by": "llamacpp", "n_params": "7"}, 4),
        ({"data": [LLAMA]}, {"total_slots": "many"}, {"id": "default"}, None),
        ({"data": [{"id": "default", "root": "/w/7b"}]}, {"total_slots": 4}, {"root": "/w/7b"}, None),
        ({"data": [{"id": "x"}, {"id": "y"}]}, None, {}, None),
        ({"data": [{"id": "other"}]}, None, {"id": "other"}, None),  # the only one answers to any name
        (None, None, {}, None),
        ([1], None, {}, None),
        ({"data": {"id": 1}}, None, {}, None),
        ({"data": [None, "x", {"id": "default", "meta": 3, "root": ["x"]}]}, None, {"id": "default"}, None),
    ],
)
def test_an_introduction_is_read_whatever_comes(models: Any, props: Any, says: dict[str, str], slots: Any) -> None:
    async def get(path: str) -> Any:
        return {"models": models, "/props": props}[path]

    found, works_on = asyncio.run(introduce(get, "default"))
    assert says.items() <= found.items()
    assert bool(found) == bool(says)
    assert works_on == slots


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"url": 1}', '{"url": "u", "says": {}, "served": {}}'])
def test_a_broken_note_is_none(broken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    journal.note("server m", broken)
    note_server(journal, "m", "http://x/v1", Server(served={"m": None}), cached=3)
    assert json.loads(journal.recorded()["server m"])["served"] == ["m"]
    assert caplog.text == ""


def test_each_thing_that_a_server_says_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_synth.llm.identity._SECONDS", 0.05)

    async def get(path: str) -> Any:
        if path == "models":
            return {"data": [LLAMA]}
        await asyncio.sleep(60)  # as where a byte comes now and then
        return None

    says, slots = asyncio.run(introduce(get, "default"))
    assert (says["n_params"], slots) == ("7", None)


def test_a_server_that_never_introduces_itself_is_not_waited_for(tmp_path: Path) -> None:
    with serving(served_as("m")) as server:
        server.gets["/v1/models"] = 7
        assert ask(server, tmp_path, 2) == ["m q 0", "m q 1"]


def test_slots_of_llama_cpp_are_the_number_in_flight(tmp_path: Path) -> None:
    flying: list[int] = []

    def answer(request: dict[str, Any], number: int) -> Said:
        flying.append(server.in_flight)
        return Said("fine", delay=0.02)

    with serving(answer) as server:
        server.gets["/v1/models"] = {"data": [LLAMA]}
        server.gets["/props"] = {"total_slots": 3}
        llm = LLM("default", base_url=server.url, journal=tmp_path / "j.sqlite")
        llm.chat([[{"role": "user", "content": f"q {i}"}] for i in range(80)])
    assert max(flying[40:]) <= 4
    assert max(flying) <= 16


def test_a_server_is_asked_about_itself_once(tmp_path: Path) -> None:
    with serving(lambda *_: Said("fine", delay=0.01)) as server:
        server.gets["/v1/models"] = {"data": [LLAMA]}
        server.gets["/props"] = {"total_slots": 3}
        llm = LLM("default", base_url=server.url, journal=tmp_path / "j.sqlite")
        for i in range(4):
            llm.chat([[{"role": "user", "content": f"q {i}"}]])
        server.peak = 0
        llm.chat([[{"role": "user", "content": f"more {i}"}] for i in range(40)])
        assert server.asked_gets == ["/v1/models", "/props"]
        assert server.peak <= 4  # known from the start


@pytest.mark.parametrize("concurrency", [2, None])
def test_a_given_number_is_kept(concurrency: int | None, tmp_path: Path) -> None:
    with serving(lambda *_: Said("fine", delay=0.01)) as server:
        server.gets["/v1/models"] = {"data": [LLAMA]}
        server.gets["/props"] = {"total_slots": 500}
        llm = LLM("default", base_url=server.url, journal=tmp_path / "j.sqlite", concurrency=concurrency)
        llm.chat([[{"role": "user", "content": f"q {i}"}] for i in range(200)])
        assert (server.peak <= 2) == (concurrency == 2)
