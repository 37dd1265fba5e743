"""Texts as tokens, each text once: a cache inside the user's folder serves every cell and seed of an experiment.

A text is tokenized whole and without special tokens; where it is cut, what stands around it and which windows it falls
into is decided later (`windows`), so that one tokenization serves every length. The cache is a folder of Arrow files
for each tokenizer, keyed by digests of the texts. A file is written under another name, then renamed, and never
changed: any number of processes may share the folder. Tokens can be read back as text: the folder is private (0700).
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

from hf_synth.task.folders import clear_disk_errors, private_folder

_GROUP = 1_000  # texts given to the tokenizer at once
_KEY = 24  # hex digits of a text's digest
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths, end to end: `flat[starts[i]:starts[i + 1]]` is the i-th."""

    flat: npt.NDArray[np.int32]
    starts: Ints

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """Lay sequences end to end."""
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(starts[-1]))
        return cls(flat, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        return self.flat[self.starts[row] : self.starts[row + 1]]

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Lay several of them end to end."""
        if not parts:
            return cls.of([])
        return cls(np.concatenate([p.flat for p in parts]), ends(np.concatenate([p.lengths for p in parts])))

    @property
    def lengths(self) -> Ints:
        """Give the length of each sequence, shape (N,)."""
        return np.diff(self.starts)

    def take(self, rows: Ints) -> Ragged:
        """Give some of the sequences, in the order asked for."""
        lengths = self.lengths[rows]
        return Ragged(self.flat[spans(self.starts[:-1][rows], lengths)], ends(lengths))


def ends(lengths: Ints) -> Ints:
    """Give where sequences of some lengths begin when laid end to end, and where the last one ends, shape (N + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def spans(starts: Ints, lengths: Ints) -> Ints:
    """Give the places that spans cover, one span after the other."""
    begin = ends(lengths)
    return np.repeat(starts - begin[:-1], lengths) + np.arange(begin[-1])


# --- tokenizing -----------------------------------------------------------------------------------------------------
def text_tokens(tokenizer: Any, texts: Sequence[str], *, cache_dir: str | Path | None = None) -> Ragged:
    """Tokenize texts, whole and without special tokens.

    Args:
        cache_dir: a folder of the user's; texts that were tokenized before with the same tokenizer are read from it.

    Raises:
        OutputError: the cache cannot be written.
    """
    name = None if cache_dir is None else tokenizer_digest(tokenizer)
    if cache_dir is None or name is None:
        return _tokenized(tokenizer, texts)
    folder = private_folder(private_folder(Path(cache_dir)) / f"tokens-{name}")
    keys = np.array([_key(text) for text in texts], dtype=f"S{_KEY}")
    wanted, first, back = np.unique(keys, return_index=True, return_inverse=True)
    parts, place = _kept(folder, wanted)
    missing = np.flatnonzero(place < 0)
    if len(missing):
        new = _tokenized(tokenizer, [texts[i] for i in first[missing]])
        _keep(folder, wanted[missing], new)
        place[missing] = sum(map(len, parts)) + np.arange(len(missing))
        parts.append(new)
    return Ragged.joined(parts).take(place[back])


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Name a tokenizer by everything that decides its tokens (16 hex digits); None for one written in Python."""
    import tokenizers

    rules = getattr(tokenizer, "backend_tokenizer", None)
    if rules is None:
        return None
    return hashlib.sha256(f"{tokenizers.__version__}\x00{rules.to_str()}".encode()).hexdigest()[:16]


def _tokenized(tokenizer: Any, texts: Sequence[str]) -> Ragged:
    parts = [
        Ragged.of(
            tokenizer(
                list(texts[i : i + _GROUP]), add_special_tokens=False, truncation=False, padding=False,
                return_attention_mask=False, return_token_type_ids=False, verbose=False,
            )["input_ids"]
        )
        for i in range(0, len(texts), _GROUP)
    ]  # fmt: skip
    return Ragged.joined(parts)


# --- the cache ------------------------------------------------------------------------------------------------------
def _key(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY // 2).hexdigest()


def _kept(folder: Path, wanted: npt.NDArray[np.bytes_]) -> tuple[list[Ragged], Ints]:
    """Look texts up, given by sorted keys; give what was found, and for each text its place there, or -1."""
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
    """Map a file of the cache; one that is broken is removed and holds nothing."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all().combine_chunks()
        keys = np.frombuffer(table["key"].chunk(0).buffers()[1], dtype=f"S{_KEY}", count=len(table))
        tokens = table["tokens"].chunk(0)
        return keys, Ragged(tokens.values.to_numpy(), tokens.offsets.to_numpy())
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError):
        file.unlink(missing_ok=True)
        return np.empty(0, dtype=f"S{_KEY}"), Ragged.of([])


def _keep(folder: Path, keys: npt.NDArray[np.bytes_], tokens: Ragged) -> None:
    """Write texts to a file of their own, as a whole or not at all; keys are sorted."""
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


# --- tokens and batches ---------------------------------------------------------------------------------------------
def token_limit(tokenizer: Any, config: Any) -> int:
    """Give how many tokens a model takes: the smaller of what its tokenizer and its positions allow."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet"):
        positions -= (config.pad_token_id or 0) + 1  # these count positions from the padding index
    return min(int(positions), int(min(tokenizer.model_max_length, 1 << 20)))


def pad(tokenizer: Any, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, npt.NDArray[np.int64]]:
    """Pad rows of tokens on the right to the longest of them; each array has shape (rows, tokens)."""
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

    Memory is then asked for once at the start, and little of a batch is padding. A row beyond the budget goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for i in order:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= tokens_per_batch:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
