"""A proposed command repeats the options with which its output was made before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hf_synth.cli.cli import verb_parser
from hf_synth.cli.configured import without_configured
from hf_synth.cli.defaults import keys_of
from hf_synth.cli.journey import Known, command_of
from hf_synth.cli.repeated import REPEATED, repeated_options
from hf_synth.task.columns import MANIFEST, RUN_CONFIG


@pytest.mark.parametrize("verb", REPEATED)
def test_the_options_have_the_defaults_of_the_command_line(verb: str) -> None:
    options = keys_of(verb_parser(verb))
    assert {name: options[name].default for name in REPEATED[verb]} == dict(REPEATED[verb])


def made(folder: Path, toml: str = "", **facts: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / RUN_CONFIG).write_text(toml, encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(facts), encoding="utf-8")
    if not toml:
        (folder / RUN_CONFIG).unlink()
    return folder


def test_what_changes_the_result_is_repeated_and_nothing_else(tmp_path: Path) -> None:
    toml = (
        '[correct]\nmethod = "none"\nvotes = 5\nclass-weights = true\nset = ["max_steps=1", "lr=2"]\ncoverage = 0.9\n'
        'base-url = "http://x.org/v1"\nout = "/etc"\njournal = "/j"\nsplit = "--push"\nlora = "yes"\nconcurrency = 3\n'
    )
    folder = made(tmp_path / "c", toml)
    words = ["--method", "none", "--coverage", "0.9", "--set", "max_steps=1", "--set", "lr=2", "--class-weights"]
    assert repeated_options("correct", {"correct": folder}) == words
    known = Known("clinic", tmp_path, {"correct": folder}, given={"base_model": "m", "set": ["max_steps=7"]})
    command = command_of("correct", known)
    assert command[:4] == ["hf-synth", "correct", "clinic", str(tmp_path / "synthetic")]
    assert command[4:-2] == ["--base-model", "m", "--set", "max_steps=7", *words[:4], "--class-weights"]
    configured = {"base-model": "m", "correct": {"method": "none", "class-weights": True, "set": ["max_steps=7"]}}
    assert without_configured(command, configured)[4:-2] == ["--coverage", "0.9"]
    assert repeated_options("train", {"correct": folder}) == repeated_options("publish", {"publish": folder}) == []


def test_a_judge_takes_the_place_of_a_base_model(tmp_path: Path) -> None:
    folder = made(tmp_path / "c", '[regenerate]\njudge = "j"\nmethod = "llm_judge"\nllm = "w"\n')
    known = Known(
        "clinic", tmp_path, {"correct": folder}, given={"base_model": "m", "base_url": "http://127.0.0.1:9/v1"}
    )
    words = command_of("correct", known)[4:-2]
    assert words == ["--judge", "j", "--method", "llm_judge", "--base-url", "http://127.0.0.1:9/v1"]


def test_a_folder_that_does_not_say_how_it_was_made_has_the_method_of_its_policy(tmp_path: Path) -> None:
    stages = {"correct": made(tmp_path / "c", policy={"method": "none", "figures": {}})}
    assert repeated_options("correct", stages) == ["--method", "none"]
    for policy in ({"method": "none", "figures": {"auto_scores": {}}}, {"method": "evil"}, {"method": 3}, "none", None):
        assert repeated_options("correct", {"correct": made(tmp_path / "c", policy=policy)}) == []
    assert repeated_options("generate", {"generate": made(tmp_path / "g", "[generate")}) == []


def test_reviewed_notes_with_few_wrong_labels_stay_as_they_are(tmp_path: Path) -> None:
    gold = made(tmp_path / "g", from_review={"few_wrong": True})
    assert repeated_options("correct", {"gold": gold}) == ["--method", "none"]
    other = made(tmp_path / "c", '[correct]\nmethod = "posterior"\n')
    assert repeated_options("correct", {"gold": gold, "correct": other}) == ["--method", "posterior"]
    assert repeated_options("correct", {"gold": made(tmp_path / "g", from_review={"few_wrong": False})}) == []
