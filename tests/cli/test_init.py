"""`init`: it looks at a table, asks what the table does not show, and writes the configuration."""

from __future__ import annotations

import csv
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.command import run

from hf_synth.cli import main
from hf_synth.gold.first_look import first_look
from hf_synth.gold.overview import guess_columns, overview

MATTERS = ("My chest feels tight since this morning", "Please refill the tablets", "Can the appointment be moved")
LABELS = ("urgent", "routine", "admin")


def rows(n: int = 60) -> list[list[str]]:
    return [
        [f"P{i // 3:03d}", f"2026-03-{1 + i % 28:02d}", f"{MATTERS[i % 3]} ({i}), ä", LABELS[i % 3]] for i in range(n)
    ]


def write(
    path: Path, header: list[str], lines: list[list[str]], *, delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(lines)
    return path


def excel(folder: Path) -> Path:
    """Write a table as people keep it in a German Excel: semicolons, Windows-1252, other spellings, empty cells."""
    lines = rows(120)
    lines[3][3], lines[6][3], lines[9][3] = "Urgent", "URGENT ", "urgnet"
    lines[20][2], lines[21][2], lines[22][3] = "", "  ", ""
    lines[31][0] = " p010"
    named = [[*line, ""] for line in lines]
    return write(folder / "messages.csv", ["Patient_ID", "Datum", "Nachricht", "Dringlichkeit", ""], named,
                 delimiter=";", encoding="cp1252")  # fmt: skip


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for a person at a terminal, who types these lines; each question is kept."""
    typed: list[str] = []
    monkeypatch.setattr("hf_synth.cli.init.at_terminal", lambda: True)

    def answer(question: str) -> str:
        print(question)
        if not typed:
            raise EOFError
        return typed.pop(0)

    monkeypatch.setattr("builtins.input", answer)
    return typed


def test_a_table_of_excel_becomes_a_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, error = run(
        capsys, "init", excel(tmp_path), "--yes", "--meaning", "urgent=today, call 0", "--llm", "simulator"
    )
    assert code == 0, error
    for said in (
        "taken: text Nachricht, label Dringlichkeit, patient Patient_ID",
        "117 rows with a text and a label, 40 patients",
        "one patient has up to 3 rows",
        "2 rows without a text: left out",
        "1 row without a label: left out",
        "read as Windows-1252",
        "'urgent' (36), 'Urgent' (1), 'URGENT ' (1) are one label: 'urgent'",
        "'urgnet' (first in line 11) occurs once and looks like 'urgent'",
        "nothing was asked",
        "only stands in for an LLM",
        "next: hf-synth gold\n",
    ):
        assert said in out, said
    assert "chest" not in out + error, "no text of a note is shown"
    values = tomllib.loads(Path("hf_synth.toml").read_text(encoding="utf-8"))
    assert values["task"] == "work/gold"
    assert values["gold"] == {
        "task": str(tmp_path / "messages.csv"), "text-column": ["Nachricht"], "label-column": "Dringlichkeit",
        "group-column": "Patient_ID", "name": "messages", "skip-empty": True, "meaning": ["urgent=today, call 0"],
        "out": "work/gold",
    }  # fmt: skip
    assert values["correct"] == {"synthetic": "work/synthetic", "out": "work/corrected"}
    assert values["train"] == {"data": "work/training", "gold": "work/gold", "out": "work/model"}
    if os.name != "nt":
        assert Path("hf_synth.toml").stat().st_mode & 0o077 == 0


def test_gold_reads_what_init_wrote(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The table [gold] holds options of `gold`, and with them it reads the table that `init` looked at."""
    assert run(capsys, "init", excel(tmp_path), "--yes", "--name", "triage", "--meaning", "admin=forms")[0] == 0
    table = tomllib.loads(Path("hf_synth.toml").read_text(encoding="utf-8"))["gold"]
    words = [table.pop("task")]
    for option, value in table.items():
        for part in value if isinstance(value, list) else [value]:
            words += [f"--{option}"] if part is True else [f"--{option}", str(part)]
    code, out, error = run(capsys, "gold", *words, "--json")
    assert code == 0, error
    facts = json.loads(out.splitlines()[-1])
    assert facts["task"] == "triage"
    assert sum(facts["rows"].values()) == 117
    manifest = json.loads(Path("work/gold/hf_synth.json").read_text(encoding="utf-8"))
    assert (
        dict(zip(manifest["definition"]["labels"], manifest["definition"]["label_meanings"], strict=True))["admin"]
        == "forms"
    )


def test_a_person_is_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path, answers: list[str]) -> None:
    answers += [
        "NACHRICHT", "4", "none", "triage", "y", "n", "forms and letters", "", "call back today", "", "open",
        "my-model", "http://127.0.0.1:9/v1", "tiny",
    ]  # fmt: skip
    code, out, error = run(capsys, "init", excel(tmp_path))
    assert code == 0, error
    assert answers == []
    assert "What does each label mean?" in out
    values = tomllib.loads(Path("hf_synth.toml").read_text(encoding="utf-8"))
    assert (values["llm"], values["base-url"], values["base-model"]) == ("my-model", "http://127.0.0.1:9/v1", "tiny")
    gold = values["gold"]
    assert gold["meaning"] == ["admin=forms and letters", "urgent=call back today"]
    assert (gold["name"], gold["access"], gold.get("group-column")) == ("triage", "open", None)
    assert "nothing was asked" not in out


def test_a_table_that_is_corrected_meanwhile_is_looked_at_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = excel(tmp_path)
    monkeypatch.setattr("hf_synth.cli.machine.installed_base_model", lambda _: "tiny")

    def answer(question: str) -> str:
        answers.append(question)
        if "save it" in question:
            table.write_bytes(table.read_bytes().replace(b"urgnet", b"urgent"))
        return "triage" if "name of the task" in question else "simulator" if question.startswith("LLM") else ""

    monkeypatch.setattr("builtins.input", answer)
    code, out, error = run(capsys, "init", table)
    assert code == 0, error
    assert [question for question in answers if "labels in the table first? [Y/n]" in question] != []
    assert len([question for question in answers if "name of the task" in question]) == 1, "answers stay"
    assert out.count("rows with a text and a label") == 2
    assert tomllib.loads(Path("hf_synth.toml").read_text(encoding="utf-8"))["gold"]["name"] == "triage"


def test_a_table_that_has_not_changed_is_not_looked_at_for_ever(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = excel(tmp_path)
    monkeypatch.setattr("hf_synth.cli.machine.installed_base_model", lambda _: "tiny")

    def answer(question: str) -> str:
        answers.append(question)
        return "triage" if "name of the task" in question else "simulator" if question.startswith("LLM") else ""

    monkeypatch.setattr("builtins.input", answer)
    code, out, error = run(capsys, "init", table)
    assert code == 0, error
    assert len([question for question in answers if "has not changed. Go on with it as it is? [Y/n]" in question]) == 1
    assert out.count("rows with a text and a label") == 1


def test_a_word_that_is_almost_right_is_answered_with_the_right_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = excel(tmp_path)
    _, _, error = run(capsys, "init", table, "--yes", "--meaning", "urgnt=call back today")
    assert "'urgnt' is no label of the table" in error
    _, _, error = run(capsys, "init", table, "--yes", "--label-column", "Dringlichkeiten")
    assert error.endswith("did you mean 'Dringlichkeit'?\n")
    _, _, error = run(capsys, "gold", table, "--text-column", "Nachrichten", "--label-column", "Dringlichkeit",
                      "--out", "gold")  # fmt: skip
    assert error.endswith("did you mean 'Nachricht'?\n")


def test_the_end_of_input_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, answers: list[str]
) -> None:
    answers += ["Nachricht"]
    code, _, error = run(capsys, "init", excel(tmp_path))
    assert (code, "hf_synth.toml was not written" in error) == (130, True)
    assert not Path("hf_synth.toml").exists()


def test_a_restricted_table_and_an_endpoint_elsewhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, answers: list[str]
) -> None:
    elsewhere = "https://api.openai.com/v1"
    code, _, error = run(capsys, "init", excel(tmp_path), "--yes", "--llm", "m", "--base-url", elsewhere)
    assert (code, "may not be sent there" in error) == (1, True)
    answers += ["", "", "", "", "", "n", "", "", "", "", "", "m", elsewhere, "http://127.0.0.1:9/v1", "tiny"]
    code, out, error = run(capsys, "init", excel(tmp_path))
    assert code == 0, error
    assert "may not be sent there" in out
    assert tomllib.loads(Path("hf_synth.toml").read_text(encoding="utf-8"))["base-url"] == "http://127.0.0.1:9/v1"


def test_a_file_that_is_there_is_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("hf_synth.toml").write_text("mine = 1\n")
    code, _, error = run(capsys, "init", excel(tmp_path), "--yes")
    assert (code, "is there already" in error) == (1, True)
    assert Path("hf_synth.toml").read_text() == "mine = 1\n"


@pytest.mark.parametrize(
    ("header", "lines", "says"),
    [
        (["Message", "Visit"], [[r[2], f"2026-03-0{1 + i % 3}"] for i, r in enumerate(rows())], "--label-column"),
        (["Message", "urgency_label", "topic_label"], [[r[2], r[3], "ab"[i % 2]] for i, r in enumerate(rows())],
         "several columns may be the label ('urgency_label', 'topic_label')"),
        (["Message", "Reply_note", "Label"], [[r[2], f"We have read message {i}", r[3]] for i, r in enumerate(rows())],
         "several columns may be the text ('Message', 'Reply_note'): name it with --text-column (twice for a pair)"),
        (["Message", "Sex"], [[r[2], "FM"[i % 2]] for i, r in enumerate(rows())], "no column looks like the label"),
        (["Message", "Label"], [[r[2], "urgent"] for r in rows()], "'Label' has one value in all rows"),
        (["Message", "Label"], [], "has no rows below its first line"),
        ([rows()[0][2], "urgent"], [[r[2], r[3]] for r in rows()[1:]], "does not seem to name the columns"),
    ],
)  # fmt: skip
def test_where_no_guess_is_safe_one_sentence_names_the_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, header: list[str], lines: list[list[str]], says: str
) -> None:
    code, out, error = run(capsys, "init", write(tmp_path / "t.csv", header, lines))
    assert code == 1
    assert says in error
    assert len(error.splitlines()) == 1
    assert "chest" not in out + error
    assert not Path("hf_synth.toml").exists()


def test_the_options_decide_where_a_guess_would_not_be_safe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [[r[2], "FM"[i % 2]] for i, r in enumerate(rows())]
    table = write(tmp_path / "t.csv", ["Message", "Sex"], lines)
    code, out, error = run(capsys, "init", table, "--label-column", "sex", "--group-column", "none")
    assert code == 0, error
    assert "taken: text Message, label Sex, no column of patients" in out
    code, _, error = run(capsys, "init", table, "--label-column", "gender", "--out", "other.toml")
    assert (code, "has no column 'gender'; it has 'Message', 'Sex'" in error) == (1, True)


def test_headers_of_several_words_are_headers(tmp_path: Path) -> None:
    lines = [[r[0], r[2], str(i % 4)] for i, r in enumerate(rows())]
    columns, _ = overview(write(tmp_path / "t.csv", ["Patient", "Note text", "Grade"], lines))
    from hf_synth.gold.first_look import check_columns_named

    check_columns_named(tmp_path / "t.csv", columns)
    guess = guess_columns(columns)
    assert (guess.text, guess.label, guess.patient, guess.doubts) == ("Note text", "Grade", "Patient", {})


@pytest.mark.parametrize(
    ("names", "patient"),
    [
        (["Pat.-ID"], "Pat.-ID"),
        (["PatNr"], "PatNr"),
        (["NHC"], "NHC"),
        (["N.º de historia clínica"], "N.º de historia clínica"),
        (["IPP", "séjour"], "IPP"),
        (["codice paziente"], "codice paziente"),
        (["recipp"], ""),
        (["Pat. Nr."], "Pat. Nr."),
        (["pat_id"], "pat_id"),
        (["PAT"], "PAT"),
        (["Versichertennummer"], "Versichertennummer"),
        (["Fall-Nr.", "Pat.-ID"], "Pat.-ID"),
        (["hadm_id", "subject_id"], "subject_id"),
        (["Fallnummer"], "Fallnummer"),
        (["Aufnahme-Nr"], "Aufnahme-Nr"),
        (["path"], ""),
        (["spatial id"], ""),
        (["Abfall-Nr"], ""),
    ],
)
def test_the_patient_is_found_by_the_names_that_hospitals_use(tmp_path: Path, names: list[str], patient: str) -> None:
    """A patient comes before a stay or case of theirs, whatever the order of the columns."""
    lines = [[*[f"{i // 3}" for _ in names], r[2], r[3]] for i, r in enumerate(rows())]
    columns, _ = overview(write(tmp_path / "t.csv", [*names, "Text", "Dringlichkeit"], lines))
    assert guess_columns(columns).patient == patient


def test_long_ids_are_no_text(tmp_path: Path) -> None:
    lines = [[f"{i:064d}", r[2], r[3]] for i, r in enumerate(rows())]
    guess = guess_columns(overview(write(tmp_path / "t.csv", ["key", "Message", "class"], lines))[0])
    assert (guess.text, guess.label) == ("Message", "class")


def test_folders_of_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    split = tmp_path / "split"
    split.mkdir()
    for name, n in (("train", 90), ("validation", 30), ("test", 30)):
        write(split / f"{name}.csv", ["Message", "Label"], [r[2:] for r in rows(n)])
    look = first_look(split, text_columns=["Message"], label_column="Label")
    assert (look.rows, sorted(look.splits)) == (150, ["test", "train", "validation"])
    assert run(capsys, "init", split)[0] == 0
    gold = tomllib.loads(Path("hf_synth.toml").read_text(encoding="utf-8"))["gold"]
    assert "validation" not in gold, "it has a validation table of its own"
    (split / "validation.csv").unlink()
    assert run(capsys, "init", split, "--out", "cut.toml")[0] == 0
    assert tomllib.loads(Path("cut.toml").read_text(encoding="utf-8"))["gold"]["validation"] == 0.1
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a", "b"):
        write(two / f"{name}.csv", ["Message", "Label"], [r[2:] for r in rows(9)])
    code, _, error = run(capsys, "init", two, "--out", "two.toml")
    assert (code, "holds several tables" in error) == (1, True)
    (two / "b.csv").unlink()
    assert run(capsys, "init", two, "--out", "two.toml")[0] == 0
    assert tomllib.loads(Path("two.toml").read_text(encoding="utf-8"))["gold"]["task"] == str(two / "a.csv")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nothing.csv", "is no file or folder"),
        ("mednli", "hf-synth gold mednli:pair PATH --out"),
        (".", "holds no table"),
    ],
)
def test_what_is_no_table(capsys: pytest.CaptureFixture[str], path: str, says: str) -> None:
    code, _, error = run(capsys, "init", path)
    assert (code, says in error) == (1, True), error


def test_a_task_without_files(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "init", "clinic", "--json")
    assert code == 0, error
    values: dict[str, Any] = json.loads(out.splitlines()[-1])["configuration"]
    assert values["gold"] == {"task": "clinic", "out": "work/gold"}
    assert (values["llm"], values["base-model"]) == ("simulator", None)
    assert "next:" not in out


def test_a_secret_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ("--llm", "hf_" + "a" * 30, "--base-url", "http://127.0.0.1:9/v1")
    code, _, error = run(capsys, "init", "clinic", "--yes", *typed)
    assert code == 2
    assert "llm holds a secret" in error
    assert "aaaa" not in error
    assert not Path("hf_synth.toml").exists()


def test_the_table_is_not_replaced_by_its_own_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("text,label\na,b\n", encoding="utf-8")
    assert main(["init", str(table), "--out", str(table), "--yes"]) == 1
    assert "would replace" in capsys.readouterr().err
    assert table.read_text(encoding="utf-8") == "text,label\na,b\n"
