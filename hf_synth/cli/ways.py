"""Where the journey leaves its usual order: `run` does it in one call, there is no gold, or no synthetic row is used.

Also the commands of `status`: to push a release, and to make a stage again.
"""

from __future__ import annotations

import contextlib
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_synth.cli.configured import without_configured
from hf_synth.cli.journey import (
    REVIEWED,
    Known,
    command_of,
    gold_folder,
    next_command,
    path_word,
    trained_with,
)
from hf_synth.cli.own_script import is_script
from hf_synth.cli.repeated import repeated_options
from hf_synth.cli.stages import Stage, column_counts, stages_in
from hf_synth.evaluation.weakness import weakness_text, weaknesses
from hf_synth.task.columns import RUN_CONFIG

_USED = ("kept", "relabelled")
_USUAL_METRICS = ("macro_f1", "rougeL", "accuracy")  # where a task names none
_AS_GOOD = 0.05  # a model that finds every label is proposed before one whose score is higher by no more


def command_after(stage: Stage, known: Known, rows: int | None = None) -> list[str] | None:
    """Return the words of the command that comes after a stage; None at the end of the journey.

    Args:
        rows: notes of the stage, where that is known: a person is not asked for more.
    """
    if stage.kind == "run":
        return _after_run(stage, known)
    if is_without_gold(stage):
        return _after_no_gold(stage, known, rows)
    if stage.kind == "gold" and {"train", "test"} <= set(stage.facts.get("rows") or ()):  # `run` scores on test
        return command_of("run", known)
    gold = gold_folder(known)
    if stage.kind == "correct" and gold is not None and not _uses_rows(stage):  # a model of gold alone
        named = [] if known.gold is None else ["--gold", path_word(known.gold)]
        words = ["hf-synth", "train", path_word(known.task), path_word(gold), *named]
        models = trained_with(known, "train", repeated_options("train", known.stages))
        return [*words, *models, "--out", path_word(known.place("train"))]
    return next_command(stage.kind, known)


def is_without_gold(stage: Stage) -> bool:
    """Return whether a stage is notes of `generate --no-gold`, from which `gold --from-review` can make gold."""
    facts = stage.facts
    return stage.kind == "generate" and facts.get("no_gold") is True and not facts.get("without_reviewed")


def _after_run(stage: Stage, known: Known) -> list[str] | None:
    """Return the command that publishes the best model of a run; None where no model is there."""
    best = best_model(stage.path, known.definition.metrics if known.definition is not None else ())
    if best is None:
        return None
    stages = {**known.stages, "train": best}
    stages.pop("evaluate", None)  # scores of another model
    return command_of("publish", replace(known, stages=stages))


def best_model(run: Path, metrics: Sequence[str] = ()) -> Path | None:
    """Return the folder of the model of a run to publish; None where there is none.

    It is the one with the best score, or one with about the same score that has no weakness (`weaknesses`).

    Args:
        metrics: of the task, its main one first; the first that was computed decides.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError, StopIteration):
        there = {run / "models" / name: of for name, of in _scores_of_run(run).items() if of["values"]}
        there = {path: of for path, of in there.items() if path.is_dir() and path.parent == run / "models"}
        known = set.intersection(*(set(of["values"]) for of in there.values())) if there else set()
        names = (*metrics, *_USUAL_METRICS, *(next(iter(there.values()))["values"] if there else ()))
        metric = next(m for m in names if m in known)
        value = {path: of["values"][metric] for path, of in there.items() if math.isfinite(of["values"][metric])}
        near = [path for path in value if value[path] >= max(value.values()) - _AS_GOOD]
        sound = [path for path in near if "per_class" not in there[path] or not weaknesses(there[path])]
        return max(sound or near, key=lambda path: value[path], default=None)
    return None


def _scores_of_run(run: Path) -> dict[str, Any]:
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return scores if isinstance(scores, dict) else {}


def weakness_before(stage: Stage, known: Known) -> str:
    """Return what is wrong with the model that `command_after` proposes to publish, and what mends it; "" for nothing.

    Args:
        stage: a run, or the scores of a model.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        if stage.kind == "evaluate":
            return weakness_text("the model", stage.facts)
        metrics = known.definition.metrics if known.definition is not None else ()
        if stage.kind == "run" and (best := best_model(stage.path, metrics)) is not None:
            return weakness_text(best.name, _scores_of_run(stage.path)[best.name])
    return ""


def _after_no_gold(stage: Stage, known: Known, rows: int | None) -> list[str]:
    """Return the command by which a person looks at notes first, or the one that makes gold of what was answered."""
    from hf_synth.review.session import is_begun

    if not is_begun(stage.path, "labels"):
        script = ["--task", path_word(known.task)] if is_script(known.task) else []
        n = str(min(REVIEWED, max(1, rows or REVIEWED)))
        return ["hf-synth", "review", path_word(stage.path), *script, "--n", n]
    return gold_of_review(stage.path, known)


def gold_of_review(notes: Path, known: Known) -> list[str]:
    """Return the command that makes gold of the notes that people have labelled."""
    script = [path_word(known.task)] if is_script(known.task) else []
    return ["hf-synth", "gold", *script, path_word(notes), "--from-review", "--out", path_word(known.place("gold"))]


def _uses_rows(stage: Stage) -> bool:
    """Return whether a correction left a row to train on; True where its rows cannot be read."""
    with contextlib.suppress(Exception):  # a file that is no parquet, or lacks the column
        counts = column_counts(stage.path, "label_status")
        return any(counts[status] for status in _USED)
    return True


def push_command(release: Stage, known: Known) -> list[str] | None:
    """Return the words of the command that pushes a release that was written but not pushed.

    A release does not record what it was made of: that is the model or the notes beside it, or those of the last `run`
    before it. Where there are none, there is no command.
    """
    facts, stages = release.facts, dict(known.stages)
    runs = [stage for stage in stages_in(known.folder) if stage.kind == "run" and stage.when <= release.when]
    run = max(runs, key=lambda stage: stage.when).path if runs else None
    if run is not None and facts.get("kind") == "model":
        best = best_model(run, known.definition.metrics if known.definition is not None else ())
        stages |= {"train": best} if best is not None and "train" not in stages else {}
    elif run is not None and not {"correct", "generate"} & set(stages):
        stages["correct"] = run / "corrected"
    words = command_of("publish" if facts.get("kind") == "model" else "publish notes", replace(known, stages=stages))
    if not Path(words[3]).is_dir():
        return None
    at = words.index("--repo-id")
    words = [*words[:at], "--repo-id", str(facts.get("repo_id")), "--out", path_word(release.path)]
    return [*(without_configured(words, known.configured) if known.configured else words), "--push"]


def repeating_command(stage: Stage) -> list[str] | None:
    """Return the command that makes a stage again with its own options; None where they were not written down."""
    file = stage.path / RUN_CONFIG
    try:
        verbs = list(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
    return ["hf-synth", verbs[0], "--config", path_word(file)] if len(verbs) == 1 and verbs[0].isalpha() else None
