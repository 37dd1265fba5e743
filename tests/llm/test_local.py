"""LocalLLM with a Llama of a few thousand random weights: order, luck, batches, the journal, and silence."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.causal_models import TEMPLATE, WORDS, causal, make
from support.questions import ask

from hf_synth.errors import LLMError, ModelError
from hf_synth.llm import decoding
from hf_synth.llm import local as local_llm
from hf_synth.llm.gguf_files import find_weights
from hf_synth.llm.journal import Journal
from hf_synth.llm.local import LocalLLM
from hf_synth.llm.questions import Answer, Chat, Question
from hf_synth.task.columns import MANIFEST

CANARY = "CANARY-7d20"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
MUTE_SYSTEM = TEMPLATE.replace("{{ m['role'] }}", "{% if m['role'] != 'system' %}{{ m['role'] }}").replace(
    "; {% endfor %}", "; {% endif %}{% endfor %}"
)
LLAMA_2 = {"temperature": 0.9, "top_p": 0.95, "top_k": 50, "repetition_penalty": 1.17}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("causal"))


def questions(n: int) -> list[list[dict[str, str]]]:
    """Make questions of 2 to 21 words."""
    return ask(*(" ".join(["note", *(WORDS[(i * j) % len(WORDS)] for j in range(1, i % 20 + 2))]) for i in range(n)))


def texts(answers: Sequence[Answer]) -> list[str]:
    return [answer.text for answer in answers]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the rows of each batch that is written."""
    seen: list[int] = []
    write = decoding.Loaded.write

    def noted(self: Any, rows: Any, how: Any) -> None:
        seen.append(len(rows))
        write(self, rows, how)

    monkeypatch.setattr(decoding.Loaded, "write", noted)
    return seen


# --- answers --------------------------------------------------------------------------------------------------------
def test_it_is_a_chat(model: Path, tmp_path: Path) -> None:
    chat: Chat = make(model, tmp_path)
    assert chat.model == str(model)
    assert pickle.loads(pickle.dumps(chat)).max_new_tokens == 12
    other = chat.with_journal(tmp_path / "other.sqlite")
    assert other.journal == tmp_path / "other.sqlite"
    assert other._checkpoint is chat._checkpoint  # type: ignore[attr-defined]


def test_answers_come_in_order_from_batches(model: Path, tmp_path: Path, batches: list[int]) -> None:
    asked = questions(60)
    together = make(model, tmp_path, batch_tokens=400).chat(asked, access="credentialed", progress=True)
    assert len(batches) > 3
    assert max(batches) > 5
    assert len(set(texts(together))) > 50
    alone = make(model, tmp_path / "alone")
    assert texts(together) == [alone.chat([question])[0].text for question in asked]
    first = together[0]
    assert (first.status, first.code, first.cost, first.cached) in [
        ("ok", "stop", 0.0, False), ("truncated", "length", 0.0, False)
    ]  # fmt: skip
    assert first.model.startswith(f"{model}@")
    assert len(first.model) == len(f"{model}@") + 12
    assert first.created > 0


def test_an_answer_ends_with_the_end_token_or_at_the_limit(model: Path, tmp_path: Path) -> None:
    answers = make(model, tmp_path, max_new_tokens=40).chat(questions(80))
    by_status = Counter((a.status, a.code) for a in answers)
    assert set(by_status) == {("ok", "stop"), ("truncated", "length")}
    for answer in answers:
        words = len(answer.text.split())
        if answer.status == "ok":
            assert answer.completion_tokens <= 40
            assert words < answer.completion_tokens
        else:
            assert answer.completion_tokens == 40
    assert "</s>" not in " ".join(texts(answers))
    assert answers[0].prompt_tokens == 7  # user : note the ; assistant :


def test_same_question_same_answer_in_other_company(model: Path, tmp_path: Path) -> None:
    one = questions(30)[7]
    llm = make(model, tmp_path / "a")
    (alone,) = llm.chat([one], **LLAMA_2)
    in_front = make(model, tmp_path / "b", batch_tokens=10_000).chat([one, *questions(7)], **LLAMA_2)[0]
    behind = make(model, tmp_path / "c", batch_tokens=300).chat([*questions(30)[8:], one], **LLAMA_2)[-1]
    assert alone.text == in_front.text == behind.text
    assert alone.journal_key == in_front.journal_key


def test_samples_scopes_and_seeds_are_other_questions(model: Path, tmp_path: Path) -> None:
    llm, one = make(model, tmp_path), ask("note the patient")[0]
    found = llm.chat([one, one, Question(one, sample=7)])
    found += llm.chat([one], scope="elsewhere") + llm.chat([one], seed=1) + llm.chat([one], seed=2)
    found += llm.chat([one], temperature=0.5)
    assert len({a.journal_key for a in found}) == 7
    assert len(set(texts(found))) > 4
    again = llm.chat([one, one], samples=[7, 0], temperature=1, top_k=-1, seed=None, max_tokens=12)
    assert [a.journal_key for a in again] == [found[2].journal_key, found[0].journal_key]
    assert all(a.cached for a in again)


def test_what_decides_is_the_model_not_its_place(model: Path, tmp_path: Path) -> None:
    here = make(model, tmp_path).chat(questions(1))[0]
    moved = causal(tmp_path / "moved")
    assert make(moved, tmp_path, dtype="float64", batch_tokens=50).chat(questions(1))[0].cached
    for other in (causal(tmp_path / "x", seed=1), causal(tmp_path / "y", template=TEMPLATE.replace(";", "; ;"))):
        answer = make(other, tmp_path).chat(questions(1))[0]
        assert not answer.cached
        assert answer.journal_key != here.journal_key


# --- drawing --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "penalty"), [("llama", 1.0), ("llama", 1.7), ("gpt2", 1.7)])
def test_temperature_0_is_what_generate_does(tmp_path: Path, kind: str, penalty: float) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = causal(tmp_path / "m", kind=kind)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    asked = questions(25)
    said = make(model, tmp_path).chat(asked, temperature=0, repetition_penalty=penalty)
    for messages, answer in zip(asked, said, strict=True):
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        mask = torch.ones_like(ids)
        out = network.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=12, repetition_penalty=penalty, pad_token_id=0
        )[0, ids.shape[1] :]
        assert answer.text == tokenizer.decode(out, skip_special_tokens=True)
        assert answer.completion_tokens == len(out)


def test_repetition_penalty_has_an_effect(model: Path, tmp_path: Path) -> None:
    def repeats(**how: Any) -> int:
        said = make(model, tmp_path).chat(questions(40), **how)
        return sum(n - 1 for a in said for n in Counter(a.text.split()).values())

    assert repeats(temperature=0, repetition_penalty=3.0) < repeats(temperature=0) / 2


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"top_k": 8},
        {"top_p": 0.7},
        {**LLAMA_2, "top_k": 20, "top_p": 0.8},
        {"temperature": 3.0, "repetition_penalty": 4.0},
    ],
)
def test_first_tokens_follow_the_softmax(model: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    import torch
    from scipy.stats import chisquare
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers import generation as own

    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    (one,), n = ask("today the patient reports no cough"), 4000
    text = tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    scores = network(ids).logits[:, -1].detach()
    warpers: list[Any] = [
        own.RepetitionPenaltyLogitsProcessor(how.get("repetition_penalty", 1.0)),
        own.TemperatureLogitsWarper(how.get("temperature", 1.0)),
        own.TopKLogitsWarper(how.get("top_k") or scores.shape[-1]),
        own.TopPLogitsWarper(how.get("top_p", 1.0)),
    ]
    for warp in warpers:
        scores = warp(ids, scores)
    expected = scores.softmax(-1)[0]
    said = make(model, tmp_path, max_new_tokens=1).chat([one] * n, **how)
    counts: Counter[str] = Counter(a.text if a.code == "length" else "</s>" for a in said)
    counts["<unk>"] += counts.pop("", 0)  # special tokens are no text: all but the end token fall together
    expected[0] += expected[1]
    expected[1] = 0
    seen = [counts[tokenizer.convert_ids_to_tokens(i)] for i in range(len(expected))]
    assert all(count == 0 for count, p in zip(seen, expected, strict=True) if p == 0)
    common = [(c, n * float(p)) for c, p in zip(seen, expected, strict=True) if n * p >= 5]
    rest = n - sum(c for c, _ in common), n - sum(e for _, e in common)
    pairs = [*common, rest] if rest[1] > 1 else common
    assert len(pairs) > 5
    scale = sum(c for c, _ in pairs) / sum(e for _, e in pairs)
    assert chisquare([c for c, _ in pairs], [e * scale for _, e in pairs]).pvalue > 0.01


def test_stop_texts_end_an_answer_and_are_left_out(model: Path, tmp_path: Path) -> None:
    free = make(model, tmp_path, max_new_tokens=30).chat(questions(40))
    stops = [free[3].text.split()[4] + " " + free[3].text.split()[5], "cough"]
    stopped = make(model, tmp_path / "other", max_new_tokens=30)
    for stop in (stops, tuple(stops[:1]), stops[1]):
        for answer in stopped.chat(questions(40), stop=stop):
            assert not any(one in answer.text for one in ([stop] if isinstance(stop, str) else stop))
    assert any("cough" in a.text for a in free)


def test_a_stop_text_may_span_tokens_and_cut_one(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (free,) = make(model, tmp_path, max_new_tokens=20).chat(questions(1), temperature=0)
    words = free.text.split()
    stop = free.text[len(words[0]) - 1 : len(" ".join(words[:3])) + 2]  # from inside a word to inside another
    (cut,) = make(model, tmp_path, max_new_tokens=20).chat(questions(1), temperature=0, stop=["nowhere", stop])
    assert cut.text == free.text.split(stop)[0]
    assert (cut.status, cut.code) == ("ok", "stop")
    assert 3 <= cut.completion_tokens < 20


def test_max_completion_tokens_bounds_an_answer(model: Path, tmp_path: Path) -> None:
    answers = make(model, tmp_path).chat(questions(9), max_completion_tokens=3)
    answers += make(model, tmp_path).chat(questions(9), max_tokens=2)
    assert max(a.completion_tokens for a in answers[:9]) == 3
    assert max(a.completion_tokens for a in answers[9:]) == 2


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"frequency_penalty": 0.1, "top_k": 5}, "frequency_penalty"), ({"messages": []}, "messages"),
        ({"temperature": -1}, "temperature"), ({"temperature": "hot"}, "temperature"), ({"top_p": 0}, "top_p"),
        ({"top_p": float("nan")}, "top_p"), ({"top_k": 1.5}, "top_k"), ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"), ({"stop": [""]}, "stop"), ({"stop": 3}, "stop"), ({"seed": "x"}, "seed"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
    ],
)  # fmt: skip
def test_wrong_sampling_is_named(model: Path, tmp_path: Path, how: dict[str, Any], named: str) -> None:
    with pytest.raises(LLMError, match=named):
        make(model, tmp_path).chat(questions(1), **how)


# --- prompts --------------------------------------------------------------------------------------------------------
TALK = [{"role": "system", "content": "the plan"}, {"role": "user", "content": "note week"}]


def read_back(llm: LocalLLM, messages: list[dict[str, str]]) -> str:
    loaded = llm._checkpoint.loaded
    return str(loaded.tokenizer.decode(loaded.prompt(messages)))


def test_the_template_is_used_as_it_is(model: Path, tmp_path: Path) -> None:
    assert read_back(make(model, tmp_path), TALK) == "system : the plan ; user : note week ; assistant :"


@pytest.mark.parametrize("template", [NO_SYSTEM, MUTE_SYSTEM])
def test_a_system_message_goes_where_the_template_takes_it(tmp_path: Path, template: str) -> None:
    llm = make(causal(tmp_path / "m", template=template), tmp_path)
    assert read_back(llm, TALK) == "user : the plan note week ; assistant :"
    assert read_back(llm, TALK[1:]) == "user : note week ; assistant :"
    assert len(llm.chat([TALK])) == 1


def test_a_tokenizer_without_a_template_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    llm = make(causal(tmp_path / "m", template=None), tmp_path)
    with caplog.at_level(logging.INFO, "hf_synth"):
        llm.chat([TALK, *questions(3)])
        llm.chat(questions(3), scope="again")
    assert ["no chat template" in r.getMessage() for r in caplog.records] == [True]
    assert read_back(llm, TALK) == "<s> the plan note week"


def test_a_template_that_takes_no_such_messages_is_one_sentence(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('never ' + messages[0]['content']) }}"
    llm = make(causal(tmp_path / "m", template=refusing), tmp_path)
    with pytest.raises(LLMError, match="does not accept these messages.*roles are user") as caught:
        llm.chat(ask(CANARY))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_prompt_beyond_the_context_fails_alone(model: Path, tmp_path: Path, batches: list[int]) -> None:
    long = "note " * 123  # with the 5 tokens around it all 128 positions
    answers = make(model, tmp_path).chat([*ask(long, long[:-5], long * 5), *questions(5)], temperature=0)
    assert [(a.status, a.code) for a in answers[:3:2]] == [("error", "too_long")] * 2
    assert (answers[0].text, answers[0].prompt_tokens, answers[0].model) == ("", 128, answers[3].model)
    assert answers[1].completion_tokens == 1
    assert all(a.text for a in answers[3:])
    assert sum(batches) == 6
    assert len(Journal(tmp_path / "journal.sqlite")) == 6


# --- the journal ----------------------------------------------------------------------------------------------------
def test_a_second_run_neither_computes_nor_loads(
    model: Path, tmp_path: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(model, tmp_path).chat(questions(20))
    done = len(batches)
    monkeypatch.setattr(decoding.Loaded, "__init__", lambda *_: pytest.fail("loaded"))
    second = make(model, tmp_path).chat(questions(20))
    assert len(batches) == done
    assert not any(a.cached for a in first)
    assert all(a.cached for a in second)
    assert texts(first) == texts(second)
    assert [a.completion_tokens for a in first] == [a.completion_tokens for a in second]


def test_equal_keys_are_computed_once(model: Path, tmp_path: Path, batches: list[int]) -> None:
    one = Question(questions(1)[0])
    answers = make(model, tmp_path).chat([one, one, one])
    assert sum(batches) == 1
    assert len(set(texts(answers))) == 1


def test_a_batch_is_on_disk_before_its_answers_are_given(model: Path, tmp_path: Path, batches: list[int]) -> None:
    answers = make(model, tmp_path, batch_tokens=100).stream(questions(20))
    next(answers)
    assert len(Journal(tmp_path / "journal.sqlite")) == sum(batches) < 20


def test_kill_loses_the_batch_in_flight_at_most_and_answers_are_those_of_another_process(
    model: Path, tmp_path: Path, batches: list[int]
) -> None:
    code = (
        "import json, os, signal, sys\nfrom hf_synth.llm import decoding, local\n"
        "write, done = decoding.Loaded.write, []\n"
        "def killed(self, rows, how):\n"
        "    write(self, rows, how)\n"  # the fourth batch is all but in the journal
        "    if len(done) == 3: print(sum(done), flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(len(rows))\n"
        "decoding.Loaded.write = killed\n"
        "how = {'max_new_tokens': 12, 'batch_tokens': 200, 'device': 'cpu'}\n"
        "llm = local.LocalLLM(sys.argv[1], journal=sys.argv[2], **how)\n"
        "llm.chat(json.loads(sys.argv[3]), **json.loads(sys.argv[4]))"
    )
    given = [str(tmp_path / "journal.sqlite"), json.dumps(questions(40)), json.dumps(LLAMA_2)]
    ended = subprocess.run(
        [sys.executable, "-c", code, str(model), *given], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    kept = int(ended.stdout)
    assert 0 < kept == len(Journal(tmp_path / "journal.sqlite")) < 40
    answers = make(model, tmp_path).chat(questions(40), **LLAMA_2)
    assert sum(a.cached for a in answers) == kept
    assert sum(batches) == 40 - kept
    here = make(model, tmp_path / "here").chat(questions(40), **LLAMA_2)
    assert texts(answers) == texts(here), "a process answers as another one does"


# --- batches --------------------------------------------------------------------------------------------------------
def test_a_pause_answers_the_oldest_before_more_is_read(model: Path, tmp_path: Path) -> None:
    read = 0

    def paused() -> Iterator[list[dict[str, str]] | None]:
        nonlocal read
        for question in questions(6):
            read += 1
            yield question
            yield None

    seen = [read for _ in make(model, tmp_path).stream(paused())]
    assert seen == [1, 2, 3, 4, 5, 6]
    assert make(model, tmp_path).chat([]) == []
    assert list(make(model, tmp_path).stream([None, None])) == []


def test_pauses_after_a_head_start_leave_batches_full(model: Path, tmp_path: Path, batches: list[int]) -> None:
    asked = ask(*(f"note w{i}" for i in range(20)))
    stream = [*asked[:10], *(one for question in asked[10:] for one in (None, question))]
    answers = list(make(model, tmp_path).stream(stream))
    assert texts(answers) == texts(make(model, tmp_path / "other").chat(asked))
    assert batches[:2] == [10, 10]


def test_what_is_read_ahead_is_bounded(model: Path, tmp_path: Path) -> None:
    read = 0

    def endless() -> Iterator[list[dict[str, str]]]:
        nonlocal read
        while True:
            read += 1
            yield ask(f"note w{read % 40} w{read // 40 % 40}")[0]

    answers = make(model, tmp_path, max_new_tokens=1).stream(endless())
    for _ in range(300):
        next(answers)
    assert read <= 300 + 2 * local_llm._LOOK_AHEAD


def test_rows_that_have_ended_leave_the_batch(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    logits = decoding.Loaded.logits

    def noted(self: Any, ids: Any, mask: Any, cache: Any) -> Any:
        rows.append(len(ids))
        return logits(self, ids, mask, cache)

    monkeypatch.setattr(decoding.Loaded, "logits", noted)
    answers = make(model, tmp_path, max_new_tokens=60).chat(questions(30))
    assert sum(rows) == sum(a.completion_tokens for a in answers)


def test_too_little_memory_halves_the_batch(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    sizes: list[int] = []
    write = decoding.Loaded.write

    def scarce(self: Any, rows: Any, how: Any) -> None:
        sizes.append(len(rows))
        if len(rows) > 3 or any(len(row.prompt) > 60 for row in rows):
            raise torch.OutOfMemoryError(CANARY)
        write(self, rows, how)

    expected = make(model, tmp_path / "plenty").chat(questions(24))
    monkeypatch.setattr(decoding.Loaded, "write", scarce)
    answers = make(model, tmp_path).chat([*questions(24), *ask("note " * 70)])
    assert texts(answers[:24]) == texts(expected)
    assert (answers[24].status, answers[24].code) == ("error", "out_of_memory")
    assert sizes[0] == 25
    assert sum(size > 3 for size in sizes) < 6


# --- finding and failing --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", [Path("missing"), "./missing", "/nowhere/at/all", "one/two/three", Path("a/b")])
def test_a_missing_folder_is_one_sentence_and_no_call(
    tmp_path: Path, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network call"))
    with pytest.raises(ModelError, match="no model folder") as caught:
        LocalLLM(place, journal=tmp_path / "j").chat(questions(1))
    assert len(str(caught.value).splitlines()) == 1


def test_a_repository_offline_comes_from_the_cache_or_not_at_all(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network call"))
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = tmp_path / "hub" / "models--some--llama" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(model)
    refs = tmp_path / "hub" / "models--some--llama" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    for revision in (None, "main", commit):
        llm = LocalLLM("some/llama", journal=tmp_path / "j.sqlite", revision=revision, max_new_tokens=3, device="cpu")
        assert llm.chat(questions(1))[0].model == f"some/llama@{commit[:12]}"
    assert len(Journal(tmp_path / "j.sqlite")) == 1
    with pytest.raises(ModelError, match="'some/other' is no folder here and cannot be fetched"):
        LocalLLM("some/other", journal=tmp_path / "j.sqlite").chat(questions(1))
    with pytest.raises(ModelError, match="no revisions"):
        make(model, tmp_path, revision="main").chat(questions(1))


def test_a_folder_needs_no_network(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda _, address: calls.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: calls.append(address))
    assert make(model, tmp_path).chat(questions(2))
    assert calls == []


def test_what_is_no_causal_model_of_attention_is_one_sentence(model: Path, tmp_path: Path) -> None:
    import shutil

    for name, problem in (("tokenizer.json", "no tokenizer"), ("model.safetensors", "no weights")):
        broken = tmp_path / name
        shutil.copytree(model, broken)
        (broken / name).unlink()
        with pytest.raises(ModelError, match=problem):
            make(broken, tmp_path).chat(questions(1))
    (broken / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="cannot be loaded"):
        make(broken, tmp_path).chat(questions(1))
    with pytest.raises(ModelError, match="by attention alone"):
        make(causal(tmp_path / "mamba", kind="mamba"), tmp_path).chat(questions(1))
    with pytest.raises(LLMError, match="float99"):
        make(model, tmp_path, dtype="float99").chat(questions(1))
    for wrong in ({"model": ""}, {"max_new_tokens": 0}, {"batch_tokens": 0}):
        with pytest.raises(LLMError, match="needs a model"):
            LocalLLM(**{"model": "m", **wrong})


def test_note_text_is_in_no_log_and_no_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    llm = make(model, tmp_path)
    llm.chat([*ask(CANARY, f"{CANARY} " * 200), [{"role": "system", "content": CANARY}, *ask(CANARY)[0]]])

    def failing(*_: Any) -> None:
        raise RuntimeError(f"shape of {CANARY}")

    monkeypatch.setattr(decoding._Sampler, "draw", failing)
    with pytest.raises(LLMError, match=r"fails on a batch of 1 questions \(RuntimeError\)") as caught:
        llm.chat(ask(f"{CANARY} again"))
    seen = [*(r.getMessage() for r in caplog.records), *traceback.format_exception(caught.value), *capfd.readouterr()]
    assert CANARY not in "".join(seen)


def test_numbers_that_overflow_are_no_answer(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = decoding.Loaded.logits
    monkeypatch.setattr(decoding.Loaded, "logits", lambda *given: logits(*given) * float("nan"))
    with pytest.raises(LLMError, match="overflow"):
        make(model, tmp_path).chat(questions(1), temperature=0)
    assert len(Journal(tmp_path / "journal.sqlite")) == 0


# --- on a GPU -------------------------------------------------------------------------------------------------------
@pytest.mark.gpu
def test_on_a_gpu(model: Path, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    exact = make(model, tmp_path / "cuda", device="cuda", dtype="float32").chat(questions(40), temperature=0)
    assert texts(exact) == texts(make(model, tmp_path / "cpu").chat(questions(40), temperature=0))
    drawn = make(model, tmp_path, device=None).chat(questions(40), **LLAMA_2)
    assert {a.status for a in drawn} <= {"ok", "truncated"}
    again = make(model, tmp_path / "again", device=None).chat(questions(40), **LLAMA_2)
    assert texts(again) == texts(drawn)


def test_a_gguf_file_is_known_by_its_bytes_and_needs_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "toy.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    llm = LocalLLM(file, journal=tmp_path / "journal.sqlite")
    assert llm.weights == find_weights(file)
    assert llm._checkpoint.digest == sha256(file.read_bytes()).hexdigest()
    assert llm._checkpoint.name == find_weights(file).name
    with pytest.raises(ModelError, match="cannot be loaded as a causal LM"):
        llm.chat(ask("a note"))
    monkeypatch.setattr(decoding, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'hf_synth\[local\]'"):
        llm.chat(ask("a note"))
    with pytest.raises(ModelError, match="files have no revisions"):
        LocalLLM(str(file), revision="main", journal=tmp_path / "journal.sqlite").chat(ask("a note"))
    with pytest.raises(LLMError, match="there is no file"):
        LocalLLM(str(tmp_path / "none.gguf"), journal=tmp_path / "journal.sqlite").chat(ask("a note"))


def test_a_folder_of_links_has_the_access_of_the_folder_that_they_lead_to(model: Path, tmp_path: Path) -> None:
    closed, links = Path(shutil.copytree(model, tmp_path / "closed")), tmp_path / "links"
    links.mkdir()
    for file in closed.iterdir():
        (links / file.name).symlink_to(file)
    assert make(links, tmp_path).access == "open"
    (closed / MANIFEST).write_text('{"access": "credentialed"}')
    assert make(links, tmp_path).access == make(closed, tmp_path).access == "credentialed"
