"""Sequence-to-sequence models for text2text tasks: training inputs, greedy decoding, ROUGE and exact match.

The input of a row is its text, or "name: text" lines in the order of the task's columns where there are several. The
loss is the cross-entropy of the target's tokens, each times its row's weight. Decoding is greedy, so that the same call
returns the same texts.
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

from hf_synth.errors import ModelError, TaskError
from hf_synth.models.inference import TOKENS_PER_BATCH, usual_device
from hf_synth.models.loading import cpu_threads, has_weights, load_network, load_tokenizer, model_folder, quiet
from hf_synth.models.tokens import batches, check_known, check_vocabulary, pad
from hf_synth.models.watching import mention_device
from hf_synth.reports.progress import shown, stage
from hf_synth.task.labels import Floats, checked_texts, right_texts, row_weights, target_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

NEW_TOKENS = 128  # of a text, where the model's generation config sets no limit
ROUGE = ("rouge1", "rouge2", "rougeL")
STEMMED = "_stemmed"  # ends the name of a ROUGE score between stems of words
TEXT_METRICS = ("exact_match", "token_f1", *ROUGE, *(f"{name}{STEMMED}" for name in ROUGE))
_LONGEST_INPUT = 1024  # tokens, where neither tokenizer nor config sets a limit
_IGNORED = -100  # a label that Trainer does not count


# --- models ---------------------------------------------------------------------------------------------------------
def load_seq2seq(model: str | Path) -> Any:
    """Load a sequence-to-sequence model for inference (eval mode, float32, CPU).

    Raises:
        ModelError: it cannot be loaded as such, or lacks weights.
    """
    from transformers import AutoModelForSeq2SeqLM

    network, missing = load_network(AutoModelForSeq2SeqLM, model)
    if missing:
        raise ModelError(f"model {str(model)!r} lacks some of the weights of a sequence-to-sequence model")
    return network


def start_seq2seq(base_model: str | Path, seed: int, *, name: str | None = None) -> tuple[Any, Any]:
    """Load the sequence-to-sequence model to train, and its tokenizer; initialise it where its folder has no weights.

    Args:
        name: of the model in messages.

    Raises:
        ModelError: it cannot be loaded, or is no sequence-to-sequence model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, set_seed

    folder, name = model_folder(base_model), name or str(base_model)
    tokenizer = load_tokenizer(folder)
    set_seed(seed)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if has_weights(folder):
            network = AutoModelForSeq2SeqLM.from_pretrained(
                folder, config=config, trust_remote_code=False, weights_only=True, dtype=torch.float32
            )
        else:
            network = AutoModelForSeq2SeqLM.from_config(config)
    except Exception as error:
        raise ModelError(
            f"base model {name!r} cannot be loaded ({type(error).__name__}): a text2text task needs a "
            "sequence-to-sequence model, such as a T5 or a BART"
        ) from None
    if network.config.decoder_start_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(f"base model {name!r} names no token that starts a text, or none that ends one")
    check_vocabulary(tokenizer, network, f"base model {name!r}")
    return network, tokenizer


def token_limits(tokenizer: Any, config: Any) -> tuple[int, int]:
    """Return how many tokens a model reads and writes at most, from its position embeddings and its tokenizer.

    A T5 has no absolute positions: its tokenizer alone sets the limit.
    """
    longest = int(min(tokenizer.model_max_length, 1 << 20))
    read, write = (
        getattr(config, f"max_{side}_position_embeddings", None) or getattr(config, "max_position_embeddings", None)
        for side in ("encoder", "decoder")
    )
    default = longest if longest < 1 << 20 else _LONGEST_INPUT
    return min(int(read or default), longest), min(int(write or default), longest)


# --- rows -----------------------------------------------------------------------------------------------------------
def input_texts(task: Task, dataset: Dataset) -> list[str]:
    """Return the model's input for each row: the text, or "name: text" lines of several columns in their order.

    Raises:
        ColumnError: a text is missing or not a string.
    """
    columns = checked_texts(task, dataset)
    if len(columns) == 1:
        return columns[0]
    rows = zip(*columns, strict=True)
    return ["\n".join(f"{c}: {text}" for c, text in zip(task.text_columns, row, strict=True)) for row in rows]


def _tokens(tokenizer: Any, texts: Sequence[str], limit: int, *, target: bool = False) -> list[list[int]]:
    if not texts:
        return []
    options = {"truncation": True, "max_length": limit, "padding": False, "return_attention_mask": False}
    encoded = tokenizer(**{"text_target" if target else "text": list(texts)}, **options)
    return [list(row) for row in encoded["input_ids"]]


# --- training -------------------------------------------------------------------------------------------------------
def trainer_parts(
    network: Any, tokenizer: Any, task: Task, rows: Dataset, validation: Dataset | None
) -> dict[str, Any]:
    """Return Trainer's arguments for a text2text task, by name.

    Also sets the network's generation config: greedy, up to twice the longest target. `main`, the score of an epoch, is
    the task's first metric of texts, of those written for the validation rows (rougeL where it names none).

    Raises:
        ColumnError: a text or target is missing, or a weight is no positive number.
    """
    most_read, most_written = token_limits(tokenizer, network.config)
    weights = row_weights(rows)
    weights = weights / weights.mean()  # of mean 1: the learning rate keeps its meaning

    def examples(dataset: Dataset, weights: npt.NDArray[Any]) -> list[dict[str, Any]]:
        inputs = _tokens(tokenizer, input_texts(task, dataset), most_read)
        targets = _tokens(tokenizer, target_texts(task, dataset), most_written, target=True)
        parts = zip(inputs, targets, weights.tolist(), strict=True)
        return [{"input_ids": ids, "labels": [(t, weight) for t in target]} for ids, target, weight in parts]

    train_dataset = examples(rows, weights)
    longest = max(len(row["labels"]) for row in train_dataset)
    network.generation_config = _greedy(network, min(most_written, 2 * longest))

    def score(_output: Any) -> dict[str, float]:
        assert validation is not None
        predicted = predict_texts(network, tokenizer, task, validation, device=str(network.device))
        name = next((metric for metric in task.metrics if metric in TEXT_METRICS), "rougeL")
        return {"main": float(text_scores(predicted, right_texts(task, validation))[name].mean())}

    return {
        "data_collator": lambda batch: _collate(network, tokenizer, batch),
        "train_dataset": train_dataset,
        "eval_dataset": None if validation is None else examples(validation, np.ones(len(validation))),
        "compute_loss_func": weighted_loss,
        "compute_metrics": score,
        "preprocess_logits_for_metrics": lambda _logits, labels: labels[:, 0, 0],  # unused: drop the large logits
    }


def _collate(network: Any, tokenizer: Any, examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad a batch; its labels are (token, weight), (rows, tokens, 2), so that Trainer passes both to the loss."""
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
    """Return the mean over target tokens of weight times -log p.

    Args:
        labels: (token, weight), (rows, tokens, 2); both are -100 in the padding.
        num_items_in_batch: entries of `labels` that are not -100, over all the batches of a step: two for a token.
    """
    from torch.nn.functional import cross_entropy

    ids, weights = labels[..., 0].long(), labels[..., 1]
    logits = outputs["logits"].float()
    losses = cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=_IGNORED, reduction="none")
    total = (losses.view_as(weights) * weights).sum()  # the padding has loss 0
    return total / ((ids != _IGNORED).sum() if num_items_in_batch is None else num_items_in_batch / 2)


# --- writing --------------------------------------------------------------------------------------------------------
def generate_text(task: Task, model: str | Path, dataset: Dataset, **options: Any) -> list[str]:
    """Write the target of each row, greedily, in length-sorted batches; texts come back in the order of the rows.

    Args:
        model: folder or repo id of a sequence-to-sequence model.
        options: as for `predict_texts`.

    Raises:
        TaskError: the task is not text2text.
        ModelError: the model cannot be loaded as a sequence-to-sequence model.
        ColumnError: a text is missing.
    """
    if task.kind != "text2text":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: only text2text tasks have texts to write")
    return predict_texts(load_seq2seq(model), load_tokenizer(model), task, dataset, **options)


def predict_texts(
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
    """Compute `generate_text` with a loaded model.

    Args:
        max_new_tokens: the most tokens of one text; that of the model's generation config, or 128, when None.
        device: "cpu", "cuda", ...; a CUDA device when there is one.
    """
    import torch

    most_read, most_written = token_limits(tokenizer, network.config)
    new = min(most_written, max_new_tokens or network.generation_config.max_new_tokens or NEW_TOKENS)
    network.generation_config = _greedy(network, new)  # passed to `generate` it would be merged with the old one
    rows = _tokens(tokenizer, input_texts(task, dataset), most_read)
    check_known(network, tokenizer.pad_token_id, max((max(row) for row in rows if row), default=0))
    texts = [""] * len(rows)
    device = device or usual_device()
    network = network.to(device).eval()
    half = torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else contextlib.nullcontext()
    mention_device(device)
    counted = stage(total=len(rows), unit="texts written")
    with shown(progress), counted as bar, torch.inference_mode(), half, cpu_threads(), quiet():
        for group in batches([len(row) + new for row in rows], tokens_per_batch):
            padded = pad(tokenizer, [{"input_ids": rows[i]} for i in group])
            inputs = {key: torch.from_numpy(values).to(device) for key, values in padded.items()}
            ids = network.generate(**inputs)
            for i, text in zip(group, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                texts[i] = text.strip()
            bar.advance(len(group))
    return texts


def _greedy(network: Any, max_new_tokens: int) -> Any:
    """Return a greedy generation config with the network's special tokens.

    The rest of its own config is dropped: a pretrained model may bring beams, or a minimum length.
    """
    from transformers import GenerationConfig

    names = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    special = {name: getattr(network.generation_config, name, None) for name in names}
    special = {k: getattr(network.config, k, None) if value is None else value for k, value in special.items()}
    return GenerationConfig(max_new_tokens=int(max_new_tokens), do_sample=False, num_beams=1, **special)


# --- scoring --------------------------------------------------------------------------------------------------------
def text_scores(predicted: Sequence[str], truth: Sequence[str | Sequence[str]]) -> dict[str, Floats]:
    """Score each text against its target, or against the best of several: TEXT_METRICS by name, (N,) each, 0 to 1.

    `exact_match` and `token_f1` compare words without case, punctuation and articles, as SQuAD does. ROUGE is the
    F-measure of the rouge-score package as it is called without options, between words as they stand, which is how
    DR.BENCH's ProbSumm is scored; `rougeL_stemmed` and the like compare stems, and are higher.

    Args:
        predicted: N texts.
        truth: for each the target, or several right ones; the best one counts in each metric.
    """
    from rouge_score.rouge_scorer import RougeScorer

    plain, stemmed = (RougeScorer(list(ROUGE), use_stemmer=stems) for stems in (False, True))
    scores = np.zeros((len(predicted), len(TEXT_METRICS)))
    for i, (text, targets) in enumerate(zip(predicted, truth, strict=True)):
        words = _words(text)
        for target in [targets] if isinstance(targets, str) else targets:
            target_words = _words(target)
            rouge = [scorer.score(target, text)[name].fmeasure for scorer in (plain, stemmed) for name in ROUGE]
            found = [words == target_words, _word_f1(words, target_words), *rouge]
            scores[i] = np.maximum(scores[i], found)
    return {name: scores[:, i] for i, name in enumerate(TEXT_METRICS)}


def _words(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and articles; with articles if there is nothing else."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(?:a|an|the)\b", " ", plain).split() or plain.split()


def _word_f1(words: list[str], target: list[str]) -> float:
    """Return the F1 of the common words, counted with repeats; two texts without words agree."""
    if not words or not target:
        return float(words == target)
    return 2 * sum((Counter(words) & Counter(target)).values()) / (len(words) + len(target))
