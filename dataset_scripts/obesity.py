"""Obesity challenge (i2b2 2008): which of 16 diseases a patient has by the discharge summary.

Where to get it: https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ (i2b2 2008, credentialed). Expected folder or
archive, in either layout of the source:

    obesity_patient_records_training.xml                  730 notes in the two files (from general knowledge)
    obesity_patient_records_training2.xml                 optional
    obesity_standoff_annotations_training.xml             with _addendum, _addendum2, _addendum3 beside it; or
    obesity_standoff_{textual,intuitive}_annotations_training.xml
    obesity_patient_records_test.xml                      507 notes; the test set may be missing
    obesity_standoff_annotations_test.xml                 or, as above, by source

    records       <root><docs><doc id="1"><text>...</text></doc>...
    annotations   <diseaseset><diseases source="textual"><disease name="Asthma"><doc id="1" judgment="Y"/>...

A row is a note and a disease that it was judged for. A missing judgment makes no row, and never a default label; the
judgments of an addendum replace earlier ones. Rows of one note are one group.

Configs: `textual`, what the note states: Y, N, Q, U - `intuitive`, what a physician concludes from it: Y, N, Q.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hf_synth.errors import RowError
from hf_synth.gold import GoldBuilder, Parts, SourceFile, note_place, xml_elements
from hf_synth.task import Prompt, Task

# the challenge's names -> full names, which an encoder knows
DISEASES = {
    "Asthma": "asthma",
    "CAD": "coronary artery disease",
    "CHF": "congestive heart failure",
    "Depression": "depression",
    "Diabetes": "diabetes",
    "Gallstones": "gallstones",
    "GERD": "gastroesophageal reflux disease",
    "Gout": "gout",
    "Hypercholesterolemia": "hypercholesterolemia",
    "Hypertension": "hypertension",
    "Hypertriglyceridemia": "hypertriglyceridemia",
    "OA": "osteoarthritis",
    "Obesity": "obesity",
    "OSA": "obstructive sleep apnea",
    "PVD": "peripheral vascular disease",
    "Venous Insufficiency": "venous insufficiency",
}
BY_NAME = {name.lower(): meaning for name, meaning in DISEASES.items()}
JUDGMENTS = {
    "Y": "the patient has the disease",
    "N": "the patient does not have the disease",
    "Q": "it is questionable whether the patient has the disease",
    "U": "the note does not mention the disease",
}

PROMPT = Prompt(
    system="You are a physician who writes realistic, wholly invented discharge summaries for teaching a classifier. "
    "Vary patients, courses, wording and length. Never copy an example.",
    instruction="Write new discharge summaries (the premise), each with the name of one disease (the hypothesis), "
    "taken "
    f"from: {', '.join(DISEASES.values())}. The label says what the summary tells of that disease in that patient.",
    exemplars="same_label",
    n_exemplars=1,
    asks_for="one_label",
    rows=1,
)

TEXTUAL = Task(
    name="obesity",
    config="textual",
    kind="single_label",
    text_columns=("premise", "hypothesis"),
    label_column="label",
    labels=tuple(JUDGMENTS),
    label_meanings=tuple(JUDGMENTS.values()),
    prompts=(PROMPT,),
    metrics=("macro_f1", "micro_f1"),
    access="credentialed",
    language="en",
    source_url="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
    license="n2c2 data use agreement",
    citation="Uzuner. Recognizing Obesity and Comorbidities in Sparse Data. JAMIA 2009.",
    group_column="group",
    files={
        "train/records": ("obesity_patient_records_training.xml",),
        "train/more_records": ("obesity_patient_records_training2.xml",),
        "train/annotations": ("**/obesity_standoff*annotations*training*.xml",),
        "test/records": ("obesity_patient_records_test.xml",),
        "test/annotations": ("**/obesity_standoff*annotations*test*.xml",),
    },
    optional_files=("train/more_records", "test"),
    suites=("extra",),
    description="Whether a discharge summary says that the patient has one of 16 diseases.",
)

TASKS = {
    "textual": TEXTUAL,
    "intuitive": replace(
        TEXTUAL,
        config="intuitive",
        labels=tuple(JUDGMENTS)[:3],
        label_meanings=tuple(JUDGMENTS.values())[:3],
        description="Whether a physician concludes from a discharge summary that the patient has one of 16 diseases.",
    ),
}


class Obesity(GoldBuilder):
    """Read the XML files of the i2b2 2008 challenge."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read notes and judgments of one split."""
        judgments = _judgments(self.task, files["annotations"])
        seen: set[str] = set()
        for file in (*files["records"], *files.get("more_records", ())):
            for number, (note, text) in enumerate(_records(file), 1):
                note_place(file, number)
                if note in seen:
                    self.leave_out(file, "are notes with the id of an earlier note")
                    continue
                seen.add(note)
                own = judgments.pop(note, {})
                if not text.strip():
                    self.leave_out(file, "are empty notes")
                    continue
                for disease, judgment in sorted(own.items()):
                    id = f"{split}-{note}-{disease.replace(' ', '_')}"
                    yield self.task.gold_row(id, note, judgment, text, BY_NAME[disease])
        for _ in judgments:
            self.leave_out(files["annotations"][0], "are judged notes that no file of records holds")


def _records(file: SourceFile) -> Iterator[tuple[str, str]]:
    """Yield id and text of each note."""
    count = 0
    for event, doc in xml_elements(file, "doc"):
        if event == "end":
            count += 1
            text = doc.find("text")
            if not doc.get("id") or text is None:
                raise RowError(file.name, count, "is a doc without id or text")
            yield str(doc.get("id")), "".join(text.itertext())
    if not count:
        raise RowError(file.name, None, "holds no doc; is it the file of patient records?")


def _judgments(task: Task, files: Sequence[SourceFile]) -> dict[str, dict[str, str]]:
    """Merge the judgments of all annotation files: note -> disease (lower case) -> judgment; addenda come last."""
    judgments: dict[str, dict[str, str]] = {}
    for file in sorted(files, key=lambda f: (f.stem.count("addendum"), f.stem)):
        source = disease = ""
        count = 0
        for event, element in xml_elements(file, "diseases", "disease", "doc"):
            if event == "end":
                continue
            if element.tag == "diseases":
                source = (element.get("source") or "").strip().lower()
            elif element.tag == "disease":
                disease = (element.get("name") or "").strip().lower()
            else:
                count += 1
                judgment = (element.get("judgment") or "").strip()
                if disease not in BY_NAME or not element.get("id"):
                    raise RowError(
                        file.name, count, "is a judgment without note, or of a disease that is none of the 16"
                    )
                if source != task.config or not judgment:
                    continue
                if judgment not in task.labels:
                    raise RowError(file.name, count, f"is a judgment that is none of {', '.join(task.labels)}")
                judgments.setdefault(str(element.get("id")), {})[disease] = judgment
        if not count:
            raise RowError(file.name, None, "holds no judgment; is it a file of annotations?")
    if not judgments:
        raise RowError(files[0].name, None, f"and the files beside it hold no judgment of source {task.config!r}")
    return judgments
