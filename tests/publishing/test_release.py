"""A release on a real Hub: whole or not at all, tagged, loadable without our code, tied to its origin, withdrawn."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from support.hub_clients import check_disk, served
from support.publishing_rows import OPEN, POLICY, RESTRICTED, gold_rows, synthetic_rows
from support.tiny import tiny_base

from hf_synth.errors import OutputError, PublishError
from hf_synth.hub import client_environment, connected, running_hub
from hf_synth.hub.request import Limits
from hf_synth.models.record import model_facts, write_facts
from hf_synth.models.training import train
from hf_synth.publishing import release
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.publishing.withdrawal import withdraw

PULL = """
import importlib.abc, json, sys

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_synth":
            raise ImportError("not installed here")

sys.meta_path.insert(0, Nothing())
from datasets import load_dataset
from transformers import pipeline

rows = load_dataset("org/synth", "corrected", revision="v1", split="train")
later = load_dataset("org/synth", "raw", split="train")
classify = pipeline("text-classification", "org/grader")
print(json.dumps({"rows": len(rows), "later": len(later), "names": rows.features["label"].names,
                  "said": classify(rows[0]["text"])[0]["label"], "ours": "hf_synth" in sys.modules}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("hub")
    tokens = {"ann": "hf_ann-of-the-tests", "bob": "hf_bob-of-the-tests"}
    with running_hub(root, tokens=tokens) as running, connected(running):
        yield running
    check_disk(root)


def files(folder: Path) -> dict[str, str]:
    found = (f for f in folder.rglob("*") if f.is_file())
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in found}


# --- what is tied together --------------------------------------------------------------------------------------------
def test_the_manifest_ties_gold_policy_dataset_and_model_together(tmp_path: Path) -> None:
    gold, rows = gold_rows(OPEN), synthetic_rows(OPEN)
    shared: dict[str, Any] = {"gold": gold, "push": False}
    manifest = {"access": "open", "policy": POLICY.to_json(), "corrector": "the digest of its weights"}
    publish_dataset(OPEN, rows, "org/rows", export_dir=tmp_path / "a", manifest=manifest, **shared)
    told = json.loads((tmp_path / "a" / "release.json").read_text())
    salt = release.salt_of(tmp_path)
    assert told["gold"] == release.gold_fingerprint(OPEN, [gold], salt)
    assert told["gold"] != release.gold_fingerprint(OPEN, [gold.select(range(29))], salt)
    assert told["gold"] != release.gold_fingerprint(OPEN, [gold], b"another site's")
    assert told["policy"] == {"method": "posterior", "fingerprint": POLICY.fingerprint()}
    assert len(told["corrector"]) == 32
    there = files(tmp_path / "a")
    assert told["files"] == {n: d for n, d in there.items() if n != "release.json"}

    corrected = rows.filter(lambda r: r["label_status"] in ("kept", "relabelled"))
    first = train(
        OPEN, corrected, base_model=tiny_base(tmp_path / "base"), output_dir=tmp_path / "m", args={"max_steps": 1}
    )
    second = train(OPEN, gold, base_model=first, output_dir=tmp_path / "m2", args={"max_steps": 1})
    publish_model(OPEN, first, None, "org/first", export_dir=tmp_path / "b", **shared)
    tied = json.loads((tmp_path / "b" / "release.json").read_text())
    assert tied["derives_from"] == [
        {"kind": "dataset", "repo_id": "org/rows", "content": told["content"], "rows": len(corrected)}
    ]
    card = (tmp_path / "b" / "README.md").read_text()
    assert "Comes from dataset `org/rows`, 18 of its texts" in card
    assert "datasets:\n- org/rows" in card
    publish_model(OPEN, second, None, "org/second", export_dir=tmp_path / "c", **shared)
    log = release.entries(tmp_path)
    assert {d["repo_id"] for d in release.derived_releases(log, "org/rows")} == {"org/first", "org/second"}
    assert {d["repo_id"] for d in release.derived_releases(log, "org/first", "model")} == {"org/second"}
    assert release.derived_releases(log, "org/second", "model") == []


def test_the_publishing_log_shows_what_was_changed_in_it(tmp_path: Path) -> None:
    for number in range(5):
        release.record(tmp_path, "export", number=number)
    path = tmp_path / ".hf_synth" / release.LOG
    assert [e["number"] for e in release.entries(tmp_path)] == list(range(5))
    lines = path.read_text().splitlines()
    for broken in (lines[:1] + lines[2:], [*lines[:2], lines[2].replace('"number": 2', '"number": 9'), *lines[3:]],
                   [*lines, "{"]):  # fmt: skip
        path.write_text("\n".join(broken) + "\n")
        with pytest.raises(OutputError, match="the log was changed here"):
            release.entries(tmp_path)


# --- whole or not at all ----------------------------------------------------------------------------------------------
def test_releases_are_tags_and_a_second_run_uploads_nothing(where: dict[str, Any], api: HfApi, tmp_path: Path) -> None:
    rows = synthetic_rows(OPEN)
    first = publish_dataset(OPEN, rows, "ann/tagged", private=False, **where)
    again = publish_dataset(OPEN, rows, "ann/tagged", private=False, **where)
    assert (first.tag, again.tag, again.commit) == ("v1", "v1", first.commit)
    second = publish_dataset(OPEN, rows.select(range(20)), "ann/tagged", private=False, **where)
    assert second.tag == "v2"
    cache = str(tmp_path / "cache")
    one = load_dataset("ann/tagged", "corrected", revision="v1", split="train", cache_dir=cache)
    two = load_dataset("ann/tagged", "corrected", revision="v2", split="train", cache_dir=cache)
    assert (len(one), len(two)) == (first.counts["rows of corrected"], second.counts["rows of corrected"])
    assert set(two["id"]) < set(one["id"])  # a row keeps its id in every release
    with pytest.raises(PublishError, match="has a tag 'v1' already"):
        publish_dataset(OPEN, rows.select(range(10)), "ann/tagged", private=False, tag="v1", **where)
    assert api.dataset_info("ann/tagged").sha == second.commit
    named = publish_dataset(OPEN, rows.select(range(10)), "ann/tagged", private=False, tag="final", **where)
    assert {t.name for t in api.list_repo_refs("ann/tagged", repo_type="dataset").tags} == {"v1", "v2", "final"}
    assert named.tag == "final"
    actions = [(e["action"], e.get("uploaded")) for e in release.entries(where["export_dir"].parent)]
    assert actions.count(("push", True)) == 3
    assert actions.count(("push", False)) == 1


def test_a_clean_environment_loads_what_was_published(
    hub: Any, where: dict[str, Any], tmp_path: Path, model: Path,
) -> None:  # fmt: skip
    told: dict[str, Any] = {"private": False, "gold": gold_rows(OPEN)}
    publish_dataset(OPEN, synthetic_rows(OPEN), "org/synth", **where, **told)
    publish_dataset(OPEN, synthetic_rows(OPEN, 50), "org/synth", **where, **told)
    publish_model(OPEN, model, None, "org/grader", **(where | {"export_dir": tmp_path / "export" / "m"}), **told)
    environment = client_environment(hub) | {"HF_HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    environment.pop("HF_TOKEN")
    done = subprocess.run(
        [sys.executable, "-I", "-c", PULL], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert said["names"] == ["no", "yes", "maybe"]
    assert said["said"] in said["names"]
    assert (said["rows"], said["later"], said["ours"]) == (18, 45, False)


@pytest.mark.parametrize("damage", ["bytes", "missing"])
def test_a_repository_stays_private_until_it_was_read_back_whole(
    where: dict[str, Any], api: HfApi, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    fetch, name = HfApi.hf_hub_download, f"ann/damaged-{damage}"

    def broken(self: HfApi, *args: Any, **told: Any) -> str:
        path = Path(fetch(self, *args, **told))
        if path.suffix == ".parquet":
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        return str(path)

    if damage == "bytes":
        monkeypatch.setattr(HfApi, "hf_hub_download", broken)
    else:
        monkeypatch.setattr(HfApi, "list_repo_tree", lambda *a, **k: iter(()))
    with pytest.raises(PublishError, match="does not hold what was sent"):
        publish_dataset(OPEN, synthetic_rows(OPEN), name, private=False, **where)
    info = api.dataset_info(name)
    assert info.private
    assert api.list_repo_refs(name, repo_type="dataset").tags == []
    assert release.entries(where["export_dir"].parent)[-1]["action"] == "push failed"
    monkeypatch.undo()
    mended = publish_dataset(OPEN, synthetic_rows(OPEN), name, private=False, **where)
    assert mended.pushed
    assert not api.dataset_info(name).private


def test_no_cache_of_this_machine_answers_for_the_hub(where: dict[str, Any], api: HfApi) -> None:
    publish_dataset(OPEN, synthetic_rows(OPEN), "ann/cached", **where)
    here = Path(api.snapshot_download("ann/cached", repo_type="dataset"))  # in the cache that everybody has
    for file in here.rglob("*.parquet"):
        file.resolve().write_bytes(b"of something else")
    assert publish_dataset(OPEN, synthetic_rows(OPEN), "ann/cached", **where).pushed


def test_an_upload_that_breaks_leaves_an_empty_private_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "hub"
    commit = HfApi.create_commit
    with served(root) as (server, url, token):

        def die(self: HfApi, *args: Any, **told: Any) -> Any:
            server.kill()
            server.wait()
            return commit(self, *args, **told)

        monkeypatch.setattr(HfApi, "create_commit", die)
        with pytest.raises(PublishError, match="cannot be reached"):
            publish_dataset(
                OPEN, synthetic_rows(OPEN), "org/broken", private=False, endpoint=url, token=token,
                export_dir=tmp_path / "export" / "x",
            )  # fmt: skip
    monkeypatch.undo()
    check_disk(root)
    with served(root) as (_, url, token):
        info = HfApi(endpoint=url, token=token).dataset_info("org/broken")
        assert info.private
        assert not [s for s in info.siblings or () if s.rfilename != ".gitattributes"]


def test_what_is_too_large_for_the_hub_is_one_sentence(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub", limits=Limits(commit=2_000)) as small, connected(small):
        with pytest.raises(PublishError, match="too large"):
            publish_dataset(
                OPEN, synthetic_rows(OPEN), "org/big", private=False, endpoint=small.url, token=small.token,
                export_dir=tmp_path / "export" / "x",
            )  # fmt: skip
        info = HfApi(endpoint=small.url, token=small.token).dataset_info("org/big")
        assert info.private


def test_a_token_without_rights_is_one_sentence_and_changes_nothing(where: dict[str, Any], api: HfApi) -> None:
    mine = publish_dataset(OPEN, synthetic_rows(OPEN), "ann/hers", private=False, **where)
    hidden = publish_dataset(OPEN, synthetic_rows(OPEN), "ann/hidden", **where)
    bob = where | {"token": "hf_bob-of-the-tests"}
    for name in ("ann/hers", "ann/hidden", "ann/new"):
        with pytest.raises(PublishError, match=r"status 40[134]") as caught:
            publish_dataset(OPEN, synthetic_rows(OPEN, 20), name, **bob)
        assert "hf_bob" not in str(caught.value)
    with pytest.raises(PublishError):
        withdraw("ann/hers", kind="dataset", endpoint=where["endpoint"], token=bob["token"])
    assert api.dataset_info("ann/hers").sha == mine.commit
    assert api.dataset_info("ann/hidden").sha == hidden.commit
    assert not api.repo_exists("ann/new", repo_type="dataset")


def test_nothing_is_put_beside_what_other_tools_left(where: dict[str, Any], api: HfApi, model: Path) -> None:
    api.create_repo("ann/old-model", private=True)
    api.create_commit(
        "ann/old-model", [CommitOperationAdd("training_args.bin", b"pickle")], commit_message="a trainer's"
    )
    before = api.model_info("ann/old-model").sha
    with pytest.raises(PublishError, match=r"training_args\.bin"):
        publish_model(OPEN, model, None, "ann/old-model", gold=gold_rows(OPEN), **where)
    assert api.model_info("ann/old-model").sha == before


# --- taken back -------------------------------------------------------------------------------------------------------
def test_a_repository_is_withdrawn_and_what_derives_from_it_is_named(
    hub: Any,
    where: dict[str, Any],
    api: HfApi,
    tmp_path: Path,
    model: Path,
) -> None:
    rows, gold = synthetic_rows(OPEN), gold_rows(OPEN)
    publish_dataset(OPEN, rows, "ann/gone", gold=gold, private=False, **where)
    import shutil

    child = tmp_path / "child"
    shutil.copytree(model, child, symlinks=True)
    seen = release.row_digests(OPEN, rows.select(range(4)))
    write_facts(child, {**model_facts(model), "row_digests": seen, "known": None})
    publish_model(OPEN, child, None, "ann/child", gold=gold, **(where | {"export_dir": tmp_path / "export" / "m"}))
    told = {"records": tmp_path / "export", "endpoint": hub.url, "token": hub.token}
    planned = withdraw("ann/gone", dry_run=True, **told)
    assert [d["repo_id"] for d in planned.derives] == ["ann/child"]
    assert planned.done == {}
    assert not api.dataset_info("ann/gone").private
    done = withdraw("ann/gone", **told)
    assert done.done["private"]
    assert done.done["tags"] == ["v1"]
    assert "model ann/child (v1)" in str(done)
    anyone = HfApi(endpoint=hub.url, token=False)
    with pytest.raises(RepositoryNotFoundError):
        anyone.dataset_info("ann/gone")
    assert set(api.list_repo_files("ann/gone", repo_type="dataset")) <= {"README.md", ".gitattributes"}
    card = Path(api.hf_hub_download("ann/gone", "README.md", repo_type="dataset", cache_dir=tmp_path / "c")).read_text()
    assert "# Withdrawn" in card
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info("ann/gone", revision="v1")
    entry = release.entries(tmp_path / "export")[-1]
    assert entry["action"] == "withdraw"
    assert [d["repo_id"] for d in entry["derives"]] == ["ann/child"]
    assert withdraw("ann/gone", **told).done["private"]  # a second time changes nothing more
    with pytest.raises(PublishError, match="no repository"):
        withdraw("ann/never-there", **told)


def test_a_withdrawal_that_stops_halfway_says_what_was_done(
    hub: Any, where: dict[str, Any], api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = synthetic_rows(OPEN)
    publish_dataset(OPEN, rows, "ann/halfway", private=False, **where)
    publish_dataset(OPEN, rows.select(range(20)), "ann/halfway", private=False, **where)
    told = {"records": tmp_path / "export", "endpoint": hub.url, "token": hub.token}
    delete = HfApi.delete_tag

    def once(self: HfApi, *args: Any, tag: str, **more: Any) -> None:
        if tag == "v2":
            raise ConnectionError("a note of a patient")
        delete(self, *args, tag=tag, **more)

    monkeypatch.setattr(HfApi, "delete_tag", once)
    with pytest.raises(
        PublishError, match="deleting its tags: .*; not done: delete tag v2, squash its history: withdraw it"
    ):
        withdraw("ann/halfway", **told)
    entry = release.entries(tmp_path / "export")[-1]
    assert (entry["action"], entry["left"]) == ("withdraw failed", ["delete tag v2", "squash its history"])
    assert (entry["done"]["private"], entry["done"]["tags"]) == (True, ["v1"])
    assert entry["done"]["commit"] == api.dataset_info("ann/halfway").sha
    assert "patient" not in str(entry)

    def interrupted(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        withdraw("ann/halfway", **told)
    entry = release.entries(tmp_path / "export")[-1]
    assert (entry["error"], entry["left"]) == ("KeyboardInterrupt", ["empty it", "delete tag v2", "squash its history"])
    monkeypatch.undo()
    assert withdraw("ann/halfway", **told).done["tags"] == ["v2"]
    before = len(release.entries(tmp_path / "export"))
    with pytest.raises(PublishError, match="has no tag 'v9'"):  # nothing was begun: nothing to record
        withdraw("ann/halfway", tag="v9", **told)
    assert len(release.entries(tmp_path / "export")) == before


def test_one_release_is_withdrawn_and_the_others_stay(
    hub: Any, where: dict[str, Any], api: HfApi, tmp_path: Path
) -> None:
    rows = synthetic_rows(OPEN)
    publish_dataset(OPEN, rows, "ann/many", private=False, **where)
    publish_dataset(OPEN, rows.select(range(20)), "ann/many", private=False, **where)
    told = {"records": tmp_path / "export", "endpoint": hub.url, "token": hub.token}
    withdrawn = api.dataset_info("ann/many", revision="v1").sha
    third = publish_dataset(OPEN, rows.select(range(10)), "ann/many", private=False, **where)
    done = withdraw("ann/many", tag="v1", **told)
    assert {k: done.done[k] for k in ("private", "tags", "files", "commit")} == {
        "private": False, "tags": ["v1"], "files": 0, "commit": None,
    }  # fmt: skip
    reached = {
        c.commit_id
        for tag in ("v2", "v3", "main")
        for c in api.list_repo_commits("ann/many", repo_type="dataset", revision=tag)
    }
    assert len(reached) == 2
    assert withdrawn not in reached
    assert {b.name for b in api.list_repo_refs("ann/many", repo_type="dataset").branches} == {"main"}
    assert done.done["served"] == 0
    assert "still serves" not in str(done)
    elsewhere = replace(done, done=done.done | {"served": 1})  # on a Hub that forgets nothing
    assert "still serves 1 earlier commits to whoever knows their ids" in str(elsewhere)
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info("ann/many", revision=withdrawn)
    assert len(load_dataset("ann/many", "raw", revision="v3", split="train", cache_dir=str(tmp_path / "c"))) == 9
    assert third.commit not in reached
    assert withdraw("ann/many", tag="v3", **told).done["commit"]
    assert "raw/train-00000-of-00001.parquet" in api.list_repo_files("ann/many", repo_type="dataset", revision="v2")
    publish_dataset(OPEN, rows.select(range(20)), "ann/many", private=False, tag="again", **where)
    assert not api.dataset_info("ann/many").private
    assert len(load_dataset("ann/many", "raw", revision="v2", split="train", cache_dir=str(tmp_path / "c"))) == 18
    newest = withdraw("ann/many", tag="again", **told)
    assert newest.done["commit"]
    assert not [f for f in api.list_repo_files("ann/many", repo_type="dataset") if f.endswith(".parquet")]
    with pytest.raises(PublishError, match="has no tag 'v7'"):
        withdraw("ann/many", tag="v7", **told)


def test_a_restricted_release_is_pulled_by_its_tag_with_a_token(
    hub: Any, where: dict[str, Any], tmp_path: Path
) -> None:
    verdict = publish_dataset(RESTRICTED, synthetic_rows(RESTRICTED), "ann/site", gold=gold_rows(RESTRICTED), **where)
    assert verdict.tag == "v1"
    rows = load_dataset("ann/site", "corrected", revision="v1", split="train", token=hub.token, cache_dir=str(tmp_path))
    assert set(rows["access"]) == {"restricted"}


# --- what is shown, and gold that is open -----------------------------------------------------------------------------
def test_open_gold_leaves_only_when_asked_for_and_nothing_else_ever_does(tmp_path: Path) -> None:
    from datasets import DatasetDict

    gold = DatasetDict(train=gold_rows(OPEN), test=gold_rows(OPEN, kind="test"))
    told: dict[str, Any] = {"push": False, "export_dir": tmp_path / "a"}
    verdict = publish_dataset(OPEN, synthetic_rows(OPEN), "o/x", gold=gold, augmented=True, **told)
    assert verdict.allowed, verdict
    cache = str(tmp_path / "cache")
    rows = load_dataset(str(tmp_path / "a"), "augmented", split="train", cache_dir=cache)
    assert {s: list(rows["source"]).count(s) for s in ("gold", "synthetic")} == {"gold": 30, "synthetic": 18}
    assert set(gold["train"]["text"]) < set(rows["text"])
    assert not set(gold["test"]["text"]) & set(rows["text"])  # what is scored on stays unseen
    assert not any(i.startswith(("adm-", "secret-")) for i in rows["id"])
    assert "30 rows of open gold" in (tmp_path / "a" / "README.md").read_text()
    default = load_dataset(str(tmp_path / "a"), split="train", cache_dir=cache)
    assert set(default["source"]) == {"synthetic"}
    told["export_dir"] = tmp_path / "b"
    for task, given in ((RESTRICTED, gold_rows(RESTRICTED)), (OPEN, gold_rows(RESTRICTED)), (OPEN, None)):
        refused = publish_dataset(task, synthetic_rows(task), "o/x", gold=given, augmented=True, **told)
        assert not refused.allowed
        assert any("augmented" in reason for reason in refused.reasons)


def test_the_widget_shows_open_synthetic_rows_that_the_audit_let_pass(tmp_path: Path, model: Path) -> None:
    from huggingface_hub import ModelCard

    gold, rows = gold_rows(OPEN), synthetic_rows(OPEN, 300)
    texts = [gold["text"][0], *list(rows["text"])[1:]]
    rows = rows.remove_columns("text").add_column("text", texts)
    shared: dict[str, Any] = {"gold": gold, "push": False, "export_dir": tmp_path / "m"}
    publish_model(OPEN, model, None, "o/m", examples=rows, **shared)
    shown = [w["text"] for w in ModelCard((tmp_path / "m" / "README.md").read_text()).data.widget]
    assert shown == [texts[1], texts[3], texts[4]]  # the first is gold, the third was dropped
    publish_model(OPEN, model, None, "o/m", examples=synthetic_rows(RESTRICTED), **shared)
    assert "widget" not in (tmp_path / "m" / "README.md").read_text()
    publish_model(OPEN, model, None, "o/m", examples=gold, **shared)
    assert "widget" not in (tmp_path / "m" / "README.md").read_text()


def test_a_model_of_its_datasets_name_is_named_too() -> None:
    parent = {"kind": "dataset", "repo_id": "org/x", "content": "c"}
    log = [
        {"action": "push", **parent},
        {"action": "push", "kind": "model", "repo_id": "org/x", "content": "d", "derives_from": [parent]},
    ]
    assert [d["kind"] for d in release.derived_releases(log, "org/x", "dataset")] == ["model"]
    assert release.derived_releases(log, "org/x", "model") == []
