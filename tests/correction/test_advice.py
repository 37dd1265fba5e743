"""The metric of `auto`: which options are refused, what the figures and the command say, and when it is advised."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.kinds import SETS, generated, sets_gold
from support.tiny import LABELS, toy_rows
from support.toy_experiment import TASK, as_synthetic, toy_gold

from hf_synth import cluster
from hf_synth.cli.cli import main
from hf_synth.correction.advice import advise_metric
from hf_synth.correction.correction import correct, correct_with_policy, fit_policy
from hf_synth.correction.description import describe
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.correction.policy import Policy
from hf_synth.errors import TaskError
from hf_synth.models.linear import linear_fit
from hf_synth.publishing.card_values import policy_facts
from hf_synth.task.folders import write_stage

GOLD = toy_rows(60, 1)
ROWS = as_synthetic([{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(40, 2))])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"auto_metric": "f1"}, "unknown auto_metric 'f1': give accuracy or macro_f1"),
        ({"method": "agree", "auto_metric": "macro_f1"}, "serves method 'auto' only, and the method is 'agree'"),
    ],
)
def test_a_metric_that_cannot_act_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        CorrectionOptions(**options)  # type: ignore[arg-type]


def test_a_metric_serves_tasks_of_one_label() -> None:
    rows, gold = generated(SETS, sets_gold(8)), sets_gold(20)
    with pytest.raises(
        TaskError, match="auto_metric macro_f1 serves single_label tasks only, and this one is multi_label"
    ):
        correct(SETS, rows, linear_fit(TASK, GOLD), gold=gold, auto_metric="macro_f1")


def test_the_figures_name_the_metric_of_the_promise() -> None:
    fit = linear_fit(TASK, GOLD, ROWS)
    policy = fit_policy(TASK, ROWS, fit, gold=GOLD, auto_metric="macro_f1")
    figures = policy.figures
    assert figures["auto_metric"] == "macro_f1"
    assert set(figures["auto_scores"]) == {"gold_only", "blend", "posterior", "weight", "clean_drop"}
    assert figures["auto_macro_f1_on_held_out_gold"] == figures["auto_scores"][policy.method]
    assert "auto_loss_at_most" not in figures
    audited = {f"s{i}": int(ROWS["label"][i]) for i in range(20)}
    more = fit_policy(TASK, ROWS, fit, gold=GOLD, audited=audited, auto_metric="macro_f1").figures
    assert "on 80 held-out rows" in more["auto_why"]
    if policy.method != "gold_only":
        assert "macro-F1 not below gold only by more than" in figures["auto_why"]
    meanings = {row["meaning"]: row["value"] for row in policy_facts(policy, LABELS)["policy_rows"]}
    [bound] = [value for meaning, value in meanings.items() if "its loss of macro-F1" in meaning]
    assert bound == f"{figures['auto_macro_f1_loss_at_most']:.3f}"
    assert "macro_f1" in str(describe(correct(TASK, ROWS, fit, gold=GOLD, auto_metric="macro_f1"), policy))
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))).figures == figures
    by_accuracy = correct_with_policy(TASK, ROWS, fit, gold=GOLD)[1].figures
    assert not [name for name in by_accuracy if "macro" in name or name == "auto_metric"]


def test_the_command_takes_the_metric(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stage(TASK, GOLD, tmp_path / "gold", stage="gold")
    write_stage(TASK, ROWS, tmp_path / "rows", stage="generate")
    monkeypatch.setattr("hf_synth.models.training.trainer_fit", lambda task, **_: linear_fit(task, GOLD))
    line = ["correct", str(tmp_path / "gold"), str(tmp_path / "rows"), "--gold", str(tmp_path / "gold"), "-q", "--json"]
    line += ["--out", str(tmp_path / "out"), "--base-model", str(base), "--auto-metric", "macro_f1"]
    assert main(line) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["auto_metric"] == "macro_f1"
    assert main([*line, "--method", "agree"]) == 1
    assert "serves method 'auto' only" in capsys.readouterr().err
    write_stage(TASK, toy_gold(), tmp_path / "both", stage="gold")
    run = ["run", str(tmp_path / "both"), "--synthetic", str(tmp_path / "rows"), "--gold", str(tmp_path / "both")]
    run += ["--out", str(tmp_path / "run"), "--base-model", str(base), "--auto-metric", "macro_f1", "-q"]
    assert main([*run, "--method", "none"]) == 1
    assert "serves method 'auto' only" in capsys.readouterr().err
    asked: list[CorrectionOptions] = []

    def watching(*_, method: CorrectionOptions, **__):  # type: ignore[no-untyped-def]
        asked.append(method)
        raise TaskError("enough")

    monkeypatch.setattr("hf_synth.experiments.journey.run", watching)
    assert main(run) == 1
    assert asked == [CorrectionOptions("auto", auto_metric="macro_f1")]


def test_a_spread_correction_takes_the_metric(tmp_path: Path) -> None:
    given = {"gold": GOLD, "folder": tmp_path / "blocks", "engine": "here"}
    with pytest.raises(TaskError, match="unknown auto_metric 'f1'"):
        cluster.correct(TASK, ROWS, str(tmp_path), **given, auto_metric="f1")


def test_another_metric_is_advised_where_a_label_is_rare_and_no_row_was_used() -> None:
    common = [i for i, label in enumerate(GOLD["label"]) if label != 2]
    rare = [i for i, label in enumerate(GOLD["label"]) if label == 2]
    gold = GOLD.select([*common, *rare[:2]])
    unused = Policy("gold_only", 3, 1.0, (), (), (), figures={"auto_measured": True})
    said = advise_metric(TASK, gold, unused)
    assert said is not None
    assert f"severe has 2 of {len(common) + 2} gold rows" in said
    assert said.endswith("try --auto-metric macro_f1")
    assert advise_metric(TASK, GOLD, unused) is None, "each label has a third of the rows"
    assert advise_metric(TASK, gold, dataclasses.replace(unused, method="blend")) is None
    assert advise_metric(TASK, gold, dataclasses.replace(unused, figures={})) is None, "gold_only was asked for"
    chosen = {"auto_measured": True, "auto_metric": "macro_f1"}
    assert advise_metric(TASK, gold, dataclasses.replace(unused, figures=chosen)) is None
