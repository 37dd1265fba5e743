"""Checks of a model before it is published: its export loads, answers the same, and a membership test is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets
from support.tiny import TINY_ARGS, tiny_base, toy_rows, toy_task

from hf_synth.cli.cli import main
from hf_synth.errors import PublishError
from hf_synth.models.record import model_facts, write_facts
from hf_synth.models.training import train
from hf_synth.privacy.canaries import make_canaries
from hf_synth.privacy.membership import Exposure, membership
from hf_synth.publishing import model_checks as trial
from hf_synth.publishing.loaded_alone import predictions
from hf_synth.publishing.publishing import publish_model
from hf_synth.publishing.release import entries
from hf_synth.task.folders import write_stage
from hf_synth.task.labels import row_digests

TASK = toy_task()
GOLD = toy_rows(90, seed=4)


@pytest.fixture(scope="module")
def grader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grader")
    args = TINY_ARGS | {"num_train_epochs": 2}
    seen = GOLD.select(range(50))
    return train(TASK, seen, base_model=tiny_base(folder / "base"), output_dir=folder / "model", args=args)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_predict_alone", lambda request: predictions(**request))


@pytest.fixture
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- loaded back ----------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("_somewhere_else")
def test_what_leaves_was_loaded_in_a_process_of_its_own(grader: Path, tmp_path: Path) -> None:
    verdict = publish_model(TASK, grader, None, "o/m", gold=GOLD, push=False)
    assert verdict.allowed
    assert "membership: " in verdict.reasons[-1]
    assert "a membership test of this one found: " in (tmp_path / "export" / "m" / "README.md").read_text()
    (entry,) = entries(tmp_path / "export")
    assert (entry["membership"]["members"], entry["membership"]["held_out"]) == (50, 40)


@pytest.mark.usefixtures("_somewhere_else")
def test_what_cannot_be_loaded_leaves_nothing(grader: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(grader, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "nothing-known"}))
    with pytest.raises(PublishError, match=r"cannot be loaded alone \(\w*Error\); nothing was exported") as caught:
        publish_model(TASK, broken, None, "o/m", gold=GOLD, push=False, membership=False)
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "export" / "m").exists()


def _other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    changed = {name: value + 0.5 if name == "classifier.bias" else value for name, value in weights.items()}
    changed["classifier.bias"][0] += 3
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def _turned_labels(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    names = list(config["id2label"].values())
    config["id2label"] = {str(i): name for i, name in enumerate(names[1:] + names[:1])}
    (folder / "config.json").write_text(json.dumps(config))


def _other_words(folder: Path) -> None:
    words = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["tube"], vocabulary["soft"] = vocabulary["soft"], vocabulary["tube"]
    (folder / "tokenizer.json").write_text(json.dumps(words))


def _no_head(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    encoder = {name: value for name, value in weights.items() if "classifier" not in name}
    save_file(encoder, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("change", [_other_weights, _turned_labels, _other_words, _no_head])
def test_what_answers_otherwise_is_refused(grader: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    export = shutil.copytree(grader, tmp_path / "export")
    check = trial.load_check(TASK, grader)
    check(export)
    change(export)
    with pytest.raises(PublishError, match="predicts differently from yours; nothing was exported"):
        check(export)


def test_a_process_that_dies_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"folder": str(tmp_path), "kind": "single_label", "texts": [["x"]], "most": 1}
    monkeypatch.setattr(trial.loaded_alone, "__file__", str(tmp_path / "nowhere.py"))
    with pytest.raises(PublishError, match=r"cannot be loaded alone \(CalledProcessError\); nothing was exported"):
        trial._predict_alone(asked)
    monkeypatch.setattr(trial, "_SECONDS", 0.01)
    with pytest.raises(PublishError, match="it took too long"):
        trial._predict_alone(asked)


# --- membership -----------------------------------------------------------------------------------------------------
def test_a_test_of_membership_takes_a_sample_of_either_side(grader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_ROWS", 30)
    facts = model_facts(grader)
    found, why = trial.membership_of(TASK, grader, facts, [GOLD])
    assert found is not None
    assert (found.members, found.held_out, why) == (30, 30, "")
    assert found.auc is None or 0 < found.auc < 1
    # rows 48 and 50 made one patient: the row outside is no stranger
    groups = ["p" if i in (48, 50) else g for i, g in enumerate(GOLD["group"])]
    monkeypatch.setattr(trial, "_ROWS", 1_000)
    kin = GOLD.remove_columns("group").add_column("group", groups)
    found, _ = trial.membership_of(TASK, grader, facts, [kin.select(range(40)), kin.select(range(40, 90))])
    assert found is not None
    assert (found.members, found.held_out) == (50, 39)


def test_rows_that_only_stopped_the_training_are_of_neither_side(tmp_path: Path) -> None:
    base, args = tiny_base(tmp_path / "base"), TINY_ARGS | {"num_train_epochs": 1}
    held = toy_rows(30, seed=5)
    told: dict[str, Any] = {"base_model": base, "args": args}
    first = train(TASK, GOLD.select(range(40)), held, output_dir=tmp_path / "first", **told)
    both = concatenate_datasets([GOLD, held])
    facts = model_facts(first)
    assert facts["validation_digests"] == sorted(row_digests(TASK, held.select_columns(["text"])))
    assert set(facts["validation_digests"]) < set(facts["row_digests"])  # a leak guard still sees them
    found, _ = trial.membership_of(TASK, first, facts, [both])
    assert found is not None
    assert (found.members, found.held_out) == (40, 50)
    asked = membership(TASK, first, gold=both, held_out=both)
    assert (asked.members, asked.held_out) == (40, 50)
    # what the child learns from is a member, whatever it was to the parent
    told["base_model"] = first
    child = model_facts(train(TASK, held.select(range(10)), output_dir=tmp_path / "child", **told))
    assert child["validation_digests"] == sorted(row_digests(TASK, held.select(range(10, 30)).select_columns(["text"])))
    # facts of an earlier release count such rows and do not name them: of the model, or of its parent
    for untold in ({"validation_rows": 30}, {"validation_rows": 0, "parents": ["0" * 64]}):
        write_facts(first, {k: v for k, v in (facts | untold).items() if k != "validation_digests"})
        early = model_facts(first)
        nothing, why = trial.membership_of(TASK, first, early, [both])
        assert nothing is None
        assert "early stopping alone" in why
        assert str(membership(TASK, first, gold=both, held_out=both)).startswith(
            "membership: not tested: its facts do not separate"
        )
    late = model_facts(train(TASK, GOLD.select(range(10)), output_dir=tmp_path / "late", **told))
    assert late["validation_digests"] is None


def test_why_there_is_no_test_is_said(grader: Path) -> None:
    facts = model_facts(grader)
    writes = replace(TASK, kind="text2text", labels=(), label_meanings=())
    assert trial.membership_of(writes, grader, facts, [GOLD])[1] == "it is for classifiers only"
    assert trial.membership_of(TASK, grader, facts, [])[1] == "there was no gold"
    assert "nothing recorded" in trial.membership_of(TASK, grader, facts | {"row_digests": []}, [GOLD])[1]
    other = toy_task(labels=("a", "b"))
    rows = Dataset.from_list([{"text": row["text"], "label": 0} for row in GOLD])
    assert trial.membership_of(other, grader, facts, [rows]) == (None, "it failed (ModelError)")
    few, _ = trial.membership_of(TASK, grader, facts, [GOLD.select(range(50))])
    assert few is not None
    assert "too few rows to tell" in few.note


# --- canaries -------------------------------------------------------------------------------------------------------
CANARIES = make_canaries(12, references=63, seed=2)


def test_canaries_that_it_never_saw_do_not_hide_those_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = GOLD.select(range(12)).map(
        lambda row, i: {"text": f"{row['text']} {CANARIES.planted[i]}"}, with_indices=True
    )
    digests = row_digests(TASK, gold.select_columns(["text"]))
    knows = CANARIES.planted[9:]  # the last three, which it was trained on

    def losses(task: Any, model: Path, rows: Dataset) -> np.ndarray:
        return np.array([0.0 if any(p in t for p in knows) else 1 + i % 3 for i, t in enumerate(rows["text"])])

    monkeypatch.setattr("hf_synth.privacy.membership.losses", losses)

    def looked(facts: dict[str, Any]) -> Exposure:
        found, why = trial.exposure_of(
            TASK, tmp_path, facts, CANARIES, [gold.select(range(5)), gold.select(range(5, 12))]
        )
        assert found is not None
        assert why == ""
        return found

    learnt = {"row_digests": digests[4:], "validation_rows": 5, "validation_digests": digests[4:9]}
    assert (looked(learnt).bits, looked(learnt).note, looked(learnt).known) == ((6.0, 6.0, 6.0), "", True)
    # facts that do not tell what only stopped the training, and no facts at all, take more, and say so
    mixed = looked({"row_digests": digests[4:], "validation_rows": 5})
    assert (len(mixed.bits), "may be among the places" in str(mixed)) == (8, True)
    everything = looked({"row_digests": []})
    assert (len(everything.bits), everything.known, everything.to_json()["note"]) == (8, False, trial._ALL_PLACES)
    nowhere = trial.exposure_of(TASK, tmp_path, {"row_digests": ["0" * 64]}, CANARIES, [gold])
    assert nowhere == (None, "no canary stands in a labelled row that it was trained on")
    assert trial.exposure_of(TASK, tmp_path, learnt, None, [gold]) == (None, "")


def test_a_measurement_of_exposure_that_fails_says_so(grader: Path) -> None:
    other = toy_task(labels=("a", "b"))
    rows = [{"text": f"{row['text']} {CANARIES.planted[0]}", "label": 0} for row in GOLD.select(range(3))]
    found = trial.exposure_of(other, grader, {"row_digests": []}, CANARIES, [Dataset.from_list(rows)])
    assert found == (None, "it failed (ModelError)")


@pytest.mark.usefixtures("_somewhere_else", "in_this_process")
def test_the_verb_makes_one_unless_told_otherwise(
    grader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = DatasetDict(train=GOLD.select(range(60)), test=GOLD.select(range(60, 90)))
    write_stage(TASK, splits, tmp_path / "gold", stage="gold")
    there = ["publish", "gold", str(grader), "--repo-id", "o/m"]
    assert main(there) == 0
    assert "  - membership: " in capsys.readouterr().out
    assert main([*there, "--no-membership", "--out", "other/m"]) == 0
    assert "no membership test was made: none was wanted" in capsys.readouterr().out
    assert "no\nmembership test was made of this one (none was wanted)" in (tmp_path / "other/m/README.md").read_text()
