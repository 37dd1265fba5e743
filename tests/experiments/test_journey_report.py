"""The report of a run: its figures are those of columns and scores, and what is simulated says so in every picture."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.svg_checks import Reader, assert_harmless_svg, assert_no_text_touches, shown

from hf_synth.correction.policy import Policy
from hf_synth.demo.journey import CAPTION, truth_section
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import Scores, score
from hf_synth.experiments.journey_report import Journey, journey_sections, write_journey_report
from hf_synth.reports.page import Section
from hf_synth.task.columns import MANIFEST, REASONS
from hf_synth.task.folders import write_private
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

CANARY = "Swallowing hurts since Tuesday, said nobody."
MATRIX = tuple(tuple(0.7 if i == j else 0.1 for j in range(4)) for i in range(4))
FIGURES = {"gold_rows": 40, "corrector_accuracy_on_held_out_gold": 0.5123, "auto_why": "made up",
           "auto_scores": {"none": 0.4, "posterior": 0.6},
           "auto_behind": {"none": [0.2, 0.1], "posterior": [0.0, 0.0]}}  # fmt: skip
STATUSES = (
    ("kept", "agrees", 0, 0), ("relabelled", "corrected", 0, 2), ("dropped", "likely_wrong", 1, 1),
    ("kept", "agrees", 3, 3), ("kept", "agrees", 3, 3), ("rejected", "refusal", None, None),
)  # fmt: skip


def corrected_rows(task: Task, generator: str = "a-model") -> Dataset:
    rows = []
    for i, (status, reason, meant, now) in enumerate(STATUSES):
        row: dict[str, Any] = dict.fromkeys(task.corrected_features())
        row |= {
            "id": f"s{i}", "text": None if meant is None else CANARY, "llm_label": meant, "label": now,
            "task": task.full_name, "label_status": status, "reason": reason, "source": "synthetic",
            "access": task.access, "generator": generator, "prompt_tokens": 100, "completion_tokens": 20,
            "cost_usd": 0.25, "weight": 1.0 if status in ("kept", "relabelled") else 0.0,
        }  # fmt: skip
        rows.append(row)
    return Dataset.from_list(rows, features=task.corrected_features())


def made_up_scores(task: Task, right: float, rows: dict[str, int], seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    truth = np.arange(200) % 4
    said = np.where(rng.random(200) < right, truth, rng.integers(0, 4, 200))
    made = score(task, np.eye(4)[said] * 0.6 + 0.1, truth, n_bootstrap=100)
    return dataclasses.replace(made, model={"rows": rows, "base_model": "/somewhere/tiny"}, dataset={"seen": 0})


def a_run(name: str = "esophagitis", generator: str = "a-model", arms: int = 6, out: Path = Path()) -> Journey:
    task = load_task(name)
    mixtures = {
        "gold_40": (0.5, {"gold": 40}), "gold_80": (0.6, {"gold": 80}), "gold_160": (0.7, {"gold": 160}),
        "synthetic_raw": (0.4, {"kept": 90}), "gold_40_plus_raw": (0.55, {"gold": 40, "kept": 90}),
        "gold_40_plus_corrected": (0.65, {"gold": 40, "kept": 80, "relabelled": 10}),
    }  # fmt: skip
    scores = {n: made_up_scores(task, right, rows, i) for i, (n, (right, rows)) in enumerate(mixtures.items())}
    policy = Policy("posterior", 4, noise=MATRIX, confusion=MATRIX, figures=FIGURES, warnings=("gold is scarce",))
    seconds = {"generate": 1.5, "correct": 20.0}
    some = dict(list(scores.items())[:arms])
    rows, caption = corrected_rows(task, generator), "A caption of numbers made up."
    return Journey(task, out, rows, policy, some, models={}, seconds=seconds, caption=caption)


def table(sections: Sequence[Section], title: str, caption: str) -> list[list[str]]:
    section = next(s for s in sections if s.title == title)
    return next(t for t in section.tables if t.caption == caption).cells()


def test_the_facts_say_how_like_gold_the_rows_are(tmp_path: Path) -> None:
    recorded = {"rows": 40, "figures": {"words": {"synthetic": 61.2, "ratio": 1.31, "halves": [0.92, 1.09]}}}
    write_private(tmp_path / "synthetic" / MANIFEST, json.dumps({"likeness": recorded}))
    made = a_run(arms=1, out=tmp_path)
    for approved in ((), ("synthetic",)):  # rows that a person edited are other rows
        write_journey_report(dataclasses.replace(made, approved=approved))
        assert ("words 1.31 (0.92-1.09)" in (tmp_path / "report.md").read_text()) == (not approved)


def test_figures_are_those_of_columns_and_scores() -> None:
    made = a_run()
    sections = journey_sections(made)
    alone, both = made.scores["gold_40"], made.scores["gold_40_plus_corrected"]
    first = table(sections, "Scores", "Scores with their 95% intervals")[0]
    low, high = alone.ci95["macro_f1"]
    assert first[:3] == ["gold_40", "40", f"{alone.values['macro_f1']:.3f} ({low:.3f}-{high:.3f})"]
    labels = {r[0]: r[1:] for r in table(sections, "Labels", "Rows by label")}
    assert labels["grade_0"][:4] == ["2", "1", "1", "0"]  # meant, kept, relabelled, dropped
    assert labels["grade_1"][:4] == ["1", "0", "0", "1"]
    assert table(sections, "Gates", "Rejected") == [[REASONS["refusal"], "1"]]
    assert table(sections, "Cost", "Generation") == [
        ["tokens of prompts", "600"], ["tokens of answers", "120"], ["US dollars", "1.50"], ["rows used", "4"],
    ]  # fmt: skip
    gain = compare(both, alone, "macro_f1")
    told_gain = table(sections, "Gain over gold_40", "Differences on the same test rows")
    assert told_gain[-1][0] == "gold_40_plus_corrected"
    assert told_gain[-1][1].startswith(f"{gain.value:+.3f} ({gain.ci95[0]:+.3f} to {gain.ci95[1]:+.3f})")
    curve = table(sections, "Learning curve", "Gold alone")
    assert [row[0] for row in curve] == ["40", "80", "160"]
    assert ["corrector accuracy on held out gold", "0.512"] in table(
        sections, "Generator and corrector", "Figures of the policy"
    )
    assert table(sections, "Generator and corrector", "Methods that auto compared") == [
        ["posterior", "0.600", "0.000", "0.000"], ["none", "0.400", "0.200", "0.100"],
    ]  # fmt: skip
    assert table(sections, "Generator and corrector", "Noise of the generator, as estimated")[0][1:3] == [
        "0.700",
        "0.100",
    ]
    calibrated = table(sections, "Calibration", "Calibration on the test rows, in folds by group")
    assert calibrated[0] == [
        "gold_40",
        *(f"{alone.calibration[k]:.3f}" for k in ("temperature", "ece", "ece_tempered")),
    ]
    confusion = next(s for s in sections if s.title == "Each label").plots[0]
    counts = [int(t) for t in shown(confusion) if re.fullmatch(r"\d+", t)]
    assert counts == [n for row in alone.confusion for n in row]
    beneath = table(sections, "Each label", "Test rows by predicted label")
    assert beneath[1] == ["gold_40: grade_1", *map(str, alone.confusion[1])]


def test_two_sizes_make_no_curve() -> None:
    assert "Learning curve" not in [s.title for s in journey_sections(a_run(arms=2))]


def test_pictures_are_sound() -> None:
    for section in journey_sections(a_run()):
        for plot in section.plots:
            assert_harmless_svg(plot)
            assert_no_text_touches(plot)
            assert "A caption of numbers made up." in shown(plot)


@pytest.mark.parametrize(
    ("name", "generator", "words"),
    [("clinic", "a-model", "artificial clinic"), ("esophagitis", "simulator", "stands in for an LLM"),
     ("esophagitis", "a-model", "")],
)  # fmt: skip
def test_simulated_is_found_in_the_columns(name: str, generator: str, words: str, tmp_path: Path) -> None:
    made = a_run(name, generator, out=tmp_path)
    text = write_journey_report(made).read_text(encoding="utf-8")
    plots = [plot for section in journey_sections(made) for plot in section.plots]
    said = [" ".join(shown(plot)) for plot in plots]
    assert all("Simulated: " in s for s in said) is bool(words)
    assert all(words in s for s in said)
    assert ('class="banner"' in text) is bool(words)
    assert ("**Simulated:**" in (tmp_path / "report.md").read_text(encoding="utf-8")) is bool(words)


def test_no_note_is_in_a_report(tmp_path: Path) -> None:
    page = write_journey_report(a_run(out=tmp_path))
    for file in (page, page.with_suffix(".md")):
        assert CANARY not in file.read_text(encoding="utf-8")
        assert "/somewhere" not in file.read_text(encoding="utf-8")
    assert not Reader(page.read_text(encoding="utf-8")).open


def test_truth_of_a_simulation() -> None:
    made = a_run("clinic", "simulator")  # the canary states no fact: grade_0 is true of every note
    section = truth_section(dataclasses.replace(made, caption=CAPTION), dict.fromkeys(
        ("llm", "corrected", "kept", "yield", "argmax"), 0.5))  # fmt: skip
    counts = [[int(t) for t in shown(p) if re.fullmatch(r"\d+", t)] for p in section.plots]
    assert counts[0][:4] == [2, 1, 0, 2]  # as meant
    assert counts[1][:4] == [1, 0, 1, 2]  # rows used
    assert all(sum(c) == sum(c[:4]) for c in counts)
    assert all(CAPTION in " ".join(shown(p)) for p in section.plots)
