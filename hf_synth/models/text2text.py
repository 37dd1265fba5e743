"""Text to text: sequence-to-sequence models that write a target from the text columns.

The input of a row is its text, or "name: text" lines in the order of the task's columns where there are several. The
loss is the cross-entropy of the target's tokens, each times its row's weight. Texts are written greedily, so that the
same call gives the same texts.
"""

from __future__ import annotations

import contextlib
import re
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, ModelError, TaskError
from hf_synth.models.inference import TOKENS_PER_BATCH, usual_device
from hf_synth.models.loading import cpu_threads, load_network, load_tokenizer, model_folder, quiet
from hf_synth.models.tokens import batches, pad
from hf_synth.task.labels import row_weights, target_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

NEW_TOKENS = 128  # of a model that does not say how much it writes
_LONGEST_INPUT = 1024  # tokens, where neither tokenizer nor config names a limit
_IGNORED = -100  # what Trainer does not count as an item
Floats = npt.NDArray[np.float64]


# --- models ---------------------------------------------------------------------------------------------------------
def load_seq2seq(model: str | Path) -> Any:
    """Load a sequence-to-sequence model for inference (eval mode, float32, CPU).

    Raises:
        ModelError: it cannot be loaded as one, or lacks weights.
    """
    from transformers import AutoModelForSeq2SeqLM

    network, missing = load_network(AutoModelForSeq2SeqLM, model)
    if missing:
        raise ModelError(f"model {str(model)!r} holds only a part of the weights of a sequence-to-sequence model")
    return network


def start_seq2seq(base_model: str | Path, seed: int, *, shown: str | None = None) -> tuple[Any, Any]:
    """Load the sequence-to-sequence model to start from, from scratch where its folder holds no weights; its tokenizer.

    Args:
        shown: what messages call the model.

    Raises:
        ModelError: it cannot be loaded, or is no sequence-to-sequence model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, set_seed

    folder, name = model_folder(base_model), shown or str(base_model)
    tokenizer = load_tokenizer(folder)
    set_seed(seed)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
            network = AutoModelForSeq2SeqLM.from_config(config)
        else:
            network = AutoModelForSeq2SeqLM.from_pretrained(
                folder, config=config, trust_remote_code=False, weights_only=True, dtype=torch.float32
            )
    except Exception as error:
        raise ModelError(
            f"base model {name!r} cannot be loaded ({type(error).__name__}): a text2text task needs a "
            "sequence-to-sequence model, such as a T5 or a BART"
        ) from None
    if network.config.decoder_start_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(f"base model {name!r} names no token that begins a text, or none that ends one")
    return network, tokenizer


def token_limits(tokenizer: Any, config: Any) -> tuple[int, int]:
    """Give how many tokens a model reads, and how many it can write: by its positions and its tokenizer.

    A T5 has no positions of its own: its tokenizer decides alone.
    """
    known = int(min(tokenizer.model_max_length, 1 << 20))
    read, write = (
        getattr(config, f"max_{side}_position_embeddings", None) or getattr(config, "max_position_embeddings", None)
        for side in ("encoder", "decoder")
    )
    either = known if known < 1 << 20 else _LONGEST_INPUT
    return min(int(read or either), known), min(int(write or either), known)


# --- rows -----------------------------------------------------------------------------------------------------------
def input_texts(task: Task, dataset: Dataset) -> list[str]:
    """Give what the model reads of each row: the text, or "name: text" lines of several columns in their order.

    Raises:
        ColumnError: a text is missing or not a string.
    """
    missing = [c for c in task.text_columns if c not in dataset.column_names]
    if missing:
        raise ColumnError(f"the dataset has no column {', '.join(map(repr, missing))}; it has {dataset.column_names}")
    found = []
    for number, row in enumerate(zip(*(dataset[c] for c in task.text_columns), strict=True)):
        for name, text in zip(task.text_columns, row, strict=True):
            if not isinstance(text, str):
                raise ColumnError(f"row {number}: column {name!r} holds no text; leave out rejected rows first")
        lines = [f"{name}: {text}" for name, text in zip(task.text_columns, row, strict=True)]
        found.append(row[0] if len(row) == 1 else "\n".join(lines))
    return found


def _tokens(tokenizer: Any, texts: Sequence[str], limit: int, *, target: bool = False) -> list[list[int]]:
    if not texts:
        return []
    given = {"text_target" if target else "text": list(texts)}
    ids = tokenizer(**given, truncation=True, max_length=limit, padding=False, return_attention_mask=False)["input_ids"]
    return [list(row) for row in ids]


# --- training -------------------------------------------------------------------------------------------------------
def trainer_parts(
    network: Any, tokenizer: Any, task: Task, rows: Dataset, validation: Dataset | None
) -> dict[str, Any]:
    """Give what transformers' Trainer needs for a text2text task, by the names of its arguments.

    The network's way of writing is set too: greedy, up to twice the longest target. `main`, the score of an epoch on
    validation rows, is the task's main metric of what is written for them (rougeL where the task names another).

    Raises:
        ColumnError: a text or target is missing, or a weight is no positive number.
    """
    reads, writes = token_limits(tokenizer, network.config)
    weights = row_weights(rows)
    weights = weights / weights.mean()  # of mean 1: the learning rate keeps its meaning

    def examples(dataset: Dataset, weights: npt.NDArray[Any]) -> list[dict[str, Any]]:
        inputs = _tokens(tokenizer, input_texts(task, dataset), reads)
        targets = _tokens(tokenizer, target_texts(task, dataset), writes, target=True)
        parts = zip(inputs, targets, weights.tolist(), strict=True)
        return [{"input_ids": read, "labels": [(t, weight) for t in written]} for read, written, weight in parts]

    lessons = examples(rows, weights)
    network.generation_config = _greedy(network, min(writes, 2 * max(len(row["labels"]) for row in lessons)))

    def judge(_output: Any) -> dict[str, float]:
        assert validation is not None
        said = written_texts(network, tokenizer, task, validation, device=str(network.device))
        name = task.metrics[0] if task.metrics and task.metrics[0] in TEXT_METRICS else "rougeL"
        return {"main": float(text_scores(said, target_texts(task, validation))[name].mean())}

    return {
        "data_collator": lambda batch: _collate(network, tokenizer, batch),
        "train_dataset": lessons,
        "eval_dataset": None if validation is None else examples(validation, np.ones(len(validation))),
        "compute_loss_func": weighted_loss,
        "compute_metrics": judge,
        "preprocess_logits_for_metrics": lambda _logits, labels: labels[:, 0, 0],  # nobody looks at them
    }


def _collate(network: Any, tokenizer: Any, examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad a batch; its labels are token and weight, (rows, tokens, 2), so that both reach the loss through Trainer."""
    import torch

    padded = pad(tokenizer, [{"input_ids": example["input_ids"]} for example in examples])
    width = max(len(example["labels"]) for example in examples)
    labels = torch.full((len(examples), width, 2), float(_IGNORED))
    for i, example in enumerate(examples):
        labels[i, : len(example["labels"])] = torch.tensor(example["labels"], dtype=torch.float32)
    batch = {key: torch.from_numpy(values) for key, values in padded.items()}
    shifted = network.prepare_decoder_input_ids_from_labels(labels[..., 0].long())
    return batch | {"decoder_input_ids": shifted, "labels": labels}


def weighted_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Give the mean over target tokens of weight times -log p.

    Args:
        labels: token and weight, (rows, tokens, 2), both -100 where there is none.
        num_items_in_batch: entries of `labels` that are not -100, over all the batches of a step: two a token.
    """
    from torch.nn.functional import cross_entropy

    ids, weights = labels[..., 0].long(), labels[..., 1]
    logits = outputs["logits"].float()
    surprise = cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=_IGNORED, reduction="none")
    total = (surprise.view_as(weights) * weights).sum()  # 0 where there is no token
    return total / ((ids != _IGNORED).sum() if num_items_in_batch is None else num_items_in_batch / 2)


# --- writing --------------------------------------------------------------------------------------------------------
def generate_text(
    task: Task,
    model: str | Path,
    dataset: Dataset,
    *,
    max_new_tokens: int | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    device: str | None = None,
    progress: bool = False,
) -> list[str]:
    """Write the target of each row, greedily, in length-sorted batches; texts come back in the order of the rows.

    Args:
        model: folder or repo id of a sequence-to-sequence model.
        max_new_tokens: the most tokens of one text; what the model's generation config says, or 128, when None.
        device: "cpu", "cuda", ...; a CUDA device when there is one.

    Raises:
        TaskError: the task is not text2text.
        ModelError: the model cannot be loaded as a sequence-to-sequence model.
        ColumnError: a text is missing.
    """
    if task.kind != "text2text":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: only text2text tasks have texts to write")
    return written_texts(
        load_seq2seq(model), load_tokenizer(model), task, dataset, max_new_tokens=max_new_tokens,
        tokens_per_batch=tokens_per_batch, device=device, progress=progress,
    )  # fmt: skip


def written_texts(
    network: Any,
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    *,
    max_new_tokens: int | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    device: str | None = None,
    progress: bool = False,
) -> list[str]:
    """Do what `generate_text` does with a model that is in memory already."""
    import torch
    from tqdm import tqdm

    reads, writes = token_limits(tokenizer, network.config)
    new = min(writes, max_new_tokens or network.generation_config.max_new_tokens or NEW_TOKENS)
    network.generation_config = _greedy(network, new)  # given to `generate` it would be filled up with the old one
    rows = _tokens(tokenizer, input_texts(task, dataset), reads)
    texts = [""] * len(rows)
    where = device or usual_device()
    network = network.to(where).eval()
    half = torch.autocast("cuda", torch.bfloat16) if where.startswith("cuda") else contextlib.nullcontext()
    bar = tqdm(total=len(rows), disable=not progress, unit="row")
    with torch.inference_mode(), half, cpu_threads(), quiet(), bar:
        for group in batches([len(row) + new for row in rows], tokens_per_batch):
            padded = pad(tokenizer, [{"input_ids": rows[i]} for i in group])
            inputs = {key: torch.from_numpy(values).to(where) for key, values in padded.items()}
            ids = network.generate(**inputs)
            for i, text in zip(group, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                texts[i] = text.strip()
            bar.update(len(group))
    return texts


def _greedy(network: Any, max_new_tokens: int) -> Any:
    """Give a greedy way of writing, with the network's own special tokens and nothing of its old habits.

    A pretrained model may carry beams or a least length that suit what it was made for.
    """
    from transformers import GenerationConfig

    told, config = network.generation_config, network.config
    names = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    kept = {name: getattr(told, name, None) for name in names}
    kept = {name: getattr(config, name, None) if value is None else value for name, value in kept.items()}
    return GenerationConfig(max_new_tokens=int(max_new_tokens), do_sample=False, num_beams=1, **kept)


TEXT_METRICS = ("exact_match", "token_f1", "rouge1", "rouge2", "rougeL")


# --- texts ----------------------------------------------------------------------------------------------------------
def text_scores(said: Sequence[str], truth: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Score each text against its target: TEXT_METRICS by name, each of shape (N,), between 0 and 1.

    `exact_match` and `token_f1` compare words without case, punctuation and articles, as SQuAD does; ROUGE is the
    F-measure of the rouge-score package, with stemming.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = np.zeros((len(said), len(TEXT_METRICS)))
    for i, (one, other) in enumerate(zip(said, truth, strict=True)):
        words, wanted = _words(one), _words(other)
        rouge = scorer.score(other, one)
        found[i] = [words == wanted, _overlap(words, wanted), *(rouge[name].fmeasure for name in TEXT_METRICS[2:])]
    return {name: found[:, i] for i, name in enumerate(TEXT_METRICS)}


def _words(text: str) -> list[str]:
    """Give the words of a text without case, punctuation and articles; of one that is only an article, that."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(?:a|an|the)\b", " ", plain).split() or plain.split()


def _overlap(words: list[str], wanted: list[str]) -> float:
    """Give the F1 of the words in common, counted with repeats; two texts without words agree."""
    if not words or not wanted:
        return float(words == wanted)
    return 2 * sum((Counter(words) & Counter(wanted)).values()) / (len(words) + len(wanted))
