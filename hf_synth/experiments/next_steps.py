"""The commands that the report of a run proposes, with real paths and numbers, so that they can be pasted.

A step whose command would need something that is not known, such as the path of the gold, is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth.correction.audited import LEAST
from hf_synth.reports.page import State
from hf_synth.task.columns import MANIFEST
from hf_synth.task.scripts import is_artificial
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Step = tuple[str, str]  # a sentence and a command
_SAMPLE = 100  # notes that `sample` draws where no number is given


@dataclass(frozen=True)
class RunSource:
    """How a command names what a run was made of.

    Args:
        task: TASK: a name, the path of a script, or a folder that holds a task.
        gold: path of the gold; None where TASK is enough, or where it is not known (`has_gold`).
        has_gold: whether a command with `task` and `gold` finds the gold.
        options: further options of the run, e.g. ("--base-model", "tiny").
        gold_size: gold rows that the run used; None for all.
    """

    task: str
    gold: str | None = None
    has_gold: bool = True
    options: tuple[str, ...] = ()
    gold_size: int | None = None

    def words(self, verb: str, *arguments: str | Path, gold: bool = True) -> list[str]:
        """Return the words of a command: the verb, TASK, further arguments, and --gold where it is needed."""
        named = ["--gold", _argument(self.gold)] if gold and self.gold is not None else []
        return ["hf-synth", verb, _argument(self.task), *map(_argument, arguments), *named]


def source_of(task: Task, out: Path) -> RunSource:
    """Return how commands name the task and gold of a run whose caller did not say it.

    Args:
        out: folder of the run; rows in it carry a task that has no script.
    """
    gold = str(out / "gold") if (out / "gold" / MANIFEST).is_file() else None
    if task.script is None:
        return RunSource(gold or str(out / "corrected"), None, gold is not None)
    own = task.script.endswith(".py")
    name = f"{task.script}:{task.config}" if own and task.config else task.script if own else task.full_name
    return RunSource(name, gold, gold is not None or is_artificial(task))


def steps_of_run(task: Task, source: RunSource, corrected: Dataset, out: Path, state: State) -> list[Step]:
    """Return what to do after a run that used synthetic rows."""
    folder = out / "corrected"
    leave = ("Find out which notes may leave this machine", source.words("audit", folder))
    steps = [*_assess(task, source, out), *_sample(task, source, corrected, folder)]
    if state != "bad":
        steps = [*_sample(task, source, corrected, folder), *([leave] if source.has_gold else [])]
    return _as_steps(steps)


def steps_without_rows(task: Task, source: RunSource, model: str, out: Path, *, weak: bool = False) -> list[Step]:
    """Return what to do after a run whose correction used no synthetic row.

    Args:
        model: name of the model of gold alone, whose folder is in models/.
        weak: whether that model has a weakness (`evaluation.weakness`): it is not proposed for a Hub.
    """
    raw, method = out / "synthetic", "replace" if task.kind == "text2text" else "posterior"
    steps = _assess(task, source, out)
    if source.has_gold:
        target = _argument(f"{out}_{method}")
        again = ["--synthetic", _argument(raw), "--method", method, *source.options, "--out", target]
        steps.append(("Correct and train with the notes nevertheless", [*source.words("run"), *again]))
    if source.has_gold and not weak:
        release = ["--repo-id", f"my-org/{task.name}-model", "--out", _argument(out / "export" / f"{task.name}-model")]
        text = "Prepare the model of gold alone for a Hub; nothing is sent without --push"
        steps.append((text, [*source.words("publish", out / "models" / model), *release]))
    steps.append(("See which LLMs this machine reaches: another one may write better notes", ["hf-synth", "doctor"]))
    return _as_steps(steps)


def _assess(task: Task, source: RunSource, out: Path) -> list[tuple[str, list[str]]]:
    if task.kind != "single_label" or not source.has_gold:
        return []
    size = ["--gold-size", str(source.gold_size)] if source.gold_size else []
    words = [*source.words("assess"), *size, "--synthetic", _argument(out / "synthetic")]
    return [("Find out whether labelling more gold would help more than synthetic notes", words)]


def _sample(task: Task, source: RunSource, corrected: Dataset, folder: Path) -> list[tuple[str, list[str]]]:
    there = sum(status != "rejected" for status in corrected["label_status"][:])
    if task.kind != "single_label" or not there:
        return []
    n = min(there, max(_SAMPLE, LEAST * len(task.labels)))
    words = source.words("sample", folder, gold=False) + ([] if n == _SAMPLE else ["--n", str(n)])
    many = f"all {n:,} notes" if n == there else f"{n:,} of the notes"
    return [(f"Let a person label {many}: this measures how many labels are right", words)]


def _as_steps(steps: Sequence[tuple[str, list[str]]]) -> list[Step]:
    return [(text, shlex.join(words)) for text, words in steps]


def _argument(word: str | Path) -> str:
    """Return an argument of a command line: one that begins with "-" would be an option."""
    return f"./{word}" if str(word).startswith("-") else str(word)
