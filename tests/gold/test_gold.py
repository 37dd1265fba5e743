from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, load_dataset
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.gold_files import CANARY, mts_folder, write_csv

from hf_synth.errors import ColumnError, GoldError, HfSynthError, MissingGoldError, OutputError, RowError
from hf_synth.gold import builder
from hf_synth.gold.adoption import adopt, read_dataset
from hf_synth.gold.gold import load_gold, mask, split_by_group, subset
from hf_synth.gold.tables import read_csv, read_table
from hf_synth.task.columns import access_of
from hf_synth.task.folders import new_folder, write_stage
from hf_synth.task.scripts import load_task, task_script
from hf_synth.task.task import Task

MTS = load_task("mts_dialog")
ESO = load_task("esophagitis")
TINY = Task.from_columns("tiny", text_columns="x", label_column="y", labels=["a", "b"])


def eso_rows(patients: int = 20) -> list[list[str]]:
    return [[f"p{i // 2}", f"Made-up note {i} of a follow-up.", str(i % 4)] for i in range(2 * patients)]


def test_mts_dialog_reads_its_true_layout(tmp_path: Path) -> None:
    gold = load_gold(MTS, mts_folder(tmp_path / "mts"))
    assert set(gold) == {"train", "validation", "test"}  # the second test set is optional
    assert isinstance(gold["train"].features["label"], ClassLabel)
    assert gold["train"]["text"][1:3] == ["NA", "null"]
    assert "\n" in gold["train"][0]["text"]
    assert gold["train"]["id"] == ["train-0", "train-1", "train-2", "train-3"]
    assert access_of(gold["train"]) == "open"
    files = [f["filename"] for rows in gold.values() for f in rows.cache_files]
    assert files
    assert all(Path(f).is_relative_to(tmp_path / "mts" / ".hf_synth") for f in files)
    assert (tmp_path / "mts" / ".hf_synth").stat().st_mode & 0o777 == 0o700


def test_modules_that_read_local_files_are_left_as_they_are(tmp_path: Path) -> None:
    """datasets replaces `Path` in the module of a builder by its own one, and imports scipy (0.15 s) to do so."""
    load_gold(load_task("mts_dialog"), mts_folder(tmp_path / "mts"))
    assert builder.Path is Path
    assert vars(task_script("mts_dialog"))["_patched_for_streaming"] is True


def test_a_changed_source_file_is_seen(tmp_path: Path) -> None:
    folder = mts_folder(tmp_path / "mts")
    assert len(load_gold(MTS, folder)["test"]) == 1
    with (folder / "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv").open("a") as file:
        file.write('1,LABS,"More made-up labs.",x\r\n')
    assert len(load_gold(MTS, folder)["test"]) == 2


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    folder = mts_folder(tmp_path / "mts")
    (folder / "MTS-Dialog-TrainingSet.csv").unlink()
    (folder / "MTS-Dialog-ValidationSet.csv").unlink()
    with pytest.raises(MissingGoldError, match=r"TrainingSet\.csv.*ValidationSet\.csv.*github"):
        load_gold(MTS, folder)
    with pytest.raises(MissingGoldError, match="is no folder or file"):
        load_gold(MTS, tmp_path / "nowhere")
    with pytest.raises(MissingGoldError, match="needs the folder"):
        load_gold(MTS)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("9,HISTORY," + CANARY + ",x", "row 5.*no known label"),
        ("9,ROS," + CANARY, "row 5.*3 fields where the header has 4"),
        ("9,ROS," + CANARY + ",x,y", "row 5.*5 fields"),
        ("9,ROS,,x", "row 5.*'section_text' is empty"),
        ('9,ROS,"' + CANARY, "row 5.*quoting is broken"),
    ],
)
def test_a_wrong_row_is_named_without_its_text(tmp_path: Path, line: str, says: str) -> None:
    folder = mts_folder(tmp_path / "mts")
    with (folder / "MTS-Dialog-TrainingSet.csv").open("a", newline="") as file:
        file.write(line + "\r\n")
    with pytest.raises(RowError, match=says) as caught:
        load_gold(MTS, folder)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_wrong_column_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["note", "grade"], [["Made up.", "1"]])
    with pytest.raises(RowError, match=r"no column 'text' or 'gpt_section' or 'Full Text'; it has 'note', 'grade'"):
        load_gold(ESO, tmp_path)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["text", "grade"], [["Made up.", "1"]])
    write_csv(tmp_path / "test.csv", ["text", "grade"], [])
    with pytest.raises(GoldError, match="'test' .* no row"):
        load_gold(ESO, tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_esophagitis_reads_the_users_own_files(tmp_path: Path, suffix: str) -> None:
    rows = [{"patient_id": p, "Full Text": t, "degree": int(g)} for p, t, g in eso_rows()]
    file = tmp_path / f"notes{suffix}"
    if suffix == ".csv":
        write_csv(file, list(rows[0]), [[str(v) for v in r.values()] for r in rows])
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    else:
        Dataset.from_list(rows).to_parquet(file)
    gold = load_gold(ESO, file)
    assert sum(map(len, gold.values())) == len(rows)
    groups = [set(part["group"]) for part in gold.values()]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert access_of(gold["train"]) == "restricted"
    severe = load_gold(load_task("esophagitis:severe"), file)["train"]
    assert severe.features["label"].names == ["grade_0_1", "grade_2_3"]
    again = load_gold(ESO, file)
    assert {s: part["id"] for s, part in again.items()} == {s: part["id"] for s, part in gold.items()}


def test_equal_texts_never_straddle_a_split() -> None:
    rows = [ESO.gold_row(f"n{i}", f"p{i}", i % 4, f"Made-up note {i % 15}.") for i in range(60)]
    splits = split_by_group(ESO, Dataset.from_list(rows, features=ESO.gold_features()), seed=3)
    texts = [set(part["text"]) for part in splits.values()]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_leaks_can_be_masked(tmp_path: Path) -> None:
    text = "Made up. Grade 2 esophagitis.\n\nToxicity Grading:\nEsophagitis 2\nFatigue 1\n\nPlan: gr. II care."
    masked = mask(text, ESO.leaks)
    assert "2" not in masked
    assert "II" not in masked
    assert masked.startswith("Made up.")
    assert "Plan:" in masked
    write_csv(tmp_path / "train.csv", ["text", "grade"], [[text, "2"]])
    assert load_gold(ESO, tmp_path, mask_leaks=True)["train"]["text"] == [masked]


def test_subsets_are_nested_and_in_proportion() -> None:
    rows = [ESO.gold_row(f"n{i}", None, 0 if i % 10 else 1 + i // 10 % 3, f"Made-up {i}.") for i in range(300)]
    gold = Dataset.from_list(rows, features=ESO.gold_features())
    sizes = [subset(ESO, gold, n, seed=1) for n in (30, 100, 300)]
    ids = [set(s["id"]) for s in sizes]
    assert ids[0] < ids[1] < ids[2]
    assert abs(list(sizes[1]["label"]).count(0) - 90) <= 1
    assert set(subset(ESO, gold, 30, seed=2)["id"]) != ids[0]
    with pytest.raises(ColumnError, match="cannot take 301 rows of 300"):
        subset(ESO, gold, 301)


def test_a_subset_reads_no_column_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes 6 microseconds a row and label, three hundred times as long as the column at once."""
    rows = [ESO.gold_row(f"n{i}", None, i % 4, f"Made-up {i}.") for i in range(12)]
    gold = Dataset.from_list(rows, features=ESO.gold_features())
    monkeypatch.setattr("datasets.arrow_dataset.Column.__iter__", lambda _: pytest.fail("row by row"))
    assert len(subset(ESO, gold, 4, seed=1)) == 4


def test_an_exported_folder_is_gold_again(tmp_path: Path) -> None:
    gold = load_gold(MTS, mts_folder(tmp_path / "mts"))
    out = write_stage(MTS, gold, tmp_path / "out", stage="gold")
    back = load_gold(MTS, out)
    assert back["train"].features == gold["train"].features
    assert back["train"]["id"] == gold["train"]["id"]
    plain = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert plain["train"].features["label"].names == list(MTS.labels)
    with pytest.raises(GoldError, match="holds task 'mts_dialog:section', not 'clinic'"):
        load_gold(load_task("clinic"), out)


def test_own_columns_need_no_script(tmp_path: Path) -> None:
    task = Task.from_columns("triage", text_columns="note", label_column="urgency", labels=["low", "high"])
    write_csv(tmp_path / "train.csv", ["note", "urgency"], [[f"Made-up {i}.", "low"] for i in range(4)])
    write_csv(tmp_path / "dev.csv", ["note", "urgency"], [["Made up.", "high"]])
    gold = load_gold(task, tmp_path)
    assert gold["validation"][0]["urgency"] == 1
    assert access_of(gold["train"]) == "restricted"


def test_rows_made_elsewhere_are_adopted() -> None:
    rows = Dataset.from_dict({"body": ["Made up.", "Also."], "asked": ["GENHX", "ROS"]})
    made = adopt(MTS, rows, text_columns=["body"], llm_label_column="asked")
    assert made["llm_label"] == [MTS.labels.index("GENHX"), MTS.labels.index("ROS")]
    assert (made["seed_ids"], made["fold"]) == ([None, None], [None, None])
    told = adopt(MTS, rows.add_column("seed_ids", [["g1"], []]), text_columns=["body"], llm_label_column="asked")
    assert told["seed_ids"] == [["g1"], []]
    assert access_of(made) == "credentialed"  # absent counts as the strictest
    assert access_of(adopt(MTS, rows, text_columns=["body"], llm_label_column="asked", access="open")) == "open"
    with pytest.raises(RowError, match="row 1: column 'llm_label' holds no label"):
        adopt(MTS, Dataset.from_dict({"text": ["x"], "llm_label": [CANARY]}))
    with pytest.raises(ColumnError, match="llm_label"):
        adopt(MTS, rows, text_columns=["body"])


def test_folders_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"x": [1]})
    out = write_stage(TINY, rows, tmp_path / "a", stage="test")
    assert out.stat().st_mode & 0o777 == 0o700
    (out / ".hf_synth").mkdir()
    (out / ".hf_synth" / "journal.sqlite").write_text("kept")
    write_stage(TINY, Dataset.from_dict({"x": [1, 2]}), out, stage="test")
    assert len(read_dataset(out)) == 2
    assert (out / ".hf_synth" / "journal.sqlite").read_text() == "kept"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an earlier output"):
        write_stage(TINY, rows, foreign, stage="test")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "b") as draft:
        (draft / "half").write_text("x")
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "foreign"]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def full() -> None:
        with new_folder(tmp_path / "b"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full"):
        full()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        write_stage(TINY, Dataset.from_dict({"x": [1]}), tmp_path / "a", stage="test")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
@example(b"{}", ".jsonl")
def test_random_bytes_never_give_a_traceback(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"fuzz{suffix}"
    file.write_bytes(content)
    try:
        for number, row in read_table(file):
            assert number >= 1
            assert isinstance(row, dict)
    except HfSynthError as error:
        assert "fuzz" in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1), min_size=2, max_size=2)
    )
)
def test_csv_gives_back_what_was_written(tmp_path: Path, rows: list[list[str]]) -> None:
    assume(
        ["b", "a"] not in [[c.strip().casefold() for c in row] for row in rows]
    )  # a header in another order: refused
    file = write_csv(tmp_path / "round.csv", ["a", "b"], rows)
    with_content = [
        row for row in rows if any(map(str.strip, row)) and {c.strip().casefold() for c in row} != {"a", "b"}
    ]
    assert [[row["a"], row["b"]] for _, row in read_csv(file)] == with_content
