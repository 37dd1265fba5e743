"""Small tasks of every kind, their gold and what a model writes for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from datasets import Dataset
from support.tiny import FILLER, OPEN_FACTS

from hf_synth.models.record import write_facts
from hf_synth.task.task import Task

SIGNS = {
    "throat": ("sore", "tube"),
    "chest": ("regular", "soft"),
    "stay": ("admitted", "comfortable"),
}  # in tiny's words
SETS = Task.from_columns(
    "findings", kind="multi_label", text_columns="text", label_column="findings", labels=tuple(SIGNS), access="open",
    license="cc-by-4.0",
)  # fmt: skip
DRUGS = ("aspirin", "heparin", "insulin", "digoxin", "warfarin", "codeine")
ASKED = Task.from_columns(
    "drugs", kind="text2text", text_columns=("question", "context"), label_column="answer", access="open",
    metrics=("token_f1", "exact_match"), license="cc-by-4.0",
)  # fmt: skip
T5_ARGS = {"learning_rate": 1e-2, "num_train_epochs": 8, "per_device_train_batch_size": 16}


def sets_gold(n: int, seed: int = 0) -> Dataset:
    """Make gold rows whose labels, none to all, each stand in a word of their own."""
    rng, rows = random.Random(seed), []
    for i in range(n):
        labels = [k for k in range(3) if rng.random() < 0.4]
        signs = [rng.choice(SIGNS[SETS.labels[k]]) for k in labels]
        parts = [" ".join([*rng.choices(FILLER, k=rng.randint(1, 3)), sign]) + "." for sign in signs]
        parts.append(" ".join(rng.choices(FILLER, k=3)) + ".")
        rng.shuffle(parts)
        rows.append(SETS.gold_row(f"s{seed}-{i}", f"p{seed}-{i // 2}", None, " ".join(parts)) | {"findings": labels})
    return Dataset.from_list(rows, features=SETS.gold_features())


def asked_gold(n: int, seed: int = 0) -> Dataset:
    """Make gold rows that ask for the drug which the context names."""
    rng, rows = random.Random(seed), []
    for i in range(n):
        drug = rng.choice(DRUGS)
        parts = [" ".join(rng.choices(FILLER, k=4)) + "." for _ in range(2)] + [f"patient on {drug}."]
        rng.shuffle(parts)
        rows.append(ASKED.gold_row(f"a{seed}-{i}", f"p{seed}-{i}", drug, "reports drug", " ".join(parts)))
    return Dataset.from_list(rows, features=ASKED.gold_features())


def tiny_t5(folder: Path) -> Path:
    """Write config and tokenizer of a T5 of one layer on each side, without weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config

    words = ["<pad>", "</s>", "<unk>", ".", ":", "question", "context", "drug", "on", *DRUGS, *FILLER]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    T5Config(
        vocab_size=len(vocabulary), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_decoder_layers=1, num_heads=2,
        dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=1.0,
    ).save_pretrained(folder)  # fmt: skip
    write_facts(folder, OPEN_FACTS)
    return folder


def generated(task: Task, gold: Dataset, **columns: list[Any]) -> Dataset:
    """Make synthetic rows of gold rows; columns as given."""
    told = {"source": "synthetic", "seed_ids": [], "prompt_sha256": "", "generator": "g", "journal_key": "",
            "answer_code": "", "sampling": "", "created": "",
            **dict.fromkeys(("fold", "prompt_tokens", "completion_tokens", "cost_usd")),
            "label_status": "kept", "reason": "as_generated"}  # fmt: skip
    rows = [
        {**row, **told, "llm_label": row[task.label_column], **{name: values[i] for name, values in columns.items()}}
        for i, row in enumerate(gold)
    ]
    return Dataset.from_list(rows, features=task.synthetic_features())
