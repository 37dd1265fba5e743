"""Fall risk: whether a note reports a fall, or the patient's risk of falls by the Morse Fall Scale.

The notes are the user's own (`restricted`), or the open Portuguese data set
https://github.com/nlp-pucrs/fall-detection (1,078 notes, 355 with falls; AGPL-3.0: read from the user's path, never
published again). Expected, as .csv, .tsv, .jsonl or .parquet:

    folder/                              or a single file, or the cloned repository with its training_data.csv, which
      train.csv                          are then split by patient
      validation.csv (or dev.csv)        optional
      test.csv                           optional

Columns, with other accepted names:
    text        note, Evolucao                     the note
    label       fall, Target                       config `fall`: 0 / 1, no / yes, none / fall
                risk, morse_class                  config `morse`: low, moderate, high; or instead of it
    total       morse_total, morse_score           0 to 125; or instead of both the items of the scale, in points:
                history_of_falling 0/25, secondary_diagnosis 0/15, ambulatory_aid 0/15/30, iv_or_heparin_lock 0/20,
                gait 0/10/20, mental_status 0/15
    patient_id  patient                            optional but wanted: notes of one patient never straddle a split
    note_id     id                                 optional

The bands of the Morse Fall Scale (Morse 1989) differ by site; by default the middle one starts at 25 (`moderate_from`)
and the upper one at 45 (`high_from`). Notes that repeat an earlier one with the same label are left out, and a warning
counts them (in the Portuguese data 42 notes repeat an earlier one, 26 of them with its label); one with another label
stays, in the same split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import datasets

from hf_synth.errors import RowError
from hf_synth.gold import ROWS, WHOLE, File, GoldBuilder, Parts, label_field, pick_column, read_table, text_field
from hf_synth.task import TABLES, Fact, Facts, Prompt, Task

MORSE = {  # item -> the points it can have
    "history_of_falling": (0, 25),
    "secondary_diagnosis": (0, 15),
    "ambulatory_aid": (0, 15, 30),
    "iv_or_heparin_lock": (0, 20),
    "gait": (0, 10, 20),
    "mental_status": (0, 15),
}
FALLS = {
    "fall": "the note tells of a fall of the patient in hospital",
    "none": "the note tells of no fall",
}
SPELLED = {"1": "fall", "yes": "fall", "fall": "fall", "true": "fall", "sim": "fall",
           "0": "none", "no": "none", "none": "none", "false": "none", "nao": "none", "não": "none"}  # fmt: skip
RISKS = {
    "low": "total on the Morse Fall Scale below 25",
    "moderate": "total on the Morse Fall Scale of 25 to 44",
    "high": "total on the Morse Fall Scale of 45 or more",
}

PROMPT = Prompt(
    system="You are a ward nurse who writes realistic, wholly invented notes for teaching a classifier. Vary patients, "
    "reasons of stay, wording and length. Never copy an example.",
    instruction="Write new nursing or progress notes of hospital patients, in the language of the examples. Some "
    "tell of a fall during the stay, some do not; risk of falls, precautions and falls before the stay are no fall.",
    exemplars="one_per_label",
    n_exemplars=1,
    asks_for="every_label",
    rows=5,
)
MORSE_PROMPT = replace(
    PROMPT,
    instruction="Write new nursing notes of hospital patients that state what the Morse Fall Scale asks: falls in "
    "the last three months (25), more than one diagnosis (15), crutch, cane or walker (15) or holding on to "
    "furniture (30), an intravenous line (20), a weak (10) or impaired (20) gait, forgetting own limits (15). "
    "Neither the scale, nor points, nor a class of risk is written: the facts decide the class.",
)

# The items of the scale as a note may state them, in points; the patterns check what a generator wrote.
LATELY = r"(?:days?|weeks?|months?|yesterday|ago|recent)"
LINE = r"\bIV (?:line|access|fluids?|catheter|antibiotics?|site)\b|intravenous|(?:heparin|saline) lock|cannula|infusion"
HOLDS = r"(?:hold|hang|grab|lean|clutch|support|steadi)\w*\b[^.]{0,40}(?:furniture|bed ?rails?)"
FACTS = Facts(
    items=(
        Fact("falls", (
            ("no fall in the last three months", 0, ""),
            ("fell in the last three months", 25, rf"\b(?:fell|fallen|falls?)\b[^.]{{0,40}}{LATELY}|recent fall"),
        )),
        Fact("diagnoses", (
            ("a single diagnosis", 0, ""),
            ("a second diagnosis, with the words 'also has'", 15, r"also has|comorbid|second diagnosis"),
        )),
        Fact("walking aid", (
            ("walks without an aid, or is on bed rest", 0, ""),
            ("uses crutches, a cane or a walker", 15, r"\b(?:crutch(?:es)?|cane|walker|rollator|walking stick)\b"),
            ("holds on to the furniture when walking", 30, HOLDS),
        )),
        Fact("line", (
            ("no intravenous access", 0, ""),
            ("an intravenous line or heparin lock", 20, LINE),
        )),
        Fact("gait", (
            ("a normal gait", 0, ""),
            ("a weak gait: stooped, short steps", 10, r"weak gait|gait is weak|stoop|short steps|shuffl"),
            ("an impaired gait: unsteady, rises with difficulty", 20, r"impaired gait|unsteady|difficulty rising"),
        )),
        Fact("mental status", (
            ("knows own limits", 0, ""),
            ("forgets or overestimates own limits", 15, r"forget|overestimat|confus|disorient"),
        )),
    ),
    combine="sum",
    bounds=(25, 45),
)  # fmt: skip

FALL = Task(
    name="fall_risk",
    config="fall",
    kind="single_label",
    text_columns=("text",),
    label_column="label",
    labels=tuple(FALLS),
    label_meanings=tuple(FALLS.values()),
    prompts=(PROMPT,),
    metrics=("macro_f1", "accuracy"),
    access="restricted",
    source_url="https://github.com/nlp-pucrs/fall-detection",
    license="the owner's",
    citation="Morse. Preventing Patient Falls. Sage 1989 (the scale).",
    group_column="group",
    files={**TABLES, WHOLE: ("training_data.csv",)},
    optional_files=("validation", "test", WHOLE),
    suites=("extra",),
    description="Whether a note of a hospital stay tells of a fall.",
)

TASKS = {
    "fall": FALL,
    "morse": replace(
        FALL,
        config="morse",
        labels=tuple(RISKS),
        facts=FACTS,
        label_meanings=tuple(RISKS.values()),
        prompts=(MORSE_PROMPT,),
        leaks=(
            r"(?i)\bmorse\b(?:\s+(?:fall|scale|score|risk|total))*(?:\s*(?:[:=-]|is|was|of)?\s*\d{1,3}\b)?",
            r"(?i)\b(?:low|moderate|medium|high)[ -](?:fall[ -])?risk\b",
            r"(?i)\brisk (?:of|for) fall(?:s|ing)?\s*(?:[:=-]|is|was)?\s*(?:low|moderate|medium|high)\b",
            r"(?i)\bfall risk (?:score|scale|total)\b(?:\s*(?:[:=-]|is|was|of)?\s*\d{1,3}\b)?",
            r"(?i)\bfall risk\s*(?:[:=-]|is|was)\s*(?:\d{1,3}|low|moderate|medium|high)\b",
        ),
        description="The risk of falls by the Morse Fall Scale (low, moderate, high) that a note's facts amount to.",
    ),
}


@dataclass
class FallRiskConfig(datasets.BuilderConfig):
    """The lowest totals of the middle and the upper band of the Morse Fall Scale."""

    moderate_from: int = 25
    high_from: int = 45


class FallRisk(GoldBuilder):
    """Read the user's own notes."""

    TASKS = TASKS
    BUILDER_CONFIG_CLASS = FallRiskConfig

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the table of one split."""
        file, digests = files[ROWS][0], set()
        for number, row in read_table(file):
            text = text_field(file, number, row, pick_column(file, row, "text", "note", "Evolucao") or "")
            label = self._fall(file, number, row) if self.config.name == "fall" else self._risk(file, number, row)
            digest = sha256(f"{label} {' '.join(text.lower().split())}".encode()).digest()
            if digest in digests:
                self.leave_out(file, "repeat an earlier note with its label")
                continue
            digests.add(digest)
            patient = pick_column(file, row, "patient_id", "patient", required=False)
            note = pick_column(file, row, "note_id", "id", required=False)
            group = str(row[patient]) if patient and row[patient] not in (None, "") else None
            id = f"{split}-{row[note] if note and row[note] not in (None, '') else f'row-{number}'}"
            yield self.task.gold_row(id, group, label, text)

    def _fall(self, file: File, number: int, row: Mapping[str, Any]) -> str:
        column = str(pick_column(file, row, "label", "fall", "Target"))
        value = int(row[column]) if isinstance(row[column], bool) else row[column]
        return label_field(file, number, {column: _lower(value)}, column, SPELLED)

    def _risk(self, file: File, number: int, row: Mapping[str, Any]) -> str:
        """Return the class of the label column, or of the total, or of the sum of the items."""
        label = pick_column(file, row, "label", "risk", "morse_class", required=False)
        total_column = pick_column(file, row, "total", "morse_total", "morse_score", required=False)
        items = [name for name in MORSE if name in row]
        if label:
            names = {r: r for r in RISKS} | {"medium": "moderate"}
            return label_field(file, number, {label: _lower(row[label])}, label, names)
        if items and len(items) < len(MORSE):
            raise RowError(
                file.name, None, f"lacks items of the Morse Fall Scale: {', '.join(set(MORSE) - set(items))}"
            )
        if not items and not total_column:
            pick_column(file, row, "label", "risk", "morse_class", "total", "morse_total", "morse_score", *MORSE)
        sum_of_items = sum(_points(file, number, row, name, MORSE[name]) for name in items)
        total = _points(file, number, row, total_column, range(0, 126, 5)) if total_column else sum_of_items
        if items and total != sum_of_items:
            raise RowError(
                file.name, number, f"column {total_column!r} is not the sum of the items of the Morse Fall Scale"
            )
        config = self.config
        return "high" if total >= config.high_from else "moderate" if total >= config.moderate_from else "low"


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _points(file: File, number: int, row: Mapping[str, Any], column: str, allowed: Any) -> int:
    try:
        points = float(row[column])
    except (TypeError, ValueError):
        points = -1.0
    if points not in allowed:
        values = "0 to 125 in steps of 5" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise RowError(file.name, number, f"column {column!r} must be one of {values}")
    return int(points)
