"""The whole journey in one call: gold and synthetic rows in; corrected rows, models and their scores out.

    gold -> (generate) -> correct -> augment -> train -> evaluate

What may be claimed is decided here: every model is trained without looking at a label outside the gold it is named
after (no early stopping on other labels), and all are scored on the same test rows.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.correction.augmentation import augment
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.policy import Policy
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.evaluation import Scores, evaluate
from hf_synth.experiments.journey_report import Told, score_plot, shown_metrics, write_journey_report
from hf_synth.generation.generation import generation_table
from hf_synth.gold.gold import subset
from hf_synth.models.training import train, trainer_fit
from hf_synth.reports.page import markdown_table
from hf_synth.task.folders import clear_disk_errors, private_folder, write_stage
from hf_synth.task.labels import gold_marks
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_LOG = logging.getLogger(__name__)
ARMS = ("gold", "synthetic_raw", "synthetic_corrected", "gold_plus_raw", "gold_plus_corrected")


@dataclass(frozen=True)
class Journey:
    """What one run made.

    Args:
        out: the folder that holds it: synthetic/, corrected/, models/, scores.json, scores.md, scores.svg, report.html,
            report.md.
        corrected: the synthetic rows after correction.
        policy: how they were corrected, and what that rests on.
        scores: scores of each model by the name of its arm, e.g. "gold_200_plus_corrected".
        models: folders of the models by arm.
        seconds: wall time by stage.
    """

    out: Path
    corrected: Dataset
    policy: Policy
    scores: dict[str, Scores]
    models: dict[str, Path]
    seconds: dict[str, float]


def run(
    task: Task,
    synthetic: Dataset | Callable[[Dataset], Dataset],
    *,
    gold: DatasetDict,
    base_model: str | Path,
    out: str | Path,
    gold_size: int | None = None,
    method: str = "auto",
    arms: Sequence[str | int] = ARMS,
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
    say: Callable[[str], None] = _LOG.info,
    caption: str = "",
) -> Journey:
    """Correct synthetic rows with a corrector trained on gold, train a model on each mixture, and score them all.

    Where nothing is corrected (a text2text task, or a multi_label one with method "auto") the rows stay as generated,
    and an arm of corrected rows is the one of raw rows.

    Args:
        synthetic: synthetic rows, or a function that makes them from the gold rows that may be shown.
        gold: splits "train" and "test".
        gold_size: how many gold rows are used, drawn by seed with labels in proportion; all when None.
        method: of correction.
        arms: which mixtures to train on (ARMS); a number is so many gold rows alone, for comparison.
        training: keywords of `train` for every model, such as args, long_notes, lora or cache_dir.
        say: told of each step, without any text of rows.
        caption: stands under the plot.

    Raises:
        HfSynthError: any stage's own error.
    """
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
    rows = synthetic(shown) if callable(synthetic) else synthetic
    write_stage(task, rows, out / "synthetic", stage="generate", report=generation_table(rows))
    lap("generate")

    say(f"correcting {len(rows):,} synthetic rows with {n:,} gold rows ({method})")
    how: dict[str, Any] = {"base_model": base_model, "seed": seed, **(training or {})}
    fit = trainer_fit(task, work_dir=out / "folds", **how)
    corrected, policy = correct_with_policy(task, rows, fit, gold=shown, method=method, seed=seed)
    write_stage(task, corrected, out / "corrected", stage="correct", policy=policy.to_json(), gold_rows=n,
                gold_marks=gold_marks(task, shown))  # fmt: skip
    lap("correct")

    if task.kind != "single_label" and policy.method == "none":  # what was not corrected is not called so
        mixed = list(dict.fromkeys(arm.replace("corrected", "raw") for arm in mixed))
    mixtures = {f"gold_{size}": (subset(task, gold["train"], size, seed=seed), None) for size in sizes if size != n}
    mixtures |= {_arm_name(arm, n): _mixture(task, arm, shown, rows, corrected) for arm in mixed}
    scores: dict[str, Scores] = {}
    models: dict[str, Path] = {}
    for name in sorted(mixtures, key=lambda a: (not a.startswith("gold") or "plus" in a, a.count("plus"))):
        training_gold, training_rows = mixtures[name]
        data = training_gold if training_rows is None else training_rows
        say(f"training on {name}: {len(data):,} rows")
        models[name] = train(task, data, output_dir=out / "models" / name, **how)
        scores[name] = evaluate(task, models[name], gold["test"], exclude=gold["train"], seed=seed)
        lap(name)
    made = Journey(out, corrected, policy, scores, models, seconds)
    write_scores(task, made, caption=caption)
    return made


def _arm_name(arm: str, n: int) -> str:
    return arm.replace("gold", f"gold_{n}")


def _mixture(task: Task, arm: str, gold: Dataset, raw: Dataset, corrected: Dataset) -> tuple[Dataset, Dataset | None]:
    """Give the gold rows of an arm, and the rows to train on where they are not just those."""
    if arm == "gold":
        return gold, None
    rows = corrected if arm.endswith("corrected") else raw
    return gold, augment(task, rows, gold=gold, strategy="synthetic" if arm.startswith("synthetic") else "augment")


def write_scores(task: Task, journey: Journey, *, caption: str = "") -> None:
    """Write scores.json, scores.md, scores.svg, report.html and report.md into the folder of a journey."""
    told = told_of(task, journey, caption=caption)
    parts = (score_table(task, journey.scores), generation_table(journey.corrected), caption)
    files = {
        "scores.json": json.dumps({name: scores.to_json() for name, scores in journey.scores.items()}, indent=1) + "\n",
        "scores.md": "\n\n".join(filter(None, parts)) + "\n",
        "scores.svg": score_plot(told),
    }
    with clear_disk_errors(journey.out):
        for name, text in files.items():
            (journey.out / name).write_text(text, encoding="utf-8")
    write_journey_report(journey.out, told)


def told_of(task: Task, journey: Journey, *, caption: str = "") -> Told:
    """Give what a journey's report is made of."""
    return Told(task, journey.corrected, journey.policy, journey.scores, journey.seconds, caption)


def score_table(task: Task, scores: Mapping[str, Scores]) -> str:
    """Give a Markdown table of scores with 95% intervals, a row for each model."""
    metrics = shown_metrics(task, scores)
    rows = [
        [name, *(f"{s.values[m]:.3f} ({s.ci95[m][0]:.3f}-{s.ci95[m][1]:.3f})" if m in s.ci95 else "-" for m in metrics)]
        for name, s in scores.items()
    ]
    return markdown_table(["trained on", *(f"{m} (95% CI)" for m in metrics)], rows)
