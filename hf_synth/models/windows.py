"""What a model reads of a note: the note cut at the model's length, or windows that cover all of it.

A window is as long as the model reads and overlaps the next one by an eighth, so that what stands at an edge is read
in full once. Of a pair the longer text is windowed, and the other one stands in each window. The scores of a note's
windows are pooled into one score a label, in training as in prediction: their maximum (a finding in one window is a
finding of the note), or their mean. A model that was trained so says so in its config (`long_notes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, TaskError
from hf_synth.models.base_models import LONG_SHARE
from hf_synth.models.tokens import Ints, Ragged, ends, spans, text_tokens
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

LONG_NOTES = ("auto", "cut", "windows", "windows_mean")
OVERLAP = 8  # the share of a window that the next one reads again: one in so many

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """Windows of rows, those of a row one after the other.

    Args:
        tokens: of each window, with special tokens, W in all.
        types: token types, as long as `tokens.flat`; None where the model has none.
        first: the windows of row i are `first[i]` to `first[i + 1]`, shape (N + 1,).
        longer: how many rows are longer than one window.
    """

    tokens: Ragged
    types: npt.NDArray[np.int8] | None
    first: Ints
    longer: int

    def __len__(self) -> int:
        return len(self.first) - 1

    def batch(self, windows: Ints | Sequence[int], padding: int) -> dict[str, npt.NDArray[np.int64]]:
        """Pad some windows on the right to the longest of them; each array has shape (windows, tokens)."""
        which = np.asarray(windows, dtype=np.int64)
        lengths = self.tokens.lengths[which]
        there = np.arange(lengths.max(initial=0)) < lengths[:, None]
        places = spans(self.tokens.starts[:-1][which], lengths)
        batch = {"attention_mask": there.astype(np.int64), "input_ids": np.full(there.shape, padding, dtype=np.int64)}
        batch["input_ids"][there] = self.tokens.flat[places]
        if self.types is not None:
            batch["token_type_ids"] = np.zeros(there.shape, dtype=np.int64)
            batch["token_type_ids"][there] = self.types[places]
        return batch

    def batch_of_rows(self, rows: Sequence[int], padding: int) -> dict[str, npt.NDArray[np.int64]]:
        """Pad all windows of some rows; shape (rows, windows, tokens), or (rows, tokens) where each has just one."""
        which = np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.first)[which]
        flat = self.batch(spans(self.first[:-1][which], counts), padding)
        if (counts == 1).all():
            return flat
        there = np.arange(counts.max()) < counts[:, None]
        batch = {}
        for name, values in flat.items():
            batch[name] = np.full((*there.shape, values.shape[1]), padding if name == "input_ids" else 0, np.int64)
            batch[name][there] = values
        return batch

    def pool(self, scores: Floats, how: str) -> Floats:
        """Pool the scores of windows, shape (W, K), into scores of rows, shape (N, K)."""
        if len(self.tokens) == len(self):
            return scores
        if how == "windows":
            return np.asarray(np.maximum.reduceat(scores, self.first[:-1], axis=0))
        return np.asarray(np.add.reduceat(scores, self.first[:-1], axis=0) / np.diff(self.first)[:, None], np.float32)


@dataclass(frozen=True)
class Note:
    """One row's windows as Trainer's samplers see them: something with a length."""

    windows: Windows
    row: int

    def __len__(self) -> int:
        first, last = self.windows.first[self.row], self.windows.first[self.row + 1]
        return int(self.windows.tokens.starts[last] - self.windows.tokens.starts[first])


# --- making them ----------------------------------------------------------------------------------------------------


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
        long_notes: "cut" gives one window a row; a pair is cut where it is longer, as tokenizers do (longest first).
        cache_dir: as for `text_tokens`.

    Raises:
        ColumnError: a text is missing or not a string.
        TaskError: the task has more than two text columns.
    """
    columns = [text_tokens(tokenizer, texts, cache_dir=cache_dir) for texts in _texts(task, dataset)]
    frame, types, typed = _frame(tokenizer, len(columns))
    room = limit - sum(map(len, frame))
    lengths = np.stack([column.lengths for column in columns])  # (texts, N)
    longer = int((lengths.sum(0) > room).sum())
    if long_notes == "cut":
        counts, begin, size = np.ones(len(dataset), dtype=np.int64), np.zeros_like(lengths), _cut(lengths, room)
    else:
        counts, begin, size = _slide(lengths, room)
    row = np.repeat(np.arange(len(dataset)), counts)
    # every window is a chain of spans of one long array: special tokens, a text, special tokens, ...
    flat = np.concatenate([np.array([t for part in frame for t in part], np.int32), *(c.flat for c in columns)])
    at = ends(np.array([len(part) for part in frame]))
    chain, long = [], []
    offset = int(at[-1])
    for i, part in enumerate(frame):
        chain.append(np.full(len(row), at[i]))
        long.append(np.full(len(row), len(part)))
        if i < len(columns):
            chain.append(offset + columns[i].starts[:-1][row] + begin[i])
            long.append(size[i])
            offset += len(columns[i].flat)
    pieces = np.stack(long, axis=1)
    places = spans(np.stack(chain, axis=1).ravel(), pieces.ravel())
    kinds = np.repeat(np.tile(np.array(types, np.int8), len(row)), pieces.ravel()) if typed else None
    return Windows(Ragged(flat[places], ends(pieces.sum(1))), kinds, ends(counts), longer)


def _texts(task: Task, dataset: Dataset) -> list[list[str]]:
    if len(task.text_columns) > 2:
        raise TaskError(
            f"task {task.full_name!r} has {len(task.text_columns)} text columns: an encoder takes one or two"
        )
    missing = [c for c in task.text_columns if c not in dataset.column_names]
    if missing:
        raise ColumnError(f"the dataset has no column {', '.join(map(repr, missing))}; it has {dataset.column_names}")
    columns = [list(dataset[c]) for c in task.text_columns]
    for name, values in zip(task.text_columns, columns, strict=True):
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise ColumnError(f"row {row}: column {name!r} holds no text; leave out rejected rows first")
    return columns


def _frame(tokenizer: Any, texts: int) -> tuple[list[list[int]], list[int], bool]:
    """Give the special tokens before, between and after texts, the token type of each part, and whether types count."""
    probe = ["a"] * texts
    size = len(tokenizer(probe[0], add_special_tokens=False)["input_ids"])
    plain = tokenizer(*probe, return_special_tokens_mask=True, return_attention_mask=False)
    ids, special = plain["input_ids"], plain["special_tokens_mask"]
    kinds = plain.get("token_type_ids", [0] * len(ids))
    frame, types, at = [], [], 0
    for _ in range(texts):
        end = at
        while end < len(ids) and special[end]:
            end += 1
        frame.append(ids[at:end])
        types += [kinds[at] if end > at else 0, kinds[end]]
        at = end + size
    frame.append(ids[at:])
    return frame, [*types, kinds[-1]], "token_type_ids" in plain


def _cut(lengths: Ints, room: int) -> Ints:
    """Give how much of each text stays, (texts, N): of a pair the longer one is cut first."""
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
    """Give the windows of each row: their number (N,), and of each window where each text begins and its size."""
    slid = np.argmax(lengths, axis=0) if len(lengths) == 2 else np.zeros(lengths.shape[1], dtype=np.int64)
    every = np.arange(lengths.shape[1])
    whole = lengths[slid, every]
    kept = lengths.sum(0) - whole
    kept = np.where(whole + kept > room, np.minimum(kept, room // 2), kept)
    width = room - kept
    step = np.maximum(width - room // OVERLAP, 1)
    counts = np.where(whole > width, 1 + -(-(whole - width) // step), 1).astype(np.int64)
    row = np.repeat(every, counts)
    number = np.arange(len(row)) - np.repeat(ends(counts)[:-1], counts)
    start = np.clip(number * step[row], 0, np.maximum(whole - width, 0)[row])  # the last one ends where the note does
    begin = np.zeros((len(lengths), len(row)), dtype=np.int64)
    size = np.tile(kept[row], (len(lengths), 1))
    begin[slid[row], np.arange(len(row))] = start
    size[slid[row], np.arange(len(row))] = np.minimum(whole, width)[row]
    return counts, begin, size


def choose_long_notes(asked: str, longer: int, rows: int) -> str:
    """Settle what becomes of long notes: "auto" is windows where more than LONG_SHARE of the rows would be cut.

    Raises:
        TaskError: the word is not one of LONG_NOTES.
    """
    if asked not in LONG_NOTES:
        raise TaskError(f"long_notes {asked!r} is none of {', '.join(LONG_NOTES)}")
    if asked != "auto":
        return asked
    return "windows" if longer > LONG_SHARE * rows else "cut"


def long_notes_of(config: Any) -> str:
    """Read from a model's config what becomes of long notes: cut, where it does not say."""
    told = getattr(config, "long_notes", None)
    return told if told in LONG_NOTES[1:] else "cut"
