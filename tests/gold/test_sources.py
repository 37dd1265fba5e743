"""Sources and readers: odd layouts that are fine, hostile ones that are refused, and a fuzz of every reader."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import random
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.gold_files import CANARY, WRITERS, note, options, write_csv, write_gold, write_jsonl
from support.gold_files import obesity as write_obesity

from hf_synth.errors import GoldError, HfSynthError, MissingGoldError, RowError, TaskError
from hf_synth.gold.gold import as_streaming_dataset, load_gold
from hf_synth.gold.json_values import json_items
from hf_synth.gold.markup import read_brat, xml_elements
from hf_synth.gold.readers import open_text, read_text
from hf_synth.gold.sources import SourceFile, all_files, digest_files, find_files, list_source
from hf_synth.gold.tables import read_csv, read_jsonl, read_table
from hf_synth.task.scripts import list_tasks, load_task

MEDNLI = load_task("mednli")
FILES = [t for t in list_tasks() if t.files]
ONE_EACH = [t for i, t in enumerate(FILES) if t.name not in {u.name for u in FILES[:i]}]


def members(archive: Path) -> list[str]:
    return [f.inside for f in list_source(archive)]


# --- what is fine ---------------------------------------------------------------------------------------------------
def test_files_are_found_wherever_they_lie(tmp_path: Path) -> None:
    WRITERS["mednli"](tmp_path / "download" / "physionet.org" / "files" / "MedNLI")
    assert len(load_gold(MEDNLI, tmp_path / "download")["train"]) == 120


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    source = WRITERS["mednli"](tmp_path / "store" / "mednli")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link").symlink_to(source)
    (source / "loop").symlink_to(tmp_path / "mine")
    assert len(load_gold(MEDNLI, tmp_path / "mine")["train"]) == 120


def test_files_may_lie_in_several_archives_of_a_folder(tmp_path: Path) -> None:
    source = WRITERS["medication"](tmp_path / "source")
    out = tmp_path / "portal"
    out.mkdir()
    for split in ("train", "dev"):
        with zipfile.ZipFile(out / f"{split}data.zip", "w") as packed:
            for file in (source / "data" / split).iterdir():
                packed.write(file, f"{split}/{file.name}")
    gold = load_gold(load_task("medication"), out)
    assert {s: len(r) for s, r in gold.items()} == {"train": 36, "validation": 36}


def test_both_layouts_of_the_obesity_challenge_are_one(tmp_path: Path) -> None:
    task = load_task("obesity")
    one = load_gold(task, write_obesity(tmp_path / "a"))
    two = load_gold(task, write_obesity(tmp_path / "b", by_source=True))
    first, second = ({r["id"]: r["label"] for r in gold["train"]} for gold in (one, two))
    assert set(second) < set(first)  # only the first has the addendum
    added = set(first) - set(second)
    assert len(added) == 1
    assert all(first[id] == label for id, label in second.items() if "cad" not in id)
    assert [task.labels[first[id]] for id in added] == ["Q"]
    changed = [id for id in second if first[id] != second[id]]
    assert [task.labels[first[id]] for id in changed] == ["U"]
    assert "OA" not in one["train"]["hypothesis"]
    assert {"asthma", "coronary artery disease", "venous insufficiency"} == set(one["train"]["hypothesis"])
    assert "& so on" in one["train"][0]["premise"]


def test_a_missing_judgment_is_no_row(tmp_path: Path) -> None:
    gold = load_gold(load_task("obesity:intuitive"), write_obesity(tmp_path / "a"))
    ids = set(gold["train"]["id"])
    judged = {id.rsplit("-", 1)[0] for id in ids}
    assert len(ids) < 3 * len(judged)


def test_what_a_source_leaves_open_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hf_synth"):
        load_gold(MEDNLI, WRITERS["mednli"](tmp_path / "a"))
        load_gold(load_task("ap_reasoning"), WRITERS["ap_reasoning"](tmp_path / "b"))
        load_gold(load_task("fall_risk"), WRITERS["fall_risk"](tmp_path / "c"))
        load_gold(load_task("medication:certainty"), WRITERS["medication"](tmp_path / "d"))
        load_gold(load_task("obesity"), write_obesity(tmp_path / "e"))
    said = "\n".join(caplog.messages)
    assert "mli_train_v1.jsonl, split train: rows left out, since they have no agreed label: 1" in said
    assert "train.csv, split train: rows left out, since they have an empty assessment, plan or relation: 1" in said
    assert "falls.csv is not UTF-8: read as Windows-1252 (latin-1)" in said
    assert "repeat an earlier note with its label: 1" in said
    assert "are judged notes that no file of records holds: 1" in said
    assert CANARY not in said


def test_the_misspelled_attribute_is_read(tmp_path: Path) -> None:
    gold = load_gold(load_task("medication:certainty"), WRITERS["medication"](tmp_path / "d"))
    assert len(set(gold["train"]["label"])) == 4
    negation = load_gold(load_task("medication:negation"), tmp_path / "d")
    assert len(negation["train"]) == len(gold["train"]) - 1  # one change lacks that attribute
    text = gold["train"][0]["text"]
    assert text.count("[[madeupine") == 1
    assert len(text) < 800


def test_a_mention_stands_where_the_window_says(tmp_path: Path) -> None:
    folder = WRITERS["medication"](tmp_path / "d")
    for around in (20, 300, 10_000):
        rows = load_gold(load_task("medication"), folder, around=around)["train"]
        assert all(r["text"].count("[[") == r["text"].count("]]") == 1 for r in rows)
        assert {r["text"].split("[[")[1].split("]]")[0] for r in rows} == {f"madeupine {m}" for m in range(1, 10)}
        shortest = min(len(r["text"]) for r in rows)
        assert shortest <= 2 * around + 15


def test_emrqa_reads_a_subset_of_either_layout(tmp_path: Path) -> None:
    task = load_task("emrqa:relations")
    whole = load_gold(task, WRITERS["emrqa"](tmp_path / "a"))
    data = json.loads((tmp_path / "a" / "data.json").read_text(encoding="utf-8-sig"))
    (tmp_path / "b").mkdir()
    subset = next(d for d in data["data"] if d["title"] == "relations")
    (tmp_path / "b" / "relations-qa.json").write_text(json.dumps({"data": [subset]}))
    alone = load_gold(task, tmp_path / "b")
    kept = ["question", "context", "answer", "group"]
    both = [sorted(map(str, (r for s in g.values() for r in s.select_columns(kept).to_list()))) for g in (whole, alone)]
    assert both[0] == both[1]
    everything = list(as_streaming_dataset(task, tmp_path / "a", wordings="all")["rows"])
    assert len(everything) == 24 * 3
    blocks = list(as_streaming_dataset(task, tmp_path / "a", context_lines=2)["rows"])
    assert all(b["answer"] in b["context"].replace("\n", " ") for b in blocks)
    assert max(len(b["context"]) for b in blocks) < max(len(r["context"]) for r in everything)
    with pytest.raises(GoldError, match="holds no subset 'smoking'; it has relations"):
        load_gold(load_task("emrqa:smoking"), _as_data(tmp_path / "c", {"data": [subset]}))


def _as_data(folder: Path, data: object) -> Path:
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps(data))
    return folder


def test_the_morse_fall_scale_is_added_up(tmp_path: Path) -> None:
    task = load_task("fall_risk:morse")
    path = WRITERS["fall_risk"](tmp_path / "a", "morse")
    gold = load_gold(task, path)
    assert set(gold["train"]["label"]) == {0, 1, 2}
    strict = load_gold(task, path, moderate_from=15, high_from=35)
    assert 0 not in strict["train"]["label"]
    header = ["text", "total"]
    assert load_gold(task, write_csv(tmp_path / "train.csv", header, [["Made up.", "45"]]).parent)["train"][
        "label"
    ] == [2]
    for rows, says in (([["Made up.", "44"]], "steps of 5"), ([["Made up.", ""]], "steps of 5")):
        with pytest.raises(RowError, match=says):
            load_gold(task, write_csv(tmp_path / "x.csv", header, rows))
    lacking = write_csv(tmp_path / "y.csv", ["text", "gait"], [["Made up.", "10"]])
    with pytest.raises(RowError, match="lacks items of the Morse Fall Scale: .*mental_status"):
        load_gold(task, lacking)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, ends: str) -> None:
    text = f'id,text{ends}1,"Café à la “carte”,{ends}second line"{ends}2,NA{ends}'
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    rows = [row for _, row in read_csv(tmp_path / "x.csv")]
    assert rows == [{"id": "1", "text": f"Café à la “carte”,{ends}second line"}, {"id": "2", "text": "NA"}]


def test_a_note_of_200_000_characters(tmp_path: Path) -> None:
    long = " ".join(note(n) for n in range(1200))[:200_000]
    header = ["File ID", "Assessment", "Summary", "Subjective Sections", "Objective Sections"]
    write_csv(tmp_path / "BioNLP2023-1A-Train.csv", header, [["1", long, "a; b", "", ""]])
    gold = load_gold(load_task("problem_summary"), tmp_path)
    assert gold["train"]["document"] == [long]


# --- what is refused ------------------------------------------------------------------------------------------------
def test_a_second_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    WRITERS["mednli"](tmp_path / "x" / "old")
    WRITERS["mednli"](tmp_path / "x" / "new")
    with pytest.raises(GoldError, match=r"mli_train_v1.jsonl more than once \(new/.* and old/"):
        load_gold(MEDNLI, tmp_path / "x")


@pytest.mark.parametrize("task", ONE_EACH, ids=lambda t: t.name)
def test_missing_files_are_all_named(task: object, tmp_path: Path) -> None:
    assert hasattr(task, "files")
    with pytest.raises(MissingGoldError) as caught:
        load_gold(task, tmp_path)  # type: ignore[arg-type]
    said = str(caught.value)
    assert str(tmp_path) in said
    assert task.source_url in said
    optional = set(task.optional_files)
    for key, names in task.files.items():
        assert (names[0] in said) == (not {key, key.split("/")[0]} & optional)


def test_half_an_optional_split_is_named(tmp_path: Path) -> None:
    folder = write_obesity(tmp_path / "a")
    (folder / "obesity_standoff_annotations_test.xml").unlink()
    with pytest.raises(MissingGoldError, match=r"test/annotations \(\*\*/obesity_standoff"):
        load_gold(load_task("obesity"), folder)
    (folder / "obesity_patient_records_test.xml").unlink()
    assert set(load_gold(load_task("obesity"), folder)) == {"train"}


def test_an_unknown_option_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"cannot be read with these options \(nonsense\)"):
        load_gold(MEDNLI, WRITERS["mednli"](tmp_path / "a"), nonsense=1)


def test_members_that_point_outside_are_passed_over(tmp_path: Path) -> None:
    body = json.dumps({"pairID": "1", "sentence1": "a", "sentence2": "b", "gold_label": "neutral"}).encode()
    names = ["../mli_train_v1.jsonl", "/mli_train_v1.jsonl", "a/../../mli_train_v1.jsonl", "C:\\mli_train_v1.jsonl",
             "..\\mli_train_v1.jsonl", "__MACOSX/mli_train_v1.jsonl", ".hidden/mli_train_v1.jsonl", "dir/"]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name in names:
            packed.writestr(zipfile.ZipInfo(name), b"" if name.endswith("/") else body)
        link = zipfile.ZipInfo("linked/mli_train_v1.jsonl")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    assert members(tmp_path / "a.zip") == []
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
        for kind, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "../x"), (tarfile.FIFOTYPE, "")):
            info = tarfile.TarInfo(f"odd{ord(kind)}/mli_train_v1.jsonl")
            info.type, info.linkname = kind, target
            tar.addfile(info)
    assert members(tmp_path / "a.tar.gz") == []
    with pytest.raises(MissingGoldError):
        load_gold(MEDNLI, tmp_path)
    assert not (tmp_path.parent / "mli_train_v1.jsonl").exists()


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    size = 150 << 20
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("mli_train_v1.jsonl", "w") as out:
            for _ in range(size >> 20):
                out.write(b"\0" * (1 << 20))
        packed.writestr("mli_dev_v1.jsonl", "")
        packed.writestr("mli_test_v1.jsonl", "")
    with pytest.raises(RowError, match=r"unpacks to 150 MB, .* times its size: not read"):
        load_gold(MEDNLI, tmp_path / "a.zip")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("mli_train_v1.jsonl")
        info.size = size
        tar.addfile(info, _Zeros(size))
    with pytest.raises(RowError, match="unpacks to"):
        load_gold(MEDNLI, tmp_path / "b.tar.gz")


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        given = min(size, self._left)
        self._left -= given
        return b"\0" * given


def test_a_large_tar_is_read_without_holding_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_synth.gold import archives

    folder = WRITERS["mednli"](tmp_path / "a")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(folder, "mednli")
    small = {s: r.to_list() for s, r in load_gold(MEDNLI, tmp_path / "a.tar.gz").items()}
    monkeypatch.setattr(archives, "_IN_MEMORY", 1_000)
    archives._archive.cache_clear()
    os.rename(tmp_path / "a.tar.gz", tmp_path / "b.tgz")
    assert {s: r.to_list() for s, r in load_gold(MEDNLI, tmp_path / "b.tgz").items()} == small


def test_nested_and_broken_archives_are_one_sentence(tmp_path: Path) -> None:
    folder = WRITERS["mednli"](tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as packed:
        for file in folder.iterdir():
            if file.is_file():
                packed.write(file, file.name)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as packed:
        packed.write(tmp_path / "inner.zip", "inner.zip")
    assert len(load_gold(MEDNLI, tmp_path / "outer.zip")["train"]) == 120
    with zipfile.ZipFile(tmp_path / "outermost.zip", "w") as packed:
        packed.write(tmp_path / "outer.zip", "outer.zip")
    with pytest.raises(MissingGoldError, match="1 archives in an archive's archive are not searched: unpack them"):
        load_gold(MEDNLI, tmp_path / "outermost.zip")
    whole = (tmp_path / "inner.zip").read_bytes()
    for name, body in {"cut.zip": whole[: len(whole) // 2], "no.zip": b"no zip", "no.tar.gz": b"no gzip", "e.tar": b"",
                       "cut.tar.gz": gzip.compress(b"x" * 5000)[:40]}.items():  # fmt: skip
        (tmp_path / name).write_bytes(body)
        with pytest.raises((RowError, MissingGoldError), match=name.split(".")[0]):
            load_gold(MEDNLI, tmp_path / name)


def test_a_locked_archive_is_one_sentence(tmp_path: Path) -> None:
    folder = WRITERS["mednli"](tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for file in folder.iterdir():
            if file.is_file():
                packed.write(file, file.name)
    body = bytearray((tmp_path / "a.zip").read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says: encrypted
        start = 0
        while (start := body.find(mark, start)) >= 0:
            body[start + at] |= 1
            start += 4
    (tmp_path / "a.zip").write_bytes(body)
    with pytest.raises(RowError, match="protected by a password"):
        load_gold(MEDNLI, tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (
            '<!DOCTYPE d [<!ENTITY a "b">]><root><docs><doc id="1"><text>&a;</text></doc></docs></root>',
            "DTD or entities",
        ),
        ('<!DOCTYPE d SYSTEM "http://127.0.0.1/x.dtd"><root></root>', "DTD or entities"),
        ("<root><docs><doc id='1'><text>" + CANARY, "not well-formed"),
        (f"<root><docs><doc><text>{CANARY}</text></doc></docs></root>", "row 1: is a doc without id"),
        (f"<root>{CANARY}</root>", "holds no doc"),
    ],
)
def test_odd_xml_is_refused(tmp_path: Path, xml: str, says: str) -> None:
    folder = write_obesity(tmp_path / "a")
    (folder / "obesity_patient_records_training.xml").write_text(xml)
    with pytest.raises(RowError, match=says) as caught:
        load_gold(load_task("obesity"), folder)
    assert CANARY not in str(caught.value)


def test_notes_and_annotations_must_belong_together(tmp_path: Path) -> None:
    folder = WRITERS["medication"](tmp_path / "d")
    file = sorted((folder / "data" / "train").glob("1*.txt"))[0]
    file.write_bytes(b"One word more. " + file.read_bytes())
    with pytest.raises(RowError, match=r"T1 does not stand in the note where its offsets say"):
        load_gold(load_task("medication"), folder)
    file.with_suffix(".ann").unlink()
    with pytest.raises(RowError, match="has no annotations beside it"):
        load_gold(load_task("medication"), folder)


def test_a_file_without_a_header_shows_no_text(tmp_path: Path) -> None:
    rows = [[f"Seen today is {CANARY} with a long story of many words that nobody may read in an error.", "2"]] * 3
    write_csv(tmp_path / "train.csv", rows[0], rows)
    with pytest.raises(RowError, match="does its first line name its columns") as caught:
        load_gold(load_task("esophagitis"), tmp_path)
    assert CANARY not in str(caught.value)


# --- fuzz -----------------------------------------------------------------------------------------------------------
QUIET = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def _consume(path: Path) -> None:
    """Read a file by every reader; each must end, in rows or in an error of ours."""
    for read in (read_csv, read_jsonl, lambda p: json_items(p, "data.item"), lambda p: xml_elements(p, "doc"),
                 lambda p: [read_brat(p)], lambda p: [read_text(p)], lambda p: open_text(p).readlines()):  # fmt: skip
        try:
            for _ in read(path):
                pass
        except HfSynthError as error:
            assert CANARY not in str(error)
        except UnicodeError:  # UTF-16 that goes wrong in the middle, read by hand
            assert path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff")


@QUIET
@given(st.binary(max_size=3_000))
def test_random_bytes_never_give_a_traceback(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.csv"
    path.write_bytes(body)
    _consume(path)
    (path.parent / "x.parquet").write_bytes(b"PAR1" + body + b"PAR1")
    with pytest.raises(RowError, match="cannot be read as parquet"):
        list(read_table(path.parent / "x.parquet"))
    for name in ("x.zip", "x.tar.gz", "x.tar"):
        (path.parent / name).write_bytes(body)
        try:
            for file in list_source(path.parent / name):
                file.open().read()
        except HfSynthError:
            pass


@QUIET
@given(st.text(max_size=300), st.integers(0, 3_000), st.sampled_from(ONE_EACH))
def test_a_mangled_source_gives_rows_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, junk: str, at: int, task: object
) -> None:
    """Cut a file, put junk into it, turn a value around: an error of ours, or rows that keep the contract."""
    assert hasattr(task, "files")
    folder = tmp_path_factory.mktemp("fuzz")
    path = write_gold(task, folder / "source")  # type: ignore[arg-type]
    assert path is not None
    rng = random.Random(f"{junk}{at}")
    file = rng.choice([f.path for f in all_files(find_files(task, path))])  # type: ignore[arg-type]
    body = file.read_bytes()
    at = at % (len(body) + 1)
    mangled = {
        "cut": body[:at],
        "junk": body[:at] + junk.encode("utf-8", "replace") + body[at:],
        "bytes": body[:at] + rng.randbytes(20) + body[at + 20 :],
        "null": body.replace(b'"gold_label": "neutral"', b'"gold_label": null', 1).replace(b"[", b"{", 1),
    }[rng.choice(["cut", "junk", "bytes", "null"])]
    file.write_bytes(mangled)
    try:
        splits = as_streaming_dataset(task, path)  # type: ignore[arg-type]
        rows = [row for split in splits.values() for row in split]
    except HfSynthError as error:
        assert CANARY not in str(error)
        return
    features = task.gold_features()  # type: ignore[attr-defined]
    for row in rows:
        assert set(row) == set(features)
        assert all(isinstance(row[c], str) and row[c].strip() for c in (*task.text_columns, "id"))  # type: ignore[attr-defined]
        if task.labels:  # type: ignore[attr-defined]
            assert 0 <= row[task.label_column] < len(task.labels)  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ONE_EACH, ids=lambda t: t.name)
def test_wrong_types_are_one_sentence(task: object, tmp_path: Path) -> None:
    """JSON whose values have other types, tables with one column: no traceback, no silent row."""
    assert hasattr(task, "files")
    path = write_gold(task, tmp_path / "source")  # type: ignore[arg-type]
    assert path is not None
    file = next(all_files(find_files(task, path))).path  # type: ignore[arg-type]
    bodies = {
        ".jsonl": ["[]\n", "3\n", '{"question": 3}\n', "null\n", "{" * 100_000],
        ".json": ["[]", "{}", '{"data": 3}', '{"data": [{"title": 3, "paragraphs": [3]}]}', "[" * 100_000],
        ".csv": ["a\n1\n", "\n\n", ",,,\n,,,\n", "a,a\n1,2\n"],
        ".xml": ["<a/>", "<root><docs/></root>", "<doc>" * 50_000],
        ".ann": ["T1", "T1\tDrug x y\tz", "E1\tDisposition:T9"],
        ".txt": ["", " "],
        "": ["", " "],
    }[file.suffix]
    for body in bodies:
        file.write_text(body)
        try:
            load_gold(task, path, **options(task))  # type: ignore[arg-type]
        except HfSynthError as error:
            assert len(str(error)) < 600
        else:
            assert file.suffix in (".txt", "", ".csv")
            pytest.fail("rows came of a file that holds none") if file.suffix == ".csv" else None


def test_a_source_file_can_be_pickled(tmp_path: Path) -> None:
    import pickle

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("x/mli_train_v1.jsonl", "{}")
    file = list_source(tmp_path / "a.zip")[0]
    again = pickle.loads(pickle.dumps(file))
    assert again == file
    assert again.open().read() == b"{}"
    assert again.name == "a.zip/mli_train_v1.jsonl"
    assert replace(file, inside="y") == SourceFile(file.path, file.member, "y")


def test_a_file_that_goes_away_is_one_sentence(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "x.jsonl", [{"a": 1}])
    source = list_source(tmp_path)[0]
    file.unlink()
    with pytest.raises(RowError, match="is not there any more"):
        list(read_jsonl(source))


def test_a_digest_is_of_names_contents_and_strings(tmp_path: Path) -> None:
    for name, text in (("a.csv", "note"), ("b.csv", "note"), ("c.csv", "other")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    first = digest_files("version 1", a)
    assert len({first, digest_files("version 2", a), digest_files(a), digest_files("version 1", b)}) == 4
    a.write_text(c.read_text())
    assert digest_files("version 1", a) != first
