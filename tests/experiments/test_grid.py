"""Grids: arms whose method `auto` chooses by accuracy or by macro-F1, and keys under which runs are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.toy_experiment import TASK, run, toy_gold, writer

from hf_synth.correction.methods import CorrectionOptions
from hf_synth.errors import TaskError
from hf_synth.experiments.diagnostics import policy_section
from hf_synth.experiments.grid import Cell, Grid, ScoringProtocol, correction_options, plan
from hf_synth.experiments.names import mix_name
from hf_synth.experiments.planning import check_kind, plan_jobs, prepare

BOTH = Grid(sizes=(30,), arms=("gold", "augment auto", "augment auto_macro_f1"), ratios=(1.0,), seeds=(0,))


def never(own: Dataset, n: int, seed: int) -> Dataset:
    raise AssertionError("asked again")


def test_an_arm_is_chosen_by_macro_f1() -> None:
    assert correction_options("auto_macro_f1", seed=3) == CorrectionOptions("auto", seed=3, auto_metric="macro_f1")
    for labels in ("auto", "argmax", "llm_judge"):
        assert correction_options(labels, seed=3) == CorrectionOptions(labels, seed=3)
    assert mix_name("augment auto_macro_f1") == "gold + corrected (auto by macro-F1)"
    assert {c.corrector for c in plan(BOTH, 60, ["llm"]) if c.labels} == {"linear"}


@pytest.mark.parametrize("kind", ["multi_label", "text2text"])
def test_kinds_without_macro_f1_refuse_the_arm(kind: Any) -> None:
    class Task:
        full_name = "drugs"

    Task.kind = kind  # type: ignore[attr-defined]
    cells = [Cell("m", 20, "augment", labels, 1.0, "llm", "m", 0) for labels in ("auto", "auto_macro_f1")]
    check_kind(Task(), cells[:1])  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=f"'drugs' is {kind}: arm 'augment auto_macro_f1' does not fit it"):
        check_kind(Task(), cells)  # type: ignore[arg-type]


def test_kept_runs_stay_valid(tmp_path: Path) -> None:
    """Keys of version 3: another value here makes every kept experiment start anew, unless _RULES says why."""
    grid = Grid(sizes=(20,), arms=("gold", "augment raw", "augment argmax", "augment auto"), ratios=(2.0,), seeds=(0,))
    study, cells, _ = prepare(
        TASK, {"llm": never}, gold=toy_gold(), out=tmp_path / "out", grid=grid, protocol=ScoringProtocol(),
        judges=None, args=None, audited=None,
    )  # fmt: skip
    jobs = plan_jobs(study, cells)
    assert {j.cell.arm: (j.pool[:6], j.corrected[:6], j.key[:6]) for j in jobs} == {
        "gold": ("", "", "bbae37"),
        "augment raw": ("d7a2fd", "", "3aee03"),
        "augment argmax": ("d7a2fd", "6680f4", "daaeca"),
        "augment auto": ("d7a2fd", "73ffae", "f7e8f3"),
    }


def test_the_promise_of_each_metric_is_in_the_report(tmp_path: Path) -> None:
    """An arm that is added to a finished experiment asks nobody, and leaves what is kept."""
    before = run(tmp_path / "out", Grid(**{**vars(BOTH), "arms": BOTH.arms[:2]}), {"toy": writer})
    kept = {p: p.read_bytes() for p in (before.out / "cells").iterdir()}
    made = run(before.out, BOTH, {"toy": never}, report=True)
    assert {p: p.read_bytes() for p in kept} == kept
    assert not made.failed
    figures = {r["labels"]: json.loads(r["policy_figures"]) for r in made.rows if r["labels"]}
    assert "auto_metric" not in figures["auto"]
    assert figures["auto_macro_f1"]["auto_metric"] == "macro_f1"
    assert {"weight", "clean_drop"} <= set(figures["auto_macro_f1"]["auto_scores"])
    report = (made.out / "report.md").read_text(encoding="utf-8")
    assert "gold + corrected (auto by macro-F1)" in report
    points = {"accuracy": figures["auto"]["auto_loss_at_most"]}
    points["macro-F1"] = figures["auto_macro_f1"]["auto_macro_f1_loss_at_most"]
    section = policy_section(made.rows)
    assert section is not None
    assert section.tables[-1].cells() == [
        ["auto", "30", "accuracy", f"{100 * points['accuracy']:.1f}", "1", "0"],
        ["auto by macro-F1", "30", "macro-F1", f"{100 * points['macro-F1']:.1f}", "1", "0"],
    ]


def test_a_promise_is_the_mean_of_the_runs_that_have_one() -> None:
    def row(seed: int, **figures: Any) -> dict[str, Any]:
        known = {"auto_metric": "macro_f1", "auto_measured": bool(figures)}
        counts = {"n_kept": 1, "n_relabelled": 0, "n_dropped": 0, "policy_warnings": "[]", "policy": "weight"}
        cell = Cell("linear", 30, "augment", "auto_macro_f1", 1.0, "llm", "linear", seed).to_json()
        return {**cell, **counts, "corrected_key": str(seed), "policy_figures": json.dumps(known | figures)}

    losses = (0.04, 0.09)
    rows = [row(i, auto_macro_f1_loss_at_most=loss) for i, loss in enumerate(losses)]
    section = policy_section([*rows, row(2)])
    assert section is not None
    expected = f"{100 * np.mean(losses):.1f}"
    assert section.tables[-1].cells() == [["auto by macro-F1", "30", "macro-F1", expected, "2", "1"]]
    none = policy_section([{**row(0), "labels": "argmax", "policy_figures": "{}"}])
    assert none is not None
    assert len(none.tables) == 1
