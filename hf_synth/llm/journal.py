"""Durable cache of LLM answers in SQLite (WAL), and detection of network file systems.

The journal keeps every answer that was paid for. An answer is on disk before it is used (synchronous=FULL): once
`put_many` returns, it survives kill -9 and power loss. Several processes may write at once. Answers may contain text,
so the file lies in the user's own folder (0700, the file 0600). Prompts, which contain gold, are not kept: the key of
an answer is a hash of model, messages, sampling, schema, sample number and scope (`questions.py`).

Before a question is asked its key is leased, so that one of several processes pays and the others wait for its answer
(`leases.py`). Writing the answer ends the lease. SQLite's WAL needs memory that all processes share, so a journal on a
file system of several machines (NFS, SMB, FUSE clients of remote stores) is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from hf_synth.errors import JournalError, OutputError
from hf_synth.task.folders import private_folder, work_folder

SCHEMA_VERSION = 4
_CHUNK = 500  # keys looked up by one statement
_PATIENCE = 2.0  # seconds to wait for other processes before the file is left as large as it is
_KEPT = "what it holds is kept"
_INHERITED: list[sqlite3.Connection | None] = []  # connections of a parent process, kept from garbage collection

_CREATE = """
CREATE TABLE answers (
  key TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL, status TEXT NOT NULL, code TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL, model TEXT NOT NULL,
  created REAL NOT NULL
);
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
"""
# The statement that upgrades each version to the next one; a new file is made in the same steps.
_UPGRADES = {
    1: "CREATE TABLE leases (key TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;",
    2: "ALTER TABLE answers ADD COLUMN logprobs TEXT NOT NULL DEFAULT '';",
    3: "ALTER TABLE answers ADD COLUMN sent TEXT NOT NULL DEFAULT '';",
}
# Views through which a read-only file of an older version is read, by the columns that it lacks.
_CURRENT_VIEW = "CREATE TEMP VIEW answers AS SELECT rowid, *, {} FROM main.answers"
_LACKING = {1: "'' AS logprobs, '' AS sent", 2: "'' AS logprobs, '' AS sent", 3: "'' AS sent"}

# The start of SQLite's error name, and what the user can do.
_PROBLEMS = (
    ("SQLITE_FULL", f"the disk is full; {_KEPT}: free some space and run again"),
    ("SQLITE_READONLY", "it cannot be written (read-only); choose another place for the journal"),
    ("SQLITE_CANTOPEN", "it cannot be opened or written; check the permissions or choose another place"),
    ("SQLITE_NOTADB", "it is not a journal of hf_synth; move the file away or choose another place"),
    ("SQLITE_CORRUPT", "it is damaged; move the file away and run again"),
    ("SQLITE_BUSY", f"another process has locked it; {_KEPT}: wait for that process and run again"),
    ("SQLITE_LOCKED", f"another process has locked it; {_KEPT}: wait for that process and run again"),
    ("SQLITE_IOERR", f"the disk reports an error; {_KEPT}: check the disk and run again"),
)

# Types of file systems that several machines may write at once, and programs behind FUSE mounts of that kind.
_REMOTE = re.compile(
    "nfs[34]?|cifs|smb[23]|smbfs|ncpfs|afs|coda|lustre|gpfs|mmfs|beegfs|ceph|glusterfs|panfs|orangefs|pvfs2|wekafs|"
    "ocfs2|gfs2?|acfs|davfs2?|sshfs|s3fs|goofys|gcsfuse|rclone"
)
_REMOTE_FUSE = re.compile(
    "sshfs|s3fs|goofys|gcsfuse|rclone|glusterfs|ceph|ceph-fuse|curlftpfs|davfs2?|smbnetfs|juicefs|blobfuse2?|nfs|"
    "mountpoint-s3|cvmfs2|seaweedfs|moosefs|mfs|lizardfs|google-drive-ocamlfuse|onedriver|alluxio(-fuse)?|beegfs|dfuse|"
    "hdfs|fuse_dfs|afpfs|gvfsd-fuse|kio-fuse|vmhgfs-fuse"
)


@dataclass(frozen=True)
class Entry:
    """One answer as the journal keeps it.

    Args:
        key: hex sha256 of everything that decides the answer.
        text: the answer.
        status: "ok", "refusal" or "truncated"; "empty" (nothing was written) and "cut" (at a limit that the server
            set itself) are no answers: they are kept for what they cost, and the next run asks again.
        code: the reason of that status, e.g. the endpoint's finish reason.
        prompt_tokens: tokens read.
        completion_tokens: tokens written.
        cost: US dollars, or None where no price is known.
        model: the model as the endpoint names it.
        created: seconds since 1970.
        logprobs: alternatives of its first tokens as JSON (`replies.read_logprobs`); "" when not requested.
        sent: what was sent otherwise than the key says, as JSON (`manners.changes`); "" for nothing.
    """

    key: str
    text: str
    status: str = "ok"
    code: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    model: str = ""
    created: float = 0.0
    logprobs: str = ""
    sent: str = ""


@dataclass(frozen=True)
class Shared(Entry):
    """An answer that another process or call paid for while this one waited."""


NO_ANSWER = ("empty", "cut")  # statuses of what was paid for and is no answer
# Earlier versions kept an empty answer as "ok".
_NONE = f"(answers.status IN {NO_ANSWER} OR (answers.status = 'ok' AND answers.text = ''))"


def mark_unanswered(entry: Entry, *, bounded: bool) -> Entry:
    """Mark an answer that is none as "empty" or "cut".

    Args:
        bounded: whether the question had a limit of its own, so that the same question is cut again.
    """
    if entry.status == "ok" and not entry.text.strip() and not entry.logprobs:
        return replace(entry, status="empty")
    return replace(entry, status="cut") if entry.status == "truncated" and not bounded else entry


_COLUMNS = ", ".join(f.name for f in fields(Entry))
_PLACEHOLDERS = ", ".join("?" * len(fields(Entry)))
_NEW = ", ".join(f"{f.name} = excluded.{f.name}" for f in fields(Entry))
_INSERT = (
    f"INSERT INTO answers ({_COLUMNS}) VALUES ({_PLACEHOLDERS}) ON CONFLICT (key) DO UPDATE SET {_NEW} WHERE {_NONE}"
)


def select_by_key(database: sqlite3.Connection, statement: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a statement for any number of keys."""
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        yield from database.execute(f"{statement} WHERE key IN ({', '.join('?' * len(chunk))})", chunk)


def default_journal(near: str | Path | None = None) -> Path:
    """Return the path of the journal beside some data, `<near>/.hf_synth/journal.sqlite`; None is the working folder.

    Raises:
        JournalError: the folder cannot be created.
    """
    try:
        return work_folder(Path(near) if near is not None else Path.cwd()) / "journal.sqlite"
    except OutputError as error:
        raise JournalError(str(error)) from None


class Journal:
    """Answers in a file, which is opened on first use, and again in a forked or spawned process.

    Args:
        path: the file; it and its folder are created for their owner only.
        timeout: seconds to wait while another process writes.
        read_only: never create, upgrade or change the file.

    Raises:
        JournalError: from any method, when the file cannot be read or written, or is not a journal.
    """

    def __init__(self, path: str | Path, *, timeout: float = 30.0, read_only: bool = False) -> None:
        self.path, self.timeout, self.read_only = Path(path), timeout, read_only
        self._forget()

    def _forget(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "timeout": self.timeout, "read_only": self.read_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.timeout, self.read_only = state["path"], state["timeout"], state["read_only"]
        self._forget()

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r})"

    # --- answers ------------------------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Look up answers; unknown keys, and those whose answer is none, are left out."""
        distinct = list(dict.fromkeys(keys))
        with self._database() as database:
            rows = select_by_key(database, f"SELECT {_COLUMNS} FROM answers", distinct)
            return {row[0]: Entry(*row) for row in rows if not (row[2] in NO_ANSWER or row[1:3] == ("", "ok"))}

    def put_many(self, entries: Iterable[Entry]) -> None:
        """Write answers and end their leases in one commit, on disk on return; the first answer of a key stays.

        What is no answer is replaced.
        """
        rows = [astuple(entry) for entry in entries]
        with self.transaction() as database:
            database.executemany(_INSERT, rows)
            database.executemany("DELETE FROM leases WHERE key = ?", [row[:1] for row in rows])

    def accept(self, keys: Iterable[str]) -> None:
        """Keep "cut" answers as answers, since rows came of them: they are not asked for again."""
        with self.transaction() as database:
            database.executemany(
                "UPDATE answers SET status = 'truncated' WHERE key = ? AND status = 'cut'", [(key,) for key in keys]
            )

    def __len__(self) -> int:
        with self._database() as database:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])

    # --- facts about the journal --------------------------------------------------------------------------------

    def record(self, name: str, value: str) -> None:
        """Write a fact, e.g. an attestation; the first value of a name stays."""
        with self.transaction() as database:
            database.execute(
                "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, value)
            )

    def note(self, name: str, value: str) -> None:
        """Write a fact that may change; the last value of a name stays."""
        with self.transaction(durable=False) as database:
            database.execute(
                "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, value),
            )

    def recorded(self) -> dict[str, str]:
        """Return the facts by name."""
        with self._database() as database:
            return dict(database.execute("SELECT name, value FROM meta ORDER BY name"))

    # --- for modules that know the tables -----------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a read transaction: one state of the database, whatever other processes write."""
        with self._database() as database:
            database.execute("BEGIN")
            try:
                yield database
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Open a write transaction: all or nothing, on disk at the end.

        Args:
            durable: False does not wait for the disk; a power loss (not the end of the process) may lose the commit.
        """
        if self.read_only:
            raise JournalError(f"journal {self.path}: {dict(_PROBLEMS)['SQLITE_READONLY']}")
        with self._database() as database:
            if not durable:
                database.execute("PRAGMA synchronous=NORMAL")
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            finally:
                if not durable:
                    database.execute("PRAGMA synchronous=FULL")

    def shrink(self) -> bool:
        """Shrink the file to its contents; return False where another process uses it."""
        try:
            with self._database() as database:
                database.execute("PRAGMA temp_store=MEMORY")  # VACUUM's copy contains text: keep it out of /tmp
                database.execute(f"PRAGMA busy_timeout={int(1000 * min(_PATIENCE, self.timeout))}")
                try:
                    database.execute("VACUUM")
                    return not database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                finally:
                    database.execute(f"PRAGMA busy_timeout={int(1000 * self.timeout)}")
        except JournalError as error:
            if "locked" not in str(error):
                raise
            return False

    # --- opening and closing ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; using the journal again opens it again."""
        if self._pid != os.getpid():  # the connection belongs to the parent
            return
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            _INHERITED.append(self._connection)  # closing it here would touch the parent's locks
            self._forget()
        with self._lock, self._clear_errors():
            if self._connection is None:
                self._connection = self._opened()
            yield self._connection

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or type(error).__name__
            problem = next((p for start, p in _PROBLEMS if name.startswith(start)), f"SQLite reports {name}")
            raise JournalError(f"journal {self.path}: {problem}") from None

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._open()
        except OSError as error:
            problem = f"{os.strerror(error.errno or 0)}; choose another place for the journal"
            raise JournalError(f"journal {self.path}: {problem}") from None
        except OutputError as error:
            raise JournalError(f"the journal cannot be made: {error}") from None

    def _open(self) -> sqlite3.Connection:
        if kind := remote_file_system(self.path):
            raise JournalError(
                f"journal {self.path} lies on a network file system ({kind}), which cannot hold it safely; "
                "choose a path on a local disk with --journal or journal=..."
            )
        if self.read_only:
            return self._open_read_only()
        private_folder(self.path.parent)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(0o600)  # SQLite gives its -wal and -shm files the same mode
        connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                connection.execute("BEGIN")  # one state of the file: another process may be creating it
                try:
                    self._version(connection)  # a foreign database stays unchanged
                finally:
                    connection.execute("ROLLBACK")
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                # one of several processes that open a new file switches its mode; SQLite does not wait here by itself
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise JournalError(f"journal {self.path}: this file system cannot hold it; choose a local disk")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")  # other processes that open the file wait here, then find it complete
        version = self._version(connection)
        if version == 0:
            for statement in filter(str.strip, _CREATE.split(";")):
                connection.execute(statement)
            version = 1
        if version < SCHEMA_VERSION:
            for step in range(version, SCHEMA_VERSION):
                connection.execute(_UPGRADES[step])
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the file, 0 for an empty one.

        Raises:
            JournalError: it is of another program or of a newer version.
        """
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not (version and {"answers", "meta"} <= tables):
            raise JournalError(f"journal {self.path}: it is a database of another program; choose another place")
        if version > SCHEMA_VERSION:
            raise JournalError(f"journal {self.path} was written by a newer hf_synth; update hf_synth to use it")
        return version if tables else 0

    def _open_read_only(self) -> sqlite3.Connection:
        log = self.path.with_name(self.path.name + "-wal")
        # without a log nothing is shared, so that the file can be read in a folder without write access
        immutable = not os.access(self.path.parent, os.W_OK) and (not log.exists() or log.stat().st_size == 0)
        where = f"{self.path.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
        connection = sqlite3.connect(
            where, uri=True, timeout=self.timeout, isolation_level=None, check_same_thread=False
        )
        try:
            if not self._version(connection):
                raise JournalError(f"journal {self.path}: it is empty, not a journal of hf_synth")
            connection.execute("PRAGMA temp_store=MEMORY")
            if (version := self._version(connection)) < SCHEMA_VERSION:
                connection.execute(_CURRENT_VIEW.format(_LACKING[version]))
        except BaseException:
            connection.close()
            raise
        return connection


def remote_file_system(path: Path) -> str | None:
    """Return the type of the network file system of a path, which need not exist; None for a local one."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return remote_mount(os.path.realpath(path), mounts)


def remote_mount(path: str, mounts: str) -> str | None:
    """Find the mount that an absolute, resolved path lies on, in the text of /proc/self/mountinfo.

    Returns:
        The type of its file system when several machines may write to it, e.g. "nfs4"; None when it is local.
    """
    longest, kind, source = -1, "", ""
    for line in mounts.splitlines():
        left, dash, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if not dash or len(before) < 6 or not after:
            continue
        place = _unescape(before[4])
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= longest:  # the later one of two mounts at one place lies on top
            longest, kind, source = len(place), after[0], _unescape(after[1]) if len(after) > 1 else ""
    name = kind.lower()
    if _REMOTE.fullmatch(name):
        return kind
    fuse, _, program = name.partition(".")
    if fuse in ("fuse", "fuseblk") and (_REMOTE_FUSE.fullmatch(program) or _names_a_host(source)):
        return kind
    return None


def _unescape(field: str) -> str:
    """Undo the octal escapes of mountinfo, e.g. of a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _names_a_host(source: str) -> bool:
    """Check whether a source is remote, such as "user@server:/notes", "remote:notes" or "//server/share"."""
    return source.startswith("//") or "://" in source or re.match(r"[^/\s]+:", source) is not None
