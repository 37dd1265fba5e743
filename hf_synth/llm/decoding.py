"""Causal language models of transformers: loading, sampling parameters, batched generation, log-likelihoods of endings.

Generation draws the tokens of each row of a batch from a generator of its own, so that an answer does not depend on
the other rows. `log_likelihoods` scores fixed endings after prompts, as a judge of labels needs it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from inspect import signature
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.errors import LLMError, ModelError
from hf_synth.llm.gguf_files import Weights, find_weights, is_gguf
from hf_synth.models.loading import cpu_threads, model_folder, quiet
from hf_synth.models.record import access_on_record, weights_sha256
from hf_synth.models.tokens import batches
from hf_synth.models.watching import mention_device
from hf_synth.reports.progress import stage
from hf_synth.task.columns import Access, strictest
from hf_synth.task.labels import Floats

_LOG = logging.getLogger(__name__)
_BATCH_TOKENS = {"cpu": 8_192, "cuda": 65_536}
_LONGEST = 1 << 20  # tokens; tokenizers report absurd numbers where they know no limit
# Files that decide how a model reads and writes, in addition to its weights.
_DECIDING_FILES = re.compile(
    r"(config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab)\.json"
    r"|chat_template\.\w+|vocab\.txt|merges\.txt|.+\.model"
)
_FETCHED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
# Type, least and most of each sampling parameter of LocalLLM.
_RANGES: dict[str, tuple[type[float], float, float]] = {
    "max_completion_tokens": (int, 1, _LONGEST), "max_tokens": (int, 1, _LONGEST), "top_k": (int, -1, math.inf),
    "repetition_penalty": (float, 0.01, 100), "seed": (int, -math.inf, math.inf), "temperature": (float, 0, 100),
    "top_p": (float, 1e-6, 1),
}  # fmt: skip


# --- sampling -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sampling:
    """Sampling parameters with all defaults filled in; all are a part of a question's key."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


def read_sampling(sampling: Mapping[str, Any], max_new_tokens: int) -> Sampling:
    """Check sampling parameters and fill in the defaults; a None counts as not given.

    Raises:
        LLMError: a parameter is unknown or out of range.
    """
    if unknown := sorted(set(sampling) - {"stop", *_RANGES}):
        raise LLMError(f"a LocalLLM knows no {', '.join(unknown)}; it takes {', '.join(sorted(['stop', *_RANGES]))}")
    values = {name: value for name, value in sampling.items() if value is not None}
    stop = values.pop("stop", ())
    stop = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stop, list | tuple) or not all(isinstance(one, str) and one for one in stop):
        raise LLMError("the sampling parameter stop must be a text or a list of texts, none of them empty")
    for name, value in values.items():
        kind, least, most = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | kind) or not least <= value <= most:
            what = "a whole number" if kind is int else "a number"
            span = "" if most == math.inf else f" from {least:g} to {most:g}"
            raise LLMError(f"the sampling parameter {name} must be {what}{span}")
        values[name] = kind(value)  # 1 and 1.0 have one key
    bounds = [values.pop(name) for name in ("max_tokens", "max_completion_tokens") if name in values]
    values["top_k"] = max(0, values.get("top_k", 0))
    return Sampling(max_tokens=min(bounds, default=max_new_tokens), stop=tuple(stop), **values)


# --- the model ------------------------------------------------------------------------------------------------------
class Checkpoint:
    """The files of a model: their folder, their digest, and the model in memory, loaded on first use."""

    def __init__(self, model: str, revision: str | None, device: str | None, dtype: str | None) -> None:
        self._model, self._revision, self._how = model, revision, (device, dtype)

    @cached_property
    def _files(self) -> tuple[Path, str | None]:
        return _find(self._model, self._revision)

    @cached_property
    def weights(self) -> Weights | None:
        """The GGUF file that the model is; None for a folder or a repository."""
        if not is_gguf(self._model) or Path(self._model).is_dir():
            return None
        if self._revision is not None:
            raise ModelError(f"model {self._model!r} is a file, and files have no revisions; leave revision out")
        return find_weights(self._model)

    @cached_property
    def digest(self) -> str:
        """The identity of the model: the digest of a file, the commit of a repository, or a hash of a folder."""
        if self.weights is not None:
            return self.weights.sha256
        folder, commit = self._files
        return commit or _digest(folder)

    @property
    def name(self) -> str:
        """The name under which answers are kept."""
        return f"{self._model}@{self.digest[:12]}" if self.weights is None else self.weights.name

    @cached_property
    def access(self) -> Access:
        """The access of the notes that the model is known to have learnt from; open where nothing is recorded."""
        if self.weights is not None:
            return self.weights.access
        folder = self._files[0]
        # a link of one file leads to what is recorded where that file lies
        folders = dict.fromkeys([folder, *(file.resolve().parent for file in folder.iterdir() if file.is_symlink())])
        found = [access for one in folders if (access := access_on_record(self._model, one)) is not None]
        return strictest(*found) if found else "open"

    @cached_property
    def loaded(self) -> Loaded:
        """The model in memory."""
        return Loaded(self._model, self._files[0] if self.weights is None else self.weights.path, *self._how)


def _find(model: str, revision: str | None) -> tuple[Path, str | None]:
    """Return a model's folder, and the commit where it is the snapshot of a repository."""
    if Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        if revision is not None:
            raise ModelError(f"model {model!r} is a folder, and folders have no revisions; leave revision out")
        return model_folder(model), None
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=_FETCHED, ignore_patterns=["*/*"]))
    except Exception as error:  # the clients raise many types
        raise ModelError(
            f"model {model!r} is no folder here and cannot be fetched from the Hub or found in its cache "
            f"({type(error).__name__}); check its name, or pass the path of a folder"
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
    """One answer during generation: at most `room` tokens; `code` is the reason of its end."""

    prompt: Sequence[int]
    room: int
    seed: int
    written: list[int] = field(default_factory=list)
    text: str = ""
    code: str = ""


class Loaded:
    """A model in memory: messages -> tokens -> answers."""

    def __init__(self, model: str, path: Path, device: str | None, dtype: str | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        precision = getattr(torch, dtype or ("float32" if where == "cpu" else "bfloat16"), None)
        if not isinstance(precision, torch.dtype):
            raise LLMError(f"{dtype!r} is no dtype of weights; pass float32, bfloat16 or float16")
        safe: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        folder = path
        if path.is_file():
            if find_spec("gguf") is None:
                raise ModelError(
                    f"{path.name} is a GGUF file, which the package gguf reads: pip install 'hf_synth[local]'"
                )
            folder, safe["gguf_file"] = path.parent, path.name  # its weights are expanded to `dtype`
        elif not any(any(folder.glob(name)) for name in ("tokenizer.json", "vocab.*", "*.model")):
            raise ModelError(f"model {model!r} has no tokenizer")  # transformers would make an empty one
        load: dict[str, Any] = {"dtype": precision, "device_map": "auto" if where == "auto" else {"": where}, **safe}
        if where != "auto":
            mention_device(where)
        try:
            # the reader of GGUF files draws a progress bar of its own
            with (
                stage(f"loading {path.name}"),
                quiet(),
                redirect_stderr(StringIO()) if path.is_file() else nullcontext(),
            ):
                self.tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
                self.network, info = AutoModelForCausalLM.from_pretrained(
                    folder, weights_only=True, output_loading_info=True, **load
                )
        except Exception as error:
            raise ModelError(f"model {model!r} cannot be loaded as a causal LM ({type(error).__name__})") from None
        if info["missing_keys"]:
            raise ModelError(f"model {model!r} has only a part of the weights of a causal LM")
        layers = DynamicCache(config=self.network.config).layers
        if not all(hasattr(layer, "batch_select_indices") for layer in layers):
            raise ModelError(
                f"model {model!r} does not work by attention alone; serve it at an endpoint and use an LLM"
            )
        self.network.eval()
        self._name, self.batch_tokens = model, _BATCH_TOKENS["cpu" if where == "cpu" else "cuda"]
        self.takes = signature(self.network.forward).parameters
        positions = getattr(self.network.config.get_text_config(), "max_position_embeddings", None) or _LONGEST
        self.limit = int(min(positions, self.tokenizer.model_max_length, _LONGEST))
        self.tokenizer.model_max_length = _LONGEST  # long prompts are handled here: no warning, no truncation
        if getattr(self.tokenizer, "backend_tokenizer", None) is not None:
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
        ends = self.network.generation_config.eos_token_id
        self._ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        if self.tokenizer.chat_template is None:
            _LOG.warning("model %s has no chat template: it reads the messages as plain text", model)

    # --- reading ------------------------------------------------------------------------------------------------

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the tokens of messages.

        Raises:
            LLMError: the model's chat template does not accept the messages.
        """
        try:
            plain = self.tokenizer.chat_template is None
            text = "\n\n".join(m["content"] for m in messages) + "\n" if plain else self._templated(messages)
            return list(self.tokenizer(text, add_special_tokens=plain)["input_ids"])  # a template adds its own
        except Exception as error:
            raise LLMError(
                f"the chat template or tokenizer of model {self._name!r} does not accept these messages "
                f"({type(error).__name__}); their roles are {', '.join(sorted({str(m.get('role')) for m in messages}))}"
            ) from None

    def _templated(self, messages: list[dict[str, str]]) -> str:
        def render(messages: list[dict[str, str]]) -> str:
            return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        if not system:
            return render(messages)
        try:
            if system.strip() in (text := render(messages)):  # some templates drop the role silently
                return text
        except Exception:
            _LOG.debug("the chat template refuses a system message; it is put into the user's turn")
        first, *others = [m for m in messages if m["role"] != "system"]
        return render([{**first, "content": f"{system}\n\n{first['content']}"}, *others])

    # --- writing ------------------------------------------------------------------------------------------------

    def write(self, rows: Sequence[Row], how: Sampling) -> None:
        """Generate the answers of a batch; a row that has ended is removed with its part of the cache."""
        import torch
        from transformers import DynamicCache

        device, width = self.network.device, max(len(row.prompt) for row in rows)
        # padded on the left, so that every row continues at the same position; the padding is masked
        ids = torch.tensor([[0] * (width - len(row.prompt)) + list(row.prompt) for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
        cache, alive = DynamicCache(config=self.network.config), list(rows)
        sampler = _Sampler(alive, how, device)
        with torch.inference_mode(), cpu_threads():
            while True:
                tokens = sampler.draw(self.logits(ids, mask, cache))
                keep = [i for i, token in enumerate(tokens) if not self._ended(alive[i], token, how.stop)]
                if not keep:
                    return
                if len(keep) < len(alive):
                    alive, tokens = [alive[i] for i in keep], [tokens[i] for i in keep]
                    cache.batch_select_indices(torch.tensor(keep))
                    mask = mask[keep]
                    sampler.keep(keep)
                ids = torch.tensor(tokens, device=device)[:, None]
                mask = torch.cat([mask, torch.ones_like(ids)], dim=1)

    def logits(self, ids: Any, mask: Any, cache: Any) -> Any:
        """Return the logits of each row's next token, (rows, vocabulary) in float32."""
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        if "position_ids" in self.takes:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = 1
        return self.network(**inputs).logits[:, -1].to(ids.device).float()  # they lie on the last of several devices

    def _ended(self, row: Row, token: int, stop: tuple[str, ...]) -> bool:
        row.written.append(token)
        if token in self._ends:
            row.text, row.code = self._text(row.written[:-1]), "stop"
            return True
        if stop:
            # decoding the whole answer after each token would take quadratic time
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


class _Sampler:
    """Sampler of the next token of each row of a batch, by the Gumbel-max trick.

    Of tokens with log-probabilities l the one with the largest l + g is an exact draw, where the g are independent
    Gumbel numbers. Each row has a generator of its own, seeded by its question's key, and each token of the vocabulary
    has its own g at every step. A draw therefore does not depend on the other rows of the batch, and small changes of
    the logits, from other shapes of a batch, hardly ever change the token (inverse transform sampling would shift every
    boundary).

    The numbers are float64: with the 24 bits of a float32 a token of zero probability would win about once in 2^24
    numbers, which is once in some hundred steps.
    """

    def __init__(self, rows: Sequence[Row], how: Sampling, device: Any) -> None:
        import torch

        self._how, self._prompts = how, [list(row.prompt) for row in rows]
        self._seen: Any = None
        self._generators = [torch.Generator(device).manual_seed(row.seed) for row in rows]

    def keep(self, indices: list[int]) -> None:
        """Keep some of the rows."""
        self._generators = [self._generators[i] for i in indices]
        self._seen = self._seen[indices] if self._seen is not None else None

    def draw(self, logits: Any) -> list[int]:
        """Draw a token for each row.

        Args:
            logits: (rows, vocabulary).

        Raises:
            LLMError: a logit is NaN.
        """
        import torch

        if logits.isnan().any():
            raise LLMError("the model's numbers overflow; pass LocalLLM(dtype='float32') or 'bfloat16'")
        how = self._how
        if how.repetition_penalty != 1:
            if self._seen is None:
                self._seen = torch.zeros(logits.shape, dtype=torch.bool)
                for seen, prompt in zip(self._seen, self._prompts, strict=True):
                    seen[prompt] = True
                self._seen = self._seen.to(logits.device)
            penalised = torch.where(logits > 0, logits / how.repetition_penalty, logits * how.repetition_penalty)
            logits = torch.where(self._seen, penalised, logits)
        tokens = logits.argmax(-1, keepdim=True) if how.temperature == 0 else self._sample(logits)
        if self._seen is not None:
            self._seen.scatter_(1, tokens, True)
        return [int(token) for token in tokens[:, 0].tolist()]

    def _sample(self, logits: Any) -> Any:
        import torch

        how, size = self._how, logits.shape[-1]
        uniform = torch.empty(logits.shape, dtype=torch.float64, device=logits.device)
        for row, generator in zip(uniform, self._generators, strict=True):
            row.uniform_(generator=generator)
        values, tokens = logits.double() / how.temperature, None
        if how.top_p < 1 or 0 < how.top_k < size:
            values, tokens = values.topk(min(how.top_k or size, size))  # the likeliest first
            uniform = uniform.gather(1, tokens)
        if how.top_p < 1:
            shares = values.softmax(-1)
            values = values.masked_fill(shares.cumsum(-1) - shares >= how.top_p, -math.inf)
        # the log of an exponential number, clamped away from log(0)
        best = (values - (-torch.log1p(-uniform)).clamp_min(1e-300).log()).argmax(-1, keepdim=True)
        return best if tokens is None else tokens.gather(1, best)


# --- memory ---------------------------------------------------------------------------------------------------------
def is_out_of_memory(error: Exception) -> bool:
    """Check whether an error means that a device ran out of memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError)


def free_memory() -> None:
    """Free the memory that a failed attempt left on the device."""
    import torch

    torch.cuda.empty_cache()


# --- likelihoods ----------------------------------------------------------------------------------------------------
def ending_tokens(model: Loaded, endings: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Split the tokens of endings into the common beginning and the rest of each, which is never empty."""
    ids = [list(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in endings]
    shortest = min(map(len, ids))
    same = next((i for i in range(shortest) if len({row[i] for row in ids}) > 1), shortest)
    same = min(same, shortest - 1)
    return ids[0][:same], [row[same:] for row in ids]


def log_likelihoods(
    model: Loaded, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]], batch_tokens: int | None = None
) -> Floats:
    """Compute the log-probability of each ending after each prompt, summed over the ending's tokens, (N, K).

    Args:
        prompts: tokens of each prompt, N.
        endings: tokens of each ending, K.
        batch_tokens: tokens of one batch; the default of the model's device when None.
    """
    import torch

    scores = np.zeros((len(prompts), len(endings)))
    room = len(endings) * max(map(len, endings))
    with torch.inference_mode(), cpu_threads():
        for group in batches([len(prompt) + room for prompt in prompts], batch_tokens or model.batch_tokens):
            scores[group] = _batch_likelihoods(model, [prompts[i] for i in group], endings)
    return scores


def _batch_likelihoods(model: Loaded, prompts: Sequence[Sequence[int]], endings: Sequence[Sequence[int]]) -> Any:
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
    inputs = {"input_ids": tails[:, :-1], "attention_mask": mask, "past_key_values": cache, "use_cache": True}
    if "position_ids" in model.takes:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, width:]
    later = network(**inputs).logits.to(device).float().log_softmax(-1)
    rest = later.gather(-1, tails[:, 1:, None])[..., 0] * real[:, 1:]
    return (total + rest.sum(-1).double().view(n, k)).cpu().numpy()
