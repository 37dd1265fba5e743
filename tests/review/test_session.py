"""A reviewer's session: which notes come, what is recorded, the figures, and the table that `correct` reads."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.review_rows import review_task, synthetic, write_folder
from support.tiny import toy_rows

from hf_synth.correction.audited import read_audited, read_ids, read_labels, read_rejected
from hf_synth.correction.label_error import expected_rows
from hf_synth.errors import AccessError, ColumnError, OutputError
from hf_synth.gold.adoption import read_dataset
from hf_synth.review.decisions import Decisions
from hf_synth.review.promise_sheet import begin_promise, load_promise, read_promise
from hf_synth.review.realism import draw_realism, load_realism, realism_summary, save_realism
from hf_synth.review.session import Session, WrongDecision, checked_name
from hf_synth.review.sheets import SampleSheet, draw_sheet, load_sheet, save_sheet, sizes_per_label
from hf_synth.task.folders import write_stage

TASK = review_task()


class Desk:
    """A folder of notes with a sample, and sessions on it that are closed in the end."""

    def __init__(self, folder: Path, n: int = 12, by: tuple[str, ...] = ("label",)) -> None:
        self.folder, self.open = folder, []
        self.truth = write_folder(folder, 40)
        self.sheet: Any = draw_sheet(TASK, read_dataset(folder), n, by=by)

    def sit(self, name: str = "Anna", **more: Any) -> Session:
        session = Session(TASK, self.folder, more.pop("sheet", self.sheet), name, **more)
        self.open.append(session)
        return session

    def rise(self) -> None:
        for session in self.open:
            session.close()
        self.open.clear()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "syn")
    yield desk
    desk.rise()


def answer(session: Session, do: str, queue: str = "open", **more: str) -> str:
    """Answer the note that the queue shows; return its row id."""
    view = session.view(queue)
    assert view.item is not None
    form = {"do": do, "key": view.key, "count": str(view.count), "queue": queue}
    assert session.decide(form | more) == ""
    return view.item.id


def undo(session: Session) -> str:
    return session.decide({"do": "undo", "count": str(session.own.count)})


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


# --- the order ------------------------------------------------------------------------------------------------------
def test_the_order_tells_nothing(desk: Desk) -> None:
    """Neither ids nor strata nor labels stand in it, and it is the same for every reviewer."""
    sheet = draw_sheet(TASK, read_dataset(desk.folder), 36)
    order = list(sheet.items)
    assert list(draw_sheet(TASK, read_dataset(desk.folder), 36).items) != order, "no seed leads to the order"
    assert order != sorted(order)
    labels = [sheet.items[id].label for id in order]
    changes = sum(a != b for a, b in pairwise(labels))
    assert changes > 12, "labels do not stand in blocks"
    assert draw_sheet(TASK, read_dataset(desk.folder), 36).items == sheet.items
    session = desk.sit(sheet=sheet)
    view = session.view()
    assert view.item is not None
    guessed = {hashlib.sha256(f"{s}{id}".encode()).hexdigest()[:16] for id in order for s in ("", "0\x1f")}
    assert view.key[:16] not in guessed
    assert desk.sit("Ben", sheet=sheet).view().key != view.key


def test_per_label_is_at_most_what_there_is() -> None:
    rows, _ = synthetic(40)
    counts = Counter(TASK.labels[label] for label in rows["llm_label"])
    assert sizes_per_label(TASK, rows, 5) == 15
    assert sizes_per_label(TASK, rows, 1_000) == 40
    middle = sorted(counts.values())[1]
    assert sizes_per_label(TASK, rows, middle) == sum(min(middle, count) for count in counts.values())
    with pytest.raises(ColumnError, match="ask for 2 notes of each label or more, not 1"):
        sizes_per_label(TASK, rows, 1)


def test_a_sample_outlives_the_process_and_new_labels_but_no_other_texts(desk: Desk, tmp_path: Path) -> None:
    rows, file = read_dataset(desk.folder), tmp_path / "review" / "sheet.json"
    save_sheet(TASK, desk.sheet, file)
    assert file.stat().st_mode & 0o077 == 0
    assert load_sheet(TASK, rows, file) == desk.sheet
    assert not any(text in file.read_text() for text in rows["text"]), "texts are not written again"
    first = next(iter(desk.sheet.items))

    relabelled = rows.map(lambda row: {"label": 2} if row["id"] == first else {})
    assert load_sheet(TASK, relabelled, file).items[first].label == "severe"
    edited = rows.map(lambda row: {"text": row["text"] + " more"} if row["id"] == first else {})
    for others in (edited, rows.select(range(30)), rows.map(lambda row: {"id": f"other {row['id']}"})):
        with pytest.raises(OutputError, match="the folder holds other notes than when the review began"):
            load_sheet(TASK, others, file)
    with pytest.raises(OutputError, match="is of task 'toy', not 'another'"):
        load_sheet(replace(TASK, name="another"), rows, file)
    file.write_text('{"review": 1, "task": "toy", "rows": [[1]]}', encoding="utf-8")
    with pytest.raises(OutputError, match="is broken: move it away"):
        load_sheet(TASK, rows, file)


def test_decisions_on_other_texts_with_the_same_ids_are_not_taken(desk: Desk) -> None:
    """As when the notes were made again and the sample was drawn anew."""
    session = desk.sit()
    answer(session, "label", label="mild")
    desk.rise()
    rows = read_dataset(desk.folder)
    sheet = draw_sheet(TASK, rows.map(lambda row: {"text": row["text"] + " more"}), 12)
    for name, writes in (("Anna", True), ("Anna", False)):
        with pytest.raises(OutputError, match="holds decisions on other notes with the same ids: move .*labels away"):
            desk.sit(name, sheet=sheet, writes=writes).reviewers()
    desk.rise()
    assert desk.sit().view().answered == 1


# --- decisions ------------------------------------------------------------------------------------------------------
def test_each_decision_is_on_disk_and_an_undo_takes_it_back(desk: Desk) -> None:
    session = desk.sit()
    first = answer(session, "label", label="mild", comment=" two\nlines ")
    second = answer(session, "reject")
    third = answer(session, "unsure")
    lines = [json.loads(line) for line in (session.streams / "Anna.jsonl").read_text().splitlines()]
    assert lines[0] == {"review": 1, "kind": "labels", "task": "toy", "reviewer": "Anna"}
    assert [(e["row"], e["do"]) for e in lines[1:]] == [(first, "label"), (second, "reject"), (third, "unsure")]
    assert (lines[1]["label"], lines[1]["comment"]) == ("mild", "two\nlines")
    assert "comment" not in lines[2]
    assert session.view().answered == 3
    assert session.view().unsure == 1

    assert undo(session) == ""
    view = session.view()
    assert view.item is not None
    assert (view.item.id, view.answered) == (third, 2), "the note is shown again"
    assert undo(session) == undo(session) == ""
    assert undo(session) == "There is nothing to undo."
    view = session.view()
    assert view.item is not None
    assert (view.item.id, view.comment, view.answered) == (first, "two\nlines", 0), "the comment stays"
    assert answer(session, "label", label="none", comment="") == first
    assert session.own.comments[first] == "", "a comment can be taken away"
    desk.rise()
    again = desk.sit()
    assert again.own.answers[first].label == "none"
    assert again.own.count == 7


def test_a_comment_alone_is_no_answer(desk: Desk) -> None:
    session = desk.sit()
    id = answer(session, "comment", comment="ask Ben")
    view = session.view()
    assert view.item is not None
    assert (view.item.id, view.comment, view.answered) == (id, "ask Ben", 0)


def test_a_page_that_is_behind_changes_nothing(desk: Desk) -> None:
    session = desk.sit()
    view = session.view()
    form = {"do": "label", "label": "mild", "key": view.key, "count": str(view.count), "queue": "open", "comment": "x"}
    assert session.decide(form) == ""
    assert session.decide(form) == "", "the same form again, as after a lost answer, is no second decision"
    assert session.own.count == 1
    assert session.decide(form | {"label": "none"}).startswith(
        "Nothing was saved: this review went on in another window"
    )
    assert session.own.count == 1
    answer(session, "reject")
    assert session.decide(form).startswith("Nothing was saved")
    assert session.decide({"do": "undo", "count": "0"}).startswith("Nothing was saved")
    assert session.own.count == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"do": "label", "label": "terrible"},
        {"do": "label"},
        {"do": "keep"},  # the label is not shown
        {"do": "rate", "plausibility": "3", "taken_for": "real"},
        {"do": "delete"},
        {"do": ""},
        {"do": "reject", "key": "0123456789abcdef"},
        {"do": "reject", "key": ""},
        {"do": "reject", "queue": "all"},
        {"do": "reject", "comment": "x" * 2_001},
    ],
)
def test_what_no_page_sends_is_not_recorded(desk: Desk, wrong: dict[str, str]) -> None:
    session = desk.sit()
    view = session.view()
    with pytest.raises(WrongDecision):
        session.decide({"key": view.key, "count": "0", "queue": "open"} | wrong)
    assert session.own.count == 0
    assert (session.streams / "Anna.jsonl").read_text().count("\n") == 1


def test_the_label_is_hidden_until_answered_or_shown_or_never(desk: Desk) -> None:
    session = desk.sit()
    assert session.view().shown == ""
    id = answer(session, "label", label="none")
    assert session.view().last in (
        f"Your last answer: none. The note had the label {desk.sheet.items[id].label}",
        "Your last answer: none. The note had the same label",
    )
    shown = desk.sit("Ben", shows="before")
    view = shown.view()
    assert view.item is not None
    assert view.shown == view.item.label
    kept = answer(shown, "keep")
    assert shown.own.answers[kept].choice == ("label", desk.sheet.items[kept].label), "it is recorded as the label"
    blind = desk.sit("Cem", shows="never")
    for _ in range(5):
        answer(blind, "label", label="none")
    view = blind.view()
    assert (view.shown, view.last, view.noise) == ("", "Your last answer: none", None)


def test_unsure_notes_come_again_oldest_first(desk: Desk) -> None:
    session = desk.sit()
    ids = [answer(session, "unsure") for _ in range(3)]
    assert answer(session, "unsure", "unsure") == ids[0]
    assert answer(session, "label", "unsure", label="mild") == ids[1]
    assert [session.view("unsure").item.id, session.view("unsure").unsure] == [ids[2], 2]  # type: ignore[union-attr]
    assert session.view().answered == 3


@pytest.mark.parametrize("name", ["", "  ", "../x", "a/b", "x" * 41, "<b>", "a\nb\x00", ".hidden"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(OutputError, match="--reviewer takes a name"):
        checked_name(name)


def test_names_that_people_have() -> None:
    assert checked_name(" Dr.  O'Mu\u0308ller-2 ") == "Dr. O'M\u00fcller-2"


# --- figures --------------------------------------------------------------------------------------------------------
def test_the_share_of_wrong_labels_is_that_of_the_folder(desk: Desk) -> None:
    """Each stratum counts by its size in the folder, by hand: W wrong of n drawn of N, over the strata."""
    session = desk.sit()
    while (view := session.view()).item is not None:
        looked = Counter(desk.sheet.items[id].stratum for id in session.own.answers)
        if len(looked) < 3:
            assert view.noise is None, "a stratum has no answer yet"
        answer(session, "label", label=desk.truth[view.item.id])
    noise = session.view().noise
    assert noise is not None
    sizes = Counter(TASK.labels[i] for i in read_dataset(desk.folder)["llm_label"])
    wrong, drawn = Counter(), Counter()  # type: ignore[var-annotated]
    for id, item in desk.sheet.items.items():
        drawn[item.stratum] += 1
        wrong[item.stratum] += item.label != desk.truth[id]
    assert noise.share == pytest.approx(sum(sizes[s] * wrong[s] / drawn[s] for s in sizes) / 40)
    assert (noise.looked_at, noise.wrong) == (12, wrong.total())
    assert 0 <= noise.low < noise.share < noise.high <= 1
    assert "of 12 labels that were looked at were wrong; of all labels in the folder about" in str(noise)


def test_rejected_and_unsure_notes_have_no_label_to_count(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "syn", by=())
    session = desk.sit()
    for i in range(12):
        id = session.view().item.id  # type: ignore[union-attr]
        answer(session, ("reject", "unsure", "label")[min(i, 2)], **({"label": desk.truth[id]} if i > 1 else {}))
    noise = session.view().noise
    desk.rise()
    assert noise is not None
    assert noise.looked_at == 10


# --- the table ------------------------------------------------------------------------------------------------------
def test_the_table_is_what_audited_reads(desk: Desk) -> None:
    session = desk.sit()
    for i in range(12):
        id = session.view().item.id  # type: ignore[union-attr]
        do = {3: "reject", 5: "unsure"}.get(i, "label")
        answer(session, do, **({"label": desk.truth[id]} if do == "label" else {"comment": "=1+1"}))
    file = session.export()
    assert file.read_bytes()[:3] == b"\xef\xbb\xbf", "a spreadsheet reads it as UTF-8"
    assert file.stat().st_mode & 0o077 == 0
    assert not any(item.texts[0] in file.read_text() for item in desk.sheet.items.values()), "texts stay where they are"
    rows = table(file)
    assert list(rows[0]) == [
        "id",
        "llm_label",
        "label",
        "decision",
        "reviewer",
        "comment",
        "inclusion_probability",
        "stratum",
    ]
    assert Counter(row["decision"] for row in rows) == {"label": 10, "reject": 1, "unsure": 1}
    assert {row["comment"] for row in rows} == {"", "'=1+1"}, "no cell is a formula"
    assert {row["reviewer"] for row in rows} == {"Anna"}
    audited = read_audited(file, TASK)
    assert dict(audited) == {id: desk.truth[id] for id, a in session.own.answers.items() if a.do == "label"}
    assert len(audited.rejected) == 1
    assert set(audited.strata.values()) == set(TASK.labels)
    strata = Counter(row["stratum"] for row in rows if row["decision"] in ("label", "reject"))
    sizes = Counter(TASK.labels[i] for i in read_dataset(desk.folder)["llm_label"])
    for id, weight in audited.weights.items():
        stratum = audited.strata[id]
        assert weight == pytest.approx(sizes[stratum] / strata[stratum])


def test_two_reviewers_and_a_third_who_settles(desk: Desk) -> None:
    anna, ben = desk.sit("Anna"), desk.sit("Ben")
    ids = list(desk.sheet.items)
    for i, id in enumerate(ids):
        answer(anna, "label", label=desk.truth[id])
        if i < 8:
            other = next(name for name in TASK.labels if name != desk.truth[id])
            answer(ben, "label", label=desk.truth[id] if i < 6 else other, comment="hm" if i == 7 else "")
    view = anna.view()
    assert (view.differ, view.reviewers) == (2, 2)
    assert (view.agreements[0].notes, view.agreements[0].agreed) == (8, 6)
    rows = {row["id"]: row for row in table(anna.export())}
    assert Counter(row["decision"] for row in rows.values()) == {"label": 10, "differ": 2}
    assert (rows[ids[6]]["label"], rows[ids[6]]["reviewer"]) == ("", "Anna, Ben")
    assert rows[ids[7]]["comment"] == "Ben: hm"

    cem = desk.sit("Cem")
    view = cem.view("differ")
    assert view.item is not None
    assert (view.item.id, view.shown) == (ids[6], "")
    assert sorted(view.choices) == list(view.choices), "they do not show whose they are"
    answer(cem, "label", "differ", label=desk.truth[ids[6]])
    answer(cem, "reject", "differ")
    assert cem.view("differ").item is None
    assert cem.view().answered == 0, "who settles has not answered the notes"
    rows = {row["id"]: row for row in table(ben.export())}
    assert (rows[ids[6]]["label"], rows[ids[6]]["reviewer"]) == (desk.truth[ids[6]], "Anna, Ben, Cem")
    assert rows[ids[7]]["decision"] == "reject"
    assert undo(cem) == ""
    assert cem.view("differ").item.id == ids[7]  # type: ignore[union-attr]
    assert cem.summary["disagreements"] == 1
    assert "disagreements without a label until somebody settles them on the page: 1" in cem.findings()


def test_a_session_that_only_reads_creates_no_file_of_its_own(desk: Desk) -> None:
    anna = desk.sit("Anna")
    answer(anna, "label", label="mild")
    reader = desk.sit("Anna", writes=False)  # while Anna's file is open
    assert len([row for row in table(reader.export()) if row["label"]]) == 1
    assert [file.name for file in reader.streams.glob("*.jsonl")] == ["Anna.jsonl"]
    with pytest.raises(WrongDecision):
        reader.decide({"do": "undo", "count": "0"})


# --- a promise ------------------------------------------------------------------------------------------------------
def test_a_promise_is_reviewed_until_one_may_stop(tmp_path: Path) -> None:
    folder = tmp_path / "corrected"
    truth = write_folder(folder, 200, corrected=True)
    rows = read_dataset(folder)
    begin_promise(TASK, folder, rows, error=0.1)
    plain = read_promise(folder)
    assert plain is not None
    sheet = load_promise(TASK, rows, plain)
    session = Session(TASK, folder, sheet, "Anna")
    drawn = len(sheet.sample.drawn)
    assert session.view().asked == drawn > 10
    assert session.view().ahead.startswith(f"{drawn:,} rows now, and no more if ")
    assert f"about {expected_rows(sheet.sample, 0.2):,} in all if 20% of the labels are wrong" in session.view().ahead
    assert "at most all 200" in session.findings()[-1]
    assert list(sheet.progress(session.own).order) != [sheet.ids[at] for at in sheet.sample.drawn]
    for _ in range(drawn):
        answer(session, "label", label=truth[session.view().item.id])  # type: ignore[union-attr]
    view = session.view()
    assert view.asked > drawn, "the least sure rows follow"
    assert (view.may_stop, view.ahead) == ("", "")
    assert view.noise is not None
    assert (view.noise.looked_at, view.noise.of) == (drawn, "all labels that nobody had looked at")
    assert view.so_far.startswith("Without a further answer at most ")
    assert view.so_far.endswith("% of all labels are wrong.")
    unsure = answer(session, "unsure")
    rejected = answer(session, "reject")
    while (view := session.view()).item is not None:
        answer(session, "label", label=truth[view.item.id])
    assert view.may_stop == "", "an unsure row has no label"
    answer(session, "label", "unsure", label=truth[unsure])
    view = session.view()
    assert view.may_stop.startswith("You may stop here: at most 10% of all 200 labels are wrong with probability 95%")
    file = session.export()
    session.close()
    assert read_rejected(file) == {rejected}
    assert set(read_ids(file)) == set(read_labels(file, TASK)) | {rejected}
    assert {row["stratum"] for row in table(file)} == {"surer", "least sure"}


def test_a_promise_needs_corrected_notes(tmp_path: Path) -> None:
    write_folder(tmp_path / "syn", 20)
    with pytest.raises(OutputError, match="holds no corrected notes: run `hf-synth correct` first"):
        begin_promise(TASK, tmp_path / "syn", read_dataset(tmp_path / "syn"), error=0.1)
    assert read_promise(tmp_path / "syn") is None


def test_a_key_finds_no_row_of_a_realism_sheet(tmp_path: Path) -> None:
    """Neither the key of the form nor the order says which notes are real."""
    rows, gold = synthetic(20)[0], toy_rows(20, 9)
    sheet, other = draw_realism(TASK, rows, gold, 12), draw_realism(TASK, rows, gold, 12)
    sources = [[item.source for item in s.items.values()] for s in (sheet, other)]
    texts = [[item.texts for item in s.items.values()] for s in (sheet, other)]
    assert sorted(texts[0]) == sorted(texts[1]), "the seed chooses the notes"
    assert texts[0] != texts[1]
    assert sorted(sources[0]) == sorted(sources[1])
    assert not set(sheet.items) & set(other.items)
    ids = [f"{source}-{i}" for source in ("real", "synthetic") for i in range(12)]
    guessed = {hashlib.sha256(id.encode()).hexdigest()[:16] for id in (*ids, *sheet.items)}
    session = Session(TASK, write_folder(tmp_path / "syn", 20) and tmp_path / "syn", sheet, "Anna")
    for _ in sheet.items:
        view = session.view()
        assert view.key[:16] not in guessed
        answer(session, "rate", plausibility="3", taken_for="real")
    session.close()


def test_a_realism_sheet_with_ids_that_name_the_half_is_put_in_another_order(tmp_path: Path) -> None:
    """As an earlier version wrote it; answers are kept by id."""
    notes = [[f"{s}-{i}", s, [f"note {s} {i}"]] for s in ("real", "synthetic") for i in range(6)]
    file = tmp_path / "r.json"
    file.write_text(json.dumps({"review": 1, "task": "toy", "notes": notes}))
    order = list(load_realism(TASK, file).items)
    assert sorted(order) == sorted(note[0] for note in notes)
    assert order == list(load_realism(TASK, file).items) != [note[0] for note in notes]


# --- realism --------------------------------------------------------------------------------------------------------
def test_a_realism_sheet_mixes_open_notes_and_counts_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "syn"
    write_folder(folder, 30)
    rows, gold = read_dataset(folder), toy_rows(30, 9)
    sheet = draw_realism(TASK, rows, gold, 8)
    assert Counter(item.source for item in sheet.items.values()) == {"real": 4, "synthetic": 4}
    texts = {"real": set(gold["text"]), "synthetic": set(rows["text"])}
    assert all(item.texts[0] in texts[item.source] for item in sheet.items.values())
    assert all(item.label == "" for item in sheet.items.values())
    assert load_realism(TASK, save_realism(TASK, sheet, tmp_path / "r.json")) == sheet

    session = Session(TASK, folder, sheet, "Anna")
    for plausibility in ("6", "", "3"):
        with pytest.raises(WrongDecision):
            answer(session, "rate", plausibility=plausibility, taken_for="real" if plausibility != "3" else "gold")
    marks = iter(["5", "3", "4", "4"])
    while (item := session.view().item) is not None:
        synth = item.source == "synthetic"
        mark = next(marks) if synth else "5"
        answer(session, "rate", plausibility=mark, taken_for="real" if not synth or mark == "5" else "synthetic")
    file = session.export()
    session.close()
    assert file == folder / "realism.json"
    found = json.loads(file.read_text())
    assert (found["n"], found["plausibility_mean"], found["taken_for_real"]) == (4, 4.0, 0.25)
    assert (found["real_taken_for_real"], found["reviewers"]) == (1.0, 1)
    low, high = found["plausibility_ci95"]
    assert 1 <= low < 4 < high <= 5
    low, high = found["taken_for_real_ci95"]
    assert 0 <= low < 0.25 < high <= 1
    assert realism_summary(sheet, {}) == {
        "n": 0, "plausibility_mean": None, "plausibility_ci95": None, "taken_for_real": None,
        "taken_for_real_ci95": None, "real_taken_for_real": None, "told_apart": None,
        "told_apart_ci95": None, "reviewers": 0,
    }  # fmt: skip


def test_ratings_that_are_all_alike_prove_nothing_of_all_notes() -> None:
    sheet = draw_realism(TASK, synthetic(30)[0], toy_rows(30, 9), 20)
    ratings = [{"do": "rate", "row": id, "plausibility": 5, "taken_for": "real"} for id in sheet.items]
    found = realism_summary(sheet, {"Anna": Decisions(ratings)})
    assert found["plausibility_mean"] == 5
    assert found["plausibility_ci95"][0] < 4.7
    assert found["plausibility_ci95"][1] == 5
    low, high = found["taken_for_real_ci95"]
    assert low < 10 / (10 + 1.96**2)  # Wilson's, and wider for what few notes tell of the variance
    assert high == 1
    disagree = [r | {"plausibility": 1, "taken_for": "synthetic"} for r in ratings]
    both = realism_summary(sheet, {"Anna": Decisions(ratings), "Ben": Decisions(disagree)})
    assert both["told_apart_ci95"][0] < both["told_apart"] < both["told_apart_ci95"][1]
    assert (both["n"], both["plausibility_mean"], both["taken_for_real"], both["reviewers"]) == (10, 3.0, 0.5, 2)


@pytest.mark.parametrize("closed", ["task", "gold", "rows"])
def test_a_realism_sheet_is_for_open_gold_only(closed: str) -> None:
    task = review_task("restricted") if closed == "task" else TASK
    rows, gold = synthetic(20)[0], toy_rows(20, 9)
    if closed == "gold":
        gold = gold.remove_columns("access")
    if closed == "rows":
        rows = rows.map(lambda row: {"access": "credentialed"})
    with pytest.raises(AccessError, match="it serves open gold only; these are (restricted|credentialed)"):
        draw_realism(task, rows, gold, 8)


@pytest.mark.parametrize(("n", "says"), [(100, "there are 20"), (2, "at least 2")])
def test_a_realism_sheet_needs_enough_notes(n: int, says: str) -> None:
    with pytest.raises(ColumnError, match=says):
        draw_realism(TASK, synthetic(20)[0], toy_rows(20, 9), n)


def test_rows_that_are_not_used_are_not_judged(tmp_path: Path) -> None:
    """Dropped rows are in the sample, for the generator's accuracy; they are no labels of the folder."""
    rows, truth = synthetic(40, corrected=True)
    rows = rows.map(lambda row: {"label_status": "dropped", "weight": 0.0} if row["id"] in ("s4", "s9") else {})
    write_stage(TASK, rows, tmp_path / "syn", stage="correct")
    sheet = draw_sheet(TASK, rows, 40, by=())
    assert isinstance(sheet, SampleSheet)
    session = Session(TASK, tmp_path / "syn", sheet, "Anna")
    while (view := session.view()).item is not None:
        answer(session, "label", label=truth[view.item.id])
    session.close()
    assert view.noise is not None
    assert view.noise.looked_at == 38
    assert view.noise.wrong == sum(i % 5 == 4 for i in range(40)) - 2
