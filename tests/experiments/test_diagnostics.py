"""Sections of an experiment's report on labels."""

from __future__ import annotations

import json
from typing import Any

from support.tiny import toy_task

from hf_synth.experiments.diagnostics import class_section

TASK = toy_task()


def run_of(arm: str, seed: int, recall: dict[str, float], support: dict[str, int]) -> dict[str, Any]:
    strategy, _, labels = arm.partition(" ")
    scores = {label: {"f1": recall[label], "recall": recall[label], "support": support[label]} for label in support}
    return {
        "base_model": "linear", "gold_size": 20, "ratio": float(bool(labels)), "strategy": strategy, "labels": labels,
        "generator": labels and "g", "corrector": "", "arm": arm, "seed": seed, "accuracy": 0.5,
        "per_class": json.dumps(scores), "confusion": json.dumps([[0] * len(support)] * len(support)),
    }  # fmt: skip


def test_labels_that_are_never_found_are_counted_once_each() -> None:
    """They were listed anew for every training mix, in thousands of characters."""
    first, second, third = TASK.labels
    support = {first: 9, second: 2, third: 1}
    none = dict.fromkeys(support, 0.0)
    rows = [run_of("gold", seed, none | {first: 1.0}, support) for seed in (0, 1)]
    rows += [run_of("augment raw", 0, none | {first: 1.0}, support)]
    rows += [run_of("augment raw", 1, none | {first: 1.0, second: 0.5}, support)]  # one run is enough
    section = class_section(TASK, rows, "")
    table = next(t for t in section.tables if "never finds" in t.caption)
    assert table.cells() == [[third, "1", "0 of 2"], [second, "2", "1 of 2"]]
    assert section.note.startswith("2 labels are never found")
    found = [run_of("gold", 0, dict.fromkeys(support, 1.0), support)]
    assert class_section(TASK, found, "").note == ""
    assert not any("never finds" in t.caption for t in class_section(TASK, found, "").tables)


def test_a_label_without_test_rows_is_not_missed() -> None:
    first, second, third = TASK.labels
    support = {first: 9, second: 2, third: 0}
    section = class_section(TASK, [run_of("gold", 0, {first: 1.0, second: 1.0, third: 0.0}, support)], "")
    assert section.note == ""
