"""Tokenize texts with an on-disk cache of tokens; pad rows; group rows of like length into batches.

A text is tokenized whole and without special tokens, which `windows` adds when it cuts the text, so that one
tokenization serves every length. The cache in the user's folder holds Arrow files for each tokenizer, keyed by digests
of the texts. A file is written atomically and never changed: any number of processes may share the folder. Since tokens
can be decoded to text, the folder is private (0700).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ModelError
from hf_synth.task.folders import clear_disk_errors, private_folder
from hf_synth.task.labels import Ints

_GROUP = 1_000  # texts in one call of the tokenizer
_KEY = 24  # hex digits of a text's digest
_UNLIMITED = 512  # tokens that are read where neither model nor tokenizer names a limit
_ENDLESS = 100_000  # a longer limit of a tokenizer stands for none
_FEWEST = 8  # tokens below which no text can be read


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths in one array: `flat[starts[i]:starts[i + 1]]` is the i-th."""

    flat: npt.NDArray[np.int32]
    starts: Ints

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """Concatenate sequences."""
        starts = sequence_offsets(np.array([len(row) for row in rows], dtype=np.int64))
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(starts[-1]))
        return cls(flat, starts)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Concatenate several of them."""
        if not parts:
            return cls.of([])
        return cls(
            np.concatenate([p.flat for p in parts]), sequence_offsets(np.concatenate([p.lengths for p in parts]))
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        return self.flat[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> Ints:
        """The length of each sequence, (N,)."""
        return np.diff(self.starts)

    def take(self, rows: Ints) -> Ragged:
        """Return some of the sequences, in the order of `rows`."""
        lengths = self.lengths[rows]
        return Ragged(self.flat[spans(self.starts[:-1][rows], lengths)], sequence_offsets(lengths))


def sequence_offsets(lengths: Ints) -> Ints:
    """Return the offsets of concatenated sequences: 0, then the end of each, (N + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def spans(starts: Ints, lengths: Ints) -> Ints:
    """Return the indices that spans cover, one span after the other."""
    begin = sequence_offsets(lengths)
    return np.repeat(starts - begin[:-1], lengths) + np.arange(begin[-1])


def text_tokens(tokenizer: Any, texts: Sequence[str], *, cache_dir: str | Path | None = None) -> Ragged:
    """Tokenize texts, whole and without special tokens.

    Args:
        cache_dir: a folder of the user's that caches the tokens for each tokenizer.

    Raises:
        OutputError: the cache cannot be written.
    """
    name = None if cache_dir is None else tokenizer_digest(tokenizer)
    if cache_dir is None or name is None:
        return _tokenized(tokenizer, texts)
    folder = private_folder(private_folder(Path(cache_dir)) / f"tokens-{name}")
    keys = np.array([_key(text) for text in texts], dtype=f"S{_KEY}")
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    parts, place = _look_up(folder, unique)
    missing = np.flatnonzero(place < 0)
    if len(missing):
        new = _tokenized(tokenizer, [texts[i] for i in first[missing]])
        _store(folder, unique[missing], new)
        place[missing] = sum(map(len, parts)) + np.arange(len(missing))
        parts.append(new)
    return Ragged.joined(parts).take(place[inverse])


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Digest everything that decides a tokenizer's tokens (16 hex digits); None for one written in Python."""
    import tokenizers

    rules = getattr(tokenizer, "backend_tokenizer", None)
    if rules is None:
        return None
    return hashlib.sha256(f"{tokenizers.__version__}\x00{rules.to_str()}".encode()).hexdigest()[:16]


def _tokenized(tokenizer: Any, texts: Sequence[str]) -> Ragged:
    off = ("add_special_tokens", "truncation", "padding", "return_attention_mask", "return_token_type_ids", "verbose")
    options = dict.fromkeys(off, False)
    groups = (list(texts[i : i + _GROUP]) for i in range(0, len(texts), _GROUP))
    return Ragged.joined([Ragged.of(tokenizer(group, **options)["input_ids"]) for group in groups])


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY // 2).hexdigest()


def _look_up(folder: Path, wanted: npt.NDArray[np.bytes_]) -> tuple[list[Ragged], Ints]:
    """Look up texts by their sorted keys; return the tokens, and the place of each text in them, or -1."""
    parts: list[Ragged] = []
    place, count = np.full(len(wanted), -1, dtype=np.int64), 0
    for file in sorted(folder.glob("*.arrow")):
        keys, tokens = _read(file)
        at = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
        hits = np.flatnonzero((place < 0) & (keys[at] == wanted)) if len(keys) else at[:0]
        if len(hits):
            place[hits] = count + np.arange(len(hits))
            parts.append(tokens.take(at[hits]))
            count += len(hits)
    return parts, place


def _read(file: Path) -> tuple[npt.NDArray[np.bytes_], Ragged]:
    """Read keys and tokens of a cache file, memory-mapped; remove a broken one."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all().combine_chunks()
        keys = np.frombuffer(table["key"].chunk(0).buffers()[1], dtype=f"S{_KEY}", count=len(table))
        tokens = table["tokens"].chunk(0)
        return keys, Ragged(tokens.values.to_numpy(), tokens.offsets.to_numpy())
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError):
        file.unlink(missing_ok=True)
        return np.empty(0, dtype=f"S{_KEY}"), Ragged.of([])


def _store(folder: Path, keys: npt.NDArray[np.bytes_], tokens: Ragged) -> None:
    """Write texts to a new cache file, atomically; keys are sorted."""
    import pyarrow as pa

    columns = {
        "key": pa.FixedSizeBinaryArray.from_buffers(pa.binary(_KEY), len(keys), [None, pa.py_buffer(keys.tobytes())]),
        "tokens": pa.LargeListArray.from_arrays(tokens.starts, tokens.flat),
    }
    table = pa.table(columns)
    with clear_disk_errors(folder):
        handle, draft = tempfile.mkstemp(prefix=".new-", dir=folder)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=max(1, len(table)))
            os.replace(draft, folder / f"{_key(keys.tobytes().decode())}.arrow")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise


def token_limit(tokenizer: Any, network: Any) -> int:
    """Return how many tokens an encoder reads: the smaller of the limits of its tokenizer and its positions.

    A table of positions with a padding index is read from the index after it (RoBERTa and its kin), whatever the
    model's type. A model without a limit (XLNet's is -1, a T5 has none) reads _UNLIMITED tokens, unless its tokenizer
    names a limit.

    Raises:
        ModelError: fewer than _FEWEST tokens are left.
    """
    named = getattr(network.config, "max_position_embeddings", None)
    longest = int(min(tokenizer.model_max_length, 1 << 20))
    if isinstance(named, int) and named > 0:
        positions = named - max(map(_first_position, network.modules()), default=0)
    else:
        positions = _UNLIMITED if longest > _ENDLESS else longest
    limit = min(positions, longest)
    if limit < _FEWEST:
        raise ModelError(
            f"a model of type {network.config.model_type} reads {limit} tokens at most, by max_position_embeddings "
            f"{named} of its config.json and model_max_length {tokenizer.model_max_length} of its tokenizer: mend one"
        )
    return limit


def _first_position(module: Any) -> int:
    """Return the row of a table of positions that the first token reads; 0 for any other module.

    Where a padding index is set, the tokens count on from it. Tables that add the offset to their own size (BART) have
    none.
    """
    table = getattr(module, "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def check_vocabulary(tokenizer: Any, network: Any, what: str) -> None:
    """Make room in a network's table for tokens that were added to its tokenizer, such as a padding token.

    Args:
        what: the model, for the error.

    Raises:
        ModelError: the tokenizer's own vocabulary is larger than the table: they are of two models.
    """
    size = vocabulary_size(network)
    if size is None or len(tokenizer) <= size:
        return
    if tokenizer.vocab_size > size:
        raise ModelError(
            f"{what} holds a tokenizer of {tokenizer.vocab_size:,} tokens and weights of {size:,}: they are of two "
            "models; take both from one"
        )
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def vocabulary_size(network: Any) -> int | None:
    """Return how many tokens a network has vectors for; None of a model of characters, which hashes them (CANINE)."""
    try:
        return int(network.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return None


def check_known(network: Any, *ids: npt.NDArray[Any] | int) -> None:
    """Check that a network has a vector for each of some tokens.

    Raises:
        ModelError: it has none for one.
    """
    size = vocabulary_size(network)
    if size is not None and max((int(np.max(part, initial=0)) for part in ids), default=0) >= size:
        raise ModelError(
            f"the tokenizer makes tokens beyond the {size:,} of the model's weights: they are of two models"
        )


def pad(tokenizer: Any, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, npt.NDArray[np.int64]]:
    """Pad rows of tokens on the right to the longest; each array has shape (rows, tokens)."""
    width = max(len(row["input_ids"]) for row in rows)
    batch = {"attention_mask": np.zeros((len(rows), width), dtype=np.int64)}
    for key in rows[0]:
        batch[key] = np.full((len(rows), width), tokenizer.pad_token_id if key == "input_ids" else 0, dtype=np.int64)
    for i, row in enumerate(rows):
        batch["attention_mask"][i, : len(row["input_ids"])] = 1
        for key, values in row.items():
            batch[key][i, : len(values)] = values
    return batch


def batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group rows of like length so that rows x longest stays within a budget; the longest come first.

    So memory peaks at the start, and batches have little padding. A row beyond the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for i in order:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= tokens_per_batch:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
