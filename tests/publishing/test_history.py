"""A repository becomes public only if everything that it can reach was released; withdrawn content never does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from support.publishing_rows import OPEN, RESTRICTED, gold_rows, synthetic_rows

from hf_synth.errors import PublishError
from hf_synth.publishing.gate import Verdict
from hf_synth.publishing.history import Commit, Reach, Releases, is_plain, releases_of, unreleased_contents
from hf_synth.publishing.publishing import publish_dataset
from hf_synth.publishing.release import entries
from hf_synth.publishing.remote import Repository
from hf_synth.publishing.sealed import Sealed
from hf_synth.publishing.withdrawal import withdraw

GOLD = gold_rows(RESTRICTED)
ROWS = synthetic_rows(RESTRICTED)


def public(name: str, where: Mapping[str, Any], *, rows: Any = ROWS, **more: Any) -> Verdict:
    told = {"gold": GOLD, "private": False, "gated": False, "attestation": "the board, 2026-01-02"}
    return publish_dataset(RESTRICTED, rows, name, **{**told, **where, **more})


def pushed(api: HfApi, name: str, path: str, content: bytes, **more: Any) -> str:
    edit = CommitOperationAdd(path, content)
    return str(api.create_commit(name, [edit], commit_message="mine", repo_type="dataset", **more).oid)


def anyone(hub: Any, name: str, revision: str, path: str) -> int:
    return httpx.get(f"{hub.url}/datasets/{name}/resolve/{revision}/{path}").status_code


# --- private -> public ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["the head", "an earlier commit", "another branch", "a tag", "a text file"])
def test_what_others_pushed_does_not_become_public(hub: Any, where: dict[str, Any], api: HfApi, place: str) -> None:
    name, there = f"org/{place.split()[-1]}-{len(place)}", {"repo_type": "dataset"}
    api.create_repo(name, private=True, **there)
    path = "notes/1.txt" if place == "a text file" else "gold.json"
    if place == "another branch":
        api.create_branch(name, branch="work", **there)
        pushed(api, name, path, b"a note", revision="work")
        revision = "work"
    else:
        revision = pushed(api, name, path, b"a note")
    if place in ("an earlier commit", "a tag"):
        if place == "a tag":
            api.create_tag(name, tag="mine", **there)
        api.delete_file(path, name, **there)
        api.super_squash_history(name, **there) if place == "a tag" else None
    for told in ({"dry_run": True}, {}):
        verdict = public(name, where, **told)
        assert not verdict.allowed
        assert "is private and would also show" in verdict.reasons[0]
        assert f"choose another name, e.g. {name}-2" in verdict.reasons[0]
    assert api.dataset_info(name).private
    assert anyone(hub, name, revision, path) == 401
    assert public(name, where, private=True).pushed  # in private it may lie beside what a team has there


def test_a_private_release_becomes_public_with_its_own_content_alone(where: dict[str, Any], api: HfApi) -> None:
    first = public("org/grown", where, private=True)
    assert api.dataset_info("org/grown").private
    with pytest.raises(PublishError, match="it would also show 1 earlier releases that were published in private only"):
        public("org/grown", where, rows=ROWS.select(range(20)))
    assert api.dataset_info("org/grown").private
    assert public("org/same", where, private=True).pushed
    assert public("org/same", where).pushed
    assert not api.dataset_info("org/same").private
    assert first.commit


def test_open_releases_may_be_shown_with_a_later_one(where: dict[str, Any], api: HfApi) -> None:
    told: dict[str, Any] = {**where, "gold": gold_rows(OPEN)}
    publish_dataset(OPEN, synthetic_rows(OPEN), "org/open", **told)
    assert publish_dataset(OPEN, synthetic_rows(OPEN, 20), "org/open", private=False, **told).pushed
    assert not api.dataset_info("org/open").private
    # another site's log does not know them
    elsewhere = {**told, "export_dir": where["export_dir"].parent.parent / "other" / "x"}
    publish_dataset(OPEN, synthetic_rows(OPEN), "org/open2", **told)
    other = publish_dataset(OPEN, synthetic_rows(OPEN), "org/open2", private=False, **elsewhere)
    assert "1 commits that are no releases of ours" in other.reasons[0]


def test_what_comes_while_it_is_pushed_does_not_become_public(
    where: dict[str, Any], api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Repository._compare

    def meanwhile(self: Repository, *args: Any) -> None:
        compare(self, *args)
        api.create_branch(self.repo_id, branch="work", repo_type="dataset")
        pushed(api, self.repo_id, "gold.json", b"a note", revision="work")

    monkeypatch.setattr(Repository, "_compare", meanwhile)
    with pytest.raises(PublishError, match="stays private, since it would also show 1 commits that are no releases"):
        public("org/meanwhile", where)
    assert api.dataset_info("org/meanwhile").private


def test_a_squash_that_is_asked_for_replaces_everything(hub: Any, where: dict[str, Any], api: HfApi) -> None:
    api.create_repo("org/squashed", private=True, repo_type="dataset")
    old = pushed(api, "org/squashed", "gold.csv", b"a note")
    api.create_tag("org/squashed", tag="v4", repo_type="dataset")
    api.create_branch("org/squashed", branch="work", repo_type="dataset")
    verdict = public("org/squashed", where, squash=True)
    assert verdict.pushed
    assert not api.dataset_info("org/squashed").private
    assert anyone(hub, "org/squashed", old, "gold.csv") == 404
    assert anyone(hub, "org/squashed", str(verdict.commit), "README.md") == 200
    assert "gold.csv" not in api.list_repo_files("org/squashed", repo_type="dataset")
    assert len(api.list_repo_commits("org/squashed", repo_type="dataset")) == 1
    refs = api.list_repo_refs("org/squashed", repo_type="dataset")
    assert {ref.name for ref in (*refs.branches, *refs.tags)} == {"main", verdict.tag}


def test_a_hub_that_still_serves_what_was_squashed_keeps_it_private(
    where: dict[str, Any], api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo("org/served", private=True, repo_type="dataset")
    pushed(api, "org/served", "gold.csv", b"a note")
    api.create_tag("org/served", tag="tagged", repo_type="dataset")
    api.super_squash_history("org/served", repo_type="dataset")  # now the tag alone leads to two commits
    asked: list[str] = []
    monkeypatch.setattr(Repository, "_served", lambda self, api, oids: asked.extend(oids) or sorted(oids))
    with pytest.raises(PublishError, match="its Hub still serves 4 earlier commits by their ids: choose another name"):
        public("org/served", where, squash=True)
    assert len(set(asked)) == 4
    assert api.dataset_info("org/served").private


# --- withdrawn --------------------------------------------------------------------------------------------------------
def test_a_withdrawn_repository_does_not_become_public_again(hub: Any, where: dict[str, Any], api: HfApi) -> None:
    first = public("org/leaked", where)
    assert first.commit is not None
    table = "raw/train-00000-of-00001.parquet"
    assert anyone(hub, "org/leaked", first.commit, table) == 200
    told = {"kind": "dataset", "endpoint": hub.url, "token": hub.token}
    done = withdraw("org/leaked", records=where["export_dir"].parent, **told)  # type: ignore[arg-type]
    assert f"withdrawn: dataset org/leaked on {hub.url}" in str(done)
    assert len(api.list_repo_commits("org/leaked", repo_type="dataset")) == 1
    again = public("org/leaked", where, rows=ROWS.select(range(20)))
    assert not again.allowed
    assert again.reasons[0].startswith("repository org/leaked was withdrawn")
    assert anyone(hub, "org/leaked", first.commit, table) == 401
    assert public("org/leaked", where, private=True).pushed
    assert not public("org/leaked", where).allowed
    elsewhere = {**where, "export_dir": where["export_dir"].parent.parent / "other" / "x"}
    assert "no releases of ours" in public("org/leaked", elsewhere).reasons[0]  # whose log does not know the name
    api.delete_repo("org/leaked", repo_type="dataset")
    assert public("org/leaked", where).pushed


# --- by the log alone -------------------------------------------------------------------------------------------------
SEAL = {"README.md": Sealed(3, "blob", "sha")}
OURS = Commit("c1", "Publish dataset with hf_synth", {"README.md": (3, "blob"), ".gitattributes": (9, "x")})
BORN = Commit("c0", "initial commit", {".gitattributes": (9, "x")})
ENTRY = {"kind": "dataset", "repo_id": "o/x", "endpoint": "h", "content": "d", "access": "restricted"}


def log(*more: Mapping[str, Any], **told: Any) -> Releases:
    asked = {"private": False, "asked": {"push": True}, **told}
    first = {"action": "export", "files": {"README.md": [3, "blob", "sha"]}, **ENTRY, **asked}
    return releases_of([first, *({**ENTRY, **asked, **entry} for entry in more)], "dataset", "o/x", "h")


@pytest.mark.parametrize("commit", [
    Commit("c1", "mine", OURS.files),
    Commit("c1", OURS.title, {**OURS.files, "notes.md": (1, "y")}),
    Commit("c1", OURS.title, {"README.md": (4, "blob")}),
    Commit("c1", OURS.title, {"README.md": (3, "other")}),
    Commit("c1", OURS.title, {}),
    Commit("c1", OURS.title, OURS.files, plain=False),
    Commit("c0", BORN.title, BORN.files, plain=False),
    Commit("c0", "a note of a patient", BORN.files),
    Commit("c0", BORN.title, BORN.files, message="a note of a patient"),
    Commit("c1", OURS.title, OURS.files, message="Access: open. Seen today with a cough."),
])  # fmt: skip
def test_a_commit_is_ours_by_all_that_it_holds(commit: Commit) -> None:
    assert unreleased_contents(Reach((BORN, replace(OURS, message="Access: restricted"))), log()) == []
    assert unreleased_contents(Reach((BORN, commit)), log()) == ["1 commits that are no releases of ours"]


def test_the_log_says_which_releases_may_be_public() -> None:
    reach, push = Reach((OURS,)), {"action": "push", "commit": "c1", "tag": "v1"}
    only = ["1 earlier releases that were published in private only"]
    assert unreleased_contents(reach, log(), content="other") == []
    for told in (
        {"private": True},
        {"asked": {"push": False}},
        {"private": True, "access": "open", "exposure": "none"},
    ):
        assert unreleased_contents(reach, log(**told), content="other") == only
        assert unreleased_contents(reach, log(**told), content="d") == []  # the content that is published now
        assert unreleased_contents(reach, log(**told)) == []  # which is not known before it is written
    assert unreleased_contents(reach, log(private=True, access="open"), content="other") == []
    assert unreleased_contents(reach, Releases(), seal=SEAL, content="d") == []
    elsewhere = releases_of([{"action": "push", **ENTRY, "commit": "c1", "tag": "v1"}], "dataset", "o/x", "another")
    assert unreleased_contents(reach, elsewhere) == ["1 commits that are no releases of ours"]
    # an entry of an earlier version names the commit, and no files
    early = releases_of([{**ENTRY, **push, "private": False, "asked": {"push": True}}], "dataset", "o/x", "h")
    assert unreleased_contents(Reach((Commit("c1", "mine", {}),)), early) == []
    taken = {"action": "withdraw", "tag": "v1", "content": None}
    assert unreleased_contents(reach, log(push, taken)) == ["1 commits of a withdrawn release"]
    assert unreleased_contents(reach, log(push, taken, push | {"commit": "c2"})) == ["1 commits of a withdrawn release"]
    assert not log(push, taken).withdrawn
    assert log(push, taken | {"tag": None}).withdrawn
    others = Reach((OURS,), ("2 pull requests", "1 discussions"))
    assert unreleased_contents(others, log()) == ["2 pull requests", "1 discussions"]


def test_attributes_as_a_hub_makes_them() -> None:
    assert is_plain("*.7z filter=lfs diff=lfs merge=lfs -text\n# Audio files - uncompressed\n\n")
    assert is_plain("saved_model/**/* filter=lfs diff=lfs merge=lfs -text\r\n")
    assert not is_plain("# a note of a patient\n")
    assert not is_plain("a note filter=lfs diff=lfs merge=lfs -text\n")


def test_the_log_holds_the_files_of_an_export(where: dict[str, Any]) -> None:
    public("org/logged", where)
    first, second = entries(where["export_dir"].parent)
    assert (first["action"], second["action"]) == ("export", "push")
    assert set(first["files"]) == {f.relative_to(where["export_dir"]).as_posix()
                                   for f in where["export_dir"].rglob("*") if f.is_file()}  # fmt: skip
