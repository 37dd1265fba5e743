"""The house stays as docs/design.md draws it: floors, exports, light imports, one room for each outside world."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_synth

ROOT = Path(__file__).resolve().parent.parent

FLOORS = {
    "errors": 0, "task": 0, "audited": 0, "sources": 0, "reading": 0, "folders": 0, "building": 0, "columns": 0,
    "base_models": 0, "machine": 0, "journal": 0, "leases": 0, "questions": 0,
    "endpoints": 0, "replies": 0, "pacing": 0, "calls": 0,
    "folding": 0, "repetition": 0, "overlap": 0, "findings": 0, "identifiers": 0, "canaries": 0, "closeness": 0,
    "rendering": 0, "drawing": 0, "axes": 0, "shares": 0, "plots": 0, "report": 0,
    "starter": 0,
    "hub": 0, "demo.clinic": 0, "demo.clinic_language": 0,
    "gold": 1, "llm": 1, "answers": 1, "prompts": 1, "rows": 0, "loading": 0, "tokens": 0, "windows": 0,
    "modeling": 1, "text2text": 2, "privacy": 1, "audit_report": 1, "memorisation": 2,
    "decoding": 2, "local_llm": 3, "batch_api": 2, "batch": 3,
    "exemplars": 1, "calibration": 1, "noise": 2, "frozen": 1, "statistics": 1, "gates": 2, "generation": 3,
    "correction": 3, "description": 1, "augmentation": 2, "lora": 1, "arguments": 1, "objectives": 2, "record": 1,
    "checkpoints": 1, "training": 3, "metrics": 1, "demographics": 0, "metric_modules": 2, "scoring": 2,
    "evaluation": 3, "demo.simulator": 2, "demo.simulator_language": 0, "demo.encoder": 3,
    "gate": 3, "export": 3, "cards": 4, "publishing": 5, "subgroups": 4, "baselines": 4, "crossfit": 4, "pipeline": 6,
    "transform": 5, "journey": 7, "demo.journey": 8, "backends": 8, "verbs": 9, "journal_verbs": 9, "audit_verbs": 9,
    "hub_verbs": 9, "model_verbs": 9, "cli": 10, "audit_log": 1, "origin": 1, "card_policy": 0, "release": 1,
    "validation": 1, "remote": 4, "withdrawal": 5, "publish_verbs": 9, "journey_report": 5, "likelihood": 3,
    "judging": 4, "label_sets": 5, "target_texts": 5, "regeneration": 7, "judge_verbs": 9, "content": 4,
    "apart": 1, "equivalence": 1, "costs": 2, "head": 2, "grid": 4, "results": 5, "records": 5, "study_figures": 6,
    "study_report": 7, "cells": 7, "processes": 1, "study": 8, "assessment": 6, "study_options": 9,
    "study_verbs": 9, "trial": 4, "loaded_alone": 0, "opinions": 5,
}  # fmt: skip
# floor 0 may use what stands before it here
FLOOR_0_CHAIN = (
    "errors",
    "task",
    "audited",
    "sources",
    "reading",
    "folders",
    "building",
    "columns",
    "machine",
    "journal",
    "leases",
    "questions",
    "endpoints",
    "replies",
    "pacing",
    "calls",
    "folding",
    "repetition",
    "overlap",
    "base_models",
    "rows",
    "tokens",
    "windows",
    "loading",
    "drawing",
    "axes",
    "shares",
    "plots",
    "report",
)

MODEL_ROOMS = {"loading", "modeling", "text2text", "decoding", "demo.encoder"}
MODEL_ROOMS |= {"training", "arguments", "objectives", "record", "likelihood", "loaded_alone"}
WORLDS = {
    "openai": {"llm"},
    "torch": {*MODEL_ROOMS, "checkpoints"},
    "transformers": {*MODEL_ROOMS, "checkpoints"},
    "peft": {"lora"},
}
FORBIDDEN = re.compile(
    r"manager|handler|engine|factory|registry|processor|helper|utils|common|(?<![a-z])base(?!_model|_url|line)"
)


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "hf_synth").rglob("*.py")):
        parts = path.relative_to(ROOT / "hf_synth").with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__") or "__init__"] = path
    return found


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    skip: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skip |= {id(n) for n in ast.walk(node)}
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skip |= {id(n) for n in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def room(name: str) -> str:
    """Give the room a module belongs to: all of hub/ is one."""
    return "hub" if name == "hub" or name.startswith("hub.") else name


ROOMS = sorted({room(n) for n in modules()} - {"__init__", "demo"})


def test_every_room_has_a_floor() -> None:
    assert set(ROOMS) <= set(FLOORS), "give new rooms a floor here and in docs/design.md"


@pytest.mark.parametrize("name", [n for n in modules() if room(n) in ROOMS])
def test_imports_go_down(name: str) -> None:
    here = FLOORS[room(name)]
    for target in imports(modules()[name]):
        if not target.startswith("hf_synth."):
            continue
        other = room(target.removeprefix("hf_synth."))
        if other not in FLOORS or other == room(name):
            continue
        if here == 0 and other in FLOOR_0_CHAIN:
            order = FLOOR_0_CHAIN.index
            assert room(name) not in FLOOR_0_CHAIN or order(other) < order(room(name)), f"{name} imports {other}"
            continue
        same_demo = room(name).startswith("demo.") and other.startswith(room(name))
        assert FLOORS[other] < here or same_demo, f"{name} (floor {here}) imports {other} (floor {FLOORS[other]})"


@pytest.mark.parametrize("world", WORLDS)
def test_one_room_knows_each_outside_world(world: str) -> None:
    rooms = {n for n, path in modules().items() if any(i.split(".")[0] == world for i in imports(path))}
    assert rooms <= WORLDS[world]


def test_nothing_names_a_task_script() -> None:
    scripts = {p.stem for p in (ROOT / "dataset_scripts").glob("*.py")} - {"__init__"}
    for name, path in modules().items():
        named = {i for i in imports(path) if i.startswith("hf_synth.dataset_scripts.")}
        assert not named, f"{name} imports {named}"
    assert scripts


@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "dataset_scripts").glob("[a-z]*.py")))
def test_task_scripts_stand_on_floor_0(script: str) -> None:
    for target in imports(ROOT / "dataset_scripts" / script):
        if target.startswith("hf_synth."):
            other = target.removeprefix("hf_synth.")
            assert FLOORS.get(other, 0) == 0, f"{script} imports {target}"


def test_public_names_stay_what_they_are() -> None:
    """Importing a submodule sets its name on the package: a public name must not be the name of a module."""
    first = {name: getattr(hf_synth, name) for name in hf_synth.__all__}
    for name in modules():
        importlib.import_module("hf_synth" if name == "__init__" else f"hf_synth.{name}")
    for name in hf_synth.__all__:
        assert getattr(hf_synth, name) is first[name], name
        assert not inspect.ismodule(first[name]), name
    assert not {name.split(".")[0] for name in modules()} & set(hf_synth.__all__)


def test_exports_match() -> None:
    stub = ast.parse((ROOT / "hf_synth" / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in stub.body if isinstance(n, ast.If))
    typed = {a.asname or a.name for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed | {"__version__"} == set(hf_synth.__all__)
    assert set(dir(hf_synth)) == set(hf_synth.__all__)
    with pytest.raises(AttributeError):
        hf_synth.nothing_of_the_kind  # noqa: B018


def test_import_is_light() -> None:
    code = (
        "import sys, hf_synth, hf_synth.cli\n"
        "heavy = {'torch', 'openai', 'datasets', 'transformers', 'evaluate', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", modules())
def test_names_say_what_they_are(name: str) -> None:
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    named = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    assert not [n for n in [*named, name.rsplit(".", 1)[-1]] if FORBIDDEN.search(n.lower())]


def test_version_is_one() -> None:
    assert f'version = "{hf_synth.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"version: {hf_synth.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
