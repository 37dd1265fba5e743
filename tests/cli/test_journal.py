"""`hf-synth journal`: its figures, its private files, and which answers it deletes."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hf_synth.cli.cli import main
from hf_synth.llm.journal import Entry, Journal

DAY = 86_400.0
CANARY = "CANARY-77aa"
KEYS = [f"{i:02x}" * 32 for i in range(20)]


def entry(i: int, **more: Any) -> Entry:
    facts = {"model": "m-small", "cost": 0.25, "created": time.time() - 10 * DAY, **more}
    return Entry(KEYS[i], f"{CANARY} text {i}", prompt_tokens=100, completion_tokens=10, code="stop", **facts)


ENTRIES = [
    *(entry(i) for i in range(6)),
    entry(6, status="refusal"),
    *(entry(i, model="m-large", cost=None, created=time.time()) for i in range(7, 10)),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "gold" / ".hf_synth" / "journal.sqlite"
    with Journal(place) as journal:
        journal.put_many(ENTRIES)
    return place


def run(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["journal", *map(str, argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> dict[str, Any]:
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 0
    facts = json.loads(out.splitlines()[-1])
    assert isinstance(facts, dict)
    return facts


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    code, _, err = run(capsys, *argv)
    assert code == 1
    assert err.startswith("hf-synth: ")
    assert err.count("\n") == 1
    assert CANARY not in err
    return err


def count(path: Path) -> int:
    with Journal(path) as journal:
        return len(journal)


def change(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute(statement)
    database.close()


# --- ls and show ----------------------------------------------------------------------------------------------------


def test_ls_sums_up_by_model(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "ls", path)
    assert code == 0
    small, large, whole = out.splitlines()
    assert small.startswith("m-small  7 answers (6 ok, 1 refusal)  700 + 70 tokens  $1.7500  20")
    assert large.startswith("m-large  3 answers (3 ok)  300 + 30 tokens  price not known  20")
    assert whole.startswith(f"{path}: 10 answers, ")
    assert CANARY not in out
    facts = as_json(capsys, "ls", path)
    assert [m["cost_usd"] for m in facts["models"]] == [1.75, None]
    assert facts["models"][1]["first"] == ENTRIES[7].created
    assert facts["bytes"] >= path.stat().st_size


def test_a_folder_stands_for_its_journal(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for place in (path, path.parent, path.parent.parent):
        assert as_json(capsys, "ls", place)["answers"] == 10
    for absent in (tmp_path, tmp_path / "nothing"):
        assert "no journal at" in refused(capsys, "ls", absent)
    assert not (tmp_path / ".hf_synth").exists()
    assert not (tmp_path / "nothing").exists()


def test_ls_of_a_mixed_price_says_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(path, f"UPDATE answers SET cost = NULL WHERE key = '{KEYS[0]}'")
    assert "$1.5000 (price of 1 not known)" in run(capsys, "ls", path)[1]


def test_looking_changes_nothing(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = path.read_bytes()
    for argv in (["ls"], ["show"], ["verify"], ["export"], ["gc", "--days", "0", "--dry-run"]):
        more = [KEYS[1]] if argv[0] == "show" else ["--out", str(tmp_path / "x.jsonl")] if argv[0] == "export" else []
        assert run(capsys, argv[0], path, *more, *argv[1:])[0] == 0
    assert path.read_bytes() == before


def test_show_gives_the_text_only_when_asked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", path, KEYS[3][:5].upper())
    assert code == 0
    assert "m-small" in out
    assert KEYS[3] in out
    assert CANARY not in out
    facts = as_json(capsys, "show", path, KEYS[3])
    assert "text" not in facts
    assert (facts["key"], facts["cost"], facts["characters"]) == (KEYS[3], 0.25, len(ENTRIES[3].text))
    assert f"{CANARY} text 3" in run(capsys, "show", path, KEYS[3], "--text")[1]
    assert as_json(capsys, "show", path, KEYS[3], "--text")["text"] == ENTRIES[3].text


def test_show_refuses_what_is_not_one_answer(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "several" in refused(capsys, "show", path, "0")
    assert "no answer has a key that starts with ff" in refused(capsys, "show", path, "ff")
    with pytest.raises(SystemExit):  # an empty value is a fault of the command line
        refused(capsys, "show", path, "")
    for wrong in ("%", "0' OR 1", "x", "0" * 65):
        assert "0-9 and a-f" in refused(capsys, "show", path, wrong)


def test_nothing_in_it_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "m\x1b]0;owned\x07\x9b2J\n\u202eevil"
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.put_many([entry(1, model=hostile)])
        journal.put_many([Entry(KEYS[2], "line 1\nline 2 \x1b[2J\r", model="x")])
    for argv in (["ls"], ["show", KEYS[1]], ["show", KEYS[2], "--text"], ["gc", "--days", "1"]):
        out = run(capsys, argv[0], tmp_path / "j.sqlite", *argv[1:])[1]
        assert not set(out) & set("\x1b\x07\x9b\r\u202e")
    assert count(tmp_path / "j.sqlite") == 0  # both were old: the second one has no time at all


# --- verify ---------------------------------------------------------------------------------------------------------


def test_a_whole_journal_is_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "verify", path) == {"journal": str(path), "answers": 10, "whole": True}


@pytest.mark.parametrize(
    ("breaking", "sentence"),
    [
        ("UPDATE answers SET key = 'short' WHERE key = :key", "1 of its answers have no sha256"),
        ("UPDATE answers SET key = upper(replace(key, '0', 'a')) WHERE key = :key", "no sha256"),
        ("UPDATE answers SET status = 'fine'", "10 of its answers have a status"),
        ("UPDATE answers SET prompt_tokens = -1 WHERE key = :key", "no counts"),
        ("UPDATE answers SET completion_tokens = 'many' WHERE key = :key", "no counts"),
        ("UPDATE answers SET cost = -0.1 WHERE key = :key", "a cost that is none"),
        ("UPDATE answers SET cost = 'free' WHERE key = :key", "a cost that is none"),
        ("UPDATE answers SET cost = 9e999 WHERE key = :key", "a cost that is none"),
        ("UPDATE answers SET created = 'today' WHERE key = :key", "no time"),
        ("UPDATE answers SET text = x'00ff' WHERE key = :key", "other than text"),
        ("UPDATE answers SET text = CAST(x'ff41' AS TEXT) WHERE key = :key", "not UTF-8"),
    ],
)
def test_a_broken_answer_is_found(breaking: str, sentence: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(path, breaking.replace(":key", f"'{KEYS[4]}'"))
    assert sentence in refused(capsys, "verify", path)


def test_a_damaged_file_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.put_many(Entry(f"{i:064x}", "text " * 200, model="m") for i in range(300))
    whole = path.read_bytes()
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 5_000):
        damaged = bytearray(whole)
        damaged[place // 4096 * 4096 : place // 4096 * 4096 + 64] = b"\xa5" * 64
        path.write_bytes(damaged)
        assert "damaged" in refused(capsys, "verify", path)
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(capsys, "verify", path)
    path.write_bytes(b"Dear diary, " * 1000)
    assert "not a journal" in refused(capsys, "verify", path)
    path.write_bytes(b"")
    assert "empty" in refused(capsys, "verify", path)


# --- export ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_an_export_holds_every_answer(
    name: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_synth.cli.journal._GROUP", 3)
    before = os.umask(0)
    try:
        facts = as_json(capsys, "export", path, "--out", tmp_path / name)
    finally:
        os.umask(before)
    assert facts["answers"] == 10
    out = tmp_path / name
    assert out.stat().st_mode & 0o777 == 0o600
    rows = (
        pq.read_table(out).to_pylist()
        if name == "x.parquet"
        else [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    )
    assert [Entry(**row) for row in rows] == ENTRIES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gold", name]


def test_an_export_is_whole_or_not_there(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.jsonl"
    out.write_text("what was there before")
    assert "name a .jsonl or a .parquet" in refused(capsys, "export", path, "--out", tmp_path / "x.csv")
    assert "journal" in refused(capsys, "export", tmp_path, "--out", out)
    assert "No such file" in refused(capsys, "export", path, "--out", tmp_path / "no" / "x.jsonl")
    change(path, f"UPDATE answers SET text = CAST(x'ff41' AS TEXT) WHERE key = '{KEYS[9]}'")
    refused(capsys, "export", path, "--out", out)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    change(path, f"UPDATE answers SET text = 'sound' WHERE key = '{KEYS[9]}'")
    monkeypatch.setattr(os, "fsync", full)
    assert "the disk is full" in refused(capsys, "export", path, "--out", out)
    assert out.read_text() == "what was there before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gold", "x.jsonl"]


# --- gc -------------------------------------------------------------------------------------------------------------


def test_gc_drops_only_matching_answers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--days N" in refused(capsys, "gc", path)
    assert "number of days" in refused(capsys, "gc", path, "--days", "-1")
    assert count(path) == 10
    assert as_json(capsys, "gc", path, "--days", "5", "--dry-run")["dropped"] == 7
    assert as_json(capsys, "gc", path, "--days", "5", "--model", "m-large")["dropped"] == 0
    assert as_json(capsys, "gc", path, "--model", "m-%")["dropped"] == 0
    assert count(path) == 10
    code, out, _ = run(capsys, "gc", path, "--days", "5")
    assert code == 0
    assert out.startswith("m-small  7 answers")
    assert "7 answers dropped" in out
    with Journal(path) as journal:
        assert set(journal.get_many(KEYS)) == {e.key for e in ENTRIES[7:]}
    assert as_json(capsys, "gc", path, "--model", "m-large")["dropped"] == 3
    assert count(path) == 0


def test_what_is_dropped_is_gone_from_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.put_many(Entry(f"{i:064x}", f"{CANARY} " * 100, model="old") for i in range(500))
        journal.put_many([Entry(KEYS[1], "kept", model="new")])
        size = sum(f.stat().st_size for f in tmp_path.iterdir())
        facts = as_json(capsys, "gc", path, "--model", "old")  # while another one has it open
        assert facts["bytes"] < size / 10
        assert not [f.name for f in tmp_path.iterdir() if CANARY.encode() in f.read_bytes()]
        assert len(journal) == 1
        journal.put_many([entry(3)])


def test_gc_drops_what_is_no_answer(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(path) as journal:
        journal.put_many([Entry(KEYS[11], "", "empty"), Entry(KEYS[12], "ha", "cut"), Entry(KEYS[13], "", "refusal")])
        with journal.transaction() as database:  # as earlier versions kept an empty answer
            database.execute("INSERT INTO answers SELECT ?, '', 'ok', '', 0, 0, 0, '', 0, '', ''", (KEYS[14],))
    assert run(capsys, "verify", path)[0] == 0
    assert as_json(capsys, "gc", path, "--status", "empty", "--dry-run")["dropped"] == 2
    assert as_json(capsys, "gc", path, "--status", "empty", "--model", "m-large")["dropped"] == 0
    assert as_json(capsys, "gc", path, "--status", "empty")["dropped"] == 2
    assert as_json(capsys, "gc", path, "--status", "refusal")["dropped"] == 2
    assert as_json(capsys, "gc", path, "--status", "cut")["dropped"] == 1
    with Journal(path) as journal:
        assert len(journal) == len(ENTRIES) - 1


def test_gc_of_a_journal_in_use_drops_and_says_that_it_did_not_shrink(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM answers").fetchone()
    code, out, _ = run(capsys, "gc", path, "--model", "m-large")
    assert code == 0
    assert "3 answers dropped" in out
    assert "run gc again" in out
    reader.execute("ROLLBACK")
    reader.close()
    assert count(path) == 7


def test_a_newer_journal_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(path, "PRAGMA user_version=99")
    for argv in (["ls"], ["verify"], ["gc", "--days", "0"], ["gc", "--days", "0", "--dry-run"]):
        assert "newer hf_synth" in refused(capsys, argv[0], path, *argv[1:])


def test_a_read_only_folder_can_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # a folder that root, who may run this, can write all the same
    before = sorted(path.parent.iterdir())
    assert main(["journal", "verify", str(path), "-q"]) == 0
    assert "all whole" in capsys.readouterr().out
    assert sorted(path.parent.iterdir()) == before
