"""MedNLI: natural language inference; a sentence of a clinical note entails a statement, contradicts it, or neither.

Where to get it: https://physionet.org/content/mednli/1.0.0/ (credentialed; derived from MIMIC-III). Give the folder, or
the archive as it was downloaded:

    mednli-a-natural-language-inference-dataset-for-the-clinical-domain-1.0.0.zip, or its folder:
      mli_train_v1.jsonl                11,232 pairs
      mli_dev_v1.jsonl                   1,395 pairs (number from general knowledge)
      mli_test_v1.jsonl                  1,422 pairs

A line holds pairID, sentence1 (premise), sentence2 (hypothesis), gold_label, and parses that are not read. The format
is that of SNLI: a gold_label "-" means that annotators did not agree. Such rows are left out; a warning counts them.
Pairs with the same premise are one group.

Configs: `pair` - `text2text`, DR.BENCH's form (arXiv 2209.14901): the pair in one input, the relation as text. The
wording of its input template is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hf_synth.gold import ROWS, GoldBuilder, Parts, label_field, pick_column, read_jsonl, text_field
from hf_synth.task import Prompt, Task

RELATIONS = {
    "entailment": "the hypothesis is definitely true of the patient, given the premise",
    "contradiction": "the hypothesis is definitely false of the patient, given the premise",
    "neutral": "the hypothesis may or may not be true of the patient, given the premise",
}
INPUT = "premise: {premise}\nhypothesis: {hypothesis}\nrelation?"

# The paper's shape: 3 gold triples of mixed labels, 10 new pairs of each relation.
PROMPT = Prompt(
    system="You are a physician who writes realistic, wholly invented sentences of clinical notes and statements about "
    "them, for teaching a model to reason. Vary diseases, wording and length. Never copy an example.",
    instruction="Write new pairs. The premise is one sentence as it stands in the history of a clinical note; the "
    "hypothesis is a short statement about that patient. The label says how the hypothesis follows from the premise, "
    "and must be decided by what a physician knows, not by shared words.",
    exemplars="mixed",
    n_exemplars=3,
    asks_for="every_label",
    rows=10,
)

PAIR = Task(
    name="mednli",
    config="pair",
    kind="single_label",
    text_columns=("premise", "hypothesis"),
    label_column="label",
    labels=tuple(RELATIONS),
    label_meanings=tuple(RELATIONS.values()),
    prompts=(PROMPT,),
    metrics=("accuracy", "macro_f1"),
    access="credentialed",
    language="en",
    source_url="https://physionet.org/content/mednli/1.0.0/",
    license="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Romanov, Shivade. Lessons from Natural Language Inference in the Clinical Domain. EMNLP 2018. "
    "https://doi.org/10.13026/C2RS98",
    group_column="group",
    files={
        "train": ("mli_train_v1.jsonl",),
        "validation": ("mli_dev_v1.jsonl",),
        "test": ("mli_test_v1.jsonl",),
    },
    suites=("paper", "DR.BENCH"),
    description="Whether a sentence of a clinical note entails, contradicts or leaves open a statement.",
)

TASKS = {
    "pair": PAIR,
    "text2text": replace(
        PAIR,
        config="text2text",
        kind="text2text",
        text_columns=("input",),
        label_column="target",
        labels=(),
        label_meanings=(),
        targets=tuple(RELATIONS),
        prompts=(
            replace(
                PROMPT,
                instruction=f"{PROMPT.instruction} Each input has the form of the examples; the target is "
                f"{', '.join(RELATIONS)}.",
                rows=6,
            ),
        ),
        metrics=("exact_match",),
        description="MedNLI as text to text: premise and hypothesis in, the name of the relation out.",
    ),
}


class Mednli(GoldBuilder):
    """Read the JSONL files of MedNLI."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the pairs of one split."""
        task, file = self.task, files[ROWS][0]
        names = {r: r for r in RELATIONS}
        for number, row in read_jsonl(file):
            for column in ("pairID", "sentence1", "sentence2", "gold_label"):
                pick_column(file, row, column)
            if row["gold_label"] == "-":
                self.leave_out(file, "have no agreed label")
                continue
            premise, hypothesis = (text_field(file, number, row, c) for c in ("sentence1", "sentence2"))
            label = label_field(file, number, row, "gold_label", names)
            id = f"{split}-{text_field(file, number, row, 'pairID')}"
            group = sha256(premise.encode()).hexdigest()[:16]
            if task.kind == "text2text":
                yield task.gold_row(id, group, label, INPUT.format(premise=premise, hypothesis=hypothesis))
            else:
                yield task.gold_row(id, group, label, premise, hypothesis)
