"""Who may open the page and send an answer, and what an answer does over HTTP."""

from __future__ import annotations

import http.client
import itertools
import re
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from support.review_rows import Browser, review_task, running, write_folder

from hf_synth.errors import OutputError
from hf_synth.gold.adoption import read_dataset
from hf_synth.review.app import Review, is_loopback_host, serve
from hf_synth.review.session import Session
from hf_synth.review.sheets import draw_sheet

TASK = review_task("restricted")
NUMBERS = itertools.count()
HOSTILE = "</div><script>window.touched=1</script><img src=x onerror=window.touched=1>\x00\u202e{{ 7*7 }}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "syn"
    write_folder(folder, 30, TASK)
    return folder


@pytest.fixture
def review(folder: Path) -> Iterator[Review]:
    sheet = draw_sheet(TASK, read_dataset(folder), 12)
    session = Session(TASK, folder, sheet, f"Anna {next(NUMBERS)}")
    yield Review(session, "hf-synth correct ...")
    session.close()


@pytest.fixture
def url(review: Review) -> Iterator[str]:
    with running(review) as url:
        yield url


def ask(
    url: str, method: str = "GET", path: str = "/", body: str = "", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Send one request with exactly these headers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body or None, names)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}


def cookie(url: str) -> str:
    status, _, headers = ask(url, path=f"/?{urlsplit(url).query}")
    assert (status, headers["location"]) == (303, "/")
    assert {"httponly", "samesite=strict", "path=/"} == {
        p.strip().lower() for p in headers["set-cookie"].split(";")[1:]
    }
    return headers["set-cookie"].partition(";")[0]


def test_an_answer_shows_the_next_note(url: str, review: Review) -> None:
    browser = Browser(url)
    first = browser.note
    assert "Note 1 of 12" in browser.html
    browser.answer("label:mild", comment="a \u00e4 <b>")
    assert browser.note != first
    assert "<html" not in browser.html, "the script gets the part that changes"
    assert "Note 2 of 12" in browser.html
    assert "Your last answer: mild." in browser.html
    browser.post({"count": "1", "queue": "open", "answer": "undo"})
    assert "a \u00e4 &lt;b&gt;</textarea>" in browser.get(browser.origin)
    for _ in range(12):
        browser.html = browser.get(browser.origin)
        browser.answer("label:none")
    assert "All notes are answered" in browser.html
    assert "hf-synth correct ..." in browser.html
    assert review.session.table.is_file(), "the table is written when no note is left"
    assert "No disagreement is open" in browser.get(f"{browser.origin}/?queue=differ")


def test_a_form_without_the_script_works_and_is_not_sent_again(url: str) -> None:
    browser = Browser(url)
    html = browser.post(browser.form() | {"answer": "reject"}, X_Fragment="0")
    assert html.startswith("<!doctype html>")
    assert "Note 2 of 12" in html


def test_nothing_of_a_note_is_markup(folder: Path, tmp_path: Path) -> None:
    rows = read_dataset(folder).map(lambda row: {"text": HOSTILE + row["text"]})
    sheet = draw_sheet(TASK, rows, 12)
    session = Session(TASK, tmp_path / "syn", sheet, "Anna")
    with running(Review(session)) as url:
        browser = Browser(url)
        assert "<script>" not in browser.html
        assert "&lt;script&gt;window.touched" in browser.note
        assert "{{ 7*7 }}" in browser.note
        assert "\x00" not in browser.html
        assert "\u202e" not in browser.html
    session.close()


def test_every_page_is_kept_nowhere_and_loads_nothing_from_elsewhere(url: str) -> None:
    key = cookie(url)
    for path in ("/", "/page.css", "/page.js", "/icon.svg", "/?queue=unsure"):
        status, text, headers = ask(url, path=path, Cookie=key)
        assert status == 200
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}
    _, text, _ = ask(url, Cookie=key)
    assert not re.search(r"<script(?! src=\"/page.js\" defer>)|<style| style=| on\w+=", text)


def test_a_note_is_shown_to_nobody_without_the_key(url: str) -> None:
    key, text = cookie(url), Browser(url).note
    name, _, value = key.partition("=")
    for headers in ({}, {"Cookie": f"{name}="}, {"Cookie": f"{name}={value[:-1]}"}, {"Cookie": f"other={value}"}):
        status, said, _ = ask(url, **headers)
        assert status == 403
        assert text not in said
        assert "opens by the address that `hf-synth review` printed" in said
    status, said, headers = ask(url, path="/?key=wrong")
    assert (status, "set-cookie" in headers) == (403, False)
    assert ask(url, path="/?key=%ff")[0] == 403
    assert ask(url, path="/page.js")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "localhost@evil.example", ""]
)
def test_a_name_of_another_site_leads_nowhere(url: str, host: str) -> None:
    key = cookie(url)
    for method, path in (("GET", "/"), ("POST", "/decide"), ("GET", "/page.js")):
        status, said, _ = ask(url, method, path, Cookie=key, Host=host)
        assert status in (400, 421)
        assert "Note 1" not in said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9", "[::1]:8000", "127.1.2.3"])
def test_loopback_by_any_of_its_names(host: str) -> None:
    assert is_loopback_host([host])
    assert not is_loopback_host([host, host])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "OWN", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "OWN", "Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(url: str, review: Review, headers: dict[str, str]) -> None:
    browser, own = Browser(url), f"http://{urlsplit(url).netloc}"
    sent = {name: own if value == "OWN" else value for name, value in headers.items()}
    body = urlencode(browser.form() | {"answer": "reject"})
    assert ask(url, "POST", "/decide", body, Cookie=cookie(url), **sent)[0] == 403
    assert review.session.own.count == 0
    assert ask(url, "POST", "/decide", body, Cookie=cookie(url), Origin=own)[0] == 303
    assert review.session.own.count == 1


def test_a_cookie_alone_is_no_way_in_without_the_key(url: str, review: Review) -> None:
    own = f"http://{urlsplit(url).netloc}"
    body = urlencode(Browser(url).form() | {"answer": "reject"})
    assert ask(url, "POST", "/decide", body, Origin=own)[0] == 403
    assert review.session.own.count == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [("x" * 70_000, 413), ("a=1&" * 30, 413), ("no form", 413), ("", 422), ("answer=label%3Anone&key=x&count=0", 422)],
)
def test_a_request_that_no_page_sends(url: str, review: Review, body: str, status: int) -> None:
    own = f"http://{urlsplit(url).netloc}"
    found, said, _ = ask(url, "POST", "/decide", body, Cookie=cookie(url), Origin=own)
    assert (found, review.session.own.count) == (status, 0)
    assert "Nothing was saved" in said
    assert ask(url, "GET", "/decide", Cookie=cookie(url))[0] == 405
    assert ask(url, "GET", "/../labels.csv", Cookie=cookie(url))[0] == 404


def test_a_disk_that_is_full_is_said_and_the_note_stays(
    url: str, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(url)

    def full(event: object) -> None:
        raise OutputError("Anna.jsonl: the disk is full; free some space and run again")

    monkeypatch.setattr(review.session._log, "append", full)
    with pytest.raises(urllib.error.HTTPError) as error:
        browser.answer("reject")
    assert error.value.code == 507
    assert (
        error.value.read().decode() == "Anna.jsonl: the disk is full; free some space and run again. Nothing was saved."
    )
    monkeypatch.undo()
    assert "Note 1 of 12" in browser.get(browser.origin)


def test_a_fault_of_ours_shows_no_text(
    url: str, review: Review, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser(url)

    def broken(form: object) -> str:
        raise RuntimeError(browser.note)

    monkeypatch.setattr(review.session, "decide", broken)
    with pytest.raises(urllib.error.HTTPError) as error:
        browser.answer("reject")
    said = error.value.read().decode()
    assert (error.value.code, said.startswith("Something went wrong")) == (500, True)
    assert browser.note not in said + caplog.text
    assert "RuntimeError in POST /decide" in caplog.text


def test_a_port_that_is_taken_is_one_sentence(url: str, review: Review) -> None:
    with pytest.raises(OutputError, match="cannot be listened on .*; choose another --port"):
        serve(review, port=int(urlsplit(url).port or 0))
    with pytest.raises(OutputError, match="cannot be listened on"):
        serve(review, port=99_999)
