"""The LLM of `run`: an endpoint that cannot be used is found before a model is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from support.llm_server import Said, serving
from support.tiny import toy_rows, toy_task

from hf_synth.cli import main
from hf_synth.cli.llms import check_llm
from hf_synth.errors import LLMError
from hf_synth.llm.journal import Entry, Journal
from hf_synth.llm.llm import LLM
from hf_synth.task.folders import write_stage


@pytest.fixture
def gold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model is made before the endpoint is checked")

    monkeypatch.setattr("hf_synth.demo.encoder.make_encoder", forbidden)
    splits = DatasetDict(train=toy_rows(12, 1), test=toy_rows(6, 2))
    write_stage(toy_task(), splits, tmp_path / "gold", stage="gold")
    return tmp_path / "gold"


def refused(capsys: pytest.CaptureFixture[str], gold: Path, model: str, url: str) -> str:
    words = ["run", gold, "--llm", model, "--base-url", url, "--base-model", "tiny", "--out", gold.parent / "run"]
    assert main([str(word) for word in words]) == 1
    return capsys.readouterr().err


def test_a_run_fails_before_its_base_model_is_made(gold: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be reached: start the server" in refused(capsys, gold, "writer", "http://127.0.0.1:9/v1")
    with serving(lambda request, _: Said(status=404)) as server:
        server.gets["/v1/models"] = {"data": [{"id": "writer-8b"}, {"id": "other"}]}
        line = refused(capsys, gold, "writer-8", server.url)
        assert "does not know model 'writer-8'" in line
        assert "did you mean" in line
        assert len(server.asked()) == 1  # our own question alone


def test_a_name_that_a_server_takes_but_does_not_list_is_no_error(tmp_path: Path) -> None:
    with serving() as server:
        server.gets["/v1/models"] = {"data": [{"id": "writer"}]}
        check_llm(LLM("writer", server.url, journal=tmp_path / "a.sqlite"))
        assert server.asked() == []
        check_llm(LLM("alias", server.url, journal=tmp_path / "a.sqlite"))
        assert len(server.asked()) == 1


def test_answers_of_the_journal_need_no_endpoint(tmp_path: Path) -> None:
    llm = LLM("writer", "http://127.0.0.1:9/v1", journal=tmp_path / "a.sqlite")
    with pytest.raises(LLMError):
        check_llm(llm)
    with Journal(tmp_path / "a.sqlite") as journal:
        journal.put_many([Entry("0" * 64, "an answer")])
    check_llm(llm)
