"""The journal: what was put stays, whoever else writes, whatever dies."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_synth import journal as room
from hf_synth.errors import JournalError
from hf_synth.journal import Entry, Journal, default_journal


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
from hf_synth.journal import Entry, Journal
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
    with pytest.raises(JournalError, match="another program"):
        len(Journal(other))
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
