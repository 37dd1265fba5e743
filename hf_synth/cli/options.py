"""Options that several verbs share, and what they stand for: gold, synthetic rows, base models, LLMs and judges."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from argparse import ArgumentParser, Namespace, _ArgumentGroup, _SubParsersAction
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import hf_synth
from hf_synth.correction.methods import DESCRIBED
from hf_synth.errors import AccessError, ColumnError, GoldError, LLMError, ModelError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.generation.generation import Estimate
    from hf_synth.llm.questions import Chat
    from hf_synth.task.task import Task

Result = dict[str, Any]  # what a verb returns for --json
Verbs: TypeAlias = "_SubParsersAction[ArgumentParser]"
ACCESSES = ("open", "restricted", "credentialed")
BALANCES = ("equal", "gold", "fill")
CHOICES = ("random", "balanced", "diverse", "first")
LONG_NOTES = ("auto", "cut", "windows", "windows_mean")
METHODS = ("auto", *DESCRIBED)
LLM_HELP = 'model of the endpoint; a GGUF file or "smollm2": run on this machine; "simulator": offline'
TINY = "tiny"  # the base model that is made on the spot
SIMULATOR = "simulator"  # the LLM that stands in for one, without a network
CLINIC = "clinic"  # the artificial clinic, whose base model is a tiny one unless another is named


# --- options --------------------------------------------------------------------------------------------------------
def add_verb(verbs: Verbs, name: str, line: str, run: Callable[[Namespace], Any] | None = None) -> ArgumentParser:
    """Add the parser of a verb, with the options that every verb has, and the function that runs it."""
    parser = verbs.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--json", action="store_true", help="end with one JSON object on the last line of stdout")
    add("-q", "--quiet", action="store_true", help="no progress, errors only")
    add("--seed", type=int, default=0, help="seed of every random choice (default: 0)")
    return parser


def add_task(parser: ArgumentParser, nargs: str | None = None) -> None:
    """Add TASK."""
    text = 'a task ("mednli:pair", "esophagitis:presence"), a .py file, or a folder that `gold` wrote'
    parser.add_argument("task", metavar="TASK", nargs=nargs, help=text)


def add_gold(parser: ArgumentParser) -> None:
    """Add the gold for training and how much of it is used."""
    parser.add_argument("--gold", type=Path, metavar="PATH", help="raw or exported gold (none for `clinic`)")
    parser.add_argument("--gold-size", type=int, metavar="N", help="use N rows of gold, labels in proportion")


def add_pool(parser: ArgumentParser) -> None:
    """Add synthetic rows in place of an LLM."""
    parser.add_argument("--synthetic", type=Path, metavar="POOL", help="rows made elsewhere, in place of an LLM")
    add_columns(parser)


def add_columns(parser: ArgumentParser) -> None:
    """Add the columns and the access of synthetic rows made elsewhere."""
    parser.add_argument("--text-column", action="append", metavar="NAME", help="text column of rows made elsewhere")
    parser.add_argument("--llm-label-column", default="llm_label", metavar="NAME")
    parser.add_argument("--access", choices=ACCESSES, help="of rows that carry none")


def add_llm(parser: ArgumentParser, *, required: bool) -> None:
    """Add the LLM that writes notes, the options of its prompts, and its endpoint."""
    parser.add_argument("--llm", required=required, metavar="MODEL", help=LLM_HELP)
    group = parser.add_argument_group("what is asked")
    add = group.add_argument
    add("--n", type=int, default=600, help="how many synthetic notes (default: 600)")
    add("--ratio", type=float, metavar="R", help="instead of --n: R notes for each gold note")
    add("--balance", choices=BALANCES, default="equal", help="labels of the new notes (fill: even out the gold's)")
    add_exemplars(group)
    add("--max-calls", type=int, metavar="N", help="stop after N calls (default: three times what is needed at best)")
    add_endpoint(parser)


def add_exemplars(group: _ArgumentGroup) -> None:
    """Add the shape of the prompt and the choice of the gold in it."""
    add = group.add_argument
    add("--prompt", default="examples", metavar="SHAPE", help="examples, attributes, facts, rewrite, or the task's own")
    add("--choose", choices=CHOICES, help="which gold may be shown (default: all; the paper: first)")
    add("--share", type=float, default=0.2, metavar="S", help="with --choose: share of the gold (default: 0.2)")


def add_votes(parser: ArgumentParser) -> None:
    """Add the votes of a judge."""
    parser.add_argument("--votes", type=int, default=5, metavar="N", help="how often each note is judged (default: 5)")
    parser.add_argument("--logprobs", action="store_true", help="probabilities of labels in the place of votes")


def add_endpoint(parser: ArgumentParser) -> None:
    """Add the endpoint of an LLM, its limits and the journal."""
    add = parser.add_argument_group("who is asked").add_argument
    add("--base-url", metavar="URL", help="OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1")
    add(
        "--local",
        action="store_true",
        help="MODEL is a folder, repo id or GGUF file, run in this process by transformers",
    )
    add("--revision", metavar="REV", help="with --local: branch, tag or commit of a repo id")
    add("--batch", action="store_true", help="through the Batch API: half the price, within a day; open data only")
    add("--slots", type=int, metavar="N", help="of a GGUF file: answers written at once (default: 4 for each core)")
    add("--context", type=int, metavar="N", help="of a GGUF file: tokens of a question and its answer (default: 4096)")
    add("--threads", type=int, metavar="N", help="of a GGUF file's server (default: one for each free core)")
    add("--max-tokens", type=int, metavar="N", help="most tokens of an answer, thoughts among them")
    text = "a sampling parameter, e.g. temperature=0.7 or reasoning_effort=low; none leaves it out; may be repeated"
    add("--sampling", action="append", default=[], metavar="NAME=VALUE", help=text)
    add("--concurrency", type=int, metavar="C", help="requests under way at once (default: learnt from the server)")
    add("--timeout", type=float, metavar="S", help="seconds to wait for an answer (default: 120; of a GGUF file 600)")
    add("--rpm", type=float, metavar="N", help="requests a minute that the endpoint allows")
    add("--tpm", type=float, metavar="N", help="tokens a minute that the endpoint allows")
    add("--hedge", action="store_true", help="ask again when an answer is slow; only where answers cost nothing")
    add("--budget-usd", type=float, metavar="USD", help="stop before more than this is spent")
    add("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="dollars per million tokens")
    add("--journal", type=Path, metavar="FILE", help="where answers are kept (default: beside the gold)")


def add_model(parser: ArgumentParser) -> None:
    """Add the base model and how it is trained."""
    text = (
        "folder or repo id of an encoder, e.g. emilyalsentzer/Bio_ClinicalBERT (`hf-synth models` lists more); "
        '"minilm": one that comes with a Python package, without a Hub; '
        '"tiny": one made on the spot, which shows that the software runs (the default of `clinic` alone)'
    )
    parser.add_argument("--base-model", metavar="MODEL", help=text)
    add = parser.add_argument_group("how it is trained").add_argument
    add(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of TrainingArguments; may be repeated"
    )
    add("--base-access", choices=ACCESSES, help="what you state of a base model of which nothing is known (recorded)")
    add("--base-revision", metavar="REV", help="branch, tag or commit of the base model's repository")
    add("--long-notes", choices=LONG_NOTES, default="auto", help="beyond the model's length (default: by their share)")
    add("--class-weights", action="store_true", help="weigh each class by the inverse of its share")
    add("--lora", action="store_true", help="train small matrices beside the frozen weights (needs hf_synth[lora])")
    add("--cache", type=Path, metavar="DIR", help="keep the tokens of texts there, for other trainings on them")


def add_dry_run(parser: ArgumentParser) -> None:
    """Add the estimate of a verb that trains models."""
    text = (
        "say what would be read, trained, asked and written, and about how long: a few steps of the base model are "
        "measured, which is downloaded where it is not here; nothing is written and no LLM asked"
    )
    parser.add_argument("--dry-run", action="store_true", help=text)


# --- rows -----------------------------------------------------------------------------------------------------------
def gold_path(args: Namespace) -> Path | None:
    """Return the path of the gold: --gold, or TASK where it is a folder of exported gold."""
    from hf_synth.task.folders import read_manifest

    exported = args.gold is None and (read_manifest(Path(args.task)) or {}).get("stage") == "gold"
    path: Path | None = Path(args.task) if exported else args.gold
    return path


def gold_of(task: Task, args: Namespace, *, optional: bool = False) -> DatasetDict:
    """Load the gold, every split.

    Args:
        optional: return no split, instead of an error, where the task needs files and no path is named.
    """
    from datasets import DatasetDict

    path = gold_path(args)
    return DatasetDict() if optional and path is None and task.files else hf_synth.load_gold(task, path, seed=args.seed)


def split_of(splits: DatasetDict, name: str) -> Dataset:
    """Return one split of the gold.

    Raises:
        GoldError: there is no such split.
    """
    if name not in splits:
        hint = "; `hf-synth gold ... --validation .1` cuts one off train, by group" if name == "validation" else ""
        raise GoldError(f"the gold has no split {name!r}; it has {', '.join(splits)}{hint}")
    return splits[name]


def training_gold(task: Task, args: Namespace, splits: DatasetDict | None = None) -> Dataset:
    """Return the train split, or the --gold-size rows of it."""
    rows = split_of(splits or gold_of(task, args), "train")
    return hf_synth.subset(task, rows, args.gold_size, seed=args.seed) if args.gold_size else rows


def synthetic_rows(task: Task, args: Namespace) -> Dataset:
    """Read synthetic rows; those made elsewhere are brought into the column contract."""
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.folders import read_manifest
    from hf_synth.task.labels import check_columns

    path = args.synthetic
    rows = read_dataset(path)
    check_access(args.access, rows, path)
    if path.is_dir() and read_manifest(path) is not None and "label_status" in rows.column_names:
        check_columns(task, rows, "llm_label", what=str(path))
        return rows
    columns = {"text_columns": args.text_column, "llm_label_column": args.llm_label_column}
    return hf_synth.adopt(task, rows, **columns, access=args.access, generator=path.stem, file=path)


def check_access(stated: str | None, rows: Dataset, path: Path) -> None:
    """Check that --access does not loosen what rows say of themselves.

    Raises:
        AccessError: it does.
    """
    from hf_synth.task.columns import access_of, strictest

    if stated is not None and "access" in rows.column_names and strictest(found := access_of(rows), stated) != stated:
        raise AccessError(f"{path.name} says of itself that it is {found}: --access {stated} cannot loosen that")


# --- generation and LLMs ---------------------------------------------------------------------------------------------
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
    from hf_synth.llm.llm import PRICES

    free = (0.0, 0.0) if is_gguf(args.llm) and not args.base_url else None
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
        beside: the data that the journal lies beside, unless --journal names another place.
        model: in the place of --llm.

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
    llm = hf_synth.LLM(model, base_url=endpoint_of(args), **keywords)
    yield hf_synth.BatchLLM(llm) if args.batch else llm


def endpoint_of(args: Namespace) -> str:
    """Return the address of the endpoint.

    Raises:
        LLMError: none is given.
    """
    endpoint = args.base_url or os.environ.get("OPENAI_BASE_URL")
    if not endpoint:
        raise LLMError("give the endpoint with --base-url, e.g. http://127.0.0.1:8000/v1 (or set OPENAI_BASE_URL)")
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
        beside: the data that the journal lies beside.

    Raises:
        LLMError: the options contradict each other, or name no endpoint, or nothing that can judge.
    """
    if model == SIMULATOR and not args.base_url:
        raise LLMError("the simulator cannot judge notes: name a model, and its endpoint with --base-url")
    with llm_of(args, beside, model) as llm:
        yield hf_synth.LLMJudge(task, llm, args.votes, args.logprobs, seed=args.seed)


# --- training -------------------------------------------------------------------------------------------------------
def name_value(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is JSON is taken as such.

    Raises:
        ColumnError: it is something else.
    """
    name, mark, value = text.partition("=")
    if not mark or not name.isidentifier():
        raise ColumnError("an option that takes NAME=VALUE was given something else, e.g. --set learning_rate=3e-5")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def training_fields(args: Namespace, *models: str | None) -> Result | None:
    """Return the fields of --set; the tiny models have defaults of their own."""
    fields = dict(map(name_value, args.set))
    if TINY in models:
        from hf_synth.demo.encoder import DEMO_ARGS

        fields = DEMO_ARGS | fields
    return fields or None


def training_options(task: Task, args: Namespace) -> Result:
    """Return the keywords of `train` beside the rows, the base model and the seed."""
    how = {"long_notes": args.long_notes, "lora": args.lora, "class_weights": args.class_weights}
    fields = training_fields(args, base_model_name(task, args))
    base = {"revision": args.base_revision, "base_access": args.base_access}
    return {"args": fields, "cache_dir": args.cache, **base, **how}


def base_model_name(task: Task, args: Namespace) -> str:
    """Return --base-model; without it "tiny" for the artificial clinic, and an error for any other notes.

    Raises:
        ModelError: no base model is named for real notes.
    """
    if args.base_model is not None:
        return str(args.base_model)
    from hf_synth.task.scripts import is_artificial

    if is_artificial(task):
        return TINY
    from hf_synth.models.readiness import models_at_hand

    here = models_at_hand(task.kind)
    raise ModelError(
        f"name the base model with --base-model, here without a network: {', '.join(here) or 'none yet'}; "
        f"`hf-synth models` lists more, and {TINY!r} is made on the spot, which only shows that the software runs"
    )


def base_model(task: Task, args: Namespace, *parts: Dataset) -> str | Path:
    """Return the base model; "tiny" is made from the texts of `parts`.

    An encoder is made of them where all are open, else of artificial notes: a vocabulary holds names. A text2text task
    gets a T5 with a tokenizer of its own texts, as strict as they are.
    """
    name = base_model_name(task, args)
    if name != TINY:
        return name
    from hf_synth.demo.clinic import write_notes
    from hf_synth.demo.encoder import make_encoder, make_seq2seq
    from hf_synth.task.columns import access_of, strictest
    from hf_synth.task.folders import work_folder

    access = strictest(task.access, *map(access_of, parts))
    columns = (*task.text_columns, task.label_column) if task.kind == "text2text" else task.text_columns
    own = access == "open" or task.kind == "text2text"
    texts = [text for part in parts for column in columns for text in part[column][:] if text] if own else []
    texts = texts or [note.text for note in write_notes(3_000, seed=args.seed)]
    out = args.out if args.out.suffix == "" else args.out.parent
    folder = work_folder(out.parent if not out.exists() else out) / f"tiny-{task.name}-{args.seed}"
    if task.kind == "text2text":
        return make_seq2seq(texts, folder, access=access)
    return make_encoder(texts, folder, seed=args.seed)


def say_toy(task: Task, args: Namespace) -> None:
    """Print at the end of a verb that its model is a tiny one, where its notes are not the artificial clinic's."""
    from hf_synth.task.scripts import is_artificial

    if args.base_model == TINY and not is_artificial(task):
        from hf_synth.models.base_models import TOY_NOTE

        print(f"\n{TOY_NOTE}")


# --- printing -------------------------------------------------------------------------------------------------------
def count_text(counts: Mapping[str, int]) -> str:
    """Return counts as a list of words, e.g. "40 kept, 2 dropped"."""
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def progress_of(args: Namespace) -> Callable[[str], None]:
    """Return a function that prints a line of progress to stderr; with --quiet it prints nothing."""
    return (lambda line: None) if args.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
