"""Medication extraction (i2b2 2009): the list of the medications in a discharge summary, with dose, mode, frequency.

Where to get it: https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ (i2b2 2009, credentialed). Expected folder or
archive, wherever the files lie in it (names of folders from general knowledge):

    .../379569                            a note, named by its number, without suffix or with .txt
    .../379569_gold.entries               its annotations; also 379569.entries, 379569.i2b2.entries, 379569.m

    m="aspirin" 12:3 12:3||do="81 mg" 12:4 12:5||mo="po" 12:6 12:6||f="daily" 12:7 12:7||du="nm"||r="nm"||ln="list"

The target has a line for each entry in the order of the note, its fields separated by " | ": medication, dosage, mode,
frequency, duration, reason, list or narrative; "nm" means not mentioned. Event, temporal and certainty (e, t, c) are
not used. Notes without annotations (most of the training notes) are left out; a warning counts them. There are no
official splits of annotated notes: rows are split by note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hf_synth.errors import RowError
from hf_synth.gold import WHOLE, GoldBuilder, Parts, SourceFile, read_text
from hf_synth.task import Prompt, Task

# medication, dosage, mode, frequency, duration, reason, list/narrative
FIELDS = ("m", "do", "mo", "f", "du", "r", "ln")
KNOWN = {*FIELDS, "e", "t", "c"}
FIELD = re.compile(r'(\w+)="(.*)"((?: \d+:\d+ \d+:\d+,?)*)\s*')

PROMPT = Prompt(
    system="You are a physician who writes realistic, wholly invented discharge summaries for teaching a model to "
    "extract medications. Vary patients, medications, wording and length. Never copy an example.",
    instruction="Write a new discharge summary (the document) and the list of the medications it tells of (the "
    "entries): a line for each, its fields separated by ' | ': medication, dosage, mode, frequency, duration, "
    "reason, list or narrative. A field is copied word for word from the document; nm if it is not mentioned.",
    exemplars="mixed",
    n_exemplars=1,
    rows=1,
)

TASKS = {
    "default": Task(
        name="medication_2009",
        kind="text2text",
        text_columns=("document",),
        label_column="entries",
        labels=(),
        prompts=(PROMPT,),
        metrics=("token_f1", "rougeL", "exact_match"),
        access="credentialed",
        source_url="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
        license="n2c2 data use agreement",
        citation="Uzuner, Solti, Cadag. Extracting medication information from clinical text. JAMIA 2010.",
        group_column="group",
        files={
            f"{WHOLE}/notes": ("**/[0-9]*[0-9]", "**/[0-9]*.txt"),
            f"{WHOLE}/entries": ("**/*_gold.entries", "**/*.entries", "**/[0-9]*.m"),
        },
        suites=("extra",),
        unverified="the names of folders and of annotation files",
        description="The medications that a discharge summary tells of, with dose, mode, frequency, duration and "
        "reason.",
    )
}


class Medication2009(GoldBuilder):
    """Read notes and entry files of the i2b2 2009 challenge."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the annotated notes."""
        entries = _by_number(files["entries"])
        for number, note in sorted(_by_number(files["notes"]).items()):
            file = entries.pop(number, None)
            if file is None:
                self.leave_out(note, "have no annotations")
                continue
            text, lines = read_text(note), _entries(file)
            if not text.strip() or not lines:
                self.leave_out(note, "are empty or tell of no medication")
                continue
            yield self.task.gold_row(f"{split}-{number}", number, "\n".join(lines), text)
        for number, file in entries.items():
            raise RowError(file.name, None, f"annotates note {number}, which is missing")


def _by_number(files: tuple[SourceFile, ...]) -> dict[str, SourceFile]:
    """Return the files by the number in their name; the first of several with the same number and content.

    Raises:
        RowError: two with one number differ, or a name has no number.
    """
    numbered: dict[str, SourceFile] = {}
    for file in files:
        number = re.match(r"\d+", file.stem)
        if number is None:
            raise RowError(file.name, None, "is not named by the number of a note")
        first = numbered.setdefault(number[0], file)
        if first is not file and read_text(first) != read_text(file):
            raise RowError(file.name, None, f"is a second file of note {number[0]}, with other content; remove one")
    return numbered


def _entries(file: SourceFile) -> list[str]:
    """Read the entries of one note as lines of the target."""
    entries = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        fields: dict[str, str] = {}
        for part in line.strip().split("||"):
            match = FIELD.fullmatch(part.strip())
            if match is None or match[1] not in KNOWN:
                raise RowError(file.name, number, 'is no entry (m="..." 1:2 1:3||do="..."||...)')
            fields[match[1]] = " ".join(match[2].replace("|", "/").split())
        if not fields.get("m") or fields["m"] == "nm":
            raise RowError(file.name, number, "is an entry without a medication")
        entries.append(" | ".join(fields.get(name) or "nm" for name in FIELDS))
    return entries
