"""`assess`: its decision where the truth is known, and the cases in which it makes none."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from support.tiny import toy_rows, toy_task

from hf_synth.cli.cli import main
from hf_synth.errors import ColumnError, TaskError
from hf_synth.experiments.assessment import Assessment, _gain_of_labels, assess
from hf_synth.task.folders import write_stage

TASK = toy_task()
WORDS = {label: [f"sign{label}{i}" for i in range(40)] for label in range(3)}  # many ways to say each label


def notes(n: int, seed: int, right: float = 1.0) -> Dataset:
    """Write rows whose label stands in two of 40 words for it, so that many rows are needed to learn them all.

    Args:
        right: share whose label is the one that the text tells.
    """
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        truth = rng.randrange(3)
        label = truth if rng.random() < right else rng.randrange(3)
        words = rng.choices(WORDS[truth], k=2) + rng.choices(["the", "a", "of", "today", "clinic", "plan"], k=8)
        rng.shuffle(words)
        rows.append(TASK.gold_row(f"n{seed}-{i}", f"p{seed}-{i // 2}", label, " ".join(words)))
    return Dataset.from_list(rows, features=TASK.gold_features())


def pilot(n: int, seed: int, right: float) -> Dataset:
    rows = notes(n, seed, right)
    return rows.add_column("llm_label", rows["label"])


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_good_generator_is_worth_it(seed: int) -> None:
    found = assess(TASK, pilot(300, 100 + seed, 0.9), gold=notes(80, seed), repeats=1, seed=seed)
    assert found.decision == "generate"
    assert found.certainty >= 0.8
    assert found.rows in found.pilot
    assert found.pilot[300][1] > 0
    assert str(found).startswith(f"generating is worth it: {'at least' if found.rising else 'about'}")
    assert "more labels" in found.why
    assert "extrapolated from 64 to 114 rows" in found.why  # what it was held against
    assert "a linear head" in found.why


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_labels_at_random_are_not_worth_it(seed: int) -> None:
    found = assess(TASK, pilot(200, 100 + seed, 0.0), gold=notes(80, seed), repeats=1, seed=seed)
    assert found.decision != "generate"
    assert found.rows is None


def test_where_labels_teach_more_they_are_asked_for() -> None:
    """Each label brings much while rows that carry nothing bring nothing."""
    gold, noise = notes(120, 3), pilot(200, 103, 0.0).map(lambda row: {"text": "the clinic plan of today"})
    found = assess(TASK, noise, gold=gold, more=100, repeats=1, seed=3)
    assert found.decision == "label"
    assert found.labelling[0] > 0
    assert str(found).startswith("label 100 more notes instead")
    sentence = str(found).splitlines()[0]
    assert "extrapolated from 96 to 196 rows" in sentence
    assert "a linear head" in sentence


def test_labels_cannot_gain_more_than_is_left() -> None:
    """A straight line through this curve would promise 2.8 points where 1.7 are left."""
    gain = float(_gain_of_labels([60, 120, 240], np.array([[0.735, 0.893, 0.983]]), 50)[0])
    assert 0 < gain < 0.017
    assert float(_gain_of_labels([60, 120, 240], np.array([[0.5, 0.5, 0.5]]), 50)[0]) == pytest.approx(0)


def test_without_a_pilot_it_cannot_be_told() -> None:
    found = assess(TASK, gold=notes(60, 0))
    assert (found.decision, found.rows, found.pilot) == ("cannot_tell", None, {})
    assert "pilot" in found.why
    assert list(found.curve) == [12, 24, 48]
    flat = assess(TASK, gold=toy_rows(200, 1), more=20)
    assert flat.decision == "cannot_tell"
    assert "of a linear head, extrapolated from 160 to 180 rows, is flat" in flat.why


def test_audited_rows_measure_the_generator() -> None:
    rows = pilot(80, 7, 0.7)
    audited = {f"n7-{i}": TASK.labels[i % 3] for i in range(50)}
    found = assess(TASK, rows, gold=notes(60, 0), audited=audited, repeats=1)
    assert found.generator_right is not None
    share, low, high = found.generator_right
    told = sum(rows["llm_label"][i] == i % 3 for i in range(50)) / 50
    assert share == told
    assert low < told < high
    assert found.budget == 60 + 50
    assert "right on audited rows" in str(found)


def test_same_seed_same_answer() -> None:
    one, two = (assess(TASK, pilot(30, 5, 0.8), gold=notes(40, 0), repeats=1, seed=4) for _ in range(2))
    assert one == two


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ColumnError, match="too few for an assessment"):
        assess(TASK, gold=notes(10, 0))
    with pytest.raises(ColumnError, match="too few for an assessment"):
        assess(TASK, pilot(10, 5, 0.8), gold=notes(60, 0))
    with pytest.raises(ColumnError, match="give those rows"):
        assess(TASK, gold=notes(60, 0), audited={"a": "none"})
    with pytest.raises(ColumnError, match="not among the pilot rows"):
        assess(TASK, pilot(40, 5, 0.8), gold=notes(60, 0), audited={"a": "none"})
    with pytest.raises(TaskError, match="single_label"):
        assess(toy_task(kind="multi_label"), gold=notes(60, 0))


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stage(TASK, notes(60, 0), tmp_path / "gold", stage="gold")
    table = tmp_path / "pilot.csv"
    rows = pilot(60, 5, 0.0)
    names = [TASK.labels[i] for i in rows["llm_label"]]
    lines = [f"{i},{t},{n}" for i, t, n in zip(rows["id"], rows["text"], names, strict=True)]
    table.write_text("\n".join(["id,text,llm_label", *lines]) + "\n")
    checked = tmp_path / "audited.csv"
    checked.write_text("id,label\n" + "\n".join(f"{i},{n}" for i, n in zip(rows["id"][:20], names[:20], strict=True)))
    line = ["assess", str(tmp_path / "gold"), "--synthetic", str(table), "--audited", str(checked), "-q", "--json"]
    assert main(line) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["decision"], facts["rows"]) == ("label", None), "labels at random teach nothing"
    assert facts["generator_right"][0] == 1.0
    assert set(facts) == set(Assessment.__dataclass_fields__)
    checked.write_text("row,label\na,b\n")
    assert main(line) == 1
    assert "has no column 'id'; it has 'row', 'label'" in capsys.readouterr().err
