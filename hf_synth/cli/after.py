"""What happens around a verb of the journey: its inputs are recorded with its output, and the next command is shown.

This module imports little, since every verb uses it. What knows the journey is imported for the verbs that need it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hf_synth.cli.terminal import one_line

if TYPE_CHECKING:
    from hf_synth.cli.journey import Known
    from hf_synth.cli.stages import Stage

_WITH_INPUTS = ("generate", "correct", "regenerate", "augment", "train", "evaluate")  # what they read is recorded
_WITH_NEXT_COMMAND = ("gold", *_WITH_INPUTS, "sample", "audit", "publish", "run")  # a command follows
WEAK = "weak model: "  # before a command that publishes a model which should not be used yet


def run_verb(args: Namespace) -> Any:
    """Run a verb, record which stages it read, and print the next command; return what the verb returned.

    Nothing is printed with --quiet or --json, after a refusal, or where the verb wrote nothing.
    """
    if args.verb not in _WITH_NEXT_COMMAND:
        return args.run(args)
    from hf_synth.cli.journey import after_verb
    from hf_synth.cli.stages import inputs_of, note_inputs
    from hf_synth.cli.ways import command_after, weakness_before

    weak: list[str] = []

    def follow(stage: Stage, known: Known, rows: int | None) -> list[str] | None:
        weak.extend(filter(None, (weakness_before(stage, known),)))
        return command_after(stage, known, rows)

    inputs: dict[str, str] = {}
    with _log_errors():
        inputs = inputs_of(args) if args.verb in _WITH_INPUTS else {}
    returned = args.run(args)
    result, code = returned if isinstance(returned, tuple) else (returned, 0)
    if code or getattr(args, "shard", None) is not None:
        return returned
    with _log_errors():
        if args.verb in _WITH_INPUTS and not getattr(args, "dry_run", False) and getattr(args, "preview", None) is None:
            note_inputs(args, inputs)
        if not args.quiet and not args.json and (command := after_verb(args, result, follow)) is not None:
            for text in weak:
                print(one_line(f"{WEAK}{text}"))
            print(one_line(f"next: {command}"))
    return returned


@contextlib.contextmanager
def _log_errors() -> Iterator[None]:
    """Log an error within the context instead of raising it: it must not fail a verb whose work is done."""
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("HF_SYNTH_DEBUG") == "1":
            raise
        logging.getLogger(__name__).info("the next command is not known (%s)", type(error).__name__)
