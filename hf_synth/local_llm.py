"""LocalLLM: a causal language model in this process, as a value; nothing of it leaves the machine.

`chat` writes the answers of many questions in batches of like length, and hands an answer on only once the journal has
it on disk. What a question is answered follows from its own key: each row of a batch draws its luck from a generator of
its own. Rounding still depends on the shape of a batch (most of all in bfloat16), so that one answer in many may come
out otherwise among other questions; once it is in the journal it stays.

What the libraries say is never logged or put into an error, since they may quote the prompt: only the kind of error.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

from hf_synth.errors import LLMError, ModelError
from hf_synth.journal import Entry, Journal, default_journal
from hf_synth.modeling import cpu_threads, model_folder, quiet, weights_sha256
from hf_synth.questions import Answer, Messages, Question, answer_of, check_sampling, deciding, keyed, seed_of
from hf_synth.rows import batches

_LOG = logging.getLogger(__name__)
_LOOK_AHEAD = 256  # questions looked up at once, and sorted by length
_BATCH_TOKENS = {"cpu": 8_192, "cuda": 65_536}
_LONGEST = 1 << 20  # tokens; tokenizers name absurd numbers where they know no limit
# What decides how a folder's model reads and writes, beside its weights.
_DECIDING_FILES = re.compile(
    r"(config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab)\.json"
    r"|chat_template\.\w+|vocab\.txt|merges\.txt|.+\.model"
)
_FETCHED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]


@dataclass(frozen=True, eq=False)
class LocalLLM:
    """A causal language model that runs in this process. Making one is cheap; it is loaded for the first new question.

    Answers are keyed by the model's files, the messages and the sampling, not by device, dtype or batch size. The
    sampling defaults of a model's own generation config are not used: temperature 1 and no bounds, unless given.

    Args:
        model: a folder, or the id of a Hub repository (found in the cache alone where HF_HUB_OFFLINE is set).
        journal: file that keeps the answers; `.hf_synth/journal.sqlite` in the working folder when None.
        revision: of a repository: branch, tag or commit.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" for all there are; CUDA where there is one when None.
        dtype: of the weights, e.g. "float16"; bfloat16 on CUDA and float32 on a CPU when None.
        batch_tokens: tokens of one batch, read and written; 65,536 on CUDA and 8,192 on a CPU when None. A batch that
            does not fit into a GPU's memory is halved.
        max_new_tokens: the most tokens of an answer where no `max_tokens` is given.

    Raises:
        LLMError: an argument makes no sense.
    """

    model: str
    journal: str | Path | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    max_new_tokens: int = 1024
    _opened: Journal | None = field(init=False, repr=False, default=None)
    _checkpoint: _Checkpoint = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not str(self.model) or self.max_new_tokens < 1 or (self.batch_tokens is not None and self.batch_tokens < 1):
            raise LLMError("a LocalLLM needs a model, and max_new_tokens and batch_tokens of at least 1")
        if isinstance(self.model, Path):  # one that is missing must not pass for the id of a repository
            object.__setattr__(self, "model", os.path.join(".", self.model))
        object.__setattr__(self, "_checkpoint", _Checkpoint(self.model, self.revision, self.device, self.dtype))

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalLLM, tuple(getattr(self, f.name) for f in fields(self) if f.init)

    def with_journal(self, path: str | Path) -> LocalLLM:
        """Give the same LocalLLM with its journal elsewhere; the model stays in memory once."""
        other = replace(self, journal=path)
        object.__setattr__(other, "_checkpoint", self._checkpoint)
        return other

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and give their answers in order.

        Args:
            list_of_messages: for each question its messages, as {"role": ..., "content": ...}.
            options: as for `stream`.
        """
        return list(self.stream(list_of_messages, **{"ahead": None, **options}))

    def stream(
        self,
        list_of_messages: Iterable[Messages | Question | None],
        *,
        access: str | None = None,
        schema: Mapping[str, Any] | None = None,
        samples: Iterable[int] | None = None,
        scope: str = "",
        progress: bool = False,
        ahead: int | None = 4096,
        **sampling: Any,
    ) -> Iterator[Answer]:
        """Give the answers in order as they come, in bounded memory.

        Args:
            list_of_messages: read some hundred ahead, so that questions of like length meet; may be a generator. A None
                among them is a pause: the oldest question under way is answered before the next one is read.
            access: of what the messages hold; nothing leaves the machine, so anything may be asked.
            schema: not enforced, and no part of the key: answers are to be parsed tolerantly.
            samples: a number for each question; equal messages with another number are another question. When None,
                how often the same messages came before in this call.
            scope: another part of the journal's key, e.g. the fingerprint of a task.
            progress: show a progress bar.
            ahead: how many questions may be ahead of the oldest one without an answer; None for no bound.
            sampling: temperature (0 takes the likeliest token), top_p, top_k, repetition_penalty, max_tokens or
                max_completion_tokens, stop (a string or several, left out of the answer), seed. A seed is a part of the
                key, which the luck of each question follows from: equal questions of other samples differ under it.

        Yields:
            An answer for each question, "truncated" with code "length" where it ended at a limit. One that cannot be
            answered has status "error" with code "too_long" (the prompt fills the model's context) or "out_of_memory".

        Raises:
            LLMError: a sampling parameter is unknown or wrong, or the model fails. What was answered is kept.
            ModelError: the model cannot be found or loaded.
            JournalError: the journal cannot be read or written.
        """
        check_sampling(sampling)
        how = _checked(sampling, self.max_new_tokens)
        from tqdm import tqdm

        waiting: deque[_Ticket] = deque()
        most_waiting = math.inf if ahead is None else ahead
        total = len(list_of_messages) if isinstance(list_of_messages, Sequence) else None
        with tqdm(total=total, disable=not progress, unit="answer", desc=self.model) as bar:
            asking = _Asking(self, how)
            questions = keyed(list_of_messages, samples, deciding(self._checkpoint.digest, asdict(how), None, scope))
            for chunk, pause in _chunks(questions):
                waiting.extend(asking.tickets(chunk))
                while waiting and (
                    # a pause takes one of the answers that are there, so that the others have company to come
                    (waiting[0].answer and not pause)
                    or len(asking.unanswered) >= _LOOK_AHEAD
                    or len(waiting) >= most_waiting
                ):
                    yield asking.answer(waiting.popleft())
                    bar.update()
                if pause and waiting:
                    yield asking.answer(waiting.popleft())
                    bar.update()
            while waiting:
                yield asking.answer(waiting.popleft())
                bar.update()

    def open_journal(self) -> Journal:
        """Give the journal, opened once for this LocalLLM and closed with it."""
        journal = self._opened
        if journal is None:
            journal = Journal(self.journal if self.journal is not None else default_journal())
            weakref.finalize(self, journal.close)
            object.__setattr__(self, "_opened", journal)
        return journal


Keyed = tuple[str, list[dict[str, str]]]


def _chunks(questions: Iterator[Keyed | None]) -> Iterator[tuple[list[Keyed], bool]]:
    """Group questions for looking up, and say whether a pause follows the group."""
    chunk: list[Keyed] = []
    for question in questions:
        if question is not None:
            chunk.append(question)
        if question is None or len(chunk) >= _LOOK_AHEAD:
            yield chunk, question is None
            chunk = []
    yield chunk, False


# --- sampling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sampling:
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


def _checked(sampling: Mapping[str, Any], max_new_tokens: int) -> _Sampling:
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
    return _Sampling(max_tokens=min(bounds, default=max_new_tokens), stop=tuple(stop), **given)


# --- one call of chat -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Ticket:
    """One question: what it reads, and its answer once there is one."""

    key: str
    prompt: Sequence[int] = ()
    answer: Answer | None = None


class _Asking:
    """One call of `chat`: what the journal has comes from there; the first question it has not loads the model."""

    def __init__(self, llm: LocalLLM, how: _Sampling) -> None:
        self._model = llm._checkpoint
        self.unanswered: dict[str, _Ticket] = {}
        self._how, self._journal = how, llm.open_journal()
        self._batch_tokens = llm.batch_tokens
        self._name = f"{llm.model}@{self._model.digest[:12]}"

    def tickets(self, chunk: list[Keyed]) -> Iterator[_Ticket]:
        """Give for each question its ticket, with the answer where it is known."""
        known = self._journal.get_many(key for key, _ in chunk)
        for key, messages in chunk:
            if key in known:
                yield _Ticket(key, answer=answer_of(known[key], cached=True))
            elif key in self.unanswered:
                yield self.unanswered[key]
            else:
                ticket = _Ticket(key, self._model.loaded.prompt(messages))
                if self._room(ticket) < 1:
                    self._fail(ticket, "too_long")
                else:
                    self.unanswered[key] = ticket
                yield ticket

    def answer(self, ticket: _Ticket) -> Answer:
        """Write batches until this question has its answer."""
        while ticket.answer is None:
            # cut anew each time: what was read meanwhile fills the batch up
            under_way = list(self.unanswered.values())
            lengths = [len(one.prompt) + self._room(one) for one in under_way]
            most = self._batch_tokens or self._model.loaded.batch_tokens
            groups = ([under_way[i] for i in group] for group in batches(lengths, most))
            self._write(next(group for group in groups if ticket in group))
        return ticket.answer

    def _room(self, ticket: _Ticket) -> int:
        return min(self._how.max_tokens, self._model.loaded.limit - len(ticket.prompt))

    def _fail(self, ticket: _Ticket, code: str) -> None:
        read = len(ticket.prompt)
        ticket.answer = Answer("", "error", code, prompt_tokens=read, model=self._name, journal_key=ticket.key)
        self.unanswered.pop(ticket.key, None)

    def _write(self, group: list[_Ticket]) -> None:
        """Answer a batch; where memory is too small for it, make it and all later ones half as large instead."""
        import torch

        rows = [_Row(ticket.prompt, self._room(ticket), seed_of(ticket.key)) for ticket in group]
        fits = True
        try:
            self._model.loaded.write(rows, self._how)
        except torch.OutOfMemoryError:
            fits = False
        except LLMError:
            raise
        except Exception as error:
            raise LLMError(f"{self._name} fails on a batch of {len(rows)} questions ({type(error).__name__})") from None
        if not fits:  # only here is the memory of the attempt free again
            torch.cuda.empty_cache()
            if len(group) == 1:
                self._fail(group[0], "out_of_memory")
            self._batch_tokens = max(len(row.prompt) + row.room for row in rows) * max(1, len(group) // 2)
            return
        now = time.time()
        self._journal.put_many(
            Entry(
                ticket.key, row.text, "ok" if row.code == "stop" else "truncated", row.code, len(row.prompt),
                len(row.written), 0.0, self._name, now,
            )
            for ticket, row in zip(group, rows, strict=True)
        )  # fmt: skip
        kept = self._journal.get_many(ticket.key for ticket in group)  # of two processes the first one's answer counts
        for ticket in group:
            ticket.answer = answer_of(kept[ticket.key], cached=False)
            del self.unanswered[ticket.key]


# --- the model ------------------------------------------------------------------------------------------------------


class _Checkpoint:
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
    def loaded(self) -> _Loaded:
        """The model in memory."""
        return _Loaded(self._model, self._found[0], *self._how)


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
class _Row:
    """One answer while it is written: at most `room` tokens; `code` says why it ended."""

    prompt: Sequence[int]
    room: int
    seed: int
    written: list[int] = field(default_factory=list)
    text: str = ""
    code: str = ""


class _Loaded:
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
                self._tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
                self._network, seen = AutoModelForCausalLM.from_pretrained(
                    folder, weights_only=True, dtype=precision, output_loading_info=True,
                    device_map="auto" if where == "auto" else {"": where}, **safe,
                )  # fmt: skip
        except Exception as error:
            raise ModelError(f"model {model!r} cannot be loaded as a causal LM ({type(error).__name__})") from None
        if seen["missing_keys"]:
            raise ModelError(f"model {model!r} holds only a part of the weights of a causal LM")
        layers = DynamicCache(config=self._network.config).layers
        if not all(hasattr(layer, "batch_select_indices") for layer in layers):
            raise ModelError(f"model {model!r} does not remember by attention alone: serve it elsewhere and use an LLM")
        self._network.eval()
        self._name, self.batch_tokens = model, _BATCH_TOKENS["cpu" if where == "cpu" else "cuda"]
        self._takes = signature(self._network.forward).parameters
        positions = getattr(self._network.config.get_text_config(), "max_position_embeddings", None) or _LONGEST
        self.limit = int(min(positions, self._tokenizer.model_max_length, _LONGEST))
        self._tokenizer.model_max_length = _LONGEST  # what is too long is our own affair: no warning, nothing cut off
        if getattr(self._tokenizer, "backend_tokenizer", None) is not None:
            self._tokenizer.backend_tokenizer.no_truncation()
            self._tokenizer.backend_tokenizer.no_padding()
        told = self._network.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])}
        if self._tokenizer.chat_template is None:
            _LOG.warning("model %s has no chat template: it reads the messages as plain text", model)

    # --- reading ------------------------------------------------------------------------------------------------

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Give the tokens that the model reads.

        Raises:
            LLMError: the model's chat template does not take such messages.
        """
        try:
            plain = self._tokenizer.chat_template is None
            text = "\n\n".join(m["content"] for m in messages) + "\n" if plain else self._templated(messages)
            return list(self._tokenizer(text, add_special_tokens=plain)["input_ids"])  # a template has its own
        except Exception as error:
            raise LLMError(
                f"the chat template or tokenizer of model {self._name!r} does not take these messages "
                f"({type(error).__name__}); their roles are {', '.join(sorted({str(m.get('role')) for m in messages}))}"
            ) from None

    def _templated(self, messages: list[dict[str, str]]) -> str:
        def render(messages: list[dict[str, str]]) -> str:
            return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

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

    def write(self, rows: Sequence[_Row], how: _Sampling) -> None:
        """Write the answers of a batch. A row that has ended leaves it, with its part of the cache."""
        import torch
        from transformers import DynamicCache

        device, width = self._network.device, max(len(row.prompt) for row in rows)
        # padded on the left, so that every row goes on at the same place; what pads it is masked, any token does
        ids = torch.tensor([[0] * (width - len(row.prompt)) + list(row.prompt) for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
        cache, alive = DynamicCache(config=self._network.config), list(rows)
        luck = _Luck(alive, how, device)
        with torch.inference_mode(), cpu_threads():
            while True:
                tokens = luck.draw(self._logits(ids, mask, cache))
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

    def _logits(self, ids: Any, mask: Any, cache: Any) -> Any:
        """Give the logits of each row's next token, (rows, vocabulary) in float32."""
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        if "position_ids" in self._takes:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._takes:
            inputs["logits_to_keep"] = 1
        return self._network(**inputs).logits[:, -1].to(ids.device).float()  # the last of several devices gives them

    def _ended(self, row: _Row, token: int, stop: tuple[str, ...]) -> bool:
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
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
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

    def __init__(self, rows: Sequence[_Row], how: _Sampling, device: Any) -> None:
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
