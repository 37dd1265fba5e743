"""Names of training mixes and scores as people say them, for reports; folders, journals and JSON keep their own."""

from __future__ import annotations

import re

_METRICS = {
    "macro_f1": "macro-F1", "micro_f1": "micro-F1", "weighted_f1": "weighted F1", "token_f1": "token F1",
    "patient_macro_f1": "macro-F1 of patients", "rougeL": "ROUGE-L", "auroc": "AUROC", "auprc": "AUPRC",
    "ece": "calibration error", "exact_match": "exact match",
}  # fmt: skip
_LABELS = {"raw": "uncorrected", "auto_macro_f1": "auto by macro-F1"}
_OF_A_RUN = re.compile(r"gold_(\d+)(?:_plus_(raw|corrected))?|synthetic_(raw|corrected)")
_ALONE = {"gold": "gold alone", "frequency": "most frequent label", "zero-shot": "zero-shot"}
_MIXES = {
    "augment": "gold + {}", "synthetic": "{} notes alone", "replace": "gold that was not shown + {}",
}  # fmt: skip


def metric_name(metric: str) -> str:
    """Return the name of a score as people write it."""
    return _METRICS.get(metric, metric.replace("_", " "))


def arm_name(arm: str) -> str:
    """Return the name of a mix of `run`: "200 gold + corrected" for "gold_200_plus_corrected"."""
    match = _OF_A_RUN.fullmatch(arm)
    if not match:
        return arm
    gold, added, alone = match.groups()
    made = {"raw": "uncorrected", "corrected": "corrected", None: ""}[added or alone]
    return f"{int(gold):,} gold" + (f" + {made}" if made else "") if gold else f"{made} notes alone"


def mix_name(arm: str) -> str:
    """Return the name of a mix of `experiment`: "gold + corrected (argmax)" for "augment argmax"."""
    strategy, _, labels = arm.partition(" ")
    if arm in _ALONE or strategy not in _MIXES or not labels:
        return _ALONE.get(arm, arm)
    made = labels_name(labels) if labels == "raw" else f"corrected ({labels_name(labels)})"
    return _MIXES[strategy].format(made)


def labels_name(labels: str) -> str:
    """Return the name of the labels of an arm: "auto by macro-F1" for "auto_macro_f1"."""
    return _LABELS.get(labels, labels.replace("_", " "))


def sized_name(gold: int, mix: str) -> str:
    """Return the name of a mix with its number of gold rows: "20 gold + uncorrected"."""
    return f"{gold:,} {mix}" if mix.startswith("gold") else f"{mix} ({gold:,} gold)" if gold else mix
