"""The stream of every LLM: failures state their cause, and empty or cut answers are asked for again."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.batch_server import BatchServer
from support.batch_server import serving as batch_serving
from support.llm_server import LLMServer, Said, content, serving

from hf_synth.errors import LLMError
from hf_synth.llm import calls
from hf_synth.llm.batch import BatchLLM
from hf_synth.llm.journal import Entry, Journal
from hf_synth.llm.leases import claim, new_owner
from hf_synth.llm.ledger import Ledger
from hf_synth.llm.llm import LLM
from hf_synth.llm.replies import failure_kind
from hf_synth.llm.stream import leased

Questions = list[list[dict[str, str]]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF", 0.005)
    monkeypatch.setattr(calls, "_LOADING_PAUSE", (0.01, 0.02))


def questions(n: int) -> Questions:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(n)]


def make(server: LLMServer, folder: Path, **more: Any) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "journal.sqlite", **{"concurrency": 4, **more})


def refusal(status: int, body: Any) -> Said:
    return Said(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode())


# --- failure is failure ---------------------------------------------------------------------------------------------
MODERATED = [
    refusal(403, {"error": {"code": 403, "message": "Input was flagged", "metadata": {"reasons": ["self-harm"]}}}),
    refusal(400, {"error": {"message": "no", "param": "prompt", "code": "content_filter"}}),
    refusal(400, {"error": {"message": "triggered content management policy", "code": None}}),
    refusal(400, {"error": {"message": "blocked", "code": "content_policy_violation"}}),
]


def test_a_prompt_that_speaks_of_moderation_is_no_refusal(tmp_path: Path) -> None:
    said = "He drinks alcohol in moderation and was flagged for review."

    def answer(request: dict[str, Any], _: int) -> Said:
        if "seed" not in request:
            return Said("a")
        places = [{"type": "extra_forbidden", "loc": ("body", "seed"), "input": request["messages"]}]
        error = {"message": f"{places}", "param": "seed", "type": "unsupported parameter"}
        return Said(status=422, body=json.dumps({"error": error}).encode())

    with serving(answer) as server:
        (got,) = LLM("m", base_url=server.url, journal=tmp_path / "j.sqlite").chat(
            [[{"role": "user", "content": said}]]
        )
        assert (got.status, got.text) == ("ok", "a")
        refused = {"error": {"message": f"{said} was stopped", "code": "content_filter"}}
        server.answer = lambda request, _: Said(status=400, body=json.dumps(refused).encode())
        llm = LLM("m", base_url=server.url, journal=tmp_path / "k.sqlite")
        assert llm.chat([[{"role": "user", "content": said}]])[0].status == "refusal"


@pytest.mark.parametrize("said", MODERATED)
def test_a_moderated_prompt_is_one_refusal_and_is_kept(said: Said, tmp_path: Path) -> None:
    with serving(lambda r, n: said if content(r) == "question 2" else Said("fine")) as server:
        llm = make(server, tmp_path)
        schema = {"type": "object"}
        answers = llm.chat(questions(8), schema=schema)
        assert [a.status for a in answers] == ["ok"] * 2 + ["refusal"] + ["ok"] * 5
        assert server.asked().count("question 2") == 1
        assert all("response_format" in r for r in server.requests)  # the schema was not at fault
        assert [a.cached for a in llm.chat(questions(8), schema=schema)] == [True] * 8


def test_spent_credits_end_the_run_at_once_and_keep_what_was_answered(tmp_path: Path) -> None:
    spent = refusal(402, {"error": "You have exceeded your monthly included credits."})
    with serving(lambda r, n: Said("fine") if n < 10 else spent) as server:
        with pytest.raises(LLMError, match=r"credits .* are spent \(402\).*run again") as caught:
            make(server, tmp_path).chat(questions(300))
        assert "\n" not in str(caught.value)
        assert len(server.requests) <= 10 + 4
    assert len(Journal(tmp_path / "journal.sqlite")) == 10


@pytest.mark.parametrize("place", ["code", "type"])
def test_a_spent_quota_is_said_at_once_wherever_its_code_stands(place: str, tmp_path: Path) -> None:
    spent = refusal(429, {"error": {"message": "You exceeded your quota", place: "insufficient_quota"}})
    with serving(lambda *_: spent) as server, pytest.raises(LLMError, match="quota is spent"):
        make(server, tmp_path).chat(questions(20))
    assert len(server.requests) <= 4


def test_what_was_sent_when_the_credits_ended_is_kept(tmp_path: Path) -> None:
    spent = refusal(402, {"error": {"message": "Insufficient credits"}})
    with serving(lambda r, n: spent if n == 3 else Said("fine", delay=0.3)) as server:
        with pytest.raises(LLMError, match="402"):
            make(server, tmp_path).chat(questions(50))
        assert len(server.requests) == 4
    assert len(Journal(tmp_path / "journal.sqlite")) == 3


LOADING = [
    refusal(503, {"error": {"message": "Loading model", "code": 503, "type": "unavailable_error"}}),
    refusal(503, {"error": "Model x is currently loading", "estimated_time": 20.0}),
    refusal(500, {"error": {"message": "llama runner is loading model"}}),
]


@pytest.mark.parametrize("said", LOADING)
def test_a_server_that_loads_its_model_is_waited_for(
    said: Said, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(lambda r, n: said if n < 12 else Said("fine")) as server:
        answers = make(server, tmp_path, max_retries=0).chat(questions(30))
        assert {a.status for a in answers} == {"ok"}
        assert len(server.requests) <= 30 + 12
    assert len([r for r in caplog.records if "is loading its model" in r.message]) == 1


def test_loading_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_LOADING_MINUTES", 0.005)
    with serving(lambda *_: LOADING[0]) as server:
        with pytest.raises(LLMError, match="still loading its model: wait, then run again"):
            make(server, tmp_path).chat(questions(30))
        assert len(server.requests) < 60


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(body=b"<!doctype html><title>Sign in</title>"), "web page: a login or a proxy"),
        (refusal(403, b"<html>blocked</html>"), "web page: a login or a proxy"),
        (Said(body=json.dumps({"message": {"content": "fine"}, "done": True}).encode()), "not a chat completion.*/v1"),
        (Said(body=b'{"object": "text_completion", "choices": [{"text": "fine"}]}'), "not a chat completion.*/v1"),
        (refusal(405, {"detail": "Method Not Allowed"}), "no chat requests.*/v1"),
        (refusal(503, b""), "overloaded, or still loading its model"),
        (Said(hang=True), "raise --timeout"),
    ],
)
@pytest.mark.parametrize("n", [2, 40])
def test_no_answer_at_all_is_an_error_with_its_cause(said: Said, words: str, n: int, tmp_path: Path) -> None:
    with serving(lambda *_: said) as server, pytest.raises(LLMError, match=words) as caught:
        make(server, tmp_path, max_retries=1, timeout=0.2).chat(questions(n))
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "question" not in str(caught.value).replace("no question", "").replace("questions in a row", "")


def test_a_hung_server_is_not_asked_for_hours(tmp_path: Path) -> None:
    with serving(lambda *_: Said(hang=True)) as server:
        with pytest.raises(LLMError, match=r"answered no question within 0\.1 s: raise --timeout"):
            make(server, tmp_path, timeout=0.1, max_retries=6).chat(questions(300))
        assert len(server.requests) <= (8 + 4) * 4  # the last four are under way when the eighth is given up


def test_the_first_time_out_says_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda r, n: Said(hang=content(r) in ("question 1", "question 3"))) as server:
        answers = make(server, tmp_path, max_retries=1, timeout=0.2).chat(questions(6))
    assert [a.code for a in answers if a.status == "error"] == ["timeout", "timeout"]
    said = [r.message for r in caplog.records if "--timeout" in r.message]
    assert len(said) == 1
    assert "within 0.2 s" in said[0]


def test_kinds_are_told_by_status_and_words() -> None:
    assert failure_kind(503, b'{"error": {"message": "Loading model"}}') == "loading"
    assert failure_kind(404, b'{"error": {"message": "Loading model"}}') == ""
    assert failure_kind(500, b'{"error": {"message": "failed to load model vocabulary"}}') == ""
    assert failure_kind(500, b'{"error": {"message": "error downloading the picture"}}') == ""
    assert failure_kind(503, b'{"error": {"message": "no slot available", "type": "unavailable_error"}}') == ""
    assert failure_kind(400, b'{"error": {"code": "content_filter"}}') == "refusal"
    assert failure_kind(401, b'{"error": {"message": "flagged"}}') == ""
    assert failure_kind(403, b"  <html>") == "page"
    assert failure_kind(502, b"<html>Bad gateway</html>") == ""


# --- what is no answer ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_answer_is_asked_for_again_by_the_next_run(text: str, tmp_path: Path) -> None:
    now = [text]
    with serving(lambda *_: Said(now[0])) as server:
        llm = make(server, tmp_path)
        first = llm.chat(questions(3))
        assert [(a.status, a.text, a.again) for a in first] == [("ok", text, True)] * 3
        now[0] = "fine"
        assert [(a.text, a.cached, a.again) for a in llm.chat(questions(3))] == [("fine", False, False)] * 3
        assert [(a.text, a.cached) for a in llm.chat(questions(3))] == [("fine", True)] * 3
        assert len(server.requests) == 6


def test_an_answer_cut_by_the_server_is_asked_for_again_and_one_cut_by_the_own_limit_is_not(tmp_path: Path) -> None:
    with serving(lambda *_: Said("half", finish="length")) as server:
        llm = make(server, tmp_path)
        for limit, asked in (({}, [2, 4]), ({"max_tokens": 9}, [6, 6])):
            for count in asked:
                assert {(a.status, a.text) for a in llm.chat(questions(2), **limit)} == {("truncated", "half")}
                assert len(server.requests) == count


def test_an_empty_answer_of_an_earlier_version_is_asked_for_again(tmp_path: Path) -> None:
    with serving(lambda *_: Said("")) as server:
        key = make(server, tmp_path).chat(questions(1))[0].journal_key
        with Journal(tmp_path / "journal.sqlite").transaction() as database:
            database.execute("UPDATE answers SET status = 'ok'")  # as versions before kept it
        server.answer = lambda *_: Said("fine")
        assert [a.text for a in make(server, tmp_path).chat(questions(1))] == ["fine"]
    assert Journal(tmp_path / "journal.sqlite").get_many([key])[key].text == "fine"


def test_a_refusal_without_text_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    journal.put_many([Entry("a", "", "refusal"), Entry("b", "x"), Entry("c", "", "empty")])
    journal.put_many([Entry("a", "new"), Entry("b", "new"), Entry("c", "new")])
    assert {key: entry.text for key, entry in journal.get_many("abc").items()} == {"a": "", "b": "x", "c": "new"}


def test_a_batch_asks_again_for_an_empty_answer(tmp_path: Path) -> None:
    """The Batch API takes the same path: what is empty is handed on once, and asked for by the next run."""
    with batch_serving() as server:
        assert isinstance(server, BatchServer)
        llm = LLM("m", base_url=server.url, api_key="k", journal=tmp_path / "j.sqlite")
        batch = BatchLLM(llm, poll_seconds=0.02)
        answers = batch.chat(questions(2), access="open", max_tokens=20)
        assert [a.again for a in answers] == [False, False]
        with Journal(tmp_path / "j.sqlite").transaction() as database:
            database.execute("UPDATE answers SET status = 'empty', text = ''")
        again = batch.chat(questions(2), access="open", max_tokens=20)
    assert [a.text for a in again] == [a.text for a in answers]
    assert not any(a.cached for a in again)


@pytest.mark.parametrize("batched", [False, True])
def test_a_question_that_stands_twice_is_answered_twice(batched: bool, tmp_path: Path) -> None:
    with batch_serving() if batched else serving() as server:
        llm = LLM("m", base_url=server.url, api_key="k", journal=tmp_path / "j.sqlite")
        chat = BatchLLM(llm, poll_seconds=0.02) if batched else llm
        answers = chat.chat(questions(2) * 3, access="open", samples=[0] * 6, max_tokens=20)
    assert [a.text for a in answers] == ["echo question 0", "echo question 1"] * 3


# --- what is said ---------------------------------------------------------------------------------------------------
def test_one_line_tells_how_many_answers_came_from_the_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hf_synth")
    with serving() as server:
        make(server, tmp_path).chat(questions(3))
        assert "came from the journal" not in caplog.text
        make(server, tmp_path).chat(questions(5))
    assert [r.message for r in caplog.records if "journal" in r.message] == ["3 of 5 answers came from the journal"]


def test_the_progress_counts_failures_and_time_outs_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_synth.reports.progress._BRIEF", 0)

    def answer(request: dict[str, Any], _: int) -> Said:
        number = int(content(request).split()[1])
        return Said("fine", hang=number in (3, 5), status=400 if number == 7 else 200)

    with serving(answer) as server:
        llm = make(server, tmp_path, timeout=0.2, max_retries=0)
        llm.chat(questions(9), progress=True)
    assert "9/9 answers | 1 failed, 2 timed out | 0:0" in capsys.readouterr().err


def test_one_accident_does_not_turn_the_schema_off(tmp_path: Path) -> None:
    with serving(lambda r, n: Said(status=400) if n == 3 else Said("fine")) as server:
        answers = make(server, tmp_path, concurrency=1).chat(questions(20), schema={"type": "object"})
        assert {a.status for a in answers} == {"ok"}
        assert all("response_format" in r for r in server.requests)  # the question itself is asked again with it
        assert len(server.requests) == 21


# --- money and leases -----------------------------------------------------------------------------------------------
def test_a_budget_reserves_the_schema_and_every_digit() -> None:
    ledger = Ledger(100.0, (1e6, 0.0))  # a dollar for each token read
    letters = [{"role": "user", "content": "a" * 1_000}]
    digits = [{"role": "user", "content": "1" * 1_000}]
    plain, many = ledger.worst_case(letters, 1), ledger.worst_case(digits, 1)
    assert 500 < plain < 600
    assert 1_000 < many < 1_100
    schema = {"type": "object", "properties": {"label": {"enum": ["x" * 300]}}}
    assert ledger.worst_case(letters, 1, schema) - plain > 150


def test_questions_of_another_owner_are_left_to_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    claim(journal, ["theirs"], new_owner(), 60.0)
    journal.put_many([Entry("known", "x")])
    with leased(journal, ["ours", "theirs", "known"]) as (granted, answers):
        assert (granted, set(answers)) == ({"ours"}, {"known"})
        with leased(journal, ["ours"]) as (again, _):
            assert again == set()
    with leased(journal, ["ours"]) as (granted, _):
        assert granted == {"ours"}
    assert [t for t in threading.enumerate() if t.name == "hf_synth-leases"] == []


def test_a_question_asked_twice_at_once_is_sent_once(tmp_path: Path) -> None:
    def same() -> Iterator[list[dict[str, str]]]:
        yield from questions(1) * 50

    with serving(lambda *_: Said("fine", delay=0.05)) as server:
        answers = list(make(server, tmp_path).stream(same(), samples=[0] * 50))
        assert [a.text for a in answers] == ["fine"] * 50
        assert len(server.requests) == 1


def test_answers_under_way_are_kept_when_credits_are_spent(tmp_path: Path) -> None:
    """A slow answer that is paid for arrives after another question was refused for want of credits."""

    def answer(request: dict[str, Any], _: int) -> Said:
        if content(request) == "spent":
            return Said(status=402)
        return Said("paid for", delay=6.0)  # longer than any short grace

    with serving(answer) as server:
        llm = make(server, tmp_path, concurrency=2, max_retries=0)
        with pytest.raises(LLMError, match="402"):
            llm.chat([[{"role": "user", "content": text}] for text in ("slow", "spent")])
        assert [a.cached for a in llm.chat([[{"role": "user", "content": "slow"}]])] == [True]


def test_an_error_with_status_200_is_read_like_its_own_status(tmp_path: Path) -> None:
    def within(code: int, message: str) -> Said:
        return Said(body=json.dumps({"error": {"code": code, "message": message}}).encode())

    def answer(request: dict[str, Any], _: int) -> Said:
        if "temperature" in request:
            return within(400, "Unsupported parameter: temperature")
        return within(402, "no credits") if content(request) == "question 9" else Said("fine")

    with serving(answer) as server:
        llm = make(server, tmp_path, max_retries=0)
        assert [a.text for a in llm.chat(questions(4), temperature=0.5)] == ["fine"] * 4
        assert sum("temperature" in request for request in server.requests) == 1, "it is learnt"
        with pytest.raises(LLMError, match="credits"):
            llm.chat(questions(12))
