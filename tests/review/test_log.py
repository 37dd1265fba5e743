"""The file of decisions: whatever byte a crash stops at, what is read back is a prefix of what was written."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.errors import OutputError
from hf_synth.review.decisions import Decisions, plain_comment
from hf_synth.review.log import Log, parse, read_log

HEAD = {"review": 1, "reviewer": "Anna"}
ROWS, LABELS = ("s1", "s2", "s3"), ("mild", "schwer \u2028\u00e4\n")
EVENTS = st.one_of(
    st.builds(
        lambda row, label: {"do": "label", "row": row, "label": label}, st.sampled_from(ROWS), st.sampled_from(LABELS)
    ),
    st.builds(lambda row, do: {"do": do, "row": row}, st.sampled_from(ROWS), st.sampled_from(("reject", "unsure"))),
    st.builds(
        lambda row, text: {"do": "comment", "row": row, "comment": text}, st.sampled_from(ROWS), st.text(max_size=5)
    ),
    st.builds(lambda row: {"do": "label", "row": row, "label": "mild", "final": True}, st.sampled_from(ROWS)),
    st.just({"do": "undo"}),
)


def state(events: list[dict[str, Any]]) -> tuple[Any, ...]:
    found = Decisions(events)
    return found.answers, found.finals, found.comments, found.last, found.count


@settings(max_examples=25, deadline=None)
@given(st.lists(EVENTS, max_size=8), st.data())
def test_a_crash_at_any_byte_leaves_a_prefix(events: list[dict[str, Any]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log" / "Anna.jsonl"
        log = Log(path, HEAD)
        for event in events:
            log.append(event)
        log.close()
        whole = path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]][1:]

        again = Log(path, HEAD)
        assert again.events == kept == events[: len(kept)]
        assert state(again.events) == state(events[: len(kept)])
        assert again.repaired == cut - (whole[:cut].rfind(b"\n") + 1)
        again.append({"do": "reject", "row": "s1"})
        again.close()
        assert read_log(path) == [HEAD, *kept, {"do": "reject", "row": "s1"}], "the file goes on where it was whole"


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=20))
def test_the_state_is_what_one_would_say_it_is(events: list[dict[str, Any]]) -> None:
    """Against a plain model: a list of the decisions that stand, from which an undo takes the last one."""
    standing: list[dict[str, Any]] = []
    for event in events:
        if event["do"] == "undo":
            del standing[-1:]
        elif event["do"] != "comment":
            standing.append(event)
    found = Decisions(events)
    for final, answers in ((False, found.answers), (True, found.finals)):
        last = {e["row"]: (e["do"], e.get("label", "")) for e in standing if bool(e.get("final")) is final}
        assert {row: answer.choice for row, answer in answers.items()} == last
    assert set(found.unsure) == {row for row, answer in found.answers.items() if answer.do == "unsure"}
    assert found.last == ((standing[-1]["row"], bool(standing[-1].get("final"))) if standing else None)
    assert found.comments == {e["row"]: plain_comment(e["comment"]) for e in events if e["do"] == "comment"}


def test_a_file_is_open_once(tmp_path: Path) -> None:
    log = Log(tmp_path / "Anna.jsonl", HEAD)
    with pytest.raises(OutputError, match="Anna: a review with this name is open in another process"):
        Log(tmp_path / "Anna.jsonl", HEAD)
    other = Log(tmp_path / "Ben.jsonl", HEAD)
    other.close()
    log.close()
    Log(tmp_path / "Anna.jsonl", HEAD).close()


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "Anna.jsonl"
    Log(path, HEAD | {"reviewer": "anna"}).close()
    before = path.read_bytes()
    with pytest.raises(OutputError, match="reviewer is 'anna', not 'Anna'"):
        Log(path, HEAD)
    assert path.read_bytes() == before
    Log(path, HEAD | {"reviewer": "anna"}).close()  # the refused attempt holds no lock


def test_a_damaged_line_is_never_cut_off(tmp_path: Path) -> None:
    """A torn line is the last one. Damage before it is no crash of ours, and what follows was answered for."""
    path = tmp_path / "Anna.jsonl"
    log = Log(path, HEAD)
    log.append({"do": "reject", "row": "s1"})
    log.append({"do": "reject", "row": "s2"})
    log.close()
    lines = path.read_bytes().split(b"\n")
    damaged = b"\n".join([lines[0], lines[1][:9], *lines[2:]])
    path.write_bytes(damaged)
    with pytest.raises(OutputError, match="line 2 is damaged"):
        Log(path, HEAD)
    assert path.read_bytes() == damaged
    zeros = b"\n".join(lines[:2]) + b"\n" + bytes(40)  # as a crash of the machine may leave the end of a file
    path.write_bytes(zeros)
    log = Log(path, HEAD)
    assert log.events == [{"do": "reject", "row": "s1"}]
    assert log.repaired == 40
    log.close()


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "Anna.jsonl"
    log = Log(path, HEAD)
    log.append({"do": "reject", "row": "s1"})
    before, real, calls = path.read_bytes(), os.write, []

    def full(handle: int, *data: Any) -> int:
        calls.append(handle)
        if step == "write" and len(calls) == 1:
            return real(handle, data[0][:5])  # half a line gets through
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"hf_synth.review.log.os.{step}", full)
        with pytest.raises(OutputError, match="the disk is full"):
            log.append({"do": "reject", "row": "s2"})
    assert path.read_bytes() == before
    assert len(log.events) == 1
    log.append({"do": "unsure", "row": "s2"})
    log.close()
    assert read_log(path)[1:] == [{"do": "reject", "row": "s1"}, {"do": "unsure", "row": "s2"}]


def test_what_is_no_object_is_no_event(tmp_path: Path) -> None:
    assert parse(b'{"a":1}\n[1]\n', tmp_path) == ([{"a": 1}], 8)
    assert parse(b"", tmp_path) == ([], 0)
    with pytest.raises(OutputError, match="line 1 is damaged"):
        parse(b'"text"\n{"a":1}\n', tmp_path)


def test_an_event_of_a_later_version_changes_nothing() -> None:
    events = [{"do": "label", "row": "s1", "label": "mild"}, {"do": "wonder", "row": "s1", "label": "severe"}]
    assert Decisions(events).answers["s1"].label == "mild"
    assert Decisions(events).count == 2
