"""The journal: every answer that was paid for, on disk before it is used, so that a crash costs nothing.

One SQLite file (WAL, synchronous=FULL): what `put_many` returned from survives kill -9 and power loss, and several
processes may write at once. It holds answers, which may hold text, so it lies in the user's own folder (0700, the
file 0600). Prompts, which hold gold, are not in it: an answer is found by a hash. Local disks only: a network file
system is refused.

Who is about to ask a question leases its key, so that of several processes one pays and the others wait for its answer
(`leases.py`). An answer that is put here ends the lease of its key.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from hf_synth.errors import JournalError, OutputError
from hf_synth.task.folders import private_folder, work_folder

SCHEMA_VERSION = 3
_CHUNK = 500  # keys looked up by one statement
_PATIENCE = 2.0  # seconds to wait for others before a file is left as large as it is
_KEPT = "what it holds is kept"
_CREATE = """
CREATE TABLE answers (
  key TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL, status TEXT NOT NULL, code TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL, model TEXT NOT NULL,
  created REAL NOT NULL
);
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
"""
# What leads from each version to the next one; a new file takes the same way.
_UPGRADES = {
    1: "CREATE TABLE leases (key TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;",
    2: "ALTER TABLE answers ADD COLUMN logprobs TEXT NOT NULL DEFAULT '';",
}
# An older file that must not be changed is read through this, as if it had what came later.
_AS_NOW = "CREATE TEMP VIEW answers AS SELECT rowid, *, '' AS logprobs FROM main.answers"
# What SQLite reports (the start of its error name), and what the user can do about it.
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


@dataclass(frozen=True)
class Entry:
    """One answer as the journal keeps it.

    Args:
        key: hex sha256 of everything that decides the answer.
        text: the answer.
        status: "ok", "refusal" or "truncated".
        code: why it has that status, e.g. the endpoint's finish reason.
        prompt_tokens: tokens read.
        completion_tokens: tokens written.
        cost: US dollars, or None where no price is known.
        model: the model as the endpoint names it.
        created: seconds since 1970.
        logprobs: what else its first tokens could have been, as JSON (`replies.read_logprobs`); "" where nobody asked.
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


@dataclass(frozen=True)
class Shared(Entry):
    """An answer that another process or call paid for while this one waited."""


_COLUMNS = ", ".join(f.name for f in fields(Entry))
_MARKS = ", ".join("?" * len(fields(Entry)))
_INSERT = f"INSERT INTO answers ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT (key) DO NOTHING"


def select_by_key(database: sqlite3.Connection, statement: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Give the rows of a statement for some keys, however many."""
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        yield from database.execute(f"{statement} WHERE key IN ({', '.join('?' * len(chunk))})", chunk)


def default_journal(near: str | Path | None = None) -> Path:
    """Give the place of the journal beside some data: `<near>/.hf_synth/journal.sqlite`, else in the working folder.

    Raises:
        JournalError: the folder cannot be made.
    """
    try:
        return work_folder(Path(near) if near is not None else Path.cwd()) / "journal.sqlite"
    except OutputError as error:
        raise JournalError(str(error)) from None


class Journal:
    """Keep answers in a file; opened on first use, and again in a forked or spawned process.

    Args:
        path: the file; it and its folder are made if need be, for their owner only.
        timeout: seconds to wait while another process writes.
        read_only: never make, upgrade or change the file.

    Raises:
        JournalError: from any method, when the file cannot be read or written, or is something else.
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
        """Look up answers; keys that are not there are left out."""
        wanted = list(dict.fromkeys(keys))
        with self._database() as database:
            rows = select_by_key(database, f"SELECT {_COLUMNS} FROM answers", wanted)
            return {row[0]: Entry(*row) for row in rows}

    def put_many(self, entries: Iterable[Entry]) -> None:
        """Write answers in one commit; they are on disk when this returns. Of equal keys the first one stays.

        Their leases end with it.
        """
        rows = [astuple(entry) for entry in entries]
        with self.transaction() as database:
            database.executemany(_INSERT, rows)
            database.executemany("DELETE FROM leases WHERE key = ?", [row[:1] for row in rows])

    def __len__(self) -> int:
        with self._database() as database:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])

    # --- facts about the journal --------------------------------------------------------------------------------

    def record(self, name: str, value: str) -> None:
        """Write a fact, e.g. an attestation; the first value under a name stays."""
        with self.transaction() as database:
            database.execute(
                "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, value)
            )

    def recorded(self) -> dict[str, str]:
        """Give the facts by name."""
        with self._database() as database:
            return dict(database.execute("SELECT name, value FROM meta ORDER BY name"))

    # --- for the rooms that know the tables ---------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the database for reading: one state of it, whoever writes meanwhile."""
        with self._database() as database:
            database.execute("BEGIN")
            try:
                yield database
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Give the database for writing: all or nothing, on disk at the end.

        Args:
            durable: False for what may be lost with the power (not with the process): it waits for no disk.
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
        """Make the file as small as what it holds; False where somebody else is using it."""
        try:
            with self._database() as database:
                database.execute("PRAGMA temp_store=MEMORY")  # VACUUM's copy holds texts: none of it goes to /tmp
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
                connection.execute("BEGIN")  # one state of it: another process may be making it just now
                try:
                    self._version(connection)  # what is not ours stays as it is
                finally:
                    connection.execute("ROLLBACK")
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                # of several processes that open a new file one switches it; SQLite does not wait here by itself
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise JournalError(f"journal {self.path}: this file system cannot hold it; choose a local disk")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")  # whoever opens it at the same time waits here, then finds it done
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
        """Give the version of the file, 0 for an empty one.

        Raises:
            JournalError: it is another program's, or a newer one's.
        """
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not (version and {"answers", "meta"} <= tables):
            raise JournalError(f"journal {self.path}: it is another program's database; choose another place")
        if version > SCHEMA_VERSION:
            raise JournalError(f"journal {self.path} was written by a newer hf_synth; update hf_synth to use it")
        return version if tables else 0

    def _open_read_only(self) -> sqlite3.Connection:
        log = self.path.with_name(self.path.name + "-wal")
        # without a log there is nothing to share: the file can be read where nothing at all can be written
        still = not os.access(self.path.parent, os.W_OK) and (not log.exists() or log.stat().st_size == 0)
        where = f"{self.path.absolute().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
        connection = sqlite3.connect(
            where, uri=True, timeout=self.timeout, isolation_level=None, check_same_thread=False
        )
        try:
            if not self._version(connection):
                raise JournalError(f"journal {self.path}: it is empty, not a journal of hf_synth")
            connection.execute("PRAGMA temp_store=MEMORY")
            if self._version(connection) < SCHEMA_VERSION:
                connection.execute(_AS_NOW)
        except BaseException:
            connection.close()
            raise
        return connection


_INHERITED: list[sqlite3.Connection | None] = []  # connections of a parent process, kept from being collected
# File systems that several machines may write at once. SQLite's WAL needs memory that all its processes share.
_REMOTE = re.compile(
    "nfs[34]?|cifs|smb[23]|smbfs|ncpfs|afs|coda|lustre|gpfs|mmfs|beegfs|ceph|glusterfs|panfs|orangefs|pvfs2|wekafs|"
    "ocfs2|gfs2?|acfs|davfs2?|sshfs|s3fs|goofys|gcsfuse|rclone"
)
_REMOTE_FUSE = re.compile(
    "sshfs|s3fs|goofys|gcsfuse|rclone|glusterfs|ceph|ceph-fuse|curlftpfs|davfs2?|smbnetfs|juicefs|blobfuse2?|nfs|"
    "mountpoint-s3|cvmfs2|seaweedfs|moosefs|mfs|lizardfs|google-drive-ocamlfuse|onedriver|alluxio(-fuse)?|beegfs|dfuse|"
    "hdfs|fuse_dfs|afpfs|gvfsd-fuse|kio-fuse|vmhgfs-fuse"
)


def remote_file_system(path: Path) -> str | None:
    """Name the network file system that a path lies on (the path need not be there yet); None for a local one."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return remote_mount(os.path.realpath(path), mounts)


def remote_mount(path: str, mounts: str) -> str | None:
    """Find the mount that an absolute, resolved path lies on, in the text of /proc/self/mountinfo.

    Returns:
        The type of its file system when several machines may write it, e.g. "nfs4"; None when it is local.
    """
    longest, kind, source = -1, "", ""
    for line in mounts.splitlines():
        left, dash, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if not dash or len(before) < 6 or not after:
            continue
        place = _plain(before[4])
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= longest:  # of two on one place the later one lies on top
            longest, kind, source = len(place), after[0], _plain(after[1]) if len(after) > 1 else ""
    name = kind.lower()
    if _REMOTE.fullmatch(name):
        return kind
    fuse, _, program = name.partition(".")
    if fuse in ("fuse", "fuseblk") and (_REMOTE_FUSE.fullmatch(program) or _names_a_host(source)):
        return kind
    return None


def _plain(field: str) -> str:
    """Undo the octal escapes of mountinfo, e.g. of a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _names_a_host(source: str) -> bool:
    """Tell a source such as "user@server:/notes", "remote:notes" or "//server/share" from a local one."""
    return source.startswith("//") or "://" in source or re.match(r"[^/\s]+:", source) is not None
