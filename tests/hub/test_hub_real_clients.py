"""The local Hub, served by `hf-synth hub serve` in a process of its own, against clients as they are installed."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RevisionNotFoundError
from support.hub_clients import call, check_disk, hub_verb, served_by_verb
from support.hub_writer import count_up

from hf_synth.hub import RunningHub, client_environment, connected

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
CANARY = "canary in a note"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub") / "root"


@pytest.fixture(scope="module")
def tokens(root: Path) -> dict[str, str]:
    """Two users in the organisation `demo`, one who only reads there, one outside."""
    made = {}
    for name, role in (("ann", "write"), ("ben", "write"), ("rea", "read")):
        made[name] = hub_verb("create-user", name, "--root", root, "--org", "demo", "--role", role)["token"]
    made["out"] = hub_verb("create-user", "out", "--root", root)["token"]
    return made


@pytest.fixture(scope="module")
def hub(root: Path, tokens: dict[str, str]) -> Iterator[RunningHub]:
    with served_by_verb(root) as (_, url):
        running = RunningHub(url, tokens["ann"])
        with connected(running):
            yield running


@pytest.fixture(scope="module")
def api(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def other(hub: RunningHub, token: str | bool) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def status_of(ask: Any, *args: Any, **kwargs: Any) -> int:
    with pytest.raises(HfHubHTTPError) as caught:
        ask(*args, **kwargs)
    return int(caught.value.response.status_code)


def rows(n: int, word: str = "made up") -> Dataset:
    columns = {"text": [f"{word} {i}" for i in range(n)], "label": [i % 2 for i in range(n)]}
    return Dataset.from_dict(columns, features=FEATURES)


# --- what clients do --------------------------------------------------------------------------------------------------


def test_datasets_with_two_configs(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    splits = DatasetDict({"train": rows(20), "test": rows(6)})
    splits.push_to_hub("demo/two", "first", token=hub.token)
    rows(30, "second").push_to_hub("demo/two", "second", token=hub.token)
    first = load_dataset("demo/two", "first", cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in first.items()} == {"train": 20, "test": 6}
    assert first["train"].features == FEATURES
    assert list(load_dataset("demo/two", "second", split="train", streaming=True)) == rows(30, "second").to_list()
    api.create_tag("demo/two", repo_type="dataset", tag="v1")
    rows(5, "newer").push_to_hub("demo/two", "second", token=hub.token)
    assert len(load_dataset("demo/two", "second", split="train", cache_dir=str(tmp_path))) == 5
    assert len(load_dataset("demo/two", "second", split="train", revision="v1", cache_dir=str(tmp_path))) == 30
    assert {c["config_name"] for c in api.dataset_info("demo/two").card_data["configs"]} == {"first", "second"}


def test_models_by_id(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    from support.tiny import tiny_base
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    tiny = tiny_base(tmp_path / "tiny")
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tiny))
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model.push_to_hub("demo/model", token=hub.token)
    tokenizer.push_to_hub("demo/model", token=hub.token)
    pulled = AutoModelForSequenceClassification.from_pretrained("demo/model", cache_dir=tmp_path / "cache")
    assert all((a == b).all() for a, b in zip(model.parameters(), pulled.parameters(), strict=True))
    assert AutoModel.from_pretrained("demo/model", cache_dir=tmp_path / "cache").config.hidden_size == 32
    assert AutoTokenizer.from_pretrained("demo/model", cache_dir=tmp_path / "cache")("sore")["input_ids"]
    weights = next(f for f in api.model_info("demo/model", files_metadata=True).siblings if f.lfs)
    folder = Path(snapshot_download("demo/model", cache_dir=tmp_path / "snapshot"))
    assert weights.rfilename == "model.safetensors"
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == weights.lfs.sha256


def test_commits_are_atomic_and_know_their_parent(api: HfApi) -> None:
    where: dict[str, Any] = {"repo_id": "demo/race", "repo_type": "dataset"}
    api.create_repo(**where)
    head = api.repo_info(**where).sha
    one, two = CommitOperationAdd("a.txt", b"one"), CommitOperationAdd("a.txt", b"two")
    first = api.create_commit(operations=[one], commit_message="one", parent_commit=head, **where)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(operations=[two], commit_message="two", parent_commit=head, **where)
    assert caught.value.response.status_code == 412
    assert api.repo_info(**where).sha == first.oid
    both = [CommitOperationDelete("a.txt"), CommitOperationAdd("d/b.parquet", b"PAR1")]
    api.create_commit(operations=both, commit_message="three", parent_commit=first.oid, **where)
    copy = CommitOperationCopy("d/b.parquet", "c.parquet")
    api.create_commit(operations=[copy], commit_message="four", **where)
    assert api.list_repo_files(**where) == ["c.parquet", "d/b.parquet"]
    assert [c.title for c in api.list_repo_commits(**where)] == ["four", "three", "one", "initial commit"]
    with pytest.raises(EntryNotFoundError):
        api.delete_file("none.txt", **where)
    with pytest.raises(HfHubHTTPError):  # c.parquet would be a file and a folder
        api.upload_file(path_or_fileobj=b"x", path_in_repo="c.parquet/x", **where)
    with pytest.raises(HfHubHTTPError, match="Pull requests"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", create_pr=True, **where)
    api.delete_folder("d", **where)
    assert api.list_repo_files(**where) == ["c.parquet"]


def test_branches_and_tags(api: HfApi, hub: RunningHub, tmp_path: Path) -> None:
    where: dict[str, Any] = {"repo_id": "demo/refs", "repo_type": "dataset"}
    api.create_repo(**where)
    file: dict[str, Any] = {"path_or_fileobj": b"x", **where}
    api.create_branch(branch="team/draft", **where)
    api.upload_file(path_in_repo="x.txt", revision="team/draft", **file)
    api.create_tag(tag="main", **where)  # a tag that is called like a branch takes nothing from it
    api.upload_file(path_in_repo="a.txt", **file)
    api.upload_file(path_in_repo="b.txt", **file)
    assert api.list_repo_files(**where) == ["a.txt", "b.txt"]
    assert api.list_repo_files(revision="team/draft", **where) == ["x.txt"]
    assert api.list_repo_files(revision=api.repo_info(revision="team/draft", **where).sha, **where) == ["x.txt"]
    draft = snapshot_download(revision="team/draft", token=False, cache_dir=tmp_path, **where)
    assert [f.name for f in Path(draft).iterdir()] == ["x.txt"]
    refs = api.list_repo_refs(**where)
    assert ({b.name for b in refs.branches}, {t.name for t in refs.tags}) == ({"main", "team/draft"}, {"main"})
    for clash in ("team", "team/draft/more", "main/x", "a" * 40, "refs/heads/x", "a..b", ".x"):
        with pytest.raises(HfHubHTTPError) as caught:
            api.create_branch(branch=clash, **where)
        assert 400 <= caught.value.response.status_code < 500, clash
    api.delete_branch(branch="team/draft", **where)
    api.create_branch(branch="team", **where)
    assert call("DELETE", f"{hub.url}/api/datasets/demo/refs/branch/main", hub.token)[0] == 403
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(revision="nowhere", **where)


def test_a_trainer_pushes_and_a_pipeline_pulls(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    from support.tiny import tiny_base
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        pipeline,
    )

    tiny = tiny_base(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    data = rows(8).map(lambda row: tokenizer(row["text"], padding="max_length", max_length=8, truncation=True))
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), hub_model_id="demo/trained", hub_token=hub.token, hub_private_repo=True,
        max_steps=2, report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tiny))
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    trainer.push_to_hub()
    assert api.model_info("demo/trained").private
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(
        api.list_repo_files("demo/trained")
    )
    pulled = pipeline("text-classification", model="demo/trained", token=hub.token, device="cpu")
    assert pulled("sore throat")[0]["label"] in ("LABEL_0", "LABEL_1")


def hf(environment: dict[str, str], *args: str) -> str:
    """Run the `hf` command, which knows the Hub from its environment alone."""
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_client_and_pandas(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "notes.csv").write_text("text,label\nmade up,1\n")
    (tmp_path / "folder" / "deep" / "w.bin").write_bytes(bytes(range(256)) * 40)
    environment = os.environ | client_environment(hub) | {"HF_HOME": str(tmp_path / "home")}
    assert "ann" in hf(environment, "auth", "whoami")
    hf(environment, "upload", "demo/by-cli", str(tmp_path / "folder"), "--repo-type", "dataset", "--private")
    assert api.list_repo_files("demo/by-cli", repo_type="dataset") == ["deep/w.bin", "notes.csv"]
    hf(environment, "download", "demo/by-cli", "--repo-type", "dataset", "--local-dir", str(tmp_path / "back"))
    for name in ("notes.csv", "deep/w.bin"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "folder" / name).read_bytes()
    code = "import pandas; print(pandas.read_csv('hf://datasets/demo/by-cli/notes.csv').label.sum())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.slow
def test_the_command_line_client_looks_after_repositories(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    environment = os.environ | client_environment(hub) | {"HF_HOME": str(tmp_path / "home")}
    for command in (
        "create demo/made-by-cli --repo-type dataset",
        "tag create demo/made-by-cli v1 --repo-type dataset",
        "branch create demo/made-by-cli draft --repo-type dataset",
        "settings demo/made-by-cli --repo-type dataset --gated auto --private",
        "move demo/made-by-cli ann/moved-by-cli --repo-type dataset",
    ):
        hf(environment, "repos", *command.split())
    info = api.dataset_info("ann/moved-by-cli", revision="v1")
    assert (info.private, info.gated) == (True, "auto")
    assert "ann/moved-by-cli" in hf(environment, "repos", "ls")
    hf(environment, "repos", "delete", "ann/moved-by-cli", "--repo-type", "dataset", "-y")
    assert status_of(api.dataset_info, "ann/moved-by-cli") == 404


def test_settings_moves_and_a_new_beginning(hub: RunningHub, api: HfApi, tokens: dict[str, str]) -> None:
    api.create_repo("demo/first-name", private=True)
    api.upload_file(path_or_fileobj=b"---\ntags: [eso]\n---\n# Hi", path_in_repo="README.md", repo_id="demo/first-name")
    old = api.repo_info("demo/first-name").sha
    api.move_repo("demo/first-name", "ann/second-name")
    assert status_of(api.repo_info, "demo/first-name") == 404
    assert api.repo_info("ann/second-name").sha == old
    assert status_of(other(hub, tokens["ben"]).repo_info, "ann/second-name") == 404  # it left the organisation
    assert status_of(api.move_repo, "ann/second-name", "out/mine") == 403
    api.create_repo("demo/first-name")
    assert status_of(api.move_repo, "demo/first-name", "ann/second-name") == 409
    api.super_squash_history("ann/second-name", commit_message="anew")
    assert [c.title for c in api.list_repo_commits("ann/second-name")] == ["anew"]
    assert api.list_repo_files("ann/second-name") == ["README.md"]
    assert [m.id for m in api.list_models(filter="eso")] == ["ann/second-name"]
    assert [m.id for m in api.list_models(author="demo", search="first", limit=1)] == ["demo/first-name"]
    assert len(list(api.list_models(sort="last_modified"))) >= 2


def test_who_changed_what_last(api: HfApi) -> None:
    api.create_repo("demo/last")
    for title, path in (("one", "a/b.txt"), ("two", "c.txt"), ("three", "a/d.txt")):
        api.upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id="demo/last", commit_message=title)
    found = {f.path: f.last_commit.title for f in api.list_repo_tree("demo/last", recursive=True, expand=True)}
    assert found == {"a": "three", "a/b.txt": "one", "a/d.txt": "three", "c.txt": "two"}
    assert api.get_paths_info("demo/last", "c.txt", expand=True)[0].last_commit.title == "two"


def test_members_readers_and_tokens_for_reading(
    hub: RunningHub,
    api: HfApi,
    root: Path,
    tokens: dict[str, str],
) -> None:
    api.create_repo("demo/ours", private=True)
    rea, out = other(hub, tokens["rea"]), other(hub, tokens["out"])
    assert {m.username for m in api.list_organization_members("demo")} == {"ann", "ben", "rea"}
    assert status_of(lambda: list(out.list_organization_members("demo"))) == 404
    assert "demo/ours" in [r.id for r in rea.list_user_repos("demo")]
    assert [r.id for r in out.list_user_repos()] == []
    assert status_of(lambda: list(out.list_user_repos("demo"))) == 404
    assert {o["name"]: o["roleInOrg"] for o in rea.whoami()["orgs"]} == {"demo": "read"}
    upload: dict[str, Any] = {"path_or_fileobj": b"x", "path_in_repo": "x.txt", "repo_id": "demo/ours"}
    other(hub, tokens["ben"]).upload_file(**upload)
    assert rea.list_repo_files("demo/ours") == ["x.txt"]
    assert status_of(rea.upload_file, **upload) == 403
    assert status_of(rea.create_repo, "demo/new") == 403
    assert status_of(out.repo_info, "demo/ours") == 404
    assert status_of(out.create_repo, "nobodys/new") == 403  # not a founder
    made = hub_verb("token", "create", "ann", "--root", root, "--token-role", "read", "--name", "job")
    reading = other(hub, made["token"])
    assert reading.whoami()["auth"]["accessToken"] == {"displayName": "job", "role": "read"}
    assert reading.list_repo_files("demo/ours") == ["x.txt"]
    for refused in (
        lambda: reading.upload_file(**upload),
        lambda: reading.create_repo("ann/x"),
        lambda: reading.delete_repo("demo/ours"),
        lambda: reading.update_repo_settings("demo/ours", private=False),
        lambda: reading.move_repo("demo/ours", "ann/y"),
        lambda: reading.create_tag("demo/ours", tag="v1"),
        lambda: reading.super_squash_history("demo/ours"),
    ):
        assert status_of(refused) == 403
    hub_verb("token", "revoke", made["id"], "--root", root)  # while the Hub is served
    assert status_of(reading.repo_info, "demo/ours") == 401
    hub_verb("org", "demo", "--root", root, "--add", "out", "--role", "read")
    assert out.list_repo_files("demo/ours") == ["x.txt"]
    hub_verb("org", "demo", "--root", root, "--remove", "out")
    assert status_of(out.repo_info, "demo/ours") == 404


def test_access_is_asked_for_and_given(hub: RunningHub, api: HfApi, tokens: dict[str, str], tmp_path: Path) -> None:
    where: dict[str, Any] = {"repo_id": "demo/asked", "repo_type": "dataset"}
    rows(4, CANARY).push_to_hub("demo/asked", token=hub.token)
    api.update_repo_settings(gated="manual", **where)
    out = other(hub, tokens["out"])
    ask = f"{hub.url}/datasets/demo/asked/ask-access"

    def sees() -> bool:
        try:
            out.auth_check(**where)
        except GatedRepoError:
            return False
        return True

    assert call("POST", ask, None, b"")[0] == 401
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert call("POST", ask, tokens["out"], b"Affiliation=Ward+3", **form)[0] == 200
    assert not sees()
    (request,) = api.list_pending_access_requests(**where)
    assert (request.username, request.fields, request.status) == ("out", {"Affiliation": "Ward 3"}, "pending")
    assert status_of(lambda: list(out.list_pending_access_requests(**where))) == 403
    api.accept_access_request(user="out", **where)
    assert sees()
    assert len(load_dataset("demo/asked", split="train", token=tokens["out"], cache_dir=str(tmp_path))) == 4
    assert [r.username for r in api.list_accepted_access_requests(**where)] == ["out"]
    assert status_of(api.grant_access, user="out", **where) == 400
    api.reject_access_request(request_id=request.request_id, rejection_reason="no longer here", **where)
    assert not sees()
    api.cancel_access_request("demo/asked", "out", repo_type="dataset")
    assert [r.username for r in api.list_pending_access_requests(**where)] == ["out"]
    api.grant_access(user="out", **where)
    assert sees()
    assert status_of(api.grant_access, user="nobody", **where) == 404
    assert status_of(api.accept_access_request, user="ben", **where) == 404
    api.create_repo("demo/auto")
    api.update_repo_settings("demo/auto", gated="auto")
    assert status_of(out.auth_check, "demo/auto") == 403
    assert call("POST", f"{hub.url}/demo/auto/ask-access", tokens["out"], b"", **form)[0] == 200
    out.auth_check("demo/auto")


# --- many at once -----------------------------------------------------------------------------------------------------


def check_counted(api: HfApi, root: Path, repo: str, commits: int) -> None:
    """See that no commit of `count_up` was lost."""
    titles = [c.title for c in api.list_repo_commits(repo)]
    assert len(titles) == len(set(titles)) == commits + 2  # with the first one, and the one that began to count
    assert Path(hf_hub_download(repo, "n.txt", token=api.token)).read_text() == str(commits)
    assert len(api.list_repo_files(repo)) == 1 + 2 * commits
    assert len(check_disk(root)[repo]) == commits + 2


def test_many_clients_lose_no_update(hub: RunningHub, api: HfApi, root: Path, tokens: dict[str, str]) -> None:
    api.create_repo("demo/counted")
    api.upload_file(path_or_fileobj=b"0", path_in_repo="n.txt", repo_id="demo/counted")
    writers = [other(hub, tokens[("ann", "ben")[w % 2]]) for w in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda w: count_up(writers[w], "demo/counted", w, 4), range(4)))
    check_counted(api, root, "demo/counted", 16)


@pytest.mark.slow
def test_eight_processes_push_two_hundred_commits(hub: RunningHub, api: HfApi, root: Path, tmp_path: Path) -> None:
    api.create_repo("demo/eight")
    api.upload_file(path_or_fileobj=b"0", path_in_repo="n.txt", repo_id="demo/eight")
    script = str(Path(__file__).parent.parent / "support" / "hub_writer.py")
    environment = os.environ | client_environment(hub)
    clients = [
        subprocess.Popen(
            [sys.executable, script, "count", "demo/eight", str(w), "25"], stdout=subprocess.PIPE, text=True,
            env=environment | {"HF_HOME": str(tmp_path / str(w))},
        )
        for w in range(8)
    ]  # fmt: skip
    again = [int(client.communicate(timeout=900)[0].splitlines()[-1]) for client in clients]
    assert [client.returncode for client in clients] == [0] * 8
    assert sum(again) > 0, "they never met"
    check_counted(api, root, "demo/eight", 200)


def test_datasets_pushed_at_once(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    def push(k: int) -> None:
        while True:  # datasets means to start again by itself, but looks for the refusal in the wrong place
            try:
                rows(5 + k).push_to_hub("demo/at-once", f"config{k}", token=hub.token)
                return
            except HfHubHTTPError as error:
                assert error.response.status_code == 412

    rows(4).push_to_hub("demo/at-once", "config0", token=hub.token)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(push, range(1, 4)))
    for k in range(1, 4):
        assert len(load_dataset("demo/at-once", f"config{k}", split="train", cache_dir=str(tmp_path))) == 5 + k


# --- what is left of it all -------------------------------------------------------------------------------------------


def test_the_log_says_who_did_what_and_holds_no_token_or_text(
    hub: RunningHub, api: HfApi, root: Path, tokens: dict[str, str]
) -> None:
    api.create_repo("demo/logged", private=True)
    api.upload_file(path_or_fileobj=CANARY.encode(), path_in_repo=f"{CANARY}.bin", repo_id="demo/logged")
    api.upload_file(path_or_fileobj=CANARY.encode(), path_in_repo=f"{CANARY}.txt", repo_id="demo/logged")
    places = (f"demo/logged?search={CANARY}", f"{CANARY}/{CANARY}/resolve/main/{CANARY}", f"api/models/{CANARY}")
    for place in places:
        call("GET", f"{hub.url}/{quote(place, safe='/?=')}", tokens["out"], Accept="text/html", Cookie=CANARY)
    said = root.with_name("root.log").read_text()
    assert " ann POST /api/models/demo/logged/commit/{revision} 200 " in said
    assert " out GET /{org}/{name} 404 " in said, "what is not shown is not named"
    assert not [secret for secret in (*tokens.values(), CANARY, CANARY.replace(" ", "%20"), "key=") if secret in said]


def test_all_of_it_is_whole(api: HfApi, root: Path) -> None:
    """Whatever the tests before left on this Hub: they may have run elsewhere."""
    api.create_repo("demo/last", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"a row", path_in_repo="rows.txt", repo_id="demo/last", repo_type="dataset")
    check_disk(root)
    facts = hub_verb("ls", "--root", root, "--check")
    assert "demo/last" in {repo["id"] for repo in facts["repos"]}
    assert facts["orgs"]["demo"] == {"ann": "write", "ben": "write", "rea": "read"}
