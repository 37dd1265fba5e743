"""The whole pipeline in one call: generate, correct, augment, train and evaluate.

Every model is trained with no human label outside the gold it is named after (no early stopping on other labels), and
all models are scored on the same test rows.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.correction.augmentation import augment, trainable_rows
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.correction.policy import Policy
from hf_synth.errors import ColumnError, OutputError, TaskError
from hf_synth.evaluation.evaluation import Scores, evaluate
from hf_synth.experiments.journey_report import write_journey_report
from hf_synth.experiments.journey_sections import Journey, score_plot, score_rows
from hf_synth.generation.generation import check_some, generation_table
from hf_synth.generation.likeness import likeness
from hf_synth.gold.adoption import read_dataset
from hf_synth.gold.gold import subset
from hf_synth.models.training import train, trainer_fit
from hf_synth.reports.page import markdown_table
from hf_synth.reports.progress import begin_step, counted
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import (
    FOLLOWS,
    approve_edits,
    clear_disk_errors,
    edited_digests,
    edited_files,
    private_folder,
    read_manifest,
    write_stage,
)
from hf_synth.task.labels import gold_marks
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_LOG = logging.getLogger(__name__)
ARMS = ("gold", "synthetic_raw", "synthetic_corrected", "gold_plus_raw", "gold_plus_corrected")
STEPS = ("generate", "correct", "train and evaluate", "write the report")  # as the line of progress names them


def run(
    task: Task,
    synthetic: Dataset | Callable[[Dataset], Dataset],
    *,
    gold: DatasetDict,
    base_model: str | Path,
    out: str | Path,
    gold_size: int | None = None,
    method: str | CorrectionOptions = "auto",
    arms: Sequence[str | int] = ARMS,
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
    say: Callable[[str], None] = _LOG.info,
    caption: str = "",
) -> Journey:
    """Correct synthetic rows with a corrector trained on gold, train a model on each mixture, and score all models.

    Without correction (a text2text task, or a multi_label one with method "auto") an arm of corrected rows is the arm
    of raw rows.

    A run can be paused, looked at and resumed. When the rows in `synthetic/` or `corrected/` of an earlier run in `out`
    were edited, they are taken as approved: that stage and those before it are not made again, those after it are. The
    manifests and the report name them ("approved_by_hand", "follows_from_edited").

    Args:
        synthetic: synthetic rows, or a function that generates them from the gold rows that may be shown.
        gold: splits "train" and "test".
        gold_size: number of gold rows, drawn by seed with labels in proportion; None for all.
        method: of correction, or all of its options.
        arms: mixtures to train on (ARMS); a number trains on so many gold rows alone, for comparison.
        training: keywords of `train` for every model, such as args, long_notes, lora or cache_dir.
        say: called with each line of progress; no line has text of rows.
        caption: a sentence about the whole run, at the top of the report and under scores.svg.

    Raises:
        HfSynthError: the error of a stage.
    """
    correction = method if isinstance(method, CorrectionOptions) else CorrectionOptions(method, seed=seed)
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(stage: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[stage] = round(now - started, 1)
        started = now

    sizes = [arm for arm in arms if isinstance(arm, int)]
    mixed = [arm for arm in arms if isinstance(arm, str)]
    unknown = sorted(set(mixed) - set(ARMS))
    if unknown:
        raise TaskError(f"unknown arms {unknown}; give some of {', '.join(ARMS)}")
    if "train" not in gold or "test" not in gold:
        raise ColumnError(f"gold needs splits 'train' and 'test'; it has {', '.join(gold)}")
    out = private_folder(Path(out))
    shown = gold["train"] if gold_size is None else subset(task, gold["train"], gold_size, seed=seed)
    n = len(shown)
    approved = _approve_edited_stages(out, say)
    begin_step(STEPS[0])
    if "synthetic" in approved or ("corrected" in approved and (out / "synthetic" / MANIFEST).is_file()):
        rows = read_dataset(out / "synthetic")
    else:
        rows = synthetic(shown) if callable(synthetic) else synthetic
        check_some(rows)
        alike = likeness(task, rows, shown, seed=seed).to_json()
        write_stage(task, rows, out / "synthetic", stage="generate", report=generation_table(rows), likeness=alike)
    lap("generate")

    how: dict[str, Any] = {"base_model": base_model, "seed": seed, **(training or {})}
    begin_step(STEPS[1])
    if "corrected" in approved:
        corrected = read_dataset(out / "corrected")
        policy = Policy.from_json((read_manifest(out / "corrected") or {})["policy"])
    else:
        usable = sum(status != "rejected" for status in rows["label_status"][:])
        say(f"correcting {usable:,} synthetic rows with {n:,} gold rows ({correction.method})")
        fit = trainer_fit(task, work_dir=out / "folds", **how)
        corrected, policy = correct_with_policy(task, rows, fit, gold=shown, options=correction)
        facts: dict[str, Any] = {"policy": policy.to_json(), "gold_rows": n, "gold_marks": gold_marks(task, shown)}
        facts |= {FOLLOWS: approved} if approved else {}
        write_stage(task, corrected, out / "corrected", stage="correct", **facts)
    lap("correct")

    if task.kind != "single_label" and policy.method == "none":  # rows without correction are not named corrected
        mixed = list(dict.fromkeys(arm.replace("corrected", "raw") for arm in mixed))
    if not trainable_rows(corrected):  # gold with corrected rows would be gold alone, trained a second time
        say(f"no corrected row is left by {policy.method}: there is no model of corrected rows")
        mixed = list(dict.fromkeys(["gold", *(arm for arm in mixed if not arm.endswith("corrected"))]))
    mixtures = {f"gold_{size}": subset(task, gold["train"], size, seed=seed) for size in sizes if size != n}
    mixtures |= {arm.replace("gold", f"gold_{n}"): _training_rows(task, arm, shown, rows, corrected) for arm in mixed}
    scores: dict[str, Scores] = {}
    models: dict[str, Path] = {}
    order = sorted(mixtures, key=lambda a: (not a.startswith("gold") or "plus" in a, a.count("plus")))
    begin_step(STEPS[2])
    for name in counted("model", order):
        say(f"training on {name}: {len(mixtures[name]):,} rows")
        models[name] = train(task, mixtures[name], output_dir=out / "models" / name, **how)
        scores[name] = evaluate(task, models[name], gold["test"], exclude=gold["train"], seed=seed)
        lap(name)
    journey = Journey(task, out, corrected, policy, scores, models, seconds, caption, tuple(approved))
    begin_step(STEPS[3])
    write_scores(journey)
    return journey


def _approve_edited_stages(out: Path, say: Callable[[str], None]) -> dict[str, dict[str, str]]:
    """Return the digests of the edited files of each stage of an earlier run that a person edited, which are approved.

    Raises:
        OutputError: corrected rows were edited that no longer follow from the edited synthetic rows, or files lack.
    """
    edited = {stage: names for stage in ("synthetic", "corrected") if (names := edited_files(out / stage))}
    for stage, names in edited.items():
        if missing := [name for name in names if not (out / stage / name).is_file()]:
            raise OutputError(f"{out / stage} lacks {', '.join(missing)}: put it back, or remove the folder")
    follows = ((read_manifest(out / "corrected") or {}).get(FOLLOWS) or {}).get("synthetic")
    if len(edited) == 2 and follows != edited_digests(out / "synthetic"):
        raise OutputError(
            f"{out}: both synthetic/ and corrected/ were edited, and the corrected rows do not follow from the edited "
            "synthetic ones; remove the folder of the one that is not to be used"
        )
    for stage, names in edited.items():
        say(f"{stage}/ was edited by hand ({', '.join(names)}): it is taken as approved, and not made again")
    return {stage: approve_edits(out / stage) for stage in edited}


def _training_rows(task: Task, arm: str, gold: Dataset, raw: Dataset, corrected: Dataset) -> Dataset:
    """Return the rows that an arm trains on."""
    if arm == "gold":
        return gold
    rows = corrected if arm.endswith("corrected") else raw
    return augment(task, rows, gold=gold, strategy="synthetic" if arm.startswith("synthetic") else "augment")


def write_scores(journey: Journey) -> None:
    """Write scores.json, scores.md, scores.svg, report.html and report.md into the folder of a run."""
    parts = (score_table(journey.task, journey.scores), generation_table(journey.corrected), journey.caption)
    files = {
        "scores.json": json.dumps({name: scores.to_json() for name, scores in journey.scores.items()}, indent=1) + "\n",
        "scores.md": "\n\n".join(filter(None, parts)) + "\n",
        "scores.svg": score_plot(journey, caption=journey.caption),
    }
    with clear_disk_errors(journey.out):
        for name, text in files.items():
            (journey.out / name).write_text(text, encoding="utf-8")
    write_journey_report(journey)


def score_table(task: Task, scores: Mapping[str, Scores], first: str = "trained on") -> str:
    """Return a Markdown table of scores with 95% intervals, a row for each model.

    Args:
        first: heading of the column of names.
    """
    metrics, rows = score_rows(task, scores)
    return markdown_table([first, *(f"{m} (95% CI)" for m in metrics)], rows)
