"""The house stays as docs/design.md draws it: rooms in order, light imports, one file for each outside world."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hf_synth

ROOT = Path(__file__).resolve().parent.parent

# --- the rule -------------------------------------------------------------------------------------------------------
# A module imports only from rooms that stand before its own, or from its own room without a cycle.
ROOMS = (
    "errors", "task", "reports", "gold", "models", "evaluation", "privacy", "llm", "generation", "correction",
    "experiments", "publishing", "cluster", "review", "hub", "demo", "cli",
)  # fmt: skip
STRANGERS = {"publishing": {"experiments"}, "hub": set(ROOMS) - {"errors", "hub"}}  # rooms that do not know each other
WORLDS = {
    "openai": {"llm.llm"},
    "xllamacpp": {"llm.llama_process"},
    "torch": {"models", "llm.decoding", "demo.encoder", "publishing.loaded_alone"},
    "transformers": {"models", "llm.decoding", "demo.encoder", "publishing.loaded_alone"},
    "peft": {"models.training"},
    "matplotlib": {"reports.canvas"},
    "ray": {"cluster.on_ray"},
}
SCRIPTS_MAY = {"task", "gold", "errors", "demo.clinic"}  # what a task script imports


def broken_rules(name: str, targets: set[str]) -> list[str]:
    """Return what a module imports against the rule."""
    room = name.split(".")[0]
    ours = {t.removeprefix("hf_synth.") for t in targets if t.startswith("hf_synth.")}
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) - STRANGERS.get(room, set())
    foreign = sorted(t for t in ours if t.split(".")[0] not in allowed and t != "__version__")
    worlds = {t.split(".")[0] for t in targets} & set(WORLDS)
    return foreign + sorted(w for w in worlds if not {name, room} & WORLDS[w])


# --- what is looked at ----------------------------------------------------------------------------------------------
FORBIDDEN = re.compile(
    r"manager|handler|engine|factory|registry|processor|helper|utils|common|(?<![a-z])base(?!_model|_url|line)"
)


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT / "hf_synth").with_suffix("").parts): path
        for path in sorted((ROOT / "hf_synth").rglob("*.py"))
    }


def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def trees() -> dict[str, list[ast.AST]]:
    """Return the nodes of each module's tree, which many tests look through."""
    return {name: nodes_of(path) for name, path in modules().items()}


def imports(nodes: list[ast.AST]) -> set[str]:
    """Return all that a module imports, inside functions too; `from a import b` counts as a and as a.b."""
    targets: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            targets |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            targets |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    return targets


def test_rooms_import_only_what_stands_before_them() -> None:
    broken = {name: broken_rules(name, imports(nodes)) for name, nodes in trees().items() if "." in name}
    assert {name: rules for name, rules in broken.items() if rules} == {}
    top = {name for name in modules() if "." not in name}
    assert top == {"__init__", "errors"}, "each file lies in a room"
    assert {name.split(".")[0] for name in modules()} - {"__init__"} == set(ROOMS)
    table = re.findall(
        r"^\| `(\w+)(?:/|\.py)`", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert tuple(table[: len(ROOMS)]) == ROOMS, "docs/design.md has the rooms in their order"


def test_one_module_writes_to_a_hub() -> None:
    writes = {
        "create_repo",
        "create_commit",
        "upload_file",
        "upload_folder",
        "delete_repo",
        "delete_file",
        "push_to_hub",
    }
    writes |= {"update_repo_settings", "create_tag", "create_branch", "delete_tag", "super_squash_history", "move_repo"}
    for name, nodes in trees().items():
        calls = {n.func.attr for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
        assert name == "publishing.remote" or name.startswith("hub.") or not calls & writes, f"{name}: {calls & writes}"


def test_the_rule_sees_what_is_forbidden() -> None:
    assert broken_rules("gold.readers", {"hf_synth.correction.audited"}) == ["correction.audited"]
    assert broken_rules("publishing.gate", {"hf_synth.experiments.grid"}) == ["experiments.grid"]
    assert broken_rules("correction.policy", {"torch.nn"}) == ["torch"]
    assert broken_rules("models.linear", {"torch.nn", "hf_synth.task.labels"}) == []


def test_a_room_has_no_cycle() -> None:
    known = set(modules())
    graph = {
        name: {t.removeprefix("hf_synth.") for t in imports(nodes)} & known - {name} for name, nodes in trees().items()
    }
    TopologicalSorter(graph).prepare()


def test_modules_are_imported_by_statements_alone() -> None:
    """`import_module` of a name of ours would not be seen by the rule."""
    for name, nodes in trees().items():
        for node in nodes:
            if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                literal = isinstance(node.args[0], ast.Constant) and str(node.args[0].value).startswith("hf_synth")
                assert not literal, f"{name}, line {node.lineno}"


def test_nothing_names_a_task_script() -> None:
    scripts = sorted((ROOT / "dataset_scripts").glob("[a-z]*.py"))
    assert scripts
    for name, nodes in trees().items():
        named = {i for i in imports(nodes) if i.startswith("hf_synth.dataset_scripts.")}
        assert not named, f"{name} imports {named}"
    for script in scripts:
        ours = {i.removeprefix("hf_synth.") for i in imports(nodes_of(script))}
        for target in ours:
            if target.split(".")[0] in ROOMS:
                assert {target, target.rpartition(".")[0]} & SCRIPTS_MAY, f"{script.name} imports {target}"


def test_public_names_stay_what_they_are() -> None:
    """Importing a submodule sets its name on the package: a public name must not be the name of a module."""
    first = {name: getattr(hf_synth, name) for name in hf_synth.__all__}
    for name in modules():
        if not name.endswith("__main__"):
            importlib.import_module(f"hf_synth.{name}".removesuffix(".__init__"))
    for name in hf_synth.__all__:
        assert getattr(hf_synth, name) is first[name], name
        assert not inspect.ismodule(first[name]), name
    assert not {name.split(".")[0] for name in modules()} & set(hf_synth.__all__)


# Every name that `hf_synth` ever exported: at the top still, or moved with a warning.
PUBLIC = """
    Assessment Attestation Audited BatchLLM Canaries Fact Facts Findings GenerateAndCorrect Grid HfSynthError
    LLM LLMJudge LocalLLM Policy Prompt Scores Subgroup Task Verdict adopt as_streaming_dataset assess audit
    audit_page audit_sample augment choose_exemplars compare correct describe estimate evaluate experiment
    exposure find_subgroups fit_policy flips_by_subgroup frequency_baseline generate gold_equivalence
    hierarchical_bootstrap judge label_notes list_tasks load_gold load_task make_canaries membership metric
    plant publish_dataset publish_model regenerate register score_subgroups subset suggest_base_model
    swap_counterfactual train trainer_fit with_findings withdraw zero_shot_baseline
"""


def test_public_names_are_few_and_old_ones_still_work() -> None:
    top = set(hf_synth.__all__) - {"__version__"}
    assert len(top) < 30
    assert top | set(hf_synth._MODULE_OF) == set(PUBLIC.split())
    for name, module in hf_synth._MODULE_OF.items():
        with pytest.warns(DeprecationWarning, match=f"import it from hf_synth.{module}"):
            assert getattr(hf_synth, name) is getattr(importlib.import_module(f"hf_synth.{module}"), name)
    with pytest.raises(AttributeError):
        hf_synth.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("package", ["hf_synth", "hf_synth.cluster", "hf_synth.gold", "hf_synth.task"])
def test_a_stub_names_what_its_package_hands_on(package: str) -> None:
    stub = ROOT / Path(*package.split(".")) / "__init__.pyi"
    imports_of_stub = [
        n for n in ast.walk(ast.parse(stub.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)
    ]
    assert all(n.level == 1 for n in imports_of_stub), "a stub imports from its own package alone"
    names = {a.name for n in imports_of_stub for a in n.names}
    module = importlib.import_module(package)
    assert names == set(module.__all__) - {"__version__"}
    assert all(getattr(module, name) is not None for name in names)


def test_import_is_light() -> None:
    code = (
        "import sys, hf_synth, hf_synth.cli\n"
        "heavy = {'torch', 'openai', 'datasets', 'transformers', 'evaluate', 'sklearn', 'scipy', 'pandas', "
        "'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The modules with the settings without the rest of their packages, whose import takes five seconds.
SETTINGS_ALONE = """
import importlib.machinery, sys, types
for name in ("datasets", "evaluate", "evaluate.utils"):
    above, _, _ = name.rpartition(".")
    spec = importlib.machinery.PathFinder.find_spec(name, sys.modules[above].__path__ if above else None)
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
"""


@pytest.mark.parametrize("first", ["hf_synth", "huggingface_hub.constants, datasets.config, evaluate.config, hf_synth"])
def test_libraries_send_no_telemetry(first: str) -> None:
    code = (
        f"{SETTINGS_ALONE}import {first}\n"
        "import datasets.config, evaluate.config, huggingface_hub.constants as hub\n"
        "print(hub.HF_HUB_DISABLE_TELEMETRY, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, "
        "evaluate.config.HF_UPDATE_DOWNLOAD_COUNTS)"
    )
    names = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "HF_UPDATE_DOWNLOAD_COUNTS", "DO_NOT_TRACK")
    bare = {name: value for name, value in os.environ.items() if name not in names}

    def told(**more: str) -> list[str]:
        line = [sys.executable, "-c", code]
        return subprocess.run(line, check=True, env=bare | more, capture_output=True, text=True).stdout.split()

    assert told() == ["True", "False", "False"]
    asked_for = told(HF_HUB_DISABLE_TELEMETRY="0", HF_UPDATE_DOWNLOAD_COUNTS="1", DO_NOT_TRACK="0")
    assert asked_for == ["False", "True", "True"], "what the user's environment says stands"


def test_column_names_in_messages_go_through_one_function() -> None:
    """The first note of a table without a header line is the name of a column."""
    told = 0
    for name, nodes in trees().items():
        for text in (n for n in nodes if isinstance(n, ast.JoinedStr)):
            calls = [n for n in ast.walk(text) if isinstance(n, ast.Call) and ast.unparse(n.func) == "names_shown"]
            safe = {id(n) for call in calls for n in ast.walk(call)}
            for node in ast.walk(text):
                if isinstance(node, ast.Attribute) and node.attr in ("column_names", "fieldnames"):
                    told += 1
                    assert id(node) in safe, f"{name}, line {node.lineno}: names of columns in a message"
    assert told >= 3, "the test finds the messages"


def test_names_say_what_they_are() -> None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for name, nodes in trees().items():
        named = [n.name for n in nodes if isinstance(n, kinds)]
        assert not [n for n in [*named, name.rsplit(".", 1)[-1]] if FORBIDDEN.search(n.lower())], name


def test_functions_take_at_most_12_parameters() -> None:
    may_take_more = {
        "models.training.train",
        "publishing.publishing.publish_dataset",
        "publishing.publishing.publish_model",
    }
    for name, nodes in trees().items():
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                a = node.args
                given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
                n = sum(p.arg not in ("self", "cls") for p in given)
                assert n <= 12 or f"{name}.{node.name}" in may_take_more, f"{name}.{node.name} takes {n}"


def test_every_room_is_packaged() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for room in {name.split(".")[0] for name in modules() if "." in name}:
        assert f'"hf_synth.{room}"' in text, room


def test_tests_mirror_the_rooms() -> None:
    """A test file imports none of the others: what several use lies in tests/support or a conftest."""
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        may_import = re.search(r"^\s*(?:from|import)\b.*\btest_|^\s+test_\w+,?$", text, re.M)  # parsing takes long
        for target in imports(nodes_of(path)) if may_import else ():
            assert not target.rpartition(".")[2].startswith("test_"), f"{path.name} imports {target}"
        if path.name.startswith("test_") and path.parent.name != "tests":
            assert path.parent.name in ROOMS, path


def test_version_is_one() -> None:
    assert f'version = "{hf_synth.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"version: {hf_synth.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
