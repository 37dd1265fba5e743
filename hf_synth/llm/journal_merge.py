"""Journals of several machines joined to one: each answer once, by its key, and no cost lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

from hf_synth.errors import JournalError, OutputError
from hf_synth.llm.journal import NO_ANSWER, SCHEMA_VERSION, Entry, Journal

_GROUP = 500  # answers in memory at once
_TWICE = "paid twice: "  # begins the name of a fact: an answer whose question another machine asked, too


@dataclass(frozen=True)
class Merged:
    """What was joined.

    Args:
        answers: in the joined journal.
        repeated: questions that several machines asked: the first answer stays.
        repeated_usd: dollars for the others; they are among the journal's facts.
    """

    answers: int
    repeated: int
    repeated_usd: float


def merge_journals(sources: Sequence[Path], out: Path) -> Merged:
    """Join journals, in their order, into a new one or one that is there; the sources stay as they are.

    Of several answers to one question the first stays; what is no answer is replaced by one. What the other answers
    cost is written among the facts of the journal, once, however often journals are joined. Facts are joined, too; the
    first value of a name stays.

    Raises:
        JournalError: a journal is missing or broken, or was written by another version of hf_synth.
        OutputError: `out` is one of the sources.
    """
    if out.resolve() in {source.resolve() for source in sources}:
        raise OutputError(f"--out {out} is one of the journals that are joined: name a new file")
    for source in sources:
        _check_version(source)
    with closing(Journal(out)) as journal:
        len(journal)  # made, or upgraded
        for source in sources:
            _join(source, journal)
        facts = journal.recorded()
        twice = [json.loads(value) for name, value in facts.items() if name.startswith(_TWICE)]
        return Merged(len(journal), len(twice), round(sum(fact["cost"] or 0.0 for fact in twice), 6))


def _check_version(path: Path) -> None:
    with closing(Journal(path, read_only=True)) as journal, journal.reading() as database:
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"journal {path} is of version {version}, this is version {SCHEMA_VERSION}: use it once with this version "
            "of hf_synth, which upgrades it, or join it where it was written"
        )


def _join(source: Path, journal: Journal) -> None:
    names = ", ".join(Entry.__annotations__)
    with closing(Journal(source, read_only=True)) as other, other.reading() as database:
        rows = database.execute(f"SELECT {names} FROM answers ORDER BY rowid")
        while group := [Entry(*row) for row in islice(rows, _GROUP)]:
            known = _known(journal, [entry.key for entry in group])
            fresh, twice = [], []
            for entry in group:
                before = known.get(entry.key)
                better = before is not None and _is_none(before) and not _is_none(entry)
                if before is None or better:
                    fresh.append(entry)
                if before is not None and astuple(before) != astuple(entry):
                    twice.append(before if better else entry)
            journal.put_many(fresh)
            _record(journal, {_TWICE + _mark(e): json.dumps({"key": e.key, "cost": e.cost}) for e in twice})
        _record(journal, dict(database.execute("SELECT name, value FROM meta")))


def _record(journal: Journal, facts: Mapping[str, str]) -> None:
    """Write facts; the first value of a name stays."""
    with journal.transaction() as database:
        database.executemany(
            "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", list(facts.items())
        )


def _known(journal: Journal, keys: Sequence[str]) -> dict[str, Entry]:
    """Return what is kept of some keys, also what is no answer."""
    names, marks = ", ".join(Entry.__annotations__), ", ".join("?" * len(keys))
    with journal.reading() as database:
        rows = database.execute(f"SELECT {names} FROM answers WHERE key IN ({marks})", keys)
        return {row[0]: Entry(*row) for row in rows}


def _is_none(entry: Entry) -> bool:
    return entry.status in NO_ANSWER or (entry.status == "ok" and not entry.text)


def _mark(entry: Entry) -> str:
    return hashlib.sha256(repr(astuple(entry)).encode()).hexdigest()[:24]
