"""Servers that others wrote: llama.cpp with a tiny model, `transformers serve`, and llmock's verdict on our manners."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from datasets import Dataset
from support.gguf_model import write_gguf

from hf_synth.errors import LLMError
from hf_synth.generation.generation import generate
from hf_synth.generation.prompts import answer_schema
from hf_synth.llm import calls
from hf_synth.llm import llm as llm_module
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Answer
from hf_synth.task.columns import REASONS
from hf_synth.task.task import Prompt, Task

TASK = Task.from_columns(
    "notes", text_columns="text", label_column="label", labels=["calm", "urgent"], access="open",
    prompts=(Prompt(system="You write.", instruction="Write notes.", rows=2, sampling=(("max_tokens", 600),)),),
)  # fmt: skip
SMALL = {
    "type": "object",
    "properties": {"note": {"type": "string", "maxLength": 20}, "label": {"enum": ["calm", "urgent"]}},
    "required": ["note", "label"],
    "additionalProperties": False,
}


def ask(n: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"Write note {i}."}] for i in range(n)]


def make(url: str, folder: Path, **more: Any) -> LLM:
    options = {"concurrency": 2, "timeout": 30.0, "max_retries": 2, **more}
    return LLM("tiny", base_url=url, journal=folder / "journal.sqlite", **options)


@pytest.fixture
def no_calls(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function from which on every request is a failure of the test."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a request was made")

    return lambda: monkeypatch.setattr(llm_module, "Run", refuse)


# --- llama.cpp ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run llama.cpp's own server in this process; give its address."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs xllamacpp (PyPI): llama.cpp's server")
    pytest.importorskip("gguf", reason="needs gguf (PyPI): writes the model")
    params = xllamacpp.CommonParams()
    params.model.path = str(write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 8192, 2, 1
    params.warmup, params.verbosity, params.port = False, 0, 0
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


def test_llama_cpp_answers_by_the_schema(llama: str, tmp_path: Path) -> None:
    llm = make(llama, tmp_path)
    answers = llm.chat(ask(8), schema=SMALL, max_tokens=300, temperature=1.0)
    assert [(a.status, a.code, a.cached) for a in answers] == [("ok", "stop", False)] * 8
    for answer in answers:
        said = json.loads(answer.text)
        assert list(said) == ["note", "label"]
        assert len(said["note"]) <= 20
        assert said["label"] in ("calm", "urgent")
        assert answer.prompt_tokens > 0
        assert answer.completion_tokens > 0
    assert len({a.text for a in answers}) > 4  # each question has a seed of its own
    again = llm.chat(ask(8), schema=SMALL, max_tokens=300, temperature=1.0)
    assert [a.text for a in again if a.cached] == [a.text for a in answers]


def test_llama_cpp_takes_our_seeds(llama: str, tmp_path: Path) -> None:
    first = make(llama, tmp_path / "a").chat(ask(3), max_tokens=30, temperature=1.0)
    second = make(llama, tmp_path / "b").chat(ask(3), max_tokens=30, temperature=1.0)
    assert [a.text for a in first] == [a.text for a in second]
    assert {(a.status, a.code) for a in first} == {("truncated", "length")}


def test_llama_cpp_refuses_a_prompt_that_is_too_long(llama: str, tmp_path: Path) -> None:
    long = [{"role": "user", "content": "Write. " * 4000}]
    answers = make(llama, tmp_path).chat([*ask(1), long, *ask(1)], schema=SMALL, max_tokens=300)
    assert [(a.status, a.code) for a in answers] == [("ok", "stop"), ("error", "http_400"), ("ok", "stop")]


def gold() -> Dataset:
    rows = [TASK.gold_row(f"g{i}", None, i % 2, f"Gold note {i} of the ward.") for i in range(4)]
    features = TASK.gold_features()
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)


def test_rows_come_of_a_model_that_speaks_nonsense(
    llama: str,
    tmp_path: Path,
    no_calls: Any,
) -> None:
    llm = make(llama, tmp_path)
    rows = generate(TASK, gold(), llm, 8)
    assert rows.features == TASK.synthetic_features()
    kept = [row for row in rows.to_list() if row["label_status"] == "kept"]
    rejected = [row for row in rows.to_list() if row["label_status"] == "rejected"]
    assert kept
    assert len(kept) + len(rejected) == len(rows)
    assert all(len(row["text"]) >= 3 and row["label"] in (0, 1) for row in kept)
    assert all(row["text"] is None and row["reason"] in REASONS for row in rejected)
    assert not {"llm_error", "unknown_label", "truncated"} & {row["reason"] for row in rejected}

    keys = {row["journal_key"] for row in rows.to_list()}
    with Journal(tmp_path / "journal.sqlite") as journal:
        answers = journal.get_many(keys)
    assert set(answers) == keys
    for answer in answers.values():
        check_form(answer.text)

    no_calls()
    assert generate(TASK, gold(), make(llama, tmp_path), 8).to_list() == rows.to_list()


def check_form(text: str) -> None:
    """Check an answer against `answer_schema`, as far as that says anything."""
    schema = answer_schema(TASK)
    entry = schema["properties"]["entries"]["items"]
    said = json.loads(text)
    assert list(said) == schema["required"]
    for one in said["entries"]:
        assert list(one) == entry["required"]
        assert isinstance(one["text"], str)
        assert len(one["text"]) <= entry["properties"]["text"]["maxLength"]
        assert one["label"] in entry["properties"]["label"]["enum"]


# --- transformers serve ---------------------------------------------------------------------------------------------
def write_llama(folder: Path) -> Path:
    """Write a llama of a few thousand random weights, and its tokenizer: a token for each byte."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=512
    )
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def transformers_serve(tmp_path: Path) -> Iterator[str]:
    """Run `transformers serve` with a tiny model in a process of its own; give its address."""
    for name in ("fastapi", "uvicorn"):
        pytest.importorskip(name, reason="needs transformers[serving]")
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("there is no `transformers` beside this Python")
    model = write_llama(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "serve.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(10)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server is up."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            with urlopen(url, timeout=2) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start: " + log.read_text(errors="replace")[-2000:])


@pytest.mark.slow
def test_transformers_serve_answers(transformers_serve: str, tmp_path: Path, no_calls: Any) -> None:
    llm = LLM(str(tmp_path / "model"), base_url=transformers_serve, journal=tmp_path / "journal.sqlite", concurrency=2)
    answers = llm.chat(ask(4), schema=SMALL, max_tokens=12)  # it knows no schema, and says nothing of it
    for answer in answers:
        assert (answer.status, answer.code) in {("truncated", "length"), ("ok", "stop")}
        assert 0 < answer.completion_tokens <= 12
        assert answer.prompt_tokens > len("user: Write note 0.")
        assert "model" in answer.model
        answer.text.encode()
    assert any(a.text for a in answers)

    wrong = LLM("no-such-model", base_url=transformers_serve, journal=tmp_path / "other.sqlite", max_retries=0)
    try:
        said = {a.status for a in wrong.chat(ask(1), max_tokens=4)}
    except LLMError as error:
        said = {str(error).split(" ", 1)[0]}
    assert said & {"error", transformers_serve.removeprefix("http://").removesuffix("/v1")}

    no_calls()
    again = llm.chat(ask(4), schema=SMALL, max_tokens=12)
    assert [(a.text, a.status, a.cached) for a in again] == [(a.text, a.status, True) for a in answers]


# --- llmock's verdict -----------------------------------------------------------------------------------------------
@pytest.fixture
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return llmock's server, whose faults are queued by each test."""
    pytest.importorskip("llmock", reason="needs llmock (PyPI): faults on demand, and a verdict")
    monkeypatch.setattr(calls, "_BACKOFF", 0.15)
    return request.getfixturevalue("llmock")


def chat(broken: Any, folder: Path, n: int, *, schema: dict[str, Any] | None = None, **more: Any) -> list[Answer]:
    return make(broken.base_url(), folder, **more).chat(ask(n), max_tokens=20, schema=schema)


def fine(answers: list[Answer]) -> bool:
    return all(a.status == "ok" and a.text for a in answers)


def test_a_rate_limit_is_obeyed(broken: Any, tmp_path: Path) -> None:
    broken.rate_limit(times=3, retry_after=0.4)
    assert fine(chat(broken, tmp_path, 4))
    assert [r.status for r in broken.requests].count(429) == 3
    broken.assert_resilient(strict=True)


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504, 529])
def test_passing_errors_are_asked_again_with_growing_pauses(broken: Any, status: int, tmp_path: Path) -> None:
    broken.fail(status, times=2)
    assert fine(chat(broken, tmp_path, 1))
    asked = [r for r in broken.requests if r.method == "POST"]  # the server is asked about itself, too
    assert [r.status for r in asked] == [status, status, 200]
    broken.assert_resilient()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_lasting_errors_are_not_asked_again(broken: Any, status: int, tmp_path: Path) -> None:
    broken.fail(status, times=1)
    try:
        assert [a.status for a in chat(broken, tmp_path, 1)] == ["error"]
    except LLMError as error:
        assert f"({status})" in str(error)
    assert [r.status for r in broken.requests] == [status]
    broken.assert_resilient(strict=True)


def test_a_prompt_that_is_too_long_costs_itself_only(broken: Any, tmp_path: Path) -> None:
    broken.context_overflow(times=1)
    assert sorted(a.status for a in chat(broken, tmp_path, 3)) == ["error", "ok", "ok"]
    broken.assert_resilient(strict=True)


def test_an_outage_ends_in_a_sentence(broken: Any, tmp_path: Path) -> None:
    broken.outage(status=500)
    with pytest.raises(LLMError, match=r"without an answer \(http_500\)"):
        chat(broken, tmp_path, 40, concurrency=16)
    assert len(broken.requests) <= 40 * 3
    broken.assert_resilient()
    broken.reset()
    assert fine(chat(broken, tmp_path, 40, concurrency=16))


def test_an_outage_that_asks_for_pauses_is_no_longer_one(broken: Any, tmp_path: Path) -> None:
    """Who waits for the same Retry-After goes on together: a pause for each attempt, not one for each question."""
    broken.fail(503, times=None, retry_after=0.5)
    start = time.monotonic()
    with pytest.raises(LLMError, match=r"without an answer \(http_503\)"):
        chat(broken, tmp_path, 40, concurrency=16)
    assert time.monotonic() - start < 15  # each alone waits for twenty
    broken.assert_resilient()


def test_a_quota_is_kept_to_and_used(broken: Any, tmp_path: Path) -> None:
    """120 at once and two a second from then on: two more take a second, not the minute until all is free again."""
    broken.limits(rpm=120)
    start = time.monotonic()
    assert fine(chat(broken, tmp_path, 122, concurrency=4, max_retries=6))
    assert time.monotonic() - start < 45
    broken.assert_resilient()


def test_a_quota_of_tokens_is_kept_to_and_used(broken: Any, tmp_path: Path) -> None:
    broken.limits(tpm=3000)  # enough for some sixty of them, then for one a second
    start = time.monotonic()
    assert fine(chat(broken, tmp_path, 64, concurrency=8, max_retries=6))
    assert time.monotonic() - start < 45
    broken.assert_resilient()


def test_a_slow_answer_is_given_up_and_asked_again(broken: Any, tmp_path: Path) -> None:
    broken.delay(3.0)
    assert fine(chat(broken, tmp_path, 3, timeout=0.8))
    assert max(r.seq for r in broken.requests) in (4, 5)  # the fourth asks again; the server is asked about itself


def test_nothing_is_streamed(broken: Any, tmp_path: Path) -> None:
    """A stream that breaks off, is cut or garbled cannot come to us: a whole answer comes, or none."""
    broken.disconnect().truncate().corrupt()
    assert fine(chat(broken, tmp_path, 3))
    assert {(r.stream, r.fault) for r in broken.requests} == {(False, None)}
    broken.assert_resilient(strict=True)


def test_faults_by_chance_leave_every_row(broken: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from llmock.chaos import ChaosSettings

    caplog.set_level(logging.DEBUG)
    chaos = ChaosSettings(error_rates={429: 0.1, 500: 0.1, 503: 0.1})
    server = broken._server
    server.state.chaos = server.app.state.chaos_settings = chaos
    answers = chat(broken, tmp_path, 24, concurrency=8, max_retries=6)
    assert fine(answers)
    assert {429, 500, 503} & {r.status for r in broken.requests}
    assert all(a.cached for a in chat(broken, tmp_path, 24))
    assert "Write note" not in caplog.text
    errors = {f.code for f in broken.verdict().errors}
    assert errors == set()
