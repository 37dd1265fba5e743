"""The access of a model: by its facts, by the table, or as it is stated; an unknown model is credentialed."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.tiny import tiny_base, toy_rows, toy_task

from hf_synth.cli.cli import main
from hf_synth.errors import ModelError
from hf_synth.llm.local import LocalLLM
from hf_synth.models.base_models import BASE_MODELS
from hf_synth.models.record import FACTS, access_of_model, access_on_record, model_facts, weights_sha256, write_facts
from hf_synth.models.training import train
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import write_stage

SHORT: dict[str, Any] = {"args": {"max_steps": 1}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    return train(toy_task(), toy_rows(10), base_model=base, output_dir=out, **SHORT)


def of(folder: Path, to: Path, facts: dict[str, Any] | None) -> Path:
    """Copy a model, with other facts, or without."""
    shutil.copytree(folder, to)
    (to / FACTS).unlink()
    if facts is not None:
        write_facts(to, facts)
    return to


def test_a_folder_without_facts_is_credentialed_whatever_its_name(trained: Path, tmp_path: Path) -> None:
    assert access_of_model(trained) == "open"
    for name in ("model", "Bio_ClinicalBERT", "flan-t5-base"):
        assert access_of_model(of(trained, tmp_path / name, None)) == "credentialed"
    assert access_of_model(of(trained, tmp_path / "named", {"access": "public", "row_digests": []})) == "credentialed"
    listed = of(trained, tmp_path / "Clinical-T5-Base", {"access": "open", "row_digests": []})
    assert access_of_model(listed) == "credentialed"


def test_facts_speak_of_the_weights_that_they_were_written_for(trained: Path, tmp_path: Path) -> None:
    """Somebody trains on, on other notes, and saves into the same folder."""
    assert model_facts(trained)["weights"] == weights_sha256(trained)
    from transformers import AutoModelForSequenceClassification

    folder = Path(shutil.copytree(trained, tmp_path / "m"))
    network: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    network.half().save_pretrained(folder)
    assert access_of_model(folder) == "credentialed"
    assert access_of_model(folder, "open") == "open"  # as it is stated, of weights that nothing is known of
    strict = json.loads((folder / FACTS).read_text()) | {"access": "restricted"}
    write_facts(folder, strict)
    with pytest.raises(ModelError, match="'m' is known to be restricted: base_access='open' cannot loosen that"):
        access_of_model(folder, "open")
    early = {k: v for k, v in strict.items() if k != "weights"}  # as an earlier release wrote them
    write_facts(folder, early)
    assert access_of_model(folder) == "restricted"


def test_a_repository_is_open_by_the_table_alone(trained: Path, tmp_path: Path) -> None:
    bare = of(trained, tmp_path / "snapshot", None)
    for name, access in (
        ("emilyalsentzer/Bio_ClinicalBERT", "open"), ("google/flan-t5-base", "open"), ("Google/Flan-T5-Base", "open"),
        ("flan-t5-base", "credentialed"), ("someone/flan-t5-base", "credentialed"), ("gpt2", "credentialed"),
        ("Clinical-T5-Base", "credentialed"), ("org/Clinical-T5-Base", "credentialed"),
    ):  # fmt: skip
        assert access_of_model(name, folder=bare) == access, name
    assert access_of_model("gpt2", "open", folder=bare) == "open"
    assert access_of_model("gpt2", "restricted", folder=bare) == "restricted"
    for name in ("Clinical-T5-Base", "clinical-t5-base"):
        with pytest.raises(ModelError, match="cannot loosen that"):
            access_of_model(name, "open", folder=bare)
    with pytest.raises(ModelError, match="base_access is one of open, restricted, credentialed; got 'public'"):
        access_of_model("gpt2", "public", folder=bare)


def test_a_model_inherits_and_records_what_was_stated(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = of(trained, tmp_path / "bare", None)
    with caplog.at_level(logging.WARNING):
        made = train(toy_task(), toy_rows(10), base_model=bare, output_dir=tmp_path / "a", **SHORT)
    assert model_facts(made)["access"] == "credentialed"
    assert "nothing is known of base model bare: the trained model counts as credentialed" in caplog.text
    caplog.clear()
    told: dict[str, Any] = {"base_model": bare, "base_access": "open", **SHORT}
    made = train(toy_task(), toy_rows(10), output_dir=tmp_path / "b", **told)
    assert (model_facts(made)["access"], model_facts(made)["base_access"]) == ("open", "open")
    assert not caplog.records
    restricted = toy_task(access="restricted")
    made = train(restricted, toy_rows(10, task=restricted), output_dir=tmp_path / "c", **told)
    assert model_facts(made)["access"] == "restricted"


def test_the_verb_states_it_too(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of(trained, tmp_path / "bare", None)
    write_stage(toy_task(), toy_rows(12), tmp_path / "gold", stage="gold")
    words = ["train", "gold", "gold", "--base-model", "bare", "--set", "max_steps=1", "--quiet"]
    assert main([*words, "--out", "a"]) == 0
    assert main([*words, "--out", "b", "--base-access", "open"]) == 0
    assert (model_facts("a")["access"], model_facts("b")["access"]) == ("credentialed", "open")


def test_what_is_on_record_of_a_model_and_what_is_not(tmp_path: Path) -> None:
    """A language model of which nothing is recorded hands nothing on; one that learnt notes does."""
    folder = tmp_path / "runs" / "writer"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    llm = LocalLLM(str(folder), journal=tmp_path / "j.sqlite")
    assert access_on_record(folder, folder) is None
    assert llm.access == "open"
    (folder.parent / MANIFEST).write_text('{"stage": "train", "access": "restricted"}')
    assert access_on_record(folder, folder) == "restricted"
    assert LocalLLM(folder, journal=tmp_path / "j.sqlite").access == "restricted"
    (folder / FACTS).write_text('{"access": "credentialed", "row_digests": []}')
    again = LocalLLM(str(folder), journal=tmp_path / "j.sqlite")
    assert again.access == again.with_journal(tmp_path / "k.sqlite").access == "credentialed"
    (folder / FACTS).write_text('{"access": "public", "row_digests": []}')
    assert access_on_record(folder, folder) == "credentialed"
    (folder / FACTS).write_text('{"access": "open", "row_digests": [], "weights": "of others"}')
    assert access_on_record(folder, folder) == "credentialed"
    listed = next(m for m in BASE_MODELS if m.access == "credentialed")
    assert access_on_record(listed.repo_id, tmp_path) == "credentialed"
