"""What correction warns of and advises: figures that are too good, gold labels that serve nothing, another metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_synth.correction.crossfit import Rows, halved_by_lineage
from hf_synth.correction.policy import GENERATOR, Policy
from hf_synth.task.labels import column_of, label_indices
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_RARE = 0.1  # share of gold rows below which a label is rare


def lineage_warnings(known: Rows, rows: Dataset, gold: Dataset, *, fitted: bool, seed: int) -> list[str]:
    """Return what makes figures on held-out gold too good, or LLM labels of gold useless.

    Args:
        fitted: whether models are trained in folds of this gold; a given model is measured on gold held back from it.
    """
    lines, lineage = [], known.lineage
    assert lineage is not None
    if lineage.shows.any() and not lineage.measurable:
        lines.append(
            f"only {lineage.least_share():.0%} of the rows were written without a given fifth of the gold, so held-out "
            "gold measures nothing here: generate the rows again (each is then of one fold), or hold gold back with "
            "--choose"
        )
    elif fitted and not halved_by_lineage(known, seed):
        of_one = bool((lineage.shows.sum(axis=1) <= 1).all())
        cure = "generate the rows again (each is then of one fold)"
        if of_one:
            cure = "more rows, or more gold of rare labels, can cure it"
        lines.append(
            "rows cannot be halved together with the gold in their prompts, so figures of the corrector on held-out "
            f"gold are too good: {cure}"
        )
    named = np.array([bool(ids) for ids in column_of(rows, "seed_ids")], dtype=bool)
    if fitted and (others := int((named & ~lineage.shows.any(axis=1)).sum())):
        lines.append(
            f"{others} rows name exemplars that are not among this gold: if it is the same gold under other ids, "
            "figures on held-out gold are too good"
        )
    if unknown := int((~lineage.known).sum()):
        lines.append(
            f"{unknown} of {len(rows)} rows carry no record of the gold in their prompt: if they were written from this"
            " gold, figures on held-out gold are too good"
        )
    if GENERATOR in gold.column_names and not known.measured:
        lines.append(
            "the LLM's labels of gold say how it labels notes, not how it writes them: they are not used for notes "
            "that it wrote; let it judge both (--judge, or `hf-synth label --as NAME` on gold and notes)"
        )
    elif known.measured and not lineage.known.all():
        lines.append(
            "rows made elsewhere count as notes that the LLM labelled, as it labelled the gold: if it wrote them for a "
            "label, its errors on gold say nothing of them; leave column llm_label of gold out"
        )
    return lines


def advise_metric(task: Task, gold: Dataset, policy: Policy) -> str | None:
    """Return a sentence where `auto` chose by accuracy, used none of the rows, and gold has a rare label; else None."""
    by_accuracy = "auto_metric" not in policy.figures and bool(policy.figures.get("auto_measured"))
    if task.kind != "single_label" or policy.method != "gold_only" or not by_accuracy:
        return None
    counts = np.bincount(label_indices(task, gold), minlength=len(task.labels))
    rarest = int(counts.argmin())
    if counts[rarest] >= _RARE * counts.sum():
        return None
    return (
        f"auto chose by accuracy, and {task.labels[rarest]} has {counts[rarest]} of {counts.sum()} gold rows: "
        "if macro-F1 is what counts, try --auto-metric macro_f1"
    )
