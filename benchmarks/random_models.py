"""Models with random weights, texts of known lengths, and what a device can do: shared by benchmarks of speed.

Nothing is downloaded: a model is built from its configuration, and a tokenizer has one token for each word, so that
the number of tokens of a text is known before it is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.models.record import write_facts
from hf_synth.task.task import Task

LONGEST = 512  # tokens of a text, its two special ones among them
LABELS = ("none", "mild", "moderate", "severe")
TASK = Task.from_columns("notes", text_columns="text", label_column="label", labels=LABELS, access="open")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_OPEN = {"kind": "encoder", "access": "open", "row_digests": []}


# --- texts -----------------------------------------------------------------------------------------------------------
def text_lengths(n: int, *, mean: int, longest: int, seed: int = 0) -> list[int]:
    """Draw the tokens of n texts, special ones among them: log-normal with about this mean, some of them the longest.

    One text in 50, and at least one, has the longest length.
    """
    rng = np.random.default_rng(seed)
    spread = 0.6
    drawn = rng.lognormal(np.log(mean) - spread**2 / 2, spread, n)
    drawn[rng.permutation(n)[: max(1, n // 50)]] = longest
    lengths: list[int] = np.clip(drawn, 4, longest).astype(int).tolist()
    return lengths


def rows_of(lengths: Sequence[int], n_words: int, seed: int = 0) -> Any:
    """Make gold rows whose texts have these lengths, of words drawn from `n_words`."""
    from datasets import Dataset

    rng = np.random.default_rng(seed)
    made = []
    for i, length in enumerate(lengths):
        text = " ".join(f"w{word}" for word in rng.integers(0, n_words, length - 2))
        made.append(TASK.gold_row(f"r{seed}-{i}", None, int(rng.integers(0, len(LABELS))), text))
    return Dataset.from_list(made, features=TASK.gold_features())


# --- models ----------------------------------------------------------------------------------------------------------
def write_tokenizer(folder: Path, n_words: int, longest: int = LONGEST) -> Any:
    """Write the tokenizer of an encoder, with a token for each of `n_words` words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*_SPECIAL, *(f"w{i}" for i in range(n_words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=longest,
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def write_encoder(folder: Path, config: Any, *, longest: int = LONGEST, seed: int = 0) -> Path:
    """Write a classifier with random weights, its head among them, and its tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification

    write_tokenizer(folder, config.vocab_size - len(_SPECIAL), longest)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: i for i, label in enumerate(LABELS)}
    config.problem_type = "single_label_classification"
    torch.manual_seed(seed)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    write_facts(folder, _OPEN)
    return folder


# --- what is done, and what a device can do --------------------------------------------------------------------------
def forward_flops(network: Any, lengths: Sequence[int]) -> float:
    """Return the floating point operations of the matrix products of a forward pass over texts without padding.

    Each weight of the layers takes two a token. Attention takes four for each pair of a token and one that it sees, and
    each unit of its width. The head is left out, which sees one vector a text.
    """
    import torch

    config, tokens = network.config, np.asarray(lengths, dtype=np.float64)
    names = ("classifier", "score", "head", "lm_head")
    weights = sum(
        module.weight.numel()
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith(names) and "pooler" not in name
    )
    layers = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    pairs = sum(_pairs(tokens, None if kind == "full_attention" else config.sliding_window) for kind in layers)
    return 2.0 * weights * float(tokens.sum()) + 4.0 * config.hidden_size * pairs


def _pairs(tokens: Any, reach: int | None) -> float:
    """Count the pairs of a token and one that it sees, up to `reach` tokens to each side; the whole text when None."""
    if reach is None:
        return float((tokens**2).sum())
    near = np.minimum(tokens, reach)
    return float((tokens + 2 * (near * (near - 1) / 2 + near * (tokens - near))).sum())


def matmul_rate(device: str, dtype: str, *, size: int, seconds: float, clock: Callable[[], float]) -> float:
    """Measure the floating point operations a second of square matrix products; the best of three runs.

    Args:
        clock: of seconds; CPU seconds on a busy CPU with one thread.
    """
    import torch

    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device, kind) for _ in range(2))
    best = 0.0
    with torch.inference_mode():
        for _ in range(3):
            torch.mm(a, b)
            wait_for(device)
            began, count = clock(), 0
            while clock() - began < seconds:
                for _ in range(10 if device != "cpu" else 1):
                    torch.mm(a, b)
                count += 10 if device != "cpu" else 1
                wait_for(device)
            best = max(best, 2.0 * size**3 * count / (clock() - began))
    return best


def wait_for(device: str) -> None:
    """Wait until a CUDA device has done what was asked of it."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: str, clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Run a function; return its seconds and its result."""
    wait_for(device)
    began = clock()
    result = work()
    wait_for(device)
    return clock() - began, result
