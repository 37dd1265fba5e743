"""emrQA: questions about a clinical note, answered by a passage of it (extractive question answering).

Where to get it: https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ ("Community annotations", credentialed; made
from the i2b2 challenges of 2006 to 2014 by https://github.com/panushri25/emrQA). Expected folder or archive, either of

    data.json                            all subsets, named by data[].title
    medications-qa.json                  one subset a file; likewise relations-, obesity-, smoking-, risk-

    data[] -> title, paragraphs[] -> note_id, context (the note's lines), qas[] -> question[] (wordings), id[],
    answers[] -> answer_start [line, token], text, evidence, evidence_start

The files are read as a stream, one note at a time. A question makes one row with its first wording (`wordings="all"`:
one row for each). Its answer is the first with a text, else the first with evidence; questions without either, or about
an empty note, are left out; a warning counts them. With `context_lines=30` the context is not the whole note but the
block of 30 lines that holds the answer; blocks start at fixed lines, so that the place in the block is no hint. There
are no official splits: rows are split by note.

Configs: medications (226,128 questions about 261 notes, all wordings counted) - relations (1,322,789 about 425) -
obesity (354,503 about 1,118) - smoking (4,518 about 502) - risk (49,897 about 119). DR.BENCH (arXiv
2209.14901) has emrQA among its tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import datasets

from hf_synth.errors import GoldError, RowError
from hf_synth.gold import ROWS, WHOLE, GoldBuilder, Parts, SourceFile, json_events, json_items
from hf_synth.task import Prompt, Task

PARAGRAPH = "data.item.paragraphs.item"

PROMPT = Prompt(
    system="You are a physician who writes realistic, wholly invented passages of clinical notes with questions about "
    "them, for teaching a model to find answers. Vary patients, diseases, wording and length. Never copy an example.",
    instruction="Write new entries: a passage of a clinical note (the context), a question that a physician would "
    "ask of the record, and the answer. The answer is copied word for word from the context, as short as it can be.",
    exemplars="mixed",
    n_exemplars=1,
    rows=3,
)

MEDICATIONS = Task(
    name="emrqa",
    config="medications",
    kind="text2text",
    text_columns=("question", "context"),
    label_column="answer",
    labels=(),
    prompts=(PROMPT,),
    metrics=("exact_match", "token_f1"),
    access="credentialed",
    source_url="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
    license="n2c2 data use agreement",
    citation="Pampari, Raghavan, Liang, Peng. emrQA: A Large Corpus for Question Answering on Electronic Medical "
    "Records. EMNLP 2018.",
    group_column="group",
    suites=("DR.BENCH",),
    description="Questions about the medications in a clinical note, answered by a piece of the note.",
)

ABOUT = {
    "medications": "the medications in",
    "relations": "problems, tests and treatments and how they relate in",
    "obesity": "obesity and what comes with it in",
    "smoking": "the smoking status in",
    "risk": "risk factors of heart disease in",
}


def _subset(config: str) -> Task:
    description = f"Questions about {ABOUT[config]} a clinical note, answered by a piece of the note."
    files = {WHOLE: (f"{config}-qa.json", "data.json")}
    return replace(MEDICATIONS, config=config, files=files, description=description)


TASKS = {config: _subset(config) for config in ABOUT}


@dataclass
class EmrqaConfig(datasets.BuilderConfig):
    """The context of a row (lines of a block; 0 for the whole note); the wordings of a question ("first", "all")."""

    context_lines: int = 0
    wordings: str = "first"


class Emrqa(GoldBuilder):
    """Read emrQA's JSON, one note at a time."""

    TASKS = TASKS
    BUILDER_CONFIG_CLASS = EmrqaConfig
    IDS_BY_PLACE = True  # ids are places in the file

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the questions of one subset."""
        file = files[ROWS][0]
        if self.config.wordings not in ("first", "all"):
            raise GoldError(f"wordings must be 'first' or 'all', not {self.config.wordings!r}")
        for number, note in self._notes(file):
            yield from self._questions(file, number, note)

    def _notes(self, file: SourceFile) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the notes of this subset with their number in the file; all, unless the file holds several subsets."""
        subsets = list(self._subsets(file))
        wanted = [True] * sum(count for _, count in subsets)
        if not file.stem.endswith("-qa"):
            titles = sorted({title for title, _ in subsets})
            mine = self.config.name.removesuffix("s")  # "medication" stands for "medications"
            if not any(title.startswith(mine) for title in titles):
                names = [title for title in titles if re.fullmatch(r"[\w -]{1,30}", title)]  # never text of a note
                raise GoldError(
                    f"{file.name} holds no subset {self.config.name!r}; it has {', '.join(names) or 'none'}"
                )
            wanted = [title.startswith(mine) for title, count in subsets for _ in range(count)]
        for number, note in enumerate(json_items(file, PARAGRAPH)):
            if number < len(wanted) and wanted[number]:
                yield number, note

    def _subsets(self, file: SourceFile) -> Iterator[tuple[str, int]]:
        """Yield title and number of notes of each subset, in one pass over the events; the title may come last."""
        title, count, key, top = "", 0, "", ""
        for depth, event, value in json_events(file):
            if event == "map_key" and depth == 1:
                top = value
            elif top != "data":
                continue
            elif event == "map_key" and depth == 3:
                key = value
            elif depth == 3 and event == "string" and key == "title":
                title = str(value).strip().lower()
            elif depth == 4 and key == "paragraphs" and event not in ("start_map", "start_array", "map_key"):
                count += 1  # the end of an element: an object, or a wrong value in its place
            elif depth == 2 and event == "end_map":
                yield title, count
                title, count = "", 0

    def _questions(self, file: SourceFile, number: int, note: Any) -> Iterator[dict[str, Any]]:
        lines, qas = _fields(file, number, note)
        whole = "".join(lines) if any(line.endswith("\n") for line in lines) else "\n".join(lines)
        for at, qa in enumerate(qas):
            wordings = [w for w in _texts(qa.get("question")) if w.strip()]
            answer, line = _answer(qa.get("answers"))
            if not wordings or not answer or not whole.strip():
                self.leave_out(file, "have no question, no answer or an empty note")
                continue
            context = _block(lines, line, self.config.context_lines)
            if " ".join(answer.split()) not in " ".join(context.split()):  # it crosses the block's end, or is elsewhere
                context = whole
            for k, wording in enumerate(wordings if self.config.wordings == "all" else wordings[:1]):
                yield self.task.gold_row(f"{number}-{at}-{k}", self._group(note), answer, wording, context)

    def _group(self, note: Any) -> str:
        """Return the group of a note: its id; in `risk`, whose notes are visits "220-01", the patient's id."""
        id = str(note["note_id"])
        return re.sub(r"-\d{1,3}$", "", id) if self.config.name == "risk" else id


def _fields(file: SourceFile, number: int, note: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the lines and the questions of a note.

    Raises:
        RowError: it has not the form of emrQA's notes.
    """
    context = note.get("context") if isinstance(note, dict) else None
    lines = [context] if isinstance(context, str) else context
    qas = note.get("qas") if isinstance(note, dict) else None
    valid = (
        isinstance(lines, list)
        and all(isinstance(x, str) for x in lines)
        and isinstance(note.get("note_id"), str | int)
    )
    if not valid or not isinstance(qas, list) or not all(isinstance(q, dict) for q in qas):
        raise RowError(file.name, number + 1, "is no note of emrQA: it needs note_id, context (lines) and qas")
    return [str(x) for x in lines or ()], qas


def _answer(answers: Any) -> tuple[str, int]:
    """Return the first answer with a text, else with evidence, and its line (from 0; -1 when unknown)."""
    objects = [a for a in answers if isinstance(a, dict)] if isinstance(answers, list) else []
    for field, place in (("text", "answer_start"), ("evidence", "evidence_start")):
        for answer in objects:
            text = " ".join(" ".join(_texts(answer.get(field))).split())
            if text:
                start = answer.get(place)
                start = start[0] if isinstance(start, list) and start else start
                return text, int(start) - 1 if isinstance(start, int | float) and start >= 1 else -1
    return "", -1


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str)]


def _block(lines: list[str], line: int, size: int) -> str:
    """Return the block of `size` lines that holds a line; "" for size 0 or an unknown line."""
    if size <= 0 or not 0 <= line < len(lines):
        return ""
    first = line - line % size
    block = [x.rstrip("\n") for x in lines[first : first + size]]
    return "\n".join(block) if any(x.strip() for x in block) else ""
