"""Verbs under torchrun: one sentence, before anything is read or paid; of `train` one process prints."""

from __future__ import annotations

import pytest

from hf_synth.cli.cli import VERBS, main
from hf_synth.cli.many_processes import check_one_process
from hf_synth.errors import UsageError


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_other_verbs_are_refused(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="each would do all of"):
        check_one_process(verb)
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_one_process(verb)


def test_a_verb_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["generate", "clinic", "--llm", "simulator", "--n", "3", "--out", "nowhere"]) == 2
    assert "2 processes were started" in capsys.readouterr().err


def test_the_second_process_prints_no_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["tasks"]) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert main(["tasks"]) == 0
    assert "clinic" in capsys.readouterr().out
