"""`hf-synth review`: which notes it asks for, what it refuses, and that its table goes through `correct`."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.review_rows import review_task, write_folder
from support.tiny import toy_rows

from hf_synth.cli.cli import main
from hf_synth.gold.adoption import read_dataset
from hf_synth.review.app import Review
from hf_synth.review.session import Session
from hf_synth.task.folders import read_manifest, write_stage
from hf_synth.task.task import Task

TASK = review_task()
Play = Callable[[Session], None]


class Desk:
    """Runs the verb; instead of a page that is served, a function plays the reviewer."""

    def __init__(self, tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.tmp, self._capsys = tmp, capsys
        self.play: Play = lambda session: None
        self.served: list[Review] = []

        def serve(review: Review, *, port: int, say: Callable[[str], object]) -> None:
            say(f"http://127.0.0.1:{port}/?key={review.key}")
            self.served.append(review)
            self.play(review.session)

        monkeypatch.setattr("hf_synth.review.app.serve", serve)

    def review(self, folder: str, *options: Any, play: Play | None = None) -> tuple[int, Any, str]:
        self.play = play or (lambda session: None)
        return self.run("review", self.tmp / folder, *options)

    def run(self, *words: Any) -> tuple[int, Any, str]:
        code = main([*map(str, words), "--json", "-q"])
        said = self._capsys.readouterr()
        return code, json.loads(said.out.splitlines()[-1]) if code == 0 else None, said.out + said.err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, capsys, monkeypatch)


def answering(truth: dict[str, str], most: int = 10**6, reject: int = 0) -> Play:
    """Return a reviewer who knows the labels, and rejects the first notes."""

    def play(session: Session) -> None:
        for i in range(most):
            view = session.view()
            if view.item is None:
                return
            form = {"key": view.key, "count": str(view.count), "queue": "open"}
            do = {"do": "reject"} if i < reject else {"do": "label", "label": truth[view.item.id]}
            assert session.decide(form | do) == ""

    return play


def test_the_table_goes_through_correct_audited(desk: Desk) -> None:
    truth = write_folder(desk.tmp / "syn", 60)
    write_stage(TASK, toy_rows(40, 1), desk.tmp / "gold", stage="gold")
    code, facts, said = desk.review("syn", "--per-label", 5, play=answering(truth, most=10, reject=1))
    assert code == 0
    assert (facts["reviewed"], facts["asked"], facts["rejected"]) == (10, 15, 1)
    assert "10 of 15 notes reviewed by reviewer 1 -> " in said
    code, facts, said = desk.review("syn", "--per-label", 5, play=answering(truth))
    assert (facts["reviewed"], facts["labelled"]) == (15, 14), "it goes on where it ended"
    assert facts["wrong_labels"]["looked_at"] == 14
    command = next(line for line in said.splitlines() if line.startswith("then: ")).removeprefix("then: hf-synth ")
    words = [word for word in shlex.split(command) if word != "..."]
    code, done, said = desk.run(*words, "--gold", desk.tmp / "gold", "--method", "none", "--out", desk.tmp / "out")
    assert code == 0, said
    rows = read_dataset(desk.tmp / "out")
    audited = [row for row in rows if row["reason"] == "audited"]
    assert len(audited) == 14
    assert all(TASK.labels[row["label"]] == truth[row["id"]] for row in audited)
    assert [row["label_status"] for row in rows if row["reason"] == "unusable"] == ["dropped"]
    assert done["figures"]["audited_strata"] == 3


def write_audit(folder: Path, notes: Path, refused: list[bool]) -> None:
    folder.mkdir()
    (folder / "audit.json").write_text(json.dumps({"synthetic": str(notes)}))
    ids = read_dataset(notes)["id"][:]
    Dataset.from_dict({"id": ids, "audit_refused": refused}).to_parquet(folder / "findings.parquet")


def test_an_audit_leaves_out_what_it_withholds(desk: Desk) -> None:
    truth = write_folder(desk.tmp / "syn", 30)
    ids = [*truth]
    write_audit(desk.tmp / "audit", desk.tmp / "syn", [i < 20 for i in range(30)])
    left = set(ids[20:])
    code, _, said = desk.run("sample", desk.tmp / "syn", desk.tmp / "syn", "--n", 30, "--out", desk.tmp / "all.csv")
    assert code == 0, said
    assert f"20 of them may not leave by the audit in {desk.tmp / 'audit'}" in said
    options = ("--audit", desk.tmp / "audit")
    words = ("sample", desk.tmp / "syn", desk.tmp / "syn", "--n", 6, "--out", desk.tmp / "few.csv", *options)
    code, _, said = desk.run(*words)
    assert code == 0, said
    assert "may not leave" not in said
    drawn = {line.split(",")[0].strip('"') for line in (desk.tmp / "few.csv").read_text().splitlines()[1:]}
    assert drawn
    assert drawn <= left
    code, _, said = desk.review("syn", "--n", 6, *options, play=answering(truth))
    assert code == 0, said
    assert "of all labels that the audit does not withhold" in said
    assert {item for review in desk.served for item in review.session.sheet.items} <= left
    assert desk.review("syn", *options, play=answering(truth))[0] == 0, "it goes on"
    write_audit(desk.tmp / "later", desk.tmp / "syn", [True] * 30)
    assert "without the audit in" in desk.review("syn", "--audit", desk.tmp / "later")[2]
    assert "withholds every note" in desk.run(*words[:-1], desk.tmp / "later")[2]
    assert "holds no findings" in desk.run(*words[:-1], desk.tmp / "gone")[2]


def test_a_sample_is_filled_in_with_what_people_decided(desk: Desk) -> None:
    truth = write_folder(desk.tmp / "syn", 20)
    assert desk.review("syn", "--n", 20, play=answering(truth, most=8, reject=1))[0] == 0
    code, facts, said = desk.run("sample", desk.tmp / "syn", desk.tmp / "syn", "--n", 20, "--out", desk.tmp / "s.csv")
    assert code == 0, said
    assert facts["known"] == 8
    assert "8 of them have been decided on before" in said
    rows = list(csv.DictReader((desk.tmp / "s.csv").read_text("utf-8-sig").splitlines()))
    assert sum(row["decision"] == "reject" and not row["label"] for row in rows) == 1
    filled = {row["id"]: row["label"] for row in rows if row["label"]}
    assert len(filled) == 7
    assert all(truth[id] == label for id, label in filled.items())


def test_the_table_goes_through_correct_error(desk: Desk) -> None:
    truth = write_folder(desk.tmp / "corrected", 160, corrected=True)
    code, facts, _ = desk.review("corrected", "--error", 0.1, play=answering(truth, most=5))
    assert code == 0
    assert (facts["reviewed"], facts["may_stop"]) == (5, False)
    manifest = read_manifest(desk.tmp / "corrected") or {}
    assert manifest["policy"]["figures"]["promise"] == "not yet: a sample needs labels"
    frozen = (desk.tmp / "corrected" / "train.parquet").read_bytes()
    code, facts, said = desk.review("corrected", play=answering(truth, reject=2))  # the promise under way is found
    assert facts["may_stop"] is True
    assert "You may stop here: at most 10% of all 160 labels are wrong" in said
    assert (desk.tmp / "corrected" / "train.parquet").read_bytes() == frozen
    command = next(line for line in said.splitlines() if line.startswith("then: ")).removeprefix("then: hf-synth ")
    code, done, said = desk.run(*shlex.split(command))
    assert code == 0, said
    assert (done["figures"]["promise"], done["figures"]["promise_rejected"]) == ("holds", 2)
    assert "The promise holds: at most 10% of all 160 labels are wrong with probability 95%" in said
    rows = [row for row in read_dataset(desk.tmp / "corrected") if row["label_status"] != "dropped"]
    assert len(rows) == 158
    assert sum(TASK.labels[row["label"]] != truth[row["id"]] for row in rows) <= 16
    before = read_manifest(desk.tmp / "corrected")
    code, _, said = desk.review("corrected", "--error", 0.2)
    assert code == 1
    assert "holds already: review a sample (--n), or correct the notes again into a new folder" in said
    assert read_manifest(desk.tmp / "corrected") == before


def test_reviewers_have_files_of_their_own_and_the_table_joins_them(desk: Desk) -> None:
    truth = write_folder(desk.tmp / "syn", 30)
    assert desk.review("syn", "--n", 10, "--by", "--reviewer", "Anna", play=answering(truth))[0] == 0
    code, facts, said = desk.review("syn", "--reviewer", "Ben", play=answering(truth, most=4, reject=2))
    assert code == 0
    assert (facts["disagreements"], facts["agreement"][0]["notes"]) == (2, 4)
    assert "Anna and Ben agree on 2 of 4 notes; kappa" in said
    code, again, _ = desk.review("syn", "--export", "--reviewer", "Cem")
    assert (code, again["disagreements"]) == (0, 2)
    assert not list(desk.tmp.rglob("Cem*"))
    assert len(desk.served) == 2


def test_nobody_has_decided_yet(desk: Desk) -> None:
    write_folder(desk.tmp / "syn", 30)
    code, facts, said = desk.review("syn", "--export")
    assert (code, facts["file"]) == (0, None)
    assert "no note of" in said
    assert not (desk.tmp / "syn" / ".hf_synth").exists(), "no sample was drawn either"
    assert desk.review("syn")[1]["file"] is None, "who answered nothing leaves no table"


def test_a_realism_sheet_writes_its_figures(desk: Desk) -> None:
    write_folder(desk.tmp / "syn", 30)
    write_stage(TASK, toy_rows(30, 1), desk.tmp / "gold", stage="gold")

    def rate(session: Session) -> None:
        while (view := session.view()).item is not None:
            form = {"key": view.key, "count": str(view.count), "queue": "open", "do": "rate"}
            assert session.decide(form | {"plausibility": "4", "taken_for": "real"}) == ""

    code, facts, _ = desk.review("syn", "--realism", "--n", 8, "--gold", desk.tmp / "gold", play=rate)
    assert code == 0
    assert (facts["n"], facts["plausibility_mean"], facts["taken_for_real"]) == (4, 4.0, 1.0)
    assert json.loads((desk.tmp / "syn" / "realism.json").read_text())["n"] == 4
    assert "holds a realism sheet of 8 notes, not of 10" in desk.review("syn", "--realism", "--n", 10)[2]
    assert desk.review("syn", "--realism", "--export")[1]["n"] == 4, "the gold is no longer needed"
    assert read_dataset(desk.tmp / "syn").num_rows == 30, "the folder is read as before"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--by", "label"), "--by names the strata of --n"),
        (("--confidence", 0.9), "--confidence belongs to --error"),
        (("--error", 0.1), "holds no corrected notes"),
        (("--n", 10, "--by", "confidence"), "a sample by confidence needs corrected rows"),
        (("--n", 1_000), "ask for 1 to 30, not 1000"),
        (("--per-label", 1), "ask for 2 notes of each label or more"),
        (("--reviewer", "../x"), "--reviewer takes a name"),
        (("--realism",), "toy"),
    ],
)
def test_what_cannot_be_reviewed_is_one_sentence(desk: Desk, options: tuple[Any, ...], says: str) -> None:
    write_folder(desk.tmp / "syn", 30)
    code, _, said = desk.review("syn", *options)
    assert code == 1
    assert says in said
    assert said.count("\n") == 1
    assert desk.served == []


def test_other_tasks_have_a_realism_sheet_only(desk: Desk) -> None:
    task = Task.from_columns("sums", text_columns="text", label_column="summary", kind="text2text", access="open")
    rows = [{**task.gold_row(f"s{i}", f"p{i}", "fine", f"Made-up note {i}."), "llm_label": "fine"} for i in range(8)]
    rows = [{**row, "label_status": "kept", "reason": "as_generated"} for row in rows]
    features = task.synthetic_features()
    wanted = Dataset.from_list([{name: row.get(name) for name in features} for row in rows], features=features)
    write_stage(task, wanted, desk.tmp / "syn", stage="generate")
    write_stage(task, wanted.select_columns(list(task.gold_features())), desk.tmp / "gold", stage="gold")
    for more in ((), ("--error", 0.1), ("--n", 4)):
        code, _, said = desk.review("syn", *more)
        assert (code, said.count("\n")) == (1, 1)
        assert "is text2text: audited labels serve single_label tasks only" in said
    assert desk.review("syn", "--realism", "--n", 4, "--gold", desk.tmp / "gold")[0] == 0
    assert [item.texts[0][:12] for item in desk.served[0].session.sheet.items.values()] == ["Made-up note"] * 4


def test_a_folder_that_is_none_and_a_sample_that_is_another(desk: Desk) -> None:
    truth = write_folder(desk.tmp / "syn", 30)
    assert "is no folder: name one that `generate` or `correct` wrote" in desk.review("nothing")[2]
    (desk.tmp / "empty").mkdir()
    code, _, said = desk.review("empty")
    assert (code, said.count("\n")) == (1, 1)
    assert desk.review("syn", "--n", 10, play=answering(truth, most=2))[0] == 0
    code, _, said = desk.review("syn", "--n", 12)
    assert code == 1
    assert "holds a sample of 10 notes by label, not of 12 by label: leave the options out to go on with it" in said
    assert desk.review("syn", "--n", 10)[0] == 0
    assert desk.review("syn")[0] == 0
