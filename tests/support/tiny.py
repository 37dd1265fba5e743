"""A toy task and an encoder of a few thousand weights, for tests of everything that needs a model."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_synth.models.record import write_facts
from hf_synth.task.task import Task

WORDS = "the a of in week today note patient seen clinic reports doing with and no new cough fine lungs clear plan"
FILLER = WORDS.split()
SIGNS = {"none": ["comfortable", "regular"], "mild": ["sore", "soft"], "severe": ["tube", "admitted"]}
LABELS = tuple(SIGNS)
OPEN_FACTS: dict[str, Any] = {"kind": "encoder", "access": "open", "row_digests": []}
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def toy_task(**more: Any) -> Task:
    options = {"text_columns": "text", "label_column": "label", "labels": LABELS, "access": "open", **more}
    return Task.from_columns("toy", **options)


def toy_rows(n: int, seed: int = 0, task: Task | None = None) -> Dataset:
    """Make gold rows of an open task: a row's label stands in one or two of its words."""
    return _made_once(n, seed) if task is None else _made(n, seed, task)


@cache
def _made_once(n: int, seed: int) -> Dataset:
    return _made(n, seed, toy_task())


def _made(n: int, seed: int, task: Task) -> Dataset:
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = rng.randrange(len(LABELS))
        words = rng.choices(FILLER, k=rng.randint(2, 25)) + rng.choices(SIGNS[LABELS[label]], k=rng.randint(1, 2))
        rng.shuffle(words)
        rows.append(task.gold_row(f"r{seed}-{i}", f"p{seed}-{i // 2}", label, " ".join(words)))
    return Dataset.from_list(rows, features=task.gold_features())


def tiny_base(folder: Path) -> Path:
    """Write config and tokenizer of a BERT with one layer, without weights: `train` starts it from its seed.

    Its facts record that it is open: a folder of which nothing is known counts as credentialed.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    words = [*_SPECIAL, *FILLER, *(w for signs in SIGNS.values() for w in signs)]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=48,
    ).save_pretrained(folder)  # fmt: skip
    BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    ).save_pretrained(folder)  # fmt: skip
    write_facts(folder, OPEN_FACTS)
    return folder


TINY_ARGS = {"learning_rate": 1e-2, "num_train_epochs": 6, "per_device_train_batch_size": 16}
