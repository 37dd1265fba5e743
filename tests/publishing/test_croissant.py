"""`croissant.json` is valid Croissant, says what the card says, and leaves as every other file does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from support.publishing_rows import CANARY, OPEN, POLICY, RESTRICTED, gold_rows, synthetic_rows

from hf_synth.publishing import croissant
from hf_synth.publishing.publishing import publish_dataset
from hf_synth.publishing.release import content_digest
from hf_synth.publishing.sealed import sealed
from hf_synth.task.task import Task

RAI = (
    "dataCollection", "dataCollectionType", "dataPreprocessingProtocol", "dataAnnotationProtocol", "annotationsPerItem",
    "dataBiases", "dataUseCases", "dataLimitations", "dataSocialImpact", "personalSensitiveInformation",
)  # fmt: skip


def exported(task: Task, folder: Path, **options: Any) -> dict[str, Any]:
    rows, gold = synthetic_rows(task), gold_rows(task)
    assert publish_dataset(task, rows, "org/x", gold=gold, push=False, export_dir=folder, **options).allowed
    facts: dict[str, Any] = json.loads((folder / "croissant.json").read_text())
    return facts


def test_files_and_fields_are_those_of_the_export(tmp_path: Path) -> None:
    facts = exported(replace(OPEN, language="en"), tmp_path / "x", augmented=True)
    assert facts["inLanguage"] == "en"
    assert facts["license"] == "https://spdx.org/licenses/MIT.html"
    for file in facts["distribution"]:
        data = (tmp_path / "x" / file["contentUrl"]).read_bytes()
        assert (file["sha256"], file["contentSize"]) == (hashlib.sha256(data).hexdigest(), f"{len(data)} B")
    records = {r["name"]: r for r in facts["recordSet"]}
    assert list(records) == ["augmented", "corrected", "raw", "labels"]
    for config in ("augmented", "corrected", "raw"):
        rows = load_dataset(str(tmp_path / "x"), config, split="train", cache_dir=str(tmp_path / "cache"))
        assert [f["name"] for f in records[config]["field"]] == rows.column_names
    assert [row["labels/name"] for row in records["labels"]["data"]] == list(OPEN.labels)


@pytest.mark.parametrize(
    ("known", "source", "license", "address"),
    [
        ("mit", "https://example.org", "MIT", "https://spdx.org/licenses/MIT.html"),
        ("other", "https://example.org", "its own", "https://example.org"),
        ("other", "", "its own", "its own"),
    ],
)
def test_a_license_is_an_address_where_one_is_known(known: str, source: str, license: str, address: str) -> None:
    facts = {"license_data": {"license": known}, "source_url": source, "license": license}
    assert croissant._license(facts) == address


def test_responsible_use_is_said_in_every_field(tmp_path: Path) -> None:
    open_facts = exported(OPEN, tmp_path / "open", policy=POLICY)
    assert all(open_facts[f"rai:{name}"] for name in RAI)
    assert open_facts["rai:machineAnnotationTools"] == ["hf_synth policy posterior"]
    assert "Rows by label: no 9, yes 0, maybe 9" in open_facts["rai:dataBiases"]
    assert "some-llm (27 rows), with 27 different prompts" in open_facts["rai:dataCollection"]
    own = exported(RESTRICTED, tmp_path / "own")
    assert "Access of the gold: restricted." in own["rai:personalSensitiveInformation"]
    assert "not de-identification" in own["rai:personalSensitiveInformation"]
    assert own["isAccessibleForFree"] is False
    assert "inLanguage" not in own
    assert "url" not in own, "it is on no Hub"
    assert CANARY not in str(own)


def test_it_is_sealed_and_does_not_change_the_content(tmp_path: Path) -> None:
    exported(OPEN, tmp_path / "x")
    release = json.loads((tmp_path / "x" / "release.json").read_text())
    files = {name: file.sha256 for name, file in sealed(tmp_path / "x").items()}
    assert release["files"]["croissant.json"] == files["croissant.json"]
    described_otherwise = release["files"] | {"croissant.json": "0" * 64}
    assert content_digest(described_otherwise) == release["content"], "a release of the same rows is the same content"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own libraries
@pytest.mark.parametrize("kind", ["single_label", "multi_label", "text2text"])
def test_mlcroissant_reads_it_and_its_rows(tmp_path: Path, kind: Any) -> None:
    from datasets import Dataset

    mlcroissant = pytest.importorskip("mlcroissant")
    if kind == "single_label":
        exported(replace(OPEN, language="en"), tmp_path / "x", augmented=True, policy=POLICY)
    else:
        many = {"multi_label": ("x", "y"), "text2text": ()}[kind]
        task = Task.from_columns(
            "own", text_columns=("a", "b"), label_column="out", labels=many, kind=kind, access="open"
        )
        target: Any = [1] if many else "target"
        row = task.gold_row("r", None, None, "one text", "another") | {"out": target, "source": "synthetic"}
        rows = Dataset.from_list([row], features=task.gold_features())
        assert publish_dataset(task, rows, "org/x", push=False, export_dir=tmp_path / "x").allowed
    read = mlcroissant.Dataset(str(tmp_path / "x" / "croissant.json"))
    assert read.metadata.ctx.issues.errors == set()
    recommended = {w.split('"')[1].rpartition("/")[2] for w in read.metadata.ctx.issues.warnings}
    assert recommended <= {"datePublished", "version"}, "neither is known when an export is written"
    info = json.loads((tmp_path / "x" / "hf_synth.json").read_text())["rows"]
    for config, count in info.items():
        records = list(read.records(config))
        assert len(records) == count
        rows = load_dataset(str(tmp_path / "x"), config, split="train", cache_dir=str(tmp_path / "cache"))
        for column in rows.column_names[:4]:
            read_back = [r[f"{config}/{column}"] for r in records]
            assert [v.decode() if isinstance(v, bytes) else v for v in read_back] == rows[column][:]
