"""MTS-Dialog: the section a passage of a clinical note belongs to (real, openly licensed text).

Expected folder, as the source's `Main-Dataset` has it:

    MTS-Dialog-TrainingSet.csv                          1,201 rows
    MTS-Dialog-ValidationSet.csv                          100 rows
    MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv             200 rows
    MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv              200 rows, optional: becomes split `test2`

Columns: ID, section_header (20 values), section_text, dialogue. Config `section`: section_text -> section_header.
30 texts of the first test set and 17 of validation stand in train too; official splits stay as they are, and
`evaluate(..., exclude=train)` gives the scores without those rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from hf_synth.reading import label_field, pick_column, read_csv, text_field
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

PROMPT = Prompt(
    system="You are a clinician who writes realistic, wholly invented passages of outpatient notes for teaching a "
    "classifier. Vary patients, specialties, wording and length. Never copy an example and never write the heading.",
    instruction="Write new passages of clinical notes. Each passage is the body of one section of a note; its label is "
    "that section.",
    exemplars="same_label",
    n_exemplars=3,
    asks_for="one_label",
    rows=4,
)

TASKS = {
    "section": Task(
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
        optional_splits=("test2",),
        description="Which of 20 sections a passage of a clinical note belongs to.",
    )
}


class MtsDialog(datasets.GeneratorBasedBuilder):
    """Read the CSV files of MTS-Dialog."""

    BUILDER_CONFIGS = [datasets.BuilderConfig(name=c, version=t.version) for c, t in TASKS.items()]  # noqa: RUF012

    def _info(self) -> datasets.DatasetInfo:
        task = TASKS[self.config.name]
        return datasets.DatasetInfo(features=task.gold_features(), license=task.license, homepage=task.source_url)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        files = self.config.data_files
        return [datasets.SplitGenerator(s, gen_kwargs={"file": Path(f[0]), "split": s}) for s, f in files.items()]

    def _generate_examples(self, file: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        task = TASKS[self.config.name]
        names = {h: h for h in HEADERS}
        for number, row in read_csv(file):
            for column in ("ID", "section_header", "section_text"):
                pick_column(file, row, column)
            label = label_field(file, number, row, "section_header", names)
            id = f"{split}-{text_field(file, number, row, 'ID')}"
            yield id, task.gold_row(id, None, label, text_field(file, number, row, "section_text"))
