"""The verb `status`: the stages in a folder, what is out of date or edited, and the command that comes next."""

from __future__ import annotations

import datetime
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth.cli.after import WEAK
from hf_synth.cli.config import without_secrets
from hf_synth.cli.options import Result
from hf_synth.cli.terminal import one_line
from hf_synth.errors import MissingGoldError

if TYPE_CHECKING:
    from hf_synth.cli.stages import Stage

_WORDS = {  # how stages are called
    "gold": "gold", "generate": "synthetic notes", "correct": "corrected notes", "augment": "training set",
    "train": "model", "evaluate": "scores", "publish": "release", "run": "run", "experiment": "experiment",
    "audit": "audit", "label": "labelled notes",
}  # fmt: skip

NOT_PUSHED = "not pushed"


def add_status_options(parser: ArgumentParser) -> None:
    """Add the options of `status`."""
    text = "folder in which the stages lie, such as work (default: the current folder)"
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="DIR", help=text)


def status(args: Namespace) -> Result:
    """Print the stages of a folder and the next command."""
    from hf_synth.cli.stages import add_facts, stages_in

    folder = _folder_of_stages(args.folder)
    stages = add_facts(stages_in(folder))
    if not stages:
        raise MissingGoldError(
            f"{args.folder} holds no stage of a journey: begin with `hf-synth init TABLE`, or name the folder that "
            "holds the folders of gold, generate and the other verbs"
        )
    if folder != args.folder:
        print(f"{args.folder} holds no stages itself; these lie in {folder}")
    table = [tuple(map(one_line, _line(stage, folder))) for stage in stages]
    widths = [max(len(line[i]) for line in table) for i in range(4)]
    for stage, line in zip(stages, table, strict=True):
        print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]).rstrip())
        if stage.edited:
            print(one_line(f"    edited by hand: {', '.join(stage.edited)}"))
        for reason in stage.outdated:
            print(one_line(f"    out of date: it {reason}"))
    command = _next(folder, stages, args)
    if command:
        if text := _weakness(folder, stages, command):
            print(one_line(f"{WEAK}{text}"))
        print(one_line(f"next: {command}"))
    elif not any(stage.task for stage in stages):
        print("the task of these folders is not known, so that no command can be proposed")
    else:
        print("nothing is left to do")
    return {"folder": str(folder), "stages": [_facts(stage) for stage in stages], "next": command}


def _folder_of_stages(folder: Path) -> Path:
    """Return the folder that holds stages: the one named, the one above a stage, or the only one below with stages.

    Raises:
        MissingGoldError: there is no such folder, or several below it hold stages.
    """
    from hf_synth.cli.stages import stage_at, stages_in

    if not folder.is_dir():
        raise MissingGoldError(f"{folder} is no folder")
    if stages_in(folder):
        return folder
    if stage_at(folder) is not None:
        return folder.parent
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and stages_in(path)]
    if len(below) > 1:
        raise MissingGoldError(f"several folders of {folder} hold stages: name one of {', '.join(map(str, below))}")
    return below[0] if below else folder


def _line(stage: Stage, folder: Path) -> tuple[str, str, str, str, str]:
    when = datetime.datetime.fromtimestamp(stage.when).strftime("%Y-%m-%d %H:%M")
    task = f"{stage.task} {stage.version}".strip()
    what = "; ".join(filter(None, (stage.rows, stage.made_by and f"by {stage.made_by}", _pushed(stage))))
    return _WORDS.get(stage.kind, stage.kind), str(stage.path.relative_to(folder)), task, when, what


def _pushed(stage: Stage) -> str:
    """Return where a release was pushed to, or that it was withdrawn, by the publishing log."""
    from hf_synth.errors import HfSynthError
    from hf_synth.publishing.release import entries

    if stage.kind != "publish":
        return ""
    try:
        log = entries(stage.path.parent)
    except HfSynthError:
        return "its publishing log was changed by hand"
    repo = stage.facts.get("kind"), stage.facts.get("repo_id")
    own = [e for e in log if e["action"] in ("push", "withdraw") and (e.get("kind"), e.get("repo_id")) == repo]
    pushed = [(place, e) for place, e in enumerate(own) if e["action"] == "push"]
    if not pushed:
        return NOT_PUSHED
    place, last = pushed[-1]
    withdrawn = any(e.get("tag") in (None, last.get("tag")) for e in own[place + 1 :])
    where = f"{last.get('url')} as {last.get('tag')}"
    return f"withdrawn; it was pushed to {where}" if withdrawn else f"pushed to {where}"


def _facts(stage: Stage) -> Result:
    names = ("kind", "task", "version", "rows", "made_by")
    lists: Result = {"edited": list(stage.edited), "outdated": list(stage.outdated)}
    when = datetime.datetime.fromtimestamp(stage.when, datetime.UTC).isoformat(timespec="seconds")
    return {"path": str(stage.path), **{name: getattr(stage, name) for name in names}, "when": when, **lists}


def _next(folder: Path, stages: Sequence[Stage], args: Namespace) -> str | None:
    """Return the command that makes the first stage that is out of date, or else the one that is missing."""
    from hf_synth.cli.configured import configuration, without_configured
    from hf_synth.cli.journey import command_of, known_in
    from hf_synth.cli.stages import ORDER, newest
    from hf_synth.cli.ways import command_after, push_command, repeating_command

    values, named = configuration(args)
    known = known_in(folder, stages=stages, configured=values)
    latest = newest(stages, next((s.task for s in stages if s.kind == "gold"), ""))
    outdated = next((latest[kind] for kind in ORDER[1:-1] if kind in latest and latest[kind].outdated), None)
    reached = [kind for kind in ORDER if kind in latest]
    words: list[str] | None = None
    if not known.task:
        return None
    if outdated is not None:
        if (again := repeating_command(outdated)) is not None:
            return _command(again)
        words = command_of(outdated.kind, known)
    elif _run_is_last(latest):
        words = command_after(latest["run"], known)
    elif reached and reached[-1] == "publish":
        releases = sorted((s for s in stages if s.kind == "publish" and not s.outdated), key=lambda s: -s.when)
        waiting = [push_command(release, known) for release in releases if _pushed(release) == NOT_PUSHED]
        if any(waiting) or _pushed(latest["publish"]) == NOT_PUSHED:
            words = next(filter(None, waiting), None)
            return None if words is None else _command([*words, *named])
        if len(reached) > 1 and not any(s.kind == "publish" and s.facts.get("kind") == "model" for s in stages):
            words = command_after(latest[reached[-2]], known)  # notes were published before the model
    elif reached:
        words = command_after(latest[reached[-1]], known)
    if words is None:
        return None
    return _command([*without_configured(words, known.configured), *named] if values else words)


def _weakness(folder: Path, stages: Sequence[Stage], command: str) -> str:
    """Return what is wrong with the model that a command publishes; "" for nothing, or where it does something else."""
    from hf_synth.cli.journey import known_in
    from hf_synth.cli.stages import newest, stage_at
    from hf_synth.cli.ways import weakness_before

    _, verb, *words = shlex.split(command)
    if verb != "publish" or any((s := stage_at(Path(w))) and s.kind in ("generate", "correct") for w in words):
        return ""
    latest = newest(stages, next((s.task for s in stages if s.kind == "gold"), ""))
    scored = latest.get("run" if _run_is_last(latest) else "evaluate")
    return "" if scored is None else weakness_before(scored, known_in(folder, stages=stages))


def _run_is_last(latest: Mapping[str, Stage]) -> bool:
    """Return whether a whole run was written after every stage but the gold."""
    others = [stage.when for kind, stage in latest.items() if kind not in ("gold", "run")]
    return "run" in latest and latest["run"].when >= max(others, default=0.0)


def _command(words: Sequence[str]) -> str:
    return shlex.join(without_secrets(words))
