"""A causal language model: where it lies, what decides its answers, and how it writes a batch of them.

Each row of a batch draws its luck from a generator of its own, so that what it says does not hang on its neighbours.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import LLMError, ModelError
from hf_synth.models.loading import cpu_threads, model_folder, quiet
from hf_synth.models.record import weights_sha256
from hf_synth.models.tokens import batches

_LOG = logging.getLogger(__name__)
_BATCH_TOKENS = {"cpu": 8_192, "cuda": 65_536}
_LONGEST = 1 << 20  # tokens; tokenizers name absurd numbers where they know no limit
# What decides how a folder's model reads and writes, beside its weights.
_DECIDING_FILES = re.compile(
    r"(config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab)\.json"
    r"|chat_template\.\w+|vocab\.txt|merges\.txt|.+\.model"
)
_FETCHED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]


# --- sampling -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, with every default filled in: all of it is part of a question's key."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


_RANGES: dict[str, tuple[type[float], float, float]] = {
    "max_completion_tokens": (int, 1, _LONGEST), "max_tokens": (int, 1, _LONGEST), "top_k": (int, -1, math.inf),
    "repetition_penalty": (float, 0.01, 100), "seed": (int, -math.inf, math.inf), "temperature": (float, 0, 100),
    "top_p": (float, 1e-6, 1),
}  # fmt: skip


def checked_sampling(sampling: Mapping[str, Any], max_new_tokens: int) -> Sampling:
    """Fill in the defaults; a None counts as not given.

    Raises:
        LLMError: one of them is unknown, or has a value that makes no sense.
    """
    if unknown := sorted(set(sampling) - {"stop", *_RANGES}):
        raise LLMError(f"a LocalLLM knows no {', '.join(unknown)}; it takes {', '.join(sorted(['stop', *_RANGES]))}")
    given = {name: value for name, value in sampling.items() if value is not None}
    stop = given.pop("stop", ())
    stop = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stop, list | tuple) or not all(isinstance(one, str) and one for one in stop):
        raise LLMError("the sampling parameter stop must be a text or a list of texts, none of them empty")
    for name, value in given.items():
        kind, least, most = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | kind) or not least <= value <= most:
            what = "a whole number" if kind is int else "a number"
            span = "" if most == math.inf else f" from {least:g} to {most:g}"
            raise LLMError(f"the sampling parameter {name} must be {what}{span}")
        given[name] = kind(value)  # 1 and 1.0 are one key
    bounds = [given.pop(name) for name in ("max_tokens", "max_completion_tokens") if name in given]
    given["top_k"] = max(0, given.get("top_k", 0))
    return Sampling(max_tokens=min(bounds, default=max_new_tokens), stop=tuple(stop), **given)


# --- the model ------------------------------------------------------------------------------------------------------
class Checkpoint:
    """A model's files: where they are, what identifies them, and the model in memory once it is needed."""

    def __init__(self, model: str, revision: str | None, device: str | None, dtype: str | None) -> None:
        self._model, self._revision, self._how = model, revision, (device, dtype)

    @cached_property
    def _found(self) -> tuple[Path, str | None]:
        return _find(self._model, self._revision)

    @cached_property
    def digest(self) -> str:
        """What tells it from any other: the commit of a repository, a hash of a folder's files."""
        folder, commit = self._found
        return commit or _digest(folder)

    @cached_property
    def loaded(self) -> Loaded:
        """The model in memory."""
        return Loaded(self._model, self._found[0], *self._how)


def _find(model: str, revision: str | None) -> tuple[Path, str | None]:
    """Give a model's folder, and the commit where it is a repository's snapshot."""
    if Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        if revision is not None:
            raise ModelError(f"model {model!r} is a folder: it has no revisions")
        return model_folder(model), None
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=_FETCHED, ignore_patterns=["*/*"]))
    except Exception as error:  # the clients raise many kinds
        raise ModelError(
            f"model {model!r} is no folder here and cannot be fetched from the Hub or found in its cache "
            f"({type(error).__name__}); check its name, or give the path of a folder"
        ) from None
    return model_folder(folder), folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None


def _digest(folder: Path) -> str:
    digest = sha256(weights_sha256(folder).encode())
    for file in sorted(folder.iterdir()):
        if _DECIDING_FILES.fullmatch(file.name):
            digest.update(f"{file.name}\x00{file.stat().st_size}\x00".encode() + file.read_bytes())
    return digest.hexdigest()


@dataclass
class Row:
    """One answer while it is written: at most `room` tokens; `code` says why it ended."""

    prompt: Sequence[int]
    room: int
    seed: int
    written: list[int] = field(default_factory=list)
    text: str = ""
    code: str = ""


class Loaded:
    """A model in memory: messages -> tokens -> answers."""

    def __init__(self, model: str, folder: Path, device: str | None, dtype: str | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        precision = getattr(torch, dtype or ("float32" if where == "cpu" else "bfloat16"), None)
        if not isinstance(precision, torch.dtype):
            raise LLMError(f"{dtype!r} is no dtype of weights: give float32, bfloat16 or float16")
        if not any(any(folder.glob(name)) for name in ("tokenizer.json", "vocab.*", "*.model")):
            raise ModelError(f"model {model!r} holds no tokenizer")  # transformers would make an empty one
        safe: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        try:
            with quiet():
                self.tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
                self.network, seen = AutoModelForCausalLM.from_pretrained(
                    folder, weights_only=True, dtype=precision, output_loading_info=True,
                    device_map="auto" if where == "auto" else {"": where}, **safe,
                )  # fmt: skip
        except Exception as error:
            raise ModelError(f"model {model!r} cannot be loaded as a causal LM ({type(error).__name__})") from None
        if seen["missing_keys"]:
            raise ModelError(f"model {model!r} holds only a part of the weights of a causal LM")
        layers = DynamicCache(config=self.network.config).layers
        if not all(hasattr(layer, "batch_select_indices") for layer in layers):
            raise ModelError(f"model {model!r} does not remember by attention alone: serve it elsewhere and use an LLM")
        self.network.eval()
        self._name, self.batch_tokens = model, _BATCH_TOKENS["cpu" if where == "cpu" else "cuda"]
        self.takes = signature(self.network.forward).parameters
        positions = getattr(self.network.config.get_text_config(), "max_position_embeddings", None) or _LONGEST
        self.limit = int(min(positions, self.tokenizer.model_max_length, _LONGEST))
        self.tokenizer.model_max_length = _LONGEST  # what is too long is our own affair: no warning, nothing cut off
        if getattr(self.tokenizer, "backend_tokenizer", None) is not None:
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
        told = self.network.generation_config.eos_token_id
        self._ends = {self.tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])}
        if self.tokenizer.chat_template is None:
            _LOG.warning("model %s has no chat template: it reads the messages as plain text", model)

    # --- reading ------------------------------------------------------------------------------------------------

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Give the tokens that the model reads.

        Raises:
            LLMError: the model's chat template does not take such messages.
        """
        try:
            plain = self.tokenizer.chat_template is None
            text = "\n\n".join(m["content"] for m in messages) + "\n" if plain else self._templated(messages)
            return list(self.tokenizer(text, add_special_tokens=plain)["input_ids"])  # a template has its own
        except Exception as error:
            raise LLMError(
                f"the chat template or tokenizer of model {self._name!r} does not take these messages "
                f"({type(error).__name__}); their roles are {', '.join(sorted({str(m.get('role')) for m in messages}))}"
            ) from None

    def _templated(self, messages: list[dict[str, str]]) -> str:
        def render(messages: list[dict[str, str]]) -> str:
            return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        if not system:
            return render(messages)
        try:
            if system.strip() in (text := render(messages)):  # some templates drop the role without a word
                return text
        except Exception:
            _LOG.debug("the chat template refuses a system message: it goes into the user's turn")
        first, *others = [m for m in messages if m["role"] != "system"]
        return render([{**first, "content": f"{system}\n\n{first['content']}"}, *others])

    # --- writing ------------------------------------------------------------------------------------------------

    def write(self, rows: Sequence[Row], how: Sampling) -> None:
        """Write the answers of a batch. A row that has ended leaves it, with its part of the cache."""
        import torch
        from transformers import DynamicCache

        device, width = self.network.device, max(len(row.prompt) for row in rows)
        # padded on the left, so that every row goes on at the same place; what pads it is masked, any token does
        ids = torch.tensor([[0] * (width - len(row.prompt)) + list(row.prompt) for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
        cache, alive = DynamicCache(config=self.network.config), list(rows)
        luck = _Luck(alive, how, device)
        with torch.inference_mode(), cpu_threads():
            while True:
                tokens = luck.draw(self.logits(ids, mask, cache))
                keep = [i for i, token in enumerate(tokens) if not self._ended(alive[i], token, how.stop)]
                if not keep:
                    return
                if len(keep) < len(alive):
                    alive, tokens = [alive[i] for i in keep], [tokens[i] for i in keep]
                    cache.batch_select_indices(torch.tensor(keep))
                    mask = mask[keep]
                    luck.keep(keep)
                ids = torch.tensor(tokens, device=device)[:, None]
                mask = torch.cat([mask, torch.ones_like(ids)], dim=1)

    def logits(self, ids: Any, mask: Any, cache: Any) -> Any:
        """Give the logits of each row's next token, (rows, vocabulary) in float32."""
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        if "position_ids" in self.takes:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = 1
        return self.network(**inputs).logits[:, -1].to(ids.device).float()  # the last of several devices gives them

    def _ended(self, row: Row, token: int, stop: tuple[str, ...]) -> bool:
        row.written.append(token)
        if token in self._ends:
            row.text, row.code = self._text(row.written[:-1]), "stop"
            return True
        if stop:
            # reading a whole answer again after each token would take the square of its length
            longest = max(len(one.encode()) for one in stop)
            if any(one in self._text(row.written[-4 * longest - 8 :]) for one in stop):
                text = self._text(row.written)
                if places := [text.find(one) for one in stop if one in text]:
                    row.text, row.code = text[: min(places)], "stop"
                    return True
        if len(row.written) >= row.room:
            row.text, row.code = self._text(row.written), "length"
        return bool(row.code)

    def _text(self, tokens: Sequence[int]) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


class _Luck:
    """Draws the next token of each row of a batch.

    Of tokens with log-probabilities l the one with the largest l + g is an exact draw, where the g are independent
    Gumbel numbers. Each row has a generator of its own, seeded by its question's key, and each token of the vocabulary
    a g of its own at every step: what a row draws depends neither on its place in a batch nor on who sits beside it
    (one generator for the whole batch would mix them), and small changes of the logits, from other shapes of a batch,
    hardly ever change the token (where a draw along the cumulated probabilities would move every boundary).

    The numbers are float64: with the 24 bits of a float32 a token of no probability would win about once in 2^24
    numbers, which is once in some hundred steps.
    """

    def __init__(self, rows: Sequence[Row], how: Sampling, device: Any) -> None:
        import torch

        self._how, self._prompts = how, [list(row.prompt) for row in rows]
        self._seen: Any = None
        self._generators = [torch.Generator(device).manual_seed(row.seed) for row in rows]

    def keep(self, indices: list[int]) -> None:
        """Go on with some of the rows."""
        self._generators = [self._generators[i] for i in indices]
        self._seen = self._seen[indices] if self._seen is not None else None

    def draw(self, logits: Any) -> list[int]:
        """Give a token for each row.

        Args:
            logits: (rows, vocabulary).

        Raises:
            LLMError: they are no numbers.
        """
        import torch

        if logits.isnan().any():
            raise LLMError("the model's numbers overflow: give LocalLLM(dtype='float32') or 'bfloat16'")

        how = self._how
        if how.repetition_penalty != 1:
            if self._seen is None:
                self._seen = torch.zeros(logits.shape, dtype=torch.bool)
                for seen, prompt in zip(self._seen, self._prompts, strict=True):
                    seen[prompt] = True
                self._seen = self._seen.to(logits.device)
            weaker = torch.where(logits > 0, logits / how.repetition_penalty, logits * how.repetition_penalty)
            logits = torch.where(self._seen, weaker, logits)
        tokens = logits.argmax(-1, keepdim=True) if how.temperature == 0 else self._sampled(logits)
        if self._seen is not None:
            self._seen.scatter_(1, tokens, True)
        return [int(token) for token in tokens[:, 0].tolist()]

    def _sampled(self, logits: Any) -> Any:
        import torch

        how, size = self._how, logits.shape[-1]
        luck = torch.empty(logits.shape, dtype=torch.float64, device=logits.device)
        for row, generator in zip(luck, self._generators, strict=True):
            row.uniform_(generator=generator)
        values, tokens = logits.double() / how.temperature, None
        if how.top_p < 1 or 0 < how.top_k < size:
            values, tokens = values.topk(min(how.top_k or size, size))  # the likeliest first
            luck = luck.gather(1, tokens)
        if how.top_p < 1:
            shares = values.softmax(-1)
            values = values.masked_fill(shares.cumsum(-1) - shares >= how.top_p, -math.inf)
        # log of an exponential number, away from log(0)
        best = (values - (-torch.log1p(-luck)).clamp_min(1e-300).log()).argmax(-1, keepdim=True)
        return best if tokens is None else tokens.gather(1, best)


# --- memory ---------------------------------------------------------------------------------------------------------
def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a device had too little memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError)


def free_memory() -> None:
    """Give back what a failed attempt has left on the device."""
    import torch

    torch.cuda.empty_cache()


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
