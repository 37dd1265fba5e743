"""The local Hub against real clients: datasets, transformers and huggingface_hub as they are installed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from support.hub_clients import call, check_disk, commit_body, served

from hf_synth.errors import OutputError
from hf_synth.hub import RunningHub, client_environment, connected, create_app, running_hub
from hf_synth.hub.cards import parse_head
from hf_synth.hub.request import Limits

MINE, OTHER = "hf_the_token_of_the_first_user", "hf_the_token_of_another_user"
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
LIMITS = Limits(json=64 * 1024, line=16 * 2**20, commit=20 * 2**20, file=2**20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[RunningHub]:
    tokens = {"me": MINE, "other": OTHER}
    with running_hub(root, tokens=tokens, limits=LIMITS) as running, connected(running):
        yield running


@pytest.fixture(scope="module")
def api(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture(scope="module")
def stranger(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=OTHER)


@pytest.fixture(scope="module")
def nobody(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


def rows(n: int, word: str = "made up") -> Dataset:
    columns = {"text": [f"{word} {i}" for i in range(n)], "label": [i % 2 for i in range(n)]}
    return Dataset.from_dict(columns, features=FEATURES)


def status(method: str, url: str, token: str | None = MINE, body: bytes | None = None, **headers: str) -> int:
    return call(method, url, token, body, **headers)[0]


def batch(hub: RunningHub, repo: str, sha: str, size: int, token: str = MINE) -> dict[str, Any]:
    """Ask where a large file is to be put."""
    body = json.dumps({"operation": "upload", "objects": [{"oid": sha, "size": size}]}).encode()
    code, answer, _ = call("POST", f"{hub.url}/{repo}.git/info/lfs/objects/batch", token, body)
    assert code == 200
    found: dict[str, Any] = json.loads(answer)["objects"][0]
    return found


# --- what clients read and write --------------------------------------------------------------------------------------
def test_ranges_pages_of_a_tree_and_unknown_routes(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/parts", repo_type="dataset")
    url = f"{hub.url}/api/datasets/demo/parts"
    files = {f"d/{i}.txt": b"x" for i in range(3)} | {"n.txt": b"0123456789"}
    assert status("POST", f"{url}/commit/main", body=commit_body(files)) == 200
    place = f"{hub.url}/datasets/demo/parts/resolve/main"
    code, body, headers = call("GET", f"{place}/n.txt", Range="bytes=2-4")
    assert (code, body, headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert headers["etag"] == f'"{hashlib.sha1(b"blob 10" + bytes(1) + b"0123456789").hexdigest()}"'
    assert status("GET", f"{place}/n.txt", Range="bytes=99-") == 416
    assert call("GET", f"{place}/none.txt")[2]["x-error-code"] == "EntryNotFound"
    _, body, headers = call("GET", f"{url}/tree/main?recursive=true&limit=4")
    rest = call("GET", headers["link"].split(">")[0][1:])[1]
    found = [entry["path"] for part in (body, rest) for entry in json.loads(part)]
    assert found == ["d", "d/0.txt", "d/1.txt", "d/2.txt", "n.txt"]
    assert [p.path for p in api.get_paths_info("demo/parts", ["d", "n.txt", "z"], repo_type="dataset")] == [
        "d",
        "n.txt",
    ]
    for method, route in (
        ("GET", "agent-harnesses"),
        ("POST", "agent-harnesses"),
        ("GET", "spaces/a/b"),
        ("GET", "x/y"),
    ):
        assert status(method, f"{hub.url}/api/{route}", None) == 404, route


def test_cards_are_checked_and_their_data_read(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/card")
    where: dict[str, Any] = {"path_in_repo": "README.md", "repo_id": "demo/card"}
    for bad in (b"---\nlicense: [mit\n---\n", b"---\na: &x [1]\nb: *x\n---\n", b"---\n- 1\n---\n"):
        with pytest.raises(ValueError, match="metadata"):
            api.upload_file(path_or_fileobj=bad, **where)
    card = b"---\nlicense: mit\nmade: 2026-01-02\n---\n# Card\n<script>alert(1)</script>"
    api.upload_file(path_or_fileobj=card, **where)
    assert api.model_info("demo/card").card_data.license == "mit"
    _, page, headers = call("GET", f"{hub.url}/demo/card")
    assert b"<h1>Card</h1>" in page
    assert b"<th>license</th><td>mit</td>" in page
    assert b"<script" not in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"demo/card" in call("GET", hub.url + "/")[1]


@pytest.mark.parametrize(
    "head", ["a: !!bool maybe", "a: !!timestamp foo", "a: !!int ''", "a: " + "[" * 200_000], ids=lambda head: head[:15]
)
def test_odd_metadata_is_refused_at_once(head: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match="metadata"):
        parse_head(head)
    assert time.process_time() - start < 5


def test_a_request_for_access_holds_whole_characters(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/halves")
    api.update_repo_settings("demo/halves", gated="manual")
    json_body = {"Content-Type": "application/json"}
    assert call("POST", f"{hub.url}/demo/halves/ask-access", hub.token, b'{"\\ud800": "x"}', **json_body)[0] == 400
    assert call("GET", f"{hub.url}/api/models/demo/halves/user-access-request/pending", hub.token)[0] == 200


# --- who may do what --------------------------------------------------------------------------------------------------
def test_private_repositories_are_invisible(
    hub: RunningHub, api: HfApi, stranger: HfApi, nobody: HfApi, tmp_path: Path
) -> None:
    api.create_repo("demo/secret", private=True)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="demo/secret")
    for other in (stranger, nobody):
        for ask in (other.repo_info, other.list_repo_refs, other.list_repo_commits, other.list_repo_files):
            with pytest.raises(RepositoryNotFoundError):
                ask("demo/secret")
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("demo/secret", "x.txt", token=other.token, cache_dir=tmp_path)
        assert "demo/secret" not in [m.id for m in other.list_models()]
    assert "demo/secret" in [m.id for m in api.list_models(author="demo", search="secret")]
    assert b"demo/secret" not in call("GET", hub.url + "/")[1]
    assert b"demo/secret" in call("GET", hub.url + "/", MINE)[1]
    answers = {call("GET", f"{hub.url}/api/models/demo/{name}", OTHER)[:2] for name in ("secret", "not-there")}
    assert len(answers) == 1, "what is private and what is not there must look the same"
    for name in ("demo/secret", "demo/not-there", "me/theirs"):
        with pytest.raises(HfHubHTTPError) as caught:
            stranger.create_repo(name, exist_ok=True)
        assert caught.value.response.status_code == 403
    api.update_repo_settings("demo/secret", private=False)
    assert stranger.repo_info("demo/secret").private is False
    with pytest.raises(HfHubHTTPError) as caught:
        stranger.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id="demo/secret")
    assert caught.value.response.status_code == 403
    for refused in (stranger, nobody):
        with pytest.raises(HfHubHTTPError):
            refused.delete_repo("demo/secret")
    api.delete_repo("demo/secret")
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("demo/secret")
    assert stranger.create_repo("their-org/x").repo_id == "their-org/x"
    assert stranger.create_repo("own").repo_id == "other/own"
    assert stranger.whoami()["orgs"][0]["name"] == "their-org"
    assert api.create_repo("own").repo_id == "me/own"


def test_gated_repositories_show_their_card_data_but_no_file(
    hub: RunningHub, api: HfApi, stranger: HfApi, nobody: HfApi, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"repo_id": "demo/gated", "repo_type": "dataset"}
    rows(4).push_to_hub("demo/gated", token=hub.token)
    api.update_repo_settings(gated="manual", **where)
    assert api.repo_info(**where).private is False
    for other, code in ((stranger, 403), (nobody, 401)):
        assert other.repo_info(**where).gated == "manual"
        with pytest.raises(GatedRepoError) as caught:
            hf_hub_download(filename="README.md", token=other.token, cache_dir=tmp_path, **where)
        assert caught.value.response.status_code == code
        with pytest.raises(GatedRepoError):
            other.auth_check(**where)
    assert len(load_dataset("demo/gated", split="train", token=hub.token, cache_dir=str(tmp_path))) == 4
    api.update_repo_settings(gated=False, **where)
    assert hf_hub_download(filename="README.md", token=False, cache_dir=tmp_path, **where)


def test_large_files_are_what_was_promised(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/large")
    data = b"the real content"
    sha = hashlib.sha256(data).hexdigest()
    place = batch(hub, "demo/large", sha, len(data))["actions"]["upload"]["href"]
    for url, body, code in (
        (place, b"other content!!!", 400), (place, data[:-1], 400), (place, data + b"x", 413),
        (place.split("?")[0], data, 403), (place.replace("demo/large", "demo/race"), data, 403),
        (place.replace(f"/{len(data)}?", "/99?"), data, 403), (place.replace(sha, "../" * 8 + "x"), data, 404),
    ):  # fmt: skip
        assert status("PUT", url, None, body) == code, url
    large = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": sha, "size": len(data)}}
    commit = f"{hub.url}/api/models/demo/large/commit/main"
    assert status("POST", commit, body=commit_body({}, large)) == 400
    assert status("PUT", place, None, data) == 200
    assert status("POST", commit, body=commit_body({}, large)) == 200
    assert "actions" not in batch(hub, "demo/large", sha, len(data))
    assert batch(hub, "demo/large", "0" * 64, 2**40)["error"]["code"] == 413


def test_the_hash_of_anothers_file_is_no_key_to_it(hub: RunningHub, api: HfApi, stranger: HfApi) -> None:
    data = b"what only the owner may read"
    api.create_repo("demo/mine", private=True)
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id="demo/mine")
    stranger.create_repo("other/thief")
    sha = hashlib.sha256(data).hexdigest()
    assert "actions" in batch(hub, "other/thief", sha, len(data), OTHER)
    large = {"key": "lfsFile", "value": {"path": "w.bin", "oid": sha, "size": len(data)}}
    assert status("POST", f"{hub.url}/api/models/other/thief/commit/main", OTHER, commit_body({}, large)) == 400


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/x", "a//b", ".git/config", "a\\b", "", "a\0b", "\ud800", "x" * 300]
)
def test_no_path_leaves_the_repository(hub: RunningHub, api: HfApi, path: str) -> None:
    api.create_repo("demo/paths", exist_ok=True)
    body = commit_body({path: b"x"})
    assert status("POST", f"{hub.url}/api/models/demo/paths/commit/main", body=body) == 400
    for part in (path, "../" * 4 + "users.json"):
        address = quote(part, safe="", errors="surrogatepass")
        for url in (
            "demo/paths/resolve/main/" + address,
            f"demo/paths/resolve/{address}/x",
            f"{address}/paths/resolve/main/x",
        ):
            assert status("GET", f"{hub.url}/{url}") in (400, 404), url
    assert api.list_repo_files("demo/paths") == []


def test_what_is_too_large_is_refused(hub: RunningHub, api: HfApi, root: Path) -> None:
    api.create_repo("demo/sizes")
    url = f"{hub.url}/api/models/demo/sizes"
    assert status("POST", f"{url}/paths-info/main", None, b"paths=" + b"x" * LIMITS.json) == 413
    assert status("POST", f"{url}/preupload/main", body=b'{"files": []}' + b" " * LIMITS.json) == 413
    assert status("POST", f"{url}/commit/main", body=commit_body({"x.txt": bytes(13 * 2**20)})) == 413
    assert status("POST", f"{url}/commit/main", body=b"\n" * (LIMITS.commit + 1)) == 413
    assert not list((root / "tmp").iterdir())


def test_tokens(hub: RunningHub, tmp_path: Path) -> None:
    assert status("GET", f"{hub.url}/api/whoami-v2", "hf_wrong") == 401
    assert status("GET", f"{hub.url}/api/whoami-v2", None) == 401
    for bad in ({"a/b": MINE}, {"../x": MINE}, {"api": MINE}, {"me": "short"}, {"me": MINE, "you": MINE}):
        with pytest.raises(OutputError) as caught:
            create_app(tmp_path / "bad", tokens=bad)
        assert MINE not in str(caught.value)
    for token in ("hf_first_token", "hf_second_token"):
        with running_hub(tmp_path / "one", tokens={"me": token}) as other:
            assert status("GET", f"{other.url}/api/whoami-v2", token) == 200
            assert token not in repr(other)
            assert (status("GET", f"{other.url}/api/whoami-v2", "hf_first_token") == 200) == (token == "hf_first_token")


# --- many at once, kills, restarts ------------------------------------------------------------------------------------
def test_many_writers_lose_nothing(hub: RunningHub, api: HfApi, root: Path) -> None:
    api.create_repo("demo/busy")

    def push(writer: int) -> None:
        for k in range(3):
            name = f"{writer}/{k}.{'bin' if k else 'txt'}"
            api.upload_file(path_or_fileobj=f"{writer} {k}".encode(), path_in_repo=name, repo_id="demo/busy")

    def make(_: int) -> int:
        return status("POST", f"{hub.url}/api/repos/create", body=b'{"name": "once", "organization": "demo"}')

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(push, range(6)))
        assert sorted(pool.map(make, range(6))) == [200, 409, 409, 409, 409, 409]
    assert len(api.list_repo_files("demo/busy")) == 18
    assert len(list(api.list_repo_commits("demo/busy"))) == 19
    assert len(check_disk(root)["demo/busy"]) == 19


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub, connected(hub):
        rows(4).push_to_hub("demo/kept", token=hub.token)
        HfApi(endpoint=hub.url, token=hub.token).create_tag("demo/kept", tag="v1", repo_type="dataset")
        token = hub.token
        with pytest.raises(OutputError, match="another Hub"), running_hub(tmp_path):
            pass
    (tmp_path / "old" / "repos" / "models").mkdir(parents=True)
    with pytest.raises(OutputError, match="not a Hub"), running_hub(tmp_path / "old"):
        pass
    for file in ("token", "users.json"):
        assert (tmp_path / file).stat().st_mode & 0o777 == 0o600
    assert token.encode() not in (tmp_path / "users.json").read_bytes()
    (tmp_path / "tmp" / "half" / "repo").mkdir(parents=True)  # a deletion and an upload that a kill cut short
    (tmp_path / "tmp" / "draft").write_bytes(b"x")
    with running_hub(tmp_path) as hub, connected(hub):
        assert hub.token == token
        assert not list((tmp_path / "tmp").iterdir())
        kept = load_dataset("demo/kept", split="train", revision="v1", cache_dir=str(tmp_path / "cache"))
        assert len(kept) == 4
        with (
            pytest.raises(OutputError, match="listened"),
            running_hub(tmp_path / "x", port=int(hub.url.rsplit(":")[-1])),
        ):
            pass


def test_a_full_disk_changes_nothing(
    hub: RunningHub, api: HfApi, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api.create_repo("demo/full")
    url = f"{hub.url}/api/models/demo/full/commit/main"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device: canary in a note")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert status("POST", url, body=commit_body({"x.txt": b"canary in a note"})) == 507
    assert api.list_repo_files("demo/full") == []
    assert status("POST", url, body=commit_body({"x.txt": b"canary in a note"})) == 200
    assert not list((root / "tmp").iterdir())
    assert "OSError in POST" in caplog.text
    assert "canary" not in caplog.text


def test_an_interrupt_ends_it_quietly(tmp_path: Path) -> None:
    with served(tmp_path) as (server, url, token):
        assert status("GET", f"{url}/api/whoami-v2", token) == 200
        server.send_signal(signal.SIGINT)
        said = server.communicate(timeout=20)
        assert (server.returncode, said[1]) == (0, "")
        assert token not in said[0]


def test_a_kill_amid_pushes_leaves_whole_commits(tmp_path: Path) -> None:
    canary, said = b"canary in a note", ""
    acknowledged: set[str] = set()
    for turn in range(3):
        with served(tmp_path) as (server, url, token):
            repos = [f"demo/{name}" for name in "ab"]
            for repo in repos:
                body = json.dumps({"name": repo[5:], "organization": "demo"}).encode()
                assert call("POST", f"{url}/api/repos/create", token, body)[0] in (200, 409)

            def push(writer: int, turn: int = turn, url: str = url, token: str = token) -> None:
                with contextlib.suppress(
                    OSError, http.client.HTTPException
                ):  # whatever is said of a server that is gone
                    for k in range(100_000):
                        name = f"{turn} {writer} {k}"
                        body = commit_body({f"{writer}.txt": canary + name.encode()}, summary=name)
                        if call("POST", f"{url}/api/models/demo/{'ab'[writer % 2]}/commit/main", token, body)[0] == 200:
                            acknowledged.add(name)

            writers = [threading.Thread(target=push, args=(w,)) for w in range(4)]
            for writer in writers:
                writer.start()
            call("POST", f"{url}/api/models/demo/a/commit/main", token, canary)
            time.sleep(0.4 + 0.13 * turn)
            os.kill(server.pid, signal.SIGKILL)
            for writer in writers:
                writer.join()
            said += "".join(server.communicate())
            assert token not in said
        histories = check_disk(tmp_path)
        assert acknowledged <= {message for history in histories.values() for message in history}
    assert len(acknowledged) > 10
    assert canary.decode() not in said


# --- requests that no client would send ---------------------------------------------------------------------------
def test_odd_bytes_on_the_wire(hub: RunningHub) -> None:
    host, port = hub.url.removeprefix("http://").split(":")
    for line in (
        b"GET /%ff/%00 HTTP/1.1",
        b"GET /a\xff/b HTTP/1.1",
        b"GET //api//models HTTP/1.1",
        b"\0\1\2",
        b"GET * HTTP/1.1",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as wire:
            wire.sendall(line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert wire.recv(64).split()[1][:1] == b"4", line


# --- pointing clients at it -------------------------------------------------------------------------------------------
def test_another_process_pulls_with_the_environment_alone(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(3).push_to_hub("demo/pulled", token=hub.token, private=True)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    code = "from datasets import load_dataset; print(len(load_dataset('demo/pulled', split='train')))"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | client_environment(hub) | {"HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("3")


def test_connected_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_a_token_for_another_hub")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = (dict(vars(constants)), dict(os.environ))
    with running_hub(tmp_path) as hub:
        with connected(hub):
            HfApi(endpoint=hub.url, token=hub.token).create_repo("demo/open")
            assert [m.id for m in HfApi(endpoint=hub.url).list_models()] == [
                "demo/open"
            ]  # without the user's own token
        assert (dict(vars(constants)), dict(os.environ)) == before


def test_transformers_forgets_an_earlier_hub(tmp_path: Path) -> None:
    """It keeps a client of its own, made for the Hub that was the first."""
    from transformers.utils import hub as pushes

    for name in ("one", "two"):
        with running_hub(tmp_path / name) as hub, connected(hub):
            assert pushes.hf_api().endpoint == hub.url
    assert pushes.hf_api().endpoint == constants.ENDPOINT


def test_the_package_is_light() -> None:
    heavy = "{'starlette', 'uvicorn', 'datasets', 'transformers', 'huggingface_hub', 'yaml'}"
    code = f"import sys, hf_synth.hub; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
