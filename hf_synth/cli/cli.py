"""`hf-synth`: one verb a stage, in the order of the journey. Each verb reads the folder that the verb before wrote.

Human output goes to stdout in short lines, progress to stderr; with --json the last line of stdout is one JSON object.
An error is one sentence on stderr and exit code 1; no traceback, since one could hold text of a note.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_synth.cli.study_options import add_study_verbs
from hf_synth.errors import HfSynthError

METHODS = ("auto", "none", "argmax", "threshold", "agree", "clean_drop", "posterior", "weight", "ensemble",
           "drop", "replace")  # fmt: skip
KINDS = ("single_label", "multi_label", "text2text")
ACCESSES = ("open", "restricted", "credentialed")
_TASK = 'a task ("mednli:pair", "esophagitis:presence"), a .py file, or a folder that `gold` wrote'
BALANCES = ("equal", "gold", "fill")
CHOICES = ("random", "balanced", "diverse", "first")
LONG_NOTES = ("auto", "cut", "windows", "windows_mean")
STRATEGIES = ("augment", "replace", "synthetic", "gold")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; give the exit code."""
    args = _parser().parse_args(argv)
    _quiet_libraries(args.quiet, args.verb)
    if args.verb == "demo" or getattr(args, "base_model", None) == "tiny":
        # its matrices are too small to share: on two cores a second thread made training several times slower
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        room = importlib.import_module(f"hf_synth.{args.room}")  # late, so that --help is quick
        result = getattr(room, args.verb)(args)
    except HfSynthError as error:
        print(f"hf-synth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hf-synth: stopped; what was answered is in the journal", file=sys.stderr)
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
    if isinstance(result, int):
        return result
    if args.json and result is not None:
        print(json.dumps(result))
    return 0


def _quiet_libraries(quiet: bool, verb: str) -> None:
    """Keep telemetry off and libraries silent; progress bars only where a person looks."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2", "openai", "datasets", "transformers", "huggingface_hub", "filelock", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if verb == "demo":  # nobody asked for the Hub that it has for a while
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        logging.getLogger("hf_synth.hub").setLevel(logging.WARNING)


# --- the parser -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    from hf_synth import __version__

    parser = argparse.ArgumentParser(
        prog="hf-synth",
        description="Gold clinical notes in; label-corrected synthetic notes and a better fine-tuned encoder out.",
        epilog="gold -> generate -> correct -> augment -> train -> evaluate -> publish; `run` does it all at once.",
    )
    parser.add_argument("--version", action="version", version=f"hf-synth {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="end with one JSON object on the last line of stdout")
    shared.add_argument("-q", "--quiet", action="store_true", help="no progress, errors only")
    shared.add_argument("--seed", type=int, default=0, help="seed of every random choice (default: 0)")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, help: str, *, task: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, parents=[shared], help=help, description=help[0].upper() + help[1:] + ".")
        made.set_defaults(room="cli.verbs")  # the module that holds the verb's function
        if task:
            made.add_argument("task", metavar="TASK", help=_TASK)
        return made

    add = verb("tasks", "list the tasks and the files they need", task=False).add_argument
    add("--gold", type=Path, metavar="PATH", help="say which tasks find their files there")

    add = verb("gold", "read gold as its source hands it over and write it as an exported folder").add_argument
    add("path", type=Path, nargs="?", metavar="PATH", help="folder, archive or file of the source (none for `clinic`)")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--mask-leaks", action="store_true", help='take phrases that give the label away ("grade 2") out of the texts')
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the task; may be repeated")
    own = verbs.choices["gold"].add_argument_group("a table of one's own, with TASK its path or a name")
    own.add_argument("--text-column", action="append", metavar="NAME", help="column of the text; twice for a pair")
    own.add_argument("--label-column", metavar="NAME", help="column of the label, or of the target text")
    own.add_argument("--kind", choices=KINDS, default="single_label")
    own.add_argument("--labels", default="", metavar="A,B,...", help="labels in order (default: those of the table)")
    own.add_argument("--group-column", metavar="NAME", help="what must not straddle a split, e.g. patient_id")
    own.add_argument("--access", choices=ACCESSES, default="restricted")

    made = verb("new-task", "write a commented task script to fill in, and its test", task=False)
    made.set_defaults(verb="new_task")
    made.add_argument("name", metavar="NAME", help="name of the task: lower case letters, digits and _")
    made.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where the files go (default: here)")

    made = verb("generate", "ask an LLM for synthetic labelled notes")
    _gold_options(made)
    _llm_options(made, required=True)
    made.add_argument("--out", type=Path, metavar="DIR")
    made.add_argument("--dry-run", action="store_true", help="say how many calls, tokens and dollars; ask nothing")

    made = verb("correct", "correct the labels of synthetic notes with a corrector")
    made.add_argument("synthetic", type=Path, metavar="SYNTHETIC", help="folder of `generate`, or any Dataset file")
    _gold_options(made)
    _synthetic_options(made)
    _model_options(made)
    _correction_options(made)
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    _endpoint_options(made)

    made = verb("regenerate", "ask again for notes that correction dropped, and correct all of them together")
    made.add_argument("synthetic", type=Path, metavar="CORRECTED", help="folder of `correct`, dropped notes in it")
    _gold_options(made)
    _model_options(made)
    _correction_options(made)
    made.add_argument("--rounds", type=int, default=2, metavar="N", help="at most so often (default: 2)")
    made.add_argument(
        "--llm", required=True, metavar="MODEL", help="as for `generate`, whose answers cost nothing again"
    )
    _exemplar_options(made.add_argument_group("what is asked, as for `generate`"))
    _endpoint_options(made)
    made.add_argument("--out", type=Path, metavar="DIR")
    made.add_argument("--dry-run", action="store_true", help="say what the first round would take; ask nothing")

    made = verb("sample", "draw synthetic notes for a person to label; `correct --audited` reads the labels back")
    made.add_argument("synthetic", type=Path, metavar="SYNTHETIC", help="folder of `generate` or `correct`, or a file")
    _synthetic_options(made)
    made.add_argument("--n", type=int, default=100, help="how many (default: 100)")
    made.add_argument("--by", nargs="*", choices=("label", "confidence"), default=["label"], metavar="WHAT",
                      help="strata, equally many of each: label, confidence, both, none (default: label)")  # fmt: skip
    made.add_argument("--out", type=Path, metavar="FILE", help="a .csv (default: in .hf_synth/ of the folder)")

    made = verb("label", "let an LLM label real notes that have no label: the zero-shot baseline")
    made.set_defaults(room="cli.judge_verbs")
    made.add_argument(
        "notes", type=Path, metavar="NOTES", help="folder of Datasets, or a .parquet, .jsonl or .csv file"
    )
    made.add_argument("--llm", required=True, metavar="MODEL", help="model of the endpoint")
    made.add_argument("--text-column", action="append", metavar="NAME", help="text column of the notes, if named other")
    made.add_argument("--access", choices=ACCESSES, help="of notes that carry none (default: credentialed)")
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    _vote_options(made)
    _endpoint_options(made)

    made = verb("augment", "join gold and corrected notes to a training set")
    made.add_argument("synthetic", type=Path, metavar="CORRECTED", help="folder of `correct` (or of `generate`)")
    _gold_options(made)
    made.add_argument("--strategy", choices=STRATEGIES, default="augment")
    made.add_argument("--ratio", type=float, help="at most this many synthetic rows a gold row")
    made.add_argument("--out", type=Path, required=True, metavar="DIR")

    made = verb("train", "fine-tune an encoder on a training set")
    made.add_argument("data", type=Path, metavar="DATA", help="folder of `augment`, or of `gold` (its train split)")
    made.add_argument("--gold", type=Path, metavar="PATH", help="stop early by the validation split of this gold")
    _model_options(made)
    made.add_argument("--resume", action="store_true", help="keep checkpoints; the same command goes on after a kill")
    made.add_argument("--out", type=Path, required=True, metavar="DIR")

    made = verb("models", "list known good base models, and say which suits a task and its notes", task=False)
    made.set_defaults(room="cli.model_verbs")
    made.add_argument("task", metavar="TASK", nargs="?", help=_TASK)
    made.add_argument("--gold", type=Path, metavar="PATH", help="raw or exported gold, whose lengths decide")
    made.add_argument("--no-mimic", action="store_true", help="suggest none that was pretrained on notes of MIMIC")

    made = verb("evaluate", "score a model on gold")
    made.add_argument("model", metavar="MODEL", help="folder or repo id of a model")
    made.add_argument("--gold", type=Path, metavar="PATH", help="raw or exported gold")
    made.add_argument("--split", default="test")
    made.add_argument("--subgroups", action="store_true", help="also by sex, age and race words, and these swapped")
    made.add_argument("--subgroup-column", action="append", metavar="NAME", help="a column that names subgroups")
    made.add_argument("--out", type=Path, metavar="FILE", help="write the scores as JSON")

    made = verb("audit", "hold synthetic notes against gold and look for what must not leave; refused: exit 1")
    made.set_defaults(room="cli.audit_verbs")
    made.add_argument("synthetic", type=Path, metavar="SYNTHETIC", help="folder of `generate` or `correct`, or a file")
    made.add_argument("--gold", type=Path, metavar="PATH", help="raw or exported gold; without it no copy is found")
    made.add_argument("--split-held-out", metavar="SPLIT", help="gold that nothing saw, as the control (default: test)")
    made.add_argument("--model", metavar="MODEL", help="a model trained on the gold: does it tell who was in it?")
    _finding_options(made)
    made.add_argument("--out", type=Path, metavar="DIR", help="where audit.json, .md, .html and findings.parquet go")

    _publish_options(verb("publish", "check, describe and publish synthetic notes or a model; refused: exit 1"))
    _withdraw_options(verb("withdraw", "take a release back, and list what derives from it", task=False))

    made = verb("run", "the whole journey: correct, train on each mixture, score")
    _gold_options(made)
    made.add_argument("--synthetic", type=Path, metavar="POOL", help="rows made elsewhere, in place of an LLM")
    _synthetic_options(made)
    _llm_options(made, required=False)
    _model_options(made)
    made.add_argument("--method", choices=METHODS, default="auto")
    made.add_argument("--out", type=Path, required=True, metavar="DIR")

    add_study_verbs(verb, _gold_options, _synthetic_options, _llm_options, _vote_options)

    made = verb("demo", "show the whole journey on artificial notes: no network, no key", task=False)
    made.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR")
    made.add_argument("--full", action="store_true", help="the larger grid: more gold sizes and synthetic notes")

    _journal_options(verb("journal", "look into the journal of answers, check it, clean it up", task=False), shared)

    _hub_options(verb("hub", "a local Hub that Hugging Face clients can use", task=False), shared)
    return parser


def _finding_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--canaries", type=Path, metavar="FILE", help="phrases that were planted in the gold")
    made.add_argument(
        "--find-identifiers", metavar="FILE.py:FUNCTION", help="a finder of your own: from a text to kinds found in it"
    )


def _publish_options(made: argparse.ArgumentParser) -> None:
    made.set_defaults(room="cli.publishing")
    add = made.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of `correct` or `generate`, or of `train`")
    add("--repo-id", required=True, metavar="ORG/NAME")
    add("--gold", type=Path, metavar="PATH", help="all gold, to check against; needed unless access is open")
    add("--scores", type=Path, metavar="FILE", help="JSON of `evaluate --out`, for the card")
    add("--examples", type=Path, metavar="FOLDER", help="synthetic notes for the page of a model; open ones only")
    add("--augmented", action="store_true", help="a config of gold and notes together; only where all is open")
    add("--push", action="store_true", help="push; without it the folder, card and verdict are written")
    visible = made.add_mutually_exclusive_group()
    visible.add_argument("--public", action="store_true")
    visible.add_argument("--private", action="store_true")
    add("--gated", action="store_true", help="let the owner decide who may read it")
    _finding_options(made)
    add("--no-membership", dest="membership", action="store_false", help="do not test whether a model tells its rows")
    add("--attestation", metavar="TEXT", help="who allows a public repository of restricted data, and when")
    add("--tag", metavar="NAME", help="name of the release (default: the next of v1, v2, ...)")
    add("--yes", action="store_true", help="do not ask before pushing")
    add("--dry-run", action="store_true", help="only say the verdict; write and send nothing")
    add("--out", type=Path, metavar="DIR", help="where the export folder goes (default: export/NAME)")
    _which_hub(made)


def _withdraw_options(made: argparse.ArgumentParser) -> None:
    made.set_defaults(room="cli.publishing")
    add = made.add_argument
    add("repo_id", metavar="ORG/NAME")
    add("--tag", metavar="NAME", help="one release (default: all of the repository, which becomes private)")
    add("--kind", choices=("dataset", "model"), help="what it is (default: as the records or the Hub know it)")
    add("--records", type=Path, default=Path("export"), metavar="DIR", help="folder of the exports it came from")
    add("--yes", action="store_true", help="do not ask")
    add("--dry-run", action="store_true", help="only say what would be done, and what derives from it")
    _which_hub(made)


def _which_hub(made: argparse.ArgumentParser) -> None:
    made.add_argument("--endpoint", metavar="URL", help="of a Hub (default: HF_ENDPOINT)")
    made.add_argument("--token", help="of the Hub; HF_TOKEN is better, since others may see what is typed here")


def _journal_options(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="journal_verb", required=True, metavar="VERB")

    def verb(name: str, help: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, parents=[shared], help=help, description=help[0].upper() + help[1:] + ".")
        made.set_defaults(verb=f"journal_{name}", room="cli.journal")
        made.add_argument("path", type=Path, metavar="PATH", help="a journal, or a folder with .hf_synth/ in it")
        return made

    verb("ls", "list what it holds, by model")
    made = verb("show", "show the facts of one answer")
    made.add_argument("key", metavar="KEY", help="its journal_key, or the start of it")
    made.add_argument("--text", action="store_true", help="show its text, too")
    verb("verify", "check that it is whole; broken: exit 1")
    made = verb("export", "write all answers, with their texts, to a file")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .jsonl or .parquet file")
    made = verb("gc", "drop answers that fit all criteria given, and make the file smaller")
    made.add_argument("--days", type=float, metavar="N", help="those older than N days")
    made.add_argument("--model", metavar="NAME", help="those of a model, as `ls` names it")
    made.add_argument("--dry-run", action="store_true", help="only say what would be dropped")


def _hub_options(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="hub_verb", required=True, metavar="VERB")

    def verb(name: str, help: str, *, inside: Any = verbs, of: str | None = None) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = inside.add_parser(
            name, parents=[shared], help=help, description=help[0].upper() + help[1:] + "."
        )
        made.set_defaults(verb=f"hub_{(of or name).replace('-', '_')}", room="cli.hub")
        if inside is not verbs or name != "token":
            made.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder that holds the Hub")
        return made

    def new_token(made: argparse.ArgumentParser) -> None:
        made.add_argument("--token-role", choices=("read", "write"), default="write", help="(default: write)")
        made.add_argument("--days", type=float, metavar="N", help="how long the token works (default: until revoked)")
        made.add_argument("--token-file", type=Path, metavar="FILE", help="write it to a new file, do not print it")

    made = verb("serve", "serve the Hub until interrupted")
    made.add_argument("--port", type=int, default=8090)
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    made.add_argument("--url", metavar="URL", help="address under which clients reach it, behind a proxy")
    made.add_argument("--members-only", action="store_true", help="show nothing to who is not signed in")
    made = verb("create-user", "add a user, with a first token that is shown once")
    made.add_argument("name", metavar="NAME")
    made.add_argument("--org", action="append", default=[], metavar="ORG", help="an organisation; may be repeated")
    made.add_argument("--role", choices=("read", "write"), default="write", help="in the organisations")
    made.add_argument("--founder", action="store_true", help="may make organisations, by pushing to a free name")
    new_token(made)
    made = verb("remove-user", "let a user in no more: revoke all tokens, leave all organisations")
    made.add_argument("name", metavar="NAME")
    made.add_argument("--repos-to", metavar="NAMESPACE", help="who gets their repositories (default: they stay)")
    made = verb("org", "make an organisation, let users into it or out of it, list its members")
    made.add_argument("name", metavar="ORG")
    made.add_argument("--add", action="append", default=[], metavar="USER", help="may be repeated")
    made.add_argument("--role", choices=("read", "write"), default="write", help="of those added (default: write)")
    made.add_argument("--remove", action="append", default=[], metavar="USER", help="may be repeated")
    tokens = verb("token", "make, list and revoke tokens").add_subparsers(
        dest="token_verb", required=True, metavar="VERB"
    )
    made = verb("create", "make a token that is shown once", inside=tokens, of="token")
    made.add_argument("user", metavar="USER")
    made.add_argument("--name", default="", help="what it is for")
    new_token(made)
    made = verb("list", "list what is known of tokens, never a token", inside=tokens, of="token")
    made.add_argument("user", nargs="?", metavar="USER", help="those of one user")
    made = verb("revoke", "let a token in no more", inside=tokens, of="token")
    made.add_argument("id", metavar="ID", help="as `list` shows it")
    made = verb("ls", "list repositories, users and organisations")
    made.add_argument("--check", action="store_true", help="read all content and compare it with its hashes")
    made = verb("gc", "remove what no branch or tag leads to, and what a kill left")
    made.add_argument("--hours", type=float, default=24, metavar="N", help="only what is older (default: 24)")
    made.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def _gold_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gold", type=Path, metavar="PATH", help="raw or exported gold (none for `clinic`)")
    parser.add_argument("--gold-size", type=int, metavar="N", help="use N rows of gold, labels in proportion")


def _llm_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--llm", required=required, metavar="MODEL", help='model of the endpoint; "simulator": offline')
    asked = parser.add_argument_group("what is asked")
    add = asked.add_argument
    add("--n", type=int, default=600, help="how many synthetic notes (default: 600)")
    add("--ratio", type=float, metavar="R", help="instead of --n: R notes for each gold note")
    add("--balance", choices=BALANCES, default="equal", help="labels of the new notes (fill: even out the gold's)")
    _exemplar_options(asked)
    add("--max-calls", type=int, metavar="N", help="stop after N calls (default: three times what is needed at best)")
    _endpoint_options(parser)


def _exemplar_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--prompt", default="examples", metavar="SHAPE", help="examples, attributes, facts, rewrite, or the task's own")
    add("--choose", choices=CHOICES, help="which gold may be shown (default: all; the paper: first)")
    add("--share", type=float, default=0.2, metavar="S", help="with --choose: share of the gold (default: 0.2)")


def _correction_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--corrector", metavar="MODEL", help="folder of a model trained on rows outside --gold")
    add("--method", choices=(*METHODS, "llm_judge"), default="auto")
    add("--split", default=None, help="with --corrector: the gold split it never saw (validation)")
    add(
        "--audited", type=Path, metavar="FILE", help="labels a person gave to some rows: file of `sample`, or id, label"
    )
    add("--coverage", type=float, metavar="C", help="abstain where a conformal set at C is not one label")
    add("--coverage-by-class", action="store_true", help="cover each class at C, not only all together")
    add("--judge", metavar="MODEL", help="instead of a corrector: an LLM that labels gold and notes anew")
    _vote_options(parser)


def _vote_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--votes", type=int, default=5, metavar="N", help="how often each note is judged (default: 5)")
    parser.add_argument("--logprobs", action="store_true", help="probabilities of labels in the place of votes")


def _endpoint_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("who is asked")
    add = where.add_argument
    add("--base-url", metavar="URL", help="OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1")
    add("--local", action="store_true", help="MODEL is a folder or repo id, run in this process by transformers")
    add("--revision", metavar="REV", help="with --local: branch, tag or commit of a repo id")
    add("--batch", action="store_true", help="through the Batch API: half the price, within a day; open data only")
    add("--concurrency", type=int, default=64, metavar="C", help="requests under way at once (default: 64)")
    add("--rpm", type=float, metavar="N", help="requests a minute that the endpoint allows")
    add("--tpm", type=float, metavar="N", help="tokens a minute that the endpoint allows")
    add("--hedge", action="store_true", help="ask again when an answer is slow; only where answers cost nothing")
    add("--budget-usd", type=float, metavar="USD", help="stop before more than this is spent")
    add("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="dollars per million tokens")
    add("--journal", type=Path, metavar="FILE", help="where answers are kept (default: beside the gold)")


def _synthetic_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text-column", action="append", metavar="NAME", help="text column of rows made elsewhere")
    parser.add_argument("--llm-label-column", default="llm_label", metavar="NAME")
    parser.add_argument("--access", choices=ACCESSES, help="of rows that carry none")


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base-model",
        default="tiny",
        metavar="MODEL",
        help="folder or repo id of an encoder, e.g. emilyalsentzer/Bio_ClinicalBERT (`hf-synth models` lists more); "
        '"tiny": one made on the spot',
    )
    add = parser.add_argument_group("how it is trained").add_argument
    add(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of TrainingArguments; may be repeated"
    )
    add("--base-revision", metavar="REV", help="branch, tag or commit of the base model's repository")
    add("--long-notes", choices=LONG_NOTES, default="auto", help="beyond the model's length (default: by their share)")
    add("--class-weights", action="store_true", help="weigh each class by the inverse of its share")
    add("--lora", action="store_true", help="train small matrices beside the frozen weights (needs hf_synth[lora])")
    add("--cache", type=Path, metavar="DIR", help="keep the tokens of texts there, for other trainings on them")


if __name__ == "__main__":
    sys.exit(main())
