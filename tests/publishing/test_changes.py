"""What a release will change is shown before it is sent, against what the repository holds at that moment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub import CommitOperationAdd, HfApi
from support.publishing_rows import CANARY, OPEN, gold_rows, synthetic_rows

from hf_synth.errors import PublishError
from hf_synth.publishing.changes import Changes, Present, changes_of, size_of
from hf_synth.publishing.publishing import publish_dataset
from hf_synth.publishing.release import entries
from hf_synth.publishing.sealed import sealed


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "x"
    publish_dataset(OPEN, synthetic_rows(OPEN, 6), "org/x", push=False, export_dir=folder)
    return folder


def asked(rows: Dataset, name: str, where: dict[str, Any], **options: Any) -> Changes:
    """Return the changes that a push shows; nothing is sent."""
    shown: list[Any] = []
    verdict = publish_dataset(OPEN, rows, name, confirm=lambda v: bool(shown.append(v)), **where, **options)
    assert not verdict.pushed
    assert shown[0].changes == verdict.changes
    assert isinstance(verdict.changes, Changes)
    return verdict.changes


def relabelled(rows: Dataset, change: dict[int, int]) -> Dataset:
    labels = [change.get(i, label) for i, label in enumerate(rows["label"])]
    feature = rows.features["label"]
    return rows.remove_columns("label").add_column("label", labels, feature=feature)


def test_a_new_repository_gets_all_of_it(where: dict[str, Any], api: HfApi) -> None:
    changes = asked(synthetic_rows(OPEN), "org/new", where)
    assert not api.repo_exists("org/new", repo_type="dataset")
    assert changes.new
    assert {change for change, _, _ in changes.files.values()} == {"added"}
    assert changes.files["README.md"][2] == (where["export_dir"] / "README.md").stat().st_size
    assert set(changes.files) == {
        p.relative_to(where["export_dir"]).as_posix() for p in where["export_dir"].rglob("*") if p.is_file()
    }
    assert (changes.rows_added, changes.rows_removed) == ({"maybe": 9, "no": 9}, {})
    assert (changes.visibility, changes.tag) == (("none", "private"), "v1")
    assert "which is new" in str(changes)
    assert "rows added: 18 (maybe 9, no 9)" in str(changes)


def test_rows_are_counted_by_label_and_sections_are_named(where: dict[str, Any]) -> None:
    rows = synthetic_rows(OPEN)
    assert publish_dataset(OPEN, rows, "org/rows", **where).pushed
    later = relabelled(rows.select(range(24)), {0: 1, 1: 1})  # rows 0 "no" and 1 "maybe" are now "yes"
    changes = asked(later, "org/rows", where, private=False)
    assert changes.rows_added == {"yes": 2}
    assert changes.rows_removed == {"maybe": 3, "no": 3}
    assert changes.files["corrected/train-00000-of-00001.parquet"][0] == "changed"
    assert {"header", "Labels", "How it was made"} <= set(changes.sections)
    assert "Intended use and limits" not in changes.sections
    assert changes.tag == "v2"
    assert "visibility: private -> PUBLIC" in str(changes)
    raw = asked(synthetic_rows(OPEN, corrected=False), "org/rows", where)  # another default config
    assert raw.files["corrected/train-00000-of-00001.parquet"][0] == "removed"
    assert (raw.rows_added, raw.rows_removed) == ({"maybe": 9, "yes": 9}, {"maybe": 9})
    json.dumps(raw.to_json())


def test_what_changed_after_it_was_shown_is_not_overwritten(where: dict[str, Any], api: HfApi) -> None:
    rows = synthetic_rows(OPEN)
    assert publish_dataset(OPEN, rows, "org/moved", **where).pushed

    def meanwhile(_verdict: Any) -> bool:
        add = CommitOperationAdd("notes.md", b"mine")
        api.create_commit("org/moved", [add], commit_message="another", repo_type="dataset")
        return True

    with pytest.raises(PublishError, match="after its changes were shown; nothing was sent"):
        publish_dataset(OPEN, rows.select(range(20)), "org/moved", confirm=meanwhile, **where)
    assert api.list_repo_commits("org/moved", repo_type="dataset")[0].title == "another"
    log = entries(where["export_dir"].parent)
    assert log[-1]["action"] == "push failed"


def test_a_dry_run_shows_the_same_and_leaves_nothing(where: dict[str, Any], api: HfApi, tmp_path: Path) -> None:
    rows = synthetic_rows(OPEN)
    dry = publish_dataset(OPEN, rows, "org/dry", dry_run=True, **where)
    assert list(tmp_path.iterdir()) == []
    assert not api.repo_exists("org/dry", repo_type="dataset")
    assert dry.changes is not None
    assert "what changes in the repository, which is new:" in str(dry)
    sent = publish_dataset(OPEN, rows, "org/dry", **where)
    assert sent.changes is not None
    assert set(dry.changes.files) == set(sent.changes.files)
    assert dry.changes.rows_added == sent.changes.rows_added
    again = publish_dataset(OPEN, rows, "org/dry", dry_run=True, **where)
    assert again.changes is not None
    assert again.changes.files == {}, "with the salt of the exports the ids are the same"
    assert (again.changes.rows_added, again.changes.rows_removed, again.changes.sections) == ({}, {}, ())
    assert (again.changes.visibility, again.changes.tag) == (("private", "private"), "v1")
    assert "files: none" in str(again)
    only_written = publish_dataset(OPEN, rows, "org/dry", dry_run=True, push=False, **where)
    assert only_written.changes is None


def test_nothing_that_a_foreign_repository_holds_is_shown(where: dict[str, Any], api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/foreign", repo_type="dataset", private=True)
    own = gold_rows(replace(OPEN, labels=(CANARY, "b", "c")))
    own.to_parquet(tmp_path / "rows.parquet")
    card = f"---\n{CANARY}: 1\nconfigs:\n- config_name: raw\n  default: true\n---\n## {CANARY}\n{CANARY}\n"
    held = {
        f"{CANARY}/train.parquet": (tmp_path / "rows.parquet").read_bytes(), "README.md": card.encode(),
        "raw/train-00000-of-00001.parquet": (tmp_path / "rows.parquet").read_bytes(),
    }  # fmt: skip
    adds = [CommitOperationAdd(name, data) for name, data in held.items()]
    api.create_commit("org/foreign", adds, commit_message="x", repo_type="dataset")
    changes = asked(synthetic_rows(OPEN), "org/foreign", where)
    assert changes.rows_removed == {"another label": 30}
    assert "1 sections removed" in changes.sections
    assert "a file of another kind (1)" in changes.files
    assert CANARY not in str(changes)
    assert CANARY not in json.dumps(changes.to_json())


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "header",
    [
        f"{BOMB}configs:\n- config_name: *a11\n  default: true\n", "configs: " + "[" * 3_000, "configs: 3\n",
        "configs:\n- config_name: ../../etc\n  default: true\n", "x: " + "1:00" * 2_000, "configs: {a: b}",
    ],
    ids=["aliases", "nesting", "number", "path", "date", "mapping"],
)  # fmt: skip
def test_a_hostile_card_of_a_repository_costs_nothing(export: Path, tmp_path: Path, header: str) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "README.md").write_text(f"---\n{header}\n---\n## Labels\nmine\n")
    seal = sealed(export)
    files = {"README.md": (9, "x"), "raw/train-00000-of-00001.parquet": (9, "x")}
    present = Present(True, False, files, [], "abc", there)
    changes = changes_of(OPEN, present, export, seal, (), {"private": True, "gated": False, "tag": "v1"})
    assert "names none" in changes.rows_unknown
    assert {"header", "Labels"} <= set(changes.sections)


def test_rows_of_another_form_are_not_compared(where: dict[str, Any], api: HfApi) -> None:
    api.create_repo("org/other", repo_type="dataset", private=True)
    card = b"---\nconfigs:\n- config_name: raw\n  default: true\n---\n"
    held = {"raw/train-00000-of-00001.parquet": b"no parquet", "README.md": card}
    adds = [CommitOperationAdd(name, data) for name, data in held.items()]
    api.create_commit("org/other", adds, commit_message="x", repo_type="dataset")
    assert "of another form" in asked(synthetic_rows(OPEN), "org/other", where).rows_unknown


def test_sizes_are_in_words() -> None:
    assert [size_of(n) for n in (0, 999, 1_500, 2_340_000, 5 * 10**9)] == ["0 B", "999 B", "1.5 kB", "2.3 MB", "5.0 GB"]
