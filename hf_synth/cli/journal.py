"""`hf-synth journal ls|show|verify|export|gc`: look into a journal, check it, take its answers out, drop old ones.

Each takes a journal, or a folder that one lies in. Only `gc` writes to it. The text of an answer is shown only when it
is asked for: it may hold what a note holds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from hf_synth.errors import ColumnError, JournalError
from hf_synth.llm.journal import Entry, Journal
from hf_synth.task.folders import WORK, clear_disk_errors

Facts = dict[str, Any]
STATUSES = ("ok", "refusal", "truncated")
_GROUP = 1_000  # answers held in memory at once
_ANSWER = ", ".join(f.name for f in fields(Entry))

# What every answer must hold, as SQL that counts those that break it, and how that is said.
_BROKEN = {
    "have no sha256 as their key": "length(key) != 64 OR key GLOB '*[^0-9a-f]*'",
    "have a status that is not known": f"status NOT IN {STATUSES}",
    "have counts of tokens that are no counts": (
        "typeof(prompt_tokens) != 'integer' OR typeof(completion_tokens) != 'integer' "
        "OR prompt_tokens < 0 OR completion_tokens < 0"
    ),
    "have a cost that is none": "cost IS NOT NULL AND (typeof(cost) != 'real' OR cost < 0 OR cost > 1e9)",
    "have no time": "typeof(created) != 'real' OR created < 0 OR created > 1e11",
    "hold something other than text": "typeof(text) != 'text' OR typeof(code) != 'text' OR typeof(model) != 'text'",
}


def find_journal(path: Path) -> Path:
    """Give the journal at a path: the file itself, or the one that lies in a folder or beside its data.

    Raises:
        JournalError: there is none.
    """
    places = (path, path / WORK / "journal.sqlite", path / "journal.sqlite")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise JournalError(f"no journal at {path}: give the file, or a folder that holds {WORK}/journal.sqlite")
    return found


def journal_ls(args: argparse.Namespace) -> Facts:
    """List what a journal holds, by model."""
    path = find_journal(args.path)
    with _reading(path) as database:
        models = _models(database)
    size = sum(f.stat().st_size for f in (path, path.with_name(path.name + "-wal")) if f.exists())
    answers = sum(m["answers"] for m in models)
    for m in models:
        statuses = ", ".join(f"{n:,} {status}" for status, n in m["statuses"].items())
        print(
            f"{_name(m)}  {m['answers']:,} answers ({statuses})  "
            f"{m['prompt_tokens']:,} + {m['completion_tokens']:,} tokens  {_dollars(m['cost_usd'], m['unpriced'])}  "
            f"{_when(m['first'])} to {_when(m['last'])}"
        )
    print(f"{path}: {answers:,} answers, {_bytes(size)}")
    return {"journal": str(path), "bytes": size, "answers": answers, "models": models}


def journal_show(args: argparse.Namespace) -> Facts:
    """Show one answer: its facts, and with --text its text."""
    path, prefix = find_journal(args.path), args.key.lower()
    if not re.fullmatch(r"[0-9a-f]{1,64}", prefix):
        raise JournalError("a key, or the start of one, is made of 0-9 and a-f, at most 64 of them")
    with _reading(path) as database:
        rows = database.execute(
            f"SELECT {_ANSWER} FROM answers WHERE key >= ? AND key < ? LIMIT 2", (prefix, prefix + "g")
        ).fetchall()
    if len(rows) != 1:
        raise JournalError(
            f"{path}: {'several answers have a key' if rows else 'no answer has a key'} that starts with {prefix}"
            + ("; give more of it" if rows else "")
        )
    facts = asdict(Entry(*rows[0]))
    text = facts.pop("text")
    for name, value in {**facts, "created": _when(facts["created"]), "characters": len(text)}.items():
        print(f"{name:18} {'' if value is None else _plain(str(value))}".rstrip())
    if args.text:
        print("\n" + _plain(text, keep="\n\t"))
    return {**facts, "characters": len(text), **({"text": text} if args.text else {})}


def journal_verify(args: argparse.Namespace) -> Facts:
    """Check that a journal is whole.

    Raises:
        JournalError: it is not; says in one sentence what is broken.
    """
    path = find_journal(args.path)
    with _reading(path) as database:
        if database.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            raise JournalError(f"journal {path}: it is damaged; export what can be read and move the file away")
        for problem, broken in _BROKEN.items():
            if count := database.execute(f"SELECT count(*) FROM answers WHERE {broken}").fetchone()[0]:
                raise JournalError(f"journal {path}: {count:,} of its answers {problem}")
        try:
            answers = sum(1 for _ in database.execute("SELECT text, code, model FROM answers"))
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorcode"):
                raise
            raise JournalError(f"journal {path}: a text in it is not UTF-8") from None
        models = _models(database)
        whole = database.execute("SELECT sum(prompt_tokens), sum(completion_tokens) FROM answers").fetchone()
    sums = [sum(m[name] for m in models) for name in ("answers", "prompt_tokens", "completion_tokens")]
    if sums != [answers, whole[0] or 0, whole[1] or 0]:
        raise JournalError(f"journal {path}: its sums by model are not those of the whole")
    print(f"{path}: {answers:,} answers, all whole")
    return {"journal": str(path), "answers": answers, "whole": True}


def journal_export(args: argparse.Namespace) -> Facts:
    """Write all answers with their texts to a file that only its owner can read."""
    path, out = find_journal(args.path), Path(args.out)
    if out.suffix.lower() not in (".jsonl", ".parquet"):
        raise ColumnError(f"--out {out}: name a .jsonl or a .parquet file")
    count = 0
    with _reading(path) as database, _new_file(out) as file:
        groups = _groups(database)
        if out.suffix.lower() == ".parquet":
            count = _write_parquet(file, groups)
        else:
            for group in groups:
                file.writelines((json.dumps(asdict(e), ensure_ascii=False) + "\n").encode("utf-8") for e in group)
                count += len(group)
    print(f"{count:,} answers -> {out} (it holds their texts)")
    return {"journal": str(path), "out": str(out), "answers": count}


def journal_gc(args: argparse.Namespace) -> Facts:
    """Drop answers that are older than --days, or of --model; with both, those that are both.

    Raises:
        JournalError: neither is given, or the journal cannot be written.
    """
    if args.days is None and args.model is None:
        raise JournalError("say which answers to drop: --days N (older than that), --model NAME, or both")
    if args.days is not None and not 0 <= args.days < 1e6:
        raise JournalError("--days is a number of days, 0 or more")
    wheres, values = [], []
    if args.days is not None:
        wheres.append("created < ?")
        values.append(time.time() - 86_400 * args.days)
    if args.model is not None:
        wheres.append("model = ?")
        values.append(args.model)
    path, where = find_journal(args.path), " AND ".join(wheres)
    before, shrunk = path.stat().st_size, True
    with closing(Journal(path, read_only=args.dry_run)) as journal:
        with journal.reading() if args.dry_run else journal.transaction() as database:
            dropped = _models(database, where, values)
            if not args.dry_run:
                database.execute("PRAGMA secure_delete=ON")  # a dropped text is not to stay in the file's free pages
                database.execute(f"DELETE FROM answers WHERE {where}", values)
        if dropped and not args.dry_run:
            shrunk = journal.shrink()
    after = path.stat().st_size
    count = sum(m["answers"] for m in dropped)
    for m in dropped:
        print(f"{_name(m)}  {m['answers']:,} answers  {_when(m['first'])} to {_when(m['last'])}")
    said = "would be dropped" if args.dry_run else "dropped"
    print(f"{path}: {count:,} answers {said}" + ("" if args.dry_run else f", {_bytes(before)} -> {_bytes(after)}"))
    if not shrunk:
        print("the file is in use and was not made smaller; run gc again when nothing else uses it")
    return {"journal": str(path), "dropped": count, "dry_run": args.dry_run, "models": dropped, "bytes": after}


# --- reading --------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal so that nothing in it can change; what is read inside is one state of it."""
    with closing(Journal(path, read_only=True)) as journal, journal.reading() as database:
        yield database


def _models(database: sqlite3.Connection, where: str = "1", values: list[Any] | None = None) -> list[Facts]:
    """Sum up the answers by model, those with most answers first."""
    models: dict[str, Facts] = {}
    for model, status, count, read, written, cost, unpriced, first, last in database.execute(
        "SELECT model, status, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost), sum(cost IS NULL), "
        f"min(created), max(created) FROM answers WHERE {where} GROUP BY model, status ORDER BY model, status",
        values or [],
    ):
        m = models.setdefault(
            model,
            {"model": model, "answers": 0, "statuses": {}, "prompt_tokens": 0, "completion_tokens": 0,
             "cost_usd": None, "unpriced": 0, "first": first, "last": last},
        )  # fmt: skip
        m["answers"] += count
        m["statuses"][status] = count
        m["prompt_tokens"] += read
        m["completion_tokens"] += written
        m["unpriced"] += unpriced
        if cost is not None:
            m["cost_usd"] = (m["cost_usd"] or 0.0) + cost
        m["first"], m["last"] = min(m["first"], first), max(m["last"], last)
    return sorted(models.values(), key=lambda m: -m["answers"])


def _groups(database: sqlite3.Connection) -> Iterator[list[Entry]]:
    """Give all answers in the order in which they came, some at a time."""
    cursor = database.execute(f"SELECT {_ANSWER} FROM answers ORDER BY rowid")
    while rows := cursor.fetchmany(_GROUP):
        yield [Entry(*row) for row in rows]


# --- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file (0600) as a whole or not at all."""
    with clear_disk_errors(path):
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with clear_disk_errors(path):
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise


def _write_parquet(file: IO[bytes], groups: Iterator[list[Entry]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()}
    columns = pa.schema([(f.name, types[str(f.type)]) for f in fields(Entry)])
    count = 0
    with pq.ParquetWriter(file, columns) as writer:
        for group in groups:
            writer.write_table(pa.Table.from_pylist([asdict(entry) for entry in group], schema=columns))
            count += len(group)
    return count


# --- saying ---------------------------------------------------------------------------------------------------------


def _plain(text: str, keep: str = "") -> str:
    """Replace what could steer a terminal: an endpoint chose its own name, and wrote the answers."""
    return "".join(c if c in keep or c.isprintable() else "?" for c in text)


def _name(model: Facts) -> str:
    return _plain(model["model"]) or "(unnamed)"


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "no time"


def _dollars(cost: float | None, unpriced: int) -> str:
    if cost is None:
        return "price not known"
    return f"${cost:,.4f}" + (f" (price of {unpriced:,} not known)" if unpriced else "")


def _bytes(size: float) -> str:
    units = ["bytes", "KB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:,.0f} bytes" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"
