"""What endpoints refuse is learnt by one request, remembered beside the journal, and changes no key."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, serving

from hf_synth.cli.cli import main
from hf_synth.llm import calls
from hf_synth.llm.endpoints import parse_origin
from hf_synth.llm.llm import LLM
from hf_synth.llm.manners import Manners, changes, request
from hf_synth.llm.providers import OTHER

CANARY = "CANARY-5d1a"
SCHEMA = {"type": "object"}
SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 256, "logprobs": True, "top_logprobs": 20}
Answer = Callable[[dict[str, Any], int], Said]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF", 0.01)
    monkeypatch.setattr("hf_synth.llm.manners._NEAR", 20.0)  # a busy machine is slow


def questions(n: int) -> list[list[dict[str, str]]]:
    system = {"role": "system", "content": "You judge."}
    return [[system, {"role": "user", "content": f"question {i} {CANARY}"}] for i in range(n)]


def make(server: LLMServer, folder: Path, **more: Any) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "journal.sqlite", concurrency=8, max_retries=2, **more)


def refuse(status: int, message: str, param: str | None = None) -> Said:
    return Said(
        status=status, body=json.dumps({"error": {"message": message, "param": param, "code": status}}).encode()
    )


def without(name: str, status: int = 400) -> Answer:
    message = f"Unsupported parameter: '{name}' is not supported with this model."
    return lambda sent, _: refuse(status, message, name) if name in sent else Said()


def one_of_two(sent: dict[str, Any], _: int) -> Said:
    both = {"temperature", "top_p"} <= sent.keys()
    return refuse(400, "`temperature` and `top_p` cannot both be specified for this model.") if both else Said()


def few_logprobs(sent: dict[str, Any], _: int) -> Said:
    return refuse(400, "top_logprobs must be between 0 and 5") if sent.get("top_logprobs", 0) > 5 else Said()


def renamed(sent: dict[str, Any], _: int) -> Said:
    return refuse(400, "Use 'max_completion_tokens' instead of 'max_tokens', which is unsupported", "max_tokens") if (
        "max_tokens" in sent) else Said()  # fmt: skip


def reasoning(sent: dict[str, Any], _: int) -> Said:
    for name in ("temperature", "top_p", "max_tokens", "logprobs", "top_logprobs"):
        if name in sent:
            return refuse(400, f"Unsupported parameter: '{name}' is not supported with this model.", name)
    return Said()


def no_system(sent: dict[str, Any], _: int) -> Said:
    return refuse(400, "System role not supported") if sent["messages"][0]["role"] == "system" else Said()


# what an endpoint does, the requests it refuses, what it gets afterwards, and what it gets no more
REFUSALS: dict[str, tuple[Answer, int, dict[str, Any], tuple[str, ...]]] = {
    "seed": (without("seed", 422), 1, {}, ("seed",)),
    "seed by 500": (without("seed", 500), 1, {}, ("seed",)),
    "temperature": (without("temperature"), 1, {"top_p": 0.9}, ("temperature",)),
    "schema": (without("response_format"), 1, {}, ("response_format",)),
    "schema by 501": (without("response_format", 501), 1, {}, ("response_format",)),
    "two": (one_of_two, 1, {"temperature": 0.7}, ("top_p",)),
    "bound": (few_logprobs, 1, {"top_logprobs": 5}, ()),
    "renamed": (renamed, 1, {"max_completion_tokens": 256}, ("max_tokens",)),
    "reasoning model": (reasoning, 4, {"max_completion_tokens": 256}, ("temperature", "logprobs", "top_logprobs")),
    "system": (no_system, 1, {}, ()),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_costs_one_request_and_is_remembered(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer, cost, sent, gone = REFUSALS[case]
    caplog.set_level(logging.INFO)
    with serving(answer) as server:
        answers = make(server, tmp_path).chat(questions(30), schema=SCHEMA, **SAMPLING)
        assert {a.status for a in answers} == {"ok"}
        assert len(server.requests) == 30 + cost
        for body in server.requests[cost:]:
            assert sent.items() <= body.items()
            assert not set(gone) & body.keys()
            assert (body["messages"][0]["role"] == "system") is (case != "system")
            assert body["messages"][0]["content"].startswith("You judge.")
        (file,) = (tmp_path / "endpoints").glob("*.json")
        assert file.stat().st_mode & 0o77 == 0
        again = make(server, tmp_path)  # as in a new process
        more = again.chat(questions(40), schema=SCHEMA, **SAMPLING)
        assert [a.cached for a in more] == [True] * 30 + [False] * 10  # rules change no key
        assert len(server.requests) == 40 + cost
    changed = {a.sent for a in more}
    assert len(changed) == 1  # each answer says what was sent otherwise than its key says
    facts = json.loads(*changed)
    assert set(facts) == {"system"} if case == "system" else set(facts) >= set(gone)
    assert CANARY not in caplog.text + file.read_text() + str(changed)


def test_what_is_sent_as_it_was_asked_leaves_no_trace(tmp_path: Path) -> None:
    with serving() as server:
        answers = make(server, tmp_path).chat(questions(3), schema=SCHEMA, **SAMPLING)
        assert {a.sent for a in answers} == {""}
        assert not (tmp_path / "endpoints").exists()


def test_one_accident_turns_nothing_off(tmp_path: Path) -> None:
    """A refusal of what the endpoint took before is of one question; so is an error without a cause."""

    def answer(sent: dict[str, Any], number: int) -> Said:
        if number == 5:
            return refuse(400, "Unsupported parameter: 'response_format' is not supported", "response_format")
        return Said(status=500) if number == 9 else Said(status=400) if number == 13 else Said()

    with serving(answer) as server:
        llm = make(server, tmp_path)
        assert {a.status for a in llm.chat(questions(40), schema=SCHEMA)} == {"ok"}
        assert sum("response_format" not in body for body in server.requests) == 1  # of the named refusal
        assert all(body["messages"][0]["role"] == "system" for body in server.requests)
        assert not (tmp_path / "endpoints").exists()


def test_a_server_error_that_hides_a_missing_system_role_is_found_out(tmp_path: Path) -> None:
    def answer(sent: dict[str, Any], _: int) -> Said:
        said = b"Internal Server Error"
        return Said(status=500, body=said) if sent["messages"][0]["role"] == "system" else Said()

    with serving(answer) as server:
        assert {a.status for a in make(server, tmp_path).chat(questions(30))} == {"ok"}
        assert sum(body["messages"][0]["role"] == "system" for body in server.requests) <= 4


def test_a_hand_may_set_any_field(tmp_path: Path) -> None:
    with serving() as server:
        llm = make(server, tmp_path, sampling={"temperature": None, "seed": None, "top_k": 20, "max_tokens": 9})
        (first,) = llm.chat(questions(1), temperature=0.9, top_p=0.95)
        (other,) = make(server, tmp_path).chat(questions(1), temperature=0.9, top_p=0.95)
        sent = {k: v for k, v in server.requests[0].items() if k not in ("model", "messages")}
    assert sent == {"top_p": 0.95, "top_k": 20, "max_tokens": 9}
    assert first.journal_key != other.journal_key


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "\x00", '{"endpoint": "x"}', '{"rules": {"seed": [1]}}', "[" * 9_000],
)
def test_a_file_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    one = Manners("h", "http://h/v1", "m", {}, tmp_path / "endpoints")
    body = {"messages": [{"role": "user", "content": "q"}], "seed": 1}
    assert one.learn({"seed": None}, body, {}) == {}
    one.accept({"messages": body["messages"]})
    (file,) = (tmp_path / "endpoints").glob("*.json")
    assert Manners("h", "http://h/v1", "m", {}, tmp_path / "endpoints").rules == {"seed": None}
    assert Manners("h", "http://h/v1", "other", {}, tmp_path / "endpoints").rules == {}
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"learnt": facts["learnt"] - 31 * 86_400}))  # servers change
    assert Manners("h", "http://h/v1", "m", {}, tmp_path / "endpoints").rules == {}
    file.write_text(text)
    assert Manners("h", "http://h/v1", "m", {}, tmp_path / "endpoints").rules == {}


def test_the_file_holds_no_secret_of_an_url(tmp_path: Path) -> None:
    folder, url = tmp_path / "endpoints", "https://me:hunter2@h/key-4711/v1?code=4712"
    one = Manners("h", url, "m", {}, folder)
    one.learn({"seed": None}, {"seed": 1, "messages": []}, {})
    one.accept({"messages": []})
    (file,) = folder.glob("*.json")
    assert json.loads(file.read_text())["endpoint"] == "https://h"
    assert not any(secret in file.read_text() for secret in ("hunter2", "4711", "4712"))
    assert Manners("h", url, "m", {}, folder).rules == {"seed": None}
    assert Manners("h", url.replace("4711", "4713"), "m", {}, folder).rules == {}
    facts = json.loads(file.read_text())
    del facts["of"]  # as an earlier version wrote it
    file.write_text(json.dumps({**facts, "endpoint": url}))
    assert Manners("h", url, "m", {}, folder).rules == {"seed": None}


def test_a_folder_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    (tmp_path / "endpoints").write_text("in the way")
    with serving(without("seed")) as server:
        assert {a.status for a in make(server, tmp_path).chat(questions(3))} == {"ok"}


def test_rules_that_lead_in_a_circle_leave_the_field_out() -> None:
    circle = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
    asked = {"max_tokens": 9, "temperature": 3, "stop": "x"}
    rules = {**circle, "temperature": {"most": 1}, "stop": {"most": 1}}
    messages = [{"role": "user", "content": "q"}]
    assert request(rules, messages, asked, None) == {"messages": messages, "temperature": 1}
    assert changes(rules, asked, None) == {"max_tokens": None, "temperature": {"temperature": 1}, "stop": None}


def test_an_endpoint_that_nobody_knows_is_asked_as_it_stands() -> None:
    origin = parse_origin("http://127.0.0.1:9999/v1")
    assert (OTHER.rules, OTHER.matches(origin, "m")) == ({}, True)


def test_thoughts_that_use_up_the_limit_are_one_sentence_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draft = '<think>I try {"entries": [{"text": "A draft of a note.", "label": "grade_1"}]} or'
    with serving(lambda *_: Said(draft, finish="length")) as server:
        argv = ["generate", "clinic", "--llm", "m", "--base-url", server.url, "--n", "4", "--max-calls", "2", "-q"]
        assert main([*argv, "--max-tokens", "50", "--out", str(tmp_path / "syn")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "truncated while thinking: raise --max-tokens" in error
