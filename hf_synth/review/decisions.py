"""The state that follows from files of decisions: one reviewer's answers, and what several reviewers agree on.

The state is a function of the events alone, in their order. An undo is an event, too: it takes back the last
decision that was not undone, so that nothing is ever rewritten.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LABEL, REJECT, UNSURE, RATE = "label", "reject", "unsure", "rate"  # decisions about a note
UNDO, COMMENT = "undo", "comment"
DIFFER = "differ"  # reviewers disagree, and nobody has settled it
_FORMULA = re.compile("(?m)^[ \\t]*(?=[=+\\-@\uff1d\uff0b\uff0d\uff20])")  # what a spreadsheet takes for a formula
REAL, SYNTHETIC = "real", "synthetic"
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_DECISIONS = (LABEL, REJECT, UNSURE, RATE)


@dataclass(frozen=True)
class Answer:
    """One decision of one reviewer about one note.

    Args:
        do: "label", "reject", "unsure" or "rate".
        label: the label that the reviewer gave; empty without one.
        at: the time, UTC.
        number: of the event in its file, from 0.
        plausibility: from 1 to 5, of a realism sheet; else 0.
        taken_for: "real" or "synthetic", of a realism sheet; else empty.
    """

    do: str
    label: str = ""
    at: str = ""
    number: int = 0
    plausibility: int = 0
    taken_for: str = ""

    @property
    def choice(self) -> tuple[str, str]:
        """What is compared between reviewers."""
        return self.do, self.label


class Decisions:
    """The answers of one reviewer, built up event by event.

    Attributes:
        answers: the answer to each note, by row id.
        unsure: the notes whose answer is "unsure".
        finals: the answers that settle a disagreement, by row id.
        comments: the comment on each note, by row id.
        count: events so far, that of the first line left out.
        last: row of the last decision that was not undone, and whether it settles a disagreement; None without one.
    """

    def __init__(self, events: Iterable[Mapping[str, Any]] = ()) -> None:
        self.answers: dict[str, Answer] = {}
        self.finals: dict[str, Answer] = {}
        self.unsure: dict[str, None] = {}
        self.comments: dict[str, str] = {}
        self.count = 0
        self._standing: list[tuple[str, bool]] = []
        self._past: dict[tuple[str, bool], list[Answer]] = {}
        for event in events:
            self.take(event)

    @property
    def last(self) -> tuple[str, bool] | None:
        """The row of the last decision that was not undone, and whether it settles a disagreement."""
        return self._standing[-1] if self._standing else None

    def take(self, event: Mapping[str, Any]) -> None:
        """Take the next event; one of a kind that is not known, as a later version may write, changes nothing."""
        do, row, number = event.get("do"), str(event.get("row", "")), self.count
        self.count += 1
        if do == UNDO and self._standing:
            key = self._standing.pop()
            past = self._past[key]
            past.pop()
            answers = self.finals if key[1] else self.answers
            if past:
                answers[key[0]] = past[-1]
            else:
                del answers[key[0]]
            self._note_unsure(key[0])
        elif do in _DECISIONS:
            answer = Answer(
                str(do), str(event.get("label", "")), str(event.get("at", "")), number,
                int(event.get("plausibility", 0)), str(event.get("taken_for", "")),
            )  # fmt: skip
            key = row, bool(event.get("final"))
            self._standing.append(key)
            self._past.setdefault(key, []).append(answer)
            (self.finals if key[1] else self.answers)[row] = answer
            self._note_unsure(row)
        if do in (*_DECISIONS, COMMENT) and "comment" in event:
            self.comments[row] = plain_comment(str(event["comment"]))

    def _note_unsure(self, row: str) -> None:
        if row in self.answers and self.answers[row].do == UNSURE:
            self.unsure[row] = None
        else:
            self.unsure.pop(row, None)


def plain_comment(text: str) -> str:
    """Return a comment without control characters and marks that turn the order of text; line ends stay."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (c for c in lines if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _TURNS))
    return "".join(kept).strip()


@dataclass(frozen=True)
class Outcome:
    """What all reviewers together say of one note.

    Args:
        do: "label", "reject", "unsure" or "differ".
        label: the label; empty without one.
        reviewers: who answered, in order of name; whoever settled a disagreement comes last.
        comment: all comments, each with its reviewer's name where there are several.
    """

    do: str
    label: str
    reviewers: tuple[str, ...]
    comment: str


def outcomes(reviewers: Mapping[str, Decisions]) -> dict[str, Outcome]:
    """Join the decisions of several reviewers, by row id.

    A note has the answer on which all who saw it agree, or else the one that settled the disagreement. A label beside
    an "unsure" is a disagreement.

    Args:
        reviewers: the decisions of each, by name.
    """
    rows = dict.fromkeys(row for name in sorted(reviewers) for row in reviewers[name].answers)
    return {row: _outcome(row, reviewers) for row in rows}


def disagreements(reviewers: Mapping[str, Decisions]) -> list[str]:
    """Return the ids of the notes on which reviewers differ and which nobody has settled."""
    first: dict[str, Answer] = {}
    differ: dict[str, None] = {}
    for name in sorted(reviewers):
        for row, answer in reviewers[name].answers.items():
            other = first.setdefault(row, answer)
            if other.do != answer.do or other.label != answer.label:
                differ[row] = None
    return [row for row in differ if not any(row in d.finals for d in reviewers.values())]


def choices(row: str, reviewers: Mapping[str, Decisions]) -> list[tuple[str, str]]:
    """Return the different answers to a note, as (do, label), sorted: they do not show whose they are."""
    return sorted({d.answers[row].choice for d in reviewers.values() if row in d.answers})


def _outcome(row: str, reviewers: Mapping[str, Decisions]) -> Outcome:
    names = [name for name in sorted(reviewers) if row in reviewers[name].answers]
    found = {reviewers[name].answers[row].choice for name in names}
    finals = [(d.finals[row].at, name, d.finals[row]) for name, d in reviewers.items() if row in d.finals]
    if len(found) == 1:
        do, label = found.pop()
    elif finals:
        _, name, answer = max(finals, key=lambda final: final[:2])
        do, label = answer.choice
        names = [*(other for other in names if other != name), name]
    else:
        do, label = DIFFER, ""
    comments = [(name, text) for name in sorted(reviewers) if (text := reviewers[name].comments.get(row, ""))]
    comments = [(name, _FORMULA.sub(r"'\g<0>", text)) for name, text in comments]  # no line is a formula
    joined = comments[0][1] if len(reviewers) == 1 and comments else "; ".join(f"{n}: {text}" for n, text in comments)
    joined = joined.removeprefix("'") if _FORMULA.match(joined[1:]) else joined  # the table guards the start of a cell
    return Outcome(do, label, tuple(names), joined)
