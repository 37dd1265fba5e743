"""The facts of the built-in tasks that `hf-synth tasks` prints.

They are kept in tasks.json: the scripts of the tasks load `datasets`, which takes longer than all the rest.
`python -m hf_synth.cli.task_table` writes the file again from the scripts. A test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.task.task import Task

TASKS = Path(__file__).with_name("tasks.json")
_NAMES = ("name", "config", "version", "kind", "access", "license", "source_url", "unverified", "description")


def task_table() -> list[dict[str, Any]]:
    """Return the facts of every built-in task, without importing its script."""
    rows: list[dict[str, Any]] = json.loads(TASKS.read_text(encoding="utf-8"))
    return rows


def task_facts(task: Task) -> dict[str, Any]:
    """Return the facts of a task as plain values."""
    facts = {"task": task.full_name, **{name: getattr(task, name) for name in _NAMES}}
    facts |= {"labels": list(task.labels), "suites": list(task.suites), "optional": list(task.optional_files)}
    return facts | {"files": {key: list(files) for key, files in task.files.items()}}


if __name__ == "__main__":
    from hf_synth.task.scripts import list_tasks

    TASKS.write_text(json.dumps([task_facts(task) for task in list_tasks()], indent=1) + "\n", encoding="utf-8")
