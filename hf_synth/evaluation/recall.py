"""Recall of each label as text: how many of its rows a model finds. A mean over labels hides one never found."""

from __future__ import annotations

from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.intervals import MIN_CLASS
from hf_synth.reports.page import markdown_table

FEW_ROWS = 20  # of a label, below which its recall says little: the 95% interval of 10 of 19 is 0.32 to 0.73


def recall_table(scores: Scores) -> str:
    """Return a Markdown table of the rows found of each label; "" of scores without labels."""
    if not scores.per_class:
        return ""
    lines = []
    for label, of in scores.per_class.items():
        rows = int(of["support"])
        limits = scores.class_ci95.get(label, {}).get("recall")
        few = f"fewer than {MIN_CLASS} rows" if rows < MIN_CLASS else "no interval"
        interval = f"{limits[0]:.3f}-{limits[1]:.3f}" if limits else few
        recall = f"{of['recall']:.3f} ({interval})" if rows else "-"
        lines.append([label, f"{round(of['recall'] * rows):,} of {rows:,}", recall, f"{of['precision']:.3f}"])
    return markdown_table(["label", "found", "recall (95% CI)", "precision"], lines)


def never_found_text(scores: Scores) -> str:
    """Return the labels that a model never finds, e.g. "urgent: 0 of 3 found"; "" where it finds some of each."""
    return "; ".join(f"{label}: 0 of {rows:,} found" for label, rows in scores.never_found.items())


def few_rows_text(scores: Scores) -> str:
    """Return the labels with fewer than FEW_ROWS rows, as a warning; "" where each has as many."""
    few = {label: int(of["support"]) for label, of in scores.per_class.items() if of["support"] < FEW_ROWS}
    if not few:
        return ""
    counts = ", ".join(f"{label} {rows:,}" for label, rows in few.items())
    return f"few rows: {counts}; with fewer than {FEW_ROWS} rows of a label, its recall says little"
