"""What a stranger may do to the Hub: cards that take time, names that point here, large files."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import types
from pathlib import Path

import pytest
from huggingface_hub import HfApi, RepoCard
from starlette.testclient import TestClient
from support.hub_clients import call, commit_body

from hf_synth.hub import RunningHub, _names_of, create_app, pushing, reading
from hf_synth.hub.request import is_own_host


@pytest.fixture(scope="module")
def api(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


# --- cards ----------------------------------------------------------------------------------------------------------
HOSTILE_HEADS = {
    "a number in base 60": "x: 1" + ":00" * 200 + ".0",
    "a long number in base 60": "x: 1" + ":00" * 20_000,
    "digits": "x: " + "9" * 60_000,
    "a list": "x: [" + "a," * 30_000 + "a]",
    "keys": "".join(f"k{i}: v\n" for i in range(6_000)),
    "lines": "x: a\n" + "  a\n" * 15_000,
    "comments": "#\n" * 30_000,
    "questions": "? a\n" * 15_000,
    "no float": "x: .",
    "no date": "x: 2026-13-45",
    "a set": "x: !!set {a, b}",
    "an object": "x: !!python/object/apply:os.system [ls]",
    "a key that is a list": "[a]: 1",
    "not a number": "x: .nan",
    "a surrogate": 'x: "\\ud800"',
    "a control character": "x: \x07",
    "an anchor": "a: &a [x]\nb: [*a, *a]",
    "too long": "x: " + "a " * 60_000,
}


@pytest.mark.parametrize("what", HOSTILE_HEADS)
def test_no_card_makes_a_list_fail_or_slow(what: str, hub: RunningHub, api: HfApi) -> None:
    """All lists read the cards of all repositories; one card in base 60 took them down for everybody."""
    api.create_repo("demo/hostile", exist_ok=True)
    card = f"---\n{HOSTILE_HEADS[what]}\n---\nhi\n".encode()
    start = time.process_time()
    body = commit_body({"README.md": card})
    code, _, _ = call("POST", f"{hub.url}/api/models/demo/hostile/commit/main", hub.token, body)
    assert code == 200
    for place in ("/api/models", "/api/models?author=demo", "/api/models?filter=x", "/api/models/demo/hostile",
                  "/demo/hostile", "/"):  # fmt: skip
        assert call("GET", hub.url + place)[0] == 200, place
    content = json.dumps({"content": card.decode()}).encode()
    assert call("POST", f"{hub.url}/api/validate-yaml", hub.token, content)[0] in (200, 400)
    assert time.process_time() - start < 5, "the server runs in this process"
    assert "demo/hostile" in [model.id for model in api.list_models(author="demo")]


def test_without_a_token_no_card_is_parsed(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger costs the Hub no time; a client that validates without its token, and pushes with it, goes on."""

    def parse(head: str) -> None:
        raise AssertionError("YAML of a stranger was parsed")

    monkeypatch.setattr("hf_synth.hub.pushing.parse_head", parse)
    url, card = f"{hub.url}/api/validate-yaml", b'{"content": "---\\nx: [\\n---\\n"}'
    assert call("POST", url, None, card)[0] == 401
    assert call("POST", url, "hf_no_such_token", card)[0] == 401
    code, body, _ = call("POST", url, None, card, Accept="text/plain")
    assert (code, json.loads(body)["errors"]) == (200, [])
    assert "not checked" in json.loads(body)["warnings"][0]["message"]


def test_a_card_is_pushed_by_the_client_that_validates_without_a_token(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/carded")
    RepoCard("---\ntags: [eso]\n---\n# Hi").push_to_hub("demo/carded", token=hub.token)
    assert RepoCard.load("demo/carded", token=hub.token).data.tags == ["eso"]
    bad = json.dumps({"content": "---\nx: [\n---\n"}).encode()
    assert call("POST", f"{hub.url}/api/validate-yaml", hub.token, bad)[0] == 400


# --- whom a request is for ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("host", "hosts", "own"),
    [
        ("localhost:8090", (), True),
        ("LOCALHOST", (), True),
        ("127.0.0.1:9", (), True),
        ("127.9.9.9", (), True),
        ("[::1]:8090", (), True),
        ("evil.example", (), False),
        ("hub.example?evil.example", ("hub.example",), False),
        ("hub.example#evil.example", ("hub.example",), False),
        ("127.0.0.1.nip.io", (), False),
        ("localhost.", (), False),
        ("2130706433", (), False),
        ("[::ffff:93.184.216.34]", (), False),
        ("evil.example:8090", ("hub.example",), False),
        ("hub.example", ("hub.example",), True),
        ("Hub.Example:443", ("hub.example",), True),
        ("sub.hub.example", ("hub.example",), False),
        ("localhost.evil.example", (), False),
        ("127.0.0.1.evil.example", (), False),
        ("localhost@evil.example", (), False),
        ("evil.example@localhost", (), False),
        ("localhost/evil", (), False),
        ("10.1.2.3", (), False),
        ("10.1.2.3", ("10.1.2.3",), True),
        ("10.1.2.3", ("*",), True),
        ("evil.example", ("*",), False),
        ("", ("*",), False),
        ("[::1", ("*",), False),
        ("localhost ", (), False),
    ],
)
def test_a_hub_goes_by_its_own_names(host: str, hosts: tuple[str, ...], own: bool) -> None:
    assert is_own_host(host, frozenset(hosts)) is own


def test_a_page_whose_name_points_here_reads_nothing(hub: RunningHub, api: HfApi) -> None:
    """DNS rebinding: a browser sends the page's own name in Host, with nothing that tells it from another page."""
    api.create_repo("demo/rebound")
    api.upload_file(path_or_fileobj=b"note text", path_in_repo="a.txt", repo_id="demo/rebound")
    for place in ("/", "/api/models", "/demo/rebound", "/demo/rebound/resolve/main/a.txt", "/login", "/nothing"):
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", ""):
            code, body, _ = call("GET", hub.url + place, hub.token, Host=host)
            assert code in (400, 421), (place, host)
            assert b"note text" not in body
        if place != "/login":  # leads to the page of the host that was named
            assert call("GET", hub.url + place, hub.token, Host="localhost:9")[0] in (200, 404)
    oid = json.dumps({"operation": "upload", "objects": [{"oid": "a" * 64, "size": 3}]}).encode()
    place = f"{hub.url}/demo/rebound.git/info/lfs/objects/batch"
    assert call("POST", place, hub.token, oid, Host="evil.example")[0] == 421


@pytest.mark.parametrize(
    ("host", "names"), [("127.0.0.1", {"127.0.0.1"}), ("0.0.0.0", {"*"}), ("::", {"*"}), ("box", {"box"})]
)
def test_the_address_that_is_listened_on_is_a_name(host: str, names: set[str]) -> None:
    assert names <= set(_names_of(host))
    assert "evil.example" not in _names_of(host)


def test_a_hub_with_a_url_goes_by_it(tmp_path: Path) -> None:
    app = create_app(tmp_path / "a", url="https://Hub.Example:8443", hosts=["box"])
    answers = {"http://hub.example": 200, "http://box:80": 200, "http://localhost": 200, "http://x": 421}
    for base, code in answers.items():
        assert TestClient(app, base_url=base).get("/api/models").status_code == code, base


# --- pieces ---------------------------------------------------------------------------------------------------------
def test_files_travel_in_pieces_of_a_megabyte(
    hub: RunningHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece passes through a thread; what is received is hashed there, not on the event loop."""
    hashed: list[tuple[int, bool]] = []

    class Digest:
        def __init__(self) -> None:
            self._digest = hashlib.sha256()

        def update(self, piece: bytes) -> None:
            hashed.append((len(piece), "AnyIO" in threading.current_thread().name))
            self._digest.update(piece)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    counting = types.SimpleNamespace(sha256=lambda *data: hashlib.sha256(*data) if data else Digest())
    monkeypatch.setattr(pushing, "hashlib", counting)
    assert reading._InPieces.chunk_size == 1 << 20
    data = os.urandom(5 * 2**19 + 7)
    api.create_repo("demo/pieces")
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id="demo/pieces")
    assert sum(n for n, _ in hashed) == len(data)
    assert all(in_thread for _, in_thread in hashed)
    assert len(hashed) <= 4
    assert call("GET", f"{hub.url}/demo/pieces/resolve/main/w.bin")[1] == data
    code, part, _ = call("GET", f"{hub.url}/demo/pieces/resolve/main/w.bin", Range="bytes=1048570-1048590")
    assert (code, part) == (206, data[1048570:1048591])
