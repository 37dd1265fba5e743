"""Class probabilities and embeddings of rows from an encoder, in length-sorted batches.

A batch has a budget of tokens. Notes longer than the model's input are cut, or read in windows whose scores are pooled,
as the model's config says (`long_notes`, see `windows`).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ModelError, TaskError
from hf_synth.models.loading import cpu_threads, forked, load_network, load_tokenizer, model_folder
from hf_synth.models.tokens import batches, check_known, token_limit
from hf_synth.models.watching import mention_device
from hf_synth.models.windows import long_notes_of, pads_left, windows_of
from hf_synth.reports.progress import shown, stage
from hf_synth.task.labels import Floats32
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS_PER_BATCH = 8192
_DTYPES = ("float32", "bfloat16")
CPU_TOKENS_PER_BATCH = 1024  # on a CPU larger batches are slower: their activations do not fit its caches


def load_model(model: str | Path, task: Task | None = None) -> Any:
    """Load a classifier for inference (eval mode, float32, CPU).

    Args:
        task: when given, the model must have its labels by name, in any order.

    Raises:
        ModelError: it cannot be loaded, has no classification head, or has other labels.
    """
    from transformers import AutoModelForSequenceClassification

    network, missing = load_network(AutoModelForSequenceClassification, model)
    if missing:
        raise ModelError(f"model {str(model)!r} has no trained classification head: fine-tune it with `train` first")
    if task is not None:
        label_order(network.config, task, what=f"model {str(model)!r}")
    return network


def label_order(config: Any, task: Task, *, what: str = "the model") -> list[int]:
    """Return the column of the model's output for each label of the task.

    Raises:
        ModelError: the model has other labels than the task.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text: it has no labels to classify by, use generate_text")
    problem = getattr(config, "problem_type", None)
    if problem not in (None, f"{task.kind}_classification"):
        raise ModelError(f"{what} was trained for {problem}, task {task.full_name!r} is {task.kind}: train one for it")
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if sorted(names) != sorted(task.labels):
        raise ModelError(
            f"{what} has {len(names)} labels {names}, task {task.full_name!r} has {len(task.labels)} "
            f"{list(task.labels)}: use a model of this task, or name them in `id2label` of its config.json"
        )
    return [names.index(label) for label in task.labels]


def predict_proba(
    task: Task,
    model: str | Path,
    dataset: Dataset,
    *,
    tokens_per_batch: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: bool = False,
    cache_dir: str | Path | None = None,
) -> Floats32:
    """Return the probability of each label for each row, (N, K), in the order of `task.labels`.

    The probabilities of a row sum to 1 for a single_label task; those of a multi_label task are independent. Rows are
    computed in length-sorted batches of `tokens_per_batch` tokens and returned in their own order. The same call
    returns the same numbers. Notes longer than the model's input are read as in its training.

    Args:
        model: folder or repo id of a trained classifier; the last two stay in memory.
        tokens_per_batch: tokens of a batch, padding included; 1,024 on a CPU and 8,192 elsewhere when None.
        device: "cpu", "cuda", ...; a CUDA device when there is one.
        dtype: "float32"; or "bfloat16" for the weights, too, which is 2 to 3 times as fast on a CPU with AMX and moves
            probabilities by some thousandths. When None, float32 on a CPU, and on CUDA float32 weights with arithmetic
            in bfloat16.
        cache_dir: a private folder of the user's that caches the tokens of texts.

    Raises:
        ModelError: the model cannot be loaded or is not one of this task, or there is no such dtype.
        ColumnError: a text is missing.
    """
    folder = model_folder(model)
    if dtype not in (None, *_DTYPES):
        raise ModelError(f"unknown dtype {dtype!r}: give one of {', '.join(_DTYPES)}, or None")
    network, tokenizer = _loaded(str(folder), _stamp(folder), dtype == "bfloat16")
    label_order(network.config, task, what=f"model {str(model)!r}")
    options: dict[str, Any] = {"tokens_per_batch": tokens_per_batch, "device": device, "mixed": dtype is None}
    options |= {"progress": progress, "cache_dir": cache_dir}
    return probabilities(network, tokenizer, task, dataset, **options)


def usual_device() -> str:
    """Return the default device: "cuda" when there is one, else "cpu".

    Raises:
        ModelError: the parent of this forked process has used the GPU, which CUDA allows to one of them only.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if forked():
        try:
            torch.cuda.init()
        except RuntimeError:
            raise ModelError(
                "a forked process cannot use the GPU that its parent has used: leave num_proc out, or start processes "
                'anew with multiprocess.set_start_method("spawn")'
            ) from None
    return "cuda"


def cuda_devices() -> list[str]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, or ids."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    n = torch.cuda.device_count()
    return [str(i) for i in range(n)] if named is None else [name.strip() for name in named.split(",")][:n]


@functools.lru_cache(maxsize=2)
def _loaded(folder: str, stamp: tuple[tuple[str, int, int], ...], half: bool) -> tuple[Any, Any]:
    network = load_model(folder)
    return network.bfloat16() if half else network, load_tokenizer(folder)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of a folder's files; a changed model is loaded anew."""
    stats = [(f.name, f.stat()) for f in sorted(folder.iterdir()) if f.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def probabilities(network: Any, tokenizer: Any, task: Task, dataset: Dataset, **options: Any) -> Floats32:
    """Compute `predict_proba` with a loaded classifier; the options are the same."""
    import torch

    order, way = label_order(network.config, task), long_notes_of(network.config)
    scores = _infer(network, tokenizer, task, dataset, lambda output, _mask: output.logits, len(order), way, **options)
    logits = torch.from_numpy(scores)
    probs = logits.sigmoid() if task.kind == "multi_label" else logits.softmax(-1)
    return np.ascontiguousarray(probs.numpy()[:, order])


def embed(task: Task, model: str | Path, dataset: Dataset, **options: Any) -> Floats32:
    """Return the mean of the last hidden states over each row's tokens, (N, H), from the encoder without its head.

    All tokens count alike, [CLS] and [SEP] among them; padding does not count. Rows are not scaled to length 1. A text
    is read up to the model's limit, or in windows where its config says so.

    Divided by their lengths, the features of `minilm` are the embeddings of its model card, for texts of at most 256
    tokens: the card's model stops there, and `embed` at 512.

    Args:
        model: folder, repo id, or "minilm".
        options: `tokens_per_batch`, `device`, `progress`, `cache_dir`, as for `predict_proba`.

    Raises:
        ModelError: the model cannot be loaded.
        ColumnError: a text is missing.
    """
    from transformers import AutoModel

    network, missing = load_network(AutoModel, model)
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    width = getattr(network.config, "hidden_size", None)
    if width is None:
        raise ModelError(f"model {str(model)!r} has no vector for each token: give an encoder, such as a BERT")
    if [name for name in missing if "pooler" not in name]:
        raise ModelError(f"model {str(model)!r} lacks some of the encoder's weights; use a complete model folder")

    def mean(output: Any, mask: Any) -> Any:
        weight = mask.unsqueeze(-1).float()
        return (output.last_hidden_state.float() * weight).sum(1) / weight.sum(1)

    way = "cut" if long_notes_of(network.config) == "cut" else "windows_mean"
    return _infer(network, load_tokenizer(model), task, dataset, mean, int(width), way, **options)


def _infer(
    network: Any,
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    pick: Callable[[Any, Any], Any],
    width: int,
    way: str,
    *,
    tokens_per_batch: int | None = None,
    device: str | None = None,
    mixed: bool = True,
    progress: bool = False,
    cache_dir: str | Path | None = None,
) -> Floats32:
    """Return what `pick` takes from the model's output for each window, pooled to rows, (N, width)."""
    import torch

    limit = token_limit(tokenizer, network)
    windows = windows_of(tokenizer, task, dataset, limit, long_notes=way, cache_dir=cache_dir)
    check_known(network, windows.tokens.flat, tokenizer.pad_token_id)
    scores = np.zeros((len(windows.tokens), width), dtype=np.float32)
    device, left = device or usual_device(), pads_left(network.config)
    budget = tokens_per_batch or (CPU_TOKENS_PER_BATCH if device == "cpu" else TOKENS_PER_BATCH)
    network = network.to(device).eval()
    cuda = mixed and device.startswith("cuda")
    half = torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext()
    mention_device(device)
    counted = stage(total=len(scores), unit="windows read")
    with shown(progress), counted as bar, torch.inference_mode(), half, cpu_threads():
        for group in batches(windows.tokens.lengths.tolist(), budget):
            batch = windows.batch(group, tokenizer.pad_token_id, left)
            inputs = {key: torch.from_numpy(values).to(device) for key, values in batch.items()}
            scores[group] = pick(network(**inputs), inputs["attention_mask"]).float().cpu().numpy()
            bar.advance(len(group))
    return windows.pool(scores, way)
