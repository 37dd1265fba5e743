"""Sliding windows over notes longer than a model's input: tokens of each window, truncation of pairs, pooling.

A window is as long as the model's input and overlaps the next one by an eighth, so that text at an edge is whole in one
of them. Of a pair the longer text is windowed, and each window holds the other one. The scores of a note's windows are
pooled into one score for each label, in training as in prediction: by their maximum (a finding in one window is a
finding of the note), or their mean. The config of a model that was trained so has a field `long_notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import TaskError
from hf_synth.models.base_models import LONG_SHARE
from hf_synth.models.tokens import Ragged, sequence_offsets, spans, text_tokens
from hf_synth.task.labels import Floats32, Ints, checked_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

LONG_NOTES = ("auto", "cut", "windows", "windows_mean")
OVERLAP = 8  # windows overlap by 1 / OVERLAP
_AT_ONCE = 1_000  # windows that are joined together


@dataclass(frozen=True)
class Windows:
    """The W windows of N rows, in order of the rows.

    Args:
        tokens: of each window, with special tokens.
        types: token types, as long as `tokens.flat`; None where the model has none.
        first: the windows of row i are `first[i]` to `first[i + 1]`, (N + 1,).
        longer: how many rows are longer than one window.
    """

    tokens: Ragged
    types: npt.NDArray[np.int8] | None
    first: Ints
    longer: int

    def __len__(self) -> int:
        return len(self.first) - 1

    def batch(
        self, windows: Ints | Sequence[int], padding: int, left: bool = False
    ) -> dict[str, npt.NDArray[np.int64]]:
        """Pad some windows to the longest of them, on the right or the left; each array has shape (windows, tokens)."""
        chosen = np.asarray(windows, dtype=np.int64)
        lengths = self.tokens.lengths[chosen]
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        mask = mask[:, ::-1] if left else mask
        places = spans(self.tokens.starts[:-1][chosen], lengths)
        batch = {"attention_mask": mask.astype(np.int64), "input_ids": np.full(mask.shape, padding, dtype=np.int64)}
        batch["input_ids"][mask] = self.tokens.flat[places]
        if self.types is not None:
            batch["token_type_ids"] = np.zeros(mask.shape, dtype=np.int64)
            batch["token_type_ids"][mask] = self.types[places]
        return batch

    def batch_of_rows(self, rows: Sequence[int], padding: int, left: bool = False) -> dict[str, npt.NDArray[np.int64]]:
        """Pad all windows of some rows; (rows, windows, tokens), or (rows, tokens) where each row has one window."""
        chosen = np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.first)[chosen]
        flat = self.batch(spans(self.first[:-1][chosen], counts), padding, left)
        if (counts == 1).all():
            return flat
        mask = np.arange(counts.max()) < counts[:, None]
        batch = {}
        for name, values in flat.items():
            batch[name] = np.full((*mask.shape, values.shape[1]), padding if name == "input_ids" else 0, np.int64)
            batch[name][mask] = values
        return batch

    def pool(self, scores: Floats32, way: str) -> Floats32:
        """Pool the scores of windows, (W, K), into scores of rows, (N, K), by the way of `long_notes`."""
        if len(self.tokens) == len(self):
            return scores
        if way == "windows":
            return np.asarray(np.maximum.reduceat(scores, self.first[:-1], axis=0))
        return np.asarray(np.add.reduceat(scores, self.first[:-1], axis=0) / np.diff(self.first)[:, None], np.float32)


@dataclass(frozen=True)
class Note:
    """The windows of one row; its length is what Trainer's samplers sort by."""

    windows: Windows
    row: int

    def __len__(self) -> int:
        first, last = self.windows.first[self.row], self.windows.first[self.row + 1]
        return int(self.windows.tokens.starts[last] - self.windows.tokens.starts[first])


def windows_of(
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    limit: int,
    *,
    long_notes: str = "cut",
    cache_dir: str | Path | None = None,
) -> Windows:
    """Tokenize the texts of every row, a pair when the task has two text columns, into windows of `limit` tokens.

    Args:
        long_notes: "cut" for one window of each row; of a pair the longer text is cut first, as tokenizers do.
        cache_dir: as for `text_tokens`.

    Raises:
        ColumnError: a text is missing or not a string.
        TaskError: the task has more than two text columns.
    """
    if len(task.text_columns) > 2:
        raise TaskError(
            f"task {task.full_name!r} has {len(task.text_columns)} text columns: an encoder reads one or two"
        )
    columns = [text_tokens(tokenizer, texts, cache_dir=cache_dir) for texts in checked_texts(task, dataset)]
    special, types, typed = _special_tokens(tokenizer, len(columns))
    room = limit - sum(map(len, special))
    lengths = np.stack([column.lengths for column in columns])  # (texts, N)
    longer = int((lengths.sum(0) > room).sum())
    if long_notes == "cut":
        counts, begin, size = np.ones(len(dataset), dtype=np.int64), np.zeros_like(lengths), _cut(lengths, room)
    else:
        counts, begin, size = _slide(lengths, room)
    row = np.repeat(np.arange(len(dataset)), counts)
    # each window is a list of spans of one array: special tokens, a text, special tokens, ...
    flat = np.concatenate([np.array([t for part in special for t in part], np.int32), *(c.flat for c in columns)])
    at = sequence_offsets(np.array([len(part) for part in special]))
    starts, sizes = [], []
    offset = int(at[-1])
    for i, part in enumerate(special):
        starts.append(np.full(len(row), at[i]))
        sizes.append(np.full(len(row), len(part)))
        if i < len(columns):
            starts.append(offset + columns[i].starts[:-1][row] + begin[i])
            sizes.append(size[i])
            offset += len(columns[i].flat)
    span_starts, span_lengths = np.stack(starts, axis=1), np.stack(sizes, axis=1)
    kinds = np.repeat(np.tile(np.array(types, np.int8), len(row)), span_lengths.ravel()) if typed else None
    del columns, starts, sizes  # what is not needed any more is as large as the corpus
    return Windows(_joined(flat, span_starts, span_lengths), kinds, sequence_offsets(counts), longer)


def _joined(flat: npt.NDArray[np.int32], starts: Ints, lengths: Ints) -> Ragged:
    """Return windows whose spans of tokens are joined, a part of the windows at a time: places take twice the tokens.

    Args:
        flat: all tokens.
        starts, lengths: of the spans of each window, (W, spans).
    """
    borders = sequence_offsets(lengths.sum(1))
    tokens = np.empty(int(borders[-1]), dtype=flat.dtype)
    for first in range(0, len(lengths), _AT_ONCE):
        last = min(first + _AT_ONCE, len(lengths))
        places = spans(starts[first:last].ravel(), lengths[first:last].ravel())
        tokens[borders[first] : borders[last]] = flat[places]
    return Ragged(tokens, borders)


def _special_tokens(tokenizer: Any, texts: int) -> tuple[list[list[int]], list[int], bool]:
    """Return the special tokens before, between and after texts, the token type of each part, and if types are used."""
    probe = ["a"] * texts
    size = len(tokenizer(probe[0], add_special_tokens=False)["input_ids"])
    plain = tokenizer(*probe, return_special_tokens_mask=True, return_attention_mask=False)
    ids, special = plain["input_ids"], plain["special_tokens_mask"]
    kinds = plain.get("token_type_ids", [0] * len(ids))
    parts, types, at = [], [], 0
    for _ in range(texts):
        end = at
        while end < len(ids) and special[end]:
            end += 1
        parts.append(ids[at:end])
        types += [kinds[at] if end > at else 0, kinds[end]]
        at = end + size
    parts.append(ids[at:])
    return parts, [*types, kinds[-1]], "token_type_ids" in plain


def _cut(lengths: Ints, room: int) -> Ints:
    """Return how many tokens of each text are kept, (texts, N); of a pair the longer one is cut first."""
    if len(lengths) == 1:
        return np.asarray(np.minimum(lengths, room))
    short, long = np.minimum(*lengths), np.maximum(*lengths)
    long = np.where(short > room, short, np.maximum(short, room - short))
    over = short + long > room
    short, long = np.where(over, room // 2, short), np.where(over, room // 2 + room % 2, long)
    swapped = lengths[0] > lengths[1]
    cut: Ints = np.stack([np.where(swapped, long, short), np.where(swapped, short, long)])
    return np.asarray(np.minimum(cut, lengths))


def _slide(lengths: Ints, room: int) -> tuple[Ints, Ints, Ints]:
    """Return the number of windows of each row, (N,); for each window the start and size of each text, (texts, W)."""
    slid = np.argmax(lengths, axis=0) if len(lengths) == 2 else np.zeros(lengths.shape[1], dtype=np.int64)
    every = np.arange(lengths.shape[1])
    whole = lengths[slid, every]
    other = lengths.sum(0) - whole
    other = np.where(whole + other > room, np.minimum(other, room // 2), other)
    width = room - other
    step = np.maximum(width - room // OVERLAP, 1)
    counts = np.where(whole > width, 1 + -(-(whole - width) // step), 1).astype(np.int64)
    row = np.repeat(every, counts)
    number = np.arange(len(row)) - np.repeat(sequence_offsets(counts)[:-1], counts)
    start = np.clip(number * step[row], 0, np.maximum(whole - width, 0)[row])  # the last window ends with the text
    begin = np.zeros((len(lengths), len(row)), dtype=np.int64)
    size = np.tile(other[row], (len(lengths), 1))
    begin[slid[row], np.arange(len(row))] = start
    size[slid[row], np.arange(len(row))] = np.minimum(whole, width)[row]
    return counts, begin, size


def pads_left(config: Any) -> bool:
    """Return whether a model must be padded on the left: XLNet judges a text by its last place, padding or not."""
    return str(config.model_type) == "xlnet"


def choose_long_notes(way: str, longer: int, rows: int) -> str:
    """Resolve "auto" to "windows" where more than LONG_SHARE of the rows would be cut, else to "cut".

    Raises:
        TaskError: the way is none of LONG_NOTES.
    """
    if way not in LONG_NOTES:
        raise TaskError(f"long_notes {way!r} is none of {', '.join(LONG_NOTES)}")
    if way != "auto":
        return way
    return "windows" if longer > LONG_SHARE * rows else "cut"


def long_notes_of(config: Any) -> str:
    """Return the way of a model's config with long notes; "cut" where it has none."""
    way = getattr(config, "long_notes", None)
    return way if way in LONG_NOTES[1:] else "cut"
