"""Reviewed notes become the first gold: which notes, which labels, and their source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.review_rows import review_task, synthetic, write_folder

from hf_synth.errors import GoldError, TaskError
from hf_synth.gold.adoption import read_dataset
from hf_synth.review.log import Log
from hf_synth.review.reviewed import reviewed_gold
from hf_synth.review.session import review_folder
from hf_synth.task.task import Task

TASK = review_task()


def decide(folder: Path, answers: dict[str, str], reviewer: str = "Anna") -> None:
    """Write the decisions of a reviewer as the page does: a label, or "reject" or "unsure"."""
    head = {"review": 1, "kind": "labels", "task": TASK.full_name, "reviewer": reviewer}
    path = review_folder(folder) / "labels" / f"{reviewer}.jsonl"
    log = Log(path, head)
    for row, answer in answers.items():
        other = answer in ("reject", "unsure")
        log.append({"do": answer, "row": row} if other else {"do": "label", "row": row, "label": answer})
    log.close()


def test_labelled_notes_become_gold_and_the_others_stay_apart(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "notes", 60, TASK)
    looked = dict(list(truth.items())[:30])
    looked |= {"s30": "reject", "s31": "unsure"}
    decide(tmp_path / "notes", looked)
    decide(tmp_path / "notes", {"s0": truth["s0"], "s1": next(x for x in TASK.labels if x != truth["s1"])}, "Ben")
    rows = read_dataset(tmp_path / "notes")
    found = reviewed_gold(TASK, tmp_path / "notes", rows)
    train, test = found.gold["train"], found.gold["test"]
    labels = {row["id"]: TASK.labels[row["label"]] for part in (train, test) for row in part}
    assert labels == {id: truth[id] for id in looked if id not in ("s1", "s30", "s31")}  # the people's, not the LLM's
    assert found.wrong == sum(int(id[1:]) % 5 == 4 for id in labels)
    assert (found.rejected, found.open, found.unknown) == (1, 2, 0)
    assert set(found.rest["id"][:]) == {f"s{i}" for i in range(32, 60)}
    texts = dict(zip(rows["id"][:], rows["text"][:], strict=True))
    assert all(row["text"] == texts[row["id"]] for part in (train, test) for row in part)
    assert not set(train["text"][:]) & set(found.rest["text"][:])
    for label, n in Counter(labels.values()).items():
        assert Counter(test["label"][:])[TASK.labels.index(label)] == round(0.4 * n)


def test_it_is_never_called_gold_of_real_notes(tmp_path: Path) -> None:
    task = review_task(access="restricted")
    truth = write_folder(tmp_path / "notes", 40, task)
    decide(tmp_path / "notes", truth)
    found = reviewed_gold(task, tmp_path / "notes", read_dataset(tmp_path / "notes"))
    for part in found.gold.values():
        assert set(part["source"][:]) == {"synthetic"}
        assert set(part["access"][:]) == {"restricted"}
        assert part.features == task.gold_features()
    assert len(found.rest) == 0


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "notes", 60, TASK)
    decide(tmp_path / "notes", truth)
    rows = read_dataset(tmp_path / "notes")
    one, same, other = (
        set(reviewed_gold(TASK, tmp_path / "notes", part, seed=seed).gold["test"]["id"][:])
        for part, seed in ((rows, 0), (rows.select(range(59, -1, -1)), 0), (rows, 1))
    )
    assert one == same
    assert one != other


def test_too_little_is_one_sentence(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "notes", 60, TASK)
    rows = read_dataset(tmp_path / "notes")
    with pytest.raises(GoldError, match=r"^0 notes of .* are labelled, with 0 different labels: label at least 10"):
        reviewed_gold(TASK, tmp_path / "notes", rows)
    decide(tmp_path / "notes", dict.fromkeys(list(truth)[:20], "none"))
    with pytest.raises(GoldError, match="^20 notes of .* with 1 different labels"):
        reviewed_gold(TASK, tmp_path / "notes", rows)
    texts = Task.from_columns("out", text_columns="text", label_column="label", kind="text2text", access="open")
    with pytest.raises(TaskError, match="only single_label tasks"):
        reviewed_gold(texts, tmp_path / "notes", rows)


def test_decisions_on_notes_that_are_gone_are_counted(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "notes", 40, TASK)
    decide(tmp_path / "notes", truth)
    rows, _ = synthetic(40, TASK)
    assert reviewed_gold(TASK, tmp_path / "notes", rows.select(range(25))).unknown == 15
