"""Families of base models, tiny and random: each is trained and predicts alike in any batch, or says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from support.tiny import toy_rows, toy_task

from hf_synth.errors import ModelError
from hf_synth.models.inference import embed, predict_proba
from hf_synth.models.loading import load_tokenizer
from hf_synth.models.tokens import token_limit
from hf_synth.models.training import start, train

TASK = toy_task()
PLACES = 64  # rows of a table of positions
SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
PLACED = {**SIZES, "max_position_embeddings": PLACES, "pad_token_id": 1}
DEEP: dict[str, Any] = {"vocab_size": 40, "d_model": 16, "pad_token_id": 0, "eos_token_id": 3}
BART: dict[str, Any] = {
    **DEEP, "bos_token_id": 2, "max_position_embeddings": PLACES, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip
T5: dict[str, Any] = {**DEEP, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
FAMILIES: dict[str, tuple[str, dict[str, Any], int]] = {  # config, its fields, tokens that the model reads
    "longformer": ("LongformerConfig", {**PLACED, "attention_window": [16], "type_vocab_size": 1}, PLACES - 1),
    "luke": ("LukeConfig", {**PLACED, "entity_vocab_size": 4}, PLACES - 1),
    "data2vec": ("Data2VecTextConfig", PLACED, PLACES - 1),
    "ibert": ("IBertConfig", PLACED, PLACES - 1),
    "xmod": ("XmodConfig", {**PLACED, "languages": ["en_XX"], "default_language": "en_XX"}, PLACES - 1),
    "esm": ("EsmConfig", {**PLACED, "mask_token_id": 4}, PLACES - 1),
    "xlnet": ("XLNetConfig", {"vocab_size": 40, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}, 512),
    "bart": ("BartConfig", BART, PLACES),
    "t5": ("T5Config", T5, 512),
}


def gold() -> Dataset:
    """Make short rows and some that are longer than any of the tables of positions."""
    long = [" ".join(toy_rows(8, seed=i)["text"]) for i in range(2)]
    rows = [*toy_rows(8), *(TASK.gold_row(f"long{i}", f"long{i}", i, text) for i, text in enumerate(long))]
    return Dataset.from_list(rows, features=TASK.gold_features())


def without_limit(base: Path, folder: Path, config: Any) -> Path:
    """Write a config beside a tokenizer that names no limit, as many repositories do."""
    shutil.copytree(base, folder)
    file = folder / "tokenizer_config.json"
    fields = json.loads(file.read_text())
    del fields["model_max_length"]
    file.write_text(json.dumps(fields))
    config.save_pretrained(folder)
    return folder


def trained(folder: Path, **more: Any) -> Path:
    args = {"num_train_epochs": 1, "per_device_train_batch_size": 4}
    return train(
        TASK, gold(), toy_rows(4, seed=1), base_model=folder, output_dir=folder.parent / "m", args=args, **more
    )


ALIKE = ("luke", "data2vec", "ibert", "xmod", "esm")  # they place their tokens as longformer does


@pytest.mark.parametrize("family", [pytest.param(f, marks=[pytest.mark.slow] * (f in ALIKE)) for f in FAMILIES])
def test_a_family_is_trained_and_its_predictions_depend_on_no_batch(family: str, base: Path, tmp_path: Path) -> None:
    name, fields, limit = FAMILIES[family]
    folder = without_limit(base, tmp_path / "base", getattr(transformers, name)(**fields))
    network, tokenizer = start(folder, TASK, seed=0)
    assert token_limit(tokenizer, network) == limit
    model = trained(folder, long_notes="cut")
    together, alone = (predict_proba(TASK, model, gold(), tokens_per_batch=n) for n in (10**6, 1))
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(np.unique(together.round(6), axis=0)) > 1
    assert embed(TASK, model, gold()).shape == (10, 16)


@pytest.mark.slow  # its tokenizer names a million characters
def test_a_model_of_characters_needs_no_vocabulary(base: Path, tmp_path: Path) -> None:
    fields = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    sizes = {"max_position_embeddings": 64, "num_hash_buckets": 64, "local_transformer_stride": 16}
    folder = without_limit(base, tmp_path / "base", transformers.CanineConfig(**fields, **sizes))
    (folder / "tokenizer.json").unlink()
    transformers.CanineTokenizer(model_max_length=64).save_pretrained(folder)
    assert predict_proba(TASK, trained(folder), toy_rows(3)).shape == (3, 3)


def test_a_token_that_was_added_to_the_tokenizer_gets_a_row_of_the_table(base: Path, tmp_path: Path) -> None:
    """The usual mend of a model without a padding token: the token lies beyond the vocabulary of its weights."""
    folder = without_limit(
        base, tmp_path / "base", transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2)
    )
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    assert tokenizer.pad_token_id == 32
    model = trained(folder)
    assert transformers.AutoConfig.from_pretrained(model).vocab_size == 33
    assert predict_proba(TASK, model, toy_rows(3)) == pytest.approx(
        predict_proba(TASK, model, toy_rows(3), tokens_per_batch=1), abs=1e-5
    )


UNFIT: dict[str, tuple[Callable[[], Any], str]] = {
    "vocabulary of another model": (lambda: transformers.BertConfig(**{**SIZES, "vocab_size": 20}), "of two models"),
    "no language": (lambda: transformers.XmodConfig(**PLACED, languages=["en_XX"]), "default_language in config.json"),
    "no positions": (lambda: transformers.BertConfig(**SIZES, max_position_embeddings=4), "reads 4 tokens at most"),
    "no classifier": (lambda: transformers.CLIPVisionConfig(), "as a classifier"),
}


@pytest.mark.parametrize("why", UNFIT)
def test_what_cannot_be_trained_is_one_sentence(why: str, base: Path, tmp_path: Path) -> None:
    config, problem = UNFIT[why]
    folder = without_limit(base, tmp_path / "base", config())
    with pytest.raises(ModelError, match=problem) as caught:
        trained(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_a_trained_model_with_the_tokenizer_of_another_is_one_sentence(base: Path, tmp_path: Path) -> None:
    model = trained(
        without_limit(base, tmp_path / "base", transformers.BertConfig(**SIZES, max_position_embeddings=64))
    )
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model)
    network.resize_token_embeddings(20)
    network.save_pretrained(model)
    with pytest.raises(ModelError, match="beyond the 20 of the model's weights"):
        predict_proba(TASK, model, toy_rows(8))
    assert torch.is_tensor(network.get_input_embeddings().weight)
