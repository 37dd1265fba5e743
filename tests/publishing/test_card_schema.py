"""`datasets` reads configs, features and splits of an export from its card alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset, load_dataset_builder
from huggingface_hub.repocard import DatasetCard
from support.publishing_rows import OPEN, gold_rows, synthetic_rows

from hf_synth.publishing.card_schema import dataset_info
from hf_synth.publishing.cards import dataset_facts
from hf_synth.publishing.publishing import publish_dataset
from hf_synth.task.task import Task

SETS = Task.from_columns(
    "sets",
    text_columns=("a", "b"),
    label_column="tags",
    labels=("null", "1", "x: y"),
    kind="multi_label",
    access="open",
)


def sets_rows() -> Dataset:
    rows = [
        SETS.gold_row(f"r{i}", None, None, f"first {i} of its kind", f"second {i * 7}") | {"tags": [0, 2][: i % 3]}
        for i in range(6)
    ]
    return Dataset.from_list([row | {"source": "synthetic"} for row in rows], features=SETS.gold_features())


def test_the_card_alone_states_configs_features_and_splits(tmp_path: Path) -> None:
    export = tmp_path / "x"
    told = {"gold": gold_rows(OPEN), "push": False, "export_dir": export, "augmented": True}
    assert publish_dataset(OPEN, synthetic_rows(OPEN), "org/x", **told).allowed
    card = tmp_path / "card"
    shutil.copytree(export, card)
    for file in card.glob("*/*.parquet"):
        file.write_bytes(b"no parquet")  # whatever is read now is read from the card
    for config in ("corrected", "raw", "augmented"):
        rows = load_dataset(str(export), config, split="train", cache_dir=str(tmp_path / "cache"))
        info = load_dataset_builder(str(card), config, cache_dir=str(tmp_path / "other")).info
        assert info.features == rows.features
        assert info.splits["train"].num_examples == len(rows)
        assert info.dataset_size == info.splits["train"].num_bytes > 1_000
        assert info.download_size == next(export.glob(f"{config}/*.parquet")).stat().st_size


def test_labels_that_yaml_would_misread_stay_names(tmp_path: Path) -> None:
    assert publish_dataset(SETS, sets_rows(), "org/x", push=False, export_dir=tmp_path / "x").allowed
    info = load_dataset_builder(str(tmp_path / "x"), cache_dir=str(tmp_path / "cache")).info
    assert info.features["tags"].feature.names == ["null", "1", "x: y"]
    header = DatasetCard.load(tmp_path / "x" / "README.md").data
    assert header.task_ids == ["multi-label-classification"]
    assert [entry["config_name"] for entry in header.dataset_info] == ["raw"]
    assert dataset_info(tmp_path / "x", ["raw"]) == header.dataset_info


def test_thousands_of_labels_do_not_make_a_header_that_no_hub_takes(tmp_path: Path) -> None:
    from hf_synth.hub.cards import card_data

    sizes = {}
    for number in (100, 3_000):
        codes = replace(OPEN, labels=tuple(f"code {i:04}" for i in range(number)))
        row = codes.gold_row("r", None, number - 1, "some words") | {"source": "synthetic"}
        rows = Dataset.from_list([row], features=codes.gold_features())
        folder = tmp_path / str(number)
        assert publish_dataset(codes, rows, "org/x", push=False, export_dir=folder).allowed
        data = card_data(folder / "README.md")
        assert data["license"] == "mit", "the header can be read"
        sizes[number] = len(data.get("dataset_info") or [])
        back = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        assert back.features["label"].names == list(codes.labels)
    assert sizes == {100: 1, 3_000: 0}


@pytest.mark.parametrize(
    ("change", "sources", "ids"),
    [
        ({}, ["extended|other"], ["multi-class-classification"]),
        ({"source_url": "https://huggingface.co/datasets/a/b"}, ["extended|a/b"], ["multi-class-classification"]),
        ({"script": "clinic"}, ["original"], ["multi-class-classification"]),
        ({"labels": ("Entailment", "neutral", "contradiction")}, ["extended|other"], ["natural-language-inference"]),
    ],
)
def test_the_terms_of_the_header_follow_from_the_task(
    change: dict[str, str], sources: list[str], ids: list[str]
) -> None:
    task = replace(OPEN, **change)
    facts = dataset_facts(task, synthetic_rows(task))
    assert (facts["sources"], facts["task_ids"]) == (sources, ids)
    assert facts["annotated_by"] == facts["written_by"] == ["machine-generated"]


def test_a_persons_labels_and_open_gold_are_in_the_terms() -> None:
    audited = dataset_facts(OPEN, synthetic_rows(OPEN, reason="audited"))
    assert audited["annotated_by"] == ["machine-generated", "expert-generated"]
    with_gold = dataset_facts(OPEN, synthetic_rows(OPEN), gold_rows=30)
    assert with_gold["annotated_by"] == with_gold["written_by"] == ["machine-generated", "other"]
