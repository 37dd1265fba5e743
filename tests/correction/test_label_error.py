"""Promises about wrong labels: exact by enumeration, kept on any population, and continued after a kill."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic

from hf_synth.cli.cli import main
from hf_synth.correction.audited import read_audited
from hf_synth.correction.description import describe
from hf_synth.correction.label_error import Plan, Sample, draw, expected_rows, plan, sample_size
from hf_synth.correction.promise import (
    draw_sample,
    label_certainties,
    promise,
    sample_from_json,
    sample_to_json,
    with_labels,
)
from hf_synth.errors import ColumnError, TaskError
from hf_synth.gold.adoption import read_dataset
from hf_synth.models.linear import linear_fit
from hf_synth.task.folders import read_manifest, write_stage
from hf_synth.task.task import Task


def labelled(sample: Sample, wrong: np.ndarray) -> tuple[Plan, dict[int, int], int]:
    """Let a person label all rows that are asked for; return the plan, their labels and the wrong labels that stay."""
    machine, truth = np.zeros(len(wrong), int), wrong.astype(int)
    given: dict[int, int] = {}
    for _ in range(3):
        now = plan(sample, machine, given)
        given |= {int(i): int(truth[i]) for i in now.look}
    assert now.stage == "done"
    assert not len(now.look)
    return now, given, int(wrong.sum() - sum(given.values()))


# --- exact ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rows", "allowed", "stop", "alpha"), [(6, 1, 1, 0.2), (6, 1, 2, 0.3), (6, 2, 2, 0.4)])
def test_the_sample_is_the_smallest_that_keeps_the_promise(rows: int, allowed: int, stop: int, alpha: float) -> None:
    """Every draw of every population is enumerated, with the wrong rows at any place of the order."""
    n = sample_size(rows, allowed, stop, 1 - alpha)
    assert n is not None

    def worst(n: int) -> float:
        draws = [np.array(drawn, int) for drawn in itertools.combinations(range(rows), n)]
        shares = []
        for wrong in itertools.product((0, 1), repeat=rows):
            broken = 0
            for drawn in draws:
                sample = Sample(np.arange(rows), drawn, rows, allowed, stop, allowed / rows, 1 - alpha)
                given = {int(i): wrong[i] for i in drawn}
                rest = plan(sample, np.zeros(rows, int), given)
                broken += sum(wrong) - sum((given | {int(i): wrong[i] for i in rest.look}).values()) > allowed
            shares.append(broken / len(draws))
        return max(shares)

    assert worst(n) <= alpha + 1e-9
    assert worst(n - 1) > alpha


def test_a_sample_size_by_hand() -> None:
    # one wrong row may stay: of two wrong rows at least one is drawn, of 10 rows: 1 - C(10 - n, 2) / C(10, 2)
    chance = {n: (10 - n) * (9 - n) / 90 for n in range(1, 10)}
    assert sample_size(10, 1, 1, 0.95) == next(n for n in chance if chance[n] <= 0.05 + 1e-12) == 8
    assert sample_size(10, 1, 1, 0.5) == 3
    assert sample_size(10, 1, 9, 0.5) == 9, "all rows are wrong, and nine are found"
    assert sample_size(10, 1, 10, 0.5) is None, "there are no 11 wrong rows of 10"


def test_the_bound_of_the_labels_as_they_are_is_exact() -> None:
    """Whatever is wrong, the statement about all rows after the sample fails in 1% of the draws at most."""
    rows, n, alpha = 40, 12, 0.05
    for wrong_rows in (0, 1, 5, 12, 25, 40):
        wrong = np.zeros(rows, bool)
        wrong[:wrong_rows] = True
        chances = []
        for found in range(min(n, wrong_rows) + 1):
            ways = _choose(wrong_rows, found) * _choose(rows - wrong_rows, n - found)
            if not ways:
                continue
            drawn = np.r_[np.arange(found), wrong_rows + np.arange(n - found)]
            sample = Sample(np.arange(rows), drawn, rows, 2, 40, 0.05, 1 - alpha)
            now = plan(sample, np.zeros(rows, int), {int(i): int(wrong[i]) for i in drawn})
            assert now.found == found
            assert now.now is not None
            chances.append(ways * (now.now < wrong_rows - found) / _choose(rows, n))
        assert sum(chances) <= 0.2 * alpha


def _choose(n: int, k: int) -> int:
    import math

    return math.comb(n, k) if 0 <= k <= n else 0


def errors(kind: str, rng: np.random.Generator, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Make confidences and wrong labels of a population."""
    sure = np.sort(rng.random(n) * 0.5 + 0.5)[::-1]
    rate = {
        "calibrated": 1 - sure,
        "overconfident": np.full(n, 0.3),
        "the surest are wrong": np.where(np.arange(n) < 80, 0.9, 0.02),
        "in one lump": np.where((np.arange(n) > 200) & (np.arange(n) < 260), 1.0, 0.0),
        "few": np.full(n, 0.045),
        "all equal": np.full(n, 0.1),
    }[kind]
    return (np.full(n, 0.9) if kind == "all equal" else sure), rng.random(n) < rate


@pytest.mark.parametrize(
    "kind", ["calibrated", "overconfident", "the surest are wrong", "in one lump", "few", "all equal"]
)
def test_the_promise_is_kept_whatever_the_errors(kind: str) -> None:
    sure, wrong = errors(kind, np.random.default_rng(5))
    kept, seen, draws = 0, [], 150
    for seed in range(draws):
        sample = draw(sure, error=0.05, confidence=0.9, seed=seed)
        done, given, left = labelled(sample, wrong)
        kept += left <= 0.05 * len(wrong)
        assert done.unseen == len(wrong) - len(given)
        assert done.bound is not None
        assert done.bound <= 0.05 * len(wrong)
        seen.append(len(given) / len(wrong))
    assert kept >= 0.9 * draws - 2 * np.sqrt(draws * 0.09)  # two standard errors below
    if kind in ("calibrated", "few", "all equal"):
        assert np.mean(seen) < 0.85, "it saves rows"


def test_errors_that_just_break_the_goal_break_the_promise_about_as_often_as_allowed() -> None:
    """The promise is no blanket refusal: where errors are many the rule fails nearly as often as it may."""
    wrong = np.random.default_rng(0).random(1_000) < 0.25
    sure = np.linspace(1, 0.5, 1_000)
    broken = np.mean([labelled(draw(sure, error=0.05, confidence=0.7, seed=s), wrong)[2] > 50 for s in range(300)])
    assert 0.12 < broken < 0.24 + 0.05


# --- sequential use ---------------------------------------------------------------------------------------------------
def test_labels_may_come_one_by_one_and_in_any_order() -> None:
    sure, wrong = errors("calibrated", np.random.default_rng(1), 200)
    sample, machine = draw(sure, error=0.1, seed=3), np.zeros(200, int)
    at_once, given, _ = labelled(sample, wrong)
    order = list(given)
    random.Random(0).shuffle(order)
    so_far: dict[int, int] = {}
    stages = []
    for i in order:
        now = plan(sample, machine, so_far)
        assert not set(now.look.tolist()) & set(so_far)
        assert set(now.look.tolist()) <= set(order), "nothing else is ever asked for"
        stages.append(now.stage)
        so_far[i] = given[i]
    assert plan(sample, machine, so_far).bound == at_once.bound
    assert stages[0] == "sample"
    assert "done" not in stages, "the promise holds with the last row, not before"
    first = plan(sample, machine, {})
    assert first.look.tolist() == sample.drawn.tolist()
    assert (first.unseen, first.bound, first.now) == (None, None, None)


def test_the_rest_is_asked_for_from_the_least_sure_on() -> None:
    sure, wrong = errors("calibrated", np.random.default_rng(1), 200)
    sample = draw(sure, error=0.1, seed=3)
    rest = plan(sample, np.zeros(200, int), {int(i): int(wrong[i]) for i in sample.drawn})
    assert rest.stage == "rest"
    assert (np.diff(sure[rest.look]) >= 0).all()
    assert rest.keep is not None
    assert sure[rest.look].max() <= sure[sample.order[: rest.keep]].min()
    assert rest.sure_found == sample.stop - 1
    assert rest.looked == len(sample.drawn)


def test_other_rows_that_were_labelled_count_as_right_and_move_no_threshold() -> None:
    sure, wrong = errors("calibrated", np.random.default_rng(2), 300)
    sample, machine = draw(sure, error=0.1, seed=1), np.zeros(300, int)
    given = {int(i): int(wrong[i]) for i in sample.drawn}
    rest = plan(sample, machine, given)
    more = {int(i): int(wrong[i]) for i in sample.order[: rest.keep] if int(i) not in given}
    assert rest.unseen == len(more)
    after = plan(sample, machine, given | more)
    assert (after.keep, after.look.tolist()) == (rest.keep, rest.look.tolist())
    assert after.unseen == after.bound == 0
    assert (after.sure, after.sure_found) == (rest.sure, rest.sure_found), "the estimate is the sample's"


def test_rows_that_a_person_labelled_before_count_as_right() -> None:
    sure, known = np.linspace(1, 0.5, 100), np.arange(100) >= 50
    sample = draw(sure, error=0.05, known=known, seed=0)
    assert (sample.rows, sample.allowed, len(sample.order)) == (100, 5, 50)
    assert sample.drawn.max() < 50
    _, given, _ = labelled(sample, np.arange(100) % 2 == 0)
    assert max(given) < 50
    assert draw(sure, error=0.6, known=known).drawn.size == 0, "60 of 100 may be wrong, and 50 are right"


# --- where there is nothing to save -----------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [0.0, 0.0009])
def test_no_error_at_all_means_to_look_at_all_rows(error: float) -> None:
    sample = draw(np.linspace(1, 0.5, 1_000), error=error)
    now = plan(sample, np.zeros(1_000, int), {})
    assert (now.stage, len(now.look), now.unseen, now.bound) == ("rest", 1_000, 0, 0)
    assert labelled(sample, np.ones(1_000, bool))[2] == 0


def test_any_error_at_all_needs_no_look() -> None:
    now = plan(draw(np.ones(50), error=1.0), np.zeros(50, int), {})
    assert (now.stage, len(now.look), now.unseen, now.bound) == ("done", 0, 50, 50)


def test_all_rows_wrong_means_to_look_at_almost_all() -> None:
    for seed in range(20):
        done, given, left = labelled(draw(np.linspace(1, 0.5, 500), error=0.05, seed=seed), np.ones(500, bool))
        assert len(given) >= 475 - 5
        assert left <= 25
        assert done.bound is not None
        assert done.bound >= left


def test_no_row_wrong_means_to_look_at_the_sample_alone() -> None:
    done, given, _ = labelled(draw(np.linspace(1, 0.95, 1_000), error=0.05, seed=0), np.zeros(1_000, bool))
    assert len(given) < 350
    assert done.keep == 1_000
    assert done.found == 0
    assert done.bound is not None
    assert done.bound <= 50


def test_how_many_rows_may_follow_is_known_before_the_review() -> None:
    """Wrong labels lie evenly: the mean number of rows that people look at is the one that was expected."""
    for share in (0.05, 0.1, 0.3):
        looked, expected = [], 0
        for seed in range(40):
            wrong = np.random.default_rng(seed).random(1_000) < share
            sample = draw(np.full(1_000, 0.95), error=0.05, seed=seed)
            asked = plan(sample, np.zeros(1_000), {int(at): int(wrong[at]) for at in sample.drawn})
            looked.append(asked.looked + len(asked.look))
            expected = expected_rows(sample, share)
        assert abs(float(np.mean(looked)) - expected) < 60
        assert len(sample.drawn) <= expected <= 1_000
    assert expected_rows(sample, 0.0) == len(sample.drawn)
    assert expected_rows(draw([0.9] * 10, error=0.0), 0.0) == 10


def test_ties_keep_their_order_and_the_draw_is_seeded() -> None:
    tied = draw(np.repeat([0.9, 0.6], 100), error=0.1, seed=4)
    assert tied.order.tolist() == list(range(200))
    assert tied.drawn.tolist() == draw(np.repeat([0.9, 0.6], 100), error=0.1, seed=4).drawn.tolist()
    assert tied.drawn.tolist() != draw(np.repeat([0.9, 0.6], 100), error=0.1, seed=5).drawn.tolist()
    assert len(set(tied.drawn.tolist())) == len(tied.drawn)


def test_a_share_of_rows_is_not_rounded_down() -> None:
    assert draw(np.ones(100), error=0.29).allowed == 29


@pytest.mark.parametrize(
    ("sure", "more", "says"),
    [
        ([0.5, np.nan], {"error": 0.1}, "finite number for each row"),
        ([[0.5]], {"error": 0.1}, "finite number for each row"),
        ([0.5], {"error": 0.1, "known": [True, False]}, "finite number for each row"),
        ([0.5], {"error": 1.5}, "between 0 and 1, e.g. 0.05; got 1.5"),
        ([0.5], {"error": 0.1, "confidence": 1.0}, "confidence of a promise"),
    ],
)
def test_what_cannot_be_promised_is_one_sentence(sure: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ColumnError, match=says):
        draw(sure, **more)


def test_labels_of_other_rows_are_refused() -> None:
    sample = draw(np.ones(10), error=0.1)
    for label, given in ((np.zeros(9, int), {}), (np.zeros(10, int), {10: 1}), (np.zeros(10, int), {-1: 1})):
        with pytest.raises(ColumnError, match="drawn of 10 rows"):
            plan(sample, label, given)


def test_a_million_rows_take_a_moment() -> None:
    sure = np.linspace(1, 0.5, 1_000_000)
    sample = draw(sure, error=0.05)
    assert 0 < len(sample.drawn) < 400_000
    rest = plan(sample, np.zeros(1_000_000, int), {int(i): int(i % 7 == 0) for i in sample.drawn})
    assert rest.stage == "rest"


# --- rows of a dataset ------------------------------------------------------------------------------------------------
def corrected(n: int = 120, seed: int = 0) -> tuple[Dataset, dict[str, int]]:
    """Return corrected rows of which the least confident are wrong oftener, and their true labels by id."""
    rng, rows, truth = random.Random(seed), [], {}
    for i, row in enumerate(toy_rows(n, 3)):
        sure = round(0.99 - 0.5 * i / n, 4)
        said = row["label"] if rng.random() < sure else (row["label"] + 1) % 3
        truth[f"s{i}"] = row["label"]
        status = "dropped" if i % 10 == 9 else "rejected" if i % 10 == 8 else "kept"
        probs = [(1 - sure) / 2] * 3
        probs[said] = sure
        row |= {"id": f"s{i}", "label": said, "llm_label": said, "label_status": status, "reason": "posterior_agrees"}
        rows.append(row | {"label_probs": probs, "label_confidence": sure, "weight": float(status == "kept")})
    features = TASK.corrected_features()
    data = Dataset.from_list([{**dict.fromkeys(features), **row} for row in rows], features=features)
    return data, truth


def test_a_promise_of_a_dataset_counts_the_rows_that_are_used() -> None:
    rows, truth = corrected()
    sample = draw_sample(TASK, rows, error=0.1, seed=2)
    first = promise(TASK, rows, sample)
    assert sample.rows == 96
    assert first.look.column_names == ["id", "llm_label", "text", "label", "inclusion_probability", "stratum"]
    assert set(first.look["label"]) == {""}
    assert set(first.look["inclusion_probability"]) == {len(sample.drawn) / 96}
    assert "Nothing is promised yet" in str(first)
    assert f"label the {len(sample.drawn)} of them that have no label" in str(first)
    given = {id: truth[id] for id in first.look["id"]}
    second = promise(TASK, rows, sample, given)
    assert "least sure rows" in str(second)
    both = second.look
    assert both["label"][: len(given)] == [TASK.labels[truth[id]] for id in both["id"][: len(given)]]
    assert set(both["label"][len(given) :]) == {""}
    assert set(both["stratum"]) == {"surer", "least sure"}
    for probability, stratum in zip(both["inclusion_probability"], both["stratum"], strict=True):
        assert probability == (1.0 if stratum == "least sure" else len(sample.drawn) / 96)
    done = promise(TASK, rows, sample, {id: truth[id] for id in both["id"]})
    assert done.holds
    figures = done.figures
    assert (figures["promise"], figures["promise_error"], figures["promise_confidence"]) == ("holds", 0.1, 0.95)
    assert figures["promise_looked_at"] + figures["promise_unseen"] == figures["promise_labels"] == 96
    assert figures["promise_wrong_at_most"] <= 0.1
    assert done.plan.bound is not None
    assert 0 <= figures["promise_wrong_at_most"] - done.plan.bound / 96 < 1e-4
    assert 0 <= figures["promise_unseen_wrong_at_most"] - done.plan.bound / figures["promise_unseen"] < 1e-4
    assert f"{figures['promise_unseen']:,} rows stay that nobody looks at" in str(done)
    assert json.loads(json.dumps(figures)) == figures


def test_a_rejected_row_counts_as_a_wrong_label_and_is_dropped_in_the_end() -> None:
    rows, _ = corrected()
    sample = draw_sample(TASK, rows, error=0.1, seed=2)
    asked = list(promise(TASK, rows, sample).look["id"])
    as_found = {id: TASK.labels[label] for id, label in zip(rows["id"], rows["label"], strict=True)}
    rejected = asked[:1]
    given = {id: as_found[id] for id in asked[1:]}  # every other label is right
    state = promise(TASK, rows, sample, given, rejected)
    assert (state.rejected, state.plan.found) == (1, 1)
    as_wrong = promise(TASK, rows, sample, given | {asked[0]: _other(as_found[asked[0]])})
    assert state.plan.look.tolist() == as_wrong.plan.look.tolist(), "it counts as a wrong label"
    assert (state.plan.keep, state.plan.bound) == (as_wrong.plan.keep, as_wrong.plan.bound)
    look = {row["id"]: row for row in state.look}
    assert (look[asked[0]]["label"], look[asked[0]]["decision"]) == ("", "reject")
    assert {row["decision"] for id, row in look.items() if id not in rejected} == {""}
    done = promise(TASK, rows, sample, {id: as_found[id] for id in look if id not in rejected} | given, rejected)
    assert done.holds
    assert done.figures["promise_rejected"] == 1
    assert done.plan.bound is not None
    assert 0 <= done.figures["promise_wrong_at_most"] - done.plan.bound / 95 < 1e-4, "of the rows that are left"
    assert "1 rejected row was dropped: of the 95 labels that stay at most" in str(done)
    most = dataclasses.replace(done, rejected=60)
    assert most.figures["promise_wrong_at_most"] > 0.1
    share = f"{100 * most.figures['promise_wrong_at_most']:.4g}%"
    assert f"of the 36 labels that stay at most {share} are wrong, more than the 10% of all" in str(most)
    after = with_labels(TASK, rows, given, rejected)
    row = next(row for row in after if row["id"] == asked[0])
    assert (row["label_status"], row["reason"], row["weight"]) == ("dropped", "unusable", 0)
    with pytest.raises(ColumnError, match="1 audited ids are not among the used rows"):
        promise(TASK, rows, sample, given, ["nobody"])


def _other(label: str) -> str:
    return next(other for other in TASK.labels if other != label)


def test_labels_that_people_gave_are_written_as_audited_rows() -> None:
    rows, truth = corrected()
    given = {id: TASK.labels[truth[id]] for id in ("s0", "s119"[:3], "s97")}
    after = with_labels(TASK, rows, given)
    assert after.features == rows.features
    for before, row in zip(rows, after, strict=True):
        if row["id"] not in given:
            assert row == before
            continue
        assert row["label"] == truth[row["id"]]
        assert row["label_status"] == ("kept" if row["llm_label"] == row["label"] else "relabelled")
        assert (row["reason"], row["label_confidence"], row["weight"]) == ("audited", 1.0, 1.0)
        assert row["label_probs"] == [float(i == row["label"]) for i in range(3)]
    assert draw_sample(TASK, after, error=0.1).order.size == draw_sample(TASK, rows, error=0.1).order.size - 3
    assert with_labels(TASK, rows, {})[:] == rows[:]


def test_rows_that_changed_since_the_draw_are_refused() -> None:
    rows, _ = corrected()
    sample = draw_sample(TASK, rows, error=0.1)
    plain = json.loads(json.dumps(sample_to_json(TASK, rows, sample)))
    again = sample_from_json(TASK, rows, plain)
    assert again.order.tolist() == sample.order.tolist()
    assert again.drawn.tolist() == sample.drawn.tolist()
    assert (again.rows, again.allowed, again.stop) == (sample.rows, sample.allowed, sample.stop)
    other = rows.map(lambda row: {"label": (row["label"] + 1) % 3}, features=rows.features)
    for wrong in (other, rows.select(range(50)), rows.filter(lambda row: row["id"] != "s3")):
        with pytest.raises(ColumnError, match="not those that the sample of the promise was drawn of"):
            sample_from_json(TASK, wrong, plain)
    for broken in ({}, {**plain, "order": 3}, {**plain, "drawn": ["nobody"]}):
        with pytest.raises(ColumnError, match="correct them again into a new folder"):
            sample_from_json(TASK, rows, broken)
    with pytest.raises(ColumnError, match="drawn of 96 used rows, the dataset has"):
        promise(TASK, rows.select(range(50)), sample)


def test_rows_without_a_promise_are_one_sentence() -> None:
    rows, _ = corrected()
    sample = draw_sample(TASK, rows, error=0.1)
    with pytest.raises(ColumnError, match="1 audited ids are not among the used rows"):
        promise(TASK, rows, sample, {"s0": 1, "s9": 0})  # s9 was dropped
    with pytest.raises(ColumnError, match="an audited label is not one of the task's labels"):
        promise(TASK, rows, sample, {"s0": "moderate"})
    with pytest.raises(ColumnError, match="1 audited ids are not among the used rows"):
        with_labels(TASK, rows, {"nobody": 1})
    with pytest.raises(ColumnError, match="no label to promise"):
        draw_sample(TASK, rows.filter(lambda row: row["label_status"] == "dropped"), error=0.1)
    bare = rows.map(lambda row: {"label_confidence": None}, features=rows.features)
    with pytest.raises(ColumnError, match="have no label_confidence"):
        draw_sample(TASK, bare, error=0.1)
    sets = Task.from_columns(
        "sets", text_columns="text", label_column="label", labels=("a", "b"), access="open", kind="multi_label"
    )
    with pytest.raises(TaskError, match="serves single_label tasks only"):
        draw_sample(sets, rows, error=0.1)


def test_hard_decisions_are_ordered_by_a_linear_head() -> None:
    rows, truth = corrected()
    gold = toy_rows(60, 1)
    assert label_certainties(TASK, rows, gold).tolist() == pytest.approx(rows["label_confidence"])
    hard = rows.map(lambda row: {"label_confidence": 1.0}, features=rows.features)
    sure = label_certainties(TASK, hard, gold)
    probs = linear_fit(TASK, gold, hard.filter(lambda row: row["label_status"] == "kept"))(gold)(hard)
    used = [i for i, row in enumerate(hard) if row["label_status"] == "kept"]
    right = np.array([hard[i]["label"] == truth[hard[i]["id"]] for i in used])
    assert sure[used].tolist() == pytest.approx([probs[i][hard[i]["label"]] for i in used])
    assert sure[used][right].mean() > sure[used][~right].mean() + 0.2
    audited = with_labels(TASK, rows, {"s0": truth["s0"]})
    assert label_certainties(TASK, audited, gold)[0] == 1.0


# --- the verb ---------------------------------------------------------------------------------------------------------
class Clinic:
    """Folders of gold and of rows whose labels are wrong in 30% of the cases, and a person who knows better."""

    def __init__(self, tmp: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rng, rows = random.Random(0), []
        self.truth: dict[str, int] = {}
        for i, row in enumerate(toy_rows(400, 2)):
            meant = row["label"] if rng.random() > 0.3 else rng.randrange(3)
            self.truth[f"s{i}"] = row["label"]
            rows.append({**row, "label": meant, "llm_label": meant, "id": f"s{i}"})
        self.tmp, self.base, self.out, self.capsys = tmp, base, tmp / "out", capsys
        write_stage(TASK, toy_rows(60, 1), tmp / "gold", stage="gold")
        write_stage(TASK, as_synthetic(rows), tmp / "rows", stage="generate")

    def correct(self, *more: Any, error: float = 0.05) -> tuple[int, Any, str]:
        line = ["correct", self.tmp / "gold", self.tmp / "rows", "--gold", self.tmp / "gold", "-q", "--json"]
        line += ["--base-model", self.base]
        code = main([str(w) for w in (*line, "--out", self.out, "--method", "posterior", "--error", error, *more)])
        said = self.capsys.readouterr()
        return code, json.loads(said.out.splitlines()[-1]) if code == 0 else None, said.out + said.err

    def fill(self, file: str | Path, most: int = 10**6, wrong: Mapping[str, str] | None = None) -> None:
        with Path(file).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            if not row["label"] and most > 0:
                row["label"], most = TASK.labels[self.truth[row["id"]]], most - 1
            row |= {"label": (wrong or {}).get(row["id"], row["label"])}
        with Path(file).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture
def clinic(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Clinic:
    gold = toy_rows(60, 1)
    monkeypatch.setattr("hf_synth.models.training.trainer_fit", lambda task, **_: linear_fit(task, gold))
    return Clinic(tmp_path, base, capsys)


def test_the_verb_goes_on_until_the_promise_holds(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    code, first, said = clinic.correct()
    assert code == 0
    assert "Nothing is promised yet" in said
    assert first["figures"]["promise"] == "not yet: a sample needs labels"
    assert first["to_look_at"] > 20
    frozen = (clinic.out / "train.parquet").read_bytes()
    file = Path(first["file"])
    assert file == clinic.out / ".hf_synth" / "look_at_1.csv"
    assert file.stat().st_mode & 0o077 == 0

    def no_corrector(*_: Any, **__: Any) -> Any:
        raise AssertionError("the rows are not corrected anew")

    monkeypatch.setattr("hf_synth.correction.correction.correct_with_policy", no_corrector)
    code, nothing, said = clinic.correct("--audited", file)
    assert (nothing["to_look_at"], nothing["file"]) == (first["to_look_at"], str(file)), "all rows are blank"
    clinic.fill(file, most=7)
    code, some, said = clinic.correct("--audited", file)
    assert (some["to_look_at"], some["file"]) == (first["to_look_at"] - 7, str(file))
    code, again, said = clinic.correct()  # without labels: the same file, whatever a person wrote into it
    assert again["file"] == str(file)
    assert sum(label != "" for label in _column(file, "label")) == 7
    clinic.fill(file)
    code, second, said = clinic.correct("--audited", file)
    assert second["figures"]["promise"] == "not yet: more rows need labels"
    assert "sampled rows had a wrong label. If nobody looks at more, at most" in said
    rest = Path(second["file"])
    assert rest.name == "look_at_2.csv"
    assert _column(rest, "label").count("") == second["to_look_at"]
    assert set(_column(file, "id")) < set(_column(rest, "id"))
    clinic.fill(rest, most=second["to_look_at"] // 2)
    assert clinic.correct("--audited", file)[1]["file"] == str(rest), "an earlier file asks for the same rows again"
    third = clinic.correct("--audited", rest)[1]
    assert third["to_look_at"] == second["to_look_at"] - second["to_look_at"] // 2
    assert (clinic.out / "train.parquet").read_bytes() == frozen

    clinic.fill(rest)
    code, last, said = clinic.correct("--audited", rest)
    assert "The promise holds: at most 5% of all 400 labels are wrong with probability 95%" in said
    assert last["file"] is None
    rows, manifest = read_dataset(clinic.out), read_manifest(clinic.out)
    wrong = sum(row["label"] != clinic.truth[row["id"]] for row in rows)
    assert wrong <= 20
    unseen = [row for row in rows if row["reason"] != "audited"]
    figures = manifest["policy"]["figures"]
    assert figures["promise"] == "holds"
    assert figures["promise_unseen"] == len(unseen) == 400 - figures["promise_looked_at"]
    assert set(_column(rest, "id")) == {row["id"] for row in rows} - {row["id"] for row in unseen}
    assert manifest["gold_rows"] == 60
    assert manifest["stage"] == "correct"
    assert "| promise error" in str(describe(rows, manifest["policy"]))
    assert "promise unseen wrong at most" in (clinic.out / "report.md").read_text(encoding="utf-8")
    audited = read_audited(rest)  # the format of `sample`
    assert len(audited) == figures["promise_looked_at"]
    assert set(audited.strata.values()) == {"surer", "least sure"}
    code, after, said = clinic.correct("--audited", rest)
    assert "holds already" in said
    assert after["figures"]["promise"] == "holds"


def _column(file: Path, name: str) -> list[str]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [row[name] for row in csv.DictReader(stream)]


@pytest.mark.parametrize("step", ["write_stage", "write_private"])
def test_a_kill_at_any_step_loses_nothing(clinic: Clinic, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Each write fails once, first when the promise begins and then when it ends."""
    import hf_synth.task.folders as folders

    real, calls = getattr(folders, step), []

    def killed(*args: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) % 2:
            raise KeyboardInterrupt
        return real(*args, **keywords)

    monkeypatch.setattr(folders, step, killed)
    asked: list[str] = []
    for _ in range(20):
        code, done, _ = clinic.correct(*(("--audited", asked[-1]) if asked else ()))
        if code == 130:
            continue
        assert code == 0
        if done["figures"]["promise"] == "holds":
            break
        asked.append(done["file"])
        clinic.fill(done["file"])
    assert done["figures"]["promise"] == "holds"
    assert len(calls) >= 2
    assert len(asked) == 2
    rows = read_dataset(clinic.out)
    assert sum(row["label"] != clinic.truth[row["id"]] for row in rows) <= 20
    assert sum(row["reason"] == "audited" for row in rows) == done["figures"]["promise_looked_at"]


def test_the_verb_refuses_what_would_break_the_promise(clinic: Clinic) -> None:
    code, first, _ = clinic.correct()
    file = Path(first["file"])
    for more, says in (
        (("--confidence", 0.9), "cannot change after its sample was drawn"),
        (("--error", 0.2), "holds a promise of --error 0.05"),
        (("--error", 2), "between 0 and 1"),
    ):
        code, _, said = clinic.correct(*more)
        assert code == 1
        assert says in said
    id = _column(file, "id")[0]
    clinic.fill(file, wrong={id: "moderate"})
    assert "column 'label' holds 'moderate', no known label" in clinic.correct("--audited", file)[2]
    clinic.fill(file, wrong={id: TASK.labels[clinic.truth[id]]})
    text = file.read_text(encoding="utf-8").replace(f"{id},", "nobody,", 1)
    file.write_text(text, encoding="utf-8")
    assert "line 2, row 1: column 'id' holds no id of" in clinic.correct("--audited", file)[2]
    (clinic.out / ".hf_synth" / "promise.json").write_text("{", encoding="utf-8")
    assert "promise.json is broken" in clinic.correct()[2]


def test_a_promise_that_needs_no_look_or_every_look(clinic: Clinic) -> None:
    _, at_once, said = clinic.correct(error=1)
    assert "The promise holds" in said
    assert (at_once["to_look_at"], at_once["figures"]["promise_looked_at"]) == (0, 0)
    clinic.out = clinic.tmp / "strict"
    _, strict, said = clinic.correct(error=0)
    assert strict["to_look_at"] == 400
    assert "a sample saves nothing: label all 400 rows" in said
    clinic.fill(strict["file"])
    _, done, said = clinic.correct("--audited", strict["file"], error=0)
    assert done["figures"]["promise_unseen"] == 0
    assert "No row stays without a person's look" in said
    assert all(row["label"] == clinic.truth[row["id"]] for row in read_dataset(clinic.out))


def test_audited_rows_of_before_count_as_right(clinic: Clinic) -> None:
    checked = clinic.tmp / "checked.csv"
    lines = [f"s{i},{TASK.labels[clinic.truth[f's{i}']]}" for i in range(100)]
    checked.write_text("\n".join(["id,label", *lines]), encoding="utf-8")
    _, first, _ = clinic.correct("--audited", checked)
    assert first["figures"]["promise_looked_at"] == 100
    assert not {f"s{i}" for i in range(100)} & set(_column(Path(first["file"]), "id"))


def test_a_folder_without_a_promise_is_written_again(clinic: Clinic) -> None:
    clinic.correct()
    line = ["correct", clinic.tmp / "gold", clinic.tmp / "rows", "--gold", clinic.tmp / "gold", "-q"]
    assert main([*map(str, line), "--out", str(clinic.out), "--method", "none"]) == 0
    manifest = read_manifest(clinic.out)
    assert manifest is not None
    assert "promise" not in manifest["policy"]["figures"]
    code, begun, _ = clinic.correct(error=0.1)  # the promise of before is over, and another may begin
    assert code == 0
    assert begun["figures"]["promise_error"] == 0.1
