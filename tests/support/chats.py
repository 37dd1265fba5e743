"""An LLM that answers at once, by its question alone; it can be pickled, and keeps no journal."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from datasets import Dataset

from hf_synth import Task
from hf_synth.llm.questions import Answer

WORDS = [f"word{i}" for i in range(4_000)]
TASK = Task.from_columns("t", text_columns="note", label_column="label", labels=["a", "b"], access="open")


class InstantLLM:
    """Writes one note of random words with the label that was asked for.

    Args:
        model: its name.
        where: stands for an endpoint, which decides nothing.
    """

    def __init__(self, model: str = "instant", where: str = "here") -> None:
        self.model, self.where, self.calls = model, where, 0

    def chat(self, list_of_messages: Iterable[Any], *, samples: Iterable[int], **_: Any) -> list[Answer]:
        answers = []
        for messages, sample in zip(list_of_messages, samples, strict=True):
            self.calls += 1
            key = sha256(json.dumps([messages, sample]).encode()).hexdigest()
            label = messages[1]["content"].split("each of these labels: ")[1][0]
            note = " ".join(random.Random(key).choices(WORDS, k=20))
            text = json.dumps({"entries": [{"note": note, "label": label}]})
            answers.append(Answer(text, "ok", "stop", 1, 1, None, self.model, key, False, 1.0))
        return answers


def short_gold(n: int = 12, task: Task = TASK) -> Dataset:
    """Make gold of two labels in turn."""
    rng = random.Random(0)
    rows = [
        task.gold_row(f"g{i}", f"p{i}", i % 2, " ".join(rng.choices(WORDS, k=20))) | {"source": "gold"}
        for i in range(n)
    ]
    return Dataset.from_list(rows, features=task.gold_features())
