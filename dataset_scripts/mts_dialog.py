"""MTS-Dialog: sections of clinical notes and doctor-patient conversations (real, openly licensed text).

Where to get it: https://github.com/abachaa/MTS-Dialog. Expected folder, its `Main-Dataset`:

    MTS-Dialog-TrainingSet.csv                          1,201 rows
    MTS-Dialog-ValidationSet.csv                          100 rows
    MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv             200 rows
    MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv              200 rows, optional: becomes split `test2`

Columns: ID, section_header (20 values), section_text, dialogue. 30 texts of the first test set and 17 of validation are
also in train; official splits stay as they are, and `evaluate(..., exclude=train)` scores the other rows.

Configs: `section`, section_text -> section_header - `dialogue`, dialogue -> section_header - `summary`, dialogue ->
section_text (text2text).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hf_synth.gold import ROWS, GoldBuilder, Parts, label_field, pick_column, read_csv, text_field
from hf_synth.task import Prompt, Task

HEADERS = {
    "FAM/SOCHX": "family or social history",
    "GENHX": "history of present illness",
    "PASTMEDICALHX": "past medical history",
    "CC": "chief complaint",
    "PASTSURGICAL": "past surgical history",
    "ALLERGY": "allergies",
    "ROS": "review of systems",
    "MEDICATIONS": "medications",
    "ASSESSMENT": "assessment",
    "EXAM": "physical examination",
    "DIAGNOSIS": "diagnosis",
    "DISPOSITION": "disposition",
    "PLAN": "plan",
    "EDCOURSE": "emergency department course",
    "IMMUNIZATIONS": "immunizations",
    "IMAGING": "imaging",
    "GYNHX": "gynecologic history",
    "PROCEDURES": "procedures",
    "OTHER_HISTORY": "other history",
    "LABS": "laboratory results",
}

SYSTEM = (
    "You are a clinician who writes realistic, wholly invented {what} for teaching a {model}. Vary patients, "
    "specialties, wording and length. Never copy an example{never}."
)

PROMPT = Prompt(
    system=SYSTEM.format(what="passages of outpatient notes", model="classifier", never=" and never write the heading"),
    instruction="Write new passages of clinical notes. Each passage is the body of one section of a note; its label is "
    "that section.",
    exemplars="same_label",
    n_exemplars=3,
    asks_for="one_label",
    rows=4,
)
DIALOGUE_PROMPT = replace(
    PROMPT,
    system=SYSTEM.format(what="conversations of doctor and patient", model="classifier", never=""),
    instruction="Write new conversations, each line begun by who speaks. Each conversation is about what one section "
    "of the note will hold; its label is that section. Nobody in it names the section.",
    n_exemplars=2,
    rows=2,
)
SUMMARY_PROMPT = Prompt(
    system=SYSTEM.format(what="conversations of doctor and patient", model="summarizer", never=""),
    instruction="Write new conversations of a doctor and a patient, each line begun by who speaks, and for each the "
    "passage of the clinical note that a careful doctor would write from it and nothing else.",
    exemplars="mixed",
    n_exemplars=2,
    rows=2,
)

SECTION = Task(
    name="mts_dialog",
    config="section",
    kind="single_label",
    text_columns=("text",),
    label_column="label",
    labels=tuple(HEADERS),
    label_meanings=tuple(HEADERS.values()),
    prompts=(PROMPT,),
    metrics=("macro_f1", "accuracy", "macro_f1_min10"),
    access="open",
    language="en",
    license="CC-BY-4.0",
    source_url="https://github.com/abachaa/MTS-Dialog",
    citation="Ben Abacha, Yim, Fan, Lin. An Empirical Study of Clinical Note Generation from Doctor-Patient "
    "Encounters. EACL 2023.",
    files={
        "train": ("MTS-Dialog-TrainingSet.csv",),
        "validation": ("MTS-Dialog-ValidationSet.csv",),
        "test": ("MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv",),
        "test2": ("MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv",),
    },
    optional_files=("test2",),
    suites=("extra",),
    description="Which of 20 sections a passage of a clinical note belongs to.",
)

TASKS = {
    "section": SECTION,
    "dialogue": replace(
        SECTION,
        config="dialogue",
        prompts=(DIALOGUE_PROMPT,),
        description="Which of 20 sections of a clinical note a conversation of doctor and patient fills.",
    ),
    "summary": replace(
        SECTION,
        config="summary",
        kind="text2text",
        text_columns=("document",),
        label_column="summary",
        labels=(),
        label_meanings=(),
        prompts=(SUMMARY_PROMPT,),
        metrics=("rougeL", "rouge1", "rouge2"),
        description="The passage of a clinical note that sums a conversation of doctor and patient up.",
    ),
}


class MtsDialog(GoldBuilder):
    """Read the CSV files of MTS-Dialog."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the table of one split."""
        task, file = self.task, files[ROWS][0]
        names = {h: h for h in HEADERS}
        column = "section_text" if task.config == "section" else "dialogue"
        for number, row in read_csv(file):
            for name in ("ID", "section_header", "section_text", "dialogue"):
                pick_column(file, row, name)
            id, text = f"{split}-{text_field(file, number, row, 'ID')}", text_field(file, number, row, column)
            if task.kind == "text2text":
                label = text_field(file, number, row, "section_text")
            else:
                label = label_field(file, number, row, "section_header", names)
            yield task.gold_row(id, None, label, text)
