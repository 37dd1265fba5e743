"""A task of a few words, its gold, and experiments on it."""

from __future__ import annotations

import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from datasets import Dataset, DatasetDict
from support.tiny import toy_rows, toy_task

from hf_synth.experiments.experiment import experiment
from hf_synth.experiments.grid import Grid, ScoringProtocol


def simulated(seed: int, *, right: float, corrector: float, n: int = 3_000, m: int = 200, k: int = 4):  # type: ignore[no-untyped-def]
    """Make labels right at a rate and calibrated opinions right at another, erring independently of each other."""
    rng = np.random.default_rng(seed)

    def opinions(truth: np.ndarray) -> np.ndarray:
        said = np.where(rng.random(len(truth)) < corrector, truth, (truth + rng.integers(1, k, len(truth))) % k)
        probs = np.full((len(truth), k), (1 - corrector) / (k - 1))
        probs[np.arange(len(truth)), said] = corrector
        return probs

    truth, gold = rng.integers(0, k, n), rng.integers(0, k, m)
    meant = np.where(rng.random(n) < right, truth, (truth + rng.integers(1, k, n)) % k)
    return truth, {"llm_label": meant, "pred_probs": opinions(truth), "gold_label": gold, "gold_probs": opinions(gold)}


TASK = toy_task()
SMALL = Grid(sizes=(20,), curve=(60,), arms=("gold", "synthetic raw", "augment raw"), ratios=(2.0,), seeds=(0, 1))


def toy_gold() -> DatasetDict:
    return DatasetDict(train=toy_rows(60, 1), test=toy_rows(40, 2))


def writer(own: Dataset, n: int, seed: int) -> Dataset:
    """Write rows as an LLM would: from its exemplars, 30% of the labels at random."""
    rng = random.Random(seed)
    rows = []
    for i, row in enumerate(toy_rows(n, 5_000 + seed)):
        meant = row["label"] if rng.random() > 0.3 else rng.randrange(3)
        rows.append({**row, "label": meant, "llm_label": meant, "id": f"s{seed}-{i}", "seed_ids": [own["id"][i % 5]]})
    return as_synthetic(rows)


def as_synthetic(rows: list[dict[str, Any]]) -> Dataset:
    features = TASK.synthetic_features()
    fill: dict[str, Any] = {"source": "synthetic", "label_status": "kept", "reason": "as_generated", "generator": "toy"}
    return Dataset.from_list([{**dict.fromkeys(features), **row, **fill} for row in rows], features=features)


def run(out: Path, grid: Grid = SMALL, made: Any = writer, *, report: bool = False, **more: Any) -> Any:
    """Run an experiment of few rows; its report, which takes as long as its trainings, is written where it is read."""
    scored = {"n_bootstrap": 20, "drop_seen": True}
    scored |= {name: more.pop(name) for name in vars(ScoringProtocol()) if name in more}
    options = {"processes": 0, "say": lambda line: None, "protocol": ScoringProtocol(**scored), **more}
    gold = options.pop("gold", None) or toy_gold()
    with nullcontext() if report else patch("hf_synth.experiments.experiment.write_study_report"):
        return experiment(TASK, made, gold=gold, grid=grid, out=out, **options)
