"""Opinions on rows in blocks: a model's probabilities and a judge's votes, each a function of an Arrow table.

A block is always the same rows: BLOCK_ROWS of them from the first row on. Rounding depends on which texts share a
batch, so that a run in one process and a run on many machines compute equal numbers only where blocks are equal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hf_synth.correction.judging import Heard, LLMJudge, judged_texts
from hf_synth.errors import LLMError
from hf_synth.llm.ledger import is_short
from hf_synth.llm.questions import Chat
from hf_synth.models.inference import predict_proba
from hf_synth.task import arrow
from hf_synth.task.arrow import arrow_array
from hf_synth.task.labels import Floats, Ints
from hf_synth.task.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_TALLY = b"hf_synth_tally"  # in the metadata of a block of votes


def probabilities_of(task: Task, model: str | Path, rows: Dataset) -> Floats:
    """Return the probability of each label for each row by a trained model, (N, K), block by block."""
    parts = [predict_proba(task, model, rows.select(range(*part))) for part in arrow.blocks(len(rows))]
    return np.concatenate([np.zeros((0, len(task.labels))), *parts])


@dataclass(frozen=True)
class ModelOpinions:
    """A trained model as a function of a block.

    Args:
        task: of the rows.
        model: folder or repo id of the model.
    """

    task: Task
    model: str

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the probability of each label for each row, as a column "probs"."""
        import pyarrow as pa
        from datasets import Dataset

        probs = np.asarray(predict_proba(self.task, self.model, Dataset(table)), dtype=np.float64)
        return pa.table({"probs": arrow_array(probs, pa.list_(pa.float64()))})


@dataclass(frozen=True)
class JudgeVotes:
    """A judge as a function of a block.

    Args:
        judge: the judge; its LLM checks in each process where texts of this access may go.
        access: of all rows, not of one block.
        accept_failed: whether a block stands without the votes of questions that got no answer.
    """

    judge: LLMJudge
    access: str
    accept_failed: bool = False
    _heard: Heard = field(init=False, repr=False, compare=False, default_factory=Heard)  # by this process

    @property
    def llm(self) -> Chat:
        """The LLM that is asked."""
        return self.judge.llm

    def with_llm(self, llm: Chat) -> JudgeVotes:
        """Return the same function with another LLM."""
        return replace(self, judge=replace(self.judge, llm=llm))

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return columns "probs" and "cast" (the number of votes); what was asked and lost is in the metadata.

        Raises:
            LLMError: the budget is spent, questions got no answer that may come later, or no question got a vote:
                what a block that stands lacks is missing for good.
        """
        import pyarrow as pa
        from datasets import Dataset

        judge = self.judge.afresh()
        probs, cast = judge.votes_of(judged_texts(judge.task, Dataset(table)), self.access, self._heard)
        if is_short(judge.llm):
            raise LLMError("the budget is spent; every answer is kept: raise it, and run the same command again")
        later = judge.tally.get("later", 0)
        if later and not self.accept_failed:
            raise LLMError(
                f"{later:,} of {judge.tally['asked']:,} questions of a block got no answer; every answer is kept: run "
                "the same command again; --accept-failed goes on without those that never get one"
            )
        tally = json.dumps({"tally": judge.tally, "models": sorted(judge.models)}).encode()
        columns = {"probs": arrow_array(probs, pa.list_(pa.float64())), "cast": pa.array(cast, pa.int64())}
        return pa.table(columns).replace_schema_metadata({_TALLY: tally})


def joined_probabilities(blocks: Iterable[pa.Table], n_labels: int) -> Floats:
    """Return the probabilities of the blocks of some rows, (N, K)."""
    parts = [np.asarray(block["probs"].combine_chunks().flatten()).reshape(-1, n_labels) for block in blocks]
    return np.concatenate([np.zeros((0, n_labels)), *parts])


def joined_votes(judge: LLMJudge, blocks: Iterable[pa.Table], name: str) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return the probabilities, (N, K), and numbers of votes, (N,), of the blocks of some rows.

    The judge's `figures` then count what was asked for the blocks.

    Args:
        name: of the rows; the same rows count once.

    Raises:
        LLMError: no row got a vote.
    """
    blocks = list(blocks)
    counts: Counter[str] = Counter()
    models: set[str] = set()
    for block in blocks:
        told = json.loads(block.schema.metadata[_TALLY])
        counts.update(told["tally"])
        models.update(told["models"])
    judge.check_votes(counts)
    judge.take_over(name, counts, models)
    cast: Ints = np.concatenate([np.zeros(0, np.int64), *(np.asarray(block["cast"]) for block in blocks)])
    return joined_probabilities(blocks, len(judge.task.labels)), cast
