"""How likely a causal model holds each of several endings of a prompt: one pass a prompt, one more for all endings.

transformers has a pipeline ("decision") that reads label probabilities off the next token's logits: one prompt at a
time, in a wording of its own. Here prompts are ours and go through in batches, and an ending may have several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.llm.decoding import Loaded
from hf_synth.models.inference import cpu_threads
from hf_synth.task.labels import batches

Floats = npt.NDArray[np.float64]


def ending_tokens(model: Loaded, endings: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Give the tokens that all endings begin with, and the tokens that are left of each; at least one each."""
    ids = [list(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in endings]
    shortest = min(map(len, ids))
    same = next((i for i in range(shortest) if len({row[i] for row in ids}) > 1), shortest)
    same = min(same, shortest - 1)
    return ids[0][:same], [row[same:] for row in ids]


def log_likelihoods(
    model: Loaded, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]], batch_tokens: int | None = None
) -> Floats:
    """Give the log-probability of each ending after each prompt, summed over the ending's tokens, (N, K).

    Args:
        prompts: tokens of each prompt, N.
        endings: tokens of each ending, K.
        batch_tokens: tokens of one batch; what the model's device bears when None.
    """
    import torch

    found = np.zeros((len(prompts), len(endings)))
    room = len(endings) * max(map(len, endings))
    with torch.inference_mode(), cpu_threads():
        for group in batches([len(prompt) + room for prompt in prompts], batch_tokens or model.batch_tokens):
            found[group] = _batch(model, [prompts[i] for i in group], endings)
    return found


def _batch(model: Loaded, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> Any:
    import torch
    from transformers import DynamicCache

    network, device = model.network, model.network.device
    n, k, width, longest = len(prompts), len(endings), max(map(len, prompts)), max(map(len, endings))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    tails = torch.tensor([[*e, *[0] * (longest - len(e))] for e in endings], device=device)
    real = torch.tensor([[1] * len(e) + [0] * (longest - len(e)) for e in endings], device=device)
    cache = DynamicCache(config=network.config)
    first = model.logits(ids, mask, cache).log_softmax(-1)  # (n, vocabulary)
    total = first[:, tails[:, 0]].double()
    if longest == 1:
        return total.cpu().numpy()
    cache.batch_repeat_interleave(k)
    tails, real = tails.repeat(n, 1), real.repeat(n, 1)
    mask = torch.cat([mask.repeat_interleave(k, 0), real[:, :-1]], dim=1)
    inputs: dict[str, Any] = {
        "input_ids": tails[:, :-1],
        "attention_mask": mask,
        "past_key_values": cache,
        "use_cache": True,
    }
    if "position_ids" in model.takes:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, width:]
    said = network(**inputs).logits.to(device).float().log_softmax(-1)
    rest = said.gather(-1, tails[:, 1:, None])[..., 0] * real[:, 1:]
    return (total + rest.sum(-1).double().view(n, k)).cpu().numpy()
