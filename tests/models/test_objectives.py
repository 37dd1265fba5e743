"""Losses compared with hand-made figures: soft labels, weights and windows, however a step is split into batches."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny import FILLER, LABELS, SIGNS, TINY_ARGS, toy_rows, toy_task

from hf_synth.models.inference import predict_proba, probabilities
from hf_synth.models.loading import load_tokenizer
from hf_synth.models.objectives import (
    main_score,
    pooled_notes,
    soft_cross_entropy,
    training_targets,
    yes_no_cross_entropy,
)
from hf_synth.models.record import model_facts
from hf_synth.models.training import start, train
from hf_synth.models.windows import windows_of


def by_hand(logits: list[list[float]], targets: list[list[float]]) -> float:
    """Return -sum target log softmax, with plain Python."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        log_sum = math.log(sum(math.exp(x) for x in row))
        total += sum(t * (log_sum - x) for x, t in zip(row, target, strict=True))
    return total


def test_the_loss_is_the_weighted_mean_over_rows() -> None:
    logits = [[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-1.0, 3.0, 1.0]]
    targets = [[0.7, 0.2, 0.1], [0.0, 1.5, 0.0], [0.25, 0.25, 0.0]]  # a soft row, a heavy one, a light one
    found = soft_cross_entropy({"logits": torch.tensor(logits)}, torch.tensor(targets))
    assert float(found) == pytest.approx(by_hand(logits, targets) / 3, rel=1e-6)
    both = [[0.6, 0.0, 0.3, 0.4, 1.0, 0.0]] * 3  # presence of three labels, then absence; nobody judged the third's
    expected = sum(
        weight * math.log(1 + math.exp(-x if i < 3 else x))
        for row in logits
        for i, (x, weight) in enumerate(zip([*row, *row], both[0], strict=True))
    )
    found = yes_no_cross_entropy({"logits": torch.tensor(logits)}, torch.tensor(both))
    assert float(found) == pytest.approx(expected / 9, rel=1e-6)


@given(st.integers(1, 12), st.integers(1, 5), st.randoms(use_true_random=False))
def test_however_a_step_is_dealt_out_the_loss_is_the_same(rows: int, parts: int, rng: Any) -> None:
    torch.manual_seed(rng.randrange(1000))
    logits, targets = torch.randn(rows, 3), torch.rand(rows, 3)
    cuts = sorted(rng.randrange(rows + 1) for _ in range(parts - 1))
    for loss, labels in (
        (soft_cross_entropy, targets),
        (yes_no_cross_entropy, torch.cat([targets, 1 - targets], -1)),
    ):
        whole = loss({"logits": logits}, labels)
        slices = [slice(a, b) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]
        told = torch.tensor(labels.numel())  # what Trainer counts over accumulated batches and over processes
        dealt = sum(loss({"logits": logits[s]}, labels[s], told) for s in slices if len(logits[s]))
        assert float(dealt) == pytest.approx(float(whole), rel=1e-5)
        # several GPUs in one process: the number comes once a GPU, and Trainer multiplies by their number
        assert float(loss({"logits": logits}, labels, told.expand(4, 1)) * 4) == pytest.approx(float(whole), rel=1e-5)


def test_class_weights_even_classes_out_and_keep_the_mean_weight() -> None:
    task = toy_task()
    rows = Dataset.from_list(
        [task.gold_row(str(i), str(i), label, "note") for i, label in enumerate([0] * 6 + [1] * 2)],
        features=task.gold_features(),
    )
    targets = training_targets(task, rows, class_weights=True)
    assert targets.sum(0) == pytest.approx([4, 4, 0])
    assert training_targets(task, rows).sum() == pytest.approx(8)


# --- windows --------------------------------------------------------------------------------------------------------
def long_rows(n: int, seed: int, words: int = 130) -> Dataset:
    """Make notes of several windows, whose sign may stand anywhere."""
    rng, task = np.random.default_rng(seed), toy_task()
    rows = []
    for i in range(n):
        label = int(rng.integers(3))
        text = [*rng.choice(FILLER, words), *rng.choice(SIGNS[LABELS[label]], 3)]
        rng.shuffle(text)
        rows.append(task.gold_row(f"l{seed}-{i}", f"g{seed}-{i}", label, " ".join(text)))
    return Dataset.from_list(rows, features=task.gold_features())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(lengths=st.lists(st.integers(0, 150), min_size=1, max_size=5), way=st.sampled_from(["windows", "windows_mean"]))
def test_training_and_prediction_pool_alike(base: Path, lengths: list[int], way: str) -> None:
    network, tokenizer = start(base, toy_task(), 0)
    network.eval().config.long_notes = way
    rows = Dataset.from_dict({"text": [" ".join(FILLER[(i * 7 + n) % len(FILLER)] for i in range(n)) for n in lengths]})
    windows = windows_of(tokenizer, toy_task(), rows, 48, long_notes=way)
    batch = windows.batch_of_rows(range(len(rows)), tokenizer.pad_token_id)
    with torch.no_grad(), pooled_notes(network, way):
        found = network(**{k: torch.from_numpy(v) for k, v in batch.items()}).logits
    assert found.shape == (len(rows), 3)
    expected = probabilities(network, tokenizer, toy_task(), rows)
    assert found.softmax(-1).numpy() == pytest.approx(expected, abs=1e-5)
    assert not network._forward_hooks  # it is the plain network again


def test_the_gradient_reaches_the_window_that_decides(base: Path) -> None:
    network, tokenizer = start(base, toy_task(), 0)
    windows = windows_of(tokenizer, toy_task(), long_rows(2, 0), 48, long_notes="windows")
    batch = {k: torch.from_numpy(v) for k, v in windows.batch_of_rows([0, 1], tokenizer.pad_token_id).items()}
    with pooled_notes(network, "windows"):
        loss = soft_cross_entropy(network(**batch), torch.eye(3)[:2])
    loss.backward()
    flat = {k: v[batch["attention_mask"].any(-1)] for k, v in batch.items()}
    counts = np.diff(windows.first)
    tops = [part.max(0).values for part in network(**flat).logits.split(counts.tolist())]
    assert float(loss.detach()) == pytest.approx(
        by_hand(torch.stack(tops).tolist(), torch.eye(3)[:2].tolist()) / 2, rel=1e-5
    )
    assert float(network.classifier.weight.grad.abs().sum()) > 0


def test_windows_read_what_a_cut_note_loses(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from hf_synth.evaluation.evaluation import evaluate

    caplog.set_level("INFO")
    args, test = TINY_ARGS | {"num_train_epochs": 10}, long_rows(120, 1)
    scores = {}
    for way in ("auto", "cut"):
        folder = train(
            toy_task(), long_rows(160, 0), base_model=base, output_dir=tmp_path / way, args=args, long_notes=way
        )
        scores[way] = evaluate(toy_task(), folder, test, n_bootstrap=0).values["macro_f1"]
    assert scores["auto"] > scores["cut"] + 0.05
    facts = model_facts(tmp_path / "auto")
    assert facts["long_notes"]["how"] == "windows"
    assert facts["long_notes"] | {"windows": 0} == {
        "how": "windows", "tokens": 48, "longer": 160, "rows": 160, "windows": 0
    }  # fmt: skip
    assert facts["hyperparameters"]["gradient_accumulation_steps"] == 1  # the user's own batch size stands
    assert model_facts(tmp_path / "cut")["long_notes"]["how"] == "cut"
    told = [r.getMessage() for r in caplog.records if "longer than" in r.getMessage()]
    assert told[0].startswith("160 of 160 rows are longer than the 48 tokens that the model reads: read in windows")
    assert told[1].endswith("reads: cut")


def test_a_model_of_windows_is_a_plain_model_that_says_so(base: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = train(
        toy_task(), long_rows(20, 0), base_model=base, output_dir=tmp_path / "m",
        args={"max_steps": 2, "learning_rate": 1e-3}, long_notes="windows_mean",
    )  # fmt: skip
    assert AutoConfig.from_pretrained(folder).long_notes == "windows_mean"
    # default arguments: fewer rows go through at once, and as many as ever make a step
    told = model_facts(folder)["hyperparameters"]
    assert told["per_device_train_batch_size"] * told["gradient_accumulation_steps"] in range(12, 17)
    network, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), load_tokenizer(folder)
    rows = long_rows(4, 3)
    windows = windows_of(tokenizer, toy_task(), rows, 48, long_notes="windows_mean")
    means = []
    for i in range(len(rows)):
        ids = [windows.tokens[j].tolist() for j in range(windows.first[i], windows.first[i + 1])]
        with torch.no_grad():
            logs = [network(input_ids=torch.tensor([w])).logits[0].log_softmax(-1) for w in ids]
        means.append(torch.stack(logs).mean(0).softmax(-1).numpy())  # the mean of log-probabilities
    assert predict_proba(toy_task(), folder, rows) == pytest.approx(np.stack(means), abs=1e-5)
    # what is trained from it is not bound by its way
    second = train(toy_task(), toy_rows(20), base_model=folder, output_dir=tmp_path / "n", args={"max_steps": 1})
    assert getattr(AutoConfig.from_pretrained(second), "long_notes", None) is None


def test_gradient_checkpointing_changes_no_weight(base: Path, tmp_path: Path) -> None:
    args = {"max_steps": 3, "learning_rate": 1e-2}
    folders = [
        train(
            toy_task(), long_rows(20, 0), base_model=base, output_dir=tmp_path / str(on),
            args={**args, "activation_checkpointing": on}, long_notes="windows",
        )
        for on in (False, True)
    ]  # fmt: skip
    one, two = (predict_proba(toy_task(), folder, long_rows(6, 1)) for folder in folders)
    assert one == pytest.approx(two, abs=1e-5)
    assert model_facts(folders[1])["arguments"]["activation_checkpointing"] is True


def test_the_best_epoch_is_chosen_by_what_somebody_judged() -> None:
    task = replace(toy_task(), kind="multi_label", metrics=())
    truth = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0], [0, 0, 0]])
    judged = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1.0], [0, 0, 0]])
    targets = np.hstack([truth, 1 - truth]) * np.tile(judged, 2)
    right = np.where(truth > 0, 4.0, -4.0)
    bold = np.where(judged > 0, right, 4.0)  # the same, but it finds whatever nobody looked for
    for scored in (task, replace(task, metrics=("accuracy",))):
        assert main_score(scored, right, targets) == main_score(scored, bold, targets) == 1.0
        assert main_score(scored, -right, targets) < 0.5
