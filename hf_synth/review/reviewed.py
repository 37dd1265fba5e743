"""Notes that people labelled on the review page as the first gold of a task that has no real notes.

They keep the source "synthetic": what is made of them says nothing of real notes, and the publishing gate does not take
them for gold.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth.errors import GoldError, TaskError
from hf_synth.review.decisions import DIFFER, LABEL, REJECT, UNSURE, Decisions, Outcome, outcomes
from hf_synth.review.log import read_log
from hf_synth.task.columns import strictest
from hf_synth.task.folders import WORK
from hf_synth.task.labels import check_columns
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

TEST_SHARE = 0.4  # of the labelled notes, for the test split
_FEWEST = 10  # labelled notes


@dataclass(frozen=True)
class Reviewed:
    """What a review comes to.

    Args:
        gold: the labelled notes, split into train and test.
        rest: the generated notes that nobody has looked at, with the labels that the LLM was asked for.
        wrong: labelled notes whose label is not the one that the LLM was asked for.
        rejected: notes that a person found unusable; they are in neither.
        open: notes without a label after all: unsure, or reviewers differ; they are in neither.
        unknown: decisions on notes that the folder does not hold.
    """

    gold: DatasetDict
    rest: Dataset
    wrong: int
    rejected: int
    open: int
    unknown: int


def reviewed_gold(task: Task, folder: Path, rows: Dataset, *, seed: int = 0) -> Reviewed:
    """Take the labels that people gave on the review page as gold, and split them by label into train and test.

    Args:
        folder: that holds the review.
        rows: of the folder.
        seed: of the split.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: columns are missing.
        GoldError: too few notes are labelled, or all have one label.
        OutputError: a file of decisions is damaged.
    """
    from datasets import Dataset, DatasetDict

    if task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: only single_label tasks have a review of labels")
    check_columns(task, rows, "id", "llm_label", "label_status", what=str(folder))
    found = _outcomes(folder)
    labels = {id: outcome.label for id, outcome in found.items() if outcome.do == LABEL}
    place = {str(id): i for i, id in enumerate(rows["id"][:])}
    known = {id: label for id, label in labels.items() if id in place and label in task.labels}
    counts = Counter(known.values())
    if len(known) < _FEWEST or len(counts) < 2:
        own = task.script is not None and task.script.endswith(".py")
        script = " --task SCRIPT.py" if own else ""
        raise GoldError(
            f"{len(known)} notes of {folder} are labelled, with {len(counts)} different labels: label at least "
            f"{_FEWEST} notes with 2 labels on the page (hf-synth review {folder}{script} --n 50)"
        )
    part = rows.select([place[id] for id in known])
    meant = [task.labels[i] for i in part["llm_label"][:]]
    gold = [
        {
            **task.gold_row(str(row["id"]), str(row["group"] or row["id"]), known[str(row["id"])], *texts),
            "source": "synthetic",
            "access": strictest(task.access, row["access"]),
        }
        for row, texts in zip(
            part.select_columns(["id", "group", "access"]),
            zip(*(part[c][:] for c in task.text_columns), strict=True),
            strict=True,
        )
    ]
    split = _split(known, seed)
    features = task.gold_features()
    parts = {
        name: Dataset.from_list([row for row in gold if split[row["id"]] == name], features=features)
        for name in ("train", "test")
    }
    statuses = rows["label_status"][:]
    rest = [i for id, i in place.items() if id not in found or statuses[i] == "rejected"]
    dos = Counter(outcome.do for id, outcome in found.items() if id in place)
    return Reviewed(
        DatasetDict(parts),
        rows.select(rest),
        wrong=sum(known[str(id)] != name for id, name in zip(part["id"][:], meant, strict=True)),
        rejected=dos[REJECT],
        open=dos[UNSURE] + dos[DIFFER],
        unknown=sum(id not in place for id in found),
    )


def _outcomes(folder: Path) -> Mapping[str, Outcome]:
    """Return what all reviewers of a folder decided, by row id."""
    reviewers: dict[str, Decisions] = {}
    for file in sorted((folder / WORK / "review" / "labels").glob("*.jsonl")):
        if events := read_log(file):
            reviewers[str(events[0].get("reviewer", file.stem))] = Decisions(events[1:])
    return outcomes(reviewers)


def _split(labels: Mapping[str, str], seed: int) -> dict[str, str]:
    """Return "train" or "test" for each id: of each label the share for the test, drawn by a hash of the ids."""
    by_label: dict[str, list[str]] = {}
    for id, label in labels.items():
        by_label.setdefault(label, []).append(id)
    split: dict[str, str] = {}
    for ids in by_label.values():
        order = sorted(ids, key=lambda id: hashlib.sha256(f"{seed}\x1f{id}".encode()).digest())
        tested = round(TEST_SHARE * len(order))
        split |= {id: "test" if i < tested else "train" for i, id in enumerate(order)}
    return split
