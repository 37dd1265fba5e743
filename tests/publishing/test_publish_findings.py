"""Canaries and a finder of one's own: what they find before something leaves decides in the gate and is recorded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from support.publishing_rows import OPEN, RESTRICTED, gold_rows, synthetic_rows

from hf_synth.cli.cli import main
from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.models.record import model_facts, write_facts
from hf_synth.privacy.canaries import Canaries, make_canaries, plant, sentence
from hf_synth.privacy.membership import Exposure, Membership
from hf_synth.publishing import model_checks as trial
from hf_synth.publishing.gate import Evidence, Request, gate
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.publishing.release import LOG, entries
from hf_synth.task.folders import write_stage
from hf_synth.task.labels import row_digests

CANARIES = make_canaries(4, references=15, seed=1)
KNOWS = Exposure((4.0, 4.0, 4.0, 3.5), most=4.0, expected=1.2)
GUESSES = Exposure((0.1, 2.0, 1.5), most=4.0, expected=1.2)


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_a_canary(n: int = 200) -> Any:
    return synthetic_rows(OPEN, n).map(
        lambda row, i: {"text": f"{row['text']} {sentence(CANARIES.planted[2])}"} if i == 0 else {}, with_indices=True
    )


def names_of_wards(text: str) -> list[str]:
    return ["ward"] if "cough 1" in text else []


def test_a_canary_among_the_rows_refuses_them_all_where_copies_alone_would_not(tmp_path: Path) -> None:
    rows, gold = with_a_canary(), plant(OPEN, gold_rows(OPEN), CANARIES)
    assert publish_dataset(OPEN, rows, "o/n", gold=gold, push=False, dry_run=True).allowed  # one row of 180 is few
    for dry in (True, False):
        verdict = publish_dataset(OPEN, rows, "o/n", gold=gold, push=False, canaries=CANARIES, dry_run=dry)
        assert not verdict.allowed
        assert "1 of 4 canaries planted in gold are in the rows" in str(verdict)
        assert (verdict.counts["canaries planted"], verdict.counts["canaries found"]) == (4, 1)
        assert verdict.counts["withheld: canary"] == 1
    (entry,) = entries(tmp_path / "export")
    assert (entry["action"], entry["audit"]["figures"]["canaries_found"]) == ("refused", 1)
    log = (tmp_path / "export" / ".hf_synth" / LOG).read_text()
    assert not any(word in log for word in CANARIES.planted[2].split())


def test_without_a_canary_in_them_the_rows_leave_and_the_card_says_so(tmp_path: Path) -> None:
    gold = plant(OPEN, gold_rows(OPEN), CANARIES)
    verdict = publish_dataset(OPEN, synthetic_rows(OPEN), "o/n", gold=gold, push=False, canaries=CANARIES)
    assert verdict.allowed
    assert verdict.counts["canaries found"] == 0
    assert "| canaries that were planted in gold | 4 |" in (tmp_path / "export" / "n" / "README.md").read_text()
    assert entries(tmp_path / "export")[0]["audit"]["verdict"] == "ok"
    both = publish_dataset(OPEN, synthetic_rows(OPEN), "o/n", gold=gold, push=False, canaries=CANARIES, augmented=True)
    assert both.reasons[0].startswith("an augmented config would publish the canaries")


def test_a_finder_of_ones_own_withholds_rows(tmp_path: Path) -> None:
    rows, gold = synthetic_rows(RESTRICTED, 60), gold_rows(RESTRICTED, 60)
    hit = sum("cough 1" in (text or "") for text in rows["text"])
    assert 0 < hit < 30
    told = {"gold": gold, "push": False, "find_identifiers": names_of_wards}
    verdict = publish_dataset(RESTRICTED, rows, "o/n", dry_run=True, **told)
    assert verdict.allowed
    assert (verdict.counts["rows with ward"], verdict.counts["withheld: identifier"]) == (hit, hit)
    assert not (tmp_path / "export").exists()
    publish_dataset(RESTRICTED, rows, "o/n", **told)
    assert entries(tmp_path / "export")[0]["audit"]["figures"]["with_ward"] == hit
    everywhere = publish_dataset(RESTRICTED, rows, "o/n", **{**told, "find_identifiers": lambda _: ["ward"]})
    assert any(reason.startswith("no row is left to publish: the audit") for reason in everywhere.reasons)

    def fails(text: str) -> list[str]:
        raise ValueError(text)

    with pytest.raises(HfSynthError, match=r"find_identifiers failed at row 0 \(ValueError\)$"):
        publish_dataset(RESTRICTED, rows, "o/n", **{**told, "find_identifiers": fails})


def test_the_gate_keeps_a_model_private_that_knows_canaries() -> None:
    for known, private, allowed in ((KNOWS, False, False), (KNOWS, True, True), (GUESSES, False, True)):
        verdict = gate(OPEN, "model", Evidence("open", None, True, exposure=known), Request("o/x", private=private))
        assert verdict.allowed is allowed
        assert f"exposure: {known.mean:.2f} bits of at most 4.00" in " ".join(verdict.reasons)
    here = Request("o/x", private=False, push=False)  # the folder stays here
    assert gate(OPEN, "model", Evidence("open", None, True, exposure=KNOWS), here).allowed
    for unmeasured, private, allowed in (
        ("not measured", False, False),
        ("not measured", True, True),
        ("", False, True),
    ):
        evidence = Evidence("open", None, True, unmeasured=unmeasured)
        assert gate(OPEN, "model", evidence, Request("o/x", private=private)).allowed is allowed
    assert not Exposure((), most=4.0, expected=1.2).known


def that_saw(model: Path, to: Path, rows: Any) -> Path:
    """Copy a model, with facts that say which rows it saw."""
    copy = Path(shutil.copytree(model, to, symlinks=True))
    write_facts(copy, {**model_facts(model), "row_digests": row_digests(OPEN, rows.select_columns(["text"]))})
    return copy


def test_a_models_exposure_is_measured_told_and_recorded(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    gold = plant(OPEN, gold_rows(OPEN), CANARIES)
    model = that_saw(model, tmp_path / "saw", gold)
    verdict = publish_model(OPEN, model, None, "o/m", gold=gold, push=False, canaries=CANARIES)
    assert verdict.allowed
    assert any(reason.startswith("exposure: ") for reason in verdict.reasons)
    card = (tmp_path / "export" / "m" / "README.md").read_text()
    assert "canaries were planted in its gold, exposure: " in card
    assert len(entries(tmp_path / "export")[0]["exposure"]["bits"]) == 4
    with pytest.raises(ColumnError, match="no canary is in these rows"):
        publish_model(OPEN, model, None, "o/m", gold=gold_rows(OPEN), push=False, canaries=CANARIES)
    monkeypatch.setattr(trial, "exposure", lambda *_, **__: KNOWS)
    refused = publish_model(OPEN, model, None, "o/m", gold=gold, private=False, canaries=CANARIES, dry_run=True)
    assert not refused.allowed
    assert "keep it private" in refused.reasons[0]


@pytest.mark.parametrize("lacks", ["a classifier", "gold", "a place"])
def test_exposure_that_was_not_measured_is_told_and_nothing_is_public(model: Path, tmp_path: Path, lacks: str) -> None:
    whole = plant(OPEN, gold_rows(OPEN), CANARIES)
    free = whole.filter(lambda row: not CANARIES.found_in([row["text"]]), keep_in_memory=True)
    model = that_saw(model, tmp_path / "saw", free)
    writes = replace(OPEN, kind="text2text", labels=(), label_meanings=())
    task, gold, why = {
        "a classifier": (writes, whole, "it is for classifiers only"),
        "gold": (OPEN, None, "there was no gold"),
        "a place": (OPEN, whole, "no canary stands in a labelled row that it was trained on"),
    }[lacks]
    told: dict[str, Any] = {"gold": gold, "canaries": CANARIES, "membership": False}
    refused = publish_model(task, model, None, "o/m", private=False, **told)
    assert not refused.allowed
    assert refused.reasons == (f"canaries were given, but exposure was not measured: {why}; keep it private",)
    assert (entries(tmp_path / "export")[0]["action"], entries(tmp_path / "export")[0]["exposure"]) == ("refused", why)
    if lacks != "a classifier":  # this model writes no texts
        kept = publish_model(task, model, None, "o/m", push=False, **told)
        assert f"exposure was not measured: {why}" in kept.reasons
        card = " ".join((tmp_path / "export" / "m" / "README.md").read_text().split())
        assert f"canaries were planted in its gold, exposure was not measured: {why}." in card
        assert entries(tmp_path / "export")[-1]["exposure"] == why


def test_a_test_of_membership_that_tested_nothing_is_not_called_one(model: Path, tmp_path: Path) -> None:
    nothing = Membership(0, 0, "not tested: its facts are old")
    verdict = publish_model(OPEN, model, None, "o/m", push=False, membership=nothing)
    assert verdict.reasons[-1] == "no membership test was made: its facts are old"
    card = " ".join((tmp_path / "export" / "m" / "README.md").read_text().split())
    assert "no membership test was made of this one (its facts are old)" in card


def test_a_canary_in_a_file_of_a_model_refuses_it(model: Path) -> None:
    known = Canaries(("meal cough pain",), ("dose scan week",))  # words of its tokenizer, in another order
    assert publish_model(OPEN, model, None, "o/m", push=False, canaries=known, dry_run=True).allowed
    first = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    words = " ".join(sorted(first, key=first.get)[4:7])
    there = Canaries((words,), ("dose scan week",))
    refused = publish_model(OPEN, model, None, "o/m", push=False, canaries=there, dry_run=True)
    assert refused.reasons == ("tokenizer.json holds a canary that was planted in gold",)


def test_the_verbs_take_canaries_and_a_finder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = plant(OPEN, gold_rows(OPEN), CANARIES)
    write_stage(OPEN, DatasetDict(train=gold), tmp_path / "gold", stage="gold")
    write_stage(OPEN, with_a_canary(), tmp_path / "rows", stage="correct")
    CANARIES.save(tmp_path / "canaries.json")
    (tmp_path / "mine.py").write_text("def wards(text):\n    return ['ward'] if 'cough 1' in text else []\n")
    there = ["publish", "gold", "rows", "--repo-id", "o/n", "--dry-run"]
    assert main([*there, "--find-identifiers", "mine.py:wards"]) == 0
    assert "rows with ward" in capsys.readouterr().out
    assert main([*there, "--canaries", "canaries.json"]) == 1
    assert "1 of 4 canaries" in capsys.readouterr().out
    assert main(["audit", "gold", "rows", "--find-identifiers", "mine.py:wards"]) == 0
    assert "what looks like an identifier" in capsys.readouterr().out
    for wrong, said in (("mine.py", "takes FILE.py:FUNCTION"), ("mine.py:cough", "has no function 'cough'"),
                        ("nowhere.py:f", "cannot be imported (FileNotFoundError)")):  # fmt: skip
        assert main([*there, "--find-identifiers", wrong]) == 1
        assert said in capsys.readouterr().err
