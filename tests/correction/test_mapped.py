"""GenerateAndCorrect in any `map`: formats, streams, labels in every form, other columns, other processes."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, List, Value
from support.chats import TASK, InstantLLM, short_gold

from hf_synth import GenerateAndCorrect, Task, load_task
from hf_synth.correction.identity import judge_identity, parser_digest
from hf_synth.correction.judging import LLMJudge
from hf_synth.correction.mapped import label_by_name
from hf_synth.errors import ColumnError, TaskError
from hf_synth.llm.local import LocalLLM
from hf_synth.task.columns import access_of

GOLD = short_gold()
ASKED = ["ab"[label] for label in GOLD["label"]]


def transform(**more: Any) -> GenerateAndCorrect:
    given: dict[str, Any] = {"exemplars": GOLD} | more
    return GenerateAndCorrect(given.pop("task", TASK), given.pop("llm", None) or InstantLLM(), **given)


def names(rows: Any, column: str = "label") -> list[str]:
    """Return labels by name, as their feature says."""
    feature = rows.features[column]
    values = rows.with_format(None)[column][:]
    return [feature.int2str(v) if isinstance(feature, ClassLabel) else v for v in values]


def labelled(feature: Any, code: Callable[[int], Any], rows: Dataset = GOLD) -> Dataset:
    """Return gold whose label column has another feature."""
    features = Features(dict(rows.features) | {"label": feature})
    return Dataset.from_list([{**row, "label": code(row["label"])} for row in rows], features=features)


FORMS = {
    "same order": GOLD,
    "other order": labelled(ClassLabel(names=["b", "a"]), lambda i: 1 - i),
    "text": labelled(Value("string"), lambda i: "ab"[i]),
    "integer": labelled(Value("int64"), lambda i: i),
    "small integer": labelled(Value("int8"), lambda i: i),
}
FORMATS = ["numpy", "torch", "pandas", "arrow"]


@pytest.mark.parametrize("form", FORMS)
def test_labels_mean_what_the_mapped_rows_say(form: str) -> None:
    t, rows = transform(), FORMS[form]
    for kwargs in ({}, t.map_kwargs, t.map_kwargs_for(rows), {"features": t.features()}):
        made = rows.map(t, **kwargs)
        assert names(made) == names(made, "llm_label") == ASKED
        if kwargs:
            assert made.features == TASK.corrected_features()


@pytest.mark.parametrize("by", FORMATS)
def test_a_format_changes_no_row(by: str) -> None:
    t = transform()
    plain = GOLD.map(t, **t.map_kwargs)
    shown = GOLD.with_format(by)
    for kwargs in ({}, t.map_kwargs, t.map_kwargs_for(shown)):
        made = shown.map(t, **kwargs).with_format(None)
        assert made["note"][:] == plain["note"][:]
        assert names(made) == names(made, "llm_label") == ASKED
        assert access_of(made) == "open"
    assert shown.map(t, **t.map_kwargs_for(shown)).with_format(None).to_list() == plain.to_list()
    for form in ("other order", "text", "integer"):
        rows = FORMS[form].with_format(by)
        assert names(rows.map(t, **t.map_kwargs_for(rows)).with_format(None)) == ASKED
    more = GOLD.add_column("mrn", ["own-number"] * len(GOLD)).with_format(by)
    for kwargs in (t.map_kwargs, t.map_kwargs_for(more)):
        assert more.map(t, **kwargs).with_format(None).to_list() == plain.to_list()
    paired = more.map(t).with_format(None)
    assert "own-number" not in repr(paired.to_list())


@pytest.mark.parametrize("by", ["numpy", "torch", "pandas"])
def test_numbers_that_contradict_the_exemplars_are_refused(by: str) -> None:
    t, rows = transform(), FORMS["other order"].with_format(by)
    with pytest.raises(ColumnError, match="map_kwargs_for"):
        rows.map(t, **t.map_kwargs)


def test_numbers_that_nothing_confirms_are_told(caplog: pytest.LogCaptureFixture) -> None:
    t = transform(exemplars=short_gold(8))
    assert names(GOLD.select(range(8)).with_format("numpy").map(t, **t.map_kwargs).with_format(None)) == ASKED[:8]
    assert not caplog.records
    rows = GOLD.select(range(8, 12)).with_format("numpy")
    assert names(rows.map(t, **t.map_kwargs).with_format(None)) == ASKED[8:]
    assert len([r for r in caplog.records if "numbers without names" in r.message]) == 1
    caplog.clear()
    rows.map(transform(exemplars=short_gold(8)), **t.map_kwargs_for(rows))
    assert not caplog.records


def test_columns_may_be_more_or_fewer() -> None:
    t = transform()
    plain = GOLD.map(t, **t.map_kwargs)
    more = GOLD.add_column("mrn", ["own-number"] * len(GOLD))
    for kwargs in ({}, t.map_kwargs, t.map_kwargs_for(more)):
        assert more.map(t, **kwargs).to_list() == plain.to_list()
    fewer = GOLD.remove_columns(["source", "task"])
    for kwargs in ({}, t.map_kwargs, t.map_kwargs_for(fewer)):
        assert fewer.map(t, **kwargs)["note"][:] == plain["note"][:]
    bare = GOLD.select_columns(["note", "label"])
    for kwargs in ({}, t.map_kwargs, t.map_kwargs_for(bare)):
        assert names(bare.map(t, **kwargs)) == ASKED
    unmarked = GOLD.remove_columns("access")
    assert access_of(unmarked.map(t, **t.map_kwargs)) == "credentialed"
    for call in (lambda d: d.map(t), lambda d: d.map(t, **t.map_kwargs), t.map_kwargs_for):
        with pytest.raises(ColumnError, match="lack columns"):
            call(GOLD.remove_columns("label"))
    both = DatasetDict(train=GOLD, test=more)
    with pytest.raises(ColumnError, match="each split by itself"):
        t.map_kwargs_for(both)
    one = DatasetDict(train=GOLD, test=GOLD.select(range(3)))
    assert {k: len(v) for k, v in one.map(t, **t.map_kwargs_for(one)).items()} == {"train": 12, "test": 3}


def test_indices_and_ranks_are_let_by() -> None:
    t = transform()
    plain = GOLD.map(t, **t.map_kwargs)
    assert GOLD.map(lambda rows: t(rows), **t.map_kwargs).to_list() == plain.to_list()
    for more in ({"with_indices": True}, {"with_rank": True}, {"with_indices": True, "with_rank": True}):
        assert GOLD.map(t, **more, **t.map_kwargs).to_list() == plain.to_list()
        assert GOLD.map(t, **more)["note"][:] == plain["note"][:]
    with pytest.raises(TaskError, match="leave `input_columns` out"):
        GOLD.map(t, input_columns=["note", "label"], **t.map_kwargs)
    several = transform(n=2)
    for rows in (GOLD, GOLD.with_format("numpy")):
        with pytest.raises(TaskError, match="map_kwargs_for"):
            rows.map(several)
    with pytest.raises(ColumnError, match="a label that task 't' does not have"):
        labelled(Value("string"), lambda _: "c").map(t)
    with pytest.raises(ColumnError, match="a label that task 't' does not have"):
        t.map_kwargs_for(labelled(ClassLabel(names=["a", "c"]), lambda i: i))


def test_streams() -> None:
    t = transform()
    plain = GOLD.map(t, **t.map_kwargs).to_list()

    def generated() -> Iterator[dict[str, Any]]:
        yield from GOLD

    for stream in (GOLD.to_iterable_dataset(), IterableDataset.from_generator(generated)):
        assert list(stream.map(t, **t.map_kwargs)) == plain
        assert list(stream.map(t, **t.map_kwargs_for(stream))) == plain
        assert [r["note"] for r in stream.map(t)] == [r["note"] for r in plain]
    more = GOLD.add_column("mrn", ["own-number"] * len(GOLD)).to_iterable_dataset()
    assert list(more.map(t, **t.map_kwargs_for(more))) == plain
    assert {r["mrn"] for r in more.map(t)} == {r["mrn"] for r in more.map(t, **t.map_kwargs)} == {None}
    other = FORMS["other order"].to_iterable_dataset()
    assert list(other.map(t, **t.map_kwargs_for(other))) == plain
    with pytest.raises(ColumnError, match="map_kwargs_for"):
        list(other.map(t, **t.map_kwargs))
    for by in ("numpy", "arrow", "pandas"):
        shown = GOLD.with_format(by).to_iterable_dataset()
        assert [r["note"] for r in shown.map(t, **t.map_kwargs_for(shown)).with_format(None)] == [
            r["note"] for r in plain
        ]


def test_sets_of_labels_are_named_too() -> None:
    task = dataclasses.replace(TASK, kind="multi_label", name="several")
    feature = List(ClassLabel(names=["b", "a"]))
    assert label_by_name(task, [1, 0], ["b", "a"], typed=True) == ["a", "b"]
    for value, wrong in (([2], None), (["c"], None), (-1, ["b", "a"]), (0.5, None)):
        with pytest.raises(ColumnError, match="does not have"):
            label_by_name(task, value, wrong, typed=True)
    assert label_by_name(task, [], None, typed=True) == []
    assert label_by_name(task, 1.0, None, typed=True) == "b"
    assert feature.feature.names == ["b", "a"]
    graded = dataclasses.replace(TASK, labels=("1", "2"))
    assert label_by_name(graded, 1, None, typed=True) == "1"  # a number that is a name
    assert label_by_name(graded, 1, ["1", "2"], typed=True) == "2"  # a code
    with pytest.raises(ColumnError, match="names or positions"):
        label_by_name(graded, 1, None, typed=False)


# --- what decides ---------------------------------------------------------------------------------------------------
def test_all_that_decides_is_in_the_fingerprint(tmp_path: Path) -> None:
    closed = GOLD.remove_columns("access").add_column("access", ["credentialed"] * len(GOLD))
    grouped = GOLD.remove_columns("group").add_column("group", ["one"] * len(GOLD))

    def local(**more: Any) -> LocalLLM:
        return LocalLLM("org/m", **({"revision": "v1"} | more))

    versions = {
        "as it is": transform(),
        "access": transform(exemplars=closed),
        "groups": transform(exemplars=grouped),
        "access of the task": transform(task=dataclasses.replace(TASK, access="restricted")),
        "parser": transform(task=dataclasses.replace(TASK, parse=lambda text: [{"note": text, "label": "a"}])),
        "model": transform(llm=InstantLLM("another")),
        "local": transform(llm=local()),
        "revision": transform(llm=local(revision="v2")),
        "length": transform(llm=local(max_new_tokens=16)),
        "gold": transform(exemplars=GOLD.select(range(10))),
    }
    assert len({t.fingerprint for t in versions.values()}) == len(versions)
    assert transform(llm=InstantLLM(where="elsewhere")).fingerprint == transform().fingerprint
    assert transform(exemplars=GOLD.with_format("torch")).fingerprint == transform().fingerprint

    folders = [tmp_path / name for name in ("one", "moved", "other")]
    for folder, weights in zip(folders, (b"1", b"1", b"2"), strict=True):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
    one, moved, other = (transform(llm=LocalLLM(str(f))).fingerprint for f in folders)
    assert one == moved != other
    (folders[1] / "tokenizer.json").write_text("{}")
    assert transform(llm=LocalLLM(str(folders[1]))).fingerprint != one


def test_a_parser_is_known_by_its_code() -> None:
    def made(body: str) -> Any:
        space: dict[str, Any] = {}
        exec(compile(f"def parse(text):\n    {body}", "<notebook>", "exec"), space)
        return space["parse"]

    assert parser_digest(None) is None
    assert parser_digest(made("return []")) == parser_digest(made("return []"))
    assert parser_digest(made("return []")) != parser_digest(made("return [text]"))


def test_a_cached_map_hands_out_no_credentialed_text_as_open(tmp_path: Path) -> None:
    shown, mapped = GOLD.select(range(6)), tmp_path / "mapped"
    GOLD.select(range(6, 12)).save_to_disk(mapped)
    rows = Dataset.load_from_disk(mapped)
    closed = shown.remove_columns("access").add_column("access", ["credentialed"] * 6)
    for task, exemplars, expected in (
        (TASK, shown, "open"),
        (TASK, closed, "credentialed"),
        (dataclasses.replace(TASK, access="restricted"), shown, "restricted"),
        (TASK, shown, "open"),
    ):
        t = transform(task=task, exemplars=exemplars)
        assert set(rows.map(t, **t.map_kwargs)["access"]) == {expected}


def test_the_access_of_an_llm_decides_what_is_cached(tmp_path: Path) -> None:
    GOLD.select(range(6)).save_to_disk(tmp_path / "gold")
    rows = Dataset.load_from_disk(tmp_path / "gold")
    for access in ("open", "credentialed", "open"):
        llm = InstantLLM()
        llm.access = access  # type: ignore[attr-defined]
        t = transform(llm=llm)
        assert set(rows.map(t, **t.map_kwargs)["access"]) == {access}
        opinions = judge_identity(LLMJudge(TASK, llm))  # type: ignore[arg-type]
        assert (opinions == judge_identity(LLMJudge(TASK, InstantLLM()))) == (access == "open")  # type: ignore[arg-type]


# --- other processes ------------------------------------------------------------------------------------------------
LOAD = """
import pickle, sys
t = pickle.load(open(sys.argv[1], "rb"))
rows = [{"id": "g0", "group": "p0", "note": sys.argv[2], "label": "a", "access": "open"}]
print(t.fingerprint, t({c: [r[c] for r in rows] for c in rows[0]}, typed=True)["note"][0])
"""
SCRIPT = """
from hf_synth import Task
def parse(text):
    return [{"note": "parsed " * 20, "label": "a"}]
TASKS = {"default": Task.from_columns("t", text_columns="note", label_column="label", labels=["a", "b"], access="open",
                                      parse=parse)}
"""


def test_a_pickle_works_in_a_process_that_never_made_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    t = transform(task=load_task(tmp_path / "mine.py"))
    here = t({"note": [GOLD[0]["note"]], "label": ["a"], "id": ["g0"], "group": ["p0"], "access": ["open"]})
    (tmp_path / "t.pickle").write_bytes(pickle.dumps(t))
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    said = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "t.pickle"), GOLD[0]["note"]],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    ).stdout
    assert said.split(maxsplit=1) == [t.fingerprint, here["note"][0] + "\n"]


def test_what_is_unpickled_is_its_own() -> None:
    first, second = transform(llm=InstantLLM(where="one")), transform(llm=InstantLLM(where="two"))
    assert first.fingerprint == second.fingerprint
    assert [pickle.loads(pickle.dumps(t))._llm.where for t in (first, second)] == ["one", "two"]
    copy = pickle.dumps(first)
    del first, second
    again = pickle.loads(copy)
    assert GOLD.map(again, **again.map_kwargs).to_list() == GOLD.map(transform(), **again.map_kwargs).to_list()


def test_several_processes_change_no_row() -> None:
    t = transform()
    assert GOLD.map(t, num_proc=2, keep_in_memory=True, **t.map_kwargs).to_list() == (
        GOLD.map(transform(seed=0), **t.map_kwargs).to_list()
    )


MAP = """
import sys
import multiprocess
from support.chats import TASK, InstantLLM, short_gold
from hf_synth import GenerateAndCorrect
if __name__ == "__main__":
    multiprocess.set_start_method(sys.argv[1])
    gold = short_gold()
    t = GenerateAndCorrect(TASK, InstantLLM(), exemplars=gold)
    made = gold.map(t, num_proc=2, **t.map_kwargs)
    assert made.to_list() == gold.map(t, **t.map_kwargs, load_from_cache_file=False).to_list()
    print(len(made))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_processes_may_start_in_any_way(how: str, tmp_path: Path) -> None:
    (tmp_path / "map.py").write_text(MAP)
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    line, env = [sys.executable, str(tmp_path / "map.py"), how], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(line, capture_output=True, text=True, env=env, timeout=300)
    assert done.stdout.strip() == "12", done.stderr[-2_000:]


def test_own_tasks_travel() -> None:
    task = pickle.loads(pickle.dumps(TASK))
    assert task == TASK
    assert isinstance(task, Task)
