"""Options that several verbs share, and what they name: gold, synthetic rows, base models."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, _ArgumentGroup, _SubParsersAction
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import hf_synth
from hf_synth.cli.parsing import Parser, exclude
from hf_synth.correction.methods import DESCRIBED, METRICS, CorrectionOptions
from hf_synth.errors import AccessError, ColumnError, GoldError, ModelError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.experiments.next_steps import RunSource
    from hf_synth.task.task import Task

Result = dict[str, Any]  # what a verb returns for --json
Verbs: TypeAlias = "_SubParsersAction[Parser]"
ACCESSES = ("open", "restricted", "credentialed")
BALANCES = ("equal", "gold", "fill")
CHOICES = ("random", "balanced", "diverse", "first")
LONG_NOTES = ("auto", "cut", "windows", "windows_mean")
METHODS = ("auto", *DESCRIBED)
LLM_HELP = (
    'the LLM: a model of the server (--base-url); a GGUF file or "smollm2", run on this machine; or "simulator", '
    "a program that stands in for one, offline"
)
TINY = "tiny"  # the base model that is made on the spot
SIMULATOR = "simulator"  # the LLM that stands in for one, without a network
PACKAGED_LLMS = ("smollm2",)  # names in llm/gguf_files.py, which takes long to import; a test compares the two
CLINIC = "clinic"  # the artificial clinic, whose base model is a tiny one unless another is named


# --- options --------------------------------------------------------------------------------------------------------
def add_verb(verbs: Verbs, name: str, line: str, run: Callable[[Namespace], Any], *, json: bool = True) -> Parser:
    """Add a verb below another one (`hub serve`), with the options that every verb has.

    Args:
        line: what it does, for the help.
        run: the function that runs it.
        json: whether it has a result for --json.
    """
    parser = verbs.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
    parser.set_defaults(run=run)
    parser.add_shared(json=json)
    return parser


def add_seed(parser: ArgumentParser) -> None:
    """Add the seed, for verbs that draw something at random."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (default: 0)")


def add_out(parser: ArgumentParser, text: str, *, required: bool = True) -> None:
    """Add the output folder."""
    parser.add_argument("--out", type=Path, required=required, metavar="DIR", help=text)


def add_task(parser: ArgumentParser, nargs: str | None = None) -> None:
    """Add TASK."""
    text = 'a task ("mednli:pair", "esophagitis:presence"), a .py file, or a folder that `gold` wrote'
    parser.add_argument("task", metavar="TASK", nargs=nargs, help=text)


def add_gold(parser: ArgumentParser) -> None:
    """Add the gold for training and how much of it is used."""
    text = "the gold: a folder that `gold` wrote, or the files of the task (default: TASK, where that is such a folder)"
    parser.add_argument("--gold", type=Path, metavar="PATH", help=text)
    text = "use only N rows of the gold's train split, labels in proportion (default: all)"
    parser.add_argument("--gold-size", type=int, metavar="N", help=text)


def add_pool(parser: ArgumentParser) -> None:
    """Add synthetic rows in place of an LLM."""
    text = "take these synthetic rows instead of asking an LLM: a folder of `generate`, or a file"
    parser.add_argument("--synthetic", type=Path, metavar="POOL", help=text)
    add_columns(parser)


def add_columns(parser: ArgumentParser) -> None:
    """Add the columns and the access of synthetic rows made elsewhere."""
    add = parser.add_argument_group("synthetic rows made by another program").add_argument
    add("--text-column", action="append", metavar="NAME", help="column of the text; give it twice for a pair of texts")
    text = "column of the label that the LLM was asked to write (default: llm_label)"
    add("--llm-label-column", default="llm_label", metavar="NAME", help=text)
    add("--access", choices=ACCESSES, help="access of rows that do not state one")


def add_llm(parser: ArgumentParser, *, required: bool) -> None:
    """Add the LLM that writes notes, the options of its prompts, and its server."""
    parser.add_argument("--llm", required=required, metavar="MODEL", help=LLM_HELP)
    group = parser.add_argument_group("notes and prompt")
    add = group.add_argument
    add("--n", type=int, default=600, metavar="N", help="how many synthetic notes to write (default: 600)")
    add("--ratio", type=float, metavar="R", help="write R notes for each gold row, instead of --n")
    exclude(parser, "--n", "--ratio")
    text = "labels of the new notes: equally many of each, as in the gold, or those that even out the gold"
    add("--balance", choices=BALANCES, default="equal", help=text)
    add_exemplars(group)
    add("--max-calls", type=int, metavar="N", help="stop after N calls (default: three times the fewest possible)")
    add_endpoint(parser)


def add_exemplars(group: _ArgumentGroup) -> None:
    """Add the shape of the prompt and the choice of the gold in it."""
    add = group.add_argument
    text = "form of the prompt: examples, attributes, facts, rewrite, or the name of a prompt of the task"
    add("--prompt", default="examples", metavar="FORM", help=text)
    text = "how the gold rows that prompts may show are chosen (default: all of them; the paper: first)"
    add("--choose", choices=CHOICES, help=text)
    add("--share", type=float, default=0.2, metavar="S", help="share of the gold that --choose takes (default: 0.2)")


def add_votes(parser: ArgumentParser, only: str = "") -> None:
    """Add the votes of a judge.

    Args:
        only: start of the help, where they act only with another option, e.g. "with --judge: ".
    """
    add = parser.add_argument
    text = f"{only}number of times that the LLM judges each note (default: 5)"
    add("--votes", type=int, default=5, metavar="N", help=text)
    add("--logprobs", action="store_true", help=f"{only}use the LLM's probabilities of the labels instead of votes")


def add_endpoint(parser: ArgumentParser) -> None:
    """Add the server of an LLM, its limits and the journal."""
    add = parser.add_argument_group("the LLM's server").add_argument
    text = "address of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1 (default: OPENAI_BASE_URL)"
    add("--base-url", metavar="URL", help=text)
    text = "run MODEL in this process by transformers: a folder, a repo id or a GGUF file"
    add("--local", action="store_true", help=text)
    add("--revision", metavar="REV", help="with --local: branch, tag or commit of a repo id")
    text = "use the Batch API: half the price, answers within a day; for open data only"
    add("--batch", action="store_true", help=text)
    add("--slots", type=int, metavar="N", help="GGUF file: number of answers at a time (default: 4 for each core)")
    text = "GGUF file: number of tokens of a question and its answer together (default: 4096)"
    add("--context", type=int, metavar="N", help=text)
    add("--threads", type=int, metavar="N", help="GGUF file: number of threads (default: one for each free core)")
    add("--max-tokens", type=int, metavar="N", help="most tokens of an answer, reasoning included")
    text = "a sampling parameter, e.g. temperature=0.7 or reasoning_effort=low; =none removes it; may be repeated"
    add("--sampling", action="append", default=[], metavar="NAME=VALUE", help=text)
    add("--concurrency", type=int, metavar="N", help="number of requests at a time (default: found while running)")
    text = "seconds to wait for an answer (default: 120; for a GGUF file 600)"
    add("--timeout", type=float, metavar="SECONDS", help=text)
    add("--rpm", type=float, metavar="N", help="most requests a minute that the server allows")
    add("--tpm", type=float, metavar="N", help="most tokens a minute that the server allows")
    text = "repeat a request whose answer is slow and take the first answer; only where answers are free"
    add("--hedge", action="store_true", help=text)
    add(
        "--budget-usd",
        type=float,
        metavar="USD",
        help="stop before more than USD dollars are spent (default: none)",
    )
    text = "price in dollars per million tokens read and written, where it is not known"
    add("--price", type=float, nargs=2, metavar=("IN", "OUT"), help=text)
    text = "file that keeps the answers, so that none is paid for twice (default: in .hf_synth/ next to the gold)"
    add("--journal", type=Path, metavar="FILE", help=text)


def add_model(parser: ArgumentParser) -> None:
    """Add the base model and how it is trained."""
    text = (
        "the model to train: a folder or repo id, e.g. emilyalsentzer/Bio_ClinicalBERT (`hf-synth models` lists some); "
        '"minilm": one that comes as a Python package, without a Hub; '
        '"tiny": a toy made on the spot, which only shows that the software runs (the default of `clinic`)'
    )
    parser.add_argument("--base-model", metavar="MODEL", help=text)
    add = parser.add_argument_group("training").add_argument
    text = "a field of transformers' TrainingArguments, e.g. learning_rate=3e-5; may be repeated"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = "access of a base model of which nothing is known; what you state is recorded"
    add("--base-access", choices=ACCESSES, help=text)
    add("--base-revision", metavar="REV", help="branch, tag or commit of the base model's repository")
    text = "how notes longer than the model's input are read (default: by how many there are)"
    add("--long-notes", choices=LONG_NOTES, default="auto", help=text)
    add("--class-weights", action="store_true", help="weight each class by the inverse of its share")
    text = "train small matrices that are added to the frozen weights (LoRA; needs hf_synth[lora])"
    add("--lora", action="store_true", help=text)
    text = "folder that keeps tokenised texts, so that later trainings on them start faster"
    add("--cache", type=Path, metavar="DIR", help=text)


def add_method(parser: ArgumentParser, *more: str) -> None:
    """Add the method of correction, one of METHODS or of `more`, and by what "auto" chooses it."""
    text = "how labels are corrected; auto chooses by the gold (default: auto)"
    parser.add_argument("--method", choices=(*METHODS, *more), default="auto", help=text)
    text = "what auto compares the methods by, and promises not to fall below gold alone (default: accuracy)"
    parser.add_argument("--auto-metric", choices=METRICS, default="accuracy", help=text)


def correction_options(task: Task, args: Namespace) -> CorrectionOptions:
    """Return the method of correction, and by what "auto" chooses it; check that they serve the task."""
    correction = CorrectionOptions(args.method, seed=args.seed, auto_metric=args.auto_metric)
    correction.check_kind(task.kind)
    return correction


def add_dry_run(parser: ArgumentParser) -> None:
    """Add the estimate of a verb that trains models."""
    text = (
        "say what would be read, trained, asked and written, and about how long: a few steps of the base model are "
        "measured, which is downloaded where it is not here; nothing is written and no LLM asked"
    )
    parser.add_argument("--dry-run", action="store_true", help=text)


def run_source(args: Namespace) -> RunSource:
    """Return how commands name the task and the gold of `run`, and its options that a second run repeats."""
    from hf_synth.experiments.next_steps import RunSource

    words: list[str] = []
    for name in ("base_model", "base_access", "base_revision", "gold_size", "long_notes", "seed"):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value and value != "auto" else []
    words += [word for text in args.set for word in ("--set", str(text))]
    words += [f"--{name.replace('_', '-')}" for name in ("class_weights", "lora") if getattr(args, name)]
    gold = None if args.gold is None or args.gold == Path(args.task) else str(args.gold)
    return RunSource(args.task, gold, True, tuple(words), args.gold_size)


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
    return (
        DatasetDict()
        if optional and path is None and task.files
        else hf_synth.load_gold(task, path, seed=getattr(args, "seed", 0))
    )


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


# --- training -------------------------------------------------------------------------------------------------------
def name_value(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is JSON is taken as such.

    Raises:
        ColumnError: it is something else.
    """
    name, mark, value = text.partition("=")
    if not mark or not name.isidentifier():
        raise ColumnError("--set and --option take NAME=VALUE, e.g. --set learning_rate=3e-5")
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
    """Return the keywords of `train` other than the rows, the base model and the seed."""
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
    from hf_synth.models.readiness import installed_models

    here = installed_models(task.kind)
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


def print_toy_note(task: Task, args: Namespace) -> None:
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
