"""Edges where a reader could silently give wrong rows: each was one once."""

from __future__ import annotations

import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from support.gold_files import WRITERS, write_csv, write_jsonl

from hf_synth.errors import GoldError, HfSynthError, OutputError, RowError
from hf_synth.gold.adoption import adopt
from hf_synth.gold.gold import as_streaming_dataset, load_gold, mask
from hf_synth.gold.own_table import task_from_table
from hf_synth.gold.sources import list_source
from hf_synth.gold.tables import read_parquet
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

ESO = load_task("esophagitis")


def table(path: Path, texts: list[str], grade: str = "1") -> Path:
    return write_csv(path, ["text", "grade"], [[text, grade] for text in texts])


# --- the cache ------------------------------------------------------------------------------------------------------
def test_another_access_or_group_is_another_cache(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "n.csv", ["text", "label", "patient"], [[f"Note {i}.", str(i % 2), f"p{i % 30}"] for i in range(90)]
    )
    columns: Any = {"text_columns": ("text",), "label_column": "label"}
    first = load_gold(task_from_table(file, **columns, access="open"), file)
    again = load_gold(task_from_table(file, **columns, access="credentialed", group_column="patient"), file)
    assert set(first["train"]["access"]) == {"open"}
    assert set(again["train"]["access"]) == {"credentialed"}
    assert not set(again["train"]["group"]) & set(again["test"]["group"])


def test_notes_are_cached_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_synth.task.scripts import task_script

    folder = WRITERS["mednli"](tmp_path / "m")
    (folder / ".hf_synth").write_text("a file where the folder should be")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    module = task_script("mednli")
    builder = next(v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__)
    with pytest.raises(OutputError, match="cached nowhere else"):
        builder(data_dir=str(folder)).download_and_prepare()
    assert len(load_gold(load_task("mednli"), folder)["train"]) == 120


# --- a source that repeats itself -----------------------------------------------------------------------------------
def test_sdoh_nli_has_no_premise_on_two_sides_and_no_pair_with_two_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {kind: load_task(f"sdoh_nli:{kind}") for kind in ("pair", "text2text")}
    folder = WRITERS["sdoh_nli"](tmp_path / "sdoh")
    gold = load_gold(tasks["pair"], folder)
    said = [record.getMessage() for record in caplog.records]
    # each premise stands in 3 rows of the file: one pair is given twice, and contradicts itself for 2 premises in 5
    assert {split: len(rows) for split, rows in gold.items()} == {
        "train": 3 * 40 - 2 * 8,
        "validation": 3 * 16 - 2 * 3 - 1,
        "test": 3 * 20 - 2 * 4,
    }
    assert any("rows left out, since they have a premise that also stands in a later split: 2" in s for s in said)
    assert any("test: rows left out, since they contradict another row with the same pair" in s for s in said)
    for rows in gold.values():
        labels: dict[Any, set[int]] = {}
        for row in rows:
            labels.setdefault((row["premise"], row["hypothesis"]), set()).add(row["label"])
        assert {len(found) for found in labels.values()} == {1}
        assert len(set(rows["group"])) == len(set(rows["premise"]))
        by_number = {row["id"]: rows.features["label"].int2str(row["label"]) for row in rows}
        assert set(by_number.values()) == {"True", "False"}
    texts = load_gold(tasks["text2text"], folder)["test"]
    assert texts["id"] == gold["test"]["id"]
    assert texts["target"] == [gold["test"].features["label"].int2str(y) for y in gold["test"]["label"]]
    row = gold["test"][0]
    assert texts["input"][0] == f"premise: {row['premise']}\nhypothesis: {row['hypothesis']}\nentailed?"


def test_average_precision_of_sdoh_nli_is_that_of_true() -> None:
    from sklearn.metrics import average_precision_score

    from hf_synth.evaluation.evaluation import score

    task, truth = load_task("sdoh_nli"), [0] * 17 + [1] * 3
    entailed = np.random.default_rng(0).random(20)
    scores = score(task, np.column_stack([1 - entailed, entailed]), truth, n_bootstrap=20)
    assert task.metrics[:2] == ("macro_f1", "auprc")
    assert task.labels[1] == "True"
    assert scores.values["auprc"] == pytest.approx(average_precision_score(truth, entailed))


@pytest.mark.parametrize("made", [[True, False, True], ["True", "False", "True"], [1, 0, 1]])
def test_labels_that_a_reader_made_into_booleans_are_understood(made: list[Any]) -> None:
    columns = {"premise": ["Drinks tea."] * 3, "hypothesis": ["The person drinks."] * 3, "llm_label": made}
    assert adopt(load_task("sdoh_nli"), Dataset.from_dict(columns))["label"] == [1, 0, 1]
    with pytest.raises(RowError, match="holds no label of task"):
        adopt(load_task("mednli"), Dataset.from_dict(columns | {"llm_label": [True] * 3}))


# --- which file -----------------------------------------------------------------------------------------------------
def test_the_nearest_alternative_counts(tmp_path: Path) -> None:
    (tmp_path / "old" / "archive").mkdir(parents=True)
    table(tmp_path / "old" / "archive" / "train.csv", [f"Old {i}." for i in range(9)])
    (tmp_path / "train.tsv").write_text("text\tgrade\n" + "".join(f"New {i}.\t1\n" for i in range(9)))
    rows = load_gold(ESO, tmp_path)
    assert all(text.startswith("New") for split in rows.values() for text in split["text"])
    table(tmp_path / "train.csv", ["Another one."])
    with pytest.raises(GoldError, match=r"several files for train \(train.csv and train.tsv\)"):
        load_gold(ESO, tmp_path)


def test_an_optional_split_of_another_copy_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for folder, word in ((tmp_path, "New"), (tmp_path / "old", "Old")):
        table(folder / "train.csv", [f"{word} note {i} of one." for i in range(20)])
    table(tmp_path / "test.csv", ["Test note."])
    table(tmp_path / "old" / "validation.csv", ["New note 3 of one."])
    rows = load_gold(ESO, tmp_path)
    assert set(rows) == {"train", "test"}


def test_addenda_in_a_folder_below_count(tmp_path: Path) -> None:
    folder = WRITERS["obesity"](tmp_path / "o")
    before = load_gold(load_task("obesity"), folder)["train"]
    addenda = [f for f in folder.iterdir() if "addendum" in f.name]
    assert addenda
    (folder / "addenda").mkdir()
    for file in addenda:
        file.rename(folder / "addenda" / file.name)
    assert load_gold(load_task("obesity"), folder)["train"]["label"] == before["label"]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(HfSynthError):
        load_gold(ESO, tmp_path)


# --- what the answer is ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    ["Grade 2-3 esophagitis", "grade 1/2 x", "grade: 2", "Grade = 2", "grade two today", "gr. 3", "grade 2 to grade 3",
     "Toxicity Grading:\n\nEsophagitis: 2\nSkin: 1", "Toxicity Grading:\r\nEsophagitis: 2"],
)  # fmt: skip
def test_a_grade_is_masked_whole(text: str) -> None:
    left = mask(text, ESO.leaks)
    assert not any(c.isdigit() for c in left)
    assert "two" not in left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Intro\nToxicity Grading: none\nPLAN: go on.\nHPI: well.", "Intro\n \nPLAN: go on.\nHPI: well."),
        ("Toxicity Grading:\r\nskin: 1\r\n\r\nPLAN: go on.", " \r\n\r\nPLAN: go on."),
        ("The tumor was high grade. Fever of 39.", "The tumor was high grade. Fever of 39."),
    ],
)
def test_no_more_than_the_grade_is_masked(text: str, left: str) -> None:
    assert mask(text, ESO.leaks) == left


@pytest.mark.parametrize(
    "text",
    ["Morse Fall Scale: 65", "Morse score 65.", "Fall risk score: 65", "Risk of falls: high", "fall risk is low"],
)
def test_a_class_of_risk_is_masked(text: str) -> None:
    left = mask(text, load_task("fall_risk:morse").leaks)
    assert not any(word in left for word in ("65", "high", "low"))


def test_an_unlabelled_row_of_another_tool_is_refused() -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    task = Task.from_columns("own", text_columns="text", label_column="label", labels=("x", "y"), access="open")
    features = Features({"text": Value("string"), "llm_label": ClassLabel(names=["x", "y"])})
    made = Dataset.from_dict({"text": ["A note.", "Another."], "llm_label": [0, -1]}, features=features)
    with pytest.raises(RowError, match="no label of task"):
        adopt(task, made)


# --- single tasks ---------------------------------------------------------------------------------------------------
def test_ids_of_notes_and_rows_do_not_meet(tmp_path: Path) -> None:
    rows = [["3", "One.", "1"], ["", "Two.", "1"], ["", "Three.", "2"]]
    write_csv(tmp_path / "train.csv", ["note_id", "text", "grade"], rows)
    write_csv(tmp_path / "test.csv", ["note_id", "text", "grade"], rows)
    assert len(set(load_gold(ESO, tmp_path)["train"]["id"])) == 3


def test_patient_0_is_a_patient(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"text": f"Note {i}.", "grade": 1, "patient_id": 0} for i in range(20)])
    write_jsonl(tmp_path / "test.jsonl", [{"text": "Other.", "grade": 1, "patient_id": 1}])
    assert set(load_gold(ESO, tmp_path)["train"]["group"]) == {"0"}


def test_a_note_is_read_past_its_elements(tmp_path: Path) -> None:
    folder = WRITERS["obesity"](tmp_path / "o")
    file = folder / "obesity_patient_records_training.xml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("<text>", "<text>Before <PHI>Somebody</PHI> after. ", 1), encoding="utf-8")
    assert "Before Somebody after." in "".join(load_gold(load_task("obesity"), folder)["train"]["premise"])


def test_annotations_without_a_note_are_named(tmp_path: Path) -> None:
    folder = WRITERS["medication"](tmp_path / "m")
    note = sorted((folder / "data" / "train").glob("*.txt"))[0]
    note.unlink()
    with pytest.raises(RowError, match=rf"has no note beside it \({note.stem}.txt\)"):
        load_gold(load_task("medication:event"), folder)


def test_a_mention_is_one_row(tmp_path: Path) -> None:
    folder = WRITERS["medication"](tmp_path / "m")
    file = next(f for f in sorted((folder / "data" / "train").glob("*.ann")) if "\tDisposition " in f.read_text())
    before = load_gold(load_task("medication:event"), folder)["train"]
    lines = file.read_text(encoding="utf-8").splitlines()
    span = next(line for line in lines if line.startswith("T") and line.split("\t")[1].split()[0] == "Disposition")
    kind, *place = span.split("\t")[1].split()
    lines += [f"T901\t{kind} {' '.join(place)}\t{span.split(chr(9))[2]}", f"E901\t{kind}:T901"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(load_gold(load_task("medication:event"), folder)["train"]) == len(before)


def test_an_option_that_is_a_list_is_one_sentence(tmp_path: Path) -> None:
    folder = WRITERS["medqa"](tmp_path / "q")
    file = next(folder.rglob("phrases_no_exclude_train.jsonl"), None) or next(folder.rglob("train.jsonl"))
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines[0]["answer_idx"] = ["A"]
    write_jsonl(file, lines)
    for config in ("five", "four"):
        try:
            load_gold(load_task(f"medqa:{config}"), folder)
        except RowError as error:
            assert "answer that is none of its options" in str(error)
            return
    raise AssertionError("neither config reads that file")


def test_half_a_character_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "half \\ud800 of it", "grade": 1}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "whole", "grade": 1}\n')
    with pytest.raises(GoldError, match=r"train.jsonl, row 1: holds half of a character"):
        list(as_streaming_dataset(ESO, tmp_path)["train"])
    with pytest.raises(HfSynthError, match="half of a character"):
        load_gold(ESO, tmp_path)


# --- hostile files --------------------------------------------------------------------------------------------------
def test_archives_that_lie_are_one_sentence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("train.csv", "text,grade\n" + "A note of some length.,1\n" * 500)
    data = bytearray((tmp_path / "lzma.zip").read_bytes())
    data[60:90] = bytes(30)
    (tmp_path / "lzma.zip").write_bytes(data)
    for pax in ({"GNU.sparse.map": "a,b"}, {"size": "-5"}, {"GNU.sparse.major": "1"}):
        info = tarfile.TarInfo("train.csv")
        info.pax_headers = pax
        with tarfile.open(tmp_path / f"{len(list(tmp_path.iterdir()))}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(info)
    for archive in tmp_path.iterdir():
        try:
            for file in list_source(archive):
                with file.open() as stream:
                    stream.read()
        except HfSynthError:
            continue
    assert lzma  # the error it raises is one of those that are understood


def test_a_header_of_a_tar_is_bounded(tmp_path: Path) -> None:
    import gzip

    info = tarfile.TarInfo("train.csv")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info.pax_headers = {"comment": "x" * (3 << 20)}
        tar.addfile(info)
    with gzip.open(tmp_path / "a.tar.gz", "wb") as packed:
        packed.write(plain.getvalue())
    with pytest.raises(RowError, match="cut off or broken"):
        list_source(tmp_path / "a.tar.gz")


def test_a_text_that_stands_in_every_row_is_read_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    monkeypatch.setattr("hf_synth.gold.tables._BATCH_BYTES", 4 << 20)
    text = "word " * 50_000  # 250 kB
    rows = pa.table({"text": pa.array([text] * 400).dictionary_encode(), "grade": pa.array([1] * 400)})
    pq.write_table(rows, tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").stat().st_size < 1_000_000
    tracemalloc.start()
    assert sum(1 for _ in read_parquet(tmp_path / "train.parquet")) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25 << 20  # all of it is 100 MB
