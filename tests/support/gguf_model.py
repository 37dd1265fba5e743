"""A llama of random weights in a GGUF file of a few hundred KB: it speaks nonsense, as JSON where a grammar says so."""

from __future__ import annotations

import random
from pathlib import Path
from string import ascii_lowercase

_WIDTH, _HEADS, _LAYERS, _FORWARD, CONTEXT = 64, 4, 1, 128, 4096
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_gguf(path: Path, seed: int = 0) -> Path:
    """Write the model. Its tokens are the 256 bytes and the printable ASCII characters."""
    import gguf
    import numpy as np

    letters = [chr(c) for c in range(33, 127)] + ["\u2581"]  # the last stands for a space
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    kind = gguf.TokenType
    kinds = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256, *[kind.NORMAL] * len(letters)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("nonsense")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(_TEMPLATE)

    rng = np.random.default_rng(random.Random(seed).getrandbits(32))
    shapes = {"token_embd": (len(tokens), _WIDTH), "output": (len(tokens), _WIDTH)}
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.attn_{part}": (_WIDTH, _WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{part}": (_FORWARD, _WIDTH) for part in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down"] = (_WIDTH, _FORWARD)
    weights = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    # The first dimension is the same for every token and so a bias of the output: bytes are read but never written
    # (pieces of characters are no text), small letters are likely, an entry is opened, and what is open is soon closed.
    weights["token_embd"][:, 0] = 1.0
    for layer in range(_LAYERS):
        weights[f"blk.{layer}.attn_output"][0] = weights[f"blk.{layer}.ffn_down"][0] = 0.0
    bias = dict.fromkeys(ascii_lowercase, 0.2) | {'"': 0.4, "{": 0.5, "]": 0.3}
    weights["output"][:, 0] = [
        bias.get(t, 0.0) if k == kind.NORMAL else -10.0 for t, k in zip(tokens, kinds, strict=True)
    ]
    for name, values in weights.items():
        writer.add_tensor(f"{name}.weight", values)
    for name in ("output_norm", *(f"blk.{i}.{n}_norm" for i in range(_LAYERS) for n in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
