"""A verb that torchrun starts several times: `train` alone is made for it, and one of its processes prints results."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from hf_synth.errors import UsageError

_PARALLEL_VERBS = ("train",)  # verbs whose processes work together


def is_chief() -> bool:
    """Return whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") in ("", "0")


def check_one_process(verb: str) -> None:
    """Check that a verb is not started several times at once.

    Raises:
        UsageError: it is, and each process would do all of the work and pay for it.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if verb not in _PARALLEL_VERBS and world not in ("", "0", "1"):
        raise UsageError(
            f"{world} processes were started (WORLD_SIZE), and each would do all of `{verb}`: start one process; "
            "torchrun is for `train`, and --shard I/N spreads other verbs over machines"
        )


@contextlib.contextmanager
def silence_other_processes() -> Iterator[None]:
    """Print results in the first process alone; errors are printed by every one."""
    if is_chief():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
    sys.stdout.flush()
