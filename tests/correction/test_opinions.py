"""A judge's votes in blocks: a block may have no vote, none is lost for good, and nothing is asked in vain."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.judges import shown, voting
from support.llm_server import LLMServer, Said, serving
from support.tiny import toy_rows
from support.toy_experiment import TASK

from hf_synth.correction import judging
from hf_synth.correction.judging import LLMJudge
from hf_synth.correction.opinions import JudgeVotes, joined_votes
from hf_synth.errors import LLMError
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Answer

ROWS = toy_rows(12, 3)


def block(rows: Dataset, begin: int, end: int) -> Any:
    return rows.select(range(begin, end)).select_columns(["text"]).with_format("arrow")[:]


@contextmanager
def asked(
    answer: Callable[[dict[str, Any], int], Said], tmp_path: Path
) -> Iterator[tuple[LLMJudge, JudgeVotes, LLMServer]]:
    with serving(answer) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "j.sqlite", timeout=2, max_retries=0)
        judge = LLMJudge(TASK, llm, votes=1)
        yield judge, JudgeVotes(judge, "open"), server


def test_a_block_without_a_vote_stands_and_rows_without_any_are_an_error(tmp_path: Path) -> None:
    """A last block of one note that the LLM could not label was never computed, and nothing could be merged."""
    odd = {row["text"] for row in ROWS.select(range(8, 12))}
    good = voting()
    with asked(lambda r, n: Said("?") if shown(r)["text"] in odd else good(r, n), tmp_path) as (judge, votes, _):
        whole, cast = judge.afresh().votes_of([{"text": row["text"]} for row in ROWS], "open")
        found = [pickle.loads(pickle.dumps(votes))(block(ROWS, b, b + 4)) for b in (0, 4, 8)]
        probs, in_blocks = joined_votes(judge, found, "rows")
        assert np.array_equal(probs, whole)
        assert np.array_equal(in_blocks, cast)
        assert cast.tolist() == [1] * 8 + [0] * 4
        with pytest.raises(LLMError, match="gave no vote on 4 notes \\(4 could not be read\\)"):
            joined_votes(judge, found[2:], "rows")
    assert joined_votes(judge, [], "rows")[0].shape == (0, 3), "no rows need no vote"


def test_votes_that_did_not_come_are_asked_for_again(tmp_path: Path) -> None:
    """A block with them stood, and its rows were dropped for good."""
    faults = {row["text"]: status for row, status in zip(ROWS, (503, 429), strict=False)}
    good = voting()

    def answer(request: dict[str, Any], number: int) -> Said:
        return Said(status=faults.get(shown(request)["text"], 200), text=good(request, number).text)

    with asked(answer, tmp_path) as (_, votes, server):
        with pytest.raises(LLMError, match="2 of 12 questions of a block got no answer; every answer is kept: run"):
            votes(block(ROWS, 0, 12))
        for more in (votes, JudgeVotes(votes.judge, "open", accept_failed=True)):
            taken = pickle.loads(pickle.dumps(more))
            assert taken.accept_failed is more.accept_failed
        assert taken(block(ROWS, 0, 12))["cast"].to_pylist() == [0, 0] + [1] * 10
        faults.clear()
        server.requests.clear()
        assert votes(block(ROWS, 0, 12))["cast"].to_pylist() == [1] * 12
        assert len(server.requests) == 2
    assert [Answer("", "error", code).may_come_later for code in ("http_400", "budget", "http_429", "timeout")] == [
        False, False, True, True
    ]  # fmt: skip


def test_a_shard_asks_nothing_in_vain_and_goes_on_where_others_had_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_IN_VAIN", 6)
    with asked(lambda *_: Said("?"), tmp_path) as (_, votes, server):
        assert votes(block(ROWS, 0, 4))["cast"].to_pylist() == [0] * 4
        with pytest.raises(LLMError, match="gave no vote on 4 notes"):
            votes(block(ROWS, 4, 8))
        server.requests.clear()
        again = JudgeVotes(votes.judge, "open")  # the shard is started again: the journal has its answers
        assert again(block(ROWS, 4, 8))["cast"].to_pylist() == [0] * 4
        assert len(server.requests) <= 2
    good, odd = voting(), {row["text"] for row in ROWS.select(range(4, 12))}
    with asked(lambda r, n: Said("?") if shown(r)["text"] in odd else good(r, n), tmp_path / "b") as (_, votes, _s):
        assert votes(block(ROWS, 0, 4))["cast"].to_pylist() == [1] * 4
        assert votes(block(ROWS, 4, 12))["cast"].to_pylist() == [0] * 8, "the LLM can judge: others were answered"
