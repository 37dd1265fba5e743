"""The baseline that looks at no text: equal to scikit-learn's, for each kind of task."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from sklearn.dummy import DummyClassifier
from support.tiny import LABELS, toy_rows, toy_task

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.baselines import frequency_baseline


def test_the_most_frequent_label_with_the_shares_as_probabilities() -> None:
    task = toy_task()
    train, test = toy_rows(50, 1), toy_rows(200, 2)
    scores = frequency_baseline(task, train, test)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((50, 1)), train["label"])
    assert scores.values["accuracy"] == pytest.approx(dummy.score(np.zeros((200, 1)), test["label"]))
    assert scores.values["auroc"] == pytest.approx(0.5)
    assert scores.model["name"] == "frequency (prior)"
    low, high = scores.ci95["accuracy"]
    assert low < scores.values["accuracy"] < high


def test_drawn_labels_are_seeded_and_follow_the_shares() -> None:
    task, train, test = toy_task(), toy_rows(30, 1), toy_rows(2_000, 2)
    scores = frequency_baseline(task, train, test, strategy="sampled", n_bootstrap=0)
    assert scores == frequency_baseline(task, train, test, strategy="sampled", n_bootstrap=0)
    shares = np.bincount(train["label"], minlength=3) / 30
    assert np.bincount(scores.predictions, minlength=3) / 2_000 == pytest.approx(shares, abs=0.05)
    with pytest.raises(HfSynthError, match="no frequency baseline"):
        frequency_baseline(task, train, test, strategy="best")


def test_sets_and_texts_have_one_too() -> None:
    sets = toy_task(kind="multi_label", label_column="labels")
    rows = Dataset.from_dict({"text": ["x"] * 4, "labels": [[LABELS[0]], [LABELS[0], LABELS[1]], [LABELS[0]], []]})
    found = frequency_baseline(sets, rows, rows, n_bootstrap=10)
    assert found.per_class[LABELS[0]]["recall"] == 1
    assert found.per_class[LABELS[1]]["recall"] == 0
    texts = toy_task(kind="text2text", labels=())
    rows = Dataset.from_dict({"text": ["x"] * 4, "label": ["sore throat", "cough", "sore throat", "fever"]})
    assert frequency_baseline(texts, rows, rows, n_bootstrap=10).values["exact_match"] == 0.5
    assert frequency_baseline(texts, rows, rows, strategy="sampled", n_bootstrap=10).n == 4
