"""Gold rows, synthetic rows and tasks of each access that the tests of publishing share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from datasets import Dataset

from hf_synth.correction.policy import Policy
from hf_synth.task.task import Task

CANARY = "zebrafinch-7741-quokka"
LABELS = ("no", "yes", "maybe")
OPEN = Task.from_columns(
    "notes",
    text_columns="text",
    label_column="label",
    labels=LABELS,
    access="open",
    license="MIT",
    metrics=("macro_f1",),
)
RESTRICTED = replace(OPEN, access="restricted")
CREDENTIALED = replace(OPEN, access="credentialed")
NOUNS = ("pain", "cough", "meal", "dose", "scan", "week", "node", "lobe", "tube", "diet", "weight", "fever", "throat")


@cache
def text(kind: str, i: int) -> str:
    """Write a text of its own for each number; no two share eight words in a row."""
    rng = np.random.default_rng([len(kind), ord(kind[0]), i])
    return " ".join(f"{rng.choice(NOUNS)} {rng.integers(10, 99)}a" for _ in range(20))


_MADE: dict[tuple[Any, ...], Dataset] = {}


def _made_once(make: Callable[[], Dataset], task: Task, *key: Any) -> Dataset:
    """Make rows of one of the three tasks above once; a Dataset never changes."""
    number = next((i for i, one in enumerate((OPEN, RESTRICTED, CREDENTIALED)) if one is task), None)
    if number is None:
        return make()
    if (number, *key) not in _MADE:
        _MADE[number, *key] = make()
    return _MADE[number, *key]


def gold_rows(task: Task, n: int = 30, kind: str = "gold") -> Dataset:
    return _made_once(lambda: _gold_rows(task, n, kind), task, "gold", n, kind)


def _gold_rows(task: Task, n: int, kind: str) -> Dataset:
    rows = [task.gold_row(f"adm-{kind}-{i}", f"patient-{i // 2}", i % 3, text(kind, i)) for i in range(n)]
    return Dataset.from_list(rows, features=task.gold_features())


def synthetic_rows(task: Task, n: int = 30, *, corrected: bool = True, **columns: Any) -> Dataset:
    if columns:
        return _synthetic_rows(task, n, corrected, columns)
    return _made_once(lambda: _synthetic_rows(task, n, corrected, {}), task, "synthetic", n, corrected)


def _synthetic_rows(task: Task, n: int, corrected: bool, columns: dict[str, Any]) -> Dataset:
    rows = []
    for i in range(n):
        rejected = i % 10 == 9
        row = task.gold_row(f"secret-admission-{i}", f"patient-{i}", None if rejected else i % 3, text("synthetic", i))
        row |= {"source": "synthetic", "seed_ids": [f"adm-gold-{i}"], "fold": i % 5, "prompt_sha256": f"hash-{i}"}
        row |= {
            "answer_code": "stop",
            "sampling": "{}",
            "created": "",
            **dict.fromkeys(("prompt_tokens", "completion_tokens", "cost_usd")),
        }
        row |= {"generator": "some-llm", "journal_key": f"key-{i}", "llm_label": None if rejected else i % 3}
        row |= {"label_status": "kept", "reason": "as_generated"}
        if rejected:
            row |= {"text": None, "label_status": "rejected", "reason": "refusal"}
        elif corrected:
            row |= [
                {"label_status": "kept", "reason": "agrees"},
                {"label": (i + 1) % 3, "label_status": "relabelled", "reason": "posterior"},
                {"label_status": "dropped", "reason": "disagrees"},
            ][i % 3]
        if corrected:
            row |= {"label_probs": [0.5, 0.25, 0.25], "label_confidence": 0.5, "weight": float(i % 3 != 2)}
        rows.append(row | columns)
    return Dataset.from_list(rows, features=task.corrected_features() if corrected else task.synthetic_features())


POLICY = Policy("posterior", 3, figures={"corrector_accuracy_on_held_out_gold": 0.75})
