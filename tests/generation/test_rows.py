"""Rows of many answers at once are those of one answer after the other."""

from __future__ import annotations

import json
import random
from typing import Any

from datasets import Dataset

from hf_synth.generation.gates import Gates
from hf_synth.generation.plan import Call, Pool
from hf_synth.generation.rows import rows_from_answer, rows_from_answers
from hf_synth.llm.questions import Answer
from hf_synth.privacy.repetition import Seen
from hf_synth.task.task import Task

TASK = Task.from_columns("notes", text_columns="text", label_column="label", labels=["calm", "urgent"], access="open")
WORDS = str.split("seen today with cough fever rash pain calm ward plan rest fluids review week month clear lungs")


def gold() -> Dataset:
    rng = random.Random(1)
    rows = [TASK.gold_row(f"g{i}", None, i % 2, " ".join(rng.choices(WORDS, k=60))) for i in range(30)]
    return Dataset.from_list(rows, features=TASK.gold_features())


def answers() -> list[tuple[Call, Answer]]:
    """Write answers of all sorts: good, repeated, copied from gold, unreadable, refused, cut, failed."""
    rng, texts = random.Random(2), gold()["text"]
    pairs = []
    for i in range(80):
        rows: list[dict[str, Any]] = [
            {"text": " ".join(rng.choices(WORDS, k=40)), "label": rng.choice(TASK.labels)} for _ in range(i % 4)
        ]
        if i % 5 == 0:
            rows.append({"text": texts[i % 30], "label": "calm"})
        if i % 7 == 0 and pairs:
            rows += json.loads(pairs[-1][1].text or '{"entries": []}')["entries"] if pairs[-1][1].status == "ok" else []
        status = {11: "refusal", 23: "error", 31: "truncated"}.get(i, "ok")
        text = "hm" if i == 40 else json.dumps({"entries": rows})
        call = Call(i, [], TASK.labels, 2, (f"g{i % 30}",), fold=i % 5)
        pairs.append((call, Answer("" if status == "error" else text, status, journal_key=f"{i:064x}")))  # type: ignore[arg-type]
    return pairs


def test_together_or_one_by_one_is_the_same() -> None:
    pool, pairs = Pool(TASK, gold()), answers()
    gates, seen = Gates(TASK, pool), Seen()
    alone = [rows_from_answer(TASK, call, answer, "open", gates, seen) for call, answer in pairs]
    for size in (1, 7, 32, 80):
        seen = Seen()
        groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
        together = [rows for group in groups for rows in rows_from_answers(TASK, group, "open", gates, seen)]
        assert together == alone
    reasons = {row["reason"] for rows in alone for row in rows}
    assert {"as_generated", "duplicate", "refusal", "llm_error", "truncated", "unparsable"} <= reasons
