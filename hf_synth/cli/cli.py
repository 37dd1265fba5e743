"""`hf-synth`: the verbs of the command line. Each verb reads the folder that the verb before it wrote.

Results go to stdout in short lines, progress to stderr; with --json the last line of stdout is one JSON object.
An error is one sentence on stderr, without a traceback: it could show text of a note. Exit codes: 0 done, 1 failed or
refused, 2 a wrong command line or configuration, 130 interrupted, 143 ended by SIGTERM (docs/command_line.md). Control
characters of foreign text are printed as escapes (`terminal.py`).
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_synth import __version__
from hf_synth.cli.after import run_verb
from hf_synth.cli.ctrl_c import Stopped, answered_at_once
from hf_synth.cli.defaults import RECORDED, config_for, values_of, write_run
from hf_synth.cli.help import COMMON, EXAMPLES, overview, start_page
from hf_synth.cli.many_processes import check_one_process, silence_other_processes
from hf_synth.cli.options import CLINIC, TINY
from hf_synth.cli.parsing import Parser, complete, read_options, verb_below, verbs_of
from hf_synth.cli.replacing import earlier_output
from hf_synth.cli.stopping import NOTHING
from hf_synth.cli.terminal import plain_streams
from hf_synth.errors import HfSynthError, UsageError, did_you_mean
from hf_synth.reports.progress import shown
from hf_synth.task.processes import is_chief

VERBS = {  # name: (module that holds the verb and its options, line of --help), in the order of the journey
    "init": ("init", "look at a table, ask what is needed, and write hf_synth.toml: later verbs need no options"),
    "doctor": ("doctor", "check this machine, the LLM and the Hub, and say what would stop a journey"),
    "status": ("status", "show which stages a folder holds, what is out of date, and the next command"),
    "tasks": ("gold", "list the tasks and the files that they need"),
    "gold": ("gold", "read gold from its files, and write it as a folder for the verbs below"),
    "new-task": ("gold", "write a commented task script to fill in, and its test"),
    "generate": ("generation", "ask an LLM for synthetic labelled notes"),
    "correct": ("correction", "correct the labels of synthetic notes with a corrector"),
    "regenerate": ("regeneration", "ask again for notes that were dropped, and correct all notes together"),
    "sample": ("labelling", "draw synthetic notes for a person to label, for `correct --audited`"),
    "review": ("review", "look at synthetic notes one by one in a browser on this machine, and label them"),
    "label": ("labelling", "label notes with an LLM: notes without a label, or notes and gold that have one"),
    "augment": ("training", "join gold and corrected notes into a training set"),
    "train": ("training", "fine-tune a model on a training set"),
    "models": ("training", "list base models, and suggest one for a task"),
    "evaluate": ("training", "score a model on gold, label by label"),
    "audit": ("publishing", "compare synthetic notes with gold, and count the rows that must not leave"),
    "publish": ("publishing", "check, describe and publish synthetic notes or a model"),
    "withdraw": ("withdrawal", "withdraw a release, and list what derives from it"),
    "run": ("experiments", "run the whole journey: generate, correct, train on each mixture, evaluate"),
    "experiment": (
        "experiments",
        "train and evaluate every mixture of a grid; a second call goes on where the first ended",
    ),
    "assess": ("experiments", "estimate whether synthetic notes help more than labelling more notes"),
    "demo": ("experiments", "show the whole journey on artificial notes: no network, no key"),
    "merge": ("cluster", "write the folder of a verb whose parts were computed on many machines (--shard)"),
    "journal": ("journal", "list, check, export, delete and join the kept answers of LLMs"),
    "hub": ("hub", "run a local Hub that Hugging Face clients can use"),
    "completion": ("completion", "print a script that completes this command line in bash, zsh or fish"),
}

# verbs whose name is shown while they prepare, and which keep nothing when they are stopped then
_SLOW_VERBS = frozenset(VERBS) - {"tasks", "new-task", "journal", "hub", "review"}
DONE, FAILED, WRONG, INTERRUPTED, ENDED = 0, 1, 2, 130, 143  # exit codes, as docs/command_line.md has them


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    if argv is None:
        _collect_less()
    words = sys.argv[1:] if argv is None else list(argv)
    with plain_streams(), silence_other_processes(words):
        try:
            return _run(words)
        except KeyboardInterrupt:  # while options are read, or a second time while a verb stops
            print("hf-synth: stopped", file=sys.stderr)
            return INTERRUPTED


def _collect_less() -> None:
    """Look for garbage less often in this process, and not at its end: most objects are of imports, which stay."""
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


def verb_parser(name: str) -> Parser:
    """Return the parser of a verb; no other verb's module is imported."""
    file, line = VERBS[name]
    module = importlib.import_module(f"hf_synth.cli.{file}")
    parser = Parser(prog=f"hf-synth {name}", description=line[0].upper() + line[1:] + ".", common=COMMON.get(name, ()))
    function = name.replace("-", "_")
    getattr(module, f"add_{function}_options")(parser)
    parser.set_defaults(run=getattr(module, function, None), verb=name)  # journal and hub have verbs of their own
    if not verbs_of(parser):
        parser.add_shared()
    parser.finish()
    _add_examples(parser)
    return parser


def _add_examples(parser: Parser) -> None:
    parser.examples = EXAMPLES.get(parser.prog.removeprefix("hf-synth "), ())
    for below in verbs_of(parser).values():
        _add_examples(below)


def parse_command(argv: Sequence[str]) -> tuple[Parser, Namespace]:
    """Return the parser of the verb that a command line names, and its options.

    Raises:
        UsageError: the configuration is wrong.
        SystemExit: help was asked for (0), or the command line is wrong (2).
    """
    parser, words = verb_below(verb_parser(argv[0]), argv[1:])
    named, loose = read_options(parser, words)
    args = complete(parser, named, loose, config_for(parser, named, VERBS, verb_parser))
    args.verb, args.argv = argv[0], list(argv)
    return parser, args


def _run(argv: list[str]) -> int:
    if (code := _answer_without_verb(argv)) is not None:
        return code
    try:
        parser, args = parse_command(argv)
    except UsageError as error:
        print(f"hf-synth: {error}", file=sys.stderr)
        return WRONG
    args.started = time.monotonic()
    _quiet_libraries(args.quiet, args.verb)
    clinic = str(getattr(args, "task", "")).partition(":")[0] == CLINIC
    tiny_demo = args.verb == "demo" and not args.real
    named = getattr(args, "base_models", None) or [getattr(args, "base_model", "")]
    if tiny_demo or set(named) & ({TINY, None} if clinic else {TINY}):
        # matrices this small are slower with several threads: on two cores training took several times as long
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = values_of(parser, args)
    try:
        check_one_process(args.verb, getattr(args, "shard", None))
        earlier = earlier_output(args)
        progress = shown(is_chief() and not args.quiet, args.verb if args.verb in _SLOW_VERBS else "")
        with answered_at_once(args.verb in _SLOW_VERBS - {"init"}), progress:  # `init` waits for a person
            result = run_verb(args)
        if earlier is not None and not args.quiet and (line := earlier.replaced()):
            print(line, file=sys.stderr)
        facts, code = result if isinstance(result, tuple) else (result, DONE)
        _write_run(args, options, facts)
        if args.json and facts is not None:
            print(json.dumps(facts))
    except UsageError as error:
        print(f"hf-synth: {error}", file=sys.stderr)
        return WRONG
    except HfSynthError as error:
        print(f"hf-synth: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as stop:
        kept = stop.args[0] if stop.args else NOTHING if args.verb in _SLOW_VERBS else ""
        print(f"hf-synth: stopped{kept and '; '}{kept}", file=sys.stderr)
        return stop.code if isinstance(stop, Stopped) else INTERRUPTED
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        if os.environ.get("HF_SYNTH_DEBUG") == "1":
            raise
        print(
            f"hf-synth: unexpected {type(error).__name__}; set HF_SYNTH_DEBUG=1 for the traceback, which may show text "
            "of your data",
            file=sys.stderr,
        )
        return FAILED
    return int(code)


def _answer_without_verb(argv: list[str]) -> int | None:
    """Answer a command line that names no verb, and return its exit code; None where it names one."""
    if not argv:
        print(start_page(VERBS))
        return DONE
    if argv[0] == "help":
        argv[:] = [*argv[1:], "--help"]
    if argv[0] in ("-h", "--help", "--help-all"):
        print(overview(VERBS))
        return DONE
    if argv[0] == "--version":
        print(f"hf-synth {__version__}")
        return DONE
    if argv[0] in VERBS:
        return None
    if argv[0].startswith("-"):
        problem = f"name the verb before its options ({argv[0]})"
    else:
        problem = f"there is no verb {argv[0]!r}{did_you_mean(argv[0], VERBS) or '; there are ' + ', '.join(VERBS)}"
    print(f"usage: hf-synth VERB [options]\nhf-synth: {problem} (`hf-synth --help` lists the verbs)", file=sys.stderr)
    return WRONG


def _write_run(args: Namespace, options: tuple[dict[str, Any], list[str]], facts: Any) -> None:
    """Write the options of a run into the folder that it wrote."""
    out = getattr(args, "out", None) or (facts.get("out") if isinstance(facts, dict) else None)
    if (
        args.verb in RECORDED
        and out is not None
        and Path(out).is_dir()
        and not {"dry_run", "preview", "shard"} & set(facts or ())
    ):
        write_run(args.verb, *options, Path(out))


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
    if verb == "demo":  # the requests of its local Hub are not shown
        logging.getLogger("hf_synth.hub").setLevel(logging.WARNING)
