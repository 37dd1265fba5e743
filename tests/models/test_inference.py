"""Models: loading with clear errors, probabilities in the task's order, embeddings, facts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import LABELS, TINY_ARGS, tiny_base, toy_rows, toy_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_synth.errors import ColumnError, ModelError, TaskError
from hf_synth.models.inference import cuda_devices, embed, load_model, predict_proba
from hf_synth.models.loading import cpu_threads, load_tokenizer, model_folder
from hf_synth.models.record import FACTS, model_facts, weights_sha256, write_facts
from hf_synth.models.tokens import batches
from hf_synth.models.training import train

CANARY = "Wxyzzy Canaryname"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("modeling")
    return train(toy_task(), toy_rows(120), base_model=tiny_base(work / "tiny"), output_dir=work / "m", args=TINY_ARGS)


def edited(model: Path, copy: Path, **config: object) -> Path:
    shutil.copytree(model, copy)
    told = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(told | config))
    return copy


def test_probabilities_are_those_of_the_plain_model(model: Path) -> None:
    rows = toy_rows(40, seed=1)
    probs = predict_proba(toy_task(), model, rows)
    assert probs.shape == (40, 3)
    assert probs.dtype == np.float32
    assert probs.sum(1) == pytest.approx(np.ones(40), abs=1e-5)
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    for i, text in enumerate(rows["text"]):
        with torch.no_grad():
            plain = network(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].numpy()
        assert probs[i] == pytest.approx(plain, abs=1e-5)


def test_probabilities_do_not_depend_on_batches_and_repeat_exactly(model: Path) -> None:
    rows = toy_rows(30, seed=2)
    whole = predict_proba(toy_task(), model, rows)
    assert np.array_equal(whole, predict_proba(toy_task(), model, rows))
    assert predict_proba(toy_task(), model, rows, tokens_per_batch=1) == pytest.approx(whole, abs=1e-5)
    back = predict_proba(toy_task(), model, rows.select(range(29, -1, -1)))
    assert back[::-1] == pytest.approx(whole, abs=1e-5)
    assert predict_proba(toy_task(), model, rows.select([])).shape == (0, 3)


@given(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 2000))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = batches(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget


def test_half_precision_is_asked_for(model: Path) -> None:
    rows = toy_rows(12)
    exact = predict_proba(toy_task(), model, rows, device="cpu")
    half = predict_proba(toy_task(), model, rows, device="cpu", dtype="bfloat16")
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.03
    assert half.sum(1) == pytest.approx(np.ones(12), abs=1e-5)
    assert np.array_equal(predict_proba(toy_task(), model, rows, device="cpu", dtype="float32"), exact)
    with pytest.raises(ModelError, match="unknown dtype 'int8': give one of float32, bfloat16"):
        predict_proba(toy_task(), model, rows, dtype="int8")


def test_labels_in_another_order_are_remapped(model: Path) -> None:
    rows, other = toy_rows(20, seed=3), toy_task(labels=LABELS[::-1])
    assert np.array_equal(predict_proba(other, model, rows)[:, ::-1], predict_proba(toy_task(), model, rows))


def test_other_labels_are_an_error(model: Path, tmp_path: Path) -> None:
    rows = toy_rows(3)
    with pytest.raises(ModelError, match="has 3 labels .*'toy' has 2"):
        predict_proba(toy_task(labels=("none", "mild")), model, rows)
    unnamed = edited(model, tmp_path / "m", id2label={str(i): f"LABEL_{i}" for i in range(3)}, label2id={})
    with pytest.raises(ModelError, match="id2label"):
        predict_proba(toy_task(), unnamed, rows)
    with pytest.raises(ModelError, match="trained for single_label_classification, task 'toy' is multi_label"):
        predict_proba(toy_task(kind="multi_label"), model, rows)
    with pytest.raises(TaskError, match="is text2text"):
        predict_proba(toy_task(kind="text2text", labels=()), model, rows)


def test_missing_texts_name_the_row_and_no_text(model: Path) -> None:
    rows = Dataset.from_dict({"text": [CANARY, None], "label": [0, 1]})
    with pytest.raises(ColumnError, match="row 1: column 'text'") as caught:
        predict_proba(toy_task(), model, rows)
    assert CANARY not in str(caught.value)
    with pytest.raises(ColumnError, match="no column 'text'"):
        predict_proba(toy_task(), model, rows.rename_column("text", "note"))


def test_pairs_are_read_as_two_segments(model: Path) -> None:
    task = toy_task(text_columns=("premise", "hypothesis"))
    rows = Dataset.from_dict({"premise": ["sore today", "lungs clear"], "hypothesis": ["tube", "comfortable week"]})
    probs = predict_proba(task, model, rows)
    network, tokenizer = load_model(model), load_tokenizer(model)
    with torch.no_grad():
        plain = network(**tokenizer("sore today", "tube", return_tensors="pt")).logits.softmax(-1)[0].numpy()
    assert probs[0] == pytest.approx(plain, abs=1e-5)


def test_long_texts_are_cut_and_a_fixed_truncation_is_lifted(model: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(model, short)
    tokenizer = AutoTokenizer.from_pretrained(short)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=4)
    tokenizer.backend_tokenizer.save(str(short / "tokenizer.json"))
    rows = toy_rows(10, seed=4)
    assert predict_proba(toy_task(), short, rows) == pytest.approx(predict_proba(toy_task(), model, rows), abs=1e-6)
    long = Dataset.from_dict({"text": ["the " * 5000], "label": [0]})
    assert np.isfinite(predict_proba(toy_task(), model, long)).all()


def test_a_replaced_model_is_loaded_afresh(model: Path, tmp_path: Path) -> None:
    rows, copy = toy_rows(5), tmp_path / "m"
    shutil.copytree(model, copy)
    before = predict_proba(toy_task(), copy, rows)
    network = AutoModelForSequenceClassification.from_pretrained(copy)
    torch.nn.init.zeros_(network.classifier.weight)
    network.save_pretrained(copy)
    assert not np.allclose(before, predict_proba(toy_task(), copy, rows))


def test_embeddings_are_means_over_tokens(model: Path) -> None:
    rows = toy_rows(6, seed=5)
    found = embed(toy_task(), model, rows)
    assert found.shape == (6, 32)
    network, tokenizer = load_model(model), load_tokenizer(model)
    with torch.no_grad():
        states = network.bert(**tokenizer(rows[2]["text"], return_tensors="pt")).last_hidden_state[0]
    assert found[2] == pytest.approx(states.mean(0).numpy(), abs=1e-5)


def test_models_that_cannot_be_loaded_are_one_sentence(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bare = tiny_base(tmp_path / "bare")
    broken = edited(model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    headless = edited(model, tmp_path / "headless", architectures=["BertModel"])
    AutoModelForSequenceClassification.from_pretrained(model).bert.save_pretrained(headless)
    remote = edited(model, tmp_path / "remote", model_type="own", auto_map={"AutoConfig": "own.Own"})
    (remote / "own.py").write_text("raise SystemExit('code of a repository was run')")
    for folder, problem in {
        tmp_path / "empty": "no config.json",
        tmp_path / "nowhere": "no model folder",
        bare: "no weights",
        broken: "cannot be loaded",
        headless: "no trained classification head",
        remote: "cannot be loaded",
    }.items():
        with pytest.raises(ModelError, match=problem) as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)
    shutil.copytree(model, tmp_path / "wordless", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(tmp_path / "wordless")


def test_an_unreachable_repository_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(ModelError, match=r"model 'some/encoder' .* give the path of a folder"):
        model_folder("some/encoder")
    with pytest.raises(ModelError, match="no model folder"):
        model_folder("not/a/repo/id")


def test_torch_files_are_read_without_unpickling_code(model: Path, tmp_path: Path) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(model)
    old = tmp_path / "old"
    shutil.copytree(model, old, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(network.state_dict(), old / "pytorch_model.bin")
    rows = toy_rows(5)
    assert predict_proba(toy_task(), old, rows) == pytest.approx(predict_proba(toy_task(), model, rows), abs=1e-6)
    assert weights_sha256(old) != weights_sha256(model)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"weight": Evil()}, old / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(old)
    assert not (tmp_path / "ran").exists()


def test_facts_absent_or_unknown_are_the_strictest(model: Path, tmp_path: Path) -> None:
    assert model_facts(model)["access"] == "open"
    assert model_facts(model)["known"] is True
    plain = tmp_path / "plain"
    shutil.copytree(model, plain, ignore=shutil.ignore_patterns(FACTS))
    assert model_facts(plain) == {"access": "credentialed", "row_digests": [], "known": False}
    write_facts(plain, {"access": "anyone"})
    assert model_facts(plain)["access"] == "credentialed"
    (plain / FACTS).write_text("[]")
    with pytest.raises(ModelError, match="broken"):
        model_facts(plain)


def test_threads_never_exceed_the_cores_and_come_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads() as now:
        assert 1 <= now <= before
    assert torch.get_num_threads() == before


def test_batches_are_small_on_a_cpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_synth.models import inference

    budgets = []
    batches = inference.batches
    monkeypatch.setattr(
        inference, "batches", lambda lengths, budget: budgets.append(budget) or batches(lengths, budget)
    )
    predict_proba(toy_task(), model, toy_rows(4), device="cpu")
    predict_proba(toy_task(), model, toy_rows(4), device="cpu", tokens_per_batch=77)
    assert budgets == [1024, 77]


FORKED = """
import os, signal, torch
from hf_synth.models.loading import cpu_threads, forked
torch.set_num_threads(2)
x = torch.rand(600, 600)
with cpu_threads():
    torch.softmax(x @ x, -1)  # the pool of threads starts
assert not forked()
child = os.fork()
if child == 0:
    signal.alarm(30)  # it hung for ever
    with cpu_threads() as threads:
        torch.softmax(x @ x, -1)
    torch.softmax(x, -1)  # and after it
    assert forked() and threads == torch.get_num_threads() == 1
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "done", done.stderr[-2_000:]


@pytest.mark.parametrize(("named", "count", "devices"), [
    (None, 2, ["0", "1"]), ("3, GPU-ab", 2, ["3", "GPU-ab"]), ("2,-1,3", 1, ["2"]), ("", 0, []), (None, 0, []),
])  # fmt: skip
def test_devices_are_named_as_cuda_reads_them(
    named: str | None, count: int, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert cuda_devices() == devices
