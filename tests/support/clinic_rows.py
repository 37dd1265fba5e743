"""Gold of the clinic in made-up words, of which no two rows share a passage."""

from __future__ import annotations

import random

from datasets import Dataset

from hf_synth.task.task import Task

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lm", "ck")]


def words(seed: object, n: int = 40) -> str:
    return " ".join(random.Random(str(seed)).choices(WORDS, k=n))


def clinic_gold(task: Task, labels: list[int]) -> Dataset:
    rows = [task.gold_row(f"g{i}", f"p{i}", label, words(f"gold {i}")) for i, label in enumerate(labels)]
    return Dataset.from_list(rows, features=task.gold_features())
