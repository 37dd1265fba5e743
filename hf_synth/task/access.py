"""What the access of something is: of a task, rows, a file or folder, a model, a language model, or several of them.

`overall_access` is the one function that says so. Where several things meet the strictest access holds, and what is
unknown counts as credentialed. Rows and files are looked into here; whatever else is asked about has an attribute
`access`: a task, `models.record.ModelAt`, a `LocalLLM`, a judge.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hf_synth.errors import TaskError
from hf_synth.task.columns import Access, access_of, strictest
from hf_synth.task.folders import recorded_access
from hf_synth.task.labels import column_of
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

MOST_TASKS = 100  # different values of a column that may name tasks
_TASK_NAME = re.compile(r"[a-z][a-z0-9_]*(?::[a-z0-9_]+)?")


class HasAccess(Protocol):
    """Something that says itself what its access is."""

    @property
    def access(self) -> str:
        """The access; an unknown one counts as credentialed."""


def overall_access(
    *things: HasAccess | Dataset | DatasetDict | Path, also: Sequence[str | None] = (), named: bool = True
) -> Access:
    """Return the strictest access of several things: tasks, rows, files or folders, models, language models.

    A file or folder has the access that it records (`recorded_access`), and is credentialed where it records none.

    Args:
        things: the first task among them is the one that rows are of.
        also: accesses that were found elsewhere, e.g. that of a folder's manifest.
        named: whether the tasks that rows name count too. A task's name cannot loosen the access: a name that is not
            known counts as credentialed.

    Raises:
        RowError: a manifest or a parquet file is broken.
        ModelError: a model is missing, or its facts are broken.
    """
    task = next((thing for thing in things if isinstance(thing, Task)), None)
    return strictest(*also, *chain.from_iterable(_accesses(thing, task, named) for thing in things))


def _accesses(thing: Any, task: Task | None, named: bool) -> Iterator[str | None]:
    """Yield the accesses that one thing has, whatever it is."""
    if isinstance(thing, Path):
        yield recorded_access(thing)
    elif isinstance(thing, Mapping):  # splits
        yield from chain.from_iterable(_accesses(part, task, named) for part in thing.values())
    elif hasattr(thing, "column_names"):
        yield access_of(thing)
        if named:
            yield from (_access_of_task(task, name) for name in set(column_of(thing, "task")) - {None})
    else:
        yield thing.access


def known_accesses(task: Task, names: Iterable[Any]) -> list[Access]:
    """Return the accesses of those tasks that are known; in a table made elsewhere `task` may mean anything."""
    found = (_access_of_task(task, name) for name in list(dict.fromkeys(names))[:MOST_TASKS])
    return [strictest(access) for access in found if access is not None]


def _access_of_task(task: Task | None, name: Any) -> str | None:
    """Return the access of the task that rows name; None for one that is not known. A path is never run."""
    if isinstance(name, str) and _TASK_NAME.fullmatch(name):
        with contextlib.suppress(TaskError):
            return load_task(name).access
    return task.access if task is not None and name == task.full_name else None
