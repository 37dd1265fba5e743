"""What a Hub keeps: kills amid pushes, sweeping, checking, and what may happen beside a Hub that is served."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from support.hub_clients import call, check_disk, commit_body, hub_verb, served_by_verb, verb

from hf_synth.errors import OutputError
from hf_synth.hub import RunningHub, cards, client_environment, connected, reading, repositories, running_hub
from hf_synth.hub.disk import locked
from hf_synth.hub.names import HubError
from hf_synth.hub.request import Limits
from hf_synth.hub.store import Store, read_commit
from hf_synth.hub.sweeping import check, sweep
from hf_synth.hub.tree import Change
from hf_synth.hub.users import Users


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


# --- kills ------------------------------------------------------------------------------------------------------------
def push_through_kills(root: Path, clients: int, each: int, kills: int) -> None:
    """Let clients push, each until it is answered, and kill the server amid them; then look at what is kept."""
    token = hub_verb("create-user", "ann", "--root", root, "--founder")["token"]
    port = free_port()  # one for all starts: clients try again where they were
    environment = os.environ | client_environment(RunningHub(f"http://127.0.0.1:{port}", token))
    script = str(Path(__file__).parent.parent / "support" / "hub_writer.py")
    acknowledged = 0
    with contextlib.ExitStack() as held:
        work = []
        for turn in range(kills + 1):
            with served_by_verb(root, "--port", port) as (server, _):
                if turn == 0:
                    for w in range(clients):
                        command = [sys.executable, script, "push", str(w), str(each)]
                        work.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
                        held.callback(work[-1].kill)
                if turn < kills:
                    until = time.monotonic() + 60
                    goal = acknowledged + 1 + turn % 3  # so that each kill meets pushes under way
                    while (acknowledged := count_commits(root)) < goal and time.monotonic() < until:
                        time.sleep(0.01)
                    os.kill(server.pid, signal.SIGKILL)
                    server.wait()
                    check_disk(root)  # before a new start could clear anything
                else:
                    said = [json.loads(client.communicate(timeout=120)[0].splitlines()[-1]) for client in work]
    histories = check_disk(root)
    kept = [title for history in histories.values() for title in history if title != "initial commit"]
    done = {title for client in said for title in client["done"]}
    assert len(done) == clients * each
    assert done <= set(kept) <= {title for client in said for title in client["tried"]}
    assert len(kept) == len(set(kept)), "none is there twice"
    assert hub_verb("gc", "--root", root, "--hours", "0")["drafts"] == 0, "the last start cleared them"
    assert check_disk(root) == histories
    assert hub_verb("ls", "--root", root, "--check")["checked"]


def count_commits(root: Path) -> int:
    return sum(1 for _ in root.glob("repos/*/*/*/commits/*"))


def test_kills_amid_pushes_leave_whole_repositories(tmp_path: Path) -> None:
    push_through_kills(tmp_path / "hub", clients=2, each=4, kills=2)


@pytest.mark.slow
def test_kills_amid_fifty_pushes_leave_whole_repositories(tmp_path: Path) -> None:
    push_through_kills(tmp_path / "hub", clients=5, each=10, kills=10)


@pytest.mark.parametrize("step", range(18))
def test_a_stop_at_any_write_leaves_the_old_or_the_new(tmp_path: Path, step: int) -> None:
    """A kill after the n-th change of the disk, played by a process that ends itself there."""
    store = Store(tmp_path, serve=False)
    repo = store.create("models", "demo/x", "ann", private=False)
    before = store.commit(repo, "main")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from hf_synth.hub.store import Store; from hf_synth.hub.tree import Change\n"
        "store = Store(Path(sys.argv[1]), serve=False); left = int(sys.argv[2])\n"
        "repo = store.repo('models', 'demo/x')\n"
        "def stopping(real):\n"
        "    def run(*args, **kwargs):\n"
        "        global left\n"
        "        left -= 1\n"
        "        if left < 0: os._exit(9)\n"
        "        return real(*args, **kwargs)\n"
        "    return run\n"
        "os.replace, os.fsync, os.mkdir = stopping(os.replace), stopping(os.fsync), stopping(os.mkdir)\n"
        "change = Change({'a.txt': store.add_small(repo, b'new'), 'b.txt': store.add_small(repo, b'newer')})\n"
        "store.push(repo, 'main', None, 'ann', 'second', change)\n"
        "os._exit(0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(step)], check=False).returncode
    now = store.commit(repo, "main")
    assert ended in (0, 9)
    assert now == before or set(now.files) == {"a.txt", "b.txt"}
    if ended == 0:
        assert now.parent == before.oid
    check_disk(tmp_path)
    sweep(store, age=0)
    assert check_disk(tmp_path)["demo/x"] == (["initial commit"] if now == before else ["second", "initial commit"])
    assert not list((tmp_path / "tmp").iterdir())


# --- sweeping and checking --------------------------------------------------------------------------------------------
def test_gc_removes_what_nothing_names_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    with running_hub(root) as hub, connected(hub):
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("demo/x", private=True)
        for k in range(3):
            api.upload_file(path_or_fileobj=b"%d" % k * 100, path_in_repo="w.bin", repo_id="demo/x")
        api.create_tag("demo/x", tag="v1")
        api.upload_file(path_or_fileobj=b"draft", path_in_repo="w.bin", repo_id="demo/x")
        api.super_squash_history("demo/x")  # the tag holds what was before but the last
        blobs = root / "repos" / "models" / "demo" / "x" / "blobs"
        (root / "tmp" / "half").write_bytes(b"x" * 50)
        assert hub_verb("gc", "--root", root)["bytes"] == 0, "what is young stays"
        told = hub_verb("gc", "--root", root, "--hours", "0", "--dry-run")
        assert (told["commits"], told["files"], told["drafts"]) == (1, 0, 1)
        assert (root / "tmp" / "half").is_file()
        swept = hub_verb("gc", "--root", root, "--hours", "0")
        assert swept == {**told, "dry_run": False}
        api.delete_tag("demo/x", tag="v1")
        swept = hub_verb("gc", "--root", root, "--hours", "0")
        assert (swept["commits"], swept["files"]) == (4, 3)
        assert len(list(blobs.glob("*/*"))) == 1
        kept = Path(api.hf_hub_download("demo/x", "w.bin", cache_dir=tmp_path / "cache"))
        assert kept.read_bytes() == b"draft"
        assert hub_verb("ls", "--root", root, "--check")["repos"][0]["files"] == 1
        (found,) = check(Store(root, serve=False))
        assert (found.problems, found.commits, found.bytes) == ([], 1, 5)
        next(blobs.glob("*/*")).write_bytes(b"other")
        said = verb("ls", "--root", root, "--check")
        assert said.returncode == 1
        assert "damaged" in said.stdout
        assert "demo/x" in said.stdout
        next(blobs.glob("*/*")).unlink()
        assert "missing" in verb("ls", "--root", root, "--check").stdout


def test_what_no_branch_or_tag_leads_to_is_not_served(tmp_path: Path) -> None:
    """Who knows the id of a commit that was squashed away, or withdrawn, gets nothing, whether gc ran or not."""
    store = Store(tmp_path, serve=False)
    repo = store.create("models", "demo/x", "ann", private=False)

    def pushed(text: bytes, branch: str = "main") -> str:
        change = Change(added={"a.txt": store.add_small(repo, text)})
        return store.push(repo, branch, None, "ann", "m", change).oid

    def served(*oids: str) -> list[str]:
        found = []
        for oid in oids:
            with contextlib.suppress(HubError):
                assert store.commit(repo, oid).oid == oid
                found.append(oid)
        return found

    first, second = pushed(b"1"), pushed(b"2")
    store.add_ref(repo, "tags", "v/1", second)
    third = pushed(b"3")
    store.add_ref(repo, "heads", "work", second)
    side = pushed(b"4", "work")
    oids = [first, second, third, side]
    assert served(*oids) == oids
    new = store.squash(repo, "main", "ann", "squashed").oid
    assert served(*oids, new) == [first, second, side, new]
    store.delete_ref(repo, "heads", "work")
    assert served(*oids, new) == [first, second, new]
    with pytest.raises(HubError) as refused:
        store.commit(repo, third)
    assert refused.value.status == 404
    store.delete_ref(repo, "tags", "v/1")
    assert served(*oids, new) == [new]
    last = pushed(b"5")
    assert served(*oids, new, last) == [new, last]
    other = store.create("models", "demo/y", "ann", private=False)
    with pytest.raises(HubError):
        store.commit(other, last)
    store.delete(repo)
    again = store.create("models", "demo/x", "ann", private=False)
    assert again.id == repo.id
    assert served(new, last) == []
    assert store.parent(again, store.commit(again, "main")) is None


def test_commits_that_refs_lead_to_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients ask for every file by the id of its commit: a push must not make the Hub read the history again."""
    store = Store(tmp_path, serve=False)
    repo = store.create("models", "demo/x", "ann", private=False)
    first = store.commit(repo, "main").oid
    read: list[str] = []
    inner = read_commit
    monkeypatch.setattr("hf_synth.hub.store.read_commit", lambda folder, oid: read.append(oid) or inner(folder, oid))
    for n in range(40):
        store.push(repo, "main", None, "ann", "m", Change(added={"a.txt": store.add_small(repo, b"%d" % n)}))
        assert store.commit(repo, first).oid == first
    assert len(read) < 5 * 40


def test_gc_amid_pushes_takes_nothing_that_is_named(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        url = f"{hub.url}/api/models/demo/x/commit/main"
        body = json.dumps({"name": "x", "organization": "demo"}).encode()
        assert call("POST", f"{hub.url}/api/repos/create", hub.token, body)[0] == 200
        stop = threading.Event()

        def sweeping() -> None:
            store = Store(tmp_path, serve=False)
            while not stop.is_set():
                sweep(store, age=0)  # far too eager: a push may be refused, but none is broken

        sweeper = threading.Thread(target=sweeping)
        sweeper.start()
        codes = [call("POST", url, hub.token, commit_body({f"{k}.txt": b"%d" % k}))[0] for k in range(40)]
        stop.set()
        sweeper.join()
        assert set(codes) <= {200, 400, 404, 507}
        assert len(check_disk(tmp_path)["demo/x"]) == codes.count(200) + 1


# --- users, and the verbs ---------------------------------------------------------------------------------------------
def test_tokens_are_told_once_and_kept_as_hashes(tmp_path: Path) -> None:
    root, file = tmp_path / "hub", tmp_path / "token"
    said = verb("create-user", "ann", "--root", root, "--org", "ward")
    token = said.stdout.split()[-1]
    assert token.startswith("hf_")
    hub_verb("create-user", "ben", "--root", root, "--token-file", file, "--days", "1")
    assert file.stat().st_mode & 0o777 == 0o600
    kept = (root / "users.json").read_text()
    assert (root / "users.json").stat().st_mode & 0o777 == 0o600
    users = Users(root)
    assert users.of_token(token).user == "ann"
    assert users.of_token(file.read_text().strip()).user == "ben"
    listed = verb("token", "list", "--root", root, "--json").stdout + verb("ls", "--root", root, "--json").stdout
    for secret in (token, file.read_text().strip()):
        assert secret not in kept + listed + repr(users.tokens())
    (id,) = users.tokens("ann")
    assert verb("token", "revoke", id, "--root", root).returncode == 0
    with pytest.raises(Exception, match="Invalid user token"):
        users.of_token(token)
    with pytest.raises(ValueError, match="revoked"):
        users.add_token("ann", token=token)
    with running_hub(root, tokens={"ann": "hf_given_at_start"}) as hub:
        assert call("GET", f"{hub.url}/api/whoami-v2", token)[0] == 401
        assert call("GET", f"{hub.url}/api/whoami-v2", "hf_given_at_start")[0] == 200


def test_a_token_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_verb("create-user", "ann", "--root", tmp_path / "hub", "--days", "2")
    users = Users(tmp_path / "hub")
    _, token = users.add_token("ann", days=1)
    assert users.of_token(token).user == "ann"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_401)
    with pytest.raises(Exception, match="Invalid user token"):
        users.of_token(token)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("ls",), "there is no Hub"),
        (("create-user", "../x"), "cannot be the name"),
        (("create-user", "api"), "cannot be the name"),
        (("create-user", "ann", "--days", "-1"), "days"),
        (("create-user", "ann", "--org", "a/b"), "cannot be the name"),
        (("create-user", "ann", "--token-file", "/nowhere/x"), "--token-file"),
        (("org", "ward", "--add", "nobody"), "there is no user"),
        (("org", "ward"), "there is no organisation"),
    ],
)
def test_a_verb_says_in_one_sentence_what_is_wrong(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    done = verb(*args, "--root", tmp_path / "hub")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hf_" not in done.stderr
    assert not Users(tmp_path / "hub").names()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("x")
    for make in (lambda: Store(tmp_path, serve=False), lambda: Store(tmp_path, serve=True)):
        with pytest.raises(ValueError, match="not a Hub"):
            make()
    with pytest.raises(OutputError, match="not a Hub"), running_hub(tmp_path):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ["notes.csv"]


def test_locks_hold_between_processes(tmp_path: Path) -> None:
    Store(tmp_path, serve=False)
    code = (
        "import sys; from pathlib import Path; from hf_synth.hub.disk import locked\n"
        "with locked(Path(sys.argv[1]), 'aa', 'bb'): print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()

        def lock() -> None:
            with locked(tmp_path, "bb"):
                pass

        waiting = threading.Thread(target=lock, daemon=True)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        holder.stdin.close()
        waiting.join(30)
        assert not waiting.is_alive()


def test_users_added_at_once_are_all_there(tmp_path: Path) -> None:
    Store(tmp_path, serve=False)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: Users(tmp_path).add_user(f"user{k}"), range(24)))
    assert len(Users(tmp_path).names()) == 24


def test_the_users_own_token_file_is_not_made_where_there_are_users(tmp_path: Path) -> None:
    hub_verb("create-user", "ann", "--root", tmp_path / "hub")
    with running_hub(tmp_path / "hub") as hub:
        assert hub.token == ""
        assert not (tmp_path / "hub" / "token").exists()
    with running_hub(tmp_path / "one") as hub:
        token = hub.token
    (id,) = Users(tmp_path / "one").tokens("local")
    Users(tmp_path / "one").revoke(id)
    with running_hub(tmp_path / "one") as hub:
        assert hub.token != token
        assert call("GET", f"{hub.url}/api/whoami-v2", token)[0] == 401


def test_behind_a_proxy_and_for_members_only(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    token = hub_verb("create-user", "ann", "--root", root)["token"]
    port = free_port()
    with served_by_verb(root, "--members-only", "--url", "https://hub.example.org/", "--port", port) as (_, shown):
        assert shown == "https://hub.example.org"
        url = f"http://127.0.0.1:{port}"
        body = json.dumps({"name": "x"}).encode()
        code, made, _ = call("POST", f"{url}/api/repos/create", token, body)
        assert (code, json.loads(made)["url"]) == (200, "https://hub.example.org/ann/x")
        large = json.dumps({"operation": "upload", "objects": [{"oid": "0" * 64, "size": 3}]}).encode()
        answer = json.loads(call("POST", f"{url}/ann/x.git/info/lfs/objects/batch", token, large)[1])
        assert answer["objects"][0]["actions"]["upload"]["href"].startswith("https://hub.example.org/lfs/models/ann/x/")
        for place in ("/", "/api/models", "/ann/x", "/api/models/ann/x", "/api/models/ann/y", "/api/whoami-v2"):
            assert call("GET", url + place, None)[0] == 401, place
        assert call("GET", f"{url}/api/models/ann/x", token)[0] == 200
        assert call("GET", f"{url}/", None, Accept="text/html")[2]["www-authenticate"].startswith("Basic")


def test_a_hub_of_which_only_part_was_sent_answers(tmp_path: Path) -> None:
    """A body that stops coming is given up, so that it holds nothing."""
    with running_hub(tmp_path, limits=Limits(idle=0.3)) as hub:
        host, port = hub.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as wire:
            head = f"POST /api/repos/create HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {hub.token}\r\n"
            wire.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert wire.recv(100).split()[1] == b"408"
        assert not list((tmp_path / "tmp").iterdir())


# --- users who leave --------------------------------------------------------------------------------------------------
def test_a_user_who_is_removed_comes_in_no_more_and_leaves_nothing_to_another(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    tokens = {name: hub_verb("create-user", name, "--root", root, "--org", "ward")["token"] for name in ("ann", "ben")}
    hub_verb("org", "lab", "--root", root, "--add", "ben")
    with served_by_verb(root) as (_, url), connected(RunningHub(url, tokens["ann"])):
        ann, ben = (HfApi(endpoint=url, token=token) for token in tokens.values())
        second = HfApi(endpoint=url, token=hub_verb("token", "create", "ben", "--root", root)["token"])
        for repo in ("ben/own", "ward/shared"):
            ben.create_repo(repo, private=True)
            ben.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
        ann.create_repo("ward/own")
        taken = verb("remove-user", "ben", "--root", root, "--repos-to", "ward")
        assert "ward/own is there already" in taken.stderr
        assert ben.whoami()["name"] == "ben"  # nothing was done by halves
        ann.delete_repo("ward/own")
        said = hub_verb("remove-user", "ben", "--root", root, "--repos-to", "ward")  # while the Hub is served
        assert (said["moved"], said["left"], said["orgs_without_writer"]) == (["ward/own"], [], ["lab"])
        for api in (ben, second):
            with pytest.raises(HfHubHTTPError) as caught:
                api.whoami()
            assert caught.value.response.status_code == 401
        assert ann.list_repo_files("ward/own") == ["x.txt"]
        assert ann.list_repo_files("ward/shared") == ["x.txt"]
        assert {m.username for m in ann.list_organization_members("ward")} == {"ann"}
    assert hub_verb("ls", "--root", root)["users"] == ["ann"]
    for words in (["create-user", "ben"], ["token", "create", "ben"], ["org", "ward", "--add", "ben"]):
        again = verb(*words, "--root", root)
        assert again.returncode == 1
        assert "ben" in again.stderr
    assert "there is no user 'ben'" in verb("remove-user", "ben", "--root", root).stderr
    stays = hub_verb("remove-user", "ann", "--root", root)
    assert (stays["moved"], stays["orgs_without_writer"]) == ([], ["ward"])


def test_the_user_of_a_fresh_hub_can_be_removed(tmp_path: Path) -> None:
    with running_hub(tmp_path) as running:
        api = HfApi(endpoint=running.url, token=running.token)
        assert api.whoami()["name"] == "local"
    assert Users(tmp_path).remove_user("local") == []
    assert Users(tmp_path).default_token() is None


# --- lists of many, histories that are long ---------------------------------------------------------------------------
def test_the_head_of_a_card_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = cards.parse_head
    monkeypatch.setattr(cards, "parse_head", lambda head: parsed.append(head) or parse(head))
    monkeypatch.setattr(repositories, "_HEADS", cards.Heads(most=3, longest=200))
    with running_hub(tmp_path) as running, connected(running):
        api = HfApi(endpoint=running.url, token=running.token)

        def write(repo: str, tag: str) -> None:
            card = f"---\ntags: [{tag}]\n---\n# Card".encode()
            api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)

        def tags() -> dict[str, list[str]]:
            parsed.clear()
            return {m.id: m.tags or [] for m in api.list_models(author="demo")}

        for k in range(3):
            api.create_repo(f"demo/r{k}")
            write(f"demo/r{k}", f"first{k}")
        assert tags() == {f"demo/r{k}": [f"first{k}"] for k in range(3)}
        assert len(parsed) == 3
        assert tags() == {f"demo/r{k}": [f"first{k}"] for k in range(3)}
        assert parsed == []
        write("demo/r1", "second")  # another card is another head
        assert tags()["demo/r1"] == ["second"]
        assert len(parsed) == 1
        write("demo/r2", "third]\nx: [" + "long" * 60)  # too long to be kept: a list has its tags alone
        assert tags()["demo/r2"] == ["third"]
        assert len(parsed) == 2  # with the first one, which was dropped
        assert tags()["demo/r2"] == ["third"]
        assert parsed == []
        assert api.model_info("demo/r2").card_data.to_dict()["x"] == ["long" * 60]  # a repository has all of it
        assert tags()["demo/r2"] == ["third"]
        assert len(repositories._HEADS._cache) == 3


def test_a_tree_with_last_commits_goes_back_a_bounded_part_of_a_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub(tmp_path) as running, connected(running):
        api = HfApi(endpoint=running.url, token=running.token)
        api.create_repo("demo/long")
        for k in range(5):
            api.upload_file(
                path_or_fileobj=b"x", path_in_repo=f"{k}.txt", repo_id="demo/long", commit_message=f"commit {k}"
            )

        def last() -> list[str | None]:
            tree = api.list_repo_tree("demo/long", expand=True)
            return [f.last_commit and f.last_commit.title for f in tree]

        read: list[str] = []
        parent = Store.parent
        monkeypatch.setattr(Store, "parent", lambda self, repo, now: read.append(now.oid) or parent(self, repo, now))
        assert last() == [f"commit {k}" for k in range(5)]
        monkeypatch.setattr(reading, "BACK", 3)
        read.clear()
        assert last() == [None, None, "commit 2", "commit 3", "commit 4"]
        assert len(read) == 3  # commits before the one asked for
        assert api.get_paths_info("demo/long", "4.txt", expand=True)[0].last_commit is not None
        monkeypatch.setattr(reading, "LOOKED_AT", 9)  # five files, then four
        assert last() == [None, None, None, "commit 3", "commit 4"]
