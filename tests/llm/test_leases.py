"""Leases: whoever asks, and however many ask at once, every question is paid for once; nobody waits for the dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, content, serving
from support.questions import questions

from hf_synth.llm import calls, leases
from hf_synth.llm.journal import Entry, Journal
from hf_synth.llm.leases import claim, is_gone, process_name, release, renew
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Answer

KEYS = [f"{i:064x}" for i in range(700)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF", 0.01)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def mine(part: str) -> str:
    return f"{process_name()}#{part}"


# --- the table ------------------------------------------------------------------------------------------------------
def test_one_of_two_gets_a_key(journal: Journal) -> None:
    assert claim(journal, KEYS, mine("a"), 60) == (set(KEYS), {})
    assert claim(journal, KEYS[:3], mine("b"), 60) == (set(), {})
    assert claim(journal, KEYS[:3], mine("a"), 60)[0] == set(KEYS[:3])  # its own
    release(journal, mine("a"), KEYS[:1])
    release(journal, mine("b"), KEYS[1:2])  # not its own: nothing happens
    assert claim(journal, KEYS[:3], mine("b"), 60)[0] == {KEYS[0]}
    release(journal, mine("a"))
    assert claim(journal, KEYS[:3], mine("c"), 60)[0] == set(KEYS[1:3])


def test_an_answer_ends_its_lease(journal: Journal) -> None:
    claim(journal, KEYS[:2], mine("a"), 60)
    journal.put_many([Entry(KEYS[0], "said")])
    assert claim(journal, KEYS[:2], mine("b"), 60) == (set(), {KEYS[0]: Entry(KEYS[0], "said")})
    with journal.reading() as database:
        assert database.execute("SELECT key FROM leases").fetchall() == [(KEYS[1],)]


def test_a_lease_runs_out_unless_renewed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(leases.time, "time", lambda: now)
    claim(journal, KEYS[:1], "somewhere/1/2#a", 60)
    now += 59
    assert claim(journal, KEYS[:1], mine("b"), 60)[0] == set()
    renew(journal, "somewhere/1/2#a", 60)
    now += 59
    assert claim(journal, KEYS[:1], mine("b"), 60)[0] == set()
    now += 2
    assert claim(journal, KEYS[:1], "elsewhere/1/2#b", 60)[0] == {KEYS[0]}
    now -= 86_400  # a clock set back: no lease of another machine may bind for a day
    assert claim(journal, KEYS[:1], mine("c"), 60)[0] == {KEYS[0]}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("jump", [90, 86_400, -90, -86_400])
def test_a_lease_of_a_live_process_survives_a_jump_of_the_clock(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    claim(journal, KEYS[:2], mine("a"), 60)
    now = time.time() + jump
    monkeypatch.setattr(leases.time, "time", lambda: now)
    assert claim(journal, KEYS[:2], mine("b"), 60) == (set(), {})
    release(journal, mine("b"))  # sweeps what has run out
    with journal.reading() as database:
        assert database.execute("SELECT count(*) FROM leases").fetchone() == (2,)
    renew(journal, mine("a"), 60)
    assert claim(journal, KEYS[:2], mine("b"), 60) == (set(), {})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_live_process_that_renews_nothing_is_relieved(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(leases, "monotonic", lambda: now)
    claim(journal, KEYS[:2], mine("a"), 60)
    assert claim(journal, KEYS[:2], mine("b"), 60)[0] == set()
    now += 59
    assert claim(journal, KEYS[:2], mine("b"), 60)[0] == set()
    renew(journal, mine("a"), 60)
    now += 2  # more than its length since it was first seen, and less since it was renewed
    assert claim(journal, KEYS[:2], mine("b"), 60)[0] == set()
    now += 61
    assert claim(journal, KEYS[:2], mine("b"), 60)[0] == set(KEYS[:2])
    assert not leases._WATCHED.keys() & {(journal.path, key) for key in KEYS[:2]}


def test_what_has_run_out_is_swept(journal: Journal) -> None:
    claim(journal, KEYS[:5], "somewhere/1/2#a", -1)
    release(journal, mine("b"))
    with journal.reading() as database:
        assert database.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_a_commit_of_leases_waits_for_no_disk_and_answers_do(journal: Journal) -> None:
    levels = []
    with journal.transaction(durable=False) as database:
        levels.append(database.execute("PRAGMA synchronous").fetchone()[0])
    with journal.transaction() as database:
        levels.append(database.execute("PRAGMA synchronous").fetchone()[0])
    with pytest.raises(ZeroDivisionError), journal.transaction(durable=False):
        _ = 1 / 0
    with journal.reading() as database:
        levels.append(database.execute("PRAGMA synchronous").fetchone()[0])
    assert levels == [1, 2, 2]  # NORMAL, FULL, FULL


# --- who is alive ---------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_dead_are_known() -> None:
    code = (
        "import sys; from hf_synth.llm.leases import process_name; print(process_name(), flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert not is_gone(process_name())
    assert not is_gone(name)
    system, pid, started = name.split("/")
    assert is_gone(f"{system}/{pid}/{int(started) - 1}")  # another process had that id before
    assert not is_gone(f"elsewhere/{pid}/{int(started) - 1}")
    child.kill()
    deadline = time.monotonic() + 10
    while not is_gone(name) and time.monotonic() < deadline:  # a zombie: nobody has waited for it yet
        time.sleep(0.01)
    assert is_gone(name)
    child.communicate()
    assert is_gone(name)
    for unknown in ("", "x", "-/1/2", f"{system}/1/-", f"{system}/x/2"):
        assert not is_gone(unknown)


# --- in chat --------------------------------------------------------------------------------------------------------
CHILD = """
import json, sys
from hf_synth.llm.llm import LLM
n, backwards = int(sys.argv[3]), sys.argv[4] == "backwards"
asked = [[{"role": "user", "content": f"question {i}"}] for i in range(n)]
llm = LLM("m", base_url=sys.argv[1], journal=sys.argv[2], concurrency=8)
answers = llm.chat(asked[::-1] if backwards else asked)
print(json.dumps([[a.text for a in answers], sum(a.cached for a in answers)]))
"""


def child(server: LLMServer, folder: Path, n: int, order: str = "forwards") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, server.url, str(folder / "journal.sqlite"), str(n), order]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def slow(request: dict[str, Any], number: int) -> Said:
    return Said(f"echo {content(request)}", delay=0.05)


@pytest.mark.parametrize("order", [pytest.param("forwards", marks=pytest.mark.slow), "backwards"])
def test_processes_pay_once_between_them(order: str, tmp_path: Path) -> None:
    with serving(slow) as server:
        children = [child(server, tmp_path, 150), child(server, tmp_path, 150, order), child(server, tmp_path, 150)]
        said = [json.loads(c.communicate(timeout=60)[0]) for c in children]
        assert Counter(server.asked()) == Counter(f"question {i}" for i in range(150))
    expected = [f"echo question {i}" for i in range(150)]
    assert [texts for texts, _ in said] == [expected, expected[:: -1 if order == "backwards" else 1], expected]
    assert sum(cached for _, cached in said) == 300
    with Journal(tmp_path / "journal.sqlite") as journal, journal.reading() as database:
        assert database.execute("SELECT count(*) FROM leases").fetchone() == (0,)


@pytest.mark.parametrize("after", [40, *(pytest.param(n, marks=pytest.mark.slow) for n in (9, 77))])
def test_who_is_killed_is_relieved_at_once(after: int, tmp_path: Path) -> None:
    with serving(slow) as server:
        first, second = child(server, tmp_path, 120), child(server, tmp_path, 120)
        while len(server.requests) < after:
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        began = time.monotonic()
        said = json.loads(second.communicate(timeout=60)[0])
        taken = time.monotonic() - began
        first.communicate()
        asked = Counter(server.asked())
    assert said[0] == [f"echo question {i}" for i in range(120)]
    assert set(asked) == {f"question {i}" for i in range(120)}
    assert max(asked.values()) <= 2
    assert asked.total() - 120 <= 16  # again only what was in flight, or answered and on its way to the disk
    assert taken < 45  # and not the minute that a lease lasts


def test_a_process_that_stops_is_relieved_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_SECONDS", 1.0)
    with serving(lambda *_: Said(hang=True)) as hanging:
        stuck = child(hanging, tmp_path, 5)
        while len(hanging.requests) < 5:
            time.sleep(0.01)
        stuck.send_signal(signal.SIGSTOP)  # alive, but gives no sign any more
        with Journal(tmp_path / "journal.sqlite") as journal, journal.transaction() as database:
            began = time.time()
            database.execute("UPDATE leases SET until = ?", (began + 1.0,))
        with serving() as server:
            answers = LLM("m", base_url=server.url, journal=tmp_path / "journal.sqlite").chat(questions(5))
            assert [a.text for a in answers] == [f"echo question {i}" for i in range(5)]
            assert 1.0 <= time.time() - began < 30
        stuck.kill()
        stuck.communicate()


def test_a_long_answer_keeps_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_SECONDS", 0.4)
    with serving(lambda *_: Said("at last", delay=1.5)) as server:
        assert at_once(server, tmp_path, questions(2), 2) == [["at last"] * 2] * 2
        assert len(server.requests) == 2


def at_once(server: LLMServer, folder: Path, asked: Any, count: int, **more: Any) -> list[list[str]]:
    """Let several calls, each with its own LLM, ask at once in threads of this process."""
    done: dict[int, list[Answer]] = {}

    def run(i: int) -> None:
        llm = LLM("m", base_url=server.url, journal=folder / "journal.sqlite", **more)
        done[i] = llm.chat(asked)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [[a.text for a in done[i]] for i in range(count)]


def test_calls_of_one_process_pay_once(tmp_path: Path) -> None:
    with serving(slow) as server:
        assert (
            at_once(server, tmp_path, questions(60), 4, concurrency=4)
            == [[f"echo question {i}" for i in range(60)]] * 4
        )
        assert len(server.requests) == 60


def test_one_llm_shared_by_threads_pays_once(tmp_path: Path) -> None:
    with serving(slow) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "journal.sqlite", concurrency=4)
        done: list[list[Answer]] = []
        threads = [threading.Thread(target=lambda: done.append(llm.chat(questions(40)))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [len(answers) for answers in done] == [40, 40, 40]
        assert len(server.requests) == 40
        assert sum(not a.cached for answers in done for a in answers) == 40


def test_two_streams_in_one_thread_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with serving() as server:
        llms = [LLM("m", base_url=server.url, journal=tmp_path / "journal.sqlite", concurrency=2) for _ in range(2)]
        began = time.monotonic()
        pairs = list(zip(*(llm.stream(questions(300), ahead=4) for llm in llms), strict=True))
        assert [(a.text, b.text) for a, b in pairs] == [(f"echo question {i}",) * 2 for i in range(300)]
        assert len(server.requests) == 300
        assert time.monotonic() - began < 30


def test_a_stream_that_is_left_gives_its_questions_back(tmp_path: Path) -> None:
    with serving(lambda request, _: Said(delay=0.0 if content(request) == "question 0" else 0.3)) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "journal.sqlite", concurrency=4)
        stream = llm.stream(questions(50))
        next(stream)
        stream.close()
        with llm.open_journal().reading() as database:
            assert database.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_what_fails_for_one_is_asked_by_the_other(tmp_path: Path) -> None:
    with serving(lambda *_: Said(status=400, delay=0.5)) as broken, serving() as sound:
        failed: list[Answer] = []
        llm = LLM("m", base_url=broken.url, journal=tmp_path / "journal.sqlite", max_retries=0)
        thread = threading.Thread(target=lambda: failed.extend(llm.chat(questions(4))))
        thread.start()
        while len(broken.requests) < 4:
            time.sleep(0.005)
        answers = LLM("m", base_url=sound.url, journal=tmp_path / "journal.sqlite").chat(questions(4))
        thread.join()
    assert {a.code for a in failed} == {"http_400"}
    assert [(a.text, a.cached) for a in answers] == [(f"echo question {i}", False) for i in range(4)]


def test_what_failed_is_free_while_the_rest_goes_on(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], number: int) -> Said:
        return Said("late", delay=4.0) if content(request) == "question 0" else Said(status=400)

    with serving(answer) as broken, serving() as sound:
        first = LLM("m", base_url=broken.url, journal=tmp_path / "journal.sqlite", max_retries=0)
        done: list[Answer] = []
        thread = threading.Thread(target=lambda: done.extend(first.chat(questions(4))))
        thread.start()
        while len(broken.requests) < 4:
            time.sleep(0.005)
        answers = LLM("m", base_url=sound.url, journal=tmp_path / "journal.sqlite").chat(questions(4)[1:])
        assert thread.is_alive()
        thread.join()
    assert [a.text for a in answers] == [f"echo question {i}" for i in range(1, 4)]
    assert [a.status for a in done] == ["ok", "error", "error", "error"]


def test_leases_come_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    claimed = leases.claim

    def counted(journal: Journal, keys: list[str], owner: str, seconds: float) -> Any:
        groups.append(len(keys))
        return claimed(journal, keys, owner, seconds)

    monkeypatch.setattr(leases, "claim", counted)
    with serving(slow) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "journal.sqlite", concurrency=32)
        assert len(llm.chat(questions(600))) == 600
        assert len(llm.chat(questions(600))) == 600  # all there: nothing is claimed
    assert sum(groups) == 600
    assert len(groups) < 200


def test_a_process_without_proc_still_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_synth.llm.leases._system", lambda: None)
    assert process_name().startswith(f"-/{os.getpid()}/")
    assert not is_gone(process_name())
    with serving(slow) as server:
        assert len(at_once(server, tmp_path, questions(10), 2)) == 2
        assert len(server.requests) == 10
