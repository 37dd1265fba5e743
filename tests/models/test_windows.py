"""Long notes: what is cut, how windows lie, what pooling does; and the token cache that all of it reads from."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny import FILLER, toy_rows, toy_task

from hf_synth.models import windows
from hf_synth.models.loading import load_tokenizer
from hf_synth.models.tokens import Ragged, sequence_offsets, text_tokens, tokenizer_digest
from hf_synth.models.windows import choose_long_notes, windows_of

CANARY = "Wxyzzy Canaryname"


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return load_tokenizer(base)


def pairs(*rows: tuple[str, str]) -> Dataset:
    return Dataset.from_dict({"premise": [a for a, _ in rows], "hypothesis": [b for _, b in rows]})


PAIR = toy_task(text_columns=("premise", "hypothesis"))
texts = st.lists(st.sampled_from([*FILLER, "unheardof", "tube-sore"]), max_size=40).map(" ".join)


# --- cut ------------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=5), limit=st.integers(8, 60), typed=st.booleans())
def test_cut_rows_are_what_the_tokenizer_cuts(
    tokenizer: Any, rows: list[tuple[str, str]], limit: int, typed: bool
) -> None:
    names = ["input_ids", "token_type_ids", "attention_mask"] if typed else ["input_ids", "attention_mask"]
    before, tokenizer.model_input_names = tokenizer.model_input_names, names
    try:
        for task, columns in ((toy_task(text_columns="premise"), 1), (PAIR, 2)):
            given = [[row[i] for row in rows] for i in range(columns)]
            cut: Any = "longest_first" if columns == 2 else True
            plain = tokenizer(*given, truncation=cut, max_length=limit)
            found = windows_of(tokenizer, task, pairs(*rows), limit)
            assert [found.tokens[i].tolist() for i in range(len(rows))] == plain["input_ids"]
            whole = tokenizer(*given)["input_ids"]
            assert found.longer == sum(len(ids) > limit for ids in whole)
            if typed:
                assert found.types is not None
                assert found.types.tolist() == [t for ids in plain["token_type_ids"] for t in ids]
    finally:
        tokenizer.model_input_names = before
        tokenizer.backend_tokenizer.no_truncation()


# --- windows --------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(texts, min_size=1, max_size=6), limit=st.integers(4, 50))
def test_windows_cover_the_note_and_overlap(tokenizer: Any, rows: list[str], limit: int) -> None:
    found = windows_of(tokenizer, toy_task(), Dataset.from_dict({"text": rows}), limit, long_notes="windows")
    for i, text in enumerate(rows):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        mine = [found.tokens[j].tolist() for j in range(found.first[i], found.first[i + 1])]
        assert all(len(w) <= limit and (w[0], w[-1]) == (2, 3) for w in mine)
        if len(whole) <= limit - 2:
            assert mine == [[2, *whole, 3]]
            continue
        assert all(len(w) == limit for w in mine)
        covered, end = whole[: limit - 2], limit - 2
        assert mine[0][1:-1] == covered
        for window in mine[1:]:  # each begins inside what is covered, and goes on where that ends
            start = next(
                s
                for s in range(end, -1, -1)
                if s + limit - 2 <= len(whole)
                and s <= end - (limit - 2) // 8
                and whole[s : s + limit - 2] == window[1:-1]
            )
            assert start + limit - 2 > end or start + limit - 2 == len(whole)
            end = max(end, start + limit - 2)
        assert end == len(whole)


def test_of_a_pair_the_longer_text_is_windowed(tokenizer: Any) -> None:
    long, short = " ".join(FILLER * 4), "sore tube"
    ids = tokenizer(short, add_special_tokens=False)["input_ids"]
    found = windows_of(tokenizer, PAIR, pairs((long, short), (short, long), (short, short)), 20, long_notes="windows")
    counts = np.diff(found.first).tolist()
    assert counts[0] == counts[1] > 3
    assert counts[2] == 1
    for i in range(counts[0]):
        assert found.tokens[i].tolist()[-3:] == [*ids, 3]
        assert found.tokens[counts[0] + i].tolist()[:4] == [2, *ids, 3]
    both = windows_of(tokenizer, PAIR, pairs((long, long)), 20, long_notes="windows")  # the other one gets half
    assert all(len(both.tokens[i]) == 20 for i in range(len(both.tokens)))


def test_pooling_is_the_maximum_or_the_mean_of_a_row(tokenizer: Any) -> None:
    rows = Dataset.from_dict({"text": ["note " * 3, "note " * 40, ""]})
    found = windows_of(tokenizer, toy_task(), rows, 12, long_notes="windows")
    counts = np.diff(found.first)
    assert (counts[0], counts[2]) == (1, 1)
    scores = np.random.default_rng(0).normal(size=(len(found.tokens), 3)).astype(np.float32)
    parts = np.split(scores, found.first[1:-1])
    assert found.pool(scores, "windows") == pytest.approx(np.stack([p.max(0) for p in parts]))
    assert found.pool(scores, "windows_mean") == pytest.approx(np.stack([p.mean(0) for p in parts]), abs=1e-6)
    batch = found.batch_of_rows([1, 0], 0)
    assert batch["input_ids"].shape == (2, counts[1], 12)
    assert batch["attention_mask"].any(-1).sum(1).tolist() == [counts[1], 1]
    assert found.batch_of_rows([0, 2], 0)["input_ids"].shape == (2, 5)


def test_auto_follows_the_share_that_would_be_cut() -> None:
    assert choose_long_notes("auto", 5, 100) == "cut"
    assert choose_long_notes("auto", 6, 100) == "windows"
    assert choose_long_notes("cut", 100, 100) == "cut"


# --- the token cache ------------------------------------------------------------------------------------------------


class Counted:
    """A tokenizer that counts the texts it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.backend_tokenizer, self.count = tokenizer, tokenizer.backend_tokenizer, 0

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.count += len(texts)
        return self.tokenizer(texts, **options)


def equal(one: Ragged, other: Ragged) -> bool:
    return np.array_equal(one.flat, other.flat) and np.array_equal(one.starts, other.starts)


def test_each_text_is_tokenized_once(tokenizer: Any, tmp_path: Path) -> None:
    rows = [*toy_rows(60)["text"], "", f"{CANARY} was seen"]
    counted, plain = Counted(tokenizer), text_tokens(tokenizer, rows)
    cache = tmp_path / "cache"
    assert equal(text_tokens(counted, rows, cache_dir=cache), plain)
    assert counted.count == len(set(rows))
    mixed = [*rows[30:], *rows[:10], "a new one", rows[3]]
    assert equal(text_tokens(counted, mixed, cache_dir=cache), text_tokens(tokenizer, mixed))
    assert counted.count == len(set(rows)) + 1
    assert equal(text_tokens(counted, [], cache_dir=cache), Ragged.of([]))
    (folder,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert CANARY.encode() not in file.read_bytes()


def test_another_tokenizer_has_a_cache_of_its_own(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path / "other")
    other = AutoTokenizer.from_pretrained(tmp_path / "other")
    assert tokenizer_digest(other) == tokenizer_digest(tokenizer)
    other.add_tokens(["clinicians"])
    assert tokenizer_digest(other) != tokenizer_digest(tokenizer)


def test_a_broken_file_is_made_again(tokenizer: Any, tmp_path: Path) -> None:
    rows = toy_rows(20)["text"]
    plain = text_tokens(tokenizer, rows, cache_dir=tmp_path)
    (file,) = tmp_path.rglob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    assert equal(text_tokens(tokenizer, rows, cache_dir=tmp_path), plain)
    assert equal(text_tokens(tokenizer, rows, cache_dir=tmp_path), plain)


def test_several_processes_share_it(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tok")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.tiny import *; from transformers import AutoTokenizer\n"
        "from hf_synth.models.tokens import text_tokens\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "for seed in range(12):\n"
        "    rows = [t for s in range(seed + 1) for t in toy_rows(20, seed=s)['text']]\n"
        "    found = text_tokens(tokenizer, rows, cache_dir=sys.argv[3])\n"
        "    assert (found.flat == text_tokens(tokenizer, rows).flat).all()"
    )
    where = [str(Path(__file__).parent.parent), str(tmp_path / "tok"), str(tmp_path / "cache")]
    with subprocess.Popen([sys.executable, "-c", code, *where], stdout=subprocess.PIPE, env=os.environ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        for seed in range(12):
            rows = [t for s in range(seed + 1) for t in toy_rows(20, seed=s)["text"]]
            found = text_tokens(tokenizer, rows, cache_dir=tmp_path / "cache")
            assert (found.flat == text_tokens(tokenizer, rows).flat).all()
    assert running.returncode == 0


def test_a_corpus_is_joined_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, task = 10_000, toy_task()
    tokens = Ragged(np.arange(rows * 300, dtype=np.int32) % 1_000 + 10, sequence_offsets(np.full(rows, 300)))
    monkeypatch.setattr(windows, "text_tokens", lambda *_, **__: tokens)
    monkeypatch.setattr(windows, "checked_texts", lambda *_: [None])
    monkeypatch.setattr(windows, "_special_tokens", lambda *_: ([[2], [3]], [0, 0, 0], True))
    tracemalloc.start()
    made = windows.windows_of(None, task, range(rows), 128, long_notes="windows")  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * len(tokens.flat), "bytes: 26 a token when places are made for the whole corpus"
    first = made.tokens.flat[: made.tokens.starts[1]]
    assert first.tolist() == [2, *tokens.flat[:126].tolist(), 3]
