"""A verb on many machines: `--shard I/N` or `--engine ray` computes blocks, `hf-synth merge` writes the folder."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.merged import is_merged, note_merged, was_merged
from hf_synth.cli.options import Result
from hf_synth.cli.repeated import MACHINES, words_on_one_machine
from hf_synth.errors import OutputError, UsageError

if TYPE_CHECKING:
    from hf_synth.cluster.work import Work

_COMMAND = "command.toml"  # beside the blocks: what `merge` runs
_WORDS = "words.json"  # the same as it was typed, for the command that comes next
_SHARED = ("generate", "correct", "label", "audit", "publish")  # verbs that have shards
# Options that may differ between machines: no block and no merged row depends on them.
_OF_A_MACHINE = (
    *MACHINES, "accept-failed", "base-url", "concurrency", "timeout", "rpm", "tpm",
    "hedge", "budget-usd", "price", "journal", "slots", "threads", "batch", "cache",
)  # fmt: skip


def add_machines(parser: ArgumentParser, only: str = "", *, asks: bool = True) -> None:
    """Add what spreads a verb over machines.

    Args:
        only: end of the group's title, where another option is needed, e.g. " (with --judge)".
        asks: whether the verb can ask an LLM.
    """
    add = parser.add_argument_group(f"many machines{only}").add_argument
    text = "compute the I-th of N parts of the work (I from 0 to N - 1); then `hf-synth merge DIR` writes the folder"
    add("--shard", metavar="I/N", help=text)
    add("--engine", choices=("ray",), help="compute on Ray (needs hf_synth[ray]), and write the folder")
    text = 'with --engine ray: a running cluster, e.g. "auto" (default: Ray is started on this machine)'
    add("--address", metavar="ADDRESS", help=text)
    text = "with --engine ray: processes at a time (default: one for each core, or for each GPU)"
    add("--workers", type=int, metavar="N", help=text)
    text = "with --engine ray: GPUs of each process (default: 0)"
    add("--gpus-per-worker", type=float, metavar="X", help=text)
    if asks:
        text = "with --shard or --engine: go on without answers that never come (default: an error; ask again later)"
        add("--accept-failed", action="store_true", help=text)


def check_machines(args: Namespace, **unfit: bool) -> bool:
    """Check the options of many machines; return whether they are used.

    Args:
        unfit: options by name that cannot be used with them, and whether they were given.

    Raises:
        UsageError: they contradict each other, or --out is missing.
        OutputError: shards have asked already what this command would ask.
    """
    from hf_synth.cluster.work import parse_shard

    if args.shard is None and args.engine is None and not is_merging(args):
        if args.address or args.workers or args.gpus_per_worker:
            raise UsageError("--address, --workers and --gpus-per-worker need --engine ray")
        if getattr(args, "accept_failed", False):
            raise UsageError("--accept-failed is for --shard and --engine: one process goes on without lost answers")
        if args.out is not None and not any(unfit.get(name) for name in ("dry_run", "preview")):
            check_no_answers(args)
        return False
    if args.shard is not None:
        parse_shard(args.shard)
        if args.engine:
            raise UsageError("--shard and --engine exclude each other: Ray deals out the blocks itself")
    if args.workers is not None and args.workers < 1:
        raise UsageError("--workers is a number of processes, 1 or more")
    for option, given in unfit.items():
        if given:
            raise UsageError(f"--{option.replace('_', '-')} works on one machine only: leave --shard and --engine out")
    if args.out is None:
        raise UsageError("--shard and --engine need --out DIR: the blocks lie in it")
    return True


def blocks_of(args: Namespace) -> Path:
    """Return the folder of the blocks of a command; the command is kept in it for `merge`."""
    from hf_synth.cli.config import without_secrets, write_config
    from hf_synth.task.folders import private_folder, write_private

    folder, values = _folder_of(args)
    private_folder(folder)
    if not is_merging(args):
        kept = {name: value for name, value in values.items() if name not in MACHINES}
        write_config(
            folder / _COMMAND, {args.verb: kept}, comment="What `hf-synth merge` runs once all blocks are there."
        )
        write_private(folder / _WORDS, json.dumps(words_on_one_machine(without_secrets(args.argv))))
    return folder


def how_of(args: Namespace) -> Result:
    """Return where the blocks of a verb that asks an LLM lie, and what is done about lost answers, as arguments."""
    return {"folder": blocks_of(args), "accept_failed": args.accept_failed}


def _folder_of(args: Namespace) -> tuple[Path, Result]:
    """Return the folder of the blocks of a command, and its options."""
    from hf_synth.cli.cli import verb_parser
    from hf_synth.cli.defaults import values_of
    from hf_synth.cluster.work import blocks_folder

    values, _ = values_of(verb_parser(args.verb), args)
    same = {name: value for name, value in values.items() if name not in _OF_A_MACHINE}
    return blocks_folder(args.out, json.dumps([args.verb, same], sort_keys=True)), values


def computed(args: Namespace, work: Work) -> Result | None:
    """Compute what a command asks of the blocks; return the result of a shard, or None where all can be merged now."""
    from hf_synth.cluster.on_ray import run_on_ray
    from hf_synth.cluster.work import parse_shard, run_here, run_to_the_end

    if is_merging(args):
        if work.follow is not None:
            work.check_begun()
            run_to_the_end(work)
        return None
    if args.engine:
        run_on_ray(work, **ray_of(args))
        return None
    number, of = parse_shard(args.shard)
    if not any(work.folder.glob("*.parquet")) and was_merged(args.out, work, _folder_of(args)[1]):
        _remove_blocks(args.out, work.folder)
        why = f"{args.out} was written from its blocks, and all that is read is the same"
        print(f"shard {number}/{of}: nothing to do, since {why}")
        return {"shard": args.shard, "computed": 0, "there_already": 0, "blocks": len(work.places)}
    while work.grow():
        pass
    done, stood = run_here(work, work.shard(number, of))
    then = f"hf-synth merge {shlex.quote(str(args.out))}"
    print(f"shard {number}/{of}: {done:,} blocks computed, {stood:,} there already; next: {then}")
    return {"shard": args.shard, "computed": done, "there_already": stood, "blocks": len(work.places)}


def check_no_answers(args: Namespace) -> None:
    """Check that no answers of shards would be asked for again: without --shard the journal alone is read.

    Raises:
        OutputError: there are blocks of shards of the same command that hold answers or votes.
    """
    from hf_synth.task.folders import WORK

    asks = getattr(args, "judge" if args.verb == "correct" else "llm", None)
    if not asks or not (args.out / WORK).is_dir():
        return
    folder, _ = _folder_of(args)
    if any(folder.glob("*.parquet")):
        raise OutputError(
            f"{args.out} has answers of shards, which {'--engine ray' if args.engine else 'one process'} does not "
            f"read: run the missing shards and `hf-synth merge {shlex.quote(str(args.out))}`, or delete {folder} to "
            "ask again for what the journal lacks"
        )


def ray_of(args: Namespace) -> Result:
    """Return the options of Ray as arguments."""
    return {"workers": args.workers, "address": args.address, "gpus": args.gpus_per_worker or 0}


def clear(args: Namespace, work: Work | None = None) -> None:
    """Delete the blocks of an output once it is written.

    Args:
        work: its blocks; None where it has none.
    """
    from hf_synth.cluster.work import BLOCKS
    from hf_synth.task.folders import WORK

    if work is not None and is_merging(args):
        note_merged(args.out, work, _folder_of(args)[1])
    _remove_blocks(args.out, args.out / WORK / BLOCKS)


def _remove_blocks(out: Path, folder: Path) -> None:
    """Remove a folder of blocks, and the folders above it in the output that are empty then."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        while (folder := folder.parent) != out and out in folder.parents:
            folder.rmdir()


def is_merging(args: Namespace) -> bool:
    """Return whether `merge` runs the verb."""
    return getattr(args, "merging", False) is True


# --- the verb -------------------------------------------------------------------------------------------------------
def add_merge_options(parser: ArgumentParser) -> None:
    """Add the options of `merge`."""
    text = "the folder that the shards named with --out"
    parser.add_argument("folder", type=Path, metavar="DIR", help=text)
    text = "the journal on this machine, for what is asked here (default: the path that the last shard had)"
    parser.add_argument("--journal", type=Path, metavar="PATH", help=text)
    text = "where the LLM is asked from this machine (default: the address that the last shard had)"
    parser.add_argument("--base-url", metavar="URL", help=text)


def merge(args: Namespace) -> Any:
    """Write the folder of a verb whose shards have all been computed, by the command that they were given.

    Raises:
        OutputError: the folder holds no blocks, those of several commands, or not all of them.
        UsageError: the verb asks no LLM, and --journal or --base-url is given.
    """
    from hf_synth.cli.after import run_verb
    from hf_synth.cli.cli import parse_command
    from hf_synth.cli.defaults import RECORDED, values_of, write_run
    from hf_synth.cluster.work import BLOCKS
    from hf_synth.task.folders import WORK

    commands = sorted((args.folder / WORK / BLOCKS).glob(f"*/{_COMMAND}"))
    if not commands and is_merged(args.folder):
        raise OutputError(f"{args.folder} was merged already, and no shard has computed anything since")
    if not commands:
        raise OutputError(f"{args.folder} holds no blocks to merge: run the shards of a verb with --out {args.folder}")
    if len(commands) > 1:
        raise OutputError(
            f"{args.folder} holds blocks of {len(commands)} different commands: delete the folders of the others in "
            f"{args.folder / WORK / BLOCKS}; what each was is in its {_COMMAND}"
        )
    verb = _verb_in(commands[0])
    parser, own = parse_command([verb, "--config", str(commands[0]), "--quiet"])
    own.argv = _words_in(commands[0].with_name(_WORDS)) or own.argv
    own.quiet, own.json, own.config, own.merging, own.out = args.quiet, args.json, None, True, own.out
    for name in ("journal", "base_url"):  # those of a shard may exist on its machine alone
        if (given := getattr(args, name)) is not None:
            if not hasattr(own, name):
                raise UsageError(f"`{verb}` asks no LLM: leave --{name.replace('_', '-')} out")
            setattr(own, name, given)
    if own.out.resolve() != args.folder.resolve():
        raise OutputError(
            f"the blocks of {args.folder} are to be merged into {own.out}: run `merge` where the shards ran"
        )
    values = values_of(parser, own)
    returned = run_verb(own)
    if verb in RECORDED:
        write_run(verb, *values, own.out)
    return returned


def _verb_in(file: Path) -> str:
    """Return the verb that a file of `blocks_of` names.

    Raises:
        OutputError: it names none that has shards.
    """
    from hf_synth.cli.config import read_config

    verbs = [name for name in read_config(file) if name in _SHARED]
    if len(verbs) != 1:
        raise OutputError(f"{file} is no longer what a shard wrote: run one shard again, which writes it, then merge")
    return verbs[0]


def _words_in(file: Path) -> list[str]:
    """Return the words that a shard kept; none of a shard of an earlier version."""
    with contextlib.suppress(OSError, ValueError):
        words = json.loads(file.read_text(encoding="utf-8"))
        return list(map(str, words)) if isinstance(words, list) else []
    return []
