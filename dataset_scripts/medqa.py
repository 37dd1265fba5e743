"""MedQA-USMLE: multiple-choice questions of the United States medical licensing examination.

Where to get it: https://github.com/jind11/MedQA (open, MIT; its README links to the files). Expected folder or archive,
wherever `questions` lies in it:

    questions/US/train.jsonl                                  10,178 questions (numbers from general knowledge)
    questions/US/dev.jsonl                                     1,272
    questions/US/test.jsonl                                    1,273
    questions/US/4_options/phrases_no_exclude_train.jsonl     the same with four options; likewise _dev, _test

A line holds question, answer (text), options (letter -> text), meta_info, answer_idx (letter).
The context of a row lists the options, a line each; the answer is the letter, so that exact match is accuracy.

Configs: `five`, options A to E - `four`, options A to D.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hf_synth.errors import RowError
from hf_synth.gold import ROWS, GoldBuilder, Parts, pick_column, read_jsonl, text_field
from hf_synth.task import Prompt, Task

PROMPT = Prompt(
    system="You write new questions in the style of medical licensing examinations, for teaching a model. Vary fields, "
    "patients, and what is asked. Never copy an example.",
    instruction="Write new multiple-choice questions: a vignette that ends in a question; the context, which lists the "
    "options as in the examples, a line each; and the letter of the one right option as the answer. Every option "
    "must be plausible, and the vignette must decide between them.",
    exemplars="mixed",
    n_exemplars=2,
    rows=3,
)

FIVE = Task(
    name="medqa",
    config="five",
    kind="text2text",
    text_columns=("question", "context"),
    label_column="answer",
    labels=(),
    targets=tuple("ABCDE"),
    prompts=(PROMPT,),
    metrics=("exact_match",),
    access="open",
    language="en",
    source_url="https://github.com/jind11/MedQA",
    license="MIT",
    citation="Jin, Pan, Oufattole, Weng, Fang, Szolovits. What Disease does this Patient Have? A Large-scale Open "
    "Domain Question Answering Dataset from Medical Exams. Applied Sciences 2021. arXiv:2009.13081",
    files={"train": ("US/train.jsonl",), "validation": ("US/dev.jsonl",), "test": ("US/test.jsonl",)},
    suites=("DR.BENCH",),
    description="Multiple-choice questions of the US medical licensing examination, five options.",
)

TASKS = {
    "five": FIVE,
    "four": replace(
        FIVE,
        config="four",
        targets=tuple("ABCD"),
        files={
            split: (f"phrases_no_exclude_{name}.jsonl",)
            for split, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
        description="Multiple-choice questions of the US medical licensing examination, four options.",
    ),
}


class Medqa(GoldBuilder):
    """Read the JSONL files of MedQA."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the questions of one split."""
        task, file = self.task, files[ROWS][0]
        for number, row in read_jsonl(file):
            for column in ("question", "answer", "options"):
                pick_column(file, row, column)
            options = row["options"]
            valid = isinstance(options, dict) and all(isinstance(v, str) and v.strip() for v in options.values())
            if not valid or tuple(sorted(options)) != task.targets:
                raise RowError(file.name, number, f"needs options {', '.join(task.targets)}, each with a text")
            letter = row.get("answer_idx") or next((x for x, text in options.items() if text == row["answer"]), None)
            if not isinstance(letter, str) or letter not in options or options[letter] != row["answer"]:
                raise RowError(file.name, number, "has an answer that is none of its options")
            context = "\n".join(f"{x}. {options[x]}" for x in task.targets)
            yield task.gold_row(f"{split}-{number}", None, letter, text_field(file, number, row, "question"), context)
