"""Subgroups: named by columns or notes, scored beside the others, flips counted. Every note is written here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from sklearn import metrics as sk
from support.tiny import LABELS, toy_task

from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.subgroups import (
    FEW_PATIENTS,
    find_subgroups,
    flips_by_subgroup,
    score_subgroups,
    subgroup_table,
    swap_counterfactual,
)

TASK = toy_task()
NOTES = ["72-year-old woman, she is sore.", "54M with pain, he is fine.", "Nothing is said of the patient."]


def notes(n: int, **columns: Any) -> Dataset:
    """Three notes in turn, two of a patient."""
    plain = {
        "text": [NOTES[i // 2 % 3] for i in range(n)],
        "label": [LABELS[i % 3] for i in range(n)],
        "group": [f"p{i // 2}" for i in range(n)],
    }
    return Dataset.from_dict(plain | columns)


def test_subgroups_are_read_in_notes_or_told_by_columns() -> None:
    found = find_subgroups(TASK, notes(6))
    assert found["sex"] == ["female"] * 2 + ["male"] * 2 + ["unknown"] * 2
    assert found["age"] == ["65+"] * 2 + ["45-64"] * 2 + ["unknown"] * 2
    told = find_subgroups(TASK, notes(6, gender=["M", "f", "Male", None, "X", ""], age=[70, 17.5, 18, 64, 65, None]))
    assert told["sex"] == ["male", "female", "male", "unknown", "x", "unknown"]
    assert told["age"] == ["65+", "0-17", "18-44", "45-64", "65+", "unknown"]
    by_site = find_subgroups(TASK, notes(3, site=["A", "B", "A"]), ["site"])
    assert by_site["site"] == ["a", "b", "a"]
    assert by_site["sex"][0] == "female"
    with pytest.raises(ColumnError, match="ward"):
        find_subgroups(TASK, notes(3), {"ward": "ward"})


def test_each_subgroup_has_the_scores_of_its_own_rows() -> None:
    dataset = notes(240)
    rng = np.random.default_rng(0)
    truth = np.array([i % 3 for i in range(240)])
    female = np.array([i // 2 % 3 == 0 for i in range(240)])
    said = np.where(female, truth, rng.integers(3, size=240))  # right on women only
    probs = np.eye(3)[said] * 0.7 + 0.1
    found = {(s.attribute, s.name): s for s in score_subgroups(TASK, dataset, probs, n_bootstrap=300)}
    assert set(found) >= {("sex", "female"), ("sex", "male"), ("sex", "unknown"), ("race", "unknown")}
    women, men = found["sex", "female"], found["sex", "male"]
    assert (women.n, women.patients, women.values["macro_f1"]) == (80, 40, 1)
    rows = ~female & (np.arange(240) // 2 % 3 == 1)
    assert men.values["macro_f1"] == pytest.approx(sk.f1_score(truth[rows], said[rows], average="macro"))
    low, high = men.ci95["accuracy"]
    assert low < men.values["accuracy"] < high
    assert 0.9 < women.ci95["accuracy"][0] < women.ci95["accuracy"][1] == 1  # 80 of 80 are right
    assert women.no_interval["macro_f1"] == f"too few rows of {LABELS[2]!r}: 0, and 5 are needed"
    gap, low, high = women.behind["accuracy"]
    assert gap == pytest.approx(1 - (said == truth)[~female].mean())
    assert 0 < low < gap < high
    assert men.behind["accuracy"][2] < 0
    assert "macro_f1" not in found["race", "unknown"].behind  # nobody else is there
    assert score_subgroups(TASK, dataset, probs, n_bootstrap=300) == list(found.values())
    table = subgroup_table(list(found.values()), ["macro_f1", "accuracy"])
    assert "| sex       | female" in table
    assert len(table.splitlines()) == 2 + len(found)


def test_a_subgroup_of_few_patients_has_no_interval() -> None:
    dataset = notes(60, site=["few"] * (2 * FEW_PATIENTS - 2) + ["many"] * (62 - 2 * FEW_PATIENTS))
    found = score_subgroups(TASK, dataset, np.zeros(60, dtype=int), columns=["site"], n_bootstrap=50)
    few = next(s for s in found if s.name == "few")
    assert (few.patients, few.ci95, few.behind) == (FEW_PATIENTS - 1, {}, {})
    assert set(few.no_interval.values()) == {"fewer than 10 patients"}
    assert few.values["accuracy"] == pytest.approx(1 / 3)
    assert next(s for s in found if s.name == "many").ci95


def test_flips_are_counted_by_subgroup() -> None:
    n = 180
    woman = [i // 2 % 3 == 0 for i in range(n)]
    status = ["relabelled" if w and i % 2 else "kept" for i, w in enumerate(woman)]
    status[2], status[8] = "dropped", "rejected"
    sources = ["synthetic"] * n
    sources[14] = "gold"
    dataset = notes(n, label_status=status, source=sources)
    found = {(s.attribute, s.name): s for s in flips_by_subgroup(TASK, dataset, n_bootstrap=200)}
    women, men = found["sex", "female"], found["sex", "male"]
    assert women.values == {"relabelled": 0.5, "dropped": 0}
    assert men.values == {"relabelled": 0, "dropped": pytest.approx(1 / 58)}  # one was rejected, one is gold
    low, high = women.ci95["relabelled"]  # half of each patient's notes: no patient differs, yet 60 notes are few
    assert 0.37 < low < 0.39
    assert high == pytest.approx(1 - low)
    assert men.ci95["relabelled"][0] == 0
    assert men.ci95["relabelled"][1] > 0.05  # none of 58 notes
    assert women.behind["relabelled"][1] > 0
    with pytest.raises(ColumnError, match="no row was corrected"):
        flips_by_subgroup(TASK, notes(3, label_status=["rejected"] * 3))


def test_a_model_that_reads_the_patient_flips_when_the_patient_is_swapped() -> None:
    dataset = notes(90)

    def by_sex(rows: Dataset) -> np.ndarray:
        return np.eye(3)[[1 if " man" in t or "M with" in t else 0 for t in rows["text"]]]

    swapped = {s.name: s for s in swap_counterfactual(TASK, by_sex, dataset, "sex", n_bootstrap=100)}
    assert set(swapped) == {"all", "female", "male"}  # of the others nothing can be swapped
    assert (swapped["all"].n, swapped["all"].values) == (60, {"flipped": 1, "moved": 1})
    by_age = swap_counterfactual(TASK, by_sex, dataset, "age", n_bootstrap=100)
    assert [s.values["flipped"] for s in by_age] == [0, 0, 0]
    assert swap_counterfactual(TASK, by_sex, dataset, "race") == []
    labels = swap_counterfactual(TASK, lambda rows: by_sex(rows).argmax(1), dataset, "sex", n_bootstrap=0)
    assert labels[0].values == {"flipped": 1}
    with pytest.raises(TaskError, match="choose one of"):
        swap_counterfactual(TASK, by_sex, dataset, "height")
    with pytest.raises(TaskError, match="writes texts"):
        swap_counterfactual(toy_task(kind="text2text", labels=()), by_sex, dataset)
    with pytest.raises(ColumnError, match="a prediction each"):
        swap_counterfactual(TASK, lambda rows: np.zeros(3), dataset)


def test_sets_of_labels_have_subgroups_too() -> None:
    task = toy_task(kind="multi_label", label_column="labels")
    dataset = notes(
        60, labels=[[LABELS[i % 3]] for i in range(60)], judged=[None if i % 6 else [LABELS[0]] for i in range(60)]
    )
    probs = np.eye(3)[[i % 3 for i in range(60)]] * 0.8 + 0.1
    found = score_subgroups(task, dataset, probs, n_bootstrap=50)
    assert {s.values["micro_f1"] for s in found} == {1}
    flips = swap_counterfactual(task, lambda rows: np.full((len(rows), 3), 0.2), dataset, n_bootstrap=20)
    assert flips[0].values["flipped"] == 0
