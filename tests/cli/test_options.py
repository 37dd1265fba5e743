"""Options that several verbs share: the sampling of every verb that asks an LLM."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import Said, entries, serving

from hf_synth.cli.cli import main
from hf_synth.cli.llms import price_of, sampling_of
from hf_synth.errors import LLMError
from hf_synth.llm.llm import LLM

URL = "http://127.0.0.1:9/v1"


def args(*sampling: str, max_tokens: int | None = None) -> Namespace:
    return Namespace(sampling=list(sampling), max_tokens=max_tokens)


def test_fields_are_set_and_left_out() -> None:
    said = ("temperature=0.3", "seed=none", "reasoning_effort=low", 'stop=["###"]', "top_k=20", "min_p=None")
    assert sampling_of(args(*said, max_tokens=900)) == {
        "temperature": 0.3, "seed": None, "reasoning_effort": "low", "stop": ["###"], "top_k": 20, "min_p": None,
        "max_tokens": 900,
    }  # fmt: skip
    assert sampling_of(args()) == {}


@pytest.mark.parametrize(
    "said", ["temperature", "=1", "top p=1", "seed=", "model=x", "messages=[]", "response_format=1"]
)
def test_what_is_no_field_is_one_sentence(said: str) -> None:
    with pytest.raises(LLMError) as caught:
        sampling_of(args(said))
    assert "\n" not in str(caught.value)


def test_every_verb_that_asks_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("generate", "label", "correct", "run", "experiment", "regenerate"):
        with pytest.raises(SystemExit):
            main([verb, "--help-all"])
        said = capsys.readouterr().out
        assert "--sampling NAME=VALUE" in said, verb
        assert "--max-tokens N" in said, verb


def test_generate_sends_what_the_hand_set_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def answer(sent: dict[str, Any], number: int) -> Said:
        return Said(entries({**sent, "seed": number}))

    with serving(answer) as server:
        how = ["--sampling", "seed=none", "--sampling", "temperature=0.3", "--max-tokens", "900", "-q", "--n", "4"]
        argv = ["generate", "clinic", "--llm", "m", "--base-url", server.url, "--gold-size", "20"]
        assert main([*argv, *how, "--out", str(tmp_path / "syn")]) == 0
        sent = {
            name: value for name, value in server.requests[0].items() if name not in ("messages", "response_format")
        }
    assert sent == {"model": "m", "temperature": 0.3, "top_p": 0.95, "max_tokens": 900}
    from hf_synth.gold.adoption import read_dataset

    (asked,) = {json.dumps(json.loads(x), sort_keys=True) for x in read_dataset(tmp_path / "syn")["sampling"]}
    assert json.loads(asked) == {"temperature": 0.3, "top_p": 0.95, "max_tokens": 900, "seed": None}


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ([], {}),
        (["--timeout", "30", "--concurrency", "2", "--slots", "3"], {"timeout": 30.0, "concurrency": 2, "slots": 3}),
    ],
)
def test_a_gguf_file_is_asked_as_the_hand_says(
    words: list[str], passed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: dict[str, Any] = {}

    def start(model: str, **how: Any) -> LLM:
        asked.update(how)
        raise LLMError("no server in this test")

    monkeypatch.setattr(LLM, "local_gguf", start)
    argv = ["generate", "clinic", "--llm", "x.gguf", "--n", "4", "--gold-size", "20", "--out", str(tmp_path / "o")]
    assert main([*argv, *words, "-q"]) == 1
    given = {name: asked.get(name) for name in ("timeout", "concurrency", "slots")}
    assert {name: value for name, value in given.items() if value is not None} == passed


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["m", "--base-url", URL, "--slots", "4"], "the endpoint runs m in its own way: leave out --slots"),
        (["m", "--base-url", URL, "--context", "9", "--threads", "2"], "leave out --context, --threads"),
        (["m", "--base-url", URL, "--revision", "v2"], "leave out --revision"),
        (["x.gguf", "--base-url", URL, "--threads", "2"], "leave out --threads"),
        (["m", "--local", "--timeout", "9"], "--local runs the model in this process: leave out --timeout"),
        (["m", "--local", "--rpm", "9", "--tpm", "9", "--concurrency", "2", "--budget-usd", "1"],
         "leave out --rpm, --tpm, --concurrency, --budget-usd"),
        (["m", "--local", "--base-url", URL, "--price", "1", "2"], "leave out --base-url, --price"),
        (["x.gguf", "--rpm", "9"], "x.gguf is run by a server on this machine: leave out --rpm"),
        (["simulator", "--slots", "4"], "the simulator is no model file: leave out --slots"),
        (["m", "--base-url", URL, "--batch", "--hedge"], "leave out --hedge"),
    ],
)  # fmt: skip
def test_an_option_that_does_not_act_with_the_llm_is_refused(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LLM, "__init__", None)  # nothing is opened
    assert main(["generate", "clinic", "--llm", *words, "--n", "4", "--out", "o"]) == 1
    assert capsys.readouterr().err.strip().endswith(why)
    assert main(["label", "clinic", "--gold", "--llm", *words, "--out", "o"]) == 1
    assert capsys.readouterr().err.strip().endswith(why)


def test_what_runs_here_costs_nothing() -> None:
    own = {"price": None, "base_url": None}
    assert price_of(Namespace(llm="simulator", **own)) == (0.0, 0.0)
    assert price_of(Namespace(llm="simulator", price=None, base_url="http://127.0.0.1:1/v1")) is None
    assert price_of(Namespace(llm="simulator", price=[1.0, 2.0], base_url=None)) == (1.0, 2.0)
