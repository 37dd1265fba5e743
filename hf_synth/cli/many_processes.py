"""A verb that is started several times: `train` alone is made for it, and one of its processes prints results."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from hf_synth.errors import UsageError
from hf_synth.task.processes import is_chief, joined_processes, started

_PARALLEL_VERBS = ("train",)  # verbs whose processes work together


def check_one_process(verb: str, shard: str | None = None) -> None:
    """Check that a verb is not started several times at once, unless each process has a shard of its own.

    Args:
        shard: "I/N" where one is computed.

    Raises:
        UsageError: it is, and each process would do all of the work and pay for it.
    """
    if verb in _PARALLEL_VERBS:
        joined_processes()
        return
    world = started()
    if world.of == 1:
        return
    if shard is None:
        raise UsageError(
            f"{world.of} processes were started ({world.by}), and each would do all of `{verb}`: start one process (or "
            "set WORLD_SIZE=1 where each has work of its own); torchrun is for `train`, and --shard I/N spreads other "
            "verbs over machines"
        )
    if not _is_own(shard, world.number, world.of):
        raise UsageError(
            f"{world.of} processes were started ({world.by}), and --shard {shard} in number {world.number} is not its "
            f"own: others would compute it, too; give it {world.number}/{world.of}, and each other one its number"
        )


def _is_own(shard: str, number: int, of: int) -> bool:
    """Return whether no process of another number has this shard, where shards are dealt out one by one or in runs."""
    from hf_synth.cluster.work import parse_shard

    place, shards = parse_shard(shard)
    return place % of == number or place // -(-shards // of) == number


@contextlib.contextmanager
def silence_other_processes(words: Sequence[str]) -> Iterator[None]:
    """Print results in the first process alone; errors, and what a shard did, are printed by every one.

    Args:
        words: of the command line.
    """
    if is_chief() or any(word.partition("=")[0] == "--shard" for word in words):
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
    sys.stdout.flush()
