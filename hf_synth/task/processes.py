"""Processes that a launcher starts together, as it says in the environment: torchrun, srun or mpirun."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from hf_synth.errors import UsageError

_JOINED = ("WORLD_SIZE", "RANK")  # of torchrun and accelerate, whose processes find each other
# Of launchers whose processes know nothing of each other: number of processes, number of this one.
_APART = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
)
_MEETING = ("RANK", "MASTER_ADDR")  # needed beside WORLD_SIZE by processes that are to find each other


@dataclass(frozen=True)
class Started:
    """Processes that were started together, this one among them.

    Args:
        number: of this process, from 0 on.
        of: how many there are.
        by: the variable that says so; "" where none does.
    """

    number: int = 0
    of: int = 1
    by: str = ""


def started() -> Started:
    """Return what the launcher says of this process.

    WORLD_SIZE decides where it is set. In a terminal, srun and mpirun are taken to have started one process.

    Raises:
        UsageError: a variable is no number, or the two contradict each other.
    """
    if _value(_JOINED[0]):
        return _started(*_JOINED)
    if not _in_terminal():
        for size, rank in _APART:
            if _value(size):
                return _started(size, rank)
    return Started()


def joined_processes() -> int:
    """Return how many processes train one model together.

    Raises:
        UsageError: several processes were started that do not find each other, so that each would train alone.
    """
    world = started()
    if world.of == 1:
        return 1
    lacking = [name for name in _MEETING if not _value(name)]
    if world.by != _JOINED[0] or lacking:
        why = f" without {' and '.join(lacking)}" if world.by == _JOINED[0] else ""
        raise UsageError(
            f"{world.of} processes were started ({world.by}{why}), and each would train alone on all rows: start one "
            "process; or start them with torchrun, which joins them; or set WORLD_SIZE=1 where each has a model of its "
            "own to train"
        )
    return world.of


def is_chief() -> bool:
    """Return whether this process prints, writes and removes, of those that train together.

    A RANK without a WORLD_SIZE above 1 says nothing: the only process would write no model.
    """
    return _value("WORLD_SIZE") in ("", "0", "1") or _value("RANK") in ("", "0")


def _in_terminal() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # it is closed
        return False


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()


def _started(size: str, rank: str) -> Started:
    of, number = _number(size), _number(rank)
    if of <= 1:
        return Started()
    if number >= of:
        raise UsageError(f"the environment has {rank}={number} of {size}={of}: numbers begin with 0")
    return Started(number, of, size)


def _number(name: str) -> int:
    value = _value(name)
    if value and not (value.isascii() and value.isdigit()):
        raise UsageError(f"the environment has {name}={value!r}, which is no number of processes: set or unset it")
    return int(value or 0)
