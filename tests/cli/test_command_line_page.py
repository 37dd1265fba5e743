"""docs/command_line.md is true: its commands parse, its configuration works, its exit codes are those of the code."""

from __future__ import annotations

import re
import shlex
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from hf_synth.cli import cli
from hf_synth.cli.cli import main, parse_command
from hf_synth.cli.config import CONFIG
from hf_synth.cli.defaults import _COMMAND_LINE_ONLY, _OWN_TABLE_ONLY, RECORDED
from hf_synth.errors import HfSynthError, UsageError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def words_in(pattern: str) -> list[str]:
    found = re.search(pattern, PAGE)
    assert found is not None
    return re.findall(r"`([\w-]+)`", found[0])


def test_its_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "work" / "synthetic"
    run.mkdir(parents=True)
    (run / "hf_synth_run.toml").write_text('[generate]\ntask = "clinic"\nllm = "simulator"\n')
    lines = [line for kind, block in BLOCKS if kind != "toml" for line in block.splitlines()]
    commands = [line for line in lines if re.search(r"\bhf-synth [a-z]", line)]
    assert len(commands) == 4
    for line in commands:
        plain = line.partition("#")[0].replace('eval "$(', "").replace(')"', "").partition(" > ")[0]
        parse_command(shlex.split(plain)[1:])


def test_its_configuration_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = [block for kind, block in BLOCKS if kind == "toml"]
    Path(CONFIG).write_text(example)
    assert parse_command(["generate"])[1].n == 300
    said = capsys.readouterr().err
    assert said in PAGE
    assert parse_command(["correct"])[1].synthetic == Path("work/synthetic")


def test_its_lists_are_those_of_the_code() -> None:
    assert tuple(words_in(r"- `completion`.*take only")) == _OWN_TABLE_ONLY
    assert tuple(words_in(r"- `push`.*from the command line alone")) == _COMMAND_LINE_ONLY
    assert tuple(words_in(r"`gold`, `generate`.*write the options")) == RECORDED


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (None, 0),
        (HfSynthError("refused"), 1),
        (ZeroDivisionError("text of a note"), 1),
        (BrokenPipeError(), 1),
        (UsageError("wrong"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException | None, code: int
) -> None:
    def run(_: Namespace) -> dict[str, Any]:
        if raised is not None:
            raise raised
        return {}

    monkeypatch.delenv("HF_SYNTH_DEBUG", raising=False)
    monkeypatch.setattr("hf_synth.cli.gold.tasks", run)
    assert main(["tasks", "--no-config"]) == code
    assert f"\n| {code} | " in PAGE
    assert "text of a note" not in capsys.readouterr().err


def test_the_table_has_every_exit_code() -> None:
    table = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert [int(code) for code in table] == [cli.DONE, cli.FAILED, cli.WRONG, cli.INTERRUPTED, cli.ENDED]
    assert cli.ENDED == 128 + signal.SIGTERM
    with pytest.raises(SystemExit, match="2"):
        main(["tasks", "--nothing"])
    assert main(["nothing"]) == cli.WRONG
