"""The report of a run: its figures are those of columns and scores, and what is simulated says so in every picture."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.svg_checks import Reader, assert_harmless_svg, assert_no_text_touches, parsed, shown

from hf_synth.correction.policy import Policy
from hf_synth.demo.journey import CAPTION, truth_section
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import Scores, score
from hf_synth.experiments.journey_report import journey_lead, journey_sections, write_journey_report
from hf_synth.experiments.journey_sections import Journey, score_plot
from hf_synth.experiments.names import arm_name
from hf_synth.experiments.next_steps import RunSource
from hf_synth.experiments.verdict import label_changes, label_section, notes_section, run_lead
from hf_synth.reports.page import Section
from hf_synth.task.columns import MANIFEST, REASONS
from hf_synth.task.folders import write_private, write_stage
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


@cache
def all_scores(name: str) -> dict[str, Scores]:
    task = load_task(name)
    mixtures = {
        "gold_40": (0.5, {"gold": 40}), "gold_80": (0.6, {"gold": 80}), "gold_160": (0.7, {"gold": 160}),
        "synthetic_raw": (0.4, {"kept": 90}), "gold_40_plus_raw": (0.55, {"gold": 40, "kept": 90}),
        "gold_40_plus_corrected": (0.65, {"gold": 40, "kept": 80, "relabelled": 10}),
    }  # fmt: skip
    return {n: made_up_scores(task, right, rows, i) for i, (n, (right, rows)) in enumerate(mixtures.items())}


def a_run(name: str = "esophagitis", generator: str = "a-model", arms: int = 6, out: Path = Path()) -> Journey:
    task, scores = load_task(name), all_scores(name)
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
        assert ("length 1.31 (0.92-1.09)" in (tmp_path / "report.md").read_text()) == (not approved)


def test_figures_are_those_of_columns_and_scores() -> None:
    made = a_run()
    sections = journey_sections(made)
    alone, both = made.scores["gold_40"], made.scores["gold_40_plus_corrected"]
    first = table(sections, "Scores", "Scores with their 95% intervals")[0]
    low, high = alone.ci95["macro_f1"]
    assert first[:3] == ["40 gold", "40", f"{alone.values['macro_f1']:.3f} ({low:.3f}-{high:.3f})"]
    labels = {r[0]: r[1:] for r in table(sections, "What correction did", "Rows by label")}
    assert labels["grade_0"][:4] == ["2", "1", "1", "0"]  # meant, kept, relabelled, dropped
    assert labels["grade_1"][:4] == ["1", "0", "0", "1"]
    assert table(sections, "Rejected answers", "Rejected") == [[REASONS["refusal"], "1"]]
    assert table(sections, "Cost", "Generation") == [
        ["tokens of prompts", "600"], ["tokens of answers", "120"], ["US dollars", "1.50"], ["rows used", "4"],
    ]  # fmt: skip
    gain = compare(both, alone, "macro_f1")
    shown_gain = table(sections, "Gain over 40 gold alone", "Differences")
    limits = f"{gain.ci95[0]:+.3f} to {gain.ci95[1]:+.3f}"
    assert shown_gain[-1][:3] == ["40 gold + corrected", f"{gain.value:+.3f}", limits]
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
        "40 gold",
        *(f"{alone.calibration[k]:.3f}" for k in ("temperature", "ece", "ece_tempered")),
    ]
    confusion = next(s for s in sections if s.title == "Every model by label").plots[0]
    counts = [int(t) for t in shown(confusion) if re.fullmatch(r"\d+", t)]
    assert counts == [n for row in alone.confusion for n in row]
    beneath = table(sections, "Every model by label", "Test rows by predicted label")
    assert beneath[1] == ["40 gold: grade_1", *map(str, alone.confusion[1])]


def test_two_sizes_make_no_curve() -> None:
    assert "Learning curve" not in [s.title for s in journey_sections(a_run(arms=2))]


def test_pictures_are_sound() -> None:
    for section in journey_sections(a_run()):
        for plot in section.plots:
            assert_harmless_svg(plot)
            assert_no_text_touches(plot)


@pytest.mark.parametrize(
    ("name", "generator", "words"),
    [("clinic", "a-model", "artificial clinic"), ("esophagitis", "simulator", "stands in for an LLM"),
     ("esophagitis", "a-model", "")],
)  # fmt: skip
def test_simulated_is_found_in_the_columns(name: str, generator: str, words: str, tmp_path: Path) -> None:
    made = a_run(name, generator, arms=2, out=tmp_path)
    text = write_journey_report(made).read_text(encoding="utf-8")
    plots = [plot for section in journey_sections(made) for plot in section.plots]
    assert len(plots) > 5
    assert all(("SIMULATED" in shown(plot)) is bool(words) for plot in plots)
    seen = Reader(text)
    banners = [t for where, t in seen.texts if where == "p" and t.startswith("Simulated: ")]
    assert len(banners) == bool(words), "once on a page"
    assert all(words in banner for banner in banners)
    assert sum(t.count("Simulated: ") for where, t in seen.texts) == bool(words)
    assert ("**Simulated:**" in (tmp_path / "report.md").read_text(encoding="utf-8")) is bool(words)


def test_notes_are_shown_beside_their_folder_alone(tmp_path: Path) -> None:
    """A restricted note is on the page only where the page lies in the folder of the notes; never in Markdown."""
    page = write_journey_report(a_run(arms=1, out=tmp_path))
    for file in (page, page.with_suffix(".md")):
        assert CANARY not in file.read_text(encoding="utf-8")
        assert "/somewhere" not in file.read_text(encoding="utf-8")
    assert "does not lie in the folder of the notes" in page.read_text(encoding="utf-8")
    made = a_run(arms=1, out=tmp_path)
    write_stage(made.task, made.corrected, tmp_path / "corrected", stage="correct")
    text = write_journey_report(made).read_text(encoding="utf-8")
    assert text.count(CANARY) == sum(status != "rejected" for status, *_ in STATUSES)
    assert "do not send it" in text
    assert CANARY not in page.with_suffix(".md").read_text(encoding="utf-8")
    assert "side by side" not in page.with_suffix(".md").read_text(encoding="utf-8")
    assert not Reader(text).open
    is_open = a_run("clinic", arms=1, out=tmp_path / "elsewhere")
    assert CANARY in write_journey_report(is_open).read_text(encoding="utf-8")


def test_notes_are_drawn_and_not_chosen() -> None:
    task = load_task("clinic")
    kinds = (("kept", "agrees", 0), ("relabelled", "argmax", 1), ("dropped", "disagrees", 2), ("rejected", "empty", 3))
    rows: list[dict[str, Any]] = []
    for i in range(80):
        status, reason, label = kinds[i % 4]
        row: dict[str, Any] = dict.fromkeys(task.corrected_features())
        row |= {"id": f"s{i}", "text": f"<b>Note</b> {i} " + "word " * 300, "llm_label": 0, "label": label,
                "label_status": status, "reason": reason, "access": "open", "label_confidence": 0.75}  # fmt: skip
        rows.append(row)
    corrected = Dataset.from_list(rows, features=task.corrected_features())
    section = notes_section(task, corrected, Path("nowhere"))
    assert section is not None
    cells = section.tables[0].cells()
    assert section.private
    assert [c[2] for c in cells] == ["grade_0 (kept)"] * 4 + ["grade_1"] * 3 + ["dropped"] * 3
    assert cells[4][3] == f"{REASONS['argmax']} (probability 0.75)"
    assert cells[9][3] == REASONS["disagrees"], "a dropped row has no label that could be certain"
    assert all(len(c[0]) <= 701 and c[0].endswith("…") for c in cells)
    numbers = [[int(c[0].split()[1]) for c in s.tables[0].cells()] for s in (
        section, notes_section(task, corrected, Path("nowhere")), notes_section(task, corrected, Path("x"), seed=1),
    ) if s is not None]  # fmt: skip
    assert numbers[0] == numbers[1]
    assert numbers[0] != numbers[2]
    assert numbers[0] != sorted(numbers[0]), "not the first ones"
    kept = corrected.filter(lambda status: status == "kept", input_columns="label_status")
    assert notes_section(task, kept, Path("x")).tables[0].cells()[9][2] == "grade_0 (kept)"  # type: ignore[union-attr]
    assert (
        notes_section(task, corrected.filter(lambda s: s == "rejected", input_columns="label_status"), Path()) is None
    )


# --- what it says first -----------------------------------------------------------------------------------------------
def scores_of(task: Task, says: Sequence[int], truth: Sequence[int], rows: dict[str, int]) -> Scores:
    made = score(task, np.eye(4)[list(says)] * 0.6 + 0.1, np.array(truth), n_bootstrap=10)
    return dataclasses.replace(made, model={"rows": rows})


def test_a_change_that_may_be_chance_is_not_called_worse() -> None:
    task, truth = load_task("clinic"), [0, 1, 2, 3] * 50
    before = [t if i % 4 < 3 else 0 for i, t in enumerate(truth)]
    now = [2 if i in (1, 5) else t for i, t in enumerate(before)]  # two rows of grade_1 are lost
    scores = {
        "gold_40": scores_of(task, before, truth, {"gold": 40}),
        "gold_40_plus_corrected": scores_of(task, now, truth, {"gold": 40, "kept": 60}),
    }
    (change,) = (c for c in label_changes(*reversed(scores.values())) if c.label == "grade_1")
    assert (change.found_before, change.found, change.change) == (50, 48, "lower")
    lead = run_lead(task, scores, corrected_rows(task), Path("out"))
    assert "got worse" not in lead.verdict
    assert any("grade_1 is lower, which may be chance" in point for point in lead.points)


def test_the_verdict_is_computed_from_the_scores() -> None:
    task, truth = load_task("clinic"), [0, 1, 2, 3] * 50
    before = [t if i % 2 else (t + 1) % 4 for i, t in enumerate(truth)]  # half of each label is right
    now = [t if t != 1 else (1 if i % 4 == 0 else 2) for i, t in enumerate(truth)]  # grade_1 is lost
    scores = {
        "gold_40": scores_of(task, before, truth, {"gold": 40}),
        "gold_40_plus_corrected": scores_of(task, now, truth, {"gold": 40, "kept": 60, "relabelled": 10}),
    }
    found = run_lead(task, scores, corrected_rows(task), Path("out dir"))
    value = scores["gold_40_plus_corrected"].values["macro_f1"]
    low, high = scores["gold_40_plus_corrected"].ci95["macro_f1"]
    gap = compare(scores["gold_40_plus_corrected"], scores["gold_40"], "macro_f1")
    assert gap.ci95 is not None
    assert found.verdict == (
        f"40 gold + 70 corrected notes: macro-F1 {value:.2f} ({low:.2f}-{high:.2f}), better than the 40 gold alone "
        f"({gap.value:+.2f}, 95% CI {gap.ci95[0]:+.2f} to {gap.ci95[1]:+.2f}); grade_1 got worse; grade_1 "
        "is never found."
    )
    assert found.state == "unsure", "a label that got worse is no clear success"
    assert [t.value for t in found.tiles] == [f"{value:.2f}", f"{gap.value:+.2f}", "4 of 5"]
    assert found.tiles[1].state == "good"
    assert any(p.startswith("The worst label is grade_1: F1 0.00, 0 of 50 found") for p in found.points)
    old = scores["gold_40"].per_class["grade_1"]
    assert f"grade_1 is worse than with gold alone: F1 {old['f1']:.2f} before and 0.00 now; " in found.points[4]
    assert found.points[4].endswith(f"{round(old['recall'] * 50)} of 50 found before and 0 now.")
    section = label_section(scores)
    assert section is not None
    assert section.tables[0].cells()[0][0::6] == ["grade_1", "▼ worse"], "the worst change first"
    worse = run_lead(task, {"gold_40": scores["gold_40_plus_corrected"], "gold_40_plus_raw": scores["gold_40"]},
                     corrected_rows(task), Path("out"))  # fmt: skip
    assert worse.state == "bad"
    assert "worse than the 40 gold alone (-0." in worse.verdict
    assert worse.tiles[1].state == "bad"
    same = run_lead(task, {**scores, "gold_40_plus_corrected": scores["gold_40"]}, corrected_rows(task), Path("out"))
    assert "not clearly different from the 40 gold alone (+0.00" in same.verdict
    assert same.tiles[1].state == ""


def test_a_run_without_notes_or_figures_has_a_verdict() -> None:
    made = a_run()
    alone = {name: made.scores[name] for name in ("gold_160", "gold_40")}
    found = run_lead(made.task, alone, made.corrected, Path("out"))
    assert found.verdict.startswith("40 gold notes alone: macro-F1 0.")
    assert "160" not in found.verdict
    assert len(found.tiles) == 2, "no gain"
    bare = dataclasses.replace(made.scores["gold_40"], model={}, values={"macro_f1": float("nan")}, ci95={})
    text = run_lead(made.task, {**made.scores, "gold_40_plus_corrected": bare}, made.corrected, Path("out")).verdict
    assert text.startswith("40 gold + corrected: macro-F1 nan")
    assert label_section(alone) is None


def test_what_is_like_gold_is_read_off_the_curve() -> None:
    made = a_run()
    text = journey_lead(made).verdict
    value = made.scores["gold_40_plus_corrected"].values["macro_f1"]
    low, high = (made.scores[n].values["macro_f1"] for n in ("gold_80", "gold_160"))
    assert low < value < high
    rows = int(re.search(r"about as good as (\d+) gold notes", text)[1])  # type: ignore[index]
    assert 80 < rows < 160
    assert "about as good as" not in journey_lead(a_run(arms=2)).verdict, "two sizes make no curve"


def test_what_is_worse_does_not_stand_out() -> None:
    made = a_run()
    assert 'class="dot fill-mark' in score_plot(made)
    worse = {**made.scores, "gold_40_plus_corrected": made.scores["synthetic_raw"]}
    plots = [p for s in journey_sections(dataclasses.replace(made, scores=worse)) for p in s.plots]
    assert "fill-mark" not in score_plot(dataclasses.replace(made, scores=worse))
    gains = next(p for p in plots if "minus that of 40 gold alone" in " ".join(shown(p)))
    lower = compare(made.scores["synthetic_raw"], made.scores["gold_40"], "macro_f1")
    assert lower.value < 0
    dots = [e.get("class", "") for e in parsed(gains).iter() if "dot" in e.get("class", "").split()]
    by_name = dict(zip([n for n in worse if n != "gold_40"], dots, strict=True))
    assert "fill-mark" not in by_name["gold_40_plus_corrected"]


def test_commands_are_ones_that_the_shell_takes(tmp_path: Path) -> None:
    made = a_run("clinic", out=tmp_path / "a folder; of mine")
    for state_scores in (made.scores, {"gold_40": made.scores["gold_160"], "gold_40_plus_raw": made.scores["gold_40"]}):
        steps = journey_lead(dataclasses.replace(made, scores=state_scores)).steps
        assert len(steps) == 2
        for _, command in steps:
            words = shlex.split(command)
            assert words[0] == "hf-synth"
            assert any(Path(word).parent == made.out for word in words)


def test_names_are_those_that_people_say() -> None:
    names = {"gold_1243": "1,243 gold", "gold_200_plus_corrected": "200 gold + corrected",
             "gold_200_plus_raw": "200 gold + uncorrected", "synthetic_corrected": "corrected notes alone",
             "synthetic_raw": "uncorrected notes alone", "model": "model", "gold_x": "gold_x"}  # fmt: skip
    assert {name: arm_name(name) for name in names} == names
    page = "".join(t for s in journey_sections(a_run()) for t in [s.title, s.text, str(s.tables), *s.plots])
    assert not re.search(r"gold_\d|synthetic_(raw|corrected)|_plus_", page)


def test_truth_of_a_simulation() -> None:
    made = a_run("clinic", "simulator")  # the canary states no fact: grade_0 is true of every note
    section = truth_section(dataclasses.replace(made, caption=CAPTION), dict.fromkeys(
        ("llm", "corrected", "kept", "yield", "argmax"), 0.5))  # fmt: skip
    counts = [[int(t) for t in shown(p) if re.fullmatch(r"\d+", t)] for p in section.plots]
    assert counts[0][:4] == [2, 1, 0, 2]  # as meant
    assert counts[1][:4] == [1, 0, 1, 2]  # rows used
    assert all(sum(c) == sum(c[:4]) for c in counts)
    assert CAPTION in journey_lead(dataclasses.replace(made, caption=CAPTION)).points
    assert CAPTION in " ".join(shown(score_plot(made, caption=CAPTION)))


def test_a_run_that_uses_no_note_says_so_and_compares_gold_with_nothing() -> None:
    made = a_run(arms=1)
    unused = made.corrected.map(lambda row: {"label_status": "dropped", "weight": 0.0})
    policy = dataclasses.replace(made.policy, method="gold_only")
    scores = {n: s for n, s in all_scores("esophagitis").items() if n in ("gold_40", "gold_40_plus_raw")}
    source = RunSource("esophagitis", "notes.csv")
    lead = journey_lead(dataclasses.replace(made, corrected=unused, policy=policy, scores=scores, source=source))
    value, (low, high) = scores["gold_40"].values["macro_f1"], scores["gold_40"].ci95["macro_f1"]
    assert lead.verdict == f"No synthetic note was used: 40 gold alone: macro-F1 {value:.2f} ({low:.2f}-{high:.2f})."
    assert (lead.state, len(lead.tiles)) == ("unsure", 1)
    assert lead.points[0] == "Chosen by auto: made up."
    assert not [p for p in lead.points if "lower" in p or "worse than" in p]
    assert any("--method posterior" in command for _, command in lead.steps)


def test_uncorrected_notes_that_do_better_are_named() -> None:
    task, truth = load_task("clinic"), [0, 1, 2, 3] * 50
    lost = [0 if t == 3 else t for t in truth]  # grade_3 is never found
    scores = {
        "gold_40": scores_of(task, lost, truth, {"gold": 40}),
        "gold_40_plus_raw": scores_of(task, truth, truth, {"gold": 40, "kept": 60}),
    }
    unused = corrected_rows(task).map(lambda _: {"label_status": "dropped", "weight": 0.0})
    found = run_lead(task, scores, unused, Path("out"))
    assert found.verdict.startswith("No synthetic note was used")
    assert any(p.startswith("Uncorrected notes did better: 40 gold + 60 uncorrected notes reach") for p in found.points)
    both = {**scores, "gold_40_plus_corrected": scores["gold_40"]}
    corrected = run_lead(task, both, corrected_rows(task), Path("out"))
    assert any(p.startswith("Uncorrected notes did better") for p in corrected.points)
    scores["gold_40_plus_raw"] = scores["gold_40"]
    assert not any("did better" in p for p in run_lead(task, scores, unused, Path("out")).points)
