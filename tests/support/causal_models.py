"""Tiny causal language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_synth.llm.local import LocalLLM

_WORDS = "the a of in week today note patient seen clinic reports doing with and no new cough fine lungs clear plan"
WORDS = _WORDS.split()
SPECIAL = ["<unk>", "<s>", "</s>"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} ; {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)


def causal(
    folder: Path, *, kind: str = "llama", template: str | None = TEMPLATE, positions: int = 128, seed: int = 0
) -> Path:
    """Write a model with two layers and random weights, large enough for its answers to vary."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        PreTrainedTokenizerFast,
    )

    words = [*SPECIAL, *WORDS, "system", "user", "assistant", ":", ";"]
    words += [f"w{i}" for i in range(40)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(  # like Llama-2's: no padding token
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=positions
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    if kind == "llama":
        LlamaForCausalLM(LlamaConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
            max_position_embeddings=positions, pad_token_id=None, tie_word_embeddings=False, **sizes,
        )).save_pretrained(folder)  # fmt: skip
    elif kind == "gpt2":  # counts positions from the start of a text, and ties its embeddings
        GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=positions, **sizes)).save_pretrained(
            folder
        )
    else:
        MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, **sizes)).save_pretrained(folder)
    return folder


def make(model: Path, folder: Path, **more: Any) -> LocalLLM:
    return LocalLLM(str(model), **{"journal": folder / "journal.sqlite", "max_new_tokens": 12, "device": "cpu", **more})
