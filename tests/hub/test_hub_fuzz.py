"""Requests that no client would send, at a Hub in a process of its own: none is a server error, and none hangs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hub_clients import call, check_disk, commit_body, hub_verb, served_by_verb

from hf_synth.hub.app import TABLE

SECONDS = 20  # after which an answer counts as a hang; the machine may be busy
SHA = "0" * 64


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub") / "root"


@pytest.fixture(scope="module")
def fuzzed(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Return host:port and the token of each user, of a Hub with a public, a private and a gated repository."""
    tokens = {name: hub_verb("create-user", name, "--root", root, "--org", "demo")["token"] for name in ("ann", "ben")}
    tokens["out"] = hub_verb("create-user", "out", "--root", root, "--token-role", "read")["token"]
    tokens["far"] = hub_verb("create-user", "far", "--root", root)["token"]
    with served_by_verb(root) as (_, url):
        for kind, name in (("model", "fuzz"), ("dataset", "fuzz"), ("model", "gate")):
            body = json.dumps({"name": name, "organization": "demo", "type": kind}).encode()
            assert call("POST", f"{url}/api/repos/create", tokens["ann"], body)[0] == 200
            place = f"{url}/api/{kind}s/demo/{name}"
            card = b"---\ntags: [a]\n---\n# Card\n"
            files = {"README.md": card, "d/a.txt": b"0123456789", "d/e/b.txt": b""}
            assert call("POST", f"{place}/commit/main", tokens["ann"], commit_body(files))[0] == 200
        assert call("PUT", f"{place}/settings", tokens["ann"], b'{"gated": "manual"}')[0] == 200
        yield url.removeprefix("http://"), tokens


# --- what is sent -----------------------------------------------------------------------------------------------------

KEYS = (
    *("files", "path", "paths", "objects", "oid", "size", "name", "organization", "operation", "key", "value", "tag"),
    *("gated", "visibility", "private", "content", "encoding", "startingPoint", "parentCommit", "summary", "type"),
    *("user", "requestId", "status", "rejectionReason", "fromRepo", "toRepo", "message", "expand", "description"),
)
WORDS = (
    *("file", "header", "lfsFile", "deletedFile", "deletedFolder", "model", "dataset", "upload", "main", "base64"),
    *("accepted", "pending", "demo/fuzz", "demo/moved", "d/a.txt", "../x", "a/../b", "\x00", "\ud800", SHA, "YQ=="),
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(WORDS)
JSON = st.recursive(
    LEAF,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(KEYS), part, max_size=5),
    max_leaves=10,
)
LINES = st.lists(st.fixed_dictionaries({"key": st.sampled_from(WORDS), "value": JSON}), min_size=1, max_size=4)
BODY = (
    st.binary(max_size=80)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(KEYS), LEAF, max_size=6).map(lambda value: json.dumps(value).encode())
    | LINES.map(lambda lines: b"\n".join(json.dumps(line).encode() for line in lines))
    | st.sampled_from(
        [b"[" * 20_000, b'{"a":' * 5_000, b"\n" * 50_000, b'{"size": ' + b"9" * 5_000 + b"}", b"paths=%ff"]
    )
)
FILLED = {
    "type": ("models", "datasets", "spaces", "%6dodels", ""),
    "org": ("demo", "DEMO", "nobody", "..", "%2e%2e", "a%00b"),
    "name": ("fuzz", "gate", "private", "x.git", "fuzz%2f..", "x" * 200),
    "revision": ("main", "refs%2Fheads%2Fmain", "refs%2Fpr%2F1", "a" * 40, "..", "%ff", "x/y", "%00", "main%2F"),
    "path:path": ("README.md", "d/a.txt", "d", "", "../../users.json", "%2e%2e/%2e%2e/users.json", "d//a.txt", "%ff"),
    "sha": (SHA, "x", "%2e%2e", "A" * 64),
    "size": ("0", "-1", "9" * 30, "1e3", "²"),
    "status": ("pending", "accepted", "all", "%00"),
}


@st.composite
def paths(draw: Any) -> str:
    """Draw a path: one of the table's with parts filled in, most often as a client would, and sometimes more behind."""
    places = [path for _, path, _ in TABLE] + ["/lfs/{type}/{org}/{name}/{sha}/{size}", "/{x}", "//", "/api//models"]
    path = str(draw(st.sampled_from(places)))
    for part, values in FILLED.items():
        if "{" + part + "}" in path:
            usual = draw(st.integers(0, 3)) > 0
            odd = st.sampled_from(values) | st.text(max_size=8).map(lambda t: quote(t, safe="", errors="surrogatepass"))
            path = path.replace("{" + part + "}", values[0] if usual else draw(odd))
    more = draw(st.sampled_from(["", "", "", "/", "/..", "/%2e%2e/", "//", ";x", "?", "#"]))
    return path + str(more)


HEADERS = {
    "Content-Type": ("application/json", "application/x-www-form-urlencoded", "multipart/form-data", "\xe9", ""),
    "Range": ("bytes=1-", "bytes=-", "bytes=9-1", "x=1-2", "bytes=a-b", "bytes=" + "0-1," * 500 + "2-3", "\xe9"),
    "If-Range": ("x", '"x"', "Thu, 99 Foo 2026"),
    "If-None-Match": ("*", '"', ",,,", "\xe9"),
    "Accept": ("text/html", "*/*"),
    "Accept-Encoding": ("gzip", "identity;q=x"),
    "Content-Encoding": ("gzip", "br", "x"),
    "Origin": ("null", "http://[", "http://[::1", "https://x:99999", "\xe9"),
    "Host": ("x", "[", "a:b", "[::1", "\xe9", "x:99999999", "", "localhost", "127.0.0.1:9", "localhost:99999999"),
    "X-Forwarded-Proto": ("https", "\xe9", "gopher"),
    "X-Forwarded-For": ("\xe9", "1.2.3.4, [", "x"),
    "Cookie": ("\xe9=1",),
    "Expect": ("100-continue", "x"),
    "Authorization": ("Bearer", "Bearer ", "Bearer \xe9", "Basic", "Basic !", "Basic /w==", "Digest x", "Bearer hf_x"),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO")
QUERIES = (
    *("", "limit=x", "limit=0", "limit=-1", "limit=" + "9" * 14, "cursor=-1", "cursor=" + "9" * 30, "cursor=999999"),
    *("cursor=" + "a" * 40, "key=\xe9", "search=%ff", "recursive=1&expand=true", "filter=a&filter=b", "sort=createdAt"),
    *("until=99999999999&key=" + SHA, "create_pr=1", "blobs=1", "author=demo", "%00=%00", "&&&=", "until=x"),
)


def send(
    host: str, method: str, target: str, body: bytes, headers: dict[str, str], *, chunked: bool
) -> tuple[int, dict[str, str]]:
    """Send bytes as they are, and give status and headers."""
    wire = http.client.HTTPConnection(host, timeout=SECONDS)
    try:
        wire.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            wire.putheader(name, value.encode("latin-1"))
        if chunked:
            wire.putheader("Transfer-Encoding", "chunked")
            wire.endheaders()
            if body:
                wire.send(b"%x\r\n" % len(body) + body + b"\r\n")
            wire.send(b"0\r\n\r\n")
        else:
            wire.putheader("Content-Length", str(len(body)))
            wire.endheaders(body)
        answer = wire.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    except (ConnectionError, http.client.BadStatusLine):
        return 400, {}  # the server took it for no HTTP at all, or had answered before all was sent
    finally:
        wire.close()


def check_request(fuzzed: tuple[str, dict[str, str]], data: Any) -> None:
    host, tokens = fuzzed
    draw = data.draw
    method, path, query = draw(st.sampled_from(METHODS)), draw(paths()), draw(st.sampled_from(QUERIES))
    of_table = [m for m, p, _ in TABLE if p == path]
    method = of_table[0] if of_table and draw(st.booleans()) else method
    headers = {}
    for name, values in HEADERS.items():
        if draw(st.integers(0, 5)) == 0:
            headers[name] = draw(st.sampled_from(values))
    who = draw(st.sampled_from([None, *tokens]))
    if who is not None:
        headers["Authorization"] = f"Bearer {tokens[who]}"
    path = "".join(c if c < "\x80" else quote(c) for c in path)  # a client cannot send other characters
    target = path + (f"?{quote(query, safe='=&%')}" if query else "")
    status, answered = send(host, method, target, draw(BODY), headers, chunked=draw(st.booleans()))
    assert 200 <= status < 500, (method, target)
    assert not set("".join(answered.values())) & set("\r\n\x00")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_request_is_a_server_error(fuzzed: tuple[str, dict[str, str]], data: st.DataObject) -> None:
    check_request(fuzzed, data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_none_of_many_requests_is_a_server_error(fuzzed: tuple[str, dict[str, str]], data: st.DataObject) -> None:
    check_request(fuzzed, data)


def test_after_all_of_it_the_hub_is_whole(fuzzed: tuple[str, dict[str, str]], root: Path) -> None:
    host, tokens = fuzzed
    assert call("GET", f"http://{host}/api/whoami-v2", tokens["ann"])[0] == 200
    check_disk(root)
    said = root.with_name("root.log").read_text()
    assert " amid an answer" not in said
    assert "Traceback" not in said
    assert not [token for token in tokens.values() if token in said]


@pytest.mark.parametrize("who", [None, "out", "far"])
def test_no_route_tells_a_private_repository_from_one_that_is_not_there(
    fuzzed: tuple[str, dict[str, str]], who: str | None
) -> None:
    host, tokens = fuzzed
    assert call("GET", f"http://{host}/api/models/demo/secret", tokens["ann"])[0] == 404
    body = json.dumps({"name": "secret", "organization": "demo", "private": True}).encode()
    assert call("POST", f"http://{host}/api/repos/create", tokens["ann"], body)[0] == 200
    large = {"oid": SHA, "size": 3}
    bodies = {
        "commit/": commit_body({"x.txt": b"x"}), "objects/batch": json.dumps({"objects": [large]}).encode(),
        "preupload/": b'{"files": []}', "paths-info/": b'{"paths": ["x"]}', "tag/": b'{"tag": "v1"}',
        "handle": b'{"user": "ann", "status": "accepted"}', "grant": b'{"user": "out"}', "verify": b'{"size": 3}',
    }  # fmt: skip
    asked, token = 0, tokens[who] if who else None
    for method, path, _ in [*TABLE, ("PUT", "/lfs/{type}/{org}/{name}/{sha}/3?until=99999999999&key=x", None)]:
        for kind in ("models", "datasets") if "{name}" in path else ():
            parts = {"type": kind, "revision": "main", "path:path": "README.md", "sha": SHA, "status": "pending"}
            sent = next((b for part, b in bodies.items() if part in path), b"{}")
            answers = []
            for name in ("secret", "absent"):
                place = path
                for part, value in (parts | {"org": "demo", "name": name}).items():
                    place = place.replace("{" + part + "}", value)
                more = {"Accept": "text/html", "Content-Type": "application/json"}
                code, said, headers = call(
                    method,
                    f"http://{host}{place}",
                    tokens[who] if who else None,
                    sent if method != "GET" else None,
                    **more,
                )
                headers.pop("date", None)
                answers.append((code, said.replace(name.encode(), b"NAME"), headers))
            assert answers[0][0] in (401, 403, 404), (method, path)
            assert answers[0] == answers[1], (method, path)
            asked += 1
    for field in ("repos/delete", "repos/move"):
        told = set()
        for name in ("secret", "absent"):
            moved = {"fromRepo": f"demo/{name}", "toRepo": "out/x", "name": name, "organization": "demo"}
            method = "DELETE" if "delete" in field else "POST"
            url = f"http://{host}/api/{field}"
            told.add(call(method, url, token, json.dumps(moved).encode())[:2])
        assert len(told) == 1
    assert asked > 40
    assert call("DELETE", f"http://{host}/api/repos/delete", tokens["ann"], body)[0] == 200
