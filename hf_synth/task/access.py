"""What the access of something is: of a task, rows, a file or folder, a model, a language model, or several of them.

`overall_access` is the one function that says so. Where several things meet the strictest access holds, and what is
unknown counts as credentialed. Rows and files are looked into here; whatever else is asked about has an attribute
`access`: a task, `models.record.ModelAt`, a `LocalLLM`, a judge.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import types
import weakref
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
_MOST_HELD = 200_000  # objects that are looked into, beside plain values
_PLAIN_TYPES: frozenset[type] = frozenset((str, bytes, int, float, bool, complex, type(None)))
_PLAIN: tuple[type, ...] = (
    *_PLAIN_TYPES,
    type,
    types.ModuleType,
    types.CodeType,
    types.FrameType,
    types.TracebackType,
    Path,
    Task,
)
# of which nothing is looked into but the parts of modules and the items of arrays
_FOREIGN = (
    "numpy", "torch", "transformers", "tokenizers", "datasets", "pyarrow", "pandas", "polars", "openai", "aiohttp",
    "asyncio", "threading", "logging",
)  # fmt: skip
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


def held_access(thing: object) -> Access:
    """Return the strictest access of an object and of what it holds: a wrapper is as strict as the LLM inside it.

    An access is what an attribute `access` says. Attributes of objects and of users' classes, items of containers,
    arguments that are bound, and what users' functions name are looked into. Tasks and rows are not, nor is an object
    of a class of hf_synth that says itself what its access is. An object of which nothing is known is open. Where an
    object holds more than `_MOST_HELD` others, everything in this process that says its access counts.
    """
    found: list[str | None] = ["open"]
    seen: dict[int, object] = {}  # objects by id, which are kept alive: another one could get the id of one that ended
    below = [thing]
    while below:
        one = below.pop()
        if id(one) in seen or issubclass(type(one), _PLAIN):  # not `isinstance`: an object may state another class
            continue
        if len(seen) >= _MOST_HELD:
            found += _accesses_in_process()
            break
        seen[id(one)] = one
        if _root(type(one)) in _FOREIGN:
            below += _held_by_foreign(one)
            continue
        access = _stated(one, sure=one is thing or _says_access(type(one)))
        if isinstance(access, str) or one is thing:
            found.append(access)
        if not _says_access(type(one)):
            below += (part for part in _held(one) if type(part) not in _PLAIN_TYPES)
    return strictest(*found)


def _stated(thing: object, *, sure: bool) -> Any:
    """Return the attribute `access`, "open" where there is none, and "" where it cannot be read.

    Args:
        sure: whether an error is raised: any object may be held, and fail at any question.
    """
    try:
        return getattr(thing, "access", "open")
    except Exception:
        if sure:
            raise
        return "" if any("access" in vars(base) for base in type(thing).__mro__) else "open"


def _root(kind: Any) -> str:
    """Return the package of a class or a function."""
    return str(kind.__module__).partition(".")[0]


def _says_access(kind: type) -> bool:
    """Return whether objects of a class of hf_synth say what their access is, whatever they hold."""
    return _root(kind) == "hf_synth" and any("access" in vars(base) for base in kind.__mro__)


def _is_ours(thing: Any) -> bool:
    """Return whether a class or a function is of hf_synth, or of a library."""
    return _root(thing) in ("hf_synth", *_FOREIGN, *sys.stdlib_module_names)


def _accesses_in_process() -> list[str | None]:
    """Return what the language models and models in this process say; tasks and rows say it by themselves."""
    found: list[str | None] = []
    for one in gc.get_objects():
        if issubclass(type(one), _PLAIN) or not _says_access(type(one)):
            continue
        try:
            found.append(one.access)
        except AttributeError:  # an object that another thread is making
            continue
        except Exception:
            found.append(None)
    return found


def _held_by_foreign(thing: Any) -> Iterator[object]:
    """Yield what containers of libraries hold: the parts of a module of torch, the items of an array of objects."""
    if isinstance(parts := getattr(thing, "__dict__", {}).get("_modules"), dict):
        yield from parts.values()
    elif type(thing).__module__ == "numpy" and getattr(getattr(thing, "dtype", None), "hasobject", False):
        yield from (item for item in thing.ravel().tolist() if type(item) not in _PLAIN_TYPES)


def _held(thing: Any) -> Iterator[object]:
    """Yield what an object holds; nothing that would have to be computed."""
    if isinstance(thing, types.FunctionType):
        yield from (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values(), *vars(thing).values())
        yield from thing.__closure__ or ()
        if not _is_ours(thing):  # what the code of a user's function names in its module
            yield from (thing.__globals__.get(name) for name in thing.__code__.co_names)
        return
    if isinstance(thing, weakref.ref):
        yield thing()
    if isinstance(thing, Mapping) and not isinstance(thing, dict):
        with contextlib.suppress(Exception):  # a user's mapping may compute its values
            yield from thing.values()
    yield from gc.get_referents(thing)  # attributes, items of containers, arguments that are bound
    for base in type(thing).__mro__:
        if base.__module__ != "builtins" and not _is_ours(base):  # attributes and methods of a user's class
            yield from vars(base).values()
