"""XML and brat files: what is read, and the cause of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_synth.errors import RowError
from hf_synth.gold.gold import load_gold
from hf_synth.gold.markup import annotated_text, read_brat, xml_elements
from hf_synth.gold.readers import read_text
from hf_synth.task.scripts import load_task

SECRET = "SECRET"


def note(folder: Path, text: str, annotations: str, encoding: str = "utf-8") -> Path:
    """Write one note with its annotations as train and dev split."""
    for split in ("train", "dev"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / split / "1.txt").write_bytes(text.encode(encoding))
        (folder / split / "1.ann").write_bytes(annotations.encode())
    return folder


def event(span: str, text: str) -> str:
    return f"T1\tDisposition {span}\t{text}\nE1\tDisposition:T1\nA1\tAction E1 Start\n"


# --- brat -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "span", "mention", "marked"),
    [
        ("She takes madeupine 5 mg.", "10 19", "madeupine", "She takes [[madeupine]] 5 mg."),
        ("She takes madeupine\x0c5 mg.", "10 21", "madeupine\x0c5", "She takes [[madeupine\x0c5]] mg."),
        ("She takes madeupine\u20285 mg.", "10 21", "madeupine\u20285", "She takes [[madeupine\u20285]] mg."),
        ("She takes madeupine\x855 mg.", "10 21", "madeupine\x855", "She takes [[madeupine\x855]] mg."),
        # pieces: joined by a blank in the file
        ("She takes madeupine or inventol XR.", "10 19;32 34", "madeupine XR", "[[madeupine or inventol XR]]"),
        # offsets that count the line end of Windows as one character, as brat does, or as two
        ("Seen.\r\nShe takes madeupine.", "16 25", "madeupine", "Seen.\nShe takes [[madeupine]]."),
        ("Seen.\r\nShe takes madeupine.", "17 26", "madeupine", "Seen.\r\nShe takes [[madeupine]]."),
    ],
)
def test_a_mention_is_read_where_it_stands(tmp_path: Path, text: str, span: str, mention: str, marked: str) -> None:
    gold = load_gold(load_task("medication:action"), note(tmp_path, text, event(span, mention)))
    assert len(gold["train"]) == 1
    assert marked in gold["train"][0]["text"]


@pytest.mark.parametrize(
    ("text", "annotations", "says"),
    [
        # the outermost offsets cover a text, the pieces another one
        (f"{SECRET} in clinic. She takes madeupine and inventol.", event("0 6;7 9", "madeupine inventol"),
         "1.ann, row 1: T1 does not stand in the note where its offsets say; are both of one release"),
        ("é é She takes madeupine.", event("16 25", "madeupine"), "they count bytes of UTF-8 instead of characters"),
        ("\U0001f600 She takes madeupine.", event("13 22", "madeupine"), "they count UTF-16 units"),
        ("She takes madeupine.", event("10 19", "madeupine").replace("Disposition", "Maybe"),
         r"1.ann, row 2: is an event of an unknown type; expected one of Disposition, NoDisposition, Undetermined"),
        ("She takes madeupine.", event("10 19", "madeupine").replace("Start", SECRET),
         r"1.ann, row 3: is an unknown value of Action; expected one of Start, Stop"),
        ("She takes madeupine.", event("10 19", "madeupine").replace("Disposition:T1", "Disposition:T7"),
         r"1.ann, row 2: event E1 refers to T7, which is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, annotations: str, says: str) -> None:
    with pytest.raises(RowError, match=says) as caught:
        load_gold(load_task("medication:action"), note(tmp_path, text, annotations))
    assert SECRET not in str(caught.value)


def test_each_piece_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.ann").write_text("T1\tDrug 0 2;5 7\tab cd\nA1\tAction T1 Start\n")
    brat = read_brat(tmp_path / "a.ann")
    assert brat.spans["T1"].pieces == ((0, 2), (5, 7))
    assert (brat.spans["T1"].start, brat.spans["T1"].end) == (0, 7)
    assert brat.lines == {"T1": 1, ("T1", "Action"): 2}
    assert annotated_text(tmp_path / "a.ann", "ab - cd", brat) == "ab - cd"


def test_line_ends_of_old_macs_and_a_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.ann").write_bytes(b"\xef\xbb\xbfT1\tDrug 0 2\tab\rT2\tDrug 3 5\tcd\r")
    assert list(read_brat(tmp_path / "a.ann").spans) == ["T1", "T2"]
    (tmp_path / "a.txt").write_bytes(b"ab\rcd")
    assert read_text(tmp_path / "a.txt") == "ab\rcd"


# --- XML ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<root>\n<doc>SECRET & more</doc></root>", r"line 2\): a bare & stands in the line"),
        (b"<root>\n<doc>SECRET &nbsp; more</doc></root>", r"line 2\): a bare & stands in the line"),
        (b"<root><doc>HR < 60 SECRET</doc></root>", r"line 1\): a bare < stands in the line"),
        (b"<root><doc>SECRET\x0b</doc></root>", "holds a control character"),
        (b"<root><doc>SECRET caf\xe9</doc></root>", "is not UTF-8, and the file names no other encoding"),
        (b"<root><doc>SECRET</doc>", "the file ends too early; is it whole"),
        (b"", "the file is empty"),
        (b"<root><doc>SECRET</root>", "an element is closed by another's name"),
        (b"<root><!-- SECRET -- SECRET --></root>", "a comment holds two hyphens"),
        (b"<root/><root/>", "something follows the outermost element"),
        (b"\n<?xml version='1.0'?><root/>", "something stands before <.xml"),
    ],
)
def test_broken_xml_is_refused_with_its_cause(tmp_path: Path, body: bytes, says: str) -> None:
    (tmp_path / "a.xml").write_bytes(body)
    with pytest.raises(RowError, match=says) as caught:
        list(xml_elements(tmp_path / "a.xml", "doc"))
    assert SECRET not in str(caught.value)
    assert "download" not in str(caught.value)


def test_a_second_note_of_one_id_is_left_out_and_said(tmp_path: Path) -> None:
    docs = "".join(f'<doc id="{n % 12}"><text>Note number {n}.</text></doc>' for n in range(13))
    (tmp_path / "obesity_patient_records_training.xml").write_text(f"<root><docs>{docs}</docs></root>")
    judged = "".join(f'<doc id="{n}" judgment="Y"/>' for n in range(12))
    (tmp_path / "obesity_standoff_annotations_training.xml").write_text(
        f'<diseaseset><diseases source="textual"><disease name="Gout">{judged}</disease></diseases></diseaseset>'
    )
    from hf_synth.task.folders import notes_of

    gold = load_gold(load_task("obesity"), tmp_path)
    assert len(gold["train"]) == 12
    assert notes_of(gold) == [
        "obesity_patient_records_training.xml, split train: rows left out, since they are notes with the id of an "
        "earlier note: 1"
    ]
