"""Inputs of Trainer for a classifier: soft targets, cross-entropy losses, pooling of windows, the score of an epoch.

The target of a row is a vector over the labels that sums to its weight; the loss is the cross-entropy, or for a
multi_label task the binary cross-entropy of each label. Trainer passes the loss the number of label entries of a whole
step, over accumulated batches and processes: so the mean is over the step's rows, whatever their batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.models.tokens import token_limit
from hf_synth.models.windows import Note, Windows, choose_long_notes, pads_left, windows_of
from hf_synth.task.labels import Floats32, judged_mask, label_indices, label_matrix, soft_labels
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainerInputs:
    """Arguments of Trainer, and how long notes are read.

    Args:
        parts: arguments of Trainer by name.
        long_notes: "cut", "windows" or "windows_mean".
        facts: figures of the texts for the model's facts.
        windows: mean number of windows of a row.
    """

    parts: Mapping[str, Any]
    long_notes: str = "cut"
    facts: Mapping[str, Any] | None = None
    windows: float = 1.0


def classifier_inputs(
    network: Any,
    tokenizer: Any,
    task: Task,
    rows: Dataset,
    validation: Dataset | None,
    *,
    class_weights: bool = False,
    long_notes: str = "auto",
    cache_dir: str | Path | None = None,
) -> TrainerInputs:
    """Return Trainer's inputs for a classifier.

    Raises:
        ColumnError: a text or label is missing or wrong.
        TaskError: `long_notes` is none of LONG_NOTES, or the task has more than two text columns.
    """
    limit = token_limit(tokenizer, network)
    windows = windows_of(tokenizer, task, rows, limit, long_notes="cut", cache_dir=cache_dir)
    way = choose_long_notes(long_notes, windows.longer, len(rows))
    if way != "cut":
        windows = windows_of(tokenizer, task, rows, limit, long_notes=way, cache_dir=cache_dir)
    eval_dataset: list[dict[str, Any]] | None = None
    if validation is not None:
        eval_windows = windows_of(tokenizer, task, validation, limit, long_notes=way, cache_dir=cache_dir)
        eval_dataset = _examples(eval_windows, _true_targets(task, validation))
    parts = {
        "data_collator": lambda examples: _collate(tokenizer, examples, pads_left(network.config)),
        "train_dataset": _examples(windows, training_targets(task, rows, class_weights=class_weights)),
        "eval_dataset": eval_dataset,
        "compute_loss_func": yes_no_cross_entropy if task.kind == "multi_label" else soft_cross_entropy,
        "preprocess_logits_for_metrics": lambda output, _labels: _first(output),
        "compute_metrics": lambda output: {"main": main_score(task, output.predictions, output.label_ids)},
    }
    count = len(windows.tokens)
    facts = {"how": way, "tokens": limit, "longer": windows.longer, "rows": len(rows), "windows": count}
    return TrainerInputs(parts, way, facts, count / len(rows))


def _first(output: Any) -> Any:
    """Return the logits of a model that returns more beside them, as the hidden states of a BART or T5 encoder."""
    return output[0] if isinstance(output, tuple | list) else output


def training_targets(task: Task, rows: Dataset, *, class_weights: bool = False) -> Floats32:
    """Return the targets of training rows, with weights of mean 1 so that the learning rate keeps its meaning.

    Args:
        class_weights: weight each class by the inverse of its share.
    """
    targets = soft_labels(task, rows)
    if class_weights:
        share = targets.sum(0)
        targets = targets * np.where(share > 0, share.sum() / np.maximum(share, 1e-9) / (share > 0).sum(), 0)
    rows_weight = targets.sum() / (len(task.labels) if task.kind == "multi_label" else 1)
    return np.asarray(targets / rows_weight * len(targets), dtype=np.float32)


def _true_targets(task: Task, rows: Dataset) -> Floats32:
    """Return the labels of validation rows as targets; `label_probs` and weights are ignored."""
    if task.kind == "multi_label":
        present = label_matrix(task, rows)
        return np.hstack([present, 1 - present]) * np.tile(judged_mask(task, rows), 2)
    return np.eye(len(task.labels), dtype=np.float32)[label_indices(task, rows)]


def _examples(windows: Windows, targets: Floats32) -> list[dict[str, Any]]:
    return [{"input_ids": Note(windows, row), "labels": target} for row, target in enumerate(targets)]


def _collate(tokenizer: Any, examples: Sequence[Mapping[str, Any]], left: bool = False) -> dict[str, Any]:
    """Pad a batch; labels are (rows, K), tokens (rows, tokens), or (rows, windows, tokens) with long notes."""
    import torch

    notes = [example["input_ids"] for example in examples]
    batch = notes[0].windows.batch_of_rows([note.row for note in notes], tokenizer.pad_token_id, left)
    labels = torch.from_numpy(np.stack([example["labels"] for example in examples]))
    return {key: torch.from_numpy(values) for key, values in batch.items()} | {"labels": labels}


@contextlib.contextmanager
def pooled_notes(network: Any, way: str) -> Iterator[None]:
    """Make a network accept (rows, windows, tokens) within the context, and pool the logits of a row's windows.

    Hooks flatten the windows and pool the logits, so that the network stays a plain one of transformers.
    """
    import torch

    def flatten(module: Any, args: Any, inputs: dict[str, Any]) -> Any:
        mask = inputs["attention_mask"].any(-1) if inputs["input_ids"].dim() == 3 else None
        module._window_mask = mask  # kept on the module, since copies of it may run in parallel
        if mask is None:
            return None
        return args, {k: v[mask] if torch.is_tensor(v) and v.dim() == 3 else v for k, v in inputs.items()}

    def pool(module: Any, _args: Any, output: Any) -> Any:
        mask = module._window_mask
        if mask is None:
            return output
        logits = output["logits"]
        empty = float("-inf") if way == "windows" else 0.0
        padded = logits.new_full((*mask.shape, logits.shape[-1]), empty)
        padded = padded.masked_scatter(mask.unsqueeze(-1), logits)
        output["logits"] = padded.amax(1) if way == "windows" else padded.sum(1) / mask.sum(1, keepdim=True)
        return output

    hooks = [network.register_forward_pre_hook(flatten, with_kwargs=True), network.register_forward_hook(pool)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        network.__dict__.pop("_window_mask", None)


def soft_cross_entropy(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Return the mean over rows of -sum_k labels_k log p_k; a row's labels sum to its weight."""
    total = -(labels * outputs["logits"].float().log_softmax(-1)).sum()
    return total / _entries(labels, num_items_in_batch) * labels.shape[-1]


def yes_no_cross_entropy(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Return the mean over rows and labels of the binary cross-entropy, each row times its weight.

    Labels are (N, 2K): the row's weight on each label's presence, then on its absence.
    """
    import torch

    logits = outputs["logits"].float()
    log_probs = torch.nn.functional.logsigmoid(torch.cat([logits, -logits], -1))
    return -2 * (labels * log_probs).sum() / _entries(labels, num_items_in_batch)


def _entries(labels: Any, count: Any) -> Any:
    """Return the number of label entries that a step's loss is divided by.

    With several GPUs in one process Trainer passes the number once for each GPU, and multiplies the loss by them.
    """
    if count is None:
        return labels.numel()
    return count.sum() if hasattr(count, "sum") else count


def main_score(task: Task, logits: Any, targets: Any) -> float:
    """Score an epoch on validation rows: by accuracy where it is the task's main metric, else by macro-F1."""
    from sklearn.metrics import accuracy_score, f1_score

    if task.kind == "multi_label":  # a label is predicted from 0.5 on; labels that were not judged do not count
        present, absent = np.split(targets > 0.5, 2, axis=1)
        judged = present | absent
        rows = judged.any(1)
        predicted, truth = ((logits > 0) & judged)[rows], present[rows]
    else:
        predicted, truth = np.argmax(logits, -1), np.argmax(targets, -1)
    if task.metrics and task.metrics[0] == "accuracy":
        return float(accuracy_score(truth, predicted))
    return float(f1_score(truth, predicted, average="macro", zero_division=0))
