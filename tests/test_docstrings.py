"""The examples in public docstrings run as they stand, with a small task, its gold, a simulated LLM and a local Hub."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.tiny import TINY_ARGS

import hf_synth
from hf_synth import LLM, correct, evaluate, generate, load_gold, load_task, train
from hf_synth.demo.encoder import make_encoder
from hf_synth.demo.simulator import Faults, running_simulator
from hf_synth.hub import connected, running_hub
from hf_synth.models.linear import linear_fit

PUBLIC = sorted(name for name in hf_synth.__all__ if callable(getattr(hf_synth, name)))
SLOW = {"experiment", "withdraw", "publish_model", "train", "evaluate", "compare", "register", "assess"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Yield what the examples take for granted: task, gold, llm, rows, corrector and corrected."""
    folder = tmp_path_factory.mktemp("examples")
    task = load_task("clinic")
    gold = load_gold(task, n_train=60, n_validation=20, n_test=20)
    with running_simulator(faults=Faults(copying=0.0)) as url:
        llm = LLM("simulator", base_url=url, journal=folder / "journal.sqlite")
        rows = generate(task, gold["train"], llm, 40)
        corrector = linear_fit(task, gold["train"], rows)
        corrected = correct(task, rows, corrector, gold=gold["train"], method="agree")
        public = {name: getattr(hf_synth, name) for name in hf_synth.__all__}
        own = {"task": task, "gold": gold, "llm": llm, "rows": rows, "corrector": corrector, "corrected": corrected}
        yield public | own


@pytest.fixture(scope="module")
def trained(names: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the base model, a model trained from it, and its scores."""
    folder = tmp_path_factory.mktemp("model")
    task, gold = names["task"], names["gold"]
    base = make_encoder(gold["train"]["text"][:], folder / "base", seed=0)
    model = train(task, gold["train"], base_model=base, output_dir=folder / "model", args=TINY_ARGS)
    return {"base_model": base, "model": model, "scores": evaluate(task, model, gold["test"])}


def examples(name: str) -> list[doctest.DocTest]:
    text = inspect.getdoc(getattr(hf_synth, name)) or ""
    return [doctest.DocTestParser().get_doctest(text, {}, name, None, None)]


def run(name: str, given: dict[str, Any], folder: Path) -> None:
    (test,) = examples(name)
    test.globs = dict(given)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)
    assert result.attempted > 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    assert examples(name)[0].examples, f"{name} has no example in its docstring"


@pytest.mark.parametrize("name", [n for n in PUBLIC if n not in SLOW])
def test_an_example_runs(name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(name, names, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_an_example_with_models_or_a_hub_runs(
    name: str, names: dict[str, Any], trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name != "withdraw":
        return run(name, names | trained, tmp_path)
    with running_hub(tmp_path / "hub") as hub, connected(hub):
        monkeypatch.setenv("HF_TOKEN", hub.token)
        done = hf_synth.publish_dataset(
            names["task"], names["rows"], "org/synth-notes", gold=names["gold"]["train"], token=hub.token,
            endpoint=hub.url,
        )  # fmt: skip
        assert done.pushed, str(done)
        run(name, names, tmp_path)
    return None
