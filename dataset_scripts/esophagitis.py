"""Esophagitis: the CTCAE grade in radiation-oncology notes, from the user's own files, which never leave the site.

The paper's notes are private (1,524 gold notes of 124 patients, 1,243 of them for training; arXiv 2403.19511), so this
task reads the user's own notes, as .csv, .tsv, .jsonl or .parquet:

    folder/                         or a single file, which is then split by patient
      train.csv
      validation.csv (or dev.csv)                   optional
      test.csv                                      optional
      out_of_domain.csv                             optional: notes of another disease site (345 in the paper)

Columns, with other accepted names:
    text          gpt_section, "Full Text"           the note
    grade         degree, "Free Text Grade"          0, 1, 2 or 3 (CTCAE v5.0)
    patient_id    patient, mrn_hash                  optional but wanted: notes of one patient never straddle a split
    note_id       id                                 optional; the row's number is used otherwise

Configs: `grade` 0/1/2/3 - `presence` 0 against 1-3 - `severe` 0-1 against 2-3 - `three` 0/1/2-3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hf_synth.gold import ROWS, GoldBuilder, Parts, label_field, pick_column, read_table, text_field
from hf_synth.task import TABLES, Fact, Facts, Prompt, Task

# CTCAE v5.0, esophagitis, in our own words (https://ctep.cancer.gov, CTCAE v5.0); 4 and 5 are not in the data.
MEANINGS = (
    "no esophagitis",
    "asymptomatic; seen or suspected only, observation only",
    "symptomatic; eating or swallowing altered, oral supplements",
    "eating or swallowing severely altered; tube feeding, TPN or hospital admission",
)

# The label must not stand in the text: phrases such as "grade 2", and a section that tabulates toxicity grades.
LEAKS = (
    # its heading, blank lines, and what follows up to a blank line or a heading in capitals
    r"(?m)^[ \t]*(?i:toxicity grading)\b[^\r\n]*(?:\r?\n[ \t]*(?=\r?\n))*"
    r"(?:\r?\n(?![ \t]*\r?$|[ \t]*[A-Z][A-Z /&]+:)[^\r\n]*)*",
    r"(?i)\bgr(?:ade)?\.?[\s:=-]*(?:[0-5]|i{1,3}|iv|v|zero|one|two|three|four|five)\b"
    r"(?:\s*(?:-|–|/|to|or|and)\s*(?:gr(?:ade)?\.?\s*)?(?:[0-5]|i{1,3}|iv|v)\b)*",
)

PROMPT = Prompt(
    system="You are a radiation oncologist who writes realistic, wholly invented excerpts of clinic notes for "
    "teaching a classifier. Vary patients, courses, wording and length. Never copy an example.",
    instruction="Write new excerpts of notes of patients treated with radiation to the chest. What a reader needs to "
    "grade esophagitis by CTCAE v5.0 must be in the text; the grade itself must not.",
    exemplars="one_per_label",
    n_exemplars=1,
    asks_for="every_label",
    rows=5,
    sampling=(("temperature", 0.1), ("top_p", 0.95)),  # the paper's sampling for this task
)

# What a grade follows from by CTCAE v5.0: the worst of these decides. The patterns check what a generator wrote.
SEEN = r"(?:endoscop|esophagoscop|barium|imaging|scan|\bCT\b)[^.]{0,80}(?:erythema|thicken|change|inflam|edema)"
SOFT = r"soft(?:er)?\b[^.]{0,20}(?:diet|food|meal)|puree|liquid diet|(?:full|only) liquids|blended|mashed|soups?\b"
STAY = r"(?:hospitali[sz]|admitted|admission)[^.]{0,60}(?:because of it|esophag|swallow|phagia|dehydrat|nutriti|intake)"
TUBE = r"feeding tube|\bPEG\b|gastrostomy|nasogastric|\bNG tube|tube feed"
FACTS = Facts(
    items=(
        Fact("swallowing", (
            ("no pain or trouble, ordinary meals", 0, ""),
            ("no symptom, though imaging or endoscopy shows a mild change of the esophagus", 1, SEEN),
            ("painful, and the diet was changed to soft or liquid food", 2, SOFT),
        )),
        Fact("support", (
            ("none", 0, ""),
            ("oral nutritional supplements", 2, r"supplement|\bensure\b|\bboost\b|nutrition(?:al)? (?:shake|drink)"),
        )),
        Fact("severe measures", (
            ("none", 0, ""),
            ("a feeding tube was placed", 3, TUBE),
            ("parenteral nutrition", 3, r"\bTPN\b|parenteral nutrition"),
            ("admitted to hospital because of it", 3, STAY),
        )),
    ),
    combine="max",
    bounds=(1, 2, 3),
)  # fmt: skip

GRADE = Task(
    name="esophagitis",
    config="grade",
    kind="single_label",
    text_columns=("text",),
    label_column="label",
    labels=("grade_0", "grade_1", "grade_2", "grade_3"),
    label_meanings=MEANINGS,
    prompts=(PROMPT,),
    metrics=("macro_f1", "accuracy", "patient_macro_f1"),
    access="restricted",
    source_url="https://arxiv.org/abs/2403.19511",
    license="the owner's",
    citation="Improving Clinical NLP Performance through Language Model-Generated Synthetic Clinical Data. "
    "arXiv:2403.19511.",
    group_column="group",
    leaks=LEAKS,
    facts=FACTS,
    files=TABLES | {"out_of_domain": tuple(n.replace("test.", "out_of_domain.") for n in TABLES["test"])},
    optional_files=("validation", "test", "out_of_domain"),
    suites=("paper",),
    description="CTCAE v5.0 grade of esophagitis that a radiation-oncology note documents.",
)

# How each config names the four grades.
MERGED = {
    "grade": ("grade_0", "grade_1", "grade_2", "grade_3"),
    "presence": ("none", "esophagitis", "esophagitis", "esophagitis"),
    "severe": ("grade_0_1", "grade_0_1", "grade_2_3", "grade_2_3"),
    "three": ("grade_0", "grade_1", "grade_2_3", "grade_2_3"),
}


def _merge(config: str) -> Task:
    names = tuple(dict.fromkeys(MERGED[config]))
    meanings = (" - or: ".join(m for m, n in zip(MEANINGS, MERGED[config], strict=True) if n == name) for name in names)
    bounds = tuple(MERGED[config].index(name) for name in names[1:])  # the lowest grade of each label but the first
    facts = replace(FACTS, bounds=bounds)
    return replace(GRADE, config=config, labels=names, label_meanings=tuple(meanings), facts=facts)


TASKS = {config: _merge(config) for config in MERGED}


class Esophagitis(GoldBuilder):
    """Read the user's own graded notes."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the table of one split."""
        file = files[ROWS][0]
        names = {str(grade): name for grade, name in enumerate(MERGED[self.config.name])}
        for number, row in read_table(file):
            text = pick_column(file, row, "text", "gpt_section", "Full Text") or ""
            grade = pick_column(file, row, "grade", "degree", "Free Text Grade") or ""
            patient = pick_column(file, row, "patient_id", "patient", "mrn_hash", required=False)
            note = pick_column(file, row, "note_id", "id", required=False)
            id = f"{split}-{row[note] if note and row[note] not in (None, '') else f'row-{number}'}"
            group = str(row[patient]) if patient and row[patient] not in (None, "") else None
            label = label_field(file, number, row, grade, names)
            yield self.task.gold_row(id, group, label, text_field(file, number, row, text))
