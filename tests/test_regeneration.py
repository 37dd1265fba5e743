"""Rows that were dropped are asked for again, in bounded rounds, without paying twice."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from llm_server import LLMServer, Said, entries, serving
from tiny import LABELS, toy_rows, toy_task

from hf_synth.errors import TaskError
from hf_synth.generation import generate
from hf_synth.llm import LLM
from hf_synth.pipeline import correct
from hf_synth.regeneration import regenerate

TASK = toy_task()


class Doubting:
    """Agree with gold, and with some synthetic rows: by what their texts hash to."""

    def __init__(self, share: float) -> None:
        self.share = share

    def predict(self, rows: Dataset) -> Any:
        luck = [int(sha256(text.encode()).hexdigest()[:8], 16) / 16**8 for text in rows["text"]]
        meant = rows["llm_label"] if "llm_label" in rows.column_names else rows["label"]
        said = [
            (m + (u >= self.share and "Invented" in t)) % 3 for m, u, t in zip(meant, luck, rows["text"], strict=True)
        ]
        return np.eye(3)[said] * 0.9 + 0.1 / 3


def asking(server: LLMServer, folder: Path) -> LLM:
    return LLM("m", base_url=server.url, api_key="none", journal=folder / "journal.sqlite")


def test_dropped_rows_are_asked_for_again(tmp_path: Path) -> None:
    gold = toy_rows(30, task=TASK)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm, judging = asking(server, tmp_path), Doubting(0.5)
        rows = generate(TASK, gold, llm, 30)
        first = correct(TASK, rows, judging, gold=gold, method="agree")
        paid, dropped = len(server.requests), first["label_status"].count("dropped")
        assert 5 < dropped < 25
        done = regenerate(TASK, first, gold, llm, judging, gold=gold, method="agree", rounds=2)
        kept = [i for i, s in enumerate(done["label_status"]) if s == "kept"]
        assert done["id"][:30] == rows["id"]
        assert done["label_status"][:30] == first["label_status"]
        assert len(done) == 30 + dropped + done["label_status"][30 : 30 + dropped].count("dropped")
        assert 30 - dropped < len(kept) <= 30
        assert len(set(done["id"])) == len(set(done["text"])) == len(done)
        asked = len(server.requests) - paid
        assert 0 < asked <= paid + 6  # what the first plan asked comes from the journal
        again = regenerate(TASK, first, gold, llm, judging, gold=gold, method="agree", rounds=2)
        assert again.to_dict() == done.to_dict()
        assert len(server.requests) == paid + asked
        meant = [LABELS[x] for x in done.select(kept)["llm_label"]]
        assert max(map(meant.count, LABELS)) <= 10  # no label gets more than it had


def test_rounds_are_bounded_and_end_when_nothing_is_missing(tmp_path: Path) -> None:
    gold = toy_rows(12, task=TASK)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm = asking(server, tmp_path)
        rows = generate(TASK, gold, llm, 6)
        never = Doubting(0.0)
        first = correct(TASK, rows, never, gold=gold, method="agree")
        assert set(first["label_status"]) == {"dropped"}
        done = regenerate(TASK, first, gold, llm, never, gold=gold, method="agree", rounds=2)
        assert (len(done), set(done["label_status"])) == (18, {"dropped"})
        asked = len(server.requests)
        whole = correct(TASK, rows, Doubting(1.0), gold=gold, method="agree")
        assert regenerate(TASK, whole, gold, llm, Doubting(1.0), gold=gold).to_dict() == whole.to_dict()
        assert len(server.requests) == asked
        with pytest.raises(TaskError, match="at least one round"):
            regenerate(TASK, first, gold, llm, never, gold=gold, rounds=0)


def test_a_generator_that_has_nothing_new_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gold = toy_rows(12, task=TASK)

    def same(request: dict[str, Any], _: int) -> Said:
        return Said(entries({**request, "seed": 0}))

    with serving(same) as server:
        llm, never = asking(server, tmp_path), Doubting(0.0)
        rows = generate(TASK, gold, llm, 15)
        first = correct(TASK, rows, never, gold=gold, method="agree")
        with caplog.at_level("WARNING"):
            done = regenerate(TASK, first, gold, llm, never, gold=gold, method="agree", rounds=5)
    assert "gave no new one" in caplog.text
    assert done.to_dict() == first.to_dict()
