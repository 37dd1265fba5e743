"""The LLM against a real loopback endpoint: order, faults, money, the journal, and where notes may not go."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import pickle
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, content, serving
from support.questions import ask, questions

from hf_synth.errors import EndpointError, JournalError, LLMError
from hf_synth.llm import calls
from hf_synth.llm.endpoints import (
    Attestation,
    Line,
    LineError,
    check_endpoint,
    guarded_transport,
    is_local,
    may_see_settings,
    parse_origin,
)
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Answer
from hf_synth.llm.replies import retry_after

CANARY = "CANARY-4f1c"
ATTESTED = Attestation(
    "Data office", zero_retention=True, no_training=True, no_human_review=True, date="2026-03-01",
    endpoint="https://8.8.8.8/v1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF", 0.01)


@pytest.fixture
def echo() -> Iterator[LLMServer]:
    with serving() as server:
        yield server


def make(server: LLMServer, folder: Path, **more: Any) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "journal.sqlite", **more)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# --- answers --------------------------------------------------------------------------------------------------------
def test_answers_come_in_order_whatever_the_delays(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], number: int) -> Said:
        return Said(content(request).upper(), delay=0.08 if number % 7 == 0 else 0.03 + 0.01 * (number % 3))

    with serving(answer) as server:
        answers = make(server, tmp_path, concurrency=8).chat(questions(60), temperature=0.5)
    assert [a.text for a in answers] == [f"QUESTION {i}" for i in range(60)]
    assert {(a.status, a.code, a.model, a.tokens, a.cached) for a in answers} == {("ok", "stop", "m-served", 30, False)}
    assert server.peak == 8
    assert server.connections <= 8
    assert {r["temperature"] for r in server.requests} == {0.5}


def test_one_slow_answer_holds_nobody_up(tmp_path: Path) -> None:
    done_before = []

    def answer(request: dict[str, Any], number: int) -> Said:
        return Said(delay=3.0 if number == 0 else 0.01)

    with serving(answer) as server:
        stream = make(server, tmp_path, concurrency=4).stream(questions(80))
        next(stream)
        done_before.append(len(server.requests))
        assert len(list(stream)) == 79
    assert done_before == [80]


def test_a_stream_reads_ahead_but_not_without_end(echo: LLMServer, tmp_path: Path) -> None:
    endless = (m for i in itertools.count() for m in questions(i + 1)[-1:])
    stream = make(echo, tmp_path, concurrency=4).stream(endless, ahead=300)
    first = [a.text for a in itertools.islice(stream, 20)]
    stream.close()
    assert first == [f"echo question {i}" for i in range(20)]
    assert len(echo.requests) < 700


def test_works_inside_a_running_loop(echo: LLMServer, tmp_path: Path) -> None:
    async def notebook() -> list[Answer]:
        return make(echo, tmp_path).chat(questions(3))

    assert len(asyncio.run(notebook())) == 3


def test_nothing_asked_needs_nothing(tmp_path: Path) -> None:
    llm = LLM("m", base_url=f"http://127.0.0.1:{closed_port()}/v1", journal=tmp_path / "j.sqlite")
    assert llm.chat([]) == []


def test_refusals_and_truncations_are_kept(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], number: int) -> Said:
        return Said("half a no", finish="length" if "0" in content(request) else "content_filter")

    with serving(answer) as server:
        llm = make(server, tmp_path)
        assert [a.status for a in llm.chat(questions(2), max_tokens=9)] == ["truncated", "refusal"]
        assert [(a.status, a.cached) for a in llm.chat(questions(2), max_tokens=9)] == [
            ("truncated", True),
            ("refusal", True),
        ]
        assert len(server.requests) == 2


def test_strange_text_is_made_storable(tmp_path: Path) -> None:
    with serving(lambda *_: Said("a \ud800 b \x00 c é")) as server:
        llm = make(server, tmp_path)
        first, again = llm.chat(questions(1)), llm.chat(questions(1))
    assert first[0].text == again[0].text == "a ? b \x00 c é"


def test_threads_may_share_an_llm(echo: LLMServer, tmp_path: Path) -> None:
    llm = make(echo, tmp_path, concurrency=4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: llm.chat(ask(*(f"{k}-{i}" for i in range(20)))), range(4)))
    assert [[a.text for a in answers] for answers in found] == [[f"echo {k}-{i}" for i in range(20)] for k in range(4)]


def test_a_question_that_is_no_text_is_an_error_of_its_own(echo: LLMServer, tmp_path: Path) -> None:
    bad, good = make(echo, tmp_path).chat(ask("lone \udc80 surrogate", "fine"))
    assert (bad.status, bad.code, good.status) == ("error", "not_text", "ok")


def test_a_schema_is_sent_and_given_up_where_it_is_not_understood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def picky(request: dict[str, Any], _: int) -> Said:
        return Said(status=400) if "response_format" in request else Said("fine")

    caplog.set_level(logging.INFO, logger="hf_synth")
    with serving(picky) as server:
        llm = make(server, tmp_path, concurrency=2)
        assert {a.status for a in llm.chat(questions(20), schema={"type": "object"})} == {"ok"}
        refused = sum("response_format" in r for r in server.requests)
        assert 4 <= refused <= 6  # two questions, twice each, before it is believed, and those beside them
    assert len([r for r in caplog.records if "schema" in r.message]) == 1


def test_a_refusal_of_the_moment_does_not_end_the_schema(tmp_path: Path) -> None:
    with serving(lambda _, number: Said(status=400) if number == 0 else Said("fine")) as server:
        llm = make(server, tmp_path, concurrency=1)
        assert {a.status for a in llm.chat(questions(4), schema={"type": "object"})} == {"ok"}
        assert ["response_format" in r for r in server.requests] == [True] * 5


# --- the journal ----------------------------------------------------------------------------------------------------
def test_a_second_run_makes_no_call(echo: LLMServer, tmp_path: Path) -> None:
    first = make(echo, tmp_path).chat(questions(40), temperature=0.1)
    dead = LLM("m", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "journal.sqlite", concurrency=1, max_retries=0)
    again = dead.chat(questions(40), temperature=0.1)
    assert [dataclasses.replace(a, cached=False) for a in again] == first
    assert all(a.cached for a in again)
    assert len(echo.requests) == 40


def test_what_decides_the_answer_decides_the_key(echo: LLMServer, tmp_path: Path) -> None:
    llm = make(echo, tmp_path)

    def key(llm: LLM = llm, text: str = "q", **more: Any) -> str:
        return llm.chat(ask(text), **more)[0].journal_key

    keys = [
        key(), key(text="r"), key(temperature=0.5), key(schema={"type": "object"}), key(scope="x"), key(samples=[1]),
        key(dataclasses.replace(llm, model="other")),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key(samples=[0]) == key() == key(dataclasses.replace(llm, concurrency=3)) == keys[0]


def test_the_same_question_twice_is_two_questions(echo: LLMServer, tmp_path: Path) -> None:
    llm = make(echo, tmp_path)
    twice = llm.chat(ask("same", "same"))
    assert twice[0].journal_key != twice[1].journal_key
    assert len({r["seed"] for r in echo.requests}) == 2
    same = llm.chat(ask("again", "again", "again"), samples=[7, 7, 8])
    assert same[0].journal_key == same[1].journal_key != same[2].journal_key
    assert echo.asked().count("again") == 2


def test_errors_are_asked_again(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], number: int) -> Said:
        return Said(status=500) if content(request) == "question 1" and number < 6 else Said("fine")

    with serving(answer) as server:
        llm = make(server, tmp_path, max_retries=1, concurrency=1)
        assert [a.status for a in llm.chat(questions(3))] == ["ok", "error", "ok"]
        assert llm.chat(questions(3))[1].code == "http_500"
        assert [a.cached for a in llm.chat(questions(3))] == [True, False, True]
        assert len(Journal(tmp_path / "journal.sqlite")) == 3


def test_a_journal_that_fails_ends_the_run(echo: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Journal, entries: Any) -> None:
        raise JournalError("the disk is full")

    monkeypatch.setattr(Journal, "put_many", full)
    with pytest.raises(JournalError, match="full"):
        make(echo, tmp_path, concurrency=4).chat(questions(50))
    assert len(echo.requests) < 50


CHILD = """
import sys
from hf_synth.llm.llm import LLM
llm = LLM("m", base_url=sys.argv[1], journal=sys.argv[2], concurrency=4)
for i, answer in enumerate(llm.stream([[{"role": "user", "content": f"question {k}"}] for k in range(60)])):
    print(i, flush=True)
"""


def test_kill_minus_9_loses_nothing_that_was_handed_on(tmp_path: Path) -> None:
    with serving(lambda r, n: Said(delay=0.02)) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "journal.sqlite")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        handed_on = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
        handed_on += [int(line) for line in child.stdout.read().split()]
        child.wait()
        child.stdout.close()
        before = set(server.asked())
        server.requests.clear()
        answers = make(server, tmp_path, concurrency=4).chat(questions(60))
        again = set(server.asked())
    assert [a.status for a in answers] == ["ok"] * 60
    assert not again & {f"question {i}" for i in handed_on}
    assert len(again & before) <= 8  # in flight, or on their way to the disk


# --- faults ---------------------------------------------------------------------------------------------------------
def test_a_rate_limit_is_waited_out(tmp_path: Path) -> None:
    def answer(_: Any, number: int) -> Said:
        return Said(status=429, headers={"Retry-After": "0.4"}) if number < 2 else Said("fine")

    with serving(answer) as server:
        start = time.monotonic()
        answers = make(server, tmp_path, max_retries=1, concurrency=2).chat(questions(6))
        took = time.monotonic() - start
    assert {a.status for a in answers} == {"ok"}
    assert 0.4 <= took < 30
    assert len(server.requests) == 8


def test_every_form_of_retry_after_is_read() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after({"retry-after": "2"}) == 2
    assert retry_after({"retry-after": "0.5", "retry-after-ms": "250"}) == 0.25
    assert 25 < (retry_after({"retry-after": soon}) or 0) <= 30
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after-ms": "nan"}):
        assert retry_after(nothing) in (None, 0)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Said(status=500), "http_500"),
        (Said(hang=True), "timeout"),
        (Said(drop=True), "connection"),
        (Said(body=b"<html>gateway</html>"), "malformed"),
        (Said(body=b'{"choices": []}'), "malformed"),
        (Said(body=b"[" * 100_000), "malformed"),
        (Said(text="x" * 1_000_001), "too_large"),
        (Said(body=b" " * (17 << 20)), "too_large"),
        (Said(status=400), "http_400"),
    ],
)
def test_a_question_that_fails_for_good_fails_alone(said: Said, code: str, tmp_path: Path) -> None:
    def answer(request: dict[str, Any], _: int) -> Said:
        return said if content(request) == "question 3" else Said("fine")

    with serving(answer) as server:
        answers = make(server, tmp_path, max_retries=2, timeout=0.4, concurrency=4).chat(questions(8))
    assert [a.status for a in answers] == ["ok"] * 3 + ["error"] + ["ok"] * 4
    assert answers[3].code == code
    assert server.asked().count("question 3") == (1 if code in ("too_large", "http_400") else 3)


def test_passing_faults_are_retried(tmp_path: Path) -> None:
    faults = [Said(status=500), Said(drop=True), Said(body=b"nope"), Said(status=503), Said(status=429)]

    def answer(_: Any, number: int) -> Said:
        return faults[number % 7] if number % 7 < 5 and number < 60 else Said("fine")

    with serving(answer) as server:
        answers = make(server, tmp_path, max_retries=20, concurrency=5).chat(questions(30))
    assert {a.status for a in answers} == {"ok"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(status=401), "refuses the key"),
        (Said(status=403), "403"),
        (Said(status=404), "model 'm'"),
        (Said(status=429, body=b'{"error": {"message": "m", "code": "insufficient_quota"}}'), "quota"),
    ],
)
def test_what_no_question_can_mend_ends_the_run(said: Said, words: str, tmp_path: Path) -> None:
    with serving(lambda *_: said) as server:
        with pytest.raises(LLMError, match=words) as caught:
            make(server, tmp_path, concurrency=4).chat(questions(50))
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        assert len(server.requests) <= 8


def test_an_unreachable_endpoint_is_named(tmp_path: Path) -> None:
    port = closed_port()
    llm = LLM("m", base_url=f"http://localhost:{port}/v1", journal=tmp_path / "j.sqlite")
    with pytest.raises(LLMError, match=f"cannot reach localhost:{port}"):
        llm.chat(questions(100))


def test_an_endpoint_that_only_hangs_up_is_named(tmp_path: Path) -> None:
    with serving(lambda *_: Said(drop=True)) as server, pytest.raises(LLMError, match="cannot reach"):
        make(server, tmp_path, max_retries=1).chat(questions(3))


def test_a_dead_endpoint_is_not_asked_for_hours(tmp_path: Path) -> None:
    with serving(lambda r, n: Said(status=502) if n >= 10 else Said("fine")) as server:
        with pytest.raises(LLMError, match=r"in a row.*http_502.*journal"):
            make(server, tmp_path, max_retries=1, concurrency=4).chat(questions(500))
        assert len(server.requests) < 100
        assert len(Journal(tmp_path / "journal.sqlite")) == 10


def test_bad_arguments_are_one_sentence(tmp_path: Path) -> None:
    for wrong in ({"base_url": "127.0.0.1:8000"}, {"base_url": "http://me:secret@h/v1"}, {"concurrency": 0}):
        with pytest.raises(LLMError) as caught:
            LLM("m", **wrong)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
    with pytest.raises(LLMError, match="stream"):
        LLM("m", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "j.sqlite").chat(questions(1), stream=True)
    with pytest.raises(LLMError, match="a number for each"):
        LLM("m", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "j.sqlite").chat(questions(2), samples=[1])


# --- money ----------------------------------------------------------------------------------------------------------
def test_a_budget_is_never_passed(echo: LLMServer, tmp_path: Path) -> None:
    llm = make(echo, tmp_path, concurrency=3, budget_usd=5.5, price=(0.0, 50_000.0))  # 20 tokens: one dollar
    answers = llm.chat(questions(12), max_tokens=20)
    assert [a.status for a in answers].count("ok") == 5
    assert {a.code for a in answers if a.status == "error"} == {"budget"}
    assert llm.spent_usd == pytest.approx(5.0)
    assert [a.cost for a in answers if a.status == "ok"] == [1.0] * 5
    assert len(echo.requests) == 5
    assert llm.with_journal(tmp_path / "other.sqlite").chat(ask("more"), max_tokens=20)[0].code == "budget"


def test_what_is_not_counted_is_reckoned(tmp_path: Path) -> None:
    with serving(lambda *_: Said(usage=False)) as server:
        llm = make(server, tmp_path, budget_usd=3.0, price=(0.0, 50_000.0))
        answers = llm.chat(questions(6), max_tokens=20)
    assert [a.status for a in answers].count("ok") == 3


def test_a_budget_needs_a_price() -> None:
    with pytest.raises(LLMError, match="price"):
        LLM("unheard-of", budget_usd=1.0)
    assert LLM("gpt-4o-mini", budget_usd=1.0).spent_usd == 0


# --- where notes may go ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("10.1.2.3", True), ("172.31.0.1", True), ("192.168.5.5", True),
        ("::1", True), ("fd12::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", True),
        ("8.8.8.8", False), ("172.32.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("::ffff:8.8.8.8", False), ("2001:4860:4860::8888", False), ("64:ff9b::808:808", False), ("0.0.0.1", False),
    ],
)  # fmt: skip
def test_local_means_local(address: str, local: bool) -> None:
    assert is_local(address) is local


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let name lookups give these addresses, one list after the other; gives the names that were looked up."""
    asked: list[str] = []
    left = iter(answers)

    def look_up(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in next(left)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize("access", ["restricted", "credentialed", None, "whatever"])
def test_notes_do_not_leave_the_own_network(
    access: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("https://8.8.8.8/v1", "http://[::ffff:8.8.8.8]:80/v1", "https://[2001:4860:4860::8888]/v1"):
        with pytest.raises(EndpointError, match="attestation="):
            LLM("m", base_url=url, api_key="k", journal=tmp_path / "j.sqlite").chat(questions(1), access=access)
    names(monkeypatch, ["93.184.216.34"], ["127.0.0.1", "93.184.216.34"])
    for _ in range(2):
        with pytest.raises(EndpointError, match=r"api\.example\.com:443"):
            LLM("m", base_url="https://api.example.com/v1", api_key="k", journal=tmp_path / "j.sqlite").chat(
                questions(1), access=access
            )


def test_a_name_without_address_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    llm = LLM("m", base_url="http://gpu-box:8000/v1", journal=tmp_path / "j.sqlite")
    with pytest.raises(EndpointError, match="gpu-box:8000 is not known to be on a private network, since there is no"):
        llm.chat(questions(1))
    attested = dataclasses.replace(ATTESTED, endpoint="http://gpu-box:8000")
    with pytest.raises(LLMError, match="cannot reach gpu-box:8000: there is no host"):
        check_endpoint(llm.origin, "restricted", attested)


@pytest.mark.parametrize("access", ["restricted", "credentialed", None])
def test_access_is_checked_before_a_name_is_looked_up(
    access: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LLM` without an address is OpenAI's; where there is no network, the message is still about the access."""
    asked = names(monkeypatch)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(EndpointError, match=r"api\.openai\.com:443 is not on this machine"):
        LLM("simulator", journal=tmp_path / "j.sqlite").chat(questions(1), access=access)
    assert asked == []


def test_a_name_is_looked_up_once_and_that_address_is_used(
    echo: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = names(monkeypatch, ["127.0.0.1"], ["93.184.216.34"])
    llm = LLM("m", base_url=f"http://gpu-box:{echo.port}/v1", journal=tmp_path / "j.sqlite", concurrency=3)
    assert {a.status for a in llm.chat(questions(9), access="credentialed")} == {"ok"}
    assert asked == ["gpu-box"]
    assert b"host: gpu-box" in echo.headers[0].lower()


def test_localhost_is_found_on_either_protocol(echo: LLMServer, tmp_path: Path) -> None:
    llm = LLM("m", base_url=f"http://localhost:{echo.port}/v1", journal=tmp_path / "j.sqlite")
    assert llm.chat(questions(1))[0].status == "ok"


def test_an_attested_endpoint_is_allowed_and_recorded(echo: LLMServer, tmp_path: Path) -> None:
    origin = parse_origin("https://8.8.8.8/v1")
    assert check_endpoint(origin, "credentialed", ATTESTED) == ("8.8.8.8",)
    with pytest.raises(EndpointError, match="unencrypted"):
        plain = dataclasses.replace(ATTESTED, endpoint="http://8.8.8.8/v1")
        check_endpoint(parse_origin("http://8.8.8.8/v1"), "restricted", plain)
    llm = make(echo, tmp_path, attestation=dataclasses.replace(ATTESTED, endpoint=echo.url))
    llm.chat(questions(1))
    facts = Journal(tmp_path / "journal.sqlite").recorded()
    (said,) = (value for name, value in facts.items() if name.startswith("attestation"))
    assert json.loads(said)["verified_by"] == "Data office"
    assert json.loads(said)["endpoint"] == echo.url


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"no_training": False}, "requires zero retention"),
        ({"no_training": "yes"}, "requires zero retention"),
        ({"verified_by": " "}, "the name of the person"),
        ({"date": "soon"}, "the date of the verification"),
        ({"date": "2026-02-30"}, "the date of the verification"),
        ({"date": None}, "the date of the verification"),
        ({"date": "1700-01-01"}, "1700-01-01 is in the future or before"),
        ({"date": str(date.today() + timedelta(1))}, "is in the future or before"),
        ({"endpoint": ""}, "needs the endpoint that was verified"),
        ({"endpoint": "contoso"}, "needs the endpoint that was verified"),
        ({"endpoint": None}, "needs the endpoint that was verified"),
    ],
)
def test_an_attestation_that_cannot_be_true_is_refused(wrong: dict[str, Any], problem: str) -> None:
    dataclasses.replace(ATTESTED, date=str(date.today()))  # today is allowed
    with pytest.raises(EndpointError, match=problem):
        dataclasses.replace(ATTESTED, **wrong)


@pytest.mark.parametrize(
    "url", ["https://8.8.4.4/v1", "https://8.8.8.8:8443/v1", "https://[::ffff:8.8.8.8]/v1", "https://api.openai.com/v1"]
)
def test_an_attestation_is_for_one_endpoint(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address may come from OPENAI_BASE_URL, of which the person who verified another one knew nothing."""
    names(monkeypatch)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    llm = LLM("m", api_key="k", attestation=ATTESTED, journal=tmp_path / "j.sqlite")
    with pytest.raises(EndpointError, match=r"the attestation is for 8\.8\.8\.8:443, and restricted notes may not"):
        llm.chat(questions(1), access="restricted")
    assert Journal(tmp_path / "j.sqlite").recorded() == {}
    assert check_endpoint(parse_origin("https://8.8.8.8/openai/deployments/x"), "restricted", ATTESTED) == ("8.8.8.8",)


def test_open_notes_may_go_anywhere() -> None:
    assert check_endpoint(parse_origin("https://api.example.com/v1"), "open") is None


@pytest.mark.parametrize("access", ["open", "credentialed"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(access: str, status: int, echo: LLMServer, tmp_path: Path) -> None:
    there = {"Location": f"{echo.url}/chat/completions"}
    with serving(lambda *_: Said(status=status, headers=there)) as server, pytest.raises(LLMError, match="redirect"):
        make(server, tmp_path).chat(questions(2), access=access)
    assert echo.connections == 0


@pytest.mark.parametrize("access", ["open", "credentialed"])
def test_proxies_of_the_environment_are_not_asked(
    access: str, echo: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert make(echo, tmp_path).chat(questions(2), access=access)[0].status == "ok"
    assert proxy.connections == 0


def test_the_transport_itself_refuses_other_hosts(echo: LLMServer) -> None:
    import httpx2

    async def send(url: str, addresses: tuple[str, ...] | None) -> int:
        origin = parse_origin(f"http://127.0.0.1:{echo.port}/v1")
        transport = guarded_transport(Line(origin, addresses, connections=1, connect_timeout=1))
        try:
            return (await transport.handle_async_request(httpx2.Request("POST", url, content=b"note"))).status_code
        finally:
            await transport.aclose()

    with serving() as other:
        for url in (other.url, f"http://localhost:{echo.port}/v1", f"https://127.0.0.1:{echo.port}/v1"):
            for addresses in (("127.0.0.1",), None):
                with pytest.raises(EndpointError, match="nothing was sent"):
                    asyncio.run(send(url, addresses))
        assert (other.connections, echo.connections) == (0, 0)


# --- keys and texts stay where they belong --------------------------------------------------------------------------
def test_the_key_is_sent_but_not_shown(echo: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = make(echo, tmp_path, api_key="sk-secret")
    llm.chat(questions(1))
    assert b"Bearer sk-secret" in echo.headers[0]
    assert "secret" not in repr(llm)
    assert pickle.loads(pickle.dumps(llm)).model == "m"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", echo.url)
    make(echo, tmp_path).chat(ask("another"))
    assert b"Bearer sk-environment" in echo.headers[1]
    monkeypatch.delenv("OPENAI_API_KEY")
    make(echo, tmp_path).chat(ask("a third"))
    assert b"Bearer none" in echo.headers[2]


@pytest.mark.parametrize("beside", ["", "https://api.openai.com/v1", "http://127.0.0.1:1/v1", "no address"])
@pytest.mark.parametrize("own_key", [None, "sk-own"])
def test_settings_for_openai_go_to_no_other_endpoint(
    own_key: str | None, beside: str, echo: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "OPENAI_API_KEY": "sk-of-openai", "OPENAI_ORG_ID": "org-secret", "OPENAI_PROJECT_ID": "project-secret",
        "OPENAI_ADMIN_KEY": "sk-admin", "OPENAI_CUSTOM_HEADERS": "X-Gateway: gateway-secret",
    }  # fmt: skip
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OPENAI_BASE_URL", beside)
    make(echo, tmp_path, api_key=own_key).chat(questions(1))
    (sent,) = echo.headers
    assert (f"Bearer {own_key}" if own_key else "Bearer none").encode() in sent
    assert not [name for name in ("sk-of-openai", "secret", "sk-admin") if name.encode() in sent]
    monkeypatch.setenv("OPENAI_BASE_URL", echo.url)  # the control: there they go
    make(echo, tmp_path, api_key=own_key).chat(ask("another"))
    assert all(word in echo.headers[1] for word in (b"org-secret", b"project-secret", b"gateway-secret"))


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://evilopenai.com/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://notes.openai.azure.com/v1", False),
        ("https://gateway.example/other/path", True),
        ("https://gateway.example:8443/v1", False),
        ("http://gateway.example/v1", False),
    ],
)
def test_settings_for_openai_are_meant_for(url: str, meant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    assert may_see_settings(parse_origin(url)) is meant


@pytest.mark.parametrize("status", [200, 307, 400, 401, 404, 422, 429, 500])
def test_no_text_in_logs_or_errors(status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "openai._base_client", "httpx2", "asyncio", "hf_synth"):
        caplog.set_level(logging.DEBUG, logger=name)
    shown = ""
    with serving(lambda request, _: Said(content(request), status=status)) as server:
        try:
            answers = make(server, tmp_path, max_retries=1).chat(ask(CANARY))
            shown = "".join(f"{a.code}{a.model}" for a in answers)
        except LLMError as error:
            shown = "".join(traceback.format_exception(error))
        assert CANARY in server.asked()[0]
    assert CANARY not in caplog.text + shown
    if status != 200:
        assert CANARY.encode() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())


def test_the_journal_holds_no_prompt(tmp_path: Path) -> None:
    with serving(lambda *_: Said("harmless")) as server:
        make(server, tmp_path).chat(ask(CANARY), scope=CANARY)
    assert CANARY.encode() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}


def test_making_an_llm_loads_nothing() -> None:
    code = "import sys; from hf_synth.llm.llm import LLM; LLM('m'); assert not {'openai', 'aiohttp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_spent_budget_never_waits_for_crumbs(echo: LLMServer, tmp_path: Path) -> None:
    """What is set aside and given back adds up to zero only almost; the last question must not wait for the rest."""
    llm = make(echo, tmp_path, price=(1.0, 3.0), budget_usd=0.004, concurrency=8)
    last: list[Answer] = []
    for k in range(60):
        last = llm.chat(ask(*("x" * (37 * i + k + 1) for i in range(7))), max_tokens=101)
        if last[-1].status == "error":
            break
    assert last[-1].code == "budget"
    assert llm.spent_usd <= 0.004


def test_retry_after_0_is_no_invitation_to_a_storm(tmp_path: Path) -> None:
    began: list[float] = []

    def busy(request: dict[str, Any], _: int) -> Said:
        began.append(time.monotonic())
        early = began[-1] - began[0] < 0.3
        return Said("busy", status=429, headers={"Retry-After": "0"}) if early else Said("ok")

    with serving(busy) as server:
        said = make(server, tmp_path, concurrency=16).chat(ask(*map(str, range(40))))
        assert {a.status for a in said} == {"ok"}
        assert len(server.requests) < 40 + 16 * 12


@pytest.mark.parametrize("host", ["[0:0:0:0:0:0:0:1]", "LOCALHOST", "[::1]"])
def test_one_address_in_another_spelling(host: str, tmp_path: Path) -> None:
    from hf_synth.llm.endpoints import Line

    origin = parse_origin(f"http://{host}:9/v1")
    line = Line(origin, None, connections=1, connect_timeout=1)

    async def send() -> None:
        try:
            await line.send("GET", f"{origin.url}/models", {}, None, 1.0)
        finally:
            await line.close()

    with pytest.raises(LineError):  # it gets as far as to connect
        asyncio.run(send())


def test_sampling_is_plain(echo: LLMServer, tmp_path: Path) -> None:
    with pytest.raises(LLMError, match="plain numbers"):
        make(echo, tmp_path).chat(ask("a"), temperature=object())
