"""Folders of synthetic and corrected notes for tests of the review, and plain HTTP to a review that is served."""

from __future__ import annotations

import contextlib
import html
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvicorn
from datasets import Dataset
from support.tiny import toy_rows, toy_task

from hf_synth.gold.adoption import read_dataset
from hf_synth.review.app import Review, make_app
from hf_synth.task.folders import write_stage
from hf_synth.task.task import Task

MEANINGS = ("no sign at all", "a sore throat or a softer diet", "a tube or an admission")
_DIRECT = urllib.request.ProxyHandler({})


def review_task(access: str = "open") -> Task:
    return toy_task(label_meanings=MEANINGS, access=access)


def synthetic(n: int, task: Task | None = None, *, corrected: bool = False) -> tuple[Dataset, dict[str, str]]:
    """Return generated or corrected rows, of which every fifth has a wrong label, and the right labels by id."""
    task = task or review_task()
    rows, truth = [], {}
    for i, row in enumerate(toy_rows(n, 3)):
        meant = (row["label"] + 1) % 3 if i % 5 == 4 else row["label"]
        truth[f"s{i}"] = task.labels[row["label"]]
        facts = {"id": f"s{i}", "label": meant, "llm_label": meant, "label_status": "kept", "reason": "as_generated"}
        rows.append({**row, **facts, "source": "synthetic", "access": task.access})
        if corrected:
            sure = 0.6 if i % 5 == 4 else 0.9
            probs = [sure if k == meant else (1 - sure) / 2 for k in range(3)]
            rows[-1] |= {"label_probs": probs, "label_confidence": sure, "weight": 1.0, "reason": "posterior_agrees"}
    features = task.corrected_features() if corrected else task.synthetic_features()
    wanted = [{name: row.get(name) for name in features} for row in rows]
    return Dataset.from_list(wanted, features=features), truth


def write_folder(folder: Path, n: int, task: Task | None = None, *, corrected: bool = False) -> dict[str, str]:
    """Write such a folder as a stage does, and return the right labels by id."""
    rows, truth = synthetic(n, task, corrected=corrected)
    policy = {"policy": {"method": "posterior", "figures": {}}} if corrected else {}
    write_stage(task or review_task(), rows, folder, stage="correct" if corrected else "generate", **policy)
    return truth


class Browser:
    """A browser without a screen: it keeps the cookie, and sends forms as the page's script does."""

    def __init__(self, url: str) -> None:
        self.origin = url.partition("/?")[0]
        jar = urllib.request.HTTPCookieProcessor()
        self._open = urllib.request.build_opener(_DIRECT, jar).open
        self.html = self.get(url)

    def get(self, url: str) -> str:
        with self._open(url, timeout=30) as answer:
            return str(answer.read().decode())

    def form(self) -> dict[str, str]:
        """Return the hidden fields of the note's form."""
        part = self.html.split('id="answer"')[-1]
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', part)[:3])

    def answer(self, value: str, **more: str) -> str:
        """Send an answer to the note that is shown, and keep the next page."""
        self.html = self.post(self.form() | {"answer": value} | more)
        return self.html

    def post(self, fields: dict[str, str], **headers: str) -> str:
        body = urllib.parse.urlencode(fields).encode()
        sent = {"Origin": self.origin, "X-Fragment": "1"} | {k.replace("_", "-"): v for k, v in headers.items()}
        request = urllib.request.Request(f"{self.origin}/decide", body, sent, method="POST")
        with self._open(request, timeout=30) as answer:
            return str(answer.read().decode())

    @property
    def note(self) -> str:
        found = re.search(r'<div class="note" dir="auto">(.*?)</div>', self.html, re.DOTALL)
        return found[1] if found else ""

    @property
    def count(self) -> int:
        found = re.search(r'name="count" value="(\d+)"', self.html)
        return int(found[1]) if found else 0


@contextlib.contextmanager
def served(
    folder: Path, *options: str, here: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a review by the verb in a process of its own; yield it and its address. It never outlives the block."""
    command = [sys.executable, "-m", "hf_synth.cli", "review", str(folder), "-q", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=here, env=environment, **pipes) as server:  # type: ignore[call-overload]
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert "http://" in line, server.communicate(timeout=30)[1]
            yield server, line.split()[-1]
        finally:
            server.kill()


def answer_notes(here: Path, environment: Mapping[str, str], folder: str, *options: str) -> int:
    """Answer all notes of a review as a person with a browser does, end it by Ctrl-C, and return how many they were.

    The person finds the label that the LLM was asked for right in each note, but rejects the first one.
    """
    rows = read_dataset(here / folder)
    names = rows.features["llm_label"].names
    labels = {row["text"]: names[row["llm_label"]] for row in rows.select_columns(["text", "llm_label"]) if row["text"]}
    with served(Path(folder), *options, here=here, environment=environment) as (server, url):
        browser = Browser(url)
        while note := browser.note:
            browser.answer(f"label:{labels[html.unescape(note)]}" if browser.count else "reject")
        count = browser.count or int(re.findall(r'name="count" value="(\d+)"', browser.get(browser.origin))[0])
        server.send_signal(signal.SIGINT)
        said, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors
    assert f"{count:,} of {count:,} notes reviewed" in said
    return count


@contextlib.contextmanager
def running(review: Review) -> Iterator[str]:
    """Serve a review from a thread of this process; yield the address with its key."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(review), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/?key={review.key}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
