"""A table of one's own: what its columns mean, all its faults at once, its labels, patients and splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.command import run
from support.gold_files import CANARY, note, write_csv, write_jsonl

from hf_synth.correction.audited import read_audited
from hf_synth.errors import GoldError, RowError, TaskError
from hf_synth.generation.prompts import render
from hf_synth.gold.adoption import adopt, read_dataset
from hf_synth.gold.gold import as_streaming_dataset, cut_validation, load_gold, split_by_group
from hf_synth.gold.own_table import task_from_table
from hf_synth.task.columns import MANIFEST, access_of
from hf_synth.task.labels import audited_labels, label_indices
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

COLUMNS: dict[str, Any] = {"text_columns": ["note"], "label_column": "label"}
LOW_HIGH = Task.from_columns("t", **COLUMNS, labels=["low", "high"])
NUMBERS = Task.from_columns("pain", **COLUMNS, labels=["1", "2", "3", "4", "5"])


def table(path: Path, header: list[str], *rows: list[Any]) -> Path:
    return write_csv(path, header, [[str(cell) for cell in row] for row in rows])


def streamed(task: Task, path: Path, **options: Any) -> list[dict[str, Any]]:
    return [row for rows in as_streaming_dataset(task, path, **options).values() for row in rows]


# --- labels ---------------------------------------------------------------------------------------------------------
def test_look_alike_labels_are_one_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = ["Low", "low", "low\u200b", "high", "HIGH"] * 8 + ["hihg"]
    path = table(tmp_path / "x.csv", ["note", "label"], *([note(i), y] for i, y in enumerate(labels)))
    task = task_from_table(path, **COLUMNS)
    assert task.labels == ("high", "hihg", "low")
    assert "'low\\u200b' (8) are one label: 'low'" in caplog.text
    assert "label 'hihg' (first in line 42) occurs once and looks like 'high'" in caplog.text
    rows = streamed(task, path)
    assert [task.labels[row["label"]] for row in rows[:5]] == ["low", "low", "low", "high", "high"]


def test_a_doubtful_label_has_the_line_of_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"note": note(i), "label": ("low", "high")[i % 2]} for i in range(40)]
    lines = write_jsonl(tmp_path / "t.jsonl", [*rows, {"note": "one more", "label": "hihg"}])
    task_from_table(lines, text_columns=["note"], label_column="label")
    assert "label 'hihg' (first in line 41) occurs once" in caplog.text
    folder = tmp_path / "splits"
    folder.mkdir()
    table(folder / "train.csv", ["note", "label"], *([note(i), ("low", "high")[i % 2]] for i in range(40)))
    table(folder / "test.csv", ["note", "label"], [note(50), "low"], [note(51), "lwo"])
    task_from_table(folder, text_columns=["note"], label_column="label")
    assert "label 'lwo'" not in caplog.text, "three letters are too few to be a misspelling"
    table(folder / "test.csv", ["note", "label"], [note(50), "low"], [note(51), "hgih"])
    task_from_table(folder, text_columns=["note"], label_column="label")
    assert "label 'hgih' (first in line 3 of test.csv) occurs once" in caplog.text


def test_the_lines_of_a_table_with_line_breaks_in_cells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = [[note(i), ("low", "high")[i % 2]] for i in range(40)]
    broken = [["two\nlines", "low"], *good, ["one more", "hihg"]]
    task_from_table(table(tmp_path / "t.csv", ["note", "label"], *broken), **COLUMNS)
    assert "label 'hihg' (first in line 43 (44 in an editor)) occurs once" in caplog.text
    with pytest.raises(RowError, match=r"t.csv, line 44 \(45 in an editor\), row 43: column 'note' is empty"):
        task_from_table(table(tmp_path / "t.csv", ["note", "label"], *broken, ["", "low"]), **COLUMNS)


def test_json_values_are_labels_as_they_print(tmp_path: Path) -> None:
    for values, labels in (
        ([True, False, "TRUE", "false"], ("false", "true")), ([1, 1.0, "1", 2], ("1", "2")),
        ([0.5, 1, 0.5, 1], ("0.5", "1")),
    ):  # fmt: skip
        rows = [{"note": note(i), "label": value} for i, value in enumerate(values * 3)]
        path = write_jsonl(tmp_path / "x.jsonl", rows)
        task = task_from_table(path, **COLUMNS)
        assert task.labels == labels
        found = [row["label"] for row in streamed(task, path)]
        assert found[:4] == found[4:8]
        assert len(set(found)) == 2


def test_a_column_of_texts_is_no_label(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", ["note", "label"], *([note(i), f"{CANARY} {i % 30}"] for i in range(40)))
    with pytest.raises(TaskError, match="has 30 different values in 40 rows: is it the text") as caught:
        task_from_table(path, **COLUMNS)
    assert CANARY not in str(caught.value)
    one = table(tmp_path / "y.csv", ["note", "label"], *([note(i), "low"] for i in range(4)))
    with pytest.raises(TaskError, match="has one label in all of its 4 rows"):
        task_from_table(one, **COLUMNS)


# --- faults ---------------------------------------------------------------------------------------------------------
def test_all_faults_are_said_at_once_with_the_way_on(tmp_path: Path) -> None:
    rows = [[note(i), "low" if i % 2 else "high"] for i in range(20)]
    rows[3][1], rows[5][0], rows[7][1], rows[8][0] = "", "  ", "hgih", f"{CANARY} of a note"
    rows[8][1] = f"{CANARY} and other words"
    path = table(tmp_path / "x.csv", ["note", "label"], *rows)
    with pytest.raises(RowError) as caught:
        task_from_table(path, **COLUMNS, labels=["low", "high"])
    said = str(caught.value)
    for part in (
        "4 rows cannot be read", "line 5: column 'label' is empty", "line 7: column 'note' is empty",
        "line 9: column 'label' holds 'hgih', no known label; expected one of low, high; is 'high' meant?",
        "line 10: column 'label' holds no known label", "--skip-empty leaves rows without text or label out",
    ):  # fmt: skip
        assert part in said
    assert CANARY not in said
    with pytest.raises(RowError) as again:
        streamed(LOW_HIGH, path)
    assert str(again.value) == said


def test_empty_rows_are_left_out_on_demand_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [[note(i), "low" if i % 2 else "high"] for i in range(20)]
    rows[3][1] = rows[5][0] = rows[6][0] = ""
    path = table(tmp_path / "x.csv", ["note", "label"], *rows)
    task = task_from_table(path, **COLUMNS, skip_empty=True)
    assert len(streamed(task, path, skip_empty=True)) == 17
    assert "x.csv: rows left out, since they have no text: 2" in caplog.text
    broken = path.read_text(encoding="utf-8") + "half a note\nof two lines,low\n"
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(RowError, match="line 22, row 21: has 1 fields where the header has 2"):
        task_from_table(path, **COLUMNS, skip_empty=True)


# --- patients, ids, splits, access ----------------------------------------------------------------------------------
def test_a_patient_in_two_spellings_is_on_one_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [[f"{i // 2}" if i % 2 else f"0{i // 2}.0", note(i), "low" if i % 2 else "high"] for i in range(40)]
    path = table(tmp_path / "x.csv", ["pid", "note", "label"], *rows)
    gold = load_gold(task_from_table(path, **COLUMNS, group_column="pid"), path)
    groups = [set(part["group"]) for part in gold.values()]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 20
    assert "column 'pid': 20 patients are spelled in several ways" in caplog.text


def test_nobody_is_no_patient(tmp_path: Path) -> None:
    rows = [{"pid": float("nan") if i % 3 else i, "note": note(i), "label": i % 2} for i in range(12)]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = task_from_table(path, **COLUMNS, group_column="pid")
    assert len({row["group"] for row in streamed(task, path)}) == 12


def test_rows_without_a_patient_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"note": note(i), "label": ("low", "high")[i % 2], "pid": [i // 2] if i % 4 else ""} for i in range(40)]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    task_from_table(path, text_columns=["note"], label_column="label", group_column="pid")
    assert "column 'pid': 'a list' (30), empty cells (10) name no patient; these rows stand alone" in caplog.text
    caplog.clear()
    task_from_table(path, text_columns=["note"], label_column="label")
    assert "name no patient" not in caplog.text, "the table names no column of patients"


def test_a_label_of_invisible_characters_is_an_empty_one(tmp_path: Path) -> None:
    rows = [[note(i), ("low", "high")[i % 2]] for i in range(40)]
    path = table(tmp_path / "t.csv", ["note", "label"], *rows, [note(50), "\u200b"], [note(51), "\ufeff "])
    columns: dict[str, Any] = {"text_columns": ["note"], "label_column": "label"}
    with pytest.raises(RowError, match="lines 42, 43: column 'label' is empty; --skip-empty"):
        task_from_table(path, **columns)
    assert task_from_table(path, **columns, skip_empty=True).labels == ("high", "low")


def test_an_id_that_repeats_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path / "x.csv", ["id", "note", "label"], *([i // 2, note(i), i % 2] for i in range(8)))
    task = task_from_table(path, **COLUMNS)
    assert "column 'id' repeats in 4 rows: rows with one id stay in one split, their" in caplog.text
    rows = streamed(task, path)
    assert [(row["id"], row["group"]) for row in rows[:3]] == [("0", "0"), ("0-2", "0"), ("1", "1")]
    rows = streamed(task_from_table(path, **COLUMNS, group_column="id"), path)
    assert [(row["id"], row["group"]) for row in rows[:3]] == [("rows-1", "0"), ("rows-2", "0"), ("rows-3", "1")]


@pytest.mark.parametrize(
    ("column", "words", "says"),
    [
        ("split", ("train", "Test ", "dev"), "the splits are those of its column 'split'"),
        ("split", ("1", "2", "3"), "column 'split' names other things than train, validation and test"),
        ("split", ("train", "train", "train"), "column 'split' is the same in all rows"),
        ("access", ("ward", "open", "clinic"), "column 'access' holds 2 values that are none of"),
        ("group", ("a", "b", "c"), "column 'group' is taken as the patient (3 groups)"),
    ],
)
def test_columns_of_ones_own_are_used_or_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str, words: tuple[str, ...], says: str
) -> None:
    rows = [[words[i % 3], note(i), "low" if i % 2 else "high"] for i in range(30)]
    path = table(tmp_path / "x.csv", [column, "note", "label"], *rows)
    task = task_from_table(path, **COLUMNS)
    stream = as_streaming_dataset(task, path)
    rows_of = {split: list(part) for split, part in stream.items()}
    assert says in caplog.text
    if words[1] == "Test ":
        assert {split: len(rows) for split, rows in rows_of.items()} == {"train": 10, "validation": 10, "test": 10}
        assert rows_of["test"][0]["note"] == note(1)
    else:
        assert list(rows_of) == ["rows"]
        assert {row["access"] for row in rows_of["rows"]} == (
            {"credentialed", "restricted"} if column == "access" else {"restricted"}
        )
    if column == "group":
        with pytest.raises(GoldError, match="3 groups are too few to split 30 rows .* if column 'group' is not the"):
            load_gold(task, path)


def test_a_row_without_a_split_is_a_fault(tmp_path: Path) -> None:
    rows = [[("train", "test", "")[i % 3], note(i), "low"] for i in range(6)]
    with pytest.raises(RowError, match="2 rows cannot be read: lines 4, 7: column 'split' is empty"):
        as_streaming_dataset(LOW_HIGH, table(tmp_path / "x.csv", ["split", "note", "label"], *rows))


# --- validation -----------------------------------------------------------------------------------------------------
def test_a_validation_split_is_cut_by_group() -> None:
    rows = [LOW_HIGH.gold_row(f"n{i}", f"p{i // 3}", i % 2, note(i % 88)) for i in range(90)]
    whole = Dataset.from_list(rows, features=LOW_HIGH.gold_features())
    gold = split_by_group(LOW_HIGH, whole)
    with pytest.raises(GoldError, match="has a validation split already"):
        cut_validation(LOW_HIGH, gold, 0.1)
    del gold["validation"]
    cut = cut_validation(LOW_HIGH, gold, 0.2)
    assert list(cut) == ["train", "validation", "test"]
    assert len(cut["train"]) + len(cut["validation"]) == len(gold["train"])
    for column in ("group", "note"):
        assert not set(cut["train"][column]) & set(cut["validation"][column])
    assert cut["test"].to_dict() == gold["test"].to_dict()
    for share, says in ((0.0, "above 0"), (0.9, "at most 0.5"), (0.01, "give a larger share")):
        with pytest.raises(GoldError, match=says):
            cut_validation(LOW_HIGH, gold, share)


def test_texts_that_are_equal_but_for_capitals_and_blanks_stay_together() -> None:
    rows = []
    for i in range(60):
        words = f"begins alike in all of the notes, number {i % 20} here, and ends alike in all of them too"
        spaced = words.upper() if i >= 40 else words.replace(" ", "  \n") if i >= 20 else words
        rows.append(LOW_HIGH.gold_row(f"n{i}", None, i % 2, spaced))
    gold = split_by_group(LOW_HIGH, Dataset.from_list(rows, features=LOW_HIGH.gold_features()))
    texts = [{" ".join(t.lower().split()) for t in part["note"]} for part in gold.values()]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 20


# --- pools and audited rows -----------------------------------------------------------------------------------------
def test_numbers_are_names_where_labels_are_numbers() -> None:
    made = {"note": [note(i) for i in range(5)], "llm_label": [1, 2, 3, 4, 5]}
    for values in ([1, 2, 3, 4, 5], ["1", "2.0", " 3", "04", "5"], [1.0, 2.0, 3.0, 4.0, 5.0]):
        assert adopt(NUMBERS, Dataset.from_dict(made | {"llm_label": values}))["llm_label"] == [0, 1, 2, 3, 4]
    with pytest.raises(RowError, match="synthetic rows, row 2: column 'llm_label' holds"):
        adopt(NUMBERS, Dataset.from_dict(made | {"llm_label": [1, 0, 3, 4, 5]}))
    assert adopt(LOW_HIGH, Dataset.from_dict({"note": ["a"], "llm_label": [1]}))["llm_label"] == [1]
    plain = Dataset.from_dict({"note": ["a", "b"], "label": [2, 5]})
    assert label_indices(NUMBERS, plain).tolist() == [1, 4]
    assert label_indices(LOW_HIGH, plain.map(lambda row: {"label": row["label"] // 4})).tolist() == [0, 1]
    assert audited_labels(NUMBERS, {0: 2, 1: "5"}) == {0: 1, 1: 4}


def test_a_pool_is_read_as_gold_is(tmp_path: Path) -> None:
    pool = table(
        tmp_path / "pool.csv", ["id", "note", "llm_label", ""],
        ["x", note(0), "Low ", ""], ["x", note(1), "HIGH", ""], ["", "", "", ""], ["", note(2), "low", ""],
    )  # fmt: skip
    rows = adopt(LOW_HIGH, read_dataset(pool))
    assert (rows["llm_label"], rows["id"]) == ([0, 1, 0], ["x", "x-1", "t-adopted-2"])
    mixed = write_jsonl(
        tmp_path / "pool.jsonl",
        [{"note": note(i), "llm_label": "low", "meta": m} for i, m in enumerate([1, "x", {"a": [1]}, None, True])],
    )
    assert read_dataset(mixed)["meta"] == ["1", "x", '{"a": [1]}', None, "true"]
    assert adopt(LOW_HIGH, read_dataset(mixed))["llm_label"] == [0] * 5
    sets = Task.from_columns("s", **COLUMNS, labels=["a", "b"], kind="multi_label")
    found = table(tmp_path / "sets.csv", ["note", "llm_label"], [note(0), "a; B"], [note(1), ""], [note(2), "['b']"])
    assert adopt(sets, read_dataset(found))["llm_label"] == [[0, 1], [], [1]]
    with pytest.raises(RowError, match="2 rows cannot be read: row 1: a text is empty; .* 'hihg', no label of"):
        adopt(LOW_HIGH, Dataset.from_dict({"note": [" ", note(1)], "llm_label": ["low", "hihg"]}))


def test_rows_that_were_checked_in_a_german_excel(tmp_path: Path) -> None:
    path = tmp_path / "checked.csv"
    lines = ["id;label;stratum;inclusion_probability;;", "t-0;Low ;low;0,25;;", ";;;;;", "t-1;high;high;0,5;;"]
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    audited = read_audited(path, LOW_HIGH)
    assert (dict(audited), dict(audited.weights)) == ({"t-0": "low", "t-1": "high"}, {"t-0": 4.0, "t-1": 2.0})
    path.write_text("id,label\na,low\nb,hgih\nc,maybe\nd,denies any pain\n", encoding="utf-8")
    with pytest.raises(RowError) as caught:
        read_audited(path, LOW_HIGH)
    said = str(caught.value)
    assert "line 3: column 'label' holds 'hgih', no known label; expected one of low, high; is 'high' meant?" in said
    assert "line 4: column 'label' holds 'maybe'" in said
    assert "line 5" in said
    assert "denies" not in said


# --- the verb -------------------------------------------------------------------------------------------------------
def test_a_table_alone_shows_its_columns_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[f"p{i // 2}", note(i), ("now", "later")[i % 2], f"2020-01-{i % 28 + 1:02}"] for i in range(60)]
    path = table(tmp_path / "my notes.csv", ["Patient ID", "Message", "Urgency", "Day"], *rows)
    for words in ([], ["--out", tmp_path / "o"], ["--text-column", "Message"]):
        code, out, error = run(capsys, "gold", path, *words)
        assert code == 1
        assert f"hf-synth gold '{path}' --text-column Message --label-column Urgency --group-column 'Patient ID'" in out
        assert "the label: later, now" in out
        assert "name --" in error
        assert "Person" not in out + error
        assert not (tmp_path / "o").exists()
    code, out, error = run(capsys, "gold", table(tmp_path / "x.csv", rows[0], *rows))
    assert code == 1
    assert "does its first line name its columns?" in out
    assert "Person" not in out + error
    table(tmp_path / "deep" / "train.csv", ["Message", "Urgency"], *([row[1], row[2]] for row in rows))
    monkeypatch.chdir(tmp_path)
    for folder in ("deep", "./deep"):
        code, out, _ = run(capsys, "gold", folder)
        assert (code, f"hf-synth gold {Path(folder)} --text-column Message --label-column Urgency" in out) == (1, True)
    code, _, error = run(capsys, "gold", tmp_path / "nothing.csv")
    assert (code, "nothing.csv is no file" in error or "--out" in error) == (1, True)


def test_the_verb_prints_labels_by_split_and_keeps_name_and_meanings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [[f"p{i // 2}", note(i), ("now", "later")[i % 2]] for i in range(60)] + [["p99", note(99), ""]]
    train = table(tmp_path / "in" / "train.csv", ["patient", "text", "y"], *rows)
    table(tmp_path / "in" / "test.csv", ["patient", "text", "y"], *([f"q{i}", note(200 + i), "now"] for i in range(9)))
    words = ["--text-column", "text", "--label-column", "y", "--group-column", "patient", "--skip-empty", "--name",
             "Triage", "--meaning", "Now=a nurse calls back today", "--validation", ".2", "--language", "de",
             "--out", tmp_path / "o"]  # fmt: skip
    code, out, error = run(capsys, "gold", train.parent, *words, "--json")
    assert code == 0, error
    facts = json.loads(out.splitlines()[-1])
    assert facts["rows"] == {"train": 48, "validation": 12, "test": 9}
    assert facts["labels"]["later"] == {"train": 24, "validation": 6, "test": 0}
    assert [line.split() for line in out.splitlines()[:3]] == [
        ["label", "train", "validation", "test"], ["later", "24", "6", "0"], ["now", "24", "6", "9"],
    ]  # fmt: skip
    assert "rows left out, since they have no label: 1" in caplog.text
    task = load_task(tmp_path / "o")
    assert (task.name, task.label_meanings) == ("triage", ("", "a nurse calls back today"))
    manifest = json.loads((tmp_path / "o" / MANIFEST).read_text())
    assert manifest["definition"]["label_meanings"] == ["", "a nurse calls back today"]
    assert manifest["validation_share"] == 0.2
    assert task.language == "de"
    code, _, error = run(capsys, "gold", train.parent, *words, "--language", "German")
    assert (code, "ISO 639" in error) == (1, True)
    asked = render(task, task.prompt, [], ["now"])[1]["content"]
    assert "- now: a nurse calls back today" in asked
    assert "'triage'" in asked
    code, _, error = run(capsys, "gold", train.parent, *words, "--meaning", "never=x")
    assert code == 1
    assert "which is no label of it; it has later, now" in error
    code, _, error = run(capsys, "gold", train.parent, *words, "--meaning", "latr=x")
    assert "'latr'" in error
    assert error.endswith("did you mean 'later'?\n")
    assert access_of(load_gold(task, tmp_path / "o")["train"]) == "restricted"


def test_a_missing_table_and_a_missing_folder_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "messages.csv").touch()
    for words, says in (
        (["gold", tmp_path / "no.csv"], "no.csv is no file"),
        (["gold", tmp_path / "mesages.csv"], "mesages.csv is no file; did you mean 'messages.csv'?"),
        (["gold", "clinic"], "name the folder to write: --out DIR"),
        (["gold", "clinic", "--out", tmp_path / "o", "--skip-empty"], "are for a table of your own"),
    ):  # fmt: skip
        code, _, error = run(capsys, *words)
        assert code == 1
        assert says in error


def test_errors_of_a_split_name_its_files(tmp_path: Path) -> None:
    task = load_task("mednli")
    row = {"gold_label": "neutral", "sentence1": "a", "sentence2": "b", "pairID": "1"}
    for name in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"mli_{name}_v1.jsonl", [row, row] if name == "train" else [row])
    with pytest.raises(GoldError, match=r"mli_train_v1.jsonl, row 2: has the id of an earlier row"):
        list(as_streaming_dataset(task, tmp_path)["train"])
    write_jsonl(tmp_path / "mli_train_v1.jsonl", [row | {"gold_label": "-"}])
    with pytest.raises(GoldError, match=r"mli_train_v1.jsonl: split 'train' .* holds no row"):
        load_gold(task, tmp_path)


def test_a_pools_faults_have_the_lines_of_its_table(tmp_path: Path) -> None:
    path = table(tmp_path / "pool.csv", ["note", "llm_label"], [note(0), "low"], ["", ""], [note(1), "hihg"])
    with pytest.raises(RowError, match=r"pool.csv, line 4, row 3: column 'llm_label' holds 'hihg', no label of task"):
        adopt(LOW_HIGH, read_dataset(path), file=path)
    with pytest.raises(RowError, match=r"synthetic rows, row 2: "):
        adopt(LOW_HIGH, read_dataset(path))
