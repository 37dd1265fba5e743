"""Medication extraction (i2b2 2009): the list of the medications in a discharge summary, with dose, mode, frequency.

Where to get it: https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ (i2b2 2009, credentialed). Give a folder with
the portal's archives as they were downloaded, or what is in them, wherever it lies:

    training.sets.released.tar.gz         notes, each a file named by its number (379569), without suffix or with .txt
    train.test.released.8.17.09.tar.gz    notes of training and test
    training.ground.truth*.zip            379569_gold.entries: the annotations of a few training notes
    annotations_ground_truth.tar.gz       379569.i2b2.entries.m in converted.noduplicates.sorted: those of test notes

Left alone are the folder `pool` beside the latter, and TeamSubmissions.zip, the output of the challenge's systems.

    m="aspirin" 12:3 12:3||do="81 mg" 12:4 12:5||mo="po" 12:6 12:6||f="daily...prn" 12:7 12:7,13:2 13:2||du="nm"||r="nm"

The target has a line for each entry in the order of the note, its fields separated by " | ": medication, dosage, mode,
frequency, duration, reason, list or narrative (ln); "nm" means not mentioned. Event, temporal and certainty (e, t, c)
are not used. Notes without annotations (most of the training notes) are left out; a warning counts them.

The challenge has official splits, of a few annotated training notes and all test notes. With so few to train on, rows
are split anew by note; an id tells the official split where the folder does: "train-379569", "test-379569".

Scores beside those of texts: F-measures of phrases as in the challenge (Uzuner et al. 2010; system level, exact), over
all fields of an entry (`horizontal_phrase_f1`) and by field (`vertical_phrase_f1_do`). The challenge also compares the
places of phrases in the note, which a target does not hold.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from hf_synth.errors import RowError
from hf_synth.gold import WHOLE, GoldBuilder, Parts, SourceFile, read_text
from hf_synth.task import Prompt, Task

# medication, dosage, mode, frequency, duration, reason, list/narrative
FIELDS = ("m", "do", "mo", "f", "du", "r", "ln")
KNOWN = {*FIELDS, "e", "t", "c"}
OFFSETS = r"\d+:\d+\s+\d+:\d+"
FIELD = re.compile(rf'(\w+)="(.*)"((?:[\s,]*{OFFSETS})*)[\s,]*')
BARS = re.compile(r"\|\|+")  # three of them stand in 18563_gold.entries
OFFICIAL = {"training.ground.truth": "train", "annotations_ground_truth": "test"}  # begins a folder's or archive's name

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
        metrics=("token_f1", "horizontal_phrase_f1", "rougeL", "exact_match"),
        target_fields=FIELDS[:-1],  # the challenge does not score the last one
        access="credentialed",
        language="en",
        source_url="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
        license="n2c2 data use agreement",
        citation="Uzuner, Solti, Cadag. Extracting medication information from clinical text. JAMIA 2010.",
        group_column="group",
        files={
            f"{WHOLE}/notes": ("**/[0-9]*[0-9]", "**/[0-9]*.txt", "!teamsubmissions*"),
            f"{WHOLE}/entries": ("**/*_gold.entries", "**/*.entries", "**/[0-9]*.m", "!teamsubmissions*", "!pool"),
        },
        suites=("extra",),
        description="The medications that a discharge summary tells of, with dose, mode, frequency, duration and "
        "reason.",
    )
}


class Medication2009(GoldBuilder):
    """Read notes and entry files of the i2b2 2009 challenge."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the annotated notes."""
        entries = _by_number(files["entries"], _entries)
        for number, note in sorted(_by_number(files["notes"], _words).items()):
            file = entries.pop(number, None)
            if file is None:
                self.leave_out(note, "have no annotations")
                continue
            text, lines = read_text(note), _entries(file)
            if not text.strip() or not lines:
                self.leave_out(note, "are empty or tell of no medication")
                continue
            yield self.task.gold_row(f"{_official(file) or split}-{number}", number, "\n".join(lines), text)
        for number, file in entries.items():
            raise RowError(file.name, None, f"annotates note {number}, which is missing")


def _official(file: SourceFile) -> str:
    """Return the official split of an annotation file by the folders and archives around it; "" if they do not tell."""
    folders = [*file.path.parts, *file.inside.split("/")]
    return next((OFFICIAL[start] for name in folders for start in OFFICIAL if name.lower().startswith(start)), "")


def _words(file: SourceFile) -> list[str]:
    return read_text(file).split()


def _by_number(files: tuple[SourceFile, ...], read: Callable[[SourceFile], list[str]]) -> dict[str, SourceFile]:
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
        if first is not file and read(first) != read(file):
            others = f"{first.inside} and {file.inside}"
            raise RowError(
                file.name, None, f"is a second file of note {number[0]}, with other content; take one of {others} out"
            )
    return numbered


def _entries(file: SourceFile) -> list[str]:
    """Read the entries of one note as lines of the target, in the order of the note."""
    entries: list[tuple[tuple[int, int], str]] = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", read_text(file)), 1):
        if not line.strip():
            continue
        fields: dict[str, str] = {}
        place = (sys.maxsize, 0)  # of an entry without offsets
        for part in BARS.split(line.strip()):
            match = FIELD.fullmatch(part.strip())
            if match is None or match[1] not in KNOWN:
                raise RowError(file.name, number, 'is no entry (m="..." 1:2 1:3||do="..."||...)')
            fields[match[1]] = " ".join(match[2].replace("|", "/").split())
            if match[1] == "m" and (offsets := re.findall(r"(\d+):(\d+)", match[3])):
                place = int(offsets[0][0]), int(offsets[0][1])
        if not fields.get("m") or fields["m"] == "nm":
            raise RowError(file.name, number, "is an entry without a medication")
        entries.append((place, " | ".join(fields.get(name) or "nm" for name in FIELDS)))
    return [entry for _, entry in sorted(entries, key=lambda entry: entry[0])]
