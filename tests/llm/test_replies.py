"""Bodies of replies in the forms that servers write: text, thoughts, refusals and cuts are recognised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hf_synth.llm.replies import Failure, Reply, advice_on, read_reply


def read(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> Reply:
    reply = read_reply(json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more}).encode(), "m")
    assert isinstance(reply, Reply)
    return reply


THOUGHT = [{"type": "text", "text": "DRAFT"}]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "reasoning", "text": "DRAFT"}, {"type": "text", "text": "fine"}]}, "fine"),
        ({"content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": "fine"}]}, "fine"),
        ({"content": [{"type": "thinking", "text": "DRAFT"}, {"type": "output_text", "text": "fine"}]}, "fine"),
        ({"content": [{"type": "text", "text": "DRAFT", "thought": True}, {"text": "fi"}, "ne"]}, "fine"),
        ({"content": "fine", "reasoning_content": "DRAFT", "reasoning": "DRAFT"}, "fine"),
        ({"content": {"text": "fine"}}, "fine"),
        ({"content": {"entries": []}}, '{"entries": []}'),
        ({"content": None, "tool_calls": [{"function": {"name": "answer", "arguments": "fine"}}]}, "fine"),
        ({"content": "", "tool_calls": [{"function": {"arguments": {"label": "mild"}}}]}, '{"label": "mild"}'),
    ],
)
def test_only_what_is_said_is_read(message: dict[str, Any], text: str) -> None:
    reply = read(message)
    assert (reply.text, reply.status, reply.code) == (text, "ok", "stop")


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "DRAFT"},
        {"content": "", "reasoning": "DRAFT"},
        {"content": "\n", "thinking": "DRAFT"},
        {"content": [{"type": "reasoning", "text": "DRAFT"}]},
        {"content": None, "reasoning_details": [{"type": "reasoning.text", "text": "DRAFT"}]},
    ],
)
@pytest.mark.parametrize(("finish", "status"), [("stop", "ok"), ("length", "truncated"), ("MAX_TOKENS", "truncated")])
def test_an_answer_of_thoughts_alone_says_so(message: dict[str, Any], finish: str, status: str) -> None:
    reply = read(message, finish)
    assert (reply.text.strip(), reply.status, reply.code) == ("", status, "thinking")


@pytest.mark.parametrize(
    ("finish", "status"),
    [
        ("max_tokens", "truncated"), ("MAX_TOKENS", "truncated"), ("model_length", "truncated"),
        ("length", "truncated"),
        ("content_filter", "refusal"), ("SAFETY", "refusal"), ("PROHIBITED_CONTENT", "refusal"), ("refusal", "refusal"),
        ("stop", "ok"), ("end_turn", "ok"), ("eos", "ok"), ("STOP", "ok"), (None, "ok"), ("eos_token", "ok"),
    ],
)  # fmt: skip
def test_every_name_of_an_end_is_known(finish: str | None, status: str) -> None:
    assert read({"content": "half"}, finish).status == status


@pytest.mark.parametrize("usage", [[1], "9", 7, None, {"prompt_tokens": None, "completion_tokens": "7"}])
def test_a_strange_usage_loses_no_answer(usage: Any) -> None:
    reply = read({"content": "fine"}, usage=usage)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("fine", None, None)


@pytest.mark.parametrize("count", [0, -3, 999_999_999, 1e300, float("nan")])
def test_numbers_of_tokens_that_cannot_be_are_not_counted(count: float) -> None:
    reply = read({"content": "fine"}, usage={"prompt_tokens": count, "completion_tokens": count})
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)  # a budget then counts the most
    assert read({"content": ""}, usage={"prompt_tokens": 9, "completion_tokens": 0}).completion_tokens == 0


def test_a_blocked_prompt_is_a_refusal_and_a_broken_answer_is_asked_for_again() -> None:
    blocked = read_reply(b'{"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}', "m")
    assert isinstance(blocked, Failure)
    assert (blocked.kind, blocked.again) == ("refusal", False)
    choice = {"message": {"content": "half of it"}, "finish_reason": "error", "error": {"code": 502}}
    broken = read_reply(json.dumps({"choices": [choice]}).encode(), "m")
    assert broken == Failure("malformed", again=True)


def test_a_stream_that_nobody_asked_for_is_put_together() -> None:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant"},
        {"reasoning_content": "DRAFT"},
        {"content": "fi"},
        {"content": "ne"},
    ]
    chunks = [{"model": "s", "choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": {"prompt_tokens": 3}}]
    body = ": comment\n\n" + "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    for whole in (body, body.replace("\n", "\r\n")):
        reply = read_reply(whole.encode(), "m")
        assert isinstance(reply, Reply)
        assert (reply.text, reply.status, reply.model, reply.prompt_tokens) == ("fine", "ok", "s", 3)
    cut = read_reply(body.removeprefix(": comment\n\n").split('"stop"')[0].rsplit("data:", 1)[0].encode(), "m")
    assert isinstance(cut, Reply)
    assert cut.status == "truncated"


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ({"code": 429, "message": "slow down"}, Failure("http_429", again=True)),
        ({"code": "502"}, Failure("http_502", again=True)),
        ({"code": 402}, Failure("http_402")),
        ({"code": "invalid"}, Failure("malformed", again=True)),
        ("no", Failure("malformed", again=True)),
    ],
)
def test_an_error_with_status_200_is_the_error_that_it_names(error: Any, failure: Failure) -> None:
    assert read_reply(json.dumps({"error": error}).encode(), "m") == failure
    assert read_reply(json.dumps({"error": error, "choices": []}).encode(), "m") == failure


def test_a_stream_is_read_by_its_own_rules() -> None:
    def event(content: str, **more: Any) -> str:
        return f"data: {json.dumps({'choices': [{'delta': {'content': content}, **more}]}, ensure_ascii=False)}\n\n"

    text = "one\u2028two\x85three\x0b"  # no ends of lines in a stream
    said = read_reply((event("other", index=1) + event(text, index=0) + "data: [DONE]\n\n").encode(), "m")
    assert isinstance(said, Reply)
    assert (said.text, said.status) == (text, "ok")
    broken = event("half") + 'data: {"error": {"message": "overloaded"}}\n\n'
    assert read_reply(broken.encode(), "m") == Failure("malformed", again=True)


@pytest.mark.parametrize(("name", "words"), [
    ("http_400", "prompt longer"), ("http_413", "prompt longer"), ("http_500", "own log"), ("http_502", "own log"),
    ("http_503", "loading its model"), ("http_405", "/v1"), ("page", "web page"),
])  # fmt: skip
def test_every_failure_of_a_server_comes_with_a_next_step(name: str, words: str) -> None:
    assert words in advice_on(name)


def events(*chunks: object) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def delta(**fields: object) -> dict[str, object]:
    return {"choices": [{"delta": fields}]}


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("chunks", "status", "code", "text"),
    [
        ([delta(reasoning_details=[{"text": "T"}]), delta(content="A")], "ok", "stop", "A"),
        ([delta(reasoning_details=[{"text": "T"}])], "ok", "thinking", ""),
        ([delta(thinking="T")], "ok", "thinking", ""),
        ([delta(content=[{"type": "thinking", "thinking": "T"}]), delta(content=[{"type": "text", "text": "A"}])],
         "ok", "stop", "A"),
        ([delta(refusal="no")], "refusal", "stop", ""),
        ([delta(tool_calls=[{"function": {"arguments": part}}]) for part in ('{"a":', "1}")], "ok", "stop", '{"a":1}'),
        ([delta(content="A"), {"choices": [{"message": {"content": "A"}}]}], "ok", "stop", "A"),
    ],
)  # fmt: skip
def test_a_stream_is_read_like_a_whole_message(chunks: list[object], status: str, code: str, text: str) -> None:
    reply = read_reply(events(*chunks, END), "m")
    assert isinstance(reply, Reply)
    assert (reply.status, reply.code, reply.text) == (status, code, text)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": "Model overloaded, try again"}, "http_503"),
        ({"error": {"message": "x", "type": "rate_limit_exceeded"}}, "http_429"),
        ({"object": "error", "message": "x", "code": 400}, "http_400"),
        ({"status": 500, "message": "x"}, "http_500"),
        ({"error": {"code": 502}, "choices": [{"message": {"content": "a part"}}]}, "http_502"),
        *[({"choices": [{"message": {"content": "a part"}, "finish_reason": end}]}, "malformed")
          for end in ("error", "abort", "cancelled", "insufficient_system_resource")],
    ],
)  # fmt: skip
def test_an_error_with_status_200_is_no_answer(body: object, code: str) -> None:
    failure = read_reply(json.dumps(body).encode(), "m")
    assert isinstance(failure, Failure)
    assert failure.code == code
    assert failure.again is (code != "http_400")


def test_an_event_of_an_error_is_no_answer() -> None:
    assert isinstance(read_reply(b'event: error\ndata: {"message": "x"}\n\n', "m"), Failure)


def test_a_refusal_among_the_parts_of_a_message_is_one() -> None:
    body = {"choices": [{"message": {"content": [{"type": "refusal", "refusal": "no"}]}}]}
    assert read_reply(json.dumps(body).encode(), "m").status == "refusal"  # type: ignore[union-attr]
    assert isinstance(read_reply(json.dumps({"choices": [], "error": None}).encode(), "m"), Failure)
