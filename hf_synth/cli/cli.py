"""`hf-synth`: the verbs of the command line. Each verb reads the folder that the verb before it wrote.

Results go to stdout in short lines, progress to stderr; with --json the last line of stdout is one JSON object.
An error is one sentence on stderr and exit code 1, without a traceback: it could show text of a note. Control
characters of foreign text are printed as escapes (`terminal.py`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence

from hf_synth import __version__
from hf_synth.cli.options import CLINIC, TINY, add_verb
from hf_synth.cli.replacing import earlier_output
from hf_synth.cli.stopping import NOTHING
from hf_synth.cli.terminal import plain_streams
from hf_synth.errors import HfSynthError
from hf_synth.reports.progress import shown

VERBS = {  # name: (module that holds the verb and its options, line of --help), in the order of the journey
    "tasks": ("gold", "list the tasks and the files they need"),
    "gold": ("gold", "read gold as its source hands it over and write it as an exported folder"),
    "new-task": ("gold", "write a commented task script to fill in, and its test"),
    "generate": ("generation", "ask an LLM for synthetic labelled notes"),
    "correct": ("correction", "correct the labels of synthetic notes with a corrector"),
    "regenerate": ("regeneration", "ask again for notes that correction dropped, and correct all of them together"),
    "sample": ("labelling", "draw synthetic notes for a person to label; `correct --audited` reads the labels back"),
    "label": ("labelling", "let an LLM label real notes that have no label: the zero-shot baseline"),
    "augment": ("training", "join gold and corrected notes to a training set"),
    "train": ("training", "fine-tune an encoder on a training set"),
    "models": ("training", "list known good base models, and say which suits a task and its notes"),
    "evaluate": ("training", "score a model on gold"),
    "audit": ("publishing", "hold synthetic notes against gold and look for what must not leave; refused: exit 1"),
    "publish": ("publishing", "check, describe and publish synthetic notes or a model; refused: exit 1"),
    "withdraw": ("publishing", "take a release back, and list what derives from it"),
    "run": ("experiments", "the whole journey: correct, train on each mixture, score"),
    "experiment": ("experiments", "train and score every mixture of a grid; goes on where it ended"),
    "assess": ("experiments", "say whether synthetic notes are worth making, or labels are the better buy"),
    "demo": ("experiments", "show the whole journey on artificial notes: no network, no key"),
    "journal": ("journal", "look into the journal of answers, check it, clean it up"),
    "hub": ("hub", "a local Hub that Hugging Face clients can use"),
}

_LONG = frozenset(VERBS) - {"tasks", "new-task", "journal", "hub"}  # verbs whose name is shown while they prepare


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    with plain_streams():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    args = _parser(next((word for word in argv if not word.startswith("-")), "")).parse_args(argv)
    args.argv, args.started = list(argv), time.monotonic()
    _quiet_libraries(args.quiet, args.verb)
    clinic = str(getattr(args, "task", "")).partition(":")[0] == CLINIC
    tiny_demo = args.verb == "demo" and not args.real
    named = getattr(args, "base_models", None) or [getattr(args, "base_model", "")]
    if tiny_demo or set(named) & ({TINY, None} if clinic else {TINY}):
        # matrices this small are slower with several threads: on two cores training took several times as long
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        earlier = earlier_output(args)
        first = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun
        with shown(first and not args.quiet, args.verb if args.verb in _LONG else ""):
            result = args.run(args)
        if earlier is not None and not args.quiet and (line := earlier.replaced()):
            print(line, file=sys.stderr)
        facts, code = result if isinstance(result, tuple) else (result, 0)
        if args.json and facts is not None:
            print(json.dumps(facts))
    except HfSynthError as error:
        print(f"hf-synth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        kept = stop.args[0] if stop.args else NOTHING if args.verb in _LONG else ""
        print(f"hf-synth: stopped{kept and '; '}{kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if os.environ.get("HF_SYNTH_DEBUG") == "1":
            raise
        print(
            f"hf-synth: unexpected {type(error).__name__}; set HF_SYNTH_DEBUG=1 for the traceback, which may show text "
            "of your data",
            file=sys.stderr,
        )
        return 1
    return int(code)


def _parser(verb: str) -> argparse.ArgumentParser:
    """Return the parser of all verbs; only `verb` gets its options, so that no other module is imported."""
    parser = argparse.ArgumentParser(
        prog="hf-synth",
        description="Gold clinical notes in; label-corrected synthetic notes and a better fine-tuned encoder out.",
        epilog="gold -> generate -> correct -> augment -> train -> evaluate -> publish; `run` does it all at once.",
    )
    parser.add_argument("--version", action="version", version=f"hf-synth {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (file, line) in VERBS.items():
        added = add_verb(verbs, name, line)
        if name == verb:
            module = importlib.import_module(f"hf_synth.cli.{file}")
            function = name.replace("-", "_")
            added.set_defaults(run=getattr(module, function, None))  # journal and hub have verbs of their own
            getattr(module, f"add_{function}_options")(added)
    return parser


def _quiet_libraries(quiet: bool, verb: str) -> None:
    """Turn off progress bars and messages of libraries; log our own messages to stderr."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
    noisy = ("httpx", "httpx2", "openai", "datasets", "transformers", "huggingface_hub", "filelock", "urllib3")
    for name in (*noisy, "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if verb == "demo":  # its local Hub is no concern of the user
        logging.getLogger("hf_synth.hub").setLevel(logging.WARNING)
