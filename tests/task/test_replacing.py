"""What stays of an earlier output where a new one takes its place, or cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hf_synth.errors import OutputError
from hf_synth.task.folders import check_output, new_folder


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """An earlier output with a journal."""
    folder = tmp_path / "real"
    (folder / ".hf_synth").mkdir(parents=True)
    (folder / ".hf_synth" / "journal.sqlite").write_text("answers")
    (folder / "hf_synth.json").write_text("{}")
    return folder


def write(path: Path) -> None:
    with new_folder(path) as draft:
        (draft / "hf_synth.json").write_text("new")


def test_a_link_stays_and_its_folder_is_replaced(earlier: Path, tmp_path: Path) -> None:
    """The journal was deleted with the draft before: a link to a folder could not be removed as a folder."""
    (link := tmp_path / "link").symlink_to(earlier)
    check_output(link)
    write(link)
    assert link.is_symlink()
    assert (earlier / "hf_synth.json").read_text() == "new"
    assert (earlier / ".hf_synth" / "journal.sqlite").read_text() == "answers"
    (ahead := tmp_path / "ahead").symlink_to(tmp_path / "other disk" / "rows")
    write(ahead)
    assert (tmp_path / "other disk" / "rows" / "hf_synth.json").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ahead", "link", "other disk", "real"]


@pytest.mark.parametrize("failing", ["rename", "replace"])
@pytest.mark.parametrize("error", [OSError(16, "busy"), KeyboardInterrupt()])
def test_a_folder_that_cannot_be_replaced_is_as_before(
    earlier: Path, failing: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = os.rename

    def fails(source: Any, target: Any) -> None:
        if failing == "replace" or Path(source).name == ".hf_synth":
            monkeypatch.setattr(os, failing, work)
            raise error
        work(source, target)

    monkeypatch.setattr(os, failing, fails)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write(earlier)
    assert (earlier / "hf_synth.json").read_text() == "{}"
    assert (earlier / ".hf_synth" / "journal.sqlite").read_text() == "answers"
    assert [p.name for p in earlier.parent.iterdir()] == ["real"]


def test_where_a_volume_is_mounted_no_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    with pytest.raises(OutputError, match="volume is mounted"):
        check_output(tmp_path / "volume")
