"""The line of progress: one line on a terminal, few plain lines elsewhere, nothing unless it is asked for."""

from __future__ import annotations

import importlib
import io
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_synth.cli.terminal import plain_streams
from hf_synth.reports import libraries, progress
from hf_synth.reports.progress import clock, counted, mention, shown, stage
from hf_synth.reports.time_left import Estimate


class Terminal(io.StringIO):
    """A stream that says it is a terminal, with what stands on its last line."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        lines = [""]
        for part in re.split("([\r\n])", self.getvalue()):
            if part == "\n":
                lines.append("")
            elif part != "\r":
                lines[-1] = (part + lines[-1][len(part) :]).rstrip()
        return lines


def wait_for(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < end, "nothing was drawn"
        time.sleep(0.005)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW", 0.01)


def test_stages_inside_each_other_share_one_line(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(), stage("correcting labels"):
        for number in counted("fold", (1, 2, 3)):
            with stage("training", 10) as training:
                training.label, training.words = "epoch 2/3", "loss 0.41"
                line = f"correcting labels | fold {number}/3 | epoch 2/3 | loss 0.41"
                wait_for(lambda line=line: terminal.lines[-1] == line)  # type: ignore[misc]
    assert terminal.getvalue().count("\n") == 0, "the line is rewritten"
    assert terminal.lines == [""], "and taken away in the end"


def test_a_count_leaves_its_last_state(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_BRIEF", 0)
    with shown(), stage(total=300, unit="notes") as one:
        one.done, one.words = 120, "3 rejected | $0.02"
        wait_for(lambda: terminal.lines[-1] == "120/300 notes | 3 rejected | $0.02")
        one.done = 300
    assert terminal.lines == ["300/300 notes | 3 rejected | $0.02 | 0:00", ""]


def test_without_a_terminal_lines_are_plain_and_few(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "PLAIN", 0.1)
    began = time.monotonic()
    with shown(), stage("fold", 5) as one:
        while time.monotonic() < began + 0.35:
            one.words = f"{time.monotonic()}"
            time.sleep(0.002)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 4
    assert all(line.startswith("fold 1/5 | ") for line in lines)
    assert "\r" not in stream.getvalue()


def test_nothing_is_shown_unless_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_BRIEF", 0)
    with shown(False), stage(total=3, unit="notes") as one:
        one.advance(3)
        mention("on the CPU")
    assert capsys.readouterr() == ("", "")


def test_the_output_of_others_has_a_line_of_its_own(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with plain_streams(), shown(), stage("fold", 2):
        wait_for(lambda: terminal.lines[-1] == "fold 1/2")
        print("a warning", file=sys.stderr)
        wait_for(lambda: terminal.lines[-1] == "fold 1/2")
        sys.stdout.write("half a ")
        time.sleep(0.05)
        print("line")
    assert terminal.lines == ["a warning", "half a line", ""]


def test_names_have_no_control_characters(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(), stage("loading \x1b[2Jmodel"):
        mention("on \x1b]0;owned\x07")
        wait_for(lambda: terminal.lines[-1] == "loading ?[2Jmodel")
    assert "\x1b" not in terminal.getvalue()


def test_a_question_is_not_overwritten(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(), stage("fold", 2):
        wait_for(lambda: terminal.lines[-1] == "fold 1/2")
        with progress.paused():
            before = terminal.getvalue()
            time.sleep(0.05)
            assert terminal.getvalue() == before
        wait_for(lambda: terminal.lines[-1] == "fold 1/2")


def test_the_verb_is_named_while_it_prepares_until_a_result_comes(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_IDLE", 0.0)
    with plain_streams(), shown(idle="train"):
        wait_for(lambda: terminal.lines[-1] == "train | 0:00")
        monkeypatch.setattr(sys, "stdout", sys.stderr)
        progress.make_room("a result\n", result=True)
        before = terminal.getvalue()
        time.sleep(0.05)
        assert terminal.getvalue() == before


def test_an_error_in_a_stage_takes_the_stages_inside_it_away(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(), stage("cells", 3):
        left_open = counted("fold", range(2))
        with pytest.raises(ValueError, match="of a cell"), stage("cell"):
            next(left_open)
            raise ValueError("of a cell")
        wait_for(lambda: terminal.lines[-1] == "cells 1/3")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9.6, "0:10"), (70, "1:10"), (3_600, "1:00:00"), (7_265, "2:01:05")]
)
def test_a_time_is_in_minutes_and_hours(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_time_left_is_that_of_the_outermost_stage_that_knows_it(
    fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    now = [1_000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with shown(), stage("model", 2):
        now[0] += 5
        assert progress._line is not None
        assert progress._line.text() == "model 1/2 | 0:05", "nothing is counted yet"
        with stage("training", 10) as training:
            for step in range(1, 5):
                now[0] += 4
                training.done = step
                if step < 3:
                    assert "ETA" not in progress._line.text(), "two steps are too few"
            assert progress._line.text().endswith("ETA 1:09"), "6 steps of 4 s, and another model of 45 s"
            now[0] += 3
            assert progress._line.text().endswith("ETA 1:06"), "it goes down between two steps"
            now[0] += 60
            assert progress._line.text().endswith("ETA 1:05"), "and does not grow"


def test_a_library_that_is_loaded_is_named(fast: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`run | 0:41` for minutes says nothing: on busy cores the libraries take that long."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_IDLE", 0.0)
    waits = (
        "import time\nfrom pathlib import Path\nwhile not Path(__file__).with_name('go').exists(): time.sleep(0.01)\n"
    )
    (tmp_path / "peft.py").write_text(waits)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    loading = threading.Thread(target=importlib.import_module, args=("peft",))
    with shown(idle="run"):
        loading.start()
        wait_for(lambda: terminal.lines[-1].startswith("run | loading peft | 0:0"))
        with stage("fold", 2):
            wait_for(lambda: terminal.lines[-1] == "fold 1/2 | loading peft")
            (tmp_path / "go").touch()
            loading.join()
            wait_for(lambda: terminal.lines[-1] == "fold 1/2")
    monkeypatch.delitem(sys.modules, "peft")


def test_imports_of_other_threads_do_not_stop_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """`list(sys.modules.items())` collects garbage in between, and whatever runs then may import."""

    class Growing(dict[str, object]):
        def items(self) -> Iterator[tuple[str, object]]:  # type: ignore[override]
            for pair in super().items():
                self[f"imported{len(self)}"] = None
                yield pair

    pandas = SimpleNamespace(__spec__=SimpleNamespace(_initializing=True))
    monkeypatch.setattr(libraries, "sys", SimpleNamespace(modules=Growing({"a": None, "pandas.core": pandas})))
    assert libraries.library_under_way() == "loading pandas"


class Broken(Terminal):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Broken(), closed(), None])
def test_a_reader_that_has_gone_ends_no_training(
    stream: io.StringIO | None, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_BRIEF", 0)
    monkeypatch.setattr(sys, "stderr", stream)
    with plain_streams(), shown(), stage(total=2, unit="notes") as one:
        mention("models run on the CPU")
        one.advance()
        time.sleep(0.03)
    assert one.done == 1


def test_a_step_of_a_verb_stands_before_its_stages(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_IDLE", 0.0)
    with progress.shown(idle="run"):
        progress.begin_step("read gold", of=("read gold", "correct"))
        progress.begin_step("correct")
        wait_for(lambda: "2/2 correct | 0:00" in terminal.getvalue())
        with progress.stage("fold", 5):
            wait_for(lambda: "2/2 correct | fold 1/5" in terminal.getvalue())
        progress.begin_step("write the report")
        wait_for(lambda: "write the report | " in terminal.getvalue())


def test_a_time_left_that_is_over_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with shown(), stage("fold", 2) as one:
        one._since -= 65
        for left, end in ((90.0, "ETA 1:30"), (0.0, "1:05")):
            monkeypatch.setattr(one, "left", lambda inside, now, left=left: Estimate(left, left))
            assert progress._line is not None
            assert progress._line.text() == f"fold 1/2 | {end}"
