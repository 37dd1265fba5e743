"""`hf-synth journal ls|show|verify|export|gc|merge`: list, check, export, delete and join the answers of a journal.

Each takes a journal, or a folder that holds one. Only `gc` writes to it; `merge` writes a new one. Only `show --text`
and `export` give the text of an answer: it may hold what a note holds.
"""

from __future__ import annotations

import json
import os
import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hf_synth.cli.options import Result, add_verb
from hf_synth.cli.parsing import Parser
from hf_synth.errors import ColumnError, JournalError

if TYPE_CHECKING:
    import sqlite3

STATUSES = ("ok", "refusal", "truncated", "empty", "cut")  # the last two are no answers: the next run asks again
_COUNTS = ", ".join(f"sum(status = '{status}')" for status in STATUSES)
_GROUP = 1_000  # answers held in memory at once

# What is wrong with an answer, and the SQL that counts such answers.
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


def add_journal_options(parser: Parser) -> None:
    """Add the verbs of `journal`."""
    verbs = parser.add_subparsers(metavar="VERB")

    def verb(name: str, line: str, run: Callable[[Namespace], Result]) -> Callable[..., Any]:
        add = add_verb(verbs, name, line, run).add_argument
        add("path", type=Path, metavar="PATH", help="a journal, or a folder with .hf_synth/ in it")
        return add

    verb("ls", "list the answers by model", ls)
    add = verb("show", "show the facts of one answer", show)
    add("key", metavar="KEY", help="journal_key of the answer, or the start of it")
    add("--text", action="store_true", help="also show the text of the answer")
    verb("verify", "check that the journal is whole; exit 1 where it is not", verify)
    add = verb("export", "write all answers, with their texts, to a file", export)
    add("--out", type=Path, required=True, metavar="FILE", help="the .jsonl or .parquet file to write")
    add = verb("gc", "delete the answers that meet all criteria given, and make the file smaller", gc)
    add("--days", type=float, metavar="N", help="only answers older than N days")
    add("--model", metavar="NAME", help="only answers of this model, as `ls` names it")
    add("--status", choices=STATUSES, help="only answers of this status, e.g. empty")
    add("--dry-run", action="store_true", help="count what would be deleted; delete nothing")
    add = add_verb(verbs, "merge", "join journals of several machines to one", merge).add_argument
    add("paths", type=Path, nargs="+", metavar="PATH...", help="journals, or folders with .hf_synth/ in them")
    add("--out", type=Path, required=True, metavar="FILE", help="the journal to write, or one that is added to")


def find_journal(path: Path) -> Path:
    """Return the journal at a path: the file itself, or the one in a folder or beside its data.

    Raises:
        JournalError: there is none.
    """
    from hf_synth.task.folders import WORK

    places = (path, path / WORK / "journal.sqlite", path / "journal.sqlite")
    for place in places:
        if place.is_file():
            return place
    raise JournalError(f"no journal at {path}: give the file, or a folder that holds {WORK}/journal.sqlite")


def ls(args: Namespace) -> Result:
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


def show(args: Namespace) -> Result:
    """Show one answer: its facts, and with --text its text."""
    path, prefix = find_journal(args.path), args.key.lower()
    if not re.fullmatch(r"[0-9a-f]{1,64}", prefix):
        raise JournalError("a key, or the start of one, is made of 0-9 and a-f, at most 64 of them")
    with _reading(path) as database:
        rows = [*_answers(database, "WHERE key >= ? AND key < ? LIMIT 2", prefix, prefix + "g")]
    if len(rows) != 1:
        raise JournalError(
            f"{path}: {'several answers have a key' if rows else 'no answer has a key'} that starts with {prefix}"
            + ("; give more of it" if rows else "")
        )
    facts = rows[0]
    text = facts.pop("text")
    for name, value in {**facts, "created": _when(facts["created"]), "characters": len(text)}.items():
        print(f"{name:18} {'' if value is None else _plain(str(value))}".rstrip())
    if args.text:
        print("\n" + _plain(text, keep="\n\t"))
    return {**facts, "characters": len(text), **({"text": text} if args.text else {})}


def verify(args: Namespace) -> Result:
    """Check that a journal is whole.

    Raises:
        JournalError: it is not; the message names what is broken.
    """
    import sqlite3

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
        raise JournalError(
            f"journal {path}: its counts by model do not add up to its total; export what can be "
            "read and move the file away"
        )
    print(f"{path}: {answers:,} answers, all whole")
    return {"journal": str(path), "answers": answers, "whole": True}


def export(args: Namespace) -> Result:
    """Write all answers with their texts to a file, as a whole or not at all (0600 by the umask of the command)."""
    from hf_synth.task.folders import atomic_file

    path, out = find_journal(args.path), args.out
    if out.suffix.lower() not in (".jsonl", ".parquet"):
        raise ColumnError(f"--out {out}: name a .jsonl or a .parquet file")
    with _reading(path) as database, atomic_file(out) as draft, draft.open("wb") as file:
        count = _write(file, _answers(database, "ORDER BY rowid"), parquet=out.suffix.lower() == ".parquet")
        file.flush()
        os.fsync(file.fileno())
    print(f"{count:,} answers -> {out} (it holds their texts)")
    return {"journal": str(path), "out": str(out), "answers": count}


def gc(args: Namespace) -> Result:
    """Delete answers that are older than --days, of --model or of --status; with several, those that are all of it.

    Raises:
        JournalError: neither is given, or the journal cannot be written.
    """
    from hf_synth.llm.journal import Journal

    if args.days is None and args.model is None and args.status is None:
        raise JournalError(
            "say which answers to drop: --days N (older than that), --model NAME, --status empty, or several"
        )
    if args.days is not None and not 0 <= args.days < 1e6:
        raise JournalError("--days is a number of days, 0 or more")
    oldest = None if args.days is None else time.time() - 86_400 * args.days
    # earlier versions kept an empty answer as "ok"
    status = "CASE WHEN status = 'ok' AND text = '' THEN 'empty' ELSE status END = ?"
    clauses = (("created < ?", oldest), ("model = ?", args.model), (status, args.status))
    values = {clause: value for clause, value in clauses if value is not None}
    path, where = find_journal(args.path), " AND ".join(values)
    before, shrunk = path.stat().st_size, True
    with closing(Journal(path, read_only=args.dry_run)) as journal:
        with journal.reading() if args.dry_run else journal.transaction() as database:
            dropped = _models(database, where, *values.values())
            if not args.dry_run:
                database.execute("PRAGMA secure_delete=ON")  # a dropped text is not to stay in the file's free pages
                database.execute(f"DELETE FROM answers WHERE {where}", [*values.values()])
        if dropped and not args.dry_run:
            shrunk = journal.shrink()
    after = path.stat().st_size
    count = sum(m["answers"] for m in dropped)
    for m in dropped:
        print(f"{_name(m)}  {m['answers']:,} answers  {_when(m['first'])} to {_when(m['last'])}")
    change = "would be dropped" if args.dry_run else f"dropped, {_bytes(before)} -> {_bytes(after)}"
    print(f"{path}: {count:,} answers {change}")
    if not shrunk:
        print("the file is in use and was not made smaller; run gc again when nothing else uses it")
    return {"journal": str(path), "dropped": count, "dry_run": args.dry_run, "models": dropped, "bytes": after}


def merge(args: Namespace) -> Result:
    """Join journals: each answer once, no cost lost."""
    from hf_synth.llm.journal_merge import merge_journals

    merged = merge_journals([find_journal(path) for path in args.paths], args.out)
    print(f"{merged.answers:,} answers -> {args.out}")
    if merged.repeated:
        print(f"{merged.repeated:,} questions were asked by several machines: ${merged.repeated_usd:,.4f} more")
    return {"out": str(args.out), **vars(merged)}


# --- reading --------------------------------------------------------------------------------------------------------
@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal read-only, at one state of it."""
    from hf_synth.llm.journal import Journal

    with closing(Journal(path, read_only=True)) as journal, journal.reading() as database:
        yield database


def _answers(database: sqlite3.Connection, clause: str, *values: str) -> Iterator[Result]:
    """Yield answers by column, as many in memory as needed."""
    from hf_synth.llm.journal import Entry

    names = list(Entry.__annotations__)
    for row in database.execute(f"SELECT {', '.join(names)} FROM answers {clause}", values):
        yield dict(zip(names, row, strict=True))


def _models(database: sqlite3.Connection, where: str = "1", *values: Any) -> list[Result]:
    """Sum up the answers by model, most answers first."""
    rows = database.execute(
        "SELECT model, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost), sum(cost IS NULL), "
        f"min(created), max(created), {_COUNTS} FROM answers WHERE {where} GROUP BY model ORDER BY 2 DESC, model",
        values,
    )
    names = (
        "model",
        "answers",
        "statuses",
        "prompt_tokens",
        "completion_tokens",
        "cost_usd",
        "unpriced",
        "first",
        "last",
    )
    models = []
    for model, answers, *sums in rows:
        statuses = {status: n for status, n in zip(STATUSES, sums[6:], strict=True) if n}
        models.append(dict(zip(names, (model, answers, statuses, *sums[:6]), strict=True)))
    return models


# --- writing --------------------------------------------------------------------------------------------------------
def _write(file: IO[bytes], answers: Iterator[Result], *, parquet: bool) -> int:
    """Write answers as JSON lines or parquet, some at a time, and return how many there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_synth.llm.journal import Entry

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()}
    columns = pa.schema([(name, types[kind]) for name, kind in Entry.__annotations__.items()])
    count = 0
    with pq.ParquetWriter(file, columns) if parquet else nullcontext() as writer:
        while group := [*islice(answers, _GROUP)]:
            count += len(group)
            if writer is not None:
                writer.write_table(pa.Table.from_pylist(group, schema=columns))
            else:
                file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8") for row in group)
    return count


# --- printing -------------------------------------------------------------------------------------------------------
def _plain(text: str, keep: str = "") -> str:
    """Replace control characters: the endpoint chose its name and wrote the answers, and could steer a terminal."""
    return "".join(c if c in keep or c.isprintable() else "?" for c in text)


def _name(model: Result) -> str:
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
