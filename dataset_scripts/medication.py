"""CMED (n2c2 2022 Track 1): medication changes in clinical notes, one window of the note for each mention.

Where to get it: https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ (n2c2 2022 Track 1, credentialed; 500 notes,
9,013 mentions from general knowledge). Expected folder or archive, wherever the folders lie in it:

    train/*.txt, train/*.ann             notes and their brat annotations, under the same name
    dev/*.txt, dev/*.ann
    test/*.txt, test/*.ann               optional; the organisers' test data are release1 (notes), release2 and
                                         release3 (notes and their annotations), of which release3 is read

    T1<TAB>Disposition 120 127<TAB>aspirin        the mention, its type is the event
    E1<TAB>Disposition:T1                         the event; one without a change has no attributes
    A1<TAB>Action E1 Start                        likewise Temporality, Certainity (so spelled), Actor, Negation

The text of a row is the note around the mention, about 300 characters to each side, cut between words; the mention
stands in [[ ]]. Each mention's text must stand in the note at its offsets, piece by piece; offsets may count the line
ends of Windows as one character, as brat does. Mentions without an event, and changes without the attribute, are left
out; a warning counts them. Rows of one note are one group.

Configs: `event`, and of mentions whose disposition changes `action`, `temporality`, `certainty`, `actor`, `negation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import datasets

from hf_synth.errors import RowError
from hf_synth.gold import Brat, GoldBuilder, Parts, SourceFile, Span, annotated_text, note_place, read_brat, read_text
from hf_synth.task import Prompt, Task

LABELS = {
    "event": {
        "Disposition": "the note tells of a change: started, stopped, dose raised or lowered, given once",
        "NoDisposition": "the medication is mentioned without any change",
        "Undetermined": "it cannot be told whether there is a change",
    },
    "action": {
        "Start": "it is started",
        "Stop": "it is stopped",
        "Increase": "its dose or frequency is raised",
        "Decrease": "its dose or frequency is lowered",
        "UniqueDose": "it is given once",
        "OtherChange": "something else about it is changed",
        "Unknown": "what is changed cannot be told",
    },
    "temporality": {
        "Past": "the change was before the note",
        "Present": "the change is made with the note",
        "Future": "the change is planned for later",
        "Unknown": "when cannot be told",
    },
    "certainty": {
        "Certain": "the change is certain",
        "Hypothetical": "the change is only considered",
        "Conditional": "the change depends on something",
        "Unknown": "how certain it is cannot be told",
    },
    "actor": {
        "Physician": "a clinician makes the change",
        "Patient": "the patient makes the change",
        "Unknown": "who makes it cannot be told",
    },
    "negation": {"NotNegated": "the change takes place", "Negated": "the note says that it does not take place"},
}
SPELLED = {
    "certainty": ("Certainity", "Certainty")
}  # attributes in the files; others are the config's name, capitalised
DESCRIPTIONS = {
    "event": "Whether a clinical note tells of a change to a medication that it mentions.",
    "action": "What change a clinical note tells of to a medication.",
    "temporality": "When the change to a medication that a clinical note tells of takes place.",
    "certainty": "How certain the change to a medication that a clinical note tells of is.",
    "actor": "Who makes the change to a medication that a clinical note tells of.",
    "negation": "Whether the change to a medication that a clinical note tells of is negated.",
}

PROMPT = Prompt(
    system="You are a physician who writes realistic, wholly invented passages of clinical notes for teaching a "
    "classifier. Vary patients, medications, wording and length. Never copy an example.",
    instruction="Write new passages of clinical notes of two to six sentences that mention medications. One mention "
    "stands in double square brackets, as in the examples: the label is about that medication alone.",
    exemplars="one_per_label",
    n_exemplars=1,
    asks_for="every_label",
    rows=2,
)


def _task(config: str) -> Task:
    return Task(
        name="medication",
        config=config,
        kind="single_label",
        text_columns=("text",),
        label_column="label",
        labels=tuple(LABELS[config]),
        label_meanings=tuple(LABELS[config].values()),
        prompts=(PROMPT if config == "event" else replace(PROMPT, instruction=PROMPT.instruction + _OF_CHANGES),),
        metrics=("micro_f1", "macro_f1"),
        access="credentialed",
        language="en",
        source_url="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
        license="n2c2 data use agreement",
        citation="Mahajan, Liang, Tsou, Uzuner. Overview of the 2022 n2c2 Shared Task on Contextualized Medication "
        "Event Extraction in Clinical Notes. Journal of Biomedical Informatics 2023.",
        group_column="group",
        files={
            f"{split}/{part}": tuple(f"{folder}/*.{suffix}" for folder in folders)
            for split, folders in _FOLDERS.items()
            for part, suffix in (("notes", "txt"), ("annotations", "ann"))
        },
        optional_files=("test",),
        suites=("extra",),
        description=DESCRIPTIONS[config],
    )


_FOLDERS = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test", "release3")}
_OF_CHANGES = " The passage tells of a change to that medication."

TASKS = {config: _task(config) for config in LABELS}


@dataclass
class MedicationConfig(datasets.BuilderConfig):
    """The number of characters of the note on each side of a mention."""

    around: int = 300


class Medication(GoldBuilder):
    """Read the brat files of n2c2 2022 Track 1."""

    TASKS = TASKS
    BUILDER_CONFIG_CLASS = MedicationConfig

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the mentions of one split, note by note."""
        annotations = {f.stem: f for f in files["annotations"]}
        alone = sorted(set(annotations) - {note.stem for note in files["notes"]})
        if alone:
            raise RowError(annotations[alone[0]].name, None, f"has no note beside it ({alone[0]}.txt)")
        for note in files["notes"]:
            file = annotations.get(note.stem)
            if file is None:
                raise RowError(note.name, None, f"has no annotations beside it ({note.stem}.ann)")
            brat = read_brat(file)
            text = annotated_text(file, read_text(note), brat)
            for name, span, value in self._once(file, self._labelled(file, brat)):
                note_place(file, brat.lines[name])
                window = _window(text, span.start, span.end, self.config.around)
                yield self.task.gold_row(f"{split}-{note.stem}-{name}", note.stem, value, window)

    def _once(self, file: SourceFile, labelled: Iterator[tuple[str, Span, str]]) -> Iterator[tuple[str, Span, str]]:
        """Yield one row for each mention; a mention with several labels is left out."""
        places: dict[tuple[int, int], list[tuple[str, Span, str]]] = {}
        for name, span, value in labelled:
            places.setdefault((span.start, span.end), []).append((name, span, value))
        for rows in places.values():
            if len({value for *_, value in rows}) > 1:
                self.leave_out(file, "have several labels on one mention")
            else:
                yield rows[0]

    def _labelled(self, file: SourceFile, brat: Brat) -> Iterator[tuple[str, Span, str]]:
        """Yield (id, mention, label) of each event that this config is about."""
        for name, kind, trigger in _events(file, brat):
            if kind not in LABELS["event"]:
                known = ", ".join(LABELS["event"])
                raise RowError(file.name, brat.lines[name], f"is an event of an unknown type; expected one of {known}")
            if self.config.name == "event":
                yield name, brat.spans[trigger], kind
            elif kind == "Disposition":
                wanted = SPELLED.get(self.config.name, (self.config.name.capitalize(),))
                found = [
                    (id, attribute, value)
                    for id in (name, trigger)
                    for attribute, value in brat.attributes.get(id, ())
                    if attribute in wanted and value
                ]
                if not found:
                    self.leave_out(file, f"are changes without {wanted[0]}")
                    continue
                id, attribute, label = found[0]
                if label not in self.task.labels:
                    known = ", ".join(self.task.labels)
                    line = brat.lines[id, attribute]
                    raise RowError(file.name, line, f"is an unknown value of {attribute}; expected one of {known}")
                yield name, brat.spans[trigger], label


def _events(file: SourceFile, brat: Brat) -> Iterator[tuple[str, str, str]]:
    """Yield (id, type, mention) of each event; a mention of an event's type without an event line counts as one."""
    triggers = set()
    for name, kind, trigger in brat.events:
        if trigger not in brat.spans:
            raise RowError(file.name, brat.lines[name], f"event {name} refers to {trigger}, which is missing")
        triggers.add(trigger)
        yield name, kind, trigger
    for span in brat.spans.values():
        if span.id not in triggers and span.kind in LABELS["event"]:
            yield span.id, span.kind, span.id


def _window(text: str, start: int, end: int, around: int) -> str:
    """Cut the text around a mention between words, and mark it."""
    first, last = max(0, start - around), min(len(text), end + around)
    before, after = text[first:start], text[end:last]
    if first:
        before = before.split(maxsplit=1)[1] if len(before.split(maxsplit=1)) == 2 else before
    if last < len(text):
        after = after.rsplit(maxsplit=1)[0] if len(after.rsplit(maxsplit=1)) == 2 else after
    return f"{before}[[{text[start:end]}]]{after}".strip()
