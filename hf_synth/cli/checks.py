"""What a verb checks first: whether its options can work, before gold is read, an LLM is asked or a model is trained.

Every verb that reads data calls `check_verb` right after it has its task. Only small files are read: manifests,
configs, the metadata of tables.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_synth.cli import llms, options
from hf_synth.cli.options import Result
from hf_synth.errors import HfSynthError, LLMError, MissingGoldError, OutputError, TaskError

if TYPE_CHECKING:
    from hf_synth.task.columns import Access
    from hf_synth.task.task import Task

_LOG = logging.getLogger(__name__)
Out = Literal["whole", "within", "own", "file"]
_INPUTS = ("gold", "synthetic", "data", "folder", "examples", "audited", "notes")  # options that are paths to read
_TASK_FOLDERS = (
    "gold",
    "synthetic",
    "data",
    "folder",
    "examples",
)  # those of them whose folders must be of the verb's task

_SERVER_OPTIONS = ("slots", "context", "threads")  # options of a server that is started with a GGUF file
_ENDPOINT_OPTIONS = ("rpm", "tpm", "hedge", "batch")
_ASKED = {f"--{name}" for name in (*_SERVER_OPTIONS, *_ENDPOINT_OPTIONS, "local", "votes", "logprobs")}
_WITHOUT_EFFECT = {  # kind of LLM: (what it is, options that have no effect with it)
    "local": (
        "--local runs the model in this process",
        (*_ENDPOINT_OPTIONS, "base_url", "concurrency", "timeout", "budget_usd", "price", *_SERVER_OPTIONS),
    ),
    "file": ("{} is run by a server on this machine", (*_ENDPOINT_OPTIONS, "budget_usd", "revision")),
    "simulator": ("the simulator is no model file", (*_SERVER_OPTIONS, "revision")),
    "batch": ("--batch sends files of questions", ("rpm", "tpm", "hedge", "concurrency", *_SERVER_OPTIONS, "revision")),
    "endpoint": ("the endpoint runs {} in its own way", (*_SERVER_OPTIONS, "revision")),
}


def check_verb(
    task: Task, args: Namespace, *, out: Out = "whole", trains: bool = False, models: Sequence[str] = ()
) -> None:
    """Check the options of a verb.

    Args:
        out: what --out is: a folder that is replaced as a "whole", one that is written "within", one whose own rows
            are changed ("own"), or a "file".
        trains: whether the verb trains models from --base-model.
        models: trained models that it uses.

    Raises:
        HfSynthError: an option cannot work; a subclass says why.
    """
    paths = {name: path for name in _INPUTS if isinstance(path := getattr(args, name, None), Path)}
    _check_out(args, out)
    _check_inputs(task, paths)
    _check_apart(task, args, out, [*paths.values(), *map(Path, models)])
    access = _recorded_access(task, paths.values())
    _check_endpoint(args, access)
    if trains:
        _check_training(task, args, access)
    for model in models:
        from hf_synth.models.readiness import check_model

        check_model(task, model)


def check_some_model(task: Task, names: Sequence[str]) -> None:
    """Check that at least one model of an experiment can be used; cells of the others are recorded as failed.

    Raises:
        HfSynthError: none can.
    """
    from hf_synth.experiments.grid import LINEAR
    from hf_synth.models.readiness import check_base_model

    faults = []
    for name in names:
        try:
            if name not in (LINEAR, options.TINY):
                check_base_model(task, name)
        except HfSynthError as error:
            faults.append(error)
    if faults and len(faults) == len(names):
        raise faults[0]


def needs_base_model(args: Namespace) -> bool:
    """Return whether `correct` and `regenerate` train correctors: not with a model, a judge or method none."""
    return not args.corrector and not args.judge and args.method not in ("none", "llm_judge")


def _check_out(args: Namespace, out: Out) -> None:
    from hf_synth.task.folders import check_output

    path = getattr(args, "out", None)
    if path is not None and not getattr(args, "dry_run", False):
        check_output(path, "within" if out == "own" else out)


def _check_apart(task: Task, args: Namespace, out: Out, paths: list[Path]) -> None:
    """Check that --out replaces nothing that the verb reads: the gold folder that was named as the task, for example.

    Raises:
        OutputError: it would.
    """
    path = getattr(args, "out", None)
    if path is None or getattr(args, "dry_run", False) or out == "own":
        return
    from hf_synth.task.folders import read_manifest

    named = Path(args.task)
    if task.script is None and read_manifest(named) is not None:  # the folder carries the task
        paths = [*paths, named]
    base = getattr(args, "base_model", None)
    check_not_read(path, [*paths, Path(base)] if isinstance(base, str) else paths, within=out == "within")


def check_not_read(out: Path, paths: Iterable[Path], *, within: bool = False) -> None:
    """Check that an output is none of the paths that a verb reads, and holds none of them.

    Args:
        within: the verb writes into the folder, and replaces only what it wrote before; inputs may lie in it.

    Raises:
        OutputError: the output would replace what is read.
    """
    place = out.resolve()
    for read in paths:
        inside = () if within else read.resolve().parents
        if read.exists() and place in (read.resolve(), *inside):
            raise OutputError(f"--out {out} would replace {read}, which is read here: name another one")


def _check_inputs(task: Task, paths: dict[str, Path]) -> None:
    """Check that what a verb reads is there, and that folders that stages wrote are of the verb's task."""
    from hf_synth.task.folders import read_manifest

    for name, path in paths.items():
        if not path.exists():
            raise MissingGoldError(f"{path} is no file or folder")
        facts = (read_manifest(path) or {}) if path.is_dir() and name in _TASK_FOLDERS else {}
        of, version = facts.get("task"), facts.get("task_version")
        if of == task.full_name and version not in (None, task.version):
            _LOG.warning(
                "%s is of version %s of task %s, which is %s now: labels may mean something else; make it again",
                *(path, version, of, task.version),
            )
        if of not in (None, task.full_name):
            raise TaskError(f"{path} is of task {of!r}, not {task.full_name!r}: name that task, or another folder")


def _recorded_access(task: Task, paths: Iterable[Path]) -> Access:
    """Return the strictest access of the task and of what the files record."""
    from hf_synth.task.columns import strictest
    from hf_synth.task.folders import recorded_access

    found = [recorded_access(path) for path in paths]
    return strictest(task.access, *(access for access in found if access is not None))


def _check_endpoint(args: Namespace, access: Access) -> None:
    """Check that an endpoint is named where an LLM is asked, and that the notes may be sent there."""
    from hf_synth.llm.endpoints import check_endpoint, parse_origin
    from hf_synth.llm.gguf_files import is_gguf

    names = [name for option in ("llm", "judge") for name in (getattr(args, option, None) or "").split(",") if name]
    _check_llm_options(args, [name.partition("@")[0] for name in names])
    # a simulator and a model file are asked through a server that this process starts
    asked = [n for n in names if args.base_url or not (n.partition("@")[0] == options.SIMULATOR or is_gguf(n))]
    if asked and not args.local and not getattr(args, "dry_run", False):
        check_endpoint(parse_origin(llms.endpoint_of(args, *asked)), access)


def _check_llm_options(args: Namespace, models: Sequence[str]) -> None:
    """Check that every option of an LLM has an effect for at least one of the LLMs that are named.

    Raises:
        LLMError: some would have no effect; it names them.
    """
    kinds = [_WITHOUT_EFFECT[_kind_of_llm(args, model)] for model in models]
    given = [
        f"--{name.replace('_', '-')}"
        for name in dict.fromkeys(name for _, names in kinds for name in names)
        if all(name in names for _, names in kinds) and getattr(args, name, None)
    ]
    if not models and (idle := [name for name in _typed(args) if name in _ASKED]):
        idle_options = ", ".join(idle)
        raise LLMError(f"no LLM is asked here: leave out {idle_options}, or name the LLM")
    if given:
        raise LLMError(f"{kinds[0][0].format(models[0])}: leave out {', '.join(given)}")


def _typed(args: Namespace) -> list[str]:
    """Return the options that were typed, and are not those of a configuration."""
    return [word.partition("=")[0] for word in getattr(args, "argv", ()) if word.startswith("--")]


def _kind_of_llm(args: Namespace, model: str) -> str:
    """Return how a model is asked, as a key of `_WITHOUT_EFFECT`."""
    from hf_synth.llm.gguf_files import is_gguf

    if args.local:
        return "local"
    if not args.base_url and model == options.SIMULATOR:
        return "simulator"
    if not args.base_url and is_gguf(model):
        return "file"
    return "batch" if args.batch else "endpoint"


def _check_training(task: Task, args: Namespace, access: Access) -> None:
    """Check the base model and the fields of --set."""
    from hf_synth.models.readiness import check_base_model, check_fields
    from hf_synth.task.folders import check_output

    name = options.base_model_name(task, args)
    if name != options.TINY:
        check_base_model(task, name, revision=args.base_revision, base_access=args.base_access, lora=args.lora)
    validated = hasattr(args, "resume") and args.gold is not None  # of `train`
    how: Result = {"validated": validated, "resumable": getattr(args, "resume", False), "access": access}
    check_fields(options.training_fields(args, name), **how)
    if args.cache is not None:
        check_output(args.cache, "within")
    if args.class_weights and task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: class_weights are for single_label tasks only")
