"""The journal: what was put stays, whoever else writes, whatever dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_synth.errors import JournalError
from hf_synth.llm import journal as room
from hf_synth.llm.journal import Entry, Journal, default_journal, remote_file_system, remote_mount


def entry(i: int, text: str = "answer") -> Entry:
    return Entry(f"{i:064x}", f"{text} {i}", "ok", "stop", 10, 20, 0.5, "model", 1.0)


def test_what_is_put_is_there(tmp_path: Path) -> None:
    many = [entry(i) for i in range(1_200)]
    with Journal(tmp_path / "new" / "j.sqlite") as journal:
        journal.put_many(many)
        assert len(journal) == 1_200
        assert journal.get_many(e.key for e in many) == {e.key: e for e in many}
        assert journal.get_many(["absent", many[3].key]) == {many[3].key: many[3]}
        assert journal.get_many([]) == {}
    assert Journal(tmp_path / "new" / "j.sqlite").get_many([many[7].key]) == {many[7].key: many[7]}


def test_the_first_answer_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    journal.put_many([entry(1, "first"), entry(1, "second")])
    journal.put_many([entry(1, "third"), entry(2)])
    assert {e.text for e in journal.get_many([entry(1).key, entry(2).key]).values()} == {"first 1", "answer 2"}
    journal.record("name", "said")
    journal.record("name", "said later")
    assert journal.recorded() == {"name": "said"}
    journal.close()


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Journal(tmp_path / "new" / "j.sqlite") as journal:
            journal.put_many([entry(1)])
            modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "new").iterdir()}
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}
    (tmp_path / "new" / "j.sqlite").chmod(0o644)
    with Journal(tmp_path / "new" / "j.sqlite") as journal:
        assert len(journal) == 1
    assert (tmp_path / "new" / "j.sqlite").stat().st_mode & 0o777 == 0o600


def test_it_is_durable(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal, journal._database() as database:
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert database.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gold = tmp_path / "gold"
    gold.mkdir()
    assert default_journal(gold) == gold / ".hf_synth" / "journal.sqlite"
    assert default_journal() == tmp_path / ".hf_synth" / "journal.sqlite"
    assert default_journal().parent.stat().st_mode & 0o777 == 0o700


# --- several writers ------------------------------------------------------------------------------------------------
WRITER = """
import sys
from hf_synth.llm.journal import Entry, Journal
journal, name = Journal(sys.argv[1]), sys.argv[2]
for i in range(int(sys.argv[3])):
    journal.put_many([Entry(f"{name}-{i}", name), Entry(f"shared-{i}", name)])
    print(i, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    children = [writer(path, name, 60) for name in "abcd"]
    for child in children:
        assert child.communicate()[0].count("\n") == 60
        assert child.returncode == 0
    with Journal(path) as journal:
        assert len(journal) == 60 * 5


@pytest.mark.parametrize("lines", [1, 37, 150])
def test_kill_minus_9_loses_no_answer(lines: int, tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    child = writer(path, "a", 100_000)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline() for _ in range(lines)]
    child.kill()
    acknowledged += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    whole = [line for line in acknowledged if line.endswith("\n")]
    with Journal(path) as journal:
        assert len(journal.get_many(f"a-{int(line)}" for line in whole)) == len(whole) >= lines
        journal.put_many([entry(1)])


def _put_in_fork(journal: Journal) -> None:
    journal.put_many([entry(2)])
    journal.close()


def test_fork_and_pickle_open_it_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", timeout=7)
    journal.put_many([entry(1)])
    child = multiprocessing.get_context("fork").Process(target=_put_in_fork, args=(journal,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert len(journal) == 2
    copy = pickle.loads(pickle.dumps(journal))
    assert (len(copy), copy.timeout) == (2, 7)
    copy.close()
    journal.close()
    assert len(journal) == 2  # closed, and opened again
    journal.close()


def test_threads_share_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    threads = [
        threading.Thread(target=lambda k=k: [journal.put_many([entry(100 * k + i)]) for i in range(30)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal) == 120
    journal.close()


def copied(path: Path, to: Path, *, log_bytes: int | None = None) -> Path:
    """Copy a journal in use as a crash would leave it: the file and its log, without what processes share."""
    to.mkdir()
    shutil.copy(path, to / path.name)
    log = path.with_name(path.name + "-wal").read_bytes()
    (to / f"{path.name}-wal").write_bytes(log[:log_bytes])
    return to / path.name


def test_a_hot_log_is_taken_up(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        for i in range(40):
            journal.put_many([entry(3 * i + k) for k in range(3)])
        copy = copied(tmp_path / "j.sqlite", tmp_path / "copy")
    with Journal(copy) as journal:
        assert len(journal) == 120
        assert journal.get_many([entry(119).key]) == {entry(119).key: entry(119)}
        journal.put_many([entry(500)])
        assert len(journal) == 121


@pytest.mark.parametrize("cut", [1, 4_000, 20_000])
def test_a_log_torn_in_a_commit_keeps_the_commits_before(cut: int, tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        for i in range(40):
            journal.put_many([entry(3 * i + k) for k in range(3)])
        size = (tmp_path / "j.sqlite-wal").stat().st_size
        copy = copied(tmp_path / "j.sqlite", tmp_path / "copy", log_bytes=size - cut)
    with Journal(copy) as journal:
        count = len(journal)
        assert 0 < count < 120
        assert count % 3 == 0
        assert set(journal.get_many(entry(i).key for i in range(120))) == {entry(i).key for i in range(count)}
        journal.put_many([entry(i) for i in range(120)])
        assert len(journal) == 120


# --- versions -------------------------------------------------------------------------------------------------------

# The file as version 1 made it, word for word.
VERSION_1 = """
CREATE TABLE answers (
  key TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL, status TEXT NOT NULL, code TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL, model TEXT NOT NULL,
  created REAL NOT NULL
);
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version=1;
"""


def version_1(path: Path, rows: int = 5) -> Path:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(VERSION_1)
    for i in range(rows):
        database.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tuple(vars(entry(i)).values())[:9])
    database.execute("INSERT INTO meta VALUES ('attestation', 'said')")
    database.close()
    return path


def facts(path: Path) -> tuple[int, set[str]]:
    database = sqlite3.connect(path)
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    version = database.execute("PRAGMA user_version").fetchone()[0]
    database.close()
    return version, tables


def test_a_journal_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = version_1(tmp_path / "j.sqlite")
    assert facts(path) == (1, {"answers", "meta"})
    for more in (5, 6):  # once, and again
        with Journal(path) as journal:
            kept = {entry(i).key: entry(i) for i in range(5)}
            assert journal.get_many(kept) == kept
            assert journal.recorded() == {"attestation": "said"}
            journal.put_many([entry(5)])
            assert len(journal) == 6, more
        assert facts(path) == (room.SCHEMA_VERSION, {"answers", "meta", "leases"})


def test_a_new_journal_is_like_an_upgraded_one(tmp_path: Path) -> None:
    for journal in (Journal(version_1(tmp_path / "old.sqlite")), Journal(tmp_path / "new.sqlite")):
        len(journal)
        journal.close()
    schemas = []
    for name in ("old", "new"):
        database = sqlite3.connect(tmp_path / f"{name}.sqlite")
        schemas.append(database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall())
        database.close()
    assert schemas[0] == schemas[1]


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = version_1(tmp_path / "j.sqlite")
    monkeypatch.setattr(room, "SCHEMA_VERSION", 3)
    monkeypatch.setitem(room._UPGRADES, 2, "CREATE TABLE answers (twice)")
    with pytest.raises(JournalError):
        len(Journal(path))
    assert facts(path) == (1, {"answers", "meta"})
    monkeypatch.undo()
    with Journal(path) as journal:
        assert len(journal) == 5


def test_a_version_is_read_without_an_upgrade(tmp_path: Path) -> None:
    path = version_1(tmp_path / "j.sqlite")
    with Journal(path, read_only=True) as journal:
        assert len(journal) == 5
        assert journal.get_many([entry(3).key]) == {entry(3).key: entry(3)}
        with pytest.raises(JournalError, match="read-only"):
            journal.put_many([entry(6)])
    assert facts(path) == (1, {"answers", "meta"})
    with pytest.raises(JournalError, match="cannot be opened"):
        len(Journal(tmp_path / "absent.sqlite", read_only=True))
    assert not (tmp_path / "absent.sqlite").exists()


def test_version_3_is_read_without_an_upgrade_and_upgraded(tmp_path: Path) -> None:
    path = version_1(tmp_path / "j.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as database:
        for step in (1, 2):
            database.execute(room._UPGRADES[step])
        database.execute("PRAGMA user_version=3")
        database.commit()
    for read_only in (True, False):
        with Journal(path, read_only=read_only) as journal:
            assert journal.get_many([entry(3).key]) == {entry(3).key: entry(3)}
    assert facts(path)[0] == room.SCHEMA_VERSION


def test_processes_upgrade_at_once(tmp_path: Path) -> None:
    path = version_1(tmp_path / "j.sqlite", rows=300)
    children = [writer(path, name, 10) for name in "abcd"]
    for child in children:
        assert child.communicate()[0].count("\n") == 10
        assert child.returncode == 0
    assert facts(path)[0] == room.SCHEMA_VERSION
    with Journal(path) as journal:
        assert len(journal) == 300 + 10 * 5


# --- where it may lie -----------------------------------------------------------------------------------------------
MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:21 / /proc rw - proc proc rw
30 21 0:30 / /home rw,relatime shared:9 master:2 - nfs4 filer:/export/home rw,vers=4.2
31 30 8:2 / /home/here/scratch rw - xfs /dev/sdb1 rw
32 21 0:31 / /mnt/two\040words rw - cifs //server/share rw
33 21 0:32 / /lustre rw - lustre 10.0.0.1@tcp:/work rw,flock
34 21 0:33 / /ssh rw - fuse.sshfs me@server:/notes rw
35 21 0:34 / /usb rw - fuseblk /dev/sdc1 rw
36 21 0:35 / /safe rw - fuse.gocryptfs /home/x/cipher rw
37 21 0:36 / /cloud rw - fuse.rclone remote: rw
38 21 0:37 / /odd rw - fuse bucket:notes rw
39 21 0:38 / /over rw - overlay overlay rw,lowerdir=/a
40 21 0:39 / /twice rw - nfs filer:/x rw
41 40 8:3 / /twice rw - ext4 /dev/sdd1 rw
42 21 0:40 / /tmp rw - tmpfs tmpfs rw
broken line
43 21 0:41 / /cut
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/j.sqlite", None),
        ("/home/me/j.sqlite", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/me/j.sqlite", None),  # another folder, whose name begins alike
        ("/home/here/scratch/j.sqlite", None),
        ("/home/here/scratched/j.sqlite", "nfs4"),
        ("/mnt/two words/j.sqlite", "cifs"),
        ("/lustre/j.sqlite", "lustre"),
        ("/ssh/j.sqlite", "fuse.sshfs"),
        ("/usb/j.sqlite", None),
        ("/safe/j.sqlite", None),
        ("/cloud/j.sqlite", "fuse.rclone"),
        ("/odd/j.sqlite", "fuse"),
        ("/over/j.sqlite", None),
        ("/twice/j.sqlite", None),
        ("/tmp/j.sqlite", None),
        ("/cut/j.sqlite", None),
    ],
)
def test_network_file_systems_are_known(path: str, kind: str | None) -> None:
    assert remote_mount(path, MOUNTS) == kind


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remote_file_system(tmp_path / "not" / "there.sqlite") is None
    far, here = tmp_path / "far", tmp_path / "here"
    far.mkdir()
    here.symlink_to(far)  # what counts is where a path leads
    mounts = f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / {far} rw - nfs filer:/x rw\n"
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **k: mounts if str(path) == "/proc/self/mountinfo" else read(path, **k)
    )
    for path in (far / "j.sqlite", here / "new" / "j.sqlite"):
        with pytest.raises(JournalError, match=r"network file system \(nfs\).*local disk with --journal or journal="):
            Journal(path).put_many([entry(1)])
    assert list(far.iterdir()) == []
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.put_many([entry(1)])


# --- one clear sentence ---------------------------------------------------------------------------------------------
def test_a_full_disk_keeps_what_is_there(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.put_many([entry(1)])
        with journal._database() as database:
            pages = database.execute("PRAGMA page_count").fetchone()[0]
            database.execute(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(JournalError, match="disk is full; what it holds is kept"):
            journal.put_many([entry(2, "long " * 10_000), entry(3)])
        assert len(journal) == 1
        with journal._database() as database:
            database.execute(f"PRAGMA max_page_count={pages + 1_000}")
        journal.put_many([entry(2)])
        assert len(journal) == 2


def test_something_else_is_left_alone(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.sqlite"
    garbage.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(JournalError, match="not a journal"):
        len(Journal(garbage))
    assert garbage.read_bytes() == b"Dear diary, " * 1000
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE patients (name)")
    database.close()
    before = other.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        len(Journal(other))
    with sqlite3.connect(other) as database:
        database.execute("PRAGMA user_version=1")  # a number that others use, too
    database.close()
    with pytest.raises(JournalError, match="another program"):
        len(Journal(other))
    assert len(before) == other.stat().st_size
    assert other.read_bytes()[18:20] == before[18:20]  # not switched to WAL either
    with pytest.raises(JournalError, match=r"cannot be made|directory"):
        len(Journal(tmp_path))


def test_a_newer_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.put_many([entry(1)])
    monkeypatch.setattr(room, "SCHEMA_VERSION", 0)
    with pytest.raises(JournalError, match="newer hf_synth"):
        len(Journal(tmp_path / "j.sqlite"))
    monkeypatch.undo()
    assert len(Journal(tmp_path / "j.sqlite")) == 1


def test_a_locked_journal_says_so(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path, timeout=0.05) as journal:
        journal.put_many([entry(1)])
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            journal.put_many([entry(2)])
        holder.execute("ROLLBACK")
        holder.close()
        journal.put_many([entry(2)])
        assert len(journal) == 2


def test_a_fault_in_a_commit_writes_nothing_of_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(JournalError):
            journal.put_many([entry(1), Entry("k", None)])  # type: ignore[arg-type]
        assert len(journal) == 0
        journal.put_many([entry(1)])
        assert len(journal) == 1


def as_nobody(do: Callable[[], None]) -> int:
    """Run something in a process without root's rights; gives 0 when it raised a JournalError of one line."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 3
    try:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        do()
    except JournalError as error:
        code = 0 if "\n" not in str(error) and "choose another" in str(error) else 1
    except BaseException:
        code = 2
    finally:
        os._exit(code)


def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.put_many([entry(1)])
    tmp_path.chmod(0o555)
    path.chmod(0o444)
    assert as_nobody(lambda: Journal(path).put_many([entry(2)])) == 0
    assert as_nobody(lambda: Journal(tmp_path / "new.sqlite").put_many([entry(2)])) == 0
    assert as_nobody(lambda: Journal(tmp_path / "new" / "j.sqlite").put_many([entry(2)])) == 0
    tmp_path.chmod(0o755)
