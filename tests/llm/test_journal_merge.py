"""Journals of several machines joined: each answer once, no cost lost, whatever the order and however often."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.cli.cli import main
from hf_synth.errors import JournalError, OutputError
from hf_synth.llm.journal import Entry, Journal
from hf_synth.llm.journal_merge import merge_journals

KEYS = [f"{i:02x}" * 32 for i in range(4)]
ANSWERS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["ok", "refusal", "empty", "cut"]), st.integers(1, 9)),
    max_size=4,
    unique_by=lambda answer: answer[0],
)


def written(path: Path, answers: list[tuple[str, str, int]], node: int) -> Path:
    with Journal(path) as journal:
        journal.put_many(
            Entry(key, "" if status == "empty" else f"text {node}", status, cost=cents / 100, created=float(node))
            for key, status, cents in answers
        )
    return path


@settings(max_examples=15, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=3), st.booleans())
def test_every_answer_is_there_once_and_every_cent(nodes: list[list[tuple[str, str, int]]], again: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [written(Path(folder) / f"{n}.sqlite", answers, n) for n, answers in enumerate(nodes)]
        out = Path(folder) / "out.sqlite"
        merged = merge_journals(paths, out)
        if again:
            assert merge_journals([*reversed(paths), paths[0]], out) == merged
        with Journal(out) as journal:
            assert len(journal) == len({key for answers in nodes for key, _, _ in answers}) == merged.answers
            real = {key for answers in nodes for key, status, _ in answers if status in ("ok", "refusal")}
            found = journal.get_many(KEYS)
            assert set(found) == real
            for key, entry in found.items():
                answered = [{k for k, status, _ in answers if status in ("ok", "refusal")} for answers in nodes]
                assert entry.text == f"text {[key in keys for keys in answered].index(True)}"
            with journal.reading() as database:
                kept = database.execute("SELECT coalesce(sum(cost), 0) FROM answers").fetchone()[0]
        paid = sum(cents for answers in nodes for _, _, cents in answers) / 100
        assert kept + merged.repeated_usd == pytest.approx(paid)


def test_journals_of_another_version_or_under_one_name_are_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "one.sqlite", [(KEYS[0], "ok", 1)], 1)
    two = written(tmp_path / "two.sqlite", [(KEYS[1], "ok", 1)], 2)
    with pytest.raises(OutputError, match="one of the journals"):
        merge_journals([one, two], two)
    with sqlite3.connect(two) as database:
        database.execute("PRAGMA user_version=2")
    database.close()
    with pytest.raises(JournalError, match="is of version 2"):
        merge_journals([one, two], tmp_path / "out.sqlite")
    assert not (tmp_path / "out.sqlite").exists()


def test_the_verb_joins_journals_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(3):
        written(tmp_path / f"node{n}" / ".hf_synth" / "journal.sqlite", [(KEYS[n], "ok", 5), (KEYS[3], "ok", 7)], n)
    out = tmp_path / "all.sqlite"
    assert main(["journal", "merge", *(str(tmp_path / f"node{n}") for n in range(3)), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "4 answers" in said
    assert "2 questions were asked by several machines: $0.1400 more" in said
    assert out.stat().st_mode & 0o077 == 0
    with pytest.raises(SystemExit) as stopped:
        main(["journal", "merge", "--out", str(out)])
    assert stopped.value.code == 2
