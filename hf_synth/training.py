"""Fine-tuning: transformers' Trainer as it is, for a Task; the corrector and the downstream model are made alike.

Gold rows are hard labels of weight 1. A corrected row trains on its posterior (`label_probs`) with its `weight`; rows
that were dropped or rejected are left out. Each row becomes a vector over the labels that sums to its weight, and the
loss is the cross-entropy against it; of a multi_label task each label is a yes-or-no question of its own. What is
different for text2text tasks stands in `text2text`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError, ModelError, OutputError, TaskError
from hf_synth.folders import MANIFEST, clear_disk_errors, new_folder, private_folder
from hf_synth.modeling import (
    cpu_threads,
    load_model,
    load_tokenizer,
    model_facts,
    model_folder,
    model_revision,
    probabilities,
    quiet,
    weights_sha256,
    write_facts,
)
from hf_synth.rows import (
    judged_mask,
    label_indices,
    label_matrix,
    pad,
    row_weights,
    soft_labels,
    target_texts,
    token_limit,
    tokenize,
    usable_rows,
)
from hf_synth.task import UNLABELLED, Access, Task, access_of, row_digests, strictest
from hf_synth.text2text import load_seq2seq, start_seq2seq, trainer_parts, written_texts

if TYPE_CHECKING:
    from datasets import Dataset

Floats = npt.NDArray[np.float32]
Predict = Callable[["Dataset"], Any]

_PATIENCE = 3  # evaluations without a better score before training stops
_TOLD = ("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
         "weight_decay", "warmup_steps", "lr_scheduler_type", "bf16", "fp16")  # fmt: skip


def train(
    task: Task,
    train: Dataset,
    validation: Dataset | None = None,
    *,
    base_model: str | Path,
    output_dir: str | Path,
    args: Any = None,
    seed: int = 0,
    class_weights: bool = False,
    progress: bool = False,
) -> Path:
    """Fine-tune an encoder, or a sequence-to-sequence model for text2text, into a folder, whole or not at all.

    Args:
        train: gold rows, corrected rows, or both; rows that were dropped or rejected are left out.
        validation: rows with true labels; the epoch with the best main metric of the task is kept, and training stops
            when three epochs bring nothing better. They count as seen by the model.
        base_model: repo id or folder; a folder with config.json and tokenizer but no weights starts from scratch.
        output_dir: an earlier model of ours there is replaced.
        args: None, a dict of `TrainingArguments` fields over our defaults, or a `TrainingArguments`, used untouched.
        seed: of the head, the order of rows and dropout. On a CPU the same seed gives the same weights, bit by bit.
        class_weights: weigh each class by the inverse of its share; for single_label tasks only.

    Returns:
        The folder. Access, digests of every row seen, and parents are in its `hf_synth_facts.json`.

    Raises:
        TaskError: class weights for a task that is not single_label.
        ColumnError: a column is missing, a text or label is not usable, or no row is left to train on.
        ModelError: the base model cannot be loaded.
        OutputError: the folder cannot be written, or holds something that is not a model of ours.
    """
    if class_weights and task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: class_weights are for single_label tasks only")
    rows = usable_rows(train)
    parent = model_folder(base_model)
    access = _access(task, parent, train, validation)
    with _output(Path(output_dir)) as draft, quiet(not progress), cpu_threads() as threads:
        network, tokenizer = start(base_model, task, seed)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=".work-", dir=draft) as work:
            settings = training_arguments(args, work, len(rows), validation is not None, seed, progress)
            make = trainer_parts if task.kind == "text2text" else partial(_label_parts, class_weights=class_weights)
            epochs, best = _optimise(network, tokenizer, make(network, tokenizer, task, rows, validation), settings)
        seconds = time.perf_counter() - started
        facts = _facts(task, rows, validation, base_model, parent, settings) | {
            "access": access,
            "seed": seed,
            "class_weights": class_weights,
            "threads": threads,
            "epochs": epochs,
            "best_validation": best,
            "seconds": round(seconds, 2),
        }
        _write(network, tokenizer, draft, facts)
    with clear_disk_errors(Path(output_dir)):
        Path(output_dir).chmod(0o755 if access == "open" else 0o700)
    return Path(output_dir)


def trainer_fit(
    task: Task,
    *,
    base_model: str | Path,
    args: Any = None,
    work_dir: str | Path,
    seed: int = 0,
    keep: bool = False,
    progress: bool = False,
) -> Callable[[Dataset], Predict]:
    """Give a corrector that can be cross-fitted: `fit(rows)` trains afresh and gives `predict(rows)` -> (N, K).

    Of a text2text task `predict(rows)` gives what the model writes: N texts.

    Args:
        work_dir: trainings happen in `fold-<hash>` folders in it, removed afterwards unless `keep`.

    Raises:
        HfSynthError: as `train`, when `fit` is called.
    """
    text = task.kind == "text2text"

    def fit(rows: Dataset) -> Predict:
        folder = private_folder(Path(work_dir)) / f"fold-{_digest(task, rows, seed)}"
        train(task, rows, base_model=base_model, output_dir=folder, args=args, seed=seed, progress=progress)
        network, tokenizer = load_seq2seq(folder) if text else load_model(folder, task), load_tokenizer(folder)
        if not keep:
            shutil.rmtree(folder)
        if text:
            return lambda asked: written_texts(network, tokenizer, task, asked, progress=progress)
        return lambda asked: probabilities(network, tokenizer, task, asked, progress=progress)

    return fit


def _digest(task: Task, rows: Dataset, seed: int) -> str:
    """Name a training by its rows and their labels (12 hex digits)."""
    digest = hashlib.sha256(f"{task.fingerprint()} {seed}".encode())
    for text in row_digests(task, rows.select_columns(list(task.text_columns))):
        digest.update(text.encode())
    used = usable_rows(rows)
    if task.kind == "text2text":
        digest.update("\x1f".join(target_texts(task, used)).encode() + row_weights(used).tobytes())
    else:
        digest.update(soft_labels(task, used).tobytes())
    return digest.hexdigest()[:12]


# --- Trainer --------------------------------------------------------------------------------------------------------


def start(base_model: str | Path, task: Task, seed: int) -> tuple[Any, Any]:
    """Load the model to start from, with a new head for the task where it has none, and its tokenizer.

    Raises:
        ModelError: it cannot be loaded.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

    if task.kind == "text2text":
        return start_seq2seq(base_model, seed)
    folder = model_folder(base_model)
    tokenizer = load_tokenizer(base_model)
    set_seed(seed)
    names: dict[str, Any] = {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: i for i, label in enumerate(task.labels)},
        "problem_type": f"{task.kind}_classification",
    }
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **names)
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
            return AutoModelForSequenceClassification.from_config(config), tokenizer
        network = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, trust_remote_code=False, weights_only=True, dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:
        raise ModelError(f"base model {str(base_model)!r} cannot be loaded ({type(error).__name__})") from None
    return network, tokenizer


def training_arguments(
    args: Any, work: str | Path, n_rows: int, validated: bool, seed: int, progress: bool = False
) -> Any:
    """Give the `TrainingArguments`: the user's own untouched, or a dict of fields over our defaults.

    Our defaults follow what is known of small sets (Mosbach et al. 2021, arXiv:2006.04884): a small learning rate with
    warm-up and enough epochs, here about 600 steps between 3 and 20 epochs.

    Raises:
        HfSynthError: a field is unknown or wrong, or the arguments would push to a Hub past the gate.
    """
    import torch
    from transformers import TrainingArguments

    if not isinstance(args, TrainingArguments):
        cuda = torch.cuda.is_available()
        batch = int((args or {}).get("per_device_train_batch_size", 16))
        often = "epoch" if validated else "no"
        defaults = {
            "output_dir": str(work),
            "learning_rate": 3e-5,
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": 64,
            "num_train_epochs": int(np.clip(round(600 * batch / n_rows), 3, 20)),
            "warmup_steps": 0.1,
            "weight_decay": 0.01,
            "train_sampling_strategy": "group_by_length",
            "bf16": cuda and torch.cuda.is_bf16_supported(),
            "dataloader_pin_memory": cuda,
            "eval_strategy": often,
            "save_strategy": often,
            "save_only_model": True,
            "save_total_limit": 1,
            "load_best_model_at_end": validated,
            "metric_for_best_model": "main",
            "greater_is_better": True,
            "logging_strategy": "steps" if progress else "no",
            "disable_tqdm": not progress,
            "report_to": "none",
            "seed": seed,
        }
        try:
            args = TrainingArguments(**(defaults | dict(args or {})))
        except (TypeError, ValueError) as error:
            raise HfSynthError(f"training arguments: {error}") from None
    if args.push_to_hub:
        raise HfSynthError(
            "training does not push to a Hub: publish the model with publish_model, which checks it first"
        )
    return args


def _label_parts(
    network: Any, tokenizer: Any, task: Task, rows: Dataset, validation: Dataset | None, *, class_weights: bool
) -> dict[str, Any]:
    """Give what Trainer needs to train a classifier, by the names of its arguments."""
    limit, targets = token_limit(tokenizer, network.config), soft_labels(task, rows)
    if class_weights:
        share = targets.sum(0)
        targets = targets * np.where(share > 0, share.sum() / np.maximum(share, 1e-9) / (share > 0).sum(), 0)
    rows_weight = targets.sum() / (len(task.labels) if task.kind == "multi_label" else 1)
    targets = targets / rows_weight * len(targets)  # weights of mean 1: the learning rate keeps its meaning
    held: list[dict[str, Any]] | None = None
    if validation is not None:
        held = _examples(tokenize(tokenizer, task, validation, limit), _truth(task, validation))
    return {
        "data_collator": lambda examples: _collate(tokenizer, examples),
        "train_dataset": _examples(tokenize(tokenizer, task, rows, limit), targets),
        "eval_dataset": held,
        "compute_loss_func": _yes_no_cross_entropy if task.kind == "multi_label" else _soft_cross_entropy,
        "compute_metrics": lambda output: {"main": _main_score(task, output.predictions, output.label_ids)},
    }


def _truth(task: Task, rows: Dataset) -> Floats:
    """Give the labels of validation rows in the form of targets, whatever else stands in the rows."""
    if task.kind == "multi_label":
        there = label_matrix(task, rows)
        return np.hstack([there, 1 - there]) * np.tile(judged_mask(task, rows), 2)
    return np.eye(len(task.labels), dtype=np.float32)[label_indices(task, rows)]


def _optimise(network: Any, tokenizer: Any, parts: Mapping[str, Any], settings: Any) -> tuple[float, float | None]:
    """Train a network in place; give the epochs run, and the best main score on validation rows."""
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

    stops = parts["eval_dataset"] is not None and settings.load_best_model_at_end
    stop = [EarlyStoppingCallback(_PATIENCE)] if stops else []
    trainer = Trainer(network, settings, processing_class=tokenizer, callbacks=stop, **parts)
    if settings.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    trainer.train()
    network.eval().to("cpu")
    return round(float(trainer.state.epoch or 0), 2), trainer.state.best_metric


def _examples(tokens: list[dict[str, list[int]]], targets: Floats) -> list[dict[str, Any]]:
    return [{**row, "labels": target} for row, target in zip(tokens, targets, strict=True)]


def _collate(tokenizer: Any, examples: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    tokens = [{key: value for key, value in example.items() if key != "labels"} for example in examples]
    batch = {key: torch.from_numpy(values) for key, values in pad(tokenizer, tokens).items()}
    return batch | {"labels": torch.from_numpy(np.stack([example["labels"] for example in examples]))}


def _soft_cross_entropy(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean over rows of -sum_k labels_k log p_k; a row's labels sum to its weight.

    Trainer counts every entry of the label matrix as an item, over all the batches of a step.
    """
    total = -(labels * outputs["logits"].float().log_softmax(-1)).sum()
    return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch) * labels.shape[-1]


def _yes_no_cross_entropy(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean over rows and labels of the binary cross-entropy, each row times its weight.

    Labels are (N, 2K): the row's weight on each label's presence, then on its absence.
    """
    import torch

    logits = outputs["logits"].float()
    told = torch.nn.functional.logsigmoid(torch.cat([logits, -logits], -1))
    return -2 * (labels * told).sum() / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def _main_score(task: Task, logits: Any, targets: Any) -> float:
    """Score an epoch by the task's main metric: accuracy where the task says so, else macro-F1."""
    from sklearn.metrics import accuracy_score, f1_score

    if task.kind == "multi_label":  # a probability above 0.5 is a label
        guess, truth = logits > 0, targets[:, : len(task.labels)] > 0.5
    else:
        guess, truth = np.argmax(logits, -1), np.argmax(targets, -1)
    if task.metrics and task.metrics[0] == "accuracy":
        return float(accuracy_score(truth, guess))
    return float(f1_score(truth, guess, average="macro", zero_division=0))


# --- what is written ------------------------------------------------------------------------------------------------


def _access(task: Task, parent: Path, *datasets: Dataset | None) -> Access:
    """Join the access of the task, of every row, and of the base model where its facts are known."""
    facts = model_facts(parent)
    known = [facts["access"]] if facts["known"] else []
    return strictest(task.access, *known, *(access_of(d) for d in datasets if d is not None))


@contextlib.contextmanager
def _output(path: Path) -> Iterator[Path]:
    """Fill a folder as a whole or not at all; a full disk inside the safetensors library is told as such."""
    from safetensors import SafetensorError

    try:
        with new_folder(path) as draft:
            yield draft
    except SafetensorError:
        raise OutputError(f"{path}: the weights cannot be written; is the disk full?") from None


def _facts(
    task: Task, rows: Dataset, validation: Dataset | None, base_model: str | Path, parent: Path, settings: Any
) -> dict[str, Any]:
    import torch
    import transformers

    from hf_synth import __version__

    local = Path(base_model).is_dir()
    seen = set(row_digests(task, rows.select_columns(list(task.text_columns))))
    if validation is not None:
        seen |= set(row_digests(task, validation.select_columns(list(task.text_columns))))
    made = model_facts(parent)
    columns = [rows[c] if c in rows.column_names else [None] * len(rows) for c in ("source", "label_status")]
    counts = Counter(
        source if source in ("gold", UNLABELLED) else status or "unmarked"
        for source, status in zip(*columns, strict=True)
    )
    return {
        "kind": "model",
        "hf_synth": __version__,
        "task": task.full_name,
        "task_version": task.version,
        "labels": list(task.labels),
        "base_model": parent.resolve().name if local else str(base_model),
        "base_revision": model_revision(base_model),
        "parents": [weights_sha256(parent)] if made["known"] and any(parent.glob("*.safetensors")) else [],
        "row_digests": sorted(seen | set(made["row_digests"])),
        "rows": dict(sorted(counts.items())),
        "validation_rows": 0 if validation is None else len(validation),
        "hyperparameters": {name: _plain(getattr(settings, name)) for name in _TOLD},
        "versions": {"torch": str(torch.__version__), "transformers": transformers.__version__},
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(getattr(value, "value", value))


def _write(network: Any, tokenizer: Any, draft: Path, facts: Mapping[str, Any]) -> None:
    network.config.name_or_path = ""
    network.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    write_facts(draft, facts)
    manifest = {
        "stage": "train",
        "task": facts["task"],
        "task_version": facts["task_version"],
        "access": facts["access"],
    }
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
