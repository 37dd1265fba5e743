"""The gate holds whatever is asked; what leaves is what was meant to leave."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import stat
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support.publishing_rows import CANARY, CREDENTIALED, LABELS, OPEN, RESTRICTED, gold_rows, synthetic_rows, text

from hf_synth.errors import HfSynthError, PublishError
from hf_synth.privacy.audit import audit
from hf_synth.privacy.findings import Findings
from hf_synth.publishing.gate import Evidence, Request, Verdict, gate, gold_parts, is_institution
from hf_synth.publishing.model_files import check_weights
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.publishing.release import LOG, public_ids, salt_of
from hf_synth.publishing.remote import Published, Repository
from hf_synth.task.access import overall_access
from hf_synth.task.columns import ACCESSES
from hf_synth.task.labels import row_digests


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where exports go that name no folder


def files(folder: Path) -> set[str]:
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}


# --- the gate -------------------------------------------------------------------------------------------------------
@cache
def findings_of(access: str, compared: bool | str) -> Findings:
    """Audit synthetic rows with their gold or without, or gold rows that are called synthetic."""
    if compared == "copies":
        return audit(OPEN, gold_rows(OPEN), gold=gold_rows(OPEN))
    task = replace(OPEN, access=access)
    return audit(task, synthetic_rows(task), gold=gold_rows(task) if compared else None)


@settings(max_examples=1000, deadline=None)
@given(
    kind=st.sampled_from(["dataset", "model"]),
    task_access=st.sampled_from(ACCESSES),
    access=st.sampled_from([*ACCESSES, None, "public", ""]),
    compared=st.sampled_from([None, True, False, "copies"]),
    gold_given=st.booleans(),
    push=st.booleans(),
    private=st.sampled_from([None, True, False]),
    gated=st.sampled_from([None, True, False, "auto", "manual"]),
    visible=st.sampled_from([None, "public", "private"]),
    institution=st.booleans(),
    attestation=st.sampled_from([None, "", "  ", "the review board, 2026-01-02"]),
)
def test_no_combination_of_arguments_opens_the_gate_too_far(
    kind: Any, task_access: Any, access: Any, compared: Any, gold_given: bool, push: bool, private: Any, gated: Any,
    visible: Any, institution: bool, attestation: Any,
) -> None:  # fmt: skip
    worst = max((access if access in ACCESSES else "credentialed", task_access), key=ACCESSES.index)
    findings = None if compared is None else findings_of(worst, compared)
    evidence = Evidence(access, findings, gold_given, institution=institution, visible=visible)
    request = Request("o/x", push=push, private=private, gated=gated, attestation=attestation)
    verdict = gate(replace(OPEN, access=task_access), kind, evidence, request)
    assert verdict.access == worst
    if not verdict.allowed:
        assert verdict.reasons
        return
    if worst == "credentialed":
        assert verdict.private
        assert not push or institution
    if worst != "open":
        assert gold_given
        assert gated is not None or verdict.gated == "manual"
        if not verdict.private and push:
            assert attestation
            assert attestation.strip()
            assert findings is not None
            assert findings.compared
            assert findings.verdict == "ok"
    if kind == "dataset":
        assert findings is not None
        assert findings.verdict == "ok"
    if not verdict.private:
        assert private is False or (worst == "open" and visible == "public")
    if push and visible == "public":
        assert not verdict.private  # what is public already takes nothing that should be private


def test_private_is_the_default_and_a_verdict_has_no_truth_value() -> None:
    verdict = gate(OPEN, "dataset", Evidence("open", findings_of("open", True), gold_given=True), Request("o/x"))
    assert (verdict.allowed, verdict.private, verdict.gated) == (True, True, False)
    with pytest.raises(TypeError, match="allowed"):
        bool(verdict)
    assert "allowed: dataset" in str(verdict)


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [
        ("https://huggingface.co", False),
        ("https://hub.huggingface.co:443", False),
        ("https://HUGGINGFACE.CO.", False),
        ("http://127.0.0.1:8090", True),
        ("http://localhost:80", True),
        ("http://[::1]:80", True),
        ("http://10.1.2.3", True),
        ("http://[::ffff:8.8.8.8]", False),
        ("http://8.8.8.8", False),
        ("https://hub.hospital.example", False),
        ("https://127.0.0.1.evil.example", False),
        ("https://127.0.0.1@evil.example", False),
        ("", False),
    ],
)
def test_what_counts_as_the_institutions_own_hub(endpoint: str, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_institution(endpoint) is own
    monkeypatch.setenv("HF_SYNTH_INSTITUTION_HUBS", "huggingface.co, hub.hospital.example")
    assert is_institution("https://hub.hospital.example/") is True
    assert is_institution("http://hub.hospital.example/") is False, "it would travel unencrypted"
    assert is_institution("https://huggingface.co") is False


def _published(hub: Repository) -> Published:
    return Published(hub.url, "abc", "v1", "manual", True)


@pytest.mark.usefixtures("not_read_back")
def test_no_call_makes_credentialed_rows_public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        Repository,
        "push",
        lambda hub, folder, seal, *, private, **_: sent.append((hub.endpoint, private)) or _published(hub),
    )
    monkeypatch.setattr(Repository, "changes", lambda *given: None)  # no Hub is there
    rows, gold = synthetic_rows(CREDENTIALED), gold_rows(CREDENTIALED)
    findings = audit(OPEN, rows, gold=gold)  # of the same rows in every call
    monkeypatch.setattr("hf_synth.publishing.looking.audit", lambda *given, **more: findings)
    choices = itertools.product(
        (None, True, False), (None, False), ("https://huggingface.co", "http://127.0.0.1:1"),
        (None, "public", "private"), (None, "the board"),
    )  # fmt: skip
    for private, gated, endpoint, visible, attestation in choices:
        monkeypatch.setattr(Repository, "visible", lambda hub, visible=visible: visible)
        publish_dataset(
            OPEN, rows, "org/x", gold=gold, private=private, gated=gated, endpoint=endpoint, attestation=attestation,
            export_dir=tmp_path / "out",
        )  # fmt: skip
    assert sent  # one's own Hub, in private
    assert all(private and endpoint == "http://127.0.0.1:1" for endpoint, private in sent)


# --- laundering -----------------------------------------------------------------------------------------------------
def launder(rows: Dataset, how: str, folder: Path) -> Dataset:
    if how == "edited":
        return rows.remove_columns("access").add_column("access", ["open"] * len(rows))
    if how == "dropped":
        return rows.remove_columns("access")
    if how == "nulls":
        return rows.remove_columns("access").add_column("access", ["open", *[None] * (len(rows) - 1)])
    if how == "renamed":
        return rows.rename_column("access", "licence")
    if how == "parquet":
        rows.to_parquet(folder / "rows.parquet")
        return Dataset.from_parquet(str(folder / "rows.parquet"), cache_dir=str(folder / "cache"))
    return rows


@pytest.mark.parametrize("how", ["as it is", "edited", "dropped", "nulls", "renamed", "parquet"])
def test_laundered_rows_are_not_published_in_public(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "visible", lambda self: pytest.fail("nothing may be asked of a Hub"))
    rows = launder(synthetic_rows(CREDENTIALED), how, tmp_path)
    for gold in (gold_rows(CREDENTIALED), DatasetDict(train=gold_rows(CREDENTIALED))):
        verdict = publish_dataset(
            OPEN,
            rows,
            "org/x",
            gold=gold,
            private=False,
            endpoint="https://huggingface.co",
            export_dir=tmp_path / "out",
        )
        assert not verdict.allowed
        assert verdict.access == "credentialed"
    if how != "edited":  # an edited column needs the gold to be seen through; the other ways do not
        verdict = publish_dataset(OPEN, rows, "org/x", private=False, push=False, export_dir=tmp_path / "out")
        assert not verdict.allowed
    assert not (tmp_path / "out").exists()


def test_the_name_of_a_stricter_task_in_the_rows_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_synth.task.access.load_task", lambda name: CREDENTIALED)
    rows = synthetic_rows(OPEN)
    assert overall_access(OPEN, rows) == "credentialed"
    paths = rows.remove_columns("task").add_column("task", ["/tmp/evil.py"] * len(rows))
    assert overall_access(OPEN, paths) == "credentialed"  # not known; and no file is run for it


def test_no_rows_are_no_gold(tmp_path: Path) -> None:
    empty = gold_rows(RESTRICTED).select([])
    assert gold_parts(DatasetDict(train=empty, test=empty)) == (None, None)
    verdict = publish_dataset(
        RESTRICTED, synthetic_rows(RESTRICTED), "o/x", gold=empty, push=False, export_dir=tmp_path / "x"
    )
    assert not verdict.allowed
    assert "give the gold" in verdict.reasons[0]


def test_gold_of_something_else_is_not_enough(tmp_path: Path) -> None:
    other = gold_rows(RESTRICTED, kind="other")
    verdict = publish_dataset(
        RESTRICTED, synthetic_rows(RESTRICTED), "o/x", gold=other, push=False, export_dir=tmp_path / "x"
    )
    assert not verdict.allowed
    assert "shown to the generator" in verdict.reasons[0]


# --- export folders of datasets ---------------------------------------------------------------------------------------
def test_an_export_loads_with_plain_datasets_and_holds_nothing_local(tmp_path: Path) -> None:
    rows = synthetic_rows(RESTRICTED, 100)
    out, gold = tmp_path / "out", gold_rows(RESTRICTED, 100)
    verdict = publish_dataset(RESTRICTED, rows, "org/synth-notes", gold=gold, push=False, export_dir=out)
    assert verdict.allowed, verdict
    assert verdict.export == tmp_path / "out"
    assert not verdict.pushed
    parquet = {f"{c}/train-00000-of-00001.parquet" for c in ("corrected", "raw")}
    assert files(tmp_path / "out") == {"README.md", "croissant.json", "hf_synth.json", "release.json", *parquet}

    corrected = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    raw = load_dataset(str(tmp_path / "out"), "raw", split="train", cache_dir=str(tmp_path / "cache"))
    assert corrected.features["label"].names == list(LABELS)
    assert set(corrected["label_status"]) == {"kept", "relabelled"}
    assert verdict.counts["rows of corrected"] == len(corrected) == 60
    assert verdict.counts["rows of raw"] == len(raw) == 90
    by_id = {r["id"]: r for r in raw}
    ids = public_ids(RESTRICTED, rows, salt_of(tmp_path))
    assert len(set(ids)) == 100
    assert ids != public_ids(RESTRICTED, rows, b"another salt")
    meant = dict(zip(ids, rows["llm_label"], strict=True))
    assert all(by_id[i]["label"] == meant[i] for i in by_id)
    assert all(by_id[r["id"]]["text"] == r["text"] for r in corrected)
    for view in (corrected, raw):
        assert set(view["access"]) == {"restricted"}
        assert set(view.column_names).isdisjoint({"seed_ids", "fold", "prompt_sha256", "journal_key", "group"})

    import pyarrow.parquet as pq

    schema = pq.read_schema(tmp_path / "out" / "raw" / "train-00000-of-00001.parquet")
    assert json.loads(schema.metadata[b"hf_synth"])["access"] == "restricted"
    shipped = b"".join((tmp_path / "out" / f).read_bytes() for f in files(tmp_path / "out"))
    for local in (b"adm-gold", b"secret-admission", b"patient-", b"hash-", b"key-"):
        assert local not in shipped

    work = tmp_path / ".hf_synth"
    (private,) = (work / "maps").iterdir()
    assert {stat.S_IMODE(f.stat().st_mode) for f in (private, work / "salt", work / LOG)} == {0o600}
    first = json.loads(private.read_text().splitlines()[0])
    assert first.pop("text") not in row_digests(RESTRICTED, rows)
    assert first == {
        "exported": ids[0], "id": "secret-admission-0", "group": "patient-0", "seed_ids": ["adm-gold-0"],
        "prompt_sha256": "hash-0", "journal_key": "key-0",
    }  # fmt: skip


def test_uncorrected_rows_have_one_config(tmp_path: Path) -> None:
    publish_dataset(OPEN, synthetic_rows(OPEN, corrected=False), "org/x", push=False, export_dir=tmp_path / "out")
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 27
    assert rows.features["label"].names == list(LABELS)


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    seen = []
    for name in ("a", "b", "b"):
        publish_dataset(OPEN, synthetic_rows(OPEN), "org/x", push=False, export_dir=tmp_path / name)
        seen.append({f: hashlib.sha256((tmp_path / name / f).read_bytes()).digest() for f in files(tmp_path / name)})
    assert seen[0] == seen[1] == seen[2]


def test_gold_never_leaves_even_when_it_calls_itself_synthetic(tmp_path: Path) -> None:
    gold = gold_rows(OPEN)
    rows = synthetic_rows(OPEN, 300)
    mine = [text("synthetic", i) if t else None for i, t in enumerate(rows["text"])]
    mine[0] = gold["text"][3].upper()  # one in 270 rows: below the limit that refuses the whole
    rows = Dataset.from_dict({**rows.to_dict(), "text": mine}, features=rows.features)
    verdict = publish_dataset(OPEN, rows, "org/x", gold=gold, push=False, export_dir=tmp_path / "out")
    assert verdict.allowed
    assert verdict.counts["withheld: copy_of_gold"] == 1
    raw = load_dataset(str(tmp_path / "out"), "raw", split="train", cache_dir=str(tmp_path / "cache"))
    assert verdict.counts["rows of raw"] == len(raw) == 269
    assert mine[0] not in raw["text"]

    mixed = Dataset.from_dict({**rows.to_dict(), "source": ["gold"] * 20 + ["synthetic"] * 280}, features=rows.features)
    refused = publish_dataset(OPEN, mixed, "org/x", gold=gold, push=False, export_dir=tmp_path / "no")
    assert not refused.allowed
    assert not (tmp_path / "no").exists()
    assert "found gold in" in refused.reasons[0]


def test_a_credentialed_export_is_ready_for_physionet(tmp_path: Path) -> None:
    task = replace(CREDENTIALED, source_url="https://example.org/source")
    out, gold = tmp_path / "out", gold_rows(task)
    verdict = publish_dataset(task, synthetic_rows(task), "org/notes", gold=gold, push=False, export_dir=out)
    assert verdict.allowed
    assert any("-Ext-" in reason for reason in verdict.reasons)
    assert "-Ext-" in (tmp_path / "out" / "LICENSE.md").read_text()
    for line in (tmp_path / "out" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    listed = {line.split("  ")[1] for line in (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()}
    assert listed | {"SHA256SUMS"} == files(tmp_path / "out")


def test_rows_with_identifiers_are_withheld_and_counted(tmp_path: Path) -> None:
    rows = synthetic_rows(RESTRICTED)
    texts = [None if t is None else f"{t} MRN: 0048392{i % 10}" if i < 3 else t for i, t in enumerate(rows["text"])]
    rows = Dataset.from_dict({**rows.to_dict(), "text": texts}, features=rows.features)
    verdict = publish_dataset(
        RESTRICTED, rows, "o/x", gold=gold_rows(RESTRICTED), push=False, export_dir=tmp_path / "out"
    )
    assert verdict.allowed
    assert verdict.counts["withheld: identifier"] == 3
    raw = load_dataset(str(tmp_path / "out"), "raw", split="train", cache_dir=str(tmp_path / "cache"))
    assert not any("MRN" in t for t in raw["text"])


def test_the_canary_is_nowhere_outside_the_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gold = gold_rows(RESTRICTED)
    gold = Dataset.from_dict(
        {**gold.to_dict(), "text": [f"{CANARY} {t}" for t in gold["text"]]}, features=gold.features
    )
    rows = synthetic_rows(RESTRICTED)
    texts = [t and f"{CANARY} {t}" for t in rows["text"]]
    rows = Dataset.from_dict({**rows.to_dict(), "text": texts}, features=rows.features)
    verdict = publish_dataset(RESTRICTED, rows, "o/x", gold=gold, push=False, export_dir=tmp_path / "out")
    refused = publish_dataset(RESTRICTED, gold.map(lambda r: {"source": "synthetic"}), "o/x", gold=gold, push=False)
    said = [str(verdict), repr(verdict), str(refused), repr(refused), (tmp_path / "out" / "README.md").read_text()]
    with pytest.raises(HfSynthError) as caught:
        wrong = Dataset.from_dict({"text": [CANARY * 3], "label": [f"{CANARY} label"], "access": ["open"]})
        publish_dataset(OPEN, wrong, "o/x", push=False, export_dir=tmp_path / "wrong")
    said.append(repr(caught.value) + repr(caught.value.__cause__))
    assert CANARY not in "".join(said) + "".join(capfd.readouterr())
    assert not (tmp_path / "wrong").exists()


def test_weights_whose_metadata_is_null_leave(model: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(model, tmp_path / "bare", symlinks=True)
    size = int.from_bytes((bare / "model.safetensors").read_bytes()[:8], "little")
    weights = (bare / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + size]) | {"__metadata__": None}
    told = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(told).to_bytes(8, "little") + told + weights[8 + size :])
    check_weights(tmp_path, ["w.safetensors"])
    told = json.dumps(header | {"__metadata__": ["a note"]}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(told).to_bytes(8, "little") + told + weights[8 + size :])
    with pytest.raises(PublishError, match="metadata of its own"):
        check_weights(tmp_path, ["w.safetensors"])


def test_only_what_is_allowed_leaves_a_models_folder(model: Path, tmp_path: Path) -> None:
    verdict = publish_model(OPEN, model, None, "org/m", push=False, export_dir=tmp_path / "out")
    assert verdict.allowed
    assert files(tmp_path / "out") <= {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "hf_synth_facts.json", "hf_synth.json", "release.json",
    }  # fmt: skip
    shipped = b"".join((tmp_path / "out" / f).read_bytes() for f in files(tmp_path / "out"))
    assert CANARY.encode() not in shipped
    facts = json.loads((tmp_path / "out" / "hf_synth_facts.json").read_text())
    assert "row_digests" not in facts
    assert facts["access"] == "open"
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.id2label[2] == "maybe"
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")("pain cough")["input_ids"]) == 2


def test_a_model_is_as_strict_as_what_it_saw(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((model / name).read_bytes())
    verdict = publish_model(
        OPEN, bare, None, "org/m", gold=gold_rows(OPEN), private=False, endpoint="http://127.0.0.1:1"
    )
    assert not verdict.allowed
    assert verdict.access == "credentialed"
    assert not publish_model(OPEN, model, None, "org/m", gold=gold_rows(CREDENTIALED), private=False).allowed
    assert not publish_model(RESTRICTED, model, None, "org/m", push=False).allowed  # no gold
    verdict = publish_model(
        RESTRICTED, model, None, "org/m", gold=gold_rows(RESTRICTED), private=False, attestation="the board",
        endpoint="http://127.0.0.1:1",
    )  # fmt: skip
    assert not verdict.allowed
    assert "needs an audit that passed" in str(verdict)


def test_gold_under_the_name_of_a_model_file_is_found(model: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(model, folder, symlinks=True)
    (folder / "vocab.txt").write_text("\n".join(gold_rows(OPEN)["text"]))
    told: dict[str, Any] = {"gold": gold_rows(OPEN), "push": False, "export_dir": tmp_path / "out"}
    assert publish_model(OPEN, folder, None, "org/m", **told).allowed  # tokenizer.json makes it unnecessary
    assert not (tmp_path / "out" / "vocab.txt").exists()
    (folder / "tokenizer.json").unlink()
    verdict = publish_model(OPEN, folder, None, "org/m", **told)
    assert not verdict.allowed
    assert "vocab.txt holds text of gold" in verdict.reasons


@pytest.mark.parametrize(("name", "content", "said"), [
    ("model.safetensors", b"\x80\x04pickle", "no safetensors file"),
    ("model.safetensors", (s := b'{"__metadata__":{"note":"x"}}') and len(s).to_bytes(8, "little") + s, "metadata"),
    ("config.json", b'{"id2label": {"0": "a", "1": "b"}}', "labels are not those"),
])  # fmt: skip
def test_a_model_that_is_not_what_it_should_be(
    model: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(model, folder, symlinks=True)
    (folder / name).write_bytes(content)
    with pytest.raises(PublishError, match=said):
        publish_model(OPEN, folder, None, "org/m", push=False, export_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folder / "config.json").write_bytes(b"{")
    broken = publish_model(OPEN, folder, None, "org/m", push=False, export_dir=tmp_path / "out")
    assert broken.reasons[0] == "config.json has another kind of content than its name says: save it again"


def test_an_unreachable_hub_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="cannot be reached") as caught:
        publish_dataset(
            OPEN,
            synthetic_rows(OPEN),
            "org/x",
            endpoint="http://127.0.0.1:9",
            token="hf_secret",
            export_dir=tmp_path / "x",
        )
    assert "hf_secret" not in str(caught.value)
    assert "hf_secret" not in repr(Repository("dataset", "org/x", "http://127.0.0.1:9", "hf_secret"))


def test_a_verdict_prints_itself() -> None:
    verdict = Verdict(
        "dataset", "o/x", "open", True, ("fine",), counts={"rows": 1200}, url="http://h/o/x", commit="abc"
    )
    first, *more = str(verdict).splitlines()
    assert first == "allowed: dataset o/x, access open"
    assert more == ["  - fine", "  1,200 rows", "  published: http://h/o/x (private), commit abc"]
