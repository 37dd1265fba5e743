"""Generation in blocks: the rows of one run, nothing asked that one run does not ask, and nothing asked twice."""

from __future__ import annotations

import json
import pickle
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.kinds import ASKED, SETS, asked_gold, sets_gold
from support.tiny import toy_rows
from support.toy_experiment import TASK

from hf_synth.cluster.stages import GenerationWork, generation_work
from hf_synth.cluster.work import run_here, run_to_the_end
from hf_synth.errors import LLMError, OutputError
from hf_synth.generation import blocks
from hf_synth.generation.blocks import Order
from hf_synth.generation.generation import generate_with_figures
from hf_synth.llm.questions import Answer
from hf_synth.privacy.overlap import Index
from hf_synth.task.task import Task

GOLD = {TASK.name: toy_rows(24, 1), SETS.name: sets_gold(24, 1), ASKED.name: asked_gold(24, 1)}
ASKED_SO_FAR: Counter[str] = Counter()  # questions by digest, over all copies of a Writer


class Writer:
    """Answers by the question alone; two of five answers repeat a note, refuse, fail or cannot be read."""

    journal = Path("none")
    ahead = 20
    model = "writer"
    repeated = "a note that was written before by the same model"

    def __init__(self, code: str = "stop") -> None:
        self.code = code

    def with_journal(self, path: Any) -> Writer:
        return self

    def keep(self, keys: Any) -> None:
        pass

    def stream(self, questions: Iterable[Any], **_: Any) -> Iterator[Answer]:
        for question in questions:
            if question is not None:
                yield self._answer(question)

    def _answer(self, question: Any) -> Answer:
        key = sha256(json.dumps([question.messages, question.sample]).encode()).hexdigest()
        ASKED_SO_FAR[key] += 1
        luck = random.Random(key)
        kind = luck.random()
        said = question.messages[-1]["content"]
        found = re.search(r"Write (\d+) new entr(?:y|ies)(?: for each of these labels: (.*))?\.\n", said)
        assert found is not None
        labels = found[2].split(", ") if found[2] else [""]
        words = self.repeated if kind < 0.2 else f"{key[:6]} {key[6:12]} {key[12:18]}"
        rows: list[dict[str, Any]] = []
        for label in labels:
            if "question" in said:
                rows.append({"question": words, "context": f"{words} of {label}", "answer": "aspirin"})
            elif "findings" in said:
                rows.append({"text": f"{words} of {label}", "findings": [label]})
            else:
                rows.append({"text": f"{words} of {label}", "label": label})
        text = json.dumps({"entries": rows})
        usage: tuple[int, int] = (10, len(text))
        if kind > 0.95:
            return Answer("", "error", "malformed", journal_key=key)
        if kind > 0.9:
            return Answer("", "refusal", "content_filter", *usage, None, self.model, key)
        if kind > 0.85:
            return Answer("", "ok", "stop", *usage, None, self.model, key, created=1.0, again=True)
        if kind > 0.8:
            text = "I would rather not say."
        return Answer(text, "ok", self.code, *usage, 0.25, self.model, key, created=1.0)


def order_of(task: Task, n: int = 40, **more: Any) -> Order:
    return Order(task, GOLD[task.name], Writer(), n, seed=3, **more)  # type: ignore[arg-type]


def whole_of(order: Order) -> tuple[Dataset, dict[str, Any]]:
    given = {"prompt": order.prompt, "balance": order.balance, "max_calls": order.max_calls, "seed": order.seed}
    return generate_with_figures(order.task, order.exemplars, order.llm, order.n, **given)  # type: ignore[arg-type]


def spread(order: Order, folder: Path, shards: int = 3, times: int = 1) -> GenerationWork:
    """Run the shards from the last to the first, each anew as another process would, and what is left in one."""
    for _ in range(times):
        for number in reversed(range(shards)):
            work = generation_work(pickle.loads(pickle.dumps(order)), folder=folder).work
            while work.grow():
                pass
            run_here(work, work.shard(number, shards))
    merged = generation_work(order, folder=folder)
    merged.work.check_begun()
    run_to_the_end(merged.work)
    return merged


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CALLS", 4)
    ASKED_SO_FAR.clear()


@pytest.mark.parametrize("task", [TASK, SETS, ASKED], ids=lambda task: task.kind)
def test_shards_make_the_rows_of_one_run_by_the_same_calls(task: Task, tmp_path: Path) -> None:
    rows, figures = whole_of(order_of(task))
    asked = Counter(ASKED_SO_FAR)
    ASKED_SO_FAR.clear()
    merged = spread(order_of(task), tmp_path / "blocks", times=1 + (task is TASK))
    assert asked == ASKED_SO_FAR, "each call of one run, once"
    again, same = merged.rows()
    assert asked == ASKED_SO_FAR, "the rows are made without asking"
    assert again.to_list() == rows.to_list()
    assert same == figures
    assert {"duplicate", "refusal", "empty"} <= set(rows["reason"])
    assert len(merged.work.parts) > 2, "rejected rows are replaced in further rounds"


@pytest.mark.parametrize("more", [{"prompt": "rewrite"}, {"balance": "gold"}, {"max_calls": 20}], ids=str)
def test_other_plans_are_the_same_in_blocks(more: dict[str, Any], tmp_path: Path) -> None:
    rows, figures = whole_of(order_of(TASK, 60, **more))
    again, same = spread(order_of(TASK, 60, **more), tmp_path / "blocks").rows()
    assert again.to_list() == rows.to_list()
    assert same == figures


def test_the_blocks_say_what_is_a_copy_of_gold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gold = toy_rows(24, 1).map(lambda row, i: {"text": " ".join(f"w{i}x{k}" for k in range(40))}, with_indices=True)
    monkeypatch.setattr(Writer, "repeated", gold["text"][0])
    order = Order(TASK, gold, Writer(), 40, seed=3)  # type: ignore[arg-type]
    rows, _ = whole_of(order)
    assert "copied" in rows["reason"]
    merged = spread(order, tmp_path / "blocks")
    monkeypatch.setattr(Index, "reach", None)  # nothing is compared with gold again
    again, _ = merged.rows()
    assert again.to_list() == rows.to_list()


def test_blocks_of_another_seed_prompt_or_gold_are_others(tmp_path: Path) -> None:
    order = order_of(TASK, 20)
    spread(order, tmp_path / "blocks")
    for other in (
        Order(TASK, GOLD[TASK.name], Writer(), 20, seed=4),  # type: ignore[arg-type]
        Order(TASK, GOLD[TASK.name].select(range(20)), Writer(), 20, seed=3),  # type: ignore[arg-type]
    ):
        with pytest.raises(OutputError, match="not there yet"):
            generation_work(other, folder=tmp_path / "blocks").work.check_begun()


def test_a_block_without_budget_is_not_written(tmp_path: Path) -> None:
    class Poor(Writer):
        def _answer(self, question: Any) -> Answer:
            return Answer("", "error", "budget", journal_key="k")

    work = generation_work(Order(TASK, GOLD[TASK.name], Poor(), 20), folder=tmp_path / "blocks").work  # type: ignore[arg-type]
    with pytest.raises(LLMError, match="budget is spent"):
        run_here(work, work.shard(0, 1))
    assert not list(tmp_path.rglob("*.parquet"))


def test_calls_that_got_no_answer_are_asked_again_or_replaced(tmp_path: Path) -> None:
    class Down(Writer):
        def _answer(self, question: Any) -> Answer:
            return Answer("", "error", "timeout", journal_key="k")

    order = Order(TASK, GOLD[TASK.name], Down(), 20)  # type: ignore[arg-type]
    work = generation_work(order, folder=tmp_path / "blocks").work
    with pytest.raises(LLMError, match="questions of a block got no answer; every answer is kept: run the same"):
        run_here(work, work.shard(0, 1))
    assert not list(tmp_path.rglob("*.parquet"))
    work = generation_work(order, folder=tmp_path / "blocks", accept_failed=True).work
    assert run_here(work, work.shard(0, 1))[0] == len(work.places) > 0
