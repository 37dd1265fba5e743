"""Tables as spreadsheets and data tools write them: lines, blanks, delimiters, quotes, encodings, types."""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from support.gold_files import CANARY

from hf_synth.errors import MissingExtraError, RowError
from hf_synth.gold.faults import Faults
from hf_synth.gold.readers import encoding_of
from hf_synth.gold.tables import read_batches, read_table


def read(path: Path, needed: tuple[str, ...] = ("note", "label")) -> list[tuple[int, dict[str, Any]]]:
    faults = Faults(path.name)
    rows = []
    for batch in read_batches(path, faults, needed=needed):
        for i, number in enumerate(batch.numbers):
            rows.append((number, {name: values[i] for name, values in batch.columns.items()}))
    faults.check()
    return rows


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


AS_WRITTEN = [
    "note,label\na,low\nb,high\n",
    "note,label,,\na,low,,\nb,high,,\n",  # Excel's empty columns
    ",note,label\n0,a,low\n1,b,high\n",  # the index of pandas
    "sep=;\r\nnote;label\r\na;low\r\nb;high\r\n",
    '"sep=|"\nnote|label\na|low\nb|high\n',
    "note;label\na;low\nb;high\n",
    "note\tlabel\na\tlow\nb\thigh\n",
    "note|label\na|low\nb|high\n",
    "\ufeffnote,label\na,low\nb,high\n",
    "\nnote,label\na,low\nb,high\n",
    " note , label \na,low\nb,high\n",
    "note,label,remark\na,low\nb,high,seen\n",  # Excel leaves the cells at the end of a row out
    "note,label\na,low,,\nb,high,\n",
    '"no\nte";x\n'.replace('"no\nte";x\n', "note,label\na,low\nnote,label\nb,high\n"),  # two files joined
    "note,label\na,low\nNote , LABEL\nb,high\n",
]


@pytest.mark.parametrize("text", AS_WRITTEN)
def test_a_table_is_read_as_its_owner_means_it(tmp_path: Path, text: str) -> None:
    rows = [row for _, row in read(written(tmp_path / "x.csv", text))]
    assert [(row["note"], row["label"]) for row in rows] == [("a", "low"), ("b", "high")]


def test_rows_without_content_are_passed_over_and_lines_stay_those_of_the_spreadsheet(tmp_path: Path) -> None:
    text = 'note,label\n"a\nb",low\n,\n\n  ,\t\nc,high\n'
    assert [number for number, _ in read(written(tmp_path / "x.csv", text))] == [1, 5]
    with pytest.raises(RowError, match=r"x.csv, line 7 \(8 in an editor\), row 6: has 3 fields where"):
        list(read_table(written(tmp_path / "x.csv", text + "d,low,more\n")))


def test_where_a_cell_has_line_breaks_the_line_of_an_editor_is_named_too(tmp_path: Path) -> None:
    """A spreadsheet counts rows, an editor counts lines."""
    for text, says in (
        ('note,label\na,low\n"b\n\nc",low\nd,low,x\n', "line 4 (6 in an editor), row 3: has 3 fields"),
        (
            'note,label\na,low\n"b\r\nc",low\r\nd,low,x\r\ne,low,x\r\n',
            "lines 4 (5 in an editor), 5 (6 in an editor): has 3",
        ),
        ('"the\nnote",label\na,low\nb,low,x\n', "line 3 (4 in an editor), row 2: has 3 fields"),
        ('note,label\n"b\nc",low\n"d\n,low\ne,low\n', "line 3 (4 in an editor), row 2: the quoting is broken"),
        ('note,label\n"b\nc",low,x\n', "line 2, row 1: has 3 fields"),
        ("sep=;\nnote;label\na;low;x\n", "line 2 (3 in an editor), row 1: has 3 fields"),
    ):
        with pytest.raises(RowError) as caught:
            read(written(tmp_path / "x.csv", text))
        assert says in str(caught.value), text
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.row) == (str(caught.value), caught.value.row)


def test_a_comma_in_the_header_of_a_table_with_semicolons(tmp_path: Path) -> None:
    rows = read(written(tmp_path / "x.csv", "note;label;seen, by\na, b;low;x\nc;high;y\n"))
    assert rows[0][1] == {"note": "a, b", "label": "low", "seen, by": "x"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('note,label\n"{0},low\nb,low\n', "line 2, row 1: .*nothing closes it"),
        ('note,label\n"a "{0}" b",low\n', 'row 1: .*not doubled; write ""'),
        ('note,label\na, "{0}, c",low\n', "row 1: .*blank stands before a quote"),
        ("note,label\n{0} a\nb,low\n", "row 1: has 1 fields where the header has 2; is there a line break"),
        ("note,label\n{0}, a,low\n", "row 1: has 3 fields where the header has 2; is there a separator"),
        ("{0} of May\nnote,label\na,low\n", "has one name in its first line and 2 cells below it; .*title"),
        ("{0},,,,May\nid,day,note,label,by\n1,2,a,low,c\n", "has 2 names in its first line and 5 cells below .*title"),
        ("note,label\n{0}, a, b, c, d,low\n", "row 1: has 6 fields where the header has 2; is there a separator"),
        ("note,label\na,low\nlabel,note\nhigh,b\n", "line 3, row 2: names the columns again in another order"),
        ("note,note,label\na,b,low\n", "names 1 columns more than once"),
    ],
)
def test_the_cause_of_a_fault_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RowError, match=says) as caught:
        read(written(tmp_path / "x.csv", text.format(CANARY)))
    assert CANARY not in str(caught.value)


def test_all_faults_are_in_one_bounded_error(tmp_path: Path) -> None:
    rows = "".join(f"a,low{',x' * (2 + i % 9) if i % 3 else ''}\n" for i in range(3_000))
    with pytest.raises(RowError) as caught:
        read(written(tmp_path / "x.csv", "note,label\n" + rows))
    said = str(caught.value)
    assert said.startswith("x.csv: 2,000 rows cannot be read: lines 3, ")
    for n in (5, 6, 8, 9, 11, 12):  # each width once, with the first of its lines
        assert said.count(f"has {n} fields where the header has 2") == 1
    assert len(said) < 2_500


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_table_has_the_same_encodings(
    tmp_path: Path, suffix: str, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"note": "Über “sechs” à la carte", "label": "naïf"}
    text = "note,label\n" + ",".join(row.values()) if suffix == ".csv" else json.dumps(row, ensure_ascii=False)
    path = written(tmp_path / f"x{suffix}", text + "\n", encoding)
    assert read(path) == [(1, row)]
    assert encoding_of(path) == encoding
    assert len([r for r in caplog.records if "Windows-1252" in r.message]) == (encoding == "cp1252")


def test_lines_of_json_end_at_line_ends_alone(tmp_path: Path) -> None:
    rows = [{"note": "one\u2028two\x85three", "label": 1.0}, {"label": "b", "more": [1]}]
    path = written(tmp_path / "x.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    assert [r for _, r in read(path)] == [rows[0] | {"more": None}, {"note": None} | rows[1]]
    assert [r for _, r in read_table(path)] == [rows[0] | {"more": None}, {"note": None} | rows[1]]
    with pytest.raises(RowError, match=r"must have one object \{...\} in each line"):
        read(written(tmp_path / "y.jsonl", '[\n{"note": "a"}\n]\n'))
    with pytest.raises(RowError, match="2 rows cannot be read: lines 1, 3: is not a line of JSON"):
        read(written(tmp_path / "y.jsonl", 'x\n{"note": "a"}\ny\n'))


def test_labels_of_a_dataset_are_their_names(tmp_path: Path) -> None:
    features = {
        "note": Value("string"),
        "label": ClassLabel(names=["low", "high"]),
        "all": List(ClassLabel(names=["x"])),
    }
    rows = Dataset.from_dict({"note": ["a", "b"], "label": [1, None], "all": [[0], []]}, features=Features(features))
    rows.to_parquet(tmp_path / "x.parquet")
    assert [row for _, row in read(tmp_path / "x.parquet")] == [
        {"note": "a", "label": "high", "all": ["x"]}, {"note": "b", "label": None, "all": []},
    ]  # fmt: skip
    pq.write_table(pa.table({"note": ["a"], "label": [1]}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [(1, {"note": "a", "label": 1})]


def test_a_sheet_of_excel_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (
        ["note", "label", "n", None],
        ["a", "low", 3.0, None],
        [None] * 4,
        ["b", True, 2.5, " "],
        ["c", None, None, "x"],
    ):
        book.active.append(row)
    book.create_sheet("more")
    book.save(tmp_path / "x.xlsx")
    assert read(tmp_path / "x.xlsx", ("note",)) == [
        (1, {"note": "a", "label": "low", "n": 3}), (3, {"note": "b", "label": True, "n": 2.5}),
        (4, {"note": "c", "label": None, "n": None}),
    ]  # fmt: skip
    (tmp_path / "y.xlsx").write_bytes(b"PK" + bytes(50))
    with pytest.raises(RowError, match="cannot be read as an Excel sheet"):
        read(tmp_path / "y.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hf_synth\[excel\]'"):
        read(tmp_path / "x.xlsx")


def test_a_title_above_an_excel_table_is_named(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["Visits of May"], [], ["note", "label"], ["a", "low"]):
        book.active.append(row)
    book.save(tmp_path / "x.xlsx")
    with pytest.raises(
        RowError, match="has one name in its first line and 2 cells below it; if that line is a title"
    ) as told:
        read(tmp_path / "x.xlsx")
    assert "quotes" not in str(told.value), "Excel knows none"


def test_the_first_of_several_sheets_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["note", "label"], ["a", "low"]):
        book.active.append(row)
    book.create_sheet("more")
    book.save(tmp_path / "sheets.xlsx")
    assert read(tmp_path / "sheets.xlsx") == read(tmp_path / "sheets.xlsx")
    assert caplog.text.count("has 2 sheets: its first one is read") == 1


def test_a_json_list_in_one_line_is_refused_with_what_a_line_must_hold(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", json.dumps([{"note": "a", "label": "low"}]))
    with pytest.raises(RowError, match="is not a JSON object .* the file must have one object .* in each line"):
        read(path)


def test_columns_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "id,note,label,id\n1,a,low,2\n")
    [batch] = read_batches(path, needed=("note",))
    assert list(batch.columns.items()) == [("id", ("1",)), ("note", ("a",)), ("label", ("low",))]


def test_without_openpyxl_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hf_synth\[excel\]'"):
        list(read_table(written(tmp_path / "x.xlsx", "x")))
    with pytest.raises(RowError, match="save it as .xlsx or .csv"):
        list(read_table(written(tmp_path / "x.xls", "x")))


def test_a_batch_holds_some_rows_however_large_the_table(tmp_path: Path) -> None:
    text = io.StringIO()
    for i in range(5_000):
        text.write(f"{'word ' * (2_000 if i < 50 else 3)},low\n")
    path = written(tmp_path / "x.csv", "note,label\n" + text.getvalue())
    sizes = [len(b.numbers) for b in read_batches(path)]
    assert sum(sizes) == 5_000
    assert max(sizes) == 1_000
