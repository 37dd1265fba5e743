"""ProbSumm (BioNLP 2023 task 1A): summarise a progress note into the list of the patient's main problems.

Where to get it: https://physionet.org/content/bionlp-workshop-2023-task-1a/ (credentialed; notes of MIMIC-III).
Expected folder or archive:

    BioNLP2023-1A-Train.csv               768 notes
    BioNLP2023-1A-Test.csv                237 notes, optional

Columns: "File ID", Assessment, Summary (problems, separated by ";"), "Subjective Sections", "Objective Sections". Rows
without an assessment or summary are left out; a warning counts them.

Configs: `assessment`, from the assessment alone, as in DR.BENCH (arXiv 2209.14901) and the paper - `note`, from the
assessment followed by the subjective and objective sections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hf_synth.gold import ROWS, GoldBuilder, Parts, pick_column, read_csv, text_field
from hf_synth.task import Prompt, Task

# The paper's shape: 2 gold notes of mixed content, 1 new note with its summary.
PROMPT = Prompt(
    system="You are an intensivist who writes realistic, wholly invented parts of progress notes for teaching a "
    "summarizer. Vary patients, diseases, wording and length. Never copy an example.",
    instruction="Write the assessment of a new progress note (the document), and the list of the main problems and "
    "diagnoses that it supports (the summary), in the order of their weight, separated by semicolons. The summary "
    "holds nothing that the document gives no reason for.",
    exemplars="mixed",
    n_exemplars=2,
    rows=1,
)

ASSESSMENT = Task(
    name="problem_summary",
    config="assessment",
    kind="text2text",
    text_columns=("document",),
    label_column="summary",
    labels=(),
    prompts=(PROMPT,),
    metrics=("rougeL", "rouge1", "rouge2"),
    access="credentialed",
    source_url="https://physionet.org/content/bionlp-workshop-2023-task-1a/",
    license="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Gao, Dligach, Miller, Churpek, Afshar. Overview of the Problem List Summarization (ProbSum) 2023 Shared "
    "Task. BioNLP 2023.",
    group_column="group",
    files={"train": ("BioNLP2023-1A-Train.csv",), "test": ("BioNLP2023-1A-Test.csv",)},
    optional_files=("test",),
    suites=("paper", "DR.BENCH"),
    description="The main problems of a patient, listed from the assessment of a progress note.",
)

TASKS = {
    "assessment": ASSESSMENT,
    "note": replace(
        ASSESSMENT,
        config="note",
        prompts=(
            replace(
                PROMPT,
                instruction="Write a new progress note (the document: assessment, then subjective and objective "
                "sections, 300 to 500 words), and the list of the main problems and diagnoses that it supports (the "
                "summary), separated by semicolons.",
            ),
        ),
        description="The main problems of a patient, listed from the sections of a progress note.",
    ),
}


class ProblemSummary(GoldBuilder):
    """Read the CSV files of BioNLP 2023 task 1A."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the notes of one split."""
        task, file = self.task, files[ROWS][0]
        sections = {"Assessment": "", "Subjective Sections": "Subjective", "Objective Sections": "Objective"}
        for number, row in read_csv(file):
            for column in ("File ID", "Summary", *sections):
                pick_column(file, row, column)
            if not row["Summary"].strip() or not row["Assessment"].strip():
                self.leave_out(file, "have no assessment or no summary")
                continue
            document = row["Assessment"]
            if task.config == "note":
                parts = [(title, row[column]) for column, title in sections.items() if row[column].strip()]
                document = "\n\n".join(f"{title}:\n{text}" if title else text for title, text in parts)
            note = text_field(file, number, row, "File ID")
            yield task.gold_row(f"{split}-{number}", note, row["Summary"], document)
