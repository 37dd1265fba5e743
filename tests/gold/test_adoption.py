"""Rows are as strict as what their files record, whatever was done to their columns; no statement loosens it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Value, load_from_disk
from support.publishing_rows import CREDENTIALED, OPEN, RESTRICTED, gold_rows, synthetic_rows

from hf_synth.cli.cli import main
from hf_synth.errors import RowError
from hf_synth.gold.adoption import adopt, read_dataset
from hf_synth.gold.gold import load_gold
from hf_synth.gold.own_table import task_from_table
from hf_synth.task.columns import MANIFEST, access_of
from hf_synth.task.folders import recorded_access, write_stage
from hf_synth.task.task import Task


def called_open(rows: Dataset) -> Dataset:
    return rows.remove_columns("access").add_column("access", ["open"] * len(rows))


def written(folder: Path, how: str) -> Path:
    """Write credentialed rows, and change what they say of themselves."""
    write_stage(CREDENTIALED, synthetic_rows(CREDENTIALED, 9), folder, stage="correct")
    file = folder / "train.parquet"
    rows, metadata = pq.read_table(file), pq.read_schema(file).metadata
    index = rows.column_names.index("access")
    if how == "column rewritten":
        rows = rows.set_column(index, "access", [["open"] * len(rows)])
    elif how == "column dropped":
        rows = rows.drop_columns(["access"])
    pq.write_table(rows.replace_schema_metadata(metadata), file)
    return folder


@pytest.mark.parametrize("how", ["column rewritten", "column dropped"])
def test_what_the_files_record_stays_with_the_rows(how: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "rows", how)
    manifest = (folder / MANIFEST).read_text()
    alone = tmp_path / "alone" / "deep" / "rows.parquet"
    alone.parent.mkdir(parents=True)
    alone.write_bytes((folder / "train.parquet").read_bytes())
    for place in (folder, folder / "train.parquet", alone):
        assert recorded_access(place) == "credentialed"
        assert access_of(read_dataset(place)) == "credentialed"
        assert access_of(adopt(OPEN, read_dataset(place), access="open")) == "credentialed"
    # a table that lies in the folder, without metadata of its own, and one in a folder of a config
    (folder / "raw").mkdir()
    for file in (folder / "rows.jsonl", folder / "raw" / "rows.jsonl"):
        file.write_text(json.dumps({"text": "a note", "label": "no", "llm_label": "no", "access": "open"}) + "\n")
        assert access_of(read_dataset(file)) == "credentialed"
    (folder / MANIFEST).unlink()  # the metadata of the parquet says it alone
    assert access_of(read_dataset(folder)) == "credentialed"
    (folder / MANIFEST).write_text(json.dumps({**json.loads(manifest), "access": None}))
    assert recorded_access(folder) == "credentialed"  # an unknown one is the strictest


def test_a_dataset_saved_to_disk_has_its_folders_access(tmp_path: Path) -> None:
    called_open(synthetic_rows(CREDENTIALED)).save_to_disk(tmp_path / "saved")
    assert access_of(load_from_disk(str(tmp_path / "saved"))) == "open"
    (tmp_path / "saved" / MANIFEST).write_text(json.dumps({"stage": "x", "access": "restricted"}))
    assert access_of(read_dataset(tmp_path / "saved")) == "restricted"


def test_where_nothing_is_recorded_the_rows_speak(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,llm_label\na note,no\n")
    assert recorded_access(tmp_path / "rows.csv") is None
    rows = read_dataset(tmp_path / "rows.csv")
    assert access_of(adopt(OPEN, rows)) == "credentialed"
    assert access_of(adopt(OPEN, rows, access="open")) == "open"
    write_stage(OPEN, synthetic_rows(OPEN), tmp_path / "open", stage="correct")
    assert access_of(read_dataset(tmp_path / "open")) == "open"


def test_the_task_that_rows_name_counts() -> None:
    rows = called_open(synthetic_rows(OPEN))
    named = rows.remove_columns("task").add_column("task", ["mednli:pair"] * len(rows))
    kept = named.filter(lambda row: row["label_status"] != "rejected", keep_in_memory=True)
    assert access_of(adopt(OPEN, kept)) == "credentialed"
    other = kept.remove_columns("task").add_column("task", ["classification"] * len(kept))
    assert access_of(adopt(OPEN, other)) == "open"  # the word of a table made elsewhere


def test_gold_of_a_table_is_as_strict_as_its_files(tmp_path: Path) -> None:
    write_stage(CREDENTIALED, gold_rows(CREDENTIALED), tmp_path / "gold", stage="gold")
    file = tmp_path / "gold" / "train.parquet"
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["access", "task"]), tmp_path / "own.parquet")
    columns: dict[str, Any] = {"text_columns": ["text"], "label_column": "label", "access": "open"}
    gold = load_gold(task_from_table(tmp_path / "own.parquet", **columns), tmp_path / "own.parquet")
    assert access_of(gold["train"]) == "credentialed"
    plain = table.drop_columns(["access"]).replace_schema_metadata(None)
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as packed:
        pq.write_table(plain.set_column(plain.column_names.index("task"), "task", [["mednli:pair"] * len(plain)]),
                       tmp_path / "train.parquet")  # fmt: skip
        packed.write(tmp_path / "train.parquet", "train.parquet")
    with zipfile.ZipFile(tmp_path / "recorded.zip", "w") as packed:
        packed.write(tmp_path / "own.parquet", "train.parquet")
    for path in (tmp_path / "own.zip", tmp_path / "train.parquet", tmp_path / "recorded.zip"):
        gold = load_gold(task_from_table(path, **columns), path)
        assert access_of(gold["train"]) == "credentialed"


@pytest.mark.parametrize("task", [CREDENTIALED, RESTRICTED])
def test_an_access_that_would_loosen_is_refused(
    task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_stage(task, gold_rows(task), tmp_path / "gold", stage="gold")
    write_stage(task, synthetic_rows(task), tmp_path / "rows", stage="generate")
    rows = pq.read_table(tmp_path / "rows" / "train.parquet").drop_columns(["access", "label_status"])
    pq.write_table(rows, tmp_path / "bare.parquet")
    table = ["--text-column", "text", "--label-column", "label"]
    for words in (
        ["gold", "gold/train.parquet", *table], ["gold", "own", "gold/train.parquet", *table],
        ["correct", "gold", "rows", "--method", "none"], ["correct", "gold", "bare.parquet", "--method", "none"],
        ["sample", "gold", "rows"], ["label", "gold", "gold", "--llm", "simulator"],
    ):  # fmt: skip
        assert main([*words, "--access", "open", "--out", "out/x"]) == 1, words
        said = capsys.readouterr().err
        assert "--access open cannot loosen that" in said, said
        assert not (tmp_path / "out").exists()
    assert main(["gold", "gold/train.parquet", *table, "--out", "own"]) == 0
    assert access_of(read_dataset(tmp_path / "own")) == task.access
    assert json.loads((tmp_path / "own" / MANIFEST).read_text())["definition"]["access"] == task.access


# --- rejected rows ----------------------------------------------------------------------------------------------------
def some_rejected(n: int, every: int) -> Dataset:
    """Make n rows, of which every so many-th was rejected."""
    rows = synthetic_rows(OPEN, n)
    fields = {"label_status": "rejected", "reason": "llm_error", "text": None, "label": None, "llm_label": None}
    plain = [{**row, **(fields if i % every == 0 else {})} for i, row in enumerate(rows)]
    return Dataset.from_list(plain, features=rows.features)


@pytest.mark.parametrize("stage", ["generate", "correct"])
def test_rejected_rows_are_a_split_of_their_own(stage: str, tmp_path: Path) -> None:
    """Code that trains on `load_dataset(folder)["train"]` must not train on refusals."""
    from datasets import load_dataset

    rows = some_rejected(9, 3)
    folder = write_stage(OPEN, rows, tmp_path / "rows", stage=stage)
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in loaded.items()} == {"train": 6, "rejected": 3}
    good = [s for i, s in enumerate(rows["label_status"]) if i % 3]
    assert list(loaded["train"]["label_status"]) == good
    assert set(loaded["rejected"]["label_status"]) == {"rejected"}
    assert json.loads((folder / MANIFEST).read_text())["rows"] == {"train": 6, "rejected": 3}
    together = read_dataset(folder)  # every verb reads both
    assert sorted(together["id"]) == sorted(rows["id"])
    assert list(together["label_status"]) == good + ["rejected"] * 3
    assert together.features == rows.features
    assert len(read_dataset(folder, split="train")) == 6
    again = write_stage(OPEN, together, tmp_path / "again", stage=stage)
    assert read_dataset(again).to_list() == together.to_list()


def test_folders_without_rejected_rows_or_with_rejected_rows_alone_are_read(tmp_path: Path) -> None:
    from datasets import load_dataset

    none = write_stage(OPEN, synthetic_rows(OPEN, 4), tmp_path / "none", stage="generate")
    assert [p.name for p in none.glob("*.parquet")] == ["train.parquet"]
    every = write_stage(OPEN, some_rejected(4, 1), tmp_path / "all", stage="generate")
    assert len(read_dataset(every)) == 4
    loaded = load_dataset(str(every), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in loaded.items()} == {"rejected": 4}
    empty = write_stage(OPEN, some_rejected(4, 1).select([]), tmp_path / "empty", stage="generate")
    assert len(read_dataset(empty)) == 0


def test_folders_of_earlier_versions_hold_rejected_rows_in_train(tmp_path: Path) -> None:
    rows = some_rejected(9, 3)
    folder = write_stage(OPEN, DatasetDict(train=rows), tmp_path / "old", stage="generate")
    assert read_dataset(folder).to_list() == rows.to_list()
    foreign = write_stage(OPEN, DatasetDict(train=rows, rejected=rows), tmp_path / "foreign", stage="generate")
    (foreign / MANIFEST).unlink()  # a split of that name in a folder that no stage wrote is a split
    assert len(read_dataset(foreign)) == 9


def test_a_saved_dataset_is_read_as_plain_values_or_not_at_all(tmp_path: Path) -> None:
    """Its features may be changed by hand: an image would be fetched from the address in its row."""
    features = Features({"note": Value("string"), "img": {"bytes": Value("binary"), "path": Value("string")}})
    seen = {"bytes": None, "path": "http://127.0.0.1:9/x.png"}
    rows = Dataset.from_dict({"note": ["x"], "img": [seen]}, features=features)
    rows.save_to_disk(str(tmp_path / "d"))
    info = tmp_path / "d" / "dataset_info.json"
    facts = json.loads(info.read_text())
    facts["features"]["img"] = {"_type": "Image"}
    info.write_text(json.dumps(facts))
    assert read_dataset(tmp_path / "d")[0]["img"] == seen
    facts["features"] = {"note": {"_type": "Image"}}
    info.write_text(json.dumps(facts))
    with pytest.raises(RowError, match="d: is no dataset that `save_to_disk` wrote"):
        read_dataset(tmp_path / "d")


def test_a_link_is_as_strict_as_what_it_leads_to(tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "strict"
    folder.mkdir(parents=True)
    gold_rows(OPEN, 4).to_parquet(str(folder / "train.parquet"))
    (folder / MANIFEST).write_text('{"access": "credentialed"}')
    (tmp_path / "link.parquet").symlink_to(folder / "train.parquet")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for place in (tmp_path / "link.parquet", tmp_path / "link"):
        assert recorded_access(place) == "credentialed"
        assert access_of(read_dataset(place)) == "credentialed"


def test_seed_ids_of_a_table_are_ids_and_no_letters(tmp_path: Path) -> None:
    """A text was read as a list of its letters: held-out gold was not held out with what was written from it."""
    path = tmp_path / "pool.csv"
    path.write_text(
        "note,llm_label,seed_ids\nA first note.,low,rows-1\nA second note.,high,rows-1; rows-2\nA third.,low,\n"
    )
    task = Task.from_columns("t", text_columns=["note"], label_column="label", labels=["high", "low"])
    assert adopt(task, read_dataset(path))["seed_ids"][:] == [["rows-1"], ["rows-1", "rows-2"], None]
    columns: dict[str, Any] = {"note": ["a b c", "d e f"], "llm_label": ["low", "high"]}
    assert adopt(task, Dataset.from_dict(columns | {"seed_ids": [7, None]}))["seed_ids"][:] == [["7"], None]
    lists = Dataset.from_dict(columns | {"seed_ids": [["a,b", "c"], []]})
    assert adopt(task, lists)["seed_ids"][:] == [["a,b", "c"], []]
