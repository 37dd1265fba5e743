"""One reviewer's session: which note is next, a decision, the figures so far, and the table that `correct` reads.

Everything lies in FOLDER/.hf_synth/review: the sheet, the decisions of each reviewer, the table. A decision is on disk
when `Session.decide` returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import filterfalse
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from hf_synth.correction.audited import DECISION, PROBABILITY, STRATUM, sample_csv
from hf_synth.errors import OutputError
from hf_synth.reports.realism import REALISM
from hf_synth.review.agreement import agreements
from hf_synth.review.decisions import (
    COMMENT,
    DIFFER,
    LABEL,
    RATE,
    REAL,
    REJECT,
    SYNTHETIC,
    UNDO,
    UNSURE,
    Answer,
    Decisions,
    choices,
    disagreements,
    outcomes,
    plain_comment,
)
from hf_synth.review.log import Log, read_log
from hf_synth.review.promise_sheet import PromiseSheet
from hf_synth.review.realism import RealismSheet, realism_summary
from hf_synth.review.sheets import FORMAT, Item, SampleSheet, text_digests
from hf_synth.review.view import AGAIN, DIFFERENT, OPEN, QUEUES, View
from hf_synth.task.folders import WORK, private_folder, work_folder, write_private
from hf_synth.task.task import Task

Shown = Literal["after", "before", "never"]  # when a reviewer sees the label that a note has
LONGEST_COMMENT = 2_000  # characters
_NAME = re.compile(r"[^\W_][\w .'-]{0,39}")
_KEEP = "keep"  # the label that is shown; it is recorded as that label


class WrongDecision(ValueError):
    """A request that the page never sends: an unknown note, label or decision. Nothing was written."""


@dataclass
class Session:
    """One reviewer's session.

    Args:
        task: of the notes.
        folder: that holds the notes.
        sheet: the notes that are asked for.
        reviewer: the reviewer's name.
        shows: when the reviewer sees the label that a note has: after the answer, before it, or never.
        writes: whether the reviewer decides; False only reads what is on disk.

    Raises:
        OutputError: the folder cannot be written, or another process has the reviewer's file open.
    """

    task: Task
    folder: Path
    sheet: SampleSheet | PromiseSheet | RealismSheet
    reviewer: str
    shows: Shown = "after"
    writes: bool = True
    own: Decisions = field(init=False, default_factory=Decisions)
    repaired: int = field(init=False, default=0)
    _log: Log | None = field(init=False, default=None)
    _secret: bytes = field(init=False, repr=False, default_factory=lambda: secrets.token_bytes(32))
    _keys: dict[str, str] = field(init=False)
    _differ: tuple[tuple[tuple[int, int], ...], dict[str, None]] | None = field(init=False, default=None)
    _others: dict[Path, tuple[tuple[int, int], str, Decisions]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.reviewer = checked_name(self.reviewer)
        self._keys = {self._key(id): id for id in self.sheet.items}
        if not self.writes:
            return
        head = {"review": FORMAT, "kind": self.kind, "task": self.task.full_name, "reviewer": self.reviewer}
        self._log = Log(self.streams / f"{quote(self.reviewer, safe='')}.jsonl", head)
        self.repaired = self._log.repaired
        try:
            self.own = Decisions(self._checked(self._log.events, self._log.path))
        except OutputError:
            self.close()
            raise

    @property
    def kind(self) -> str:
        """What is asked: "labels" or "realism"."""
        return "realism" if isinstance(self.sheet, RealismSheet) else "labels"

    @property
    def streams(self) -> Path:
        """The folder of all reviewers' decisions."""
        return review_folder(self.folder) / self.kind

    @property
    def table(self) -> Path:
        """The file that `export` writes."""
        return self.folder / REALISM if self.kind == "realism" else review_folder(self.folder) / "labels.csv"

    def close(self) -> None:
        """Close the reviewer's file, so that another process may open it."""
        if self._log is not None:
            self._log.close()

    # --- what is shown ------------------------------------------------------------------------------------------
    def view(self, queue: str = OPEN) -> View:
        """Return what the page of a queue shows: its next note, and the figures so far."""
        progress, answers = self.sheet.progress(self.own), self.own.answers
        order = progress.order
        unsure = [id for id in self.own.unsure if id in self.sheet.items]
        reviewers = self.reviewers()
        differ = self._differing(reviewers)
        if queue == AGAIN:
            id = min(unsure, key=lambda id: answers[id].number, default=None)
        elif queue == DIFFERENT:
            id = next(iter(differ), None)
        else:
            id = next(filterfalse(answers.__contains__, order), None)
        item = None if id is None else self.sheet.items[id]
        hidden = self.shows == "never" and id is not None
        done = id is None
        return View(
            queue=queue,
            item=item,
            key="" if id is None else self._key(id),
            count=self.own.count,
            answered=sum(map(answers.__contains__, order)),
            asked=len(order),
            unsure=len(unsure),
            differ=len(differ),
            reviewers=len(reviewers),
            choices=tuple(_words(do, label) for do, label in choices(id, reviewers))
            if queue == DIFFERENT and id
            else (),
            comment="" if id is None else self.own.comments.get(id, ""),
            last=self._last(),
            noise=None if hidden else progress.noise,
            so_far="" if hidden else progress.so_far,
            may_stop=progress.may_stop,
            ahead=progress.ahead,
            shown=item.label if item is not None and self.shows == "before" and queue != DIFFERENT else "",
            agreements=tuple(agreements(reviewers)) if done and self.kind == "labels" else (),
        )

    def reviewers(self) -> dict[str, Decisions]:
        """Return the decisions of all reviewers by name, those of other processes as far as they are on disk.

        Raises:
            OutputError: a file is damaged.
        """
        found = {self.reviewer: self.own} if self.own.answers or self.own.finals else {}
        for file in sorted(self.streams.glob("*.jsonl")):
            if self._log is not None and file == self._log.path:
                continue
            stat = file.stat()
            state = (stat.st_size, stat.st_mtime_ns)
            if file not in self._others or self._others[file][0] != state:
                events = read_log(file)
                name = str(events[0].get("reviewer", "")) if events else ""
                self._others[file] = (state, name, Decisions(self._checked(events[1:], file)))
            _, name, decisions = self._others[file]
            if name and name not in found and (decisions.answers or decisions.finals):
                found[name] = decisions
        return found

    def _checked(self, events: Sequence[Mapping[str, Any]], file: Path) -> Sequence[Mapping[str, Any]]:
        """Return decisions after checking that they are about the texts that the notes have now."""
        for event in events:
            row = str(event.get("row", ""))
            if row in self.sheet.items and event.get("text", "") not in ("", self._mark(row)):
                raise OutputError(
                    f"{file} holds decisions on other notes with the same ids: move {file.parent} away to start again"
                )
        return events

    def _key(self, id: str) -> str:
        """Return the key of a row in a form; the secret behind it is never sent or stored."""
        return hashlib.blake2b(id.encode("utf-8", "backslashreplace"), key=self._secret, digest_size=16).hexdigest()

    def _mark(self, id: str) -> str:
        return text_digests(self.task, [self.sheet.items[id]])[0]

    def _differing(self, reviewers: Mapping[str, Decisions]) -> Collection[str]:
        """Return the notes on which reviewers differ and which nobody has settled; kept up to date by `decide`."""
        if len(reviewers) < 2 or self.kind == "realism":
            return ()
        others = tuple(state for state, *_ in self._others.values())
        if self._differ is None or self._differ[0] != others or self._log is None:
            self._differ = others, dict.fromkeys(id for id in disagreements(reviewers) if id in self.sheet.items)
        return self._differ[1]

    def _changed(self, id: str) -> None:
        """Look again whether reviewers differ on a note."""
        if self._differ is not None:
            reviewers = self.reviewers()
            self._differ[1].pop(id, None)
            settled = any(id in d.finals for d in reviewers.values())
            if id in self.sheet.items and len(choices(id, reviewers)) > 1 and not settled:
                self._differ[1][id] = None

    def _last(self) -> str:
        """Describe the last decision that was not undone, with the note's label where it may be shown now."""
        if self.own.last is None:
            return ""
        id, final = self.own.last
        answer, item = (self.own.finals if final else self.own.answers)[id], self.sheet.items.get(id)
        if answer.do == RATE:
            return f"Your last answer: plausibility {answer.plausibility}, {answer.taken_for}"
        said = f"Your last answer: {_words(answer.do, answer.label)}"
        if item is None or self.shows == "never" or final or not item.label:
            return said
        if answer.do == LABEL and item.label == answer.label:
            return f"{said}. The note had the same label"
        return f"{said}. The note had the label {item.label}"

    # --- what is decided ----------------------------------------------------------------------------------------
    def decide(self, form: Mapping[str, str]) -> str:
        """Record what a form says; it is on disk when this returns.

        Args:
            form: `do`, `count`, and for a decision `key`, `queue`, `label`, `comment`, `plausibility`, `taken_for`.

        Returns:
            Why nothing was recorded, as a sentence for the page; empty where it was.

        Raises:
            WrongDecision: the page sends no such form.
            OutputError: the disk cannot be written; nothing was recorded.
        """
        if self._log is None:
            raise WrongDecision
        do = form.get("do", "")
        event: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        event |= {"do": UNDO} if do == UNDO else self._event(do, form)
        if form.get("count") != str(self.own.count):
            sent_again = self._log.events and form.get("count") == str(self.own.count - 1)
            if sent_again and _same(self._log.events[-1], event):
                return ""  # the answer to the first request was lost
            return "Nothing was saved: this review went on in another window. Here is where it stands."
        if do == UNDO and self.own.last is None:
            return "There is nothing to undo."
        touched = self.own.last[0] if do == UNDO and self.own.last else str(event.get("row", ""))
        self._log.append(event)
        self.own.take(event)
        with contextlib.suppress(OutputError):  # the answer is saved; a damaged file of another shows with the page
            self._changed(touched)
        return ""

    def _event(self, do: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Return the event of a decision or comment about a note."""
        id = self._keys.get(form.get("key", ""))
        comment = plain_comment(form.get("comment", ""))
        if id is None or len(comment) > LONGEST_COMMENT or form.get("queue", OPEN) not in QUEUES:
            raise WrongDecision
        event: dict[str, Any] = {"row": id, "text": self._mark(id), "do": do}
        if comment != self.own.comments.get(id, ""):
            event["comment"] = comment
        if form.get("queue") == DIFFERENT and do != COMMENT:
            event["final"] = True
        if do == COMMENT:
            return event | {"comment": comment}
        if self.kind == "realism":
            plausible, taken_for = form.get("plausibility", ""), form.get("taken_for", "")
            if do != RATE or plausible not in ("1", "2", "3", "4", "5") or taken_for not in (REAL, SYNTHETIC):
                raise WrongDecision
            return event | {"plausibility": int(plausible), "taken_for": taken_for}
        if do == _KEEP and self.shows == "before":
            return event | {"do": LABEL, "label": self.sheet.items[id].label}
        if do == LABEL and form.get("label") in self.task.labels:
            return event | {"label": form["label"]}
        if do not in (REJECT, UNSURE):
            raise WrongDecision
        return event

    # --- results ---------------------------------------------------------------------------------------
    def export(self) -> Path:
        """Write what all reviewers decided, and return the file (0600).

        For labels it is the table that `correct --audited` reads: CSV with a byte order mark, so that a spreadsheet
        reads it as UTF-8, without the texts of the notes. Notes without an agreed answer have no label. For a realism
        sheet it is `realism.json` with the figures.

        Raises:
            OutputError: the folder cannot be written.
        """
        reviewers = self.reviewers()
        if isinstance(self.sheet, RealismSheet):
            return write_private(self.table, json.dumps(realism_summary(self.sheet, reviewers), indent=1) + "\n")
        from datasets import Dataset, Features, Value

        found = outcomes(reviewers)
        columns: dict[str, list[Any]] = {}
        for id, (item, probability, stratum) in self._design().items():
            outcome = found.get(id)
            row = {
                "id": id,
                "llm_label": item.llm_label,
                "label": outcome.label if outcome else "",
                DECISION: outcome.do if outcome else "",
                "reviewer": ", ".join(outcome.reviewers) if outcome else "",
                "comment": outcome.comment if outcome else "",
                PROBABILITY: probability,
                STRATUM: stratum,
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        features = Features({c: Value("float64" if c == PROBABILITY else "string") for c in columns})
        return write_private(self.table, "\ufeff" + sample_csv(Dataset.from_dict(columns, features=features)))

    def _design(self) -> dict[str, tuple[Item, float, str]]:
        """Return the rows of the table with inclusion probability and stratum, in the order of the sheet."""
        if isinstance(self.sheet, PromiseSheet):
            return self.sheet.design(self.joined())
        return {id: (item, item.probability, item.stratum) for id, item in self.sheet.items.items()}

    def joined(self) -> Decisions:
        """Return what all reviewers together decided, as the answers of one; notes on which they differ have none."""
        joined = Decisions()
        for id, outcome in outcomes(self.reviewers()).items():
            if id in self.sheet.items and outcome.do != DIFFER:
                joined.answers[id] = Answer(outcome.do, outcome.label)
        return joined

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of all reviewers together, plain values."""
        reviewers = self.reviewers()
        if isinstance(self.sheet, RealismSheet):
            rated = {id for d in reviewers.values() for id in d.answers}
            return {"reviewed": len(rated & set(self.sheet.items)), "asked": len(self.sheet.items)} | realism_summary(
                self.sheet, reviewers
            )
        joined = self.joined()
        progress, differ = self.sheet.progress(joined), self._differing(reviewers)
        asked, noise = progress.order, progress.noise
        counts = Counter(joined.answers[id].do for id in asked if id in joined.answers)
        names = ("share", "low", "high", "looked_at", "wrong")
        return {
            "reviewed": counts.total() + len(differ),
            "asked": len(asked),
            "labelled": counts[LABEL],
            "rejected": counts[REJECT],
            "unsure": counts[UNSURE],
            "disagreements": len(differ),
            "may_stop": bool(progress.may_stop),
            "wrong_labels": None if noise is None else {name: getattr(noise, name) for name in names},
            "agreement": [vars(pair) for pair in agreements(reviewers)],
        }

    def findings(self) -> list[str]:
        """Return what is known after the decisions of all reviewers, a sentence each."""
        reviewers, progress = self.reviewers(), self.sheet.progress(self.joined())
        lines = [str(found) for found in (progress.noise, *agreements(reviewers)) if found is not None]
        if differ := self._differing(reviewers):
            lines.append(f"disagreements without a label until somebody settles them on the page: {len(differ):,}")
        return [
            *lines,
            *filter(None, (progress.so_far.rstrip("."), progress.may_stop.rstrip("."), progress.ahead.rstrip("."))),
        ]


def checked_name(name: str) -> str:
    """Return a reviewer's name without white space around it.

    Raises:
        OutputError: it is no name of letters, digits, spaces and . ' - _ that begins with a letter or digit.
    """
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if not _NAME.fullmatch(name):
        raise OutputError("--reviewer takes a name of at most 40 letters, digits, spaces and . ' - _")
    return name


def review_folder(folder: Path) -> Path:
    """Return the folder of a review (0700); create it if it is missing."""
    return private_folder(work_folder(folder) / "review")


def is_begun(folder: Path, kind: str) -> bool:
    """Return whether somebody has decided on a note of this folder; nothing is created."""
    return any((folder / WORK / "review" / kind).glob("*.jsonl"))


def _same(event: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two events say the same, whenever they were recorded."""
    names = event.keys() | other.keys()
    return all(event.get(name) == other.get(name) for name in names - {"at", "comment"})


def _words(do: str, label: str) -> str:
    return label if do == LABEL else {REJECT: "rejected", UNSURE: "unsure"}[do]
