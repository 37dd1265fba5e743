"""The offline check of an export: each thing that must not stand in it is found, and named without being shown."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from support.publishing_rows import OPEN, gold_rows, synthetic_rows

from hf_synth.errors import PublishError
from hf_synth.privacy.audit import index_gold
from hf_synth.privacy.overlap import Index
from hf_synth.publishing.card_checks import check_card
from hf_synth.publishing.checks import Watched, check_folder
from hf_synth.publishing.contents import strings_in
from hf_synth.publishing.local_paths import has_local_path
from hf_synth.publishing.publishing import publish_dataset
from hf_synth.task.folders import write_parquet

TASK = replace(OPEN, language="en")
SECRET = "not-for-others-1234"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "rows"
    publish_dataset(TASK, synthetic_rows(TASK), "org/x", gold=gold_rows(TASK), push=False, export_dir=folder)
    return folder


@cache
def index() -> Index:
    return index_gold(OPEN, gold_rows(OPEN))


def check(folder: Path) -> list[str]:
    seen = Watched(gold=index(), secrets=(SECRET, None), columns=("text",), language="en")
    return check_folder(folder, seen)


def edited(export: Path, folder: Path, name: str, old: str, new: str) -> list[str]:
    shutil.copytree(export, folder)
    text = (folder / name).read_text() if (folder / name).is_file() else ""
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1) if old else text + new)
    return check(folder)


def test_an_export_as_it_is_passes(export: Path) -> None:
    assert check(export) == []


@pytest.mark.parametrize(("name", "old", "new", "said"), [
    ("README.md", "license: mit", "license: MIT License", "not one of the Hub's identifiers"),
    ("README.md", "license: mit", "license: other\nlicense_name: Our Own Terms", "needs a license_name of small"),
    ("README.md", "- n<1K", "- small", "size_categories"),
    ("README.md", "- text-classification", "- classifying", "task categories"),
    ("README.md", "language: en", "language: English", "no ISO 639 code"),
    ("README.md", "language: en", "language: null", "language is 'missing', the task states 'en'"),
    ("README.md", "language: en", "language: de", "language is 'de', the task states 'en'"),
    ("README.md", "\nlanguage: en\n", "\n", "language is 'missing', the task states 'en'"),
    ("README.md", "num_examples: 1", "num_examples: 2", "splits of config 'corrected' differ from its files"),
    ("README.md", "  - name: label\n    dtype:\n", "  - name: grade\n    dtype:\n", "features of config 'corrected'"),
    ("README.md", "'1': 'yes'\n", "'1': perhaps\n", "features of config 'corrected' differ"),
    ("README.md", "'0': 'no'\n          '1': 'yes'\n", "'0': 'yes'\n          '1': 'no'\n", "features of config"),
    ("README.md", "dtype: string", "dtype: int64", "features of config 'corrected' differ"),
    ("README.md", "list: float32", "list: float64", "features of config 'corrected' differ"),
    ("README.md", "  download_size: ", "  download_size: 1", "download_size of config 'corrected' differ"),
    ("README.md", "- config_name: raw\n  features", "- config_name: more\n  features", "config 'raw' is not described"),
    ("README.md", "dataset_info:", "dataset_infos:", "config 'corrected' is not described"),
    ("README.md", "dataset_info:\n", "dataset_info: none\nothers:\n", "dataset_info is not a list of configs"),
    ("README.md", "- multi-class-classification", "- many-classes", "task_ids"),
    ("README.md", "source_datasets:\n- extended|other", "source_datasets:\n- mine", "source_datasets"),
    ("README.md", "annotations_creators:\n- machine-generated", "annotations_creators:\n- me", "annotations_creators"),
    ("README.md", "language_creators:\n- machine-generated", "language_creators:\n- me", "language_creators"),
    ("README.md", "config_name: raw", "config_name: corrected", "two configs have one name"),
    ("README.md", "path: raw/train-*.parquet", "path: raw/test-*.parquet", "'raw/test-*.parquet' does not exist"),
    ("README.md", "path: raw/train-*.parquet", "path: ../raw/train-*.parquet", "does not exist"),
    ("README.md", "path: raw/train-*.parquet", "path: corrected/train-*.parquet", "no config names"),
    ("README.md", "", "\n{{ left }}\n", "placeholder"),
    ("README.md", "", "\n{% if left %}\n", "placeholder"),
    ("README.md", "", "\nAccuracy: nan.\n", "an empty value is left in the text"),
    ("README.md", "", "\nLicence: None\n", "an empty value is left in the text"),
    ("README.md", "", "\nTODO\n", "a note to the author"),
    ("README.md", "", "\n![chart](https://example.org/x.png)\n", "load something from elsewhere"),
    ("README.md", "", "\n<img src=x>\n", "load something from elsewhere"),
    ("README.md", "", f"\n{gold_rows(OPEN)['text'][2]}\n", "text of gold"),
    ("README.md", "", f"\n{SECRET}\n", "the token in use"),
    ("README.md", "", "\nhf_ABCDEFGHIJKLMNOPQRSTUVWX\n", "a token of the Hub"),
    ("README.md", "", "\n-----BEGIN RSA PRIVATE KEY-----\n", "a private key"),
    ("README.md", "", "\nread from /home/somebody/notes\n", "a path of this machine"),
    ("README.md", "", "\nread from C:\\Users\\notes\n", "a path of this machine"),
    *(("README.md", "", f"\nread from {path}\n", "a path of this machine") for path in (
        "/gpfs/lab/anna/notes", "/scratch1/anna/x", "/Volumes/Data/notes", "/srv/notes/x", "/opt/clinic/notes.csv",
        "C:/Users/anna/x", "\\\\server\\share\\gold", "~/notes/gold.csv", "file:///clinic/notes.csv",
    )),
    ("croissant.json", '"sha256": "', '"sha256": "0', "its distribution is not that of the files"),
    ("croissant.json", '"contentSize": "', '"contentSize": "1', "its distribution is not that of the files"),
    ("croissant.json", '"dataType": "sc:Text"', '"dataType": "sc:Integer"', "its recordSet is not that of the files"),
    ("croissant.json", '"name": "label_status"', '"name": "status"', "its recordSet is not that of the files"),
    ("croissant.json", '"inLanguage": "en"', '"inLanguage": "de"', "its language is not that of the card"),
    ("croissant.json", '"sc:Dataset"', '"sc:Thing"', "it is no Croissant description"),
    ("croissant.json", '"rai:dataUseCases": "', f'"rai:dataUseCases": "{gold_rows(OPEN)["text"][4]} ', "text of gold"),
    ("release.json", "", "\n\"sk-ABCDEFGHIJKLMNOPQRSTUVWX\"", "a key of an LLM's endpoint"),
    ("hf_synth.json", "", f"\n{gold_rows(OPEN)['text'][5]}", "text of gold"),
    ("extra.txt", "", f"{gold_rows(OPEN)['text'][5]}", "text of gold"),
])  # fmt: skip
def test_what_must_not_stand_in_an_export_is_found(
    export: Path, tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    problems = edited(export, tmp_path / "copy", name, old, new)
    assert [p for p in problems if p.startswith(f"{name}: ") and said in p], problems
    assert SECRET not in str(problems)
    assert "hf_ABC" not in str(problems)
    assert gold_rows(OPEN)["text"][2][:20] not in str(problems)


def test_rows_beside_the_configs_are_found(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "copy")
    shutil.copy(export / "raw" / "train-00000-of-00001.parquet", tmp_path / "copy" / "gold.parquet")
    assert any("no config names" in p for p in check(tmp_path / "copy"))


@pytest.mark.parametrize("fine", [
    "See https://example.org/data/notes for more.", "None of the notes is real.", "| None | 3 |", "and/or", "`None`",
    "See [the page](https://example.org/home/x).", "`/usr/bin/env python`", "2/3, ~5/10, C: see below", "mg/dl",
])  # fmt: skip
def test_what_may_stand_in_a_card_passes(export: Path, fine: str) -> None:
    card: Any = (export / "README.md").read_text() + f"\n{fine}\n"
    assert check_card(card) == []
    assert not has_local_path(card)


def test_gold_in_the_names_and_metadata_of_fields_is_found(tmp_path: Path) -> None:
    """What a writer of parquet keeps beside the rows: metadata of a field, the name of a list's items."""
    note = gold_rows(OPEN)["text"][2]
    for field in (
        pa.field("text", pa.string(), metadata={"note": note}),
        pa.field("label_probs", pa.list_(pa.field(note, pa.float32()))),
    ):
        pq.write_table(
            pa.table({field.name: pa.array([None], field.type)}, schema=pa.schema([field])), tmp_path / "x.parquet"
        )
        assert note in strings_in(tmp_path / "x.parquet")


@pytest.mark.parametrize("written", [
    lambda rows: rows.add_column("one more", ["x"] * len(rows)),
    lambda rows: rows.select(range(len(rows) - 1)),
    lambda rows: rows.map(lambda row: {"text": row["text"].upper()}),
], ids=["a column more", "a row less", "other texts"])  # fmt: skip
def test_an_export_that_differs_when_read_back_is_refused(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(task: Any, rows: Dataset, file: Path, access: Any) -> None:
        write_parquet(task, written(rows), file, access)

    monkeypatch.setattr("hf_synth.publishing.export.write_parquet", write)
    monkeypatch.setattr("hf_synth.publishing.writing.content_check", lambda *_, **__: lambda folder: None)
    with pytest.raises(PublishError, match="differs when read back"):
        publish_dataset(OPEN, synthetic_rows(OPEN), "o/x", gold=gold_rows(OPEN), push=False, export_dir=tmp_path / "x")
    assert not (tmp_path / "x").exists()
