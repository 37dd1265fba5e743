"""SOAP section tagging: the section of a progress note that a line belongs to, with the lines around it as context.

UNVERIFIED: this was written without the files at hand. Where to get them:
https://physionet.org/content/task-1-3-soap-note-tag/1.0.0/ (credentialed; notes of MIMIC-III; DR.BENCH, arXiv
2209.14901). Any table with one row for each line is read, in the order of the note:

    folder/                              or a single file, which is then split by note
      train.csv                          .csv, .tsv, .jsonl or .parquet
      validation.csv (or dev.csv)        optional
      test.csv                           optional

Columns, with accepted names; options set others (`load_gold(task, path, tag_column="soap")`):
    text_column    text, line, Line, sentence           the line
    tag_column     label, tag, Tag, SOAP                S, O, A, P, or the word, in any case
    note_column    note_id, File ID, file_id, HADM ID   the note; lines of one note stay together

Lines without text or tag are left out; a warning counts them. The context of a line is up to two lines before and after
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import datasets

from hf_synth.errors import RowError
from hf_synth.gold import ROWS, GoldBuilder, Parts, label_field, pick_column, read_table
from hf_synth.task import TABLES, Prompt, Task

SECTIONS = {
    "subjective": "what the patient or others report: complaints, history, events, review of systems",
    "objective": "what was measured or found: vital signs, examination, laboratory values, imaging, medications given",
    "assessment": "what the writer concludes: summary of the patient, diagnoses, reasoning",
    "plan": "what is to be done: treatments, tests, consults, disposition",
}
AROUND = 2  # lines of context before and after

PROMPT = Prompt(
    system="You are a physician who writes realistic, wholly invented lines of daily progress notes for teaching a "
    "classifier. Vary patients, diseases and wording. Never copy an example.",
    instruction="Write new lines of progress notes: the text is the line to be classified, the context is that line "
    "with the lines before and after it as they stand in the note. The label is the section the line belongs to.",
    exemplars="one_per_label",
    n_exemplars=1,
    asks_for="every_label",
    rows=3,
)

TASKS = {
    "default": Task(
        name="soap",
        kind="single_label",
        text_columns=("text", "context"),
        label_column="label",
        labels=tuple(SECTIONS),
        label_meanings=tuple(SECTIONS.values()),
        prompts=(PROMPT,),
        metrics=("accuracy", "macro_f1"),
        access="credentialed",
        language="en",
        source_url="https://physionet.org/content/task-1-3-soap-note-tag/1.0.0/",
        license="PhysioNet Credentialed Health Data License 1.5.0",
        citation="Gao, Dligach, Miller et al. Hierarchical Annotation for Building A Suite of Clinical Natural "
        "Language Processing Tasks: Progress Note Understanding. LREC 2022.",
        group_column="group",
        files=TABLES,
        optional_files=("validation", "test"),
        suites=("DR.BENCH",),
        unverified="the names of files and columns",
        description="Which section of a progress note (subjective, objective, assessment, plan) a line belongs to.",
    )
}


@dataclass
class SoapConfig(datasets.BuilderConfig):
    """The columns of the user's table, where they have other names than the accepted ones."""

    text_column: str | None = None
    tag_column: str | None = None
    note_column: str | None = None


class Soap(GoldBuilder):
    """Read tables of tagged lines."""

    TASKS = TASKS
    BUILDER_CONFIG_CLASS = SoapConfig

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the lines of one split, note by note."""
        task, file = self.task, files[ROWS][0]
        spelled = {form: name for name in SECTIONS for form in (name, name[0])}
        numbered = ((number, row, *self._columns(file, row)) for number, row in read_table(file))
        earlier: set[str] = set()
        for note, grouped in groupby(numbered, key=lambda item: str(item[1][item[4]] or "").strip()):
            lines = list(grouped)
            if not note:
                raise RowError(
                    file.name, lines[0][0], "names no note; fill that column, since lines of a note go together"
                )
            if note in earlier:
                raise RowError(file.name, lines[0][0], "goes back to an earlier note; sort the lines by note")
            earlier.add(note)
            texts = [str(row[text] or "") for _, row, text, _, _ in lines]
            for at, (number, row, _, tag, _) in enumerate(lines):
                value = str(row[tag] or "").strip().lower()
                if not texts[at].strip() or not value:
                    self.leave_out(file, "have no text or no tag")
                    continue
                label = label_field(file, number, {tag: value}, tag, spelled)
                context = "\n".join(texts[max(0, at - AROUND) : at + AROUND + 1])
                yield task.gold_row(f"{split}-{number}", note, label, texts[at], context)

    def _columns(self, file: Any, row: dict[str, Any]) -> tuple[str, str, str]:
        """Return the names of text, tag and note columns."""

        def pick(own: str | None, *names: str) -> str:
            return str(pick_column(file, row, *((own,) if own else names)))

        config = self.config
        return (
            pick(config.text_column, "text", "line", "Line", "sentence"),
            pick(config.tag_column, "label", "tag", "Tag", "SOAP"),
            pick(config.note_column, "note_id", "File ID", "file_id", "HADM ID"),
        )
