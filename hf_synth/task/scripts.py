"""Load and list tasks: from scripts, from folders that carry their task, to and from JSON."""

from __future__ import annotations

import copyreg
import dataclasses
import hashlib
import importlib
import importlib.util
import json
import pkgutil
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hf_synth.errors import TaskError, did_you_mean
from hf_synth.task.columns import MANIFEST
from hf_synth.task.patterns import check_patterns
from hf_synth.task.task import Prompt, Task

_SCRIPTS = "hf_synth.dataset_scripts"
_FIELDS = (  # of a task made from columns, in the manifest
    "name", "kind", "text_columns", "label_column", "labels", "label_meanings", "targets", "version", "config",
    "metrics", "access", "source_url", "license", "citation", "group_column", "leaks", "partly_judged", "description",
    "language",
)  # fmt: skip


def load_task(name_or_path: str | Path, config: str | None = None) -> Task:
    """Load a task by its name, from a script, or from a folder that `hf-synth gold` wrote.

    Args:
        name_or_path: "mednli", "esophagitis:presence", "my_task.py", "my_task.py:config", or the folder.
        config: the variant, where the name has none; the first one by default.

    Raises:
        TaskError: there is no such task, config or file, or the script defines none.

    Example:
        >>> load_task("clinic").labels
        ('grade_0', 'grade_1', 'grade_2', 'grade_3')
    """
    name = str(name_or_path)
    if (Path(name) / MANIFEST).is_file():
        return _from_manifest(Path(name))
    return _task_of_script(name, config)


def _task_of_script(name: str, config: str | None = None) -> Task:
    if config is None and not name.endswith(".py") and ":" in name:
        name, config = name.rsplit(":", 1)
    tasks = script_tasks(task_script(name))
    if config is None:
        return next(iter(tasks.values()))
    if config not in tasks:
        hint = did_you_mean(config, tasks)
        raise TaskError(f"task {name!r} has no config {config!r}; it has {', '.join(tasks)}{hint}")
    return tasks[config]


def list_tasks() -> list[Task]:
    """Return every task that comes with hf_synth, all configs, in order of name.

    Example:
        >>> "clinic" in [task.full_name for task in list_tasks()]
        True
    """
    return [task for name in task_names() for task in script_tasks(task_script(name)).values()]


def task_names() -> list[str]:
    """Return the names of the tasks that come with hf_synth, in order; their scripts are not imported."""
    package = importlib.import_module(_SCRIPTS)
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def task_script(name_or_path: str) -> ModuleType:
    """Import the script that defines a task: a built-in one by name, or a file by path.

    Raises:
        TaskError: there is no such script, or it cannot be imported.
    """
    if name_or_path.endswith(".py"):
        return _import_file(Path(name_or_path))
    if re.fullmatch(r"[a-z][a-z0-9_]*", name_or_path):
        module = f"{_SCRIPTS}.{name_or_path}"
        if importlib.util.find_spec(module) is not None:
            return importlib.import_module(module)
    if (folder := Path(name_or_path)).is_dir():
        raise TaskError(_no_gold(folder))
    known = task_names()
    hint = did_you_mean(name_or_path, known) or f"; there are {', '.join(known)}, or give the path of a .py file"
    raise TaskError(f"there is no task {name_or_path!r}{hint}")


def _stage_of(manifest: Path) -> str | None:
    """Return the stage that a manifest names; None of a broken one."""
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts.get("stage") if isinstance(facts, dict) else None


def _no_gold(folder: Path) -> str:
    """Return the sentence on a folder that `gold` did not write, with those inside it that it wrote."""
    gold = next((file.parent for file in sorted(folder.glob(f"*/{MANIFEST}")) if _stage_of(file) == "gold"), None)
    hint = f"name {gold}" if gold else "name a task (`hf-synth tasks`), or a folder that `hf-synth gold` wrote"
    return f"{folder} is a folder without gold: {hint}"


def script_tasks(module: ModuleType) -> dict[str, Task]:
    """Return the tasks of a script by config; the first is the default.

    Raises:
        TaskError: the script has no `TASKS`.
    """
    tasks = getattr(module, "TASKS", None)
    if not isinstance(tasks, Mapping) or not tasks or not all(isinstance(t, Task) for t in tasks.values()):
        raise TaskError(f"{module.__name__}: a task script defines TASKS, a dict from config to Task")
    return {c: replace(t, script=_origin(module)) for c, t in tasks.items()}


def task_to_json(task: Task) -> dict[str, Any]:
    """Return a task made from columns as plain values, for the manifest of the folder that holds its rows."""
    return {name: getattr(task, name) for name in _FIELDS} | {"prompts": [vars(p) for p in task.prompts]}


def _from_manifest(folder: Path) -> Task:
    """Load the task of a folder from its manifest, which names a built-in task or holds a definition.

    It never names a path or a script: a folder of data must not run code. Its regular expressions are limited. An
    edited access cannot loosen that of the rows, which carry their own: the strictest wins.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if "definition" not in facts:
            if not re.fullmatch(r"[a-z][a-z0-9_]*(:[a-z0-9_]+)?", facts["task"]):
                raise ValueError
            if facts["task"].partition(":")[0] not in task_names():
                raise TaskError(_needs_script(folder, facts["task"], facts.get("stage")))
            return _task_of_script(facts["task"])
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["definition"].items()}
        prompts = [
            p
            | {"sampling": tuple((k, v) for k, v in p["sampling"])}
            | {"attributes": tuple((k, tuple(v)) for k, v in p.get("attributes", ()))}
            for p in plain.pop("prompts")
        ]
        if not all(name in _FIELDS and _is_plain(value) for name, value in plain.items()):
            raise ValueError
        check_patterns(plain.get("leaks", ()))
        return Task(**plain, prompts=tuple(Prompt(**p) for p in prompts))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TaskError(f"{folder / MANIFEST} names no task; write the folder again with `hf-synth gold`") from None


def _needs_script(folder: Path, task: str, stage: object) -> str:
    """Return the sentence on a folder whose task is defined by a script of the user's own."""
    command = f"hf-synth correct SCRIPT.py NOTES --gold {folder}"
    if stage != "gold":
        command = f"hf-synth review {folder} --task SCRIPT.py"
    return (
        f"the task {task!r} of {folder} is defined by a script, which a folder never names: name it, e.g. `{command}`"
    )


def _is_plain(value: Any) -> bool:
    """Return whether a value is a text, a list of texts, true, false or null."""
    texts = value if isinstance(value, tuple) else (value,)
    return value is None or isinstance(value, bool) or all(isinstance(text, str) for text in texts)


def _origin(module: ModuleType) -> str:
    """Return the name of a built-in script, or the path of another."""
    if module.__name__.startswith(_SCRIPTS + "."):
        return module.__name__.rsplit(".", 1)[1]
    return str(module.__file__)


def is_artificial(task: Task) -> bool:
    """Return whether the notes of a task are of no patient: the built-in `clinic`, not a task of one's own so named."""
    return task.script == "clinic"


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"there is no task script {path.name!r} in {path.parent}")
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise TaskError(f"{path.name} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise TaskError(f"{path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _module_name(path: Path) -> str:
    return f"hf_synth_task_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


class _Script:
    """Stands in a pickle for the script that a task was read from: it is imported before the task's functions are."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _imported, (self._path,)


def _imported(path: str) -> None:
    """Import a script unless this process has it."""
    if _module_name(Path(path)) not in sys.modules:
        _import_file(Path(path))


def _reduced(task: Task) -> tuple[Any, ...]:
    """Return what a pickle holds of a task: a process that never read its script can load it."""
    script = _Script(task.script) if task.script and task.script.endswith(".py") else None
    return _restored, (script, {f.name: getattr(task, f.name) for f in dataclasses.fields(task)})


def _restored(_script: object, fields: dict[str, Any]) -> Task:
    return Task(**fields)


copyreg.pickle(Task, _reduced)
