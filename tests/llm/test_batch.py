"""The BatchLLM against a real loopback Batch API: order, kills, halves, money, and texts that stay where they are."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.batch_server import BatchServer, Line, Plan, content, echo, serving, status, unanswered
from support.questions import ask, questions

from hf_synth.errors import EndpointError, JournalError, LLMError
from hf_synth.llm import batch, batch_api
from hf_synth.llm.batch import BATCH_PRICE, BatchLLM
from hf_synth.llm.endpoints import Attestation
from hf_synth.llm.journal import Entry, Journal
from hf_synth.llm.leases import claim, process_name
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Answer, Chat, Question

CANARY = "CANARY-4f1c"
KEY = "sk-" + "secret"  # in two parts, since tracebacks show lines of this file
ATTESTED = Attestation(
    "Data office", zero_retention=True, no_training=True, no_human_review=True, date="2026-03-01",
    endpoint="https://8.8.8.8/v1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_api, "_BACKOFF", 0.01)
    monkeypatch.setattr(batch_api, "_FIRST_PATIENCE", 0.2)
    monkeypatch.setattr(batch_api, "_PATIENCE", 0.5)


def make(server: BatchServer, folder: Path, *, max_wait_hours: float = 26.0, **more: Any) -> BatchLLM:
    llm = LLM("m", base_url=server.url, journal=folder / "journal.sqlite", **more)
    return BatchLLM(llm, poll_seconds=0.02, max_wait_hours=max_wait_hours)


def texts(answers: list[Answer]) -> list[str]:
    return [a.text for a in answers]


def echoes(n: int, start: int = 0) -> list[str]:
    return [f"echo question {i}" for i in range(start, n)]


def notes(folder: Path) -> list[Path]:
    return sorted((folder / "batches").glob("*.json"))


# --- answers --------------------------------------------------------------------------------------------------------
def test_answers_come_in_order_whatever_the_order_of_the_output(tmp_path: Path) -> None:
    with serving() as server:
        llm: Chat = make(server, tmp_path, price=(1.0, 10.0))
        answers = llm.chat(
            questions(40), access="open", temperature=0.5, seed=None, scope="s", schema={"type": "object"}
        )
        output = server.files[server.batches["batch_0"]["output_file_id"]]
    assert texts(answers) == echoes(40)
    assert [json.loads(line)["custom_id"] for line in output.splitlines()] != [a.journal_key for a in answers]
    assert {(a.status, a.code, a.model, a.tokens, a.cached) for a in answers} == {("ok", "stop", "m-served", 30, False)}
    assert answers[0].cost == pytest.approx(BATCH_PRICE * (10 * 1 + 20 * 10) / 1e6)
    assert answers[0].created > 0
    (asked,) = server.asked
    assert [r["custom_id"] for r in asked] == [a.journal_key for a in answers]
    assert {(r["method"], r["url"], r["body"]["temperature"], "seed" in r["body"]) for r in asked} == {
        ("POST", "/v1/chat/completions", 0.5, False)
    }
    assert asked[0]["body"]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert notes(tmp_path) == []


def test_a_question_has_the_seed_of_its_key(tmp_path: Path) -> None:
    with serving() as server:
        same = make(server, tmp_path).chat(ask("same", "same"), access="open")
    assert [r["body"]["seed"] for r in server.asked[0]] == [int(a.journal_key[:8], 16) & 0x7FFFFFFF for a in same]


def test_batch_and_interactive_answers_are_interchangeable(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    def chat(body: dict[str, Any]) -> bytes:
        sent.append(body)
        said = json.loads(echo({"custom_id": "", "body": body}).data)
        return json.dumps(said["response"]["body"]).encode()

    with serving() as server:
        server.chat = chat
        slow = make(server, tmp_path)
        options: dict[str, Any] = {"access": "open", "temperature": 0.3, "scope": "x", "schema": {"type": "object"}}
        bought = slow.llm.chat(questions(5), **options)
        both = slow.chat(questions(9), **options)
        assert [a.cached for a in both] == [True] * 5 + [False] * 4
        assert [content(r) for r in server.asked[0]] == [f"question {i}" for i in range(5, 9)]
        again = slow.llm.chat(questions(9), **options)
        assert len(sent) == 5
    assert texts(again) == texts(both) == echoes(9)
    assert [a.journal_key for a in again] == [a.journal_key for a in both]
    assert both[0].journal_key == bought[0].journal_key
    assert sorted(sent[0]) == sorted(server.asked[0][0]["body"])  # the same request, too


def test_a_second_run_makes_no_call(tmp_path: Path) -> None:
    with serving() as server:
        first = make(server, tmp_path).chat(questions(5), access="open")
        calls = len(server.calls)
        again = make(server, tmp_path).chat(questions(5), access="open")
        assert len(server.calls) == calls
    assert texts(first) == texts(again)
    assert all(a.cached for a in again)


def test_a_pause_ends_a_batch(tmp_path: Path) -> None:
    seen: list[str] = []

    def in_two_steps() -> Iterator[Question | None]:
        for i in range(3):
            yield Question(questions(3)[i])
        yield None
        assert len(seen) >= 1  # at least the oldest one is answered before more is read
        yield Question(ask("more")[0])

    with serving() as server:
        for answer in make(server, tmp_path).stream(in_two_steps(), access="open"):
            seen.append(answer.text)
    assert seen == [*echoes(3), "echo more"]
    assert [len(asked) for asked in server.asked] == [3, 1]


def test_no_more_than_may_be_ahead_are_asked_together(tmp_path: Path) -> None:
    with serving() as server:
        stream = make(server, tmp_path).stream(iter(questions(5)), access="open", ahead=2)
        assert texts(list(stream)) == echoes(5)
    assert [len(asked) for asked in server.asked] == [2, 2, 1]


def test_works_inside_a_running_loop(tmp_path: Path) -> None:
    async def notebook() -> list[Answer]:
        return make(server, tmp_path).chat(questions(3), access="open")

    with serving() as server:
        assert texts(asyncio.run(notebook())) == echoes(3)


def test_nothing_asked_needs_nothing(tmp_path: Path) -> None:
    llm = BatchLLM(LLM("m", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "j.sqlite"))
    assert llm.chat([], access="open") == []
    assert llm.with_journal(tmp_path / "other.sqlite").journal == tmp_path / "other.sqlite"
    with pytest.raises(LLMError, match="above 0"):
        BatchLLM(llm.llm, poll_seconds=0)


def test_several_files_when_over_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_REQUESTS", 4)
    with serving() as server:
        assert texts(make(server, tmp_path).chat(questions(10), access="open")) == echoes(10)
        assert [len(asked) for asked in server.asked] == [4, 4, 2]
    monkeypatch.setattr(batch, "MAX_REQUESTS", 50_000)
    monkeypatch.setattr(batch, "MAX_BYTES", 1_000)
    with serving() as server:
        long = ask("x" * 2_000, *(f"{i}" * 300 for i in range(5)), "lone \udc80 surrogate")
        answers = make(server, tmp_path).chat(long, access="open")
    assert [(a.status, a.code) for a in answers] == [
        ("error", "too_large"), *[("ok", "stop")] * 5, ("error", "not_text")
    ]  # fmt: skip
    assert [len(asked) for asked in server.asked] == [1] * 5
    sent = [server.files[b["input_file_id"]] for b in server.batches.values()]
    assert max(map(len, sent)) <= 1_000


def test_many_answers_are_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    put = Journal.put_many

    def counted(self: Journal, entries: Any) -> None:
        entries = list(entries)
        groups.append(len(entries))
        put(self, entries)

    monkeypatch.setattr(Journal, "put_many", counted)
    monkeypatch.setattr(batch, "_GROUP", 7)
    padded = Plan(lambda r: echo(r, padding="x" * 40_000))
    monkeypatch.setattr("hf_synth.llm.endpoints.MAX_BODY", 100_000)  # what one response may hold otherwise
    with serving(padded) as server:
        assert texts(make(server, tmp_path).chat(questions(30), access="open")) == echoes(30)
    assert groups == [7, 7, 7, 7, 2]


# --- what goes wrong ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["expired", "cancelled"])
@pytest.mark.parametrize("told", [True, False])
def test_what_an_early_end_left_over_is_sent_again(how: str, told: bool, tmp_path: Path) -> None:
    def partly(request: Any) -> Line | None:
        if int(content(request).split()[1]) % 2:
            return unanswered(request, f"batch_{how}") if told else None
        return echo(request)

    with serving(Plan(partly, how), Plan()) as server:
        assert texts(make(server, tmp_path).chat(questions(10), access="open")) == echoes(10)
    assert [len(asked) for asked in server.asked] == [10, 5]
    assert notes(tmp_path) == []


def test_what_expires_three_times_is_an_error(tmp_path: Path) -> None:
    never = Plan(lambda r: echo(r) if content(r) == "question 0" else None, "expired")
    with serving(never) as server:
        llm = make(server, tmp_path)
        answers = llm.chat(questions(3), access="open")
        assert [(a.status, a.code) for a in answers] == [("ok", "stop"), *[("error", "batch_expired")] * 2]
        assert [len(asked) for asked in server.asked] == [3, 2, 2]
        server.plans = (Plan(),)
        assert texts(llm.chat(questions(3), access="open")) == echoes(3)
    assert len(answers[1].journal_key) == 64


def test_error_lines_are_retried_if_that_may_help(tmp_path: Path) -> None:
    codes = {0: 200, 1: 429, 2: 500, 3: 400, 4: 408, 5: 409, 6: 503, 7: 404}

    def first(request: Any) -> Line:
        code = codes[int(content(request).split()[1])]
        return echo(request) if code == 200 else status(request, code)

    with serving(Plan(first), Plan(lambda r: status(r, 500) if "2" in content(r) else echo(r))) as server:
        answers = make(server, tmp_path).chat(questions(8), access="open")
    assert [a.status for a in answers] == ["ok", "ok", "error", "error", "ok", "ok", "ok", "error"]
    assert [answers[i].code for i in (2, 3, 7)] == ["http_500", "http_400", "http_404"]
    assert [len(asked) for asked in server.asked] == [8, 5, 1]


def test_a_moderated_question_of_a_batch_is_a_refusal_and_is_kept(tmp_path: Path) -> None:
    def line(request: Any) -> Line:
        return status(request, 400, "content_filter") if "2" in content(request) else echo(request)

    with serving(Plan(line)) as server:
        llm = make(server, tmp_path)
        for cached in (False, True):  # the second time nothing is asked, and the schema was not at fault
            answers = llm.chat(questions(4), access="open", schema={"type": "object"})
            assert [a.status for a in answers] == ["ok", "ok", "refusal", "ok"]
            assert [a.cached for a in answers] == [cached] * 4
        assert [len(asked) for asked in server.asked] == [4]


def test_lines_that_are_broken_are_counted_and_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange = [
        b"<html>gateway</html>", b'{"custom_id": ', b"[]", b"null", b"7", b"\xff\xfe", b"[" * 50_000,
        b'{"custom_id": 3, "response": {"status_code": 200}}', b'{"custom_id": "k", "response": {"status_code": "x"}}',
        b'{"custom_id": "k", "response": {"status_code": 7e99}}', b'{"custom_id": "k", "response": null, "error": 1}',
    ]  # fmt: skip

    def broken(request: Any) -> Line:
        i = int(content(request).split()[1])
        return Line(strange[i]) if i < len(strange) else echo(request)

    with serving(Plan(broken), Plan()) as server:
        assert texts(make(server, tmp_path).chat(questions(14), access="open")) == echoes(14)
    assert [len(asked) for asked in server.asked] == [14, 11]
    assert f"{len(strange)} lines" in caplog.text


def test_lines_of_others_and_second_ones_are_left_alone(tmp_path: Path) -> None:
    def odd(request: Any) -> Line:
        line, i = echo(request).data, int(content(request).split()[1])
        again = line.replace(b"echo", b"other")
        unknown = line.replace(request["custom_id"].encode(), b"f" * 64 if i else b"unknown")
        return Line(line + b"\n\n" + again + b"\n" + unknown + b"\n" + status(request, 500).data)

    with serving(Plan(odd)) as server:
        assert texts(make(server, tmp_path).chat(questions(4), access="open")) == echoes(4)
    assert len(Journal(tmp_path / "journal.sqlite")) == 4
    assert len(server.asked) == 1


def test_a_line_longer_than_any_answer_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_api, "MAX_BODY", 300_000)
    long = Plan(lambda r: echo(r, padding="x" * 2_000_000) if content(r) == "question 1" else echo(r))
    with serving(long, Plan()) as server:
        assert texts(make(server, tmp_path).chat(questions(3), access="open")) == echoes(3)
    assert [len(asked) for asked in server.asked] == [3, 1]


def test_a_schema_that_is_not_understood_is_given_up(tmp_path: Path) -> None:
    picky = Plan(lambda r: status(r, 400) if "response_format" in r["body"] else echo(r))
    with serving(picky) as server:
        llm = make(server, tmp_path)
        assert texts(llm.chat(questions(3), access="open", schema={"type": "object"})) == echoes(3)
        assert texts(llm.chat(questions(5), access="open", schema={"type": "object"})) == echoes(5)
    assert [len(asked) for asked in server.asked] == [3, 3, 2]


@pytest.mark.parametrize("code", ["token_limit_exceeded", f"Bad: {CANARY}", "9"])
def test_a_batch_that_fails_is_named_by_its_code_alone(code: str, tmp_path: Path) -> None:
    with serving(Plan(status="failed", code=code), Plan()) as server:
        llm = make(server, tmp_path)
        with pytest.raises(LLMError, match=r"127\.0\.0\.1:\d+ refuses a batch") as caught:
            llm.chat(ask(CANARY), access="open")
        assert ("token_limit_exceeded" in str(caught.value)) == (code == "token_limit_exceeded")
        assert CANARY not in "".join(traceback.format_exception(caught.value))
        assert notes(tmp_path) == []
        assert texts(llm.chat(ask(CANARY), access="open")) == [f"echo {CANARY}"]


def test_a_batch_that_fails_does_not_lose_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_REQUESTS", 3)
    with serving(Plan(status="failed"), Plan(looks=5)) as server:
        with pytest.raises(LLMError, match="invalid_json_line"):
            make(server, tmp_path).chat(questions(6), access="open")
        assert len(Journal(tmp_path / "journal.sqlite")) == 3


@pytest.mark.parametrize("call", ["POST /files", "POST /batches", "GET /batches/batch_0", "GET /files/file-1/content"])
@pytest.mark.parametrize("code", [0, 429, 500])
def test_faults_that_pass_are_waited_out_and_paid_for_once(call: str, code: int, tmp_path: Path) -> None:
    with serving() as server:
        server.fault = lambda said, number: code if said == call and number < 2 else None
        answers = make(server, tmp_path, price=(0.0, 50_000.0), budget_usd=2.0).chat(
            questions(3), access="open", max_tokens=20
        )
        assert texts(answers) == echoes(3)
        assert server.count(re.escape(call)) >= 3
    assert len(server.batches) == 1


def test_a_batch_whose_creation_was_not_answered_is_looked_for(tmp_path: Path) -> None:
    with serving() as server:
        for i in range(3):  # others of the account, on another page
            server.batches[f"other_{i}"] = {"id": f"other_{i}", "status": "completed", "metadata": None}
            server.asked.append([])
        made = server._created

        def lost(said: dict[str, Any]) -> dict[str, Any]:
            made(said)
            for i in range(3, 6):
                server.batches[f"other_{i}"] = {"id": f"other_{i}", "metadata": {"hf_synth_mark": "another"}}
                server.asked.append([])
            return {}  # no id in it

        server._created = lost  # type: ignore[method-assign]
        assert texts(make(server, tmp_path).chat(questions(3), access="open")) == echoes(3)
    assert server.count("POST /batches") == 1
    assert server.count(r"GET /batches\?.*") >= 2


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("POST /files", 401, "refuses the key"), ("POST /files", 403, "403"), ("POST /files", 404, "no Batch API"),
        ("POST /files", 413, "413"), ("POST /files", 307, "307"), ("POST /batches", 400, "400"),
        ("POST /files", 500, "cannot reach.*http_500"), ("POST /files", 0, "cannot reach.*connection"),
        ("GET /batches/batch_0", 404, "delete .*json"), ("GET /files/file-1/content", 404, "delete .*json"),
    ],
)  # fmt: skip
def test_what_no_patience_mends_is_one_sentence(call: str, code: int, words: str, tmp_path: Path) -> None:
    with serving() as server:
        server.fault = lambda said, number: code if said == call else None
        with pytest.raises(LLMError, match=words) as caught:
            make(server, tmp_path, api_key=KEY).chat(ask(CANARY), access="open")
    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in shown
    assert CANARY.encode().hex() not in shown
    assert KEY not in shown
    assert len(notes(tmp_path)) == 1  # a batch may be there for all one knows


def test_waiting_ends_and_goes_on_later(tmp_path: Path) -> None:
    with serving(Plan(looks=8)) as server:
        with pytest.raises(LLMError, match="run again"):
            make(server, tmp_path, max_wait_hours=0.05 / 3600).chat(questions(3), access="open")
        (note,) = notes(tmp_path)
        assert note.stat().st_mode & 0o777 == 0o600
        assert note.parent.stat().st_mode & 0o777 == 0o700
        assert json.loads(note.read_text())["status"] == "in_progress"
        assert texts(make(server, tmp_path).chat(questions(3), access="open")) == echoes(3)
    assert len(server.batches) == 1


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process that does not outlive the block, whatever fails in it."""
    with subprocess.Popen(command, **options) as child:
        try:
            yield child
        finally:
            child.kill()


def test_an_interrupt_ends_the_waiting(tmp_path: Path) -> None:
    with serving() as server:
        server.hold = "look"
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "journal.sqlite")]
        with started(command, stderr=subprocess.PIPE, text=True) as child:
            assert server.held.wait(60)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert len(notes(tmp_path)) == 1
    with Journal(tmp_path / "journal.sqlite") as journal, journal.reading() as database:
        assert database.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_drafts_of_the_dead_are_swept(tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    old, new = (tmp_path / "batches" / name for name in ("x.1.draft", "y.2.draft"))
    for draft in (old, new):
        draft.write_text("{")
    os.utime(old, (time.time() - 100, time.time() - 100))
    with serving() as server:
        assert texts(make(server, tmp_path).chat(questions(1), access="open")) == echoes(1)
    assert list((tmp_path / "batches").iterdir()) == [new]


def test_a_broken_note_is_named(tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "x.json").write_text("{")
    with serving() as server, pytest.raises(JournalError, match=r"x\.json is broken"):
        make(server, tmp_path).chat(questions(1), access="open")
    assert server.calls == []


# --- kill -9 --------------------------------------------------------------------------------------------------------
CHILD = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has its children ignore it
from hf_synth.llm import batch
from hf_synth.llm.llm import LLM
batch._GROUP = 4
llm = batch.BatchLLM(LLM("m", base_url=sys.argv[1], journal=sys.argv[2]), poll_seconds=0.02)
llm.chat([[{"role": "user", "content": f"question {i}"}] for i in range(20)], access="open")
"""


@pytest.mark.parametrize("hold", ["create", "look", "content"])
def test_kill_minus_9_pays_for_nothing_twice(hold: str, tmp_path: Path) -> None:
    with serving() as server:
        server.hold = hold
        with started([sys.executable, "-c", CHILD, server.url, str(tmp_path / "journal.sqlite")]):
            assert server.held.wait(60)
            journal = Journal(tmp_path / "journal.sqlite")
            until = time.monotonic() + 10
            while hold == "content" and len(journal) < 8 and time.monotonic() < until:
                time.sleep(0.02)
        half = len(journal)
        assert (8 <= half < 20) if hold == "content" else half == 0
        (note,) = notes(tmp_path)
        facts = json.loads(note.read_text())
        assert (facts["file"], facts["batch"]) == ("file-0", "" if hold == "create" else "batch_0")
        assert b"question" not in note.read_bytes()
        server.hold = ""
        llm = make(server, tmp_path, price=(0.0, 50_000.0))
        answers = llm.chat(questions(23), access="open")  # more than before: only the rest is asked for
    assert texts(answers) == echoes(23)
    assert [len(asked) for asked in server.asked] == [20, 3]
    assert Counter(r["custom_id"] for asked in server.asked for r in asked).most_common(1)[0][1] == 1
    assert sum(a.cached for a in answers) == half
    assert llm.spent_usd == pytest.approx(0.5 * (23 - half))
    assert notes(tmp_path) == []
    journal.close()


def test_killed_before_anything_was_sent(tmp_path: Path) -> None:
    with serving() as server:
        server.fault = lambda call, _: 0
        with pytest.raises(LLMError, match="cannot reach"):
            make(server, tmp_path).chat(questions(4), access="open")
        assert json.loads(notes(tmp_path)[0].read_text())["file"] == ""
        server.fault = lambda call, _: None
        assert texts(make(server, tmp_path).chat(questions(2), access="open")) == echoes(2)
        assert notes(tmp_path) == []


def test_a_batch_that_others_wait_for_is_not_waited_for_here(tmp_path: Path) -> None:
    with serving(Plan(looks=10**9), Plan()) as server:
        with pytest.raises(LLMError, match="run again"):
            make(server, tmp_path, max_wait_hours=0.05 / 3600).chat(questions(3), access="open")
        assert texts(make(server, tmp_path).chat(questions(6, 3), access="open")) == echoes(6, 3)
        assert len(notes(tmp_path)) == 1


def test_what_another_process_asks_is_waited_for(tmp_path: Path) -> None:
    with serving() as server:
        llm = make(server, tmp_path)
        keys = [a.journal_key for a in make(server, tmp_path / "other").chat(questions(3), access="open")]
        journal = llm.llm.open_journal()
        claim(journal, keys[:1], f"{process_name()}#other", 60)
        answers = llm.stream(questions(3), access="open")

        def answered_elsewhere(call: str, number: int) -> None:
            if "/content" in call:  # the others are answered by now
                journal.put_many([Entry(keys[0], "from elsewhere")])

        server.fault = answered_elsewhere  # type: ignore[assignment]
        found = list(answers)
    assert texts(found) == ["from elsewhere", *echoes(3, 1)]
    assert [a.cached for a in found] == [True, False, False]
    assert [len(asked) for asked in server.asked] == [3, 2]


# --- money ----------------------------------------------------------------------------------------------------------
def test_what_may_not_fit_the_budget_is_not_asked(tmp_path: Path) -> None:
    with serving() as server:
        llm = make(server, tmp_path, price=(0.0, 50_000.0), budget_usd=2.6)  # 20 tokens: a dollar, half of it here
        answers = llm.chat(questions(8), access="open", max_tokens=20)
        assert [a.status for a in answers] == ["ok"] * 5 + ["error"] * 3
        assert {a.code for a in answers[5:]} == {"budget"}
        assert [a.cost for a in answers[:5]] == [0.5] * 5
        assert llm.spent_usd == llm.llm.spent_usd == pytest.approx(2.5)
        assert [len(asked) for asked in server.asked] == [5]
        assert llm.with_journal(tmp_path / "o.sqlite").chat(ask("x"), access="open", max_tokens=20)[0].code == "budget"
        assert len(server.asked) == 1


def test_the_worst_case_is_reserved_and_the_rest_given_back(tmp_path: Path) -> None:
    with serving(Plan(lambda r: status(r, 400))) as server:
        llm = make(server, tmp_path, price=(0.0, 50_000.0), budget_usd=2.6)
        assert {a.code for a in llm.chat(questions(2), access="open", max_tokens=40)} == {"http_400"}
        assert (llm.spent_usd, llm.llm._ledger.reserved) == (0, 0)
        server.plans = (Plan(),)
        assert [a.status for a in llm.chat(questions(3), access="open", max_tokens=40)] == ["ok", "ok", "error"]
        assert (llm.spent_usd, llm.llm._ledger.reserved) == (pytest.approx(1.0), pytest.approx(0))


def test_what_is_not_counted_is_reckoned(tmp_path: Path) -> None:
    with serving(Plan(lambda r: echo(r, usage=False))) as server:
        llm = make(server, tmp_path, price=(0.0, 50_000.0), budget_usd=5.0)
        assert [a.cost for a in llm.chat(questions(2), access="open", max_tokens=20)] == [0.5, 0.5]
    assert llm.spent_usd == pytest.approx(1.0)


# --- where notes may go ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("access", ["restricted", "credentialed", None, "whatever"])
def test_only_open_data_may_be_asked_about(access: str | None, tmp_path: Path) -> None:
    with serving() as server:
        llm = make(server, tmp_path, attestation=ATTESTED)
        with pytest.raises(EndpointError, match="only open data"):
            llm.stream(questions(1), access=access)
        with pytest.raises(EndpointError, match="only open data"):
            llm.chat(questions(1), access=access)
        assert (server.connections, server.calls) == (0, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["completed", "expired", "failed", "http", "download"])
def test_no_text_in_logs_errors_or_notes(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "openai._base_client", "httpx2", "aiohttp", "asyncio", "hf_synth"):
        caplog.set_level(logging.DEBUG, logger=name)
    kept: list[bytes] = []
    plan = Plan(lambda r: Line(content(r).encode()), "failed" if how == "failed" else "expired")
    shown = ""
    with serving(Plan() if how == "completed" else plan) as server:

        def look(call: str, number: int) -> int | None:
            kept.extend(p.read_bytes() for p in notes(tmp_path))
            if how == "download" and "/content" in call:
                return 500
            return 400 if how == "http" and call == "POST /batches" else None

        server.fault = look
        try:
            answers = make(server, tmp_path, api_key=KEY).chat(ask(CANARY), access="open", scope=CANARY)
            shown = "".join(f"{a.code}{a.model}" for a in answers)
        except LLMError as error:
            shown = "".join(traceback.format_exception(error))
        assert f"Bearer {KEY}".encode() in server.headers[0]
    assert kept
    everything = caplog.text + shown + b"".join(kept).decode()
    assert "POST" in caplog.text
    assert CANARY not in everything
    assert CANARY.encode().hex() not in everything
    assert KEY not in everything
    if how != "completed":
        left = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        assert CANARY.encode() not in left
    assert len(os.listdir(tmp_path / "batches")) == (1 if how in ("download", "http") else 0)


def test_ids_that_are_none_are_not_written_down(tmp_path: Path) -> None:
    with serving() as server:
        server._uploaded = lambda head, data: {"id": f"../{CANARY} "}  # type: ignore[method-assign]
        with pytest.raises(LLMError, match="malformed"):
            make(server, tmp_path).chat(ask("x"), access="open")
    assert CANARY not in notes(tmp_path)[0].read_text()


def test_making_one_loads_nothing() -> None:
    code = (
        "import sys; from hf_synth.llm.batch import BatchLLM; from hf_synth.llm.llm import LLM; BatchLLM(LLM('m'))\n"
        "assert not {'openai', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
