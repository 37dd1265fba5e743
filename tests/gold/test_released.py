"""Sources in the layouts in which they are released; every word is made up."""

from __future__ import annotations

import gzip
import io
import json
import logging
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from support.gold_files import CANARY, WRITERS, note, write_csv, write_jsonl

import hf_synth
from hf_synth.errors import GoldError, MissingGoldError, RowError
from hf_synth.evaluation.evaluation import score, truth
from hf_synth.gold.adoption import read_dataset
from hf_synth.gold.gold import as_streaming_dataset, load_gold
from hf_synth.gold.own_table import task_from_table
from hf_synth.gold.sources import find_files
from hf_synth.publishing.cards import dataset_facts
from hf_synth.task.folders import notes_of, read_export, read_manifest, write_stage
from hf_synth.task.scripts import load_task

MEDNLI = load_task("mednli")


def counts(gold: Any) -> dict[str, int]:
    return {split: len(rows) for split, rows in gold.items()}


# --- medication_2009 ------------------------------------------------------------------------------------------------
def entries(*parts: str) -> str:
    return "\n".join(parts) + "\n"


def i2b2(folder: Path, first: int = 1000, n: int = 12) -> Path:
    for number in range(first, first + n):
        for place in ("training.sets.released/1", "train.test.released.8.17.09"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / str(number)).write_text(f"Admission\n{note(number)}\nShe took madeupine 5 mg .\n")
    return folder


def entry(name: str = "madeupine", place: str = "3:2 3:2", **fields: str) -> str:
    own = {"do": "nm", "mo": "nm", "f": "nm", "du": "nm", "r": "nm", "ln": "list"} | fields
    return f'm="{name}" {place}||' + "||".join(f'{key}="{value}"' for key, value in own.items())


def test_spans_after_a_comma_and_three_bars_are_read(tmp_path: Path) -> None:
    i2b2(tmp_path)
    (tmp_path / "training.ground.truth").mkdir()
    lines = entries(
        entry("later", "9:1 9:1"),
        'm="soft ... tablets" 3:0 3:0,4:2 4:2||do="5 mg" 3:5 3:6, 3:8 3:8||f="daily...prn" 3:7 3:7,4:0 4:1 ,4:5 4:5'
        '||| du="nm"||r="nm"||ln="narrative"',
    )
    for number in range(1000, 1012):
        (tmp_path / "training.ground.truth" / f"{number}_gold.entries").write_text(lines)
    rows = load_gold(load_task("medication_2009"), tmp_path)["train"]
    assert rows["entries"][0].splitlines() == [  # in the order of the note
        "soft ... tablets | 5 mg | nm | daily...prn | nm | nm | narrative", "later | nm | nm | nm | nm | nm | list"
    ]  # fmt: skip
    assert all(id.startswith("train-") for id in rows["id"])


def test_the_portals_archives_are_read_as_they_are(tmp_path: Path) -> None:
    """Notes twice, gold of training and test in other forms, output of systems, and a pool beside the test gold."""
    source, portal = i2b2(tmp_path / "source", n=24), tmp_path / "portal"
    portal.mkdir()
    for number in range(1000, 1024):
        kind = "training.ground.truth" if number < 1005 else "annotations_ground_truth/converted.noduplicates.sorted"
        name = f"{number}_gold.entries" if number < 1005 else f"{number}.i2b2.entries.m"
        files = {f"{kind}/{name}": entry()} if number < 1022 else {}
        files |= {f"TeamSubmissions/t{team}/{number}.i2b2.entries": entry(f"wrong {team}") for team in "12"}
        files |= {f"annotations_ground_truth/pool/{number}.entries": entry("pooled")}
        for path, text in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(text + "\n")
    for folder in source.iterdir():
        with tarfile.open(portal / f"{folder.name}.tar.gz", "w:gz") as tar:
            tar.add(folder, folder.name)
    gold = load_gold(load_task("medication_2009"), portal)
    rows = [row for split in gold.values() for row in split]
    assert len(rows) == 22
    assert {row["entries"] for row in rows} == {"madeupine | nm | nm | nm | nm | nm | list"}
    assert sorted(row["id"] for row in rows)[0] == "test-1005"
    assert sum(row["id"].startswith("train-") for row in rows) == 5
    assert counts(load_gold(load_task("medication_2009"), source)) == counts(gold)  # unpacked, beside each other
    other = source / "training.ground.truth" / "1000.entries"
    other.write_text(entry("another") + "\n")
    with pytest.raises(
        RowError, match=r"second file of note 1000, with other content; take one of training.ground.truth/1"
    ):
        load_gold(load_task("medication_2009"), source)


# --- problem_summary, ap_reasoning ----------------------------------------------------------------------------------
def summaries(path: Path, s: str, o: str, start: int = 0) -> Path:
    rows = [
        [f"{n}.txt", f"She is {n}.", f"Cold; thirst, {n};", "said so", "\nHR: 3\n"] for n in range(start, start + 3)
    ]
    return write_csv(path, ["File ID", "Assessment", "Summary", s, o], rows)


@pytest.mark.parametrize("config", ["assessment", "note"])
def test_every_version_of_probsumm_is_read(tmp_path: Path, config: str) -> None:
    task = load_task(f"problem_summary:{config}")
    summaries(tmp_path / "a" / "BioNLP2023-1A-Train.csv", "Subjective Sections", "Objective Sections")
    summaries(tmp_path / "a" / "BioNLP2023-1A-Test.csv", "Subjectives", "Objectives", 5)
    for split in ("train", "dev", "test"):
        summaries(tmp_path / "b" / f"summ_0821_{split}.csv", "S", "O")
    plain = "She is 0." if config == "assessment" else "She is 0.\n\nSubjective:\nsaid so\n\nObjective:\n\nHR: 3\n"
    for folder, splits in (("a", {"train": 3, "test": 3}), ("b", {"train": 3, "validation": 3, "test": 3})):
        gold = load_gold(task, tmp_path / folder)
        assert counts(gold) == splits
        assert gold["train"][0]["document"] == plain
        assert gold["train"][0]["summary"] == "Cold; thirst, 0;"
    tagged = load_gold(task, tmp_path / "b", template="drbench")["train"][0]
    more = "" if config == "assessment" else " <SUBJECTIVE> said so <OBJECTIVE> HR: 3"
    assert (tagged["document"], tagged["summary"]) == (f"<ASSESSMENT> She is 0.{more}", "Cold thirst 0")
    with pytest.raises(GoldError, match="template must be 'headings' or 'drbench'"):
        load_gold(task, tmp_path / "b", template="other")
    if config == "assessment":  # which does not need the other sections
        write_csv(tmp_path / "c" / "summ_0821_train.csv", ["File ID", "Assessment", "Summary"], [["1", "a", "b"]])
        assert counts(load_gold(task, tmp_path / "c")) == {"train": 1}


def test_a_test_file_without_labels_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summaries(tmp_path / "a" / "BioNLP2023-1A-Train.csv", "Subjective Sections", "Objective Sections")
    write_csv(tmp_path / "a" / "BioNLP2023-1A-Test.csv", ["File ID", "Assessment"], [["1", "She is 1."]])
    gold = load_gold(load_task("problem_summary"), tmp_path / "a")
    assert counts(gold) == {"train": 3}
    says = "split test left out: BioNLP2023-1A-Test.csv has no column 'Summary', as in versions 1.x of the source"
    assert notes_of(gold) == [says]
    WRITERS["ap_reasoning"](tmp_path / "b")
    write_csv(
        tmp_path / "b" / "n2c2_track3_test.csv", ["ROW ID", "HADM ID", "Assessment", "Plan Subsection"], [list("1234")]
    )
    assert set(load_gold(load_task("ap_reasoning"), tmp_path / "b")) == {"train", "validation"}
    assert says in caplog.text
    assert "n2c2_track3_test.csv has no column 'Relation': it is the blind test set" in caplog.text


def test_relations_as_text_have_one_spelling(tmp_path: Path) -> None:
    task = load_task("ap_reasoning:text2text")
    gold = load_gold(task, WRITERS["ap_reasoning"](tmp_path))
    assert set(gold["train"]["target"]) == {"direct", "indirect", "neither", "not relevant"} == set(task.targets)
    said = [text.title() for text in gold["test"]["target"]]
    values = score(task, said, truth(task, gold["test"]), n_bootstrap=0).values
    assert values["macro_f1"] == values["exact_match"] == 1


# --- emrqa ----------------------------------------------------------------------------------------------------------
def paragraph(n: int, answers: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [f"Note {n} .\n", "He took madeupine 5 mg daily .\n"]
    return {
        "note_id": str(n),
        "context": lines,
        "qas": [{"question": ["How much?", "Which dose?"], "answers": answers}],
    }


def answer(text: Any, kind: str = "single", **more: Any) -> dict[str, Any]:
    return {"text": text, "answer_start": [2, 3], "answer_entity_type": kind, **more}


@pytest.mark.parametrize("name", ["medication-qa.json", "medications-qa.json"])
def test_emrqa_is_read_as_the_generator_writes_it(tmp_path: Path, name: str) -> None:
    notes = [paragraph(n, [answer("5 mg"), answer("5  mg"), answer("5 mg daily")]) for n in range(12)]
    notes.append(paragraph(12, [answer(["madeupine", "5 mg"], "complex")]))
    notes.append(paragraph(13, [answer(["madeupine", "5 mg"], "complex"), answer("madeupine")]))
    notes.append(paragraph(14, [answer("", "empty", evidence="He took madeupine 5 mg daily .\n", evidence_start=2)]))
    (tmp_path / name).write_text(json.dumps({"paragraphs": notes, "title": "medication"}))
    task = load_task("emrqa:medications")
    gold = load_gold(task, tmp_path)
    rows = {row["group"]: row for split in gold.values() for row in split}
    assert len(rows) == 14
    assert (rows["0"]["answer"], rows["0"]["other_targets"]) == ("5 mg", ["5 mg daily"])
    assert (rows["13"]["answer"], rows["13"]["other_targets"]) == ("madeupine", [])
    assert rows["14"]["answer"] == "He took madeupine 5 mg daily ."
    assert notes_of(gold) == [f"{name}: rows left out, since they have only answers of several pieces: 1"]
    best = gold["train"].filter(lambda row: row["other_targets"])
    assert score(task, ["5 mg daily"] * len(best), truth(task, best), n_bootstrap=0).values["exact_match"] == 1


def test_a_title_behind_its_notes_is_found_and_an_unknown_one_is_not_shown(tmp_path: Path) -> None:
    subsets = [{"paragraphs": [paragraph(100 * k + n, [answer(f"{title} {n}")]) for n in range(10)], "title": title}
               for k, title in enumerate(("risk-dataset", "medication", "it has a note of a man"))]  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps({"version": 1, "data": subsets}))
    rows = list(as_streaming_dataset(load_task("emrqa:medications"), tmp_path)["rows"])
    assert [row["answer"] for row in rows] == [f"medication {n}" for n in range(10)]
    assert rows[0]["id"] == "10-0-0"
    with pytest.raises(GoldError, match="no subset 'smoking'; it has medications, risk, 1 of another title") as caught:
        load_gold(load_task("emrqa:smoking"), tmp_path)
    assert "a man" not in str(caught.value)
    (tmp_path / "data.json").rename(tmp_path / "smoking-qa.json")
    with pytest.raises(GoldError, match="holds no subset 'smoking'"):  # although its name says so
        write = json.dumps(subsets[1])
        (tmp_path / "smoking-qa.json").write_text(write)
        load_gold(load_task("emrqa:smoking"), tmp_path)


# --- medication, fall_risk ------------------------------------------------------------------------------------------
def test_the_organisers_test_data_are_found(tmp_path: Path) -> None:
    data = WRITERS["medication"](tmp_path) / "data"
    for release, suffixes in {"release1": ("txt",), "release2": ("txt",), "release3": ("txt", "ann")}.items():
        (tmp_path / "n2c2TestData" / release).mkdir(parents=True)
        for file in (data / "dev").iterdir():
            if file.suffix[1:] in suffixes:
                (tmp_path / "n2c2TestData" / release / file.name).write_bytes(file.read_bytes())
    assert counts(load_gold(load_task("medication"), tmp_path)) == {"train": 36, "validation": 36, "test": 36}


def test_a_cloned_repository_is_split_by_patient(tmp_path: Path) -> None:
    table = WRITERS["fall_risk"](tmp_path / "a")
    table.rename(tmp_path / "a" / "training_data.csv")
    (tmp_path / "a" / "README.md").write_text("made up")
    assert set(load_gold(load_task("fall_risk"), tmp_path / "a")) == {"train", "validation", "test"}
    write_csv(tmp_path / "a" / "train.csv", ["text", "label"], [["A fall.", "1"]])
    assert counts(load_gold(load_task("fall_risk"), tmp_path / "a")) == {"train": 1}


# --- files in other wrappings ---------------------------------------------------------------------------------------
def zipped(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, body in files.items():
            packed.writestr(name, body)
    return path


def bodies(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in WRITERS["mednli"](folder).iterdir() if f.is_file()}


def test_files_in_other_wrappings_are_found(tmp_path: Path) -> None:
    files = bodies(tmp_path / "source")
    packed = {f"{name}.gz": gzip.compress(body) for name, body in files.items()}
    for name, body in packed.items():
        (tmp_path / "gz").mkdir(exist_ok=True)
        (tmp_path / "gz" / name).write_bytes(body)
    one = zipped(tmp_path / "one.zip", {f"mednli-1.0.0/{name}": body for name, body in packed.items()})
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as out:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
    zipped(tmp_path / "nested" / "outer.zip", {"inner.zip": one.read_bytes()})
    zipped(tmp_path / "nested tar" / "outer.zip", {"inner.tar.gz": tar.getvalue()})
    zipped(tmp_path / "below" / "mednli" / "mednli-1.0.0.zip", files)
    zipped(tmp_path / "below" / "other" / "other.zip", {"x.csv": b"a,b\n"})
    (tmp_path / "below" / "other" / "broken.zip").write_bytes(b"no zip")
    want = load_gold(MEDNLI, tmp_path / "source")["test"].to_list()
    for place in ("gz", "one.zip", "nested", "nested tar", "below"):
        assert load_gold(MEDNLI, tmp_path / place)["test"].to_list() == want, place
    (tmp_path / "gz" / "mli_dev_v1.jsonl").write_bytes(files["mli_dev_v1.jsonl"])  # unpacked beside the packed one
    assert not next(iter(find_files(MEDNLI, tmp_path / "gz")["validation"]["rows"])).packed
    (tmp_path / "gz" / "mli_test_v1.jsonl.gz").write_bytes(packed["mli_test_v1.jsonl.gz"][:200])
    with pytest.raises(RowError, match=r"mli_test_v1.jsonl.gz: is cut off or broken"):
        load_gold(MEDNLI, tmp_path / "gz")
    (tmp_path / "gz" / "mli_test_v1.jsonl.gz").write_bytes(b"{}")
    with pytest.raises(RowError, match=r"mli_test_v1.jsonl.gz: is no gzip file"):
        load_gold(MEDNLI, tmp_path / "gz")


def test_a_packed_parquet_is_refused_since_it_hides_its_access(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"text": ["made up"], "label": ["a"]})
    rows.to_parquet(tmp_path / "t.parquet")
    packed = tmp_path / "t.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "t.parquet").read_bytes()))
    for read in (read_dataset, lambda path: task_from_table(path, text_columns=["text"], label_column="label")):
        with pytest.raises(RowError, match="t.parquet.gz: is a parquet file packed by gzip; unpack it"):
            read(packed)


def test_a_packed_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_synth.gold.archives._SMALL", 1 << 20)
    for name in bodies(tmp_path / "source"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b" " * (4 << 20)))
    with pytest.raises(RowError, match=r"unpacks to more than 1 MB: not read"):
        load_gold(MEDNLI, tmp_path)
    inner = zipped(tmp_path / "in.zip", {"x": b"1"}).read_bytes()
    monkeypatch.setattr("hf_synth.gold.archives._LONGEST_INNER", 10)
    with pytest.raises(MissingGoldError, match=r"an archive of more than 0 MB in an archive; unpack it"):
        load_gold(MEDNLI, zipped(tmp_path / "out.zip", {"in.zip": inner}))


def test_what_lies_near_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "mli_train.csv", ["Premise", "Hypothesis", "Relation"], [["a", "b", "c"]])
    (tmp_path / "a note on Mr Smith.txt").write_text("made up")
    with pytest.raises(MissingGoldError, match=r"near them lie mli_train.csv, which have another name") as caught:
        load_gold(MEDNLI, tmp_path)
    assert "Smith" not in str(caught.value)


def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(GoldError, match="locked may not be read by you; ask for the rights"):
        load_gold(MEDNLI, tmp_path / "locked")
    with pytest.raises(MissingGoldError, match="its folder locked may not be read by you"):
        load_gold(MEDNLI, tmp_path)


# --- what is said ---------------------------------------------------------------------------------------------------
def test_what_was_left_out_is_said_again_and_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, says = WRITERS["ap_reasoning"](tmp_path / "a"), "they have an empty assessment, plan or relation: 1"
    body = (folder / "dev.csv").read_bytes().replace(b"Person", "Café".encode("cp1252"), 1)
    (folder / "dev.csv").write_bytes(body)
    task = load_task("ap_reasoning")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING, "hf_synth"):
            gold = load_gold(task, folder)
        assert caplog.text.count(says) == 3
        assert "dev.csv is not UTF-8: read as Windows-1252" in caplog.text
    out = write_stage(task, gold, tmp_path / "out", stage="gold")
    manifest = read_manifest(out) or {}
    assert f"train.csv, split train: rows left out, since {says}" in manifest["notes"]
    assert len(manifest["notes"]) == 4
    assert f"- train.csv, split train: rows left out, since {says}" in (out / "README.md").read_text()
    again = read_export(out)
    assert notes_of(again) == notes_of(gold) == manifest["notes"]
    facts = dataset_facts(task, gold["train"], gold_notes=notes_of(again["train"]))
    assert facts["gold_left_out"].startswith(
        "1 of split `train`, since they have an empty assessment, plan or relation;"
    )
    assert "train.csv" not in facts["gold_left_out"]
    assert dataset_facts(task, gold["train"], gold_notes=["split x: rows left out, since they <b>x</b>: 1"])[
        "gold_left_out"
    ] == ""  # fmt: skip


def test_a_wrong_row_is_named_with_file_and_number(tmp_path: Path) -> None:
    folder = WRITERS["mednli"](tmp_path / "a")
    lines = (folder / "mli_dev_v1.jsonl").read_text().splitlines()
    lines[18] = lines[3]
    (folder / "mli_dev_v1.jsonl").write_text("\n".join(lines))
    for read in (lambda: load_gold(MEDNLI, folder), lambda: list(as_streaming_dataset(MEDNLI, folder)["validation"])):
        with pytest.raises(RowError, match=r"^mli_dev_v1.jsonl, row 19: has the id of an earlier row"):
            read()
    write_jsonl(folder / "mli_dev_v1.jsonl", [json.loads(lines[0]) | {"gold_label": "-"}] * 2)
    says = r"^mli_dev_v1.jsonl: split 'validation' of task 'mednli:pair' holds no row \(2 left out, since they have no"
    for read in (lambda: load_gold(MEDNLI, folder), lambda: list(as_streaming_dataset(MEDNLI, folder)["validation"])):
        with pytest.raises(GoldError, match=says):
            read()


def test_streams_go_through_what_datasets_does_to_them(tmp_path: Path) -> None:
    folder = WRITERS["mednli"](tmp_path / "m")
    stream = as_streaming_dataset(MEDNLI, folder)["train"]
    assert stream.features == MEDNLI.gold_features()
    first = load_gold(MEDNLI, folder)["train"][0]
    assert next(iter(stream)) == first
    assert next(iter(stream.map(lambda row: {"n": len(row["premise"])}))) == first | {"n": len(first["premise"])}
    assert next(iter(stream.filter(lambda row: row["label"] == 1)))["label"] == 1
    assert sum(1 for _ in stream.shuffle(seed=1, buffer_size=10)) == 120
    rows = iter(stream)
    ids = [next(rows)["id"] for _ in range(5)]
    stream.load_state_dict(stream.state_dict())
    assert next(iter(stream))["id"] not in ids  # it goes on where it was
    morse = load_task("fall_risk:morse")
    table = write_csv(tmp_path / "morse.csv", ["text", "total"], [["Morse score 45, walks.", "45"]])
    assert [row["text"] for row in as_streaming_dataset(morse, table, mask_leaks=True)["rows"]] == [" , walks."]


def test_registered_tasks_take_what_load_gold_takes(tmp_path: Path) -> None:
    assert "hf_synth/mednli" in hf_synth.register()
    assert hf_synth.register() == hf_synth.register()
    archive = zipped(tmp_path / "mednli.zip", bodies(tmp_path / "source"))
    falls = WRITERS["fall_risk"](tmp_path / "falls")
    for keyword in ("data_dir", "data_files"):
        assert len(load_dataset("hf_synth/mednli", **{keyword: str(archive)})["train"]) == 120
    assert len(load_dataset("hf_synth/fall_risk", data_dir=str(falls))["rows"]) == 60
    stream = load_dataset("hf_synth/mednli", "text2text", data_dir=str(archive), streaming=True)
    assert next(iter(stream["test"]))["target"] == "entailment"
    table = write_csv(tmp_path / "plain.csv", ["a"], [["1"], ["2"]])
    assert len(load_dataset("csv", data_files=str(table), cache_dir=str(tmp_path / "cache"))["train"]) == 2
    text = falls.read_bytes().replace(b";1\r\n", f";{CANARY}\r\n".encode(), 1)
    falls.write_bytes(text)
    with pytest.raises(RowError, match=r"falls.csv, line 3, row 2: column 'Target' holds no known label") as caught:
        load_dataset("hf_synth/fall_risk", data_dir=str(falls))
    assert CANARY not in str(caught.value)
    with pytest.raises(MissingGoldError, match="is no folder or file"):
        load_dataset("hf_synth/mednli", data_dir=str(tmp_path / "nothing"))
