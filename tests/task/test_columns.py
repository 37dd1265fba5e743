"""Names of columns in messages: shown when they are names, by position when they may be text of a note."""

from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset

from hf_synth import adopt
from hf_synth.errors import ColumnError
from hf_synth.task import Task, check_columns
from hf_synth.task.columns import names_shown
from hf_synth.task.labels import checked_texts

NOTE = "Zebulon Quatermass, 77yo, was seen for chest pain and sent home."
TASK = Task.from_columns("triage", text_columns="note", label_column="urgency", labels=["low", "high"])


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["id", "note", "Ärztebrief", "llm_label"], "'id', 'note', 'Ärztebrief', 'llm_label'"),
        (["File ID", "Full Text", "Plan Subsection", "ROW ID"], "'File ID', 'Full Text', 'Plan Subsection', 'ROW ID'"),
        (["Jane Quatermass", "low"], "column 1, column 2 (does its first line name its columns?)"),
        (["no note of pain", "low"], "column 1, column 2 (does its first line name its columns?)"),
        ([], "no column"),
        ([NOTE, "low"], "column 1, column 2 (does its first line name its columns?)"),
        (["id", NOTE], "'id', column 2 (does its first line name its columns?)"),
        # a name and a number of a patient are hidden with the note beside them, and without one
        (["Quatermass", NOTE, "urgency"], "column 1, column 2, 'urgency' (does its first line name its columns?)"),
        (["File ID", "Subjectives", "Plan Subsection"], "'File ID', 'Subjectives', 'Plan Subsection'"),
        (["Patient no.", "Message text", "Date of visit"], "'Patient no.', 'Message text', 'Date of visit'"),
        (["P1", "Fell today", "urgent"], "column 1, column 2, column 3 (does its first line name its columns?)"),
        (["P1", "Jane note", "urgent"], "column 1, column 2, column 3 (does its first line name its columns?)"),
        (["P1", "No date set", "urgent"], "column 1, column 2, column 3 (does its first line name its columns?)"),
        (["Lfd. Nr.", "Pat.-ID", "Befund Text"], "'Lfd. Nr.', 'Pat.-ID', 'Befund Text'"),
        (["Fr. Quatermass", "Nr"], "column 1, column 2 (does its first line name its columns?)"),
        (["Subjectives", "Plan Subsection"], "'Subjectives', 'Plan Subsection'"),
        (["00417723"], "column 1 (does its first line name its columns?)"),
        (["x\x1b[2J"], "column 1 (does its first line name its columns?)"),
        ([""], "column 1 (does its first line name its columns?)"),
        (["a" * 31], "column 1 (does its first line name its columns?)"),
        ([3, None], "column 1, 'None' (does its first line name its columns?)"),
    ],
)
def test_names_are_shown_when_they_are_names(names: list[object], shown: str) -> None:
    known = ("urgency", "None")
    assert names_shown(names, *known) == shown


def test_a_wide_table_is_a_short_message() -> None:
    shown = names_shown([f"c{i}" for i in range(300_000)])
    assert shown.startswith("'c0', 'c1'")
    assert shown.endswith("'c11', 299,988 more")


def test_names_of_labels_are_hidden_like_those_of_columns() -> None:
    assert names_shown(["low", NOTE], "low", what="label") == "'low', label 2"


@pytest.mark.parametrize("kind", ["columns", "labels", "texts", "adopted"])
def test_no_message_holds_a_note(kind: str) -> None:
    rows = Dataset.from_dict({NOTE: ["Another note."], "low": ["high"]})
    with pytest.raises(ColumnError, match="column 1|label 1") as caught:
        if kind == "columns":
            check_columns(TASK, rows)
        elif kind == "texts":
            checked_texts(TASK, rows)
        elif kind == "adopted":
            adopt(TASK, rows)
        else:
            labels = Dataset.from_dict({"note": ["a"], "urgency": [0]})
            check_columns(TASK, labels.cast_column("urgency", ClassLabel(names=[NOTE, "low"])))
    assert "Zebulon" not in str(caught.value)
