"""ProbSumm (BioNLP 2023 task 1A): summarise a progress note into the list of the patient's main problems.

Where to get it: https://physionet.org/content/bionlp-workshop-2023-task-1a/ (credentialed; notes of MIMIC-III).
Expected folder or archive, of any version up to 2.0.0:

    BioNLP2023-1A-Train.csv               768 notes
    BioNLP2023-1A-Test.csv                237 notes, optional; versions 1.x have no summaries in it: then it is left out

or the files that DR.BENCH's authors made of them (both names are from public code that reads them):

    summ_0821_train.csv, summ_0821_dev.csv, summ_0821_test.csv

Columns: "File ID", Assessment, Summary (problems, separated by ";"), "Subjective Sections" ("Subjectives" in the test
file of 2.0.0, "S" in DR.BENCH's), "Objective Sections" ("Objectives", "O"). Rows without an assessment or summary are
left out; a warning counts them.

Configs: `assessment`, from the assessment alone, one of the three inputs that DR.BENCH compares (arXiv 2209.14901: all
sections; subjective sections and assessment; assessment) - `note`, from the assessment followed by the subjective and
objective sections, which is DR.BENCH's first input and what the paper's prompts show.

`template="drbench"` writes inputs and targets as DR.BENCH's public code does: "<ASSESSMENT> ... <SUBJECTIVE> ...
<OBJECTIVE> ...", and summaries without punctuation. The default has headings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import datasets

from hf_synth.errors import GoldError
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
    language="en",
    source_url="https://physionet.org/content/bionlp-workshop-2023-task-1a/",
    license="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Gao, Dligach, Miller, Churpek, Afshar. Overview of the Problem List Summarization (ProbSum) 2023 Shared "
    "Task. BioNLP 2023.",
    group_column="group",
    files={
        "train": ("BioNLP2023-1A-Train.csv", "summ_0821_train.csv"),
        "validation": ("summ_0821_dev.csv",),
        "test": ("BioNLP2023-1A-Test.csv", "summ_0821_test.csv"),
    },
    optional_files=("validation", "test"),
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


SECTIONS = {  # title, tag of DR.BENCH -> names of the column
    ("", "<ASSESSMENT>"): ("Assessment",),
    ("Subjective", "<SUBJECTIVE>"): ("Subjective Sections", "Subjectives", "S"),
    ("Objective", "<OBJECTIVE>"): ("Objective Sections", "Objectives", "O"),
}


@dataclass
class ProblemSummaryConfig(datasets.BuilderConfig):
    """The form of input and target: "headings", or "drbench"."""

    template: str = "headings"


class ProblemSummary(GoldBuilder):
    """Read the CSV files of BioNLP 2023 task 1A, or of DR.BENCH."""

    TASKS = TASKS
    BUILDER_CONFIG_CLASS = ProblemSummaryConfig

    def unusable(self, split: str, files: Parts) -> str:
        """Return why a test file cannot be used: early versions have no summaries in it."""
        file = files[ROWS][0]
        row = next((row for _, row in read_csv(file)), {"Summary": ""})
        return "" if "Summary" in row else f"{file.name} has no column 'Summary', as in versions 1.x of the source"

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the notes of one split."""
        task, file, tagged = self.task, files[ROWS][0], self.config.template == "drbench"
        if self.config.template not in ("headings", "drbench"):
            raise GoldError(f"template must be 'headings' or 'drbench', not {self.config.template!r}")
        sections = SECTIONS if task.config == "note" else dict(list(SECTIONS.items())[:1])
        for number, row in read_csv(file):
            for column in ("File ID", "Summary"):
                pick_column(file, row, column)
            texts = {section: row[pick_column(file, row, *names) or ""] for section, names in sections.items()}
            if not row["Summary"].strip() or not row["Assessment"].strip():
                self.leave_out(file, "have no assessment or no summary")
                continue
            note, summary = text_field(file, number, row, "File ID"), row["Summary"]
            if tagged:
                document = " ".join(f"{tag} {text.strip()}" for (_, tag), text in texts.items())
                summary = re.sub(r"\W+", " ", summary).strip()
            else:
                document = "\n\n".join(
                    f"{title}:\n{text}" if title else text for (title, _), text in texts.items() if text.strip()
                )
            if not summary:
                self.leave_out(file, "have no assessment or no summary")
                continue
            yield task.gold_row(f"{split}-{number}", note, summary, document)
