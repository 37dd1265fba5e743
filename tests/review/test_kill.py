"""A review that is killed at any moment loses no decision that was answered for."""

from __future__ import annotations

import http.client
import random
import signal
import threading
import time
import urllib.error
from pathlib import Path

import pytest
from support.review_rows import Browser, review_task, served, write_folder

from hf_synth.review.log import read_log

pytestmark = pytest.mark.slow
TASK = review_task()


def test_kill_9_in_a_loop_loses_nothing(tmp_path: Path) -> None:
    """Five servers, each killed at a random moment while answers are sent as fast as they come back."""
    folder, rng = tmp_path / "syn", random.Random(0)
    write_folder(folder, 400)
    log = folder / ".hf_synth" / "review" / "labels" / "reviewer%201.jsonl"
    confirmed = 0  # events whose answer came back
    for _ in range(5):
        with served(folder, *(["--n", "400", "--by"] if not confirmed else [])) as (server, url):
            browser = Browser(url)
            assert browser.count in (confirmed, confirmed + 1), "all that was answered for, and at most one more"
            confirmed = browser.count

            def kill(seconds: float, server: object = server) -> None:
                time.sleep(seconds)
                server.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]

            threading.Thread(target=kill, args=(rng.uniform(0.02, 1.0),)).start()
            try:
                while browser.note:
                    if rng.random() < 0.2 and browser.count:
                        browser.html = browser.post({"count": str(browser.count), "queue": "open", "answer": "undo"})
                    else:
                        browser.answer(rng.choice(["label:mild", "label:none", "reject", "unsure"]), comment="x" * 500)
                    assert browser.count == confirmed + 1
                    confirmed = browser.count
                    assert len(read_log(log)) - 1 == confirmed
            except (urllib.error.URLError, http.client.HTTPException, OSError):
                pass
            server.wait(30)
        assert len(read_log(log)) - 1 in (confirmed, confirmed + 1)
    assert confirmed > 25


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "syn", 30)
    with served(tmp_path / "syn") as (server, url):
        Browser(url).answer("reject")
        says = "reviewer 1: a review with this name is open in another process"
        with pytest.raises(AssertionError, match=says), served(tmp_path / "syn"):
            pass
        with served(tmp_path / "syn", "--reviewer", "Ben") as (_, other):
            Browser(other).answer("unsure")
        server.send_signal(signal.SIGKILL)
        server.wait(30)
    with served(tmp_path / "syn") as (_, url):  # the lock of a dead process is none
        assert Browser(url).count == 1
