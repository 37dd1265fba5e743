"""Printed and logged text holds no control characters that a terminal obeys."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from hf_synth.cli import main
from hf_synth.cli.terminal import PlainStream, plain, plain_streams

ESCAPES = "\x1b]0;owned\x07\x1b[2J"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("40 train, 4 test -> out\n", "40 train, 4 test -> out\n"),
        ("Fieber über 38 °C\täöü 漢字 😀", "Fieber über 38 °C\täöü 漢字 😀"),
        (ESCAPES, "\\x1b]0;owned\\x07\\x1b[2J"),
        ("ok\rrefused", "ok\\rrefused"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("a\u2028b\x00\x7f", "a\\u2028b\\x00\\x7f"),
        (b"name-\xff".decode("utf-8", "surrogateescape"), "name-\\udcff"),
    ],
)
def test_what_a_terminal_obeys_is_an_escape(text: str, printed: str) -> None:
    assert plain(text) == printed
    stream = io.StringIO()
    assert PlainStream(stream).write(text) == len(text)
    PlainStream(stream).writelines([text])
    assert stream.getvalue() == printed * 2


def test_progress_bars_still_move() -> None:
    stream = io.StringIO()
    with tqdm(
        total=2, file=PlainStream(stream, progress=True), desc=f"model{ESCAPES}", mininterval=0, position=1
    ) as bar:
        bar.update()
        bar.update()
    drawn = stream.getvalue()
    assert "\r" in drawn
    assert "\x1b[A" in drawn
    assert "\x1b]0" not in drawn
    assert "\\x1b]0;owned" in drawn


def test_a_message_in_the_log_is_plain_too(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_streams():
        shown = logging.StreamHandler(sys.stderr)
        log = logging.Logger("of this test")
        log.addHandler(shown)
        log.warning("%s is not UTF-8", f"file{ESCAPES}")
    assert capsys.readouterr().err == "file\\x1b]0;owned\\x07\\x1b[2J is not UTF-8\n"


@pytest.mark.parametrize("verb", ["gold", "audit", "train"])
def test_a_name_of_a_file_in_an_error_is_plain(verb: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = f"{tmp_path}/nowhere{ESCAPES}"
    words = {
        "gold": ["gold", "mts_dialog", path, "--out", "o"],
        "audit": ["audit", "clinic", path],
        "train": ["train", "clinic", path, "--out", "o"],
    }
    before = sys.stdout, sys.stderr
    assert main(words[verb]) == 1
    assert (sys.stdout, sys.stderr) == before
    told = capsys.readouterr()
    assert "\\x1b]0;owned" in told.err
    assert "\x1b" not in told.out + told.err


def test_options_that_are_wrong_are_plain_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "clinic", "x", f"--nothing{ESCAPES}"])
    told = capsys.readouterr().err
    assert "\\x1b]0;owned" in told
    assert "\x1b" not in told
