"""The local Hub against real clients: datasets, transformers and huggingface_hub as they are installed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_synth.hub import RunningHub, client_environment, connected, running_hub

OTHER = "hf_the_token_of_another_user"
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub"), tokens={"other": OTHER}) as running, connected(running):
        yield running


@pytest.fixture(scope="module")
def api(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def rows(n: int, word: str = "made up") -> Dataset:
    return Dataset.from_dict(
        {"text": [f"{word} {i}" for i in range(n)], "label": [i % 2 for i in range(n)]}, features=FEATURES
    )


def get(url: str, token: str | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, headers=headers | ({"Authorization": f"Bearer {token}"} if token else {}))
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_datasets_with_two_configs(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    rows(20).push_to_hub("demo/two", "first", token=hub.token)
    rows(30, "second").push_to_hub("demo/two", "second", token=hub.token)
    first = load_dataset("demo/two", "first", split="train", cache_dir=str(tmp_path))
    assert len(first) == 20
    assert first.features == FEATURES
    streamed = list(load_dataset("demo/two", "second", split="train", streaming=True))
    assert streamed == rows(30, "second").to_list()
    api.create_tag("demo/two", repo_type="dataset", tag="v1")
    rows(5, "newer").push_to_hub("demo/two", "first", token=hub.token)
    assert len(load_dataset("demo/two", "first", split="train", cache_dir=str(tmp_path))) == 5
    assert len(load_dataset("demo/two", "first", split="train", revision="v1", cache_dir=str(tmp_path))) == 20


def test_models_by_id(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    from tiny import tiny_base
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    base = tiny_base(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(base))
    tokenizer = AutoTokenizer.from_pretrained(base)
    model.push_to_hub("demo/model", token=hub.token)
    tokenizer.push_to_hub("demo/model", token=hub.token)
    pulled = AutoModelForSequenceClassification.from_pretrained("demo/model", cache_dir=tmp_path / "cache")
    assert all((a == b).all() for a, b in zip(model.parameters(), pulled.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained("demo/model", cache_dir=tmp_path / "cache")("sore")["input_ids"]
    assert "model.safetensors" in api.list_repo_files("demo/model")
    folder = Path(snapshot_download("demo/model", cache_dir=tmp_path / "snapshot"))
    assert (folder / "config.json").is_file()


def test_commits_are_atomic_and_know_their_parent(api: HfApi) -> None:
    api.create_repo("demo/race", repo_type="dataset")
    head = api.repo_info("demo/race", repo_type="dataset").sha
    add = CommitOperationAdd("a.txt", b"one")
    first = api.create_commit("demo/race", [add], commit_message="one", repo_type="dataset", parent_commit=head)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(
            "demo/race",
            [CommitOperationAdd("a.txt", b"two")],
            commit_message="two",
            repo_type="dataset",
            parent_commit=head,
        )
    assert caught.value.response.status_code == 412
    assert api.repo_info("demo/race", repo_type="dataset").sha == first.oid
    api.create_commit(
        "demo/race", [CommitOperationDelete("a.txt"), CommitOperationAdd("d/b.parquet", b"PAR1")],
        commit_message="three", repo_type="dataset", parent_commit=first.oid,
    )  # fmt: skip
    assert api.list_repo_files("demo/race", repo_type="dataset") == ["d/b.parquet"]
    assert [c.title for c in api.list_repo_commits("demo/race", repo_type="dataset")] == [
        "three",
        "one",
        "initial commit",
    ]


def test_private_repositories_are_invisible(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("demo/secret", private=True)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="demo/secret")
    stranger = HfApi(endpoint=hub.url, token=OTHER)
    for other in (stranger, HfApi(endpoint=hub.url, token=False)):
        with pytest.raises(RepositoryNotFoundError):
            other.repo_info("demo/secret")
        assert "demo/secret" not in [m.id for m in other.list_models()]
    assert b"demo/secret" not in get(hub.url + "/")[1]
    with pytest.raises(HfHubHTTPError):
        stranger.create_repo("demo/mine")
    api.update_repo_settings("demo/secret", private=False)
    assert stranger.repo_info("demo/secret").private is False
    with pytest.raises(HfHubHTTPError):
        stranger.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id="demo/secret")
    api.delete_repo("demo/secret")
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("demo/secret")


def test_gated_repositories_show_their_card_data_but_no_file(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("demo/gated", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="demo/gated", repo_type="dataset")
    api.update_repo_settings("demo/gated", repo_type="dataset", gated="manual")
    assert api.repo_info("demo/gated", repo_type="dataset").gated == "manual"
    with pytest.raises(GatedRepoError):
        hf_hub_download("demo/gated", "x.txt", repo_type="dataset", token=OTHER, cache_dir=tmp_path)
    assert Path(
        hf_hub_download("demo/gated", "x.txt", repo_type="dataset", token=hub.token, cache_dir=tmp_path)
    ).is_file()


def test_branches_tags_ranges_and_errors(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/refs", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"0123456789", path_in_repo="n.parquet", repo_id="demo/refs", repo_type="dataset")
    api.create_branch("demo/refs", repo_type="dataset", branch="draft")
    api.upload_file(
        path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="demo/refs", repo_type="dataset", revision="draft"
    )
    refs = api.list_repo_refs("demo/refs", repo_type="dataset")
    assert {b.name for b in refs.branches} == {"main", "draft"}
    assert api.list_repo_files("demo/refs", repo_type="dataset") == ["n.parquet"]
    status, body, headers = get(f"{hub.url}/datasets/demo/refs/resolve/main/n.parquet", Range="bytes=2-4")
    assert (status, body) == (206, b"234")
    assert headers["x-linked-size"] == "10"
    with pytest.raises(RevisionNotFoundError):
        api.repo_info("demo/refs", repo_type="dataset", revision="nowhere")
    assert get(f"{hub.url}/datasets/demo/refs/resolve/main/none.txt")[2]["x-error-code"] == "EntryNotFound"
    assert get(f"{hub.url}/api/agent-harnesses")[0] == 404
    api.delete_branch("demo/refs", repo_type="dataset", branch="draft")


def test_a_wrong_token_and_a_wrong_hash_are_refused(hub: RunningHub, api: HfApi) -> None:
    assert get(f"{hub.url}/api/whoami-v2", "hf_wrong")[0] == 401
    api.create_repo("demo/hash")
    batch = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 5}]}
    asked = urllib.request.Request(
        f"{hub.url}/demo/hash.git/info/lfs/objects/batch",
        json.dumps(batch).encode(),
        {"Authorization": f"Bearer {hub.token}"},
    )
    with urllib.request.urlopen(asked) as answer:
        place = json.loads(answer.read())["objects"][0]["actions"]["upload"]["href"]
    for url, status in ((place, 400), (place.split("?")[0], 403), (place.replace("/hash/", "/race/"), 403)):
        request = urllib.request.Request(url, b"other", method="PUT")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        with caught.value:
            assert caught.value.code == status


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a//b", ".git/config", "a\\b", ""])
def test_no_path_leaves_the_repository(hub: RunningHub, api: HfApi, path: str) -> None:
    api.create_repo("demo/paths", exist_ok=True)
    file = {"path": path, "content": "eA==", "encoding": "base64"}
    body = "\n".join(map(json.dumps, ({"key": "header", "value": {"summary": "x"}}, {"key": "file", "value": file})))
    request = urllib.request.Request(
        f"{hub.url}/api/models/demo/paths/commit/main", body.encode(), {"Authorization": f"Bearer {hub.token}"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value:
        assert caught.value.code == 400
    assert get(f"{hub.url}/demo/paths/resolve/main/{quote('../../../token', safe='')}")[0] in (400, 404)


def test_many_writers_lose_nothing(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/busy")

    def push(writer: int) -> None:
        for k in range(3):
            api.upload_file(
                path_or_fileobj=f"{writer} {k}".encode(), path_in_repo=f"{writer}/{k}.txt", repo_id="demo/busy"
            )

    threads = [threading.Thread(target=push, args=(w,)) for w in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api.list_repo_files("demo/busy")) == 18
    assert len(list(api.list_repo_commits("demo/busy"))) == 19


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub, connected(hub):
        rows(4).push_to_hub("demo/kept", token=hub.token)
        token = hub.token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert token.encode() not in (tmp_path / "users.json").read_bytes()
    with running_hub(tmp_path) as hub, connected(hub):
        assert hub.token == token
        assert len(load_dataset("demo/kept", split="train", cache_dir=str(tmp_path / "cache"))) == 4


def post(url: str, token: str, body: bytes) -> int:
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(answer.status)


def test_a_kill_in_the_middle_of_pushes_leaves_whole_commits(tmp_path: Path) -> None:
    code = f"from hf_synth.hub import serve; serve({str(tmp_path / 'hub')!r}, port=0)"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]
    token = (tmp_path / "hub" / "token").read_text()
    post(f"{url}/api/repos/create", token, b'{"name": "killed", "organization": "demo"}')
    threading.Timer(0.5, lambda: os.kill(server.pid, signal.SIGKILL)).start()
    done = 0
    with contextlib.suppress(OSError, http.client.HTTPException):  # whatever is said of a server that is gone
        for k in range(100_000):
            files = [{"path": f"{k}/{i}.txt", "content": "eA==", "encoding": "base64"} for i in range(3)]
            lines = [{"key": "header", "value": {"summary": str(k)}}, *({"key": "file", "value": f} for f in files)]
            post(f"{url}/api/models/demo/killed/commit/main", token, "\n".join(map(json.dumps, lines)).encode())
            done = k + 1
    assert server.wait() == -signal.SIGKILL
    server.stdout.close()
    with running_hub(tmp_path / "hub") as hub:
        found = HfApi(endpoint=hub.url, token=hub.token).list_repo_files("demo/killed")
    assert done
    assert len(found) in (3 * done, 3 * done + 3)  # the last one may have been done and not answered


def test_the_pages_are_readable_and_escaped(hub: RunningHub, api: HfApi) -> None:
    api.create_repo("demo/page", repo_type="dataset", exist_ok=True)
    card = b"---\nlicense: mit\n---\n# Card\n<script>alert(1)</script>"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="demo/page", repo_type="dataset")
    page = get(f"{hub.url}/datasets/demo/page")[1]
    assert b"# Card" in page
    assert b"<script>" not in page
    assert b"demo/page" in get(hub.url + "/")[1]


KEYS = [
    "files",
    "path",
    "paths",
    "objects",
    "oid",
    "size",
    "name",
    "key",
    "value",
    "tag",
    "type",
    "gated",
    "content",
    "startingPoint",
]
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
ROUTES = (
    *("/api/repos/create", "/api/repos/delete", "/api/models", "/api/models/demo/fuzz", "/api/validate-yaml"),
    *(
        f"/api/models/demo/fuzz/{r}"
        for r in ("commit/main", "preupload/main", "tree/main", "paths-info/main", "settings")
    ),
    *(f"/api/datasets/demo/fuzz/{r}" for r in ("tag/main", "branch/x", "refs", "commits/main", "revision/main")),
    *("/demo/fuzz/resolve/main/x", "/demo/fuzz.git/info/lfs/objects/batch", "/lfs/models/demo/fuzz/0", "/lfs/x/y/z/0"),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    route=st.sampled_from(ROUTES),
    more=st.text(max_size=12),
    body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_no_request_is_a_server_error(
    hub: RunningHub, api: HfApi, method: str, route: str, more: str, body: bytes
) -> None:
    for kind in ("model", "dataset"):
        api.create_repo("demo/fuzz", repo_type=kind, exist_ok=True)
    url = hub.url + route + ("/" + quote(more, safe="") if more else "") + ("?limit=" + quote(more) if more[6:] else "")
    headers = {"Authorization": f"Bearer {hub.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, body if method != "GET" else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status < 500
    except urllib.error.HTTPError as error:
        with error:
            assert error.code < 500, (method, route, more, body)


def test_another_process_pulls_with_the_environment_alone(hub: RunningHub, tmp_path: Path) -> None:
    rows(3).push_to_hub("demo/pulled", token=hub.token)
    code = "from datasets import load_dataset; print(len(load_dataset('demo/pulled', split='train')))"
    environment = client_environment(hub) | {"HF_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("3")
