"""What a classifier is trained towards: targets, the losses against them, and the score that picks the best epoch.

Each row becomes a vector over the labels that sums to its weight, and the loss is the cross-entropy against it; of a
multi_label task each label is a yes-or-no question of its own. Transformers' Trainer hands a loss the number of label
entries of a whole step, over accumulated batches and over processes: so the mean is over the step's rows, however they
were dealt out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.models.tokens import token_limit
from hf_synth.models.windows import Note, Windows, choose_long_notes, windows_of
from hf_synth.task.labels import judged_mask, label_indices, label_matrix, soft_labels
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lessons:
    """What Trainer is given, and what is to be said of it.

    Args:
        parts: arguments of Trainer by name.
        long_notes: what becomes of notes beyond the model's length; "cut" or a way of windows.
        facts: figures of the texts for the model's facts.
        windows: windows of a row, in the mean.
    """

    parts: Mapping[str, Any]
    long_notes: str = "cut"
    facts: Mapping[str, Any] | None = None
    windows: float = 1.0


def label_lessons(
    network: Any,
    tokenizer: Any,
    task: Task,
    rows: Dataset,
    validation: Dataset | None,
    *,
    class_weights: bool = False,
    long_notes: str = "auto",
    cache_dir: str | Path | None = None,
) -> Lessons:
    """Give what Trainer needs to train a classifier.

    Raises:
        ColumnError: a text or label is missing or wrong.
        TaskError: `long_notes` is no known way, or the task has more than two text columns.
    """
    limit = token_limit(tokenizer, network.config)
    made = windows_of(tokenizer, task, rows, limit, long_notes="cut", cache_dir=cache_dir)
    way = choose_long_notes(long_notes, made.longer, len(rows))
    if way != "cut":
        made = windows_of(tokenizer, task, rows, limit, long_notes=way, cache_dir=cache_dir)
    held: list[dict[str, Any]] | None = None
    if validation is not None:
        seen = windows_of(tokenizer, task, validation, limit, long_notes=way, cache_dir=cache_dir)
        held = _examples(seen, _truth(task, validation))
    parts = {
        "data_collator": lambda examples: _collate(tokenizer, examples),
        "train_dataset": _examples(made, training_targets(task, rows, class_weights=class_weights)),
        "eval_dataset": held,
        "compute_loss_func": yes_no_cross_entropy if task.kind == "multi_label" else soft_cross_entropy,
        "compute_metrics": lambda output: {"main": main_score(task, output.predictions, output.label_ids)},
    }
    count = len(made.tokens)
    facts = {"how": way, "tokens": limit, "longer": made.longer, "rows": len(rows), "windows": count}
    return Lessons(parts, way, facts, count / len(rows))


def training_targets(task: Task, rows: Dataset, *, class_weights: bool = False) -> Floats:
    """Give the targets of training rows with weights of mean 1, so that the learning rate keeps its meaning.

    Args:
        class_weights: weigh each class by the inverse of its share.
    """
    targets = soft_labels(task, rows)
    if class_weights:
        share = targets.sum(0)
        targets = targets * np.where(share > 0, share.sum() / np.maximum(share, 1e-9) / (share > 0).sum(), 0)
    rows_weight = targets.sum() / (len(task.labels) if task.kind == "multi_label" else 1)
    return np.asarray(targets / rows_weight * len(targets), dtype=np.float32)


def _truth(task: Task, rows: Dataset) -> Floats:
    """Give the labels of validation rows in the form of targets, whatever else stands in the rows."""
    if task.kind == "multi_label":
        there = label_matrix(task, rows)
        return np.hstack([there, 1 - there]) * np.tile(judged_mask(task, rows), 2)
    return np.eye(len(task.labels), dtype=np.float32)[label_indices(task, rows)]


def _examples(windows: Windows, targets: Floats) -> list[dict[str, Any]]:
    return [{"input_ids": Note(windows, row), "labels": target} for row, target in enumerate(targets)]


def _collate(tokenizer: Any, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pad a batch; its labels are (rows, K), its tokens (rows, tokens), or (rows, windows, tokens) with long notes."""
    import torch

    notes = [example["input_ids"] for example in examples]
    batch = notes[0].windows.batch_of_rows([note.row for note in notes], tokenizer.pad_token_id)
    labels = torch.from_numpy(np.stack([example["labels"] for example in examples]))
    return {key: torch.from_numpy(values) for key, values in batch.items()} | {"labels": labels}


# --- windows of a note ----------------------------------------------------------------------------------------------
@contextlib.contextmanager
def pooled_notes(network: Any, way: str) -> Iterator[None]:
    """Let a network read (rows, windows, tokens) for a while: windows go through it flat, their logits are pooled.

    Hooks do it, so that the network stays the plain one of transformers.
    """
    import torch

    def flatten(module: Any, args: Any, inputs: dict[str, Any]) -> Any:
        there = inputs["attention_mask"].any(-1) if inputs["input_ids"].dim() == 3 else None
        module._windows_there = there  # of the module, as copies of it may run side by side
        if there is None:
            return None
        return args, {k: v[there] if torch.is_tensor(v) and v.dim() == 3 else v for k, v in inputs.items()}

    def pool(module: Any, _args: Any, output: Any) -> Any:
        there = module._windows_there
        if there is None:
            return output
        logits = output["logits"]
        empty = float("-inf") if way == "windows" else 0.0
        spread = logits.new_full((*there.shape, logits.shape[-1]), empty)
        spread = spread.masked_scatter(there.unsqueeze(-1), logits)
        counts = there.sum(1, keepdim=True)
        output["logits"] = spread.amax(1) if way == "windows" else spread.sum(1) / counts
        return output

    hooks = [network.register_forward_pre_hook(flatten, with_kwargs=True), network.register_forward_hook(pool)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        network.__dict__.pop("_windows_there", None)


# --- losses ---------------------------------------------------------------------------------------------------------
def soft_cross_entropy(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean over rows of -sum_k labels_k log p_k; a row's labels sum to its weight."""
    total = -(labels * outputs["logits"].float().log_softmax(-1)).sum()
    return total / _entries(labels, num_items_in_batch) * labels.shape[-1]


def yes_no_cross_entropy(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean over rows and labels of the binary cross-entropy, each row times its weight.

    Labels are (N, 2K): the row's weight on each label's presence, then on its absence.
    """
    import torch

    logits = outputs["logits"].float()
    told = torch.nn.functional.logsigmoid(torch.cat([logits, -logits], -1))
    return -2 * (labels * told).sum() / _entries(labels, num_items_in_batch)


def _entries(labels: Any, told: Any) -> Any:
    """Give the entries of label matrices that a step's loss is divided by.

    With several GPUs in one process Trainer tells the number once a GPU, and multiplies the loss by their number.
    """
    if told is None:
        return labels.numel()
    return told.sum() if hasattr(told, "sum") else told


def main_score(task: Task, logits: Any, targets: Any) -> float:
    """Score an epoch by the task's main metric: accuracy where the task says so, else macro-F1."""
    from sklearn.metrics import accuracy_score, f1_score

    if task.kind == "multi_label":  # a probability above 0.5 is a label; what nobody judged counts nowhere
        there, away = np.split(targets > 0.5, 2, axis=1)
        judged = there | away
        some = judged.any(1)
        guess, truth = ((logits > 0) & judged)[some], there[some]
    else:
        guess, truth = np.argmax(logits, -1), np.argmax(targets, -1)
    if task.metrics and task.metrics[0] == "accuracy":
        return float(accuracy_score(truth, guess))
    return float(f1_score(truth, guess, average="macro", zero_division=0))
