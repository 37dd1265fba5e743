"""Credentialed rows, and models trained on them, stay credentialed whatever is done to them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value, concatenate_datasets
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.publishing_rows import CREDENTIALED, LABELS, OPEN, RESTRICTED, gold_rows, synthetic_rows
from support.tiny import TINY_ARGS, tiny_base, toy_rows, toy_task

from hf_synth.errors import HfSynthError, PublishError
from hf_synth.gold.adoption import read_dataset
from hf_synth.hub import connected, running_hub
from hf_synth.models.training import train
from hf_synth.publishing.gate import Verdict, origin_of_model, origin_of_rows
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.publishing.release import entries
from hf_synth.publishing.remote import Repository
from hf_synth.task.folders import read_manifest, write_stage
from hf_synth.task.labels import MARKS, gold_marks, row_digests
from hf_synth.task.task import Task

PUBLIC_HUB = "https://huggingface.co"
PUSH, VISIBLE = Repository.push, Repository.visible


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Repository, "push", lambda *a, **k: pytest.fail("nothing may be sent"))
    monkeypatch.setattr(Repository, "visible", lambda self: pytest.fail("no Hub may be asked"))


def refused(verdict: Verdict) -> bool:
    return not verdict.allowed and verdict.access == "credentialed" and bool(verdict.reasons)


# --- rows -----------------------------------------------------------------------------------------------------------
def _parquet(rows: Dataset, folder: Path) -> Dataset:
    rows.to_parquet(folder / "rows.parquet")
    return read_dataset(folder / "rows.parquet")


def _through_json(rows: Dataset, folder: Path) -> Dataset:
    rows.to_json(folder / "rows.jsonl")
    return Dataset.from_json(str(folder / "rows.jsonl"), cache_dir=str(folder / "cache")).cast_column(
        "label", rows.features["label"]
    )


LAUNDRY: dict[str, Any] = {
    "as it is": lambda rows, _: rows,
    "column dropped": lambda rows, _: rows.remove_columns("access"),
    "all provenance dropped": lambda rows, _: rows.select_columns(["text", "label"]),
    "column renamed": lambda rows, _: rows.rename_column("access", "licence"),
    "another column called access": lambda rows, _: rows.remove_columns("access").rename_column("created", "access"),
    "cast to numbers": lambda rows, _: rows.cast_column("access", ClassLabel(names=["credentialed", "open"])),
    "cast to bytes": lambda rows, _: rows.cast_column("access", Value("large_binary")),
    "cast to large strings": lambda rows, _: rows.cast_column("access", Value("large_string")),
    "values in capitals": lambda rows, _: rows.map(lambda r: {"access": "OPEN"}),
    "one row of many": lambda rows, _: rows.map(lambda r, i: {"access": "open" if i else None}, with_indices=True),
    "named as another task": lambda rows, _: rows.map(lambda r: {"task": "clinic"}),
    "named as no task": lambda rows, _: rows.map(lambda r: {"access": "open", "task": "something_else"}),
    "named as it is, called open": lambda rows, _: rows.map(lambda r: {"access": "open", "task": "mednli"}),
    "parquet round trip": _parquet,
    "JSON round trip": _through_json,
    "shuffled, selected, concatenated": lambda rows, _: rows.shuffle(seed=1).select(range(12)),
}


@pytest.mark.parametrize("push", [True, False])
@pytest.mark.parametrize("how", LAUNDRY)
def test_laundered_rows_stay_credentialed(how: str, push: bool, tmp_path: Path) -> None:
    rows = LAUNDRY[how](synthetic_rows(CREDENTIALED), tmp_path)
    task = Task.from_columns("notes", text_columns="text", label_column="label", labels=LABELS, access="open")
    for gold in (None, gold_rows(OPEN)):
        told = {"private": False, "attestation": "the board", "push": push, "endpoint": PUBLIC_HUB}
        verdict = publish_dataset(task, rows, "org/x", gold=gold, **told)  # type: ignore[arg-type]
        assert refused(verdict), verdict
    assert not (tmp_path / "export" / "x").exists()
    assert [e["action"] for e in entries(tmp_path / "export")] == ["refused", "refused"]


def test_the_manifest_of_the_folder_counts_too(tmp_path: Path) -> None:
    write_stage(CREDENTIALED, synthetic_rows(CREDENTIALED), tmp_path / "rows", stage="correct")
    rows = read_dataset(tmp_path / "rows").map(lambda r: {"access": "open"})
    verdict = publish_dataset(OPEN, rows, "org/x", private=False, manifest=read_manifest(tmp_path / "rows"))
    assert refused(verdict)


def test_what_the_manifest_says_decides_which_rows_are_withheld() -> None:
    rows = synthetic_rows(OPEN)
    dated = rows.map(lambda r, i: {"text": "seen on 2019-03-04" if i == 0 else r["text"]}, with_indices=True)
    told = {"gold": gold_rows(OPEN), "push": False, "dry_run": True}
    assert publish_dataset(OPEN, dated, "o/x", manifest={"access": "open"}, **told).counts["withheld"] == 0  # type: ignore[arg-type]
    strict = publish_dataset(OPEN, dated, "o/x", manifest={"access": "credentialed"}, **told)  # type: ignore[arg-type]
    assert strict.counts["withheld: date_or_age"] == 1


# --- the gold that is given ------------------------------------------------------------------------------------------
def _told(verdict: Verdict, said: str) -> bool:
    return not verdict.allowed and any(said in reason for reason in verdict.reasons)


def test_gold_must_be_the_gold_it_came_from() -> None:
    rows, gold = synthetic_rows(RESTRICTED), gold_rows(RESTRICTED)
    bare = rows.remove_columns("seed_ids")

    def ask(rows: Dataset, given: Any, **more: Any) -> Verdict:
        return publish_dataset(RESTRICTED, rows, "o/x", gold=given, push=False, **more)

    assert _told(ask(rows, gold.select(range(20))), "lacks 10 of the 30 gold rows that were shown")
    assert _told(ask(rows, gold_rows(RESTRICTED, kind="other")), "lacks 30 of the 30 gold rows")
    assert _told(ask(rows, gold.select([])), "give the gold")
    assert _told(ask(rows, DatasetDict(train=gold.select([]), test=gold.select([]))), "give the gold")
    assert _told(ask(bare, synthetic_rows(RESTRICTED, 29)), "are not marked as gold")
    assert _told(ask(bare, gold.map(lambda r: {"task": "clinic", "access": "restricted"})), "another task")
    # ids alone can be made up; the folder's marks are of the texts
    forged = gold_rows(RESTRICTED, kind="other").remove_columns("id").add_column("id", gold["id"])
    assert ask(rows, forged, dry_run=True).allowed
    manifest = {"access": "restricted", MARKS: gold_marks(RESTRICTED, gold)}
    assert _told(ask(rows, forged, manifest=manifest), "30 of the 30 gold rows that the folder was made with")
    known = ask(rows, gold, manifest=manifest, dry_run=True)
    assert known.allowed
    assert "the gold holds all 30 gold rows that were shown" in str(known)
    repeated = origin_of_rows(RESTRICTED, rows, [gold], manifest | {"gold_rows": 32})
    assert repeated.summary.endswith("and all 32 gold rows (30 different texts) that the folder was made with")


def test_what_nothing_was_recorded_of_is_said_and_never_public() -> None:
    bare, gold = synthetic_rows(RESTRICTED).remove_columns("seed_ids"), gold_rows(RESTRICTED)
    verdict = publish_dataset(RESTRICTED, bare, "o/x", gold=gold, push=False)
    assert verdict.allowed
    assert "that could not be checked" in str(verdict)
    assert verdict.export is not None
    assert "could not be checked" in (verdict.export / "README.md").read_text()
    told = {"private": False, "attestation": "the board, today", "endpoint": "http://127.0.0.1:1"}
    public = publish_dataset(RESTRICTED, bare, "o/x", gold=gold, **told)  # type: ignore[arg-type]
    assert _told(public, "a record of the gold it came from")


# --- models ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def laundered_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model on synthetic rows of credentialed gold, and another that starts from it on open rows."""
    folder = tmp_path_factory.mktemp("models")
    task = toy_task(access="credentialed")
    rows = toy_rows(30, task=task).map(lambda r: {"source": "synthetic"})
    args = TINY_ARGS | {"num_train_epochs": 1}
    first = train(task, rows, base_model=tiny_base(folder / "base"), output_dir=folder / "first", args=args)
    return train(toy_task(), toy_rows(30, seed=1), base_model=first, output_dir=folder / "second", args=args)


def test_a_model_of_laundered_rows_and_one_that_starts_from_it_stay_credentialed(
    laundered_model: Path, tmp_path: Path
) -> None:
    bare, edited = tmp_path / "bare", tmp_path / "edited"
    for folder in (bare, edited):
        shutil.copytree(laundered_model, folder)
    (bare / "hf_synth_facts.json").unlink()
    facts = json.loads((edited / "hf_synth_facts.json").read_text())
    (edited / "hf_synth_facts.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "access"}))
    for model in (laundered_model.parent / "first", laundered_model, bare, edited):
        for push in (True, False):
            told = {"private": False, "push": push, "attestation": "x", "endpoint": PUBLIC_HUB}
            verdict = publish_model(toy_task(), model, None, "org/m", gold=toy_rows(30), **told)  # type: ignore[arg-type]
            assert refused(verdict), verdict


def test_a_model_is_checked_against_the_gold_that_it_saw(tmp_path: Path) -> None:
    task = toy_task(access="restricted")
    gold = toy_rows(20, task=task)
    model = train(task, gold, base_model=tiny_base(tmp_path / "base"), output_dir=tmp_path / "m", args={"max_steps": 1})
    some = publish_model(task, model, None, "o/m", gold=gold.select(range(15)), push=False)
    assert _told(some, "lacks 5 of the 20 gold rows that the model was trained on")
    assert _told(publish_model(task, model, None, "o/m", gold=toy_rows(20, seed=9, task=task), push=False), "lacks 20")
    often = concatenate_datasets([gold.select(range(15)), *[gold.select([0])] * 10])  # 25 rows, 15 texts
    assert _told(publish_model(task, model, None, "o/m", gold=often, push=False), "lacks 5 of the 20 gold rows")
    rows = gold.map(lambda r: {"source": "synthetic"})
    assert _told(publish_model(task, model, None, "o/m", gold=rows, push=False), "are not marked as gold")
    assert publish_model(task, model, None, "o/m", gold=gold, push=False).allowed


def test_gold_that_repeats_a_text_is_whole_when_each_text_is_there() -> None:
    task = toy_task(access="restricted")
    gold = toy_rows(20, task=task)
    digests = row_digests(task, gold)
    twice = {"rows": {"gold": 25, "kept": 3}, "row_digests": digests}  # eight rows repeat others, but of which kind?
    for facts in (twice, twice | {"gold_texts": 20}):
        assert origin_of_model(task, facts, [gold]).problems == ()
    assert origin_of_model(task, twice | {"gold_texts": 20}, [gold.select(range(19))]).problems
    (lacking,) = origin_of_model(task, twice, [gold.select(range(16))]).problems
    assert "lacks 1 of the 17 gold texts that the model" in lacking
    assert (
        "all 25 gold rows (20 different texts) that the model"
        in origin_of_model(task, twice | {"gold_texts": 20}, [gold, gold]).summary
    )


# --- any arguments, a real Hub ----------------------------------------------------------------------------------------
def test_no_arguments_make_credentialed_data_public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "push", PUSH)
    monkeypatch.setattr(Repository, "visible", VISIBLE)
    rows, gold = synthetic_rows(CREDENTIALED), gold_rows(CREDENTIALED)
    base = tiny_base(tmp_path / "base")
    task = toy_task(access="credentialed")
    model = train(task, toy_rows(12, task=task), base_model=base, output_dir=tmp_path / "m", args={"max_steps": 1})
    number = iter(range(10_000))

    with running_hub(tmp_path / "hub") as hub, connected(hub):
        api, anyone = HfApi(endpoint=hub.url, token=hub.token), HfApi(endpoint=hub.url, token=False)

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            kind=st.sampled_from(["dataset", "model"]),
            named=st.sampled_from(["itself", "open"]),
            how=st.sampled_from(["as it is", "column dropped", "values in capitals", "parquet round trip"]),
            given_gold=st.sampled_from(["all", "splits", "none", "empty"]),
            there=st.sampled_from([None, "private", "public"]),
            endpoint=st.sampled_from(["own", None, PUBLIC_HUB, "https://hf.co", "http://8.8.8.8"]),
            institution=st.sampled_from(["", "huggingface.co", "hf.co,8.8.8.8"]),
            private=st.sampled_from([None, True, False]),
            gated=st.sampled_from([None, True, False, "auto", "manual"]),
            attestation=st.sampled_from([None, "the board, 2026-01-02"]),
            tag=st.sampled_from([None, "v1", "final"]),
            manifest=st.sampled_from([None, {"access": "open"}, {}]),
            push=st.sampled_from([True, True, True, False]),
            confirmed=st.booleans(),
        )
        def ask(
            kind: Any, named: str, how: str, given_gold: str, there: str | None, endpoint: str | None, institution: str,
            private: Any, gated: Any, attestation: Any, tag: Any, manifest: Any, push: bool, confirmed: bool,
        ) -> None:  # fmt: skip
            monkeypatch.setenv("HF_SYNTH_INSTITUTION_HUBS", institution)
            name = f"org/n{next(number)}"
            if there:
                api.create_repo(name, repo_type=kind, private=there == "private")
            known = toy_rows(12, task=task) if kind == "model" else gold
            options = {
                "gold": {"all": known, "splits": DatasetDict(train=known), "none": None, "empty": known.select([])}[
                    given_gold
                ],
                "private": private, "gated": gated, "attestation": attestation, "tag": tag, "push": push,
                "endpoint": hub.url if endpoint == "own" else endpoint, "token": hub.token, "export_dir": "out/x",
                "confirm": lambda verdict: confirmed,
            }  # fmt: skip
            shutil.rmtree("out", ignore_errors=True)
            try:
                if kind == "model":
                    made = publish_model(toy_task() if named == "open" else task, model, None, name, **options)
                else:
                    dirty = LAUNDRY[how](rows, tmp_path)
                    mine = OPEN if named == "open" else CREDENTIALED
                    made = publish_dataset(mine, dirty, name, manifest=manifest, **options)
                assert made.access == "credentialed"
                assert made.private or not made.allowed
            except PublishError:
                pass
            if anyone.repo_exists(name, repo_type=kind):
                assert there == "public"  # it was before, and took nothing
                assert set(api.list_repo_files(name, repo_type=kind)) <= {".gitattributes"}

        ask()
        shutil.rmtree(
            "out", ignore_errors=True
        )  # and in private, on one's own Hub, it is allowed: the property is not empty
        asked = {"gold": gold, "endpoint": hub.url, "token": hub.token, "export_dir": "out/x", "private": True}
        assert publish_dataset(CREDENTIALED, rows, "org/allowed", **asked).pushed
        seen = [r.id for r in (*anyone.list_datasets(), *anyone.list_models())]
        assert all(
            set(api.list_repo_files(name, repo_type=kind)) <= {".gitattributes"}
            for name in seen
            for kind in ("dataset", "model")
            if anyone.repo_exists(name, repo_type=kind)
        )


def test_an_error_of_the_gate_is_one_of_ours() -> None:
    with pytest.raises(HfSynthError):
        publish_dataset(OPEN, Dataset.from_dict({"other": ["x"]}), "org/x", push=False)
