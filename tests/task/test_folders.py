"""Folders and files: written whole, for their owner alone; foreign parquet files are read as plain values."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset

from hf_synth.errors import OutputError, RowError
from hf_synth.gold.adoption import read_dataset
from hf_synth.gold.tables import read_table
from hf_synth.task import Task, folders
from hf_synth.task.folders import (
    APPROVED,
    MANIFEST,
    approve_edits,
    atomic_file,
    edited_digests,
    edited_files,
    file_digest,
    map_parquet,
    private_folder,
    read_manifest,
    write_stage,
)


def test_a_file_is_written_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    path, mask = tmp_path / "answers.jsonl", os.umask(0)
    try:
        with atomic_file(path) as draft:
            assert draft.parent == tmp_path
            draft.write_text("whole")
            assert not path.exists()
    finally:
        os.umask(mask)
    assert path.read_text() == "whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["answers.jsonl"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as draft:
        draft.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["answers.jsonl"]


def test_a_link_that_waits_under_a_name_that_can_be_guessed_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("old")
    (tmp_path / f".answers.jsonl.{os.getpid()}").symlink_to(victim)
    with atomic_file(tmp_path / "answers.jsonl") as draft:
        draft.write_text("text of a note")
    assert victim.read_text() == "old"
    assert not (tmp_path / "answers.jsonl").is_symlink()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError), atomic_file(tmp_path / "nowhere" / "answers.jsonl"):
        pass


# --- stages that a person edited ------------------------------------------------------------------------------------
def test_an_edited_stage_is_told_from_one_as_written(tmp_path: Path) -> None:
    task = Task.from_columns("t", text_columns="text", label_column="label", labels=["a", "b"], access="open")
    rows = Dataset.from_list([task.gold_row(f"g{i}", None, i % 2, f"Note {i}.") for i in range(4)])
    rows = rows.cast(task.gold_features())
    folder = write_stage(task, rows, tmp_path / "stage", stage="gold")
    assert edited_files(folder) == []
    assert edited_digests(folder) == {}
    file = folder / "train.parquet"
    rows.select([0, 1]).to_parquet(file)
    assert edited_files(folder) == ["train.parquet"]
    assert approve_edits(folder) == edited_digests(folder) == {"train.parquet": file_digest(file)}
    manifest = read_manifest(folder) or {}
    assert (manifest["stage"], manifest[APPROVED]) == ("gold", edited_digests(folder))
    assert edited_files(folder) == ["train.parquet"]  # approved is not "as written"
    file.unlink()
    assert (edited_files(folder), edited_digests(folder)) == (["train.parquet"], {})
    old = {name: fact for name, fact in manifest.items() if name != "files"}
    (folder / MANIFEST).write_text(json.dumps(old))  # of a version that kept no digests
    assert edited_files(folder) == []
    assert edited_digests(tmp_path / "nowhere") == {}


def test_a_folder_that_is_written_again_loads_its_new_rows(tmp_path: Path) -> None:
    task = Task.from_columns("t", text_columns="text", label_column="label", labels=["a", "b"], access="open")

    def loaded(*texts: str) -> list[str]:
        rows = Dataset.from_list([task.gold_row(f"g{i}", None, i % 2, text) for i, text in enumerate(texts)])
        folder = write_stage(task, rows.cast(task.gold_features()), tmp_path / "stage", stage="gold")
        return list(load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))["text"])

    assert loaded("First.", "Second.") == ["First.", "Second."]
    assert loaded("Third.", "Fourth.") == ["Third.", "Fourth."]
    assert loaded("First.", "Second.") == ["First.", "Second."]


# --- foreign parquet ------------------------------------------------------------------------------------------------
def _foreign(path: Path, told: dict[str, Any], **columns: Any) -> Path:
    """Write a parquet file whose metadata tells features, as somebody else may write it."""
    metadata = {b"huggingface": json.dumps({"info": {"features": told}}).encode()}
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


@pytest.fixture(params=["mapped", "in memory"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    if request.param == "in memory":
        monkeypatch.setattr("hf_synth.task.folders.cache_folder", lambda beside: None)
    return lambda path: map_parquet(path, path.parent)


def test_features_that_are_ours_come_back(read: Any, tmp_path: Path) -> None:
    task = Task.from_columns("t", text_columns="note", label_column="y", labels=["a", "b"], kind="multi_label")
    features = task.corrected_features()
    row = task.gold_row("g1", None, None, "text") | {"y": [1, 0], "llm_label": [1], "weight": 0.5}
    rows = Dataset.from_list([dict.fromkeys(features) | row], features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    back = read(tmp_path / "rows.parquet")
    assert back.features == features
    assert back.to_list() == rows.to_list()


@pytest.mark.parametrize("kind", ["Image", "Audio", "Video", "Pdf", "Nifti", "NothingOfTheKind"])
def test_images_and_sounds_of_a_foreign_file_are_never_fetched(
    kind: str, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr(socket.socket, "connect", asked)
    here = tmp_path / "private.txt"
    here.write_text("text of another project")
    paths = ["http://93.184.216.34:9/x.png", str(here)]
    column = pa.array(
        [{"bytes": None, "path": p} for p in paths], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    told = {"picture": {"_type": kind}, "note": {"_type": "Value", "dtype": "string"}}
    rows = read(_foreign(tmp_path / "pool" / "train.parquet", told, note=["a", "b"], picture=column))
    assert rows["picture"][:] == [{"bytes": None, "path": p} for p in paths]
    rows.to_parquet(tmp_path / "again.parquet")
    assert b"another project" not in (tmp_path / "again.parquet").read_bytes()
    assert map_parquet(tmp_path / "again.parquet", tmp_path)["picture"][:] == rows["picture"][:]


def test_a_folder_of_save_to_disk_is_read_as_plain_values(tmp_path: Path) -> None:
    features = Features({"note": Value("string"), "y": ClassLabel(names=["a", "b"]), "picture": Image()})
    column = pa.array([{"bytes": b"x", "path": "http://93.184.216.34:9/x.png"}] * 2)
    table = pa.table({"note": ["first", "second"], "y": [0, 1], "picture": column})
    Dataset(table.cast(features.arrow_schema)).select([1, 0]).save_to_disk(tmp_path / "disk")
    rows = read_dataset(tmp_path / "disk")
    assert rows["note"][:] == ["second", "first"]
    assert rows["picture"][:] == [{"bytes": b"x", "path": "http://93.184.216.34:9/x.png"}] * 2
    assert rows.features["y"] == features["y"]


@pytest.mark.parametrize(
    "told",
    [
        {"y": {"_type": "ClassLabel", "names_file": "NAMES"}},
        {"y": {"_type": "ClassLabel", "names": ["a", "a"]}},
        {"y": {"_type": "ClassLabel", "names": ["a", 2]}},
        {"y": {"_type": "ClassLabel", "names": ["x"] * 200_000}},
        {"note": {"_type": "ClassLabel", "names": ["a", "b"]}},
        {"y": {"_type": "List"}},
        {"y": {"_type": "Value", "dtype": "nothing"}},
        {"y": 3},
        ["y"],
        "y",
        None,
    ],
)
def test_features_that_are_wrong_are_plain_values(told: Any, read: Any, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("line of another file\n")
    told = json.loads(json.dumps(told).replace("NAMES", str(names)))
    rows = read(_foreign(tmp_path / "pool" / "train.parquet", told, note=["text"], y=[0]))
    assert rows.features == Features({"note": Value("string"), "y": Value("int64")})
    assert rows.to_list() == [{"note": "text", "y": 0}]


@pytest.mark.parametrize("how", ["dictionary", "list", "struct", "distinct"])
def test_a_text_that_is_repeated_beyond_all_memory_is_refused(how: str, tmp_path: Path) -> None:
    """Megabytes in a file of kilobytes: refused with little memory."""
    column = pa.array(["x" * (1_000_000 + i * (how == "distinct")) for i in range(120)])
    if how == "dictionary":
        column = column.dictionary_encode()
    elif how == "list":
        column = pa.ListArray.from_arrays(pa.array(range(121), pa.int32()), column)
    elif how == "struct":
        column = pa.StructArray.from_arrays([column], names=["text"])
    pq.write_table(pa.table({"note": column}), tmp_path / "train.parquet", compression="zstd")
    assert (tmp_path / "train.parquet").stat().st_size < 500_000
    del column
    before = pa.default_memory_pool().bytes_allocated()
    with pytest.raises(RowError, match="by texts that it repeats"):
        map_parquet(tmp_path / "train.parquet", tmp_path)
    assert pa.default_memory_pool().bytes_allocated() - before < 1 << 20
    with pytest.raises(RowError, match="by texts that it repeats"):
        list(read_table(tmp_path / "train.parquet"))


def test_texts_that_repeat_as_texts_do_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"note": ["a note of some words " * 40] * 10_000}), tmp_path / "train.parquet")
    assert len(map_parquet(tmp_path / "train.parquet", tmp_path)) == 10_000
    assert sum(1 for _ in read_table(tmp_path / "train.parquet")) == 10_000


def test_a_header_of_many_columns_is_read_in_linear_time(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(300_000)]
    file = tmp_path / "wide.csv"
    file.write_text(",".join(names) + "\n" + "x" + "," * (len(names) - 1) + "\n")
    begun = time.process_time()
    ((_, row),) = read_table(file)
    assert len(row) == len(names)
    file.write_text(",".join([*names, "c1", "c2"]) + "\n")
    with pytest.raises(RowError, match="names 2 columns more than once"):
        list(read_table(file))
    assert time.process_time() - begun < 20


def test_a_folder_with_an_equals_sign_is_no_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_synth.task.folders.cache_folder", lambda beside: None)
    file = _foreign(tmp_path / "site=a" / "train.parquet", {}, note=["text"])
    assert map_parquet(file, file.parent).column_names == ["note"]


def test_a_column_of_categories_is_a_column_of_texts(read: Any, tmp_path: Path) -> None:
    file = _foreign(tmp_path / "pool" / "train.parquet", {}, note=pa.array(["a", "b", "a"]).dictionary_encode())
    assert read(file)["note"][:] == ["a", "b", "a"]


def test_memory_of_reading_parquet_does_not_grow_with_its_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the check of repeated texts nor datasets' reader keeps what it has read of earlier groups."""
    table = pa.table({"text": [f"{i} {'x' * 10_000}" for i in range(1_600)]})  # 16 groups of 1 MB
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=100)
    del table
    begun, allocated, scans = pa.total_allocated_bytes(), list[int](), list[Any]()
    size, read = folders.unpacked_size, Dataset.from_parquet

    def unpacked_size(column: Any) -> int:
        allocated.append(pa.total_allocated_bytes() - begun)
        return size(column)

    def from_parquet(*given: Any, **more: Any) -> Any:
        scans.append(more["fragment_scan_options"].pre_buffer)
        return read(*given, **more)

    monkeypatch.setattr(folders, "unpacked_size", unpacked_size)
    monkeypatch.setattr(Dataset, "from_parquet", from_parquet)
    assert len(map_parquet(tmp_path / "rows.parquet", tmp_path / "rows.parquet")) == 1_600
    assert max(allocated) < 6 << 20
    assert scans == [False]


def test_folders_above_a_private_one_are_private_too_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (tmp_path / "shared").mkdir(mode=0o755)
        private_folder(tmp_path / "shared" / "out" / ".hf_synth" / "blocks")
    finally:
        os.umask(before)
    made = [tmp_path / "shared" / name for name in ("out", "out/.hf_synth", "out/.hf_synth/blocks")]
    assert [folder.stat().st_mode & 0o777 for folder in made] == [0o700] * 3
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755
