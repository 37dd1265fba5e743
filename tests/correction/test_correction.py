"""`correct` on Datasets: groups, audited rows, coverage, LLM labels of gold, gold held out with its rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from support.copies import let_disguised_copies_pass
from support.kinds import SETS, generated, sets_gold
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic

from hf_synth.cli.cli import main
from hf_synth.correction import correction, label_sets
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.crossfit import folds
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.demo.simulator import Faults, running_simulator
from hf_synth.errors import ColumnError, TaskError
from hf_synth.generation.generation import generate
from hf_synth.gold.gold import load_gold
from hf_synth.llm.llm import LLM
from hf_synth.models import linear
from hf_synth.models.linear import linear_fit
from hf_synth.task.folders import write_stage
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task


def corrected(groups: list[str | None], method: str, **more):  # type: ignore[no-untyped-def]
    """Correct 40 toy rows by a linear head and gold whose rows are of these groups."""
    gold = toy_rows(len(groups), 1)
    gold = gold.remove_columns([c for c in ("group",) if c in gold.column_names]).add_column("group", groups)
    rows = as_synthetic([{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(40, 2))])
    return correct_with_policy(
        TASK, rows, linear_fit(TASK, gold, rows), gold=gold, options=CorrectionOptions(method, **more)
    )


def test_rows_without_a_group_are_groups_by_themselves() -> None:
    labels = np.arange(20) % 2
    alone = folds(labels, None, 5, seed=0).tolist()
    assert folds(labels, [None] * 20, 5, seed=0).tolist() == alone
    done, policy = corrected([None] * 30, "auto")
    named, same = corrected([f"g{i}" for i in range(30)], "auto")
    assert (list(done["label"]), policy) == (list(named["label"]), same)
    assert policy.figures["corrector_accuracy_on_held_out_gold"] > 0.5


def test_gold_of_one_label_is_refused_where_a_model_learns_from_it() -> None:
    """`auto` took blend there, and relabelled every row as the one label that gold has."""
    gold = toy_rows(40, 1).filter(lambda label: label == 0, input_columns="label")
    rows = as_synthetic([{**row, "llm_label": row["label"], "seed_ids": None} for row in toy_rows(30, 2).to_list()])
    for method in ("auto", "posterior"):
        with pytest.raises(ColumnError, match=f"all {len(gold)} gold rows have one label"):
            correct_with_policy(TASK, rows, linear_fit, gold=gold, options=CorrectionOptions(method))
    kept, _ = correct_with_policy(TASK, rows, linear_fit, gold=gold, options=CorrectionOptions("none"))
    assert kept["label"][:] == rows["llm_label"][:]


@pytest.mark.parametrize("method", ["auto", "argmax", "posterior"])
def test_gold_of_one_patient_measures_nothing(method: str) -> None:
    with pytest.raises(ColumnError, match="of one group"):
        corrected(["p1"] * 30, method)
    assert corrected(["p1"] * 30, "none")[1].method == "none"


def test_where_no_corrector_was_asked_nothing_is_said_of_one() -> None:
    _, policy = corrected([f"g{i}" for i in range(30)], "none", audited={"s0": 0})
    assert set(policy.figures) == {
        "gold_rows", "synthetic_rows", "audited_rows", "generator_accuracy_audited", "generator_accuracy_audited_ci95",
        "gold_against_synthetic_auc",
    }  # fmt: skip
    assert (policy.noise, policy.confusion, policy.warnings) == ((), (), ())


@pytest.mark.parametrize("label", [-1, 3, 99, "no such label"])
def test_an_audited_label_is_one_of_the_tasks(label: int | str) -> None:
    with pytest.raises(ColumnError, match="audited label"):
        corrected([f"g{i}" for i in range(30)], "posterior", audited={"s0": label})


def test_the_verb_asks_for_coverage(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gold, rows = (
        toy_rows(60, 1),
        [{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(40, 2))],
    )
    write_stage(TASK, gold, tmp_path / "gold", stage="gold")
    write_stage(TASK, as_synthetic(rows), tmp_path / "rows", stage="generate")
    monkeypatch.setattr("hf_synth.models.training.trainer_fit", lambda task, **_: linear_fit(task, gold))
    line = ["correct", str(tmp_path / "gold"), str(tmp_path / "rows"), "--gold", str(tmp_path / "gold"), "-q", "--json"]
    line += ["--out", str(tmp_path / "out"), "--method", "argmax", "--coverage-by-class"]
    line += ["--base-model", str(base)]
    assert main([*line, "--coverage", "0.9"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert figures["conformal_coverage_by_class"] is True
    assert figures["conformal_coverage_asked"] == 0.9
    assert main(line) == 1
    assert "needs a coverage: give one too" in capsys.readouterr().err
    with pytest.raises(TaskError, match="coverage.*single_label"):
        correct_with_policy(
            SETS,
            generated(SETS, sets_gold(8)),
            linear_fit(TASK, gold),
            gold=sets_gold(20),
            options=CorrectionOptions(coverage=0.9),
        )


# --- gold that is held out with the rows that were written from it ---------------------------------------------------
def written_from(task: Task, gold: Dataset, path: Path, faults: Faults | None = None) -> Dataset:
    """Generate two rows for each gold row by the simulator."""
    with running_simulator(faults=faults or Faults()) as url:
        rows = generate(task, gold, LLM("simulator", base_url=url, journal=path / "j.sqlite"), 2 * len(gold))
    return rows.filter(lambda status: status == "kept", input_columns="label_status")


@pytest.mark.parametrize("copying", [True, False])
def test_of_gold_whose_labels_are_coin_flips_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copying: bool
) -> None:
    """Rows copied or recombined from a held-out note carry its words and its label: scores of .9 where .25 is true."""
    rng = random.Random(0)
    if copying:
        task = load_task("clinic")
        gold = load_gold(task, n_train=120, n_validation=4, n_test=4)["train"]
        gold = gold.map(lambda _: {"label": rng.randrange(4)}, load_from_cache_file=False)
        rows = written_from(task, gold, tmp_path, Faults(copying=0.6))
    else:
        task = Task.from_columns("flips", text_columns="text", label_column="label", labels="abcd", access="open")
        phrases = [" ".join(f"w{rng.randrange(3000)}" for _ in range(5)) for _ in range(960)]
        texts = [". ".join(phrases[i : i + 8]) + "." for i in range(0, 960, 8)]
        told = [task.gold_row(f"g{i}", f"p{i}", rng.randrange(4), text) for i, text in enumerate(texts)]
        gold = Dataset.from_list(told, features=task.gold_features())
        let_disguised_copies_pass(monkeypatch)
        rows = written_from(task, gold, tmp_path)
    _, policy = correct_with_policy(
        task, rows, linear_fit(task, gold, rows), gold=gold, options=CorrectionOptions("auto")
    )
    figures = policy.figures
    assert figures["auto_measured"] is True
    low, _ = figures["auto_accuracy_on_held_out_gold_ci95"]
    assert low <= 0.25, figures["auto_why"]
    assert figures["auto_accuracy_on_held_out_gold"] < 0.37, "chance is .25, its standard error .04"
    assert figures["corrector_accuracy_on_held_out_gold"] < 0.37
    assert all(gain[0] < 0.13 for gain in figures["auto_gains"].values())


def test_rows_without_a_record_are_corrected_and_it_is_said() -> None:
    _, policy = corrected([f"g{i}" for i in range(30)], "agree")
    assert any("40 of 40 rows carry no record of the gold in their prompt" in line for line in policy.warnings)
    _, quiet = corrected([f"g{i}" for i in range(30)], "none")
    assert quiet.warnings == ()


# --- labels that LLMs gave to gold ----------------------------------------------------------------------------------
def told_by(dataset: Dataset, column: str, labels: list[int]) -> Dataset:
    """Add labels of an LLM as a column."""
    return dataset.add_column(column, labels, feature=TASK.label_feature())


@pytest.mark.parametrize("method", ["measured", "stack"])
def test_methods_that_count_on_gold_are_refused_before_a_model_is_trained(method: str) -> None:
    gold, rows = toy_rows(30, 1), as_synthetic([{**r, "llm_label": r["label"]} for r in toy_rows(20, 2).to_list()])

    def never(known: Dataset) -> Any:
        raise AssertionError

    with pytest.raises(TaskError, match="gold holds no labels of an LLM.*hf-synth label TASK GOLD --gold"):
        correct_with_policy(TASK, rows, never, gold=gold, options=CorrectionOptions(method))
    other = told_by(gold, "llm_label_b", gold["label"][:])
    with pytest.raises(TaskError, match="they share none"):
        correct_with_policy(TASK, rows, never, gold=other, options=CorrectionOptions(method))


def test_llm_labels_on_both_sides_are_counted() -> None:
    gold, rows = toy_rows(60, 1), toy_rows(40, 2)
    rng = np.random.default_rng(0)

    def say(labels: list[int]) -> list[int]:
        return [int(c) if rng.random() < 0.9 else int(rng.integers(3)) for c in labels]

    meant = say(rows["label"][:])
    synthetic = as_synthetic([{**r, "llm_label": m} for r, m in zip(rows.to_list(), meant, strict=True)])
    both = told_by(gold, "llm_label", say(gold["label"][:])), told_by(synthetic, "llm_label_b", say(rows["label"][:]))
    fit = linear_fit(TASK, gold, rows)
    for method, names in (("measured", ("llm_label",)), ("stack", ("llm_label",))):
        done, policy = correct_with_policy(TASK, both[1], fit, gold=both[0], options=CorrectionOptions(method))
        assert policy.annotators == names
        assert policy.figures["generator_labelled_gold_rows"] == 60
        assert "llm_label_b" in done.column_names
        assert np.mean(np.array(done["label"][:]) == rows["label"][:]) >= np.mean(np.array(meant) == rows["label"][:])
    second = told_by(both[0], "llm_label_b", say(gold["label"][:]))
    _, policy = correct_with_policy(TASK, both[1], fit, gold=second, options=CorrectionOptions("measured"))
    assert policy.annotators == ("llm_label", "llm_label_b")
    _, policy = correct_with_policy(TASK, both[1], fit, gold=second)
    assert {"measured", "loss_rank"} <= set(policy.figures["auto_scores"])


def test_how_an_llm_labels_gold_does_not_say_how_it_writes() -> None:
    gold = told_by(toy_rows(60, 1), "llm_label", toy_rows(60, 1)["label"][:])
    rows = as_synthetic(
        [{**r, "llm_label": r["label"], "prompt_sha256": "x", "seed_ids": []} for r in toy_rows(40, 2).to_list()]
    )
    fit = linear_fit(TASK, gold, rows)
    _, policy = correct_with_policy(TASK, rows, fit, gold=gold, options=CorrectionOptions("agree"))
    assert "generator_accuracy_on_gold" not in policy.figures
    assert any("not how it writes them" in line for line in policy.warnings)
    with pytest.raises(TaskError, match="they share none"):
        correct_with_policy(TASK, rows, fit, gold=gold, options=CorrectionOptions("measured"))


class Sure:
    """A judge that believes the rows' labels."""

    def predict(self, rows: Dataset) -> Any:
        column = next(c for c in ("llm_label", "label", "findings") if c in rows.column_names)
        names = rows[column][:]
        if isinstance(names[0], list):
            return np.array([[0.8 if k in names_of else 0.2 for k in range(3)] for names_of in names])
        return np.eye(3)[names] * 0.9 + 0.1 / 3


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
@pytest.mark.parametrize(("method", "most"), [("none", 20), ("argmax", 20), ("auto", 30)])
def test_features_are_made_of_the_rows_that_need_them(
    kind: str, method: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With opinions at hand, `auto` compares methods on some rows, and the others need features for a figure alone."""
    task, gold = (TASK, toy_rows(40, 1)) if kind == "single_label" else (SETS, sets_gold(40, seed=1))
    if kind == "single_label":
        made = [{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(60, 2))]
        rows = as_synthetic(made)
    else:
        rows = generated(SETS, sets_gold(60, seed=2))
    read: list[int] = []
    seen = linear.text_features

    def counted(*texts: Any, **more: Any) -> Any:
        read.append(len(texts[1]))
        return seen(*texts, **more)

    for module in (linear, correction, label_sets):
        monkeypatch.setattr(module, "text_features", counted)
        if module is not linear:
            monkeypatch.setattr(module, "CHOSEN_ON", 30 if module is correction else 90)  # of sets by label
            monkeypatch.setattr(module, "LEARNT_ON", 10)
    monkeypatch.setattr(linear.text_shift, "__kwdefaults__", {"most": 20, "seed": 0})
    done, policy = correct_with_policy(task, rows, Sure(), gold=gold, options=CorrectionOptions(method))
    assert read == [most]
    assert len(done) == 60
    assert 0 <= policy.figures["gold_against_synthetic_auc"] <= 1
    audited = {} if kind == "multi_label" else {"s59": 0, "s58": 1}
    if method == "auto" and audited:  # rows that a person labelled are always among them
        known = correct_with_policy(task, rows, Sure(), gold=gold, options=CorrectionOptions(method, audited=audited))[
            0
        ]
        assert known["reason"][58:] == ["audited", "audited"]
        assert read[-1] in (30, 31, 32)


def test_up_to_5000_rows_auto_reads_every_row_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of docs/results/real_noise.md, on 800 rows at most, rest on features that all rows have formed."""
    asked: list[Any] = []

    def choose_none(*given: Any, **more: Any) -> Any:
        asked.append((len(given[0].meant), more["opinions"][1].shape))
        raise StopIteration

    def features(gold: Any, rows: Any, **more: Any) -> Any:
        asked.append((len(rows), more["most"]))
        return np.zeros((len(gold), 1), np.float32), np.zeros((len(rows), 1), np.float32)

    monkeypatch.setattr(correction, "choose_method", choose_none)
    monkeypatch.setattr(correction, "text_features", features)
    made = [{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(5_001, 2))]
    rows, gold = as_synthetic(made), toy_rows(40, 1)
    for n in (5_000, 5_001):
        with pytest.raises(StopIteration):
            correct_with_policy(TASK, rows.select(range(n)), Sure(), gold=gold)
    assert asked == [(5_000, None), (5_000, (5_000, 3)), (5_001, 5_000), (5_001, (5_001, 3))]


def test_texts_of_a_folder_stay_mapped(tmp_path: Path) -> None:
    made = [{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(60, 2))]
    rows = as_synthetic([{**row, "text": row["text"] + " and so on" * 2_000} for row in made])
    rows.save_to_disk(str(tmp_path / "rows"))
    rows = Dataset.load_from_disk(str(tmp_path / "rows"))
    before = pa.total_allocated_bytes()
    done = correct_with_policy(TASK, rows, Sure(), gold=toy_rows(40, 1), options=CorrectionOptions("argmax"))[0]
    assert pa.total_allocated_bytes() - before < 100_000  # the texts are 1.2 MB
    assert done["text"][:2] == rows["text"][:2]
