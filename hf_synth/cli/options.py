"""From options of the command line to what they mean: gold, values, what writes, what judges."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import runpy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, HfSynthError, LLMError
from hf_synth.task.folders import read_manifest, work_folder

if TYPE_CHECKING:
    from hf_synth.correction.judging import LLMJudge
    from hf_synth.llm.questions import Chat
    from hf_synth.task.task import Task


def gold_path(args: argparse.Namespace) -> Path | None:
    """Give the gold of the options; where the task is an exported folder, that folder is its gold."""
    if args.gold is None and (read_manifest(Path(args.task)) or {}).get("stage") == "gold":
        return Path(args.task)
    path: Path | None = args.gold
    return path


def name_value(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is JSON is taken as such.

    Raises:
        ColumnError: it is something else.
    """
    name, mark, value = text.partition("=")
    if not mark or not name.isidentifier():
        raise ColumnError(f"this option takes NAME=VALUE; got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def finder_of(named: str) -> Callable[[str], Iterable[str]]:
    """Give a finder of identifiers by name, FILE.py:FUNCTION or MODULE:FUNCTION: from a text to the kinds in it.

    Raises:
        HfSynthError: there is no such function, or its file cannot be imported.
    """
    where, mark, name = named.rpartition(":")
    if not mark or not where or not name.isidentifier():
        raise HfSynthError(f"--find-identifiers takes FILE.py:FUNCTION or MODULE:FUNCTION; got {named!r}")
    try:
        found = runpy.run_path(where) if where.endswith(".py") else vars(importlib.import_module(where))
    except Exception as error:  # code of the user's own
        raise HfSynthError(f"--find-identifiers: {where} cannot be imported ({type(error).__name__})") from None
    if not callable(found.get(name)):
        raise HfSynthError(f"--find-identifiers: {where} has no function {name!r}")
    finder: Callable[[str], Iterable[str]] = found[name]
    return finder


@contextlib.contextmanager
def writer_of(args: argparse.Namespace, beside: Path) -> Iterator[Chat]:
    """Give what writes by the options; "simulator" starts the offline simulator for as long as it is needed.

    Args:
        beside: the data that the journal is to lie beside, unless --journal names another place.

    Raises:
        LLMError: the options contradict each other, or name no endpoint.
    """
    from hf_synth.llm.llm import LLM

    journal = args.journal or work_folder(beside if beside.exists() else Path()) / "journal.sqlite"
    if args.local:
        if args.base_url or args.batch or args.rpm or args.tpm or args.hedge:
            raise LLMError("--local asks a model in this process: --base-url, --batch, --rpm, --tpm, --hedge do not go")
        from hf_synth.llm.local import LocalLLM

        yield LocalLLM(args.llm, journal=journal, revision=args.revision)
        return
    options: dict[str, Any] = {
        "concurrency": args.concurrency, "journal": journal, "budget_usd": args.budget_usd,
        "price": tuple(args.price) if args.price else None, "rpm": args.rpm, "tpm": args.tpm, "hedge": args.hedge,
    }  # fmt: skip
    if args.llm == "simulator" and not args.base_url:
        from hf_synth.demo.simulator import running_simulator

        with running_simulator(seed=args.seed) as url:
            yield LLM("simulator", base_url=url, **options)
        return
    if not args.base_url and not os.environ.get("OPENAI_BASE_URL"):
        raise LLMError("give the endpoint with --base-url, e.g. http://127.0.0.1:8000/v1 (or set OPENAI_BASE_URL)")
    llm = LLM(args.llm, base_url=args.base_url or os.environ["OPENAI_BASE_URL"], **options)
    if args.batch:
        from hf_synth.llm.batch import BatchLLM

        yield BatchLLM(llm)
    else:
        yield llm


@contextlib.contextmanager
def judge_of(task: Task, args: argparse.Namespace, model: str, beside: Path) -> Iterator[LLMJudge]:
    """Give a judge by the options.

    Args:
        model: what judges.
        beside: the data that the journal is to lie beside.

    Raises:
        LLMError: the options contradict each other, or name no endpoint, or nothing that can judge.
    """
    from hf_synth.correction.judging import LLMJudge

    if model == "simulator" and not args.base_url:
        raise LLMError("the simulator writes notes, it judges none: name a model and its endpoint with --base-url")
    with writer_of(argparse.Namespace(**{**vars(args), "llm": model}), beside) as llm:
        yield LLMJudge(task, llm, args.votes, args.logprobs, seed=args.seed)
