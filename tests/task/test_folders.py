"""Folders and files that are written whole or not at all, and that nobody else may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hf_synth.errors import OutputError
from hf_synth.task.folders import atomic_file


def test_a_file_is_written_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    path, mask = tmp_path / "answers.jsonl", os.umask(0)
    try:
        with atomic_file(path) as draft:
            assert draft.parent == tmp_path
            draft.write_text("whole")
            assert not path.exists()
    finally:
        os.umask(mask)
    assert path.read_text() == "whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["answers.jsonl"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as draft:
        draft.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["answers.jsonl"]


def test_a_link_that_waits_under_a_name_that_can_be_guessed_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("old")
    (tmp_path / f".answers.jsonl.{os.getpid()}").symlink_to(victim)
    with atomic_file(tmp_path / "answers.jsonl") as draft:
        draft.write_text("text of a note")
    assert victim.read_text() == "old"
    assert not (tmp_path / "answers.jsonl").is_symlink()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError), atomic_file(tmp_path / "nowhere" / "answers.jsonl"):
        pass
