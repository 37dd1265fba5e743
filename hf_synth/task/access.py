"""The access of rows: what they carry, what the tasks say that they name, and what is joined with it.

Where several things meet the strictest access holds, and what is unknown counts as credentialed. Other answers to the
same question: `folders.recorded_access` for files, `models.record.access_of_model` for models.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hf_synth.errors import TaskError
from hf_synth.task.columns import Access, access_of, strictest
from hf_synth.task.labels import column_of
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

MOST_TASKS = 100  # different values of a column that may name tasks
_TASK_NAME = re.compile(r"[a-z][a-z0-9_]*(?::[a-z0-9_]+)?")


def overall_access(task: Task, *datasets: Dataset, also: Sequence[str | None] = ()) -> Access:
    """Return the strictest access of a task, of rows, and of the tasks that the rows name.

    A task's name cannot loosen the access: a name that is not known counts as credentialed.

    Args:
        also: further accesses to join, e.g. that of the folder's manifest.
    """
    names = {name for rows in datasets for name in column_of(rows, "task")} - {None}
    return strictest(task.access, *also, *map(access_of, datasets), *(_access_of_task(task, name) for name in names))


def known_accesses(task: Task, names: Iterable[Any]) -> list[Access]:
    """Return the accesses of those tasks that are known; in a table made elsewhere `task` may mean anything."""
    found = (_access_of_task(task, name) for name in list(dict.fromkeys(names))[:MOST_TASKS])
    return [strictest(access) for access in found if access is not None]


def _access_of_task(task: Task, name: Any) -> str | None:
    """Return the access of the task that rows name; None for one that is not known. A path is never run."""
    if isinstance(name, str) and _TASK_NAME.fullmatch(name):
        with contextlib.suppress(TaskError):
            return load_task(name).access
    return task.access if name == task.full_name else None
