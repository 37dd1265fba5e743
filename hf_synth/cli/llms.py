"""The LLM of a verb: what its options open, and what an answer costs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hf_synth
from hf_synth.cli.options import SIMULATOR, Result
from hf_synth.errors import LLMError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.generation.generation import Estimate
    from hf_synth.llm.questions import Chat
    from hf_synth.task.task import Task

_PATIENCE = 10.0  # seconds in which an endpoint lists its models, and answers a short question
_FEW_MODELS = 5  # names of models in a message


def exemplars_of(task: Task, gold: Dataset, args: Namespace) -> Dataset:
    """Return the gold rows that a prompt may show."""
    from hf_synth.generation.exemplars import choose_exemplars

    return choose_exemplars(task, gold, args.choose, share=args.share, seed=args.seed) if args.choose else gold


def generation_options(gold: Dataset, args: Namespace) -> Result:
    """Return the keywords that `generate` and `estimate` share."""
    n = args.n if args.ratio is None else round(args.ratio * len(gold))
    return {"n": n, "prompt": args.prompt, "balance": args.balance, "max_calls": args.max_calls}


def price_of(args: Namespace) -> tuple[float, float] | None:
    """Return dollars per million tokens read and written; None where no price is known."""
    from hf_synth.llm.gguf_files import is_gguf
    from hf_synth.llm.ledger import PRICES

    local = args.llm == SIMULATOR or is_gguf(args.llm)
    free = (0.0, 0.0) if local and not args.base_url else None
    return tuple(args.price) if args.price else free or PRICES.get(args.llm)


def print_estimate(guess: Estimate, args: Namespace) -> Result:
    """Print and return the estimate of a generation."""
    half = guess.cost_usd / 2 if guess.cost_usd is not None and args.batch else guess.cost_usd
    cost = "its price is not known: give --price" if half is None else f"about ${half:,.2f}"
    print(
        f"{sum(guess.rows.values()):,} notes in {guess.calls:,} calls (at most {guess.most_calls:,}), about "
        f"{guess.prompt_tokens:,} tokens read and {guess.completion_tokens:,} written; {cost}; nothing was asked"
    )
    return {"dry_run": True, **vars(guess), "cost_usd": half}


def journal_path(args: Namespace, beside: Path) -> Path:
    """Return the path of the journal: --journal, or beside some data, or in the working folder."""
    from hf_synth.task.folders import work_folder

    return args.journal or work_folder(beside if beside.exists() else Path()) / "journal.sqlite"


@contextlib.contextmanager
def llm_of(args: Namespace, beside: Path, model: str | None = None) -> Iterator[Chat]:
    """Open an LLM; "simulator" and a GGUF file start a server on this machine for as long as it is needed.

    Args:
        beside: the data next to which the journal lies, unless --journal names another place.
        model: used instead of --llm.

    Raises:
        LLMError: the options contradict each other, or name no endpoint; a local model cannot be started.
    """
    from hf_synth.llm.gguf_files import is_gguf

    model = model or args.llm
    journal = journal_path(args, beside)
    if args.local:
        yield hf_synth.LocalLLM(model, journal=journal, revision=args.revision, sampling=sampling_of(args))
        return
    names = ("concurrency", "budget_usd", "rpm", "tpm", "hedge")
    keywords: Result = {name: getattr(args, name) for name in names}
    keywords |= {} if args.timeout is None else {"timeout": args.timeout}
    keywords |= {"journal": journal, "price": tuple(args.price) if args.price else None}
    keywords["sampling"] = sampling_of(args)
    if is_gguf(model) and not args.base_url:
        if os.environ.get("OPENAI_BASE_URL") and not args.quiet:
            print(
                f"{model} runs on this machine; --base-url asks an endpoint for a model of that name", file=sys.stderr
            )
        own = {"slots": args.slots, "context": args.context, "threads": args.threads}
        with hf_synth.LLM.local_gguf(
            model, **own, **{name: value for name, value in keywords.items() if value is not None}
        ) as served:
            yield served
        return
    if model == SIMULATOR and not args.base_url:
        from hf_synth.demo.simulator import running_simulator

        with running_simulator(seed=args.seed) as url:
            yield hf_synth.LLM(model, base_url=url, **keywords)
        return
    llm = hf_synth.LLM(model, base_url=endpoint_of(args, model), **keywords)
    yield hf_synth.BatchLLM(llm) if args.batch else llm


def check_llm(llm: Any) -> None:
    """Check that an endpoint answers and knows its model, before anything else takes long.

    A server may take names that it does not list. It is then asked one short question of ours. Where the journal holds
    answers already, perhaps all that are needed, a problem is mentioned and is no error.

    Raises:
        LLMError: the endpoint cannot be used.
    """
    from hf_synth.llm.probe import QUESTION, call_within, list_models
    from hf_synth.reports.progress import mention

    if not isinstance(llm, hf_synth.LLM) or llm.weights is not None:
        return  # it runs on this machine, or its batch is sent later

    def ask() -> list[Any]:
        with tempfile.TemporaryDirectory(prefix="hf_synth-", ignore_cleanup_errors=True) as folder:
            asked = replace(llm, journal=Path(folder) / "journal.sqlite", max_retries=0, timeout=_PATIENCE)
            return asked.chat([[{"role": "user", "content": QUESTION}]], access="open")

    problem, near = "", ""
    try:
        listing = list_models(llm, _PATIENCE)
        problem = listing.problem and f"{llm.origin} {listing.problem}"
        if not problem and listing.models and llm.model not in listing.models:
            near = did_you_mean(llm.model, listing.models) or f"; it serves {', '.join(listing.models[:_FEW_MODELS])}"
            call_within(_PATIENCE, ask)
    except LLMError as error:
        problem = f"{error}{near}"
    if not problem or "(503)" in problem:
        return  # a busy server is asked again later
    if len(llm.open_journal()) == 0:
        raise LLMError(problem)
    mention(f"{problem}; the answers in the journal are used")


def endpoint_of(args: Namespace, *models: str) -> str:
    """Return the address of the server.

    Args:
        models: names of the models to ask; one that is almost the name of a local model is pointed out.

    Raises:
        LLMError: none is given.
    """
    from hf_synth.llm.gguf_files import PACKAGED

    endpoint = args.base_url or os.environ.get("OPENAI_BASE_URL")
    if not endpoint:
        local = (SIMULATOR, *(packaged.name for packaged in PACKAGED))
        hint = next(filter(None, (did_you_mean(model, local) for model in models)), "")
        raise LLMError(
            f"give the endpoint with --base-url, e.g. http://127.0.0.1:8000/v1 (or set OPENAI_BASE_URL){hint}"
        )
    return str(endpoint)


def weights_facts(llm: Any, name: str = "weights") -> Result:
    """Return digest and licence of the file that answered, for the manifest; nothing for an endpoint elsewhere."""
    weights = getattr(llm, "weights", None)
    return {} if weights is None else {name: weights.facts}


def sampling_of(args: Namespace) -> Result:
    """Return the fields of --sampling and --max-tokens; None leaves a field out of every question.

    Raises:
        LLMError: one is not NAME=VALUE, or not a parameter that may be set.
    """
    from hf_synth.llm.questions import check_sampling

    fields: Result = {} if args.max_tokens is None else {"max_tokens": args.max_tokens}
    for text in args.sampling:
        name, mark, value = text.partition("=")
        if not mark or not name.isidentifier() or not value:
            raise LLMError(f"--sampling takes NAME=VALUE, e.g. temperature=0.7 or seed=none, not {text!r}")
        try:
            fields[name] = None if value.lower() == "none" else json.loads(value)
        except ValueError:
            fields[name] = value
    check_sampling(fields)
    return fields


@contextlib.contextmanager
def judge_of(task: Task, args: Namespace, model: str, beside: Path) -> Iterator[hf_synth.LLMJudge]:
    """Open a judge.

    Args:
        beside: the data next to which the journal lies.

    Raises:
        LLMError: the options contradict each other, or name no endpoint, or nothing that can judge.
    """
    if model == SIMULATOR and not args.base_url:
        raise LLMError("the simulator cannot judge notes: name a model, and its endpoint with --base-url")
    with llm_of(args, beside, model) as llm:
        yield hf_synth.LLMJudge(task, llm, args.votes, args.logprobs, seed=args.seed)
