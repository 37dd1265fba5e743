"""One contract over every task and config, on miniature gold in each source's true layout (gold_files.py)."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, DatasetDict, Value, load_dataset
from support.gold_files import options, write_gold

from hf_synth.errors import TaskError
from hf_synth.generation.answers import parse
from hf_synth.generation.plan import Plan, Pool
from hf_synth.gold.gold import as_streaming_dataset, load_gold, task_builder
from hf_synth.gold.sources import WHOLE, all_files, find_files
from hf_synth.task.columns import KINDS, access_of
from hf_synth.task.folders import read_export, write_stage
from hf_synth.task.scripts import list_tasks, load_task, task_script
from hf_synth.task.task import Prompt, Task

TASKS = {task.full_name: task for task in list_tasks()}
every_task = pytest.mark.parametrize("name", TASKS)
every_source = pytest.mark.parametrize("name", [n for n, task in TASKS.items() if task.files])
every_leaky_task = pytest.mark.parametrize("name", [n for n, task in TASKS.items() if task.leaks])


def shape(task: Task) -> tuple[str, ...]:
    """Return the kinds of a task's columns: what `datasets` has to keep on disk and on a Hub."""
    kinds = ("ClassLabel" if isinstance(f, ClassLabel) else str(f) for f in task.gold_features().values())
    return (task.kind, *kinds, f"{len(task.text_columns)} texts, targets: {bool(task.targets)}")


LEAKS = {
    "clinic": ("This is grade 2.", "Toxicity grading: none."),
    "esophagitis": ("This is gr. III to IV.", "Toxicity grading: esophagitis 2"),
    "fall_risk": (
        "Morse fall scale 45.", "A high fall risk.", "The risk of falling is low.", "Fall risk score: 30.",
        "Fall risk: moderate.",
    ),
}  # fmt: skip
every_shape = pytest.mark.parametrize("name", {shape(task): name for name, task in TASKS.items()}.values())


@pytest.fixture(scope="module")
def gold_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return (path, gold) of a task by name, written and read once."""

    @cache
    def read(name: str) -> tuple[Path | None, DatasetDict]:
        task = TASKS[name]
        path = write_gold(task, tmp_path_factory.mktemp("gold") / "source")
        return path, load_gold(task, path, **options(task))

    return read


@every_task
def test_header_facts(name: str) -> None:
    task = TASKS[name]
    assert task.kind in KINDS
    assert task.description.endswith(".")
    assert task.license != "unknown"
    assert task.metrics
    assert set(task.suites) <= {"paper", "DR.BENCH", "extra"}
    assert task.suites
    assert re.fullmatch(r"\d+\.\d+\.\d+", task.version)
    assert len(task.label_meanings) == len(task.labels)
    assert isinstance(task.prompt, Prompt)
    assert task.source_url.startswith("https://") or not task.files
    assert task.citation or not task.files
    assert task.access == "open" or task.name not in ("clinic", "mts_dialog", "sdoh_nli", "medqa")
    assert task_builder(task).__doc__
    said = task_script(task.name).__doc__ or ""  # the docstring draws the folder, and tells of each config
    assert task.config in said or task.config == "default"


@every_task
def test_gold_keeps_the_contract(name: str, gold_of: Any) -> None:
    task, (path, gold) = TASKS[name], gold_of(name)
    ids: set[str] = set()
    groups: dict[str, set[str]] = {}
    for split, rows in gold.items():
        assert split in ("train", "validation", "test", "test2")
        assert rows.features == task.gold_features()
        assert isinstance(rows.features[task.label_column], Value if task.kind == "text2text" else ClassLabel)
        assert set(rows["source"]) == {"gold"}
        assert set(rows["task"]) == {task.full_name}
        assert access_of(rows) == task.access
        assert not ids & set(rows["id"])
        assert len(set(rows["id"])) == len(rows)
        ids |= set(rows["id"])
        groups[split] = set(rows["group"])
        assert all(isinstance(t, str) and t.strip() for c in task.text_columns for t in rows[c])
        labels = rows[task.label_column]
        assert all(0 <= y < len(task.labels) for y in labels) if task.labels else all(y.strip() for y in labels)
        assert not task.targets or set(labels) <= set(task.targets)
        for file in rows.cache_files if path else ():
            assert Path(file["filename"]).is_relative_to(path if path.is_dir() else path.parent)
    splits = list(groups)
    assert not any(groups[a] & groups[b] for i, a in enumerate(splits) for b in splits[i + 1 :])
    assert not task.labels or set(gold["train"]["label"]) == set(range(len(task.labels))) or task.name == "mts_dialog"


@every_task
def test_the_same_files_give_the_same_rows(name: str, gold_of: Any, tmp_path: Path) -> None:
    task, (_, gold) = TASKS[name], gold_of(name)
    again = load_gold(task, write_gold(task, tmp_path / "elsewhere"), **options(task))
    assert {s: r.to_list() for s, r in again.items()} == {s: r.to_list() for s, r in gold.items()}


@every_task
def test_streaming_equals_not_streaming(name: str, gold_of: Any) -> None:
    task, (path, gold) = TASKS[name], gold_of(name)
    stream = {split: list(rows) for split, rows in as_streaming_dataset(task, path, **options(task)).items()}
    if set(stream) == {WHOLE}:  # split by group once all is read
        together = [row for rows in gold.values() for row in rows]
        assert sorted(stream[WHOLE], key=lambda r: r["id"]) == sorted(together, key=lambda r: r["id"])
    else:
        assert stream == {split: rows.to_list() for split, rows in gold.items()}


@every_source
def test_a_changed_source_file_is_seen(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    path = write_gold(task, tmp_path / "source")
    assert path is not None
    before = {s: r.to_list() for s, r in load_gold(task, path).items()}
    file = next(f.path for f in all_files(find_files(task, path)) if b"Person " in f.path.read_bytes())
    file.write_bytes(file.read_bytes().replace(b"Person ", b"Nobody "))  # as long, so that offsets stay right
    after = {s: r.to_list() for s, r in load_gold(task, path).items()}
    assert after != before
    ids = [sorted(r["id"] for rows in splits.values() for r in rows) for splits in (before, after)]
    assert ids[0] == ids[1]


@every_source
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_read_without_extracting_it(name: str, kind: str, gold_of: Any, tmp_path: Path) -> None:
    task, (path, gold) = TASKS[name], gold_of(name)
    if not path.is_dir():
        pytest.skip("the source is one file")
    archive = tmp_path / f"source-1.0.0.{kind}"
    files = [f for f in path.rglob("*") if f.is_file() and ".hf_synth" not in f.parts]
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in files:
                packed.write(file, f"source-1.0.0/{file.relative_to(path)}")
                packed.writestr(f"__MACOSX/source-1.0.0/{file.relative_to(path).parent}/._{file.name}", b"\x00\x05")
    else:
        with tarfile.open(archive, "w:gz") as packed:
            for file in files:
                packed.add(file, f"./source-1.0.0/{file.relative_to(path)}")
    read = load_gold(task, archive)
    assert {s: r.to_list() for s, r in read.items()} == {s: r.to_list() for s, r in gold.items()}
    beside = load_gold(task, tmp_path)  # the folder that the archive lies in does as well
    assert {s: len(r) for s, r in beside.items()} == {s: len(r) for s, r in gold.items()}
    assert {f.name for f in tmp_path.iterdir()} == {archive.name, ".hf_synth"}


@every_task
def test_the_prompt_asks_and_tells_no_other_row(name: str, gold_of: Any) -> None:
    task, (_, gold) = TASKS[name], gold_of(name)
    call = Plan(task, task.prompt, Pool(task, gold["train"], seed=0), task.prompt.rows).call(task.labels, 0)
    text = "\n".join(m["content"] for m in call.messages)
    shown = {row["id"]: row for row in gold["train"] if row["id"] in call.seed_ids}
    assert shown
    assert all(label in text for label in call.labels)
    for row in shown.values():
        for column in task.text_columns:
            assert json.dumps(row[column], ensure_ascii=False)[1:-1] in text
    groups = {row["group"] for row in shown.values()}
    told = {row[column] for row in shown.values() for column in task.text_columns}
    n_hidden = 0
    for split in gold:
        for row in gold[split]:
            for column in task.text_columns:
                if row["group"] in groups or row[column] in told:  # rows may share a premise or a question
                    continue
                hidden = json.dumps(row[column], ensure_ascii=False)[1:-1]
                long = len(hidden) >= 25  # "NA" stands in many a word, and instructions name a disease
                n_hidden += long
                assert not long or hidden not in text
    assert n_hidden


@every_task
def test_a_sample_answer_parses(name: str) -> None:
    task = TASKS[name]
    texts = {c: f"A made-up {c} that is long enough to be a passage of a note." for c in task.text_columns}
    label = task.labels[1] if task.labels else (task.targets or ("A made-up target.",))[0]
    good = texts | {task.label_column: label}
    found = parse(task, json.dumps({"entries": [good]}), task.labels)
    assert [p.row for p in found] == [good]
    if task.labels or task.targets:
        wrong = parse(task, json.dumps({"entries": [good | {task.label_column: "no such thing"}]}), task.labels)
        assert [p.reason for p in wrong] == ["unknown_label"]


@every_shape
def test_the_round_trip_through_parquet_keeps_types(name: str, gold_of: Any, tmp_path: Path) -> None:
    task, (_, gold) = TASKS[name], gold_of(name)
    out = write_stage(task, gold, tmp_path / "out", stage="gold")
    assert read_export(out)["train"].to_list() == gold["train"].to_list()
    plain = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {s: r.features for s, r in plain.items()} == {s: r.features for s, r in gold.items()}
    assert load_gold(task, out)["train"].to_list() == gold["train"].to_list()
    assert load_task(out) == task


@every_shape
def test_the_round_trip_through_a_hub_keeps_types(name: str, gold_of: Any, hub: Any, tmp_path: Path) -> None:
    """The local Hub gives back what any Hugging Face client put there; publishing gold is not what it shows."""
    task, (_, gold) = TASKS[name], gold_of(name)
    rows, repo = gold["train"].select(range(4)), f"org/{task.full_name.replace(':', '-')}"
    rows.push_to_hub(repo, token=hub.token, private=True)
    pulled = load_dataset(repo, split="train", token=hub.token, cache_dir=str(tmp_path / "cache"))
    assert pulled.features == rows.features
    assert pulled.to_list() == rows.to_list()


@every_leaky_task
def test_masking_takes_leaks_out(name: str, gold_of: Any, tmp_path: Path) -> None:
    """The miniatures have no leaks, so some are planted."""
    task, (_, gold) = TASKS[name], gold_of(name)
    column, leaks = task.text_columns[0], LEAKS[task.name]
    rows = gold["train"].map(lambda row, i: {column: f"{row[column]}\n{leaks[i % len(leaks)]}"}, with_indices=True)
    assert all(any(re.search(pattern, text) for text in rows[column]) for pattern in task.leaks)
    out = write_stage(task, DatasetDict(train=rows), tmp_path / "out", stage="gold")
    masked = load_gold(task, out, mask_leaks=True)["train"]
    assert not any(re.search(pattern, text) for pattern in task.leaks for text in masked[column])
    assert all(text.startswith(row[column]) for text, row in zip(masked[column], gold["train"], strict=True))


def test_every_script_has_a_miniature_and_every_miniature_a_script() -> None:
    from support.gold_files import WRITERS

    assert set(WRITERS) == {t.name for t in TASKS.values() if t.files}
    assert {t.name for t in TASKS.values()} >= {
        "esophagitis", "mednli", "ap_reasoning", "problem_summary", "soap", "emrqa", "medqa", "obesity", "medication",
        "medication_2009", "fall_risk", "mts_dialog", "sdoh_nli", "clinic",
    }  # fmt: skip


def test_configs_are_as_many_as_promised() -> None:
    counts = {n: sum(t.name == n for t in TASKS.values()) for n in {t.name for t in TASKS.values()}}
    promised = {
        "esophagitis": 4,
        "emrqa": 5,
        "medqa": 2,
        "obesity": 2,
        "medication": 6,
        "fall_risk": 2,
        "mts_dialog": 3,
        "sdoh_nli": 2,
    }
    assert counts == counts | promised


def test_a_copied_folder_has_a_cache_of_its_own(tmp_path: Path) -> None:
    task = TASKS["mednli:pair"]
    path = write_gold(task, tmp_path / "a")
    load_gold(task, path)
    assert path is not None
    shutil.copytree(path, tmp_path / "b")
    rows = load_gold(task, tmp_path / "b")["train"]
    assert all(Path(f["filename"]).is_relative_to(tmp_path / "b") for f in rows.cache_files)


def test_a_folder_one_level_up_names_the_gold_in_it(tmp_path: Path) -> None:
    (tmp_path / "work" / "model").mkdir(parents=True)
    with pytest.raises(TaskError, match=r"work is a folder without gold: name a task"):
        load_task(tmp_path / "work")
    for name, text in (("broken", "{"), ("gold", '{"stage": "gold"}'), ("list", "[]"), ("synthetic", '{"stage": "x"}')):
        (tmp_path / "work" / name).mkdir()
        (tmp_path / "work" / name / "hf_synth.json").write_text(text)
    with pytest.raises(TaskError, match=r"work is a folder without gold: name \S+work/gold$"):
        load_task(tmp_path / "work")
