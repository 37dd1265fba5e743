"""The artificial clinic: radiation-oncology notes written by a seeded program, graded by CTCAE v5.0 esophagitis.

It needs no files: `load_gold(load_task("clinic"))` writes the notes. They describe no real patient. They show that the
software works; they are no evidence of a clinical benefit.

Configs: `default`; `facts`, the same notes with the facts of `demo/clinic_facts.py`, for a start without gold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import datasets

from hf_synth.demo.clinic import FACTS, write_notes
from hf_synth.gold import GoldBuilder, Parts
from hf_synth.task import Prompt, Task

GRADES = ("grade_0", "grade_1", "grade_2", "grade_3")
MEANINGS = (
    "no esophagitis at this visit",
    "asymptomatic, or symptoms that change nothing about eating; observation only",
    "symptomatic; eating or swallowing altered (softer diet, oral supplements), managed at home",
    "severely altered eating or swallowing; intravenous fluids for it, tube feeding, TPN or hospital admission",
)
LEAKS = (
    r"(?i)\bgr(?:ade)?\.?[\s:=-]*(?:[0-5]|i{1,3}|iv|v|zero|one|two|three|four|five)\b"
    r"(?:\s*(?:-|–|/|to|or|and)\s*(?:gr(?:ade)?\.?\s*)?(?:[0-5]|i{1,3}|iv|v)\b)*",
    r"(?i)toxicity grading",
)

PROMPT = Prompt(
    system="You are a radiation oncologist who writes realistic, wholly invented follow-up notes for teaching a "
    "classifier. Vary patients, courses, wording and length. Never copy an example; never state the grade itself.",
    instruction="Write new excerpts of radiation-oncology clinic notes of patients treated to the chest. The facts "
    "that a reader needs to grade esophagitis by CTCAE v5.0 must be in the text; the grade must not.",
    exemplars="one_per_label",
    n_exemplars=1,
    asks_for="every_label",
    rows=5,
    sampling=(("temperature", 0.9), ("top_p", 0.95)),
)

TASKS = {
    "default": Task(
        name="clinic",
        kind="single_label",
        text_columns=("text",),
        label_column="label",
        labels=GRADES,
        label_meanings=MEANINGS,
        prompts=(PROMPT,),
        metrics=("macro_f1", "accuracy", "patient_macro_f1"),
        access="open",
        language="en",
        license="Apache-2.0",
        group_column="group",
        leaks=LEAKS,
        suites=("extra",),
        description="Artificial radiation-oncology notes graded 0-3 for esophagitis (CTCAE v5.0); not patients.",
    )
}
TASKS["facts"] = replace(
    TASKS["default"],
    config="facts",
    facts=FACTS,
    description="The same notes, with the facts that decide the grade, which a prompt of facts asks for.",
)


@dataclass
class ClinicConfig(datasets.BuilderConfig):
    """The number of notes in each split, and the seed of the notes."""

    n_train: int = 1_243  # as many as the paper's gold had for training
    n_validation: int = 200
    n_test: int = 1_000
    notes_seed: int = 0


class Clinic(GoldBuilder):
    """Write the notes of the artificial clinic; patients of one split are in no other."""

    TASKS = TASKS
    NEEDS_FILES = False
    BUILDER_CONFIG_CLASS = ClinicConfig

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(s, gen_kwargs={"split": s, "files": {}}) for s in ("train", "validation", "test")
        ]

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Write the notes of one split."""
        config = self.config
        sizes = {"train": config.n_train, "validation": config.n_validation, "test": config.n_test}
        seed = 3 * config.notes_seed + list(sizes).index(split)
        for note in write_notes(sizes[split], seed=seed):
            id, patient = f"{split}-{note.id}", f"{split}-{note.patient_id}"
            yield self.task.gold_row(id, patient, GRADES[note.grade], note.text)
