"""Templates of `hf-synth new-task NAME`: a task script to fill in, and its test."""

from __future__ import annotations

SCRIPT = '''"""{title}: one sentence on what the label of a note means.

Where to get it: the page, the site, or "our own notes". Expected folder or archive (.zip, .tar.gz):

    folder/                              or a single file, which is then split by patient
      train.csv                          .csv, .tsv, .jsonl or .parquet
      validation.csv (or dev.csv)        optional
      test.csv                           optional

Columns: text, label (low or high), patient_id (optional), note_id (optional).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hf_synth.gold import (
    ROWS,
    GoldBuilder,
    Parts,
    label_field,
    pick_column,
    read_table,
    text_field,
)
from hf_synth.task import TABLES, Prompt, Task

# A label, and what a clinician would say it means: the generator reads this.
LABELS = {{
    "low": "nothing in the note asks for quick action",
    "high": "something in the note asks for action today",
}}

PROMPT = Prompt(
    system="You are a clinician who writes realistic, wholly invented notes for teaching a classifier. Vary patients, "
    "wording and length. Never copy an example.",
    instruction="Write new clinical notes. The facts that decide the label must be in the text; the label must not.",
    exemplars="one_per_label",  # or "mixed", or "same_label" with asks_for="one_label"
    n_exemplars=1,
    rows=5,  # rows of each label that one call asks for
)

TASKS = {{
    # one entry a config; the first is the default
    "default": Task(
        name="{name}",
        kind="single_label",  # or "multi_label", or "text2text" (then without labels)
        text_columns=("text",),  # two for a pair
        label_column="label",
        labels=tuple(LABELS),
        label_meanings=tuple(LABELS.values()),
        prompts=(PROMPT,),
        metrics=("macro_f1", "accuracy"),
        access="restricted",  # "open": may be published; "credentialed": neither it nor its derivatives
        license="the owner's",
        language="en",  # of the notes, an ISO 639 code: it stands on every card
        group_column="group",
        leaks=(r"(?i)\\burgency: \\w+",),  # patterns that give the label away: such synthetic notes are refused
        files=TABLES,  # or {{"train": ("notes.csv",), "test": ("more/notes.csv",)}}
        optional_files=("validation", "test"),
        version="1.0.0",  # raise it when prompt, labels or reading change
        description="How urgent a note is.",
    )
}}


class {title}(GoldBuilder):
    """Read the user's own notes."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the table of one split; a wrong row is an error that names file and row."""
        file = files[ROWS][0]
        for number, row in read_table(file):
            for column in ("text", "label"):
                pick_column(file, row, column)
            label = label_field(file, number, row, "label", {{name: name for name in LABELS}})
            note, patient = (None if row.get(c) in (None, "") else str(row[c]) for c in ("note_id", "patient_id"))
            id = f"{{split}}-row-{{number}}" if note is None else f"{{split}}-{{note}}"
            yield self.task.gold_row(id, patient, label, text_field(file, number, row, "text"))
'''

TEST = '''"""Run with `pytest`: reads a miniature file in the layout of {name}. Never put a row of real notes here."""

import csv
from pathlib import Path

import pytest

from hf_synth import load_gold, load_task
from hf_synth.errors import RowError

SCRIPT = Path(__file__).with_name("{name}.py")
ROWS = [[f"Made-up note {{i}}.", "high" if i % 3 == 0 else "low", f"p{{i // 2}}"] for i in range(40)]


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label", "patient_id"], *rows])
    return path


def test_it_reads_its_files(tmp_path: Path) -> None:
    task = load_task(SCRIPT)
    gold = load_gold(task, write(tmp_path / "notes.csv", ROWS))
    assert sum(len(rows) for rows in gold.values()) == len(ROWS)
    assert gold["train"].features["label"].names == list(task.labels)
    assert not set(gold["train"]["group"]) & set(gold["test"]["group"])


def test_a_wrong_label_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "notes.csv", [*ROWS, ["Made up.", "unheard of", "p99"]])
    with pytest.raises(RowError, match=f"row {{len(ROWS) + 1}}"):
        load_gold(load_task(SCRIPT), file)
'''


def starter_files(name: str) -> dict[str, str]:
    """Return the text of a task script and of its test, by file name."""
    title = "".join(part.capitalize() for part in name.split("_"))
    return {f"{name}.py": SCRIPT.format(name=name, title=title), f"test_{name}.py": TEST.format(name=name)}
