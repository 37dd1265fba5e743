"""A command of `hf-synth` run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_synth.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it wrote to stdout and stderr."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
