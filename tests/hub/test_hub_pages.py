"""The Hub's pages: what a person sees in a browser, and that no card and no name can do anything there."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from huggingface_hub import HfApi
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.chromium import CHROMIUM, tab
from support.hub_clients import call, commit_body

from hf_synth.hub import RunningHub, connected, preview, running_hub

ANN, OUT = "hf_the_token_of_ann", "hf_the_token_of_an_outsider"
PAGE = {"Accept": "text/html"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# all that pages are made of; whatever a card holds, nothing else may come of it
TAGS = {
    "html", "head", "meta", "title", "style", "body", "nav", "a", "h1", "h2", "h3", "h4", "h5", "h6", "p", "ul", "ol",
    "li", "small", "form", "input", "button", "label", "details", "summary", "table", "thead", "tbody", "tr", "th",
    "td", "article", "section", "pre", "code", "blockquote", "em", "strong", "hr", "br",
}  # fmt: skip
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "code": {"class"}, "meta": {"charset", "name", "content"}}
ATTRIBUTES |= {"form": {"action", "method"}, "input": {"name", "value", "type", "required", "aria-label"}}
ATTRIBUTES |= {"html": {"lang"}, "th": {"style"}, "td": {"style"}}


class Strict(HTMLParser):
    """Refuse a page that holds what no page of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES.get(tag, set()), (tag, name)
            if name == "href":
                self.links.append(value or "")
                scheme = (value or "").partition(":")[0].strip().lower()
                assert scheme not in ("javascript", "vbscript", "data", "file"), value
            if name == "style":
                assert value in ("text-align:left", "text-align:right", "text-align:center")

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: bytes) -> Strict:
    strict = Strict()
    strict.feed(page.decode())
    strict.close()
    return strict


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"whoever:{token}".encode()).decode()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), tokens={"ann": ANN, "out": OUT}) as running, connected(running):
        yield running


@pytest.fixture(scope="module")
def api(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=ANN)


def put_card(hub: RunningHub, repo: str, card: str, **more: bytes) -> int:
    body = commit_body({"README.md": card.encode("utf-8", "surrogatepass")} | more)
    return call("POST", f"{hub.url}/api/models/{repo}/commit/main", ANN, body)[0]


def test_a_card_is_rendered(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/card")
    card = "---\nlicense: mit\ntags: [synthetic]\n---\n# Notes\n\n{{ 7 * 7 }}\n\n| a | b |\n|---|--:|\n| 1 | *two* |\n\n[more](https://x.org)"
    assert put_card(hub, "demo/card", card, **{"we ird/ä&<b>.txt": b"x"}) == 200
    api.create_tag("demo/card", tag="v1")
    code, page, headers = call("GET", f"{hub.url}/demo/card", None, **PAGE)
    assert code == 200
    assert b"<h1>Notes</h1>" in page
    assert b"<em>two</em>" in page
    assert b"{{ 7 * 7 }}" in page
    assert b"<th>tags</th><td>synthetic</td>" in page
    strict = read(page)
    assert "https://x.org" in strict.links
    assert "v1" in strict.text
    file = next(link for link in strict.links if "we%20ird" in link)
    assert call("GET", hub.url + file)[:2] == (200, b"x")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert call("GET", f"{hub.url}/demo/card/tree/v1", None, **PAGE)[0] == 200
    assert call("GET", f"{hub.url}/demo/card/commit/{api.repo_info('demo/card').sha}", None, **PAGE)[0] == 200
    home = read(call("GET", f"{hub.url}/?search=CARD")[1])
    assert "demo/card" in home.text
    assert "demo/card" not in read(call("GET", f"{hub.url}/?search=nothing")[1]).text


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<javascript:alert(1)>",
    "![x](https://evil.example/pixel.png)",
    '[x](https://a" onclick="alert(1))',
    "</article></body><form action=https://evil.example>",
    '```"><script>\nx\n```',
    '---\ntitle: <script>alert(1)</script>\nextra_gated_prompt: <b>hi</b>\nextra_gated_fields:\n  "><i>": text\n---\n',
    "[x]: vbscript:alert(1)\n\n[x]",
    "&lt;script&gt; &#60;script&#62;",
    "<style>*{display:none}</style>",
    "<!-- --><svg/onload=x>",
    "{{ 7 * 7 }} {% include 'layout' %}",
    "| a |\n|:-:|\n| <b onclick=x> |",
    '[a](//evil.example "t" onclick=x)',
)


@settings(max_examples=40, deadline=None)
@given(card=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=20), max_size=5).map("\n\n".join))
@example(card="\n\n".join(HOSTILE))
@example(card=HOSTILE[10] + "\n" + HOSTILE[0])
def test_no_card_does_anything(hub: RunningHub, api: HfApi, card: str) -> None:
    api.create_repo("demo/hostile", exist_ok=True)
    api.update_repo_settings("demo/hostile", gated="manual")
    assert put_card(hub, "demo/hostile", card) == 200
    for who in (None, basic(OUT)):
        headers: dict[str, str] = PAGE | ({"Authorization": who} if who else {})
        code, page, _ = call("GET", f"{hub.url}/demo/hostile", None, **headers)
        assert code == 200
        read(page)


def test_a_browser_signs_in_and_asks_for_access(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/shut", private=True)
    code, page, headers = call("GET", f"{hub.url}/demo/shut", None, **PAGE)
    assert (code, headers["www-authenticate"][:5]) == (401, "Basic")
    assert call("GET", f"{hub.url}/demo/not-there", None, **PAGE)[:2] == (code, page)
    assert call("GET", f"{hub.url}/demo/shut", None, Authorization=basic(ANN), **PAGE)[0] == 200
    assert call("GET", f"{hub.url}/demo/shut", None, Authorization=basic(OUT), **PAGE)[0] == 404
    assert call("GET", f"{hub.url}/login", None, **PAGE)[0] == 401
    assert call("GET", f"{hub.url}/login", None, Authorization=basic("hf_wrong_one"), **PAGE)[0] == 401
    api.create_repo("demo/gate")
    card = "---\nextra_gated_prompt: Who are you?\nextra_gated_fields:\n  Ward: text\n  I agree: checkbox\n---\n# Hi"
    assert put_card(hub, "demo/gate", card) == 200
    api.update_repo_settings("demo/gate", gated="manual")
    out: dict[str, Any] = {"Authorization": basic(OUT), **PAGE}
    shown = read(call("GET", f"{hub.url}/demo/gate", None, **out)[1]).text
    assert "Who are you?" in shown
    assert "I agree" in shown
    ask, body = f"{hub.url}/demo/gate/ask-access", b"Ward=3&I+agree=true"
    host = hub.url.removeprefix("http://")
    for origin in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):  # another site's page cannot ask
        assert call("POST", ask, None, body, **out, **FORM, **origin)[0] == 401
    assert call("POST", ask, None, body, **out, **FORM, Origin=f"http://{host}")[0] == 200  # by way of the page
    (request,) = api.list_pending_access_requests("demo/gate")
    assert request.fields == {"Ward": "3", "I agree": "true"}
    assert "pending" in read(call("GET", f"{hub.url}/demo/gate", None, **out)[1]).text
    create = f"{hub.url}/api/repos/create"  # what a browser sends by itself changes nothing
    assert call("POST", create, None, b'{"name": "x"}', Authorization=basic(ANN), Origin=f"http://{host}")[0] == 401


def test_what_was_not_changed_is_not_sent_again(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/tags")
    api.upload_file(path_or_fileobj=b"x" * 100, path_in_repo="w.bin", repo_id="demo/tags")
    url = f"{hub.url}/demo/tags/resolve/main/w.bin"
    etag = call("GET", url)[2]["etag"]
    for sent in (etag, f'"other", W/{etag}'):
        code, body, headers = call("GET", url, **{"If-None-Match": sent})
        assert (code, body, headers["etag"]) == (304, b"", etag)
    assert call("GET", url, **{"If-None-Match": '"other"'})[0] == 200
    assert call("GET", url, Range="bytes=0-9", **{"If-Range": '"other"'})[0] == 200
    assert call("GET", url, Range="bytes=0-9", **{"If-Range": etag})[0] == 206
    assert call("GET", url, Range="bytes=0-1,5-6")[0] == 206


def test_lists_come_in_pages(hub: RunningHub, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_synth.hub import gating, reading, repositories

    for module, name in ((repositories, "LIST"), (repositories, "PAGE"), (reading, "EXPANDED_PAGE"), (gating, "PAGE")):
        monkeypatch.setattr(module, name, 2)
    for k in range(5):
        api.create_repo(f"pages/r{k}")
        api.upload_file(path_or_fileobj=b"x", path_in_repo=f"f{k}.txt", repo_id="pages/r0")
    assert [m.id for m in api.list_models(author="pages")] == [f"pages/r{k}" for k in range(5)]
    assert len(api.list_repo_commits("pages/r0")) == 6
    assert [f.last_commit is not None for f in api.list_repo_tree("pages/r0", expand=True)] == [True] * 5


# --- first rows -----------------------------------------------------------------------------------------------------
LABELS = ["none", "mild", "<b>severe"]


def push_rows(hub: RunningHub, name: str, count: int = 120, **more: Any) -> str:
    """Push labelled notes, and return the address of their rows."""
    features = Features(
        {"id": Value("string"), "note": Value("string"), "grade": ClassLabel(names=LABELS), "p": List(Value("float32")),
         "also": List(ClassLabel(names=LABELS))}
    )  # fmt: skip
    rows = [
        {"id": f"s{i}", "note": f"Note {i}: <script>alert(1)</script>\n{'a long story ' * 9}", "grade": i % 3,
         "p": [0.25, 0.123456], "also": [0, 1]}
        for i in range(count)
    ]  # fmt: skip
    Dataset.from_list(rows, features=features).push_to_hub(name, token=hub.token, **more)
    return f"{hub.url}/datasets/{name}/viewer/main"


def test_the_first_rows_are_shown_and_filtered_by_label(hub: RunningHub, api: HfApi) -> None:
    url = push_rows(hub, "demo/rows")
    code, page, _ = call("GET", url, None, **PAGE)
    assert code == 200
    strict = read(page)
    assert [f"Note {i}:" in strict.text for i in (0, 49, 50)] == [True, True, False]
    assert "50 rows; the file has 120." in strict.text.replace("\n", " ")
    assert "grade none" in strict.text
    assert "p 0.25, 0.1235" in strict.text
    assert "also none, mild" in strict.text
    assert b"<script" not in page
    chosen = [link for link in strict.links if "column=grade" in link]
    assert len(chosen) == 3, "one link for each label"
    code, page, _ = call("GET", url + chosen[2], None, **PAGE)
    strict = read(page)
    assert code == 200
    assert [f"Note {i}:" in strict.text for i in (0, 1, 2, 119)] == [False, False, True, True]
    assert "40 rows with grade <b>severe of the first" in strict.text.replace("\n", " ")
    mild = read(call("GET", f"{url}?column=also&value=mild", None, **PAGE)[1]).text
    assert "Note 0:" in mild, "a row with several labels counts for each"
    assert "Note" not in read(call("GET", f"{url}?column=grade&value=nothing", None, **PAGE)[1]).text
    assert call("GET", f"{url}?file=../../users.json", None, **PAGE)[0] == 404
    assert call("GET", f"{url}?file=README.md", None, **PAGE)[0] == 404
    repo = read(call("GET", f"{hub.url}/datasets/demo/rows", None, **PAGE)[1])
    rows = next(link for link in repo.links if "/viewer/" in link)
    assert call("GET", hub.url + rows, None, **PAGE)[0] == 200
    api.create_repo("demo/no-rows", repo_type="dataset")
    assert call("GET", f"{hub.url}/datasets/demo/no-rows/viewer/main", None, **PAGE)[0] == 404


def test_rows_are_shown_to_whom_the_files_are(hub: RunningHub, api: HfApi) -> None:
    private, gated = push_rows(hub, "demo/private-rows", 3, private=True), push_rows(hub, "demo/gated-rows", 3)
    api.update_repo_settings("demo/gated-rows", repo_type="dataset", gated="manual")
    for url, codes in ((private, (401, 404)), (gated, (401, 403))):
        for who, code in zip((None, basic(OUT)), codes, strict=True):
            headers = PAGE | ({"Authorization": who} if who else {})
            answer, page, _ = call("GET", url, None, **headers)
            assert answer == code
            assert b"Note 1" not in page
        assert b"Note 1" in call("GET", url, None, Authorization=basic(ANN), **PAGE)[1]
    assert "/viewer/" not in str(read(call("GET", f"{hub.url}/datasets/demo/gated-rows", None, **PAGE)[1]).links)


def _broken(kind: str, file: Path) -> None:
    if kind == "no parquet":
        file.write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    elif kind == "cut off":
        pq.write_table(pa.table({"a": ["x"] * 1_000}), file)
        file.write_bytes(file.read_bytes()[:-9])
    elif kind == "no columns":
        pq.write_table(pa.table({}), file)
    else:
        column = pa.array(["x" * 1_000_000]).dictionary_encode().take(pa.array([0] * 20_000))
        pq.write_table(pa.table({"note": column, "label": ["a"] * 20_000}), file)


@pytest.mark.parametrize("kind", ["no parquet", "cut off", "no columns", "unpacks to 20 GB"])
def test_a_broken_file_is_a_page(kind: str, hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    """The process of the server reads none of it."""
    file = tmp_path / "train.parquet"
    _broken(kind, file)
    api.create_repo("demo/broken", repo_type="dataset", exist_ok=True)
    api.upload_file(path_or_fileobj=file, path_in_repo="train.parquet", repo_id="demo/broken", repo_type="dataset")
    for query in ("", "?column=note&value=b"):
        code, page, _ = call("GET", f"{hub.url}/datasets/demo/broken/viewer/main{query}", None, **PAGE)
        assert code == 200
        assert len(page) < 500_000
        assert kind in ("no columns", "unpacks to 20 GB") or b"cannot be shown" in page


@pytest.mark.parametrize("kind", ["no parquet", "unpacks to 20 GB"])
def test_rows_are_read_within_limits(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    _broken(kind, file)
    question = json.dumps({"file": str(file), "column": "note", "value": "nothing"})  # no column of labels
    script = Path(preview.__file__)
    done = subprocess.run([sys.executable, "-P", script], input=question, capture_output=True, text=True, timeout=60)
    if kind == "no parquet":
        assert done.returncode != 0
    else:
        assert len(json.loads(done.stdout)["rows"]) == 50
        assert len(done.stdout) < 200_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_telephone_in_light_and_dark(scheme: str, hub: RunningHub, api: HfApi) -> None:
    push_rows(hub, "demo/on-a-telephone", 5)
    wide = "| " + " | ".join(f"column {i}" for i in range(12)) + " |\n|" + "---|" * 12
    card = f"---\nlong: {'x' * 300}\n---\n# Card\n\n{wide}\n\n```\n{'code ' * 60}\n```\n\n{'w' * 300}"
    api.upload_file(
        path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="demo/on-a-telephone", repo_type="dataset"
    )
    places = ("/", "/datasets/demo/on-a-telephone", "/datasets/demo/on-a-telephone/viewer/main", "/demo/nothing")

    async def look() -> None:
        async with tab() as page:
            for place in places:
                page.events.clear()
                if place == "/demo/nothing":  # without a token the browser asks for one and shows no page
                    await page.ask("Network.setExtraHTTPHeaders", headers={"Authorization": basic(hub.token)})
                await page.open(hub.url + place)
                await page.look(scheme, 390, 900)
                assert await page.value("location.href") == hub.url + place
                assert await page.value("document.documentElement.scrollWidth") <= 390, place
                paper = await page.value("getComputedStyle(document.body).backgroundColor")
                ink = await page.value("getComputedStyle(document.body).color")
                light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
                assert (light[0] > 600 > 300 > light[1]) == (scheme == "light"), place
                assert abs(light[0] - light[1]) > 400, place
                assert not [e for e in page.of("Log.entryAdded") if "Content Security" in str(e)], place

    asyncio.run(look())
