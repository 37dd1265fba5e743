"""The script that defines a task of one's own, which every command has to name.

A folder of data never leads to code: its manifest holds the name of such a task, and no path. The commands that
`status` proposes take the path from the options with which the folders were made, and the script is not run for that.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

from hf_synth.cli.stages import Stage
from hf_synth.task.columns import RUN_CONFIG

UNKNOWN_SCRIPT = "SCRIPT.py"  # in a command, where nothing tells which script it is


def is_script(task: str) -> bool:
    """Return whether TASK, as a command line names it, is a script, perhaps with a config."""
    return task.partition(":")[0].endswith(".py")


def script_of(stages: Sequence[Stage]) -> str | None:
    """Return the script of the task of some stages, as TASK of a command; None where a folder leads to its task.

    It is the script with which the newest of them was made, or SCRIPT.py where that is not known or no longer there. A
    script that lies in the folder of a stage is not named: it may have come with the data.
    """
    from hf_synth.task.scripts import task_names

    named = [(stage.when, task) for stage in stages if (task := _script_of_run(stage.path)) is not None]
    if named:
        return max(named)[1]
    first = next((s for s in stages if s.kind in ("gold", "generate", "correct", "augment")), None)
    if first is None or not first.task or "definition" in first.facts:
        return None
    return None if first.task.partition(":")[0] in task_names() else UNKNOWN_SCRIPT


def _script_of_run(folder: Path) -> str | None:
    """Return the script that the run of a folder was given, relative to the current folder where it lies below it."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        tables = tomllib.loads((folder / RUN_CONFIG).read_text(encoding="utf-8"))
        task = next((table.get("task") for table in tables.values() if isinstance(table, dict)), None)
        if not isinstance(task, str) or not is_script(task):
            return None
        path, colon, config = task.partition(":")
        script = Path(path)
        if not script.is_file() or script.resolve().is_relative_to(folder.resolve()):
            return None
        here = Path(os.getcwd())
        return f"{script.relative_to(here) if script.is_relative_to(here) else script}{colon}{config}"
    return None
