"""The metrics as `evaluate` modules: offline, and usable in `evaluate.combine`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from hf_synth.errors import HfSynthError
from hf_synth.evaluation import metrics
from hf_synth.models.text2text import TEXT_METRICS, text_scores

PER_CLASS = "f1_per_class"
METRICS = (*metrics.LABEL_METRICS, PER_CLASS, *metrics.PROBABILITY_METRICS, *metrics.PATIENT_METRICS, *TEXT_METRICS)


def metric(name: str) -> Any:
    """Return a metric as an `evaluate.Metric` that needs no network: `.compute(predictions=..., references=...)`.

    Args:
        name: one of METRICS. References are label indices, and predictions label indices or rows of probabilities (for
            ece, auroc and auprc the latter only), so that `evaluate.combine` of several takes one table of
            probabilities; of `exact_match`, `token_f1` and ROUGE both are texts. `patient_*` also need `groups=...`, a
            name for each row: labels are grades, and the worst grade of a patient counts.

    Raises:
        HfSynthError: unknown metric.
    """
    if name not in METRICS:
        raise HfSynthError(f"there is no metric {name!r}: give one of {', '.join(METRICS)}")
    return _metric_class()(config_name=name, keep_in_memory=True)


@functools.cache
def _metric_class() -> Any:
    import evaluate as hf_evaluate  # takes seconds to import
    from datasets import Features, List, Value

    class SynthMetric(hf_evaluate.Metric):  # type: ignore[misc]
        """A metric of hf_synth; its config is the metric's name."""

        def _info(self) -> Any:
            name, number, rows = self.config_name, Value("int64"), List(Value("float64"))
            kinds = [rows] if name in metrics.PROBABILITY_METRICS else [number, rows]
            guess = [Value("string")] if name in TEXT_METRICS else kinds
            true = Value("string") if name in TEXT_METRICS else number
            groups = {"groups": Value("string")} if name in metrics.PATIENT_METRICS else {}
            return hf_evaluate.MetricInfo(
                description=f"{name} of hf_synth, by the definition of "
                f"{'SQuAD or rouge-score' if name in TEXT_METRICS else 'scikit-learn where it has one'}",
                citation="",
                inputs_description="predictions, references" + (", groups" if groups else ""),
                features=[Features({"predictions": kind, "references": true, **groups}) for kind in guess],
            )

        def _compute(self, predictions: Any, references: Any, groups: Any = None) -> dict[str, Any]:
            name = self.config_name
            if name in TEXT_METRICS:
                return {name: float(text_scores(predictions, references)[name].mean())}
            return {name: _label_metric(name, np.asarray(predictions), np.asarray(references), groups)}

    return SynthMetric


def _label_metric(name: str, predicted: metrics.Array, true: metrics.Array, groups: Any) -> float | list[float]:
    """Compute one metric; nan where it is undefined (one class only, no class with enough rows)."""
    by_probs, one_group = predicted.ndim == 2, np.zeros(len(true), dtype=np.int64)
    guess = predicted.argmax(1) if by_probs else predicted
    k = int(max(true.max(), guess.max(), predicted.shape[1] - 1 if by_probs else 0)) + 1
    if name == "ece":
        return float(np.abs(metrics.gap_sums(true, predicted, one_group)).sum() / len(true))
    if name in metrics.PROBABILITY_METRICS:
        has = np.eye(k, dtype=bool)[true]
        return metrics.rank_means(metrics.label_ranks(predicted, has, np.ones_like(has))).get(name, float("nan"))
    if name in metrics.PATIENT_METRICS:
        codes = metrics.group_codes(groups, len(true))
        true, guess = metrics.worst_of_groups(true, codes), metrics.worst_of_groups(guess, codes)
        name, one_group = name.removeprefix("patient_"), np.zeros(len(true), dtype=np.int64)
    sums = metrics.label_sums(true, guess, k, one_group)
    if name == PER_CLASS:
        hits, of_true, of_guess = np.split(sums[0], 3)
        return [float(f1) for f1 in 2 * hits / np.maximum(of_true + of_guess, 1)]
    values = metrics.label_values(sums, np.bincount(true, minlength=k) >= metrics.MIN_ROWS)
    return float(values[name][0]) if name in values else float("nan")
