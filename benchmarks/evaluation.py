"""CPU time of scores with intervals: `python benchmarks/evaluation.py`. No model, no network."""

from __future__ import annotations

import time

import numpy as np

from hf_synth.evaluation.evaluation import score
from hf_synth.reports.page import markdown_table
from hf_synth.task.task import Task


def measure(n: int, k: int, *, probabilities: bool) -> list[object]:
    """Score n rows of k labels, three rows a patient; return a table row with CPU seconds."""
    labels = [f"label {i}" for i in range(k)]
    task = Task.from_columns("toy", text_columns="text", label_column="label", labels=labels, access="open")
    rng = np.random.default_rng(0)
    truth, probs = rng.integers(k, size=n), rng.dirichlet(np.ones(k), n)
    began = time.process_time()
    scores = score(task, probs if probabilities else probs.argmax(1), truth, [f"p{i // 3}" for i in range(n)])
    seconds = time.process_time() - began
    what = "probabilities" if probabilities else "labels"
    return [f"{n:,}", k, what, len(scores.values), seconds]


if __name__ == "__main__":
    measure(100, 2, probabilities=True)  # imports
    cells = [(1_000, 4), (10_000, 2), (10_000, 4), (10_000, 20)]
    rows = [measure(n, k, probabilities=p) for n, k in cells for p in (False, True)]
    print(markdown_table(["rows", "labels", "scored from", "metrics", "CPU seconds"], rows))
