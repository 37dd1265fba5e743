"""Membership tests: planted losses are recognised, equal losses are not, and a model that memorised is caught."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from support.tiny import FILLER, LABELS, tiny_base, toy_rows, toy_task

from hf_synth.errors import ColumnError, TaskError
from hf_synth.models.inference import predict_proba
from hf_synth.models.training import train
from hf_synth.privacy.canaries import make_canaries, plant
from hf_synth.privacy.membership import Exposure, compare_losses, exposure, losses, membership
from hf_synth.task.task import Task


def test_losses_of_chance_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    found = [compare_losses(rng.exponential(1, 200), rng.exponential(1, 300)) for _ in range(100)]
    inside = [f.auc_low <= 0.5 <= f.auc_high for f in found]  # type: ignore[operator]
    assert np.mean(inside) > 0.9
    assert np.mean([f.tpr for f in found]) == pytest.approx(0.01, abs=0.006)
    assert "do not tell" in found[inside.index(True)].note


def test_lower_losses_of_members_are_told() -> None:
    rng = np.random.default_rng(1)
    found = compare_losses(rng.exponential(0.2, 400), rng.exponential(1, 400))
    assert found.auc == pytest.approx(5 / 6, abs=0.04)  # of two exponentials: rate over the sum of rates
    assert found.auc_low > 0.5  # type: ignore[operator]
    assert "tell in part" in found.note
    whole = compare_losses(np.zeros(150), np.ones(150))
    assert (whole.auc, whole.tpr) == (1.0, 1.0)
    assert whole.tpr_low < 1  # type: ignore[operator]
    turned = compare_losses(np.ones(150), np.zeros(150))
    assert turned.tpr == 0
    assert "differ in more than membership" in turned.note


def test_the_rate_never_accuses_more_than_one_in_a_hundred() -> None:
    rng = np.random.default_rng(2)
    others = np.round(rng.exponential(1, 250), 1)  # many ties
    found = compare_losses(others.copy(), others)
    assert found.tpr <= 0.01  # type: ignore[operator]


def test_too_few_rows_say_so() -> None:
    few = compare_losses(np.zeros(15), np.ones(300))
    assert (few.auc, few.tpr) == (None, None)
    assert "too few rows" in few.note
    assert "too few rows" in compare_losses(np.zeros(200), np.ones(300), groups=(5, 300)).note  # five patients
    some = compare_losses(np.zeros(50), np.ones(60))
    assert some.auc == 1.0
    assert some.tpr is None
    assert "100 others are needed" in some.note
    assert set(some.to_json()) >= {"auc", "auc_low", "auc_high", "tpr", "note"}


def noisy(n: int, seed: int) -> Dataset:
    """Make rows whose labels say nothing of their words: they can only be learnt by heart."""
    task, rng = toy_task(), random.Random(seed)
    rows = [
        task.gold_row(f"n{seed}-{i}", None, rng.randrange(len(LABELS)), " ".join(rng.choices(FILLER, k=12)))
        for i in range(n)
    ]
    return Dataset.from_list(rows, features=task.gold_features())


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    folder = tmp_path_factory.mktemp("membership")
    rows = noisy(40, 1)
    args = {"learning_rate": 1e-2, "num_train_epochs": 24, "per_device_train_batch_size": 20}
    return Path(
        train(toy_task(), rows, base_model=tiny_base(folder / "base"), output_dir=folder / "model", args=args)
    ), rows


def test_a_model_that_learnt_by_heart_is_caught(by_heart: tuple[Path, Dataset]) -> None:
    model, rows = by_heart
    found = membership(toy_task(), model, gold=rows, held_out=noisy(120, 2))
    assert found.auc_low > 0.6  # type: ignore[operator]
    assert found.tpr is not None
    assert found.member_loss < found.held_out_loss  # type: ignore[operator]
    outside = compare_losses(*(losses(toy_task(), model, noisy(120, seed)) for seed in (3, 4)))
    assert outside.auc_low < 0.5 < outside.auc_high  # type: ignore[operator]


def test_the_facts_of_a_model_say_which_rows_it_saw(by_heart: tuple[Path, Dataset]) -> None:
    model, rows = by_heart
    both = concatenate_datasets([rows, noisy(120, 2)])
    found = membership(toy_task(), model, gold=both, held_out=both)
    assert (found.members, found.held_out) == (40, 120)
    assert "too few" in membership(toy_task(), model, gold=noisy(60, 3), held_out=both).note


def test_losses_are_those_of_the_labels(by_heart: tuple[Path, Dataset]) -> None:
    model, rows = by_heart
    probs = predict_proba(toy_task(), model, rows)
    expected = [-np.log(probs[i, rows[i]["label"]]) for i in range(len(rows))]
    assert losses(toy_task(), model, rows) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert losses(toy_task(), model, rows.select([])).tolist() == []


def test_exposure_of_phrases_that_a_model_never_saw_is_what_chance_gives(by_heart: tuple[Path, Dataset]) -> None:
    model, rows = by_heart
    canaries = make_canaries(6, references=15, seed=3)
    found = exposure(toy_task(), model, canaries, plant(toy_task(), rows, canaries))
    assert len(found.bits) == 6
    assert found.most == 4.0
    assert 0.9 < found.expected < 1.6
    assert all(0 <= b <= found.most for b in found.bits)
    assert not any(p in f"{found}{found.to_json()}" for p in canaries.planted)
    with pytest.raises(ColumnError, match="contain no canary"):
        exposure(toy_task(), model, canaries, rows)


def test_a_canary_that_stands_often_crowds_out_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    canaries = make_canaries(3, references=3, seed=5)
    often, *others = canaries.planted
    rows = [*toy_rows(6).map(lambda row: {"text": f"{row['text']} {often}"}), *toy_rows(2, seed=1)]
    ends = [""] * 6 + others
    planted = Dataset.from_list([row | {"text": f"{row['text']} {p}"} for row, p in zip(rows, ends, strict=True)])
    asked: list[str] = []

    def looked(task: Task, model: Path, rows: Dataset) -> np.ndarray:
        asked.extend(rows["text"][::4])  # of each place, the row as it is
        return np.ones(len(rows))

    monkeypatch.setattr("hf_synth.privacy.membership.losses", looked)
    exposure(toy_task(), "model", canaries, planted, most_places=4)
    assert [[p in text for p in canaries.planted].index(True) for text in asked] == [0, 1, 2, 0]


def test_canaries_that_nobody_knows_are_called_known_once_in_a_hundred_times() -> None:
    rng = np.random.default_rng(3)
    bits = 8 - np.log2(rng.integers(1, 257, (2_000, 5)))
    found = [Exposure(tuple(b), most=8.0, expected=1.4).known for b in bits.tolist()]
    assert 0.003 < np.mean(found) < 0.02
    assert Exposure((6.0, 8.0, 7.0), most=8.0, expected=1.4).known


def test_exposure_of_a_phrase_with_the_lowest_loss_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    canaries = make_canaries(2, references=31, seed=4)
    planted = plant(toy_task(), toy_rows(5), canaries)

    def known(task: Task, model: Path, rows: Dataset) -> np.ndarray:
        return np.array([0.1 if any(p in t for p in canaries.planted) else 1.0 for t in rows["text"]])

    monkeypatch.setattr("hf_synth.privacy.membership.losses", known)
    assert exposure(toy_task(), "model", canaries, planted).bits == (5.0, 5.0)
    monkeypatch.setattr("hf_synth.privacy.membership.losses", lambda task, model, rows: np.ones(len(rows)))
    tied = exposure(toy_task(), "model", canaries, planted).bits
    assert all(0 < b < 1.1 for b in tied)


def test_what_cannot_be_tested_is_said() -> None:
    text = Task.from_columns("sums", text_columns="text", label_column="summary", kind="text2text", access="open")
    with pytest.raises(TaskError, match="classifiers only"):
        losses(text, "model", toy_rows(3))
