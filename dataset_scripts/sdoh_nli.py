"""SDOH-NLI: natural language inference on social determinants of health; real, openly licensed text.

A premise is a sentence of a social history (from MTSamples), a hypothesis a statement such as "The person is employed".
The label says whether the premise entails it. The task has the form of MedNLI, and anybody may use the data.

Where to get it: the repository google-research-datasets/SDOH-NLI on GitHub. Expected folder:

    sdoh_nli_train.csv           21,090 pairs (570 premises, each with 37 hypotheses)
    sdoh_nli_validation.csv       4,033 pairs (109 premises, 37)
    sdoh_nli_test.csv             4,212 pairs (108 premises, 39)

Columns: premise, hypothesis, label (the words True and False; 5% are True). The scores are macro-F1 and `auprc`, the
average precision of True: with so few True rows accuracy says little.

The splits stay as published, except for two kinds of rows. Warnings count both.

- A premise that also stands in a later split (train, validation, test; 16 premises of train, compared without case and
  punctuation) is left out, so that no premise is on two sides. Pairs with the same premise are one group.
- Each premise is paired twice with one of the hypotheses. Where the two labels differ (76 premises), the row labelled
  False is left out: the hypothesis joins two living situations, and one of them is enough to make it true.

Configs: `pair` - `text2text`: the pair in one input, "True" or "False" as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any
from unicodedata import normalize

from hf_synth.gold import ROWS, GoldBuilder, Parts, label_field, pick_column, read_csv, text_field
from hf_synth.task import Prompt, Task

LABELS = {  # the likelier label first: of two labels, `auroc` and `auprc` are those of the second
    "False": "the premise does not entail the hypothesis: it says something else, or the contrary",
    "True": "the premise entails the hypothesis",
}
INPUT = "premise: {premise}\nhypothesis: {hypothesis}\nentailed?"
_WORD = re.compile(r"[^\W_]+")

PROMPT = Prompt(
    system="You are a clinician who writes realistic, wholly invented sentences of social histories and statements "
    "about the person, for teaching a model to reason. Vary people, circumstances, wording and length. Never copy an "
    "example.",
    instruction="Write new pairs. The premise is one sentence as it stands in the social history of a clinical note. "
    "The hypothesis is a short statement about that person's housing, transportation, food, employment, or use of "
    'tobacco, alcohol or drugs, now or in the past; it begins with "The person". The label is True where a careful '
    "reader of the premise alone would conclude the hypothesis, else False.",
    exemplars="mixed",
    n_exemplars=3,
    asks_for="every_label",
    rows=8,
)

PAIR = Task(
    name="sdoh_nli",
    config="pair",
    kind="single_label",
    text_columns=("premise", "hypothesis"),
    label_column="label",
    labels=tuple(LABELS),
    label_meanings=tuple(LABELS.values()),
    prompts=(PROMPT,),
    metrics=("macro_f1", "auprc", "accuracy"),
    access="open",
    language="en",
    license="CC-BY-4.0",
    source_url="https://github.com/google-research-datasets/SDOH-NLI",
    citation="Lelkes, Loreaux, Schuster, Chen, Rajkomar. SDOH-NLI: a Dataset for Inferring Social Determinants of "
    "Health from Clinical Notes. Findings of EMNLP 2023.",
    group_column="group",
    files={split: (f"sdoh_nli_{split}.csv",) for split in ("train", "validation", "test")},
    suites=("extra",),
    description="Whether a sentence of a social history entails a statement on a social determinant of health.",
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
        targets=tuple(LABELS),
        prompts=(
            replace(
                PROMPT,
                instruction=f"{PROMPT.instruction} Each input has the form of the examples; the target is True or "
                "False.",
                rows=6,
            ),
        ),
        metrics=("exact_match",),
        description="SDOH-NLI as text to text: premise and hypothesis in, True or False out.",
    ),
}


def folded(text: str) -> str:
    """Return the words of a text without case and punctuation."""
    return " ".join(_WORD.findall(normalize("NFKC", text).casefold()))


class SdohNli(GoldBuilder):
    """Read the CSV files of SDOH-NLI."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the pairs of one split."""
        task, file = self.task, files[ROWS][0]
        later = self._later_premises(split)
        entailed = {(premise, hypothesis) for _, premise, hypothesis, label in _pairs(file) if label == "True"}
        for number, premise, hypothesis, label in _pairs(file):
            words = folded(premise)
            if words in later:
                self.leave_out(file, "have a premise that also stands in a later split")
                continue
            if label == "False" and (premise, hypothesis) in entailed:
                self.leave_out(file, "contradict another row with the same pair, which is labelled True")
                continue
            id, group = f"{split}-{number}", sha256(words.encode()).hexdigest()[:16]
            if task.kind == "text2text":
                yield task.gold_row(id, group, label, INPUT.format(premise=premise, hypothesis=hypothesis))
            else:
                yield task.gold_row(id, group, label, premise, hypothesis)

    def _later_premises(self, split: str) -> set[str]:
        """Return the folded premises of the splits after one; none where the source is a single file."""
        splits = [s for s in self.task.files if s in self.files]
        after = splits[splits.index(split) + 1 :] if split in splits else []
        return {folded(premise) for s in after for _, premise, _, _ in _pairs(self.files[s][ROWS][0])}


def _pairs(file: Any) -> Iterator[tuple[int, str, str, str]]:
    """Yield (row number, premise, hypothesis, label) of a file."""
    names = {name: name for name in LABELS}
    for number, row in read_csv(file):
        for column in ("premise", "hypothesis", "label"):
            pick_column(file, row, column)
        premise, hypothesis = (text_field(file, number, row, column) for column in ("premise", "hypothesis"))
        yield number, premise, hypothesis, label_field(file, number, row, "label", names)
