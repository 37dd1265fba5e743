"""`correct` on Datasets: groups, audited rows, coverage, LLM labels of gold, and gold that is held out with its rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.kinds import SETS, generated, sets_gold
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic

from hf_synth.cli.cli import main
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.crossfit import folds
from hf_synth.errors import ColumnError, TaskError
from hf_synth.models.linear import linear_fit
from hf_synth.task.folders import write_stage


def corrected(groups: list[str | None], method: str, **more):  # type: ignore[no-untyped-def]
    """Correct 40 toy rows by a linear head and gold whose rows are of these groups."""
    gold = toy_rows(len(groups), 1)
    gold = gold.remove_columns([c for c in ("group",) if c in gold.column_names]).add_column("group", groups)
    rows = as_synthetic([{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(40, 2))])
    return correct_with_policy(TASK, rows, linear_fit(TASK, gold, rows), gold=gold, method=method, **more)


def test_rows_without_a_group_are_groups_by_themselves() -> None:
    labels = np.arange(20) % 2
    alone = folds(labels, None, 5, seed=0).tolist()
    assert folds(labels, [None] * 20, 5, seed=0).tolist() == alone
    done, policy = corrected([None] * 30, "auto")
    named, same = corrected([f"g{i}" for i in range(30)], "auto")
    assert (list(done["label"]), policy) == (list(named["label"]), same)
    assert policy.figures["corrector_accuracy_on_held_out_gold"] > 0.5


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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    assert main([*line, "--coverage", "0.9"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert figures["conformal_coverage_by_class"] is True
    assert figures["conformal_coverage_asked"] == 0.9
    assert main(line) == 1
    assert "needs a coverage: give one too" in capsys.readouterr().err
    with pytest.raises(TaskError, match="coverage.*single_label"):
        correct_with_policy(
            SETS, generated(SETS, sets_gold(8)), linear_fit(TASK, gold), gold=sets_gold(20), coverage=0.9
        )
