"""What was published is on a real local Hub, through the real clients, and loads without our code."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import _http
from support.publishing_rows import CANARY, CREDENTIALED, LABELS, OPEN, RESTRICTED, gold_rows, synthetic_rows

from hf_synth.errors import PublishError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.publishing import remote
from hf_synth.publishing.client import client
from hf_synth.publishing.publishing import publish_dataset, publish_model


def test_a_public_dataset_loads_for_anyone(where: dict[str, Any], api: HfApi, tmp_path: Path) -> None:
    verdict = publish_dataset(
        OPEN, synthetic_rows(OPEN), "org/open-notes", gold=gold_rows(OPEN), private=False, **where
    )
    assert verdict.allowed, verdict
    assert verdict.pushed
    info = api.dataset_info("org/open-notes")
    assert not info.private
    assert info.sha == verdict.commit
    rows = load_dataset("org/open-notes", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["label"].names == list(LABELS)
    assert len(rows) == verdict.counts["rows of corrected"]
    raw = load_dataset("org/open-notes", "raw", split="train", streaming=True)
    assert sum(1 for _ in raw) == verdict.counts["rows of raw"]
    assert len(list(api.list_repo_commits("org/open-notes", repo_type="dataset"))) <= 2  # its birth, and one of ours


def test_a_second_run_uploads_nothing(where: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = publish_dataset(OPEN, synthetic_rows(OPEN), "org/twice", **where)
    monkeypatch.setattr(HfApi, "create_commit", lambda *a, **k: pytest.fail("nothing changed: no commit"))
    second = publish_dataset(OPEN, synthetic_rows(OPEN), "org/twice", **where)
    assert second.commit == first.commit
    assert second.private


def test_a_change_is_one_more_commit_and_stale_files_go(where: dict[str, Any], api: HfApi) -> None:
    publish_dataset(OPEN, synthetic_rows(OPEN), "org/changing", **where)
    later = publish_dataset(OPEN, synthetic_rows(OPEN, corrected=False), "org/changing", **where)
    names = set(api.list_repo_files("org/changing", repo_type="dataset"))
    assert "raw/train-00000-of-00001.parquet" in names
    assert not any(n.startswith("corrected/") for n in names)
    assert api.dataset_info("org/changing").sha == later.commit


def test_restricted_rows_are_private_and_gated(where: dict[str, Any], api: HfApi) -> None:
    verdict = publish_dataset(RESTRICTED, synthetic_rows(RESTRICTED), "org/site", gold=gold_rows(RESTRICTED), **where)
    assert verdict.pushed
    info = api.dataset_info("org/site")
    assert info.private
    assert info.gated == "manual"
    assert verdict.gated == "manual"
    attested = publish_dataset(
        RESTRICTED, synthetic_rows(RESTRICTED), "org/site2", gold=gold_rows(RESTRICTED), private=False,
        attestation="the board, 2026-01-02", **where,
    )  # fmt: skip
    assert attested.pushed
    assert not api.dataset_info("org/site2").private
    readme = (where["export_dir"] / "README.md").read_text()
    assert "the board, 2026-01-02" in readme


def test_credentialed_rows_reach_a_private_repository_of_ones_own_hub_only(where: dict[str, Any], api: HfApi) -> None:
    rows, gold = synthetic_rows(CREDENTIALED), gold_rows(CREDENTIALED)
    verdict = publish_dataset(CREDENTIALED, rows, "org/cred", gold=gold, **where)
    assert verdict.pushed
    assert api.dataset_info("org/cred").private
    assert "SHA256SUMS" in api.list_repo_files("org/cred", repo_type="dataset")
    for refused in ({"private": False}, {"private": False, "gated": True, "attestation": "x"}):
        assert not publish_dataset(CREDENTIALED, rows, "org/cred2", gold=gold, **where, **refused).allowed
    assert not api.repo_exists("org/cred2", repo_type="dataset")


def test_a_repository_that_is_public_already_takes_nothing_private(where: dict[str, Any], api: HfApi) -> None:
    api.create_repo("org/old", repo_type="dataset", private=False)
    before = api.dataset_info("org/old").sha
    verdict = publish_dataset(RESTRICTED, synthetic_rows(RESTRICTED), "org/old", gold=gold_rows(RESTRICTED), **where)
    assert not verdict.allowed
    assert "public already" in verdict.reasons[0]
    assert api.dataset_info("org/old").sha == before
    assert not where["export_dir"].exists()


def test_a_lost_race_is_one_sentence_and_leaves_the_other_alone(
    where: dict[str, Any], api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_dataset(OPEN, synthetic_rows(OPEN), "org/race", **where)
    begin = remote.Repository._begin

    def meanwhile(self: Any, *args: Any) -> Any:
        seen = begin(self, *args)
        api.create_commit(
            "org/race", [CommitOperationAdd("notes.md", b"mine")], commit_message="another", repo_type="dataset"
        )
        return seen

    monkeypatch.setattr(remote.Repository, "_begin", meanwhile)
    with pytest.raises(PublishError, match="somebody else changed"):
        publish_dataset(OPEN, synthetic_rows(OPEN, 20), "org/race", **where)
    assert "notes.md" in api.list_repo_files("org/race", repo_type="dataset")


def test_a_wrong_token_is_one_sentence(where: dict[str, Any]) -> None:
    with pytest.raises(PublishError) as caught:
        publish_dataset(OPEN, synthetic_rows(OPEN), "org/wrong", **{**where, "token": "hf_wrongwrong"})
    assert "hf_wrongwrong" not in str(caught.value)
    assert "token" in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_read_back_is_compared(where: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HfApi, "update_repo_settings", lambda *a, **k: None)
    with pytest.raises(PublishError, match="not as private or gated as asked"):
        publish_dataset(RESTRICTED, synthetic_rows(RESTRICTED), "org/lazy", gold=gold_rows(RESTRICTED), **where)


def test_a_model_loads_with_plain_transformers(model: Path, where: dict[str, Any], api: HfApi, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    scores = Scores("notes", 9, {"macro_f1": 0.5}, {"macro_f1": (0.4, 0.6)}, {}, [[3, 0, 0]] * 3)
    verdict = publish_model(OPEN, model, scores, "org/grader", gold=gold_rows(OPEN), private=False, **where)
    assert verdict.pushed
    assert verdict.counts["files left behind"] >= 7
    names = set(api.list_repo_files("org/grader"))
    assert not any(n.startswith(".eval_results") for n in names)  # the gold is no dataset of a Hub
    assert not any(n.endswith((".bin", ".pt", ".csv")) for n in names)
    loaded = AutoModelForSequenceClassification.from_pretrained("org/grader", cache_dir=tmp_path / "c")
    tokenizer = AutoTokenizer.from_pretrained("org/grader", cache_dir=tmp_path / "c")
    assert loaded(**tokenizer("pain cough", return_tensors="pt")).logits.shape == (1, 3)
    facts = json.loads(
        Path(api.hf_hub_download("org/grader", "hf_synth_facts.json", cache_dir=tmp_path / "c")).read_text()
    )
    assert facts["access"] == "open"
    assert CANARY not in json.dumps(facts)


def test_a_model_of_restricted_data_stays_private(model: Path, where: dict[str, Any], api: HfApi) -> None:
    task = replace(RESTRICTED)
    dry = publish_model(task, model, None, "org/site-model", gold=gold_rows(task), dry_run=True, **where)
    assert "shown before a push" in dry.reasons[-1]
    verdict = publish_model(task, model, None, "org/site-model", gold=gold_rows(task), **where)
    assert verdict.pushed
    assert verdict.changes is not None
    assert verdict.changes.files["model.safetensors"][0] == "added"
    assert verdict.changes.rows_added == {}
    info = api.model_info("org/site-model")
    assert info.private
    assert info.gated == "manual"


def test_rows_pulled_from_the_hub_are_as_strict_as_before(where: dict[str, Any], tmp_path: Path) -> None:
    publish_dataset(CREDENTIALED, synthetic_rows(CREDENTIALED), "org/round", gold=gold_rows(CREDENTIALED), **where)
    pulled = load_dataset("org/round", split="train", token=where["token"], cache_dir=str(tmp_path / "cache"))
    assert isinstance(pulled, Dataset)
    assert not publish_dataset(OPEN, pulled, "org/out", private=False, push=False, export_dir=tmp_path / "x").allowed


def test_what_goes_to_ones_own_hub_passes_no_proxy_and_no_other_host(
    where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import get_session

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    assert publish_dataset(
        CREDENTIALED, synthetic_rows(CREDENTIALED), "org/direct", gold=gold_rows(CREDENTIALED), **where
    ).pushed
    with client(where["endpoint"]), pytest.raises(PublishError, match="another host"):
        get_session().put("http://8.8.8.8/upload", content=b"note")


def test_a_public_repository_is_gated_before_anything_is_sent(
    where: dict[str, Any], api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo("org/seen", repo_type="dataset")
    before = remote.Repository._commit
    gates: list[Any] = []

    def commit(self: remote.Repository, *args: Any) -> str:
        gates.append(api.dataset_info("org/seen").gated)
        return before(self, *args)

    monkeypatch.setattr(remote.Repository, "_commit", commit)
    told = {"gold": gold_rows(OPEN), "private": False, "gated": "manual"}
    assert publish_dataset(OPEN, synthetic_rows(OPEN), "org/seen", **told, **where).pushed
    assert gates == ["manual"]


def test_two_publishings_in_threads_take_turns_with_the_guarded_client() -> None:
    from huggingface_hub.utils import _http

    before, inside, seen = _http._GLOBAL_CLIENT_FACTORY, threading.Event(), []

    def other() -> None:
        with client("http://127.0.0.1:2"):
            inside.set()

    with client("http://127.0.0.1:1"):
        guarded = _http._GLOBAL_CLIENT_FACTORY
        thread = threading.Thread(target=other)
        thread.start()
        seen.append(inside.wait(0.3))
        assert _http._GLOBAL_CLIENT_FACTORY is guarded is not before
    thread.join(10)
    assert seen == [False]
    assert inside.is_set()
    assert _http._GLOBAL_CLIENT_FACTORY is before


def test_certificates_are_read_once_and_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the own Hub, too, where it speaks TLS."""
    made: list[Any] = []
    monkeypatch.setattr(httpx2, "Client", lambda **how: made.append(how["verify"]))
    for _ in range(2):
        with client("https://127.0.0.1:1"):
            _http._GLOBAL_CLIENT_FACTORY()
    first, second = made
    assert first is second
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
