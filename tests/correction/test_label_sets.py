"""Sets of labels: each label's own noise and threshold, gold that was judged in part, and the column that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from support.kinds import SETS, generated, sets_gold

from hf_synth.correction.augmentation import augment
from hf_synth.correction.correction import correct, correct_with_policy
from hf_synth.correction.crossfit import Rows, opinions_from_gold
from hf_synth.correction.label_sets import METHODS, Sets, choose_for_sets, decide_sets
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.correction.policy import Policy
from hf_synth.errors import ColumnError, RowError, TaskError
from hf_synth.gold.gold import load_gold
from hf_synth.gold.own_table import task_from_table
from hf_synth.task.columns import REASONS, STATUSES
from hf_synth.task.labels import judged_mask, label_matrix, soft_labels
from hf_synth.task.task import Task


def simulated(seed: int, *, wrong: tuple[float, ...], corrector: float, n: int = 2_000, m: int = 300) -> Any:
    """Make sets of labels that are said wrongly or left out at rates of each label's own, and calibrated opinions."""
    rng = np.random.default_rng(seed)
    k = len(wrong)

    def opinions(truth: np.ndarray) -> np.ndarray:
        says = np.where(rng.random(truth.shape) < corrector, truth, 1 - truth)
        return np.where(says == 1, corrector, 1 - corrector)

    truth, gold = (rng.random((n, k)) < 0.4).astype(int), (rng.random((m, k)) < 0.4).astype(int)
    meant = np.where(rng.random((n, k)) < np.array(wrong), 1 - truth, truth)
    return truth, Sets(meant, gold), (opinions(gold), opinions(truth))


@pytest.mark.parametrize("seed", range(3))
def test_each_label_is_corrected_by_its_own_noise(seed: int) -> None:
    truth, sets, opinions = simulated(seed, wrong=(0.02, 0.3, 0.45), corrector=0.85)
    right = {
        m: (decide_sets(sets, m, opinions=opinions).present == truth).mean(0) for m in ("none", "argmax", "posterior")
    }
    assert right["argmax"][0] < right["none"][0] - 0.1  # the corrector is the weaker one for the first label
    assert right["posterior"][0] >= right["none"][0] - 0.01
    assert right["posterior"][1] > right["none"][1] + 0.1
    assert (right["posterior"] >= right["argmax"] - 0.01).all()
    policies = decide_sets(sets, "posterior", opinions=opinions).labels
    said_wrongly = [policies[j].noise[0][1] for j in range(3)]
    assert said_wrongly == sorted(said_wrongly)
    assert said_wrongly == pytest.approx([0.02, 0.3, 0.45], abs=0.08)


def test_what_was_not_judged_counts_neither_way() -> None:
    truth, sets, opinions = simulated(0, wrong=(0.2, 0.2, 0.2), corrector=0.9)
    rng = np.random.default_rng(1)
    masked = np.where(rng.random(sets.truth.shape) < 0.5, -1, sets.truth)
    lies = np.where(masked < 0, 1 - sets.truth, sets.truth)  # what would be read where nobody looked
    honest = decide_sets(Sets(sets.meant, masked), "posterior", opinions=opinions)
    half = decide_sets(Sets(sets.meant, sets.truth), "posterior", opinions=opinions)
    misled = decide_sets(Sets(sets.meant, lies), "posterior", opinions=opinions)
    assert (honest.present == half.present).mean() > 0.95
    assert (honest.present == truth).mean() > (misled.present == truth).mean() + 0.05


def test_a_label_that_judged_gold_knows_one_side_of_is_left_alone() -> None:
    _, sets, opinions = simulated(2, wrong=(0.3, 0.3, 0.3), corrector=0.95)
    gold = sets.truth.copy()
    gold[:, 0] = np.where(gold[:, 0] == 1, -1, 0)  # never there where it was judged
    gold[:, 2] = -1
    for method in set(METHODS) - {"none", "gold_only"}:
        done = decide_sets(Sets(sets.meant, gold), method, opinions=opinions)
        assert set(done.labels) == {1}
        assert (done.present[:, [0, 2]] == (sets.meant[:, [0, 2]] == 1)).all()
    nothing = decide_sets(Sets(sets.meant, np.full_like(gold, -1)), "argmax", opinions=opinions)
    assert set(nothing.status) == {"kept"}
    assert set(nothing.reason) == {"abstained"}


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 30), k=st.integers(2, 4), method=st.sampled_from(METHODS),
)  # fmt: skip
def test_what_comes_out_keeps_its_promises(seed: int, n: int, k: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    sets = Sets(rng.integers(0, 2, (n, k)), rng.integers(-1, 2, (12, k)))
    done = decide_sets(sets, method, opinions=(rng.random((12, k)), rng.random((n, k))))
    assert ((done.probs >= 0) & (done.probs <= 1)).all()
    assert set(done.status) <= set(STATUSES)
    assert set(done.reason) <= set(REASONS)
    assert ((done.weight == 0) == (done.status == "dropped")).all()
    same = (done.present == (sets.meant == 1)).all(1)
    assert same[done.status == "kept"].all()
    assert not same[done.status == "relabelled"].any()
    if method in ("none", "agree", "gold_only"):
        assert same.all()
    if method == "gold_only":
        assert set(done.status) == {"dropped"}
        assert set(done.reason) == {"unused"}
    elif method != "none":
        assert set(done.labels) == set(sets.judged_both_ways(np.arange(12)))


def fitting(seen: list[tuple[int, int]]) -> Callable[[Dataset], Callable[[Dataset], Any]]:
    """Return a corrector that weighs words, label by label, and notes how many rows of each source it saw."""

    def fit(rows: Dataset) -> Callable[[Dataset], Any]:
        sources = list(rows["source"])
        seen.append((sources.count("gold"), sources.count("synthetic")))
        words = CountVectorizer().fit(rows["text"])
        x, targets = words.transform(rows["text"]), soft_labels(SETS, rows)
        both = sparse.vstack([x, x])
        y = np.r_[np.ones(len(rows)), np.zeros(len(rows))]
        heads = [LogisticRegression(C=5.0).fit(both, y, np.r_[targets[:, j], targets[:, 3 + j]]) for j in range(3)]
        return lambda asked: np.stack([h.predict_proba(words.transform(asked["text"]))[:, 1] for h in heads], axis=1)

    return fit


def test_opinions_come_from_models_that_did_not_see_the_row() -> None:
    gold, rows = sets_gold(40, seed=1), generated(SETS, sets_gold(60, seed=3))  # no text is in both
    for method, expected in (("argmax", [(32, 0)] * 5), ("posterior", [(20, 30)] * 2)):
        seen: list[tuple[int, int]] = []
        done, policy = correct_with_policy(SETS, rows, fitting(seen), gold=gold, options=CorrectionOptions(method))
        assert seen == expected
        assert done.features == SETS.corrected_features()
        assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
        assert set(policy.figures["labels"]) == set(SETS.labels)
    every = [np.zeros((0, 0))]

    def learn(gold_at: np.ndarray, rows_at: np.ndarray, targets: np.ndarray) -> Any:
        every.append(gold_at)
        return lambda gold_asked, rows_asked: (
            np.isin(gold_asked, gold_at)[:, None] * np.ones(3), np.ones((len(rows_asked), 3))
        )  # fmt: skip

    truth = label_matrix(SETS, gold).astype(int)
    held, _ = opinions_from_gold(Sets(truth, truth).crossed(), learn, np.arange(40), 0)
    assert (held == 0).all()
    assert isinstance(Sets(truth, truth).crossed(), Rows)


def test_posterior_mends_sets_and_reports_it() -> None:
    truth, gold = sets_gold(240, seed=2), sets_gold(120, seed=1)
    rng = np.random.default_rng(0)
    flips = rng.random((240, 3)) < 0.2
    meant = np.abs(label_matrix(SETS, truth) - flips)
    rows = generated(SETS, truth.map(lambda _, i: {"findings": np.flatnonzero(meant[i]).tolist()}, with_indices=True))
    expected = label_matrix(SETS, truth)
    done, policy = correct_with_policy(SETS, rows, fitting([]), gold=gold, options=CorrectionOptions("auto"))
    right = float((label_matrix(SETS, done) == expected).mean())
    assert policy.figures["auto_why"].startswith(policy.method)
    assert set(policy.figures["auto_scores"]) <= set(METHODS)
    assert policy.method != "none"
    assert right > float((meant == expected).mean()) + 0.05
    for label in SETS.labels:
        told = policy.figures["labels"][label]
        assert told["gold_judged"] == 120
        assert 0 < told["said_wrongly_estimated"] < 0.5


def test_auto_leaves_good_labels_alone_where_the_corrector_is_weak() -> None:
    truth, sets, (of_gold_rows, of_rows) = simulated(3, wrong=(0.02, 0.02, 0.02), corrector=0.6, n=300, m=100)
    rng = np.random.default_rng(0)
    signs = rng.normal(size=(3, 20))  # features that a head can learn each label from
    x_rows, x_gold = truth @ signs + rng.normal(size=(300, 20)), sets.truth @ signs + rng.normal(size=(100, 20))
    from hf_synth.correction.label_sets import linear_heads

    choice = choose_for_sets(sets, linear_heads(x_gold, x_rows, sets), opinions=(of_gold_rows, of_rows))
    assert choice.method != "argmax"
    assert choice.scores["argmax"] < choice.scores[choice.method]
    done = decide_sets(sets, choice.method, opinions=(of_gold_rows, of_rows))
    kept = done.weight > 0
    assert (done.present == truth)[kept].mean() >= (sets.meant == truth).mean() - 0.02


def test_what_is_no_probability_is_one_sentence() -> None:
    gold, rows = sets_gold(20), generated(SETS, sets_gold(10, seed=5))
    for wrong in (np.full((1, 3), np.nan), np.full((1, 2), 0.5), np.full((1, 3), -0.1)):
        with pytest.raises(ColumnError, match="3 numbers between 0 and 1"):
            correct(
                SETS, rows, lambda _, w=wrong: lambda asked: np.tile(w, (len(asked), 1)), gold=gold, method="argmax"
            )  # type: ignore[misc]


# --- the column `judged` --------------------------------------------------------------------------------------------
def table(folder: Path) -> Path:
    file = folder / "train.csv"
    file.write_text(
        "note,findings,judged\n"
        "sore throat,throat,throat;chest\n"
        "lungs clear,,throat;chest;stay\n"
        "admitted,stay,stay\n"
        "nothing was looked at,,\n",
        encoding="utf-8",
    )
    return file


def test_judged_labels_come_from_a_table_and_reach_the_loss(tmp_path: Path) -> None:
    task = task_from_table(table(tmp_path), text_columns=["note"], label_column="findings", kind="multi_label")
    assert task.partly_judged
    assert task.labels == ("chest", "stay", "throat")  # chest was judged, and never there
    gold = load_gold(task, tmp_path)["train"]
    assert gold.features == task.gold_features()
    assert judged_mask(task, gold).tolist() == [[1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 0]]
    targets = soft_labels(task, gold)
    assert targets[0].tolist() == [0, 0, 1, 1, 0, 0]  # the stay was not judged: neither there nor not
    assert targets[3].tolist() == [0] * 6

    synthetic = generated(task, gold.remove_columns("judged"))
    assert "judged" not in task.synthetic_features()
    joined = augment(task, synthetic, gold=gold)
    mask = judged_mask(task, joined)
    for row, told in zip(joined, mask.tolist(), strict=True):
        expected = judged_mask(task, gold)[gold["id"].index(row["id"])] if row["source"] == "gold" else np.ones(3)
        assert told == expected.tolist()
    assert "judged" not in augment(task, synthetic, gold=gold.remove_columns("judged")).column_names


def test_an_exported_folder_keeps_what_was_judged(tmp_path: Path) -> None:
    from hf_synth.task.folders import write_stage
    from hf_synth.task.scripts import load_task

    (tmp_path / "raw").mkdir()
    lines = ["note,findings,judged"] + [f"note {i},{'a' if i % 2 else ''},a{';b' if i % 3 else ''}" for i in range(40)]
    (tmp_path / "raw" / "notes.csv").write_text("\n".join([*lines, "note x,b,b"]), encoding="utf-8")
    task = task_from_table(
        tmp_path / "raw" / "notes.csv", text_columns=["note"], label_column="findings", kind="multi_label"
    )
    gold = load_gold(task, tmp_path / "raw" / "notes.csv")
    write_stage(task, gold, tmp_path / "gold", stage="gold", seed=0)
    again = load_task(tmp_path / "gold")
    assert again.partly_judged
    read = load_gold(again, tmp_path / "gold")
    assert read["train"].features == gold["train"].features
    assert (judged_mask(again, read["train"]) == judged_mask(task, gold["train"])).all()
    assert judged_mask(again, read["train"]).min() == 0


def test_a_label_that_is_there_was_judged(tmp_path: Path) -> None:
    file = tmp_path / "notes.csv"
    file.write_text("note,findings,judged\nsore throat,throat,chest\n", encoding="utf-8")
    task = task_from_table(file, text_columns=["note"], label_column="findings", kind="multi_label")
    with pytest.raises(RowError, match="row 1: .*does not name") as caught:
        load_gold(task, file)
    assert "sore" not in str(caught.value)
    with pytest.raises(TaskError, match="partly judged"):
        Task.from_columns("x", text_columns="t", label_column="y", labels=["a", "b"], partly_judged=True)
