"""The next command after a stage: `status` prints it, and so does every verb that writes something.

`next_command` alone knows the order of the journey: gold, generate, correct, augment, train, evaluate, publish. A
command names the paths that are there, and repeats the options that earlier commands were given, so that it works when
it is pasted.
"""

from __future__ import annotations

import contextlib
import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.config import without_secrets
from hf_synth.cli.configured import configuration, configured_value, without_configured
from hf_synth.cli.machine import installed_base_model, installed_llm
from hf_synth.cli.options import SIMULATOR, Result
from hf_synth.cli.own_script import is_script, script_of
from hf_synth.cli.repeated import repeated_options, without_options, words_on_one_machine
from hf_synth.cli.stages import ORDER, Stage, newest, stage_at, stages_in
from hf_synth.errors import HfSynthError

if TYPE_CHECKING:
    from hf_synth.task.task import Task

# Names of the stages in one folder, unless they are elsewhere.
PLACES = {
    "gold": "gold", "generate": "synthetic", "correct": "corrected", "augment": "training", "train": "model",
    "evaluate": "scores.json", "run": "run",
}  # fmt: skip
_CARRIED = ("set", "base_access", "base_revision")  # options of `correct` that `train` takes as well
REVIEWED = 50  # notes for a person to look at, where there is no gold
STAND_IN = "it only stands in for an LLM: name yours with --llm MODEL --base-url URL"


@dataclass(frozen=True)
class Known:
    """What is known of a journey when the next command is made.

    Args:
        task: TASK as a command takes it: a name, a script, or a folder of gold.
        folder: where the stages lie.
        stages: the newest stage of each kind.
        gold: path of the gold; None where TASK is enough.
        given: options that earlier commands were given.
        configured: values of the configuration that commands read; a table for each verb.
        definition: the task itself, where it can be loaded.
    """

    task: str
    folder: Path
    stages: Mapping[str, Path]
    gold: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    configured: Mapping[str, Any] = field(default_factory=dict)
    definition: Task | None = None

    @property
    def artificial(self) -> bool:
        """Whether the notes are of no patient: a base model and an LLM need not be named."""
        from hf_synth.task.scripts import is_artificial

        return self.definition is not None and is_artificial(self.definition)

    def value(self, verb: str, key: str) -> Any:
        """Return what the configuration gives an option of a verb; None for nothing."""
        return configured_value(self.configured, verb, key)

    def place(self, kind: str) -> Path:
        """Return where a stage lies, or where it should be written: nothing but a stage of its kind is replaced."""
        if kind in self.stages:
            return self.stages[kind]
        if out := self.value(kind, "out"):
            return Path(str(out))
        path = self.folder / PLACES[kind]
        number = 2
        while path.exists() and ((stage := stage_at(path)) is None or stage.kind != kind):
            path = self.folder / f"{Path(PLACES[kind]).stem}_{number}{Path(PLACES[kind]).suffix}"
            number += 1
        return path


# --- the journey ----------------------------------------------------------------------------------------------------
def next_command(after: str, known: Known) -> list[str] | None:
    """Return the words of the command that comes after a stage; None at the end of the journey.

    Args:
        after: kind of the stage: "gold", "generate", "correct", "regenerate", "augment", "train", "evaluate", "audit".
    """
    verb = {
        "gold": "generate", "generate": "correct", "correct": "augment", "regenerate": "augment", "augment": "train",
        "train": "evaluate", "evaluate": "publish", "audit": "publish notes",
    }.get(after)  # fmt: skip
    return None if verb is None else command_of(verb, known)


def command_of(verb: str, known: Known) -> list[str]:
    """Return the words of a command of the journey.

    Args:
        verb: "generate", "correct", "augment", "train", "evaluate", "publish" (the model), "publish notes", or "run",
            which is generate to evaluate in one call.
    """
    place, given = known.place, known.given
    gold = [] if known.gold is None else ["--gold", path_word(known.gold)]
    size = ["--gold-size", str(given["gold_size"])] if given.get("gold_size") else []
    seed = ["--seed", str(given["seed"])] if given.get("seed") else []
    words = ["hf-synth", verb.split()[0], path_word(known.task)]
    again = repeated_options(verb, known.stages)
    if verb in PLACES:
        seed += ["--out", path_word(place(verb))]
    if verb == "generate":
        return [*words, *gold, *size, *_llm(known, verb), *again, *seed]
    if verb == "run":
        return [*words, *gold, *size, *_llm(known, verb), *trained_with(known, verb, again), *seed]
    if verb == "correct":
        return [*words, path_word(place("generate")), *gold, *size, *_opinion(known, again), *seed]
    if verb == "augment":
        corrected = known.stages.get("correct") or known.stages.get("generate") or place("correct")
        return [*words, path_word(corrected), *gold, *size, *again, *seed]
    if verb == "train":
        held = ["--gold", path_word(path)] if (path := gold_folder(known)) is not None else []
        return [*words, path_word(place("augment")), *held, *trained_with(known, verb, again), *seed]
    if verb == "evaluate":
        return [*words, path_word(place("train")), *gold, *again, *seed]
    name = known.task if known.definition is None else known.definition.name
    name = Path(name).name.partition(":")[0].removesuffix(".py")
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-") or "a"
    if verb == "publish notes":
        notes = known.stages.get("correct") or place("generate")
        name += "-notes"
        words += [path_word(notes), *gold]
    else:
        scores = ["--scores", path_word(known.stages["evaluate"])] if "evaluate" in known.stages else []
        words += [path_word(place("train")), *gold, *scores]
        name += "-model"
    own = verb == "publish" and known.value("publish", "folder") == str(place("train"))
    repo = (own and known.value("publish", "repo-id")) or f"my-org/{name}"
    out = (own and known.value("publish", "out")) or known.folder / "export" / name
    return [*words, *seed, "--repo-id", str(repo), "--out", path_word(out)]


def path_word(path: str | Path) -> str:
    """Return a path as a word of a command line: one that begins with "-" would be an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def gold_folder(known: Known) -> Path | None:
    """Return the folder of gold: that of --gold, or TASK."""
    if known.gold is not None:
        return known.gold
    stage = stage_at(Path(known.task))
    return stage.path if stage is not None and stage.kind == "gold" else None


def _llm(known: Known, verb: str) -> list[str]:
    """Return the options that name the LLM: that of an earlier command, one that is here, or the simulator."""
    given = known.given
    if given.get("llm"):
        return ["--llm", str(given["llm"]), *(["--base-url", str(given["base_url"])] if given.get("base_url") else [])]
    if llm := known.value(verb, "llm"):
        url = known.value(verb, "base-url")
        return ["--llm", str(llm), *(["--base-url", str(url)] if url else [])]
    return ["--llm", SIMULATOR if known.artificial else installed_llm() or SIMULATOR]


def _opinion(known: Known, again: list[str]) -> list[str]:
    """Return the options that say who corrects, and how: a judge or a trained model of an earlier command, or a base.

    Args:
        again: options of an earlier command.
    """
    if not {"--judge", "--corrector"} & set(again):
        return trained_with(known, "correct", again)
    url = known.given.get("base_url")
    return [*again, *(["--base-url", str(url)] if url and "--judge" in again else [])]


def trained_with(known: Known, verb: str, again: Sequence[str] = ()) -> list[str]:
    """Return the options that name the base model: that of an earlier command, or one that is here.

    Args:
        again: options of an earlier command that are given, too; those of `known` replace them.
    """
    given = known.given
    words = [w for text in given.get("set") or () for w in ("--set", str(text))]
    for name in ("base_access", "base_revision"):
        words += [f"--{name.replace('_', '-')}", str(given[name])] if given.get(name) else []
    words += without_options(again, words)
    if given.get("base_model"):
        return ["--base-model", str(given["base_model"]), *words]
    if base := known.value(verb, "base-model"):
        return ["--base-model", str(base), *words]
    if known.artificial:
        return words
    return ["--base-model", installed_base_model(known.definition), *words]


Follow = Callable[[Stage, Known, int | None], list[str] | None]


# --- after a verb ---------------------------------------------------------------------------------------------------
def after_verb(args: Namespace, result: Any, follow: Follow | None = None) -> str | None:
    """Return the command that comes after a verb that has written something; None where there is none.

    Args:
        result: what the verb returned for --json.
        follow: returns the words after a stage (`ways.command_after`); the usual order when None.
    """
    with contextlib.suppress(HfSynthError, OSError):
        words = _after_verb(args, result if isinstance(result, dict) else {}, follow or _usual)
        return None if words is None else shlex.join(without_secrets(words))
    return None


def _usual(stage: Stage, known: Known, _rows: int | None) -> list[str] | None:
    return next_command(stage.kind, known)


def _after_verb(args: Namespace, result: Result, follow: Follow) -> list[str] | None:
    verb, out = str(args.verb), getattr(args, "out", None)
    if getattr(args, "dry_run", False) or getattr(args, "preview", None) is not None:
        return None
    if verb == "publish":
        pushed = result.get("url") or args.push
        return None if pushed else ["hf-synth", *words_on_one_machine(args.argv), "--push"]
    if verb == "correct" and result.get("file"):  # a promise that waits for labels
        return _with_audited(args, str(result["file"]))
    if verb == "sample":
        return audited_correction(args.task, args.synthetic, Path(result["out"]))
    if not isinstance(out, Path) or verb not in (*ORDER, "regenerate", "run"):
        return _after_audit(args, result) if verb == "audit" else None
    stage = stage_at(out)
    if stage is None:
        return None
    if verb == "gold" and result.get("rest"):
        known = known_after(args, stage)
        rest = {**known.stages, "generate": Path(str(result["rest"]))}
        words = command_of("correct", replace(known, stages=rest))
        return _following(words, known, args)
    rows = result.get("rows")
    after = follow(stage, known := known_after(args, stage), rows if isinstance(rows, int) else None)
    return _following(after, known, args)


def _following(words: list[str] | None, known: Known, args: Namespace) -> list[str] | None:
    """Return a command without what its configuration gives, and with the file where it has to be named."""
    if words is None or not known.configured:
        return words
    return [*without_configured(words, known.configured), *configuration(args)[1]]


def known_after(args: Namespace, stage: Stage) -> Known:
    """Return what is known of a journey after a verb wrote a stage."""
    folder = stage.path.parent
    beside = newest([s for s in stages_in(folder) if s.when <= stage.when or s.kind == "gold"], stage.task)
    stages = {kind: one.path for kind, one in beside.items()}
    for name in ("synthetic", "data", "model"):
        path = getattr(args, name, None)
        read = stage_at(Path(path)) if isinstance(path, str | Path) else None
        stages |= {read.kind: read.path} if read is not None else {}
    stages[stage.kind] = stage.path
    given = _given([*beside.values(), stage]) | {
        name: value for name in (*_CARRIED, "llm", "base_url", "base_model", "gold_size", "seed")
        if (value := getattr(args, name, None))
    }  # fmt: skip
    if args.verb == "gold":
        carried = {"seed": given["seed"]} if given.get("seed") else {}
        own = is_script(args.task) and "definition" not in stage.facts
        task, path = (args.task, stage.path) if own else (str(stage.path), None)
        return Known(task, folder, stages, path, carried, configuration(args)[0], _definition(task))
    gold = getattr(args, "gold", None)
    gold = None if gold is not None and Path(args.task) == Path(gold) else gold  # TASK is enough
    return Known(args.task, folder, stages, gold, given, configuration(args)[0], _definition(args.task))


def _given(stages: Sequence[Stage]) -> Result:
    """Return the options that the commands of some stages were given; the last one decides."""
    from hf_synth.llm.endpoints import is_local_host, parse_origin

    given: Result = {}
    for stage in stages:
        given |= stage.options
        if stage.kind == "generate" and "llm" not in given and isinstance(stage.facts.get("generator"), str):
            given["llm"] = stage.facts["generator"]
    if "base_url" in given:
        # a folder may come from somebody else: notes are not sent to a remote address that it names
        with contextlib.suppress(HfSynthError):
            if is_local_host(parse_origin(given["base_url"]).host):
                return given
        del given["base_url"]
    return given


def _definition(task: str) -> Task | None:
    from hf_synth.task.scripts import load_task

    with contextlib.suppress(HfSynthError, OSError):
        return load_task(task)
    return None


def _with_audited(args: Namespace, file: str) -> list[str]:
    """Return the command of a verb again, with another --audited."""
    words: list[str] = []
    skip = False
    for word in map(str, args.argv):
        if skip or word.startswith("--audited="):
            skip = False
            continue
        skip = word == "--audited"
        words += [] if skip else [word]
    return ["hf-synth", *words, "--audited", path_word(file)]


def audited_correction(task: str, synthetic: Path, file: Path) -> list[str] | None:
    """Return the command that reads the labels of a sample: the correction of the notes that it was drawn from."""
    read = stage_at(synthetic)
    if read is None:
        return None
    known = known_in(read.path.parent, task)
    stages = {**known.stages, "generate": read.path}
    if read.kind == "correct":  # its own notes are not replaced
        stages["correct"] = read.path.with_name(f"{read.path.name}_audited")
    return [*command_of("correct", replace(known, stages=stages)), "--audited", path_word(file)]


def _after_audit(args: Namespace, result: Result) -> list[str] | None:
    """Return the command that publishes the audited notes, or corrects them again where none of them is used."""
    read = stage_at(args.synthetic)
    if read is None or not read.path.is_dir():
        return None
    known = Known(args.task, read.path.parent, {"correct": read.path}, args.gold, definition=_definition(args.task))
    if result.get("rows_to_publish", 1):
        return next_command("audit", known)
    before = known_in(read.path.parent, args.task)
    if result["rows_used"] or read.kind != "correct" or "generate" not in before.stages:
        return None
    again = replace(before, gold=args.gold or before.gold, stages={"generate": before.stages["generate"]})
    method = "replace" if known.definition is not None and known.definition.kind == "text2text" else "posterior"
    out = read.path.with_name(f"{read.path.name}_{method}")  # a run's own notes are not replaced
    return [*command_of("correct", again)[:-1], path_word(out), "--method", method]


# --- of a folder ----------------------------------------------------------------------------------------------------
def known_in(
    folder: Path,
    task: str | None = None,
    stages: Sequence[Stage] | None = None,
    configured: Mapping[str, Any] | None = None,
) -> Known:
    """Return what is known of the journey whose stages lie in a folder.

    Args:
        task: TASK as the user named it; found from the stages when None.
        stages: of the folder, if they were read already.
        configured: values of the configuration.
    """
    found = stages_in(folder) if stages is None else stages
    gold = next((s for s in found if s.kind == "gold"), None)
    name = gold.task if gold is not None else next((s.task for s in found if s.task), "")
    own = script_of(found) if task is None else None  # it is named, and never run
    if gold is None and name and not (task or own) and _definition(name) is None:
        gold = _gold_elsewhere(folder, name, configured or {})
    task = task or own or (str(gold.path) if gold is not None else name)
    path = gold.path if gold is not None and stage_at(Path(task)) is None else None
    mine = newest(found, name)
    kinds = {kind: stage.path for kind, stage in mine.items()}
    given = _given([stage for stage in found if stage.task in ("", name)])
    return Known(task, folder, kinds, path, given, configured or {}, None if own else _definition(task))


def _gold_elsewhere(folder: Path, name: str, configured: Mapping[str, Any]) -> Stage | None:
    """Return the gold of a table's task that a configuration names, or that lies one folder up, as that of a run."""
    named = configured.get("task")
    found = [stage_at(Path(named))] if isinstance(named, str) else []
    return next((s for s in (*found, *stages_in(folder.parent)) if s and s.kind == "gold" and s.task == name), None)
