"""Experiments on sets of labels and on texts; settings that make no sense for them are refused at once."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from support.judges import shown
from support.kinds import ASKED, DRUGS, SETS, T5_ARGS, asked_gold, generated, sets_gold, tiny_t5
from support.kinds import SIGNS as SET_SIGNS
from support.llm_server import Said, serving

from hf_synth.cli.cli import main
from hf_synth.correction.judging import LLMJudge
from hf_synth.errors import OutputError, TaskError
from hf_synth.experiments.experiment import experiment
from hf_synth.experiments.grid import Grid, ScoringProtocol
from hf_synth.gold.adoption import read_dataset
from hf_synth.llm.llm import LLM
from hf_synth.models.linear import linear_fit
from hf_synth.task.folders import write_stage
from hf_synth.task.labels import judged_mask
from hf_synth.task.task import Task

MASKED = replace(SETS, name="masked", partly_judged=True)


def run(task: Task, gold: DatasetDict, made: Any, out: Path, **grid: Any) -> Any:
    options = {name: grid.pop(name) for name in ("args", "audited", "judges") if name in grid}
    plan = Grid(**{"sizes": (40,), "ratios": (1.0,), "seeds": (0,), **grid})
    return experiment(
        task,
        made,
        gold=gold,
        grid=plan,
        out=out,
        processes=0,
        protocol=ScoringProtocol(n_bootstrap=20, drop_seen=True),
        say=lambda line: None,
        **options,
    )


def never(own: Dataset, n: int, seed: int) -> Dataset:
    raise AssertionError("something was asked before it was refused")


def texts_gold() -> DatasetDict:
    return DatasetDict(train=asked_gold(60, 1), test=asked_gold(24, 2))


def wrong_targets(n: int, wrong: int) -> Dataset:
    """Make rows of which the first ones answer with something that no text says."""
    rows = asked_gold(n, 3)
    return generated(ASKED, rows.map(lambda row, i: {"answer": "tomorrow" if i < wrong else row["answer"]},
                                     with_indices=True))  # fmt: skip


def partly(rows: Dataset, share: float) -> Dataset:
    """Leave labels of rows unjudged, and say nothing of them."""
    rng = random.Random(0)
    judged = [[k for k in range(3) if rng.random() < share] for _ in range(len(rows))]
    findings = [[k for k in found if k in seen] for found, seen in zip(rows["findings"], judged, strict=True)]
    told = [{**row, "findings": f, "judged": j} for row, f, j in zip(rows, findings, judged, strict=True)]
    return Dataset.from_list(told, features=MASKED.gold_features())


# --- texts ------------------------------------------------------------------------------------------------------------
def test_target_texts_go_through(tmp_path: Path) -> None:
    base = str(tiny_t5(tmp_path / "t5"))
    arms = ("gold", "augment raw", "augment drop", "synthetic replace", "frequency")
    made = run(ASKED, texts_gold(), wrong_targets(24, 8), tmp_path / "out", arms=arms, base_models=(base,),
               args={**T5_ARGS, "num_train_epochs": 1}, sizes=(24,))  # fmt: skip
    assert not made.failed
    assert made.metric == "token_f1"
    rows = {r["arm"]: r for r in made.rows}
    assert set(rows) == set(arms)
    dropped = read_dataset(made.out / "corrected" / rows["augment drop"]["corrected_key"])
    assert {r for s, r in zip(dropped["label_status"], dropped["reason"], strict=True) if s == "dropped"} == {
        "not_in_text"
    }
    assert rows["augment drop"]["n_dropped"] == rows["augment raw"]["n_train"] - rows["augment drop"]["n_train"] > 4
    assert rows["frequency"]["exact_match"] == pytest.approx(
        max(texts_gold()["test"]["answer"].count(d) for d in DRUGS) / 24, abs=0.3
    )
    for row in made.rows:
        assert 0 <= row["rougeL_low"] <= row["rougeL"] <= row["rougeL_high"] <= 1
        assert (row["gold_budget"], row["confusion"], row["subgroups"]) == (24, "[]", "[]")
    results = load_dataset(str(made.out / "results"), split="train", cache_dir=str(tmp_path / "cache"))
    assert results["token_f1"] == [r["token_f1"] for r in made.rows]
    told = (made.out / "report.md").read_text(encoding="utf-8")
    for title in ("Score by training mix", "Differences", "What correction did"):
        assert f"## {title}" in told
    assert "Rare classes" not in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"arms": ("augment argmax",)}, "augment argmax.*raw, auto, gold_only, drop, replace"),
        ({"arms": ("augment raw",), "base_models": ("linear",)}, "writes no texts"),
        ({"arms": ("augment drop",), "correctors": ("linear",)}, "writes no texts"),
        ({"arms": ("augment llm_judge",), "judges": {"j": never}}, "does not fit"),
        ({"arms": ("zero-shot",), "judges": {"j": never}}, "chooses among labels"),
        ({"arms": ("augment raw",), "audited": {"a": "x"}}, "single_label tasks only"),
    ],
)
def test_what_makes_no_sense_of_texts_is_said_before_anything_is_asked(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(TaskError, match=said):
        run(ASKED, texts_gold(), {"llm": never}, tmp_path / "out", **{"base_models": ("some-t5",), **more})


def test_the_verb_makes_a_tiny_model_that_writes_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stage(ASKED, texts_gold(), tmp_path / "gold", stage="gold")
    line = ["experiment", str(tmp_path / "gold"), "--strategies", "gold", "--base-model", "tiny", "--dry-run", "--out"]
    assert main([*line, str(tmp_path / "out")]) == 0
    assert "cannot work" not in capsys.readouterr().out
    config = tmp_path / "out" / ".hf_synth" / "tiny-drugs" / "config.json"
    assert json.loads(config.read_text())["model_type"] == "t5"


# --- sets of labels ---------------------------------------------------------------------------------------------------
def test_sets_of_labels_go_through_with_what_nobody_judged(tmp_path: Path) -> None:
    gold = DatasetDict(train=partly(sets_gold(200, 1), 0.7), test=partly(sets_gold(40, 2), 0.6))
    rng = random.Random(0)
    truth = sets_gold(160, 3)
    said = [[k for k in range(3) if (k in found) != (rng.random() < 0.25)] for found in truth["findings"]]
    pool = generated(SETS, truth.map(lambda _, i: {"findings": said[i]}, with_indices=True))
    arms = ("gold", "augment raw", "augment posterior", "frequency")
    made = run(MASKED, gold, pool, tmp_path / "out", arms=arms, sizes=(160,))
    assert not made.failed
    rows = {r["arm"]: r for r in made.rows}
    assert set(rows) == set(arms)
    done = read_dataset(made.out / "corrected" / rows["augment posterior"]["corrected_key"])
    there = {i: set(found) for i, found in zip(truth["id"], truth["findings"], strict=True)}
    wrong = [sum(len(set(row[c]) ^ there[row["id"]]) for row in done) for c in ("llm_label", "findings")]
    assert wrong[1] < 0.8 * wrong[0], "labels are corrected one by one, by the gold that was judged for each"
    assert rows["gold"]["macro_f1"] > rows["frequency"]["macro_f1"]
    results = load_dataset(str(made.out / "results"), split="train", cache_dir=str(tmp_path / "cache"))
    assert results["macro_f1"] == [r["macro_f1"] for r in made.rows]
    assert "## What correction did" in (made.out / "report.md").read_text(encoding="utf-8")
    with pytest.raises(
        TaskError, match="augment clean_drop.*raw, auto, gold_only, argmax, threshold, agree, posterior, llm_judge"
    ):
        run(MASKED, gold, {"llm": never}, tmp_path / "b", arms=("augment clean_drop",))


def test_another_mask_is_other_gold(tmp_path: Path) -> None:
    gold = DatasetDict(train=partly(sets_gold(60, 1), 0.7), test=partly(sets_gold(20, 2), 0.6))
    run(MASKED, gold, None, tmp_path / "out", arms=("gold",))
    every = gold["test"].map(lambda row: {"judged": [0, 1, 2]})
    with pytest.raises(OutputError, match="other gold"):
        run(MASKED, DatasetDict(train=gold["train"], test=every), None, tmp_path / "out", arms=("gold",))


def test_what_nobody_judged_teaches_a_head_nothing() -> None:
    rows = sets_gold(200, 1)
    silent = partly(rows, 0.6)
    # the same rows with every unjudged label said to be absent, which is wrong
    lying = Dataset.from_list([{**row, "judged": [0, 1, 2]} for row in silent], features=MASKED.gold_features())
    test = sets_gold(100, 2)
    truth = np.array([[k in found for k in range(3)] for found in test["findings"]])
    right = [((linear_fit(MASKED, data, test)(data)(test) > 0.5) == truth).mean() for data in (silent, lying)]
    assert right[0] > right[1] + 0.05
    none = Dataset.from_list([{**row, "findings": [], "judged": [0]} for row in rows], features=MASKED.gold_features())
    said = linear_fit(MASKED, none)(none)(none)
    assert said[:, 1:] == pytest.approx(np.full((200, 2), 0.5)), "of a label that nobody judged nothing is known"
    assert judged_mask(MASKED, none).sum() == 200


def by_set_signs(request: dict[str, Any], _: int) -> Said:
    words = set(shown(request)["text"].replace(".", " ").split())
    return Said(json.dumps({"findings": [label for label, signs in SET_SIGNS.items() if words & set(signs)]}))


def test_a_judge_of_sets(tmp_path: Path) -> None:
    gold = DatasetDict(train=sets_gold(60, 1), test=sets_gold(20, 2))
    with serving(by_set_signs) as server:
        llm = LLM("m", base_url=server.url, api_key="none", journal=tmp_path / "journal.sqlite")
        made = run(SETS, gold, generated(SETS, sets_gold(40, 3)), tmp_path / "out", judges=LLMJudge(SETS, llm, 1),
                   arms=("gold", "augment llm_judge", "zero-shot"))  # fmt: skip
    assert not made.failed
    rows = {r["arm"]: r for r in made.rows}
    assert rows["zero-shot"]["macro_f1"] == 1
    assert rows["augment llm_judge"]["policy"] == "posterior"
    assert rows["augment llm_judge"]["judge_calls"] == 80
