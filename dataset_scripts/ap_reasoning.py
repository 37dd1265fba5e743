"""A/P Reasoning (n2c2 2022 Track 3): the relation of a section of the plan to the assessment of a progress note.

Where to get it: https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ (n2c2 2022 Track 3, credentialed; notes of
MIMIC-III). Expected folder or archive:

    train.csv                            4,633 pairs (numbers from general knowledge)
    dev.csv                                597 pairs
    n2c2_track3_test.csv                   667 pairs, optional; one without relations (the blind one) is left out

Columns: "HADM ID" (the admission, which is the group), Assessment, "Plan Subsection", Relation. Rows whose assessment,
plan or relation is empty are left out; a warning counts them.

Configs: `pair` - `text2text`, DR.BENCH's form (arXiv 2209.14901): both in one input, the relation as text, scored by
macro-F1 as in the challenge; case and punctuation of an answer do not count. The wording of its input template is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hf_synth.gold import ROWS, GoldBuilder, Parts, label_field, pick_column, read_csv, text_field
from hf_synth.task import Prompt, Task

RELATIONS = {
    "direct": "the plan treats or works up the main problem of the assessment, or one that causes it",
    "indirect": "the plan is for another problem that the assessment names or that follows from the main one",
    "neither": "the plan is for a problem that the assessment neither names nor implies",
    "not_relevant": "the section holds no problem: prophylaxis, diet, lines, code status, disposition",
}
SPELLED = {"Direct": "direct", "Indirect": "indirect", "Neither": "neither", "Not Relevant": "not_relevant"}
INPUT = "assessment: {assessment}\nplan: {plan}\nrelation?"


def _as_text(relation: str) -> str:
    """Return a relation as it is written in a text."""
    return relation.replace("_", " ")


# The paper's shape: 3 gold rows of one label, 1 new row of that label.
PROMPT = Prompt(
    system="You are an intensivist who writes realistic, wholly invented parts of progress notes for teaching a model "
    "to reason about care. Vary diseases, wording and length. Never copy an example.",
    instruction="Write a new assessment of a patient (the premise) and one section of the plan (the hypothesis) as "
    "they stand in a daily progress note. The label says how the section relates to the assessment.",
    exemplars="same_label",
    n_exemplars=3,
    asks_for="one_label",
    rows=1,
)

PAIR = Task(
    name="ap_reasoning",
    config="pair",
    kind="single_label",
    text_columns=("premise", "hypothesis"),
    label_column="label",
    labels=tuple(RELATIONS),
    label_meanings=tuple(RELATIONS.values()),
    prompts=(PROMPT,),
    metrics=("macro_f1", "accuracy"),
    access="credentialed",
    language="en",
    source_url="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
    license="n2c2 data use agreement",
    citation="Gao, Dligach, Miller et al. Progress Note Understanding: Assessment and Plan Reasoning, n2c2 2022 "
    "Track 3. Journal of Biomedical Informatics 2023.",
    group_column="group",
    files={
        "train": ("train.csv",),
        "validation": ("dev.csv",),
        "test": ("n2c2_track3_test.csv", "test.csv"),
    },
    optional_files=("test",),
    suites=("paper", "DR.BENCH"),
    description="How a section of the plan of a progress note relates to its assessment.",
)

TASKS = {
    "pair": PAIR,
    "text2text": replace(
        PAIR,
        config="text2text",
        kind="text2text",
        text_columns=("input",),
        label_column="target",
        labels=(),
        label_meanings=(),
        targets=tuple(map(_as_text, RELATIONS)),
        version="1.1.0",  # "not relevant" was "not_relevant"
        prompts=(
            replace(
                PROMPT,
                instruction="Write a new assessment of a patient and one section of the plan as they stand in a daily "
                "progress note, in the form of the examples. The target is one of: "
                + "; ".join(f"{_as_text(name)} ({meaning})" for name, meaning in RELATIONS.items())
                + ".",
                exemplars="mixed",
                rows=4,
            ),
        ),
        metrics=("macro_f1", "exact_match"),
        description="A/P Reasoning as text to text: assessment and plan in, the name of the relation out.",
    ),
}


class ApReasoning(GoldBuilder):
    """Read the CSV files of n2c2 2022 Track 3."""

    TASKS = TASKS

    def unusable(self, split: str, files: Parts) -> str:
        """Return why a test file cannot be used: the blind one has no relations."""
        file = files[ROWS][0]
        row = next((row for _, row in read_csv(file)), {"Relation": ""})
        return "" if "Relation" in row else f"{file.name} has no column 'Relation': it is the blind test set"

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the pairs of one split."""
        task, file = self.task, files[ROWS][0]
        columns = ("HADM ID", "Assessment", "Plan Subsection", "Relation")
        for number, row in read_csv(file):
            for column in columns:
                pick_column(file, row, column)
            if any(not row[c].strip() for c in columns[1:]):
                self.leave_out(file, "have an empty assessment, plan or relation")
                continue
            assessment, plan = row["Assessment"], row["Plan Subsection"]
            label = label_field(file, number, row, "Relation", SPELLED)
            group = text_field(file, number, row, "HADM ID")
            id = f"{split}-{number}"
            if task.kind == "text2text":
                yield task.gold_row(id, group, _as_text(label), INPUT.format(assessment=assessment, plan=plan))
            else:
                yield task.gold_row(id, group, label, assessment, plan)
