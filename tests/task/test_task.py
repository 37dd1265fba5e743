from __future__ import annotations

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.errors import ColumnError, TaskError
from hf_synth.task.columns import ACCESSES, access_of, strictest
from hf_synth.task.labels import check_columns
from hf_synth.task.scripts import list_tasks, load_task
from hf_synth.task.task import Task

TASK = Task.from_columns("triage", text_columns="note", label_column="urgency", labels=["low", "high"])


def test_from_columns_is_restricted_and_has_a_prompt() -> None:
    assert TASK.access == "restricted"
    assert TASK.prompt.exemplars == "one_per_label"
    assert TASK.gold_features()["urgency"] == ClassLabel(names=["low", "high"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"labels": ["one"]}, "two labels"),
        ({"labels": ["a", "a"]}, "differ"),
        ({"text_columns": "id"}, "reserved"),
        ({"text_columns": "urgency"}, "differ"),
        ({"access": "public"}, "access"),
        ({"kind": "ranking"}, "kind"),
        ({"name": "My Task"}, "lower case"),
        ({"label_meanings": ("one",)}, "meaning"),
        ({"kind": "text2text"}, "no labels"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(fields: dict[str, object], says: str) -> None:
    good = {"name": "triage", "text_columns": "note", "label_column": "urgency", "labels": ["low", "high"]}
    with pytest.raises(TaskError, match=says):
        Task.from_columns(**(good | fields))  # type: ignore[arg-type]


def test_tasks_are_found_by_name_config_and_path(tmp_path: Path) -> None:
    assert load_task("esophagitis").labels == ("grade_0", "grade_1", "grade_2", "grade_3")
    assert load_task("esophagitis:presence").labels == ("none", "esophagitis")
    assert load_task("esophagitis", "three").full_name == "esophagitis:three"
    names = {t.full_name for t in list_tasks()}
    assert {"clinic", "mts_dialog:section", "esophagitis:severe"} <= names
    script = tmp_path / "mine.py"
    script.write_text(
        "from hf_synth.task.task import Task\n"
        "TASKS = {'default': Task.from_columns('mine', text_columns='t', label_column='y', labels=['a', 'b'])}\n"
    )
    assert load_task(script).name == "mine"


def test_a_task_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no task 'triag'; there are .*clinic"):
        load_task("triag")
    with pytest.raises(TaskError, match="no config 'grades'; it has grade, presence"):
        load_task("esophagitis", "grades")
    with pytest.raises(TaskError, match=r"no task script 'x\.py'"):
        load_task(tmp_path / "x.py")
    broken = tmp_path / "broken.py"
    broken.write_text("this is not python")
    with pytest.raises(TaskError, match=r"broken\.py cannot be imported"):
        load_task(broken)
    empty = tmp_path / "empty.py"
    empty.write_text("TASKS = {}")
    with pytest.raises(TaskError, match="defines TASKS"):
        load_task(empty)


def test_the_fingerprint_follows_what_decides_the_output() -> None:
    task = load_task("clinic")
    assert task.fingerprint() == load_task("clinic").fingerprint()
    import dataclasses

    assert dataclasses.replace(task, version="9").fingerprint() != task.fingerprint()
    assert dataclasses.replace(task, license="other").fingerprint() == task.fingerprint()


@given(st.lists(st.sampled_from([*ACCESSES, None, "", "OPEN", "public"])))
def test_the_strictest_access_wins(accesses: list[str | None]) -> None:
    joined = strictest(*accesses)
    if accesses and all(a == "open" for a in accesses):
        assert joined == "open"
    elif not accesses or any(a not in ACCESSES for a in accesses) or "credentialed" in accesses:
        assert joined == "credentialed"
    else:
        assert joined == "restricted"


def test_access_is_read_from_every_row() -> None:
    rows = Dataset.from_dict({"x": [1, 2, 3], "access": ["open", "open", "restricted"]})
    assert access_of(rows) == "restricted"
    assert access_of(rows.select([0, 1])) == "open"
    assert access_of(rows.select([2, 0])) == "restricted"
    assert access_of(rows.remove_columns("access")) == "credentialed"
    assert access_of(Dataset.from_dict({"access": ["open", None]})) == "credentialed"


def test_columns_are_checked_by_name_and_labels() -> None:
    with pytest.raises(ColumnError, match="no column 'note'.*it has 'text'"):
        check_columns(TASK, Dataset.from_dict({"text": ["a"], "urgency": [0]}))
    other = Dataset.from_dict({"note": ["a"], "urgency": [0]}).cast_column("urgency", ClassLabel(names=["x", "y"]))
    with pytest.raises(ColumnError, match="has labels"):
        check_columns(TASK, other)
