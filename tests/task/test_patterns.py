"""Regular expressions that a folder of data brings: they end, and do what those of `re` do."""

from __future__ import annotations

import json
import pickle
import re
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth import audit, list_tasks, load_gold, load_task
from hf_synth.errors import TaskError
from hf_synth.task import Task
from hf_synth.task.folders import write_stage
from hf_synth.task.patterns import BoundedPattern, check_patterns

SLOW = [
    ("(a|a)*$", "a" * 45 + "!"),
    ("(a|aa)+$", "a" * 80 + "!"),
    ("(?:(?:a{1,1000}){1,1000}){1,1000}b", "a" * 60 + "!"),
    (r"\s+$", " " * 400_000 + "x"),
]
LARGE = [
    "(" * 30 + "a" + "+)" * 30,
    "(?:a{65535}){65535}",
    "(?:(?:a?){1000}){1000}b",
    "(?x) # [\n((a{9999}){9999}) # ]",
    "(?#[)((a{9999}){9999})(?#])",
]
TASK = Task.from_columns("triage", text_columns="note", label_column="y", labels=["a", "b"])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time of one search, so that the tests are short."""
    monkeypatch.setattr("hf_synth.task.patterns._SECONDS", 0.2)


@pytest.mark.parametrize(("pattern", "text"), [("(a+)+$", "a" * 40 + " !"), *SLOW])
@pytest.mark.parametrize("how", ["search", "sub"])
def test_a_search_ends(pattern: str, text: str, how: str) -> None:
    begun = time.process_time()
    bounded = BoundedPattern(pattern)
    try:
        found = bounded.search(text) if how == "search" else bounded.sub(" ", text)
        assert not found or found == text, "it was fast enough to find nothing"
        assert pattern == "(a+)+$"
    except TaskError as error:
        assert "takes too long" in str(error)
        assert text not in str(error)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("pattern", LARGE)
def test_an_expression_that_would_take_all_memory_is_refused(pattern: str) -> None:
    re.compile(pattern)
    with pytest.raises(TaskError, match="repeats too much inside of repeats"):
        BoundedPattern(pattern)


@pytest.mark.parametrize("pattern", ["(", "(" * 400 + ")" * 400 + "[", "a" * 1_001, "(?R)", r"\p{L}"])
def test_what_is_no_expression_of_re_is_refused(pattern: str) -> None:
    with pytest.raises(TaskError, match="regular expression"):
        BoundedPattern(pattern)


def test_many_expressions_are_refused() -> None:
    check_patterns(["a"] * 200)
    with pytest.raises(TaskError, match="at most 200"):
        check_patterns(["a"] * 201)


def test_time_adds_up_over_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000))  # each search takes a second
    monkeypatch.setattr("hf_synth.task.patterns.time.thread_time", lambda: float(next(clock)))
    bounded = BoundedPattern("a")
    for _ in range(10):
        assert not bounded.search("b")
    with pytest.raises(TaskError, match="takes too long"):
        bounded.search("b")


@settings(max_examples=200, deadline=None)
@given(text=st.text("grade 2Risk:fal highmos-=\n", max_size=60), task=st.sampled_from(list_tasks()))
def test_patterns_of_the_tasks_find_what_re_finds(text: str, task: Any) -> None:
    for pattern in task.leaks:
        bounded = pickle.loads(pickle.dumps(BoundedPattern(pattern)))
        assert bounded.search(text) == bool(re.search(pattern, text))
        assert bounded.sub(" ", text) == re.sub(pattern, " ", text)


# --- manifests ------------------------------------------------------------------------------------------------------
def _folder(path: Path, **definition: Any) -> Path:
    rows = [TASK.gold_row(f"g{i}", None, i % 2, "a" * 60 + "!") for i in range(4)]
    write_stage(TASK, Dataset.from_list(rows, features=TASK.gold_features()), path, stage="gold")
    manifest = json.loads((path / "hf_synth.json").read_text())
    manifest["definition"] |= definition
    (path / "hf_synth.json").write_text(json.dumps(manifest))
    return path


def test_expressions_of_a_folder_hang_nothing(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "gold", leaks=["(a|a)*$"])
    task = load_task(folder)
    with pytest.raises(TaskError, match="takes too long"):
        audit(task, load_gold(task, folder)["train"], gold=None)
    with pytest.raises(TaskError, match="takes too long"):
        load_gold(task, folder, mask_leaks=True)


@pytest.mark.parametrize(
    "definition",
    [
        {"script": "evil.py"},
        {"parse": "os.system"},
        {"files": {"train": ["/etc/passwd"]}},
        {"facts": {"items": []}},
        {"leaks": [1]},
        {"leaks": [["a"]]},
        {"labels": {"a": 1, "b": 2}},
        {"nothing_of_the_kind": "x"},
        {"leaks": ["("]},
        {"leaks": ["(" * 30 + "a" + "+)" * 30]},
    ],
)
def test_a_folder_defines_a_task_by_plain_fields(definition: dict[str, Any], tmp_path: Path) -> None:
    """A definition that names a script would run it when the gold is read."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nTASKS = {{}}\n")
    definition = {k: str(tmp_path / v) if k == "script" else v for k, v in definition.items()}
    folder = _folder(tmp_path / "gold", **definition)
    with pytest.raises(TaskError):
        load_gold(load_task(folder), tmp_path / "gold")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["[" * 200_000, '{"stage": ' + "[" * 200_000, "[]", '"x"', "{}"])
def test_a_broken_manifest_is_one_sentence(text: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "gold")
    (folder / "hf_synth.json").write_text(text)
    with pytest.raises(TaskError, match="names no task"):
        load_task(folder)
