"""emrQA: questions about a clinical note, answered by a passage of it (extractive question answering).

Where to get it: https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/ ("Community annotations", credentialed; made
from the i2b2 challenges of 2006 to 2014 by https://github.com/panushri25/emrQA). Expected folder or archive, either of

    data.json                            all subsets, named by data[].title
    medication-qa.json                   one subset a file, as the generator writes it, without "data" around it;
                                         likewise relations-, obesity-, smoking-, risk-

    data[] -> title, paragraphs[] -> note_id, context (the note's lines, or one string), qas[] -> question[] (wordings),
    id[], answers[] -> answer_start [line, token], text, evidence, evidence_start, answer_entity_type

The files are read as a stream, one note at a time. A question makes one row with its first wording (`wordings="all"`:
one row for each). Its answer is the first with a text, else the first with evidence; what else is right stands in the
column `other_targets`, and scores take the best of all, as SQuAD's do. An answer of several pieces ("complex") stands
nowhere in the note as one, and is left out, as in CliniRC. Questions without an answer, or about an empty note, are
left out; a warning counts them. With `context_lines=30` the context is not the whole note but the block of 30 lines
that holds the answer; blocks start at fixed lines, so that the place in the block is no hint. There are no official
splits: rows are split by note.

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
import pyarrow as pa

from hf_synth.errors import GoldError, RowError
from hf_synth.gold import ROWS, WHOLE, GoldBuilder, JsonValues, Parts, SourceFile, note_place
from hf_synth.task import Prompt, Task

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
    language="en",
    source_url="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
    license="n2c2 data use agreement",
    citation="Pampari, Raghavan, Liang, Peng. emrQA: A Large Corpus for Question Answering on Electronic Medical "
    "Records. EMNLP 2018.",
    group_column="group",
    several_targets=True,
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
    names = dict.fromkeys(
        (f"{config.removesuffix('s') if config == 'medications' else config}-qa.json", f"{config}-qa.json")
    )
    files = {WHOLE: (*names, "data.json")}
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

    def tables(self, split: str, files: Parts) -> Iterator[pa.Table]:
        """Read the questions of one subset."""
        file, features = files[ROWS][0], self.task.gold_features()
        if self.config.wordings not in ("first", "all"):
            raise GoldError(f"wordings must be 'first' or 'all', not {self.config.wordings!r}")
        constant = self.task.gold_row("", "", "", "", "")
        rows: list[tuple[Any, ...]] = []
        characters = 0
        for number, note in self._notes(file):
            for row in self._questions(file, number, note):
                rows.append(row)
                characters += len(row[3])
                if len(rows) == 1_000 or characters > 4_000_000:
                    yield _table(features, constant, rows)
                    rows, characters = [], 0
        if rows:
            yield _table(features, constant, rows)

    def _notes(self, file: SourceFile) -> Iterator[tuple[int, Any]]:
        """Yield the notes of this subset with their number in the file.

        A subset may name itself behind its notes. Then the titles of the file are read first.
        """
        alone = file.stem.endswith("-qa")  # one subset, which the file's name tells
        found: list[str] = []
        titles: list[str] | None = None
        number = 0
        with JsonValues(file) as values:
            for at, (title, notes) in enumerate(_subsets(values)):
                if title is None:
                    titles = _titles(file) if titles is None else titles
                    title = titles[at]
                found.append(title)
                wanted = self._is_mine(title) or (alone and not self._known(title))
                for value in notes:
                    if wanted:
                        yield number, value
                    number += 1
            values.finish()
        if not any(self._is_mine(title) or (alone and not self._known(title)) for title in found):
            named = sorted({self._known(t) for t in found} - {""})
            others = sum(not self._known(t) for t in found)
            shown = [*named, *([f"{others} of another title"] if others else [])]
            raise GoldError(f"{file.name} holds no subset {self.config.name!r}; it has {', '.join(shown) or 'none'}")

    def _is_mine(self, title: str) -> bool:
        return self._known(title) == self.config.name

    @staticmethod
    def _known(title: str) -> str:
        """Return the config that a title stands for ("medication", "risk-dataset"), "" for an unknown one."""
        return next((c for c in ABOUT if title.startswith(c.removesuffix("s"))), "")

    def _questions(self, file: SourceFile, number: int, note: Any) -> Iterator[tuple[Any, ...]]:
        """Yield (id, group, question, context, answer, other answers) of each row of a note."""
        note_place(file, number + 1)
        lines, qas = _fields(file, number, note)
        whole = "".join(lines) if any(line.endswith("\n") for line in lines) else "\n".join(lines)
        blank, group, size = not whole.strip(), self._group(note), self.config.context_lines
        blocks: dict[int, tuple[str, str]] = {}  # number of a block -> it, and its words
        for at, qa in enumerate(qas):
            wordings = [w for w in _texts(qa.get("question")) if w.strip()]
            answers, line, pieces = _answers(qa.get("answers"))
            if not wordings or not answers or blank:
                lacks = "have only answers of several pieces" if pieces and not answers else ""
                self.leave_out(file, lacks or "have no question, no answer or an empty note")
                continue
            context = whole
            if size > 0 and 0 <= line < len(lines):
                block = blocks.get(line // size)
                if block is None:
                    block = blocks[line // size] = _block(lines, line, size)
                if answers[0] in block[1]:  # else it crosses the block's end, or is elsewhere
                    context = block[0]
            for k, wording in enumerate(wordings if self.config.wordings == "all" else wordings[:1]):
                yield f"{number}-{at}-{k}", group, wording, context, answers[0], answers[1:]

    def _group(self, note: Any) -> str:
        """Return the group of a note: its id; in `risk`, whose notes are visits "220-01", the patient's id."""
        id = str(note["note_id"])
        return re.sub(r"-\d{1,3}$", "", id) if self.config.name == "risk" else id


def _subsets(values: JsonValues) -> Iterator[tuple[str | None, Iterator[Any]]]:
    """Yield title and notes of each subset; the title is None where it is not known before the notes."""
    if values.starts() == "{":
        title: str | None = None
        for key in values.keys():  # noqa: SIM118  # not a dict
            if key == "data" and values.starts() == "[":
                for _ in values.items():
                    yield from _subsets(values)
            elif key == "title":
                title = str(values.value()).strip().lower()
            elif key == "paragraphs":
                yield title, (values.value() for _ in values.items())
            else:
                values.value()
    else:
        values.value()


def _titles(file: SourceFile) -> list[str]:
    """Return the title of each subset, in a pass over the whole file."""
    titles: list[str] = []

    def read(values: JsonValues) -> None:
        title, lists = "", 0
        for key in values.keys():  # noqa: SIM118  # not a dict
            if key == "data" and values.starts() == "[":
                for _ in values.items():
                    read(values) if values.starts() == "{" else values.value()
            else:
                value = values.value() if key != "paragraphs" else sum(1 for _ in values.items() if values.value() or 1)
                title = str(value).strip().lower() if key == "title" else title
                lists += key == "paragraphs"
        titles.extend([title] * lists)

    with JsonValues(file) as values:
        read(values)
    return titles


def _table(features: datasets.Features, constant: dict[str, Any], rows: list[tuple[Any, ...]]) -> pa.Table:
    """Return rows as a table; the columns that a row does not have are constant."""
    schema = features.arrow_schema
    columns = dict(
        zip(("id", "group", "question", "context", "answer", "other_targets"), zip(*rows, strict=True), strict=True)
    )
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.repeat(pa.scalar(constant[field.name], field.type), len(rows))
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


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


def _answers(answers: Any) -> tuple[list[str], int, bool]:
    """Return the right answers, the line of the first (from 0; -1 when unknown), and whether one has several pieces.

    They are those with a text, else those with evidence, each once.
    """
    objects = [a for a in answers if isinstance(a, dict)] if isinstance(answers, list) else []
    pieces = False
    for field, place in (("text", "answer_start"), ("evidence", "evidence_start")):
        found: dict[str, None] = {}
        line = -1
        for answer in objects:
            texts = _texts(answer.get(field))
            if answer.get("answer_entity_type") == "complex" or len(texts) > 1:
                pieces = True
                continue
            text = " ".join(texts[0].split()) if texts else ""
            if text and not found:
                start = answer.get(place)
                start = start[0] if isinstance(start, list) and start else start
                line = int(start) - 1 if isinstance(start, int | float) and start >= 1 else -1
            if text:
                found[text] = None
        if found:
            return list(found), line, pieces
    return [], -1, pieces


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str)]


def _block(lines: list[str], line: int, size: int) -> tuple[str, str]:
    """Return the block of `size` lines that holds a line, and its words with single blanks between them."""
    first = line - line % size
    block = "\n".join(x.rstrip("\n") for x in lines[first : first + size])
    return block, " ".join(block.split())
